package e2e

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/eks-tenant-logs/eks-tenant-logs/e2e/node"
	"github.com/eks-tenant-logs/eks-tenant-logs/internal/fakeaws"
	"github.com/eks-tenant-logs/eks-tenant-logs/internal/fluentbit"
)

// The plugin starts in no Fluent Bit that is known to be vulnerable, and in every newer one.

func TestOldFluentBitIsRefusedByWhatItsImageClaims(t *testing.T) {
	if fluentBitWanted() != "" {
		t.Skip("a real Fluent Bit answers for itself: TestOldFluentBitIsRefusedByWhatItSays")
	}
	e := engines(t)[0]
	for claim, want := range map[string]string{
		"4.1.0": "Fluent Bit 4.1.0 is refused", "5.1.1": "fluent_bit=5.1.1", "99.0.0": "fluent_bit=99.0.0", "": "version is unknown",
	} {
		t.Run("claim "+claim, func(t *testing.T) {
			cw, s := standIn(t, fakeaws.Config{})
			n := newNode(t)
			writeNumbered(t, n, 2, 10)
			log := newLog(t)
			err := e.Ship(within(t, time.Minute), node.Run{
				Node: n, Plugin: pluginPath(t), Env: append(cw.Env(), fluentbit.Environment+"="+claim), Log: log, Options: options(cw), Until: arrived(s, 20),
			})
			require.Equal(t, strings.Contains(want, "refused"), err != nil, "%v", err)
			require.Contains(t, log.String(), want)
		})
	}
}

// The version of a real Fluent Bit is overwritten in a copy of its program.
func TestOldFluentBitIsRefusedByWhatItSays(t *testing.T) {
	e, ok := onFluentBit(t).(node.FluentBit)
	require.True(t, ok)
	program, err := os.ReadFile(e.Binary)
	require.NoError(t, err)
	out, err := exec.Command(e.Binary, "--version").Output()
	require.NoError(t, err)
	line, _, _ := strings.Cut(string(out), "\n")
	version := strings.TrimPrefix(line, "Fluent Bit v")
	for instead, refused := range map[string]bool{"4.1.0": true, "3.2.9": true, "4.1.1": false, "9.9.9": false} {
		t.Run(instead, func(t *testing.T) {
			require.Len(t, version, len(instead), "the version can only be overwritten in its length")
			changed := bytes.ReplaceAll(program, []byte("\x00"+version+"\x00"), []byte("\x00"+instead+"\x00"))
			require.NotEqual(t, program, changed)
			copied := filepath.Join(t.TempDir(), "fluent-bit")
			require.NoError(t, os.WriteFile(copied, changed, 0o700))
			cw, s := standIn(t, fakeaws.Config{})
			n := newNode(t)
			writeNumbered(t, n, 2, 10)
			log := newLog(t)
			err := node.FluentBit{Binary: copied}.Ship(within(t, time.Minute), node.Run{
				// What the image claims counts for nothing.
				Node: n, Plugin: pluginPath(t), Env: append(cw.Env(), fluentbit.Environment+"=5.1.1"), Log: log, Options: options(cw), Until: arrived(s, 20),
			})
			require.Equal(t, refused, err != nil, "%v", err)
			require.Equal(t, refused, strings.Contains(log.String(), "Fluent Bit "+instead+" is refused: it has CVE-2025-12969"))
		})
	}
}
