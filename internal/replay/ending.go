package replay

import (
	"context"
	"errors"
	"time"
)

// A replay that is asked to end has little time: Kubernetes kills a pod 30 s after SIGTERM. What
// follows adds up to less than 10 s, whatever CloudWatch does meanwhile.
const (
	// finishTime is how long a call that writes may go on: cut off, its outcome is not known, and
	// the next replay has to look for what it brought.
	finishTime = 4 * time.Second
	// lastTime is how long after that it may take to give the lease back.
	lastTime = 3 * time.Second
)

// errStopped: the operator wants an end.
var errStopped = errors.New("stopped; run it again to go on")

// ending is the operator's wish for an end, at first none.
type ending struct {
	asked context.Context // over once the end is asked for
	force context.Context // over once it is to end at once
}

// newEnding watches stop. The context is for calls that write: it ends finishTime after the end was
// asked for, and with ctx. release must be called.
func newEnding(ctx context.Context, stop <-chan struct{}) (_ *ending, writing context.Context, release func()) {
	asked, ask := context.WithCancelCause(context.Background())
	writing, cut := context.WithCancelCause(ctx)
	done, gone := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(gone)
		select {
		case <-stop:
		case <-done:
			return
		}
		ask(errStopped)
		timer := time.NewTimer(finishTime)
		defer timer.Stop()
		select {
		case <-timer.C:
			cut(errStopped)
		case <-done:
		}
	}()
	return &ending{asked, ctx}, writing, func() {
		close(done)
		<-gone
		ask(nil)
		cut(nil)
	}
}

// breakable is ctx for what writes nothing, a call that reads or a pause: it is broken off when the end
// is asked for.
func (e *ending) breakable(ctx context.Context) (context.Context, func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	release := context.AfterFunc(e.asked, func() { cancel(errStopped) })
	return ctx, func() { release(); cancel(nil) }
}

// because is err, or that the end was asked for, which is why it failed.
func (e *ending) because(err error) error {
	if err != nil && e.asked.Err() != nil {
		return errStopped
	}
	return err
}

// last is the context of the last entry of the journal.
func (e *ending) last() (context.Context, context.CancelFunc) {
	return context.WithTimeout(e.force, lastTime)
}
