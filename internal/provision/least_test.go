package provision

import (
	"context"
	"fmt"
	"maps"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/cloudwatchlogs"
	"github.com/aws/aws-sdk-go-v2/service/eks"
	"github.com/aws/aws-sdk-go-v2/service/iam"
	"github.com/aws/aws-sdk-go-v2/service/kms"
	kmstypes "github.com/aws/aws-sdk-go-v2/service/kms/types"
	"github.com/stretchr/testify/require"

	"github.com/eks-tenant-logs/eks-tenant-logs/internal/awsclient"
	"github.com/eks-tenant-logs/eks-tenant-logs/internal/awsclient/control"
	"github.com/eks-tenant-logs/eks-tenant-logs/internal/fakeaws"
	"github.com/eks-tenant-logs/eks-tenant-logs/internal/iampolicy"
	"github.com/eks-tenant-logs/eks-tenant-logs/internal/loggroup"
	"github.com/eks-tenant-logs/eks-tenant-logs/internal/tenancy"
)

// asItself bootstraps a cluster of an account that enforces its policies, and returns what
// makes the provisioner as its own role: with the policy that bootstrap gives it and nothing
// else. Each is another process.
func (a *testAccount) asItself(t testing.TB, cluster string, change ...func(*Installation)) (another func() *Provisioner, cloud Cloud) {
	t.Helper()
	return a.asItselfWith(t, nil, cluster, change...)
}

// asItselfWith is asItself where tenants have these roles in accounts of their own.
func (a *testAccount) asItselfWith(t testing.TB, tenantRoles []string, cluster string, change ...func(*Installation)) (another func() *Provisioner, cloud Cloud) {
	t.Helper()
	a.Account(account).AddCluster(cluster)
	root := a.provisioner(t, cluster, change...)
	ctx := context.Background()
	r, err := root.Bootstrap(ctx, Bootstrap{Controller: true, TenantRoles: tenantRoles, Provisioner: iampolicy.Trust{Principals: []string{"arn:aws:iam::" + account + ":root"}}})
	require.NoError(t, err)
	require.Empty(t, r.Failed)

	c, err := awsclient.New(ctx, awsclient.Config{Region: "us-east-1", Endpoint: a.url, STSEndpoint: a.url, RoleARN: root.in.Scope.RoleARN(root.in.BootstrapRole("provisioner"))})
	require.NoError(t, err)
	cloud.Logs = c
	cloud.As = func(r awsclient.Role) Logs { return c.As(r) }
	cloud.IAM, err = control.NewIAM(c, a.url)
	require.NoError(t, err)
	cloud.KMS, err = control.NewKMS(c, a.url)
	require.NoError(t, err)
	cloud.EKS, err = control.NewEKS(c, a.url)
	require.NoError(t, err)
	return func() *Provisioner {
		p, err := New(installation(t, cluster, change...), cloud, Options{Random: func() float64 { return 0.5 }, Clock: (&testClock{}).clock()})
		require.NoError(t, err)
		return p
	}, cloud
}

// The provisioner's own role may do all that a provisioner does: set up, repair, refuse,
// retire, reactivate, list.
func TestTheProvisionersPolicyIsEnoughForAllItDoes(t *testing.T) {
	a := newAccount(t, fakeaws.Config{Enforce: true})
	another, _ := a.asItself(t, "c1")
	p, ctx := another(), context.Background()

	tenants := manyTenants(fewRoles + 2) // both ways of reading roles
	for _, some := range [][]Tenant{tenants[:1], tenants} {
		for _, s := range reconciled(t, p, some...).Tenants {
			require.Equal(t, StateReady, s.State, "%s", s.Reason)
		}
		require.Zero(t, reconciled(t, p, some...).Actions)
	}
	name := tenancy.ReaderRole("c1", "us-east-1", "t0000")
	const all = `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"*","Resource":"*"}]}`
	_, err := a.iam.DeleteRolePermissionsBoundary(ctx, &iam.DeleteRolePermissionsBoundaryInput{RoleName: &name})
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
	r := reconciled(t, p, tenants[0])
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
}

// setUps are what a provisioner may be told to set up.
var setUps = map[string]func(*Installation){
	"roles": func(*Installation) {},
	"keys":  withKeys,
	"pods":  withPods,
	"keys and pods": func(in *Installation) {
		withKeys(in)
		withPods(in)
	},
}

func withKeys(in *Installation) { in.KeyPerTenant = true }

func withPods(in *Installation) {
	in.Trust = iampolicy.Trust{PodIdentity: []iampolicy.ServiceAccount{{Namespace: "$(namespace)", Name: "log-reader"}}}
}

// openBearer opens a group to bearer tokens, as somebody with the right to might.
func (a *testAccount) openBearer(t testing.TB, group string) {
	t.Helper()
	_, err := a.logs.PutBearerTokenAuthentication(context.Background(), &cloudwatchlogs.PutBearerTokenAuthenticationInput{LogGroupIdentifier: &group, BearerTokenAuthenticationEnabled: aws.Bool(true)})
	require.NoError(t, err)
	require.True(t, a.group(t, group).BearerTokens)
}

// pods are the associations of cluster c1: namespace/service account, and the role's ARN.
func (a *testAccount) pods(t testing.TB) map[string]string {
	t.Helper()
	out, err := a.eks.ListPodIdentityAssociations(context.Background(), &eks.ListPodIdentityAssociationsInput{ClusterName: aws.String("c1")})
	require.NoError(t, err)
	pods := map[string]string{}
	for _, s := range out.Associations {
		d, err := a.eks.DescribePodIdentityAssociation(context.Background(), &eks.DescribePodIdentityAssociationInput{ClusterName: aws.String("c1"), AssociationId: s.AssociationId})
		require.NoError(t, err)
		pods[*s.Namespace+"/"+*s.ServiceAccount] = *d.Association.RoleArn
	}
	return pods
}

// By its own role, whatever is set up: made, left alone, closed to bearer tokens, retired,
// and given to a newcomer.
func TestRetiringAndReactivatingByTheProvisionersOwnRole(t *testing.T) {
	for name, change := range setUps {
		t.Run(name, func(t *testing.T) {
			a := newAccount(t, fakeaws.Config{Enforce: true})
			another, _ := a.asItself(t, "c1", change)
			p, ctx := another(), context.Background()
			acme, globex := tenantOf("acme", "uid-1"), tenantOf("globex", "uid-2")
			keys, pods, others := 0, map[string]string{}, map[string]string{} // others: without acme's
			if p.in.KeyPerTenant {
				keys = 2
			}
			if p.in.Trust.PodIdentity != nil {
				others["tenant-globex/log-reader"] = p.in.Scope.ReaderRoleARN("globex")
				maps.Copy(pods, others)
				pods["tenant-acme/log-reader"] = p.in.Scope.ReaderRoleARN("acme")
			}
			ready := func(p *Provisioner, tenants ...Tenant) Report {
				r := reconciled(t, p, tenants...)
				for _, s := range r.Tenants {
					require.Equal(t, StateReady, s.State, "%s: %s", s.Tenant, s.Reason)
				}
				require.Zero(t, reconciled(t, p, tenants...).Actions)
				require.Zero(t, reconciled(t, another(), tenants...).Actions, "another process")
				require.Len(t, a.tenantKeys(t), keys)
				require.Equal(t, pods, a.pods(t))
				return r
			}
			ready(p, acme, globex)
			before := a.group(t, "/eks/tenants/acme")
			require.Equal(t, keys > 0, before.KMSKeyID != "")

			groups := []string{"/eks/tenants/acme", "/eks/platform"}
			if keys == 0 { // a tenant with a key of its own has no quarantine group: its lines would be under another
				groups = append(groups, "/eks/quarantine/acme")
			}
			for _, name := range groups {
				a.openBearer(t, name)
			}
			require.Equal(t, map[string]int{"group": len(groups)}, ready(p, acme, globex).Repaired)
			for _, name := range groups {
				require.False(t, a.group(t, name).BearerTokens, name)
			}

			s, writes, err := another().RetireTenant(ctx, Tenant{Name: "acme"})
			require.NoError(t, err)
			require.Equal(t, StateRetired, s.State, s.Reason)
			require.Equal(t, 4+len(pods)-len(others), writes, "tombstone, policy, trust, the role's tombstone, and the pods' association")
			closed(t, a.role(t, p, "acme"))
			require.Equal(t, others, a.pods(t))
			require.Equal(t, before.KMSKeyID, a.group(t, "/eks/tenants/acme").KMSKeyID, "what it logged stays readable by the platform")
			require.Len(t, a.tenantKeys(t), keys)
			_, writes, err = another().RetireTenant(ctx, Tenant{Name: "acme"})
			require.NoError(t, err)
			require.Zero(t, writes)
			newcomer := tenantOf("acme", "uid-3")
			for _, tenant := range []Tenant{acme, newcomer} {
				r := reconciled(t, p, tenant, globex)
				require.Equal(t, StateRetired, status(t, r, "acme").State)
				require.Zero(t, r.Writes)
			}

			_, _, err = another().Reactivate(ctx, newcomer)
			require.NoError(t, err)
			require.Equal(t, others, a.pods(t), "reactivating gives nobody anything")
			ready(p, newcomer, globex)
			require.Equal(t, before.KMSKeyID, a.group(t, "/eks/tenants/acme").KMSKeyID)
			require.True(t, same(a.role(t, p, "acme").inline[readerPolicy], p.in.Scope.Reader("acme")))
		})
	}
}

// A cluster that turns to a key for each tenant and to deletion protection, when its groups are
// there already.
func TestWhatIsConfiguredLaterIsSetByTheProvisionersOwnRole(t *testing.T) {
	a := newAccount(t, fakeaws.Config{Enforce: true})
	acme := tenantOf("acme", "uid-1")
	before, _ := a.asItself(t, "c1")
	require.Equal(t, StateReady, status(t, reconciled(t, before(), acme), "acme").State)
	require.Empty(t, a.group(t, "/eks/tenants/acme").KMSKeyID)

	after, _ := a.asItself(t, "c1", withKeys, func(in *Installation) { in.DeletionProtection = true })
	r := reconciled(t, after(), acme)
	require.Equal(t, StateReady, status(t, r, "acme").State, "%+v", r)
	g := a.group(t, "/eks/tenants/acme")
	require.True(t, g.DeletionProtection)
	require.Equal(t, "arn:aws:kms:us-east-1:123456789012:key/"+a.tenantKeys(t)[0], g.KMSKeyID)
	require.Zero(t, reconciled(t, after(), acme).Actions)
}

func TestBootstrapRefusesRolesThatAreNoTenants(t *testing.T) {
	p := newAccount(t, fakeaws.Config{}).provisioner(t, "c1")
	for _, arn := range []string{"", "*", "arn:aws:iam::444455556666:role/*", "arn:aws:iam::444455556666:root", "arn:aws-cn:iam::444455556666:role/logs", p.in.Scope.ReaderRoleARN("acme"), "arn:aws:iam::*:role/eks-tenant-logs/x"} {
		_, err := p.PlanBootstrap(context.Background(), Bootstrap{TenantRoles: []string{arn}})
		require.ErrorContains(t, err, "of a tenant's own account", "%q", arn)
	}
}

func TestAPolicyThatIAMWouldNotTakeIsToldBeforeAnythingIsMade(t *testing.T) {
	p := newAccount(t, fakeaws.Config{}).provisioner(t, "c1")
	var roles []string
	for i := range 200 {
		roles = append(roles, fmt.Sprintf("arn:aws:iam::%012d:role/logs-of-a-tenant", i))
	}
	_, err := p.PlanBootstrap(context.Background(), Bootstrap{TenantRoles: roles})
	require.ErrorContains(t, err, "IAM takes 10240: name fewer tenants' roles")
}

// A tenant's own account is set up through its role there, which only a provisioner that was
// told of it may assume.
func TestATenantsOwnAccountIsSetUpByTheProvisionersOwnRole(t *testing.T) {
	const other = "444455556666"
	arn := "arn:aws:iam::" + other + ":role/logs"
	acme := tenantOf("acme", "uid-1")
	acme.Settings = &tenancy.Tenant{Name: "acme", RoleARN: arn, ExternalID: "only-us"}
	for name, roles := range map[string][]string{"told": {arn}, "told of such in any account": {"arn:aws:iam::*:role/logs"}, "told of another": {arn + "2"}, "not told": nil} {
		t.Run(name, func(t *testing.T) {
			a := newAccount(t, fakeaws.Config{Enforce: true})
			another, _ := a.asItselfWith(t, roles, "c1")
			ctx := context.Background()
			key := a.Account(other).RootKey()
			theirs := iam.New(iam.Options{Region: "us-east-1", BaseEndpoint: &a.url, Credentials: credentials.NewStaticCredentialsProvider(key.AccessKeyID, key.SecretAccessKey, key.SessionToken)})
			_, err := theirs.CreateRole(ctx, &iam.CreateRoleInput{RoleName: aws.String("logs"), AssumeRolePolicyDocument: aws.String(
				`{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":{"AWS":"` + another().in.Scope.ProvisionerRoleARN() + `"},"Action":"sts:AssumeRole","Condition":{"StringEquals":{"sts:ExternalId":"only-us"}}}]}`)})
			require.NoError(t, err)
			group := "arn:aws:logs:us-east-1:" + other + ":log-group:/eks/tenants/acme"
			_, err = theirs.PutRolePolicy(ctx, &iam.PutRolePolicyInput{RoleName: aws.String("logs"), PolicyName: aws.String("logs"), PolicyDocument: aws.String(
				`{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"logs:DescribeLogGroups","Resource":"*"},
				{"Effect":"Allow","Action":["logs:CreateLogGroup","logs:PutRetentionPolicy","logs:TagResource","logs:ListTagsForResource"],"Resource":["` + group + `","` + group + `:*"]}]}`)})
			require.NoError(t, err)
			s := status(t, reconciled(t, another(), acme), "acme")
			if !strings.HasPrefix(name, "told") || name == "told of another" {
				require.Equal(t, StateFailed, s.State)
				require.Contains(t, s.Reason, "sts:AssumeRole")
				require.Empty(t, a.Account(other).Groups())
				return
			}
			require.Equal(t, StateReady, s.State, s.Reason)
			require.Equal(t, 365, a.Account(other).Groups()[0].RetentionInDays)
			require.Zero(t, reconciled(t, another(), acme).Actions)
		})
	}
}

// What somebody changed about keys and associations is repaired by the provisioner's own role,
// which can touch no other key and pass no other role.
func TestKeysAndPodsAreRepairedByTheProvisionersOwnRole(t *testing.T) {
	a := newAccount(t, fakeaws.Config{Enforce: true})
	another, own := a.asItself(t, "c1", setUps["keys and pods"])
	p, ctx := another(), context.Background()
	acme := tenantOf("acme", "uid-1")
	require.Equal(t, StateReady, status(t, reconciled(t, p, acme), "acme").State)
	key := a.tenantKeys(t)[0]
	rotates := func() bool {
		out, err := a.kms.GetKeyRotationStatus(ctx, &kms.GetKeyRotationStatusInput{KeyId: &key})
		require.NoError(t, err)
		return out.KeyRotationEnabled
	}
	require.True(t, rotates())

	const account = `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":{"AWS":"arn:aws:iam::123456789012:root"},"Action":"kms:*","Resource":"*"}]}`
	_, err := a.kms.PutKeyPolicy(ctx, &kms.PutKeyPolicyInput{KeyId: &key, Policy: aws.String(account)})
	require.NoError(t, err)
	_, err = a.kms.DisableKeyRotation(ctx, &kms.DisableKeyRotationInput{KeyId: &key})
	require.NoError(t, err)
	require.False(t, rotates())
	list, err := a.eks.ListPodIdentityAssociations(ctx, &eks.ListPodIdentityAssociationsInput{ClusterName: aws.String("c1")})
	require.NoError(t, err)
	_, err = a.iam.CreateRole(ctx, &iam.CreateRoleInput{RoleName: aws.String("pods"), AssumeRolePolicyDocument: aws.String(
		`{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":{"Service":"pods.eks.amazonaws.com"},"Action":["sts:AssumeRole","sts:TagSession"]}]}`)})
	require.NoError(t, err)
	elsewhere := aws.String("arn:aws:iam::123456789012:role/pods")
	_, err = a.eks.UpdatePodIdentityAssociation(ctx, &eks.UpdatePodIdentityAssociationInput{ClusterName: aws.String("c1"), AssociationId: list.Associations[0].AssociationId, RoleArn: elsewhere})
	require.NoError(t, err)
	r := reconciled(t, another(), acme)
	require.Equal(t, StateReady, status(t, r, "acme").State, "%+v", r)
	require.Equal(t, map[string]int{"key": 1, "role": 1}, r.Repaired)
	require.Equal(t, map[string]string{"tenant-acme/log-reader": p.in.Scope.ReaderRoleARN("acme")}, a.pods(t))
	policy, err := a.kms.GetKeyPolicy(ctx, &kms.GetKeyPolicyInput{KeyId: &key})
	require.NoError(t, err)
	require.True(t, same(*policy.Policy, p.in.Scope.KMS("acme")), *policy.Policy)
	require.True(t, rotates())
	require.Zero(t, reconciled(t, another(), acme).Actions)

	// Keys that are not this cluster's, though they leave it to the account who changes them.
	keys := own.KMS.(*kms.Client)
	tagged := func(cluster string) []kmstypes.Tag {
		return []kmstypes.Tag{{TagKey: aws.String(loggroup.TagCluster), TagValue: &cluster}}
	}
	for name, tags := range map[string][]kmstypes.Tag{"nobody's": nil, "another cluster's": tagged("c2")} {
		made, err := a.kms.CreateKey(ctx, &kms.CreateKeyInput{Tags: tags})
		require.NoError(t, err)
		id := made.KeyMetadata.KeyId
		alias := aws.String(p.in.alias("globex"))
		for call, err := range map[string]error{
			"PutKeyPolicy":      second(keys.PutKeyPolicy(ctx, &kms.PutKeyPolicyInput{KeyId: id, Policy: aws.String(account)})),
			"CreateAlias":       second(keys.CreateAlias(ctx, &kms.CreateAliasInput{AliasName: alias, TargetKeyId: id})),
			"EnableKeyRotation": second(keys.EnableKeyRotation(ctx, &kms.EnableKeyRotationInput{KeyId: id})),
			"GetKeyPolicy":      second(keys.GetKeyPolicy(ctx, &kms.GetKeyPolicyInput{KeyId: id})),
		} {
			require.Equal(t, awsclient.ClassDenied, awsclient.Classify(err), "%s of %s key: %v", call, name, err)
		}
		_, err = keys.TagResource(ctx, &kms.TagResourceInput{KeyId: id, Tags: tagged("c1")})
		require.Equal(t, tags != nil, awsclient.Classify(err) == awsclient.ClassDenied, "our tag on %s key: %v", name, err)
		// A tag alone gives nothing.
		for call, err := range map[string]error{
			"PutKeyPolicy": second(keys.PutKeyPolicy(ctx, &kms.PutKeyPolicyInput{KeyId: id, Policy: aws.String(account)})),
			"CreateAlias":  second(keys.CreateAlias(ctx, &kms.CreateAliasInput{AliasName: alias, TargetKeyId: id})),
		} {
			require.Equal(t, awsclient.ClassDenied, awsclient.Classify(err), "%s of %s key with our tag: %v", call, name, err)
		}
	}
	for name, tags := range map[string][]kmstypes.Tag{"no tags": nil, "another cluster's": tagged("c2")} {
		_, err = keys.CreateKey(ctx, &kms.CreateKeyInput{Tags: tags})
		require.Equal(t, awsclient.ClassDenied, awsclient.Classify(err), "a key with %s: %v", name, err)
	}
	_, err = own.EKS.CreatePodIdentityAssociation(ctx, &eks.CreatePodIdentityAssociationInput{ClusterName: aws.String("c1"), Namespace: aws.String("x"), ServiceAccount: aws.String("y"), RoleArn: elsewhere})
	require.Equal(t, awsclient.ClassDenied, awsclient.Classify(err), "another role than readers' is not passed: %v", err)
}

// second is the error of a call whose answer does not matter.
func second[T any](_ T, err error) error { return err }
