package fakeaws

import (
	"maps"
	"strings"
	"time"

	"github.com/eks-tenant-logs/eks-tenant-logs/internal/iampolicy"
)

// permission is one thing that a call's caller must be allowed to do.
type permission struct {
	action   string // empty: the call's own
	resource string // its ARN; empty: the action has no resource level
	context  map[string][]string
	// keyPolicy is the policy of the KMS key that resource names: nobody is allowed anything that it does not allow.
	keyPolicy *string
}

func (p *permission) arn() string {
	if p.resource == "" {
		return "*"
	}
	return p.resource
}

// set adds values of a condition key, which has no case.
func (p *permission) set(key string, values ...string) {
	if p.context == nil {
		p.context = map[string][]string{}
	}
	key = strings.ToLower(key)
	p.context[key] = append(p.context[key], values...)
}

// replace sets a condition key to one value.
func (p *permission) replace(key, value string) {
	delete(p.context, key)
	p.set(key, value)
}

// add takes over the condition keys of a context that has none of the permission's.
func (p *permission) add(context map[string][]string) {
	if p.context == nil {
		p.context = map[string][]string{}
	}
	maps.Copy(p.context, context)
}

// resourceTagKeys are the condition keys of what has tags.
func resourceTagKeys(tags map[string]string) map[string][]string {
	var p permission
	for k, v := range tags {
		p.set("aws:resourcetag/"+k, v)
	}
	return p.context
}

// requestTagKeys are the condition keys of a request that sets tags.
func requestTagKeys(tags []tag) map[string][]string {
	var p permission
	for _, t := range tags {
		p.set("aws:requesttag/"+deref(t.Key), deref(t.Value))
		p.set("aws:tagkeys", deref(t.Key))
	}
	return p.context
}

// request is what the evaluator is asked: the permission, with the condition keys that every request has. For a session
// aws:PrincipalArn is its role's, as are the tags that the session does not override.
func (s *account) request(caller identity, ask permission) iampolicy.Request {
	now := s.now().UTC()
	all := permission{context: maps.Clone(ask.context)}
	arn, kind := caller.arn, "User"
	var tags map[string]string
	switch {
	case caller.principal.root:
		kind = "Account"
	case caller.principal.role != "":
		arn, kind = caller.principal.role, "AssumedRole"
		s.iam.mu.RLock()
		if r := s.roleOf(caller); r != nil {
			tags = tagsOf(s.effective(r).tags, caller.principal.tags)
		}
		s.iam.mu.RUnlock()
		all.set("aws:tokenissuetime", caller.principal.issued.UTC().Format(time.RFC3339))
	default:
		all.set("aws:username", caller.arn[strings.LastIndexByte(caller.arn, '/')+1:])
	}
	for k, v := range tags {
		all.set("aws:principaltag/"+k, v)
	}
	if caller.principal.federated != "" {
		all.set("aws:federatedprovider", caller.principal.federated)
	}
	for key, value := range map[string]string{
		"aws:principalarn": arn, "aws:principalaccount": s.id, "aws:principaltype": kind, "aws:userid": caller.userID,
		"aws:requestedregion": s.cfg.Region, "aws:securetransport": "true", "aws:viaawsservice": "false",
		"aws:principalisawsservice": "false", "aws:sourceip": "127.0.0.1",
		"aws:currenttime": now.Format(time.RFC3339), "aws:epochtime": now.Format(time.RFC3339),
	} {
		all.replace(key, value)
	}
	if of := accountOf(ask.resource); of != "" {
		all.replace("aws:resourceaccount", of)
	}
	return iampolicy.Request{
		Action: ask.action, Resource: ask.arn(), Principal: iampolicy.Principal{ARN: arn, Account: s.id}, Context: all.context,
	}
}
