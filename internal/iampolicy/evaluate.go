package iampolicy

import (
	"fmt"
	"slices"
	"strings"
)

// Principal is who asks.
type Principal struct {
	// ARN is the user's, the role's, or the role session's. A role session may be given by
	// its role, and by itself in Session; by itself alone it is known by its role's name, which
	// no two roles of an account share, whatever their paths.
	ARN, Session string
	Account      string
	// Service is such as pods.eks.amazonaws.com, Federated an identity provider's ARN: they
	// ask with nobody's policies.
	Service, Federated string
}

// Request is one question.
type Request struct {
	// Action is such as logs:PutLogEvents.
	Action string
	// Resource is its ARN, "*" where the action has no resource level.
	Resource  string
	Principal Principal
	// Context are the condition keys there are, in lower case, with their values.
	Context map[string][]string
}

// Policies are all that bear on a request.
type Policies struct {
	Identity []*Document
	Boundary *Document   // nil: none
	Session  []*Document // nil: none
	// Resource are the resource's: a key's policy, a role's trust.
	Resource []*Document
	// SameAccount: the principal's and the resource's account are one. A resource's policy
	// alone may then allow.
	SameAccount bool
	// Required: nothing is allowed that the resource's policy does not allow as well, if only
	// to the whole account: KMS keys and roles' trust.
	Required bool
}

// Decision is the answer.
type Decision struct {
	Allowed bool
	// Explicit: a statement denies it; else nothing allows it, or something leaves it out.
	Explicit bool
	// By is the policy and statement that decided, for people.
	By string
}

// request is a Request with what depends on the document that is asked.
type request struct {
	*Request
	variables bool
}

// Evaluate decides as IAM does (IAM User Guide, "Policy evaluation logic"):
//
//   - a Deny that matches, in whichever policy, decides;
//   - else the identity's policies must allow it, and the boundary and the session's policies
//     with them: what any of the three leaves out is not allowed;
//   - a resource's policy of the same account allows by itself whom it names; that is held to
//     boundary and session policies where it names the role, and not where it names the
//     session. Naming the account only lets the account's own policies decide;
//   - across accounts both sides must allow it;
//   - services and federated identities have no policies of their own.
//
// Service and resource control policies are not known here: they only narrow.
func Evaluate(r Request, p Policies) Decision {
	identity := decide(&r, p.Identity, false, "identity policy")
	resource := decide(&r, p.Resource, true, "resource policy")
	boundary, session := verdict{allow: "no boundary", named: byRole}, verdict{allow: "no session policy", named: byRole}
	if p.Boundary != nil {
		boundary = decide(&r, []*Document{p.Boundary}, false, "boundary")
	}
	if p.Session != nil {
		session = decide(&r, p.Session, false, "session policy")
	}
	for _, v := range []verdict{identity, resource, boundary, session} {
		if v.deny != "" {
			return Decision{Explicit: true, By: v.deny}
		}
	}
	if r.Principal.Service != "" || r.Principal.Federated != "" {
		if resource.allow == "" {
			return Decision{By: "no resource policy allows it"}
		}
		return Decision{Allowed: true, By: resource.allow}
	}
	own := identity.allow
	if boundary.allow == "" || session.allow == "" {
		own = ""
	}
	switch {
	case !p.SameAccount, p.Required:
		switch {
		case resource.allow == "":
			return Decision{By: "the resource's policy does not allow it"}
		case p.SameAccount && resource.named == bySession,
			p.SameAccount && resource.named == byRole && boundary.allow != "" && session.allow != "":
			return Decision{Allowed: true, By: resource.allow}
		}
	case resource.allow != "" && resource.named == bySession,
		resource.allow != "" && resource.named == byRole && boundary.allow != "" && session.allow != "":
		return Decision{Allowed: true, By: resource.allow}
	}
	switch {
	case own != "":
		return Decision{Allowed: true, By: own}
	case identity.allow == "":
		return Decision{By: "no identity policy allows it"}
	case boundary.allow == "":
		return Decision{By: "the boundary leaves it out"}
	}
	return Decision{By: "the session's policies leave it out"}
}

// named is how a resource's policy names who asks.
type named uint8

const (
	nobody    named = iota
	byAccount       // or everybody of it: its own policies decide
	byRole          // the role, the user, or everybody
	bySession
)

// verdict is what one kind of policy says; each text is empty where it says nothing.
type verdict struct {
	allow, deny string
	named       named // of what allows, the most direct
}

func decide(r *Request, documents []*Document, resource bool, kind string) (v verdict) {
	for n, d := range documents {
		q := &request{Request: r, variables: d.Version == Version}
		for i := range d.Statements {
			s := &d.Statements[i]
			how := byRole
			if resource {
				how = s.names(&r.Principal)
			}
			if how == nobody || !s.matches(q) {
				continue
			}
			by := func() string {
				name := s.Sid
				if name == "" {
					name = fmt.Sprint(i + 1)
				}
				if len(documents) > 1 {
					return fmt.Sprintf("%s %d, statement %s", kind, n+1, name)
				}
				return kind + ", statement " + name
			}
			switch {
			case s.Effect == Deny:
				v.deny = by()
				return v
			case how > v.named:
				v.named, v.allow = how, by()
			}
		}
	}
	return v
}

// matches reports whether a statement is about a request, its principal apart. An effect
// that is none matches nothing.
func (s *Statement) matches(r *request) bool {
	switch {
	case s.Effect != Allow && s.Effect != Deny:
		return false
	case s.NotActions != nil && matchesAction(s.NotActions, r.Action):
		return false
	case s.NotActions == nil && !matchesAction(s.Actions, r.Action):
		return false
	case s.NotResources != nil && r.matchesResource(s.NotResources):
		return false
	case s.Resources != nil && !r.matchesResource(s.Resources):
		return false
	}
	return !slices.ContainsFunc(s.Conditions, func(c Condition) bool { return !c.holds(r) })
}

// names says how a statement of a resource's policy names a principal.
func (s *Statement) names(p *Principal) named {
	if s.NotPrincipal != nil {
		if s.NotPrincipal.names(p) == nobody {
			return byRole
		}
		return nobody
	}
	if s.Principal == nil {
		return nobody
	}
	return s.Principal.names(p)
}

func (p *Principals) names(who *Principal) (how named) {
	if p.Any {
		return byRole
	}
	switch {
	case who.Service != "":
		if slices.Contains(p.Service, who.Service) {
			return byRole
		}
		return nobody
	case who.Federated != "":
		if slices.Contains(p.Federated, who.Federated) {
			return byRole
		}
		return nobody
	}
	for _, a := range p.AWS {
		account, isAccount := accountPrincipal(a)
		switch {
		case a == "*":
			how = max(how, byRole)
		case isAccount && who.Account != "" && account == who.Account:
			how = max(how, byAccount)
		case a != "" && (a == who.Session || a == who.ARN && isSession(a)):
			how = max(how, bySession)
		case a != "" && (a == who.ARN || isRoleOf(a, who.ARN)):
			how = max(how, byRole)
		}
	}
	return how
}

func isSession(arn string) bool { return strings.Contains(arn, ":assumed-role/") }

// isRoleOf reports whether a role's ARN is that of a session's role. A session's ARN has the
// role's name without its path.
func isRoleOf(role, session string) bool {
	r, s := strings.SplitN(role, ":", 6), strings.SplitN(session, ":", 6)
	if len(r) != 6 || len(s) != 6 || r[0] != "arn" || s[0] != "arn" || r[1] != s[1] || r[2] != "iam" || s[2] != "sts" || r[4] != s[4] {
		return false
	}
	path, ok := strings.CutPrefix(r[5], "role/")
	rest, assumed := strings.CutPrefix(s[5], "assumed-role/")
	name, _, _ := strings.Cut(rest, "/")
	return ok && assumed && name != "" && path[strings.LastIndexByte(path, '/')+1:] == name
}

// accountPrincipal reads an account's id, or its root's ARN.
func accountPrincipal(s string) (id string, ok bool) {
	if parts := strings.Split(s, ":"); len(parts) == 6 && parts[0] == "arn" && parts[2] == "iam" && parts[5] == "root" {
		s = parts[4]
	}
	return s, isAccountID(s)
}

func isAccountID(s string) bool {
	if len(s) != 12 {
		return false
	}
	for i := range len(s) {
		if s[i] < '0' || s[i] > '9' {
			return false
		}
	}
	return true
}
