package fakeaws

import (
	"maps"
	"slices"
)

// onInlinePolicy is the beginning of the requests about one inline policy of a role.
type onInlinePolicy struct {
	onRole
	Policy *string `query:"PolicyName"`
}

func (r *onInlinePolicy) update(s *account, c *constraints, change func(*role) *APIError) *APIError {
	c.required("policyName", r.Policy, rulePolicyName)
	return s.updateRole(c, r.Role, change)
}

type putRolePolicy struct {
	onInlinePolicy
	Document *string `query:"PolicyDocument"`
}

func (r *putRolePolicy) do(s *account, _ identity) (any, *APIError) {
	var c constraints
	c.document("policyDocument", r.Document)
	return nil, r.update(s, &c, func(found *role) *APIError {
		if err := checkIdentityPolicy(*r.Document); err != nil {
			return err
		}
		inline := maps.Clone(found.access.inline)
		if inline == nil {
			inline = map[string]string{}
		}
		inline[*r.Policy] = *r.Document
		size := 0
		for _, document := range inline {
			size += policySize(document)
		}
		if size > maxInlineSize {
			return limitExceeded("Maximum policy size of %d bytes exceeded for role %s", maxInlineSize, found.name)
		}
		to := found.access
		to.inline = inline
		s.change(found, to)
		return nil
	})
}

type getRolePolicy struct{ onInlinePolicy }

func (r *getRolePolicy) do(s *account, _ identity) (any, *APIError) {
	var out struct {
		Role     string `xml:"RoleName"`
		Policy   string `xml:"PolicyName"`
		Document string `xml:"PolicyDocument"`
	}
	err := r.update(s, &constraints{}, func(found *role) *APIError {
		document, ok := found.access.inline[*r.Policy]
		if !ok {
			return noSuchRolePolicy(*r.Policy)
		}
		out.Role, out.Policy, out.Document = found.name, *r.Policy, uriEncode(document)
		return nil
	})
	return out, err
}

func noSuchRolePolicy(name string) *APIError {
	return noSuchEntity("The role policy with name %s cannot be found.", name)
}

type deleteRolePolicy struct{ onInlinePolicy }

func (r *deleteRolePolicy) do(s *account, _ identity) (any, *APIError) {
	return nil, r.update(s, &constraints{}, func(found *role) *APIError {
		if _, ok := found.access.inline[*r.Policy]; !ok {
			return noSuchRolePolicy(*r.Policy)
		}
		to := found.access
		to.inline = maps.Clone(to.inline)
		delete(to.inline, *r.Policy)
		s.change(found, to)
		return nil
	})
}

type listRolePolicies struct {
	onRole
	paging
}

func (r *listRolePolicies) do(s *account, _ identity) (any, *APIError) {
	var out struct {
		Names []string `xml:"PolicyNames>member"`
		paged
	}
	err := s.updateRole(&constraints{}, r.Role, func(found *role) *APIError {
		var err *APIError
		out.Names, out.paged, err = r.page(&constraints{}, slices.Collect(maps.Keys(found.access.inline)), "ListRolePolicies", found.arn)
		return err
	})
	return out, err
}
