package output

import (
	"context"
	"encoding/json"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/eks-tenant-logs/eks-tenant-logs/internal/fakeaws"
)

// denied is a stand-in that denies everything about one tenant's group while on is set.
func denied(s *fakeaws.Server, group string) (on *atomic.Bool) {
	on = &atomic.Bool{}
	on.Store(true)
	s.SetIntercept(func(c fakeaws.Call) error {
		if on.Load() && c.LogGroup == group {
			return &fakeaws.APIError{Code: "AccessDeniedException", Message: "no"}
		}
		return nil
	})
	return on
}

// failing is an instance whose tenant a is refused, and b is not. probe lets a trial
// through when asked to.
func failing(t *testing.T, yaml string, opts ...string) (i *Instance, s *fakeaws.Server, log *logText, on *atomic.Bool, clock *atomic.Int64) {
	t.Helper()
	if yaml != "" {
		file := t.TempDir() + "/tenants.yaml"
		require.NoError(t, os.WriteFile(file, []byte(yaml), 0o600))
		opts = append(opts, "tenants_file", file)
	}
	s = fakeaws.New(fakeaws.Config{})
	on = denied(s, "/eks/tenants/a")
	clock = &atomic.Int64{}
	start := time.Now()
	i, log = at(t, s, Environment{
		Node: "n1", Now: func() time.Time { return start.Add(time.Duration(clock.Load())) },
		Probe: func(int) time.Duration { return time.Minute },
	}, opts...)
	return i, s, log, on, clock
}

func ship(t *testing.T, i *Instance, ns string, record map[string]any) Result {
	t.Helper()
	return i.Flush(context.Background(), strings.Replace(tagA, "tenant-a", ns, 1), chunkOf(time.Now(), record), 0)
}

func TestATenantWhoseGroupIsDeniedIsQuarantinedUntilItTakesEventsAgain(t *testing.T) {
	i, s, log, on, clock := failing(t, "version: 1\ntenants: {a: {emf: true, retentionDays: 731}}")
	require.Equal(t, OK, ship(t, i, "tenant-b", map[string]any{"log": "b"}))
	line := func(n string) map[string]any { return map[string]any{"log": n, "_aws": map[string]any{}} }
	require.Equal(t, Retry, ship(t, i, "tenant-a", line("1")))
	require.Equal(t, Retry, ship(t, i, "tenant-a", line("1")))
	require.Equal(t, OK, ship(t, i, "tenant-a", line("1")), "the retry of a chunk goes to quarantine")
	calls := s.CallCount("PutLogEvents")
	require.Equal(t, OK, ship(t, i, "tenant-a", line("2")))
	require.Equal(t, OK, ship(t, i, "tenant-b", map[string]any{"log": "b"}))
	require.Equal(t, calls+2, s.CallCount("PutLogEvents"), "nothing is sent where it will be refused")
	clock.Add(int64(time.Minute))
	require.Equal(t, Retry, ship(t, i, "tenant-a", line("3")), "the trial")
	require.Equal(t, OK, ship(t, i, "tenant-a", line("3")))
	on.Store(false)
	clock.Add(int64(time.Minute))
	require.Equal(t, OK, ship(t, i, "tenant-a", line("4")))
	require.Equal(t, OK, ship(t, i, "tenant-a", line("5")))
	require.Eventually(t, func() bool { return i.accounts.open() == 0 }, 30*time.Second, time.Millisecond)
	i.Close()

	logs := func(group string) (all []string) {
		for _, e := range s.Events(group, "tenant-a/p/c") {
			var m struct {
				Log   string
				Notes map[string]string `json:"_tenantlogs"`
			}
			require.NoError(t, json.Unmarshal([]byte(e.Message), &m))
			if strings.Contains(group, "quarantine") {
				require.Equal(t, map[string]string{"quarantined": "denied", "log_group": "/eks/tenants/a"}, m.Notes)
				require.Contains(t, e.Message, `"_aws_claimed"`, "the platform's group makes no tenant's metrics")
			} else {
				require.Empty(t, m.Notes)
			}
			all = append(all, m.Log)
		}
		return all
	}
	require.Equal(t, []string{"1", "2", "3"}, logs("/eks/quarantine/a"))
	require.Equal(t, []string{"4", "5"}, logs("/eks/tenants/a"))
	for _, g := range s.Groups() {
		if g.Name == "/eks/quarantine/a" {
			require.Equal(t, 731, g.RetentionInDays)
			require.Equal(t, "a", g.Tags["eks-tenant-logs/tenant"])
		}
	}
	require.Contains(t, log.String(), "a log group does not take events; what on_failure says is done with them until it does")
	require.Contains(t, log.String(), "the log group takes events again")
}

func TestHoldAndDropDoWhatTheySay(t *testing.T) {
	for policy, want := range map[string]Result{"hold": Retry, "drop": OK} {
		i, s, _, _, _ := failing(t, "", "on_failure", policy)
		require.Equal(t, OK, ship(t, i, "tenant-b", map[string]any{"log": "b"}))
		for range 2 {
			require.Equal(t, Retry, ship(t, i, "tenant-a", map[string]any{"log": "x"}))
		}
		calls := s.CallCount("PutLogEvents")
		for range 5 {
			require.Equal(t, want, ship(t, i, "tenant-a", map[string]any{"log": "x"}), policy)
		}
		require.Equal(t, calls, s.CallCount("PutLogEvents"), "at once, without a call")
		i.Close()
		require.Len(t, s.Groups(), 1, "no quarantine")
	}
}

// What has a key or an account of its own is not copied under the platform's key.
func TestATenantWithItsOwnKeyIsHeldUnlessItSaysOtherwise(t *testing.T) {
	const key, other = "arn:aws:kms:us-east-1:123456789012:key/11111111-aaaa", "arn:aws:kms:us-east-1:123456789012:key/22222222-bbbb"
	for yaml, want := range map[string]Result{
		"{kmsKeyArn: \"" + key + "\"}":                                         Retry,
		"{kmsKeyArn: \"" + key + "\", quarantineKmsKeyArn: \"" + other + "\"}": OK,
		"{kmsKeyArn: \"" + key + "\", onFailure: quarantine}":                  OK,
		"{quarantineKmsKeyArn: \"" + other + "\"}":                             OK,
		"{onFailure: hold}":                                                    Retry,
		"{roleArn: \"arn:aws:iam::210987654321:role/x\"}":                      Retry,
	} {
		t.Run(yaml, func(t *testing.T) {
			i, s, _, _, _ := failing(t, "version: 1\ntenants: {a: "+yaml+"}")
			require.Equal(t, OK, ship(t, i, "tenant-b", map[string]any{"log": "b"}))
			for range 2 {
				require.Equal(t, Retry, ship(t, i, "tenant-a", map[string]any{"log": "x"}))
			}
			require.Equal(t, want, ship(t, i, "tenant-a", map[string]any{"log": "x"}))
			i.Close()
			for _, g := range s.Groups() {
				if g.Name == "/eks/quarantine/a" {
					require.NotEqual(t, key, g.KMSKeyID)
					require.Equal(t, strings.Contains(yaml, other), g.KMSKeyID == other)
				}
			}
		})
	}
}

func TestAGroupThatIsMissingAndMayNotBeMade(t *testing.T) {
	i, s, _ := instance(t, fakeaws.Config{}, Environment{}, "auto_create_group", "off")
	for range 4 {
		require.Equal(t, Retry, ship(t, i, "tenant-a", map[string]any{"log": "x"}), "quarantine is missing as well: nothing is lost")
	}
	i.Close()
	require.Empty(t, s.Groups())
}

// In one chunk of an aggregator's, the tenant that is refused holds up nobody else.
func TestInRecordModeOnlyTheRefusedTenantIsQuarantined(t *testing.T) {
	i, s, _, _, _ := failing(t, "", "identity", "record")
	var records []map[string]any
	for _, ns := range []string{"tenant-a", "tenant-b", "tenant-a", "kube-system"} {
		records = append(records, map[string]any{"log": ns, "kubernetes": map[string]any{"namespace_name": ns, "pod_name": "p", "container_name": "c"}})
	}
	data := chunkOf(time.Now(), records...)
	for range 2 { // until the breaker is open
		require.Equal(t, Retry, i.Flush(context.Background(), "any", data, 0))
	}
	bring(t, i, "any", data)
	i.Close()
	require.Len(t, s.Events("/eks/tenants/b", "tenant-b/p/c"), 1, "once, although its chunk came three times")
	require.Len(t, s.Events("/eks/platform", "kube-system/p/c"), 1)
	require.Len(t, s.Events("/eks/quarantine/a", "tenant-a/p/c"), 2)
	require.NotContains(t, s.Events("/eks/tenants/b", "tenant-b/p/c")[0].Message, "quarantined")
}
