package realnode

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Tally counts the numbered lines of the tool's writers as the stand-in accepts them.
type Tally struct {
	mu      sync.Mutex
	writers map[string]*tallied
	ends    map[string][]int // by log group: the numbers of events that end as a writer's line does and do not begin so
	stubs   map[string]int   // by log group: events that begin as a writer's line does, and end before its number does
	began   time.Time
}

func newTally() *Tally {
	return &Tally{writers: map[string]*tallied{}, ends: map[string][]int{}, stubs: map[string]int{}, began: time.Now()}
}

type tallied struct {
	seen     []uint8  // by number, up to 255 times
	at       []uint32 // by number: when it came first, in ms after the tally's start
	distinct int
	cut      int
	glued    int
	groups   map[string]int
}

// observe is fakeaws.Config's Observe. A message has the whole line in it, "#<id> <number> xxx #<number>", or a part of it.
func (t *Tally) observe(group, _ string, message []byte) {
	id, digits, number, head := beginning(message)
	t.mu.Lock()
	defer t.mu.Unlock()
	if !head {
		if end, ok := ending(message); ok {
			t.ends[group] = append(t.ends[group], end)
		} else if bytes.IndexByte(message, '#') >= 0 {
			t.stubs[group]++
		}
		return
	}
	w := t.writers[string(id)]
	if w == nil {
		w = &tallied{groups: map[string]int{}}
		t.writers[string(id)] = w
	}
	if !bytes.Contains(message, append([]byte("x #"), digits...)) {
		w.cut++
	}
	if bytes.Count(message, append(append([]byte("#"), id...), ' ')) > 1 {
		w.glued++
	}
	if number >= len(w.seen) {
		w.seen = append(w.seen, make([]uint8, number+1-len(w.seen))...)
		w.at = append(w.at, make([]uint32, number+1-len(w.at))...)
	}
	if w.seen[number] == 0 {
		w.at[number] = uint32(time.Since(t.began).Milliseconds()) //nolint:gosec // no test takes 49 days
		w.distinct++
	}
	if w.seen[number] < 255 {
		w.seen[number]++
	}
	w.groups[group]++
}

// ending finds "xxx #<number>" in a message.
func ending(message []byte) (number int, found bool) {
	const before = "xxx #"
	at := bytes.LastIndex(message, []byte(before))
	if at < 0 {
		return 0, false
	}
	digits := message[at+len(before):]
	n := 0
	for n < len(digits) && digits[n] >= '0' && digits[n] <= '9' {
		n++
	}
	number, err := strconv.Atoi(string(digits[:n]))
	return number, err == nil
}

// beginning finds "#<id> <number> " in a message.
func beginning(message []byte) (id, digits []byte, number int, found bool) {
	at := bytes.IndexByte(message, '#')
	if at < 0 {
		return nil, nil, 0, false
	}
	id, rest, spaced := bytes.Cut(message[at+1:], []byte(" "))
	digits, _, ended := bytes.Cut(rest, []byte(" "))
	number, err := strconv.Atoi(string(digits))
	return id, digits, number, err == nil && spaced && ended && number >= 0
}

// Count is what has become of a writer's lines.
type Count struct {
	// Lines is how many numbers are looked at, Lost those that did not arrive, Twice the arrivals beyond one.
	Lines, Lost, Twice int
	// Cut are lines that arrived in two events: the runtime wrote a line's beginning to one file and its end to the next.
	Cut int
	// Glued are events with the beginnings of two lines.
	Glued int
	// Groups are the log groups, with the arrivals in each.
	Groups map[string]int
	// Missing and Repeated are the numbers, as ranges, with their lengths: 3-5(3).
	Missing, Repeated []Range
}

// Range is numbers from First to Last, both included.
type Range struct{ First, Last int }

func (r Range) String() string { return fmt.Sprintf("%d-%d(%d)", r.First, r.Last, r.Last-r.First+1) }

func add(ranges []Range, number int) []Range {
	if n := len(ranges); n > 0 && ranges[n-1].Last == number-1 {
		ranges[n-1].Last = number
		return ranges
	}
	return append(ranges, Range{number, number})
}

// String says it in a line; at most ten ranges are named.
func (c Count) String() string {
	s := fmt.Sprintf("%d lines, %d lost, %d twice", c.Lines, c.Lost, c.Twice)
	if c.Cut > 0 {
		s += fmt.Sprintf(", %d cut", c.Cut)
	}
	if c.Glued > 0 {
		s += fmt.Sprintf(", %d glued", c.Glued)
	}
	for i, ranges := range [][]Range{c.Missing, c.Repeated} {
		if len(ranges) == 0 {
			continue
		}
		var all []string
		for _, r := range ranges[:min(10, len(ranges))] {
			all = append(all, r.String())
		}
		if len(ranges) > 10 {
			all = append(all, fmt.Sprintf("and %d more ranges", len(ranges)-10))
		}
		s += fmt.Sprintf("; %s: %s", []string{"lost", "twice"}[i], strings.Join(all, " "))
	}
	return s
}

// Between counts the lines of a writer whose numbers are from first up to, and without, end.
func (t *Tally) Between(id string, first, end int) Count {
	t.mu.Lock()
	defer t.mu.Unlock()
	c := Count{Lines: end - first, Groups: map[string]int{}}
	w := t.writers[id]
	if w == nil {
		w = &tallied{}
	}
	c.Cut, c.Glued = w.cut, w.glued
	for group, n := range w.groups {
		c.Groups[group] = n
	}
	// Of a line that was cut within its number only the end tells which it is.
	ended := map[int]bool{}
	stubs := 0
	for group := range w.groups {
		stubs += t.stubs[group]
		for _, number := range t.ends[group] {
			ended[number] = true
		}
	}
	for number := first; number < end; number++ {
		times := 0
		if number < len(w.seen) {
			times = int(w.seen[number])
		}
		switch {
		case times == 0 && ended[number] && stubs > 0:
			stubs--
			c.Cut++
		case times == 0:
			c.Lost++
			c.Missing = add(c.Missing, number)
		case times > 1:
			c.Twice += times - 1
			c.Repeated = add(c.Repeated, number)
		}
	}
	return c
}

// Around says when the lines around one arrived.
func (t *Tally) Around(id string, number int) string {
	t.mu.Lock()
	defer t.mu.Unlock()
	w := t.writers[id]
	if w == nil {
		return "none arrived"
	}
	var all []string
	for n := max(0, number-3); n <= number+3 && n < len(w.seen); n++ {
		when := "never"
		if w.seen[n] > 0 {
			when = t.began.Add(time.Duration(w.at[n]) * time.Millisecond).UTC().Format("15:04:05.000")
		}
		all = append(all, fmt.Sprintf("%d %s", n, when))
	}
	return strings.Join(all, ", ")
}

// Ends are the events of a log group that are the end of a line without its beginning.
func (t *Tally) Ends(group string) int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.ends[group])
}

// Highest is the highest number of a writer that has arrived, -1 if none.
func (t *Tally) Highest(id string) int {
	t.mu.Lock()
	defer t.mu.Unlock()
	if w := t.writers[id]; w != nil {
		return len(w.seen) - 1
	}
	return -1
}

// Arrived is how many different lines of a writer have.
func (t *Tally) Arrived(id string) int {
	t.mu.Lock()
	defer t.mu.Unlock()
	if w := t.writers[id]; w != nil {
		return w.distinct
	}
	return 0
}

// Settle waits until all of a writer's lines have arrived, or none did for as long as quiet, and counts them.
func (t *Tally) Settle(ctx context.Context, id string, lines int, quiet time.Duration) Count {
	last, since := -1, time.Now()
	for ctx.Err() == nil {
		arrived := t.Arrived(id)
		if arrived >= lines {
			break
		}
		if arrived != last {
			last, since = arrived, time.Now()
		} else if time.Since(since) > quiet {
			break
		}
		time.Sleep(50 * time.Millisecond)
	}
	return t.Between(id, 0, max(lines, t.Highest(id)+1))
}

// Others are the log groups with arrivals of a writer, but for the one where they belong.
func (c Count) Others(group string) []string {
	var others []string
	for name := range c.Groups {
		if name != group {
			others = append(others, name)
		}
	}
	slices.Sort(others)
	return others
}
