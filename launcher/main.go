// Command tenantlogs-launcher runs Fluent Bit as its child, and sees to it that no line is lost in between two Fluent
// Bits. Before the start it finds what the kubelet rotated while none was reading, and lays it down for tail. At the
// end it tells the plugin, so that undelivered events go back into Fluent Bit's storage at once.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"syscall"
	"time"

	"github.com/eks-tenant-logs/eks-tenant-logs/internal/catchup"
	"github.com/eks-tenant-logs/eks-tenant-logs/internal/folder"
	"github.com/eks-tenant-logs/eks-tenant-logs/internal/link"
	"github.com/eks-tenant-logs/eks-tenant-logs/internal/version"
)

// memory is the launcher's share of the container's memory limit, in bytes: more than it needs after its start.
const memory = 24 << 20

// maxReports is how many reports wait for the plugin at most.
const maxReports = 8192

// exitUsage is the exit status for options that make no sense, and for a state folder that cannot be used.
const exitUsage = 2

func main() {
	debug.SetMemoryLimit(memory)
	debug.SetGCPercent(50)
	os.Exit(run(os.Args[1:], os.Stdout, os.Stderr))
}

// options are the launcher's own. What follows them is Fluent Bit's command line.
type options struct {
	logs, db, dir string
	exclude       []string
	grace         time.Duration
	command       []string
}

func parse(args []string, out io.Writer) (options, error) {
	var o options
	flags := flag.NewFlagSet("tenantlogs-launcher", flag.ContinueOnError)
	flags.SetOutput(out)
	flags.StringVar(&o.logs, "logs", "/var/log/pods", "the kubelet's folder of pods' logs, as in the `path` of tail")
	flags.StringVar(&o.db, "db", "", "the `db` of tail (required)")
	flags.StringVar(&o.dir, "catch-up", "", "the folder where rotated files are laid down for tail's second input (required)")
	flags.Func("exclude", "a pattern of tail's exclude_path; may be repeated", func(p string) error {
		_, err := filepath.Match(p, "")
		o.exclude = append(o.exclude, p)
		return err
	})
	flags.DurationVar(&o.grace, "grace", 10*time.Second, "Fluent Bit's grace: how long it may take at its end")
	showVersion := flags.Bool("version", false, "print the version and exit")
	flags.Usage = func() {
		fmt.Fprintln(out, "Usage: tenantlogs-launcher -db FILE -catch-up FOLDER [options] -- /fluent-bit/bin/fluent-bit [arguments]")
		flags.PrintDefaults()
	}
	if err := flags.Parse(args); err != nil {
		return o, err
	}
	if *showVersion {
		fmt.Fprintln(out, version.String())
		return o, flag.ErrHelp
	}
	o.command = flags.Args()
	switch {
	case o.db == "":
		return o, errors.New("-db is missing: give the `db` of tail")
	case o.dir == "":
		return o, errors.New("-catch-up is missing: give a folder beside tail's db")
	case len(o.command) == 0:
		return o, errors.New("the program to run is missing: give it after --")
	case o.grace < time.Second:
		return o, fmt.Errorf("-grace is %s: give 1s or more, as in Fluent Bit's [SERVICE]", o.grace)
	}
	return o, nil
}

func run(args []string, stdout, stderr io.Writer) int {
	o, err := parse(args, stdout)
	if errors.Is(err, flag.ErrHelp) {
		return 0
	}
	log := logger(stderr)
	if err != nil {
		log.Error(err.Error())
		return exitUsage
	}
	// Before anything else: what is asked for during the start counts.
	signals := make(chan os.Signal, 16)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP, syscall.SIGCONT, syscall.SIGUSR1, syscall.SIGUSR2)
	defer signal.Stop(signals)

	var fault *folder.Fault
	if err := folder.Prove(o.dir); errors.As(err, &fault) && fault.Full() {
		// Chunks may wait whose delivery makes room: whether to start is the plugin's to say.
		log.Error("the catch-up folder cannot be used at the moment", "error", err)
	} else if err != nil {
		log.Error("the catch-up folder cannot be used", "error", err)
		return exitUsage
	}
	locked, err := lock(o.dir, signals, log)
	if err != nil {
		log.Error("the catch-up folder cannot be locked", "error", err)
		return exitUsage
	}
	if locked == nil {
		return 0
	}
	defer locked.Close()
	return o.supervise(locked, signals, stdout, stderr, log)
}

func logger(to io.Writer) *slog.Logger {
	return slog.New(slog.NewTextHandler(to, nil)).With("program", "launcher")
}

// supervise runs Fluent Bit until it ends, and returns its exit status. Fluent Bit gets the lock as an open file: should
// the launcher be killed, the state stays locked until Fluent Bit has ended as well.
func (o options) supervise(locked *os.File, signals <-chan os.Signal, stdout, stderr io.Writer, log *slog.Logger) int {
	to, theirs, err := link.Pair()
	if err != nil {
		log.Error(err.Error())
		return 1
	}
	defer func() { _ = to.Close() }()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	// The plugin reads once Fluent Bit has started it, and the socket holds some hundreds.
	reports := make(chan link.Report, maxReports)
	follower, err := catchup.Prepare(ctx, catchup.Config{
		Logs: o.logs, DB: o.db, Dir: o.dir, Exclude: o.exclude, Log: log,
		Report: func(r link.Report) {
			select {
			case reports <- r:
			default: // the log has it
			}
		},
	})
	if err != nil {
		// Fluent Bit reads on all the same: an agent that does not start loses more.
		log.Error("what was rotated while no agent ran is not delivered", "error", err)
	}
	// An end that was asked for meanwhile needs no Fluent Bit.
	for waiting := true; waiting; {
		select {
		case s := <-signals:
			if s == syscall.SIGTERM || s == syscall.SIGINT {
				return 0
			}
		default:
			waiting = false
		}
	}
	cmd := exec.Command(o.command[0], o.command[1:]...) //nolint:gosec,noctx // it is what it is for; it ends by signals alone
	cmd.Stdout, cmd.Stderr = stdout, stderr
	cmd.Env = append(os.Environ(), fmt.Sprintf("%s=%d", link.Environment, 3))
	cmd.ExtraFiles = []*os.File{theirs, locked} // become descriptors 3 and 4
	// Should the launcher be killed, the kernel ends Fluent Bit: in a container for the launcher is its first process, elsewhere for this.
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	started, done := make(chan error), make(chan struct{})
	go func() {
		// The signal is sent when the thread ends that started the child.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		started <- err
		if err == nil {
			_ = cmd.Wait() // its state says it
		}
		close(done)
	}()
	err = <-started
	_ = theirs.Close()
	if err != nil {
		log.Error("failed to start Fluent Bit", "error", err)
		return 1
	}
	go func() {
		for {
			select {
			case r := <-reports:
				for errors.Is(to.Send(link.Message{Report: &r}), os.ErrDeadlineExceeded) && ctx.Err() == nil {
				}
			case <-ctx.Done():
				return
			}
		}
	}()
	debug.FreeOSMemory() // the start's is not needed any more
	if follower != nil {
		followed := make(chan struct{})
		go func() {
			defer close(followed)
			follower.Follow(ctx, cmd.Process.Pid)
		}()
		defer func() {
			cancel()
			<-followed
			if err := follower.Stop(); err != nil {
				log.Error("what Fluent Bit has left unread is not written down; where the kubelet rotates it before the next start, it is lost", "error", err)
			}
		}()
	}
	for {
		select {
		case s := <-signals:
			if s == syscall.SIGTERM || s == syscall.SIGINT {
				leave(follower, cmd.Process.Pid)
				if err := to.Send(link.Message{Leave: o.grace}); err != nil {
					log.Debug("the plugin is not told", "error", err)
				}
			}
			_ = cmd.Process.Signal(s)
		case <-done:
			return status(cmd.ProcessState, log)
		}
	}
}

// leave has the follower look a last time before the agent is told to end. A disk that does not answer holds up nothing.
func leave(follower *catchup.Follower, pid int) {
	if follower == nil {
		return
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		follower.Leave(pid)
	}()
	select {
	case <-done:
	case <-time.After(time.Second):
	}
}

// status is the exit status as a shell gives it: 128 and the signal's number where a signal ended the process.
func status(state *os.ProcessState, log *slog.Logger) int {
	if ws, ok := state.Sys().(syscall.WaitStatus); ok && ws.Signaled() {
		log.Error("Fluent Bit was ended by a signal", "signal", ws.Signal().String())
		return 128 + int(ws.Signal())
	}
	return state.ExitCode()
}

// lock keeps two agents from using one state, by the folder itself, for which a full volume has room: the older one
// has it until it has ended. The file is nil where this one is asked to end while it waits.
func lock(dir string, signals <-chan os.Signal, log *slog.Logger) (*os.File, error) {
	f, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	for told := false; ; told = true {
		err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB) //nolint:gosec // a descriptor is small
		if err == nil {
			return f, nil
		}
		if !errors.Is(err, syscall.EWOULDBLOCK) && !errors.Is(err, syscall.EINTR) {
			return nil, errors.Join(err, f.Close())
		}
		if !told {
			log.Warn("another agent uses this node's state; waiting for its end", "folder", dir)
		}
		select {
		case s := <-signals:
			if s == syscall.SIGTERM || s == syscall.SIGINT {
				return nil, f.Close()
			}
		case <-time.After(50 * time.Millisecond):
		}
	}
}
