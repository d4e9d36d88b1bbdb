package e2e

import (
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/eks-tenant-logs/eks-tenant-logs/internal/fakeaws"
)

// Running it all again writes nothing: bootstrap, and apply of the tenants of a file, each
// in a process that knows nothing of the one before.
func TestRunAgainEverythingWritesNothing(t *testing.T) {
	cw, s := standIn(t, fakeaws.Config{Enforce: true})
	file := filepath.Join(t.TempDir(), "tenants.yaml")
	require.NoError(t, os.WriteFile(file, []byte("version: 1\ntenants:\n  acme:\n    namespaces: [tenant-acme, acme-batch]\n  globex:\n    retentionDays: 731\n"), 0o600))
	apply := []string{"apply", trusting, "--tenants-file", file, "--namespace", "tenant-acme=uid-1,acme-batch=uid-2,tenant-globex=uid-3"}
	bootstrap(t, cw)

	plan, code := provision(t, cw, append([]string{"plan"}, apply[1:]...)...)
	require.Equal(t, 1, code, "there is something to do")
	var actions []struct{ Tenant, Layer, Kind, Target, Now, Will, Reason string }
	require.NoError(t, json.Unmarshal(plan.Actions, &actions))
	require.Len(t, actions, 2*8)
	for _, a := range actions {
		require.NotEmpty(t, a.Reason)
	}
	before := changing(s)
	_, code = provision(t, cw, append(apply, "--dry-run")...)
	require.Equal(t, 1, code)
	require.Equal(t, before, changing(s), "plan and a dry run write nothing")

	first, code := provision(t, cw, apply...)
	require.Zero(t, code, "%+v", first)
	require.Equal(t, 16, first.Writes)
	require.Equal(t, 16, changing(s)-before)
	for i, days := range []int{365, 731} {
		require.Equal(t, "ready", first.Tenants[i].State, first.Tenants[i].Reason)
		require.Equal(t, days, first.Tenants[i].RetentionDays)
	}

	before = changing(s)
	second, code := provision(t, cw, apply...)
	require.Zero(t, code)
	require.Zero(t, second.Writes)
	bootstrap(t, cw)
	_, code = provision(t, cw, append([]string{"plan"}, apply[1:]...)...)
	require.Zero(t, code, "nothing to do, nothing to tell")
	require.Equal(t, before, changing(s), "the second run makes no write call")
	require.Zero(t, s.CallCount("DeleteLogGroup")+s.CallCount("DeleteLogStream")+s.CallCount("DeleteRetentionPolicy"))
}
