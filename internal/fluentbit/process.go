package fluentbit

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// Process is what is asked about the process the plugin is in.
type Process struct {
	// Executable is the path of its program, "" where unknown.
	Executable string
	// Self is what runs that very file, even if the path was replaced since: /proc/self/exe.
	Self string
	// Getenv is os.Getenv.
	Getenv func(string) string
	// Run returns the output of a program with arguments.
	Run func(ctx context.Context, program string, args ...string) ([]byte, error)
}

// Environment is the variable in which Fluent Bit's own images name their version. It is a claim
// and counts only where the program does not answer.
const Environment = "FLUENT_BIT_VERSION"

// patience bounds how long start-up waits for `--version`, which takes milliseconds.
const patience = 5 * time.Second

// This is the process we are in.
func This() Process {
	path, err := os.Readlink("/proc/self/exe")
	if err != nil {
		path = ""
	}
	return Process{Executable: path, Self: "/proc/self/exe", Getenv: os.Getenv, Run: run}
}

// Find says which Fluent Bit the process is; false where nothing tells. The Go proxy hands its
// plugins no version and the program exports none, so the program itself is run with `--version`. Only a
// program named fluent-bit is: another one that embeds the library may take the argument for something else.
func Find(ctx context.Context, p Process) (Version, bool) {
	// A file replaced by an upgrade reads as "/…/fluent-bit (deleted)"; the link still runs the old one, which is us.
	name := strings.TrimSuffix(filepath.Base(p.Executable), " (deleted)")
	if name == "fluent-bit" {
		bounded, cancel := context.WithTimeout(ctx, patience)
		defer cancel()
		if out, err := p.Run(bounded, p.Self, "--version"); err == nil {
			if v, ok := parseOutput(out); ok {
				return v, true
			}
		}
	}
	return Parse(p.Getenv(Environment))
}

// run is exec's, told to give up on a child's descendants too.
func run(ctx context.Context, program string, args ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, program, args...) //nolint:gosec // our own process's program
	cmd.WaitDelay = time.Second
	return cmd.Output()
}
