package iampolicy

import (
	"github.com/eks-tenant-logs/eks-tenant-logs/internal/tenancy"
)

// Provisioner is the controller's policy. It can grant no more than the boundary, nor take it
// off, nor change it, nor turn one tenant's role into another's:
//
//   - roles are made only at the tenants' names in the installation's path, with the boundary, and
//     with this cluster's tag; their policies are written only while the boundary is there;
//   - a role's tenant and cluster, once tagged, can be set to what they are and nothing else;
//   - the cluster's own roles have no tenant's tag: it can't touch them, itself among them;
//   - the boundary is bootstrap's, which a person runs.
//
// Denies say so once more, for whatever else its role is given.
//
// roles are those of tenants with an account of their own, through which their groups are set up.
func (s Scope) Provisioner(roles ...string) *Document { return whole(s.ProvisionerParts(roles...)) }

// ProvisionerParts are the provisioner's policy by duty, each within what a managed policy may have.
func (s Scope) ProvisionerParts(roles ...string) []Part {
	boundary := s.BoundaryARN()
	readers := s.readerRoles()
	// A reader role is told by name, cluster and tenant's tag.
	ours := func(st Statement) Statement {
		return s.ofCluster(st, resourceTag).when("Null", resourceTag+tenancy.TagTenant, "false")
	}
	parts := []Part{{"groups", document(
		allow("Look", []string{"logs:DescribeLogGroups"}, "*"),
		allow("Groups", []string{
			"logs:AssociateKmsKey", "logs:CreateLogGroup", "logs:DescribeLogStreams", "logs:PutBearerTokenAuthentication",
			"logs:PutLogGroupDeletionProtection", "logs:PutRetentionPolicy",
		}, append(each(s.groups(), s.bare), each(s.groups(), s.inside)...)...),
		allow("GroupTags", []string{"logs:ListTagsForResource", "logs:TagResource"}, each(s.groups(), s.bare)...),
	)}, {"roles", document(
		allow("LookAtRoles", []string{"iam:GetAccountAuthorizationDetails", "iam:GetAccountSummary"}, "*"),
		allow("LookAtOurs", []string{"iam:GetRole", "iam:GetRolePolicy", "iam:ListAttachedRolePolicies", "iam:ListRolePolicies", "iam:GetPolicy", "iam:GetPolicyVersion"},
			// Of a role that is not there IAM knows no path: the question is about its name alone.
			s.RoleARN("*"), "arn:"+s.Partition+":iam::"+s.Account+":role/eks-tenant-logs_*", "arn:"+s.Partition+":iam::"+s.Account+":policy"+s.RolePath+"*"),
		s.ofCluster(allow("CreateRoles", []string{"iam:CreateRole"}, readers), requestTag).
			when("StringEquals", "iam:PermissionsBoundary", boundary).
			when("Null", requestTag+tenancy.TagTenant, "false"),
		ours(allow("PutTheBoundary", []string{"iam:PutRolePermissionsBoundary"}, readers)).
			when("StringEquals", "iam:PermissionsBoundary", boundary),
		ours(allow("WithinTheBoundary", []string{"iam:DeleteRolePolicy", "iam:DetachRolePolicy", "iam:PutRolePolicy"}, readers)).
			when("StringEquals", "iam:PermissionsBoundary", boundary),
		ours(allow("Trust", []string{"iam:UpdateAssumeRolePolicy"}, readers)),
		// Tags come with CreateRole, when there are none yet; later tenant and cluster stay.
		s.ofCluster(allow("TagNewRoles", []string{"iam:TagRole"}, readers), requestTag).
			when("Null", resourceTag+tenancy.TagTenant, "true"),
		ours(allow("TagRoles", []string{"iam:TagRole"}, readers)).
			when("StringEqualsIfExists", requestTag+tenancy.TagTenant, "${"+resourceTag+tenancy.TagTenant+"}").
			when("StringEqualsIfExists", requestTag+tenancy.TagCluster, s.Cluster),
	)}, {"pods-and-keys", document(
		allow("Associations", []string{"eks:CreatePodIdentityAssociation", "eks:ListPodIdentityAssociations"}, s.eks("cluster")),
		allow("OwnAssociations", []string{"eks:DeletePodIdentityAssociation", "eks:DescribePodIdentityAssociation", "eks:TagResource", "eks:UpdatePodIdentityAssociation"}, s.eks("podidentityassociation")+"/*"),
		allow("PassReaders", []string{"iam:PassRole"}, readers).when("StringEquals", "iam:PassedToService", "pods.eks.amazonaws.com"),
		allow("LookAtKeys", []string{"kms:ListAliases", "kms:ListKeys", "kms:ListResourceTags"}, "*"),
		s.ofCluster(allow("CreateKeys", []string{"kms:CreateKey"}, "*"), requestTag),
		// Tags come with CreateKey, and for that the permission may not be held to certain keys (KMS Developer Guide,
		// "Controlling access to tags"); nothing tells a key that is made from one that is there. Hence a tag alone gives
		// nothing: what a key needs after it is made, its own policy lets the provisioner do (KMS).
		s.ofCluster(allow("TagNewKeys", []string{"kms:TagResource"}, "*"), requestTag).
			when("StringEqualsIfExists", resourceTag+tenancy.TagCluster, s.Cluster),
		// A key whose policy somebody changed is known by its alias, which no other key can be given: CreateAlias asks for
		// the key as well, and of keys only their own policies allow it.
		s.ofCluster(allow("RepairKeys", []string{"kms:EnableKeyRotation", "kms:GetKeyPolicy", "kms:GetKeyRotationStatus", "kms:PutKeyPolicy"}, s.kms("key/*")), resourceTag).
			when("ForAnyValue:StringLike", "kms:ResourceAliases", "alias/eks-tenant-logs/"+s.Cluster+"/*"),
		allow("Aliases", []string{"kms:CreateAlias"}, s.kms("alias/eks-tenant-logs/"+s.Cluster+"/*")),
	)}}
	if accounts := s.assume(roles); len(accounts) > 0 {
		parts = append(parts, Part{"accounts", document(accounts...)})
	}
	denies := []Statement{deny("NeverDelete", destroys, "*"), deny("NoContent", content, "*"), s.noneOfOurOwn()}
	return append(parts, Part{"denies", document(append(denies, s.never()...)...)})
}

// never are the Denies that hold whatever other policies somebody gives the provisioner's role.
func (s Scope) never() []Statement {
	list := []Statement{
		// Where a request names no boundary, or a role has none, the key is missing: that is denied, too.
		deny("OnlyWithinTheBoundary", []string{"iam:CreateRole", "iam:PutRolePermissionsBoundary", "iam:PutRolePolicy"}, "*").
			when("StringNotEquals", "iam:PermissionsBoundary", s.BoundaryARN()),
		deny("RolesStay", []string{"iam:AttachRolePolicy", "iam:DeleteRole", "iam:DeleteRolePermissionsBoundary", "iam:UntagRole"}, "*"),
		// The boundary, users, and every role that is no reader's: itself, the cluster's others, anybody's.
		{Sid: "NothingButReaders", Effect: Deny, NotResources: []string{s.readerRoles()}, Actions: iamWriting},
		deny("PassToPodsOnly", []string{"iam:PassRole"}, "*").when("StringNotEquals", "iam:PassedToService", "pods.eks.amazonaws.com"),
		// It may write keys' policies: what they let it do with a key, this does not.
		deny("NoUseOfKeys", []string{"kms:CreateGrant", "kms:Decrypt", "kms:Disable*", "kms:ReEncrypt*", "kms:ScheduleKeyDeletion"}, "*"),
		deny("NoRoleOfAnotherCluster", []string{"iam:TagRole"}, "*").
			when("Null", resourceTag+tenancy.TagCluster, "false").when("StringNotEquals", resourceTag+tenancy.TagCluster, s.Cluster),
	}
	// A tag that is there stays what it is; the same once more is no change.
	for _, tag := range []struct{ sid, key string }{{"TheTenantStays", tenancy.TagTenant}, {"TheClusterStays", tenancy.TagCluster}} {
		list = append(list, deny(tag.sid, []string{"iam:TagRole"}, "*").
			when("Null", requestTag+tag.key, "false").when("Null", resourceTag+tag.key, "false").
			when("StringNotEquals", requestTag+tag.key, "${"+resourceTag+tag.key+"}"))
	}
	return list
}

func (s Scope) eks(kind string) string {
	return "arn:" + s.Partition + ":eks:" + s.Region + ":" + s.Account + ":" + kind + "/" + s.Cluster
}

func (s Scope) kms(what string) string {
	return "arn:" + s.Partition + ":kms:" + s.Region + ":" + s.Account + ":" + what
}

// KMS is the policy of a tenant's key: CloudWatch Logs may use it for the tenant's group, the
// account's administrators may look after it, and nobody may decrypt with it by hand. Who may
// read the group needs nothing of the key: CloudWatch Logs decrypts.
//
// What the provisioner does to a key is allowed here and not in its own policy, which would reach
// every other key that leaves it to the account. Its role is named by a condition, for KMS
// refuses a policy that names a role that is not there.
func (s Scope) KMS(tenant string) *Document {
	admin := allow("Administer", []string{
		"kms:CancelKeyDeletion", "kms:CreateAlias", "kms:DeleteAlias", "kms:Describe*", "kms:Disable*", "kms:Enable*", "kms:Get*", "kms:List*",
		"kms:PutKeyPolicy", "kms:RevokeGrant", "kms:RotateKeyOnDemand", "kms:ScheduleKeyDeletion", "kms:TagResource", "kms:UntagResource", "kms:Update*",
	}, "*")
	admin.Principal = &Principals{AWS: []string{"arn:" + s.Partition + ":iam::" + s.Account + ":root"}}
	use := allow("CloudWatchLogs", []string{"kms:Decrypt*", "kms:Describe*", "kms:Encrypt*", "kms:GenerateDataKey*", "kms:ReEncrypt*"}, "*").
		when("ArnEquals", "kms:EncryptionContext:aws:logs:arn", s.bare(s.Names.Group(tenant)))
	use.Principal = &Principals{Service: []string{"logs." + s.Region + "." + s.suffix()}}
	keep := allow("Provisioner", []string{"kms:CreateAlias", "kms:EnableKeyRotation", "kms:GetKeyPolicy", "kms:GetKeyRotationStatus", "kms:PutKeyPolicy"}, "*").
		when("StringEquals", "aws:PrincipalArn", s.ProvisionerRoleARN())
	keep.Principal = &Principals{AWS: []string{"*"}}
	return document(admin, use, keep)
}

// suffix ends the names of services (facts: logs.<region>.<DNS suffix>).
func (s Scope) suffix() string {
	switch s.Partition {
	case "aws-cn":
		return "amazonaws.com.cn"
	case "aws-iso":
		return "c2s.ic.gov"
	case "aws-iso-b":
		return "sc2s.sgov.gov"
	case "aws-eusc":
		return "amazonaws.eu"
	}
	return "amazonaws.com"
}
