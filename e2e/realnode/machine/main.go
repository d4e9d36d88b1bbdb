// Command machine is process 1 of a machine that package realnode makes: the one of a cluster's control plane, or a node.
//
// It runs in process, mount, network, host name and IPC namespaces of its own, which it fills as its configuration says, and
// then does what it is asked over HTTP on a Unix socket: start and end processes, run commands, relay connections, answer DNS,
// and start further machines inside its own namespaces. When it ends, the kernel ends every process in it and drops its mounts
// and its network, so nothing of it is left but its control groups and its folder. The control plane's machine ends when its
// standard input does, that is, also when the test that started it was killed, and removes both.
package main

import (
	"encoding/json"
	"fmt"
	"os"
	"runtime"
)

func main() {
	runtime.LockOSThread() // for namespaces: they are a thread's
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "machine:", err)
		os.Exit(1)
	}
}

// Config is what the machine is to be, as JSON in the first argument.
type Config struct {
	// Name is the host's name.
	Name string
	// Dir is the cluster's folder, which the control plane's machine removes at its end.
	Dir string
	// Socket is the path of the Unix socket.
	Socket string
	// Cgroup is the control group that stands for the root of the machine's control groups; empty: the machine sees those
	// of the machine around it.
	Cgroup string
	// Keep is the file that keeps this machine's folder where it is, when it exists at the end.
	Keep string
	// Tmpfs are folders that begin empty. Binds are folders and files that are others here, by their names here.
	Tmpfs []string
	Binds [][2]string
	// Commands are run once the namespaces are there.
	Commands [][]string
	// EndWithInput is true for the machine that no other machine contains.
	EndWithInput bool
}

func run() error {
	if len(os.Args) < 2 {
		return fmt.Errorf("usage: %s <configuration as JSON>; package realnode starts it", os.Args[0])
	}
	var cfg Config
	if err := json.Unmarshal([]byte(os.Args[1]), &cfg); err != nil {
		return fmt.Errorf("failed to read the configuration: %w", err)
	}
	if cfg.Cgroup != "" && len(os.Args) == 2 {
		// A control group namespace begins at the group that its first process is in. It is one thread's, so the program
		// starts again on this thread.
		return enterCgroup(cfg.Cgroup, os.Args[1])
	}
	if err := furnish(cfg); err != nil {
		return err
	}
	return newMachine(cfg).serve()
}
