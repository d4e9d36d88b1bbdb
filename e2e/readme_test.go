package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/eks-tenant-logs/eks-tenant-logs/e2e/docs"
	"github.com/eks-tenant-logs/eks-tenant-logs/e2e/node"
	"github.com/eks-tenant-logs/eks-tenant-logs/internal/fakeaws"
)

// The README's configuration of Fluent Bit, as it stands there, but for where files and CloudWatch are.
func TestTheReadmesConfigurationShipsEveryLine(t *testing.T) {
	e := onFluentBit(t)
	cw, s := standIn(t, fakeaws.Config{})
	n := newNode(t)
	want := writeNumbered(t, n, 6, 300)
	text, err := os.ReadFile("../README.md")
	require.NoError(t, err)
	var config []string
	for _, b := range docs.Read("README.md", string(text)).Blocks {
		if b.Language == "" && len(b.Lines) > 0 && b.Lines[0].Text == "[SERVICE]" {
			for _, l := range b.Lines {
				config = append(config, l.Text)
			}
		}
	}
	require.NotEmpty(t, config)
	require.NoError(t, os.MkdirAll(filepath.Join(n.Root, "var/lib/fluent-bit"), 0o755))
	prefix := node.FluentBit{}.TagPrefix(n, node.Pods)
	config = append(config, "    endpoint "+cw.Endpoint, "    tag_prefix "+prefix, "")
	file := filepath.Join(t.TempDir(), "fluent-bit.conf")
	require.NoError(t, os.WriteFile(file, []byte(strings.ReplaceAll(strings.Join(config, "\n"), "/var/", n.Root+"/var/")), 0o600))
	fb, ok := e.(node.FluentBit)
	require.True(t, ok)
	log := newLog(t)
	cmd := exec.CommandContext(within(t, time.Minute), fb.Binary, "-e", pluginPath(t), "-c", file)
	cmd.Env, cmd.Stdout, cmd.Stderr = append(os.Environ(), cw.Env()...), log, log
	require.NoError(t, cmd.Start())
	require.Eventually(t, arrived(s, len(want)), 30*time.Second, 50*time.Millisecond)
	require.NoError(t, cmd.Process.Signal(syscall.SIGTERM))
	require.NoError(t, cmd.Wait())
	requireOnce(t, want, numbers(t, s))
	for line := range strings.Lines(log.String()) {
		// That it ends is a warning to Fluent Bit.
		require.False(t, (strings.Contains(line, "[ warn]") || strings.Contains(line, "[error]")) && !strings.Contains(line, "service will shutdown"), line)
	}
}
