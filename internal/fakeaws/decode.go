package fakeaws

import (
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
)

// decode reads body, a JSON object, into the struct that in points to. Member names are the fields' json tags and are
// case-sensitive; a null counts as absent. A member that in has no field for is refused, or skipped if allowUnknown.
// Fields are *string, *int64, *bool, []string, map[string]string or []kmsTag: all that the operations' inputs need. A field
// with the tag "-" is no member.
func decode(body []byte, in any, allowUnknown bool) error {
	s := &scanner{b: body}
	v := reflect.ValueOf(in).Elem()
	t := v.Type()
	err := s.object(func(name string) error {
		for i := range t.NumField() {
			if tag := t.Field(i).Tag.Get("json"); tag == name && tag != "-" {
				if s.null() {
					return nil
				}
				if err := decodeField(s, v.Field(i)); err != nil {
					return fmt.Errorf("member %q: %w", name, err)
				}
				return nil
			}
		}
		if !allowUnknown {
			return fmt.Errorf("unknown member %q", name)
		}
		return s.skip(0)
	})
	if err != nil {
		return err
	}
	return s.end()
}

func decodeField(s *scanner, field reflect.Value) (err error) {
	switch p := field.Addr().Interface().(type) {
	case **string:
		*p = new(string)
		**p, err = s.string()
	case **int64:
		*p = new(int64)
		**p, err = s.int64()
	case **bool:
		*p = new(bool)
		**p, err = s.bool()
	case *[]string:
		*p = []string{}
		err = s.array(func() error {
			v, err := s.string()
			*p = append(*p, v)
			return err
		})
	case *map[string]string:
		*p, err = s.stringMap()
	case *[]kmsTag:
		*p = []kmsTag{}
		err = s.array(func() error {
			var tag kmsTag
			err := s.object(func(name string) error {
				dst := &tag.Key
				if name == "TagValue" {
					dst = &tag.Value
				} else if name != "TagKey" {
					return fmt.Errorf("unknown member %q", name)
				}
				v, err := s.string()
				*dst = &v
				return err
			})
			*p = append(*p, tag)
			return err
		})
	default:
		err = errors.New("no such kind of member")
	}
	return err
}

// constraints collects what is wrong with a request, in the words of AWS's front end.
type constraints struct{ failed []string }

func (c *constraints) fail(value, path, constraint string) {
	c.failed = append(c.failed, "Value "+value+" at '"+path+"' failed to satisfy constraint: "+constraint)
}

// err returns all failures as one answer, or nil.
func (c *constraints) err() *APIError {
	if len(c.failed) == 0 {
		return nil
	}
	noun := "error"
	if len(c.failed) > 1 {
		noun = "errors"
	}
	return invalidParameter("%d validation %s detected: %s", len(c.failed), noun, strings.Join(c.failed, "; "))
}

const memberNotNull = "Member must not be null"

// textRule is what the service's model says of a string.
type textRule struct {
	min, max int // in UTF-16 code units, as Java counts; 0 means no limit
	pattern  string
	valid    func(byte) bool // of each byte; nil allows all
}

func atLeast(n int) string {
	return fmt.Sprintf("Member must have length greater than or equal to %d", n)
}
func atMost(n int) string { return fmt.Sprintf("Member must have length less than or equal to %d", n) }

// required checks a string that must be there.
func (c *constraints) required(path string, v *string, rule textRule) {
	if v == nil {
		c.fail("null", path, memberNotNull)
		return
	}
	c.text(path, v, rule)
}

// text checks a string that may be absent.
func (c *constraints) text(path string, v *string, rule textRule) {
	if v == nil {
		return
	}
	quoted := "'" + *v + "'"
	n := utf16Len(*v)
	if n < rule.min {
		c.fail(quoted, path, atLeast(rule.min))
	}
	if rule.max > 0 && n > rule.max {
		c.fail(quoted, path, atMost(rule.max))
	}
	if rule.valid != nil {
		for i := range len(*v) {
			if !rule.valid((*v)[i]) {
				c.fail(quoted, path, "Member must satisfy regular expression pattern: "+rule.pattern)
				break
			}
		}
	}
}

// between checks a number that may be absent.
func (c *constraints) between(path string, v *int64, low, high int64) {
	switch {
	case v == nil:
	case *v < low:
		c.fail(fmt.Sprintf("'%d'", *v), path, fmt.Sprintf("Member must have value greater than or equal to %d", low))
	case *v > high:
		c.fail(fmt.Sprintf("'%d'", *v), path, fmt.Sprintf("Member must have value less than or equal to %d", high))
	}
}

// oneOf checks an enumeration that may be absent.
func (c *constraints) oneOf(path string, v *string, allowed ...string) {
	if v != nil && !slices.Contains(allowed, *v) {
		c.fail("'"+*v+"'", path, "Member must satisfy enum value set: ["+strings.Join(allowed, ", ")+"]")
	}
}

// size checks the length of a list or map.
func (c *constraints) size(path string, n, low, high int) {
	switch {
	case n < low:
		c.fail("'[]'", path, atLeast(low))
	case n > high:
		c.fail("'[...]'", path, atMost(high))
	}
}

func utf16Len(s string) (n int) {
	for _, r := range s {
		n++
		if r > 0xFFFF {
			n++
		}
	}
	return n
}

func isAlnum(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9'
}

func in(set string) func(byte) bool {
	return func(c byte) bool { return isAlnum(c) || strings.IndexByte(set, c) >= 0 }
}

// The rules of the service's model (aws-sdk-go-v2/service/cloudwatchlogs, API version 2014-03-28).
var (
	ruleGroupName   = textRule{1, 512, `[\.\-_/#A-Za-z0-9]+`, in("._-/#")}
	ruleGroupMatch  = textRule{0, 512, `[\.\-_/#A-Za-z0-9]*`, in("._-/#")}
	ruleIdentifier  = textRule{1, 2048, `[\w#+=/:,.@-]*`, in("_#+=/:,.@-")}
	ruleStreamName  = textRule{1, 512, `[^:*]*`, func(c byte) bool { return c != ':' && c != '*' }}
	ruleKMSKey      = textRule{0, 256, "", nil}
	ruleResource    = textRule{1, 2048, `[\w+=/:,.@\-\*]*`, in("_+=/:,.@-*#")}
	ruleResourceARN = textRule{1, 1011, `[\w+=/:,.@-]*`, in("_+=/:,.@-*#")}
	ruleToken       = textRule{1, 0, "", nil}
	rulePattern     = textRule{0, 1024, "", nil}
)

const (
	describeLimit   = 50     // DescribeLimit
	maxIdentifiers  = 50     // DescribeLogGroupsLogGroupIdentifiers
	maxStreamNames  = 100    // InputLogStreamNames
	eventsLimit     = 10_000 // EventsLimit
	maxTags         = 50     // Tags, and tags per resource
	maxTagKey       = 128    // TagKey
	maxTagValue     = 256    // TagValue
	maxResponseSize = 1 << 20
)
