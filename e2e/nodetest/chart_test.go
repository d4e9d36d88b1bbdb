package nodetest

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/eks-tenant-logs/eks-tenant-logs/e2e/realnode"
)

// A user's way: install, tenants, lines, helm test, uninstall.
func TestTheChartOnANodeShipsEachTenantsLinesOnceToItsGroup(t *testing.T) {
	c := aCluster(t)
	installed(t, c, nil)
	ctx := within(t, 4*time.Minute)
	lines := size(t, "E2E_LINES", 5000)
	var writers []realnode.Writer
	for i := range 3 {
		w := realnode.Writer{Tenant: fmt.Sprint("chart", i), Name: fmt.Sprint("writer-", i), Lines: lines, Rate: 1000}
		tenant(t, c, w.Tenant)
		require.NoError(t, c.StartWriter(ctx, w))
		writers = append(writers, w)
	}
	for _, w := range writers {
		written, err := c.Written(ctx, w)
		require.NoError(t, err)
		require.Equal(t, lines, written)
		count := c.Lines.Settle(ctx, w.Name, lines, 30*time.Second)
		t.Logf("%s: %s", w.Name, count)
		assert.Zero(t, count.Lost, "lost")
		assert.Zero(t, count.Twice, "twice")
		assert.Empty(t, count.Others(realnode.Group(w.Tenant)), "groups where they do not belong")
	}
	began := time.Now()
	said, err := c.HelmTest(ctx)
	require.NoError(t, err, said)
	t.Logf("helm test: %.1f s\n%s", time.Since(began).Seconds(), said)
	require.Contains(t, said, "in /eks/tenants/canary")
}
