package node

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// Resident is a process's resident memory in MB; 0 where there is no such process.
func Resident(pid int) float64 {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0
	}
	_, after, _ := strings.Cut(string(text), "VmRSS:")
	line, _, _ := strings.Cut(after, "kB")
	kb, err := strconv.Atoi(strings.TrimSpace(line))
	if err != nil {
		return 0
	}
	return float64(kb) / 1024
}

// Memory is a memory cgroup (version 1), as the kubelet makes one for a container with a limit.
type Memory struct{ dir string }

// NewMemory makes one below this process's own, with a limit in bytes. Its error says what the
// machine lacks; it takes the right to write the hierarchy.
func NewMemory(limit int) (*Memory, error) {
	own, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return nil, err
	}
	for line := range strings.Lines(string(own)) {
		fields := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(fields) != 3 || !slices.Contains(strings.Split(fields[1], ","), "memory") {
			continue
		}
		dir, err := os.MkdirTemp(filepath.Join("/sys/fs/cgroup/memory", fields[2]), "e2e-")
		if err != nil {
			return nil, err
		}
		m := &Memory{dir}
		if err := m.Limit(limit); err != nil {
			return nil, errors.Join(err, m.Remove())
		}
		return m, nil
	}
	return nil, errors.New("there is no memory cgroup of version 1")
}

// Limit sets another limit in bytes. It is refused where more than that is in use and can't be freed.
func (m *Memory) Limit(bytes int) error {
	return os.WriteFile(filepath.Join(m.dir, "memory.limit_in_bytes"), []byte(strconv.Itoa(bytes)), 0) //nolint:gosec // the kernel made it
}

// Command are the arguments that run a program in the cgroup.
func (m *Memory) Command(args ...string) []string {
	return append([]string{"/bin/sh", "-c", `echo $$ >"$0/cgroup.procs" && exec "$@"`, m.dir}, args...)
}

// Kills is how many processes the kernel killed because the limit was reached.
func (m *Memory) Kills() int { return m.figure("memory.oom_control", "oom_kill") }

// Anonymous is what is in use and can't be freed, in bytes; Files is what is cached of files.
func (m *Memory) Anonymous() int { return m.figure("memory.stat", "total_rss") }

// Files is what is cached of files, in bytes.
func (m *Memory) Files() int { return m.figure("memory.stat", "total_cache") }

func (m *Memory) figure(file, name string) int {
	text, err := os.ReadFile(filepath.Join(m.dir, file))
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(text)) {
		if rest, ok := strings.CutPrefix(line, name+" "); ok {
			n, _ := strconv.Atoi(strings.TrimSpace(rest))
			return n
		}
	}
	return 0
}

// Remove removes it, once its processes have ended.
func (m *Memory) Remove() error { return os.Remove(m.dir) }
