package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"
)

// machine does what it is asked.
type machine struct {
	cfg      Config
	children children

	mu        sync.Mutex
	processes map[string]*process
	inside    map[string]Config // the machines in this one
}

func newMachine(cfg Config) *machine {
	return &machine{cfg: cfg, children: children{byPID: map[int]*process{}}, processes: map[string]*process{}, inside: map[string]Config{}}
}

func (m *machine) serve() error {
	go m.children.reap()
	if err := os.Remove(m.cfg.Socket); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	l, err := net.Listen("unix", m.cfg.Socket)
	if err != nil {
		return err
	}
	mux := http.NewServeMux()
	handle(mux, "/start", m.start)
	handle(mux, "/wait", m.wait)
	handle(mux, "/signal", m.signal)
	handle(mux, "/exec", m.exec)
	handle(mux, "/machine", m.machine)
	handle(mux, "/relay", func(r relay) (struct{}, error) { return struct{}{}, r.start() })
	handle(mux, "/dns", func(d dns) (struct{}, error) { return struct{}{}, d.start() })
	failed := make(chan error, 1)
	go func() { failed <- http.Serve(l, mux) }()
	if m.cfg.EndWithInput {
		go func() {
			_, err := io.Copy(io.Discard, os.Stdin)
			failed <- err
		}()
	}
	err = <-failed
	return errors.Join(err, m.end())
}

// end ends everything in this machine, and leaves nothing of it.
func (m *machine) end() error {
	_ = syscall.Kill(-1, syscall.SIGKILL) // all but process 1
	var errs []error
	m.mu.Lock()
	for _, cfg := range m.inside {
		errs = append(errs, removeCgroup(cfg.Cgroup))
	}
	m.mu.Unlock()
	if _, err := os.Stat(m.cfg.Keep); m.cfg.EndWithInput && (m.cfg.Keep == "" || err != nil) {
		errs = append(errs, os.RemoveAll(m.cfg.Dir))
	}
	return errors.Join(errs...)
}

// handle answers POST requests: JSON in, JSON out, an error as text.
func handle[In, Out any](mux *http.ServeMux, path string, do func(In) (Out, error)) {
	mux.HandleFunc("POST "+path, func(w http.ResponseWriter, r *http.Request) {
		var in In
		if err := json.NewDecoder(r.Body).Decode(&in); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		out, err := do(in)
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		_ = json.NewEncoder(w).Encode(out)
	})
}

// startRequest starts a process that lives on.
type startRequest struct {
	Name, Log string
	Argv, Env []string
}

type started struct{ PID int }

func (m *machine) start(r startRequest) (started, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	p, err := m.startLocked(r, 0)
	if err != nil {
		return started{}, err
	}
	return started{p.pid}, nil
}

func (m *machine) startLocked(r startRequest, flags uintptr) (*process, error) {
	if p := m.processes[r.Name]; p != nil && p.running() {
		return nil, fmt.Errorf("%s is running", r.Name)
	}
	log, err := os.OpenFile(r.Log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, err
	}
	defer log.Close()
	p, err := m.children.start(r.Argv, r.Env, log, flags)
	if err != nil {
		return nil, err
	}
	m.processes[r.Name] = p
	return p, nil
}

// waitRequest asks whether a process ended within a time.
type waitRequest struct {
	Name string
	Most time.Duration
}

type waited struct {
	Running bool
	Status  string
}

func (m *machine) wait(r waitRequest) (waited, error) {
	m.mu.Lock()
	p := m.processes[r.Name]
	m.mu.Unlock()
	if p == nil {
		return waited{}, fmt.Errorf("no process %s was started", r.Name)
	}
	select {
	case <-p.done:
		return waited{Status: describe(p.status)}, nil
	case <-time.After(r.Most):
		return waited{Running: true}, nil
	}
}

func describe(s syscall.WaitStatus) string {
	if s.Signaled() {
		return "signal: " + s.Signal().String()
	}
	return fmt.Sprint("exit status ", s.ExitStatus())
}

// signalRequest sends a signal to a process that was started here.
type signalRequest struct {
	Name   string
	Signal syscall.Signal
}

func (m *machine) signal(r signalRequest) (struct{}, error) {
	m.mu.Lock()
	p := m.processes[r.Name]
	m.mu.Unlock()
	if p == nil || !p.running() {
		return struct{}{}, fmt.Errorf("%s is not running", r.Name)
	}
	return struct{}{}, syscall.Kill(p.pid, r.Signal)
}

// execRequest runs a command to its end.
type execRequest struct {
	Argv, Env []string
	Most      time.Duration
}

type executed struct {
	OK             bool
	Status, Output string
}

func (m *machine) exec(r execRequest) (executed, error) {
	out, err := os.CreateTemp(filepath.Dir(m.cfg.Socket), "exec-")
	if err != nil {
		return executed{}, err
	}
	defer os.RemoveAll(out.Name())
	defer out.Close()
	p, err := m.children.start(r.Argv, r.Env, out, 0)
	if err != nil {
		return executed{}, err
	}
	select {
	case <-p.done:
	case <-time.After(r.Most):
		_ = syscall.Kill(-p.pid, syscall.SIGKILL)
		<-p.done
	}
	text, err := os.ReadFile(out.Name())
	return executed{p.status.Exited() && p.status.ExitStatus() == 0, describe(p.status), string(text)}, err
}

// machineRequest starts a machine inside this one, or ends it.
type machineRequest struct {
	Config Config
	Log    string
	// Begun are commands that are run here once it is there; {pid} in them is its process 1.
	Begun [][]string
	// Kill is true to end it.
	Kill bool
}

func (m *machine) machine(r machineRequest) (started, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	name := "machine " + r.Config.Name
	if r.Kill {
		p := m.processes[name]
		if p == nil || !p.running() {
			return started{}, fmt.Errorf("%s is not running", name)
		}
		// Its end is reported when everything in it has ended.
		if err := syscall.Kill(p.pid, syscall.SIGKILL); err != nil {
			return started{}, err
		}
		<-p.done
		return started{p.pid}, removeCgroup(r.Config.Cgroup)
	}
	config, err := json.Marshal(r.Config)
	if err != nil {
		return started{}, err
	}
	p, err := m.startLocked(startRequest{Name: name, Log: r.Log, Argv: []string{"/proc/self/exe", string(config)}}, namespaces)
	if err != nil {
		return started{}, err
	}
	m.inside[r.Config.Name] = r.Config
	for _, args := range r.Begun {
		for i := range args {
			args[i] = strings.ReplaceAll(args[i], "{pid}", fmt.Sprint(p.pid))
		}
		m.mu.Unlock()
		done, err := m.exec(execRequest{Argv: args, Most: 10 * time.Second})
		m.mu.Lock()
		if err == nil && !done.OK {
			err = fmt.Errorf("%s: %s: %s", strings.Join(args, " "), done.Status, done.Output)
		}
		if err != nil {
			return started{}, err
		}
	}
	return started{p.pid}, nil
}

// relay passes connections on. Addresses are network:address, such as tcp:10.0.0.1:443 or unix:/run/x.sock; without To, a
// connection's first line says where it goes.
type relay struct{ Listen, To string }

func (r relay) start() error {
	network, address, _ := strings.Cut(r.Listen, ":")
	l, err := net.Listen(network, address)
	if err != nil {
		return err
	}
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go r.pass(c)
		}
	}()
	return nil
}

func (r relay) pass(c net.Conn) {
	defer c.Close()
	to, from := r.To, io.Reader(c)
	if to == "" {
		buffered := bufio.NewReader(c)
		line, err := buffered.ReadString('\n')
		if err != nil {
			return
		}
		to, from = strings.TrimSpace(line), buffered
	}
	network, address, _ := strings.Cut(to, ":")
	other, err := net.DialTimeout(network, address, 10*time.Second)
	if err != nil {
		return
	}
	defer other.Close()
	var both sync.WaitGroup
	both.Go(func() {
		_, _ = io.Copy(other, from)
		closeWrite(other)
	})
	_, _ = io.Copy(c, other)
	closeWrite(c)
	both.Wait()
}

func closeWrite(c net.Conn) {
	if half, ok := c.(interface{ CloseWrite() error }); ok {
		_ = half.CloseWrite()
	}
}
