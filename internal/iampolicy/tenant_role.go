package iampolicy

import (
	"cmp"
	"errors"
	"fmt"
	"regexp"
	"strings"
)

// tenantRole is the ARN of one role, whose account may be open: path and name are written out
// (IAM API reference, CreateRole: up to 512 characters of path, 64 of name).
var tenantRole = regexp.MustCompile(`^arn:([a-z-]+):iam::(\d{12}|\*):role/((?:[\w+=,.@-]+/)*[\w+=,.@-]{1,64})$`)

// CheckTenantRoles refuses what must not stand where writer, provisioner and replay are told
// which roles of tenants with an account of their own they may assume. Each is the ARN of one
// role of the partition, or of the roles of one path and name in whatever account (*). A pattern
// of names would let nodes become anybody in an account that trusts this one; and no role of the
// installation's own path may be named, for those are the reader roles, and the cluster's own.
//
// What is empty in s is not compared, so that all else can be checked before the account is
// known. All that is wrong is reported together.
func (s Scope) CheckTenantRoles(roles []string) error {
	partition := s.Partition
	if partition == "" {
		partition = "<partition>"
	}
	var errs []error
	for _, arn := range roles {
		why := ""
		switch m := tenantRole.FindStringSubmatch(arn); {
		case m == nil:
			why = "it is not the ARN of one role"
		case s.Partition != "" && m[1] != s.Partition:
			why = "it is of another partition"
		case (m[2] == "*" || m[2] == s.Account) && s.isOwn(m[3]):
			why = "it is in the path of this installation's own roles"
		}
		if why != "" {
			errs = append(errs, fmt.Errorf("role %q of a tenant's own account: %s: use arn:%s:iam::<account>:role/<path and name>, without wildcards but for * as the account", arn, why, partition))
		}
	}
	return errors.Join(errs...)
}

// isOwn reports whether a role's path and name are among the installation's. IAM compares names
// without regard to case. Where the path is that of all roles, the name tells.
func (s Scope) isOwn(role string) bool {
	own := strings.TrimPrefix(cmp.Or(s.RolePath, DefaultRolePath), "/")
	if own == "" {
		own = "eks-tenant-logs"
	}
	return len(role) >= len(own) && strings.EqualFold(role[:len(own)], own)
}

// assume allows assuming tenants' roles. Those of whatever account are of any but this one: a
// role of the same name here is nobody's to become.
func (s Scope) assume(roles []string) (list []Statement) {
	var one, anywhere []string
	for _, arn := range roles {
		if strings.Contains(arn, "::*:") {
			anywhere = append(anywhere, arn)
		} else {
			one = append(one, arn)
		}
	}
	if len(one) > 0 {
		list = append(list, allow("TenantsAccounts", []string{"sts:AssumeRole"}, one...))
	}
	if len(anywhere) > 0 {
		list = append(list, allow("OtherAccounts", []string{"sts:AssumeRole"}, anywhere...).when("StringNotEquals", "aws:ResourceAccount", s.Account))
	}
	return list
}

// noneOfOurOwn keeps who has it from assuming a role of the installation's own, whatever else
// says so: a reader role that the provisioner made trust itself would show it what was logged.
func (s Scope) noneOfOurOwn() Statement {
	roles := s.RoleARN("*")
	if s.RolePath == "/" {
		roles = s.RoleARN("eks-tenant-logs*")
	}
	return deny("NoneOfOurOwn", []string{"sts:AssumeRole", "sts:TagSession"}, roles)
}
