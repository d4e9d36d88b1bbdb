package e2e

import (
	"context"
	"encoding/json"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	applycorev1 "k8s.io/client-go/applyconfigurations/core/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/eks-tenant-logs/eks-tenant-logs/e2e/cluster"
	"github.com/eks-tenant-logs/eks-tenant-logs/internal/controller/admission"
)

// everythingOnNamespaces are rights that RBAC alone would let hijack any tenant.
var everythingOnNamespaces = rbacv1.PolicyRule{
	APIGroups: []string{""}, Resources: []string{"namespaces", "namespaces/status", "namespaces/finalize"},
	Verbs: []string{"get", "list", "create", "update", "patch", "delete"},
}

// hijack is a cluster with the policy, and who acts in it.
type hijack struct {
	admin kubernetes.Interface // system:masters, and no editor
	// mallory may do everything with namespaces, as far as RBAC goes; editor as well, and is
	// in the group that names tenants; robot is the service account that may.
	mallory, editor, robot kubernetes.Interface
	malloryConfig          *rest.Config
}

func startHijack(t *testing.T, o admission.Options) hijack {
	c := startKubernetes(t)
	h := hijack{
		admin: adminOf(c), mallory: userOf(c, "mallory", "developers"), editor: userOf(c, "tom", admission.DefaultGroup),
		robot: userOf(c, "system:serviceaccount:logs:onboarding"), malloryConfig: c.Config("mallory", "developers"),
	}
	allow(t, h.admin, "developers", members("developers"), everythingOnNamespaces)
	allow(t, h.admin, "editors", members(admission.DefaultGroup), everythingOnNamespaces)
	allow(t, h.admin, "robots", account("system:serviceaccount:logs:onboarding"), everythingOnNamespaces)
	// These stand before the policy comes.
	createNamespace(t, h.admin, "legacy-bad", "Not.A.Label")
	h.apply(t, o)
	return h
}

// apply puts the policy in force, and waits until it is: the API server takes a moment.
func (h hijack) apply(t *testing.T, o admission.Options) {
	o.EditorGroups, o.EditorUsers = []string{admission.DefaultGroup}, []string{"system:serviceaccount:logs:onboarding"}
	o.Reserved = append(admission.DefaultReserved(), "logs")
	p, b, err := admission.Render(o)
	require.NoError(t, err)
	ctx := within(t, time.Minute)
	_, err = h.admin.AdmissionregistrationV1().ValidatingAdmissionPolicies().Create(ctx, p, metav1.CreateOptions{})
	require.NoError(t, err)
	_, err = h.admin.AdmissionregistrationV1().ValidatingAdmissionPolicyBindings().Create(ctx, b, metav1.CreateOptions{})
	require.NoError(t, err)
	probe := namespace("probe", "probe")
	if o.Prefix != "" {
		probe = namespace(o.Prefix+"probe", "")
	}
	eventually(t, "the policy is in force", func(ctx context.Context) (bool, string) {
		_, err := h.mallory.CoreV1().Namespaces().Create(ctx, probe, metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
		return refused(err), "mallory may still make it"
	})
}

func (h hijack) tenant(t *testing.T, name string) (string, bool) {
	ns, err := h.admin.CoreV1().Namespaces().Get(within(t, 30*time.Second), name, metav1.GetOptions{})
	require.NoError(t, err)
	value, set := ns.Labels[tenantLabel]
	return value, set
}

// ways are all ways to write a namespace's label through the API; nil removes it.
var ways = map[string]func(ctx context.Context, client kubernetes.Interface, name string, tenant *string) error{
	"replace": func(ctx context.Context, client kubernetes.Interface, name string, tenant *string) error {
		ns, err := relabelled(ctx, client, name, tenant)
		if err != nil {
			return err
		}
		_, err = client.CoreV1().Namespaces().Update(ctx, ns, metav1.UpdateOptions{})
		return err
	},
	"replace the status": func(ctx context.Context, client kubernetes.Interface, name string, tenant *string) error {
		ns, err := relabelled(ctx, client, name, tenant)
		if err != nil {
			return err
		}
		_, err = client.CoreV1().Namespaces().UpdateStatus(ctx, ns, metav1.UpdateOptions{})
		return err
	},
	"finalize": func(ctx context.Context, client kubernetes.Interface, name string, tenant *string) error {
		ns, err := relabelled(ctx, client, name, tenant)
		if err != nil {
			return err
		}
		_, err = client.CoreV1().Namespaces().Finalize(ctx, ns, metav1.UpdateOptions{})
		return err
	},
	"merge patch":           patching(types.MergePatchType, mergePatch),
	"strategic merge patch": patching(types.StrategicMergePatchType, mergePatch),
	"JSON patch":            patching(types.JSONPatchType, jsonPatch),
	"patch of the status":   patching(types.MergePatchType, mergePatch, "status"),
	"server-side apply":     applying(metav1.ApplyOptions{FieldManager: "editor", Force: true}),
}

func relabelled(ctx context.Context, client kubernetes.Interface, name string, tenant *string) (*corev1.Namespace, error) {
	ns, err := client.CoreV1().Namespaces().Get(ctx, name, metav1.GetOptions{})
	if err != nil {
		return nil, err
	}
	delete(ns.Labels, tenantLabel)
	if tenant != nil {
		ns.Labels[tenantLabel] = *tenant
	}
	return ns, nil
}

func patching(kind types.PatchType, body func(tenant *string) any, subresources ...string) func(context.Context, kubernetes.Interface, string, *string) error {
	return func(ctx context.Context, client kubernetes.Interface, name string, tenant *string) error {
		data, err := json.Marshal(body(tenant))
		if err != nil {
			return err
		}
		_, err = client.CoreV1().Namespaces().Patch(ctx, name, kind, data, metav1.PatchOptions{}, subresources...)
		return err
	}
}

func mergePatch(tenant *string) any {
	return map[string]any{"metadata": map[string]any{"labels": map[string]any{tenantLabel: tenant}}}
}

func jsonPatch(tenant *string) any {
	const path = "/metadata/labels/eks-tenant-logs~1tenant"
	if tenant == nil {
		return []any{map[string]any{"op": "remove", "path": path}}
	}
	return []any{map[string]any{"op": "add", "path": path, "value": *tenant}}
}

// applying owns the label as the field manager that set it, so that leaving it out
// removes it.
func applying(o metav1.ApplyOptions) func(context.Context, kubernetes.Interface, string, *string) error {
	return func(ctx context.Context, client kubernetes.Interface, name string, tenant *string) error {
		ns := applycorev1.Namespace(name)
		if tenant != nil {
			ns = ns.WithLabels(map[string]string{tenantLabel: *tenant})
		}
		_, err := client.CoreV1().Namespaces().Apply(ctx, ns, o)
		return err
	}
}

func to(s string) *string { return &s }

func TestNobodyButThoseNamedNamesATenant(t *testing.T) {
	h := startHijack(t, admission.Options{Name: "tenants"})
	ctx := within(t, 3*time.Minute)
	createNamespace(t, h.mallory, "plain", "")
	const only = "only these set it: eks-tenant-logs-tenant-admins, system:serviceaccount:logs:onboarding"

	creations := map[string]func(client kubernetes.Interface) error{
		"create": func(client kubernetes.Interface) error {
			_, err := client.CoreV1().Namespaces().Create(ctx, namespace("mine", "victim"), metav1.CreateOptions{})
			return err
		},
		"create with a generated name": func(client kubernetes.Interface) error {
			ns := namespace("", "victim")
			ns.GenerateName = "mine-"
			_, err := client.CoreV1().Namespaces().Create(ctx, ns, metav1.CreateOptions{})
			return err
		},
		"server-side apply": func(client kubernetes.Interface) error {
			return ways["server-side apply"](ctx, client, "mine", to("victim"))
		},
	}
	for name, create := range creations {
		err := create(h.mallory)
		require.True(t, refused(err), "%s: %v", name, err)
		require.ErrorContains(t, err, only, name)
		require.True(t, refused(create(h.admin)), "%s: system:masters is no group that names tenants", name)
	}
	for name, way := range ways {
		for who, client := range map[string]kubernetes.Interface{"mallory": h.mallory, "admin": h.admin} {
			err := way(ctx, client, "plain", to("victim"))
			require.True(t, refused(err), "%s by %s: %v", name, who, err)
			require.ErrorContains(t, err, only, name)
			_, set := h.tenant(t, "plain")
			require.False(t, set, "%s by %s", name, who)
		}
	}

	// Those named do, in every way, and each way works: none above was refused for another reason.
	for name, way := range ways {
		for who, client := range map[string]kubernetes.Interface{"editor": h.editor, "robot": h.robot} {
			ns, err := h.mallory.CoreV1().Namespaces().Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{GenerateName: "fresh-"}}, metav1.CreateOptions{})
			require.NoError(t, err)
			require.NoError(t, way(ctx, client, ns.Name, to("acme")), "%s by %s", name, who)
			got, _ := h.tenant(t, ns.Name)
			require.Equal(t, "acme", got, "%s by %s", name, who)
		}
	}

	// A key that only looks like it is another key, and names nobody.
	_, err := h.mallory.CoreV1().Namespaces().Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{
		Name: "look-alike", Labels: map[string]string{"eks-tenant-logs/Tenant": "victim", "eks-tenant-logs.tenant": "victim"},
	}}, metav1.CreateOptions{})
	require.NoError(t, err)

	// To borrow the group is a right of its own.
	borrowed := rest.CopyConfig(h.malloryConfig)
	borrowed.Impersonate = rest.ImpersonationConfig{UserName: "tom", Groups: []string{admission.DefaultGroup}}
	_, err = kubernetes.NewForConfigOrDie(borrowed).CoreV1().Namespaces().Create(ctx, namespace("mine", "victim"), metav1.CreateOptions{})
	require.ErrorContains(t, err, "cannot impersonate")
}

func TestATenantOnceNamedStays(t *testing.T) {
	h := startHijack(t, admission.Options{Name: "tenants"})
	ctx := within(t, 3*time.Minute)
	require.NoError(t, ways["server-side apply"](ctx, h.editor, "tenant-a", to("acme")))

	for name, way := range ways {
		for who, client := range map[string]kubernetes.Interface{"mallory": h.mallory, "editor": h.editor, "robot": h.robot, "admin": h.admin} {
			for what, tenant := range map[string]*string{"removed": nil, "changed": to("globex"), "emptied": to("")} {
				err := way(ctx, client, "tenant-a", tenant)
				require.True(t, refused(err), "%s by %s, %s: %v", what, who, name, err)
				require.ErrorContains(t, err, "namespace tenant-a is tenant acme's: the label eks-tenant-logs/tenant is neither changed nor removed", name)
			}
		}
	}
	got, _ := h.tenant(t, "tenant-a")
	require.Equal(t, "acme", got)

	// All else about the namespace is as free as before.
	for _, client := range []kubernetes.Interface{h.mallory, h.editor} {
		_, err := client.CoreV1().Namespaces().Patch(ctx, "tenant-a", types.MergePatchType, []byte(`{"metadata":{"labels":{"team":"x"},"annotations":{"a":"b"}}}`), metav1.PatchOptions{})
		require.NoError(t, err)
	}
	require.NoError(t, ways["merge patch"](ctx, h.mallory, "tenant-a", to("acme")), "what it was is no change")
	// Deleting is not the policy's; the name made anew has another UID, and no label.
	require.NoError(t, cluster.DeleteNamespace(ctx, h.mallory, "tenant-a"))
	createNamespace(t, h.mallory, "tenant-a", "")
	require.True(t, refused(ways["replace"](ctx, h.mallory, "tenant-a", to("acme"))))
}

func TestALabelThatNamesNoTenantOrThePlatformsNamespaceIsRefused(t *testing.T) {
	h := startHijack(t, admission.Options{Name: "tenants"})
	ctx := within(t, 3*time.Minute)
	createNamespace(t, h.admin, "plain", "")
	createNamespace(t, h.admin, "logs", "")
	createNamespace(t, h.admin, "kube-extra", "")

	for _, bad := range []string{"", "Acme", "acme.corp", "acme_corp", "a.", "9_", "ACME"} {
		for name, way := range ways {
			err := way(ctx, h.editor, "plain", &bad)
			require.Error(t, err, "%q, %s", bad, name)
			require.True(t, refused(err), "%q, %s: %v", bad, name, err)
		}
	}
	require.ErrorContains(t, ways["replace"](ctx, h.editor, "plain", to("acme.corp")), `is "acme.corp": a tenant is a DNS label`)
	for _, reserved := range []string{"default", "kube-system", "kube-public", "kube-node-lease", "logs", "kube-extra"} {
		for name, way := range ways {
			err := way(ctx, h.editor, reserved, to("acme"))
			require.True(t, refused(err), "%s, %s: %v", reserved, name, err)
			require.ErrorContains(t, err, "namespace "+reserved+" is the platform's", name)
		}
	}
	generated := namespace("", "acme")
	generated.GenerateName = "kube-"
	_, err := h.editor.CoreV1().Namespaces().Create(ctx, generated, metav1.CreateOptions{})
	require.ErrorContains(t, err, "is the platform's", "the policy sees the name that was generated")

	for _, good := range []string{"a", "9", "a-b", "acme-corp-9", "a23456789-123456789-123456789-123456789-123456789-123456789-123"} {
		_, err := h.editor.CoreV1().Namespaces().Create(ctx, namespace("ns-"+good[:1]+good[len(good)-1:]+"x", good), metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
		require.NoError(t, err, good)
	}

	// What was there before the policy can still be updated, repaired by none, and deleted.
	_, err = h.mallory.CoreV1().Namespaces().Patch(ctx, "legacy-bad", types.MergePatchType, []byte(`{"metadata":{"annotations":{"a":"b"}}}`), metav1.PatchOptions{})
	require.NoError(t, err)
	require.NoError(t, cluster.DeleteNamespace(ctx, h.mallory, "legacy-bad"))
}

func TestWithAPrefixTheNameIsTheClaim(t *testing.T) {
	h := startHijack(t, admission.Options{Name: "tenants", Prefix: "tenant-", Listed: []string{"acme-batch"}})
	ctx := within(t, 3*time.Minute)
	create := func(client kubernetes.Interface, name, generate string) error {
		_, err := client.CoreV1().Namespaces().Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name, GenerateName: generate}}, metav1.CreateOptions{})
		return err
	}
	for _, name := range []string{"tenant-acme", "tenant-", "acme-batch"} {
		generate := ""
		if name == "tenant-" {
			name, generate = "", name
		}
		for who, client := range map[string]kubernetes.Interface{"mallory": h.mallory, "admin": h.admin} {
			err := create(client, name, generate)
			require.True(t, refused(err), "%s%s by %s: %v", name, generate, who, err)
			require.ErrorContains(t, err, "claims a tenant and its logs: only these create it: eks-tenant-logs-tenant-admins")
		}
		require.NoError(t, create(h.editor, name, generate))
	}
	_, err := h.mallory.CoreV1().Namespaces().Apply(ctx, applycorev1.Namespace("tenant-globex"), metav1.ApplyOptions{FieldManager: "m"})
	require.True(t, refused(err))
	require.NoError(t, create(h.mallory, "tenants", ""))
	require.NoError(t, create(h.mallory, "my-tenant-acme", ""))
	require.NoError(t, create(h.mallory, "acme-batch-2", ""))
	// To change and to delete one of them is as free as before.
	_, err = h.mallory.CoreV1().Namespaces().Patch(ctx, "tenant-acme", types.MergePatchType, []byte(`{"metadata":{"labels":{"team":"x"}}}`), metav1.PatchOptions{})
	require.NoError(t, err)
	require.NoError(t, cluster.DeleteNamespace(ctx, h.mallory, "tenant-acme"))
	require.True(t, refused(create(h.mallory, "tenant-acme", "")), "the name is no easier to claim once it is free")
}
