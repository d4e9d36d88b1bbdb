package delivery

import (
	"context"
	"errors"
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
	defer batchPool.Put(b)
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
		// The slot comes before the batch: what arrives while waiting for it joins.
		select {
		case s.d.slots <- struct{}{}:
		case <-s.d.ctx.Done():
			s.abandon()
			continue
		}
		s.mu.Lock()
		s.queue = b.fill(s.target, s.queue)
		s.mu.Unlock()
		if b.count() == 0 {
			<-s.d.slots
			continue
		}
		rejected, err := s.put(b)
		// The slot is for the call alone: creating a group that is missing may take
		// long, and nobody else's events wait for it.
		<-s.d.slots
		if err != nil {
			s.failed(b, err)
		} else {
			s.accepted(b, rejected)
		}
	}
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
		s.abandon()
	}
	return true
}

// abandon lets go of everything that waits, at Close.
func (s *sender) abandon() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, it := range s.queue {
		it.p.fail(&Error{Target: s.target, Class: awsclient.ClassCanceled, Err: context.Canceled})
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

// put makes one call with the batch.
func (s *sender) put(b *batch) (awsclient.Rejected, error) {
	d := s.d
	body, err := b.body(d.cfg.Compress)
	if err != nil {
		return awsclient.Rejected{}, err
	}
	ctx, cancel := context.WithTimeout(d.ctx, d.cfg.AttemptTimeout)
	defer cancel()
	d.puts.Add(1)
	d.wire.Add(int64(len(body.Bytes)))
	return d.logs.Put(ctx, s.target.Group, s.target.Stream, body, b.count())
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
	for _, run := range b.runs(from, to) {
		if more := run.p.accept(run.events); len(more) > 0 {
			s.add(item{p: run.p, events: more})
		}
	}
	if from == 0 && to == n {
		return
	}
	s.d.cfg.Log.Warn("CloudWatch rejected events for their time; they are sent again with the present time and keep their own in _tenantlogs",
		"group", s.target.Group, "stream", s.target.Stream, "too_old", from, "too_new", n-to)
	now := s.d.cfg.Now().UnixMilli()
	for _, part := range [2][2]int{{0, from}, {to, n}} {
		for _, run := range b.runs(part[0], part[1]) {
			if it, count := run.p.restamp(run.events, now, s.target); len(it.events) > 0 {
				s.d.restamped.Add(int64(count))
				s.add(it)
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
			err = cerr
			class = awsclient.Classify(err)
		}
	}
	e := &Error{Target: s.target, Class: class, Err: err}
	switch class {
	case awsclient.ClassThrottled, awsclient.ClassRetryable, awsclient.ClassConflict:
		if class == awsclient.ClassThrottled {
			d.throttled.Add(1)
		}
		s.failures++
		s.notBefore = d.cfg.Now().Add(d.cfg.Backoff(s.failures))
		s.requeue(b, e)
	default:
		// Waiting here would not help: Fluent Bit keeps the chunk and comes back.
		for _, run := range b.runs(0, b.count()) {
			run.p.release(run.events)
			run.p.fail(e)
		}
		// The others that wait for this stream find out by themselves.
	}
}

func (s *sender) add(it item) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.queue = append(s.queue, it)
}

// requeue puts a batch's events back in front of what waits, for the flushes that
// are still there.
func (s *sender) requeue(b *batch, why error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var front []item
	for _, run := range b.runs(0, b.count()) {
		if run.p.back(run.events, why) {
			front = append(front, item(run))
		}
	}
	s.queue = append(front, s.queue...)
}

// accept marks events as accepted. Events that were sent again in several parts
// come back for their next one.
func (p *progress) accept(events []int32) (more []int32) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, i := range events {
		if r := p.restamps[i]; r != nil && r.part+1 < len(r.events.List) {
			p.state[i] = waiting
			if p.events != nil {
				r.part++
				more = append(more, i)
			}
			continue
		}
		if p.state[i] != accepted {
			p.state[i] = accepted
			p.open--
		}
	}
	p.notify()
	return more
}

// release marks events as waiting, without queueing them.
func (p *progress) release(events []int32) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, i := range events {
		p.state[i] = waiting
	}
}

// back marks events as waiting. It reports whether a flush is there for them.
func (p *progress) back(events []int32, why error) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, i := range events {
		p.state[i] = waiting
	}
	if why != nil {
		p.last = why
	}
	return p.events != nil
}

// fail tells the flush to give up.
func (p *progress) fail(err error) {
	p.mu.Lock()
	if p.err == nil {
		p.err = err
	}
	p.mu.Unlock()
	p.notify()
}

// restamp prepares rejected events to be sent once more with another time. Those
// that were already are given up, and the flush with them.
func (p *progress) restamp(events []int32, now int64, t Target) (it item, count int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	it.p = p
	for _, i := range events {
		p.state[i] = waiting
		if p.events == nil {
			continue // the chunk comes back, and its events with it
		}
		if p.restamps[i] != nil {
			if p.err == nil {
				p.err = &Error{Target: t, Class: awsclient.ClassRetryable,
					Err: errors.New("CloudWatch rejects events even with the present time: is this node's clock right?")}
			}
			continue
		}
		e := p.events.List[i]
		if p.restamps == nil {
			p.restamps = map[int32]*restamped{}
		}
		p.restamps[i] = &restamped{events: chunk.Restamp(p.events.Message(int(i)), e.Timestamp, now)}
		it.events = append(it.events, i)
		count++
	}
	if p.err != nil {
		p.notify()
	}
	return it, count
}
