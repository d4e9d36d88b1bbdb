package e2e

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/eks-tenant-logs/eks-tenant-logs/e2e/host"
	"github.com/eks-tenant-logs/eks-tenant-logs/e2e/node"
	"github.com/eks-tenant-logs/eks-tenant-logs/internal/fakeaws"
)

// Promise 5: a tenant's failure stays its own.

// refuse makes every call about one tenant's own group fail.
func refuse(s *fakeaws.Server, group string) {
	s.SetIntercept(func(c fakeaws.Call) error {
		if c.LogGroup == group {
			return &fakeaws.APIError{Code: "AccessDeniedException", Message: "User is not authorized to perform logs:" + c.Operation}
		}
		return nil
	})
}

func TestFailureOfOneTenantIsQuarantinedAndTheOthersArrive(t *testing.T) {
	onEngines(t, func(t *testing.T, e node.Engine) {
		cw, s := standIn(t, fakeaws.Config{})
		refuse(s, "/eks/tenants/t3")
		n := newNode(t)
		want := writeNumbered(t, n, 21, 200) // three pods of each tenant
		log := newLog(t)
		require.NoError(t, e.Ship(within(t, 2*time.Minute), node.Run{
			Node: n, Plugin: pluginPath(t), Env: cw.Env(), Log: log, Options: options(cw), Until: arrived(s, len(want)),
		}))
		require.Equal(t, want, numbers(t, s), "nothing lost, nothing twice")
		for _, g := range s.Groups() {
			switch g.Name {
			case "/eks/tenants/t3":
				t.Fatal("the group that is refused is not there")
			case "/eks/quarantine/t3":
				require.EqualValues(t, 600, g.Events)
			default:
				require.EqualValues(t, 600, g.Events, g.Name)
				require.True(t, strings.HasPrefix(g.Name, "/eks/tenants/"), g.Name)
			}
		}
		for _, ev := range s.Events("/eks/quarantine/t3", "tenant-t3/pod-3/c") {
			var m struct {
				Notes map[string]string `json:"_tenantlogs"`
			}
			require.NoError(t, json.Unmarshal([]byte(ev.Message), &m))
			require.Equal(t, map[string]string{"quarantined": "denied", "log_group": "/eks/tenants/t3"}, m.Notes)
		}
		require.Contains(t, log.String(), "a log group does not take events")
	})
}

// The role of a tenant's own account can't be assumed, its group may not be made, and
// one is denied: each by its own reason, and each on_failure does what it says.
func TestFailureIsToldByItsReasonAndHandledAsConfigured(t *testing.T) {
	cw, s := standIn(t, fakeaws.Config{})
	s.SetIntercept(func(c fakeaws.Call) error {
		if c.Operation == "AssumeRole" || c.LogGroup == "/eks/tenants/denied" || c.LogGroup == "/eks/tenants/held" || c.LogGroup == "/eks/tenants/dropped" {
			return &fakeaws.APIError{Code: "AccessDeniedException", Message: "no"}
		}
		return nil
	})
	file := filepath.Join(t.TempDir(), "tenants.yaml")
	require.NoError(t, os.WriteFile(file, []byte(`
version: 1
tenants:
  role: {roleArn: "arn:aws:iam::210987654321:role/x", onFailure: quarantine}
  held: {onFailure: hold}
  dropped: {onFailure: drop}
`), 0o600))
	storage := t.TempDir()
	h, err := startHost(t, host.Config{Env: cw.Env(), Grace: 100 * time.Millisecond, StorageDir: storage, Outputs: []host.Output{{
		Workers: 4, Properties: options(cw, "tenants_file", file, "sts_endpoint", cw.Endpoint, "retry_limit", "no_limits"),
	}}})
	require.NoError(t, err)
	const each = 20
	tenants := []string{"fine", "denied", "role", "dropped", "held"}
	for range each {
		for _, tenant := range tenants {
			require.NoError(t, h.Send(strings.Replace(tagOfA, "tenant-a", "tenant-"+tenant, 1), record("x")))
		}
	}
	// All but what is held comes to its end.
	require.NoError(t, h.Until(within(t, time.Minute), func(st host.Stats) bool { return st.OK >= each*(len(tenants)-1) }))
	sum, err := h.Stop(within(t, time.Minute))
	require.NoError(t, err)
	require.Equal(t, each, sum.KeptInStorage, "held: Fluent Bit keeps it")
	count := map[string]int64{}
	for _, g := range s.Groups() {
		count[g.Name] = g.Events
	}
	require.Equal(t, map[string]int64{"/eks/tenants/fine": each, "/eks/quarantine/denied": each, "/eks/quarantine/role": each}, count)
	require.Contains(t, s.Events("/eks/quarantine/role", "tenant-role/p/c")[0].Message, `"quarantined":"role"`)
}
