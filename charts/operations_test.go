package charts

import (
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"sigs.k8s.io/yaml"

	"github.com/eks-tenant-logs/eks-tenant-logs/e2e/docs"
	"github.com/eks-tenant-logs/eks-tenant-logs/e2e/helm"
)

// What docs/operations.md tells people to look at is what the chart installs; its tenantlogs
// commands are held to the program by provisioner/docs_test.go.

func operations(t *testing.T) docs.Page {
	t.Helper()
	text, err := os.ReadFile(runbooks)
	require.NoError(t, err)
	return docs.Read("docs/operations.md", string(text))
}

// commands are those of the page's blocks and of its sentences.
func commands(p docs.Page) []docs.Command {
	all := p.Commands()
	for _, s := range p.Spans {
		for _, words := range docs.Split(s.Text) {
			all = append(all, docs.Command{Line: s.Number, Words: words})
		}
	}
	return all
}

func TestObjectsThatOperationsLooksAtAreInstalled(t *testing.T) {
	rendered, err := render(t, cases(t)["minimal"])
	require.NoError(t, err)
	documents, err := helm.Objects(rendered)
	require.NoError(t, err)
	// The controller makes these itself.
	there := map[string]bool{"configmap/eks-tenant-logs-status": true, "lease/eks-tenant-logs-leader": true}
	for _, d := range documents {
		there[strings.ToLower(d.Kind)+"/"+d.Name] = true
	}
	p := operations(t)
	looked := map[string]bool{}
	for _, c := range commands(p) {
		if len(c.Words) < 3 || c.Words[0] != "kubectl" {
			continue
		}
		for i, w := range c.Words {
			name := w
			if i > 0 && slices.Contains([]string{"configmap", "lease"}, c.Words[i-1]) {
				name = c.Words[i-1] + "/" + w
			}
			if kind, object, ok := strings.Cut(name, "/"); ok && slices.Contains([]string{"configmap", "lease", "daemonset", "deployment"}, kind) && object != "" {
				require.True(t, there[name], "%s: nothing makes %s", p.Where(c.Line), name)
				looked[name] = true
			}
			if i > 0 && c.Words[i-1] == "-l" && strings.HasPrefix(w, "app.kubernetes.io/component=") {
				_, component, _ := strings.Cut(w, "=")
				require.Contains(t, podTemplates(objects(t, rendered)), component, p.Where(c.Line))
			}
			if i > 0 && c.Words[i-1] == "-n" && w != "kube-system" {
				require.Equal(t, namespace, w, p.Where(c.Line))
			}
		}
	}
	require.GreaterOrEqual(t, len(looked), 4)
}

// valuePath is a value of the chart's, by its full path.
var valuePath = regexp.MustCompile(`^((?:fluentBit|logs|tenants|monitoring|networkPolicy|provisioner|identity|enrich)(?:\.\w+)+)(?:=.*)?$`)

func TestValuesThatOperationsNamesExist(t *testing.T) {
	text, err := os.ReadFile(chart + "/values.yaml")
	require.NoError(t, err)
	var values map[string]any
	require.NoError(t, yaml.Unmarshal(text, &values))
	p := operations(t)
	named := 0
	for _, s := range p.Spans {
		m := valuePath.FindStringSubmatch(s.Text)
		if m == nil {
			continue
		}
		named++
		var at any = values
		for _, key := range strings.Split(m[1], ".") {
			inside, ok := at.(map[string]any)
			require.True(t, ok, "%s: %s", p.Where(s.Number), s.Text)
			require.Contains(t, inside, key, "%s: %s", p.Where(s.Number), s.Text)
			at = inside[key]
		}
	}
	require.Greater(t, named, 15)
	// The values that switch monitoring on do.
	files := writeValues(t, p)
	require.Len(t, files, 1)
	out, err := template(t, release, chart, "--namespace", namespace, "--values", cases(t)["minimal"], "--values", files[0])
	require.NoError(t, err)
	for _, kind := range []string{"PodMonitor", "PrometheusRule", "ConfigMap"} {
		require.Contains(t, out, "kind: "+kind+"\n")
	}
}

// Metrics that the page names are served, and each alert is.
func TestMetricsThatOperationsNamesExist(t *testing.T) {
	known := served(t)
	p := operations(t)
	for _, line := range p.Text {
		for _, name := range regexp.MustCompile(`\b(?:tenantlogs|fluentbit)_[a-z_]+`).FindAllString(line.Text, -1) {
			require.Contains(t, known, name, p.Where(line.Number))
		}
	}
	all := map[string]bool{}
	for _, r := range alerts(t).rules() {
		all[r.Alert] = true
	}
	for _, line := range p.Text {
		for _, name := range regexp.MustCompile(`\bTenantLogs[A-Z]\w+`).FindAllString(line.Text, -1) {
			require.True(t, all[name], "%s: there is no alert %s", p.Where(line.Number), name)
		}
	}
}
