package e2e

import (
	"encoding/json"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	authenticationv1 "k8s.io/api/authentication/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/eks-tenant-logs/eks-tenant-logs/e2e/cluster"
	"github.com/eks-tenant-logs/eks-tenant-logs/e2e/node"
	"github.com/eks-tenant-logs/eks-tenant-logs/internal/fakeaws"
)

const agentsAccount = "eks-tenant-logs-fluent-bit"

// enriched is a cluster with the chart and enrich, and a token of the agent's service account.
func enriched(t *testing.T) (*cluster.Cluster, string) {
	t.Helper()
	c, admin, kubeconfig := forTheChart(t)
	createNamespace(t, admin, chartSpace, "")
	require.NoError(t, install(t, kubeconfig, "eks-tenant-logs", chartSpace, "admissionPolicy.enabled=false", "enrich.enabled=true"))
	hour := int64(3600)
	token, err := admin.CoreV1().ServiceAccounts(chartSpace).CreateToken(within(t, 2*time.Minute), agentsAccount, &authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{ExpirationSeconds: &hour}}, metav1.CreateOptions{})
	require.NoError(t, err)
	return c, token.Status.Token
}

// With enrich the agent may get pods, and nothing else of what the API server has.
func TestTheAgentWithEnrichGetsPodsAndNothingElse(t *testing.T) {
	c, _ := enriched(t)
	admin, ctx := adminOf(c), within(t, time.Minute)
	may := func(verb, group, resource, namespace string) bool {
		answer, err := admin.AuthorizationV1().SubjectAccessReviews().Create(ctx, &authorizationv1.SubjectAccessReview{Spec: authorizationv1.SubjectAccessReviewSpec{
			User: "system:serviceaccount:" + chartSpace + ":" + agentsAccount, Groups: []string{"system:serviceaccounts", "system:serviceaccounts:" + chartSpace, "system:authenticated"},
			ResourceAttributes: &authorizationv1.ResourceAttributes{Verb: verb, Group: group, Resource: resource, Namespace: namespace},
		}}, metav1.CreateOptions{})
		require.NoError(t, err)
		return answer.Status.Allowed
	}
	require.True(t, may("get", "", "pods", "tenant-acme"))
	for _, verb := range []string{"list", "watch", "create", "update", "patch", "delete", "deletecollection"} {
		require.False(t, may(verb, "", "pods", "tenant-acme"), verb)
	}
	for _, resource := range []string{"pods/log", "pods/exec", "secrets", "configmaps", "namespaces", "nodes", "serviceaccounts", "serviceaccounts/token", "events"} {
		for _, verb := range []string{"get", "list", "create"} {
			require.False(t, may(verb, "", resource, chartSpace), "%s %s", verb, resource)
		}
	}
	require.False(t, may("get", "apps", "daemonsets", chartSpace))
	require.False(t, may("get", "coordination.k8s.io", "leases", chartSpace))
}

// Labels come from the API server, by the agent's own rights, and change nothing of where a line
// goes; what a tenant writes on its pods or in its lines neither hides nor moves them.
func TestEnrichAddsLabelsAndIsNoIdentity(t *testing.T) {
	e := onFluentBit(t)
	c, token := enriched(t)
	admin, ctx := adminOf(c), within(t, 2*time.Minute)
	dir := t.TempDir()
	files := map[string]string{"token": token, "ca.crt": string(c.Config(cluster.Admin).CAData)}
	for name, text := range files {
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600))
	}

	createNamespace(t, admin, "tenant-acme", "")
	_, err := admin.CoreV1().ServiceAccounts("tenant-acme").Create(ctx, &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: "default"}}, metav1.CreateOptions{})
	require.NoError(t, err)
	hostile := node.Pod{Namespace: "tenant-acme", Name: "hostile", Container: "app"}
	known, err := admin.CoreV1().Pods("tenant-acme").Create(ctx, &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Name: hostile.Name, Namespace: hostile.Namespace,
			Labels:      map[string]string{"team": "blue", "eks-tenant-logs/tenant": "globex", "namespace_name": "tenant-globex"},
			Annotations: map[string]string{"fluentbit.io/exclude": "true", "fluentbit.io/parser": "json", "note": "x"},
		},
		Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "app", Image: "app"}}},
	}, metav1.CreateOptions{})
	require.NoError(t, err)
	gone := node.Pod{Namespace: "tenant-acme", Name: "gone", Container: "app"} // the API server does not know it

	cw, s := standIn(t, fakeaws.Config{})
	n := newNode(t)
	forged := `{"kubernetes":{"namespace_name":"tenant-globex","labels":{"team":"red"}},"log":"x"}`
	require.NoError(t, n.Write(hostile, forged))
	require.NoError(t, n.Write(gone, "who was that"))
	// The kubelet names the folder after the UID that the API server gave.
	folder := filepath.Join(n.Root, "var/log/pods", hostile.Namespace+"_"+hostile.Name+"_")
	require.NoError(t, os.Rename(folder+hostile.UID(), folder+string(known.UID)))
	tenants := filepath.Join(t.TempDir(), "tenants.yaml")
	require.NoError(t, os.WriteFile(tenants, []byte("version: 1\n"), 0o600))
	// The pod's own files of the service account, and the cluster's name for the API server.
	cmd, log := agentWith(t, e, cw, n, t.TempDir(), tenants, map[string]string{
		"      buffer_size: 2M\n": "      buffer_size: 2M\n      kube_url: " + c.Host + "\n      kube_ca_file: " + filepath.Join(dir, "ca.crt") + "\n      kube_token_file: " + filepath.Join(dir, "token") + "\n",
	}, "--set", "enrich.enabled=true")
	require.Eventually(t, arrived(s, 2), 60*time.Second, 50*time.Millisecond, "%s", log)
	terminate(t, cmd)

	events, err := cw.All(ctx)
	require.NoError(t, err)
	require.Len(t, events, 2)
	for _, ev := range events {
		require.Equal(t, "/eks/tenants/acme", ev.Group)
		var k map[string]any
		require.NoError(t, json.Unmarshal(fields(t, ev.Message)["kubernetes"], &k))
		require.Equal(t, "tenant-acme", k["namespace_name"], ev.Message)
		require.NotContains(t, k, "annotations")
		switch k["pod_name"] {
		case hostile.Name:
			require.Equal(t, map[string]any{"team": "blue", "eks-tenant-logs/tenant": "globex", "namespace_name": "tenant-globex"}, k["labels"])
			var text string
			require.NoError(t, json.Unmarshal(fields(t, ev.Message)["log"], &text))
			require.Contains(t, text, forged, "it stays text")
		case gone.Name:
			require.NotContains(t, k, "labels")
		default:
			t.Errorf("of pod %v: %s", k["pod_name"], ev.Message)
		}
	}
}
