// Package node is a Kubernetes node as a log shipper sees it: container log files
// under /var/log, an engine that reads them and loads the plugin, and CloudWatch
// Logs to read the result back from. The demonstration and the promises' tests
// stand on it.
package node

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// Pod is one container of a pod.
type Pod struct{ Namespace, Name, Container string }

// UID is the pod's, made from its name so that tests can tell it beforehand.
func (p Pod) UID() string {
	h := p.hash()
	return h[:8] + "-" + h[8:12] + "-4" + h[13:16] + "-8" + h[17:20] + "-" + h[20:32]
}

// ContainerID is the container's, 64 hexadecimal digits.
func (p Pod) ContainerID() string { return p.hash() }

func (p Pod) hash() string {
	sum := sha256.Sum256([]byte(p.Namespace + "/" + p.Name))
	return hex.EncodeToString(sum[:])
}

// Stream is the log stream the default template gives it.
func (p Pod) Stream() string { return p.Namespace + "/" + p.Name + "/" + p.Container }

// Line is one line a container writes.
type Line struct {
	Time time.Time
	// Stderr is where it was written, else stdout.
	Stderr bool
	Text   string
}

// Node is the folder that stands for a node's root.
type Node struct {
	Root string
	now  time.Time
	tick int
}

// New makes a node in an empty folder. Lines written without a time are a
// millisecond apart, from now on.
func New(root string, now time.Time) *Node { return &Node{Root: root, now: now.UTC()} }

// maxPartial is where container runtimes cut a line into partial ones (16 KiB).
const maxPartial = 16 << 10

// Write appends lines to the pod's log file in the CRI's format, as the kubelet
// names it under /var/log/pods, and links it under /var/log/containers.
func (n *Node) Write(p Pod, texts ...string) error {
	lines := make([]Line, len(texts))
	for i, text := range texts {
		n.tick++
		lines[i] = Line{Time: n.now.Add(time.Duration(n.tick) * time.Millisecond), Text: text}
	}
	return n.WriteLines(p, lines...)
}

// WriteLines is Write with times of one's own.
func (n *Node) WriteLines(p Pod, lines ...Line) error {
	dir := filepath.Join(n.Root, "var/log/pods", p.Namespace+"_"+p.Name+"_"+p.UID(), p.Container)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	file := filepath.Join(dir, "0.log")
	var b strings.Builder
	for _, l := range lines {
		stream := "stdout"
		if l.Stderr {
			stream = "stderr"
		}
		at, text := l.Time.UTC(), l.Text
		const layout = "2006-01-02T15:04:05.000000000Z07:00"
		for len(text) > maxPartial {
			fmt.Fprintf(&b, "%s %s P %s\n", at.Format(layout), stream, text[:maxPartial])
			text = text[maxPartial:]
			at = at.Add(time.Microsecond) // the runtime takes the time of each part
		}
		fmt.Fprintf(&b, "%s %s F %s\n", at.Format(layout), stream, text)
	}
	f, err := os.OpenFile(file, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	if _, err = f.WriteString(b.String()); err != nil {
		f.Close()
		return err
	}
	if err = f.Close(); err != nil {
		return err
	}
	links := filepath.Join(n.Root, "var/log/containers")
	if err := os.MkdirAll(links, 0o755); err != nil {
		return err
	}
	err = os.Symlink(file, filepath.Join(links, ContainersName(p)))
	if os.IsExist(err) {
		return nil
	}
	return err
}

// ContainersName is the file's name under /var/log/containers, cut by the kubelet
// so that it has 255 bytes at most (kubernetes, pkg/kubelet/kuberuntime/legacy.go).
func ContainersName(p Pod) string {
	name := p.Name + "_" + p.Namespace + "_" + p.Container + "-" + p.ContainerID()
	const most = 255 - len(".log")
	if len(name) > most {
		name = name[:most]
	}
	return name + ".log"
}

// Layout is which of the kubelet's two folders is read.
type Layout string

// The kubelet's folders.
const (
	Pods       Layout = "pods"
	Containers Layout = "containers"
)

func (l Layout) glob() string {
	if l == Containers {
		return "/var/log/containers/*.log"
	}
	return "/var/log/pods/*/*/*.log"
}

// Run says how an engine ships a node's logs.
type Run struct {
	Node    *Node
	Plugin  string // the .so
	Layout  Layout // empty means Pods
	Workers int    // 0 means 4; -1 none
	// Options of the [OUTPUT]; engines add tag_prefix where they need it.
	Options map[string]string
	// More are further outputs of the same plugin, each with its options.
	More []map[string]string
	// Multiline has tail take lines apart and join their parts with `multiline.parser cri`, instead of
	// the plugin.
	Multiline bool
	// ParseJSON is a parser filter that turns JSON lines into fields; ReserveData is its option.
	ParseJSON, ReserveData bool
	// Env is added to the environment.
	Env []string
	// Until is polled; once it says true the engine is stopped.
	Until func() bool
	// Log gets what the engine writes.
	Log io.Writer
	// Kubernetes is put in front of the outputs, for engines that have filters.
	Filters string
	// Output replaces the plugin by another of the engine's own, whole section lines; or by
	// the one of Load.
	Output string
	// Load is another plugin's .so, for Output.
	Load string
	// Input are keys of the input that replace tail's usual ones; an empty value leaves a
	// key out. Fluent Bit's alone.
	Input map[string]string
	// State is a folder kept from one run to the next: what was read, and chunks in
	// filesystem storage. Empty means that nothing is kept. Fluent Bit's alone.
	State string
	// Service are further keys of Fluent Bit's [SERVICE].
	Service map[string]string
	// Started is told the engine's process. Fluent Bit's alone.
	Started func(*os.Process)
	// Used is told what the engine's process used, once it has ended. Fluent Bit's alone.
	Used func(*os.ProcessState)
	// Launcher is the program that runs Fluent Bit, as in the image; it needs State. Fluent Bit's alone.
	Launcher string
	// YAML is Fluent Bit's other configuration format; else the classic one.
	YAML bool
	// Grace is how long the engine waits at its end; 0 means 5 s.
	Grace time.Duration
}

// Engine ships logs: our own host everywhere, Fluent Bit where there is one.
type Engine interface {
	Name() string
	// Ship reads the node's files from their beginning until Until says so, and stops.
	Ship(ctx context.Context, r Run) error
}

// FreeAddress is a loopback address nobody listens on at the moment.
func FreeAddress() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	return l.Addr().String(), l.Close()
}

// poll waits until done says true.
func poll(ctx context.Context, done func() bool) error {
	t := time.NewTicker(20 * time.Millisecond)
	defer t.Stop()
	for !done() {
		select {
		case <-ctx.Done():
			return fmt.Errorf("waiting for the events: %w", ctx.Err())
		case <-t.C:
		}
	}
	return nil
}
