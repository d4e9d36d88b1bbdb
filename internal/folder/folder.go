// Package folder proves that a folder can be written to before anything relies on it,
// and says how much room its file system has. It must not know what is kept there.
package folder

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

// Fault is why a folder can't be written to.
type Fault struct {
	// Path is the folder as it was given.
	Path string
	// Doing is the step that failed, such as "write a file".
	Doing string
	// Err is the system's answer.
	Err error
}

// Error says the path, the step, the cause and the remedy in one line.
func (f *Fault) Error() string {
	return fmt.Sprintf("%q can't be written to: failed to %s: %s", f.Path, f.Doing, f.explain())
}

// Unwrap is the system's answer.
func (f *Fault) Unwrap() error { return f.Err }

// Full says whether the file system lacks room, in blocks, inodes or quota: the one cause
// that can end by itself, as soon as something is deleted.
func (f *Fault) Full() bool {
	return errors.Is(f.Err, syscall.ENOSPC) || errors.Is(f.Err, syscall.EDQUOT)
}

// explain is the cause, and what an operator does about it.
func (f *Fault) explain() string {
	cause := f.Err
	var errno syscall.Errno
	if errors.As(f.Err, &errno) {
		cause = errno // without the path, which is said once
	}
	switch {
	case errors.Is(f.Err, syscall.EROFS):
		return cause.Error() + ": mount it writable (in Kubernetes: no readOnly on its volumeMount), or give a folder of another volume"
	case errors.Is(f.Err, fs.ErrPermission):
		return fmt.Sprintf("%s (user %d%s): give the folder to that user, or give another folder", cause, os.Geteuid(), owner(f.Path))
	case errors.Is(f.Err, syscall.ENOTDIR), errors.Is(f.Err, fs.ErrExist):
		return "there is a file where the folder, or one above it, should be: remove the file, or give another path"
	case errors.Is(f.Err, syscall.EDQUOT):
		return cause.Error() + ": raise the quota, or delete what uses it"
	case f.Full():
		return cause.Error() + ": free space (df) or inodes (df -i) on its volume"
	}
	return cause.Error() + ": give a folder that can be written to"
}

// owner says whose a folder is, where that can be told.
func owner(path string) string {
	info, err := os.Stat(path)
	if err != nil {
		return ""
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return ""
	}
	return fmt.Sprintf("; the folder is user %d's, mode %04o", st.Uid, info.Mode().Perm())
}

// probe is the pattern of the files that Prove writes. No file of the plugin's is named so.
const probe = ".writable-*"

// Prove makes the folder where it is missing, and writes, syncs, renames and removes a file
// of its own in it: the steps by which a file is replaced as a whole. Files that are there
// are not touched, and several processes may do it at once. The error is a *Fault.
func Prove(path string) error {
	fault := func(doing string, err error) error { return &Fault{Path: path, Doing: doing, Err: err} }
	if err := os.MkdirAll(path, 0o700); err != nil {
		return fault("make the folder", err)
	}
	f, err := os.CreateTemp(path, probe)
	if err != nil {
		return fault("make a file in it", err)
	}
	name := f.Name()
	defer func() { _ = os.Remove(name) }() // where a later step failed
	// A block: an empty file can be made on a file system that has no room.
	if _, err := f.Write(make([]byte, 4096)); err != nil {
		_ = f.Close()
		return fault("write a file in it", err)
	}
	if err := f.Sync(); err != nil {
		_ = f.Close()
		return fault("sync a file in it", err)
	}
	if err := f.Close(); err != nil {
		return fault("close a file in it", err)
	}
	renamed := filepath.Join(path, filepath.Base(name)+".renamed")
	if err := os.Rename(name, renamed); err != nil {
		return fault("rename a file in it", err)
	}
	if err := os.Remove(renamed); err != nil {
		return fault("remove a file in it", err)
	}
	return nil
}

// Replace makes a file of what write writes, or replaces it, whole or not at all: under another name beside it, whose
// beginning is the file's name and a dot, synced, and renamed. An error of write's is returned as it is.
func Replace(path string, write func(io.Writer) error) error {
	f, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".*")
	if err != nil {
		return err
	}
	defer func() { _ = os.Remove(f.Name()) }() // once renamed, there is nothing of that name
	if err = write(f); err == nil {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	return err
}

// Room is what the file system of a path has, in bytes: free is what this process may still
// use, size is all of it.
func Room(path string) (free, size uint64, err error) {
	var st syscall.Statfs_t
	if err := syscall.Statfs(path, &st); err != nil {
		return 0, 0, fmt.Errorf("failed to ask for the room of %q: %w", path, err)
	}
	block := uint64(st.Bsize) // signed, or of 32 bits, on some systems; never negative
	return st.Bavail * block, st.Blocks * block, nil
}
