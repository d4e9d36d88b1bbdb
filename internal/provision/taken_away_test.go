package provision

import (
	"context"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/cloudwatchlogs"
	"github.com/aws/aws-sdk-go-v2/service/eks"
	"github.com/aws/aws-sdk-go-v2/service/iam"
	"github.com/stretchr/testify/require"

	"github.com/eks-tenant-logs/eks-tenant-logs/internal/fakeaws"
	"github.com/eks-tenant-logs/eks-tenant-logs/internal/iampolicy"
	"github.com/eks-tenant-logs/eks-tenant-logs/internal/tenancy"
)

const everything = `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":["*"],"Resource":["*"]}]}`

// deny has one operation refused; the group, where one is named, alone.
func (a *testAccount) deny(operation, group string) {
	a.SetIntercept(func(c fakeaws.Call) error {
		if c.Operation == operation && (group == "" || c.LogGroup == group) {
			return &fakeaws.APIError{Code: "AccessDeniedException", Message: "denied for the test"}
		}
		return nil
	})
}

func (a *testAccount) widen(t *testing.T, name string) {
	t.Helper()
	ctx := context.Background()
	_, err := a.iam.UpdateAssumeRolePolicy(ctx, &iam.UpdateAssumeRolePolicyInput{RoleName: &name, PolicyDocument: aws.String(`{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":{"AWS":"*"},"Action":"sts:AssumeRole"}]}`)})
	require.NoError(t, err)
	_, err = a.iam.PutRolePolicy(ctx, &iam.PutRolePolicyInput{RoleName: &name, PolicyName: aws.String(readerPolicy), PolicyDocument: aws.String(everything)})
	require.NoError(t, err)
}

// tamper takes the boundary off a reader role and gives it everything there is.
func (a *testAccount) tamper(t *testing.T, name string) {
	t.Helper()
	ctx := context.Background()
	_, err := a.iam.DeleteRolePermissionsBoundary(ctx, &iam.DeleteRolePermissionsBoundaryInput{RoleName: &name})
	require.NoError(t, err)
	a.widen(t, name)
	_, err = a.iam.PutRolePolicy(ctx, &iam.PutRolePolicyInput{RoleName: &name, PolicyName: aws.String("more"), PolicyDocument: aws.String(everything)})
	require.NoError(t, err)
	managed, err := a.iam.CreatePolicy(ctx, &iam.CreatePolicyInput{PolicyName: aws.String("wide"), PolicyDocument: aws.String(everything)})
	require.NoError(t, err)
	_, err = a.iam.AttachRolePolicy(ctx, &iam.AttachRolePolicyInput{RoleName: &name, PolicyArn: managed.Policy.Arn})
	require.NoError(t, err)
}

// The template names a role of each namespace, so that the trust follows who has the tenant.
func perNamespace(in *Installation) {
	in.Trust.Principals = []string{"arn:aws:iam::" + account + ":role/$(namespace)-readers"}
}

func (a *testAccount) readersOf(t *testing.T, namespaces ...string) {
	t.Helper()
	for _, ns := range namespaces {
		_, err := a.iam.CreateRole(context.Background(), &iam.CreateRoleInput{RoleName: aws.String(ns + "-readers"), AssumeRolePolicyDocument: aws.String(
			`{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":{"AWS":"arn:aws:iam::123456789012:root"},"Action":"sts:AssumeRole"}]}`)})
		require.NoError(t, err)
	}
}

// Whatever else of a tenant can't be done, a role that somebody widened is set back.
func TestAWidenedRoleIsSetBackWhateverElseFails(t *testing.T) {
	for name, test := range map[string]struct {
		operation, group string
		before           func(*testing.T, *testAccount)
	}{
		"the group's retention": {"PutRetentionPolicy", "/eks/tenants/acme", func(t *testing.T, a *testAccount) {
			_, err := a.logs.PutRetentionPolicy(context.Background(), &cloudwatchlogs.PutRetentionPolicyInput{LogGroupName: aws.String("/eks/tenants/acme"), RetentionInDays: aws.Int32(1)})
			require.NoError(t, err)
		}},
		"taking a further policy away": {"iam:DeleteRolePolicy", "", func(t *testing.T, a *testAccount) {
			_, err := a.iam.PutRolePolicy(context.Background(), &iam.PutRolePolicyInput{RoleName: aws.String(tenancy.ReaderRole("c1", "us-east-1", "acme")), PolicyName: aws.String("more"), PolicyDocument: aws.String(everything)})
			require.NoError(t, err)
		}},
	} {
		t.Run(name, func(t *testing.T) {
			a := newAccount(t, fakeaws.Config{})
			p := a.provisioner(t, "c1")
			acme := tenantOf("acme", "uid-1")
			reconciled(t, p, acme)
			given := a.role(t, p, "acme")
			test.before(t, a)
			a.widen(t, given.name)
			a.deny(test.operation, test.group)
			r := reconciled(t, p, acme)
			require.Equal(t, StateFailed, status(t, r, "acme").State)
			now := a.role(t, p, "acme")
			require.JSONEq(t, given.trust, now.trust)
			require.JSONEq(t, given.inline[readerPolicy], now.inline[readerPolicy])
			for _, f := range r.Findings {
				require.NotContains(t, f.Text, "ExternalId")
			}
		})
	}
}

// A tenant gets a second namespace while its trust is widened and its group can't be tagged:
// the trust is set back to what it was, and the second namespace waits.
func TestAWidenedTrustIsSetBackWhileTheTenantGrows(t *testing.T) {
	a := newAccount(t, fakeaws.Config{})
	a.readersOf(t, "tenant-acme", "acme-more")
	p := a.provisioner(t, "c1", perNamespace)
	acme := tenantOf("acme", "uid-1")
	reconciled(t, p, acme)
	given := a.role(t, p, "acme")
	a.widen(t, given.name)
	grown := acme
	grown.Namespaces = append(grown.Namespaces, Namespace{"acme-more", "uid-2"})
	grown.Settings = &tenancy.Tenant{Name: "acme", Namespaces: []string{"tenant-acme", "acme-more"}}
	a.deny("TagResource", "")
	r := reconciled(t, p, grown)
	require.Equal(t, StateFailed, status(t, r, "acme").State)
	require.JSONEq(t, given.trust, a.role(t, p, "acme").trust)
	require.Contains(t, r.Findings[0].Text, "the trust policy of role")
	a.SetIntercept(nil)
	r = reconciled(t, p, grown)
	require.Equal(t, StateReady, status(t, r, "acme").State)
	require.Contains(t, a.role(t, p, "acme").trust, "acme-more-readers")
	require.Zero(t, reconciled(t, p, grown).Actions)

	// A namespace that leaves is no tampering.
	left := grown
	left.Namespaces = grown.Namespaces[:1]
	r = reconciled(t, p, left)
	require.NotContains(t, a.role(t, p, "acme").trust, "acme-more-readers")
	require.Empty(t, r.Repaired)
	require.Empty(t, r.Findings)
}

// Of what closes a role, one step that fails keeps none of the others from being done.
func TestARoleIsClosedAsFarAsAWSLetsIt(t *testing.T) {
	for _, retire := range []bool{false, true} {
		for operation, still := range map[string]func(*testing.T, *role){
			"iam:PutRolePermissionsBoundary": func(t *testing.T, r *role) { require.Empty(t, r.boundary) },
			"iam:DetachRolePolicy":           func(t *testing.T, r *role) { require.Len(t, r.attached, 1) },
			"iam:DeleteRolePolicy":           func(t *testing.T, r *role) { require.Len(t, r.inline, 2) },
			"iam:UpdateAssumeRolePolicy":     func(t *testing.T, r *role) { require.False(t, closedNow(r)) },
			"TagResource":                    func(*testing.T, *role) {},
		} {
			if operation == "TagResource" && !retire {
				continue
			}
			t.Run(operation, func(t *testing.T) {
				a := newAccount(t, fakeaws.Config{})
				p := a.provisioner(t, "c1")
				reconciled(t, p, tenantOf("acme", "uid-1"))
				ctx := context.Background()
				a.tamper(t, a.role(t, p, "acme").name)
				a.deny(operation, "")
				closing := func() State {
					if retire {
						s, _, err := p.RetireTenant(ctx, Tenant{Name: "acme"})
						require.Equal(t, err != nil, s.State == StateFailed, "%v", err)
						return s.State
					}
					return status(t, reconciled(t, p, tenantOf("acme", "uid-2")), "acme").State
				}
				require.Equal(t, StateFailed, closing())
				r := a.role(t, p, "acme")
				still(t, r)
				require.NotEqual(t, "retired", r.tags[tagState], "what is not closed is not marked as closed")
				require.True(t, closedNow(r) || operation == "iam:UpdateAssumeRolePolicy")
				require.True(t, len(r.inline) == 0 || operation == "iam:DeleteRolePolicy")
				require.True(t, len(r.attached) == 0 || operation == "iam:DetachRolePolicy")
				require.True(t, r.boundary != "" || operation == "iam:PutRolePermissionsBoundary")
				owned, err := p.Owned(ctx)
				require.NoError(t, err)
				require.Equal(t, []string{"acme"}, owned, "the controller tries again")
				a.SetIntercept(nil)
				require.NotEqual(t, StateFailed, closing())
				closed(t, a.role(t, p, "acme"))
			})
		}
	}
}

// A trust policy that can't be made does not keep what somebody added from being taken away.
func TestARoleIsNarrowedThoughItsTrustCannotBeMade(t *testing.T) {
	a := newAccount(t, fakeaws.Config{})
	acme := tenantOf("acme", "uid-1")
	reconciled(t, a.provisioner(t, "c1"), acme)
	p := a.provisioner(t, "c1", func(in *Installation) {
		for i := range 40 {
			in.Trust.Principals = append(in.Trust.Principals, "arn:aws:iam::"+account+":role/a-name-as-long-as-it-takes-to-be-too-much-"+strings.Repeat("x", i))
		}
	})
	name := a.role(t, p, "acme").name
	_, err := a.iam.PutRolePolicy(context.Background(), &iam.PutRolePolicyInput{RoleName: &name, PolicyName: aws.String("more"), PolicyDocument: aws.String(everything)})
	require.NoError(t, err)
	s := status(t, reconciled(t, p, acme), "acme")
	require.Equal(t, StateFailed, s.State)
	require.Contains(t, s.Reason, "IAM takes 2048")
	require.NotContains(t, a.role(t, p, "acme").inline, "more")
}

// One association that can't be read is its tenant's trouble; that none can be listed is
// nobody's but theirs who wait for one: groups and roles go on.
func TestAssociationsThatCannotBeReadStopNothingElse(t *testing.T) {
	a := newAccount(t, fakeaws.Config{})
	a.Account(account).AddCluster("c1")
	reconciled(t, a.provisioner(t, "c1", withPods), tenantOf("acme", "uid-1"))
	ctx := context.Background()
	stranger, err := a.eks.CreatePodIdentityAssociation(ctx, &eks.CreatePodIdentityAssociationInput{ClusterName: aws.String("c1"), Namespace: aws.String("tenant-acme"), ServiceAccount: aws.String("else"), RoleArn: aws.String(readersARN)})
	require.NoError(t, err)
	require.NotNil(t, stranger)

	a.deny("eks:DescribePodIdentityAssociation", "")
	r := reconciled(t, a.provisioner(t, "c1", withPods), tenantOf("acme", "uid-1"), tenantOf("globex", "uid-2"))
	require.Equal(t, StateReady, status(t, r, "globex").State, status(t, r, "globex").Reason)
	require.Equal(t, StateFailed, status(t, r, "acme").State)
	require.Contains(t, status(t, r, "acme").Reason, "tenant-acme/log-reader")
	require.Contains(t, findings(r), "the Pod Identity association of service account tenant-acme/else can't be read")

	a.deny("eks:ListPodIdentityAssociations", "")
	p := a.provisioner(t, "c1", withPods)
	r = reconciled(t, p, tenantOf("initech", "uid-3"))
	require.Equal(t, StateFailed, status(t, r, "initech").State)
	require.Equal(t, 365, a.group(t, "/eks/tenants/initech").RetentionInDays)
	require.NotNil(t, a.role(t, p, "initech"))
	s, _, err := p.RetireTenant(ctx, Tenant{Name: "acme"})
	require.Error(t, err, "an association may be left")
	require.Equal(t, StateFailed, s.State)
	closed(t, a.role(t, p, "acme"))
}

func TestKeysThatCannotBeListedStopNoRoleFromBeingSetBack(t *testing.T) {
	a := newAccount(t, fakeaws.Config{})
	p := a.provisioner(t, "c1", withKeys)
	acme := tenantOf("acme", "uid-1")
	reconciled(t, p, acme)
	given := a.role(t, p, "acme")
	a.widen(t, given.name)
	a.deny("kms:ListAliases", "")
	r := reconciled(t, p, acme, tenantOf("globex", "uid-2"))
	require.Equal(t, StateFailed, status(t, r, "acme").State)
	require.JSONEq(t, given.trust, a.role(t, p, "acme").trust)
	require.Nil(t, a.role(t, p, "globex"), "nobody is given what is not ready")
	require.Contains(t, findings(r), "which KMS keys the tenants have can't be told")
}

func TestABoundaryThatSaysSomethingElseIsTold(t *testing.T) {
	a := newAccount(t, fakeaws.Config{})
	acme, ctx := tenantOf("acme", "uid-1"), context.Background()
	p := a.provisioner(t, "c1")
	require.Empty(t, reconciled(t, p, acme).Findings)
	arn := p.in.Scope.BoundaryARN()
	_, err := a.iam.CreatePolicyVersion(ctx, &iam.CreatePolicyVersionInput{PolicyArn: &arn, PolicyDocument: aws.String(everything), SetAsDefault: true})
	require.NoError(t, err)
	r := reconciled(t, a.provisioner(t, "c1"), acme)
	require.Contains(t, findings(r), "says something else than it should")
	require.Contains(t, findings(r), "tenantlogs bootstrap")
	require.Zero(t, r.Writes, "the provisioner may not change it")
	a.deny("iam:GetPolicy", "")
	r = reconciled(t, a.provisioner(t, "c1"), acme)
	require.Contains(t, findings(r), "the boundary of the reader roles could not be read")
	require.Equal(t, StateReady, status(t, r, "acme").State)
}

func findings(r Report) string {
	var all []string
	for _, f := range r.Findings {
		all = append(all, f.Text)
	}
	return strings.Join(all, "\n")
}

func TestEachOIDCProviderThatIsNamedIsLookedFor(t *testing.T) {
	a := newAccount(t, fakeaws.Config{})
	by := func(provider string) iampolicy.Trust {
		return iampolicy.Trust{OIDCProvider: provider, IRSA: []iampolicy.ServiceAccount{{Namespace: "logs", Name: "reader"}}}
	}
	p := a.provisioner(t, "c1")
	plan, err := p.PlanBootstrap(context.Background(), Bootstrap{Writer: by("oidc.eks.us-east-1.amazonaws.com/id/A"), Replay: by("oidc.eks.us-east-1.amazonaws.com/id/B")})
	require.NoError(t, err)
	for _, id := range []string{"A", "B"} {
		require.Contains(t, findings(Report{Findings: plan.Findings}), "there is no OIDC provider arn:aws:iam::"+account+":oidc-provider/oidc.eks.us-east-1.amazonaws.com/id/"+id)
	}
}
