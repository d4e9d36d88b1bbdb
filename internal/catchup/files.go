package catchup

import (
	"bytes"
	"cmp"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/zeebo/xxh3"
	"golang.org/x/sys/unix"
)

// How the kubelet names a container's files (pkg/kubelet/logs/container_log_manager.go): `0.log`, where 0 counts the
// container's restarts, is the one that is written; a rotated one has the time of its rotation behind that; the next
// rotation compresses it, by way of a `.tmp`.
const (
	rotatedLayout = "20060102-150405"
	gzipSuffix    = ".gz"
)

var logName = regexp.MustCompile(`^([0-9]+\.log)(?:\.([0-9]{8}-[0-9]{6})(\.gz)?)?$`)

// File is one file of a container's log, as it is on the disk at one moment.
type File struct {
	// Path is the file's.
	Path string
	// Rotated is the time in its name, `20060102-150405`; empty for the file that is written. Times of one log
	// sort as its files are old.
	Rotated string
	// At is the same as a time, to the second; zero for the file that is written.
	At time.Time
	// Modified is when the file was written last.
	Modified time.Time
	// ID and Size are the file's own: those of the compressed bytes where Gzip is true.
	ID   FileID
	Size int64
	Gzip bool
}

// FileID tells a file from every other, as long as its file system knows when files are made: an inode alone is used
// again as soon as its file is gone, often by the next file of the same log.
type FileID struct {
	Inode uint64 `json:"inode"`
	// Born is when the file was made, in nanoseconds since 1970; zero where the file system does not say.
	Born int64 `json:"born,omitempty"`
}

// is reports whether two IDs can be one file's.
func (id FileID) is(other FileID) bool {
	return id.Inode != 0 && id.Inode == other.Inode && (id.Born == other.Born || id.Born == 0 || other.Born == 0)
}

// stat asks for what a path leads to.
func stat(path string) (id FileID, mode uint32, size int64, modified time.Time, err error) {
	var st unix.Statx_t
	err = unix.Statx(unix.AT_FDCWD, path, unix.AT_STATX_DONT_SYNC, unix.STATX_BASIC_STATS|unix.STATX_BTIME, &st)
	if err != nil {
		return id, 0, 0, modified, &fs.PathError{Op: "statx", Path: path, Err: err}
	}
	id.Inode = st.Ino
	if st.Mask&unix.STATX_BTIME != 0 {
		id.Born = st.Btime.Sec*int64(time.Second) + int64(st.Btime.Nsec)
	}
	return id, uint32(st.Mode), int64(st.Size), time.Unix(st.Mtime.Sec, int64(st.Mtime.Nsec)), nil //nolint:gosec // no file is that large
}

// statter is stat, or what takes its place in tests.
type statter func(path string) (id FileID, mode uint32, size int64, modified time.Time, err error)

func regular(mode uint32) bool { return mode&unix.S_IFMT == unix.S_IFREG }

// Log names a container's log by the path of the file that is written: /var/log/pods/<pod>/<container>/<restarts>.log.
type Log string

// split takes a path of the kubelet's apart: the log it belongs to, and the time of its rotation. ok is false for
// any other file.
func split(path string) (log Log, rotated string, gz, ok bool) {
	dir, name := filepath.Split(path) // unlike filepath.Base, it does not take a folder's last slash away
	m := logName.FindStringSubmatch(name)
	if m == nil {
		return "", "", false, false
	}
	return Log(filepath.Join(dir, m[1])), m[2], m[3] != "", true
}

// date fills in the files' times. The kubelet writes them in its own zone, which need not be this process's: a file
// that is not compressed yet was written last when it was rotated, and tells by how much they differ.
func date(logs map[Log][]File) {
	zone, votes := time.Local, map[time.Duration]int{}
	for _, files := range logs {
		for _, f := range files {
			at, err := time.Parse(rotatedLayout, f.Rotated) // as if it were UTC
			if err != nil || f.Gzip || f.Size == 0 {
				continue
			}
			east := at.Sub(f.Modified).Round(15 * time.Minute)
			if east.Abs() > 14*time.Hour || (at.Sub(f.Modified)-east).Abs() > time.Minute {
				continue // no zone is that far from UTC; and a file that was written to later tells nothing
			}
			votes[east]++
			if votes[east] > votes[offset(zone, f.Modified)] {
				zone = time.FixedZone("kubelet", int(east.Seconds()))
			}
		}
	}
	for _, files := range logs {
		for i, f := range files {
			if at, err := time.ParseInLocation(rotatedLayout, f.Rotated, zone); err == nil {
				files[i].At = at
			}
		}
	}
}

// offset is how far a zone is east of UTC at a time.
func offset(zone *time.Location, at time.Time) time.Duration {
	_, seconds := at.In(zone).Zone()
	return time.Duration(seconds) * time.Second
}

// scan lists the files of every container's log under root (/var/log/pods), oldest first. A file that goes away
// meanwhile is left out. exclude are patterns of paths, as tail's exclude_path has them.
func scan(root string, exclude []string, identify statter) (map[Log][]File, error) {
	logs := map[Log][]File{}
	pods, err := os.ReadDir(root)
	if err != nil {
		return nil, err
	}
	for _, pod := range pods {
		containers, err := os.ReadDir(filepath.Join(root, pod.Name()))
		if err != nil {
			continue // a file, or the pod is gone
		}
		for _, container := range containers {
			dir := filepath.Join(root, pod.Name(), container.Name())
			files, err := os.ReadDir(dir)
			if err != nil {
				continue
			}
			for _, entry := range files {
				path := filepath.Join(dir, entry.Name())
				log, rotated, gz, ok := split(path)
				if !ok || excluded(string(log), exclude) {
					continue
				}
				id, mode, size, modified, err := identify(path)
				if err != nil || !regular(mode) {
					continue
				}
				logs[log] = append(logs[log], File{Path: path, Rotated: rotated, Modified: modified, ID: id, Size: size, Gzip: gz})
			}
		}
	}
	for log, files := range logs {
		logs[log] = inOrder(files)
	}
	date(logs)
	return logs, nil
}

// inOrder sorts files, oldest first and the one that is written last. Where a file and its compressed copy are both
// there, the copy is left out: the kubelet is about to remove the file.
func inOrder(files []File) []File {
	slices.SortFunc(files, func(a, b File) int { return cmp.Or(byAge(a.Rotated, b.Rotated), strings.Compare(a.Path, b.Path)) })
	return slices.CompactFunc(files, func(a, b File) bool { return a.Rotated != "" && a.Rotated == b.Rotated })
}

// byAge compares the times in the names of two files of a log: the older one is first, the one that is written last.
func byAge(a, b string) int {
	if (a == "") != (b == "") {
		return strings.Compare(b, a)
	}
	return strings.Compare(a, b)
}

// excluded reports whether tail leaves a path out. tail's patterns match a slash with a `*` as well.
func excluded(path string, patterns []string) bool {
	for _, p := range patterns {
		if ok, _ := filepath.Match(p, path); ok {
			return true
		}
	}
	return false
}

// open opens a file's content, decompressed, whatever the kubelet does to it between the scan and now: where the
// file is gone, its compressed copy is read.
func (f File) open() (io.ReadCloser, error) {
	file, err := openRegular(f.Path)
	if errors.Is(err, fs.ErrNotExist) && f.Rotated != "" && !f.Gzip {
		f.Path, f.Gzip = f.Path+gzipSuffix, true
		file, err = openRegular(f.Path)
	}
	if err != nil || !f.Gzip {
		return file, err
	}
	z, err := gzip.NewReader(file)
	if err != nil {
		return nil, errors.Join(err, file.Close())
	}
	return &gzipFile{z, file}, nil
}

// openRegular opens a file for reading, and nothing that could make the reader wait.
func openRegular(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	if info, err := f.Stat(); err != nil || !info.Mode().IsRegular() {
		return nil, errors.Join(fmt.Errorf("%s is no file: %w", path, fs.ErrNotExist), err, f.Close())
	}
	return f, nil
}

type gzipFile struct {
	*gzip.Reader
	file *os.File
}

func (g *gzipFile) Close() error { return errors.Join(g.Reader.Close(), g.file.Close()) }

// openAt opens a file's content from an offset on.
func (f File) openAt(offset int64) (io.ReadCloser, error) {
	r, err := f.open()
	if err != nil {
		return nil, err
	}
	if s, ok := r.(io.Seeker); ok {
		_, err = s.Seek(offset, io.SeekStart)
	} else {
		_, err = io.CopyN(io.Discard, r, offset)
	}
	if err != nil {
		return nil, errors.Join(err, r.Close())
	}
	return r, nil
}

// Head is a mark by which a file's content is known again once it is compressed: the XXH3 hash of its first bytes.
type Head struct {
	Hash uint64 `json:"hash,omitempty"`
	Size int    `json:"size,omitempty"`
}

// A head holds the time of the first line, which has nanoseconds.
const minHead, maxHead = len(time.RFC3339Nano), 256

// head reads the head of a file; the zero value where it is too short yet.
func (f File) head() (Head, error) {
	b := make([]byte, maxHead)
	n, err := f.start(b)
	if err != nil || n < minHead {
		return Head{}, err
	}
	return Head{xxh3.Hash(b[:n]), n}, nil
}

// start reads the first bytes of a file.
func (f File) start(b []byte) (n int, err error) {
	in, err := f.open()
	if err != nil {
		return 0, err
	}
	defer func() { _ = in.Close() }()
	n, err = io.ReadFull(in, b)
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		err = nil
	}
	return n, err
}

// of reports whether a file begins with it.
func (h Head) of(f File) (bool, error) {
	if h.Size <= 0 || h.Size > maxHead {
		return false, nil
	}
	b := make([]byte, h.Size)
	n, err := f.start(b)
	if err != nil || n < h.Size {
		return false, unlessGone(err)
	}
	return xxh3.Hash(b) == h.Hash, nil
}

// lineStart is the start of the line that an offset is in.
func (f File) lineStart(offset int64) (int64, error) {
	const longest = 64 << 10 // a runtime cuts lines at 16 KiB
	from := max(0, offset-longest)
	in, err := f.openAt(from)
	if err != nil {
		return 0, err
	}
	defer func() { _ = in.Close() }()
	b := make([]byte, offset-from)
	if _, err := io.ReadFull(in, b); err != nil {
		return 0, err
	}
	if at := bytes.LastIndexByte(b, '\n'); at >= 0 {
		return from + int64(at) + 1, nil
	}
	return from, nil
}
