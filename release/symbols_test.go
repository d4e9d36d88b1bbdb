// Package release holds what makes the images and a release; its test reads what was linked.
package release

import (
	"debug/elf"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/eks-tenant-logs/eks-tenant-logs/e2e/environment"
)

// oldestGLIBC is what the oldest image has that the plugin starts in: Fluent Bit 4.0.12 and 4.1.1
// stand on Debian 12; 5.1 on Debian 13, with 2.41.
const oldestGLIBC = "2.36"

// newer tells whether glibc version a is newer than b.
func newer(a, b string) bool {
	x, y := strings.Split(a, "."), strings.Split(b, ".")
	for i := range max(len(x), len(y)) {
		var m, n int
		if i < len(x) {
			m, _ = strconv.Atoi(x[i])
		}
		if i < len(y) {
			n, _ = strconv.Atoi(y[i])
		}
		if m != n {
			return m > n
		}
	}
	return false
}

// glibcNeeded is the newest glibc a file asks for, and the symbol that does; "" if none.
func glibcNeeded(t *testing.T, path string) (version, symbol string) {
	t.Helper()
	f, err := elf.Open(path)
	require.NoError(t, err)
	defer func() { _ = f.Close() }()
	imported, err := f.ImportedSymbols()
	require.NoError(t, err)
	for _, s := range imported {
		if v, ok := strings.CutPrefix(s.Version, "GLIBC_"); ok && (version == "" || newer(v, version)) {
			version, symbol = v, s.Name
		}
	}
	return version, symbol
}

// compilers are the C compilers for an architecture that is not this machine's.
var compilers = map[string]string{"amd64": "x86_64-linux-gnu-gcc", "arm64": "aarch64-linux-gnu-gcc"}

func TestPluginLoadsWithTheOldestGLIBC(t *testing.T) {
	for arch, machine := range machines {
		t.Run(arch, func(t *testing.T) {
			compiler := "gcc"
			if arch != runtime.GOARCH {
				compiler = compilers[arch]
			}
			if _, err := exec.LookPath(compiler); err != nil {
				t.Skipf("needs %s; the plugin for %s is NOT tested here", compiler, arch)
			}
			so := filepath.Join(t.TempDir(), "plugin.so")
			cmd := exec.Command("go", "build", "-trimpath", "-buildmode=c-shared", "-o", so, "../plugin") //nolint:gosec // built for the test
			cmd.Env = append(environment.Machine(), "CGO_ENABLED=1", "GOARCH="+arch, "CC="+compiler)
			out, err := cmd.CombinedOutput()
			require.NoError(t, err, "%s", out)

			f, err := elf.Open(so)
			require.NoError(t, err)
			require.Equal(t, machine, f.Machine)
			libraries, err := f.ImportedLibraries()
			require.NoError(t, err)
			require.NoError(t, f.Close())
			for _, l := range libraries {
				require.Contains(t, []string{"libc.so.6", "ld-linux-x86-64.so.2", "ld-linux-aarch64.so.1"}, l, "the bases promise no other library")
			}
			version, symbol := glibcNeeded(t, so)
			require.NotEmpty(t, version, "nothing of glibc is imported: this test reads nothing")
			require.Falsef(t, newer(version, oldestGLIBC), "%s needs glibc %s, the oldest base has %s", symbol, version, oldestGLIBC)
			t.Logf("needs glibc %s, for %s", version, symbol)
		})
	}
}

func TestNewerComparesNumbersAndNotText(t *testing.T) {
	require.True(t, newer("2.36", "2.4"))
	require.True(t, newer("2.2.5", "2.2"))
	require.False(t, newer("2.4", "2.36"))
	require.False(t, newer("2.36", "2.36"))
}

func TestPinsAreRefusedWithoutDigests(t *testing.T) {
	const digest = "@" + sum
	pinned := map[string]string{"FLUENT_BIT_IMAGE": "docker.io/fluent/fluent-bit:5.1.1" + digest, "GO_IMAGE": "golang:1.26.8-bookworm" + digest, "STATIC_IMAGE": "gcr.io/distroless/static-debian13:nonroot" + digest}
	run := func(changed map[string]string) error {
		cmd := exec.Command("./pins")
		for name, image := range pinned {
			if c, ok := changed[name]; ok {
				image = c
			}
			cmd.Env = append(cmd.Env, name+"="+image)
		}
		cmd.Env = append(cmd.Env, "PATH="+os.Getenv("PATH"))
		return cmd.Run()
	}
	require.NoError(t, run(nil))
	for name := range pinned {
		for _, image := range []string{"", "docker.io/fluent/fluent-bit:5.1.1", "fluent-bit" + digest, "fluent-bit:5.1.1@sha256:0123", "fluent-bit:5.1.1" + digest + "0"} {
			require.Error(t, run(map[string]string{name: image}), "%s=%s", name, image)
		}
	}
}
