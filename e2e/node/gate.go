package node

import (
	"errors"
	"io"
	"net"
	"strings"
	"sync"

	"github.com/eks-tenant-logs/eks-tenant-logs/internal/fakeaws"
)

// Way is what a Gate does with connections.
type Way string

// The ways of a Gate.
const (
	Open    Way = "open"    // through to the stand-in
	Refused Way = "refused" // nobody listens
	Silent  Way = "silent"  // accepted, and never answered
	Reset   Way = "reset"   // accepted, and closed
	Wrong   Way = "wrong"   // answered with a certificate of another authority
)

// Gate stands before a stand-in, at an address of its own, as the network does: it can go
// away, fall silent or be somebody else. Changing its way breaks what is connected.
type Gate struct {
	to      string
	address string
	other   *fakeaws.Server
	wrong   string

	mu       sync.Mutex
	way      Way
	listener net.Listener
	conns    map[net.Conn]struct{}
	done     sync.WaitGroup
}

// NewGate makes an open gate before an endpoint, and the endpoint's URL through it.
func NewGate(endpoint string) (g *Gate, through string, err error) {
	g = &Gate{to: strings.TrimPrefix(endpoint, "https://"), conns: map[net.Conn]struct{}{}, other: fakeaws.New(fakeaws.Config{})}
	url, err := g.other.StartTLS("")
	if err != nil {
		return nil, "", err
	}
	g.wrong = strings.TrimPrefix(url, "https://")
	if err := g.Set(Open); err != nil {
		return nil, "", err
	}
	host, _, _ := strings.Cut(g.to, ":")
	_, port, err := net.SplitHostPort(g.address)
	return g, "https://" + net.JoinHostPort(host, port), err
}

// Set changes the gate's way.
func (g *Gate) Set(way Way) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.way = way
	for c := range g.conns {
		c.Close()
	}
	clear(g.conns)
	if way == Refused {
		if g.listener != nil {
			g.listener.Close()
			g.listener = nil
		}
		return nil
	}
	if g.listener != nil {
		return nil
	}
	address := g.address
	if address == "" {
		address = "127.0.0.1:0"
	}
	l, err := net.Listen("tcp", address)
	if err != nil {
		return err
	}
	g.listener, g.address = l, l.Addr().String()
	g.done.Go(func() { g.accept(l) })
	return nil
}

// Close ends the gate and what is connected through it.
func (g *Gate) Close() error {
	err := g.Set(Refused)
	g.done.Wait()
	return errors.Join(err, g.other.Close())
}

func (g *Gate) accept(l net.Listener) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		g.mu.Lock()
		way := g.way
		if way == Reset || g.listener != l {
			c.Close()
			g.mu.Unlock()
			continue
		}
		g.conns[c] = struct{}{}
		g.mu.Unlock()
		switch way {
		case Silent:
		case Wrong:
			g.done.Go(func() { g.join(c, g.wrong) })
		default:
			g.done.Go(func() { g.join(c, g.to) })
		}
	}
}

// join carries bytes until one side ends, and forgets the connection.
func (g *Gate) join(c net.Conn, to string) {
	carry(c, to)
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(g.conns, c)
}

// carry connects c with an address and carries bytes both ways until one side ends. It closes c.
func carry(c net.Conn, to string) {
	defer c.Close()
	up, err := net.Dial("tcp", to)
	if err != nil {
		return
	}
	defer up.Close()
	back := make(chan struct{})
	go func() {
		defer close(back)
		_, _ = io.Copy(c, up)
		c.Close()
	}()
	_, _ = io.Copy(up, c)
	up.Close()
	<-back
}
