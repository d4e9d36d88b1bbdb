package loggroup

import (
	"errors"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/eks-tenant-logs/eks-tenant-logs/internal/awsclient"
)

// pace holds this process's calls of one operation back while the account throttles
// them. A thousand nodes that start at once share 50 CreateLogStream calls a second:
// what each of them calls in vain is the others' turn as well.
type pace struct {
	max time.Duration // of a rest; 0 means maxRest
	// halves: a call that is not throttled takes half of the steps away, not one. Right where
	// rests can be long and calls come one after the other.
	halves bool
	mu     sync.Mutex
	steps  int // how long the next rest is, the first none; what a throttled call adds, one that is not takes away
	until  time.Time
}

const (
	// One call of many that is throttled until it is given up says nothing of the others: while
	// a third of all calls is throttled, there is one such in a hundred. The second one in a row
	// does.
	firstRest = time.Second
	maxRest   = 8 * time.Second // longer leaves some of the quota unused (docs/scaling.md)
)

// errResting stands for a call that was not made.
type errResting struct{ error }

// Class is awsclient.ClassThrottled.
func (errResting) Class() awsclient.Class { return awsclient.ClassThrottled }

var resting = errResting{errors.New("the account throttles this call; it is not made for a while")}

// resting returns an error while no call is to be made.
func (p *pace) resting(now time.Time) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if now.Before(p.until) {
		return resting
	}
	return nil
}

// rest is how long no call is to be made.
func (p *pace) rest(now time.Time) time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	return max(0, p.until.Sub(now))
}

// answered takes note of a call that was made from began to now.
func (p *pace) answered(c awsclient.Class, began, now time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case c != awsclient.ClassThrottled && p.halves:
		p.steps /= 2
	case c != awsclient.ClassThrottled:
		p.steps = max(0, p.steps-1)
	case began.Before(p.until):
		// Another call of the same moment has said so.
	default:
		if p.steps > 0 {
			longest := p.max
			if longest == 0 {
				longest = maxRest
			}
			d := min(firstRest<<min(p.steps-1, 20), longest)
			p.until = now.Add(d/2 + rand.N(d/2))
			if d == longest {
				return
			}
		}
		p.steps++
	}
}
