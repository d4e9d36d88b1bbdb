package loggroup

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/cloudwatchlogs"
	"github.com/aws/aws-sdk-go-v2/service/cloudwatchlogs/types"

	"github.com/eks-tenant-logs/eks-tenant-logs/internal/awsclient"
)

// work is one group's open retention work.
type work struct {
	spec    Spec
	created bool // by this process
	// unfinished: its tags say so, whoever created it.
	unfinished bool
	attempt    int // how often it failed
	due        time.Time
	// entry tells this work from one for the same group that came in while it was done.
	entry uint64
	// raised: the retention was set by us, and is looked at once more later.
	raised bool
	// unmarked: its retention is right, and whether it is marked so is looked at after
	// later, or has been put off already where that is 0.
	unmarked bool
	later    time.Duration
	// settled: it is confirmed, and only a later look is left.
	settled bool
	// stuck: setting the retention had no effect, it stayed at stuckAt days (0: for ever).
	stuck   bool
	stuckAt int32
}

func (k *Keeper) enqueue(w work) {
	k.mu.Lock()
	k.entries++
	w.entry = k.entries
	if old, ok := k.waiting[w.spec.Group]; ok {
		w.created = w.created || old.created
		if old.due.Before(w.due) {
			w.due = old.due
		}
	}
	k.waiting[w.spec.Group] = w
	k.mu.Unlock()
	select {
	case k.wake <- struct{}{}:
	default:
	}
}

// run confirms retention, group after group, until Close.
func (k *Keeper) run() {
	defer close(k.done)
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		batch, wait := k.due(time.Now())
		if len(batch) > 0 {
			k.confirm(batch)
			continue
		}
		timer.Reset(wait)
		select {
		case <-k.ctx.Done():
			return
		case <-k.wake:
		case <-timer.C:
		}
	}
}

// due takes up to one call's worth of groups whose time has come, or says how long
// to wait for the next.
func (k *Keeper) due(now time.Time) (batch []work, wait time.Duration) {
	k.mu.Lock()
	defer k.mu.Unlock()
	wait = time.Hour
	if k.ctx.Err() != nil {
		return nil, wait
	}
	for _, w := range k.waiting {
		if d := w.due.Sub(now); d > 0 {
			wait = min(wait, d)
		} else if batch = append(batch, w); len(batch) == describeAtOnce {
			break
		}
	}
	return batch, wait
}

// confirm looks at the groups of one batch and settles each. Every step has a time
// limit of its own: one answer that hangs must not end the work for all the others.
func (k *Keeper) confirm(batch []work) {
	began := time.Now()
	var groups map[string]types.LogGroup
	err := k.retentions.resting(began)
	if err == nil {
		groups, err = k.inspect(batch)
		k.retentions.answered(awsclient.Classify(err), began, time.Now())
		if err != nil && k.ctx.Err() == nil && k.tell(err, began) {
			k.cfg.Log.Error("retention of log groups is not confirmed; events are delivered meanwhile",
				"groups", len(batch), "first", batch[0].spec.Group, "error", awsclient.Brief(err))
		}
	}
	again := map[int]time.Time{} // by attempt
	for _, w := range batch {
		began := time.Now()
		werr := err
		if werr == nil {
			werr = k.retentions.resting(began)
		}
		if werr == nil {
			werr = k.settle(&w, groups[w.spec.Group])
			k.retentions.answered(awsclient.Classify(werr), began, time.Now())
			if werr != nil && k.ctx.Err() == nil && k.tell(werr, began) {
				// Each failure is told, but ever more rarely: the back-off is the rate limit.
				k.cfg.Log.Error("retention of a log group is not confirmed; events are delivered meanwhile",
					"group", w.spec.Group, "days", w.spec.RetentionDays, "attempt", w.attempt+1, "error", awsclient.Brief(werr))
			}
		}
		if k.ctx.Err() != nil {
			return
		}
		k.finish(w, werr, again)
	}
}

// tell reports whether a failure is to be logged: one that is the account's quota only now and
// then, for it comes again and again.
func (k *Keeper) tell(err error, now time.Time) bool {
	if awsclient.Classify(err) != awsclient.ClassThrottled {
		return true
	}
	if now.Sub(k.toldThrottled) < time.Minute {
		return false
	}
	k.toldThrottled = now
	return true
}

// consistency is how often a change that does not show yet is taken for one that has
// not reached every host of AWS.
const consistency = 5

// finish takes the group off the list, or puts it back with a later date. Those that
// failed together are looked at again together, at the moment that is noted in again by
// how often they have failed: each at its own would be a call for each, when the account
// throttles already.
func (k *Keeper) finish(w work, err error, again map[int]time.Time) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.waiting[w.spec.Group].entry != w.entry {
		return // it was created anew meanwhile: that is done next
	}
	if err == nil && w.raised {
		// Setting looks at what is there and puts: another node with other days may have
		// put between the two. Whoever wants more looks again and wins.
		w.raised, w.created, w.unfinished, w.attempt, w.stuck = false, false, false, 0, false
		w.settled, w.due = true, time.Now().Add(k.cfg.Recheck/2+rand.N(k.cfg.Recheck))
		k.waiting[w.spec.Group] = w
		return
	}
	if err == nil && w.later > 0 {
		w.settled, w.attempt, w.due, w.later = true, 0, time.Now().Add(w.later), 0
		k.waiting[w.spec.Group] = w
		return
	}
	if err == nil {
		delete(k.waiting, w.spec.Group)
		return
	}
	w.settled = false
	if awsclient.Classify(err) == awsclient.ClassThrottled {
		// The account's quota, and no fault of the group: it goes on as soon as this process
		// calls again. Backing off group by group leaves most of the quota unused.
		now := time.Now()
		w.due = now.Add(k.retentions.rest(now) + throttledPause).Truncate(throttledPause).Add(throttledPause)
		k.waiting[w.spec.Group] = w
		return
	}
	w.attempt++
	if again[w.attempt].IsZero() {
		again[w.attempt] = time.Now().Add(k.cfg.Backoff(w.attempt))
	}
	w.due = again[w.attempt]
	if w.stuck && w.attempt > consistency {
		w.due = time.Now().Add(k.cfg.Recheck)
	}
	k.waiting[w.spec.Group] = w
}

const (
	// throttledPause is how long a group waits at least after a call was throttled: all of
	// them the same, to be looked at together in one call.
	throttledPause = time.Second
	// maxRetentionRest bounds how long a process makes no call about retention: with a
	// thousand nodes that all would, each may have one in 200 s of PutRetentionPolicy's 5
	// calls a second.
	maxRetentionRest = 5 * time.Minute
)

// inspect reads the groups of a batch.
func (k *Keeper) inspect(batch []work) (groups map[string]types.LogGroup, err error) {
	defer recovered(&err)
	ctx, cancel := context.WithTimeout(k.ctx, k.cfg.CallTimeout)
	defer cancel()
	names := make([]string, len(batch))
	for i, w := range batch {
		names[i] = w.spec.Group
	}
	return k.describe(ctx, names)
}

// describe reads groups by their exact names; those that are not there are missing.
func (k *Keeper) describe(ctx context.Context, names []string) (map[string]types.LogGroup, error) {
	found := make(map[string]types.LogGroup, len(names))
	in := &cloudwatchlogs.DescribeLogGroupsInput{LogGroupIdentifiers: names}
	for {
		out, err := k.api.DescribeLogGroups(ctx, in)
		if err != nil {
			return nil, fmt.Errorf("failed to describe %d log groups: %w", len(names), err)
		}
		for _, g := range out.LogGroups {
			if g.LogGroupName == nil {
				continue
			}
			found[*g.LogGroupName] = g
			if k.cfg.Observe != nil {
				k.cfg.Observe(*g.LogGroupName, effective(g))
			}
		}
		if out.NextToken == nil || *out.NextToken == "" {
			return found, nil
		}
		in = &cloudwatchlogs.DescribeLogGroupsInput{LogGroupIdentifiers: names, NextToken: out.NextToken}
	}
}

// maxMissing is how often a group may be missing from the answers, over some
// twenty minutes, before it is taken for deleted.
const maxMissing = 10

// settle makes one group's retention right and reads it back.
func (k *Keeper) settle(w *work, g types.LogGroup) (err error) {
	defer recovered(&err)
	ctx, cancel := context.WithTimeout(k.ctx, k.cfg.CallTimeout)
	defer cancel()
	if g.LogGroupName == nil {
		if w.attempt < maxMissing && !w.settled {
			return fmt.Errorf("group %s is not listed (yet)", w.spec.Group)
		}
		k.cfg.Log.Warn("a log group is gone; its retention is looked at again when events go there", "group", w.spec.Group)
		k.checked.Remove(w.spec.Group)
		return nil
	}
	arn := value(g.LogGroupArn)
	isNew := w.created || w.unfinished
	if !isNew && (g.RetentionInDays == nil || young(g)) {
		if Enough(g, w.spec.RetentionDays) && !w.unmarked {
			w.unmarked, w.later = true, k.cfg.Unmarked()
			if w.later > 0 {
				return nil
			}
		}
		// It may be ours, and not finished: only the tags tell.
		out, err := k.api.ListTagsForResource(ctx, &cloudwatchlogs.ListTagsForResourceInput{ResourceArn: &arn})
		if err != nil {
			return fmt.Errorf("failed to read the tags of group %s: %w", w.spec.Group, err)
		}
		isNew = out.Tags[TagState] == StateNew
		w.unfinished = isNew
	}
	switch Decide(g, w.spec.RetentionDays, isNew) {
	case Leave:
		if w.attempt > 0 {
			k.cfg.Log.Info("retention read back", "group", w.spec.Group, "days", w.spec.RetentionDays, "has", daysText(g.RetentionInDays))
		}
	case Report:
		k.cfg.Log.Info("log group never expires; left as it is", "group", w.spec.Group, "configured_days", w.spec.RetentionDays)
		return nil
	case Raise:
		if err := k.raise(ctx, w, g); err != nil {
			return err
		}
	}
	if !isNew {
		return nil
	}
	return k.markReady(ctx, w.spec.Group, arn)
}

// raise sets the retention and reads it back: an account-level policy wins over it,
// and the call succeeds all the same. A retention that stayed what it was is not set
// again, or every node would call for ever, at 5 calls/s for the whole account; it
// is looked at, for the policy may go.
func (k *Keeper) raise(ctx context.Context, w *work, g types.LogGroup) error {
	days := int32(w.spec.RetentionDays)
	if w.stuck && w.stuckAt == number(g.RetentionInDays) {
		return stuckError(g, days)
	}
	if _, err := k.api.PutRetentionPolicy(ctx, &cloudwatchlogs.PutRetentionPolicyInput{LogGroupName: &w.spec.Group, RetentionInDays: &days}); err != nil {
		return fmt.Errorf("failed to set %d days of retention on group %s: %w", days, w.spec.Group, err)
	}
	groups, err := k.describe(ctx, []string{w.spec.Group})
	if err != nil {
		return err
	}
	back := groups[w.spec.Group]
	if back.LogGroupName == nil {
		return fmt.Errorf("group %s is not listed any more", w.spec.Group)
	}
	if !Enough(back, w.spec.RetentionDays) {
		w.stuck, w.stuckAt = true, number(back.RetentionInDays)
		return stuckError(back, days)
	}
	w.raised = true
	k.cfg.Log.Info("retention set and read back", "group", w.spec.Group, "days", days, "before", daysText(g.RetentionInDays), "effective", daysText(back.RetentionInDays))
	return nil
}

// stuckError says that setting days did not show in the group.
func stuckError(g types.LogGroup, days int32) error {
	if p := value(g.RetentionPolicyName); p != "" {
		return fmt.Errorf("group %s keeps its events %s instead of %d: the account-level retention policy %q wins over it: change the policy, or log_retention_days",
			*g.LogGroupName, daysText(g.RetentionInDays), days, p)
	}
	return fmt.Errorf("group %s still keeps its events %s after %d days were set", *g.LogGroupName, daysText(g.RetentionInDays), days)
}

// youth is how old a group may be for its tags to be read although its retention is
// right: one left in state new by a crash is found by whoever uses it next, and
// reading the tags of every group at every start would be a call for each.
const youth = 7 * 24 * time.Hour

func young(g types.LogGroup) bool {
	return g.CreationTime != nil && time.Since(time.UnixMilli(*g.CreationTime)) < youth
}

// markReady marks a group of ours as finished.
func (k *Keeper) markReady(ctx context.Context, group, arn string) error {
	_, err := k.api.TagResource(ctx, &cloudwatchlogs.TagResourceInput{ResourceArn: &arn, Tags: map[string]string{TagState: StateReady}})
	if err != nil {
		return fmt.Errorf("failed to tag group %s as ready: %w", group, err)
	}
	return nil
}

// Verdict is what is to be done about a group's retention.
type Verdict uint8

const (
	// Leave: it keeps its events long enough.
	Leave Verdict = iota
	// Raise: too short, or ours and not set yet.
	Raise
	// Report: its events never expire, and it was so before us.
	Report
)

// Decide is the rule of retention, for want days of it:
//
//	effective  | ours and unfinished | otherwise
//	-----------+---------------------+----------
//	< want     | raise               | raise
//	>= want    | leave               | leave
//	never      | raise               | report
//	by policy  | raise               | as above; never: leave
//
// An account-level policy may go: what is ours has days of its own under it, too.
func Decide(g types.LogGroup, want int, unfinished bool) Verdict {
	policy := value(g.RetentionPolicyName) != ""
	switch {
	case policy && unfinished:
		return Raise
	case g.RetentionInDays == nil && !unfinished && !policy:
		return Report
	case !Enough(g, want):
		return Raise
	}
	return Leave
}

// Enough reports whether a group keeps its events as long as it should. Without a
// number of days they never expire: by an account-level policy that is meant, else it
// may be what nobody has set yet.
func Enough(g types.LogGroup, want int) bool {
	if g.RetentionInDays == nil {
		return value(g.RetentionPolicyName) != ""
	}
	return int(*g.RetentionInDays) >= want
}

func effective(g types.LogGroup) float64 {
	if g.RetentionInDays == nil {
		return math.Inf(1)
	}
	return float64(*g.RetentionInDays)
}

func number(days *int32) int32 {
	if days == nil {
		return 0
	}
	return *days
}

func daysText(days *int32) string {
	if days == nil {
		return "for ever"
	}
	return fmt.Sprintf("%d days", *days)
}

func value(s *string) string {
	if s == nil {
		return ""
	}
	return *s
}
