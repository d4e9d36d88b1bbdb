package delivery

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"slices"
	"sync"
	"time"

	"github.com/eks-tenant-logs/eks-tenant-logs/internal/awsclient"
	"github.com/eks-tenant-logs/eks-tenant-logs/internal/chunk"
)

// item is a run of one chunk's events that wait for their stream.
type item struct {
	p      *progress
	events []int32 // indexes into the chunk's events, in order
}

// sender owns one stream: it takes what is waiting, whoever's flush it is from, and
// sends it in batches. It runs only while there is work.
//
// Several calls may be under way at once, but never with events of the same time:
// GetLogEvents returns a stream by time, and by arrival where times are equal. So an
// event waits while a call carries events from before and after it, or of its time.
type sender struct {
	d      *Deliverer
	target Target
	wake   chan struct{}

	// filling is held while a batch reads the messages of flushes. Before mu.
	filling sync.Mutex

	mu      sync.Mutex
	queue   []item
	flying  []*batch // in calls under way
	blocked bool     // nothing that waits may go before one of flying is back
	dead    *Error   // run panicked, and why: nobody looks at the queue any more

	took      time.Time // when CloudWatch last took something, or called a half invalid
	failures  int       // in a row
	notBefore time.Time
	creations int  // in a row without a put that worked
	proven    bool // a put has worked: the stream is there
	asked     bool // it was created or put to by this sender
	guessed   bool // it was created before anything was put
	creating  int  // creations under way
	// suspects is how many events at the queue's front were in a batch that CloudWatch
	// calls invalid, one of them being the reason.
	suspects int
}

const (
	// maxCreations is how often in a row a stream is created that the next put does
	// not find, before the flush is told.
	maxCreations = 8
	// maxFlying is how many calls one stream may have under way.
	maxFlying = 4
)

func (s *sender) poke() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

func (s *sender) run() {
	defer s.d.running.Done()
	defer func() {
		if r := recover(); r != nil {
			s.died(r)
		}
	}()
	for {
		act, pause := s.look()
		switch act {
		case actRetire:
			if s.d.retire(s) {
				return
			}
		case actWait:
			s.wait(pause)
		case actSend:
			s.next()
		}
	}
}

type act uint8

const (
	actWait act = iota
	actSend
	actRetire
)

// look says what is to be done, and how long to wait for at most; 0 is for ever.
func (s *sender) look() (act, time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.queue) == 0 {
		if len(s.flying) == 0 {
			return actRetire, 0
		}
		return actWait, 0
	}
	if pause := s.notBefore.Sub(s.d.cfg.Now()); pause > 0 {
		return actWait, pause
	}
	calls := maxFlying
	if !s.proven || s.failures > 0 || s.suspects > 0 {
		calls = 1
	}
	if s.blocked || len(s.flying) >= calls {
		return actWait, 0
	}
	return actSend, 0
}

// wait until something changed, at most for d where that is not 0.
func (s *sender) wait(d time.Duration) {
	if s.d.ctx.Err() != nil {
		s.abandon(context.Canceled)
		if s.idle() {
			return
		}
		<-s.wake // a call that is under way ends soon, and says so
		return
	}
	var timer <-chan time.Time
	if d > 0 {
		t := time.NewTimer(d)
		defer t.Stop()
		timer = t.C
	}
	select {
	case <-timer:
	case <-s.wake:
	case <-s.d.ctx.Done():
	}
}

// tookSince reports whether CloudWatch took anything for the stream since then.
func (s *sender) tookSince(since time.Time) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return !s.took.Before(since) && !s.took.IsZero()
}

// has reports whether events of a chunk wait here or are in a call.
func (s *sender) has(p *progress) bool {
	s.filling.Lock() // a batch that is filled is sorted, too
	defer s.filling.Unlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.ContainsFunc(s.queue, func(it item) bool { return it.p == p }) ||
		slices.ContainsFunc(s.flying, func(b *batch) bool { return slices.ContainsFunc(b.refs, func(r ref) bool { return r.p == p }) })
}

func (s *sender) idle() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.flying) == 0
}

// prepare creates a stream before its first put where it is probably missing. It reports
// false where that failed, and everything that waits for it has been given back.
func (s *sender) prepare() bool {
	s.mu.Lock()
	create := !s.proven && !s.asked && s.d.known.createFirst()
	s.asked, s.guessed = true, s.guessed || create
	s.mu.Unlock()
	if !create {
		return true
	}
	e := s.ensure()
	if e == nil {
		return true
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.asked = false
	for _, it := range s.queue {
		it.p.fail(it.events, e)
	}
	s.queue = nil
	return false
}

// next starts one call with what may go.
func (s *sender) next() {
	if !s.prepare() {
		return
	}
	// The slot comes before the batch: what arrives while waiting for it joins.
	if !s.d.slots.take(s.d.ctx.Done(), s.target.key()) {
		s.abandon(context.Canceled)
		return
	}
	b := batchPool.Get().(*batch)
	if !s.fill(b) {
		s.d.slots.put(s.target.key())
		batchPool.Put(b)
		return
	}
	s.d.running.Add(1)
	go s.carry(b)
}

// fill takes what may go into the batch, and reports whether there was anything. No
// flush that has events in it leaves before they are encoded: see withdraw.
func (s *sender) fill(b *batch) bool {
	s.filling.Lock()
	defer s.filling.Unlock()
	defer func() {
		if r := recover(); r != nil {
			s.d.slots.put(s.target.key())
			s.drop(b, s.panicked(r))
			panic(r)
		}
	}()
	s.draw(b)
	b.finish(s.target)
	return b.count() > 0
}

func (s *sender) draw(b *batch) {
	s.mu.Lock()
	defer s.mu.Unlock()
	limit := MaxBatchEvents
	if s.suspects > 0 {
		limit = (s.suspects + 1) / 2
	}
	s.queue = b.fill(s.target, s.queue, limit, s.flying)
	if b.count() > 0 {
		s.flying = append(s.flying, b)
		return
	}
	s.blocked = len(s.queue) > 0 && len(s.flying) > 0
}

// carry makes the call for a batch and settles what becomes of it.
func (s *sender) carry(b *batch) {
	defer s.d.running.Done()
	defer s.landed(b)
	defer func() {
		if r := recover(); r != nil {
			s.drop(b, s.panicked(r))
		}
	}()
	rejected, err := s.put(b)
	if err != nil {
		s.failed(b, err)
		return
	}
	s.accepted(b, rejected)
}

// landed makes room for the next call.
func (s *sender) landed(b *batch) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.flying = slices.DeleteFunc(s.flying, func(x *batch) bool { return x == b })
	s.blocked = false
	b.release()
	batchPool.Put(b)
	s.poke()
}

// put makes one call. The slot is for the call alone: creating a group that is
// missing may take long, and nobody else waits for that.
func (s *sender) put(b *batch) (rejected awsclient.Rejected, err error) {
	d := s.d
	defer d.slots.put(s.target.key())
	body, err := b.body(d.cfg.Compress)
	if err != nil {
		return rejected, err
	}
	ctx, cancel := context.WithTimeout(d.ctx, d.cfg.AttemptTimeout)
	defer cancel()
	d.puts.Add(1)
	d.wire.Add(int64(len(body.Bytes)))
	b.began = d.cfg.Now()
	start := time.Now()
	rejected, err = d.logs.Put(ctx, s.target, body, b.count())
	if d.cfg.Observe != nil {
		d.cfg.Observe(Put{Target: s.target, Class: awsclient.Classify(err), Took: time.Since(start),
			Events: b.count(), Bytes: b.size, Wire: len(body.Bytes), Unanswered: awsclient.Unanswered(err)})
	}
	return rejected, err
}

func (s *sender) panicked(reason any) *Error {
	s.d.cfg.Log.Error("a sender panicked; please report this", "group", s.target.Group, "stream", s.target.Stream,
		"error", reason, "stack", string(debug.Stack()))
	return &Error{Target: s.target, Class: awsclient.ClassRetryable, Err: fmt.Errorf("the stream's sender panicked: %v", reason)}
}

// died lets the flushes go that wait for a sender which panicked: they keep their
// chunks, and the next one starts another sender.
func (s *sender) died(reason any) {
	err := s.panicked(reason)
	s.d.mu.Lock()
	delete(s.d.senders, s.target)
	s.d.mu.Unlock()
	s.mu.Lock()
	s.dead = err
	s.mu.Unlock()
	s.abandon(err)
}

// abandon lets go of everything that waits.
func (s *sender) abandon(why error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, it := range s.queue {
		it.p.fail(it.events, &Error{Target: s.target, Class: awsclient.ClassCanceled, Err: why})
	}
	s.queue = nil
}

// withdraw takes back what a flush that has to leave still had waiting here. After
// it returns the sender does not touch that flush's memory.
func (s *sender) withdraw(p *progress) {
	s.filling.Lock() // a batch that reads the flush's messages is done with them
	defer s.filling.Unlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.queue = slices.DeleteFunc(s.queue, func(it item) bool { return it.p == p })
	s.poke()
}

// add queues events behind what waits.
func (s *sender) add(it item) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(it.events) > 0 {
		s.queue = append(s.queue, it)
		s.blocked = false
	}
	s.poke()
}

// ahead queues events before what waits. The caller holds the lock.
func (s *sender) ahead(front []item) {
	if s.dead != nil {
		for _, it := range front {
			it.p.fail(it.events, s.dead)
		}
		return
	}
	if len(front) > 0 {
		s.queue = append(front, s.queue...)
	}
}

// accepted settles a batch that CloudWatch took. Events it rejected for their time
// go again with the present time, AWS's, and say so. DropLate drops them instead, but for those
// that this node's clock alone made late.
func (s *sender) accepted(b *batch, rejected awsclient.Rejected) {
	n := b.count()
	from, to := rejected.Old, n-rejected.New
	size := 0
	for _, r := range b.refs[from:to] {
		size += int(r.size)
	}
	s.d.breaker.succeeded(s.target)
	s.d.stalls.succeeded(s.target, max(1, s.d.cfg.Now().Sub(b.began)))
	s.d.events.Add(int64(to - from))
	s.d.bytes.Add(int64(size))
	at := s.d.present()
	late := func(r ref) bool {
		return s.d.cfg.DropLate && !chunk.RejectedForSkew(r.timestamp, at.now, at.skew)
	}
	if from > 0 || to < n {
		said := "they are sent again with the present time and keep their own in _tenantlogs"
		if s.d.cfg.DropLate {
			said = "they are dropped, as late_events says, but for those that only this node's clock made late"
		}
		s.d.cfg.Log.Warn("CloudWatch rejected events for their time; "+said,
			"group", s.target.Group, "stream", s.target.Stream, "too_old", from, "too_new", n-to, "clock_skew_seconds", at.skew/1000)
	}
	// An event becomes queued and enters the queue in one step, for withdraw.
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.proven {
		s.d.known.found(s.target, !s.guessed && s.creations == 0)
	}
	s.failures, s.creations, s.notBefore, s.proven = 0, 0, time.Time{}, true
	s.took = s.d.cfg.Now()
	s.suspects = max(0, s.suspects-n)
	var front []item
	for _, run := range b.runs(from, to) {
		if more := run.p.accept(run.events, s.target); len(more) > 0 {
			front = append(front, item{p: run.p, events: more})
		}
	}
	for _, part := range [2][2]int{{0, from}, {to, n}} {
		for _, run := range b.runsOf(part[0], part[1], late) {
			s.d.dropped.Add(int64(len(run.events)))
			if s.d.cfg.Discarded != nil {
				s.d.cfg.Discarded(s.target, len(run.events))
			}
			run.p.discard(run.events)
		}
		for _, run := range b.runsOf(part[0], part[1], func(r ref) bool { return !late(r) }) {
			if again := run.p.restamp(run.events, at, s.target); len(again) > 0 {
				s.d.restamped.Add(int64(len(again)))
				front = append(front, item{p: run.p, events: again})
			}
		}
	}
	s.ahead(front)
}

// failed settles a batch that did not arrive.
func (s *sender) failed(b *batch, err error) {
	s.d.putErrors.Add(1)
	e := &Error{Target: s.target, Class: awsclient.Classify(err), Err: err}
	switch e.Class {
	case awsclient.ClassThrottled, awsclient.ClassRetryable, awsclient.ClassConflict:
		s.d.stalls.struggled(s.target, err)
		switch e.Class {
		case awsclient.ClassThrottled:
			s.d.throttled.Add(1)
		case awsclient.ClassRetryable:
			s.d.stalls.failed(s.target, b.began, err)
		}
		s.requeue(b, e, 0, func() {
			s.failures++
			s.notBefore = s.d.cfg.Now().Add(s.d.cfg.Backoff(s.failures))
		})
	case awsclient.ClassNotFound:
		s.d.stalls.answered(s.target)
		s.missing(b, e)
	case awsclient.ClassInvalid:
		s.d.stalls.answered(s.target)
		s.invalid(b, e)
	case awsclient.ClassCredentials:
		var refused *awsclient.RefusedError
		if errors.As(err, &refused) && refused.Again {
			// Nothing was taken, and the next call is signed with what the source says then.
			s.requeue(b, e, 0, func() {
				s.failures++
				s.notBefore = s.d.cfg.Now().Add(s.d.cfg.Backoff(s.failures))
			})
			return
		}
		s.d.breaker.failed(s.target, err)
		s.drop(b, e)
	default:
		var credentials *awsclient.CredentialsError
		if e.Class == awsclient.ClassDenied && !errors.As(err, &credentials) {
			s.d.stalls.answered(s.target)
		}
		s.d.breaker.failed(s.target, err)
		s.drop(b, e)
	}
}

// missing creates the stream and sends the batch again. Where that fails, whatever
// the reason, it may last: the flush gives its thread back meanwhile, for the others'
// chunks.
func (s *sender) missing(b *batch, e *Error) {
	s.d.known.lost(s.target)
	if failed := s.ensure(); failed != nil {
		s.drop(b, failed)
		return
	}
	if !s.again(b) {
		s.d.breaker.failed(s.target, e)
		s.drop(b, e)
	}
}

// ensure creates the stream, and its group where that is allowed.
func (s *sender) ensure() *Error {
	ctx, cancel := context.WithTimeout(s.d.ctx, time.Minute)
	defer cancel()
	began := s.d.cfg.Now()
	s.countCreating(1)
	defer s.countCreating(-1)
	err := s.d.logs.EnsureStream(ctx, s.target)
	if err == nil {
		return nil
	}
	e := &Error{Target: s.target, Class: awsclient.Classify(err), Err: err}
	switch e.Class {
	case awsclient.ClassThrottled:
		s.d.stalls.struggled(s.target, err)
	case awsclient.ClassRetryable:
		s.d.stalls.struggled(s.target, err)
		s.d.stalls.failed(s.target, began, err)
	}
	s.d.breaker.failed(s.target, err)
	return e
}

func (s *sender) countCreating(by int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.creating += by
}

func (s *sender) isCreating() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.creating > 0
}

// again queues a batch whose stream was created, unless that happened too often.
func (s *sender) again(b *batch) bool {
	s.mu.Lock()
	s.creations++
	n := s.creations
	s.mu.Unlock()
	if n > maxCreations {
		return false
	}
	s.requeue(b, nil, 0, func() {
		s.proven = false
		if n > 1 { // not every host of AWS knows the stream yet
			s.notBefore = s.d.cfg.Now().Add(s.d.cfg.Backoff(n - 1))
		}
	})
	return true
}

// invalid looks for the event that makes CloudWatch refuse the whole batch, by halves.
// Found, it goes once more in an envelope; where even that is refused, its chunk goes
// back, and the others are no longer held up by it here.
func (s *sender) invalid(b *batch, e *Error) {
	if n := b.count(); n > 1 {
		s.requeue(b, e, (n+1)/2, func() {
			s.suspects = n
			s.took = s.d.cfg.Now() // the search gets on: leaving would begin it anew
		})
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	r := b.refs[0]
	if r.p.envelop(r.index, e) {
		s.d.enveloped.Add(1)
		s.d.cfg.Log.Warn("CloudWatch calls an event invalid; it is sent again in an envelope",
			"group", s.target.Group, "stream", s.target.Stream, "error", awsclient.Brief(e.Err))
		s.suspects = 1 // alone, once more
		s.ahead([]item{{p: r.p, events: []int32{r.index}}})
		return
	}
	s.suspects = 0
}

// drop sends the chunks of a batch back to Fluent Bit, which keeps them and comes
// back. The others that wait for this stream find out by themselves.
func (s *sender) drop(b *batch, e *Error) {
	for _, run := range b.runs(0, b.count()) {
		run.p.fail(run.events, e)
	}
}

// requeue puts a batch's events back in front of what waits, for the flushes that
// are still there; the others are told why, and most (see back). note is called under the lock.
func (s *sender) requeue(b *batch, why error, most int, note func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	note()
	var front []item
	for _, run := range b.runs(0, b.count()) {
		if again := run.p.back(run.events, s.target, why, most); len(again) > 0 {
			front = append(front, item{p: run.p, events: again})
		}
	}
	s.ahead(front)
}
