package fakeaws

import (
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode"
)

// The quotas of IAM and STS, from the IAM User Guide's "IAM and AWS STS quotas". White space does not count in policies.
const (
	maxRoles            = 1_000
	maxPolicies         = 1_500
	maxInlineSize       = 10_240 // all inline policies of a role together
	maxManagedSize      = 6_144
	maxTrustSize        = 2_048
	maxPolicyVersions   = 5
	maxAttachedPolicies = 10
)

// The rules of IAM's model (aws-sdk-go-v2/service/iam, API version 2010-05-08).
var (
	ruleRoleName    = textRule{1, 64, `[\w+=,.@-]+`, in("_+=,.@-")}
	rulePolicyName  = textRule{1, 128, `[\w+=,.@-]+`, in("_+=,.@-")}
	ruleIAMARN      = textRule{20, 2048, "", nil}
	ruleDocument    = textRule{1, 131_072, `[\u0009\u000A\u000D\u0020-\u00FF]+`, nil}
	ruleDescription = textRule{0, 1_000, `[\u0009\u000A\u000D\u0020-\u007E\u00A1-\u00FF]*`, nil}
	ruleMarker      = textRule{1, 0, "", nil}
	ruleVersionID   = textRule{2, 0, `v[1-9][0-9]*(\.[A-Za-z0-9-]*)?`, in("v.-")}
)

// path checks a path that may be absent, and returns it, or "/".
func (c *constraints) path(name string, v *string) string {
	if v == nil {
		return "/"
	}
	c.text(name, v, textRule{1, 512, `(\u002F)|(\u002F[\u0021-\u007E]+\u002F)`, func(b byte) bool { return '!' <= b && b <= '~' }})
	if *v != "/" && (len(*v) < 3 || (*v)[0] != '/' || (*v)[len(*v)-1] != '/') {
		c.fail("'"+*v+"'", name, `Member must satisfy regular expression pattern: (\u002F)|(\u002F[\u0021-\u007E]+\u002F)`)
	}
	return *v
}

// What the model says of the prefixes of paths: pathPrefixType and policyPathType.
var (
	rolePathPrefix   = regexp.MustCompile(`^/[!-\x7f]*$`)
	policyPathPrefix = regexp.MustCompile(`^((/[A-Za-z0-9.,+@=_-]+)*)/$`)
)

// prefix checks a path's prefix, which may be absent.
func (c *constraints) prefix(name string, v *string, pattern string, valid *regexp.Regexp) {
	c.text(name, v, textRule{min: 1, max: 512})
	if v != nil && !valid.MatchString(*v) {
		c.fail("'"+*v+"'", name, "Member must satisfy regular expression pattern: "+pattern)
	}
}

// policyPrefix is prefix for managed policies.
func (c *constraints) policyPrefix(v *string) {
	c.prefix("pathPrefix", v, `((/[A-Za-z0-9\.,\+@=_-]+)*)/`, policyPathPrefix)
}

// latin checks text that may only have the characters of Latin-1.
func (c *constraints) latin(name string, v *string, rule textRule) {
	c.text(name, v, rule)
	for _, r := range deref(v) {
		if r > 0xFF || r < ' ' && !strings.ContainsRune("\t\n\r", r) {
			c.fail("'"+*v+"'", name, "Member must satisfy regular expression pattern: "+rule.pattern)
			return
		}
	}
}

// document checks a policy document that must be there.
func (c *constraints) document(name string, v *string) {
	if v == nil {
		c.fail("null", name, memberNotNull)
		return
	}
	c.latin(name, v, ruleDocument)
}

// policySize is how much of a quota a document uses.
func policySize(document string) (n int) {
	for _, r := range document {
		if !unicode.IsSpace(r) {
			n++
		}
	}
	return n
}

// tag is the model's Tag.
type tag struct {
	Key   *string `query:"Key" xml:"Key"`
	Value *string `query:"Value" xml:"Value"`
}

// iamTags checks a list of tags.
func (c *constraints) iamTags(tags []tag) {
	c.size("tags", len(tags), 0, maxTags)
	for i, t := range tags {
		at := "tags." + strconv.Itoa(i+1) + ".member."
		c.required(at+"key", t.Key, textRule{min: 1, max: maxTagKey})
		c.required(at+"value", t.Value, textRule{max: maxTagValue})
		if !tagText(deref(t.Key)) {
			c.fail("'"+deref(t.Key)+"'", at+"key", `Member must satisfy regular expression pattern: [\p{L}\p{Z}\p{N}_.:/=+\-@]+`)
		}
		if !tagText(deref(t.Value)) {
			c.fail("'"+deref(t.Value)+"'", at+"value", `Member must satisfy regular expression pattern: [\p{L}\p{Z}\p{N}_.:/=+\-@]*`)
		}
	}
}

// withTags returns tags with more set. Keys are the same whatever their case, and keep the case they had first.
func withTags(tags map[string]string, more []tag) (map[string]string, *APIError) {
	all := maps.Clone(tags)
	if all == nil {
		all = map[string]string{}
	}
	seen := map[string]bool{}
	for _, t := range more {
		lower := strings.ToLower(*t.Key)
		switch {
		case seen[lower]:
			return nil, iamInvalid("Duplicate tag keys found. Please note that Tag keys are case insensitive.")
		case strings.HasPrefix(lower, "aws:"):
			return nil, iamInvalid("Tag keys starting with aws: are reserved for AWS.")
		}
		seen[lower] = true
		key := *t.Key
		for old := range all {
			if strings.EqualFold(old, key) {
				key = old
			}
		}
		all[key] = *t.Value
	}
	if len(all) > maxTags {
		return nil, limitExceeded("The number of tags has reached the maximum limit.")
	}
	return all, nil
}

// withoutTags returns tags without some keys, whatever their case.
func withoutTags(tags map[string]string, keys []string) map[string]string {
	left := maps.Clone(tags)
	maps.DeleteFunc(left, func(k, _ string) bool {
		return slices.ContainsFunc(keys, func(gone string) bool { return strings.EqualFold(k, gone) })
	})
	return left
}

func tagList(tags map[string]string) []tag {
	var list []tag
	for _, k := range slices.Sorted(maps.Keys(tags)) {
		v := tags[k]
		list = append(list, tag{&k, &v})
	}
	return list
}

// paging is how IAM's listings are asked for one page after the other.
type paging struct {
	Marker   *string `query:"Marker"`
	MaxItems *int64  `query:"MaxItems"`
}

// paged is what a page says of the pages behind it.
type paged struct {
	Truncated bool   `xml:"IsTruncated"`
	Marker    string `xml:"Marker,omitempty"`
}

const defaultPage = 100

// page picks the keys of one page from those of a whole listing. query tells the listing from others.
func (p paging) page(c *constraints, keys []string, query ...any) ([]string, paged, *APIError) {
	c.text("marker", p.Marker, ruleMarker)
	c.between("maxItems", p.MaxItems, 1, 1_000)
	if err := c.queryErr(); err != nil {
		return nil, paged{}, err
	}
	id := queryID(query...)
	after, err := readPageToken(p.Marker, id, 1)
	if err != nil {
		return nil, paged{}, iamValidation("Invalid Marker.")
	}
	limit := defaultPage
	if p.MaxItems != nil {
		limit = int(*p.MaxItems)
	}
	slices.Sort(keys)
	if after != nil {
		first, found := slices.BinarySearch(keys, after[0])
		if found {
			first++
		}
		keys = keys[first:]
	}
	if len(keys) <= limit {
		return keys, paged{}, nil
	}
	return keys[:limit], paged{true, pageToken(id, keys[limit-1])}, nil
}
