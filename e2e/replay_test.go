package e2e

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/eks-tenant-logs/eks-tenant-logs/e2e/host"
	"github.com/eks-tenant-logs/eks-tenant-logs/internal/fakeaws"
)

// tenantlogs runs the real command against a stand-in and returns its report.
func tenantlogs(t *testing.T, env []string, args ...string) (report struct {
	Tenants []struct {
		Tenant                                      string
		Quarantined, ReplayedBefore, Replayed, Left int64
		Why                                         []string
	}
}, code int) {
	t.Helper()
	var stdout, stderr bytes.Buffer
	cmd := exec.CommandContext(t.Context(), builtCommand(t), append(args, "-o", "json")...)
	cmd.Env, cmd.Stdout, cmd.Stderr = append(os.Environ(), env...), &stdout, &stderr
	err := cmd.Run()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		code, err = exit.ExitCode(), nil
	}
	require.NoError(t, err)
	require.NoError(t, json.Unmarshal(stdout.Bytes(), &report), "%s\n%s", stdout.String(), stderr.String())
	return report, code
}

// A tenant is denied; its events are in quarantine with the reason. The fault ends: new
// events go home without a restart, and replay copies the others back, once.
func TestQuarantinedEventsAreReplayedHomeOnceTheFaultEnds(t *testing.T) {
	// The stand-in's clock is behind, so that all of it has settled when replay looks.
	cw, s := standIn(t, fakeaws.Config{Clock: func() time.Time { return time.Now().Add(-10 * time.Minute) }})
	const home, quarantine = "/eks/tenants/acme", "/eks/quarantine/acme"
	refuse(s, home)
	h, err := startHost(t, host.Config{Env: cw.Env(), Grace: 100 * time.Millisecond, Outputs: []host.Output{{
		Workers: 4, Properties: options(cw, "retry_limit", "no_limits"),
	}}})
	require.NoError(t, err)
	sent, want := 0, map[string]int{}
	send := func(tenant string) {
		sent++
		line := fmt.Sprintf("#%d", sent)
		want[line] = 1
		require.NoError(t, h.Send(strings.Replace(tagOfA, "tenant-a", "tenant-"+tenant, 1), record(line)))
	}
	settled := func() {
		require.NoError(t, h.Until(within(t, time.Minute), func(st host.Stats) bool { return st.OK >= sent }))
	}
	events := func(group string) (n int64) {
		for _, g := range s.Groups() {
			if g.Name == group {
				n = g.Events
			}
		}
		return n
	}
	for range 40 {
		send("acme")
		send("other")
	}
	settled()
	require.EqualValues(t, 40, events(quarantine))

	s.SetIntercept(nil)
	end := time.Now().Add(time.Minute)
	for events(home) == 0 { // after the breaker's next trial
		require.True(t, time.Now().Before(end), "new events go home")
		send("acme")
		settled()
	}
	_, err = h.Stop(within(t, time.Minute))
	require.NoError(t, err)
	waiting := events(quarantine)
	require.GreaterOrEqual(t, waiting, int64(40))

	replay := func(more ...string) (quarantined, before, replayed, left int64, code int) {
		report, code := tenantlogs(t, cw.Env(), append([]string{"replay", "--endpoint", cw.Endpoint, "--region", cw.Region}, more...)...)
		require.Len(t, report.Tenants, 1, "%+v", report)
		x := report.Tenants[0]
		require.Equal(t, "acme", x.Tenant)
		return x.Quarantined, x.ReplayedBefore, x.Replayed, x.Left, code
	}
	writes := func() int { return s.CallCount("PutLogEvents") + s.CallCount("CreateLogStream") }
	wrote := writes()
	_, _, replayed, left, code := replay("--dry-run")
	require.Equal(t, []int64{0, waiting, 1}, []int64{replayed, left, int64(code)})
	require.Equal(t, wrote, writes(), "a dry run writes nothing")
	quarantined, _, replayed, left, code := replay("--tenant", "acme")
	require.Equal(t, []int64{waiting, waiting, 0, 0}, []int64{quarantined, replayed, left, int64(code)})
	quarantined, before, replayed, left, code := replay()
	require.Equal(t, []int64{waiting, waiting, 0, 0, 0}, []int64{quarantined, before, replayed, left, int64(code)}, "un-replayed = 0")

	got := map[string]int{}
	for _, group := range []string{home, "/eks/tenants/other"} {
		for _, g := range s.Groups() {
			for _, st := range g.Streams {
				if g.Name != group {
					continue
				}
				for _, e := range s.Events(group, st.Name) {
					var m struct{ Log string }
					require.NoError(t, json.Unmarshal([]byte(e.Message), &m))
					got[m.Log]++
				}
			}
		}
	}
	require.Equal(t, want, got, "every line is in its tenant's group once")
	require.Zero(t, s.CallCount("DeleteLogGroup")+s.CallCount("DeleteLogStream"))
}
