package e2e

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/cloudwatchlogs"
	"github.com/stretchr/testify/require"

	"github.com/eks-tenant-logs/eks-tenant-logs/e2e/host"
	"github.com/eks-tenant-logs/eks-tenant-logs/internal/fakeaws"
)

// Promises 3, 4 and 6 while groups and streams come and go under the plugin.

func TestAGroupOrStreamThatIsDeletedMeanwhileIsMadeAgain(t *testing.T) {
	cw, s := standIn(t, fakeaws.Config{})
	h, err := startHost(t, host.Config{Env: cw.Env(), Outputs: []host.Output{{Workers: 4, Properties: options(cw, "retry_limit", "no_limits")}}})
	require.NoError(t, err)
	tag := func(tenant int) string { return strings.Replace(tagOfA, "tenant-a", fmt.Sprint("tenant-t", tenant), 1) }
	const tenants, each, rounds = 5, 20, 4
	for round := range rounds {
		for n := range each {
			for tenant := range tenants {
				require.NoError(t, h.Send(tag(tenant), record(fmt.Sprintf("#%d.%d.%d", tenant, round, n))))
			}
		}
		require.NoError(t, h.Drain(within(t, time.Minute)), "round %d", round)
		want := map[string]int{}
		for tenant := range tenants {
			for n := range each {
				want[fmt.Sprintf("#%d.%d.%d", tenant, round, n)] = 1
			}
		}
		got := numbers(t, s)
		for number := range got {
			if want[number] == 0 {
				delete(got, number) // of the rounds before, where it was not deleted
			}
		}
		requireOnce(t, want, got)
		if round == rounds-1 {
			break
		}
		group, stream := "/eks/tenants/t1", "tenant-t2/p/c"
		_, err := cw.API().DeleteLogGroup(within(t, time.Minute), &cloudwatchlogs.DeleteLogGroupInput{LogGroupName: &group})
		require.NoError(t, err)
		other := "/eks/tenants/t2"
		_, err = cw.API().DeleteLogStream(within(t, time.Minute), &cloudwatchlogs.DeleteLogStreamInput{LogGroupName: &other, LogStreamName: &stream})
		require.NoError(t, err)
	}
	retained(t, s, tenants)
	_, err = h.Stop(within(t, time.Minute))
	require.NoError(t, err)
}

// retained waits until so many groups have a year's retention. Whether they are marked as
// ready may take longer: TagResource is 5 calls a second, and nothing depends on it.
func retained(t *testing.T, s *fakeaws.Server, groups int) {
	t.Helper()
	count := func() map[string]int {
		states := map[string]int{}
		for _, g := range s.Groups() {
			states[fmt.Sprintf("%d days, %s", g.RetentionInDays, g.Tags["eks-tenant-logs/state"])]++
		}
		return states
	}
	done := func(states map[string]int) bool { return states["365 days, new"]+states["365 days, ready"] == groups }
	for end := time.Now().Add(8 * time.Minute); !done(count()); time.Sleep(50 * time.Millisecond) {
		require.True(t, time.Now().Before(end), "after eight minutes: %v; calls %v", count(), s.Calls())
	}
	t.Logf("groups: %v", count())
}

// Two nodes come up in a new account, under its real quotas, with what was made being seen
// half a second later.
func TestTwoNodesThatCreateTheSameGroupsAtOnce(t *testing.T) {
	groups := 40
	if fluentBitWanted() != "" {
		groups = 200
	}
	cw, s := standIn(t, fakeaws.Config{Latency: 5 * time.Millisecond})
	f := fakeaws.NewFaults(1)
	f.SetQuotas(fakeaws.Quotas)
	f.SetAppearing(500 * time.Millisecond)
	s.SetIntercept(f.Intercept)
	began := time.Now()
	var nodes sync.WaitGroup
	want := map[string]int{}
	hosts := make([]*host.Host, 2)
	for n := range hosts {
		h, err := startHost(t, host.Config{Env: cw.Env(), Outputs: []host.Output{{Workers: 8, Properties: options(cw, "retry_limit", "no_limits", "log_stream_template", fmt.Sprintf("$(namespace)/$(pod)/$(container)/node-%d", n))}}})
		require.NoError(t, err)
		hosts[n] = h
		for tenant := range groups {
			want[fmt.Sprintf("#%d.%d", n, tenant)] = 1
		}
		nodes.Go(func() {
			for tenant := range groups {
				if err := h.Send(strings.Replace(tagOfA, "tenant-a", fmt.Sprint("tenant-t", tenant), 1), record(fmt.Sprintf("#%d.%d", n, tenant))); err != nil {
					t.Error(err)
				}
			}
			if err := h.Drain(within(t, 4*time.Minute)); err != nil {
				t.Error(err)
			}
		})
	}
	nodes.Wait()
	arrived := time.Since(began)
	requireOnce(t, want, numbers(t, s))
	retained(t, s, groups)
	t.Logf("%d groups, two nodes: every line arrived after %v, every group retained after %v; over quota %d calls, %v", groups,
		arrived.Round(time.Second), time.Since(began).Round(time.Second), f.Hits()["quota"], s.Calls())
	for _, h := range hosts {
		_, err := h.Stop(within(t, time.Minute))
		require.NoError(t, err)
	}
}
