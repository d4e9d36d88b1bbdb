package fakeaws

import (
	"crypto/rand"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"time"
)

// identity is who signed a request.
type identity struct {
	accessKey, arn, userID string
	principal              principal
}

// principal is what IAM knows of a key's owner.
type principal struct {
	root   bool     // an account's root user, whom no policy of IAM's restricts
	user   []string // a user's policies
	role   string   // the ARN of a session's role; empty for users and root
	roleID string

	// Of a session, what was said when the role was assumed.
	session    []string          // session policies
	tags       map[string]string // session tags
	transitive []string          // keys of tags that go on to further sessions
	federated  string            // the provider of a web identity
	issued     time.Time
	revoked    bool // see RevokeSessions
}

// credential is a key the server knows.
type credential struct {
	secret, sessionToken string
	arn, userID          string
	expires              time.Time // zero: never
	principal            principal
}

func (s *Server) credential(accessKey string) (credential, bool) {
	s.authMu.RLock()
	defer s.authMu.RUnlock()
	c, ok := s.creds[accessKey]
	return c, ok
}

// Credentials are a key for signing requests. SessionToken is empty for keys that are no session's.
type Credentials struct {
	AccessKeyID     string `json:"accessKeyId"`
	SecretAccessKey string `json:"secretAccessKey"`
	SessionToken    string `json:"sessionToken,omitempty"`
}

// RootKey makes a key of an account's root user, who may do everything in it; only roles can't be assumed by root, as in
// AWS. On a server that enforces, so may the keys of Config, as users with a policy that allows all: they can assume
// roles that trust them.
func (v Account) RootKey() Credentials {
	s := v.a
	return s.newKey("AKIA", credential{arn: s.globalARN("iam", "root"), userID: s.id, principal: principal{root: true}})
}

// RootKey is Account.RootKey of the default account.
func (s *Server) RootKey() Credentials { return Account{s.home}.RootKey() }

var userName = regexp.MustCompile(`^[\w+=,.@-]{1,64}$`)

// AddUser makes a user with policies, which may be none, and returns a key. Users are here for tests alone: no call lists
// or changes them.
func (v Account) AddUser(name string, policies ...string) (Credentials, error) {
	if !userName.MatchString(name) {
		return Credentials{}, fmt.Errorf("user name %q is not valid", name)
	}
	var errs []error
	for _, document := range policies {
		if err := checkIdentityPolicy(document); err != nil {
			errs = append(errs, err)
		}
	}
	if err := errors.Join(errs...); err != nil {
		return Credentials{}, err
	}
	s := v.a
	return s.newKey("AKIA", credential{
		arn: s.globalARN("iam", "user/"+name), userID: newIAMID("AIDA"), principal: principal{user: slices.Clone(policies)},
	}), nil
}

// newKey makes a key for a principal, which is a session if it expires.
func (s *Server) newKey(kind string, c credential) Credentials {
	id := kind + rand.Text()[:16]
	c.secret = rand.Text() + rand.Text()[:14]
	if !c.expires.IsZero() {
		c.sessionToken = "FakeSession" + rand.Text() + rand.Text()
	}
	s.authMu.Lock()
	s.creds[id] = c
	s.authMu.Unlock()
	return Credentials{id, c.secret, c.sessionToken}
}

// tagsOf are the tags of a principal: those of its role, with those of the session over them.
func tagsOf(role, session map[string]string) map[string]string {
	tags := map[string]string{}
	for k, v := range role {
		tags[strings.ToLower(k)] = v
	}
	for k, v := range session {
		tags[strings.ToLower(k)] = v
	}
	return tags
}

// AccessKeyIDs returns the ids of all credentials the server knows, those it handed out itself included.
func (s *Server) AccessKeyIDs() []string {
	s.authMu.RLock()
	defer s.authMu.RUnlock()
	return slices.Sorted(maps.Keys(s.creds))
}
