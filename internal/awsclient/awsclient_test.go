package awsclient

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/cloudwatchlogs"
	"github.com/aws/smithy-go"
	smithyhttp "github.com/aws/smithy-go/transport/http"
	"github.com/klauspost/compress/gzip"
	"github.com/stretchr/testify/require"

	"github.com/eks-tenant-logs/eks-tenant-logs/internal/fakeaws"
)

func environment(t *testing.T) {
	for k, v := range map[string]string{
		"AWS_ACCESS_KEY_ID": fakeaws.DefaultAccessKeyID, "AWS_SECRET_ACCESS_KEY": fakeaws.DefaultSecretAccessKey, "AWS_SESSION_TOKEN": "",
		"AWS_REGION": "", "AWS_DEFAULT_REGION": "", "AWS_PROFILE": "", "AWS_EC2_METADATA_DISABLED": "true",
		"AWS_CONFIG_FILE": t.TempDir() + "/none", "AWS_SHARED_CREDENTIALS_FILE": t.TempDir() + "/none",
	} {
		t.Setenv(k, v)
	}
}

func start(t *testing.T, cfg fakeaws.Config) (*fakeaws.Server, string) {
	environment(t)
	s := fakeaws.New(cfg)
	url, err := s.Start("")
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, s.Close()) })
	return s, url
}

func TestErrorsHaveTheClassTheirCodeMeans(t *testing.T) {
	status := func(code string, n int) error {
		return &smithy.OperationError{Err: &smithyhttp.ResponseError{
			Response: &smithyhttp.Response{Response: &http.Response{StatusCode: n}},
			Err:      &smithy.GenericAPIError{Code: code},
		}}
	}
	for name, test := range map[string]struct {
		err  error
		want Class
	}{
		"none":               {nil, ClassNone},
		"throttled":          {status("ThrottlingException", 400), ClassThrottled},
		"429 without a code": {status("Strange", 429), ClassThrottled},
		"denied":             {status("AccessDeniedException", 400), ClassDenied},
		"403 without a code": {status("Strange", 403), ClassDenied},
		"expired":            {status("ExpiredTokenException", 400), ClassCredentials},
		"clock skew":         {status("InvalidSignatureException", 400), ClassCredentials},
		"not found":          {fmt.Errorf("wrapped: %w", status("ResourceNotFoundException", 400)), ClassNotFound},
		"exists":             {status("ResourceAlreadyExistsException", 400), ClassExists},
		"aborted":            {status("OperationAbortedException", 400), ClassConflict},
		"invalid":            {status("InvalidParameterException", 400), ClassInvalid},
		"too large":          {status("RequestEntityTooLarge", 413), ClassInvalid},
		"server error":       {status("InternalFailure", 500), ClassRetryable},
		"unknown code":       {status("SomethingNew", 400), ClassRetryable},
		"network":            {errors.New("connection refused"), ClassRetryable},
		"timeout":            {context.DeadlineExceeded, ClassRetryable},
		"canceled":           {context.Canceled, ClassCanceled},
		"no credentials":     {&CredentialsError{Err: errors.New("none")}, ClassCredentials},
	} {
		require.Equal(t, test.want.String(), Classify(test.err).String(), name)
	}
}

func TestEndpoints(t *testing.T) {
	for in, want := range map[string]string{
		"": "", "logs.us-east-1.amazonaws.com": "https://logs.us-east-1.amazonaws.com", "localhost:8080": "https://localhost:8080",
		"http://127.0.0.1:1": "http://127.0.0.1:1", "https://h/": "https://h",
	} {
		got, err := EndpointURL(in)
		require.NoError(t, err, in)
		require.Equal(t, want, got)
	}
	_, err := EndpointURL("http://logs.example.com")
	require.ErrorContains(t, err, "would send logs unencrypted")
	for _, in := range []string{"http://", "ftp://x", "https://h/path", "https://u:p@h", "https://h?q", "h:port", "://"} {
		_, err = EndpointURL(in)
		require.ErrorContains(t, err, "is no endpoint: give a host, host:port, or https://host[:port]", in)
	}
}

func TestPutSendsOurBytesSignedAndReadsWhatWasRejected(t *testing.T) {
	s, url := start(t, fakeaws.Config{})
	c, err := New(context.Background(), Config{Region: "us-east-1", Endpoint: url})
	require.NoError(t, err)
	ctx := context.Background()
	_, err = c.CreateLogGroup(ctx, &cloudwatchlogs.CreateLogGroupInput{LogGroupName: aws.String("/g")})
	require.NoError(t, err)
	_, err = c.CreateLogStream(ctx, &cloudwatchlogs.CreateLogStreamInput{LogGroupName: aws.String("/g"), LogStreamName: aws.String("s")})
	require.NoError(t, err)
	for _, zipped := range []bool{false, true} {
		body := Body{Bytes: []byte(`{"logGroupName":"/g","logStreamName":"s","logEvents":[{"timestamp":1,"message":"old"},{"timestamp":NOW,"message":"ok"},{"timestamp":9000000000000,"message":"new"}]}`), Gzip: zipped}
		body.Bytes = bytes.ReplaceAll(body.Bytes, []byte("NOW"), []byte(fmt.Sprint(time.Now().UnixMilli())))
		if zipped {
			var b bytes.Buffer
			z := gzip.NewWriter(&b)
			_, err := z.Write(body.Bytes)
			require.NoError(t, err)
			require.NoError(t, z.Close())
			body.Bytes = b.Bytes()
		}
		r, err := c.Put(ctx, "/g", "s", body, 3)
		require.NoError(t, err)
		require.Equal(t, Rejected{Old: 1, New: 1}, r)
	}
	require.Len(t, s.Events("/g", "s"), 2)
	_, err = c.Put(ctx, "/g", "missing", Body{Bytes: []byte(`{"logGroupName":"/g","logStreamName":"missing","logEvents":[{"timestamp":1,"message":"x"}]}`)}, 1)
	require.Equal(t, ClassNotFound, Classify(err))
	require.ErrorContains(t, err, "failed to put 1 events into stream missing of group /g")
}

func TestPutIsTriedOnceAndControlCallsAgain(t *testing.T) {
	s, url := start(t, fakeaws.Config{})
	n := map[string]int{}
	s.SetIntercept(func(c fakeaws.Call) error {
		n[c.Operation]++ // one call at a time
		if n[c.Operation] <= 2 {
			return &fakeaws.APIError{Code: "ThrottlingException", Message: "Rate exceeded"}
		}
		return nil
	})
	c, err := New(context.Background(), Config{Region: "us-east-1", Endpoint: url})
	require.NoError(t, err)
	_, err = c.Put(context.Background(), "/g", "s", Body{Bytes: []byte(`{"logGroupName":"/g","logStreamName":"s","logEvents":[{"timestamp":1,"message":"x"}]}`)}, 1)
	require.Equal(t, ClassThrottled, Classify(err))
	require.Equal(t, 1, n["PutLogEvents"])
	_, err = c.CreateLogGroup(context.Background(), &cloudwatchlogs.CreateLogGroupInput{LogGroupName: aws.String("/g")})
	require.NoError(t, err)
	require.Equal(t, 3, n["CreateLogGroup"])
}

func TestARoleIsAssumedWithItsExternalID(t *testing.T) {
	s, url := start(t, fakeaws.Config{})
	c, err := New(context.Background(), Config{
		Region: "us-east-1", Endpoint: url, STSEndpoint: url, RoleARN: "arn:aws:iam::123456789012:role/logs", ExternalID: "only-us", ExtraUserAgent: "chart/1.2",
	})
	require.NoError(t, err)
	_, err = c.CreateLogGroup(context.Background(), &cloudwatchlogs.CreateLogGroupInput{LogGroupName: aws.String("/g")})
	require.NoError(t, err)
	roles := s.AssumedRoles()
	require.Len(t, roles, 1)
	require.Equal(t, "only-us", roles[0].ExternalID)
	require.Contains(t, fmt.Sprintf("%+v", roles[0]), sessionName)
}

func TestFIPSAsksForTheFIPSHost(t *testing.T) {
	environment(t)
	for region, want := range map[string]string{"us-east-1": "logs-fips.us-east-1.amazonaws.com", "us-gov-west-1": "logs.us-gov-west-1.amazonaws.com"} {
		c, err := New(context.Background(), Config{Region: region, UseFIPS: true})
		require.NoError(t, err)
		got := ""
		_, err = c.DescribeLogGroups(context.Background(), &cloudwatchlogs.DescribeLogGroupsInput{}, func(o *cloudwatchlogs.Options) {
			o.HTTPClient = roundTrip(func(r *http.Request) (*http.Response, error) {
				got = r.URL.Host
				return nil, errors.New("not sent")
			})
			o.Retryer = aws.NopRetryer{}
		})
		require.Error(t, err)
		require.Equal(t, want, got)
	}
}

type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) Do(r *http.Request) (*http.Response, error) { return f(r) }

func TestWhatIsMissingIsNamed(t *testing.T) {
	environment(t)
	_, err := New(context.Background(), Config{})
	require.ErrorContains(t, err, "region is not set: set the option region, or AWS_REGION in the environment")
	_, err = New(context.Background(), Config{Region: "us-east-1", Profile: "absent"})
	require.ErrorContains(t, err, "absent")
	t.Setenv("AWS_ACCESS_KEY_ID", "")
	t.Setenv("AWS_SECRET_ACCESS_KEY", "")
	srv := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("called without credentials") }))
	defer srv.Close()
	c, err := New(context.Background(), Config{Region: "us-east-1", Endpoint: srv.URL})
	require.NoError(t, err)
	_, err = c.Put(context.Background(), "/g", "s", Body{Bytes: []byte("{}")}, 1)
	require.Equal(t, ClassCredentials, Classify(err), "%v", err)
	require.ErrorContains(t, err, "give the pod a role")
}

func TestAnAnswerThatIsNoJSONIsRetryable(t *testing.T) {
	environment(t)
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		w.WriteHeader(http.StatusBadGateway)
		_, _ = w.Write([]byte("<html>proxy</html>"))
	}))
	defer srv.Close()
	c, err := New(context.Background(), Config{Region: "us-east-1", Endpoint: srv.URL})
	require.NoError(t, err)
	_, err = c.Put(context.Background(), "/g", "s", Body{Bytes: []byte("{}")}, 1)
	require.Equal(t, ClassRetryable, Classify(err), "%v", err)
	require.NotEmpty(t, Brief(err))
}

// A role that can't be assumed has STS's refusal inside: not one of the call it was for.
func TestCredentialsThatCouldNotBeHadAreNoRefusalOfTheCall(t *testing.T) {
	for _, code := range []string{"AccessDenied", "ResourceNotFoundException", "InvalidParameterException", "ThrottlingException"} {
		err := fmt.Errorf("failed to put: %w", &CredentialsError{Err: &smithy.GenericAPIError{Code: code, Message: "sts:AssumeRole"}})
		require.Equal(t, ClassCredentials, Classify(err), code)
		require.Equal(t, "no usable AWS credentials: "+code+": sts:AssumeRole; give the pod a role (EKS Pod Identity or IRSA), or set role_arn or profile", Brief(err))
	}
}
