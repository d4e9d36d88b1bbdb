package output

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

// made is what becomes of options: ParseOptions' error, or New's, or the configuration that is logged.
func made(t *testing.T, opts map[string]string) (string, error) {
	t.Helper()
	o, err := ParseOptions(from(opts))
	if err != nil {
		return "", err
	}
	log := &logText{}
	i, err := New(context.Background(), o, Environment{Log: slog.New(slog.NewTextHandler(log, nil))})
	if err != nil {
		return "", err
	}
	i.Close()
	return log.String(), nil
}

func TestEndpointsOfEachSourceHaveTheRulesOfTheOptions(t *testing.T) {
	const remote, own = "http://logs.example.com", "https://vpce.example.com"
	profile := filepath.Join(t.TempDir(), "config")
	require.NoError(t, os.WriteFile(profile, []byte("[profile p]\nservices = s\nuse_fips_endpoint = true\n[services s]\nsts =\n  endpoint_url = "+own+"\n"), 0o600))
	for name, test := range map[string]struct {
		opts, env map[string]string
		want      string
	}{
		"FIPS and endpoint":           {map[string]string{"use_fips": "on", "endpoint": own}, nil, `use_fips: "on" is not allowed: endpoint is set and would win`},
		"FIPS and STS":                {map[string]string{"use_fips": "on", "sts_endpoint": own, "role_arn": "arn:aws:iam::123456789012:role/x"}, nil, `use_fips: "on" is not allowed: sts_endpoint is set and would win`},
		"dual-stack and endpoint":     {map[string]string{"use_dual_stack": "on", "endpoint": own}, nil, `use_dual_stack: "on" is not allowed: endpoint is set and would win`},
		"dual-stack and STS":          {map[string]string{"use_dual_stack": "on", "sts_endpoint": own, "role_arn": "arn:aws:iam::123456789012:role/x"}, nil, `use_dual_stack: "on" is not allowed: sts_endpoint`},
		"neither":                     {map[string]string{"use_dual_stack": "perhaps"}, nil, `use_dual_stack: "perhaps" is not allowed: give on or off`},
		"plain http of a variable":    {nil, map[string]string{"AWS_ENDPOINT_URL": remote}, `AWS_ENDPOINT_URL: "http://logs.example.com" would send logs unencrypted`},
		"FIPS of a variable":          {map[string]string{"endpoint": own}, map[string]string{"AWS_USE_FIPS_ENDPOINT": "true"}, "AWS_USE_FIPS_ENDPOINT asks for FIPS endpoints"},
		"FIPS and STS of the profile": {map[string]string{"profile": "p"}, nil, `endpoint_url of sts in services section "s" of profile "p" (https://vpce.example.com) replaces AWS's host of STS, and use_fips_endpoint of profile "p" asks for FIPS endpoints`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Setenv("AWS_CONFIG_FILE", profile)
			t.Setenv("AWS_PROFILE", "")
			for k, v := range test.env {
				t.Setenv(k, v)
			}
			opts := map[string]string{"region": "us-east-1"}
			for k, v := range test.opts {
				opts[k] = v
			}
			_, err := made(t, opts)
			require.ErrorContains(t, err, test.want)
		})
	}
}

func TestTheConfigurationThatIsLoggedHasTheEndpointsInForce(t *testing.T) {
	t.Setenv("AWS_CONFIG_FILE", os.DevNull)
	t.Setenv("AWS_PROFILE", "")
	t.Setenv("AWS_ENDPOINT_URL_STS", "https://sts.example.com")
	said, err := made(t, map[string]string{"region": "eu-central-1"})
	require.NoError(t, err)
	require.Contains(t, said, " endpoint=https://logs.eu-central-1.amazonaws.com ")
	require.NotContains(t, said, " endpoint_source=")
	require.Contains(t, said, " sts_endpoint=https://sts.example.com sts_endpoint_source=AWS_ENDPOINT_URL_STS ")
	require.Contains(t, said, " use_fips=false")

	t.Setenv("AWS_ENDPOINT_URL_STS", "")
	t.Setenv("AWS_USE_FIPS_ENDPOINT", "true")
	said, err = made(t, map[string]string{"region": "us-east-1", "use_dual_stack": "on"})
	require.NoError(t, err)
	require.Contains(t, said, " endpoint=https://logs-fips.us-east-1.api.aws ")
	require.Contains(t, said, " sts_endpoint=https://sts-fips.us-east-1.api.aws ")
	require.Contains(t, said, " use_dual_stack=true use_fips=true use_fips_source=AWS_USE_FIPS_ENDPOINT")
	require.NotContains(t, said, "use_dual_stack_source")
}
