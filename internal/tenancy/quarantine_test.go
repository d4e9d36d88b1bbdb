package tenancy

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

func TestNamespaceIsReadFromAStreamsNameExactlyOrNotAtAll(t *testing.T) {
	for _, test := range []struct{ template, stream, want string }{
		{DefaultStreamTemplate, "team-a/web-0/app", "team-a"},
		{DefaultStreamTemplate, "team-a/web.0/", "team-a"},
		{DefaultStreamTemplate, "team-a", ""},
		{DefaultStreamTemplate, "Team/web/app", ""},
		{DefaultStreamTemplate, "-a/web/app", ""},
		{DefaultStreamTemplate, "/web/app", ""},
		{DefaultStreamTemplate, strings.Repeat("a", 64) + "/web/app", ""},
		{DefaultStreamTemplate, ReplayStreamPrefix + "1", ""},
		{"$(namespace)", "team-a", "team-a"},
		{"$(namespace)", "team-a/x", ""},
		{"$(namespace)-x/$(pod)", "a-x-x/p", "a-x"},
		{"$(namespace)-x/$(pod)", "a/p", ""},
		{"x-$(namespace)_$(node)", "x-a_n", "a"},
		{"x-$(namespace)_$(node)", "y-a_n", ""},
		{"$(tenant)/$(namespace)/$(pod)", "/a/p", "a"},
		{"$(tenant)/$(namespace)/$(pod)", "corp/a/p", ""},
		{"$(pod)/$(namespace)", "web.0/a", "a"},
		{"$(pod)./$(namespace)", "web./a", "a"},
		{"$(container)/$(namespace)", "/a", "a"},
		{"$(node)/$(namespace)", "n/a", ""},
		{"$(pod)", "a", ""},
	} {
		template, err := ParseStreamTemplate(test.template)
		require.NoError(t, err)
		got, ok := template.Namespace(test.stream)
		require.Equal(t, test.want, got, "%+v", test)
		require.Equal(t, test.want != "", ok, "%+v", test)
	}
}

// Whatever template makes a name, the namespace read from it is the one it was made
// for, or none.
func TestNamespaceReadBackIsTheOneItWasMadeFor(t *testing.T) {
	templates := []string{DefaultStreamTemplate, "$(pod)/$(namespace)", "a-$(namespace)-b/$(pod)", "$(container)_$(pod)_$(namespace)", "$(tenant)/$(namespace)", "$(node)/$(namespace)/$(pod)",
		strings.Repeat("l", 440) + "$(namespace)/$(pod)", "$(pod)./$(namespace)"}
	rapid.Check(t, func(t *rapid.T) {
		template, err := ParseStreamTemplate(rapid.SampledFrom(templates).Draw(t, "template"))
		if err != nil {
			t.Fatal(err)
		}
		label := rapid.StringMatching(`[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?`)
		src := Source{Namespace: label.Draw(t, "namespace"), Pod: rapid.StringMatching(`[a-z0-9]([a-z0-9.-]{0,100}[a-z0-9])?`).Draw(t, "pod"), Container: label.Draw(t, "container")}
		if !subdomain(src.Pod) {
			t.Skip()
		}
		name := string(template.Append(nil, src, "", "node/team-b/x"))
		got, ok := template.Namespace(name)
		if ok && got != src.Namespace {
			t.Fatalf("%q is of %q, read %q", name, src.Namespace, got)
		}
		if !ok && template.TellsNamespace() == nil && len(name) < maxStreamName {
			t.Fatalf("%q tells no namespace", name)
		}
	})
}

func TestHomeOfAQuarantinedStreamIsToldByItsNamesAlone(t *testing.T) {
	names := DefaultNames()
	template, err := ParseStreamTemplate(DefaultStreamTemplate)
	require.NoError(t, err)
	registry, err := ParseRegistry([]byte("version: 1\nplatformNamespaces: [ops]\ntenants: {acme: {namespaces: [team-a]}, own: {namespaces: [o], roleArn: 'arn:aws:iam::210987654321:role/x'}}"), RegistryOptions{Mode: ModeRegistry})
	require.NoError(t, err)
	prefix, err := NewRegistry(RegistryOptions{})
	require.NoError(t, err)
	for _, test := range []struct {
		registry                 *Registry
		group, stream, want, why string
	}{
		{registry, "/eks/quarantine/acme", "team-a/p/c", "/eks/tenants/acme", ""},
		{registry, "/eks/quarantine/acme", "gone/p/c", "/eks/tenants/acme", ""},
		{registry, "/eks/quarantine/acme", "o/p/c", "", "namespace o is now tenant own's"},
		{registry, "/eks/quarantine/left", "l/p/c", "", "tenant left is not in the registry"},
		{registry, "/eks/quarantine/own", "o/p/c", "/eks/tenants/own", ""},
		{registry, "/eks/quarantine/_pending", "team-a/p/c", "/eks/tenants/acme", ""},
		{registry, "/eks/quarantine/_pending", "team-a-b/p/c", "", "namespace team-a-b is not in the registry"},
		{registry, "/eks/quarantine/_pending", "ops/p/c", "/eks/platform", ""},
		{registry, "/eks/quarantine/_pending", "team-a", "", "does not tell its namespace"},
		{registry, "/eks/quarantine/a/b", "team-a/p/c", "", "no quarantine group"},
		{registry, "/eks/tenants/acme", "team-a/p/c", "", "no quarantine group"},
		{prefix, "/eks/quarantine/corp", "tenant-corp/p/c", "/eks/tenants/corp", ""},
		{prefix, "/eks/quarantine/corp", "tenant-corp-b/p/c", "", "tenant corp-b's"},
	} {
		home := names.Home(test.registry, template, test.group, test.stream)
		require.Equal(t, test.want, home.Group, "%+v", test)
		require.Contains(t, home.Why, test.why)
		require.Equal(t, test.want == "", home.Why != "", "%+v", test)
	}
}
