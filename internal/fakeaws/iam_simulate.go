package fakeaws

import (
	"strings"

	"github.com/eks-tenant-logs/eks-tenant-logs/internal/iampolicy"
)

// simulatePrincipalPolicy asks what a role's identity policies and boundary allow. What it knows of a request is what it is
// told: neither tags nor anything else of the role or the resource is looked up, as AWS documents. Resource policies, and
// policies to try out beside the role's own, are not taken here.
type simulatePrincipalPolicy struct {
	Source    *string        `query:"PolicySourceArn"`
	Actions   []string       `query:"ActionNames"`
	Resources []string       `query:"ResourceArns"`
	Context   []contextEntry `query:"ContextEntries"`
	paging
}

type contextEntry struct {
	Name   *string  `query:"ContextKeyName"`
	Type   *string  `query:"ContextKeyType"`
	Values []string `query:"ContextKeyValues"`
}

func (r *simulatePrincipalPolicy) about(c *Call) { c.Entity = deref(r.Source) }

func (r *simulatePrincipalPolicy) asks(*account) []permission {
	return []permission{{resource: deref(r.Source)}}
}

// evaluation is the model's EvaluationResult.
type evaluation struct {
	Action   string          `xml:"EvalActionName"`
	Resource string          `xml:"EvalResourceName"`
	Decision string          `xml:"EvalDecision"`
	Boundary *boundaryDetail `xml:"PermissionsBoundaryDecisionDetail"`
}

type boundaryDetail struct {
	Allowed bool `xml:"AllowedByPermissionsBoundary"`
}

func (r *simulatePrincipalPolicy) do(s *account, _ identity) (any, *APIError) {
	var c constraints
	c.required("policySourceArn", r.Source, ruleIAMARN)
	if len(r.Actions) == 0 {
		c.fail("null", "actionNames", memberNotNull)
	}
	if err := c.queryErr(); err != nil {
		return nil, err
	}
	m := roleARN.FindStringSubmatch(*r.Source)
	if m == nil {
		return nil, iamInvalid("Only roles are simulated here: %s", *r.Source)
	}
	s.iam.mu.RLock()
	defer s.iam.mu.RUnlock()
	found := s.iam.roles[strings.ToLower(m[2])]
	if found == nil || found.arn != *r.Source {
		return nil, noSuchRole(m[2])
	}
	for _, action := range r.Actions {
		if service, name, ok := strings.Cut(action, ":"); !ok || service == "" || name == "" {
			return nil, iamInvalid("Invalid Entity Action: %s", action)
		}
	}
	var told permission
	for _, entry := range r.Context {
		told.set(deref(entry.Name), entry.Values...)
	}
	own, boundary, readable := s.rolePolicies(found.access)
	resources := r.Resources
	if len(resources) == 0 {
		resources = []string{"*"}
	}
	out := struct {
		Results []evaluation `xml:"EvaluationResults>member"`
		paged
	}{}
	for _, action := range r.Actions {
		for _, resource := range resources {
			request := iampolicy.Request{
				Action: action, Resource: resource, Principal: iampolicy.Principal{ARN: found.arn, Account: s.id}, Context: told.context,
			}
			d := iampolicy.Evaluate(request, iampolicy.Policies{Identity: own, Boundary: boundary, SameAccount: true})
			e := evaluation{Action: action, Resource: resource, Decision: "implicitDeny"}
			switch {
			case d.Explicit:
				e.Decision = "explicitDeny"
			case d.Allowed && readable:
				e.Decision = "allowed"
			}
			if boundary != nil {
				within := iampolicy.Evaluate(request, iampolicy.Policies{Identity: anything, Boundary: boundary, SameAccount: true})
				e.Boundary = &boundaryDetail{within.Allowed}
			}
			out.Results = append(out.Results, e)
		}
	}
	return out, nil
}
