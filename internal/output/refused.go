package output

import (
	"encoding/binary"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
)

// Fluent Bit refuses a chunk on disk whose header is none, or says more than the file holds, as a
// power loss leaves it. It says so in its log at each start, counts it nowhere, and leaves the file
// where it is (5.1.1: cio_file_format_check in lib/chunkio/src/cio_file.c).

// chunkHeader is the length of a chunk's header in bytes: 0xC1 0x00, a checksum of 4 bytes, 4 bytes of
// padding, the length of the content in 4 bytes, 8 bytes of padding, and the length of the metadata, which
// is in front of the content, in 2 bytes (lib/chunkio/include/chunkio/cio_file_st.h).
const chunkHeader = 24

// refusedChunk reports whether Fluent Bit refuses a file of its storage. It does not refuse an empty
// one, and removes it.
func refusedChunk(path string) bool {
	f, err := os.Open(path)
	if err != nil {
		return false // gone meanwhile, or not to be read by Fluent Bit either
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil || info.Size() == 0 {
		return false
	}
	var header [chunkHeader]byte
	if _, err := io.ReadFull(f, header[:]); err != nil {
		return errors.Is(err, io.ErrUnexpectedEOF)
	}
	if header[0] != 0xC1 || header[1] != 0 {
		return true
	}
	content := int64(binary.BigEndian.Uint32(header[10:]))
	metadata := int64(binary.BigEndian.Uint16(header[22:]))
	return chunkHeader+metadata+content > info.Size()
}

// walkChunks calls each with the path of every chunk's file in storage until it returns false.
func walkChunks(storage string, each func(path string, d fs.DirEntry) bool) {
	_ = filepath.WalkDir(storage, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || filepath.Ext(path) != ".flb" {
			return nil // what can't be read holds nothing that could be delivered
		}
		if !each(path, d) {
			return fs.SkipAll
		}
		return nil
	})
}

// findRefused lists, before Fluent Bit reads anything, the chunks that it refuses, and says so once.
func (i *Instance) findRefused() {
	if i.opts.StoragePath == "" {
		return
	}
	walkChunks(i.opts.StoragePath, func(path string, _ fs.DirEntry) bool {
		if refusedChunk(path) {
			i.refused = append(i.refused, path)
		}
		return true
	})
	if len(i.refused) > 0 {
		i.env.Log.Error("storage_path holds chunks that Fluent Bit refuses to read, as a power loss leaves them: their lines were not delivered, and the files stay until they are removed",
			"chunks", len(i.refused), "example", i.refused[0])
	}
}

// refusedLeft is how many of those that were refused at the start are still there.
func (i *Instance) refusedLeft() (n int) {
	for _, path := range i.refused {
		if _, err := os.Lstat(path); err == nil {
			n++
		}
	}
	return n
}
