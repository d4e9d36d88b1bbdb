package e2e

import (
	"context"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/cloudwatchlogs"
	"github.com/stretchr/testify/require"

	"github.com/eks-tenant-logs/eks-tenant-logs/e2e/node"
	"github.com/eks-tenant-logs/eks-tenant-logs/internal/fakeaws"
)

// Promise 6: a group in use keeps its events for at least the configured days.

func group(s *fakeaws.Server, name string) (fakeaws.Group, bool) {
	for _, g := range s.Groups() {
		if g.Name == name {
			return g, true
		}
	}
	return fakeaws.Group{}, false
}

func TestRetentionOfGroupsThatAreCreatedAndThatExisted(t *testing.T) {
	onEngines(t, func(t *testing.T, e node.Engine) {
		ctx := within(t, time.Minute)
		cw, s := standIn(t, fakeaws.Config{})
		n := newNode(t)
		// What is there before, and what it must become. A name that is another's
		// prefix is there as well: it must not be taken for it.
		before := map[string]int32{"short": 30, "long": 731, "exact": 365, "never": 0, "fresh-corp": 7}
		after := map[string]int{"short": 365, "long": 731, "exact": 365, "never": 0, "fresh": 365, "fresh-corp": 7}
		for tenant, days := range before {
			name := "/eks/tenants/" + tenant
			_, err := cw.API().CreateLogGroup(ctx, &cloudwatchlogs.CreateLogGroupInput{LogGroupName: &name})
			require.NoError(t, err)
			if days > 0 {
				_, err = cw.API().PutRetentionPolicy(ctx, &cloudwatchlogs.PutRetentionPolicyInput{LogGroupName: &name, RetentionInDays: aws.Int32(days)})
				require.NoError(t, err)
			}
		}
		puts := s.CallCount("PutRetentionPolicy")
		for tenant := range after {
			if tenant != "fresh-corp" { // not in use
				require.NoError(t, n.Write(node.Pod{Namespace: "tenant-" + tenant, Name: "p", Container: "c"}, "line"))
			}
		}
		require.NoError(t, e.Ship(ctx, node.Run{
			Node: n, Plugin: pluginPath(t), Env: cw.Env(), Log: newLog(t),
			Options: options(cw, "log_group_tags", "team=platform,cost-center=42", "deletion_protection", "on"),
			Until: func() bool {
				short, _ := group(s, "/eks/tenants/short")
				fresh, _ := group(s, "/eks/tenants/fresh")
				// That those that existed were looked at shows in the reading of the tags of two of
				// them: the others have their days, and their tags are read within a day.
				return short.RetentionInDays == 365 && fresh.Tags["eks-tenant-logs/state"] == "ready" &&
					arrived(s, 5)() && s.CallCount("ListTagsForResource") >= 2
			},
		}))
		for tenant, days := range after {
			g, ok := group(s, "/eks/tenants/"+tenant)
			require.True(t, ok, tenant)
			require.Equal(t, days, g.RetentionInDays, tenant)
		}
		require.Equal(t, puts+2, s.CallCount("PutRetentionPolicy"), "one for the new group, one for the short one")
		fresh, _ := group(s, "/eks/tenants/fresh")
		require.Equal(t, map[string]string{
			"eks-tenant-logs/tenant": "fresh", "eks-tenant-logs/state": "ready", "team": "platform", "cost-center": "42",
		}, fresh.Tags)
		require.True(t, fresh.DeletionProtection)
		require.Zero(t, s.CallCount("DeleteRetentionPolicy")+s.CallCount("DeleteLogGroup")+s.CallCount("DeleteLogStream"))
	})
}

// A failure of retention is loud and tried again, and no event waits for it.
func TestRetentionThatFailsDoesNotHoldUpDelivery(t *testing.T) {
	onEngines(t, func(t *testing.T, e node.Engine) {
		ctx := within(t, time.Minute)
		var refused atomic.Int32
		cw, s := standIn(t, fakeaws.Config{})
		s.SetIntercept(func(c fakeaws.Call) error {
			if c.Operation == "PutRetentionPolicy" && refused.Add(1) <= 1 {
				return &fakeaws.APIError{Code: "AccessDeniedException", Message: "not yet"}
			}
			return nil
		})
		n := newNode(t)
		require.NoError(t, n.Write(node.Pod{Namespace: "tenant-a", Name: "p", Container: "c"}, "line"))
		log := newLog(t)
		delivered := false
		require.NoError(t, e.Ship(ctx, node.Run{
			Node: n, Plugin: pluginPath(t), Env: cw.Env(), Log: log, Options: options(cw),
			Until: func() bool {
				g, _ := group(s, "/eks/tenants/a")
				if g.Events == 1 && g.RetentionInDays == 0 {
					delivered = true
				}
				return g.Tags["eks-tenant-logs/state"] == "ready"
			},
		}))
		require.True(t, delivered, "the event arrived before the retention did")
		g, _ := group(s, "/eks/tenants/a")
		require.Equal(t, 365, g.RetentionInDays)
		require.Contains(t, log.String(), "retention of a log group is not confirmed")
	})
}

// An account-level policy that keeps less wins in CloudWatch. It is told, and neither
// fought nor waited for.
func TestRetentionUnderAnAccountPolicyThatKeepsLess(t *testing.T) {
	onEngines(t, func(t *testing.T, e node.Engine) {
		cw, s := standIn(t, fakeaws.Config{})
		s.SetAccountRetention("org-30", 30)
		n := newNode(t)
		for _, ns := range []string{"tenant-a", "tenant-b"} {
			require.NoError(t, n.Write(node.Pod{Namespace: ns, Name: "p", Container: "c"}, "line"))
		}
		log := newLog(t)
		const told = `keeps its events 30 days instead of 365: the account-level retention policy \"org-30\" wins over it`
		require.NoError(t, e.Ship(within(t, time.Minute), node.Run{
			Node: n, Plugin: pluginPath(t), Env: cw.Env(), Log: log, Options: options(cw),
			Until: func() bool { return arrived(s, 2)() && strings.Count(log.String(), told) >= 4 },
		}))
		require.Equal(t, 2, s.CallCount("PutRetentionPolicy"), "once a group")
		s.SetAccountRetention("", 0)
		for _, g := range s.Groups() {
			require.Equal(t, 365, g.RetentionInDays, g.Name)
			require.Equal(t, "new", g.Tags["eks-tenant-logs/state"], "it was not confirmed")
		}
	})
}

// With the provisioner installed nodes neither create groups nor set retention.
func TestRetentionIsLeftToTheProvisionerWithAutoCreateOff(t *testing.T) {
	onEngines(t, func(t *testing.T, e node.Engine) {
		ctx := within(t, time.Minute)
		cw, s := standIn(t, fakeaws.Config{})
		n := newNode(t)
		require.NoError(t, n.Write(node.Pod{Namespace: "tenant-a", Name: "p", Container: "c"}, "line"))
		log := newLog(t)
		created := false
		require.NoError(t, e.Ship(ctx, node.Run{
			Node: n, Plugin: pluginPath(t), Env: cw.Env(), Log: log, Options: options(cw, "auto_create_group", "off"),
			Until: func() bool {
				// The provisioner comes after the plugin has asked in vain.
				if !created && s.CallCount("CreateLogStream") > 0 {
					created = true
					_, err := cw.API().CreateLogGroup(context.Background(), &cloudwatchlogs.CreateLogGroupInput{LogGroupName: aws.String("/eks/tenants/a")})
					require.NoError(t, err)
				}
				return created && arrived(s, 1)()
			},
		}))
		require.Equal(t, 1, s.CallCount("CreateLogGroup"), "the test's own")
		require.Zero(t, s.CallCount("PutRetentionPolicy")+s.CallCount("DescribeLogGroups"))
		require.Contains(t, log.String(), "auto_create_group is off: the provisioner has to create it")
	})
}
