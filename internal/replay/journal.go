package replay

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"github.com/eks-tenant-logs/eks-tenant-logs/internal/tenancy"
)

// The journal of a quarantine group is kept in streams of the group. Each replay that
// has something to write makes the next one, and CreateLogStream makes a stream once only:
// of two that begin at the same moment one is refused. So a stream of the journal has one
// writer, and the number of the stream says who came after whom, whatever their clocks say.
// It begins with all that was known (`begin`, `held`, `sending`, `ready`), so that the
// newest stream that has its `ready` is all that must be read. Nothing is removed: the older
// ones expire with the group's retention.

const journalVersion = 1

// Kinds of entries.
const (
	kindBegin   = "begin"   // what was known when this replay began
	kindHeld    = "held"    // streams whose watermark is another than the group's
	kindReady   = "ready"   // all of that is written: now this stream counts
	kindSending = "sending" // a batch is about to be sent
	kindDone    = "done"    // a stream is replayed up to the cutoff
	kindAlive   = "alive"   // still at work
	kindKeep    = "keep"    // streams that are not replayed up to the cutoff
	kindEnd     = "end"     // all the others are
	kindStopped = "stopped" // nobody is at work here any more
)

// entry is one event of the journal. Times are in milliseconds since 1970.
type entry struct {
	Version int    `json:"v"`
	N       int    `json:"n"` // counts from 1 in its stream
	Kind    string `json:"kind"`

	// begin
	Replay   string `json:"replay,omitempty"`
	Writer   string `json:"writer,omitempty"`
	Key      string `json:"key,omitempty"`
	Base     int64  `json:"base,omitempty"`
	Copied   int64  `json:"copied,omitempty"` // since the first replay; also of sending, done, end
	Cutoff   int64  `json:"cutoff,omitempty"` // also of sending
	Streams  int    `json:"streams,omitempty"`
	Unclosed int    `json:"sendings,omitempty"`

	Held map[string]int64 `json:"held,omitempty"`

	// sending, done
	Stream string `json:"stream,omitempty"`
	From   int64  `json:"from,omitempty"`
	To     int64  `json:"to,omitempty"`
	At     int64  `json:"at,omitempty"`
	Until  int64  `json:"until,omitempty"`
	Count  int64  `json:"count,omitempty"`
}

// span is how far one stream came that is not done. Of its events that came in by cutoff
// those with a time before from are copied. Those from there to to may be: what is in the
// home stream at their own time, or at one of at to until where theirs was too old, tells.
type span struct {
	cutoff, from, to, at, until int64
	// count is how many events of the stream are in the journal's count although the
	// stream is not done: whoever goes on counts them anew.
	count int64
}

// state is what a journal says. The zero value is a group of which nothing was replayed.
type state struct {
	key    string
	base   int64            // what came in by then is replayed, but for
	held   map[string]int64 // these, of which what came in by then is
	spans  map[string]span
	copied int64
	// replay is the one that did not come to its end; empty for none.
	replay  string
	stopped bool // and is not at work any more
	writer  string
	last    int64 // when CloudWatch took the newest entry
}

// replayed is the time up to which what came into a stream is replayed.
func (s *state) replayed(stream string) int64 {
	if w, ok := s.held[stream]; ok {
		return w
	}
	return s.base
}

// journalStream is the name of the journal's nth stream.
func journalStream(n int) string { return fmt.Sprintf("%s%010d", tenancy.ReplayStreamPrefix, n) }

// journalNumber is the number of a stream of the journal; 0 for any other stream.
func journalNumber(stream string) int {
	digits, ok := strings.CutPrefix(stream, tenancy.ReplayStreamPrefix)
	n, err := strconv.Atoi(digits)
	if !ok || err != nil || n <= 0 || journalStream(n) != stream {
		return 0
	}
	return n
}

var errUnready = errors.New("the journal's stream was not finished")

// parseEntry reads an entry.
func parseEntry(message string) (e entry, err error) {
	dec := json.NewDecoder(bytes.NewReader([]byte(message)))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&e); err != nil {
		return entry{}, fmt.Errorf("not an entry: %w", err)
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return entry{}, errors.New("not an entry: something follows it")
	}
	switch {
	case e.Version != journalVersion:
		return entry{}, fmt.Errorf("version %d of the journal is not known: it is a newer tenantlogs'", e.Version)
	case e.N <= 0 || e.Copied < 0 || e.Base < 0 || e.Cutoff < 0 || e.Streams < 0 || e.Unclosed < 0 || e.From < 0 || e.To < e.From || e.At < 0 || e.Until < e.At || e.Count < 0:
		return entry{}, errors.New("an entry has a number out of place")
	case e.Kind == kindBegin && (len(e.Replay) != idLength || len(e.Key) != keyLength):
		return entry{}, errors.New("a begin without an id or key")
	case (e.Kind == kindSending || e.Kind == kindDone) && e.Stream == "":
		return entry{}, fmt.Errorf("a %s without its stream", e.Kind)
	}
	return e, nil
}

// fold is what the entries of one stream of the journal say, in whatever order they were
// read. An entry may be there twice, for its answer may have been lost; it must not be
// missing, for what it says can't be guessed.
func fold(entries []entry) (*state, error) {
	entries = slices.Clone(entries)
	slices.SortStableFunc(entries, func(a, b entry) int { return a.N - b.N })
	s := &state{held: map[string]int64{}, spans: map[string]span{}}
	ready := false
	expect := 1
	var begin entry
	keep := map[string]int64{}
	for i := range entries {
		e := &entries[i]
		if i > 0 && e.N == expect-1 {
			if !reflect.DeepEqual(entries[i-1], *e) {
				return nil, fmt.Errorf("entry %d of the journal is there twice, and differs", e.N)
			}
			continue
		}
		if e.N != expect {
			return nil, fmt.Errorf("entry %d of the journal is missing: if it was written within the last minutes, try again", expect)
		}
		expect++
		if (e.Kind == kindBegin) != (e.N == 1) {
			return nil, fmt.Errorf("entry %d of the journal is a %s", e.N, e.Kind)
		}
		switch e.Kind {
		case kindBegin:
			begin = *e
			s.key, s.base, s.copied, s.replay, s.writer = e.Key, e.Base, e.Copied, e.Replay, e.Writer
		case kindHeld:
			maps.Copy(s.held, e.Held)
		case kindReady:
			if len(s.held) != begin.Streams || len(s.spans) != begin.Unclosed {
				return nil, errors.New("the journal does not hold what it began with")
			}
			ready = true
		case kindSending:
			s.spans[e.Stream] = span{e.Cutoff, e.From, e.To, e.At, e.Until, e.Count}
			s.copied = e.Copied
		case kindDone:
			s.held[e.Stream] = begin.Cutoff
			delete(s.spans, e.Stream)
			s.copied = e.Copied
		case kindAlive:
		case kindKeep:
			for name := range e.Held {
				keep[name] = s.replayed(name)
			}
		case kindEnd:
			if len(keep) != e.Streams {
				return nil, errors.New("the journal ends without the streams it keeps")
			}
			s.ended(begin.Cutoff, keep)
			s.copied = e.Copied
		case kindStopped:
			s.stopped = true
		default:
			return nil, fmt.Errorf("entry %d of the journal is of the unknown kind %q", e.N, e.Kind)
		}
	}
	if !ready {
		return s, errUnready
	}
	return s, nil
}

// ended is the state after a replay that came to its end.
func (s *state) ended(cutoff int64, held map[string]int64) {
	s.base, s.held = max(s.base, cutoff), held
	maps.DeleteFunc(s.spans, func(name string, _ span) bool { _, is := held[name]; return !is })
	s.replay, s.stopped = "", true
}
