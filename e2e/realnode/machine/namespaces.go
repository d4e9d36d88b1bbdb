package main

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

// cgroupRoot is where control groups are mounted.
const cgroupRoot = "/sys/fs/cgroup"

// hierarchy is a mounted hierarchy of control groups.
type hierarchy struct {
	path    string
	version int
	options string // of its mount, version 1
}

// hierarchies are those that have controllers, or a name; on a machine with both versions, version 2 has neither.
func hierarchies() ([]hierarchy, error) {
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var v1, v2 []hierarchy
	for lines := bufio.NewScanner(f); lines.Scan(); {
		before, after, _ := strings.Cut(lines.Text(), " - ")
		path, end := strings.Fields(before), strings.Fields(after)
		if len(path) < 5 || len(end) < 3 || !strings.HasPrefix(path[4], cgroupRoot) {
			continue
		}
		switch end[0] {
		case "cgroup":
			options := slices.DeleteFunc(strings.Split(end[2], ","), func(o string) bool {
				return o == "rw" || o == "ro" || o == "xattr" || o == "clone_children" || strings.HasPrefix(o, "release_agent")
			})
			v1 = append(v1, hierarchy{path[4], 1, strings.Join(options, ",")})
		case "cgroup2":
			v2 = append(v2, hierarchy{path[4], 2, ""})
		}
	}
	if len(v1) > 0 {
		return v1, nil
	}
	if len(v2) == 0 {
		return nil, errors.New("no control groups are mounted")
	}
	return v2[:1], nil
}

// enterCgroup makes a control group in each hierarchy, moves this process there, and starts the program again with a
// namespace in which that group is the root.
func enterCgroup(name, argument string) error {
	all, err := hierarchies()
	if err != nil {
		return err
	}
	for _, h := range all {
		group := filepath.Join(h.path, name)
		if h.version == 2 {
			// Where it can't be written, the controllers may be on already; the kubelet says which it misses.
			_ = enableControllers(h.path)
		}
		if err := os.MkdirAll(group, 0o755); err != nil {
			return fmt.Errorf("failed to make a control group: %w", err)
		}
		// A new group of version 1 has no processor and no memory node.
		for _, file := range []string{"cpuset.cpus", "cpuset.mems"} {
			if inherited, err := os.ReadFile(filepath.Join(h.path, file)); err == nil && h.version == 1 {
				if err := os.WriteFile(filepath.Join(group, file), inherited, 0o644); err != nil {
					return err
				}
			}
		}
		if err := os.WriteFile(filepath.Join(group, "cgroup.procs"), []byte("0"), 0o644); err != nil {
			return fmt.Errorf("failed to enter a control group: %w", err)
		}
	}
	if err := syscall.Unshare(syscall.CLONE_NEWCGROUP); err != nil {
		return fmt.Errorf("failed to make a namespace of control groups: %w", err)
	}
	return syscall.Exec("/proc/self/exe", []string{os.Args[0], argument, "entered"}, os.Environ())
}

// enableControllers gives a group's children all controllers that it has itself, version 2.
func enableControllers(group string) error {
	has, err := os.ReadFile(filepath.Join(group, "cgroup.controllers"))
	if err != nil {
		return err
	}
	var errs []error
	for _, c := range strings.Fields(string(has)) {
		errs = append(errs, os.WriteFile(filepath.Join(group, "cgroup.subtree_control"), []byte("+"+c), 0o644))
	}
	return errors.Join(errs...)
}

// mountCgroups mounts the hierarchies anew, so that their roots are those of this machine.
func mountCgroups(all []hierarchy) error {
	if all[0].version == 2 {
		if err := syscall.Mount("cgroup2", cgroupRoot, "cgroup2", syscall.MS_NOSUID|syscall.MS_NODEV|syscall.MS_NOEXEC, ""); err != nil {
			return fmt.Errorf("failed to mount control groups: %w", err)
		}
		// A group whose children have controllers holds no process itself.
		leaf := filepath.Join(cgroupRoot, "init")
		if err := os.Mkdir(leaf, 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(leaf, "cgroup.procs"), []byte("0"), 0o644); err != nil {
			return err
		}
		return enableControllers(cgroupRoot)
	}
	if err := syscall.Mount("tmpfs", cgroupRoot, "tmpfs", syscall.MS_NOSUID|syscall.MS_NODEV|syscall.MS_NOEXEC, "mode=755"); err != nil {
		return fmt.Errorf("failed to mount control groups: %w", err)
	}
	for _, h := range all {
		if err := os.MkdirAll(h.path, 0o755); err != nil {
			return err
		}
		if err := syscall.Mount("cgroup", h.path, "cgroup", syscall.MS_NOSUID|syscall.MS_NODEV|syscall.MS_NOEXEC, h.options); err != nil {
			return fmt.Errorf("failed to mount control groups %s (%s): %w", h.path, h.options, err)
		}
	}
	return nil
}

// removeCgroup removes a group and those below it, once they are empty.
func removeCgroup(name string) error {
	all, err := hierarchies()
	if err != nil {
		return err
	}
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		var errs []error
		for _, h := range all {
			var groups []string
			err := filepath.WalkDir(filepath.Join(h.path, name), func(path string, d fs.DirEntry, err error) error {
				if err == nil && d.IsDir() {
					groups = append(groups, path)
				}
				return nil // what vanishes meanwhile is gone
			})
			errs = append(errs, err)
			slices.Reverse(groups)
			for _, g := range groups {
				if err := os.Remove(g); !errors.Is(err, fs.ErrNotExist) {
					errs = append(errs, err)
				}
			}
		}
		if err := errors.Join(errs...); err == nil || time.Now().After(deadline) {
			return err
		}
	}
}

// furnish makes the namespaces what the configuration says. They were made with the process.
func furnish(cfg Config) error {
	cgroups, err := hierarchies()
	if err != nil && cfg.Cgroup != "" {
		return err
	}
	if err := syscall.Mount("", "/", "", syscall.MS_REC|syscall.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("failed to make the mounts this machine's own: %w", err)
	}
	if err := syscall.Mount("proc", "/proc", "proc", syscall.MS_NOSUID|syscall.MS_NODEV|syscall.MS_NOEXEC, ""); err != nil {
		return fmt.Errorf("failed to mount /proc: %w", err)
	}
	if err := syscall.Sethostname([]byte(cfg.Name)); err != nil {
		return err
	}
	if cfg.Cgroup != "" {
		// The network's interfaces are in /sys, too.
		if err := syscall.Mount("sysfs", "/sys", "sysfs", syscall.MS_NOSUID|syscall.MS_NODEV|syscall.MS_NOEXEC, ""); err != nil {
			return fmt.Errorf("failed to mount /sys: %w", err)
		}
		if err := mountCgroups(cgroups); err != nil {
			return err
		}
	}
	for _, b := range cfg.Binds {
		if err := syscall.Mount(b[0], b[1], "", syscall.MS_BIND|syscall.MS_REC, ""); err != nil {
			return fmt.Errorf("failed to mount %s at %s: %w", b[0], b[1], err)
		}
	}
	for _, dir := range cfg.Tmpfs {
		if err := syscall.Mount("tmpfs", dir, "tmpfs", syscall.MS_NOSUID|syscall.MS_NODEV, "mode=755"); err != nil {
			return fmt.Errorf("failed to mount a tmpfs at %s: %w", dir, err)
		}
	}
	if cfg.Cgroup != "" {
		// As on a machine with systemd: volumes with mount propagation need it.
		if err := syscall.Mount("", "/", "", syscall.MS_REC|syscall.MS_SHARED, ""); err != nil {
			return fmt.Errorf("failed to share the mounts: %w", err)
		}
	}
	for _, args := range cfg.Commands {
		if out, err := exec.Command(args[0], args[1:]...).CombinedOutput(); err != nil {
			return fmt.Errorf("%s: %w: %s", strings.Join(args, " "), err, out)
		}
	}
	return nil
}
