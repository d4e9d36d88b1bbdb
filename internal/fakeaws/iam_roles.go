package fakeaws

import (
	"crypto/rand"
	"slices"
	"strings"
	"time"
)

// role is a role. Its fields are guarded by the account's iam.mu.
type role struct {
	name, path, arn, id string
	created             time.Time
	description         string
	maxSession          int64
	access              roleAccess
	history             []datedAccess // what access was before, until all of it has taken effect
}

// roleAccess is what IAM's decisions come from. It is replaced as a whole, and so are the maps and lists in it.
type roleAccess struct {
	trust    string            // the document
	trusted  map[string]string // unique ids, by ARN, of the roles it named when it was written
	inline   map[string]string // documents by name
	attached []string          // ARNs of managed policies, sorted
	boundary string            // ARN of a managed policy, or empty
	tags     map[string]string
}

type datedAccess struct {
	from time.Time
	roleAccess
}

// change replaces what decisions about the role come from; it takes effect after the server's policy delay.
func (s *account) change(r *role, to roleAccess) {
	now := s.now()
	r.access = to
	r.history = append(r.history, datedAccess{now.Add(s.policyDelay()), to})
	// What came before the last entry in effect is of no more use.
	last := -1
	for i := range r.history {
		if !r.history[i].from.After(now) {
			last = i
		}
	}
	if last > 0 {
		r.history = slices.Clone(r.history[last:])
	}
}

// effective is what decisions about the role come from now; a role that was made a moment ago may have nothing yet.
func (s *account) effective(r *role) roleAccess {
	now := s.now()
	for _, h := range slices.Backward(r.history) {
		if !h.from.After(now) {
			return h.roleAccess
		}
	}
	return roleAccess{}
}

// newIAMID makes a unique id as IAM does: four letters that tell the kind, and 17 characters.
func newIAMID(kind string) string { return kind + rand.Text()[:17] }

// onRole is the beginning of the requests about one role.
type onRole struct {
	Role *string `query:"RoleName"`
}

func (r *onRole) about(c *Call) { c.Entity = deref(r.Role) }

func (r *onRole) asks(s *account) []permission { return []permission{s.forRole(deref(r.Role))} }

// forRole asks for the call's action on a role, which need not exist. The path of one that does not is not known.
func (s *account) forRole(name string) permission {
	s.iam.mu.RLock()
	defer s.iam.mu.RUnlock()
	r := s.iam.roles[strings.ToLower(name)]
	if r == nil {
		return permission{resource: s.globalARN("iam", "role/"+name)}
	}
	p := permission{resource: r.arn, context: resourceTagKeys(r.access.tags)}
	for k, v := range r.access.tags {
		p.set("iam:resourcetag/"+k, v)
	}
	if r.access.boundary != "" {
		p.set("iam:permissionsboundary", r.access.boundary)
	}
	return p
}

// updateRole changes a role under the lock.
func (s *account) updateRole(c *constraints, name *string, change func(*role) *APIError) *APIError {
	c.required("roleName", name, ruleRoleName)
	if err := c.queryErr(); err != nil {
		return err
	}
	s.iam.mu.Lock()
	defer s.iam.mu.Unlock()
	r := s.iam.roles[strings.ToLower(*name)]
	if r == nil {
		return noSuchRole(*name)
	}
	return change(r)
}

// roleElement is the model's Role.
type roleElement struct {
	Path        string           `xml:"Path"`
	Name        string           `xml:"RoleName"`
	ID          string           `xml:"RoleId"`
	ARN         string           `xml:"Arn"`
	Created     string           `xml:"CreateDate"`
	Trust       string           `xml:"AssumeRolePolicyDocument"`
	Description string           `xml:"Description,omitempty"`
	MaxSession  int64            `xml:"MaxSessionDuration"`
	Boundary    *boundaryElement `xml:"PermissionsBoundary"`
	Tags        []tag            `xml:"Tags>member"`
}

type boundaryElement struct {
	Type string `xml:"PermissionsBoundaryType"`
	ARN  string `xml:"PermissionsBoundaryArn"`
}

func boundaryOf(arn string) *boundaryElement {
	if arn == "" {
		return nil
	}
	return &boundaryElement{"Policy", arn}
}

// element describes a role. Listings leave out what GetRole alone returns: boundary and tags.
func (r *role) element(listing bool) roleElement {
	e := roleElement{
		Path: r.path, Name: r.name, ID: r.id, ARN: r.arn, Created: xmlTime(r.created), Trust: uriEncode(r.access.trust),
		Description: r.description, MaxSession: r.maxSession,
	}
	if !listing {
		e.Boundary, e.Tags = boundaryOf(r.access.boundary), tagList(r.access.tags)
	}
	return e
}

type roleResult struct {
	Role roleElement `xml:"Role"`
}

type createRole struct {
	onRole
	Path        *string `query:"Path"`
	Trust       *string `query:"AssumeRolePolicyDocument"`
	Description *string `query:"Description"`
	MaxSession  *int64  `query:"MaxSessionDuration"`
	Boundary    *string `query:"PermissionsBoundary"`
	Tags        []tag   `query:"Tags"`
}

func (r *createRole) asks(s *account) []permission {
	path := "/"
	if r.Path != nil {
		path = *r.Path
	}
	create := permission{resource: s.globalARN("iam", "role"+path+deref(r.Role)), context: requestTagKeys(r.Tags)}
	if r.Boundary != nil {
		create.set("iam:permissionsboundary", *r.Boundary)
	}
	asked := []permission{create}
	if len(r.Tags) > 0 {
		// "To add tags when you create a role you must have permission for iam:CreateRole and iam:TagRole."
		asked = append(asked, permission{action: "iam:TagRole", resource: create.resource, context: requestTagKeys(r.Tags)})
	}
	return asked
}

func (r *createRole) do(s *account, _ identity) (any, *APIError) {
	var c constraints
	c.required("roleName", r.Role, ruleRoleName)
	path := c.path("path", r.Path)
	c.document("assumeRolePolicyDocument", r.Trust)
	c.latin("description", r.Description, ruleDescription)
	c.between("maxSessionDuration", r.MaxSession, 3_600, 43_200)
	c.text("permissionsBoundary", r.Boundary, ruleIAMARN)
	c.iamTags(r.Tags)
	if err := c.queryErr(); err != nil {
		return nil, err
	}
	trusted, err := s.checkTrust(*r.Trust)
	if err != nil {
		return nil, err
	}
	tags, err := withTags(nil, r.Tags)
	if err != nil {
		return nil, err
	}
	s.iam.mu.Lock()
	defer s.iam.mu.Unlock()
	switch key := strings.ToLower(*r.Role); {
	case s.iam.roles[key] != nil:
		return nil, entityExists("Role with name %s already exists.", *r.Role)
	case len(s.iam.roles) >= s.cfg.RoleQuota:
		return nil, overQuota("RolesPerAccount", s.cfg.RoleQuota)
	case r.Boundary != nil && s.iam.policies[*r.Boundary] == nil:
		return nil, noSuchEntity("Scope ARN: %s does not exist or is not attachable.", *r.Boundary)
	}
	maxSession := int64(defaultSession)
	if r.MaxSession != nil {
		maxSession = *r.MaxSession
	}
	made := &role{
		name: *r.Role, path: path, arn: s.globalARN("iam", "role"+path+*r.Role), id: newIAMID("AROA"), created: s.now(),
		description: deref(r.Description), maxSession: maxSession,
	}
	s.change(made, roleAccess{trust: *r.Trust, trusted: trusted, boundary: deref(r.Boundary), tags: tags})
	s.iam.roles[strings.ToLower(*r.Role)] = made
	return roleResult{made.element(false)}, nil
}

type getRole struct{ onRole }

func (r *getRole) do(s *account, _ identity) (any, *APIError) {
	var out roleResult
	err := s.updateRole(&constraints{}, r.Role, func(found *role) *APIError {
		out.Role = found.element(false)
		return nil
	})
	return out, err
}

type updateRole struct {
	onRole
	Description *string `query:"Description"`
	MaxSession  *int64  `query:"MaxSessionDuration"`
}

func (r *updateRole) do(s *account, _ identity) (any, *APIError) {
	var c constraints
	c.latin("description", r.Description, ruleDescription)
	c.between("maxSessionDuration", r.MaxSession, 3_600, 43_200)
	return struct{}{}, s.updateRole(&c, r.Role, func(found *role) *APIError {
		if r.Description != nil {
			found.description = *r.Description
		}
		if r.MaxSession != nil {
			found.maxSession = *r.MaxSession
		}
		return nil
	})
}

type updateTrust struct {
	onRole
	Trust *string `query:"PolicyDocument"`
}

func (r *updateTrust) do(s *account, _ identity) (any, *APIError) {
	var c constraints
	c.document("policyDocument", r.Trust)
	if err := c.queryErr(); err != nil {
		return nil, err
	}
	trusted, err := s.checkTrust(*r.Trust)
	if err != nil {
		return nil, err
	}
	return nil, s.updateRole(&c, r.Role, func(found *role) *APIError {
		to := found.access
		to.trust, to.trusted = *r.Trust, trusted
		s.change(found, to)
		return nil
	})
}

// deleteRole is there so that tests can play somebody who deletes roles; nothing of the product does.
type deleteRole struct{ onRole }

func (r *deleteRole) do(s *account, _ identity) (any, *APIError) {
	return nil, s.updateRole(&constraints{}, r.Role, func(found *role) *APIError {
		switch {
		case len(found.access.attached) > 0:
			return deleteConflict("Cannot delete entity, must detach all policies first.")
		case len(found.access.inline) > 0:
			return deleteConflict("Cannot delete entity, must delete policies first.")
		}
		delete(s.iam.roles, strings.ToLower(found.name))
		return nil
	})
}

type listRoles struct {
	PathPrefix *string `query:"PathPrefix"`
	paging
}

func (r *listRoles) about(*Call) {}

func (r *listRoles) asks(*account) []permission { return []permission{{}} }

func (r *listRoles) do(s *account, _ identity) (any, *APIError) {
	var c constraints
	c.prefix("pathPrefix", r.PathPrefix, `\u002F[\u0021-\u007F]*`, rolePathPrefix)
	s.iam.mu.RLock()
	defer s.iam.mu.RUnlock()
	var keys []string
	for key, found := range s.iam.roles {
		if strings.HasPrefix(found.path, deref(r.PathPrefix)) {
			keys = append(keys, key)
		}
	}
	keys, more, err := r.page(&c, keys, "ListRoles", r.PathPrefix)
	if err != nil {
		return nil, err
	}
	out := struct {
		Roles []roleElement `xml:"Roles>member"`
		paged
	}{paged: more}
	for _, key := range keys {
		out.Roles = append(out.Roles, s.iam.roles[key].element(true))
	}
	return out, nil
}

type tagRole struct {
	onRole
	Tags []tag `query:"Tags"`
}

func (r *tagRole) asks(s *account) []permission {
	p := s.forRole(deref(r.Role))
	p.add(requestTagKeys(r.Tags))
	return []permission{p}
}

func (r *tagRole) do(s *account, _ identity) (any, *APIError) {
	var c constraints
	if r.Tags == nil {
		c.fail("null", "tags", memberNotNull)
	}
	c.iamTags(r.Tags)
	return nil, s.updateRole(&c, r.Role, func(found *role) *APIError {
		tags, err := withTags(found.access.tags, r.Tags)
		if err != nil {
			return err
		}
		to := found.access
		to.tags = tags
		s.change(found, to)
		return nil
	})
}

type untagRole struct {
	onRole
	Keys []string `query:"TagKeys"`
}

func (r *untagRole) asks(s *account) []permission {
	p := s.forRole(deref(r.Role))
	p.set("aws:tagkeys", r.Keys...)
	return []permission{p}
}

func (r *untagRole) do(s *account, _ identity) (any, *APIError) {
	var c constraints
	if r.Keys == nil {
		c.fail("null", "tagKeys", memberNotNull)
	}
	c.size("tagKeys", len(r.Keys), 0, maxTags)
	for _, k := range r.Keys {
		c.tagKey("tagKeys", k)
	}
	return nil, s.updateRole(&c, r.Role, func(found *role) *APIError {
		to := found.access
		to.tags = withoutTags(to.tags, r.Keys)
		s.change(found, to)
		return nil
	})
}

type listRoleTags struct {
	onRole
	paging
}

func (r *listRoleTags) do(s *account, _ identity) (any, *APIError) {
	var out struct {
		Tags []tag `xml:"Tags>member"`
		paged
	}
	err := s.updateRole(&constraints{}, r.Role, func(found *role) *APIError {
		list := tagList(found.access.tags)
		keys := make([]string, len(list))
		byKey := map[string]tag{}
		for i, t := range list {
			keys[i] = *t.Key
			byKey[*t.Key] = t
		}
		keys, more, err := r.page(&constraints{}, keys, "ListRoleTags", found.arn)
		for _, k := range keys {
			out.Tags = append(out.Tags, byKey[k])
		}
		out.paged = more
		return err
	})
	return out, err
}

// SetPolicyDelay makes what is written to IAM from now on take effect so much later, by Clock, as IAM is eventually
// consistent: decisions come from what was in force before, while reading returns what was written. Only a server that
// enforces decides anything.
func (s *Server) SetPolicyDelay(d time.Duration) { s.delay.Store(int64(d)) }

func (s *Server) policyDelay() time.Duration { return time.Duration(s.delay.Load()) }
