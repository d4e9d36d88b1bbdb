package provision

import (
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/eks-tenant-logs/eks-tenant-logs/internal/iampolicy"
	"github.com/eks-tenant-logs/eks-tenant-logs/internal/loggroup"
)

// readerPolicy is the name of a reader role's one inline policy.
const readerPolicy = "read-own-group"

// Limits of IAM (IAM and STS quotas). Of the trust policy's it is the default, and what is
// counted is without white space.
const (
	maxTrust  = 2048
	maxInline = 10240
)

// closedTrust lets nobody assume a role. A role always has a trust policy, so read access
// that is taken away has this one.
func closedTrust() *iampolicy.Document {
	d, err := iampolicy.Parse([]byte(`{"Version":"2012-10-17","Statement":[{"Sid":"Closed","Effect":"Deny","Principal":{"AWS":"*"},"Action":"sts:AssumeRole"}]}`))
	if err != nil {
		panic(err) // it is a constant
	}
	return d
}

// trust is the trust policy of a tenant's reader role: the template for each of its
// namespaces, what is the same only once.
func trust(in Installation, tenant string, has []Namespace) (*iampolicy.Document, error) {
	names := []string{""}
	if len(has) > 0 {
		names = nil
		for _, ns := range has {
			names = append(names, ns.Name)
		}
	}
	var all *iampolicy.Document
	for _, ns := range names {
		d, err := in.Scope.TrustPolicy(in.Trust, tenant, ns)
		if err != nil {
			return nil, err
		}
		if all == nil {
			all = d
			continue
		}
		for _, s := range d.Statements {
			one := func(s iampolicy.Statement) *iampolicy.Document {
				s.Sid = ""
				return &iampolicy.Document{Version: d.Version, Statements: []iampolicy.Statement{s}}
			}
			if !slices.ContainsFunc(all.Statements, func(have iampolicy.Statement) bool { return iampolicy.Equal(one(have), one(s)) }) {
				if s.Sid != "" {
					s.Sid += strconv.Itoa(len(all.Statements))
				}
				all.Statements = append(all.Statements, s)
			}
		}
	}
	text, err := json.Marshal(all)
	if err == nil && len(text) > maxTrust {
		err = fmt.Errorf("the trust policy of tenant %s has %d characters, IAM takes %d: name fewer principals, or let them assume one role that may assume this one", tenant, len(text), maxTrust)
	}
	return all, err
}

// role plans the reader role of a tenant whose group is granted.
//
//	of the role          | differs              | plan
//	---------------------+----------------------+------------------------------------------
//	boundary             | missing or another   | set
//	inline policy        | missing              | put
//	                     | another              | put, whatever failed before
//	further inline ones  | any                  | reported, removed
//	managed policies     | any                  | reported, detached
//	trust policy         | another than it was  | set back, whatever failed before; reported
//	                     | of fewer namespaces  | set
//	tags                 | not those of the group | tagged
//
// The boundary comes first: it narrows whatever follows. The role is ours alone: what
// somebody added to it by hand is in the finding, and is better put into a role of theirs.
//
// An error says why there can be no such role; one that is there is narrowed all the same.
func (p *planner) role(tenant, name string, r *role, g *group, c claim) error {
	begin := Action{Tenant: tenant, Layer: LayerRole, Target: name}
	if r != nil {
		begin.Repair = r.tags[tagState] == stateReady
		p.narrow(tenant, r, begin.Repair)
	}
	trusted, err := trust(p.in, tenant, c.granted)
	if err != nil {
		return fmt.Errorf("no reader role for tenant %s: %w", tenant, err)
	}
	policy := p.in.Scope.Reader(tenant)
	tags := p.in.tags(tenant)
	maps.Copy(tags, recordTags(c.record))
	tags[tagState] = stateReady
	if g != nil {
		tags[tagGroupCreated] = strconv.FormatInt(g.created(), 10)
	}
	act := func(a Action, kind Kind, now, will, reason string) {
		a.Kind, a.Now, a.Will, a.Reason = kind, now, will, reason
		p.act(a)
	}
	if r == nil {
		a := begin
		a.grants, a.document, a.tags, a.boundary = true, trusted, tags, p.in.Scope.BoundaryARN()
		a.about = fmt.Sprintf("Reads the logs of tenant %s of EKS cluster %s; kept by eks-tenant-logs", tenant, p.in.Scope.Cluster)
		act(a, CreateRole, "missing", "trusts "+whom(trusted)+", boundary "+p.in.Scope.BoundaryARN(), "the reader role is missing")
		a = begin
		a.grants, a.document, a.name = true, policy, readerPolicy
		act(a, PutPolicy, "missing", "may read "+p.in.Scope.Names.Group(tenant)+" and nothing else", "the reader role has no policy yet")
		return nil
	}
	missing := map[string]string{}
	for key, value := range tags {
		if have, there := r.tags[key]; !there || have != value {
			missing[key] = value
		}
	}
	closed := closedNow(r)
	if text, there := r.inline[readerPolicy]; !there || !same(text, policy) {
		a := begin
		a.document, a.name, a.Repair = policy, readerPolicy, begin.Repair && !closed
		// Where there is one already, the reader's is no more than it was.
		a.narrows = there && !closed
		a.grants = !a.narrows
		now := "missing"
		if there {
			now = "another: " + brief(text)
		}
		act(a, PutPolicy, now, "may read "+p.in.Scope.Names.Group(tenant)+" and nothing else", "the role's policy is not the reader's")
	}
	p.trust(begin, r, c, trusted)
	if len(missing) > 0 {
		a := begin
		a.tags, a.grants = missing, true
		a.Repair = false
		act(a, TagRole, tagText(pick(r.tags, missing)), tagText(missing), "the role's tags say whose it is, and of which group")
	}
	return nil
}

// trust plans the trust policy of a reader role that is there. What somebody changed is set
// back to what it was given, for the namespaces the role's tags name, even if that of others
// must wait.
func (p *planner) trust(begin Action, r *role, c claim, trusted *iampolicy.Document) {
	if same(r.trust, trusted) {
		return
	}
	begin.Kind, begin.Now = SetTrust, trusts(r.trust)
	set := func(a Action, d *iampolicy.Document, reason string) {
		a.document, a.Will, a.Reason = d, "trusts "+whom(d), reason
		p.act(a)
	}
	grant := begin
	grant.Repair, grant.grants = false, true
	given, left := p.trustGiven(begin.Tenant, r, c)
	if !begin.Repair || closedNow(r) || left == nil {
		set(grant, trusted, "others are to assume the role than may now")
		return
	}
	narrow := begin
	narrow.narrows = true
	switch {
	case same(r.trust, left):
	case given != nil && same(r.trust, given):
		narrow.Repair = false
		set(narrow, left, "a namespace does not have the tenant any more")
	default:
		set(narrow, left, "the trust policy is another than the one it was given")
		p.find(begin.Tenant, LayerRole, r.name, "the trust policy of role %s was changed: it %s", r.name, begin.Now)
	}
	if !iampolicy.Equal(left, trusted) {
		grant.Now = "trusts " + whom(left)
		set(grant, trusted, "more namespaces have the tenant")
	}
}

// trustGiven is the trust policy for the namespaces that the role's tags name, and for those
// of them that still have the tenant; nil where there are none, or it can't be told.
func (p *planner) trustGiven(tenant string, r *role, c claim) (given, left *iampolicy.Document) {
	before, err := recorded(r.tags)
	if err != nil || len(before) == 0 {
		return nil, nil
	}
	still := slices.DeleteFunc(slices.Clone(before), func(ns Namespace) bool { return !slices.Contains(c.granted, ns) })
	if given, err = trust(p.in, tenant, before); err != nil {
		given = nil
	}
	if len(still) > 0 {
		if left, err = trust(p.in, tenant, still); err != nil {
			left = nil
		}
	}
	return given, left
}

// narrow plans what takes away from a role of ours what it must not have, whoever's the
// tenant is: its boundary, and policies that are not the reader's.
func (p *planner) narrow(tenant string, r *role, repair bool) {
	begin := Action{Tenant: tenant, Layer: LayerRole, Target: r.name, Repair: repair, narrows: true}
	if want := p.in.Scope.BoundaryARN(); r.boundary != want {
		a := begin
		a.Kind, a.Now, a.Will, a.Reason = SetBoundary, cmp.Or(r.boundary, "none"), want, "the boundary is what no policy of the role can exceed"
		p.act(a)
		p.find(tenant, LayerRole, r.name, "role %s had the permissions boundary %s instead of %s", r.name, cmp.Or(r.boundary, "none"), want)
	}
	for _, name := range slices.Sorted(maps.Keys(r.inline)) {
		if name == readerPolicy {
			continue
		}
		a := begin
		a.Kind, a.name, a.Now, a.Will, a.Reason = RemovePolicy, name, "inline policy "+name, "removed", "a reader role has one policy, the reader's"
		p.act(a)
		p.find(tenant, LayerRole, r.name, "role %s had the further inline policy %s: %s", r.name, name, brief(r.inline[name]))
	}
	for _, arn := range r.attached {
		a := begin
		a.Kind, a.name, a.Now, a.Will, a.Reason = DetachPolicy, arn, "managed policy "+arn, "detached", "a reader role has one policy, the reader's"
		p.act(a)
		p.find(tenant, LayerRole, r.name, "role %s had the managed policy %s attached", r.name, arn)
	}
}

// closeRole plans what leaves a role of ours with no access, for nobody. The policy goes
// before the trust: sessions that were given out before lose their access with it at once. A
// boundary that somebody removed comes first, for the provisioner may change a role's policies
// only within it. Each is tried whatever became of those before; the tombstone, by which a
// role is known to be closed, stands on it only after all of them.
func (p *planner) closeRole(tenant string, r *role, c claim) {
	begin := Action{Tenant: tenant, Layer: LayerRole, Target: r.name, narrows: true}
	const reason = "nobody is to read the tenant's logs by this role"
	p.narrow(tenant, r, false)
	if _, there := r.inline[readerPolicy]; there {
		a := begin
		a.Kind, a.name, a.Now, a.Will, a.Reason = RemovePolicy, readerPolicy, "may read the tenant's group", "may do nothing", reason
		p.act(a)
	}
	if !closedNow(r) {
		a := begin
		a.Kind, a.document, a.Now, a.Will, a.Reason = SetTrust, closedTrust(), trusts(r.trust), "trusts nobody", reason
		p.act(a)
	}
	if c.state == StateRetired && r.tags[tagState] != loggroup.StateRetired {
		a := begin
		a.narrows = false // only after all of the above
		a.Kind, a.tags, a.Now, a.Will, a.Reason = TagRole, map[string]string{tagState: loggroup.StateRetired}, r.tags[tagState], loggroup.StateRetired, "the tombstone stands on the role, too"
		p.act(a)
	}
}

func closedNow(r *role) bool { return same(r.trust, closedTrust()) }

func pick(from, keys map[string]string) map[string]string {
	picked := map[string]string{}
	for key := range keys {
		if v, ok := from[key]; ok {
			picked[key] = v
		}
	}
	return picked
}

// trusts is whom a trust policy names, for people.
func trusts(text string) string {
	d, err := iampolicy.Parse([]byte(text))
	if err != nil {
		return "can't be read: " + brief(text)
	}
	return "trusts " + whom(d)
}

// whom names the principals that are allowed something. What it can't read it shows as it is.
func whom(d *iampolicy.Document) string {
	text, err := json.Marshal(d)
	if err != nil {
		return err.Error()
	}
	var read struct {
		Statement []struct {
			Effect    string
			Principal json.RawMessage
		}
	}
	if err := json.Unmarshal(text, &read); err != nil {
		return brief(string(text))
	}
	var names []string
	for _, s := range read.Statement {
		var everybody string
		var by map[string]any
		switch {
		case s.Effect != "Allow":
		case json.Unmarshal(s.Principal, &everybody) == nil:
			names = append(names, everybody)
		case json.Unmarshal(s.Principal, &by) == nil:
			for _, who := range by {
				names = append(names, strings.Fields(strings.Trim(fmt.Sprint(who), "[]"))...)
			}
		}
	}
	slices.Sort(names)
	if names = slices.Compact(names); len(names) == 0 {
		return "nobody"
	}
	return strings.Join(names, ", ")
}

// brief is a document for one line.
func brief(text string) string {
	const room = 300
	text = strings.Join(strings.Fields(text), " ")
	if len(text) > room {
		return text[:room] + "…"
	}
	return text
}
