package awsclient

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/cloudwatchlogs"
	"github.com/aws/smithy-go"
	"github.com/stretchr/testify/require"
)

// What is wrong on the way: TestWhatIsWrongOnTheWayIsNamedWithWhatMendsIt.
func TestWhatWaitingDoesNotMendIsLasting(t *testing.T) {
	api := func(code string) error { return &smithy.GenericAPIError{Code: code} }
	notFound := &url.Error{Op: "Post", URL: "https://logs.test/", Err: &net.OpError{Op: "dial", Err: &net.DNSError{Name: "logs.test", Err: "no such host", IsNotFound: true}}}
	slowDNS := &url.Error{Op: "Post", URL: "https://logs.test/", Err: &net.OpError{Op: "dial", Err: &net.DNSError{Name: "logs.test", Err: "i/o timeout", IsTimeout: true}}}
	for name, test := range map[string]struct {
		err     error
		lasting bool
	}{
		"none":                            {nil, false},
		"denied":                          {api("AccessDeniedException"), true},
		"expired":                         {api("ExpiredTokenException"), true},
		"unknown key":                     {api("UnrecognizedClientException"), true},
		"signature":                       {api("InvalidSignatureException"), true},
		"invalid":                         {api("InvalidParameterException"), true},
		"a group that may be made":        {api("ResourceNotFoundException"), false},
		"throttled":                       {api("ThrottlingException"), false},
		"of AWS's":                        {api("ServiceUnavailableException"), false},
		"unheard of":                      {api("SomethingNew"), false},
		"canceled":                        {context.Canceled, false},
		"no credentials":                  {&CredentialsError{Err: errors.New("none")}, true},
		"a role that is denied":           {&CredentialsError{Role: "r", Err: api("AccessDenied")}, true},
		"a role STS was not reached for":  {&CredentialsError{Role: "r", Err: slowDNS}, false},
		"STS's name is not found":         {&CredentialsError{Role: "r", Err: notFound}, true},
		"credentials that AWS refuses":    {&RefusedError{Err: api("ExpiredTokenException")}, true},
		"a name that is not found":        {notFound, true},
		"a name server that is not there": {slowDNS, false},
	} {
		require.Equal(t, test.lasting, Lasting(test.err), name)
	}
	require.Contains(t, Brief(notFound), "the name logs.test is not found: correct the endpoint or the region")
}

// Something else than AWS that answers in HTTP.
func TestAnAnswerThatIsNotOfAWSIsNamed(t *testing.T) {
	environment(t)
	page := func(status int) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(status)
			_, _ = w.Write([]byte("<html>hello</html>"))
		})
	}
	for name, test := range map[string]struct {
		handler http.Handler
		lasting bool
		want    string
	}{
		"redirect":     {http.RedirectHandler("https://portal.test/login?token=secret", http.StatusFound), true, "answered with status 302, a redirect to portal.test, and not as AWS does"},
		"not found":    {http.NotFoundHandler(), true, "answered with status 404, and not as AWS does: correct the endpoint"},
		"forbidden":    {page(http.StatusForbidden), true, "status 403"},
		"no method":    {http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusMethodNotAllowed) }), true, "status 405"},
		"too many":     {page(http.StatusTooManyRequests), false, ""},
		"out of order": {page(http.StatusServiceUnavailable), false, ""},
	} {
		t.Run(name, func(t *testing.T) {
			s := httptest.NewServer(test.handler)
			t.Cleanup(s.Close)
			c, err := New(t.Context(), Config{Region: "us-east-1", Endpoint: s.URL})
			require.NoError(t, err)
			_, err = c.FilterLogEvents(t.Context(), &cloudwatchlogs.FilterLogEventsInput{LogGroupName: aws.String("/g")}, func(o *cloudwatchlogs.Options) { o.RetryMaxAttempts = 1 })
			require.Error(t, err)
			require.Equal(t, test.lasting, Lasting(err), "%v", err)
			require.NotContains(t, Brief(err), "secret")
			if test.want != "" {
				require.Contains(t, Brief(err), s.Listener.Addr().String()+" answered")
				require.Contains(t, Brief(err), test.want)
			}
		})
	}
}
