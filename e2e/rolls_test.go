package e2e

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
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
	fault      *fakeaws.Fault // in the last quarter of each agent's life, and the first one of the next
	kill       bool           // Fluent Bit is killed instead of told to end
}

// result is what came of it.
type rolled struct {
	lines, lost, twice, copies int
	told                       int     // files that are called lost in the log
	counted                    float64 // copies and lost files, by the last agent's metric
}

func (r rolled) String() string {
	return fmt.Sprintf("%d lines: %d lost, %d twice, %d files copied", r.lines, r.lost, r.twice, r.copies)
}

func (r rolls) run(t *testing.T) rolled {
	e := onFluentBit(t)
	plugin, program := pluginPath(t), launcher(t) // built before a line is written
	cw, s := standIn(t, fakeaws.Config{Latency: 20 * time.Millisecond})
	faults := fakeaws.NewFaults(1)
	s.SetIntercept(faults.Intercept)
	n := newNode(t)
	logs := make([]*node.ContainerLog, r.containers)
	for i := range logs {
		var err error
		logs[i], err = n.Container(node.Pod{Namespace: fmt.Sprint("tenant-t", i), Name: fmt.Sprint("pod-", i), Container: "c"}, r.keep)
		require.NoError(t, err)
		t.Cleanup(func() { _ = logs[i].Close() })
	}
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	var work errgroup.Group
	written := make([]int, len(logs))
	began := time.Now()
	for i, log := range logs {
		work.Go(func() error {
			const tick = 10 * time.Millisecond
			for ; ctx.Err() == nil; time.Sleep(tick) {
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
			// Each container at a time of its own, which goes through all parts of a second: a file's name, and tail's
			// database, tell no more than the second.
			at := time.Now().Add(time.Duration(i) * 300 * time.Millisecond)
			for {
				at = at.Add(r.rotate + 37*time.Millisecond)
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
	address, err := node.FreeAddress()
	require.NoError(t, err)
	var process atomic.Pointer[os.Process]
	run := node.Run{
		Node: n, Plugin: plugin, Env: cw.Env(), Log: log, State: t.TempDir(), Grace: r.grace, Launcher: program,
		Options: options(cw, "state_path", t.TempDir(), "parser", "cri", "metrics_listen", address), Input: map[string]string{"rotate_wait": "60", "db.locking": "on", "db.compare_filename": "on"},
		Started: func(p *os.Process) { process.Store(p) },
	}
	for i := range r.times {
		started := time.Now()
		var once sync.Once
		run.Until = func() bool {
			now := time.Since(started)
			if r.fault != nil {
				if now > r.life-r.life/4 {
					faults.Set("away", *r.fault)
				} else if now > r.life/4 {
					faults.Clear()
				}
			}
			if r.kill && now > r.life {
				once.Do(func() { require.NoError(t, killChild(process.Load().Pid)) })
				return false // Ship says that it ended
			}
			return now > r.life
		}
		err := e.Ship(within(t, 2*time.Minute), run)
		if r.kill {
			require.ErrorContains(t, err, "ended by itself")
		} else {
			require.NoError(t, err)
		}
		t.Logf("agent %d ended %s after it was told to", i+1, (time.Since(started) - r.life).Round(10*time.Millisecond))
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
	var counted float64
	run.Until = func() bool {
		if got := s.Accepted(); got != last {
			last, since = got, time.Now()
		}
		counted = max(counted, node.Metrics(address)["tenantlogs_rotated_files_total"])
		return time.Since(since) > 8*time.Second
	}
	require.NoError(t, e.Ship(within(t, 3*time.Minute), run))
	got := numbers(t, s)
	result := rolled{lines: len(want), counted: counted,
		copies: strings.Count(log.String(), "is delivered from its copy"), told: strings.Count(log.String(), "lines of a container are lost")}
	for i, n := range written {
		for k := range n {
			number := fmt.Sprintf("#%d.%d", i, k)
			if got[number] == 0 {
				result.lost++
				if k == 0 || got[fmt.Sprintf("#%d.%d", i, k-1)] > 0 {
					t.Logf("lost from %s on, written %s", number, began.Add(time.Duration(float64(k)/float64(r.rate)*float64(r.containers)*float64(time.Second))).Format("15:04:05.000"))
				}
			}
			result.twice += max(0, got[number]-1)
		}
	}
	for number := range got {
		require.Equal(t, 1, want[number], "what nothing wrote: %s", number)
	}
	t.Log(result)
	return result
}

// killChild kills the only child of a process: what the launcher runs.
func killChild(pid int) error {
	children, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", pid, pid))
	if err != nil {
		return err
	}
	for _, task := range globbed(fmt.Sprintf("/proc/%d/task/*/children", pid)) {
		more, err := os.ReadFile(task)
		if err != nil {
			continue
		}
		children = append(append(children, ' '), more...)
	}
	for _, child := range strings.Fields(string(children)) {
		n, err := strconv.Atoi(child)
		if err != nil {
			return err
		}
		if err := syscall.Kill(n, syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
			return err
		}
	}
	return nil
}

func globbed(pattern string) []string {
	paths, err := filepath.Glob(pattern)
	if err != nil {
		panic(err) // the pattern is a literal
	}
	return paths
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

// A gap that is longer than the kubelet keeps rotated files loses lines, and tells of it for each container.
func TestWhatIsRotatedAwayBetweenTwoAgentsIsCounted(t *testing.T) {
	r := rolls{times: 1, rate: 1000, containers: 2, rotate: time.Second, keep: 3, life: 3 * time.Second, gap: 7 * time.Second, grace: 5 * time.Second}.run(t)
	require.Positive(t, r.lost)
	require.Zero(t, r.twice)
	require.Equal(t, 2, r.told)
	require.GreaterOrEqual(t, r.counted, 2.0)
}

// The end of an agent takes its grace and a few seconds, whatever CloudWatch does, and not the time of a flush.
func TestNothingLostNothingTwiceWhereFilesRotateWhileCloudWatchIsSlow(t *testing.T) {
	r := rolls{times: times(t, 2), rate: 5000, containers: 2, rotate: time.Second, keep: 20, life: 5 * time.Second, gap: 500 * time.Millisecond, grace: 4 * time.Second,
		fault: &fakeaws.Fault{Percent: 100, Latency: 3 * time.Second}}.run(t)
	require.Zero(t, r.lost)
	require.Zero(t, r.twice, "every answer came in time to be written down")
}

func TestNothingLostWhereFilesRotateWhileCloudWatchIsAway(t *testing.T) {
	r := rolls{times: times(t, 2), rate: 5000, containers: 2, rotate: time.Second, keep: 20, life: 5 * time.Second, gap: 500 * time.Millisecond, grace: 4 * time.Second,
		fault: &fakeaws.Fault{Percent: 100, Answer: fakeaws.Unavailable}}.run(t)
	require.Zero(t, r.lost)
	require.Zero(t, r.twice)
}

func TestNothingLostWhereFilesRotateAfterFluentBitWasKilled(t *testing.T) {
	r := rolls{times: times(t, 3), rate: 5000, containers: 2, rotate: time.Second, keep: 5, life: 3 * time.Second, gap: time.Second, grace: 5 * time.Second, kill: true}.run(t)
	require.Zero(t, r.lost)
	require.LessOrEqual(t, r.twice, 3*linesInHand)
}
