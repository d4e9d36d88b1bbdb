package nodetest

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/eks-tenant-logs/eks-tenant-logs/e2e/realnode"
)

// The tenants file is a ConfigMap, which the kubelet renews in the pods. The agents take it over while a pod writes, without a roll: from then on its
// namespace is the platform's, and each of its lines is in the one group or in the other.
func TestAnotherTenantsFileIsTakenOverWithoutARoll(t *testing.T) {
	long(t)
	c := onFluentBit(t)
	released(t, c)
	ctx := within(t, 5*time.Minute)
	w := realnode.Writer{Tenant: "moves", Name: "moves", Node: c.Nodes[0].Name, Rate: 2000}
	tenant(t, c, w.Tenant)
	require.NoError(t, c.StartWriter(ctx, w))
	require.NoError(t, c.Until(ctx, "its first lines arrive", func() (bool, error) { return c.Lines.Arrived(w.Name) > 0, nil }))
	before := onFirstNode(t, c, agents(t, c))
	const platform = "/eks/platform"
	in := func(group string) int { return c.Lines.Between(w.Name, 0, 0).Groups[group] }
	require.Zero(t, in(platform))
	began := time.Now()
	require.NoError(t, c.Upgrade(ctx, realnode.Values{"tenants": realnode.Values{"exceptions": realnode.Values{"platformNamespaces": []string{w.Namespace()}}}}))
	t.Logf("helm upgrade: %.1f s", time.Since(began).Seconds())
	require.NoError(t, c.Until(ctx, "its lines go to the platform's group", func() (bool, error) { return in(platform) > 0, nil }))
	t.Logf("taken over %.1f s after the upgrade began", time.Since(began).Seconds())
	time.Sleep(3 * time.Second)
	_, err := c.Helm(ctx, "rollback", realnode.ReleaseName, "--namespace", realnode.ReleaseNamespace, "--wait", "--timeout", "3m")
	require.NoError(t, err)
	back := in(realnode.Group(w.Tenant))
	require.NoError(t, c.Until(ctx, "its lines go to the tenant's group again", func() (bool, error) { return in(realnode.Group(w.Tenant)) > back+2000, nil }))
	lines, err := c.StopWriter(ctx, w)
	require.NoError(t, err)
	count := c.Lines.Settle(ctx, w.Name, lines, 30*time.Second)
	t.Logf("%s: %s; in %v", w.Name, count, count.Groups)
	assert.Zero(t, count.Lost, "lost")
	assert.Zero(t, count.Twice, "twice")
	assert.Equal(t, []string{platform}, count.Others(realnode.Group(w.Tenant)))
	after := onFirstNode(t, c, agents(t, c))
	require.Equal(t, before.UID, after.UID, "the agent is the same")
	require.Equal(t, before.Status.ContainerStatuses[0].RestartCount, after.Status.ContainerStatuses[0].RestartCount)
}
