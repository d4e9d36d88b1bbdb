package fakeaws

import (
	"cmp"
	"slices"
	"sort"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// group is one log group. Its fields are guarded by Server.mu, but for stored.
type group struct {
	name       string
	class      string
	kmsKey     string
	created    time.Time
	retention  int64 // days; 0 means that events never expire
	protected  bool
	bearer     bool // open to bearer tokens
	tags       map[string]string
	streams    map[string]*stream
	stored     atomic.Int64 // bytes, as PutLogEvents counts them
	eventCount atomic.Int64
}

// accountRetention is an account-level retention policy.
type accountRetention struct {
	name string // empty: there is none
	days int64  // 0 means that events never expire
}

// SetAccountRetention puts an account-level retention policy in force: it wins over
// what groups have set, which they keep; days 0 means for ever. An empty name removes
// it.
func (s *Server) SetAccountRetention(name string, days int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.home.retention = accountRetention{name, int64(days)}
}

// effectiveRetention is how many days a group's events live, 0 meaning for ever, and the
// account-level policy that says so, if one does. The caller holds the server's lock.
func (s *account) effectiveRetention(g *group) (days int64, policy string) {
	switch {
	case g.class == classDelivery: // no account-level policy reaches it
		return 1, ""
	case s.retention.name != "":
		return s.retention.days, s.retention.name
	}
	return g.retention, ""
}

// stream is one log stream. name and created never change; mu guards the rest.
type stream struct {
	name    string
	created time.Time

	mu       sync.Mutex
	batches  []batch
	order    []ref // sorted by key, for reading; covers the first ordered batches
	ordered  int
	firstTS  int64
	lastTS   int64
	ingested int64 // ms, of the last batch
	events   int
	bytes    int64
}

// batch is what one PutLogEvents brought. It is never changed once stored.
type batch struct {
	text     []byte
	records  []record
	base     uint64 // arrival number of the first record, unique in the server
	ingested int64  // ms
}

// record is one event: its time in ms and where its message lies in the batch's text.
type record struct {
	ts       int64
	off, len uint32
}

func (b *batch) message(i int) string {
	r := b.records[i]
	return string(b.text[r.off : r.off+r.len])
}

// ref names a record of a stream.
type ref struct {
	ts           int64
	batch, index int32
}

// key is the order in which events are read: timestamp, then arrival.
type key struct {
	ts  int64
	seq uint64
}

func (k key) compare(o key) int {
	if c := cmp.Compare(k.ts, o.ts); c != 0 {
		return c
	}
	return cmp.Compare(k.seq, o.seq)
}

// append stores a batch that is sorted by time and not empty.
func (st *stream) append(b batch, bytes int64) {
	st.mu.Lock()
	defer st.mu.Unlock()
	first, last := b.records[0].ts, b.records[len(b.records)-1].ts
	if st.events == 0 || first < st.firstTS {
		st.firstTS = first
	}
	if st.events == 0 || last > st.lastTS {
		st.lastTS = last
	}
	st.ingested = b.ingested
	st.events += len(b.records)
	st.bytes += bytes
	if b.text != nil {
		st.batches = append(st.batches, b)
	}
}

// view is a stream as it was at one moment, sorted for reading.
type view struct {
	name    string
	batches []batch
	order   []ref
}

// view sorts what has come since the last reading and returns everything.
func (st *stream) view() view {
	st.mu.Lock()
	defer st.mu.Unlock()
	if st.ordered < len(st.batches) {
		// Earlier views share st.order's array: appending behind their end is safe, sorting in place is not.
		order, sorted := st.order, true
		for ; st.ordered < len(st.batches); st.ordered++ {
			for i, r := range st.batches[st.ordered].records {
				sorted = sorted && (len(order) == 0 || order[len(order)-1].ts <= r.ts)
				order = append(order, ref{r.ts, int32(st.ordered), int32(i)})
			}
		}
		if !sorted {
			order = slices.Clone(order)
			slices.SortStableFunc(order, func(x, y ref) int {
				if c := cmp.Compare(x.ts, y.ts); c != 0 {
					return c
				}
				return cmp.Compare(st.batches[x.batch].base+uint64(x.index), st.batches[y.batch].base+uint64(y.index))
			})
		}
		st.order = order
	}
	return view{st.name, st.batches, st.order}
}

// visible is what of a view may be read by now.
func (s *Server) visible(v view) view {
	if s.cfg.ReadDelay <= 0 {
		return v
	}
	newest := millis(s.now().Add(-s.cfg.ReadDelay))
	v.order = slices.DeleteFunc(slices.Clone(v.order), func(r ref) bool { return v.batches[r.batch].ingested > newest })
	return v
}

func (v *view) key(i int) key {
	r := v.order[i]
	return key{r.ts, v.batches[r.batch].base + uint64(r.index)}
}

// after returns the index of the first event whose key is greater than k.
func (v *view) after(k key) int {
	return sort.Search(len(v.order), func(i int) bool { return v.key(i).compare(k) > 0 })
}

// from returns the index of the first event at or after ts.
func (v *view) from(ts int64) int {
	return sort.Search(len(v.order), func(i int) bool { return v.order[i].ts >= ts })
}

// event returns the i-th event in reading order.
func (v *view) event(i int) (b *batch, index int) {
	r := v.order[i]
	return &v.batches[r.batch], int(r.index)
}

// lookup finds a group, and a stream in it unless streamName is empty.
func (s *account) lookup(groupName, streamName string) (*group, *stream, *APIError) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	g := s.groups[groupName]
	if g == nil {
		return nil, nil, groupNotFound()
	}
	if streamName == "" {
		return g, nil, nil
	}
	st := g.streams[streamName]
	if st == nil {
		return g, nil, streamNotFound()
	}
	return g, st, nil
}

// arnPrefix is what the ARN of every log group here begins with.
func (s *account) arnPrefix() string {
	return "arn:" + s.cfg.Partition + ":logs:" + s.cfg.Region + ":" + s.id + ":log-group:"
}

func (s *account) groupARN(name string) string { return s.arnPrefix() + name }

// groupOf returns the group that an identifier, a name or an ARN, names. Groups of other accounts and regions do not exist here.
func (s *account) groupOf(identifier string) (string, *APIError) {
	if !strings.HasPrefix(identifier, "arn:") {
		return identifier, nil
	}
	if strings.HasSuffix(identifier, "*") {
		return "", invalidParameter("The ARN can't end with an asterisk (*).")
	}
	name, ok := strings.CutPrefix(identifier, s.arnPrefix())
	if !ok {
		return "", groupNotFound()
	}
	return name, nil
}

func millis(t time.Time) int64 { return t.UnixMilli() }
