package main

import (
	"context"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/eks-tenant-logs/eks-tenant-logs/internal/fakeaws"
)

func environment(m map[string]string) func(string) string {
	return func(k string) string { return m[k] }
}

// The program itself, against the stand-in: that it asks, tells, and leaves nothing. What
// the stand-in answers proves nothing about AWS.
func TestItAsksAndCleansUp(t *testing.T) {
	s := fakeaws.New(fakeaws.Config{})
	url, err := s.Start("")
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, s.Close()) })
	for k, v := range map[string]string{
		"AWS_ACCESS_KEY_ID": fakeaws.DefaultAccessKeyID, "AWS_SECRET_ACCESS_KEY": fakeaws.DefaultSecretAccessKey, "AWS_SESSION_TOKEN": "",
		"AWS_REGION": "us-east-1", "AWS_PROFILE": "", "AWS_CONFIG_FILE": "/dev/null", "AWS_SHARED_CREDENTIALS_FILE": "/dev/null",
	} {
		t.Setenv(k, v)
	}
	var out strings.Builder
	require.NoError(t, run(context.Background(), environment(map[string]string{
		"TENANTLOGS_LIVE_ACCOUNT": "123456789012", "TENANTLOGS_LIVE_ENDPOINT": url,
	}), &out))
	t.Log(out.String())
	require.Empty(t, s.Groups())
	require.Contains(t, out.String(), "10 of 10 groups deleted again")
	// The stand-in knows no account-level policies over its API.
	require.Equal(t, 1, strings.Count(out.String(), "DIFFERENT"))
	require.Equal(t, 10, strings.Count(out.String(), "as taken"))
}

func TestItAsksNobodyByMistake(t *testing.T) {
	var out strings.Builder
	require.ErrorContains(t, run(context.Background(), environment(nil), &out), "set TENANTLOGS_LIVE_ACCOUNT")
	s := fakeaws.New(fakeaws.Config{})
	url, err := s.Start("")
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, s.Close()) })
	t.Setenv("AWS_ACCESS_KEY_ID", fakeaws.DefaultAccessKeyID)
	t.Setenv("AWS_SECRET_ACCESS_KEY", fakeaws.DefaultSecretAccessKey)
	t.Setenv("AWS_REGION", "us-east-1")
	require.ErrorContains(t, run(context.Background(), environment(map[string]string{
		"TENANTLOGS_LIVE_ACCOUNT": "999999999999", "TENANTLOGS_LIVE_ENDPOINT": url,
	}), &out), "the credentials are of account 123456789012, and TENANTLOGS_LIVE_ACCOUNT is 999999999999")
	require.Empty(t, s.Calls()[fakeaws.CallKey{Operation: "CreateLogGroup", Result: "OK"}])
}
