package release

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"sigs.k8s.io/yaml"

	"github.com/eks-tenant-logs/eks-tenant-logs/e2e/environment"
	"github.com/eks-tenant-logs/eks-tenant-logs/internal/fluentbit"
)

func dockerfile(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile("../Dockerfile")
	require.NoError(t, err)
	return string(text)
}

// base is what an ARG of the Dockerfile stands on.
func base(t *testing.T, variable string) string {
	t.Helper()
	m := regexp.MustCompile(`(?m)^ARG `+variable+`=(\S+)$`).FindAllStringSubmatch(dockerfile(t), -1)
	require.Len(t, m, 1, "%s is in one place", variable)
	return m[0][1]
}

func TestTheFluentBitOfTheImageIsOneThePluginTakes(t *testing.T) {
	image, _, _ := strings.Cut(base(t, "FLUENT_BIT_IMAGE"), "@")
	v, ok := fluentbit.Parse(image[strings.LastIndex(image, ":")+1:])
	require.True(t, ok, "%s names a whole version: latest is not one", image)
	require.NoError(t, fluentbit.Check(v))
}

func TestTheGoOfTheImageBuildsTheModule(t *testing.T) {
	said, err := exec.Command("./go-version").Output()
	require.NoError(t, err)
	list := exec.Command("go", "list", "-m", "-f", "{{.GoVersion}}")
	list.Env = environment.Machine()
	mod, err := list.Output()
	require.NoError(t, err)
	goVersion, needed := strings.TrimSpace(string(said)), strings.TrimSpace(string(mod))
	require.Regexp(t, `^\d+\.\d+\.\d+$`, goVersion)
	require.False(t, newer(needed, goVersion), "go.mod needs %s, the image is built with %s", needed, goVersion)
}

// What .dockerignore keeps back is not there for the build, which only `make image` would notice.
func TestTheBuildIsGivenAllThatTheProgramsAreMadeOf(t *testing.T) {
	text, err := os.ReadFile("../.dockerignore")
	require.NoError(t, err)
	var given []string
	for _, m := range regexp.MustCompile(`(?m)^!(\S+)$`).FindAllStringSubmatch(string(text), -1) {
		given = append(given, m[1])
	}
	made := regexp.MustCompile(`(?m)^RUN make (\S+) `).FindAllStringSubmatch(dockerfile(t), -1)
	require.NotEmpty(t, made)
	list := exec.Command("go", "list", "-deps", "-f", "{{with .Module}}{{if .Main}}{{$.ImportPath}}{{end}}{{end}}")
	for _, m := range made {
		list.Args = append(list.Args, "./"+m[1]) // a program's target has its folder's name
	}
	list.Dir, list.Env = "..", append(environment.Machine(), "CGO_ENABLED=1")
	out, err := list.Output()
	require.NoError(t, err)
	packages := strings.Fields(string(out))
	require.Greater(t, len(packages), len(made))
	for _, name := range packages {
		folder, _, _ := strings.Cut(strings.TrimPrefix(name, "github.com/eks-tenant-logs/eks-tenant-logs/"), "/")
		require.Contains(t, given, folder, name)
	}
}

func TestNothingRunsInWhatIsPublished(t *testing.T) {
	stages := regexp.MustCompile(`(?m)^FROM .* AS (\S+)$`).Split(dockerfile(t), -1)
	names := regexp.MustCompile(`(?m)^FROM .* AS (\S+)$`).FindAllStringSubmatch(dockerfile(t), -1)
	found := 0
	for i, name := range names {
		if _, published := images[name[1]]; !published {
			continue
		}
		found++
		require.NotRegexp(t, `(?m)^(RUN|ADD|SHELL|HEALTHCHECK) `, stages[i+1], "%s is made without a shell, by copying", name[1])
		require.Regexp(t, `(?m)^USER \d+:\d+$`, stages[i+1], "runAsNonRoot is checked by number")
	}
	require.Equal(t, len(images), found)
}

func TestTheChartRunsTheImagesAsTheyAre(t *testing.T) {
	text, err := os.ReadFile("../charts/eks-tenant-logs/values.yaml")
	require.NoError(t, err)
	type image struct{ Repository, Tag, Digest string }
	var values struct {
		FluentBit struct {
			Image              image
			PluginPath         string
			LauncherPath       string
			PodSecurityContext struct{ RunAsUser, RunAsGroup int }
		}
		Provisioner struct {
			Image              image
			PodSecurityContext struct{ RunAsUser, RunAsGroup int }
		}
	}
	require.NoError(t, yaml.Unmarshal(text, &values))
	workflow, err := os.ReadFile("../.github/workflows/release.yaml")
	require.NoError(t, err)
	registry := regexp.MustCompile(`(?m)^  REGISTRY: (\S+)$`).FindSubmatch(workflow)
	require.NotNil(t, registry)
	require.Equal(t, string(registry[1])+"/fluent-bit", values.FluentBit.Image.Repository, "the release pushes what the chart pulls")
	require.Equal(t, string(registry[1])+"/provisioner", values.Provisioner.Image.Repository)
	require.Equal(t, "/"+images["fluent-bit"].programs[0], values.FluentBit.PluginPath)
	require.Equal(t, "/"+images["fluent-bit"].programs[1], values.FluentBit.LauncherPath)
	require.Equal(t, 65532, values.Provisioner.PodSecurityContext.RunAsUser)
	require.Equal(t, 65532, values.Provisioner.PodSecurityContext.RunAsGroup)
	require.Zero(t, values.FluentBit.PodSecurityContext.RunAsUser)

	for target, want := range images {
		for _, program := range want.programs {
			require.Contains(t, dockerfile(t), " /"+program+"\n", target)
		}
		require.Contains(t, dockerfile(t), "USER "+want.user+"\n", target)
	}
	daemonset, err := os.ReadFile("../charts/eks-tenant-logs/templates/fluent-bit/daemonset.yaml")
	require.NoError(t, err)
	require.Contains(t, string(daemonset), "command: ["+images["fluent-bit"].entrypoint[0]+"]")
	require.Contains(t, string(daemonset), "- "+images["fluent-bit"].cmd[1]+"\n")
}

func TestNotesAreWhatTheChangelogSaysOfOneVersion(t *testing.T) {
	changelog := filepath.Join(t.TempDir(), "CHANGELOG.md")
	require.NoError(t, os.WriteFile(changelog, []byte(`# Changelog

## [Unreleased]

- not yet

## [1.10.0] - 2027-02-03

### Added

- ten

## [1.1.0] - 2027-01-02

- one

[1.1.0]: https://example.com
`), 0o600))
	out, err := do(t, nil, "./notes", "1.10.0", changelog)
	require.NoError(t, err, out)
	require.Equal(t, "### Added\n\n- ten\n\nHow to verify images, chart and files: docs/release.md.", out)
	out, err = do(t, nil, "./notes", "1.1.0", changelog)
	require.NoError(t, err, out)
	require.NotContains(t, out, "ten")
	require.NotContains(t, out, "example.com")
	out, err = do(t, nil, "./notes", "1.1", changelog)
	require.Error(t, err)
	require.Contains(t, out, "says nothing of 1.1")
}
