package nodetest

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/eks-tenant-logs/eks-tenant-logs/e2e/realnode"
	"github.com/eks-tenant-logs/eks-tenant-logs/internal/fakeaws"
)

// Two clusters in one account, each with a role of its own for everything: here two releases, of which each takes the node's pods for its cluster's.
// Both have a tenant of one name. Neither's roles write, make or change what is the other's, also when one of them gets another retention.
func TestTwoClustersInOneAccountLeaveEachOtherAlone(t *testing.T) {
	long(t)
	c := onFluentBit(t)
	ctx := within(t, 8*time.Minute)
	_, err := c.StartEKS(ctx)
	require.NoError(t, err)
	roles := map[string]realnode.Roles{"first": installedAs(t, c, realnode.IRSA, realnode.Values{"fluentBit": realnode.Values{"minReadySeconds": 0}})}

	const release, namespace = "other", "logs-of-other"
	prefixes := []string{"--log-group-prefix=/other/tenants/", "--platform-log-group=/other/platform", "--quarantine-log-group-prefix=/other/quarantine/"}
	roles["second"], err = c.Bootstrap(ctx, "other-node", append(prefixes, "--trust-oidc-provider="+realnode.OIDCProvider,
		"--writer-irsa="+namespace+"/other-eks-tenant-logs-fluent-bit", "--provisioner-irsa="+namespace+"/other-eks-tenant-logs-provisioner")...)
	require.NoError(t, err)
	watch := watchClusters(t, c, roles)
	keyless := []any{} // no key from a Secret
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 4*time.Minute)
		defer cancel()
		if t.Failed() {
			t.Logf("the second release's pods:\n%s", c.Describe(ctx, namespace))
		}
		_, err := c.Helm(ctx, "uninstall", release, "--namespace", namespace, "--wait", "--timeout", "3m")
		require.NoError(t, err)
	})
	require.NoError(t, c.InstallAlso(ctx, release, namespace, realnode.Values{
		"clusterName": "other-node",
		"logs":        realnode.Values{"groupPrefix": "/other/tenants/", "platformGroup": "/other/platform", "quarantineGroupPrefix": "/other/quarantine/"},
		"tenants":     realnode.Values{"namespacePrefix": "other-"},
		"identity":    realnode.Values{"mode": "irsa", "writerRoleArn": roles["second"]["writer"], "provisionerRoleArn": roles["second"]["provisioner"]},
		"fluentBit":   realnode.Values{"envFrom": keyless, "minReadySeconds": 0, "config": realnode.Values{"storage": realnode.Values{"hostPath": "/var/lib/eks-tenant-logs-other"}}},
		"provisioner": realnode.Values{"envFrom": keyless}, "canary": realnode.Values{"enabled": false},
	}))

	// One tenant name, two clusters. What is one cluster's tenant's is the other's platform's.
	tenant(t, c, "same")
	require.NoError(t, c.Namespace(ctx, "other-same", "/other/tenants/same"))
	t.Cleanup(func() { require.NoError(t, c.DeleteNamespace(context.Background(), "other-same")) })
	w := realnode.Writer{Tenant: "same", Name: "same-first", Node: c.Nodes[0].Name, Rate: 500}
	other := realnode.Writer{In: "other-same", Name: "same-second", Node: c.Nodes[0].Name, Rate: 500}
	groups := map[string][]string{w.Name: {"/eks/tenants/same", "/other/platform"}, other.Name: {"/other/tenants/same", "/eks/platform"}}
	for _, w := range []realnode.Writer{w, other} {
		require.NoError(t, c.StartWriter(ctx, w))
	}
	require.NoError(t, c.Until(ctx, "all lines arrive", func() (bool, error) { return c.Lines.Arrived(w.Name) > 1000 && c.Lines.Arrived(other.Name) > 1000, nil }))
	before := describeGroup(t, c, "/other/tenants/same")
	chart, err := filepath.Abs("../../charts/eks-tenant-logs")
	require.NoError(t, err)
	_, err = c.Helm(ctx, "upgrade", realnode.ReleaseName, chart, "--namespace", realnode.ReleaseNamespace, "--reuse-values", "--set", "logs.retentionDays=731", "--wait", "--timeout", "3m")
	require.NoError(t, err)
	require.NoError(t, c.Until(ctx, "the first cluster keeps its logs for longer", func() (bool, error) {
		return strings.HasPrefix(describeGroup(t, c, "/eks/tenants/same"), "731 days"), nil
	}))
	time.Sleep(3 * time.Second)
	lines := map[string]int{}
	for _, w := range []realnode.Writer{w, other} {
		lines[w.Name], err = c.StopWriter(ctx, w)
		require.NoError(t, err)
	}
	for name, written := range lines {
		require.NoError(t, c.Until(within(t, time.Minute), name+" has arrived in both clusters' groups", func() (bool, error) {
			in := c.Lines.Between(name, 0, written).Groups
			return in[groups[name][0]] >= written && in[groups[name][1]] >= written, nil
		}))
		count := c.Lines.Between(name, 0, written)
		t.Logf("%s: %d lines, in %v", name, written, count.Groups)
		assert.Equal(t, map[string]int{groups[name][0]: written, groups[name][1]: written}, count.Groups, "each line once in each cluster's group")
	}
	assert.Equal(t, before, describeGroup(t, c, "/other/tenants/same"), "the second cluster's tenant is as it was")
	watch.report(t)
}

// describeGroup is what a log group has beside its events.
func describeGroup(t *testing.T, c *realnode.Cluster, name string) string {
	t.Helper()
	ctx := within(t, time.Minute)
	groups, err := c.AWS.CloudWatch.Groups(ctx)
	require.NoError(t, err)
	for _, g := range groups {
		if *g.LogGroupName != name {
			continue
		}
		tags, err := c.AWS.CloudWatch.Tags(ctx, g)
		require.NoError(t, err)
		return fmt.Sprint(*g.RetentionInDays, " days, ", tags)
	}
	return "gone"
}

// clusters is what the roles of two clusters did to log groups.
type clusters struct {
	mu    sync.Mutex
	owner map[string]string         // by a role's name
	did   map[string]map[string]int // by cluster, "operation group"
	wrong []string
}

func watchClusters(t *testing.T, c *realnode.Cluster, roles map[string]realnode.Roles) *clusters {
	t.Helper()
	w := &clusters{owner: map[string]string{}, did: map[string]map[string]int{"first": {}, "second": {}}}
	for cluster, all := range roles {
		for _, arn := range all {
			w.owner[arn[strings.LastIndexByte(arn, '/')+1:]] = cluster
		}
	}
	c.AWS.SetIntercept(func(call fakeaws.Call) error {
		parts := strings.Split(call.PrincipalARN, "/")
		if len(parts) != 3 || call.LogGroup == "" || strings.HasPrefix(call.Operation, "Describe") || strings.HasPrefix(call.Operation, "List") {
			return nil
		}
		w.mu.Lock()
		defer w.mu.Unlock()
		cluster := w.owner[parts[1]]
		if cluster == "" || (cluster == "second") != strings.HasPrefix(call.LogGroup, "/other/") {
			w.wrong = append(w.wrong, fmt.Sprintf("%s: %s %s", call.PrincipalARN, call.Operation, call.LogGroup))
			return nil
		}
		w.did[cluster][call.Operation+" "+call.LogGroup]++
		return nil
	})
	t.Cleanup(func() { c.AWS.SetIntercept(nil) })
	return w
}

func (w *clusters) report(t *testing.T) {
	t.Helper()
	w.mu.Lock()
	defer w.mu.Unlock()
	for cluster, did := range w.did {
		t.Logf("the %s cluster's roles: %v", cluster, did)
	}
	assert.Empty(t, w.wrong, "calls about the other cluster's groups")
}
