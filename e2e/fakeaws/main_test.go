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
	"github.com/aws/aws-sdk-go-v2/service/eks"
	"github.com/aws/aws-sdk-go-v2/service/iam"
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

func TestEnforces(t *testing.T) {
	ctx, stop := context.WithCancel(t.Context())
	stdout, printed := io.Pipe()
	c := command(printed, io.Discard)
	c.SetArgs([]string{"--enforce"})
	ended := make(chan error, 1)
	go func() { ended <- c.ExecuteContext(ctx) }()
	t.Cleanup(func() {
		stop()
		require.NoError(t, <-ended)
	})
	line, err := bufio.NewReader(stdout).ReadBytes('\n')
	require.NoError(t, err)
	var r ready
	require.NoError(t, json.Unmarshal(line, &r))
	post := func(path string) (answer map[string]string) {
		resp, err := http.Post(r.URL+"/_fake/"+path, "", nil)
		require.NoError(t, err)
		defer resp.Body.Close()
		require.NoError(t, json.NewDecoder(resp.Body).Decode(&answer))
		return answer
	}
	create := func(creds aws.CredentialsProvider) error {
		client := logs.New(logs.Options{Region: "us-east-1", BaseEndpoint: &r.URL, Credentials: creds})
		_, err := client.CreateLogGroup(t.Context(), &logs.CreateLogGroupInput{LogGroupName: aws.String("g")})
		return err
	}
	admin := credentials.NewStaticCredentialsProvider(fakeaws.DefaultAccessKeyID, fakeaws.DefaultSecretAccessKey, "")
	require.NoError(t, create(admin))
	root := post("root-key?account=210987654321")
	require.NoError(t, create(credentials.NewStaticCredentialsProvider(root["accessKeyId"], root["secretAccessKey"], "")), "another account has groups of its own")

	out, err := iam.New(iam.Options{Region: "us-east-1", BaseEndpoint: &r.URL, Credentials: admin}).CreateRole(t.Context(), &iam.CreateRoleInput{
		RoleName: aws.String("reader"), AssumeRolePolicyDocument: aws.String(`{"Version":"2012-10-17","Statement":{"Effect":"Allow","Principal":{"Service":"pods.eks.amazonaws.com"},"Action":["sts:AssumeRole","sts:TagSession"]}}`),
	})
	require.NoError(t, err)
	require.Contains(t, post("cluster?name=c1")["arn"], "cluster/c1")
	_, err = eks.New(eks.Options{Region: "us-east-1", BaseEndpoint: &r.URL, Credentials: admin}).CreatePodIdentityAssociation(t.Context(), &eks.CreatePodIdentityAssociationInput{
		ClusterName: aws.String("c1"), Namespace: aws.String("n"), ServiceAccount: aws.String("s"), RoleArn: out.Role.Arn,
	})
	require.NoError(t, err)
	require.Contains(t, post("pod-session?cluster=c1&namespace=else&serviceAccount=s&name=p&uid=u")["error"], "No association")
	key := post("pod-session?cluster=c1&namespace=n&serviceAccount=s&name=p&uid=u")
	require.ErrorContains(t, create(credentials.NewStaticCredentialsProvider(key["accessKeyId"], key["secretAccessKey"], key["sessionToken"])), "AccessDeniedException")
	require.NotEmpty(t, post("web-identity-token?issuer=https://x&subject=s&audience=a")["token"])
}

func TestVersionsAreThoseOfTheFlags(t *testing.T) {
	ctx, stop := context.WithCancel(t.Context())
	stdout, printed := io.Pipe()
	c := command(printed, io.Discard)
	file := filepath.Join(t.TempDir(), "ca.pem")
	c.SetArgs([]string{"--tls", "--ca-file", file, "--http2", "only", "--tls-max", "1.2"})
	ended := make(chan error, 1)
	go func() { ended <- c.ExecuteContext(ctx) }()
	t.Cleanup(func() {
		stop()
		require.NoError(t, <-ended)
	})
	line, err := bufio.NewReader(stdout).ReadBytes('\n')
	require.NoError(t, err)
	var r ready
	require.NoError(t, json.Unmarshal(line, &r))
	pem, err := os.ReadFile(file)
	require.NoError(t, err)
	pool := x509.NewCertPool()
	require.True(t, pool.AppendCertsFromPEM(pem))
	trusting := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}, ForceAttemptHTTP2: true}}
	resp, err := trusting.Get(r.URL + "/_fake/calls")
	require.NoError(t, err)
	require.NoError(t, resp.Body.Close())
	require.Equal(t, 2, resp.ProtoMajor)
	require.Equal(t, uint16(tls.VersionTLS12), resp.TLS.Version)
}

func TestRefusesWrongOptions(t *testing.T) {
	for _, args := range [][]string{
		{"--listen", "0.0.0.0:0"}, {"--listen", ":0"}, {"--ca-file", "x.pem"}, {"--credential", "AK"}, {"--nonsense"}, {"argument"},
		{"--http2", "yes"}, {"--tls-min", "1.1"}, {"--tls-max", "1.4"}, {"--tls-min", "1.3", "--tls-max", "1.2"},
	} {
		c := command(io.Discard, io.Discard)
		c.SetArgs(args)
		require.Error(t, c.ExecuteContext(t.Context()), args)
	}
}
