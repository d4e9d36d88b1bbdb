package telemetry

import (
	"fmt"
	"io"
	"log/slog"
	"math"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"
)

// busy is an output that has counted something of everything.
func busy(m *Metrics, name string) *Output {
	o := m.Output(name)
	o.Start(func() Snapshot {
		return Snapshot{InFlight: 3, Oldest: time.Now().Add(-time.Hour), LedgerChunks: 2, LedgerEvictions: 1, RetentionOpen: 4, StorageFree: 5 << 20, StorageSize: 10 << 20, ClockSkew: time.Minute, ClockTold: true, RefusedChunks: 1, RefusedKnown: true}
	})
	NewLogger(name, m.Counting(name, make(chanPrinter))).Error("x")
	o.Records("acme", Delivered, 10, 1000)
	o.Records("", Unrouted, 1, 100)
	o.Change("acme", "restamped", 2)
	o.Discarded("acme", 1)
	o.Unanswered("acme", 1)
	o.Renewal("refused", true)
	o.Arrived("acme")
	o.Flush("ok")
	o.Put("acme", "ok", true, 20*time.Millisecond, 0.5, 100)
	o.Put("acme", "throttled", false, 20*time.Millisecond, 0.5, 100)
	o.Retention("/eks/tenants/acme", 365)
	o.Breaker("acme", true)
	o.Stalled("acme", true)
	o.Down(true)
	o.Tenants(7, 1)
	o.TenantsRefused(true)
	o.WithoutWorkers()
	return o
}

func TestMetricsAreWellFormed(t *testing.T) {
	m := NewMetrics()
	busy(m, "x.0")
	problems, err := testutil.GatherAndLint(m.registry)
	require.NoError(t, err)
	require.Empty(t, problems)
	require.NoError(t, err)
}

func scrape(t *testing.T, url string) (int, string) {
	t.Helper()
	r, err := http.Get(url)
	require.NoError(t, err)
	defer r.Body.Close()
	b, err := io.ReadAll(r.Body)
	require.NoError(t, err)
	return r.StatusCode, string(b)
}

func listening(t *testing.T, l *Listener) string {
	t.Helper()
	require.Eventually(t, func() bool { return l.Addr() != nil }, 10*time.Second, time.Millisecond)
	return "http://" + l.Addr().String()
}

func TestOneListenerAProcess(t *testing.T) {
	m := NewMetrics()
	l := NewListener(m)
	log := slog.New(slog.DiscardHandler)
	const address = "127.0.0.1:0"
	require.NoError(t, l.Join(address, log))
	url := listening(t, l)
	code, _ := scrape(t, url+"/healthz")
	require.Equal(t, 200, code)
	code, _ = scrape(t, url+"/readyz")
	require.Equal(t, 503, code, "no output is ready")
	first, second := busy(m, "x.0"), busy(m, "x.1")
	require.NoError(t, l.Join(address, log))
	require.ErrorContains(t, l.Join("127.0.0.1:2", log), "another [OUTPUT] of this process has metrics_listen 127.0.0.1:0")
	code, _ = scrape(t, url+"/readyz")
	require.Equal(t, 200, code)
	_, text := scrape(t, url+"/metrics")
	for _, line := range []string{
		`tenantlogs_records_total{outcome="delivered",output="x.0",tenant="acme"} 10`,
		`tenantlogs_records_total{outcome="unrouted",output="x.1",tenant="_platform"} 1`,
		`tenantlogs_record_bytes_total{outcome="delivered",output="x.0",tenant="acme"} 1000`,
		`tenantlogs_record_changes_total{change="restamped",output="x.0",tenant="acme"} 2`,
		`tenantlogs_put_requests_total{class="throttled",output="x.0"} 1`,
		`tenantlogs_put_duration_seconds_count{output="x.0"} 2`,
		`tenantlogs_batch_fill_ratio_sum{output="x.0"} 1`,
		`tenantlogs_puts_in_flight{output="x.1"} 3`,
		`tenantlogs_log_group_retention_seconds{log_group="/eks/tenants/acme",output="x.0"} 3.1536e+07`,
		`tenantlogs_ledger_evictions_total{output="x.0"} 1`,
		`tenantlogs_log_groups_with_retention_open{output="x.0"} 4`,
		`tenantlogs_tenants_file_refused{output="x.0"} 1`,
		`tenantlogs_tenants_file_generation{output="x.0"} 7`,
		`tenantlogs_breaker_open{output="x.0",tenant="acme"} 1`,
		`tenantlogs_without_workers{output="x.0"} 1`,
		`tenantlogs_oldest_unacknowledged_age_seconds{output="x.0"} 36`,
		`tenantlogs_last_arrival_timestamp_seconds{output="x.0",tenant="acme"} 1.`,
		`tenantlogs_last_success_timestamp_seconds{output="x.0",tenant="acme"} 1.`,
	} {
		require.Contains(t, text, line)
	}
	first.Close()
	l.Leave(log)
	_, text = scrape(t, url+"/metrics")
	require.NotContains(t, text, `tenantlogs_puts_in_flight{output="x.0"}`)
	require.Contains(t, text, `tenantlogs_puts_in_flight{output="x.1"}`)
	require.Contains(t, text, `tenantlogs_records_total{outcome="delivered",output="x.0"`, "what was counted stays")
	second.Close()
	l.Leave(log)
	_, err := http.Get(url + "/healthz")
	require.Error(t, err)
	// Hot reload comes back.
	require.NoError(t, l.Join("127.0.0.1:0", log))
	listening(t, l)
	l.Leave(log)
}

// An address that is in use is no reason not to deliver.
func TestAnAddressThatIsInUseIsTriedAgain(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	lines := make(chan string, 100)
	log := NewLogger("x", chanPrinter(lines))
	l := NewListener(NewMetrics())
	l.Retry = time.Millisecond
	require.NoError(t, l.Join(taken.Addr().String(), log))
	require.Contains(t, <-lines, "delivery goes on")
	require.NoError(t, taken.Close())
	listening(t, l)
	l.Leave(log)
}

type chanPrinter chan string

func (chanPrinter) Enabled(slog.Level) bool { return true }
func (c chanPrinter) Print(_ slog.Level, s string) {
	select {
	case c <- s:
	default:
	}
}

func TestLabelsAreBounded(t *testing.T) {
	m := NewMetrics()
	o := m.Output("x")
	for i := range 10 * MaxTenants {
		o.Records(fmt.Sprint("t", i), Delivered, 1, 1)
		o.Retention(fmt.Sprint("/g", i), float64(1000+i))
	}
	o.Retention("/never", math.Inf(1))
	require.LessOrEqual(t, testutil.CollectAndCount(m.records)+testutil.CollectAndCount(m.retention), 2*MaxTenants+2)
	require.EqualValues(t, 9*MaxTenants, testutil.ToFloat64(m.records.WithLabelValues("x", OtherTenants, Delivered)))
	require.EqualValues(t, (1000+MaxTenants)*86400, testutil.ToFloat64(m.retention.WithLabelValues("x", OtherTenants)), "the shortest of the others")
	o.Records(ManyTenants, Malformed, 1, 1)
	require.EqualValues(t, 1, testutil.ToFloat64(m.records.WithLabelValues("x", ManyTenants, Malformed)))
}

func TestWithoutMetricsNothingIsCounted(t *testing.T) {
	var o *Output
	o.Start(nil)
	o.Records("a", Delivered, 1, 1)
	o.Change("a", "x", 1)
	o.Arrived("a")
	o.Flush("ok")
	o.Put("a", "ok", true, 0, 0, 0)
	o.Retention("/g", 1)
	o.Breaker("a", true)
	o.Stalled("a", true)
	o.Unanswered("a", 1)
	o.Renewal("refused", false)
	o.Down(true)
	o.Tenants(1, 1)
	o.TenantsRefused(true)
	o.WithoutWorkers()
	o.Close()
}

// The page lists every metric there is.
func TestEveryMetricIsDocumented(t *testing.T) {
	page, err := os.ReadFile("../../docs/metrics.md")
	require.NoError(t, err)
	m := NewMetrics()
	busy(m, "x")
	m.Reading("lost", "tenant-acme", "web-0", "app", 12)
	families, err := m.registry.Gather()
	require.NoError(t, err)
	n := 0
	for _, f := range families {
		if strings.HasPrefix(f.GetName(), namespace) {
			require.Contains(t, string(page), "`"+f.GetName()+"`")
			n++
		}
	}
	require.Equal(t, n, strings.Count(string(page), "`"+namespace+"_"), "and no other")
}

func TestASnapshotThatPanicsIsLeftOut(t *testing.T) {
	m := NewMetrics()
	busy(m, "x.0")
	m.Output("x.1").Start(func() Snapshot { panic("no") })
	families, err := m.registry.Gather()
	require.NoError(t, err)
	require.NotEmpty(t, families)
}

// An output that left is not written through: its memory is Fluent Bit's, and freed.
func TestTheListenerWritesThroughOutputsThatAreThere(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer func() { _ = taken.Close() }()
	first, second := make(chan string, 1000), make(chan string, 1000)
	a, b := NewLogger("a", chanPrinter(first)), NewLogger("b", chanPrinter(second))
	l := NewListener(NewMetrics())
	l.Retry = time.Millisecond
	require.NoError(t, l.Join(taken.Addr().String(), a))
	require.NoError(t, l.Join(taken.Addr().String(), b))
	<-first
	l.Leave(a)
	for len(first) > 0 {
		<-first
	}
	<-second
	<-second
	require.Empty(t, first)
	l.Leave(b)
}

// Fluent Bit counts the plugin's lines among its own: the difference is Fluent Bit's, also
// where its log_level leaves lines out.
func TestLinesAreCountedByLevel(t *testing.T) {
	m := NewMetrics()
	printed := make(quiet, 100)
	log := NewLogger("x", m.Counting("x.0", printed))
	log.Debug("left out")
	log.Info("one")
	log.Warn("two")
	log.Error("three")
	log.Error("four")
	require.Len(t, printed, 4)
	for level, want := range map[string]float64{"debug": 0, "info": 1, "warn": 1, "error": 2} {
		require.Equal(t, want, testutil.ToFloat64(m.lines.WithLabelValues("x.0", level)), level)
	}
}

// quiet takes no debug lines.
type quiet chan string

func (quiet) Enabled(l slog.Level) bool         { return l > slog.LevelDebug }
func (c quiet) Print(_ slog.Level, line string) { c <- line }

func TestContainersBeyondTheBoundAreCountedTogether(t *testing.T) {
	m := NewMetrics()
	for i := range maxContainers + 2 {
		m.Reading("caught_up", "tenant-acme", fmt.Sprint("web-", i), "app", 10)
	}
	m.Reading("lost", "tenant-acme", "web-0", "app", 0)
	families, err := m.registry.Gather()
	require.NoError(t, err)
	got := map[string]float64{}
	for _, f := range families {
		for _, series := range f.GetMetric() {
			if strings.HasPrefix(f.GetName(), "tenantlogs_rotated_file") {
				got[f.GetName()] += series.GetCounter().GetValue()
			}
		}
		if f.GetName() == "tenantlogs_rotated_files_total" {
			require.Len(t, f.GetMetric(), maxContainers+2, "each of them, the others, and the lost one")
		}
	}
	require.Equal(t, map[string]float64{"tenantlogs_rotated_files_total": maxContainers + 3, "tenantlogs_rotated_file_bytes_total": 10 * (maxContainers + 2)}, got)
}
