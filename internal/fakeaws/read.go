package fakeaws

import (
	"container/heap"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

// checkReadable refuses what the service refuses: groups outside the Standard class take no GetLogEvents or
// FilterLogEvents (CloudWatch Logs User Guide, "Log classes"). The error's code is not documented.
func (s *account) checkReadable(g *group) *APIError {
	if g.class != classStandard {
		return invalidParameter("The operation is not supported for log groups of class %s.", g.class)
	}
	return nil
}

type getLogEvents struct {
	End        *int64  `json:"endTime"`
	Limit      *int64  `json:"limit"`
	Identifier *string `json:"logGroupIdentifier"`
	Group      *string `json:"logGroupName"`
	Stream     *string `json:"logStreamName"`
	NextToken  *string `json:"nextToken"`
	Start      *int64  `json:"startTime"`
	FromHead   *bool   `json:"startFromHead"`
	Unmask     *bool   `json:"unmask"`
}

func (r *getLogEvents) target(s *account) (group, stream string) {
	return groupTarget(s, r.Group, r.Identifier), deref(r.Stream)
}

// outputEvent is the model's OutputLogEvent.
type outputEvent struct {
	Timestamp     int64  `json:"timestamp"`
	Message       string `json:"message"`
	IngestionTime int64  `json:"ingestionTime"`
}

// The tokens of GetLogEvents name an event and a direction; reading goes on behind, or before, that event, whatever
// was added since.
func eventToken(direction byte, k key) string {
	return fmt.Sprintf("%c/%020d%036d", direction, k.ts, k.seq)
}

func parseEventToken(token string) (direction byte, k key, ok bool) {
	if len(token) != 2+56 || token[0] != 'f' && token[0] != 'b' || token[1] != '/' || strings.Trim(token[2:], "0123456789") != "" {
		return 0, key{}, false
	}
	ts, err1 := strconv.ParseInt(token[2:22], 10, 64)
	seq, err2 := strconv.ParseUint(token[22:], 10, 64)
	return token[0], key{ts, seq}, err1 == nil && err2 == nil
}

func (r *getLogEvents) do(s *account, _ *Call) (any, *APIError) {
	var c constraints
	c.text("logGroupName", r.Group, ruleGroupName)
	c.text("logGroupIdentifier", r.Identifier, ruleIdentifier)
	c.required("logStreamName", r.Stream, ruleStreamName)
	c.between("startTime", r.Start, 0, math.MaxInt64)
	c.between("endTime", r.End, 0, math.MaxInt64)
	c.between("limit", r.Limit, 1, eventsLimit)
	c.text("nextToken", r.NextToken, ruleToken)
	if err := c.err(); err != nil {
		return nil, err
	}
	name, err := s.nameOrIdentifier(r.Group, r.Identifier)
	if err != nil {
		return nil, err
	}
	g, st, err := s.lookup(name, *r.Stream)
	if err != nil {
		return nil, err
	}
	if err := s.checkReadable(g); err != nil {
		return nil, err
	}
	if err := s.keyInUse(g); err != nil {
		return nil, err
	}

	v := s.visible(st.view())
	low, high := 0, len(v.order)
	if r.Start != nil {
		low = v.from(*r.Start)
	}
	if r.End != nil {
		high = max(low, v.from(*r.End)) // "equal to or later than this time are not included"
	}
	direction := byte('b')
	if deref(r.FromHead) {
		direction = 'f'
	}
	if r.NextToken != nil {
		d, k, ok := parseEventToken(*r.NextToken)
		if !ok {
			return nil, invalidParameter(textInvalidToken)
		}
		direction = d
		next := v.after(k)
		if d == 'f' {
			low = max(low, next)
		} else {
			if next > 0 && v.key(next-1) == k {
				next--
			}
			high = min(high, next)
		}
		high = max(low, high)
	}
	limit := eventsLimit
	if r.Limit != nil {
		limit = int(*r.Limit)
	}

	// Take a page from the end the direction starts at; at least one event, whatever its size.
	size, from, to := 0, low, low
	if direction == 'b' {
		from, to = high, high
	}
	fits := func(i int) bool {
		b, index := v.event(i)
		size += int(b.records[index].len) + eventOverhead
		return to-from < limit && (to == from || size <= maxResponseSize)
	}
	if direction == 'f' {
		for to < high && fits(to) {
			to++
		}
	} else {
		for from > low && fits(from-1) {
			from--
		}
	}

	out := struct {
		Events   []outputEvent `json:"events"`
		Backward string        `json:"nextBackwardToken"`
		Forward  string        `json:"nextForwardToken"`
	}{Events: make([]outputEvent, 0, to-from)}
	for i := from; i < to; i++ {
		b, index := v.event(i)
		out.Events = append(out.Events, outputEvent{b.records[index].ts, b.message(index), b.ingested})
	}
	switch {
	case to > from:
		out.Backward, out.Forward = eventToken('b', v.key(from)), eventToken('f', v.key(to-1))
	case r.NextToken != nil:
		// The end: "it returns the same token you passed in", and the way back starts at the same place.
		_, k, _ := parseEventToken(*r.NextToken)
		if out.Backward, out.Forward = eventToken('b', k), *r.NextToken; direction == 'b' {
			out.Backward, out.Forward = *r.NextToken, eventToken('f', k)
		}
	default:
		var k key
		if from > 0 {
			k = v.key(from - 1)
		}
		out.Backward, out.Forward = eventToken('b', k), eventToken('f', k)
	}
	return out, nil
}

type filterLogEvents struct {
	End         *int64   `json:"endTime"`
	Pattern     *string  `json:"filterPattern"`
	Interleaved *bool    `json:"interleaved"` // ignored since June 2019
	Limit       *int64   `json:"limit"`
	Identifier  *string  `json:"logGroupIdentifier"`
	Group       *string  `json:"logGroupName"`
	Prefix      *string  `json:"logStreamNamePrefix"`
	Streams     []string `json:"logStreamNames"`
	NextToken   *string  `json:"nextToken"`
	FromHead    *bool    `json:"startFromHead"`
	Start       *int64   `json:"startTime"`
	Unmask      *bool    `json:"unmask"`
}

func (r *filterLogEvents) target(s *account) (group, stream string) {
	return groupTarget(s, r.Group, r.Identifier), ""
}

// filteredEvent is the model's FilteredLogEvent.
type filteredEvent struct {
	EventID       string `json:"eventId"`
	IngestionTime int64  `json:"ingestionTime"`
	Stream        string `json:"logStreamName"`
	Message       string `json:"message"`
	Timestamp     int64  `json:"timestamp"`
}

// earliestBackward is the earliest startTime for reading backwards (FilterLogEvents, startFromHead).
var earliestBackward = time.Date(2024, 1, 1, 0, 0, 0, 0, time.UTC)

func (r *filterLogEvents) do(s *account, _ *Call) (any, *APIError) {
	var c constraints
	c.text("logGroupName", r.Group, ruleGroupName)
	c.text("logGroupIdentifier", r.Identifier, ruleIdentifier)
	c.text("logStreamNamePrefix", r.Prefix, ruleStreamName)
	c.between("startTime", r.Start, 0, math.MaxInt64)
	c.between("endTime", r.End, 0, math.MaxInt64)
	c.between("limit", r.Limit, 1, eventsLimit)
	c.text("nextToken", r.NextToken, ruleToken)
	c.text("filterPattern", r.Pattern, rulePattern)
	if r.Streams != nil {
		c.size("logStreamNames", len(r.Streams), 1, maxStreamNames)
		for i := range r.Streams {
			c.text("logStreamNames."+strconv.Itoa(i+1)+".member", &r.Streams[i], ruleStreamName)
		}
	}
	if err := c.err(); err != nil {
		return nil, err
	}
	name, err := s.nameOrIdentifier(r.Group, r.Identifier)
	if err != nil {
		return nil, err
	}
	if r.Streams != nil && r.Prefix != nil {
		return nil, invalidParameter("logStreamNames and logStreamNamePrefix are mutually exclusive.")
	}
	match, err := parseFilter(deref(r.Pattern))
	if err != nil {
		return nil, err
	}

	query := queryID("FilterLogEvents", name, r.Prefix, r.Pattern, r.Start, r.End, strings.Join(r.Streams, "\x00"))
	at, err := readPageToken(r.NextToken, query, 3)
	if err != nil {
		return nil, err
	}
	backward := r.FromHead != nil && !*r.FromHead
	var after *key
	if at != nil {
		ts, err1 := strconv.ParseInt(at[1], 10, 64)
		seq, err2 := strconv.ParseUint(at[2], 10, 64)
		if err1 != nil || err2 != nil {
			return nil, invalidParameter(textInvalidToken)
		}
		backward, after = at[0] == "b", &key{ts, seq}
	} else if backward && deref(r.Start) < millis(earliestBackward) {
		return nil, invalidParameter("startFromHead can be false only when startTime is on or after Jan 1, 2024 00:00:00 UTC.")
	}

	g, _, err := s.lookup(name, "")
	if err != nil {
		return nil, err
	}
	if err := s.checkReadable(g); err != nil {
		return nil, err
	}
	if err := s.keyInUse(g); err != nil {
		return nil, err
	}
	views, err := s.views(g, r.Prefix, r.Streams)
	if err != nil {
		return nil, err
	}
	merge := &merged{backward: backward}
	for i := range views {
		v := &views[i]
		cur := cursor{view: v, low: 0, high: len(v.order)}
		if r.Start != nil {
			cur.low = v.from(*r.Start)
		}
		if r.End != nil && *r.End < math.MaxInt64 {
			cur.high = v.from(*r.End + 1) // "later than this time are not returned"
		}
		if after != nil {
			next := v.after(*after)
			if backward {
				if next > 0 && v.key(next-1) == *after {
					next--
				}
				cur.high = min(cur.high, next)
			} else {
				cur.low = max(cur.low, next)
			}
		}
		if cur.low < cur.high {
			merge.cursors = append(merge.cursors, cur)
		}
	}
	heap.Init(merge)

	limit := eventsLimit
	if r.Limit != nil {
		limit = int(*r.Limit)
	}
	out := struct {
		Events    []filteredEvent `json:"events"`
		NextToken string          `json:"nextToken,omitempty"`
		Searched  []struct{}      `json:"searchedLogStreams"` // always empty since May 2020
	}{Events: []filteredEvent{}, Searched: []struct{}{}}
	size := 0
	var last key
	for merge.Len() > 0 {
		v, i := merge.top()
		b, index := v.event(i)
		if message := b.message(index); match(message) {
			size += len(message) + eventOverhead
			if n := len(out.Events); n == limit || n > 0 && size > maxResponseSize {
				direction := "f"
				if backward {
					direction = "b"
				}
				out.NextToken = pageToken(query, direction, strconv.FormatInt(last.ts, 10), strconv.FormatUint(last.seq, 10))
				break
			}
			last = v.key(i)
			out.Events = append(out.Events, filteredEvent{
				EventID: fmt.Sprintf("%020d%036d", last.ts, last.seq), IngestionTime: b.ingested, Stream: v.name,
				Message: message, Timestamp: last.ts,
			})
		}
		merge.advance()
	}
	return out, nil
}

// views takes a sorted snapshot of the streams that are asked for.
func (s *account) views(g *group, prefix *string, names []string) ([]view, *APIError) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	var streams []*stream
	if names != nil {
		seen := map[string]bool{}
		for _, n := range names {
			st := g.streams[n]
			if st == nil {
				return nil, streamNotFound()
			}
			if !seen[n] {
				seen[n] = true
				streams = append(streams, st)
			}
		}
	} else {
		for n, st := range g.streams {
			if prefix == nil || strings.HasPrefix(n, *prefix) {
				streams = append(streams, st)
			}
		}
	}
	views := make([]view, len(streams))
	for i, st := range streams {
		views[i] = s.visible(st.view())
	}
	return views, nil
}

// cursor is what is left to read of a view: [low, high).
type cursor struct {
	*view
	low, high int
}

// merged yields the events of many streams in one order; it is a heap of cursors.
type merged struct {
	cursors  []cursor
	backward bool
}

func (m *merged) index(c *cursor) int {
	if m.backward {
		return c.high - 1
	}
	return c.low
}

func (m *merged) Len() int      { return len(m.cursors) }
func (m *merged) Swap(i, j int) { m.cursors[i], m.cursors[j] = m.cursors[j], m.cursors[i] }
func (m *merged) Push(any)      { panic("fakeaws: a merge only shrinks") }
func (m *merged) Pop() any {
	m.cursors = m.cursors[:len(m.cursors)-1]
	return nil
}
func (m *merged) Less(i, j int) bool {
	x, y := &m.cursors[i], &m.cursors[j]
	order := x.key(m.index(x)).compare(y.key(m.index(y)))
	return order < 0 != m.backward
}

func (m *merged) top() (*view, int) { return m.cursors[0].view, m.index(&m.cursors[0]) }

func (m *merged) advance() {
	c := &m.cursors[0]
	if m.backward {
		c.high--
	} else {
		c.low++
	}
	if c.low == c.high {
		heap.Pop(m)
	} else {
		heap.Fix(m, 0)
	}
}
