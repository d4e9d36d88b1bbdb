package e2e

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/eks-tenant-logs/eks-tenant-logs/e2e/host"
	"github.com/eks-tenant-logs/eks-tenant-logs/e2e/node"
	"github.com/eks-tenant-logs/eks-tenant-logs/internal/fakeaws"
)

// Promises 3, 4, 7 and 8 while CloudWatch is away.

// requireThere wants each number that was written, and no other, and returns how many
// times one arrived too often.
func requireThere(t *testing.T, want, got map[string]int) (twice int) {
	t.Helper()
	var missing, strange []string
	for number := range want {
		if got[number] == 0 {
			missing = append(missing, number)
		}
		twice += max(0, got[number]-1)
	}
	for number := range got {
		if want[number] == 0 {
			strange = append(strange, number)
		}
	}
	require.Empty(t, missing[:min(len(missing), 10)], "%d of %d are missing", len(missing), len(want))
	require.Empty(t, strange[:min(len(strange), 10)])
	return twice
}

// requireOnce wants each number once.
func requireOnce(t *testing.T, want, got map[string]int) {
	t.Helper()
	require.Zero(t, requireThere(t, want, got), "events that arrived twice")
}

// gate is a stand-in behind a gate, and a client's view of it through there.
func gate(t *testing.T, cfg fakeaws.Config) (*node.CloudWatch, *fakeaws.Server, *node.Gate) {
	t.Helper()
	cw, s := standIn(t, cfg)
	g, through, err := node.NewGate(cw.Endpoint)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, g.Close()) })
	behind := *cw
	behind.Endpoint = through
	return &behind, s, g
}

// outageLasts is how long CloudWatch is away: a few of every wait of the plugin's, or what
// $OUTAGE says in seconds.
func outageLasts(t *testing.T) time.Duration {
	if v := os.Getenv("OUTAGE"); v != "" {
		n, err := strconv.Atoi(v)
		require.NoError(t, err)
		return time.Duration(n) * time.Second
	}
	if os.Getenv("E2E_ENGINE") == "fluent-bit" {
		return 10 * time.Second
	}
	return 4 * time.Second
}

// away are the ways in which CloudWatch can be away, and back.
func away(g *node.Gate, f *fakeaws.Faults) map[string]func(gone bool) error {
	way := func(w node.Way) func(bool) error {
		return func(gone bool) error {
			if !gone {
				w = node.Open
			}
			return g.Set(w)
		}
	}
	return map[string]func(bool) error{
		"refused":     way(node.Refused),
		"no answer":   way(node.Silent),
		"reset":       way(node.Reset),
		"another TLS": way(node.Wrong),
		"5xx": func(gone bool) error {
			if gone {
				f.Set("5xx", fakeaws.Fault{Answer: fakeaws.Internal})
				return nil
			}
			f.Clear("5xx")
			return nil
		},
	}
}

func TestNothingLostNothingTwiceWhileCloudWatchIsAway(t *testing.T) {
	for name := range away(nil, nil) {
		t.Run(name, func(t *testing.T) {
			onEngines(t, func(t *testing.T, e node.Engine) {
				if e.Name() == "host" && (name == "reset" || name == "another TLS") {
					t.Skip("in the host the others stand for it; all of them: make e2e")
				}
				cw, s, g := gate(t, fakeaws.Config{Latency: time.Millisecond})
				f := fakeaws.NewFaults(1)
				s.SetIntercept(f.Intercept)
				leave := away(g, f)[name]
				n := newNode(t)
				want := writeNumbered(t, n, 20, 500)
				var pid int
				var before, during float64
				log := newLog(t)
				listen, err := node.FreeAddress()
				require.NoError(t, err)
				told := ""
				run := node.Run{
					Node: n, Plugin: pluginPath(t), Env: cw.Env(), Log: log, Options: options(cw, "metrics_listen", listen),
				}
				if e.Name() == "fluent-bit" {
					run.State, run.Started = t.TempDir(), func(p *os.Process) { pid = p.Pid }
				}
				var once, again sync.Once
				var gone time.Time
				run.Until = func() bool {
					if s.Accepted() < len(want)/10 {
						return false
					}
					once.Do(func() {
						before, gone = node.Resident(pid), time.Now()
						if err := leave(true); err != nil {
							t.Error(err)
						}
					})
					if time.Since(gone) < outageLasts(t) {
						during = max(during, node.Resident(pid))
						return false
					}
					again.Do(func() {
						if err := leave(false); err != nil {
							t.Error(err)
						}
					})
					told = metric(listen, "tenantlogs_unanswered_events_total")
					if told == "" {
						told = "0"
					}
					return s.Accepted() >= len(want) && len(numbers(t, s)) == len(want)
				}
				require.NoError(t, e.Ship(within(t, outageLasts(t)+2*time.Minute), run))
				unanswered, err := strconv.Atoi(told)
				require.NoError(t, err)
				twice := requireThere(t, want, numbers(t, s))
				require.LessOrEqual(t, twice, unanswered, "only what was in calls whose connections broke")
				t.Logf("%d events twice of %d in calls that broke", twice, unanswered)
				t.Logf("%s: back and all there %v after it left for %v; memory %.0f MB before, at most %.0f MB meanwhile", name, time.Since(gone).Round(100*time.Millisecond), outageLasts(t), before, during)
				// What the outage brings is kept by Fluent Bit, on disk; a flush takes nothing more.
				require.Less(t, during, before+150, "MB")
			})
		})
	}
}

// A name that is not found: every flush returns, the chunks are kept in filesystem storage,
// and a restart with the right name brings everything, once.
func TestNothingLostWhereTheNameOfCloudWatchIsNotFound(t *testing.T) {
	cw, s := standIn(t, fakeaws.Config{})
	storage := t.TempDir()
	start := func(endpoint string) *host.Host {
		h, err := startHost(t, host.Config{Env: cw.Env(), StorageDir: storage, Grace: 200 * time.Millisecond, Outputs: []host.Output{{
			Workers: 4, Properties: options(cw, "retry_limit", "no_limits", "endpoint", endpoint),
		}}})
		require.NoError(t, err)
		return h
	}
	h := start("https://logs.invalid")
	const chunks = 100
	for n := range chunks {
		require.NoError(t, h.Send(tagOfA, record(fmt.Sprint("#", n))))
	}
	require.NoError(t, h.Until(within(t, time.Minute), func(st host.Stats) bool { return st.Retries >= 2*chunks }))
	require.NoError(t, h.UntilLog(within(t, time.Minute), "CloudWatch Logs is out of reach"))
	sum, err := h.Stop(within(t, time.Minute))
	require.NoError(t, err)
	require.Equal(t, chunks, sum.KeptInStorage)
	h = start(cw.Endpoint)
	require.NoError(t, h.Drain(within(t, time.Minute)))
	_, err = h.Stop(within(t, time.Minute))
	require.NoError(t, err)
	got := numbers(t, s)
	require.Len(t, got, chunks)
	for number, n := range got {
		require.Equal(t, 1, n, number)
	}
}

// The documented case: CloudWatch accepted a batch, and its answer was lost. Nothing is
// lost; what is twice was in a call without an answer, and is counted as that.
func TestAnswersThatAreLostBringTheirBatchTwiceAndNoMore(t *testing.T) {
	onEngines(t, func(t *testing.T, e node.Engine) {
		cw, s := standIn(t, fakeaws.Config{})
		f := fakeaws.NewFaults(3)
		f.Set("answer lost", fakeaws.Fault{Operations: []string{"PutLogEvents"}, Percent: 15, Answer: fakeaws.ErrAnswerLost})
		var mu sync.Mutex
		unanswered := 0
		s.SetIntercept(func(c fakeaws.Call) error {
			err := f.Intercept(c)
			if errors.Is(err, fakeaws.ErrAnswerLost) && exists(s, c.LogGroup, c.LogStream) {
				mu.Lock()
				defer mu.Unlock()
				unanswered += c.Events
			}
			return err
		})
		n := newNode(t)
		want := writeNumbered(t, n, 20, 500)
		listen, err := node.FreeAddress()
		require.NoError(t, err)
		told := ""
		require.NoError(t, e.Ship(within(t, 2*time.Minute), node.Run{
			Node: n, Plugin: pluginPath(t), Env: cw.Env(), Log: newLog(t), Options: options(cw, "metrics_listen", listen),
			Until: func() bool {
				mu.Lock()
				defer mu.Unlock()
				if s.Accepted() < len(want)+unanswered {
					return false
				}
				told = metric(listen, "tenantlogs_unanswered_events_total")
				return true
			},
		}))
		twice := requireThere(t, want, numbers(t, s))
		require.Equal(t, unanswered, twice, "each lost answer brings its own batch once more")
		require.Positive(t, twice)
		counted, err := strconv.Atoi(told)
		require.NoError(t, err)
		require.GreaterOrEqual(t, counted, twice, "every event that is there twice was counted as unanswered")
	})
}
