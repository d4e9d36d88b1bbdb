package release

import (
	"archive/tar"
	"bytes"
	"context"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// tool is one of the release's tools, which `make release-tools` builds.
func tool(t *testing.T, name string) string {
	t.Helper()
	path, err := filepath.Abs("../build/tools/" + name)
	require.NoError(t, err)
	if _, err := os.Stat(path); err != nil {
		require.Empty(t, os.Getenv("RELEASE_REQUIRED"), "%s is not built", path)
		t.Skipf("NOT tested: %s is not built (make release-tools)", name)
	}
	return path
}

// registry is an empty one of this test's own, on loopback: host:port.
func registry(t *testing.T, crane string) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	address := l.Addr().String()
	require.NoError(t, l.Close())
	cmd := exec.Command(crane, "registry", "serve", "--address", address)
	cmd.Stderr = os.Stderr
	require.NoError(t, cmd.Start())
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	require.Eventually(t, func() bool {
		answer, err := http.Get("http://" + address + "/v2/")
		if err != nil {
			return false
		}
		return answer.Body.Close() == nil && answer.StatusCode == http.StatusOK
	}, 30*time.Second, 20*time.Millisecond)
	return address
}

// do runs a program and returns what it printed, without the line's end.
func do(t *testing.T, env []string, program string, args ...string) (string, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Env = append(os.Environ(), env...)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		return errs.String(), err
	}
	return strings.TrimSpace(out.String()), nil
}

func TestPinWritesTheDigestsOfTheBasesIntoTheDockerfile(t *testing.T) {
	crane := tool(t, "crane")
	host := registry(t, crane)
	layer := filepath.Join(t.TempDir(), "layer.tar")
	var b bytes.Buffer
	archive := tar.NewWriter(&b)
	require.NoError(t, archive.WriteHeader(&tar.Header{Name: "file", Mode: 0o644}))
	require.NoError(t, archive.Close())
	require.NoError(t, os.WriteFile(layer, b.Bytes(), 0o600))
	push := func(image string, architectures ...string) string {
		args := []string{"index", "append", "-t", host + "/" + image}
		for _, arch := range architectures {
			one := host + "/" + image + "-" + arch
			out, err := do(t, nil, crane, "append", "--oci-empty-base", "-f", layer, "-t", one)
			require.NoError(t, err, out)
			out, err = do(t, nil, crane, "mutate", "--set-platform", "linux/"+arch, "-t", one, one)
			require.NoError(t, err, out)
			args = append(args, "-m", one)
		}
		out, err := do(t, nil, crane, args...)
		require.NoError(t, err, out)
		digest, err := do(t, nil, crane, "digest", host+"/"+image)
		require.NoError(t, err)
		return digest
	}
	want := map[string]string{}
	for variable, image := range map[string]string{"FLUENT_BIT_IMAGE": "fluent-bit:9.9.9", "GO_IMAGE": "golang:9.9.9-bookworm", "STATIC_IMAGE": "static:nonroot"} {
		want[variable] = host + "/" + image + "@" + push(image, "amd64", "arm64")
	}
	push("one:1", "arm64")
	dockerfile := filepath.Join(t.TempDir(), "Dockerfile")
	write := func(goImage string) {
		text := "# A comment that stays.\nARG FLUENT_BIT_IMAGE=" + host + "/fluent-bit:9.9.9\nARG GO_IMAGE=" + goImage + "\nARG STATIC_IMAGE=" + want["STATIC_IMAGE"] + "\nFROM ${GO_IMAGE} AS source\n"
		require.NoError(t, os.WriteFile(dockerfile, []byte(text), 0o600))
	}

	// A digest of yesterday is replaced.
	write(host + "/golang:9.9.9-bookworm@sha256:" + strings.Repeat("0", 64))
	for range 2 {
		out, err := do(t, []string{"CRANE=" + crane}, "./pin", dockerfile)
		require.NoError(t, err, out)
		written, err := os.ReadFile(dockerfile)
		require.NoError(t, err)
		require.Equal(t, "# A comment that stays.\nARG FLUENT_BIT_IMAGE="+want["FLUENT_BIT_IMAGE"]+"\nARG GO_IMAGE="+want["GO_IMAGE"]+"\nARG STATIC_IMAGE="+want["STATIC_IMAGE"]+"\nFROM ${GO_IMAGE} AS source\n", string(written))
		_, err = do(t, []string{"FLUENT_BIT_IMAGE=" + want["FLUENT_BIT_IMAGE"], "GO_IMAGE=" + want["GO_IMAGE"], "STATIC_IMAGE=" + want["STATIC_IMAGE"]}, "./pins")
		require.NoError(t, err, "what pin writes, pins takes")
	}

	write(host + "/one:1")
	out, err := do(t, []string{"CRANE=" + crane}, "./pin", dockerfile)
	require.Error(t, err)
	require.Contains(t, out, "one:1 has no image for linux/amd64")

	write(host + "/none:1")
	_, err = do(t, []string{"CRANE=" + crane}, "./pin", dockerfile)
	require.Error(t, err)
}

func TestTheChartThatIsPushedIsTheOnePulled(t *testing.T) {
	crane, helm := tool(t, "crane"), tool(t, "helm")
	host := registry(t, crane)
	dir := t.TempDir()
	out, err := do(t, nil, helm, "package", "../charts/eks-tenant-logs", "--destination", dir)
	require.NoError(t, err, out)
	charts, err := filepath.Glob(filepath.Join(dir, "eks-tenant-logs-*.tgz"))
	require.NoError(t, err)
	require.Len(t, charts, 1)

	digest, err := do(t, nil, "./push-chart", helm, charts[0], "oci://"+host+"/charts", "--plain-http")
	require.NoError(t, err, digest)
	require.Regexp(t, `^sha256:[0-9a-f]{64}$`, digest)

	pulled := t.TempDir()
	out, err = do(t, nil, helm, "pull", "oci://"+host+"/charts/eks-tenant-logs@"+digest, "--plain-http", "--destination", pulled)
	require.NoError(t, err, out)
	got, err := filepath.Glob(filepath.Join(pulled, "*.tgz"))
	require.NoError(t, err)
	require.Len(t, got, 1)
	before, err := os.ReadFile(charts[0])
	require.NoError(t, err)
	after, err := os.ReadFile(got[0])
	require.NoError(t, err)
	require.Equal(t, before, after)

	out, err = do(t, nil, "./push-chart", helm, filepath.Join(dir, "none.tgz"), "oci://"+host+"/charts", "--plain-http")
	require.Error(t, err)
	require.NotContains(t, out, "sha256:")
}
