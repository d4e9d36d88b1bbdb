package fakeaws

import (
	"slices"

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

// checkTrust checks a role's trust policy: every statement has principals, and the role itself for resource.
func checkTrust(document string) *APIError {
	d, err := parseDocument(document)
	if err != nil {
		return err
	}
	for _, st := range d.Statements {
		switch {
		case st.Principal == nil && st.NotPrincipal == nil:
			return malformedPolicy("Missing required field Principal")
		case st.Resources != nil || st.NotResources != nil:
			return malformedPolicy("Has prohibited field Resource")
		}
	}
	if policySize(document) > maxTrustSize {
		return overQuota("ACLSizePerRole", maxTrustSize)
	}
	return nil
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
