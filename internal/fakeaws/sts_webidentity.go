package fakeaws

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"net/http"
	"slices"
	"strings"
	"time"
)

// webIdentity is a service account token: the claims that STS and EKS Auth look at.
type webIdentity struct {
	Issuer     string     `json:"iss"` // with https://
	Subject    string     `json:"sub"`
	Audience   audiences  `json:"aud"`
	Expires    int64      `json:"exp"` // seconds since 1970
	NotBefore  int64      `json:"nbf,omitempty"`
	ID         string     `json:"jti,omitempty"`
	Kubernetes kubernetes `json:"kubernetes.io,omitzero"`
}

// kubernetes is what a cluster's issuer says of the pod that a token was made for.
type kubernetes struct {
	Namespace      string `json:"namespace"`
	Pod            object `json:"pod"`
	ServiceAccount object `json:"serviceaccount"`
}

type object struct {
	Name string `json:"name"`
	UID  string `json:"uid"`
}

// audiences is a list, which JSON Web Tokens may have as one string (RFC 7519, 4.1.3).
type audiences []string

func (a *audiences) UnmarshalJSON(text []byte) error {
	var one string
	if json.Unmarshal(text, &one) == nil {
		*a = audiences{one}
		return nil
	}
	return json.Unmarshal(text, (*[]string)(a))
}

// ownAlgorithm is what the server signs tokens with itself, for issuers whose keys it was not told of.
const ownAlgorithm = "HS256"

// WebIdentityToken makes a token as a cluster's issuer would, for AssumeRoleWithWebIdentity: issuer begins with https://.
// It is signed with a key of the server's own (HS256), where AWS verifies the issuer's public key; see TrustIssuer.
func (s *Server) WebIdentityToken(issuer, subject, audience string, life time.Duration) string {
	claims, err := json.Marshal(webIdentity{Issuer: issuer, Subject: subject, Audience: audiences{audience}, Expires: s.wall().Add(life).Unix()})
	if err != nil {
		panic(err) // strings and a number always marshal
	}
	encode := base64.RawURLEncoding.EncodeToString
	signed := encode([]byte(`{"alg":"`+ownAlgorithm+`","typ":"JWT"}`)) + "." + encode(claims)
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

func (s *Server) ownSignature(signed string, signature []byte) bool {
	return hmac.Equal(signature, s.tokenMAC(signed))
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
	x := session{role: *r.Role, roleID: "AROA" + roleName, name: *r.Session, seconds: seconds, subject: id.Subject, tokenID: id.ID}
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
	}{out, id.Subject, x.federated, strings.Join(id.Audience, " ")}, nil
}

// assumableByToken finds the role, if it trusts whom the token is about.
func (s *account) assumableByToken(r *assumeRoleWithWebIdentity, id webIdentity, host, provider, name string) (role, *APIError) {
	s.iam.mu.RLock()
	p := s.iam.providers[provider]
	// Of several audiences AWS documents no rule without azp: each must be the provider's.
	known := p != nil && len(id.Audience) > 0
	if p != nil {
		for _, a := range id.Audience {
			known = known && slices.Contains(p.clients, a)
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
	ask.set(host+":aud", id.Audience...)
	ask.set("aws:federatedprovider", provider)
	ask.set("sts:rolesessionname", *r.Session)
	if !s.trustsProvider(provider, access.trust, ask) {
		return role{}, denied
	}
	return found, nil
}
