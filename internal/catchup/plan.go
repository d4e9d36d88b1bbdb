package catchup

import (
	"io"
	"slices"
	"strings"
	"time"

	"github.com/zeebo/xxh3"
)

// Unread is a rotated file that no agent read to its end.
type Unread struct {
	File File
	// From is the first byte that was not read, of the content (decompressed).
	From int64
}

// Gap is a file of a log that was not read to its end and is not there any more.
type Gap struct {
	// Opened is when the agent had opened it.
	Opened time.Time
	// Bytes is how many are known to be lost.
	Bytes int64
}

// Plan is what the agent before left unread of one log.
type Plan struct {
	// Unread are the files to catch up, oldest first. The file that is written is never among them: tail reads it.
	Unread []Unread
	// Current is what tail is going to read itself: the file that is written, from its row's offset. Its File is the
	// zero value where the log has no such file.
	Current Unread
	// Gaps are files that are lost.
	Gaps []Gap
	// Stale are rows of other files that have the inode of the one that is written. tail would go on with it from their
	// offset, where the bytes in front of that happen to be the same: it compares 32 of them, which ends of lines often share.
	Stale []Row
}

// content tells whether the bytes in front of a row's offset are those of a file.
type content func(f File, r Row) (same bool, err error)

// quiet is how long a container that fills its files may write nothing to a new one, before it is taken to be another
// than the one that was opened when it was made.
const quiet = 2 * time.Second

// before is what is known of the time before the agent's start.
type before uint8

const (
	// nothing: the agent is new on this node.
	nothing before = iota
	// tails: tail has a database, of an agent without a launcher.
	tails
	// journaled: the launcher's journal tells of each file that was there when the agent ended.
	journaled
)

// past is what is known of a log's files.
type past struct {
	before before
	// of are the versions of the journal that the files are; nil where it has none. gone are those of which there is no file.
	of   []*version
	gone []*version
	// rows are tail's of this log, in the order in which they were made.
	rows []Row
}

// plan decides what of a log's files, oldest first, is unread.
//
//	files (oldest first)                  known                                unread
//	T1.gz  T2     0.log                   rows of T2, at its end, and 0.log    nothing: T1 was read, and its row is gone
//	T1     0.log                          a row of T1, at 100                  T1 from 100; tail reads 0.log
//	T1.gz  T2.gz  T3    0.log             a row whose content is T1's          T1 from its offset, T2, T3
//	T3.gz  T4     0.log                   a row of no file                     T3, T4, and a gap
//	T1.gz  T2.gz  0.log                   a row of T1, at 100; T2 was read     T1 from 100
//	T1     0.log                          no row, the agent is not new         T1: a container that began since
//	T1     0.log                          no row, and the agent is new         nothing
func plan(files []File, known past, same content, firstLine func(File) (time.Time, bool)) (Plan, error) {
	var p Plan
	rowOf := make([]*Row, len(files))
	oldest := len(files) // before it, files were read and their rows are gone
	for i := range known.rows {
		r, last := &known.rows[i], i == len(known.rows)-1
		at, err := place(files, known, rowOf, *r, same)
		if err != nil {
			return Plan{}, err
		}
		if n := len(files) - 1; n >= 0 && at != n && files[n].Rotated == "" && files[n].ID.Inode == r.Inode {
			p.Stale = append(p.Stale, *r)
		}
		if at >= 0 {
			rowOf[at] = r // of two rows of one file the later one counts, as it does for tail
			oldest = min(oldest, at)
			if at == 0 && last && r.MarkerSize == 0 && known.of[at] == nil && beganAfter(files[0], r.Created, firstLine) {
				// Nothing says that the oldest file is the row's, and the row's may have been removed before it.
				p.Gaps = append(p.Gaps, Gap{Opened: r.Created})
			}
			continue
		}
		// What was rotated after tail opened the lost file is younger than it.
		if younger := slices.IndexFunc(files, func(f File) bool { return f.Rotated == "" || f.At.After(r.Created) }); younger >= 0 {
			oldest = min(oldest, younger)
		}
		// The last one was written when the agent stopped. Those before it had been rotated, and were read.
		if last && len(files) > 0 && !slices.ContainsFunc(known.gone, r.about) {
			p.Gaps = append(p.Gaps, Gap{Opened: r.Created})
		}
	}
	if known.before != tails || len(known.rows) == 0 {
		oldest = 0
	}
	for _, v := range known.gone {
		if bytes, lost := v.lost(files, known, firstLine); lost {
			p.Gaps = append(p.Gaps, Gap{Opened: v.seen, Bytes: bytes})
		}
	}
	for i, f := range files {
		v, r := known.of[i], rowOf[i]
		var from int64
		skip := false
		switch {
		case v != nil && v.state == done && f.Rotated != "":
			skip = true
		case r != nil:
			from = r.Offset
		case v != nil && v.state == read && v.open:
			// At its end tail removes the rows of files that it knows to be rotated, whether it has read them or not.
			from = v.position
		case v != nil && v.state == read:
			skip = true // tail has closed it, and removed its row
		case v != nil:
			from = v.from
		default:
			skip = known.before == nothing || i < oldest
		}
		if f.Rotated == "" {
			p.Current = Unread{f, from}
			continue
		}
		// An uncompressed file that was read to its end needs no copy.
		if !skip && (f.Gzip || from < f.Size) {
			p.Unread = append(p.Unread, Unread{f, from})
		}
	}
	return p, nil
}

// lost says of a version without a file whether lines of it are lost, and how many bytes are known to be.
func (v *version) lost(files []File, known past, firstLine func(File) (time.Time, bool)) (bytes int64, lost bool) {
	from := v.from
	at := slices.IndexFunc(known.rows, func(r Row) bool { return r.about(v) })
	switch {
	case at >= 0 && v.state != done:
		from = known.rows[at].Offset
	case v.state == done, v.state == read && v.rotated != "" && !v.open:
		return 0, false
	case v.state == read && v.open:
		from = v.position
	}
	if len(files) == 0 {
		return v.size - from, v.size > from // its pod is gone, and need not have written any more
	}
	if v.rotated != "" {
		// Of one that was compressed when it was found, the size is not known.
		return max(0, v.size-from), v.size > from || v.size == 0 && v.state == due
	}
	// It was written when the agent stopped. One that had nothing to know it by may be one of those that nothing is known of.
	if v.head.Size == 0 {
		unknown := slices.IndexFunc(known.of, func(o *version) bool { return o == nil })
		if unknown >= 0 && files[unknown].Rotated != "" && !(unknown == 0 && beganAfter(files[0], v.seen, firstLine)) {
			return 0, false
		}
	}
	return max(0, v.size-from), true
}

// about reports whether a row is about the version that tail had open last with its inode.
func (r Row) about(v *version) bool {
	return v.id.Inode != 0 && v.id.Inode == r.Inode && (v.state == read || v.state == waiting)
}

// beganAfter reports whether a file's first line was written some time after another was opened.
func beganAfter(f File, opened time.Time, firstLine func(File) (time.Time, bool)) bool {
	began, ok := firstLine(f)
	return ok && began.After(opened.Add(quiet))
}

// place finds the file that a row is about, or -1. Its inode alone does not say it.
func place(files []File, known past, taken []*Row, r Row, same content) (int, error) {
	of := known.of
	if _, rotated, _, ok := split(r.Name); ok && rotated != "" {
		return slices.IndexFunc(files, func(f File) bool { return f.Rotated == rotated }), nil
	}
	// What tail is known to have had open under this inode.
	for i, f := range files {
		if of[i] == nil || of[i].state != read || !r.about(of[i]) {
			continue
		}
		if ok, err := same(f, r); err != nil || ok {
			return i, err
		}
	}
	for i, f := range files {
		if f.Gzip || f.ID.Inode != r.Inode || f.Size < r.Offset {
			continue
		}
		// Made after tail had opened the row's file. tail keeps a row's time where it goes on with it for another file, but
		// then the journal knows that one.
		younger := f.ID.Born >= r.Created.Add(time.Second).UnixNano()
		switch {
		case younger && known.before == journaled:
		case r.MarkerSize > 0:
			if ok, err := same(f, r); err != nil || ok {
				return i, err
			}
		case f.ID.Born > 0:
			if !younger {
				return i, nil
			}
		case i == firstSince(files, taken, r):
			return i, nil
		}
	}
	for i, f := range files {
		if !f.Gzip || taken[i] != nil {
			continue
		}
		if r.MarkerSize == 0 {
			if of[i] == nil && i == firstSince(files, taken, r) {
				return i, nil
			}
			continue
		}
		if f.At.Add(time.Second).Before(r.Created) { // a name tells the second in which the rotation was
			continue
		}
		if ok, err := same(f, r); err != nil || ok {
			return i, err
		}
	}
	return -1, nil
}

// firstSince is the file that a row without a marker is about, where nothing else tells: it was written when
// tail opened it, so that it is the first that was rotated since.
func firstSince(files []File, taken []*Row, r Row) int {
	at := slices.IndexFunc(files, func(f File) bool { return f.Rotated == "" || f.At.After(r.Created) })
	// A name tells the second only: the one before it may be the file as well, where no row is about that.
	if at > 1 && files[at-1].At.Equal(r.Created) && taken[at-1] == nil && taken[at-2] != nil {
		at--
	}
	return at
}

// sameContent compares the bytes in front of the row's offset with its marker. A row without one is taken to be
// about any file. A file that is shorter, or gone, is another.
func sameContent(f File, r Row) (bool, error) {
	if r.MarkerSize <= 0 || r.MarkerSize > r.Offset {
		return true, nil
	}
	in, err := f.openAt(r.Offset - r.MarkerSize)
	if err != nil {
		return false, unlessGone(err)
	}
	defer in.Close()
	b := make([]byte, r.MarkerSize)
	if _, err := io.ReadFull(in, b); err != nil {
		return false, unlessGone(err)
	}
	return xxh3.Hash(b) == r.Marker, nil
}

// firstLine is the time of a file's first line, as the runtime wrote it.
func firstLine(f File) (time.Time, bool) {
	b := make([]byte, len(time.RFC3339Nano))
	n, err := f.start(b)
	if err != nil {
		return time.Time{}, false
	}
	stamp, _, _ := strings.Cut(string(b[:n]), " ")
	at, err := time.Parse(time.RFC3339Nano, stamp)
	return at, err == nil
}

// byLog sorts rows by the log that they are about. Rows of other files are left out.
func byLog(rows []Row, root string) map[Log][]Row {
	logs := map[Log][]Row{}
	for _, r := range rows {
		if log, _, _, ok := split(r.Name); ok && strings.HasPrefix(r.Name, strings.TrimSuffix(root, "/")+"/") {
			logs[log] = append(logs[log], r)
		}
	}
	return logs
}

// unlessGone is nil for the errors of a file that is gone, shorter than was thought, or damaged: it is not the one
// that is looked for.
func unlessGone(err error) error {
	if damaged(err) || isNotExist(err) {
		return nil
	}
	return err
}
