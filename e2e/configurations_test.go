package e2e

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/eks-tenant-logs/eks-tenant-logs/e2e/host"
	"github.com/eks-tenant-logs/eks-tenant-logs/e2e/node"
	"github.com/eks-tenant-logs/eks-tenant-logs/internal/fakeaws"
)

// The promises hold in every configuration Fluent Bit can be run in.

// onFluentBit is for what our own host has not: it needs E2E_ENGINE=fluent-bit.
func onFluentBit(t *testing.T) node.Engine {
	t.Helper()
	e, ok := engines(t)[0].(node.FluentBit)
	if !ok {
		t.Skip("needs a real Fluent Bit (make e2e); NOT tested here")
	}
	return e
}

func TestConfigurationsWithAnyNumberOfWorkers(t *testing.T) {
	onEngines(t, func(t *testing.T, e node.Engine) {
		for _, workers := range []int{-1, 1, 2, 4, 8, 16} {
			t.Run(fmt.Sprint(workers), func(t *testing.T) {
				cw, s := standIn(t, fakeaws.Config{})
				n := newNode(t)
				want := writeNumbered(t, n, 20, 200)
				log := newLog(t)
				require.NoError(t, e.Ship(within(t, time.Minute), node.Run{
					Node: n, Plugin: pluginPath(t), Env: cw.Env(), Log: log, Options: options(cw), Workers: workers, Until: arrived(s, len(want)),
				}))
				require.Equal(t, want, numbers(t, s))
				require.Equal(t, workers < 0, strings.Contains(log.String(), "no workers are configured"))
			})
		}
	})
}

func TestConfigurationInYAML(t *testing.T) {
	e := onFluentBit(t)
	cw, s := standIn(t, fakeaws.Config{})
	n := newNode(t)
	want := writeNumbered(t, n, 6, 100)
	require.NoError(t, e.Ship(within(t, time.Minute), node.Run{
		Node: n, Plugin: pluginPath(t), Env: cw.Env(), Log: newLog(t), YAML: true,
		Options: options(cw, "log_stream_template", "$(node)/$(namespace)/$(pod)/$(container)"), Until: arrived(s, len(want)),
	}))
	require.Equal(t, want, numbers(t, s))
	require.Len(t, s.Events("/eks/tenants/t0", "node-1/tenant-t0/pod-0/c"), 100)
}

// Several outputs in one process: each with its own groups, one listener for all.
func TestConfigurationWithSeveralOutputsAndOneListener(t *testing.T) {
	onEngines(t, func(t *testing.T, e node.Engine) {
		cw, s := standIn(t, fakeaws.Config{})
		n := newNode(t)
		want := writeNumbered(t, n, 6, 100)
		address, err := node.FreeAddress()
		require.NoError(t, err)
		outputs := make([]map[string]string, 3)
		for i := range outputs {
			outputs[i] = options(cw, "metrics_listen", address, "platform_log_group", fmt.Sprintf("/o%d/platform", i),
				"log_group_prefix", fmt.Sprintf("/o%d/tenants/", i), "quarantine_log_group_prefix", fmt.Sprintf("/o%d/quarantine/", i))
		}
		var metrics, health string
		all := arrived(s, 3*len(want))
		require.NoError(t, e.Ship(within(t, time.Minute), node.Run{
			Node: n, Plugin: pluginPath(t), Env: cw.Env(), Log: newLog(t), Options: outputs[0], More: outputs[1:],
			Until: func() bool {
				if !all() {
					return false
				}
				metrics, health = get(t, address, "/metrics"), get(t, address, "/healthz")+get(t, address, "/readyz")
				// What was accepted is counted a moment later, when its flush returns.
				return strings.Count(metrics, `outcome="delivered"`) >= 2*3*6 && strings.Contains(metrics, `tenant="t5"} 100`)
			},
		}))
		require.Equal(t, "ok\nok\n", health)
		for i := range outputs {
			require.Contains(t, metrics, fmt.Sprintf(`tenantlogs_records_total{outcome="delivered",output="cloudwatch_tenants.%d",tenant="t0"} 100`, i))
			require.Contains(t, metrics, fmt.Sprintf(`tenantlogs_put_requests_total{class="ok",output="cloudwatch_tenants.%d"}`, i))
			for p := range 6 {
				require.Len(t, s.Events(fmt.Sprintf("/o%d/tenants/t%d", i, p), fmt.Sprintf("tenant-t%d/pod-%d/c", p, p)), 100)
			}
		}
		_, err = http.Get("http://" + address + "/healthz")
		require.Error(t, err, "it ends with the process")
	})
}

func get(t *testing.T, address, path string) string {
	r, err := http.Get("http://" + address + path)
	require.NoError(t, err)
	defer r.Body.Close()
	b, err := io.ReadAll(r.Body)
	require.NoError(t, err)
	return string(b)
}

// Fluent Bit is stopped while CloudWatch refuses everything, and started again: what it
// had read is in its storage, and arrives once.
func TestConfigurationWithFilesystemStorageSurvivesRestarts(t *testing.T) {
	e := onFluentBit(t)
	cw, s := standIn(t, fakeaws.Config{})
	n := newNode(t)
	want := writeNumbered(t, n, 10, 500)
	var down atomic.Bool
	var refused atomic.Int32
	down.Store(true)
	s.SetIntercept(func(c fakeaws.Call) error {
		if down.Load() && c.Operation == "PutLogEvents" {
			refused.Add(1)
			return &fakeaws.APIError{Code: "ServiceUnavailableException", Message: "down", Status: 503}
		}
		return nil
	})
	run := node.Run{
		Node: n, Plugin: pluginPath(t), Env: cw.Env(), Log: newLog(t), Options: options(cw, "flush_timeout", "1s"),
		State: t.TempDir(), Grace: 2 * time.Second,
	}
	for restart := range 2 {
		before := refused.Load()
		run.Until = func() bool { return refused.Load() >= before+30 }
		require.NoError(t, e.Ship(within(t, time.Minute), run), "restart %d", restart)
	}
	require.Empty(t, numbers(t, s))
	down.Store(false)
	run.Until = arrived(s, len(want))
	require.NoError(t, e.Ship(within(t, time.Minute), run))
	require.Equal(t, want, numbers(t, s))
}

// Each stream takes one batch and refuses the next, so that chunks are delivered in part
// when Fluent Bit is stopped: with state_path the rest alone is sent after the restart.
func TestConfigurationWithStatePathBringsNothingTwice(t *testing.T) {
	e := onFluentBit(t)
	cw, s := standIn(t, fakeaws.Config{})
	n := newNode(t)
	const pods = 5
	for p := range pods {
		// One line in two events, each a batch of its own. It has to be one record, which tail makes of it.
		require.NoError(t, n.Write(node.Pod{Namespace: fmt.Sprint("tenant-t", p), Name: "p", Container: "c"}, strings.Repeat("long ", 300_000)))
	}
	parts := func() map[string]int {
		got := map[string]int{}
		for p := range pods {
			for _, ev := range s.Events(fmt.Sprint("/eks/tenants/t", p), fmt.Sprintf("tenant-t%d/p/c", p)) {
				var m struct {
					Notes struct{ Part, Parts int } `json:"_tenantlogs"`
				}
				require.NoError(t, json.Unmarshal([]byte(ev.Message), &m))
				got[fmt.Sprintf("%d: %d of %d", p, m.Notes.Part, m.Notes.Parts)]++
			}
		}
		return got
	}
	var down atomic.Bool
	var refused atomic.Int32
	down.Store(true)
	var mu sync.Mutex
	full := map[string]bool{} // streams that took a batch
	s.SetIntercept(func(c fakeaws.Call) error {
		mu.Lock()
		defer mu.Unlock()
		if c.Operation != "PutLogEvents" || !down.Load() || !full[c.LogStream] {
			full[c.LogStream] = full[c.LogStream] || c.Operation == "PutLogEvents" && exists(s, c.LogGroup, c.LogStream)
			return nil
		}
		refused.Add(1)
		return &fakeaws.APIError{Code: "AccessDeniedException", Message: "down"}
	})
	log := newLog(t)
	run := node.Run{
		Node: n, Plugin: pluginPath(t), Env: cw.Env(), Log: log, State: t.TempDir(), Grace: 2 * time.Second, Multiline: true,
		Options: options(cw, "state_path", t.TempDir(), "on_failure", "hold", "max_in_flight", "2"),
	}
	run.Until = func() bool { return refused.Load() >= pods }
	require.NoError(t, e.Ship(within(t, time.Minute), run))
	require.Len(t, parts(), pods)
	down.Store(false)
	run.Until = arrived(s, 2*pods)
	require.NoError(t, e.Ship(within(t, time.Minute), run))
	want := map[string]int{}
	for p := range pods {
		want[fmt.Sprintf("%d: 1 of 2", p)], want[fmt.Sprintf("%d: 2 of 2", p)] = 1, 1
	}
	require.Equal(t, want, parts())
	require.Contains(t, log.String(), "state_path: kept what was delivered of unfinished chunks")
	require.Contains(t, log.String(), "state_path: read what was delivered of unfinished chunks")
}

func exists(s *fakeaws.Server, group, stream string) bool {
	for _, g := range s.Groups() {
		for _, st := range g.Streams {
			if g.Name == group && st.Name == stream {
				return true
			}
		}
	}
	return false
}

// awsCLIs are the AWS CLIs to test with, one of each major version; those that are not there are said.
// $AWSCLI_REQUIRED is a version that must be there.
func awsCLIs(t *testing.T) []node.AWSCLI {
	t.Helper()
	clis, missing := node.AWSCLIs(t.Context())
	for _, major := range missing {
		require.NotEqual(t, os.Getenv("AWSCLI_REQUIRED"), strconv.Itoa(major), "$AWSCLI_REQUIRED: no working AWS CLI of this version")
		t.Run(fmt.Sprint("version ", major), func(t *testing.T) {
			t.Skipf("NOT tested with version %d of the AWS CLI: none in $AWSCLI or on PATH", major)
		})
	}
	return clis
}

// What the plugin wrote is read back with the AWS CLI, so that plugin and stand-in are
// not only of each other's opinion.
func TestConfigurationReadBackWithTheAWSCLI(t *testing.T) {
	clis := awsCLIs(t)
	if len(clis) == 0 {
		t.Skip("no working AWS CLI found; NOT tested here")
	}
	onEngines(t, func(t *testing.T, e node.Engine) {
		cw, s := standIn(t, fakeaws.Config{})
		n := newNode(t)
		want := writeNumbered(t, n, 7, 60)
		ready := func() bool {
			for _, g := range s.Groups() {
				if g.Tags["eks-tenant-logs/state"] != "ready" {
					return false
				}
			}
			return arrived(s, len(want))()
		}
		require.NoError(t, e.Ship(within(t, time.Minute), node.Run{
			Node: n, Plugin: pluginPath(t), Env: cw.Env(), Log: newLog(t), Options: options(cw), Until: ready,
		}))
		for _, cli := range clis {
			t.Run(fmt.Sprint("version ", cli.Major), func(t *testing.T) {
				aws := func(args ...string) []byte {
					t.Helper()
					said, err := cli.Run(t.Context(), cw, t.TempDir(), args...)
					require.NoError(t, err)
					return []byte(said)
				}
				var described struct {
					LogGroups []struct {
						LogGroupName    string
						RetentionInDays int
					}
				}
				require.NoError(t, json.Unmarshal(aws("logs", "describe-log-groups", "--log-group-name-prefix", "/eks/"), &described))
				require.Len(t, described.LogGroups, 7)
				got := map[string]int{}
				for _, g := range described.LogGroups {
					require.Equal(t, 365, g.RetentionInDays, g.LogGroupName)
					var filtered struct {
						Events []struct{ Message, LogStreamName string }
					}
					tenant := strings.TrimPrefix(g.LogGroupName, "/eks/tenants/")
					// A pattern, as a tenant would use it.
					require.NoError(t, json.Unmarshal(aws("logs", "filter-log-events", "--log-group-name", g.LogGroupName,
						"--filter-pattern", fmt.Sprintf(`{ $.kubernetes.namespace_name = "tenant-%s" }`, tenant)), &filtered))
					for _, ev := range filtered.Events {
						var m struct{ Log string }
						require.NoError(t, json.Unmarshal([]byte(ev.Message), &m))
						require.True(t, strings.HasPrefix(ev.LogStreamName, "tenant-"+tenant+"/"), ev.LogStreamName)
						got[m.Log[strings.Index(m.Log, "#"):]]++
					}
				}
				require.Equal(t, want, got)
				if cli.Major >= 2 { // `logs tail` is version 2's
					require.Equal(t, 60, bytes.Count(aws("logs", "tail", "/eks/tenants/t3", "--since", "1h"), []byte("#3.")))
				}
			})
		}
	})
}

// A new version of tenants_file is put in force while running; one that gives a
// namespace to another tenant is not, and its lines go on where they went.
func TestConfigurationOfTenantsIsReloaded(t *testing.T) {
	cw, s := standIn(t, fakeaws.Config{})
	file := filepath.Join(t.TempDir(), "tenants.yaml")
	write := func(content string) {
		require.NoError(t, os.WriteFile(file+".new", []byte(content), 0o600))
		require.NoError(t, os.Rename(file+".new", file))
	}
	write("version: 1\ngeneration: 1\ntenants: {a: {namespaces: [team-a, tenant-a]}}")
	h, err := startHost(t, host.Config{Outputs: []host.Output{{Workers: 2, Properties: options(cw, "tenants_file", file)}}, Env: cw.Env()})
	require.NoError(t, err)
	said := func(what string) func() bool {
		return func() bool {
			for _, l := range h.Logs() {
				if strings.Contains(l.Text, what) {
					return true
				}
			}
			return false
		}
	}
	ship := func() {
		t.Helper()
		for _, ns := range []string{"team-a", "team-b"} {
			require.NoError(t, h.Send(strings.Replace(tagOfA, "tenant-a", ns, 1), record("x")))
		}
		require.NoError(t, h.Drain(within(t, time.Minute)))
	}
	ship()
	write("version: 1\ngeneration: 2\ntenants: {a: {namespaces: [team-a, tenant-a]}, b: {namespaces: [team-b, tenant-b]}}")
	require.Eventually(t, said("tenants_file reloaded generation=2"), time.Minute, 10*time.Millisecond)
	ship()
	write("version: 1\ngeneration: 3\ntenants: {a: {namespaces: [tenant-a]}, b: {namespaces: [team-a, team-b, tenant-b]}}")
	require.Eventually(t, said("namespace team-a was tenant a's and would become b's"), time.Minute, 10*time.Millisecond)
	ship()
	_, err = h.Stop(within(t, time.Minute))
	require.NoError(t, err)
	require.Len(t, s.Events("/eks/tenants/a", "team-a/p/c"), 3)
	require.Len(t, s.Events("/eks/platform", "team-b/p/c"), 1)
	require.Len(t, s.Events("/eks/tenants/b", "team-b/p/c"), 2)
}
