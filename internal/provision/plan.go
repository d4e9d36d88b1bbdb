package provision

import (
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"

	"github.com/eks-tenant-logs/eks-tenant-logs/internal/awsclient"
	"github.com/eks-tenant-logs/eks-tenant-logs/internal/iampolicy"
	"github.com/eks-tenant-logs/eks-tenant-logs/internal/tenancy"
)

// Layer is what of a tenant an action is about. The layers are looked at apart: what is
// wrong in one does not hide what is wrong in another.
type Layer string

// Layers.
const (
	LayerGroup   Layer = "group"
	LayerRole    Layer = "role"
	LayerKey     Layer = "key"
	LayerCluster Layer = "cluster"
)

// Kind is what an action does.
type Kind string

// Kinds of actions. Each is safe to repeat.
const (
	CreateGroup  Kind = "create-group"
	SetRetention Kind = "set-retention"
	AssociateKey Kind = "associate-key"
	ProtectGroup Kind = "protect-group"
	CloseBearer  Kind = "close-bearer-token"
	TagGroup     Kind = "tag-group"
	// ConfirmGroup reads the group back, and marks it as ready if it is as it should be.
	ConfirmGroup Kind = "confirm-group"

	CreateRole   Kind = "create-role"
	TagRole      Kind = "tag-role"
	SetBoundary  Kind = "set-boundary"
	SetTrust     Kind = "set-trust"
	PutPolicy    Kind = "put-policy"
	RemovePolicy Kind = "remove-policy"
	DetachPolicy Kind = "detach-policy"

	CreateKey    Kind = "create-key"
	AliasKey     Kind = "alias-key"
	SetKeyPolicy Kind = "set-key-policy"
	RotateKey    Kind = "rotate-key"

	CreateAssociation Kind = "create-association"
	UpdateAssociation Kind = "update-association"
	DeleteAssociation Kind = "delete-association"

	CreateManagedPolicy Kind = "create-managed-policy"
	UpdateManagedPolicy Kind = "update-managed-policy"
)

// Action is one change, of one call or a few that belong together.
type Action struct {
	// Tenant is empty for what is the cluster's.
	Tenant string `json:"tenant,omitempty" yaml:"tenant,omitempty"`
	Layer  Layer  `json:"layer" yaml:"layer"`
	Kind   Kind   `json:"kind" yaml:"kind"`
	// Target is the name of the log group, role, key or policy.
	Target string `json:"target" yaml:"target"`
	// Now is what is there and Will what is going to be, in a few words.
	Now  string `json:"now" yaml:"now"`
	Will string `json:"will" yaml:"will"`
	// Reason says why, for people.
	Reason string `json:"reason" yaml:"reason"`
	// Repair: it takes back what somebody changed since it was right.
	Repair bool `json:"repair,omitempty" yaml:"repair,omitempty"`

	// What the calls need.
	spec     *groupSpec
	account  awsclient.Role
	tags     map[string]string
	document *iampolicy.Document
	name     string // of an inline policy, or the ARN of a managed one
	boundary string // of a role that is created: an ARN, or none
	about    string // a description
	pod      podIdentity
	// grants: it gives somebody access to the tenant's group, so the group must be ready.
	grants bool
	// narrows: it takes access away, or back to what it was before somebody changed it.
	// Nothing that failed before it keeps it from being done.
	narrows bool
}

// Finding is what is not as desired and is left as it is.
type Finding struct {
	Tenant string `json:"tenant,omitempty" yaml:"tenant,omitempty"`
	Layer  Layer  `json:"layer" yaml:"layer"`
	Target string `json:"target" yaml:"target"`
	// Text says what is wrong, and what somebody can do about it.
	Text string `json:"text" yaml:"text"`
}

// Result is a plan. It is made of what is desired and observed, and of nothing else.
type Result struct {
	// Actions in the order in which they are to be done; a tenant's are together.
	Actions  []Action  `json:"actions" yaml:"actions"`
	Findings []Finding `json:"findings" yaml:"findings"`
	// Tenants is how each is: ready where there is nothing to do, pending where there is.
	Tenants []TenantStatus `json:"tenants" yaml:"tenants"`
}

// Clean reports whether there is nothing to do and nothing to tell.
func (r Result) Clean() bool {
	return len(r.Actions) == 0 && len(r.Findings) == 0 && !slices.ContainsFunc(r.Tenants, func(s TenantStatus) bool {
		return s.State == StateRefused || s.State == StateFailed || len(s.Refused) > 0
	})
}

// Plan compares what is desired with what is observed. It is a pure function:
//
//	log group   | its tags        | reader role          | plan
//	------------+-----------------+----------------------+------------------------------------------------
//	missing     |                 | missing              | create group, set retention, confirm; create role, put policy
//	there       | ours, new       | any                  | set retention, confirm: somebody was interrupted
//	there       | ours, ready     | as desired           | nothing
//	there       | ours, ready     | differs              | what differs, as a repair
//	there       | ours, ready     | of that name, not ours | refused: neither is touched
//	there       | of a tenant, no cluster | any          | tag: the plugin made it
//	there       | not ours        | ours                 | refused; the role is closed
//	there       | not ours        | missing              | refused
//	there       | retired         | open                 | the role is closed
//	there       | retired         | closed or missing    | nothing
//	there       | another UID     | open                 | refused; the role is closed
//	could not be read | any       | any                  | nothing: failed
//
// A closed role has no policy, and a trust policy that denies. See judge for whose a tenant
// is, planGroup and planRole for what is compared.
func Plan(in Installation, tenants []Tenant, o *Observed) Result {
	p := &planner{in: in, o: o}
	p.result.Actions, p.result.Findings, p.result.Tenants = []Action{}, []Finding{}, []TenantStatus{}
	p.unread()
	if err := o.failed[""]; err != nil {
		p.find("", LayerGroup, in.Scope.Names.PlatformGroup, "it could not be read: %s", awsclient.Brief(err))
	} else {
		for _, g := range in.platformGroups() {
			p.auxiliary("", g, o.groups[g.key], false)
		}
	}
	tenants = slices.Clone(tenants)
	slices.SortStableFunc(tenants, func(a, b Tenant) int { return strings.Compare(a.Name, b.Name) })
	for i, t := range tenants {
		s := TenantStatus{Tenant: t.Name}
		switch err := valid(t); {
		case err != nil:
			s.State, s.Reason = StateRefused, err.Error()
		case i > 0 && tenants[i-1].Name == t.Name:
			continue // the same tenant twice is one: its first entry
		default:
			p.tenant(t, &s)
		}
		p.result.Tenants = append(p.result.Tenants, s)
	}
	return p.result
}

// namespaceUID is what a UID of Kubernetes may look like: opaque, and without what tags
// can't hold (Kubernetes API conventions; in fact they are UUIDs).
var namespaceUID = regexp.MustCompile(`^[0-9A-Za-z-]{0,64}$`)

// valid refuses names that nothing may be derived from, before any call.
func valid(t Tenant) error {
	if !tenancy.Label(t.Name) {
		return fmt.Errorf("%q is no tenant's name: it is a DNS label, lower-case letters, digits and -, up to 63", t.Name)
	}
	for _, ns := range t.Namespaces {
		if !tenancy.Label(ns.Name) {
			return fmt.Errorf("%q is no namespace's name: it is a DNS label, lower-case letters, digits and -, up to 63", ns.Name)
		}
		if !namespaceUID.MatchString(ns.UID) {
			return fmt.Errorf("%q is no UID of a namespace", ns.UID)
		}
	}
	return nil
}

type planner struct {
	in     Installation
	o      *Observed
	result Result
	// unmet is what the tenant was asked to have, does not have, and can't be given.
	unmet []error
}

func (p *planner) act(a Action) { p.result.Actions = append(p.result.Actions, a) }

func (p *planner) find(tenant string, l Layer, target, format string, args ...any) {
	p.result.Findings = append(p.result.Findings, Finding{tenant, l, target, fmt.Sprintf(format, args...)})
}

// tenant plans one tenant.
func (p *planner) tenant(t Tenant, s *TenantStatus) {
	actions, findings := len(p.result.Actions), len(p.result.Findings)
	spec := p.in.groupOf(t)
	s.Group, s.WantedDays = spec.key.name, spec.days
	g := p.o.groups[spec.key]
	if g != nil {
		s.RetentionDays = g.days()
	}
	// Who has an account of their own gives access to it themselves.
	roles := p.in.roles() && spec.key.account.ARN == ""
	var r *role
	name := tenancy.ReaderRole(p.in.Scope.Cluster, p.in.Scope.Region, t.Name)
	if roles {
		s.Role = name
		r = p.o.roles[roleKey(name)]
	}
	if err := p.o.failed[t.Name]; err != nil {
		s.State, s.Reason = StateFailed, awsclient.Brief(err)
		return
	}
	mine := r != nil && r.ours(p.in, t.Name)
	c := p.claim(t, g, r, mine)
	s.State, s.Reason, s.Refused = c.state, c.reason, c.refused
	for _, ns := range c.granted {
		s.Namespaces = append(s.Namespaces, ns.Name)
	}
	if roles && r != nil && !mine {
		s.State, s.Namespaces = StateRefused, nil
		s.Reason = fmt.Sprintf("role %s is not ours (path %q, tags %s): it is not touched; rename or remove it", name, r.path, ownTagText(r))
		p.find(t.Name, LayerRole, name, "%s", s.Reason)
		return
	}
	if s.State != StateReady {
		if s.State == StateRefused {
			p.find(t.Name, LayerGroup, s.Group, "%s", s.Reason)
		}
		if mine {
			p.closeRole(t.Name, r, c)
			p.unpod(t.Name, name)
		}
	} else {
		finished := g != nil && g.tags[tagState] == stateReady
		var failed []error
		p.unmet = nil
		keyless := spec.ownKey && p.o.keysFailed != nil
		if keyless {
			failed = append(failed, p.o.keysFailed)
		} else {
			p.key(t.Name, &spec)
			if q, ok := p.in.quarantineOf(t); ok {
				p.auxiliary(t.Name, q, p.o.groups[q.key], finished)
			}
			if g == nil && mine && r.tags[tagGroupCreated] != "" {
				p.find(t.Name, LayerGroup, s.Group, "log group %s was there, and somebody deleted it with its logs: a new one is made", s.Group)
			}
			p.group(t.Name, spec, g, c)
			failed = append(failed, p.unmet...)
		}
		if roles && (finished || !keyless) {
			if err := p.role(t.Name, name, r, g, c); err != nil {
				failed = append(failed, err) // what nobody can assume is associated with nobody
			} else {
				failed = append(failed, p.pod(t.Name, name, c))
			}
		}
		if err := errors.Join(failed...); err != nil {
			s.State, s.Reason = StateFailed, err.Error()
		}
		for _, refused := range c.refused {
			p.find(t.Name, LayerGroup, s.Group, "%s", refused.Reason)
		}
	}
	for _, f := range p.result.Findings[findings:] {
		if f.Text != s.Reason {
			s.Findings = append(s.Findings, f.Text)
		}
	}
	if s.State == StateReady && len(p.result.Actions) > actions {
		s.State = StatePending
		var kinds []string
		for _, a := range p.result.Actions[actions:] {
			kinds = append(kinds, string(a.Kind))
		}
		s.Reason = "to do: " + strings.Join(kinds, ", ")
	}
}

// unread says what of the cluster could not be read, or is not what bootstrap made.
func (p *planner) unread() {
	if err := p.o.podsFailed; err != nil {
		p.find("", LayerRole, p.in.Scope.Cluster, "%v", err)
	}
	if err := p.o.keysFailed; err != nil {
		p.find("", LayerKey, p.in.Scope.Cluster, "%v", err)
	}
	for _, a := range p.o.pods.unread() {
		p.find("", LayerRole, a.namespace+"/"+a.account, "%v; it is left", a.err)
	}
	b := p.o.boundary
	switch arn := p.in.Scope.BoundaryARN(); {
	case b == nil:
	case b.err != nil:
		p.find("", LayerCluster, arn, "the boundary of the reader roles could not be read: %s", awsclient.Brief(b.err))
	case b.policy == nil:
		p.find("", LayerCluster, arn, "the boundary %s is missing: no reader role can be made or changed; run `tenantlogs bootstrap`", arn)
	case !same(b.policy.document, p.in.Scope.Boundary()):
		p.find("", LayerCluster, arn, "the boundary %s says something else than it should, so that reader roles are not held to their own group by it: run `tenantlogs bootstrap`; it says %s", arn, brief(b.policy.document))
	}
}

// claim judges by the group's tags, or where it is gone by those its reader role was given.
func (p *planner) claim(t Tenant, g *group, r *role, mine bool) claim {
	var own map[string]string
	if mine {
		own = r.tags
	}
	if g != nil {
		return judge(t, g.tags, own, true, p.in)
	}
	return judge(t, own, own, mine, p.in)
}

func ownTagText(r *role) string {
	var own []string
	for _, k := range slices.Sorted(maps.Keys(r.tags)) {
		if strings.HasPrefix(k, ownTags) {
			own = append(own, k+"="+r.tags[k])
		}
	}
	if own == nil {
		return "none of ours"
	}
	return strings.Join(own, " ")
}
