package scale

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

var (
	full = flag.String("full", "", "a folder for the results of the cluster's scenarios, which take about an hour; those that are there are kept")
	only = flag.String("only", "", "of the scenarios, those whose name contains this")
	show = flag.String("show", "", "an SVG to draw what the folder holds")
)

// TestCluster is `make scale`: it runs every scenario at its full size and prints the
// tables of docs/scaling.md.
func TestCluster(t *testing.T) {
	if *full == "" {
		t.Skip("give -full a folder: make scale")
	}
	require.NoError(t, os.MkdirAll(*full, 0o755))
	results := map[string]Result{}
	for _, c := range Cases() {
		file := filepath.Join(*full, strings.NewReplacer(" ", "-", ",", "").Replace(c.Name)+".json")
		var r Result
		if text, err := os.ReadFile(file); err == nil {
			require.NoError(t, json.Unmarshal(text, &r))
		} else if !strings.Contains(c.Name, *only) {
			continue
		} else {
			r = run(t, c.Scenario)
			text, err := json.Marshal(r)
			require.NoError(t, err)
			require.NoError(t, os.WriteFile(file, text, 0o600))
			fmt.Printf("%s: %s\n", c.Name, time.Duration(r.Real*float64(time.Second)).Round(time.Second))
		}
		require.Empty(t, r.Exceeded, c.Name)
		require.Zero(t, r.Lost+r.Twice+r.Strange, c.Name)
		require.Zero(t, r.Undelivered, c.Name)
		require.Zero(t, r.Trips, c.Name)
		require.LessOrEqual(t, r.Longest, r.Scenario.FlushTimeout.Seconds(), c.Name)
		results[c.Name] = r
	}
	require.NoError(t, Report(os.Stdout, results))
	if *show != "" {
		require.NoError(t, Draw(*show, results))
	}
}
