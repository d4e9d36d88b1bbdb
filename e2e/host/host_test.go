package host

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// A chunk the test plugin does not look into.
var chunk = bytes.Repeat([]byte("0123456789abcdef"), 64)

var builds struct {
	once         sync.Once
	dir          string
	loader, so   string
	err, raceErr error
	raceOnce     sync.Once
	raceSO       string
}

func TestMain(m *testing.M) {
	code := m.Run()
	if builds.dir != "" {
		os.RemoveAll(builds.dir)
	}
	os.Exit(code)
}

func built(t *testing.T) (loader, so string) {
	t.Helper()
	if testing.Short() {
		t.Skip("builds a plugin")
	}
	builds.once.Do(func() {
		ctx := context.Background()
		if builds.dir, builds.err = os.MkdirTemp("", "host-test-"); builds.err != nil {
			return
		}
		builds.so = filepath.Join(builds.dir, "testplugin.so")
		if builds.loader, builds.err = Build(ctx, builds.dir); builds.err == nil {
			builds.err = BuildPlugin(ctx, "./testplugin", builds.so)
		}
	})
	require.NoError(t, builds.err)
	return builds.loader, builds.so
}

// limit is what no test should ever reach: with it a hanging one says where.
func limit(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	t.Cleanup(cancel)
	return ctx
}

func properties(kv ...string) map[string]string {
	m := map[string]string{}
	for i := 0; i < len(kv); i += 2 {
		m[kv[i]] = kv[i+1]
	}
	return m
}

type call struct {
	Call   string
	ID     string
	Arg    int
	Thread int
	Tag    string
	Size   int
	Hash   string
	Return int
	Probed map[string]*string
	Kept   string
}

type calls string

func (path calls) read(t *testing.T) []call {
	t.Helper()
	b, err := os.ReadFile(string(path))
	require.NoError(t, err)
	var all []call
	for dec := json.NewDecoder(bytes.NewReader(b)); dec.More(); {
		var c call
		require.NoError(t, dec.Decode(&c))
		all = append(all, c)
	}
	return all
}

func (path calls) of(t *testing.T, name string) []call {
	return slices.DeleteFunc(path.read(t), func(c call) bool { return c.Call != name })
}

// start fills in what every test needs; the plugin's calls are recorded in the file returned.
func start(t *testing.T, cfg Config) (*Host, calls) {
	t.Helper()
	h, record, err := tryStart(t, cfg)
	require.NoError(t, err)
	return h, record
}

func tryStart(t *testing.T, cfg Config) (*Host, calls, error) {
	t.Helper()
	loader, so := built(t)
	record := filepath.Join(t.TempDir(), "calls")
	cfg.Loader, cfg.Plugin = loader, cmp.Or(cfg.Plugin, so)
	cfg.Env = append(cfg.Env, "TESTPLUGIN_RECORD="+record)
	h, err := Start(limit(t), cfg)
	return h, calls(record), err
}

func stop(t *testing.T, h *Host) Summary {
	t.Helper()
	s, err := h.Stop(limit(t))
	require.NoError(t, err)
	return s
}

// gate makes a FIFO that the plugin's `.gated` flushes wait at, and a function that lets one group of them through: it
// returns once a flush was waiting.
func gate(t *testing.T) (path string, open func()) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "gate")
	require.NoError(t, syscall.Mkfifo(path, 0o600))
	return path, func() {
		f, err := os.OpenFile(path, os.O_WRONLY, 0)
		require.NoError(t, err)
		require.NoError(t, f.Close())
	}
}

func outcomes(h *Host) []string {
	var all []string
	for _, o := range h.Outcomes() {
		all = append(all, o.Outcome)
	}
	return all
}

func TestThePluginIsCalledInFluentBitsOrderOnTheEnginesThread(t *testing.T) {
	h, record := start(t, Config{HotReload: true, Outputs: []Output{
		{Match: "a.*", Properties: properties("id", "one")},
		{Match: "*", Workers: 1, Properties: properties("id", "two")},
	}})
	require.NoError(t, h.Send("a.b", chunk))
	require.NoError(t, h.Drain(limit(t)))
	sum := stop(t, h)
	require.Equal(t, 1, sum.Chunks)
	require.Equal(t, 2, sum.OK)
	require.Positive(t, sum.PeakRSSKiB)
	require.Equal(t, []string{OutcomeOK, OutcomeOK}, outcomes(h))

	var order []string
	for _, c := range record.read(t) {
		if c.Call == "flush" {
			require.Equal(t, c.ID == "one", c.Thread == h.PID(), "only without workers is it the engine's thread")
			continue
		}
		require.Equal(t, h.PID(), c.Thread, "%s runs on the main thread", c.Call)
		order = append(order, fmt.Sprintf("%s %s%d", c.Call, c.ID, c.Arg))
	}
	require.Equal(t, []string{
		"preregister 0", "register 0", "init one0", "init two0", "prerun 1", "prerun 1",
		"preexit 0", "exit one0", "preexit 0", "exit two0", "unregister 0",
	}, order)
}

func TestPropertiesReadAsInFluentBit(t *testing.T) {
	h, record := start(t, Config{Outputs: []Output{
		{Match: "*", Workers: 2, Properties: properties(
			"id", "one", "probe", "ID,Region,region,empty,unset,match,MATCH,alias,log_level,host,port,retry_limit,workers,"+
				"tls.verify,net.keepalive,storage.total_limit_size,name,tls.unknown",
			"REGION", "us-east-1", "empty", "", "alias", "x", "log_level", "debug", "host", "h", "port", "1", "retry_limit", "5",
			"tls.verify", "off", "net.keepalive", "off", "storage.total_limit_size", "5M", "tls.unknown", "readable")},
		{Properties: properties("id", "two", "probe", "id,region")},
	}})
	stop(t, h)

	inits := record.of(t, "init")
	require.Len(t, inits, 2)
	read := map[string]string{}
	for key, value := range inits[0].Probed {
		if value != nil {
			read[key] = *value
		}
	}
	require.Equal(t, map[string]string{
		"ID": "one", "Region": "us-east-1", "region": "us-east-1", "tls.unknown": "readable",
	}, read)
	require.Len(t, inits[0].Probed, 18)
	require.Equal(t, "two", *inits[1].Probed["id"])
	require.Nil(t, inits[1].Probed["region"], "one output's properties are not another's")
}

func TestInitThatReturnsZeroFailsTheStart(t *testing.T) {
	_, _, err := tryStart(t, Config{Outputs: []Output{{Properties: properties("init_return", "0", "log", "yes")}}})
	var failed *StartError
	require.ErrorAs(t, err, &failed)
	require.Equal(t, ExitInit, failed.Code)
	require.Contains(t, failed.Message, "FLBPluginInit of output 0 (testplugin.0) returned 0")
	require.Equal(t, "[test] level 1", failed.Logs[0].Text)
}

func TestStartFailuresSayWhatIsWrong(t *testing.T) {
	_, so := built(t)
	misnamed := filepath.Join(t.TempDir(), "flb-plugin.so")
	require.NoError(t, os.Symlink(so, misnamed))
	for name, tc := range map[string]struct {
		cfg  Config
		code int
		says string
	}{
		"no such file":        {Config{Plugin: "/nowhere.so"}, ExitLoad, "error opening plugin /nowhere.so"},
		"no Go plugin":        {Config{Plugin: "libc.so.6"}, ExitLoad, "no FLBPluginRegister"},
		"a name it can't use": {Config{Plugin: misnamed}, ExitLoad, "can't start with flb-"},
		"tls":                 {Config{Outputs: []Output{{Properties: properties("tls", "on")}}}, ExitProtocol, "does not support TLS"},
		"log level":           {Config{LogLevel: "loud"}, ExitProtocol, "invalid log_level 'loud'"},
	} {
		t.Run(name, func(t *testing.T) {
			_, _, err := tryStart(t, tc.cfg)
			var failed *StartError
			require.ErrorAs(t, err, &failed)
			require.Equal(t, tc.code, failed.Code)
			require.Contains(t, failed.Message, tc.says)
		})
	}
}

func TestWorkersFlushAtTheSameTimeEachOnAThread(t *testing.T) {
	const workers = 4
	// Each flush waits until as many are inside as there are workers: with fewer at once this would never end.
	h, record := start(t, Config{Outputs: []Output{{Workers: workers, Properties: properties("meet", "4", "stack", "yes")}}})
	for range 3 * workers {
		require.NoError(t, h.Send("t", chunk))
	}
	require.NoError(t, h.Drain(limit(t)))
	require.Equal(t, workers, stop(t, h).MaxConcurrent)

	threads := map[int]int{}
	for _, c := range record.of(t, "flush") {
		threads[c.Thread]++
	}
	require.Len(t, threads, workers)
	require.NotContains(t, threads, h.PID())
	for _, n := range threads {
		require.Equal(t, 3, n)
	}
}

func TestWorkersTakeTurnsAndStealNothing(t *testing.T) {
	fifo, open := gate(t)
	h, _ := start(t, Config{Outputs: []Output{{Workers: 2, Properties: properties("gate", fifo)}}})
	require.NoError(t, h.Send("first.gated", chunk))
	for range 5 {
		require.NoError(t, h.Send("t", chunk))
	}
	// Worker 1 has done all of its own and is idle; what was given to worker 0 stays with it.
	require.NoError(t, h.Until(limit(t), func(s Stats) bool { return s.Done == 3 }))
	for _, r := range h.Results() {
		require.Equal(t, 1, r.Worker)
	}
	open()
	require.NoError(t, h.Drain(limit(t)))
	stop(t, h)
	for _, r := range h.Results() {
		require.Equal(t, int(r.Chunk-1)%2, r.Worker, "chunk %d", r.Chunk)
	}
}

func TestWithoutWorkersAFlushHoldsUpEverything(t *testing.T) {
	fifo, open := gate(t)
	h, _ := start(t, Config{Outputs: []Output{{Properties: properties("gate", fifo)}, {Match: "t"}}})
	require.NoError(t, h.Send("first.gated", chunk))
	require.NoError(t, h.Send("t", chunk))
	require.NoError(t, h.Until(limit(t), func(s Stats) bool { return s.Started == 1 }))
	open()
	require.NoError(t, h.Drain(limit(t)))
	require.Equal(t, 1, stop(t, h).MaxConcurrent)
	for i, r := range h.Results() {
		require.Equal(t, -1, r.Worker)
		require.Equal(t, []uint64{1, 2, 2}[i], r.Chunk)
	}
}

func TestRetrySendsTheSameBytesAgain(t *testing.T) {
	h, record := start(t, Config{Outputs: []Output{{Workers: 2, Properties: properties("retry_first", "3", "retry_limit", "no_limits")}}})
	for i := range 10 {
		require.NoError(t, h.Send(fmt.Sprintf("t.%d", i), chunk[i:]))
	}
	require.NoError(t, h.Drain(limit(t)))
	sum := stop(t, h)
	require.Equal(t, 40, sum.Flushes)
	require.Equal(t, 30, sum.Retries)
	require.Equal(t, 10, sum.OK)

	seen := map[string]int{}
	for _, c := range record.of(t, "flush") {
		seen[c.Tag+c.Hash]++
	}
	require.Len(t, seen, 10)
	for _, n := range seen {
		require.Equal(t, 4, n)
	}
}

func TestRetryLimit(t *testing.T) {
	for name, tc := range map[string]struct {
		limit string
		tries int
	}{
		"unset is 1, which means two tries": {"", 2},
		"a number":                          {"3", 4},
		"nonsense is 1":                     {"-3", 2},
		"no_retries":                        {"no_retries", 1},
	} {
		t.Run(name, func(t *testing.T) {
			h, _ := start(t, Config{Outputs: []Output{{Properties: properties("return", "2", "retry_limit", tc.limit)}}})
			require.NoError(t, h.Send("t", chunk))
			require.NoError(t, h.Drain(limit(t)))
			sum := stop(t, h)
			require.Equal(t, tc.tries, sum.Flushes)
			require.Equal(t, 1, sum.DroppedRetry)
			require.Equal(t, []Outcome{{Chunk: 1, Attempts: tc.tries, Outcome: OutcomeRetryLimit}}, h.Outcomes())
		})
	}
}

func TestErrorDropsTheChunk(t *testing.T) {
	for _, returned := range []string{"0", "7"} {
		h, _ := start(t, Config{Outputs: []Output{{Properties: properties("return", returned)}}})
		require.NoError(t, h.Send("t", chunk))
		require.NoError(t, h.Drain(limit(t)))
		sum := stop(t, h)
		require.Equal(t, 1, sum.DroppedError)
		require.Equal(t, returned == "7", sum.BadReturns == 1)
		require.Equal(t, []string{OutcomeError}, outcomes(h))
	}
}

func TestAFullEngineTakesNothingIn(t *testing.T) {
	fifo, open := gate(t)
	h, _ := start(t, Config{MaxTasks: 2, Outputs: []Output{{Workers: 1, Properties: properties("gate", fifo)}}})
	require.NoError(t, h.Send("first.gated", chunk))
	for range 9 {
		require.NoError(t, h.Send("t", chunk))
	}
	require.NoError(t, h.Until(limit(t), func(s Stats) bool { return s.Full }))
	open()
	require.NoError(t, h.Drain(limit(t)))
	sum := stop(t, h)
	require.Equal(t, 10, sum.OK)
	require.Positive(t, sum.Full)
}

func TestStopWaitsForWhatWasSent(t *testing.T) {
	h, _ := start(t, Config{Grace: -1, MaxTasks: 3, Outputs: []Output{{Workers: 2, Properties: properties("retry_first", "1")}}})
	for i := range 50 {
		require.NoError(t, h.Send("t", chunk[i:]))
	}
	sum := stop(t, h)
	require.Equal(t, 50, sum.OK)
	require.Zero(t, sum.NotTaken)
	require.ErrorIs(t, h.Send("t", chunk), ErrStopped)
}

func TestAfterGraceWhatIsQueuedIsFlushedOnceAndARetryIsLost(t *testing.T) {
	fifo, open := gate(t)
	h, _ := start(t, Config{Grace: time.Millisecond, Outputs: []Output{
		{Match: "*", Workers: 1, Properties: properties("gate", fifo)},
		{Match: "again", Workers: 1, Properties: properties("return", "2", "retry_limit", "no_limits")},
		{Match: "engine", Properties: properties("return", "2", "retry_limit", "no_limits")},
	}, Retry: Retry{Base: time.Hour, Cap: time.Hour}})
	require.NoError(t, h.Send("first.gated", chunk)) // in flight when Grace ends
	require.NoError(t, h.Send("t", chunk))           // queued behind it
	require.NoError(t, h.Send("again", chunk))       // queued behind it too; and waiting for its second try
	require.NoError(t, h.Send("engine", chunk))      // queued behind it as well; and waiting on the engine
	require.NoError(t, h.Until(limit(t), func(s Stats) bool { return s.Flushed == 2 && s.Started == 3 }))

	go func() {
		if h.Until(limit(t), func(s Stats) bool { return s.Stopped }) == nil {
			open()
		}
	}()
	sum := stop(t, h)
	require.NoError(t, h.UntilLog(limit(t), "service has stopped"))
	require.GreaterOrEqual(t, sum.PendingAtGrace, 4)
	require.Equal(t, 4, sum.OK)
	require.Equal(t, 4, sum.OKAtExit)
	require.Equal(t, 2, sum.LostAtExit)
	require.Zero(t, sum.NotTaken)
}

func TestStorageKeepsWhatTheEngineDidNotHearOf(t *testing.T) {
	fifo, open := gate(t)
	dir := t.TempDir()
	output := func(kv ...string) []Output {
		return []Output{{Workers: 1, Properties: properties(append(kv, "retry_limit", "no_limits")...)}}
	}
	h, first := start(t, Config{Grace: time.Millisecond, StorageDir: dir, Outputs: output("gate", fifo)})
	require.NoError(t, h.Send("done", chunk))
	require.NoError(t, h.Drain(limit(t)))
	require.NoError(t, h.Send("late.gated", chunk))
	require.NoError(t, h.Send("queued", chunk[1:]))
	require.NoError(t, h.Until(limit(t), func(s Stats) bool { return s.Started == 2 }))
	go func() {
		if h.Until(limit(t), func(s Stats) bool { return s.Stopped }) == nil {
			open()
		}
	}()
	sum := stop(t, h)
	require.Equal(t, 2, sum.KeptInStorage)
	require.Equal(t, 2, sum.KeptDelivered, "delivered, but nobody took note")
	require.Zero(t, sum.LostAtExit)

	h, second := start(t, Config{StorageDir: dir, Outputs: output()})
	require.NoError(t, h.Send("new", chunk))
	require.NoError(t, h.Drain(limit(t)))
	require.Equal(t, 3, stop(t, h).OK)
	sent := map[string]string{}
	for _, c := range second.of(t, "flush") {
		sent[c.Tag] = c.Hash
	}
	require.Len(t, sent, 3)
	for _, c := range first.of(t, "flush")[1:] {
		require.Equal(t, c.Hash, sent[c.Tag])
	}
	left, err := filepath.Glob(filepath.Join(dir, "*"))
	require.NoError(t, err)
	require.Empty(t, left)
}

func TestStorageOutlivesAKill(t *testing.T) {
	dir := t.TempDir()
	cfg := Config{StorageDir: dir, Retry: Retry{Base: time.Hour, Cap: time.Hour}}
	cfg.Outputs = []Output{{Properties: properties("return", "2", "retry_limit", "no_limits")}}
	h, _ := start(t, cfg)
	require.NoError(t, h.Send("t", chunk))
	require.NoError(t, h.Until(limit(t), func(s Stats) bool { return s.Retries == 1 }))
	require.NoError(t, h.Kill())
	sum, err := h.Wait(limit(t))
	require.ErrorContains(t, err, "killed")
	require.Equal(t, 1, sum.NotTaken)

	cfg.Outputs = []Output{{}}
	h, record := start(t, cfg)
	require.NoError(t, h.Drain(limit(t)))
	require.Equal(t, 1, stop(t, h).OK)
	require.Len(t, record.of(t, "flush"), 1)
}

func TestSIGTERMStopsIt(t *testing.T) {
	h, _ := start(t, Config{Outputs: []Output{{Workers: 1, Properties: properties("retry_first", "1")}}})
	require.NoError(t, h.Send("t", chunk))
	require.NoError(t, h.Signal(syscall.SIGTERM))
	sum, err := h.Wait(limit(t))
	require.NoError(t, err)
	require.Equal(t, 1, sum.OK)
	require.ErrorIs(t, h.Send("t", chunk), ErrStopped)
}

func TestAKeptPointerReadsPoison(t *testing.T) {
	h, record := start(t, Config{KeepPoisoned: 16, Outputs: []Output{{Properties: properties("keep", "yes")}}})
	for range 3 {
		require.NoError(t, h.Send("t", chunk))
		require.NoError(t, h.Drain(limit(t)))
	}
	stop(t, h)
	flushes := record.of(t, "flush")
	require.Empty(t, flushes[0].Kept)
	for _, c := range flushes[1:] {
		require.Equal(t, strings.Repeat("dd", len(chunk))+" dd", c.Kept)
	}
}

func TestLogLevels(t *testing.T) {
	for level, lines := range map[string][]string{
		"off": nil, "error": {"error"}, "warn": {"error", "warn"}, "": {"error", "warn", "info"},
		"debug": {"error", "warn", "info", "debug"}, "trace": {"error", "warn", "info", "debug", "trace"},
	} {
		for _, where := range []string{"service", "output"} {
			t.Run(where+" "+level, func(t *testing.T) {
				out := Output{Properties: properties("log", "yes")}
				cfg := Config{Outputs: []Output{out}}
				if where == "output" {
					out.Properties["log_level"] = level
				} else {
					cfg.LogLevel = level
				}
				h, _ := start(t, cfg)
				stop(t, h)
				var got []string
				for _, line := range h.Logs() {
					if strings.HasPrefix(line.Text, "[test] level") {
						got = append(got, line.Level)
						require.False(t, line.Time.IsZero())
					}
				}
				require.Equal(t, lines, got)
			})
		}
	}
}

func TestWhatThePluginPrintsIsNotTheProtocol(t *testing.T) {
	var tee bytes.Buffer
	h, _ := start(t, Config{Stderr: &tee, Outputs: []Output{{Properties: properties("print", "yes")}}})
	require.NoError(t, h.Send("t", chunk))
	require.NoError(t, h.UntilLog(limit(t), "this is stdout"))
	require.Equal(t, 1, stop(t, h).OK)
	require.Contains(t, tee.String(), "this is stdout\n")
}

func TestATagWithoutARoute(t *testing.T) {
	h, _ := start(t, Config{Outputs: []Output{{Match: "kube.*"}}})
	require.ErrorIs(t, h.Send("other", chunk), ErrNoRoute)
	require.Zero(t, stop(t, h).Chunks)
}

func TestBigAndEmptyChunks(t *testing.T) {
	h, record := start(t, Config{Outputs: []Output{{Workers: 2}}})
	for _, n := range []int{0, 1, ChunkSize, 3 * ChunkSize} {
		require.NoError(t, h.Send("t", make([]byte, n)))
	}
	require.NoError(t, h.Drain(limit(t)))
	stop(t, h)
	var sizes []int
	for _, c := range record.of(t, "flush") {
		sizes = append(sizes, c.Size)
	}
	require.ElementsMatch(t, []int{0, 1, ChunkSize, 3 * ChunkSize}, sizes)
}

func raceSO(t *testing.T) string {
	t.Helper()
	built(t)
	builds.raceOnce.Do(func() {
		builds.raceSO = filepath.Join(builds.dir, "race.so")
		builds.raceErr = BuildPlugin(context.Background(), "./testplugin", builds.raceSO, "-race")
	})
	require.NoError(t, builds.raceErr)
	return builds.raceSO
}

func TestAPluginBuiltWithRaceRuns(t *testing.T) {
	h, _ := start(t, Config{Plugin: raceSO(t), Outputs: []Output{{Workers: 4, Properties: properties("retry_first", "1", "stack", "yes")}}})
	for i := range 200 {
		require.NoError(t, h.Send("t", chunk[i:]))
	}
	require.NoError(t, h.Drain(limit(t)))
	require.Equal(t, 200, stop(t, h).OK)
}

func TestADataRaceInThePluginIsAnError(t *testing.T) {
	h, _ := start(t, Config{Plugin: raceSO(t), Outputs: []Output{{Workers: 2, Properties: properties("race", "yes", "meet", "2")}}})
	for range 20 {
		require.NoError(t, h.Send("t", chunk))
	}
	require.NoError(t, h.Drain(limit(t)))
	_, err := h.Stop(limit(t))
	require.ErrorIs(t, err, ErrDataRace)
}

func TestLoaderCompilesWithoutWarnings(t *testing.T) {
	loader, _ := built(t)
	saved := loaderFlags
	t.Cleanup(func() { loaderFlags = saved })
	loaderFlags = append(slices.Clone(saved), "-Werror")
	strict, err := Build(limit(t), t.TempDir())
	require.NoError(t, err)
	require.NotEqual(t, filepath.Base(loader), filepath.Base(strict))

	again, err := Build(limit(t), filepath.Dir(strict))
	require.NoError(t, err)
	require.Equal(t, strict, again)

	t.Setenv("CC", "false")
	_, err = Build(limit(t), t.TempDir())
	require.ErrorContains(t, err, "failed to compile the loader")
}

func TestMatch(t *testing.T) {
	for pattern, tags := range map[string]map[string]bool{
		"*":            {"": true, "a": true, "a.b": true},
		"":             {"": true, "a": false},
		"kube.*":       {"kube.": true, "kube.a.b": true, "kube": false, "xkube.a": false},
		"*.log":        {"a.log": true, ".log": true, "a.log.b": false, "a.log.log": true},
		"a*b*c":        {"abc": true, "a.b.c": true, "abcb": false, "ac": false, "abcbc": true},
		"a**b":         {"ab": true, "a.b": true},
		"kube.var.log": {"kube.var.log": true, "kube.var.logs": false},
	} {
		for tag, want := range tags {
			require.Equal(t, want, Match(pattern, tag), "%q %q", pattern, tag)
		}
	}
}

func TestParseLogLine(t *testing.T) {
	at := time.Date(2026, 11, 23, 10, 0, 0, 123e6, time.Local)
	require.Equal(t, LogLine{Time: at, Level: "info", Text: "[x] hello", Raw: "[2026/11/23 10:00:00.123] [ info] [x] hello"},
		ParseLogLine("[2026/11/23 10:00:00.123] [ info] [x] hello"))
	require.True(t, at.Equal(ParseLogLine("[2026/11/23 10:00:00.123000000] [error] ").Time))
	require.Equal(t, LogLine{Text: "panic: oh", Raw: "panic: oh"}, ParseLogLine("panic: oh"))
}
