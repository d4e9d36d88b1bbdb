package iampolicy

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/eks-tenant-logs/eks-tenant-logs/internal/tenancy"
)

// What somebody could do who has the provisioner's credentials: docs/iam.md says so by this table,
// that nobody takes the boundary for more than it is.
func TestWhatATakenOverProvisionerCouldDoAndWhatNot(t *testing.T) {
	s := scope(t, "us-east-1")
	key := func(of, name string) string { return strings.ToLower(of + name) }
	ours := map[string][]string{key(resourceTag, tenancy.TagCluster): {s.Cluster}, key(resourceTag, tenancy.TagTenant): {"acme"}, "iam:permissionsboundary": {s.BoundaryARN()}}
	making := map[string][]string{key(requestTag, tenancy.TagCluster): {s.Cluster}, key(requestTag, tenancy.TagTenant): {"acme"}, "iam:permissionsboundary": {s.BoundaryARN()}}
	tagged := map[string][]string{key(resourceTag, tenancy.TagCluster): {s.Cluster}}
	tenants := map[string][]string{key(resourceTag, tenancy.TagCluster): {s.Cluster}, "kms:resourcealiases": {"alias/eks-tenant-logs/" + s.Cluster + "/acme"}}
	tenant, quarantine, platform := s.Names.Group("acme"), s.Names.QuarantineGroup("acme"), s.Names.PlatformGroup
	for _, x := range []struct {
		what, action, resource string
		context                map[string][]string
		allowed                bool
	}{
		{"let anybody assume a tenant's reader role", "iam:UpdateAssumeRolePolicy", s.ReaderRoleARN("acme"), ours, true},
		{"give a reader role any policy", "iam:PutRolePolicy", s.ReaderRoleARN("acme"), ours, true},
		{"make a further reader role for a tenant", "iam:CreateRole", s.RoleARN("eks-tenant-logs_hidden"), making, true},
		{"keep a tenant's events one day", "logs:PutRetentionPolicy", s.inside(tenant), nil, true},
		{"keep quarantined events one day", "logs:PutRetentionPolicy", s.inside(quarantine), nil, true},
		{"keep the platform's events one day", "logs:PutRetentionPolicy", s.inside(platform), nil, true},
		{"switch deletion protection off", "logs:PutLogGroupDeletionProtection", s.inside(tenant), nil, true},
		{"let bearer tokens in", "logs:PutBearerTokenAuthentication", s.inside(tenant), nil, true},
		{"encrypt a group with another key", "logs:AssociateKmsKey", s.inside(tenant), nil, true},
		{"write another owner on a group", "logs:TagResource", s.bare(tenant), nil, true},
		{"write a tenant's key's policy", "kms:PutKeyPolicy", s.kms("key/1"), tenants, true},
		{"put the cluster's tag on a key without", "kms:TagResource", s.kms("key/2"), map[string][]string{key(requestTag, tenancy.TagCluster): {s.Cluster}}, true},
		{"take another pod's association away", "eks:DeletePodIdentityAssociation", s.eks("podidentityassociation") + "/a-1", nil, true},
		{"read every role of the account", "iam:GetAccountAuthorizationDetails", "*", nil, true},

		{"read by itself", "logs:GetLogEvents", s.inside(tenant), nil, false},
		{"query by itself", "logs:StartQuery", s.inside(tenant), nil, false},
		{"write a line", "logs:PutLogEvents", s.inside(tenant), nil, false},
		{"delete a group", "logs:DeleteLogGroup", s.inside(tenant), nil, false},
		{"delete a stream", "logs:DeleteLogStream", s.inside(tenant), nil, false},
		{"remove a retention", "logs:DeleteRetentionPolicy", s.inside(tenant), nil, false},
		{"set the retention of a group elsewhere", "logs:PutRetentionPolicy", s.inside("/aws/eks/prod/cluster"), nil, false},
		{"send a group's events elsewhere", "logs:PutSubscriptionFilter", s.inside(tenant), nil, false},
		{"export a group", "logs:CreateExportTask", s.inside(tenant), nil, false},
		{"open groups to other accounts", "logs:PutResourcePolicy", "*", nil, false},
		{"set the account's policies for logs", "logs:PutAccountPolicy", "*", nil, false},
		{"take the boundary off", "iam:DeleteRolePermissionsBoundary", s.ReaderRoleARN("acme"), ours, false},
		{"change the boundary", "iam:CreatePolicyVersion", s.BoundaryARN(), ours, false},
		{"turn a tenant's role into another's", "iam:TagRole", s.ReaderRoleARN("acme"), map[string][]string{
			key(resourceTag, tenancy.TagCluster): {s.Cluster}, key(resourceTag, tenancy.TagTenant): {"acme"}, key(requestTag, tenancy.TagTenant): {"globex"},
		}, false},
		{"assume another role of the account", "sts:AssumeRole", "arn:aws:iam::111122223333:role/Admin", nil, false},
		{"delete a key by its own policy", "kms:ScheduleKeyDeletion", s.kms("key/1"), tenants, false},
		{"change a key that it put its tag on", "kms:PutKeyPolicy", s.kms("key/2"), tagged, false},
		{"change a key of another cluster", "kms:PutKeyPolicy", s.kms("key/3"), map[string][]string{key(resourceTag, tenancy.TagCluster): {"other"}}, false},
	} {
		got := Evaluate(Request{Action: x.action, Resource: x.resource, Context: x.context, Principal: Principal{ARN: s.RoleARN("provisioner"), Account: s.Account}},
			Policies{Identity: []*Document{s.Provisioner()}, SameAccount: true}).Allowed
		require.Equal(t, x.allowed, got, x.what)
	}

	// By a reader role whose trust policy it rewrote, and whom it gave everything: the session's tags
	// take the place of the role's, but the boundary asks for the role's name as well.
	all := &Document{Version: Version, Statements: []Statement{{Effect: Allow, Actions: []string{"*"}, Resources: []string{"*"}}}}
	p, policies, context := as(s, "acme", all)
	some, _ := readable(s, p, policies, context, "acme")
	require.True(t, some, "whom it lets in reads that tenant's group")
	context[key(principalTag, tenancy.TagTenant)] = []string{"globex"}
	some, _ = readable(s, p, policies, context, "globex")
	require.False(t, some, "and by a session tag no other's")
	for _, group := range []string{platform, quarantine, "/aws/eks/prod/cluster"} {
		for _, action := range logsActions(t, "shows", "sends") {
			require.False(t, Evaluate(Request{Action: action, Resource: s.inside(group), Principal: p, Context: context}, policies).Allowed, "%s %s", action, group)
		}
	}
	for _, action := range append([]string{"logs:PutLogEvents", "logs:PutSubscriptionFilter", "iam:CreateUser", "s3:GetObject"}, destroys...) {
		require.False(t, Evaluate(Request{Action: action, Resource: s.inside(tenant), Principal: p, Context: context}, policies).Allowed, action)
	}
	// Nobody but EKS may set such tags by the trust policies that the provisioner writes.
	trust, err := s.TrustPolicy(everyTrust, "acme", "tenant-acme")
	require.NoError(t, err)
	for _, st := range trust.Statements {
		for _, action := range st.Actions {
			require.False(t, action == "sts:TagSession" && len(st.Principal.Service) == 0, st.Sid)
		}
	}
}
