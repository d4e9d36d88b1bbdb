package fakeaws

import (
	"encoding/json"
	"slices"
	"strings"

	"github.com/eks-tenant-logs/eks-tenant-logs/internal/iampolicy"
)

// parseDocument reads a policy document; the error is IAM's answer to one that is wrong. The evaluator's own parser holds it
// to the grammar, so that nothing is stored that could not be decided by.
func parseDocument(document string) (*iampolicy.Document, *APIError) {
	d, err := iampolicy.Parse([]byte(document))
	if err != nil {
		return nil, malformedPolicy("%v", err)
	}
	return d, nil
}

// checkTrust checks a role's trust policy: every statement has principals, which exist, and the role itself for resource. It
// returns the unique ids of the roles that are named, by ARN.
func (s *Server) checkTrust(document string) (ids map[string]string, _ *APIError) {
	d, err := parseDocument(document)
	if err != nil {
		return nil, err
	}
	for _, st := range d.Statements {
		switch {
		case st.Principal == nil && st.NotPrincipal == nil:
			return nil, malformedPolicy("Missing required field Principal")
		case st.Resources != nil || st.NotResources != nil:
			return nil, malformedPolicy("Has prohibited field Resource")
		}
	}
	if policySize(document) > maxTrustSize {
		return nil, overQuota("ACLSizePerRole", maxTrustSize)
	}
	if !s.cfg.Enforce {
		return nil, nil
	}
	return s.checkPrincipals(document)
}

// checkPrincipals refuses roles and users that do not exist, as IAM does whatever account they are of. It is done only where
// IAM is enforced, so that other tests need not make them.
func (s *Server) checkPrincipals(document string) (ids map[string]string, _ *APIError) {
	ids = map[string]string{}
	for _, arn := range principalsIn(document) {
		switch id, exists := s.principalID(arn); {
		case !exists:
			return nil, malformedPolicy("Invalid principal in policy: \"AWS\":%q", arn)
		case id != "":
			ids[arn] = id
		}
	}
	return ids, nil
}

// principalsIn are the AWS principals that a policy, which was checked, names.
func principalsIn(document string) (list []string) {
	var d struct{ Statement json.RawMessage }
	_ = json.Unmarshal([]byte(document), &d) // it was checked
	type statement struct{ Principal any }
	var statements []statement
	if json.Unmarshal(d.Statement, &statements) != nil {
		statements = make([]statement, 1)
		_ = json.Unmarshal(d.Statement, &statements[0]) // one instead of a list
	}
	for _, st := range statements {
		named, _ := st.Principal.(map[string]any)
		all, ok := named["AWS"].([]any)
		if !ok {
			all = []any{named["AWS"]}
		}
		for _, p := range all {
			if arn, ok := p.(string); ok {
				list = append(list, arn)
			}
		}
	}
	return list
}

// principalID looks for roles, whose unique id it returns, and users; of everything else, accounts and sessions among them,
// it believes that it exists.
func (s *Server) principalID(arn string) (id string, exists bool) {
	kind, name, _ := strings.Cut(arn[strings.LastIndexByte(arn, ':')+1:], "/")
	name = name[strings.LastIndexByte(name, '/')+1:]
	switch kind {
	case "role":
		a := s.account(accountOf(arn))
		a.iam.mu.RLock()
		defer a.iam.mu.RUnlock()
		if r := a.iam.roles[strings.ToLower(name)]; r != nil && r.arn == arn {
			return r.id, true
		}
		return "", false
	case "user":
		s.authMu.RLock()
		defer s.authMu.RUnlock()
		for _, c := range s.creds {
			if c.arn == arn {
				return "", true
			}
		}
		return "", false
	}
	return "", true
}

// checkIdentityPolicy checks an inline policy, or a session's; the sizes of a role's inline policies count together.
func checkIdentityPolicy(document string) *APIError {
	d, err := parseDocument(document)
	if err != nil {
		return err
	}
	for _, st := range d.Statements {
		switch {
		case st.Principal != nil || st.NotPrincipal != nil:
			return malformedPolicy("Policy document should not specify a principal.")
		case st.Resources == nil && st.NotResources == nil:
			return malformedPolicy("Policy statement must contain resources.")
		case slices.Contains(st.Resources, ""):
			return malformedPolicy("Resource must be in ARN format or \"*\".")
		}
	}
	return nil
}

// checkManagedPolicy checks a version of a managed policy.
func checkManagedPolicy(document string) *APIError {
	if err := checkIdentityPolicy(document); err != nil {
		return err
	}
	if policySize(document) > maxManagedSize {
		return overQuota("PolicySize", maxManagedSize)
	}
	return nil
}
