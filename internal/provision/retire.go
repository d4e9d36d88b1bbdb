package provision

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/aws/aws-sdk-go-v2/service/cloudwatchlogs"
	"github.com/aws/aws-sdk-go-v2/service/iam"

	"github.com/eks-tenant-logs/eks-tenant-logs/internal/awsclient"
	"github.com/eks-tenant-logs/eks-tenant-logs/internal/loggroup"
	"github.com/eks-tenant-logs/eks-tenant-logs/internal/tenancy"
)

// tombstone is what is known of one tenant that is to be retired or reactivated.
type tombstone struct {
	tenant Tenant
	spec   groupSpec
	group  *group // nil: gone, or never made
	role   *role  // nil: none, or not ours
	status TenantStatus
	o      *Observed
}

// look reads one tenant, and refuses what is not ours.
func (p *Provisioner) look(ctx context.Context, t Tenant) (*tombstone, error) {
	if err := valid(t); err != nil {
		return nil, err
	}
	spec := p.in.groupOf(t)
	o, err := p.observe(ctx, []Tenant{t}, map[groupKey]bool{spec.key: true})
	if err == nil {
		err = o.failed[t.Name]
	}
	if err != nil {
		return nil, fmt.Errorf("failed to look at tenant %s: %w", t.Name, err)
	}
	d := &tombstone{tenant: t, spec: spec, group: o.groups[spec.key], o: o}
	d.status = TenantStatus{Tenant: t.Name, Group: spec.key.name}
	if p.in.roles() && spec.key.account.ARN == "" {
		d.status.Role = tenancy.ReaderRole(p.in.Scope.Cluster, p.in.Scope.Region, t.Name)
		if r := o.roles[roleKey(d.status.Role)]; r != nil && r.ours(p.in, t.Name) {
			d.role = r
		}
	}
	refuse := func(format string, args ...any) (*tombstone, error) {
		d.status.State, d.status.Reason = StateRefused, fmt.Sprintf(format, args...)
		return d, nil
	}
	if d.group != nil {
		d.status.RetentionDays = d.group.days()
		switch cluster, tenant := d.group.tags[loggroup.TagCluster], d.group.tags[loggroup.TagTenant]; {
		case tenant != t.Name:
			return refuse("log group %s is not ours: its tags say tenant %q; it is left as it is", spec.key.name, tenant)
		case cluster != "" && cluster != p.in.Scope.Cluster && (!p.in.Shared || d.role == nil):
			return refuse("log group %s is cluster %q's: retire or reactivate the tenant there", spec.key.name, cluster)
		case cluster != "" && cluster != p.in.Scope.Cluster:
			d.group = nil // the other cluster's to mark: here it is our reader role alone
		}
	}
	if d.group == nil && d.role == nil {
		return refuse("there is no log group %s and no reader role of ours for tenant %s", spec.key.name, t.Name)
	}
	return d, nil
}

// Retire implements Engine for tenants in the platform's account.
func (p *Provisioner) Retire(ctx context.Context, tenant string) (TenantStatus, error) {
	s, _, err := p.RetireTenant(ctx, Tenant{Name: tenant})
	return s, err
}

// RetireTenant takes a tenant's read access away and marks its log group as a tombstone,
// and returns how many writes it took. Nothing is deleted but what gives access: the reader
// role's policy, and its Pod Identity associations. In order, each step safe to repeat:
//
//	TagResource (log group: state=retired)   nobody who looks from now on gives anything back
//	DeleteRolePolicy                         sessions given out before lose their access at once
//	UpdateAssumeRolePolicy                   nobody gets another
//	TagRole (state=retired)                  the tombstone outlives the group
//	DeletePodIdentityAssociation
//
// A step that fails keeps none from being tried that takes access away. The lines that are
// still on their way reach the group.
func (p *Provisioner) RetireTenant(ctx context.Context, t Tenant) (TenantStatus, int, error) {
	d, err := p.look(ctx, t)
	if err != nil {
		return TenantStatus{Tenant: t.Name, State: StateFailed, Reason: err.Error()}, 0, err
	}
	if d.status.State == StateRefused {
		return d.status, 0, nil
	}
	writes := 0
	var untagged error
	if d.stands() {
		tags := map[string]string{tagState: loggroup.StateRetired, loggroup.TagCluster: p.in.Scope.Cluster}
		if untagged = p.tag(ctx, d, tags); untagged == nil {
			writes++
		}
	}
	if d.role != nil {
		plan := p.planRetire(d)
		if untagged != nil {
			// Access is taken away all the same; but the tombstone on the role would say
			// that there is nothing left to do.
			plan.result.Actions = slices.DeleteFunc(plan.result.Actions, func(a Action) bool { return a.Kind == TagRole })
		}
		plan.result.Tenants = []TenantStatus{{Tenant: t.Name, State: StatePending}}
		applied := p.apply(ctx, plan.result, d.o)
		writes += applied.writes
		if s := applied.statuses[0]; s.State != StateReady {
			d.status.State, d.status.Reason = s.State, s.Reason
			return d.status, writes, errors.Join(ctx.Err(), untagged, errors.New(s.Reason))
		}
	}
	if err := errors.Join(untagged, d.podsUnknown()); err != nil {
		d.status.State, d.status.Reason = StateFailed, err.Error()
		return d.status, writes, err
	}
	d.status.State = StateRetired
	d.status.Reason = "its logs are kept, and nobody is left who may read them by its reader role"
	p.log.Info("retired", "tenant", t.Name, "group", d.status.Group, "writes", writes)
	return d.status, writes, nil
}

// stands reports whether the tenant's group is not marked as retired yet.
func (d *tombstone) stands() bool {
	return d.group != nil && d.group.tags[tagState] != loggroup.StateRetired
}

// podsUnknown says why some of the tenant's Pod Identity associations may still be there:
// they could not be read. The closed role gives their pods nothing.
func (d *tombstone) podsUnknown() error {
	if d.role == nil || d.o.podsFailed != nil {
		return d.o.podsFailed
	}
	has, err := recorded(d.role.tags)
	if err != nil {
		return err
	}
	var errs []error
	for _, a := range d.o.pods.unread() {
		if slices.ContainsFunc(has, func(ns Namespace) bool { return ns.Name == a.namespace }) {
			errs = append(errs, a.err)
		}
	}
	return errors.Join(errs...)
}

func (p *Provisioner) planRetire(d *tombstone) *planner {
	plan := &planner{in: p.in, o: d.o}
	plan.closeRole(d.tenant.Name, d.role, claim{state: StateRetired})
	plan.unpod(d.tenant.Name, d.role.name)
	return plan
}

// PlanRetire says what RetireTenant would do, and writes nothing.
func (p *Provisioner) PlanRetire(ctx context.Context, t Tenant) (TenantStatus, []Action, error) {
	d, err := p.look(ctx, t)
	if err != nil || d.status.State == StateRefused {
		if d == nil {
			return TenantStatus{Tenant: t.Name, State: StateFailed, Reason: err.Error()}, nil, err
		}
		return d.status, nil, nil
	}
	var actions []Action
	if d.stands() {
		actions = append(actions, Action{
			Tenant: t.Name, Layer: LayerGroup, Kind: TagGroup, Target: d.status.Group, Now: "state " + d.group.tags[tagState], Will: "state " + loggroup.StateRetired,
			Reason: "no newcomer of the name gets it",
		})
	}
	if d.role != nil {
		actions = append(actions, p.planRetire(d).result.Actions...)
	}
	d.status.State, d.status.Reason = StatePending, fmt.Sprintf("a dry run: %d actions", len(actions))
	if len(actions) == 0 {
		d.status.State, d.status.Reason = StateRetired, "there is nothing to do"
	}
	return d.status, actions, nil
}

func (p *Provisioner) failed(d *tombstone, err error) (TenantStatus, int, error) {
	d.status.State, d.status.Reason = StateFailed, awsclient.Brief(err)
	return d.status, 0, err
}

// tag changes tags of the tenant's group.
func (p *Provisioner) tag(ctx context.Context, d *tombstone, tags map[string]string) error {
	if err := p.rates.wait(ctx, d.spec.key.account, "TagResource"); err != nil {
		return err
	}
	arn := d.group.arn()
	_, err := p.cloud.logs(d.spec.key.account).TagResource(ctx, &cloudwatchlogs.TagResourceInput{ResourceArn: &arn, Tags: tags})
	if err != nil {
		return fmt.Errorf("failed to tag log group %s: %w", d.status.Group, err)
	}
	p.retag(d.group, tags)
	return nil
}

// Reactivate lifts a tenant's tombstone, and records who has the tenant from now on: the
// namespaces named, each with its UID, in the place of those of the same name. It gives no
// access itself: the next run does, to them. It returns how many writes it took.
func (p *Provisioner) Reactivate(ctx context.Context, t Tenant) (TenantStatus, int, error) {
	if len(t.Namespaces) == 0 || slices.ContainsFunc(t.Namespaces, func(n Namespace) bool { return n.UID == "" }) {
		return TenantStatus{}, 0, fmt.Errorf("to reactivate tenant %s, say whose it is from now on: name its namespace with its UID", t.Name)
	}
	d, err := p.look(ctx, t)
	if err != nil {
		return TenantStatus{Tenant: t.Name, State: StateFailed, Reason: err.Error()}, 0, err
	}
	if d.status.State == StateRefused {
		return d.status, 0, nil
	}
	var have map[string]string
	if d.group != nil {
		have = d.group.tags
	} else {
		have = d.role.tags
	}
	before, err := recorded(have)
	if err != nil {
		return p.failed(d, err)
	}
	record := map[string]string{}
	for _, ns := range slices.Concat(before, t.Namespaces) {
		record[ns.Name] = ns.UID
	}
	var all []Namespace
	for _, name := range slices.Sorted(maps.Keys(record)) {
		all = append(all, Namespace{name, record[name]})
	}
	if len(all) > maxNamespaces {
		return p.failed(d, fmt.Errorf("tenant %s has had %d namespaces, and no more can be recorded", t.Name, maxNamespaces))
	}
	tags := recordTags(all)
	tags[loggroup.TagCluster] = p.in.Scope.Cluster
	tags[tagState] = stateReady
	if d.group != nil && !loggroup.Enough(d.group.LogGroup, d.spec.days) {
		tags[tagState] = stateNew // it had not been finished
	}
	d.status.State = StatePending
	var names []string
	for _, ns := range all {
		names = append(names, ns.Name)
	}
	d.status.Namespaces = names
	d.status.Reason = "namespaces " + strings.Join(names, ", ") + " have the tenant; the next apply, or the controller, gives them access"
	writes := 0
	if d.group != nil && !maps.Equal(pick(d.group.tags, tags), tags) {
		if err := p.tag(ctx, d, tags); err != nil {
			return p.failed(d, err)
		}
		writes++
	}
	// The tombstone on the role goes last: until then it holds.
	if d.role != nil && (d.group == nil && !maps.Equal(pick(d.role.tags, tags), tags) || d.role.tags[tagState] == loggroup.StateRetired) {
		tags[tagState] = stateReady
		delete(tags, loggroup.TagCluster) // it has it, or it would not be ours
		if err := p.rates.wait(ctx, awsclient.Role{}, "TagRole"); err != nil {
			return p.failed(d, err)
		}
		if _, err := p.cloud.IAM.TagRole(ctx, &iam.TagRoleInput{RoleName: &d.role.name, Tags: iamTags(tags)}); err != nil {
			return p.failed(d, fmt.Errorf("failed to tag role %s: %w", d.role.name, err))
		}
		writes++
	}
	return d.status, writes, nil
}
