package output

import (
	"context"
	"fmt"
	"io/fs"
	"log/slog"
	"time"

	"github.com/eks-tenant-logs/eks-tenant-logs/internal/folder"
)

// Where Fluent Bit's storage has no room, its tail goes on reading and drops the lines
// (5.1.1: flb_tail_file_chunk ignores what flb_input_log_append answers). Nothing that a
// configuration offers stops it, so with `on_full_volume stop` the process is ended: lines
// wait in the kubelet's files, and the process that the kubelet starts next reads on from
// the offset that was saved, once there is room.

// roomEvery is how often the volume of Fluent Bit's storage is looked at.
const roomEvery = time.Second

// fullFor is how many looks in a row find no room, and no event accepted since the first of
// them, until the process is ended, where delivery would make room. What is accepted frees its
// chunk. Where it would not, the first look ends the process: reading on, Fluent Bit drops most
// lines, and a chunk that is accepted now and then changes nothing about that.
const fullFor = 10

// lowRoom is how little may be free of a volume of a size, in bytes, before an error says so:
// a twentieth, at most 256 MB. The kubelet evicts pods at a tenth.
func lowRoom(size uint64) uint64 { return min(size/20, 256<<20) }

// noRoom is how little counts as full: a fiftieth, at most 64 MB. It is more than nothing, so
// that the engine can still end in order, and because tail may take 50 MB in one go.
func noRoom(size uint64) uint64 { return min(size/50, 64<<20) }

// volumeOf is a path on the volume of Fluent Bit's storage, as far as that is known.
func (o *Options) volumeOf() string {
	if o.StoragePath != "" {
		return o.StoragePath
	}
	return o.StatePath
}

// room is what is free of that volume, and its size; nothing where it is not known.
func (i *Instance) room() (free, size uint64) {
	path := i.opts.volumeOf()
	if path == "" {
		return 0, 0
	}
	free, size, err := folder.Room(path)
	if err != nil {
		return 0, 0
	}
	return free, size
}

// startable refuses a start on a full volume where what waits of Fluent Bit's own would not
// make room when it is delivered: every line that tail reads would be lost.
func startable(o *Options) error {
	if !o.StopWhenFull {
		return nil
	}
	free, size, err := folder.Room(o.StoragePath)
	if err != nil || free >= noRoom(size) || makesRoom(o.StoragePath, free, size) {
		return nil
	}
	return fmt.Errorf("on_full_volume: the volume of storage_path %q is full (%d of %d bytes are free), and the chunks on it would not make room: free space on it; "+
		"lines wait in their files until then", o.StoragePath, free, size)
}

// makesRoom says whether a volume is full no longer when the chunks that wait in a storage are
// delivered. Fluent Bit leaves empty files where it could make no chunk, and does not read the
// ones that it refuses.
func makesRoom(storage string, free, size uint64) bool {
	enough := false
	walkChunks(storage, func(path string, d fs.DirEntry) bool {
		if info, err := d.Info(); err == nil && info.Size() > 0 && !refusedChunk(path) {
			free += uint64(info.Size())
			enough = free >= noRoom(size)
		}
		return !enough
	})
	return enough
}

// watchRoom says while next to nothing is free, and ends the process where that is asked for
// and no delivery frees any.
func (i *Instance) watchRoom(ctx context.Context) {
	every := i.env.RoomEvery
	if every <= 0 {
		every = roomEvery
	}
	tick := time.NewTicker(every)
	defer tick.Stop()
	full, accepted := 0, int64(0)
	for {
		free, size := i.room()
		if free < lowRoom(size) {
			i.limited(slog.LevelError, "room", "next to nothing is free on the volume of Fluent Bit's storage: where it finds no room for a chunk, it loses the lines that it reads; free space",
				"path", i.opts.volumeOf(), "free_bytes", free, "size_bytes", size)
		}
		switch now := i.queue.Stats().Events; {
		case free >= noRoom(size):
			full = 0
		case i.opts.StoragePath != "" && !makesRoom(i.opts.StoragePath, free, size):
			full = max(full+1, fullFor)
		case full == 0 || now != accepted:
			full, accepted = 1, now
		default:
			full++
		}
		if full == fullFor && i.opts.StopWhenFull && i.env.Stop != nil {
			i.env.Log.Error("the volume of Fluent Bit's storage is full: Fluent Bit is ended, as on_full_volume says, because it would lose every line that it reads; lines wait in their files until it is started where there is room",
				"path", i.opts.volumeOf(), "free_bytes", free, "size_bytes", size)
			i.env.Stop()
		}
		if i.env.Looked != nil {
			i.env.Looked()
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}
