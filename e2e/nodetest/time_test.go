package nodetest

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/eks-tenant-logs/eks-tenant-logs/e2e/realnode"
)

// The times of a container's lines jump, as where the node's clock was set: back by seconds, hours, and days more than CloudWatch takes. The runtime
// stamps lines by the machine's clock, which no test sets, so the file is written in its place, beside those of a pod that runs.
func TestLinesWhoseTimeJumpsBackArriveOnce(t *testing.T) {
	c := onFluentBit(t)
	released(t, c)
	ctx := within(t, 3*time.Minute)
	pod := realnode.Writer{Tenant: "clock", Name: "clock", Node: c.Nodes[0].Name, Lines: 1, Stay: true}
	tenant(t, c, pod.Tenant)
	require.NoError(t, c.StartWriter(ctx, pod))
	require.NoError(t, c.Until(ctx, "its line arrives", func() (bool, error) { return c.Lines.Arrived(pod.Name) > 0, nil }))
	dirs, err := filepath.Glob(filepath.Join(c.Nodes[0].PodLogs(), pod.Namespace()+"_"+pod.Name+"_*"))
	require.NoError(t, err)
	require.Len(t, dirs, 1)
	dir := filepath.Join(dirs[0], "jumping")
	require.NoError(t, os.Mkdir(dir, 0o755))
	file, err := os.Create(filepath.Join(dir, "0.log"))
	require.NoError(t, err)
	defer file.Close()

	const day = 24 * time.Hour
	w := realnode.Writer{Tenant: pod.Tenant, Name: "jumping"}
	lines := 0
	for range 3 {
		// What CloudWatch takes is from 14 days ago to two hours ahead. A call's events may be 24 hours apart.
		for _, jump := range []time.Duration{0, -2 * time.Second, -time.Hour, time.Hour, -3 * day, -13 * day, -20 * day, -400 * day, 3 * time.Hour, 0} {
			var text bytes.Buffer
			at := time.Now().Add(jump)
			for i := range 200 {
				// Within a part, too, each tenth line is a minute older than the one before it.
				stamp := at.Add(time.Duration(i)*time.Millisecond - time.Duration(i%10/9)*time.Minute)
				fmt.Fprintf(&text, "%s stdout F #%s %d %s #%d\n", stamp.UTC().Format("2006-01-02T15:04:05.000000000Z"), w.Name, lines, strings.Repeat("x", 60), lines)
				lines++
			}
			_, err := file.Write(text.Bytes())
			require.NoError(t, err)
		}
	}
	judge(t, c, w, lines, once)
}
