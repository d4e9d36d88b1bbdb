package catchup

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestTheTrackerTellsWhatTheAgentPassedOverOrGaveUp(t *testing.T) {
	open := func(inode uint64, name string, position int64) map[uint64]reading {
		return map[uint64]reading{inode: {Name: name, Position: position, Size: 1000}}
	}
	const log = "/p/a/0.log"
	t.Run("rotated before it was opened", func(t *testing.T) {
		var tr tracker
		missed, lost := tr.look([]File{current(1)}, nil, noon)
		require.Empty(t, missed, "tail is going to open it")
		require.Empty(t, lost)
		for range 2 {
			missed, lost = tr.look([]File{rotatedFile(5, 1), current(2)}, nil, noon)
			require.Empty(t, missed, "tail has opened no younger one: it has not looked yet")
			require.Empty(t, lost)
		}
		missed, _ = tr.look([]File{rotatedFile(5, 1), current(2)}, open(2, log, 0), noon)
		require.Empty(t, missed, "the runtime may still write to it")
		missed, _ = tr.look([]File{rotatedFile(5, 1), current(2)}, open(2, log, 0), noon)
		require.Equal(t, []Unread{{File: rotatedFile(5, 1)}}, missed)
		missed, lost = tr.look([]File{rotatedFile(5, 1), current(2)}, open(2, log, 0), noon)
		require.Empty(t, missed, "once")
		require.Empty(t, lost)
	})
	t.Run("removed before it was opened", func(t *testing.T) {
		var tr tracker
		tr.look([]File{current(1)}, nil, noon)
		var lost []*version
		for range 2 {
			_, lost = tr.look([]File{current(2)}, open(2, log, 0), noon)
		}
		require.Len(t, lost, 1)
		require.EqualValues(t, 1000, lost[0].size)
	})
	behind := func(t *testing.T, there []File) (missed []Unread, lost []*version) {
		var tr tracker
		tr.look([]File{current(1)}, open(1, log, 100), noon)
		both := open(1, log+"."+at(5), 300)
		both[2] = reading{Name: log, Size: 1000}
		for _, after := range []time.Duration{6, 12, 17} {
			missed, lost = tr.look([]File{rotatedFile(5, 1), current(2)}, both, noon.Add(after*time.Second))
			require.Empty(t, missed)
			require.Empty(t, lost)
		}
		return tr.look(there, open(2, log, 0), noon.Add(18*time.Second))
	}
	t.Run("given up while it lagged", func(t *testing.T) {
		missed, lost := behind(t, []File{compressed(5), current(2)})
		require.Equal(t, []Unread{{compressed(5), 300}}, missed)
		require.Empty(t, lost)
	})
	t.Run("given up while it lagged, and removed", func(t *testing.T) {
		missed, lost := behind(t, []File{current(2)})
		require.Empty(t, missed)
		require.Len(t, lost, 1)
		require.EqualValues(t, 700, lost[0].size-lost[0].from)
	})
	t.Run("read to its end between two looks", func(t *testing.T) {
		var tr tracker
		both := open(1, log+"."+at(5), 900)
		both[2] = reading{Name: log, Size: 1000}
		tr.look([]File{rotatedFile(5, 1), current(2)}, both, noon.Add(6*time.Second))
		missed, lost := tr.look([]File{compressed(5), current(2)}, open(2, log, 0), noon.Add(7*time.Second))
		require.Empty(t, missed)
		require.Empty(t, lost)
	})
}

func TestWhatAProcessHasOpenIsFoundAfterItWasRenamedAndRemoved(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "0.log")
	require.NoError(t, os.WriteFile(path, []byte("0123456789"), 0o600))
	writer, err := os.OpenFile(path, os.O_WRONLY, 0)
	require.NoError(t, err)
	defer func() { _ = writer.Close() }()
	none, err := opened(os.Getpid(), dir)
	require.NoError(t, err)
	require.Empty(t, none, "one who writes is no reader")
	f, err := os.Open(path)
	require.NoError(t, err)
	defer func() { _ = f.Close() }()
	_, err = f.Read(make([]byte, 4))
	require.NoError(t, err)
	info, err := f.Stat()
	require.NoError(t, err)
	for _, step := range []func() string{
		func() string { return path },
		func() string {
			require.NoError(t, os.Rename(path, path+".20261127-120000"))
			return path + ".20261127-120000"
		},
		func() string {
			require.NoError(t, os.Remove(path+".20261127-120000"))
			return path + ".20261127-120000"
		},
	} {
		name := step()
		got, err := opened(os.Getpid(), dir)
		require.NoError(t, err)
		require.Equal(t, map[uint64]reading{inode(info): {Name: name, Position: 4, Size: 10}}, got)
	}
	others, err := opened(os.Getpid(), "/nowhere")
	require.NoError(t, err)
	require.Empty(t, others)
}
