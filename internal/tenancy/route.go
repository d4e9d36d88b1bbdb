package tenancy

import "strings"

// Route is where the lines of a tag go, and why.
type Route struct {
	Kind Kind
	// Tenant is set for KindTenant alone.
	Tenant *Tenant
	// Source is set unless Kind is KindUnrouted; Reason then says why it is not.
	Source Source
	Reason Reason

	Group, Stream string
}

// Router brings tags to destinations. It never changes, and may be used by many
// goroutines.
type Router struct {
	parser   *TagParser
	names    Names
	template *StreamTemplate
	node     string
	registry *Registry
}

// NewRouter makes a router; node fills $(node) of the template.
func NewRouter(parser *TagParser, registry *Registry, names Names, template *StreamTemplate, node string) *Router {
	return &Router{parser: parser, registry: registry, names: names, template: template, node: node}
}

// With is the same router with another registry.
func (r *Router) With(registry *Registry) *Router {
	other := *r
	other.registry = registry
	return &other
}

// Registry is the registry the router follows.
func (r *Router) Registry() *Registry { return r.registry }

// Route says where the lines of this tag go.
func (r *Router) Route(tag string) Route {
	src, reason := r.parser.Parse(tag)
	if reason != None {
		return r.unrouted(reason)
	}
	return r.to(src)
}

// RouteSource is Route for a source that did not come from a tag (`identity
// record`). What it names is held to the tag's rules; namespace and pod must be there,
// while a record may leave out its container, UID and container id.
func (r *Router) RouteSource(src Source) Route {
	switch {
	case !Label(src.Namespace):
		return r.unrouted(BadNamespace)
	case !subdomain(src.Pod):
		return r.unrouted(BadPod)
	case src.Container != "" && !Label(src.Container):
		return r.unrouted(BadContainer)
	case src.PodUID != "" && !podUID(src.PodUID):
		return r.unrouted(BadUID)
	case src.ContainerID != "" && (len(src.ContainerID) != idLength || !hexadecimal(src.ContainerID)):
		return r.unrouted(BadContainerID)
	}
	return r.to(src)
}

// PendingGroup is where lines of namespaces go that the registry does not know.
func (r *Router) PendingGroup() string { return r.names.PendingGroup() }

// QuarantineGroup is where events wait that a tenant's group does not take.
func (r *Router) QuarantineGroup(tenant string) string { return r.names.QuarantineGroup(tenant) }

// QuarantinedTenant is the tenant whose quarantine group this is.
func (r *Router) QuarantinedTenant(group string) (string, bool) {
	name, ok := strings.CutPrefix(group, r.names.QuarantinePrefix)
	if !ok || !Label(name) {
		return "", false
	}
	return name, true
}

// TenantOf is the tenant whose group this is; false for the platform's.
func (r *Router) TenantOf(group string) (string, bool) {
	name, ok := strings.CutPrefix(group, r.names.TenantPrefix)
	if !ok || !Label(name) {
		return "", false
	}
	return name, true
}

func (r *Router) unrouted(reason Reason) Route {
	return Route{Kind: KindUnrouted, Reason: reason, Group: r.names.PlatformGroup, Stream: UnroutedStream}
}

func (r *Router) to(src Source) Route {
	route := Route{Source: src}
	route.Kind, route.Tenant = r.registry.Resolve(src.Namespace)
	tenant := ""
	switch route.Kind {
	case KindTenant:
		tenant = route.Tenant.Name
		route.Group = r.names.Group(tenant)
	case KindPending:
		route.Group = r.names.PendingGroup()
	default:
		route.Group = r.names.PlatformGroup
	}
	var buf [maxStreamName]byte
	route.Stream = string(r.template.Append(buf[:0], src, tenant, r.node))
	if route.Stream == "" {
		// A template of nothing but $(tenant), for a namespace that has none, or but
		// $(container), of which a cut name has nothing left.
		route.Stream = src.Namespace
	}
	return route
}
