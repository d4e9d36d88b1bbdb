package scale

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/eks-tenant-logs/eks-tenant-logs/internal/fakeaws"
)

// run runs a scenario in a bubble of its own.
func run(t *testing.T, sc Scenario) (r Result) {
	t.Helper()
	began := time.Now()
	synctest.Test(t, func(*testing.T) { r = Run(sc) })
	r.Real = time.Since(began).Seconds()
	return r
}

// The account is as busy for each of these few nodes as the real one is for a thousand.
var small = Quotas{
	PutLogEvents: 100, CreateLogStream: 5, CreateLogGroup: 5, DescribeLogGroups: 2,
	PutRetentionPolicy: 2, ListTagsForResource: 2, TagResource: 2,
}

func TestNothingIsLostAndEveryGroupHasItsRetentionWhateverTheQuotas(t *testing.T) {
	for name, sc := range map[string]Scenario{
		"new account, a stream a pod":    {Kind: Fresh, Flush: 5 * time.Second},
		"new account, a stream a node":   {Kind: Fresh, Flush: 5 * time.Second, PerNode: true},
		"new account, flush 1 s":         {Kind: Fresh, Duration: time.Minute},
		"restart, old groups":            {Kind: Restart, Flush: 5 * time.Second},
		"restart, groups of an hour ago": {Kind: Restart, Flush: 5 * time.Second, GroupAge: time.Hour},
		"restart, flush 1 s":             {Kind: Restart, Duration: time.Minute},
		"rolling, a stream a pod":        {Kind: Rolling, Flush: 5 * time.Second, RollEvery: 20 * time.Second},
		"rolling, a stream a node":       {Kind: Rolling, Flush: 5 * time.Second, RollEvery: 20 * time.Second, PerNode: true},
	} {
		t.Run(name, func(t *testing.T) {
			sc.Nodes, sc.Pods, sc.Tenants, sc.Drain, sc.Quotas = 8, 20, 40, true, small
			set(&sc.Duration, 4*time.Minute)
			r := run(t, sc)
			require.Empty(t, r.Exceeded, "the model lets more through than its quotas")
			require.Zero(t, r.Lost, "FLB_OK for events that did not arrive")
			require.Zero(t, r.Undelivered)
			require.Zero(t, r.Waiting, "it never drained")
			require.Zero(t, r.Twice)
			require.Zero(t, r.Strange)
			require.Zero(t, r.Silent)
			require.Zero(t, r.Trips, "the breaker trips for a quota")
			require.LessOrEqual(t, r.Longest, time.Minute.Seconds(), "flush_timeout")
			require.Zero(t, r.Open)
			require.Zero(t, r.Unretained)
			require.GreaterOrEqual(t, r.Retained, 0.0)
			require.GreaterOrEqual(t, r.Ready, 0.0)
			if sc.Kind == Fresh {
				require.Positive(t, r.Calls["CreateLogStream"].Throttled, "the quotas were not felt")
			}
		})
	}
}

func TestTheModelHoldsItsQuotas(t *testing.T) {
	require.False(t, series{10, 5, 5, 5}.exceeds(5), "a burst of one second's worth")
	require.True(t, series{5, 11}.exceeds(5))
	require.True(t, series{10, 5, 6}.exceeds(5))
	b, now, passed := fakeaws.Bucket{Rate: 5}, time.Now(), 0
	for i := range 1000 { // for ten seconds
		if b.Take(now.Add(time.Duration(i) * 10 * time.Millisecond)) {
			passed++
		}
	}
	require.InDelta(t, 5+50, passed, 1)
}
