package fakeaws

import (
	"errors"
	"math/rand/v2"
	"strings"
	"sync"
	"time"
)

// Answers that CloudWatch gives where something is wrong, for Fault.Answer.
var (
	Throttled error = &APIError{Code: "ThrottlingException", Message: "Rate exceeded"}
	// ThrottledIAM is how IAM and STS say Throttled.
	ThrottledIAM error = &APIError{Code: "Throttling", Message: "Rate exceeded"}
	Denied       error = &APIError{Code: "AccessDeniedException", Message: "User is not authorized to perform this operation"}
	Unavailable  error = &APIError{Code: "ServiceUnavailableException", Message: "The service cannot complete the request.", Status: 503}
	Internal     error = &APIError{Code: codeInternal, Message: "The request failed because of an unknown error.", Status: 500}
	NotFound     error = &APIError{Code: codeNotFound, Message: textStreamNotFound}
)

// ErrHang keeps a call waiting until its fault is cleared or replaced; the connection is closed then.
var ErrHang = errors.New("fakeaws: no answer")

// Fault is one thing that goes wrong. The zero value hits every call and does nothing to it.
type Fault struct {
	// Operations and LogGroup choose the calls; empty means all.
	Operations []string
	LogGroup   string
	// Percent is the share of these calls that is hit; 0 means all of them.
	Percent int
	// Latency is waited first.
	Latency time.Duration
	// Answer is given instead of carrying the call out: one of the answers above, any other *APIError,
	// ErrConnectionReset, ErrAnswerLost or ErrHang; nil goes on.
	Answer error
}

// Faults are faults by name, each of which can be set, replaced and cleared while calls are made. Its method Intercept
// goes into Server.SetIntercept. The same seed gives the same chances in the same order of calls.
type Faults struct {
	now func() time.Time

	mu     sync.Mutex
	rng    *rand.Rand
	faults map[string]*fault
	order  []string
	hits   map[string]int
	quotas map[string]*Bucket
	appear time.Duration
	made   map[made]time.Time
}

type fault struct {
	Fault
	over chan struct{} // closed when it is cleared or replaced
}

type made struct{ group, stream string }

// NewFaults makes faults without any.
func NewFaults(seed uint64) *Faults {
	return &Faults{now: time.Now, rng: rand.New(rand.NewPCG(seed, 0)), faults: map[string]*fault{}, hits: map[string]int{}, made: map[made]time.Time{}}
}

// Set sets the fault of a name. Faults are looked at in the order their names were first set; the first with an answer
// wins.
func (f *Faults) Set(name string, x Fault) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if old := f.faults[name]; old != nil {
		close(old.over)
	} else {
		f.order = append(f.order, name)
	}
	f.faults[name] = &fault{x, make(chan struct{})}
}

// Clear takes the fault of a name away; without a name all of them. What hangs because of it is reset.
func (f *Faults) Clear(names ...string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(names) == 0 {
		names = append(names, f.order...)
	}
	for _, name := range names {
		if old := f.faults[name]; old != nil {
			close(old.over)
			delete(f.faults, name)
		}
	}
	left := f.order[:0]
	for _, name := range f.order {
		if f.faults[name] != nil {
			left = append(left, name)
		}
	}
	f.order = left
}

// Hits is how many calls each fault has answered or delayed so far; "quota" are those over an account's quota,
// "appear" those about what was made a moment ago.
func (f *Faults) Hits() map[string]int {
	f.mu.Lock()
	defer f.mu.Unlock()
	hits := map[string]int{}
	for name, n := range f.hits {
		hits[name] = n
	}
	return hits
}

// Quotas are calls a second of an account and region (CloudWatch Logs quotas), by operation. How many calls IAM takes is not
// documented: tests that throttle it choose a figure, under "iam:CreateRole" and the like.
var Quotas = map[string]float64{
	"PutLogEvents": 5000, "CreateLogStream": 50, "DescribeLogStreams": 25, "CreateLogGroup": 10, "DescribeLogGroups": 10,
	"PutRetentionPolicy": 5, "TagResource": 5, "UntagResource": 5, "ListTagsForResource": 5, "GetLogEvents": 25, "FilterLogEvents": 5,
}

// throttledFor is how the service of an operation answers to too many calls.
func throttledFor(operation string) error {
	if strings.HasPrefix(operation, "iam:") || strings.HasPrefix(operation, "AssumeRole") {
		return ThrottledIAM
	}
	return Throttled
}

// SetQuotas throttles what exceeds so many calls a second, of which a second's worth may come at once; nil takes the
// quotas away.
func (f *Faults) SetQuotas(perSecond map[string]float64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.quotas = map[string]*Bucket{}
	for operation, rate := range perSecond {
		f.quotas[operation] = &Bucket{Rate: rate}
	}
}

// SetAppearing makes groups, streams and IAM's roles and managed policies take a while to be seen after they were made:
// calls about them answer that there are none. A create that fails, as where there is one already, hides nothing. Only calls that name them are answered so, not listings.
func (f *Faults) SetAppearing(after time.Duration) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.appear = after
}

// Bucket is a token bucket that holds one second's worth, full before its first use. How AWS counts is not documented;
// a call that is refused takes no token here.
type Bucket struct {
	Rate  float64 // calls a second
	level float64
	at    time.Time
}

// Take reports whether there is a token, and takes it.
func (b *Bucket) Take(now time.Time) bool {
	if b.at.IsZero() {
		b.level = b.Rate
	} else {
		b.level = min(b.Rate, b.level+now.Sub(b.at).Seconds()*b.Rate)
	}
	b.at = now
	if b.level < 1 {
		return false
	}
	b.level--
	return true
}

// Intercept is for Server.SetIntercept.
func (f *Faults) Intercept(c Call) error {
	latency, over, answer := f.decide(c)
	if latency > 0 {
		wait(latency, over)
	}
	if errors.Is(answer, ErrHang) {
		<-over
		return ErrConnectionReset
	}
	return answer
}

func wait(d time.Duration, over <-chan struct{}) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-over:
	}
}

// decide says what happens to a call: how long it waits, what it is answered, and what ends a hang.
func (f *Faults) decide(c Call) (latency time.Duration, over <-chan struct{}, answer error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	now := f.now()
	if q := f.quotas[c.Operation]; q != nil && !q.Take(now) {
		f.hits["quota"]++
		return 0, nil, throttledFor(c.Operation)
	}
	for _, name := range f.order {
		x := f.faults[name]
		if !x.meets(c) || x.Percent > 0 && f.rng.IntN(100) >= x.Percent {
			continue
		}
		f.hits[name]++
		latency, over = latency+x.Latency, x.over
		if x.Answer != nil {
			return latency, over, x.Answer
		}
	}
	if f.appear > 0 && !f.visible(&c, now) {
		f.hits["appear"]++
		if c.Entity != "" {
			return latency, over, noSuchEntity("The entity with name %s cannot be found.", c.Entity)
		}
		return latency, over, NotFound
	}
	return latency, over, nil
}

func (x *fault) meets(c Call) bool {
	if x.LogGroup != "" && x.LogGroup != c.LogGroup {
		return false
	}
	if len(x.Operations) == 0 {
		return true
	}
	for _, operation := range x.Operations {
		if operation == c.Operation {
			return true
		}
	}
	return false
}

// visible reports whether what a call is about can be seen, and notes what it makes once it has been made: a call that
// finds it there already, or fails otherwise, hides nothing.
func (f *Faults) visible(c *Call, now time.Time) bool {
	seen := func(group, stream string) bool {
		at, ok := f.made[made{group, stream}]
		return !ok || now.Sub(at) >= f.appear
	}
	note := func(group, stream string) {
		m := made{group, stream}
		if c.onSuccess(func() { f.note(m) }) {
			return
		}
		if _, ok := f.made[m]; !ok {
			f.made[m] = now
		}
	}
	if strings.HasPrefix(c.Operation, "iam:") {
		kind := "role:"
		if c.Operation == "iam:CreatePolicy" || strings.HasPrefix(c.Entity, "arn:") {
			kind = "policy:" // made by its name, and asked about by its ARN
		}
		entity := kind + strings.ToLower(c.Entity[strings.LastIndexByte(c.Entity, '/')+1:])
		if c.Operation == "iam:CreateRole" || c.Operation == "iam:CreatePolicy" {
			note(entity, "")
			return true
		}
		return seen(entity, "")
	}
	switch c.Operation {
	case "CreateLogGroup":
		note(c.LogGroup, "")
		return true
	case "CreateLogStream":
		if !seen(c.LogGroup, "") {
			return false
		}
		note(c.LogGroup, c.LogStream)
		return true
	case "PutLogEvents", "PutRetentionPolicy", "TagResource":
		return seen(c.LogGroup, "") && (c.LogStream == "" || seen(c.LogGroup, c.LogStream))
	}
	return true
}

func (f *Faults) note(m made) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.made[m] = f.now()
}
