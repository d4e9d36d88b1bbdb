package main

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	logs "github.com/aws/aws-sdk-go-v2/service/cloudwatchlogs"
	"github.com/stretchr/testify/require"

	"github.com/eks-tenant-logs/eks-tenant-logs/internal/fakeaws"
)

func TestServesUntilStopped(t *testing.T) {
	dir := t.TempDir()
	caFile, readyFile := filepath.Join(dir, "ca.pem"), filepath.Join(dir, "ready.json")
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	stdout, printed := io.Pipe()
	c := command(printed, io.Discard)
	c.SetArgs([]string{"--tls", "--ca-file", caFile, "--ready-file", readyFile, "--region", "eu-west-1", "--account", "210987654321", "--latency", "1ms", "--credential", "AK:se:cret"})
	ended := make(chan error, 1)
	go func() { ended <- c.ExecuteContext(ctx) }()
	line, err := bufio.NewReader(stdout).ReadBytes('\n')
	require.NoError(t, err)
	var r ready
	require.NoError(t, json.Unmarshal(line, &r))
	require.Equal(t, caFile, r.CAFile)
	written, err := os.ReadFile(readyFile)
	require.NoError(t, err)
	require.Equal(t, line, written)

	pem, err := os.ReadFile(caFile)
	require.NoError(t, err)
	pool := x509.NewCertPool()
	require.True(t, pool.AppendCertsFromPEM(pem))
	trusting := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}}}
	client := logs.New(logs.Options{
		Region: "eu-west-1", BaseEndpoint: &r.URL, HTTPClient: trusting, Credentials: credentials.NewStaticCredentialsProvider("AK", "se:cret", ""),
	})
	_, err = client.CreateLogGroup(t.Context(), &logs.CreateLogGroupInput{LogGroupName: aws.String("g")})
	require.NoError(t, err)
	resp, err := trusting.Get(r.URL + "/_fake/state")
	require.NoError(t, err)
	defer resp.Body.Close()
	var state fakeaws.Snapshot
	require.NoError(t, json.NewDecoder(resp.Body).Decode(&state))
	require.Equal(t, "arn:aws:logs:eu-west-1:210987654321:log-group:g", state.Groups[0].ARN)

	stop()
	require.NoError(t, <-ended)
	_, err = trusting.Get(r.URL + "/_fake/state")
	require.Error(t, err)
}

func TestRefusesWrongOptions(t *testing.T) {
	for _, args := range [][]string{
		{"--listen", "0.0.0.0:0"}, {"--listen", ":0"}, {"--ca-file", "x.pem"}, {"--credential", "AK"}, {"--nonsense"}, {"argument"},
	} {
		c := command(io.Discard, io.Discard)
		c.SetArgs(args)
		require.Error(t, c.ExecuteContext(t.Context()), args)
	}
}
