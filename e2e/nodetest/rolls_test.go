package nodetest

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"

	"github.com/eks-tenant-logs/eks-tenant-logs/e2e/realnode"
)

// An upgrade replaces the agent while a pod writes and its file is rotated each few seconds. E2E_ROLLS is how often, E2E_RATE the pod's lines a
// second, of 200 bytes.
func TestRollsOfTheAgentLoseNoLineWhileFilesAreRotated(t *testing.T) {
	c := onFluentBit(t)
	rolls, rate := size(t, "E2E_ROLLS", 3), size(t, "E2E_RATE", 5000)
	installed(t, c, nil)
	tenant(t, c, "rolls")
	rollUnderLoad(t, c, rolls, realnode.Writer{Tenant: "rolls", Name: "rolled", Rate: float64(rate), Size: 200})
}

// rollUnderLoad rolls the agents while w writes, and counts.
func rollUnderLoad(t *testing.T, c *realnode.Cluster, rolls int, w realnode.Writer) {
	t.Helper()
	ctx := within(t, time.Duration(rolls+4)*3*time.Minute)
	require.NoError(t, c.StartWriter(ctx, w))
	require.NoError(t, c.Until(ctx, "its first lines arrive", func() (bool, error) { return c.Lines.Arrived(w.Name) > 0, nil }))
	began := time.Now()
	rotations := c.WatchRotations(w)
	type roll struct {
		at, ready time.Time
		first     int    // the number of a line that was read before it
		pods      string // when the old agent ended and the new one started
	}
	var all []roll
	for range rolls {
		// The one before is read to its end, and the files are rotated at other points of each roll.
		time.Sleep(5 * time.Second)
		before := agents(t, c)
		r := roll{at: time.Now(), first: c.Lines.Highest(w.Name)}
		require.NoError(t, c.Roll(ctx))
		r.ready = time.Now()
		for _, p := range agents(t, c) {
			r.pods += fmt.Sprintf(" %s started %s", p.Name, p.Status.ContainerStatuses[0].State.Running.StartedAt.Format(time.TimeOnly))
		}
		require.NotEqual(t, before[0].Name, agents(t, c)[0].Name)
		all = append(all, r)
	}
	time.Sleep(5 * time.Second)
	lines, err := c.StopWriter(ctx, w)
	require.NoError(t, err)
	took := time.Since(began)
	count := c.Lines.Settle(ctx, w.Name, lines, 40*time.Second)
	times := rotations.Stop()
	for i, r := range all {
		end := lines
		if i+1 < len(all) {
			end = all[i+1].first
		}
		during := 0
		for _, at := range times {
			if at.After(r.at) && at.Before(r.ready) {
				during++
			}
		}
		t.Logf("roll %d: new agent ready after %4.1f s, %d rotations in that time;%s; from there on %s", i+1, r.ready.Sub(r.at).Seconds(), during, r.pods, c.Lines.Between(w.Name, r.first, end))
	}
	t.Logf("%d rolls in %.0f s, %d rotations, %.0f lines/s: %s", rolls, took.Seconds(), len(times), float64(lines)/took.Seconds(), count)
	assert.Zero(t, count.Lost, "lost")
	assert.Zero(t, count.Twice, "twice")
	assert.Empty(t, count.Others(realnode.Group(w.Tenant)), "groups where they do not belong")
}

func agents(t *testing.T, c *realnode.Cluster) []corev1.Pod {
	t.Helper()
	pods, err := c.Agents(within(t, time.Minute))
	require.NoError(t, err)
	require.Len(t, pods, len(c.Nodes))
	return pods
}
