package fakeaws

import (
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// AssumedRole is one session that was handed out.
type AssumedRole struct {
	RoleARN     string `json:"roleArn"`
	SessionName string `json:"sessionName"`
	ExternalID  string `json:"externalId"`  // "" when none was given
	AccessKeyID string `json:"accessKeyId"` // of the credentials handed out
	// Of a service account's token, by IRSA or EKS Pod Identity: whom it is about, and which token it was. "" otherwise.
	Subject string `json:"subject,omitempty"`
	TokenID string `json:"tokenId,omitempty"`
}

// AssumedRoles returns the roles that were assumed, in order.
func (s *Server) AssumedRoles() []AssumedRole {
	s.authMu.RLock()
	defer s.authMu.RUnlock()
	return slices.Clone(s.assumed)
}

// The lengths of a session's name (STS API reference, AssumeRole).
const (
	minSessionName = 2
	maxSessionName = 64
)

// The rules of AssumeRole's parameters (STS API reference).
var (
	roleARN     = regexp.MustCompile(`^arn:[a-z-]+:iam::([0-9]{12}):role/(?:[!-~]+/)?([\w+=,.@-]{1,64})$`)
	sessionName = regexp.MustCompile(`^[\w+=,.@-]*$`)
	externalID  = regexp.MustCompile(`^[\w+=,.@:/-]+$`)
)

const (
	stsVersion       = "2011-06-15"
	minSession       = 900
	maxSession       = 43_200
	defaultSession   = 3_600
	maxChained       = 3_600 // a session that a session asked for
	maxSessionPolicy = 2_048
	maxExternalID    = 1_224
	maxSessionARNs   = 10
)

func stsInvalid(why string) *APIError {
	return &APIError{Code: codeQueryValidation, Message: "1 validation error detected: " + why}
}

type getCallerIdentity struct{}

func (*getCallerIdentity) about(*Call) {}

func (*getCallerIdentity) asks(*account) []permission { return nil } // "No permissions are required"

type callerIdentityResult struct {
	ARN     string `xml:"Arn"`
	UserID  string `xml:"UserId"`
	Account string `xml:"Account"`
}

func (*getCallerIdentity) do(_ *account, caller identity) (any, *APIError) {
	return callerIdentityResult{ARN: caller.arn, UserID: caller.userID, Account: accountOf(caller.arn)}, nil
}

// onSession is what the ways to assume a role have in common.
type onSession struct {
	Role       *string         `query:"RoleArn"`
	Session    *string         `query:"RoleSessionName"`
	Seconds    *int64          `query:"DurationSeconds"`
	Policy     *string         `query:"Policy"`
	PolicyARNs []policyARNItem `query:"PolicyArns"`
}

type policyARNItem struct {
	ARN *string `query:"arn"`
}

// check validates the request and returns the account and the name in the role's ARN, and how long the session lasts.
func (r *onSession) check() (account, role string, seconds int64, _ *APIError) {
	arn := roleARN.FindStringSubmatch(deref(r.Role))
	name := deref(r.Session)
	seconds = defaultSession
	if r.Seconds != nil {
		seconds = *r.Seconds
	}
	switch {
	case arn == nil:
		return "", "", 0, stsInvalid("Value '" + deref(r.Role) + "' at 'roleArn' is invalid")
	case r.Session == nil:
		return "", "", 0, stsInvalid("Value null at 'roleSessionName' failed to satisfy constraint: " + memberNotNull)
	case utf16Len(name) < minSessionName:
		return "", "", 0, stsInvalid("Value '" + name + "' at 'roleSessionName' failed to satisfy constraint: " + atLeast(minSessionName))
	case utf16Len(name) > maxSessionName:
		return "", "", 0, stsInvalid("Value '" + name + "' at 'roleSessionName' failed to satisfy constraint: " + atMost(maxSessionName))
	case !sessionName.MatchString(name):
		return "", "", 0, stsInvalid("Value '" + name + "' at 'roleSessionName' failed to satisfy constraint: Member must satisfy regular expression pattern: [\\w+=,.@-]*")
	case seconds < minSession || seconds > maxSession:
		return "", "", 0, stsInvalid("Value '" + strconv.FormatInt(seconds, 10) + "' at 'durationSeconds' failed to satisfy constraint: Member must have value between 900 and 43200")
	case len(deref(r.Policy)) > maxSessionPolicy:
		return "", "", 0, stsInvalid("Value at 'policy' failed to satisfy constraint: Member must have length less than or equal to 2048")
	case len(r.PolicyARNs) > maxSessionARNs:
		return "", "", 0, stsInvalid("Value at 'policyArns' failed to satisfy constraint: Member must have length less than or equal to 10")
	}
	if r.Policy != nil {
		if err := checkIdentityPolicy(*r.Policy); err != nil {
			return "", "", 0, err
		}
	}
	return arn[1], arn[2], seconds, nil
}

// sessionPolicies are the documents of the policies that are to narrow the session. Managed ones are of the role's account.
func (r *onSession) sessionPolicies(target *account) (documents []string, _ *APIError) {
	if r.Policy != nil {
		documents = append(documents, *r.Policy)
	}
	target.iam.mu.RLock()
	defer target.iam.mu.RUnlock()
	for _, item := range r.PolicyARNs {
		p := target.iam.policies[deref(item.ARN)]
		if p == nil {
			return nil, stsInvalid("policy " + deref(item.ARN) + " does not exist")
		}
		document, _ := target.inForce(p)
		documents = append(documents, document)
	}
	return documents, nil
}

// session is what a session is made of.
type session struct {
	role, roleID string // ARN and unique id
	name         string
	seconds      int64
	externalID   string // for AssumedRoles
	policies     []string
	tags         map[string]string
	transitive   []string
	federated    string
	// Of the token that it was asked for with, for AssumedRoles.
	subject, tokenID string
}

// sessionResult is the part of the answers about a new session.
type sessionResult struct {
	ARN         string `xml:"AssumedRoleUser>Arn"`
	RoleID      string `xml:"AssumedRoleUser>AssumedRoleId"`
	AccessKeyID string `xml:"Credentials>AccessKeyId"`
	Secret      string `xml:"Credentials>SecretAccessKey"`
	Token       string `xml:"Credentials>SessionToken"`
	Expiration  string `xml:"Credentials>Expiration"`
}

// begin makes the session's key and notes that the role was assumed.
func (s *Server) begin(x session) (sessionResult, Credentials) {
	at := s.wall()
	role := roleARN.FindStringSubmatch(x.role)
	life := time.Duration(x.seconds) * time.Second
	if most := time.Duration(s.sessionLife.Load()); most > 0 {
		life = min(life, most)
	}
	c := credential{
		arn:     "arn:" + s.cfg.Partition + ":sts::" + role[1] + ":assumed-role/" + role[2] + "/" + x.name,
		userID:  x.roleID + ":" + x.name,
		expires: at.Add(life),
		principal: principal{
			role: x.role, roleID: x.roleID, session: x.policies, tags: x.tags, transitive: x.transitive, federated: x.federated, issued: at,
		},
	}
	key := s.newKey("ASIA", c)
	s.authMu.Lock()
	s.assumed = append(s.assumed, AssumedRole{x.role, x.name, x.externalID, key.AccessKeyID, x.subject, x.tokenID})
	s.authMu.Unlock()
	return sessionResult{c.arn, c.userID, key.AccessKeyID, key.SecretAccessKey, key.SessionToken, xmlTime(c.expires)}, key
}

type assumeRole struct {
	onSession
	ExternalID *string  `query:"ExternalId"`
	Tags       []tag    `query:"Tags"`
	Transitive []string `query:"TransitiveTagKeys"`
}

func (r *assumeRole) about(c *Call) { c.RoleARN, c.ExternalID = deref(r.Role), deref(r.ExternalID) }

// asks nothing of the caller's policies alone: the role's trust policy takes part in the decision, which do makes.
func (r *assumeRole) asks(*account) []permission { return nil }

// do hands out new credentials. On a server that enforces nothing any well-formed role of any account can be assumed:
// whether it exists and trusts the caller is for an intercept function to decide there.
func (r *assumeRole) do(s *account, caller identity) (any, *APIError) {
	accountID, roleName, seconds, err := r.check()
	if err != nil {
		return nil, err
	}
	if r.ExternalID != nil && (len(*r.ExternalID) < 2 || len(*r.ExternalID) > maxExternalID || !externalID.MatchString(*r.ExternalID)) {
		return nil, stsInvalid("Value '" + *r.ExternalID + "' at 'externalId' failed to satisfy constraint: Member must satisfy regular expression pattern: [\\w+=,.@:\\/-]*")
	}
	var c constraints
	c.iamTags(r.Tags)
	c.size("transitiveTagKeys", len(r.Transitive), 0, maxTags)
	if err := c.queryErr(); err != nil {
		return nil, err
	}
	tags, err := withTags(nil, r.Tags)
	if err != nil {
		return nil, err
	}
	x := session{
		role: *r.Role, roleID: "AROA" + strings.ToUpper(fmt.Sprintf("%016x", queryID(*r.Role))), name: *r.Session, seconds: seconds,
		externalID: deref(r.ExternalID), tags: tags, transitive: slices.Clone(r.Transitive),
	}
	for _, k := range r.Transitive {
		if _, ok := tags[k]; !ok {
			return nil, stsInvalid("the transitive tag key " + k + " is not among the tags")
		}
	}
	// Transitive tags of the caller's session go on, and can't be changed.
	for _, k := range caller.principal.transitive {
		if _, ok := tags[k]; ok {
			return nil, &APIError{Code: "InvalidParameterValue", Message: "One of the specified transitive tag keys can't be set because it conflicts with a transitive tag key from the calling session."}
		}
		x.tags[k] = caller.principal.tags[k]
		x.transitive = append(x.transitive, k)
	}
	target := s.account(accountID)
	if x.policies, err = r.sessionPolicies(target); err != nil {
		return nil, err
	}
	if s.cfg.Enforce {
		found, err := target.assumable(caller, r, roleName)
		switch {
		case err != nil:
			return nil, err
		case caller.principal.role != "" && seconds > maxChained:
			return nil, stsInvalid("The requested DurationSeconds exceeds the 1 hour session limit for roles assumed by role chaining")
		case seconds > found.maxSession:
			return nil, stsInvalid("The requested DurationSeconds exceeds the MaxSessionDuration set for this role.")
		}
		x.roleID = found.id
	}
	out, _ := s.begin(x)
	return out, nil
}

// assumable finds the role, if the caller may assume it.
func (s *account) assumable(caller identity, r *assumeRole, name string) (role, *APIError) {
	denied := stsDenied(caller.arn, "sts:AssumeRole", *r.Role)
	if caller.principal.root {
		return role{}, &APIError{Code: codeDenied, Message: "Roles may not be assumed by root accounts.", Status: http.StatusForbidden}
	}
	found, access, ok := s.roleFor(*r.Role, name)
	if !ok {
		return role{}, denied
	}
	ask := permission{action: "sts:AssumeRole", resource: found.arn, context: requestTagKeys(r.Tags)}
	ask.add(resourceTagKeys(access.tags))
	ask.set("sts:rolesessionname", *r.Session)
	if r.ExternalID != nil {
		ask.set("sts:externalid", *r.ExternalID)
	}
	if len(r.Transitive) > 0 {
		ask.set("sts:transitivetagkeys", r.Transitive...)
	}
	if !s.trusts(caller, access.trust, access.trusted, ask) {
		return role{}, denied
	}
	s.note(caller, ask.action)
	// "The administrator must also have permission to perform sts:TagSession"; tags that are passed on count as well.
	if len(r.Tags) > 0 || len(caller.principal.transitive) > 0 {
		if ask.action = "sts:TagSession"; !s.trusts(caller, access.trust, access.trusted, ask) {
			return role{}, stsDenied(caller.arn, "sts:TagSession", found.arn)
		}
	}
	return found, nil
}

// roleFor finds a role by its whole ARN, with what decisions about it come from now; a role that nothing has taken effect of
// yet is not found.
func (s *account) roleFor(arn, name string) (role, roleAccess, bool) {
	s.iam.mu.RLock()
	defer s.iam.mu.RUnlock()
	found := s.iam.roles[strings.ToLower(name)]
	if found == nil || found.arn != arn {
		return role{}, roleAccess{}, false
	}
	access := s.effective(found)
	return *found, access, access.trust != ""
}

func stsDenied(arn, action, resource string) *APIError {
	return &APIError{
		Code: codeDenied, Message: "User: " + arn + " is not authorized to perform: " + action + " on resource: " + resource, Status: http.StatusForbidden,
	}
}
