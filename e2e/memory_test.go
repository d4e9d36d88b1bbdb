package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	appsv1 "k8s.io/api/apps/v1"

	"github.com/eks-tenant-logs/eks-tenant-logs/e2e/node"
	"github.com/eks-tenant-logs/eks-tenant-logs/internal/fakeaws"
)

// The lines that cost the most memory: long ones, so that chunks are as large as they get, of bytes
// that JSON writes as six each. They come faster than CloudWatch takes them, and for some seconds it
// takes nothing. The chart's request holds its own number of workers, its limit four times as many.
func TestTheChartsMemoryHoldsTheWorstLines(t *testing.T) {
	e := onFluentBit(t)
	var ds appsv1.DaemonSet
	rendered(t, "DaemonSet", "-fluent-bit", &ds)
	resources := ds.Spec.Template.Spec.Containers[0].Resources
	for workers, limit := range map[string]int64{
		"4":  resources.Requests.Memory().Value(),
		"16": resources.Limits.Memory().Value(),
	} {
		t.Run(workers+" workers", func(t *testing.T) {
			m, err := node.NewMemory(int(limit))
			if err != nil {
				t.Skipf("needs the right to make a memory cgroup (%v); NOT tested here", err)
			}
			t.Cleanup(func() { require.NoError(t, m.Remove()) })
			cw, s, g := gate(t, fakeaws.Config{Latency: 20 * time.Millisecond, DiscardMessages: true})
			n := newNode(t)
			tenants := filepath.Join(t.TempDir(), "tenants.yaml")
			require.NoError(t, os.WriteFile(tenants, []byte("version: 1\n"), 0o600))
			a := newAgent(t, e, cw, n, stateFolder(t), tenants, nil, "--set", "fluentBit.config.workers="+workers)
			a.args = m.Command(a.args...)
			stop := make(chan struct{})
			var writing sync.WaitGroup
			writing.Go(func() {
				line := node.Line{Time: time.Now(), Text: strings.Repeat("\x01", 300_000)}
				for i := 0; ; i++ {
					select {
					case <-stop:
						return
					case <-time.After(10 * time.Millisecond):
					}
					if err := n.WriteLines(node.Pod{Namespace: fmt.Sprint("tenant-t", i%20), Name: fmt.Sprint("pod-", i%60), Container: "c"}, line); err != nil {
						t.Error(err)
						return
					}
				}
			})
			defer func() { close(stop); writing.Wait() }()
			cmd, log := a.start(t)
			peak := 0
			for _, way := range []node.Way{node.Open, node.Silent, node.Open} {
				require.NoError(t, g.Set(way))
				for from := time.Now(); time.Since(from) < 7*time.Second; time.Sleep(50 * time.Millisecond) {
					peak = max(peak, m.Anonymous())
				}
			}
			t.Logf("%s workers: at most %d MB that can't be freed, of %d MB; %d events accepted", workers, peak>>20, limit>>20, s.Accepted())
			require.Zero(t, m.Kills(), "%s", log)
			require.NoError(t, cmd.Process.Kill()) // it would deliver for minutes
			_ = cmd.Wait()
		})
	}
}
