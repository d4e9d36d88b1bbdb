// Command plugin is built with -buildmode=c-shared into out_cloudwatch_tenants.so,
// the Fluent Bit output `cloudwatch_tenants`. It is the edge to C and nothing else:
// bytes in, FLB_OK, FLB_RETRY or FLB_ERROR out, and no panic ever gets past it.
package main

// The structures are those of Fluent Bit's Go proxy (src/proxy/go/go.h,
// include/fluent-bit/flb_plugin_proxy.h and flb_api.h); only what is used is named.

/*
#cgo LDFLAGS: -Wl,-z,relro,-z,now
#include <stdlib.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/syscall.h>
#include <unistd.h>

struct flb_plugin_proxy_def {
	int type;
	int proxy;
	int flags;
	char *name;
	char *description;
	int event_type;
};

struct flb_plugin_proxy_context {
	void *remote_context;
};

struct flb_api {
	const char *(*output_get_property)(const char *, void *);
	const char *(*input_get_property)(const char *, void *);
	void *(*output_get_cmt_instance)(void *);
	void *(*input_get_cmt_instance)(void *);
	void (*log_print)(int, const char *, int, const char *, ...);
	int (*input_log_check)(void *, int);
	int (*output_log_check)(void *, int);
};

struct flbgo_output_plugin {
	char *name;
	struct flb_api *api;
	void *o_ins;
	struct flb_plugin_proxy_context *context;
};

static const char *get_property(struct flb_api *api, void *ins, const char *key) {
	return api->output_get_property(key, ins);
}

static int log_check(struct flb_api *api, void *ins, int level) {
	return api->output_log_check ? api->output_log_check(ins, level) : level <= 3;
}

static void log_print(struct flb_api *api, int level, const char *line) {
	api->log_print(level, NULL, 0, "%s", line);
}

// The context Fluent Bit hands back is a number, not an address: Go memory must
// not be kept by C. Written in C, because Go would take the number for a pointer.
static void set_context(struct flbgo_output_plugin *p, uintptr_t id) {
	p->context->remote_context = (void *) id;
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

	"github.com/eks-tenant-logs/eks-tenant-logs/internal/fluentbit"
	"github.com/eks-tenant-logs/eks-tenant-logs/internal/output"
	"github.com/eks-tenant-logs/eks-tenant-logs/internal/telemetry"
	"github.com/eks-tenant-logs/eks-tenant-logs/internal/version"
)

// Return values and identifiers of Fluent Bit's ABI.
const (
	flbOK    = 1
	flbRetry = 2

	proxyOutputPlugin = 2
	proxyGolang       = 11
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
	instances   []*instance // remote_context is the index here, plus one

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
	d := (*C.struct_flb_plugin_proxy_def)(def)
	d._type = proxyOutputPlugin
	d.proxy = proxyGolang
	d.flags = 0
	// Fluent Bit keeps pointing to both for as long as it runs; nobody frees them.
	d.name = C.CString(pluginName)
	d.description = C.CString(pluginDescription)
	d.event_type = 0 // logs
	return 0
}

//export FLBPluginInit
func FLBPluginInit(plugin unsafe.Pointer) (code C.int) {
	defer recovered("FLBPluginInit", nil, func() { code = -1 })
	p := (*C.struct_flbgo_output_plugin)(plugin)
	// Fluent Bit numbers its outputs in the same way; the alias cannot be read.
	instancesMu.RLock()
	name := fmt.Sprintf("%s.%d", pluginName, len(instances))
	instancesMu.RUnlock()
	log := telemetry.NewLogger(name, metrics.Counting(name, printer{api: p.api, ins: p.o_ins}))
	if err := engine(log); err != nil {
		report(log, err)
		return -1
	}
	opts, err := output.ParseOptions(func(key string) string { return property(p, key) })
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
	instancesMu.Lock()
	instances = append(instances, &instance{out: out, log: log, thread: int64(C.thread_id())})
	id := len(instances)
	instancesMu.Unlock()
	C.set_context(p, C.uintptr_t(id))
	return flbOK
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
func FLBPluginFlushCtx(ctx C.uintptr_t, data unsafe.Pointer, length C.size_t, tag *C.char) (code C.int) {
	i := lookup(ctx)
	if i == nil {
		return flbRetry
	}
	// A chunk that makes us panic is kept by Fluent Bit: nothing is lost.
	defer recovered("FLBPluginFlushCtx", i.log, func() { code = flbRetry })
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
		return flbOK
	}
	return flbRetry
}

//export FLBPluginExitCtx
func FLBPluginExitCtx(ctx C.uintptr_t) (code C.int) {
	i := lookup(ctx)
	if i == nil {
		return flbOK
	}
	defer recovered("FLBPluginExitCtx", i.log, func() { code = flbOK })
	i.out.Close()
	return flbOK
}

func lookup(ctx C.uintptr_t) *instance {
	id := int(ctx)
	instancesMu.RLock()
	defer instancesMu.RUnlock()
	if id < 1 || id > len(instances) {
		return nil
	}
	return instances[id-1]
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

// property reads one option; every option is read during Init, because Fluent Bit
// uses the same structure for the next instance.
func property(p *C.struct_flbgo_output_plugin, name string) string {
	key := C.CString(name)
	defer C.free(unsafe.Pointer(key))
	v := C.get_property(p.api, p.o_ins, key)
	if v == nil {
		return ""
	}
	return C.GoString(v)
}

// printer writes through Fluent Bit's own log, at the level of this [OUTPUT].
type printer struct {
	api *C.struct_flb_api
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
