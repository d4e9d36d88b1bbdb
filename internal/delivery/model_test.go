package delivery

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/klauspost/compress/gzip"
	"pgregory.net/rapid"

	"github.com/eks-tenant-logs/eks-tenant-logs/internal/awsclient"
	"github.com/eks-tenant-logs/eks-tenant-logs/internal/chunk"
)

// The model: some of Fluent Bit's workers, each with its queue of chunks, before a
// CloudWatch that fails in every way, in virtual time. A process may end at any moment, in
// good order or not, and the next one goes on. What must hold is checked at every step:
//
//   - a flush says OK only when every event of its chunk was accepted, at home or in quarantine;
//   - an event whose acceptance was seen is not sent again, but by a process that was not
//     told of it (a kill, or calls that outlast Close);
//   - every flush returns within its time;
//   - what is sent is what the chunk said: no flush's memory is read after it returned;
//   - in the end everything has arrived.
type model struct {
	t    *rapid.T
	rng  *rand.Rand
	mu   sync.Mutex
	file string
	// inFlight is Config.MaxInFlight, streams those that are there.
	inFlight int
	patience time.Duration
	streams  map[Target]bool

	faults  faults
	chunks  []*modelChunk
	seen    map[string]int // acceptances of which the process knows, by event
	arrived map[string]int
	unsure  map[string]bool // accepted, and the answer lost, or its process killed
	wrong   []string
	counts  counts
}

// counts are what happened in a run: a model in which nothing does proves nothing.
type counts struct{ ok, retry, stalled, down, quarantined, lost, restarts, kills, invalid, created int }

func (c *counts) add(more counts) {
	c.ok += more.ok
	c.retry += more.retry
	c.stalled += more.stalled
	c.down += more.down
	c.quarantined += more.quarantined
	c.lost += more.lost
	c.restarts += more.restarts
	c.kills += more.kills
	c.invalid += more.invalid
	c.created += more.created
}

// faults are percentages of calls, for each tenant its own and for all.
type faults struct {
	until                                        time.Duration
	throttled, network, refused, hang, lost, old int
	missing, poison, create                      int      // streams that are gone, events that are invalid, creations that fail
	slow                                         int      // the most that any answer takes longer, in ms: also after until
	tenants                                      []string // what is wrong with each: "", hang, denied, throttled
	down                                         [2]time.Duration
}

type modelChunk struct {
	number  int
	tenants []int // by destination
	times   []int64
	dest    []int
	done    bool
}

func (m *model) roll(n int) int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.rng.IntN(n)
}

func (m *model) percent(p int) bool { return p > 0 && m.roll(100) < p }

func (m *model) broken(format string, args ...any) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.wrong) < 5 {
		m.wrong = append(m.wrong, fmt.Sprintf(format, args...))
	}
}

func (c *modelChunk) event(i int) string { return fmt.Sprintf("<%d.%d>", c.number, i) }

func (c *modelChunk) events() *chunk.Events {
	ev := makeEvents(c.times, c.event)
	for i := range ev.List {
		ev.List[i].Dest = c.dest[i]
	}
	return ev
}

// process is one life of the plugin.
type process struct {
	m     *model
	d     *Deliverer
	began time.Time
	dead  bool // what it learns from here on it can tell nobody
}

func tenantGroup(n int) string { return fmt.Sprint("/eks/tenants/t", n) }

func (p *process) fault(group string) string {
	for n, what := range p.m.faults.tenants {
		if group == tenantGroup(n) {
			return what
		}
	}
	return ""
}

// Put is CloudWatch.
func (p *process) Put(ctx context.Context, t Target, body awsclient.Body, _ int) (rejected awsclient.Rejected, err error) {
	m := p.m
	if err := sleep(ctx, time.Duration(5+m.roll(60+m.faults.slow))*time.Millisecond); err != nil {
		return rejected, err
	}
	passed := time.Since(modelEpoch)
	if passed < m.faults.until {
		if passed > m.faults.down[0] && passed < m.faults.down[1] {
			return rejected, errors.New("connection refused")
		}
		switch p.fault(t.Group) {
		case "hang":
			<-ctx.Done()
			return rejected, ctx.Err()
		case "denied":
			return rejected, apiError("AccessDeniedException")
		case "throttled":
			return rejected, apiError("ThrottlingException")
		}
		switch {
		case m.percent(m.faults.throttled):
			return rejected, apiError("ThrottlingException")
		case m.percent(m.faults.network):
			return rejected, errors.New("connection reset by peer")
		case m.percent(m.faults.refused):
			return rejected, apiError("AccessDeniedException")
		case m.percent(m.faults.hang):
			<-ctx.Done()
			return rejected, ctx.Err()
		}
	}
	if !m.exists(t, passed) {
		return rejected, apiError("ResourceNotFoundException")
	}
	events := decodeBody(m, body)
	if slices.ContainsFunc(events, m.invalid) {
		m.mu.Lock()
		m.counts.invalid++
		m.mu.Unlock()
		return rejected, apiError("InvalidParameterException")
	}
	if passed < m.faults.until && m.percent(m.faults.old) {
		rejected.Old = m.roll(len(events) + 1)
	}
	lost := passed < m.faults.until && m.percent(m.faults.lost)
	m.mu.Lock()
	for _, e := range events[rejected.Old:] {
		key := id(e)
		if m.seen[key] > 0 && !m.unsure[key] {
			m.mu.Unlock()
			m.broken("%s was sent again although its acceptance had been seen", key)
			m.mu.Lock()
		}
		m.arrived[key]++
		if lost || p.dead {
			m.unsure[key] = true
			m.counts.lost++
			continue
		}
		m.seen[key]++
	}
	m.mu.Unlock()
	if lost {
		return rejected, errors.New("unexpected EOF")
	}
	return rejected, nil
}

func sleep(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}

func decodeBody(m *model, body awsclient.Body) (messages []string) {
	raw := body.Bytes
	if body.Gzip {
		z, err := gzip.NewReader(bytes.NewReader(raw))
		if err == nil {
			raw, err = io.ReadAll(z)
		}
		if err != nil {
			m.broken("body: %v", err)
		}
	}
	var p put
	if err := json.Unmarshal(raw, &p); err != nil {
		m.broken("body: %v", err)
	}
	for _, e := range p.Events {
		messages = append(messages, e.Message)
	}
	return messages
}

// exists reports whether a stream is there. While there are faults it may be deleted.
func (m *model) exists(t Target, passed time.Duration) bool {
	gone := passed < m.faults.until && m.percent(m.faults.missing)
	m.mu.Lock()
	defer m.mu.Unlock()
	if gone {
		delete(m.streams, t)
	}
	return m.streams[t]
}

// invalid reports whether CloudWatch refuses an event: some, until they are in an envelope.
func (m *model) invalid(message string) bool {
	if m.faults.poison == 0 || strings.Contains(message, "_tenantlogs") {
		return false
	}
	h := fnv.New32a()
	h.Write([]byte(message))
	return int(h.Sum32()%100) < m.faults.poison
}

// EnsureStream is slow, as CreateLogStream is throttled, and fails at times.
func (p *process) EnsureStream(ctx context.Context, t Target) error {
	m := p.m
	if err := sleep(ctx, time.Duration(5+m.roll(60+4*m.faults.slow))*time.Millisecond); err != nil {
		return err
	}
	if time.Since(modelEpoch) < m.faults.until && m.percent(m.faults.create) {
		codes := []string{"ThrottlingException", "ServiceUnavailableException", "AccessDeniedException", "OperationAbortedException"}
		return apiError(codes[m.roll(len(codes))])
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.counts.created++
	m.streams[t] = true
	return nil
}

// targets are where a chunk goes at the moment: what output does with the breaker.
func (p *process) targets(c *modelChunk) (targets []Target) {
	for n, tenant := range c.tenants {
		t := Target{Group: tenantGroup(tenant), Stream: fmt.Sprint("s", n%2)}
		if _, open := p.d.Breaker().Open(t); open {
			t.Group = fmt.Sprint("/eks/quarantine/t", tenant)
			p.m.mu.Lock()
			p.m.counts.quarantined++
			p.m.mu.Unlock()
		}
		targets = append(targets, t)
	}
	return targets
}

const (
	modelTimeout = 20 * time.Second
	// modelPatience is long after every fault is over.
	modelPatience = time.Hour
)

// flush is one of Fluent Bit's: it reports whether the chunk is done.
func (p *process) flush(c *modelChunk) bool {
	m := p.m
	ev := c.events()
	ctx, cancel := context.WithTimeout(context.Background(), modelTimeout)
	defer cancel()
	began := time.Now()
	err := p.d.Deliver(ctx, Key{byte(c.number), byte(c.number >> 8)}, ev, p.targets(c))
	if took := time.Since(began); took > modelTimeout {
		m.broken("a flush took %v", took)
	}
	for i := range ev.Arena {
		ev.Arena[i] = 'Z' // Fluent Bit's again: an event that shows this was read too late
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	switch {
	case errors.Is(err, ErrStalled):
		m.counts.stalled++
	case errors.Is(err, ErrDown):
		m.counts.down++
	}
	if err != nil {
		if !namesCause(err) {
			m.wrong = append(m.wrong, "a flush left without a cause: "+err.Error())
		}
		m.counts.retry++
		return false
	}
	m.counts.ok++
	for i := range c.times {
		if m.arrived[c.event(i)] == 0 {
			m.wrong = append(m.wrong, fmt.Sprintf("OK for chunk %d, but event %d has not arrived", c.number, i))
		}
	}
	return true
}

// live runs a process until every chunk is done, or for a while: then it ends in good
// order, or is killed.
func (m *model) live(workers int, ends time.Duration, kill bool) {
	p := &process{m: m, began: time.Now()}
	p.d = New(p, Config{Log: quiet, MaxInFlight: m.inFlight, Patience: m.patience})
	if _, err := p.d.Restore(m.file, "model"); err != nil {
		m.broken("restore: %v", err)
	}
	stop := make(chan struct{})
	queues := make([][]*modelChunk, workers)
	n := 0
	for _, c := range m.chunks {
		if !c.done {
			queues[n%workers] = append(queues[n%workers], c)
			n++
		}
	}
	var wg sync.WaitGroup
	for _, queue := range queues {
		wg.Go(func() {
			for len(queue) > 0 {
				c := queue[0]
				queue = queue[1:]
				select {
				case <-stop:
					return
				default:
				}
				if c.done = p.flush(c); !c.done {
					queue = append(queue, c)
					select { // Fluent Bit's scheduler waits before it brings a chunk again
					case <-time.After(time.Duration(500+m.roll(4000)) * time.Millisecond):
					case <-stop:
						return
					}
				}
			}
		})
	}
	finished := make(chan struct{})
	go func() { wg.Wait(); close(finished) }()
	end := time.After(modelPatience)
	if ends > 0 {
		end = time.After(ends)
	}
	select {
	case <-finished:
	case <-end:
		if ends == 0 {
			m.broken("after %v some chunks are still not done", modelPatience)
		}
	}
	close(stop)
	if kill {
		// Nobody hears of what is accepted from now on.
		m.mu.Lock()
		m.counts.kills++
		p.dead = true
		for key := range m.seen {
			m.unsure[key] = true // known to the dead alone
		}
		m.mu.Unlock()
	}
	<-finished
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second) // longer than any call
	defer cancel()
	p.d.Close(ctx)
	sketches := 0
	for _, n := range p.d.ledger.sketches {
		sketches += n
	}
	if sketches != p.d.ledger.size {
		m.broken("%d sketches of %d entries", sketches, p.d.ledger.size)
	}
	if !kill {
		m.counts.restarts++
		if _, err := p.d.Save(m.file, "model"); err != nil {
			m.broken("save: %v", err)
		}
	}
}

var modelEpoch time.Time

func TestModelOfWorkersAndFaults(t *testing.T) {
	dir := t.TempDir()
	runs := 0
	var sum counts
	rapid.Check(t, func(rt *rapid.T) {
		runs++
		m := &model{t: rt, file: filepath.Join(dir, fmt.Sprint(runs)), seen: map[string]int{}, arrived: map[string]int{}, unsure: map[string]bool{}, streams: map[Target]bool{}}
		m.rng = rand.New(rand.NewPCG(rapid.Uint64().Draw(rt, "seed"), 7))
		percent := func(name string, most int) int { return rapid.IntRange(0, most).Draw(rt, name) }
		m.faults = faults{
			until:     time.Duration(rapid.IntRange(0, 120).Draw(rt, "seconds of faults")) * time.Second,
			throttled: percent("throttled", 60), network: percent("network", 40), refused: percent("refused", 20),
			hang: percent("hang", 15), lost: percent("lost", 10), old: percent("old", 10),
			missing: percent("missing", 10), poison: percent("poison", 10), create: percent("creations that fail", 50),
			slow: rapid.SampledFrom([]int{0, 0, 500, 4000}).Draw(rt, "slow"),
		}
		m.inFlight = rapid.SampledFrom([]int{1, 2, 8, 32}).Draw(rt, "calls in flight")
		m.patience = rapid.SampledFrom([]time.Duration{0, 100 * time.Millisecond, 10 * time.Second}).Draw(rt, "patience")
		if rapid.Bool().Draw(rt, "outage") {
			m.faults.down[0] = time.Duration(rapid.IntRange(0, 30).Draw(rt, "down at")) * time.Second
			m.faults.down[1] = m.faults.down[0] + time.Duration(rapid.IntRange(1, 60).Draw(rt, "down for"))*time.Second
		}
		tenants := rapid.IntRange(1, 5).Draw(rt, "tenants")
		for range tenants {
			m.faults.tenants = append(m.faults.tenants, rapid.SampledFrom([]string{"", "", "hang", "denied", "throttled"}).Draw(rt, "tenant's fault"))
		}
		for n := range rapid.IntRange(1, 25).Draw(rt, "chunks") {
			c := &modelChunk{number: n, tenants: []int{m.rng.IntN(tenants)}}
			if m.rng.IntN(4) == 0 { // identity record: many destinations in one chunk
				c.tenants = m.rng.Perm(tenants)
			}
			for range 1 + m.rng.IntN(12) {
				c.times = append(c.times, int64(1000+m.rng.IntN(5)))
				c.dest = append(c.dest, m.rng.IntN(len(c.tenants)))
			}
			m.chunks = append(m.chunks, c)
		}
		lives := rapid.IntRange(0, 2).Draw(rt, "lives that end early")
		workers := rapid.IntRange(1, 16).Draw(rt, "workers")
		synctest.Test(t, func(*testing.T) {
			modelEpoch = time.Now()
			for range lives {
				m.live(workers, time.Duration(1+m.rng.IntN(40))*time.Second, m.rng.IntN(2) == 0)
			}
			m.live(workers, 0, false)
		})
		m.check(rt)
		sum.add(m.counts)
	})
	t.Logf("%d runs: %+v", runs, sum)
	if !t.Failed() && (sum.stalled == 0 || sum.down == 0 || sum.quarantined == 0 || sum.lost == 0 || sum.kills == 0 || sum.invalid == 0 || sum.created == 0) {
		t.Errorf("something never happened: %+v", sum)
	}
}

func (m *model) check(rt *rapid.T) {
	for _, c := range m.chunks {
		for i := range c.times {
			key := c.event(i)
			if n := m.arrived[key]; n == 0 || n > 1 && !m.unsure[key] {
				m.broken("%s arrived %d times", key, n)
			}
			delete(m.arrived, key)
		}
	}
	for key := range m.arrived {
		m.broken("%q arrived, and nobody sent it", key)
	}
	if len(m.wrong) > 0 {
		slices.Sort(m.wrong)
		rt.Fatalf("%v\nfaults %+v\ncounts %+v", m.wrong, m.faults, m.counts)
	}
}
