package delivery

import (
	"context"
	"fmt"
	"runtime/debug"
	"sync"
	"time"

	"github.com/eks-tenant-logs/eks-tenant-logs/internal/awsclient"
)

// item is a run of one chunk's events that wait for their stream.
type item struct {
	p      *progress
	events []int32 // indexes into the chunk's events, in order
}

// sender owns one stream: it takes what is waiting, whoever's flush it is from,
// and sends it as one batch, one call at a time. It runs only while there is work.
type sender struct {
	d      *Deliverer
	target Target
	wake   chan struct{}

	mu    sync.Mutex
	queue []item

	// Of the sender's own goroutine alone:
	failures  int // in a row
	notBefore time.Time
	creations int // in a row without a put that worked
}

func (s *sender) poke() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// maxCreations is how often in a row a stream is created that the next put does
// not find, before the flush is told.
const maxCreations = 5

func (s *sender) run() {
	defer s.d.running.Done()
	b := batchPool.Get().(*batch)
	defer func() {
		if r := recover(); r != nil {
			s.died(b, r)
			return
		}
		batchPool.Put(b)
	}()
	for {
		if s.idle() {
			if s.d.retire(s) {
				return
			}
			continue
		}
		if s.pause() {
			continue
		}
		s.next(b)
	}
}

// next makes one call with what waits, and settles what becomes of it.
func (s *sender) next(b *batch) {
	// The slot comes before the batch: what arrives while waiting for it joins.
	select {
	case s.d.slots <- struct{}{}:
	case <-s.d.ctx.Done():
		s.abandon(context.Canceled)
		return
	}
	rejected, sent, err := s.put(b)
	switch {
	case !sent:
	case err != nil:
		s.failed(b, err)
	default:
		s.accepted(b, rejected)
	}
}

// died lets the flushes go that wait for a sender which panicked: they keep their
// chunks, and the next one starts another sender.
func (s *sender) died(b *batch, reason any) {
	err := &Error{Target: s.target, Class: awsclient.ClassRetryable, Err: fmt.Errorf("the stream's sender panicked: %v", reason)}
	s.d.cfg.Log.Error("a sender panicked; please report this", "group", s.target.Group, "stream", s.target.Stream,
		"error", reason, "stack", string(debug.Stack()))
	s.d.mu.Lock()
	defer s.d.mu.Unlock()
	delete(s.d.senders, s.target)
	for _, run := range b.runs(0, b.count()) {
		run.p.fail(run.events, err)
	}
	s.abandon(err)
}

func (s *sender) idle() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.queue) == 0
}

// pause waits while the stream is backing off. It reports true where the queue is
// to be looked at again.
func (s *sender) pause() bool {
	d := s.notBefore.Sub(s.d.cfg.Now())
	if d <= 0 {
		return false
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-s.wake:
	case <-s.d.ctx.Done():
		s.abandon(context.Canceled)
	}
	return true
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
	s.mu.Lock()
	defer s.mu.Unlock()
	kept := s.queue[:0]
	for _, it := range s.queue {
		if it.p != p {
			kept = append(kept, it)
		}
	}
	clear(s.queue[len(kept):])
	s.queue = kept
	s.poke()
}

// put fills the batch and makes one call with it. The slot is for the call alone:
// creating a group that is missing may take long, and nobody else waits for that.
func (s *sender) put(b *batch) (rejected awsclient.Rejected, sent bool, err error) {
	d := s.d
	defer func() { <-d.slots }()
	s.fill(b)
	if b.count() == 0 {
		return rejected, false, nil
	}
	body, err := b.body(d.cfg.Compress)
	if err != nil {
		return rejected, true, err
	}
	ctx, cancel := context.WithTimeout(d.ctx, d.cfg.AttemptTimeout)
	defer cancel()
	d.puts.Add(1)
	d.wire.Add(int64(len(body.Bytes)))
	rejected, err = d.logs.Put(ctx, s.target.Group, s.target.Stream, body, b.count())
	return rejected, true, err
}

func (s *sender) fill(b *batch) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.queue = b.fill(s.target, s.queue)
}

// accepted settles a batch that CloudWatch took. Events it rejected for their time
// go again with the present time, and say so: once, because a second refusal means
// that our clock or theirs is wrong.
func (s *sender) accepted(b *batch, rejected awsclient.Rejected) {
	s.failures, s.creations = 0, 0
	s.notBefore = time.Time{}
	n := b.count()
	from, to := rejected.Old, n-rejected.New
	size := 0
	for _, r := range b.refs[from:to] {
		size += int(r.size)
	}
	s.d.events.Add(int64(to - from))
	s.d.bytes.Add(int64(size))
	if from > 0 || to < n {
		s.d.cfg.Log.Warn("CloudWatch rejected events for their time; they are sent again with the present time and keep their own in _tenantlogs",
			"group", s.target.Group, "stream", s.target.Stream, "too_old", from, "too_new", n-to)
	}
	now := s.d.cfg.Now().UnixMilli()
	// An event becomes queued and enters the queue in one step, for withdraw.
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, run := range b.runs(from, to) {
		if more := run.p.accept(run.events); len(more) > 0 {
			s.queue = append(s.queue, item{p: run.p, events: more})
		}
	}
	for _, part := range [2][2]int{{0, from}, {to, n}} {
		for _, run := range b.runs(part[0], part[1]) {
			if again := run.p.restamp(run.events, now, s.target); len(again) > 0 {
				s.d.restamped.Add(int64(len(again)))
				s.queue = append(s.queue, item{p: run.p, events: again})
			}
		}
	}
}

// failed settles a batch that did not arrive.
func (s *sender) failed(b *batch, err error) {
	d := s.d
	d.putErrors.Add(1)
	class := awsclient.Classify(err)
	if class == awsclient.ClassNotFound {
		s.creations++
		ctx, cancel := context.WithTimeout(d.ctx, time.Minute)
		cerr := d.logs.EnsureStream(ctx, s.target)
		cancel()
		if cerr == nil && s.creations <= maxCreations {
			s.requeue(b, nil)
			return
		}
		if cerr != nil {
			// Whatever it is, it may last; the flush gives its thread back meanwhile, for
			// the others' chunks.
			s.giveUp(b, cerr)
			return
		}
	}
	switch class {
	case awsclient.ClassThrottled, awsclient.ClassRetryable, awsclient.ClassConflict:
		if class == awsclient.ClassThrottled {
			d.throttled.Add(1)
		}
		s.failures++
		s.notBefore = d.cfg.Now().Add(d.cfg.Backoff(s.failures))
		s.requeue(b, &Error{Target: s.target, Class: class, Err: err})
	default:
		s.giveUp(b, err)
	}
}

// giveUp sends the chunks of a batch back to Fluent Bit, which keeps them and comes
// back. The others that wait for this stream find out by themselves.
func (s *sender) giveUp(b *batch, err error) {
	e := &Error{Target: s.target, Class: awsclient.Classify(err), Err: err}
	for _, run := range b.runs(0, b.count()) {
		run.p.fail(run.events, e)
	}
}

// requeue puts a batch's events back in front of what waits, for the flushes that
// are still there.
func (s *sender) requeue(b *batch, why error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var front []item
	for _, run := range b.runs(0, b.count()) {
		if again := run.p.back(run.events, why); len(again) > 0 {
			front = append(front, item{p: run.p, events: again})
		}
	}
	s.queue = append(front, s.queue...)
}
