package controller

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"

	"github.com/eks-tenant-logs/eks-tenant-logs/internal/provision"
	"github.com/eks-tenant-logs/eks-tenant-logs/internal/tenancy"
)

// shown are the samples of some of the controller's metrics, without their comments.
func shown(t *testing.T, r prometheus.Gatherer, names ...string) (lines []string) {
	t.Helper()
	var full []string
	for _, n := range names {
		full = append(full, "tenantlogs_controller_"+n)
	}
	families, err := r.Gather()
	require.NoError(t, err)
	for _, f := range families {
		if !slices.Contains(full, f.GetName()) {
			continue
		}
		for _, m := range f.GetMetric() {
			var labels []string
			for _, l := range m.GetLabel() {
				labels = append(labels, fmt.Sprintf("%s=%q", l.GetName(), l.GetValue()))
			}
			lines = append(lines, fmt.Sprintf("%s{%s} %v", strings.TrimPrefix(f.GetName(), "tenantlogs_controller_"), strings.Join(labels, ","), m.GetGauge().GetValue()))
		}
	}
	return lines
}

func TestTenantsInTroubleAreNamedAndOthersHaveNoSeries(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		w, e := newWorld(plain("tenant-acme"), plain("tenant-globex"), plain("tenant-initech")), newRecorder()
		e.failing["acme"] = true
		e.shortBy = map[string]int{"globex": 335}
		began := time.Now()
		e.quarantined = []provision.Quarantined{{Tenant: "initech", Since: began.Add(-8 * 24 * time.Hour)}}
		l := lead(t, tenancy.ModePrefix, w, e)
		registry := prometheus.NewRegistry()
		m, err := newMetrics(registry)
		require.NoError(t, err)
		l.metrics = m
		trouble := func() []string {
			return shown(t, registry, "tenant_not_ready_since_timestamp_seconds", "retention_short_seconds", "quarantined_since_timestamp_seconds")
		}
		pass(t, l)
		require.Equal(t, []string{
			`quarantined_since_timestamp_seconds{tenant="initech"} 9.459936e+08`,
			`retention_short_seconds{tenant="globex"} 2.8944e+07`,
			`tenant_not_ready_since_timestamp_seconds{state="failed",tenant="acme"} 9.466848e+08`,
		}, trouble())

		// Over: all are looked at again.
		clear(e.failing)
		e.shortBy, e.quarantined = nil, nil
		time.Sleep(11 * time.Minute)
		pass(t, l)
		require.Empty(t, trouble())
	})
}

func TestAsManyTenantsAreNamedAsHelp(t *testing.T) {
	registry := prometheus.NewRegistry()
	m, err := newMetrics(registry)
	require.NoError(t, err)
	var waiting []provision.Quarantined
	s, report := newStatus(), []provision.TenantStatus(nil)
	for i := range 2 * maxTroubled {
		name := fmt.Sprintf("t%03d", i)
		s.tenants[name] = Entry{State: provision.StateFailed}
		waiting = append(waiting, provision.Quarantined{Tenant: name, Since: time.Unix(int64(2*maxTroubled-i), 0)})
		report = append(report, provision.TenantStatus{Tenant: name, RetentionDays: 30, WantedDays: 365})
	}
	m.states(s)
	m.waiting(waiting)
	m.keeping(report, true)
	require.Len(t, shown(t, registry, "tenant_not_ready_since_timestamp_seconds"), maxTroubled)
	require.Len(t, shown(t, registry, "retention_short_seconds"), maxTroubled)
	since := shown(t, registry, "quarantined_since_timestamp_seconds")
	require.Len(t, since, maxTroubled)
	require.Contains(t, since, `quarantined_since_timestamp_seconds{tenant="t499"} 1`, "the oldest are among them")
	// For ever is not short; nor is a group that is not there yet.
	m.keeping([]provision.TenantStatus{{Tenant: "a", WantedDays: 365}, {Tenant: "b", RetentionDays: 400, WantedDays: 365}}, true)
	require.Empty(t, shown(t, registry, "retention_short_seconds"))
}

func TestAFailureToLookAtQuarantineIsAProblemAndNoMore(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		w, e := newWorld(plain("tenant-acme")), newRecorder()
		e.lookErr = true
		l := lead(t, tenancy.ModePrefix, w, e)
		pass(t, l)
		require.Equal(t, provision.StateReady, w.status().tenants["acme"].State)
		require.Contains(t, w.objects["r-status"].data[summaryKey], "what waits in quarantine could not be looked at")
	})
}
