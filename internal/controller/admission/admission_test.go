package admission

import (
	"testing"

	"github.com/stretchr/testify/require"
	admissionv1 "k8s.io/api/admissionregistration/v1"
)

func TestTheFileAsItStandsIsThePolicyWithItsDefaults(t *testing.T) {
	p, b, err := Render(Options{Name: "eks-tenant-logs-tenants", EditorGroups: []string{DefaultGroup}, Reserved: DefaultReserved()})
	require.NoError(t, err)
	require.Equal(t, admissionv1.Fail, *p.Spec.FailurePolicy)
	require.Equal(t, p.Name, b.Spec.PolicyName)
	require.Equal(t, []admissionv1.ValidationAction{admissionv1.Deny}, b.Spec.ValidationActions)
	require.Equal(t, map[string]string{
		"editorGroups": "['eks-tenant-logs-tenant-admins']", "editorUsers": "[]", "prefix": "''", "listed": "[]",
		"reserved": "['default', 'kube-node-lease', 'kube-public', 'kube-system']",
	}, given(p))
	require.Contains(t, policy, given(p)["reserved"])
	require.Contains(t, policy, given(p)["editorGroups"])
}

func given(p *admissionv1.ValidatingAdmissionPolicy) map[string]string {
	all := map[string]string{}
	for _, v := range p.Spec.Variables {
		switch v.Name {
		case "editorGroups", "editorUsers", "prefix", "listed", "reserved":
			all[v.Name] = v.Expression
		}
	}
	return all
}

func TestOptionsStayInsideTheirLiterals(t *testing.T) {
	p, _, err := Render(Options{
		Name: "x", EditorGroups: []string{`a'] + ['system:authenticated`, `b\`, "c\nd"},
		EditorUsers: []string{"system:serviceaccount:logs:editor"}, Prefix: "tenant-", Listed: []string{"acme-batch"},
	})
	require.NoError(t, err)
	require.Equal(t, map[string]string{
		"editorGroups": `['a\'] + [\'system:authenticated', 'b\\', 'c\u000ad']`, "editorUsers": "['system:serviceaccount:logs:editor']",
		"prefix": "'tenant-'", "listed": "['acme-batch']", "reserved": "[]",
	}, given(p))
}

func TestOptionsThatLetNobodyOrEverybodyNameTenantsAreRefused(t *testing.T) {
	for name, test := range map[string]struct {
		options Options
		want    string
	}{
		"no name":    {Options{EditorGroups: []string{"x"}}, "has no name"},
		"nobody":     {Options{Name: "x"}, "nobody is named"},
		"everybody":  {Options{Name: "x", EditorGroups: []string{"system:authenticated"}}, "everybody is in it"},
		"all robots": {Options{Name: "x", EditorGroups: []string{"system:serviceaccounts"}}, "everybody is in it"},
		"anonymous":  {Options{Name: "x", EditorUsers: []string{"system:anonymous"}}, "may not name tenants"},
		"a list":     {Options{Name: "x", EditorGroups: []string{"x"}, Listed: []string{"A"}}, "not a namespace's name"},
	} {
		_, _, err := Render(test.options)
		require.ErrorContains(t, err, test.want, name)
	}
}
