// Package replay copies what is in quarantine back to its own groups: it reads a
// quarantine group, sends what no replay has sent yet through delivery, and writes down
// in the quarantine group itself how far it came. Nothing is ever deleted.
//
// It must not know who is a tenant (tenancy does), nor how a call is made.
package replay

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/cloudwatchlogs"

	"github.com/eks-tenant-logs/eks-tenant-logs/internal/awsclient"
	"github.com/eks-tenant-logs/eks-tenant-logs/internal/delivery"
	"github.com/eks-tenant-logs/eks-tenant-logs/internal/loggroup"
	"github.com/eks-tenant-logs/eks-tenant-logs/internal/tenancy"
)

// Account is CloudWatch Logs as one identity: what is asked of it.
type Account interface {
	loggroup.API
	DescribeLogStreams(context.Context, *cloudwatchlogs.DescribeLogStreamsInput, ...func(*cloudwatchlogs.Options)) (*cloudwatchlogs.DescribeLogStreamsOutput, error)
	GetLogEvents(context.Context, *cloudwatchlogs.GetLogEventsInput, ...func(*cloudwatchlogs.Options)) (*cloudwatchlogs.GetLogEventsOutput, error)
	PutLogEvents(context.Context, *cloudwatchlogs.PutLogEventsInput, ...func(*cloudwatchlogs.Options)) (*cloudwatchlogs.PutLogEventsOutput, error)
	Put(ctx context.Context, group, stream string, body awsclient.Body, count int) (awsclient.Rejected, error)
}

const (
	// leaseTime is how long a replay that says nothing more is taken to be at work. One
	// that was killed holds up the next this long.
	leaseTime = 10 * time.Minute
	// aliveEvery is how often one at work says so.
	aliveEvery = time.Minute
	// deliverTime bounds one attempt at a batch.
	deliverTime = 2 * time.Minute
	// callTime bounds one PutLogEvents call.
	callTime = 15 * time.Second
	// maxAttempts is how often a batch is tried whose outcome is not known.
	maxAttempts = 5
	// maxAge is how old an event may be when CloudWatch takes it (API reference,
	// PutLogEvents): what came in after a moment is no older than this before it.
	maxAge = 14 * 24 * time.Hour
	// ageMargin covers what passes between our look at the clock and CloudWatch's.
	ageMargin = time.Hour
	// maxAhead is how far ahead an event may be, with a margin.
	maxAhead = 2*time.Hour - 5*time.Minute
	// batchBytes bounds the messages of a batch: what is in memory, and what a replay
	// that was killed may have sent without saying so.
	batchBytes = 4 << 20
)

// Config is what a replay works with. All is needed but where it is said.
type Config struct {
	Names    tenancy.Names
	Registry *tenancy.Registry
	// Template is the plugin's log_stream_template.
	Template *tenancy.StreamTemplate
	// Tenants are those whose quarantine is replayed, by name, tenancy.PendingName among
	// them; empty means all that are found.
	Tenants []string
	// DryRun counts, and writes nothing.
	DryRun bool
	// Settle is how long after an event came in it can be relied on that it is read, and
	// its stream listed: CloudWatch is eventually consistent. What is younger is left.
	Settle time.Duration
	// Uncompressed sends events without gzip.
	Uncompressed bool
	// CreateGroups allows creating a group that is missing; Spec says what it is like.
	CreateGroups bool
	Spec         func(tenancy.Home) loggroup.Spec
	// As is CloudWatch Logs as an identity; the zero Role is one's own.
	As  func(awsclient.Role) Account
	Log *slog.Logger
	// Stop ends the replay after the batch under way, and within 10 s whatever CloudWatch
	// does; nil for never.
	Stop <-chan struct{}
	// Progress is told how far it is; it may be nil.
	Progress func(Progress)
	Clock    Clock
	// Random is where replays' ids and the journals' keys come from: a cryptographic source.
	Random io.Reader
	// Writer names this process in the journal, for people.
	Writer string
	// BatchEvents bounds a batch; 0 means 10,000.
	BatchEvents int
}

// Clock is time.
type Clock struct {
	Now   func() time.Time
	Sleep func(ctx context.Context, d time.Duration) error
	// Ahead is how far Now is ahead of AWS's clock, which judges the times of events; nil means
	// that they agree.
	Ahead func() time.Duration
}

// Progress is how far a replay is.
type Progress struct {
	Tenant          string
	Groups, Group   int // how many, and which, from 1
	Streams, Stream int // of the group
	Replayed        int64
	Waiting         time.Duration // for what was sent before to be seen; else 0
}

// Tenant is what became of one quarantine group.
type Tenant struct {
	// Tenant is the tenant's name, or tenancy.PendingName.
	Tenant string `json:"tenant" yaml:"tenant"`
	Group  string `json:"group" yaml:"group"`
	// Replay is this replay's id in `_tenantlogs`; empty where nothing was to be copied.
	Replay string `json:"replay,omitempty" yaml:"replay,omitempty"`
	// Quarantined is the sum of the three that follow. Before is what was replayed before,
	// Replayed what was now, Left what is not replayed.
	Quarantined int64 `json:"quarantined" yaml:"quarantined"`
	Before      int64 `json:"replayedBefore" yaml:"replayedBefore"`
	Replayed    int64 `json:"replayed" yaml:"replayed"`
	Left        int64 `json:"left" yaml:"left"`
	// OldestLeft is the age in seconds of the oldest event that is left.
	OldestLeft int64 `json:"oldestLeftSeconds,omitempty" yaml:"oldestLeftSeconds,omitempty"`
	// Why says why something is left, each reason once.
	Why []string `json:"why,omitempty" yaml:"why,omitempty"`
	// Unknown says that not all could be read: there may be more.
	Unknown bool `json:"unknown,omitempty" yaml:"unknown,omitempty"`
}

// Report is what became of all of them.
type Report struct {
	DryRun  bool     `json:"dryRun" yaml:"dryRun"`
	Tenants []Tenant `json:"tenants" yaml:"tenants"`
}

// Left is how many events are not replayed.
func (r Report) Left() (n int64) {
	for _, t := range r.Tenants {
		n += t.Left
	}
	return n
}

// Unknown reports whether some of it could not be told.
func (r Report) Unknown() bool {
	return slices.ContainsFunc(r.Tenants, func(t Tenant) bool { return t.Unknown })
}

// check refuses what can't work before the first call.
func (c *Config) check() error {
	for _, t := range c.Tenants {
		if t != tenancy.PendingName && !tenancy.Label(t) {
			return fmt.Errorf("%q is no tenant's name: use lower-case letters, digits and -, up to 63, or %s", t, tenancy.PendingName)
		}
	}
	if c.Settle < 0 || c.Settle > time.Hour {
		return fmt.Errorf("settle %s is not from 0s to 1h", c.Settle)
	}
	return nil
}

// Run replays. It returns an error only where nothing could be told at all; what befell
// a single tenant is in the report.
func Run(ctx context.Context, cfg Config) (Report, error) {
	report := Report{DryRun: cfg.DryRun, Tenants: []Tenant{}}
	if err := cfg.check(); err != nil {
		return report, err
	}
	if cfg.BatchEvents <= 0 {
		cfg.BatchEvents = delivery.MaxBatchEvents
	}
	if cfg.Clock.Ahead == nil {
		cfg.Clock.Ahead = func() time.Duration { return 0 }
	}
	ending, ctx, release := newEnding(ctx, cfg.Stop)
	defer release()
	r := &runner{cfg: cfg, ending: ending, readers: map[awsclient.Role]*reader{}, out: newOutbox(cfg, ending)}
	r.out.reader = r.reader
	defer r.out.close(ctx)
	groups, err := r.groups(ctx)
	if err != nil {
		return report, err
	}
	for i, group := range groups {
		name, _ := cfg.Names.Quarantined(group)
		if name == "" {
			name = tenancy.PendingName
		}
		r.progress = Progress{Tenant: name, Groups: len(groups), Group: i + 1, Replayed: r.progress.Replayed}
		report.Tenants = append(report.Tenants, r.group(ctx, name, group))
	}
	for _, name := range cfg.Tenants {
		if !slices.ContainsFunc(report.Tenants, func(t Tenant) bool { return t.Tenant == name }) {
			report.Tenants = append(report.Tenants, Tenant{Tenant: name, Group: cfg.Names.QuarantineGroup(name), Why: []string{"it has no quarantine group"}})
		}
	}
	return report, nil
}

// runner is one Run.
type runner struct {
	cfg      Config
	ending   *ending
	mu       sync.Mutex
	readers  map[awsclient.Role]*reader
	out      *outbox
	progress Progress
	// ahead is how much our clock is ahead of CloudWatch's, where that is less than
	// Clock.Ahead tells.
	ahead time.Duration
}

func (r *runner) reader(role awsclient.Role) *reader {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.readers[role] == nil {
		r.readers[role] = &reader{account: r.cfg.As(role), clock: r.cfg.Clock, ending: r.ending}
	}
	return r.readers[role]
}

// now is the time as CloudWatch has it, or a little earlier.
func (r *runner) now() time.Time {
	ahead := r.cfg.Clock.Ahead()
	if ahead == 0 {
		ahead = r.ahead
	}
	return r.cfg.Clock.Now().Add(-ahead)
}

// heard compares the clocks: what is decided by time of arrival must not be decided by a
// clock that is ahead of the one that stamps the arrivals.
func (r *runner) heard(server time.Time) {
	if server.IsZero() {
		return
	}
	// The answer's time has no fractions, and was on its way.
	if ahead := r.cfg.Clock.Now().Sub(server); ahead > 2*time.Second {
		r.ahead = ahead
	} else {
		r.ahead = 0
	}
}

func (r *runner) stopped() bool {
	select {
	case <-r.cfg.Stop: // the wish is here before it is known everywhere
		return true
	default:
		return r.ending.asked.Err() != nil
	}
}

func (r *runner) tell(waiting time.Duration) {
	if r.cfg.Progress != nil {
		r.progress.Waiting = waiting
		r.cfg.Progress(r.progress)
	}
}

// groups lists the quarantine groups that are asked for, by name.
func (r *runner) groups(ctx context.Context) ([]string, error) {
	found, server, err := r.reader(awsclient.Role{}).groups(ctx, r.cfg.Names.QuarantinePrefix)
	if err != nil {
		return nil, fmt.Errorf("failed to list the quarantine groups: %w", err)
	}
	r.heard(server)
	var groups []string
	for _, g := range found {
		tenant, ok := r.cfg.Names.Quarantined(g)
		if !ok {
			continue
		}
		if tenant == "" {
			tenant = tenancy.PendingName
		}
		if len(r.cfg.Tenants) == 0 || slices.Contains(r.cfg.Tenants, tenant) {
			groups = append(groups, g)
		}
	}
	return groups, nil
}

// group replays one quarantine group.
func (r *runner) group(ctx context.Context, name, group string) Tenant {
	s := &session{runner: r, group: group, result: Tenant{Tenant: name, Group: group}}
	err := s.run(ctx)
	t := &s.result
	if err != nil {
		t.Unknown = t.Unknown || !errors.Is(err, errStopped) || !s.counted
		s.why(brief(err))
	}
	t.Before = min(s.before, s.copied)
	t.Replayed = s.copied - t.Before
	t.Quarantined = t.Before + t.Replayed + t.Left
	if s.oldest != 0 {
		t.OldestLeft = max(0, (r.now().UnixMilli()-s.oldest)/1000)
	}
	return *t
}

// brief is an error in a line.
func brief(err error) string {
	return strings.Join(strings.Fields(awsclient.Brief(err)), " ")
}
