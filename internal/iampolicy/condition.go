package iampolicy

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"
)

// operator is a condition operator, without its prefix and IfExists.
type operator struct {
	negated bool
	// compare says of one value of the request whether it is the policy's.
	compare func(r *request, want, have string) bool
	// valid refuses a value of the policy that can't be compared with; nil takes all.
	valid func(value string) error
}

// operators are those of the IAM User Guide ("Condition operators"), but for BinaryEquals.
var operators = func() map[string]operator {
	text := func(fold bool) func(*request, string, string) bool {
		return func(r *request, want, have string) bool {
			p, ok := r.compile(want, false)
			if fold {
				return ok && strings.EqualFold(chars(p), have)
			}
			return ok && matches(p, have)
		}
	}
	like := func(r *request, want, have string) bool {
		p, ok := r.compile(want, true)
		return ok && matches(p, have)
	}
	arn := func(r *request, want, have string) bool {
		p, ok := r.compile(want, true)
		return ok && matchesARN(p, have)
	}
	all := map[string]operator{
		"StringEquals": {compare: text(false)}, "StringEqualsIgnoreCase": {compare: text(true)}, "StringLike": {compare: like},
		"ArnEquals": {compare: arn}, "ArnLike": {compare: arn},
		"Bool": {compare: func(_ *request, want, have string) bool { return strings.EqualFold(want, have) }, valid: truth},
	}
	number := func(is func(have, want float64) bool) operator {
		return operator{valid: numeric, compare: func(_ *request, want, have string) bool {
			w, err1 := strconv.ParseFloat(want, 64)
			h, err2 := strconv.ParseFloat(have, 64)
			return err1 == nil && err2 == nil && is(h, w)
		}}
	}
	date := func(is func(have, want time.Time) bool) operator {
		return operator{valid: dated, compare: func(_ *request, want, have string) bool {
			w, err1 := moment(want)
			h, err2 := moment(have)
			return err1 == nil && err2 == nil && is(h, w)
		}}
	}
	all["NumericEquals"] = number(func(h, w float64) bool { return h == w })
	all["NumericLessThan"] = number(func(h, w float64) bool { return h < w })
	all["NumericLessThanEquals"] = number(func(h, w float64) bool { return h <= w })
	all["NumericGreaterThan"] = number(func(h, w float64) bool { return h > w })
	all["NumericGreaterThanEquals"] = number(func(h, w float64) bool { return h >= w })
	all["DateEquals"] = date(func(h, w time.Time) bool { return h.Equal(w) })
	all["DateLessThan"] = date(func(h, w time.Time) bool { return h.Before(w) })
	all["DateLessThanEquals"] = date(func(h, w time.Time) bool { return !h.After(w) })
	all["DateGreaterThan"] = date(func(h, w time.Time) bool { return h.After(w) })
	all["DateGreaterThanEquals"] = date(func(h, w time.Time) bool { return !h.Before(w) })
	all["IpAddress"] = operator{valid: network, compare: func(_ *request, want, have string) bool {
		p, err1 := prefix(want)
		a, err2 := netip.ParseAddr(have)
		return err1 == nil && err2 == nil && p.Contains(a)
	}}
	for name, positive := range map[string]string{
		"StringNotEquals": "StringEquals", "StringNotEqualsIgnoreCase": "StringEqualsIgnoreCase", "StringNotLike": "StringLike",
		"ArnNotEquals": "ArnEquals", "ArnNotLike": "ArnLike", "NumericNotEquals": "NumericEquals", "DateNotEquals": "DateEquals",
		"NotIpAddress": "IpAddress",
	} {
		o := all[positive]
		o.negated = true
		all[name] = o
	}
	return all
}()

const (
	forAll   = "ForAllValues:"
	forAny   = "ForAnyValue:"
	ifExists = "IfExists"
	null     = "Null"
)

// parts takes an operator as written apart.
func (c Condition) parts() (set, name string, optional bool) {
	name = c.Operator
	for _, prefix := range []string{forAll, forAny} {
		if rest, ok := strings.CutPrefix(name, prefix); ok {
			set, name = prefix, rest
			break
		}
	}
	if rest, ok := strings.CutSuffix(name, ifExists); ok {
		name, optional = rest, true
	}
	return set, name, optional
}

// check refuses what can't be evaluated.
func (c Condition) check() error {
	if c.Key == "" {
		return errors.New("the key is empty")
	}
	set, name, optional := c.parts()
	if name == null {
		if set != "" || optional {
			return errors.New("the operator Null stands alone")
		}
		for _, v := range c.Values {
			if err := truth(v); err != nil {
				return err
			}
		}
		return nil
	}
	o, ok := operators[name]
	if !ok {
		return fmt.Errorf("operator %q is not known", name)
	}
	for _, v := range c.Values {
		if _, err := segments(v); err != nil {
			return fmt.Errorf("value %q: %w", v, err)
		}
		if o.valid == nil {
			continue
		}
		if err := o.valid(v); err != nil {
			return err
		}
	}
	return nil
}

// holds evaluates a condition (IAM User Guide, "Conditions with multiple context keys or
// values" and "Single-valued vs. multivalued context keys").
//
//	the request's key is | positive | negated | ForAllValues | ForAnyValue | IfExists | Null
//	---------------------+----------+---------+--------------+-------------+----------+------
//	not there            | no       | yes     | yes          | no          | yes      | true
//	there                | any of the policy's values; negated: none of them          | false
func (c Condition) holds(r *request) bool {
	have := r.Context[strings.ToLower(c.Key)]
	set, name, optional := c.parts()
	if name == null {
		return slices.ContainsFunc(c.Values, func(v string) bool { return strings.EqualFold(v, "true") == (len(have) == 0) })
	}
	o, ok := operators[name]
	if !ok {
		return false // Parse refuses it; a document made by hand allows nothing by it
	}
	one := func(h string) bool {
		return slices.ContainsFunc(c.Values, func(w string) bool { return o.compare(r, w, h) }) != o.negated
	}
	if len(have) == 0 {
		switch {
		case optional || set == forAll:
			return true
		case set == forAny:
			return false
		}
		return o.negated
	}
	switch set {
	case forAll:
		return !slices.ContainsFunc(have, func(h string) bool { return !one(h) })
	case forAny:
		return slices.ContainsFunc(have, one)
	}
	if o.negated { // of a key with several values, none may match
		return !slices.ContainsFunc(have, func(h string) bool { return !one(h) })
	}
	return slices.ContainsFunc(have, one)
}

func chars(p []element) string {
	b := make([]byte, len(p))
	for i, e := range p {
		b[i] = e.char
	}
	return string(b)
}

func truth(v string) error {
	if !strings.EqualFold(v, "true") && !strings.EqualFold(v, "false") {
		return fmt.Errorf("value %q: use true or false", v)
	}
	return nil
}

func numeric(v string) error {
	if _, err := strconv.ParseFloat(v, 64); err != nil {
		return fmt.Errorf("value %q is no number", v)
	}
	return nil
}

// moment reads a date as policies have them: ISO 8601, or seconds since 1970.
func moment(v string) (time.Time, error) {
	for _, layout := range []string{time.RFC3339Nano, "2006-01-02T15:04Z07:00", "2006-01-02"} {
		if t, err := time.Parse(layout, v); err == nil {
			return t, nil
		}
	}
	seconds, err := strconv.ParseInt(v, 10, 64)
	if err != nil {
		return time.Time{}, fmt.Errorf("value %q is no date", v)
	}
	return time.Unix(seconds, 0), nil
}

func dated(v string) error { _, err := moment(v); return err }

func prefix(v string) (netip.Prefix, error) {
	if !strings.Contains(v, "/") {
		a, err := netip.ParseAddr(v)
		if err != nil {
			return netip.Prefix{}, fmt.Errorf("value %q is no address", v)
		}
		return netip.PrefixFrom(a, a.BitLen()), nil
	}
	p, err := netip.ParsePrefix(v)
	if err != nil {
		return p, fmt.Errorf("value %q is no network", v)
	}
	return p, nil
}

func network(v string) error { _, err := prefix(v); return err }
