package e2e

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"

	"github.com/eks-tenant-logs/eks-tenant-logs/e2e/environment"
	"github.com/eks-tenant-logs/eks-tenant-logs/e2e/node"
	"github.com/eks-tenant-logs/eks-tenant-logs/internal/fakeaws"
)

// Promises 3 and 4 from one agent to the next, where the kubelet rotates files meanwhile.

// launcher builds the launcher.
func launcher(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "tenantlogs-launcher")
	cmd := exec.Command("go", "build", "-o", path, "github.com/eks-tenant-logs/eks-tenant-logs/launcher")
	cmd.Env = append(environment.Machine(), "CGO_ENABLED=0")
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, string(out))
	return path
}

// rolls is a series of agents, one after the other, on a node where containers write and the kubelet rotates.
type rolls struct {
	times      int           // agents that end
	rate       int           // lines a second, of all containers
	containers int           //
	rotate     time.Duration // between rotations of each container
	keep       int           // containerLogMaxFiles
	life, gap  time.Duration // of each agent; between one's end and the next one's start
	grace      time.Duration
	fault      *fakeaws.Fault // from each agent's SIGTERM until the next one has started
	kill       bool
}

// result is what came of it.
type rolled struct{ lines, lost, twice, copies int }

func (r rolled) String() string {
	return fmt.Sprintf("%d lines: %d lost, %d twice, %d files copied", r.lines, r.lost, r.twice, r.copies)
}

func (r rolls) run(t *testing.T) rolled {
	e := onFluentBit(t)
	cw, s := standIn(t, fakeaws.Config{Latency: 20 * time.Millisecond})
	faults := fakeaws.NewFaults(1)
	s.SetIntercept(faults.Intercept)
	n := newNode(t)
	logs := make([]*node.ContainerLog, r.containers)
	for i := range logs {
		var err error
		logs[i], err = n.Container(node.Pod{Namespace: fmt.Sprint("tenant-t", i), Name: fmt.Sprint("pod-", i), Container: "c"}, r.keep)
		require.NoError(t, err)
		t.Cleanup(func() { logs[i].Close() })
	}
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	var work errgroup.Group
	written := make([]int, len(logs))
	for i, log := range logs {
		work.Go(func() error {
			const tick = 10 * time.Millisecond
			for began := time.Now(); ctx.Err() == nil; time.Sleep(tick) {
				var texts []string
				for due := int(time.Since(began).Seconds() * float64(r.rate) / float64(r.containers)); written[i] < due; written[i]++ {
					texts = append(texts, fmt.Sprintf("a line of some length, as they are %s#%d.%d", strings.Repeat("x", 60), i, written[i]))
				}
				if err := log.Write(texts...); err != nil {
					return err
				}
			}
			return nil
		})
		work.Go(func() error {
			at := time.Now()
			for {
				at = at.Add(r.rotate)
				select {
				case <-ctx.Done():
					return nil
				case <-time.After(time.Until(at)):
				}
				if err := log.Rotate(at); err != nil {
					return err
				}
			}
		})
	}
	log := newLog(t)
	var process atomic.Pointer[os.Process]
	run := node.Run{
		Node: n, Plugin: pluginPath(t), Env: cw.Env(), Log: log, State: t.TempDir(), Grace: r.grace, Launcher: launcher(t),
		Options: options(cw, "state_path", t.TempDir(), "parser", "cri"), Input: map[string]string{"rotate_wait": "60", "db.locking": "on", "db.compare_filename": "on"},
		Started: func(p *os.Process) { process.Store(p) },
	}
	for i := range r.times {
		began := time.Now()
		run.Until = func() bool {
			if i > 0 && time.Since(began) > r.life/4 {
				faults.Clear()
			}
			if time.Since(began) < r.life {
				return false
			}
			if r.fault != nil {
				faults.Set("away", *r.fault)
			}
			return true
		}
		require.NoError(t, e.Ship(within(t, 2*time.Minute), run))
		t.Logf("agent %d ended %s after SIGTERM", i+1, (time.Since(began) - r.life).Round(10*time.Millisecond))
		time.Sleep(r.gap)
	}
	faults.Clear()
	stop()
	require.NoError(t, work.Wait())
	want := map[string]int{}
	for i, n := range written {
		for k := range n {
			want[fmt.Sprintf("#%d.%d", i, k)] = 1
		}
	}
	// To the end, or until nothing has arrived for a while.
	last, since := -1, time.Now()
	run.Until = func() bool {
		if got := s.Accepted(); got != last {
			last, since = got, time.Now()
		}
		return time.Since(since) > 8*time.Second
	}
	require.NoError(t, e.Ship(within(t, 3*time.Minute), run))
	got := numbers(t, s)
	result := rolled{lines: len(want), copies: strings.Count(log.String(), "is delivered from its copy")}
	for number := range want {
		if got[number] == 0 {
			result.lost++
		}
		result.twice += max(0, got[number]-1)
	}
	for number := range got {
		require.Equal(t, 1, want[number], "what nothing wrote: %s", number)
	}
	t.Log(result)
	return result
}

func times(t *testing.T, usual int) int {
	t.Helper()
	if given := os.Getenv("E2E_ROLLS"); given != "" {
		n, err := strconv.Atoi(given)
		require.NoError(t, err)
		return n
	}
	return usual
}

func TestNothingLostNothingTwiceWhereFilesRotateBetweenTwoAgents(t *testing.T) {
	r := rolls{times: times(t, 3), rate: 5000, containers: 2, rotate: time.Second, keep: 5, life: 3 * time.Second, gap: time.Second, grace: 5 * time.Second}.run(t)
	require.Zero(t, r.lost)
	require.Zero(t, r.twice)
	require.Positive(t, r.copies, "there were rotations in between")
}
