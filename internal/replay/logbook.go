package replay

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/cloudwatchlogs"
	"github.com/aws/aws-sdk-go-v2/service/cloudwatchlogs/types"

	"github.com/eks-tenant-logs/eks-tenant-logs/internal/awsclient"
)

// readJournal says what the journal of a group says. newest is the number of its newest
// stream; 0 where there is none.
func readJournal(ctx context.Context, r *reader, group string, streams []types.LogStream) (s *state, newest int, err error) {
	created := map[int]int64{}
	for _, st := range streams {
		if n := journalNumber(*st.LogStreamName); n > 0 {
			newest = max(newest, n)
			if st.CreationTime != nil {
				created[n] = *st.CreationTime
			}
		}
	}
	last := created[newest]
	ended := false // the newest stream's writer, before its stream counted
	for n := newest; n > 0; n-- {
		var entries []entry
		err := r.events(ctx, group, journalStream(n), 0, 0, func(e event) error {
			parsed, err := parseEntry(e.message)
			if err != nil {
				return fmt.Errorf("stream %s of %s is damaged: %w", journalStream(n), group, err)
			}
			if n == newest {
				last = max(last, e.ingested)
			}
			entries = append(entries, parsed)
			return nil
		})
		if err != nil {
			return nil, newest, err
		}
		s, err := fold(entries)
		if errors.Is(err, errUnready) {
			ended = ended || n == newest && s.stopped
			continue // whoever began it ended before it counted, and copied nothing
		}
		if err != nil {
			return nil, newest, fmt.Errorf("stream %s of %s: %w", journalStream(n), group, err)
		}
		// What the newest stream's writer is at is not told by an older one.
		s.stopped, s.last = ended || s.stopped && n == newest, last
		return s, newest, nil
	}
	return &state{held: map[string]int64{}, spans: map[string]span{}, stopped: ended || newest == 0, last: last}, newest, nil
}

// logbook writes one stream of the journal.
type logbook struct {
	account Account
	clock   Clock
	group   string
	stream  string
	first   entry // the begin, with which a stream begins whatever follows
	n       int
	put     time.Time // when something was last written
	// lost are entries of which it is not known whether they were written: the next would have
	// their numbers, or leave them out.
	lost []entry
}

var (
	// errContended: somebody else has made the stream.
	errContended = errors.New("another replay of this group has begun at the same moment: try again when it has ended")
	// errLease: what was to be written comes so late that another may have taken over.
	errLost  = errors.New("whether the journal was written is not known")
	errLease = fmt.Errorf("this replay was held up for so long that another may have taken over: run it again in %s", leaseTime)
)

// open makes the stream: whoever does has the group.
func (l *logbook) open(ctx context.Context) error {
	_, err := l.account.CreateLogStream(ctx, &cloudwatchlogs.CreateLogStreamInput{LogGroupName: &l.group, LogStreamName: &l.stream})
	switch awsclient.Classify(err) {
	case awsclient.ClassNone:
		l.put = l.clock.Now()
		return nil
	case awsclient.ClassExists:
		return errContended
	}
	return fmt.Errorf("failed to create the journal's stream in %s: %w", l.group, err)
}

// writeAll is write for more than one call may carry.
func (l *logbook) writeAll(ctx context.Context, entries []entry) error {
	for from := 0; from < len(entries); {
		names, to := 0, from
		for ; to < len(entries) && (to == from || names+len(entries[to].Held)+1 <= namesAtOnce); to++ {
			names += len(entries[to].Held) + 1
		}
		if err := l.write(ctx, entries[from:to]...); err != nil {
			return err
		}
		from = to
	}
	return nil
}

// write adds entries and returns once CloudWatch has them. The SDK tries again: an entry
// that is there twice is one.
func (l *logbook) write(ctx context.Context, entries ...entry) error {
	if len(l.lost) > 0 {
		return errLost
	}
	now := l.clock.Now()
	if now.Sub(l.put) > leaseTime-2*deliverTime {
		return errLease
	}
	at := now.Add(-l.clock.Ahead()).UnixMilli()
	in := &cloudwatchlogs.PutLogEventsInput{LogGroupName: &l.group, LogStreamName: &l.stream}
	for _, e := range entries {
		l.n++
		e.Version, e.N = journalVersion, l.n
		text, err := json.Marshal(e)
		if err != nil {
			return fmt.Errorf("failed to write an entry: %w", err)
		}
		message := string(text)
		in.LogEvents = append(in.LogEvents, types.InputLogEvent{Timestamp: &at, Message: &message})
	}
	out, err := l.account.PutLogEvents(ctx, in)
	if err != nil {
		l.n -= len(entries)
		if !definite(err) {
			l.lost = slices.Clone(entries)
		}
		return fmt.Errorf("failed to write the journal in %s: %w", l.group, err)
	}
	if out.RejectedLogEventsInfo != nil {
		return fmt.Errorf("CloudWatch rejects the journal's entries in %s for their time: is this machine's clock right?", l.group)
	}
	if l.clock.Now().Sub(now) > deliverTime {
		return errLease
	}
	l.put = now
	return nil
}

// stop gives the lease back. Entries of which it is not known whether they were written go once more
// before that, under their numbers: an entry that is there twice is one.
func (l *logbook) stop(ctx context.Context) error {
	last := append(l.lost, entry{Kind: kindStopped})
	if l.n == 0 && len(l.lost) == 0 { // the begin was refused
		last = append([]entry{l.first}, last...)
	}
	l.lost = nil
	return l.writeAll(ctx, last)
}

// alive says that somebody is at work, where nothing else said so for a while.
func (l *logbook) alive(ctx context.Context) error {
	if l.clock.Now().Sub(l.put) < aliveEvery {
		return nil
	}
	return l.write(ctx, entry{Kind: kindAlive})
}

// namesAtOnce bounds the streams named in one entry, for an event is at most 1 MB and a
// stream's name 512 bytes.
const namesAtOnce = 1000

// pages writes a map of streams as entries of a kind.
func pages(kind string, held map[string]int64) (list []entry) {
	page := map[string]int64{}
	flush := func() {
		if len(page) > 0 {
			list = append(list, entry{Kind: kind, Held: page})
			page = map[string]int64{}
		}
	}
	for name, w := range held {
		page[name] = w
		if len(page) == namesAtOnce {
			flush()
		}
	}
	flush()
	return list
}

// begin is what a stream of the journal begins with, but for its `ready`.
func (s *state) begin(replay, writer string, cutoff int64) (list []entry) {
	list = append(list, entry{Kind: kindBegin, Replay: replay, Writer: writer, Key: s.key, Base: s.base, Copied: s.copied,
		Cutoff: cutoff, Streams: len(s.held), Unclosed: len(s.spans)})
	list = append(list, pages(kindHeld, s.held)...)
	for name, sp := range s.spans {
		list = append(list, sp.entry(name, s.copied))
	}
	return list
}

func (sp span) entry(stream string, copied int64) entry {
	return entry{Kind: kindSending, Stream: stream, Cutoff: sp.cutoff, From: sp.from, To: sp.to, At: sp.at, Until: sp.until, Count: sp.count, Copied: copied}
}
