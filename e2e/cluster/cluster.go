// Package cluster is a real Kubernetes API server with its etcd on loopback, for tests:
// RBAC decides, PodSecurity and ValidatingAdmissionPolicy are on, and users are told by
// their certificates. There are no controllers and no nodes: a deleted namespace goes
// away when the test finalizes it (DeleteNamespace). `make kube` builds the binaries.
package cluster

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"

	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/client-go/tools/clientcmd/api"
)

// Cluster is one API server and its etcd.
type Cluster struct {
	// Host is the API server's address, https://127.0.0.1:<port>.
	Host string
	// Dir holds certificates, logs and etcd's data. It is the caller's to remove.
	Dir string

	ca        *Authority
	processes []*process
}

// process is a child that was started here, and is stopped by its own handle.
type process struct {
	name string
	cmd  *exec.Cmd
	done chan struct{} // closed once it has ended
	err  error         // why; read it after done
}

// Binaries are the two programs.
type Binaries struct{ Etcd, APIServer string }

// Find looks for the binaries where `make kube` puts them, or in the folder that
// $KUBE_BINARIES names. The error says what is missing and how to build it.
func Find() (Binaries, error) {
	dir := os.Getenv("KUBE_BINARIES")
	if dir == "" {
		_, file, _, _ := runtime.Caller(0)
		dir = filepath.Join(filepath.Dir(file), "..", "..", "build", "kube")
	}
	b := Binaries{Etcd: filepath.Join(dir, "etcd"), APIServer: filepath.Join(dir, "kube-apiserver")}
	var missing []string
	for _, path := range []string{b.Etcd, b.APIServer} {
		if info, err := os.Stat(path); err != nil || info.Mode()&0o111 == 0 {
			missing = append(missing, filepath.Base(path))
		}
	}
	if len(missing) > 0 {
		return b, fmt.Errorf("no %s in %s: `make kube` builds them, which takes some minutes once", strings.Join(missing, " and no "), dir)
	}
	return b, nil
}

// Start starts etcd and the API server with all they need in dir, and returns once the
// API server says that it is ready. Stop stops both.
func Start(ctx context.Context, b Binaries, dir string) (c *Cluster, err error) {
	ca, err := NewAuthority()
	if err != nil {
		return nil, err
	}
	c = &Cluster{Dir: dir, ca: ca}
	defer func() {
		if err != nil {
			err = errors.Join(err, c.Stop())
		}
	}()
	ports, err := freePorts(3)
	if err != nil {
		return nil, err
	}
	etcd, peer, secure := ports[0], ports[1], ports[2]
	etcdURL, peerURL := "http://127.0.0.1:"+etcd, "http://127.0.0.1:"+peer
	c.Host = "https://127.0.0.1:" + secure
	if err := c.writeFiles(); err != nil {
		return nil, err
	}
	if err := c.run(b.Etcd,
		"--name=etcd", "--data-dir="+filepath.Join(dir, "etcd"), "--unsafe-no-fsync", "--log-level=warn",
		"--listen-client-urls="+etcdURL, "--advertise-client-urls="+etcdURL,
		"--listen-peer-urls="+peerURL, "--initial-advertise-peer-urls="+peerURL, "--initial-cluster=etcd="+peerURL,
	); err != nil {
		return nil, err
	}
	if err := c.run(b.APIServer,
		"--etcd-servers="+etcdURL, "--bind-address=127.0.0.1", "--advertise-address=127.0.0.1", "--secure-port="+secure,
		"--tls-cert-file="+c.path("server.crt"), "--tls-private-key-file="+c.path("server.key"), "--client-ca-file="+c.path("ca.crt"),
		"--service-account-issuer=https://kubernetes.default.svc", "--service-account-key-file="+c.path("tokens.pub"), "--service-account-signing-key-file="+c.path("tokens.key"),
		"--authorization-mode=RBAC", "--enable-admission-plugins=PodSecurity,ValidatingAdmissionPolicy",
		// The endpoint reconciler would publish 127.0.0.1, which the API refuses.
		"--endpoint-reconciler-type=none", "--service-cluster-ip-range=10.0.0.0/24",
		// Whatever a test sends in a second is to be refused for what it is.
		"--enable-priority-and-fairness=false",
	); err != nil {
		return nil, err
	}
	return c, c.waitReady(ctx)
}

func (c *Cluster) path(name string) string { return filepath.Join(c.Dir, name) }

// run starts a program that lives until Stop. Should this process be killed, the
// kernel ends it.
func (c *Cluster) run(binary string, args ...string) error {
	name := filepath.Base(binary)
	log, err := os.Create(c.path(name + ".log"))
	if err != nil {
		return err
	}
	defer log.Close() // the child has its own
	cmd := exec.Command(binary, args...)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	p := &process{name: name, cmd: cmd, done: make(chan struct{})}
	started := make(chan error)
	go func() {
		// Pdeathsig is sent when the thread that started the child ends.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		started <- err
		if err == nil {
			p.err = cmd.Wait()
		}
		close(p.done)
	}()
	if err := <-started; err != nil {
		return fmt.Errorf("failed to start %s: %w", name, err)
	}
	c.processes = append(c.processes, p)
	return nil
}

// waitReady polls /readyz until it says ok, ctx ends, or a process does.
func (c *Cluster) waitReady(ctx context.Context) error {
	client, err := rest.HTTPClientFor(c.Config(Admin, "system:masters"))
	if err != nil {
		return err
	}
	defer client.CloseIdleConnections()
	var last error
	for {
		for _, p := range c.processes {
			select {
			case <-p.done:
				return fmt.Errorf("%s ended at its start: %w; its last words: %s", p.name, p.err, c.tail(p.name))
			default:
			}
		}
		if last = Ready(ctx, client, c.Host+"/readyz"); last == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("the API server is not ready: %w; its last words: %s", last, c.tail("kube-apiserver"))
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// Ready asks an API server's readyz once, and is nil where it is ready.
func Ready(ctx context.Context, client *http.Client, url string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("readyz answers %s", resp.Status)
	}
	return nil
}

func (c *Cluster) tail(name string) string {
	data, err := os.ReadFile(c.path(name + ".log"))
	if err != nil {
		return err.Error()
	}
	return string(data[max(0, len(data)-2000):])
}

// Stop stops both, the API server first, and waits for their end.
func (c *Cluster) Stop() error {
	var errs []error
	for len(c.processes) > 0 {
		p := c.processes[len(c.processes)-1]
		c.processes = c.processes[:len(c.processes)-1]
		_ = p.cmd.Process.Signal(syscall.SIGTERM)
		select {
		case <-p.done:
		case <-time.After(10 * time.Second):
			errs = append(errs, fmt.Errorf("%s did not end within 10 s and was killed", p.name))
			_ = p.cmd.Process.Kill()
			<-p.done
		}
	}
	return errors.Join(errs...)
}

// Admin may do everything, as a member of system:masters.
const Admin = "admin"

// Config is a client's configuration for a user of these groups, by a certificate of
// its own. Requests are not limited.
func (c *Cluster) Config(user string, groups ...string) *rest.Config {
	cert, key, err := c.ca.Client(user, groups)
	if err != nil {
		panic(err) // only a broken source of randomness does this
	}
	return &rest.Config{
		Host: c.Host, QPS: -1,
		TLSClientConfig: rest.TLSClientConfig{CAData: c.ca.PEM, CertData: cert, KeyData: key},
	}
}

// Kubeconfig writes a kubeconfig for a user of these groups, and returns its path.
func (c *Cluster) Kubeconfig(user string, groups ...string) (string, error) {
	path := c.path("kubeconfig-" + strings.Map(func(r rune) rune {
		if r == '/' || r == ':' {
			return '_'
		}
		return r
	}, user))
	return path, WriteKubeconfig(path, c.Config(user, groups...))
}

// WriteKubeconfig writes a kubeconfig that says what cfg does.
func WriteKubeconfig(path string, cfg *rest.Config) error {
	k := api.NewConfig()
	k.Clusters["test"] = &api.Cluster{Server: cfg.Host, CertificateAuthorityData: cfg.CAData}
	k.AuthInfos["user"] = &api.AuthInfo{ClientCertificateData: cfg.CertData, ClientKeyData: cfg.KeyData}
	k.Contexts["test"] = &api.Context{Cluster: "test", AuthInfo: "user"}
	k.CurrentContext = "test"
	return clientcmd.WriteToFile(*k, path)
}

// freePorts are ports that were free a moment ago.
func freePorts(n int) ([]string, error) {
	var ports []string
	for range n {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, err
		}
		defer l.Close() // all at the end, so that they differ
		ports = append(ports, strconv.Itoa(l.Addr().(*net.TCPAddr).Port))
	}
	return ports, nil
}
