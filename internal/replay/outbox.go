package replay

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/eks-tenant-logs/eks-tenant-logs/internal/awsclient"
	"github.com/eks-tenant-logs/eks-tenant-logs/internal/chunk"
	"github.com/eks-tenant-logs/eks-tenant-logs/internal/delivery"
	"github.com/eks-tenant-logs/eks-tenant-logs/internal/loggroup"
	"github.com/eks-tenant-logs/eks-tenant-logs/internal/tenancy"
)

// outbox sends events to their homes through delivery, which knows of each whether
// CloudWatch accepted it.
type outbox struct {
	cfg    Config
	ending *ending
	reader func(awsclient.Role) *reader
	queue  *delivery.Deliverer

	mu      sync.Mutex // for what delivery's calls look at, too
	keepers map[awsclient.Role]*loggroup.Keeper
	specs   map[string]loggroup.Spec
	oldest  map[delivery.Target]time.Duration // by group: how old an event may be
	sent    uint64                            // batches
}

func newOutbox(cfg Config, e *ending) *outbox {
	o := &outbox{cfg: cfg, ending: e, keepers: map[awsclient.Role]*loggroup.Keeper{}, specs: map[string]loggroup.Spec{}, oldest: map[delivery.Target]time.Duration{}}
	o.queue = delivery.New(o, delivery.Config{
		Log: cfg.Log, MaxInFlight: 4, Compress: !cfg.Uncompressed, LedgerSize: 1, AttemptTimeout: callTime, Now: cfg.Clock.Now, Skew: cfg.Clock.Ahead,
		Guard: func(delivery.Target) bool { return false }, // what fails is told, not quarantined
	})
	return o
}

// target is a stream's home. Its stream has the name it has in quarantine.
func (o *outbox) target(home tenancy.Home, stream string) delivery.Target {
	t := delivery.Target{Group: home.Group, Stream: stream}
	if home.Tenant != nil {
		t.Role = awsclient.Role{ARN: home.Tenant.RoleARN, ExternalID: home.Tenant.ExternalID}
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if _, known := o.specs[t.Group]; !known {
		o.specs[t.Group] = o.cfg.Spec(home)
		if o.keepers[t.Role] == nil && !o.cfg.DryRun {
			o.keepers[t.Role] = loggroup.NewKeeper(o.reader(t.Role).account, loggroup.Config{Create: o.cfg.CreateGroups, Log: o.cfg.Log})
		}
	}
	return t
}

// age is how old an event may be for a group to take it. Where the group can't be looked
// at CloudWatch's own limit is taken: what it rejects is sent once more by delivery.
func (o *outbox) age(ctx context.Context, t delivery.Target) time.Duration {
	group := delivery.Target{Role: t.Role, Group: t.Group}
	if age, ok := o.oldest[group]; ok {
		return age
	}
	age := maxAge
	if days, err := o.reader(t.Role).retention(ctx, t.Group); err == nil && days > 0 {
		age = min(age, time.Duration(days)*24*time.Hour)
	}
	o.oldest[group] = age - ageMargin
	return age - ageMargin
}

// send returns nil once CloudWatch has accepted every event.
func (o *outbox) send(ctx context.Context, t delivery.Target, events *chunk.Events) error {
	ctx, cancel := context.WithTimeout(ctx, deliverTime)
	defer cancel()
	o.sent++
	var key delivery.Key // no chunk comes again: what arrived is read where it arrived
	binary.BigEndian.PutUint64(key[:], o.sent)
	return o.queue.Deliver(ctx, key, events, []delivery.Target{t})
}

// outcomeError is a failure after which CloudWatch may have the events, or not. delivery
// would send them again; here it is looked for them first.
type outcomeError struct{ err error }

func (e *outcomeError) Error() string          { return e.err.Error() }
func (e *outcomeError) Unwrap() error          { return e.err }
func (e *outcomeError) Class() awsclient.Class { return awsclient.ClassCanceled }

// Put is delivery's.
func (o *outbox) Put(ctx context.Context, t delivery.Target, body awsclient.Body, count int) (awsclient.Rejected, error) {
	rejected, err := o.reader(t.Role).account.Put(ctx, t.Group, t.Stream, body, count)
	switch awsclient.Classify(err) {
	case awsclient.ClassRetryable, awsclient.ClassCanceled:
		return rejected, &outcomeError{err}
	}
	return rejected, err
}

// EnsureStream is delivery's: the stream is created, the group only where that is asked for.
func (o *outbox) EnsureStream(ctx context.Context, t delivery.Target) error {
	o.mu.Lock()
	keeper, spec := o.keepers[t.Role], o.specs[t.Group]
	o.mu.Unlock()
	err := keeper.EnsureStream(ctx, spec, t.Stream)
	var missing *loggroup.MissingError
	if errors.As(err, &missing) {
		return &missingError{missing}
	}
	return err
}

type missingError struct{ missing *loggroup.MissingError }

func (e *missingError) Error() string {
	return fmt.Sprintf("log group %s does not exist: let the provisioner create it, or give --auto-create-group", e.missing.Group)
}
func (e *missingError) Unwrap() error { return e.missing }

// definite reports whether an error says that the home takes nothing at present: no
// batch is tried again, and no other stream of it.
func definite(err error) bool {
	var refused *awsclient.RefusedError
	if errors.As(err, &refused) && refused.Again {
		return false // the next attempt is signed with other credentials
	}
	switch awsclient.Classify(err) {
	case awsclient.ClassDenied, awsclient.ClassCredentials, awsclient.ClassNotFound, awsclient.ClassInvalid:
		return true
	}
	return false
}

// confirmTime bounds the wait for the retention of groups that were created.
const confirmTime = 30 * time.Second

// abort breaks off the calls under way. Nothing may be sent after it.
func (o *outbox) abort() {
	now, cancel := context.WithCancel(context.Background())
	cancel()
	o.queue.Close(now)
}

// close waits for calls under way, and for the retention of groups that were created; for neither
// once the replay's end is asked for.
func (o *outbox) close(ctx context.Context) {
	ctx, release := o.ending.breakable(ctx)
	defer release()
	o.queue.Close(ctx)
	end := o.cfg.Clock.Now().Add(confirmTime)
	for _, k := range o.keepers {
		for k.Open() > 0 && o.cfg.Clock.Now().Before(end) && o.cfg.Clock.Sleep(ctx, 100*time.Millisecond) == nil {
		}
		if n := k.Open(); n > 0 {
			o.cfg.Log.Warn("the retention of groups that were created is not confirmed; whoever uses them next finishes it", "groups", n)
		}
		k.Close()
	}
}

// delivered reads from a stream's home which events have arrived of those that a span may
// have sent.
func (o *outbox) delivered(ctx context.Context, t delivery.Target, sp span) (map[string]bool, error) {
	found := map[string]bool{}
	ranges := [][2]int64{{sp.from, sp.to}, {sp.at, sp.until}}
	if sp.at <= sp.to && sp.from <= sp.until {
		ranges = [][2]int64{{min(sp.from, sp.at), max(sp.to, sp.until)}}
	}
	for _, between := range ranges {
		err := o.reader(t.Role).events(ctx, t.Group, t.Stream, between[0], between[1]+1, func(e event) error {
			tags(e.message, func(tag string) { found[tag] = true })
			return nil
		})
		switch {
		case awsclient.Classify(err) == awsclient.ClassNotFound:
			return found, nil
		case err != nil:
			return nil, fmt.Errorf("what has arrived can't be told: %w", err)
		}
	}
	return found, nil
}
