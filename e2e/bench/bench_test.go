package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/eks-tenant-logs/eks-tenant-logs/e2e/node"
)

func TestWhatIsMissingTwiceOrOutOfOrderIsCounted(t *testing.T) {
	w := work{Pods: 2, Lines: 8}
	line := func(n int) string { return fmt.Sprintf(`{"log":"#%d 10.1.2.3 - a line"}`, n) }
	var f figures
	f.verify(w, []stream{{line(0), line(1), line(2), line(3)}, {line(0), line(2), line(1), line(2), "something else"}})
	require.Equal(t, figures{Lost: 1, Duplicates: 1, Inversions: 1}, f)
}

func TestLinesCarryTheirNumberAndDiffer(t *testing.T) {
	l := newLines(1)
	a, b := l.next(7), l.next(7)
	require.NotEqual(t, a, b)
	require.Equal(t, "7", number.FindStringSubmatch(a)[1])
	require.InDelta(t, 160, len(a), 40)
}

func TestTheBetterNumberOfWorkersIsWhatCounts(t *testing.T) {
	r := &report{}
	add := func(name string, workers int, eventsPerSecond ...float64) {
		for _, v := range eventsPerSecond {
			r.Runs = append(r.Runs, figures{Part: "speed", Work: "w2", Contender: name, Workers: workers, Lines: 1, EventsPerSecond: v, CPUMicroseconds: 1, WirePerEvent: 1})
		}
	}
	add("core", 1, 90, 100, 500) // the median is 100
	add("core", 4, 80, 80, 80)
	add(oursGzip, 1, 50, 50, 50)
	add(oursGzip, 4, 105, 105, 105)
	add(oursPlain, 4, 1, 1, 1)
	bars := r.bars()
	require.Equal(t, "w2 events/s, to core", bars[0].What)
	require.InDelta(t, 1.05, bars[0].Figure, 1e-9)
	require.False(t, bars[0].Met)
	require.Contains(t, bars[0].String(), "missed")
	var out bytes.Buffer
	require.NoError(t, r.write(&out))
	require.Contains(t, out.String(), "1.05")
}

func TestThrottledRunsAreHeldAgainstTheirOwn(t *testing.T) {
	require.InDelta(t, 2.5, slowdown([]figures{{Seconds: 2}, {Seconds: 5, Throttled: 30}, {Seconds: 2}, {Seconds: 5, Throttled: 30}}), 1e-9)
}

func TestPeersAreReadWithTheirSections(t *testing.T) {
	dir := t.TempDir()
	so, conf := filepath.Join(dir, "x.so"), filepath.Join(dir, "x.conf")
	require.NoError(t, os.WriteFile(so, nil, 0o600))
	require.NoError(t, os.WriteFile(conf, []byte("Name x\nport {port}\nworkers {workers}\nendpoint {endpoint}\n"), 0o600))
	list, err := peers("x=" + so + ":" + conf)
	require.NoError(t, err)
	require.Len(t, list, 2)
	require.Equal(t, "Name x\nport 123\nworkers 4\nendpoint https://127.0.0.1:123\n", list[1].output(&node.CloudWatch{Endpoint: "https://127.0.0.1:123"}, work{}, 4))
	for _, wrong := range []string{"x", "x=" + so, "x=/nowhere.so:" + conf, "x=" + so + ":/nowhere.conf"} {
		_, err := peers(wrong)
		require.ErrorContains(t, err, "PEERS", wrong)
	}
}
