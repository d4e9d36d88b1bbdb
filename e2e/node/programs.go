package node

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/eks-tenant-logs/eks-tenant-logs/internal/fluentbit"
)

// FindFluentBit is the path of the Fluent Bit named by $FLUENT_BIT, or else of the one on PATH. The error says why
// there is none that can be used: a name on PATH need not run, and versions that the plugin refuses do not count.
func FindFluentBit(ctx context.Context) (string, error) {
	path := os.Getenv("FLUENT_BIT")
	if path == "" {
		var err error
		if path, err = exec.LookPath("fluent-bit"); err != nil {
			return "", errors.New("no Fluent Bit on PATH or in $FLUENT_BIT")
		}
	}
	var ran error
	version, ok := fluentbit.Find(ctx, fluentbit.Process{
		Executable: "fluent-bit", Self: path, Getenv: func(string) string { return "" },
		Run: func(ctx context.Context, program string, args ...string) ([]byte, error) {
			var out []byte
			out, ran = exec.CommandContext(ctx, program, args...).Output()
			return out, ran
		},
	})
	switch {
	case ran != nil:
		return "", fmt.Errorf("the Fluent Bit at %s does not run: %w", path, ran)
	case !ok:
		return "", fmt.Errorf("the Fluent Bit at %s does not tell its version", path)
	}
	if err := fluentbit.Check(version); err != nil {
		return "", fmt.Errorf("the Fluent Bit at %s cannot be used: %w", path, err)
	}
	return path, nil
}

// AWSCLI is an AWS CLI that runs. Version 2 has commands that version 1 has not, such as `logs tail`; version 1 does not
// read AWS_REGION.
type AWSCLI struct {
	Path  string
	Major int
}

// AWSCLIVersions are the major versions that are in use.
var AWSCLIVersions = []int{1, 2}

// AWSCLIs are the first AWS CLI of each of AWSCLIVersions, and the versions of which there is none: of $AWSCLI and every
// `aws` on PATH. A name on PATH need not run: version managers leave shims.
func AWSCLIs(ctx context.Context) (found []AWSCLI, missing []int) {
	candidates := []string{os.Getenv("AWSCLI")}
	for _, dir := range filepath.SplitList(os.Getenv("PATH")) {
		candidates = append(candidates, filepath.Join(dir, "aws"))
	}
	missing = slices.Clone(AWSCLIVersions)
	for n, path := range candidates {
		if info, err := os.Stat(path); path == "" || err != nil || info.IsDir() || slices.Contains(candidates[:n], path) {
			continue
		}
		cmd := exec.CommandContext(ctx, path, "--version")
		cmd.Env = cliEnv(os.TempDir())
		said, err := cmd.CombinedOutput()
		major, ok := awsCLIMajor(string(said))
		if err == nil && ok && slices.Contains(missing, major) {
			missing = slices.DeleteFunc(missing, func(v int) bool { return v == major })
			found = append(found, AWSCLI{Path: path, Major: major})
		}
	}
	return found, missing
}

// awsCLIMajor reads `aws-cli/2.9.19 Python/3.11.2 …`.
func awsCLIMajor(said string) (int, bool) {
	_, after, found := strings.Cut(said, "aws-cli/")
	text, _, _ := strings.Cut(after, ".")
	major, err := strconv.Atoi(text)
	return major, found && err == nil
}

// cliEnv is the least a CLI needs to run; home is a folder without settings of the user's.
func cliEnv(home string) []string {
	return []string{"PATH=" + os.Getenv("PATH"), "HOME=" + home, "LC_ALL=C.UTF-8", "AWS_PAGER="}
}

// Run runs the CLI against a CloudWatch and returns what it prints; home is a folder without settings of the user's. The
// error holds what it says.
func (c AWSCLI) Run(ctx context.Context, cw *CloudWatch, home string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, c.Path, append([]string{"--endpoint-url", cw.Endpoint, "--region", cw.Region, "--output", "json"}, args...)...)
	// To the CLI a variable that is empty is one that is set.
	cmd.Env = append(slices.DeleteFunc(cw.Env(), func(v string) bool { return strings.HasSuffix(v, "=") }), cliEnv(home)...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("aws %s (version %d, %s): %w\n%s", strings.Join(args, " "), c.Major, c.Path, err, &stderr)
	}
	return stdout.String(), nil
}
