// Command testplugin is a Fluent Bit output plugin with which package host is tested. It writes what is called, with what
// and on which thread, as JSON lines to the file its environment names in TESTPLUGIN_RECORD, and does as its properties say:
//
//	id           a name for the record
//	probe        keys to read back in Init, separated by commas
//	init_return  what Init returns (1)
//	log          "yes": log a line at every level that output_log_check allows
//	retry_first  return RETRY that many times for each chunk
//	return       what flush returns otherwise (1)
//	meet         hold flushes until that many are inside at the same time
//	gate         a FIFO: flushes whose tag ends in `.gated` wait until somebody opens it for writing
//	keep         "yes": keep pointers to data and tag, and look at the previous flush's in the next one
//	print        "yes": print to stdout
//	stack        "yes": use much of the C stack in flush
//	race         "yes": write a variable from all flushes without a lock
package main

/*
#define _GNU_SOURCE
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

typedef struct {
	const char *(*output_get_property)(const char *, void *);
	const char *(*input_get_property)(const char *, void *);
	void *(*output_get_cmt_instance)(void *);
	void *(*input_get_cmt_instance)(void *);
	void (*log_print)(int, const char *, int, const char *, ...);
	int (*input_log_check)(void *, int);
	int (*output_log_check)(void *, int);
	const char *(*custom_get_property)(const char *, void *);
	int (*custom_log_check)(void *, int);
} api;

typedef struct {
	int type, proxy, flags;
	char *name, *description;
	int event_type;
	void *config_map;
} plugin_def;

typedef struct {
	void *remote_context;
	void *proxy;
} plugin_context;

typedef struct {
	char *name;
	api *api;
	void *o_ins;
	plugin_context *context;
} output_plugin;

static inline const char *get_property(output_plugin *p, const char *key) {
	return p->api->output_get_property(key, p->o_ins);
}
static inline int log_check(output_plugin *p, int level) { return p->api->output_log_check(p->o_ins, level); }
static inline void log_print(output_plugin *p, int level, const char *text, int n) {
	p->api->log_print(level, NULL, 0, "[test] %s %d", text, n);
}
static inline void set_context(output_plugin *p, uintptr_t id) { p->context->remote_context = (void *)id; }
static inline long thread(void) { return syscall(SYS_gettid); }

// 12 KiB of the caller's stack, touched.
static inline int use_stack(void) {
	volatile char buf[12 * 1024];
	for (size_t i = 0; i < sizeof(buf); i += 512) {
		buf[i] = (char)i;
	}
	return buf[512];
}
*/
import "C"

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"unsafe"
)

const (
	outputPlugin = 2
	golang       = 11

	flbError = 0
	flbOK    = 1
	flbRetry = 2
)

// instance is an output. Its place in instances, plus 1, is the context Fluent Bit holds for it.
type instance struct {
	id         string
	retryFirst int
	result     int
	meet       int
	gate       string
	keep       bool
	print      bool
	stack      bool
	race       bool

	mu       sync.Mutex
	met      *sync.Cond
	inside   int
	let      int // how many may go on: the groups that have met, times meet
	tries    map[string]int
	lastData unsafe.Pointer
	lastTag  *C.char
	lastSize C.int
}

var (
	instances []*instance
	recording sync.Mutex
	raced     int
)

type entry struct {
	Call   string             `json:"call"`
	ID     string             `json:"id,omitempty"`
	Arg    int                `json:"arg"`
	Thread int                `json:"thread"`
	Tag    string             `json:"tag,omitempty"`
	Size   int                `json:"size,omitempty"`
	Hash   string             `json:"hash,omitempty"`
	Return int                `json:"return"`
	Probed map[string]*string `json:"probed,omitempty"`
	Kept   string             `json:"kept,omitempty"` // what the previous flush's memory holds now
}

func record(e entry) {
	path := os.Getenv("TESTPLUGIN_RECORD")
	if path == "" {
		return
	}
	e.Thread = int(C.thread())
	recording.Lock()
	defer recording.Unlock()
	f, err := os.OpenFile(path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		fmt.Fprintln(os.Stderr, "testplugin:", err)
		return
	}
	defer f.Close()
	_ = json.NewEncoder(f).Encode(e)
}

//export FLBPluginPreRegister
func FLBPluginPreRegister(hotReloading C.int) C.int {
	record(entry{Call: "preregister", Arg: int(hotReloading)})
	return 0
}

//export FLBPluginRegister
func FLBPluginRegister(def *C.plugin_def) C.int {
	record(entry{Call: "register"})
	def._type, def.proxy = outputPlugin, golang
	def.name, def.description = C.CString("testplugin"), C.CString(`a "test" plugin`)
	return 0
}

//export FLBPluginInit
func FLBPluginInit(p *C.output_plugin) C.int {
	get := func(key string) *string {
		k := C.CString(key)
		defer C.free(unsafe.Pointer(k))
		v := C.get_property(p, k)
		if v == nil {
			return nil
		}
		s := C.GoString(v)
		return &s
	}
	text := func(key string) string {
		if v := get(key); v != nil {
			return *v
		}
		return ""
	}
	number := func(key string, or int) int {
		if n, err := strconv.Atoi(text(key)); err == nil {
			return n
		}
		return or
	}

	ins := &instance{
		id: text("id"), retryFirst: number("retry_first", 0), result: number("return", flbOK), meet: number("meet", 0),
		gate: text("gate"), keep: text("keep") == "yes", print: text("print") == "yes", stack: text("stack") == "yes",
		race: text("race") == "yes", tries: map[string]int{},
	}
	ins.met = sync.NewCond(&ins.mu)
	instances = append(instances, ins)
	C.set_context(p, C.uintptr_t(len(instances)))

	if text("log") == "yes" {
		for level := C.int(1); level <= 5; level++ {
			if C.log_check(p, level) != 0 {
				s := C.CString("level")
				C.log_print(p, level, s, level)
				C.free(unsafe.Pointer(s))
			}
		}
	}
	e := entry{Call: "init", ID: ins.id, Return: number("init_return", flbOK), Probed: map[string]*string{}}
	for key := range strings.SplitSeq(text("probe"), ",") {
		e.Probed[key] = get(key)
	}
	record(e)
	return C.int(e.Return)
}

//export FLBPluginOutputPreRun
func FLBPluginOutputPreRun(hotReload C.int) C.int {
	record(entry{Call: "prerun", Arg: int(hotReload)})
	return 0
}

// at takes the context as a number: 1 is no pointer that Go's stacks may hold.
func at(ctx C.uintptr_t) *instance { return instances[int(ctx)-1] }

//export FLBPluginFlushCtx
func FLBPluginFlushCtx(ctx C.uintptr_t, data unsafe.Pointer, size C.int, ctag *C.char) C.int {
	ins, tag := at(ctx), C.GoString(ctag)
	sum := sha256.Sum256(append([]byte(tag), C.GoBytes(data, size)...))
	e := entry{Call: "flush", ID: ins.id, Tag: tag, Size: int(size), Hash: hex.EncodeToString(sum[:8])}

	if ins.print {
		fmt.Println("this is stdout")
	}
	if ins.stack {
		C.use_stack()
	}
	if ins.race {
		raced++
	}
	if ins.gate != "" && strings.HasSuffix(tag, ".gated") {
		if f, err := os.Open(ins.gate); err == nil {
			f.Close()
		}
	}

	ins.mu.Lock()
	if ins.keep {
		if ins.lastData != nil {
			e.Kept = hex.EncodeToString(C.GoBytes(ins.lastData, ins.lastSize)) + " " +
				hex.EncodeToString(C.GoBytes(unsafe.Pointer(ins.lastTag), 1))
		}
		ins.lastData, ins.lastTag, ins.lastSize = data, ctag, size
	}
	if ins.meet > 0 {
		ins.inside++
		ticket := ins.inside
		if ins.inside%ins.meet == 0 {
			ins.let = ins.inside
			ins.met.Broadcast()
		}
		for ticket > ins.let {
			ins.met.Wait()
		}
	}
	e.Return = ins.result
	if ins.tries[e.Hash]++; ins.tries[e.Hash] <= ins.retryFirst {
		e.Return = flbRetry
	}
	ins.mu.Unlock()
	record(e)
	return C.int(e.Return)
}

//export FLBPluginFlush
func FLBPluginFlush(unsafe.Pointer, C.int, *C.char) C.int {
	record(entry{Call: "flush without context"})
	return flbError
}

//export FLBPluginOutputPreExit
func FLBPluginOutputPreExit(hotReload C.int) { record(entry{Call: "preexit", Arg: int(hotReload)}) }

//export FLBPluginExitCtx
func FLBPluginExitCtx(ctx C.uintptr_t) C.int {
	record(entry{Call: "exit", ID: at(ctx).id, Return: flbOK})
	return flbOK
}

//export FLBPluginExit
func FLBPluginExit() C.int {
	record(entry{Call: "exit without context"})
	return flbError
}

//export FLBPluginUnregister
func FLBPluginUnregister(*C.plugin_def) { record(entry{Call: "unregister"}) }

func main() {}
