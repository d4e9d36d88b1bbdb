package output

import (
	"context"
	"errors"
	"sync/atomic"
	"time"
)

// leaveCloseTimeout is closeTimeout for an instance that was told to leave: calls have had half of Fluent Bit's grace
// for their answers, and no line is read until Fluent Bit has ended and the next one has started.
const leaveCloseTimeout = 5 * time.Second

// errLeaving is why chunks go back to Fluent Bit's storage at its end.
var errLeaving = errors.New("the end of Fluent Bit: the chunk stays in its storage for the next start")

// leaving is an instance's way out.
type leaving struct {
	ctx    context.Context // ends when no flush may send any more
	cancel context.CancelFunc
	told   atomic.Bool
}

func newLeaving() *leaving {
	ctx, cancel := context.WithCancel(context.Background()) //nolint:gosec // Leave calls it
	return &leaving{ctx: ctx, cancel: cancel}
}

// Leave says that Fluent Bit was asked to end, and takes within at most. For half of that time events are sent as ever.
// Then every flush returns at once and gives back what no call is under way with; the other half is for the answers
// to those calls. So what was accepted is known when the ledger is written at Close. It returns at once.
func (i *Instance) Leave(within time.Duration) {
	if i.leaving.told.CompareAndSwap(false, true) {
		time.AfterFunc(within/2, i.leaving.cancel)
	}
}

func (l *leaving) closeTimeout() time.Duration {
	if l.told.Load() {
		return leaveCloseTimeout
	}
	return closeTimeout
}
