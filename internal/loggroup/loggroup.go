// Package loggroup creates log groups and streams where they are missing and keeps
// their retention true: created groups are read back, existing ones raised, none
// ever shortened. It must not know what is delivered, or when.
package loggroup

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/cloudwatchlogs"
	"github.com/aws/aws-sdk-go-v2/service/cloudwatchlogs/types"
	lru "github.com/hashicorp/golang-lru/v2"
	"golang.org/x/sync/singleflight"

	"github.com/eks-tenant-logs/eks-tenant-logs/internal/awsclient"
)

// Ownership tags of a log group.
const (
	TagTenant = "eks-tenant-logs/tenant"
	TagState  = "eks-tenant-logs/state"

	// StateNew: created, its retention not confirmed yet. Whoever finds a group in
	// this state finishes the work.
	StateNew = "new"
	// StateReady: its retention was read back and is what it should be.
	StateReady = "ready"
)

// API is what is asked of CloudWatch Logs.
type API interface {
	CreateLogGroup(context.Context, *cloudwatchlogs.CreateLogGroupInput, ...func(*cloudwatchlogs.Options)) (*cloudwatchlogs.CreateLogGroupOutput, error)
	CreateLogStream(context.Context, *cloudwatchlogs.CreateLogStreamInput, ...func(*cloudwatchlogs.Options)) (*cloudwatchlogs.CreateLogStreamOutput, error)
	PutRetentionPolicy(context.Context, *cloudwatchlogs.PutRetentionPolicyInput, ...func(*cloudwatchlogs.Options)) (*cloudwatchlogs.PutRetentionPolicyOutput, error)
	DescribeLogGroups(context.Context, *cloudwatchlogs.DescribeLogGroupsInput, ...func(*cloudwatchlogs.Options)) (*cloudwatchlogs.DescribeLogGroupsOutput, error)
	ListTagsForResource(context.Context, *cloudwatchlogs.ListTagsForResourceInput, ...func(*cloudwatchlogs.Options)) (*cloudwatchlogs.ListTagsForResourceOutput, error)
	TagResource(context.Context, *cloudwatchlogs.TagResourceInput, ...func(*cloudwatchlogs.Options)) (*cloudwatchlogs.TagResourceOutput, error)
}

// Spec is how a group is to be.
type Spec struct {
	Group string
	// Tenant goes into the ownership tag; empty for the platform's groups.
	Tenant string
	// RetentionDays is the least the group keeps its events.
	RetentionDays int
	// Tags are added to a group that is created.
	Tags map[string]string
	// KMSKeyID is the key's ARN; Class is STANDARD, INFREQUENT_ACCESS, ... ; empty
	// means AWS's default. Both matter only when the group is created.
	KMSKeyID string
	Class    string
	// DeletionProtection is set on a group that is created.
	DeletionProtection bool
}

// Config says what the keeper may do.
type Config struct {
	// Create allows creating groups and setting retention. Without it a missing
	// group is an error, and retention is the provisioner's.
	Create bool
	Log    *slog.Logger
	// Delay spreads the first look at a group that existed before over a window, so
	// that a restart of all nodes is not one burst; DescribeLogGroups is 10 calls/s
	// per account. 0 means at once.
	Delay func() time.Duration
	// Backoff is the wait before attempt n (from 1) of retention work that failed.
	Backoff func(n int) time.Duration
}

// MissingError says that a group is not there and may not be created here.
type MissingError struct{ Group string }

func (e *MissingError) Error() string {
	return fmt.Sprintf("log group %s does not exist and auto_create_group is off: the provisioner has to create it", e.Group)
}

// Class is awsclient.ClassNotFound.
func (e *MissingError) Class() awsclient.Class { return awsclient.ClassNotFound }

// known bounds how many groups one process remembers; an eviction costs one more look.
const known = 8192

// describeAtOnce is how many groups one DescribeLogGroups call names
// (logGroupIdentifiers; API reference).
const describeAtOnce = 50

// Keeper creates groups and streams and keeps retention. It may be used by many
// goroutines. Close ends its background work.
type Keeper struct {
	api API
	cfg Config

	flight  singleflight.Group
	checked *lru.Cache[string, struct{}] // groups looked at, or being looked at
	created *lru.Cache[string, int]      // how often this process has made the group exist

	mu      sync.Mutex
	waiting map[string]work // groups whose retention is still to be confirmed
	wake    chan struct{}
	ctx     context.Context
	cancel  context.CancelFunc
	done    chan struct{}
}

// work is one group's open retention work.
type work struct {
	spec    Spec
	created bool // by this process
	attempt int
	due     time.Time
}

// NewKeeper starts a keeper.
func NewKeeper(api API, cfg Config) *Keeper {
	if cfg.Backoff == nil {
		cfg.Backoff = func(n int) time.Duration {
			return min(time.Second<<min(n, 10), 5*time.Minute)
		}
	}
	if cfg.Delay == nil {
		cfg.Delay = func() time.Duration { return 0 }
	}
	checked, err := lru.New[string, struct{}](known)
	if err != nil {
		panic(err) // only for a size that is not positive
	}
	created, err := lru.New[string, int](known)
	if err != nil {
		panic(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	k := &Keeper{
		api: api, cfg: cfg, checked: checked, created: created, waiting: map[string]work{},
		wake: make(chan struct{}, 1), ctx: ctx, cancel: cancel, done: make(chan struct{}),
	}
	go k.run()
	return k
}

// Close stops the background work; what is still open is finished by whoever finds
// the group in state new.
func (k *Keeper) Close() {
	k.cancel()
	<-k.done
}

// Used tells the keeper that a group is in use. The first time, it looks in the
// background whether the group's retention is what spec asks.
func (k *Keeper) Used(spec Spec) {
	if !k.cfg.Create {
		return
	}
	if seen, _ := k.checked.ContainsOrAdd(spec.Group, struct{}{}); seen {
		return
	}
	k.enqueue(work{spec: spec, due: time.Now().Add(k.cfg.Delay())})
}

// Open returns how many groups still wait for their retention to be confirmed.
func (k *Keeper) Open() int {
	k.mu.Lock()
	defer k.mu.Unlock()
	return len(k.waiting)
}

// createTimeout bounds the creation of a group and its stream. It is apart from the
// flush's own time, because several flushes wait for the same creation.
const createTimeout = 30 * time.Second

// EnsureStream makes the stream exist, and its group where that is missing too.
// Many callers asking for the same group at once make one set of calls.
func (k *Keeper) EnsureStream(ctx context.Context, spec Spec, stream string) error {
	key := struct{ group, stream string }{spec.Group, stream}
	// ':' can be in neither a group's name nor a stream's, so the key is unambiguous.
	ch := k.flight.DoChan(key.group+":"+key.stream, func() (any, error) {
		ctx, cancel := context.WithTimeout(k.ctx, createTimeout)
		defer cancel()
		return nil, k.ensureStream(ctx, spec, stream)
	})
	select {
	case r := <-ch:
		return r.Err
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (k *Keeper) ensureStream(ctx context.Context, spec Spec, stream string) error {
	before, _ := k.created.Get(spec.Group)
	err := k.createStream(ctx, spec.Group, stream)
	if awsclient.Classify(err) != awsclient.ClassNotFound {
		return err
	}
	if !k.cfg.Create {
		return &MissingError{spec.Group}
	}
	_, err, _ = k.flight.Do(spec.Group, func() (any, error) {
		// Another stream's caller may have created it since ours was refused.
		if n, _ := k.created.Get(spec.Group); n != before {
			return nil, nil
		}
		ctx, cancel := context.WithTimeout(k.ctx, createTimeout)
		defer cancel()
		err := k.createGroup(ctx, spec)
		if err == nil {
			k.created.Add(spec.Group, before+1)
		}
		return nil, err
	})
	if err != nil {
		return err
	}
	// A group that was created a moment ago may not be seen by every host of AWS yet.
	for n := 1; ; n++ {
		err = k.createStream(ctx, spec.Group, stream)
		if awsclient.Classify(err) != awsclient.ClassNotFound || n == 6 {
			return err
		}
		if err := sleep(ctx, time.Duration(n*n)*50*time.Millisecond); err != nil {
			return err
		}
	}
}

func (k *Keeper) createStream(ctx context.Context, group, stream string) error {
	_, err := k.api.CreateLogStream(ctx, &cloudwatchlogs.CreateLogStreamInput{LogGroupName: &group, LogStreamName: &stream})
	if c := awsclient.Classify(err); c == awsclient.ClassNone || c == awsclient.ClassExists {
		return nil
	}
	return fmt.Errorf("failed to create stream %s of group %s: %w", stream, group, err)
}

// createGroup creates the group in state new and hands its retention to the
// background, which does not hold up the events that wait for the group.
func (k *Keeper) createGroup(ctx context.Context, spec Spec) error {
	in := &cloudwatchlogs.CreateLogGroupInput{LogGroupName: &spec.Group, Tags: maps.Clone(spec.Tags)}
	if in.Tags == nil {
		in.Tags = map[string]string{}
	}
	in.Tags[TagState] = StateNew
	if spec.Tenant != "" {
		in.Tags[TagTenant] = spec.Tenant
	}
	if spec.KMSKeyID != "" {
		in.KmsKeyId = &spec.KMSKeyID
	}
	if spec.Class != "" {
		in.LogGroupClass = types.LogGroupClass(spec.Class)
	}
	if spec.DeletionProtection {
		in.DeletionProtectionEnabled = &spec.DeletionProtection
	}
	created := true
	_, err := k.api.CreateLogGroup(ctx, in)
	switch awsclient.Classify(err) {
	case awsclient.ClassNone:
		k.cfg.Log.Info("created log group", "group", spec.Group, "tenant", spec.Tenant)
	case awsclient.ClassExists, awsclient.ClassConflict:
		// Another node is at it: both answers mean "look again".
		created = false
	default:
		return fmt.Errorf("failed to create group %s: %w", spec.Group, err)
	}
	k.checked.Add(spec.Group, struct{}{})
	k.enqueue(work{spec: spec, created: created, due: time.Now()})
	return nil
}

func (k *Keeper) enqueue(w work) {
	k.mu.Lock()
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

func (k *Keeper) confirm(batch []work) {
	groups, err := k.describe(k.ctx, batch)
	for _, w := range batch {
		werr := err
		if err == nil {
			werr = k.settle(k.ctx, w, groups[w.spec.Group])
		}
		if k.ctx.Err() != nil {
			return
		}
		k.finish(w, werr)
	}
}

// finish takes the group off the list, or puts it back with a later date.
func (k *Keeper) finish(w work, err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if err == nil {
		delete(k.waiting, w.spec.Group)
		return
	}
	w.attempt++
	w.due = time.Now().Add(k.cfg.Backoff(w.attempt))
	k.waiting[w.spec.Group] = w
	// Each failure is told, but ever more rarely: the back-off is the rate limit.
	k.cfg.Log.Error("retention of a log group is not confirmed; events are delivered meanwhile",
		"group", w.spec.Group, "days", w.spec.RetentionDays, "attempt", w.attempt, "error", awsclient.Brief(err),
		"next_try", time.Until(w.due).Round(time.Second))
}

// describe reads the groups of a batch by their exact names.
func (k *Keeper) describe(ctx context.Context, batch []work) (map[string]types.LogGroup, error) {
	names := make([]string, len(batch))
	for i, w := range batch {
		names[i] = w.spec.Group
	}
	return k.describeNames(ctx, names)
}

func (k *Keeper) describeNames(ctx context.Context, names []string) (map[string]types.LogGroup, error) {
	found := make(map[string]types.LogGroup, len(names))
	in := &cloudwatchlogs.DescribeLogGroupsInput{LogGroupIdentifiers: names}
	for {
		out, err := k.api.DescribeLogGroups(ctx, in)
		if err != nil {
			return nil, fmt.Errorf("failed to describe %d log groups: %w", len(names), err)
		}
		for _, g := range out.LogGroups {
			if g.LogGroupName != nil {
				found[*g.LogGroupName] = g
			}
		}
		if out.NextToken == nil || *out.NextToken == "" {
			return found, nil
		}
		in = &cloudwatchlogs.DescribeLogGroupsInput{LogGroupIdentifiers: names, NextToken: out.NextToken}
	}
}

// settle makes one group's retention right and reads it back.
func (k *Keeper) settle(ctx context.Context, w work, g types.LogGroup) error {
	if g.LogGroupName == nil {
		return fmt.Errorf("group %s is not listed (yet)", w.spec.Group)
	}
	arn := value(g.LogGroupArn)
	isNew := w.created
	if !isNew && (g.RetentionInDays == nil || young(g)) {
		// It may be ours, and not finished: only the tags tell.
		out, err := k.api.ListTagsForResource(ctx, &cloudwatchlogs.ListTagsForResourceInput{ResourceArn: &arn})
		if err != nil {
			return fmt.Errorf("failed to read the tags of group %s: %w", w.spec.Group, err)
		}
		isNew = out.Tags[TagState] == StateNew
	}
	action := decide(g.RetentionInDays, w.spec.RetentionDays, isNew)
	switch action {
	case leave:
		return k.ready(ctx, w, arn, isNew)
	case report:
		k.cfg.Log.Info("log group never expires; left as it is", "group", w.spec.Group, "configured_days", w.spec.RetentionDays)
		return nil
	}
	days := int32(w.spec.RetentionDays)
	if _, err := k.api.PutRetentionPolicy(ctx, &cloudwatchlogs.PutRetentionPolicyInput{LogGroupName: &w.spec.Group, RetentionInDays: &days}); err != nil {
		return fmt.Errorf("failed to set %d days of retention on group %s: %w", days, w.spec.Group, err)
	}
	// An account-level policy wins over this one, and the call succeeds all the same:
	// only reading it back tells.
	back, err := k.describeNames(ctx, []string{w.spec.Group})
	if err != nil {
		return err
	}
	if got := back[w.spec.Group].RetentionInDays; got == nil || *got < days {
		return fmt.Errorf("group %s keeps its events %s after %d were set; an account-level retention policy may win over it",
			w.spec.Group, daysText(got), days)
	}
	k.cfg.Log.Info("retention set and read back", "group", w.spec.Group, "days", days, "before", daysText(g.RetentionInDays))
	return k.ready(ctx, w, arn, isNew)
}

// youth is how old a group may be for its tags to be read although its retention is
// right: one left in state new by a crash is found by whoever uses it next, and
// reading the tags of every group at every start would be a call for each.
const youth = 7 * 24 * time.Hour

func young(g types.LogGroup) bool {
	return g.CreationTime != nil && time.Since(time.UnixMilli(*g.CreationTime)) < youth
}

// ready marks a group of ours as finished.
func (k *Keeper) ready(ctx context.Context, w work, arn string, isNew bool) error {
	if !isNew {
		return nil
	}
	_, err := k.api.TagResource(ctx, &cloudwatchlogs.TagResourceInput{ResourceArn: &arn, Tags: map[string]string{TagState: StateReady}})
	if err != nil {
		return fmt.Errorf("failed to tag group %s as ready: %w", w.spec.Group, err)
	}
	return nil
}

// action is what is done about a group's retention.
type action uint8

const (
	leave  action = iota // long enough
	raise                // too short, or ours and not set yet
	report               // never expires, and was so before us
)

// decide is the rule of retention:
//
//	has      | ours and unfinished | otherwise
//	---------+---------------------+----------
//	< want   | raise               | raise
//	>= want  | leave               | leave
//	never    | raise               | report
func decide(has *int32, want int, unfinished bool) action {
	switch {
	case has == nil && !unfinished:
		return report
	case has == nil || int(*has) < want:
		return raise
	}
	return leave
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

func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}
