package iampolicy

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/eks-tenant-logs/eks-tenant-logs/internal/tenancy"
)

// Trust says who may assume a role: a template over $(tenant), $(namespace), $(cluster),
// $(region), $(account) and $(partition).
type Trust struct {
	// Principals are ARNs of roles and users, of whatever account, and of this account itself
	// (…:root).
	Principals []string
	// Accounts are other accounts' ids, whose own policies then decide; each must send
	// ExternalID: without one, anybody whom such an account serves might come through it.
	Accounts   []string
	ExternalID string
	// SSORoles are names of IAM Identity Center permission sets, or patterns of the ARNs of
	// roles of this account.
	SSORoles []string
	// IRSA are service accounts with a token of OIDCProvider, which is written without https://.
	IRSA         []ServiceAccount
	OIDCProvider string
	// PodIdentity are service accounts that EKS vouches for.
	PodIdentity []ServiceAccount
}

// ServiceAccount is a Kubernetes service account.
type ServiceAccount struct{ Namespace, Name string }

var (
	principalForm = regexp.MustCompile(`^arn:[a-z-]+:(iam::\d{12}:(root|(role|user)/[\w+=,.@/-]+)|sts::\d{12}:assumed-role/[\w+=,.@/-]+)$`)
	ssoForm       = regexp.MustCompile(`^[\w+=,.@-]{1,32}$`)
	ssoARNForm    = regexp.MustCompile(`^arn:[a-z-]+:iam::\d{12}:role/[\w+=,.@/*?-]+$`)
	providerForm  = regexp.MustCompile(`^[a-z0-9.-]+(/[A-Za-z0-9._/-]*[A-Za-z0-9])?$`)
	// Kubernetes: DNS labels and DNS subdomains.
	namespaceForm = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$`)
	accountForm   = regexp.MustCompile(`^[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?$`)
)

// audience is whom tokens for STS are for.
const audience = "sts.amazonaws.com"

// TrustPolicy renders the template for a tenant's reader role; for a role that is no tenant's,
// both are empty, and the template may not name them. All that is wrong is reported together; a
// trust that names nobody is an error.
//
// Nobody named here may set session tags but EKS, and EKS none of our keys: they would take the
// place of the role's own.
func (s Scope) TrustPolicy(t Trust, tenant, namespace string) (*Document, error) {
	r := s.rendering(tenant, namespace)
	d := document()
	add := func(sid string, p Principals, actions ...string) *Statement {
		d.Statements = append(d.Statements, Statement{Sid: sid, Effect: Allow, Principal: &p, Actions: actions})
		return &d.Statements[len(d.Statements)-1]
	}
	root := "arn:" + s.Partition + ":iam::" + s.Account + ":root"
	if principals := r.all("principal", t.Principals, principalForm, "the ARN of a role, a user or this account (…:root)"); len(principals) > 0 {
		for _, p := range principals {
			if parts := strings.Split(p, ":"); parts[0] == "arn" && len(parts) == 6 {
				if parts[1] != s.Partition {
					r.add("principal %q is not of partition %s", p, s.Partition)
				} else if parts[5] == "root" && parts[4] != s.Account {
					r.add("principal %q is another account: name it as an account, with an external id", p)
				}
			}
		}
		add("Principals", Principals{AWS: principals}, "sts:AssumeRole")
	}
	if len(t.Accounts) > 0 {
		var accounts []string
		for _, id := range r.all("account", t.Accounts, regexp.MustCompile(`^\d{12}$`), "the 12 digits of an account's id") {
			accounts = append(accounts, "arn:"+s.Partition+":iam::"+id+":root")
		}
		st := add("Accounts", Principals{AWS: accounts}, "sts:AssumeRole")
		id := r.fill("external id", t.ExternalID)
		if !tenancy.ValidExternalID(id) {
			r.add("external id %q: other accounts must give one: use 2 to 1224 letters, digits and +=,.@:/-_", id)
		}
		*st = st.when("StringEquals", "sts:ExternalId", id)
	}
	if patterns := s.ssoRoles(&r, t.SSORoles); len(patterns) > 0 {
		st := add("SSO", Principals{AWS: []string{root}}, "sts:AssumeRole")
		*st = st.when("ArnLike", "aws:PrincipalArn", patterns...)
	}
	if len(t.IRSA) > 0 {
		provider := r.one("OIDC provider", t.OIDCProvider, providerForm, "the issuer without https://, such as oidc.eks.us-east-1.amazonaws.com/id/EXAMPLE")
		var subjects []string
		for _, a := range r.accounts("IRSA", t.IRSA) {
			subjects = append(subjects, "system:serviceaccount:"+a.Namespace+":"+a.Name)
		}
		st := add("IRSA", Principals{Federated: []string{"arn:" + s.Partition + ":iam::" + s.Account + ":oidc-provider/" + provider}}, "sts:AssumeRoleWithWebIdentity")
		*st = st.when("StringEquals", provider+":aud", audience).when("StringEquals", provider+":sub", subjects...)
	}
	// A namespace and an account that are asked for apart would let each namespace's accounts
	// in by any of the names: so each namespace has a statement of its own.
	byNamespace := map[string][]string{}
	for _, a := range r.accounts("Pod Identity", t.PodIdentity) {
		byNamespace[a.Namespace] = append(byNamespace[a.Namespace], a.Name)
	}
	for i, ns := range sorted(byNamespace) {
		sid := "PodIdentity"
		if i > 0 {
			sid += fmt.Sprint(i + 1)
		}
		st := add(sid, Principals{Service: []string{"pods.eks.amazonaws.com"}}, "sts:AssumeRole", "sts:TagSession")
		*st = st.when("StringEquals", requestTag+"eks-cluster-arn", s.eks("cluster")).
			when("StringEquals", requestTag+"kubernetes-namespace", ns).
			when("StringEquals", requestTag+"kubernetes-service-account", byNamespace[ns]...).
			when("StringEquals", "aws:SourceAccount", s.Account).
			when("Null", requestTag+tenancy.TagTenant, "true").
			when("Null", requestTag+tenancy.TagCluster, "true")
	}
	if len(d.Statements) == 0 && len(r.errs) == 0 {
		r.add("it names nobody")
	}
	if len(r.errs) > 0 {
		return nil, fmt.Errorf("trust: %w", errors.Join(r.errs...))
	}
	return d, nil
}

// PodIdentities are the service accounts of t.PodIdentity, as TrustPolicy renders them for the same
// tenant and namespace. Those it refuses are an error.
func (s Scope) PodIdentities(t Trust, tenant, namespace string) ([]ServiceAccount, error) {
	r := s.rendering(tenant, namespace)
	all := r.accounts("Pod Identity", t.PodIdentity)
	if len(r.errs) > 0 {
		return nil, fmt.Errorf("trust: %w", errors.Join(r.errs...))
	}
	return all, nil
}

// ssoRoles are patterns of the roles that IAM Identity Center makes for permission sets:
// under its own path, with the region in it in some accounts, and a random end.
func (s Scope) ssoRoles(r *rendering, roles []string) (patterns []string) {
	for _, role := range roles {
		if strings.HasPrefix(role, "arn:") {
			p := r.one("SSO role", role, ssoARNForm, "a pattern of the ARN of a role, or a permission set's name")
			if parts := strings.SplitN(p, ":", 6); len(parts) == 6 && parts[4] != s.Account {
				r.add("SSO role %q is not of account %s: its account can be named instead", role, s.Account)
			}
			patterns = append(patterns, p)
			continue
		}
		name := r.one("SSO role", role, ssoForm, "a permission set's name, up to 32 characters")
		base := "arn:" + s.Partition + ":iam::" + s.Account + ":role/aws-reserved/sso.amazonaws.com/"
		const random = "_????????????????"
		patterns = append(patterns, base+"AWSReservedSSO_"+name+random, base+"*/AWSReservedSSO_"+name+random)
	}
	return patterns
}

// rendering fills templates and collects what is wrong with them.
type rendering struct {
	known map[string]string
	errs  []error
}

func (s Scope) rendering(tenant, namespace string) rendering {
	return rendering{known: map[string]string{"tenant": tenant, "namespace": namespace, "cluster": s.Cluster, "region": s.Region, "account": s.Account, "partition": s.Partition}}
}

func (r *rendering) add(format string, args ...any) {
	r.errs = append(r.errs, fmt.Errorf(format, args...))
}

var templateVariable = regexp.MustCompile(`\$\(([^)]*)\)`)

func (r *rendering) fill(what, template string) string {
	return templateVariable.ReplaceAllStringFunc(template, func(v string) string {
		name := v[2 : len(v)-1]
		value, ok := r.known[name]
		switch {
		case !ok:
			r.add("%s %q has the unknown variable %s: use $(tenant) $(namespace) $(cluster) $(region) $(account) $(partition)", what, template, v)
		case value == "":
			r.add("%s %q has the variable %s, which this role has nothing for", what, template, v)
		}
		return value
	})
}

func (r *rendering) one(what, template string, form *regexp.Regexp, use string) string {
	before := len(r.errs)
	v := r.fill(what, template)
	if len(r.errs) == before && !form.MatchString(v) {
		r.add("%s %q: use %s", what, v, use)
	}
	return v
}

func (r *rendering) all(what string, templates []string, form *regexp.Regexp, use string) (list []string) {
	for _, t := range templates {
		if v := r.one(what, t, form, use); !slices.Contains(list, v) {
			list = append(list, v)
		}
	}
	return list
}

func (r *rendering) accounts(what string, templates []ServiceAccount) (list []ServiceAccount) {
	for _, t := range templates {
		a := ServiceAccount{
			r.one(what+" namespace", t.Namespace, namespaceForm, "a namespace's name"),
			r.one(what+" service account", t.Name, accountForm, "a service account's name"),
		}
		if !slices.Contains(list, a) {
			list = append(list, a)
		}
	}
	return list
}
