package charts

import (
	"encoding/json"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	crmetrics "sigs.k8s.io/controller-runtime/pkg/metrics"

	"github.com/eks-tenant-logs/eks-tenant-logs/internal/controller"
	"github.com/eks-tenant-logs/eks-tenant-logs/internal/telemetry"
)

// Metrics that alerts and dashboard ask for are held to those that there are.

// annotated are the labels that an annotation names.
var annotated = regexp.MustCompile(`\$labels\.(\w+)`)

// podTemplates are the agent's and the provisioner's, by component.
func podTemplates(all []runtime.Object) map[string]corev1.PodTemplateSpec {
	pods := map[string]corev1.PodTemplateSpec{}
	for _, o := range all {
		switch x := o.(type) {
		case *appsv1.DaemonSet:
			pods["fluent-bit"] = x.Spec.Template
		case *appsv1.Deployment:
			pods["provisioner"] = x.Spec.Template
		}
	}
	return pods
}

// targetLabels are those of every target: Prometheus' own, and what the PodMonitors add.
var targetLabels = []string{"job", "instance", "cluster", "node", "namespace", "pod", "container"}

// elsewhere are metrics that others serve: kube-state-metrics (docs/metrics of its repository,
// all of them stable), the kubelet and Prometheus itself.
var elsewhere = map[string][]string{
	"kube_daemonset_status_desired_number_scheduled": {"namespace", "daemonset", "cluster"},
	"kube_daemonset_status_number_ready":             {"namespace", "daemonset", "cluster"},
	"kube_daemonset_status_updated_number_scheduled": {"namespace", "daemonset", "cluster"},
	"kube_node_info": {"node", "kernel_version", "os_image", "container_runtime_version", "kubelet_version", "kubeproxy_version", "provider_id",
		"pod_cidr", "system_uuid", "internal_ip", "cluster"},
	// pkg/kubelet/metrics/collectors/log_metrics.go of Kubernetes 1.37.2: alpha.
	"kubelet_container_log_filesystem_used_bytes": {"uid", "namespace", "pod", "container", "tenant"}, // tenant: what label_replace adds
	"up": targetLabels,
}

var described = regexp.MustCompile(`^Desc\{fqName: "([^"]+)", .*variableLabels: \{([^}]*)\}\}$`)

// registered are the metrics of a registry with their labels, from their descriptions: none has
// to have been counted.
func registered(t *testing.T, known map[string][]string, registry any) {
	t.Helper()
	describes, ok := registry.(prometheus.Collector)
	require.True(t, ok)
	ch := make(chan *prometheus.Desc, 1000)
	describes.Describe(ch)
	close(ch)
	for d := range ch {
		m := described.FindStringSubmatch(d.String())
		require.NotNil(t, m, d)
		labels := slices.Clone(targetLabels)
		if m[2] != "" {
			labels = append(labels, strings.Split(m[2], ",")...)
		}
		known[m[1]] = labels
	}
}

// served are all metrics that there are, with their labels.
func served(t *testing.T) map[string][]string {
	t.Helper()
	known := map[string][]string{}
	for name, labels := range elsewhere {
		known[name] = labels
	}
	registered(t, known, telemetry.NewMetrics().Registry())
	r := prometheus.NewRegistry()
	require.NoError(t, controller.RegisterMetrics(r))
	registered(t, known, r)
	registered(t, known, crmetrics.Registry)
	for _, base := range []string{"tenantlogs_put_duration_seconds", "tenantlogs_batch_fill_ratio"} {
		for _, suffix := range []string{"_bucket", "_sum", "_count"} {
			known[base+suffix] = append(slices.Clone(known[base]), "le")
		}
	}
	// As a real one served them: e2e/monitoring_test.go.
	text, err := os.ReadFile("testdata/fluent-bit-metrics.txt")
	require.NoError(t, err)
	lines := strings.Split(strings.TrimSpace(string(text)), "\n")
	require.True(t, strings.HasPrefix(lines[0], "# Fluent Bit "))
	for _, line := range lines[1:] {
		name, labels, _ := strings.Cut(line, " ")
		known[name] = append(slices.Clone(targetLabels), strings.Split(labels, ",")...)
	}
	return known
}

var (
	quotedText = regexp.MustCompile(`"(?:[^"\\]|\\.)*"`)
	remark     = regexp.MustCompile(`#.*`)
	token      = regexp.MustCompile(`\$__\w+|[0-9.]+[a-z]*|[a-zA-Z_:][a-zA-Z0-9_:]*|[(){}]|[^\s]`)
)

// words are what is neither a metric nor a label in an expression: the functions, aggregations and
// operators that are used here.
var words = []string{"sum", "min", "max", "count", "group", "topk", "bottomk", "rate", "increase", "changes", "time", "vector", "label_replace", "absent", "histogram_quantile",
	"unless", "or", "and", "offset"}

// asks is what an expression asks for: metrics with the labels of their selectors, and the
// labels that results are grouped and joined by.
type asks struct {
	metrics map[string][]string
	by      []string
}

// read takes an expression apart, as far as it needs; that it is one, promtool says.
func read(expr string) asks {
	a := asks{metrics: map[string][]string{}}
	tokens := token.FindAllString(remark.ReplaceAllString(quotedText.ReplaceAllString(expr, `""`), ""), -1)
	last := ""
	for i := 0; i < len(tokens); i++ {
		// inside are the names up to the bracket's end.
		inside := func(end string) (names []string) {
			for i += 2; i < len(tokens) && tokens[i] != end; i++ {
				if regexp.MustCompile(`^[a-zA-Z_]`).MatchString(tokens[i]) {
					names = append(names, tokens[i])
				}
			}
			return names
		}
		switch w := tokens[i]; {
		case slices.Contains([]string{"by", "on", "group_left", "without", "ignoring"}, w):
			a.by = append(a.by, inside(")")...)
		case slices.Contains(words, w), !regexp.MustCompile(`^[a-zA-Z_]`).MatchString(w):
		default:
			last = w
			a.metrics[last] = append(a.metrics[last], nil...)
			if i+1 < len(tokens) && tokens[i+1] == "{" {
				a.metrics[last] = append(a.metrics[last], inside("}")...)
			}
		}
	}
	return a
}

// exists holds an expression to what there is.
func exists(known map[string][]string, expr string) error {
	a := read(expr)
	if len(a.metrics) == 0 {
		return fmt.Errorf("no metric in %s", expr)
	}
	var all []string
	for metric, labels := range a.metrics {
		has, ok := known[metric]
		if !ok {
			return fmt.Errorf("there is no metric %s: %s", metric, expr)
		}
		for _, l := range labels {
			if !slices.Contains(has, l) {
				return fmt.Errorf("metric %s has no label %s: %s", metric, l, expr)
			}
		}
		all = append(all, has...)
	}
	for _, l := range a.by {
		if !slices.Contains(all, l) {
			return fmt.Errorf("nothing has the label %s: %s", l, expr)
		}
	}
	return nil
}

func TestMetricsThatAreAskedForExist(t *testing.T) {
	known := served(t)
	for _, r := range alerts(t).rules() {
		require.NoError(t, exists(known, r.Expr), r.Alert)
	}
	var rules ruleGroups
	rules.Groups = append(rules.Groups, struct {
		Name  string `json:"name"`
		Rules []rule `json:"rules"`
	}{Name: "dashboard"})
	d := readDashboard(t)
	for _, p := range d.Panels {
		for _, x := range p.Targets {
			require.NoError(t, exists(known, x.Expr), p.Title)
			// Grafana's variables replaced, Prometheus takes it.
			expr := strings.ReplaceAll(x.Expr, "$__rate_interval", "5m")
			rules.Groups[0].Rules = append(rules.Groups[0].Rules, rule{Alert: fmt.Sprintf("Panel%d%s", p.ID, x.RefID), Expr: expr})
		}
	}
	for _, v := range d.Templating.List {
		text, err := json.Marshal(v.Query)
		require.NoError(t, err)
		if m := regexp.MustCompile(`label_values\((.*), (\w+)\)`).FindStringSubmatch(strings.ReplaceAll(string(text), `\"`, `"`)); m != nil {
			require.NoError(t, exists(known, fmt.Sprintf("sum by (%s) (%s)", m[2], m[1])), v.Name)
		} else {
			require.Equal(t, "datasource", v.Type)
		}
	}
	checked(t, rules)
}

func TestMetricsAndLabelsThatDoNotExistAreFound(t *testing.T) {
	known := served(t)
	for expr, want := range map[string]string{
		`sum by (node) (rate(tenantlogs_flushes_total{result="ok"}[5m])) > 0`: "",
		`tenantlogs_flushes`:                                                      "no metric tenantlogs_flushes",
		`rate(tenantlogs_flushes_total{tenant="a"}[5m])`:                          "no label tenant",
		`sum by (tenant) (rate(tenantlogs_flushes_total[5m]))`:                    "the label tenant",
		`fluentbit_output_dropped_records_total{output="x"}`:                      "no label output",
		`tenantlogs_controller_tenants{state="x"} # tenantlogs_no_such`:           "",
		`max by (cluster) (up{job="a"}) and on (nod) fluentbit_storage_fs_chunks`: "the label nod",
		`rate_of(tenantlogs_flushes_total[5m])`:                                   "no metric rate_of",
		`1 > 0`:                                                                   "no metric in",
	} {
		err := exists(known, expr)
		if want == "" {
			require.NoError(t, err, expr)
		} else {
			require.ErrorContains(t, err, want, expr)
		}
	}
}
