package delivery

import (
	"context"
	"errors"
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
	// leave is closed when CloudWatch goes out of reach, or a trial of it fails.
	leave    <-chan struct{}
	patience time.Duration
	trials   []bool // by destination
}

// turn asks which destinations' events had better not be sent now; nil where all may be.
// Where any is a trial, the wait is a short one. A destination that has nothing to send is
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
			if w.trials[dest], err = w.d.stalls.turned(t, false); w.trials[dest] {
				w.patience = min(w.patience, trialPatience)
			}
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
	look := time.NewTimer(w.patience)
	defer look.Stop()
	for {
		if done, err := w.p.outcome(ctx.Err() != nil); done {
			return err
		}
		if err := w.p.turnedAway(); err != nil {
			return err
		}
		select {
		case <-w.p.changed:
		case <-ctx.Done():
		case <-w.leave:
			return w.p.why(&Error{Class: awsclient.ClassRetryable, Err: ErrDown})
		case <-look.C:
			if err := w.stalled(); err != nil {
				return err
			}
			look.Reset(w.patience / 4)
		}
	}
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
	short := w.d.cfg.Now().Sub(w.began) < w.d.cfg.Patience
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
		if short {
			return nil // beside a trial of another's, this one's time is not over
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
		why = &Error{Target: s.target, Class: awsclient.ClassRetryable, Err: ErrStalled}
	}
	return w.p.why(why)
}
