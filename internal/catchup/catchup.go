// Package catchup finds what no agent has read of containers' logs, because the kubelet rotated a file while no agent
// was reading, and lays it down where tail reads it. The kubelet keeps rotated files for a while (by default four, of
// 10 MiB); tail follows only the files that it has seen under the name of the one that is written.
//
// It must not know what is done with a line, nor who runs the agent.
package catchup

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/eks-tenant-logs/eks-tenant-logs/internal/link"
)

// Config says where what is.
type Config struct {
	// Logs is the kubelet's folder of pods' logs, /var/log/pods, as tail's path has it.
	Logs string
	// DB is tail's database. It is read before the agent starts; rows of files that are gone are removed where another
	// file has their inode.
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

	identify statter // replaces stat in tests
}

// Follower cares for the logs of one node, beside one agent.
type Follower struct {
	cfg  Config
	work chan struct{} // there may be something to copy
	soon chan struct{} // a look is due

	mu       sync.Mutex
	trackers map[Log]*tracker
	leaving  bool
	failing  bool     // the folder cannot be written to
	written  *journal // as it is on the disk; nil where it is not
	touched  time.Time
	finished map[string]time.Time
}

const (
	// quickly and slowly are how often files are looked at: quickly while the agent starts, for what is rotated
	// then may be compressed a second later, and while it ends.
	quickly, slowly = 100 * time.Millisecond, time.Second
	starting        = 10 * time.Second
	// readFor is how long a file must have been read to its end before it is removed: tail has its lines in chunks
	// long before.
	readFor = 10 * time.Second
	// reopening is the longest that a runtime takes to make the new file after a rotation.
	reopening = time.Second
)

// Prepare finds out what is unread, and writes it down; Follow lays it down. No agent may be running on the same state.
// Logs that cannot be cared for are told and left out; an error means that nothing is going to be laid down.
func Prepare(ctx context.Context, cfg Config) (*Follower, error) {
	f := &Follower{cfg: cfg, work: make(chan struct{}, 1), soon: make(chan struct{}, 1), trackers: map[Log]*tracker{}, finished: map[string]time.Time{}}
	if f.cfg.Report == nil {
		f.cfg.Report = func(link.Report) {}
	}
	if f.cfg.Now == nil {
		f.cfg.Now = time.Now
	}
	if f.cfg.identify == nil {
		f.cfg.identify = stat
	}
	if err := os.MkdirAll(cfg.Dir, 0o700); err != nil {
		return nil, err
	}
	sweep(cfg.Dir)
	j, journaling, err := f.readJournal()
	if err != nil {
		return nil, fmt.Errorf("failed to read %s: %w", f.journalPath(), err)
	}
	if journaling {
		now := time.Now() // reading the database may write to it
		_ = os.Chtimes(f.journalPath(), now, now)
	}
	rows, err := readRows(ctx, cfg.DB)
	if err != nil {
		return nil, fmt.Errorf("failed to read tail's database %s: %w", cfg.DB, err)
	}
	of := byLog(rows, cfg.Logs)
	known := past{before: nothing}
	switch {
	case journaling:
		known.before = journaled
	case len(of) > 0:
		known.before = tails
	}
	logs, err := f.whole(ctx)
	if err != nil {
		return nil, fmt.Errorf("failed to list %s: %w", cfg.Logs, err)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	var stale []Row
	for log, files := range logs {
		known.rows = of[log]
		t := &tracker{}
		for _, e := range j.Logs[log] {
			t.versions = append(t.versions, e.version())
		}
		t.find(files, &known)
		p, err := plan(files, known, sameContent, firstLine)
		if err != nil {
			cfg.Log.Error("what was not read of a log cannot be found out; what was rotated while no agent ran is not delivered", "log", string(log), "error", err)
			p = Plan{Current: Unread{File: files[len(files)-1]}}
		}
		stale = append(stale, p.Stale...)
		for _, g := range p.Gaps {
			f.lost(log, g.Bytes, "its file was rotated and removed while no agent ran", "opened", g.Opened.UTC().Format(time.RFC3339))
		}
		f.trackers[log] = p.tracker(files, known.of, f.cfg.Now())
		f.trackers[log].behead(f.cfg.identify)
	}
	for log, entries := range j.Logs {
		if _, there := logs[log]; there {
			continue
		}
		gone := past{before: journaled, rows: of[log]}
		for _, e := range entries {
			gone.gone = append(gone.gone, e.version())
		}
		p, _ := plan(nil, gone, sameContent, firstLine) // there is nothing to read
		for _, g := range p.Gaps {
			f.lost(log, g.Bytes, "its pod was removed while no agent ran", "opened", g.Opened.UTC().Format(time.RFC3339))
		}
	}
	if err := deleteRows(ctx, cfg.DB, stale); err != nil {
		cfg.Log.Error("what tail's database has of files that are gone cannot be removed; tail may go on with others in their place, and not from their start", "file", cfg.DB, "error", err)
	}
	if err := f.writeJournal(); err != nil {
		cfg.Log.Error("what is unread cannot be written down; should the agent be killed before it has opened all files, the rest is not delivered", "error", err)
	}
	return f, nil
}

// find matches a log's files with the versions of the journal.
func (t *tracker) find(files []File, known *past) {
	known.of, known.gone = make([]*version, len(files)), nil
	ids := make([]FileID, len(t.versions))
	for i, v := range t.versions {
		ids[i] = v.id
	}
	for i, file := range files {
		v := t.version(file)
		if v == nil || slices.Contains(known.of, v) {
			continue
		}
		if file.Rotated != v.rotated && !file.Gzip && file.ID.Born == 0 && v.head.Size == 0 {
			continue // an inode is all that says it, which may be another's by now
		}
		known.of[i] = v
	}
	for i, v := range t.versions {
		v.id = ids[i] // rows are of that time
		if !slices.Contains(known.of, v) {
			known.gone = append(known.gone, v)
		}
	}
}

// tracker is what there is to look after when the agent starts.
func (p Plan) tracker(files []File, of []*version, now time.Time) *tracker {
	t := &tracker{}
	for i, file := range files {
		v := &version{seen: now}
		if of[i] != nil {
			v.seen, v.head, v.size = of[i].seen, of[i].head, of[i].size
		}
		v.rotated, v.file, v.state = file.Rotated, file, done
		if !file.Gzip {
			v.id, v.size = file.ID, file.Size
		}
		if file.Rotated == "" {
			v.state, v.from = waiting, p.Current.From
		}
		for _, u := range p.Unread {
			if u.File.Path == file.Path {
				v.state, v.from = due, u.From
			}
		}
		t.versions = append(t.versions, v)
	}
	return t
}

// whole lists all logs. Between a rotation and the runtime's new file a log has no file that is written, and the
// rotated one is not whole.
func (f *Follower) whole(ctx context.Context) (map[Log][]File, error) {
	for began := time.Now(); ; {
		logs, err := scan(f.cfg.Logs, f.cfg.Exclude, f.cfg.identify)
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

// Follow looks after the agent's reading, and lays down what it does not read, until ctx ends. pid is the agent's process.
func (f *Follower) Follow(ctx context.Context, pid int) {
	copied := make(chan struct{})
	go func() {
		defer close(copied)
		f.copying(ctx)
	}()
	defer func() { <-copied }()
	began, failed := time.Now(), false
	for {
		err := f.look(pid)
		if isNotExist(err) {
			err = nil // the agent has ended, and ctx ends soon
		}
		if err != nil && !failed {
			f.cfg.Log.Warn("what Fluent Bit has open cannot be compared with containers' log files: a file that is rotated before Fluent Bit opens it is not delivered", "error", err)
		}
		failed = err != nil
		every := slowly
		f.mu.Lock()
		if time.Since(began) < starting || f.leaving {
			every = quickly
		}
		f.mu.Unlock()
		select {
		case <-ctx.Done():
			return
		case <-f.soon:
		case <-time.After(every):
		}
	}
}

// copying lays down what is due as soon as it is. What fails is tried again.
func (f *Follower) copying(ctx context.Context) {
	for {
		f.copy(ctx)
		select {
		case <-ctx.Done():
			return
		case <-f.work:
		case <-time.After(slowly):
		}
	}
}

// Leave says that the agent, which has this process, is about to be told to end. It stops reading then, some tenths of
// a second before it closes its files: how far it has read is looked at often. What it has closed before is seen here.
func (f *Follower) Leave(pid int) {
	_ = f.look(pid) // Follow has told of an error
	f.mu.Lock()
	defer f.mu.Unlock()
	f.leaving = true
	wake(f.soon)
}

func wake(c chan<- struct{}) {
	select {
	case c <- struct{}{}:
	default: // it is awake
	}
}

// Stop writes down what the agent has left unread, once it has ended. Follow must have returned.
func (f *Follower) Stop() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.written = nil // sizes count as well
	return f.writeJournal()
}

// look takes in what is there once.
func (f *Follower) look(pid int) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	// First what is open, then what is on the disk: a file that is rotated in between is known by its ID.
	open, err := opened(pid, f.cfg.identify, f.cfg.Logs, f.cfg.Dir)
	if err != nil {
		return err
	}
	logs, err := scan(f.cfg.Logs, f.cfg.Exclude, f.cfg.identify)
	if err != nil {
		return err
	}
	ofLog := map[Log]map[FileID]reading{}
	for id, r := range open {
		if log, _, _, ok := split(r.Name); ok {
			if ofLog[log] == nil {
				ofLog[log] = map[FileID]reading{}
			}
			ofLog[log][id] = r
		}
	}
	for log := range logs {
		if f.trackers[log] == nil {
			f.trackers[log] = &tracker{}
		}
	}
	for log, t := range f.trackers {
		t.leaving = f.leaving
		for _, v := range t.look(logs[log], ofLog[log], f.cfg.Now()) {
			f.lost(log, v.size-v.from, "a file was rotated and removed before the agent had read it")
		}
		t.behead(f.cfg.identify)
		if len(t.versions) == 0 {
			delete(f.trackers, log)
		}
		for _, v := range t.versions {
			if v.state == due {
				wake(f.work)
			}
		}
	}
	f.keep(errors.Join(f.writeJournal(), f.clear(open)))
	return nil
}

// keep tells once that the folder cannot be kept as it should be.
func (f *Follower) keep(err error) {
	if err != nil && !f.failing {
		f.cfg.Log.Error("the catch-up folder cannot be kept: should the node fail now, lines of rotated files may be delivered twice, or not", "error", err)
	}
	f.failing = err != nil
}

// copy lays down what is due. The lock is not held meanwhile: a copy takes as long as it takes.
func (f *Follower) copy(ctx context.Context) {
	type piece struct {
		log Log
		v   *version
		u   Unread
	}
	var pieces []piece
	f.mu.Lock()
	for log, t := range f.trackers {
		for _, v := range t.versions {
			if v.state == due {
				pieces = append(pieces, piece{log, v, Unread{v.file, v.from}})
			}
		}
	}
	f.mu.Unlock()
	for _, p := range pieces {
		n, err := lay(ctx, f.cfg.Dir, p.log, p.u)
		if ctx.Err() != nil {
			return // what is not laid down is due at the next start
		}
		f.mu.Lock()
		f.laid(p.log, p.v, p.u, n, err)
		f.mu.Unlock()
	}
	if len(pieces) > 0 {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.keep(f.writeJournal())
	}
}

// laid takes in what came of laying a version down.
func (f *Follower) laid(log Log, v *version, u Unread, n int64, err error) {
	if err == nil || isNotExist(err) || damaged(err) {
		v.state = done
	}
	switch {
	case err == nil && n > 0:
		ns, pod, container := log.parts()
		f.cfg.Log.Info("a file that was rotated while no agent read it is delivered from its copy", "namespace", ns, "pod", pod, "container", container, "rotated", u.File.Rotated, "bytes", n)
		f.cfg.Report(link.Report{Kind: link.CaughtUp, Namespace: ns, Pod: pod, Container: container, Bytes: n})
	case err == nil:
	case isNotExist(err):
		f.lost(log, max(0, v.size-u.From), "a file was removed before it could be copied")
	case damaged(err):
		f.lost(log, 0, "a compressed file is damaged", "error", err)
	case !v.told:
		v.told = true
		f.cfg.Log.Error("a file that was rotated while no agent read it cannot be copied; trying again", "log", string(log), "rotated", u.File.Rotated, "error", err)
	}
}

func (f *Follower) lost(log Log, bytes int64, why string, attrs ...any) {
	ns, pod, container := log.parts()
	f.cfg.Log.Error("lines of a container are lost: "+why, append([]any{"namespace", ns, "pod", pod, "container", container, "bytes", bytes}, attrs...)...)
	f.cfg.Report(link.Report{Kind: link.Lost, Namespace: ns, Pod: pod, Container: container, Bytes: bytes})
}

// clear removes copies that were read to their end.
func (f *Follower) clear(open map[FileID]reading) error {
	paths, err := laid(f.cfg.Dir)
	if err != nil {
		return err
	}
	finished := map[string]time.Time{}
	var errs []error
	for _, path := range paths {
		id, _, size, _, err := f.cfg.identify(path)
		if err != nil {
			continue
		}
		r, ok := open[id]
		if !ok || r.Position < size {
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
