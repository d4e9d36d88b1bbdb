// Package delivery brings events to their streams: it joins the events of many
// flushes into batches within CloudWatch's limits, has one sender a stream, and
// knows of every event whether CloudWatch accepted it, so that a chunk sent again
// sends only the rest.
//
// It must not know where events come from, nor how AWS is reached.
package delivery

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"log/slog"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/eks-tenant-logs/eks-tenant-logs/internal/awsclient"
	"github.com/eks-tenant-logs/eks-tenant-logs/internal/chunk"
)

// Limits of one PutLogEvents call (API reference, PutLogEvents).
const (
	// MaxBatchBytes counts the messages' UTF-8 bytes and EventOverhead for each.
	MaxBatchBytes  = 1_048_576
	EventOverhead  = 26
	MaxBatchEvents = 10_000
	// MaxBatchSpan is the most milliseconds between the first and the last event.
	MaxBatchSpan = int64(24 * time.Hour / time.Millisecond)
)

// Target is a log stream, and who writes there. It is a key: two targets are one only
// where all of it is the same.
type Target struct {
	// Role is the identity; the zero value is the plugin's own.
	Role          awsclient.Role
	Group, Stream string
}

// Logs is what delivery asks of CloudWatch Logs.
type Logs interface {
	// Put makes one PutLogEvents call with an encoded body; it does not try again.
	Put(ctx context.Context, t Target, body awsclient.Body, count int) (awsclient.Rejected, error)
	// EnsureStream creates the stream, and its group where that is allowed.
	EnsureStream(ctx context.Context, t Target) error
}

// Config is how a Deliverer works. Every field but Log may be zero.
type Config struct {
	Log *slog.Logger
	// MaxInFlight bounds the PutLogEvents calls under way at once; 0 means 32. One group
	// may have half of them.
	MaxInFlight int
	// Compress sends bodies gzipped.
	Compress bool
	// AttemptTimeout bounds one PutLogEvents call; 0 means 15 s.
	AttemptTimeout time.Duration
	// Patience is how long a Deliver waits for streams that take nothing while others do;
	// 0 means 3 s.
	Patience time.Duration
	// LedgerSize is how many chunks that were partly delivered are remembered; 0 means 4,096.
	LedgerSize int
	// DropLate drops events that CloudWatch rejects for their time, instead of sending
	// them again with the present one.
	DropLate bool
	// Observe is told of every PutLogEvents call.
	Observe func(Put)
	// Tripped is told when a group stops taking events, and when it takes them again.
	Tripped func(t Target, open bool)
	// Discarded is told how many events CloudWatch rejected for their time and DropLate
	// dropped.
	Discarded func(t Target, events int)
	// Guard says for which targets the breaker works; nil means all.
	Guard func(Target) bool
	// Probe is the wait before trial n (from 0) of a group that does not take events; nil
	// means doubling from 10 s to 5 min, half of it by chance.
	Probe func(n int) time.Duration
	// Stalled is told when a group takes nothing while others do, and when it does again;
	// Down when CloudWatch as a whole is out of reach, and when it answers again.
	Stalled func(t Target, stalled bool)
	Down    func(down bool)
	// Trial is the wait before trial n (from 0) of what is stalled or down; nil means
	// doubling from 1 s to 5 s, half of it by chance.
	Trial func(n int) time.Duration
	// Skew is how far Now is ahead of AWS's clock, which judges the times of events; nil means
	// that they agree.
	Skew func() time.Duration
	// Now and Backoff replace the clock and the wait before attempt n (from 1).
	Now     func() time.Time
	Backoff func(n int) time.Duration
}

// Stats counts what a Deliverer did since it was made.
type Stats struct {
	Puts, PutErrors, Throttled int64
	Events, Bytes              int64 // accepted by CloudWatch; message bytes
	WireBytes                  int64 // bodies sent, compressed where they were
	Restamped                  int64 // events CloudWatch rejected for their time and took with another
	Dropped                    int64 // events CloudWatch rejected for their time, dropped as configured
	Enveloped                  int64 // events CloudWatch called invalid, sent again in an envelope
	Evicted                    int64 // chunks the ledger forgot: their rest may arrive twice
}

// Put is one PutLogEvents call that was made.
type Put struct {
	Target Target
	Class  awsclient.Class
	Took   time.Duration
	// Events were in the call; Bytes is their size as CloudWatch counts it, Wire the
	// body's as it was sent.
	Events, Bytes, Wire int
	// Unanswered: no answer came, so that CloudWatch may have accepted the events; they
	// are sent again, and may then be there twice.
	Unanswered bool
}

// Deliverer delivers the chunks of one instance. It may be used by many goroutines.
type Deliverer struct {
	logs   Logs
	cfg    Config
	ledger *ledger
	slots  *slots
	known  *streams

	breaker *Breaker
	stalls  *stalls

	openMu sync.Mutex
	open   map[*progress]struct{} // chunks that are not acknowledged in full

	mu      sync.Mutex
	senders map[Target]*sender
	running sync.WaitGroup
	ctx     context.Context // ends at Close, after what was in flight
	cancel  context.CancelFunc

	puts, putErrors, throttled, events, bytes, wire, restamped, dropped, enveloped, evicted atomic.Int64
}

// New makes a Deliverer. Close ends it.
func New(logs Logs, cfg Config) *Deliverer {
	if cfg.MaxInFlight <= 0 {
		cfg.MaxInFlight = 32
	}
	if cfg.AttemptTimeout <= 0 {
		cfg.AttemptTimeout = 15 * time.Second
	}
	if cfg.Patience <= 0 {
		cfg.Patience = patience
	}
	if cfg.LedgerSize <= 0 {
		cfg.LedgerSize = 4096
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Skew == nil {
		cfg.Skew = func() time.Duration { return 0 }
	}
	if cfg.Backoff == nil {
		cfg.Backoff = backoff
	}
	d := &Deliverer{logs: logs, cfg: cfg, slots: newSlots(cfg.MaxInFlight), known: newStreams(), senders: map[Target]*sender{}, open: map[*progress]struct{}{}}
	d.ledger = newLedger(cfg.LedgerSize, func(p *progress) { d.evicted.Add(1); d.forget(p) })
	d.breaker = newBreaker(cfg.Log, cfg.Now, cfg.Probe)
	d.breaker.told, d.breaker.guard = cfg.Tripped, cfg.Guard
	d.stalls = newStalls(cfg.Log, cfg.Now)
	d.stalls.told, d.stalls.down = cfg.Stalled, cfg.Down
	if cfg.Trial != nil {
		d.stalls.trial = cfg.Trial
	}
	d.ctx, d.cancel = context.WithCancel(context.Background())
	return d
}

// backoff doubles from 50 ms to 5 s, with half of it left to chance so that nodes
// throttled together do not come back together.
func backoff(n int) time.Duration {
	d := min(50*time.Millisecond<<min(n-1, 10), 5*time.Second)
	return d/2 + rand.N(d/2)
}

// present is the time by AWS's clock.
func (d *Deliverer) present() present {
	skew := d.cfg.Skew()
	return present{d.cfg.Now().Add(-skew).UnixMilli(), skew.Milliseconds()}
}

// TurnedAway says why a chunk for a target would be sent back at once, and is nil where it
// would not. The zero Target asks for CloudWatch as a whole.
func (d *Deliverer) TurnedAway(t Target) error {
	_, err := d.stalls.turned(t, true)
	return err
}

// Keep forgets what is known of groups that nobody sends to any more: a tenant whose role
// was corrected has another target.
func (d *Deliverer) Keep(used func(role awsclient.Role, group string) bool) {
	keep := func(key groupKey) bool { return used(key.role, key.group) }
	d.breaker.keep(keep)
	d.stalls.keep(keep)
}

// Breaker knows which groups do not take events.
func (d *Deliverer) Breaker() *Breaker { return d.breaker }

// Close waits until no call is in flight, or ctx ends, whichever is first. No
// Deliver may run or be started then.
func (d *Deliverer) Close(ctx context.Context) {
	idle := make(chan struct{})
	go func() { d.running.Wait(); close(idle) }()
	select {
	case <-idle:
	case <-ctx.Done():
	}
	d.cancel()
	<-idle
}

// Stats returns the counts so far.
func (d *Deliverer) Stats() Stats {
	return Stats{
		Puts: d.puts.Load(), PutErrors: d.putErrors.Load(), Throttled: d.throttled.Load(),
		Events: d.events.Load(), Bytes: d.bytes.Load(), WireBytes: d.wire.Load(),
		Restamped: d.restamped.Load(), Dropped: d.dropped.Load(), Enveloped: d.enveloped.Load(), Evicted: d.evicted.Load(),
	}
}

// Chunk is what a chunk is told from others by.
type Chunk interface {
	// Key is asked for only where something is remembered, or is to be.
	Key() Key
	// Sketch is the same for the same chunk, and mostly another for others. It is cheap.
	Sketch() uint64
}

// Key identifies a chunk: Fluent Bit gives a chunk that is sent again no other id
// than its bytes. A collision would lose events, so the hash is a cryptographic one.
type Key [sha256.Size]byte

// Key is k itself.
func (k Key) Key() Key { return k }

// Sketch is some of it.
func (k Key) Sketch() uint64 { return max(binary.LittleEndian.Uint64(k[:]), noSketch+1) }

// noSketch is nobody's sketch: that of what was read from a file.
const noSketch = 0

// Bytes is a chunk by its tag and its bytes, which it does not change. It may not be used
// after the flush it came with.
type Bytes struct {
	Tag  string
	Data []byte

	hashed bool
	key    Key
}

// Key is a hash of tag and bytes.
func (c *Bytes) Key() Key {
	if !c.hashed {
		h := sha256.New()
		// A tag holds no NUL (it is a C string), so tag and data cannot be confused.
		h.Write([]byte(c.Tag))
		h.Write([]byte{0})
		h.Write(c.Data)
		h.Sum(c.key[:0])
		c.hashed = true
	}
	return c.key
}

// Sketch is made from the tag and the number of bytes.
func (c *Bytes) Sketch() uint64 {
	h := fnv.New64a()
	_, _ = h.Write([]byte(c.Tag))
	return max(h.Sum64()^uint64(len(c.Data)), noSketch+1)
}

// Deliver returns nil once CloudWatch accepted every event of the chunk. targets
// says where each Event.Dest goes; those of the zero Target go nowhere, and are done. On an error, or when ctx ends first, the events
// not accepted yet are withdrawn and what was accepted is remembered for
// the next Deliver of the same chunk. events belongs to the caller again after
// Deliver returns.
func (d *Deliverer) Deliver(ctx context.Context, c Chunk, events *chunk.Events, targets []Target) error {
	if len(events.List) == 0 {
		return nil
	}
	w := wait{d: d, began: d.cfg.Now(), leave: d.stalls.leave()}
	w.p = d.take(c, events)
	p := w.p
	away := w.turn(events, targets)
	w.senders = d.enqueue(p, events, targets, away)
	err := w.until(ctx)
	if len(w.stays) > 0 {
		d.stalls.leaves(w.stays)
	}
	// Whatever came of it: nothing of this flush may stay in a queue, for its memory
	// belongs to another flush next.
	p.end()
	for _, s := range w.senders {
		if s != nil {
			s.withdraw(p)
		}
	}
	// A put that was in flight may have brought the last of it meanwhile.
	if err == nil || p.complete() {
		d.forget(p)
		return nil
	}
	d.ledger.put(c.Key(), p)
	return err
}

// take finds what is known of the chunk, and notes when it first came.
func (d *Deliverer) take(c Chunk, events *chunk.Events) *progress {
	p := d.ledger.take(c, len(events.List), cuts(events))
	if p.since.IsZero() {
		p.since = d.cfg.Now()
	}
	d.openMu.Lock()
	defer d.openMu.Unlock()
	d.open[p] = struct{}{}
	return p
}

func (d *Deliverer) forget(p *progress) {
	d.openMu.Lock()
	defer d.openMu.Unlock()
	delete(d.open, p)
}

// Load is how much a Deliverer has to do at one moment.
type Load struct {
	InFlight int // PutLogEvents calls
	// Oldest is when the oldest chunk was handed over first that is not acknowledged in
	// full; zero where there is none. One that Fluent Bit never brings again counts until
	// the ledger forgets it.
	Oldest       time.Time
	LedgerChunks int
}

// Load returns it.
func (d *Deliverer) Load() Load {
	l := Load{InFlight: d.slots.busy(), LedgerChunks: d.ledger.len(), Oldest: d.stalls.waiting()}
	d.openMu.Lock()
	defer d.openMu.Unlock()
	for p := range d.open {
		if l.Oldest.IsZero() || p.since.Before(l.Oldest) {
			l.Oldest = p.since
		}
	}
	return l
}

// enqueue hands every event that is still to be sent to its stream's sender, but for the
// destinations whose chunks are turned away. It returns the senders by destination.
func (d *Deliverer) enqueue(p *progress, events *chunk.Events, targets []Target, away []error) []*sender {
	senders := make([]*sender, len(targets))
	queues, forms := p.begin(events, targets, away, d.present())
	d.enveloped.Add(forms.enveloped)
	d.restamped.Add(forms.restamped)
	for dest, queue := range queues {
		if targets[dest] == (Target{}) || away != nil && away[dest] != nil {
			continue
		}
		// A stream with nothing to send may still have our events in flight from the
		// flush before; they come back to it if that fails.
		senders[dest] = d.sender(targets[dest], item{p: p, events: queue})
	}
	return senders
}

// sender gives an item to the target's sender, and starts one where none runs.
func (d *Deliverer) sender(t Target, it item) *sender {
	d.mu.Lock()
	defer d.mu.Unlock()
	s := d.senders[t]
	if s == nil {
		s = &sender{d: d, target: t, wake: make(chan struct{}, 1), proven: d.known.there(t)}
		d.senders[t] = s
		d.running.Add(1)
		go s.run()
	}
	s.add(it)
	return s
}

// retire removes a sender that has nothing to do. It reports false where something
// came in meanwhile.
func (d *Deliverer) retire(s *sender) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.queue)+len(s.flying) > 0 {
		return false
	}
	delete(d.senders, s.target)
	return true
}

// Error is why a chunk was not delivered.
type Error struct {
	Target Target
	Class  awsclient.Class
	Err    error
}

func (e *Error) Error() string { return e.Err.Error() }
func (e *Error) Unwrap() error { return e.Err }

// ErrTimeout says that the time for this flush was over.
var ErrTimeout = errors.New("not every event was accepted within flush_timeout")

func timeoutError(last error) error {
	if last == nil {
		return ErrTimeout
	}
	return fmt.Errorf("%w; last: %w", ErrTimeout, last)
}
