package nodetest

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"

	"github.com/eks-tenant-logs/eks-tenant-logs/e2e/realnode"
)

// Others' files fill the volume under the agent's folder, to its last fiftieth at first. The agent ends before there is no room at all, the kubelet starts
// it again once there is some, and its lines wait in the kubelet's files meanwhile.
func TestAFullVolumeUnderTheStateLosesNoLine(t *testing.T) {
	long(t)
	c := onFluentBit(t)
	n := c.Nodes[0]
	removed(t, c)
	ctx := within(t, 8*time.Minute)
	require.NoError(t, n.MountState(ctx, "64m"))
	t.Cleanup(func() { require.NoError(t, n.UnmountState(context.Background())) })
	installed(t, c, realnode.Values{"fluentBit": realnode.Values{"minReadySeconds": 0}})
	// With what the runtime writes before it, 45 kB a second: the kubelet's three files of 1 MiB have what is written in 45 s at least, and the agent is
	// started again after 10, 20 and 40 s.
	w := realnode.Writer{Tenant: "volume", Name: "volume", Node: n.Name, Rate: float64(size(t, "E2E_VOLUME_RATE", 300)), Size: 100}
	tenant(t, c, w.Tenant)
	require.NoError(t, c.StartWriter(ctx, w))
	require.NoError(t, c.Until(ctx, "lines of 10 s arrive", func() (bool, error) { return c.Lines.Arrived(w.Name) > int(10*w.Rate), nil }))
	files, err := c.WatchRotations(w)
	require.NoError(t, err)
	began, first := time.Now(), c.Lines.Highest(w.Name)
	// Again and again: Fluent Bit gives back what it has delivered, and writes on.
	fill := func(leave int, what string, so func(corev1.ContainerStatus) bool) {
		t.Helper()
		require.NoError(t, c.Until(ctx, what, func() (bool, error) {
			if err := n.FillState(ctx, leave); err != nil {
				return false, err
			}
			return so(onFirstNode(t, c, agents(t, c)).Status.ContainerStatuses[0]), nil
		}))
		t.Logf("%s: %.1f s after the volume was full", what, time.Since(began).Seconds())
	}
	fill(size(t, "E2E_VOLUME_LEFT", 1<<20), "the agent has ended", func(s corev1.ContainerStatus) bool { return s.State.Running == nil || s.RestartCount > 0 })
	fill(0, "and does not start", func(s corev1.ContainerStatus) bool { return s.RestartCount > 0 && s.State.Waiting != nil })
	require.NoError(t, n.EmptyState(ctx))
	emptied := c.Lines.Arrived(w.Name)
	require.NoError(t, c.Until(ctx, "an agent is ready", func() (bool, error) { return onFirstNode(t, c, agents(t, c)).Status.ContainerStatuses[0].Ready, nil }))
	t.Logf("ready again after %.1f s; %d lines had arrived, line %d was the newest when the volume was full", time.Since(began).Seconds(), emptied, first)
	time.Sleep(5 * time.Second)
	lines, err := c.StopWriter(ctx, w)
	require.NoError(t, err)
	t.Logf("%d rotations", len(files.Stop()))
	judge(t, c, w, lines, once)
}
