// Package e2e holds the promises of the design, one file each, run through the real
// .so: in the project's own host of Fluent Bit plugins, or, with
// E2E_ENGINE=fluent-bit, in a real Fluent Bit.
package e2e

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/eks-tenant-logs/eks-tenant-logs/e2e/environment"
	"github.com/eks-tenant-logs/eks-tenant-logs/e2e/host"
	"github.com/eks-tenant-logs/eks-tenant-logs/e2e/node"
	"github.com/eks-tenant-logs/eks-tenant-logs/internal/fakeaws"
)

var built struct {
	once                sync.Once
	dir, plugin, loader string
	err                 error
}

func TestMain(m *testing.M) {
	code := m.Run()
	for _, dir := range []string{built.dir, command.dir} {
		if dir != "" {
			os.RemoveAll(dir)
		}
	}
	stopClusters()
	os.Exit(code)
}

// build compiles the plugin and the host's loader, once a run. The plugin is
// compiled with the race detector when this test is.
func build(t *testing.T) {
	t.Helper()
	built.once.Do(func() {
		if built.dir, built.err = os.MkdirTemp("", "e2e-"); built.err != nil {
			return
		}
		// One that was built elsewhere: an image's.
		if given := os.Getenv("E2E_PLUGIN"); given != "" {
			built.plugin = given
			built.loader, built.err = host.Build(context.Background(), built.dir)
			return
		}
		built.plugin = filepath.Join(built.dir, "out_cloudwatch_tenants.so")
		args := []string{"build", "-buildmode=c-shared", "-o", built.plugin}
		if raceEnabled && fluentBitWanted() == "" {
			args = append(args, "-race")
		}
		cmd := exec.Command("go", append(args, "github.com/eks-tenant-logs/eks-tenant-logs/plugin")...)
		cmd.Env = append(environment.Machine(), "CGO_ENABLED=1")
		if out, err := cmd.CombinedOutput(); err != nil {
			built.err = fmt.Errorf("failed to build the plugin: %w\n%s", err, out)
			return
		}
		built.loader, built.err = host.Build(context.Background(), built.dir)
	})
	require.NoError(t, built.err)
}

func pluginPath(t *testing.T) string {
	t.Helper()
	build(t)
	return built.plugin
}

// fluentBitWanted is the Fluent Bit to use, if E2E_ENGINE asks for one.
func fluentBitWanted() string {
	if os.Getenv("E2E_ENGINE") != "fluent-bit" {
		return ""
	}
	bin, _ := node.FindFluentBit(context.Background()) // engines says why there is none
	return bin
}

// engines are what the promises are tested through.
func engines(t *testing.T) []node.Engine {
	t.Helper()
	build(t)
	if os.Getenv("E2E_ENGINE") != "fluent-bit" {
		return []node.Engine{node.Host{Loader: built.loader}}
	}
	bin, err := node.FindFluentBit(t.Context())
	require.NoError(t, err, "E2E_ENGINE=fluent-bit")
	return []node.Engine{node.FluentBit{Binary: bin}}
}

// onEngines runs a test on each engine.
func onEngines(t *testing.T, test func(t *testing.T, e node.Engine)) {
	for _, e := range engines(t) {
		t.Run(e.Name(), func(t *testing.T) { test(t, e) })
	}
}

// standIn is a CloudWatch Logs of this test's own.
func standIn(t *testing.T, cfg fakeaws.Config) (*node.CloudWatch, *fakeaws.Server) {
	t.Helper()
	cw, s, err := node.StartStandIn(t.TempDir(), cfg)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, s.Close()) })
	return cw, s
}

func newNode(t *testing.T) *node.Node {
	// Not t.TempDir: the path goes into tail's Path and into tag_prefix, which are
	// lists, and the names of tests have commas.
	dir, err := os.MkdirTemp("", "node-")
	require.NoError(t, err)
	t.Cleanup(func() { os.RemoveAll(dir) })
	return node.New(dir, time.Now().Add(-time.Minute))
}

// within bounds a test that waits for events.
func within(t *testing.T, d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), d)
	t.Cleanup(cancel)
	return ctx
}

// logBuffer collects an engine's log, and shows it when the test fails.
type logBuffer struct {
	mu sync.Mutex
	b  strings.Builder
}

func newLog(t *testing.T) *logBuffer {
	l := &logBuffer{}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("the engine's log:\n%s", l)
		}
	})
	return l
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// options are the least an [OUTPUT] needs to reach the stand-in, and more.
func options(cw *node.CloudWatch, more ...string) map[string]string {
	o := map[string]string{"region": cw.Region, "endpoint": cw.Endpoint, "retention_check_delay": "0s"}
	for i := 0; i < len(more); i += 2 {
		o[more[i]] = more[i+1]
	}
	return o
}

// arrived says whether n events have been accepted.
func arrived(s *fakeaws.Server, n int) func() bool {
	return func() bool { return s.Accepted() >= n }
}

// metric is the sum of a metric's values at /metrics; empty where there is none.
func metric(address, name string) string {
	sum, found := node.Metrics(address)[name]
	if !found {
		return ""
	}
	return strconv.FormatFloat(sum, 'f', -1, 64)
}
