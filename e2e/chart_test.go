package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"sigs.k8s.io/yaml"

	"github.com/eks-tenant-logs/eks-tenant-logs/e2e/cluster"
	"github.com/eks-tenant-logs/eks-tenant-logs/e2e/helm"
	"github.com/eks-tenant-logs/eks-tenant-logs/e2e/node"
	"github.com/eks-tenant-logs/eks-tenant-logs/internal/fakeaws"
)

// The chart as Helm installs it: in a real API server, its configuration in a real Fluent Bit,
// its arguments in the real controller.

const (
	chartFolder = "../charts/eks-tenant-logs"
	chartSpace  = "logging"
)

// runHelm runs the Helm that make chart-tools builds.
func runHelm(t *testing.T, kubeconfig string, args ...string) (string, error) {
	t.Helper()
	binary, err := helm.Find("..")
	if err != nil {
		if os.Getenv("E2E_ENGINE") == "fluent-bit" {
			t.Fatal(err)
		}
		t.Skipf("%v; NOT tested here", err)
	}
	return helm.Run(within(t, 2*time.Minute), binary, t.TempDir(), kubeconfig, args...)
}

// forTheChart is a real API server, its administrator and the kubeconfig of that; with neither
// Helm nor the server the test is skipped.
func forTheChart(t *testing.T) (c *cluster.Cluster, admin kubernetes.Interface, kubeconfig string) {
	t.Helper()
	_, err := runHelm(t, "", "version")
	require.NoError(t, err)
	c = startKubernetes(t)
	kubeconfig, err = c.Kubeconfig(cluster.Admin, "system:masters")
	require.NoError(t, err)
	return c, adminOf(c), kubeconfig
}

// install is helm install of a release with the least values, and what set says, each as --set.
func install(t *testing.T, kubeconfig, name, space string, set ...string) error {
	t.Helper()
	args := []string{"install", name, chartFolder, "--namespace", space, "--set", "clusterName=c1,aws.region=us-east-1"}
	for _, s := range set {
		args = append(args, "--set", s)
	}
	_, err := runHelm(t, kubeconfig, args...)
	return err
}

// rendered is the object that helm template makes, of one kind and name's end.
func rendered(t *testing.T, kind, suffix string, into any, args ...string) {
	t.Helper()
	out, err := runHelm(t, "", append([]string{"template", "eks-tenant-logs", chartFolder, "--namespace", chartSpace, "--set", "clusterName=c1,aws.region=us-east-1"}, args...)...)
	require.NoError(t, err)
	all, err := helm.Objects(out)
	require.NoError(t, err)
	i := slices.IndexFunc(all, func(o helm.Object) bool { return o.Kind == kind && strings.HasSuffix(o.Name, suffix) })
	require.GreaterOrEqual(t, i, 0, "the chart renders no %s …%s", kind, suffix)
	require.NoError(t, yaml.UnmarshalStrict([]byte(all[i].Text), into))
}

func TestTheChartIsInstalledUpgradedRolledBackAndRemoved(t *testing.T) {
	c, admin, kubeconfig := forTheChart(t)
	ctx := within(t, 5*time.Minute)
	space := namespace(chartSpace, "")
	space.Labels = map[string]string{"pod-security.kubernetes.io/enforce": "privileged"}
	_, err := admin.CoreV1().Namespaces().Create(ctx, space, metav1.CreateOptions{})
	require.NoError(t, err)
	values := []string{"--namespace", chartSpace, "--set", "clusterName=c1,aws.region=us-east-1,tenants.source=registry", "--set", "admissionPolicy.allowedGroups={platform}"}
	_, err = runHelm(t, kubeconfig, append([]string{"install", "eks-tenant-logs", chartFolder}, values...)...)
	require.NoError(t, err)

	// What is there.
	manifest, err := runHelm(t, kubeconfig, "get", "manifest", "eks-tenant-logs", "--namespace", chartSpace)
	require.NoError(t, err)
	installed, err := helm.Objects(manifest)
	require.NoError(t, err)
	var objects []string
	for _, o := range installed {
		objects = append(objects, o.Kind+" "+strings.TrimPrefix(o.Namespace+"/"+o.Name, "/"))
	}
	slices.Sort(objects)
	t.Logf("installed:\n%s", strings.Join(objects, "\n"))
	ds, err := admin.AppsV1().DaemonSets(chartSpace).Get(ctx, "eks-tenant-logs-fluent-bit", metav1.GetOptions{})
	require.NoError(t, err)
	deployment, err := admin.AppsV1().Deployments(chartSpace).Get(ctx, "eks-tenant-logs-provisioner", metav1.GetOptions{})
	require.NoError(t, err)
	security, err := json.Marshal([]any{ds.Spec.Template.Spec.SecurityContext, ds.Spec.Template.Spec.Containers[0].SecurityContext})
	require.NoError(t, err)
	t.Logf("the agent's security context, as the API server has it: %s", security)

	// Its pods, asked of the API server's admission: the agent's need the level privileged for its
	// hostPath, the provisioner's pass restricted.
	restricted := namespace("restricted", "")
	restricted.Labels = map[string]string{"pod-security.kubernetes.io/enforce": "restricted"}
	_, err = admin.CoreV1().Namespaces().Create(ctx, restricted, metav1.CreateOptions{})
	require.NoError(t, err)
	admitted := func(in string, template corev1.PodTemplateSpec) error {
		pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "asked", Namespace: in, Labels: template.Labels}, Spec: template.Spec}
		_, err := admin.CoreV1().ServiceAccounts(in).Create(ctx, &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: template.Spec.ServiceAccountName}}, metav1.CreateOptions{})
		if in != chartSpace {
			require.NoError(t, err)
		}
		_, err = admin.CoreV1().Pods(in).Create(ctx, pod, metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
		return err
	}
	require.NoError(t, admitted(chartSpace, ds.Spec.Template))
	require.NoError(t, admitted(chartSpace, deployment.Spec.Template))
	require.NoError(t, admitted("restricted", deployment.Spec.Template))
	err = admitted("restricted", ds.Spec.Template)
	require.ErrorContains(t, err, "violates PodSecurity")
	require.ErrorContains(t, err, "hostPath")
	require.NotContains(t, err.Error(), "allowPrivilegeEscalation")
	require.NotContains(t, err.Error(), "capabilities")
	require.NotContains(t, err.Error(), "seccompProfile")

	// Who may name a tenant.
	for _, user := range []string{"anybody", "lead"} {
		allow(t, admin, "namespaces-"+user, account("system:serviceaccount:x:"+user), everythingOnNamespaces)
	}
	anybody := userOf(c, "system:serviceaccount:x:anybody", "system:authenticated")
	lead := userOf(c, "system:serviceaccount:x:lead", "platform", "system:authenticated")
	eventually(t, "the admission policy is in force", func(context.Context) (bool, string) {
		_, err := anybody.CoreV1().Namespaces().Create(ctx, namespace("claims", "acme"), metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
		return err != nil && strings.Contains(err.Error(), "ValidatingAdmissionPolicy"), fmt.Sprint(err)
	})
	_, err = lead.CoreV1().Namespaces().Create(ctx, namespace("acme-prod", "acme"), metav1.CreateOptions{})
	require.NoError(t, err)
	_, err = lead.CoreV1().Namespaces().Patch(ctx, "acme-prod", types.MergePatchType, []byte(`{"metadata":{"labels":{"eks-tenant-logs/tenant":"globex"}}}`), metav1.PatchOptions{})
	require.ErrorContains(t, err, "ValidatingAdmissionPolicy", "a namespace does not change its tenant")
	_, err = lead.CoreV1().Namespaces().Patch(ctx, chartSpace, types.MergePatchType, []byte(`{"metadata":{"labels":{"eks-tenant-logs/tenant":"acme"}}}`), metav1.PatchOptions{})
	require.ErrorContains(t, err, "ValidatingAdmissionPolicy", "the release's namespace is nobody's")

	// Another configuration rolls the pods; going back brings the old one back.
	sum := func() string {
		ds, err := admin.AppsV1().DaemonSets(chartSpace).Get(ctx, "eks-tenant-logs-fluent-bit", metav1.GetOptions{})
		require.NoError(t, err)
		return ds.Spec.Template.Annotations["checksum/config"]
	}
	first := sum()
	require.NotEmpty(t, first)
	upgrade := append([]string{"upgrade", "eks-tenant-logs", chartFolder}, values...)
	_, err = runHelm(t, kubeconfig, upgrade...)
	require.NoError(t, err)
	require.Equal(t, first, sum(), "the same values roll nothing")
	_, err = runHelm(t, kubeconfig, append(upgrade, "--set", "fluentBit.config.flush=5")...)
	require.NoError(t, err)
	require.NotEqual(t, first, sum())
	_, err = runHelm(t, kubeconfig, "rollback", "eks-tenant-logs", "1", "--namespace", chartSpace)
	require.NoError(t, err)
	require.Equal(t, first, sum())

	_, err = runHelm(t, kubeconfig, "uninstall", "eks-tenant-logs", "--namespace", chartSpace)
	require.NoError(t, err)
	var left []string
	for _, o := range installed {
		if o.Kind == "ConfigMap" {
			if _, err := admin.CoreV1().ConfigMaps(chartSpace).Get(ctx, o.Name, metav1.GetOptions{}); err == nil {
				left = append(left, o.Name)
			}
		}
	}
	require.Empty(t, left)
	policies, err := admin.AdmissionregistrationV1().ValidatingAdmissionPolicies().List(ctx, metav1.ListOptions{LabelSelector: "app.kubernetes.io/instance=eks-tenant-logs"})
	require.NoError(t, err)
	roles, err := admin.RbacV1().ClusterRoles().List(ctx, metav1.ListOptions{LabelSelector: "app.kubernetes.io/instance=eks-tenant-logs"})
	require.NoError(t, err)
	workloads, err := admin.AppsV1().DaemonSets(chartSpace).List(ctx, metav1.ListOptions{})
	require.NoError(t, err)
	require.Empty(t, len(policies.Items)+len(roles.Items)+len(workloads.Items))
}

// The controller as the chart starts it, with the rights that the chart gives it and no others:
// a namespace becomes a tenant.
func TestTheChartsControllerSetsATenantUpWithTheRightsTheChartGivesIt(t *testing.T) {
	c, admin, kubeconfig := forTheChart(t)
	cw, _ := standIn(t, fakeaws.Config{Enforce: true})
	bootstrap(t, cw)
	r := &release{c: c, admin: admin, namespace: chartSpace, user: "system:serviceaccount:" + chartSpace + ":eks-tenant-logs-provisioner"}
	createNamespace(t, r.admin, chartSpace, "")
	require.NoError(t, install(t, kubeconfig, "eks-tenant-logs", chartSpace, "tenants.source=registry", "provisioner.readerRoles.trust.principals={arn:aws:iam::123456789012:root}", "admissionPolicy.enabled=false"))
	d, err := r.admin.AppsV1().Deployments(chartSpace).Get(within(t, time.Minute), "eks-tenant-logs-provisioner", metav1.GetOptions{})
	require.NoError(t, err)
	health, err := node.FreeAddress()
	require.NoError(t, err)
	var args []string
	for _, arg := range d.Spec.Template.Spec.Containers[0].Args[1:] {
		switch {
		case strings.HasPrefix(arg, "--metrics-address"): // a port of the pod
		case strings.HasPrefix(arg, "--health-address"):
			args = append(args, "--health-address="+health)
		default:
			args = append(args, strings.ReplaceAll(arg, "$$(", "$(")) // as the kubelet does
		}
	}
	require.Equal(t, "controller", d.Spec.Template.Spec.Containers[0].Args[0])
	x := r.start(t, cw, args...)
	requireListens(t, d.Spec.Template.Spec.Containers[0], "http://"+health)
	ns := createNamespace(t, r.admin, "blue", "acme")
	e := r.becomes(t, "acme", "ready")
	require.Equal(t, map[string]string{"blue": string(ns.UID)}, e.Namespaces)
	eventually(t, "the registry is published", func(ctx context.Context) (bool, string) {
		m := r.configMap(ctx, "eks-tenant-logs-registry")
		return strings.Contains(m["tenants.yaml"], "blue"), fmt.Sprint(m)
	})
	x.stop(t)
	require.NotContains(t, x.log.String(), "forbidden")

	// plan, beside it, decides as the controller does: a namespace that has a tenant keeps it, and
	// the release's own is nobody's.
	for _, ns := range []string{"blue", chartSpace} {
		_, err = r.admin.CoreV1().Namespaces().Patch(within(t, time.Minute), ns, types.MergePatchType, []byte(`{"metadata":{"labels":{"eks-tenant-logs/tenant":"globex"}}}`), metav1.PatchOptions{})
		require.NoError(t, err)
	}
	out, said, code := runCommand(t, cw, "plan", "--kubeconfig", kubeconfig, "--release-namespace", chartSpace, "--tenant-source", "registry", trusting)
	require.Zero(t, code, "%s\n%s", out, said)
	require.Contains(t, string(said), "namespace blue is tenant acme's, and it would become tenant globex's: a namespace does not change its tenant")
	require.Contains(t, string(said), "namespace logging is the platform's, never a tenant's")
	require.NotContains(t, string(out), "globex")
}

// agent is a real Fluent Bit with the configuration that the chart renders; the paths of the
// node and of the container are folders of the test.
func agent(t *testing.T, e node.Engine, cw *node.CloudWatch, n *node.Node, state, tenants string, args ...string) (*exec.Cmd, *logBuffer) {
	t.Helper()
	return agentWith(t, e, cw, n, state, tenants, nil, args...)
}

// agentWith replaces more of the configuration: keys by values, each of which must be there.
func agentWith(t *testing.T, e node.Engine, cw *node.CloudWatch, n *node.Node, state, tenants string, more map[string]string, args ...string) (*exec.Cmd, *logBuffer) {
	t.Helper()
	return newAgent(t, e, cw, n, state, tenants, more, args...).start(t)
}

// chartAgent is what the chart's DaemonSet starts on a node, over and over.
type chartAgent struct {
	args, env []string
	container corev1.Container
	metrics   string // the plugin's own address
	fluentBit string // Fluent Bit's own
}

func newAgent(t *testing.T, e node.Engine, cw *node.CloudWatch, n *node.Node, state, tenants string, more map[string]string, args ...string) *chartAgent {
	t.Helper()
	var m corev1.ConfigMap
	rendered(t, "ConfigMap", "-fluent-bit", &m, args...)
	var ds appsv1.DaemonSet
	rendered(t, "DaemonSet", "-fluent-bit", &ds, args...)
	metrics, err := node.FreeAddress()
	require.NoError(t, err)
	_, port, _ := strings.Cut(metrics, ":")
	other, err := node.FreeAddress()
	require.NoError(t, err)
	_, otherPort, _ := strings.Cut(other, ":")
	text := m.Data["fluent-bit.yaml"]
	require.NotEmpty(t, text)
	replace := func(old, with string) {
		require.Contains(t, text, old)
		text = strings.ReplaceAll(text, old, with)
	}
	replace("/var/log/", n.Root+"/var/log/")
	replace("/state/", state+"/")
	replace("/tenants/tenants.yaml", tenants)
	replace("kube.var.log.pods.", node.FluentBit{}.TagPrefix(n, node.Pods))
	replace(`auto_create_group: "off"`, `auto_create_group: "on"`) // here is no provisioner
	replace("http_port: 2020", "http_port: "+otherPort)
	replace(":2021", "127.0.0.1:"+port)
	replace(`      region: "us-east-1"`, `      region: "us-east-1"`+"\n      endpoint: "+cw.Endpoint)
	for old, with := range more {
		replace(old, with)
	}
	file := filepath.Join(t.TempDir(), "fluent-bit.yaml")
	require.NoError(t, os.WriteFile(file, []byte(text), 0o600))
	fb, ok := e.(node.FluentBit)
	require.True(t, ok)
	a := &chartAgent{args: []string{fb.Binary, "-e", pluginPath(t), "-c", file}, container: ds.Spec.Template.Spec.Containers[0], metrics: metrics, fluentBit: other}
	check := exec.CommandContext(within(t, time.Minute), a.args[0], append(a.args[1:], "--dry-run")...) //nolint:gosec // a Fluent Bit
	check.Env = append(os.Environ(), cw.Env()...)
	out, err := check.CombinedOutput()
	require.NoError(t, err, string(out))
	a.env = append(append(os.Environ(), "NODE_NAME=node-1"), cw.Env()...)
	for _, v := range ds.Spec.Template.Spec.Containers[0].Env {
		if v.Value != "" {
			a.env = append(a.env, v.Name+"="+v.Value)
		}
	}
	return a
}

// start starts it once.
func (a *chartAgent) start(t *testing.T) (*exec.Cmd, *logBuffer) {
	t.Helper()
	log := newLog(t)
	cmd := exec.CommandContext(t.Context(), a.args[0], a.args[1:]...) //nolint:gosec // a Fluent Bit
	cmd.Env = a.env
	cmd.Stdout, cmd.Stderr = log, log
	require.NoError(t, cmd.Start())
	return cmd, log
}

// requireListens waits for a container's probes to be answered, as early as the kubelet asks for
// the first time: a failure then is an event of type Warning at each start.
func requireListens(t *testing.T, c corev1.Container, address string) {
	t.Helper()
	began := time.Now()
	for _, p := range []*corev1.Probe{c.StartupProbe, c.ReadinessProbe, c.LivenessProbe} {
		require.NotEmpty(t, p.HTTPGet.Path)
		require.Eventually(t, func() bool {
			resp, err := http.Get(address + p.HTTPGet.Path)
			if err != nil {
				return false
			}
			resp.Body.Close()
			return resp.StatusCode == http.StatusOK
		}, 30*time.Second, 10*time.Millisecond, "%s", p.HTTPGet.Path)
	}
	took := time.Since(began)
	t.Logf("container %s answers its probes after %v", c.Name, took.Round(time.Millisecond))
	if first := time.Duration(c.StartupProbe.InitialDelaySeconds) * time.Second; took > first && !raceEnabled {
		t.Errorf("the kubelet asks after %v", first)
	}
}

// terminate ends it as the kubelet does.
func terminate(t *testing.T, cmd *exec.Cmd) {
	t.Helper()
	require.NoError(t, cmd.Process.Signal(syscall.SIGTERM))
	require.NoError(t, cmd.Wait())
}

// Two versions of the configuration, one after the other over the same state, as an upgrade
// rolls a pod, while lines are written: each arrives once, in its tenant's group.
func TestTheChartsConfigurationShipsEachLineOnceAlsoOverAnUpgrade(t *testing.T) {
	e := onFluentBit(t)
	cw, s := standIn(t, fakeaws.Config{Latency: 5 * time.Millisecond})
	n := newNode(t)
	state := t.TempDir()
	tenants := filepath.Join(t.TempDir(), "tenants.yaml")
	require.NoError(t, os.WriteFile(tenants, []byte("version: 1\n"), 0o600))
	want := map[string]int{}
	own := node.Pod{Namespace: chartSpace, Name: "eks-tenant-logs-fluent-bit-x7k2p", Container: "fluent-bit"}
	require.NoError(t, n.Write(own, "what the agent says of itself #own"))
	writePhase(t, n, 0, 6, 300, want)
	cmd, _ := agent(t, e, cw, n, state, tenants)
	require.Eventually(t, arrived(s, len(want)), 60*time.Second, 50*time.Millisecond)
	writePhase(t, n, 1, 6, 300, want)
	require.Eventually(t, arrived(s, 6*300+1), 60*time.Second, time.Millisecond)
	terminate(t, cmd) // somewhere in the second phase
	writePhase(t, n, 2, 6, 300, want)
	cmd, log := agent(t, e, cw, n, state, tenants, "--set", "fluentBit.config.flush=2,fluentBit.config.workers=2")
	require.Eventually(t, arrived(s, len(want)), 60*time.Second, 50*time.Millisecond, "%s", log)
	terminate(t, cmd)
	requireOnce(t, want, numbers(t, s))
	require.Equal(t, len(want), in(t, s, "/eks/tenants/"))
	for _, g := range s.Groups() {
		for _, st := range g.Streams {
			require.NotContains(t, st.Name, "fluent-bit", "its own lines are not fed back")
		}
	}
}

// The first look of the kubelet finds the agent listening.
func TestTheAgentAnswersItsProbesBeforeTheKubeletAsks(t *testing.T) {
	e := onFluentBit(t)
	cw, _ := standIn(t, fakeaws.Config{})
	tenants := filepath.Join(t.TempDir(), "tenants.yaml")
	require.NoError(t, os.WriteFile(tenants, []byte("version: 1\n"), 0o600))
	a := newAgent(t, e, cw, newNode(t), t.TempDir(), tenants, nil)
	cmd, _ := a.start(t)
	requireListens(t, a.container, "http://"+a.metrics)
	terminate(t, cmd)
}

// With the registry, an agent may be up before it is published.
func TestTheChartsConfigurationStartsBeforeTheRegistryIsThere(t *testing.T) {
	e := onFluentBit(t)
	cw, s := standIn(t, fakeaws.Config{})
	n := newNode(t)
	tenants := filepath.Join(t.TempDir(), "tenants.yaml")
	want := map[string]int{}
	writePhase(t, n, 0, 3, 10, want)
	cmd, log := agent(t, e, cw, n, t.TempDir(), tenants, "--set", "tenants.source=registry")
	require.Eventually(t, arrived(s, len(want)), 60*time.Second, 50*time.Millisecond, "%s", log)
	require.Equal(t, len(want), in(t, s, "/eks/quarantine/_pending"))
	require.NoError(t, os.WriteFile(tenants, []byte("version: 1\ngeneration: 1\ntenants: {t0: {namespaces: [tenant-t0]}, t1: {namespaces: [tenant-t1]}, t2: {namespaces: [tenant-t2]}}\n"), 0o600))
	require.Eventually(t, func() bool { return strings.Contains(log.String(), "tenants_file reloaded") }, 60*time.Second, 50*time.Millisecond)
	writePhase(t, n, 1, 3, 10, want)
	require.Eventually(t, arrived(s, len(want)), 60*time.Second, 50*time.Millisecond, "%s", log)
	terminate(t, cmd)
	requireOnce(t, want, numbers(t, s))
	require.Equal(t, 30, in(t, s, "/eks/tenants/"))
}
