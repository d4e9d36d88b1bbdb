package realnode

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	apiwatch "k8s.io/apimachinery/pkg/watch"
)

// Writer is a pod that writes numbered lines.
type Writer struct {
	// Tenant has the namespace tenant-<Tenant>; Name is the pod's, and what its lines begin with.
	Tenant, Name string
	// In is another namespace, where that is not a tenant's.
	In string
	// Lines is how many, 0 until StopWriter; Rate how many a second, 0 as fast as they are taken; Size their length, 0 is 100 bytes.
	Lines int
	Rate  float64
	Size  int
	// Stay keeps the pod running when all are written.
	Stay bool
	// Node is where it runs; empty: anywhere.
	Node string
}

// Namespace is the writer's.
func (w Writer) Namespace() string {
	if w.In != "" {
		return w.In
	}
	return "tenant-" + w.Tenant
}

// args are the tool's.
func (w Writer) args() []string {
	size := w.Size
	if size == 0 {
		size = 100
	}
	args := []string{"write", "-id=" + w.Name, fmt.Sprint("-lines=", w.Lines), fmt.Sprint("-rate=", w.Rate), fmt.Sprint("-size=", size)}
	if w.Stay {
		args = append(args, "-stay")
	}
	return args
}

// Container runs the tool in a pod's container.
func (w Writer) Container() corev1.Container {
	return corev1.Container{Name: "writer", Image: toolImage, ImagePullPolicy: corev1.PullNever, Args: w.args()}
}

// Pod is the writer's.
func (w Writer) Pod() *corev1.Pod {
	none, short := false, int64(5)
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: w.Name, Namespace: w.Namespace()},
		Spec: corev1.PodSpec{
			RestartPolicy: corev1.RestartPolicyNever, NodeName: w.Node, AutomountServiceAccountToken: &none, EnableServiceLinks: &none,
			TerminationGracePeriodSeconds: &short, Containers: []corev1.Container{w.Container()},
		},
	}
}

// Command is a pod that runs tenantlogs once. It trusts the stand-in's authority and has no key; it is labelled asks=<account>.
func (c *Cluster) Command(name, namespace, account string, args ...string) *corev1.Pod {
	none := false
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: namespace, Labels: map[string]string{"asks": account}},
		Spec: corev1.PodSpec{
			ServiceAccountName: account, RestartPolicy: corev1.RestartPolicyNever, AutomountServiceAccountToken: &none, EnableServiceLinks: &none,
			Containers: []corev1.Container{{
				Name: "tenantlogs", Image: c.Images.Provisioner, ImagePullPolicy: corev1.PullNever, Args: args,
				Env:          []corev1.EnvVar{{Name: "AWS_CA_BUNDLE", Value: caMount + "/ca.pem"}, {Name: "AWS_EC2_METADATA_DISABLED", Value: "true"}},
				VolumeMounts: []corev1.VolumeMount{{Name: caName, MountPath: caMount, ReadOnly: true}},
			}},
			Volumes: []corev1.Volume{{Name: caName, VolumeSource: corev1.VolumeSource{ConfigMap: &corev1.ConfigMapVolumeSource{LocalObjectReference: corev1.LocalObjectReference{Name: caName}}}}},
		},
	}
}

// StartWriter makes the pod, and waits until it runs.
func (c *Cluster) StartWriter(ctx context.Context, w Writer) error {
	if _, err := c.Admin.CoreV1().Pods(w.Namespace()).Create(ctx, w.Pod(), metav1.CreateOptions{}); err != nil {
		return err
	}
	err := c.Until(ctx, "the writer "+w.Name+" runs", func() (bool, error) {
		p, err := c.Admin.CoreV1().Pods(w.Namespace()).Get(ctx, w.Name, metav1.GetOptions{})
		return err == nil && p.Status.Phase != corev1.PodPending, err
	})
	if err != nil {
		err = errors.Join(err, errors.New(c.Describe(ctx, w.Namespace())))
	}
	return err
}

// StopWriter ends a writer without removing its pod, and returns how many lines it wrote.
func (c *Cluster) StopWriter(ctx context.Context, w Writer) (int, error) {
	p, err := c.Admin.CoreV1().Pods(w.Namespace()).Get(ctx, w.Name, metav1.GetOptions{})
	if err != nil {
		return 0, err
	}
	if len(p.Status.ContainerStatuses) > 0 && p.Status.ContainerStatuses[0].State.Running != nil {
		for _, n := range c.Nodes {
			if n.Name != p.Spec.NodeName {
				continue
			}
			if _, err := n.Ctr(ctx, "tasks", "kill", "--signal", "SIGTERM", ContainerID(*p)); err != nil {
				return 0, err
			}
		}
	}
	return c.Written(ctx, w)
}

// ContainerID is containerd's id of a pod's first container, empty if it has none yet.
func ContainerID(p corev1.Pod) string {
	if len(p.Status.ContainerStatuses) == 0 {
		return ""
	}
	return strings.TrimPrefix(p.Status.ContainerStatuses[0].ContainerID, "containerd://")
}

// Evict evicts a writer's pod, as a drain does, waits until it is gone, and returns how many lines it wrote.
func (c *Cluster) Evict(ctx context.Context, w Writer) (lines int, err error) {
	watch, err := c.Admin.CoreV1().Pods(w.Namespace()).Watch(ctx, metav1.ListOptions{FieldSelector: "metadata.name=" + w.Name})
	if err != nil {
		return 0, err
	}
	defer watch.Stop()
	if err := c.Admin.PolicyV1().Evictions(w.Namespace()).Evict(ctx, &policyv1.Eviction{ObjectMeta: metav1.ObjectMeta{Name: w.Name, Namespace: w.Namespace()}}); err != nil {
		return 0, err
	}
	lines = -1
	for event := range watch.ResultChan() {
		p, ok := event.Object.(*corev1.Pod)
		if ok && len(p.Status.ContainerStatuses) > 0 && p.Status.ContainerStatuses[0].State.Terminated != nil {
			if n, err := strconv.Atoi(p.Status.ContainerStatuses[0].State.Terminated.Message); err == nil {
				lines = n
			}
		}
		if event.Type == apiwatch.Deleted {
			break
		}
	}
	if lines < 0 {
		return 0, fmt.Errorf("the writer %s did not say how many lines it wrote", w.Name)
	}
	return lines, ctx.Err()
}

// Written waits for a writer's end, and returns how many lines it wrote.
func (c *Cluster) Written(ctx context.Context, w Writer) (lines int, err error) {
	err = c.Until(ctx, "the writer "+w.Name+" ends", func() (bool, error) {
		p, err := c.Admin.CoreV1().Pods(w.Namespace()).Get(ctx, w.Name, metav1.GetOptions{})
		if err != nil || len(p.Status.ContainerStatuses) == 0 || p.Status.ContainerStatuses[0].State.Terminated == nil {
			return false, err
		}
		end := p.Status.ContainerStatuses[0].State.Terminated
		lines, err = strconv.Atoi(end.Message)
		return err == nil, err
	})
	return lines, err
}

// OnDisk is how many lines of a writer the kubelet's files have: one more than the number of the last that is whole in the newest file.
func (c *Cluster) OnDisk(w Writer) (int, error) {
	for _, file := range c.LogFiles(w) {
		if strings.HasSuffix(file, ".log") {
			return linesUpTo(file, w)
		}
	}
	return 0, fmt.Errorf("%s has no file", w.Name)
}

// linesUpTo is one more than the number of the last whole line of a writer in a file.
func linesUpTo(file string, w Writer) (int, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return 0, err
	}
	for text = text[:bytes.LastIndexByte(text, '\n')+1]; len(text) > 0; {
		start := bytes.LastIndexByte(text[:len(text)-1], '\n') + 1
		if _, last, found := strings.Cut(string(text[start:]), "#"+w.Name+" "); found {
			digits, _, _ := strings.Cut(last, " ")
			n, err := strconv.Atoi(digits)
			return n + 1, err
		}
		text = text[:start]
	}
	return 0, fmt.Errorf("no whole line of %s is in %s", w.Name, file)
}

// LogFiles are the files of a writer's logs on its node, the newest, which has no time in its name, last.
func (c *Cluster) LogFiles(w Writer) []string {
	var all []string
	for _, n := range c.Nodes {
		found, _ := filepath.Glob(filepath.Join(n.PodLogs(), w.Namespace()+"_"+w.Name+"_*", "writer", "*.log*"))
		all = append(all, found...)
	}
	return all
}

// Rotations watches a writer's files: it notes when a new one began, and keeps each under a name of its own, which the kubelet does not know.
type Rotations struct {
	mu    sync.Mutex
	times []time.Time
	kept  string
	done  chan struct{}
	end   context.CancelFunc
}

// WatchRotations begins to watch, until Stop.
func (c *Cluster) WatchRotations(w Writer) (*Rotations, error) {
	ctx, cancel := context.WithCancel(context.Background())
	r := &Rotations{done: make(chan struct{}), end: cancel, kept: c.path("kept", w.Name)}
	if err := os.MkdirAll(r.kept, 0o755); err != nil {
		cancel()
		return nil, err
	}
	go func() {
		defer close(r.done)
		var before os.FileInfo
		for ctx.Err() == nil {
			for _, file := range c.LogFiles(w) {
				if !strings.HasSuffix(file, ".log") {
					continue
				}
				if info, err := os.Stat(file); err == nil && (before == nil || !os.SameFile(before, info)) {
					r.mu.Lock()
					if before != nil {
						r.times = append(r.times, time.Now())
					}
					r.mu.Unlock()
					before = info
					_ = os.Link(file, filepath.Join(r.kept, fmt.Sprintf("%06d.log", len(r.times)))) // without it Show says less
				}
			}
			time.Sleep(50 * time.Millisecond)
		}
	}()
	return r, nil
}

// Before sleeps until the kubelet's next look at the files is so far away. It waits at most two of its intervals.
func (r *Rotations) Before(ahead, interval time.Duration) {
	r.mu.Lock()
	var last time.Time
	if n := len(r.times); n > 0 {
		last = r.times[n-1]
	}
	r.mu.Unlock()
	if last.IsZero() {
		return
	}
	at := last.Add(-ahead)
	for time.Until(at) < 0 {
		at = at.Add(interval)
	}
	time.Sleep(time.Until(at))
}

// Stop ends the watch and returns when there were rotations, to a twentieth of a second.
func (r *Rotations) Stop() []time.Time {
	r.end()
	<-r.done
	return r.times
}

// OnDisk is how many lines of a writer were in the kubelet's files, also after the kubelet has removed them.
func (r *Rotations) OnDisk(w Writer) (int, error) {
	files, err := filepath.Glob(filepath.Join(r.kept, "*.log"))
	if err != nil || len(files) == 0 {
		return 0, errors.Join(err, fmt.Errorf("no file of %s was seen", w.Name))
	}
	return linesUpTo(files[len(files)-1], w)
}

// Cut is how many of the files end in the beginning of a line.
func (r *Rotations) Cut() (int, error) {
	files, err := filepath.Glob(filepath.Join(r.kept, "*.log"))
	if err != nil {
		return 0, err
	}
	cut := 0
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			return 0, err
		}
		text = bytes.TrimSuffix(text, []byte("\n"))
		if bytes.Contains(text[bytes.LastIndexByte(text, '\n')+1:], []byte(" P ")) {
			cut++
		}
	}
	return cut, nil
}

// Show is what the kubelet's files have of a writer's line: the file, and the line there and the one before it, as containerd wrote them.
func (r *Rotations) Show(w Writer, number int) string {
	files, _ := filepath.Glob(filepath.Join(r.kept, "*.log"))
	this, end := fmt.Sprintf("#%s %d ", w.Name, number), fmt.Sprintf(" #%d\n", number)
	var all strings.Builder
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			return err.Error()
		}
		before := ""
		for line := range strings.Lines(string(text)) {
			if strings.Contains(line, this) || strings.HasSuffix(line, end) {
				fmt.Fprintf(&all, "%s: %s%s: %s", filepath.Base(file), before, filepath.Base(file), line)
			}
			before = line
		}
		if strings.Contains(before, " P ") {
			fmt.Fprintf(&all, "%s ends in a part: %s", filepath.Base(file), before)
		}
	}
	return all.String()
}
