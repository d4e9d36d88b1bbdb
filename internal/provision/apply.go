package provision

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/cloudwatchlogs"
	"github.com/aws/aws-sdk-go-v2/service/cloudwatchlogs/types"
	"github.com/aws/aws-sdk-go-v2/service/iam"
	iamtypes "github.com/aws/aws-sdk-go-v2/service/iam/types"

	"github.com/eks-tenant-logs/eks-tenant-logs/internal/awsclient"
	"github.com/eks-tenant-logs/eks-tenant-logs/internal/loggroup"
	"github.com/eks-tenant-logs/eks-tenant-logs/internal/tenancy"
)

// applied is what came of a plan.
type applied struct {
	writes   int
	repaired map[string]int
	statuses []TenantStatus
	// again are tenants somebody else was working at: they are to be looked at again.
	again map[string]bool
	// failed is what of the cluster's own could not be done.
	failed string
}

// errAgain says that what was observed is no longer so.
var errAgain = errors.New("somebody else was at it at the same time: it is looked at again")

// run is one apply.
type run struct {
	p      *Provisioner
	reader *reader

	mu       sync.Mutex
	writes   int
	repaired map[string]int
	again    map[string]bool
	failed   map[string]error
	done     int
	of       int
}

// apply does a plan's actions: tenants at once, a tenant's in order.
func (p *Provisioner) apply(ctx context.Context, plan Result, o *Observed) applied {
	r := &run{p: p, reader: &reader{p: p}, repaired: map[string]int{}, again: map[string]bool{}, failed: map[string]error{}, of: len(plan.Actions)}
	byTenant := map[string][]Action{}
	var order []string
	for _, a := range plan.Actions {
		if byTenant[a.Tenant] == nil {
			order = append(order, a.Tenant)
		}
		byTenant[a.Tenant] = append(byTenant[a.Tenant], a)
	}
	work := make(chan string)
	days := map[string]int{}
	var wait sync.WaitGroup
	for range min(p.concurrency, len(order)) {
		wait.Go(func() {
			for name := range work {
				t := &tenantRun{run: r, tenant: name, groups: map[groupKey]*group{}, made: map[string]map[string]string{}, roleSeen: o.roles[roleKey(tenancy.ReaderRole(p.in.Scope.Cluster, p.in.Scope.Region, name))] != nil}
				t.actions(ctx, byTenant[name])
				r.mu.Lock()
				for k, g := range t.groups {
					if k.name == p.in.Scope.Names.Group(name) {
						days[name] = g.days()
					}
				}
				r.mu.Unlock()
			}
		})
	}
	for _, name := range order {
		work <- name
	}
	close(work)
	wait.Wait()
	out := applied{writes: r.writes, repaired: r.repaired, again: r.again, statuses: slices.Clone(plan.Tenants)}
	for i := range out.statuses {
		s := &out.statuses[i]
		if d, ok := days[s.Tenant]; ok {
			s.RetentionDays = d
		}
		switch err := r.failed[s.Tenant]; {
		case err != nil && r.again[s.Tenant]:
			s.State, s.Reason = StatePending, err.Error()
		case err != nil:
			s.State, s.Reason = StateFailed, err.Error()
		case r.again[s.Tenant]:
			s.State = StatePending
		case s.State == StatePending:
			s.State, s.Reason = StateReady, ""
		}
	}
	if err := r.failed[""]; err != nil {
		out.failed = err.Error()
	}
	return out
}

// tenantRun is one tenant's actions.
type tenantRun struct {
	*run
	tenant   string
	groups   map[groupKey]*group          // read back
	made     map[string]map[string]string // targets made by this run, which may not be seen everywhere yet, with their tags
	roleSeen bool
	keyARN   string
}

// actions does one after the other. What fails ends its own target's actions, and whatever
// would give somebody access; what takes access away, or back to what it was, is done
// whatever failed, and so are other targets.
func (t *tenantRun) actions(ctx context.Context, actions []Action) {
	stopped := map[string]bool{}
	for _, a := range actions {
		t.step()
		if !a.narrows && (stopped[a.Target] || a.grants && len(stopped) > 0 || a.spec != nil && a.spec.ownKey && stopped[t.p.alias(t.tenant)]) {
			continue
		}
		err := t.retried(ctx, a)
		if ctx.Err() != nil {
			err = ctx.Err()
		}
		t.mu.Lock()
		switch {
		case err == nil && a.Repair:
			t.repaired[string(a.Layer)]++
		case err != nil:
			stopped[a.Target] = true
			if errors.Is(err, errAgain) {
				t.again[t.tenant] = true
			}
			t.failed[t.tenant] = errors.Join(t.failed[t.tenant], fmt.Errorf("failed to %s %s: %w", strings.ReplaceAll(string(a.Kind), "-", " "), a.Target, shortened{err}))
		}
		t.mu.Unlock()
		switch {
		case err == nil && a.Repair:
			t.p.log.Warn("repaired", "tenant", a.Tenant, "layer", a.Layer, "kind", a.Kind, "target", a.Target, "was", a.Now, "is", a.Will)
		case err != nil && !errors.Is(err, errAgain):
			t.p.log.Error("failed", "tenant", a.Tenant, "layer", a.Layer, "kind", a.Kind, "target", a.Target, "error", awsclient.Brief(err))
		}
	}
}

// shortened is an error in AWS's own words, without the SDK's wrapping.
type shortened struct{ err error }

func (s shortened) Error() string { return awsclient.Brief(s.err) }
func (s shortened) Unwrap() error { return s.err }

func (r *run) step() {
	r.mu.Lock()
	r.done++
	done := r.done
	r.mu.Unlock()
	r.p.progress(Progress{Step: "apply", Done: done, Of: r.of})
}

// attempts are how often an action is tried that AWS's own delays can make fail: what was
// just made is not seen by every host of AWS yet, or somebody else is changing it. The
// waits between are 0.2 s, 0.4 s, … 6.4 s: some 12 s in all.
const attempts = 7

func (t *tenantRun) retried(ctx context.Context, a Action) error {
	for n := 0; ; n++ {
		err := t.once(ctx, a)
		class := awsclient.Classify(err)
		late := class == awsclient.ClassNotFound && t.made[a.Target] != nil || class == awsclient.ClassConflict && a.Kind != CreateGroup
		if err == nil || !late || n == attempts-1 {
			return err
		}
		if err := t.p.clock.Sleep(ctx, 200*time.Millisecond<<n); err != nil {
			return err
		}
	}
}

// write makes one call that changes something, in its turn, and counts it.
func (t *tenantRun) write(ctx context.Context, account awsclient.Role, operation string, f func() error) error {
	if err := t.p.rates.wait(ctx, account, operation); err != nil {
		return err
	}
	err := f()
	if err == nil {
		t.mu.Lock()
		t.writes++
		t.mu.Unlock()
	}
	return err
}

// once does an action. Each can be repeated: after a crash between any two of its calls, the
// next plan finds what is missing.
func (t *tenantRun) once(ctx context.Context, a Action) error {
	logs, name := t.p.cloud.logs(a.account), a.Target
	write := func(operation string, f func() error) error { return t.write(ctx, a.account, operation, f) }
	switch a.Kind {
	case CreateGroup:
		return t.createGroup(ctx, a)
	case SetRetention:
		return write("PutRetentionPolicy", func() error {
			_, err := logs.PutRetentionPolicy(ctx, &cloudwatchlogs.PutRetentionPolicyInput{LogGroupName: &name, RetentionInDays: aws.Int32(int32(a.spec.days))})
			return err
		})
	case AssociateKey:
		key := t.key(a.spec)
		if key == "" {
			return errors.New("the key is not known yet")
		}
		return write("AssociateKmsKey", func() error {
			_, err := logs.AssociateKmsKey(ctx, &cloudwatchlogs.AssociateKmsKeyInput{LogGroupName: &name, KmsKeyId: &key})
			return err
		})
	case ProtectGroup:
		return write("PutLogGroupDeletionProtection", func() error {
			_, err := logs.PutLogGroupDeletionProtection(ctx, &cloudwatchlogs.PutLogGroupDeletionProtectionInput{LogGroupIdentifier: &name, DeletionProtectionEnabled: aws.Bool(true)})
			return err
		})
	case CloseBearer:
		return write("PutBearerTokenAuthentication", func() error {
			_, err := logs.PutBearerTokenAuthentication(ctx, &cloudwatchlogs.PutBearerTokenAuthenticationInput{LogGroupIdentifier: &name, BearerTokenAuthenticationEnabled: aws.Bool(false)})
			return err
		})
	case TagGroup:
		return t.tagGroup(ctx, a, nil)
	case ConfirmGroup:
		return t.confirm(ctx, a)
	case CreateRole, TagRole, SetBoundary, SetTrust, PutPolicy, RemovePolicy, DetachPolicy:
		return t.role(ctx, a)
	case CreateKey, AliasKey, SetKeyPolicy, RotateKey:
		return t.kms(ctx, a)
	case CreateAssociation, UpdateAssociation, DeleteAssociation:
		return t.association(ctx, a)
	case CreateManagedPolicy, UpdateManagedPolicy:
		return t.managedPolicy(ctx, a)
	}
	return fmt.Errorf("%s is not known", a.Kind)
}

func (t *tenantRun) key(spec *groupSpec) string {
	if spec.ownKey {
		return t.keyARN
	}
	return spec.kmsKey
}

func (t *tenantRun) createGroup(ctx context.Context, a Action) error {
	in := &cloudwatchlogs.CreateLogGroupInput{LogGroupName: aws.String(a.Target), Tags: a.tags, LogGroupClass: types.LogGroupClass(a.spec.class)}
	if key := t.key(a.spec); key != "" {
		in.KmsKeyId = &key
	} else if a.spec.ownKey {
		return errors.New("its key is not known yet")
	}
	if a.spec.protected {
		in.DeletionProtectionEnabled = aws.Bool(true)
	}
	err := t.write(ctx, a.account, "CreateLogGroup", func() error {
		_, err := t.p.cloud.logs(a.account).CreateLogGroup(ctx, in)
		return err
	})
	switch awsclient.Classify(err) {
	case awsclient.ClassNone:
		t.made[a.Target] = a.tags
		if t.roleSeen {
			t.mu.Lock()
			t.again[t.tenant] = true // the role's tags name the group that is gone
			t.mu.Unlock()
		}
	case awsclient.ClassExists, awsclient.ClassConflict:
		return errAgain
	}
	return err
}

// tagGroup tags a group, whose ARN may have to be read first.
func (t *tenantRun) tagGroup(ctx context.Context, a Action, g *group) error {
	if g == nil {
		var err error
		if g, err = t.reader.read(ctx, a.spec.key); err != nil {
			return err
		}
	}
	arn := g.arn()
	err := t.write(ctx, a.account, "TagResource", func() error {
		_, err := t.p.cloud.logs(a.account).TagResource(ctx, &cloudwatchlogs.TagResourceInput{ResourceArn: &arn, Tags: a.tags})
		return err
	})
	t.p.retag(g, a.tags)
	return err
}

// retag forgets what is remembered of a group's tags: what AWS says after a change is read
// the next time, but for a group that was made here.
func (p *Provisioner) retag(g *group, tags map[string]string) {
	p.memory.mu.Lock()
	defer p.memory.mu.Unlock()
	if m, ok := p.memory.tags[g.identity()]; ok {
		all := maps.Clone(m.tags)
		maps.Copy(all, tags)
		p.memory.tags[g.identity()] = remembered{all, m.until}
	}
}

// confirm reads a group back, and marks it if all that was asked for is there. What does not show yet is
// waited for; a retention that an account-level policy wins over is not: there is a finding of it.
func (t *tenantRun) confirm(ctx context.Context, a Action) error {
	var g *group
	for n := 0; ; n++ {
		var err error
		if g, err = t.reader.read(ctx, a.spec.key); err != nil {
			return err
		}
		missing := unlike(g, *a.spec, t.key(a.spec))
		if !loggroup.Enough(g.LogGroup, a.spec.days) && aws.ToString(g.RetentionPolicyName) == "" && (g.RetentionInDays != nil || t.made[a.Target] != nil) {
			missing = errors.Join(fmt.Errorf("it still keeps its events %s after %s were set", daysText(g.days()), daysText(a.spec.days)), missing)
		}
		if missing == nil {
			break
		}
		if n == attempts-1 {
			return fmt.Errorf("what was read back is not what was asked for: %s", strings.ReplaceAll(missing.Error(), "\n", "; "))
		}
		if err := t.p.clock.Sleep(ctx, 200*time.Millisecond<<n); err != nil {
			return err
		}
	}
	t.groups[a.spec.key] = g
	if a.tags == nil {
		return nil
	}
	if err := t.tagGroup(ctx, a, g); err != nil {
		return err
	}
	if made := t.made[a.Target]; made != nil {
		// Made here a moment ago: these are all its tags.
		g.tags = maps.Clone(made)
		maps.Copy(g.tags, a.tags)
		t.p.remember(g)
	}
	return nil
}

// reader reads groups back, those that are waited for together in one call.
type reader struct {
	p *Provisioner

	mu      sync.Mutex
	waiting map[awsclient.Role][]readBack
}

type readBack struct {
	name   string
	answer chan<- readAnswer
}

type readAnswer struct {
	group *group
	err   error
}

// read reads one group; missing is an error of class not found.
func (r *reader) read(ctx context.Context, k groupKey) (*group, error) {
	answer := make(chan readAnswer, 1)
	r.mu.Lock()
	if r.waiting == nil {
		r.waiting = map[awsclient.Role][]readBack{}
	}
	first := len(r.waiting[k.account]) == 0
	r.waiting[k.account] = append(r.waiting[k.account], readBack{k.name, answer})
	r.mu.Unlock()
	if first {
		// Whoever comes while this one waits for its turn goes with it.
		err := r.p.rates.wait(ctx, k.account, "DescribeLogGroups")
		r.mu.Lock()
		batch := r.waiting[k.account]
		r.waiting[k.account] = nil
		r.mu.Unlock()
		o := &Observed{groups: map[groupKey]*group{}}
		for some := range slices.Chunk(batch, describeAtOnce) {
			var names []string
			for _, b := range some {
				names = append(names, b.name)
			}
			if err == nil {
				err = r.p.describeBack(ctx, k.account, names, o)
			}
		}
		for _, b := range batch {
			a := readAnswer{o.groups[groupKey{k.account, b.name}], err}
			if err == nil && a.group == nil {
				a.err = &loggroup.MissingError{Group: b.name}
			}
			b.answer <- a
		}
	}
	a := <-answer
	return a.group, a.err
}

// describeBack is one DescribeLogGroups whose turn it is.
func (p *Provisioner) describeBack(ctx context.Context, account awsclient.Role, names []string, o *Observed) error {
	slices.Sort(names)
	out, err := p.cloud.logs(account).DescribeLogGroups(ctx, &cloudwatchlogs.DescribeLogGroupsInput{LogGroupIdentifiers: slices.Compact(names)})
	if err != nil {
		return fmt.Errorf("failed to read %d log groups back: %w", len(names), err)
	}
	o.add(account, out)
	return nil
}

// role does an action on a role.
func (t *tenantRun) role(ctx context.Context, a Action) error {
	name, in := a.Target, t.p.cloud.IAM
	write := func(operation string, f func() error) error { return t.write(ctx, a.account, operation, f) }
	document := ""
	if a.document != nil {
		text, err := json.Marshal(a.document)
		if err != nil {
			return err
		}
		document = string(text)
	}
	switch a.Kind {
	case CreateRole:
		tags := maps.Clone(a.tags)
		if g := t.groups[groupKey{name: t.p.in.Scope.Names.Group(t.tenant)}]; g != nil {
			tags[tagGroupCreated] = strconv.FormatInt(g.created(), 10)
		}
		create := &iam.CreateRoleInput{
			RoleName: &name, Path: &t.p.in.Scope.RolePath, AssumeRolePolicyDocument: &document, Tags: iamTags(tags), Description: &a.about,
		}
		if a.boundary != "" {
			create.PermissionsBoundary = &a.boundary
		}
		err := write("CreateRole", func() error {
			_, err := in.CreateRole(ctx, create)
			return err
		})
		switch awsclient.Classify(err) {
		case awsclient.ClassNone:
			t.made[name] = tags
		case awsclient.ClassExists:
			return errAgain
		case awsclient.ClassNotFound:
			return fmt.Errorf("%s: is the boundary %s there? `tenantlogs bootstrap` makes it", awsclient.Brief(err), a.boundary)
		}
		return err
	case TagRole:
		return write("TagRole", func() error {
			_, err := in.TagRole(ctx, &iam.TagRoleInput{RoleName: &name, Tags: iamTags(a.tags)})
			return err
		})
	case SetBoundary:
		return write("PutRolePermissionsBoundary", func() error {
			_, err := in.PutRolePermissionsBoundary(ctx, &iam.PutRolePermissionsBoundaryInput{RoleName: &name, PermissionsBoundary: aws.String(a.Will)})
			return err
		})
	case SetTrust:
		return write("UpdateAssumeRolePolicy", func() error {
			_, err := in.UpdateAssumeRolePolicy(ctx, &iam.UpdateAssumeRolePolicyInput{RoleName: &name, PolicyDocument: &document})
			return err
		})
	case PutPolicy:
		return write("PutRolePolicy", func() error {
			_, err := in.PutRolePolicy(ctx, &iam.PutRolePolicyInput{RoleName: &name, PolicyName: &a.name, PolicyDocument: &document})
			return err
		})
	case RemovePolicy:
		return gone(write("DeleteRolePolicy", func() error {
			_, err := in.DeleteRolePolicy(ctx, &iam.DeleteRolePolicyInput{RoleName: &name, PolicyName: &a.name})
			return err
		}))
	}
	return gone(write("DetachRolePolicy", func() error {
		_, err := in.DetachRolePolicy(ctx, &iam.DetachRolePolicyInput{RoleName: &name, PolicyArn: &a.name})
		return err
	}))
}

// gone takes what is not there for what was removed.
func gone(err error) error {
	if awsclient.Classify(err) == awsclient.ClassNotFound {
		return nil
	}
	return err
}

func iamTags(tags map[string]string) []iamtypes.Tag {
	var out []iamtypes.Tag
	for _, k := range slices.Sorted(maps.Keys(tags)) {
		out = append(out, iamtypes.Tag{Key: aws.String(k), Value: aws.String(tags[k])})
	}
	return out
}
