package e2e

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/eks-tenant-logs/eks-tenant-logs/e2e/node"
	"github.com/eks-tenant-logs/eks-tenant-logs/internal/fakeaws"
)

// Promise 3 over the kill of the chart's agent under load: nothing that it read is lost.

// underLoad is the chart's agent on a node whose pods write without a pause.
type underLoad struct {
	*chartAgent
	load  *node.Load
	state string
	end   func() // of writing
}

func newUnderLoad(t *testing.T, rate int, more map[string]string, args ...string) *underLoad {
	t.Helper()
	e := onFluentBit(t)
	l := node.NewLoad(rate, 60)
	cw, _ := standIn(t, fakeaws.Config{Latency: 20 * time.Millisecond, DiscardMessages: true, Observe: l.Observe})
	n := newNode(t)
	tenants := filepath.Join(t.TempDir(), "tenants.yaml")
	require.NoError(t, os.WriteFile(tenants, []byte("version: 1\n"), 0o600))
	u := &underLoad{load: l, state: stateFolder(t)}
	u.chartAgent = newAgent(t, e, cw, n, u.state, tenants, more, args...)
	stop := make(chan struct{})
	var running sync.WaitGroup
	l.Start(n, stop, &running)
	var once sync.Once
	u.end = func() { once.Do(func() { close(stop); running.Wait() }) }
	t.Cleanup(u.end)
	return u
}

// stateFolder is a folder without a comma in its path, which is a list's separator in options.
func stateFolder(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "state-")
	require.NoError(t, err)
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// killed starts the agent and kills it at some moment between two flushes.
func (u *underLoad) killed(t *testing.T) {
	t.Helper()
	cmd, _ := u.start(t)
	time.Sleep(2*time.Second + rand.N(1500*time.Millisecond))
	require.NoError(t, cmd.Process.Kill())
	var exit *exec.ExitError
	require.ErrorAs(t, cmd.Wait(), &exit)
}

// outcome is what has become of the lines once no further ones arrive.
func (u *underLoad) outcome(t *testing.T) node.Outcome {
	t.Helper()
	u.end()
	cmd, _ := u.start(t)
	last, since := node.Outcome{}, time.Now()
	for !u.load.Complete() && time.Since(since) < 10*time.Second {
		time.Sleep(100 * time.Millisecond)
		now, err := u.load.Outcome()
		require.NoError(t, err)
		if now != last {
			last, since = now, time.Now()
		}
	}
	terminate(t, cmd)
	o, err := u.load.Outcome()
	require.NoError(t, err)
	return o
}

// chunks are the chunks in the agent's storage, with their sizes.
func (u *underLoad) chunks(t *testing.T) map[string]int64 {
	t.Helper()
	all := map[string]int64{}
	require.NoError(t, filepath.WalkDir(filepath.Join(u.state, "storage"), func(path string, d fs.DirEntry, err error) error {
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		if err == nil && filepath.Ext(path) == ".flb" {
			if info, err := d.Info(); err == nil {
				all[path] = info.Size()
			}
		}
		return nil
	}))
	return all
}

// loadRate is lines a second: $E2E_RATE where the machine has the test to itself.
func loadRate(t *testing.T) int {
	if v := os.Getenv("E2E_RATE"); v != "" {
		given, err := strconv.Atoi(v)
		require.NoError(t, err)
		return given
	}
	return 20_000
}

// kills kills the agent several times by kill, which returns once it has ended.
func (u *underLoad) kills(t *testing.T, kill func(t *testing.T)) (o node.Outcome, ends int) {
	t.Helper()
	ends = rounds(t, 3)
	for range ends {
		kill(t)
	}
	o = u.outcome(t)
	t.Logf("%d kills at %d lines/s: %+v; chunks left: %d", ends, loadRate(t), o, len(u.chunks(t)))
	return o, ends
}

// requireKept is what a kill may bring: what CloudWatch accepted and Fluent Bit had not noted comes
// again: a fifth of a second's lines (docs/faults.md). A second's are no failure on a slow machine.
func requireKept(t *testing.T, u *underLoad, o node.Outcome, ends int) {
	t.Helper()
	require.Zero(t, o.Lost)
	require.Zero(t, o.Damaged, o.Example)
	require.LessOrEqual(t, o.Twice, ends*loadRate(t))
	for path, size := range u.chunks(t) {
		require.Zero(t, size, "%s stays", path)
	}
}

func TestAKillUnderLoadLosesNothing(t *testing.T) {
	u := newUnderLoad(t, loadRate(t), nil)
	o, ends := u.kills(t, u.killed)
	requireKept(t, u, o, ends)
}

// Why the chart has them off.
func TestChecksumsLoseWhatIsBeingWrittenAtAKill(t *testing.T) {
	u := newUnderLoad(t, loadRate(t), checksums)
	o, _ := u.kills(t, u.killed)
	require.Positive(t, o.Lost, "Fluent Bit keeps what is being written with checksums, too: the chart may set them")
	require.NotEmpty(t, u.chunks(t), "it leaves what it refuses")
}

var checksums = map[string]string{`storage.checksum: "off"`: `storage.checksum: "on"`}

// The kernel's kill where the container's memory is used up is one like any other. Files in memory
// use it up here, so that the agent needs no fault of its own.
func TestAnOutOfMemoryKillUnderLoadLosesNothing(t *testing.T) {
	u := newUnderLoad(t, loadRate(t), nil)
	m, err := node.NewMemory(256 << 20)
	if err != nil {
		t.Skipf("needs the right to make a memory cgroup (%v); NOT tested here", err)
	}
	t.Cleanup(func() { require.NoError(t, m.Remove()) })
	u.args = m.Command(u.args...)
	files := smallVolume(t, "300m")
	o, ends := u.kills(t, func(t *testing.T) {
		before := m.Kills()
		cmd, log := u.start(t)
		time.Sleep(2*time.Second + rand.N(time.Second))
		ended := make(chan error, 1)
		go func() { ended <- cmd.Wait() }()
		for n := 0; ; n++ {
			require.Less(t, n, 300, "%s", log)
			mb := m.Command("dd", "status=none", "if=/dev/zero", "of="+filepath.Join(files, strconv.Itoa(n)), "bs=64K", "count=16")
			_ = exec.CommandContext(t.Context(), mb[0], mb[1:]...).Run() //nolint:gosec // dd, which may be killed as well
			select {
			case err := <-ended:
				var exit *exec.ExitError
				require.ErrorAs(t, err, &exit)
				require.Equal(t, syscall.SIGKILL, exit.Sys().(syscall.WaitStatus).Signal())
				require.Greater(t, m.Kills(), before, "the kernel killed it")
				all, err := filepath.Glob(filepath.Join(files, "*"))
				require.NoError(t, err)
				for _, file := range all {
					require.NoError(t, os.Remove(file))
				}
				return
			default:
			}
		}
	})
	requireKept(t, u, o, ends)
}

// tear is one way in which a power loss leaves a chunk.
type tear struct {
	name    string
	tear    func(b []byte) []byte
	least   int  // lines that arrive, without checksums
	refused bool // the file stays
	cut     int  // lines that arrive with NULs for their ends, at most
}

// pod is the one whose lines are in the chunk.
func (x tear) pod() node.Pod {
	p := slices.IndexFunc(tears, func(other tear) bool { return other.name == x.name })
	return node.Pod{Namespace: fmt.Sprint("tenant-t", p%7), Name: fmt.Sprint("pod-", p), Container: "c"}
}

// tears are what a file system shows after a power loss of a chunk whose size was written and whose
// blocks were not, or neither, and what comes of the chunk's 1,000 lines of 530 bytes.
var tears = []tear{
	{"whole", func(b []byte) []byte { return b }, tornLines, false, 0},
	{"shorter by what was never used", func(b []byte) []byte { return b[:(len(b)-1)/block*block] }, tornLines, false, 0},
	{"shorter by half", func(b []byte) []byte { return b[:middle(b)] }, 0, true, 0},
	{"empty", func([]byte) []byte { return nil }, 0, false, 0},
	{"zeros in its second half", func(b []byte) []byte { return zeros(b, middle(b), len(b)) }, tornLines * 4 / 10, false, 1},
	{"zeros in one block", func(b []byte) []byte { return zeros(b, middle(b), middle(b)+block) }, tornLines * 4 / 10, false, 1},
	{"zeros behind its first block", func(b []byte) []byte { return zeros(b, block, len(b)) }, 5, false, 1},
	{"zeros in its first block", func(b []byte) []byte { return zeros(b, 0, block) }, 0, true, 0},
	{"zeros alone", func(b []byte) []byte { return zeros(b, 0, len(b)) }, 0, true, 0},
}

const (
	block     = 4096 // of ext4 and xfs
	tornLines = 1000
)

func middle(b []byte) int { return len(b) / 2 / block * block }

func zeros(b []byte, from, to int) []byte {
	clear(b[from:to])
	return b
}

// afterATear is what became of one torn chunk.
type afterATear struct {
	whole int // of its lines, arrived as they were written
	cut   int // arrived with NULs for their ends
	stays bool
}

// torn has an agent keep a chunk for each tear, tears it once the agent has ended, and starts the agent twice.
func torn(t *testing.T, more map[string]string) (after []afterATear, refused int) {
	t.Helper()
	e := onFluentBit(t)
	cw, s, g := gate(t, fakeaws.Config{})
	n := newNode(t)
	tenants := filepath.Join(t.TempDir(), "tenants.yaml")
	require.NoError(t, os.WriteFile(tenants, []byte("version: 1\n"), 0o600))
	u := &underLoad{state: stateFolder(t)}
	// No flush before all is read, so that a pod's lines are in one chunk.
	u.chartAgent = newAgent(t, e, cw, n, u.state, tenants, more, "--set", "fluentBit.config.flush=60,fluentBit.config.flushTimeout=2,fluentBit.config.grace=5")
	require.NoError(t, g.Set(node.Refused))
	writeMore(t, n, map[string]int{}, len(tears), 0, tornLines)
	cmd, log := u.start(t)
	require.Eventually(t, func() bool {
		return value(page("http://"+u.fluentBit+"/api/v2/metrics/prometheus"), "fluentbit_input_records_total", "tail.0") >= float64(len(tears)*tornLines)
	}, time.Minute, 50*time.Millisecond, "%s", log)
	terminate(t, cmd)

	files := map[string]int{} // the pod of each
	for path := range u.chunks(t) {
		b, err := os.ReadFile(path)
		require.NoError(t, err)
		pod := slices.IndexFunc(tears, func(x tear) bool { return bytes.Contains(b[:min(len(b), 1000)], []byte("_"+x.pod().Name+"_")) })
		require.GreaterOrEqual(t, pod, 0, "a chunk tells its tag")
		require.NotContains(t, slices.Collect(maps.Values(files)), pod, "a pod's lines are in one chunk")
		files[path] = pod
		require.NoError(t, os.WriteFile(path, tears[pod].tear(b), 0o600))
	}
	require.Len(t, files, len(tears))
	require.NoError(t, g.Set(node.Open))
	u.chartAgent = newAgent(t, e, cw, n, u.state, tenants, more)
	for range 2 {
		cmd, _ = u.start(t)
		last, since := -1, time.Now()
		for time.Since(since) < 4*time.Second { // backlog is taken up, and leaves, once a second
			time.Sleep(100 * time.Millisecond)
			if now := s.Accepted(); now != last {
				last, since = now, time.Now()
			}
		}
		refused = sampleAt("http://"+u.metrics+"/metrics", `tenantlogs_storage_refused_chunks{output="cloudwatch_tenants.0"}`)
		terminate(t, cmd) // no crash
	}
	after = make([]afterATear, len(tears))
	for path := range u.chunks(t) {
		after[files[path]].stays = true
	}
	for i, x := range tears {
		for _, ev := range s.Events("/eks/tenants/"+strings.TrimPrefix(x.pod().Namespace, "tenant-"), x.pod().Stream()) {
			if strings.Contains(ev.Message, strings.Repeat("x", 400)+"#") {
				after[i].whole++
				continue
			}
			require.Contains(t, ev.Message, `"log":"a line of some length, as they are xxx`, "a line's beginning, and nothing else")
			require.Contains(t, ev.Message, `x\u0000`)
			after[i].cut++
		}
		t.Logf("%-32s %4d of %d lines arrived, %d cut; stays: %v", x.name, after[i].whole, tornLines, after[i].cut, after[i].stays)
	}
	return after, refused
}

func TestATornChunkIsDeliveredAsFarAsItIsWhole(t *testing.T) {
	after, refused := torn(t, nil)
	stay := 0
	for i, x := range tears {
		require.GreaterOrEqual(t, after[i].whole, x.least, x.name)
		require.LessOrEqual(t, after[i].cut, x.cut, x.name)
		require.Equal(t, x.refused, after[i].stays, x.name)
		if x.refused {
			stay++
		}
	}
	require.Equal(t, stay, refused, "what stays is seen")
}

// Checksums deliver nothing of a torn chunk that is not delivered without them, and keep the rest of it.
func TestChecksumsLoseATornChunkWhole(t *testing.T) {
	after, _ := torn(t, checksums)
	for i, x := range tears {
		if x.least == tornLines {
			require.Equal(t, tornLines, after[i].whole, x.name)
			continue
		}
		require.Zero(t, after[i].whole+after[i].cut, "%s: Fluent Bit delivers part of it with checksums, too", x.name)
	}
}

// An upgrade delivers the chunks that were written with checksums; going back to them refuses those
// that were written without, until it is gone forward again.
func TestChunksWithChecksumsAreDeliveredWithoutAndNotTheOtherWayRound(t *testing.T) {
	e := onFluentBit(t)
	for name, test := range map[string]struct {
		first, then map[string]string
		delivered   bool
	}{
		"upgrade":    {checksums, nil, true},
		"going back": {nil, checksums, false},
	} {
		t.Run(name, func(t *testing.T) {
			cw, s, g := gate(t, fakeaws.Config{})
			n := newNode(t)
			tenants := filepath.Join(t.TempDir(), "tenants.yaml")
			require.NoError(t, os.WriteFile(tenants, []byte("version: 1\n"), 0o600))
			u := &underLoad{state: stateFolder(t)}
			agent := func(more map[string]string) *chartAgent {
				return newAgent(t, e, cw, n, u.state, tenants, more, "--set", "fluentBit.config.flushTimeout=2,fluentBit.config.grace=5")
			}
			want := map[string]int{}
			writeMore(t, n, want, 6, 0, 300)
			require.NoError(t, g.Set(node.Refused))
			a := agent(test.first)
			cmd, log := a.start(t)
			require.Eventually(t, func() bool {
				return value(page("http://"+a.fluentBit+"/api/v2/metrics/prometheus"), "fluentbit_input_records_total", "tail.0") >= float64(len(want))
			}, time.Minute, 50*time.Millisecond, "%s", log)
			terminate(t, cmd)
			require.NoError(t, g.Set(node.Open))
			arrive := func(more map[string]string) {
				cmd, log := agent(more).start(t)
				require.Eventually(t, arrived(s, len(want)), time.Minute, 50*time.Millisecond, "%s", log)
				terminate(t, cmd)
			}
			if !test.delivered {
				cmd, _ := agent(test.then).start(t)
				time.Sleep(6 * time.Second)
				terminate(t, cmd)
				require.Zero(t, s.Accepted())
				arrive(test.first)
			} else {
				arrive(test.then)
			}
			requireOnce(t, want, numbers(t, s))
		})
	}
}
