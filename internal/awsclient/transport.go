package awsclient

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"strings"
	"sync/atomic"
	"time"

	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/credentials/endpointcreds"
)

const (
	// connectTimeout is how long a TCP connection may take, and its TLS handshake as long again.
	connectTimeout = 5 * time.Second
	// answerTimeout is how long an answer may take to begin. CloudWatch Logs answers in
	// well under a second; a connection that hangs must not hold its caller for ever.
	answerTimeout = 20 * time.Second
	// controlConns is the room for calls other than PutLogEvents: a group must be
	// created even while every put hangs.
	controlConns = 8
)

// transportOptions have every client of the SDK send its requests with one newHTTPClient, and every
// provider of credentials as well: the SDK gives that of the container's endpoint (EKS Pod Identity) a
// client of its own otherwise.
func transportOptions(maxConns int) []func(*config.LoadOptions) error {
	client := newHTTPClient(maxConns)
	return []func(*config.LoadOptions) error{
		config.WithHTTPClient(client),
		config.WithEndpointCredentialOptions(func(o *endpointcreds.Options) { o.HTTPClient = client }),
	}
}

// newHTTPClient is what requests are sent with. maxConns is Config.MaxConns.
//
// It speaks HTTP/1.1 over TLS 1.2 or 1.3, directly or through the proxy that HTTPS_PROXY, HTTP_PROXY
// and NO_PROXY choose. It is one of the SDK's own kind because the SDK adds AWS_CA_BUNDLE to that
// kind alone.
func newHTTPClient(maxConns int) *awshttp.BuildableClient {
	return awshttp.NewBuildableClient().
		WithDialerOptions(func(d *net.Dialer) { d.Timeout = connectTimeout }).
		WithTransportOptions(func(t *http.Transport) {
			t.TLSHandshakeTimeout = connectTimeout
			t.ResponseHeaderTimeout = answerTimeout
			t.MaxIdleConns = 0
			if maxConns > 0 {
				t.MaxIdleConnsPerHost = maxConns + controlConns
				t.MaxConnsPerHost = maxConns + controlConns
			}
			if t.TLSClientConfig == nil {
				t.TLSClientConfig = &tls.Config{}
			}
			t.TLSClientConfig.MinVersion = tls.VersionTLS12
			t.Proxy, t.OnProxyConnectResponse = proxyOf(http.ProxyFromEnvironment), proxyAnswered
			speakHTTP1(t)
		})
}

// speakHTTP1 makes t offer what it speaks, which is HTTP/1.1 alone. HTTP/2 would put all calls to one
// host on one connection, and a connection that breaks or hangs would take all of them with it.
//
// The offer has to be set as well: t is a clone, and http.Transport.Clone writes h2 into the offer of
// the transport it clones (golang/go#50571). A peer that agrees to h2 does not understand what it gets then.
func speakHTTP1(t *http.Transport) {
	t.Protocols = new(http.Protocols)
	t.Protocols.SetHTTP1(true)
	t.ForceAttemptHTTP2 = false
	t.TLSNextProto = nil
	t.TLSClientConfig.NextProtos = []string{"http/1.1"}
}

// proxyOf is environment's choice, which is http.ProxyFromEnvironment, except for what is on this machine's
// own link: the agent of EKS Pod Identity, the metadata service of EC2 and ECS's credentials. A proxy can't
// reach those addresses, and what is sent there, tokens among it, is for no other machine.
func proxyOf(environment func(*http.Request) (*url.URL, error)) func(*http.Request) (*url.URL, error) {
	return func(r *http.Request) (*url.URL, error) {
		if nodeLocal(r.URL.Hostname()) {
			return nil, nil
		}
		if r.URL.Scheme == "http" && !loopback(r.URL.Hostname()) {
			// noCleartext judges the requests of the SDK; this is where a redirect of theirs passes.
			return nil, &clearRedirectError{r.URL.Host}
		}
		u, err := environment(r)
		if err != nil { // it has the value in it, and a password in that
			return nil, errors.New("HTTPS_PROXY or HTTP_PROXY is no proxy's address: write http://host:port, or http://user:password@host:port with %40 for @ and %2F for / in them")
		}
		return u, nil
	}
}

// clearRedirectError says that an endpoint redirected a request to plain http.
type clearRedirectError struct{ host string }

func (e *clearRedirectError) Error() string {
	return e.host + " would be asked in the clear: the endpoint redirected the request to plain http"
}

// proxyRefusal is a proxy's answer to CONNECT other than 200.
type proxyRefusal struct {
	proxy, target, status string
	code                  int
}

func (e *proxyRefusal) Error() string {
	advice := fmt.Sprintf("let it pass %s, or name that host in NO_PROXY", e.target)
	if e.code == http.StatusProxyAuthRequired {
		advice = "give its user and password in HTTPS_PROXY, as http://user:password@host:port"
	}
	return fmt.Sprintf("the proxy %s answered CONNECT with %q: %s", e.proxy, e.status, advice)
}

// proxyAnswered implements http.Transport's OnProxyConnectResponse.
func proxyAnswered(_ context.Context, proxy *url.URL, connect *http.Request, answer *http.Response) error {
	if answer.StatusCode == http.StatusOK {
		return nil
	}
	return &proxyRefusal{proxy.Host, connect.Host, answer.Status, answer.StatusCode}
}

// unsentError is a failure before there was a connection to send the request on.
type unsentError struct{ error }

func (e unsentError) Unwrap() error { return e.error }

// noteConnected has connected set once a request made with the context has a connection.
func noteConnected(ctx context.Context, connected *atomic.Bool) context.Context {
	return httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		GetConn: func(string) { connected.Store(false) }, // of the last attempt: those before were answered
		GotConn: func(httptrace.GotConnInfo) { connected.Store(true) },
	})
}

// unreached says in one line why a peer gave no answer, and what mends it; lasting says that the next
// attempt will fail in the same way until that is done. The line is empty where err is no failure of
// the network.
func unreached(err error) (line string, lasting bool) {
	host := "the endpoint"
	var request *url.Error
	if errors.As(err, &request) {
		if u, err := url.Parse(request.URL); err == nil && u.Host != "" {
			host = u.Host
		}
	}
	var refusal *proxyRefusal
	var clear *clearRedirectError
	var op *net.OpError
	var resolved *net.DNSError
	var authority x509.UnknownAuthorityError
	var invalid x509.CertificateInvalidError
	var name x509.HostnameError
	var certificate *tls.CertificateVerificationError
	var record tls.RecordHeaderError
	unknown := errors.As(err, &resolved) && resolved.IsNotFound
	switch {
	case errors.As(err, &refusal):
		return refusal.Error(), refusal.code < http.StatusInternalServerError
	case errors.As(err, &clear):
		return clear.Error() + ": set the endpoint to an address that answers over https", true
	case errors.As(err, &op) && op.Op == "proxyconnect":
		return fmt.Sprintf("the proxy that HTTPS_PROXY or HTTP_PROXY names can't be reached: %v", op.Err), unknown
	case errors.As(err, &authority):
		issuer := "an unknown issuer"
		if authority.Cert != nil {
			issuer = fmt.Sprintf("%q", authority.Cert.Issuer.String())
		}
		return fmt.Sprintf("the certificate of %s is signed by %s, an authority that is not trusted here: "+
			"put the authority's certificate into the file that AWS_CA_BUNDLE names; a proxy that opens TLS has an authority of its own", host, issuer), true
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		return fmt.Sprintf("the certificate of %s has expired or is not yet valid (%s): renew it, or correct this node's clock", host, invalid.Detail), true
	case errors.As(err, &name):
		return fmt.Sprintf("the certificate of %s is another host's (%s): set the endpoint to a name in the certificate",
			host, strings.TrimPrefix(name.Error(), "x509: ")), true
	case errors.As(err, &certificate):
		return fmt.Sprintf("the certificate of %s is not valid (%v): replace it", host, certificate.Err), true
	case errors.As(err, &record), errors.Is(err, http.ErrSchemeMismatch):
		return fmt.Sprintf("%s does not speak TLS: correct the endpoint's port, or let TLS pass through the proxy in front of it", host), true
	case speaksOnlyHTTP2(err):
		return fmt.Sprintf("%s speaks HTTP/2 only, and HTTP/1.1 is spoken here: have the endpoint, or the proxy in front of it, offer http/1.1 in TLS's ALPN", host), true
	case op != nil && op.Op == "remote error":
		return fmt.Sprintf("%s broke TLS off (%v): it must speak TLS 1.2 or 1.3", host, op.Err), op.Err.Error() != tls.AlertError(80).Error() // internal_error: its own trouble
	case unknown:
		return fmt.Sprintf("the name %s is not found: correct the endpoint or the region, or have the cluster's DNS know it", resolved.Name), true
	case op != nil:
		return op.Error(), false
	case request != nil:
		return request.Error(), false
	}
	return "", false
}

// speaksOnlyHTTP2 reports whether a peer failed to agree on HTTP/1.1: it refused the offer, chose h2
// without an offer, or answered in HTTP/2's frames, which begin with the length and type of SETTINGS
// or GOAWAY. The standard library has no values for these errors, so their texts are looked at.
func speaksOnlyHTTP2(err error) bool {
	const noApplicationProtocol = tls.AlertError(120) // RFC 7301, section 3.2
	var op *net.OpError
	if errors.As(err, &op) && op.Op == "remote error" && op.Err.Error() == noApplicationProtocol.Error() {
		return true
	}
	text := err.Error()
	return strings.Contains(text, "tls: server selected unadvertised ALPN protocol") ||
		strings.Contains(text, `malformed HTTP response "\x00\x00`)
}
