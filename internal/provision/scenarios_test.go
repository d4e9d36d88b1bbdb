package provision

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/cloudwatchlogs"
	"github.com/aws/aws-sdk-go-v2/service/iam"
	"github.com/stretchr/testify/require"

	"github.com/eks-tenant-logs/eks-tenant-logs/internal/fakeaws"
	"github.com/eks-tenant-logs/eks-tenant-logs/internal/iampolicy"
	"github.com/eks-tenant-logs/eks-tenant-logs/internal/tenancy"
)

func reconciled(t *testing.T, p *Provisioner, tenants ...Tenant) Report {
	t.Helper()
	r, err := p.Reconcile(context.Background(), tenants)
	require.NoError(t, err)
	return r
}

// closed wants a role that nobody can assume and that may do nothing.
func closed(t *testing.T, r *role) {
	t.Helper()
	require.NotNil(t, r)
	require.True(t, closedNow(r), r.trust)
	require.Empty(t, r.inline)
	require.Empty(t, r.attached)
}

func TestANamespaceMadeAnewGetsNothingUntilItIsReactivated(t *testing.T) {
	a := newAccount(t, fakeaws.Config{})
	p := a.provisioner(t, "c1")
	reconciled(t, p, tenantOf("acme", "uid-1"))
	before := a.group(t, "/eks/tenants/acme")

	newcomer := tenantOf("acme", "uid-2")
	r := reconciled(t, p, newcomer)
	s := status(t, r, "acme")
	require.Equal(t, StateRefused, s.State)
	require.Contains(t, s.Reason, "was made anew")
	require.Contains(t, s.Reason, "tenantlogs reactivate acme --namespace tenant-acme=uid-2")
	require.Empty(t, s.Namespaces)
	require.Equal(t, []string{"tenant-acme"}, []string{s.Refused[0].Namespace})
	require.Equal(t, before, a.group(t, "/eks/tenants/acme"), "the group is not touched")
	closed(t, a.role(t, p, "acme"))
	for name, again := range map[string]*Provisioner{"the same process": p, "another": a.provisioner(t, "c1")} {
		require.Zero(t, reconciled(t, again, newcomer).Writes, name)
	}

	done, writes, err := p.Reactivate(context.Background(), newcomer)
	require.NoError(t, err)
	require.Equal(t, 1, writes)
	require.Equal(t, []string{"tenant-acme"}, done.Namespaces)
	_, writes, err = p.Reactivate(context.Background(), newcomer)
	require.NoError(t, err)
	require.Zero(t, writes, "again")
	other := a.provisioner(t, "c1") // it must not go by what the role was tagged with before
	require.Equal(t, StateReady, status(t, reconciled(t, other, newcomer), "acme").State)
	require.True(t, same(a.role(t, p, "acme").inline[readerPolicy], p.in.Scope.Reader("acme")))
	require.Zero(t, reconciled(t, other, newcomer).Writes)
	require.Equal(t, StateRefused, status(t, reconciled(t, p, tenantOf("acme", "uid-1")), "acme").State, "its predecessor's UID is nobody's now")
}

func TestARoleThatSomebodyWidenedIsClosedAllTheSame(t *testing.T) {
	a := newAccount(t, fakeaws.Config{})
	p := a.provisioner(t, "c1")
	reconciled(t, p, tenantOf("acme", "uid-1"))
	name, ctx := tenancy.ReaderRole("c1", "us-east-1", "acme"), context.Background()
	_, err := a.iam.DeleteRolePermissionsBoundary(ctx, &iam.DeleteRolePermissionsBoundaryInput{RoleName: &name})
	require.NoError(t, err)
	_, err = a.iam.PutRolePolicy(ctx, &iam.PutRolePolicyInput{RoleName: &name, PolicyName: aws.String("more"), PolicyDocument: aws.String(`{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"*","Resource":"*"}]}`)})
	require.NoError(t, err)
	plan, err := p.Plan(ctx, []Tenant{tenantOf("acme", "uid-2")})
	require.NoError(t, err)
	require.Equal(t, SetBoundary, plan.Actions[0].Kind, "the provisioner may change a role's policies only within the boundary")
	reconciled(t, p, tenantOf("acme", "uid-2"))
	closed(t, a.role(t, p, "acme"))
}

func TestARetiredTenantIsNobodysUntilItIsReactivated(t *testing.T) {
	a := newAccount(t, fakeaws.Config{})
	p := a.provisioner(t, "c1")
	acme := tenantOf("acme", "uid-1")
	reconciled(t, p, acme)
	owned, err := p.Owned(context.Background())
	require.NoError(t, err)
	require.Equal(t, []string{"acme"}, owned)

	another := a.provisioner(t, "c1") // the command, while the controller p goes on
	s, writes, err := another.RetireTenant(context.Background(), Tenant{Name: "acme"})
	require.NoError(t, err)
	require.Equal(t, StateRetired, s.State)
	require.Equal(t, 4, writes, "tombstone, policy, trust, the role's tombstone")
	closed(t, a.role(t, p, "acme"))
	require.Equal(t, "retired", a.group(t, "/eks/tenants/acme").Tags[tagState])
	_, writes, err = another.RetireTenant(context.Background(), Tenant{Name: "acme"})
	require.NoError(t, err)
	require.Zero(t, writes)

	// p remembers the group as ready, and must not take the closed role for drift.
	r := reconciled(t, p, acme)
	require.Equal(t, StateRetired, status(t, r, "acme").State)
	require.Contains(t, status(t, r, "acme").Reason, "tenantlogs reactivate acme")
	require.Zero(t, r.Writes)
	require.Equal(t, StateRetired, status(t, reconciled(t, p, tenantOf("acme", "uid-2")), "acme").State)
	closed(t, a.role(t, p, "acme"))
	owned, err = p.Owned(context.Background())
	require.NoError(t, err)
	require.Empty(t, owned)

	// Somebody takes the group's tombstone away: the one on the role holds.
	arn := a.group(t, "/eks/tenants/acme").ARN
	_, err = a.logs.TagResource(context.Background(), &cloudwatchlogs.TagResourceInput{ResourceArn: &arn, Tags: map[string]string{tagState: "ready"}})
	require.NoError(t, err)
	require.Equal(t, StateRetired, status(t, reconciled(t, a.provisioner(t, "c1"), acme), "acme").State)
	closed(t, a.role(t, p, "acme"))
	_, writes, err = another.Reactivate(context.Background(), acme)
	require.NoError(t, err)
	require.NotZero(t, writes)
	_, writes, err = another.Reactivate(context.Background(), acme)
	require.NoError(t, err)
	require.Zero(t, writes)
	require.Equal(t, StateReady, status(t, reconciled(t, p, acme), "acme").State)
	_, _, err = another.RetireTenant(context.Background(), Tenant{Name: "acme"})
	require.NoError(t, err)

	// The group goes, by somebody else's hand: the tombstone on the role stays.
	_, err = a.logs.DeleteLogGroup(context.Background(), &cloudwatchlogs.DeleteLogGroupInput{LogGroupName: aws.String("/eks/tenants/acme")})
	require.NoError(t, err)
	require.Equal(t, StateRetired, status(t, reconciled(t, p, tenantOf("acme", "uid-2")), "acme").State)
}

func TestASecondNamespaceGetsATenantOnlyIfTheFileListsIt(t *testing.T) {
	a := newAccount(t, fakeaws.Config{})
	p := a.provisioner(t, "c1")
	acme := tenantOf("acme", "uid-1")
	reconciled(t, p, acme)
	acme.Namespaces = append(acme.Namespaces, Namespace{"thief", "uid-9"})
	r := reconciled(t, p, acme)
	s := status(t, r, "acme")
	require.Equal(t, StateReady, s.State, "its owner keeps it")
	require.Equal(t, []string{"tenant-acme"}, s.Namespaces)
	require.Equal(t, "thief", s.Refused[0].Namespace)
	require.Contains(t, s.Refused[0].Reason, "which is namespace tenant-acme's")
	require.Zero(t, r.Writes)

	acme.Settings = &tenancy.Tenant{Name: "acme", Namespaces: []string{"tenant-acme", "thief"}}
	r = reconciled(t, p, acme)
	require.Equal(t, []string{"tenant-acme", "thief"}, status(t, r, "acme").Namespaces)
	require.Equal(t, "uid-1 uid-9", a.group(t, "/eks/tenants/acme").Tags["eks-tenant-logs/namespace-uid"])
	require.Equal(t, map[string]int{}, r.Repaired, "the tenant changed, nobody tampered")
	require.Zero(t, reconciled(t, p, acme).Writes)
	require.Zero(t, reconciled(t, a.provisioner(t, "c1"), acme).Writes)
}

func TestTwoNamespacesThatClaimANewTenantBothGetNothing(t *testing.T) {
	a := newAccount(t, fakeaws.Config{})
	p := a.provisioner(t, "c1")
	r := reconciled(t, p, Tenant{Name: "acme", Namespaces: []Namespace{{"b", "2"}, {"a", "1"}}})
	s := status(t, r, "acme")
	require.Equal(t, StateRefused, s.State)
	require.Contains(t, s.Reason, "namespaces a and b claim the tenant")
	require.Len(t, s.Refused, 2)
	require.Nil(t, a.role(t, p, "acme"))
	for _, g := range a.Groups() {
		require.NotContains(t, g.Name, "acme")
	}
}

func TestHostileNamesAreRefusedBeforeAnyCallIsMadeOfThem(t *testing.T) {
	a := newAccount(t, fakeaws.Config{})
	p := a.provisioner(t, "c1")
	reconciled(t, p)
	before := sum(a.writes())
	for _, name := range []string{"", "..", "a/b", "*", "acme*", "ACME", "-a", "_pending", strings.Repeat("a", 64), "a\nb", "é", "${aws:PrincipalTag/x}"} {
		s := status(t, reconciled(t, p, tenantOf(name, "uid-1")), name)
		require.Equal(t, StateRefused, s.State, "%q", name)
		_, err := p.Retire(context.Background(), name)
		require.Error(t, err, "%q", name)
	}
	for _, ns := range []Namespace{{"A b", "1"}, {"x", "uid with spaces"}, {"x", "a=b"}, {"*", "1"}} {
		require.Equal(t, StateRefused, status(t, reconciled(t, p, Tenant{Name: "acme", Namespaces: []Namespace{ns}}), "acme").State, "%v", ns)
	}
	require.Equal(t, before, sum(a.writes()))
}

func TestWhatIsNotOursIsRefusedAndLeft(t *testing.T) {
	for name, test := range map[string]struct {
		tags  map[string]string
		want  string
		adopt bool // whether --adopt helps
	}{
		"no tags":           {nil, "none of our tags", true},
		"another's tags":    {map[string]string{"team": "billing"}, "none of our tags", true},
		"another tenant's":  {map[string]string{"eks-tenant-logs/tenant": "globex"}, `it is "globex"'s`, false},
		"another cluster's": {map[string]string{"eks-tenant-logs/tenant": "acme", "eks-tenant-logs/cluster": "c2"}, `is cluster "c2"'s`, false},
	} {
		t.Run(name, func(t *testing.T) {
			a := newAccount(t, fakeaws.Config{})
			a.createGroup(t, "/eks/tenants/acme", test.tags)
			before := a.group(t, "/eks/tenants/acme")
			p := a.provisioner(t, "c1")
			r := reconciled(t, p, tenantOf("acme", "uid-1"))
			require.Equal(t, StateRefused, status(t, r, "acme").State)
			require.Contains(t, status(t, r, "acme").Reason, test.want)
			require.Equal(t, before, a.group(t, "/eks/tenants/acme"))
			require.Nil(t, a.role(t, p, "acme"))
			adopting := a.provisioner(t, "c1", func(in *Installation) { in.Adopt = true })
			s := status(t, reconciled(t, adopting, tenantOf("acme", "uid-1")), "acme")
			if !test.adopt {
				require.Equal(t, StateRefused, s.State)
				return
			}
			require.Equal(t, StateReady, s.State, s.Reason)
			require.Contains(t, strings.Join(s.Findings, " "), "for ever", "a group that was there keeps its retention")
			require.Equal(t, "c1", a.group(t, "/eks/tenants/acme").Tags["eks-tenant-logs/cluster"])
			require.Zero(t, reconciled(t, p, tenantOf("acme", "uid-1")).Writes, "adopted, it is ours")
		})
	}
}

func TestAGroupThePluginMadeIsTakenOver(t *testing.T) {
	a := newAccount(t, fakeaws.Config{})
	a.createGroup(t, "/eks/tenants/acme", map[string]string{"eks-tenant-logs/tenant": "acme", "eks-tenant-logs/state": "new"})
	p := a.provisioner(t, "c1")
	s := status(t, reconciled(t, p, tenantOf("acme", "uid-1")), "acme")
	require.Equal(t, StateReady, s.State, s.Reason)
	require.Equal(t, 365, s.RetentionDays, "it was not finished, so its retention is set")
	require.Equal(t, "uid-1", a.group(t, "/eks/tenants/acme").Tags["eks-tenant-logs/namespace-uid"])
	require.Zero(t, reconciled(t, a.provisioner(t, "c1"), tenantOf("acme", "uid-1")).Writes)
}

func TestARoleOfThatNameThatIsNotOursIsNotTouched(t *testing.T) {
	a := newAccount(t, fakeaws.Config{})
	p := a.provisioner(t, "c1")
	name := tenancy.ReaderRole("c1", "us-east-1", "acme")
	_, err := a.iam.CreateRole(context.Background(), &iam.CreateRoleInput{
		RoleName: &name, Path: aws.String("/eks-tenant-logs/"), AssumeRolePolicyDocument: aws.String(`{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":{"AWS":"arn:aws:iam::123456789012:root"},"Action":"sts:AssumeRole"}]}`),
	})
	require.NoError(t, err)
	r := reconciled(t, p, tenantOf("acme", "uid-1"), tenantOf("globex", "uid-2"))
	require.Equal(t, StateRefused, status(t, r, "acme").State)
	require.Contains(t, status(t, r, "acme").Reason, "is not ours")
	require.Equal(t, StateReady, status(t, r, "globex").State, "it stops no other tenant")
	have := a.role(t, p, "acme")
	require.Empty(t, have.inline)
	require.Empty(t, have.boundary)
	require.Contains(t, have.trust, ":root")
}

func TestWhatSomebodyChangedIsRepairedAndCounted(t *testing.T) {
	a := newAccount(t, fakeaws.Config{})
	p := a.provisioner(t, "c1")
	acme := tenantOf("acme", "uid-1")
	reconciled(t, p, acme)
	name, ctx := tenancy.ReaderRole("c1", "us-east-1", "acme"), context.Background()
	const all = `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":["*"],"Resource":["*"]}]}`
	managed, err := a.iam.CreatePolicy(ctx, &iam.CreatePolicyInput{PolicyName: aws.String("wide"), PolicyDocument: aws.String(all)})
	require.NoError(t, err)
	changed := func(_ any, err error) func(*testing.T) { return func(t *testing.T) { require.NoError(t, err) } }
	for _, test := range []struct {
		name   string
		change func() func(*testing.T)
		layer  string
		find   string
	}{
		{"a removed boundary", func() func(*testing.T) {
			return changed(a.iam.DeleteRolePermissionsBoundary(ctx, &iam.DeleteRolePermissionsBoundaryInput{RoleName: &name}))
		}, "role", "had the permissions boundary none"},
		{"a widened trust", func() func(*testing.T) {
			return changed(a.iam.UpdateAssumeRolePolicy(ctx, &iam.UpdateAssumeRolePolicyInput{RoleName: &name, PolicyDocument: aws.String(`{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":{"AWS":["*"]},"Action":["sts:AssumeRole"]}]}`)}))
		}, "role", "trust policy of role"},
		{"a widened policy", func() func(*testing.T) {
			return changed(a.iam.PutRolePolicy(ctx, &iam.PutRolePolicyInput{RoleName: &name, PolicyName: aws.String(readerPolicy), PolicyDocument: aws.String(all)}))
		}, "role", ""},
		{"a further policy", func() func(*testing.T) {
			return changed(a.iam.PutRolePolicy(ctx, &iam.PutRolePolicyInput{RoleName: &name, PolicyName: aws.String("more"), PolicyDocument: aws.String(all)}))
		}, "role", "further inline policy more"},
		{"a managed policy", func() func(*testing.T) {
			return changed(a.iam.AttachRolePolicy(ctx, &iam.AttachRolePolicyInput{RoleName: &name, PolicyArn: managed.Policy.Arn}))
		}, "role", "managed policy arn:aws:iam::123456789012:policy/wide attached"},
		{"a shorter retention", func() func(*testing.T) {
			return changed(a.logs.PutRetentionPolicy(ctx, &cloudwatchlogs.PutRetentionPolicyInput{LogGroupName: aws.String("/eks/tenants/acme"), RetentionInDays: aws.Int32(1)}))
		}, "group", ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			test.change()(t)
			plan, err := p.Plan(ctx, []Tenant{acme})
			require.NoError(t, err)
			require.NotEmpty(t, plan.Actions)
			r := reconciled(t, p, acme)
			require.Equal(t, StateReady, status(t, r, "acme").State, "%+v", r)
			require.Equal(t, map[string]int{test.layer: 1}, r.Repaired)
			if test.find != "" {
				require.Contains(t, r.Findings[0].Text, test.find)
			}
			have := a.role(t, p, "acme")
			require.Equal(t, p.in.Scope.BoundaryARN(), have.boundary)
			require.Len(t, have.inline, 1)
			require.True(t, same(have.inline[readerPolicy], p.in.Scope.Reader("acme")))
			require.Empty(t, have.attached)
			require.Equal(t, 365, a.group(t, "/eks/tenants/acme").RetentionInDays)
			require.Zero(t, reconciled(t, p, acme).Writes)
		})
	}
}

func TestLongerRetentionStaysAndAnAccountsPolicyIsReportedNotFought(t *testing.T) {
	a := newAccount(t, fakeaws.Config{})
	p := a.provisioner(t, "c1")
	acme := tenantOf("acme", "uid-1")
	reconciled(t, p, acme)
	_, err := a.logs.PutRetentionPolicy(context.Background(), &cloudwatchlogs.PutRetentionPolicyInput{LogGroupName: aws.String("/eks/tenants/acme"), RetentionInDays: aws.Int32(731)})
	require.NoError(t, err)
	require.Zero(t, reconciled(t, p, acme).Actions)
	a.SetAccountRetention("cheap", 30)
	r := reconciled(t, p, acme)
	require.Zero(t, r.Writes)
	require.Contains(t, r.Findings[len(r.Findings)-1].Text, `the account-level retention policy "cheap" wins`)
	require.Equal(t, 30, status(t, r, "acme").RetentionDays)

	// A tenant that comes now gets days of its own under the policy, once.
	globex := tenantOf("globex", "uid-2")
	require.NotZero(t, reconciled(t, p, globex).Writes)
	require.Zero(t, reconciled(t, p, globex).Writes)
	a.SetAccountRetention("", 0)
	require.Equal(t, 365, a.group(t, "/eks/tenants/globex").RetentionInDays)
}

func TestTwoClustersInOneAccountDoNotClash(t *testing.T) {
	a := newAccount(t, fakeaws.Config{})
	a.boundary(t, "c2")
	a.boundary(t, "c3")
	own := func(in *Installation) {
		n, err := tenancy.NewNames("/c2/tenants/", "/c2/platform", "/c2/quarantine/")
		require.NoError(t, err)
		in.Scope.Names = n
	}
	p1, p2 := a.provisioner(t, "c1"), a.provisioner(t, "c2", own)
	require.Equal(t, StateReady, status(t, reconciled(t, p1, tenantOf("acme", "uid-1")), "acme").State)
	require.Equal(t, StateReady, status(t, reconciled(t, p2, tenantOf("acme", "uid-2")), "acme").State)
	require.NotEqual(t, a.role(t, p1, "acme").name, a.role(t, p2, "acme").name)
	require.Zero(t, reconciled(t, p1, tenantOf("acme", "uid-1")).Writes)
	require.Zero(t, reconciled(t, p2, tenantOf("acme", "uid-2")).Writes)

	// The same prefixes: refused, or shared where both say so.
	p3 := a.provisioner(t, "c3")
	require.Equal(t, StateRefused, status(t, reconciled(t, p3, tenantOf("acme", "uid-3")), "acme").State)
	before := a.group(t, "/eks/tenants/acme")
	sharing := a.provisioner(t, "c3", func(in *Installation) { in.Shared = true })
	require.Equal(t, StateReady, status(t, reconciled(t, sharing, tenantOf("acme", "uid-3")), "acme").State)
	require.Equal(t, before, a.group(t, "/eks/tenants/acme"), "its owner's tags stay")
	require.Zero(t, reconciled(t, sharing, tenantOf("acme", "uid-3")).Writes)
	require.Zero(t, reconciled(t, p1, tenantOf("acme", "uid-1")).Writes)
	require.Equal(t, StateRefused, status(t, reconciled(t, sharing, tenantOf("acme", "uid-4")), "acme").State, "made anew in the sharing cluster")
	gone, writes, err := sharing.RetireTenant(context.Background(), Tenant{Name: "acme"})
	require.NoError(t, err)
	require.Equal(t, StateRetired, gone.State)
	require.Equal(t, 1, writes, "its role was closed already; the tombstone stands on it alone")
	require.Equal(t, StateReady, status(t, reconciled(t, p1, tenantOf("acme", "uid-1")), "acme").State, "the other cluster's acme lives on")
	require.Equal(t, StateRetired, status(t, reconciled(t, sharing, tenantOf("acme", "uid-3")), "acme").State)
	_, _, err = sharing.Reactivate(context.Background(), tenantOf("acme", "uid-4"))
	require.NoError(t, err)
	require.Equal(t, StateReady, status(t, reconciled(t, sharing, tenantOf("acme", "uid-4")), "acme").State)
	require.Equal(t, before, a.group(t, "/eks/tenants/acme"))
}

func TestOneTenantsErrorStopsNoOther(t *testing.T) {
	a := newAccount(t, fakeaws.Config{})
	p := a.provisioner(t, "c1")
	a.SetIntercept(func(c fakeaws.Call) error {
		if c.LogGroup == "/eks/tenants/acme" && c.Operation == "PutRetentionPolicy" {
			return &fakeaws.APIError{Code: "AccessDeniedException", Message: "no"}
		}
		return nil
	})
	r := reconciled(t, p, tenantOf("acme", "uid-1"), tenantOf("globex", "uid-2"))
	s := status(t, r, "acme")
	require.Equal(t, StateFailed, s.State)
	require.Contains(t, s.Reason, "failed to set retention /eks/tenants/acme: AccessDeniedException: no")
	require.Nil(t, a.role(t, p, "acme"), "nobody is given a group that is not ready")
	require.Equal(t, StateReady, status(t, r, "globex").State)
	a.SetIntercept(nil)
	require.Equal(t, StateReady, status(t, reconciled(t, p, tenantOf("acme", "uid-1")), "acme").State)
}

func TestQuotasAreLookedAtBeforeAnythingIsMade(t *testing.T) {
	a := newAccount(t, fakeaws.Config{})
	few := a.provisioner(t, "c1", func(in *Installation) { in.GroupQuota = 3 })
	before := sum(a.writes())
	_, err := few.Reconcile(context.Background(), []Tenant{tenantOf("acme", "uid-1")})
	require.ErrorContains(t, err, "4 log groups are to be made")
	require.ErrorContains(t, err, "nothing was made")
	var many []Tenant
	for i := range 1000 {
		many = append(many, tenantOf("t"+strings.Repeat("x", i%50)+string(rune('a'+i%26))+string(rune('a'+i/26%26))+string(rune('a'+i/676)), "uid"))
	}
	_, err = a.provisioner(t, "c1").Reconcile(context.Background(), many)
	require.ErrorContains(t, err, "roles are to be made, and the account has 1 of 1000: nothing was made")
	require.Equal(t, before, sum(a.writes()))
}

func TestSomebodyElseAtTheSameTimeIsLookedAtAgain(t *testing.T) {
	a := newAccount(t, fakeaws.Config{})
	one, two := a.provisioner(t, "c1"), a.provisioner(t, "c1")
	done := make(chan error, 2)
	for _, p := range []*Provisioner{one, two} {
		go func() {
			r, err := p.Reconcile(context.Background(), []Tenant{tenantOf("acme", "uid-1")})
			if err == nil && (r.Tenants[0].State == StateFailed || r.Tenants[0].State == StateRefused) {
				err = errors.New(r.Tenants[0].Reason)
			}
			done <- err
		}()
	}
	require.NoError(t, <-done)
	require.NoError(t, <-done)
	require.Equal(t, StateReady, status(t, reconciled(t, one, tenantOf("acme", "uid-1")), "acme").State)
	require.Zero(t, reconciled(t, two, tenantOf("acme", "uid-1")).Writes)
	require.Equal(t, 4, a.Calls()[fakeaws.CallKey{Operation: "CreateLogGroup", Result: "OK"}])
}

func TestIAMThatTakesAWhileToShowWhatWasMadeIsWaitedFor(t *testing.T) {
	a := newAccount(t, fakeaws.Config{})
	p := a.provisioner(t, "c1")
	var late atomic.Int64
	a.SetIntercept(func(c fakeaws.Call) error {
		if strings.HasSuffix(c.Operation, "PutRolePolicy") && late.Add(1) <= 3 {
			return &fakeaws.APIError{Code: "NoSuchEntity", Message: "not yet", Status: 404}
		}
		return nil
	})
	require.Equal(t, StateReady, status(t, reconciled(t, p, tenantOf("acme", "uid-1")), "acme").State)
	require.EqualValues(t, 4, late.Load())
}

func TestATenantsOwnAccountHasItsGroupAndNoRoleOfOurs(t *testing.T) {
	a := newAccount(t, fakeaws.Config{})
	p := a.provisioner(t, "c1")
	acme := tenantOf("acme", "uid-1")
	acme.Settings = &tenancy.Tenant{Name: "acme", RoleARN: "arn:aws:iam::123456789012:role/readers", ExternalID: "only-us"}
	s := status(t, reconciled(t, p, acme), "acme")
	require.Equal(t, StateReady, s.State, s.Reason)
	require.Empty(t, s.Role)
	require.Nil(t, a.role(t, p, "acme"))
	require.Equal(t, "only-us", a.AssumedRoles()[0].ExternalID)
	require.Zero(t, reconciled(t, p, acme).Writes)
	for _, g := range a.Groups() {
		require.NotEqual(t, "/eks/quarantine/acme", g.Name, "its lines are not copied into the platform's account")
	}
}

func TestBootstrapIsRunOnceAndSetsRightWhatWasChanged(t *testing.T) {
	a := newAccount(t, fakeaws.Config{})
	a.boundary(t, "c1")
	p := a.provisioner(t, "c9")
	b := Bootstrap{Controller: true, Writer: iampolicy.Trust{Principals: []string{readersARN}}}
	plan, err := p.PlanBootstrap(context.Background(), b)
	require.NoError(t, err)
	require.NotEmpty(t, plan.Actions)
	r, err := p.Bootstrap(context.Background(), b)
	require.NoError(t, err)
	require.Empty(t, r.Failed)
	require.Equal(t, len(plan.Actions), r.Actions)
	plan, err = p.PlanBootstrap(context.Background(), b)
	require.NoError(t, err)
	require.Empty(t, plan.Actions)
	name := p.in.BootstrapRole("writer")
	_, err = a.iam.PutRolePolicy(context.Background(), &iam.PutRolePolicyInput{RoleName: &name, PolicyName: aws.String("more"), PolicyDocument: aws.String(`{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":["*"],"Resource":["*"]}]}`)})
	require.NoError(t, err)
	_, err = a.iam.DeleteRolePolicy(context.Background(), &iam.DeleteRolePolicyInput{RoleName: &name, PolicyName: aws.String(clusterPolicy)})
	require.NoError(t, err)
	plan, err = p.PlanBootstrap(context.Background(), b)
	require.NoError(t, err)
	require.Len(t, plan.Actions, 1)
	require.Equal(t, PutPolicy, plan.Actions[0].Kind)
	require.Contains(t, plan.Findings[0].Text, "further inline policy more")
}

func TestBootstrapMakesTheCanarysRoleForWhomItIsNamed(t *testing.T) {
	a := newAccount(t, fakeaws.Config{})
	a.boundary(t, "c1")
	p := a.provisioner(t, "c9")
	b := Bootstrap{Controller: true, Canary: iampolicy.Trust{Principals: []string{readersARN}}}
	name := p.in.BootstrapRole("canary")
	targets := func(b Bootstrap) (all []string) {
		plan, err := p.PlanBootstrap(t.Context(), b)
		require.NoError(t, err)
		for _, action := range plan.Actions {
			all = append(all, action.Target)
		}
		return all
	}
	require.NotContains(t, targets(b), name, "it reads the platform's group: only who asks for it gets it")
	b.CanaryTenant = "canary"
	require.Contains(t, targets(b), name)
	report, err := p.Bootstrap(t.Context(), b)
	require.NoError(t, err)
	require.Empty(t, report.Failed)
	out, err := a.iam.GetRolePolicy(t.Context(), &iam.GetRolePolicyInput{RoleName: &name, PolicyName: aws.String(clusterPolicy)})
	require.NoError(t, err)
	require.True(t, same(decoded(out.PolicyDocument), p.in.Scope.Canary("canary")))
	require.Empty(t, targets(b), "again: nothing to do")
	b.CanaryTenant = "Canary"
	_, err = p.PlanBootstrap(t.Context(), b)
	require.ErrorContains(t, err, `"Canary" is no tenant's name`)
}

func TestAGroupThatSomebodyDeletedIsMadeAgainAndTold(t *testing.T) {
	a := newAccount(t, fakeaws.Config{})
	p := a.provisioner(t, "c1")
	acme := tenantOf("acme", "uid-1")
	reconciled(t, p, acme)
	_, err := a.logs.DeleteLogGroup(context.Background(), &cloudwatchlogs.DeleteLogGroupInput{LogGroupName: aws.String("/eks/tenants/acme")})
	require.NoError(t, err)
	require.Equal(t, StateRefused, status(t, reconciled(t, p, tenantOf("acme", "uid-2")), "acme").State, "the role knows whose the name is")
	r := reconciled(t, p, acme)
	require.Equal(t, StateReady, status(t, r, "acme").State, "%+v", r)
	require.Contains(t, r.Findings[0].Text, "somebody deleted it with its logs")
	require.Zero(t, reconciled(t, p, acme).Actions)
	require.Zero(t, reconciled(t, a.provisioner(t, "c1"), acme).Actions)
}

func TestWhoeverDoesNotSayWhoClaimsChangesNothing(t *testing.T) {
	a := newAccount(t, fakeaws.Config{})
	byNamespace := func(in *Installation) {
		in.Trust = iampolicy.Trust{Principals: []string{"arn:aws:iam::123456789012:role/$(namespace)"}}
	}
	for _, name := range []string{"tenant-acme", "cluster"} {
		_, err := a.iam.CreateRole(context.Background(), &iam.CreateRoleInput{
			RoleName: &name, AssumeRolePolicyDocument: aws.String(`{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":{"AWS":"arn:aws:iam::123456789012:root"},"Action":"sts:AssumeRole"}]}`),
		})
		require.NoError(t, err)
	}
	p := a.provisioner(t, "c1", byNamespace)
	require.Equal(t, StateReady, status(t, reconciled(t, p, tenantOf("acme", "uid-1")), "acme").State)
	r := reconciled(t, a.provisioner(t, "c1", byNamespace), Tenant{Name: "acme"})
	require.Zero(t, r.Actions)
	require.Equal(t, []string{"tenant-acme"}, status(t, r, "acme").Namespaces)
	_, err := p.PlanBootstrap(context.Background(), Bootstrap{Writer: p.in.Trust})
	require.ErrorContains(t, err, "it is no tenant's")
}

func TestATrustPolicyThatIAMWouldNotTakeFailsItsTenantAlone(t *testing.T) {
	a := newAccount(t, fakeaws.Config{})
	wide := func(in *Installation) {
		in.Trust = iampolicy.Trust{Principals: []string{readersARN, "arn:aws:iam::123456789012:role/$(namespace)" + strings.Repeat("x", 60)}}
	}
	var many Tenant
	many.Name, many.Settings = "many", &tenancy.Tenant{Name: "many"}
	for i := range 30 {
		name := "ns-" + string(rune('a'+i%26)) + string(rune('a'+i/26))
		many.Namespaces = append(many.Namespaces, Namespace{name, "u" + name})
		many.Settings.Namespaces = append(many.Settings.Namespaces, name)
	}
	s := status(t, reconciled(t, a.provisioner(t, "c1", wide), many), "many")
	require.Equal(t, StateFailed, s.State)
	require.Regexp(t, `no reader role for tenant many: the trust policy of tenant many has \d+ characters, IAM takes 2048`, s.Reason)
	require.Equal(t, "ready", a.group(t, "/eks/tenants/many").Tags[tagState], "its logs have their group all the same")
}
