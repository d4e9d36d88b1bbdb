package main

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/eks-tenant-logs/eks-tenant-logs/e2e/node"
)

// writers write numbered lines for every pod at a steady rate, and know which have arrived.
type writers struct {
	settings
	written atomic.Int64
	pods    []*podLines
}

type podLines struct {
	pod node.Pod

	mu      sync.Mutex
	written int
	times   []uint8 // how often each line has arrived, up to 255
	arrived int     // lines that have, once or more
	strange int     // lines that were never written
}

func newWriters(s settings) *writers {
	w := &writers{settings: s}
	for n := range s.pods {
		w.pods = append(w.pods, &podLines{pod: node.Pod{Namespace: fmt.Sprint("tenant-t", n/3), Name: fmt.Sprint("pod-", n), Container: "c"}})
	}
	return w
}

const tick = 200 * time.Millisecond

func (w *writers) start(n *node.Node, stop <-chan struct{}, running *sync.WaitGroup) {
	for i, p := range w.pods {
		running.Go(func() {
			rng := rand.New(rand.NewPCG(w.seed, uint64(i)))
			perTick := float64(w.rate) / float64(len(w.pods)) * tick.Seconds()
			due := rng.Float64() // so that not all write at once
			ticker := time.NewTicker(tick)
			defer ticker.Stop()
			for {
				select {
				case <-stop:
					return
				case now := <-ticker.C:
					due += perTick
					lines := make([]node.Line, int(due))
					due -= float64(len(lines))
					p.mu.Lock()
					first := p.written
					p.written += len(lines)
					p.times = append(p.times, make([]uint8, len(lines))...)
					p.mu.Unlock()
					for k := range lines {
						lines[k] = node.Line{Time: now, Text: fmt.Sprintf("#%d.%d %016x GET /api/v1/orders/%016x 200 %d ms", i, first+k, rng.Uint64(), rng.Uint64(), rng.IntN(1000))}
					}
					w.written.Add(int64(len(lines)))
					if err := n.WriteLines(p.pod, lines...); err != nil {
						fmt.Fprintln(os.Stderr, "make soak: writing lines:", err)
						return
					}
				}
			}
		})
	}
}

// arrived notes an event that CloudWatch accepted.
func (w *writers) arrived(_, _ string, message []byte) {
	at := bytes.IndexByte(message, '#')
	if at < 0 {
		return
	}
	rest := message[at+1:]
	dot, space := bytes.IndexByte(rest, '.'), bytes.IndexByte(rest, ' ')
	if dot < 0 || space < dot {
		return
	}
	pod, err1 := strconv.Atoi(string(rest[:dot]))
	line, err2 := strconv.Atoi(string(rest[dot+1 : space]))
	if err1 != nil || err2 != nil || pod >= len(w.pods) {
		return
	}
	p := w.pods[pod]
	p.mu.Lock()
	defer p.mu.Unlock()
	if line >= p.written {
		p.strange++
		return
	}
	if p.times[line] == 0 {
		p.arrived++
	}
	if p.times[line] < 255 {
		p.times[line]++
	}
}

func (w *writers) count() int64 { return w.written.Load() }

func (w *writers) complete() bool {
	for _, p := range w.pods {
		p.mu.Lock()
		done := p.arrived == p.written
		p.mu.Unlock()
		if !done {
			return false
		}
	}
	return true
}

func (w *writers) report() *report {
	r := &report{Rate: w.rate}
	for _, p := range w.pods {
		p.mu.Lock()
		r.Written += p.written
		r.Lost += p.written - p.arrived
		r.Strange += p.strange
		for _, n := range p.times {
			r.Twice += max(0, int(n)-1)
		}
		p.mu.Unlock()
	}
	return r
}
