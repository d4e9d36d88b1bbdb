package iampolicy

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strconv"
	"strings"
)

// maxDepth bounds how deep JSON may be nested: a policy's is no deeper than six.
const maxDepth = 16

// Parse reads a policy by IAM's grammar (IAM User Guide, "Grammar of the IAM JSON policy
// language"). What it does not know, an element or an operator, is an error that names it: a
// statement half understood would be evaluated wrongly. Everything wrong with the statements is
// reported together. Limits of size are the caller's, for they differ by kind.
func Parse(data []byte) (*Document, error) {
	if err := unambiguous(data); err != nil {
		return nil, fmt.Errorf("the policy is no JSON that can be read in one way: %w", err)
	}
	var raw map[string]json.RawMessage
	if err := json.Unmarshal(data, &raw); err != nil {
		return nil, errors.New("the policy is no JSON object")
	}
	d := &Document{}
	var errs []error
	add := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	for key, value := range raw {
		switch key {
		case "Version":
			if json.Unmarshal(value, &d.Version) != nil || d.Version != Version && d.Version != "2008-10-17" {
				add("Version %s: use %q", value, Version)
			}
		case "Id":
			if json.Unmarshal(value, &d.ID) != nil {
				add("Id %s is no string", value)
			}
		case "Statement":
		default:
			add("element %q: a policy has Version, Id and Statement", key)
		}
	}
	var statements []json.RawMessage
	switch text := bytes.TrimSpace(raw["Statement"]); {
	case len(text) == 0:
		add("the policy has no Statement")
	case text[0] == '{':
		statements = []json.RawMessage{text}
	case json.Unmarshal(text, &statements) != nil || len(statements) == 0:
		add("Statement is neither a statement nor a list of some")
	}
	sids := map[string]bool{}
	for i, text := range statements {
		s, problems := parseStatement(text)
		name := strconv.Itoa(i + 1)
		if s.Sid != "" {
			name += " (" + s.Sid + ")"
			if sids[s.Sid] {
				problems = append(problems, errors.New("its Sid is another's as well"))
			}
			sids[s.Sid] = true
		}
		for _, p := range problems {
			add("statement %s: %w", name, p)
		}
		d.Statements = append(d.Statements, s)
	}
	if len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	return d, nil
}

// unambiguous refuses keys that stand twice, what follows the object, and deep nesting.
func unambiguous(data []byte) error {
	d := json.NewDecoder(bytes.NewReader(data))
	d.UseNumber()
	var keys []map[string]bool // of the objects that are open; nil for a list
	key := false               // the next string is a key
	for {
		token, err := d.Token()
		if err != nil {
			return err
		}
		wasKey := key
		switch t := token.(type) {
		case json.Delim:
			switch t {
			case '{', '[':
				if len(keys) == maxDepth {
					return errors.New("it is nested too deeply")
				}
				var open map[string]bool
				if t == '{' {
					open = map[string]bool{}
				}
				keys = append(keys, open)
			default:
				keys = keys[:len(keys)-1]
			}
			wasKey = false
		case string:
			if wasKey {
				if keys[len(keys)-1][t] {
					return fmt.Errorf("key %q stands twice", t)
				}
				keys[len(keys)-1][t] = true
			}
		}
		if len(keys) == 0 {
			break
		}
		// In an object a key follows whatever is not one.
		key = keys[len(keys)-1] != nil && !wasKey
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return errors.New("something follows it")
	}
	return nil
}

var (
	sidForm    = regexp.MustCompile(`^[ -~]*$`)
	actionForm = regexp.MustCompile(`^(\*|[A-Za-z0-9-]+:[A-Za-z0-9*?]+)$`)
)

func parseStatement(data []byte) (s Statement, errs []error) {
	add := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	var raw map[string]json.RawMessage
	if json.Unmarshal(data, &raw) != nil {
		return s, []error{errors.New("it is no object")}
	}
	values := func(name string) []string {
		text, ok := raw[name]
		if !ok {
			return nil
		}
		v, err := texts(text, false)
		if err != nil {
			add("%s: %w", name, err)
		}
		return v
	}
	principals := func(name string) *Principals {
		text, ok := raw[name]
		if !ok {
			return nil
		}
		p, err := parsePrincipals(text)
		if err != nil {
			add("%s: %w", name, err)
		}
		return p
	}
	for key, text := range raw {
		switch key {
		case "Sid":
			if json.Unmarshal(text, &s.Sid) != nil || !sidForm.MatchString(s.Sid) {
				add("Sid %s is no plain string", text)
			}
		case "Effect":
			if json.Unmarshal(text, &s.Effect) != nil || s.Effect != Allow && s.Effect != Deny {
				add("Effect %s: use Allow or Deny", text)
			}
		case "Principal", "NotPrincipal", "Action", "NotAction", "Resource", "NotResource", "Condition":
		default:
			add("element %q is none of a statement's", key)
		}
	}
	if _, ok := raw["Effect"]; !ok {
		add("it has no Effect")
	}
	s.Principal, s.NotPrincipal = principals("Principal"), principals("NotPrincipal")
	s.Actions, s.NotActions = values("Action"), values("NotAction")
	s.Resources, s.NotResources = values("Resource"), values("NotResource")
	has := func(name string) bool { _, ok := raw[name]; return ok }
	switch {
	case has("Action") && has("NotAction"):
		add("it has both Action and NotAction")
	case !has("Action") && !has("NotAction"):
		add("it has no Action")
	}
	if has("Resource") && has("NotResource") {
		add("it has both Resource and NotResource")
	}
	if has("Principal") && has("NotPrincipal") {
		add("it has both Principal and NotPrincipal")
	}
	if s.NotPrincipal != nil && s.Effect == Allow {
		add("NotPrincipal with Allow allows everybody else")
	}
	for _, a := range append(append([]string(nil), s.Actions...), s.NotActions...) {
		if !actionForm.MatchString(a) {
			add("action %q: use service:Operation, with * and ? in the operation, or *", a)
		}
	}
	for _, r := range append(append([]string(nil), s.Resources...), s.NotResources...) {
		if r != "*" && (!strings.HasPrefix(r, "arn:") || strings.Count(r, ":") < 5) {
			add("resource %q is neither an ARN nor *", r)
		}
		if _, err := segments(r); err != nil {
			add("resource %q: %w", r, err)
		}
	}
	if text, ok := raw["Condition"]; ok {
		conditions, err := parseConditions(text)
		if err != nil {
			errs = append(errs, err)
		}
		s.Conditions = conditions
	}
	return s, errs
}

// texts reads a string or a list of strings; with scalars also numbers and booleans, as
// conditions have them.
func texts(data []byte, scalars bool) ([]string, error) {
	data = bytes.TrimSpace(data)
	var elements []json.RawMessage
	if len(data) > 0 && data[0] == '[' {
		if err := json.Unmarshal(data, &elements); err != nil {
			return nil, err
		}
		if len(elements) == 0 {
			return nil, errors.New("the list is empty")
		}
	} else {
		elements = []json.RawMessage{data}
	}
	var out []string
	for _, e := range elements {
		var s string
		switch {
		case json.Unmarshal(e, &s) == nil && len(e) > 0 && e[0] == '"':
		case scalars && json.Valid(e) && e[0] != '{' && e[0] != '[' && e[0] != 'n':
			s = string(e)
		default:
			return nil, fmt.Errorf("%s is no string", e)
		}
		out = append(out, s)
	}
	return out, nil
}

func parsePrincipals(data []byte) (*Principals, error) {
	var s string
	if json.Unmarshal(data, &s) == nil {
		if s != "*" {
			return nil, fmt.Errorf("%q: use \"*\", or a map such as {\"AWS\": …}", s)
		}
		return &Principals{Any: true}, nil
	}
	var raw map[string]json.RawMessage
	if json.Unmarshal(data, &raw) != nil || len(raw) == 0 {
		return nil, errors.New("it is neither \"*\" nor a map")
	}
	p := &Principals{}
	for kind, text := range raw {
		v, err := texts(text, false)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", kind, err)
		}
		switch kind {
		case "AWS":
			p.AWS = v
		case "Service":
			p.Service = v
		case "Federated":
			p.Federated = v
		case "CanonicalUser":
			p.CanonicalUser = v
		default:
			return nil, fmt.Errorf("%q: use AWS, Service, Federated or CanonicalUser", kind)
		}
	}
	return p, nil
}

func parseConditions(data []byte) ([]Condition, error) {
	var raw map[string]json.RawMessage
	if json.Unmarshal(data, &raw) != nil {
		return nil, errors.New("the Condition is no map")
	}
	var list []Condition
	var errs []error
	for _, operator := range sorted(raw) {
		var keys map[string]json.RawMessage
		if json.Unmarshal(raw[operator], &keys) != nil {
			errs = append(errs, fmt.Errorf("condition %s is no map of keys", operator))
			continue
		}
		for _, key := range sorted(keys) {
			values, err := texts(keys[key], true)
			c := Condition{Operator: operator, Key: key, Values: values}
			if err == nil {
				err = c.check()
			}
			if err != nil {
				errs = append(errs, fmt.Errorf("condition %s of %s: %w", operator, key, err))
			}
			list = append(list, c)
		}
	}
	return list, errors.Join(errs...)
}
