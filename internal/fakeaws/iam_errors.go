package fakeaws

import (
	"fmt"
	"net/http"
)

// Errors of IAM, with the codes and HTTP statuses of its API reference.

func iamInvalid(format string, args ...any) *APIError {
	return &APIError{Code: "InvalidInput", Message: fmt.Sprintf(format, args...)}
}

func iamValidation(format string, args ...any) *APIError {
	return &APIError{Code: codeQueryValidation, Message: fmt.Sprintf(format, args...)}
}

func noSuchEntity(format string, args ...any) *APIError {
	return &APIError{Code: "NoSuchEntity", Message: fmt.Sprintf(format, args...), Status: http.StatusNotFound}
}

func entityExists(format string, args ...any) *APIError {
	return &APIError{Code: "EntityAlreadyExists", Message: fmt.Sprintf(format, args...), Status: http.StatusConflict}
}

func limitExceeded(format string, args ...any) *APIError {
	return &APIError{Code: "LimitExceeded", Message: fmt.Sprintf(format, args...), Status: http.StatusConflict}
}

func overQuota(quota string, limit int) *APIError {
	return limitExceeded("Cannot exceed quota for %s: %d", quota, limit)
}

func deleteConflict(format string, args ...any) *APIError {
	return &APIError{Code: "DeleteConflict", Message: fmt.Sprintf(format, args...), Status: http.StatusConflict}
}

func malformedPolicy(format string, args ...any) *APIError {
	return &APIError{Code: "MalformedPolicyDocument", Message: fmt.Sprintf(format, args...)}
}

func noSuchRole(name string) *APIError {
	return noSuchEntity("The role with name %s cannot be found.", name)
}

func noSuchPolicy(arn string) *APIError { return noSuchEntity("Policy %s was not found.", arn) }
