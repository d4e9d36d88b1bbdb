package e2e

import (
	"fmt"
	"maps"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/eks-tenant-logs/eks-tenant-logs/e2e/node"
	"github.com/eks-tenant-logs/eks-tenant-logs/internal/fakeaws"
)

// docs/migration.md: from core's cloudwatch_logs to this plugin, and back.

// writePhase appends lines to the files of the same pods, with numbers of their own.
func writePhase(t *testing.T, n *node.Node, phase, pods, lines int, want map[string]int) {
	t.Helper()
	for p := range pods {
		texts := make([]string, lines)
		for i := range texts {
			number := fmt.Sprintf("#%d.%d.%d", phase, p, i)
			texts[i] = "a line of some length, as they are " + number
			want[number] = 1
		}
		require.NoError(t, n.Write(node.Pod{Namespace: fmt.Sprintf("tenant-t%d", p%3), Name: fmt.Sprint("pod-", p), Container: "c"}, texts...))
	}
}

// in are the numbers in the groups of that prefix.
func in(t *testing.T, s *fakeaws.Server, prefix string) int {
	t.Helper()
	n := 0
	for _, g := range s.Groups() {
		for _, st := range g.Streams {
			if strings.HasPrefix(g.Name, prefix) {
				n += len(s.Events(g.Name, st.Name))
			}
		}
	}
	return n
}

// Another output in the same Fluent Bit: its offsets and its filesystem storage stay. What the
// former output had not delivered when it ended is delivered by the next one.
func TestMovingOverWithTheOffsetsTakenAlongBringsEachLineOnceAndSoDoesGoingBack(t *testing.T) {
	e := onFluentBit(t)
	cw, s := standIn(t, fakeaws.Config{})
	f := fakeaws.NewFaults(1)
	s.SetIntercept(f.Intercept)
	n := newNode(t)
	want := map[string]int{}
	run := node.Run{Node: n, Plugin: pluginPath(t), Env: cw.Env(), Log: newLog(t), State: t.TempDir(), Options: options(cw), Grace: 5 * time.Second}
	core := node.CoreOutput(cw, 1)
	for phase, output := range []string{core, "", core} {
		writePhase(t, n, phase, 6, 300, want)
		run.Output, run.Until = output, func() bool { return len(numbers(t, s)) == len(want) }
		require.NoError(t, e.Ship(within(t, time.Minute), run), "phase %d", phase)
	}
	requireOnce(t, want, numbers(t, s))
	require.Equal(t, 6*300, in(t, s, "/eks/tenants/"), "what came in the second phase is the plugin's")

	// The same with a backlog: core ends while CloudWatch takes nothing.
	f.Set("away", fakeaws.Fault{Answer: fakeaws.Throttled, Operations: []string{"PutLogEvents"}})
	writePhase(t, n, 3, 6, 300, want)
	before := s.Accepted()
	run.Output, run.Grace = core, time.Second
	run.Until = func() bool { return f.Hits()["away"] >= 5 }
	require.NoError(t, e.Ship(within(t, time.Minute), run))
	require.Equal(t, before, s.Accepted(), "there is a backlog")
	f.Clear()
	run.Output, run.Until = "", func() bool { return len(numbers(t, s)) == len(want) }
	require.NoError(t, e.Ship(within(t, time.Minute), run))
	requireOnce(t, want, numbers(t, s))
}

// Both outputs in one Fluent Bit: each gets every line.
func TestMovingOverBesideCoreInOneFluentBitBringsEachLineToBoth(t *testing.T) {
	e := onFluentBit(t)
	cw, s := standIn(t, fakeaws.Config{})
	n := newNode(t)
	want := map[string]int{}
	writePhase(t, n, 0, 6, 300, want)
	require.NoError(t, e.Ship(within(t, time.Minute), node.Run{
		Node: n, Plugin: pluginPath(t), Env: cw.Env(), Log: newLog(t), State: t.TempDir(), Options: options(cw), Filters: "\n[OUTPUT]\n" + node.CoreOutput(cw, 1),
		Until: func() bool { return in(t, s, "/eks/") >= 2*len(want) },
	}))
	require.Equal(t, len(want), in(t, s, "/eks/tenants/"))
	twice := maps.Clone(want)
	for number := range twice {
		twice[number] = 2
	}
	require.Equal(t, twice, numbers(t, s))
}
