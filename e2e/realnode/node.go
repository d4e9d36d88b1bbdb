package realnode

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"
)

// Node is a machine with kubelet, kube-proxy and containerd.
type Node struct {
	// Name is node-1, node-2 and so on.
	Name string

	c       *Cluster
	keeps   string // the part of the disk that must be free, as a percentage
	number  int
	boots   int
	machine *machine
}

func (c *Cluster) newNode(number int) *Node {
	n := &Node{Name: fmt.Sprint("node-", number), c: c, number: number, keeps: "1%"}
	n.machine = newMachine(n.config(), c.path("log", n.Name))
	return n
}

// Path is where a path of the node's disk is outside of its namespaces: /var/log, /var/lib, and what is below them.
func (n *Node) Path(path string) string { return n.c.path(n.Name, path) }

// PodLogs is the kubelet's folder of pods' logs.
func (n *Node) PodLogs() string { return n.Path("/var/log/pods") }

// mine are the folders of the machine around it that are the node's own.
var mine = []string{"/var/log", "/var/lib"}

// kernelFiles are what the kubelet writes for the whole kernel, which has none of them per namespace. A node has files instead.
var kernelFiles = []string{
	"/proc/sys/vm/overcommit_memory", "/proc/sys/vm/panic_on_oom", "/proc/sys/kernel/panic", "/proc/sys/kernel/panic_on_oops",
	"/proc/sys/kernel/keys/root_maxkeys", "/proc/sys/kernel/keys/root_maxbytes",
}

const bootID = "/proc/sys/kernel/random/boot_id"

func (n *Node) config() machineConfig {
	m := machineConfig{
		Name: n.Name, Dir: n.c.Dir, Socket: n.c.path(n.Name + ".sock"), Cgroup: folderPrefix + n.c.id() + "." + n.Name,
		Tmpfs: []string{"/run"},
		Commands: [][]string{
			{"ip", "link", "set", "lo", "up"},
			// The control plane's machine brings the interface.
			{"sh", "-c", "for i in $(seq 500); do ip link show eth0 >/dev/null 2>&1 && exit; sleep 0.02; done; echo no interface came; exit 1"},
			{"ip", "address", "add", nodeAddress(n.number) + "/24", "dev", "eth0"},
			{"ip", "link", "set", "eth0", "up"},
			{"ip", "route", "add", "default", "via", planeAddress},
			{"sh", "-c", "echo 1 >/proc/sys/net/ipv4/ip_forward"},
		},
	}
	for other := range n.c.options.Nodes {
		if other+1 != n.number {
			m.Commands = append(m.Commands, []string{"ip", "route", "add", podCIDR(other + 1), "via", nodeAddress(other + 1)})
		}
	}
	for _, dir := range mine {
		m.Binds = append(m.Binds, [2]string{n.Path(dir), dir})
	}
	for _, file := range append([]string{bootID}, kernelFiles...) {
		m.Binds = append(m.Binds, [2]string{n.kernelFile(file), file})
	}
	return m
}

func (n *Node) kernelFile(path string) string {
	return n.Path(filepath.Join("kernel", strings.ReplaceAll(strings.TrimPrefix(path, "/proc/sys/"), "/", ".")))
}

// bootMachine starts the machine, and connects it to the control plane's.
func (n *Node) bootMachine(ctx context.Context) (pid int, err error) {
	n.boots++
	for _, dir := range append([]string{"kernel", "etc/cni/net.d", "var/lib/kubelet"}, mine...) {
		if err := os.MkdirAll(n.Path(dir), 0o755); err != nil {
			return 0, err
		}
	}
	for _, file := range kernelFiles {
		value, err := os.ReadFile(file)
		if err != nil {
			return 0, err
		}
		if err := os.WriteFile(n.kernelFile(file), value, 0o644); err != nil {
			return 0, err
		}
	}
	if err := os.WriteFile(n.kernelFile(bootID), fmt.Appendln(nil, n.bootID()), 0o644); err != nil {
		return 0, err
	}
	if err := os.Remove(n.machine.config.Socket); err != nil && !errors.Is(err, os.ErrNotExist) {
		return 0, err
	}
	veth := fmt.Sprint("node", n.number)
	var out struct{ PID int }
	err = n.c.plane.call(ctx, "/machine", map[string]any{"Config": n.machine.config, "Log": n.machine.log, "Begun": [][]string{
		// The kernel removes a dead node's interfaces some time after its processes.
		{"sh", "-c", "ip link delete " + veth + " 2>/dev/null || true"},
		{"ip", "link", "add", veth, "type", "veth", "peer", "name", "eth0", "netns", "{pid}"},
		{"ip", "link", "set", veth, "master", "lan", "up"},
	}}, &out)
	if err != nil {
		return 0, err
	}
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	return out.PID, n.machine.answers(ctx, nil)
}

// bootID is what the kernel says to be another after each start, and the kubelet reports.
func (n *Node) bootID() string { return fmt.Sprintf("00000000-0000-4000-8000-%012d", n.boots) }

// Boot starts the node, and returns when it is Ready. What an earlier run left on its disk is there.
func (n *Node) Boot(ctx context.Context) error {
	if _, err := n.bootMachine(ctx); err != nil {
		return err
	}
	if err := n.writeFiles(); err != nil {
		return err
	}
	if err := n.StartContainerd(ctx); err != nil {
		return err
	}
	if n.boots == 1 { // later they are on its disk
		if err := n.Restore(ctx); err != nil {
			return err
		}
	}
	if err := n.StartKubelet(ctx); err != nil {
		return err
	}
	if err := n.machine.start(ctx, "kube-proxy", n.logFile("kube-proxy"), n.c.parts.kubeProxy, "--kubeconfig="+n.Path("etc/kube-proxy"), "--hostname-override="+n.Name,
		"--proxy-mode=nftables", "--cluster-cidr="+podRange, "--conntrack-max-per-core=0", "--conntrack-min=0", "--conntrack-tcp-timeout-established=0s", "--conntrack-tcp-timeout-close-wait=0s"); err != nil {
		return err
	}
	return n.waitReady(ctx)
}

// Kill ends all of the node's processes at once, as a loss of power does; its disk stays. The page cache does, too: what was
// written but not synced is not lost.
func (n *Node) Kill(ctx context.Context) error {
	return n.c.plane.call(ctx, "/machine", map[string]any{"Config": n.machine.config, "Kill": true}, nil)
}

// Exec runs a command in the node's namespaces and returns what it wrote.
func (n *Node) Exec(ctx context.Context, argv ...string) (string, error) {
	return n.machine.exec(ctx, argv...)
}

// Ctr runs containerd's client in the kubelet's namespace.
func (n *Node) Ctr(ctx context.Context, args ...string) (string, error) {
	return n.machine.exec(ctx, append([]string{n.c.parts.ctr, "--namespace", "k8s.io"}, args...)...)
}

// Import adds the images of an archive.
func (n *Node) Import(ctx context.Context, archive string) error {
	_, err := n.Ctr(ctx, "images", "import", archive)
	return err
}

func (n *Node) logFile(program string) string { return n.c.path("log", program+"-"+n.Name) }

// StartContainerd starts containerd and waits until it answers.
func (n *Node) StartContainerd(ctx context.Context) error {
	if err := n.machine.start(ctx, "containerd", n.logFile("containerd"), n.c.parts.containerd, "--config", n.Path("etc/containerd.toml")); err != nil {
		return err
	}
	for {
		err := n.machine.try(ctx, n.c.parts.ctr, "--timeout", "2s", "--connect-timeout", "2s", "version")
		if err == nil {
			return n.machine.start(ctx, "events", n.logFile("events"), n.c.parts.ctr, "--namespace", "k8s.io", "events")
		}
		if runs, how := n.machine.running(ctx, "containerd"); !runs {
			return fmt.Errorf("containerd ended at its start: %s; its last words: %s", how, n.c.LogTail("containerd-"+n.Name))
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("containerd does not answer: %w; its last words: %s", err, n.c.LogTail("containerd-"+n.Name))
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// memoryGroup finds a container's control group and what its files are called: the limit, and the count of kills.
const memoryGroup = `set -eu
group=$(find /sys/fs/cgroup/memory/kubepods /sys/fs/cgroup/kubepods -type d -name "$1" 2>/dev/null | head -1) || true
[ -n "$group" ] || { echo gone; exit; }
limit=$group/memory.limit_in_bytes events=$group/memory.oom_control
[ ! -e "$group/memory.max" ] || { limit=$group/memory.max events=$group/memory.events; }
`

// LimitMemory lowers the memory limit of a container's control group to what its processes have now and this much more, so that the kernel kills
// one of them when they take more. FreeMemory gives it the limit back that it had, if the container is still there; so has the next container.
func (n *Node) LimitMemory(ctx context.Context, container string, more int) error {
	const script = memoryGroup + `
cat "$limit" >"/run/limit.$1"
has() { awk -v k="$1" '$1 == k {print $2}' "$group/memory.stat"; }
for i in $(seq 100); do
  used=$(has total_rss)
  used=$((${used:-$(has anon)} + $(cat "$group/memory.kmem.usage_in_bytes" 2>/dev/null || echo 0)))
  echo $((used + $2)) >"$limit" 2>/dev/null && exit
  sleep 0.1
done
echo "the limit was not taken"; exit 1`
	return n.machine.try(ctx, "bash", "-c", script, "limit", container, fmt.Sprint(more))
}

// FreeMemory takes LimitMemory back.
func (n *Node) FreeMemory(ctx context.Context, container string) error {
	return n.machine.try(ctx, "bash", "-c", memoryGroup+`cat "/run/limit.$1" >"$limit"`, "free", container)
}

// KilledForMemory reports whether the kernel has killed a process of a container for its memory; also true when the container is gone.
func (n *Node) KilledForMemory(ctx context.Context, container string) (bool, error) {
	out, err := n.machine.exec(ctx, "bash", "-c", memoryGroup+`awk '$1 == "oom_kill" {print $2}' "$events"`, "killed", container)
	return strings.TrimSpace(out) != "0" && strings.TrimSpace(out) != "", err
}

// Signal sends a signal to the processes of a container that run a program of this name, and fails where there is none.
func (n *Node) Signal(ctx context.Context, container, program, signal string) error {
	const script = `set -eu
found=
for pid in $("$1" --namespace k8s.io tasks ps "$2" | awk 'NR > 1 {print $1}'); do
  [ "$(cat "/proc/$pid/comm")" != "$3" ] || { kill "-$4" "$pid"; found=1; }
done
[ -n "$found" ] || { echo "no process $3 is in the container"; exit 1; }`
	return n.machine.try(ctx, "bash", "-c", script, "signal", n.c.parts.ctr, container, program, signal)
}

// Tasks are when containers' first processes started and ended, by the containers' ids, as containerd said it.
func (n *Node) Tasks() (started, ended map[string]time.Time, err error) {
	text, err := os.ReadFile(n.logFile("events"))
	if err != nil {
		return nil, nil, err
	}
	started, ended = map[string]time.Time{}, map[string]time.Time{}
	for line := range strings.Lines(string(text)) {
		// 2006-01-02 15:04:05.999999999 +0000 UTC k8s.io /tasks/exit {…}
		words := strings.SplitN(line, " ", 7)
		if len(words) < 7 {
			continue
		}
		into := map[string]map[string]time.Time{"/tasks/start": started, "/tasks/exit": ended}[words[5]]
		at, err := time.Parse("2006-01-02 15:04:05.999999999", words[0]+" "+words[1])
		var event struct {
			Container string `json:"container_id"`
			ID        string `json:"id"` // of a process inside, in /tasks/exit
		}
		if into == nil || err != nil || json.Unmarshal([]byte(words[6]), &event) != nil || event.ID != "" && event.ID != event.Container {
			continue
		}
		into[event.Container] = at
	}
	return started, ended, nil
}

// StopContainerd ends it as an upgrade does. Containers run on, under their shims.
func (n *Node) StopContainerd(ctx context.Context) error { return n.stopProcess(ctx, "containerd") }

// StartKubelet starts the kubelet.
func (n *Node) StartKubelet(ctx context.Context) error {
	return n.machine.start(ctx, "kubelet", n.logFile("kubelet"), n.c.parts.kubelet,
		"--config="+n.Path("etc/kubelet.yaml"), "--kubeconfig="+n.Path("etc/kubelet"), "--hostname-override="+n.Name, "--node-ip="+nodeAddress(n.number), "--v=2")
}

// StopKubelet ends it as an upgrade does. Containers run on.
func (n *Node) StopKubelet(ctx context.Context) error { return n.stopProcess(ctx, "kubelet") }

func (n *Node) stopProcess(ctx context.Context, name string) error {
	if err := n.machine.signal(ctx, name, syscall.SIGTERM); err != nil {
		return err
	}
	if _, err := n.machine.ends(ctx, name, 20*time.Second); err == nil {
		return nil
	}
	if err := n.machine.signal(ctx, name, syscall.SIGKILL); err != nil {
		return err
	}
	_, err := n.machine.ends(ctx, name, 10*time.Second)
	return err
}

// KeepFree starts the kubelet again with another part of the disk that must be free, such as 99%: it evicts pods and removes images where less is. Whatever
// it says, Restore brings the images back.
func (n *Node) KeepFree(ctx context.Context, percentage string) error {
	n.keeps = percentage
	if err := n.writeFiles(); err != nil {
		return err
	}
	if err := n.StopKubelet(ctx); err != nil {
		return err
	}
	return n.StartKubelet(ctx)
}

// Restore imports the images again.
func (n *Node) Restore(ctx context.Context) error {
	for _, archive := range n.c.Images.archives {
		if err := n.Import(ctx, archive); err != nil {
			return err
		}
	}
	return nil
}

// waitReady waits until the node says so, of this boot.
func (n *Node) waitReady(ctx context.Context) error {
	last := "it is not registered"
	for {
		node, err := n.c.Admin.CoreV1().Nodes().Get(ctx, n.Name, metav1.GetOptions{})
		if err == nil {
			for _, condition := range node.Status.Conditions {
				if condition.Type != corev1.NodeReady {
					continue
				}
				if condition.Status == corev1.ConditionTrue && node.Status.NodeInfo.BootID == n.bootID() {
					return nil
				}
				last = condition.Message
			}
		}
		if runs, how := n.machine.running(ctx, "kubelet"); !runs {
			return fmt.Errorf("the kubelet ended: %s; its last words: %s", how, n.c.LogTail("kubelet-"+n.Name))
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s is not Ready: %s; the kubelet's last words: %s", n.Name, last, n.c.LogTail("kubelet-"+n.Name))
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// writeFiles writes what the node's programs read.
func (n *Node) writeFiles() error {
	cni, err := cniPlugins()
	if err != nil {
		return err
	}
	etc := func(name string) string { return filepath.Join(n.Name, "etc", name) }
	cert, key, err := n.c.ca.Server(n.Name, n.Name, nodeAddress(n.number))
	if err != nil {
		return err
	}
	snapshotter := "overlayfs"
	if !canMountOverlay(n.Path("/var/lib")) {
		snapshotter = "native"
	}
	network, err := json.Marshal(map[string]any{"cniVersion": "1.0.0", "name": "pods", "plugins": []any{map[string]any{
		"type": "bridge", "bridge": "cni0", "isGateway": true, "hairpinMode": true,
		"ipam": map[string]any{"type": "host-local", "dataDir": "/run/cni", "ranges": [][]any{{map[string]any{"subnet": podCIDR(n.number)}}}, "routes": []any{map[string]any{"dst": "0.0.0.0/0"}}},
	}}})
	if err != nil {
		return err
	}
	kubelet, err := yaml.Marshal(n.kubeletConfig())
	if err != nil {
		return err
	}
	for name, data := range map[string][]byte{
		etc("kubelet.crt"): cert, etc("kubelet.key"): key, etc("kubelet.yaml"): kubelet, etc("cni/net.d/pods.conflist"): network,
		etc("resolv.conf"): []byte("nameserver " + planeAddress + "\n"), etc("containerd.toml"): fmt.Appendf(nil, containerdConfig, snapshotter, pauseImage, cni, n.Path("etc/cni/net.d")),
	} {
		if _, err := n.c.write(name, data); err != nil {
			return err
		}
	}
	if _, err := n.c.user(etc("kubelet"), "system:node:"+n.Name, "system:nodes"); err != nil {
		return err
	}
	_, err = n.c.user(etc("kube-proxy"), "system:kube-proxy")
	return err
}

// containerdConfig takes: the snapshotter, the pause image, CNI's programs and configuration.
const containerdConfig = `version = 4
imports = []
[plugins.'io.containerd.cri.v1.images']
  snapshotter = '%s'
  [plugins.'io.containerd.cri.v1.images'.pinned_images]
    sandbox = '%s'
[plugins.'io.containerd.cri.v1.runtime']
  # Without CAP_SYS_RESOURCE, which containers of CI often lack, no process may lower its score, and runc fails.
  restrict_oom_score_adj = true
  disable_apparmor = true
  [plugins.'io.containerd.cri.v1.runtime'.cni]
    bin_dirs = ['%s']
    conf_dir = '%s'
[plugins.'io.containerd.internal.v1.opt']
  path = '/var/lib/containerd/opt'
[plugins.'io.containerd.nri.v1.nri']
  disable = true
`

func (n *Node) kubeletConfig() map[string]any {
	return map[string]any{
		"apiVersion": "kubelet.config.k8s.io/v1beta1", "kind": "KubeletConfiguration",
		"authentication": map[string]any{"anonymous": map[string]any{"enabled": false}, "webhook": map[string]any{"enabled": true}, "x509": map[string]any{"clientCAFile": n.c.path("pki/ca.crt")}},
		"authorization":  map[string]any{"mode": "Webhook"},
		"tlsCertFile":    n.Path("etc/kubelet.crt"), "tlsPrivateKeyFile": n.Path("etc/kubelet.key"),
		"containerRuntimeEndpoint": "unix:///run/containerd/containerd.sock",
		"cgroupDriver":             "cgroupfs", "cgroupRoot": "/", "cgroupsPerQOS": true, "enforceNodeAllocatable": []string{"pods"}, "failCgroupV1": false,
		"failSwapOn": false, "oomScoreAdj": 0,
		"clusterDNS": []string{planeAddress}, "clusterDomain": "cluster.local", "resolvConf": n.Path("etc/resolv.conf"),
		"containerLogMaxSize": n.c.options.LogMaxSize, "containerLogMaxFiles": n.c.options.LogMaxFiles, "containerLogMonitorInterval": n.c.options.LogMonitorInterval.String(),
		"volumePluginDir": "/var/lib/kubelet/volume-plugins", "maxPods": 250,
		// The machine's disk is not the node's: neither pods nor images go because that is full, unless KeepFree says so.
		"evictionHard": map[string]string{"memory.available": "100Mi", "nodefs.available": n.keeps, "imagefs.available": n.keeps}, "evictionPressureTransitionPeriod": "5s", "imageGCHighThresholdPercent": 100, "imageGCLowThresholdPercent": 99,
		"nodeStatusUpdateFrequency": "4s", "syncFrequency": "10s", "kubeAPIQPS": 200, "kubeAPIBurst": 400, "registryPullQPS": 0, "serializeImagePulls": false,
	}
}

// stateFolder is the agents' on a node, as the chart has it.
const stateFolder = "/var/lib/eks-tenant-logs"

// MountState puts a volume of its own, of a size such as 32m, under the agent's folder, until UnmountState. Both are for times without an agent.
func (n *Node) MountState(ctx context.Context, size string) error {
	return n.machine.try(ctx, "sh", "-c", `mkdir -p "$1" && mount -t tmpfs -o "size=$2" state "$1"`, "mount", stateFolder, size)
}

// UnmountState takes MountState back.
func (n *Node) UnmountState(ctx context.Context) error {
	return n.machine.try(ctx, "sh", "-c", `! mountpoint -q "$1" || umount --lazy "$1"`, "umount", stateFolder)
}

const others = stateFolder + "/of-others"

// FillState takes the room that is left there but for so many bytes, until EmptyState.
func (n *Node) FillState(ctx context.Context, leave int) error {
	const script = `blocks=$((($(df --output=avail --block-size=1 "$1" | tail -1) - $3) / 4096))
[ "$blocks" -le 0 ] || dd if=/dev/zero bs=4096 count="$blocks" >>"$2" 2>/dev/null || true`
	return n.machine.try(ctx, "sh", "-c", script, "fill", stateFolder, others, fmt.Sprint(leave))
}

// EmptyState takes FillState back.
func (n *Node) EmptyState(ctx context.Context) error { return n.machine.try(ctx, "rm", others) }
