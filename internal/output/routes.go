package output

import (
	"cmp"
	"fmt"
	"log/slog"
	"os"
	"time"
	"unsafe"

	lru "github.com/hashicorp/golang-lru/v2"

	"github.com/eks-tenant-logs/eks-tenant-logs/internal/awsclient"
	"github.com/eks-tenant-logs/eks-tenant-logs/internal/chunk"
	"github.com/eks-tenant-logs/eks-tenant-logs/internal/delivery"
	"github.com/eks-tenant-logs/eks-tenant-logs/internal/loggroup"
	"github.com/eks-tenant-logs/eks-tenant-logs/internal/tenancy"
)

// view is what follows from one version of the registry: where tags lead, and what
// groups are to be like. A flush takes one and keeps it to its end, so that a new
// version never changes a chunk half way.
type view struct {
	opts   *Options
	router *tenancy.Router
	host   string // what tag-borne records say of their node
	routes *lru.Cache[string, *route]
	// claims are the routes of `identity record`; nobody is the one of records that
	// name no pod.
	claims *lru.Cache[claim, *route]
	nobody *route
}

// route is what a tag leads to. It is made once and shared.
type route struct {
	target   delivery.Target
	kind     tenancy.Kind
	tenant   string // empty for the platform
	identity *chunk.Identity
	emf      bool
	note     string
	// unrouted is why the tag names no pod; None where it does, and in `identity record`.
	unrouted tenancy.Reason
	// onFailure is what is done while the group does not take events.
	onFailure string
	// retention bounds how old an event may be: CloudWatch rejects what it would
	// expire at once.
	retention time.Duration
}

// knownTags bounds how many tags one instance remembers; a tag is a container, so
// this is far above what a node runs.
const knownTags = 4096

func newView(opts *Options, router *tenancy.Router, host string) (*view, error) {
	routes, err := lru.New[string, *route](knownTags)
	if err != nil {
		return nil, fmt.Errorf("failed to make the cache of tags: %w", err)
	}
	claims, err := lru.New[claim, *route](knownTags)
	if err != nil {
		return nil, fmt.Errorf("failed to make the cache of claims: %w", err)
	}
	v := &view{opts: opts, router: router, host: host, routes: routes, claims: claims}
	v.nobody = v.prepare(router.RouteSource(tenancy.Source{}), "")
	return v, nil
}

// newRouter makes the router; the registry comes from tenants_file.
func newRouter(opts Options, registry *tenancy.Registry, node string) (*tenancy.Router, error) {
	parser, err := tenancy.NewTagParser(opts.TagPrefix)
	if err != nil {
		return nil, fmt.Errorf("tag_prefix: %w", err)
	}
	names, err := tenancy.NewNames(opts.LogGroupPrefix, opts.PlatformLogGroup, opts.QuarantineLogGroupPrefix)
	if err != nil {
		return nil, fmt.Errorf("log_group_prefix: %w", err)
	}
	template, err := tenancy.ParseStreamTemplate(opts.LogStreamTemplate)
	if err != nil {
		return nil, fmt.Errorf("log_stream_template: %w", err)
	}
	return tenancy.NewRouter(parser, registry, names, template, node), nil
}

func nodeName(env Environment) string {
	if env.Node != "" {
		return env.Node
	}
	host, err := os.Hostname()
	if err != nil {
		env.Log.Warn("the host's name is not known; kubernetes.host stays empty: set NODE_NAME", slog.Any("error", err))
	}
	return host
}

// route is where the chunks of a tag go; a tag is read once.
func (v *view) route(tag string) *route {
	if r, ok := v.routes.Get(tag); ok {
		return r
	}
	to := v.router.Route(tag)
	r := v.prepare(to, v.host)
	if to.Kind == tenancy.KindUnrouted {
		r.note, r.unrouted = unroutedNote(to.Reason, tag), to.Reason
	}
	v.routes.Add(tag, r)
	return r
}

func unroutedNote(reason tenancy.Reason, tag string) string {
	note := append([]byte(`"unrouted":"`), reason.String()...)
	note = append(note, `","tag":`...)
	return string(chunk.AppendString(note, []byte(shortTag(tag))))
}

// claim is who a record says it is from, as a key.
type claim struct{ namespace, pod, container, podUID, containerID, host string }

// Limits of what can name a pod, in bytes: Kubernetes' names, a UUID, a container's
// id; a node's name is a DNS subdomain.
const (
	maxLabel       = 63
	maxSubdomain   = 253
	maxUID         = 36
	maxContainerID = 64
)

// claimed is the route of one record in `identity record`. What can name no pod is
// told before it is kept: whoever sends the records must not fill our memory.
func (v *view) claimed(c chunk.Claim) *route {
	if !c.Present || len(c.Namespace) > maxLabel || len(c.Pod) > maxSubdomain || len(c.Container) > maxLabel ||
		len(c.PodUID) > maxUID || len(c.ContainerID) > maxContainerID || len(c.Host) > maxSubdomain {
		return v.nobody
	}
	// To be looked up by only: the bytes are the flush's.
	look := claim{still(c.Namespace), still(c.Pod), still(c.Container), still(c.PodUID), still(c.ContainerID), still(c.Host)}
	if r, ok := v.claims.Get(look); ok {
		return r
	}
	key := claim{string(c.Namespace), string(c.Pod), string(c.Container), string(c.PodUID), string(c.ContainerID), string(c.Host)}
	to := v.router.RouteSource(tenancy.Source{
		Namespace: key.namespace, Pod: key.pod, Container: key.container, PodUID: key.podUID, ContainerID: key.containerID,
	})
	if to.Kind == tenancy.KindUnrouted {
		return v.nobody
	}
	r := v.prepare(to, key.host)
	v.claims.Add(key, r)
	return r
}

// still is bytes as a string without a copy, for as long as nobody changes them.
func still(b []byte) string { return unsafe.String(unsafe.SliceData(b), len(b)) }

// prepare turns a route into what a flush needs. host is the node the records are from.
func (v *view) prepare(to tenancy.Route, host string) *route {
	r := &route{kind: to.Kind, target: delivery.Target{Group: to.Group, Stream: to.Stream}}
	if t := to.Tenant; t != nil {
		r.tenant, r.emf = t.Name, t.EMF
		r.onFailure = t.OnFailureOr(v.opts.OnFailure)
		r.target.Role = roleOf(t)
	}
	r.retention = min(chunk.OldestEvent, time.Duration(v.spec(to.Group).RetentionDays)*24*time.Hour)
	if to.Kind != tenancy.KindUnrouted {
		s := to.Source
		r.identity = chunk.NewIdentity(s.Namespace, s.Pod, s.Container, s.PodUID, s.ContainerID, host)
	}
	return r
}

// Values of on_failure.
const (
	onFailureQuarantine = tenancy.OnFailureQuarantine
	onFailureHold       = tenancy.OnFailureHold
	onFailureDrop       = tenancy.OnFailureDrop
)

// owner is the tenant whose own group this is, with the settings the file gives it.
func (v *view) owner(group string) (t tenancy.Tenant, ok bool) {
	name, ok := v.router.TenantOf(group)
	if !ok {
		return t, false
	}
	return v.tenant(name), true
}

// tenant is a tenant with the settings the file gives it, or with none.
func (v *view) tenant(name string) tenancy.Tenant {
	if t := v.router.Registry().Tenant(name); t != nil {
		return *t
	}
	return tenancy.Tenant{Name: name}
}

// roleOf is the identity a tenant's group is written to with.
func roleOf(t *tenancy.Tenant) awsclient.Role {
	return awsclient.Role{ARN: t.RoleARN, ExternalID: t.ExternalID}
}

// sendsTo reports whether a group is written to with this role: all but a tenant's own are
// with any.
func (v *view) sendsTo(role awsclient.Role, group string) bool {
	t, ok := v.owner(group)
	return !ok || role == roleOf(&t)
}

// roles are those the tenants have.
func (v *view) roles() map[awsclient.Role]bool {
	roles := map[awsclient.Role]bool{}
	for _, t := range v.router.Registry().Tenants() {
		roles[roleOf(t)] = true
	}
	return roles
}

// emf reports whether a group is one of a tenant that may make metrics.
func (v *view) emf(group string) bool {
	t, ok := v.owner(group)
	return ok && t.EMF
}

// spec is what a group is to be like: its name says whose it is.
func (v *view) spec(group string) loggroup.Spec {
	if t, ok := v.owner(group); ok {
		return v.opts.GroupSpec(group, &t, t.KMSKeyARN)
	}
	if name, ok := v.router.QuarantinedTenant(group); ok {
		t := v.tenant(name)
		return v.opts.GroupSpec(group, &t, t.QuarantineKMSKeyARN)
	}
	return v.opts.GroupSpec(group, nil, "")
}

// GroupSpec is what a group is to be like: the platform's where t is nil, else one of a
// tenant's, encrypted with key where that is not empty.
func (o *Options) GroupSpec(group string, t *tenancy.Tenant, key string) loggroup.Spec {
	spec := loggroup.Spec{
		Group: group, RetentionDays: o.RetentionDays, Tags: o.LogGroupTags,
		KMSKeyID: cmp.Or(key, o.KMSKeyID), Class: o.LogGroupClass, DeletionProtection: o.DeletionProtection,
	}
	if t != nil {
		spec.Tenant = t.Name
		spec.RetentionDays = cmp.Or(t.RetentionDays, o.RetentionDays)
	}
	return spec
}
