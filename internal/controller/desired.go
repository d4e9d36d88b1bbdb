package controller

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/eks-tenant-logs/eks-tenant-logs/internal/provision"
	"github.com/eks-tenant-logs/eks-tenant-logs/internal/tenancy"
)

// Label is the namespaces' label that names their tenant, with tenant_source registry.
const Label = "eks-tenant-logs/tenant"

// Namespace is what is read of a Kubernetes namespace.
type Namespace struct {
	Name, UID string
	// Label is the value of the label Label; Labelled is false where there is none, for an
	// empty one is a mistake and not no claim.
	Label    string
	Labelled bool
}

// Rules say how namespaces become tenants.
type Rules struct {
	Mode tenancy.Mode
	// Exceptions is the tenants file of the release, read in Mode; without a file the
	// registry that has none.
	Exceptions *tenancy.Registry
	// Reserved namespaces are never a tenant's.
	Reserved []string
	// Owners are the namespaces that were published, by name; used in registry mode.
	Owners map[string]Owner
}

// Owner is who has, or had, a namespace.
type Owner struct {
	Tenant string `json:"tenant"`
	// UID of the namespace that has it.
	UID string `json:"uid"`
	// Gone is when that namespace was first seen to be gone; zero while it exists.
	Gone time.Time `json:"gone,omitzero"`
}

// Refusal is a namespace that does not get what it claims. It may have another tenant, and
// keeps it.
type Refusal struct {
	Namespace string `json:"namespace"`
	UID       string `json:"-"`
	// Reason says what is wrong, and what to do.
	Reason string `json:"reason"`
}

// Desired says who claims which tenant. It is pure, and the order of namespaces does not
// matter. Tenants and refusals are sorted by name; a namespace is at most one tenant's.
//
// With tenant_source prefix:
//
//	the file or the prefix rule says | the label | outcome
//	---------------------------------+-----------+------------------------------------------
//	tenant                           | -         | the tenant's
//	tenant, but it is reserved       | -         | refused: nodes would give it to the tenant
//	any                              | another   | as above, and the label is refused
//
// With tenant_source registry:
//
//	reserved or the platform's | the file says | the label | it was  | outcome
//	---------------------------+---------------+-----------+---------+-----------------------
//	yes                        | -             | none      | -       | the platform's
//	yes                        | -             | any       | -       | the same; label refused
//	no                         | tenant        | same/none | -       | the file's tenant's
//	no                         | tenant        | another   | -       | the same; label refused
//	no                         | nothing       | none      | nobody's| pending, on the nodes
//	no                         | nothing       | no tenant | nobody's| refused
//	no                         | nothing       | tenant    | nobody's| the label's tenant's
//
// and a namespace that has had a tenant under this UID keeps it, whatever file or label
// say now, unless it became the platform's; one made anew of that name gets no other
// tenant while lines of its predecessor may be on their way.
func Desired(namespaces []Namespace, rules Rules) ([]provision.Tenant, []Refusal) {
	claims := map[string][]provision.Namespace{}
	var refusals []Refusal
	for _, ns := range namespaces {
		tenant, reason := rules.claim(ns)
		if tenant != "" {
			claims[tenant] = append(claims[tenant], provision.Namespace{Name: ns.Name, UID: ns.UID})
		}
		if reason != "" {
			refusals = append(refusals, Refusal{Namespace: ns.Name, UID: ns.UID, Reason: reason})
		}
	}
	slices.SortFunc(refusals, func(a, b Refusal) int { return strings.Compare(a.Namespace, b.Namespace) })
	var tenants []provision.Tenant
	for _, name := range slices.Sorted(maps.Keys(claims)) {
		all := claims[name]
		slices.SortFunc(all, func(a, b provision.Namespace) int { return strings.Compare(a.Name, b.Name) })
		tenants = append(tenants, provision.Tenant{Name: name, Namespaces: all, Settings: rules.Exceptions.Tenant(name)})
	}
	return tenants, refusals
}

// claim is whose a namespace is, empty for nobody's, and what of its claims is refused.
func (r Rules) claim(ns Namespace) (tenant, reason string) {
	if r.Mode == tenancy.ModePrefix {
		return r.byName(ns)
	}
	return r.byLabel(ns)
}

func (r Rules) byName(ns Namespace) (tenant, reason string) {
	if kind, t := r.Exceptions.Resolve(ns.Name); kind == tenancy.KindTenant {
		tenant = t.Name
	}
	switch {
	case tenant != "" && slices.Contains(r.Reserved, ns.Name):
		return "", fmt.Sprintf("namespace %s is reserved, and the nodes give its lines to tenant %s: put it under platformNamespaces in the tenants file", ns.Name, tenant)
	case ns.Labelled && ns.Label != tenant:
		return tenant, fmt.Sprintf("the label %s=%s is not looked at: tenants come from the names of namespaces here; list the namespace in the tenants file, or use tenant_source registry", Label, ns.Label)
	}
	return tenant, ""
}

func (r Rules) byLabel(ns Namespace) (tenant, reason string) {
	kind, byFile := r.Exceptions.Resolve(ns.Name)
	if r.reserved(ns.Name) || kind == tenancy.KindPlatform {
		switch {
		case ns.Labelled:
			return "", fmt.Sprintf("namespace %s is the platform's, never a tenant's: take the label %s off", ns.Name, Label)
		case kind == tenancy.KindTenant:
			return "", fmt.Sprintf("namespace %s is reserved: take it out of tenant %s in the tenants file", ns.Name, byFile.Name)
		}
		return "", ""
	}
	switch {
	case kind == tenancy.KindTenant:
		tenant = byFile.Name
		if ns.Labelled && ns.Label != tenant {
			reason = fmt.Sprintf("the label says tenant %q, and the tenants file says tenant %s, which holds: make the two the same", ns.Label, tenant)
		}
	case ns.Labelled && !tenancy.Label(ns.Label):
		reason = fmt.Sprintf("the label %s=%q names no tenant: a tenant is a DNS label, lower-case letters, digits and -, up to 63", Label, ns.Label)
	case ns.Labelled:
		tenant = ns.Label
	}
	owner, known := r.Owners[ns.Name]
	switch {
	case !known || owner.Tenant == tenant:
	case owner.UID == ns.UID:
		said := "nothing says so any more"
		if tenant != "" {
			said = fmt.Sprintf("it would become tenant %s's", tenant)
		}
		return owner.Tenant, fmt.Sprintf("namespace %s is tenant %s's, and %s: a namespace does not change its tenant; set the label %s=%s again, or put it under platformNamespaces in the tenants file",
			ns.Name, owner.Tenant, said, Label, owner.Tenant)
	case tenant != "":
		return "", fmt.Sprintf("the name %s was tenant %s's, whose lines may still be on their way: use another name, or wait %d hours", ns.Name, owner.Tenant, int(reuseAfter.Hours()))
	}
	return tenant, reason
}

// reserved is as the admission policy has it.
func (r Rules) reserved(namespace string) bool {
	return slices.Contains(r.Reserved, namespace) || strings.HasPrefix(namespace, "kube-")
}
