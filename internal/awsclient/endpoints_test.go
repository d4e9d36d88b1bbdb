package awsclient

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials/stscreds"
	"github.com/aws/aws-sdk-go-v2/service/cloudwatchlogs"
	"github.com/aws/aws-sdk-go-v2/service/sts"
	"github.com/stretchr/testify/require"
)

// profile writes an AWS configuration file, for the profile "default" unless it says more.
func profile(t *testing.T, text string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "config")
	require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
	t.Setenv("AWS_CONFIG_FILE", path)
}

// sent is where a client's calls really go: the host of a request that is not sent.
func sent(t *testing.T, c *Client) (logs, tokens string) {
	t.Helper()
	var last *url.URL
	keys := aws.CredentialsProviderFunc(func(context.Context) (aws.Credentials, error) {
		return aws.Credentials{AccessKeyID: "x", SecretAccessKey: "y"}, nil
	})
	capture := roundTrip(func(r *http.Request) (*http.Response, error) {
		last = r.URL
		return nil, errors.New("not sent")
	})
	_, err := c.DescribeLogGroups(context.Background(), &cloudwatchlogs.DescribeLogGroupsInput{}, func(o *cloudwatchlogs.Options) {
		o.HTTPClient, o.Retryer = capture, aws.NopRetryer{}
		o.Credentials = keys
	})
	require.Error(t, err)
	require.NotNil(t, last, "%v", err)
	logs = last.Scheme + "://" + last.Host
	_, err = c.stsClient().GetCallerIdentity(context.Background(), &sts.GetCallerIdentityInput{}, func(o *sts.Options) {
		o.HTTPClient, o.Retryer, o.Credentials = capture, aws.NopRetryer{}, keys
	})
	require.Error(t, err)
	return logs, last.Scheme + "://" + last.Host
}

// said is what the log says of a client's endpoints.
func said(c *Client) map[string]string {
	all := map[string]string{}
	for _, a := range c.InForce() {
		all[a.Key] = a.Value.String()
	}
	return all
}

func TestAnEndpointIsJudgedWhateverItsSource(t *testing.T) {
	const remote, own = "http://logs.example.com", "https://vpce.example.com"
	for name, test := range map[string]struct {
		env     map[string]string
		profile string
		cfg     Config
		want    []string
	}{
		"plain http, option":              {nil, "", Config{Endpoint: remote}, []string{"endpoint: ", "unencrypted"}},
		"plain http, STS option":          {nil, "", Config{STSEndpoint: remote}, []string{"sts_endpoint: ", "unencrypted"}},
		"plain http, all services":        {map[string]string{"AWS_ENDPOINT_URL": remote}, "", Config{}, []string{"AWS_ENDPOINT_URL: ", "unencrypted", "AWS_IGNORE_CONFIGURED_ENDPOINT_URLS=true"}},
		"plain http, logs":                {map[string]string{"AWS_ENDPOINT_URL_CLOUDWATCH_LOGS": remote}, "", Config{}, []string{"AWS_ENDPOINT_URL_CLOUDWATCH_LOGS: "}},
		"plain http, STS":                 {map[string]string{"AWS_ENDPOINT_URL_STS": remote}, "", Config{}, []string{"AWS_ENDPOINT_URL_STS: "}},
		"plain http, STS of web identity": {map[string]string{"AWS_ENDPOINT_URL_STS": remote}, "", Config{STSEndpoint: own}, []string{"AWS_ENDPOINT_URL_STS: "}},
		"plain http, profile":             {nil, "[default]\nendpoint_url = " + remote, Config{}, []string{`endpoint_url of profile "default": `}},
		"plain http, named profile":       {nil, "[profile p]\nendpoint_url = " + remote, Config{Profile: "p"}, []string{`endpoint_url of profile "p": `}},
		"plain http, services section": {nil, "[default]\nservices = local\n[services local]\ncloudwatch_logs =\n  endpoint_url = " + remote, Config{},
			[]string{`endpoint_url of cloudwatch_logs in services section "local" of profile "default": `}},
		"plain http, services section, STS": {nil, "[default]\nservices = local\n[services local]\nsts =\n  endpoint_url = " + remote, Config{},
			[]string{`endpoint_url of sts in services section "local" of profile "default": `}},
		"no endpoint":               {map[string]string{"AWS_ENDPOINT_URL": "https://h/path"}, "", Config{}, []string{"AWS_ENDPOINT_URL: ", "is no endpoint"}},
		"FIPS, option":              {nil, "", Config{UseFIPS: true, Endpoint: own}, []string{"endpoint (https://vpce.example.com)", "use_fips asks for FIPS endpoints"}},
		"FIPS, STS option":          {nil, "", Config{UseFIPS: true, STSEndpoint: own}, []string{"sts_endpoint (https://vpce.example.com) replaces AWS's host of STS"}},
		"FIPS of the environment":   {map[string]string{"AWS_USE_FIPS_ENDPOINT": "true"}, "", Config{Endpoint: own}, []string{"endpoint (", "AWS_USE_FIPS_ENDPOINT asks"}},
		"FIPS of the profile":       {nil, "[default]\nuse_fips_endpoint = true", Config{Endpoint: own}, []string{`use_fips_endpoint of profile "default" asks`}},
		"FIPS of the region":        {nil, "", Config{Region: "fips-us-east-1", Endpoint: own}, []string{"region fips-us-east-1 is a pseudo-region"}},
		"FIPS, endpoint elsewhere":  {map[string]string{"AWS_ENDPOINT_URL_CLOUDWATCH_LOGS": own}, "", Config{UseFIPS: true}, []string{"AWS_ENDPOINT_URL_CLOUDWATCH_LOGS (", "use_fips asks"}},
		"FIPS, STS of the profile":  {map[string]string{"AWS_USE_FIPS_ENDPOINT": "true"}, "[default]\nservices = s\n[services s]\nsts =\n  endpoint_url = " + own, Config{}, []string{"endpoint_url of sts in services section", "AWS_USE_FIPS_ENDPOINT asks"}},
		"dual-stack, option":        {nil, "", Config{UseDualStack: true, Endpoint: own}, []string{"use_dual_stack asks for dual-stack endpoints"}},
		"dual-stack, environment":   {map[string]string{"AWS_USE_DUALSTACK_ENDPOINT": "true"}, "", Config{STSEndpoint: own}, []string{"AWS_USE_DUALSTACK_ENDPOINT asks"}},
		"dual-stack of the profile": {nil, "[default]\nuse_dualstack_endpoint = true", Config{Endpoint: own}, []string{`use_dualstack_endpoint of profile "default" asks`}},
		"metadata service":          {map[string]string{"AWS_EC2_METADATA_DISABLED": "", "AWS_EC2_METADATA_SERVICE_ENDPOINT": remote}, "", Config{}, []string{"AWS_EC2_METADATA_SERVICE_ENDPOINT: ", "credentials unencrypted"}},
		"metadata service, profile": {map[string]string{"AWS_EC2_METADATA_DISABLED": ""}, "[default]\nec2_metadata_service_endpoint = " + remote, Config{}, []string{`ec2_metadata_service_endpoint of profile "default": `}},
	} {
		t.Run(name, func(t *testing.T) {
			environment(t)
			for k, v := range test.env {
				t.Setenv(k, v)
			}
			if test.profile != "" {
				profile(t, test.profile)
			}
			if test.cfg.Region == "" {
				test.cfg.Region = "us-east-1"
			}
			_, err := New(context.Background(), test.cfg)
			for _, w := range test.want {
				require.ErrorContains(t, err, w)
			}
		})
	}
}

// What is logged is where the calls go, also those of a role; and the source is named.
func TestTheEndpointInForceIsTheOneThatIsUsed(t *testing.T) {
	for name, test := range map[string]struct {
		env        map[string]string
		profile    string
		cfg        Config
		logs, sts  string
		source     string
		stsSource  string
		fipsSource string
	}{
		"AWS's own":          {logs: "https://logs.us-east-1.amazonaws.com", sts: "https://sts.us-east-1.amazonaws.com"},
		"options":            {cfg: Config{Endpoint: "vpce.example.com", STSEndpoint: "http://127.0.0.1:9"}, logs: "https://vpce.example.com", sts: "http://127.0.0.1:9", source: "endpoint", stsSource: "sts_endpoint"},
		"all services":       {env: map[string]string{"AWS_ENDPOINT_URL": "https://e.example.com/"}, logs: "https://e.example.com", sts: "https://e.example.com", source: "AWS_ENDPOINT_URL", stsSource: "AWS_ENDPOINT_URL"},
		"one service":        {env: map[string]string{"AWS_ENDPOINT_URL": "https://e.example.com", "AWS_ENDPOINT_URL_STS": "https://s.example.com"}, logs: "https://e.example.com", sts: "https://s.example.com", source: "AWS_ENDPOINT_URL", stsSource: "AWS_ENDPOINT_URL_STS"},
		"a host alone":       {env: map[string]string{"AWS_ENDPOINT_URL_CLOUDWATCH_LOGS": "h.example.com:444"}, logs: "https://h.example.com:444", sts: "https://sts.us-east-1.amazonaws.com", source: "AWS_ENDPOINT_URL_CLOUDWATCH_LOGS"},
		"the profile":        {profile: "[default]\nendpoint_url = https://p.example.com", logs: "https://p.example.com", sts: "https://p.example.com", source: `endpoint_url of profile "default"`, stsSource: `endpoint_url of profile "default"`},
		"ignored":            {env: map[string]string{"AWS_ENDPOINT_URL": "http://e.example.com", "AWS_IGNORE_CONFIGURED_ENDPOINT_URLS": "true"}, logs: "https://logs.us-east-1.amazonaws.com", sts: "https://sts.us-east-1.amazonaws.com"},
		"the option wins":    {env: map[string]string{"AWS_ENDPOINT_URL_CLOUDWATCH_LOGS": "http://e.example.com"}, cfg: Config{Endpoint: "https://o.example.com"}, logs: "https://o.example.com", sts: "https://sts.us-east-1.amazonaws.com", source: "endpoint"},
		"FIPS elsewhere":     {env: map[string]string{"AWS_USE_FIPS_ENDPOINT": "true"}, logs: "https://logs-fips.us-east-1.amazonaws.com", sts: "https://sts-fips.us-east-1.amazonaws.com", fipsSource: "AWS_USE_FIPS_ENDPOINT"},
		"FIPS by the option": {cfg: Config{UseFIPS: true}, logs: "https://logs-fips.us-east-1.amazonaws.com", sts: "https://sts-fips.us-east-1.amazonaws.com"},
	} {
		t.Run(name, func(t *testing.T) {
			environment(t)
			for k, v := range test.env {
				t.Setenv(k, v)
			}
			if test.profile != "" {
				profile(t, test.profile)
			}
			test.cfg.Region = "us-east-1"
			c, err := New(context.Background(), test.cfg)
			require.NoError(t, err)
			for _, as := range []*Client{c, c.As(Role{ARN: "arn:aws:iam::123456789012:role/x"})} {
				logs, tokens := sent(t, as)
				require.Equal(t, test.logs, logs)
				require.Equal(t, test.sts, tokens)
			}
			s := said(c)
			require.Equal(t, test.logs, s["endpoint"])
			require.Equal(t, test.sts, s["sts_endpoint"])
			require.Equal(t, test.source, s["endpoint_source"])
			require.Equal(t, test.stsSource, s["sts_endpoint_source"])
			require.Equal(t, test.fipsSource, s["use_fips_source"])
		})
	}
}

// The hosts of AWS's partitions, as the SDK's resolver has them, and as docs/install.md shows them.
func TestHostsOfThePartitions(t *testing.T) {
	page, err := os.ReadFile("../../docs/install.md")
	require.NoError(t, err)
	for region, want := range map[string]map[[2]bool][2]string{ // FIPS, dual-stack: logs, STS
		"eu-central-1": {
			{false, false}: {"logs.eu-central-1.amazonaws.com", "sts.eu-central-1.amazonaws.com"},
			{false, true}:  {"logs.eu-central-1.api.aws", "sts.eu-central-1.api.aws"},
		},
		"us-east-1": {
			{false, false}: {"logs.us-east-1.amazonaws.com", "sts.us-east-1.amazonaws.com"},
			{false, true}:  {"logs.us-east-1.api.aws", "sts.us-east-1.api.aws"},
			{true, false}:  {"logs-fips.us-east-1.amazonaws.com", "sts-fips.us-east-1.amazonaws.com"},
			{true, true}:   {"logs-fips.us-east-1.api.aws", "sts-fips.us-east-1.api.aws"},
		},
		"us-gov-west-1": {
			{false, false}: {"logs.us-gov-west-1.amazonaws.com", "sts.us-gov-west-1.amazonaws.com"},
			{true, false}:  {"logs.us-gov-west-1.amazonaws.com", "sts.us-gov-west-1.amazonaws.com"},
			{false, true}:  {"logs.us-gov-west-1.api.aws", "sts.us-gov-west-1.api.aws"},
			{true, true}:   {"logs-fips.us-gov-west-1.api.aws", "sts-fips.us-gov-west-1.api.aws"},
		},
		"cn-north-1": {
			{false, false}: {"logs.cn-north-1.amazonaws.com.cn", "sts.cn-north-1.amazonaws.com.cn"},
			{false, true}:  {"logs.cn-north-1.api.amazonwebservices.com.cn", "sts.cn-north-1.api.amazonwebservices.com.cn"},
		},
	} {
		for kind, hosts := range want {
			environment(t)
			c, err := New(context.Background(), Config{Region: region, UseFIPS: kind[0], UseDualStack: kind[1]})
			require.NoError(t, err)
			logs, tokens := sent(t, c)
			require.Equal(t, [2]string{"https://" + hosts[0], "https://" + hosts[1]}, [2]string{logs, tokens}, "%s, FIPS and dual-stack: %v", region, kind)
			require.Equal(t, logs, said(c)["endpoint"])
			if region != "eu-central-1" {
				require.Contains(t, string(page), "`"+hosts[0]+"`")
			}
		}
	}
}

// Clients that the SDK builds by itself are not judged at start; their requests are.
func TestNoClientOfTheConfigurationSendsUnencrypted(t *testing.T) {
	environment(t)
	c, err := New(context.Background(), Config{Region: "us-east-1"})
	require.NoError(t, err)
	remote := "http://sts.example.com"
	cfg := c.Config()
	cfg.HTTPClient = roundTrip(func(*http.Request) (*http.Response, error) { t.Error("sent"); return nil, errors.New("sent") })
	_, err = stscreds.NewWebIdentityRoleProvider(sts.NewFromConfig(cfg, func(o *sts.Options) { o.BaseEndpoint = &remote }), "arn:aws:iam::123456789012:role/x", token("t")).
		Retrieve(context.Background())
	require.ErrorContains(t, err, "refused to send a request unencrypted to http://sts.example.com")
}

type token string

func (t token) GetIdentityToken() ([]byte, error) { return []byte(t), nil }

// Whatever is configured, an endpoint that is taken keeps its calls encrypted or on this
// machine, and is taken again as it is.
func FuzzAnEndpointThatIsTakenIsEncryptedOrLocal(f *testing.F) {
	for _, s := range []string{"", "h", "h:1", "https://h/", "http://127.0.0.1:1", "http://localhost", "http://[::1]:80", "HTTP://h", "http://127.0.0.1@h", "http://h#@127.0.0.1", "http:\\\\h", "//h", "http://127.1", "http://[::ffff:10.0.0.1]"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		at, err := EndpointURL(s)
		if err != nil || s == "" {
			return
		}
		u, err := url.Parse(at)
		require.NoError(t, err)
		require.True(t, u.Scheme == "https" || u.Scheme == "http" && loopback(u.Hostname()), at)
		again, err := EndpointURL(at)
		require.NoError(t, err)
		require.Equal(t, at, again)
	})
}
