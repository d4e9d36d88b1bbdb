package e2e

import (
	"os"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/eks-tenant-logs/eks-tenant-logs/e2e/node"
	"github.com/eks-tenant-logs/eks-tenant-logs/internal/fakeaws"
)

// Promises 3 and 4 over the end of the process. They need an engine that keeps what it
// read and what it has not delivered: a real Fluent Bit with filesystem storage.

// restarted ships a node's lines in two lives of Fluent Bit: the first ends when part of
// them has arrived, by a signal or killed; backlog is what keeps the rest from arriving then.
func restarted(t *testing.T, kill bool, backlog *fakeaws.Fault, grace time.Duration, opts ...string) (twice, late int) {
	e := onFluentBit(t)
	cw, s := standIn(t, fakeaws.Config{Latency: 20 * time.Millisecond})
	f := fakeaws.NewFaults(1)
	s.SetIntercept(f.Intercept)
	n := newNode(t)
	want := writeNumbered(t, n, 30, 2000)
	buffer := newLog(t)
	var process *os.Process
	run := node.Run{
		Node: n, Plugin: pluginPath(t), Env: cw.Env(), Log: buffer, State: t.TempDir(), Grace: grace,
		Options: options(cw, append(opts, "state_path", t.TempDir())...), Started: func(p *os.Process) { process = p },
	}
	var once sync.Once
	told := 0
	run.Until = func() bool {
		if s.Accepted() < len(want)/3 {
			return false
		}
		if kill {
			once.Do(func() { require.NoError(t, process.Kill()) })
			return false // Ship says that it ended
		}
		if backlog != nil {
			f.Set("backlog", *backlog)
		}
		told = s.Accepted()
		return true
	}
	err := e.Ship(within(t, time.Minute), run)
	if kill {
		require.ErrorContains(t, err, "ended by itself")
	} else {
		require.NoError(t, err)
	}
	first := s.Accepted()
	if backlog != nil {
		require.Less(t, first, len(want), "there is a backlog")
	}
	f.Clear()
	run.Grace = 0
	run.Until = func() bool { return len(numbers(t, s)) == len(want) }
	require.NoError(t, e.Ship(within(t, 2*time.Minute), run))
	twice = requireThere(t, want, numbers(t, s))
	t.Logf("%d of %d lines arrived before the end; %d twice after the restart", first, len(want), twice)
	return twice, first - told
}

func TestRestartWithAnsweringCloudWatchBringsEachLineOnce(t *testing.T) {
	twice, _ := restarted(t, false, nil, 10*time.Second)
	require.Zero(t, twice)
}

// A backlog that Grace does not suffice for: what was not delivered is kept and comes again.
func TestRestartWithABacklogBeyondGraceLosesNothing(t *testing.T) {
	twice, late := restarted(t, false, &fakeaws.Fault{Percent: 90, Answer: fakeaws.Throttled}, time.Second, "flush_timeout", "3s")
	// Fluent Bit does not hear of a flush that ends after Grace, and brings its chunk again:
	// what was accepted since it was told to end, and the beginnings of the four chunks that
	// were in hand then.
	require.LessOrEqual(t, twice, late+linesInHand)
}

// linesInHand is what four workers have in hand at most: a chunk each, of up to 2 MB, of lines
// of 230 bytes.
const linesInHand = 4 * 2 << 20 / 230

func TestKilledFluentBitLosesNothing(t *testing.T) {
	// At most what was delivered and not acknowledged.
	twice, _ := restarted(t, true, nil, 0)
	require.LessOrEqual(t, twice, linesInHand)
}
