package provision

import (
	"context"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/cloudwatchlogs"
	"github.com/aws/aws-sdk-go-v2/service/iam"
	iamtypes "github.com/aws/aws-sdk-go-v2/service/iam/types"
	"github.com/aws/aws-sdk-go-v2/service/sts"
	ststypes "github.com/aws/aws-sdk-go-v2/service/sts/types"
	"github.com/stretchr/testify/require"

	"github.com/eks-tenant-logs/eks-tenant-logs/internal/awsclient"
	"github.com/eks-tenant-logs/eks-tenant-logs/internal/fakeaws"
	"github.com/eks-tenant-logs/eks-tenant-logs/internal/loggroup"
	"github.com/eks-tenant-logs/eks-tenant-logs/internal/tenancy"
)

// What somebody tries who has the provisioner's credentials. These are refused.

func refused(t *testing.T, calls map[string]error) {
	t.Helper()
	for name, err := range calls {
		require.Equal(t, awsclient.ClassDenied, awsclient.Classify(err), "%s: %v", name, err)
	}
}

func roleTag(key, value string) []iamtypes.Tag {
	return []iamtypes.Tag{{Key: &key, Value: &value}}
}

// administrator gives a role a policy that allows everything.
func (a *testAccount) administrator(t *testing.T, role string) {
	t.Helper()
	_, err := a.iam.PutRolePolicy(context.Background(), &iam.PutRolePolicyInput{RoleName: &role, PolicyName: aws.String("everything"), PolicyDocument: aws.String(everything)})
	require.NoError(t, err)
}

// Somebody gave the provisioner's role an administrator's policy besides its own.
func TestAProvisionerThatMayDoEverythingStillKeepsTheBoundary(t *testing.T) {
	a := newAccount(t, fakeaws.Config{Enforce: true})
	another, own := a.asItself(t, "c1")
	p, ctx := another(), context.Background()
	require.Equal(t, StateReady, status(t, reconciled(t, p, tenantOf("acme", "uid-1")), "acme").State)
	a.administrator(t, p.in.BootstrapRole("provisioner"))
	all, err := a.iam.CreatePolicy(ctx, &iam.CreatePolicyInput{PolicyName: aws.String("all"), PolicyDocument: aws.String(everything)})
	require.NoError(t, err)
	c := own.IAM.(*iam.Client)
	role, name, boundary := tenancy.ReaderRole("c1", "us-east-1", "acme"), aws.String(tenancy.ReaderRole("c1", "us-east-1", "evil")), p.in.Scope.BoundaryARN()
	trust := aws.String(`{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":{"AWS":"*"},"Action":"sts:AssumeRole"}]}`)
	itself := aws.String(p.in.BootstrapRole("provisioner"))
	refused(t, map[string]error{
		"boundary off":        second(c.DeleteRolePermissionsBoundary(ctx, &iam.DeleteRolePermissionsBoundaryInput{RoleName: &role})),
		"another boundary":    second(c.PutRolePermissionsBoundary(ctx, &iam.PutRolePermissionsBoundaryInput{RoleName: &role, PermissionsBoundary: all.Policy.Arn})),
		"a role without one":  second(c.CreateRole(ctx, &iam.CreateRoleInput{RoleName: name, Path: &p.in.Scope.RolePath, AssumeRolePolicyDocument: trust})),
		"a role with another": second(c.CreateRole(ctx, &iam.CreateRoleInput{RoleName: name, Path: &p.in.Scope.RolePath, AssumeRolePolicyDocument: trust, PermissionsBoundary: all.Policy.Arn})),
		"a role elsewhere":    second(c.CreateRole(ctx, &iam.CreateRoleInput{RoleName: name, AssumeRolePolicyDocument: trust, PermissionsBoundary: &boundary})),
		"attaching":           second(c.AttachRolePolicy(ctx, &iam.AttachRolePolicyInput{RoleName: &role, PolicyArn: all.Policy.Arn})),
		"untagging":           second(c.UntagRole(ctx, &iam.UntagRoleInput{RoleName: &role, TagKeys: []string{loggroup.TagTenant}})),
		"deleting":            second(c.DeleteRole(ctx, &iam.DeleteRoleInput{RoleName: &role})),
		"another tenant":      second(c.TagRole(ctx, &iam.TagRoleInput{RoleName: &role, Tags: roleTag(loggroup.TagTenant, "globex")})),
		"another cluster":     second(c.TagRole(ctx, &iam.TagRoleInput{RoleName: &role, Tags: roleTag(loggroup.TagCluster, "c2")})),
		"the boundary's text": second(c.CreatePolicyVersion(ctx, &iam.CreatePolicyVersionInput{PolicyArn: &boundary, PolicyDocument: aws.String(everything), SetAsDefault: true})),
		"its own policies":    second(c.DeleteRolePolicy(ctx, &iam.DeleteRolePolicyInput{RoleName: itself, PolicyName: aws.String(clusterPolicy)})),
		"its own trust":       second(c.UpdateAssumeRolePolicy(ctx, &iam.UpdateAssumeRolePolicyInput{RoleName: itself, PolicyDocument: trust})),
	})
	require.Zero(t, reconciled(t, another(), tenantOf("acme", "uid-1")).Actions)
}

// A role at a reader's name that another cluster has tagged, though not for a tenant yet.
func TestARoleOfAnotherClusterIsNotTakenOver(t *testing.T) {
	a := newAccount(t, fakeaws.Config{Enforce: true})
	another, own := a.asItself(t, "c1")
	p, ctx := another(), context.Background()
	name := tenancy.ReaderRole("c2", "us-east-1", "acme")
	_, err := a.iam.CreateRole(ctx, &iam.CreateRoleInput{
		RoleName: &name, Path: &p.in.Scope.RolePath, Tags: roleTag(loggroup.TagCluster, "c2"), AssumeRolePolicyDocument: aws.String(
			`{"Version":"2012-10-17","Statement":[{"Effect":"Deny","Principal":{"AWS":"*"},"Action":"sts:AssumeRole"}]}`)})
	require.NoError(t, err)
	refused(t, map[string]error{"TagRole": second(own.IAM.TagRole(ctx, &iam.TagRoleInput{
		RoleName: &name, Tags: append(roleTag(loggroup.TagCluster, "c1"), roleTag(loggroup.TagTenant, "acme")...),
	}))})
}

// Who has the provisioner's credentials decides whom a reader role trusts, and may let session
// tags in; the role stays its tenant's all the same, and the provisioner itself assumes none.
func TestAReaderRoleStaysItsTenantsWhomeverItIsMadeToTrust(t *testing.T) {
	a := newAccount(t, fakeaws.Config{Enforce: true})
	another, own := a.asItself(t, "c1")
	p, ctx := another(), context.Background()
	for _, s := range reconciled(t, p, tenantOf("acme", "uid-1"), tenantOf("globex", "uid-2")).Tenants {
		require.Equal(t, StateReady, s.State, s.Reason)
	}
	acme := p.in.Scope.ReaderRoleARN("acme")
	anybody := aws.String(`{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":{"AWS":"*"},"Action":["sts:AssumeRole","sts:TagSession"]}]}`)
	c := own.IAM
	name := aws.String(tenancy.ReaderRole("c1", "us-east-1", "acme"))
	_, err := c.UpdateAssumeRolePolicy(ctx, &iam.UpdateAssumeRolePolicyInput{RoleName: name, PolicyDocument: anybody})
	require.NoError(t, err)
	_, err = c.PutRolePolicy(ctx, &iam.PutRolePolicyInput{RoleName: name, PolicyName: aws.String("more"), PolicyDocument: aws.String(everything)})
	require.NoError(t, err)
	// A role of one tenant's name with another's tag.
	made, err := c.CreateRole(ctx, &iam.CreateRoleInput{
		RoleName: aws.String(tenancy.ReaderRole("c1", "us-east-1", "initech")), Path: &p.in.Scope.RolePath, AssumeRolePolicyDocument: anybody,
		PermissionsBoundary: aws.String(p.in.Scope.BoundaryARN()), Tags: append(roleTag(loggroup.TagCluster, "c1"), roleTag(loggroup.TagTenant, "globex")...),
	})
	require.NoError(t, err)
	_, err = c.PutRolePolicy(ctx, &iam.PutRolePolicyInput{RoleName: made.Role.RoleName, PolicyName: aws.String("more"), PolicyDocument: aws.String(everything)})
	require.NoError(t, err)

	read := func(role, group string, tags ...ststypes.Tag) error {
		out, err := a.sts(t).AssumeRole(ctx, &sts.AssumeRoleInput{RoleArn: &role, RoleSessionName: aws.String("thief"), Tags: tags})
		require.NoError(t, err)
		k := out.Credentials
		l := cloudwatchlogs.New(cloudwatchlogs.Options{Region: "us-east-1", BaseEndpoint: &a.url, Credentials: credentials.NewStaticCredentialsProvider(*k.AccessKeyId, *k.SecretAccessKey, *k.SessionToken)})
		return second(l.FilterLogEvents(ctx, &cloudwatchlogs.FilterLogEventsInput{LogGroupName: &group}))
	}
	tag := func(tenant string) ststypes.Tag {
		return ststypes.Tag{Key: aws.String(loggroup.TagTenant), Value: &tenant}
	}
	require.NoError(t, read(acme, "/eks/tenants/acme"), "whom a role trusts can't be held: docs/iam.md")
	refused(t, map[string]error{
		"another's group":                    read(acme, "/eks/tenants/globex"),
		"by a session tag":                   read(acme, "/eks/tenants/globex", tag("globex")),
		"its own by another's tag":           read(acme, "/eks/tenants/acme", tag("globex")),
		"by a role of another name":          read(*made.Role.Arn, "/eks/tenants/globex"),
		"by that, whatever its sessions say": read(*made.Role.Arn, "/eks/tenants/globex", tag("globex")),
	})
	out, err := a.sts(t).AssumeRole(ctx, &sts.AssumeRoleInput{RoleArn: aws.String(p.in.Scope.ProvisionerRoleARN()), RoleSessionName: aws.String("itself")})
	require.NoError(t, err)
	itself := sts.New(sts.Options{Region: "us-east-1", BaseEndpoint: &a.url, Credentials: credentials.NewStaticCredentialsProvider(*out.Credentials.AccessKeyId, *out.Credentials.SecretAccessKey, *out.Credentials.SessionToken)})
	refused(t, map[string]error{"the provisioner itself": second(itself.AssumeRole(ctx, &sts.AssumeRoleInput{RoleArn: &acme, RoleSessionName: aws.String("itself")}))})

	// The next run sets it back.
	r := reconciled(t, another(), tenantOf("acme", "uid-1"), tenantOf("globex", "uid-2"))
	require.Equal(t, 2, r.Repaired["role"])
	require.Contains(t, findings(r), "the trust policy of role "+*name+" was changed")
}

func (a *testAccount) sts(t *testing.T) *sts.Client {
	t.Helper()
	return sts.New(sts.Options{Region: "us-east-1", BaseEndpoint: &a.url, Credentials: credentials.NewStaticCredentialsProvider(fakeaws.DefaultAccessKeyID, fakeaws.DefaultSecretAccessKey, "")})
}
