package cluster

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
)

func TestMissingBinariesAreNamedWithTheWayToBuildThem(t *testing.T) {
	t.Setenv("KUBE_BINARIES", t.TempDir())
	_, err := Find()
	require.ErrorContains(t, err, "no etcd and no kube-apiserver")
	require.ErrorContains(t, err, "make kube")
}

func TestTheClusterTellsUsersByTheirCertificatesAndStops(t *testing.T) {
	binaries, err := Find()
	if err != nil {
		t.Skip(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	began := time.Now()
	c, err := Start(ctx, binaries, t.TempDir())
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, c.Stop()) })
	t.Logf("ready after %s", time.Since(began).Round(time.Millisecond))

	admin := kubernetes.NewForConfigOrDie(c.Config(Admin, "system:masters"))
	version, err := admin.Discovery().ServerVersion()
	require.NoError(t, err)
	t.Logf("Kubernetes %s", version.GitVersion)

	path, err := c.Kubeconfig("jane", "developers", "system:x")
	require.NoError(t, err)
	cfg, err := clientcmd.BuildConfigFromFlags("", path)
	require.NoError(t, err)
	jane := kubernetes.NewForConfigOrDie(cfg)
	who, err := jane.AuthenticationV1().SelfSubjectReviews().Create(ctx, &authenticationv1.SelfSubjectReview{}, metav1.CreateOptions{})
	require.NoError(t, err)
	require.Equal(t, "jane", who.Status.UserInfo.Username)
	require.ElementsMatch(t, []string{"developers", "system:x", "system:authenticated"}, who.Status.UserInfo.Groups)
	_, err = jane.CoreV1().Namespaces().List(ctx, metav1.ListOptions{})
	require.True(t, apierrors.IsForbidden(err), "RBAC decides: %v", err)

	anonymous := kubernetes.NewForConfigOrDie(&rest.Config{Host: c.Host, TLSClientConfig: rest.TLSClientConfig{CAData: c.ca.PEM}})
	_, err = anonymous.CoreV1().Namespaces().List(ctx, metav1.ListOptions{})
	require.Error(t, err)

	_, err = admin.CoreV1().Namespaces().Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{
		Name: "strict", Labels: map[string]string{"pod-security.kubernetes.io/enforce": "baseline"},
	}}, metav1.CreateOptions{})
	require.NoError(t, err)
	_, err = admin.CoreV1().ServiceAccounts("strict").Create(ctx, &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: "default"}}, metav1.CreateOptions{})
	require.NoError(t, err)
	_, err = admin.CoreV1().Pods("strict").Create(ctx, &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: "x"},
		Spec: corev1.PodSpec{
			Containers: []corev1.Container{{Name: "x", Image: "x"}},
			Volumes:    []corev1.Volume{{Name: "logs", VolumeSource: corev1.VolumeSource{HostPath: &corev1.HostPathVolumeSource{Path: "/var/log"}}}},
		},
	}, metav1.CreateOptions{})
	require.ErrorContains(t, err, "violates PodSecurity")

	require.NoError(t, DeleteNamespace(ctx, admin, "strict"))
	_, err = admin.CoreV1().Namespaces().Get(ctx, "strict", metav1.GetOptions{})
	require.True(t, apierrors.IsNotFound(err))
}
