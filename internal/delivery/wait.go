package delivery

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/eks-tenant-logs/eks-tenant-logs/internal/awsclient"
	"github.com/eks-tenant-logs/eks-tenant-logs/internal/chunk"
)

// wait is one Deliver that waits for its events to be accepted.
type wait struct {
	d       *Deliverer
	p       *progress
	senders []*sender // by destination; nil for those that are sent nothing
	began   time.Time
	leave   *leave
	stays   []groupKey // groups for which it is the one that waits
	trials  []bool     // by destination
	trial   bool       // any of them
}

// turn asks which destinations' events had better not be sent now; nil where all may be.
// Where any is a trial, it is looked after soon. A destination that has nothing to send is
// no trial, and what it still has in flight is not waited for while it is in trouble.
func (w *wait) turn(events *chunk.Events, targets []Target) (away []error) {
	w.trials = make([]bool, len(targets))
	if !w.d.stalls.troubled.Load() {
		return nil
	}
	send, open := w.p.needs(events, len(targets))
	for dest, t := range targets {
		if t == (Target{}) || !open[dest] {
			continue
		}
		var err error
		if send[dest] {
			w.trials[dest], err = w.d.stalls.turned(t, false)
			w.trial = w.trial || w.trials[dest]
		} else {
			err = w.d.stalls.inTrouble(t)
		}
		if err != nil {
			if away == nil {
				away = make([]error, len(targets))
			}
			away[dest] = &Error{Target: t, Class: awsclient.ClassRetryable, Err: err}
		}
	}
	return away
}

// until returns nil when everything is accepted, else why it will not be now.
func (w *wait) until(ctx context.Context) error {
	look := time.NewTimer(w.look(0))
	defer look.Stop()
	for {
		if done, err := w.p.outcome(ctx.Err() != nil); done {
			if err == ErrTimeout { //nolint:errorlint // bare: no call of this flush has failed
				return w.unanswered(err)
			}
			return err
		}
		if err := w.p.turnedAway(); err != nil {
			return err
		}
		select {
		case <-w.p.changed:
		case <-ctx.Done():
		case <-w.leave.now:
			return &Error{Class: awsclient.ClassRetryable, Err: w.leave.err}
		case <-look.C:
			if err := w.stalled(); err != nil {
				return err
			}
			look.Reset(w.look(w.d.cfg.Now().Sub(w.began)))
		}
	}
}

// unanswered is a timeout's error with the reason for which the first group takes nothing
// that has events open.
func (w *wait) unanswered(err error) error {
	for dest, open := range w.p.unfinished() {
		if open && w.senders[dest] != nil {
			return w.d.stalls.because(err, w.senders[dest].target)
		}
	}
	return fmt.Errorf("%w: %w", err, errUnderWay)
}

// look is how long to wait until the next look at what takes nothing.
func (w *wait) look(passed time.Duration) time.Duration {
	d := min(w.d.cfg.Patience, leastSecond)
	if w.trial && passed > 0 {
		d = min(d, trialPatience) / 4
	}
	return d
}

// errCreating says what is waited for; it goes on without the flush.
var errCreating = errors.New("the stream is still being created")

// errUnderWay is no fault of where the chunk goes now.
var errUnderWay = errors.New("a call to where the chunk went before has not ended")

// stalled is an error where everything that is still open is for streams that took nothing
// since the wait began, while others did. A trial that brings nothing in its short time
// leaves whether others are served or not: what it tries was in trouble before.
func (w *wait) stalled() error {
	var why error
	passed := w.d.cfg.Now().Sub(w.began)
	stays := false
	for dest, open := range w.p.unfinished() {
		if !open {
			continue
		}
		s := w.senders[dest]
		if s == nil {
			continue // turned away; what is still in flight was given up before
		}
		if s.tookSince(w.began) {
			return nil
		}
		if w.trials[dest] {
			if err := w.d.stalls.inTrouble(s.target); err != nil {
				why = &Error{Target: s.target, Class: awsclient.ClassRetryable, Err: err}
				continue
			}
		}
		if first, second := w.d.stalls.patience(s.target, w.d.cfg.Patience); passed < first {
			if passed < second || w.d.stalls.stays(s.target, w) {
				stays = true // this one's time is not over
				continue
			}
			why = &Error{Target: s.target, Class: awsclient.ClassRetryable, Err: w.d.stalls.because(errWaiting, s.target)}
			continue
		}
		if s.isCreating() && w.d.stalls.othersWork(w.began) {
			// The account's quota, not the group: its other streams are no worse for it.
			why = &Error{Target: s.target, Class: awsclient.ClassRetryable, Err: errCreating}
			continue
		}
		if !s.has(w.p) && w.d.stalls.othersWork(w.began) {
			why = &Error{Target: s.target, Class: awsclient.ClassRetryable, Err: errUnderWay}
			continue
		}
		if !w.d.stalls.stall(s.target, w.began) {
			return nil
		}
		why = &Error{Target: s.target, Class: awsclient.ClassRetryable, Err: w.d.stalls.because(ErrStalled, s.target)}
	}
	if stays {
		return nil
	}
	return why
}
