package main

import (
	"bytes"
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/eks-tenant-logs/eks-tenant-logs/internal/replay"
	"github.com/eks-tenant-logs/eks-tenant-logs/internal/tenancy"
)

func runReplay(args ...string) (string, error) {
	cmd := root()
	var out bytes.Buffer
	cmd.SetOut(&out)
	cmd.SetErr(&out)
	cmd.SetArgs(append([]string{"replay"}, args...))
	err := cmd.Execute()
	return out.String(), err
}

func TestReplayRefusesWhatItCannotUseBeforeTheFirstCall(t *testing.T) {
	t.Setenv("AWS_REGION", "")
	t.Setenv("AWS_DEFAULT_REGION", "")
	t.Setenv("AWS_CONFIG_FILE", "/dev/null")
	t.Setenv("AWS_EC2_METADATA_DISABLED", "true")
	for name, test := range map[string]struct {
		args []string
		want string
	}{
		"an argument":       {[]string{"x"}, "unknown command"},
		"output":            {[]string{"-o", "xml"}, "neither table, json nor yaml"},
		"source":            {[]string{"--tenant-source", "x"}, "neither prefix nor registry"},
		"template":          {[]string{"--log-stream-template", "$(x)"}, "--log-stream-template"},
		"no region":         {nil, "region is not set"},
		"region":            {[]string{"--region", "x"}, `region: "x" is not allowed`},
		"endpoint":          {[]string{"--region", "us-east-1", "--endpoint", "http://logs.example.com"}, "would send logs unencrypted"},
		"FIPS":              {[]string{"--region", "us-east-1", "--endpoint", "https://h", "--use-fips"}, "use_fips"},
		"role":              {[]string{"--region", "us-east-1", "--role-arn", "x"}, "role_arn"},
		"tenant":            {[]string{"--region", "us-east-1", "--endpoint", "http://127.0.0.1:1", "--tenant", "A/b"}, `"A/b" is no tenant's name`},
		"settle":            {[]string{"--region", "us-east-1", "--endpoint", "http://127.0.0.1:1", "--settle", "2h"}, "settle 2h0m0s is not from 0s to 1h"},
		"compress":          {[]string{"--region", "us-east-1", "--compress", "zstd"}, "compress"},
		"retention":         {[]string{"--region", "us-east-1", "--log-retention-days", "364"}, "log_retention_days"},
		"registry, no file": {[]string{"--tenant-source", "registry"}, "needs a file"},
	} {
		_, err := runReplay(test.args...)
		require.ErrorContains(t, err, test.want, name)
		var code exitError
		require.False(t, errors.As(err, &code), "it is told in words, and is exit code 2")
	}
}

func TestReplaysReportSaysWhatIsLeftAndWhy(t *testing.T) {
	r := replay.Report{Tenants: []replay.Tenant{
		{Tenant: "acme", Group: "/eks/quarantine/acme", Quarantined: 10, Before: 3, Replayed: 7},
		{Tenant: tenancy.PendingName, Quarantined: 4, Left: 4, OldestLeft: 7200, Why: []string{"namespace x is not in the registry"}, Unknown: true},
	}}
	for format, want := range map[string][]string{
		"table": {"acme      10           3                7         0          -", "4 or more  2h0m0s", "namespace x is not", "un-replayed = 4, and what could not be told\n"},
		"json":  {`"replayedBefore": 3`, `"left": 4`, `"oldestLeftSeconds": 7200`, `"unknown": true`},
		"yaml":  {"replayedBefore: 3", "left: 4", "unknown: true"},
	} {
		var out bytes.Buffer
		require.NoError(t, writeReport(&out, format, r))
		for _, w := range want {
			require.Contains(t, out.String(), w, format)
		}
	}
	require.EqualValues(t, 4, r.Left())
}

func TestProgressIsShownOnlyOfWhatTakesLong(t *testing.T) {
	var out bytes.Buffer
	b := newProgressBar(&out)
	p := replay.Progress{Tenant: "acme", Groups: 2, Group: 1, Streams: 4, Stream: 2, Replayed: 99, Waiting: time.Minute}
	b.show(p)
	require.Empty(t, out.String())
	b.begun = b.begun.Add(-progressAfter)
	b.show(p)
	b.show(p)
	const line = "[###############---------------] acme (group 1 of 2) stream 2 of 4, 99 events replayed, waiting 1m0s for what was sent to be seen"
	require.Equal(t, line+"\n", out.String(), "where there is no terminal, one line")
	out.Reset()
	b.terminal, b.shown = true, time.Time{}
	b.show(p)
	_, err := b.Write([]byte("a warning\n"))
	require.NoError(t, err)
	require.Equal(t, "\r\x1b[K"+line+"\r\x1b[Ka warning\n", out.String())
}
