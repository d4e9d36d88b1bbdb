package output

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/eks-tenant-logs/eks-tenant-logs/internal/fakeaws"
	"github.com/eks-tenant-logs/eks-tenant-logs/internal/telemetry"
)

func TestEveryRecordIsCountedOnceByWhatBecameOfIt(t *testing.T) {
	metrics := telemetry.NewMetrics()
	listener := telemetry.NewListener(metrics)
	env := Environment{Name: "x.0", Metrics: metrics, Listener: listener}
	i, s, _ := instance(t, fakeaws.Config{}, env, "metrics_listen", "127.0.0.1:0", "late_events", "drop")
	refuse := true
	s.SetIntercept(func(c fakeaws.Call) error {
		if c.Operation == "PutLogEvents" && refuse && c.LogGroup == "/eks/tenants/a" {
			return &fakeaws.APIError{Code: "AccessDeniedException", Message: "no"}
		}
		return nil
	})
	now := time.Now()
	chunk := chunkOf(now, map[string]any{"log": "x"}, map[string]any{"log": "y", "kubernetes": "forged"})
	chunk = append(chunk, 0x01) // no record
	chunk = append(chunk, chunkOf(now.Add(-30*24*time.Hour), map[string]any{"log": "late"})...)
	for range 3 { // sent again, and not counted again
		require.Equal(t, Retry, i.Flush(context.Background(), tagA, chunk, 0))
	}
	refuse = false
	require.Equal(t, OK, i.Flush(context.Background(), tagA, chunk, 0))
	require.Equal(t, OK, i.Flush(context.Background(), "nonsense", chunkOf(now, map[string]any{"log": "x"}), 0))
	require.Equal(t, OK, i.Flush(context.Background(), strings.Replace(tagA, "tenant-a", "kube-system", 1), chunkOf(now, map[string]any{"log": "x"}), 0))
	require.Eventually(t, func() bool { return i.accounts.open() == 0 && listener.Addr() != nil }, 30*time.Second, time.Millisecond)
	r, err := http.Get(fmt.Sprintf("http://%s/metrics", listener.Addr()))
	require.NoError(t, err)
	defer r.Body.Close()
	b, err := io.ReadAll(r.Body)
	require.NoError(t, err)
	var got []string
	for _, line := range strings.Split(string(b), "\n") {
		if strings.HasPrefix(line, "tenantlogs_record") && !strings.Contains(line, "_bytes_") || strings.HasPrefix(line, "tenantlogs_flushes") ||
			strings.HasPrefix(line, "tenantlogs_log_group") || strings.HasPrefix(line, "tenantlogs_put_requests") {
			got = append(got, line)
		}
	}
	require.Equal(t, []string{
		`tenantlogs_flushes_total{output="x.0",result="ok"} 3`,
		`tenantlogs_flushes_total{output="x.0",result="retry"} 3`,
		`tenantlogs_log_group_retention_seconds{log_group="/eks/platform",output="x.0"} 3.1536e+07`,
		`tenantlogs_log_group_retention_seconds{log_group="/eks/tenants/a",output="x.0"} 3.1536e+07`,
		`tenantlogs_log_groups_with_retention_open{output="x.0"} 0`,
		`tenantlogs_put_requests_total{class="denied",output="x.0"} 3`,
		`tenantlogs_put_requests_total{class="not found",output="x.0"} 3`,
		`tenantlogs_put_requests_total{class="ok",output="x.0"} 3`,
		`tenantlogs_record_changes_total{change="mismatch",output="x.0",tenant="a"} 1`,
		`tenantlogs_records_total{outcome="delivered",output="x.0",tenant="_platform"} 1`,
		`tenantlogs_records_total{outcome="delivered",output="x.0",tenant="a"} 2`,
		`tenantlogs_records_total{outcome="dropped",output="x.0",tenant="a"} 1`,
		`tenantlogs_records_total{outcome="malformed",output="x.0",tenant="a"} 1`,
		`tenantlogs_records_total{outcome="unrouted",output="x.0",tenant="_platform"} 1`,
	}, got)
	i.Close()
	require.Nil(t, listener.Addr())
}

// A tenant whose group takes nothing looks different from one that has nothing to say.
func TestATenantThatDoesNotGetThroughIsToldFromOneThatIsQuiet(t *testing.T) {
	metrics := telemetry.NewMetrics()
	listener := telemetry.NewListener(metrics)
	i, s, _ := instance(t, fakeaws.Config{}, Environment{Name: "x.0", Metrics: metrics, Listener: listener}, "metrics_listen", "127.0.0.1:0", "on_failure", "hold")
	s.SetIntercept(func(c fakeaws.Call) error {
		if c.Operation == "PutLogEvents" && c.LogGroup == "/eks/tenants/b" {
			return &fakeaws.APIError{Code: "AccessDeniedException", Message: "no"}
		}
		return nil
	})
	chunk := chunkOf(time.Now(), map[string]any{"log": "x"})
	require.Equal(t, OK, i.Flush(context.Background(), tagA, chunk, 0))
	require.Equal(t, Retry, i.Flush(context.Background(), strings.Replace(tagA, "tenant-a", "tenant-b", 1), chunk, 0))
	require.Eventually(t, func() bool { return listener.Addr() != nil }, 30*time.Second, time.Millisecond)
	r, err := http.Get(fmt.Sprintf("http://%s/metrics", listener.Addr()))
	require.NoError(t, err)
	defer r.Body.Close()
	b, err := io.ReadAll(r.Body)
	require.NoError(t, err)
	require.Contains(t, string(b), `tenantlogs_last_arrival_timestamp_seconds{output="x.0",tenant="a"}`)
	require.Contains(t, string(b), `tenantlogs_last_success_timestamp_seconds{output="x.0",tenant="a"}`)
	require.Contains(t, string(b), `tenantlogs_last_arrival_timestamp_seconds{output="x.0",tenant="b"}`)
	require.NotContains(t, string(b), `tenantlogs_last_success_timestamp_seconds{output="x.0",tenant="b"}`)
	i.Close()
}
