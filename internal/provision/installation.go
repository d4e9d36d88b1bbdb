package provision

import (
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"

	"github.com/eks-tenant-logs/eks-tenant-logs/internal/awsclient"
	"github.com/eks-tenant-logs/eks-tenant-logs/internal/iampolicy"
	"github.com/eks-tenant-logs/eks-tenant-logs/internal/loggroup"
	"github.com/eks-tenant-logs/eks-tenant-logs/internal/tenancy"
)

// Installation is what holds for all tenants of a cluster. Make it with NewInstallation.
type Installation struct {
	Scope iampolicy.Scope
	// RetentionDays is the least all groups keep their events; 0 means 365.
	RetentionDays int
	// Class of groups that are created; empty means STANDARD. It can't be changed later.
	Class string
	// DeletionProtection is switched on; where it is not asked for it is left as it is.
	DeletionProtection bool
	// KMSKeyARN is the key of all groups whose tenant names none; empty means CloudWatch's own.
	KMSKeyARN string
	// KeyPerTenant makes a KMS key for each tenant that names none.
	KeyPerTenant bool
	// OnFailure is the plugin's on_failure, and says which tenants need a quarantine group;
	// empty means quarantine, or hold with KeyPerTenant.
	OnFailure string
	// Tags are put on groups, roles and keys, beside the project's own.
	Tags map[string]string
	// Trust is who may assume the reader roles, a template for all tenants.
	Trust iampolicy.Trust
	// NoReaderRoles leaves reader roles to somebody else. Then nobody's read access is
	// given or taken here, and tombstones are on the groups alone.
	NoReaderRoles bool
	// ABAC would have one reader role for all tenants, by the tags of EKS Pod Identity's
	// sessions. It is refused: see NewInstallation.
	ABAC bool
	// Shared says that clusters with the same log_group_prefix in this account share their
	// tenants: acme of one is acme of the other.
	Shared bool
	// Adopt takes groups that have none of our tags for the tenant's of their name.
	Adopt bool
	// GroupQuota is how many log groups the account may have; 0 means 1,000,000
	// (CloudWatch Logs quotas; no call tells it).
	GroupQuota int
}

// DefaultRetentionDays is the retention where none is configured.
const DefaultRetentionDays = 365

const defaultGroupQuota = 1_000_000

var (
	groupClasses = []string{"STANDARD", "INFREQUENT_ACCESS"}
	keyARN       = regexp.MustCompile(`^arn:aws[a-z-]*:kms:[a-z0-9-]+:\d{12}:key/[A-Za-z0-9-]+$`)
	// tagCharacters are what both CloudWatch Logs and IAM take in tags (API references).
	tagCharacters = regexp.MustCompile(`^[\p{L}\p{Z}\p{N}_.:/=+\-@]*$`)
)

// ownTags begins the project's own tags.
const ownTags = "eks-tenant-logs/"

// NewInstallation fills in defaults and checks the rest; all that is wrong is reported
// together. It makes no call.
func NewInstallation(in Installation) (Installation, error) {
	var errs []error
	add := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	scope, err := iampolicy.NewScope(in.Scope)
	if err != nil {
		errs = append(errs, err)
	} else {
		in.Scope = scope
	}
	if in.RetentionDays == 0 {
		in.RetentionDays = DefaultRetentionDays
	}
	if !tenancy.ValidRetention(in.RetentionDays) {
		add("retention of %d days: CloudWatch Logs takes one of %s", in.RetentionDays, strings.Trim(fmt.Sprint(tenancy.RetentionDays), "[]"))
	}
	if in.Class == "" {
		in.Class = groupClasses[0]
	}
	if !slices.Contains(groupClasses, in.Class) {
		add("log group class %q: use %s; others keep events for a day, or can't be read as the promises need", in.Class, strings.Join(groupClasses, " or "))
	}
	if in.KMSKeyARN != "" && !keyARN.MatchString(in.KMSKeyARN) {
		add("KMS key %q: give arn:<partition>:kms:<region>:<account>:key/<id>, no alias: it can be turned to another key", in.KMSKeyARN)
	}
	if in.KeyPerTenant && in.KMSKeyARN != "" {
		add("a key for all groups and one for each tenant exclude each other")
	}
	if in.OnFailure == "" {
		in.OnFailure = tenancy.OnFailureQuarantine
		if in.KeyPerTenant {
			in.OnFailure = tenancy.OnFailureHold
		}
	}
	if !slices.Contains([]string{tenancy.OnFailureQuarantine, tenancy.OnFailureHold, tenancy.OnFailureDrop}, in.OnFailure) {
		add("on_failure %q: use quarantine, hold or drop", in.OnFailure)
	}
	for key, value := range in.Tags {
		switch {
		case strings.HasPrefix(strings.ToLower(key), ownTags) || strings.HasPrefix(strings.ToLower(key), "aws:"):
			add("tag %q: %s and aws: are not yours to set", key, ownTags)
		case key == "" || len(key) > 128 || len(value) > 256 || !tagCharacters.MatchString(key) || !tagCharacters.MatchString(value):
			add("tag %q=%q: up to 128 and 256 letters, digits, spaces and _.:/=+-@ are allowed", key, value)
		}
	}
	if len(in.Tags) > 20 {
		add("%d tags are given, 20 are allowed beside the project's own", len(in.Tags))
	}
	switch t := in.Trust; {
	case in.ABAC:
		add("one reader role for all tenants is not set up by the provisioner yet: make it of what `tenantlogs policy reader-abac` prints, and leave the tenants' roles out")
	case !in.NoReaderRoles && len(t.Principals)+len(t.Accounts)+len(t.SSORoles)+len(t.IRSA)+len(t.PodIdentity) == 0:
		add("nobody is named who may assume the reader roles: name principals, accounts, SSO roles or service accounts, or leave the roles to somebody else")
	}
	if in.GroupQuota == 0 {
		in.GroupQuota = defaultGroupQuota
	}
	if len(errs) > 0 {
		return Installation{}, errors.Join(errs...)
	}
	return in, nil
}

// roles reports whether each tenant has a reader role here.
func (in Installation) roles() bool { return !in.NoReaderRoles }

// groupKey names a log group: the role by which its account is reached, and its name.
type groupKey struct {
	account awsclient.Role
	name    string
}

// groupSpec is how one log group is to be.
type groupSpec struct {
	key       groupKey
	days      int
	class     string
	kmsKey    string // an ARN; empty: any
	ownKey    bool   // the tenant's key of our making, whose ARN may not be known yet
	protected bool
	tags      map[string]string // without those of state and namespaces
}

// groupOf is the tenant's own group.
func (in Installation) groupOf(t Tenant) groupSpec {
	g := groupSpec{
		key: groupKey{name: in.Scope.Names.Group(t.Name)}, days: in.RetentionDays, class: in.Class, kmsKey: in.KMSKeyARN,
		ownKey: in.KeyPerTenant, protected: in.DeletionProtection, tags: in.tags(t.Name),
	}
	if s := t.Settings; s != nil {
		g.key.account = awsclient.Role{ARN: s.RoleARN, ExternalID: s.ExternalID}
		if s.RetentionDays > 0 {
			g.days = s.RetentionDays
		}
		if s.KMSKeyARN != "" {
			g.kmsKey, g.ownKey = s.KMSKeyARN, false
		}
	}
	if g.key.account.ARN != "" && (t.Settings == nil || t.Settings.KMSKeyARN == "") {
		// A key of the platform's account is none a tenant's own account has.
		g.kmsKey, g.ownKey = "", false
	}
	return g
}

// quarantineOf is the tenant's quarantine group; false where its events are never put into
// one: the same rule as the plugin's.
func (in Installation) quarantineOf(t Tenant) (groupSpec, bool) {
	s := t.Settings
	onFailure := in.OnFailure
	if s != nil {
		onFailure = s.OnFailureOr(onFailure)
	}
	if onFailure != tenancy.OnFailureQuarantine {
		return groupSpec{}, false
	}
	g := groupSpec{
		key: groupKey{name: in.Scope.Names.QuarantineGroup(t.Name)}, days: in.RetentionDays, class: in.Class, kmsKey: in.KMSKeyARN,
		protected: in.DeletionProtection, tags: in.tags(t.Name),
	}
	if s != nil {
		if s.RetentionDays > 0 {
			g.days = s.RetentionDays
		}
		if s.QuarantineKMSKeyARN != "" {
			g.kmsKey = s.QuarantineKMSKeyARN
		}
	}
	return g, true
}

// platformGroups are the groups that are no tenant's: the platform's, and the one of
// namespaces the registry does not know.
func (in Installation) platformGroups() []groupSpec {
	var groups []groupSpec
	for _, name := range []string{in.Scope.Names.PlatformGroup, in.Scope.Names.PendingGroup()} {
		groups = append(groups, groupSpec{
			key: groupKey{name: name}, days: in.RetentionDays, class: in.Class, kmsKey: in.KMSKeyARN, protected: in.DeletionProtection, tags: in.tags(""),
		})
	}
	return groups
}

// tags are the tags of what belongs to a tenant; of what is no tenant's where it is empty.
func (in Installation) tags(tenant string) map[string]string {
	tags := maps.Clone(in.Tags)
	if tags == nil {
		tags = map[string]string{}
	}
	tags[loggroup.TagCluster] = in.Scope.Cluster
	if tenant != "" {
		tags[loggroup.TagTenant] = tenant
	}
	return tags
}
