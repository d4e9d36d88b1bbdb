package fakeaws

import (
	"maps"
	"slices"
)

type getAccountSummary struct{}

func (*getAccountSummary) about(*Call) {}

func (*getAccountSummary) asks(*account) []permission { return []permission{{}} }

type summaryEntry struct {
	Key   string `xml:"key"`
	Value int    `xml:"value"`
}

func (*getAccountSummary) do(s *account, _ identity) (any, *APIError) {
	s.iam.mu.RLock()
	defer s.iam.mu.RUnlock()
	versions := 0
	for _, p := range s.iam.policies {
		versions += len(p.versions)
	}
	summary := map[string]int{
		"Roles": len(s.iam.roles), "RolesQuota": s.cfg.RoleQuota, "Policies": len(s.iam.policies), "PoliciesQuota": maxPolicies,
		"PolicySizeQuota": maxManagedSize, "RolePolicySizeQuota": maxInlineSize, "AssumeRolePolicySizeQuota": maxTrustSize,
		"VersionsPerPolicyQuota": maxPolicyVersions, "AttachedPoliciesPerRoleQuota": maxAttachedPolicies,
		"PolicyVersionsInUse": versions, "PolicyVersionsInUseQuota": 10_000, "Providers": len(s.iam.providers),
	}
	var out struct {
		Entries []summaryEntry `xml:"SummaryMap>entry"`
	}
	for _, k := range slices.Sorted(maps.Keys(summary)) {
		out.Entries = append(out.Entries, summaryEntry{k, summary[k]})
	}
	return out, nil
}

type getAuthorizationDetails struct {
	Filter []string `query:"Filter"`
	paging
}

func (r *getAuthorizationDetails) about(*Call) {}

func (r *getAuthorizationDetails) asks(*account) []permission { return []permission{{}} }

// namedDocument is the model's PolicyDetail.
type namedDocument struct {
	Name     string `xml:"PolicyName"`
	Document string `xml:"PolicyDocument"`
}

// roleDetail is the model's RoleDetail.
type roleDetail struct {
	Path     string            `xml:"Path"`
	Name     string            `xml:"RoleName"`
	ID       string            `xml:"RoleId"`
	ARN      string            `xml:"Arn"`
	Created  string            `xml:"CreateDate"`
	Trust    string            `xml:"AssumeRolePolicyDocument"`
	Inline   []namedDocument   `xml:"RolePolicyList>member"`
	Attached []attachedElement `xml:"AttachedManagedPolicies>member"`
	Boundary *boundaryElement  `xml:"PermissionsBoundary"`
	Tags     []tag             `xml:"Tags>member"`
}

// policyDetail is the model's ManagedPolicyDetail.
type policyDetail struct {
	Name           string           `xml:"PolicyName"`
	ID             string           `xml:"PolicyId"`
	ARN            string           `xml:"Arn"`
	Path           string           `xml:"Path"`
	DefaultVersion string           `xml:"DefaultVersionId"`
	Attachments    int              `xml:"AttachmentCount"`
	Boundaries     int              `xml:"PermissionsBoundaryUsageCount"`
	Attachable     bool             `xml:"IsAttachable"`
	Created        string           `xml:"CreateDate"`
	Updated        string           `xml:"UpdateDate"`
	Versions       []versionElement `xml:"PolicyVersionList>member"`
}

// do lists roles and customer managed policies; users, groups and AWS's own policies there are none.
func (r *getAuthorizationDetails) do(s *account, _ identity) (any, *APIError) {
	var c constraints
	for i := range r.Filter {
		c.oneOf("filter", &r.Filter[i], "User", "Role", "Group", "LocalManagedPolicy", "AWSManagedPolicy")
	}
	wants := func(kind string) bool { return len(r.Filter) == 0 || slices.Contains(r.Filter, kind) }
	s.iam.mu.RLock()
	defer s.iam.mu.RUnlock()
	const ofRole, ofPolicy = "r ", "s " // roles come first
	var keys []string
	if wants("Role") {
		for key := range s.iam.roles {
			keys = append(keys, ofRole+key)
		}
	}
	if wants("LocalManagedPolicy") {
		for arn := range s.iam.policies {
			keys = append(keys, ofPolicy+arn)
		}
	}
	keys, more, err := r.page(&c, keys, append([]any{"GetAccountAuthorizationDetails"}, anySlice(r.Filter)...)...)
	if err != nil {
		return nil, err
	}
	out := struct {
		Roles    []roleDetail   `xml:"RoleDetailList>member"`
		Policies []policyDetail `xml:"Policies>member"`
		paged
	}{paged: more}
	for _, key := range keys {
		if found := s.iam.roles[key[len(ofRole):]]; found != nil && key[:len(ofRole)] == ofRole {
			out.Roles = append(out.Roles, found.detail())
			continue
		}
		out.Policies = append(out.Policies, s.policyDetail(s.iam.policies[key[len(ofPolicy):]]))
	}
	return out, nil
}

func anySlice(list []string) (out []any) {
	for _, v := range list {
		out = append(out, v)
	}
	return out
}

func (r *role) detail() roleDetail {
	d := roleDetail{
		Path: r.path, Name: r.name, ID: r.id, ARN: r.arn, Created: xmlTime(r.created), Trust: uriEncode(r.access.trust),
		Attached: attachedElements(r.access.attached), Boundary: boundaryOf(r.access.boundary), Tags: tagList(r.access.tags),
	}
	for _, name := range slices.Sorted(maps.Keys(r.access.inline)) {
		d.Inline = append(d.Inline, namedDocument{name, uriEncode(r.access.inline[name])})
	}
	return d
}

func (s *account) policyDetail(p *managedPolicy) policyDetail {
	e := s.describe(p, true)
	d := policyDetail{
		Name: e.Name, ID: e.ID, ARN: e.ARN, Path: e.Path, DefaultVersion: e.DefaultVersion, Attachments: e.Attachments,
		Boundaries: e.Boundaries, Attachable: true, Created: e.Created, Updated: e.Updated,
	}
	for i := range p.versions {
		d.Versions = append(d.Versions, p.versionElement(i, true))
	}
	return d
}
