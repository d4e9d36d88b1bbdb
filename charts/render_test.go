// Package charts holds the chart's tests: what it renders, against what the plugin, the
// controller and Kubernetes take.
package charts

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/client-go/kubernetes/scheme"
	"sigs.k8s.io/yaml"

	"github.com/eks-tenant-logs/eks-tenant-logs/e2e/helm"
)

var update = flag.Bool("update", false, "write the golden renders anew")

const (
	chart     = "eks-tenant-logs"
	release   = "eks-tenant-logs"
	namespace = "logs"
)

// template is what helm template makes of args. CHARTS_REQUIRED says that Helm must be there.
func template(t *testing.T, args ...string) (string, error) {
	t.Helper()
	path, err := helm.Find("..")
	if err != nil {
		if os.Getenv("CHARTS_REQUIRED") != "" {
			t.Fatal(err)
		}
		t.Skipf("not run: %v, `make chart-test` runs this with it", err)
	}
	return helm.Run(t.Context(), path, t.TempDir(), "", append([]string{"template"}, append(args, "--kube-version", "1.34.0")...)...)
}

// render is the chart with a case's values, and what --set adds, as helm writes it.
func render(t *testing.T, values string, set ...string) (string, error) {
	t.Helper()
	args := []string{release, chart, "--namespace", namespace}
	if values != "" {
		args = append(args, "--values", values)
	}
	for _, s := range set {
		args = append(args, "--set", s)
	}
	return template(t, args...)
}

// cases are the values of ci/, by name.
func cases(t *testing.T) map[string]string {
	t.Helper()
	files, err := filepath.Glob(chart + "/ci/*-values.yaml")
	require.NoError(t, err)
	require.GreaterOrEqual(t, len(files), 12)
	all := map[string]string{}
	for _, f := range files {
		all[strings.TrimSuffix(filepath.Base(f), "-values.yaml")] = f
	}
	return all
}

func TestRendersAreTheGoldenOnes(t *testing.T) {
	for name, values := range cases(t) {
		t.Run(name, func(t *testing.T) {
			got, err := render(t, values)
			require.NoError(t, err)
			golden := chart + "/ci/golden/" + name + ".yaml"
			if *update {
				require.NoError(t, os.MkdirAll(filepath.Dir(golden), 0o755))
				require.NoError(t, os.WriteFile(golden, []byte(got), 0o600))
			}
			want, err := os.ReadFile(golden)
			require.NoError(t, err)
			require.Equal(t, string(want), got, "if this is meant: go test ./charts -run Golden -update")
		})
	}
	files, err := filepath.Glob(chart + "/ci/golden/*.yaml")
	require.NoError(t, err)
	require.Len(t, files, len(cases(t)), "a golden render that no values make")
}

// securityContextConstraints has the fields of OpenShift's type that the chart uses
// (security.openshift.io/v1); its own module is not worth a dependency.
type securityContextConstraints struct {
	APIVersion               string         `json:"apiVersion"`
	Kind                     string         `json:"kind"`
	Metadata                 map[string]any `json:"metadata"`
	AllowHostDirVolumePlugin bool           `json:"allowHostDirVolumePlugin"`
	AllowHostIPC             bool           `json:"allowHostIPC"`
	AllowHostNetwork         bool           `json:"allowHostNetwork"`
	AllowHostPID             bool           `json:"allowHostPID"`
	AllowHostPorts           bool           `json:"allowHostPorts"`
	AllowPrivilegeEscalation *bool          `json:"allowPrivilegeEscalation"`
	AllowPrivilegedContainer bool           `json:"allowPrivilegedContainer"`
	AllowedCapabilities      []string       `json:"allowedCapabilities"`
	DefaultAddCapabilities   []string       `json:"defaultAddCapabilities"`
	RequiredDropCapabilities []string       `json:"requiredDropCapabilities"`
	ReadOnlyRootFilesystem   bool           `json:"readOnlyRootFilesystem"`
	RunAsUser                struct {
		Type string `json:"type"`
	} `json:"runAsUser"`
	SELinuxContext struct {
		Type string `json:"type"`
	} `json:"seLinuxContext"`
	FSGroup struct {
		Type string `json:"type"`
	} `json:"fsGroup"`
	SupplementalGroups struct {
		Type string `json:"type"`
	} `json:"supplementalGroups"`
	SeccompProfiles []string `json:"seccompProfiles"`
	Volumes         []string `json:"volumes"`
	Users           []string `json:"users"`
	Groups          []string `json:"groups"`
}

var decoder = serializer.NewCodecFactory(scheme.Scheme, serializer.EnableStrict).UniversalDeserializer()

// foreign are the types that are not Kubernetes' own.
var foreign = map[string]func() any{
	"SecurityContextConstraints": func() any { return new(securityContextConstraints) },
	"PodMonitor":                 func() any { return new(podMonitor) },
	"PrometheusRule":             func() any { return new(prometheusRule) },
}

// objects are a render's, decoded strictly: a field that Kubernetes does not know, or
// one given twice, is an error. Those of others are checked and left out.
func objects(t *testing.T, rendered string) (all []runtime.Object) {
	t.Helper()
	documents, err := helm.Objects(rendered)
	require.NoError(t, err)
	for _, d := range documents {
		if into, ok := foreign[d.Kind]; ok {
			require.NoError(t, yaml.UnmarshalStrict([]byte(d.Text), into()), d.Text)
			continue
		}
		o, _, err := decoder.Decode([]byte(d.Text), nil, nil)
		require.NoError(t, err, d.Text)
		all = append(all, o)
	}
	return all
}

// one is the object of a render that has a type and a name.
func one[T runtime.Object](t *testing.T, all []runtime.Object, name string) T {
	t.Helper()
	var found []T
	for _, o := range all {
		if x, ok := o.(T); ok {
			if named, ok := o.(interface{ GetName() string }); ok && named.GetName() == name {
				found = append(found, x)
			}
		}
	}
	require.Len(t, found, 1, "%T %s", found, name)
	return found[0]
}

func TestEveryObjectIsOneThatKubernetesTakes(t *testing.T) {
	for name, values := range cases(t) {
		rendered, err := render(t, values)
		require.NoError(t, err, name)
		seen := map[string]bool{}
		for _, o := range objects(t, rendered) {
			named := o.(interface {
				GetName() string
				GetNamespace() string
				GetLabels() map[string]string
			})
			kind := o.GetObjectKind().GroupVersionKind().Kind
			require.LessOrEqual(t, len(named.GetName()), 63, name)
			require.Equal(t, "eks-tenant-logs", named.GetLabels()["app.kubernetes.io/part-of"], "%s: %s %s", name, kind, named.GetName())
			key := kind + "/" + named.GetNamespace() + "/" + named.GetName()
			require.False(t, seen[key], "%s: %s is there twice", name, key)
			seen[key] = true
			var pod *corev1.PodSpec
			switch x := o.(type) {
			case *appsv1.DaemonSet:
				pod = &x.Spec.Template.Spec
				require.Subset(t, x.Spec.Template.Labels, x.Spec.Selector.MatchLabels)
			case *appsv1.Deployment:
				pod = &x.Spec.Template.Spec
				require.Subset(t, x.Spec.Template.Labels, x.Spec.Selector.MatchLabels)
			default:
				continue
			}
			hardened(t, pod)
		}
	}
}

// hardened are what no value of ci/ takes away.
func hardened(t *testing.T, pod *corev1.PodSpec) {
	t.Helper()
	require.False(t, pod.HostNetwork || pod.HostPID || pod.HostIPC)
	require.Equal(t, corev1.SeccompProfileTypeRuntimeDefault, pod.SecurityContext.SeccompProfile.Type)
	require.NotNil(t, pod.AutomountServiceAccountToken)
	for _, c := range pod.Containers {
		require.True(t, *c.SecurityContext.ReadOnlyRootFilesystem)
		require.False(t, *c.SecurityContext.AllowPrivilegeEscalation)
		require.Equal(t, []corev1.Capability{"ALL"}, c.SecurityContext.Capabilities.Drop)
		require.Empty(t, c.SecurityContext.Capabilities.Add)
		require.NotEmpty(t, c.Resources.Requests)
		require.NotEmpty(t, c.Resources.Limits.Memory())
	}
	for _, v := range pod.Volumes {
		if v.HostPath == nil {
			continue
		}
		for _, m := range pod.Containers[0].VolumeMounts {
			if m.Name == v.Name && v.HostPath.Path == "/var/log" {
				require.True(t, m.ReadOnly, "/var/log")
			}
		}
	}
}
