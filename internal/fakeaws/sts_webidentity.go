package fakeaws

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"net/http"
	"strings"
	"time"
)

// webIdentity is a service account token: the claims that STS looks at.
type webIdentity struct {
	Issuer   string `json:"iss"` // with https://
	Subject  string `json:"sub"`
	Audience string `json:"aud"`
	Expires  int64  `json:"exp"` // seconds since 1970
}

// WebIdentityToken makes a token as a cluster's issuer would, for AssumeRoleWithWebIdentity: issuer begins with https://.
// It is signed with a key of the server's own (HS256), where AWS verifies the issuer's public key.
func (s *Server) WebIdentityToken(issuer, subject, audience string, life time.Duration) string {
	claims, err := json.Marshal(webIdentity{issuer, subject, audience, s.wall().Add(life).Unix()})
	if err != nil {
		panic(err) // strings and a number always marshal
	}
	encode := base64.RawURLEncoding.EncodeToString
	signed := encode([]byte(`{"alg":"HS256","typ":"JWT"}`)) + "." + encode(claims)
	return signed + "." + encode(s.tokenMAC(signed))
}

func (s *Server) tokenMAC(signed string) []byte {
	s.authMu.RLock()
	key := s.tokenKey
	s.authMu.RUnlock()
	mac := hmac.New(sha256.New, key)
	mac.Write([]byte(signed))
	return mac.Sum(nil)
}

// readToken returns the claims of a token that this server made and that has not expired.
func (s *Server) readToken(token string) (webIdentity, *APIError) {
	invalid := &APIError{Code: "InvalidIdentityToken", Message: "The web identity token could not be validated."}
	i := strings.LastIndexByte(token, '.')
	if i < 0 {
		return webIdentity{}, invalid
	}
	mac, err := base64.RawURLEncoding.DecodeString(token[i+1:])
	if err != nil || !hmac.Equal(mac, s.tokenMAC(token[:i])) {
		return webIdentity{}, invalid
	}
	_, claims, _ := strings.Cut(token[:i], ".")
	b, err := base64.RawURLEncoding.DecodeString(claims)
	if err != nil {
		return webIdentity{}, invalid
	}
	var id webIdentity
	if err := json.Unmarshal(b, &id); err != nil {
		return webIdentity{}, invalid
	}
	if s.wall().Unix() >= id.Expires {
		return webIdentity{}, &APIError{Code: codeExpiredToken, Message: "Token expired"}
	}
	return id, nil
}

// assumeRoleWithWebIdentity is not signed: the token says who asks.
type assumeRoleWithWebIdentity struct {
	onSession
	Token    *string `query:"WebIdentityToken"`
	Provider *string `query:"ProviderId"`
}

func (r *assumeRoleWithWebIdentity) about(c *Call) { c.RoleARN = deref(r.Role) }

func (r *assumeRoleWithWebIdentity) asks(*account) []permission { return nil }

func (r *assumeRoleWithWebIdentity) do(s *account, _ identity) (any, *APIError) {
	accountID, roleName, seconds, err := r.check()
	switch {
	case err != nil:
		return nil, err
	case r.Provider != nil:
		return nil, stsInvalid("ProviderId is for OAuth 2.0 access tokens, which are not taken here")
	}
	id, err := s.readToken(deref(r.Token))
	if err != nil {
		return nil, err
	}
	target := s.account(accountID)
	x := session{role: *r.Role, roleID: "AROA" + roleName, name: *r.Session, seconds: seconds}
	if x.policies, err = r.sessionPolicies(target); err != nil {
		return nil, err
	}
	host := strings.TrimPrefix(id.Issuer, "https://")
	x.federated = target.globalARN("iam", "oidc-provider/"+host)
	if s.cfg.Enforce {
		found, err := target.assumableByToken(r, id, host, x.federated, roleName)
		if err != nil {
			return nil, err
		}
		if seconds > found.maxSession {
			return nil, stsInvalid("The requested DurationSeconds exceeds the MaxSessionDuration set for this role.")
		}
		x.roleID = found.id
	}
	out, _ := s.begin(x)
	return struct {
		sessionResult
		Subject  string `xml:"SubjectFromWebIdentityToken"`
		Provider string `xml:"Provider"`
		Audience string `xml:"Audience"`
	}{out, id.Subject, x.federated, id.Audience}, nil
}

// assumableByToken finds the role, if it trusts whom the token is about.
func (s *account) assumableByToken(r *assumeRoleWithWebIdentity, id webIdentity, host, provider, name string) (role, *APIError) {
	s.iam.mu.RLock()
	p := s.iam.providers[provider]
	known := false
	if p != nil {
		for _, client := range p.clients {
			known = known || client == id.Audience
		}
	}
	s.iam.mu.RUnlock()
	switch {
	case p == nil:
		return role{}, &APIError{Code: "InvalidIdentityToken", Message: "No OpenIDConnect provider found in your account for " + id.Issuer}
	case !known:
		return role{}, &APIError{Code: "InvalidIdentityToken", Message: "Incorrect token audience"}
	}
	denied := &APIError{Code: codeDenied, Message: "Not authorized to perform sts:AssumeRoleWithWebIdentity", Status: http.StatusForbidden}
	found, access, ok := s.roleFor(*r.Role, name)
	if !ok {
		return role{}, denied
	}
	ask := permission{action: "sts:AssumeRoleWithWebIdentity", resource: found.arn, context: resourceTagKeys(access.tags)}
	ask.set(host+":sub", id.Subject)
	ask.set(host+":aud", id.Audience)
	ask.set("aws:federatedprovider", provider)
	ask.set("sts:rolesessionname", *r.Session)
	if !s.trustsProvider(provider, access.trust, ask) {
		return role{}, denied
	}
	return found, nil
}
