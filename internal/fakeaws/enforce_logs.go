package fakeaws

import "strings"

// What IAM decides about a call to CloudWatch Logs (service authorization reference; the User Guide's "Overview of managing
// access permissions"). Actions on a group are checked against <ARN of the group>:log-stream:, as AWS's own refusals have
// it: a policy for them needs the form that ends with ":*", or a wildcard that reaches so far. The three tagging actions are
// checked against the bare ARN. CreateLogStream's is the stream, in the reference of 2026-09 as in AWS's refusals.
const (
	onGroup = iota
	onStream
	onBareGroup
	onNothing
)

var logsLevels = map[string]int{
	"CreateLogStream": onStream, "DeleteLogStream": onStream, "GetLogEvents": onStream, "PutLogEvents": onStream,
	"ListTagsForResource": onBareGroup, "TagResource": onBareGroup, "UntagResource": onBareGroup,
	"DescribeLogGroups": onNothing,
}

// onLogGroup asks for an operation on a group, or on a stream of it.
func (s *account) onLogGroup(level int, group, stream string) (ask permission) {
	// An identifier of another account's or region's group stands here as it was given.
	arn := group
	if !strings.HasPrefix(arn, "arn:") {
		arn = s.groupARN(group)
	}
	arn = strings.TrimSuffix(arn, ":*")
	switch level {
	case onStream:
		ask.resource = arn + ":log-stream:" + stream
	case onBareGroup:
		ask.resource = arn
	case onGroup:
		ask.resource = arn + ":log-stream:"
	case onNothing:
		return ask
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	if g := s.groups[group]; g != nil {
		ask.context = resourceTagKeys(g.tags)
	}
	return ask
}

// asksLogs is what the caller of an operation of CloudWatch Logs must be allowed to do.
func (s *account) asksLogs(operation, group, stream string, in request) []permission {
	if r, ok := in.(*decidedOnly); ok {
		return s.asksDecided(operation, r)
	}
	asked := []permission{s.onLogGroup(logsLevels[operation], group, stream)}
	setTags := func(p *permission, tags map[string]string) {
		for k, v := range tags {
			p.set("aws:requesttag/"+k, v)
			p.set("aws:tagkeys", k)
		}
	}
	switch r := in.(type) {
	case *createLogGroup:
		if len(r.Tags) > 0 {
			setTags(&asked[0], r.Tags)
			// "To associate tags with a log group, you must have either the logs:TagResource or logs:TagLogGroup permission";
			// the older one is not taken here.
			tagging := s.onLogGroup(onBareGroup, group, "")
			tagging.action = "logs:TagResource"
			setTags(&tagging, r.Tags)
			asked = append(asked, tagging)
		}
	case *tagResource:
		setTags(&asked[0], r.Tags)
	case *untagResource:
		asked[0].set("aws:tagkeys", r.Keys...)
	}
	return asked
}

// keyWorks reports why CloudWatch Logs can't use a group's key. It is looked at only where IAM is enforced; elsewhere any
// ARN of a key will do.
func (s *account) keyWorks(group, key string) *APIError {
	if !s.cfg.Enforce || key == "" {
		return nil
	}
	owner := s.account(accountOf(key))
	owner.kms.mu.RLock()
	k := owner.keyByARN(key)
	var policy string
	if k != nil && k.enabled {
		policy = k.policy
	}
	owner.kms.mu.RUnlock()
	if policy == "" {
		// "If you attempt to associate a KMS key with the log group but the KMS key does not exist or the KMS key is disabled,
		// you receive an InvalidParameterException error" (CreateLogGroup).
		return invalidParameter("The specified KMS Key Id could not be found.")
	}
	arn := s.groupARN(group)
	ask := permission{resource: key}
	ask.set("kms:encryptioncontext:aws:logs:arn", arn)
	ask.set("kms:encryptioncontextkeys", "aws:logs:arn")
	ask.set("kms:viaservice", "logs."+s.cfg.Region+"."+dnsSuffix(s.cfg.Partition))
	ask.set("aws:sourcearn", arn)
	ask.set("aws:sourceaccount", s.id)
	for _, action := range logsKeyActions {
		if ask.action = action; !owner.trustsService("logs."+s.cfg.Region+"."+dnsSuffix(s.cfg.Partition), policy, ask) {
			return &APIError{Code: codeDenied + "Exception", Message: "The specified KMS key does not exist or is not allowed to be used with LogGroup '" + arn + "'"}
		}
	}
	return nil
}

// logsKeyActions are what AWS's example of a key policy gives CloudWatch Logs; which of them it needs when is not documented.
var logsKeyActions = []string{"kms:Encrypt", "kms:Decrypt", "kms:ReEncryptFrom", "kms:ReEncryptTo", "kms:GenerateDataKey", "kms:DescribeKey"}

// keyInUse reports why events of a group can't be written or read: its key is gone, disabled or no longer for CloudWatch
// Logs. That this is refused at once, and with this code, is not documented: AWS says that such data "can no longer be
// retrieved", and after how long is open.
func (s *account) keyInUse(g *group) *APIError {
	if !s.cfg.Enforce {
		return nil
	}
	s.mu.RLock()
	name, key := g.name, g.kmsKey
	s.mu.RUnlock()
	if s.keyWorks(name, key) == nil {
		return nil
	}
	return &APIError{Code: codeDenied + "Exception", Message: "The KMS key of LogGroup '" + s.groupARN(name) + "' can't be used."}
}
