package e2e

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"

	"github.com/eks-tenant-logs/eks-tenant-logs/e2e/cluster"
	"github.com/eks-tenant-logs/eks-tenant-logs/e2e/host"
	"github.com/eks-tenant-logs/eks-tenant-logs/e2e/node"
	"github.com/eks-tenant-logs/eks-tenant-logs/internal/controller"
	"github.com/eks-tenant-logs/eks-tenant-logs/internal/fakeaws"
	"github.com/eks-tenant-logs/eks-tenant-logs/internal/tenancy"
)

// release is where a controller of a test lives.
type release struct {
	c               *cluster.Cluster
	admin           kubernetes.Interface
	namespace, user string
}

const controllersUser = "system:serviceaccount:logs:eks-tenant-logs-provisioner"

// newRelease makes the release's namespace and gives the controller's service account exactly
// the rights that it is said to need.
func newRelease(t *testing.T) *release {
	c := startKubernetes(t)
	r := &release{c: c, admin: adminOf(c), namespace: "logs", user: controllersUser}
	createNamespace(t, r.admin, r.namespace, "")
	clusterwide, namespaced := controller.Rights("eks-tenant-logs")
	allow(t, r.admin, "controller", account(r.user), clusterwide...)
	ctx := within(t, 30*time.Second)
	_, err := r.admin.RbacV1().Roles(r.namespace).Create(ctx, &rbacv1.Role{ObjectMeta: metav1.ObjectMeta{Name: "controller"}, Rules: namespaced}, metav1.CreateOptions{})
	require.NoError(t, err)
	_, err = r.admin.RbacV1().RoleBindings(r.namespace).Create(ctx, &rbacv1.RoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: "controller"}, Subjects: []rbacv1.Subject{account(r.user)},
		RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: "controller"},
	}, metav1.CreateOptions{})
	require.NoError(t, err)
	return r
}

// running is a controller process.
type running struct {
	cmd  *exec.Cmd
	log  *logBuffer
	done chan struct{} // closed when it has ended
}

// start starts the real command as the release's service account.
func (r *release) start(t *testing.T, cw *node.CloudWatch, args ...string) *running {
	t.Helper()
	kubeconfig, err := r.c.Kubeconfig(r.user, "system:serviceaccounts", "system:serviceaccounts:logs", "system:authenticated")
	require.NoError(t, err)
	x := &running{log: newLog(t), done: make(chan struct{})}
	x.cmd = commandOf(t, cw, append([]string{"controller", "--kubeconfig", kubeconfig, "--release-namespace", r.namespace, trusting, "--metrics-address", "0", "--health-address", "0"}, args...)...)
	x.cmd.Stderr = x.log
	require.NoError(t, x.cmd.Start())
	go func(cmd *exec.Cmd) {
		_ = cmd.Wait() // how it ended is in its log
		close(x.done)
	}(x.cmd)
	t.Cleanup(func() { x.stop(t) })
	return x
}

// stop ends it as Kubernetes does.
func (x *running) stop(t *testing.T) {
	if x.cmd == nil {
		return
	}
	_ = x.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-x.done:
	case <-time.After(time.Minute):
		_ = x.cmd.Process.Kill()
		<-x.done
		t.Error("the controller did not end within a minute of SIGTERM")
	}
	x.cmd = nil
}

func (r *release) configMap(ctx context.Context, name string) map[string]string {
	m, err := r.admin.CoreV1().ConfigMaps(r.namespace).Get(ctx, name, metav1.GetOptions{})
	if err != nil {
		return nil
	}
	return m.Data
}

// entry is a tenant's line of the status; empty while there is none.
func (r *release) entry(ctx context.Context, tenant string) (e controller.Entry) {
	_ = json.Unmarshal([]byte(r.configMap(ctx, "eks-tenant-logs-status")[tenant]), &e)
	return e
}

// becomes waits until a tenant is in a state, and returns its line.
func (r *release) becomes(t *testing.T, tenant, state string) (e controller.Entry) {
	t.Helper()
	eventually(t, tenant+" becomes "+state, func(ctx context.Context) (bool, string) {
		e = r.entry(ctx, tenant)
		return string(e.State) == state, fmt.Sprintf("%+v", e)
	})
	return e
}

func (r *release) events(t *testing.T, namespace string) (reasons []string) {
	list, err := r.admin.CoreV1().Events(namespace).List(within(t, 30*time.Second), metav1.ListOptions{})
	require.NoError(t, err)
	for _, e := range list.Items {
		reasons = append(reasons, e.Reason)
	}
	return reasons
}

// A namespace is created in a real API server, and nothing else is done: its tenant's group,
// retention and role are there, its lines arrive, its role reads them, another's does not. It is
// deleted, and read access ends; made anew, it gets nothing.
func TestZeroTouchANamespaceIsAllATenantNeeds(t *testing.T) {
	cw, s := standIn(t, fakeaws.Config{Enforce: true})
	bootstrap(t, cw)
	r := newRelease(t)
	x := r.start(t, cw)
	eventually(t, "the controller says what it knows", func(ctx context.Context) (bool, string) {
		return r.configMap(ctx, "eks-tenant-logs-status") != nil, x.log.String()
	})

	began := time.Now()
	ns := createNamespace(t, r.admin, "tenant-acme", "")
	e := r.becomes(t, "acme", "ready")
	t.Logf("from the namespace's creation to its tenant being ready: %v", time.Since(began).Round(time.Millisecond))
	createNamespace(t, r.admin, "tenant-globex", "")
	createNamespace(t, r.admin, "team", "")
	r.becomes(t, "globex", "ready")
	require.Equal(t, 365, e.RetentionDays)
	require.Equal(t, map[string]string{"tenant-acme": string(ns.UID)}, e.Namespaces)
	require.Equal(t, "/eks/tenants/acme", e.Group)
	require.Contains(t, r.events(t, "tenant-acme"), "TenantReady")
	require.Empty(t, r.entry(within(t, time.Minute), "team").State, "a namespace that is no tenant's")

	h, err := startHost(t, host.Config{Env: cw.Env(), Outputs: []host.Output{{Workers: 2, Properties: options(cw, "auto_create_group", "off", "sts_endpoint", cw.Endpoint,
		"role_arn", "arn:aws:iam::123456789012:role/eks-tenant-logs/"+tenancy.ClusterRole("c1", cw.Region, "writer"))}}})
	require.NoError(t, err)
	require.NoError(t, h.Send(strings.Replace(tagOfA, "tenant-a_", "tenant-acme_", 1), record("#first")))
	require.NoError(t, h.Drain(within(t, time.Minute)))
	_, err = h.Stop(within(t, time.Minute))
	require.NoError(t, err)
	stream := ""
	for _, g := range s.Snapshot().Groups {
		if g.Name == "/eks/tenants/acme" && len(g.Streams) == 1 {
			stream = g.Streams[0].Name
		}
	}
	require.Len(t, s.Events("/eks/tenants/acme", stream), 1)
	reader := func(tenant string) string {
		return "arn:aws:iam::123456789012:role/eks-tenant-logs/" + tenancy.ReaderRole("c1", cw.Region, tenant)
	}
	mine := as(t, cw, reader("acme"))
	require.Equal(t, "yes", answer(reading["GetLogEvents"](t.Context(), mine, "/eks/tenants/acme", stream)))
	require.Equal(t, "AccessDeniedException", answer(reading["GetLogEvents"](t.Context(), as(t, cw, reader("globex")), "/eks/tenants/acme", stream)))

	// Another comes: nothing of the others is written.
	writes := changing(s)
	createNamespace(t, r.admin, "tenant-last", "")
	r.becomes(t, "last", "ready")
	require.Equal(t, 8, changing(s)-writes, "one tenant's, and nothing of the others'")

	// The command says the same of the cluster as the controller does.
	kubeconfig, err := r.c.Kubeconfig(r.user, "system:authenticated")
	require.NoError(t, err)
	told, code := provision(t, cw, "plan", trusting, "--kubeconfig", kubeconfig, "--release-namespace", r.namespace)
	require.Zero(t, code, "%+v", told)
	require.Len(t, told.Tenants, 3)

	// Deleted: read access ends, for sessions that are open as well, and the logs stay.
	require.NoError(t, cluster.DeleteNamespace(within(t, time.Minute), r.admin, "tenant-acme"))
	r.becomes(t, "acme", "retired")
	require.Equal(t, "AccessDeniedException", answer(reading["GetLogEvents"](t.Context(), mine, "/eks/tenants/acme", stream)))
	require.Len(t, s.Events("/eks/tenants/acme", stream), 1)

	// Made anew, by whomever: the name was used.
	createNamespace(t, r.admin, "tenant-acme", "")
	eventually(t, "the newcomer is told", func(context.Context) (bool, string) {
		got := r.events(t, "tenant-acme")
		return strings.Contains(strings.Join(got, " "), "TenantRefused"), fmt.Sprint(got, r.entry(context.Background(), "acme"))
	})
	require.Equal(t, "AccessDeniedException", answer(reading["GetLogEvents"](t.Context(), mine, "/eks/tenants/acme", stream)))
	require.Zero(t, s.CallCount("DeleteLogGroup")+s.CallCount("DeleteLogStream")+s.CallCount("DeleteRetentionPolicy"))
}

// The rights are all that is used and no more.
func TestTheControllersRightsAreFew(t *testing.T) {
	r := newRelease(t)
	ctx := within(t, time.Minute)
	createNamespace(t, r.admin, "tenant-acme", "")
	c := userOf(r.c, r.user, "system:authenticated")
	forbidden := map[string]func() error{
		"patch a namespace": func() error {
			_, err := c.CoreV1().Namespaces().Patch(ctx, "tenant-acme", types.MergePatchType, []byte(`{"metadata":{"labels":{"a":"b"}}}`), metav1.PatchOptions{})
			return err
		},
		"make a namespace": func() error {
			_, err := c.CoreV1().Namespaces().Create(ctx, namespace("tenant-x", ""), metav1.CreateOptions{})
			return err
		},
		"read secrets": func() error { _, err := c.CoreV1().Secrets("logs").List(ctx, metav1.ListOptions{}); return err },
		"make pods": func() error {
			_, err := c.CoreV1().Pods("logs").Create(ctx, &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "a"}}, metav1.CreateOptions{})
			return err
		},
		"read a tenant's ConfigMaps": func() error {
			_, err := c.CoreV1().ConfigMaps("tenant-acme").List(ctx, metav1.ListOptions{})
			return err
		},
		"change another ConfigMap": func() error {
			_, err := c.CoreV1().ConfigMaps("logs").Update(ctx, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "eks-tenant-logs-exceptions"}}, metav1.UpdateOptions{})
			return err
		},
		"delete its own": func() error {
			return c.CoreV1().ConfigMaps("logs").Delete(ctx, "eks-tenant-logs-registry", metav1.DeleteOptions{})
		},
		"give itself rights": func() error {
			_, err := c.RbacV1().Roles("logs").List(ctx, metav1.ListOptions{})
			return err
		},
	}
	for what, try := range forbidden {
		require.True(t, apierrors.IsForbidden(try()), what)
	}
}

// Two controllers: one leads, and when it ends the other goes on from what was published. The
// registry is what the nodes' plugin reads; its generation only rises.
func TestTwoControllersOneLeadsAndTheRegistryGoesOn(t *testing.T) {
	cw, s := standIn(t, fakeaws.Config{Enforce: true})
	bootstrap(t, cw)
	r := newRelease(t)
	args := []string{"--tenant-source", "registry"}
	first := r.start(t, cw, args...)
	eventually(t, "the first leads", func(context.Context) (bool, string) {
		return strings.Contains(first.log.String(), "Successfully acquired lease"), first.log.String()
	})
	second := r.start(t, cw, args...)
	createNamespace(t, r.admin, "blue", "acme")
	createNamespace(t, r.admin, "unlabelled", "")
	r.becomes(t, "acme", "ready")
	published := func(ctx context.Context) *tenancy.Registry {
		g, err := tenancy.ParseRegistry([]byte(r.configMap(ctx, "eks-tenant-logs-registry")["tenants.yaml"]), tenancy.RegistryOptions{Mode: tenancy.ModeRegistry})
		if err != nil {
			return nil
		}
		return g
	}
	lists := func(ns, tenant string) *tenancy.Registry {
		t.Helper()
		var g *tenancy.Registry
		eventually(t, ns+" is published as "+tenant+"'s", func(ctx context.Context) (bool, string) {
			if g = published(ctx); g == nil {
				return false, "no registry"
			}
			_, is := g.Resolve(ns)
			return is != nil && is.Name == tenant, fmt.Sprint(r.configMap(ctx, "eks-tenant-logs-registry"))
		})
		return g
	}
	before := lists("blue", "acme")
	kind, _ := before.Resolve("unlabelled")
	require.Equal(t, tenancy.KindPending, kind)
	require.NotContains(t, second.log.String(), "Successfully acquired lease")
	require.Equal(t, 1+1+1, s.Calls()[fakeaws.CallKey{Operation: "CreateLogGroup", Result: "OK"}]-1, "acme's two, and the platform's two of bootstrap: each once")

	first.stop(t)
	createNamespace(t, r.admin, "green", "globex")
	r.becomes(t, "globex", "ready")
	after := lists("green", "globex")
	require.Contains(t, second.log.String(), "Successfully acquired lease")
	require.Greater(t, after.Generation, before.Generation)
	require.NoError(t, before.Replaceable(after))

	// The plugin takes what was published.
	file := filepath.Join(t.TempDir(), "tenants.yaml")
	require.NoError(t, os.WriteFile(file, []byte(r.configMap(within(t, time.Minute), "eks-tenant-logs-registry")["tenants.yaml"]), 0o600))
	h, err := startHost(t, host.Config{Env: cw.Env(), Outputs: []host.Output{{Workers: 1, Properties: options(cw, "auto_create_group", "off", "tenant_source", "registry", "tenants_file", file)}}})
	require.NoError(t, err)
	require.NoError(t, h.Send(strings.Replace(tagOfA, "tenant-a_", "blue_", 1), record("#blue")))
	require.NoError(t, h.Drain(within(t, time.Minute)))
	_, err = h.Stop(within(t, time.Minute))
	require.NoError(t, err)
	require.Equal(t, 1, s.Accepted())
}

// The controller tells Prometheus and the kubelet how it is.
func TestTheControllerTellsHowItIs(t *testing.T) {
	cw, _ := standIn(t, fakeaws.Config{Enforce: true})
	bootstrap(t, cw)
	r := newRelease(t)
	metrics, health := freeAddress(t), freeAddress(t)
	createNamespace(t, r.admin, "tenant-acme", "")
	r.start(t, cw, "--metrics-address", metrics, "--health-address", health)
	r.becomes(t, "acme", "ready")
	for _, path := range []string{"/healthz", "/readyz"} {
		answer, err := http.Get("http://" + health + path)
		require.NoError(t, err)
		answer.Body.Close()
		require.Equal(t, http.StatusOK, answer.StatusCode)
	}
	answer, err := http.Get("http://" + metrics + "/metrics")
	require.NoError(t, err)
	defer answer.Body.Close()
	found := map[string]string{}
	for lines := bufio.NewScanner(answer.Body); lines.Scan(); {
		if name, value, ok := strings.Cut(lines.Text(), " "); ok {
			found[name] = value
		}
	}
	require.Equal(t, "1", found[`tenantlogs_controller_tenants{state="ready"}`])
	require.Equal(t, "0", found[`tenantlogs_controller_refused_namespaces`])
	require.NotEmpty(t, found[`tenantlogs_controller_last_sync_timestamp_seconds`])
	require.NotEmpty(t, found[`tenantlogs_controller_passes_total{result="ok",tenants="all"}`])
}

// freeAddress is a loopback address whose port was free a moment ago.
func freeAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer l.Close()
	return l.Addr().String()
}
