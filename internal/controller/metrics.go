package controller

import (
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
	actions, retirements := counter("actions_total", "Differences that were found and acted on."), counter("retirements_total", "Tenants that were retired because their namespaces are gone.")
	for _, c := range []prometheus.Collector{m.passes, m.repairs, m.writes, m.tenants, m.refused, m.problems, m.unclaimed, m.generation, m.synced, actions, retirements} {
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
	m.passes.WithLabelValues(which(all), "ok").Inc()
	m.actions.Add(float64(r.Actions))
	for layer, n := range r.Repaired {
		m.repairs.WithLabelValues(layer).Add(float64(n))
	}
}

func (m *metrics) states(s status) {
	count := s.count()
	for _, state := range []provision.State{provision.StatePending, provision.StateReady, provision.StateRefused, provision.StateFailed, provision.StateRetired} {
		m.tenants.WithLabelValues(string(state)).Set(float64(count[state]))
	}
	m.refused.Set(float64(len(s.refused)))
	m.problems.Set(float64(len(s.problems)))
}
