package replay

import (
	"context"
	"errors"
	"fmt"

	"github.com/eks-tenant-logs/eks-tenant-logs/internal/awsclient"
	"github.com/eks-tenant-logs/eks-tenant-logs/internal/chunk"
	"github.com/eks-tenant-logs/eks-tenant-logs/internal/delivery"
)

// copier copies one stream.
type copier struct {
	*session
	name     string
	target   delivery.Target
	replayed int64 // what came in by then is
	// earlier is how far a replay came that did not finish the stream, span how far this
	// one says that it is, at first the same; unclosed says that there is one. found is
	// what has arrived of what it may have sent.
	earlier  span
	span     span
	unclosed bool
	// attempted says that this replay has sent, or may have, a batch of the stream.
	attempted bool
	found     map[string]bool
	blocked   string // why events are only counted

	batch []pending
	bytes int
	// Events with the same identity have the same time, so they follow one another.
	time int64
	same map[identity]int

	count      int64 // events that are at home and came in since replayed
	incomplete bool  // something from before the cutoff was not copied
}

// pending is an event that is to be copied.
type pending struct {
	event
	id  identity
	nth int
}

// run reads the stream from where something new may be.
func (c *copier) run(ctx context.Context) error {
	from := int64(0)
	if c.replayed > 0 {
		// What came in since is at most that much older than its arrival.
		from = max(0, c.replayed-(maxAge+24*ageMargin).Milliseconds())
	}
	pages := 0
	err := c.reader(awsclient.Role{}).events(ctx, c.group, c.name, from, 0, func(e event) error {
		if pages++; pages%1000 == 0 {
			if err := c.alive(ctx); err != nil {
				return &fatalError{err}
			}
		}
		return c.event(ctx, e)
	})
	if err == nil {
		err = c.flush(ctx)
	}
	var fatal *fatalError
	switch {
	case errors.As(err, &fatal):
		return fatal.err
	case err != nil && c.stopped():
		return c.stop(ctx)
	case ctx.Err() != nil:
		return ctx.Err()
	case err != nil:
		c.why(brief(err))
		c.incomplete, c.result.Unknown = true, true
	}
	return nil
}

// fatalError ends the group's replay, not the stream's alone.
type fatalError struct{ err error }

func (e *fatalError) Error() string { return e.err.Error() }

// event decides what becomes of one event.
func (c *copier) event(ctx context.Context, e event) error {
	if e.ingested <= c.replayed {
		return nil
	}
	if e.ingested <= c.earlier.cutoff && e.timestamp < c.earlier.from {
		c.tally(1)
		return nil
	}
	if e.ingested > c.cutoff {
		c.left(e)
		c.why("it came in while this ran, or shortly before")
		return nil
	}
	if c.blocked != "" {
		c.miss(e)
		return nil
	}
	if e.timestamp != c.time || c.same == nil {
		c.time, c.same = e.timestamp, map[identity]int{}
	}
	id := identify(c.state.key, c.name, e)
	c.same[id]++
	c.batch = append(c.batch, pending{e, id, c.same[id]})
	c.bytes += len(e.message)
	if len(c.batch) >= c.cfg.BatchEvents || c.bytes >= batchBytes {
		return c.flush(ctx)
	}
	return nil
}

// tally counts events that are at home.
func (c *copier) tally(n int) {
	c.copied += int64(n)
	c.count += int64(n)
}

// miss counts an event that should have been copied.
func (c *copier) miss(e event) {
	c.left(e)
	c.why(c.blocked)
	c.incomplete = true
}

// block says that nothing more of this stream is copied now.
func (c *copier) block(err error) { c.blocked = brief(err) }

// flush copies the batch. It returns an error only where the group's replay ends.
func (c *copier) flush(ctx context.Context) error {
	if c.stopped() && c.blocked == "" && !c.cfg.DryRun && len(c.batch) > 0 {
		return &fatalError{c.stop(ctx)}
	}
	batch := c.batch
	c.batch, c.bytes = nil, 0
	if len(batch) == 0 {
		return nil
	}
	if c.cfg.DryRun {
		for _, p := range batch {
			if c.unclosed && p.timestamp <= c.span.to && (c.found[p.id.tag(c.state.key, p.nth, 0)] || c.found[p.id.tag(c.state.key, p.nth, 1)]) {
				c.tally(1) // the replay that did not come to its end sent it
				continue
			}
			c.left(p.event)
		}
		return nil
	}
	if err := c.claim(ctx); err != nil {
		return &fatalError{err}
	}
	for attempt := 1; c.blocked == ""; attempt++ {
		err := c.attempt(ctx, batch)
		var fatal *fatalError
		switch {
		case err == nil:
			c.tally(len(batch))
			c.progress.Replayed += int64(len(batch))
			c.tell(0)
			return nil
		case errors.As(err, &fatal):
			return err
		case c.stopped():
			return &fatalError{errStopped}
		case ctx.Err() != nil:
			return &fatalError{ctx.Err()}
		case definite(err):
			c.refused[delivery.Target{Role: c.target.Role, Group: c.target.Group}] = err
			c.block(err)
		case attempt == maxAttempts:
			c.block(fmt.Errorf("after %d attempts: %w", attempt, err))
		default:
			c.cfg.Log.Warn("a batch may have arrived or not; it is looked for before it is sent again",
				"group", c.target.Group, "stream", c.target.Stream, "events", len(batch), "error", brief(err))
			settle := c.cfg.Settle
			if errors.Is(err, delivery.ErrTimeout) {
				settle += callTime // a call may be under way still
			}
			if err := c.wait(ctx, settle); err != nil {
				return &fatalError{err}
			}
			if c.found, err = c.out.delivered(ctx, c.target, c.span); err != nil {
				if c.stopped() {
					return &fatalError{errStopped}
				}
				c.block(err)
			}
		}
	}
	for _, p := range batch {
		c.miss(p.event)
	}
	return nil
}

// stop ends the replay before a batch, which may be empty, and writes down that those before it have
// arrived. It returns errStopped, or why that could not be written.
func (c *copier) stop(ctx context.Context) error {
	for _, p := range c.batch {
		c.left(p.event)
	}
	switch {
	case c.blocked != "" || c.cfg.DryRun:
		return errStopped
	case !c.attempted:
		c.copied += c.earlier.count - c.count // what was counted before still is
		return errStopped
	}
	c.span.count = c.count
	if len(c.batch) > 0 {
		c.span.from = c.batch[0].timestamp
		c.span.to = max(c.span.to, c.span.from)
	}
	if err := c.book.write(ctx, c.span.entry(c.name, c.copied)); err != nil {
		return err
	}
	return errStopped
}

// attempt writes down that the batch is sent, and sends what of it has not arrived.
func (c *copier) attempt(ctx context.Context, batch []pending) error {
	now := c.cfg.Clock.Now().Add(-c.cfg.Clock.Ahead()).UnixMilli()
	first, last := batch[0].timestamp, batch[len(batch)-1].timestamp
	next := span{cutoff: c.cutoff, from: first, to: last, at: now, until: now + 2*deliverTime.Milliseconds(), count: c.count}
	if c.unclosed {
		// Nothing of what an earlier batch may have sent is forgotten before the stream is
		// done.
		next.at, next.to = min(c.span.at, next.at), max(c.span.to, next.to)
		next.until = max(c.span.until, next.until)
	}
	if err := c.book.write(ctx, next.entry(c.name, c.copied)); err != nil {
		return &fatalError{err}
	}
	c.span, c.unclosed, c.attempted = next, true, true

	age := c.out.age(ctx, c.target)
	if c.stopped() {
		return &fatalError{errStopped} // the group was not looked at
	}
	oldest, newest := now-age.Milliseconds(), now+maxAhead.Milliseconds()
	var events chunk.Events
	var sent []string
	for _, p := range batch {
		at := p.timestamp
		if at < oldest || at > newest {
			at = now
		}
		events.Copied([]byte(p.message), p.timestamp, at, func(part int) string {
			tag := p.id.tag(c.state.key, p.nth, part)
			sent = append(sent, tag)
			return c.replay + "/" + tag
		})
	}
	list := events.List[:0]
	for i, e := range events.List {
		if !c.found[sent[i]] {
			list = append(list, e)
		}
	}
	events.List = list
	return c.out.send(ctx, c.target, &events)
}
