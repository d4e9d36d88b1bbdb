package iampolicy

// Auditor is the policy of whoever asks for proof: it reads how groups, roles, keys and
// associations are set up, and may ask IAM what a role is allowed. Its sessions read nothing that
// was logged by calls of CloudWatch Logs, and have none of it sent elsewhere, whatever else the role
// is given; nor do they become a role of the installation, or change anything in IAM.
func (s Scope) Auditor() *Document { return whole(s.AuditorParts()) }

// AuditorParts are the auditors' policy by duty, each within what a managed policy may have.
func (s Scope) AuditorParts() []Part {
	return []Part{{"reads", document(
		allow("Groups", []string{
			"logs:DescribeAccountPolicies", "logs:DescribeLogGroups", "logs:DescribeLogStreams", "logs:DescribeMetricFilters",
			"logs:DescribeResourcePolicies", "logs:DescribeSubscriptionFilters", "logs:GetDataProtectionPolicy", "logs:ListTagsForResource",
		}, "*"),
		allow("Identities", []string{
			"iam:GetAccountAuthorizationDetails", "iam:GetAccountSummary", "iam:GetOpenIDConnectProvider", "iam:GetPolicy", "iam:GetPolicyVersion",
			"iam:GetRole", "iam:GetRolePolicy", "iam:ListAttachedRolePolicies", "iam:ListOpenIDConnectProviders", "iam:ListPolicyVersions",
			"iam:ListRolePolicies", "iam:ListRoles", "iam:ListRoleTags", "iam:SimulatePrincipalPolicy",
		}, "*"),
		allow("Keys", []string{"kms:DescribeKey", "kms:GetKeyPolicy", "kms:GetKeyRotationStatus", "kms:ListAliases", "kms:ListKeys", "kms:ListResourceTags"}, "*"),
		allow("Associations", []string{"eks:DescribePodIdentityAssociation", "eks:ListPodIdentityAssociations"}, "*"),
	)}, {"denies", document(
		deny("NoContent", content, "*"),
		s.noneOfOurOwn(),
		deny("ChangeNothingInIAM", iamWriting, "*"),
	)}}
}
