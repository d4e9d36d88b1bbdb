package charts

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	admissionv1 "k8s.io/api/admissionregistration/v1"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/yaml"

	"github.com/eks-tenant-logs/eks-tenant-logs/internal/controller"
	"github.com/eks-tenant-logs/eks-tenant-logs/internal/controller/admission"
	"github.com/eks-tenant-logs/eks-tenant-logs/internal/output"
	"github.com/eks-tenant-logs/eks-tenant-logs/internal/tenancy"
)

// What the chart renders and what the code knows are held together here.

func TestTheProvisionersRightsAreThoseItsCodeUses(t *testing.T) {
	for name, values := range cases(t) {
		rendered, err := render(t, values)
		require.NoError(t, err)
		all := objects(t, rendered)
		if name == "plugin-only" {
			for _, o := range all {
				require.NotContains(t, []string{"ClusterRole", "Role", "Deployment"}, o.GetObjectKind().GroupVersionKind().Kind)
			}
			continue
		}
		cluster, namespaced := controller.Rights(release)
		require.Equal(t, cluster, one[*rbacv1.ClusterRole](t, all, release+"-provisioner").Rules, name)
		require.Equal(t, namespaced, one[*rbacv1.Role](t, all, release+"-provisioner").Rules, name)
		account := one[*appsv1.Deployment](t, all, release+"-provisioner").Spec.Template.Spec.ServiceAccountName
		want := []rbacv1.Subject{{Kind: "ServiceAccount", Name: account, Namespace: namespace}}
		require.Equal(t, want, one[*rbacv1.ClusterRoleBinding](t, all, release+"-provisioner").Subjects, name)
		require.Equal(t, want, one[*rbacv1.RoleBinding](t, all, release+"-provisioner").Subjects, name)
	}
}

func TestTheAdmissionPolicyIsTheControllers(t *testing.T) {
	reserved := append(admission.DefaultReserved(), namespace)
	for name, test := range map[string]struct {
		values string
		set    []string
		want   admission.Options
	}{
		"defaults":   {"minimal", nil, admission.Options{EditorGroups: []string{admission.DefaultGroup}, Prefix: "tenant-", Reserved: reserved}},
		"registry":   {"registry", nil, admission.Options{EditorGroups: []string{admission.DefaultGroup}, Reserved: append([]string{"argocd", "monitoring"}, reserved...), Listed: []string{"billing", "billing-batch"}}},
		"exceptions": {"pod-identity", nil, admission.Options{EditorGroups: []string{"platform-team"}, EditorUsers: []string{"system:serviceaccount:argocd:argocd-application-controller"}, Prefix: "tenant-", Reserved: append([]string{"monitoring"}, reserved...), Listed: []string{"acme-batch", "tenant-acme"}}},
		"text that would end a literal": {"minimal", []string{`admissionPolicy.allowedGroups={a'] + ['system:authenticated,b\\}`},
			admission.Options{EditorGroups: []string{`a'] + ['system:authenticated`, `b\`}, Prefix: "tenant-", Reserved: reserved}},
	} {
		t.Run(name, func(t *testing.T) {
			rendered, err := render(t, cases(t)[test.values], test.set...)
			require.NoError(t, err)
			all := objects(t, rendered)
			test.want.Name = release + "-tenants"
			slices.Sort(test.want.Reserved)
			policy, binding, err := admission.Render(test.want)
			require.NoError(t, err)
			require.Equal(t, policy.Spec, one[*admissionv1.ValidatingAdmissionPolicy](t, all, test.want.Name).Spec)
			require.Equal(t, binding.Spec, one[*admissionv1.ValidatingAdmissionPolicyBinding](t, all, test.want.Name).Spec)
		})
	}
}

// fluentBit is the configuration in a render, as far as it is of interest here.
type fluentBit struct {
	Service  map[string]any `json:"service"`
	Pipeline struct {
		Inputs  []map[string]any `json:"inputs"`
		Filters []map[string]any `json:"filters"`
		Outputs []map[string]any `json:"outputs"`
	} `json:"pipeline"`
}

func configured(t *testing.T, all []runtime.Object) fluentBit {
	t.Helper()
	var c fluentBit
	text := one[*corev1.ConfigMap](t, all, release+"-fluent-bit").Data["fluent-bit.yaml"]
	require.NoError(t, yaml.Unmarshal([]byte(text), &c), text)
	return c
}

// swallowed are the keys of an [OUTPUT] that Fluent Bit takes before the plugin sees them.
var swallowed = []string{"name", "match", "workers", "retry_limit", "storage.total_limit_size"}

func TestThePluginTakesItsOptions(t *testing.T) {
	known := documentedOptions(t)
	for name, values := range cases(t) {
		if name == "provisioner-only" {
			continue
		}
		rendered, err := render(t, values)
		require.NoError(t, err)
		all := objects(t, rendered)
		c := configured(t, all)
		section := c.Pipeline.Outputs[0]
		require.Equal(t, "cloudwatch_tenants", section["name"])
		for key := range section {
			require.True(t, slices.Contains(swallowed, key) || slices.Contains(known, key), "%s: the plugin has no option %s", name, key)
		}
		options, err := output.ParseOptions(func(key string) string {
			if v, ok := section[key]; ok && !slices.Contains(swallowed, key) {
				return fmt.Sprint(v)
			}
			return ""
		})
		require.NoError(t, err, name)
		require.Equal(t, name == "plugin-only", options.AutoCreateGroup, "%s: with the provisioner, nodes make no group", name)
		require.NotEmpty(t, options.StatePath)
		require.Equal(t, c.Service["storage.path"], options.StoragePath, "%s: the volume that is watched is that of the chunks", name)
		require.True(t, options.StopWhenFull)
		require.Equal(t, filepath.Dir(options.StoragePath), filepath.Dir(c.Pipeline.Inputs[0]["db"].(string)), "%s: what was read while the disk was full is not written down, and is read again", name)

		grace := time.Duration(c.Service["grace"].(float64)) * time.Second
		termination := time.Duration(*one[*appsv1.DaemonSet](t, all, release+"-fluent-bit").Spec.Template.Spec.TerminationGracePeriodSeconds) * time.Second
		require.GreaterOrEqual(t, termination, grace+15*time.Second, "%s: calls under way are answered, and the ledger is written", name)

		prefix := options.TagPrefix[0]
		parser, err := tenancy.NewTagParser(options.TagPrefix)
		require.NoError(t, err)
		path := c.Pipeline.Inputs[0]["path"].(string)
		require.True(t, strings.HasPrefix("kube"+strings.ReplaceAll(path, "/", "."), prefix), "%s: tail's tags begin with the plugin's prefix", name)
		file := "tenant-acme_web-0_1b4db7eb-4057-5ddf-91e0-36dec72071f5.app.0.log"
		if strings.HasSuffix(prefix, "containers.") {
			file = "web-0_tenant-acme_app-" + strings.Repeat("a", 64) + ".log"
		}
		source, why := parser.Parse(prefix + file)
		require.Equal(t, tenancy.None, why)
		require.Equal(t, "tenant-acme", source.Namespace)
	}
}

// documentedOptions are the plugin's, from docs/options.md, which is made from the code.
func documentedOptions(t *testing.T) (all []string) {
	t.Helper()
	text, err := os.ReadFile("../docs/options.md")
	require.NoError(t, err)
	for _, line := range strings.Split(string(text), "\n") {
		if name, ok := strings.CutPrefix(line, "| `"); ok {
			name, _, _ = strings.Cut(name, "`")
			all = append(all, name)
		}
	}
	require.Greater(t, len(all), 25)
	return all
}

func TestTheTenantsFileIsOneThatNodesAndControllerTake(t *testing.T) {
	for name, values := range cases(t) {
		rendered, err := render(t, values)
		require.NoError(t, err)
		all := objects(t, rendered)
		text := one[*corev1.ConfigMap](t, all, release+"-exceptions").Data["tenants.yaml"]
		registry, err := tenancy.ParseRegistry([]byte(text), tenancy.RegistryOptions{NamespacePrefix: "tenant-", Mode: map[bool]tenancy.Mode{true: tenancy.ModeRegistry}[name == "registry"]})
		require.NoError(t, err, "%s: %s", name, text)
		if name != "pod-identity" {
			continue
		}
		require.Equal(t, 731, registry.Tenant("acme").RetentionDays)
		for ns, want := range map[string]tenancy.Kind{"acme-batch": tenancy.KindTenant, "tenant-x": tenancy.KindTenant, "tenant-tools": tenancy.KindPlatform, "monitoring": tenancy.KindPlatform} {
			kind, _ := registry.Resolve(ns)
			require.Equal(t, want, kind, ns)
		}
	}
}

// Retention is checked by the chart with a list of its own.
func TestTheChartKnowsCloudWatchsRetentions(t *testing.T) {
	for _, days := range tenancy.RetentionDays {
		_, err := render(t, cases(t)["minimal"], fmt.Sprintf("logs.retentionDays=%d", days))
		require.NoError(t, err)
	}
	_, err := render(t, cases(t)["minimal"], "logs.retentionDays=366")
	require.ErrorContains(t, err, "does not know 366 days: give one of "+strings.Trim(fmt.Sprint(tenancy.RetentionDays), "[]"))
}

// Every value has its place in the schema, and the schema no other: an unknown key is an error
// at every level that is the chart's own.
func TestTheSchemaIsOfTheValues(t *testing.T) {
	text, err := os.ReadFile(chart + "/values.yaml")
	require.NoError(t, err)
	var values map[string]any
	require.NoError(t, yaml.UnmarshalStrict(text, &values))
	text, err = os.ReadFile(chart + "/values.schema.json")
	require.NoError(t, err)
	var schema map[string]any
	require.NoError(t, json.Unmarshal(text, &schema))
	// What Helm itself may set, and what values.yaml shows in a comment only.
	delete(schema["properties"].(map[string]any), "global")
	sameKeys(t, "", values, schema)
}

func sameKeys(t *testing.T, path string, values, schema map[string]any) {
	t.Helper()
	properties, own := schema["properties"].(map[string]any)
	if !own || path == ".tenants.exceptions" {
		return
	}
	require.Equal(t, false, schema["additionalProperties"], "%s takes unknown keys", path)
	for key := range properties {
		require.Contains(t, values, key, "%s: the schema knows more than values.yaml", path)
	}
	for key, v := range values {
		require.Contains(t, properties, key, "%s: values.yaml knows more than the schema", path)
		if m, ok := v.(map[string]any); ok {
			sameKeys(t, path+"."+key, m, properties[key].(map[string]any))
		}
	}
}

func TestAnUnknownFieldWouldBeSeen(t *testing.T) {
	_, _, err := decoder.Decode([]byte("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: x}\ndatum: {}\n"), nil, nil)
	require.ErrorContains(t, err, `unknown field "datum"`)
}
