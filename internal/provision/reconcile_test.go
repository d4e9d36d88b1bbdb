package provision

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/eks-tenant-logs/eks-tenant-logs/internal/fakeaws"
)

func TestATenantIsSetUpWholeAndTheSecondRunWritesNothing(t *testing.T) {
	a := newAccount(t, fakeaws.Config{})
	p := a.provisioner(t, "c1")
	before := sum(a.writes())
	tenants := []Tenant{tenantOf("acme", "uid-1")}
	report, err := p.Reconcile(context.Background(), tenants)
	require.NoError(t, err)
	s := status(t, report, "acme")
	require.Equal(t, StateReady, s.State, "%+v", report)
	require.Equal(t, 365, s.RetentionDays)
	require.Equal(t, []string{"tenant-acme"}, s.Namespaces)
	require.Equal(t, sum(a.writes())-before, report.Writes, "%v", a.Calls())
	g := a.group(t, "/eks/tenants/acme")
	require.Equal(t, map[string]string{
		"eks-tenant-logs/cluster": "c1", "eks-tenant-logs/tenant": "acme", "eks-tenant-logs/namespace": "tenant-acme",
		"eks-tenant-logs/namespace-uid": "uid-1", "eks-tenant-logs/state": "ready",
	}, g.Tags)
	for _, name := range []string{"/eks/quarantine/acme", "/eks/platform", "/eks/quarantine/_pending"} {
		require.Equal(t, 365, a.group(t, name).RetentionInDays, name)
		require.Equal(t, "ready", a.group(t, name).Tags["eks-tenant-logs/state"], name)
	}
	r := a.role(t, p, "acme")
	require.NotNil(t, r)
	require.True(t, same(r.inline[readerPolicy], p.in.Scope.Reader("acme")))
	require.Equal(t, p.in.Scope.BoundaryARN(), r.boundary)
	require.Equal(t, "/eks-tenant-logs/", r.path)

	first := sum(a.writes())
	for name, again := range map[string]*Provisioner{"the same process": p, "another process": a.provisioner(t, "c1")} {
		report, err = again.Reconcile(context.Background(), tenants)
		require.NoError(t, err)
		require.Zero(t, report.Actions, name)
		require.Zero(t, report.Writes, name)
		require.Equal(t, StateReady, status(t, report, "acme").State)
		require.Equal(t, first, sum(a.writes()), name)
	}
}
