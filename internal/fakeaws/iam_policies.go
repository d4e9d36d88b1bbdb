package fakeaws

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// managedPolicy is a customer managed policy. AWS's own are not here: they can't be attached.
type managedPolicy struct {
	name, path, arn, id string
	created, updated    time.Time
	description         string
	tags                map[string]string
	versions            []policyVersion // by number
	made                int             // how many there ever were
	def                 int             // number of the default version
	history             []datedDocument // what the default version was, until all of it has taken effect
}

type policyVersion struct {
	number   int
	document string
	created  time.Time
}

type datedDocument struct {
	from     time.Time
	document string
}

// version finds a version by its id.
func (p *managedPolicy) version(id string) (int, *APIError) {
	for i, v := range p.versions {
		if versionID(v.number) == id {
			return i, nil
		}
	}
	return 0, noSuchEntity("Policy %s version %s does not exist or is not attachable.", p.arn, id)
}

func versionID(number int) string { return fmt.Sprint("v", number) }

// setDefault makes a version, which is there, the one in force; it takes effect after the server's policy delay.
func (s *account) setDefault(p *managedPolicy, number int) {
	p.def, p.updated = number, s.now()
	i, _ := p.version(versionID(number))
	p.history = append(p.history, datedDocument{s.now().Add(s.policyDelay()), p.versions[i].document})
}

// inForce is the document that decisions come from now.
func (s *account) inForce(p *managedPolicy) (document string, ok bool) {
	now := s.now()
	for _, h := range slices.Backward(p.history) {
		if !h.from.After(now) {
			return h.document, true
		}
	}
	return "", false
}

// onPolicy is the beginning of the requests about one managed policy.
type onPolicy struct {
	Policy *string `query:"PolicyArn"`
}

func (r *onPolicy) about(c *Call) { c.Entity = deref(r.Policy) }

func (r *onPolicy) asks(s *account) []permission { return []permission{s.forPolicy(deref(r.Policy))} }

// forPolicy asks for the call's action on a managed policy, which need not exist.
func (s *account) forPolicy(arn string) permission {
	s.iam.mu.RLock()
	defer s.iam.mu.RUnlock()
	p := permission{resource: arn}
	if found := s.iam.policies[arn]; found != nil {
		p.context = resourceTagKeys(found.tags)
	}
	return p
}

func (s *account) updatePolicy(c *constraints, arn *string, change func(*managedPolicy) *APIError) *APIError {
	c.required("policyArn", arn, ruleIAMARN)
	if err := c.queryErr(); err != nil {
		return err
	}
	s.iam.mu.Lock()
	defer s.iam.mu.Unlock()
	p := s.iam.policies[*arn]
	if p == nil {
		return noSuchPolicy(*arn)
	}
	return change(p)
}

// policyElement is the model's Policy.
type policyElement struct {
	Name           string `xml:"PolicyName"`
	ID             string `xml:"PolicyId"`
	ARN            string `xml:"Arn"`
	Path           string `xml:"Path"`
	DefaultVersion string `xml:"DefaultVersionId"`
	Attachments    int    `xml:"AttachmentCount"`
	Boundaries     int    `xml:"PermissionsBoundaryUsageCount"`
	Attachable     bool   `xml:"IsAttachable"`
	Description    string `xml:"Description,omitempty"`
	Created        string `xml:"CreateDate"`
	Updated        string `xml:"UpdateDate"`
	Tags           []tag  `xml:"Tags>member"`
}

// usage counts the roles that have a policy attached, and those it bounds. The caller holds the lock.
func (s *account) usage(arn string) (attached, boundaries int) {
	for _, r := range s.iam.roles {
		if slices.Contains(r.access.attached, arn) {
			attached++
		}
		if r.access.boundary == arn {
			boundaries++
		}
	}
	return attached, boundaries
}

// describe describes a policy. Listings leave out description and tags.
func (s *account) describe(p *managedPolicy, listing bool) policyElement {
	attached, boundaries := s.usage(p.arn)
	e := policyElement{
		Name: p.name, ID: p.id, ARN: p.arn, Path: p.path, DefaultVersion: versionID(p.def), Attachments: attached,
		Boundaries: boundaries, Attachable: true, Created: xmlTime(p.created), Updated: xmlTime(p.updated),
	}
	if !listing {
		e.Description, e.Tags = p.description, tagList(p.tags)
	}
	return e
}

type policyResult struct {
	Policy policyElement `xml:"Policy"`
}

type createPolicy struct {
	Name        *string `query:"PolicyName"`
	Path        *string `query:"Path"`
	Document    *string `query:"PolicyDocument"`
	Description *string `query:"Description"`
	Tags        []tag   `query:"Tags"`
}

func (r *createPolicy) about(c *Call) { c.Entity = deref(r.Name) }

func (r *createPolicy) arn(s *account) string {
	path := "/"
	if r.Path != nil {
		path = *r.Path
	}
	return s.globalARN("iam", "policy"+path+deref(r.Name))
}

func (r *createPolicy) asks(s *account) []permission {
	create := permission{resource: r.arn(s), context: requestTagKeys(r.Tags)}
	asked := []permission{create}
	if len(r.Tags) > 0 {
		asked = append(asked, permission{action: "iam:TagPolicy", resource: create.resource, context: requestTagKeys(r.Tags)})
	}
	return asked
}

func (r *createPolicy) do(s *account, _ identity) (any, *APIError) {
	var c constraints
	c.required("policyName", r.Name, rulePolicyName)
	path := c.path("path", r.Path)
	c.document("policyDocument", r.Document)
	c.latin("description", r.Description, ruleDescription)
	c.iamTags(r.Tags)
	if err := c.queryErr(); err != nil {
		return nil, err
	}
	if err := checkManagedPolicy(*r.Document); err != nil {
		return nil, err
	}
	tags, err := withTags(nil, r.Tags)
	if err != nil {
		return nil, err
	}
	s.iam.mu.Lock()
	defer s.iam.mu.Unlock()
	key := strings.ToLower(*r.Name)
	switch {
	case s.iam.names[key] != "":
		return nil, entityExists("A policy called %s already exists. Duplicate names are not allowed.", *r.Name)
	case len(s.iam.policies) >= maxPolicies:
		return nil, overQuota("PoliciesPerAccount", maxPolicies)
	}
	now := s.now()
	p := &managedPolicy{
		name: *r.Name, path: path, arn: r.arn(s), id: newIAMID("ANPA"), created: now, description: deref(r.Description),
		tags: tags, versions: []policyVersion{{1, *r.Document, now}}, made: 1,
	}
	s.setDefault(p, 1)
	s.iam.policies[p.arn], s.iam.names[key] = p, p.arn
	return policyResult{s.describe(p, false)}, nil
}

type getPolicy struct{ onPolicy }

func (r *getPolicy) do(s *account, _ identity) (any, *APIError) {
	var out policyResult
	err := s.updatePolicy(&constraints{}, r.Policy, func(p *managedPolicy) *APIError {
		out.Policy = s.describe(p, false)
		return nil
	})
	return out, err
}

// versionElement is the model's PolicyVersion.
type versionElement struct {
	Document string `xml:"Document,omitempty"`
	ID       string `xml:"VersionId"`
	Default  bool   `xml:"IsDefaultVersion"`
	Created  string `xml:"CreateDate"`
}

func (p *managedPolicy) versionElement(i int, document bool) versionElement {
	v := p.versions[i]
	e := versionElement{ID: versionID(v.number), Default: v.number == p.def, Created: xmlTime(v.created)}
	if document {
		e.Document = uriEncode(v.document)
	}
	return e
}

type versionResult struct {
	Version versionElement `xml:"PolicyVersion"`
}

type createPolicyVersion struct {
	onPolicy
	Document *string `query:"PolicyDocument"`
	Default  *bool   `query:"SetAsDefault"`
}

func (r *createPolicyVersion) do(s *account, _ identity) (any, *APIError) {
	var c constraints
	c.document("policyDocument", r.Document)
	var out versionResult
	err := s.updatePolicy(&c, r.Policy, func(p *managedPolicy) *APIError {
		if err := checkManagedPolicy(*r.Document); err != nil {
			return err
		}
		if len(p.versions) >= maxPolicyVersions {
			return limitExceeded("A managed policy can have up to 5 versions. Before you create a new version, you must delete an existing version.")
		}
		p.made++
		p.versions = append(p.versions, policyVersion{p.made, *r.Document, s.now()})
		if deref(r.Default) {
			s.setDefault(p, p.made)
		}
		out.Version = p.versionElement(len(p.versions)-1, false)
		return nil
	})
	return out, err
}

// onVersion is the beginning of the requests about one version of a managed policy.
type onVersion struct {
	onPolicy
	Version *string `query:"VersionId"`
}

func (r *onVersion) update(s *account, change func(p *managedPolicy, i int) *APIError) *APIError {
	var c constraints
	c.required("versionId", r.Version, ruleVersionID)
	return s.updatePolicy(&c, r.Policy, func(p *managedPolicy) *APIError {
		i, err := p.version(*r.Version)
		if err != nil {
			return err
		}
		return change(p, i)
	})
}

type getPolicyVersion struct{ onVersion }

func (r *getPolicyVersion) do(s *account, _ identity) (any, *APIError) {
	var out versionResult
	err := r.update(s, func(p *managedPolicy, i int) *APIError {
		out.Version = p.versionElement(i, true)
		return nil
	})
	return out, err
}

type deletePolicyVersion struct{ onVersion }

func (r *deletePolicyVersion) do(s *account, _ identity) (any, *APIError) {
	return nil, r.update(s, func(p *managedPolicy, i int) *APIError {
		if p.versions[i].number == p.def {
			return deleteConflict("Cannot delete the default version of a policy.")
		}
		p.versions = slices.Delete(slices.Clone(p.versions), i, i+1)
		return nil
	})
}

type setDefaultPolicyVersion struct{ onVersion }

func (r *setDefaultPolicyVersion) do(s *account, _ identity) (any, *APIError) {
	return nil, r.update(s, func(p *managedPolicy, i int) *APIError {
		s.setDefault(p, p.versions[i].number)
		return nil
	})
}

type listPolicyVersions struct {
	onPolicy
	paging
}

func (r *listPolicyVersions) do(s *account, _ identity) (any, *APIError) {
	var out struct {
		Versions []versionElement `xml:"Versions>member"`
		paged
	}
	err := s.updatePolicy(&constraints{}, r.Policy, func(p *managedPolicy) *APIError {
		keys := make([]string, len(p.versions))
		byKey := map[string]int{}
		for i, v := range p.versions {
			keys[i] = fmt.Sprintf("%012d", v.number)
			byKey[keys[i]] = i
		}
		keys, more, err := r.page(&constraints{}, keys, "ListPolicyVersions", p.arn)
		for _, k := range keys {
			out.Versions = append(out.Versions, p.versionElement(byKey[k], false))
		}
		out.paged = more
		return err
	})
	return out, err
}

type listPolicies struct {
	Scope      *string `query:"Scope"`
	Attached   *bool   `query:"OnlyAttached"`
	PathPrefix *string `query:"PathPrefix"`
	Usage      *string `query:"PolicyUsageFilter"`
	paging
}

func (r *listPolicies) about(*Call) {}

func (r *listPolicies) asks(*account) []permission { return []permission{{}} }

func (r *listPolicies) do(s *account, _ identity) (any, *APIError) {
	const asBoundary = "PermissionsBoundary"
	var c constraints
	c.oneOf("scope", r.Scope, "All", "AWS", "Local")
	c.oneOf("policyUsageFilter", r.Usage, "PermissionsPolicy", asBoundary)
	c.policyPrefix(r.PathPrefix)
	s.iam.mu.RLock()
	defer s.iam.mu.RUnlock()
	var keys []string
	for arn, p := range s.iam.policies {
		attached, boundaries := s.usage(arn)
		switch {
		case deref(r.Scope) == "AWS", !strings.HasPrefix(p.path, deref(r.PathPrefix)):
		case deref(r.Usage) == asBoundary && boundaries == 0, r.Usage != nil && *r.Usage != asBoundary && attached == 0:
		case deref(r.Attached) && attached == 0 && boundaries == 0:
		default:
			keys = append(keys, arn)
		}
	}
	keys, more, err := r.page(&c, keys, "ListPolicies", r.Scope, deref(r.Attached), r.PathPrefix, r.Usage)
	if err != nil {
		return nil, err
	}
	out := struct {
		Policies []policyElement `xml:"Policies>member"`
		paged
	}{paged: more}
	for _, arn := range keys {
		out.Policies = append(out.Policies, s.describe(s.iam.policies[arn], true))
	}
	return out, nil
}

type tagPolicy struct {
	onPolicy
	Tags []tag `query:"Tags"`
}

func (r *tagPolicy) asks(s *account) []permission {
	p := s.forPolicy(deref(r.Policy))
	p.add(requestTagKeys(r.Tags))
	return []permission{p}
}

func (r *tagPolicy) do(s *account, _ identity) (any, *APIError) {
	var c constraints
	if r.Tags == nil {
		c.fail("null", "tags", memberNotNull)
	}
	c.iamTags(r.Tags)
	return nil, s.updatePolicy(&c, r.Policy, func(p *managedPolicy) *APIError {
		tags, err := withTags(p.tags, r.Tags)
		if err == nil {
			p.tags = tags
		}
		return err
	})
}
