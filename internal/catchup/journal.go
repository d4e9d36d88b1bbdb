package catchup

import (
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/eks-tenant-logs/eks-tenant-logs/internal/folder"
)

// The journal tells the next start which files there were, and which of them the agent had open. tail's database
// alone does not: a row has no more than an inode and a second, and rows of rotated files are deleted at tail's start.
// It is written whenever a file was made, opened, rotated or laid down.
const (
	journalName = "files.json"
	// touchEvery is how often the journal's time is set while an agent runs. A database that was written later, by
	// more than apart, is of an agent without a launcher.
	touchEvery = 10 * time.Second
	apart      = time.Minute
)

type journal struct {
	// DB is tail's database, once it is there. With another one, tail reads everything anew.
	DB   FileID          `json:"db"`
	Logs map[Log][]entry `json:"logs"`
}

// entry is a version.
type entry struct {
	FileID
	Rotated string    `json:"rotated,omitempty"`
	From    int64     `json:"from,omitempty"`
	Size    int64     `json:"size,omitempty"`
	Seen    time.Time `json:"seen"`
	Head    Head      `json:"head"`
	State   state     `json:"state"`
	// Open says that the agent had it open, and had read to Position.
	Open     bool  `json:"open,omitempty"`
	Position int64 `json:"position,omitempty"`
}

func (e entry) version() *version {
	return &version{id: e.FileID, rotated: e.Rotated, from: e.From, size: e.Size, seen: e.Seen, head: e.Head, state: e.State, open: e.Open, position: e.Position}
}

func (v *version) entry() entry {
	return entry{FileID: v.id, Rotated: v.rotated, From: v.from, Size: v.size, Seen: v.seen, Head: v.head, State: v.state, Open: v.open, Position: v.position}
}

func (f *Follower) journalPath() string { return filepath.Join(f.cfg.Dir, journalName) }

// readJournal reads the journal; ok is false where there is none that counts.
func (f *Follower) readJournal() (j journal, ok bool, err error) {
	data, err := os.ReadFile(f.journalPath())
	if err != nil {
		if isNotExist(err) {
			err = nil
		}
		return j, false, err
	}
	_, _, _, written, err := f.cfg.identify(f.journalPath())
	if err != nil {
		return j, false, err
	}
	if err := json.Unmarshal(data, &j); err != nil {
		f.cfg.Log.Error("the file that keeps what was unread at the last start is damaged, and is left out", "file", f.journalPath(), "error", err)
		return journal{}, false, nil
	}
	db, _, _, used, err := f.cfg.identify(f.cfg.DB)
	switch _, _, _, wal, werr := f.cfg.identify(f.cfg.DB + "-wal"); {
	case err != nil && !isNotExist(err):
		return journal{}, false, err
	case werr == nil && wal.After(used):
		used = wal
	}
	switch {
	case j.DB != (FileID{}) && !j.DB.is(db):
		f.cfg.Log.Warn("tail's database is another than before: Fluent Bit reads the files that are written from their start, and what was rotated before is not delivered", "file", f.cfg.DB)
		return journal{}, false, nil
	case used.Sub(written) > apart:
		f.cfg.Log.Warn("Fluent Bit has run without the launcher: what it left unread is told by its database alone", "file", f.cfg.DB)
		return journal{}, false, nil
	}
	return j, true, nil
}

// writeJournal writes the journal where more has changed than sizes and positions. The caller holds the lock.
func (f *Follower) writeJournal() error {
	j := journal{Logs: make(map[Log][]entry, len(f.trackers))}
	j.DB, _, _, _, _ = f.cfg.identify(f.cfg.DB) // zero where there is none
	changed := f.written == nil || f.written.DB != j.DB || len(f.written.Logs) != len(f.trackers)
	for log, t := range f.trackers {
		entries := make([]entry, len(t.versions))
		for i, v := range t.versions {
			entries[i] = v.entry()
		}
		j.Logs[log] = entries
		changed = changed || !slices.EqualFunc(entries, f.written.Logs[log], alike)
	}
	now := time.Now()
	if !changed {
		if now.Sub(f.touched) < touchEvery {
			return nil
		}
		f.touched = now
		return os.Chtimes(f.journalPath(), now, now)
	}
	err := folder.Replace(f.journalPath(), func(w io.Writer) error { return json.NewEncoder(w).Encode(j) })
	if err != nil {
		return err
	}
	f.written, f.touched = &j, now
	return syncDir(f.cfg.Dir)
}

func alike(a, b entry) bool {
	a.Size, b.Size, a.Position, b.Position = 0, 0, 0, 0
	return a == b
}
