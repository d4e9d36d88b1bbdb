package delivery

import (
	"context"
	"sync"

	lru "github.com/hashicorp/golang-lru/v2"

	"github.com/eks-tenant-logs/eks-tenant-logs/internal/chunk"
)

// state is how far an event came.
type state uint8

const (
	waiting  state = iota // to be sent
	inFlight              // in a call whose answer is not there yet
	accepted              // by CloudWatch
)

// progress is what is known of one chunk's events. It outlives the flush: a call
// that was in flight when the flush had to leave reports to it all the same.
type progress struct {
	mu       sync.Mutex
	state    []state
	open     int                  // events not accepted
	events   *chunk.Events        // the flush's events while one waits, else nil
	err      error                // why the flush should give up
	last     error                // the last failure, for the message on a timeout
	restamps map[int32]*restamped // events CloudWatch rejected, as they are sent again
	changed  chan struct{}        // one token: something happened
}

// restamped is an event that is sent again with another time: in an envelope, and
// where that is too long for one event in several, one after the other.
type restamped struct {
	events *chunk.Events
	part   int // the part to send next
}

func newProgress(n int) *progress {
	return &progress{state: make([]state, n), open: n, changed: make(chan struct{}, 1)}
}

func (p *progress) attach(events *chunk.Events) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.events, p.err, p.last, p.restamps = events, nil, nil, nil
}

// detach ends the flush's part: from here on a failed event is not sent again
// until the chunk comes back.
func (p *progress) detach() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.events = nil
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

// wait returns nil when everything is accepted, else why it will not be.
func (p *progress) wait(ctx context.Context) error {
	for {
		p.mu.Lock()
		open, err, last := p.open, p.err, p.last
		p.mu.Unlock()
		switch {
		case open == 0:
			return nil
		case err != nil:
			return err
		}
		select {
		case <-p.changed:
		case <-ctx.Done():
			if p.complete() {
				return nil
			}
			return timeoutError(last)
		}
	}
}

// ledger remembers chunks that were delivered in part. It is a multiset: two
// chunks with the same tag and bytes are two, and each entry is given out once.
type ledger struct {
	mu      sync.Mutex
	entries *lru.Cache[Key, []*progress]
	evicted func()
	full    int
	size    int
}

func newLedger(size int, evicted func()) *ledger {
	l := &ledger{evicted: evicted, full: size}
	// Evictions are counted here, by hand: a key can hold several entries.
	c, err := lru.New[Key, []*progress](size)
	if err != nil {
		panic(err) // only for a size that is not positive
	}
	l.entries = c
	return l
}

// take gives out the entry of a chunk, or a new one. An entry that does not have
// as many events can't be trusted to count the same ones (the rules for messages
// changed meanwhile); the chunk is then sent whole.
func (l *ledger) take(key Key, events int) *progress {
	l.mu.Lock()
	defer l.mu.Unlock()
	list, ok := l.entries.Peek(key)
	if !ok {
		return newProgress(events)
	}
	p := list[len(list)-1]
	l.size--
	if len(list) == 1 {
		l.entries.Remove(key)
	} else {
		l.entries.Add(key, list[:len(list)-1])
	}
	if len(p.state) != events {
		l.evicted()
		return newProgress(events)
	}
	return p
}

func (l *ledger) put(key Key, p *progress) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for l.size >= l.full {
		_, list, ok := l.entries.RemoveOldest()
		if !ok {
			break
		}
		l.size -= len(list)
		for range list {
			l.evicted()
		}
	}
	list, _ := l.entries.Peek(key)
	l.entries.Add(key, append(list, p))
	l.size++
}
