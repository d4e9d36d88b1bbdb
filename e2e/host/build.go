package host

import (
	"context"
	"crypto/sha256"
	"debug/buildinfo"
	_ "embed" // loader.c
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/eks-tenant-logs/eks-tenant-logs/e2e/environment"
)

//go:embed loader/loader.c
var loaderSource []byte

var loaderFlags = []string{"-std=gnu11", "-O2", "-g", "-Wall", "-Wextra", "-pthread"}

// Build compiles the loader with $CC, or gcc, into dir and returns its path. The file's name holds a hash of what
// it was made from, so a second call finds it there; concurrent calls, also from other processes, do no harm.
func Build(ctx context.Context, dir string) (string, error) {
	cc := strings.Fields(os.Getenv("CC"))
	if len(cc) == 0 {
		cc = []string{"gcc"}
	}
	sum := sha256.New()
	fmt.Fprintf(sum, "%q%q", cc, loaderFlags)
	sum.Write(loaderSource)
	path := filepath.Join(dir, "loader-"+hex.EncodeToString(sum.Sum(nil))[:16])
	if _, err := os.Stat(path); err == nil {
		return path, nil
	}

	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	work, err := os.MkdirTemp(dir, "build-")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(work)
	source, out := filepath.Join(work, "loader.c"), filepath.Join(work, "loader")
	if err := os.WriteFile(source, loaderSource, 0o644); err != nil {
		return "", err
	}
	args := append(append(append([]string{}, cc[1:]...), loaderFlags...), "-o", out, source, "-ldl")
	if err := run(exec.CommandContext(ctx, cc[0], args...)); err != nil {
		return "", fmt.Errorf("failed to compile the loader: %w", err)
	}
	return path, os.Rename(out, path)
}

// BuildPlugin compiles the Go package at pkg (a folder or an import path, seen from the working directory) to the
// shared object out; flags go to go build, for instance "-race". A plugin built with -race runs in the loader.
func BuildPlugin(ctx context.Context, pkg, out string, flags ...string) error {
	args := append([]string{"build", "-buildmode=c-shared", "-o", out}, flags...)
	cmd := exec.CommandContext(ctx, "go", append(args, pkg)...)
	cmd.Env = append(environment.Build(), "CGO_ENABLED=1")
	if err := run(cmd); err != nil {
		return fmt.Errorf("failed to build plugin %s: %w", pkg, err)
	}
	return nil
}

func builtWithRace(path string) bool {
	info, err := buildinfo.ReadFile(path)
	if err != nil {
		return false // the loader will say what is wrong with it
	}
	for _, s := range info.Settings {
		if s.Key == "-race" {
			return s.Value == "true"
		}
	}
	return false
}

func run(cmd *exec.Cmd) error {
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return fmt.Errorf("%s: %w\n%s", strings.Join(cmd.Args, " "), err, out)
	}
	return err
}

// defaultLoader is the loader in the user's cache folder, built when it is not there yet.
func defaultLoader(ctx context.Context) (string, error) {
	dir, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("no folder to build the loader in, set Config.Loader: %w", err)
	}
	return Build(ctx, filepath.Join(dir, "eks-tenant-logs", "host"))
}
