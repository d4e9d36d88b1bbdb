package catchup

import (
	"bufio"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// reading is what a process has open of one file.
type reading struct {
	// Name is the file's path now; after its removal, the last one.
	Name string
	// Position is how many bytes were read, of Size.
	Position, Size int64
}

// opened lists the files below one of the folders that a process has open, by inode. It asks the kernel, not the
// process: /proc/<pid>/fd has them even after they were renamed or removed.
func opened(pid int, below ...string) (map[uint64]reading, error) {
	dir := filepath.Join("/proc", strconv.Itoa(pid), "fd")
	fds, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	open := map[uint64]reading{}
	for _, fd := range fds {
		link := filepath.Join(dir, fd.Name())
		name, err := os.Readlink(link)
		if err != nil || !within(name, below) {
			continue
		}
		info, err := os.Stat(link)
		if err != nil || !info.Mode().IsRegular() {
			continue
		}
		position, reads, err := describe(filepath.Join("/proc", strconv.Itoa(pid), "fdinfo", fd.Name()))
		if err != nil || !reads {
			continue
		}
		open[inode(info)] = reading{Name: strings.TrimSuffix(name, " (deleted)"), Position: position, Size: info.Size()}
	}
	return open, nil
}

func within(path string, folders []string) bool {
	for _, f := range folders {
		if strings.HasPrefix(path, strings.TrimSuffix(f, "/")+"/") {
			return true
		}
	}
	return false
}

// describe reads /proc/<pid>/fdinfo/<fd>: the position, and whether the file is open for reading alone, as tail's are.
func describe(path string) (position int64, reads bool, err error) {
	f, err := os.Open(path)
	if err != nil {
		return 0, false, err
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		key, value, _ := strings.Cut(lines.Text(), ":")
		value = strings.TrimSpace(value)
		switch key {
		case "pos":
			if position, err = strconv.ParseInt(value, 10, 64); err != nil {
				return 0, false, err
			}
		case "flags":
			flags, err := strconv.ParseUint(value, 8, 32)
			return position, err == nil && flags&syscall.O_ACCMODE == syscall.O_RDONLY, err
		}
	}
	return 0, false, errors.New("no flags")
}

// lagging is how long the agent must have been behind with a rotated file before its closing counts as giving up. What
// is behind for less was read between two looks.
const lagging = 10 * time.Second

// state is how far a version of a log is cared for.
type state uint8

const (
	// waiting: the agent has not been seen with it.
	waiting state = iota
	// read: the agent has it open, or had.
	read
	// done: it was read before, laid down, or lost.
	done
)

// version is one file of a log through its life: written, rotated, compressed, removed.
type version struct {
	inode   uint64
	rotated string
	from    int64     // unread from here on, where the agent never opens it
	size    int64     // when it was seen last, uncompressed
	seen    time.Time // first, and before its rotation where rotated is empty
	state   state
	looks   int // since it is not written any more

	position int64     // how far the agent had read when it was seen last
	behind   time.Time // since when the agent has not read a rotated file to its end; zero where it has
}

// tracker knows the versions of one log, oldest first.
type tracker struct{ versions []*version }

// look takes in what is on the disk and what the agent has open of this log, and returns the versions that the agent
// passed over: rotated away before it opened them, while it has a younger one open. Those are to be laid down. lost are
// versions of that kind that are not on the disk any more.
func (t *tracker) look(files []File, open map[uint64]reading, now time.Time) (missed []Unread, lost []*version) {
	for inode, r := range open {
		_, rotated, _, _ := split(r.Name)
		v := t.byInode(inode, rotated)
		if v == nil {
			v = &version{inode: inode, rotated: rotated, state: read, seen: now}
			t.versions = append(t.versions, v)
		}
		if v.state == waiting {
			v.state = read
		}
		if rotated != "" {
			v.rotated = rotated
		}
		v.position = r.Position
		switch {
		case v.rotated == "" || r.Position >= r.Size:
			v.behind = time.Time{}
		case v.behind.IsZero():
			v.behind = now
		}
		v.size = r.Size
	}
	there := map[*version]File{}
	for _, f := range files {
		if v := t.version(f, files); v != nil {
			v.rotated = f.Rotated
			if f.Gzip && !has(open, v.inode) {
				v.inode = 0 // another file's, from now on
			}
			there[v] = f
		} else {
			v := &version{inode: f.Inode, rotated: f.Rotated, seen: now}
			if f.Gzip {
				v.inode = 0
			}
			t.versions = append(t.versions, v)
			there[v] = f
		}
	}
	slices.SortStableFunc(t.versions, func(a, b *version) int { return byAge(a.rotated, b.rotated) })
	for i, v := range t.versions {
		f, exists := there[v]
		if exists && !f.Gzip {
			v.size = f.Size
		}
		// What is written at the moment is opened by tail, sooner or later; and a younger one that it has open shows
		// that it looked.
		if v.state != waiting || exists && f.Rotated == "" || !passedOver(t.versions[i+1:]) {
			continue
		}
		// The runtime writes to a file for a moment after the next one is there.
		if v.looks++; v.looks < 2 {
			continue
		}
		v.state = done
		if exists {
			missed = append(missed, Unread{f, v.from})
		} else if v.size > v.from {
			lost = append(lost, v)
		}
	}
	// tail gives a rotated file up after rotate_wait, and a removed one at that interval, read to its end or not.
	for _, v := range t.versions {
		if v.state != read || v.behind.IsZero() || has(open, v.inode) {
			continue
		}
		v.state = done
		if now.Sub(v.behind) < lagging {
			continue // it read the rest, and closed the file, since the last look
		}
		if f, exists := there[v]; exists {
			missed = append(missed, Unread{f, v.position})
		} else {
			lost = append(lost, &version{from: v.position, size: v.size})
		}
	}
	// A version is forgotten once it is neither on the disk nor open.
	t.versions = slices.DeleteFunc(t.versions, func(v *version) bool {
		_, exists := there[v]
		return !exists && !has(open, v.inode) && v.state != waiting
	})
	return missed, lost
}

func has(open map[uint64]reading, inode uint64) bool {
	_, ok := open[inode]
	return ok
}

func passedOver(younger []*version) bool {
	for _, v := range younger {
		if v.state == read {
			return true
		}
	}
	return false
}

// byInode finds the version with an inode, which has the given time in its name now. An inode is used again as soon
// as its file is gone, often by the same log's next file; but a file that was rotated keeps its name.
func (t *tracker) byInode(inode uint64, rotated string) *version {
	for _, v := range t.versions {
		if inode == 0 || v.inode != inode {
			continue
		}
		if v.rotated == "" || v.rotated == rotated {
			return v
		}
		v.inode = 0
	}
	return nil
}

// version finds the version that a file is: by its inode, or, once it is compressed, by the time in its name. A
// compressed file whose name was not seen before is the oldest version that has vanished without one.
func (t *tracker) version(f File, files []File) *version {
	if !f.Gzip {
		return t.byInode(f.Inode, f.Rotated)
	}
	for _, v := range t.versions {
		if v.rotated == f.Rotated {
			return v
		}
	}
	for _, v := range t.versions {
		if v.rotated == "" && !slices.ContainsFunc(files, func(o File) bool { return !o.Gzip && o.Inode == v.inode }) {
			return v
		}
	}
	return nil
}

// rows are rows of the versions in one state, for the next start: of waiting ones, the one that is written is among
// them, for it may be rotated by then.
func (t *tracker) rows(log Log, in state) (rows []Row) {
	for _, v := range t.versions {
		if v.state == in && (v.inode != 0 || in == waiting) {
			rows = append(rows, Row{Name: log.file(v.rotated), Inode: v.inode, Offset: v.from, Created: v.seen.Truncate(time.Second)})
		}
	}
	return rows
}

// seen are the times in the names of files that the agent has opened, or that were laid down.
func (t *tracker) seen() (rotated []string) {
	for _, v := range t.versions {
		if v.state != waiting && v.rotated != "" {
			rotated = append(rotated, v.rotated)
		}
	}
	return rotated
}

// settled reports whether every version but old ones is open with the agent: nothing of the start is left to do.
func (t *tracker) settled() bool {
	for _, v := range t.versions {
		if v.state == waiting {
			return false
		}
	}
	return true
}
