package e2e

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/eks-tenant-logs/eks-tenant-logs/internal/fakeaws"
)

// Running it all again writes nothing: bootstrap, and apply of the tenants of a file, each
// in a process that knows nothing of the one before.
func TestRunAgainEverythingWritesNothing(t *testing.T) {
	cw, s := standIn(t, fakeaws.Config{Enforce: true})
	file := filepath.Join(t.TempDir(), "tenants.yaml")
	require.NoError(t, os.WriteFile(file, []byte("version: 1\ntenants:\n  acme:\n    namespaces: [tenant-acme, acme-batch]\n  globex:\n    retentionDays: 731\n"), 0o600))
	apply := []string{"apply", trusting, "--tenants-file", file, "--namespace", "tenant-acme=uid-1,acme-batch=uid-2,tenant-globex=uid-3"}
	bootstrap(t, cw)

	plan, code := provision(t, cw, append([]string{"plan"}, apply[1:]...)...)
	require.Equal(t, 1, code, "there is something to do")
	var actions []struct{ Tenant, Layer, Kind, Target, Now, Will, Reason string }
	require.NoError(t, json.Unmarshal(plan.Actions, &actions))
	require.Len(t, actions, 2*8)
	for _, a := range actions {
		require.NotEmpty(t, a.Reason)
	}
	before := changing(s)
	_, code = provision(t, cw, append(apply, "--dry-run")...)
	require.Equal(t, 1, code)
	require.Equal(t, before, changing(s), "plan and a dry run write nothing")

	first, code := provision(t, cw, apply...)
	require.Zero(t, code, "%+v", first)
	require.Equal(t, 16, first.Writes)
	require.Equal(t, 16, changing(s)-before)
	for i, days := range []int{365, 731} {
		require.Equal(t, "ready", first.Tenants[i].State, first.Tenants[i].Reason)
		require.Equal(t, days, first.Tenants[i].RetentionDays)
	}

	before = changing(s)
	second, code := provision(t, cw, apply...)
	require.Zero(t, code)
	require.Zero(t, second.Writes)
	bootstrap(t, cw)
	_, code = provision(t, cw, append([]string{"plan"}, apply[1:]...)...)
	require.Zero(t, code, "nothing to do, nothing to tell")
	require.Equal(t, before, changing(s), "the second run makes no write call")
	require.Zero(t, s.CallCount("DeleteLogGroup")+s.CallCount("DeleteLogStream")+s.CallCount("DeleteRetentionPolicy"))
}

// The command is killed with SIGKILL at each of its calls, before the call is carried out or
// before its answer comes back. The next one finishes, and nothing is made twice.
func TestKilledAtAnyCallTheNextRunFinishes(t *testing.T) {
	apply := []string{"apply", trusting, "--namespace", "tenant-acme=uid-1"}
	points := 0
	for _, answer := range []error{fakeaws.ErrConnectionReset, fakeaws.ErrAnswerLost} {
		for n := 1; ; n++ {
			cw, s := standIn(t, fakeaws.Config{Enforce: true})
			bootstrap(t, cw)
			created := s.CallCount("CreateLogGroup")
			var mu sync.Mutex
			var process *exec.Cmd
			calls, killed := 0, false
			s.SetIntercept(func(fakeaws.Call) error {
				mu.Lock()
				defer mu.Unlock()
				if calls++; calls != n {
					return nil
				}
				killed = process.Process.Kill() == nil
				return answer
			})
			mu.Lock()
			process = commandOf(t, cw, apply...)
			require.NoError(t, process.Start())
			mu.Unlock()
			err := process.Wait()
			s.SetIntercept(nil)
			mu.Lock()
			done := !killed
			mu.Unlock()
			if done {
				require.NoError(t, err)
				break
			}
			points++
			require.Error(t, err, "call %d", n)
			said, code := provision(t, cw, apply...)
			require.Zero(t, code, "call %d: %+v", n, said)
			require.Equal(t, "ready", said.Tenants[0].State, "call %d", n)
			said, code = provision(t, cw, apply...)
			require.Zero(t, code)
			require.Zero(t, said.Writes, "call %d", n)
			made := s.Calls()
			require.Equal(t, 2, made[fakeaws.CallKey{Operation: "CreateLogGroup", Result: "OK"}]+made[fakeaws.CallKey{Operation: "CreateLogGroup", Result: "(answer lost)"}]-created, "call %d", n)
			require.Equal(t, 4+1, made[fakeaws.CallKey{Operation: "iam:CreateRole", Result: "OK"}]+made[fakeaws.CallKey{Operation: "iam:CreateRole", Result: "(answer lost)"}], "call %d: the cluster's, and the reader's once", n)
		}
	}
	t.Logf("killed at %d calls", points)
	require.Greater(t, points, 20)
}
