package provision

import (
	"context"
	"maps"
	"slices"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/cloudwatchlogs"
	"github.com/aws/aws-sdk-go-v2/service/eks"
	"github.com/aws/aws-sdk-go-v2/service/iam"
	"github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/stretchr/testify/require"

	"github.com/eks-tenant-logs/eks-tenant-logs/internal/fakeaws"
	"github.com/eks-tenant-logs/eks-tenant-logs/internal/iampolicy"
	"github.com/eks-tenant-logs/eks-tenant-logs/internal/tenancy"
)

// All that a provisioner does, by its own role: whatever its policy allows is asked for, or is on
// the list with the reason.
func TestNothingIsAllowedThatTheProvisionerDoesNotUse(t *testing.T) {
	const other = "444455556666"
	theirs := "arn:aws:iam::" + other + ":role/logs"
	a := newAccount(t, fakeaws.Config{Enforce: true})
	ctx := context.Background()
	before, _ := a.asItselfWith(t, []string{theirs}, "c1", withPods)
	acme, globex := tenantOf("acme", "uid-1"), tenantOf("globex", "uid-2")
	ready := func(r Report, tenants ...string) {
		t.Helper()
		for _, tenant := range tenants {
			s := status(t, r, tenant)
			require.Equal(t, StateReady, s.State, "%s: %s", tenant, s.Reason)
		}
	}
	key := a.Account(other).RootKey()
	theirIAM := iam.New(iam.Options{Region: "us-east-1", BaseEndpoint: &a.url, Credentials: credentials.NewStaticCredentialsProvider(key.AccessKeyID, key.SecretAccessKey, key.SessionToken)})
	itself := before().in.Scope.ProvisionerRoleARN()
	_, err := theirIAM.CreateRole(ctx, &iam.CreateRoleInput{RoleName: aws.String("logs"), AssumeRolePolicyDocument: aws.String(
		`{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":{"AWS":"` + itself + `"},"Action":"sts:AssumeRole"}]}`)})
	require.NoError(t, err)
	_, err = theirIAM.PutRolePolicy(ctx, &iam.PutRolePolicyInput{RoleName: aws.String("logs"), PolicyName: aws.String("logs"), PolicyDocument: aws.String(everything)})
	require.NoError(t, err)
	initech := tenantOf("initech", "uid-3")
	initech.Settings = &tenancy.Tenant{Name: "initech", RoleARN: theirs}

	ready(reconciled(t, before(), acme, globex, initech), "acme", "globex", "initech")
	ready(reconciled(t, before(), manyTenants(fewRoles+2)...), "t0000")
	// A key for each and deletion protection are for groups that are there already.
	another, _ := a.asItselfWith(t, []string{theirs}, "c1", withKeys, withPods, func(in *Installation) { in.DeletionProtection = true })
	// The run that begins with the keys is killed before one has its alias: the next finds it by its tags.
	a.deny("kms:CreateAlias", "")
	require.Equal(t, StateFailed, status(t, reconciled(t, another(), acme), "acme").State)
	a.SetIntercept(nil)
	ready(reconciled(t, another(), acme, globex), "acme", "globex")

	// Somebody changes what can be changed.
	a.tamper(t, tenancy.ReaderRole("c1", "us-east-1", "acme"))
	_, err = a.logs.PutRetentionPolicy(ctx, &cloudwatchlogs.PutRetentionPolicyInput{LogGroupName: aws.String("/eks/tenants/acme"), RetentionInDays: aws.Int32(1)})
	require.NoError(t, err)
	a.openBearer(t, "/eks/tenants/acme")
	id := a.tenantKeys(t)[0]
	_, err = a.kms.PutKeyPolicy(ctx, &kms.PutKeyPolicyInput{KeyId: &id, Policy: aws.String(`{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":{"AWS":"arn:aws:iam::123456789012:root"},"Action":"kms:*","Resource":"*"}]}`)})
	require.NoError(t, err)
	list, err := a.eks.ListPodIdentityAssociations(ctx, &eks.ListPodIdentityAssociationsInput{ClusterName: aws.String("c1"), Namespace: aws.String("tenant-acme")})
	require.NoError(t, err)
	_, err = a.eks.UpdatePodIdentityAssociation(ctx, &eks.UpdatePodIdentityAssociationInput{ClusterName: aws.String("c1"), AssociationId: list.Associations[0].AssociationId, RoleArn: aws.String(before().in.Scope.ReaderRoleARN("globex"))})
	require.NoError(t, err)
	ready(reconciled(t, another(), acme, globex), "acme", "globex")

	_, _, err = another().RetireTenant(ctx, acme)
	require.NoError(t, err)
	_, _, err = another().Reactivate(ctx, acme)
	require.NoError(t, err)
	ready(reconciled(t, another(), acme, globex), "acme", "globex")
	_, err = another().Inventory(ctx, true)
	require.NoError(t, err)

	unused := map[string]string{
		"eks:TagResource": "EKS asks for it where an association is made with tags; the stand-in does not",
	}
	used := a.Used(itself)
	var idle []string
	for _, st := range another().in.Scope.Provisioner(theirs).Statements {
		for _, action := range st.Actions {
			if st.Effect == iampolicy.Allow && !slices.Contains(used, action) && !slices.Contains(idle, action) {
				idle = append(idle, action)
			}
		}
	}
	slices.Sort(idle)
	require.Equal(t, slices.Sorted(maps.Keys(unused)), idle)
}
