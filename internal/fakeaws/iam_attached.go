package fakeaws

import (
	"slices"
	"strings"
)

// onAttached is the beginning of the requests that attach and detach managed policies.
type onAttached struct {
	onRole
	Policy *string `query:"PolicyArn"`
}

func (r *onAttached) asks(s *account) []permission {
	p := s.forRole(deref(r.Role))
	p.set("iam:policyarn", deref(r.Policy))
	return []permission{p}
}

func (r *onAttached) update(s *account, change func(*role) *APIError) *APIError {
	var c constraints
	c.required("policyArn", r.Policy, ruleIAMARN)
	return s.updateRole(&c, r.Role, change)
}

type attachRolePolicy struct{ onAttached }

func (r *attachRolePolicy) do(s *account, _ identity) (any, *APIError) {
	return nil, r.update(s, func(found *role) *APIError {
		switch {
		case s.iam.policies[*r.Policy] == nil:
			return noSuchEntity("Policy %s does not exist or is not attachable.", *r.Policy)
		case slices.Contains(found.access.attached, *r.Policy):
			return nil
		case len(found.access.attached) >= maxAttachedPolicies:
			return overQuota("PoliciesPerRole", maxAttachedPolicies)
		}
		to := found.access
		to.attached = append(slices.Clone(to.attached), *r.Policy)
		slices.Sort(to.attached)
		s.change(found, to)
		return nil
	})
}

type detachRolePolicy struct{ onAttached }

func (r *detachRolePolicy) do(s *account, _ identity) (any, *APIError) {
	return nil, r.update(s, func(found *role) *APIError {
		if !slices.Contains(found.access.attached, *r.Policy) {
			return noSuchEntity("Policy %s was not found.", *r.Policy)
		}
		to := found.access
		to.attached = slices.DeleteFunc(slices.Clone(to.attached), func(arn string) bool { return arn == *r.Policy })
		s.change(found, to)
		return nil
	})
}

// attachedElement is the model's AttachedPolicy.
type attachedElement struct {
	Name string `xml:"PolicyName"`
	ARN  string `xml:"PolicyArn"`
}

func attachedElements(arns []string) (list []attachedElement) {
	for _, arn := range arns {
		list = append(list, attachedElement{arn[strings.LastIndexByte(arn, '/')+1:], arn})
	}
	return list
}

type listAttachedRolePolicies struct {
	onRole
	PathPrefix *string `query:"PathPrefix"`
	paging
}

func (r *listAttachedRolePolicies) do(s *account, _ identity) (any, *APIError) {
	var out struct {
		Policies []attachedElement `xml:"AttachedPolicies>member"`
		paged
	}
	var c constraints
	c.policyPrefix(r.PathPrefix)
	err := s.updateRole(&c, r.Role, func(found *role) *APIError {
		var arns []string
		for _, arn := range found.access.attached {
			if p := s.iam.policies[arn]; p != nil && strings.HasPrefix(p.path, deref(r.PathPrefix)) {
				arns = append(arns, arn)
			}
		}
		arns, more, err := r.page(&constraints{}, arns, "ListAttachedRolePolicies", found.arn, r.PathPrefix)
		out.Policies, out.paged = attachedElements(arns), more
		return err
	})
	return out, err
}

type putRoleBoundary struct {
	onRole
	Boundary *string `query:"PermissionsBoundary"`
}

func (r *putRoleBoundary) asks(s *account) []permission {
	p := s.forRole(deref(r.Role))
	p.replace("iam:permissionsboundary", deref(r.Boundary)) // the one that is to be, not the one that is
	return []permission{p}
}

func (r *putRoleBoundary) do(s *account, _ identity) (any, *APIError) {
	var c constraints
	c.required("permissionsBoundary", r.Boundary, ruleIAMARN)
	return nil, s.updateRole(&c, r.Role, func(found *role) *APIError {
		if s.iam.policies[*r.Boundary] == nil {
			return noSuchEntity("Policy %s does not exist or is not attachable.", *r.Boundary)
		}
		to := found.access
		to.boundary = *r.Boundary
		s.change(found, to)
		return nil
	})
}

type deleteRoleBoundary struct{ onRole }

func (r *deleteRoleBoundary) do(s *account, _ identity) (any, *APIError) {
	return nil, s.updateRole(&constraints{}, r.Role, func(found *role) *APIError {
		if found.access.boundary == "" {
			return noSuchEntity("The role with name %s does not have a permissions boundary.", found.name)
		}
		to := found.access
		to.boundary = ""
		s.change(found, to)
		return nil
	})
}
