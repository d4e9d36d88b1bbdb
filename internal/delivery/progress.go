package delivery

import (
	"errors"
	"sync"
	"time"

	"github.com/eks-tenant-logs/eks-tenant-logs/internal/awsclient"
	"github.com/eks-tenant-logs/eks-tenant-logs/internal/chunk"
)

// state is how far an event came. Whoever moves an event holds its progress's lock:
//
//	waiting  -> queued    begin: a flush is here for it
//	queued   -> inFlight  a batch took it, and copied its bytes
//	queued   -> waiting   end: the flush left
//	inFlight -> accepted  CloudWatch said so
//	inFlight -> queued    it failed, and a flush is here for it
//	inFlight -> waiting   it failed, and none is
//
// An event is in a sender's queue if, and only if, it is queued; so it is there once.
type state uint8

const (
	waiting state = iota
	queued
	inFlight
	accepted
)

// progress is what is known of one chunk's events. It outlives the flush: a call
// that was in flight when the flush had to leave reports to it all the same.
type progress struct {
	since time.Time // when the chunk was first handed over; never changed
	// cuts says where records are cut that are too long for one event; never changed.
	cuts   uint64
	sketch uint64 // the chunk's; noSketch until it came back where it was read from a file

	mu     sync.Mutex
	state  []state
	open   int           // events not accepted
	active int           // events queued or in flight
	events *chunk.Events // the flush's memory while it is here, else nil: not to be read
	// targets are the flush's: a chunk that comes again may go elsewhere, and a call to
	// where it went before has nothing to do with this flush's memory.
	targets []Target
	failed  []bool // by destination: given up for this flush
	err     error  // why, of the first of them
	last    error  // the last failure, for the message on a timeout
	// replaced are events that CloudWatch refused, as they are sent again.
	replaced map[int32]*replacement
	// found is what an answer said of events that are not accepted. It outlives the flush:
	// answers may be slower than a flush waits, and each would else be the first again.
	found   map[int32]finding
	changed chan struct{} // one token: something happened
}

// finding is what is known of an event that CloudWatch did not take as it was.
type finding struct {
	// most is how many events a batch may have that holds this one, which is suspected of
	// being invalid; 0 where there is no suspicion.
	most int
	// invalid and late say in which form it is to be sent.
	invalid, late bool
}

// replacement is an event that is sent again with another time or in an envelope, and
// where that is too long for one event in several, one after the other.
type replacement struct {
	events *chunk.Events
	part   int // the part to send next, or in flight
	stamps int // how often it was given the present time again
	// late says that it bears the present time; else it is in an envelope at its own.
	late bool
}

func newProgress(n int) *progress {
	return &progress{state: make([]state, n), open: n, changed: make(chan struct{}, 1)}
}

// move moves an event. The caller holds the lock.
func (p *progress) move(i int32, to state) {
	busy := func(s state) bool { return s == queued || s == inFlight }
	if from := p.state[i]; busy(from) != busy(to) {
		if busy(to) {
			p.active++
		} else {
			p.active--
		}
	}
	if p.state[i] != accepted && to == accepted {
		p.open--
		p.learn(i, finding{})
	}
	p.state[i] = to
}

// learn notes what is known of an event; the zero finding forgets it. The caller holds the
// lock.
func (p *progress) learn(i int32, f finding) {
	if f == (finding{}) {
		if delete(p.found, i); len(p.found) == 0 {
			p.found = nil // as with replaced
		}
		return
	}
	if p.found == nil {
		p.found = map[int32]finding{}
	}
	p.found[i] = f
}

// begin lets a flush in and gives out, by destination, every event that waits. Both
// under one lock: a call that fails meanwhile either finds no flush, and its events
// are given out here, or finds one, and they are not waiting.
//
// The events of a destination that is turned away stay, and why is the flush's error. Those
// that CloudWatch refused while no flush was here take their other form; forms counts them.
func (p *progress) begin(events *chunk.Events, targets []Target, away []error, at present) (queues [][]int32, forms forms) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.events, p.err, p.last = events, nil, nil
	p.targets, p.failed = targets, make([]bool, len(targets))
	for dest, err := range away {
		if err != nil {
			p.failed[dest], p.err = true, err
		}
	}
	p.dropStale()
	queues = make([][]int32, len(targets))
	for i := range events.List {
		if p.state[i] != waiting {
			continue
		}
		dest := events.List[i].Dest
		if events.List[i].Dropped || targets[dest] == (Target{}) {
			p.move(int32(i), accepted)
			p.drop(int32(i))
			continue
		}
		if p.failed[dest] {
			continue
		}
		p.move(int32(i), queued)
		p.form(int32(i), at, &forms)
		queues[dest] = append(queues[dest], int32(i))
	}
	p.notify()
	return queues, forms
}

// present is AWS's time, and how far this node's clock is ahead of it, both in milliseconds.
type present struct{ now, skew int64 }

// forms counts events that are sent in another form than their own.
type forms struct{ enveloped, restamped int64 }

// form gives an event the form that an answer asked for after its flush had left.
func (p *progress) form(i int32, at present, count *forms) {
	f := p.found[i]
	if p.replaced[i] != nil || !f.invalid && !f.late {
		return
	}
	if f.late {
		reason := ""
		if f.invalid {
			reason = reasonInvalid
		}
		p.stamp(i, at, reason)
		count.restamped++
		return
	}
	p.envelope(i)
	count.enveloped++
}

// stamp has an event sent with the present time, and envelope in an envelope at its own.
func (p *progress) stamp(i int32, at present, reason string) {
	p.replace(i, replacement{late: true, events: chunk.Restamp(p.events.Message(int(i)), p.events.List[i].Timestamp, at.now, at.skew, reason)})
}

const (
	// maxStamps is how often an event is given the present time again: the answers that reject it
	// tell AWS's time, and the second of them is believed for certain.
	maxStamps = 2
	// moved is by how many milliseconds the present time must differ from the one an event was
	// given for that to be worth another call.
	moved = 60_000
)

// stampAgain gives what remains of a restamped event the present time anew, and reports whether
// it did: not where the time is much the same, for then another call would bring the same answer.
func (r *replacement) stampAgain(now int64) bool {
	rest := r.events.List[r.part:]
	if by := now - rest[0].Timestamp; r.stamps == maxStamps || by > -moved && by < moved {
		return false
	}
	r.stamps++
	for n := range rest {
		rest[n].Timestamp = now
	}
	return true
}

func (p *progress) envelope(i int32) {
	p.replace(i, replacement{events: chunk.Envelope(p.events.Message(int(i)), p.events.List[i].Timestamp, reasonInvalid)})
}

// end lets the flush out. From here on nothing reads its memory, and a call that
// fails is not made again until the chunk comes back.
func (p *progress) end() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.events, p.targets = nil, nil
	for i, st := range p.state {
		if st == queued {
			p.move(int32(i), waiting)
		}
	}
	p.dropStale()
}

// dropStale drops what was replaced and not sent since: its present time is over. One
// that is in flight, or of which a part has arrived, goes on where it is.
func (p *progress) dropStale() {
	for i, r := range p.replaced {
		if r.part == 0 && p.state[i] != inFlight {
			p.drop(i)
		}
	}
}

func (p *progress) drop(i int32) {
	if delete(p.replaced, i); len(p.replaced) == 0 {
		p.replaced = nil // an emptied map keeps its memory, and the ledger keeps us
	}
}

// needs says of each destination whether begin would give out any event for it, and whether
// any is still open, if only in flight.
func (p *progress) needs(events *chunk.Events, dests int) (send, open []bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	send, open = make([]bool, dests), make([]bool, dests)
	for i := range events.List {
		e := &events.List[i]
		if p.state[i] == accepted || p.state[i] == waiting && e.Dropped {
			continue
		}
		open[e.Dest] = true
		send[e.Dest] = send[e.Dest] || p.state[i] == waiting
	}
	return send, open
}

func (p *progress) complete() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.open == 0
}

func (p *progress) notify() {
	select {
	case p.changed <- struct{}{}:
	default:
	}
}

// outcome says whether a flush may leave, and with what.
func (p *progress) outcome(late bool) (done bool, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case p.open == 0:
		return true, nil
	case p.err != nil && p.active == 0:
		// One destination failed; the others' events have arrived, or failed as well.
		return true, p.err
	case late:
		return true, timeoutError(p.last)
	}
	return false, nil
}

// unfinished says of each destination whether any of its events is still open.
func (p *progress) unfinished() []bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	open := make([]bool, len(p.targets))
	for i, st := range p.state {
		if st != accepted {
			open[p.events.List[i].Dest] = true
		}
	}
	return open
}

// turnedAway is why nothing that is open is sent in this flush; nil where anything is. What
// is in flight from a flush before is not waited for: it may be what hangs.
func (p *progress) turnedAway() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !errors.Is(p.err, ErrStalled) && !errors.Is(p.err, ErrDown) {
		return nil
	}
	for i, st := range p.state {
		if st != accepted && !p.failed[p.events.List[i].Dest] {
			return nil
		}
	}
	return p.err
}

// look returns an event's time and message, the replaced one where there is one.
func (p *progress) look(i int32) (int64, []byte) {
	if r := p.replaced[i]; r != nil {
		return r.events.List[r.part].Timestamp, r.events.Message(r.part)
	}
	return p.events.List[i].Timestamp, p.events.Message(int(i))
}

// accept marks events as accepted by t. Those sent again in several parts come back for
// their next one.
func (p *progress) accept(events []int32, t Target) (more []int32) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, i := range events {
		if p.state[i] != inFlight {
			continue
		}
		if r := p.replaced[i]; r != nil && r.part+1 < len(r.events.List) {
			r.part++
			if p.again(i, t) {
				more = append(more, i)
			}
			continue
		}
		p.move(i, accepted)
		p.drop(i)
	}
	p.notify()
	return more
}

var errMoved = errors.New("the chunk goes elsewhere since a call failed that was made before")

// again moves an event that was in flight to t back, and reports whether it is to be
// queued there: whether a flush is here that sends it there.
func (p *progress) again(i int32, t Target) bool {
	if p.here(i, t) {
		p.move(i, queued)
		return true
	}
	p.move(i, waiting)
	if r := p.replaced[i]; r != nil && r.part == 0 {
		p.drop(i) // it is made anew when the chunk comes back
	}
	if p.events != nil && !p.failed[p.events.List[i].Dest] && p.err == nil {
		// Nobody sends it in this flush; in the next it is given out with the others.
		p.err = &Error{Target: t, Class: awsclient.ClassRetryable, Err: errMoved}
	}
	return false
}

// here reports whether a flush is here that sends an event to t.
func (p *progress) here(i int32, t Target) bool {
	if p.events == nil {
		return false
	}
	dest := p.events.List[i].Dest
	return !p.failed[dest] && p.targets[dest] == t
}

// back takes events back from a call to t that failed. It returns those that are to be
// queued again. most is for events of which one may be invalid: how many of them may go
// together when their chunk comes back; 0 where there is no suspicion.
func (p *progress) back(events []int32, t Target, why error, most int) (requeue []int32) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if why != nil {
		p.last = why
	}
	for _, i := range events {
		if p.state[i] != inFlight {
			continue
		}
		if p.again(i, t) {
			requeue = append(requeue, i)
		} else if most > 0 {
			f := p.found[i]
			f.most = most
			p.learn(i, f)
		}
	}
	p.notify() // the last that was active may have become waiting
	return requeue
}

// fail takes events back without queueing them, and gives their destination up for this
// flush: what waits there behind them must not arrive before them.
func (p *progress) fail(events []int32, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, i := range events {
		p.give(i)
	}
	if p.err == nil {
		p.err = err
	}
	p.notify()
}

// give gives up an event and the others that wait for its destination.
func (p *progress) give(i int32) {
	if p.state[i] == inFlight || p.state[i] == queued {
		p.move(i, waiting)
	}
	if p.events == nil {
		return // nothing waits
	}
	dest := p.events.List[i].Dest
	if p.failed[dest] {
		return
	}
	p.failed[dest] = true
	for n := range p.state {
		if p.state[n] == queued && p.events.List[n].Dest == dest {
			p.move(int32(n), waiting)
		}
	}
}

// discard marks events as done that are not to arrive.
func (p *progress) discard(events []int32) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, i := range events {
		if p.state[i] == inFlight {
			p.move(i, accepted)
			p.drop(i)
		}
	}
	p.notify()
}

// restamp prepares rejected events to be sent once more with another time. Those
// that were already are given up, and the flush with them, unless the present time turned
// out to be another since.
func (p *progress) restamp(events []int32, at present, t Target) (requeue []int32) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, i := range events {
		if p.state[i] != inFlight {
			continue
		}
		r := p.replaced[i]
		if r != nil && r.late && p.here(i, t) && r.stampAgain(at.now) {
			p.move(i, queued)
			requeue = append(requeue, i)
			continue
		}
		if r != nil && (r.late || r.part > 0) {
			p.refuse(i, &Error{Target: t, Class: awsclient.ClassRetryable,
				Err: errors.New("CloudWatch rejects events even with the present time: is this node's clock right?")})
			continue
		}
		if !p.again(i, t) { // the chunk comes back, and its events with it
			f := p.found[i]
			f.late, f.invalid = true, f.invalid || r != nil
			p.learn(i, f)
			continue
		}
		reason := ""
		if r != nil {
			reason = reasonInvalid // as it was, it was refused: its envelope stays
		}
		p.stamp(i, at, reason)
		requeue = append(requeue, i)
	}
	p.notify()
	return requeue
}

// reasonInvalid is _tenantlogs.reason of an event that CloudWatch called invalid.
const reasonInvalid = "invalid"

// envelop prepares an event that CloudWatch calls invalid to be sent once more, in an
// envelope, and reports whether it is to be queued. One that was in an envelope already
// is given up, and the flush with it.
func (p *progress) envelop(i int32, e *Error) (requeue bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	defer p.notify()
	if p.state[i] != inFlight {
		return false
	}
	if p.replaced[i] != nil {
		p.refuse(i, e)
		return false
	}
	if !p.again(i, e.Target) {
		f := p.found[i]
		f.invalid = true
		p.learn(i, f)
		return false
	}
	p.envelope(i)
	return true
}

func (p *progress) replace(i int32, with replacement) {
	if p.replaced == nil {
		p.replaced = map[int32]*replacement{}
	}
	p.replaced[i] = &with
}

// refuse gives an event up that was refused in its other form, too.
func (p *progress) refuse(i int32, e *Error) {
	p.drop(i)
	p.learn(i, finding{}) // it may be their mistake: the next flush tries it as it is
	p.give(i)
	if p.err == nil {
		p.err = e
	}
}
