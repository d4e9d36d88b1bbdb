package catchup

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// dueOf are the versions of a tracker that are to be laid down, as Unread.
func dueOf(tr *tracker) (all []Unread) {
	for _, v := range tr.versions {
		if v.state == due {
			all = append(all, Unread{v.file, v.from})
		}
	}
	return all
}

func TestTheTrackerTellsWhatTheAgentPassedOverOrGaveUp(t *testing.T) {
	open := func(inode uint64, name string, position int64) map[FileID]reading {
		return map[FileID]reading{{Inode: inode}: {Name: name, Position: position, Size: 1000}}
	}
	const log = "/p/a/0.log"
	t.Run("rotated before it was opened", func(t *testing.T) {
		var tr tracker
		require.Empty(t, tr.look([]File{current(1)}, nil, noon))
		require.Empty(t, dueOf(&tr), "tail is going to open it")
		for range 2 {
			require.Empty(t, tr.look([]File{rotatedFile(5, 1), current(2)}, nil, noon))
			require.Empty(t, dueOf(&tr), "tail has opened no younger one: it has not looked yet")
		}
		require.Empty(t, tr.look([]File{rotatedFile(5, 1), current(2)}, open(2, log, 0), noon))
		require.Empty(t, dueOf(&tr), "the runtime may still write to it")
		for range 2 {
			require.Empty(t, tr.look([]File{rotatedFile(5, 1), current(2)}, open(2, log, 0), noon))
			require.Equal(t, []Unread{{File: rotatedFile(5, 1)}}, dueOf(&tr), "until it is laid down")
		}
	})
	t.Run("removed before it was opened", func(t *testing.T) {
		var tr tracker
		tr.look([]File{current(1)}, nil, noon)
		var lost []*version
		for range 2 {
			lost = append(lost, tr.look([]File{current(2)}, open(2, log, 0), noon)...)
		}
		require.Len(t, lost, 1)
		require.EqualValues(t, 1000, lost[0].size)
		require.Empty(t, tr.look([]File{current(2)}, open(2, log, 0), noon), "once")
	})
	t.Run("its pod removed before it was opened", func(t *testing.T) {
		var tr tracker
		tr.look([]File{current(1)}, nil, noon)
		require.Empty(t, tr.look(nil, nil, noon))
		require.Len(t, tr.look(nil, nil, noon), 1)
		require.Empty(t, tr.look(nil, nil, noon))
		require.Empty(t, tr.versions, "forgotten")
	})
	t.Run("its pod removed while the agent lagged", func(t *testing.T) {
		var tr tracker
		tr.look([]File{current(1)}, open(1, log, 100), noon)
		for _, after := range []time.Duration{1, 12} {
			require.Empty(t, tr.look(nil, open(1, log, 300), noon.Add(after*time.Second)))
		}
		require.Empty(t, tr.look(nil, nil, noon.Add(13*time.Second)))
		lost := tr.look(nil, nil, noon.Add(14*time.Second))
		require.Len(t, lost, 1)
		require.EqualValues(t, 700, lost[0].size-lost[0].from)
		tr.look(nil, nil, noon)
		require.Empty(t, tr.versions)
	})
	t.Run("its pod removed after it was read", func(t *testing.T) {
		var tr tracker
		tr.look([]File{current(1)}, open(1, log, 1000), noon)
		require.Empty(t, tr.look(nil, open(1, log, 1000), noon.Add(20*time.Second)))
		require.Empty(t, tr.look(nil, nil, noon.Add(40*time.Second)))
		require.Empty(t, tr.versions)
	})
	behind := func(t *testing.T, there []File) (tr tracker, lost []*version) {
		tr.look([]File{current(1)}, open(1, log, 100), noon)
		both := open(1, log+"."+at(5), 300)
		both[FileID{Inode: 2}] = reading{Name: log, Size: 1000}
		for _, after := range []time.Duration{6, 12, 17} {
			require.Empty(t, tr.look([]File{rotatedFile(5, 1), current(2)}, both, noon.Add(after*time.Second)))
			require.Empty(t, dueOf(&tr))
		}
		tr.leaving = true
		require.Empty(t, tr.look(there, open(2, log, 0), noon.Add(18*time.Second)))
		require.Empty(t, dueOf(&tr), "an agent that ends closes everything")
		tr.leaving = false
		require.Empty(t, tr.look(there, open(2, log, 0), noon.Add(18*time.Second)))
		require.Empty(t, dueOf(&tr), "nor does a single look")
		lost = tr.look(there, open(2, log, 0), noon.Add(19*time.Second))
		return tr, lost
	}
	t.Run("given up while it lagged", func(t *testing.T) {
		tr, lost := behind(t, []File{compressed(5), current(2)})
		require.Equal(t, []Unread{{compressed(5), 300}}, dueOf(&tr))
		require.Empty(t, lost)
	})
	t.Run("given up while it lagged, and removed", func(t *testing.T) {
		tr, lost := behind(t, []File{current(2)})
		require.Empty(t, dueOf(&tr))
		require.Len(t, lost, 1)
		require.EqualValues(t, 700, lost[0].size-lost[0].from)
	})
	t.Run("read to its end between two looks", func(t *testing.T) {
		var tr tracker
		both := open(1, log+"."+at(5), 900)
		both[FileID{Inode: 2}] = reading{Name: log, Size: 1000}
		tr.look([]File{rotatedFile(5, 1), current(2)}, both, noon.Add(6*time.Second))
		require.Empty(t, tr.look([]File{compressed(5), current(2)}, open(2, log, 0), noon.Add(7*time.Second)))
		require.Empty(t, dueOf(&tr))
	})
}

func TestWhatAProcessHasOpenIsFoundAfterItWasRenamedAndRemoved(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "0.log")
	require.NoError(t, os.WriteFile(path, []byte("0123456789"), 0o600))
	writer, err := os.OpenFile(path, os.O_WRONLY, 0)
	require.NoError(t, err)
	defer func() { _ = writer.Close() }()
	none, err := opened(os.Getpid(), stat, dir)
	require.NoError(t, err)
	require.Empty(t, none, "one who writes is no reader")
	f, err := os.Open(path)
	require.NoError(t, err)
	defer func() { _ = f.Close() }()
	_, err = f.Read(make([]byte, 4))
	require.NoError(t, err)
	id, _, _, _, err := stat(path)
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
		got, err := opened(os.Getpid(), stat, dir)
		require.NoError(t, err)
		require.Equal(t, map[FileID]reading{id: {Name: name, Position: 4, Size: 10}}, got)
	}
	others, err := opened(os.Getpid(), stat, "/nowhere")
	require.NoError(t, err)
	require.Empty(t, others)
}
