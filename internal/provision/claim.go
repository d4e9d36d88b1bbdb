package provision

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/eks-tenant-logs/eks-tenant-logs/internal/loggroup"
)

// tagGroupCreated is a reader role's tag that names the log group its other tags were
// copied from, by its creation time in milliseconds: a group made anew is another one.
const tagGroupCreated = "eks-tenant-logs/group-created"

// A tag's value has up to 256 characters (CloudWatch Logs and IAM quotas): room for four
// names of namespaces, of up to 63, so the fifth namespace begins another pair of tags.
// A resource has up to 50 tags.
const (
	namespacesPerTag = 4
	maxNamespaces    = 10 * namespacesPerTag
)

func numbered(key string, i int) string {
	if i == 0 {
		return key
	}
	return fmt.Sprintf("%s-%d", key, i+1)
}

// recordTags are the tags that say which namespaces have a tenant, sorted by name. The
// names and the UIDs stand in the same order.
func recordTags(has []Namespace) map[string]string {
	tags := map[string]string{}
	for i := 0; i*namespacesPerTag < len(has); i++ {
		var names, uids []string
		for _, ns := range has[i*namespacesPerTag : min(len(has), (i+1)*namespacesPerTag)] {
			names, uids = append(names, ns.Name), append(uids, ns.UID)
		}
		tags[numbered(loggroup.TagNamespace, i)] = strings.Join(names, " ")
		tags[numbered(loggroup.TagNamespaceUID, i)] = strings.Join(uids, " ")
	}
	return tags
}

// recorded reads what recordTags wrote; what does not add up is an error, for nobody may
// be given what cannot be told to be theirs.
func recorded(tags map[string]string) ([]Namespace, error) {
	var has []Namespace
	for i := range maxNamespaces / namespacesPerTag {
		names := strings.Fields(tags[numbered(loggroup.TagNamespace, i)])
		uids := strings.Fields(tags[numbered(loggroup.TagNamespaceUID, i)])
		if len(names) != len(uids) {
			return nil, fmt.Errorf("its tags %s and %s do not name as many: %q and %q", numbered(loggroup.TagNamespace, i), numbered(loggroup.TagNamespaceUID, i),
				tags[numbered(loggroup.TagNamespace, i)], tags[numbered(loggroup.TagNamespaceUID, i)])
		}
		for j, name := range names {
			has = append(has, Namespace{Name: name, UID: uids[j]})
		}
	}
	return has, nil
}

// claim is who has a tenant, and who asks for it in vain.
type claim struct {
	state   State       // StateReady: granted; else StateRefused or StateRetired
	reason  string      // why it is not granted
	granted []Namespace // sorted by name
	refused []Refusal
	record  []Namespace // what the tags should say, sorted by name
	// shared: the group is another cluster's, and so are its tags.
	shared bool
}

// judge says who has a tenant, from what the tags of its log group say; the reader
// role's stand in where the group is gone.
//
//	the tags say             | the claimants are                   | outcome
//	-------------------------+-------------------------------------+---------------------------------
//	nothing: there is none   | one, or all listed by the file      | granted, and recorded
//	                         | several, not all listed             | refused, naming them
//	nothing of ours          | any                                 | refused, not touched; --adopt: as above
//	another tenant           | any                                 | refused, not touched
//	another cluster          | any                                 | the same, unless shared
//	retired, or the reader role's do | any                         | retired: reactivate
//	ours, nobody recorded    | as if there were none               |
//	ours, recorded           | recorded with this UID              | granted
//	                         | recorded with another UID           | refused: made anew
//	                         | not recorded, listed by the file    | granted, and recorded
//	                         | not recorded, not listed            | refused: somebody else's
//	                         | of unknown UID, recorded or listed  | granted, not recorded
//	                         | none                                | those on record keep it
//
// A tenant of which every claimant is refused is refused itself. Of a group that another
// cluster owns and shares, the tags record that cluster's namespaces; own, the tags of this
// cluster's reader role, record ours.
func judge(t Tenant, tags, own map[string]string, exists bool, in Installation) claim {
	c := claim{state: StateReady}
	var before []Namespace
	if exists {
		cluster, tenant := tags[loggroup.TagCluster], tags[loggroup.TagTenant]
		switch {
		case tenant != "" && tenant != t.Name:
			return claim{state: StateRefused, reason: fmt.Sprintf("the log group's tag %s says that it is %q's", loggroup.TagTenant, tenant)}
		case tenant == "" && !in.Adopt:
			return claim{state: StateRefused, reason: "the log group has none of our tags, so it is somebody else's: if it is to be this tenant's, run `tenantlogs apply --adopt`"}
		case cluster != "" && cluster != in.Scope.Cluster && !in.Shared:
			return claim{state: StateRefused, reason: fmt.Sprintf("the log group is cluster %q's: give this cluster another log_group_prefix, or say that the two share their tenants (--shared)", cluster)}
		}
		c.shared = cluster != "" && cluster != in.Scope.Cluster
		if tags[loggroup.TagState] == loggroup.StateRetired || own[loggroup.TagState] == loggroup.StateRetired {
			return claim{state: StateRetired, shared: c.shared, reason: fmt.Sprintf("the tenant is retired; its logs are kept, and nobody is given them: `tenantlogs reactivate %s --namespace <name>=<uid>` if they are the newcomer's to read", t.Name)}
		}
		if c.shared {
			tags = own
		}
		var err error
		if before, err = recorded(tags); err != nil {
			return claim{state: StateRefused, reason: "who has the tenant can't be told from the log group: " + err.Error()}
		}
	}
	listed := func(name string) bool { return t.Settings != nil && slices.Contains(t.Settings.Namespaces, name) }
	claimants := slices.Clone(t.Namespaces)
	slices.SortFunc(claimants, func(a, b Namespace) int { return strings.Compare(a.Name, b.Name) })
	has := map[string]string{}
	for _, ns := range before {
		has[ns.Name] = ns.UID
	}
	if len(before) == 0 {
		var strangers, names []string
		for _, ns := range claimants {
			names = append(names, ns.Name)
			if !listed(ns.Name) {
				strangers = append(strangers, ns.Name)
			}
		}
		if len(strangers) > 0 && len(claimants) > 1 {
			c.state = StateRefused
			c.reason = fmt.Sprintf("namespaces %s claim the tenant, and the tenants file does not list %s: list all that share it, or take the label off the others", strings.Join(names, " and "), strings.Join(strangers, " and "))
			for _, name := range names {
				c.refused = append(c.refused, Refusal{name, c.reason})
			}
			return c
		}
	}
	refuse := func(name, format string, args ...any) {
		c.refused = append(c.refused, Refusal{name, fmt.Sprintf(format, args...)})
	}
	remedy := func(ns Namespace) string {
		return fmt.Sprintf("if it may read the logs of its predecessor: `tenantlogs reactivate %s --namespace %s=%s`", t.Name, ns.Name, ns.UID)
	}
	record := maps.Clone(has)
	for _, ns := range claimants {
		uid, known := has[ns.Name]
		switch {
		case known && (ns.UID == "" || ns.UID == uid):
			c.granted = append(c.granted, Namespace{ns.Name, uid})
		case known:
			refuse(ns.Name, "namespace %s was made anew: tenant %s belongs to the one with UID %s; %s", ns.Name, t.Name, uid, remedy(ns))
		case len(before) > 0 && !listed(ns.Name):
			refuse(ns.Name, "namespace %s claims tenant %s, which is namespace %s's; give it another tenant, list it in the tenants file, or %s", ns.Name, t.Name, before[0].Name, remedy(ns))
		case len(record) >= maxNamespaces:
			refuse(ns.Name, "tenant %s has had %d namespaces, and no more can be recorded", t.Name, maxNamespaces)
		default:
			c.granted = append(c.granted, ns)
			if ns.UID != "" {
				record[ns.Name] = ns.UID
			}
		}
	}
	for _, name := range slices.Sorted(maps.Keys(record)) {
		c.record = append(c.record, Namespace{name, record[name]})
	}
	if len(claimants) == 0 {
		c.granted = c.record // nobody asks, so nothing is said against those on record
	}
	if len(c.granted) == 0 && len(c.refused) > 0 {
		c.state = StateRefused
		var why []string
		for _, r := range c.refused {
			why = append(why, r.Reason)
		}
		c.reason = strings.Join(why, "; ")
	}
	return c
}
