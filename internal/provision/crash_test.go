package provision

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/eks-tenant-logs/eks-tenant-logs/internal/fakeaws"
)

// made is what there is, without what differs from account to account.
func (a *testAccount) made(t testing.TB, p *Provisioner, tenants ...string) map[string]any {
	t.Helper()
	all := map[string]any{}
	for _, g := range a.Groups() {
		all[g.Name] = []any{g.Tags, g.RetentionInDays, g.Class, g.KMSKeyID, g.DeletionProtection}
	}
	for _, tenant := range tenants {
		r := a.role(t, p, tenant)
		require.NotNil(t, r, tenant)
		require.NotEmpty(t, r.tags[tagGroupCreated])
		delete(r.tags, tagGroupCreated)
		all["role "+tenant] = *r
	}
	return all
}

// A process is killed at every call of a first apply, once before AWS got the call and once
// before its answer came back. The next one finishes, and makes nothing a second time.
func TestKilledBetweenAnyTwoCallsTheNextRunConverges(t *testing.T) {
	tenants := []Tenant{tenantOf("acme", "uid-1"), tenantOf("globex", "uid-2")}
	whole := newAccount(t, fakeaws.Config{})
	p := whole.provisioner(t, "c1")
	_, err := p.Reconcile(context.Background(), tenants)
	require.NoError(t, err)
	want := whole.made(t, p, "acme", "globex")

	points := 0
	for _, answer := range []error{fakeaws.ErrConnectionReset, fakeaws.ErrAnswerLost} {
		for n := int64(1); ; n++ {
			a := newAccount(t, fakeaws.Config{})
			ctx, kill := context.WithCancel(context.Background())
			var calls, killed atomic.Int64
			a.SetIntercept(func(fakeaws.Call) error {
				if calls.Add(1) < n {
					return nil
				}
				killed.Add(1)
				kill()
				if calls.Load() == n {
					return answer
				}
				return fakeaws.ErrConnectionReset
			})
			first, err := New(installation(t, "c1"), a.cloud, Options{Concurrency: 1, Clock: (&testClock{}).clock()})
			require.NoError(t, err)
			_, err = first.Reconcile(ctx, tenants)
			kill()
			a.SetIntercept(nil)
			if killed.Load() == 0 {
				require.NoError(t, err)
				require.Equal(t, want, a.made(t, first, "acme", "globex"))
				break
			}
			points++
			require.ErrorIs(t, err, context.Canceled, "call %d", n)
			a.connect(t) // another process
			second := a.provisioner(t, "c1")
			report, err := second.Reconcile(context.Background(), tenants)
			require.NoError(t, err, "call %d", n)
			require.Equal(t, StateReady, status(t, report, "acme").State, "call %d: %+v", n, report)
			require.Equal(t, StateReady, status(t, report, "globex").State, "call %d: %+v", n, report)
			require.Equal(t, want, a.made(t, second, "acme", "globex"), "call %d", n)
			made := a.Calls()
			require.LessOrEqual(t, made[fakeaws.CallKey{Operation: "CreateLogGroup", Result: "OK"}]+made[fakeaws.CallKey{Operation: "CreateLogGroup", Result: "(answer lost)"}], 6, "call %d: each group once", n)
			require.LessOrEqual(t, made[fakeaws.CallKey{Operation: "iam:CreateRole", Result: "OK"}]+made[fakeaws.CallKey{Operation: "iam:CreateRole", Result: "(answer lost)"}], 1+2, "call %d: each role once", n)
			third, err := second.Reconcile(context.Background(), tenants)
			require.NoError(t, err)
			require.Zero(t, third.Actions, "call %d: %+v", n, third)
			_ = a.Close()
		}
	}
	t.Logf("%d crash points", points)
	require.Greater(t, points, 50)
}

// Each answer is lost once: the SDK repeats the call, and what the first one made is found there. Bootstrap and a run for
// tenants look at it again, and both finish in one go.
func TestWhateverAnswerIsLostTheSameRunFinishes(t *testing.T) {
	tenants := []Tenant{tenantOf("acme", "uid-1")}
	runs := map[string]func(*Provisioner) (Report, error){
		"bootstrap": func(p *Provisioner) (Report, error) { return p.Bootstrap(t.Context(), Bootstrap{Controller: true}) },
		"tenants":   func(p *Provisioner) (Report, error) { return p.Reconcile(t.Context(), tenants) },
	}
	for name, run := range runs {
		cluster := map[string]string{"bootstrap": "c9", "tenants": "c1"}[name] // c9's boundary is missing
		// Calls are made at once, so that the first ones of a run are not always the same: each operation's are counted for themselves.
		counts := func(t *testing.T, losing string, nth int) map[string]int {
			a := newAccount(t, fakeaws.Config{})
			defer func() { _ = a.Close() }()
			p := a.provisioner(t, cluster)
			var mu sync.Mutex
			seen := map[string]int{}
			a.SetIntercept(func(c fakeaws.Call) error {
				mu.Lock()
				defer mu.Unlock()
				seen[c.Operation]++
				if c.Operation == losing && seen[losing] == nth {
					return fakeaws.ErrAnswerLost
				}
				return nil
			})
			report, err := run(p)
			a.SetIntercept(nil)
			require.NoError(t, err)
			require.Empty(t, report.Failed)
			for _, s := range report.Tenants {
				require.Equal(t, StateReady, s.State, s.Reason)
			}
			again, err := run(a.provisioner(t, cluster))
			require.NoError(t, err)
			require.Zero(t, again.Actions, "%+v", again)
			return seen
		}
		usual := counts(t, "", 0)
		for _, operation := range []string{"CreateLogGroup", "iam:CreateRole"} {
			require.Positive(t, usual[operation], "%s: %s", name, operation)
		}
		for operation, times := range usual {
			for nth := 1; nth <= times; nth++ {
				t.Run(fmt.Sprint(name, "/", operation, "/", nth), func(t *testing.T) { counts(t, operation, nth) })
			}
		}
	}
}

// What was made by a call whose answer was lost is not seen at once by every host of AWS.
func TestARoleWhoseAnswerWasLostIsSeenLater(t *testing.T) {
	a := newAccount(t, fakeaws.Config{})
	faults := fakeaws.NewFaults(1)
	faults.SetAppearing(2 * time.Second)
	var lost atomic.Bool
	a.SetIntercept(func(c fakeaws.Call) error {
		if !strings.Contains(c.Entity, "-writer") {
			return nil
		}
		if err := faults.Intercept(c); err != nil {
			return err
		}
		if c.Operation == "iam:CreateRole" && !lost.Swap(true) {
			return fakeaws.ErrAnswerLost
		}
		return nil
	})
	p, err := New(installation(t, "c9"), a.cloud, Options{})
	require.NoError(t, err)
	report, err := p.Bootstrap(t.Context(), Bootstrap{Controller: true})
	require.NoError(t, err)
	require.True(t, lost.Load())
	require.Empty(t, report.Failed)
	plan, err := p.PlanBootstrap(t.Context(), Bootstrap{Controller: true})
	require.NoError(t, err)
	require.Empty(t, plan.Actions)
}
