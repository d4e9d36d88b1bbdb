package controller

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/eks-tenant-logs/eks-tenant-logs/internal/tenancy"
)

func TestWhoHasANamespaceNext(t *testing.T) {
	acme := Owner{Tenant: "acme", UID: "1"}
	gone := func(ago time.Duration) Owner { return Owner{Tenant: "acme", UID: "1", Gone: noon.Add(-ago)} }
	had := func(o Owner) map[string]Owner { return map[string]Owner{"x": o} }
	for name, test := range map[string]struct {
		before map[string]Owner
		now    *verdict // nil: it does not exist
		want   map[string]Owner
	}{
		"nobody's, granted":                   {nil, &verdict{uid: "1", tenant: "acme"}, had(acme)},
		"nobody's, not granted":               {nil, &verdict{uid: "1"}, had(Owner{})},
		"nobody's, refused":                   {nil, &verdict{uid: "1", refused: true}, had(Owner{})},
		"same UID, granted":                   {had(acme), &verdict{uid: "1", tenant: "acme"}, had(acme)},
		"same UID, unclear":                   {had(acme), &verdict{uid: "1"}, had(acme)},
		"same UID, refused":                   {had(acme), &verdict{uid: "1", refused: true}, had(gone(0))},
		"same UID, refused for long":          {had(gone(48 * time.Hour)), &verdict{uid: "1", refused: true}, had(gone(48 * time.Hour))},
		"same UID, granted another":           {had(acme), &verdict{uid: "1", tenant: "globex"}, had(acme)},
		"same UID, granted again":             {had(gone(time.Hour)), &verdict{uid: "1", tenant: "acme"}, had(acme)},
		"another UID, granted the same":       {had(acme), &verdict{uid: "2", tenant: "acme"}, had(Owner{Tenant: "acme", UID: "2"})},
		"another UID, unclear":                {had(acme), &verdict{uid: "2"}, had(gone(0))},
		"another UID, refused":                {had(acme), &verdict{uid: "2", refused: true}, had(gone(0))},
		"another UID, granted another":        {had(acme), &verdict{uid: "2", tenant: "globex"}, had(gone(0))},
		"another UID, after its time":         {had(gone(24 * time.Hour)), &verdict{uid: "2", refused: true}, had(Owner{})},
		"another UID, granted after its time": {had(gone(24 * time.Hour)), &verdict{uid: "2", tenant: "globex"}, had(Owner{Tenant: "globex", UID: "2"})},
		"gone":                                {had(acme), nil, had(gone(0))},
		"gone for a while":                    {had(gone(23 * time.Hour)), nil, had(gone(23 * time.Hour))},
		"gone too long":                       {had(gone(24 * time.Hour)), nil, had(Owner{})},
	} {
		now := map[string]verdict{}
		if test.now != nil {
			now["x"] = *test.now
		}
		if test.want["x"] == (Owner{}) {
			delete(test.want, "x")
		}
		unlisted := func(string) bool { return false }
		require.Equal(t, test.want, nextOwners(test.before, now, unlisted, noon), name)
	}
}

func TestANameThatTheFileListsIsNotForgotten(t *testing.T) {
	before := map[string]Owner{"x": {Tenant: "acme", UID: "1", Gone: noon.Add(-48 * time.Hour)}}
	require.Equal(t, before, nextOwners(before, nil, func(ns string) bool { return ns == "x" }, noon))
}

func TestHowLongANamespaceIsListed(t *testing.T) {
	for name, test := range map[string]struct {
		gone   time.Duration // ago; -1: not gone
		exists bool
		want   bool
	}{
		"it exists":                      {-1, true, true},
		"it is just not seen yet":        {-1, false, true},
		"just gone":                      {0, false, true},
		"its last lines may be coming":   {time.Hour - time.Second, false, true},
		"they must have come":            {time.Hour, false, false},
		"gone, and another came":         {0, true, false},
		"long gone, and another is here": {2 * time.Hour, true, false},
	} {
		o := Owner{Tenant: "acme", UID: "1"}
		if test.gone >= 0 {
			o.Gone = noon.Add(-test.gone)
		}
		require.Equal(t, test.want, o.listed(test.exists, noon), name)
	}
}

// owned are owners of namespaces that exist, given as namespace=tenant.
func owned(pairs ...string) map[string]Owner {
	all := map[string]Owner{}
	for _, p := range pairs {
		ns, tenant, _ := strings.Cut(p, "=")
		all[ns] = Owner{Tenant: tenant, UID: "1"}
	}
	return all
}

func publicationOf(t require.TestingT, owners map[string]Owner, at time.Time) publication {
	return publication{
		exceptions: exceptions(t, file, tenancy.ModeRegistry), platform: []string{"kube-system"}, owners: owners, at: at,
		exists: func(ns string) bool { return owners[ns].Gone.IsZero() },
	}
}

func TestARegistrysGenerationOnlyRisesAndOnlyWithAChange(t *testing.T) {
	p := publicationOf(t, owned("a=acme", "b=globex"), noon)
	first, kept, err := p.next(published{})
	require.NoError(t, err)
	require.Nil(t, kept)
	require.Equal(t, noon.Unix(), first.generation(), "no count of changes has reached it")
	require.Equal(t, []string{"kube-system", "monitoring"}, first.registry.PlatformNamespaces())
	_, acme := first.registry.Resolve("a")
	require.Equal(t, "acme", acme.Name)
	require.Equal(t, 731, acme.RetentionDays, "the file's settings")
	require.Equal(t, []string{"a"}, acme.Namespaces, "only what exists")

	same, kept, err := p.next(first)
	require.NoError(t, err)
	require.Nil(t, kept)
	require.Equal(t, first.generation(), same.generation())
	require.Equal(t, string(first.data), string(same.data))

	p.owners = owned("a=acme", "b=globex", "c=acme")
	second, _, err := p.next(first)
	require.NoError(t, err)
	require.Equal(t, first.generation()+1, second.generation())

	p.floor = second.generation() + 10
	third, _, err := p.next(second)
	require.NoError(t, err)
	require.Greater(t, third.generation(), p.floor, "one that another has published is not used again")

	p.floor, p.at = third.generation(), time.Unix(5, 0)
	anew, _, err := p.next(published{})
	require.NoError(t, err)
	require.Greater(t, anew.generation(), p.floor, "also without the last one, and with a clock that went back")
}

func TestWhatAPublishedRegistryHasBrokenIsNotKept(t *testing.T) {
	p, _, err := publicationOf(t, owned("a=acme"), noon).next(published{})
	require.NoError(t, err)
	data, err := p.configMap()
	require.NoError(t, err)
	read, err := readPublished(data)
	require.NoError(t, err)
	require.Equal(t, p.generation(), read.generation())
	require.Equal(t, p.data, read.data)
	require.Equal(t, p.owners, read.owners)

	read, err = readPublished(nil)
	require.NoError(t, err)
	require.Nil(t, read.registry)
	require.NotNil(t, read.owners)

	read, err = readPublished(map[string]string{registryKey: "tenants: [", ownersKey: data[ownersKey]})
	require.ErrorContains(t, err, registryKey)
	require.Nil(t, read.registry)
	require.Equal(t, p.owners, read.owners)

	read, err = readPublished(map[string]string{registryKey: data[registryKey], ownersKey: `{"a":1}`})
	require.ErrorContains(t, err, ownersKey)
	require.NotNil(t, read.registry)
	require.Empty(t, read.owners)
}

func TestNamespacesThatGoWithMostTenantsStayInTheRegistry(t *testing.T) {
	before, _, err := publicationOf(t, owned("a=acme", "b=globex", "c=initech"), noon).next(published{})
	require.NoError(t, err)
	gone := func(pairs ...string) map[string]Owner {
		all := owned("a=acme", "b=globex", "c=initech")
		for _, ns := range pairs {
			o := all[ns]
			o.Gone = noon.Add(-2 * time.Hour)
			all[ns] = o
		}
		return all
	}
	tenantOf := func(p published, ns string) string {
		if _, t := p.registry.Resolve(ns); t != nil {
			return t.Name
		}
		return ""
	}

	one, kept, err := publicationOf(t, gone("b"), noon).next(before)
	require.NoError(t, err)
	require.Nil(t, kept)
	require.Empty(t, tenantOf(one, "b"))

	two, kept, err := publicationOf(t, gone("b", "c"), noon).next(before)
	require.NoError(t, err)
	require.Contains(t, kept.reason, "2 of 3 tenants are missing")
	require.Equal(t, []string{"globex", "initech"}, []string{tenantOf(two, "b"), tenantOf(two, "c")})
	require.Equal(t, before.generation(), two.generation(), "nothing changed")

	// Another came of the name b: its lines are not globex's.
	p := publicationOf(t, gone("b", "c"), noon)
	p.exists = func(ns string) bool { return ns != "c" }
	newcomer, kept, err := p.next(before)
	require.NoError(t, err)
	require.NotNil(t, kept)
	require.Equal(t, []string{"", "initech"}, []string{tenantOf(newcomer, "b"), tenantOf(newcomer, "c")})

	// All became the platform's: no node would take it.
	p = publicationOf(t, owned("a=acme", "b=globex", "c=initech"), noon)
	p.platform = []string{"a", "b", "c"}
	same, _, err := p.next(before)
	require.ErrorContains(t, err, "nodes would refuse the registry")
	require.Equal(t, before.data, same.data)
}

// Whatever happens to the namespaces of a cluster: every registry is one that nodes take in place
// of the one before, its generation rises with every change and stays with none, and no
// namespace passes from one tenant to another in less than reuseAfter, nor under one UID.
func TestEveryRegistryIsOneThatNodesTakeInPlaceOfTheLast(t *testing.T) {
	none := exceptions(t, "version: 1", tenancy.ModeRegistry)
	names := []string{"a", "b", "c", "d", "e", "f"}
	tenants := []string{"acme", "acme-corp", "globex"}
	rapid.Check(t, func(t *rapid.T) {
		var before published
		before.owners = map[string]Owner{}
		uids := map[string]string{}    // of those that exist
		labels := map[string]string{}  // likewise
		byUID := map[string]string{}   // the tenant each was granted
		lost := map[string]time.Time{} // when a tenant's namespace was last in the file, by "namespace tenant"
		made := 0
		at := noon
		for range rapid.IntRange(1, 30).Draw(t, "passes") {
			at = at.Add(rapid.SampledFrom([]time.Duration{0, time.Minute, 45 * time.Minute, 13 * time.Hour, 25 * time.Hour}).Draw(t, "later"))
			for range rapid.IntRange(0, 4).Draw(t, "changes") {
				ns := rapid.SampledFrom(names).Draw(t, "namespace")
				if rapid.Bool().Draw(t, "delete") {
					delete(uids, ns)
					continue
				}
				if uids[ns] == "" || rapid.Bool().Draw(t, "anew") {
					made++
					uids[ns] = fmt.Sprint(made)
				}
				labels[ns] = rapid.SampledFrom(tenants).Draw(t, "label")
			}
			var namespaces []Namespace
			for ns, uid := range uids {
				namespaces = append(namespaces, Namespace{Name: ns, UID: uid, Label: labels[ns], Labelled: true})
			}
			desired, refusals := Desired(namespaces, Rules{Mode: tenancy.ModeRegistry, Exceptions: none, Owners: before.owners})
			verdicts := map[string]verdict{}
			for ns, uid := range uids {
				verdicts[ns] = verdict{uid: uid}
			}
			for _, tenant := range desired {
				for _, ns := range tenant.Namespaces {
					v := verdict{uid: ns.UID}
					switch rapid.IntRange(0, 3).Draw(t, "engine") {
					case 0:
						v.refused = true
					case 1: // it failed
					default:
						v.tenant = tenant.Name
					}
					verdicts[ns.Name] = v
				}
			}
			for _, r := range refusals {
				if v := verdicts[r.Namespace]; v.tenant == "" {
					v.refused = true
					verdicts[r.Namespace] = v
				}
			}
			owners := nextOwners(before.owners, verdicts, before.lists, at)
			p := publication{exceptions: none, platform: []string{"kube-system"}, owners: owners, at: at, floor: before.generation(), exists: func(ns string) bool { return uids[ns] != "" }}
			next, _, err := p.next(before)
			if err != nil {
				require.Equal(t, before.data, next.data, "the one before stays")
				next = before
			}
			if before.registry != nil {
				require.NoError(t, before.registry.Replaceable(next.registry))
				if changed := string(before.data) != string(next.data); changed {
					require.Greater(t, next.generation(), before.generation())
				} else {
					require.Equal(t, before.generation(), next.generation())
				}
			}
			for ns, o := range next.owners {
				if o.Gone.IsZero() {
					require.Contains(t, []string{"", o.Tenant}, byUID[o.UID], "namespace %s passed on under one UID", ns)
					byUID[o.UID] = o.Tenant
				}
			}
			for _, tenant := range next.registry.Tenants() {
				for _, ns := range tenant.Namespaces {
					for _, other := range tenants {
						last, was := lost[ns+" "+other]
						require.False(t, was && other != tenant.Name && at.Sub(last) < reuseAfter-lingerFor, "namespace %s passed from %s to %s after %v", ns, other, tenant.Name, at.Sub(last))
					}
					lost[ns+" "+tenant.Name] = at
				}
			}
			before = next
		}
	})
}

// The same owners in whatever order: the same bytes.
func TestTheSameOwnersAreTheSameBytes(t *testing.T) {
	all := map[string]Owner{}
	for i := range 200 {
		all[fmt.Sprintf("ns-%d", i)] = Owner{Tenant: fmt.Sprintf("t-%d", i%70), UID: "1"}
	}
	first, _, err := publicationOf(t, all, noon).next(published{})
	require.NoError(t, err)
	for range 10 {
		again, _, err := publicationOf(t, maps.Collect(maps.All(all)), noon).next(published{})
		require.NoError(t, err)
		require.Equal(t, string(first.data), string(again.data))
	}
	require.Len(t, slices.Collect(maps.Keys(all)), 200)
}
