package delivery

import (
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/eks-tenant-logs/eks-tenant-logs/internal/awsclient"
)

// ErrStalled says that a group has not taken anything for a while, neither refusing nor
// accepting, although others do: the flush leaves, and Fluent Bit brings the chunk again.
var ErrStalled = errors.New("the log group has taken nothing for a while although others do")

// errWaiting says that one flush is enough to find out what is wrong with a group.
var errWaiting = fmt.Errorf("%w; another flush waits for it", ErrStalled)

// ErrDown says that CloudWatch as a whole has not answered for a while.
var ErrDown = errors.New("CloudWatch Logs is out of reach")

// A worker of Fluent Bit that waits in a flush holds up every chunk that was given to it,
// whoever's they are. So no flush waits for what does not come:
//
//   - a group that took nothing for patience, while others did, is stalled: its chunks go
//     back at once, but for a trial from time to time;
//   - an endpoint from which nothing came but failures for downAfter is down: the same
//     for everybody's.
//
// Neither is quarantined: nothing says that it will last.
const (
	// patience is how long a flush waits at most for a group that takes nothing, and
	// leastPatience at least; between them it is so many of the time that an answer takes.
	patience          = 3 * time.Second
	leastPatience     = time.Second
	patienceInAnswers = 20
	// Of the flushes that wait for one group the first to notice that it takes nothing stays
	// as long as that. The others hold as many workers, and learn nothing more: they leave
	// after this, or so many answers.
	leastSecond     = 250 * time.Millisecond
	secondInAnswers = 10
	// lately is for how long a failure of another group's says that it is not this one's
	// trouble alone.
	lately = 10 * time.Second
	// trialPatience is the same for a trial. An answer that comes later counts as well: the
	// call goes on without the flush.
	trialPatience = 250 * time.Millisecond
	// downAfter and downFailures are what an outage is told by: failures without a
	// success between them, over this long, at least this many.
	downAfter    = 2 * time.Second
	downFailures = 3
	// downGroups is from how many groups on an outage is everybody's; below, it may be
	// that of the few that failed.
	downGroups = 3
	// forgetStalled is when a group is forgotten to which nobody has sent anything since it
	// stalled: longer than Fluent Bit waits before it brings a chunk again (scheduler.cap,
	// 2,000 s by default).
	forgetStalled = 2 * time.Hour
	// sayAgain is how often it is said of one group that it is stalled.
	sayAgain = time.Minute
	// maxStalled bounds how many groups are remembered as stalled.
	maxStalled = 8192
)

// stalls knows which groups are stalled, and whether the endpoint is down. It may be used
// by many goroutines.
type stalls struct {
	now   func() time.Time
	log   *slog.Logger
	trial func(n int) time.Duration // the wait before trial n (from 0)
	told  func(t Target, stalled bool)
	down  func(bool)

	troubled atomic.Bool // anything at all: no trouble costs nothing

	mu     sync.Mutex
	groups map[groupKey]*stall
	said   map[groupKey]time.Time // when it was last said that a group is stalled
	took   map[groupKey]time.Time // when a group last took something
	forgot time.Time              // when took was last emptied
	// worked is the same for the last two groups apart.
	worked worked
	// fails is when calls last failed for what may be gone soon, for two groups apart.
	fails worked
	// answer is how long CloudWatch takes for events it accepts: it follows what is slower
	// soon, and what is faster slowly. 0 as long as nothing was accepted.
	answer  time.Duration
	waits   map[groupKey]*wait    // the flush that stays, of those that wait for a group
	outage  *stall                // nil while the endpoint is up
	cause   string                // the outage's
	failing map[groupKey]struct{} // groups that failed since anything worked
	count   int                   // failures since then
	since   time.Time             // when the first of them began
	// why is how a group's last call failed, in words, since one of its calls worked.
	why map[groupKey]string
	// left is closed when the endpoint goes down, or a trial of it fails: no flush is to
	// wait any longer.
	left *leave
}

// leave tells the flushes that wait to leave, and why.
type leave struct {
	now chan struct{} // closed when they are to leave
	err error         // ErrDown with its cause; set before now is closed, and not changed after
}

func newLeave() *leave { return &leave{now: make(chan struct{})} }

// stall is a time of trouble.
type stall struct {
	trials int
	next   time.Time // the next trial
	// turned is when a chunk was sent back first because of it, and last; zero if none was.
	turned, last time.Time
	said         bool // a group's: the log tells of it
}

func newStalls(log *slog.Logger, now func() time.Time) *stalls {
	return &stalls{
		log: log, now: now, groups: map[groupKey]*stall{}, said: map[groupKey]time.Time{}, took: map[groupKey]time.Time{}, failing: map[groupKey]struct{}{}, waits: map[groupKey]*wait{}, why: map[groupKey]string{}, left: newLeave(),
		trial: func(n int) time.Duration {
			d := min(time.Second<<min(n, 10), 5*time.Second)
			return d/2 + rand.N(d/2)
		},
	}
}

// turned says why chunks for a target are better sent back at once; nil where they are not.
// trial says that the caller may try although the group is in trouble; the trial is counted,
// unless the caller only peeks. Only who has something to send may do more than that: a
// trial that is not made is one for which all the others wait.
func (s *stalls) turned(t Target, peek bool) (trial bool, err error) {
	if !s.troubled.Load() {
		return false, nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.now()
	outage, group := s.troubles(t.key())
	switch {
	case !outage.due(now):
		return false, fmt.Errorf("%w: %s", ErrDown, s.cause)
	case !group.due(now):
		return false, fmt.Errorf("%w: %s", ErrStalled, s.reason(t.key()))
	case group == nil && s.waited(t.key()):
		return false, fmt.Errorf("%w: %s", errWaiting, s.reason(t.key()))
	}
	if !peek {
		s.try(outage, now)
		s.try(group, now)
	}
	return outage != nil || group != nil, nil
}

// inTrouble is why a target's events had better not be waited for, trial or not.
func (s *stalls) inTrouble(t Target) error {
	if !s.troubled.Load() {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	outage, group := s.troubles(t.key())
	switch {
	case outage != nil:
		return fmt.Errorf("%w: %s", ErrDown, s.cause)
	case group != nil:
		return fmt.Errorf("%w: %s", ErrStalled, s.reason(t.key()))
	}
	return nil
}

// troubles are those that concern a group; each may be nil. The caller holds the lock.
func (s *stalls) troubles(key groupKey) (outage, group *stall) {
	if s.outage != nil && s.everybodys(key) {
		outage = s.outage
	}
	return outage, s.groups[key]
}

// due reports whether somebody may try, and notes who was sent back first.
func (x *stall) due(now time.Time) bool {
	if x == nil || !now.Before(x.next) {
		return true
	}
	if x.turned.IsZero() {
		x.turned = now
	}
	x.last = now
	return false
}

// try counts a trial.
func (s *stalls) try(x *stall, now time.Time) {
	if x != nil {
		x.trials++
		x.next = now.Add(s.trial(x.trials))
	}
}

// everybodys reports whether an outage is this group's, too: one that has not failed
// itself may be another's of which nothing bad is known, as long as few have.
func (s *stalls) everybodys(key groupKey) bool {
	_, failed := s.failing[key]
	return failed || len(s.failing) >= downGroups
}

// leave tells a flush that begins now when it need not wait any longer.
func (s *stalls) leave() *leave {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.left
}

// patience is how long a flush waits for a group that takes nothing, most at most; and how
// long where another flush is waiting for it already. Both are most where other groups fail
// as well: what is everybody's trouble is over sooner here than by way of Fluent Bit.
func (s *stalls) patience(t Target, most time.Duration) (first, second time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.answer == 0 || !s.alone(t.key()) {
		return most, most
	}
	first = min(most, max(leastPatience, patienceInAnswers*s.answer))
	return first, min(first, max(leastSecond, secondInAnswers*s.answer))
}

// alone reports whether no other group's calls failed lately. The caller holds the lock.
func (s *stalls) alone(key groupKey) bool {
	elsewhere := s.fails.elsewhere(key)
	return elsewhere.IsZero() || s.now().Sub(elsewhere) > lately
}

// struggled notes a call that failed for what may be gone soon: a throttled one, too.
func (s *stalls) struggled(t Target, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	key := t.key()
	s.fails.note(key, s.now())
	if len(s.why) >= maxStalled {
		clear(s.why)
	}
	s.why[key] = awsclient.Brief(err)
}

// unanswered is the reason for a group of which no call has failed.
const unanswered = "no call has been answered yet"

// reason is why a group takes nothing, in words. The caller holds the lock.
func (s *stalls) reason(key groupKey) string {
	if why, ok := s.why[key]; ok {
		return why
	}
	return unanswered
}

// because is an error with the reason for which a target's group takes nothing.
func (s *stalls) because(err error, t Target) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return fmt.Errorf("%w: %s", err, s.reason(t.key()))
}

// stays reports whether a flush is to wait on for a group that took nothing since it began:
// the first that asks, and all of them where the group, or nobody, was served meanwhile.
func (s *stalls) stays(t Target, w *wait) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	key := t.key()
	if s.took[key].After(w.began) || !s.worked.at.After(w.began) {
		return true
	}
	if other := s.waits[key]; other != nil {
		return other == w
	}
	s.waits[key] = w
	w.stays = append(w.stays, key)
	s.troubled.Store(true)
	return true
}

// waited reports whether a flush stays for a group that still took nothing, while others
// did. The caller holds the lock.
func (s *stalls) waited(key groupKey) bool {
	w := s.waits[key]
	return w != nil && !s.took[key].After(w.began) && s.worked.at.After(w.began) && s.alone(key)
}

// leaves lets another flush be the one that stays.
func (s *stalls) leaves(keys []groupKey) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, key := range keys {
		delete(s.waits, key)
	}
	s.calm()
}

// calm notes whether there is any trouble left. The caller holds the lock.
func (s *stalls) calm() {
	s.troubled.Store(len(s.groups) > 0 || len(s.waits) > 0 || s.outage != nil)
}

// succeeded notes that CloudWatch took events for a target, and how long it took for them.
func (s *stalls) succeeded(t Target, took time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	key := t.key()
	switch {
	case s.answer == 0:
		s.answer = took
	case took > s.answer:
		s.answer += (took - s.answer) / 4
	default:
		s.answer -= (s.answer - took) / 32
	}
	now := s.now()
	if len(s.took) >= maxStalled {
		clear(s.took) // names of groups may come from records: `identity record`
		s.forgot = now
	}
	s.took[key] = now
	delete(s.why, key)
	s.worked.note(key, now)
	s.up()
	s.served(t)
	s.calm()
}

// served ends a group's trouble, and says so where its beginning was said. The caller holds
// the lock.
func (s *stalls) served(t Target) {
	x := s.groups[t.key()]
	if x == nil {
		return
	}
	if x.said {
		s.log.Info("the log group takes events again", "group", t.Group)
	}
	s.forget(t.key())
}

// answered notes that CloudWatch read what was sent for a target and found it wanting: it is
// no outage, and the group is worth being waited for.
func (s *stalls) answered(t Target) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.why, t.key())
	s.up()
	s.served(t)
	s.calm()
}

// up ends an outage, and what would have become one. The caller holds the lock.
func (s *stalls) up() {
	if s.count > 0 {
		s.count, s.since = 0, time.Time{}
		clear(s.failing)
	}
	if s.outage == nil {
		return
	}
	s.outage = nil
	s.log.Info("CloudWatch Logs answers again")
	if s.down != nil {
		s.down(false)
	}
}

// forget ends a group's trouble. The caller holds the lock.
func (s *stalls) forget(key groupKey) {
	delete(s.groups, key)
	s.calm()
	s.tell(Target{Role: key.role, Group: key.group}, false)
}

// failed notes a call begun at a time that failed for no reason of its own: no network, no
// answer, an error inside AWS. Throttling is not one: it is an answer.
func (s *stalls) failed(t Target, began time.Time, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.count == 0 || began.Before(s.since) {
		s.since = began
	}
	s.count++
	s.failing[t.key()] = struct{}{}
	if s.outage == nil {
		if s.count < downFailures || s.now().Sub(s.since) < downAfter {
			return
		}
		s.outage, s.cause = &stall{next: s.now().Add(s.trial(0))}, awsclient.Brief(err)
		s.troubled.Store(true)
		s.log.Error("CloudWatch Logs is out of reach; chunks go back to Fluent Bit at once, but for a trial from time to time", "error", awsclient.Brief(err))
		if s.down != nil {
			s.down(true)
		}
	}
	s.left.err = fmt.Errorf("%w: %s", ErrDown, awsclient.Brief(err))
	close(s.left.now)
	s.left = newLeave()
}

// stall says that a stream took nothing since a flush began, and reports whether that is
// its own trouble: whether another stream took something meanwhile. Where its whole group
// took nothing, the group is marked.
func (s *stalls) stall(t Target, since time.Time) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	key := t.key()
	if !s.worked.at.After(since) {
		return false
	}
	if s.groups[key] != nil || s.took[key].After(since) || s.forgot.After(since) {
		return true
	}
	if len(s.groups) < maxStalled {
		s.groups[key] = &stall{next: s.now().Add(s.trial(0)), said: s.say(t)}
		s.troubled.Store(true)
		s.tell(t, true)
	}
	return true
}

// say tells that a group is stalled, and of one that comes and goes from time to time; it
// reports whether it did. The caller holds the lock.
func (s *stalls) say(t Target) bool {
	key, now := t.key(), s.now()
	if at, ok := s.said[key]; ok && now.Sub(at) < sayAgain {
		return false
	}
	if len(s.said) >= maxStalled {
		clear(s.said)
	}
	s.said[key] = now
	s.log.Error("a log group takes nothing although others do; its chunks go back to Fluent Bit at once, but for a trial from time to time", "group", t.Group, "error", s.reason(key))
	return true
}

// othersWork reports whether any group took anything since then.
func (s *stalls) othersWork(since time.Time) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.worked.at.After(since)
}

// waiting is since when chunks have been sent back; zero where none are.
func (s *stalls) waiting() (since time.Time) {
	if !s.troubled.Load() {
		return since
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.now()
	earlier := func(x *stall) {
		if x != nil && now.Sub(x.last) < forgetStalled && !x.turned.IsZero() && (since.IsZero() || x.turned.Before(since)) {
			since = x.turned
		}
	}
	earlier(s.outage)
	for key, x := range s.groups {
		if now.Sub(x.last) >= forgetStalled && now.Sub(x.next) >= forgetStalled {
			s.forget(key)
			continue
		}
		earlier(x)
	}
	return since
}

func (s *stalls) tell(t Target, stalled bool) {
	if s.told != nil {
		s.told(t, stalled)
	}
}

// keep forgets the groups that nobody sends to any more.
func (s *stalls) keep(used func(groupKey) bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for key := range s.groups {
		if !used(key) {
			s.forget(key)
		}
	}
	maps.DeleteFunc(s.why, func(key groupKey, _ string) bool { return !used(key) })
}

// worked is when calls last worked, for the last two groups apart.
type worked struct {
	last  groupKey
	at    time.Time
	other time.Time // for any other group
}

func (w *worked) note(key groupKey, at time.Time) {
	if w.last != key {
		w.other = w.at
	}
	w.last, w.at = key, at
}

// elsewhere is when a call last worked for another group than this one.
func (w worked) elsewhere(key groupKey) time.Time {
	if w.last != key {
		return w.at
	}
	return w.other
}
