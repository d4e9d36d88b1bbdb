package iampolicy

import (
	"errors"
	"fmt"
	"regexp"
	"strings"

	"github.com/eks-tenant-logs/eks-tenant-logs/internal/tenancy"
)

// DefaultRolePath is the IAM path of everything that the installation makes in IAM.
const DefaultRolePath = "/eks-tenant-logs/"

// Scope is where policies hold: every ARN is made from it. Make it with NewScope, which
// checks it: what is wrong here would be a policy for something else.
type Scope struct {
	Partition, Region, Account, Cluster string
	Names                               tenancy.Names
	RolePath                            string
}

var (
	partitionForm = regexp.MustCompile(`^aws(-[a-z]+)*$`)
	regionForm    = regexp.MustCompile(`^[a-z]{2}(-[a-z]+)+-[0-9]{1,2}$`)
	// EKS API reference, CreateCluster.
	clusterForm = regexp.MustCompile(`^[0-9A-Za-z][A-Za-z0-9_-]{0,99}$`)
	// IAM API reference, CreateRole: up to 512 characters, less here for the sake of names.
	pathForm = regexp.MustCompile(`^/([A-Za-z0-9._-]+/)*$`)
)

// NewScope fills what is empty (partition by region, path, names) and checks the rest. All
// that is wrong is reported together.
func NewScope(s Scope) (Scope, error) {
	var errs []error
	add := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if s.Partition == "" {
		s.Partition = Partition(s.Region)
	}
	if s.RolePath == "" {
		s.RolePath = DefaultRolePath
	}
	if s.Names == (tenancy.Names{}) {
		s.Names = tenancy.DefaultNames()
	}
	if !regionForm.MatchString(s.Region) {
		add("region %q: use one such as us-east-1", s.Region)
	}
	if !partitionForm.MatchString(s.Partition) {
		add("partition %q: use aws, aws-us-gov or aws-cn", s.Partition)
	} else if want := Partition(s.Region); s.Partition != want && regionForm.MatchString(s.Region) {
		add("partition %q is not that of region %s, which is %s", s.Partition, s.Region, want)
	}
	if !isAccountID(s.Account) {
		add("account %q: use the 12 digits of its id", s.Account)
	}
	if !clusterForm.MatchString(s.Cluster) {
		add("cluster %q: EKS calls clusters by up to 100 letters, digits, - and _", s.Cluster)
	}
	if !pathForm.MatchString(s.RolePath) || len(s.RolePath) > 128 {
		add("role path %q: it begins and ends with /, and has letters, digits and ._- between", s.RolePath)
	}
	if len(errs) > 0 {
		return Scope{}, errors.Join(errs...)
	}
	return s, nil
}

// Partition is the partition a region is in, as far as its name tells.
func Partition(region string) string {
	for _, p := range []struct{ prefix, partition string }{
		{"us-gov-", "aws-us-gov"}, {"cn-", "aws-cn"}, {"us-iso-", "aws-iso"}, {"us-isob-", "aws-iso-b"}, {"us-isof-", "aws-iso-f"}, {"eu-isoe-", "aws-iso-e"},
		{"eusc-", "aws-eusc"},
	} {
		if strings.HasPrefix(region, p.prefix) {
			return p.partition
		}
	}
	return "aws"
}

// BoundaryARN is the managed policy that no reader role may exceed: one for each cluster and
// region, for what it says depends on them.
func (s Scope) BoundaryARN() string {
	return "arn:" + s.Partition + ":iam::" + s.Account + ":policy" + s.RolePath + tenancy.ClusterRole(s.Cluster, s.Region, "boundary")
}

// RoleARN is a role of the installation's path.
func (s Scope) RoleARN(name string) string {
	return "arn:" + s.Partition + ":iam::" + s.Account + ":role" + s.RolePath + name
}

// ReaderRoleARN is a tenant's reader role.
func (s Scope) ReaderRoleARN(tenant string) string {
	return s.RoleARN(tenancy.ReaderRole(s.Cluster, s.Region, tenant))
}

// ProvisionerRoleARN is the provisioner's own role, as bootstrap makes it.
func (s Scope) ProvisionerRoleARN() string {
	return s.RoleARN(tenancy.ClusterRole(s.Cluster, s.Region, "provisioner"))
}

// readerRoles are all tenants' reader roles: no role of the cluster's own is among them, for
// what follows the head there is another character (tenancy.ClusterRole).
func (s Scope) readerRoles() string { return s.RoleARN("eks-tenant-logs_*") }

// group are a group's ARNs: bare, and of what is in it.
func (s Scope) group(name string) []string {
	return []string{s.bare(name), s.inside(name)}
}

func (s Scope) bare(name string) string {
	return tenancy.GroupARN(s.Partition, s.Region, s.Account, name)
}

func (s Scope) inside(name string) string {
	return tenancy.GroupARNPattern(s.Partition, s.Region, s.Account, name)
}

// groups are the installation's groups as patterns; each ends where another name would begin.
func (s Scope) groups() []string {
	return []string{s.Names.TenantPrefix + "*", s.Names.QuarantinePrefix + "*", s.Names.PlatformGroup}
}

func each(names []string, arn func(string) string) (list []string) {
	for _, n := range names {
		list = append(list, arn(n))
	}
	return list
}

// Condition keys of tags.
const (
	requestTag   = "aws:RequestTag/"
	resourceTag  = "aws:ResourceTag/"
	principalTag = "aws:PrincipalTag/"
)

func document(statements ...Statement) *Document {
	return &Document{Version: Version, Statements: statements}
}

// Part is a part of a policy that is needed whole: what one duty takes, as a managed policy of its own. A role's
// inline policies have 10,240 characters together, each managed policy 6,144, and ten can be attached (IAM quotas).
type Part struct {
	Duty     string
	Document *Document
}

// whole is the policy that its parts make.
func whole(parts []Part) *Document {
	d := document()
	for _, p := range parts {
		d.Statements = append(d.Statements, p.Document.Statements...)
	}
	return d
}

func allow(sid string, actions []string, resources ...string) Statement {
	return Statement{Sid: sid, Effect: Allow, Actions: actions, Resources: resources}
}

func (s Statement) when(operator, key string, values ...string) Statement {
	s.Conditions = append(s.Conditions[:len(s.Conditions):len(s.Conditions)], Condition{Operator: operator, Key: key, Values: values})
	return s
}

// ofCluster holds a statement to what bears the cluster's tag.
func (s Scope) ofCluster(st Statement, by string) Statement {
	return st.when("StringEquals", by+tenancy.TagCluster, s.Cluster)
}

func deny(sid string, actions []string, resources ...string) Statement {
	st := allow(sid, actions, resources...)
	st.Effect = Deny
	return st
}

// destroys are the calls that end or change audit data, which nobody here makes.
var destroys = []string{"logs:DeleteLogGroup", "logs:DeleteLogStream", "logs:DeleteRetentionPolicy"}

// content are the calls of CloudWatch Logs that return what was logged, by samples and names of fields too, and
// those by which a caller has it sent or copied to where it can be read: denied to whoever looks after groups
// without reading them. testdata/logs-actions.json says of every action there is which of them it is.
//
// GetLogObject is an operation of the API that the service authorization reference does not list; with GetLog*
// two more are denied which show how a detector and a delivery are set up.
var content = []string{
	"logs:AssociateSource*", "logs:CreateDelivery", "logs:CreateExportTask", "logs:CreateLogA*", "logs:CreateLogD*", "logs:CreateScheduledQuery",
	"logs:FilterLogEvents", "logs:GetLog*", "logs:GetQueryResults", "logs:IntegrateWith*", "logs:Link", "logs:ListAnomalies", "logs:ProcessWith*",
	"logs:PutAccountPolicy", "logs:PutIntegration", "logs:PutMetricFilter", "logs:PutPipelineRule", "logs:PutResourcePolicy", "logs:PutSubscriptionFilter",
	"logs:Start*", "logs:Unmask", "logs:UpdateLog*", "logs:UpdateScheduledQuery",
}

// iamWriting are patterns of IAM's actions that change something: the reading ones begin with G, L and Simulate.
var iamWriting = []string{"iam:A*", "iam:C*", "iam:D*", "iam:E*", "iam:P*", "iam:R*", "iam:Set*", "iam:T*", "iam:U*"}
