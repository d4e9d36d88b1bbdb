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
	// Row is what tail knew of the file.
	Row Row
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
}

// content tells whether the bytes in front of a row's offset are those of a file.
type content func(f File, r Row) (same bool, err error)

// quiet is how long a container that fills its files may write nothing to a new one, before it is taken to be another
// than the one that was opened when it was made.
const quiet = 2 * time.Second

// plan decides what of a log's files is unread. files are the log's, oldest first; rows are tail's of this log, in
// the order in which they were made; known says that tail has a database from before, so that a log
// without rows is a new one and not one of the time before the agent; seen are the times in the names of files that the
// agent had opened, or that were laid down: without a row, tail has read them.
//
//	files (oldest first)                  rows                       unread
//	T1.gz  T2     0.log                   T2 at its end, 0.log       nothing: T1 was read, and its row is gone
//	T1     0.log                          T1 at 100                  T1 from 100; tail reads 0.log
//	T1.gz  T2.gz  T3    0.log             a row whose content is T1  T1 from its offset, T2, T3
//	T3.gz  T4     0.log                   a row of no file           T3, T4, and a gap
//	T1.gz  T2.gz  0.log                   T1 at 100, T2 was seen     T1 from 100
//	T1     0.log                          none, known                T1: a container that began since
//	T1     0.log                          none, not known            nothing: the agent is new on this node
func plan(files []File, rows []Row, known bool, seen map[string]bool, same content, firstLine func(File) (time.Time, bool)) (Plan, error) {
	var p Plan
	rotated := files
	if n := len(files); n > 0 && files[n-1].Rotated == "" {
		p.Current.File = files[n-1]
		rotated = files[:n-1]
	}
	if len(rows) == 0 {
		if known {
			for _, f := range rotated {
				p.Unread = append(p.Unread, Unread{File: f})
			}
		}
		return p, nil
	}
	of := make([]*Row, len(files)) // the row of each file
	first := len(files)            // the oldest file that was not read and gone from the database before
	for i := range rows {
		r := &rows[i]
		at, err := place(files, of, *r, same)
		if err != nil {
			return Plan{}, err
		}
		if at == 0 && i == len(rows)-1 && r.MarkerSize == 0 {
			// Nothing says that the oldest file is the row's, and the row's may have been removed before it.
			if began, ok := firstLine(files[0]); ok && began.After(r.Created.Add(quiet)) {
				p.Gaps = append(p.Gaps, Gap{*r})
			}
		}
		if at >= 0 {
			of[at] = r // of two rows of one file the later one counts, as it does for tail
			first = min(first, at)
			continue
		}
		// What was rotated after tail opened the lost file is younger than it.
		younger := slices.IndexFunc(files, func(f File) bool { return f.Rotated == "" || f.At.After(r.Created) })
		if younger >= 0 {
			first = min(first, younger)
		}
		// The last one was written when the agent stopped. Those before it had been rotated, and were read.
		if i == len(rows)-1 {
			p.Gaps = append(p.Gaps, Gap{*r})
		}
	}
	for i, f := range files {
		var from int64
		if of[i] != nil {
			from = of[i].Offset
		} else if i < first || f.Rotated != "" && seen[f.Rotated] {
			continue
		}
		if f.Rotated == "" {
			p.Current.From = from
			continue
		}
		// An uncompressed file that was read to its end needs no copy.
		if f.Gzip || from < f.Size {
			p.Unread = append(p.Unread, Unread{f, from})
		}
	}
	return p, nil
}

// place finds the file that a row is about, or -1. An inode alone does not say it: it is used again soon after its
// file was removed, often by the next file of the same log.
func place(files []File, taken []*Row, r Row, same content) (int, error) {
	if _, rotated, _, ok := split(r.Name); ok && rotated != "" {
		return slices.IndexFunc(files, func(f File) bool { return f.Rotated == rotated }), nil
	}
	if r.MarkerSize == 0 {
		// There is nothing that the file could be known by. It was written when tail opened it, so that it is the
		// first that was rotated since.
		at := slices.IndexFunc(files, func(f File) bool { return f.Rotated == "" || f.At.After(r.Created) })
		// A name tells the second only: the one before it may be the file as well, where no row is about that.
		if at > 1 && files[at-1].At.Equal(r.Created) && taken[at-1] == nil && taken[at-2] != nil {
			at--
		}
		if at >= 0 && (files[at].Gzip || files[at].Inode == r.Inode) {
			return at, nil
		}
	}
	for i, f := range files {
		if f.Gzip || f.Inode != r.Inode || f.Size < r.Offset {
			continue
		}
		if ok, err := same(f, r); err != nil || ok {
			return i, err
		}
	}
	for i, f := range files {
		if !f.Gzip || taken[i] != nil || r.MarkerSize == 0 || f.At.Add(time.Second).Before(r.Created) { // a name tells the second in which the rotation was
			continue
		}
		if ok, err := same(f, r); err != nil || ok {
			return i, err
		}
	}
	return -1, nil
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
	in, err := f.open()
	if err != nil {
		return time.Time{}, false
	}
	defer func() { _ = in.Close() }()
	b := make([]byte, len(time.RFC3339Nano))
	n, _ := io.ReadFull(in, b)
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

// merged is what is known of a log's files: tail's rows, and what the launcher wrote down before. opened are the files
// that the agent had open at its end, by the launcher's account: tail goes on with a row where a new file has the inode
// of an old one, so that its time may be another file's. unread are rows of files that the agent had not opened; one
// with the inode of a row is about the same file, unless the log was rotated in between.
func merged(files []File, rows, opened, unread []Row) []Row {
	all := slices.Clone(rows)
	for i := range all {
		for _, o := range slices.Concat(opened, unread) {
			if mayBeSame(all[i], o) && o.Created.After(all[i].Created) {
				all[i].Created = o.Created
			}
		}
	}
	for _, u := range unread {
		if !slices.ContainsFunc(all, func(r Row) bool { return mayBeSame(r, u) && !rotatedBetween(files, u.Created, r.Created) }) {
			all = append(all, u)
		}
	}
	slices.SortStableFunc(all, func(a, b Row) int { return a.Created.Compare(b.Created) })
	return all
}

// mayBeSame reports whether a row of tail's and one of the launcher's can be about the same file. The launcher's is the
// later one: what tail knows to be rotated has the same name there.
func mayBeSame(tail, launcher Row) bool {
	_, rotated, _, _ := split(tail.Name)
	_, later, _, _ := split(launcher.Name)
	return tail.Inode == launcher.Inode && (rotated == "" || rotated == later)
}

func rotatedBetween(files []File, after, until time.Time) bool {
	return slices.ContainsFunc(files, func(f File) bool {
		if f.Rotated == "" {
			return false
		}
		return f.At.After(after) && !f.At.After(until)
	})
}

// unlessGone is nil for the errors of a file that is gone, shorter than was thought, or damaged: it is not the one
// that is looked for.
func unlessGone(err error) error {
	if damaged(err) || isNotExist(err) {
		return nil
	}
	return err
}
