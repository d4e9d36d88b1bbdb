package e2e

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/eks-tenant-logs/eks-tenant-logs/internal/fakeaws"
)

// A name is used once: a namespace deleted and made anew, and a retired tenant's successor,
// get nothing of their predecessor's until somebody says so.
func TestATenantsNameIsUsedOnce(t *testing.T) {
	cw, s := standIn(t, fakeaws.Config{Enforce: true})
	bootstrap(t, cw)
	apply := func(uid string) (state, reason string, writes, code int) {
		said, code := provision(t, cw, "apply", trusting, "--namespace", "tenant-acme="+uid)
		require.Len(t, said.Tenants, 1)
		return said.Tenants[0].State, said.Tenants[0].Reason, said.Writes, code
	}
	state, reason, _, code := apply("uid-1")
	require.Equal(t, "ready", state, reason)
	require.Zero(t, code)

	state, reason, _, code = apply("uid-2")
	require.Equal(t, "refused", state)
	require.Equal(t, 1, code)
	require.Contains(t, reason, "tenantlogs reactivate acme --namespace tenant-acme=uid-2")
	_, _, writes, _ := apply("uid-2")
	require.Zero(t, writes, "refused again, with nothing left to take away")

	said, code := provision(t, cw, "reactivate", "acme", "--namespace", "tenant-acme=uid-2")
	require.Zero(t, code, "%+v", said)
	state, reason, _, _ = apply("uid-2")
	require.Equal(t, "ready", state, reason)

	before := changing(s)
	said, code = provision(t, cw, "retire", "acme", "--dry-run")
	require.Zero(t, code)
	require.Equal(t, "pending", said.State)
	for _, kind := range []string{"tag-group", "remove-policy", "set-trust", "tag-role"} {
		require.Contains(t, string(said.Actions), `"`+kind+`"`)
	}
	require.Equal(t, before, changing(s), "a dry run writes nothing")
	said, code = provision(t, cw, "retire", "acme")
	require.Zero(t, code)
	require.Equal(t, "retired", said.State)
	require.Equal(t, 4, said.Writes)
	said, code = provision(t, cw, "retire", "acme")
	require.Zero(t, code)
	require.Zero(t, said.Writes)
	for _, uid := range []string{"uid-2", "uid-3"} {
		state, reason, writes, _ = apply(uid)
		require.Equal(t, "retired", state)
		require.Contains(t, reason, "tenantlogs reactivate acme")
		require.Zero(t, writes)
	}
	_, stderr, code := runCommand(t, cw, "retire", "Acme")
	require.Equal(t, 2, code)
	require.Contains(t, string(stderr), "is no tenant's name")
	require.Zero(t, s.CallCount("DeleteLogGroup")+s.CallCount("DeleteLogStream")+s.CallCount("DeleteRetentionPolicy"))
}

// lifecycle-test walks a tenant's whole life by the roles that take part in it, with every
// call allowed or denied by their policies; and again by the same name.
func TestALifecycleTestPassesEachStep(t *testing.T) {
	cw, _ := standIn(t, fakeaws.Config{Enforce: true})
	bootstrap(t, cw)
	for range 2 {
		stdout, stderr, code := runCommand(t, cw, "lifecycle-test", "probe", trusting, "--wait", "5s")
		require.Zero(t, code, "%s%s", stdout, stderr)
		require.Equal(t, 6, strings.Count(string(stdout), "passed"), string(stdout))
		require.NotContains(t, string(stdout), "FAILED")
		require.Contains(t, string(stdout), "by the writer's role")
		t.Logf("\n%s", stdout)
	}
	stdout, stderr, code := runCommand(t, cw, "tenants")
	require.Zero(t, code, string(stderr))
	require.Regexp(t, `(?m)^probe +lifecycle-test +/eks/tenants/probe +365 days +eks-tenant-logs_probe_\w+ +20\S+Z +retired$`, string(stdout))
}

// Where IAM is not enforced nothing is refused: the step that fails says that this may be why.
func TestALifecycleTestSaysThatIAMMayNotBeEnforced(t *testing.T) {
	cw, _ := standIn(t, fakeaws.Config{})
	bootstrap(t, cw)
	stdout, stderr, code := runCommand(t, cw, "lifecycle-test", "probe", trusting, "--wait", "5s")
	require.NotZero(t, code)
	require.Regexp(t, `refused elsewhere +FAILED +\w+ on /eks/tenants/other-than-probe.*; IAM may not be enforced there`, string(stdout), string(stderr))
}
