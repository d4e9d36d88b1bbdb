package telemetry

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// Listener serves a process's metrics and health: one address, however many outputs
// ask for it.
//
//	/metrics  Prometheus text
//	/healthz  200 while the process answers; never a matter of delivery, for a restart
//	          mends no AWS outage, and a crash loop loses what a node still holds
//	/readyz   200 once an output is ready to take records, 503 before and at exit
type Listener struct {
	metrics *Metrics
	// Retry is the wait before an address that was in use is tried again; 0 means 10 s.
	Retry time.Duration

	life sync.Mutex // one Join or Leave at a time

	mu      sync.Mutex
	address string
	members []*slog.Logger // of the outputs that joined
	server  *http.Server
	stop    context.CancelFunc
	done    chan struct{}
	bound   net.Addr
}

// NewListener makes a listener, which listens from the first Join.
func NewListener(m *Metrics) *Listener { return &Listener{metrics: m, Retry: 10 * time.Second} }

// Join makes it listen on an address, host:port, where it does not yet. Another
// address than the one already asked for is an error. One that can't be had is no
// error here: it is logged, and tried again, for delivery does not depend on it.
func (l *Listener) Join(address string, log *slog.Logger) error {
	l.life.Lock()
	defer l.life.Unlock()
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.members) > 0 && address != l.address {
		return fmt.Errorf("another [OUTPUT] of this process has metrics_listen %s: there is one listener a process: give the same address, or none", l.address)
	}
	l.members = append(l.members, log)
	if len(l.members) > 1 {
		return nil
	}
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(l.metrics.registry, promhttp.HandlerOpts{MaxRequestsInFlight: 4, Timeout: 30 * time.Second}))
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
	mux.HandleFunc("GET /readyz", l.ready)
	l.address = address
	l.server = &http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 10 * time.Second, WriteTimeout: time.Minute,
		IdleTimeout: 2 * time.Minute, MaxHeaderBytes: 16 << 10, ErrorLog: slog.NewLogLogger(member{l}, slog.LevelWarn)}
	ctx, cancel := context.WithCancel(context.Background())
	l.stop, l.done = cancel, make(chan struct{})
	go l.serve(ctx, l.server, address, slog.New(member{l}), l.done)
	return nil
}

func (l *Listener) ready(w http.ResponseWriter, _ *http.Request) {
	l.metrics.mu.Lock()
	n := len(l.metrics.outputs)
	l.metrics.mu.Unlock()
	if n == 0 {
		http.Error(w, "no output is ready", http.StatusServiceUnavailable)
		return
	}
	fmt.Fprintln(w, "ok")
}

func (l *Listener) serve(ctx context.Context, server *http.Server, address string, log *slog.Logger, done chan<- struct{}) {
	defer close(done)
	for {
		err := l.once(ctx, server, address)
		if ctx.Err() != nil || errors.Is(err, http.ErrServerClosed) {
			return
		}
		log.Error("metrics_listen: there are no metrics and no health until this address can be had; delivery goes on", "address", address, "error", err)
		select {
		case <-ctx.Done():
			return
		case <-time.After(l.Retry):
		}
	}
}

func (l *Listener) once(ctx context.Context, server *http.Server, address string) error {
	ln, err := new(net.ListenConfig).Listen(ctx, "tcp", address)
	if err != nil {
		return err
	}
	l.mu.Lock()
	l.bound = ln.Addr()
	l.mu.Unlock()
	return server.Serve(ln)
}

// Addr is the address in use; nil while there is none.
func (l *Listener) Addr() net.Addr {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.bound
}

// member writes through the log of an output that is still there: those of outputs that
// left lead to memory that Fluent Bit has freed. Leave waits for a line being written.
type member struct{ l *Listener }

func (m member) Enabled(context.Context, slog.Level) bool { return true }

func (m member) Handle(ctx context.Context, r slog.Record) error {
	m.l.mu.Lock()
	defer m.l.mu.Unlock()
	if len(m.l.members) == 0 {
		return nil
	}
	h := m.l.members[0].Handler()
	if !h.Enabled(ctx, r.Level) {
		return nil
	}
	return h.Handle(ctx, r)
}

func (m member) WithAttrs([]slog.Attr) slog.Handler { return m }
func (m member) WithGroup(string) slog.Handler      { return m }

// Leave is Join's opposite, with the same log: the last one ends the listening.
func (l *Listener) Leave(log *slog.Logger) {
	l.life.Lock()
	defer l.life.Unlock()
	l.mu.Lock()
	if i := slices.Index(l.members, log); i >= 0 {
		l.members = slices.Delete(l.members, i, i+1)
	}
	if len(l.members) > 0 {
		l.mu.Unlock()
		return
	}
	server, stop, done := l.server, l.stop, l.done
	l.mu.Unlock()
	stop()
	_ = server.Close()
	<-done
	l.mu.Lock()
	defer l.mu.Unlock()
	l.bound = nil
}
