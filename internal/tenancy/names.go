package tenancy

import (
	"crypto/sha256"
	"encoding/base32"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
)

// Limits of CloudWatch Logs on names (API reference, CreateLogGroup, CreateLogStream).
const (
	maxGroupName  = 512
	maxStreamName = 512
)

// UnroutedStream is the platform group's stream for lines whose tag names no pod.
const UnroutedStream = "unrouted"

// pendingTenant can be no tenant's name: it is no DNS label.
const pendingTenant = "_pending"

// Names derives the names of groups. Make it with NewNames, which checks it.
type Names struct {
	// TenantPrefix and QuarantinePrefix end in `/`; a tenant's name follows.
	TenantPrefix string
	// PlatformGroup takes what is no tenant's, and what names no pod.
	PlatformGroup    string
	QuarantinePrefix string
}

// DefaultNames are the names where nothing is configured.
func DefaultNames() Names {
	return Names{TenantPrefix: "/eks/tenants/", PlatformGroup: "/eks/platform", QuarantinePrefix: "/eks/quarantine/"}
}

// NewNames checks that the three can name groups, and that no tenant can make two of
// them name the same one. All that is wrong is reported together.
func NewNames(tenantPrefix, platformGroup, quarantinePrefix string) (Names, error) {
	n := Names{TenantPrefix: tenantPrefix, PlatformGroup: platformGroup, QuarantinePrefix: quarantinePrefix}
	var errs []error
	add := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	for _, g := range []struct {
		what, name string
		prefix     bool
	}{{"the tenants' prefix", tenantPrefix, true}, {"the platform's group", platformGroup, false}, {"the quarantine prefix", quarantinePrefix, true}} {
		room := maxGroupName
		if g.prefix {
			room -= 63 // the longest tenant
		}
		switch {
		case g.name == "":
			add("%s is empty", g.what)
		case len(g.name) > room:
			add("%s has %d bytes, %d are allowed", g.what, len(g.name), room)
		case strings.ContainsFunc(g.name, func(r rune) bool { return !groupRune(r) }):
			add("%s %q has characters other than letters, digits and . - _ / #", g.what, g.name)
		case strings.HasPrefix(g.name, "aws/") || strings.HasPrefix(g.name, "/aws/"):
			add("%s %q is in AWS's own name space", g.what, g.name)
		case g.prefix && !strings.HasSuffix(g.name, "/"):
			add("%s %q does not end in /: acme in one prefix could be corp/acme in another", g.what, g.name)
		case !g.prefix && strings.HasSuffix(g.name, "/"):
			add("%s %q ends in /", g.what, g.name)
		}
	}
	if errs == nil {
		switch {
		case strings.HasPrefix(tenantPrefix, quarantinePrefix) || strings.HasPrefix(quarantinePrefix, tenantPrefix):
			add("the tenants' prefix %q and the quarantine prefix %q lie inside one another", tenantPrefix, quarantinePrefix)
		case strings.HasPrefix(platformGroup, tenantPrefix) || strings.HasPrefix(platformGroup, quarantinePrefix):
			add("the platform's group %q lies inside a prefix of tenants", platformGroup)
		case strings.HasPrefix(tenantPrefix, platformGroup+"/") || strings.HasPrefix(quarantinePrefix, platformGroup+"/"):
			add("a prefix of tenants lies inside the platform's group %q: a policy for one would cover the other", platformGroup)
		}
	}
	if len(errs) > 0 {
		return Names{}, errors.Join(errs...)
	}
	return n, nil
}

func groupRune(r rune) bool {
	return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("._/#-", r)
}

// Group is a tenant's log group.
func (n Names) Group(tenant string) string { return n.TenantPrefix + tenant }

// QuarantineGroup is where a tenant's events wait when its own group can't take them.
func (n Names) QuarantineGroup(tenant string) string { return n.QuarantinePrefix + tenant }

// PendingGroup is for namespaces the registry does not know yet.
func (n Names) PendingGroup() string { return n.QuarantinePrefix + pendingTenant }

// GroupARN is a group's ARN as TagResource and ListTagsForResource want it.
func GroupARN(partition, region, account, group string) string {
	return "arn:" + partition + ":logs:" + region + ":" + account + ":log-group:" + group
}

// GroupARNPattern is the resource of a policy about one group and its streams.
func GroupARNPattern(partition, region, account, group string) string {
	return GroupARN(partition, region, account, group) + ":*"
}

// IAM's limit on role names (IAM quotas).
const maxRoleName = 64

// hashLength is how many characters of a hash a name holds: of 5 bits each, so 100
// bits. To find two names that clash takes some 2^50 tries, to meet a given one 2^100;
// a role's name has 27 characters left for its tenant to be read in.
const hashLength = 20

// shortHash is a hash as names hold it: base32 in lower case, for IAM does not tell
// cases apart.
func shortHash(sum []byte) string {
	return strings.ToLower(base32.StdEncoding.EncodeToString(sum))[:hashLength]
}

// ReaderRole is the name of a tenant's reader role: readable at its start, and
// distinct by its hash. IAM compares role names without regard to case, over the
// whole account, so the hash covers cluster and region and has no upper case.
func ReaderRole(cluster, region, tenant string) string {
	h := sha256.New()
	for _, s := range []string{cluster, region, tenant} {
		var n [8]byte
		binary.BigEndian.PutUint64(n[:], uint64(len(s)))
		h.Write(n[:])
		h.Write([]byte(s))
	}
	hash := shortHash(h.Sum(nil))
	if len(tenant) > MaxTenantInRole {
		tenant = tenant[:MaxTenantInRole]
	}
	return readerRoleHead + tenant + "_" + hash
}

const readerRoleHead = "eks-tenant-logs_"

// MaxTenantInRole is how many characters of a tenant's name are in the name of its reader role.
const MaxTenantInRole = maxRoleName - len(readerRoleHead) - 1 - hashLength

// ReaderRolePattern is a pattern, for IAM's ArnLike, of the names of reader roles that begin with
// this much of a tenant's name, which itself may be a pattern or a policy variable. No tenant's
// name nor a hash has an underscore.
func ReaderRolePattern(tenant string) string {
	return readerRoleHead + tenant + "_" + strings.Repeat("?", hashLength)
}

// ClusterRole is the name of a role that a cluster has one of, for a purpose such as
// writer. No tenant's reader role has it: what follows the head is another character.
func ClusterRole(cluster, region, purpose string) string {
	name := ReaderRole(cluster, region, "."+purpose) // no tenant's name has a dot
	return "eks-tenant-logs-" + purpose + name[len(name)-hashLength-1:]
}

// DefaultStreamTemplate is the template where none is configured.
const DefaultStreamTemplate = "$(namespace)/$(pod)/$(container)"

// cutMark stands before the hash of a stream's name that was cut. No template, node or
// Kubernetes name can hold it, so no name that was not cut can equal one that was.
const cutMark = '$'

// StreamTemplate makes the names of log streams. It may be used by many goroutines.
type StreamTemplate struct{ parts []streamPart }

type streamPart struct {
	literal  string
	variable string
}

var streamVariables = []string{"node", "namespace", "pod", "container", "tenant"}

// ParseStreamTemplate reads a template over $(node) $(namespace) $(pod) $(container)
// $(tenant). Between two variables there must be a character that no Kubernetes name
// holds, or two pods could share a stream: namespace `team` with pod `abilling-0` is
// not namespace `teama` with pod `billing-0`. The rest is printable ASCII without
// `:` and `*` (API reference, CreateLogStream) and without a `$` that begins no
// variable: it would be a core plugin's $kubernetes['pod_name'] taken literally.
func ParseStreamTemplate(s string) (*StreamTemplate, error) {
	const allowed = "use $(node) $(namespace) $(pod) $(container) $(tenant)"
	t := &StreamTemplate{}
	separated := true
	for rest := s; rest != ""; {
		literal, after, found := strings.Cut(rest, "$(")
		if literal != "" {
			for _, r := range literal {
				if r == ':' || r == '*' || r < ' ' || r > '~' {
					return nil, fmt.Errorf("%q has the character %q, which a log stream's name can't have here: use printable ASCII without : and *", s, r)
				}
				if r == cutMark {
					return nil, fmt.Errorf("%q has a $ that begins no variable: %s", s, allowed)
				}
				separated = separated || !(r >= 'a' && r <= 'z' || r >= '0' && r <= '9' || r == '-' || r == '.')
			}
			t.parts = append(t.parts, streamPart{literal: literal})
		}
		if !found {
			break
		}
		name, after, closed := strings.Cut(after, ")")
		if !closed {
			return nil, fmt.Errorf("%q has a $( without its ): %s", s, allowed)
		}
		known := false
		for _, v := range streamVariables {
			known = known || v == name
		}
		if !known {
			return nil, fmt.Errorf("%q has the unknown variable %q: %s", s, "$("+name+")", allowed)
		}
		if !separated {
			return nil, fmt.Errorf("%q has nothing before $(%s) that keeps it from the variable in front: put a / or _ between them", s, name)
		}
		separated = false
		t.parts = append(t.parts, streamPart{variable: name})
		rest = after
	}
	if len(t.parts) == 0 {
		return nil, fmt.Errorf("the template is empty: %s", allowed)
	}
	return t, nil
}

// Append appends the name for a source, at most 512 bytes. One that is longer is cut
// and ends in a hash of the whole, so that it stays its own. The source's names and
// the tenant must be ones Kubernetes allows; characters of the node that a stream's
// name can't have become `_`.
func (t *StreamTemplate) Append(dst []byte, src Source, tenant, node string) []byte {
	start := len(dst)
	for _, p := range t.parts {
		switch p.variable {
		case "":
			dst = append(dst, p.literal...)
		case "node":
			dst = append(dst, streamSafe(node)...)
		case "namespace":
			dst = append(dst, src.Namespace...)
		case "pod":
			dst = append(dst, src.Pod...)
		case "container":
			dst = append(dst, src.Container...)
		case "tenant":
			dst = append(dst, tenant...)
		}
	}
	if name := dst[start:]; len(name) > maxStreamName {
		sum := sha256.Sum256(name)
		dst = append(dst[:start+maxStreamName-1-hashLength], cutMark)
		dst = append(dst, shortHash(sum[:])...)
	}
	return dst
}

// streamSafe is a node's name without what a stream's name can't have. Node names
// are DNS subdomains, so this changes none of Kubernetes' own.
func streamSafe(s string) string {
	return strings.Map(func(r rune) rune {
		if r == ':' || r == '*' || r == cutMark || r <= ' ' || r > '~' {
			return '_'
		}
		return r
	}, s)
}
