package tenancy

import (
	"errors"
	"fmt"
	"strings"
)

// ReplayStreamPrefix begins the streams of a quarantine group in which is written what
// of it was copied back. It holds a character that no template, node or Kubernetes name
// can have, so that no stream of a container is ever taken for one of them: with
// `_replay` a template `_$(container)` would let a tenant write there.
const ReplayStreamPrefix = string(cutMark) + "replay/"

// TellsNamespace says why the namespace of a source can't be read from the names this
// template makes; nil where it can. Only what is in front of $(namespace) matters: a
// node's name may hold any character, and so a namespace that is none.
func (t *StreamTemplate) TellsNamespace() error {
	for _, p := range t.parts {
		switch p.variable {
		case "namespace":
			return nil
		case "node":
			return errors.New("$(node) stands in front of $(namespace), and a node's name may hold any character")
		}
	}
	return errors.New("it has no $(namespace)")
}

// Namespace reads the namespace from a stream's name that this template made for a
// source without a tenant. It is exact: names that the template could have made in two
// ways, or that were cut within what counts, tell none.
func (t *StreamTemplate) Namespace(stream string) (string, bool) {
	if t.TellsNamespace() != nil || len(stream) > maxStreamName {
		return "", false
	}
	rest := stream
	for i, p := range t.parts {
		next := ""
		if i+1 < len(t.parts) {
			next = t.parts[i+1].literal
		}
		switch p.variable {
		case "":
			after, ok := strings.CutPrefix(rest, p.literal)
			if !ok {
				return "", false
			}
			rest = after
		case "tenant": // empty for those that have none
		case "pod":
			name, after, ok := leading(rest, next, func(c byte) bool { return alnum(c) || c == '-' || c == '.' })
			if !ok || !subdomain(name) {
				return "", false
			}
			rest = after
		default:
			name, after, ok := leading(rest, next, func(c byte) bool { return alnum(c) || c == '-' })
			empty := name == "" && p.variable == "container" // a cut file name has nothing left of it
			if !ok || !Label(name) && !empty {
				return "", false
			}
			if p.variable == "namespace" {
				if i+1 == len(t.parts) && after != "" {
					return "", false
				}
				return name, true
			}
			rest = after
		}
	}
	return "", false
}

// leading cuts the name off that s begins with and the literal follows: all the
// characters a name can have, but for those that are the literal's own beginning.
func leading(s, literal string, inName func(byte) bool) (name, rest string, ok bool) {
	end := 0
	for end < len(s) && inName(s[end]) {
		end++
	}
	own := 0
	for own < len(literal) && inName(literal[own]) {
		own++
	}
	if end -= own; end < 0 || !strings.HasPrefix(s[end:], literal) {
		return "", "", false
	}
	return s[:end], s[end:], true
}

// Home is where the events of one stream of a quarantine group belong.
type Home struct {
	// Kind is KindTenant or KindPlatform; any other means that there is no home yet.
	Kind Kind
	// Tenant is set for KindTenant alone.
	Tenant *Tenant
	Group  string
	// Why says why there is none.
	Why string
}

// Quarantined reports whether a group is a quarantine group: a tenant's, or the one of
// namespaces that the registry does not know, whose tenant is empty.
func (n Names) Quarantined(group string) (tenant string, ok bool) {
	name, ok := strings.CutPrefix(group, n.QuarantinePrefix)
	switch {
	case !ok:
		return "", false
	case name == pendingTenant:
		return "", true
	}
	return name, Label(name)
}

// Home says where the events of a stream of a quarantine group go back to. It looks at
// the two names alone: what an event says is its writer's, and no identity.
func (n Names) Home(r *Registry, t *StreamTemplate, group, stream string) Home {
	tenant, ok := n.Quarantined(group)
	if !ok {
		return Home{Why: "it is no quarantine group"}
	}
	namespace, told := t.Namespace(stream)
	if tenant == "" {
		if err := t.TellsNamespace(); err != nil {
			return Home{Why: "log_stream_template does not let the namespace be read from a stream's name: " + err.Error()}
		}
		if !told {
			return Home{Why: fmt.Sprintf("the stream's name %q does not tell its namespace: is this the plugin's log_stream_template?", stream)}
		}
		switch kind, t := r.Resolve(namespace); kind {
		case KindTenant:
			return Home{Kind: KindTenant, Tenant: t, Group: n.Group(t.Name)}
		case KindPlatform:
			return Home{Kind: KindPlatform, Group: n.PlatformGroup}
		}
		return Home{Why: fmt.Sprintf("namespace %s is not in the registry", namespace)}
	}
	home := r.Tenant(tenant)
	switch {
	case home == nil && r.mode == ModeRegistry:
		return Home{Why: fmt.Sprintf("tenant %s is not in the registry", tenant)}
	case home == nil:
		home = &Tenant{Name: tenant}
	}
	// A namespace does not change its tenant. Where the file says that it did, somebody is
	// wrong, and an event in the other's group can't be taken back.
	if _, now := r.Resolve(namespace); told && now != nil && now.Name != tenant {
		return Home{Why: fmt.Sprintf("namespace %s is now tenant %s's", namespace, now.Name)}
	}
	return Home{Kind: KindTenant, Tenant: home, Group: n.Group(tenant)}
}

// PendingName is what the quarantine group of namespaces without a tenant is called
// where a tenant's name is expected.
const PendingName = pendingTenant
