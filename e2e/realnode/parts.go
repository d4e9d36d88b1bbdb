package realnode

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/eks-tenant-logs/eks-tenant-logs/e2e/node"
)

// parts are the programs that `make kube-node` builds.
type parts struct {
	dir, etcd, apiServer, controllerManager, scheduler, kubelet, kubeProxy, containerd, ctr, shim string
}

// findParts looks for them in build/kube, or in the folder that $KUBE_BINARIES names.
func findParts(root string) (parts, error) {
	p := parts{dir: os.Getenv("KUBE_BINARIES")}
	if p.dir == "" {
		p.dir = filepath.Join(root, "build", "kube")
	}
	var missing []string
	for name, path := range map[string]*string{
		"etcd": &p.etcd, "kube-apiserver": &p.apiServer, "kube-controller-manager": &p.controllerManager, "kube-scheduler": &p.scheduler,
		"kubelet": &p.kubelet, "kube-proxy": &p.kubeProxy, "containerd": &p.containerd, "ctr": &p.ctr, "containerd-shim-runc-v2": &p.shim,
	} {
		*path = filepath.Join(p.dir, name)
		if info, err := os.Stat(*path); err != nil || info.Mode()&0o111 == 0 {
			missing = append(missing, name)
		}
	}
	if len(missing) > 0 {
		return p, fmt.Errorf("no %s in %s: `make kube-node` builds them, which takes some minutes once", strings.Join(missing, ", "), p.dir)
	}
	return p, nil
}

// needed are the distribution's programs, each with Debian's package.
var needed = [][2]string{
	{"buildah", "buildah"}, {"runc", "runc"}, {"nft", "nftables"}, {"ip", "iproute2"}, {"mount", "mount"},
}

// pluginFolders are where distributions put CNI's plugins.
var pluginFolders = []string{"/usr/lib/cni", "/opt/cni/bin", "/usr/libexec/cni"}

func cniPlugins() (string, error) {
	for _, dir := range pluginFolders {
		all := true
		for _, plugin := range []string{"bridge", "host-local", "loopback"} {
			_, err := os.Stat(filepath.Join(dir, plugin))
			all = all && err == nil
		}
		if all {
			return dir, nil
		}
	}
	return "", fmt.Errorf("no CNI plugins in %s (Debian: containernetworking-plugins)", strings.Join(pluginFolders, ", "))
}

// Check says what this machine lacks; nil if nothing. It starts a machine, so what it says was tried.
func Check(ctx context.Context) error {
	if os.Geteuid() != 0 {
		return errors.New("not root")
	}
	root, err := repository()
	if err != nil {
		return err
	}
	var missing []string
	for _, n := range needed {
		if _, err := exec.LookPath(n[0]); err != nil {
			missing = append(missing, fmt.Sprintf("no %s (Debian: %s)", n[0], n[1]))
		}
	}
	if _, err := cniPlugins(); err != nil {
		missing = append(missing, err.Error())
	}
	parts, err := findParts(root)
	if err != nil {
		missing = append(missing, err.Error())
	}
	if len(missing) > 0 {
		return errors.New(strings.Join(missing, "; "))
	}
	dir, lock, err := newFolder()
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	defer lock.Close()
	c := &Cluster{Dir: dir, lock: lock, parts: parts}
	if c.options, err = (Options{Root: root}).withDefaults(); err != nil {
		return err
	}
	if c.plane, err = c.startMachine(ctx, planeConfig(c)); err != nil {
		return fmt.Errorf("namespaces or a bridge cannot be made: %w", err)
	}
	n := c.newNode(1)
	_, err = n.bootMachine(ctx)
	if err == nil {
		err = n.machine.try(ctx, "ip", "link", "show", "eth0")
	}
	if err != nil {
		err = fmt.Errorf("a node's namespaces and control groups cannot be made: %w", err)
	}
	return errors.Join(err, c.plane.end())
}

// CanMountOverlay reports whether a folder's file system can be the upper one of an overlay, as most containers' own cannot.
func canMountOverlay(dir string) bool {
	work, err := os.MkdirTemp(dir, "overlay-")
	if err != nil {
		return false
	}
	defer os.RemoveAll(work)
	for _, name := range []string{"lower", "upper", "work", "merged"} {
		if err := os.Mkdir(filepath.Join(work, name), 0o755); err != nil {
			return false
		}
	}
	merged := filepath.Join(work, "merged")
	err = syscall.Mount("overlay", merged, "overlay", 0, fmt.Sprintf("lowerdir=%s/lower,upperdir=%s/upper,workdir=%s/work", work, work, work))
	if err != nil {
		return false
	}
	return syscall.Unmount(merged, 0) == nil
}

// FluentBit is the Fluent Bit that goes into the image: the one of $FLUENT_BIT or PATH. The error says why there is none.
func FluentBit(ctx context.Context) (string, error) { return node.FindFluentBit(ctx) }
