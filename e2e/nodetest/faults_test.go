package nodetest

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/eks-tenant-logs/eks-tenant-logs/e2e/realnode"
)

// What a node does, while a pod writes numbered lines, or in place of that: no line is lost. Where the agent is killed, lines may come twice.
func TestWhatANodeDoesLosesNoLine(t *testing.T) {
	c := onFluentBit(t)
	released(t, c)
	n := c.Nodes[0]
	rest := time.Duration(size(t, "E2E_AWAY", 8)) * time.Second

	t.Run("the kubelet is restarted", func(t *testing.T) {
		underLoad(t, c, "kubelet", once, func(ctx context.Context, _ realnode.Writer) {
			require.NoError(t, n.StopKubelet(ctx))
			time.Sleep(rest)
			require.NoError(t, n.StartKubelet(ctx))
		})
	})
	t.Run("containerd is restarted", func(t *testing.T) {
		underLoad(t, c, "containerd", once, func(ctx context.Context, _ realnode.Writer) {
			require.NoError(t, n.StopContainerd(ctx))
			time.Sleep(5 * time.Second)
			require.NoError(t, n.StartContainerd(ctx))
		})
	})
	t.Run("the API server is away", func(t *testing.T) {
		long(t)
		underLoad(t, c, "api-server", once, func(ctx context.Context, _ realnode.Writer) {
			require.NoError(t, c.StopAPIServer(ctx))
			time.Sleep(rest)
			require.NoError(t, c.StartAPIServer(ctx))
		})
	})
	t.Run("the node is drained", func(t *testing.T) {
		ctx := within(t, 3*time.Minute)
		w := realnode.Writer{Tenant: "drained", Name: "drained", Node: n.Name, Rate: 2000}
		tenant(t, c, w.Tenant)
		require.NoError(t, c.StartWriter(ctx, w))
		time.Sleep(3 * time.Second)
		cordon(t, c, n.Name, true)
		defer cordon(t, c, n.Name, false)
		lines, err := c.Evict(ctx, w)
		require.NoError(t, err)
		judge(t, c, w, lines, once)
	})
	t.Run("its disk is under pressure", func(t *testing.T) {
		long(t)
		pressure(t, c, n)
	})
	t.Run("pods live for 200 ms", func(t *testing.T) { shortLives(t, c, size(t, "E2E_SHORT_LIVES", 20), 1) })
	t.Run("many pods start at once", func(t *testing.T) { shortLives(t, c, size(t, "E2E_PODS", 30), 1000) })
	t.Run("init containers, sidecars, ephemeral containers", func(t *testing.T) { kinds(t, c) })
	t.Run("the agent is killed for its memory", func(t *testing.T) {
		underLoad(t, c, "oom", perhapsTwice, func(ctx context.Context, _ realnode.Writer) {
			before := onFirstNode(t, c, agents(t, c))
			container := realnode.ContainerID(before)
			require.NoError(t, n.LimitMemory(ctx, container, 256<<10))
			require.NoError(t, c.Until(ctx, "the agent is killed", func() (bool, error) { return n.KilledForMemory(ctx, container) }))
			require.NoError(t, n.FreeMemory(ctx, container))
			killed := time.Now()
			require.NoError(t, c.Until(ctx, "an agent is ready", func() (bool, error) {
				s := onFirstNode(t, c, agents(t, c)).Status.ContainerStatuses[0]
				if last := s.LastTerminationState.Terminated; last != nil && s.Ready {
					t.Logf("the agent's container ended: %s, exit code %d", last.Reason, last.ExitCode)
					return true, nil
				}
				// Where a child of the container's first process was killed, the container goes on.
				return s.Ready && time.Since(killed) > 10*time.Second, nil
			}))
		})
	})
	t.Run("the node is killed and starts again", func(t *testing.T) {
		ctx := within(t, 5*time.Minute)
		w := realnode.Writer{Tenant: "killed", Name: "killed", Node: n.Name, Rate: 2000}
		tenant(t, c, w.Tenant)
		require.NoError(t, c.StartWriter(ctx, w))
		time.Sleep(5 * time.Second)
		require.NoError(t, n.Kill(ctx))
		// What was on its way from the container to the file is lost with the container. All else counts.
		lines, err := c.OnDisk(w)
		require.NoError(t, err)
		arrived := c.Lines.Arrived(w.Name)
		began := time.Now()
		require.NoError(t, n.Boot(ctx))
		t.Logf("killed with %d lines on its disk, of which %d had arrived; Ready again after %.1f s", lines, arrived, time.Since(began).Seconds())
		judge(t, c, w, lines, perhapsTwice)
	})
}

// What is taken.
const (
	once         = false
	perhapsTwice = true // as delivery.md names it: what was accepted, and not yet known to be, when the agent was killed
)

// underLoad has a pod write while do happens, and judges its lines.
func underLoad(t *testing.T, c *realnode.Cluster, name string, twice bool, do func(context.Context, realnode.Writer)) {
	t.Helper()
	ctx := within(t, 5*time.Minute)
	w := realnode.Writer{Tenant: name, Name: name, Node: c.Nodes[0].Name, Rate: 2000}
	tenant(t, c, w.Tenant)
	require.NoError(t, c.StartWriter(ctx, w))
	require.NoError(t, c.Until(ctx, "its first lines arrive", func() (bool, error) { return c.Lines.Arrived(w.Name) > 0, nil }))
	do(ctx, w)
	time.Sleep(3 * time.Second)
	lines, err := c.StopWriter(ctx, w)
	require.NoError(t, err)
	judge(t, c, w, lines, twice)
}

// judge waits for a writer's lines and says what became of them. containerd cuts a line in about one of 80 rotations: its
// beginning is in one file, and its end in the next.
func judge(t *testing.T, c *realnode.Cluster, w realnode.Writer, lines int, twice bool) {
	t.Helper()
	judgeCut(t, c, w, lines, twice, 1)
}

// judgeCut is judge where it is known how many lines were cut at most.
func judgeCut(t *testing.T, c *realnode.Cluster, w realnode.Writer, lines int, twice bool, cut int) {
	t.Helper()
	count := c.Lines.Settle(within(t, 3*time.Minute), w.Name, lines, 30*time.Second)
	t.Logf("%s: %s", w.Name, count)
	assert.Zero(t, count.Lost, "lost")
	assert.Zero(t, count.Glued, "two lines in one event")
	if !twice {
		assert.Zero(t, count.Twice, "twice")
		assert.LessOrEqual(t, count.Cut, cut, "cut in two, and not by the runtime")
		assert.Equal(t, count.Cut, c.Lines.Ends(realnode.Group(w.Tenant)), "the ends of lines that were cut in two")
	}
	assert.Empty(t, count.Others(realnode.Group(w.Tenant)), "groups where they do not belong")
}

// pressure has the kubelet evict pods for want of disk. The agent stays, and the evicted pod's lines arrive.
func pressure(t *testing.T, c *realnode.Cluster, n *realnode.Node) {
	t.Helper()
	ctx := within(t, 4*time.Minute)
	w := realnode.Writer{Tenant: "pressed", Name: "pressed", Node: n.Name, Rate: 2000}
	tenant(t, c, w.Tenant)
	require.NoError(t, c.StartWriter(ctx, w))
	require.NoError(t, c.Until(ctx, "its first lines arrive", func() (bool, error) { return c.Lines.Arrived(w.Name) > 0, nil }))
	files, err := c.WatchRotations(w)
	require.NoError(t, err)
	defer files.Stop()
	agent := onFirstNode(t, c, agents(t, c))
	restore := sync.OnceFunc(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
		defer cancel()
		require.NoError(t, n.KeepFree(ctx, "1%"))
		require.NoError(t, n.Restore(ctx))
		require.NoError(t, c.Until(ctx, "the pressure is over, and the release's pods are ready", func() (bool, error) {
			node, err := c.Admin.CoreV1().Nodes().Get(ctx, n.Name, metav1.GetOptions{})
			if err != nil || slices.ContainsFunc(node.Spec.Taints, func(taint corev1.Taint) bool { return taint.Key == corev1.TaintNodeDiskPressure }) {
				return false, err
			}
			d, err := c.Admin.AppsV1().Deployments(realnode.ReleaseNamespace).Get(ctx, realnode.ReleaseName+"-provisioner", metav1.GetOptions{})
			return err == nil && d.Status.ReadyReplicas == *d.Spec.Replicas, err
		}))
	})
	defer restore()
	require.NoError(t, n.KeepFree(ctx, "99%"))
	require.NoError(t, c.Until(ctx, "the pod is evicted", func() (bool, error) {
		p, err := c.Admin.CoreV1().Pods(w.Namespace()).Get(ctx, w.Name, metav1.GetOptions{})
		return err == nil && p.Status.Phase == corev1.PodFailed && p.Status.Reason == "Evicted", err
	}))
	// An evicted pod has no last message, and its files are gone.
	lines, err := files.OnDisk(w)
	require.NoError(t, err)
	time.Sleep(15 * time.Second) // the kubelet looks each 10 s, and would come to the agent next
	after := onFirstNode(t, c, agents(t, c))
	require.Equal(t, agent.UID, after.UID, "the agent is not evicted")
	require.True(t, after.Status.ContainerStatuses[0].Ready)
	require.Equal(t, agent.Status.ContainerStatuses[0].RestartCount, after.Status.ContainerStatuses[0].RestartCount)
	restore()
	judge(t, c, w, lines, once)
}

// cordon has no pods come to a node, or again.
func cordon(t *testing.T, c *realnode.Cluster, name string, so bool) {
	t.Helper()
	ctx := within(t, time.Minute)
	node, err := c.Admin.CoreV1().Nodes().Get(ctx, name, metav1.GetOptions{})
	require.NoError(t, err)
	node.Spec.Unschedulable = so
	_, err = c.Admin.CoreV1().Nodes().Update(ctx, node, metav1.UpdateOptions{})
	require.NoError(t, err)
}

// shortLives makes pods that write some lines and end, so many at once, and deletes each as soon as it has ended.
func shortLives(t *testing.T, c *realnode.Cluster, pods, atOnce int) {
	t.Helper()
	ctx := within(t, 10*time.Minute)
	const lines = 50
	name := fmt.Sprint("short", atOnce)
	tenant(t, c, name)
	began := time.Now()
	failed := make(chan error, pods)
	slots := make(chan struct{}, atOnce)
	var writers []realnode.Writer
	for i := range pods {
		w := realnode.Writer{Tenant: name, Name: fmt.Sprintf("%s-%d", name, i), Lines: lines}
		writers = append(writers, w)
		go func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			now := int64(0)
			_, err := c.Admin.CoreV1().Pods(w.Namespace()).Create(ctx, w.Pod(), metav1.CreateOptions{})
			if err == nil {
				_, err = c.Written(ctx, w)
			}
			if err == nil {
				err = c.Admin.CoreV1().Pods(w.Namespace()).Delete(ctx, w.Name, metav1.DeleteOptions{GracePeriodSeconds: &now})
			}
			failed <- err
		}()
	}
	for range pods {
		require.NoError(t, <-failed)
	}
	t.Logf("%d pods came and went in %.1f s", pods, time.Since(began).Seconds())
	var all realnode.Count
	for _, w := range writers {
		count := c.Lines.Settle(ctx, w.Name, lines, 10*time.Second)
		all.Lines, all.Lost, all.Twice = all.Lines+count.Lines, all.Lost+count.Lost, all.Twice+count.Twice
		assert.Empty(t, count.Others(realnode.Group(w.Tenant)))
	}
	t.Logf("%d pods: %s", pods, all)
	assert.Zero(t, all.Lost, "lost")
	assert.Zero(t, all.Twice, "twice")
}

// kinds has each kind of container write.
func kinds(t *testing.T, c *realnode.Cluster) {
	t.Helper()
	ctx := within(t, 3*time.Minute)
	tenant(t, c, "kinds")
	const lines = 500
	always := corev1.ContainerRestartPolicyAlways
	container := func(name string, stay bool) (realnode.Writer, corev1.Container) {
		w := realnode.Writer{Tenant: "kinds", Name: "kind-" + name, Lines: lines, Stay: stay}
		made := w.Container()
		made.Name = name
		return w, made
	}
	first, initial := container("init", false)
	second, sidecar := container("sidecar", true)
	sidecar.RestartPolicy = &always
	third, main := container("main", true)
	fourth, ephemeral := container("ephemeral", false)
	pod := third.Pod()
	pod.Name = "kinds"
	pod.Spec.InitContainers, pod.Spec.Containers = []corev1.Container{initial, sidecar}, []corev1.Container{main}
	pods := c.Admin.CoreV1().Pods("tenant-kinds")
	_, err := pods.Create(ctx, pod, metav1.CreateOptions{})
	require.NoError(t, err)
	require.NoError(t, c.Until(ctx, "the pod runs", func() (bool, error) {
		p, err := pods.Get(ctx, "kinds", metav1.GetOptions{})
		return err == nil && p.Status.Phase == corev1.PodRunning, err
	}))
	p, err := pods.Get(ctx, "kinds", metav1.GetOptions{})
	require.NoError(t, err)
	p.Spec.EphemeralContainers = append(p.Spec.EphemeralContainers, corev1.EphemeralContainer{EphemeralContainerCommon: corev1.EphemeralContainerCommon{
		Name: "ephemeral", Image: ephemeral.Image, ImagePullPolicy: ephemeral.ImagePullPolicy, Args: ephemeral.Args,
	}})
	_, err = pods.UpdateEphemeralContainers(ctx, "kinds", p, metav1.UpdateOptions{})
	require.NoError(t, err)
	for _, w := range []realnode.Writer{first, second, third, fourth} {
		judge(t, c, w, lines, once)
	}
}

// onFirstNode is the one of these pods that runs there.
func onFirstNode(t *testing.T, c *realnode.Cluster, pods []corev1.Pod) corev1.Pod {
	t.Helper()
	i := slices.IndexFunc(pods, func(p corev1.Pod) bool { return p.Spec.NodeName == c.Nodes[0].Name })
	require.GreaterOrEqual(t, i, 0)
	return pods[i]
}
