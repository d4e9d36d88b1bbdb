package fakeaws

import (
	"fmt"
	"net/http"
	"strings"
	"time"
)

// queryOperation is how an action of the query protocol is read.
type queryOperation struct {
	service  *queryService
	unsigned bool
	decode   func(form map[string]string, allowUnknown bool) (serviceRequest, error)
}

func inQuery[T any, P interface {
	*T
	serviceRequest
}](service *queryService) queryOperation {
	return queryOperation{service: service, decode: func(form map[string]string, allowUnknown bool) (serviceRequest, error) {
		in := P(new(T))
		if err := decodeQuery(form, in, allowUnknown); err != nil {
			return nil, err
		}
		return in, nil
	}}
}

func unsigned(o queryOperation) queryOperation {
	o.unsigned = true
	return o
}

// queryOperations are those of IAM and STS.
var queryOperations = map[string]queryOperation{
	"AssumeRole":                inQuery[assumeRole](stsService),
	"GetCallerIdentity":         inQuery[getCallerIdentity](stsService),
	"AssumeRoleWithWebIdentity": unsigned(inQuery[assumeRoleWithWebIdentity](stsService)),

	"AttachRolePolicy":               inQuery[attachRolePolicy](iamService),
	"CreateOpenIDConnectProvider":    inQuery[createProvider](iamService),
	"CreatePolicy":                   inQuery[createPolicy](iamService),
	"CreatePolicyVersion":            inQuery[createPolicyVersion](iamService),
	"CreateRole":                     inQuery[createRole](iamService),
	"DeletePolicyVersion":            inQuery[deletePolicyVersion](iamService),
	"DeleteRole":                     inQuery[deleteRole](iamService),
	"DeleteRolePermissionsBoundary":  inQuery[deleteRoleBoundary](iamService),
	"DeleteRolePolicy":               inQuery[deleteRolePolicy](iamService),
	"DetachRolePolicy":               inQuery[detachRolePolicy](iamService),
	"GetAccountAuthorizationDetails": inQuery[getAuthorizationDetails](iamService),
	"GetAccountSummary":              inQuery[getAccountSummary](iamService),
	"SimulatePrincipalPolicy":        inQuery[simulatePrincipalPolicy](iamService),
	"GetOpenIDConnectProvider":       inQuery[getProvider](iamService),
	"GetPolicy":                      inQuery[getPolicy](iamService),
	"GetPolicyVersion":               inQuery[getPolicyVersion](iamService),
	"GetRole":                        inQuery[getRole](iamService),
	"GetRolePolicy":                  inQuery[getRolePolicy](iamService),
	"ListAttachedRolePolicies":       inQuery[listAttachedRolePolicies](iamService),
	"ListOpenIDConnectProviders":     inQuery[listProviders](iamService),
	"ListPolicies":                   inQuery[listPolicies](iamService),
	"ListPolicyVersions":             inQuery[listPolicyVersions](iamService),
	"ListRolePolicies":               inQuery[listRolePolicies](iamService),
	"ListRoles":                      inQuery[listRoles](iamService),
	"ListRoleTags":                   inQuery[listRoleTags](iamService),
	"PutRolePermissionsBoundary":     inQuery[putRoleBoundary](iamService),
	"PutRolePolicy":                  inQuery[putRolePolicy](iamService),
	"SetDefaultPolicyVersion":        inQuery[setDefaultPolicyVersion](iamService),
	"TagPolicy":                      inQuery[tagPolicy](iamService),
	"TagRole":                        inQuery[tagRole](iamService),
	"UntagRole":                      inQuery[untagRole](iamService),
	"UpdateAssumeRolePolicy":         inQuery[updateTrust](iamService),
	"UpdateRole":                     inQuery[updateRole](iamService),
}

// iamRegion is the region that calls to IAM are signed for.
func iamRegion(partition string) string {
	switch partition {
	case "aws-us-gov":
		return "us-gov-west-1"
	case "aws-cn":
		return "cn-north-1"
	}
	return "us-east-1"
}

// serveQuery answers the query protocol: a form in the body of a POST, or in the query of a GET as Fluent Bit sends it.
// service is whose words the answer is in.
func (s *Server) serveQuery(r *http.Request, body []byte, requestID string) (name string, service *queryService, out any, lost bool, _ *APIError) {
	name, service = "-", stsService
	fail := func(e *APIError) (string, *queryService, any, bool, *APIError) { return name, service, nil, false, e }
	encoded := ""
	switch mediaType, _, _ := strings.Cut(r.Header.Get("Content-Type"), ";"); {
	case r.URL.Path != "/":
		return fail(&APIError{Code: "NotFound", Message: "Requests go to /.", Status: http.StatusNotFound})
	case r.Method == http.MethodGet && len(body) == 0:
		encoded = r.URL.RawQuery
	case r.Method == http.MethodPost && mediaType == "application/x-www-form-urlencoded":
		encoded = string(body)
	default:
		return fail(&APIError{Code: "MissingAction", Message: "The request has neither an X-Amz-Target nor an Action."})
	}
	form, err := parseQuery(encoded)
	if err != nil {
		return fail(&APIError{Code: "MalformedQueryString", Message: err.Error(), Status: http.StatusNotFound})
	}
	action := form["Action"]
	op, known := queryOperations[action]
	if form["Version"] == iamService.version {
		service = iamService
	}
	if !known || op.service != service || form["Version"] != service.version {
		return fail(&APIError{Code: "InvalidAction", Message: fmt.Sprintf("Could not find operation %s for version %s", action, form["Version"])})
	}
	name = callName(service.name, action)
	var caller identity
	scope := service.name
	if !op.unsigned {
		var apiErr *APIError
		if caller, scope, apiErr = s.authenticate(r, body); apiErr != nil {
			return fail(queryError(apiErr))
		}
	}
	if scope != service.name {
		return fail(&APIError{Code: "SignatureDoesNotMatch", Message: "Credential should be scoped to correct service: '" + service.name + "'. ", Status: http.StatusForbidden})
	}
	in, err := op.decode(form, s.cfg.AllowUnknownMembers)
	if err != nil {
		return fail(stsInvalid(err.Error()))
	}
	result, lost, apiErr := s.carryOut(in, caller, service.name, action, len(body))
	if apiErr != nil {
		return name, service, nil, lost, apiErr
	}
	return name, service, queryAnswer{service, action, result, requestID}, lost, nil
}

// xmlTime is a time as the query protocol writes it.
func xmlTime(t time.Time) string { return t.UTC().Format(time.RFC3339) }
