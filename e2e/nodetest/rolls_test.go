package nodetest

import (
	"context"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"

	"github.com/eks-tenant-logs/eks-tenant-logs/e2e/node"
	"github.com/eks-tenant-logs/eks-tenant-logs/e2e/realnode"
	"github.com/eks-tenant-logs/eks-tenant-logs/internal/fakeaws"
)

// An upgrade replaces the agent while a pod writes and its file is rotated each few seconds. E2E_ROLLS is how often, E2E_RATE the pod's lines a
// second, of 200 bytes.
func TestRollsOfTheAgentLoseNoLineWhileFilesAreRotated(t *testing.T) {
	c := onFluentBit(t)
	released(t, c)
	rollUnderLoad(t, c, size(t, "E2E_ROLLS", 3), "quick")
}

// The old agent ends slowly then: its flushes wait for an answer, up to Grace. E2E_SLOW_ROLLS is how often; none by default, for each takes a minute.
func TestRollsOfTheAgentLoseNoLineWhileCloudWatchIsSlow(t *testing.T) {
	rolls := size(t, "E2E_SLOW_ROLLS", 0)
	if rolls == 0 {
		t.Skip("E2E_SLOW_ROLLS is not set")
	}
	c := onFluentBit(t)
	released(t, c)
	// Less than the plugin waits for a call.
	wait := time.Duration(size(t, "E2E_SLOW_SECONDS", 8)) * time.Second
	slow := func(call fakeaws.Call) error {
		if call.Operation == "PutLogEvents" {
			time.Sleep(wait)
		}
		return nil
	}
	rollUnderLoad(t, c, rolls, "slow", func() { c.AWS.SetIntercept(nil) }, func() { c.AWS.SetIntercept(slow) })
}

// The same while nothing answers at all.
func TestRollsOfTheAgentLoseNoLineWhileCloudWatchIsAway(t *testing.T) {
	rolls := size(t, "E2E_SLOW_ROLLS", 0)
	if rolls == 0 {
		t.Skip("E2E_SLOW_ROLLS is not set")
	}
	c := onFluentBit(t)
	released(t, c)
	rollUnderLoad(t, c, rolls, "away", func() { require.NoError(t, c.AWS.Gate.Set(node.Open)) }, func() { require.NoError(t, c.AWS.Gate.Set(node.Silent)) })
}

// Without a roll, too: a line that is under way while a file is rotated begins in one file and ends in the next.
func TestRotationsLoseNoLine(t *testing.T) {
	long(t)
	c := onFluentBit(t)
	released(t, c)
	rollUnderLoad(t, c, 0, "rotated")
}

// An upgrade to other values, and the way back, are rolls, too.
func TestAnUpgradeAndTheWayBackLoseNoLine(t *testing.T) {
	long(t)
	c := onFluentBit(t)
	released(t, c)
	underLoad(t, c, "upgraded", once, func(ctx context.Context, _ realnode.Writer) {
		require.NoError(t, c.Upgrade(ctx, realnode.Values{"fluentBit": realnode.Values{"config": realnode.Values{"flush": 2}, "minReadySeconds": 0}}))
		_, err := c.Helm(ctx, "rollback", realnode.ReleaseName, "1", "--namespace", realnode.ReleaseNamespace, "--wait", "--timeout", "3m")
		require.NoError(t, err)
	})
}

// A new version is rolled out, and taken back: two images with other contents. E2E_VERSIONS is how often.
func TestARollOfVersionsAndTheWayBackLoseNoLine(t *testing.T) {
	c := onFluentBit(t)
	released(t, c)
	const next = "99.0.0"
	began := time.Now()
	require.NoError(t, c.AddVersion(within(t, 10*time.Minute), next))
	t.Logf("images of version %s: %.1f s", next, time.Since(began).Seconds())
	rounds := size(t, "E2E_VERSIONS", 1)
	ctx := within(t, time.Duration(rounds+2)*5*time.Minute)
	w := realnode.Writer{Tenant: "versions", Name: "versions", Node: c.Nodes[0].Name, Rate: float64(size(t, "E2E_RATE", 5000)), Size: 200}
	tenant(t, c, w.Tenant)
	require.NoError(t, c.StartWriter(ctx, w))
	require.NoError(t, c.Until(ctx, "its first lines arrive", func() (bool, error) { return c.Lines.Arrived(w.Name) > 0, nil }))
	files, err := c.WatchRotations(w)
	require.NoError(t, err)
	began = time.Now()
	is := func(version, said string) {
		t.Helper()
		for _, p := range append(agents(t, c), provisioners(t, c)...) {
			require.True(t, strings.HasSuffix(p.Spec.Containers[0].Image, ":"+version), p.Spec.Containers[0].Image)
		}
		log, err := c.Admin.CoreV1().Pods(realnode.ReleaseNamespace).GetLogs(onFirstNode(t, c, agents(t, c)).Name, &corev1.PodLogOptions{}).DoRaw(ctx)
		require.NoError(t, err)
		require.Contains(t, string(log), said)
	}
	roll := func(what string, do func()) {
		t.Helper()
		old, at := agents(t, c), time.Now()
		do()
		renewed := agents(t, c)
		require.NotEqual(t, onFirstNode(t, c, old).Name, onFirstNode(t, c, renewed).Name)
		ended, started := gap(t, c, old, renewed)
		t.Logf("%s: %.0f s; the old agent ended after %.1f s, the new one started %.1f s later", what, time.Since(at).Seconds(), ended.Sub(at).Seconds(), started.Sub(ended).Seconds())
		time.Sleep(5 * time.Second) // the new agent has caught up
	}
	tag := realnode.Values{"image": realnode.Values{"tag": next}}
	for range rounds {
		is(c.Images.Version(), " starting version=dev ")
		roll("upgrade", func() {
			require.NoError(t, c.Upgrade(ctx, realnode.Values{"fluentBit": tag, "provisioner": tag}))
		})
		is(next, " starting version="+next+" ")
		roll("rollback", func() {
			_, err := c.Helm(ctx, "rollback", realnode.ReleaseName, "--namespace", realnode.ReleaseNamespace, "--wait", "--timeout", "3m")
			require.NoError(t, err)
		})
	}
	is(c.Images.Version(), " starting version=dev ")
	lines, err := c.StopWriter(ctx, w)
	require.NoError(t, err)
	t.Logf("%d rolls in %.0f s, %d rotations", 2*rounds, time.Since(began).Seconds(), len(files.Stop()))
	cut, err := files.Cut()
	require.NoError(t, err)
	judgeCut(t, c, w, lines, once, cut)
}

// aheads are how long before a rotation a roll begins: in some of them nothing reads between the old agent and the new one when it comes.
var aheads = []time.Duration{1200 * time.Millisecond, 800 * time.Millisecond, 1600 * time.Millisecond, 400 * time.Millisecond, 2 * time.Second, 0}

// rollUnderLoad rolls the agents while a pod of the first node writes, and counts. The functions after are called when all rolls are done, and, if
// there is a second, before the first.
func rollUnderLoad(t *testing.T, c *realnode.Cluster, rolls int, name string, trouble ...func()) {
	t.Helper()
	w := realnode.Writer{Tenant: "rolls-" + name, Name: "rolled-" + name, Node: c.Nodes[0].Name, Rate: float64(size(t, "E2E_RATE", 5000)), Size: 200}
	tenant(t, c, w.Tenant)
	over := func() {}
	if len(trouble) > 0 {
		over = sync.OnceFunc(trouble[0])
	}
	defer over() // also where it fails before
	ctx := within(t, time.Duration(rolls+4)*3*time.Minute)
	require.NoError(t, c.StartWriter(ctx, w))
	require.NoError(t, c.Until(ctx, "its first lines arrive", func() (bool, error) { return c.Lines.Arrived(w.Name) > 0, nil }))
	if len(trouble) > 1 {
		trouble[1]()
	}
	began := time.Now()
	rotations, err := c.WatchRotations(w)
	require.NoError(t, err)
	type roll struct {
		at, ready time.Time
		first     int // the number of a line that was read before it
		old, new  []corev1.Pod
	}
	var all []roll
	for i := range rolls {
		time.Sleep(5 * time.Second) // the new agent has caught up
		rotations.Before(aheads[i%len(aheads)], rotationInterval)
		r := roll{at: time.Now(), first: c.Lines.Highest(w.Name), old: agents(t, c)}
		require.NoError(t, c.Roll(ctx))
		r.ready = time.Now()
		r.new = agents(t, c)
		require.NotEqual(t, onFirstNode(t, c, r.old).Name, onFirstNode(t, c, r.new).Name)
		all = append(all, r)
	}
	time.Sleep(5 * time.Second)
	if rolls == 0 {
		time.Sleep(time.Duration(size(t, "E2E_ROTATED", 10)) * time.Second)
	}
	over()
	lines, err := c.StopWriter(ctx, w)
	require.NoError(t, err)
	took := time.Since(began)
	count := c.Lines.Settle(ctx, w.Name, lines, 60*time.Second)
	times := rotations.Stop()
	for i, r := range all {
		end := lines
		if i+1 < len(all) {
			end = all[i+1].first
		}
		ended, started := gap(t, c, r.old, r.new)
		during := 0
		for _, at := range times {
			if at.After(r.at) && at.Before(started) {
				during++
			}
		}
		t.Logf("roll %d at %s: the old agent ended after %.1f s, the new one started %.1f s later (%d rotations until then) and was ready after %.1f s; from there on %s", i+1, r.at.UTC().Format("15:04:05.0"),
			ended.Sub(r.at).Seconds(), started.Sub(ended).Seconds(), during, r.ready.Sub(r.at).Seconds(), c.Lines.Between(w.Name, r.first, end))
	}
	t.Logf("%d rolls in %.0f s, %d rotations, %.0f lines/s: %s", rolls, took.Seconds(), len(times), float64(lines)/took.Seconds(), count)
	for _, r := range count.Missing {
		if r.First == r.Last {
			t.Logf("line %d, lost alone, beside lines that arrived: %s; in the kubelet's files:\n%s", r.First, c.Lines.Around(w.Name, r.First), rotations.Show(w, r.First))
		}
	}
	assert.Zero(t, count.Lost, "lost")
	assert.Zero(t, count.Twice, "twice")
	assert.Zero(t, count.Glued, "two lines in one event")
	cut, err := rotations.Cut()
	require.NoError(t, err)
	assert.LessOrEqual(t, count.Cut, cut, "cut in two, and not by the runtime")
	assert.Equal(t, count.Cut, c.Lines.Ends(realnode.Group(w.Tenant)), "the ends of lines that were cut in two")
	assert.Empty(t, count.Others(realnode.Group(w.Tenant)), "groups where they do not belong")
}

func agents(t *testing.T, c *realnode.Cluster) []corev1.Pod {
	t.Helper()
	pods, err := c.Agents(within(t, time.Minute))
	require.NoError(t, err)
	require.Len(t, pods, len(c.Nodes))
	return pods
}

// gap is when the first node's old agent had ended, and its new one started.
func gap(t *testing.T, c *realnode.Cluster, old, renewed []corev1.Pod) (ended, started time.Time) {
	t.Helper()
	starts, ends, err := c.Nodes[0].Tasks()
	require.NoError(t, err)
	ended, started = ends[realnode.ContainerID(onFirstNode(t, c, old))], starts[realnode.ContainerID(onFirstNode(t, c, renewed))]
	require.False(t, ended.IsZero() || started.IsZero(), "containerd's events have the agents' end and start")
	return ended, started
}
