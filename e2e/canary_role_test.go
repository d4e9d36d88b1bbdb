package e2e

import (
	"bytes"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/cloudwatchlogs"
	"github.com/stretchr/testify/require"

	"github.com/eks-tenant-logs/eks-tenant-logs/e2e/node"
	"github.com/eks-tenant-logs/eks-tenant-logs/internal/fakeaws"
)

// shipper stands for the agent: the canary's line goes into a group.
type shipper struct {
	t     *testing.T
	cw    *node.CloudWatch
	group string
	said  bytes.Buffer
}

func (s *shipper) Write(b []byte) (int, error) {
	if line := string(b); strings.HasPrefix(line, "canary of eks-tenant-logs") {
		stream := "tenant-canary/p/canary-" + line[len(line)-9:len(line)-1]
		if err := putLine(s.t.Context(), s.cw, s.group, stream, line); err != nil {
			s.t.Error(err)
		}
	}
	return s.said.Write(b)
}

// With the role that bootstrap makes for it, in an account that enforces its policies, the canary
// looks into the groups it is about, and into no other tenant's.
func TestTheCanarysRoleIsEnoughForTheCanaryAndForNothingElse(t *testing.T) {
	cw, _ := standIn(t, fakeaws.Config{Enforce: true})
	made, code := provision(t, cw, "bootstrap", "--canary=canary", "--canary-principal=arn:aws:iam::123456789012:root")
	require.Zero(t, code, "%+v", made)
	role := made.Roles["canary"]
	require.NotEmpty(t, role)
	for _, group := range []string{"/eks/tenants/canary", "/eks/quarantine/canary", "/eks/tenants/acme"} {
		require.NoError(t, ignoring(cw.API().CreateLogGroup(t.Context(), &cloudwatchlogs.CreateLogGroupInput{LogGroupName: &group})))
	}
	run := func(more ...string) (string, int) {
		out := &shipper{t: t, cw: cw, group: "/eks/tenants/canary"}
		cmd := exec.CommandContext(within(t, time.Minute), builtCommand(t), append([]string{"canary", "canary", "--region", cw.Region, "--endpoint", cw.Endpoint, "--sts-endpoint", cw.Endpoint, "--role-arn", role, "--wait", "10s"}, more...)...) //nolint:gosec // the test's own
		cmd.Env = append(os.Environ(), cw.Env()...)
		cmd.Stdout, cmd.Stderr = out, out
		_ = cmd.Run() // its exit code is what is asked
		return out.said.String(), cmd.ProcessState.ExitCode()
	}
	said, code := run()
	require.Zero(t, code, said)
	for _, group := range []string{"in /eks/tenants/canary", "not in /eks/platform", "not in /eks/quarantine/canary"} {
		require.Contains(t, said, group)
	}
	said, code = run("--elsewhere", "/eks/tenants/acme")
	require.Equal(t, 2, code, said)
	require.Contains(t, said, "/eks/tenants/acme could not be looked into: give the canary's role logs:FilterLogEvents on it")
}
