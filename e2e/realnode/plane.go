package realnode

import (
	"context"
	"fmt"
	"net"
	"path/filepath"
	"syscall"
	"time"

	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/eks-tenant-logs/eks-tenant-logs/e2e/cluster"
)

// planeConfig is the control plane's machine: a bridge to which the nodes are connected.
func planeConfig(c *Cluster) machineConfig {
	commands := [][]string{
		{"ip", "link", "set", "lo", "up"},
		{"ip", "link", "add", "lan", "type", "bridge"},
		{"ip", "address", "add", planeAddress + "/24", "dev", "lan"},
		{"ip", "link", "set", "lan", "up"},
		{"sh", "-c", "echo 1 >/proc/sys/net/ipv4/ip_forward"},
	}
	for i := range c.options.Nodes {
		commands = append(commands, []string{"ip", "route", "add", podCIDR(i + 1), "via", nodeAddress(i + 1)})
	}
	return machineConfig{Name: "plane", Dir: c.Dir, Socket: c.path("plane.sock"), Keep: c.path(keepFile), Commands: commands, EndWithInput: true}
}

func nodeAddress(number int) string { return fmt.Sprint("10.90.0.", 10+number) }
func podCIDR(number int) string     { return fmt.Sprintf("10.244.%d.0/24", number) }

// startPlane starts the control plane, and what the nodes ask beside it: DNS, AWS.
func (c *Cluster) startPlane(ctx context.Context) (err error) {
	if c.plane, err = c.startMachine(ctx, planeConfig(c)); err != nil {
		return err
	}
	if err := c.plane.call(ctx, "/dns", map[string]any{"Listen": planeAddress + ":53", "Names": map[string]string{
		"kubernetes.default.svc.cluster.local": kubernetesIP, ".amazonaws.com": planeAddress, ".api.aws": planeAddress,
	}}, nil); err != nil {
		return err
	}
	for listen, to := range map[string]string{"tcp:" + planeAddress + ":443": "unix:" + c.path(awsSocket), "unix:" + c.path("dial.sock"): ""} {
		if err := c.plane.call(ctx, "/relay", map[string]any{"Listen": listen, "To": to}, nil); err != nil {
			return err
		}
	}
	if err := c.clients(); err != nil {
		return err
	}
	run := func(name, binary string, args ...string) error {
		return c.plane.start(ctx, name, c.path("log", name), append([]string{binary}, args...)...)
	}
	const etcd, peer = "http://127.0.0.1:2379", "http://127.0.0.1:2380"
	if err := run("etcd", c.parts.etcd,
		"--name=etcd", "--data-dir="+c.path("etcd"), "--unsafe-no-fsync", "--log-level=warn", "--listen-client-urls="+etcd, "--advertise-client-urls="+etcd,
		"--listen-peer-urls="+peer, "--initial-advertise-peer-urls="+peer, "--initial-cluster=etcd="+peer); err != nil {
		return err
	}
	if err := c.startAPIServer(ctx); err != nil {
		return err
	}
	for name, binary := range map[string]string{"kube-controller-manager": c.parts.controllerManager, "kube-scheduler": c.parts.scheduler} {
		kubeconfig, err := c.user(filepath.Join("pki", name), "system:"+name)
		if err != nil {
			return err
		}
		args := []string{"--kubeconfig=" + kubeconfig, "--authentication-kubeconfig=" + kubeconfig, "--authorization-kubeconfig=" + kubeconfig, "--leader-elect=false"}
		if binary == c.parts.controllerManager {
			args = append(args, "--controllers=*", "--use-service-account-credentials=true", "--root-ca-file="+c.path("pki/ca.crt"),
				"--service-account-private-key-file="+c.path("pki/tokens.key"), "--cluster-signing-cert-file="+c.path("pki/ca.crt"), "--cluster-signing-key-file="+c.path("pki/ca.key"))
		}
		if err := run(name, binary, args...); err != nil {
			return err
		}
	}
	return nil
}

// clients makes what the API server reads, and the administrator's way to it.
func (c *Cluster) clients() error {
	cert, key, err := c.ca.Server("kube-apiserver", planeAddress, kubernetesIP, "127.0.0.1", "localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local")
	if err != nil {
		return err
	}
	private, public, err := cluster.TokenKeys()
	if err != nil {
		return err
	}
	kubeletCert, kubeletKey, err := c.ca.Client("kube-apiserver", []string{"system:masters"})
	if err != nil {
		return err
	}
	for name, data := range map[string][]byte{
		"ca.crt": c.ca.PEM, "ca.key": c.ca.Key, "server.crt": cert, "server.key": key, "tokens.key": private, "tokens.pub": public,
		"kubelet-client.crt": kubeletCert, "kubelet-client.key": kubeletKey,
	} {
		if _, err := c.write(filepath.Join("pki", name), data); err != nil {
			return err
		}
	}
	// Outside of the namespaces the API server is at a port of loopback.
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	c.forward(l, func(ctx context.Context) (net.Conn, error) {
		return c.Dial(ctx, "tcp", net.JoinHostPort(planeAddress, apiPort))
	})
	admin, adminKey, err := c.ca.Client(cluster.Admin, []string{"system:masters"})
	if err != nil {
		return err
	}
	c.Config = &rest.Config{Host: "https://" + l.Addr().String(), QPS: -1, TLSClientConfig: rest.TLSClientConfig{CAData: c.ca.PEM, CertData: admin, KeyData: adminKey}}
	c.Kubeconfig = c.path("kubeconfig")
	if err := cluster.WriteKubeconfig(c.Kubeconfig, c.Config); err != nil {
		return err
	}
	c.Admin, err = kubernetes.NewForConfig(c.Config)
	return err
}

const apiServer = "kube-apiserver"

// StopAPIServer ends the API server; what it knows stays in etcd. StartAPIServer starts it again.
func (c *Cluster) StopAPIServer(ctx context.Context) error {
	if err := c.plane.signal(ctx, apiServer, syscall.SIGTERM); err != nil {
		return err
	}
	if _, err := c.plane.ends(ctx, apiServer, 3*time.Second); err == nil {
		return nil
	}
	// It waits for watches that are open, up to a minute.
	if err := c.plane.signal(ctx, apiServer, syscall.SIGKILL); err != nil {
		return err
	}
	_, err := c.plane.ends(ctx, apiServer, 10*time.Second)
	return err
}

// StartAPIServer starts it where StopAPIServer ended it, and waits until it is ready.
func (c *Cluster) StartAPIServer(ctx context.Context) error { return c.startAPIServer(ctx) }

// startAPIServer starts it and waits until it is ready.
func (c *Cluster) startAPIServer(ctx context.Context) error {
	pki := func(name string) string { return c.path("pki", name) }
	if err := c.plane.start(ctx, apiServer, c.path("log", apiServer), c.parts.apiServer,
		"--etcd-servers=http://127.0.0.1:2379", "--bind-address="+planeAddress, "--advertise-address="+planeAddress, "--secure-port="+apiPort,
		"--tls-cert-file="+pki("server.crt"), "--tls-private-key-file="+pki("server.key"), "--client-ca-file="+pki("ca.crt"),
		"--kubelet-client-certificate="+pki("kubelet-client.crt"), "--kubelet-client-key="+pki("kubelet-client.key"), "--kubelet-certificate-authority="+pki("ca.crt"),
		"--kubelet-preferred-address-types=InternalIP",
		"--service-account-issuer="+issuerURL, "--service-account-key-file="+pki("tokens.pub"), "--service-account-signing-key-file="+pki("tokens.key"),
		"--authorization-mode=Node,RBAC", "--enable-admission-plugins=NodeRestriction,PodSecurity,ValidatingAdmissionPolicy",
		"--allow-privileged=true", "--service-cluster-ip-range="+serviceRange); err != nil {
		return err
	}
	client, err := rest.HTTPClientFor(c.Config)
	if err != nil {
		return err
	}
	defer client.CloseIdleConnections()
	for {
		if ended, how := c.plane.running(ctx, apiServer); !ended {
			return fmt.Errorf("the API server ended at its start: %s; its last words: %s", how, c.LogTail(apiServer))
		}
		err := cluster.Ready(ctx, client, c.Config.Host+"/readyz")
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("the API server is not ready: %w; its last words: %s", err, c.LogTail(apiServer))
		case <-time.After(100 * time.Millisecond):
		}
	}
}
