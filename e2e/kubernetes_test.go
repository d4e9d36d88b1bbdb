package e2e

import (
	"context"
	"fmt"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"github.com/eks-tenant-logs/eks-tenant-logs/e2e/cluster"
)

// clusters are the API servers of this run; TestMain stops them.
var clusters struct {
	mu  sync.Mutex
	all []*cluster.Cluster
}

func stopClusters() {
	clusters.mu.Lock()
	defer clusters.mu.Unlock()
	for _, c := range clusters.all {
		if err := c.Stop(); err != nil {
			fmt.Fprintln(os.Stderr, "stopping Kubernetes:", err)
		}
		os.RemoveAll(c.Dir)
	}
}

// startKubernetes starts a real API server. Where the binaries are not built the test is
// skipped and says how to build them; `make e2e` builds them first.
func startKubernetes(t *testing.T) *cluster.Cluster {
	t.Helper()
	binaries, err := cluster.Find()
	if err != nil {
		if os.Getenv("E2E_ENGINE") == "fluent-bit" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	dir, err := os.MkdirTemp("", "kube-")
	require.NoError(t, err)
	began := time.Now()
	c, err := cluster.Start(within(t, 3*time.Minute), binaries, dir)
	if err != nil {
		os.RemoveAll(dir)
		t.Fatal(err)
	}
	t.Logf("the API server was ready after %s", time.Since(began).Round(time.Millisecond))
	clusters.mu.Lock()
	defer clusters.mu.Unlock()
	clusters.all = append(clusters.all, c)
	return c
}

func adminOf(c *cluster.Cluster) kubernetes.Interface {
	return kubernetes.NewForConfigOrDie(c.Config(cluster.Admin, "system:masters"))
}

// userOf is a client of a user of these groups.
func userOf(c *cluster.Cluster, user string, groups ...string) kubernetes.Interface {
	return kubernetes.NewForConfigOrDie(c.Config(user, groups...))
}

// allow gives a subject rights in the whole cluster.
func allow(t *testing.T, admin kubernetes.Interface, name string, subject rbacv1.Subject, rules ...rbacv1.PolicyRule) {
	t.Helper()
	ctx := within(t, 30*time.Second)
	_, err := admin.RbacV1().ClusterRoles().Create(ctx, &rbacv1.ClusterRole{ObjectMeta: metav1.ObjectMeta{Name: name}, Rules: rules}, metav1.CreateOptions{})
	require.NoError(t, err)
	_, err = admin.RbacV1().ClusterRoleBindings().Create(ctx, &rbacv1.ClusterRoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: name}, Subjects: []rbacv1.Subject{subject},
		RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: name},
	}, metav1.CreateOptions{})
	require.NoError(t, err)
}

func members(name string) rbacv1.Subject {
	return rbacv1.Subject{APIGroup: rbacv1.GroupName, Kind: rbacv1.GroupKind, Name: name}
}

func account(name string) rbacv1.Subject {
	return rbacv1.Subject{APIGroup: rbacv1.GroupName, Kind: rbacv1.UserKind, Name: name}
}

// namespace is one with a tenant's label, or without where tenant is empty.
func namespace(name, tenant string) *corev1.Namespace {
	ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}}
	if tenant != "" {
		ns.Labels = map[string]string{tenantLabel: tenant}
	}
	return ns
}

const tenantLabel = "eks-tenant-logs/tenant"

func createNamespace(t *testing.T, client kubernetes.Interface, name, tenant string) *corev1.Namespace {
	t.Helper()
	ns, err := client.CoreV1().Namespaces().Create(within(t, 30*time.Second), namespace(name, tenant), metav1.CreateOptions{})
	require.NoError(t, err)
	return ns
}

// eventually polls until the condition holds; what it says last is shown where it does not.
func eventually(t *testing.T, what string, condition func(ctx context.Context) (bool, string)) {
	t.Helper()
	ctx := within(t, time.Minute)
	for {
		ok, last := condition(ctx)
		if ok {
			return
		}
		select {
		case <-ctx.Done():
			require.Fail(t, what, last)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// refused reports whether the API server's answer is a denial, not some other failure.
func refused(err error) bool { return apierrors.IsForbidden(err) || apierrors.IsInvalid(err) }
