package provision

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/cloudwatchlogs"
	"github.com/aws/aws-sdk-go-v2/service/iam"
	iamtypes "github.com/aws/aws-sdk-go-v2/service/iam/types"

	"github.com/eks-tenant-logs/eks-tenant-logs/internal/awsclient"
	"github.com/eks-tenant-logs/eks-tenant-logs/internal/tenancy"
)

const (
	// describeAtOnce is how many groups one DescribeLogGroups call names
	// (logGroupIdentifiers; API reference).
	describeAtOnce = 50
	// fewTenants are looked at by name: two groups each, in one call. For more it is the
	// prefixes' pages, of 50 groups.
	fewTenants = 24
	// fewRoles are read one by one, which takes up to four calls each; for more
	// GetAccountAuthorizationDetails reads all roles of the account, in pages of up to 1,000.
	fewRoles = 10
	// pageOfRoles is the most GetAccountAuthorizationDetails takes (API reference).
	pageOfRoles = 1000
)

// remembered are the tags of a group, by its ARN and the time it was created: a group made
// anew is another one. They are read anew about once a day, and before anything is changed.
type remembered struct {
	tags  map[string]string
	until time.Time
}

type groupIdentity struct {
	arn     string
	created int64
}

func (g *group) identity() groupIdentity { return groupIdentity{g.arn(), g.created()} }

// memory is what a provisioner remembers from run to run.
type memory struct {
	mu   sync.Mutex
	tags map[groupIdentity]remembered
	keys map[string]rememberedKey // by key id
	pods map[string]rememberedPod // by association id
	// boundary was read at boundaryAt.
	boundary   *boundarySeen
	boundaryAt time.Time
}

func newMemory() *memory {
	return &memory{tags: map[groupIdentity]remembered{}, keys: map[string]rememberedKey{}, pods: map[string]rememberedPod{}}
}

func (p *Provisioner) remember(g *group) {
	p.memory.mu.Lock()
	defer p.memory.mu.Unlock()
	p.memory.tags[g.identity()] = remembered{maps.Clone(g.tags), p.forgetAt()}
}

func (p *Provisioner) recall(g *group) bool {
	p.memory.mu.Lock()
	defer p.memory.mu.Unlock()
	m, ok := p.memory.tags[g.identity()]
	if !ok || p.clock.Now().After(m.until) {
		return false
	}
	g.tags, g.source = maps.Clone(m.tags), tagsRemembered
	return true
}

// known reports whether a group's tags were ever read, or copied, by this process. What was
// copied is read when it is about a day old.
func (p *Provisioner) known(g *group) bool {
	p.memory.mu.Lock()
	defer p.memory.mu.Unlock()
	_, ok := p.memory.tags[g.identity()]
	return ok
}

// forgetAt is a time about a day ahead: what was remembered together is not read anew
// together.
func (p *Provisioner) forgetAt() time.Time {
	const day = 24 * time.Hour
	return p.clock.Now().Add(day/2 + time.Duration(p.random()*float64(day)))
}

// observe reads what some tenants need. Groups in fresh have their tags read whatever is
// remembered. What only one tenant's depends on and can't be read is in failed; an error
// is what keeps everything from being read.
func (p *Provisioner) observe(ctx context.Context, tenants []Tenant, fresh map[groupKey]bool) (*Observed, error) {
	o := &Observed{
		groups: map[groupKey]*group{}, roles: map[string]*role{}, keys: map[string]*key{}, failed: map[string]error{},
		rolesInAccount: -1, roleQuota: -1,
	}
	tenants = slices.DeleteFunc(slices.Clone(tenants), func(t Tenant) bool { return valid(t) != nil })
	if err := p.observeGroups(ctx, tenants, o); err != nil {
		return nil, err
	}
	if p.in.roles() {
		if err := p.observeRoles(ctx, tenants, o); err != nil {
			return nil, err
		}
	}
	p.progress(Progress{Step: "tags", Of: len(tenants)})
	for i, t := range tenants {
		p.observeTags(ctx, t, o, fresh)
		p.progress(Progress{Step: "tags", Done: i + 1, Of: len(tenants)})
	}
	for _, spec := range p.in.platformGroups() {
		if g := o.groups[spec.key]; g != nil && (fresh[spec.key] || !p.recall(g)) {
			if err := p.readTags(ctx, spec.key, g); err != nil {
				o.failed[""] = err
			}
		}
	}
	if err := p.observeKeys(ctx, tenants, o); err != nil {
		o.keysFailed = fmt.Errorf("which KMS keys the tenants have can't be told: %w", shortened{err})
	}
	if err := p.observePods(ctx, o); err != nil {
		o.pods, o.podsFailed = nil, fmt.Errorf("which Pod Identity associations the tenants have can't be told: %w", shortened{err})
	}
	p.observeBoundary(ctx, tenants, o)
	return o, ctx.Err()
}

// boundarySeen is what was read of the reader roles' boundary: a policy, none, or why not.
type boundarySeen struct {
	policy *managedPolicy
	err    error
}

// boundaryFor is how long what was read of the boundary is taken for true: about as long as a
// controller's passes are apart.
const boundaryFor = 10 * time.Minute

// observeBoundary reads the reader roles' boundary. The provisioner may not change it: that
// its roles are held by it is worth two calls in ten minutes.
func (p *Provisioner) observeBoundary(ctx context.Context, tenants []Tenant, o *Observed) {
	if !p.in.roles() || len(tenants) == 0 {
		return
	}
	if p.memory.boundary == nil || p.clock.Now().Sub(p.memory.boundaryAt) >= boundaryFor {
		seen := &boundarySeen{}
		seen.policy, seen.err = p.readPolicy(ctx, p.in.Scope.BoundaryARN())
		p.memory.boundary, p.memory.boundaryAt = seen, p.clock.Now()
		if seen.err != nil || seen.policy == nil {
			p.memory.boundaryAt = time.Time{} // asked again in the next run
		}
	}
	o.boundary = p.memory.boundary
}

// observeGroups reads the groups: those of the platform's account by their prefixes, or by
// name where they are few; those in tenants' own accounts by name.
func (p *Provisioner) observeGroups(ctx context.Context, tenants []Tenant, o *Observed) error {
	var names []string
	own := map[awsclient.Role]map[string][]string{} // by account: group → tenants
	here := 0
	for _, t := range tenants {
		spec := p.in.groupOf(t)
		if spec.key.account.ARN == "" {
			here++
			names = append(names, spec.key.name)
		} else {
			if own[spec.key.account] == nil {
				own[spec.key.account] = map[string][]string{}
			}
			own[spec.key.account][spec.key.name] = append(own[spec.key.account][spec.key.name], t.Name)
		}
		if q, ok := p.in.quarantineOf(t); ok {
			names = append(names, q.key.name)
		}
	}
	platform := p.in.Scope.Names.PlatformGroup
	if here <= fewTenants {
		for _, spec := range p.in.platformGroups() {
			names = append(names, spec.key.name)
		}
		if err := p.describeNames(ctx, awsclient.Role{}, names, o); err != nil {
			return err
		}
	} else {
		for _, prefix := range []string{p.in.Scope.Names.TenantPrefix, p.in.Scope.Names.QuarantinePrefix} {
			if err := p.describePrefix(ctx, prefix, o); err != nil {
				return err
			}
		}
		if err := p.describeNames(ctx, awsclient.Role{}, []string{platform}, o); err != nil {
			return err
		}
	}
	for account, groups := range own {
		if err := p.describeNames(ctx, account, slices.Sorted(maps.Keys(groups)), o); err != nil {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			for _, owners := range groups {
				for _, tenant := range owners {
					o.failed[tenant] = err
				}
			}
		}
	}
	return nil
}

func (p *Provisioner) describePrefix(ctx context.Context, prefix string, o *Observed) error {
	in := &cloudwatchlogs.DescribeLogGroupsInput{LogGroupNamePrefix: &prefix, Limit: aws.Int32(describeAtOnce)}
	for {
		if err := p.rates.wait(ctx, awsclient.Role{}, "DescribeLogGroups"); err != nil {
			return err
		}
		out, err := p.cloud.Logs.DescribeLogGroups(ctx, in)
		if err != nil {
			return fmt.Errorf("failed to list the log groups under %s: %w", prefix, err)
		}
		o.add(awsclient.Role{}, out)
		p.progress(Progress{Step: "log groups", Done: len(o.groups)})
		if aws.ToString(out.NextToken) == "" {
			return nil
		}
		in = &cloudwatchlogs.DescribeLogGroupsInput{LogGroupNamePrefix: &prefix, Limit: in.Limit, NextToken: out.NextToken}
	}
}

func (p *Provisioner) describeNames(ctx context.Context, account awsclient.Role, names []string, o *Observed) error {
	for some := range slices.Chunk(names, describeAtOnce) {
		in := &cloudwatchlogs.DescribeLogGroupsInput{LogGroupIdentifiers: some}
		for {
			if err := p.rates.wait(ctx, account, "DescribeLogGroups"); err != nil {
				return err
			}
			out, err := p.cloud.logs(account).DescribeLogGroups(ctx, in)
			if err != nil {
				return fmt.Errorf("failed to describe %d log groups, %s the first: %w", len(some), some[0], err)
			}
			o.add(account, out)
			if aws.ToString(out.NextToken) == "" {
				break
			}
			in = &cloudwatchlogs.DescribeLogGroupsInput{LogGroupIdentifiers: some, NextToken: out.NextToken}
		}
	}
	return nil
}

func (o *Observed) add(account awsclient.Role, out *cloudwatchlogs.DescribeLogGroupsOutput) {
	for _, g := range out.LogGroups {
		if g.LogGroupName != nil {
			o.groups[groupKey{account, *g.LogGroupName}] = &group{LogGroup: g}
		}
	}
}

// observeTags finds a tenant's groups' tags: what is remembered, what the reader role was
// given, or else what AWS says.
func (p *Provisioner) observeTags(ctx context.Context, t Tenant, o *Observed, fresh map[groupKey]bool) {
	spec := p.in.groupOf(t)
	if g := o.groups[spec.key]; g != nil {
		switch {
		case fresh[spec.key]:
		case p.recall(g):
		default:
			r := o.roles[roleKey(tenancy.ReaderRole(p.in.Scope.Cluster, p.in.Scope.Region, t.Name))]
			if r == nil || !r.ours(p.in, t.Name) || p.known(g) {
				break
			}
			if tags, ok := r.groupTags(g); ok {
				g.tags, g.source = tags, tagsCopied
				p.remember(g)
			}
		}
		if g.source == tagsUnknown {
			if err := p.readTags(ctx, spec.key, g); err != nil {
				o.failed[t.Name] = err
				return
			}
		}
	}
	q, ok := p.in.quarantineOf(t)
	if !ok {
		return
	}
	// It is finished before the tenant's own group is: only where that one is not, its tags
	// must be known.
	own := o.groups[spec.key]
	needed := fresh[q.key] || own == nil || own.tags[tagState] == stateNew
	if g := o.groups[q.key]; g != nil && (fresh[q.key] || !p.recall(g)) && needed {
		if err := p.readTags(ctx, q.key, g); err != nil {
			o.failed[t.Name] = err
		}
	}
}

func (p *Provisioner) readTags(ctx context.Context, k groupKey, g *group) error {
	if err := p.rates.wait(ctx, k.account, "ListTagsForResource"); err != nil {
		return err
	}
	arn := g.arn()
	out, err := p.cloud.logs(k.account).ListTagsForResource(ctx, &cloudwatchlogs.ListTagsForResourceInput{ResourceArn: &arn})
	if err != nil {
		return fmt.Errorf("failed to read the tags of log group %s: %w", k.name, err)
	}
	g.tags, g.source = out.Tags, tagsRead
	if g.tags == nil {
		g.tags = map[string]string{}
	}
	p.remember(g)
	return nil
}

// observeRoles reads the reader roles.
func (p *Provisioner) observeRoles(ctx context.Context, tenants []Tenant, o *Observed) error {
	wanted := map[string]string{} // role in lower case → tenant
	for _, t := range tenants {
		if p.in.groupOf(t).key.account.ARN == "" {
			wanted[roleKey(tenancy.ReaderRole(p.in.Scope.Cluster, p.in.Scope.Region, t.Name))] = t.Name
		}
	}
	if len(wanted) > fewRoles {
		return p.allRoles(ctx, func(r *role) {
			if _, ok := wanted[roleKey(r.name)]; ok {
				o.roles[roleKey(r.name)] = r
			}
		})
	}
	for name, tenant := range wanted {
		r, err := p.readRole(ctx, name)
		if err != nil {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			o.failed[tenant] = err
			continue
		}
		if r != nil {
			o.roles[name] = r
		}
	}
	return nil
}

// allRoles reads every role of the account, page by page.
func (p *Provisioner) allRoles(ctx context.Context, see func(*role)) error {
	in := &iam.GetAccountAuthorizationDetailsInput{Filter: []iamtypes.EntityType{iamtypes.EntityTypeRole}, MaxItems: aws.Int32(pageOfRoles)}
	for n := 0; ; {
		if err := p.rates.wait(ctx, awsclient.Role{}, "GetAccountAuthorizationDetails"); err != nil {
			return err
		}
		out, err := p.cloud.IAM.GetAccountAuthorizationDetails(ctx, in)
		if err != nil {
			return fmt.Errorf("failed to read the account's roles: %w", err)
		}
		for _, d := range out.RoleDetailList {
			r := &role{name: aws.ToString(d.RoleName), path: aws.ToString(d.Path), arn: aws.ToString(d.Arn), tags: roleTags(d.Tags), inline: map[string]string{}}
			r.trust = decoded(d.AssumeRolePolicyDocument)
			if d.PermissionsBoundary != nil {
				r.boundary = aws.ToString(d.PermissionsBoundary.PermissionsBoundaryArn)
			}
			for _, inline := range d.RolePolicyList {
				r.inline[aws.ToString(inline.PolicyName)] = decoded(inline.PolicyDocument)
			}
			for _, a := range d.AttachedManagedPolicies {
				r.attached = append(r.attached, aws.ToString(a.PolicyArn))
			}
			see(r)
		}
		n += len(out.RoleDetailList)
		p.progress(Progress{Step: "roles", Done: n})
		if !out.IsTruncated || aws.ToString(out.Marker) == "" {
			return nil
		}
		in = &iam.GetAccountAuthorizationDetailsInput{Filter: in.Filter, MaxItems: in.MaxItems, Marker: out.Marker}
	}
}

// readRole reads one role; nil where there is none.
func (p *Provisioner) readRole(ctx context.Context, name string) (*role, error) {
	read := func(operation string, f func() error) error {
		if err := p.rates.wait(ctx, awsclient.Role{}, operation); err != nil {
			return err
		}
		if err := f(); err != nil {
			return fmt.Errorf("failed to read role %s: %w", name, err)
		}
		return nil
	}
	r := &role{inline: map[string]string{}}
	err := read("GetRole", func() error {
		out, err := p.cloud.IAM.GetRole(ctx, &iam.GetRoleInput{RoleName: &name})
		if err != nil {
			return err
		}
		if out.Role == nil {
			return errors.New("the answer has no role")
		}
		d := out.Role
		r.name, r.path, r.arn, r.tags, r.trust = aws.ToString(d.RoleName), aws.ToString(d.Path), aws.ToString(d.Arn), roleTags(d.Tags), decoded(d.AssumeRolePolicyDocument)
		if d.PermissionsBoundary != nil {
			r.boundary = aws.ToString(d.PermissionsBoundary.PermissionsBoundaryArn)
		}
		return nil
	})
	if awsclient.Classify(err) == awsclient.ClassNotFound {
		return nil, nil
	}
	if err != nil || r.path != p.in.Scope.RolePath && !strings.HasPrefix(r.path, p.in.Scope.RolePath) {
		return r, err // of a role that is not ours no more is needed, nor allowed to be read
	}
	var policies []string
	err = read("ListRolePolicies", func() error {
		in := &iam.ListRolePoliciesInput{RoleName: &name}
		for {
			out, err := p.cloud.IAM.ListRolePolicies(ctx, in)
			if err != nil {
				return err
			}
			policies = append(policies, out.PolicyNames...)
			if !out.IsTruncated {
				return nil
			}
			in = &iam.ListRolePoliciesInput{RoleName: &name, Marker: out.Marker}
		}
	})
	for _, policy := range policies {
		if err == nil {
			err = read("GetRolePolicy", func() error {
				out, err := p.cloud.IAM.GetRolePolicy(ctx, &iam.GetRolePolicyInput{RoleName: &name, PolicyName: &policy})
				if err == nil {
					r.inline[policy] = decoded(out.PolicyDocument)
				}
				return err
			})
		}
	}
	if err == nil {
		err = read("ListAttachedRolePolicies", func() error {
			in := &iam.ListAttachedRolePoliciesInput{RoleName: &name}
			for {
				out, err := p.cloud.IAM.ListAttachedRolePolicies(ctx, in)
				if err != nil {
					return err
				}
				for _, a := range out.AttachedPolicies {
					r.attached = append(r.attached, aws.ToString(a.PolicyArn))
				}
				if !out.IsTruncated {
					return nil
				}
				in = &iam.ListAttachedRolePoliciesInput{RoleName: &name, Marker: out.Marker}
			}
		})
	}
	if awsclient.Classify(err) == awsclient.ClassNotFound {
		return nil, fmt.Errorf("role %s changed while it was read: %s", name, awsclient.Brief(err))
	}
	return r, err
}

func roleTags(tags []iamtypes.Tag) map[string]string {
	m := make(map[string]string, len(tags))
	for _, t := range tags {
		m[aws.ToString(t.Key)] = aws.ToString(t.Value)
	}
	return m
}

// decoded is a policy document as IAM returns it: URL-encoded (API reference).
func decoded(document *string) string {
	text := aws.ToString(document)
	if plain, err := url.PathUnescape(text); err == nil && strings.HasPrefix(text, "%7B") {
		return plain
	}
	return text
}
