package nodetest

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/yaml"

	"github.com/eks-tenant-logs/eks-tenant-logs/e2e/realnode"
)

// A pod's files are rotated away faster than they are read: Fluent Bit stands still for longer than the kubelet keeps them. What is lost is counted for the
// container, and the alert's expression says so; what the kubelet still had arrives.
func TestFilesThatAreRotatedAwayUnreadAreCountedAndAlerted(t *testing.T) {
	long(t)
	c := onFluentBit(t)
	released(t, c)
	n := c.Nodes[0]
	ctx := within(t, 5*time.Minute)
	w := realnode.Writer{Tenant: "outrun", Name: "outrun", Node: n.Name, Rate: float64(size(t, "E2E_RATE", 5000)), Size: 200}
	calm := realnode.Writer{Tenant: "outrun", Name: "calm", Node: n.Name, Rate: 100}
	tenant(t, c, w.Tenant)
	for _, w := range []realnode.Writer{w, calm} {
		require.NoError(t, c.StartWriter(ctx, w))
		require.NoError(t, c.Until(ctx, "its first lines arrive", func() (bool, error) { return c.Lines.Arrived(w.Name) > 0, nil }))
	}
	agent := onFirstNode(t, c, agents(t, c))
	before := rotatedFiles(ctx, t, c, agent, w)
	require.Zero(t, before["lost"])
	files, err := c.WatchRotations(w)
	require.NoError(t, err)
	require.NoError(t, n.Signal(ctx, realnode.ContainerID(agent), fluentBit, "STOP"))
	stopped := time.Now()
	time.Sleep(time.Duration(size(t, "E2E_STOPPED", 7)) * rotationInterval)
	require.NoError(t, n.Signal(ctx, realnode.ContainerID(agent), fluentBit, "CONT"))
	t.Logf("Fluent Bit stood still for %.1f s", time.Since(stopped).Seconds())
	time.Sleep(10 * time.Second)
	var written [2]int
	for i, w := range []realnode.Writer{w, calm} {
		written[i], err = c.StopWriter(ctx, w)
		require.NoError(t, err)
	}
	count := c.Lines.Settle(ctx, w.Name, written[0], 20*time.Second)
	during := 0
	for _, at := range files.Stop() {
		if at.After(stopped) {
			during++
		}
	}
	judge(t, c, calm, written[1], once) // its file is not rotated
	after := rotatedFiles(ctx, t, c, agent, w)
	t.Logf("%s: %s; %d rotations since; counted: %v", w.Name, count, during, after)
	require.NotZero(t, count.Lost, "the kubelet removed files that nobody had read")
	assert.Zero(t, count.Twice, "twice")
	assert.NotZero(t, after["lost"], "what is lost is counted")
	assert.LessOrEqual(t, count.Lost*w.Size, int(after["lost"])*12<<20, "a file of 3 s has no more")
	assert.Zero(t, rotatedFiles(ctx, t, c, agent, calm)["lost"], "the other container lost none")
	require.Equal(t, agent.UID, onFirstNode(t, c, agents(t, c)).UID)
	fires(t, after["lost"], w)
}

// fluentBit is what the kernel calls Fluent Bit's process.
const fluentBit = "fluent-bit"

var rotatedSample = regexp.MustCompile(`(?m)^tenantlogs_rotated_files_total\{(.*)\} (\S+)$`)

// rotatedFiles are the counts of a writer's container, by result.
func rotatedFiles(ctx context.Context, t *testing.T, c *realnode.Cluster, agent corev1.Pod, w realnode.Writer) map[string]float64 {
	t.Helper()
	text, err := c.Metrics(ctx, agent)
	require.NoError(t, err)
	counts := map[string]float64{}
	for _, m := range rotatedSample.FindAllStringSubmatch(text, -1) {
		if !strings.Contains(m[1], fmt.Sprintf("source_pod=%q", w.Name)) || !strings.Contains(m[1], `source_container="writer"`) {
			continue
		}
		value, err := strconv.ParseFloat(m[2], 64)
		require.NoError(t, err)
		for _, result := range []string{"lost", "caught_up"} {
			if strings.Contains(m[1], fmt.Sprintf("result=%q", result)) {
				counts[result] += value
			}
		}
	}
	return counts
}

// fires has Prometheus' own tool evaluate the alert's expression on the series that was counted: none for 20 minutes, then lost files.
func fires(t *testing.T, lost float64, w realnode.Writer) {
	t.Helper()
	text, err := os.ReadFile("../../charts/eks-tenant-logs/files/alerts.yaml")
	require.NoError(t, err)
	var rules struct {
		Groups []struct {
			Rules []struct{ Alert, Expr string } `json:"rules"`
		} `json:"groups"`
	}
	require.NoError(t, yaml.Unmarshal(text, &rules))
	expr := ""
	for _, g := range rules.Groups {
		for _, r := range g.Rules {
			if r.Alert == "TenantLogsFilesLost" {
				expr = r.Expr
			}
		}
	}
	require.NotEmpty(t, expr)
	labels := fmt.Sprintf(`cluster="real-node", node="node-1", source_container="writer", source_namespace=%q, source_pod=%q`, w.Namespace(), w.Name)
	type sample map[string]any
	check, err := yaml.Marshal(sample{"evaluation_interval": "1m", "tests": []sample{{
		"interval":     "1m",
		"input_series": []sample{{"series": `tenantlogs_rotated_files_total{` + labels + `, result="lost"}`, "values": fmt.Sprintf("_x20 %gx20", lost)}},
		"promql_expr_test": []sample{
			{"expr": expr, "eval_time": "19m", "exp_samples": []sample{}},
			{"expr": expr, "eval_time": "22m", "exp_samples": []sample{{"labels": "{" + labels + "}", "value": lost}}},
		},
	}}})
	require.NoError(t, err)
	file := filepath.Join(t.TempDir(), "test.yaml")
	require.NoError(t, os.WriteFile(file, check, 0o600))
	out, err := exec.CommandContext(within(t, time.Minute), "../../build/tools/promtool", "test", "rules", file).CombinedOutput()
	require.NoError(t, err, "%s\n%s", out, check)
}
