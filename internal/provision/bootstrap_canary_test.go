package provision

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/eks-tenant-logs/eks-tenant-logs/internal/iampolicy"
	"github.com/eks-tenant-logs/eks-tenant-logs/internal/tenancy"
)

// The canary's role trusts the one service account that helm test makes, in each partition and
// by both ways that a pod gets a role.
func TestTheCanarysRoleTrustsItsServiceAccountAloneInEveryPartition(t *testing.T) {
	account := []iampolicy.ServiceAccount{{Namespace: "tenant-canary", Name: "eks-tenant-logs-canary"}}
	const provider = "oidc.eks.example.com/id/example"
	for region, partition := range map[string]string{"us-east-1": "aws", "us-gov-west-1": "aws-us-gov", "cn-north-1": "aws-cn"} {
		scope, err := iampolicy.NewScope(iampolicy.Scope{Region: region, Account: "111122223333", Cluster: "prod"})
		require.NoError(t, err)
		in := Installation{Scope: scope}
		cluster := "arn:" + partition + ":eks:" + region + ":111122223333:cluster/prod"
		for _, way := range []struct {
			trust  iampolicy.Trust
			action string
			asks   func(account string) iampolicy.Request
		}{
			{iampolicy.Trust{PodIdentity: account}, "sts:AssumeRole", func(account string) iampolicy.Request {
				return iampolicy.Request{Principal: iampolicy.Principal{Service: "pods.eks.amazonaws.com"}, Context: map[string][]string{
					"aws:sourceaccount": {"111122223333"}, "aws:requesttag/eks-cluster-arn": {cluster},
					"aws:requesttag/kubernetes-namespace": {"tenant-canary"}, "aws:requesttag/kubernetes-service-account": {account},
				}}
			}},
			{iampolicy.Trust{IRSA: account, OIDCProvider: provider}, "sts:AssumeRoleWithWebIdentity", func(account string) iampolicy.Request {
				return iampolicy.Request{Principal: iampolicy.Principal{Federated: "arn:" + partition + ":iam::111122223333:oidc-provider/" + provider}, Context: map[string][]string{
					provider + ":aud": {"sts.amazonaws.com"}, provider + ":sub": {"system:serviceaccount:tenant-canary:" + account},
				}}
			}},
		} {
			roles, err := in.clusterRoles(Bootstrap{CanaryTenant: "canary", Canary: way.trust})
			require.NoError(t, err)
			role := roles[len(roles)-1]
			require.Equal(t, tenancy.ClusterRole("prod", region, "canary"), role.name)
			require.True(t, iampolicy.Equal(scope.Canary("canary"), role.policy))
			may := func(account string) bool {
				r := way.asks(account)
				r.Action = way.action
				return iampolicy.Evaluate(r, iampolicy.Policies{Resource: []*iampolicy.Document{role.trust}, SameAccount: true, Required: true}).Allowed
			}
			require.True(t, may("eks-tenant-logs-canary"), "%s %s", partition, way.action)
			require.False(t, may("default"), "%s %s", partition, way.action)
		}
	}
}
