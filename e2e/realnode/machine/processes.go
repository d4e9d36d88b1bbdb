package main

import (
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"sync"
	"syscall"
	"time"
)

// namespaces are those that a machine has of its own; the one of control groups it makes itself.
const namespaces = syscall.CLONE_NEWPID | syscall.CLONE_NEWNS | syscall.CLONE_NEWNET | syscall.CLONE_NEWUTS | syscall.CLONE_NEWIPC

// process is a child of this machine's process 1.
type process struct {
	pid    int
	done   chan struct{}
	status syscall.WaitStatus // read it after done
}

func (p *process) running() bool {
	select {
	case <-p.done:
		return false
	default:
		return true
	}
}

// children are all that were started here, and process 1 also reaps what lost its parent.
type children struct {
	mu    sync.Mutex
	byPID map[int]*process
}

// start starts a program; its output goes to out.
func (c *children) start(argv, env []string, out *os.File, flags uintptr) (*process, error) {
	if len(argv) == 0 {
		return nil, errors.New("no program is named")
	}
	path, err := lookPath(argv[0])
	if err != nil {
		return nil, err
	}
	null, err := os.Open(os.DevNull)
	if err != nil {
		return nil, err
	}
	defer null.Close()
	// Held over the fork: a child that ends at once is reaped once it is known.
	c.mu.Lock()
	defer c.mu.Unlock()
	// Not os/exec: it would wait for its children itself.
	pid, err := syscall.ForkExec(path, argv, &syscall.ProcAttr{
		Dir: "/", Env: append(os.Environ(), env...), Files: []uintptr{null.Fd(), out.Fd(), out.Fd()},
		Sys: &syscall.SysProcAttr{Setpgid: true, Cloneflags: flags},
	})
	if err != nil {
		return nil, fmt.Errorf("failed to start %s: %w", path, err)
	}
	p := &process{pid: pid, done: make(chan struct{})}
	c.byPID[pid] = p
	return p, nil
}

func lookPath(name string) (string, error) {
	if filepath.Base(name) != name {
		return name, nil
	}
	for _, dir := range filepath.SplitList(os.Getenv("PATH")) {
		path := filepath.Join(dir, name)
		if info, err := os.Stat(path); err == nil && !info.IsDir() && info.Mode()&0o111 != 0 {
			return path, nil
		}
	}
	return "", fmt.Errorf("no %s on PATH", name)
}

// reap waits for whatever ends. It does not return.
func (c *children) reap() {
	ended := make(chan os.Signal, 1)
	signal.Notify(ended, syscall.SIGCHLD)
	for {
		var status syscall.WaitStatus
		pid, err := syscall.Wait4(-1, &status, syscall.WNOHANG, nil)
		if err == nil && pid > 0 {
			c.mu.Lock()
			if p := c.byPID[pid]; p != nil {
				delete(c.byPID, pid)
				p.status = status
				close(p.done)
			}
			c.mu.Unlock()
			continue
		}
		select {
		case <-ended:
		case <-time.After(time.Second):
		}
	}
}
