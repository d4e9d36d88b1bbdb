package output

import (
	"context"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/eks-tenant-logs/eks-tenant-logs/internal/fakeaws"
	"github.com/eks-tenant-logs/eks-tenant-logs/internal/telemetry"
)

// volume mounts a small file system for the test.
func volume(t *testing.T, size string) string {
	t.Helper()
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size="+size); err != nil {
		t.Skipf("needs the right to mount (%v); NOT tested here", err)
	}
	t.Cleanup(func() { require.NoError(t, syscall.Unmount(dir, syscall.MNT_DETACH)) })
	return dir
}

// fill takes all that is free, and returns the file that does.
func fill(t *testing.T, dir string) string {
	t.Helper()
	name := filepath.Join(dir, "filler")
	f, err := os.Create(name)
	require.NoError(t, err)
	_, err = io.Copy(f, zeros{})
	require.ErrorIs(t, err, syscall.ENOSPC)
	require.NoError(t, f.Close())
	return name
}

type zeros struct{}

func (zeros) Read(b []byte) (int, error) {
	clear(b)
	return len(b), nil
}

// A ledger that can't be written would be noticed when the process ends, with duplicates.
func TestAStatePathThatCannotBeWrittenRefusesTheStart(t *testing.T) {
	dir := volume(t, "1m")
	require.NoError(t, syscall.Mount("", dir, "", syscall.MS_REMOUNT|syscall.MS_RDONLY, ""))
	o, err := ParseOptions(from(map[string]string{"region": "us-east-1", "state_path": dir}))
	require.NoError(t, err)
	_, err = New(context.Background(), o, Environment{Log: slog.New(slog.DiscardHandler)})
	require.ErrorContains(t, err, `state_path: "`+dir+`" can't be written to: failed to make a file in it: read-only file system: mount it writable`)
}

// Refusing would end in a crash loop in which nothing is delivered that would free space.
func TestAFullVolumeIsSaidAndRefusesNoStart(t *testing.T) {
	dir := volume(t, "1m")
	fill(t, dir)
	metrics := telemetry.NewMetrics()
	listener := telemetry.NewListener(metrics)
	i, _, log := instance(t, fakeaws.Config{}, Environment{Name: "x.0", Metrics: metrics, Listener: listener, RoomEvery: time.Hour},
		"state_path", dir, "metrics_listen", "127.0.0.1:0")
	defer i.Close()
	require.Contains(t, log.String(), "state_path: the volume is full; starting nevertheless")
	require.Contains(t, log.String(), "no space left on device")
	require.Equal(t, OK, i.Flush(context.Background(), tagA, chunkOf(time.Now(), map[string]any{"log": "x"}), 0))
	text := scrapeAt(t, listener)
	require.Contains(t, text, `tenantlogs_storage_free_bytes{output="x.0"} 0`)
	require.Contains(t, text, `tenantlogs_storage_size_bytes{output="x.0"} 1.048576e+06`)
}

func scrapeAt(t *testing.T, l *telemetry.Listener) string {
	t.Helper()
	require.Eventually(t, func() bool { return l.Addr() != nil }, 30*time.Second, time.Millisecond)
	resp, err := http.Get("http://" + l.Addr().String() + "/metrics")
	require.NoError(t, err)
	defer func() { _ = resp.Body.Close() }()
	text, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	return string(text)
}
