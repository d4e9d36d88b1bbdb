package awsclient

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/credentials/endpointcreds"
	"github.com/aws/aws-sdk-go-v2/service/cloudwatchlogs"
	"github.com/stretchr/testify/require"

	"github.com/eks-tenant-logs/eks-tenant-logs/internal/fakeaws"
)

// startTLS is start over HTTPS, with the authority in AWS_CA_BUNDLE.
func startTLS(t *testing.T, cfg fakeaws.Config, address string) (*fakeaws.Server, string) {
	t.Helper()
	environment(t)
	s := fakeaws.New(cfg)
	url, err := s.StartTLS(address)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, s.Close()) })
	pem, err := s.CAPEM()
	require.NoError(t, err)
	file := filepath.Join(t.TempDir(), "ca.pem")
	require.NoError(t, os.WriteFile(file, pem, 0o600))
	t.Setenv("AWS_CA_BUNDLE", file)
	return s, url
}

// The whole of golang/go#50571: what is offered is what is spoken, in whatever order the SDK clones and
// changes the transport.
func TestAPeerThatPrefersHTTP2IsSpokenToInWhatWasOffered(t *testing.T) {
	var both http.Protocols
	both.SetHTTP1(true)
	both.SetHTTP2(true)
	for _, mode := range []string{"", "standard"} { // by its mode the SDK clones the transport once more
		t.Run("mode "+mode, func(t *testing.T) {
			s, url := startTLS(t, fakeaws.Config{Protocols: both}, "")
			t.Setenv("AWS_DEFAULTS_MODE", mode)
			c, err := New(t.Context(), Config{
				Region: "us-east-1", Endpoint: url, STSEndpoint: url, RoleARN: "arn:aws:iam::123456789012:role/logs", MaxConns: 4,
			})
			require.NoError(t, err)
			_, _, err = c.Account(t.Context())
			require.NoError(t, err)
			_, err = c.CreateLogGroup(t.Context(), &cloudwatchlogs.CreateLogGroupInput{LogGroupName: aws.String("/g")})
			require.NoError(t, err)
			require.Len(t, s.Groups(), 1)
		})
	}
}

// The provider of a web identity's credentials has a client of STS of its own.
func TestAWebIdentityIsExchangedInWhatWasOffered(t *testing.T) {
	var both http.Protocols
	both.SetHTTP1(true)
	both.SetHTTP2(true)
	s, url := startTLS(t, fakeaws.Config{Protocols: both}, "")
	file := filepath.Join(t.TempDir(), "token")
	token := s.WebIdentityToken("https://oidc.test", "system:serviceaccount:logs:agent", "sts.amazonaws.com", time.Hour)
	require.NoError(t, os.WriteFile(file, []byte(token), 0o600))
	for k, v := range map[string]string{
		"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": "", "AWS_WEB_IDENTITY_TOKEN_FILE": file,
		"AWS_ROLE_ARN": "arn:aws:iam::123456789012:role/agent", "AWS_ENDPOINT_URL_STS": url,
	} {
		t.Setenv(k, v)
	}
	c, err := New(t.Context(), Config{Region: "us-east-1", Endpoint: url})
	require.NoError(t, err)
	_, err = c.CreateLogGroup(t.Context(), &cloudwatchlogs.CreateLogGroupInput{LogGroupName: aws.String("/g")})
	require.NoError(t, err)
	require.Equal(t, 1, s.CallCount("AssumeRoleWithWebIdentity"))
}

// environmentsProxy is what the environment of this test names; nothing listens there.
const environmentsProxy = "http://127.0.0.1:1"

// net/http reads the environment once a process, when the first request is made.
func init() {
	for k, v := range map[string]string{"HTTP_PROXY": environmentsProxy, "HTTPS_PROXY": environmentsProxy, "NO_PROXY": "", "http_proxy": "", "https_proxy": "", "no_proxy": ""} {
		if err := os.Setenv(k, v); err != nil {
			panic(err)
		}
	}
}

func TestWhatIsOnTheLinkIsNotSentToAProxy(t *testing.T) {
	environment(t)
	for address, direct := range map[string]bool{
		"https://logs.us-east-1.amazonaws.com": false, "https://10.0.0.1": false, "https://credentials.test": false, "https://[fd00:ec3::1]": false,
		"http://169.254.170.23/v1/credentials": true, "http://[fd00:ec2::23]/v1/credentials": true, "http://169.254.169.254": true,
		"http://[fd00:ec2::254]": true, "http://169.254.170.2": true, "http://[::ffff:169.254.170.23]": true, "http://127.0.0.1": true,
	} {
		r, err := http.NewRequest(http.MethodGet, address, nil)
		require.NoError(t, err)
		through, err := newHTTPClient(0).GetTransport().Proxy(r)
		require.NoError(t, err)
		require.Equal(t, direct, through == nil, address)
	}
	// A redirect of the SDK's client comes here without having been judged.
	for _, address := range []string{"http://credentials.test", "http://[fd00:ec3::1]", "http://192.0.2.2:1/clusters"} {
		r, err := http.NewRequest(http.MethodGet, address, nil)
		require.NoError(t, err)
		_, err = newHTTPClient(0).GetTransport().Proxy(r)
		require.ErrorContains(t, err, "would be asked in the clear", address)
	}
	r, err := http.NewRequest(http.MethodGet, "https://logs.test", nil)
	require.NoError(t, err)
	_, err = proxyOf(func(*http.Request) (*url.URL, error) {
		return nil, errors.New(`invalid proxy address "http://u:secret@h:x"`)
	})(r)
	require.ErrorContains(t, err, "write http://host:port")
	require.NotContains(t, err.Error(), "secret")
	// The SDK asks the agent with this client: with one of its own the token would be the proxy's.
	var options config.LoadOptions
	for _, set := range transportOptions(0) {
		require.NoError(t, set(&options))
	}
	var agent endpointcreds.Options
	options.EndpointCredentialOptions(&agent)
	require.Same(t, options.HTTPClient, agent.HTTPClient)
}

// peers are what can answer at an endpoint without speaking HTTP/1.1 over TLS that is trusted.
func peer(t *testing.T, config *tls.Config, answer func(net.Conn)) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	if config != nil {
		l = tls.NewListener(l, config)
	}
	var serve sync.WaitGroup
	t.Cleanup(func() {
		_ = l.Close()
		serve.Wait()
	})
	serve.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			serve.Go(func() {
				defer c.Close()
				answer(c)
			})
		}
	})
	return "https://" + l.Addr().String()
}

func TestWhatIsWrongOnTheWayIsNamedWithWhatMendsIt(t *testing.T) {
	var only http.Protocols
	only.SetHTTP2(true)
	stand := func(cfg fakeaws.Config, address string) func(t *testing.T) string {
		return func(t *testing.T) string {
			_, url := startTLS(t, cfg, address)
			return url
		}
	}
	for name, test := range map[string]struct {
		start func(t *testing.T) string
		want  []string
	}{
		"HTTP/2 alone, told by TLS": {stand(fakeaws.Config{Protocols: only}, ""), []string{"speaks HTTP/2 only", "offer http/1.1"}},
		"HTTP/2 alone, told in frames": {func(t *testing.T) string {
			s, _ := startTLS(t, fakeaws.Config{}, "")
			config, err := s.TLSConfig()
			require.NoError(t, err)
			return peer(t, config, func(c net.Conn) {
				r, err := http.ReadRequest(bufio.NewReader(c))
				if err != nil {
					return
				}
				_, _ = io.Copy(io.Discard, r.Body) // answered earlier, the client may see that it can't go on sending
				_, _ = c.Write([]byte("\x00\x00\x00\x04\x00\x00\x00\x00\x00" + "\x00\x00\x08\x07\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x01"))
			})
		}, []string{"speaks HTTP/2 only", "offer http/1.1"}},
		"an authority that is not trusted": {func(t *testing.T) string {
			_, url := startTLS(t, fakeaws.Config{}, "")
			_, _ = startTLS(t, fakeaws.Config{}, "") // another's authority in AWS_CA_BUNDLE
			return url
		}, []string{`is signed by "CN=fakeaws test authority"`, "AWS_CA_BUNDLE"}},
		"an expired certificate": {stand(fakeaws.Config{CertificateEnd: time.Now().Add(-time.Minute)}, ""), []string{"has expired or is not yet valid", "renew it"}},
		"another's name":         {stand(fakeaws.Config{}, "127.0.0.2:0"), []string{"is another host's", "127.0.0.1", "set the endpoint"}},
		"HTTP without TLS": {func(t *testing.T) string {
			_, url := start(t, fakeaws.Config{})
			return "https" + strings.TrimPrefix(url, "http")
		}, []string{"does not speak TLS", "correct the endpoint's port"}},
		"no TLS and no HTTP": {func(t *testing.T) string {
			environment(t)
			return peer(t, nil, func(c net.Conn) { _, _ = io.WriteString(c, "220 mail ready\r\n") })
		}, []string{"does not speak TLS"}},
		"TLS 1.1": {func(t *testing.T) string {
			s, _ := startTLS(t, fakeaws.Config{}, "")
			config, err := s.TLSConfig()
			require.NoError(t, err)
			config.MinVersion, config.MaxVersion = tls.VersionTLS10, tls.VersionTLS11
			return peer(t, config, func(c net.Conn) { _, _ = io.Copy(io.Discard, c) })
		}, []string{"broke TLS off", "TLS 1.2 or 1.3"}},
		"nothing that listens": {func(t *testing.T) string {
			environment(t)
			l, err := net.Listen("tcp", "127.0.0.1:0")
			require.NoError(t, err)
			require.NoError(t, l.Close())
			return "https://" + l.Addr().String()
		}, []string{"connection refused"}},
	} {
		t.Run(name, func(t *testing.T) {
			url := test.start(t)
			c, err := New(t.Context(), Config{Region: "us-east-1", Endpoint: url, STSEndpoint: url})
			require.NoError(t, err)
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			_, err = c.Put(ctx, "/g", "s", Body{Bytes: []byte(`{}`)}, 1)
			require.Error(t, err)
			require.Equal(t, ClassRetryable.String(), Classify(err).String())
			require.Equal(t, name == "HTTP/2 alone, told in frames", Unanswered(err), "a request was sent in that case alone")
			require.Equal(t, name != "nothing that listens", Lasting(err), "only what may begin to listen is waited for")
			if Lasting(err) {
				began := time.Now()
				_, err := c.FilterLogEvents(ctx, &cloudwatchlogs.FilterLogEventsInput{LogGroupName: aws.String("/g")})
				require.Error(t, err)
				require.Less(t, time.Since(began), 2*time.Second, "the SDK does not repeat it")
			}
			brief := Brief(err)
			for _, want := range test.want {
				require.Contains(t, brief, want)
			}
			require.NotContains(t, brief, "\n")
			require.NotContains(t, brief, "request send failed", "the SDK's wrapping")
			require.Contains(t, brief, strings.TrimPrefix(url, "https://"), "whose it is")

			if name != "nothing that listens" {
				return
			}
			// A role that STS was not reached for is no role's fault.
			_, err = c.As(Role{ARN: "arn:aws:iam::123456789012:role/r"}).Put(ctx, "/g", "s", Body{Bytes: []byte(`{}`)}, 1)
			require.Equal(t, ClassCredentials.String(), Classify(err).String())
			require.Contains(t, Brief(err), test.want[0])
			require.NotContains(t, Brief(err), "trust policy")
		})
	}
}

// The proxy is the environment's, which net/http reads once a process; what it answers is told here.
func TestAProxyThatRefusesIsNamedWithWhatMendsIt(t *testing.T) {
	environment(t)
	for status, want := range map[int]string{
		http.StatusProxyAuthRequired: "give its user and password in HTTPS_PROXY",
		http.StatusForbidden:         "let it pass logs.test:443, or name that host in NO_PROXY",
		http.StatusBadGateway:        "let it pass logs.test:443, or name that host in NO_PROXY",
	} {
		proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(status) }))
		require.Equal(t, status != http.StatusBadGateway, Lasting(throughProxy(t, proxy.URL)), "%d", status)
		brief := Brief(throughProxy(t, strings.Replace(proxy.URL, "http://", "http://user:secret@", 1)))
		proxy.Close()
		require.Contains(t, brief, want)
		require.Contains(t, brief, strings.TrimPrefix(proxy.URL, "http://"))
		require.NotContains(t, brief, "secret")
		err := throughProxy(t, proxy.URL) // which is gone
		require.Contains(t, Brief(err), "the proxy that HTTPS_PROXY or HTTP_PROXY names can't be reached: dial tcp")
		require.Equal(t, ClassRetryable.String(), Classify(err).String())
		require.False(t, Unanswered(err))
		require.False(t, Lasting(err), "it may come back")
	}
}

func throughProxy(t *testing.T, proxy string) error {
	t.Helper()
	c, err := New(t.Context(), Config{Region: "us-east-1", Endpoint: "https://logs.test"})
	require.NoError(t, err)
	u, err := http.NewRequest(http.MethodGet, proxy, nil)
	require.NoError(t, err)
	client := newHTTPClient(0).WithTransportOptions(func(tr *http.Transport) { tr.Proxy = http.ProxyURL(u.URL) })
	c.Client = cloudwatchlogs.NewFromConfig(c.cfg, func(o *cloudwatchlogs.Options) {
		o.BaseEndpoint, o.HTTPClient = c.logs.Base(), client
	})
	_, err = c.Put(t.Context(), "/g", "s", Body{Bytes: []byte(`{}`)}, 1)
	require.Error(t, err)
	return err
}

// A redirect to plain http is not followed.
func TestARedirectIsNotFollowedIntoTheClear(t *testing.T) {
	environment(t)
	s := httptest.NewTLSServer(http.RedirectHandler("http://192.0.2.2:1/elsewhere", http.StatusTemporaryRedirect))
	t.Cleanup(s.Close)
	client := newHTTPClient(0).WithTransportOptions(func(tr *http.Transport) { tr.TLSClientConfig.InsecureSkipVerify = true })
	r, err := http.NewRequest(http.MethodGet, s.URL, nil)
	require.NoError(t, err)
	_, err = client.Do(r)
	require.ErrorContains(t, err, "would be asked in the clear")
	require.True(t, Lasting(err))
	require.Contains(t, Brief(err), "set the endpoint to an address that answers over https")
}

// A first attempt that was refused for its signature's time, and a second one that had no connection.
func TestASecondAttemptThatWasNeverSentIsNotUnanswered(t *testing.T) {
	environment(t)
	var s *httptest.Server
	s = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_ = s.Listener.Close()
		w.Header().Set("Connection", "close")
		w.Header().Set("Date", time.Now().Add(-3*time.Hour).UTC().Format(http.TimeFormat))
		w.Header().Set("X-Amzn-Requestid", "1")
		w.Header().Set("Content-Type", "application/x-amz-json-1.1")
		w.WriteHeader(http.StatusBadRequest)
		_, _ = w.Write([]byte(`{"__type":"InvalidSignatureException","message":"Signature not yet current: x is still later than y"}`))
	}))
	t.Cleanup(s.CloseClientConnections)
	c, err := New(t.Context(), Config{Region: "us-east-1", Endpoint: s.URL})
	require.NoError(t, err)
	_, err = c.Put(t.Context(), "/g", "s", Body{Bytes: []byte(`{}`)}, 1)
	require.ErrorContains(t, err, "refused")
	require.False(t, Unanswered(err), "%v", err)
}

// Only what had a connection can have been carried out.
func TestWhatHadNoConnectionIsNotUnanswered(t *testing.T) {
	s, url := start(t, fakeaws.Config{})
	c, err := New(t.Context(), Config{Region: "us-east-1", Endpoint: url})
	require.NoError(t, err)
	for _, fault := range []error{fakeaws.ErrAnswerLost, fakeaws.ErrConnectionReset} {
		s.SetIntercept(func(fakeaws.Call) error { return fault })
		_, err = c.Put(t.Context(), "/g", "s", Body{Bytes: []byte(`{"logGroupName":"/g","logStreamName":"s","logEvents":[{"timestamp":1,"message":"x"}]}`)}, 1)
		require.True(t, Unanswered(err), "%v", err)
	}
	s.SetIntercept(nil)
	_, err = c.Put(t.Context(), "/g", "s", Body{Bytes: []byte(`{"logGroupName":"/g","logStreamName":"s","logEvents":[{"timestamp":1,"message":"x"}]}`)}, 1)
	require.Equal(t, ClassNotFound, Classify(err))
	require.False(t, Unanswered(err), "it was answered")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = c.Put(ctx, "/g", "s", Body{Bytes: []byte(`{}`)}, 1)
	require.False(t, Unanswered(err), "%v", err)
	require.False(t, Unanswered(&CredentialsError{Err: errors.New("none")}))
}
