package e2e

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/eks-tenant-logs/eks-tenant-logs/e2e/host"
	"github.com/eks-tenant-logs/eks-tenant-logs/internal/fakeaws"
)

// noAWS is an environment without any of the SDK's settings.
var noAWS = []string{
	"AWS_REGION=", "AWS_DEFAULT_REGION=", "AWS_PROFILE=", "AWS_EC2_METADATA_DISABLED=true", "AWS_CONFIG_FILE=/dev/null", "AWS_SHARED_CREDENTIALS_FILE=/dev/null",
	"AWS_ACCESS_KEY_ID=", "AWS_SECRET_ACCESS_KEY=", "AWS_SESSION_TOKEN=", "AWS_WEB_IDENTITY_TOKEN_FILE=", "AWS_CONTAINER_CREDENTIALS_FULL_URI=", "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI=",
}

// An endpoint and its kind are judged at start, whether an option, the environment or the
// profile asks for them: one line names the source.
func TestTheHostIsRefusedAnEndpointWhateverItsSource(t *testing.T) {
	const remote, own = "http://logs.example.com", "https://vpce.example.com"
	const unencrypted = `"` + remote + `" would send logs unencrypted: use https`
	aws := filepath.Join(t.TempDir(), "config")
	require.NoError(t, os.WriteFile(aws, []byte("[default]\n[profile http]\nendpoint_url = "+remote+"\n[profile section]\nservices = s\n"+
		"[services s]\ncloudwatch_logs =\n  endpoint_url = "+remote+"\n[profile fips]\nuse_fips_endpoint = true\n[profile dual]\nuse_dualstack_endpoint = true\n"), 0o600))
	role := []string{"role_arn", "arn:aws:iam::123456789012:role/x", "sts_endpoint"}
	for name, test := range map[string]struct {
		options []string
		env     []string
		want    string
	}{
		"plain http, option":         {[]string{"endpoint", remote}, nil, "endpoint: " + unencryptedOption(remote)},
		"plain http, STS option":     {append(role, remote), nil, "sts_endpoint: " + unencryptedOption(remote)},
		"plain http, all services":   {nil, []string{"AWS_ENDPOINT_URL=" + remote}, "AWS_ENDPOINT_URL: " + unencrypted},
		"plain http, logs":           {nil, []string{"AWS_ENDPOINT_URL_CLOUDWATCH_LOGS=" + remote}, "AWS_ENDPOINT_URL_CLOUDWATCH_LOGS: " + unencrypted},
		"plain http, STS":            {nil, []string{"AWS_ENDPOINT_URL_STS=" + remote}, "AWS_ENDPOINT_URL_STS: " + unencrypted},
		"plain http, profile":        {[]string{"profile", "http"}, []string{"AWS_CONFIG_FILE=" + aws}, `endpoint_url of profile "http": ` + unencrypted},
		"plain http, AWS_PROFILE":    {nil, []string{"AWS_CONFIG_FILE=" + aws, "AWS_PROFILE=http"}, `endpoint_url of profile "http": ` + unencrypted},
		"plain http, section":        {[]string{"profile", "section"}, []string{"AWS_CONFIG_FILE=" + aws}, `endpoint_url of cloudwatch_logs in services section "s" of profile "section": ` + unencrypted},
		"FIPS, option":               {[]string{"use_fips", "on", "endpoint", own}, nil, "endpoint is set and would win; set one of them"},
		"FIPS, STS option":           {append(role, own, "use_fips", "on"), nil, "sts_endpoint is set and would win; set one of them"},
		"FIPS by variable":           {[]string{"endpoint", own}, []string{"AWS_USE_FIPS_ENDPOINT=true"}, "endpoint (" + own + ") replaces AWS's host of CloudWatch Logs, and AWS_USE_FIPS_ENDPOINT asks for FIPS endpoints"},
		"FIPS by profile":            {[]string{"endpoint", own, "profile", "fips"}, []string{"AWS_CONFIG_FILE=" + aws}, `and use_fips_endpoint of profile "fips" asks for FIPS endpoints`},
		"FIPS, endpoint by variable": {[]string{"use_fips", "on"}, []string{"AWS_ENDPOINT_URL_STS=" + own}, "AWS_ENDPOINT_URL_STS (" + own + ") replaces AWS's host of STS, and use_fips asks for FIPS endpoints"},
		"dual-stack, option":         {[]string{"use_dual_stack", "on", "endpoint", own}, nil, "endpoint is set and would win; set one of them"},
		"dual-stack by variable":     {[]string{"endpoint", own}, []string{"AWS_USE_DUALSTACK_ENDPOINT=true"}, "and AWS_USE_DUALSTACK_ENDPOINT asks for dual-stack endpoints"},
		"dual-stack by profile":      {[]string{"endpoint", own, "profile", "dual"}, []string{"AWS_CONFIG_FILE=" + aws}, `and use_dualstack_endpoint of profile "dual" asks for dual-stack endpoints`},
		"FIPS pseudo-region":         {[]string{"region", "fips-us-east-1"}, nil, "region fips-us-east-1 is a pseudo-region"},
		"metadata service":           {nil, []string{"AWS_EC2_METADATA_DISABLED=false", "AWS_EC2_METADATA_SERVICE_ENDPOINT=http://10.0.0.9"}, `AWS_EC2_METADATA_SERVICE_ENDPOINT: "http://10.0.0.9" would bring credentials unencrypted`},
		"container credentials":      {nil, []string{"AWS_CONTAINER_CREDENTIALS_FULL_URI=http://10.0.0.9/v1/credentials"}, `invalid endpoint host, "10.0.0.9", only loopback/ecs/eks hosts are allowed`},
	} {
		t.Run(name, func(t *testing.T) {
			properties := map[string]string{"region": "us-east-1"}
			for i := 0; i < len(test.options); i += 2 {
				properties[test.options[i]] = test.options[i+1]
			}
			h, err := startHost(t, host.Config{Env: append(slices.Clone(noAWS), test.env...), Outputs: []host.Output{{Workers: 1, Properties: properties}}})
			if err == nil {
				_, _ = h.Stop(within(t, time.Minute))
			}
			var start *host.StartError
			require.ErrorAs(t, err, &start)
			lines := 0
			for _, l := range start.Logs {
				if strings.Contains(l.Text, test.want) {
					lines++
				}
			}
			require.Equal(t, 1, lines, "%v", start.Logs)
		})
	}
}

// unencryptedOption is how an option's value is refused.
func unencryptedOption(value string) string {
	return `"` + value + `" is not allowed: "` + value + `" would send logs unencrypted: use https`
}

// The endpoint of the environment is used, and the log says which it is and whose.
func TestTheEffectiveConfigurationShowsTheEndpointInForce(t *testing.T) {
	cw, s := standIn(t, fakeaws.Config{})
	properties := options(cw)
	delete(properties, "endpoint")
	h, err := startHost(t, host.Config{
		Env:     append(cw.Env(), "AWS_CONFIG_FILE=/dev/null", "AWS_SHARED_CREDENTIALS_FILE=/dev/null", "AWS_ENDPOINT_URL_CLOUDWATCH_LOGS="+cw.Endpoint),
		Outputs: []host.Output{{Workers: 1, Properties: properties}},
	})
	require.NoError(t, err)
	require.NoError(t, h.Send(tagOfA, record("x")))
	require.NoError(t, h.Drain(within(t, time.Minute)))
	_, err = h.Stop(within(t, time.Minute))
	require.NoError(t, err)
	require.Len(t, s.Events("/eks/tenants/a", "tenant-a/p/c"), 1)
	told := ""
	for _, l := range h.Logs() {
		if strings.Contains(l.Text, "effective configuration") {
			told += l.Text
		}
	}
	for _, want := range []string{
		"endpoint=" + cw.Endpoint, "endpoint_source=AWS_ENDPOINT_URL_CLOUDWATCH_LOGS", "sts_endpoint=https://sts." + cw.Region + ".amazonaws.com", "use_fips=false", "use_dual_stack=false",
	} {
		require.Contains(t, told, want)
	}
	require.NotContains(t, told, "sts_endpoint_source")
}
