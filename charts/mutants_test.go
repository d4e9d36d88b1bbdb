package charts

import (
	"flag"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"sigs.k8s.io/yaml"
)

var mutate = flag.Bool("mutate", false, "change every alert in every way, and see its cases fail: minutes")

var (
	comparison = regexp.MustCompile(` ([<>]) [0-9.]+`)
	clause     = regexp.MustCompile(`\n *(?:unless|and|or)\b`)
)

// mutants are a rule with one thing changed, by what it is: it never fires, it fires at once, a
// bound is none, a clause is gone.
func mutants(r rule) map[string]rule {
	all := map[string]rule{}
	with := func(what, expr string) {
		m := r
		m.Expr = expr
		all[what] = m
	}
	with("never", "vector(0) > 1")
	if r.For != "" {
		m := r
		m.For = ""
		all["at once"] = m
	}
	for _, at := range comparison.FindAllStringSubmatchIndex(r.Expr, -1) {
		loose := " >= -1e18"
		if r.Expr[at[2]:at[3]] == "<" {
			loose = " < 1e18"
		}
		with("without"+r.Expr[at[0]:at[1]], r.Expr[:at[0]]+loose+r.Expr[at[1]:])
	}
	if strings.Contains(r.Expr, "== 1") {
		with("without == 1", strings.ReplaceAll(r.Expr, "== 1", ">= 0"))
	}
	for _, at := range clause.FindAllStringIndex(r.Expr, -1) {
		// Within brackets there is no expression before it.
		if rest := r.Expr[:at[0]]; strings.Count(rest, "(") == strings.Count(rest, ")") {
			with("up to"+r.Expr[at[0]:at[1]], rest)
		}
	}
	return all
}

// A case that can't fail shows nothing.
func TestCasesFailWhereTheirAlertIsChanged(t *testing.T) {
	if !*mutate {
		t.Skip("takes minutes: go test ./charts -run CasesFail -mutate")
	}
	folder := t.TempDir()
	cases := filepath.Join(folder, "tests", "promtool")
	require.NoError(t, os.CopyFS(cases, os.DirFS(promtoolTests)))
	require.NoError(t, os.Mkdir(filepath.Join(folder, "files"), 0o755))
	n := 0
	for g := range alerts(t).Groups {
		for i, r := range alerts(t).Groups[g].Rules {
			for what, mutant := range mutants(r) {
				changed := alerts(t)
				changed.Groups[g].Rules[i] = mutant
				text, err := yaml.Marshal(changed)
				require.NoError(t, err)
				require.NoError(t, os.WriteFile(filepath.Join(folder, "files", "alerts.yaml"), text, 0o600))
				// Cases that name it, and the one in which there is nothing at all.
				out, err := promtool(t, "test", "rules", "--run", r.Alert+"|at all", filepath.Join(cases, "alerts.yaml"), filepath.Join(cases, "days.yaml"))
				require.Error(t, err, "%s, %s: no case fails: %s\n%s", r.Alert, what, mutant.Expr, out)
				require.Contains(t, out, "FAILED", "%s, %s", r.Alert, what)
				n++
			}
		}
	}
	t.Logf("%d changes, each seen by a case", n)
}
