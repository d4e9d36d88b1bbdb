package fakeaws

import (
	"crypto/rand"
	"encoding/xml"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// identity is who signed a request.
type identity struct{ accessKey, arn, userID string }

// credential is a key the server knows.
type credential struct {
	secret, sessionToken string
	arn, userID          string
	expires              time.Time // zero: never
}

func (s *Server) credential(accessKey string) (credential, bool) {
	s.authMu.RLock()
	defer s.authMu.RUnlock()
	c, ok := s.creds[accessKey]
	return c, ok
}

// AssumedRole is one successful AssumeRole.
type AssumedRole struct {
	RoleARN     string `json:"roleArn"`
	SessionName string `json:"sessionName"`
	ExternalID  string `json:"externalId"`  // "" when none was given
	AccessKeyID string `json:"accessKeyId"` // of the credentials handed out
}

// AssumedRoles returns the roles that were assumed, in order.
func (s *Server) AssumedRoles() []AssumedRole {
	s.authMu.RLock()
	defer s.authMu.RUnlock()
	return slices.Clone(s.assumed)
}

// The rules of AssumeRole's parameters (STS API reference).
var (
	roleARN     = regexp.MustCompile(`^arn:[a-z-]+:iam::([0-9]{12}):role/(?:[!-~]+/)?([\w+=,.@-]{1,64})$`)
	sessionName = regexp.MustCompile(`^[\w+=,.@-]{2,64}$`)
	externalID  = regexp.MustCompile(`^[\w+=,.@:/-]+$`)
)

const (
	stsVersion       = "2011-06-15"
	minSession       = 900
	maxSession       = 43_200
	defaultSession   = 3_600
	maxSessionPolicy = 2_048
	maxExternalID    = 1_224
)

// stsMembers are the parameters of the two actions that are taken. SourceIdentity and the like are not: nobody uses them.
var stsMembers = map[string][]string{
	"GetCallerIdentity": {"Action", "Version"},
	"AssumeRole":        {"Action", "Version", "RoleArn", "RoleSessionName", "ExternalId", "DurationSeconds", "Policy"},
}

// serveSTS answers the query protocol: a form in the body of a POST, or in the query of a GET as Fluent Bit sends it.
func (s *Server) serveSTS(r *http.Request, body []byte, requestID string) (operation string, out any, lost bool, _ *APIError) {
	operation = "-"
	var form url.Values
	var err error
	switch mediaType, _, _ := strings.Cut(r.Header.Get("Content-Type"), ";"); {
	case r.URL.Path != "/":
		return operation, nil, false, &APIError{Code: "NotFound", Message: "Requests go to /.", Status: http.StatusNotFound}
	case r.Method == http.MethodGet && len(body) == 0:
		form, err = url.ParseQuery(r.URL.RawQuery)
	case r.Method == http.MethodPost && mediaType == "application/x-www-form-urlencoded":
		form, err = url.ParseQuery(string(body))
	default:
		return operation, nil, false, &APIError{Code: "MissingAction", Message: "The request has neither an X-Amz-Target nor an Action."}
	}
	if err != nil {
		return operation, nil, false, &APIError{Code: "MalformedQueryString", Message: err.Error(), Status: http.StatusNotFound}
	}
	members, known := stsMembers[form.Get("Action")]
	if !known || form.Get("Version") != stsVersion {
		return operation, nil, false, &APIError{Code: "InvalidAction", Message: fmt.Sprintf("Could not find operation %s for version %s", form.Get("Action"), form.Get("Version"))}
	}
	operation = form.Get("Action")
	caller, service, apiErr := s.authenticate(r, body)
	if apiErr != nil {
		return operation, nil, false, stsError(apiErr)
	}
	if service != "sts" {
		return operation, nil, false, &APIError{Code: "SignatureDoesNotMatch", Message: "Credential should be scoped to correct service: 'sts'. ", Status: http.StatusForbidden}
	}
	for name, values := range form {
		if len(values) != 1 || !s.cfg.AllowUnknownMembers && !slices.Contains(members, name) {
			return operation, nil, false, stsInvalid("parameter " + name + " is unknown or given twice")
		}
	}
	call := Call{
		Operation: operation, RoleARN: form.Get("RoleArn"), ExternalID: form.Get("ExternalId"),
		AccessKeyID: caller.accessKey, PrincipalARN: caller.arn, BodyBytes: len(body),
	}
	if lost, apiErr = s.before(call); apiErr != nil {
		return operation, nil, lost, apiErr
	}
	if operation == "GetCallerIdentity" {
		return operation, callerIdentityResponse{
			ARN: caller.arn, UserID: caller.userID, Account: accountOf(caller.arn), RequestID: requestID,
		}, lost, nil
	}
	out, apiErr = s.assumeRole(form, requestID)
	return operation, out, lost, apiErr
}

// stsError gives an authentication failure the name STS has for it.
func stsError(e *APIError) *APIError {
	code := map[string]string{
		codeInvalidSignature: "SignatureDoesNotMatch",
		codeIncomplete:       "IncompleteSignature",
		codeMissingAuth:      "MissingAuthenticationToken",
		codeUnrecognized:     "InvalidClientTokenId",
		codeExpiredToken:     "ExpiredToken",
	}[e.Code]
	return &APIError{Code: code, Message: e.Message, Status: http.StatusForbidden}
}

func stsInvalid(why string) *APIError {
	return &APIError{Code: "ValidationError", Message: "1 validation error detected: " + why}
}

// accountOf returns the account in an ARN.
func accountOf(arn string) string {
	if parts := strings.SplitN(arn, ":", 6); len(parts) == 6 {
		return parts[4]
	}
	return ""
}

// assumeRole hands out new credentials for any well-formed role of any account: whether a role exists and trusts the
// caller is for an intercept function to decide.
func (s *Server) assumeRole(form url.Values, requestID string) (any, *APIError) {
	role := roleARN.FindStringSubmatch(form.Get("RoleArn"))
	name := form.Get("RoleSessionName")
	seconds := defaultSession
	var err error
	if d := form.Get("DurationSeconds"); d != "" {
		seconds, err = strconv.Atoi(d)
	}
	switch {
	case role == nil:
		return nil, stsInvalid("Value '" + form.Get("RoleArn") + "' at 'roleArn' is invalid")
	case !sessionName.MatchString(name):
		return nil, stsInvalid("Value '" + name + "' at 'roleSessionName' failed to satisfy constraint: Member must satisfy regular expression pattern: [\\w+=,.@-]*")
	case form.Has("ExternalId") && (len(form.Get("ExternalId")) < 2 || len(form.Get("ExternalId")) > maxExternalID || !externalID.MatchString(form.Get("ExternalId"))):
		return nil, stsInvalid("Value '" + form.Get("ExternalId") + "' at 'externalId' failed to satisfy constraint: Member must satisfy regular expression pattern: [\\w+=,.@:\\/-]*")
	case err != nil || seconds < minSession || seconds > maxSession:
		return nil, stsInvalid("Value '" + form.Get("DurationSeconds") + "' at 'durationSeconds' failed to satisfy constraint: Member must have value between 900 and 43200")
	case len(form.Get("Policy")) > maxSessionPolicy:
		return nil, stsInvalid("Value at 'policy' failed to satisfy constraint: Member must have length less than or equal to 2048")
	}
	account, roleName := role[1], role[2]
	id := "ASIA" + rand.Text()[:16]
	cred := credential{
		secret:       rand.Text() + rand.Text()[:14],
		sessionToken: "FakeSession" + rand.Text() + rand.Text(),
		arn:          "arn:" + s.cfg.Partition + ":sts::" + account + ":assumed-role/" + roleName + "/" + name,
		userID:       "AROA" + strings.ToUpper(fmt.Sprintf("%016x", queryID(form.Get("RoleArn")))) + ":" + name,
		expires:      s.wallClock().Add(time.Duration(seconds) * time.Second),
	}
	s.authMu.Lock()
	s.creds[id] = cred
	s.assumed = append(s.assumed, AssumedRole{form.Get("RoleArn"), name, form.Get("ExternalId"), id})
	s.authMu.Unlock()
	return assumeRoleResponse{
		ARN: cred.arn, RoleID: cred.userID, AccessKeyID: id, Secret: cred.secret, Token: cred.sessionToken,
		Expiration: cred.expires.UTC().Format(time.RFC3339), RequestID: requestID,
	}, nil
}

// AccessKeyIDs returns the ids of all credentials the server knows, those it handed out itself included.
func (s *Server) AccessKeyIDs() []string {
	s.authMu.RLock()
	defer s.authMu.RUnlock()
	return slices.Sorted(maps.Keys(s.creds))
}

type callerIdentityResponse struct {
	XMLName   xml.Name `xml:"https://sts.amazonaws.com/doc/2011-06-15/ GetCallerIdentityResponse"`
	ARN       string   `xml:"GetCallerIdentityResult>Arn"`
	UserID    string   `xml:"GetCallerIdentityResult>UserId"`
	Account   string   `xml:"GetCallerIdentityResult>Account"`
	RequestID string   `xml:"ResponseMetadata>RequestId"`
}

type assumeRoleResponse struct {
	XMLName     xml.Name `xml:"https://sts.amazonaws.com/doc/2011-06-15/ AssumeRoleResponse"`
	ARN         string   `xml:"AssumeRoleResult>AssumedRoleUser>Arn"`
	RoleID      string   `xml:"AssumeRoleResult>AssumedRoleUser>AssumedRoleId"`
	AccessKeyID string   `xml:"AssumeRoleResult>Credentials>AccessKeyId"`
	Secret      string   `xml:"AssumeRoleResult>Credentials>SecretAccessKey"`
	Token       string   `xml:"AssumeRoleResult>Credentials>SessionToken"`
	Expiration  string   `xml:"AssumeRoleResult>Credentials>Expiration"`
	RequestID   string   `xml:"ResponseMetadata>RequestId"`
}

type stsErrorResponse struct {
	XMLName   xml.Name `xml:"https://sts.amazonaws.com/doc/2011-06-15/ ErrorResponse"`
	Type      string   `xml:"Error>Type"`
	Code      string   `xml:"Error>Code"`
	Message   string   `xml:"Error>Message"`
	RequestID string   `xml:"RequestId"`
}

// answerSTS writes an answer of the query protocol.
func answerSTS(w http.ResponseWriter, out any, apiErr *APIError, requestID string) {
	status := http.StatusOK
	if apiErr != nil {
		status = apiErr.status()
		fault := "Sender"
		if status >= http.StatusInternalServerError {
			fault = "Receiver"
		}
		out = stsErrorResponse{Type: fault, Code: apiErr.Code, Message: apiErr.Message, RequestID: requestID}
	}
	body, err := xml.MarshalIndent(out, "", "  ")
	if err != nil {
		panic(err) // answers are made of strings
	}
	w.Header().Set("Content-Type", "text/xml")
	w.WriteHeader(status)
	_, _ = w.Write(body) // a client that is gone needs no answer
}
