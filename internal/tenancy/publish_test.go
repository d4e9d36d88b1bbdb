package tenancy

import (
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestAPublishedRegistryReadsBackTheSame(t *testing.T) {
	tenants := []*Tenant{
		{Name: "globex", Namespaces: []string{"globex-b", "globex-a"}},
		{
			Name: "acme", Namespaces: []string{"acme"}, RetentionDays: 731, OnFailure: "hold", EMF: true,
			KMSKeyARN:           "arn:aws-us-gov:kms:us-gov-west-1:123456789012:key/1234abcd-12ab-34cd-56ef-1234567890ab",
			QuarantineKMSKeyARN: "arn:aws-cn:kms:cn-north-1:123456789012:key/mrk-1234abcd12ab34cd56ef1234567890ab",
			RoleARN:             "arn:aws:iam::123456789012:role/logs/writer", ExternalID: "on",
		},
		// Names that YAML could take for something else.
		{Name: "no", Namespaces: []string{"1e3", "null", "0x10"}},
	}
	data, err := PublishRegistry(7, tenants, []string{"kube-system", "true"})
	require.NoError(t, err)
	slices.Reverse(tenants)
	again, err := PublishRegistry(7, tenants, []string{"true", "kube-system"})
	require.NoError(t, err)
	require.Equal(t, string(data), string(again))

	r, err := ParseRegistry(data, RegistryOptions{Mode: ModeRegistry})
	require.NoError(t, err)
	require.EqualValues(t, 7, r.Generation)
	require.Equal(t, []string{"kube-system", "true"}, r.PlatformNamespaces())
	require.Len(t, r.Tenants(), 3)
	for _, want := range tenants {
		slices.Sort(want.Namespaces)
		require.True(t, want.Equal(r.Tenant(want.Name)), "%+v", r.Tenant(want.Name))
	}
}

func TestWhatNoNodeWouldTakeIsNotPublished(t *testing.T) {
	for name, test := range map[string]struct {
		tenants  []*Tenant
		platform []string
		want     string
	}{
		"one namespace, two tenants": {[]*Tenant{{Name: "a", Namespaces: []string{"x"}}, {Name: "b", Namespaces: []string{"x"}}}, nil, `x is also tenant "a"'s`},
		"a tenant's and the platform's": {
			[]*Tenant{{Name: "a", Namespaces: []string{"x"}}}, []string{"x"}, "x is also in platformNamespaces",
		},
		"a tenant twice": {[]*Tenant{{Name: "a"}, {Name: "a"}}, nil, "stands twice"},
		"no tenant":      {[]*Tenant{{Name: "A"}}, nil, `"A" is not allowed`},
	} {
		_, err := PublishRegistry(1, test.tenants, test.platform)
		require.ErrorContains(t, err, test.want, name)
	}
}
