package catchup

import (
	"bufio"
	"compress/flate"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/eks-tenant-logs/eks-tenant-logs/internal/folder"
)

func isNotExist(err error) bool { return errors.Is(err, fs.ErrNotExist) }

// laidPath is where the rest of a rotated file is laid down for tail's second input: the same pod and container
// folders below dir, and a name that begins with the number of restarts. The input's tag_regex makes of it the tag
// that the file had in /var/log/pods.
func laidPath(dir string, log Log, rotated string) string {
	container := filepath.Dir(string(log))
	restarts, _, _ := strings.Cut(filepath.Base(string(log)), ".")
	return filepath.Join(dir, filepath.Base(filepath.Dir(container)), filepath.Base(container), restarts+"."+rotated+".log")
}

// lay writes what of a file is unread to its place below dir, whole or not at all, and returns its bytes. What was
// laid before stays as it is: tail may have read it already.
//
// What a process that reads lags behind may end within a line; lay begins at the line's start. Of an offset of tail's
// database that is the offset itself.
func lay(ctx context.Context, dir string, log Log, u Unread) (n int64, err error) {
	to := laidPath(dir, log, u.File.Rotated)
	if _, err := os.Stat(to); err == nil {
		return 0, nil
	}
	if err := roomFor(dir, u.File); err != nil {
		return 0, err
	}
	from, err := u.File.lineStart(u.From)
	if err != nil {
		return 0, err
	}
	in, err := u.File.openAt(from)
	if err != nil {
		return 0, err
	}
	defer in.Close()
	if err := os.MkdirAll(filepath.Dir(to), 0o700); err != nil {
		return 0, err
	}
	defer func() {
		if n == 0 {
			prune(dir, to)
		}
	}()
	err = folder.Replace(to, func(out io.Writer) error {
		last := lastByte('\n')
		w := bufio.NewWriterSize(io.MultiWriter(out, &last), 64<<10)
		// What can be decompressed of a damaged file is delivered; the rest is not there any more.
		if n, err = io.Copy(w, &untilDone{ctx, in}); err != nil && !damaged(err) {
			return err
		}
		if err := w.Flush(); err != nil {
			return err
		}
		if n == 0 {
			return errNothing
		}
		if last != '\n' {
			// tail waits for the end of a line, and nothing more is going to be written here.
			_, err := io.WriteString(out, "\n")
			return err
		}
		return nil
	})
	if errors.Is(err, errNothing) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	return n, syncDir(filepath.Dir(to))
}

// errNothing says that a file has nothing unread.
var errNothing = errors.New("nothing is unread")

// damaged reports whether an error says that compressed bytes are none, or end too early.
func damaged(err error) bool {
	var corrupt flate.CorruptInputError
	return errors.Is(err, gzip.ErrHeader) || errors.Is(err, gzip.ErrChecksum) || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.As(err, &corrupt)
}

// errNoRoom keeps copies from filling the volume of Fluent Bit's storage.
var errNoRoom = errors.New("the volume has no room for a copy: free space on it")

// reserve is the share of the volume that copies leave free, and inflated is by how much a compressed file is taken to grow.
const (
	reserve  = 0.05
	inflated = 20
)

func roomFor(dir string, f File) error {
	free, size, err := folder.Room(dir)
	if err != nil {
		return err
	}
	need := f.Size
	if f.Gzip {
		need *= inflated
	}
	if float64(free)-float64(need) < reserve*float64(size) {
		return errNoRoom
	}
	return nil
}

// sweep removes what a launcher that was killed has left half written.
func sweep(dir string) {
	for _, pattern := range []string{journalName + ".*", "*/*/*.log.*"} {
		paths, _ := filepath.Glob(filepath.Join(dir, pattern)) // the pattern is a literal
		for _, p := range paths {
			_ = os.Remove(p)
		}
	}
}

type lastByte byte

func (l *lastByte) Write(b []byte) (int, error) {
	if len(b) > 0 {
		*l = lastByte(b[len(b)-1])
	}
	return len(b), nil
}

func syncDir(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return errors.Join(fmt.Errorf("failed to sync %s: %w", dir, err), f.Close())
	}
	return f.Close()
}

// laid lists the files below dir that tail reads.
func laid(dir string) ([]string, error) { return filepath.Glob(filepath.Join(dir, "*", "*", "*.log")) }

// discard removes a file that was read to its end, and the folders that are empty then.
func discard(dir, path string) error {
	if err := os.Remove(path); err != nil && !isNotExist(err) {
		return err
	}
	prune(dir, path)
	return nil
}

// prune removes the folders of a path below dir that are empty.
func prune(dir, path string) {
	for up := filepath.Dir(path); up != dir && strings.HasPrefix(up, dir); up = filepath.Dir(up) {
		if os.Remove(up) != nil {
			break // not empty
		}
	}
}

// untilDone reads until ctx ends.
type untilDone struct {
	ctx context.Context //nolint:containedctx // it is what ends the reading
	in  io.Reader
}

func (u *untilDone) Read(b []byte) (int, error) {
	if err := u.ctx.Err(); err != nil {
		return 0, err
	}
	return u.in.Read(b)
}
