package charts

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/eks-tenant-logs/eks-tenant-logs/e2e/docs"
)

// What the documentation tells people to install renders: the schema knows every value, and the
// chart's own checks have nothing against them together.
func TestInstallationsThatTheDocumentationTellsOfRender(t *testing.T) {
	pages, err := docs.Pages("..")
	require.NoError(t, err)
	rendered := 0
	for _, p := range pages {
		values := writeValues(t, p)
		for _, c := range p.Commands() {
			if len(c.Words) < 3 || c.Words[0] != "helm" || c.Words[1] != "install" || !slices.Contains(c.Words, "charts/eks-tenant-logs") {
				continue
			}
			args := slices.Clone(c.Words[2:])
			for i, a := range args {
				switch a {
				case "charts/eks-tenant-logs":
					args[i] = chart
				case "values.yaml":
					require.NotEmpty(t, values, "%s: the page shows no values.yaml", p.Where(c.Line))
					args[i] = values[0]
				}
			}
			given := [][]string{args}
			if slices.Contains(c.Words, "values.yaml") {
				// Further blocks replace a part of the first.
				for _, v := range values[1:] {
					given = append(given, append(slices.Clone(args), "--values", v))
				}
			}
			for _, args := range given {
				out, err := template(t, args...)
				require.NoError(t, err, "%s: helm template %s", p.Where(c.Line), strings.Join(args, " "))
				require.Contains(t, out, "kind: DaemonSet", p.Where(c.Line))
				rendered++
			}
		}
	}
	require.GreaterOrEqual(t, rendered, 3)
}

// writeValues are files with a page's blocks that begin with "# values.yaml".
func writeValues(t *testing.T, p docs.Page) (files []string) {
	t.Helper()
	for _, b := range p.Blocks {
		if b.Language != "yaml" || len(b.Lines) == 0 || strings.TrimSpace(b.Lines[0].Text) != "# values.yaml" {
			continue
		}
		var text strings.Builder
		for _, l := range b.Lines {
			// … stands for what is known only once it is made.
			text.WriteString(strings.ReplaceAll(l.Text, "…", "x") + "\n")
		}
		name := filepath.Join(t.TempDir(), "values.yaml")
		require.NoError(t, os.WriteFile(name, []byte(text.String()), 0o600))
		files = append(files, name)
	}
	return files
}
