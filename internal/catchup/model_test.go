package catchup

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"database/sql"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/zeebo/xxh3"
	"pgregory.net/rapid"

	"github.com/eks-tenant-logs/eks-tenant-logs/internal/link"
)

// A model of what is around the launcher: a container that writes numbered lines, the kubelet that rotates them, and
// Fluent Bit's tail with its database. tail's files are open in this very process, so that the Follower finds them as
// it finds Fluent Bit's.

const podDir = "tenant-acme_web-0_0b0c"

type world struct {
	t    *rapid.T
	dir  string
	log  Log
	keep int
	now  time.Time

	file    *os.File             // the container's
	born    map[uint64]time.Time // when the files of these inodes were made
	births  bool                 // the file system tells
	written int

	rows     []Row
	tail     []*tailed // nil while no agent runs
	running  bool
	got      map[int]int
	follower *Follower
	reports  []link.Report
	copies   map[string]bool // read by the second tail
	minutes  int             // that have passed
}

// tailed is a file that tail has open.
type tailed struct {
	f       *os.File
	inode   uint64
	name    string
	offset  int64
	rotated time.Time // when tail noticed it
}

func newWorld(t *rapid.T, keep int) *world {
	dir, err := os.MkdirTemp("", "catchup-")
	require.NoError(t, err)
	t.Cleanup(func() { os.RemoveAll(dir) })
	w := &world{t: t, dir: dir, keep: keep, now: time.Now().Truncate(time.Second), births: rapid.IntRange(0, 3).Draw(t, "births") > 0, born: map[uint64]time.Time{}, got: map[int]int{}, copies: map[string]bool{}}
	w.log = Log(filepath.Join(w.logs(), podDir, "app", "0.log"))
	require.NoError(t, os.MkdirAll(filepath.Dir(string(w.log)), 0o755))
	w.reopen()
	t.Cleanup(func() {
		w.file.Close()
		w.end(true)
	})
	return w
}

func (w *world) logs() string { return filepath.Join(w.dir, "pods") }
func (w *world) db() string   { return filepath.Join(w.dir, "tail.db") }
func (w *world) copyDir() string {
	return filepath.Join(w.dir, "catch-up")
}

func (w *world) reopen() {
	f, err := os.OpenFile(string(w.log), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	require.NoError(w.t, err)
	if w.file != nil {
		w.file.Close()
	}
	w.file = f
	id, _, _, _, err := stat(string(w.log))
	require.NoError(w.t, err)
	w.born[id.Inode] = w.now
}

// stat is stat with the model's time.
func (w *world) stat(path string) (id FileID, mode uint32, size int64, modified time.Time, err error) {
	id, mode, size, modified, err = stat(path)
	if path == w.db() && err == nil {
		id = FileID{1, 1} // the model makes it anew
		return id, mode, size, modified, err
	}
	id.Born = 0
	if w.births && err == nil {
		id.Born = w.born[id.Inode].UnixNano()
	}
	return id, mode, size, modified, err
}

// pass lets time go on.
func (w *world) pass(atMost int) {
	w.now = w.now.Add(time.Duration(rapid.IntRange(1, atMost).Draw(w.t, "ms")) * time.Millisecond)
}

func (w *world) write(lines int) {
	var b bytes.Buffer
	for range lines {
		fmt.Fprintf(&b, "%s line %d\n", w.now.Format("2006-01-02T15:04:05.000000000Z07:00"), w.written)
		w.written++
	}
	_, err := w.file.Write(b.Bytes())
	require.NoError(w.t, err)
}

// unread reports whether a file holds a line that nothing has read or copied.
func (w *world) unread(path string) bool {
	f := File{Path: path, Gzip: strings.HasSuffix(path, gzipSuffix)}
	r, err := f.open()
	require.NoError(w.t, err)
	defer func() { _ = r.Close() }()
	data, err := io.ReadAll(r)
	require.NoError(w.t, err)
	held := w.held()
	for _, n := range numbersIn(w.t, data) {
		if w.got[n] == 0 && !held[n] {
			return true
		}
	}
	return false
}

// held are the numbers of lines in copies.
func (w *world) held() map[int]bool {
	held := map[int]bool{}
	paths, err := laid(w.copyDir())
	require.NoError(w.t, err)
	for _, p := range paths {
		data, err := os.ReadFile(p)
		require.NoError(w.t, err)
		for _, n := range numbersIn(w.t, data) {
			held[n] = true
		}
	}
	return held
}

func numbersIn(t require.TestingT, data []byte) (numbers []int) {
	lines := bufio.NewScanner(bytes.NewReader(data))
	for lines.Scan() {
		var n int
		_, text, _ := strings.Cut(lines.Text(), " ")
		_, err := fmt.Sscanf(text, "line %d", &n)
		require.NoError(t, err, lines.Text())
		numbers = append(numbers, n)
	}
	return numbers
}

// rotate is one rotation of the kubelet's. It is put off where it would remove what nothing has read.
func (w *world) rotate() {
	old, err := filepath.Glob(string(w.log) + ".*")
	require.NoError(w.t, err)
	slices.Sort(old)
	for len(old) > w.keep-2 {
		if w.unread(old[0]) {
			return
		}
		require.NoError(w.t, os.Remove(old[0]))
		old = old[1:]
	}
	for _, path := range old {
		if strings.HasSuffix(path, gzipSuffix) {
			continue
		}
		data, err := os.ReadFile(path)
		require.NoError(w.t, err)
		var b bytes.Buffer
		z := gzip.NewWriter(&b)
		_, err = z.Write(data)
		require.NoError(w.t, err)
		require.NoError(w.t, z.Close())
		require.NoError(w.t, os.WriteFile(path+gzipSuffix, b.Bytes(), 0o600))
		require.NoError(w.t, os.Remove(path))
	}
	if len(old) > 0 {
		// The kubelet looks at a log once in some seconds: no two rotations have the same second.
		last, err := time.ParseInLocation(rotatedLayout, strings.TrimSuffix(strings.TrimPrefix(old[len(old)-1], string(w.log)+"."), gzipSuffix), time.Local)
		require.NoError(w.t, err)
		if next := last.Add(time.Second); w.now.Before(next) {
			w.now = next
			w.pass(999)
		}
	}
	require.NoError(w.t, os.Rename(string(w.log), string(w.log)+"."+w.now.Format(rotatedLayout)))
	w.reopen()
}

// start starts an agent: the launcher's part, then tail's.
func (w *world) start(between func()) {
	if w.running {
		return
	}
	w.saveRows()
	var err error
	w.follower, err = Prepare(context.Background(), Config{
		Logs: w.logs(), DB: w.db(), Dir: w.copyDir(), Log: slog.New(slog.DiscardHandler), Now: func() time.Time { return w.now }, identify: w.stat,
		Report: func(r link.Report) { w.reports = append(w.reports, r) },
	})
	require.NoError(w.t, err)
	between()
	w.running = true
	// tail keeps the rows of what it finds, and deletes the others.
	var kept []Row
	info, err := os.Stat(string(w.log))
	require.NoError(w.t, err)
	for _, r := range w.rows {
		if r.Inode == inode(info) && r.Name == string(w.log) && r.Offset <= info.Size() {
			if same, err := sameContent(File{Path: string(w.log)}, r); err == nil && same {
				kept = append(kept, r)
			}
		}
	}
	w.rows = kept
	w.open()
}

// open opens the file that is written, where tail does not have it.
func (w *world) open() {
	f, err := os.Open(string(w.log))
	require.NoError(w.t, err)
	info, err := f.Stat()
	require.NoError(w.t, err)
	for _, o := range w.tail {
		if o.inode == inode(info) {
			f.Close()
			return
		}
	}
	o := &tailed{f: f, inode: inode(info), name: string(w.log)}
	if r := w.row(o.inode); r != nil {
		o.offset = r.Offset
	} else {
		w.rows = append(w.rows, Row{Name: o.name, Inode: o.inode, Created: w.now})
	}
	_, err = f.Seek(o.offset, io.SeekStart)
	require.NoError(w.t, err)
	w.tail = append(w.tail, o)
}

func (w *world) row(inode uint64) *Row {
	for i := range w.rows {
		if w.rows[i].Inode == inode {
			return &w.rows[i]
		}
	}
	return nil
}

// notice is inotify's: tail finds that files were rotated, closes those that are removed and read, and opens the new one.
func (w *world) notice() {
	if !w.running {
		return
	}
	w.tail = slices.DeleteFunc(w.tail, func(o *tailed) bool {
		link, err := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", o.f.Fd()))
		require.NoError(w.t, err)
		name, removed := strings.CutSuffix(link, " (deleted)")
		info, err := o.f.Stat()
		require.NoError(w.t, err)
		if removed && o.offset == info.Size() {
			w.drop(o)
			return true
		}
		if name != o.name && o.rotated.IsZero() {
			o.rotated = w.now
			w.row(o.inode).Name = name
		}
		return false
	})
	w.open()
}

// purge is a minute later: tail closes rotated files that were read to their end, as it does after rotate_wait, and the
// launcher does not count on its snapshot any more.
func (w *world) purge() {
	if !w.running {
		return
	}
	w.look() // as each second
	w.now = w.now.Add(time.Minute)
	w.minutes++
	w.look()
	w.tail = slices.DeleteFunc(w.tail, func(o *tailed) bool {
		info, err := o.f.Stat()
		require.NoError(w.t, err)
		if o.rotated.IsZero() || w.now.Sub(o.rotated) < time.Minute || o.offset < info.Size() {
			return false
		}
		w.drop(o)
		return true
	})
}

func (w *world) drop(o *tailed) {
	o.f.Close()
	w.rows = slices.DeleteFunc(w.rows, func(r Row) bool { return r.Inode == o.inode })
}

// read reads some lines of one file.
func (w *world) read(which, lines int) {
	if !w.running || len(w.tail) == 0 {
		return
	}
	o := w.tail[which%len(w.tail)]
	data, err := io.ReadAll(io.NewSectionReader(o.f, o.offset, 1<<40))
	require.NoError(w.t, err)
	for ; lines > 0; lines-- {
		at := bytes.IndexByte(data, '\n')
		if at < 0 {
			break
		}
		w.take(data[:at+1])
		o.offset += int64(at + 1)
		data = data[at+1:]
	}
	_, err = o.f.Seek(o.offset, io.SeekStart)
	require.NoError(w.t, err)
	r := w.row(o.inode)
	r.Offset, r.MarkerSize = o.offset, min(o.offset, 64)
	b := make([]byte, r.MarkerSize)
	_, err = o.f.ReadAt(b, o.offset-r.MarkerSize)
	require.NoError(w.t, err)
	r.Marker = xxh3.Hash(b)
}

func (w *world) take(data []byte) {
	for _, n := range numbersIn(w.t, data) {
		w.got[n]++
	}
}

// readCopies is the second tail: it reads what the launcher laid down, once.
func (w *world) readCopies() {
	if !w.running {
		return
	}
	paths, err := laid(w.copyDir())
	require.NoError(w.t, err)
	for _, p := range paths {
		if w.copies[p] {
			continue
		}
		w.copies[p] = true
		data, err := os.ReadFile(p)
		require.NoError(w.t, err)
		w.take(data)
	}
}

func (w *world) look() {
	if w.running {
		require.NoError(w.t, w.follower.look(os.Getpid()))
	}
}

// copy lays down what is due, as the launcher does at any time.
func (w *world) copy() {
	if w.running {
		w.follower.copy(context.Background())
	}
}

// end ends the agent, and its launcher: killed, where it does not write its journal.
func (w *world) end(writes bool) {
	if w.running && writes {
		w.follower.Leave(os.Getpid())
		w.look() // tail has stopped reading
		for _, o := range w.tail {
			if !o.rotated.IsZero() {
				w.drop(o) // its row
			}
		}
		require.NoError(w.t, w.follower.Stop())
	}
	for _, o := range w.tail {
		o.f.Close()
	}
	w.tail, w.running = nil, false
}

func (w *world) saveRows() {
	_ = os.Remove(w.db())
	if len(w.rows) == 0 && w.follower == nil {
		return
	}
	saveRows(w.t, w.db(), w.rows)
}

// saveRows writes a database as tail has it.
func saveRows(t require.TestingT, path string, rows []Row) {
	db, err := sql.Open("sqlite", path)
	require.NoError(t, err)
	defer func() { _ = db.Close() }()
	_, err = db.Exec("CREATE TABLE in_tail_files (id INTEGER PRIMARY KEY, name TEXT NOT NULL, offset INTEGER, inode INTEGER, created INTEGER, rotated INTEGER DEFAULT 0, offset_marker INTEGER DEFAULT 0, offset_marker_size INTEGER DEFAULT 0)")
	require.NoError(t, err)
	for _, r := range rows {
		_, err = db.Exec("INSERT INTO in_tail_files (name, offset, inode, created, offset_marker, offset_marker_size) VALUES (?, ?, ?, ?, ?, ?)",
			r.Name, r.Offset, int64(r.Inode), r.Created.Unix(), int64(r.Marker), r.MarkerSize)
		require.NoError(t, err)
	}
}

// Whatever happens in whatever order, as long as the kubelet removes nothing that is unread: each line is read once.
func TestEachLineIsReadOnceOverAnyRotationsAndRestarts(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := newWorld(t, rapid.IntRange(3, 6).Draw(t, "files that are kept"))
		w.start(func() {}) // lines from before the first agent are another matter
		step := func(name string) {
			switch rapid.SampledFrom([]string{"write", "write", "rotate", "notice", "read", "read", "a minute", "look", "copy", "copies", "end", "killed", "start", "time"}).Draw(t, name) {
			case "write":
				w.write(rapid.IntRange(1, 5).Draw(t, "lines"))
			case "rotate":
				// The launcher looks each second; the kubelet cannot rotate a log twice in that time.
				w.look()
				w.rotate()
			case "notice":
				w.notice()
			case "read":
				w.read(rapid.IntRange(0, 5).Draw(t, "file"), rapid.IntRange(1, 5).Draw(t, "lines"))
				if w.minutes > 0 {
					// A file that tail has been behind with for a minute is looked at between its last line and its closing.
					w.look()
				}
			case "a minute":
				w.purge()
			case "look":
				w.look()
			case "copy":
				w.copy()
			case "copies":
				w.readCopies()
			case "end":
				w.end(true)
			case "killed":
				w.end(false)
			case "time":
				w.pass(1500)
			case "start":
				w.start(func() {
					if rapid.Bool().Draw(t, "a rotation before tail starts") {
						w.write(1)
						w.rotate()
						w.write(1)
					}
				})
			}
		}
		for i := range rapid.IntRange(1, 60).Draw(t, "steps") {
			step(fmt.Sprint("step ", i))
		}
		// To the end.
		w.start(func() {})
		for range 4 {
			w.notice()
			w.look()
			w.look()
			for i := range w.tail {
				w.read(i, 1<<20)
			}
			w.look()
			w.copy()
			w.readCopies()
		}
		for n := range w.written {
			require.Equal(t, 1, w.got[n], "line %d", n)
		}
		for _, r := range w.reports {
			require.False(t, r.Kind == link.Lost && r.Bytes > 0) // of a file that is gone it is not known whether all was read
		}
	})
}

// alter changes a database.
func alter(path string, statements ...string) error {
	db, err := sql.Open("sqlite", path)
	if err != nil {
		return err
	}
	defer func() { _ = db.Close() }()
	for _, s := range statements {
		if _, err := db.Exec(s); err != nil {
			return err
		}
	}
	return nil
}

func inode(info os.FileInfo) uint64 { return info.Sys().(*syscall.Stat_t).Ino }
