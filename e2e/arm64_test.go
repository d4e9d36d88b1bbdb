package e2e

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/eks-tenant-logs/eks-tenant-logs/e2e/environment"
	"github.com/eks-tenant-logs/eks-tenant-logs/e2e/host"
	"github.com/eks-tenant-logs/eks-tenant-logs/e2e/node"
	"github.com/eks-tenant-logs/eks-tenant-logs/internal/fakeaws"
)

// What is published for arm64 runs there: the plugin in the project's host, and tenantlogs. On another machine qemu's
// user mode emulates the processor and passes system calls on; the stand-in for AWS is native. Not shown by it: arm64's
// weaker order of memory, pages of 64 KiB, and Fluent Bit itself.

// armSysroot is where Debian's libc6-arm64-cross puts glibc and its dynamic loader.
const armSysroot = "/usr/aarch64-linux-gnu"

// arm64 builds the plugin and the host's loader for arm64, and says how to run them. What is built later is for arm64, too.
func arm64(t *testing.T) (e node.Host, plugin string) {
	t.Helper()
	if os.Getenv("E2E_ARM64") == "" && runtime.GOARCH != "arm64" {
		t.Skip("not asked for: make arm64-test runs this with E2E_ARM64=1; the plugin and tenantlogs for arm64 are NOT run here")
	}
	compiler := "gcc"
	if runtime.GOARCH != "arm64" {
		compiler = "aarch64-linux-gnu-gcc"
		qemu := ""
		for _, name := range []string{"qemu-aarch64-static", "qemu-aarch64"} {
			if path, err := exec.LookPath(name); err == nil && qemu == "" {
				qemu = path
			}
		}
		require.NotEmpty(t, qemu, "no qemu-aarch64-static: install qemu-user-static; nothing for arm64 was run")
		_, err := os.Stat(filepath.Join(armSysroot, "lib/ld-linux-aarch64.so.1"))
		require.NoError(t, err, "no dynamic loader for arm64: install libc6-arm64-cross (with gcc-aarch64-linux-gnu); nothing for arm64 was run")
		e.Emulator = []string{qemu, "-L", armSysroot}
	}
	_, err := exec.LookPath(compiler)
	require.NoError(t, err, "install gcc-aarch64-linux-gnu; nothing for arm64 was run")
	t.Setenv("CC", compiler)
	t.Setenv("GOARCH", "arm64")
	dir := t.TempDir()
	plugin = filepath.Join(dir, "out_cloudwatch_tenants.so")
	e.Loader, err = host.Build(context.Background(), dir)
	require.NoError(t, err)
	require.NoError(t, host.BuildPlugin(context.Background(), "github.com/eks-tenant-logs/eks-tenant-logs/plugin", plugin))
	return e, plugin
}

func TestARM64(t *testing.T) {
	e, plugin := arm64(t)
	t.Run("isolation", func(t *testing.T) { isolationWhateverALineSays(t, e, plugin, true, true) })
	t.Run("nothing lost, nothing twice", func(t *testing.T) {
		cw, s := standIn(t, fakeaws.Config{})
		failing(s)
		n := newNode(t)
		want := writeNumbered(t, n, 10, 200)
		require.NoError(t, e.Ship(within(t, 5*time.Minute), node.Run{
			Node: n, Plugin: plugin, Env: cw.Env(), Log: newLog(t), Options: options(cw), Until: arrived(s, len(want)),
		}))
		require.Equal(t, want, numbers(t, s))
	})
	t.Run("tenantlogs", func(t *testing.T) {
		tenantlogs := filepath.Join(t.TempDir(), "tenantlogs")
		build := exec.Command("go", "build", "-o", tenantlogs, "github.com/eks-tenant-logs/eks-tenant-logs/provisioner")
		build.Env = append(environment.Build(), "CGO_ENABLED=0")
		out, err := build.CombinedOutput()
		require.NoError(t, err, "%s", out)
		cw, s := standIn(t, fakeaws.Config{})
		said := func(args ...string) string {
			t.Helper()
			whole := append(append([]string{}, e.Emulator...), append([]string{tenantlogs}, args...)...)
			cmd := exec.CommandContext(within(t, 5*time.Minute), whole[0], whole[1:]...)
			cmd.Env = append(os.Environ(), cw.Env()...)
			out, err := cmd.CombinedOutput()
			require.NoError(t, err, "%s: %s", args, out)
			return string(out)
		}
		require.Contains(t, said("--version"), "tenantlogs version ")
		require.Contains(t, said("route", tagOfA), "/eks/tenants/a")
		account := []string{"--region", cw.Region, "--cluster", "c1"}
		require.Contains(t, said(append([]string{"policy", "reader", "--tenant", "acme", "--account", "123456789012"}, account...)...), "logs:GetLogEvents")
		for _, service := range []string{"", "sts-", "iam-", "kms-", "eks-"} {
			account = append(account, fmt.Sprintf("--%sendpoint=%s", service, cw.Endpoint))
		}
		// Over HTTPS, with the SDK's signatures, which the stand-in checks.
		said(append([]string{"bootstrap", "--writer-principal=arn:aws:iam::123456789012:root"}, account...)...)
		_, made := group(s, "/eks/platform")
		require.True(t, made)
		calls := 0
		for k, v := range s.Calls() {
			if strings.HasPrefix(k.Operation, "iam:") || k.Operation == "CreateLogGroup" {
				calls += v
			}
		}
		require.Positive(t, calls)
	})
}
