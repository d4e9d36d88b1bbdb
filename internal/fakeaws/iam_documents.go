package fakeaws

import "encoding/json"

// checkTrust checks a role's trust policy.
func checkTrust(document string) *APIError {
	if err := checkDocument(document); err != nil {
		return err
	}
	if policySize(document) > maxTrustSize {
		return overQuota("ACLSizePerRole", maxTrustSize)
	}
	return nil
}

// checkIdentityPolicy checks an inline policy; its size counts with the others' of its role.
func checkIdentityPolicy(document string) *APIError { return checkDocument(document) }

// checkManagedPolicy checks a version of a managed policy.
func checkManagedPolicy(document string) *APIError {
	if err := checkDocument(document); err != nil {
		return err
	}
	if policySize(document) > maxManagedSize {
		return overQuota("PolicySize", maxManagedSize)
	}
	return nil
}

func checkDocument(document string) *APIError {
	var d struct{ Statement any }
	if err := json.Unmarshal([]byte(document), &d); err != nil || d.Statement == nil {
		return malformedPolicy("Syntax errors in policy.")
	}
	return nil
}
