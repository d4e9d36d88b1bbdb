package output

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/eks-tenant-logs/eks-tenant-logs/internal/fakeaws"
)

// looked waits until the volume was looked at n times more.
func looked(t *testing.T, looks <-chan struct{}, n int) {
	t.Helper()
	for range n {
		select {
		case <-looks:
		case <-time.After(30 * time.Second):
			t.Fatal("the volume is not looked at")
		}
	}
}

const lowLine = "next to nothing is free on the volume of Fluent Bit's storage"

func TestRoomThatRunsLowIsSaidOnceAMinute(t *testing.T) {
	dir := volume(t, "1m")
	looks := make(chan struct{})
	i, _, log := instance(t, fakeaws.Config{}, Environment{RoomEvery: time.Millisecond, Looked: func() { looks <- struct{}{} }}, "state_path", dir)
	looked(t, looks, 3)
	require.NotContains(t, log.String(), lowLine)
	fill(t, dir)
	looked(t, looks, 5)
	go func() {
		for range looks { //nolint:revive // the watch is let go on until it ends
		}
	}()
	i.Close()
	close(looks)
	require.Equal(t, 1, strings.Count(log.String(), lowLine))
}

func TestLowRoomAndNoRoomAreBounded(t *testing.T) {
	require.EqualValues(t, 51<<10, lowRoom(1020<<10))
	require.EqualValues(t, 256<<20, lowRoom(20<<30))
	require.EqualValues(t, 20<<10, noRoom(1000<<10))
	require.EqualValues(t, 64<<20, noRoom(20<<30))
	require.Less(t, noRoom(1<<20), lowRoom(1<<20))
}

// A volume that is full of Fluent Bit's own chunks ends it where nothing is accepted any more, and only there.
func TestAFullVolumeEndsFluentBitOnceNothingIsAccepted(t *testing.T) {
	for option, want := range map[string]int{"stop": 1, "continue": 0} {
		t.Run(option, func(t *testing.T) {
			dir := volume(t, "1m")
			looks, stops := make(chan struct{}), 0
			env := Environment{RoomEvery: time.Millisecond, Looked: func() { looks <- struct{}{} }, Stop: func() { stops++ }}
			i, _, log := instance(t, fakeaws.Config{}, env, "storage_path", dir, "on_full_volume", option)
			waiting(t, dir, 32<<10)
			filler := fill(t, dir)
			// Something is accepted again and again: its chunks free what they took.
			for range 5 {
				looked(t, looks, fullFor-2)
				require.Equal(t, OK, i.Flush(context.Background(), tagA, chunkOf(time.Now(), map[string]any{"log": "x"}), 0))
			}
			require.Zero(t, stops)
			// Room for a moment starts the count anew.
			looked(t, looks, fullFor-2)
			require.NoError(t, os.Remove(filler))
			looked(t, looks, 2)
			fill(t, dir)
			looked(t, looks, fullFor-2)
			require.Zero(t, stops)
			looked(t, looks, 2*fullFor)
			require.Equal(t, want, stops)
			require.Equal(t, want == 1, strings.Contains(log.String(), "Fluent Bit is ended, as on_full_volume says"))
			go func() {
				for range looks { //nolint:revive // the watch is let go on until it ends
				}
			}()
			i.Close()
			close(looks)
		})
	}
}

// waiting makes a chunk of a size that waits in a storage, and returns its file.
func waiting(t *testing.T, storage string, size int) string {
	t.Helper()
	input := filepath.Join(storage, "tail.0")
	require.NoError(t, os.MkdirAll(input, 0o700))
	chunk := filepath.Join(input, "1-1.flb")
	require.NoError(t, os.WriteFile(chunk, chunkFile(size-96, size), 0o600))
	return chunk
}

// A volume that is full of others' files ends Fluent Bit at once, also while something is accepted: the chunks that wait would not make room, and all
// that is read meanwhile but a little is dropped.
func TestAVolumeThatIsFullOfOthersFilesEndsFluentBitAtOnce(t *testing.T) {
	dir := volume(t, "1m") // noRoom is 20 KiB
	looks, stops := make(chan struct{}), 0
	env := Environment{RoomEvery: time.Millisecond, Looked: func() { looks <- struct{}{} }, Stop: func() { stops++ }}
	i, _, log := instance(t, fakeaws.Config{}, env, "storage_path", dir, "on_full_volume", "stop")
	waiting(t, dir, 8<<10)
	looked(t, looks, 2)
	require.Zero(t, stops)
	fill(t, dir)
	require.Equal(t, OK, i.Flush(context.Background(), tagA, chunkOf(time.Now(), map[string]any{"log": "x"}), 0))
	looked(t, looks, 2)
	require.Equal(t, 1, stops)
	looked(t, looks, 2*fullFor)
	require.Equal(t, 1, stops, "once")
	require.Contains(t, log.String(), "Fluent Bit is ended, as on_full_volume says")
	go func() {
		for range looks { //nolint:revive // the watch is let go on until it ends
		}
	}()
	i.Close()
	close(looks)
}

// Where enough chunks wait, their delivery is what makes room.
func TestAStartOnAFullVolumeIsRefusedUnlessChunksWouldMakeRoom(t *testing.T) {
	dir := volume(t, "1m")
	chunk := waiting(t, dir, 32<<10)
	require.NoError(t, os.WriteFile(filepath.Join(filepath.Dir(chunk), "1-2.flb"), nil, 0o600))
	start := func(action string) error {
		o, err := ParseOptions(from(map[string]string{"region": "us-east-1", "storage_path": dir, "on_full_volume": action}))
		require.NoError(t, err)
		i, err := New(context.Background(), o, Environment{Log: slog.New(slog.DiscardHandler)})
		if err == nil {
			i.Close()
		}
		return err
	}
	require.NoError(t, start("stop"))
	fill(t, dir)
	require.NoError(t, start("stop"), "a chunk of 32 KiB waits")
	// What most of the chunk took is others' now.
	require.NoError(t, os.Truncate(chunk, 8<<10))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "more"), make([]byte, 24<<10), 0o600))
	require.ErrorContains(t, start("stop"), `on_full_volume: the volume of storage_path "`+dir+`" is full (0 of 1048576 bytes are free), and the chunks on it would not make room: free space on it`)
	require.NoError(t, start("continue"))
	require.NoError(t, os.Remove(filepath.Join(dir, "filler")))
	require.NoError(t, start("stop"))
}
