package fakeaws_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
	"github.com/aws/aws-sdk-go-v2/credentials"
	logs "github.com/aws/aws-sdk-go-v2/service/cloudwatchlogs"
	"github.com/aws/aws-sdk-go-v2/service/cloudwatchlogs/types"
	"github.com/aws/smithy-go"
	"github.com/stretchr/testify/require"

	"github.com/eks-tenant-logs/eks-tenant-logs/internal/fakeaws"
)

// fixture is a running server and the SDK's client for it.
type fixture struct {
	*fakeaws.Server
	url    string
	client *logs.Client
}

var exampleCredentials = credentials.NewStaticCredentialsProvider(fakeaws.DefaultAccessKeyID, fakeaws.DefaultSecretAccessKey, "")

func newClient(url string, creds aws.CredentialsProvider, change ...func(*logs.Options)) *logs.Client {
	return logs.New(logs.Options{Region: "us-east-1", BaseEndpoint: &url, Credentials: creds, Retryer: aws.NopRetryer{}}, change...)
}

func start(t testing.TB, cfg fakeaws.Config) *fixture {
	t.Helper()
	s := fakeaws.New(cfg)
	t.Cleanup(func() { require.NoError(t, s.Close()) })
	url, err := s.Start("")
	require.NoError(t, err)
	return &fixture{s, url, newClient(url, exampleCredentials)}
}

// withStream starts a server that has group "g" with stream "s".
func withStream(t testing.TB, cfg fakeaws.Config) *fixture {
	t.Helper()
	f := start(t, cfg)
	f.createGroup(t, "g")
	f.createStream(t, "g", "s")
	return f
}

func (f *fixture) createGroup(t testing.TB, name string) {
	t.Helper()
	_, err := f.client.CreateLogGroup(t.Context(), &logs.CreateLogGroupInput{LogGroupName: &name})
	require.NoError(t, err)
}

func (f *fixture) createStream(t testing.TB, group, name string) {
	t.Helper()
	_, err := f.client.CreateLogStream(t.Context(), &logs.CreateLogStreamInput{LogGroupName: &group, LogStreamName: &name})
	require.NoError(t, err)
}

func (f *fixture) put(ctx context.Context, group, stream string, events ...types.InputLogEvent) (*logs.PutLogEventsOutput, error) {
	return f.client.PutLogEvents(ctx, &logs.PutLogEventsInput{LogGroupName: &group, LogStreamName: &stream, LogEvents: events})
}

func event(at time.Time, message string) types.InputLogEvent {
	return types.InputLogEvent{Timestamp: aws.Int64(at.UnixMilli()), Message: &message}
}

// requireCode wants err to be AWS's error code, and its message to contain text.
func requireCode(t testing.TB, err error, code, text string) {
	t.Helper()
	var apiErr smithy.APIError
	require.ErrorAs(t, err, &apiErr)
	require.Equal(t, code, apiErr.ErrorCode(), apiErr.ErrorMessage())
	require.Contains(t, apiErr.ErrorMessage(), text)
}

// raw is a request made by hand, so that what the SDK would never send can be sent.
type raw struct {
	operation string
	body      string
	service   string                // default logs
	region    string                // default us-east-1
	at        time.Time             // default now
	creds     aws.Credentials       // default the example's
	before    func(r *http.Request) // before it is signed
	after     func(r *http.Request) // after it is signed
}

type rawAnswer struct {
	status       int
	header       http.Header
	code, text   string // of an error
	unparsedBody string
}

func (f *fixture) send(t testing.TB, q raw) rawAnswer {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, f.url+"/", strings.NewReader(q.body))
	require.NoError(t, err)
	r.Header.Set("Content-Type", "application/x-amz-json-1.1")
	r.Header.Set("X-Amz-Target", "Logs_20140328."+q.operation)
	if q.before != nil {
		q.before(r)
	}
	if q.service == "" {
		q.service = "logs"
	}
	if q.region == "" {
		q.region = "us-east-1"
	}
	if q.at.IsZero() {
		q.at = time.Now()
	}
	if q.creds.AccessKeyID == "" {
		q.creds = aws.Credentials{AccessKeyID: fakeaws.DefaultAccessKeyID, SecretAccessKey: fakeaws.DefaultSecretAccessKey}
	}
	require.NoError(t, v4.NewSigner().SignHTTP(t.Context(), q.creds, r, sha256Hex(q.body), q.service, q.region, q.at))
	if q.after != nil {
		q.after(r)
	}
	resp, err := http.DefaultClient.Do(r)
	require.NoError(t, err)
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	a := rawAnswer{status: resp.StatusCode, header: resp.Header, unparsedBody: string(b)}
	if resp.StatusCode != http.StatusOK {
		var e struct {
			Type    string `json:"__type"`
			Message string `json:"message"`
		}
		if json.NewDecoder(bytes.NewReader(b)).Decode(&e) == nil {
			a.code, a.text = e.Type, e.Message
		}
	}
	return a
}
func sha256Hex(s string) string {
	sum := sha256.Sum256([]byte(s))
	return hex.EncodeToString(sum[:])
}

// sendSigned signs a request without body and sends it.
func (f *fixture) sendSigned(t testing.TB, r *http.Request, service string) *http.Response {
	t.Helper()
	creds, err := exampleCredentials.Retrieve(t.Context())
	require.NoError(t, err)
	require.NoError(t, v4.NewSigner().SignHTTP(t.Context(), creds, r, sha256Hex(""), service, "us-east-1", time.Now()))
	resp, err := http.DefaultClient.Do(r)
	require.NoError(t, err)
	require.NoError(t, resp.Body.Close())
	return resp
}
