package main

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/eks-tenant-logs/eks-tenant-logs/e2e/docs"
)

// check holds a command line to the real command: the command, its flags and their values' types
// and, where no word was left out, its arguments.
func check(args []string) error {
	elided := func(word string) bool { return strings.Trim(word, "….") == "" }
	cmd, rest, err := root().Find(slices.DeleteFunc(slices.Clone(args), elided))
	if err != nil {
		return err
	}
	cmd.InitDefaultHelpFlag()
	cmd.InitDefaultVersionFlag()
	if err := cmd.ParseFlags(rest); err != nil {
		return err
	}
	if help, err := cmd.Flags().GetBool("help"); err != nil || help || !cmd.Runnable() || slices.ContainsFunc(args, elided) {
		return err
	}
	if err := cmd.ValidateArgs(cmd.Flags().Args()); err != nil && !slices.ContainsFunc(cmd.Flags().Args(), docs.Placeholder) {
		return err
	}
	return nil
}

// quoted are strings of Terraform's language, in which commands stand.
var quoted = regexp.MustCompile(`"((?:[^"\\]|\\.)*)"`)

// told are all the command lines that the documentation and the examples have.
func told(t *testing.T) (lines []string, all []docs.Command) {
	t.Helper()
	add := func(p docs.Page, line int, words []string) {
		lines = append(lines, p.Where(line))
		all = append(all, docs.Command{Line: line, Words: words})
	}
	inStrings := func(p docs.Page, l docs.Line) {
		for _, m := range quoted.FindAllStringSubmatch(l.Text, -1) {
			for _, words := range docs.Split(strings.ReplaceAll(m[1], `\"`, `"`)) {
				add(p, l.Number, words)
			}
		}
	}
	pages, err := docs.Pages("..")
	require.NoError(t, err)
	for _, p := range pages {
		for _, c := range p.Commands() {
			add(p, c.Line, c.Words)
		}
		for _, b := range p.Blocks {
			for _, l := range b.Lines {
				if b.Language == "hcl" {
					inStrings(p, l)
				}
			}
		}
		// In a sentence the rest of a command may be left out: its flags are looked at.
		for _, s := range p.Spans {
			for _, words := range docs.Split(s.Text) {
				add(p, s.Number, append(words, "…"))
			}
		}
	}
	examples, err := docs.Files("..", ".tf", ".sh", "NOTES.txt")
	require.NoError(t, err)
	for _, name := range examples {
		text, err := os.ReadFile(filepath.Join("..", filepath.FromSlash(name)))
		require.NoError(t, err)
		p := docs.Read(name, string(text))
		for _, l := range p.Text {
			inStrings(p, l)
		}
		if !strings.HasSuffix(name, ".tf") {
			for _, c := range docs.Read(name, "```sh\n"+string(text)+"\n```").Commands() {
				add(p, c.Line-1, c.Words)
			}
		}
	}
	return lines, all
}

func TestEveryCommandLineOfTheDocumentationIsOneOfThisProgram(t *testing.T) {
	lines, all := told(t)
	seen := map[string]bool{}
	for i, c := range all {
		args, ok := c.Arguments("tenantlogs", "./provisioner")
		if !ok || len(args) == 0 {
			continue
		}
		seen[args[0]] = true
		require.NoError(t, check(args), "%s: tenantlogs %s", lines[i], strings.Join(args, " "))
	}
	for _, cmd := range root().Commands() {
		if cmd.Name() != "help" && cmd.Name() != "completion" {
			require.True(t, seen[cmd.Name()], "no page shows tenantlogs %s", cmd.Name())
		}
	}
}

func TestACommandLineThatThisProgramWouldRefuseIsFound(t *testing.T) {
	for line, want := range map[string]string{
		"tenantlogs list":                               "unknown command",
		"tenantlogs plan --clustr demo":                 "unknown flag",
		"tenantlogs retire":                             "accepts 1 arg",
		"tenantlogs retire acme globex":                 "accepts 1 arg",
		"tenantlogs policy owner":                       "invalid argument",
		"tenantlogs plan acme":                          "unknown command",
		"tenantlogs plan --log-retention-days a":        "invalid argument",
		"tenantlogs retire <tenant> --cluster c":        "",
		"tenantlogs policy $NAME --region r --tenant x": "",
		"tenantlogs plan … --cluster c":                 "",
		"tenantlogs apply --help":                       "",
	} {
		c := docs.Command{Words: docs.Split(line)[0]}
		args, ok := c.Arguments("tenantlogs", "")
		require.True(t, ok)
		err := check(args)
		if want == "" {
			require.NoError(t, err, line)
		} else {
			require.ErrorContains(t, err, want, line)
		}
	}
}
