package controller

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/eks-tenant-logs/eks-tenant-logs/internal/tenancy"
)

const (
	// lingerFor is how long a namespace that is gone stays in the registry, so that its
	// last lines, which nodes may still hold, reach its tenant.
	lingerFor = time.Hour
	// reuseAfter is how long after its end a namespace's name goes to no other tenant. A
	// node that missed the versions in between would otherwise see one tenant's namespace
	// become another's, and refuse the whole registry.
	reuseAfter = 24 * time.Hour
)

// Keys of the registry's ConfigMap.
const (
	registryKey = "tenants.yaml"
	ownersKey   = "owners.json"
)

// published is the registry's ConfigMap as it was read or is to be written.
type published struct {
	registry *tenancy.Registry // nil: none
	data     []byte
	owners   map[string]Owner
}

// readPublished reads what the ConfigMap says. Of what is broken nothing is kept.
func readPublished(data map[string]string) (published, error) {
	p := published{owners: map[string]Owner{}}
	var errs []error
	if text, ok := data[registryKey]; ok {
		r, err := tenancy.ParseRegistry([]byte(text), tenancy.RegistryOptions{Mode: tenancy.ModeRegistry})
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", registryKey, err))
		} else {
			p.registry, p.data = r, []byte(text)
		}
	}
	if text, ok := data[ownersKey]; ok {
		if err := json.Unmarshal([]byte(text), &p.owners); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", ownersKey, err))
			p.owners = map[string]Owner{}
		}
	}
	return p, errors.Join(errs...)
}

// Owners reads from the data of a registry's ConfigMap which namespaces have, or had, a tenant.
func Owners(data map[string]string) (map[string]Owner, error) {
	p, err := readPublished(data)
	return p.owners, err
}

// RegistryName is what the ConfigMap of a release's registry is called.
func RegistryName(release string) string { return release + "-registry" }

func (p published) generation() int64 {
	if p.registry == nil {
		return 0
	}
	return p.registry.Generation
}

// verdict is what is known of a namespace that exists.
type verdict struct {
	uid string
	// tenant is the one it was granted; empty: none.
	tenant string
	// refused: it was told that it does not get the tenant; false with no tenant says that
	// nothing could be told.
	refused bool
}

// nextOwners is who has which namespace now.
//
//	it was         | it exists           | verdict          | outcome
//	---------------+---------------------+------------------+----------------------------------
//	nobody's       | yes                 | granted          | the tenant's
//	the tenant's   | with the same UID   | granted, unclear | as before
//	               | with the same UID   | refused          | gone, and in the file no longer
//	               | with another UID    | granted, same    | the tenant's, with the new UID
//	               | with another UID    | else             | gone, and in the file no longer
//	               | no                  |                  | gone
//	gone too long  | with the same UID   | refused          | gone: it never gets another tenant
//	               | the file lists it   |                  | gone: nodes give its lines to the tenant
//	               | with another UID    | else             | forgotten
//	               | no                  |                  | forgotten
func nextOwners(before map[string]Owner, now map[string]verdict, listed func(namespace string) bool, at time.Time) map[string]Owner {
	next := map[string]Owner{}
	for ns, owner := range before {
		v, exists := now[ns]
		switch {
		case exists && v.tenant == owner.Tenant:
			owner = Owner{Tenant: v.tenant, UID: v.uid}
		case exists && v.uid == owner.UID && !v.refused:
		case owner.Gone.IsZero():
			owner.Gone = at.UTC().Truncate(time.Second)
		case at.Sub(owner.Gone) >= reuseAfter && (!exists || v.uid != owner.UID) && !listed(ns):
			continue
		}
		next[ns] = owner
	}
	for ns, v := range now {
		if _, taken := next[ns]; !taken && v.tenant != "" {
			next[ns] = Owner{Tenant: v.tenant, UID: v.uid}
		}
	}
	return next
}

// lists reports whether the file gives a namespace to a tenant.
func (p published) lists(namespace string) bool {
	if p.registry == nil {
		return false
	}
	_, t := p.registry.Resolve(namespace)
	return t != nil
}

// leave has the time after which a name may go to another begin no sooner than the name
// leaves the file, in which it may have been kept for long.
func leave(owners map[string]Owner, before, after published, at time.Time) map[string]Owner {
	owners = maps.Clone(owners)
	for ns, o := range owners {
		left := at.Add(-lingerFor).UTC().Truncate(time.Second)
		if before.lists(ns) && !after.lists(ns) && !o.Gone.IsZero() && o.Gone.Before(left) {
			o.Gone = left
			owners[ns] = o
		}
	}
	return owners
}

// listed reports whether a namespace stands in the file: while it exists, and for a while
// after, so long as no other of its name has come.
func (o Owner) listed(exists bool, at time.Time) bool {
	return o.Gone.IsZero() || !exists && at.Sub(o.Gone) < lingerFor
}

// publication is what goes into the file, but for the generation.
type publication struct {
	exceptions *tenancy.Registry
	platform   []string
	owners     map[string]Owner
	exists     func(namespace string) bool
	at         time.Time
	// floor is the highest generation that is known to have been published.
	floor int64
}

// held says that the registry was not taken over as it should be.
type held struct{ reason string }

// next is the registry to publish after before, its generation counted up, or the same one
// where nothing changed. Nodes refuse a version that loses most tenants; so namespaces that
// would make it so stay, and why is said; those of which another has come only if need be,
// for its lines would be taken for theirs. The error is that of a registry that can't be
// published at all; before then stays.
//
// Generations count up from the last one. Where that is not known any more they begin at
// the seconds since 1970, which no count of changes has reached.
func (p publication) next(before published) (published, *held, error) {
	after, err := p.render(before, nil)
	if err != nil {
		return before, nil, err
	}
	if before.registry == nil {
		return after, nil, nil
	}
	refusal := before.registry.Replaceable(after.registry)
	if refusal == nil {
		return after, nil, nil
	}
	var stays error
	for _, keep := range []func(ns string) bool{
		func(ns string) bool { return p.owners[ns].Gone.IsZero() || !p.exists(ns) },
		func(string) bool { return true },
	} {
		if after, err = p.render(before, keep); err != nil {
			return before, nil, err
		}
		if stays = before.registry.Replaceable(after.registry); stays == nil {
			return after, &held{fmt.Sprintf("namespaces that are gone stay in the registry, for nodes refuse one that loses so many: %v", refusal)}, nil
		}
	}
	return before, nil, fmt.Errorf("nodes would refuse the registry: %w", stays)
}

// render makes the file; of the namespaces in the one before, those that keep names are not
// left out, unless they are somebody else's now.
func (p publication) render(before published, keep func(namespace string) bool) (published, error) {
	byTenant := map[string][]string{}
	platform := map[string]bool{}
	for _, ns := range p.platform {
		platform[ns] = true
	}
	for _, ns := range p.exceptions.PlatformNamespaces() {
		platform[ns] = true
	}
	given := map[string]bool{}
	give := func(ns, tenant string) {
		if !given[ns] && !platform[ns] {
			given[ns] = true
			byTenant[tenant] = append(byTenant[tenant], ns)
		}
	}
	for ns, o := range p.owners {
		if o.listed(p.exists(ns), p.at) {
			give(ns, o.Tenant)
		}
	}
	if keep != nil {
		for _, t := range before.registry.Tenants() {
			for _, ns := range t.Namespaces {
				if keep(ns) {
					give(ns, t.Name)
				}
			}
		}
	}
	var tenants []*tenancy.Tenant
	for name, namespaces := range byTenant {
		t := tenancy.Tenant{Name: name}
		if s := p.exceptions.Tenant(name); s != nil {
			t = *s
		}
		t.Namespaces = namespaces
		tenants = append(tenants, &t)
	}
	generation := max(before.generation(), p.floor)
	file := func() ([]byte, error) {
		return tenancy.PublishRegistry(generation, tenants, slices.Collect(maps.Keys(platform)))
	}
	data, err := file()
	if err == nil && string(data) != string(before.data) {
		generation++
		if before.registry == nil {
			generation = max(generation, p.at.Unix())
		}
		data, err = file()
	}
	if err != nil {
		return before, err
	}
	r, err := tenancy.ParseRegistry(data, tenancy.RegistryOptions{Mode: tenancy.ModeRegistry})
	if err != nil {
		return before, err
	}
	after := published{registry: r, data: data}
	after.owners = leave(p.owners, before, after, p.at)
	return after, nil
}

// sizeOf is how many bytes of a ConfigMap data takes.
func sizeOf(data map[string]string) (n int) {
	for key, text := range data {
		n += len(key) + len(text)
	}
	return n
}

// configMap is the ConfigMap's data.
func (p published) configMap() (map[string]string, error) {
	owners, err := json.Marshal(p.owners) // sorted by name
	if err != nil {
		return nil, err
	}
	return map[string]string{registryKey: string(p.data), ownersKey: string(owners)}, nil
}
