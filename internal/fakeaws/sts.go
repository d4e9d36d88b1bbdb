package fakeaws

import (
	"crypto/rand"
	"fmt"
	"maps"
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

type getCallerIdentity struct{}

func (*getCallerIdentity) about(*Call)                {}
func (*getCallerIdentity) asks(*account) []permission { return nil } // "No permissions are required"

type callerIdentityResult struct {
	ARN     string `xml:"Arn"`
	UserID  string `xml:"UserId"`
	Account string `xml:"Account"`
}

func (*getCallerIdentity) do(_ *account, caller identity) (any, *APIError) {
	return callerIdentityResult{ARN: caller.arn, UserID: caller.userID, Account: accountOf(caller.arn)}, nil
}

func stsInvalid(why string) *APIError {
	return &APIError{Code: "ValidationError", Message: "1 validation error detected: " + why}
}

type assumeRole struct {
	Role       *string `query:"RoleArn"`
	Session    *string `query:"RoleSessionName"`
	ExternalID *string `query:"ExternalId"`
	Seconds    *int64  `query:"DurationSeconds"`
	Policy     *string `query:"Policy"`
}

func (r *assumeRole) about(c *Call) { c.RoleARN, c.ExternalID = deref(r.Role), deref(r.ExternalID) }

func (r *assumeRole) asks(*account) []permission { return nil }

type assumeRoleResult struct {
	ARN         string `xml:"AssumedRoleUser>Arn"`
	RoleID      string `xml:"AssumedRoleUser>AssumedRoleId"`
	AccessKeyID string `xml:"Credentials>AccessKeyId"`
	Secret      string `xml:"Credentials>SecretAccessKey"`
	Token       string `xml:"Credentials>SessionToken"`
	Expiration  string `xml:"Credentials>Expiration"`
}

// do hands out new credentials for any well-formed role of any account on a server that enforces nothing: whether a role
// exists and trusts the caller is for an intercept function to decide there.
func (r *assumeRole) do(s *account, _ identity) (any, *APIError) {
	role := roleARN.FindStringSubmatch(deref(r.Role))
	name := deref(r.Session)
	seconds := int64(defaultSession)
	if r.Seconds != nil {
		seconds = *r.Seconds
	}
	switch {
	case role == nil:
		return nil, stsInvalid("Value '" + deref(r.Role) + "' at 'roleArn' is invalid")
	case !sessionName.MatchString(name):
		return nil, stsInvalid("Value '" + name + "' at 'roleSessionName' failed to satisfy constraint: Member must satisfy regular expression pattern: [\\w+=,.@-]*")
	case r.ExternalID != nil && (len(*r.ExternalID) < 2 || len(*r.ExternalID) > maxExternalID || !externalID.MatchString(*r.ExternalID)):
		return nil, stsInvalid("Value '" + *r.ExternalID + "' at 'externalId' failed to satisfy constraint: Member must satisfy regular expression pattern: [\\w+=,.@:\\/-]*")
	case seconds < minSession || seconds > maxSession:
		return nil, stsInvalid("Value '" + strconv.FormatInt(seconds, 10) + "' at 'durationSeconds' failed to satisfy constraint: Member must have value between 900 and 43200")
	case len(deref(r.Policy)) > maxSessionPolicy:
		return nil, stsInvalid("Value at 'policy' failed to satisfy constraint: Member must have length less than or equal to 2048")
	}
	account, roleName := role[1], role[2]
	id := "ASIA" + rand.Text()[:16]
	cred := credential{
		secret:       rand.Text() + rand.Text()[:14],
		sessionToken: "FakeSession" + rand.Text() + rand.Text(),
		arn:          "arn:" + s.cfg.Partition + ":sts::" + account + ":assumed-role/" + roleName + "/" + name,
		userID:       "AROA" + strings.ToUpper(fmt.Sprintf("%016x", queryID(*r.Role))) + ":" + name,
		expires:      s.wallClock().Add(time.Duration(seconds) * time.Second),
	}
	s.authMu.Lock()
	s.creds[id] = cred
	s.assumed = append(s.assumed, AssumedRole{*r.Role, name, deref(r.ExternalID), id})
	s.authMu.Unlock()
	return assumeRoleResult{
		ARN: cred.arn, RoleID: cred.userID, AccessKeyID: id, Secret: cred.secret, Token: cred.sessionToken,
		Expiration: xmlTime(cred.expires),
	}, nil
}

// AccessKeyIDs returns the ids of all credentials the server knows, those it handed out itself included.
func (s *Server) AccessKeyIDs() []string {
	s.authMu.RLock()
	defer s.authMu.RUnlock()
	return slices.Sorted(maps.Keys(s.creds))
}
