package plot

import (
	"encoding/xml"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestWrittenPanelsAreWellFormedAndNameWhatTheyShow(t *testing.T) {
	file := filepath.Join(t.TempDir(), "docs", "x.svg")
	require.NoError(t, Write(file,
		Panel{Title: "Memory", X: "seconds", Y: "MB", Lines: []Series{{"ours", []Point{{0, 1}, {1, 2}}}, {"core", []Point{{0, 3}, {1, 1}}}}},
		Panel{Title: "Speed", Y: "to core", Labels: []string{"w1", "w2"}, Bars: []Bar{{"ours", []float64{1.2, 1.1}}, {"null", []float64{2, 2}}}, Level: 1},
		Panel{Title: "Cost", X: "streams", Y: "µs", LogX: true, LogY: true, Lines: []Series{{"ours", []Point{{1, 1}, {500, 20}}}}},
	))
	text, err := os.ReadFile(file)
	require.NoError(t, err)
	for _, want := range []string{"Memory", "Speed", "Cost", "seconds", "ours", "core", "null", "w1", "streams"} {
		require.Contains(t, string(text), ">"+want+"<")
	}
	for d := xml.NewDecoder(strings.NewReader(string(text))); ; {
		if _, err := d.Token(); errors.Is(err, io.EOF) {
			break
		} else {
			require.NoError(t, err)
		}
	}
}

func TestAnEmptyPlotIsRefused(t *testing.T) {
	require.Error(t, Write(filepath.Join(t.TempDir(), "x.svg")))
	require.Error(t, Write(filepath.Join(t.TempDir(), "x.svg"), Panel{Title: "t", Lines: []Series{{"nothing", nil}}}))
}
