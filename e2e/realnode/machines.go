package realnode

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/eks-tenant-logs/eks-tenant-logs/e2e/environment"
)

// machineConfig is Config of package machine.
type machineConfig struct {
	Name, Dir, Socket, Cgroup, Keep string
	Tmpfs                           []string
	Binds                           [][2]string
	Commands                        [][]string
	EndWithInput                    bool
}

// machine is the way to a machine's process 1.
type machine struct {
	config machineConfig
	log    string
	client *http.Client

	// The control plane's, which is this process's child.
	cmd   *exec.Cmd
	input io.Closer
	ended chan error
}

func newMachine(config machineConfig, log string) *machine {
	return &machine{config: config, log: log, client: &http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", config.Socket)
		},
	}}}
}

// build compiles the repository's package to a static program; it is quick where it was compiled before.
func build(ctx context.Context, root, pkg, out string) error {
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-buildvcs=false", "-ldflags", "-s -w", "-o", out, pkg)
	cmd.Dir = root
	cmd.Env = append(environment.Build(), "CGO_ENABLED=0")
	if said, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("failed to build %s: %w\n%s", pkg, err, said)
	}
	return nil
}

// startMachine starts the one machine that is this process's own child. It ends when this process does.
func (c *Cluster) startMachine(ctx context.Context, config machineConfig) (*machine, error) {
	program := c.path("machine")
	if err := build(ctx, c.options.Root, "./e2e/realnode/machine", program); err != nil {
		return nil, err
	}
	argument, err := json.Marshal(config)
	if err != nil {
		return nil, err
	}
	m := newMachine(config, c.path("log", config.Name))
	log, err := os.Create(m.log)
	if err != nil {
		return nil, err
	}
	defer log.Close()
	m.cmd = exec.Command(program, string(argument))
	m.cmd.Env = []string{"PATH=" + c.parts.dir + ":/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C.UTF-8"}
	m.cmd.Stdout, m.cmd.Stderr = log, log
	m.cmd.ExtraFiles = []*os.File{c.lock} // held as long as the machine runs
	// No signal of a terminal's: what ends it is the end of its input.
	m.cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: namespaces, Setpgid: true}
	if m.input, err = m.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	m.ended = make(chan error, 1)
	if err := m.cmd.Start(); err != nil {
		return nil, fmt.Errorf("failed to start a process in namespaces of its own: %w", err)
	}
	go func() { m.ended <- m.cmd.Wait() }()
	if err := m.answers(ctx, m.ended); err != nil {
		return m, errors.Join(err, m.end())
	}
	return m, nil
}

const namespaces = syscall.CLONE_NEWPID | syscall.CLONE_NEWNS | syscall.CLONE_NEWNET | syscall.CLONE_NEWUTS | syscall.CLONE_NEWIPC

// answers waits until the machine does.
func (m *machine) answers(ctx context.Context, ended <-chan error) error {
	for {
		conn, err := net.Dial("unix", m.config.Socket)
		if err == nil {
			conn.Close()
			return nil
		}
		select {
		case why := <-ended:
			said, _ := os.ReadFile(m.log)
			return fmt.Errorf("%s ended at its start: %w: %s", m.config.Name, why, bytes.TrimSpace(said))
		case <-ctx.Done():
			said, _ := os.ReadFile(m.log)
			return fmt.Errorf("%s does not answer: %w: %s", m.config.Name, err, bytes.TrimSpace(said))
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// end ends the machine that this process started, and waits.
func (m *machine) end() error {
	if err := m.input.Close(); err != nil {
		return err
	}
	select {
	case err := <-m.ended:
		m.ended <- err
		if err != nil {
			said, _ := os.ReadFile(m.log)
			return fmt.Errorf("%s: %w: %s", m.config.Name, err, said)
		}
		return nil
	case <-time.After(30 * time.Second):
		return errors.Join(fmt.Errorf("%s did not end within 30 s and was killed", m.config.Name), m.cmd.Process.Kill())
	}
}

// call asks the machine.
func (m *machine) call(ctx context.Context, path string, in, out any) error {
	body, err := json.Marshal(in)
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://machine"+path, bytes.NewReader(body))
	if err != nil {
		return err
	}
	resp, err := m.client.Do(req)
	if err != nil {
		return fmt.Errorf("%s: %w", m.config.Name, err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %s", m.config.Name, bytes.TrimSpace(text))
	}
	if out == nil {
		return nil
	}
	return json.Unmarshal(text, out)
}

// start starts a process that lives on; its output is appended to the log.
func (m *machine) start(ctx context.Context, name, log string, argv ...string) error {
	return m.call(ctx, "/start", map[string]any{"Name": name, "Log": log, "Argv": argv}, nil)
}

// exec runs a command to its end and returns what it wrote.
func (m *machine) exec(ctx context.Context, argv ...string) (string, error) {
	var out struct {
		OK             bool
		Status, Output string
	}
	most := 10 * time.Minute
	if deadline, set := ctx.Deadline(); set {
		most = time.Until(deadline)
	}
	if err := m.call(ctx, "/exec", map[string]any{"Argv": argv, "Most": most}, &out); err != nil {
		return "", err
	}
	if !out.OK {
		return out.Output, fmt.Errorf("%s: %s: %s", strings.Join(argv, " "), out.Status, strings.TrimSpace(out.Output))
	}
	return out.Output, nil
}

// try is exec without the output.
func (m *machine) try(ctx context.Context, argv ...string) error {
	_, err := m.exec(ctx, argv...)
	return err
}

// signal sends one to a process that start started.
func (m *machine) signal(ctx context.Context, name string, s syscall.Signal) error {
	return m.call(ctx, "/signal", map[string]any{"Name": name, "Signal": s}, nil)
}

// ends waits for the end of a process, and returns how it ended.
func (m *machine) ends(ctx context.Context, name string, within time.Duration) (string, error) {
	var out struct {
		Running bool
		Status  string
	}
	if err := m.call(ctx, "/wait", map[string]any{"Name": name, "Most": within}, &out); err != nil {
		return "", err
	}
	if out.Running {
		return "", fmt.Errorf("%s runs after %s", name, within)
	}
	return out.Status, nil
}

// running says whether it is, and how it ended if not.
func (m *machine) running(ctx context.Context, name string) (bool, string) {
	status, err := m.ends(ctx, name, 0)
	return err != nil, status
}

// join passes what either side writes to the other.
func join(a, b net.Conn) {
	var both sync.WaitGroup
	for _, way := range [][2]net.Conn{{a, b}, {b, a}} {
		both.Go(func() {
			_, _ = io.Copy(way[0], way[1])
			if half, ok := way[0].(interface{ CloseWrite() error }); ok {
				_ = half.CloseWrite()
			}
		})
	}
	both.Wait()
}

// programArch is the architecture that images and plugin are for.
const programArch = runtime.GOARCH

func buildFolder(root string) string { return filepath.Join(root, "build", programArch) }
