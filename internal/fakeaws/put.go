package fakeaws

import (
	"errors"
	"fmt"
	"sync"
	"time"
)

// The limits of PutLogEvents, from its API reference.
const (
	maxBatchEvents = 10_000
	maxBatchBytes  = 1_048_576
	// eventOverhead is added to every message's length in UTF-8.
	eventOverhead = 26
	maxEventBytes = 1_048_576 // one event, its overhead included
	maxBatchSpan  = 24 * time.Hour
	maxEventAge   = 14 * 24 * time.Hour
	maxEventAhead = 2 * time.Hour
)

// putLogEvents is the request; it is read by a scan of its own, because the stand-in must not be what a load test measures.
type putLogEvents struct {
	group, stream, token *string
	entity               *entity
	hasEvents            bool
	records              []record
	text                 []byte
	// Indexes of the first event at fault, or -1; the scan goes on so that syntax is checked to the end.
	nullTimestamp, nullMessage, emptyMessage, negative int
}

// entity is the service a client says its events are about.
type entity struct{ keyAttributes, attributes map[string]string }

var putPool = sync.Pool{New: func() any { return new(putLogEvents) }}

func decodePutLogEvents(body []byte, allowUnknown bool) (request, error) {
	p := putPool.Get().(*putLogEvents)
	if err := p.decode(body, allowUnknown); err != nil {
		p.release()
		return nil, err
	}
	return p, nil
}

func (p *putLogEvents) release() { putPool.Put(p) }

func (p *putLogEvents) decode(body []byte, allowUnknown bool) error {
	*p = putLogEvents{
		records: p.records[:0], text: p.text[:0],
		nullTimestamp: -1, nullMessage: -1, emptyMessage: -1, negative: -1,
	}
	s := &scanner{b: body}
	text := func(dst **string) error {
		v, err := s.string()
		*dst = &v
		return err
	}
	err := s.object(func(name string) error {
		switch name {
		case "logGroupName", "logStreamName", "sequenceToken", "logEvents", "entity":
			if s.null() {
				return nil
			}
		}
		switch name {
		case "logGroupName":
			return text(&p.group)
		case "logStreamName":
			return text(&p.stream)
		case "sequenceToken":
			return text(&p.token)
		case "entity":
			return p.decodeEntity(s, allowUnknown)
		case "logEvents":
			p.hasEvents = true
			return s.array(func() error { return p.decodeEvent(s, allowUnknown) })
		}
		if !allowUnknown {
			return fmt.Errorf("unknown member %q", name)
		}
		return s.skip(0)
	})
	if err != nil {
		return err
	}
	return s.end()
}

// name consumes the member name "word": when it comes next in its plain spelling.
func (s *scanner) name(quoted string) bool {
	s.space()
	if len(s.b)-s.i < len(quoted) || string(s.b[s.i:s.i+len(quoted)]) != quoted {
		return false
	}
	s.i += len(quoted)
	return true
}

func (p *putLogEvents) decodeEvent(s *scanner, allowUnknown bool) error {
	if s.null() {
		return errors.New("an event is null")
	}
	if !s.take('{') {
		return errSyntax
	}
	var others map[string]bool
	var hasTS, hasMessage, tsNull, messageNull bool
	r := record{off: uint32(len(p.text))}
	for more := !s.take('}'); more; {
		isTS, isMessage := s.name(`"timestamp"`), false
		if !isTS {
			isMessage = s.name(`"message"`)
		}
		var name string
		if !isTS && !isMessage {
			var err error
			if name, err = s.string(); err != nil {
				return err
			}
			isTS, isMessage = name == "timestamp", name == "message"
		}
		if !s.take(':') {
			return errSyntax
		}
		var err error
		switch {
		case isTS && hasTS, isMessage && hasMessage, others[name]:
			return errors.New("a member of an event is given twice")
		case isTS:
			hasTS = true
			if tsNull = s.null(); !tsNull {
				r.ts, err = s.int64()
			}
		case isMessage:
			hasMessage = true
			if messageNull = s.null(); !messageNull {
				p.text, err = s.appendString(p.text)
				r.len = uint32(len(p.text)) - r.off
			}
		case !allowUnknown:
			return fmt.Errorf("unknown member %q of an event", name)
		default:
			if others == nil {
				others = map[string]bool{}
			}
			others[name] = true
			err = s.skip(0)
		}
		if err != nil {
			return err
		}
		if s.take('}') {
			break
		}
		if !s.take(',') {
			return errSyntax
		}
	}
	n := len(p.records)
	first := func(index *int, wrong bool) {
		if wrong && *index < 0 {
			*index = n
		}
	}
	first(&p.nullTimestamp, !hasTS || tsNull)
	first(&p.nullMessage, !hasMessage || messageNull)
	first(&p.emptyMessage, hasMessage && !messageNull && r.len == 0)
	first(&p.negative, r.ts < 0)
	p.records = append(p.records, r)
	return nil
}

func (p *putLogEvents) decodeEntity(s *scanner, allowUnknown bool) error {
	p.entity = &entity{}
	return s.object(func(name string) (err error) {
		switch {
		case (name == "keyAttributes" || name == "attributes") && s.null():
		case name == "keyAttributes":
			p.entity.keyAttributes, err = s.stringMap()
		case name == "attributes":
			p.entity.attributes, err = s.stringMap()
		case allowUnknown:
			err = s.skip(0)
		default:
			err = fmt.Errorf("unknown member %q of the entity", name)
		}
		return err
	})
}

func (p *putLogEvents) target(*account) (group, stream string) {
	return deref(p.group), deref(p.stream)
}

// rejectedInfo is the model's RejectedLogEventsInfo.
type rejectedInfo struct {
	TooNewStart *int `json:"tooNewLogEventStartIndex,omitempty"` // inclusive
	TooOldEnd   *int `json:"tooOldLogEventEndIndex,omitempty"`   // exclusive
	ExpiredEnd  *int `json:"expiredLogEventEndIndex,omitempty"`  // exclusive
}

type rejectedEntity struct {
	ErrorType string `json:"errorType"`
}

func (p *putLogEvents) validate() *APIError {
	var c constraints
	c.required("logGroupName", p.group, ruleGroupName)
	c.required("logStreamName", p.stream, ruleStreamName)
	c.text("sequenceToken", p.token, ruleToken)
	switch n := len(p.records); {
	case !p.hasEvents:
		c.fail("null", "logEvents", memberNotNull)
	default:
		c.size("logEvents", n, 1, maxBatchEvents)
	}
	member := func(index int, value, name, constraint string) {
		if index >= 0 {
			c.fail(value, fmt.Sprintf("logEvents.%d.member.%s", index+1, name), constraint)
		}
	}
	member(p.nullTimestamp, "null", "timestamp", memberNotNull)
	member(p.nullMessage, "null", "message", memberNotNull)
	member(p.emptyMessage, "''", "message", atLeast(1))
	if p.negative >= 0 {
		member(p.negative, fmt.Sprintf("'%d'", p.records[p.negative].ts), "timestamp", "Member must have value greater than or equal to 0")
	}
	if err := c.err(); err != nil {
		return err
	}
	for i, r := range p.records {
		if size := int(r.len) + eventOverhead; size > maxEventBytes {
			return invalidParameter("Log event too large: %d bytes exceeds limit of %d", size, maxEventBytes)
		}
		if i > 0 && r.ts < p.records[i-1].ts {
			return invalidParameter("Log events in a single PutLogEvents request must be in chronological order.")
		}
	}
	if size := p.size(0, len(p.records)); size > maxBatchBytes {
		return invalidParameter("Upload too large: %d bytes exceeds limit of %d", size, maxBatchBytes)
	}
	return nil
}

// size is what PutLogEvents counts for the events in [from, to).
func (p *putLogEvents) size(from, to int) int64 {
	if from == to {
		return 0
	}
	last := p.records[to-1]
	return int64(last.off+last.len-p.records[from].off) + int64(to-from)*eventOverhead
}

func (p *putLogEvents) do(s *account, _ *Call) (any, *APIError) {
	if err := p.validate(); err != nil {
		return nil, err
	}
	g, st, apiErr := s.lookup(*p.group, *p.stream)
	if apiErr != nil {
		return nil, apiErr
	}
	if err := s.keyInUse(g); err != nil {
		return nil, err
	}
	s.mu.RLock()
	retention, _ := s.effectiveRetention(g)
	s.mu.RUnlock()

	// Events are in chronological order, so what is accepted is one run, [start, end).
	now := s.now()
	oldest, newest := millis(now.Add(-maxEventAge)), millis(now.Add(maxEventAhead))
	count := func(before int64) (n int) {
		for n < len(p.records) && p.records[n].ts < before {
			n++
		}
		return n
	}
	tooOld, expired, end := count(oldest), 0, count(newest+1)
	if retention > 0 {
		expired = count(millis(now.Add(-time.Duration(retention) * 24 * time.Hour)))
	}
	// The documentation limits the span of "valid events (within 14 days in the past to 2 hours in future)" only.
	if tooOld < end && p.records[end-1].ts-p.records[tooOld].ts > maxBatchSpan.Milliseconds() {
		return nil, invalidParameter("The batch of log events in a single PutLogEvents request cannot span more than 24 hours.")
	}

	var rejected *rejectedInfo
	reject := func() *rejectedInfo {
		if rejected == nil {
			rejected = &rejectedInfo{}
		}
		return rejected
	}
	if tooOld > 0 {
		reject().TooOldEnd = &tooOld
	}
	// An event can be both too old and expired: each index stands by itself, and the greater one tells what was kept.
	if expired > 0 {
		reject().ExpiredEnd = &expired
	}
	if end < len(p.records) {
		reject().TooNewStart = &end
	}
	start := max(tooOld, expired)
	if start < end {
		s.store(g, st, p, start, end, millis(now))
	}

	var entityAnswer *rejectedEntity
	if e := p.entity; e != nil {
		switch {
		case len(e.keyAttributes) == 0:
			entityAnswer = &rejectedEntity{"MissingRequiredFields"}
		case len(e.keyAttributes) < 2 || len(e.keyAttributes) > 4:
			entityAnswer = &rejectedEntity{"InvalidKeyAttributes"}
		case len(e.attributes) > 10:
			entityAnswer = &rejectedEntity{"InvalidAttributes"}
		}
	}
	return struct {
		Token    string          `json:"nextSequenceToken"`
		Rejected *rejectedInfo   `json:"rejectedLogEventsInfo,omitempty"`
		Entity   *rejectedEntity `json:"rejectedEntityInfo,omitempty"`
	}{fmt.Sprintf("%056d", s.seq.Load()+1), rejected, entityAnswer}, nil
}

// store keeps the events in [start, end), copied out of the request.
func (s *account) store(g *group, st *stream, p *putLogEvents, start, end int, ingested int64) {
	n := end - start
	b := batch{records: make([]record, n), ingested: ingested}
	copy(b.records, p.records[start:end])
	b.base = s.seq.Add(uint64(n)) - uint64(n) + 1
	bytes := p.size(start, end)
	if s.cfg.Observe != nil {
		for _, r := range b.records {
			s.cfg.Observe(g.name, st.name, p.text[r.off:r.off+r.len])
		}
	}
	if !s.cfg.DiscardMessages {
		from := b.records[0].off
		last := b.records[n-1]
		b.text = append(make([]byte, 0, last.off+last.len-from), p.text[from:last.off+last.len]...)
		for i := range b.records {
			b.records[i].off -= from
		}
	}
	st.append(b, bytes)
	g.stored.Add(bytes)
	g.eventCount.Add(int64(n))
}
