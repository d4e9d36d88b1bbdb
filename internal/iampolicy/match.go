package iampolicy

import (
	"errors"
	"maps"
	"slices"
	"strings"
)

// A pattern is matched element by element: what comes from a variable is never a wildcard.
type element struct {
	kind elementKind
	char byte
	// key and otherwise are a variable's.
	key, otherwise string
	hasOtherwise   bool
}

type elementKind uint8

const (
	literal elementKind = iota
	anyOne
	anyRun
	variable
)

var errVariable = errors.New("a variable is written ${key}, ${key, 'default'}, ${*}, ${?} or ${$}")

// segments reads a pattern with * and ? and variables.
func segments(pattern string) ([]element, error) {
	var list []element
	for i := 0; i < len(pattern); i++ {
		switch c := pattern[i]; {
		case c == '*':
			list = append(list, element{kind: anyRun})
		case c == '?':
			list = append(list, element{kind: anyOne})
		case c == '$' && strings.HasPrefix(pattern[i:], "${"):
			body, _, closed := strings.Cut(pattern[i+2:], "}")
			if !closed || body == "" {
				return nil, errVariable
			}
			i += len(body) + 2
			if body == "*" || body == "?" || body == "$" {
				list = append(list, element{char: body[0]})
				continue
			}
			key, otherwise, has := strings.Cut(body, ",")
			if otherwise = strings.TrimSpace(otherwise); has {
				if len(otherwise) < 2 || otherwise[0] != '\'' || otherwise[len(otherwise)-1] != '\'' {
					return nil, errVariable
				}
				otherwise = otherwise[1 : len(otherwise)-1]
			}
			if key = strings.TrimSpace(key); key == "" {
				return nil, errVariable
			}
			list = append(list, element{kind: variable, key: strings.ToLower(key), otherwise: otherwise, hasOtherwise: has})
		default:
			list = append(list, element{char: c})
		}
	}
	return list, nil
}

// compile reads a pattern for a request: its variables have the request's values. It reports
// false where one has none, or several: the pattern then matches nothing.
func (r *request) compile(pattern string, wildcards bool) ([]element, bool) {
	if !r.variables || !strings.Contains(pattern, "${") {
		return plain(pattern, wildcards), true
	}
	parts, err := segments(pattern)
	if err != nil {
		return nil, false
	}
	var list []element
	for _, e := range parts {
		if !wildcards && e.kind == anyRun {
			e = element{char: '*'}
		}
		if !wildcards && e.kind == anyOne {
			e = element{char: '?'}
		}
		if e.kind != variable {
			list = append(list, e)
			continue
		}
		value := e.otherwise
		switch values := r.Context[e.key]; {
		case len(values) == 1:
			value = values[0]
		case len(values) > 1 || !e.hasOtherwise:
			return nil, false
		}
		for i := range len(value) {
			list = append(list, element{char: value[i]})
		}
	}
	return list, true
}

func plain(pattern string, wildcards bool) []element {
	list := make([]element, 0, len(pattern))
	for i := range len(pattern) {
		e := element{char: pattern[i]}
		if wildcards && pattern[i] == '*' {
			e = element{kind: anyRun}
		}
		if wildcards && pattern[i] == '?' {
			e = element{kind: anyOne}
		}
		list = append(list, e)
	}
	return list
}

// matches compares in no more than len(pattern) × len(s) steps: of several runs only the last
// one is ever tried longer.
func matches(pattern []element, s string) bool {
	p, i := 0, 0
	run, from := -1, 0
	for i < len(s) {
		switch {
		case p < len(pattern) && pattern[p].kind == anyRun:
			run, from = p, i
			p++
		case p < len(pattern) && (pattern[p].kind == anyOne || pattern[p].kind == literal && pattern[p].char == s[i]):
			p++
			i++
		case run >= 0:
			from++
			p, i = run+1, from
		default:
			return false
		}
	}
	for p < len(pattern) && pattern[p].kind == anyRun {
		p++
	}
	return p == len(pattern)
}

// matchesARN compares ARNs part by part: a wildcard in one of the first five does not reach
// into the next (IAM User Guide, "Resource", and the ARN condition operators).
func matchesARN(pattern []element, arn string) bool {
	if len(pattern) == 1 && pattern[0].kind == anyRun {
		return true
	}
	const parts = 6
	want := make([][]element, 0, parts)
	rest := pattern
	for len(want) < parts-1 {
		i := slices.IndexFunc(rest, func(e element) bool { return e.kind == literal && e.char == ':' })
		if i < 0 {
			return false
		}
		want = append(want, rest[:i])
		rest = rest[i+1:]
	}
	want = append(want, rest)
	have := strings.SplitN(arn, ":", parts)
	if len(have) != parts {
		return false
	}
	for i := range want {
		if !matches(want[i], have[i]) {
			return false
		}
	}
	return true
}

// matchesAction compares actions, whose case does not count.
func matchesAction(patterns []string, action string) bool {
	action = strings.ToLower(action)
	return slices.ContainsFunc(patterns, func(p string) bool { return matches(plain(strings.ToLower(p), true), action) })
}

func (r *request) matchesResource(patterns []string) bool {
	return slices.ContainsFunc(patterns, func(p string) bool {
		pattern, ok := r.compile(p, true)
		return ok && matchesARN(pattern, r.Resource)
	})
}

func sorted[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }
