package fakeaws_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/eks-tenant-logs/eks-tenant-logs/e2e/node"
	"github.com/eks-tenant-logs/eks-tenant-logs/internal/fakeaws"
)

// These tests run clients that are not ours against the stand-in, to see that its strictness is not of our own making.

// startTLS starts a server over HTTPS and returns its URL and a file with its authority's certificate.
func startTLS(t *testing.T) (s *fakeaws.Server, base *url.URL, caFile string) {
	t.Helper()
	s = fakeaws.New(fakeaws.Config{})
	t.Cleanup(func() { require.NoError(t, s.Close()) })
	u, err := s.StartTLS("")
	require.NoError(t, err)
	base, err = url.Parse(u)
	require.NoError(t, err)
	pem, err := s.CAPEM()
	require.NoError(t, err)
	caFile = filepath.Join(t.TempDir(), "ca.pem")
	require.NoError(t, os.WriteFile(caFile, pem, 0o600))
	return s, base, caFile
}

// clientEnv is an environment in which nothing but the example's credentials can be found.
func clientEnv(t *testing.T, extra ...string) []string {
	return append([]string{
		"PATH=" + os.Getenv("PATH"), "HOME=" + t.TempDir(), "LC_ALL=C.UTF-8",
		"AWS_ACCESS_KEY_ID=" + fakeaws.DefaultAccessKeyID, "AWS_SECRET_ACCESS_KEY=" + fakeaws.DefaultSecretAccessKey,
		"AWS_REGION=us-east-1", "AWS_DEFAULT_REGION=us-east-1", "AWS_EC2_METADATA_DISABLED=true", "AWS_PAGER=",
	}, extra...)
}

// withAWSCLIs runs a test with a working awscli of each major version, against a server of its own; those that
// are not there are said. $AWSCLI_REQUIRED is a version that must be there.
func withAWSCLIs(t *testing.T, test func(t *testing.T, s *fakeaws.Server, major int, run func(args ...string) string)) {
	clis, missing := node.AWSCLIs(t.Context())
	for _, major := range missing {
		t.Run(fmt.Sprint("version ", major), func(t *testing.T) {
			require.NotEqual(t, os.Getenv("AWSCLI_REQUIRED"), strconv.Itoa(major), "no working awscli of this version")
			t.Skipf("version %d of the awscli was NOT tried against the stand-in: none in $AWSCLI or on PATH", major)
		})
	}
	for _, cli := range clis {
		t.Run(fmt.Sprint("version ", cli.Major), func(t *testing.T) {
			cw, s, err := node.StartStandIn(t.TempDir(), fakeaws.Config{})
			require.NoError(t, err)
			t.Cleanup(func() { require.NoError(t, s.Close()) })
			test(t, s, cli.Major, func(args ...string) string {
				t.Helper()
				said, err := cli.Run(t.Context(), cw, t.TempDir(), args...)
				require.NoError(t, err)
				return said
			})
		})
	}
}

func TestAWSCLI(t *testing.T) { withAWSCLIs(t, awsCLIOnLogs) }

func awsCLIOnLogs(t *testing.T, s *fakeaws.Server, major int, run func(args ...string) string) {
	const group, stream, message = "/eks/tenants/acme", "tenant-acme/web-0/app", `{"level":"ERROR","log":"grüße"}`
	run("logs", "create-log-group", "--log-group-name", group, "--tags", "eks-tenant-logs/tenant=acme")
	run("logs", "put-retention-policy", "--log-group-name", group, "--retention-in-days", "365")
	run("logs", "create-log-stream", "--log-group-name", group, "--log-stream-name", stream)
	events, err := json.Marshal([]map[string]any{{"timestamp": time.Now().UnixMilli(), "message": message}})
	require.NoError(t, err)
	run("logs", "put-log-events", "--log-group-name", group, "--log-stream-name", stream, "--log-events", string(events))

	var filtered struct {
		Events []struct{ Message, LogStreamName string }
	}
	require.NoError(t, json.Unmarshal([]byte(run("logs", "filter-log-events", "--log-group-name", group, "--filter-pattern", `{ $.level = "ERROR" }`)), &filtered))
	require.Equal(t, []struct{ Message, LogStreamName string }{{message, stream}}, filtered.Events)
	var described struct {
		LogGroups []struct {
			LogGroupName    string
			RetentionInDays int
		}
	}
	require.NoError(t, json.Unmarshal([]byte(run("logs", "describe-log-groups", "--log-group-name-prefix", group)), &described))
	require.Len(t, described.LogGroups, 1)
	require.Equal(t, 365, described.LogGroups[0].RetentionInDays)
	if major >= 2 { // the command is version 2's
		require.Contains(t, run("logs", "tail", group, "--since", "1h"), message)
	}
	require.Contains(t, run("logs", "describe-log-streams", "--log-group-name", group), stream)
	require.Contains(t, run("logs", "get-log-events", "--log-group-name", group, "--log-stream-name", stream), "grüße")
	require.Contains(t, run("sts", "get-caller-identity"), "123456789012")
	for k := range s.Calls() {
		require.Equal(t, "OK", k.Result, k.Operation)
	}
}

func TestAWSCLIOnIAM(t *testing.T) { withAWSCLIs(t, awsCLIOnIAM) }

func awsCLIOnIAM(t *testing.T, s *fakeaws.Server, _ int, run func(args ...string) string) {
	s.Account(home).AddCluster("c1")
	run("iam", "create-role", "--role-name", "reader", "--path", "/eks-tenant-logs/", "--assume-role-policy-document", trustSelf, "--tags", "Key=eks-tenant-logs/tenant,Value=acme")
	run("iam", "put-role-policy", "--role-name", "reader", "--policy-name", "p", "--policy-document", allowAll)
	var role struct {
		Role struct {
			Arn                      string
			AssumeRolePolicyDocument map[string]any // decoded by the awscli
			Tags                     []struct{ Key, Value string }
		}
	}
	require.NoError(t, json.Unmarshal([]byte(run("iam", "get-role", "--role-name", "reader")), &role))
	require.Equal(t, "arn:aws:iam::123456789012:role/eks-tenant-logs/reader", role.Role.Arn)
	require.Equal(t, "2012-10-17", role.Role.AssumeRolePolicyDocument["Version"])
	require.Equal(t, "acme", role.Role.Tags[0].Value)
	require.Contains(t, run("iam", "get-account-authorization-details"), "eks-tenant-logs/reader")
	require.Contains(t, run("iam", "simulate-principal-policy", "--policy-source-arn", role.Role.Arn, "--action-names", "logs:GetLogEvents"), "allowed")
	require.Contains(t, run("sts", "assume-role", "--role-arn", role.Role.Arn, "--role-session-name", "me", "--tags", "Key=k,Value=v"), "assumed-role/reader/me")
	require.Contains(t, run("kms", "create-key", "--tags", "TagKey=k,TagValue=v"), "arn:aws:kms:")
	require.Contains(t, run("eks", "describe-cluster", "--name", "c1"), "cluster/c1") // older releases know no Pod Identity
	for k := range s.Calls() {
		require.Equal(t, "OK", k.Result, k.Operation)
	}
}

func TestFluentBitCoreOutput(t *testing.T) {
	program, err := node.FindFluentBit(t.Context())
	if err != nil {
		t.Skipf("%v; its cloudwatch_logs output was NOT tried against the stand-in", err)
	}
	s, base, caFile := startTLS(t)
	const events = 20
	const group, stream = "/eks/tenants/acme", "dummy"
	args := []string{
		"-i", "dummy", "-p", `dummy={"log":"grüße \"quoted\"","n":1}`, "-p", fmt.Sprint("samples=", events), "-p", "rate=100",
		"-o", "cloudwatch_logs", "-m", "*",
		"-p", "endpoint=localhost", "-p", "port=" + base.Port(), "-p", "tls.verify=on", "-p", "tls.ca_file=" + caFile,
		"-p", "region=us-east-1", "-p", "log_group_name=" + group, "-p", "log_stream_name=" + stream,
		"-p", "auto_create_group=on", "-p", "log_retention_days=365",
		"-f", "1",
	}
	ctx, stop := context.WithTimeout(t.Context(), time.Minute)
	defer stop()
	c := exec.CommandContext(ctx, program, args...)
	c.Env = clientEnv(t)
	c.Cancel = func() error { return c.Process.Signal(os.Interrupt) }
	c.WaitDelay = 15 * time.Second
	var output bytes.Buffer
	c.Stdout, c.Stderr = &output, &output
	require.NoError(t, c.Start())
	exited := make(chan struct{})
	go func() {
		_ = c.Wait() // it ends by a signal
		close(exited)
	}()
	all := func() bool { return len(s.Events(group, stream)) >= events }
	for !all() && ctx.Err() == nil {
		select {
		case <-exited:
			stop()
		case <-time.After(50 * time.Millisecond):
		}
	}
	stop()
	<-exited
	t.Logf("calls: %v", s.Calls())
	require.True(t, all(), "only %d events arrived; calls %v; Fluent Bit said:\n%s", len(s.Events(group, stream)), s.Calls(), &output)
	require.Len(t, s.Events(group, stream), events)
	for _, e := range s.Events(group, stream) {
		require.JSONEq(t, `{"log":"grüße \"quoted\"","n":1}`, e.Message)
	}
	require.Equal(t, 365, s.Groups()[0].RetentionInDays)
	for k := range s.Calls() {
		// It writes first and creates what was not found.
		require.Contains(t, []string{"OK", "ResourceNotFoundException"}, k.Result, k.Operation)
	}
}
