package node

import (
	"bufio"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"
)

// ContainerLog is the log of one container as its runtime and the kubelet keep it: the runtime writes and reopens,
// the kubelet rotates, compresses and removes (pkg/kubelet/logs/container_log_manager.go).
type ContainerLog struct {
	// Keep is the kubelet's containerLogMaxFiles: the file that is written and the rotated ones.
	Keep int

	path string
	mu   sync.Mutex
	file *os.File
	w    *bufio.Writer
}

// Container makes the log of a pod's container.
func (n *Node) Container(p Pod, keep int) (*ContainerLog, error) {
	dir := filepath.Join(n.Root, "var/log/pods", p.Namespace+"_"+p.Name+"_"+p.UID(), p.Container)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	c := &ContainerLog{Keep: keep, path: filepath.Join(dir, "0.log")}
	return c, c.reopen()
}

// Path is that of the file that is written.
func (c *ContainerLog) Path() string { return c.path }

func (c *ContainerLog) reopen() error {
	f, err := os.OpenFile(c.path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o640)
	if err != nil {
		return err
	}
	old := c.file
	c.file, c.w = f, bufio.NewWriterSize(f, 64<<10)
	if old != nil {
		return old.Close()
	}
	return nil
}

// Write writes whole lines, each with the present time.
func (c *ContainerLog) Write(texts ...string) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, text := range texts {
		fmt.Fprintf(c.w, "%s stdout F %s\n", time.Now().UTC().Format("2006-01-02T15:04:05.000000000Z07:00"), text)
	}
	return c.w.Flush()
}

// Rotate is one rotation. The runtime goes on writing to the renamed file until it has made the new one.
func (c *ContainerLog) Rotate(at time.Time) error {
	old, err := filepath.Glob(c.path + ".*")
	if err != nil {
		return err
	}
	slices.Sort(old)
	for len(old) > max(0, c.Keep-2) {
		if err := os.Remove(old[0]); err != nil {
			return err
		}
		old = old[1:]
	}
	for _, path := range old {
		if strings.HasSuffix(path, ".gz") {
			continue
		}
		if err := compress(path); err != nil {
			return err
		}
	}
	if err := os.Rename(c.path, c.path+"."+at.Format("20060102-150405")); err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.reopen()
}

func compress(path string) (err error) {
	in, err := os.Open(path)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.Create(path + ".tmp")
	if err != nil {
		return err
	}
	z := gzip.NewWriter(out)
	_, err = io.Copy(z, in)
	if err = errors.Join(err, z.Close(), out.Close()); err != nil {
		return err
	}
	if err := os.Rename(path+".tmp", path+".gz"); err != nil {
		return err
	}
	return os.Remove(path)
}

// Close closes the file that is written.
func (c *ContainerLog) Close() error { return c.file.Close() }
