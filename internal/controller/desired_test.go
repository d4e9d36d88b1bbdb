package controller

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/eks-tenant-logs/eks-tenant-logs/internal/provision"
	"github.com/eks-tenant-logs/eks-tenant-logs/internal/tenancy"
)

const file = `version: 1
platformNamespaces: [monitoring]
tenants:
  acme: {namespaces: [tenant-acme, acme-batch], retentionDays: 731}
  inside: {namespaces: [logs, tenant-inside]}
`

func exceptions(t require.TestingT, text string, mode tenancy.Mode) *tenancy.Registry {
	prefix := ""
	if mode == tenancy.ModePrefix {
		prefix = "tenant-"
	}
	r, err := parseExceptions(text, mode, prefix)
	require.NoError(t, err)
	return r
}

// plain is a namespace without the label, labelled one with it.
func plain(name string) Namespace { return Namespace{Name: name, UID: "uid-" + name} }
func labelled(name, tenant string) Namespace {
	return Namespace{Name: name, UID: "uid-" + name, Label: tenant, Labelled: true}
}

func TestWhoseANamespaceIs(t *testing.T) {
	owners := map[string]Owner{
		"blue": {Tenant: "acme", UID: "uid-blue"}, "green": {Tenant: "acme", UID: "uid-of-another"},
		"kube-old": {Tenant: "acme", UID: "uid-kube-old"},
	}
	for name, test := range map[string]struct {
		mode    tenancy.Mode
		ns      Namespace
		owners  map[string]Owner
		tenant  string
		refusal string // a part of it; empty: none
	}{
		"prefix: by the rule":                         {tenancy.ModePrefix, plain("tenant-globex"), nil, "globex", ""},
		"prefix: by the file":                         {tenancy.ModePrefix, plain("acme-batch"), nil, "acme", ""},
		"prefix: nobody's":                            {tenancy.ModePrefix, plain("team"), nil, "", ""},
		"prefix: the prefix alone":                    {tenancy.ModePrefix, plain("tenant-"), nil, "", ""},
		"prefix: the platform's":                      {tenancy.ModePrefix, plain("monitoring"), nil, "", ""},
		"prefix: reserved, and nobody's":              {tenancy.ModePrefix, plain("kube-system"), nil, "", ""},
		"prefix: reserved, but a tenant's on nodes":   {tenancy.ModePrefix, plain("logs"), nil, "", "the nodes give its lines to tenant inside"},
		"prefix: a label that agrees":                 {tenancy.ModePrefix, labelled("tenant-globex", "globex"), nil, "globex", ""},
		"prefix: a label that disagrees":              {tenancy.ModePrefix, labelled("tenant-globex", "acme"), nil, "globex", "is not looked at"},
		"prefix: a label on nobody's":                 {tenancy.ModePrefix, labelled("team", "acme"), nil, "", "is not looked at"},
		"prefix: an empty label":                      {tenancy.ModePrefix, labelled("tenant-globex", ""), nil, "globex", "is not looked at"},
		"prefix: owners are not looked at":            {tenancy.ModePrefix, plain("blue"), owners, "", ""},
		"registry: reserved":                          {tenancy.ModeRegistry, plain("kube-system"), nil, "", ""},
		"registry: reserved by its beginning":         {tenancy.ModeRegistry, labelled("kube-anything", "acme"), nil, "", "never a tenant's"},
		"registry: reserved and labelled":             {tenancy.ModeRegistry, labelled("default", "acme"), nil, "", "never a tenant's"},
		"registry: reserved, and in the file":         {tenancy.ModeRegistry, plain("logs"), nil, "", "take it out of tenant inside"},
		"registry: the platform's":                    {tenancy.ModeRegistry, plain("monitoring"), nil, "", ""},
		"registry: the platform's and labelled":       {tenancy.ModeRegistry, labelled("monitoring", "acme"), nil, "", "never a tenant's"},
		"registry: became the platform's":             {tenancy.ModeRegistry, plain("kube-old"), owners, "", ""},
		"registry: by the file":                       {tenancy.ModeRegistry, plain("acme-batch"), nil, "acme", ""},
		"registry: by the file, the label agrees":     {tenancy.ModeRegistry, labelled("acme-batch", "acme"), nil, "acme", ""},
		"registry: by the file, the label disagrees":  {tenancy.ModeRegistry, labelled("acme-batch", "globex"), nil, "acme", "which holds"},
		"registry: by the file, the label is empty":   {tenancy.ModeRegistry, labelled("acme-batch", ""), nil, "acme", "which holds"},
		"registry: no prefix rule":                    {tenancy.ModeRegistry, plain("tenant-globex"), nil, "", ""},
		"registry: nobody says":                       {tenancy.ModeRegistry, plain("team"), nil, "", ""},
		"registry: a label that names no tenant":      {tenancy.ModeRegistry, labelled("team", "Acme_1"), nil, "", "names no tenant"},
		"registry: an empty label":                    {tenancy.ModeRegistry, labelled("team", ""), nil, "", "names no tenant"},
		"registry: by the label":                      {tenancy.ModeRegistry, labelled("team", "globex"), nil, "globex", ""},
		"registry: keeps what it has":                 {tenancy.ModeRegistry, labelled("blue", "acme"), owners, "acme", ""},
		"registry: keeps it without its label":        {tenancy.ModeRegistry, plain("blue"), owners, "acme", "nothing says so any more"},
		"registry: keeps it with another label":       {tenancy.ModeRegistry, labelled("blue", "globex"), owners, "acme", "would become tenant globex's"},
		"registry: keeps it with a label of nonsense": {tenancy.ModeRegistry, labelled("blue", "!"), owners, "acme", "nothing says so any more"},
		"registry: made anew, for the same":           {tenancy.ModeRegistry, labelled("green", "acme"), owners, "acme", ""},
		"registry: made anew, for another":            {tenancy.ModeRegistry, labelled("green", "globex"), owners, "", "wait 24 hours"},
		"registry: made anew, for nobody":             {tenancy.ModeRegistry, plain("green"), owners, "", ""},
	} {
		t.Run(name, func(t *testing.T) {
			rules := Rules{Mode: test.mode, Exceptions: exceptions(t, file, test.mode), Reserved: []string{"default", "kube-system", "logs"}, Owners: test.owners}
			tenants, refusals := Desired([]Namespace{test.ns}, rules)
			if test.tenant == "" {
				require.Empty(t, tenants)
			} else {
				require.Len(t, tenants, 1)
				require.Equal(t, test.tenant, tenants[0].Name)
				require.Equal(t, []provision.Namespace{{Name: test.ns.Name, UID: test.ns.UID}}, tenants[0].Namespaces)
			}
			if test.refusal == "" {
				require.Empty(t, refusals)
			} else {
				require.Len(t, refusals, 1)
				require.Equal(t, test.ns.Name, refusals[0].Namespace)
				require.Equal(t, test.ns.UID, refusals[0].UID)
				require.Contains(t, refusals[0].Reason, test.refusal)
			}
		})
	}
}

func TestATenantHasTheSettingsOfTheFileAndItsNamespacesByName(t *testing.T) {
	tenants, refusals := Desired([]Namespace{plain("tenant-acme"), plain("tenant-zeta"), plain("acme-batch")},
		Rules{Mode: tenancy.ModePrefix, Exceptions: exceptions(t, file, tenancy.ModePrefix)})
	require.Empty(t, refusals)
	require.Len(t, tenants, 2)
	require.Equal(t, []provision.Namespace{{Name: "acme-batch", UID: "uid-acme-batch"}, {Name: "tenant-acme", UID: "uid-tenant-acme"}}, tenants[0].Namespaces)
	require.Equal(t, 731, tenants[0].Settings.RetentionDays)
	require.Equal(t, "zeta", tenants[1].Name)
	require.Nil(t, tenants[1].Settings)
}

var (
	someTenants = rapid.SampledFrom([]string{"acme", "acme-corp", "globex", "a", "", "Not_One", "kube-system"})
	someNames   = rapid.SampledFrom([]string{"tenant-acme", "acme-batch", "blue", "green", "red", "monitoring", "logs", "kube-system", "kube-x", "default", "tenant-a"})
)

func drawNamespaces(t *rapid.T) []Namespace {
	names := rapid.SliceOfNDistinct(someNames, 0, 11, rapid.ID[string]).Draw(t, "names")
	all := make([]Namespace, 0, len(names))
	for _, name := range names {
		ns := Namespace{Name: name, UID: fmt.Sprintf("%s-%d", name, rapid.IntRange(1, 3).Draw(t, "uid"))}
		if ns.Labelled = rapid.Bool().Draw(t, "labelled"); ns.Labelled {
			ns.Label = someTenants.Draw(t, "label")
		}
		all = append(all, ns)
	}
	return all
}

func TestANamespaceIsAtMostOneTenantsAndOrderDoesNotMatter(t *testing.T) {
	files := map[tenancy.Mode]*tenancy.Registry{
		tenancy.ModePrefix: exceptions(t, file, tenancy.ModePrefix), tenancy.ModeRegistry: exceptions(t, file, tenancy.ModeRegistry),
	}
	rapid.Check(t, func(t *rapid.T) {
		mode := rapid.SampledFrom([]tenancy.Mode{tenancy.ModePrefix, tenancy.ModeRegistry}).Draw(t, "mode")
		rules := Rules{Mode: mode, Exceptions: files[mode], Reserved: []string{"default", "logs"}, Owners: map[string]Owner{}}
		for _, ns := range rapid.SliceOfNDistinct(someNames, 0, 6, rapid.ID[string]).Draw(t, "owned") {
			rules.Owners[ns] = Owner{Tenant: rapid.SampledFrom([]string{"acme", "globex"}).Draw(t, "owner"), UID: ns + "-1"}
		}
		namespaces := drawNamespaces(t)
		tenants, refusals := Desired(namespaces, rules)
		again, refusalsAgain := Desired(rapid.Permutation(namespaces).Draw(t, "order"), rules)
		require.Equal(t, tenants, again)
		require.Equal(t, refusals, refusalsAgain)
		of := map[string]string{}
		for _, tenant := range tenants {
			require.True(t, tenancy.Label(tenant.Name))
			require.NotEmpty(t, tenant.Namespaces)
			for _, ns := range tenant.Namespaces {
				require.Empty(t, of[ns.Name], "namespace %s is two tenants'", ns.Name)
				of[ns.Name] = tenant.Name
				require.NotContains(t, []string{"default", "logs", "monitoring", "kube-system", "kube-x"}, ns.Name)
				if owner, known := rules.Owners[ns.Name]; known && mode == tenancy.ModeRegistry {
					require.Equal(t, owner.Tenant, tenant.Name, "namespace %s passed on", ns.Name)
				}
			}
		}
	})
}
