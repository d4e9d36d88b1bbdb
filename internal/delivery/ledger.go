package delivery

import (
	"encoding/binary"
	"hash/fnv"
	"sync"

	lru "github.com/hashicorp/golang-lru/v2"

	"github.com/eks-tenant-logs/eks-tenant-logs/internal/chunk"
)

// ledger remembers chunks that were delivered in part. It is a multiset: two
// chunks with the same tag and bytes are two, and each entry is given out once.
type ledger struct {
	mu      sync.Mutex
	entries *lru.Cache[Key, []*progress]
	evicted func(*progress)
	full    int
	size    int
	// sketches says of how many entries each is the sketch; those read from a file have
	// none. Hashing a chunk costs more than anything else that is done with all its bytes,
	// and nearly always nothing is remembered of it.
	sketches map[uint64]int
}

func newLedger(size int, evicted func(*progress)) *ledger {
	l := &ledger{evicted: evicted, full: size, sketches: map[uint64]int{}}
	// Evictions are counted here, by hand: a key can hold several entries.
	c, err := lru.New[Key, []*progress](size)
	if err != nil {
		panic(err) // only for a size that is not positive
	}
	l.entries = c
	return l
}

// cuts tells how records are cut that are too long for one event: a part that was
// accepted is no part of a record that is cut elsewhere, because its notes are longer.
func cuts(events *chunk.Events) uint64 {
	h := fnv.New64a()
	var b [16]byte
	cut := false
	for i := range events.List {
		e := &events.List[i]
		if e.Part > 0 {
			binary.LittleEndian.PutUint64(b[:], uint64(e.Record))
			binary.LittleEndian.PutUint64(b[8:], uint64(e.To-e.From))
			h.Write(b[:])
			cut = true
		}
	}
	if !cut {
		return 0
	}
	return h.Sum64()
}

// take gives out the entry of a chunk, or a new one. An entry that does not have as
// many events, or has records cut elsewhere, can't be trusted to count the same ones
// (the rules for messages changed meanwhile); the chunk is then sent whole.
func (l *ledger) take(c Chunk, events int, cuts uint64) *progress {
	fresh := newProgress(events)
	fresh.cuts, fresh.sketch = cuts, c.Sketch()
	if !l.may(fresh.sketch) {
		return fresh
	}
	key := c.Key()
	l.mu.Lock()
	defer l.mu.Unlock()
	list, ok := l.entries.Peek(key)
	if !ok {
		return fresh
	}
	p := list[len(list)-1]
	l.left(p)
	p.sketch = fresh.sketch
	if len(list) == 1 {
		l.entries.Remove(key)
	} else {
		l.entries.Add(key, list[:len(list)-1])
	}
	if len(p.state) != events || p.cuts != cuts {
		l.evicted(p)
		return fresh
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
		for _, p := range list {
			l.left(p)
			l.evicted(p)
		}
	}
	list, _ := l.entries.Peek(key)
	l.entries.Add(key, append(list, p))
	l.size++
	l.sketches[p.sketch]++
}

// may reports whether a chunk with this sketch may be remembered.
func (l *ledger) may(sketch uint64) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.sketches[sketch] > 0 || l.sketches[noSketch] > 0
}

// left notes that an entry is not remembered any more. The caller holds the lock.
func (l *ledger) left(p *progress) {
	l.size--
	if l.sketches[p.sketch]--; l.sketches[p.sketch] == 0 {
		delete(l.sketches, p.sketch)
	}
}

// len is how many chunks are remembered.
func (l *ledger) len() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.size
}
