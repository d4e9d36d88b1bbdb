package realnode

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestTheDockerfilesLastStagesStandOnWhatIsBuiltHere(t *testing.T) {
	dockerfile, err := os.ReadFile("../../Dockerfile")
	require.NoError(t, err)
	text, used, err := lastStages(string(dockerfile), "fluent-bit", "provisioner")
	require.NoError(t, err, "what the Dockerfile copies must be in stages")
	require.NotEmpty(t, used)
	require.NotContains(t, text, "--from=")
	require.NotContains(t, text, "GO_IMAGE} AS")
	require.Contains(t, text, "COPY --chmod=0555 plugin/out/out_cloudwatch_tenants.so /fluent-bit/plugins/out_cloudwatch_tenants.so\n")

	_, _, err = lastStages("FROM x AS fluent-bit\nCOPY --from=other /out/x /x\n", "fluent-bit")
	require.ErrorContains(t, err, "stage other")
}

func TestATallySaysWhichLinesAreLostAndWhichCameTwice(t *testing.T) {
	tally := newTally()
	for _, n := range []int{0, 1, 4, 4, 4, 6} {
		tally.observe("/eks/tenants/a", "s", fmt.Appendf(nil, `{"log":"#w %d xxx #%d"}`, n, n))
	}
	tally.observe("/eks/platform", "s", []byte(`{"log":"#w 7 xx"}`))
	tally.observe("/eks/platform", "s", []byte(`{"log":"xxx #7"}`))
	tally.observe("/eks/none", "s", []byte(`{"log":"#w 1"}`)) // of 12
	tally.observe("/eks/platform", "s", []byte(`{"log":"no number"}`))
	tally.observe("/eks/tenants/a", "s", []byte(`{"log":"w 9 xxx #9"}`)) // the end of a line whose beginning did not arrive
	count := tally.Between("w", 0, 10)
	require.Equal(t, "10 lines, 5 lost, 2 twice, 1 cut; lost: 2-3(2) 5-5(1) 8-9(2); twice: 4-4(1)", count.String())
	require.Equal(t, []string{"/eks/platform"}, count.Others("/eks/tenants/a"))
	require.Equal(t, 5, tally.Arrived("w"))
	require.Equal(t, 1, tally.Ends("/eks/platform"))
	require.Equal(t, 7, tally.Highest("w"))
	require.Equal(t, 10, tally.Between("none", 0, 10).Lost)
	require.Equal(t, 5, tally.Settle(t.Context(), "w", 10, time.Millisecond).Lost)
	tally.observe("/eks/tenants/a", "s", []byte(`{"log":"#"}`))
	count = tally.Between("w", 0, 10)
	require.Equal(t, "10 lines, 4 lost, 2 twice, 2 cut; lost: 2-3(2) 5-5(1) 8-8(1); twice: 4-4(1)", count.String())
	tally.observe("/eks/tenants/a", "s", []byte(`{"log":"#w 2 x#w 3 xxx #3"}`))
	require.Equal(t, "10 lines, 3 lost, 2 twice, 3 cut, 1 glued; lost: 3-3(1) 5-5(1) 8-8(1); twice: 4-4(1)", tally.Between("w", 0, 10).String())
}

// machines makes the machines of a cluster with one node, without Kubernetes on them.
func machines(t *testing.T, ctx context.Context) *Cluster {
	t.Helper()
	if wanted := os.Getenv("NODE_E2E"); wanted == "" || wanted == "off" {
		t.Skip("NODE_E2E is not set: `make node-e2e` runs what needs a real node")
	}
	if err := Check(ctx); err != nil && os.Getenv("NODE_E2E") == "auto" {
		t.Skip("NOT tested here: ", err)
	} else {
		require.NoError(t, err)
	}
	dir, lock, err := newFolder()
	require.NoError(t, err)
	c := &Cluster{Dir: dir, lock: lock}
	c.options, err = Options{}.withDefaults()
	require.NoError(t, err)
	c.parts, err = findParts(c.options.Root)
	require.NoError(t, err)
	c.plane, err = c.startMachine(ctx, planeConfig(c))
	require.NoError(t, err)
	n := c.newNode(1)
	_, err = n.bootMachine(ctx)
	require.NoError(t, err)
	c.Nodes = append(c.Nodes, n)
	return c
}

func TestAMachineHasANetworkMountsAndProcessesOfItsOwn(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	before, err := os.ReadFile("/proc/sys/vm/overcommit_memory")
	require.NoError(t, err)
	c := machines(t, ctx)
	defer func() { require.NoError(t, c.Stop()) }()
	n := c.Nodes[0]
	out, err := n.Exec(ctx, "sh", "-c", "hostname; echo $$; echo 7 >/proc/sys/vm/overcommit_memory; cat /proc/sys/vm/overcommit_memory; touch /var/log/mine; ip -o -4 address show eth0")
	require.NoError(t, err)
	words := strings.Fields(out)
	require.Equal(t, "node-1", words[0])
	pid, err := strconv.Atoi(words[1])
	require.NoError(t, err)
	require.Less(t, pid, 1000)
	require.Equal(t, "7", words[2])
	require.Contains(t, out, nodeAddress(1))
	after, err := os.ReadFile("/proc/sys/vm/overcommit_memory")
	require.NoError(t, err)
	require.Equal(t, string(before), string(after), "the machine around it keeps its own")
	require.NoFileExists(t, "/var/log/mine")
	require.FileExists(t, n.Path("/var/log/mine"))

	// The control plane's machine is its neighbour.
	require.NoError(t, c.plane.call(ctx, "/dns", map[string]any{"Listen": planeAddress + ":53", "Names": map[string]string{".amazonaws.com": planeAddress}}, nil))
	require.NoError(t, n.machine.try(ctx, "bash", "-c", "exec 3<>/dev/tcp/"+planeAddress+"/53"))

	// A loss of power ends what runs there, and keeps the disk.
	require.NoError(t, n.machine.start(ctx, "sleeper", n.logFile("sleeper"), "sleep", "1000"))
	running, _ := n.machine.running(ctx, "sleeper")
	require.True(t, running)
	require.NoError(t, n.Kill(ctx))
	_, err = n.bootMachine(ctx)
	require.NoError(t, err)
	out, err = n.Exec(ctx, "sh", "-c", "ls /var/log/mine; ps ax")
	require.NoError(t, err)
	require.NotContains(t, out, "sleep 1000")
}

// TestHelperOfAKill is a process that has a cluster and is killed; the test after it starts it.
func TestHelperOfAKill(t *testing.T) {
	if os.Getenv("E2E_REALNODE_HELPER") == "" {
		t.Skip("a helper")
	}
	c := machines(t, t.Context())
	require.NoError(t, c.Nodes[0].machine.start(t.Context(), "sleeper", c.Nodes[0].logFile("sleeper"), "sleep", "1000"))
	fmt.Printf("helper %s %d\n", c.Dir, c.plane.cmd.Process.Pid)
	select {}
}

func TestNothingIsLeftBehindAfterAKill(t *testing.T) {
	if wanted := os.Getenv("NODE_E2E"); wanted == "" || wanted == "off" {
		t.Skip("NODE_E2E is not set: `make node-e2e` runs what needs a real node")
	}
	if err := Check(t.Context()); err != nil && os.Getenv("NODE_E2E") == "auto" {
		t.Skip("NOT tested here: ", err)
	}
	helper := func() (cmd *exec.Cmd, dir string, plane int) {
		cmd = exec.Command(os.Args[0], "-test.run=^TestHelperOfAKill$", "-test.v")
		cmd.Env = append(os.Environ(), "E2E_REALNODE_HELPER=1")
		out, err := cmd.StdoutPipe()
		require.NoError(t, err)
		require.NoError(t, cmd.Start())
		for lines := bufio.NewScanner(out); lines.Scan(); {
			if n, _ := fmt.Sscanf(lines.Text(), "helper %s %d", &dir, &plane); n == 2 {
				return cmd, dir, plane
			}
		}
		t.Fatal("the helper ended")
		return nil, "", 0
	}
	left := func(dir string) (all []string) {
		groups, err := leftCgroups()
		require.NoError(t, err)
		for _, g := range groups {
			if strings.Contains(g, filepath.Base(dir)) {
				all = append(all, g)
			}
		}
		if _, err := os.Stat(dir); err == nil {
			all = append(all, dir)
		}
		processes, err := filepath.Glob("/proc/[0-9]*/cgroup")
		require.NoError(t, err)
		for _, p := range processes {
			if text, err := os.ReadFile(p); err == nil && strings.Contains(string(text), filepath.Base(dir)) {
				all = append(all, p)
			}
		}
		return all
	}

	// The process that has the cluster: the control plane's machine cleans up.
	cmd, dir, _ := helper()
	require.NotEmpty(t, left(dir))
	require.NoError(t, cmd.Process.Kill())
	require.Error(t, cmd.Wait())
	require.Eventually(t, func() bool { return len(left(dir)) == 0 }, 30*time.Second, 100*time.Millisecond, "%v", left(dir))

	// Both: the kernel ends the processes, the next start removes the rest.
	cmd, dir, plane := helper()
	require.NoError(t, syscall.Kill(plane, syscall.SIGKILL))
	require.NoError(t, cmd.Process.Kill())
	require.Error(t, cmd.Wait())
	require.Eventually(t, func() bool { return Sweep() == nil && len(left(dir)) == 0 }, 30*time.Second, 100*time.Millisecond, "%v", left(dir))
}
