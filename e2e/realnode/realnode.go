// Package realnode is a Kubernetes cluster with real nodes, for tests and for people: etcd, API server, controller manager and
// scheduler, and on each node kubelet, kube-proxy, containerd and runc, with a stand-in for AWS that answers under AWS's own names.
//
// The control plane and each node are machines: processes with namespaces of their own (package machine), so that addresses, firewall
// rules, mounts, sysctls and folders such as /var/log/pods are theirs alone, and a node can lose its power while its disk stays.
// All of it is below one folder, and all of it ends with the process that called Start, however that ends.
//
// It stands beside e2e/cluster, which is an API server on loopback that any user can run: this one needs root, control groups and
// programs of the distribution. It installs the chart as docs/install.md says; e2e/nodetest has the tests, e2e/democluster shows it to people.
package realnode

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/eks-tenant-logs/eks-tenant-logs/e2e/cluster"
	"github.com/eks-tenant-logs/eks-tenant-logs/internal/fakeaws"
)

// The network. It exists in the machines' namespaces alone.
const (
	planeAddress = "10.90.0.1" // API server, DNS, AWS
	serviceRange = "10.96.0.0/16"
	kubernetesIP = "10.96.0.1" // the first of serviceRange
	podRange     = "10.244.0.0/16"
	apiPort      = "6443"
)

// Region is the one of AWS that the stand-in serves.
const Region = "us-east-1"

// Options say how the cluster is to be. The zero value is one node that rotates logs as EKS's nodes do.
type Options struct {
	// Root is the repository's folder; empty: found from this file.
	Root string
	// Nodes is how many; 0 means 1.
	Nodes int
	// LogMaxSize, LogMaxFiles and LogMonitorInterval are the kubelet's containerLogMaxSize, containerLogMaxFiles and
	// containerLogMonitorInterval, of which the kubelet takes no shorter one than 3 s. Empty: 10Mi, 5 and 10 s.
	LogMaxSize         string
	LogMaxFiles        int
	LogMonitorInterval time.Duration
	// AWS is the stand-in's configuration. Region and Hosts are set here.
	AWS fakeaws.Config
	// Log gets the steps that take time.
	Log func(format string, args ...any)
}

func (o Options) withDefaults() (Options, error) {
	if o.Root == "" {
		root, err := repository()
		if err != nil {
			return o, err
		}
		o.Root = root
	}
	if o.Nodes == 0 {
		o.Nodes = 1
	}
	if o.LogMaxSize == "" {
		o.LogMaxSize = "10Mi"
	}
	if o.LogMaxFiles == 0 {
		o.LogMaxFiles = 5
	}
	if o.LogMonitorInterval == 0 {
		o.LogMonitorInterval = 10 * time.Second
	}
	if o.Log == nil {
		o.Log = func(string, ...any) {}
	}
	return o, nil
}

// Cluster is a running cluster.
type Cluster struct {
	// Dir is its folder.
	Dir string
	// Kubeconfig is the path of an administrator's, and Config the same for client-go. They work outside of the namespaces, too.
	Kubeconfig string
	Config     *rest.Config
	// Admin is an administrator's client.
	Admin kubernetes.Interface
	// Nodes are the nodes, node-1 first.
	Nodes []*Node
	// AWS is the stand-in.
	AWS *AWS
	// Images are those that were built and imported.
	Images Images
	// Lines counts what has arrived of the writers' lines.
	Lines *Tally

	options Options
	parts   parts
	ca      *cluster.Authority
	plane   *machine
	lock    *os.File
	relays  []net.Listener
	eks     *EKS
	stop    sync.Once
	stopErr error
}

// Start builds the images and starts everything; it returns when each node is Ready. Check says beforehand whether this machine can.
func Start(ctx context.Context, o Options) (c *Cluster, err error) {
	if o, err = o.withDefaults(); err != nil {
		return nil, err
	}
	parts, err := findParts(o.Root)
	if err != nil {
		return nil, err
	}
	if err := Sweep(); err != nil {
		return nil, fmt.Errorf("failed to clean up what an earlier run left: %w", err)
	}
	c = &Cluster{options: o, parts: parts, Lines: newTally()}
	defer func() {
		if err != nil {
			err = errors.Join(err, c.Stop())
		}
	}()
	if c.Dir, c.lock, err = newFolder(); err != nil {
		return c, err
	}
	if c.ca, err = cluster.NewAuthority(); err != nil {
		return c, err
	}
	if err = c.step("the stand-in for AWS", func() error { return c.startAWS() }); err != nil {
		return c, err
	}
	if err = c.step("the images", func() error { return c.buildImages(ctx) }); err != nil {
		return c, err
	}
	if err = c.step("the control plane", func() error { return c.startPlane(ctx) }); err != nil {
		return c, err
	}
	err = c.step("the nodes, until they are Ready", func() error {
		for i := range o.Nodes {
			c.Nodes = append(c.Nodes, c.newNode(i+1))
		}
		failed := make(chan error, len(c.Nodes))
		for _, n := range c.Nodes {
			go func() { failed <- n.Boot(ctx) }()
		}
		var errs []error
		for range c.Nodes {
			errs = append(errs, <-failed)
		}
		return errors.Join(errs...)
	})
	return c, err
}

// step says how long something took.
func (c *Cluster) step(what string, do func() error) error {
	began := time.Now()
	if err := do(); err != nil {
		return fmt.Errorf("failed to start %s: %w", what, err)
	}
	c.options.Log("%s: %.1f s", what, time.Since(began).Seconds())
	return nil
}

// Stop ends everything and removes the folder. It can be called again.
func (c *Cluster) Stop() error {
	c.stop.Do(func() {
		var errs []error
		for _, l := range c.relays {
			errs = append(errs, l.Close())
		}
		if c.plane != nil {
			errs = append(errs, c.plane.end())
		}
		if c.AWS != nil {
			errs = append(errs, c.AWS.close())
		}
		if c.lock != nil {
			errs = append(errs, c.lock.Close())
		}
		if c.Dir != "" {
			errs = append(errs, os.RemoveAll(c.Dir))
		}
		c.stopErr = errors.Join(errs...)
	})
	return c.stopErr
}

// Dial connects to an address as the control plane's machine reaches it, such as a pod's.
func (c *Cluster) Dial(ctx context.Context, network, address string) (net.Conn, error) {
	conn, err := new(net.Dialer).DialContext(ctx, "unix", c.path("dial.sock"))
	if err != nil {
		return nil, err
	}
	if _, err := fmt.Fprintf(conn, "%s:%s\n", network, address); err != nil {
		conn.Close()
		return nil, err
	}
	return conn, nil
}

func (c *Cluster) path(elements ...string) string {
	return filepath.Join(append([]string{c.Dir}, elements...)...)
}

// write writes a file of the cluster's folder, and returns its path.
func (c *Cluster) write(name string, data []byte) (string, error) {
	path := c.path(name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return "", err
	}
	return path, os.WriteFile(path, data, 0o600)
}

// LogTail is the end of a process's log, such as "kubelet-node-1".
func (c *Cluster) LogTail(name string) string {
	data, err := os.ReadFile(c.path("log", name))
	if err != nil {
		return err.Error()
	}
	return string(data[max(0, len(data)-6000):])
}

// Logs are the names that LogTail knows.
func (c *Cluster) Logs() []string {
	all, _ := filepath.Glob(c.path("log", "*"))
	for i := range all {
		all[i] = filepath.Base(all[i])
	}
	return all
}

// forward passes connections to a listener of this process on, through to's.
func (c *Cluster) forward(l net.Listener, to func(context.Context) (net.Conn, error)) {
	c.relays = append(c.relays, l)
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
				other, err := to(ctx)
				cancel()
				if err != nil {
					return
				}
				defer other.Close()
				join(conn, other)
			}()
		}
	}()
}

// user writes a kubeconfig of the user for processes of the machines.
func (c *Cluster) user(file, user string, groups ...string) (string, error) {
	cert, key, err := c.ca.Client(user, groups)
	if err != nil {
		return "", err
	}
	path := c.path(file)
	return path, cluster.WriteKubeconfig(path, &rest.Config{
		Host: "https://" + net.JoinHostPort(planeAddress, apiPort), TLSClientConfig: rest.TLSClientConfig{CAData: c.ca.PEM, CertData: cert, KeyData: key},
	})
}

// id tells this cluster's control groups from others'.
func (c *Cluster) id() string { return strings.TrimPrefix(filepath.Base(c.Dir), folderPrefix) }
