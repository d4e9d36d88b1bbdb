// Package host runs the Fluent Bit plugin under test where no Fluent Bit is installed. It drives the loader, a small C
// program that loads the .so over Fluent Bit's own ABI and imitates what an output sees of the engine: threads, stacks,
// retries, Grace, storage. Chunker, ReadCRI and ParseJSON make the chunks that Fluent Bit's inputs and filters would.
//
// It knows Fluent Bit 5.1 and nothing of what the plugin does with the records. Linux only.
package host

import (
	"bufio"
	"cmp"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// Exit codes of the loader, as in a StartError.
const (
	ExitInternal = 1
	ExitProtocol = 2 // also a property value that Fluent Bit's core refuses
	ExitLoad     = 3
	ExitInit     = 4
)

// What a flush returns.
const (
	ReturnError = 0
	ReturnOK    = 1
	ReturnRetry = 2
)

// What became of a chunk on its way to one output.
const (
	OutcomeOK         = "ok"
	OutcomeError      = "error"       // dropped: the flush returned ReturnError
	OutcomeRetryLimit = "retry_limit" // dropped: retried as often as Retry_Limit allows
	OutcomeLost       = "lost"        // given up at exit
	OutcomeKept       = "kept"        // left in storage at exit
)

var (
	// ErrNoRoute says that no output's Match fits the tag. Fluent Bit drops such a record without a word.
	ErrNoRoute = errors.New("no output matches the tag")
	// ErrStopped says that the host takes no more chunks.
	ErrStopped = errors.New("the host was stopped")
	// ErrDataRace says that the race detector of a plugin built with -race reported something; Logs has the report.
	ErrDataRace = errors.New("data race in the plugin")
)

// Output is one [OUTPUT] section.
type Output struct {
	// Match is Fluent Bit's wildcard; empty is `*`.
	Match string
	// Workers is the number of threads; 0 flushes on the engine's own.
	Workers int
	// Properties are all other keys, among them those that the core keeps to itself: retry_limit, log_level, alias.
	Properties map[string]string
}

// Retry is the scheduler. A retry waits a random time between Base and Base·2^n, at most Cap. Fluent Bit's values are
// 5 s and 2,000 s; zero values mean 10 ms and 200 ms.
type Retry struct {
	Base, Cap time.Duration
	// Shutdown is the wait once the host is stopping, 1 s in Fluent Bit; zero means Base.
	Shutdown time.Duration
}

// Config is what [SERVICE] and the command line say.
type Config struct {
	// Loader is the program Build made; empty builds it in the user's cache folder.
	Loader string
	// Plugin is the path of the .so. One built with -race is recognised, and run so that the detector works.
	Plugin  string
	Outputs []Output
	// Grace is how long a stopping host waits for chunks in flight: 0 means 5 s, < 0 for ever.
	Grace time.Duration
	Retry Retry
	// LogLevel is off, error, warn, info (default), debug or trace.
	LogLevel string
	// CoroStackSize is a flush's stack in bytes: 64 KiB when 0; 24 KiB before Fluent Bit 5.1.
	CoroStackSize int
	// MaxTasks is how many chunks may be outstanding before intake stops: 2,048 when 0.
	MaxTasks int
	// HotReload is what FLBPluginOutputPreRun is told.
	HotReload bool
	// KeepPoisoned keeps that many chunk buffers and tags, overwritten with 0xDD, after their flush instead of freeing
	// them at once, so that reading a kept pointer gives 0xDD for certain. It costs that memory.
	KeepPoisoned int
	// StorageDir stands for `storage.type filesystem`: chunks are kept there until they are done with, and what an
	// earlier host left there is sent first. Empty is `memory`.
	StorageDir string
	// Env is added to the environment.
	Env []string
	// Emulator runs a loader and a plugin of another architecture: a program and its arguments, in front of the loader's.
	Emulator []string
	// Stderr gets a copy of the log.
	Stderr io.Writer
}

// Flush is one call of the plugin's flush.
type Flush struct {
	Chunk   uint64 // numbers the chunks in the order of Send, from 1 (after what storage held)
	Output  int
	Attempt int // 1 for the first
	Worker  int // -1 on the engine's thread
	Thread  int // the kernel's thread id
	Return  int
	Took    time.Duration
}

// Outcome is the end of a chunk's way to one output.
type Outcome struct {
	Chunk    uint64
	Output   int
	Attempts int
	Outcome  string
	// Delivered says that the last flush returned OK; with OutcomeKept, the chunk will be sent again all the same.
	Delivered bool
}

// Stats counts what happened so far. A chunk counts once for every output it goes to.
type Stats struct {
	Sent, Started, Flushed, Done, Pending int
	OK, Retries, Errors                   int
	Stopping, Stopped, Exited             bool // Stopped: Grace is over or nothing was pending
	Full                                  bool // intake is halted: MaxTasks are outstanding
}

// Summary is the loader's account at its end.
type Summary struct {
	Chunks         int           `json:"chunks"`
	Routes         int           `json:"routes"` // chunks, once for every output
	Flushes        int           `json:"flushes"`
	OK             int           `json:"ok"`
	Retries        int           `json:"retries"` // flushes that returned ReturnRetry
	Errors         int           `json:"errors"`
	DroppedRetry   int           `json:"dropped_retry"`
	DroppedError   int           `json:"dropped_error"`
	BadReturns     int           `json:"bad_returns"` // return values that are none of the three; taken for errors
	PendingAtGrace int           `json:"pending_at_grace"`
	OKAtExit       int           `json:"ok_at_exit"` // of OK: after Grace had run out
	LostAtExit     int           `json:"lost_at_exit"`
	KeptInStorage  int           `json:"kept_in_storage"`
	KeptDelivered  int           `json:"kept_delivered"` // of KeptInStorage: delivered, and sent again next time
	Full           int           `json:"full"`           // how often MaxTasks were reached
	MaxConcurrent  int           `json:"max_concurrent"` // flushes at the same time
	PeakRSSKiB     int           `json:"peak_rss_kib"`
	UserMicros     int64         `json:"user_us"`
	SystemMicros   int64         `json:"system_us"`
	NotTaken       int           `json:"-"` // sent, but the loader stopped, or died, before it said what became of them
	CPU            time.Duration `json:"-"`
}

// StartError says why the plugin did not come up.
type StartError struct {
	Code    int // one of the Exit constants, or -1 when the loader was killed
	Message string
	Logs    []LogLine
}

func (e *StartError) Error() string {
	return fmt.Sprintf("the plugin did not start (exit code %d): %s", e.Code, e.Message)
}

// Host is a running loader with its plugin.
type Host struct {
	cfg     Config
	cmd     *exec.Cmd
	stdin   io.WriteCloser
	readers sync.WaitGroup
	exited  chan struct{} // closed once the process is gone and all it said was read

	sending sync.Mutex // whole frames to stdin

	mu       sync.Mutex
	changed  chan struct{} // closed and replaced when anything below changes
	stats    Stats
	nextID   uint64
	ready    bool
	failure  *StartError
	summary  *Summary
	flushes  []Flush
	outcomes []Outcome
	logs     []LogLine
	raced    bool
	err      error // why the process ended, if not cleanly
}

// Start loads the plugin and returns when all outputs are initialised. The process is killed when ctx ends.
func Start(ctx context.Context, cfg Config) (*Host, error) {
	if cfg.Loader == "" {
		path, err := defaultLoader(ctx)
		if err != nil {
			return nil, err
		}
		cfg.Loader = path
	}
	h := &Host{cfg: cfg, changed: make(chan struct{}), exited: make(chan struct{}), nextID: 1}
	backlog, err := h.readBacklog()
	if err != nil {
		return nil, err
	}

	args := []string{"--plugin", cfg.Plugin}
	if builtWithRace(cfg.Plugin) {
		args = append([]string{"--race"}, args...)
	}
	whole := slices.Concat(cfg.Emulator, []string{cfg.Loader}, args)
	h.cmd = exec.CommandContext(ctx, whole[0], whole[1:]...)
	h.cmd.Env = append(os.Environ(), cfg.Env...)
	stdout, err := h.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	stderr, err := h.cmd.StderrPipe()
	if err != nil {
		return nil, err
	}
	if h.stdin, err = h.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	if err := h.cmd.Start(); err != nil {
		return nil, fmt.Errorf("failed to start the loader: %w", err)
	}
	h.readers.Go(func() { h.readEvents(stdout) })
	h.readers.Go(func() { h.readLog(stderr) })
	go h.reap()

	if err := h.configure(); err != nil {
		return nil, errors.Join(fmt.Errorf("failed to configure the loader: %w", err), h.Kill())
	}
	if err := h.wait(ctx, func() bool { return h.ready }); err != nil {
		_ = h.Kill()
		<-h.exited
		if h.failure == nil {
			h.failure = &StartError{Code: h.cmd.ProcessState.ExitCode(), Message: err.Error() + h.lastWords()}
		}
		h.failure.Logs = h.logs
		return nil, h.failure
	}
	go h.sendBacklog(backlog)
	return h, nil
}

func (h *Host) configure() error {
	retry := h.cfg.Retry
	settings := map[string]string{
		"grace_ns":          nanos(h.cfg.Grace, 5*time.Second),
		"retry_base_ns":     nanos(retry.Base, 10*time.Millisecond),
		"retry_cap_ns":      nanos(retry.Cap, 200*time.Millisecond),
		"retry_shutdown_ns": nanos(retry.Shutdown, cmp.Or(retry.Base, 10*time.Millisecond)),
		"coro_stack_size":   strconv.Itoa(cmp.Or(h.cfg.CoroStackSize, 64<<10)),
		"max_tasks":         strconv.Itoa(cmp.Or(h.cfg.MaxTasks, 2048)),
		"keep_poisoned":     strconv.Itoa(h.cfg.KeepPoisoned),
		"log_level":         cmp.Or(h.cfg.LogLevel, "info"),
	}
	if h.cfg.HotReload {
		settings["hot_reload"] = "1"
	}
	if h.cfg.StorageDir != "" {
		settings["storage"] = "filesystem"
	}
	frames := pairsFrame(nil, 'C', settings)
	for _, out := range h.cfg.Outputs {
		properties := maps.Clone(out.Properties)
		if properties == nil {
			properties = map[string]string{}
		}
		properties["match"] = cmp.Or(out.Match, "*")
		if out.Workers != 0 {
			properties["workers"] = strconv.Itoa(out.Workers)
		}
		frames = pairsFrame(frames, 'O', properties)
	}
	_, err := h.stdin.Write(appendFrame(frames, 'R', nil))
	return err
}

// Send hands a chunk to every output whose Match fits the tag. It blocks while the loader takes no chunks in; the bytes
// are the caller's again when it returns.
func (h *Host) Send(tag string, chunk []byte) error {
	var outputs []int
	for i, out := range h.cfg.Outputs {
		if Match(cmp.Or(out.Match, "*"), tag) {
			outputs = append(outputs, i)
		}
	}
	if len(outputs) == 0 {
		return fmt.Errorf("%w: %q", ErrNoRoute, tag)
	}

	h.sending.Lock()
	defer h.sending.Unlock()
	h.mu.Lock()
	if h.stats.Stopping || h.stats.Exited {
		h.mu.Unlock()
		return ErrStopped
	}
	id := h.nextID
	h.nextID++
	h.mu.Unlock()
	for _, out := range outputs {
		if err := h.store(id, out, tag, chunk); err != nil {
			return err
		}
	}
	h.update(func() {
		h.stats.Sent += len(outputs)
		h.stats.Pending += len(outputs)
	})
	return h.writeChunk(id, outputs, tag, chunk)
}

// writeChunk needs sending to be held.
func (h *Host) writeChunk(id uint64, outputs []int, tag string, chunk []byte) error {
	payload := 8 + 4 + 4*len(outputs) + 4 + len(tag) + 4
	head := make([]byte, 0, 5+payload)
	head = binary.LittleEndian.AppendUint32(head, uint32(payload+len(chunk)))
	head = append(head, 'K')
	head = binary.LittleEndian.AppendUint64(head, id)
	head = binary.LittleEndian.AppendUint32(head, uint32(len(outputs)))
	for _, out := range outputs {
		head = binary.LittleEndian.AppendUint32(head, uint32(out))
	}
	head = appendString(head, tag)
	head = binary.LittleEndian.AppendUint32(head, uint32(len(chunk)))
	if _, err := h.stdin.Write(head); err != nil {
		return fmt.Errorf("failed to send a chunk: %w", err)
	}
	if _, err := h.stdin.Write(chunk); err != nil {
		return fmt.Errorf("failed to send a chunk: %w", err)
	}
	return nil
}

// Drain waits until every chunk sent so far is delivered or dropped.
func (h *Host) Drain(ctx context.Context) error {
	return h.Until(ctx, func(s Stats) bool { return s.Pending == 0 })
}

// Until waits until cond holds. It fails when ctx ends, or when the loader is gone and cond does not hold.
func (h *Host) Until(ctx context.Context, cond func(Stats) bool) error {
	return h.wait(ctx, func() bool { return cond(h.stats) })
}

// UntilLog waits for a line of the log that holds text.
func (h *Host) UntilLog(ctx context.Context, text string) error {
	seen := 0
	return h.wait(ctx, func() bool {
		for ; seen < len(h.logs); seen++ {
			if strings.Contains(h.logs[seen].Text, text) {
				return true
			}
		}
		return false
	})
}

// Stop takes no more chunks, lets the loader go through Fluent Bit's way out, and returns its summary. When ctx ends first
// the process is killed.
func (h *Host) Stop(ctx context.Context) (Summary, error) {
	h.update(func() { h.stats.Stopping = true })
	go h.sendShutdown()
	go func() {
		// The shutdown frame is behind the chunks already sent, and those may have to wait for room.
		full := false
		err := h.wait(ctx, func() bool { full = h.stats.Full; return full || h.stats.Stopped })
		if err == nil && full {
			_ = h.Signal(syscall.SIGTERM)
		}
	}()
	return h.Wait(ctx)
}

// sendShutdown ends the stream of chunks. A Send that waits for room is let through first.
func (h *Host) sendShutdown() {
	h.sending.Lock()
	defer h.sending.Unlock()
	_, _ = h.stdin.Write(appendFrame(nil, 'S', nil)) // fails when the loader is gone, and that is known then
}

// Wait is Stop without asking: it waits for a loader that was sent a signal.
func (h *Host) Wait(ctx context.Context) (Summary, error) {
	select {
	case <-h.exited:
	case <-ctx.Done():
		_ = h.Kill()
		<-h.exited
		return h.account(), fmt.Errorf("the loader had to be killed: %w", ctx.Err())
	}
	s := h.account()
	switch {
	case h.summary == nil:
		return s, fmt.Errorf("the loader died: %w%s", h.err, h.lastWords())
	case h.raced:
		return s, ErrDataRace
	}
	return s, h.err
}

// account is for after exited.
func (h *Host) account() Summary {
	var s Summary
	if h.summary != nil {
		s = *h.summary
	}
	s.NotTaken = h.stats.Pending
	s.CPU = time.Duration(s.UserMicros+s.SystemMicros) * time.Microsecond
	return s
}

func (h *Host) lastWords() string {
	var b strings.Builder
	for _, line := range h.logs[max(0, len(h.logs)-40):] {
		b.WriteString("\n\t" + line.Raw)
	}
	return b.String()
}

// Signal sends the loader a signal: SIGTERM stops it, as it does Fluent Bit.
func (h *Host) Signal(sig os.Signal) error { return h.cmd.Process.Signal(sig) }

// Kill is kill -9.
func (h *Host) Kill() error { return h.cmd.Process.Kill() }

// PID is the loader's process.
func (h *Host) PID() int { return h.cmd.Process.Pid }

// Stats returns the counts so far.
func (h *Host) Stats() Stats {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.stats
}

// Results returns the flushes that have returned, in that order.
func (h *Host) Results() []Flush {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Clone(h.flushes)
}

// Outcomes returns what became of the chunks that are done with, in that order.
func (h *Host) Outcomes() []Outcome {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Clone(h.outcomes)
}

// Logs returns the log so far: the plugin's lines, the core's, and whatever else was printed.
func (h *Host) Logs() []LogLine {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Clone(h.logs)
}

func (h *Host) update(change func()) {
	h.mu.Lock()
	defer h.mu.Unlock()
	change()
	close(h.changed)
	h.changed = make(chan struct{})
}

// wait calls cond, with mu held, after every change.
func (h *Host) wait(ctx context.Context, cond func() bool) error {
	for {
		h.mu.Lock()
		holds, gone, changed := cond(), h.stats.Exited, h.changed
		h.mu.Unlock()
		switch {
		case holds:
			return nil
		case gone:
			return errors.Join(errors.New("the loader has ended"), h.err)
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (h *Host) reap() {
	h.readers.Wait()
	err := h.cmd.Wait()
	h.update(func() {
		h.err = err
		h.stats.Exited = true
	})
	close(h.exited)
}

func (h *Host) readLog(r io.Reader) {
	br := bufio.NewReader(r)
	for {
		line, err := br.ReadString('\n')
		if line != "" {
			if h.cfg.Stderr != nil {
				_, _ = io.WriteString(h.cfg.Stderr, line)
			}
			parsed := ParseLogLine(strings.TrimRight(line, "\n"))
			h.update(func() {
				h.logs = append(h.logs, parsed)
				h.raced = h.raced || strings.Contains(line, "WARNING: DATA RACE")
			})
		}
		if err != nil {
			return
		}
	}
}

func (h *Host) readEvents(r io.Reader) {
	br := bufio.NewReader(r)
	for {
		line, err := br.ReadBytes('\n')
		if err != nil {
			return // an unfinished line is a loader that was killed
		}
		var e event
		if err := json.Unmarshal(line, &e); err != nil {
			e = event{Event: "failed", Code: -1, Message: fmt.Sprintf("unreadable event %q: %v", line, err)}
		}
		h.take(e, line)
	}
}

// event is any line the loader writes.
type event struct {
	Event     string `json:"event"`
	Chunk     uint64 `json:"chunk"`
	Output    int    `json:"output"`
	Attempt   int    `json:"attempt"`
	Worker    int    `json:"worker"`
	TID       int    `json:"tid"`
	Return    int    `json:"return"`
	NS        int64  `json:"ns"`
	Outcome   string `json:"outcome"`
	Delivered bool   `json:"delivered"`
	Code      int    `json:"code"`
	Message   string `json:"message"`
}

func (h *Host) take(e event, line []byte) {
	if e.Event == "done" && e.Outcome != OutcomeKept {
		h.unstore(e.Chunk, e.Output)
	}
	h.update(func() {
		switch e.Event {
		case "ready":
			h.ready = true
		case "failed":
			h.failure = &StartError{Code: e.Code, Message: e.Message}
		case "start":
			h.stats.Started++
		case "flush":
			h.stats.Flushed++
			switch e.Return {
			case ReturnOK:
				h.stats.OK++
			case ReturnRetry:
				h.stats.Retries++
			default:
				h.stats.Errors++
			}
			h.flushes = append(h.flushes, Flush{
				Chunk: e.Chunk, Output: e.Output, Attempt: e.Attempt, Worker: e.Worker, Thread: e.TID, Return: e.Return,
				Took: time.Duration(e.NS),
			})
		case "done":
			h.stats.Done++
			h.stats.Pending--
			h.outcomes = append(h.outcomes, Outcome{
				Chunk: e.Chunk, Output: e.Output, Attempts: e.Attempt, Outcome: e.Outcome, Delivered: e.Delivered,
			})
		case "full", "room":
			h.stats.Full = e.Event == "full"
		case "stopping":
			if !h.stats.Stopping { // by a signal
				h.stats.Stopping = true
				go h.sendShutdown()
			}
		case "stopped":
			h.stats.Stopped = true
		case "summary":
			h.summary = new(Summary)
			_ = json.Unmarshal(line, h.summary) // it was read as JSON just now
		}
	})
}

func nanos(d, or time.Duration) string { return strconv.FormatInt(int64(cmp.Or(d, or)), 10) }

func appendString(b []byte, s string) []byte {
	return append(binary.LittleEndian.AppendUint32(b, uint32(len(s))), s...)
}

func appendFrame(b []byte, kind byte, payload []byte) []byte {
	b = binary.LittleEndian.AppendUint32(b, uint32(len(payload)))
	return append(append(b, kind), payload...)
}

func pairsFrame(b []byte, kind byte, pairs map[string]string) []byte {
	payload := binary.LittleEndian.AppendUint32(nil, uint32(len(pairs)))
	for _, key := range slices.Sorted(maps.Keys(pairs)) {
		payload = appendString(appendString(payload, key), pairs[key])
	}
	return appendFrame(b, kind, payload)
}
