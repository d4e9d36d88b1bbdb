package replay

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/eks-tenant-logs/eks-tenant-logs/internal/awsclient"
	"github.com/eks-tenant-logs/eks-tenant-logs/internal/delivery"
	"github.com/eks-tenant-logs/eks-tenant-logs/internal/tenancy"
)

// session is the replay of one quarantine group.
type session struct {
	*runner
	group  string
	state  *state
	newest int      // of the journal's streams
	book   *logbook // nil until there is something to write
	cutoff int64
	replay string

	before, copied int64 // events, since the first replay
	oldest         int64 // of what is left; 0 for none
	counted        bool  // every stream was looked at
	keep           map[string]int64
	refused        map[delivery.Target]error // homes that take nothing, by group
	result         Tenant
}

// why notes a reason once.
func (s *session) why(reason string) {
	if reason != "" && !slices.Contains(s.result.Why, reason) {
		s.result.Why = append(s.result.Why, reason)
	}
}

// left counts an event that is not replayed.
func (s *session) left(e event) {
	s.result.Left++
	if s.oldest == 0 || e.timestamp < s.oldest {
		s.oldest = max(1, e.timestamp)
	}
}

func (s *session) run(ctx context.Context) (err error) {
	own := s.reader(awsclient.Role{})
	streams, server, err := own.streams(ctx, s.group)
	if err != nil {
		return err
	}
	s.heard(server)
	// Fixed before the streams were listed, or all but: one that has events from before
	// the cutoff has been there for as long as things take to settle.
	s.cutoff = s.now().Add(-s.cfg.Settle).UnixMilli()
	if s.state, s.newest, err = readJournal(ctx, own, s.group, streams); err != nil {
		return err
	}
	// A clock that went back, or is behind, takes nothing back that a replay has settled.
	s.cutoff = max(s.cutoff, s.state.base)
	if s.state.key == "" {
		if s.state.key, err = randomText(s.cfg.Random, keyLength); err != nil {
			return err
		}
	}
	s.before, s.copied = s.state.copied, s.state.copied
	s.keep, s.refused = map[string]int64{}, map[delivery.Target]error{}
	if idle := s.now().Sub(time.UnixMilli(s.state.last)); !s.state.stopped && idle < leaseTime && !s.cfg.DryRun {
		return fmt.Errorf("another replay%s is at work, or was ended by force: if it says nothing more, this can go on in %s",
			of(s.state.writer), (leaseTime - idle).Round(time.Second))
	}
	defer func() { err = s.close(ctx, err) }()
	if !s.cfg.DryRun && s.state.replay != "" {
		if err := s.claim(ctx); err != nil { // to finish what another began
			return err
		}
	}
	s.progress.Streams = len(streams) - s.newest
	for _, st := range streams {
		name := *st.LogStreamName
		if strings.HasPrefix(name, tenancy.ReplayStreamPrefix) {
			continue // the journal is never copied
		}
		if s.stopped() {
			return errStopped
		}
		s.progress.Stream++
		s.tell(0)
		if err := s.alive(ctx); err != nil {
			return err
		}
		if err := s.stream(ctx, name); err != nil {
			return err
		}
	}
	s.counted = true
	return nil
}

func of(writer string) string {
	if writer == "" {
		return ""
	}
	return " (" + writer + ")"
}

// claim begins a stream of the journal.
func (s *session) claim(ctx context.Context) (err error) {
	if s.book != nil {
		return nil
	}
	if s.replay = s.state.replay; s.replay == "" {
		if s.replay, err = randomText(s.cfg.Random, idLength); err != nil {
			return err
		}
	}
	book := &logbook{account: s.reader(awsclient.Role{}).account, clock: s.cfg.Clock, group: s.group, stream: journalStream(s.newest + 1)}
	if err := book.open(ctx); err != nil {
		return err
	}
	s.book = book // from here on the lease is to be given back
	known := s.state.begin(s.replay, s.cfg.Writer, s.cutoff)
	book.first = known[0]
	if err := book.writeAll(ctx, append(known, entry{Kind: kindReady})); err != nil {
		return err
	}
	s.result.Replay = s.replay
	if len(s.state.spans) > 0 {
		// What the one before sent last may not be readable yet.
		return s.wait(ctx, time.UnixMilli(s.state.last).Add(s.cfg.Settle).Sub(s.now()))
	}
	return nil
}

// wait waits, and says meanwhile that it is at work.
func (s *session) wait(ctx context.Context, d time.Duration) error {
	for ; d > 0; d -= aliveEvery {
		s.tell(d)
		if err := s.pause(ctx, min(d, aliveEvery)); err != nil {
			return err
		}
		if err := s.alive(ctx); err != nil {
			return err
		}
	}
	return nil
}

func (s *session) pause(ctx context.Context, d time.Duration) error {
	ctx, release := s.ending.breakable(ctx)
	defer release()
	return s.ending.because(s.cfg.Clock.Sleep(ctx, d))
}

func (s *session) alive(ctx context.Context) error {
	if s.book == nil {
		return nil
	}
	return s.book.alive(ctx)
}

// close writes the end of this replay: of all of it, or of this process's part, which gives the lease
// back.
func (s *session) close(ctx context.Context, err error) error {
	if s.book == nil {
		return err
	}
	if err == nil {
		if err = s.book.writeAll(ctx, append(pages(kindKeep, s.keep), entry{Kind: kindEnd, Streams: len(s.keep), Copied: s.copied})); err == nil {
			return nil
		}
	}
	if errors.Is(err, errLease) || s.ending.force.Err() != nil {
		return err
	}
	if s.stopped() {
		if awsclient.Classify(err) == awsclient.ClassCanceled {
			err = errStopped // it was cut off
		}
		s.out.abort() // the next replay looks for what arrived: nothing may be on its way then
		var cancel context.CancelFunc
		ctx, cancel = s.ending.last()
		defer cancel()
	}
	_ = s.book.stop(ctx) // why the replay ends is told; the lease that is not given back ends by itself
	return err
}

// stream replays one stream, or counts what is in it where that is all that can be done.
// An error ends the group's replay; what befalls the stream alone is noted.
func (s *session) stream(ctx context.Context, name string) error {
	home := s.cfg.Names.Home(s.cfg.Registry, s.cfg.Template, s.group, name)
	c := &copier{session: s, name: name, replayed: s.state.replayed(name), blocked: home.Why}
	c.span, c.unclosed = s.state.spans[name]
	c.earlier = c.span
	if c.blocked == "" {
		c.target = s.out.target(home, name)
		if err := s.refused[delivery.Target{Role: c.target.Role, Group: c.target.Group}]; err != nil {
			c.blocked = brief(err)
		}
	}
	if c.unclosed && c.blocked == "" {
		if !s.cfg.DryRun {
			if err := s.claim(ctx); err != nil { // which waits until it can be seen
				return err
			}
		}
		var err error
		if c.found, err = s.out.delivered(ctx, c.target, c.span); err != nil {
			if s.stopped() {
				return errStopped
			}
			c.block(err)
		}
	}
	s.copied -= c.span.count // run counts them anew
	if err := c.run(ctx); err != nil {
		return err
	}
	if c.incomplete {
		s.keep[name] = c.replayed
		if c.unclosed && s.book != nil && c.span.count != c.count {
			c.span.count = c.count // what the batch under way when it ended brought
			return s.book.write(ctx, c.span.entry(name, s.copied))
		}
		return nil
	}
	if c.unclosed && s.book != nil {
		return s.book.write(ctx, entry{Kind: kindDone, Stream: name, Copied: s.copied})
	}
	return nil
}
