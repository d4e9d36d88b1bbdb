package main

import (
	"bytes"
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/cloudwatchlogs"
	"github.com/aws/aws-sdk-go-v2/service/cloudwatchlogs/types"
	"github.com/stretchr/testify/require"

	"github.com/eks-tenant-logs/eks-tenant-logs/internal/awsclient"
	"github.com/eks-tenant-logs/eks-tenant-logs/internal/fakeaws"
)

// agent stands for the node agent: what the canary writes first, it puts into groups.
type agent struct {
	t      *testing.T
	client *awsclient.Client
	to     []string
	out    bytes.Buffer
	done   bool
}

func (a *agent) Write(b []byte) (int, error) {
	if !a.done {
		a.done = true
		for _, group := range a.to {
			_, err := a.client.CreateLogGroup(a.t.Context(), &cloudwatchlogs.CreateLogGroupInput{LogGroupName: &group})
			require.NoError(a.t, err)
			stream := "tenant-canary/p/canary"
			_, err = a.client.CreateLogStream(a.t.Context(), &cloudwatchlogs.CreateLogStreamInput{LogGroupName: &group, LogStreamName: &stream})
			require.NoError(a.t, err)
			_, err = a.client.PutLogEvents(a.t.Context(), &cloudwatchlogs.PutLogEventsInput{LogGroupName: &group, LogStreamName: &stream,
				LogEvents: []types.InputLogEvent{{Timestamp: aws.Int64(time.Now().UnixMilli()), Message: aws.String(`{"log":"` + strings.TrimSpace(string(b)) + `"}`)}}})
			require.NoError(a.t, err)
		}
	}
	return a.out.Write(b)
}

func TestTheCanarySaysWhereItsLineIs(t *testing.T) {
	const home, platform, quarantine = "/eks/tenants/canary", "/eks/platform", "/eks/quarantine/canary"
	for name, test := range map[string]struct {
		to   []string
		args []string
		code int
		want []string
	}{
		"at home alone": {[]string{home}, nil, 0, []string{"in /eks/tenants/canary, stream tenant-canary/p/canary", "/eks/platform is not there"}},
		"nowhere":       {nil, nil, exitFound, []string{"it is not in /eks/tenants/canary after"}},
		"astray, too":   {[]string{home, quarantine}, nil, exitFound, []string{"in /eks/tenants/canary", "it is in /eks/quarantine/canary too"}},
		"another's, too": {[]string{home, "/eks/tenants/acme"}, []string{"--elsewhere", "/eks/tenants/acme"}, exitFound,
			[]string{"it is in /eks/tenants/acme too"}},
		"only astray": {[]string{platform}, nil, exitFound, []string{"it is not in /eks/tenants/canary"}},
	} {
		t.Run(name, func(t *testing.T) {
			url := standIn(t, nil)
			client, err := awsclient.New(t.Context(), awsclient.Config{Region: "us-east-1", Endpoint: url})
			require.NoError(t, err)
			a := &agent{t: t, client: client, to: test.to}
			cmd := root()
			cmd.SetOut(a)
			cmd.SetErr(a)
			cmd.SetArgs(append([]string{"canary", "canary", "--region", "us-east-1", "--endpoint", url, "--wait", "300ms"}, test.args...))
			err = cmd.ExecuteContext(t.Context())
			var code exitError
			errors.As(err, &code)
			require.Equal(t, test.code, int(code), a.out.String())
			if test.code == 0 {
				require.NoError(t, err)
			}
			for _, want := range test.want {
				require.Contains(t, a.out.String(), want)
			}
		})
	}
}

func TestACanaryThatMayNotLookIsNotContent(t *testing.T) {
	url := standIn(t, func(c fakeaws.Call) error {
		if c.Operation == "FilterLogEvents" && c.LogGroup == "/eks/platform" {
			return &fakeaws.APIError{Status: 400, Code: "AccessDeniedException", Message: "no"}
		}
		return nil
	})
	client, err := awsclient.New(t.Context(), awsclient.Config{Region: "us-east-1", Endpoint: url})
	require.NoError(t, err)
	a := &agent{t: t, client: client, to: []string{"/eks/tenants/canary"}}
	cmd := root()
	cmd.SetOut(a)
	cmd.SetArgs([]string{"canary", "canary", "--region", "us-east-1", "--endpoint", url})
	require.ErrorContains(t, cmd.ExecuteContext(context.Background()), "/eks/platform could not be looked into: give the canary's role logs:FilterLogEvents on it")
	require.Contains(t, a.out.String(), "arrives")

	_, err = execute("canary", "A", "--region", "us-east-1", "--endpoint", url)
	require.ErrorContains(t, err, "is no tenant's name")
}

// What a wait does not mend ends the canary at once, with what is wrong and what mends it; what it may
// mend is waited for.
func TestACanaryEndsAtOnceWhereWaitingDoesNotHelp(t *testing.T) {
	refusing := func(code string) func(t *testing.T) string {
		return func(t *testing.T) string {
			return standIn(t, func(fakeaws.Call) error { return &fakeaws.APIError{Status: 400, Code: code, Message: "no"} })
		}
	}
	serving := func(start func(s *httptest.Server), handler http.Handler) func(t *testing.T) string {
		return func(t *testing.T) string {
			standIn(t, nil)
			s := httptest.NewUnstartedServer(handler)
			start(s)
			t.Cleanup(s.Close)
			return s.URL
		}
	}
	for name, test := range map[string]struct {
		start func(t *testing.T) string
		want  []string
	}{
		"denied":              {refusing("AccessDeniedException"), []string{"AccessDeniedException", "give the canary's role logs:FilterLogEvents on it"}},
		"expired credentials": {refusing("ExpiredTokenException"), []string{"ExpiredTokenException"}},
		"a private authority": {serving((*httptest.Server).StartTLS, http.NotFoundHandler()), []string{"an authority that is not trusted here", "AWS_CA_BUNDLE"}},
		"a redirect":          {serving((*httptest.Server).Start, http.RedirectHandler("https://portal.test/", http.StatusFound)), []string{"a redirect to portal.test", "correct the endpoint"}},
		"another server":      {serving((*httptest.Server).Start, http.NotFoundHandler()), []string{"not as AWS does", "correct the endpoint"}},
		"plain http": {func(t *testing.T) string {
			standIn(t, nil)
			return "http://logs.example.com"
		}, []string{"would send logs unencrypted", "use https"}},
	} {
		t.Run(name, func(t *testing.T) {
			url := test.start(t)
			began := time.Now()
			_, err := execute("canary", "canary", "--region", "us-east-1", "--endpoint", url, "--wait", "10m")
			require.Error(t, err)
			require.Less(t, time.Since(began), 20*time.Second)
			for _, want := range test.want {
				require.ErrorContains(t, err, want)
			}
		})
	}
	// Nothing listens, yet.
	standIn(t, nil)
	began := time.Now()
	_, err := execute("canary", "canary", "--region", "us-east-1", "--endpoint", "http://127.0.0.1:1", "--wait", "1s")
	require.ErrorContains(t, err, "connection refused")
	require.Greater(t, time.Since(began), time.Second)
}

func standIn(t *testing.T, intercept func(fakeaws.Call) error) string {
	for k, v := range map[string]string{
		"AWS_ACCESS_KEY_ID": fakeaws.DefaultAccessKeyID, "AWS_SECRET_ACCESS_KEY": fakeaws.DefaultSecretAccessKey,
		"AWS_EC2_METADATA_DISABLED": "true", "AWS_CONFIG_FILE": os.DevNull, "AWS_SHARED_CREDENTIALS_FILE": os.DevNull,
	} {
		t.Setenv(k, v)
	}
	s := fakeaws.New(fakeaws.Config{})
	s.SetIntercept(intercept)
	url, err := s.Start("")
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, s.Close()) })
	return url
}
