package fakeaws

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rsa"
	_ "crypto/sha256" // what tokens are signed over
	_ "crypto/sha512"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"math/big"
	"slices"
	"strings"
	"sync"
)

// issuer is an OpenID Connect issuer whose tokens are verified by its own public keys, as AWS does.
type issuer struct {
	fetch func() ([]byte, error)

	mu    sync.Mutex
	known map[string]crypto.PublicKey // by key id
}

// TrustIssuer has the tokens of an issuer, which begins with https://, verified by its public keys: fetch gets its JSON Web Key Set, such as the one of
// a Kubernetes API server at /openid/v1/jwks. It is called again when a token names a key that is not known. Tokens that WebIdentityToken makes in the
// issuer's name are then refused as any other forgery.
func (s *Server) TrustIssuer(name string, fetch func() ([]byte, error)) {
	s.authMu.Lock()
	defer s.authMu.Unlock()
	if s.issuers == nil {
		s.issuers = map[string]*issuer{}
	}
	s.issuers[name] = &issuer{fetch: fetch, known: map[string]crypto.PublicKey{}}
}

// jwtHeader says how a token is signed.
type jwtHeader struct {
	Algorithm string `json:"alg"`
	KeyID     string `json:"kid"`
}

// algorithms are those that IAM supports for OIDC providers (IAM User Guide, "Create an OpenID Connect (OIDC) identity provider"), and for ECDSA the
// curve that belongs to each (RFC 7518, 3.4).
var algorithms = map[string]struct {
	hash  crypto.Hash
	curve elliptic.Curve // nil: RSA
}{
	"RS256": {crypto.SHA256, nil}, "RS384": {crypto.SHA384, nil}, "RS512": {crypto.SHA512, nil},
	"ES256": {crypto.SHA256, elliptic.P256()}, "ES384": {crypto.SHA384, elliptic.P384()}, "ES512": {crypto.SHA512, elliptic.P521()},
}

func invalidToken(why string) *APIError {
	return &APIError{Code: "InvalidIdentityToken", Message: why}
}

// verify checks a token's signature. signed is its first two parts.
func (i *issuer) verify(header jwtHeader, signed string, signature []byte) *APIError {
	a, supported := algorithms[header.Algorithm]
	if !supported {
		return invalidToken("Provided Token Algorithm is not supported: " + header.Algorithm)
	}
	key, err := i.key(header.KeyID)
	if err != nil {
		return err
	}
	h := a.hash.New()
	h.Write([]byte(signed))
	valid := false
	switch key := key.(type) {
	case *rsa.PublicKey:
		valid = a.curve == nil && rsa.VerifyPKCS1v15(key, a.hash, h.Sum(nil), signature) == nil
	case *ecdsa.PublicKey:
		if key.Curve != a.curve {
			break
		}
		half := (a.curve.Params().BitSize + 7) / 8
		valid = len(signature) == 2*half && ecdsa.Verify(key, h.Sum(nil), new(big.Int).SetBytes(signature[:half]), new(big.Int).SetBytes(signature[half:]))
	}
	if !valid {
		return invalidToken("The ID Token provided is not a valid JWT. (You may see this error if you sent an Access Token)")
	}
	return nil
}

// key finds a key of the issuer by its id.
func (i *issuer) key(id string) (crypto.PublicKey, *APIError) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if key := i.known[id]; key != nil {
		return key, nil
	}
	text, err := i.fetch()
	if err != nil {
		return nil, &APIError{Code: "IDPCommunicationError", Message: "The identity provider could not be reached: " + err.Error()}
	}
	keys, err := readKeySet(text)
	if err == nil && keys[id] == nil {
		err = fmt.Errorf("it has no key %q", id)
	}
	if err != nil {
		return nil, invalidToken("Couldn't retrieve verification key from your identity provider, please reference AssumeRoleWithWebIdentity documentation for requirements: " + err.Error())
	}
	i.known = keys
	return keys[id], nil
}

// readKeySet reads the keys for signatures of a JSON Web Key Set (RFC 7517) by their ids.
func readKeySet(text []byte) (map[string]crypto.PublicKey, error) {
	type webKey struct {
		ID    string `json:"kid"`
		Type  string `json:"kty"`
		Use   string `json:"use"`
		Curve string `json:"crv"`
		X     string `json:"x"`
		Y     string `json:"y"`
		N     string `json:"n"`
		E     string `json:"e"`
	}
	var set struct {
		Keys []webKey `json:"keys"`
	}
	if err := json.Unmarshal(text, &set); err != nil {
		return nil, fmt.Errorf("the key set is not JSON: %w", err)
	}
	keys := map[string]crypto.PublicKey{}
	for _, k := range set.Keys {
		var parts [3][]byte
		for n, part := range []string{k.X + k.N, k.Y, k.E} {
			decoded, err := base64.RawURLEncoding.DecodeString(part)
			if err != nil {
				return nil, fmt.Errorf("key %q: %w", k.ID, err)
			}
			parts[n] = decoded
		}
		if k.Use != "sig" {
			continue
		}
		switch curve := map[string]elliptic.Curve{"P-256": elliptic.P256(), "P-384": elliptic.P384(), "P-521": elliptic.P521()}[k.Curve]; {
		case k.Type == "RSA":
			keys[k.ID] = &rsa.PublicKey{N: new(big.Int).SetBytes(parts[0]), E: int(new(big.Int).SetBytes(parts[2]).Int64())}
		case k.Type == "EC" && curve != nil:
			key, err := ecdsa.ParseUncompressedPublicKey(curve, slices.Concat([]byte{4}, parts[0], parts[1]))
			if err != nil {
				return nil, fmt.Errorf("key %q: %w", k.ID, err)
			}
			keys[k.ID] = key
		}
	}
	return keys, nil
}

// readToken returns the claims of a token whose issuer signed it, and which has not expired.
func (s *Server) readToken(token string) (webIdentity, *APIError) {
	invalid := invalidToken("The web identity token could not be validated.")
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		return webIdentity{}, invalid
	}
	var decoded [3][]byte
	for i, part := range parts {
		b, err := base64.RawURLEncoding.DecodeString(part)
		if err != nil {
			return webIdentity{}, invalid
		}
		decoded[i] = b
	}
	var header jwtHeader
	var id webIdentity
	if json.Unmarshal(decoded[0], &header) != nil || json.Unmarshal(decoded[1], &id) != nil {
		return webIdentity{}, invalid
	}
	signed := parts[0] + "." + parts[1]
	s.authMu.RLock()
	known := s.issuers[id.Issuer]
	s.authMu.RUnlock()
	switch {
	case known != nil:
		if err := known.verify(header, signed, decoded[2]); err != nil {
			return webIdentity{}, err
		}
	case header.Algorithm != ownAlgorithm || !s.ownSignature(signed, decoded[2]):
		return webIdentity{}, invalid
	}
	now := s.wall().Unix()
	switch {
	case id.Expires == 0:
		return webIdentity{}, invalidToken("Missing a required claim: exp")
	case now >= id.Expires:
		return webIdentity{}, &APIError{Code: codeExpiredToken, Message: fmt.Sprintf("Token expired: current date/time %d must be before the expiration date/time %d", now, id.Expires)}
	case now < id.NotBefore:
		return webIdentity{}, invalidToken("The web identity token is not valid yet.")
	}
	return id, nil
}
