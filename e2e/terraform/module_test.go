package terraform

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/hashicorp/hcl/v2/hclwrite"
	"github.com/stretchr/testify/require"
	"github.com/zclconf/go-cty/cty"
)

const (
	example = "../../docs/terraform"
	account = "111122223333"
)

// TestMain is jq, too, as far as the example needs it: not every machine has one.
func TestMain(m *testing.M) {
	if filepath.Base(os.Args[0]) == "jq" {
		var v json.RawMessage
		if len(os.Args) != 2 || os.Args[1] != "{json: tojson}" || json.NewDecoder(os.Stdin).Decode(&v) != nil {
			os.Exit(3)
		}
		if json.NewEncoder(os.Stdout).Encode(map[string]string{"json": string(v)}) != nil {
			os.Exit(5)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// tools is a folder with the real tenantlogs, and jq.
func tools(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	build := exec.Command("go", "build", "-o", filepath.Join(dir, "tenantlogs"), "./provisioner")
	build.Dir = "../.."
	out, err := build.CombinedOutput()
	require.NoError(t, err, string(out))
	self, err := os.Executable()
	require.NoError(t, err)
	require.NoError(t, os.Symlink(self, filepath.Join(dir, "jq")))
	t.Setenv("PATH", dir+string(os.PathListSeparator)+os.Getenv("PATH"))
	return dir
}

// answers are those of AWS and of the external data source, whose program is run.
func answers(kind string, attributes map[string]cty.Value) (map[string]cty.Value, error) {
	switch kind {
	case "aws_caller_identity":
		return map[string]cty.Value{"account_id": cty.StringVal(account)}, nil
	case "aws_partition":
		return map[string]cty.Value{"partition": cty.StringVal("aws-us-gov")}, nil
	case "external":
		var program []string
		for _, v := range attributes["program"].AsValueSlice() {
			program = append(program, v.AsString())
		}
		cmd := exec.Command(program[0], program[1:]...)
		cmd.Env = []string{"PATH=" + os.Getenv("PATH")}
		out, err := cmd.Output()
		if err != nil {
			return nil, fmt.Errorf("%s: %w", strings.Join(program[3:], " "), err)
		}
		var result map[string]string
		if err := json.Unmarshal(out, &result); err != nil {
			return nil, err
		}
		values := map[string]cty.Value{}
		for k, v := range result {
			values[k] = cty.StringVal(v)
		}
		return map[string]cty.Value{"result": cty.MapVal(values)}, nil
	}
	return nil, fmt.Errorf("a data source %s is not known here", kind)
}

// added is what IAM makes of a name and a path.
func added(kind string, attributes map[string]cty.Value) map[string]cty.Value {
	what := map[string]string{"aws_iam_role": "role", "aws_iam_policy": "policy"}[kind]
	if what == "" {
		return nil
	}
	return map[string]cty.Value{"arn": cty.StringVal("arn:aws-us-gov:iam::" + account + ":" + what + attributes["path"].AsString() + attributes["name"].AsString())}
}

func load(t *testing.T, values map[string]cty.Value) map[string]cty.Value {
	t.Helper()
	values["cluster"], values["region"] = cty.StringVal("prod"), cty.StringVal("us-gov-west-1")
	m, err := Load(example, values)
	require.NoError(t, err)
	m.data, m.computed = answers, added
	all, err := m.Resources()
	require.NoError(t, err)
	return all
}

// tell runs tenantlogs for the same cluster.
func tell(t *testing.T, dir string, args ...string) string {
	t.Helper()
	cmd := exec.Command(filepath.Join(dir, "tenantlogs"), append([]string{"policy", "--region", "us-gov-west-1", "--account", account, "--cluster", "prod"}, args...)...)
	cmd.Env = []string{"PATH=" + os.Getenv("PATH")}
	out, err := cmd.Output()
	require.NoError(t, err)
	return string(out)
}

// meaning is a policy without what makes no difference: statements' names, the order of lists, and
// whether one value stands in a list.
func meaning(t *testing.T, policy string) any {
	t.Helper()
	var v any
	require.NoError(t, json.Unmarshal([]byte(policy), &v), policy)
	return plain(v)
}

func plain(v any) any {
	switch v := v.(type) {
	case map[string]any:
		delete(v, "Sid")
		for k := range v {
			v[k] = plain(v[k])
		}
		return v
	case []any:
		if len(v) == 1 {
			return plain(v[0])
		}
		for i := range v {
			v[i] = plain(v[i])
		}
		slices.SortFunc(v, func(a, b any) int { return strings.Compare(fmt.Sprint(a), fmt.Sprint(b)) })
	}
	return v
}

func at(v cty.Value, path ...string) cty.Value {
	for _, p := range path {
		v = v.GetAttr(p)
	}
	return v
}

func TestTheExampleMakesWhatBootstrapMakes(t *testing.T) {
	dir := tools(t)
	const provider = "oidc.eks.us-gov-west-1.amazonaws.com/id/EXAMPLE"
	for _, test := range []struct {
		identity, oidc string
		trust          []string
		associations   int
	}{
		{"pod-identity", "", []string{"--trust-pod-identity"}, 2},
		{"irsa", provider, []string{"--trust-oidc-provider", provider, "--trust-irsa"}, 0},
	} {
		t.Run(test.identity, func(t *testing.T) {
			auditor := "arn:aws-us-gov:iam::" + account + ":role/audit"
			all := load(t, map[string]cty.Value{
				"identity": cty.StringVal(test.identity), "oidc_provider": cty.StringVal(test.oidc),
				"auditors": cty.TupleVal([]cty.Value{cty.StringVal(auditor)}),
			})
			for purpose, account := range map[string]string{"writer": "eks-tenant-logs-fluent-bit", "provisioner": "eks-tenant-logs-provisioner"} {
				want := tell(t, dir, append(append([]string{"trust", "--tenant", "x"}, test.trust...), "logs/"+account)...)
				require.Equal(t, meaning(t, want), meaning(t, at(all["aws_iam_role.cluster"], purpose, "assume_role_policy").AsString()), purpose)
			}
			require.Equal(t, meaning(t, tell(t, dir, "trust", "--tenant", "x", "--trust-principal", auditor)), meaning(t, at(all["aws_iam_role.cluster"], "auditor", "assume_role_policy").AsString()))
			require.Contains(t, at(all["aws_iam_role.cluster"], "replay", "assume_role_policy").AsString(), `"Effect":"Deny"`)
			for _, purpose := range []string{"writer", "provisioner", "auditor", "replay"} {
				require.Equal(t, meaning(t, tell(t, dir, purpose)), meaning(t, at(all["aws_iam_role_policy.cluster"], purpose, "policy").AsString()))
				require.False(t, strings.HasPrefix(at(all["aws_iam_role.cluster"], purpose, "name").AsString(), "eks-tenant-logs_"), "the provisioner may change roles of such names")
			}
			require.Equal(t, meaning(t, tell(t, dir, "boundary")), meaning(t, at(all["aws_iam_policy.boundary"], "policy").AsString()))
			require.Contains(t, tell(t, dir, "provisioner"), `"iam:PermissionsBoundary": "`+at(all["aws_iam_policy.boundary"], "arn").AsString()+`"`)
			require.Equal(t, test.associations, all["aws_eks_pod_identity_association.cluster"].LengthInt())
			require.Equal(t, 0, all["aws_iam_role.reader"].LengthInt())
		})
	}
}

func TestTheExamplesReaderRolesAreWithinTheBoundaryAndSetNoTags(t *testing.T) {
	dir := tools(t)
	team := "arn:aws-us-gov:iam::" + account + ":role/team-acme"
	all := load(t, map[string]cty.Value{"readers": cty.ObjectVal(map[string]cty.Value{"acme": cty.TupleVal([]cty.Value{cty.StringVal(team)})})})
	role := at(all["aws_iam_role.reader"], "acme")
	require.Equal(t, at(all["aws_iam_policy.boundary"], "arn"), at(role, "permissions_boundary"))
	require.Equal(t, meaning(t, tell(t, dir, "trust", "--tenant", "acme", "--trust-principal", team)), meaning(t, at(role, "assume_role_policy").AsString()))
	require.Equal(t, meaning(t, tell(t, dir, "reader", "--tenant", "acme")), meaning(t, at(all["aws_iam_role_policy.reader"], "acme", "policy").AsString()))
	tags := at(role, "tags").AsValueMap()
	require.Equal(t, []string{"eks-tenant-logs/cluster", "eks-tenant-logs/tenant"}, Names(tags))
	require.Equal(t, "acme", tags["eks-tenant-logs/tenant"].AsString())
}

func TestTheExampleIsInTerraformsForm(t *testing.T) {
	files, err := filepath.Glob(filepath.Join(example, "*.tf"))
	require.NoError(t, err)
	require.NotEmpty(t, files)
	for _, name := range files {
		text, err := os.ReadFile(name)
		require.NoError(t, err)
		require.Equal(t, string(hclwrite.Format(text)), string(text), name)
	}
}

func TestWhatIsDeclaredNowhereIsFound(t *testing.T) {
	for text, says := range map[string]string{
		"output \"x\" {\n value = local.gone\n}":                                       "there is no local.gone",
		"output \"x\" {\n value = aws_iam_role.gone.arn\n}":                            "there is no aws_iam_role.gone",
		"resource \"a\" \"b\" {\n name = var.gone\n}":                                  "gone",
		"locals {\n a = local.b\n b = local.a\n}\noutput \"x\" {\n value = local.a\n}": "it needs itself",
	} {
		dir := t.TempDir()
		require.NoError(t, os.WriteFile(filepath.Join(dir, "main.tf"), []byte(text), 0o600))
		m, err := Load(dir, nil)
		require.NoError(t, err)
		m.data, m.computed = answers, added
		_, err = m.Resources()
		require.ErrorContains(t, err, says)
	}
	_, err := Load(example, map[string]cty.Value{"identity": cty.StringVal("keys"), "cluster": cty.StringVal("x"), "region": cty.StringVal("y")})
	require.ErrorContains(t, err, "is not valid")
}
