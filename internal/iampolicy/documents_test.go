package iampolicy

import (
	"flag"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/eks-tenant-logs/eks-tenant-logs/internal/tenancy"
)

var update = flag.Bool("update", false, "write testdata anew")

func scope(t require.TestingT, region string) Scope {
	s, err := NewScope(Scope{Region: region, Account: "111122223333", Cluster: "prod"})
	require.NoError(t, err)
	return s
}

var everyTrust = Trust{
	Principals: []string{"arn:$(partition):iam::$(account):role/team-$(tenant)"}, Accounts: []string{"444455556666"}, ExternalID: "$(cluster)/$(tenant)",
	SSORoles: []string{"$(tenant)-readers"}, OIDCProvider: "oidc.eks.us-east-1.amazonaws.com/id/EXAMPLE",
	IRSA: []ServiceAccount{{"$(namespace)", "logs"}}, PodIdentity: []ServiceAccount{{"$(namespace)", "logs"}, {"$(namespace)", "viewer"}, {"portal", "$(tenant)"}},
}

// longest is as long as tenants are.
var longest = strings.Repeat("t", 63)

func documents(t require.TestingT, s Scope, tenant string) map[string]*Document {
	every := everyTrust
	if len(tenant) > 20 {
		every.SSORoles = []string{"readers"} // their names are 32 characters at most
	}
	trust, err := s.TrustPolicy(every, tenant, "tenant-acme")
	require.NoError(t, err)
	return map[string]*Document{
		"writer": s.Writer(true), "writer-alone": s.Writer(false), "reader": s.Reader(tenant), "reader-abac": s.ReaderABAC(), "boundary": s.Boundary(),
		"auditor": s.Auditor(), "provisioner": s.Provisioner("arn:"+s.Partition+":iam::444455556666:role/logs", "arn:"+s.Partition+":iam::*:role/tenants/logs"), "replay": s.Replay(), "canary": s.Canary(tenant), "kms": s.KMS(tenant), "trust": trust,
	}
}

func TestDocumentsAreAsWritten(t *testing.T) {
	for _, region := range []string{"us-east-1", "us-gov-west-1", "cn-north-1"} {
		s := scope(t, region)
		for name, d := range documents(t, s, "acme") {
			t.Run(s.Partition+"/"+name, func(t *testing.T) {
				text, err := d.Indent()
				require.NoError(t, err)
				file := filepath.Join("testdata", s.Partition, name+".json")
				if *update {
					require.NoError(t, os.MkdirAll(filepath.Dir(file), 0o755))
					require.NoError(t, os.WriteFile(file, text, 0o644))
				}
				want, err := os.ReadFile(file)
				require.NoError(t, err)
				require.Equal(t, string(want), string(text), "go test ./internal/iampolicy -run AsWritten -update, if that is meant")
				back, err := Parse(text)
				require.NoError(t, err)
				require.True(t, Equal(d, back))
				if s.Partition != "aws" {
					require.NotContains(t, string(text), "arn:aws:")
				}
			})
		}
	}
}

// Limits of IAM (IAM and STS quotas), white space not counted: inline policies of a role 10,240
// characters, managed policies 6,144, trust policies 2,048 (4,096 on request); KMS key policies 32 KB.
// A trust with everything that can be in one, for the longest names, needs the larger quota: the
// provisioner says so before it makes the role.
func TestDocumentsAreWithinIAMsLimits(t *testing.T) {
	s, err := NewScope(Scope{Region: "us-gov-west-1", Account: "111122223333", Cluster: strings.Repeat("c", 100)})
	require.NoError(t, err)
	limits := map[string]int{"boundary": 6144, "trust": 4096, "kms": 32768}
	for name, d := range documents(t, s, longest) {
		text, err := d.MarshalJSON()
		require.NoError(t, err)
		limit := 10240
		if l, ok := limits[name]; ok {
			limit = l
		}
		t.Logf("%s: %d of %d characters", name, len(text), limit)
		require.LessOrEqual(t, len(text), limit, name)
	}
}

// By duty, each part of the longest policies fits a managed policy, and the parts say what the whole says.
func TestPartsAreWithinTheLimitOfManagedPolicies(t *testing.T) {
	s, err := NewScope(Scope{Region: "us-gov-west-1", Account: "111122223333", Cluster: strings.Repeat("c", 100)})
	require.NoError(t, err)
	roles := []string{"arn:aws-us-gov:iam::444455556666:role/logs", "arn:aws-us-gov:iam::*:role/tenants/logs"}
	for name, x := range map[string]struct {
		parts []Part
		whole *Document
	}{"provisioner": {s.ProvisionerParts(roles...), s.Provisioner(roles...)}, "auditor": {s.AuditorParts(), s.Auditor()}} {
		require.LessOrEqual(t, len(x.parts), 10, "managed policies of a role")
		n := 0
		for _, p := range x.parts {
			text, err := p.Document.MarshalJSON()
			require.NoError(t, err)
			t.Logf("%s, %s: %d of 6144 characters", name, p.Duty, len(text))
			require.LessOrEqual(t, len(text), 6144, "%s, %s", name, p.Duty)
			n += len(p.Document.Statements)
		}
		require.Len(t, x.whole.Statements, n)
		require.True(t, Equal(whole(x.parts), x.whole))
	}
}

// as is a reader role's session: its own policy, the boundary, and its tags.
func as(s Scope, tenant string, inline ...*Document) (Principal, Policies, map[string][]string) {
	p := Principal{ARN: s.ReaderRoleARN(tenant), Account: s.Account}
	context := map[string][]string{
		strings.ToLower(principalTag + tenancy.TagTenant): {tenant}, strings.ToLower(principalTag + tenancy.TagCluster): {s.Cluster},
		"aws:principalarn": {p.ARN},
	}
	return p, Policies{Identity: inline, Boundary: s.Boundary(), SameAccount: true}, context
}

func (s Scope) places(tenant string) []string {
	g := s.bare(s.Names.Group(tenant))
	return []string{g, g + ":*", g + ":log-stream:tenant-x/pod/app"}
}

// readable reports whether anything of a tenant's can be read.
func readable(s Scope, p Principal, policies Policies, context map[string][]string, tenant string) (any, all bool) {
	all = true
	for _, action := range reads {
		one := false
		for _, place := range s.places(tenant) {
			one = one || Evaluate(Request{Action: action, Resource: place, Principal: p, Context: context}, policies).Allowed
		}
		any, all = any || one, all && one
	}
	return any, all
}

func drawTenants(t *rapid.T) (a, b string) {
	name := rapid.StringMatching(`[a-z0-9]([a-z0-9-]{0,20}[a-z0-9])?`)
	a = name.Draw(t, "tenant")
	b = rapid.OneOf(name, rapid.Just(a+"-corp"), rapid.Just(a+"1"), rapid.Just("x"+a), rapid.Just(strings.Repeat(a, 3)), rapid.Just(longest[:40]+a), rapid.Just(a[:1])).Draw(t, "other")
	if a == b {
		b = a + "0"
	}
	if len(b) > 63 {
		b = b[:63]
	}
	return a, b
}

func TestAReaderReadsItsOwnAndNobodyElses(t *testing.T) {
	s := scope(t, "us-east-1")
	rapid.Check(t, func(t *rapid.T) {
		a, b := drawTenants(t)
		p, policies, context := as(s, a, s.Reader(a))
		if _, all := readable(s, p, policies, context, a); !all {
			t.Fatalf("%s does not read its own", a)
		}
		if any, _ := readable(s, p, policies, context, b); any {
			t.Fatalf("%s reads %s", a, b)
		}
		for _, other := range []string{s.Names.QuarantineGroup(a), s.Names.PlatformGroup} {
			for _, action := range reads {
				if Evaluate(Request{Action: action, Resource: s.inside(other), Principal: p, Context: context}, policies).Allowed {
					t.Fatalf("%s may %s %s", a, action, other)
				}
			}
		}
	})
}

// Whatever a role is given, the boundary holds it to its own tenant's group, and to reading.
func TestTheBoundaryHoldsWhateverARoleIsGiven(t *testing.T) {
	s := scope(t, "us-gov-west-1")
	all := &Document{Version: Version, Statements: []Statement{{Effect: Allow, Actions: []string{"*"}, Resources: []string{"*"}}}}
	rapid.Check(t, func(t *rapid.T) {
		a, b := drawTenants(t)
		p, policies, context := as(s, a, all, s.Reader(b))
		if any, _ := readable(s, p, policies, context, b); any {
			t.Fatalf("%s reads %s", a, b)
		}
		for _, action := range []string{"logs:DeleteLogGroup", "logs:PutRetentionPolicy", "logs:PutLogEvents", "logs:DescribeLogGroups", "iam:CreateRole", "s3:GetObject", "sts:AssumeRole"} {
			for _, resource := range append(s.places(a), "*") {
				if Evaluate(Request{Action: action, Resource: resource, Principal: p, Context: context}, policies).Allowed {
					t.Fatalf("%s may %s on %s", a, action, resource)
				}
			}
		}
		// Without its tags, or with another cluster's, a role reads nothing at all.
		if any, _ := readable(s, p, policies, map[string][]string{}, a); any {
			t.Fatalf("%s reads without tags", a)
		}
		context[strings.ToLower(principalTag+tenancy.TagCluster)] = []string{"another"}
		if any, _ := readable(s, p, policies, context, a); any {
			t.Fatalf("%s reads with another cluster's tag", a)
		}
		// A tag that is a pattern is a name like any other.
		context[strings.ToLower(principalTag+tenancy.TagCluster)] = []string{s.Cluster}
		context[strings.ToLower(principalTag+tenancy.TagTenant)] = []string{"*"}
		if any, _ := readable(s, p, policies, context, a); any {
			t.Fatalf("a tag of * reads %s", a)
		}
	})
}

// writes are the IAM calls by which somebody could get at more than is theirs.
var iamWrites = []string{
	"iam:AddRoleToInstanceProfile", "iam:AttachRolePolicy", "iam:AttachUserPolicy", "iam:CreateAccessKey", "iam:CreateInstanceProfile", "iam:CreateLoginProfile",
	"iam:CreatePolicy", "iam:CreatePolicyVersion", "iam:CreateRole", "iam:CreateServiceLinkedRole", "iam:CreateUser", "iam:DeletePolicy", "iam:DeletePolicyVersion",
	"iam:DeleteRole", "iam:DeleteRolePermissionsBoundary", "iam:DeleteRolePolicy", "iam:DetachRolePolicy", "iam:PassRole", "iam:PutRolePermissionsBoundary",
	"iam:PutRolePolicy", "iam:PutUserPolicy", "iam:SetDefaultPolicyVersion", "iam:TagPolicy", "iam:TagRole", "iam:UntagPolicy", "iam:UntagRole",
	"iam:UpdateAssumeRolePolicy", "iam:UpdateRole", "sts:AssumeRole",
}

// A session tag takes the place of the role's own. The role's name does not change with it: only
// between tenants whose names are both cut in their roles' names can it still do so.
func TestASessionTagMakesNoOtherTenantsRole(t *testing.T) {
	s := scope(t, "us-east-1")
	all := &Document{Version: Version, Statements: []Statement{{Effect: Allow, Actions: []string{"*"}, Resources: []string{"*"}}}}
	with := func(tenant, tag string) bool {
		p, policies, context := as(s, tenant, all)
		context[strings.ToLower(principalTag+tenancy.TagTenant)] = []string{tag}
		any, _ := readable(s, p, policies, context, tag)
		return any
	}
	rapid.Check(t, func(t *rapid.T) {
		a, b := drawTenants(t)
		if !with(a, a) || !with(b, b) {
			t.Fatalf("%s or %s does not read its own", a, b)
		}
		if with(a, b) && !remains(a, b) {
			t.Fatalf("%s with the tag of %s", a, b)
		}
	})
	long := strings.Repeat("t", tenancy.MaxTenantInRole)
	require.True(t, with(long+"1", long+"2"), "what remains, as docs/iam.md says")
	require.True(t, with(long+"1", long), "and this")
	require.False(t, with("acme", long+"2"))
	require.False(t, with(long+"1", "acme"))
	require.False(t, with(long, "acme"))
	// Elsewhere, or called otherwise, a role with the tag reads nothing.
	for _, arn := range []string{"arn:aws:iam::111122223333:role/eks-tenant-logs_acme_00000000000000000000", s.RoleARN("acme"), s.RoleARN("eks-tenant-logs_acme_0"), s.ProvisionerRoleARN()} {
		p, policies, context := as(s, "acme", all)
		context["aws:principalarn"] = []string{arn}
		any, _ := readable(s, p, policies, context, "acme")
		require.False(t, any, arn)
	}
}

func TestTheProvisionerCannotRaiseItselfNorAnybody(t *testing.T) {
	s := scope(t, "us-east-1")
	d := s.Provisioner()
	cluster, tenantTag := strings.ToLower(resourceTag+tenancy.TagCluster), strings.ToLower(resourceTag+tenancy.TagTenant)
	own := map[string][]string{cluster: {s.Cluster}, tenantTag: {"acme"}, "iam:permissionsboundary": {s.BoundaryARN()}}
	reader := s.ReaderRoleARN("acme")
	ask := func(action, resource string, context map[string][]string) bool {
		return Evaluate(Request{Action: action, Resource: resource, Principal: Principal{ARN: s.RoleARN("provisioner"), Account: s.Account}, Context: context}, Policies{Identity: []*Document{d}, SameAccount: true}).Allowed
	}
	with := func(more map[string][]string) map[string][]string {
		c := maps.Clone(own)
		for k, v := range more {
			if c[strings.ToLower(k)] = v; v == nil {
				delete(c, strings.ToLower(k))
			}
		}
		return c
	}
	// On anything but readers' roles: nothing.
	for _, purpose := range []string{"writer", "provisioner", "auditor", "replay", "canary"} {
		arn := s.RoleARN(tenancy.ClusterRole(s.Cluster, s.Region, purpose))
		for _, action := range iamWrites {
			require.False(t, ask(action, arn, own), "%s on %s", action, arn)
		}
	}
	for _, arn := range []string{
		s.BoundaryARN(), "arn:aws:iam::111122223333:role/Admin", "arn:aws:iam::111122223333:user/eks-tenant-logs_x", "arn:aws:iam::444455556666:role/eks-tenant-logs/eks-tenant-logs_acme_x",
		"arn:aws:iam::111122223333:role/eks-tenant-logs_acme", "*",
	} {
		for _, action := range iamWrites {
			require.False(t, ask(action, arn, own), "%s on %s", action, arn)
		}
	}
	allowed := []string{"iam:DeleteRolePolicy", "iam:DetachRolePolicy", "iam:PutRolePermissionsBoundary", "iam:PutRolePolicy", "iam:TagRole", "iam:UpdateAssumeRolePolicy"}
	for _, action := range iamWrites {
		require.Equal(t, slices.Contains(allowed, action), ask(action, reader, own), "%s on a reader's role", action)
	}
	// Of another cluster, of no tenant, or with another boundary: no role that is written to.
	for name, context := range map[string]map[string][]string{
		"another cluster's": with(map[string][]string{cluster: {"other"}}), "without a cluster": with(map[string][]string{cluster: nil}),
		"without a tenant": with(map[string][]string{tenantTag: nil}),
	} {
		for _, action := range allowed {
			require.False(t, ask(action, reader, context), "%s on a role %s", action, name)
		}
	}
	for _, boundary := range [][]string{nil, {"arn:aws:iam::aws:policy/AdministratorAccess"}} {
		for _, action := range []string{"iam:PutRolePolicy", "iam:PutRolePermissionsBoundary", "iam:DeleteRolePolicy", "iam:DetachRolePolicy"} {
			require.False(t, ask(action, reader, with(map[string][]string{"iam:PermissionsBoundary": boundary})), "%s with boundary %v", action, boundary)
		}
	}
	// A role is made with the boundary and both tags, or not.
	tags := map[string][]string{strings.ToLower(requestTag + tenancy.TagCluster): {s.Cluster}, strings.ToLower(requestTag + tenancy.TagTenant): {"acme"}, "iam:permissionsboundary": {s.BoundaryARN()}}
	require.True(t, ask("iam:CreateRole", reader, tags))
	require.True(t, ask("iam:TagRole", reader, tags), "its tags come with it")
	for key := range tags {
		less := maps.Clone(tags)
		delete(less, key)
		require.False(t, ask("iam:CreateRole", reader, less), "without %s", key)
	}
	// The tags that say whose a role is stay what they are.
	tag := func(key, value string) map[string][]string {
		return with(map[string][]string{requestTag + key: {value}})
	}
	require.True(t, ask("iam:TagRole", reader, tag(tenancy.TagTenant, "acme")))
	require.False(t, ask("iam:TagRole", reader, tag(tenancy.TagTenant, "globex")), "one tenant's role becomes another's")
	require.True(t, ask("iam:TagRole", reader, tag(tenancy.TagState, "retired")))
	require.False(t, ask("iam:TagRole", reader, tag(tenancy.TagCluster, "other")))
	// PassRole is for EKS alone.
	require.True(t, ask("iam:PassRole", reader, map[string][]string{"iam:passedtoservice": {"pods.eks.amazonaws.com"}}))
	require.False(t, ask("iam:PassRole", reader, map[string][]string{"iam:passedtoservice": {"ec2.amazonaws.com"}}))
}

// An administrator's policy beside its own does not let the provisioner out: the Denies hold.
func TestTheProvisionersDeniesHoldWhateverElseItIsGiven(t *testing.T) {
	s := scope(t, "us-east-1")
	all := &Document{Version: Version, Statements: []Statement{{Effect: Allow, Actions: []string{"*"}, Resources: []string{"*"}}}}
	cluster, tenant := tenancy.TagCluster, tenancy.TagTenant
	reader := s.ReaderRoleARN("acme")
	ask := func(action, resource string, pairs ...string) Decision {
		context := map[string][]string{}
		for i := 0; i < len(pairs); i += 2 {
			context[strings.ToLower(pairs[i])] = []string{pairs[i+1]}
		}
		return Evaluate(Request{Action: action, Resource: resource, Context: context}, Policies{Identity: []*Document{all, s.Provisioner()}, SameAccount: true})
	}
	const other = "arn:aws:iam::aws:policy/AdministratorAccess"
	for name, d := range map[string]Decision{
		"taking the boundary off":                 ask("iam:DeleteRolePermissionsBoundary", reader, "iam:PermissionsBoundary", s.BoundaryARN()),
		"another boundary":                        ask("iam:PutRolePermissionsBoundary", reader, "iam:PermissionsBoundary", other),
		"a role with another boundary":            ask("iam:CreateRole", reader, "iam:PermissionsBoundary", other),
		"a role with none":                        ask("iam:CreateRole", reader),
		"a policy beyond the boundary":            ask("iam:PutRolePolicy", reader),
		"a managed policy":                        ask("iam:AttachRolePolicy", reader, "iam:PermissionsBoundary", s.BoundaryARN()),
		"deleting a role":                         ask("iam:DeleteRole", reader),
		"taking tags off":                         ask("iam:UntagRole", reader, "aws:TagKeys", tenant),
		"another tenant":                          ask("iam:TagRole", reader, requestTag+tenant, "globex", resourceTag+tenant, "acme", resourceTag+cluster, "prod"),
		"another cluster":                         ask("iam:TagRole", reader, requestTag+cluster, "other", resourceTag+cluster, "prod"),
		"another cluster's role":                  ask("iam:TagRole", reader, requestTag+cluster, "other", resourceTag+cluster, "other"),
		"another cluster's role without a tenant": ask("iam:TagRole", reader, requestTag+tenant, "acme", resourceTag+cluster, "other"),
		"assuming a reader's role":                ask("sts:AssumeRole", reader),
		"tagging a session of it":                 ask("sts:TagSession", reader),
		"a role for virtual machines":             ask("iam:PassRole", reader, "iam:PassedToService", "ec2.amazonaws.com"),
	} {
		require.True(t, d.Explicit, "%s: %s", name, d.By)
	}
	for name, d := range map[string]Decision{
		"the boundary":         ask("iam:PutRolePermissionsBoundary", reader, "iam:PermissionsBoundary", s.BoundaryARN()),
		"the same tenant":      ask("iam:TagRole", reader, requestTag+tenant, "acme", resourceTag+tenant, "acme", requestTag+cluster, "prod", resourceTag+cluster, "prod"),
		"a new role's tags":    ask("iam:TagRole", reader, requestTag+tenant, "acme", requestTag+cluster, "prod"),
		"some other tag of it": ask("iam:TagRole", reader, requestTag+tenancy.TagState, "retired", resourceTag+tenant, "acme", resourceTag+cluster, "prod"),
	} {
		require.True(t, d.Allowed, "%s: %s", name, d.By)
	}
	for _, resource := range []string{
		s.BoundaryARN(), s.RoleARN(tenancy.ClusterRole(s.Cluster, s.Region, "provisioner")), s.RoleARN(tenancy.ClusterRole(s.Cluster, s.Region, "writer")),
		"arn:aws:iam::111122223333:role/Admin", "arn:aws:iam::111122223333:user/x", other, "*",
	} {
		for _, action := range iamWrites {
			if strings.HasPrefix(action, "iam:") {
				d := ask(action, resource, "iam:PermissionsBoundary", s.BoundaryARN(), "iam:PassedToService", "pods.eks.amazonaws.com")
				require.True(t, d.Explicit, "%s on %s: %s", action, resource, d.By)
			}
		}
	}
}

func TestTheProvisionerChangesNoKeyButItsClusters(t *testing.T) {
	s := scope(t, "us-east-1")
	d := s.Provisioner()
	tags := func(of, cluster string) map[string][]string {
		return map[string][]string{strings.ToLower(of + tenancy.TagCluster): {cluster}}
	}
	both := tags(requestTag, s.Cluster)
	maps.Copy(both, tags(resourceTag, s.Cluster))
	aliased := tags(resourceTag, s.Cluster)
	aliased["kms:resourcealiases"] = []string{"alias/somebody", "alias/eks-tenant-logs/" + s.Cluster + "/acme"}
	foreign := tags(requestTag, s.Cluster)
	maps.Copy(foreign, tags(resourceTag, "other"))
	for _, x := range []struct {
		name, action, resource string
		context                map[string][]string
		allowed                bool
	}{
		{"a key with our tag", "kms:CreateKey", "*", tags(requestTag, s.Cluster), true},
		{"a key with another's tag", "kms:CreateKey", "*", tags(requestTag, "other"), false},
		{"a key without tags", "kms:CreateKey", "*", nil, false},
		{"its tags", "kms:TagResource", "*", tags(requestTag, s.Cluster), true},
		{"its tags, should they count as a key's already", "kms:TagResource", "*", both, true},
		{"another's tags", "kms:TagResource", "*", tags(requestTag, "other"), false},
		{"our tag on another's key", "kms:TagResource", s.kms("key/1"), foreign, false},
		{"our key's policy", "kms:PutKeyPolicy", s.kms("key/1"), aliased, true},
		{"the policy of a key that has our tag alone", "kms:PutKeyPolicy", s.kms("key/1"), tags(resourceTag, s.Cluster), false},
		{"the policy of a key that has our alias alone", "kms:PutKeyPolicy", s.kms("key/1"), map[string][]string{"kms:resourcealiases": aliased["kms:resourcealiases"]}, false},
		{"another's key's policy", "kms:PutKeyPolicy", s.kms("key/1"), tags(resourceTag, "other"), false},
		{"nobody's key's policy", "kms:PutKeyPolicy", s.kms("key/1"), nil, false},
		{"a key's alias, which its own policy decides", "kms:CreateAlias", s.kms("key/1"), aliased, false},
		{"our alias", "kms:CreateAlias", s.kms("alias/eks-tenant-logs/" + s.Cluster + "/acme"), nil, true},
		{"another's alias", "kms:CreateAlias", s.kms("alias/eks-tenant-logs/other/acme"), nil, false},
		{"use of our key", "kms:Decrypt", s.kms("key/1"), tags(resourceTag, s.Cluster), false},
		{"deletion of our key", "kms:ScheduleKeyDeletion", s.kms("key/1"), tags(resourceTag, s.Cluster), false},
		{"switching our key off", "kms:DisableKey", s.kms("key/1"), tags(resourceTag, s.Cluster), false},
		{"the end of its rotation", "kms:DisableKeyRotation", s.kms("key/1"), tags(resourceTag, s.Cluster), false},
	} {
		got := Evaluate(Request{Action: x.action, Resource: x.resource, Context: x.context}, Policies{Identity: []*Document{d}, SameAccount: true}).Allowed
		require.Equal(t, x.allowed, got, x.name)
	}
}

func TestAKeysPolicyNamesWhoMayDoWhatWithIt(t *testing.T) {
	s := scope(t, "us-gov-west-1")
	all := &Document{Version: Version, Statements: []Statement{{Effect: Allow, Actions: []string{"*"}, Resources: []string{"*"}}}}
	ask := func(action, arn string, policies ...*Document) bool {
		account := strings.Split(arn, ":")[4]
		return Evaluate(Request{Action: action, Resource: s.kms("key/1"), Principal: Principal{ARN: arn, Account: account}, Context: map[string][]string{"aws:principalarn": {arn}}},
			Policies{Identity: policies, Resource: []*Document{s.KMS("acme")}, SameAccount: account == s.Account, Required: true}).Allowed
	}
	provisioner, admin := s.ProvisionerRoleARN(), "arn:aws-us-gov:iam::111122223333:role/Admin"
	for _, action := range []string{"kms:CreateAlias", "kms:EnableKeyRotation", "kms:GetKeyPolicy", "kms:GetKeyRotationStatus", "kms:PutKeyPolicy"} {
		require.True(t, ask(action, provisioner), action)
		require.True(t, ask(action, provisioner, s.Provisioner()), action)
		require.True(t, ask(action, admin, all), action)
		require.False(t, ask(action, admin), action)
		require.False(t, ask(action, "arn:aws-us-gov:iam::444455556666:role"+s.RolePath+"x", all), action)
	}
	for _, action := range []string{"kms:Decrypt", "kms:Encrypt", "kms:GenerateDataKey", "kms:ReEncryptFrom", "kms:CreateGrant"} {
		for _, arn := range []string{provisioner, admin} {
			require.False(t, ask(action, arn, all), "%s by %s", action, arn)
		}
	}
	for _, action := range []string{"kms:ScheduleKeyDeletion", "kms:DisableKey", "kms:Decrypt", "kms:CreateGrant"} {
		require.False(t, ask(action, provisioner, all, s.Provisioner()), action)
	}
	logs := func(service, arn string) bool {
		return Evaluate(Request{Action: "kms:Decrypt", Resource: s.kms("key/1"), Principal: Principal{Service: service}, Context: map[string][]string{"kms:encryptioncontext:aws:logs:arn": {arn}}},
			Policies{Resource: []*Document{s.KMS("acme")}, SameAccount: true, Required: true}).Allowed
	}
	require.True(t, logs("logs.us-gov-west-1.amazonaws.com", s.bare("/eks/tenants/acme")))
	require.False(t, logs("logs.us-gov-west-1.amazonaws.com", s.bare("/eks/tenants/acme-corp")))
	require.False(t, logs("s3.amazonaws.com", s.bare("/eks/tenants/acme")))
}

func TestNobodyDeletesAndOnlyReadersAndReplayRead(t *testing.T) {
	s := scope(t, "us-east-1")
	reading := map[string]bool{"reader": true, "reader-abac": true, "boundary": true, "replay": true, "canary": true}
	for name, d := range documents(t, s, "acme") {
		if name == "trust" || name == "kms" {
			continue
		}
		context := map[string][]string{
			"aws:principaltag/kubernetes-namespace": {"acme"}, "aws:principaltag/eks-cluster-name": {"prod"},
			"aws:principaltag/eks-cluster-arn": {"arn:aws:eks:us-east-1:111122223333:cluster/prod"}, strings.ToLower(principalTag + tenancy.TagTenant): {"acme"},
			strings.ToLower(principalTag + tenancy.TagCluster): {"prod"}, "aws:principalarn": {s.ReaderRoleARN("acme")},
		}
		for _, g := range []string{s.Names.Group("acme"), s.Names.QuarantineGroup("acme"), s.Names.PlatformGroup} {
			for _, place := range []string{s.bare(g), s.bare(g) + ":*", s.bare(g) + ":log-stream:x"} {
				ask := func(action string) bool {
					return Evaluate(Request{Action: action, Resource: place, Context: context}, Policies{Identity: []*Document{d}, SameAccount: true}).Allowed
				}
				for _, action := range slices.Concat(logsActions(t, "sends"), destroys) {
					require.False(t, ask(action), "%s may %s on %s", name, action, place)
				}
				for _, action := range logsActions(t, "shows") {
					require.False(t, ask(action) && !reading[name], "%s may %s on %s", name, action, place)
				}
			}
		}
	}
	// Nodes under a provisioner can't set anybody's retention.
	for _, action := range []string{"logs:PutRetentionPolicy", "logs:CreateLogGroup", "logs:TagResource"} {
		for controller, want := range map[bool]bool{true: false, false: true} {
			place := s.places("acme")
			is := slices.ContainsFunc(place, func(r string) bool {
				return Evaluate(Request{Action: action, Resource: r}, Policies{Identity: []*Document{s.Writer(controller)}, SameAccount: true}).Allowed
			})
			require.Equal(t, want, is, "%s, controller %v", action, controller)
		}
	}
}

func TestWhichRolesMayBeNamedForTenantsOwnAccounts(t *testing.T) {
	s := scope(t, "us-east-1")
	atRoot := s
	atRoot.RolePath = "/"
	for _, x := range []struct {
		arn   string
		scope Scope
		says  string // empty: it may
	}{
		{"arn:aws:iam::444455556666:role/logs", s, ""},
		{"arn:aws:iam::444455556666:role/a/path/logs", s, ""},
		{"arn:aws:iam::444455556666:role/eks-tenant-logs/logs", s, ""},
		{"arn:aws:iam::111122223333:role/logs", s, ""},
		{"arn:aws:iam::*:role/a/path/logs", s, ""},
		{"arn:aws:iam::*:role/logs", atRoot, ""},
		{"arn:aws:iam::*:role/eks-tenant-logs-theirs", s, ""},
		{"arn:aws:iam::*:role/eks-tenant-logs-theirs", Scope{}, ""},
		{"arn:aws:iam::*:role/eks-tenant-logs/x", Scope{}, "this installation's own roles"},
		{"", s, "not the ARN of one role"},
		{"*", s, "not the ARN of one role"},
		{"logs", s, "not the ARN of one role"},
		{"arn:aws:iam::444455556666:role/*", s, "not the ARN of one role"},
		{"arn:aws:iam::444455556666:role/log?", s, "not the ARN of one role"},
		{"arn:aws:iam::4444*:role/logs", s, "not the ARN of one role"},
		{"arn:*:iam::444455556666:role/logs", s, "not the ARN of one role"},
		{"arn:aws:iam::444455556666:role/logs/", s, "not the ARN of one role"},
		{"arn:aws:iam::444455556666:role/${aws:PrincipalTag/x}", s, "not the ARN of one role"},
		{"arn:aws:iam::444455556666:root", s, "not the ARN of one role"},
		{"arn:aws:iam::444455556666:user/logs", s, "not the ARN of one role"},
		{"arn:aws:sts::444455556666:assumed-role/logs/x", s, "not the ARN of one role"},
		{"arn:aws-cn:iam::444455556666:role/logs", s, "another partition"},
		{s.ReaderRoleARN("acme"), s, "this installation's own roles"},
		{"arn:aws:iam::111122223333:role/EKS-tenant-logs/x", s, "this installation's own roles"},
		{"arn:aws:iam::*:role/eks-tenant-logs/x", s, "this installation's own roles"},
		{atRoot.ReaderRoleARN("acme"), atRoot, "this installation's own roles"},
		{"arn:aws:iam::*:role/eks-tenant-logs_x", atRoot, "this installation's own roles"},
	} {
		err := x.scope.CheckTenantRoles([]string{"arn:aws:iam::777788889999:role/other", x.arn})
		if x.says == "" {
			require.NoError(t, err)
			continue
		}
		require.ErrorContains(t, err, x.says, x.arn)
		require.NotContains(t, err.Error(), "777788889999")
	}
}

// Whoever may assume tenants' roles assumes those, none of this installation's, and by an open
// account none of this one.
func TestTenantsRolesAreTheOnlyOnesAssumed(t *testing.T) {
	s := scope(t, "us-east-1")
	all := &Document{Version: Version, Statements: []Statement{{Effect: Allow, Actions: []string{"*"}, Resources: []string{"*"}}}}
	roles := []string{"arn:aws:iam::444455556666:role/logs", "arn:aws:iam::*:role/tenants/logs"}
	for name, d := range map[string]*Document{"writer": s.Writer(true, roles...), "alone": s.Writer(false, roles...), "provisioner": s.Provisioner(roles...), "replay": s.Replay(roles...)} {
		ask := func(arn string, more ...*Document) bool {
			return Evaluate(Request{Action: "sts:AssumeRole", Resource: arn, Context: map[string][]string{"aws:resourceaccount": {strings.Split(arn, ":")[4]}}},
				Policies{Identity: append(more, d), SameAccount: true}).Allowed
		}
		require.True(t, ask("arn:aws:iam::444455556666:role/logs"), name)
		require.True(t, ask("arn:aws:iam::777788889999:role/tenants/logs"), name)
		for _, arn := range []string{"arn:aws:iam::444455556666:role/logs2", "arn:aws:iam::777788889999:role/logs", "arn:aws:iam::111122223333:role/tenants/logs", s.ReaderRoleARN("acme")} {
			require.False(t, ask(arn), "%s: %s", name, arn)
		}
		for _, arn := range []string{s.ReaderRoleARN("acme"), s.ProvisionerRoleARN()} {
			require.False(t, ask(arn, all), "%s: %s", name, arn)
		}
	}
	s.RolePath = "/"
	require.Equal(t, []string{"arn:aws:iam::111122223333:role/eks-tenant-logs*"}, s.noneOfOurOwn().Resources)
}

func TestTrustIsRenderedOrRefused(t *testing.T) {
	s := scope(t, "us-east-1")
	for name, test := range map[string]struct {
		trust Trust
		says  string
	}{
		"nobody":                                 {Trust{}, "names nobody"},
		"everybody":                              {Trust{Principals: []string{"*"}}, "the ARN of a role"},
		"an unknown variable":                    {Trust{Principals: []string{"arn:aws:iam::111122223333:role/$(team)"}}, "unknown variable $(team)"},
		"a service's ARN":                        {Trust{Principals: []string{"arn:aws:s3:::x"}}, "the ARN of a role"},
		"an account's name":                      {Trust{Accounts: []string{"mine"}}, "12 digits"},
		"another account without an external id": {Trust{Accounts: []string{"444455556666"}}, "other accounts must give one"},
		"another account's root":                 {Trust{Principals: []string{"arn:aws:iam::444455556666:root"}}, "name it as an account, with an external id"},
		"another partition":                      {Trust{Principals: []string{"arn:aws-cn:iam::111122223333:role/x"}}, "not of partition aws"},
		"an external id of one letter":           {Trust{Accounts: []string{"444455556666"}, ExternalID: "x"}, "external id"},
		"a permission set with a wildcard":       {Trust{SSORoles: []string{"Admin*"}}, "permission set"},
		"a pattern of another account":           {Trust{SSORoles: []string{"arn:aws:iam::444455556666:role/aws-reserved/*"}}, "not of account"},
		"IRSA without a provider":                {Trust{IRSA: []ServiceAccount{{"a", "b"}}}, "OIDC provider"},
		"IRSA with a URL":                        {Trust{IRSA: []ServiceAccount{{"a", "b"}}, OIDCProvider: "https://x"}, "without https://"},
		"a service account with a wildcard":      {Trust{PodIdentity: []ServiceAccount{{"*", "b"}}}, "a namespace's name"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := s.TrustPolicy(test.trust, "acme", "tenant-acme")
			require.ErrorContains(t, err, test.says)
		})
	}
	_, err := s.TrustPolicy(Trust{Principals: []string{"arn:aws:iam::111122223333:role/$(tenant)"}}, "", "")
	require.ErrorContains(t, err, "nothing for")
}

func TestWhoMayAssumeAReaderRole(t *testing.T) {
	s := scope(t, "us-east-1")
	d, err := s.TrustPolicy(everyTrust, "acme", "tenant-acme")
	require.NoError(t, err)
	pod := func(namespace, account, cluster string) Request {
		return Request{Action: "sts:AssumeRole", Principal: Principal{Service: "pods.eks.amazonaws.com"}, Context: map[string][]string{
			"aws:requesttag/kubernetes-namespace": {namespace}, "aws:requesttag/kubernetes-service-account": {account},
			"aws:requesttag/eks-cluster-arn": {"arn:aws:eks:us-east-1:111122223333:cluster/" + cluster}, "aws:sourceaccount": {"111122223333"},
		}}
	}
	tagged := func(r Request, key, value string) Request {
		r.Context[strings.ToLower(key)] = []string{value}
		return r
	}
	web := func(sub, aud string) Request {
		p := everyTrust.OIDCProvider
		return Request{Action: "sts:AssumeRoleWithWebIdentity", Principal: Principal{Federated: "arn:aws:iam::111122223333:oidc-provider/" + p},
			Context: map[string][]string{strings.ToLower(p + ":sub"): {sub}, strings.ToLower(p + ":aud"): {aud}}}
	}
	role := func(action, account, name, external string) Request {
		arn := "arn:aws:iam::" + account + ":role/" + name
		return Request{Action: action, Principal: Principal{ARN: arn, Account: account}, Context: map[string][]string{"aws:principalarn": {arn}, "sts:externalid": {external}}}
	}
	for name, test := range map[string]struct {
		r    Request
		same bool
		want bool
	}{
		"the team's role":                      {role("sts:AssumeRole", "111122223333", "team-acme", ""), true, true},
		"another team's":                       {role("sts:AssumeRole", "111122223333", "team-globex", ""), true, false},
		"the team's role, with session tags":   {role("sts:TagSession", "111122223333", "team-acme", ""), true, false},
		"another account with the external id": {role("sts:AssumeRole", "444455556666", "x", "prod/acme"), false, true},
		"another account without it":           {role("sts:AssumeRole", "444455556666", "x", ""), false, false},
		"a third account":                      {role("sts:AssumeRole", "777788889999", "x", "prod/acme"), false, false},
		"the permission set's role":            {role("sts:AssumeRole", "111122223333", "aws-reserved/sso.amazonaws.com/eu-west-1/AWSReservedSSO_acme-readers_0123456789abcdef", ""), true, true},
		"the same without a region":            {role("sts:AssumeRole", "111122223333", "aws-reserved/sso.amazonaws.com/AWSReservedSSO_acme-readers_0123456789abcdef", ""), true, true},
		"a longer permission set's":            {role("sts:AssumeRole", "111122223333", "aws-reserved/sso.amazonaws.com/AWSReservedSSO_acme-readers_more_0123456789abcdef", ""), true, false},
		"somebody who calls a role so":         {role("sts:AssumeRole", "111122223333", "AWSReservedSSO_acme-readers_0123456789abcdef", ""), true, false},
		"the pod's service account":            {pod("tenant-acme", "logs", "prod"), true, true},
		"its other one":                        {pod("tenant-acme", "viewer", "prod"), true, true},
		"of another namespace":                 {pod("tenant-globex", "logs", "prod"), true, false},
		"another namespace's own name":         {pod("portal", "logs", "prod"), true, false},
		"the portal's":                         {pod("portal", "acme", "prod"), true, true},
		"of another cluster":                   {pod("tenant-acme", "logs", "test"), true, false},
		"of another account":                   {tagged(pod("tenant-acme", "logs", "prod"), "aws:sourceaccount", "444455556666"), true, false},
		"with a tenant's tag":                  {tagged(pod("tenant-acme", "logs", "prod"), requestTag+tenancy.TagTenant, "globex"), true, false},
		"with a cluster's tag":                 {tagged(pod("tenant-acme", "logs", "prod"), requestTag+tenancy.TagCluster, "other"), true, false},
		"the token's service account":          {web("system:serviceaccount:tenant-acme:logs", "sts.amazonaws.com"), true, true},
		"for somebody else":                    {web("system:serviceaccount:tenant-acme:logs", "vault"), true, false},
		"of another service account":           {web("system:serviceaccount:tenant-acme:logs2", "sts.amazonaws.com"), true, false},
	} {
		t.Run(name, func(t *testing.T) {
			test.r.Resource = s.ReaderRoleARN("acme")
			all := &Document{Version: Version, Statements: []Statement{{Effect: Allow, Actions: []string{"*"}, Resources: []string{"*"}}}}
			got := Evaluate(test.r, Policies{Identity: []*Document{all}, Resource: []*Document{d}, SameAccount: test.same, Required: true})
			require.Equal(t, test.want, got.Allowed, got.By)
		})
	}
}

func TestScopesAreChecked(t *testing.T) {
	_, err := NewScope(Scope{Region: "nowhere", Partition: "arn:aws", Account: "12", Cluster: "a b", RolePath: "x"})
	for _, says := range []string{`region "nowhere"`, `partition "arn:aws"`, `account "12"`, `cluster "a b"`, `role path "x"`} {
		require.ErrorContains(t, err, says)
	}
	_, err = NewScope(Scope{Region: "us-gov-west-1", Partition: "aws", Account: "111122223333", Cluster: "a"})
	require.ErrorContains(t, err, "which is aws-us-gov")
}

func TestTheCanaryLooksIntoThreeGroupsAndNoOther(t *testing.T) {
	s := scope(t, "us-gov-west-1")
	may := func(action, group string) bool {
		for _, place := range []string{s.bare(group), s.bare(group) + ":*", s.bare(group) + ":log-stream:"} {
			if Evaluate(Request{Action: action, Resource: place}, Policies{Identity: []*Document{s.Canary("canary")}, SameAccount: true}).Allowed {
				return true
			}
		}
		return false
	}
	for _, g := range []string{s.Names.Group("canary"), s.Names.QuarantineGroup("canary"), s.Names.PlatformGroup} {
		require.True(t, may("logs:FilterLogEvents", g), g)
		require.False(t, may("logs:PutLogEvents", g), g)
	}
	for _, g := range []string{s.Names.Group("acme"), s.Names.Group("canary-corp"), s.Names.QuarantineGroup("acme"), s.Names.QuarantineGroup("canary2"), s.Names.PlatformGroup + "-2"} {
		require.False(t, may("logs:FilterLogEvents", g), g)
	}
}
