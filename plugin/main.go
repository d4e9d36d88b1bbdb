// Command plugin is built with -buildmode=c-shared into out_cloudwatch_tenants.so,
// the Fluent Bit output `cloudwatch_tenants`. It is the edge to C and nothing else:
// bytes in, FLB_OK, FLB_RETRY or FLB_ERROR out, and no panic ever gets past it.
package main

// Registration, configuration keys, contexts and return values are fluent-bit-go's. What follows is what that
// library lacks: the log, at the level of one [OUTPUT], and the number of the thread. The structures are those of
// Fluent Bit's Go proxy (src/proxy/go/go.h, include/fluent-bit/flb_api.h); only what is used is named.

/*
#cgo LDFLAGS: -Wl,-z,relro,-z,now
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

struct log_api {
	void *properties[4];
	void (*log_print)(int, const char *, int, const char *, ...);
	int (*input_log_check)(void *, int);
	int (*output_log_check)(void *, int);
};

struct log_output {
	char *name;
	struct log_api *api;
	void *o_ins;
};

static int log_check(struct log_api *api, void *ins, int level) {
	return api->output_log_check ? api->output_log_check(ins, level) : level <= 3;
}

static void log_print(struct log_api *api, int level, const char *line) {
	api->log_print(level, NULL, 0, "%s", line);
}

static long thread_id(void) { return syscall(SYS_gettid); }
*/
import "C"

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"runtime/debug"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"

	flb "github.com/fluent/fluent-bit-go/output"

	"github.com/eks-tenant-logs/eks-tenant-logs/internal/fluentbit"
	"github.com/eks-tenant-logs/eks-tenant-logs/internal/link"
	"github.com/eks-tenant-logs/eks-tenant-logs/internal/output"
	"github.com/eks-tenant-logs/eks-tenant-logs/internal/telemetry"
	"github.com/eks-tenant-logs/eks-tenant-logs/internal/version"
)

const (
	pluginName        = "cloudwatch_tenants"
	pluginDescription = "Per-tenant log isolation: routes pods' logs by namespace to CloudWatch Logs"
)

// instance is one [OUTPUT] section.
type instance struct {
	out *output.Instance
	log *slog.Logger
	// thread is the one Init ran on: Fluent Bit's engine. A flush there means that
	// no workers are configured, because `workers` cannot be read.
	thread    int64
	noWorkers sync.Once
}

var (
	instancesMu sync.RWMutex
	instances   []*instance // of this process, whatever became of them

	hotReload atomic.Bool

	// One set of metrics and one listener a process, however many instances.
	metrics  = telemetry.NewMetrics()
	listener = telemetry.NewListener(metrics)
)

// gcPercent is how far the heap may grow between two collections, in percent of what lives.
// Half of Go's default: a guest in another process takes less memory for a little more CPU.
// $GOGC says otherwise. No other Go plugin is concerned: each has a runtime of its own.
const gcPercent = 50

func main() {} // never runs: c-shared wants it

//export FLBPluginRegister
func FLBPluginRegister(def unsafe.Pointer) (code C.int) {
	// Never less than 0 here: Fluent Bit would free def and go on using it.
	defer recovered("FLBPluginRegister", nil, func() { code = 0 })
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(gcPercent)
	}
	// Fluent Bit keeps pointing to copies of both that C owns. They are never freed: FLBPluginUnregister, which would,
	// is not exported, for a reload costs a hundred bytes and a mistake the process.
	return C.int(max(flb.FLBPluginRegister(def, pluginName, pluginDescription), 0))
}

//export FLBPluginInit
func FLBPluginInit(plugin unsafe.Pointer) (code C.int) {
	defer recovered("FLBPluginInit", nil, func() { code = -1 })
	p := (*C.struct_log_output)(plugin)
	// Fluent Bit numbers its outputs in the same way; the alias cannot be read.
	instancesMu.RLock()
	name := fmt.Sprintf("%s.%d", pluginName, len(instances))
	instancesMu.RUnlock()
	log := telemetry.NewLogger(name, metrics.Counting(name, printer{api: p.api, ins: p.o_ins}))
	if err := engine(log); err != nil {
		report(log, err)
		return -1
	}
	// All of them now: Fluent Bit uses the same structure for the next instance.
	opts, err := output.ParseOptions(func(key string) string { return flb.FLBPluginConfigKey(plugin, key) })
	if err != nil {
		report(log, err)
		return -1
	}
	out, err := output.New(context.Background(), opts, output.Environment{
		Log: log, Name: name, Metrics: metrics, Listener: listener, Node: os.Getenv("NODE_NAME"),
		Stop: func() { _ = syscall.Kill(os.Getpid(), syscall.SIGTERM) },
	})
	if err != nil {
		report(log, err)
		return -1
	}
	i := &instance{out: out, log: log, thread: int64(C.thread_id())}
	instancesMu.Lock()
	instances = append(instances, i)
	instancesMu.Unlock()
	flb.FLBPluginSetContext(plugin, i)
	launched.Do(func() { go listen(log) })
	return flb.FLB_OK
}

// launched is for the first instance: there is one link to the launcher a process.
var launched sync.Once

// listen does what the launcher says, where one started this Fluent Bit.
func listen(log *slog.Logger) {
	defer recovered("the link to the launcher", log, func() {})
	if err := link.Receive(func(m link.Message) {
		if m.Report != nil {
			metrics.Reading(string(m.Report.Kind), m.Report.Namespace, m.Report.Pod, m.Report.Container, m.Report.Bytes)
		}
		if m.Leave > 0 {
			instancesMu.RLock()
			defer instancesMu.RUnlock()
			for _, i := range instances {
				i.out.Leave(m.Leave)
			}
		}
	}); err != nil {
		log.Warn("the link to the launcher is broken; at its end, Fluent Bit waits for undelivered events as long as its grace", "error", err)
	}
}

// engineVersion is found once a process: it means running a program.
var engineVersion = sync.OnceValues(func() (fluentbit.Version, bool) {
	return fluentbit.Find(context.Background(), fluentbit.This())
})

// engine says who we are and where, and refuses a Fluent Bit that is too old.
func engine(log *slog.Logger) error {
	v, known := engineVersion()
	if !known {
		log.Warn("starting in a Fluent Bit whose version is unknown: that it has the fixes of "+strings.Join(fluentbit.CVEs, ", ")+" is not checked; set "+fluentbit.Environment+" to its version", "version", version.String())
		return nil
	}
	if err := fluentbit.Check(v); err != nil {
		return err
	}
	log.Info("starting", "version", version.String(), "fluent_bit", v.String())
	return nil
}

// report writes each of the errors that start-up failed with as a line of its own.
func report(log *slog.Logger, err error) {
	for _, line := range strings.Split(err.Error(), "\n") {
		log.Error(line)
	}
}

//export FLBPluginOutputPreRun
func FLBPluginOutputPreRun(hotReloadEnabled C.int) (code C.int) {
	defer recovered("FLBPluginOutputPreRun", nil, func() { code = 0 })
	if hotReloadEnabled != 0 && hotReload.CompareAndSwap(false, true) {
		instancesMu.RLock()
		defer instancesMu.RUnlock()
		for _, i := range instances {
			i.log.Warn("hot reload is on: with `workers` set on a Go output, Fluent Bit crashes on its second reload; turn hot_reload off and restart instead (tenants_file needs no reload)")
		}
	}
	return 0
}

//export FLBPluginFlushCtx
func FLBPluginFlushCtx(ctx, data unsafe.Pointer, length C.size_t, tag *C.char) (code C.int) {
	i := lookup(ctx)
	if i == nil {
		return flb.FLB_RETRY
	}
	// A chunk that makes us panic is kept by Fluent Bit: nothing is lost.
	defer recovered("FLBPluginFlushCtx", i.log, func() { code = flb.FLB_RETRY })
	timeout := time.Duration(0)
	if int64(C.thread_id()) == i.thread {
		i.noWorkers.Do(func() {
			i.out.WithoutWorkers()
			i.log.Error("no workers are configured: every flush stops all of Fluent Bit; set `workers 4` in this [OUTPUT]; flush_timeout is shortened meanwhile", "flush_timeout", output.EngineFlushTimeout)
		})
		timeout = output.EngineFlushTimeout
	}
	var chunk []byte
	if length > 0 {
		// Fluent Bit's memory, valid until we return; nothing below keeps it.
		chunk = unsafe.Slice((*byte)(data), int(length))
	}
	switch i.out.Flush(context.Background(), C.GoString(tag), chunk, timeout) {
	case output.OK:
		return flb.FLB_OK
	}
	return flb.FLB_RETRY
}

//export FLBPluginExitCtx
func FLBPluginExitCtx(ctx unsafe.Pointer) (code C.int) {
	i := lookup(ctx)
	if i == nil {
		return flb.FLB_OK
	}
	defer recovered("FLBPluginExitCtx", i.log, func() { code = flb.FLB_OK })
	i.out.Close()
	return flb.FLB_OK
}

// lookup is the instance whose Init set this context. The library keeps Go's value and gives C the address of a byte of
// C's, which is never freed; so any address may be asked for, and one that no Init set, or none, answers nil.
func lookup(ctx unsafe.Pointer) *instance {
	i, _ := flb.FLBPluginGetContext(ctx).(*instance)
	return i
}

// recovered is deferred by every export: a panic becomes a line in the log and the
// answer that loses nothing.
func recovered(where string, log *slog.Logger, answer func()) {
	r := recover()
	if r == nil {
		return
	}
	answer()
	// The stack names our functions and numbers, never the content of a record.
	line := fmt.Sprintf("panic in %s: %T; please report this with the stack: %s", where, r, strings.ReplaceAll(string(debug.Stack()), "\n", " | "))
	if err, ok := r.(error); ok {
		line = fmt.Sprintf("panic in %s: %v; please report this with the stack: %s", where, err, strings.ReplaceAll(string(debug.Stack()), "\n", " | "))
	}
	if log != nil {
		log.Error(line)
		return
	}
	fmt.Fprintln(os.Stderr, "["+pluginName+"] "+line)
}

// printer writes through Fluent Bit's own log, at the level of this [OUTPUT].
type printer struct {
	api *C.struct_log_api
	ins unsafe.Pointer
}

// level is Fluent Bit's number for a slog level (flb_log.h).
func level(l slog.Level) C.int {
	switch {
	case l >= slog.LevelError:
		return 1
	case l >= slog.LevelWarn:
		return 2
	case l >= slog.LevelInfo:
		return 3
	case l >= slog.LevelDebug:
		return 4
	}
	return 5
}

func (p printer) Enabled(l slog.Level) bool {
	return C.log_check(p.api, p.ins, level(l)) != 0
}

// maxLine keeps a line within what Fluent Bit's logger takes (4,096 bytes with its
// own header, src/flb_log.c).
const maxLine = 3900

func (p printer) Print(l slog.Level, line string) {
	if len(line) > maxLine {
		line = line[:maxLine] + "..."
	}
	c := C.CString(line)
	defer C.free(unsafe.Pointer(c))
	C.log_print(p.api, level(l), c)
}
