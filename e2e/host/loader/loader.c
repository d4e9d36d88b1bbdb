// SPDX-License-Identifier: Apache-2.0
//
// loader: runs a Fluent Bit Go output plugin (a .so built with -buildmode=c-shared) the way Fluent Bit 5.1
// does, where no Fluent Bit is installed. It is a program of its own because a plugin brings a Go runtime,
// and a process holds one: a Go test can't load it into itself.
//
// What it keeps of Fluent Bit: the ABI and the order of calls; Init and Exit on the engine's thread; without
// workers flushes on that thread too, with workers one queue per thread, filled round-robin, nothing stolen;
// each flush on a coroutine's own small stack; retries, retry limits, task slots, Grace, and what is lost or
// kept at exit. What it leaves out: inputs, filters, routing (its parent names the outputs of a chunk) and
// cmetrics (the getters answer NULL).
//
// stdin:  frames of u32 length, u8 type, payload; all integers little-endian. See read_frame().
// stdout: one JSON object a line. The plugin's own stdout goes to stderr.
// stderr: the log, in Fluent Bit's format.
//
// --race is for a plugin that was built with -race.

#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <time.h>
#include <ucontext.h>
#include <unistd.h>

// Exit codes; host.go knows them too.
enum {
    EXIT_INTERNAL = 1,  // out of memory, no threads
    EXIT_PROTOCOL = 2,  // bad arguments, a bad frame, a configuration Fluent Bit refuses
    EXIT_LOAD = 3,      // the .so can't be opened, lacks a symbol, or did not register
    EXIT_INIT = 4,      // FLBPluginInit returned <= 0
    EXIT_ORPHANED = 5,  // the parent went away, and the plugin did not let go in time
};

// --- Fluent Bit's ABI, 5.1.1 ---

enum { FLB_ERROR = 0, FLB_OK = 1, FLB_RETRY = 2 };
enum { FLB_PROXY_OUTPUT_PLUGIN = 2, FLB_PROXY_GOLANG = 11, FLB_IO_TLS = 2 };
enum { LOG_OFF, LOG_ERROR, LOG_WARN, LOG_INFO, LOG_DEBUG, LOG_TRACE, LOG_HELP, LOG_IDEBUG = 10 };

struct flb_api {
    const char *(*output_get_property)(const char *, void *);
    const char *(*input_get_property)(const char *, void *);
    void *(*output_get_cmt_instance)(void *);
    void *(*input_get_cmt_instance)(void *);
    void (*log_print)(int, const char *, int, const char *, ...);
    int (*input_log_check)(void *, int);
    int (*output_log_check)(void *, int);
    const char *(*custom_get_property)(const char *, void *);
    int (*custom_log_check)(void *, int);
};

struct plugin_def {
    int type;
    int proxy;
    int flags;
    char *name;
    char *description;
    int event_type;
    void *config_map;
};

struct plugin_context {
    void *remote_context;  // the plugin's own pointer, set in Init, passed to flush and exit
    void *proxy;
};

struct go_output_plugin {
    char *name;
    void *api;
    void *o_ins;
    struct plugin_context *context;
    int (*cb_init)(struct go_output_plugin *);
    int (*cb_flush)(const void *, size_t, const char *);
    int (*cb_flush_ctx)(void *, const void *, size_t, char *);
    int (*cb_exit)(void);
    int (*cb_exit_ctx)(void *);
};

#if defined(__LP64__)
_Static_assert(offsetof(struct flb_api, log_print) == 32, "flb_api");
_Static_assert(offsetof(struct flb_api, output_log_check) == 48, "flb_api");
_Static_assert(sizeof(struct flb_api) == 72, "flb_api");
_Static_assert(sizeof(struct plugin_def) == 48, "plugin_def");
_Static_assert(offsetof(struct go_output_plugin, context) == 24, "go_output_plugin");
_Static_assert(sizeof(struct go_output_plugin) == 72, "go_output_plugin");
#endif

// --- what runs ---

struct property {
    char *key, *val;
    struct property *next;
};

// One chunk Fluent Bit holds; its bytes stay as they came until every output is done with it.
struct task {
    uint64_t id;
    char *tag;
    size_t tag_len;
    unsigned char *data;
    size_t size;
    uint32_t routes;  // outputs not done yet; the engine's alone
};

// A task's way to one output: what is queued, flushed and retried.
struct route {
    struct task *task;
    struct instance *ins;
    int attempts;    // flushes so far
    int retries;     // retries scheduled so far
    int64_t due;     // when to retry, ns
    int ret;
    struct route *next;
};

struct queue {
    struct route *head, *tail;
};

struct worker {
    struct instance *ins;
    int id;
    pthread_t thread;
    pthread_mutex_t mu;
    pthread_cond_t cv;
    struct queue queue;
    bool stop;
};

struct instance {
    int index;
    char name[160];
    struct property *given;       // as configured
    struct property *properties;  // what the core leaves for the plugin
    int log_level;
    int retry_limit;  // -1 without limit, 0 no retries
    int workers;
    struct worker *pool;
    int next_worker;
    struct plugin_context context;
    struct instance *next;
};

static struct {
    const char *plugin_path;
    int64_t grace_ns;  // < 0: wait for ever
    int64_t retry_base_ns, retry_cap_ns, retry_shutdown_ns;
    size_t stack_size;
    uint32_t max_tasks;
    int log_level;
    bool storage;           // `storage.type filesystem`
    uint32_t keep_poisoned; // buffers kept, overwritten, instead of freed at once
    int hot_reload;
} conf = {
    .grace_ns = 5000000000,
    .retry_base_ns = 5000000000,
    .retry_cap_ns = 2000000000000,
    .retry_shutdown_ns = 1000000000,
    .stack_size = 64 * 1024,
    .max_tasks = 2048,
    .log_level = LOG_INFO,
};

static struct instance *instances;
static int instance_count;

static struct {
    void *handle;
    struct plugin_def def;
    struct flb_api api;
    struct go_output_plugin go;
    char *name;
} plugin;

static struct {
    uint64_t chunks, routes, flushes, ok, retries, errors, dropped_retry, dropped_error, bad_returns;
    uint64_t lost_at_exit, kept_in_storage, kept_delivered, ok_at_exit, pending_at_grace, full;
} count;
static atomic_int concurrent, max_concurrent;

static struct queue engine_queue;    // flushes for outputs without workers
static struct queue retrying;
static struct queue results;         // flushed by workers, not yet seen by the engine
static pthread_mutex_t results_mu = PTHREAD_MUTEX_INITIALIZER;
static uint32_t tasks;
static uint64_t routes_open;
static bool past_grace;
static int wake_fd = -1;
static int out_fd = -1, in_fd = -1;
static volatile sig_atomic_t got_term;
static pthread_mutex_t out_mu = PTHREAD_MUTEX_INITIALIZER;

// --- small things ---

__attribute__((format(printf, 2, 3), noreturn)) static void die(int code, const char *fmt, ...);

static int64_t now_ns(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (int64_t)ts.tv_sec * 1000000000 + ts.tv_nsec;
}

static void *must_alloc(size_t n)
{
    void *p = calloc(1, n ? n : 1);
    if (!p) {
        die(EXIT_INTERNAL, "out of memory");
    }
    return p;
}

static void *must_copy(const void *src, size_t n)
{
    unsigned char *p = malloc(n + 1);
    if (!p) {
        die(EXIT_INTERNAL, "out of memory");
    }
    memcpy(p, src, n);
    p[n] = 0;
    return p;
}

static void check(int err, const char *what)
{
    if (err != 0) {
        die(EXIT_INTERNAL, "%s: %s", what, strerror(err));
    }
}

static void lock(pthread_mutex_t *mu) { check(pthread_mutex_lock(mu), "pthread_mutex_lock"); }
static void unlock(pthread_mutex_t *mu) { check(pthread_mutex_unlock(mu), "pthread_mutex_unlock"); }

static void push(struct queue *q, struct route *r)
{
    r->next = NULL;
    if (q->tail) {
        q->tail->next = r;
    } else {
        q->head = r;
    }
    q->tail = r;
}

static struct route *pop(struct queue *q)
{
    struct route *r = q->head;
    if (r) {
        q->head = r->next;
        if (!q->head) {
            q->tail = NULL;
        }
        r->next = NULL;
    }
    return r;
}

// --- output: events and log ---

static void emit(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
static void emit(const char *fmt, ...)
{
    char buf[8192];
    va_list args;
    va_start(args, fmt);
    int n = vsnprintf(buf, sizeof(buf) - 1, fmt, args);
    va_end(args);
    if (n < 0) {
        return;
    }
    if ((size_t)n > sizeof(buf) - 2) {
        n = sizeof(buf) - 2;
    }
    buf[n++] = '\n';
    pthread_mutex_lock(&out_mu);
    for (int off = 0; off < n;) {
        ssize_t w = write(out_fd, buf + off, (size_t)(n - off));
        if (w < 0 && errno == EINTR) {
            continue;
        }
        if (w <= 0) {
            break;  // nobody listens any more; stdin's end says the same
        }
        off += (int)w;
    }
    pthread_mutex_unlock(&out_mu);
}

static void json_escape(char *dst, size_t size, const char *src)
{
    size_t n = 0;
    for (; *src && n + 7 < size; src++) {
        unsigned char c = (unsigned char)*src;
        if (c == '"' || c == '\\') {
            dst[n++] = '\\';
            dst[n++] = (char)c;
        } else if (c < 0x20) {
            n += (size_t)snprintf(dst + n, size - n, "\\u%04x", c);
        } else {
            dst[n++] = (char)c;
        }
    }
    dst[n] = 0;
}

static void die(int code, const char *fmt, ...)
{
    char msg[2048], esc[4096];
    va_list args;
    va_start(args, fmt);
    vsnprintf(msg, sizeof(msg), fmt, args);
    va_end(args);
    json_escape(esc, sizeof(esc), msg);
    emit("{\"event\":\"failed\",\"code\":%d,\"message\":\"%s\"}", code, esc);
    fprintf(stderr, "loader: %s\n", msg);
    _exit(code);
}

static const char *level_name(int level)
{
    switch (level) {
    case LOG_HELP: return "help";
    case LOG_INFO: return "info";
    case LOG_WARN: return "warn";
    case LOG_ERROR: return "error";
    case LOG_DEBUG:
    case LOG_IDEBUG: return "debug";
    case LOG_TRACE: return "trace";
    }
    return "unknown";
}

static void log_line(int level, const char *fmt, va_list args)
{
    char buf[4096];  // Fluent Bit cuts at about this length
    struct timespec ts;
    struct tm tm;
    clock_gettime(CLOCK_REALTIME, &ts);
    localtime_r(&ts.tv_sec, &tm);
    int n = snprintf(buf, sizeof(buf), "[%d/%02d/%02d %02d:%02d:%02d.%03ld] [%5s] ", tm.tm_year + 1900, tm.tm_mon + 1,
                     tm.tm_mday, tm.tm_hour, tm.tm_min, tm.tm_sec, ts.tv_nsec / 1000000, level_name(level));
    int m = vsnprintf(buf + n, sizeof(buf) - (size_t)n - 1, fmt, args);
    if (m < 0) {
        return;
    }
    n += m;
    if ((size_t)n > sizeof(buf) - 2) {
        n = sizeof(buf) - 2;
    }
    buf[n++] = '\n';
    for (int off = 0; off < n;) {
        ssize_t w = write(STDERR_FILENO, buf + off, (size_t)(n - off));
        if (w < 0 && errno == EINTR) {
            continue;
        }
        if (w <= 0) {
            return;
        }
        off += (int)w;
    }
}

// What the core itself says, at its own level.
static void core_log(int level, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static void core_log(int level, const char *fmt, ...)
{
    if (level > conf.log_level) {
        return;
    }
    va_list args;
    va_start(args, fmt);
    log_line(level, fmt, args);
    va_end(args);
}

// --- flb_api ---

// log_print does not look at levels: its callers ask output_log_check first.
static void api_log_print(int type, const char *file, int line, const char *fmt, ...)
{
    (void)file;
    (void)line;
    va_list args;
    va_start(args, fmt);
    log_line(type, fmt, args);
    va_end(args);
}

static const char *api_output_get_property(const char *key, void *o_ins)
{
    struct instance *ins = o_ins;
    if (!key || !*key) {
        return NULL;
    }
    for (struct property *p = ins->properties; p; p = p->next) {
        if (strcasecmp(p->key, key) == 0) {
            return p->val;  // the first one wins
        }
    }
    return NULL;
}

static int api_output_log_check(void *o_ins, int level)
{
    struct instance *ins = o_ins;
    return ins->log_level >= level;
}

static const char *api_no_property(const char *key, void *ins)
{
    (void)key;
    (void)ins;
    return NULL;
}

static void *api_no_cmt(void *ins)
{
    (void)ins;
    return NULL;
}

static int api_core_log_check(void *ins, int level)
{
    (void)ins;
    return conf.log_level >= level;
}

// --- configuration ---

static int parse_level(const char *s)
{
    static const struct { const char *name; int level; } levels[] = {
        {"off", LOG_OFF}, {"error", LOG_ERROR}, {"warn", LOG_WARN}, {"warning", LOG_WARN},
        {"info", LOG_INFO}, {"debug", LOG_DEBUG}, {"trace", LOG_TRACE},
    };
    for (size_t i = 0; i < sizeof(levels) / sizeof(levels[0]); i++) {
        if (strcasecmp(s, levels[i].name) == 0) {
            return levels[i].level;
        }
    }
    return -1;
}

static bool parse_bool(const char *s)
{
    return strcasecmp(s, "true") == 0 || strcasecmp(s, "on") == 0 || strcasecmp(s, "yes") == 0;
}

// Keys that the core keeps to itself: an output can't read them back.
static bool swallowed(const char *key)
{
    static const char *const keys[] = {
        "name", "match", "match_regex", "alias", "log_level", "log_suppress_interval", "host", "port", "ipv6",
        "retry_limit", "workers", "storage.total_limit_size", "tls", "tls.verify", "tls.verify_hostname",
        "tls.debug", "tls.vhost", "tls.ca_path", "tls.ca_file", "tls.crt_file", "tls.key_file", "tls.key_passwd",
        "tls.min_version", "tls.max_version", "tls.ciphers", "tls.proxy.verify", "tls.proxy.verify_hostname",
        "tls.proxy.ca_path", "tls.proxy.ca_file",
    };
    for (size_t i = 0; i < sizeof(keys) / sizeof(keys[0]); i++) {
        if (strcasecmp(key, keys[i]) == 0) {
            return true;
        }
    }
    return strncasecmp(key, "net.", 4) == 0 || strncasecmp(key, "oauth2", 6) == 0;
}

static void apply_properties(struct instance *ins)
{
    ins->log_level = conf.log_level;
    ins->retry_limit = 1;
    struct property **last = &ins->properties;
    for (struct property *p = ins->given, *next; p; p = next) {
        next = p->next;
        p->next = NULL;
        if (!*p->val) {
            p->val = NULL;  // an empty value reads as unset
        }
        if (!swallowed(p->key)) {
            *last = p;
            last = &p->next;
            continue;
        }
        if (!p->val) {
            continue;
        }
        if (strcasecmp(p->key, "log_level") == 0) {
            ins->log_level = parse_level(p->val);
            if (ins->log_level < 0) {
                die(EXIT_PROTOCOL, "[config] %s: invalid log_level '%s'", ins->name, p->val);
            }
        } else if (strcasecmp(p->key, "retry_limit") == 0) {
            if (strcasecmp(p->val, "no_limits") == 0 || strcasecmp(p->val, "false") == 0 ||
                strcasecmp(p->val, "off") == 0) {
                ins->retry_limit = -1;
            } else if (strcasecmp(p->val, "no_retries") == 0) {
                ins->retry_limit = 0;
            } else {
                ins->retry_limit = atoi(p->val);
                if (ins->retry_limit <= 0) {
                    core_log(LOG_WARN, "[config] invalid retry_limit. set default.");
                    ins->retry_limit = 1;
                }
            }
        } else if (strcasecmp(p->key, "workers") == 0) {
            ins->workers = atoi(p->val);
            if (ins->workers < 0) {
                ins->workers = 0;
            }
        } else if (strcasecmp(p->key, "alias") == 0) {
            snprintf(ins->name, sizeof(ins->name), "%s", p->val);
        } else if (strcasecmp(p->key, "tls") == 0 && parse_bool(p->val) && !(plugin.def.flags & FLB_IO_TLS)) {
            core_log(LOG_ERROR, "[config] %s does not support TLS", ins->name);
            die(EXIT_PROTOCOL, "[config] %s does not support TLS", ins->name);
        }
    }
    ins->given = NULL;
}

// --- one flush ---

// Buffers kept after their flush, overwritten, so that a plugin that kept a pointer is caught for certain rather
// than when malloc happens to hand the memory out again.
static struct {
    pthread_mutex_t mu;
    void **ring;
    uint32_t next;
} poisoned = {.mu = PTHREAD_MUTEX_INITIALIZER};

static void poison_and_free(void *p, size_t n)
{
    memset(p, 0xDD, n);
    __asm__ volatile("" : : "r"(p) : "memory");  // the compiler may not skip writes to memory about to be freed
    if (conf.keep_poisoned) {
        lock(&poisoned.mu);
        void *oldest = poisoned.ring[poisoned.next];
        poisoned.ring[poisoned.next] = p;
        poisoned.next = (poisoned.next + 1) % conf.keep_poisoned;
        unlock(&poisoned.mu);
        p = oldest;
    }
    free(p);
}

struct coroutine {
    ucontext_t caller, self;
    struct instance *ins;
    const void *data;
    size_t size;
    char *tag;
    int ret;
};

static void coroutine_main(unsigned hi, unsigned lo)
{
    struct coroutine *co = (struct coroutine *)(((uintptr_t)hi << 32) | lo);
    if (plugin.go.cb_flush_ctx) {
        co->ret = plugin.go.cb_flush_ctx(co->ins->context.remote_context, co->data, co->size, co->tag);
    } else {
        co->ret = plugin.go.cb_flush(co->data, co->size, co->tag);
    }
    swapcontext(&co->self, &co->caller);
}

// Fluent Bit switches with libco and has no guard page below the stack; the guard turns an overflow, which would
// silently overwrite the heap there, into a crash here.
static int flush_on_coroutine(struct instance *ins, const void *data, size_t size, char *tag)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    size_t stack = (conf.stack_size + page - 1) / page * page;
    char *mem = mmap(NULL, stack + page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_STACK, -1, 0);
    if (mem == MAP_FAILED || mprotect(mem, page, PROT_NONE) != 0) {
        die(EXIT_INTERNAL, "coroutine stack: %s", strerror(errno));
    }
    struct coroutine *co = must_alloc(sizeof(*co));
    co->ins = ins;
    co->data = data;
    co->size = size;
    co->tag = tag;
    if (getcontext(&co->self) != 0) {
        die(EXIT_INTERNAL, "getcontext: %s", strerror(errno));
    }
    co->self.uc_stack.ss_sp = mem + page;
    co->self.uc_stack.ss_size = stack;
    co->self.uc_link = NULL;
    uintptr_t p = (uintptr_t)co;
    makecontext(&co->self, (void (*)(void))coroutine_main, 2, (unsigned)((uint64_t)p >> 32), (unsigned)p);
    if (swapcontext(&co->caller, &co->self) != 0) {
        die(EXIT_INTERNAL, "swapcontext: %s", strerror(errno));
    }
    int ret = co->ret;
    free(co);
    munmap(mem, stack + page);
    return ret;
}

static void flush(struct route *r, int worker)
{
    struct task *t = r->task;
    void *data = must_copy(t->data, t->size);
    char *tag = must_copy(t->tag, t->tag_len);

    r->attempts++;
    emit("{\"event\":\"start\",\"chunk\":%" PRIu64 ",\"output\":%d,\"attempt\":%d,\"worker\":%d,\"tid\":%ld}", t->id,
         r->ins->index, r->attempts, worker, (long)syscall(SYS_gettid));
    int n = atomic_fetch_add(&concurrent, 1) + 1;
    int max = atomic_load(&max_concurrent);
    while (n > max && !atomic_compare_exchange_weak(&max_concurrent, &max, n)) {
    }
    int64_t start = now_ns();
    r->ret = flush_on_coroutine(r->ins, data, t->size, tag);
    int64_t took = now_ns() - start;
    atomic_fetch_sub(&concurrent, 1);

    poison_and_free(data, t->size);
    poison_and_free(tag, t->tag_len);
    emit("{\"event\":\"flush\",\"chunk\":%" PRIu64 ",\"output\":%d,\"attempt\":%d,\"worker\":%d,\"tid\":%ld,"
         "\"return\":%d,\"ns\":%" PRId64 "}",
         t->id, r->ins->index, r->attempts, worker, (long)syscall(SYS_gettid), r->ret, took);
}

// --- workers ---

static void wake_engine(void)
{
    uint64_t one = 1;
    ssize_t n = write(wake_fd, &one, sizeof(one));
    (void)n;  // a full counter means that the engine is awake already
}

static void *worker_main(void *arg)
{
    struct worker *w = arg;
    char name[16];
    snprintf(name, sizeof(name), "flb-out-w%d", w->id);
    pthread_setname_np(pthread_self(), name);
    for (;;) {
        lock(&w->mu);
        while (!w->queue.head && !w->stop) {
            check(pthread_cond_wait(&w->cv, &w->mu), "pthread_cond_wait");
        }
        struct route *r = pop(&w->queue);
        unlock(&w->mu);
        if (!r) {
            return NULL;  // told to stop, and nothing queued before that
        }
        flush(r, w->id);
        lock(&results_mu);
        push(&results, r);
        unlock(&results_mu);
        wake_engine();
    }
}

static void start_workers(struct instance *ins)
{
    if (ins->workers == 0) {
        return;
    }
    ins->pool = must_alloc(sizeof(*ins->pool) * (size_t)ins->workers);
    for (int i = 0; i < ins->workers; i++) {
        struct worker *w = &ins->pool[i];
        w->ins = ins;
        w->id = i;
        check(pthread_mutex_init(&w->mu, NULL), "pthread_mutex_init");
        check(pthread_cond_init(&w->cv, NULL), "pthread_cond_init");
        check(pthread_create(&w->thread, NULL, worker_main, w), "pthread_create");
        core_log(LOG_INFO, "[output:%s:%s] worker #%d started", plugin.name, ins->name, i);
    }
}

// Tells one worker at a time, in order, and waits for it without a limit: as Fluent Bit does.
static void join_workers(struct instance *ins)
{
    for (int i = 0; i < ins->workers; i++) {
        struct worker *w = &ins->pool[i];
        lock(&w->mu);
        w->stop = true;
        check(pthread_cond_signal(&w->cv), "pthread_cond_signal");
        unlock(&w->mu);
        check(pthread_join(w->thread, NULL), "pthread_join");
        core_log(LOG_INFO, "[output:%s:%s] thread worker #%d stopped", plugin.name, ins->name, i);
    }
}

// --- the engine ---

static void dispatch(struct route *r)
{
    struct instance *ins = r->ins;
    if (ins->workers == 0) {
        push(&engine_queue, r);
        return;
    }
    struct worker *w = &ins->pool[ins->next_worker];
    ins->next_worker = (ins->next_worker + 1) % ins->workers;
    lock(&w->mu);
    push(&w->queue, r);
    check(pthread_cond_signal(&w->cv), "pthread_cond_signal");
    unlock(&w->mu);
}

static void finish(struct route *r, const char *outcome, bool delivered)
{
    struct task *t = r->task;
    emit("{\"event\":\"done\",\"chunk\":%" PRIu64 ",\"output\":%d,\"attempt\":%d,\"outcome\":\"%s\",\"delivered\":%s}",
         t->id, r->ins->index, r->attempts, outcome, delivered ? "true" : "false");
    free(r);
    routes_open--;
    if (--t->routes == 0) {
        free(t->tag);
        free(t->data);
        free(t);
        tasks--;
    }
}

static uint64_t random_state;

static int64_t random_between(int64_t lo, int64_t hi)
{
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    random_state ^= random_state << 17;
    return hi <= lo ? lo : lo + (int64_t)(random_state % (uint64_t)(hi - lo + 1));
}

// Fluent Bit's scheduler: anywhere between base and base*2^retries, capped. It adds one second; that is left out.
static int64_t backoff(int retries)
{
    int64_t most = conf.retry_cap_ns;
    if (retries < 40 && conf.retry_base_ns < (conf.retry_cap_ns >> retries)) {
        most = conf.retry_base_ns << retries;
    }
    return random_between(conf.retry_base_ns, most);
}

// Engine gone: nobody reads results any more, so a chunk in filesystem storage stays there even when it was delivered.
static void finish_at_exit(struct route *r, int ret)
{
    if (conf.storage) {
        count.kept_in_storage++;
        count.kept_delivered += ret == FLB_OK;
        finish(r, "kept", ret == FLB_OK);
    } else if (ret == FLB_OK) {
        finish(r, "ok", true);
    } else if (ret == FLB_ERROR) {
        count.dropped_error++;
        finish(r, "error", false);
    } else {
        count.lost_at_exit++;
        finish(r, "lost", false);
    }
}

static void handle_result(struct route *r, bool stopping)
{
    int ret = r->ret;
    if (ret != FLB_OK && ret != FLB_RETRY && ret != FLB_ERROR) {
        count.bad_returns++;
        ret = FLB_ERROR;
    }
    count.flushes++;
    count.ok += ret == FLB_OK;
    count.retries += ret == FLB_RETRY;
    count.errors += ret == FLB_ERROR;

    if (past_grace) {
        count.ok_at_exit += ret == FLB_OK;
        finish_at_exit(r, ret);
        return;
    }
    if (ret == FLB_OK) {
        if (r->retries > 0) {
            core_log(LOG_INFO, "[engine] flush chunk '%" PRIu64 "' succeeded at retry %d: output=%s (out_id=%d)",
                     r->task->id, r->retries, r->ins->name, r->ins->index);
        }
        finish(r, "ok", true);
        return;
    }
    if (ret == FLB_ERROR) {
        count.dropped_error++;
        finish(r, "error", false);
        return;
    }
    if (r->ins->retry_limit == 0) {
        core_log(LOG_INFO, "[engine] chunk '%" PRIu64 "' is not retried (no retry config): output=%s (out_id=%d)",
                 r->task->id, r->ins->name, r->ins->index);
        count.dropped_retry++;
        finish(r, "retry_limit", false);
        return;
    }
    if (r->ins->retry_limit > 0 && r->retries >= r->ins->retry_limit) {
        core_log(LOG_ERROR, "[engine] chunk '%" PRIu64 "' cannot be retried: output=%s", r->task->id, r->ins->name);
        count.dropped_retry++;
        finish(r, "retry_limit", false);
        return;
    }
    r->retries++;
    int64_t wait = stopping ? conf.retry_shutdown_ns : backoff(r->retries);
    core_log(LOG_WARN, "[engine] failed to flush chunk '%" PRIu64 "', retry in %.3f seconds: output=%s (out_id=%d)",
             r->task->id, (double)wait / 1e9, r->ins->name, r->ins->index);
    r->due = now_ns() + wait;
    push(&retrying, r);
}

static void take_results(bool stopping)
{
    lock(&results_mu);
    struct queue q = results;
    results = (struct queue){0};
    unlock(&results_mu);
    for (struct route *r; (r = pop(&q));) {
        handle_result(r, stopping);
    }
}

// Sends off the retries whose time has come; returns when the next one is due, or INT64_MAX.
static int64_t run_retries(int64_t now)
{
    struct queue rest = {0};
    int64_t next = INT64_MAX;
    for (struct route *r; (r = pop(&retrying));) {
        if (r->due <= now) {
            dispatch(r);
            continue;
        }
        if (r->due < next) {
            next = r->due;
        }
        push(&rest, r);
    }
    retrying = rest;
    return next;
}

// --- frames ---

struct frame {
    unsigned char type;
    unsigned char *buf;
    size_t size, pos;
};

static bool read_full(void *dst, size_t n)
{
    for (size_t off = 0; off < n;) {
        ssize_t r = read(in_fd, (char *)dst + off, n - off);
        if (r < 0 && errno == EINTR) {
            continue;
        }
        if (r < 0) {
            die(EXIT_PROTOCOL, "stdin: %s", strerror(errno));
        }
        if (r == 0) {
            return false;
        }
        off += (size_t)r;
    }
    return true;
}

static uint32_t le32(const unsigned char *p)
{
    return (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

static uint32_t get_u32(struct frame *f)
{
    if (f->size - f->pos < 4) {
        die(EXIT_PROTOCOL, "short frame of type '%c'", f->type);
    }
    f->pos += 4;
    return le32(f->buf + f->pos - 4);
}

static uint64_t get_u64(struct frame *f)
{
    uint64_t lo = get_u32(f);
    return lo | (uint64_t)get_u32(f) << 32;
}

static const unsigned char *get_bytes(struct frame *f, size_t *n)
{
    *n = get_u32(f);
    if (f->size - f->pos < *n) {
        die(EXIT_PROTOCOL, "short frame of type '%c'", f->type);
    }
    f->pos += *n;
    return f->buf + f->pos - *n;
}

static char *get_string(struct frame *f)
{
    size_t n;
    const unsigned char *p = get_bytes(f, &n);
    return must_copy(p, n);
}

// Frames: C (the service's settings, pairs of strings), O (one [OUTPUT], pairs of strings), R (run),
// K (a chunk: u64 id, u32 count of outputs, u32 each, tag, data), S (shut down). A string is u32 length and bytes.
static bool read_frame(struct frame *f)
{
    unsigned char head[5];
    if (!read_full(head, sizeof(head))) {
        return false;
    }
    uint32_t n = le32(head);
    if (n > 256u << 20) {
        die(EXIT_PROTOCOL, "frame of %u bytes", n);
    }
    *f = (struct frame){.type = head[4], .size = n};
    f->buf = malloc((size_t)n + 1);
    if (!f->buf) {
        die(EXIT_INTERNAL, "out of memory");
    }
    return read_full(f->buf, n);
}

static int64_t number(const char *key, const char *val)
{
    char *end;
    errno = 0;
    long long n = strtoll(val, &end, 10);
    if (errno != 0 || end == val || *end) {
        die(EXIT_PROTOCOL, "setting %s: '%s' is no number", key, val);
    }
    return n;
}

static void read_settings(struct frame *f)
{
    for (uint32_t n = get_u32(f); n > 0; n--) {
        char *key = get_string(f), *val = get_string(f);
        if (strcmp(key, "grace_ns") == 0) {
            conf.grace_ns = number(key, val);
        } else if (strcmp(key, "retry_base_ns") == 0) {
            conf.retry_base_ns = number(key, val);
        } else if (strcmp(key, "retry_cap_ns") == 0) {
            conf.retry_cap_ns = number(key, val);
        } else if (strcmp(key, "retry_shutdown_ns") == 0) {
            conf.retry_shutdown_ns = number(key, val);
        } else if (strcmp(key, "coro_stack_size") == 0) {
            conf.stack_size = (size_t)number(key, val);
        } else if (strcmp(key, "max_tasks") == 0) {
            conf.max_tasks = (uint32_t)number(key, val);
        } else if (strcmp(key, "keep_poisoned") == 0) {
            conf.keep_poisoned = (uint32_t)number(key, val);
        } else if (strcmp(key, "hot_reload") == 0) {
            conf.hot_reload = (int)number(key, val);
        } else if (strcmp(key, "storage") == 0) {
            conf.storage = strcmp(val, "filesystem") == 0;
        } else if (strcmp(key, "log_level") == 0) {
            conf.log_level = parse_level(val);
            if (conf.log_level < 0) {
                die(EXIT_PROTOCOL, "invalid log_level '%s'", val);
            }
        } else {
            die(EXIT_PROTOCOL, "unknown setting '%s'", key);
        }
        free(key);
        free(val);
    }
    if (conf.keep_poisoned) {
        poisoned.ring = must_alloc(sizeof(void *) * conf.keep_poisoned);
    }
}

static void read_output(struct frame *f)
{
    struct instance *ins = must_alloc(sizeof(*ins));
    struct property **last = &ins->given;
    for (uint32_t n = get_u32(f); n > 0; n--) {
        struct property *p = must_alloc(sizeof(*p));
        p->key = get_string(f);
        p->val = get_string(f);
        *last = p;
        last = &p->next;
    }
    ins->index = instance_count++;
    struct instance **end = &instances;
    while (*end) {
        end = &(*end)->next;
    }
    *end = ins;
}

static void read_chunk(struct frame *f)
{
    struct task *t = must_alloc(sizeof(*t));
    t->id = get_u64(f);
    uint32_t n = get_u32(f);
    if (n == 0 || n > (uint32_t)instance_count) {
        die(EXIT_PROTOCOL, "chunk for %u outputs", n);
    }
    struct queue q = {0};
    for (uint32_t i = 0; i < n; i++) {
        uint32_t index = get_u32(f);
        struct route *r = must_alloc(sizeof(*r));
        for (r->ins = instances; r->ins && r->ins->index != (int)index; r->ins = r->ins->next) {
        }
        if (!r->ins) {
            die(EXIT_PROTOCOL, "chunk for unknown output %u", index);
        }
        r->task = t;
        push(&q, r);
    }
    const unsigned char *tag = get_bytes(f, &t->tag_len);
    t->tag = must_copy(tag, t->tag_len);
    const unsigned char *data = get_bytes(f, &t->size);
    t->data = must_copy(data, t->size);
    t->routes = n;
    tasks++;
    count.chunks++;
    count.routes += n;
    routes_open += n;
    for (struct route *r; (r = pop(&q));) {
        dispatch(r);
    }
}

// --- life of a plugin ---

static void *symbol(const char *name)
{
    dlerror();
    void *s = dlsym(plugin.handle, name);
    return dlerror() ? NULL : s;
}

// Memory that ends where the next page can't be touched; size is a multiple of what its content is aligned to.
static void *before_guard_page(size_t size)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    char *mem = mmap(NULL, 2 * page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (mem == MAP_FAILED || mprotect(mem + page, page, PROT_NONE) != 0) {
        die(EXIT_INTERNAL, "no guard page: %s", strerror(errno));
    }
    memset(mem, 0xDD, page);
    return mem + page - size;
}

static void load(void)
{
    const char *base = strrchr(conf.plugin_path, '/');
    base = base ? base + 1 : conf.plugin_path;
    if (strncmp(base, "flb-", 4) == 0) {
        die(EXIT_LOAD, "%s: a Go plugin's file name can't start with flb-", conf.plugin_path);
    }
    plugin.handle = dlopen(conf.plugin_path, RTLD_LAZY);
    if (!plugin.handle) {
        die(EXIT_LOAD, "[proxy] error opening plugin %s: '%s'", conf.plugin_path, dlerror());
    }
    plugin.api = (struct flb_api){
        .output_get_property = api_output_get_property,
        .input_get_property = api_no_property,
        .output_get_cmt_instance = api_no_cmt,
        .input_get_cmt_instance = api_no_cmt,
        .log_print = api_log_print,
        .input_log_check = api_core_log_check,
        .output_log_check = api_output_log_check,
        .custom_get_property = api_no_property,
        .custom_log_check = api_core_log_check,
    };

    int (*pre_register)(int) = (int (*)(int))symbol("FLBPluginPreRegister");
    if (pre_register && pre_register(0) == -1) {
        die(EXIT_LOAD, "FLBPluginPreRegister returned -1");
    }
    int (*reg)(struct plugin_def *) = (int (*)(struct plugin_def *))symbol("FLBPluginRegister");
    if (!reg) {
        die(EXIT_LOAD, "%s has no FLBPluginRegister", conf.plugin_path);
    }
    // Fluent Bit 4 mallocs what ends with the description; 5.0 and 5.1 zero the fields they added behind it. A plugin
    // for all of them writes none of those: here that would be a crash.
    size_t oldest = offsetof(struct plugin_def, event_type);
    struct plugin_def *def = before_guard_page(oldest);
    def->type = FLB_PROXY_OUTPUT_PLUGIN;
    if (reg(def) == -1) {
        die(EXIT_LOAD, "FLBPluginRegister returned -1");
    }
    memcpy(&plugin.def, def, oldest);
    if (plugin.def.proxy != FLB_PROXY_GOLANG || plugin.def.type != FLB_PROXY_OUTPUT_PLUGIN || !plugin.def.name) {
        die(EXIT_LOAD, "the plugin registered as type %d, proxy %d, name %s: not a Go output", plugin.def.type,
            plugin.def.proxy, plugin.def.name ? plugin.def.name : "(null)");
    }

    memset(&plugin.go, 0xDD, sizeof(plugin.go));  // Fluent Bit mallocs it
    plugin.go.cb_init = (int (*)(struct go_output_plugin *))symbol("FLBPluginInit");
    if (!plugin.go.cb_init) {
        die(EXIT_LOAD, "could not load FLBPluginInit symbol");
    }
    plugin.go.cb_flush = (int (*)(const void *, size_t, const char *))symbol("FLBPluginFlush");
    plugin.go.cb_flush_ctx = (int (*)(void *, const void *, size_t, char *))symbol("FLBPluginFlushCtx");
    plugin.go.cb_exit = (int (*)(void))symbol("FLBPluginExit");
    plugin.go.cb_exit_ctx = (int (*)(void *))symbol("FLBPluginExitCtx");
    if (!plugin.go.cb_flush && !plugin.go.cb_flush_ctx) {
        die(EXIT_LOAD, "%s has neither FLBPluginFlushCtx nor FLBPluginFlush", conf.plugin_path);
    }
    plugin.name = must_copy(plugin.def.name, strlen(plugin.def.name));
    plugin.go.name = plugin.name;
}

static void init_outputs(void)
{
    for (struct instance *ins = instances; ins; ins = ins->next) {
        snprintf(ins->name, sizeof(ins->name), "%.120s.%d", plugin.name, ins->index);
        apply_properties(ins);
    }
    for (struct instance *ins = instances; ins; ins = ins->next) {
        plugin.go.api = &plugin.api;
        plugin.go.o_ins = ins;
        ins->context.proxy = &plugin;
        plugin.go.context = &ins->context;
        int ret = plugin.go.cb_init(&plugin.go);
        emit("{\"event\":\"init\",\"output\":%d,\"return\":%d}", ins->index, ret);
        if (ret <= 0) {
            core_log(LOG_ERROR, "[go proxy]: plugin '%s' failed to initialize", plugin.name);
            core_log(LOG_ERROR, "[output] could not initialize '%s' plugin", plugin.name);
            die(EXIT_INIT, "FLBPluginInit of output %d (%s) returned %d", ins->index, ins->name, ret);
        }
        start_workers(ins);  // before the next output's Init
    }
    int (*pre_run)(int) = (int (*)(int))symbol("FLBPluginOutputPreRun");
    for (struct instance *ins = instances; pre_run && ins; ins = ins->next) {
        pre_run(conf.hot_reload);
    }
}

static void exit_outputs(void)
{
    void (*pre_exit)(int) = (void (*)(int))symbol("FLBPluginOutputPreExit");
    for (struct instance *ins = instances; ins; ins = ins->next) {
        join_workers(ins);
        if (pre_exit) {
            pre_exit(0);
        }
        int ret = 0;
        if (plugin.go.cb_exit_ctx) {
            ret = plugin.go.cb_exit_ctx(ins->context.remote_context);
        } else if (plugin.go.cb_exit) {
            ret = plugin.go.cb_exit();
        }
        emit("{\"event\":\"exit\",\"output\":%d,\"return\":%d}", ins->index, ret);
    }
    void (*unregister)(struct plugin_def *) = (void (*)(struct plugin_def *))symbol("FLBPluginUnregister");
    if (unregister) {
        unregister(&plugin.def);
    }
    dlclose(plugin.handle);
}

static void on_term(int sig)
{
    (void)sig;
    int saved = errno;
    got_term = 1;
    wake_engine();
    errno = saved;
}

// A stopping engine still takes in what its parent had sent before: Fluent Bit pauses its inputs, but goes on to dispatch
// what they hold until Grace is over.
static void run_engine(void)
{
    pid_t parent = getppid();
    bool stopping = false, was_full = false, orphan = false, intake = true;
    int64_t deadline = INT64_MAX;

    for (;;) {
        int64_t now = now_ns();
        bool stop = got_term;
        if (!orphan && getppid() != parent) {
            orphan = true;
            intake = false;
            stop = true;
        }

        bool full = tasks >= conf.max_tasks;
        if (full != was_full) {
            was_full = full;
            count.full += full;
            emit("{\"event\":\"%s\"}", full ? "full" : "room");
        }

        int64_t next = run_retries(now);
        if (deadline < next) {
            next = deadline;
        }
        int timeout = 1000;  // to look after the parent
        if (engine_queue.head || stop != stopping) {
            timeout = 0;
        } else if (next != INT64_MAX && (next - now) / 1000000 < timeout) {
            timeout = next <= now ? 0 : (int)((next - now) / 1000000) + 1;
        }
        struct pollfd fds[2] = {
            {.fd = full || !intake ? -1 : in_fd, .events = POLLIN},
            {.fd = wake_fd, .events = POLLIN},
        };
        if (poll(fds, 2, timeout) < 0 && errno != EINTR) {
            die(EXIT_INTERNAL, "poll: %s", strerror(errno));
        }
        uint64_t drop;
        ssize_t ignored = read(wake_fd, &drop, sizeof(drop));
        (void)ignored;
        stop = stop || got_term;

        take_results(stopping);
        if (fds[0].fd >= 0 && fds[0].revents) {
            struct frame f;
            if (!read_frame(&f)) {
                orphan = !stopping;
                intake = false;
                stop = true;
            } else {
                if (f.type == 'K') {
                    read_chunk(&f);
                } else if (f.type == 'S') {
                    intake = false;
                    stop = true;
                } else {
                    die(EXIT_PROTOCOL, "unexpected frame of type '%c'", f.type);
                }
                free(f.buf);
            }
        }
        struct route *r = pop(&engine_queue);
        if (r) {
            flush(r, -1);
            handle_result(r, stopping);
        }

        if (stop && !stopping) {
            stopping = true;
            got_term = 1;
            if (orphan) {
                alarm(60);  // nobody is left who could end a plugin that hangs
            }
            if (conf.grace_ns >= 0) {
                core_log(LOG_WARN, "[engine] service will shutdown in max %.3f seconds", (double)conf.grace_ns / 1e9);
                deadline = now_ns() + conf.grace_ns;
            } else {
                core_log(LOG_WARN, "[engine] service will shutdown when all remaining tasks are flushed");
            }
            emit("{\"event\":\"stopping\"}");
            for (struct route *w = retrying.head; w; w = w->next) {
                w->due = 0;
            }
        }
        if (stopping && ((routes_open == 0 && !intake) || now_ns() >= deadline)) {
            break;
        }
    }

    past_grace = true;
    count.pending_at_grace = routes_open;
    core_log(LOG_INFO, "[engine] service has stopped (%" PRIu64 " pending tasks)", routes_open);
    emit("{\"event\":\"stopped\",\"pending\":%" PRIu64 "}", routes_open);
    take_results(true);
    for (struct route *r; (r = pop(&retrying)) || (r = pop(&engine_queue));) {
        finish_at_exit(r, FLB_RETRY);
    }
}

static void summary(void)
{
    struct rusage ru;
    getrusage(RUSAGE_SELF, &ru);
    emit("{\"event\":\"summary\",\"chunks\":%" PRIu64 ",\"routes\":%" PRIu64 ",\"flushes\":%" PRIu64 ",\"ok\":%" PRIu64
         ",\"retries\":%" PRIu64 ",\"errors\":%" PRIu64 ",\"dropped_retry\":%" PRIu64 ",\"dropped_error\":%" PRIu64
         ",\"bad_returns\":%" PRIu64 ",\"pending_at_grace\":%" PRIu64 ",\"ok_at_exit\":%" PRIu64
         ",\"lost_at_exit\":%" PRIu64 ",\"kept_in_storage\":%" PRIu64 ",\"kept_delivered\":%" PRIu64
         ",\"full\":%" PRIu64 ",\"max_concurrent\":%d,\"peak_rss_kib\":%ld,\"user_us\":%lld,\"system_us\":%lld}",
         count.chunks, count.routes, count.flushes, count.ok, count.retries, count.errors, count.dropped_retry,
         count.dropped_error, count.bad_returns, count.pending_at_grace, count.ok_at_exit, count.lost_at_exit,
         count.kept_in_storage, count.kept_delivered, count.full, atomic_load(&max_concurrent), ru.ru_maxrss,
         (long long)ru.ru_utime.tv_sec * 1000000 + ru.ru_utime.tv_usec,
         (long long)ru.ru_stime.tv_sec * 1000000 + ru.ru_stime.tv_usec);
}

static void on_alarm(int sig)
{
    (void)sig;
    _exit(EXIT_ORPHANED);
}

// Go's race detector packs addresses, and can unpack only those below 0xe000000000, where it expects a Go program's
// variables and heap. Linux maps libraries at the top of the address space: reserve what is free there, so that they,
// and the plugin with its variables, go to the highest place left, the end of that range.
static void reserve_high_addresses(void)
{
    const uintptr_t top = 0xe000000000;
    FILE *f = fopen("/proc/self/maps", "r");
    if (!f) {
        die(EXIT_INTERNAL, "/proc/self/maps: %s", strerror(errno));
    }
    struct { uintptr_t from, to; } gaps[256];  // first read, then mapped: mapping changes the file
    size_t n = 0;
    uintptr_t end = top;
    char line[4096];
    while (fgets(line, sizeof(line), f) && n < sizeof(gaps) / sizeof(gaps[0])) {
        uintptr_t from, to;
        if (sscanf(line, "%" SCNxPTR "-%" SCNxPTR, &from, &to) != 2) {
            continue;
        }
        if (strstr(line, "[stack]")) {
            break;  // room for the stack to grow
        }
        if (from > end) {
            gaps[n].from = end;
            gaps[n++].to = from;
        }
        if (to > end) {
            end = to;
        }
    }
    fclose(f);
    for (size_t i = 0; i < n; i++) {
        mmap((void *)gaps[i].from, gaps[i].to - gaps[i].from, PROT_NONE,
             MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED_NOREPLACE, -1, 0);
    }
}

int main(int argc, char **argv)
{
    // The protocol's descriptors are moved away: what a plugin prints to stdout must not end up among the events.
    in_fd = fcntl(STDIN_FILENO, F_DUPFD_CLOEXEC, 3);
    out_fd = fcntl(STDOUT_FILENO, F_DUPFD_CLOEXEC, 3);
    int null = open("/dev/null", O_RDONLY);
    if (in_fd < 0 || out_fd < 0 || null < 0 || dup2(null, STDIN_FILENO) < 0 || dup2(STDERR_FILENO, STDOUT_FILENO) < 0) {
        perror("loader");
        return EXIT_INTERNAL;
    }
    close(null);
    bool race = argc > 1 && strcmp(argv[1], "--race") == 0;
    argc -= race;
    argv += race;
    if (argc != 3 || strcmp(argv[1], "--plugin") != 0) {
        die(EXIT_PROTOCOL, "usage: loader [--race] --plugin file.so, with frames on stdin");
    }
    conf.plugin_path = argv[2];

    wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (wake_fd < 0) {
        die(EXIT_INTERNAL, "eventfd: %s", strerror(errno));
    }
    struct sigaction sa = {.sa_handler = on_term, .sa_flags = SA_RESTART | SA_ONSTACK};
    sigemptyset(&sa.sa_mask);
    sigaction(SIGTERM, &sa, NULL);
    sigaction(SIGINT, &sa, NULL);
    sa.sa_handler = on_alarm;
    sigaction(SIGALRM, &sa, NULL);
    signal(SIGPIPE, SIG_IGN);
    random_state = (uint64_t)now_ns() | 1;

    for (bool run = false; !run;) {
        struct frame f;
        if (!read_frame(&f)) {
            die(EXIT_PROTOCOL, "stdin ended before the configuration did");
        }
        switch (f.type) {
        case 'C': read_settings(&f); break;
        case 'O': read_output(&f); break;
        case 'R': run = true; break;
        default: die(EXIT_PROTOCOL, "unexpected frame of type '%c'", f.type);
        }
        free(f.buf);
    }

    if (race) {
        reserve_high_addresses();
    }
    load();
    char name[512], description[2048];
    json_escape(name, sizeof(name), plugin.name);
    json_escape(description, sizeof(description), plugin.def.description ? plugin.def.description : "");
    emit("{\"event\":\"registered\",\"name\":\"%s\",\"description\":\"%s\"}", name, description);
    init_outputs();
    emit("{\"event\":\"ready\",\"tid\":%ld}", (long)syscall(SYS_gettid));
    run_engine();
    exit_outputs();
    take_results(true);
    summary();
    return 0;
}
