package iampolicy

import (
	"maps"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/eks-tenant-logs/eks-tenant-logs/internal/tenancy"
)

// A group's ARN and what can follow it: a group's name is CreateLogGroup's, a stream's CreateLogStream's.
var logsARN = regexp.MustCompile(`^arn:aws:logs:us-east-1:111122223333:log-group:[.\-_/#A-Za-z0-9]{1,512}(:\*|:log-stream:([^:*]{1,512})?)?$`)

// hostileTag draws values of a session's tag around a victim's name: more than STS takes (letters,
// spaces, numbers and _.:/=+-@ of any script, up to 256), for a policy should not stand on that alone.
func hostileTag(t *rapid.T, victim string) string {
	piece := rapid.SampledFrom([]string{
		victim, victim, ":", ":*", ":log-stream:", ":log-stream:tenant-x/pod/app", ":log-stream:" + victim, "*", "?", "**", "${*}", "${?}", "${$}", "$", "{", "}",
		"${aws:PrincipalTag/x}", "/", "//", "..", "../quarantine/", ".", "_", "#", "=", "+", "@", " ", "\t", "\n", "\x00", "-", "--", "A", "Z", strings.ToUpper(victim),
		"é", "ß", "Ａ", "：", "\u2028", "\u00a0", "\U0001F600", "acme", "0", strings.Repeat("t", 27), strings.Repeat("t", 28), strings.Repeat("t", 63), strings.Repeat("t", 64),
	})
	return strings.Join(rapid.SliceOfN(piece, 0, 5).Draw(t, "pieces"), "")
}

// places are what a value could be the tag of: all that begins with the prefix and the value, or with as
// much of the value as names a group, and the victims' own.
func hostilePlaces(s Scope, tag string, victims ...string) (list []string) {
	add := func(arn string) {
		if logsARN.MatchString(arn) {
			list = append(list, arn)
		}
	}
	names := append([]string{tag}, victims...)
	for i, c := range tag {
		if c == ':' {
			names = append(names, tag[:i])
		}
	}
	for _, name := range names {
		arn := s.bare(s.Names.TenantPrefix + name)
		for _, end := range []string{"", ":*", ":log-stream:", ":log-stream:tenant-x/pod/app", "log-stream:", "tenant-x/pod/app"} {
			add(arn + end)
		}
	}
	for _, v := range victims {
		add(s.inside(s.Names.QuarantineGroup(v)))
	}
	add(s.inside(s.Names.PlatformGroup))
	return list
}

// remains reports whether the role of a tenant can open another's group by a session's tag, as docs/iam.md says:
// the name of the one is cut in its role's name or just fits, and that of the other is longer, or is what is left
// of the first.
func remains(tenant, tag string) bool {
	const room = tenancy.MaxTenantInRole
	return len(tenant) >= room && (len(tag) > room || tag == tenant[:room])
}

// A session's tag that is no tenant's name opens nothing, whatever else the role is given, and one that is a
// tenant's name opens that tenant's group alone: to the role that is called after it, and where that remains.
func TestASessionTagThatIsNoTenantsNameOpensNothing(t *testing.T) {
	s := scope(t, "us-east-1")
	all := &Document{Version: Version, Statements: []Statement{{Effect: Allow, Actions: []string{"*"}, Resources: []string{"*"}}}}
	opened := func(p Principal, policies Policies, context map[string][]string, places []string) (list []string) {
		for _, place := range places {
			for _, action := range []string{"logs:FilterLogEvents", "logs:GetLogEvents"} { // the others stand in the same statements
				if Evaluate(Request{Action: action, Resource: place, Principal: p, Context: context}, policies).Allowed {
					list = append(list, place)
					break
				}
			}
		}
		return list
	}
	check := func(t require.TestingT, tenant, tag string, victims ...string) {
		p, policies, context := as(s, tenant, all)
		context[strings.ToLower(principalTag+tenancy.TagTenant)] = []string{tag}
		list := opened(p, policies, context, hostilePlaces(s, tag, victims...))
		if !tenancy.Label(tag) {
			require.Empty(t, list, "role of %q, tag %q", tenant, tag)
		}
		own := s.bare(s.Names.Group(tag))
		for _, place := range list {
			require.True(t, place == own || strings.HasPrefix(place, own+":"), "role of %q, tag %q: %s", tenant, tag, place)
			require.True(t, tag == tenant || remains(tenant, tag), "role of %q, tag %q", tenant, tag)
		}
		// The one role of all tenants is held to names of tenants, too.
		abac := map[string][]string{
			"aws:principaltag/kubernetes-namespace": {tag}, "aws:principaltag/eks-cluster-name": {s.Cluster}, "aws:principaltag/eks-cluster-arn": {s.eks("cluster")},
		}
		list = opened(Principal{ARN: s.RoleARN("readers"), Account: s.Account}, Policies{Identity: []*Document{s.ReaderABAC()}, SameAccount: true}, abac, hostilePlaces(s, tag, victims...))
		if !tenancy.Label(tag) {
			require.Empty(t, list, "reader-abac, namespace %q", tag)
		}
		for _, place := range list {
			require.True(t, place == own || strings.HasPrefix(place, own+":"), "reader-abac, namespace %q: %s", tag, place)
		}
	}
	long := strings.Repeat("t", tenancy.MaxTenantInRole)
	for _, tag := range []string{
		"acme:log-stream:tenant-acme/web-0/app", "sixteencharsname:log-stream:", "acme:log-stream:" + strings.Repeat("x", 40), strings.Repeat("a", 28) + ":log-stream:",
		strings.Repeat("a", 28) + ":*", strings.Repeat("*", 28), strings.Repeat("?", 28), strings.Repeat("a", 27) + "*", strings.Repeat("A", 28), strings.Repeat("a", 64), "-" + long, long + "-", long, "",
	} {
		for _, tenant := range []string{"acme", long, long + "1", longest} {
			victim, _, _ := strings.Cut(tag, ":")
			check(t, tenant, tag, "acme", "sixteencharsname", victim)
		}
	}
	rapid.Check(t, func(t *rapid.T) {
		tenant, victim := drawTenants(t)
		tenant = rapid.SampledFrom([]string{tenant, longest[:len(longest)-len(tenant)] + tenant, long, long + "1"}).Draw(t, "role of")
		check(t, tenant, hostileTag(t, victim), victim, tenant)
	})
}

// Two conditions of a statement with the same operator and key are written as one, of which any value will
// do: no document may have them.
func TestNoStatementAsksTwiceInTheSameWay(t *testing.T) {
	s := scope(t, "us-east-1")
	for name, d := range documents(t, s, "acme") {
		for _, st := range d.Statements {
			seen := map[[2]string]bool{}
			for _, c := range st.Conditions {
				seen[[2]string{c.Operator, strings.ToLower(c.Key)}] = true
			}
			require.Len(t, st.Conditions, len(maps.Clone(seen)), "%s, statement %s", name, st.Sid)
		}
	}
}
