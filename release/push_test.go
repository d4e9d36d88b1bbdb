package release

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// docker is a stand-in on PATH that writes down what it is asked, and metadata where it is told.
func docker(t *testing.T, metadata string) (asked func() []string, env []string) {
	t.Helper()
	dir := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(dir, "metadata"), []byte(metadata), 0o600))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "docker"), []byte(`#!/bin/sh
printf '%s\n' "$@" >"`+dir+`/asked"
echo "building"
while [ $# -gt 0 ]; do
  if [ "$1" = --metadata-file ]; then cp "`+dir+`/metadata" "$2"; fi
  shift
done
`), 0o700)) //nolint:gosec // it is run
	return func() []string {
		asked, err := os.ReadFile(filepath.Join(dir, "asked"))
		require.NoError(t, err)
		return strings.Split(strings.TrimSpace(string(asked)), "\n")
	}, []string{"PATH=" + dir + ":" + os.Getenv("PATH"), "VERSION=1.2.3"}
}

const (
	sum   = "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
	other = "sha256:fedcba9876543210fedcba9876543210fedcba9876543210fedcba9876543210"
)

func TestAnImageIsPushedOnPinnedBasesAndItsDigestIsAllThatIsPrinted(t *testing.T) {
	pinned := []string{"FLUENT_BIT_IMAGE=fluent-bit:5.1.1@" + sum, "GO_IMAGE=golang:1.26.8-bookworm@" + sum, "STATIC_IMAGE=static:nonroot@" + sum}
	asked, env := docker(t, "{\n  \"buildx.build.ref\": \"x\",\n  \"containerimage.config.digest\": \""+sum+"\",\n  \"containerimage.digest\": \""+other+"\",\n  \"image.name\": \"x\"\n}\n")
	out, err := do(t, append(env, pinned...), "./push-image", "fluent-bit", "registry.example/fluent-bit:1.2.3")
	require.NoError(t, err, out)
	require.Equal(t, other, out)
	all := asked()
	for _, want := range append([]string{"linux/amd64,linux/arm64", "fluent-bit", "VERSION=1.2.3", "--provenance=mode=max", "--sbom=true", "type=image,name=registry.example/fluent-bit:1.2.3,push=true,rewrite-timestamp=true"}, pinned...) {
		require.Contains(t, all, want)
	}

	_, env = docker(t, "{}\n")
	out, err = do(t, append(env, pinned...), "./push-image", "fluent-bit", "registry.example/fluent-bit:1.2.3")
	require.Error(t, err)
	require.Contains(t, out, "docker named no digest")

	_, env = docker(t, "{}\n")
	out, err = do(t, append(env, "FLUENT_BIT_IMAGE=fluent-bit:5.1.1"), "./push-image", "fluent-bit", "registry.example/fluent-bit:1.2.3")
	require.Error(t, err)
	require.Contains(t, out, "FLUENT_BIT_IMAGE is 'fluent-bit:5.1.1'")
}
