package output

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/eks-tenant-logs/eks-tenant-logs/internal/chunk"
	"github.com/eks-tenant-logs/eks-tenant-logs/internal/delivery"
	"github.com/eks-tenant-logs/eks-tenant-logs/internal/loggroup"
	"github.com/eks-tenant-logs/eks-tenant-logs/internal/tenancy"
)

func newRegistry(opts Options) (*tenancy.Registry, error) {
	o := tenancy.RegistryOptions{Mode: opts.TenantSource, NamespacePrefix: opts.NamespacePrefix}
	if opts.TenantsFile == "" {
		r, err := tenancy.NewRegistry(o)
		if err != nil {
			return nil, fmt.Errorf("tenant_source: %w", err)
		}
		return r, nil
	}
	r, err := tenancy.LoadRegistry(opts.TenantsFile, o)
	if err != nil {
		return nil, prefixed("tenants_file", err)
	}
	var errs []error
	for _, t := range r.Tenants() {
		errs = append(errs, unsupported(t))
	}
	return r, errors.Join(errs...)
}

// prefixed puts a word in front of each of an error's lines.
func prefixed(word string, err error) error {
	return errors.New(word + ": " + strings.ReplaceAll(err.Error(), "\n", "\n"+word+": "))
}

// route is where the chunks of a tag go; a tag is read once.
func (i *Instance) route(tag string) *route {
	if r, ok := i.routes.Get(tag); ok {
		return r
	}
	to := i.router.Route(tag)
	r := i.prepare(to, i.host)
	if to.Kind == tenancy.KindUnrouted {
		r.note = unroutedNote(to.Reason, tag)
	}
	i.routes.Add(tag, r)
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
func (i *Instance) claimed(c chunk.Claim) *route {
	if !c.Present || len(c.Namespace) > maxLabel || len(c.Pod) > maxSubdomain || len(c.Container) > maxLabel ||
		len(c.PodUID) > maxUID || len(c.ContainerID) > maxContainerID || len(c.Host) > maxSubdomain {
		return i.nobody
	}
	key := claim{string(c.Namespace), string(c.Pod), string(c.Container), string(c.PodUID), string(c.ContainerID), string(c.Host)}
	if r, ok := i.claims.Get(key); ok {
		return r
	}
	to := i.router.RouteSource(tenancy.Source{
		Namespace: key.namespace, Pod: key.pod, Container: key.container, PodUID: key.podUID, ContainerID: key.containerID,
	})
	if to.Kind == tenancy.KindUnrouted {
		return i.nobody
	}
	r := i.prepare(to, key.host)
	i.claims.Add(key, r)
	return r
}

// prepare turns a route into what a flush needs. host is the node the records are from.
func (i *Instance) prepare(to tenancy.Route, host string) *route {
	r := &route{target: delivery.Target{Group: to.Group, Stream: to.Stream}}
	r.emf = to.Tenant != nil && to.Tenant.EMF
	r.retention = min(oldest, time.Duration(i.spec(to.Group).RetentionDays)*24*time.Hour-lateMargin)
	if to.Kind != tenancy.KindUnrouted {
		s := to.Source
		r.identity = chunk.NewIdentity(s.Namespace, s.Pod, s.Container, s.PodUID, s.ContainerID, host)
	}
	return r
}

// spec is what a group is to be like: its name says whose it is.
func (i *Instance) spec(group string) loggroup.Spec {
	spec := loggroup.Spec{
		Group: group, RetentionDays: i.opts.RetentionDays, Tags: i.opts.LogGroupTags,
		KMSKeyID: i.opts.KMSKeyID, Class: i.opts.LogGroupClass, DeletionProtection: i.opts.DeletionProtection,
	}
	name, ok := i.router.TenantOf(group)
	if !ok {
		return spec
	}
	spec.Tenant = name
	if t := i.router.Registry().Tenant(name); t != nil {
		if t.RetentionDays != 0 {
			spec.RetentionDays = t.RetentionDays
		}
		if t.KMSKeyARN != "" {
			spec.KMSKeyID = t.KMSKeyARN
		}
	}
	return spec
}
