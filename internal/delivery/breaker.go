package delivery

import (
	"errors"
	"log/slog"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/eks-tenant-logs/eks-tenant-logs/internal/awsclient"
)

// Breaker knows which groups do not take events although CloudWatch works: access is
// denied there and nowhere else, the tenant's role can't be assumed, the group is gone
// and may not be made. It trips for what may last and is one tenant's; never for
// throttling, outages, or credentials that work for nobody.
//
// While it is open, somebody is let through from time to time to try: when that works it
// closes. It may be used by many goroutines.
type Breaker struct {
	now   func() time.Time
	log   *slog.Logger
	delay func(n int) time.Duration
	told  func(t Target, open bool) // may be nil
	guard func(Target) bool         // which targets have a circuit; nil means all

	open atomic.Int32 // how many circuits are: none costs nothing

	mu       sync.Mutex
	circuits map[groupKey]*circuit
	worked   map[awsclient.Role]worked // by identity
}

type circuit struct {
	failures int // in a row
	first    time.Time
	reason   string
	open     bool
	probes   int
	probe    time.Time // when somebody is let through next
}

const (
	// tripsAfter is how many failures in a row open a circuit: one may be a change of
	// IAM's on its way.
	tripsAfter = 2
	// othersWork is how long ago a call of the same identity may have worked for a
	// denial to be the group's and not the identity's.
	othersWork = 2 * time.Minute
	// maxCircuits is how many groups with failures are remembered, at least.
	maxCircuits = 8192
)

func newBreaker(log *slog.Logger, now func() time.Time, delay func(int) time.Duration) *Breaker {
	if delay == nil {
		delay = func(n int) time.Duration {
			d := min(10*time.Second<<min(n, 5), 5*time.Minute)
			return d/2 + rand.N(d/2)
		}
	}
	return &Breaker{now: now, log: log, delay: delay, circuits: map[groupKey]*circuit{}, worked: map[awsclient.Role]worked{}}
}

// Open reports whether events for a target had better not be sent there, and why. Once
// in a while it lets a caller through, whose events are the trial.
func (b *Breaker) Open(t Target) (reason string, open bool) {
	if b.open.Load() == 0 {
		return "", false
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	c := b.circuits[t.key()]
	if c == nil || !c.open {
		return "", false
	}
	if now := b.now(); !now.Before(c.probe) {
		c.probes++
		c.probe = now.Add(b.delay(c.probes))
		return "", false
	}
	return c.reason, true
}

// succeeded closes a target's circuit.
func (b *Breaker) succeeded(t Target) {
	b.mu.Lock()
	defer b.mu.Unlock()
	w := b.worked[t.Role]
	w.note(t.key(), b.now())
	b.worked[t.Role] = w
	key := t.key()
	c := b.circuits[key]
	if c == nil {
		return
	}
	delete(b.circuits, key)
	if c.open {
		b.open.Add(-1)
		b.log.Info("the log group takes events again", "group", t.Group)
		b.tell(t, false)
	}
}

// failed counts a failure that may be the group's own, and opens its circuit where it is.
func (b *Breaker) failed(t Target, err error) {
	reason, own := fault(t, err)
	if reason == "" || b.guard != nil && !b.guard(t) {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	key := t.key()
	c := b.circuits[key]
	if c == nil {
		b.room()
		c = &circuit{first: b.now()}
		b.circuits[key] = c
	}
	c.failures++
	c.reason = reason
	now := b.now()
	// With an identity that others use, too, it must be seen to work for them, and since
	// it failed here: what worked before may be denied to all by now.
	elsewhere := b.worked[t.Role].elsewhere(key)
	others := own || !elsewhere.IsZero() && !elsewhere.Before(c.first) && now.Sub(elsewhere) < othersWork
	if c.open || c.failures < tripsAfter || !others {
		return
	}
	c.open = true
	c.probe = now.Add(b.delay(0))
	b.open.Add(1)
	b.log.Error("a log group does not take events; what on_failure says is done with them until it does",
		"group", t.Group, "reason", reason, "error", awsclient.Brief(err))
	b.tell(t, true)
}

func (b *Breaker) tell(t Target, open bool) {
	if b.told != nil {
		b.told(t, open)
	}
}

// keep forgets the circuits of groups that nobody sends to any more.
func (b *Breaker) keep(used func(groupKey) bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for key, c := range b.circuits {
		if used(key) {
			continue
		}
		delete(b.circuits, key)
		if c.open {
			b.open.Add(-1)
			b.tell(Target{Role: key.role, Group: key.group}, false)
		}
	}
}

// room forgets a circuit that is closed where there are very many: names of groups may
// come from records (`identity record`).
func (b *Breaker) room() {
	if len(b.circuits) < maxCircuits {
		return
	}
	for key, c := range b.circuits {
		if !c.open {
			delete(b.circuits, key)
			return
		}
	}
}

// fault is why a failure may be the group's own; empty where it is not. own says that no
// other group can have part in it.
func fault(t Target, err error) (reason string, own bool) {
	var credentials *awsclient.CredentialsError
	if errors.As(err, &credentials) {
		// STS may be throttled, out of reach, or not know who asks: only a refusal is the role's.
		if t.Role.ARN != "" && credentials.Role == t.Role.ARN && awsclient.Classify(credentials.Err) == awsclient.ClassDenied {
			return "role", true
		}
		return "", false
	}
	var refused *awsclient.RefusedError
	if errors.As(err, &refused) {
		// STS hands out sessions of the tenant's role that AWS refuses.
		if t.Role.ARN != "" && refused.Role == t.Role.ARN && refused.Renewed {
			return "role", true
		}
		return "", false
	}
	switch awsclient.Classify(err) {
	case awsclient.ClassDenied:
		return "denied", t.Role.ARN != ""
	case awsclient.ClassNotFound:
		return "missing", true
	}
	return "", false
}
