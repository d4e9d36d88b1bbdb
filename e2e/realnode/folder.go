package realnode

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"
)

// A cluster's folder is named so, in the temporary folder; so are its control groups.
const (
	folderPrefix = "tenantlogs-node-"
	cgroupRoot   = "/sys/fs/cgroup"
	keepFile     = "keep"
)

// repository is the folder that this package's source lies in.
func repository() (string, error) {
	_, file, _, ok := runtime.Caller(0)
	if !ok || !filepath.IsAbs(file) {
		return "", errors.New("the repository's folder is not known: Options.Root is needed")
	}
	return filepath.Join(filepath.Dir(file), "..", ".."), nil
}

// newFolder makes a folder, and holds its lock: one whose lock is free is left over. The machine of the control plane holds it, too.
func newFolder() (string, *os.File, error) {
	dir, err := os.MkdirTemp("", folderPrefix)
	if err != nil {
		return "", nil, err
	}
	// Fluent Bit runs as root without capabilities, and the provisioner not as root: both pass through.
	if err := os.Chmod(dir, 0o755); err != nil {
		return dir, nil, err
	}
	lock, err := os.Create(filepath.Join(dir, "lock"))
	if err != nil {
		return dir, nil, err
	}
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX); err != nil {
		return dir, lock, err
	}
	for _, below := range []string{"log", "pki"} {
		if err := os.Mkdir(filepath.Join(dir, below), 0o755); err != nil {
			return dir, lock, err
		}
	}
	return dir, lock, nil
}

// Sweep removes what clusters left that could not clean up after themselves: where the process that called Start and the control
// plane's machine were killed. The kernel has then ended their processes; folders and control groups remain.
func Sweep() error {
	dirs, err := filepath.Glob(filepath.Join(os.TempDir(), folderPrefix+"*"))
	if err != nil {
		return err
	}
	var errs []error
	live := map[string]bool{}
	for _, dir := range dirs {
		lock, err := os.Open(filepath.Join(dir, "lock"))
		if err != nil {
			live[dir] = true // not there yet
			if info, err := os.Stat(dir); err == nil && time.Since(info.ModTime()) > time.Hour {
				errs = append(errs, os.RemoveAll(dir))
			}
			continue
		}
		if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
			live[dir] = true
		} else {
			errs = append(errs, os.RemoveAll(dir))
		}
		lock.Close()
	}
	groups, err := leftCgroups()
	errs = append(errs, err)
	for _, group := range groups {
		id := strings.TrimPrefix(filepath.Base(group), folderPrefix)
		id, _, _ = strings.Cut(id, ".")
		if !live[filepath.Join(os.TempDir(), folderPrefix+id)] {
			errs = append(errs, removeCgroup(group))
		}
	}
	return errors.Join(errs...)
}

// leftCgroups are all control groups that bear our name, in any hierarchy.
func leftCgroups() ([]string, error) {
	var all []string
	for _, pattern := range []string{folderPrefix + "*", "*/" + folderPrefix + "*"} {
		found, err := filepath.Glob(filepath.Join(cgroupRoot, pattern))
		if err != nil {
			return nil, err
		}
		all = append(all, found...)
	}
	return all, nil
}

// removeCgroup removes a control group and those in it, which must be empty of processes.
func removeCgroup(group string) error {
	var groups []string
	err := filepath.WalkDir(group, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() {
			groups = append(groups, path)
		}
		return nil
	})
	if err != nil {
		return err
	}
	slices.Reverse(groups)
	for _, g := range groups {
		if err := os.Remove(g); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("failed to remove a control group: %w", err)
		}
	}
	return nil
}
