package tenancy

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// Policies tell reader roles by what their names begin with: no role of the cluster's own may
// begin so.
func TestAClusterRoleIsNoReaderRoleAndEachClustersItsOwn(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		cluster := rapid.StringMatching(`[0-9A-Za-z][A-Za-z0-9_-]{0,99}`).Draw(t, "cluster")
		purpose := rapid.SampledFrom([]string{"writer", "provisioner", "auditor", "replay", "canary"}).Draw(t, "purpose")
		name := ClusterRole(cluster, "us-east-1", purpose)
		if len(name) > maxRoleName || strings.HasPrefix(name, "eks-tenant-logs_") || strings.ToLower(name) != name {
			t.Fatalf("%q", name)
		}
		other := rapid.StringMatching(`[0-9A-Za-z][A-Za-z0-9_-]{0,99}`).Draw(t, "other")
		if other != cluster && ClusterRole(other, "us-east-1", purpose) == name {
			t.Fatalf("%q is two clusters'", name)
		}
	})
	require.NotEqual(t, ClusterRole("c", "us-east-1", "writer"), ClusterRole("c", "us-west-2", "writer"))
	require.NotEqual(t, ClusterRole("c", "r", "writer")[len("eks-tenant-logs-writer"):], ReaderRole("c", "r", "writer")[len("eks-tenant-logs_writer"):])
}
