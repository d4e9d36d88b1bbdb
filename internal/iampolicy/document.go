// Package iampolicy holds the policy documents that the installation needs, and says of
// any documents what they allow.
//
// It must not know how AWS is reached: documents come in as bytes and go out as bytes.
package iampolicy

import (
	"bytes"
	"encoding/json"
	"slices"
	"strings"
)

// Version is the policy language that knows variables. Documents without one are of 2008.
const Version = "2012-10-17"

// Effect is what a statement does where it matches.
type Effect string

// Effects.
const (
	Allow Effect = "Allow"
	Deny  Effect = "Deny"
)

// Document is a policy: an identity's, a boundary, a session's, or a resource's.
type Document struct {
	Version, ID string
	Statements  []Statement
}

// Statement is one rule. Of Actions and NotActions one is set; of Resources and NotResources
// at most one, and none in a role's trust policy; of Principal and NotPrincipal at most one,
// and none in an identity's policy.
type Statement struct {
	Sid                     string
	Effect                  Effect
	Principal, NotPrincipal *Principals
	Actions, NotActions     []string
	Resources, NotResources []string
	Conditions              []Condition
}

// Principals are who a resource's policy is about.
type Principals struct {
	// Any is "*": everybody, also without credentials.
	Any bool
	// AWS are account ids, ARNs of accounts (…:root), roles, users and role sessions, or "*".
	AWS                               []string
	Service, Federated, CanonicalUser []string
}

// Condition is one operator and key with its values, of which one must match; of negated
// operators, none may.
type Condition struct {
	// Operator is as written: with ForAllValues:, ForAnyValue: and IfExists.
	Operator, Key string
	Values        []string
}

// MarshalJSON writes what Parse reads, compact and always the same: IAM's limits are in
// characters. A list of one is written as its one element.
func (d *Document) MarshalJSON() ([]byte, error) {
	wire := struct {
		Version   string      `json:",omitempty"`
		ID        string      `json:"Id,omitempty"`
		Statement []Statement `json:"Statement"`
	}{d.Version, d.ID, d.Statements}
	return compact(wire)
}

// Indent is the document for people.
func (d *Document) Indent() ([]byte, error) {
	text, err := d.MarshalJSON()
	if err != nil {
		return nil, err
	}
	var out bytes.Buffer
	if err := json.Indent(&out, text, "", "  "); err != nil {
		return nil, err
	}
	out.WriteByte('\n')
	return out.Bytes(), nil
}

// MarshalJSON writes one statement.
func (s Statement) MarshalJSON() ([]byte, error) {
	var conditions map[string]map[string]list
	for _, c := range s.Conditions {
		if conditions == nil {
			conditions = map[string]map[string]list{}
		}
		if conditions[c.Operator] == nil {
			conditions[c.Operator] = map[string]list{}
		}
		conditions[c.Operator][c.Key] = append(conditions[c.Operator][c.Key], c.Values...)
	}
	return compact(struct {
		Sid          string                     `json:",omitempty"`
		Effect       Effect                     `json:""`
		Principal    *Principals                `json:",omitempty"`
		NotPrincipal *Principals                `json:",omitempty"`
		Action       list                       `json:",omitempty"`
		NotAction    list                       `json:",omitempty"`
		Resource     list                       `json:",omitempty"`
		NotResource  list                       `json:",omitempty"`
		Condition    map[string]map[string]list `json:",omitempty"`
	}{s.Sid, s.Effect, s.Principal, s.NotPrincipal, s.Actions, s.NotActions, s.Resources, s.NotResources, conditions})
}

// MarshalJSON writes "*" or the map of kinds.
func (p *Principals) MarshalJSON() ([]byte, error) {
	if p.Any {
		return []byte(`"*"`), nil
	}
	return compact(struct {
		AWS           list `json:",omitempty"`
		Service       list `json:",omitempty"`
		Federated     list `json:",omitempty"`
		CanonicalUser list `json:",omitempty"`
	}{p.AWS, p.Service, p.Federated, p.CanonicalUser})
}

// list is written as its element where it has one.
type list []string

func (l list) MarshalJSON() ([]byte, error) {
	if len(l) == 1 {
		return compact(l[0])
	}
	return compact([]string(l))
}

// compact writes JSON without the escapes that HTML needs: they count against IAM's limits.
func compact(v any) ([]byte, error) {
	var out bytes.Buffer
	e := json.NewEncoder(&out)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		return nil, err
	}
	return bytes.TrimSuffix(out.Bytes(), []byte("\n")), nil
}

// Equal reports whether two documents mean the same: the order of statements and lists, Sids,
// and the case of actions and condition keys do not count.
func Equal(a, b *Document) bool {
	if a == nil || b == nil {
		return a == b
	}
	return (a.Version == Version) == (b.Version == Version) && slices.Equal(meanings(a), meanings(b))
}

// meanings are the statements in one form, sorted.
func meanings(d *Document) (all []string) {
	for _, s := range d.Statements {
		s.Sid = ""
		s.Actions, s.NotActions = normal(s.Actions, strings.ToLower), normal(s.NotActions, strings.ToLower)
		s.Resources, s.NotResources = normal(s.Resources, nil), normal(s.NotResources, nil)
		s.Principal, s.NotPrincipal = s.Principal.normal(), s.NotPrincipal.normal()
		var conditions []Condition
		for _, c := range s.Conditions {
			c.Key = strings.ToLower(c.Key)
			at := slices.IndexFunc(conditions, func(x Condition) bool { return x.Operator == c.Operator && x.Key == c.Key })
			if at < 0 {
				conditions = append(conditions, Condition{Operator: c.Operator, Key: c.Key})
				at = len(conditions) - 1
			}
			conditions[at].Values = normal(append(slices.Clone(conditions[at].Values), c.Values...), nil)
		}
		s.Conditions = conditions
		text, err := s.MarshalJSON()
		if err != nil {
			text = []byte(err.Error())
		}
		all = append(all, string(text))
	}
	slices.Sort(all)
	return slices.Compact(all)
}

func normal(values []string, each func(string) string) []string {
	values = slices.Clone(values)
	for i := range values {
		if each != nil {
			values[i] = each(values[i])
		}
	}
	slices.Sort(values)
	return slices.Compact(values)
}

// normal writes accounts as IAM answers them: as the ARN's end where there is no partition
// to be had, for `123456789012` and `arn:…:iam::123456789012:root` are the same.
func (p *Principals) normal() *Principals {
	if p == nil {
		return nil
	}
	if p.Any {
		return &Principals{Any: true}
	}
	account := func(s string) string {
		if id, ok := accountPrincipal(s); ok {
			return id
		}
		return s
	}
	return &Principals{
		AWS: normal(p.AWS, account), Service: normal(p.Service, nil), Federated: normal(p.Federated, nil), CanonicalUser: normal(p.CanonicalUser, nil),
	}
}
