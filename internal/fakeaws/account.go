package fakeaws

import (
	"maps"
	"slices"
	"strings"
	"sync"
)

// account is what one AWS account holds. The embedded Server is what all of them share.
type account struct {
	*Server
	id string

	// Guarded by Server.mu.
	groups    map[string]*group
	retention accountRetention

	iam iamState
	eks eksState
	kms kmsState
}

// account returns the account of an id, made when first asked for: which accounts exist is not this server's business.
func (s *Server) account(id string) *account {
	s.accountsMu.Lock()
	defer s.accountsMu.Unlock()
	a := s.accounts[id]
	if a == nil {
		a = &account{Server: s, id: id, groups: map[string]*group{}, iam: newIAMState(), eks: newEKSState(), kms: newKMSState()}
		s.accounts[id] = a
	}
	return a
}

// logsAccount is whose log groups a caller works on: those of the caller's own account, or, on a server that enforces
// nothing, always the default one's.
func (s *Server) logsAccount(caller identity) *account {
	if !s.cfg.Enforce {
		return s.home
	}
	return s.account(accountOf(caller.arn))
}

// Account is what one of a Server's accounts holds, for tests to look at.
type Account struct{ a *account }

// Account returns the view of an account by its 12 digits. The default account's is what the Server's own methods show.
func (s *Server) Account(id string) Account { return Account{s.account(id)} }

// Accounts returns the ids of all accounts that were ever used.
func (s *Server) Accounts() []string {
	s.accountsMu.Lock()
	defer s.accountsMu.Unlock()
	return slices.Sorted(maps.Keys(s.accounts))
}

// Groups is Server.Groups for this account.
func (v Account) Groups() []Group { return v.a.listGroups() }

// Events is Server.Events for this account.
func (v Account) Events(group, stream string) []Event { return v.a.events(group, stream) }

// accountOf returns the account in an ARN.
func accountOf(arn string) string {
	if parts := strings.SplitN(arn, ":", 6); len(parts) == 6 {
		return parts[4]
	}
	return ""
}

// globalARN makes an ARN of a service without regions.
func (s *account) globalARN(service, resource string) string {
	return "arn:" + s.cfg.Partition + ":" + service + "::" + s.id + ":" + resource
}

// iamState is an account's IAM. Everything in it is guarded by mu; documents, maps and lists in it are replaced, never
// changed, so that what was read under the lock stays true to itself.
type iamState struct {
	mu        sync.RWMutex
	roles     map[string]*role          // by lower-case name: unique in an account whatever the path
	policies  map[string]*managedPolicy // by ARN
	names     map[string]string         // lower-case name of a policy → its ARN
	providers map[string]*oidcProvider  // by ARN
}

func newIAMState() iamState {
	return iamState{
		roles: map[string]*role{}, policies: map[string]*managedPolicy{}, names: map[string]string{},
		providers: map[string]*oidcProvider{},
	}
}

// RoleNames returns the names of the account's roles, sorted.
func (v Account) RoleNames() []string {
	v.a.iam.mu.RLock()
	defer v.a.iam.mu.RUnlock()
	names := []string{}
	for _, r := range v.a.iam.roles {
		names = append(names, r.name)
	}
	slices.Sort(names)
	return names
}
