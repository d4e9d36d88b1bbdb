package output

import (
	"errors"
	"fmt"
	"os"
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
	r := i.prepare(to)
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

// claimed is the route of one record in `identity record`.
func (i *Instance) claimed(tag string, c chunk.Claim) *route {
	// The key is not a tag: none holds a NUL.
	key := "record\x00" + string(c.Namespace) + "\x00" + string(c.Pod) + "\x00" + string(c.Container) + "\x00" + string(c.PodUID) + "\x00" + string(c.ContainerID)
	if !c.Present {
		key = "record\x00"
	}
	if r, ok := i.routes.Get(key); ok {
		return r
	}
	r := i.prepare(i.router.RouteSource(tenancy.Source{
		Namespace: string(c.Namespace), Pod: string(c.Pod), Container: string(c.Container),
		PodUID: string(c.PodUID), ContainerID: string(c.ContainerID),
	}))
	i.routes.Add(key, r)
	return r
}

// prepare turns a route into what a flush needs, and notes what its group is to be like.
func (i *Instance) prepare(to tenancy.Route) *route {
	spec := loggroup.Spec{
		Group: to.Group, RetentionDays: i.opts.RetentionDays, Tags: i.opts.LogGroupTags,
		KMSKeyID: i.opts.KMSKeyID, Class: i.opts.LogGroupClass, DeletionProtection: i.opts.DeletionProtection,
	}
	r := &route{target: delivery.Target{Group: to.Group, Stream: to.Stream}}
	if t := to.Tenant; t != nil {
		spec.Tenant, r.emf = t.Name, t.EMF
		if t.RetentionDays != 0 {
			spec.RetentionDays = t.RetentionDays
		}
		if t.KMSKeyARN != "" {
			spec.KMSKeyID = t.KMSKeyARN
		}
	}
	r.retention = min(oldest, time.Duration(spec.RetentionDays)*24*time.Hour-lateMargin)
	if to.Kind != tenancy.KindUnrouted {
		host := i.env.Node
		if host == "" {
			host, _ = os.Hostname()
		}
		s := to.Source
		r.identity = chunk.NewIdentity(s.Namespace, s.Pod, s.Container, s.PodUID, s.ContainerID, host)
	}
	i.specsMu.Lock()
	defer i.specsMu.Unlock()
	if _, known := i.specs[spec.Group]; !known {
		i.specs[spec.Group] = spec
	}
	return r
}

func (i *Instance) spec(group string) loggroup.Spec {
	i.specsMu.RLock()
	defer i.specsMu.RUnlock()
	return i.specs[group]
}
