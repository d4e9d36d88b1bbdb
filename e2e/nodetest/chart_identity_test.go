package nodetest

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sts"
	"github.com/aws/smithy-go"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/eks-tenant-logs/eks-tenant-logs/e2e/realnode"
	"github.com/eks-tenant-logs/eks-tenant-logs/internal/fakeaws"
)

// The chart's pods have no key of AWS's: the kubelet brings them tokens of the API server, and STS gives them their roles' sessions for those.
func TestPodsGetTheirRolesByIRSA(t *testing.T) {
	c := aCluster(t)
	roles := rolesOnANode(t, c, realnode.IRSA)
	t.Run("STS refuses other tokens", func(t *testing.T) { refusedBySTS(t, c, roles) })
}

// The same by EKS Pod Identity: the node's agent gives the sessions.
func TestPodsGetTheirRolesByPodIdentity(t *testing.T) {
	long(t)
	c := aCluster(t)
	rolesOnANode(t, c, realnode.PodIdentity)
	t.Run("EKS Auth refuses other tokens", func(t *testing.T) { refusedByEKS(t, c) })
}

// sessionLife is how long the sessions last that the stand-in hands out then, for AWS's last 15 minutes at least.
const sessionLife = 10 * time.Second

// rolesOnANode installs the chart so, and has a pod write while the kubelet renews the pods' tokens and their sessions end. With E2E_IDENTITY_SECONDS,
// at least 600, the kubelet renews tokens for their age alone; without, it is restarted, and has to make others.
func rolesOnANode(t *testing.T, c *realnode.Cluster, how realnode.Identity) realnode.Roles {
	t.Helper()
	patience := time.Duration(size(t, "E2E_IDENTITY_SECONDS", 0)) * time.Second
	ctx := within(t, 5*time.Minute+patience)
	_, err := c.StartEKS(ctx)
	require.NoError(t, err)
	c.AWS.SetSessionLife(sessionLife)
	t.Cleanup(func() { c.AWS.SetSessionLife(0) })
	installing := len(c.AWS.AssumedRoles())
	shortTokens := realnode.Values{"annotations": realnode.Values{realnode.TokenLife: "600"}}
	roles := installedAs(t, c, how, realnode.Values{
		"fluentBit": realnode.Values{"minReadySeconds": 0, "serviceAccount": shortTokens}, "provisioner": realnode.Values{"serviceAccount": shortTokens},
	})
	signers := watchSigners(t, c)
	for _, p := range append(agents(t, c), provisioners(t, c)...) {
		for _, container := range p.Spec.Containers {
			require.Empty(t, container.EnvFrom, "no key comes from a Secret")
		}
	}

	w := realnode.Writer{Tenant: strings.ToLower(string(how)), Name: strings.ToLower(string(how)), Node: c.Nodes[0].Name, Rate: 1000}
	tenant(t, c, w.Tenant)
	require.NoError(t, c.StartWriter(ctx, w))
	require.NoError(t, c.Until(ctx, "its first lines arrive", func() (bool, error) { return c.Lines.Arrived(w.Name) > 0, nil }))
	first := map[string]map[string]bool{"writer": tokens(ctx, t, c, agents(t, c)), "provisioner": tokens(ctx, t, c, provisioners(t, c))}
	began, sessions := time.Now(), len(c.AWS.AssumedRoles())
	if patience == 0 {
		require.NoError(t, c.Nodes[0].StopKubelet(ctx))
		require.NoError(t, c.Nodes[0].StartKubelet(ctx))
	}
	require.NoError(t, c.Until(ctx, "the kubelet has renewed all tokens", func() (bool, error) {
		return !overlap(first["writer"], tokens(ctx, t, c, agents(t, c))) && !overlap(first["provisioner"], tokens(ctx, t, c, provisioners(t, c))), nil
	}))
	t.Logf("the kubelet renewed the tokens after %.0f s", time.Since(began).Seconds())
	time.Sleep(sessionLife)        // what the old tokens got has ended
	tenant(t, c, w.Tenant+"-late") // which takes the provisioner a session
	require.NoError(t, c.Until(ctx, "sessions are asked for with the new tokens", func() (bool, error) {
		asked := map[string]bool{}
		for _, s := range c.AWS.AssumedRoles()[sessions:] {
			for purpose, old := range first {
				asked[purpose] = asked[purpose] || s.RoleARN == roles[purpose] && s.TokenID != "" && !old[s.TokenID]
			}
		}
		return asked["writer"] && asked["provisioner"], nil
	}))
	lines, err := c.StopWriter(ctx, w)
	require.NoError(t, err)
	judge(t, c, w, lines, once)

	count := map[string]int{}
	for _, s := range c.AWS.AssumedRoles()[installing:] {
		for purpose, account := range map[string]string{"writer": agentAccount, "provisioner": "eks-tenant-logs-provisioner"} {
			if s.RoleARN == roles[purpose] {
				count[purpose]++
				require.Equal(t, "system:serviceaccount:logs:"+account, s.Subject)
			}
		}
	}
	t.Logf("in %.0f s, sessions of %.0f s: %v", time.Since(began).Seconds(), sessionLife.Seconds(), count)
	assert.GreaterOrEqual(t, count["writer"], 2, "sessions of the agent")
	assert.Equal(t, []string{roles["writer"]}, signers(), "roles that lines were written with")
	assert.Contains(t, c.AWS.Used(roles["provisioner"]), "logs:CreateLogGroup")

	said, err := c.HelmTest(ctx)
	require.NoError(t, err, said)
	require.Contains(t, said, "in /eks/tenants/canary")
	require.True(t, slices.ContainsFunc(c.AWS.AssumedRoles()[installing:], func(s fakeaws.AssumedRole) bool {
		return s.RoleARN == roles["canary"] && s.Subject == "system:serviceaccount:tenant-canary:eks-tenant-logs-canary"
	}), "the canary has a role of its own")
	t.Run("a pod of another service account gets no role", func(t *testing.T) { thieves(t, c, how, roles) })
	return roles
}

// installedAs is installed with another identity than an administrator's key.
func installedAs(t *testing.T, c *realnode.Cluster, how realnode.Identity, over realnode.Values) realnode.Roles {
	t.Helper()
	removed(t, c)
	began := time.Now()
	roles, err := c.InstallAs(within(t, 4*time.Minute), how, over)
	uninstalledLater(t, c)
	require.NoError(t, err)
	t.Logf("helm install --wait: %.1f s", time.Since(began).Seconds())
	return roles
}

// watchSigners returns what says whose roles' sessions PutLogEvents was signed with since.
func watchSigners(t *testing.T, c *realnode.Cluster) func() []string {
	t.Helper()
	var mu sync.Mutex
	seen := map[string]bool{}
	c.AWS.SetIntercept(func(call fakeaws.Call) error {
		if call.Operation == "PutLogEvents" {
			mu.Lock()
			defer mu.Unlock()
			seen[call.PrincipalARN] = true
		}
		return nil
	})
	t.Cleanup(func() { c.AWS.SetIntercept(nil) })
	return func() (roles []string) {
		mu.Lock()
		defer mu.Unlock()
		for arn := range seen {
			// arn:aws:sts::123456789012:assumed-role/<name>/<session>
			if parts := strings.Split(arn, "/"); len(parts) == 3 && strings.HasPrefix(arn, "arn:aws:sts::") {
				arn = "arn:aws:iam::" + strings.Split(arn, ":")[4] + ":role/eks-tenant-logs/" + parts[1]
			}
			if !slices.Contains(roles, arn) {
				roles = append(roles, arn)
			}
		}
		return roles
	}
}

func provisioners(t *testing.T, c *realnode.Cluster) []corev1.Pod {
	t.Helper()
	pods, err := c.Admin.CoreV1().Pods(realnode.ReleaseNamespace).List(within(t, time.Minute), metav1.ListOptions{LabelSelector: "app.kubernetes.io/component=provisioner"})
	require.NoError(t, err)
	// Pods that were evicted stay in the list, and a roll's old ones until they have ended.
	running := slices.DeleteFunc(pods.Items, func(p corev1.Pod) bool { return p.Status.Phase != corev1.PodRunning || p.DeletionTimestamp != nil })
	require.NotEmpty(t, running)
	return running
}

// tokens are the ids of the tokens that pods have now.
func tokens(ctx context.Context, t *testing.T, c *realnode.Cluster, pods []corev1.Pod) map[string]bool {
	t.Helper()
	ids := map[string]bool{}
	for _, p := range pods {
		token, err := c.TokenOf(ctx, p)
		require.NoError(t, err)
		require.NotEmpty(t, token.ID)
		ids[token.ID] = true
	}
	return ids
}

func overlap(a, b map[string]bool) bool {
	for id := range a {
		if b[id] {
			return true
		}
	}
	return false
}

// thieves are pods that have all that the release's pods have, but for the service account. The same pod with that gets the role.
func thieves(t *testing.T, c *realnode.Cluster, how realnode.Identity, roles realnode.Roles) {
	t.Helper()
	ctx := within(t, 2*time.Minute)
	tenant(t, c, "thief")
	account := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: "eks-tenant-logs-provisioner"}}
	if how == realnode.IRSA { // the webhook believes it
		account.Annotations = map[string]string{realnode.RoleAnnotation: roles["provisioner"]}
	}
	_, err := c.Admin.CoreV1().ServiceAccounts("tenant-thief").Create(ctx, account, metav1.CreateOptions{})
	require.NoError(t, err)
	list := func(namespace, account string) (ended corev1.PodPhase, said string) {
		pod := c.Command("ask-"+account, namespace, account, "tenants", "--cluster=real-node", "--region="+realnode.Region)
		pods := c.Admin.CoreV1().Pods(namespace)
		if how == realnode.PodIdentity && namespace != realnode.ReleaseNamespace {
			c.AsByPodIdentity(pod) // EKS gives it nothing: it brings it itself
		}
		_, err := pods.Create(ctx, pod, metav1.CreateOptions{})
		require.NoError(t, err)
		defer func() { require.NoError(t, pods.Delete(context.Background(), pod.Name, metav1.DeleteOptions{})) }()
		require.NoError(t, c.Until(ctx, "the pod has ended", func() (bool, error) {
			p, err := pods.Get(ctx, pod.Name, metav1.GetOptions{})
			if err == nil {
				ended = p.Status.Phase
			}
			return ended == corev1.PodSucceeded || ended == corev1.PodFailed, err
		}))
		return ended, c.PodLog(ctx, namespace, "asks="+account)
	}
	ended, said := list(realnode.ReleaseNamespace, "eks-tenant-logs-provisioner")
	require.Equal(t, corev1.PodSucceeded, ended, said)
	require.Contains(t, said, "/eks/tenants/thief")
	refusal := map[realnode.Identity]string{realnode.IRSA: "AccessDenied", realnode.PodIdentity: "ResourceNotFoundException"}[how]
	ended, said = list("tenant-thief", "eks-tenant-logs-provisioner")
	require.Equal(t, corev1.PodFailed, ended, said)
	require.Contains(t, said, refusal)
	t.Logf("another namespace's service account of the same name: %s", strings.TrimSpace(said))
}

// apiToken is a token that the API server makes for a service account, bound to a pod where one is named.
func apiToken(t *testing.T, c *realnode.Cluster, namespace, account, audience string, pod *corev1.Pod) string {
	t.Helper()
	seconds := int64(600)
	request := &authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{Audiences: []string{audience}, ExpirationSeconds: &seconds}}
	if audience == "" {
		request.Spec.Audiences = nil
	}
	if pod != nil {
		request.Spec.BoundObjectRef = &authenticationv1.BoundObjectReference{Kind: "Pod", APIVersion: "v1", Name: pod.Name, UID: pod.UID}
	}
	made, err := c.Admin.CoreV1().ServiceAccounts(namespace).CreateToken(within(t, time.Minute), account, request, metav1.CreateOptions{})
	require.NoError(t, err)
	return made.Status.Token
}

// forged is a token with the same header and claims, signed with another cluster's key.
func forged(t *testing.T, token string) string {
	t.Helper()
	signed := token[:strings.LastIndexByte(token, '.')]
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	sum := sha256.Sum256([]byte(signed))
	r, s, err := ecdsa.Sign(rand.Reader, key, sum[:])
	require.NoError(t, err)
	return signed + "." + base64.RawURLEncoding.EncodeToString(append(r.FillBytes(make([]byte, 32)), s.FillBytes(make([]byte, 32))...))
}

const agentAccount = "eks-tenant-logs-fluent-bit"

// refusedBySTS asks for the writer's role with tokens of the API server's.
func refusedBySTS(t *testing.T, c *realnode.Cluster, roles realnode.Roles) {
	t.Helper()
	client := sts.New(sts.Options{Region: realnode.Region, BaseEndpoint: &c.AWS.CloudWatch.Endpoint, HTTPClient: c.AWS.CloudWatch.HTTP, Credentials: aws.AnonymousCredentials{}, Retryer: aws.NopRetryer{}})
	assume := func(role, token string) error {
		_, err := client.AssumeRoleWithWebIdentity(within(t, time.Minute), &sts.AssumeRoleWithWebIdentityInput{RoleArn: aws.String(roles[role]), RoleSessionName: aws.String("test"), WebIdentityToken: &token})
		return err
	}
	good := apiToken(t, c, realnode.ReleaseNamespace, agentAccount, "sts.amazonaws.com", nil)
	require.NoError(t, assume("writer", good))
	for name, x := range map[string]struct{ role, token, code string }{
		"another role":            {"provisioner", good, "AccessDenied"},
		"another account":         {"writer", apiToken(t, c, realnode.ReleaseNamespace, "default", "sts.amazonaws.com", nil), "AccessDenied"},
		"another namespace":       {"writer", apiToken(t, c, "default", "default", "sts.amazonaws.com", nil), "AccessDenied"},
		"Pod Identity's audience": {"writer", apiToken(t, c, realnode.ReleaseNamespace, agentAccount, "pods.eks.amazonaws.com", nil), "InvalidIdentityToken"},
		"the API's own audience":  {"writer", apiToken(t, c, realnode.ReleaseNamespace, agentAccount, "", nil), "InvalidIdentityToken"},
		"another cluster's key":   {"writer", forged(t, good), "InvalidIdentityToken"},
	} {
		t.Run(name, func(t *testing.T) {
			var refused smithy.APIError
			require.ErrorAs(t, assume(x.role, x.token), &refused)
			require.Equal(t, x.code, refused.ErrorCode())
		})
	}
}

// refusedByEKS asks the agent of Pod Identity with tokens of the API server's.
func refusedByEKS(t *testing.T, c *realnode.Cluster) {
	t.Helper()
	ask := func(token string) (int, string) {
		r := httptest.NewRequest(http.MethodGet, "/v1/credentials", nil)
		r.Header.Set("Authorization", token)
		w := httptest.NewRecorder()
		c.AWS.Account("123456789012").PodIdentityEndpoint("real-node").ServeHTTP(w, r)
		return w.Code, w.Body.String()
	}
	agent, provisioner := agents(t, c)[0], provisioners(t, c)[0]
	good := apiToken(t, c, realnode.ReleaseNamespace, agentAccount, "pods.eks.amazonaws.com", &agent)
	status, said := ask(good)
	require.Equal(t, http.StatusOK, status, said)
	for name, x := range map[string]struct{ token, code string }{
		"STS's audience":        {apiToken(t, c, realnode.ReleaseNamespace, agentAccount, "sts.amazonaws.com", &agent), "InvalidTokenException"},
		"no pod's":              {apiToken(t, c, realnode.ReleaseNamespace, agentAccount, "pods.eks.amazonaws.com", nil), "InvalidTokenException"},
		"another cluster's key": {forged(t, good), "InvalidTokenException"},
		"another account":       {apiToken(t, c, realnode.ReleaseNamespace, "default", "pods.eks.amazonaws.com", nil), "InvalidTokenException"},
	} {
		t.Run(name, func(t *testing.T) {
			status, said := ask(x.token)
			require.Equal(t, http.StatusBadRequest, status, said)
			require.Contains(t, said, fmt.Sprintf("(%s)", x.code))
		})
	}
	// Each pod's token brings its own role.
	status, said = ask(apiToken(t, c, realnode.ReleaseNamespace, provisioner.Spec.ServiceAccountName, "pods.eks.amazonaws.com", &provisioner))
	require.Equal(t, http.StatusOK, status, said)
	assumed := c.AWS.AssumedRoles()
	require.NotEqual(t, assumed[len(assumed)-1].RoleARN, assumed[len(assumed)-2].RoleARN)
}
