package e2e

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/eks-tenant-logs/eks-tenant-logs/e2e/host"
	"github.com/eks-tenant-logs/eks-tenant-logs/e2e/node"
	"github.com/eks-tenant-logs/eks-tenant-logs/internal/fakeaws"
)

// Promises 3, 4 and 7 for what has waited long, or comes in masses.

// A backlog of three weeks out of order, with clocks three hours ahead, empty lines and
// lines of 3 MB: each line is there once, under a time CloudWatch takes, and says its own.
func TestABacklogOutOfOrderArrivesOnce(t *testing.T) {
	onEngines(t, func(t *testing.T, e node.Engine) {
		cw, s := standIn(t, fakeaws.Config{})
		n := newNode(t)
		rng := rand.New(rand.NewPCG(5, 6))
		now := time.Now()
		const pods, lines = 8, 300
		want := map[string]int{}
		late, empty := 0, 0
		for p := range pods {
			var list []node.Line
			for i := range lines {
				number := fmt.Sprintf("#%d.%d", p, i)
				at := now.Add(3*time.Hour - time.Duration(rng.Int64N(int64(21*24*time.Hour))))
				if i%50 == 7 {
					list = append(list, node.Line{Time: at}) // an empty line says no number
					empty++
					continue
				}
				want[number] = 1
				if age := now.Sub(at); age > 14*24*time.Hour || age < -2*time.Hour {
					late++
				}
				text := "a line " + number
				if p == 0 && i == 100 {
					text = strings.Repeat("long ", 600_000) + number // 3 MB: three events
				}
				list = append(list, node.Line{Time: at, Text: text})
			}
			require.NoError(t, n.WriteLines(node.Pod{Namespace: fmt.Sprint("tenant-t", p%3), Name: fmt.Sprint("pod-", p), Container: "c"}, list...))
		}
		total := len(want) + empty + 2
		require.NoError(t, e.Ship(within(t, 2*time.Minute), node.Run{
			Node: n, Plugin: pluginPath(t), Env: cw.Env(), Log: newLog(t), Options: options(cw), Until: arrived(s, total),
		}))
		got := map[string]int{}
		originals, empties := 0, 0
		for _, g := range s.Groups() {
			for _, st := range g.Streams {
				events := s.Events(g.Name, st.Name)
				for _, ev := range events {
					age := now.UnixMilli() - ev.Timestamp
					require.Less(t, age, int64(14*24*time.Hour/time.Millisecond))
					if strings.Contains(ev.Message, `"original_time":"`) {
						originals++
					}
				}
				lines, ended := readLines(t, events)
				require.True(t, ended, "the last line is whole")
				for _, l := range lines {
					if l.text == "" {
						empties++
						continue
					}
					if len(l.text) > 3_000_000 {
						require.Equal(t, strings.Repeat("long ", 600_000), l.text[:3_000_000])
					}
					got[l.text[strings.IndexByte(l.text, '#'):]] += l.times
				}
			}
		}
		requireOnce(t, want, got)
		require.Equal(t, empty, empties)
		require.GreaterOrEqual(t, originals, late, "what CloudWatch would refuse says its own time")
	})
}

// Pods that come and go leave nothing behind but their streams: the plugin's memory does not
// grow with how many there have been.
func TestPodsThatComeAndGoLeaveNothingInMemory(t *testing.T) {
	pods := 1500
	if fluentBitWanted() != "" {
		pods = 10_000
	}
	cw, s := standIn(t, fakeaws.Config{DiscardMessages: true})
	h, err := startHost(t, host.Config{Env: cw.Env(), Outputs: []host.Output{{Workers: 8, Properties: options(cw, "retry_limit", "no_limits")}}})
	require.NoError(t, err)
	at := map[int]float64{}
	for n := range pods {
		tag := strings.Replace(strings.Replace(tagOfA, "tenant-a_p_", fmt.Sprintf("tenant-t%d_pod-%d_", n%20, n), 1), "0c8f1f1e", fmt.Sprintf("%08x", n), 1)
		require.NoError(t, h.Send(tag, record(fmt.Sprint("#", n))))
		if (n+1)%(pods/5) == 0 {
			require.NoError(t, h.Drain(within(t, 2*time.Minute)))
			at[n+1] = node.Resident(h.PID())
		}
	}
	require.Equal(t, pods, s.Accepted())
	t.Logf("resident MB after so many pods: %v", at)
	// Caches have bounds of some thousand entries; what they hold is small.
	require.Less(t, at[pods], at[pods/5]+40, "MB")
	_, err = h.Stop(within(t, time.Minute))
	require.NoError(t, err)
}
