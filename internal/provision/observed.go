package provision

import (
	"maps"
	"strconv"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/cloudwatchlogs/types"

	"github.com/eks-tenant-logs/eks-tenant-logs/internal/iampolicy"
	"github.com/eks-tenant-logs/eks-tenant-logs/internal/loggroup"
)

// Observed is what there is, as far as some tenants need it. Nothing in it is desired.
type Observed struct {
	groups map[groupKey]*group
	roles  map[string]*role // by name in lower case: IAM does not tell cases apart
	keys   map[string]*key  // by tenant
	pods   *podIdentities
	// boundary is that of the reader roles; nil where it was not looked at.
	boundary *boundarySeen
	// failed is what could not be read, by tenant; "" is what is no tenant's.
	failed map[string]error
	// keysFailed and podsFailed say why the keys and the associations of all tenants are not
	// known: what rests on the other layers goes on.
	keysFailed, podsFailed error
	// rolesInAccount and roleQuota are -1 where they were not asked for.
	rolesInAccount, roleQuota int
}

// tagSource is where a group's tags are known from.
type tagSource uint8

const (
	tagsUnknown tagSource = iota
	// tagsCopied: from the reader role, which was given them when the group was ready.
	tagsCopied
	// tagsRemembered: they were read before.
	tagsRemembered
	// tagsRead: they were read now. Nothing is changed on the strength of any other.
	tagsRead
)

// group is a log group there is.
type group struct {
	types.LogGroup
	tags   map[string]string
	source tagSource
}

func (g *group) arn() string { return aws.ToString(g.LogGroupArn) }

func (g *group) created() int64 { return aws.ToInt64(g.CreationTime) }

// days is the effective retention; 0: events never expire.
func (g *group) days() int { return int(aws.ToInt32(g.RetentionInDays)) }

// role is a role there is.
type role struct {
	name, path, arn string
	tags            map[string]string
	boundary        string // its ARN
	trust           string // JSON
	inline          map[string]string
	attached        []string // ARNs
}

// ours reports whether the role is the reader role of a tenant of this cluster: its path
// and its tags say so, all of them.
func (r *role) ours(in Installation, tenant string) bool {
	return r.path == in.Scope.RolePath && r.tags[loggroup.TagTenant] == tenant && r.tags[loggroup.TagCluster] == in.Scope.Cluster
}

// groupTags are the tags of a group as the reader role was given them; false where the
// role was never given them, or those of another group.
func (r *role) groupTags(g *group) (map[string]string, bool) {
	if r.tags[tagGroupCreated] != strconv.FormatInt(g.created(), 10) || r.tags[loggroup.TagState] != loggroup.StateReady {
		return nil, false
	}
	tags := maps.Clone(r.tags)
	delete(tags, tagGroupCreated)
	return tags, true
}

// key is a tenant's KMS key.
type key struct {
	id, arn  string
	aliased  bool
	policy   string // JSON
	rotation bool
}

// same reports whether a JSON document means what is wanted.
func same(document string, want *iampolicy.Document) bool {
	have, err := iampolicy.Parse([]byte(document))
	return err == nil && iampolicy.Equal(have, want)
}

func roleKey(name string) string { return strings.ToLower(name) }
