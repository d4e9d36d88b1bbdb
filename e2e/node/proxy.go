package node

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"sync"

	"github.com/eks-tenant-logs/eks-tenant-logs/internal/fakeaws"
)

// ProxyConfig says what a Proxy is to be.
type ProxyConfig struct {
	// To is the address, host:port, that every CONNECT leads to, whatever name it asks for. The names need not exist.
	To string
	// User and Password are asked for with 407 unless they are empty.
	User, Password string
	// Open makes it open TLS, as networks do that look into it: it answers with a certificate for Host of an authority of
	// its own, agrees to HTTP/2 where the client offers it, and makes the calls anew over HTTP/1.1. CA is the PEM of the
	// authority that To is to be trusted by.
	Open bool
	Host string
	CA   []byte
}

// Proxy is a forward proxy by CONNECT on the loopback interface, as a network's only way out.
type Proxy struct {
	cfg      ProxyConfig
	listener net.Listener
	front    *http.Server
	own      *fakeaws.Server // for its certificate
	opened   chan net.Conn   // to be opened
	inner    *http.Server
	serve    sync.WaitGroup
	stop     context.CancelFunc
	done     context.Context

	mu      sync.Mutex
	targets map[string]int
	refused int
	spoken  map[string]int
	conns   map[net.Conn]struct{}
}

// NewProxy starts a proxy.
func NewProxy(cfg ProxyConfig) (*Proxy, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	p := &Proxy{cfg: cfg, listener: l, opened: make(chan net.Conn), targets: map[string]int{}, spoken: map[string]int{}, conns: map[net.Conn]struct{}{}}
	p.done, p.stop = context.WithCancel(context.Background())
	if cfg.Open {
		if err := p.startInner(); err != nil {
			return nil, errors.Join(err, l.Close())
		}
	}
	p.front = &http.Server{Handler: http.HandlerFunc(p.connect), ErrorLog: log.New(io.Discard, "", 0)}
	p.serve.Go(func() { _ = p.front.Serve(l) })
	return p, nil
}

// URL is what HTTPS_PROXY has to be, without a user and password.
func (p *Proxy) URL() string { return "http://" + p.listener.Addr().String() }

// Env is the environment that leads every client through the proxy, with the user and password it asks for.
func (p *Proxy) Env() []string {
	u := url.URL{Scheme: "http", Host: p.listener.Addr().String()}
	if p.cfg.User != "" {
		u.User = url.UserPassword(p.cfg.User, p.cfg.Password)
	}
	return []string{"HTTPS_PROXY=" + u.String(), "https_proxy=", "NO_PROXY=", "no_proxy="}
}

// Targets are how many connections were led to what name, as host:port.
func (p *Proxy) Targets() map[string]int { return p.copyOf(p.targets) }

// Spoken are how many calls there were in opened connections by version of HTTP, such as HTTP/1.1.
func (p *Proxy) Spoken() map[string]int { return p.copyOf(p.spoken) }

// Refused is how many times 407 was answered.
func (p *Proxy) Refused() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.refused
}

func (p *Proxy) copyOf(m map[string]int) map[string]int {
	p.mu.Lock()
	defer p.mu.Unlock()
	c := map[string]int{}
	for k, v := range m {
		c[k] = v
	}
	return c
}

// CAPEM is the authority that a client must trust where TLS is opened.
func (p *Proxy) CAPEM() ([]byte, error) { return p.own.CAPEM() }

// Close ends the proxy and what is connected through it.
func (p *Proxy) Close() error {
	p.stop()
	err := p.front.Close()
	if p.inner != nil {
		err = errors.Join(err, p.inner.Close())
	}
	p.mu.Lock()
	for c := range p.conns {
		c.Close()
	}
	p.mu.Unlock()
	p.serve.Wait()
	return err
}

// connect answers one request of a client.
func (p *Proxy) connect(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodConnect {
		http.Error(w, "this proxy tunnels, and nothing else", http.StatusMethodNotAllowed)
		return
	}
	if p.cfg.User != "" && r.Header.Get("Proxy-Authorization") != "Basic "+base64.StdEncoding.EncodeToString([]byte(p.cfg.User+":"+p.cfg.Password)) {
		p.mu.Lock()
		p.refused++
		p.mu.Unlock()
		w.Header().Set("Proxy-Authenticate", `Basic realm="proxy"`)
		w.WriteHeader(http.StatusProxyAuthRequired)
		return
	}
	c, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return
	}
	p.mu.Lock()
	p.targets[r.Host]++
	if p.done.Err() != nil {
		p.mu.Unlock()
		c.Close()
		return
	}
	p.conns[c] = struct{}{}
	p.mu.Unlock()
	if _, err := io.WriteString(c, "HTTP/1.1 200 Connection established\r\n\r\n"); err != nil {
		c.Close()
		return
	}
	if p.cfg.Open {
		select {
		case p.opened <- c:
		case <-p.done.Done():
			c.Close()
		}
		return
	}
	p.serve.Go(func() { p.tunnel(c) })
}

// tunnel carries bytes until one side ends, and forgets the connection.
func (p *Proxy) tunnel(c net.Conn) {
	carry(c, p.cfg.To)
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.conns, c)
}

// startInner serves the connections that are opened.
func (p *Proxy) startInner() error {
	var both http.Protocols
	both.SetHTTP1(true)
	both.SetHTTP2(true)
	p.own = fakeaws.New(fakeaws.Config{Protocols: both, Hosts: []string{p.cfg.Host}})
	config, err := p.own.TLSConfig()
	if err != nil {
		return err
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(p.cfg.CA) {
		return errors.New("the authority's PEM holds no certificate")
	}
	discard := log.New(io.Discard, "", 0)
	forward := &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.Out.URL.Scheme, r.Out.URL.Host, r.Out.Host = "https", r.In.Host, r.In.Host // signed as it is
		},
		Transport: &http.Transport{
			DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
				return new(net.Dialer).DialContext(ctx, network, p.cfg.To)
			},
			TLSClientConfig: &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}, DisableCompression: true,
		},
		ErrorLog: discard,
	}
	p.inner = &http.Server{
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			p.mu.Lock()
			p.spoken[r.Proto]++
			p.mu.Unlock()
			forward.ServeHTTP(w, r)
		}),
		TLSConfig: config, Protocols: &both, ErrorLog: discard,
	}
	p.serve.Go(func() { _ = p.inner.ServeTLS(handed{p}, "", "") })
	return nil
}

// handed is a listener of the connections that connect hands on.
type handed struct{ p *Proxy }

func (h handed) Accept() (net.Conn, error) {
	select {
	case c := <-h.p.opened:
		return c, nil
	case <-h.p.done.Done():
		return nil, net.ErrClosed
	}
}

func (h handed) Close() error { return nil }

func (h handed) Addr() net.Addr { return h.p.listener.Addr() }
