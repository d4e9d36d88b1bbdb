package main

import (
	"bytes"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/spf13/cobra"
	"github.com/stretchr/testify/require"

	"github.com/eks-tenant-logs/eks-tenant-logs/internal/provision"
)

func execute(args ...string) (string, error) {
	cmd := root()
	var out bytes.Buffer
	cmd.SetOut(&out)
	cmd.SetErr(&out)
	cmd.SetArgs(args)
	err := cmd.Execute()
	return out.String(), err
}

func TestProvisioningRefusesWhatItCannotUseBeforeTheFirstCall(t *testing.T) {
	for _, name := range []string{"AWS_REGION", "AWS_DEFAULT_REGION", "AWS_PROFILE"} {
		t.Setenv(name, "")
	}
	t.Setenv("AWS_CONFIG_FILE", "/dev/null")
	t.Setenv("AWS_EC2_METADATA_DISABLED", "true")
	t.Setenv("AWS_ACCESS_KEY_ID", "x")
	t.Setenv("AWS_SECRET_ACCESS_KEY", "y")
	aws := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { t.Error("called", r.URL) }))
	defer aws.Close()
	reach := []string{"--cluster", "c1", "--region", "us-east-1", "--endpoint", aws.URL, "--sts-endpoint", aws.URL, "--iam-endpoint", aws.URL}
	trusting := append([]string{"--trust-principal", "arn:aws:iam::123456789012:root"}, reach...)
	for name, test := range map[string]struct {
		args []string
		want string
	}{
		"an argument":                 {[]string{"plan", "x"}, "unknown command"},
		"output":                      {append([]string{"plan", "-o", "xml"}, trusting...), "neither table, json nor yaml"},
		"no cluster":                  {[]string{"plan", "--region", "us-east-1"}, "--cluster is not given"},
		"no region":                   {[]string{"apply", "--cluster", "c1"}, "region is not set"},
		"nobody may read":             {append([]string{"apply"}, reach...), "nobody is named who may assume the reader roles"},
		"retention":                   {append([]string{"apply", "--log-retention-days", "364"}, trusting...), "CloudWatch Logs takes one of"},
		"class":                       {append([]string{"apply", "--log-group-class", "DELIVERY"}, trusting...), "log group class"},
		"an alias":                    {append([]string{"apply", "--kms-key-id", "alias/x"}, trusting...), "no alias"},
		"own tags":                    {append([]string{"apply", "--tag", "eks-tenant-logs/tenant=x"}, trusting...), "not yours to set"},
		"service account":             {append([]string{"apply", "--trust-irsa", "x"}, trusting...), "give namespace/name"},
		"endpoint":                    {append([]string{"apply", "--kms-endpoint", "http://example.com"}, trusting...), "unencrypted"},
		"tenant":                      {append([]string{"plan", "--tenant", "A/b"}, trusting...), `"A/b" is no tenant's name`},
		"namespace":                   {append([]string{"plan", "--namespace", "A b=1"}, trusting...), "is no namespace's name"},
		"nobody's namespace":          {append([]string{"plan", "--namespace", "kube-system=1"}, trusting...), "it is no tenant's"},
		"retire nobody":               {append([]string{"retire", "A*"}, reach...), "is no tenant's name"},
		"reactivate nobody":           {append([]string{"reactivate", "../x"}, reach...), "is no tenant's name"},
		"lifecycle":                   {append([]string{"lifecycle-test", "a", "--other", "a"}, trusting...), "must be two tenants' names"},
		"one key and a key each":      {append([]string{"apply", "--key-per-tenant", "--kms-key-id", "arn:aws:kms:us-east-1:123456789012:key/1"}, trusting...), "exclude each other"},
		"bootstrap's service account": {append([]string{"bootstrap", "--writer-irsa", "x"}, trusting...), "--writer-…"},
		"a canary of nobody":          {[]string{"bootstrap", "--cluster", "c1", "--region", "us-east-1", "--canary-principal", "arn:aws:iam::123456789012:role/x"}, "--canary <tenant>"},
	} {
		_, err := execute(test.args...)
		require.ErrorContains(t, err, test.want, name)
		var code exitError
		require.False(t, errors.As(err, &code), "it is told in words, and is exit code 2")
	}
}

func TestTenantsComeFromTheFileTheFlagsAndThePrefixRule(t *testing.T) {
	file := filepath.Join(t.TempDir(), "tenants.yaml")
	require.NoError(t, os.WriteFile(file, []byte("version: 1\ntenants:\n  acme:\n    namespaces: [tenant-acme, batch]\n  globex: {}\n"), 0o600))
	for name, test := range map[string]struct {
		args []string
		want string
	}{
		"the file":                         {nil, "acme[tenant-acme= batch=] globex[tenant-globex=]"},
		"with UIDs":                        {[]string{"--namespace", "batch=2,tenant-acme=1"}, "acme[batch=2 tenant-acme=1] globex[tenant-globex=]"},
		"one of it":                        {[]string{"--tenant", "globex"}, "globex[tenant-globex=]"},
		"another, by the prefix rule":      {[]string{"--namespace", "tenant-x=3", "--tenant", "x"}, "x[tenant-x=3]"},
		"another's, as the cluster labels": {[]string{"--tenant-source", "registry", "--namespace", "billing=4", "--tenant", "x"}, "x[billing=4]"},
	} {
		var f installationFlags
		cmd := &cobra.Command{}
		f.add(cmd)
		f.addTenants(cmd)
		require.NoError(t, cmd.ParseFlags(append(test.args, "--tenants-file", file)), name)
		tenants, err := f.desired()
		require.NoError(t, err, name)
		var got []string
		for _, x := range tenants {
			var has []string
			for _, ns := range x.Namespaces {
				has = append(has, ns.Name+"="+ns.UID)
			}
			got = append(got, x.Name+"["+strings.Join(has, " ")+"]")
		}
		require.Equal(t, test.want, strings.Join(got, " "), name)
	}
}

func TestTablesSayWhatIsToBeKnown(t *testing.T) {
	var out bytes.Buffer
	require.NoError(t, planTable(&out, provision.Result{
		Actions:  []provision.Action{{Tenant: "acme", Layer: provision.LayerRole, Kind: provision.SetBoundary, Target: "r", Now: "none", Will: "b", Reason: "why", Repair: true}, {Layer: provision.LayerGroup, Kind: provision.CreateGroup, Target: "/p"}},
		Findings: []provision.Finding{{Tenant: "acme", Text: "something"}},
		Tenants:  []provision.TenantStatus{{Tenant: "acme", State: provision.StatePending}, {Tenant: "x", State: provision.StateFailed, Reason: "denied"}},
	}))
	for _, want := range []string{"set-boundary", "repair: why", "finding: tenant acme: something", "x: failed: denied", "2 actions for 2 tenants (1 pending, 1 failed), 1 findings"} {
		require.Contains(t, out.String(), want)
	}
	out.Reset()
	at := time.Date(2026, 3, 1, 2, 3, 4, 0, time.UTC)
	require.NoError(t, tenantsTable(&out, []provision.Entry{{Tenant: "acme", Namespaces: []string{"a", "b"}, Group: "/g", RetentionDays: 365, LastEvent: &at, State: "ready"}, {Tenant: "x", Group: "/x", State: provision.Foreign}}, false))
	require.Regexp(t, `acme +a, b +/g +365 days +- +2026-03-01T02:03:04Z +ready`, out.String())
	require.Regexp(t, `x +- +/x +for ever +- +none +foreign`, out.String())
}
