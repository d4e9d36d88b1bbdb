package provision

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/iam"
	smithytime "github.com/aws/smithy-go/time"

	"github.com/eks-tenant-logs/eks-tenant-logs/internal/awsclient"
	"github.com/eks-tenant-logs/eks-tenant-logs/internal/loggroup"
)

// Progress is how far a run is.
type Progress struct {
	// Step is what is being done: log groups, roles, tags, apply.
	Step string
	// Done of Of; Of is 0 where it is not known.
	Done, Of int
}

// Options of a Provisioner. The zero value is what a command wants.
type Options struct {
	// Log gets what somebody should know of: repairs, refusals, failures. nil: nothing.
	Log *slog.Logger
	// Clock is the real one where it is empty.
	Clock Clock
	// Random is from 0 to 1; nil means math/rand's.
	Random func() float64
	// Progress is told how far a run is, by many goroutines.
	Progress func(Progress)
	// Concurrency is how many tenants are worked at, at once; 0 means 16. The rates of calls
	// are what bounds a run.
	Concurrency int
}

// Provisioner sets up tenants in one account and region for one cluster. It remembers tags
// between runs, so one that lives on makes fewer calls. One run at a time.
type Provisioner struct {
	in          Installation
	cloud       Cloud
	log         *slog.Logger
	clock       Clock
	random      func() float64
	progress    func(Progress)
	concurrency int
	rates       *rates
	memory      *memory
	quarantine  map[string]*group // as last seen, by name
}

var _ Engine = (*Provisioner)(nil)

// New makes a provisioner. It makes no call.
func New(in Installation, cloud Cloud, o Options) (*Provisioner, error) {
	in, err := NewInstallation(in)
	if err != nil {
		return nil, err
	}
	switch {
	case cloud.Logs == nil || cloud.IAM == nil:
		return nil, errors.New("a provisioner needs clients of CloudWatch Logs and IAM")
	case in.KeyPerTenant && cloud.KMS == nil:
		return nil, errors.New("a key per tenant needs a client of KMS")
	case len(in.Trust.PodIdentity) > 0 && cloud.EKS == nil:
		return nil, errors.New("EKS Pod Identity needs a client of EKS")
	}
	p := &Provisioner{in: in, cloud: cloud, log: o.Log, clock: o.Clock, random: o.Random, progress: o.Progress, concurrency: o.Concurrency, memory: newMemory(), quarantine: map[string]*group{}}
	if p.log == nil {
		p.log = slog.New(slog.DiscardHandler)
	}
	if p.clock.Now == nil {
		p.clock = Clock{Now: time.Now, Sleep: smithytime.SleepWithContext}
	}
	if p.random == nil {
		p.random = rand.Float64
	}
	if p.progress == nil {
		p.progress = func(Progress) {}
	}
	if p.concurrency <= 0 {
		p.concurrency = 16
	}
	p.rates = newRates(p.clock)
	return p, nil
}

// Installation is what was given to New, with its defaults.
func (p *Provisioner) Installation() Installation { return p.in }

// Calls is how many calls of each operation this provisioner has made. What the SDK tried
// again is counted once.
func (p *Provisioner) Calls() map[string]int { return p.rates.calls() }

// Plan observes and plans. Nothing in the plan rests on what was remembered: where there is
// something to do, the tags were read just now.
func (p *Provisioner) Plan(ctx context.Context, tenants []Tenant) (Result, error) {
	r, _, err := p.plan(ctx, tenants)
	return r, err
}

func (p *Provisioner) plan(ctx context.Context, tenants []Tenant) (Result, *Observed, error) {
	o, err := p.observe(ctx, tenants, nil)
	if err != nil {
		return Result{}, nil, err
	}
	result := Plan(p.in, tenants, o)
	stale := p.stale(tenants, result, o)
	if len(stale) == 0 {
		return result, o, nil
	}
	for k, g := range stale {
		if err := p.readTags(ctx, k, g); err != nil {
			if ctx.Err() != nil {
				return Result{}, nil, ctx.Err()
			}
			o.failed[p.owner(tenants, k)] = err
		}
	}
	return Plan(p.in, tenants, o), o, nil
}

// stale are the groups whose tags were not read now although something is to be done about
// them, or about who may read them.
func (p *Provisioner) stale(tenants []Tenant, r Result, o *Observed) map[groupKey]*group {
	stale := map[groupKey]*group{}
	add := func(k groupKey) {
		if g := o.groups[k]; g != nil && g.source != tagsRead {
			stale[k] = g
		}
	}
	busy := map[string]bool{}
	for _, s := range r.Tenants {
		busy[s.Tenant] = s.State != StateReady || len(s.Refused) > 0
	}
	for _, a := range r.Actions {
		if a.spec != nil {
			add(a.spec.key)
		}
	}
	for _, t := range tenants {
		if busy[t.Name] && valid(t) == nil {
			add(p.in.groupOf(t).key)
		}
	}
	return stale
}

func (p *Provisioner) owner(tenants []Tenant, k groupKey) string {
	for _, t := range tenants {
		if q, ok := p.in.quarantineOf(t); p.in.groupOf(t).key == k || ok && q.key == k {
			return t.Name
		}
	}
	return ""
}

// rounds is how often something is looked at in one run because somebody else was at it.
const rounds = 3

// anotherRound reports whether to look again after a round, and waits before it: what was made
// a moment ago may not be seen by every host of AWS yet.
func (p *Provisioner) anotherRound(ctx context.Context, round int, done applied) bool {
	return len(done.again) > 0 && round < rounds && p.clock.Sleep(ctx, time.Second<<(round-1)) == nil
}

// add adds what a round found and did.
func (r *Report) add(plan Result, done applied) {
	for _, f := range plan.Findings {
		if !slices.Contains(r.Findings, f) {
			r.Findings = append(r.Findings, f)
		}
	}
	r.Actions += len(plan.Actions)
	r.Failed = done.failed
	r.Writes += done.writes
	for layer, n := range done.repaired {
		r.Repaired[layer] += n
	}
}

// Reconcile implements Engine.
func (p *Provisioner) Reconcile(ctx context.Context, tenants []Tenant) (Report, error) {
	report := Report{Repaired: map[string]int{}}
	statuses := map[string]TenantStatus{}
	for round := 1; ; round++ {
		plan, o, err := p.plan(ctx, tenants)
		if err != nil {
			return report, err
		}
		if err := p.quotas(ctx, plan, o); err != nil {
			return report, err
		}
		if round == 1 {
			p.noteQuarantine(o)
		}
		done := p.apply(ctx, plan, o)
		report.add(plan, done)
		for _, s := range done.statuses {
			statuses[s.Tenant] = s
		}
		again := p.anotherRound(ctx, round, done)
		if ctx.Err() != nil {
			return report, ctx.Err()
		}
		if !again {
			break
		}
		// The cluster's own groups are in every plan.
		tenants = slices.DeleteFunc(slices.Clone(tenants), func(t Tenant) bool { return !done.again[t.Name] })
	}
	for _, s := range statuses {
		report.Tenants = append(report.Tenants, s)
	}
	slices.SortFunc(report.Tenants, func(a, b TenantStatus) int { return strings.Compare(a.Tenant, b.Tenant) })
	return report, nil
}

// Bootstrap does what PlanBootstrap plans. The error is what kept it from being done at all;
// what failed alone is in the report.
func (p *Provisioner) Bootstrap(ctx context.Context, b Bootstrap) (Report, error) {
	report := Report{Tenants: []TenantStatus{}, Repaired: map[string]int{}}
	for round := 1; ; round++ {
		plan, err := p.PlanBootstrap(ctx, b)
		if err != nil {
			return report, err
		}
		o := &Observed{rolesInAccount: -1, roleQuota: -1}
		if err := p.quotas(ctx, plan, o); err != nil {
			return report, err
		}
		done := p.apply(ctx, plan, o)
		report.add(plan, done)
		if again := p.anotherRound(ctx, round, done); !again || ctx.Err() != nil {
			return report, ctx.Err()
		}
	}
}

// quotas refuses a plan that the account has no room for, before anything is made.
func (p *Provisioner) quotas(ctx context.Context, plan Result, o *Observed) error {
	roles, groups := 0, 0
	for _, a := range plan.Actions {
		switch {
		case a.Kind == CreateRole:
			roles++
		case a.Kind == CreateGroup && a.account.ARN == "":
			groups++
		}
	}
	if have := len(o.groups); groups > 0 && have+groups > p.in.GroupQuota {
		return fmt.Errorf("%d log groups are to be made, and there are %d of ours already, but the account may have %d in a region: nothing was made; ask AWS for more (Service Quotas, CloudWatch Logs, log groups)", groups, have, p.in.GroupQuota)
	}
	if roles == 0 {
		return nil
	}
	if err := p.rates.wait(ctx, awsclient.Role{}, "GetAccountSummary"); err != nil {
		return err
	}
	out, err := p.cloud.IAM.GetAccountSummary(ctx, &iam.GetAccountSummaryInput{})
	if err != nil {
		return fmt.Errorf("failed to ask how many roles the account may have: %w", err)
	}
	have, quota := int(out.SummaryMap["Roles"]), int(out.SummaryMap["RolesQuota"])
	if quota > 0 && have+roles > quota {
		return fmt.Errorf("%d roles are to be made, and the account has %d of %d: nothing was made; ask AWS for more (Service Quotas, IAM, roles per account), or use one role for all (--abac)", roles, have, quota)
	}
	return nil
}

// Owned implements Engine.
func (p *Provisioner) Owned(ctx context.Context) ([]string, error) {
	if !p.in.roles() {
		return nil, nil
	}
	var owned []string
	err := p.allRoles(ctx, func(r *role) {
		tenant := r.tags[loggroup.TagTenant]
		if tenant != "" && r.ours(p.in, tenant) && r.tags[tagState] == stateReady {
			owned = append(owned, tenant)
		}
	})
	slices.Sort(owned)
	return owned, err
}
