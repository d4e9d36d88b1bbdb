// Package nodetest holds the promises on a real Kubernetes node (e2e/realnode): kubelet, containerd and the chart as a user installs it. Each line
// is numbered. `make node-e2e` runs it, as root; docs/node.md says what it needs.
package nodetest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/eks-tenant-logs/eks-tenant-logs/e2e/realnode"
	"github.com/eks-tenant-logs/eks-tenant-logs/internal/fakeaws"
)

// shared is the cluster of all tests, started by the first that needs it.
var shared struct {
	once sync.Once
	c    *realnode.Cluster
	err  error
	// released is true while the chart is installed with the values of released.
	released bool
}

// unable is why this machine has no node; TestMain looks.
var unable error

func TestMain(m *testing.M) {
	os.Exit(func() int {
		wanted := os.Getenv("NODE_E2E")
		switch wanted {
		case "", "off":
			unable = errors.New("NODE_E2E is not set: `make node-e2e` runs what needs a real node")
		case "auto", "required":
			ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
			unable = realnode.Check(ctx)
			cancel()
			if unable != nil && wanted == "required" {
				fmt.Fprintln(os.Stderr, "NODE_E2E=required, and this machine can't have a node:", unable)
				return 1
			}
			if unable != nil {
				fmt.Println("NOT run here, what needs a real node:", unable)
				return 0
			}
		default:
			fmt.Fprintf(os.Stderr, "NODE_E2E is %q: required, auto or off\n", wanted)
			return 1
		}
		code := m.Run()
		if shared.c != nil {
			if err := shared.c.Stop(); err != nil {
				fmt.Fprintln(os.Stderr, "ending the cluster:", err)
				return max(code, 1)
			}
		}
		return code
	}())
}

// rotationInterval is how often the kubelet looks whether a file is to be rotated.
const rotationInterval = 3 * time.Second

// aCluster is the shared cluster: it rotates logs of 1 MiB, each 3 s, the shortest time that the kubelet takes, and keeps 3 files.
func aCluster(t *testing.T) *realnode.Cluster {
	t.Helper()
	if unable != nil {
		t.Skip(unable)
	}
	shared.once.Do(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Minute)
		defer cancel()
		began := time.Now()
		shared.c, shared.err = realnode.Start(ctx, realnode.Options{
			Nodes: size(t, "E2E_NODES", 1), LogMaxSize: "1Mi", LogMaxFiles: 3, LogMonitorInterval: rotationInterval,
			AWS: fakeaws.Config{Enforce: true},
			Log: func(format string, args ...any) { fmt.Printf("node: "+format+"\n", args...) },
		})
		if shared.err == nil {
			fmt.Printf("node: Ready %.1f s after the start; in the agent's image: %s\n", time.Since(began).Seconds(), shared.c.Images)
		}
	})
	require.NoError(t, shared.err)
	return shared.c
}

// onFluentBit leaves a test out where the agent is the project's own host of plugins.
func onFluentBit(t *testing.T) *realnode.Cluster {
	t.Helper()
	c := aCluster(t)
	if c.Images.Missing != nil {
		t.Skip("NOT tested here:", c.Images.Missing)
	}
	return c
}

// long leaves a test out of the short form, which .ci/node runs with each change: that is to take six minutes.
func long(t *testing.T) {
	t.Helper()
	if os.Getenv("E2E_SHORT") != "" {
		t.Skip("NOT tested here: E2E_SHORT is set, and this is of the long form")
	}
}

// released is the chart's release with no values beyond what it needs. It is installed once, and left to the tests after.
func released(t *testing.T, c *realnode.Cluster) {
	t.Helper()
	if !shared.released {
		install(t, c, nil)
		shared.released = true
	}
	t.Cleanup(func() { describe(t, c) })
}

// installed is the chart's release with values of the test's; it goes when the test ends.
func installed(t *testing.T, c *realnode.Cluster, over realnode.Values) {
	t.Helper()
	removed(t, c)
	install(t, c, over)
	uninstalledLater(t, c)
}

// removed uninstalls what released has left.
func removed(t *testing.T, c *realnode.Cluster) {
	t.Helper()
	if shared.released {
		require.NoError(t, c.Uninstall(within(t, 4*time.Minute)))
		shared.released = false
	}
}

// uninstalledLater uninstalls the release when the test ends.
func uninstalledLater(t *testing.T, c *realnode.Cluster) {
	t.Helper()
	t.Cleanup(func() {
		describe(t, c)
		ctx, cancel := context.WithTimeout(context.Background(), 4*time.Minute)
		defer cancel()
		require.NoError(t, c.Uninstall(ctx))
	})
}

func install(t *testing.T, c *realnode.Cluster, over realnode.Values) {
	t.Helper()
	began := time.Now()
	require.NoError(t, c.Install(within(t, 4*time.Minute), over))
	t.Logf("helm install --wait: %.1f s", time.Since(began).Seconds())
}

// describe says how the release's pods are, where the test failed.
func describe(t *testing.T, c *realnode.Cluster) {
	t.Helper()
	if t.Failed() {
		t.Logf("the release's pods:\n%s", c.Describe(context.Background(), realnode.ReleaseNamespace))
	}
}

// tenant makes a tenant, whose namespace goes when the test ends, before the release does.
func tenant(t *testing.T, c *realnode.Cluster, name string) {
	t.Helper()
	require.NoError(t, c.Tenant(within(t, time.Minute), name))
	t.Cleanup(func() {
		require.NoError(t, c.DeleteTenant(context.Background(), name))
	})
}

// within bounds what waits.
func within(t *testing.T, d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), d)
	t.Cleanup(cancel)
	return ctx
}

// size is a number from the environment, so that the long forms are the same tests.
func size(t *testing.T, name string, otherwise int) int {
	t.Helper()
	text := os.Getenv(name)
	if text == "" {
		return otherwise
	}
	n, err := strconv.Atoi(text)
	require.NoError(t, err, name)
	return n
}
