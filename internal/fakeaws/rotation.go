package fakeaws

import (
	crand "crypto/rand"
	"fmt"
	"time"
)

// What happens to credentials while they are in use: keys are rotated and retired, sessions end
// before their time or are revoked, a cluster's signing key is replaced.

// RotateKey makes another key for whom a key belongs to. The first one stays good until RetireKey.
func (s *Server) RotateKey(id string) (Credentials, error) {
	c, ok := s.credential(id)
	if !ok {
		return Credentials{}, fmt.Errorf("there is no key %s", id)
	}
	return s.newKey(id[:4], c), nil
}

// RetireKey makes a key unknown: calls that are signed with it get UnrecognizedClientException,
// InvalidClientTokenId from IAM and STS. A secret that is still cached somewhere signs in vain. It
// reports whether there was such a key.
func (s *Server) RetireKey(id string) bool {
	s.authMu.Lock()
	defer s.authMu.Unlock()
	_, ok := s.creds[id]
	delete(s.creds, id)
	return ok
}

// ChangeSecret gives a key another secret, as where an id was made anew: calls that are signed with
// the old one get InvalidSignatureException.
func (s *Server) ChangeSecret(id string) (Credentials, error) {
	s.authMu.Lock()
	defer s.authMu.Unlock()
	c, ok := s.creds[id]
	if !ok {
		return Credentials{}, fmt.Errorf("there is no key %s", id)
	}
	c.secret = crand.Text() + crand.Text()[:14]
	s.creds[id] = c
	return Credentials{id, c.secret, c.sessionToken}, nil
}

// ExpireSessions ends every session of a role at once, whatever end its holder was told: calls get
// ExpiredTokenException, ExpiredToken from IAM and STS. It returns how many there were.
func (s *Server) ExpireSessions(roleARN string) int {
	return s.changeSessions(roleARN, func(c *credential) { c.expires = time.Unix(1, 0) })
}

// RevokeSessions is what IAM's console does with "Revoke active sessions": what was issued until now
// is denied everything, explicitly, by aws:TokenIssueTime; what is issued from now on is not. It
// returns how many sessions there were. AWS compares times, to the second; here it is these sessions.
func (s *Server) RevokeSessions(roleARN string) int {
	return s.changeSessions(roleARN, func(c *credential) { c.principal.revoked = true })
}

func (s *Server) changeSessions(roleARN string, change func(*credential)) (n int) {
	s.authMu.Lock()
	defer s.authMu.Unlock()
	for id, c := range s.creds {
		if c.principal.role == roleARN && !c.expires.IsZero() {
			change(&c)
			s.creds[id] = c
			n++
		}
	}
	return n
}

// revoked is the answer to a caller whose session was revoked; nil for others. call is the operation
// with its service before it. GetCallerIdentity can't be denied.
func revoked(caller identity, call string) *APIError {
	if !caller.principal.revoked || call == "sts:GetCallerIdentity" {
		return nil
	}
	return denied(caller, call, permission{action: call, resource: "*"}, true)
}

// SetSessionLife has sessions that are handed out from now on end after d, whatever was asked for; 0 ends that. Their holders are told so. AWS's
// shortest session, of 15 minutes, would make a test of renewals long.
func (s *Server) SetSessionLife(d time.Duration) { s.sessionLife.Store(int64(d)) }

// ReplaceIssuerKey replaces the key that web identity tokens are signed with: those made before are
// refused with InvalidIdentityToken, as where a cluster's issuer has rotated its keys.
func (s *Server) ReplaceIssuerKey() {
	s.authMu.Lock()
	defer s.authMu.Unlock()
	s.tokenKey = []byte(crand.Text())
}
