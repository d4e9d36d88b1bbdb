// Package catchup finds what no agent has read of containers' logs, because the kubelet rotated a file while no agent
// was reading, and lays it down where tail reads it. The kubelet keeps rotated files for a while (by default four, of
// 10 MiB); tail follows only the files that it has seen under the name of the one that is written.
//
// It must not know what is done with a line, nor who runs the agent.
package catchup

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/eks-tenant-logs/eks-tenant-logs/internal/folder"
	"github.com/eks-tenant-logs/eks-tenant-logs/internal/link"
)

// Config says where what is.
type Config struct {
	// Logs is the kubelet's folder of pods' logs, /var/log/pods, as tail's path has it.
	Logs string
	// DB is tail's database. It is read before the agent starts, and never written.
	DB string
	// Dir is where the rest of rotated files is laid down: <Dir>/<pod>/<container>/<restarts>.<time>.log.
	Dir string
	// Exclude are tail's exclude_path.
	Exclude []string
	// Log gets what an operator should know.
	Log *slog.Logger
	// Now replaces the clock.
	Now func() time.Time
	// Report gets each file that was caught up or lost. It must not block.
	Report func(link.Report)
}

// Follower cares for the logs of one node, beside one agent.
type Follower struct {
	cfg      Config
	trackers map[Log]*tracker
	pending  []pending // could not be laid down yet
	snapshot bool      // the file is there
	finished map[string]time.Time
}

type pending struct {
	log Log
	Unread
	told bool // that it cannot be copied at the moment
}

const (
	// snapshotName is the file that keeps, from before the agent starts until it has opened every log, what its
	// database said. The agent deletes rows of files that are rotated away at its start.
	snapshotName = "unread.json"
	// settle is how long the agent may take to open all logs, before what waits is forgotten at its next start.
	settle = time.Minute
	// quickly and slowly are how often files are looked at: quickly while the agent starts, for what is rotated
	// then may be compressed a second later.
	quickly, slowly = 100 * time.Millisecond, time.Second
	starting        = 10 * time.Second
	// readFor is how long a file must have been read to its end before it is removed: tail has its lines in chunks
	// long before.
	readFor = 10 * time.Second
	// reopening is the longest that a runtime takes to make the new file after a rotation.
	reopening = time.Second
)

type snapshot struct {
	// Rows are of what was unread, and Opened of what the agent had open.
	Rows   []Row `json:"rows"`
	Opened []Row `json:"opened,omitempty"`
	// Seen are the times in the names of each log's files that were read, or laid down.
	Seen map[Log][]string `json:"seen,omitempty"`
}

// Prepare finds out what is unread and lays it down. No agent may be running on the same state. Logs that cannot be
// cared for are told and left out; an error means that nothing is laid down.
func Prepare(ctx context.Context, cfg Config) (*Follower, error) {
	f := &Follower{cfg: cfg, trackers: map[Log]*tracker{}, finished: map[string]time.Time{}}
	if f.cfg.Report == nil {
		f.cfg.Report = func(link.Report) {}
	}
	if f.cfg.Now == nil {
		f.cfg.Now = time.Now
	}
	if err := os.MkdirAll(cfg.Dir, 0o700); err != nil {
		return nil, err
	}
	sweep(cfg.Dir)
	rows, err := readRows(ctx, cfg.DB)
	if err != nil {
		return nil, fmt.Errorf("failed to read tail's database %s: %w", cfg.DB, err)
	}
	before, err := f.readSnapshot()
	if err != nil {
		return nil, err
	}
	of, old, opened := byLog(rows, cfg.Logs), byLog(before.Rows, cfg.Logs), byLog(before.Opened, cfg.Logs)
	known := len(of)+len(old) > 0
	logs, err := f.whole(ctx)
	if err != nil {
		return nil, fmt.Errorf("failed to list %s: %w", cfg.Logs, err)
	}
	var keep []Row
	var todo []pending
	now := f.cfg.Now()
	for log, files := range logs {
		mine := merged(files, of[log], opened[log], old[log])
		seen := map[string]bool{}
		for _, rotated := range before.Seen[log] {
			seen[rotated] = true
		}
		p, err := plan(files, mine, known, seen, sameContent, firstLine)
		if err != nil {
			cfg.Log.Error("what was not read of a log cannot be found out; what was rotated while no agent ran is not delivered", "log", string(log), "error", err)
			continue
		}
		for _, g := range p.Gaps {
			f.lost(log, 0, "its last file was rotated and removed while no agent ran", "opened", g.Row.Created.UTC().Format(time.RFC3339))
		}
		t := &tracker{}
		for _, file := range files {
			v := &version{inode: file.Inode, rotated: file.Rotated, size: file.Size, state: done, seen: now}
			if file.Gzip {
				v.inode = 0
			}
			t.versions = append(t.versions, v)
		}
		if c := p.Current; c.File.Path != "" {
			v := t.versions[len(t.versions)-1]
			v.state, v.from = waiting, c.From
			if c.From == 0 {
				mine = append(mine, Row{Name: string(log), Inode: c.File.Inode, Created: now})
			}
		}
		f.trackers[log] = t
		keep = append(keep, mine...)
		for _, u := range p.Unread {
			todo = append(todo, pending{log: log, Unread: u})
		}
	}
	if err := f.writeSnapshot(snapshot{Rows: keep, Seen: before.Seen}); err != nil {
		cfg.Log.Error("what is unread cannot be written down; should the agent be killed before it has opened all files, the rest is not delivered", "error", err)
	}
	for _, u := range todo {
		f.lay(u)
	}
	return f, nil
}

// whole lists all logs. Between a rotation and the runtime's new file a log has no file that is written, and the
// rotated one is not whole.
func (f *Follower) whole(ctx context.Context) (map[Log][]File, error) {
	for began := time.Now(); ; {
		logs, err := scan(f.cfg.Logs, f.cfg.Exclude)
		if err != nil || time.Since(began) >= reopening || !rotating(logs) {
			return logs, err
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(quickly):
		}
	}
}

// rotating reports whether a log is being rotated at the moment, or was a moment ago.
func rotating(logs map[Log][]File) bool {
	for _, files := range logs {
		last := files[len(files)-1]
		switch {
		case last.Gzip:
		case last.Rotated != "":
			if time.Since(last.Modified) < reopening {
				return true
			}
		case len(files) > 1 && !files[len(files)-2].Gzip:
			if time.Since(files[len(files)-2].Modified) < quickly {
				return true
			}
		}
	}
	return false
}

// Follow looks after the agent's reading until ctx ends. pid is the agent's process.
func (f *Follower) Follow(ctx context.Context, pid int) {
	began, failed := time.Now(), false
	for {
		every := slowly
		if time.Since(began) < starting {
			every = quickly
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(every):
		}
		err := f.look(pid, time.Since(began) > settle)
		if isNotExist(err) {
			err = nil // the agent has ended, and ctx ends soon
		}
		if err != nil && !failed {
			f.cfg.Log.Warn("what Fluent Bit has open cannot be compared with containers' log files: a file that is rotated before Fluent Bit opens it is not delivered", "error", err)
		}
		failed = err != nil
	}
}

// Stop writes down what the agent has left unread, once it has ended. Follow must have returned.
func (f *Follower) Stop() error {
	s := snapshot{Seen: map[Log][]string{}}
	for log, t := range f.trackers {
		s.Rows = append(s.Rows, t.rows(log, waiting)...)
		s.Opened = append(s.Opened, t.rows(log, read)...)
		if seen := t.seen(); len(seen) > 0 {
			s.Seen[log] = seen
		}
	}
	for _, u := range f.pending {
		s.Rows = append(s.Rows, Row{Name: u.log.file(u.File.Rotated), Inode: u.File.Inode, Offset: u.From, Created: f.cfg.Now()})
	}
	return f.writeSnapshot(s)
}

// look takes in what is there once. late says that the agent's start is over.
func (f *Follower) look(pid int, late bool) error {
	// First what is open, then what is on the disk: a file that is rotated in between is known by its inode.
	open, err := opened(pid, f.cfg.Logs, f.cfg.Dir)
	if err != nil {
		return err
	}
	logs, err := scan(f.cfg.Logs, f.cfg.Exclude)
	if err != nil {
		return err
	}
	ofLog := map[Log]map[uint64]reading{}
	for inode, r := range open {
		if log, _, _, ok := split(r.Name); ok {
			if ofLog[log] == nil {
				ofLog[log] = map[uint64]reading{}
			}
			ofLog[log][inode] = r
		}
	}
	settled := len(f.pending) == 0
	for log, files := range logs {
		t := f.trackers[log]
		if t == nil {
			t = &tracker{}
			f.trackers[log] = t
		}
		missed, lost := t.look(files, ofLog[log], f.cfg.Now())
		for _, u := range missed {
			f.lay(pending{log: log, Unread: u})
		}
		for _, v := range lost {
			f.lost(log, v.size-v.from, "a file was rotated and removed before the agent had read it")
		}
		settled = settled && t.settled()
	}
	for log := range f.trackers {
		if _, there := logs[log]; !there {
			delete(f.trackers, log)
		}
	}
	again := f.pending
	f.pending = nil
	for _, u := range again {
		f.lay(u)
	}
	if f.snapshot && (settled || late && len(f.pending) == 0) {
		if err := os.Remove(f.snapshotPath()); err == nil || isNotExist(err) {
			f.snapshot = false
		}
	}
	return f.clear(open)
}

// lay lays one file down; where that fails, it is tried again.
func (f *Follower) lay(u pending) {
	n, err := lay(f.cfg.Dir, u.log, u.Unread)
	switch {
	case err == nil && n > 0:
		ns, pod, container := u.log.parts()
		f.cfg.Log.Info("a file that was rotated while no agent read it is delivered from its copy", "namespace", ns, "pod", pod, "container", container, "rotated", u.File.Rotated, "bytes", n)
		f.cfg.Report(link.Report{Kind: link.CaughtUp, Namespace: ns, Pod: pod, Container: container, Bytes: n})
	case isNotExist(err):
		f.lost(u.log, max(0, u.File.Size-u.From), "a file was removed before it could be copied")
	case damaged(err):
		f.lost(u.log, 0, "a compressed file is damaged", "error", err)
	case err != nil && u.told:
		f.pending = append(f.pending, u)
	case err != nil:
		u.told = true
		f.cfg.Log.Error("a file that was rotated while no agent read it cannot be copied; trying again", "log", string(u.log), "rotated", u.File.Rotated, "error", err)
		f.pending = append(f.pending, u)
	}
}

func (f *Follower) lost(log Log, bytes int64, why string, attrs ...any) {
	ns, pod, container := log.parts()
	f.cfg.Log.Error("lines of a container are lost: "+why, append([]any{"namespace", ns, "pod", pod, "container", container, "bytes", bytes}, attrs...)...)
	f.cfg.Report(link.Report{Kind: link.Lost, Namespace: ns, Pod: pod, Container: container, Bytes: bytes})
}

// clear removes copies that were read to their end. While the snapshot is there they stay: should the agent end now,
// the next start finds what they hold unread, and that it was laid down already.
func (f *Follower) clear(open map[uint64]reading) error {
	if f.snapshot {
		return nil
	}
	paths, err := laid(f.cfg.Dir)
	if err != nil {
		return err
	}
	finished := map[string]time.Time{}
	var errs []error
	for _, path := range paths {
		info, err := os.Stat(path)
		if err != nil {
			continue
		}
		r, ok := open[inode(info)]
		if !ok || r.Position < info.Size() {
			continue
		}
		since, ok := f.finished[path]
		if !ok {
			since = time.Now()
		}
		if time.Since(since) >= readFor {
			errs = append(errs, discard(f.cfg.Dir, path))
			continue
		}
		finished[path] = since
	}
	f.finished = finished
	return errors.Join(errs...)
}

// file is the path of one of the log's files; rotated is the time in its name, or empty.
func (l Log) file(rotated string) string {
	if rotated == "" {
		return string(l)
	}
	return string(l) + "." + rotated
}

// parts are the namespace, pod and container that a log belongs to: <namespace>_<pod>_<uid>/<container>.
func (l Log) parts() (namespace, pod, container string) {
	dir := filepath.Dir(string(l))
	parts := strings.SplitN(filepath.Base(filepath.Dir(dir)), "_", 3)
	for len(parts) < 2 {
		parts = append(parts, "")
	}
	return parts[0], parts[1], filepath.Base(dir)
}

func (f *Follower) snapshotPath() string { return filepath.Join(f.cfg.Dir, snapshotName) }

func (f *Follower) readSnapshot() (s snapshot, err error) {
	data, err := os.ReadFile(f.snapshotPath())
	if err != nil {
		if isNotExist(err) {
			return s, nil
		}
		return s, err
	}
	if err := json.Unmarshal(data, &s); err != nil {
		f.cfg.Log.Error("the file that keeps what was unread at the last start is damaged, and is left out", "file", f.snapshotPath(), "error", err)
		return snapshot{}, nil
	}
	return s, nil
}

func (f *Follower) writeSnapshot(s snapshot) error {
	data, err := json.Marshal(s)
	if err != nil {
		return err
	}
	err = folder.Replace(f.snapshotPath(), func(w io.Writer) error {
		_, err := w.Write(data)
		return err
	})
	if err != nil {
		return err
	}
	f.snapshot = true
	return syncDir(f.cfg.Dir)
}
