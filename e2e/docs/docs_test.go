package docs

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

const root = "../.."

func pages(t *testing.T) []Page {
	t.Helper()
	all, err := Pages(root)
	require.NoError(t, err)
	require.Greater(t, len(all), 10)
	return all
}

// broken are the links that go nowhere. Pages of others are not looked at: CI has no business on
// the network.
func broken(all []Page, exists func(file string) bool) (wrong []string) {
	for _, p := range all {
		for _, l := range p.Links {
			if Outside(l.Target) {
				continue
			}
			file, anchor := p.Resolve(l.Target)
			if !exists(file) {
				wrong = append(wrong, p.Where(l.Line)+": there is no "+file)
				continue
			}
			i := slices.IndexFunc(all, func(q Page) bool { return q.Path == file })
			if anchor != "" && i >= 0 && !slices.Contains(all[i].Anchors, anchor) {
				wrong = append(wrong, p.Where(l.Line)+": "+file+" has no heading #"+anchor)
			}
		}
	}
	return wrong
}

func TestEveryLinkAndAnchorIsThere(t *testing.T) {
	require.Empty(t, broken(pages(t), func(file string) bool {
		_, err := os.Stat(filepath.Join(root, filepath.FromSlash(file)))
		return err == nil
	}))
}

// A page that nothing leads to is not read.
func TestEveryFileOfTheDocumentationIsReachedFromTheReadme(t *testing.T) {
	all := pages(t)
	reached := map[string]bool{}
	var follow func(file string)
	follow = func(file string) {
		if reached[file] {
			return
		}
		reached[file] = true
		for _, p := range all {
			// A folder that is linked is one whose files are seen.
			if p.Path != file && path.Dir(p.Path) != file {
				continue
			}
			reached[p.Path] = true
			for _, l := range p.Links {
				if !Outside(l.Target) {
					to, _ := p.Resolve(l.Target)
					follow(to)
				}
			}
		}
	}
	follow("README.md")
	files, err := Files(filepath.Join(root, "docs"), "")
	require.NoError(t, err)
	for _, name := range files {
		name = path.Join("docs", name)
		require.True(t, reached[name] || reached[path.Dir(name)] && path.Dir(name) != "docs", "nothing links %s", name)
	}
}

var testName = regexp.MustCompile(`\bTest[A-Z][A-Za-z0-9]*[a-z][A-Za-z0-9]*\b`)

// Documentation says by which test a thing is shown: that test must be there.
func TestEveryTestThatIsNamedExists(t *testing.T) {
	files, err := Files(root, "_test.go")
	require.NoError(t, err)
	var names []string
	for _, name := range files {
		f, err := parser.ParseFile(token.NewFileSet(), filepath.Join(root, filepath.FromSlash(name)), nil, parser.SkipObjectResolution)
		require.NoError(t, err)
		for _, d := range f.Decls {
			if fn, ok := d.(*ast.FuncDecl); ok {
				names = append(names, fn.Name.Name)
			}
		}
	}
	for _, p := range pages(t) {
		for _, line := range p.Text {
			for _, name := range testName.FindAllString(line.Text, -1) {
				// go test -run takes the beginning of a name.
				require.True(t, slices.ContainsFunc(names, func(n string) bool { return strings.HasPrefix(n, name) }), "%s: there is no %s", p.Where(line.Number), name)
			}
		}
	}
}

func TestEveryTargetOfMakeThatIsNamedExists(t *testing.T) {
	makefile, err := os.ReadFile(filepath.Join(root, "Makefile"))
	require.NoError(t, err)
	var targets []string
	for _, m := range regexp.MustCompile(`(?m)^([a-z0-9-]+):`).FindAllStringSubmatch(string(makefile), -1) {
		targets = append(targets, m[1])
	}
	require.Contains(t, targets, "test")
	for _, p := range pages(t) {
		lines := p.Commands()
		for _, s := range p.Spans {
			for _, words := range Split(s.Text) {
				lines = append(lines, Command{s.Number, words})
			}
		}
		for _, c := range lines {
			args, ok := c.Arguments("make", "")
			for _, a := range args {
				if ok && !strings.ContainsAny(a, "=-") && !Placeholder(a) {
					require.Contains(t, targets, a, "%s: make %s", p.Where(c.Line), a)
				}
			}
		}
	}
}

func TestLinksThatGoNowhereAreFound(t *testing.T) {
	a := Read("docs/a.md", "# A b\n\n[x](b.md#what-it-is) [y](b.md#nothing) [z](../README.md)\n`[not](one.md)`\n```\n[nor](this.md)\n```\n[c]: gone.md\n[d](#a-b) ![](http://x/y.png)")
	b := Read("docs/b.md", "## What `it` is?\n### What it is\n## [linked](a.md), \"quoted\"")
	require.Equal(t, []string{"what-it-is", "what-it-is-1", "linked-quoted"}, b.Anchors)
	there := []string{"docs/a.md", "docs/b.md"}
	require.Equal(t, []string{
		"docs/a.md:3: docs/b.md has no heading #nothing", "docs/a.md:3: there is no README.md", "docs/a.md:8: there is no docs/gone.md",
	}, broken([]Page{a, b}, func(file string) bool { return slices.Contains(there, file) }))
}

func TestCommandsAreReadAsAShellWould(t *testing.T) {
	for line, want := range map[string][][]string{
		`tenantlogs plan -o json > plan.json 2>&1`:                  {{"tenantlogs", "plan", "-o", "json"}},
		`a 'b c' "d $x" e\ f # comment`:                             {{"a", "b c", "d $x", "e f"}},
		`A=1 a | b && c; d`:                                         {{"A=1", "a"}, {"b"}, {"c"}, {"d"}},
		`a --namespace x=$(kubectl get ns x -o name)`:               {{"a", "--namespace", "x=$()"}, {"kubectl", "get", "ns", "x", "-o", "name"}},
		`a "$(tenantlogs policy reader | jq .)" b`:                  {{"a", "$()", "b"}, {"tenantlogs", "policy", "reader"}, {"jq", "."}},
		`a --trust-principal 'arn:x/$(tenant)' $(tenant)`:           {{"a", "--trust-principal", "arn:x/$(tenant)", "$(tenant)"}},
		`tenantlogs retire <tenant> --namespace <a name>=<its uid>`: {{"tenantlogs", "retire", "<tenant>", "--namespace", "<a name>=<its uid>"}},
	} {
		require.Equal(t, want, Split(line), line)
	}
	p := Read("x.md", "```console\n$ tenantlogs plan \\\n    --cluster c\nTENANT  tenantlogs\n```\n```sh\nkubectl exec x -- tenantlogs tenants\nX=1 go run ./provisioner policy kms …\necho tenantlogs\n```\n```hcl\ntenantlogs\n```")
	var got [][]string
	for _, c := range p.Commands() {
		if args, ok := c.Arguments("tenantlogs", "./provisioner"); ok {
			got = append(got, args)
			require.Equal(t, len(got) == 3, slices.ContainsFunc(args, Placeholder))
		}
	}
	require.Equal(t, [][]string{{"plan", "--cluster", "c"}, {"tenants"}, {"policy", "kms", "…"}}, got)
}
