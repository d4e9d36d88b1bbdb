package catchup

import (
	"bufio"
	"errors"
	"io/fs"
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

// opened lists the files below one of the folders that a process has open. It asks the kernel, not the
// process: /proc/<pid>/fd has them even after they were renamed or removed.
func opened(pid int, identify statter, below ...string) (map[FileID]reading, error) {
	dir := filepath.Join("/proc", strconv.Itoa(pid), "fd")
	fds, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	if len(fds) == 0 {
		return nil, fs.ErrNotExist // it has ended, and is not waited for yet
	}
	open := map[FileID]reading{}
	for _, fd := range fds {
		link := filepath.Join(dir, fd.Name())
		name, err := os.Readlink(link)
		if err != nil || !within(name, below) {
			continue
		}
		id, mode, size, _, err := identify(link)
		if err != nil || !regular(mode) {
			continue
		}
		position, reads, err := describe(filepath.Join("/proc", strconv.Itoa(pid), "fdinfo", fd.Name()))
		if err != nil || !reads {
			continue
		}
		open[id] = reading{Name: strings.TrimSuffix(name, " (deleted)"), Position: position, Size: size}
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
	// due: the agent does not read the rest. It is to be laid down.
	due
	// done: it was read before, laid down, or lost.
	done
)

// version is one file of a log through its life: written, rotated, compressed, removed.
type version struct {
	id      FileID
	rotated string
	from    int64     // unread from here on, where the agent never opens it
	size    int64     // when it was seen last, uncompressed
	seen    time.Time // first
	head    Head
	state   state
	looks   int // that found it to be left alone

	file     File      // what it is on the disk; no Path where it is not
	open     bool      // the agent had it open at the last look
	position int64     // how far the agent had read then
	behind   time.Time // since when the agent has not read a file to its end that is not written any more; zero where it has
	told     bool      // that it cannot be copied at the moment
}

func (v *version) exists() bool { return v.file.Path != "" }

// tracker knows the versions of one log, oldest first.
type tracker struct {
	versions []*version
	leaving  bool // the agent was told to end: that it closes a file says nothing
}

// look takes in what is on the disk and what the agent has open of this log. Versions that the agent passed over
// (rotated away before it opened them, while it has a younger one open) or has given up are due then. It returns
// those of that kind that are not on the disk any more, lost from v.from on. No files are those of a log that was removed.
func (t *tracker) look(files []File, open map[FileID]reading, now time.Time) (lost []*version) {
	t.opened(open, now)
	for _, v := range t.versions {
		if v.state != due { // what copies it finds it gone
			v.file = File{}
		}
	}
	for _, f := range files {
		v := t.version(f)
		if v == nil {
			v = t.vanished(f, files)
		}
		if v == nil {
			v = &version{id: f.ID, seen: now}
			t.versions = append(t.versions, v)
		}
		v.rotated, v.file = f.Rotated, f
		if !f.Gzip {
			v.size = f.Size
		} else if !has(open, v.id) {
			v.id = FileID{} // another file's, from now on
		}
	}
	slices.SortStableFunc(t.versions, func(a, b *version) int { return byAge(a.rotated, b.rotated) })
	for i, v := range t.versions {
		// What is written at the moment is opened by tail, sooner or later; and a younger one that it has open shows
		// that it looked. The runtime writes to a file for a moment after the next one is there.
		over := len(files) == 0 || passedOver(t.versions[i+1:])
		if v.state == waiting && !v.written() && over && v.again() {
			lost = append(lost, t.leave(v, v.from)...)
		}
	}
	// tail gives a rotated file up after rotate_wait, and a removed one at that interval, read to its end or not.
	for _, v := range t.versions {
		if v.state != read {
			continue
		}
		if v.open {
			switch {
			case v.written() || v.position >= v.size:
				v.behind = time.Time{}
			case v.behind.IsZero():
				v.behind = now
			}
			continue
		}
		switch {
		case v.behind.IsZero():
		case now.Sub(v.behind) < lagging:
			v.behind = time.Time{} // it read the rest, and closed the file, since the last look
		case v.again(): // an agent that ends closes all files, a moment before its end
			lost = append(lost, t.leave(v, v.position)...)
		}
	}
	// A version is forgotten once it is neither on the disk nor open, and nothing of it is left to decide.
	t.versions = slices.DeleteFunc(t.versions, func(v *version) bool {
		return !v.exists() && !has(open, v.id) && (v.state == done || v.state == read && v.behind.IsZero())
	})
	return lost
}

// opened takes in what the agent has open.
func (t *tracker) opened(open map[FileID]reading, now time.Time) {
	for _, v := range t.versions {
		v.open = v.open && t.leaving // what it closes at its end was open then
	}
	for id, r := range open {
		_, rotated, _, _ := split(r.Name)
		v := t.byID(id, rotated)
		if v == nil {
			v = &version{id: id, state: read, seen: now}
			t.versions = append(t.versions, v)
		}
		if v.state == waiting {
			v.state = read
		}
		if rotated != "" {
			v.rotated = rotated
		}
		v.open, v.position, v.size = true, r.Position, r.Size
	}
}

// leave has a version laid down from an offset on; where it is not on the disk any more, it returns it as lost.
func (t *tracker) leave(v *version, from int64) (lost []*version) {
	v.from = from
	if v.exists() {
		v.state = due
		return nil
	}
	v.state = done
	if v.size > from {
		lost = append(lost, v)
	}
	return lost
}

// written reports whether the runtime writes to it.
func (v *version) written() bool { return v.exists() && v.rotated == "" }

// again is false once.
func (v *version) again() bool {
	v.looks++
	return v.looks > 1
}

func has(open map[FileID]reading, id FileID) bool {
	_, ok := open[id]
	return ok
}

func passedOver(younger []*version) bool {
	return slices.ContainsFunc(younger, func(v *version) bool { return v.state == read })
}

// byID finds the version that is a file, which has the given time in its name now. Where only the inode is known it may
// be another's: but a file that was rotated keeps its name.
func (t *tracker) byID(id FileID, rotated string) *version {
	for _, v := range t.versions {
		if !v.id.is(id) {
			continue
		}
		if v.rotated == "" || v.rotated == rotated {
			return v
		}
		v.id = FileID{}
	}
	return nil
}

// version finds the version that a file is: by its ID, or, once it is compressed, by the time in its name or by its head.
func (t *tracker) version(f File) *version {
	if !f.Gzip {
		v := t.byID(f.ID, f.Rotated)
		if v != nil && v.rotated == "" && v.head.Size > 0 && f.ID.Born == 0 {
			// The inode alone does not say it.
			if same, err := v.head.of(f); err == nil && !same {
				v.id = FileID{}
				return nil
			}
		}
		return v
	}
	for _, v := range t.versions {
		if v.rotated == f.Rotated {
			return v
		}
	}
	for _, v := range t.versions {
		if v.rotated == "" {
			if same, err := v.head.of(f); err == nil && same {
				return v
			}
		}
	}
	return nil
}

// vanished finds the version that a compressed file is whose name was not seen before: the oldest that has no name yet, and is
// not on the disk. It is only certain from one look to the next.
func (t *tracker) vanished(f File, files []File) *version {
	if !f.Gzip {
		return nil
	}
	for _, v := range t.versions {
		if v.rotated == "" && v.head.Size == 0 && !slices.ContainsFunc(files, func(o File) bool { return !o.Gzip && o.ID.is(v.id) }) {
			return v
		}
	}
	return nil
}

// behead notes the heads of files that have none yet, as long as they can be read under their name.
func (t *tracker) behead(identify statter) {
	for _, v := range t.versions {
		if v.head.Size > 0 || !v.exists() || v.file.Gzip || v.state == done || v.file.Size < int64(minHead) {
			continue
		}
		h, err := v.file.head()
		if err != nil {
			continue
		}
		// Still of that name, so that it was what was read.
		if id, _, _, _, err := identify(v.file.Path); err == nil && id == v.id {
			v.head = h
		}
	}
}
