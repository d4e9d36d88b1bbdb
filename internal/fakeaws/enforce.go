package fakeaws

import (
	"maps"
	"net/http"
	"slices"
	"strings"

	"github.com/eks-tenant-logs/eks-tenant-logs/internal/iampolicy"
)

// administrator is the policy of the keys in Config.
const administrator = `{"Version":"2012-10-17","Statement":{"Effect":"Allow","Action":"*","Resource":"*"}}`

// anything takes the place of an identity's policies where only another policy is asked about.
var anything = []*iampolicy.Document{mustParse(administrator)}

func mustParse(document string) *iampolicy.Document {
	d, err := iampolicy.Parse([]byte(document))
	if err != nil {
		panic(err)
	}
	return d
}

// parsed returns documents that were checked before, or nil for one that is not there.
func (s *Server) parsed(documents ...string) (list []*iampolicy.Document) {
	for _, text := range documents {
		d, ok := s.documents.Load(text)
		if !ok {
			d, _ = s.documents.LoadOrStore(text, mustParse(text))
		}
		list = append(list, d.(*iampolicy.Document))
	}
	return list
}

// authorize reports whether the caller may do all of what is asked. An empty list asks for nothing.
func (s *account) authorize(caller identity, action string, asked []permission) *APIError {
	if !s.cfg.Enforce {
		return nil
	}
	for _, ask := range asked {
		if ask.action == "" {
			ask.action = action
		}
		if allowed, explicit := s.permits(caller, ask); !allowed {
			return denied(caller, action, ask, explicit)
		}
		s.note(caller, ask.action)
	}
	return nil
}

// note keeps that a role was allowed an action.
func (s *Server) note(caller identity, action string) {
	if caller.principal.role == "" {
		return
	}
	s.authMu.Lock()
	defer s.authMu.Unlock()
	if s.used == nil {
		s.used = map[string]map[string]bool{}
	}
	if s.used[caller.principal.role] == nil {
		s.used[caller.principal.role] = map[string]bool{}
	}
	s.used[caller.principal.role][action] = true
}

// Used are the actions that calls of a role's sessions asked for and were allowed, whether the calls then succeeded or
// not, on a server that enforces. A call may ask for several.
func (s *Server) Used(role string) []string {
	s.authMu.RLock()
	defer s.authMu.RUnlock()
	return slices.Sorted(maps.Keys(s.used[role]))
}

// permits decides about one permission: by the caller's policies, and by the policy of the key it is about, if any.
func (s *account) permits(caller identity, ask permission) (allowed, explicit bool) {
	if ask.keyPolicy != nil {
		return s.trusts(caller, *ask.keyPolicy, nil, ask), false
	}
	if caller.principal.root {
		return true, false
	}
	mine, ok := s.policiesOf(caller)
	if !ok {
		return false, false
	}
	d := iampolicy.Evaluate(s.request(caller, ask), mine)
	return d.Allowed, d.Explicit
}

// policiesOf are the policies that a caller of this account has now; none, if its role is gone. What a role was given
// lately may not count yet.
func (s *account) policiesOf(caller identity) (p iampolicy.Policies, ok bool) {
	p.SameAccount = true
	if caller.principal.role == "" {
		p.Identity = s.parsed(caller.principal.user...)
		return p, true
	}
	s.iam.mu.RLock()
	defer s.iam.mu.RUnlock()
	r := s.roleOf(caller)
	if r == nil {
		return p, false
	}
	access := s.effective(r)
	p.Identity, p.Boundary, ok = s.rolePolicies(access)
	p.Session = s.parsed(caller.principal.session...)
	return p, ok
}

// roleOf is the role of a session, unless it is gone: one made anew under its name is another. The caller holds the lock.
func (s *account) roleOf(caller identity) *role {
	name := caller.principal.role[strings.LastIndexByte(caller.principal.role, '/')+1:]
	if r := s.iam.roles[strings.ToLower(name)]; r != nil && r.id == caller.principal.roleID {
		return r
	}
	return nil
}

// rolePolicies are the documents of a role. A boundary that can't be read allows nothing. The caller holds the lock.
func (s *account) rolePolicies(access roleAccess) (own []*iampolicy.Document, boundary *iampolicy.Document, ok bool) {
	for _, document := range access.inline {
		own = append(own, s.parsed(document)...)
	}
	for _, arn := range access.attached {
		if p := s.iam.policies[arn]; p != nil {
			if document, ok := s.inForce(p); ok {
				own = append(own, s.parsed(document)...)
			}
		}
	}
	if access.boundary == "" {
		return own, nil, true
	}
	p := s.iam.policies[access.boundary]
	if p == nil {
		return nil, nil, false
	}
	document, ok := s.inForce(p)
	if !ok {
		return nil, nil, false
	}
	return own, s.parsed(document)[0], true
}

// trusts reports whether a policy of this account's, a role's trust or a key's, lets the caller do something, and the
// caller's own policies as far as they have a say: always, if the caller is of another account or if it is only the
// account that is trusted; otherwise they must not deny, nor boundary or session policies leave it out.
//
// A role that the policy names is the one that had the name when the policy was written: ids has its unique id.
func (s *account) trusts(caller identity, policy string, ids map[string]string, ask permission) bool {
	home := s.account(accountOf(caller.arn))
	request := home.request(caller, ask)
	another := false
	if id := ids[request.Principal.ARN]; id != "" && id != caller.principal.roleID {
		request.Principal.ARN, another = caller.principal.roleID, true
	}
	document := s.parsed(policy)
	if !admits(request, document) {
		// A policy may name the session itself instead of its role. By the session's ARN alone it would be known as the
		// role of that name again, which it is not if that was another.
		if request.Principal.ARN = caller.arn; caller.principal.role == "" || another || !admits(request, document) {
			return false
		}
	}
	if caller.principal.root {
		return true
	}
	mine, ok := home.policiesOf(caller)
	if !ok {
		return false
	}
	asRole := func(account string) iampolicy.Request {
		r := request
		r.Principal = iampolicy.Principal{ARN: "arn:" + s.cfg.Partition + ":iam::" + account + ":role/nobody-has-this-name", Account: account}
		return r
	}
	trustsAccount := admits(asRole(home.id), document) && !admits(asRole(noAccount), document)
	if home.id != s.id || trustsAccount {
		return iampolicy.Evaluate(request, mine).Allowed
	}
	if iampolicy.Evaluate(request, mine).Explicit {
		return false
	}
	mine.Identity = anything
	return iampolicy.Evaluate(request, mine).Allowed
}

// noAccount is nobody's: a policy that admits it admits everybody.
const noAccount = "000000000000"

// admits reports whether a resource's policy lets the principal of a request do what it asks, its own policies apart.
func admits(r iampolicy.Request, policy []*iampolicy.Document) bool {
	return iampolicy.Evaluate(r, iampolicy.Policies{Identity: anything, Resource: policy}).Allowed
}

// trustsProvider reports whether a policy lets somebody do something whom an identity provider vouches for.
func (s *account) trustsProvider(provider, policy string, ask permission) bool {
	return admits(iampolicy.Request{
		Action: ask.action, Resource: ask.arn(), Principal: iampolicy.Principal{Federated: provider}, Context: ask.context,
	}, s.parsed(policy))
}

// trustsService reports whether a policy lets a service of AWS do something.
func (s *account) trustsService(service, policy string, ask permission) bool {
	return admits(iampolicy.Request{
		Action: ask.action, Resource: ask.arn(), Principal: iampolicy.Principal{Service: service}, Context: ask.context,
	}, s.parsed(policy))
}

// denied is the answer to a call that is not allowed, in its service's words.
func denied(caller identity, call string, ask permission, explicit bool) *APIError {
	reason := " because no identity-based policy allows the " + ask.action + " action"
	if explicit {
		reason = " with an explicit deny in an identity-based policy"
	}
	e := &APIError{
		Code:    codeDenied + "Exception",
		Message: "User: " + caller.arn + " is not authorized to perform: " + ask.action + " on resource: " + ask.arn() + reason,
	}
	switch service, _, _ := strings.Cut(call, ":"); service {
	case "iam", "sts":
		e.Code, e.Status = codeDenied, http.StatusForbidden
	case "eks":
		e.Status = http.StatusForbidden
	}
	return e
}
