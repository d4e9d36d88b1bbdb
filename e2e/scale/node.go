package scale

import (
	"context"
	"encoding/binary"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/eks-tenant-logs/eks-tenant-logs/internal/chunk"
	"github.com/eks-tenant-logs/eks-tenant-logs/internal/delivery"
	"github.com/eks-tenant-logs/eks-tenant-logs/internal/loggroup"
)

// What Fluent Bit does on every node (src/flb_scheduler.c, flb_task.c, flb_output_thread.c).
const (
	// maxTasks is how many chunks may be under way or wait for a retry; what comes beyond
	// them stays in its input's chunk, which grows.
	maxTasks = 2048
	// The pause before a retry is random, from retryBase to the smaller of retryCap and
	// retryBase doubled with each try.
	retryBase = 5 * time.Second
	retryCap  = 60 * time.Second
)

func retryPause(tries int) time.Duration {
	most := min(retryCap, retryBase<<min(tries, 10))
	return retryBase + rand.N(most-retryBase+1)
}

// pod is what writes into one file.
type pod struct {
	id      int
	targets []delivery.Target // one
	chunks  int               // made so far
	from    time.Time         // of the first line that is in no chunk
}

// lines is one of Fluent Bit's chunks: the lines of a pod between two moments.
type lines struct {
	pod      *pod
	chunk    int
	from, to time.Time
	tries    int
}

func (c *lines) key() (k delivery.Key) {
	binary.LittleEndian.PutUint64(k[:], uint64(c.pod.id))
	binary.LittleEndian.PutUint64(k[8:], uint64(c.chunk))
	return k
}

// node is one node: a Fluent Bit with the plugin's delivery and log groups in it.
type node struct {
	sim *Simulation

	mu      sync.Mutex
	pods    []*pod
	tasks   int
	next    int // the worker that gets the next chunk
	workers []*worker

	plugin *plugin
}

// worker is one of Fluent Bit's output threads: its chunks wait for it and no other.
type worker struct {
	wake  chan struct{}
	queue []*lines // guarded by the node
}

// plugin is one process's part: made and wired as internal/output does it.
type plugin struct {
	queue  *delivery.Deliverer
	groups *loggroup.Keeper
	ctx    context.Context
	cancel context.CancelFunc
	leave  chan struct{}
	gone   sync.WaitGroup
}

func (n *node) start() {
	sc := n.sim.Scenario
	log := slog.New(slog.DiscardHandler)
	api := newClient(n.sim.account)
	p := &plugin{leave: make(chan struct{})}
	p.groups = loggroup.NewKeeper(api, loggroup.Config{
		Create: true, Log: log, Delay: func() time.Duration { return rand.N(sc.RetentionCheckDelay + 1) },
	})
	p.queue = delivery.New(logs{n.sim.account, p.groups}, delivery.Config{
		Log: log, MaxInFlight: sc.MaxInFlight,
		Tripped: func(_ delivery.Target, open bool) {
			if open {
				n.sim.trips.Add(1)
			}
		},
	})
	p.ctx, p.cancel = context.WithCancel(context.Background())
	n.mu.Lock()
	n.plugin = p
	n.mu.Unlock()
	for _, w := range n.workers {
		p.gone.Go(func() { n.work(p, w) })
	}
}

// stop lets the flushes that run end, unless now, and ends the process. What waits stays
// in Fluent Bit's storage.
func (p *plugin) stop(now bool) {
	close(p.leave)
	if now {
		p.cancel()
	}
	p.gone.Wait()
	p.cancel()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	p.queue.Close(ctx)
	p.groups.Close()
}

// tick turns what was written since the last one into chunks, as Fluent Bit's `flush`.
func (n *node) tick(now time.Time) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, p := range n.pods {
		if n.tasks == maxTasks {
			n.sim.full.Add(1)
			continue
		}
		n.tasks++
		n.assign(&lines{pod: p, chunk: p.chunks, from: p.from, to: now})
		p.chunks++
		p.from = now
	}
}

// assign gives a chunk to the next worker in turn. The caller holds the lock.
func (n *node) assign(c *lines) {
	w := n.workers[n.next%len(n.workers)]
	n.next++
	w.queue = append(w.queue, c)
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

func (n *node) take(w *worker) *lines {
	n.mu.Lock()
	defer n.mu.Unlock()
	if len(w.queue) == 0 {
		return nil
	}
	c := w.queue[0]
	w.queue[0] = nil
	w.queue = w.queue[1:]
	return c
}

// work is a worker's loop.
func (n *node) work(p *plugin, w *worker) {
	var ev chunk.Events
	for {
		select {
		case <-p.leave:
			return
		default:
		}
		if c := n.take(w); c != nil {
			n.flush(p, c, &ev)
			continue
		}
		select {
		case <-p.leave:
			return
		case <-w.wake:
		}
	}
}

// flush is output.Instance's Flush after decoding.
func (n *node) flush(p *plugin, c *lines, ev *chunk.Events) {
	events(ev, c)
	began := time.Now()
	ctx, cancel := context.WithTimeout(p.ctx, n.sim.Scenario.FlushTimeout)
	err := p.queue.Deliver(ctx, c.key(), ev, c.pod.targets)
	cancel()
	now := time.Now()
	n.sim.flushed(c, began, now, err)
	if err != nil {
		c.tries++
		time.AfterFunc(retryPause(c.tries), func() {
			n.mu.Lock()
			defer n.mu.Unlock()
			n.assign(c)
		})
		return
	}
	p.groups.Used(spec(c.pod.targets[0].Group))
	n.mu.Lock()
	defer n.mu.Unlock()
	n.tasks--
}

// events makes the events that stand for a chunk.
func events(ev *chunk.Events, c *lines) {
	ev.Arena, ev.List = ev.Arena[:0], ev.List[:0]
	for part := range eventsAChunk {
		at := c.from.UnixMilli()
		if part > 0 {
			at = c.to.UnixMilli() - 1
		}
		from := len(ev.Arena)
		ev.Arena = message(ev.Arena, c.pod.id, c.chunk, part)
		ev.List = append(ev.List, chunk.Event{Timestamp: at, From: from, To: len(ev.Arena), Record: part})
	}
}
