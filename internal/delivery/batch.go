package delivery

import (
	"bytes"
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/klauspost/compress/gzip"

	"github.com/eks-tenant-logs/eks-tenant-logs/internal/awsclient"
	"github.com/eks-tenant-logs/eks-tenant-logs/internal/chunk"
)

// ref is one event of a batch: whose it is and where its message is.
type ref struct {
	timestamp int64
	p         *progress
	index     int32
	size      int32 // bytes of the message
	seq       int32 // its place in the order of arrival
	message   []byte
}

// batch is one PutLogEvents call. Once filled it owns a copy of every message, in
// the body: the flushes it came from may leave.
type batch struct {
	refs      []ref
	size      int   // bytes, as CloudWatch counts them
	low, high int64 // the earliest and the latest time
	full      bool
	most      int       // events
	passed    int       // events passed over
	began     time.Time // when its call began
	json      *[]byte   // the body; nil once only gzip is needed
	gzip      bytes.Buffer
}

var (
	batchPool = sync.Pool{New: func() any { return new(batch) }}
	// A batch is under way for as long as CloudWatch takes. What only its encoding needs goes
	// to the next one meanwhile: a writer alone is over a megabyte.
	jsonPool = sync.Pool{New: func() any { return new([]byte) }}
	zipPool  = sync.Pool{New: func() any {
		zip, err := gzip.NewWriterLevel(nil, gzip.BestSpeed)
		if err != nil {
			panic(err) // only for a level that is none
		}
		return zip
	}}
)

// release lets the body go.
func (b *batch) release() {
	if b.json != nil {
		jsonPool.Put(b.json)
		b.json = nil
	}
}

func (b *batch) count() int { return len(b.refs) }

// run is the events of one chunk within a batch.
type run struct {
	p      *progress
	events []int32
	seq    int32 // of the first to arrive
}

// runs groups the events [from, to) of a batch by chunk. A batch is in the order of
// time; what goes back into a queue must be in the order of arrival, or a second attempt
// would swap events of the same time.
func (b *batch) runs(from, to int) []run {
	return b.runsOf(from, to, func(ref) bool { return true })
}

// runsOf is runs of the events that are asked for.
func (b *batch) runsOf(from, to int, wanted func(ref) bool) []run {
	var list []run
	at := map[*progress]int{}
	for _, r := range b.refs[from:to] {
		if !wanted(r) {
			continue
		}
		i, ok := at[r.p]
		if !ok {
			i = len(list)
			at[r.p] = i
			list = append(list, run{p: r.p, seq: r.seq})
		}
		list[i].events = append(list[i].events, r.index)
		list[i].seq = min(list[i].seq, r.seq)
	}
	for i := range list {
		slices.Sort(list[i].events)
	}
	slices.SortFunc(list, func(x, y run) int { return cmp.Compare(x.seq, y.seq) })
	return list
}

// maxPassed bounds how many events are passed over in search of some that may go
// while other calls are under way: what is found there is soon not worth the search.
const maxPassed = 4096

// fill takes up to limit events that fit and may go beside the calls under way, in the
// order they wait. It returns what remains. finish must follow before any of the
// flushes leaves.
func (b *batch) fill(t Target, queue []item, limit int, flying []*batch) []item {
	b.refs, b.size, b.full, b.passed, b.most = b.refs[:0], 0, false, 0, limit
	rest := queue[:0]
	for _, it := range queue {
		if !b.full {
			it.events = b.draw(t, it, flying)
		}
		if len(it.events) > 0 {
			rest = append(rest, it)
		}
	}
	clear(queue[len(rest):])
	return rest
}

// beside reports whether an event of this time may go while the calls are under way:
// none of them carries events of its time, nor of both sides of it.
func beside(at int64, flying []*batch) bool {
	for _, f := range flying {
		if at >= f.low && at <= f.high {
			return false
		}
	}
	return true
}

// draw takes what fits from one item and returns what it leaves. An event too far
// in time from the others is left for the next batch, and does not end this one:
// times that alternate would make a call for each event.
func (b *batch) draw(t Target, it item, flying []*batch) (rest []int32) {
	p := it.p
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.here(it.events[0], t) {
		return nil // its flush left or gave up, and takes the item away in a moment
	}
	rest = it.events[:0]
	for n, i := range it.events {
		if p.state[i] != queued {
			continue
		}
		at, message := p.look(i)
		if !beside(at, flying) {
			if b.passed++; b.passed > maxPassed {
				b.full = true
				return append(rest, it.events[n:]...)
			}
			rest = append(rest, i)
			continue
		}
		need := len(message) + EventOverhead
		if len(b.refs) == 0 {
			b.low, b.high = at, at
		}
		if most := p.found[i].most; most > 0 {
			b.most = min(b.most, most)
		}
		if b.full = len(b.refs) > 0 && (b.size+need > MaxBatchBytes || len(b.refs) >= b.most); b.full {
			return append(rest, it.events[n:]...)
		}
		if max(b.high, at)-min(b.low, at) > MaxBatchSpan {
			rest = append(rest, i)
			continue
		}
		b.low, b.high = min(b.low, at), max(b.high, at)
		b.refs = append(b.refs, ref{timestamp: at, p: p, index: i, size: int32(len(message)), seq: int32(len(b.refs)), message: message})
		b.size += need
		p.move(i, inFlight)
	}
	return rest
}

// finish sorts the events by time and encodes the body. From then on the batch needs
// no flush's memory.
func (b *batch) finish(t Target) {
	if len(b.refs) == 0 {
		return
	}
	slices.SortStableFunc(b.refs, func(x, y ref) int { return cmp.Compare(x.timestamp, y.timestamp) })
	b.encode(t)
}

// encode writes the body: the JSON of PutLogEventsInput.
func (b *batch) encode(t Target) {
	b.json = jsonPool.Get().(*[]byte)
	out := append((*b.json)[:0], `{"logGroupName":`...)
	out = chunk.AppendString(out, []byte(t.Group))
	out = append(out, `,"logStreamName":`...)
	out = chunk.AppendString(out, []byte(t.Stream))
	out = append(out, `,"logEvents":[`...)
	for i := range b.refs {
		if i > 0 {
			out = append(out, ',')
		}
		r := &b.refs[i]
		out = append(out, `{"timestamp":`...)
		out = strconv.AppendInt(out, r.timestamp, 10)
		out = append(out, `,"message":`...)
		out = chunk.AppendString(out, r.message)
		out = append(out, '}')
		r.message = nil // the flush's memory
	}
	*b.json = append(out, ']', '}')
}

// body is what goes on the wire, once for each batch. It is valid until release, or until
// the batch is filled again.
func (b *batch) body(compress bool) (awsclient.Body, error) {
	if !compress {
		return awsclient.Body{Bytes: *b.json}, nil
	}
	defer b.release()
	b.gzip.Reset()
	zip := zipPool.Get().(*gzip.Writer)
	defer zipPool.Put(zip)
	zip.Reset(&b.gzip)
	_, err := zip.Write(*b.json)
	if err == nil {
		err = zip.Close()
	}
	if err != nil {
		return awsclient.Body{}, fmt.Errorf("failed to compress a batch: %w", err)
	}
	return awsclient.Body{Bytes: b.gzip.Bytes(), Gzip: true}, nil
}
