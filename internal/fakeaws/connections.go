package fakeaws

import (
	"context"
	"net"
	"net/http"
	"sync"
)

// connections are those of Start and StartTLS that are open.
type connections struct {
	mu  sync.Mutex
	all map[net.Conn]*connection
}

// connection is one of them, guarded by connections.mu.
type connection struct {
	calls int  // that arrived on it
	idle  bool // it carried a call and carries none now
	ended bool // it was closed while it was idle
}

// connectionKey is the key of a request's connection in its context.
type connectionKey struct{}

// opened implements http.Server's ConnContext.
func (cs *connections) opened(ctx context.Context, c net.Conn) context.Context {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	if cs.all == nil {
		cs.all = map[net.Conn]*connection{}
	}
	cs.all[c] = new(connection)
	return context.WithValue(ctx, connectionKey{}, cs.all[c])
}

// changed implements http.Server's ConnState.
func (cs *connections) changed(c net.Conn, state http.ConnState) {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	switch state {
	case http.StateIdle:
		if it := cs.all[c]; it != nil {
			it.idle = true
		}
	case http.StateClosed, http.StateHijacked:
		delete(cs.all, c)
	}
}

// begin notes that a call arrives, and reports whether it may be carried out: not on a connection that was closed while
// idle, and not where it is one more than most, if that is not 0.
func (cs *connections) begin(r *http.Request, most int) bool {
	it, ok := r.Context().Value(connectionKey{}).(*connection)
	if !ok { // another's server
		return true
	}
	cs.mu.Lock()
	defer cs.mu.Unlock()
	it.idle = false
	it.calls++
	return !it.ended && (most == 0 || it.calls <= most || r.ProtoMajor > 1)
}

// CloseIdle closes the connections that carried a call and carry none at the moment, and returns how many there were. A
// call that is on its way on one of them is not carried out.
func (s *Server) CloseIdle() (n int) {
	s.conns.mu.Lock()
	var idle []net.Conn
	for c, it := range s.conns.all {
		if it.idle {
			it.idle, it.ended = false, true
			idle = append(idle, c)
		}
	}
	s.conns.mu.Unlock()
	for _, c := range idle {
		_ = c.Close()
	}
	return len(idle)
}

// countingListener counts connections and the bytes that arrive on them, TLS included.
type countingListener struct {
	net.Listener
	stats *stats
}

func (l *countingListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	l.stats.connections.Add(1)
	return &countingConn{c, l.stats}, nil
}

type countingConn struct {
	net.Conn
	stats *stats
}

func (c *countingConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	c.stats.received.Add(int64(n))
	return n, err
}
