package fakeaws

import (
	"encoding/json"
	"regexp"
	"strings"
)

// The part of CloudWatch's filter pattern syntax that is understood here: terms of letters, digits and underscores,
// phrases in double quotes, all of which a message must contain, and one JSON equality.
var (
	termPattern = regexp.MustCompile(`^\s*(?:([A-Za-z0-9_]+)|"((?:[^"\\]|\\.)*)")(?:\s+|$)`)
	jsonPattern = regexp.MustCompile(`^\s*\{\s*\$((?:\.[A-Za-z0-9_\-]+)+)\s*=\s*(?:"((?:[^"\\*]|\\["\\])*)"|(-?[0-9]+(?:\.[0-9]+)?))\s*\}\s*$`)
	unescape    = strings.NewReplacer(`\"`, `"`, `\\`, `\`)
)

// parseFilter returns a function that tells whether a message matches.
func parseFilter(pattern string) (func(message string) bool, *APIError) {
	if strings.TrimSpace(pattern) == "" {
		return func(string) bool { return true }, nil
	}
	if m := jsonPattern.FindStringSubmatch(pattern); m != nil {
		path := strings.Split(m[1][1:], ".")
		text, number := unescape.Replace(m[2]), m[3]
		return func(message string) bool { return jsonEquals(message, path, text, number) }, nil
	}
	var terms []string
	for rest := pattern; strings.TrimSpace(rest) != ""; {
		m := termPattern.FindStringSubmatch(rest)
		if m == nil {
			return nil, invalidParameter("Invalid filter pattern, or one that is unsupported here: %s", pattern)
		}
		terms = append(terms, m[1]+unescape.Replace(m[2]))
		rest = rest[len(m[0]):]
	}
	return func(message string) bool {
		for _, t := range terms {
			if !strings.Contains(message, t) {
				return false
			}
		}
		return true
	}, nil
}

func jsonEquals(message string, path []string, text, number string) bool {
	d := json.NewDecoder(strings.NewReader(message))
	d.UseNumber()
	var v any
	if d.Decode(&v) != nil {
		return false
	}
	for _, name := range path {
		m, ok := v.(map[string]any)
		if !ok {
			return false
		}
		v = m[name]
	}
	if number == "" {
		s, ok := v.(string)
		return ok && s == text
	}
	n, ok := v.(json.Number)
	if !ok {
		return false
	}
	x, err1 := n.Float64()
	y, err2 := json.Number(number).Float64()
	return err1 == nil && err2 == nil && x == y
}
