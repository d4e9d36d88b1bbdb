package host

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
)

// A stored chunk is a file for each output it has to go to: written before the chunk is sent, gone when the chunk is done
// with. So it outlives kill -9, and a flush that finished after Grace, which no engine was there to hear of.

type stored struct {
	id     uint64
	output int
	path   string
}

func (h *Host) storedPath(id uint64, output int) string {
	return filepath.Join(h.cfg.StorageDir, fmt.Sprintf("%016x-%d.chunk", id, output))
}

func (h *Host) store(id uint64, output int, tag string, chunk []byte) error {
	if h.cfg.StorageDir == "" {
		return nil
	}
	b := append(appendString(make([]byte, 0, 4+len(tag)+len(chunk)), tag), chunk...)
	path := h.storedPath(id, output)
	if err := os.WriteFile(path+".tmp", b, 0o600); err != nil {
		return fmt.Errorf("failed to store a chunk: %w", err)
	}
	return os.Rename(path+".tmp", path)
}

func (h *Host) unstore(id uint64, output int) {
	if h.cfg.StorageDir != "" {
		_ = os.Remove(h.storedPath(id, output)) // at worst it is sent twice, and a test sees that
	}
}

// readBacklog lists what is in storage and counts it as sent.
func (h *Host) readBacklog() ([]stored, error) {
	if h.cfg.StorageDir == "" {
		return nil, nil
	}
	if err := os.MkdirAll(h.cfg.StorageDir, 0o755); err != nil {
		return nil, err
	}
	paths, err := filepath.Glob(filepath.Join(h.cfg.StorageDir, "*.chunk"))
	if err != nil {
		return nil, err
	}
	slices.Sort(paths)
	var backlog []stored
	for _, path := range paths {
		s := stored{path: path}
		if _, err := fmt.Sscanf(filepath.Base(path), "%x-%d.chunk", &s.id, &s.output); err != nil {
			return nil, fmt.Errorf("%s is no stored chunk: %w", path, err)
		}
		if s.output >= len(h.cfg.Outputs) {
			return nil, fmt.Errorf("%s is for output %d, which is not configured", path, s.output)
		}
		h.nextID = max(h.nextID, s.id+1)
		backlog = append(backlog, s)
	}
	h.stats.Sent, h.stats.Pending = len(backlog), len(backlog)
	return backlog, nil
}

// sendBacklog sends what storage held, beside what Send sends: taking it in may have to wait for room.
func (h *Host) sendBacklog(backlog []stored) {
	for _, s := range backlog {
		b, err := os.ReadFile(s.path)
		if err == nil && (len(b) < 4 || int(binary.LittleEndian.Uint32(b)) > len(b)-4) {
			err = errors.New("the file is cut short")
		}
		if err == nil {
			n := int(binary.LittleEndian.Uint32(b))
			h.sending.Lock()
			err = h.writeChunk(s.id, []int{s.output}, string(b[4:4+n]), b[4+n:])
			h.sending.Unlock()
		}
		if err != nil && !errors.Is(err, fs.ErrClosed) {
			h.update(func() {
				text := fmt.Sprintf("storage: %s: %v", s.path, err)
				h.logs = append(h.logs, LogLine{Level: "error", Text: text, Raw: text})
			})
		}
	}
}
