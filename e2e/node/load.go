package node

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"
)

// Load writes numbered lines for every one of its pods at a steady rate, and counts which of
// them CloudWatch accepted. Observe belongs into fakeaws.Config.
type Load struct {
	rate    int
	pods    []*podLines
	written atomic.Int64

	mu       sync.Mutex
	damaged  int    // events that hold none of the lines as it was written
	example  string // one of them
	writeErr error
}

// podLines are the lines of one pod.
type podLines struct {
	pod Pod

	mu      sync.Mutex
	written int
	times   []uint8 // how often each line has arrived, up to 255
	arrived int     // lines that have, once or more
}

// Outcome is what became of a load's lines.
type Outcome struct {
	Written, Lost, Twice int
	// Damaged are events that hold none of the lines as it was written; Example is one.
	Damaged int
	Example string
}

// NewLoad is a load of rate lines a second, of so many pods, three of each tenant.
func NewLoad(rate, pods int) *Load {
	l := &Load{rate: rate}
	for n := range pods {
		l.pods = append(l.pods, &podLines{pod: Pod{Namespace: fmt.Sprint("tenant-t", n/3), Name: fmt.Sprint("pod-", n), Container: "c"}})
	}
	return l
}

// tick is how often each pod writes.
const tick = 200 * time.Millisecond

// Start writes below n until stop is closed; running waits for that.
func (l *Load) Start(n *Node, stop <-chan struct{}, running *sync.WaitGroup) {
	for i, p := range l.pods {
		running.Go(func() {
			if err := l.write(n, i, p, stop); err != nil {
				l.mu.Lock()
				l.writeErr = errors.Join(l.writeErr, err)
				l.mu.Unlock()
			}
		})
	}
}

func (l *Load) write(n *Node, i int, p *podLines, stop <-chan struct{}) error {
	perTick := float64(l.rate) / float64(len(l.pods)) * tick.Seconds()
	due := float64(i%10) / 10 // so that not all write at once
	ticker := time.NewTicker(tick)
	defer ticker.Stop()
	for {
		select {
		case <-stop:
			return nil
		case now := <-ticker.C:
			due += perTick
			lines := make([]Line, int(due))
			due -= float64(len(lines))
			p.mu.Lock()
			first := p.written
			p.written += len(lines)
			p.times = append(p.times, make([]uint8, len(lines))...)
			p.mu.Unlock()
			for k := range lines {
				lines[k] = Line{Time: now, Text: string(appendText(nil, i, first+k))}
			}
			l.written.Add(int64(len(lines)))
			if err := n.WriteLines(p.pod, lines...); err != nil {
				return err
			}
		}
	}
}

// appendText appends the text of one line of one pod. All of it follows from the two numbers, so that
// a line that is not as it was written is seen.
func appendText(b []byte, pod, line int) []byte {
	b = append(b, '#')
	b = strconv.AppendInt(b, int64(pod), 10)
	b = append(b, '.')
	b = strconv.AppendInt(b, int64(line), 10)
	x := uint64(pod)<<32 | uint64(line)
	for _, word := range []string{" ", " GET /api/v1/orders/", " 200 "} {
		x = (x ^ x>>29) * 0xbf58476d1ce4e5b9
		b = append(b, word...)
		b = strconv.AppendUint(b, x, 16)
	}
	return append(b, " ms"...)
}

// Observe notes an event that CloudWatch accepted.
func (l *Load) Observe(_, _ string, message []byte) {
	pod, line, ok := l.parse(message)
	if !ok {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.damaged++
		if l.example == "" {
			l.example = string(message[:min(len(message), 300)])
		}
		return
	}
	p := l.pods[pod]
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.times[line] == 0 {
		p.arrived++
	}
	if p.times[line] < 255 {
		p.times[line]++
	}
}

// parse reads which line a message holds; false where it holds none as it was written.
func (l *Load) parse(message []byte) (pod, line int, ok bool) {
	_, text, found := bytes.Cut(message, []byte(`"log":"`))
	if !found {
		return 0, 0, false
	}
	dot, space := bytes.IndexByte(text, '.'), bytes.IndexByte(text, ' ')
	if len(text) == 0 || text[0] != '#' || dot < 0 || space < dot {
		return 0, 0, false
	}
	pod, err1 := strconv.Atoi(string(text[1:dot]))
	line, err2 := strconv.Atoi(string(text[dot+1 : space]))
	if err1 != nil || err2 != nil || pod < 0 || line < 0 || pod >= len(l.pods) || !bytes.HasPrefix(text, append(appendText(make([]byte, 0, 128), pod, line), '"')) {
		return 0, 0, false
	}
	p := l.pods[pod]
	p.mu.Lock()
	defer p.mu.Unlock()
	return pod, line, line < p.written
}

// Count is how many lines have been written.
func (l *Load) Count() int64 { return l.written.Load() }

// Complete says whether every line that was written has arrived.
func (l *Load) Complete() bool {
	return !slices.ContainsFunc(l.pods, func(p *podLines) bool {
		p.mu.Lock()
		defer p.mu.Unlock()
		return p.arrived != p.written
	})
}

// Outcome is what became of the lines so far. Its error is that of writing them.
func (l *Load) Outcome() (Outcome, error) {
	var o Outcome
	for _, p := range l.pods {
		p.mu.Lock()
		o.Written += p.written
		o.Lost += p.written - p.arrived
		for _, n := range p.times {
			o.Twice += max(0, int(n)-1)
		}
		p.mu.Unlock()
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	o.Damaged, o.Example = l.damaged, l.example
	return o, l.writeErr
}
