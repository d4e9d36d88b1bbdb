package output

import (
	"encoding/binary"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/eks-tenant-logs/eks-tenant-logs/internal/fakeaws"
	"github.com/eks-tenant-logs/eks-tenant-logs/internal/telemetry"
)

// chunkFile is a file of Fluent Bit's storage, whose header tells of so many bytes of content.
func chunkFile(content, size int) []byte {
	b := make([]byte, chunkHeader, size)
	b[0] = 0xC1
	binary.BigEndian.PutUint32(b[10:], uint32(content))
	binary.BigEndian.PutUint16(b[22:], 16)
	return b[:size]
}

// Fluent Bit's own answers to such files: e2e, TestATornChunkIsDeliveredAsFarAsItIsWhole.
func TestChunksThatFluentBitRefusesAreKnownByTheirHeader(t *testing.T) {
	for name, test := range map[string]struct {
		file    []byte
		refused bool
	}{
		"whole":                     {chunkFile(4000, 8192), false},
		"whole to its last byte":    {chunkFile(4000, chunkHeader+16+4000), false},
		"a byte short":              {chunkFile(4000, chunkHeader+16+3999), true},
		"without content":           {chunkFile(0, 4096), false},
		"empty":                     {nil, false},
		"shorter than a header":     {chunkFile(4000, 4096)[:20], true},
		"zeros":                     {make([]byte, 4096), true},
		"zeros behind first block":  {chunkFile(8000, 12288), false},
		"another identification":    {append([]byte{0xC1, 0x01}, make([]byte, 4094)...), true},
		"longer metadata than file": {append(chunkFile(0, chunkHeader)[:22], 0xFF, 0xFF), true},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "1-1.flb")
			require.NoError(t, os.WriteFile(path, test.file, 0o600))
			require.Equal(t, test.refused, refusedChunk(path))
			require.Equal(t, len(test.file) > 0 && !test.refused, makesRoom(filepath.Dir(path), 0, 50), "only what is delivered frees room")
		})
	}
	require.False(t, refusedChunk(filepath.Join(t.TempDir(), "gone.flb")))
}

// They are seen from the start until they are removed; what is torn later is of the next start.
func TestRefusedChunksAreCountedWhileTheyAreThere(t *testing.T) {
	dir := t.TempDir()
	input := filepath.Join(dir, "tail.0")
	require.NoError(t, os.Mkdir(input, 0o700))
	torn := filepath.Join(input, "1-1.flb")
	require.NoError(t, os.WriteFile(torn, make([]byte, 4096), 0o600))
	require.NoError(t, os.WriteFile(filepath.Join(input, "1-2.flb"), chunkFile(4000, 8192), 0o600))
	metrics := telemetry.NewMetrics()
	listener := telemetry.NewListener(metrics)
	i, _, log := instance(t, fakeaws.Config{}, Environment{Name: "x.0", Metrics: metrics, Listener: listener}, "storage_path", dir, "metrics_listen", "127.0.0.1:0")
	defer i.Close()
	require.Contains(t, log.String(), "storage_path holds chunks that Fluent Bit refuses to read")
	require.Contains(t, log.String(), torn)
	require.Contains(t, scrapeAt(t, listener), `tenantlogs_storage_refused_chunks{output="x.0"} 1`)
	require.NoError(t, os.Remove(torn))
	require.Contains(t, scrapeAt(t, listener), `tenantlogs_storage_refused_chunks{output="x.0"} 0`)
}
