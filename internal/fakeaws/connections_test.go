package fakeaws_test

import (
	"crypto/tls"
	"crypto/x509"
	"net/http"
	"net/http/httptrace"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	logs "github.com/aws/aws-sdk-go-v2/service/cloudwatchlogs"
	"github.com/stretchr/testify/require"

	"github.com/eks-tenant-logs/eks-tenant-logs/internal/fakeaws"
)

// versions are those of a call, as its client saw them.
type versions struct {
	http   string
	tls    uint16
	reused bool
}

// caller starts a server over HTTPS and returns a way to make one call as a client that trusts it.
func caller(t *testing.T, cfg fakeaws.Config) (s *fakeaws.Server, transport *http.Transport, call func() (versions, error)) {
	t.Helper()
	s = fakeaws.New(cfg)
	t.Cleanup(func() { require.NoError(t, s.Close()) })
	base, err := s.StartTLS("")
	require.NoError(t, err)
	pem, err := s.CAPEM()
	require.NoError(t, err)
	pool := x509.NewCertPool()
	require.True(t, pool.AppendCertsFromPEM(pem))
	transport = &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}, ForceAttemptHTTP2: true}
	t.Cleanup(transport.CloseIdleConnections)
	return s, transport, func() (versions, error) {
		var v versions
		ctx := httptrace.WithClientTrace(t.Context(), &httptrace.ClientTrace{GotConn: func(i httptrace.GotConnInfo) { v.reused = i.Reused }})
		client := newClient(base, exampleCredentials, func(o *logs.Options) {
			o.Retryer = aws.NopRetryer{}
			o.HTTPClient = doer(func(r *http.Request) (*http.Response, error) {
				resp, err := transport.RoundTrip(r)
				if err == nil {
					v.http, v.tls = resp.Proto, resp.TLS.Version
				}
				return resp, err
			})
		})
		_, err := client.DescribeLogGroups(ctx, &logs.DescribeLogGroupsInput{})
		return v, err
	}
}

type doer func(*http.Request) (*http.Response, error)

func (d doer) Do(r *http.Request) (*http.Response, error) { return d(r) }

func protocols(http1, http2 bool) (p http.Protocols) {
	p.SetHTTP1(http1)
	p.SetHTTP2(http2)
	return p
}

func TestVersionsOfHTTPAndTLS(t *testing.T) {
	for name, test := range map[string]struct {
		cfg          fakeaws.Config
		client       http.Protocols
		clientMaxTLS uint16
		want         versions
		refused      string
	}{
		"by default":                              {fakeaws.Config{}, protocols(true, true), 0, versions{"HTTP/1.1", tls.VersionTLS13, false}, ""},
		"both, and the client too":                {fakeaws.Config{Protocols: protocols(true, true)}, protocols(true, true), 0, versions{"HTTP/2.0", tls.VersionTLS13, false}, ""},
		"both, the client HTTP/1.1":               {fakeaws.Config{Protocols: protocols(true, true)}, protocols(true, false), 0, versions{"HTTP/1.1", tls.VersionTLS13, false}, ""},
		"HTTP/2 alone":                            {fakeaws.Config{Protocols: protocols(false, true)}, protocols(true, true), 0, versions{"HTTP/2.0", tls.VersionTLS13, false}, ""},
		"HTTP/2 alone, the client HTTP/1.1":       {fakeaws.Config{Protocols: protocols(false, true)}, protocols(true, false), 0, versions{}, "no application protocol"},
		"TLS 1.3 alone":                           {fakeaws.Config{MinTLS: tls.VersionTLS13}, protocols(true, false), 0, versions{"HTTP/1.1", tls.VersionTLS13, false}, ""},
		"TLS 1.3 alone, the client at most 1.2":   {fakeaws.Config{MinTLS: tls.VersionTLS13}, protocols(true, false), tls.VersionTLS12, versions{}, "protocol version not supported"},
		"TLS 1.2 alone":                           {fakeaws.Config{MaxTLS: tls.VersionTLS12}, protocols(true, false), 0, versions{"HTTP/1.1", tls.VersionTLS12, false}, ""},
		"TLS 1.2 alone, HTTP/2 alone, the client": {fakeaws.Config{MaxTLS: tls.VersionTLS12, Protocols: protocols(false, true)}, protocols(false, true), 0, versions{"HTTP/2.0", tls.VersionTLS12, false}, ""},
		"a certificate that has expired":          {fakeaws.Config{CertificateEnd: time.Now().Add(-time.Second)}, protocols(true, true), 0, versions{}, "expired"},
	} {
		t.Run(name, func(t *testing.T) {
			_, transport, call := caller(t, test.cfg)
			transport.ForceAttemptHTTP2, transport.Protocols = false, &test.client
			transport.TLSClientConfig.MaxVersion = test.clientMaxTLS
			if !test.client.HTTP2() {
				transport.TLSClientConfig.NextProtos = []string{"http/1.1"}
			}
			got, err := call()
			if test.refused != "" {
				require.ErrorContains(t, err, test.refused)
				return
			}
			require.NoError(t, err)
			require.Equal(t, test.want, got)
		})
	}
}

func TestFurtherHostsAreInTheCertificate(t *testing.T) {
	s := fakeaws.New(fakeaws.Config{Hosts: []string{"logs.us-east-1.test"}})
	t.Cleanup(func() { require.NoError(t, s.Close()) })
	config, err := s.TLSConfig()
	require.NoError(t, err)
	leaf, err := x509.ParseCertificate(config.Certificates[0].Certificate[0])
	require.NoError(t, err)
	for _, host := range []string{"logs.us-east-1.test", "localhost", "127.0.0.1"} {
		require.NoError(t, leaf.VerifyHostname(host))
	}
	require.Error(t, leaf.VerifyHostname("sts.us-east-1.test"))
}

// Over HTTP/1.1 it is a header, over HTTP/2 a GOAWAY: either way the next call needs a new connection.
func TestConnectionsAreClosedAfterACall(t *testing.T) {
	for name, cfg := range map[string]fakeaws.Config{
		"HTTP/1.1": {CloseConnections: true}, "HTTP/2.0": {CloseConnections: true, Protocols: protocols(true, true)},
	} {
		t.Run(name, func(t *testing.T) {
			s, _, call := caller(t, cfg)
			calls := 0
			require.Eventually(t, func() bool { // GOAWAY comes after the answer, and the next call may be before it
				got, err := call()
				require.NoError(t, err)
				require.Equal(t, name, got.http)
				calls++
				return s.Connections() >= 3
			}, time.Minute, time.Millisecond)
			if name == "HTTP/1.1" {
				require.LessOrEqual(t, calls, 3)
			}
		})
	}
}

func TestAConnectionIsGivenUpWhileACallIsOnItsWay(t *testing.T) {
	s, _, call := caller(t, fakeaws.Config{CallsPerConnection: 2})
	answered, broken := 0, 0
	require.Eventually(t, func() bool { // the client may prefer a new connection
		if _, err := call(); err != nil {
			broken++
		} else {
			answered++
		}
		return broken == 2
	}, time.Minute, time.Millisecond)
	require.GreaterOrEqual(t, answered, 4, "two on each")
	require.Equal(t, map[fakeaws.CallKey]int{{Operation: "DescribeLogGroups", Result: "OK"}: answered, {Operation: "-", Result: "(connection reset)"}: broken}, s.Calls())
}

func TestIdleConnectionsAreClosed(t *testing.T) {
	s, transport, call := caller(t, fakeaws.Config{})
	require.Zero(t, s.CloseIdle())
	require.Eventually(t, func() bool { // the client may end a connection itself
		_, err := call()
		return err == nil && s.CloseIdle() == 1
	}, time.Minute, time.Millisecond, "idle once the answer is out")
	require.Zero(t, s.CloseIdle())

	// A call under way is none of it.
	transport.CloseIdleConnections() // it may not have seen the end of its connection
	hang, reached := make(chan struct{}), make(chan struct{})
	s.SetIntercept(func(fakeaws.Call) error {
		close(reached)
		<-hang
		return nil
	})
	done := make(chan error, 1)
	go func() {
		_, err := call()
		done <- err
	}()
	select {
	case <-reached:
	case err := <-done:
		t.Fatalf("the call was not made: %v", err)
	}
	require.Zero(t, s.CloseIdle())
	close(hang)
	require.NoError(t, <-done)
}
