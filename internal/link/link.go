// Package link is what the launcher and the plugin say to each other: over a socket that the launcher passes to
// Fluent Bit as an open file, one JSON object a line. Fluent Bit itself takes no notice.
//
// It must not know what either of them does about a message.
package link

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"sync"
	"syscall"
	"time"
)

// Environment is the variable that holds the number of the plugin's open file.
const Environment = "TENANTLOGS_LAUNCHER_FD"

// Message is what the launcher says. Exactly one field is set.
type Message struct {
	// Leave says that Fluent Bit was asked to end, and how long it takes at most: events that no call is under way
	// with are given back before.
	Leave time.Duration `json:"leave,omitempty"`
	// Report tells of lines that no agent read in time.
	Report *Report `json:"report,omitempty"`
}

// Kind is what a Report tells of.
type Kind string

const (
	// CaughtUp bytes were laid down for tail.
	CaughtUp Kind = "caught_up"
	// Lost is a file that was rotated and removed before an agent read it.
	Lost Kind = "lost"
)

// Report is about one file of a container's log.
type Report struct {
	Kind Kind `json:"kind"`
	// Namespace, Pod and Container name the container.
	Namespace string `json:"namespace"`
	Pod       string `json:"pod"`
	Container string `json:"container"`
	// Bytes were caught up, or are known to be lost; of a file that was gone before it was seen, 0.
	Bytes int64 `json:"bytes"`
}

// Sender is the launcher's end. It may be used by many goroutines.
type Sender struct {
	mu   sync.Mutex
	conn net.Conn
}

// Pair makes the two ends. The file is the plugin's: it is for the child's ExtraFiles, and to be closed after its
// start.
func Pair() (*Sender, *os.File, error) {
	fds, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("failed to make a socket for the plugin: %w", err)
	}
	ours := os.NewFile(uintptr(fds[0]), "launcher") //nolint:gosec // a descriptor is not negative here
	theirs := os.NewFile(uintptr(fds[1]), "plugin") //nolint:gosec // likewise
	conn, err := net.FileConn(ours)
	if err = errors.Join(err, ours.Close()); err != nil {
		return nil, nil, errors.Join(err, theirs.Close())
	}
	return &Sender{conn: conn}, theirs, nil
}

// sendTimeout is how long a message may wait for a plugin that does not read. The socket holds some thousands.
const sendTimeout = time.Second

// Send sends one message.
func (s *Sender) Send(m Message) error {
	line, err := json.Marshal(m)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.conn.SetWriteDeadline(time.Now().Add(sendTimeout)); err != nil {
		return err
	}
	_, err = s.conn.Write(append(line, '\n'))
	return err
}

// Close ends the link.
func (s *Sender) Close() error { return s.conn.Close() }

// Receive calls handle with each message of the launcher that started this process, until the link ends. Without a
// launcher it returns at once. The variable is removed, so that only one Receive of a process reads.
func Receive(handle func(Message)) error {
	value, ok := os.LookupEnv(Environment)
	if !ok {
		return nil
	}
	if err := os.Unsetenv(Environment); err != nil {
		return err
	}
	fd, err := strconv.ParseUint(value, 10, 31)
	if err != nil {
		return fmt.Errorf("%s: %q is no file descriptor", Environment, value)
	}
	syscall.CloseOnExec(int(fd)) //nolint:gosec // 31 bits
	file := os.NewFile(uintptr(fd), "launcher")
	conn, err := net.FileConn(file)
	if err = errors.Join(err, file.Close()); err != nil {
		return fmt.Errorf("%s: %w", Environment, err)
	}
	defer conn.Close()
	for d := json.NewDecoder(conn); ; {
		var m Message
		if err := d.Decode(&m); err != nil {
			if errors.Is(err, io.EOF) {
				return nil
			}
			return err
		}
		handle(m)
	}
}
