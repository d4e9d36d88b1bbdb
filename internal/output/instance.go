// Package output is one [OUTPUT] section: its options, validated together, and its
// flush: tag to destination (tenancy), bytes to events (chunk), events to CloudWatch
// (delivery, loggroup). It must not know Fluent Bit's ABI.
package output

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/eks-tenant-logs/eks-tenant-logs/internal/awsclient"
	"github.com/eks-tenant-logs/eks-tenant-logs/internal/chunk"
	"github.com/eks-tenant-logs/eks-tenant-logs/internal/delivery"
	"github.com/eks-tenant-logs/eks-tenant-logs/internal/telemetry"
	"github.com/eks-tenant-logs/eks-tenant-logs/internal/tenancy"
)

// Result is what Fluent Bit is to do with a chunk.
type Result uint8

const (
	// OK: CloudWatch accepted every event.
	OK Result = iota
	// Retry: keep the chunk and bring it again.
	Retry
)

// EngineFlushTimeout is the flush_timeout without workers, where a flush holds up
// all of Fluent Bit: short enough for its default Grace of 5 s.
const EngineFlushTimeout = 4 * time.Second

// closeTimeout is how long Close waits for calls in flight, within the 30 s that
// Kubernetes gives a pod by default.
const closeTimeout = 10 * time.Second

// Environment is what an Instance gets from its surroundings.
type Environment struct {
	Log *slog.Logger
	// Name is the instance's, in metrics.
	Name string
	// Metrics are the process's, and Listener serves them where metrics_listen asks for
	// it. Either may be nil.
	Metrics  *telemetry.Metrics
	Listener *telemetry.Listener
	// Node is the Kubernetes node's name, put into `kubernetes.host`; where it is
	// empty, the host's name is.
	Node string
	// Now replaces the clock.
	Now func() time.Time
	// Probe replaces the wait before trial n of a group that does not take events.
	Probe func(n int) time.Duration
	// Trial replaces the wait before trial n of a group, or of CloudWatch as a whole, that
	// takes nothing; Patience how long a flush waits for it.
	Trial    func(n int) time.Duration
	Patience time.Duration
	// ReloadEvery is how often tenants_file is looked at; 0 means 10 s.
	ReloadEvery time.Duration
	// RoomEvery is how often the volume of Fluent Bit's storage is looked at; 0 means 1 s.
	RoomEvery time.Duration
	// Looked is called after each look at it.
	Looked func()
	// Stop asks the host to end, as SIGTERM does. It may be called again; nil where that
	// can't be asked.
	Stop func()
}

// Instance is one [OUTPUT] section at work. Flush may be called by many threads.
type Instance struct {
	opts     Options
	env      Environment
	accounts *accounts
	queue    *delivery.Deliverer
	again    *telemetry.Limiter
	hourly   *telemetry.Limiter // for what lasts
	clock    *awsclient.Clock   // AWS's, which judges the times of events
	held     *held
	metrics  *telemetry.Output // nil where there are none
	view     atomic.Pointer[view]

	stop    context.CancelFunc
	watched sync.WaitGroup

	leaving *leaving
	// refused are the chunks on disk that Fluent Bit refused when it started.
	refused []string
}

// New makes an instance. It reads files, but makes no call to AWS.
func New(ctx context.Context, opts Options, env Environment) (*Instance, error) {
	if env.Now == nil {
		env.Now = time.Now
	}
	registry, file, err := readTenants(opts)
	if err != nil {
		return nil, err
	}
	if opts.EMF && !mayMakeMetrics(registry) && (opts.TenantsFile == "" || file != nil) {
		return nil, &OptionError{"log_format", "json/emf", "no tenant in tenants_file has `emf: true`, so no line could make metrics: give a tenant the permission, or json"}
	}
	if err := stateFolder(opts.StatePath, env.Log); err != nil {
		return nil, err
	}
	if err := startable(&opts); err != nil {
		return nil, err
	}
	host := nodeName(env)
	router, err := newRouter(opts, registry, host)
	if err != nil {
		return nil, err
	}
	i := &Instance{env: env, leaving: newLeaving(), again: telemetry.NewLimiter(time.Minute, env.Now), hourly: telemetry.NewLimiter(time.Hour, env.Now), held: newHeld(opts.HoldBudget)}
	if env.Metrics != nil {
		i.metrics = env.Metrics.Output(env.Name)
	}
	client, err := awsclient.New(ctx, awsclient.Config{
		Region: opts.Region, Endpoint: opts.Endpoint, STSEndpoint: opts.STSEndpoint, UseFIPS: opts.UseFIPS, UseDualStack: opts.UseDualStack,
		Profile: opts.Profile, RoleARN: opts.RoleARN, ExternalID: opts.ExternalID, ExtraUserAgent: opts.ExtraUserAgent,
		MaxConns: opts.MaxInFlight, Now: env.Now, Renewed: i.renewed,
	})
	if err != nil {
		return nil, err
	}
	opts.Region = client.Region
	i.opts, i.clock = opts, client.Clock()
	if env.Metrics != nil {
		i.metrics.Clock(i.clock.Now)
	}
	v, err := newView(&i.opts, router, host)
	if err != nil {
		return nil, err
	}
	if opts.MetricsListen != "" && env.Listener != nil {
		if err := env.Listener.Join(opts.MetricsListen, env.Log); err != nil {
			return nil, fmt.Errorf("metrics_listen: %w", err)
		}
	}
	i.view.Store(v)
	i.metrics.Tenants(registry.Generation, len(registry.Tenants()))
	i.accounts = newAccounts(client, opts, env, i.metrics)
	i.queue = delivery.New(logs{i}, delivery.Config{
		Log: env.Log, MaxInFlight: opts.MaxInFlight, Compress: opts.Compress, DropLate: opts.DropLate, Now: env.Now, Skew: client.Clock().Skew, Observe: i.observe,
		Tripped: i.tripped, Guard: i.guarded, Discarded: i.discarded, Probe: env.Probe,
		Stalled: i.stalled, Down: i.metrics.Down, Trial: env.Trial, Patience: env.Patience,
	})
	i.restore()
	i.findRefused()
	i.metrics.Start(i.snapshot)
	env.Log.LogAttrs(ctx, slog.LevelInfo, "effective configuration", opts.Effective(client.InForce()...)...)
	if opts.Identity == "record" {
		env.Log.Warn("identity is record: the tenant is taken from each record's last kubernetes map, which whoever sends the records can write; use it only behind forwarders that verified it")
	}
	ctx, i.stop = context.WithCancel(context.WithoutCancel(ctx))
	if opts.TenantsFile != "" {
		i.watched.Go(func() { i.watch(ctx, file) })
	}
	if opts.volumeOf() != "" {
		i.watched.Go(func() { i.watchRoom(ctx) })
	}
	return i, nil
}

// Flush delivers one chunk and returns when CloudWatch accepted all of it, or it is
// clear that it will not now. timeout shortens flush_timeout; 0 leaves it. data is
// not kept.
func (i *Instance) Flush(ctx context.Context, tag string, data []byte, timeout time.Duration) Result {
	if timeout <= 0 || timeout > i.opts.FlushTimeout {
		timeout = i.opts.FlushTimeout
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	defer context.AfterFunc(i.leaving.ctx, cancel)()

	c := delivery.Bytes{Tag: tag, Data: data}
	v := i.view.Load()
	var by *route // with identity tag; a record's own is known once it is read
	if i.opts.Identity == "tag" {
		by = v.route(tag)
		i.arrived(by)
	}
	if i.leaving.ctx.Err() != nil {
		return i.retry(tag, errLeaving)
	}
	// Before any work on the chunk: an outage may last, and chunks come again and again.
	if err := i.queue.TurnedAway(delivery.Target{}); err != nil {
		return i.retry(tag, err)
	}
	w := workPool.Get().(*work)
	defer w.release()
	dests, err := i.decode(w, v, by, &c)
	if err != nil {
		return i.retry(tag, err)
	}
	if w.events.Stats.Events > 0 {
		targets := make([]delivery.Target, len(dests))
		for n := range dests {
			targets[n] = dests[n].target
		}
		if err := i.queue.Deliver(ctx, &c, &w.events, targets); err != nil {
			if i.leaving.ctx.Err() != nil {
				err = errLeaving
			}
			return i.retry(tag, err)
		}
		i.held.gone(&c)
		for _, t := range targets {
			if t != (delivery.Target{}) {
				i.accounts.of(t.Role).groups.Used(v.spec(t.Group))
			}
		}
	}
	i.metrics.Flush("ok")
	i.count(dests, &w.events)
	i.told(tag, data, &w.events)
	i.tellUnrouted(tag, by, dests, &w.events)
	return OK
}

// work is the memory of one flush.
type work struct {
	decoder chunk.Decoder
	events  chunk.Events
}

var workPool = sync.Pool{New: func() any { return new(work) }}

// keepArena bounds what an idle flush's memory may hold on to, in bytes: a few of
// Fluent Bit's usual chunks of 2 MB.
const keepArena = 16 << 20

func (w *work) release() {
	if cap(w.events.Arena) <= keepArena {
		workPool.Put(w)
	}
}

// dest is one destination of a chunk.
type dest struct {
	target  delivery.Target
	tenant  string // empty for the platform
	outcome string // what becomes of records that are accepted there
	note    string
	emf     bool
}

// errHeld says that a chunk stays with Fluent Bit, for its log group takes nothing.
var errHeld = errors.New("held")

// destination is where records of a route go at the moment: home, or where on_failure
// says while the group does not take events. An error says that they stay with Fluent Bit.
func (i *Instance) destination(v *view, r *route, c *delivery.Bytes) (dest, error) {
	d := dest{target: r.target, tenant: r.tenant, outcome: telemetry.Delivered, note: r.note, emf: r.emf}
	if r.kind == tenancy.KindUnrouted {
		d.outcome = telemetry.Unrouted
	}
	away := i.queue.TurnedAway(r.target)
	if r.tenant == "" {
		return d, away
	}
	onFailure := r.onFailure
	reason, refused := i.queue.Breaker().Open(r.target)
	switch {
	case refused && onFailure == onFailureHold:
		away = errHeld
	case refused:
		away = nil
	case errors.Is(away, delivery.ErrStalled):
		// It may not last, and be the account's quota as well: on_failure only counts where
		// too much is held, and nothing is dropped for it.
		reason = "stalled"
		if onFailure != onFailureQuarantine {
			return d, away
		}
	default:
		return d, away
	}
	if away != nil {
		if i.held.keep(r.tenant, c.Key(), i.env.Now()) {
			return d, &delivery.Error{Target: r.target, Class: awsclient.ClassRetryable, Err: fmt.Errorf("%w: %s", away, reason)}
		}
		i.limited(slog.LevelError, "hold_budget "+r.target.Group, "hold_budget is used up: chunks of a log group that takes nothing are not held any more",
			"group", r.target.Group, "reason", reason, "hold_budget", i.opts.HoldBudget, "on_failure", onFailure)
	}
	i.held.left(r.tenant, c)
	if onFailure == onFailureQuarantine {
		d.target = delivery.Target{Group: v.router.QuarantineGroup(r.tenant), Stream: r.target.Stream}
		d.outcome, d.emf = telemetry.Quarantined, false
		d.note = `"quarantined":"` + reason + `","log_group":"` + r.target.Group + `"`
		return d, i.queue.TurnedAway(d.target)
	}
	d.target, d.outcome = delivery.Target{}, telemetry.Dropped
	return d, nil
}

// decode turns the chunk into events and says where they go: by its tag's route, or, where that
// is nil, by what each record says. An error says that the chunk stays with Fluent Bit for now.
func (i *Instance) decode(w *work, v *view, by *route, c *delivery.Bytes) (dests []dest, err error) {
	skew := i.clock.Skew()
	now := i.env.Now().Add(-skew)
	opts := chunk.Options{LogKey: i.opts.LogKey, CRI: i.opts.ParseCRI, DropLate: i.opts.DropLate, Now: now.UnixMilli(), Newest: now.Add(chunk.NewestEvent).UnixMilli(), Skew: skew.Milliseconds()}
	if by != nil {
		d, err := i.destination(v, by, c)
		if err != nil {
			return nil, err
		}
		opts.Identity, opts.AllowEMF, opts.Note = by.identity, d.emf, d.note
		opts.Oldest = now.Add(-by.retention).UnixMilli()
		w.decoder.Decode(c.Data, opts, &w.events)
		return []dest{d}, nil
	}
	// identity record: one chunk, many destinations. To hold one of them would hold the
	// chunk: its events go where they will be refused, and the others' arrive.
	seen := map[delivery.Target]int{}
	opts.Oldest = now.Add(-chunk.OldestEvent).UnixMilli()
	opts.Resolve = func(claim chunk.Claim) (*chunk.Identity, int, string) {
		r := v.claimed(claim)
		at, ok := seen[r.target]
		if !ok {
			i.arrived(r)
			at = len(dests)
			seen[r.target] = at
			d, _ := i.destination(v, r, c)
			dests = append(dests, d)
		}
		return r.identity, at, dests[at].note
	}
	w.decoder.Decode(c.Data, opts, &w.events)
	return dests, nil
}

// maxTag bounds how much of a tag is repeated in a log line or an event. A pod's tag
// is shorter; what is longer is nobody's pod.
const maxTag = 512

func shortTag(tag string) string {
	if len(tag) > maxTag {
		return tag[:maxTag] + "..."
	}
	return tag
}

// told writes what an operator should know of a delivered chunk: once, because a
// chunk that is sent again has not been delivered before.
func (i *Instance) told(tag string, data []byte, ev *chunk.Events) {
	if err := ev.Damage.Err; err != nil {
		i.env.Log.Error("a chunk could not be read to its end; what could be read is delivered",
			"tag", shortTag(tag), "offset", ev.Damage.Offset, "size", len(data), "records_lost", ev.Stats.Malformed,
			"bytes_lost", ev.Stats.LostBytes, "error", err)
	}
	if ev.Stats.Claimed > 0 {
		i.limited(slog.LevelWarn, "claimed "+tag, "records name another source than the file they were read from; delivered to the true one, the claim kept in kubernetes_claimed",
			"tag", shortTag(tag), "records", ev.Stats.Claimed)
	}
	if ev.Stats.NotCRI > 0 {
		i.limited(slog.LevelWarn, "not CRI "+tag, "parser is cri, and records hold no line of a container runtime; delivered as they are, marked not_cri",
			"tag", shortTag(tag), "records", ev.Stats.NotCRI)
	}
	if ev.Stats.Dropped > 0 {
		i.limited(slog.LevelWarn, "dropped "+tag, "records bear a time CloudWatch refuses; dropped, as late_events says",
			"tag", shortTag(tag), "records", ev.Stats.Dropped)
	}
	if ev.Stats.Restamped > 0 {
		i.limited(slog.LevelWarn, "restamped "+tag, "records bear a time CloudWatch refuses; delivered with the present time, their own kept in _tenantlogs",
			"tag", shortTag(tag), "records", ev.Stats.Restamped)
	}
}

// retry sends a chunk back and tells why, at a bounded rate.
func (i *Instance) retry(tag string, err error) Result {
	i.metrics.Flush("retry")
	kind, level := "retry", slog.LevelWarn
	attrs := []any{"tag", shortTag(tag), "error", awsclient.Brief(err)}
	var e *delivery.Error
	if errors.As(err, &e) {
		kind += " " + e.Target.Group + " " + e.Class.String()
		if e.Target.Group != "" {
			attrs = append(attrs, "group", e.Target.Group, "stream", e.Target.Stream)
		}
		attrs = append(attrs, "class", e.Class.String())
		switch e.Class {
		case awsclient.ClassDenied, awsclient.ClassNotFound, awsclient.ClassInvalid, awsclient.ClassCredentials:
			level = slog.LevelError
		}
	}
	if errors.Is(err, delivery.ErrDown) {
		kind = "down" // everybody's: one line is enough
	}
	i.limited(level, kind, "chunk not delivered; Fluent Bit keeps it and tries again", attrs...)
	return Retry
}

func (i *Instance) limited(level slog.Level, kind, message string, attrs ...any) {
	held, ok := i.again.Allow(kind)
	if !ok {
		return
	}
	if held > 0 {
		attrs = append(attrs, "held_back", held)
	}
	i.env.Log.Log(context.Background(), level, message, attrs...)
}

// Close waits a while for calls in flight and ends the background work. No Flush
// may run or be started then.
func (i *Instance) Close() {
	ctx, cancel := context.WithTimeout(context.Background(), i.leaving.closeTimeout())
	defer cancel()
	i.stop()
	i.watched.Wait()
	i.queue.Close(ctx)
	i.tellRest()
	i.save()
	open := i.accounts.open()
	i.accounts.close()
	i.metrics.Close()
	if i.opts.MetricsListen != "" && i.env.Listener != nil {
		i.env.Listener.Leave(i.env.Log)
	}
	s := i.queue.Stats()
	i.env.Log.Info("stopped", "events", s.Events, "bytes", s.Bytes, "wire_bytes", s.WireBytes, "puts", s.Puts,
		"put_errors", s.PutErrors, "throttled", s.Throttled, "restamped", s.Restamped, "dropped", s.Dropped, "enveloped", s.Enveloped, "ledger_evictions", s.Evicted,
		"groups_with_retention_open", open)
}
