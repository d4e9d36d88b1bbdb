// Package admission holds the rules by which the API server lets somebody name a tenant:
// a ValidatingAdmissionPolicy of which policy.yaml is the one source. It knows nothing of
// the controller that reads the label.
package admission

import (
	_ "embed"
	"errors"
	"fmt"
	"strings"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	"sigs.k8s.io/yaml"

	"github.com/eks-tenant-logs/eks-tenant-logs/internal/tenancy"
)

//go:embed policy.yaml
var policy string

// Options are what an installation sets. Lists are taken as they are.
type Options struct {
	// Name of the policy and its binding; both are cluster-wide.
	Name string
	// EditorGroups and EditorUsers may set the label, and make namespaces whose names
	// claim a tenant. A service account is the user system:serviceaccount:<namespace>:<name>.
	EditorGroups, EditorUsers []string
	// Reserved namespaces carry no tenant, beside those that begin with kube-.
	Reserved []string
	// Prefix is the namespaces' with tenant_source prefix, empty with registry.
	Prefix string
	// Listed are the namespaces that the tenants file gives to a tenant.
	Listed []string
}

// DefaultGroup may name tenants where nobody else is configured.
const DefaultGroup = "eks-tenant-logs-tenant-admins"

// DefaultReserved are the namespaces that are never a tenant's; the release's own is to be
// added.
func DefaultReserved() []string {
	return []string{"default", "kube-node-lease", "kube-public", "kube-system"}
}

// Render makes the two objects. It refuses options with which nobody could name a tenant,
// or everybody.
func Render(o Options) (*admissionv1.ValidatingAdmissionPolicy, *admissionv1.ValidatingAdmissionPolicyBinding, error) {
	if err := o.check(); err != nil {
		return nil, nil, err
	}
	first, second, found := strings.Cut(policy, "\n---\n")
	if !found {
		return nil, nil, errors.New("policy.yaml does not have its two documents")
	}
	p := &admissionv1.ValidatingAdmissionPolicy{}
	b := &admissionv1.ValidatingAdmissionPolicyBinding{}
	if err := errors.Join(yaml.UnmarshalStrict([]byte(first), p), yaml.UnmarshalStrict([]byte(second), b)); err != nil {
		return nil, nil, fmt.Errorf("policy.yaml: %w", err)
	}
	p.Name, b.Name, b.Spec.PolicyName = o.Name, o.Name, o.Name
	for name, expression := range map[string]string{
		"editorGroups": celList(o.EditorGroups), "editorUsers": celList(o.EditorUsers), "reserved": celList(o.Reserved),
		"prefix": celString(o.Prefix), "listed": celList(o.Listed),
	} {
		if !set(p, name, expression) {
			return nil, nil, fmt.Errorf("policy.yaml has no variable %s", name)
		}
	}
	return p, b, nil
}

func set(p *admissionv1.ValidatingAdmissionPolicy, name, expression string) bool {
	for i := range p.Spec.Variables {
		if v := &p.Spec.Variables[i]; v.Name == name {
			v.Expression = expression
			return true
		}
	}
	return false
}

func (o Options) check() error {
	var errs []error
	if o.Name == "" {
		errs = append(errs, errors.New("the policy has no name"))
	}
	if len(o.EditorGroups)+len(o.EditorUsers) == 0 {
		errs = append(errs, errors.New("nobody is named who may name tenants: give a group or a user"))
	}
	for _, g := range o.EditorGroups {
		// Every user is in one of these.
		if g == "" || g == "system:authenticated" || g == "system:unauthenticated" || g == "system:serviceaccounts" {
			errs = append(errs, fmt.Errorf("group %q may not name tenants: everybody is in it", g))
		}
	}
	for _, ns := range o.Listed {
		if !tenancy.Label(ns) {
			errs = append(errs, fmt.Errorf("%q is not a namespace's name", ns))
		}
	}
	for _, u := range o.EditorUsers {
		if u == "" || u == "system:anonymous" {
			errs = append(errs, fmt.Errorf("user %q may not name tenants", u))
		}
	}
	return errors.Join(errs...)
}

func celList(all []string) string {
	quoted := make([]string, len(all))
	for i, s := range all {
		quoted[i] = celString(s)
	}
	return "[" + strings.Join(quoted, ", ") + "]"
}

// celString is a CEL string literal: whatever is in s, it does not end the literal.
func celString(s string) string {
	var b strings.Builder
	b.WriteByte('\'')
	for _, r := range s {
		switch {
		case r == '\'' || r == '\\':
			b.WriteByte('\\')
			b.WriteRune(r)
		case r < ' ' || r == 0x7f:
			fmt.Fprintf(&b, `\u%04x`, r)
		default:
			b.WriteRune(r)
		}
	}
	b.WriteByte('\'')
	return b.String()
}
