package e2e

import (
	"context"
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/eks-tenant-logs/eks-tenant-logs/e2e/node"
	"github.com/eks-tenant-logs/eks-tenant-logs/internal/fakeaws"
)

var recordMetrics = flag.Bool("record-metrics", false, "write down Fluent Bit's metrics anew: charts/testdata")

// fluentBitMetrics is what Fluent Bit was seen to serve: a metric and its labels a line, its
// version in the first. The tests of charts/ hold alerts and dashboard to it.
const fluentBitMetrics = "../charts/testdata/fluent-bit-metrics.txt"

var (
	listens  = regexp.MustCompile(`\[http_server\] listen iface=\S+ tcp_port=(\d+)`)
	sample   = regexp.MustCompile(`^([a-z_:]+)(?:\{(.*)\})? `)
	labelled = regexp.MustCompile(`([a-z_]+)="(?:[^"\\]|\\.)*"`)
)

// families are the metrics of a text in Prometheus' format, each with its labels.
func families(text string) (all []string) {
	for _, line := range strings.Split(text, "\n") {
		m := sample.FindStringSubmatch(line)
		if m == nil || strings.HasPrefix(line, "#") {
			continue
		}
		for _, suffix := range []string{"_bucket", "_sum", "_count"} {
			m[1] = strings.TrimSuffix(m[1], suffix)
		}
		var labels []string
		for _, l := range labelled.FindAllStringSubmatch(m[2], -1) {
			if l[1] != "le" {
				labels = append(labels, l[1])
			}
		}
		slices.Sort(labels)
		all = append(all, m[1]+" "+strings.Join(labels, ","))
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// scrapeFluentBit is what the agent's own port serves, once it logs where that is.
func scrapeFluentBit(t *testing.T, log *logBuffer) string {
	t.Helper()
	port := listens.FindStringSubmatch(log.String())
	if port == nil {
		return ""
	}
	resp, err := http.Get("http://127.0.0.1:" + port[1] + "/api/v2/metrics/prometheus")
	if err != nil {
		return ""
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	return string(text)
}

// value is the sample of a metric with the label name; -1 where there is none.
func value(text, metric, name string) float64 {
	for _, line := range strings.Split(text, "\n") {
		if rest, ok := strings.CutPrefix(line, metric+`{name="`+name+`"} `); ok {
			v, err := strconv.ParseFloat(rest, 64)
			if err == nil {
				return v
			}
		}
	}
	return -1
}

// Alerts and dashboard use metrics of Fluent Bit's own: those it serves with the chart's
// configuration, after lines were shipped, one of them too long.
func TestFluentBitServesTheMetricsThatAreWrittenDown(t *testing.T) {
	e := onFluentBit(t)
	cw, s := standIn(t, fakeaws.Config{})
	n := newNode(t)
	tenants := filepath.Join(t.TempDir(), "tenants.yaml")
	require.NoError(t, os.WriteFile(tenants, []byte("version: 1\n"), 0o600))
	want := map[string]int{}
	writePhase(t, n, 0, 3, 10, want)
	long := node.Pod{Namespace: "tenant-t0", Name: "long", Container: "c"}
	require.NoError(t, n.Write(long, "short"))
	file, err := os.OpenFile(filepath.Join(n.Root, "var/log/pods", long.Namespace+"_"+long.Name+"_"+long.UID(), long.Container, "0.log"), os.O_APPEND|os.O_WRONLY, 0)
	require.NoError(t, err)
	_, err = file.WriteString("2026-01-01T00:00:00.000000000Z stdout F " + strings.Repeat("x", 400<<10) + "\n")
	require.NoError(t, err)
	require.NoError(t, file.Close())
	cmd, log := agent(t, e, cw, n, t.TempDir(), tenants, "--set", "fluentBit.config.tail.bufferMaxSize=128KB")
	require.Eventually(t, arrived(s, len(want)), 60*time.Second, 50*time.Millisecond, "%s", log)
	var got []string
	require.Eventually(t, func() bool {
		got = families(scrapeFluentBit(t, log))
		return slices.Contains(got, "fluentbit_storage_fs_chunks ") && slices.Contains(got, "fluentbit_input_long_line_truncated_total name")
	}, 20*time.Second, 200*time.Millisecond, "%s", log)
	terminate(t, cmd)
	version := regexp.MustCompile(`Fluent Bit v([0-9.]+)`).FindStringSubmatch(log.String())
	require.NotNil(t, version)
	if *recordMetrics {
		require.NoError(t, os.MkdirAll(filepath.Dir(fluentBitMetrics), 0o755))
		require.NoError(t, os.WriteFile(fluentBitMetrics, []byte("# Fluent Bit "+version[1]+"\n"+strings.Join(got, "\n")+"\n"), 0o600))
	}
	text, err := os.ReadFile(fluentBitMetrics)
	require.NoError(t, err)
	lines := strings.Split(strings.TrimSuffix(string(text), "\n"), "\n")
	require.Equal(t, "# Fluent Bit "+version[1], lines[0], "another version: go test ./e2e -run FluentBitServes -record-metrics")
	require.Subset(t, got, lines[1:])
}

// What storage.total_limit_size takes away is counted where the alert looks, beside no chunk that
// was given up; what is left goes down before.
func TestWhatFluentBitEvictsIsCountedWhereTheAlertLooks(t *testing.T) {
	e := onFluentBit(t)
	cw, s := standIn(t, fakeaws.Config{})
	s.SetIntercept(func(c fakeaws.Call) error {
		if c.Operation == "PutLogEvents" {
			return &fakeaws.APIError{Code: "ThrottlingException", Message: "Rate exceeded"}
		}
		return nil
	})
	n := newNode(t)
	tenants := filepath.Join(t.TempDir(), "tenants.yaml")
	require.NoError(t, os.WriteFile(tenants, []byte("version: 1\n"), 0o600))
	texts := make([]string, 60)
	for i := range texts {
		texts[i] = strings.Repeat("y", 10<<10)
	}
	write := func(pod int) {
		require.NoError(t, n.Write(node.Pod{Namespace: "tenant-t0", Name: fmt.Sprint("pod-", pod), Container: "c"}, texts...))
	}
	write(0)
	cmd, log := agent(t, e, cw, n, t.TempDir(), tenants, "--set", "fluentBit.config.storage.totalLimitSize=3M,fluentBit.config.flushTimeout=2,fluentBit.config.grace=5")
	const out = "cloudwatch_tenants.0"
	pods, least := 0, 100.0
	require.Eventually(t, func() bool {
		text := scrapeFluentBit(t, log)
		if left := value(text, "fluentbit_output_chunk_available_capacity_percent", out); left >= 0 {
			least = min(least, left)
		}
		if value(text, "fluentbit_output_dropped_records_total", out) > 0 {
			require.Zero(t, value(text, "fluentbit_output_retries_failed_total", out))
			require.Zero(t, value(text, "fluentbit_output_errors_total", out))
			return true
		}
		if pods < 40 {
			pods++
			write(pods)
		}
		return false
	}, 90*time.Second, 2*time.Second, "%s", log)
	require.Less(t, least, 25.0, "the alert before it could fire")
	require.Contains(t, log.String(), "evicted from output queue")
	s.SetIntercept(nil)
	terminate(t, cmd)
}

// Without the Prometheus operator's CRDs nothing is made, and the error says which is missing;
// the dashboard needs none.
func TestMonitoringWithoutTheOperatorIsRefusedBeforeAnythingIsMade(t *testing.T) {
	_, admin, kubeconfig := forTheChart(t)
	createNamespace(t, admin, chartSpace, "")
	for value, kind := range map[string]string{"podMonitor": "PodMonitor", "rules": "PrometheusRule"} {
		require.ErrorContains(t, install(t, kubeconfig, "eks-tenant-logs", chartSpace, "monitoring."+value+".enabled=true"), fmt.Sprintf("no matches for kind %q in version %q", kind, "monitoring.coreos.com/v1"))
		made, err := admin.AppsV1().DaemonSets(chartSpace).List(within(t, time.Minute), metav1.ListOptions{})
		require.NoError(t, err)
		require.Empty(t, made.Items)
	}
	_, err := runHelm(t, kubeconfig, "upgrade", "--install", "eks-tenant-logs", chartFolder, "--namespace", chartSpace, "--set", "clusterName=c1,aws.region=us-east-1", "--set", "monitoring.dashboard.enabled=true")
	require.NoError(t, err)
	m, err := admin.CoreV1().ConfigMaps(chartSpace).Get(within(t, time.Minute), "eks-tenant-logs-dashboard", metav1.GetOptions{})
	require.NoError(t, err)
	require.Equal(t, "1", m.Labels["grafana_dashboard"])
}

// What alerts ask of provisioners, from real ones: one of two leads, and the one that leads says
// what waits in quarantine.
func TestTheControllerTellsWhoLeadsAndWhatWaitsInQuarantine(t *testing.T) {
	cw, _ := standIn(t, fakeaws.Config{Enforce: true})
	bootstrap(t, cw)
	r := newRelease(t)
	createNamespace(t, r.admin, "tenant-acme", "")
	first := r.start(t, cw)
	r.becomes(t, "acme", "ready")
	first.stop(t)
	require.NoError(t, putLine(within(t, 2*time.Minute), cw, "/eks/quarantine/acme", "tenant-acme/web/app", "x"))
	addresses := []string{freeAddress(t), freeAddress(t)}
	for _, a := range addresses {
		r.start(t, cw, "--metrics-address", a)
	}
	const leads, waits = `leader_election_master_status{name="`, "tenantlogs_controller_quarantined_since_timestamp_seconds"
	eventually(t, "one of two leads, and says what waits", func(context.Context) (bool, string) {
		var leading, waiting, seen float64
		for _, a := range addresses {
			resp, err := http.Get("http://" + a + "/metrics")
			if err != nil {
				return false, err.Error()
			}
			text, err := io.ReadAll(resp.Body)
			resp.Body.Close()
			require.NoError(t, err)
			for _, line := range strings.Split(string(text), "\n") {
				name, number, _ := strings.Cut(line, " ")
				v, _ := strconv.ParseFloat(number, 64)
				switch {
				case strings.HasPrefix(name, leads):
					seen++
					leading += v
				case name == waits+`{tenant="acme"}`:
					waiting = v
				}
			}
		}
		return seen == 2 && leading == 1 && time.Since(time.Unix(int64(waiting), 0)).Abs() < 5*time.Minute, fmt.Sprint(seen, leading, waiting)
	})
}
