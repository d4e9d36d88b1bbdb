package output

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/eks-tenant-logs/eks-tenant-logs/internal/delivery"
	"github.com/eks-tenant-logs/eks-tenant-logs/internal/fakeaws"
)

func TestHeldChunksHaveABudgetThatTenantsShare(t *testing.T) {
	now := time.Now()
	h := newHeld(4)
	key := func(n int) delivery.Key { return delivery.Key{byte(n)} }
	for n := range 4 {
		require.True(t, h.keep("a", key(n), now))
	}
	require.False(t, h.keep("a", key(4), now), "used up")
	require.True(t, h.keep("a", key(0), now), "one that is held already stays")
	require.True(t, h.keep("b", key(10), now), "another tenant has its share")
	require.True(t, h.keep("b", key(11), now))
	require.False(t, h.keep("b", key(12), now))
	require.False(t, h.keep("a", key(4), now))
	for n := range 3 {
		h.gone(key(n))
	}
	require.True(t, h.keep("a", key(4), now))
	require.Equal(t, 4, h.len())
	// What Fluent Bit dropped of its own accord never comes back.
	require.False(t, h.keep("a", key(5), now.Add(time.Minute)))
	require.True(t, h.keep("a", key(5), now.Add(forgetHeld+time.Minute)))
	require.Equal(t, 1, h.len())
}

func TestWhatIsHeldComesBackIntoTheBudgetWhenMoreTenantsAreInTrouble(t *testing.T) {
	const budget, tenants = 100, 20
	h := newHeld(budget)
	now := time.Now()
	name := func(n int) string { return fmt.Sprint("tenant-", n) }
	key := func(tenant, n int) delivery.Key { return delivery.Key{byte(tenant), byte(n)} }
	for tenant := range tenants { // one after the other gets in trouble
		for n := range budget {
			h.keep(name(tenant), key(tenant, n), now)
		}
	}
	for tenant := range tenants { // Fluent Bit brings every chunk again
		for n := range budget {
			if _, ok := h.chunks[key(tenant, n)]; ok {
				h.keep(name(tenant), key(tenant, n), now)
			}
		}
	}
	require.LessOrEqual(t, h.len(), budget)
	for tenant := range tenants {
		require.GreaterOrEqual(t, h.byTenant[name(tenant)], budget/tenants, "its share is left to it")
	}
}

// `identity record`: one chunk that several tenants hold is one task.
func TestAChunkOfManyTenantsIsHeldOnce(t *testing.T) {
	h := newHeld(4)
	now := time.Now()
	for n := range 10 {
		key := delivery.Key{byte(n)}
		require.True(t, h.keep("a", key, now))
		require.True(t, h.keep("b", key, now))
		h.left("b", key) // b's part goes to quarantine; a's keeps the chunk
		require.Equal(t, 1, h.len())
		h.gone(key)
		require.Zero(t, h.len())
		require.Empty(t, h.byTenant)
	}
}

func TestWithoutABudgetEverythingIsHeld(t *testing.T) {
	h := newHeld(0)
	for n := range 3000 {
		require.True(t, h.keep("a", delivery.Key{byte(n), byte(n >> 8)}, time.Now()))
	}
}

func TestAUsedUpHoldBudgetDropsAndSaysSo(t *testing.T) {
	i, s, log, on, clock := failing(t, "", "on_failure", "hold", "hold_budget", "3")
	require.Equal(t, OK, ship(t, i, "tenant-b", map[string]any{"log": "b"}))
	chunks := make([][]byte, 6)
	tag := tagA
	for n := range chunks {
		chunks[n] = chunkOf(time.Now(), map[string]any{"log": fmt.Sprint(n)})
	}
	var got []Result
	for range 2 { // until the breaker is open
		require.Equal(t, Retry, i.Flush(context.Background(), tag, chunks[0], 0))
	}
	for range 2 {
		for _, data := range chunks[:3] {
			require.Equal(t, Retry, i.Flush(context.Background(), tag, data, 0), "within the budget")
		}
	}
	for _, data := range chunks[3:] {
		got = append(got, i.Flush(context.Background(), tag, data, 0))
	}
	require.Equal(t, []Result{OK, OK, OK}, got, "above it Fluent Bit must not keep more")
	require.Contains(t, log.String(), "hold_budget is used up")
	require.Equal(t, OK, ship(t, i, "tenant-b", map[string]any{"log": "b"}))
	// When the group takes events again, what is held goes home, and the budget is free.
	on.Store(false)
	clock.Add(int64(time.Minute))
	for _, data := range chunks[:3] {
		require.Equal(t, OK, i.Flush(context.Background(), tag, data, 0))
	}
	require.Zero(t, i.held.len())
	i.Close()
	require.Len(t, s.Events("/eks/tenants/a", "tenant-a/p/c"), 3)
}

// A tenant whose group hangs is not refused, so nothing is quarantined: its chunks wait
// with Fluent Bit, but only so many.
func TestAStalledTenantIsQuarantinedOnceItsChunksAreTooMany(t *testing.T) {
	s := fakeaws.New(fakeaws.Config{})
	s.SetIntercept(func(c fakeaws.Call) error {
		if c.LogGroup == "/eks/tenants/a" {
			return &fakeaws.APIError{Code: "ThrottlingException", Message: "Rate exceeded"}
		}
		return nil
	})
	i, log := at(t, s, Environment{Node: "n1", Patience: 50 * time.Millisecond, Trial: func(int) time.Duration { return time.Hour }}, "hold_budget", "2")
	stop, done := make(chan struct{}), make(chan struct{})
	go func() { // others are served meanwhile
		defer close(done)
		for n := 0; ; n++ {
			select {
			case <-stop:
				return
			default:
				i.Flush(context.Background(), strings.Replace(tagA, "tenant-a", "tenant-b", 1), chunkOf(time.Now(), map[string]any{"log": fmt.Sprint(n)}), 0)
			}
		}
	}()
	defer func() { close(stop); <-done; i.Close() }()
	// Until the group counts as stalled: as long as a busy machine creates it, it does not.
	require.Eventually(t, func() bool {
		require.Equal(t, Retry, ship(t, i, "tenant-a", map[string]any{"log": "first"}))
		return strings.Contains(log.String(), "a log group takes nothing although others do")
	}, 30*time.Second, time.Millisecond)
	for n := range 2 {
		require.Equal(t, Retry, ship(t, i, "tenant-a", map[string]any{"log": fmt.Sprint(n)}))
	}
	require.Equal(t, 2, i.held.len())
	require.Empty(t, s.Events("/eks/quarantine/a", "tenant-a/p/c"))
	// As Fluent Bit does, again until it is taken: on a busy machine creating the quarantine group outlasts Patience.
	tooMany := chunkOf(time.Now(), map[string]any{"log": "one too many"})
	require.Eventually(t, func() bool { return i.Flush(context.Background(), tagA, tooMany, 0) == OK }, 30*time.Second, time.Millisecond)
	events := s.Events("/eks/quarantine/a", "tenant-a/p/c")
	require.Len(t, events, 1)
	require.Contains(t, events[0].Message, `"_tenantlogs":{"quarantined":"stalled","log_group":"/eks/tenants/a"}`)
	require.Contains(t, log.String(), "hold_budget is used up")
}
