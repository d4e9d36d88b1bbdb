package charts

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/yaml"

	"github.com/eks-tenant-logs/eks-tenant-logs/e2e/docs"
	"github.com/eks-tenant-logs/eks-tenant-logs/e2e/helm"
)

const (
	alertsFile    = chart + "/files/alerts.yaml"
	dashboardFile = chart + "/files/dashboard.json"
	promtoolTests = chart + "/tests/promtool"
	runbooks      = "../docs/operations.md"
)

// elsewheres are metrics that know no cluster.
var elsewheres = regexp.MustCompile(`\bkube(let)?_`)

// metadata are the fields of an object's metadata that the chart writes.
type metadata struct {
	Name        string            `json:"name"`
	Namespace   string            `json:"namespace"`
	Labels      map[string]string `json:"labels"`
	Annotations map[string]string `json:"annotations"`
}

// podMonitor has the fields of the Prometheus operator's type that the chart uses
// (monitoring.coreos.com/v1, API reference); its module is not worth a dependency.
type podMonitor struct {
	APIVersion string   `json:"apiVersion"`
	Kind       string   `json:"kind"`
	Metadata   metadata `json:"metadata"`
	Spec       struct {
		NamespaceSelector struct {
			MatchNames []string `json:"matchNames"`
		} `json:"namespaceSelector"`
		Selector struct {
			MatchLabels map[string]string `json:"matchLabels"`
		} `json:"selector"`
		PodMetricsEndpoints []struct {
			Port          string    `json:"port"`
			Path          string    `json:"path"`
			Scheme        string    `json:"scheme"`
			Interval      string    `json:"interval"`
			ScrapeTimeout string    `json:"scrapeTimeout"`
			Relabelings   []relabel `json:"relabelings"`
		} `json:"podMetricsEndpoints"`
	} `json:"spec"`
}

type relabel struct {
	SourceLabels []string `json:"sourceLabels"`
	TargetLabel  string   `json:"targetLabel"`
	Replacement  string   `json:"replacement"`
}

// prometheusRule likewise.
type prometheusRule struct {
	APIVersion string     `json:"apiVersion"`
	Kind       string     `json:"kind"`
	Metadata   metadata   `json:"metadata"`
	Spec       ruleGroups `json:"spec"`
}

// ruleGroups are a file of Prometheus' rules as well.
type ruleGroups struct {
	Groups []struct {
		Name  string `json:"name"`
		Rules []rule `json:"rules"`
	} `json:"groups"`
}

type rule struct {
	Alert       string            `json:"alert"`
	Expr        string            `json:"expr"`
	For         string            `json:"for,omitempty"`
	Labels      map[string]string `json:"labels,omitempty"`
	Annotations map[string]string `json:"annotations,omitempty"`
}

func (g ruleGroups) rules() (all []rule) {
	for _, group := range g.Groups {
		all = append(all, group.Rules...)
	}
	return all
}

// alerts are those of the chart's file.
func alerts(t *testing.T) ruleGroups {
	t.Helper()
	text, err := os.ReadFile(alertsFile)
	require.NoError(t, err)
	var g ruleGroups
	require.NoError(t, yaml.UnmarshalStrict(text, &g))
	require.Greater(t, len(g.rules()), 30)
	return g
}

// foreignObjects are a render's objects of one kind that is not Kubernetes' own.
func foreignObjects[T any](t *testing.T, rendered, kind string) (all []T) {
	t.Helper()
	documents, err := helm.Objects(rendered)
	require.NoError(t, err)
	for _, d := range documents {
		if d.Kind == kind {
			var x T
			require.NoError(t, yaml.UnmarshalStrict([]byte(d.Text), &x), d.Text)
			all = append(all, x)
		}
	}
	return all
}

// promtool runs the one that make chart-tools builds.
func promtool(t *testing.T, args ...string) (string, error) {
	t.Helper()
	path, err := filepath.Abs("../build/tools/promtool")
	require.NoError(t, err)
	if _, err := os.Stat(path); err != nil {
		if os.Getenv("CHARTS_REQUIRED") != "" {
			t.Fatal(err)
		}
		t.Skipf("not run: %v, `make chart-test` runs this with promtool", err)
	}
	out, err := exec.CommandContext(t.Context(), path, args...).CombinedOutput()
	return string(out), err
}

// checked writes rules to a file, which promtool takes without a remark.
func checked(t *testing.T, g ruleGroups) {
	t.Helper()
	text, err := yaml.Marshal(g)
	require.NoError(t, err)
	name := filepath.Join(t.TempDir(), "rules.yaml")
	require.NoError(t, os.WriteFile(name, text, 0o600))
	out, err := promtool(t, "check", "rules", "--lint=all", "--lint-fatal", name)
	require.NoError(t, err, out)
}

// Prometheus without the operator takes the file as it is; the chart's defaults make the same
// rules of it.
func TestTheAlertsAreTheSameWithAndWithoutTheOperator(t *testing.T) {
	plain := alerts(t)
	checked(t, plain)
	rendered, err := render(t, cases(t)["minimal"], "monitoring.rules.enabled=true")
	require.NoError(t, err)
	made := foreignObjects[prometheusRule](t, rendered, "PrometheusRule")
	require.Len(t, made, 1)
	require.Equal(t, namespace, made[0].Metadata.Namespace)
	for g := range plain.Groups {
		for r := range plain.Groups[g].Rules {
			// What knows no cluster is of the one that the chart is in.
			x := &plain.Groups[g].Rules[r]
			if elsewheres.MatchString(x.Expr) {
				x.Labels["cluster"] = "prod"
			}
			x.Expr = regexp.MustCompile(`absent\(\w+\{`).ReplaceAllString(x.Expr, `${0}cluster="prod", `)
		}
	}
	require.Equal(t, plain, made[0].Spec)
}

func TestTheNumbersOfAlertsFollowTheValues(t *testing.T) {
	rendered, err := render(t, cases(t)["monitoring"])
	require.NoError(t, err)
	made := foreignObjects[prometheusRule](t, rendered, "PrometheusRule")
	require.Len(t, made, 1)
	require.Equal(t, "kube-prometheus-stack", made[0].Metadata.Labels["release"])
	checked(t, made[0].Spec)
	exprs := map[string]string{}
	for _, r := range made[0].Spec.rules() {
		require.Equal(t, "platform", r.Labels["team"])
		exprs[r.Alert] = r.Expr
	}
	require.Len(t, exprs, len(alerts(t).rules())-1)
	require.NotContains(t, exprs, "TenantLogsUnrouted")
	for alert, end := range map[string]string{
		"TenantLogsStorageFilling":         "< 40 # storageFreePercent",
		"TenantLogsQuarantining":           "> 0.5 # quarantinedPerSecond",
		"TenantLogsNotReconciling":         "> 16200 # threeResyncs",        // of 1h30m
		"TenantLogsGroupRetentionTooShort": "< 34560000 # retentionSeconds", // the 400 days of one tenant
		"TenantLogsHoldingChunks":          "> 819 # heldChunks",
		"TenantLogsTenantNotRead":          `max(tenantlogs_last_arrival_timestamp_seconds{tenant="_other"}) > time() - 1800`,
		"TenantLogsDeliveryBehind":         "> 900 # oldestUnacknowledgedSeconds",
	} {
		require.True(t, strings.HasSuffix(exprs[alert], end), "%s: %s", alert, exprs[alert])
	}
	rendered, err = render(t, cases(t)["minimal"], "monitoring.rules.enabled=true", "fullnameOverride=agent", "fluentBit.config.holdBudget=0", "fluentBit.config.storage.totalLimitSize=750MB",
		"monitoring.rules.runbookUrl=https://wiki.example/logs")
	require.NoError(t, err)
	for _, r := range foreignObjects[prometheusRule](t, rendered, "PrometheusRule")[0].Spec.rules() {
		require.NotContains(t, r.Expr, `"eks-tenant-logs-fluent-bit", `)
		require.Equal(t, "https://wiki.example/logs#"+strings.ToLower(r.Alert), r.Annotations["runbook_url"])
		if r.Alert == "TenantLogsNodeWithoutPod" {
			require.Contains(t, r.Expr, `{namespace="logs", daemonset="agent-fluent-bit"}`)
		}
		if r.Alert == "TenantLogsHoldingChunks" {
			require.Contains(t, r.Expr, "> 1638 # heldChunks")
		}
		if r.Alert == "TenantLogsStorageLimitTooHigh" {
			require.Contains(t, r.Expr, "/ 100 * 750000000 # storageLimitBytes") // Fluent Bit's MB
		}
	}
	// Of whom it is known by the namespace's name alone.
	notRead := func(values string, set ...string) string {
		rendered, err := render(t, cases(t)[values], append(set, "monitoring.rules.enabled=true")...)
		require.NoError(t, err)
		for _, r := range foreignObjects[prometheusRule](t, rendered, "PrometheusRule")[0].Spec.rules() {
			if r.Alert == "TenantLogsTenantNotRead" {
				return r.Expr
			}
		}
		return ""
	}
	require.Contains(t, notRead("pod-identity"), `{namespace=~"tenant-.+", namespace!~"acme-batch|monitoring|tenant-acme|tenant-tools"}`)
	expr := notRead("minimal", "tenants.namespacePrefix=t-")
	require.Contains(t, expr, `{namespace=~"t-.+", namespace!~""}`)
	require.Contains(t, expr, `"namespace", "t-(.+)"`)
	require.Empty(t, notRead("registry"), "a label says whose a namespace is, which the kubelet does not know")
	_, err = render(t, cases(t)["minimal"], "monitoring.rules.enabled=true", "monitoring.rules.disabled={TenantLogsNoSuch}")
	require.ErrorContains(t, err, "there is no alert TenantLogsNoSuch")
}

// What does not run is not missed.
func TestAlertsAreOfWhatRuns(t *testing.T) {
	groups := func(values string) (names []string) {
		rendered, err := render(t, cases(t)[values], "monitoring.rules.enabled=true", "monitoring.podMonitor.enabled=true")
		require.NoError(t, err)
		for _, g := range foreignObjects[prometheusRule](t, rendered, "PrometheusRule")[0].Spec.Groups {
			names = append(names, strings.TrimPrefix(g.Name, "eks-tenant-logs."))
		}
		for _, m := range foreignObjects[podMonitor](t, rendered, "PodMonitor") {
			names = append(names, m.Metadata.Name)
		}
		return names
	}
	require.Equal(t, []string{"loss", "tenants", "nodes", "cloudwatch", "eks-tenant-logs-fluent-bit"}, groups("plugin-only"))
	require.Equal(t, []string{"provisioner", "eks-tenant-logs-provisioner"}, groups("provisioner-only"))
}

// Monitors find the pods by their labels and the ports by their names, and targets bear the
// labels that alerts ask for.
func TestMonitorsFindThePodsAndTheirPorts(t *testing.T) {
	rendered, err := render(t, cases(t)["monitoring"])
	require.NoError(t, err)
	all := objects(t, rendered)
	ports := map[string]bool{}
	for component, pod := range podTemplates(all) {
		for _, m := range foreignObjects[podMonitor](t, rendered, "PodMonitor") {
			if m.Metadata.Name != release+"-"+component {
				continue
			}
			require.Equal(t, []string{namespace}, m.Spec.NamespaceSelector.MatchNames)
			require.Subset(t, pod.Labels, m.Spec.Selector.MatchLabels)
			require.Equal(t, "eks-tenant-logs", m.Metadata.Labels["app.kubernetes.io/part-of"])
			for _, e := range m.Spec.PodMetricsEndpoints {
				i := slices.IndexFunc(pod.Spec.Containers[0].Ports, func(p corev1.ContainerPort) bool { return p.Name == e.Port })
				require.GreaterOrEqual(t, i, 0, "%s has no port %s", component, e.Port)
				require.Equal(t, relabel{TargetLabel: "cluster", Replacement: "prod"}, e.Relabelings[1])
				require.Equal(t, relabel{SourceLabels: []string{"__meta_kubernetes_pod_node_name"}, TargetLabel: "node"}, e.Relabelings[2])
				ports[fmt.Sprintf("%s :%d%s", e.Relabelings[0].Replacement, pod.Spec.Containers[0].Ports[i].ContainerPort, e.Path)] = true
			}
		}
	}
	require.Equal(t, []string{"eks-tenant-logs-fluent-bit :2020/api/v2/metrics/prometheus", "eks-tenant-logs-plugin :2021/metrics", "eks-tenant-logs-provisioner :8080/metrics"},
		slices.Sorted(maps.Keys(ports)))
}

// promtoolCase is one test of promtool's.
type promtoolCase struct {
	Name   string `json:"name"`
	Series []struct {
		Series string `json:"series"`
	} `json:"input_series"`
	Expr []struct {
		Samples []struct {
			Labels string `json:"labels"`
		} `json:"exp_samples"`
	} `json:"promql_expr_test"`
}

func TestEveryAlertFiresInItsCaseAndNotInTheOneBesideIt(t *testing.T) {
	files, err := filepath.Glob(promtoolTests + "/*.yaml")
	require.NoError(t, err)
	require.Len(t, files, 2)
	severity := map[string]string{}
	for _, r := range alerts(t).rules() {
		severity[r.Alert] = r.Labels["severity"]
	}
	fires, quiet := map[string][]string{}, map[string]bool{}
	for _, f := range files {
		out, err := promtool(t, "test", "rules", f)
		require.NoError(t, err, out)
		text, err := os.ReadFile(f)
		require.NoError(t, err)
		var tests struct {
			Tests []promtoolCase `json:"tests"`
		}
		require.NoError(t, yaml.Unmarshal(text, &tests))
		for _, c := range tests.Tests {
			require.Len(t, c.Expr, 1, c.Name)
			about, _, _ := strings.Cut(c.Name, ":")
			for _, s := range c.Expr[0].Samples {
				for alert := range severity {
					if strings.Contains(s.Labels, fmt.Sprintf("alertname=%q", alert)) {
						require.Contains(t, s.Labels, fmt.Sprintf("severity=%q", severity[alert]))
						fires[alert] = append(fires[alert], s.Labels)
					}
				}
			}
			// What does not fire stands beside what does: more series than alerts.
			for _, alert := range strings.Split(about, " and ") {
				quiet[alert] = quiet[alert] || len(c.Series) > len(c.Expr[0].Samples)
			}
		}
	}
	for _, r := range alerts(t).rules() {
		require.NotEmpty(t, fires[r.Alert], "no case in which %s fires", r.Alert)
		require.True(t, quiet[r.Alert], "no case in which %s does not fire", r.Alert)
		// An annotation names only what an alert has.
		for _, text := range r.Annotations {
			for _, m := range annotated.FindAllStringSubmatch(text, -1) {
				if m[1] == "cluster" && (elsewheres.MatchString(r.Expr) || strings.Contains(r.Expr, "absent(")) {
					continue // the chart adds it
				}
				require.Contains(t, fires[r.Alert][0], m[1]+"=", "%s: %s", r.Alert, text)
			}
		}
	}
}

// Each alert says how bad it is, of whom, and where to read on; each of the page's chapters is of
// one.
func TestEveryAlertHasItsChapterInOperations(t *testing.T) {
	text, err := os.ReadFile(runbooks)
	require.NoError(t, err)
	page := docs.Read("docs/operations.md", string(text))
	var chapters []string
	for _, a := range page.Anchors {
		if strings.HasPrefix(a, "tenantlogs") {
			chapters = append(chapters, a)
		}
	}
	var want []string
	for _, r := range alerts(t).rules() {
		require.Contains(t, []string{"critical", "warning"}, r.Labels["severity"])
		require.NotEmpty(t, r.Annotations["summary"])
		require.NotEmpty(t, r.Annotations["description"])
		require.Equal(t, "https://github.com/eks-tenant-logs/eks-tenant-logs/blob/main/docs/operations.md#"+strings.ToLower(r.Alert), r.Annotations["runbook_url"])
		want = append(want, strings.ToLower(r.Alert))
	}
	require.Equal(t, want, chapters, "in the order of files/alerts.yaml")
	require.Contains(t, page.Anchors, "day-2")
}

// The scrape configuration that the page gives those without the operator is one, and makes the
// same labels.
func TestTheScrapeConfigurationOfThePageMakesTheSameTargets(t *testing.T) {
	text, err := os.ReadFile(runbooks)
	require.NoError(t, err)
	i := slices.IndexFunc(docs.Read("", string(text)).Blocks, func(b docs.Block) bool {
		return b.Language == "yaml" && len(b.Lines) > 0 && strings.HasPrefix(b.Lines[0].Text, "rule_files:")
	})
	require.GreaterOrEqual(t, i, 0)
	var config strings.Builder
	for _, l := range docs.Read("", string(text)).Blocks[i].Lines {
		config.WriteString(l.Text + "\n")
	}
	folder := t.TempDir()
	rules, err := os.ReadFile(alertsFile)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(filepath.Join(folder, "alerts.yaml"), rules, 0o600))
	name := filepath.Join(folder, "prometheus.yaml")
	require.NoError(t, os.WriteFile(name, []byte(config.String()), 0o600))
	out, err := promtool(t, "check", "config", name)
	require.NoError(t, err, out)
	for _, job := range []string{"eks-tenant-logs-plugin", "eks-tenant-logs-fluent-bit", "eks-tenant-logs-provisioner"} {
		require.Contains(t, config.String(), "job_name: "+job)
	}
	require.Equal(t, 3, strings.Count(config.String(), "target_label: cluster"))
	require.Equal(t, 3, strings.Count(config.String(), "target_label: node"))
}

// dashboard is what is looked at of Grafana's.
type dashboard struct {
	UID           string `json:"uid"`
	SchemaVersion int    `json:"schemaVersion"`
	Templating    struct {
		List []struct {
			Name  string `json:"name"`
			Type  string `json:"type"`
			Query any    `json:"query"`
		} `json:"list"`
	} `json:"templating"`
	Panels []struct {
		ID         int                      `json:"id"`
		Type       string                   `json:"type"`
		Title      string                   `json:"title"`
		Datasource struct{ UID string }     `json:"datasource"`
		Grid       struct{ H, W, X, Y int } `json:"gridPos"`
		Targets    []struct {
			RefID string `json:"refId"`
			Expr  string `json:"expr"`
		} `json:"targets"`
	} `json:"panels"`
}

func readDashboard(t *testing.T) (d dashboard) {
	t.Helper()
	rendered, err := render(t, cases(t)["monitoring"])
	require.NoError(t, err)
	m := one[*corev1.ConfigMap](t, objects(t, rendered), release+"-dashboard")
	require.Equal(t, "grafana", m.Namespace)
	require.Equal(t, "Platform", m.Annotations["grafana_folder"])
	require.Equal(t, "1", m.Labels["grafana_dashboard"])
	require.NoError(t, json.Unmarshal([]byte(m.Data["eks-tenant-logs.json"]), &d))
	text, err := os.ReadFile(dashboardFile)
	require.NoError(t, err)
	require.JSONEq(t, string(text), m.Data["eks-tenant-logs.json"])
	return d
}

func TestTheDashboardIsOneThatGrafanaShows(t *testing.T) {
	d := readDashboard(t)
	require.GreaterOrEqual(t, d.SchemaVersion, 39)
	var variables []string
	for _, v := range d.Templating.List {
		variables = append(variables, v.Name)
	}
	require.Equal(t, []string{"datasource", "cluster", "tenant", "node"}, variables)
	ids, cells, titles := map[int]bool{}, map[[2]int]string{}, map[string]bool{}
	for _, p := range d.Panels {
		require.False(t, ids[p.ID], "%d is there twice", p.ID)
		require.False(t, titles[p.Title], "%s is there twice", p.Title)
		ids[p.ID], titles[p.Title] = true, true
		require.LessOrEqual(t, p.Grid.X+p.Grid.W, 24, p.Title)
		for x := range p.Grid.W {
			for y := range p.Grid.H {
				cell := [2]int{p.Grid.X + x, p.Grid.Y + y}
				require.Empty(t, cells[cell], "%s is over it", p.Title)
				cells[cell] = p.Title
			}
		}
		if p.Type == "row" {
			continue
		}
		require.Equal(t, "${datasource}", p.Datasource.UID, p.Title)
		require.NotEmpty(t, p.Targets, p.Title)
	}
	require.Greater(t, len(d.Panels), 20)
}
