package fakeaws_test

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"math/big"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/eks"
	"github.com/aws/aws-sdk-go-v2/service/iam"
	"github.com/aws/aws-sdk-go-v2/service/sts"
	"github.com/stretchr/testify/require"

	"github.com/eks-tenant-logs/eks-tenant-logs/internal/fakeaws"
)

// clusterIssuer signs as a Kubernetes API server does, by RS256 or ES256.
type clusterIssuer struct {
	t    *testing.T
	keys map[string]crypto.Signer
	down bool
}

const issuerName = "https://kubernetes.default.svc.cluster.local"

func newIssuer(t *testing.T) *clusterIssuer {
	t.Helper()
	ec, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	r, err := rsa.GenerateKey(rand.Reader, 2048)
	require.NoError(t, err)
	return &clusterIssuer{t: t, keys: map[string]crypto.Signer{"ec": ec, "rsa": r}}
}

func encoded(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }

// jwks is what the API server answers at /openid/v1/jwks.
func (c *clusterIssuer) jwks() ([]byte, error) {
	if c.down {
		return nil, errors.New("connection refused")
	}
	var keys []map[string]string
	for id, k := range c.keys {
		switch k := k.Public().(type) {
		case *ecdsa.PublicKey:
			point, err := k.Bytes()
			require.NoError(c.t, err)
			keys = append(keys, map[string]string{"use": "sig", "kty": "EC", "kid": id, "crv": "P-256", "alg": "ES256", "x": encoded(point[1:33]), "y": encoded(point[33:])})
		case *rsa.PublicKey:
			keys = append(keys, map[string]string{"use": "sig", "kty": "RSA", "kid": id, "alg": "RS256", "n": encoded(k.N.Bytes()), "e": encoded(big.NewInt(int64(k.E)).Bytes())})
		}
	}
	return json.Marshal(map[string]any{"keys": keys})
}

type claims map[string]any

// of are the claims that the kubelet's tokens have, with changes.
func of(changes claims) claims {
	c := claims{
		"iss": issuerName, "sub": "system:serviceaccount:logs:agent", "aud": []string{"sts.amazonaws.com"}, "jti": "token-1",
		"exp": time.Now().Add(10 * time.Minute).Unix(), "iat": time.Now().Unix(), "nbf": time.Now().Unix(),
		"kubernetes.io": map[string]any{
			"namespace": "logs", "pod": map[string]string{"name": "agent-1", "uid": "u-1"}, "serviceaccount": map[string]string{"name": "agent", "uid": "u-2"},
		},
	}
	for k, v := range changes {
		c[k] = v
	}
	return c
}

func (c *clusterIssuer) token(id, algorithm string, claims claims) string {
	return signedBy(c.t, c.keys[id], id, algorithm, claims)
}

func signedBy(t *testing.T, key crypto.Signer, id, algorithm string, claims claims) string {
	t.Helper()
	header, err := json.Marshal(map[string]string{"alg": algorithm, "kid": id})
	require.NoError(t, err)
	body, err := json.Marshal(claims)
	require.NoError(t, err)
	signed := encoded(header) + "." + encoded(body)
	sum := sha256.Sum256([]byte(signed))
	var signature []byte
	switch key := key.(type) {
	case *ecdsa.PrivateKey:
		r, s, err := ecdsa.Sign(rand.Reader, key, sum[:])
		require.NoError(t, err)
		signature = append(r.FillBytes(make([]byte, 32)), s.FillBytes(make([]byte, 32))...)
	case *rsa.PrivateKey:
		signature, err = rsa.SignPKCS1v15(rand.Reader, key, crypto.SHA256, sum[:])
		require.NoError(t, err)
	}
	return signed + "." + encoded(signature)
}

func TestTokensOfAnIssuerAreVerifiedByItsKeys(t *testing.T) {
	f := startEnforcing(t)
	c := newIssuer(t)
	f.TrustIssuer(issuerName, c.jwks)
	provider := "kubernetes.default.svc.cluster.local"
	_, err := f.iam.CreateOpenIDConnectProvider(t.Context(), &iam.CreateOpenIDConnectProviderInput{Url: aws.String(issuerName), ClientIDList: []string{"sts.amazonaws.com"}})
	require.NoError(t, err)
	arn := role(t, f.iam, "agent", `{"Version":"2012-10-17","Statement":{"Effect":"Allow","Principal":{"Federated":"arn:aws:iam::`+home+`:oidc-provider/`+provider+`"},"Action":"sts:AssumeRoleWithWebIdentity",
		"Condition":{"StringEquals":{"`+provider+`:sub":"system:serviceaccount:logs:agent","`+provider+`:aud":"sts.amazonaws.com"}}}}`, policy("*", "logs:*"))
	try := func(token string) error {
		_, err := newSTS(f.url, aws.AnonymousCredentials{}).AssumeRoleWithWebIdentity(t.Context(), &sts.AssumeRoleWithWebIdentityInput{RoleArn: &arn, RoleSessionName: aws.String("x1"), WebIdentityToken: &token})
		return err
	}
	require.NoError(t, try(c.token("ec", "ES256", of(nil))))
	require.NoError(t, try(c.token("rsa", "RS256", of(claims{"aud": "sts.amazonaws.com", "jti": "token-2"}))))
	assumed := f.AssumedRoles()
	require.Equal(t, "system:serviceaccount:logs:agent", assumed[0].Subject)
	require.Equal(t, "token-1", assumed[0].TokenID)
	require.Equal(t, "token-2", assumed[1].TokenID)

	foreign := newIssuer(t)
	for name, x := range map[string]struct {
		token, code string
		status      int
	}{
		"another audience":              {c.token("ec", "ES256", of(claims{"aud": []string{"pods.eks.amazonaws.com"}})), "InvalidIdentityToken", 400},
		"no audience":                   {c.token("ec", "ES256", of(claims{"aud": []string{}})), "InvalidIdentityToken", 400},
		"a second audience":             {c.token("ec", "ES256", of(claims{"aud": []string{"sts.amazonaws.com", "else"}})), "InvalidIdentityToken", 400},
		"another subject":               {c.token("ec", "ES256", of(claims{"sub": "system:serviceaccount:logs:default"})), "AccessDenied", 403},
		"expired":                       {c.token("ec", "ES256", of(claims{"exp": time.Now().Add(-time.Second).Unix()})), "ExpiredTokenException", 400},
		"without an end":                {c.token("ec", "ES256", of(claims{"exp": 0})), "InvalidIdentityToken", 400},
		"not valid yet":                 {c.token("ec", "ES256", of(claims{"nbf": time.Now().Add(time.Hour).Unix()})), "InvalidIdentityToken", 400},
		"another issuer":                {c.token("ec", "ES256", of(claims{"iss": "https://else.example"})), "InvalidIdentityToken", 400},
		"another cluster's key":         {foreign.token("ec", "ES256", of(nil)), "InvalidIdentityToken", 400},
		"another cluster's RSA key":     {foreign.token("rsa", "RS256", of(nil)), "InvalidIdentityToken", 400},
		"a key that is not there":       {signedBy(t, c.keys["ec"], "else", "ES256", of(nil)), "InvalidIdentityToken", 400},
		"no signature":                  {signedBy(t, nil, "ec", "none", of(nil)), "InvalidIdentityToken", 400},
		"a curve's key used as RSA's":   {c.token("ec", "RS256", of(nil)), "InvalidIdentityToken", 400},
		"an RSA key used as a curve's":  {c.token("rsa", "ES256", of(nil)), "InvalidIdentityToken", 400},
		"the stand-in's own signature":  {f.WebIdentityToken(issuerName, "system:serviceaccount:logs:agent", "sts.amazonaws.com", time.Hour), "InvalidIdentityToken", 400},
		"a public key used as a secret": {c.token("ec", "HS256", of(nil)), "InvalidIdentityToken", 400},
		"two parts":                     {"e30.e30", "InvalidIdentityToken", 400},
	} {
		t.Run(name, func(t *testing.T) { requireStatus(t, try(x.token), x.code, x.status) })
	}
	changed := []byte(c.token("ec", "ES256", of(nil)))
	dot := bytes.IndexByte(changed, '.')
	changed[dot+20] ^= 1
	requireCode(t, try(string(changed)), "InvalidIdentityToken", "")

	// The issuer's keys are rotated: the new one is looked for, the old one is good while it is known.
	next, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	old := c.token("ec", "ES256", of(nil))
	c.keys = map[string]crypto.Signer{"next": next}
	require.NoError(t, try(old))
	require.NoError(t, try(c.token("next", "ES256", of(nil))))
	requireStatus(t, try(old), "InvalidIdentityToken", 400)
	c.down = true
	requireStatus(t, try(old), "IDPCommunicationError", 400)
}

func TestThePodIdentityEndpointKnowsPodsByTheirTokens(t *testing.T) {
	f := startEnforcing(t)
	c := newIssuer(t)
	f.TrustIssuer(issuerName, c.jwks)
	account := f.Account(home)
	require.Error(t, account.SetClusterIssuer("c1", issuerName))
	clusterARN := account.AddCluster("c1")
	account.AddCluster("c2")
	require.NoError(t, account.SetClusterIssuer("c1", issuerName))
	arn := role(t, f.iam, "agent", `{"Version":"2012-10-17","Statement":{"Effect":"Allow","Principal":{"Service":"pods.eks.amazonaws.com"},"Action":["sts:AssumeRole","sts:TagSession"],
		"Condition":{"StringEquals":{"aws:SourceAccount":"`+home+`","aws:RequestTag/eks-cluster-arn":"`+clusterARN+`","aws:RequestTag/kubernetes-service-account":"agent"}}}}`, policy("*", "logs:DescribeLogGroups"))
	for _, cluster := range []string{"c1", "c2"} {
		_, err := newEKS(f.url, exampleCredentials).CreatePodIdentityAssociation(t.Context(), &eks.CreatePodIdentityAssociationInput{
			ClusterName: &cluster, Namespace: aws.String("logs"), ServiceAccount: aws.String("agent"), RoleArn: &arn,
		})
		require.NoError(t, err)
	}
	ask := func(cluster, token string) (int, string) {
		r := httptest.NewRequest(http.MethodGet, "/v1/credentials", nil)
		r.Header.Set("Authorization", token)
		w := httptest.NewRecorder()
		account.PodIdentityEndpoint(cluster).ServeHTTP(w, r)
		body, err := io.ReadAll(w.Result().Body)
		require.NoError(t, err)
		return w.Code, string(body)
	}
	pods := func(changes claims) claims {
		c := of(claims{"aud": []string{"pods.eks.amazonaws.com"}})
		for k, v := range changes {
			c[k] = v
		}
		return c
	}
	f.SetSessionLife(time.Minute)
	status, body := ask("c1", c.token("ec", "ES256", pods(nil)))
	require.Equal(t, 200, status, body)
	var out struct {
		AccessKeyID     string `json:"AccessKeyId"`
		SecretAccessKey string
		Token           string
		AccountID       string `json:"AccountId"`
		Expiration      time.Time
	}
	require.NoError(t, json.Unmarshal([]byte(body), &out))
	require.Equal(t, home, out.AccountID)
	require.WithinDuration(t, time.Now().Add(time.Minute), out.Expiration, 10*time.Second)
	key := fakeaws.Credentials{AccessKeyID: out.AccessKeyID, SecretAccessKey: out.SecretAccessKey, SessionToken: out.Token}
	require.NoError(t, logsCalls(t, newClient(f.url, static(key)))["DescribeLogGroups"]("/"))
	assumed := f.AssumedRoles()
	require.Equal(t, "system:serviceaccount:logs:agent token-1", assumed[len(assumed)-1].Subject+" "+assumed[len(assumed)-1].TokenID)

	for name, x := range map[string]struct {
		cluster, token, code string
		status               int
	}{
		"a token for STS":        {"c1", c.token("ec", "ES256", of(nil)), "InvalidTokenException", 400},
		"another key":            {"c1", newIssuer(t).token("ec", "ES256", pods(nil)), "InvalidTokenException", 400},
		"expired":                {"c1", c.token("ec", "ES256", pods(claims{"exp": time.Now().Add(-time.Second).Unix()})), "ExpiredTokenException", 400},
		"no pod's token":         {"c1", c.token("ec", "ES256", pods(claims{"kubernetes.io": map[string]any{"namespace": "logs", "serviceaccount": map[string]string{"name": "agent"}}})), "InvalidTokenException", 400},
		"another cluster":        {"c2", c.token("ec", "ES256", pods(nil)), "InvalidTokenException", 400},
		"no cluster":             {"c3", c.token("ec", "ES256", pods(nil)), "ResourceNotFoundException", 404},
		"no token":               {"c1", "", "InvalidTokenException", 400},
		"another's pod":          {"c1", c.token("ec", "ES256", pods(claims{"kubernetes.io": map[string]any{"namespace": "tenant-acme", "pod": map[string]string{"uid": "u"}, "serviceaccount": map[string]string{"name": "agent"}}})), "ResourceNotFoundException", 404},
		"the pod of another one": {"c1", c.token("ec", "ES256", pods(claims{"kubernetes.io": map[string]any{"namespace": "logs", "pod": map[string]string{"uid": "u"}, "serviceaccount": map[string]string{"name": "default"}}})), "ResourceNotFoundException", 404},
	} {
		t.Run(name, func(t *testing.T) {
			status, body := ask(x.cluster, x.token)
			require.Equal(t, x.status, status, body)
			require.Contains(t, body, "("+x.code+")")
		})
	}
	// The role is associated, and its trust policy leaves the cluster out.
	require.NoError(t, account.SetClusterIssuer("c2", issuerName))
	status, body = ask("c2", c.token("ec", "ES256", pods(nil)))
	require.Equal(t, 403, status, body)
	require.Contains(t, body, "(AccessDeniedException)")
}
