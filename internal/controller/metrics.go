package controller

import (
	"maps"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/eks-tenant-logs/eks-tenant-logs/internal/provision"
)

// metrics is what the leader counts.
type metrics struct {
	passes, repairs, writes *prometheus.CounterVec
	tenants                 *prometheus.GaugeVec
	refused, problems       prometheus.Gauge
	unclaimed, generation   prometheus.Gauge
	synced                  prometheus.Gauge
	unready, short          *prometheus.GaugeVec
	quarantined             *prometheus.GaugeVec
	actions, retirements    prometheus.Counter
}

// newMetrics makes them known to a registry.
func newMetrics(r prometheus.Registerer) (*metrics, error) {
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: "tenantlogs_controller_" + name, Help: help}, labels)
	}
	gauge := func(name, help string) prometheus.Gauge {
		return prometheus.NewGauge(prometheus.GaugeOpts{Name: "tenantlogs_controller_" + name, Help: help})
	}
	of := func(name, help string, labels ...string) *prometheus.GaugeVec {
		return prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "tenantlogs_controller_" + name, Help: help}, labels)
	}
	m := &metrics{
		passes:  counter("passes_total", "How often AWS was compared with what it should be, by what was looked at (all, some) and how it ended (ok, failed).", "tenants", "result"),
		repairs: counter("repairs_total", "What had been right and was changed by somebody, and was set right again, by layer.", "layer"),
		writes:  counter("kubernetes_writes_total", "Objects written in Kubernetes, by kind.", "kind"),
		tenants: prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "tenantlogs_controller_tenants", Help: "Tenants by state."}, []string{"state"}),
		refused: gauge("refused_namespaces", "Namespaces that do not get the tenant they claim."), problems: gauge("problems", "Problems that concern no single tenant; the status says which."),
		unclaimed:  gauge("unclaimed_tenants", "Tenants with read access that no namespace claims, and that are not retired by themselves."),
		generation: gauge("registry_generation", "The published registry's generation; 0 where none is published."),
		synced:     gauge("last_sync_timestamp_seconds", "When all tenants were last looked at, in seconds since 1970."),
	}
	m.unready = of("tenant_not_ready_since_timestamp_seconds", "Since when a tenant is in a state other than ready and retired; it has no series otherwise.", "tenant", "state")
	m.short = of("retention_short_seconds", "How much less than configured a tenant's log group keeps its events; it has no series otherwise.", "tenant")
	m.quarantined = of("quarantined_since_timestamp_seconds", "Since when, at the earliest, events have waited in a tenant's quarantine group that came in after the last replay began; it has no series where none do.", "tenant")
	actions, retirements := counter("actions_total", "Differences that were found and acted on."), counter("retirements_total", "Tenants that were retired because their namespaces are gone.")
	for _, c := range []prometheus.Collector{m.passes, m.repairs, m.writes, m.tenants, m.refused, m.problems, m.unclaimed, m.generation, m.synced, m.unready, m.short, m.quarantined, actions, retirements} {
		if err := r.Register(c); err != nil {
			return nil, err
		}
	}
	m.actions, m.retirements = actions.WithLabelValues(), retirements.WithLabelValues()
	return m, nil
}

func (m *metrics) failed(all bool) { m.passes.WithLabelValues(which(all), "failed").Inc() }

// which says what a pass looked at.
func which(all bool) string {
	if all {
		return "all"
	}
	return "some"
}

func (m *metrics) retired() { m.retirements.Inc() }

func (m *metrics) reconciled(r provision.Report, all bool, now time.Time) {
	if all {
		m.synced.Set(float64(now.Unix()))
	}
	m.keeping(r.Tenants, all)
	m.passes.WithLabelValues(which(all), "ok").Inc()
	m.actions.Add(float64(r.Actions))
	for layer, n := range r.Repaired {
		m.repairs.WithLabelValues(layer).Add(float64(n))
	}
}

// maxTroubled is how many tenants have a series of their own in each of the metrics that only
// tenants in trouble have: when all are, more say nothing more.
const maxTroubled = 250

// troubled shows the first of some tenants, and none of those before.
func troubled[T any](v *prometheus.GaugeVec, all []T, show func(T) (float64, []string)) {
	v.Reset()
	for _, x := range all[:min(len(all), maxTroubled)] {
		value, labels := show(x)
		v.WithLabelValues(labels...).Set(value)
	}
}

// waiting shows since when tenants' events have waited in quarantine, the oldest first.
func (m *metrics) waiting(all []provision.Quarantined) {
	slices.SortFunc(all, func(a, b provision.Quarantined) int { return a.Since.Compare(b.Since) })
	troubled(m.quarantined, all, func(q provision.Quarantined) (float64, []string) { return float64(q.Since.Unix()), []string{q.Tenant} })
}

// keeping shows whose log groups keep their events for less than they should. Where not all
// tenants were looked at, the others' stay as they were.
func (m *metrics) keeping(report []provision.TenantStatus, all bool) {
	if all {
		m.short.Reset()
	}
	shown := 0
	for _, t := range report {
		m.short.DeleteLabelValues(t.Tenant)
		if missing := t.WantedDays - t.RetentionDays; t.RetentionDays > 0 && missing > 0 && shown < maxTroubled {
			m.short.WithLabelValues(t.Tenant).Set((time.Duration(missing) * 24 * time.Hour).Seconds())
			shown++
		}
	}
}

func (m *metrics) states(s status) {
	var unready []string
	for _, name := range slices.Sorted(maps.Keys(s.tenants)) {
		switch s.tenants[name].State {
		case provision.StateReady, provision.StateRetired:
		default:
			unready = append(unready, name)
		}
	}
	troubled(m.unready, unready, func(name string) (float64, []string) {
		e := s.tenants[name]
		return float64(e.Since.Unix()), []string{name, string(e.State)}
	})
	count := s.count()
	for _, state := range []provision.State{provision.StatePending, provision.StateReady, provision.StateRefused, provision.StateFailed, provision.StateRetired} {
		m.tenants.WithLabelValues(string(state)).Set(float64(count[state]))
	}
	m.refused.Set(float64(len(s.refused)))
	m.problems.Set(float64(len(s.problems)))
}

// RegisterMetrics makes the controller's metrics known to a registry: for those who hold alerts
// to what there is.
func RegisterMetrics(r prometheus.Registerer) error {
	_, err := newMetrics(r)
	return err
}
