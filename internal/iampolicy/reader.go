package iampolicy

import (
	"strings"

	"github.com/eks-tenant-logs/eks-tenant-logs/internal/tenancy"
)

// reads are the calls by which a tenant reads its own group. GetQueryResults and GetLogRecord
// are checked against the query's (service authorization reference, 2026-09); unverified on AWS. DescribeLogGroups
// and DescribeQueries have no resource level and would tell of other tenants: not here.
var reads = []string{
	"logs:DescribeLogStreams", "logs:FilterLogEvents", "logs:GetLogEvents", "logs:GetLogGroupFields", "logs:GetLogRecord",
	"logs:GetQueryResults", "logs:StartLiveTail", "logs:StartQuery",
}

// noTenant are patterns that match every value of a tag which is no tenant's name, and no tenant's name
// (tenancy.Label): by each character that an ARN of CloudWatch Logs can hold or a policy gives a meaning to,
// by a hyphen at an end, and by the length. A value with any other character, é or a line's end, names no
// group: a group's name is ASCII, and so is what follows it in an ARN but for a stream's name, which only a
// colon reaches. The empty value is matched by none, and refused beside them (StringLike ?*).
var noTenant = func() (list []string) {
	for _, c := range ":/._#=+@ ABCDEFGHIJKLMNOPQRSTUVWXYZ" {
		list = append(list, "*"+string(c)+"*")
	}
	return append(list, "*${*}*", "*${?}*", "*${$}*", "-*", "*-", strings.Repeat("?", 64)+"*")
}()

// Reader is the inline policy of a tenant's reader role: its own group, and nothing of
// anybody else's. `…/acme:*` does not match acme-corp's group.
func (s Scope) Reader(tenant string) *Document {
	return document(allow("ReadOwnGroup", reads, s.group(s.Names.Group(tenant))...))
}

// ReaderABAC is the policy of one role for all tenants, by the tags that EKS Pod Identity
// gives to sessions. It is right only where a group's suffix is its namespace's name; and it
// asks for the cluster, for another cluster of the account may have a namespace of that name.
// IRSA's sessions and people's have no such tags, and read nothing by it.
func (s Scope) ReaderABAC() *Document {
	const namespace = principalTag + "kubernetes-namespace"
	return document(allow("ReadOwnGroup", reads, s.group(s.Names.TenantPrefix+"${"+namespace+"}")...).
		when("StringEquals", principalTag+"eks-cluster-arn", s.eks("cluster")).
		when("StringEquals", principalTag+"eks-cluster-name", s.Cluster).
		when("StringLike", namespace, "?*").
		when("StringNotLike", namespace, noTenant...))
}

// Boundary is what no reader role can exceed, whatever else it is given: reading the group of
// the tenant that its own tag names. One managed policy serves all tenants.
//
// Session tags take the place of a role's (IAM User Guide, "Pass session tags"), and nothing
// in a request tells the one from the other. The role's ARN can't be overridden: so the tag
// counts only as far as the role is called after it. Names longer than a role's has room for
// are cut there (tenancy.ReaderRole), and a policy can't cut: roles of such tenants are held
// to tenants with names as long, which only a session tag could make another than their own.
//
// A tag that is no tenant's name opens nothing. Without that, `acme:log-stream:` would be the tag of a
// group's inside: it is as long as the names that are cut, and what IAM matches is one text.
func (s Scope) Boundary() *Document {
	const tenant = principalTag + tenancy.TagTenant
	read := func(sid string) Statement {
		return s.ofCluster(allow(sid, reads, s.group(s.Names.TenantPrefix+"${"+tenant+"}")...), principalTag).
			when("StringNotLike", tenant, noTenant...)
	}
	short := s.RoleARN(tenancy.ReaderRolePattern("${" + tenant + "}"))
	cut := s.RoleARN(tenancy.ReaderRolePattern(strings.Repeat("?", tenancy.MaxTenantInRole)))
	return document(
		read("ReadTheGroupOfItsTag").when("ArnLike", "aws:PrincipalArn", short).when("StringLike", tenant, "?*"),
		read("ReadTheGroupOfItsLongTag").when("ArnLike", "aws:PrincipalArn", cut).
			when("StringLike", tenant, strings.Repeat("?", tenancy.MaxTenantInRole+1)+"*"),
	)
}
