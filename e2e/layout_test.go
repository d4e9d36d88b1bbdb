package e2e

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/eks-tenant-logs/eks-tenant-logs/e2e/node"
	"github.com/eks-tenant-logs/eks-tenant-logs/internal/fakeaws"
)

// Why the chart refuses `fluentBit.config.layout containers`, and what an installation that had it
// pays for the change.

// relayout is an agent over one state, with the chart's present layout or the one that was dropped.
func relayout(t *testing.T) (start func(links bool, until int) (accepted int)) {
	e := onFluentBit(t)
	cw, s := standIn(t, fakeaws.Config{})
	n := newNode(t)
	tenants := filepath.Join(t.TempDir(), "tenants.yaml")
	require.NoError(t, os.WriteFile(tenants, []byte("version: 1\n"), 0o600))
	state := stateFolder(t)
	writePhase(t, n, 0, 6, 300, map[string]int{})
	return func(links bool, until int) int {
		var more map[string]string
		if links {
			more = map[string]string{
				n.Root + "/var/log/pods/*/*/*.log":           n.Root + "/var/log/containers/*.log",
				"exclude_path: " + n.Root + "/var/log/pods/": "exclude_path: " + n.Root + "/var/log/none/",
				node.FluentBit{}.TagPrefix(n, node.Pods):     node.FluentBit{}.TagPrefix(n, node.Containers),
			}
		}
		before := s.Accepted()
		cmd, log := agentWith(t, e, cw, n, state, tenants, more)
		require.Eventually(t, func() bool { return s.Accepted() >= before+until }, time.Minute, 50*time.Millisecond, "%s", log)
		time.Sleep(4 * time.Second) // what would come again, comes now
		terminate(t, cmd)
		return s.Accepted() - before
	}
}

func TestEachStartReadsFilesBehindLinksAgain(t *testing.T) {
	start := relayout(t)
	require.Equal(t, 1800, start(true, 1800))
	for range 2 {
		require.Equal(t, 1800, start(true, 0), "Fluent Bit knows a file behind a link again: the layout may come back")
	}
}

func TestLeavingLinksRepeatsOnceAndNothingAfterwards(t *testing.T) {
	start := relayout(t)
	require.Equal(t, 1800, start(true, 1800))
	require.Equal(t, 1800, start(false, 1800), "what the files hold, once more")
	for range 2 {
		require.Zero(t, start(false, 0))
	}
}
