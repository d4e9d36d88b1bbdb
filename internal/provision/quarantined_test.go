package provision

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/cloudwatchlogs"
	"github.com/aws/aws-sdk-go-v2/service/cloudwatchlogs/types"
	"github.com/stretchr/testify/require"

	"github.com/eks-tenant-logs/eks-tenant-logs/internal/fakeaws"
)

// What waits is told from what a replay has been at since, and from what has expired; looking
// costs nothing where nothing is in quarantine.
func TestWhatWaitsInQuarantineIsToldByItsAge(t *testing.T) {
	began := time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC)
	var mu sync.Mutex
	now := began
	clock := func() time.Time { mu.Lock(); defer mu.Unlock(); return now }
	after := func(d time.Duration) {
		mu.Lock()
		defer mu.Unlock()
		now = began.Add(d)
	}
	const day = 24 * time.Hour
	a := newAccount(t, fakeaws.Config{Clock: clock})
	p, err := New(installation(t, "c1"), a.cloud, Options{Random: func() float64 { return 0.5 }, Clock: Clock{Now: clock, Sleep: func(ctx context.Context, _ time.Duration) error { return ctx.Err() }}})
	require.NoError(t, err)
	tenants := []Tenant{tenantOf("acme", "u1"), tenantOf("globex", "u2")}
	look := func() map[string]time.Duration {
		t.Helper()
		_, err := p.Reconcile(t.Context(), tenants)
		require.NoError(t, err)
		before := a.CallCount("DescribeLogStreams")
		all, err := p.Quarantined(t.Context())
		require.NoError(t, err)
		if a.CallCount("DescribeLogStreams") == before {
			return nil
		}
		ages := map[string]time.Duration{}
		for _, q := range all {
			ages[q.Tenant] = clock().Sub(q.Since)
		}
		return ages
	}
	put := func(tenant, stream string) {
		t.Helper()
		group := "/eks/quarantine/" + tenant
		_, err := a.logs.CreateLogStream(t.Context(), &cloudwatchlogs.CreateLogStreamInput{LogGroupName: &group, LogStreamName: &stream})
		if err != nil {
			require.ErrorContains(t, err, "ResourceAlreadyExists")
		}
		_, err = a.logs.PutLogEvents(t.Context(), &cloudwatchlogs.PutLogEventsInput{LogGroupName: &group, LogStreamName: &stream,
			LogEvents: []types.InputLogEvent{{Message: aws.String("x"), Timestamp: aws.Int64(clock().UnixMilli())}}})
		require.NoError(t, err)
	}
	require.Nil(t, look(), "nothing is in quarantine: no call")
	put("acme", "tenant-acme/web/app")
	after(3 * day)
	put("acme", "tenant-acme/db/app")
	put("_pending", "new/web/app")
	after(8 * day)
	require.Equal(t, map[string]time.Duration{"acme": 8 * day, "_pending": 5 * day}, look())

	// A replay of acme's; then one stream takes something again.
	put("acme", "$replay/0000000001")
	require.Equal(t, map[string]time.Duration{"_pending": 5 * day}, look())
	after(9 * day)
	put("acme", "tenant-acme/db/app")
	put("acme", "tenant-acme/new/app")
	require.Equal(t, map[string]time.Duration{"acme": day, "_pending": 6 * day}, look())

	// What has expired waits no more.
	after(400 * day)
	require.Empty(t, look())
}

// With the provisioner's own role, which may look at streams and not into them, for few tenants
// and for many.
func TestTheProvisionersOwnRoleMayLookAtQuarantine(t *testing.T) {
	a := newAccount(t, fakeaws.Config{Enforce: true})
	another, _ := a.asItself(t, "c1")
	for _, n := range []int{1, fewTenants + 2} {
		p := another()
		tenants := manyTenants(n)
		reconciled(t, p, tenants...)
		if n == 1 {
			group, stream := "/eks/quarantine/t0000", "tenant-t0000/web/app"
			_, err := a.logs.CreateLogStream(t.Context(), &cloudwatchlogs.CreateLogStreamInput{LogGroupName: &group, LogStreamName: &stream})
			require.NoError(t, err)
			_, err = a.logs.PutLogEvents(t.Context(), &cloudwatchlogs.PutLogEventsInput{LogGroupName: &group, LogStreamName: &stream,
				LogEvents: []types.InputLogEvent{{Message: aws.String("x"), Timestamp: aws.Int64(time.Now().UnixMilli())}}})
			require.NoError(t, err)
			reconciled(t, p, tenants...)
		}
		all, err := p.Quarantined(t.Context())
		require.NoError(t, err)
		require.Len(t, all, 1)
		require.Equal(t, "t0000", all[0].Tenant)
	}
}
