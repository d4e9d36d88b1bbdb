package e2e

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/eks-tenant-logs/eks-tenant-logs/e2e/environment"
	"github.com/eks-tenant-logs/eks-tenant-logs/e2e/node"
	"github.com/eks-tenant-logs/eks-tenant-logs/internal/fakeaws"
)

// provisioned is the part of what tenantlogs says that these tests look at.
type provisioned struct {
	Tenants []struct {
		Tenant, State, Reason, Role, Group string
		RetentionDays                      int
		Findings                           []string
	}
	Actions  json.RawMessage // a plan's list, or how many there were
	Writes   int
	Repaired map[string]int
	Findings []struct{ Text string }
	State    string
	Failed   string
	Roles    map[string]string
}

// command is the built command; TestMain takes its directory away.
var command struct {
	once        sync.Once
	dir, binary string
	err         error
}

// provision runs the built command against a stand-in.
func provision(t *testing.T, cw *node.CloudWatch, args ...string) (said provisioned, code int) {
	t.Helper()
	out, errs, code := runCommand(t, cw, append(args, "-o", "json")...)
	require.NoError(t, json.Unmarshal(out, &said), "%s\n%s", out, errs)
	return said, code
}

// builtCommand is the path of the command, built once a run.
func builtCommand(t *testing.T) string {
	t.Helper()
	command.once.Do(func() {
		if command.dir, command.err = os.MkdirTemp("", "e2e-"); command.err != nil {
			return
		}
		command.binary = filepath.Join(command.dir, "tenantlogs")
		cmd := exec.Command("go", "build", "-o", command.binary, "github.com/eks-tenant-logs/eks-tenant-logs/provisioner")
		cmd.Env = append(environment.Machine(), "CGO_ENABLED=0")
		if out, err := cmd.CombinedOutput(); err != nil {
			command.err = errors.New(string(out))
		}
	})
	require.NoError(t, command.err)
	return command.binary
}

// commandOf is the built command, ready to start.
func commandOf(t *testing.T, cw *node.CloudWatch, args ...string) *exec.Cmd {
	t.Helper()
	args = append(args, "--region", cw.Region, "--cluster", "c1", "--endpoint", cw.Endpoint, "--sts-endpoint", cw.Endpoint, "--iam-endpoint", cw.Endpoint,
		"--kms-endpoint", cw.Endpoint, "--eks-endpoint", cw.Endpoint)
	cmd := exec.CommandContext(t.Context(), builtCommand(t), args...)
	cmd.Env = append(os.Environ(), cw.Env()...)
	return cmd
}

func runCommand(t *testing.T, cw *node.CloudWatch, args ...string) (stdout, stderr []byte, code int) {
	t.Helper()
	var out, errs bytes.Buffer
	cmd := commandOf(t, cw, args...)
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := cmd.Run()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		code, err = exit.ExitCode(), nil
	}
	require.NoError(t, err)
	return out.Bytes(), errs.Bytes(), code
}

// trusting lets the test's own key assume the reader roles.
const trusting = "--trust-principal=arn:aws:iam::123456789012:root"

// bootstrap sets up what a cluster has one of.
func bootstrap(t *testing.T, cw *node.CloudWatch) provisioned {
	t.Helper()
	said, code := provision(t, cw, "bootstrap", "--writer-principal=arn:aws:iam::123456789012:root")
	require.Zero(t, code, "%+v", said)
	return said
}

// changing counts the calls that changed something.
func changing(s *fakeaws.Server) (n int) {
	for k, v := range s.Calls() {
		op := k.Operation[strings.Index(k.Operation, ":")+1:]
		read := false
		for _, prefix := range []string{"Get", "List", "Describe", "AssumeRole", "Filter"} {
			read = read || strings.HasPrefix(op, prefix)
		}
		if !read && k.Result == "OK" {
			n += v
		}
	}
	return n
}
