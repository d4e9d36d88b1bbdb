package controller

import rbacv1 "k8s.io/api/rbac/v1"

// Rights are what the controller may do: in the cluster, and in the release's namespace. It is
// all it uses. It may not change namespaces: who may patch one could take its PodSecurity level
// off; so what came of a tenant is told in events and in a ConfigMap of the release.
func Rights(release string) (cluster, namespaced []rbacv1.PolicyRule) {
	rule := func(group, resource string, verbs ...string) rbacv1.PolicyRule {
		return rbacv1.PolicyRule{APIGroups: []string{group}, Resources: []string{resource}, Verbs: verbs}
	}
	named := func(r rbacv1.PolicyRule, names ...string) rbacv1.PolicyRule {
		r.ResourceNames = names
		return r
	}
	c := Config{Release: release}
	return []rbacv1.PolicyRule{
			rule("", "namespaces", "get", "list", "watch"),
			rule("", "events", "create"),
		}, []rbacv1.PolicyRule{
			rule("", "configmaps", "get", "list", "watch"),
			// The names of what is created are not known to RBAC.
			rule("", "configmaps", "create"),
			named(rule("", "configmaps", "update"), c.statusName(), c.registryName()),
			rule("coordination.k8s.io", "leases", "create"),
			named(rule("coordination.k8s.io", "leases", "get", "update"), release+"-leader"),
			// Who leads is told as an event.
			rule("", "events", "create", "patch"), rule("events.k8s.io", "events", "create", "patch"),
		}
}
