// Package loggroup creates log groups and streams where they are missing and keeps
// their retention true: created groups are read back, existing ones raised, none
// ever shortened. It must not know what is delivered, or when.
package loggroup

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/cloudwatchlogs"
	lru "github.com/hashicorp/golang-lru/v2"
	"golang.org/x/sync/singleflight"

	"github.com/eks-tenant-logs/eks-tenant-logs/internal/awsclient"
	"github.com/eks-tenant-logs/eks-tenant-logs/internal/tenancy"
)

// Ownership tags of a log group.
const (
	TagTenant = tenancy.TagTenant
	TagState  = tenancy.TagState
	// TagCluster and the tags of the namespaces are the provisioner's: which cluster the
	// tenant is of, and who has it. See internal/provision.
	TagCluster      = tenancy.TagCluster
	TagNamespace    = tenancy.TagNamespace
	TagNamespaceUID = tenancy.TagNamespaceUID

	// StateNew: created, its retention not confirmed yet. Whoever finds a group in
	// this state finishes the work.
	StateNew = "new"
	// StateReady: its retention was read back and is what it should be.
	StateReady = "ready"
	// StateRetired: the tenant is retired. Its logs stay, and its name is nobody's.
	StateRetired = "retired"
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
	// Delay is how long the first look at groups that existed before waits. It should
	// be random: a restart of all nodes must not be one burst, for DescribeLogGroups is
	// 10 calls/s per account (CloudWatch Logs quotas). It is asked once for all the
	// groups that come into use meanwhile, which then make one call for 50 of them.
	// nil means at once.
	Delay func() time.Duration
	// Backoff is the wait before attempt n (from 1) of retention work that failed; nil
	// means doubling from 2 s to 5 min, half of it by chance.
	Backoff func(n int) time.Duration
	// Observe is told a group's effective retention in days whenever it was read; +Inf is
	// for ever.
	Observe func(group string, days float64)
	// Recheck is the wait before another look at a group over which an account-level
	// retention policy wins, and about the wait before one at a group whose retention was
	// set; 0 means 1 h.
	Recheck time.Duration
	// Unmarked is the wait before the tags are read of a group that is young and has its
	// retention: only they tell whether it is still in state new, and nothing but that
	// mark depends on it. Every node has to ask for every group by itself, at 5 calls/s
	// per account (CloudWatch Logs quotas). nil means by chance, up to a day.
	Unmarked func() time.Duration
	// CallTimeout bounds one look at groups, and the settling of one; 0 means 30 s.
	CallTimeout time.Duration
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
	checked *lru.Cache[string, int] // groups looked at, or being looked at, for how many days
	created *lru.Cache[string, int] // how often this process has made the group exist
	streams pace                    // of CreateLogStream
	// retentions are what is done about retention: looks, puts and tags.
	retentions    pace
	toldThrottled time.Time // when that was last said; run's alone

	mu      sync.Mutex
	waiting map[string]work // groups whose retention is still to be confirmed
	look    time.Time       // when the next groups that existed before are looked at
	entries uint64
	wake    chan struct{}
	calls   sync.WaitGroup // creations under way
	ctx     context.Context
	cancel  context.CancelFunc
	done    chan struct{}
}

// NewKeeper starts a keeper.
func NewKeeper(api API, cfg Config) *Keeper {
	if cfg.Backoff == nil {
		cfg.Backoff = func(n int) time.Duration {
			d := min(time.Second<<min(n, 10), 5*time.Minute)
			return d/2 + rand.N(d/2)
		}
	}
	if cfg.Recheck <= 0 {
		cfg.Recheck = time.Hour
	}
	if cfg.CallTimeout <= 0 {
		cfg.CallTimeout = 30 * time.Second
	}
	if cfg.Unmarked == nil {
		cfg.Unmarked = func() time.Duration { return rand.N(24 * time.Hour) }
	}
	if cfg.Delay == nil {
		cfg.Delay = func() time.Duration { return 0 }
	}
	checked, err := lru.New[string, int](known)
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
		wake: make(chan struct{}, 1), ctx: ctx, cancel: cancel, done: make(chan struct{}), retentions: pace{max: maxRetentionRest, halves: true},
	}
	go k.run()
	return k
}

// Close stops the background work and the creations under way; what is still open is
// finished by whoever finds the group in state new. No EnsureStream may be started then.
func (k *Keeper) Close() {
	k.cancel()
	<-k.done
	k.calls.Wait()
}

// Used tells the keeper that a group is in use. The first time, and when spec asks for
// other days than before, it looks in the background whether the group's retention is
// what spec asks.
func (k *Keeper) Used(spec Spec) {
	if !k.cfg.Create {
		return
	}
	if days, seen := k.checked.Get(spec.Group); seen && days == spec.RetentionDays {
		return
	}
	k.checked.Add(spec.Group, spec.RetentionDays)
	k.enqueue(work{spec: spec, due: k.nextLook(time.Now())})
}

func (k *Keeper) nextLook(now time.Time) time.Time {
	k.mu.Lock()
	defer k.mu.Unlock()
	if !k.look.After(now) {
		k.look = now.Add(k.cfg.Delay())
	}
	return k.look
}

// Open returns how many groups still wait for their retention to be confirmed.
func (k *Keeper) Open() int {
	k.mu.Lock()
	defer k.mu.Unlock()
	open := 0
	for _, w := range k.waiting {
		if !w.settled {
			open++
		}
	}
	return open
}
