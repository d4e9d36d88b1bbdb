package fakeaws_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	logs "github.com/aws/aws-sdk-go-v2/service/cloudwatchlogs"
	"github.com/aws/aws-sdk-go-v2/service/sts"
	"github.com/stretchr/testify/require"

	"github.com/eks-tenant-logs/eks-tenant-logs/internal/fakeaws"
)

func TestOnlyLoopbackIsServed(t *testing.T) {
	for _, addr := range []string{"0.0.0.0:0", ":0", "10.0.0.1:0", "[::]:0", "example.com:80", "127.0.0.1"} {
		_, err := fakeaws.New(fakeaws.Config{}).Start(addr)
		require.Error(t, err, addr)
	}
	s := fakeaws.New(fakeaws.Config{})
	u, err := s.Start("localhost:0")
	require.NoError(t, err)
	require.Contains(t, u, "http://")
	require.NoError(t, s.Close())
	_, err = s.Start("")
	require.Error(t, err)
}

func TestHTTPS(t *testing.T) {
	s := fakeaws.New(fakeaws.Config{Region: "us-gov-west-1", AccountID: "210987654321", Partition: "aws-us-gov"})
	t.Cleanup(func() { require.NoError(t, s.Close()) })
	base, err := s.StartTLS("")
	require.NoError(t, err)
	pem, err := s.CAPEM()
	require.NoError(t, err)
	pool := x509.NewCertPool()
	require.True(t, pool.AppendCertsFromPEM(pem))
	trusting := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}}}

	u, err := url.Parse(base)
	require.NoError(t, err)
	require.Equal(t, "https", u.Scheme)
	for _, host := range []string{"127.0.0.1", "localhost"} {
		client := newClient("https://"+host+":"+u.Port(), exampleCredentials, func(o *logs.Options) { o.Region, o.HTTPClient = "us-gov-west-1", trusting })
		_, err = client.CreateLogGroup(t.Context(), &logs.CreateLogGroupInput{LogGroupName: aws.String(host)})
		require.NoError(t, err)
	}
	require.Equal(t, "arn:aws-us-gov:logs:us-gov-west-1:210987654321:log-group:127.0.0.1", s.Groups()[0].ARN)
	_, err = newClient(base, exampleCredentials, func(o *logs.Options) { o.Region = "us-gov-west-1" }).DescribeLogGroups(t.Context(), &logs.DescribeLogGroupsInput{})
	var unknown *tls.CertificateVerificationError
	require.ErrorAs(t, err, &unknown)
	require.EqualValues(t, 3, s.Connections())
	require.NotZero(t, s.BytesReceived())
}

func TestServesUnderAnotherServer(t *testing.T) {
	h := httptest.NewServer(fakeaws.New(fakeaws.Config{}))
	t.Cleanup(h.Close)
	_, err := newClient(h.URL, exampleCredentials).CreateLogGroup(t.Context(), &logs.CreateLogGroupInput{LogGroupName: aws.String("g")})
	require.NoError(t, err)
}

func TestIntercept(t *testing.T) {
	var last atomic.Pointer[fakeaws.Call]
	f := start(t, fakeaws.Config{Intercept: func(c fakeaws.Call) error {
		last.Store(&c)
		return nil
	}})
	answer := func(err error) { f.SetIntercept(func(fakeaws.Call) error { return err }) }
	create := func(name string) error {
		_, err := f.client.CreateLogGroup(t.Context(), &logs.CreateLogGroupInput{LogGroupName: &name})
		return err
	}
	require.NoError(t, create("g"))
	f.createStream(t, "g", "s")
	_, err := f.put(t.Context(), "g", "s", event(time.Now(), "m"), event(time.Now(), "m"))
	require.NoError(t, err)
	put := *last.Load()
	require.NotZero(t, put.BodyBytes)
	put = put.Described()
	put.BodyBytes = 0
	require.Equal(t, fakeaws.Call{
		Operation: "PutLogEvents", LogGroup: "g", LogStream: "s", Events: 2,
		AccessKeyID: fakeaws.DefaultAccessKeyID, PrincipalARN: "arn:aws:iam::123456789012:user/" + fakeaws.DefaultAccessKeyID,
	}, put)
	_, err = f.client.ListTagsForResource(t.Context(), &logs.ListTagsForResourceInput{ResourceArn: aws.String(groupARN("g"))})
	require.NoError(t, err)
	require.Equal(t, "g", last.Load().LogGroup)

	answer(&fakeaws.APIError{Code: "ThrottlingException", Message: "Rate exceeded"})
	requireCode(t, create("a"), "ThrottlingException", "Rate exceeded")
	answer(&fakeaws.APIError{Code: "ServiceUnavailableException", Status: http.StatusServiceUnavailable})
	requireCode(t, create("b"), "ServiceUnavailableException", "")
	answer(errors.New("boom"))
	requireCode(t, create("c"), "InternalFailure", "boom")
	answer(fakeaws.ErrConnectionReset)
	require.ErrorIs(t, create("d"), io.EOF)
	require.Len(t, f.Groups(), 1)
	answer(fakeaws.ErrAnswerLost)
	require.ErrorIs(t, create("e"), io.EOF)
	require.Len(t, f.Groups(), 2)
	f.SetIntercept(func(fakeaws.Call) error { panic("bug") })
	requireCode(t, create("f"), "InternalFailure", "bug")
	f.SetIntercept(nil)
	require.NoError(t, create("f"))

	require.Equal(t, map[fakeaws.CallKey]int{
		{"CreateLogGroup", "OK"}: 2, {"CreateLogGroup", "ThrottlingException"}: 1, {"CreateLogGroup", "ServiceUnavailableException"}: 1,
		{"CreateLogGroup", "InternalFailure"}: 2, {"CreateLogGroup", "(connection reset)"}: 1, {"CreateLogGroup", "(answer lost)"}: 1,
		{"CreateLogStream", "OK"}: 1, {"PutLogEvents", "OK"}: 1, {"ListTagsForResource", "OK"}: 1,
	}, f.Calls())
	require.Equal(t, 8, f.CallCount("CreateLogGroup"))
}

func TestLatencyIsWaited(t *testing.T) {
	f := start(t, fakeaws.Config{Latency: time.Hour})
	reached := make(chan struct{})
	f.SetIntercept(func(fakeaws.Call) error {
		close(reached)
		return nil
	})
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		<-reached
		cancel()
	}()
	_, err := f.client.CreateLogGroup(ctx, &logs.CreateLogGroupInput{LogGroupName: aws.String("g")})
	require.ErrorIs(t, err, context.Canceled)
	// The call was under way when the client left, and is carried out all the same.
	require.Eventually(t, func() bool { return len(f.Groups()) == 1 }, time.Minute, time.Millisecond)
}

func TestDebugEndpoints(t *testing.T) {
	f := withStream(t, atNoon())
	_, err := f.put(t.Context(), "g", "s", event(noon, "<m>"))
	require.NoError(t, err)
	get := func(path string, into any) {
		resp, err := http.Get(f.url + path)
		require.NoError(t, err)
		defer resp.Body.Close()
		require.Equal(t, 200, resp.StatusCode)
		require.NoError(t, json.NewDecoder(resp.Body).Decode(into))
	}
	var state fakeaws.Snapshot
	get("/_fake/state", &state)
	want := f.Snapshot()
	want.Connections, want.BytesReceived = state.Connections, state.BytesReceived
	require.Equal(t, want.Groups, state.Groups)
	require.Equal(t, want.Calls, state.Calls)
	var calls []fakeaws.CallTotal
	get("/_fake/calls", &calls)
	require.Equal(t, []fakeaws.CallTotal{{"CreateLogGroup", "OK", 1}, {"CreateLogStream", "OK", 1}, {"PutLogEvents", "OK", 1}}, calls)
	var events []fakeaws.Event
	get("/_fake/events?group=g&stream=s", &events)
	require.Equal(t, []fakeaws.Event{{noon.UnixMilli(), noon.UnixMilli(), "<m>"}}, events)

	w := httptest.NewRecorder()
	r := httptest.NewRequest(http.MethodGet, "/_fake/state", nil)
	r.RemoteAddr = "192.0.2.1:5"
	f.ServeHTTP(w, r)
	require.Equal(t, http.StatusForbidden, w.Code)
}

// Date, signatures, events and sessions go by one clock.
func TestTheClockCanBeMoved(t *testing.T) {
	f := withStream(t, fakeaws.Config{})
	resp, err := http.Post(f.url+"/_fake/clock?offset=-3h", "", nil)
	require.NoError(t, err)
	var answer struct{ Time time.Time }
	require.NoError(t, json.NewDecoder(resp.Body).Decode(&answer))
	require.NoError(t, resp.Body.Close())
	there := time.Now().Add(-3 * time.Hour)
	require.WithinDuration(t, there, answer.Time, time.Minute)

	resp, err = http.Post(f.url, "application/x-amz-json-1.1", strings.NewReader("{}"))
	require.NoError(t, err)
	require.NoError(t, resp.Body.Close())
	date, err := http.ParseTime(resp.Header.Get("Date"))
	require.NoError(t, err)
	require.WithinDuration(t, there, date, time.Minute)

	// The SDK's client learns the time from the refusal of its first call, and keeps it.
	_, err = f.put(t.Context(), "g", "s", event(there, "m"))
	requireCode(t, err, "InvalidSignatureException", "Signature not yet current")
	out, err := f.put(t.Context(), "g", "s", event(there, "then"), event(time.Now(), "now"))
	require.NoError(t, err)
	require.EqualValues(t, 1, *out.RejectedLogEventsInfo.TooNewLogEventStartIndex)
	in := &sts.AssumeRoleInput{RoleArn: aws.String("arn:aws:iam::123456789012:role/r"), RoleSessionName: aws.String("me")}
	client := newSTS(f.url, exampleCredentials)
	_, err = client.AssumeRole(t.Context(), in)
	requireCode(t, err, "SignatureDoesNotMatch", "Signature not yet current")
	session, err := client.AssumeRole(t.Context(), in)
	require.NoError(t, err)
	require.WithinDuration(t, there.Add(time.Hour), *session.Credentials.Expiration, time.Minute)
}

func TestSTS(t *testing.T) {
	f := start(t, fakeaws.Config{})
	newSTS := func(creds aws.CredentialsProvider) *sts.Client {
		return sts.New(sts.Options{Region: "us-east-1", BaseEndpoint: &f.url, Credentials: creds, Retryer: aws.NopRetryer{}})
	}
	client := newSTS(exampleCredentials)
	me, err := client.GetCallerIdentity(t.Context(), &sts.GetCallerIdentityInput{})
	require.NoError(t, err)
	require.Equal(t, "arn:aws:iam::123456789012:user/"+fakeaws.DefaultAccessKeyID, *me.Arn)
	require.Equal(t, "123456789012", *me.Account)

	assume := func(role, session, external string, seconds int32) (*sts.AssumeRoleOutput, error) {
		in := &sts.AssumeRoleInput{RoleArn: &role, RoleSessionName: &session, DurationSeconds: &seconds}
		if external != "" {
			in.ExternalId = &external
		}
		return client.AssumeRole(t.Context(), in)
	}
	const role = "arn:aws:iam::210987654321:role/path/tenant-acme"
	out, err := assume(role, "node-1", "acme:1", 900)
	require.NoError(t, err)
	c := out.Credentials
	require.Equal(t, "arn:aws:sts::210987654321:assumed-role/tenant-acme/node-1", *out.AssumedRoleUser.Arn)
	require.WithinDuration(t, time.Now().Add(15*time.Minute), *c.Expiration, time.Minute)
	require.Equal(t, []fakeaws.AssumedRole{{RoleARN: role, SessionName: "node-1", ExternalID: "acme:1", AccessKeyID: *c.AccessKeyId}}, f.AssumedRoles())
	require.Contains(t, f.AccessKeyIDs(), *c.AccessKeyId)

	// The credentials work, with their token only.
	assumed := credentials.NewStaticCredentialsProvider(*c.AccessKeyId, *c.SecretAccessKey, *c.SessionToken)
	var last atomic.Pointer[fakeaws.Call]
	f.SetIntercept(func(c fakeaws.Call) error {
		last.Store(&c)
		return nil
	})
	_, err = newClient(f.url, assumed).DescribeLogGroups(t.Context(), &logs.DescribeLogGroupsInput{})
	require.NoError(t, err)
	require.Equal(t, *out.AssumedRoleUser.Arn, last.Load().PrincipalARN)
	me, err = newSTS(assumed).GetCallerIdentity(t.Context(), &sts.GetCallerIdentityInput{})
	require.NoError(t, err)
	require.Equal(t, "210987654321", *me.Account)
	_, err = newClient(f.url, credentials.NewStaticCredentialsProvider(*c.AccessKeyId, *c.SecretAccessKey, "")).DescribeLogGroups(t.Context(), &logs.DescribeLogGroupsInput{})
	requireCode(t, err, "UnrecognizedClientException", "")
	_, err = newSTS(credentials.NewStaticCredentialsProvider("AKIAX", "x", "")).GetCallerIdentity(t.Context(), &sts.GetCallerIdentityInput{})
	requireCode(t, err, "InvalidClientTokenId", "security token")

	for name, do := range map[string]func() error{
		"a role ARN that is none":  func() error { _, err := assume("x", "node-1", "", 900); return err },
		"a session name too short": func() error { _, err := assume(role, "n", "", 900); return err },
		"a session name too long":  func() error { _, err := assume(role, strings.Repeat("n", 65), "", 900); return err },
		"an external id too short": func() error { _, err := assume(role, "node-1", "x", 900); return err },
		"899 seconds":              func() error { _, err := assume(role, "node-1", "", 899); return err },
		"43,201 seconds":           func() error { _, err := assume(role, "node-1", "", 43_201); return err },
	} {
		requireCode(t, do(), "ValidationError", "")
		require.Len(t, f.AssumedRoles(), 1, name)
	}
	f.SetIntercept(func(c fakeaws.Call) error {
		last.Store(&c)
		return &fakeaws.APIError{Code: "AccessDenied", Message: "not authorized to perform: sts:AssumeRole", Status: http.StatusForbidden}
	})
	_, err = assume(role, "node-1", "wrong", 900)
	requireCode(t, err, "AccessDenied", "sts:AssumeRole")
	require.Equal(t, role, last.Load().RoleARN)
	require.Equal(t, "wrong", last.Load().ExternalID)
	require.Len(t, f.AssumedRoles(), 1)
	f.SetIntercept(nil)

	// Fluent Bit asks with GET.
	r, err := http.NewRequest(http.MethodGet, f.url+"/?Version=2011-06-15&Action=AssumeRole&RoleSessionName=fluent-bit&RoleArn="+role, nil)
	require.NoError(t, err)
	a := f.sendSigned(t, r, "sts")
	require.Equal(t, 200, a.StatusCode)
	require.Len(t, f.AssumedRoles(), 2)
}

func TestAssumedCredentialsExpire(t *testing.T) {
	s := fakeaws.New(fakeaws.Config{})
	var ahead atomic.Int64
	clock := func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) }
	fakeaws.SetWallClock(s, clock)
	t.Cleanup(func() { require.NoError(t, s.Close()) })
	u, err := s.Start("")
	require.NoError(t, err)
	f := &fixture{s, u, newClient(u, exampleCredentials)}
	client := sts.New(sts.Options{Region: "us-east-1", BaseEndpoint: &u, Credentials: exampleCredentials})
	out, err := client.AssumeRole(t.Context(), &sts.AssumeRoleInput{RoleArn: aws.String("arn:aws:iam::123456789012:role/r"), RoleSessionName: aws.String("node")})
	require.NoError(t, err)
	c := out.Credentials
	for _, later := range []struct {
		time.Duration
		code string
	}{{time.Hour - time.Minute, ""}, {time.Hour + time.Second, "ExpiredTokenException"}} {
		ahead.Store(int64(later.Duration))
		a := f.send(t, raw{
			operation: "DescribeLogGroups", body: "{}", at: clock(),
			creds: aws.Credentials{AccessKeyID: *c.AccessKeyId, SecretAccessKey: *c.SecretAccessKey, SessionToken: *c.SessionToken},
		})
		require.Equal(t, later.code, a.code)
	}
}
