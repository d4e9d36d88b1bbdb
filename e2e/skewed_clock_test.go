package e2e

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/eks-tenant-logs/eks-tenant-logs/e2e/node"
	"github.com/eks-tenant-logs/eks-tenant-logs/internal/fakeaws"
)

// Promises 3 and 4 on a node whose clock is wrong. No machine's clock is set: the stand-in's is
// moved, with its Date, its window for signatures and events and the end of its sessions, and the
// lines bear the node's times.

// skewedEvent is what arrived of one line, whatever form it has.
type skewedEvent struct {
	text   string // the line
	reason string // time_reason
	skew   *int64 // clock_skew_seconds
	at     time.Time
}

// skewedEvents are a stream's in the order GetLogEvents returns them.
func skewedEvents(t *testing.T, s *fakeaws.Server, group, stream string) []skewedEvent {
	t.Helper()
	var all []skewedEvent
	for _, ev := range s.Events(group, stream) {
		x := skewedEvent{at: time.UnixMilli(ev.Timestamp)}
		for text := ev.Message; ; {
			var m struct {
				Log   string
				Notes struct {
					Reason string `json:"time_reason"`
					Skew   *int64 `json:"clock_skew_seconds"`
				} `json:"_tenantlogs"`
			}
			require.NoError(t, json.Unmarshal([]byte(text), &m), ev.Message)
			if m.Notes.Reason != "" {
				x.reason, x.skew = m.Notes.Reason, m.Notes.Skew
			}
			x.text = m.Log
			if !strings.HasPrefix(m.Log, "{") {
				break
			}
			text = m.Log // an envelope
		}
		all = append(all, x)
	}
	return all
}

func TestNothingLostNothingTwiceOnANodeWhoseClockIsWrong(t *testing.T) {
	const (
		hour  = time.Hour
		day   = 24 * time.Hour
		pods  = 3
		lines = 20
		role  = "arn:aws:iam::123456789012:role/writer"
	)
	for _, test := range []struct {
		name  string
		ahead time.Duration // the node's clock, of AWS's
		taken bool          // CloudWatch takes the lines' times as they are
	}{
		{"one hour ahead", hour, true},
		{"two hours ahead", 2*hour + 5*time.Minute, false},
		{"two hours behind", -2 * hour, true},
		{"fifteen days ahead", 15 * day, false},
		{"fifteen days behind", -15 * day, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			onEngines(t, func(t *testing.T, e node.Engine) {
				cw, s := standIn(t, fakeaws.Config{})
				s.SetClockOffset(-test.ahead)
				n := newNode(t)
				began := time.Now()
				want := map[string]int{}
				for p := range pods {
					written := make([]node.Line, lines)
					for i := range written {
						written[i] = node.Line{Time: began.Add(time.Duration(i-lines) * time.Second), Text: fmt.Sprintf("#%d.%d", p, i)}
						want[written[i].Text] = 1
					}
					require.NoError(t, n.WriteLines(node.Pod{Namespace: fmt.Sprint("tenant-t", p), Name: "p", Container: "c"}, written...))
				}
				listen, err := node.FreeAddress()
				require.NoError(t, err)
				log := newLog(t)
				told := ""
				err = e.Ship(within(t, time.Minute), node.Run{
					Node: n, Plugin: pluginPath(t), Env: cw.Env(), Log: log,
					Options: options(cw, "metrics_listen", listen, "role_arn", role, "sts_endpoint", cw.Endpoint),
					Until: func() bool {
						told = metric(listen, "tenantlogs_clock_skew_seconds")
						return s.Accepted() >= len(want)
					},
				})
				t.Logf("%d of %d events accepted; calls: %v; sessions: %d", s.Accepted(), len(want), s.Calls(), len(s.AssumedRoles()))
				require.NoError(t, err)

				got := map[string]int{}
				for p := range pods {
					events := skewedEvents(t, s, fmt.Sprint("/eks/tenants/t", p), fmt.Sprintf("tenant-t%d/p/c", p))
					for i, ev := range events {
						got[ev.text]++
						require.Equal(t, fmt.Sprintf("#%d.%d", p, i), ev.text, "in the order they were written in")
						if test.taken {
							require.Empty(t, ev.reason)
							require.WithinDuration(t, began, ev.at, 2*time.Minute, "the time the line came with")
							continue
						}
						require.Equal(t, "clock_skew", ev.reason)
						require.NotNil(t, ev.skew)
						require.InDelta(t, test.ahead.Seconds(), float64(*ev.skew), 30)
						require.WithinDuration(t, time.Now().Add(-test.ahead), ev.at, 2*time.Minute, "AWS's present")
					}
				}
				require.Equal(t, want, got, "each line once")

				// Each tenant's first call may be refused for its signature, and one batch of each for its times.
				require.LessOrEqual(t, s.CallCount("PutLogEvents"), 6*pods)
				require.Len(t, s.AssumedRoles(), 1, "one session, for as long as AWS says it lasts")
				var skew float64
				_, err = fmt.Sscan(told, &skew)
				require.NoError(t, err, told)
				require.InDelta(t, test.ahead.Seconds(), skew, 30, "positive: the node is ahead")
				require.Equal(t, 1, strings.Count(log.String(), "this node's clock differs from AWS's"))
			})
		})
	}
}

// CloudWatch takes events up to 14 days old: one that is an hour younger is sent as it is.
func TestALineOfAlmostFourteenDaysArrivesAsItIs(t *testing.T) {
	onEngines(t, func(t *testing.T, e node.Engine) {
		cw, s := standIn(t, fakeaws.Config{})
		n := newNode(t)
		p := node.Pod{Namespace: "tenant-a", Name: "p", Container: "c"}
		now := time.Now()
		times := []time.Time{now.Add(-14*24*time.Hour + 10*time.Minute), now.Add(-13*24*time.Hour - 23*time.Hour), now.Add(2*time.Hour - time.Minute)}
		for i, at := range times {
			require.NoError(t, n.WriteLines(p, node.Line{Time: at, Text: fmt.Sprint("#", i)}))
		}
		require.NoError(t, e.Ship(within(t, time.Minute), node.Run{
			Node: n, Plugin: pluginPath(t), Env: cw.Env(), Log: newLog(t), Options: options(cw), Until: arrived(s, len(times)),
		}))
		for i, ev := range skewedEvents(t, s, "/eks/tenants/a", p.Stream()) {
			require.Equal(t, fmt.Sprint("#", i), ev.text)
			require.Empty(t, ev.reason, ev.text)
			require.WithinDuration(t, times[i], ev.at, time.Millisecond)
		}
	})
}
