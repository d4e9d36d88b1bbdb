package main

import (
	"fmt"
	"math/rand/v2"
	"os"
	"sync"
	"time"

	"github.com/eks-tenant-logs/eks-tenant-logs/e2e/node"
	"github.com/eks-tenant-logs/eks-tenant-logs/internal/fakeaws"
)

// trouble causes one fault after the other: each for some seconds, with a pause after it.
type trouble struct {
	faults  *fakeaws.Faults
	gate    *node.Gate
	rng     *rand.Rand
	tenants int

	mu   sync.Mutex
	now  string
	sums map[string]int
}

const (
	shortest, longest = 3 * time.Second, 12 * time.Second
	pause             = 4 * time.Second
)

// kinds are what can go wrong: each says how to begin it, and how to end it.
func (x *trouble) kinds() []kind {
	fault := func(name string, f func() fakeaws.Fault) kind {
		return kind{name, func() error { x.faults.Set(name, f()); return nil }, func() error { x.faults.Clear(name); return nil }}
	}
	tenant := func() string { return fmt.Sprint("/eks/tenants/t", x.rng.IntN(x.tenants)) }
	share := func(most int, answer error) func() fakeaws.Fault {
		return func() fakeaws.Fault { return fakeaws.Fault{Percent: 1 + x.rng.IntN(most), Answer: answer} }
	}
	own := func(answer error) func() fakeaws.Fault {
		return func() fakeaws.Fault { return fakeaws.Fault{LogGroup: tenant(), Answer: answer} }
	}
	gate := func(way node.Way) kind {
		return kind{"gate " + string(way), func() error { return x.gate.Set(way) }, func() error { return x.gate.Set(node.Open) }}
	}
	return []kind{
		fault("throttled", share(40, fakeaws.Throttled)),
		fault("5xx", share(40, fakeaws.Unavailable)),
		fault("reset", share(20, fakeaws.ErrConnectionReset)),
		fault("answer lost", share(10, fakeaws.ErrAnswerLost)),
		fault("slow", func() fakeaws.Fault {
			return fakeaws.Fault{Percent: 30, Latency: time.Duration(x.rng.IntN(1000)) * time.Millisecond}
		}),
		fault("one denied", own(fakeaws.Denied)),
		fault("one throttled", own(fakeaws.Throttled)),
		fault("one hangs", own(fakeaws.ErrHang)),
		gate(node.Refused), gate(node.Silent), gate(node.Wrong),
	}
}

type kind struct {
	name       string
	begin, end func() error
}

func (x *trouble) cause(stop <-chan struct{}) {
	kinds := x.kinds()
	x.sums = map[string]int{}
	sleep := func(d time.Duration) bool {
		select {
		case <-stop:
			return false
		case <-time.After(d):
			return true
		}
	}
	for sleep(pause) {
		k := kinds[x.rng.IntN(len(kinds))]
		x.set(k.name)
		if err := k.begin(); err != nil {
			fmt.Fprintln(os.Stderr, "make soak:", k.name, err)
		}
		sleep(shortest + rand.N(longest-shortest))
		if err := k.end(); err != nil {
			fmt.Fprintln(os.Stderr, "make soak:", k.name, err)
		}
		x.set("")
	}
}

func (x *trouble) set(name string) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.now = name; name != "" {
		x.sums[name]++
	}
}

func (x *trouble) present() string {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.now
}

func (x *trouble) caused() map[string]int {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.sums
}
