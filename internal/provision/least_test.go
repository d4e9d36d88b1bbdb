package provision

import (
	"context"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/cloudwatchlogs"
	"github.com/aws/aws-sdk-go-v2/service/iam"
	"github.com/stretchr/testify/require"

	"github.com/eks-tenant-logs/eks-tenant-logs/internal/awsclient"
	"github.com/eks-tenant-logs/eks-tenant-logs/internal/awsclient/control"
	"github.com/eks-tenant-logs/eks-tenant-logs/internal/fakeaws"
	"github.com/eks-tenant-logs/eks-tenant-logs/internal/iampolicy"
	"github.com/eks-tenant-logs/eks-tenant-logs/internal/tenancy"
)

// The provisioner's own role, with the policy that bootstrap gives it and nothing else, may do
// all that a provisioner does: set up, repair, refuse, retire, reactivate, list.
func TestTheProvisionersPolicyIsEnoughForAllItDoes(t *testing.T) {
	a := newAccount(t, fakeaws.Config{Enforce: true})
	root := a.provisioner(t, "c1")
	ctx := context.Background()
	plan, err := root.PlanBootstrap(ctx, Bootstrap{Controller: true, Provisioner: iampolicy.Trust{Principals: []string{"arn:aws:iam::123456789012:root"}}})
	require.NoError(t, err)
	r, err := root.Apply(ctx, plan)
	require.NoError(t, err)
	require.Empty(t, r.Failed)

	c, err := awsclient.New(ctx, awsclient.Config{Region: "us-east-1", Endpoint: a.url, STSEndpoint: a.url, RoleARN: root.in.Scope.RoleARN(root.in.BootstrapRole("provisioner"))})
	require.NoError(t, err)
	roles, err := control.NewIAM(c, a.url)
	require.NoError(t, err)
	p, err := New(installation(t, "c1"), Cloud{Logs: c, IAM: roles}, Options{Clock: (&testClock{}).clock()})
	require.NoError(t, err)

	tenants := manyTenants(fewRoles + 2) // both ways of reading roles
	for _, some := range [][]Tenant{tenants[:1], tenants} {
		for _, s := range reconciled(t, p, some...).Tenants {
			require.Equal(t, StateReady, s.State, "%s", s.Reason)
		}
		require.Zero(t, reconciled(t, p, some...).Actions)
	}
	name := tenancy.ReaderRole("c1", "us-east-1", "t0000")
	const all = `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"*","Resource":"*"}]}`
	_, err = a.iam.DeleteRolePermissionsBoundary(ctx, &iam.DeleteRolePermissionsBoundaryInput{RoleName: &name})
	require.NoError(t, err)
	_, err = a.iam.PutRolePolicy(ctx, &iam.PutRolePolicyInput{RoleName: &name, PolicyName: aws.String("more"), PolicyDocument: aws.String(all)})
	require.NoError(t, err)
	managed, err := a.iam.CreatePolicy(ctx, &iam.CreatePolicyInput{PolicyName: aws.String("wide"), PolicyDocument: aws.String(all)})
	require.NoError(t, err)
	_, err = a.iam.AttachRolePolicy(ctx, &iam.AttachRolePolicyInput{RoleName: &name, PolicyArn: managed.Policy.Arn})
	require.NoError(t, err)
	_, err = a.iam.UpdateAssumeRolePolicy(ctx, &iam.UpdateAssumeRolePolicyInput{RoleName: &name, PolicyDocument: aws.String(`{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":{"AWS":"*"},"Action":"sts:AssumeRole"}]}`)})
	require.NoError(t, err)
	_, err = a.logs.PutRetentionPolicy(ctx, &cloudwatchlogs.PutRetentionPolicyInput{LogGroupName: aws.String("/eks/tenants/t0000"), RetentionInDays: aws.Int32(1)})
	require.NoError(t, err)
	r = reconciled(t, p, tenants[0])
	require.Equal(t, StateReady, status(t, r, "t0000").State, "%+v", r)
	require.Equal(t, map[string]int{"role": 4, "group": 1}, r.Repaired)

	refused := tenants[0]
	refused.Namespaces = []Namespace{{"tenant-t0000", "another"}}
	require.Equal(t, StateRefused, status(t, reconciled(t, p, refused), "t0000").State)
	closed(t, a.role(t, p, "t0000"))
	_, _, err = p.Reactivate(ctx, refused)
	require.NoError(t, err)
	require.Equal(t, StateReady, status(t, reconciled(t, p, refused), "t0000").State)
	s, err := p.Retire(ctx, "t0000")
	require.NoError(t, err)
	require.Equal(t, StateRetired, s.State)
	owned, err := p.Owned(ctx)
	require.NoError(t, err)
	require.Len(t, owned, fewRoles+1)
	entries, err := p.Inventory(ctx, true)
	require.NoError(t, err)
	require.Len(t, entries, fewRoles+2)

	// EKS Pod Identity associations.
	a.Account(account).AddCluster("c1")
	pods, err := control.NewEKS(c, a.url)
	require.NoError(t, err)
	more, err := New(installation(t, "c1", func(in *Installation) {
		in.Trust = iampolicy.Trust{PodIdentity: []iampolicy.ServiceAccount{{Namespace: "$(namespace)", Name: "log-reader"}}}
	}), Cloud{Logs: c, IAM: roles, EKS: pods}, Options{Clock: (&testClock{}).clock()})
	require.NoError(t, err)
	acme := tenantOf("acme", "uid-1")
	s = status(t, reconciled(t, more, acme), "acme")
	require.Equal(t, StateReady, s.State, s.Reason)
	require.Zero(t, reconciled(t, more, acme).Actions)
	s, err = more.Retire(ctx, "acme")
	require.NoError(t, err)
	require.Equal(t, StateRetired, s.State)
}
