package e2e

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/eks-tenant-logs/eks-tenant-logs/e2e/node"
	"github.com/eks-tenant-logs/eks-tenant-logs/internal/fakeaws"
)

// Promises 3 and 4 for lines that the container runtime writes in several parts.

// Who joins the parts.
const (
	byPlugin   = "parser cri"
	byTail     = "multiline.parser cri"
	byThreaded = "multiline.parser cri, threaded"
)

// ended is what became of lines over several ends of Fluent Bit.
type ended struct {
	ends, crashes               int
	lines, lost, twice, damaged int
	cut                         int // lines that arrived as several events
}

func (e ended) String() string {
	return fmt.Sprintf("%d ends, %d crashes; %d lines: %d lost, %d damaged, %d twice, %d in several events", e.ends, e.crashes, e.lines, e.lost, e.damaged, e.twice, e.cut)
}

// endings runs Fluent Bit several times while containers write long lines, and ends it by a
// signal while a line of each is half written.
func endings(t *testing.T, joins string, signal syscall.Signal, ends int, load bool) (result ended) {
	e := onFluentBit(t)
	cw, s := standIn(t, fakeaws.Config{Latency: 20 * time.Millisecond})
	n := newNode(t)
	rng := rand.New(rand.NewPCG(7, 8))
	containers := make([]*container, 4)
	for i := range containers {
		containers[i] = newContainer(t, n, node.Pod{Namespace: fmt.Sprint("tenant-t", i), Name: fmt.Sprint("pod-", i), Container: "c"})
	}
	marker := newContainer(t, n, node.Pod{Namespace: "tenant-m", Name: "marker", Container: "c"})
	size := func() int { return 20_000 + rng.IntN(40_000) }
	written := func() map[string]int {
		want := maps.Clone(marker.want)
		for _, c := range containers {
			maps.Copy(want, c.want)
		}
		return want
	}
	run := node.Run{
		Node: n, Plugin: pluginPath(t), Env: cw.Env(), Log: newLog(t), State: t.TempDir(), Multiline: joins != byPlugin,
		Options: options(cw, "state_path", t.TempDir()), Service: map[string]string{"storage.checksum": "off"},
	}
	if joins == byThreaded {
		run.Input = map[string]string{"threaded": "on"}
	}
	for range ends {
		var process *os.Process
		run.Started = func(p *os.Process) { process = p }
		var halves []func()
		marked, killed := 0, false
		run.Until = func() bool {
			if killed {
				return false
			}
			if halves == nil {
				for _, c := range containers {
					if load {
						for range 40 {
							c.write(t, size())
						}
					}
					halves = append(halves, c.begin(t, size(), 1))
				}
				marker.write(t, 10)
				marked = marker.n
			}
			// Once the marker has arrived, what was written before it was read.
			if arrived, _ := readLines(t, s.Events("/eks/tenants/m", marker.pod.Stream())); len(arrived) < marked {
				return false
			}
			if signal == syscall.SIGKILL {
				killed = true
				require.NoError(t, process.Kill())
				return false
			}
			return true
		}
		err := e.Ship(within(t, time.Minute), run)
		result.ends++
		var exit *exec.ExitError
		switch {
		case signal == syscall.SIGKILL:
			require.ErrorContains(t, err, "ended by itself")
		case errors.As(err, &exit):
			result.crashes++
		default:
			require.NoError(t, err)
		}
		for _, end := range halves {
			end()
		}
	}
	want := written()
	run.Started = nil
	marker.write(t, 10)
	last := fmt.Sprintf("#marker.%d", marker.n)
	want[last] = 1
	stable, before := 0, -1
	run.Until = func() bool {
		if n := s.Accepted(); n != before {
			stable, before = 0, n
			got, _ := numbersOfLines(t, s)
			for number := range want {
				if got[number] == 0 {
					return false
				}
			}
			return true
		}
		stable++
		// Where lines are lost, the end is when nothing has come for 5 s.
		return joins != byPlugin && stable > 250
	}
	err := e.Ship(within(t, 2*time.Minute), run)
	if joins == byPlugin {
		require.NoError(t, err)
	}
	got, cut := numbersOfLines(t, s)
	result.lines, result.cut = len(want), cut
	for number := range want {
		if got[number] == 0 {
			result.lost++
		}
		result.twice += max(0, got[number]-1)
	}
	for text := range got {
		if strings.HasPrefix(text, "damaged") {
			result.damaged++
		}
	}
	t.Logf("%s, %s, load %v: %s", joins, signal, load, result)
	return result
}

// rounds is how often Fluent Bit is ended: $E2E_ROUNDS in longer runs.
func rounds(t *testing.T, n int) int {
	if v := os.Getenv("E2E_ROUNDS"); v != "" {
		given, err := strconv.Atoi(v)
		require.NoError(t, err)
		return given
	}
	return n
}

func TestALineHalfWrittenAtTheEndArrivesWhole(t *testing.T) {
	for _, load := range []bool{false, true} {
		r := endings(t, byPlugin, syscall.SIGTERM, rounds(t, 3), load)
		require.Zero(t, r.crashes)
		require.Zero(t, r.lost)
		require.Zero(t, r.damaged)
		require.Zero(t, r.twice)
	}
}

func TestALineHalfWrittenWhenKilledArrivesWhole(t *testing.T) {
	for _, load := range []bool{false, true} {
		r := endings(t, byPlugin, syscall.SIGKILL, rounds(t, 3), load)
		require.Zero(t, r.lost)
		require.Zero(t, r.damaged)
		// What was delivered and not acknowledged comes again: four workers have a chunk each.
		require.LessOrEqual(t, r.twice, r.ends*linesInHand)
	}
}

// What the chart did before, and the alternative, for docs/faults.md: $E2E_JOINED_BY_TAIL=1 prints
// their figures. Both lose lines, and the first crashes Fluent Bit 5.1.1.
func TestALineHalfWrittenAtTheEndWhereTailJoins(t *testing.T) {
	if os.Getenv("E2E_JOINED_BY_TAIL") == "" {
		t.Skip("E2E_JOINED_BY_TAIL is not set: Fluent Bit's own joining is measured only on request")
	}
	for _, joins := range []string{byTail, byThreaded} {
		for _, signal := range []syscall.Signal{syscall.SIGTERM, syscall.SIGKILL} {
			for _, load := range []bool{false, true} {
				endings(t, joins, signal, rounds(t, 3), load)
			}
		}
	}
}

// A node that lost power leaves NULs where a file got longer and its bytes were not written. They,
// and times that are none, do not join a line with its neighbours.
func TestADamagedLogFileKeepsLinesApart(t *testing.T) {
	onEngines(t, func(t *testing.T, e node.Engine) {
		cw, s := standIn(t, fakeaws.Config{})
		n := newNode(t)
		c := newContainer(t, n, node.Pod{Namespace: "tenant-a", Name: "pod", Container: "c"})
		at := time.Now().Add(-time.Minute).UTC().Truncate(time.Second)
		prefix := func(s int) string { return at.Add(time.Duration(s) * time.Second).Format(time.RFC3339Nano) }
		nul := strings.Repeat("\x00", 4096)
		_, err := c.file.WriteString(strings.Join([]string{
			prefix(0) + " stdout F first",
			prefix(1) + " stdout F torn" + nul + prefix(2) + " stdout F behind",
			nul + prefix(3) + " stdout P a long ", prefix(4) + " stderr F between", prefix(5) + " stdout F line",
			"2026-02-31T99:00:00Z stdout F no time", prefix(6) + " stdout F after",
			"garbage", prefix(7) + " stdout F last", "",
		}, "\n"))
		require.NoError(t, err)
		require.NoError(t, e.Ship(within(t, time.Minute), node.Run{
			Node: n, Plugin: pluginPath(t), Env: cw.Env(), Log: newLog(t), Options: options(cw), Until: arrived(s, 9),
		}))
		got := map[string]string{}
		for _, ev := range s.Events("/eks/tenants/a", c.pod.Stream()) {
			var m struct {
				Log, Stream string
				Notes       json.RawMessage `json:"_tenantlogs"`
			}
			require.NoError(t, json.Unmarshal([]byte(ev.Message), &m))
			got[m.Log] = fmt.Sprintf("%s %d %s", m.Stream, (ev.Timestamp-at.UnixMilli())/1000, m.Notes)
			if strings.Contains(string(m.Notes), "not_cri") {
				got[m.Log] = string(m.Notes) // the time is that of reading
			}
		}
		require.Equal(t, map[string]string{
			"first": "stdout 0 ", "torn": `stdout 1 {"changed":["nul"]}`, "behind": `stdout 2 {"changed":["nul"]}`,
			"a long line": `stdout 3 {"until":"` + prefix(5) + `","changed":["nul"]}`, "between": "stderr 4 ", "after": "stdout 6 ", "last": "stdout 7 ",
			"2026-02-31T99:00:00Z stdout F no time": `{"not_cri":true}`, "garbage": `{"not_cri":true}`,
		}, got)
	})
}

// What was read by `multiline.parser cri`, and not delivered, arrives as it is after the upgrade to `parser cri`.
func TestAnUpgradeFromTailsJoiningLosesNothing(t *testing.T) {
	e := onFluentBit(t)
	cw, s := standIn(t, fakeaws.Config{})
	f := fakeaws.NewFaults(1)
	s.SetIntercept(f.Intercept)
	f.Set("away", fakeaws.Fault{Percent: 100, Answer: fakeaws.Throttled})
	n := newNode(t)
	c := newContainer(t, n, node.Pod{Namespace: "tenant-a", Name: "pod", Container: "c"})
	write := func() {
		for range 20 {
			c.write(t, 100)
			c.write(t, 40_000)
		}
	}
	write()
	state := t.TempDir()
	run := node.Run{
		Node: n, Plugin: pluginPath(t), Env: cw.Env(), Log: newLog(t), State: state, Multiline: true, Grace: 2 * time.Second,
		Options: options(cw, "state_path", t.TempDir(), "flush_timeout", "1s"),
	}
	run.Until = func() bool { return f.Hits()["away"] > 0 }
	require.NoError(t, e.Ship(within(t, time.Minute), run))
	require.Zero(t, s.Accepted())
	f.Clear()
	write()
	run.Multiline, run.Grace = false, 0
	run.Until = func() bool { got, _ := numbersOfLines(t, s); return len(got) == len(c.want) }
	require.NoError(t, e.Ship(within(t, time.Minute), run))
	got, _ := numbersOfLines(t, s)
	requireOnce(t, c.want, got)
}
