package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/eks-tenant-logs/eks-tenant-logs/e2e/host"
	"github.com/eks-tenant-logs/eks-tenant-logs/e2e/node"
	"github.com/eks-tenant-logs/eks-tenant-logs/internal/fluentbit"
)

// What the plugin takes for granted about Fluent Bit's calls of a Go output, asked of a real one with the plugin that
// the project's host is tested with, which writes down each call. `make fluent-bit-check` begins with this.

// factsConfig has an output for each fact; dummy stands for tail, for what is asked comes behind the inputs.
const factsConfig = `
[SERVICE]
    flush 0.2
    grace 2
    log_level info
    scheduler.base 1
    scheduler.cap 2

[INPUT]
    name dummy
    tag workers
    samples 6
    rate 20
    dummy {"log":"x"}

[INPUT]
    name dummy
    tag engine
    samples 1
    dummy {"log":"x"}

[INPUT]
    name dummy
    tag error
    samples 1
    dummy {"log":"x"}

[OUTPUT]
    name testplugin
    match workers
    alias named
    id workers
    workers 2
    retry_first 1
    retry_limit no_limits
    probe id,Unheard_Of,unheard_of,missing,workers,match,alias,log_level
    unheard_of taken
    log yes

[OUTPUT]
    name testplugin
    match engine
    id engine

[OUTPUT]
    name testplugin
    match error
    id error
    workers 1
    return 0
    retry_limit no_limits
    log_level error
    log yes
`

type factCall struct {
	Call, ID, Tag, Hash string
	Thread, Return      int
	Probed              map[string]*string
}

func TestFluentBitCallsAGoOutputAsThePluginTakesForGranted(t *testing.T) {
	binary := onFluentBit(t).(node.FluentBit).Binary
	dir := t.TempDir()
	so, record, conf := filepath.Join(dir, "testplugin.so"), filepath.Join(dir, "calls"), filepath.Join(dir, "facts.conf")
	require.NoError(t, host.BuildPlugin(context.Background(), "./host/testplugin", so))
	require.NoError(t, os.WriteFile(conf, []byte(factsConfig), 0o600))
	log := newLog(t)
	cmd := exec.Command(binary, "-e", so, "-c", conf)
	cmd.Env = append(os.Environ(), "TESTPLUGIN_RECORD="+record)
	cmd.Stdout, cmd.Stderr = log, log
	require.NoError(t, cmd.Start())
	t.Cleanup(func() { _ = cmd.Process.Kill() })
	calls := func() (all []factCall) {
		b, err := os.ReadFile(record)
		if err != nil {
			return nil // not there yet
		}
		for dec := json.NewDecoder(bytes.NewReader(b)); dec.More(); {
			var c factCall
			if dec.Decode(&c) != nil {
				return all // half a line
			}
			all = append(all, c)
		}
		return all
	}
	of := func(id, call string, and func(factCall) bool) (some []factCall) {
		for _, c := range calls() {
			if (id == "" || c.ID == id) && c.Call == call && (and == nil || and(c)) {
				some = append(some, c)
			}
		}
		return some
	}
	ok := func(c factCall) bool { return c.Return == host.ReturnOK }
	require.Eventually(t, func() bool {
		chunks := map[string]bool{}
		for _, c := range of("workers", "flush", nil) {
			chunks[c.Hash] = true
		}
		return len(chunks) > 1 && len(of("workers", "flush", ok)) == len(chunks) && len(of("engine", "flush", ok)) == 1 && len(of("error", "flush", nil)) > 0
	}, time.Minute, 50*time.Millisecond)
	require.NoError(t, cmd.Process.Signal(syscall.SIGTERM))
	require.NoError(t, cmd.Wait())

	var order []string
	for _, c := range calls() {
		if c.Call != "flush" && c.Call != "preexit" && c.Call != "prerun" {
			order = append(order, c.Call)
		}
	}
	require.Equal(t, []string{"preregister", "register", "init", "init", "init", "exit", "exit", "exit", "unregister"}, order)
	require.NotEmpty(t, of("", "prerun", nil), "FLBPluginOutputPreRun is called: the warning of hot reload is there")

	init := map[string]factCall{}
	for _, c := range of("", "init", nil) {
		init[c.ID] = c
	}
	require.Len(t, init, 3, "the context of each output is its own")
	probed := init["workers"].Probed
	require.Equal(t, "taken", *probed["unheard_of"], "an option that Fluent Bit does not know is handed over")
	require.Equal(t, "taken", *probed["Unheard_Of"], "names of options have no case")
	require.Nil(t, probed["missing"])
	require.Nil(t, probed["workers"], "workers can't be read: that there are none is known by the thread")

	engine := init["engine"].Thread
	require.Equal(t, engine, init["workers"].Thread)
	require.Equal(t, engine, of("engine", "flush", nil)[0].Thread, "without workers a flush is on the thread of Init")
	threads := map[int]bool{}
	byChunk := map[string][]int{}
	for _, c := range of("workers", "flush", nil) {
		threads[c.Thread] = true
		byChunk[c.Hash] = append(byChunk[c.Hash], c.Return)
	}
	require.NotContains(t, threads, engine, "with workers a flush is on another thread")
	require.Len(t, threads, 2, "workers take turns")
	for _, returned := range byChunk {
		require.Equal(t, []int{host.ReturnRetry, host.ReturnOK}, returned, "RETRY brings the same bytes and tag again, whole; OK does not")
	}
	require.Len(t, of("error", "flush", nil), 1, "ERROR drops a chunk at once")
	require.Empty(t, of("", "flush without context", nil))
	require.Empty(t, of("", "exit without context", nil))

	require.Equal(t, 2, strings.Count(log.String(), "[test] level 1"), "errors of both that log")
	require.Equal(t, 1, strings.Count(log.String(), "[test] level 3"), "output_log_check tells each output's own log_level")
	require.Zero(t, strings.Count(log.String(), "[test] level 4"))
}

func TestFluentBitSaysItsVersionAsThePluginReadsIt(t *testing.T) {
	binary := onFluentBit(t).(node.FluentBit).Binary
	v, known := fluentbit.Find(within(t, time.Minute), fluentbit.Process{
		Executable: "/fluent-bit/bin/fluent-bit", Self: binary, Getenv: func(string) string { return "" },
		Run: func(ctx context.Context, program string, args ...string) ([]byte, error) {
			return exec.CommandContext(ctx, program, args...).Output()
		},
	})
	require.True(t, known, "--version is not what the plugin reads")
	require.NoError(t, fluentbit.Check(v))
	t.Logf("Fluent Bit %s", v)
}

// keepsConfig has two pods' files and an output that never delivers.
const keepsConfig = `
[SERVICE]
    flush 1
    grace 1
    log_level warn
    storage.path {dir}/storage
    storage.checksum on

[INPUT]
    name tail
    path {dir}/*.log
    tag kube.*
    read_from_head on
    buffer_chunk_size 64KB
    buffer_max_size 1MB
    storage.type filesystem

[OUTPUT]
    name http
    match *
    host 127.0.0.1
    port 1
    workers 1
    retry_limit no_limits
`

// docs/operations.md computes the room for an outage from this: what is logged, times 1.1, is too little for many pods that
// log little, because each flush makes a file for each pod.
func TestFluentBitKeepsAFileForEachPodAndFlush(t *testing.T) {
	binary := onFluentBit(t).(node.FluentBit).Binary
	dir := t.TempDir()
	conf := filepath.Join(dir, "keeps.conf")
	require.NoError(t, os.WriteFile(conf, []byte(strings.ReplaceAll(keepsConfig, "{dir}", dir)), 0o600))
	write := func(pod string, size int) {
		f, err := os.OpenFile(filepath.Join(dir, pod+".log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
		require.NoError(t, err)
		_, err = f.WriteString(strings.Repeat("x", size) + "\n")
		require.NoError(t, err)
		require.NoError(t, f.Close())
	}
	const quiet, busy = 100, 6_000
	log := newLog(t)
	// Sizes of the files whose chunk was given to the output: what is logged from then on is in another.
	files := func() map[int64]int {
		paths, err := filepath.Glob(filepath.Join(dir, "storage/tail.0/*.flb"))
		require.NoError(t, err)
		sizes := map[int64]int{}
		for _, p := range paths {
			info, err := os.Stat(p)
			require.NoError(t, err)
			if strings.Contains(log.String(), "failed to flush chunk '"+filepath.Base(p)+"'") {
				sizes[info.Size()]++
			}
		}
		return sizes
	}
	write("quiet", quiet)
	write("busy", busy)
	cmd := exec.Command(binary, "-c", conf)
	cmd.Stdout, cmd.Stderr = log, log
	require.NoError(t, cmd.Start())
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	// A file of a page grows by 32 KB at once.
	page := int64(os.Getpagesize())
	for n := 1; n <= 3; n++ {
		want := map[int64]int{page: n, page + 32<<10: n}
		require.Eventually(t, func() bool { return maps.Equal(want, files()) }, time.Minute, 50*time.Millisecond, "after %d flushes", n)
		write("quiet", quiet)
		write("busy", busy)
	}
}
