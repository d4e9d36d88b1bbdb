package release

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"sigs.k8s.io/yaml"
)

// workflow is what of a GitHub workflow is held to rules here; actionlint checks the rest.
type workflow struct {
	On          map[string]any
	Permissions map[string]string
	Jobs        map[string]job
}

type job struct {
	Permissions map[string]string
	Environment string
	Uses        string
	TimeoutMin  int `json:"timeout-minutes"`
	Steps       []step
}

type step struct {
	Uses, Run string
	With      map[string]any
}

func workflows(t *testing.T) map[string]workflow {
	t.Helper()
	files, err := filepath.Glob("../.github/workflows/*.yaml")
	require.NoError(t, err)
	other, err := filepath.Glob("../.github/workflows/*.yml")
	require.NoError(t, err)
	require.Empty(t, other)
	require.NotEmpty(t, files)
	all := map[string]workflow{}
	for _, file := range files {
		text, err := os.ReadFile(file)
		require.NoError(t, err)
		var w workflow
		require.NoError(t, yaml.Unmarshal(text, &w), file)
		all[filepath.Base(file)] = w
	}
	return all
}

func TestWorkflowsHoldNoMorePermissionsThanTheyUse(t *testing.T) {
	// What may write, and nothing else does.
	writes := map[string][]string{
		"release.yaml/images":  {"attestations", "id-token", "packages"},
		"release.yaml/chart":   {"id-token", "packages"},
		"release.yaml/publish": {"attestations", "contents", "id-token"},
	}
	seen := 0
	for file, w := range workflows(t) {
		require.NotNil(t, w.Permissions, "%s: permissions: {} at the top", file)
		require.Empty(t, w.Permissions, file)
		require.NotContains(t, w.On, "pull_request_target", "it runs with the repository's token on what a stranger wrote")
		require.NotContains(t, w.On, "workflow_run")
		for name, j := range w.Jobs {
			id := file + "/" + name
			require.NotNil(t, j.Permissions, "%s says what it may", id)
			var written []string
			for scope, level := range j.Permissions {
				require.Contains(t, []string{"read", "write"}, level, id)
				if level == "write" {
					written = append(written, scope)
				}
			}
			slices.Sort(written)
			require.Equal(t, writes[id], written, id)
			if written != nil {
				seen++
				require.Equal(t, "release", j.Environment, "%s publishes: a person approves it", id)
			}
			require.True(t, j.Uses != "" || j.TimeoutMin > 0, "%s ends some day", id)
		}
	}
	require.Len(t, writes, seen)
}

var (
	pinned = regexp.MustCompile(`^[^@\s]+@[0-9a-f]{40}$`)
	// An expression in a script is pasted into it; through `env` it is a string.
	expression = regexp.MustCompile(`\$\{\{`)
)

func TestWorkflowsRunNothingThatIsNotPinned(t *testing.T) {
	actions := map[string]string{}
	for file, w := range workflows(t) {
		for name, j := range w.Jobs {
			if j.Uses != "" {
				require.True(t, strings.HasPrefix(j.Uses, "./.github/workflows/"), "%s/%s", file, name)
			}
			for _, s := range j.Steps {
				require.NotRegexp(t, expression, s.Run, "%s/%s: give it by env", file, name)
				if s.Uses == "" {
					continue
				}
				require.Regexp(t, pinned, s.Uses, "%s/%s", file, name)
				action, commit, _ := strings.Cut(s.Uses, "@")
				if before, found := actions[action]; found {
					require.Equal(t, before, commit, "%s is used in one version", action)
				}
				actions[action] = commit
				if action == "actions/checkout" {
					require.Equal(t, false, s.With["persist-credentials"], "%s/%s leaves no token in .git", file, name)
				}
			}
		}
	}
	require.NotEmpty(t, actions)
}

func TestWorkflowsSayWhichVersionACommitIs(t *testing.T) {
	files, err := filepath.Glob("../.github/workflows/*.yaml")
	require.NoError(t, err)
	for _, file := range files {
		text, err := os.ReadFile(file)
		require.NoError(t, err)
		for _, line := range strings.Split(string(text), "\n") {
			if strings.Contains(line, "uses: ") && !strings.Contains(line, "uses: ./") {
				require.Regexp(t, `@[0-9a-f]{40} # v\d+\.\d+\.\d+$`, line, file)
			}
		}
	}
}

func TestWhatIsPublishedWasTestedBefore(t *testing.T) {
	text, err := os.ReadFile("../.github/workflows/release.yaml")
	require.NoError(t, err)
	var w struct {
		Jobs map[string]struct{ Needs any }
	}
	require.NoError(t, yaml.Unmarshal(text, &w))
	needs := func(name string) (before []string) {
		switch n := w.Jobs[name].Needs.(type) {
		case string:
			before = append(before, n)
		case []any:
			for _, one := range n {
				before = append(before, one.(string))
			}
		}
		return before
	}
	var all func(string) []string
	all = func(name string) (before []string) {
		for _, n := range needs(name) {
			before = append(append(before, n), all(n)...)
		}
		return before
	}
	for _, job := range []string{"images", "chart", "publish"} {
		require.Subset(t, all(job), []string{"check", "ci", "artifacts", "image-e2e"}, job)
	}
	ci := workflows(t)["ci.yaml"].Jobs["ci"]
	require.True(t, slices.ContainsFunc(ci.Steps, func(s step) bool { return s.Run == "./.ci/run" }), "CI is .ci/run")
}
