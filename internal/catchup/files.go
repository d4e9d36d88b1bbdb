package catchup

import (
	"cmp"
	"compress/gzip"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"time"
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
	// Inode and Size are the file's own: those of the compressed bytes where Gzip is true.
	Inode uint64
	Size  int64
	Gzip  bool
}

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
			if east.Abs() > 14*time.Hour {
				continue // no zone is that far from UTC
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
func scan(root string, exclude []string) (map[Log][]File, error) {
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
				info, err := os.Stat(path)
				if err != nil || !info.Mode().IsRegular() {
					continue
				}
				logs[log] = append(logs[log], File{Path: path, Rotated: rotated, Modified: info.ModTime(), Inode: inode(info), Size: info.Size(), Gzip: gz})
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

func inode(info fs.FileInfo) uint64 {
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		return st.Ino
	}
	return 0
}

// open opens a file's content, decompressed, whatever the kubelet does to it between the scan and now: where the
// file is gone, its compressed copy is read.
func (f File) open() (io.ReadCloser, error) {
	file, err := os.Open(f.Path)
	if errors.Is(err, fs.ErrNotExist) && f.Rotated != "" && !f.Gzip {
		f.Path, f.Gzip = f.Path+gzipSuffix, true
		file, err = os.Open(f.Path)
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
