package fakeaws_test

import (
	"encoding/json"
	"io"
	"net/http"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	logs "github.com/aws/aws-sdk-go-v2/service/cloudwatchlogs"
	"github.com/aws/aws-sdk-go-v2/service/iam"
	"github.com/aws/aws-sdk-go-v2/service/sts"
	"github.com/aws/smithy-go"
	"github.com/stretchr/testify/require"

	"github.com/eks-tenant-logs/eks-tenant-logs/internal/fakeaws"
)

const rotatedRole = "arn:aws:iam::123456789012:role/logs"

// codesFor are the errors of three services for calls with some credentials; empty for none.
func codesFor(t *testing.T, f *fixture, c fakeaws.Credentials) map[string]string {
	t.Helper()
	static := credentials.NewStaticCredentialsProvider(c.AccessKeyID, c.SecretAccessKey, c.SessionToken)
	code := func(err error) string {
		if err == nil {
			return ""
		}
		var api smithy.APIError
		require.ErrorAs(t, err, &api)
		return api.ErrorCode()
	}
	_, inLogs := newClient(f.url, static).DescribeLogGroups(t.Context(), &logs.DescribeLogGroupsInput{})
	_, inSTS := sts.New(sts.Options{Region: "us-east-1", BaseEndpoint: &f.url, Credentials: static, Retryer: aws.NopRetryer{}}).AssumeRole(t.Context(), &sts.AssumeRoleInput{RoleArn: aws.String(rotatedRole), RoleSessionName: aws.String("s1")})
	_, inIAM := iam.New(iam.Options{Region: "us-east-1", BaseEndpoint: &f.url, Credentials: static, Retryer: aws.NopRetryer{}}).ListRoles(t.Context(), &iam.ListRolesInput{})
	return map[string]string{"logs": code(inLogs), "sts": code(inSTS), "iam": code(inIAM)}
}

var good = map[string]string{"logs": "", "sts": "", "iam": ""}

func TestAKeyIsRotatedAndRetired(t *testing.T) {
	f := start(t, fakeaws.Config{})
	first, err := f.Account("123456789012").AddUser("agent")
	require.NoError(t, err)
	second, err := f.RotateKey(first.AccessKeyID)
	require.NoError(t, err)
	require.Equal(t, good, codesFor(t, f, first), "until it is retired")
	require.Equal(t, good, codesFor(t, f, second))
	require.True(t, f.RetireKey(first.AccessKeyID))
	require.Equal(t, map[string]string{"logs": "UnrecognizedClientException", "sts": "InvalidClientTokenId", "iam": "InvalidClientTokenId"}, codesFor(t, f, first))
	require.Equal(t, good, codesFor(t, f, second))
	third, err := f.ChangeSecret(second.AccessKeyID)
	require.NoError(t, err)
	require.Equal(t, map[string]string{"logs": "InvalidSignatureException", "sts": "SignatureDoesNotMatch", "iam": "SignatureDoesNotMatch"}, codesFor(t, f, second))
	require.Equal(t, good, codesFor(t, f, third))
	require.False(t, f.RetireKey(first.AccessKeyID))
	_, err = f.RotateKey(first.AccessKeyID)
	require.Error(t, err)
	_, err = f.ChangeSecret(first.AccessKeyID)
	require.Error(t, err)
}

func TestSessionsEndBeforeTheirTime(t *testing.T) {
	for how, test := range map[string]struct {
		end  func(*fakeaws.Server, string) int
		want map[string]string
	}{
		"expired": {(*fakeaws.Server).ExpireSessions, map[string]string{"logs": "ExpiredTokenException", "sts": "ExpiredToken", "iam": "ExpiredToken"}},
		"revoked": {(*fakeaws.Server).RevokeSessions, map[string]string{"logs": "AccessDeniedException", "sts": "AccessDenied", "iam": "AccessDenied"}},
	} {
		t.Run(how, func(t *testing.T) {
			f := start(t, fakeaws.Config{})
			agent, err := f.StartPodIdentityAgent(rotatedRole, "token")
			require.NoError(t, err)
			defer func() { require.NoError(t, agent.Stop()) }()
			session := askAgent(t, agent, "token")
			require.Equal(t, good, codesFor(t, f, session))
			require.Zero(t, test.end(f.Server, rotatedRole+"s"))
			require.NotZero(t, test.end(f.Server, rotatedRole))
			require.Equal(t, test.want, codesFor(t, f, session))
			require.Equal(t, good, codesFor(t, f, askAgent(t, agent, "token")), "the next session")
		})
	}
}

// askAgent asks as the SDK does.
func askAgent(t *testing.T, a *fakeaws.PodIdentityAgent, token string) fakeaws.Credentials {
	t.Helper()
	status, body := getAgent(t, a, token)
	require.Equal(t, http.StatusOK, status, "%s", body)
	var c struct{ AccessKeyID, SecretAccessKey, Token, Expiration string }
	require.NoError(t, json.Unmarshal(body, &c))
	at, err := time.Parse(time.RFC3339, c.Expiration)
	require.NoError(t, err)
	require.WithinDuration(t, time.Now().Add(6*time.Hour), at, time.Minute)
	return fakeaws.Credentials{AccessKeyID: c.AccessKeyID, SecretAccessKey: c.SecretAccessKey, SessionToken: c.Token}
}

func getAgent(t *testing.T, a *fakeaws.PodIdentityAgent, token string) (int, []byte) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, a.URL(), nil)
	require.NoError(t, err)
	r.Header.Set("Authorization", token)
	answer, err := http.DefaultClient.Do(r)
	require.NoError(t, err)
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	require.NoError(t, err)
	return answer.StatusCode, body
}

func TestTheAgentWantsItsTokenAndCanBeAway(t *testing.T) {
	f := start(t, fakeaws.Config{})
	_, err := f.StartPodIdentityAgent("logs", "token")
	require.Error(t, err)
	agent, err := f.StartPodIdentityAgent(rotatedRole, "token")
	require.NoError(t, err)
	status, _ := getAgent(t, agent, "another")
	require.Equal(t, http.StatusUnauthorized, status)
	agent.Expect("another")
	askAgent(t, agent, "another")
	agent.Fail(http.StatusInternalServerError)
	status, _ = getAgent(t, agent, "another")
	require.Equal(t, http.StatusInternalServerError, status)
	agent.Fail(0)
	require.Error(t, agent.Start(), "it is running")
	url := agent.URL()
	require.NoError(t, agent.Stop())
	require.NoError(t, agent.Stop())
	_, err = http.Get(url)
	require.Error(t, err)
	require.NoError(t, agent.Start())
	require.Equal(t, url, agent.URL())
	askAgent(t, agent, "another")
	require.Equal(t, 4, agent.Asked())
	require.NoError(t, agent.Stop())
}

func TestTokensOfAnIssuerWhoseKeyWasReplacedAreRefused(t *testing.T) {
	f := start(t, fakeaws.Config{})
	assume := func(token string) error {
		_, err := sts.New(sts.Options{Region: "us-east-1", BaseEndpoint: &f.url, Retryer: aws.NopRetryer{}}).AssumeRoleWithWebIdentity(t.Context(), &sts.AssumeRoleWithWebIdentityInput{
			RoleArn: aws.String(rotatedRole), RoleSessionName: aws.String("s1"), WebIdentityToken: &token,
		})
		return err
	}
	token := func() string {
		return f.WebIdentityToken("https://oidc.example/1", "s", "sts.amazonaws.com", time.Hour)
	}
	old := token()
	require.NoError(t, assume(old))
	f.ReplaceIssuerKey()
	require.ErrorContains(t, assume(old), "InvalidIdentityToken")
	require.NoError(t, assume(token()))
}

// The same for tests of another process.
func TestCredentialsChangeOverHTTP(t *testing.T) {
	f := start(t, fakeaws.Config{})
	post := func(path string, into any) {
		t.Helper()
		answer, err := http.Post(f.url+"/_fake/"+path, "", nil)
		require.NoError(t, err)
		defer answer.Body.Close()
		require.NoError(t, json.NewDecoder(answer.Body).Decode(into))
	}
	first, err := f.Account("123456789012").AddUser("agent")
	require.NoError(t, err)
	var second fakeaws.Credentials
	post("rotate-key?id="+first.AccessKeyID, &second)
	require.Equal(t, good, codesFor(t, f, second))
	var retired map[string]bool
	post("retire-key?id="+first.AccessKeyID, &retired)
	require.Equal(t, map[string]bool{"retired": true}, retired)
	require.Equal(t, "UnrecognizedClientException", codesFor(t, f, first)["logs"])
	var failed map[string]string
	post("rotate-key?id="+first.AccessKeyID, &failed)
	require.NotEmpty(t, failed["error"])
	for _, path := range []string{"expire-sessions", "revoke-sessions"} {
		var ended map[string]int
		post(path+"?role="+rotatedRole, &ended)
		require.Equal(t, map[string]int{"sessions": len(f.AssumedRoles())}, ended, path)
	}
}
