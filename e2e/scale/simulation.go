// Package scale runs the delivery and the log groups of a whole cluster, a thousand nodes
// of them, against a model of one AWS account's quotas, in the virtual time of
// testing/synctest. What is real and what is a model is said in docs/scaling.md.
package scale

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/eks-tenant-logs/eks-tenant-logs/internal/delivery"
)

// Kind is what happens.
type Kind string

// What happens.
const (
	// Fresh: all nodes start at once, and no group is there.
	Fresh Kind = "new account"
	// Restart: all nodes start at once; groups and streams are there.
	Restart Kind = "restart"
	// Rolling: groups and streams are there; a share of the nodes at a time restarts, and
	// the pods on them are replaced by new ones.
	Rolling Kind = "rolling"
)

// Scenario is one run. A field that is 0 has the default of its comment.
type Scenario struct {
	Kind                 Kind
	Nodes, Pods, Tenants int // pods a node; 30 and 200
	// TenantsANode is how many tenants a node's pods are of; 0 means that each pod is of
	// any tenant, by chance.
	TenantsANode int
	// PerNode names streams by node instead of by pod.
	PerNode bool
	Flush   time.Duration // Fluent Bit's; 1 s
	// GroupAge is how old groups are that are there; 30 days.
	GroupAge time.Duration
	// Duration is for how long lines are written. With Finish it ends as soon as all
	// groups are ready and every pod was heard of, but not before Settle.
	Duration, Settle time.Duration
	Finish           bool
	// Drain waits after that until everything is delivered.
	Drain bool
	// RollEvery is when the next tenth of the nodes rolls; 1 min.
	RollEvery time.Duration
	Rolls     int // how many tenths roll; 10

	RetentionCheckDelay time.Duration // 5 min
	MaxInFlight         int           // 32
	FlushTimeout        time.Duration // 60 s
	Workers             int           // 4
	Quotas              Quotas        // DefaultQuotas
}

func (s Scenario) withDefaults() Scenario {
	set(&s.Pods, 30)
	set(&s.Tenants, 200)
	set(&s.Flush, time.Second)
	set(&s.GroupAge, 30*24*time.Hour)
	set(&s.RollEvery, time.Minute)
	set(&s.Rolls, 10)
	set(&s.RetentionCheckDelay, 5*time.Minute)
	set(&s.MaxInFlight, 32)
	set(&s.FlushTimeout, time.Minute)
	set(&s.Workers, 4)
	set(&s.Quotas, DefaultQuotas)
	return s
}

func set[T comparable](v *T, otherwise T) {
	var zero T
	if *v == zero {
		*v = otherwise
	}
}

// Simulation is a cluster at work.
type Simulation struct {
	Scenario Scenario
	account  *Account
	nodes    []*node
	began    time.Time
	born     []time.Time // by pod
	pods     []*pod
	ended    chan struct{} // no lines are written any more
	tickers  sync.WaitGroup

	stopping                             atomic.Bool // flushes are broken off, which is no failure
	trips, full, retries, timeouts, lost atomic.Int64

	mu      sync.Mutex
	longest time.Duration
	delays  []histogram // by minute: from the end of a chunk to its FLB_OK
}

// tenantOf is a pod's tenant, the same in every run.
func (s *Simulation) tenantOf(node, i int) int {
	if of := s.Scenario.TenantsANode; of > 0 {
		return (node*of + i%of) % s.Scenario.Tenants
	}
	return rand.New(rand.NewPCG(uint64(node), uint64(i))).IntN(s.Scenario.Tenants)
}

// newPod puts a pod on a node. The caller holds the simulation's lock.
func (s *Simulation) newPod(node, i int) *pod {
	p := &pod{id: len(s.pods), from: time.Now()}
	t := delivery.Target{Group: fmt.Sprintf("%stenant-%d", groupPrefix, s.tenantOf(node, i)), Stream: fmt.Sprintf("pod-%d", p.id)}
	if s.Scenario.PerNode {
		t.Stream = fmt.Sprintf("node-%d", node)
	}
	p.targets = []delivery.Target{t}
	s.pods = append(s.pods, p)
	s.born = append(s.born, time.Now())
	s.account.mu.Lock()
	defer s.account.mu.Unlock()
	s.account.pods = append(s.account.pods, received{group: t.Group, stream: t.Stream})
	return p
}

func newSimulation(sc Scenario) *Simulation {
	sc = sc.withDefaults()
	s := &Simulation{Scenario: sc, account: newAccount(sc.Quotas), began: time.Now(), ended: make(chan struct{})}
	for n := range sc.Nodes {
		node := &node{sim: s}
		for range sc.Workers {
			node.workers = append(node.workers, &worker{wake: make(chan struct{}, 1)})
		}
		for i := range sc.Pods {
			p := s.newPod(n, i)
			node.pods = append(node.pods, p)
			if sc.Kind != Fresh {
				s.account.add(p.targets[0].Group, sc.GroupAge, days, p.targets[0].Stream)
			}
		}
		s.nodes = append(s.nodes, node)
	}
	return s
}

// Run runs a scenario. It must be called in a bubble of testing/synctest.
func Run(sc Scenario) Result {
	s := newSimulation(sc)
	for _, n := range s.nodes {
		n.start()
		s.tickers.Go(func() { s.write(n) })
	}
	if s.Scenario.Kind == Rolling {
		s.roll()
	}
	for now := time.Duration(0); now < s.Scenario.Duration; now = time.Since(s.began) {
		if s.Scenario.Finish && now >= s.Scenario.Settle && s.finished() {
			break
		}
		time.Sleep(time.Second)
	}
	close(s.ended)
	s.tickers.Wait()
	written := time.Since(s.began)
	if s.Scenario.Drain {
		s.drain()
	}
	s.stopping.Store(true)
	var all sync.WaitGroup
	for _, n := range s.nodes {
		all.Go(func() { n.plugin.stop(true) })
	}
	all.Wait()
	return s.result(written)
}

// write has the pods of a node write, in chunks that Fluent Bit makes at every flush. The
// nodes' clocks are not in step.
func (s *Simulation) write(n *node) {
	wait := rand.N(s.Scenario.Flush)
	for {
		select {
		case <-s.ended:
			return
		case <-time.After(wait):
		}
		wait = s.Scenario.Flush
		n.mu.Lock()
		down := n.plugin == nil
		n.mu.Unlock()
		if !down {
			n.tick(time.Now())
		}
	}
}

// starting is how long a new pod of the DaemonSet takes until it reads on.
const starting = 10 * time.Second

// roll restarts a tenth of the nodes at a time, and replaces their pods.
func (s *Simulation) roll() {
	step := max(1, len(s.nodes)/10)
	var rolling sync.WaitGroup
	for from := 0; from < min(len(s.nodes), s.Scenario.Rolls*step); from += step {
		time.Sleep(s.Scenario.RollEvery)
		for i := from; i < min(from+step, len(s.nodes)); i++ {
			rolling.Go(func() { s.replace(i) })
		}
	}
	rolling.Wait()
}

func (s *Simulation) replace(i int) {
	n := s.nodes[i]
	n.mu.Lock()
	was := n.plugin
	n.plugin = nil
	n.mu.Unlock()
	was.stop(false)
	time.Sleep(starting)
	s.mu.Lock()
	pods := make([]*pod, len(n.pods))
	for k := range pods {
		pods[k] = s.newPod(i, k)
	}
	s.mu.Unlock()
	n.mu.Lock()
	// The last lines of the pods that went.
	for _, p := range n.pods {
		n.tasks++
		n.assign(&lines{pod: p, chunk: p.chunks, from: p.from, to: time.Now()})
		p.chunks++
	}
	n.pods = pods
	n.mu.Unlock()
	n.start()
}

// finished reports whether every group has its retention and is ready, and something of
// every pod has arrived.
func (s *Simulation) finished() bool {
	s.account.mu.Lock()
	defer s.account.mu.Unlock()
	for _, g := range s.account.groups {
		if g.retained.IsZero() || g.ready.IsZero() {
			return false
		}
	}
	for i := range s.account.pods {
		if s.account.pods[i].first.IsZero() {
			return false
		}
	}
	return true
}

// drain waits until every chunk is delivered and the retention of every group confirmed;
// an hour at most.
func (s *Simulation) drain() {
	for end := time.Now().Add(time.Hour); time.Now().Before(end); time.Sleep(time.Second) {
		idle := true
		for _, n := range s.nodes {
			n.mu.Lock()
			idle = idle && n.tasks == 0 && n.plugin.groups.Open() == 0
			n.mu.Unlock()
		}
		if idle {
			return
		}
	}
}

// flushed notes how a flush ended.
func (s *Simulation) flushed(c *lines, began, now time.Time, err error) {
	if err != nil && !s.stopping.Load() {
		s.retries.Add(1)
		if errors.Is(err, delivery.ErrTimeout) {
			s.timeouts.Add(1)
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.longest = max(s.longest, now.Sub(began))
	if err != nil {
		return
	}
	minute := int(now.Sub(s.began) / time.Minute)
	for len(s.delays) <= minute {
		s.delays = append(s.delays, histogram{})
	}
	s.delays[minute].add(now.Sub(c.to))
	s.account.mu.Lock()
	defer s.account.mu.Unlock()
	if !s.account.has(c.pod.id, c.chunk) {
		s.lost.Add(1)
	}
}
