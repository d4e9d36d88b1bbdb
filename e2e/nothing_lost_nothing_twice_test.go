package e2e

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/eks-tenant-logs/eks-tenant-logs/e2e/node"
	"github.com/eks-tenant-logs/eks-tenant-logs/internal/fakeaws"
)

// Promises 3 and 4. Every line bears a number; every number must be there once.

// numbers reads the lines' numbers back from everywhere.
func numbers(t *testing.T, s *fakeaws.Server) map[string]int {
	t.Helper()
	got := map[string]int{}
	for _, g := range s.Groups() {
		for _, st := range g.Streams {
			for _, e := range s.Events(g.Name, st.Name) {
				var m struct{ Log string }
				require.NoError(t, json.Unmarshal([]byte(e.Message), &m), e.Message)
				at := strings.Index(m.Log, "#")
				require.GreaterOrEqual(t, at, 0, e.Message)
				got[m.Log[at:]]++
			}
		}
	}
	return got
}

// writeNumbered writes lines of many pods and returns what must arrive.
func writeNumbered(t *testing.T, n *node.Node, pods, lines int) map[string]int {
	t.Helper()
	want := map[string]int{}
	for p := range pods {
		texts := make([]string, lines)
		for i := range texts {
			texts[i] = fmt.Sprintf("a line of some length, as they are %s#%d.%d", strings.Repeat("x", 60), p, i)
			want[fmt.Sprintf("#%d.%d", p, i)] = 1
		}
		require.NoError(t, n.Write(node.Pod{Namespace: fmt.Sprintf("tenant-t%d", p%7), Name: fmt.Sprint("pod-", p), Container: "c"}, texts...))
	}
	return want
}

// failing makes three calls of ten fail, each in a way that passes.
func failing(s *fakeaws.Server) {
	var mu sync.Mutex
	rng := rand.New(rand.NewPCG(1, 2))
	s.SetIntercept(func(fakeaws.Call) error {
		mu.Lock()
		defer mu.Unlock()
		switch rng.IntN(10) {
		case 0:
			return &fakeaws.APIError{Code: "ThrottlingException", Message: "Rate exceeded"}
		case 1:
			return fakeaws.ErrConnectionReset // before the call is carried out
		case 2:
			return &fakeaws.APIError{Code: "ServiceUnavailableException", Message: "try later", Status: 503}
		}
		return nil
	})
}

func TestNothingLostNothingTwiceWhileCallsFail(t *testing.T) {
	onEngines(t, func(t *testing.T, e node.Engine) {
		ctx := within(t, 2*time.Minute)
		cw, s := standIn(t, fakeaws.Config{})
		failing(s)
		n := newNode(t)
		want := writeNumbered(t, n, 20, 500)
		require.NoError(t, e.Ship(ctx, node.Run{
			Node: n, Plugin: pluginPath(t), Env: cw.Env(), Log: newLog(t), Options: options(cw), Until: arrived(s, len(want)),
		}))
		require.Equal(t, want, numbers(t, s))
	})
}

// Denials and missing groups send chunks back to the engine, which brings them again.
func TestNothingLostNothingTwiceWhileChunksGoBack(t *testing.T) {
	onEngines(t, func(t *testing.T, e node.Engine) {
		ctx := within(t, 2*time.Minute)
		cw, s := standIn(t, fakeaws.Config{})
		var puts atomic.Int32
		s.SetIntercept(func(c fakeaws.Call) error {
			if c.Operation == "PutLogEvents" && puts.Add(1)%3 == 0 {
				return &fakeaws.APIError{Code: "AccessDeniedException", Message: "not now"}
			}
			return nil
		})
		n := newNode(t)
		want := writeNumbered(t, n, 12, 300)
		require.NoError(t, e.Ship(ctx, node.Run{
			Node: n, Plugin: pluginPath(t), Env: cw.Env(), Log: newLog(t), Options: options(cw), Until: arrived(s, len(want)),
		}))
		require.Equal(t, want, numbers(t, s))
	})
}

// A call that takes longer than the flush may: the flush leaves, the call arrives,
// the retried flush waits for it instead of sending again.
func TestNothingLostNothingTwiceWhenFlushesTimeOut(t *testing.T) {
	onEngines(t, func(t *testing.T, e node.Engine) {
		ctx := within(t, 2*time.Minute)
		cw, s := standIn(t, fakeaws.Config{})
		hang := make(chan struct{})
		var held atomic.Int32
		s.SetIntercept(func(c fakeaws.Call) error {
			if c.Operation == "PutLogEvents" && held.Add(1) <= 3 {
				<-hang
			}
			return nil
		})
		n := newNode(t)
		want := writeNumbered(t, n, 3, 200)
		log := newLog(t)
		var once sync.Once
		require.NoError(t, e.Ship(ctx, node.Run{
			Node: n, Plugin: pluginPath(t), Env: cw.Env(), Log: log, Options: options(cw, "flush_timeout", "1s"),
			Until: func() bool {
				if strings.Contains(log.String(), "not every event was accepted within flush_timeout") {
					once.Do(func() { close(hang) })
				}
				return arrived(s, len(want))()
			},
		}))
		require.Equal(t, want, numbers(t, s))
	})
}

// Old, new, large and odd lines arrive, marked.
func TestNothingLostOfWhatCloudWatchWouldReject(t *testing.T) {
	onEngines(t, func(t *testing.T, e node.Engine) {
		ctx := within(t, time.Minute)
		cw, s := standIn(t, fakeaws.Config{})
		n := newNode(t)
		p := node.Pod{Namespace: "tenant-a", Name: "p", Container: "c"}
		now := time.Now()
		require.NoError(t, n.WriteLines(p,
			node.Line{Time: now.Add(-30 * 24 * time.Hour), Text: "old #1"},
			node.Line{Time: now.Add(26 * time.Hour), Text: "new #2"},
			node.Line{Time: now.Add(-25 * time.Hour), Text: "yesterday #3"},
			node.Line{Time: now, Text: "broken \xff\xfe #4"},
			node.Line{Time: now, Text: strings.Repeat("long ", 500_000) + "#5"},
			node.Line{Time: now, Text: "#6"},
		))
		require.NoError(t, e.Ship(ctx, node.Run{
			Node: n, Plugin: pluginPath(t), Env: cw.Env(), Log: newLog(t), Options: options(cw), Until: arrived(s, 8),
		}))
		events := s.Events("/eks/tenants/a", p.Stream())
		require.GreaterOrEqual(t, len(events), 8, "five lines, and one in three parts at least")
		whole := 0
		for _, ev := range events {
			require.Less(t, ev.Timestamp, now.Add(time.Hour).UnixMilli())
			var m struct {
				Log   string
				Notes struct {
					Part, Parts  int
					Partial      bool
					OriginalTime string `json:"original_time"`
					TimeReason   string `json:"time_reason"`
					Changed      []string
				} `json:"_tenantlogs"`
			}
			require.NoError(t, json.Unmarshal([]byte(ev.Message), &m))
			switch {
			case m.Notes.Parts > 0, m.Notes.Partial, strings.HasSuffix(m.Log, "#5"):
				// Longer than a chunk, and what is in the first one longer than an event: read whole below.
			case strings.HasSuffix(m.Log, "#1"):
				require.Equal(t, "too_old", m.Notes.TimeReason)
				whole++
			case strings.HasSuffix(m.Log, "#2"):
				require.Equal(t, "too_new", m.Notes.TimeReason)
				whole++
			case strings.HasSuffix(m.Log, "#4"):
				require.Equal(t, []string{"utf8"}, m.Notes.Changed)
				whole++
			default:
				whole++
			}
		}
		require.Equal(t, 5, whole)
		lines, ended := readLines(t, events)
		require.True(t, ended)
		long := slices.IndexFunc(lines, func(l line) bool { return strings.HasSuffix(l.text, "long #5") })
		require.GreaterOrEqual(t, long, 0, "parts in the order GetLogEvents returns them")
		require.Equal(t, strings.Repeat("long ", 500_000)+"#5", lines[long].text)
	})
}
