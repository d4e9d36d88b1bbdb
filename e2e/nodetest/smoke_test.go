package nodetest

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/eks-tenant-logs/eks-tenant-logs/e2e/realnode"
)

func TestSmoke(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	defer cancel()
	require.NoError(t, realnode.Check(ctx))
	c, err := realnode.Start(ctx, realnode.Options{Log: t.Logf})
	require.NoError(t, err)
	defer func() { require.NoError(t, c.Stop()) }()
	nodes, err := c.Admin.CoreV1().Nodes().List(ctx, metav1.ListOptions{})
	require.NoError(t, err)
	t.Log(nodes.Items[0].Status.NodeInfo)
	out, err := c.Nodes[0].Exec(ctx, "sh", "-c", "ip a; mount | grep -v proc | tail -30; ps aux; df -h /var/lib /var/log; cat /proc/self/cgroup; free -m")
	t.Log(out, err)
}
