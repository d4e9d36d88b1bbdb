package fakeaws

import (
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
)

const (
	classStandard         = "STANDARD"
	classInfrequentAccess = "INFREQUENT_ACCESS"
	classDelivery         = "DELIVERY"
	classEssentials       = "ESSENTIALS"
)

// retentionDays are the values that PutRetentionPolicy takes.
var retentionDays = []int64{1, 3, 5, 7, 14, 30, 60, 90, 120, 150, 180, 365, 400, 545, 731, 1096, 1827, 2192, 2557, 2922, 3288, 3653}

func deref[T any](p *T) (v T) {
	if p != nil {
		v = *p
	}
	return v
}

// update changes a group under the lock.
func (s *account) update(name string, change func(*group) *APIError) *APIError {
	s.mu.Lock()
	defer s.mu.Unlock()
	g := s.groups[name]
	if g == nil {
		return groupNotFound()
	}
	return change(g)
}

type createLogGroup struct {
	Name      *string           `json:"logGroupName"`
	KMSKey    *string           `json:"kmsKeyId"`
	Class     *string           `json:"logGroupClass"`
	Protected *bool             `json:"deletionProtectionEnabled"`
	Tags      map[string]string `json:"tags"`
}

func (r *createLogGroup) target(*account) (group, stream string) { return deref(r.Name), "" }

func (r *createLogGroup) do(s *account, _ *Call) (any, *APIError) {
	var c constraints
	c.required("logGroupName", r.Name, ruleGroupName)
	c.text("kmsKeyId", r.KMSKey, ruleKMSKey)
	c.oneOf("logGroupClass", r.Class, classStandard, classInfrequentAccess, classDelivery, classEssentials)
	if r.Tags != nil {
		c.tags("tags", r.Tags)
	}
	if err := c.err(); err != nil {
		return nil, err
	}
	// "Log group names can't start with the string aws/" (CreateLogGroup).
	if strings.HasPrefix(*r.Name, "aws/") {
		return nil, invalidParameter("Log groups starting with aws/ are reserved for AWS.")
	}
	if err := reservedTags(slices.Collect(maps.Keys(r.Tags))); err != nil {
		return nil, err
	}
	if r.KMSKey != nil {
		if err := checkKMSKey(*r.KMSKey); err != nil {
			return nil, err
		}
		if err := s.keyWorks(*r.Name, *r.KMSKey); err != nil {
			return nil, err
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.groups[*r.Name] != nil {
		return nil, &APIError{Code: codeAlreadyExists, Message: textGroupExists}
	}
	class := classStandard
	if r.Class != nil {
		class = *r.Class
	}
	tags := maps.Clone(r.Tags)
	if tags == nil {
		tags = map[string]string{}
	}
	s.groups[*r.Name] = &group{
		name: *r.Name, class: class, kmsKey: deref(r.KMSKey), created: s.now(), protected: deref(r.Protected),
		tags: tags, streams: map[string]*stream{},
	}
	return nil, nil
}

// checkKMSKey wants the ARN of a key; CloudWatch Logs takes neither an alias nor a bare id.
func checkKMSKey(arn string) *APIError {
	if part := strings.SplitN(arn, ":", 6); len(part) != 6 || part[0] != "arn" || part[2] != "kms" || !strings.HasPrefix(part[5], "key/") {
		return invalidParameter("The specified KMS key identifier is not a key ARN: %s", arn)
	}
	return nil
}

type deleteLogGroup struct {
	Name *string `json:"logGroupName"`
}

func (r *deleteLogGroup) target(*account) (group, stream string) { return deref(r.Name), "" }

func (r *deleteLogGroup) do(s *account, _ *Call) (any, *APIError) {
	var c constraints
	c.required("logGroupName", r.Name, ruleGroupName)
	if err := c.err(); err != nil {
		return nil, err
	}
	return nil, s.update(*r.Name, func(g *group) *APIError {
		if g.protected {
			return errProtected()
		}
		delete(s.groups, g.name)
		return nil
	})
}

func errProtected() *APIError {
	return &APIError{Code: codeValidation, Message: "Deletion protection is enabled for this log group. Disable deletion protection first."}
}

type putRetentionPolicy struct {
	Name *string `json:"logGroupName"`
	Days *int64  `json:"retentionInDays"`
}

func (r *putRetentionPolicy) target(*account) (group, stream string) { return deref(r.Name), "" }

func (r *putRetentionPolicy) do(s *account, _ *Call) (any, *APIError) {
	var c constraints
	c.required("logGroupName", r.Name, ruleGroupName)
	if r.Days == nil {
		c.fail("null", "retentionInDays", memberNotNull)
	} else {
		days := strconv.FormatInt(*r.Days, 10)
		allowed := make([]string, len(retentionDays))
		for i, d := range retentionDays {
			allowed[i] = strconv.FormatInt(d, 10)
		}
		c.oneOf("retentionInDays", &days, allowed...)
	}
	if err := c.err(); err != nil {
		return nil, err
	}
	return nil, s.update(*r.Name, func(g *group) *APIError {
		if g.class == classDelivery {
			return invalidParameter("Retention policy cannot be changed for log groups of class DELIVERY.")
		}
		g.retention = *r.Days
		return nil
	})
}

type deleteRetentionPolicy struct {
	Name *string `json:"logGroupName"`
}

func (r *deleteRetentionPolicy) target(*account) (group, stream string) { return deref(r.Name), "" }

func (r *deleteRetentionPolicy) do(s *account, _ *Call) (any, *APIError) {
	var c constraints
	c.required("logGroupName", r.Name, ruleGroupName)
	if err := c.err(); err != nil {
		return nil, err
	}
	return nil, s.update(*r.Name, func(g *group) *APIError {
		if g.class == classDelivery {
			return invalidParameter("Retention policy cannot be changed for log groups of class DELIVERY.")
		}
		g.retention = 0
		return nil
	})
}

type putDeletionProtection struct {
	Identifier *string `json:"logGroupIdentifier"`
	Enabled    *bool   `json:"deletionProtectionEnabled"`
}

func (r *putDeletionProtection) target(s *account) (group, stream string) {
	return s.groupName(r.Identifier), ""
}

func (r *putDeletionProtection) do(s *account, _ *Call) (any, *APIError) {
	var c constraints
	c.required("logGroupIdentifier", r.Identifier, ruleIdentifier)
	if r.Enabled == nil {
		c.fail("null", "deletionProtectionEnabled", memberNotNull)
	}
	if err := c.err(); err != nil {
		return nil, err
	}
	name, err := s.groupOf(*r.Identifier)
	if err != nil {
		return nil, err
	}
	return nil, s.update(name, func(g *group) *APIError {
		g.protected = *r.Enabled
		return nil
	})
}

// putBearerToken takes a name or an ARN, as its description says; the pattern and the 512 characters that stand there too
// are a name's.
type putBearerToken struct {
	Identifier *string `json:"logGroupIdentifier"`
	Enabled    *bool   `json:"bearerTokenAuthenticationEnabled"`
}

func (r *putBearerToken) target(s *account) (group, stream string) {
	return s.groupName(r.Identifier), ""
}

func (r *putBearerToken) do(s *account, _ *Call) (any, *APIError) {
	var c constraints
	c.required("logGroupIdentifier", r.Identifier, ruleIdentifier)
	if r.Enabled == nil {
		c.fail("null", "bearerTokenAuthenticationEnabled", memberNotNull)
	}
	if err := c.err(); err != nil {
		return nil, err
	}
	name, err := s.groupOf(*r.Identifier)
	if err != nil {
		return nil, err
	}
	return nil, s.update(name, func(g *group) *APIError {
		g.bearer = *r.Enabled
		return nil
	})
}

// groupName is groupOf for a Call: an identifier that names no group here is passed on as it is.
func (s *account) groupName(identifier *string) string {
	if name, err := s.groupOf(deref(identifier)); err == nil {
		return name
	}
	return deref(identifier)
}

type associateKMSKey struct {
	Name     *string `json:"logGroupName"`
	Resource *string `json:"resourceIdentifier"`
	Key      *string `json:"kmsKeyId"`
}

func (r *associateKMSKey) target(s *account) (group, stream string) {
	return kmsTarget(s, r.Name, r.Resource), ""
}

func (r *associateKMSKey) do(s *account, _ *Call) (any, *APIError) {
	var c constraints
	c.required("kmsKeyId", r.Key, ruleKMSKey)
	name, err := kmsGroup(s, &c, r.Name, r.Resource)
	if err != nil {
		return nil, err
	}
	if err := checkKMSKey(*r.Key); err != nil {
		return nil, err
	}
	if err := s.keyWorks(name, *r.Key); err != nil {
		return nil, err
	}
	return nil, s.update(name, func(g *group) *APIError {
		g.kmsKey = *r.Key
		return nil
	})
}

type disassociateKMSKey struct {
	Name     *string `json:"logGroupName"`
	Resource *string `json:"resourceIdentifier"`
}

func (r *disassociateKMSKey) target(s *account) (group, stream string) {
	return kmsTarget(s, r.Name, r.Resource), ""
}

func (r *disassociateKMSKey) do(s *account, _ *Call) (any, *APIError) {
	name, err := kmsGroup(s, &constraints{}, r.Name, r.Resource)
	if err != nil {
		return nil, err
	}
	return nil, s.update(name, func(g *group) *APIError {
		g.kmsKey = ""
		return nil
	})
}

func kmsTarget(s *account, name, resource *string) string {
	if name != nil {
		return *name
	}
	return s.groupName(resource)
}

// kmsGroup checks the two ways to name the target of a KMS operation. Query results have no key of their own here.
func kmsGroup(s *account, c *constraints, name, resource *string) (string, *APIError) {
	c.text("logGroupName", name, ruleGroupName)
	c.text("resourceIdentifier", resource, ruleResource)
	if err := c.err(); err != nil {
		return "", err
	}
	if (name == nil) == (resource == nil) {
		return "", invalidParameter("You must specify either the resourceIdentifier parameter or the logGroup parameter, but you can't specify both.")
	}
	if name != nil {
		return *name, nil
	}
	if !strings.HasPrefix(*resource, "arn:") {
		return "", invalidParameter("The resourceIdentifier must be an ARN.")
	}
	return s.groupOf(*resource)
}

type describeLogGroups struct {
	Accounts    []string `json:"accountIdentifiers"`
	Linked      *bool    `json:"includeLinkedAccounts"`
	Limit       *int64   `json:"limit"`
	Class       *string  `json:"logGroupClass"`
	Identifiers []string `json:"logGroupIdentifiers"`
	Pattern     *string  `json:"logGroupNamePattern"`
	Prefix      *string  `json:"logGroupNamePrefix"`
	NextToken   *string  `json:"nextToken"`
}

func (r *describeLogGroups) target(*account) (group, stream string) { return "", "" }

// logGroup is the model's LogGroup.
type logGroup struct {
	ARN          string `json:"arn"`
	CreationTime int64  `json:"creationTime"`
	Name         string `json:"logGroupName"`
	*logGroupMore
}

// logGroupMore is what a search by pattern leaves out.
type logGroupMore struct {
	BearerToken     bool   `json:"bearerTokenAuthenticationEnabled"`
	Protected       bool   `json:"deletionProtectionEnabled"`
	KMSKey          string `json:"kmsKeyId,omitempty"`
	LogGroupARN     string `json:"logGroupArn"`
	Class           string `json:"logGroupClass"`
	MetricFilters   int    `json:"metricFilterCount"`
	RetentionInDays int64  `json:"retentionInDays,omitempty"`
	RetentionPolicy string `json:"retentionPolicyName,omitempty"`
	StoredBytes     int64  `json:"storedBytes"`
}

func (r *describeLogGroups) do(s *account, _ *Call) (any, *APIError) {
	var c constraints
	c.between("limit", r.Limit, 1, describeLimit)
	c.oneOf("logGroupClass", r.Class, classStandard, classInfrequentAccess, classDelivery, classEssentials)
	c.text("logGroupNamePattern", r.Pattern, ruleGroupMatch)
	c.text("logGroupNamePrefix", r.Prefix, ruleGroupName)
	c.text("nextToken", r.NextToken, ruleToken)
	if r.Identifiers != nil {
		c.size("logGroupIdentifiers", len(r.Identifiers), 1, maxIdentifiers)
		for i := range r.Identifiers {
			c.text("logGroupIdentifiers."+strconv.Itoa(i+1)+".member", &r.Identifiers[i], ruleIdentifier)
		}
	}
	if err := c.err(); err != nil {
		return nil, err
	}
	switch {
	case r.Accounts != nil || deref(r.Linked):
		return nil, invalidParameter("This account is not a monitoring account.")
	case r.Pattern != nil && r.Prefix != nil:
		return nil, invalidParameter("LogGroup name prefix and LogGroup name pattern are mutually exclusive parameters.")
	case r.Identifiers != nil && (r.Pattern != nil || r.Prefix != nil || r.Class != nil):
		return nil, invalidParameter("logGroupIdentifiers can't be combined with another filter.")
	}
	wanted := map[string]bool{}
	for _, identifier := range r.Identifiers {
		name, err := s.groupOf(identifier)
		switch {
		case err != nil && err.Code == codeNotFound:
			// A group of another account: this is no monitoring account.
			return nil, invalidParameter("You can specify only log groups of this account and region.")
		case err != nil:
			return nil, err
		}
		wanted[name] = true // a group that does not exist is left out of the answer
	}
	match := func(g *group) bool {
		switch {
		case r.Identifiers != nil:
			return wanted[g.name]
		case r.Prefix != nil && !strings.HasPrefix(g.name, *r.Prefix), r.Pattern != nil && !strings.Contains(g.name, *r.Pattern):
			return false
		case r.Class == nil:
			return true
		case *r.Class == classInfrequentAccess || *r.Class == classEssentials:
			return g.class == classInfrequentAccess || g.class == classEssentials
		}
		return g.class == *r.Class
	}

	query := queryID("DescribeLogGroups", r.Class, r.Pattern, r.Prefix, strings.Join(r.Identifiers, "\x00"))
	after, err := readPageToken(r.NextToken, query, 1)
	if err != nil {
		return nil, err
	}
	limit := describeLimit
	if r.Limit != nil {
		limit = int(*r.Limit)
	}

	s.mu.RLock()
	defer s.mu.RUnlock()
	var names []string
	for name, g := range s.groups {
		if (after == nil || name > after[0]) && match(g) {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	out := struct {
		Groups    []logGroup `json:"logGroups"`
		NextToken string     `json:"nextToken,omitempty"`
	}{Groups: []logGroup{}}
	for i, name := range names {
		if i == limit {
			out.NextToken = pageToken(query, names[i-1])
			break
		}
		g := s.groups[name]
		item := logGroup{ARN: s.groupARN(name) + ":*", CreationTime: millis(g.created), Name: name}
		if r.Pattern == nil {
			days, policy := s.effectiveRetention(g)
			item.logGroupMore = &logGroupMore{
				BearerToken: g.bearer, Protected: g.protected, KMSKey: g.kmsKey, LogGroupARN: s.groupARN(name), Class: g.class,
				RetentionInDays: days, RetentionPolicy: policy, StoredBytes: g.stored.Load(),
			}
		}
		out.Groups = append(out.Groups, item)
	}
	return out, nil
}

// tags checks keys, values and number.
func (c *constraints) tags(path string, tags map[string]string) {
	c.size(path, len(tags), 1, maxTags)
	for _, k := range slices.Sorted(maps.Keys(tags)) {
		c.tagKey(path, k)
		v := tags[k]
		c.text(path+"."+k+".member", &v, textRule{max: maxTagValue})
		if !tagText(v) {
			c.fail("'"+v+"'", path+"."+k+".member", `Member must satisfy regular expression pattern: ^([\p{L}\p{Z}\p{N}_.:/=+\-@]*)$`)
		}
	}
}

func (c *constraints) tagKey(path, k string) {
	c.text(path, &k, textRule{min: 1, max: maxTagKey})
	if k != "" && !tagText(k) {
		c.fail("'"+k+"'", path, `Map keys must satisfy constraint: [Member must satisfy regular expression pattern: ^([\p{L}\p{Z}\p{N}_.:/=+\-@]+)$]`)
	}
}

func tagText(s string) bool {
	for _, r := range s {
		if !unicode.In(r, unicode.L, unicode.Z, unicode.N) && !strings.ContainsRune("_.:/=+-@", r) {
			return false
		}
	}
	return true
}

// reservedTags refuses keys that only AWS may set.
func reservedTags(keys []string) *APIError {
	for _, k := range keys {
		if strings.HasPrefix(strings.ToLower(k), "aws:") {
			return invalidParameter("Tag keys starting with aws: are reserved for AWS.")
		}
	}
	return nil
}

// taggable returns the group a tagging operation is about: the bare ARN only, without ":*".
func (s *account) taggable(arn string) (string, *APIError) {
	name, ok := strings.CutPrefix(arn, s.arnPrefix())
	switch {
	case !strings.HasPrefix(arn, "arn:") || ok && strings.ContainsAny(name, ":*"):
		return "", invalidParameter("The specified resource ARN is not that of a log group: %s", arn)
	case !ok:
		return "", &APIError{Code: codeNotFound, Message: "The specified resource does not exist."}
	}
	return name, nil
}

func (s *account) taggedGroup(arn *string) string {
	if name, err := s.taggable(deref(arn)); err == nil {
		return name
	}
	return deref(arn)
}

type tagResource struct {
	ARN  *string           `json:"resourceArn"`
	Tags map[string]string `json:"tags"`
}

func (r *tagResource) target(s *account) (group, stream string) { return s.taggedGroup(r.ARN), "" }

func (r *tagResource) do(s *account, _ *Call) (any, *APIError) {
	var c constraints
	c.required("resourceArn", r.ARN, ruleResourceARN)
	if r.Tags == nil {
		c.fail("null", "tags", memberNotNull)
	} else {
		c.tags("tags", r.Tags)
	}
	if err := c.err(); err != nil {
		return nil, err
	}
	if err := reservedTags(slices.Collect(maps.Keys(r.Tags))); err != nil {
		return nil, err
	}
	name, err := s.taggable(*r.ARN)
	if err != nil {
		return nil, err
	}
	return nil, s.update(name, func(g *group) *APIError {
		all := maps.Clone(g.tags)
		maps.Copy(all, r.Tags)
		if len(all) > maxTags {
			return &APIError{Code: codeTooManyTags, Message: "A resource can have no more than 50 tags."}
		}
		g.tags = all
		return nil
	})
}

type untagResource struct {
	ARN  *string  `json:"resourceArn"`
	Keys []string `json:"tagKeys"`
}

func (r *untagResource) target(s *account) (group, stream string) { return s.taggedGroup(r.ARN), "" }

func (r *untagResource) do(s *account, _ *Call) (any, *APIError) {
	var c constraints
	c.required("resourceArn", r.ARN, ruleResourceARN)
	if r.Keys == nil {
		c.fail("null", "tagKeys", memberNotNull)
	}
	c.size("tagKeys", len(r.Keys), 0, maxTags)
	for i, k := range r.Keys {
		c.tagKey("tagKeys."+strconv.Itoa(i+1)+".member", k)
	}
	if err := c.err(); err != nil {
		return nil, err
	}
	if err := reservedTags(r.Keys); err != nil {
		return nil, err
	}
	name, err := s.taggable(*r.ARN)
	if err != nil {
		return nil, err
	}
	return nil, s.update(name, func(g *group) *APIError {
		g.tags = maps.Clone(g.tags)
		for _, k := range r.Keys {
			delete(g.tags, k)
		}
		return nil
	})
}

type listTagsForResource struct {
	ARN *string `json:"resourceArn"`
}

func (r *listTagsForResource) target(s *account) (group, stream string) {
	return s.taggedGroup(r.ARN), ""
}

func (r *listTagsForResource) do(s *account, _ *Call) (any, *APIError) {
	var c constraints
	c.required("resourceArn", r.ARN, ruleResourceARN)
	if err := c.err(); err != nil {
		return nil, err
	}
	name, err := s.taggable(*r.ARN)
	if err != nil {
		return nil, err
	}
	var out struct {
		Tags map[string]string `json:"tags"`
	}
	err = s.update(name, func(g *group) *APIError {
		out.Tags = g.tags // replaced as a whole, never changed
		return nil
	})
	return out, err
}

// now is the service's clock; it decides what is too old and when things were made.
func (s *Server) now() time.Time {
	return s.cfg.Clock().Add(time.Duration(s.clockOffset.Load()))
}
