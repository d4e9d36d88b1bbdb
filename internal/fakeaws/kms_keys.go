package fakeaws

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
)

// findKey returns a key by any of its names. The caller holds the lock.
func (s *account) findKey(name string, aliases bool) (*kmsKey, *APIError) {
	id := strings.TrimPrefix(name, s.regionalARN("kms", "key/"))
	if aliases {
		alias := strings.TrimPrefix(name, s.regionalARN("kms", ""))
		if target, ok := s.kms.aliases[alias]; ok {
			id = target
		}
	}
	if k := s.kms.keys[id]; k != nil {
		return k, nil
	}
	return nil, kmsNotFound(s.regionalARN("kms", "key/"+id))
}

// forKey asks for the call's action on a key, which need not exist.
func (s *account) forKey(name *string, aliases bool) permission {
	s.kms.mu.RLock()
	defer s.kms.mu.RUnlock()
	k, _ := s.findKey(deref(name), aliases)
	if k == nil {
		arn := deref(name)
		if !strings.HasPrefix(arn, "arn:") {
			arn = s.regionalARN("kms", "key/"+arn)
		}
		return permission{resource: arn}
	}
	policy := k.policy
	return permission{resource: k.arn, context: s.keyContext(k), keyPolicy: &policy}
}

// keyContext are the condition keys that tell of a key: its tags, and its aliases as kms:ResourceAliases. In AWS a change of
// either may take up to five minutes to count. The caller holds the lock.
func (s *account) keyContext(k *kmsKey) map[string][]string {
	p := permission{context: resourceTagKeys(k.tags)}
	for alias, id := range s.kms.aliases {
		if id == k.id {
			p.set("kms:resourcealiases", alias)
		}
	}
	return p.context
}

func (s *account) updateKey(name *string, aliases bool, change func(*kmsKey) *APIError) *APIError {
	if deref(name) == "" || len(*name) > 2_048 {
		return kmsInvalid("1 validation error detected: Value at 'keyId' failed to satisfy constraint: Member must have length between 1 and 2048")
	}
	s.kms.mu.Lock()
	defer s.kms.mu.Unlock()
	k, err := s.findKey(*name, aliases)
	if err != nil {
		return err
	}
	return change(k)
}

// kmsTag is the model's Tag.
type kmsTag struct {
	Key   *string `json:"TagKey"`
	Value *string `json:"TagValue"`
}

func kmsTagKeys(tags []kmsTag) map[string][]string {
	var p permission
	for _, t := range tags {
		p.set("aws:requesttag/"+deref(t.Key), deref(t.Value))
		p.set("aws:tagkeys", deref(t.Key))
	}
	return p.context
}

func withKMSTags(tags map[string]string, more []kmsTag) (map[string]string, *APIError) {
	all := maps.Clone(tags)
	if all == nil {
		all = map[string]string{}
	}
	for _, t := range more {
		k, v := deref(t.Key), deref(t.Value)
		if k == "" || utf16Len(k) > maxTagKey || utf16Len(v) > maxTagValue || strings.HasPrefix(strings.ToLower(k), "aws:") {
			return nil, &APIError{Code: "TagException", Message: "A tag's key or value is not valid."}
		}
		all[k] = v
	}
	if len(all) > maxTags {
		return nil, &APIError{Code: "LimitExceededException", Message: "A key can have no more than 50 tags."}
	}
	return all, nil
}

// keyMetadata is the model's KeyMetadata.
type keyMetadata struct {
	Account     string   `json:"AWSAccountId"`
	ID          string   `json:"KeyId"`
	ARN         string   `json:"Arn"`
	Created     int64    `json:"CreationDate"`
	Enabled     bool     `json:"Enabled"`
	Description string   `json:"Description"`
	Usage       string   `json:"KeyUsage"`
	State       string   `json:"KeyState"`
	Origin      string   `json:"Origin"`
	Manager     string   `json:"KeyManager"`
	Spec        string   `json:"KeySpec"`
	MasterSpec  string   `json:"CustomerMasterKeySpec"`
	Algorithms  []string `json:"EncryptionAlgorithms"`
	MultiRegion bool     `json:"MultiRegion"`
}

const symmetric = "SYMMETRIC_DEFAULT"

func (s *account) metadata(k *kmsKey) any {
	state := "Enabled"
	switch {
	case k.deleting:
		state = "PendingDeletion"
	case !k.enabled:
		state = "Disabled"
	}
	return struct {
		Metadata keyMetadata `json:"KeyMetadata"`
	}{keyMetadata{
		Account: s.id, ID: k.id, ARN: k.arn, Created: k.created.Unix(), Enabled: k.enabled, Description: k.description,
		Usage: "ENCRYPT_DECRYPT", State: state, Origin: "AWS_KMS", Manager: "CUSTOMER", Spec: symmetric, MasterSpec: symmetric,
		Algorithms: []string{symmetric},
	}}
}

// createKey makes symmetric encryption keys, the only ones that log groups take.
type createKey struct {
	Bypass      *bool    `json:"BypassPolicyLockoutSafetyCheck"`
	Description *string  `json:"Description"`
	Spec        *string  `json:"KeySpec"`
	Usage       *string  `json:"KeyUsage"`
	MultiRegion *bool    `json:"MultiRegion"`
	Policy      *string  `json:"Policy"`
	Tags        []kmsTag `json:"Tags"`
}

func (r *createKey) about(*Call) {}

func (r *createKey) asks(*account) []permission {
	asked := []permission{{context: kmsTagKeys(r.Tags)}}
	if len(r.Tags) > 0 {
		// "To add tags while creating a KMS key, the principal must have permission in an IAM policy that isn't restricted to
		// particular KMS keys" (KMS Developer Guide).
		asked = append(asked, permission{action: "kms:TagResource", context: kmsTagKeys(r.Tags)})
	}
	return asked
}

func (r *createKey) do(s *account, caller identity) (any, *APIError) {
	switch {
	case r.Spec != nil && *r.Spec != symmetric, r.Usage != nil && *r.Usage != "ENCRYPT_DECRYPT", deref(r.MultiRegion):
		return nil, &APIError{Code: "UnsupportedOperationException", Message: "Only symmetric encryption keys of one region are made here."}
	case utf16Len(deref(r.Description)) > 8_192:
		return nil, kmsInvalid("The description is longer than 8192 characters.")
	}
	policy := `{"Version":"2012-10-17","Id":"key-default-1","Statement":[{"Sid":"Enable IAM User Permissions","Effect":"Allow","Principal":{"AWS":"` +
		s.globalARN("iam", "root") + `"},"Action":"kms:*","Resource":"*"}]}`
	if r.Policy != nil {
		policy = *r.Policy
	}
	tags, err := withKMSTags(nil, r.Tags)
	if err != nil {
		return nil, err
	}
	id := newRequestID()
	k := &kmsKey{
		id: id, arn: s.regionalARN("kms", "key/"+id), created: s.now(), description: deref(r.Description), policy: policy, enabled: true,
		tags: tags,
	}
	if err := s.checkKeyPolicy(policy, deref(r.Bypass), caller, k.arn, resourceTagKeys(tags)); err != nil {
		return nil, err
	}
	s.kms.mu.Lock()
	defer s.kms.mu.Unlock()
	s.kms.keys[id] = k
	return s.metadata(k), nil
}

type describeKey struct {
	Key         *string  `json:"KeyId"`
	GrantTokens []string `json:"GrantTokens"`
}

func (r *describeKey) about(c *Call) { c.Entity = deref(r.Key) }

func (r *describeKey) asks(s *account) []permission { return []permission{s.forKey(r.Key, true)} }

func (r *describeKey) do(s *account, _ identity) (out any, _ *APIError) {
	err := s.updateKey(r.Key, true, func(k *kmsKey) *APIError {
		out = s.metadata(k)
		return nil
	})
	return out, err
}

type putKeyPolicy struct {
	Key    *string `json:"KeyId"`
	Name   *string `json:"PolicyName"`
	Policy *string `json:"Policy"`
	Bypass *bool   `json:"BypassPolicyLockoutSafetyCheck"`
}

func (r *putKeyPolicy) about(c *Call) { c.Entity = deref(r.Key) }

func (r *putKeyPolicy) asks(s *account) []permission { return []permission{s.forKey(r.Key, false)} }

func (r *putKeyPolicy) do(s *account, caller identity) (any, *APIError) {
	if r.Name != nil && *r.Name != "default" {
		return nil, kmsInvalid("The only valid policy name is default.")
	}
	var arn string
	var context map[string][]string
	err := s.updateKey(r.Key, false, func(k *kmsKey) *APIError {
		arn, context = k.arn, s.keyContext(k)
		return nil
	})
	if err != nil {
		return nil, err
	}
	if err := s.checkKeyPolicy(deref(r.Policy), deref(r.Bypass), caller, arn, context); err != nil {
		return nil, err
	}
	return nil, s.updateKey(r.Key, false, func(k *kmsKey) *APIError {
		k.policy = *r.Policy
		return nil
	})
}

type getKeyPolicy struct {
	Key  *string `json:"KeyId"`
	Name *string `json:"PolicyName"`
}

func (r *getKeyPolicy) about(c *Call) { c.Entity = deref(r.Key) }

func (r *getKeyPolicy) asks(s *account) []permission { return []permission{s.forKey(r.Key, false)} }

func (r *getKeyPolicy) do(s *account, _ identity) (any, *APIError) {
	var out struct {
		Policy string `json:"Policy"`
		Name   string `json:"PolicyName"`
	}
	if r.Name != nil && *r.Name != "default" {
		return nil, &APIError{Code: "NotFoundException", Message: "No such policy exists"}
	}
	err := s.updateKey(r.Key, false, func(k *kmsKey) *APIError {
		out.Policy, out.Name = k.policy, "default"
		return nil
	})
	return out, err
}

var aliasName = regexp.MustCompile(`^alias/[a-zA-Z0-9/_-]{1,250}$`)

type createAlias struct {
	Alias *string `json:"AliasName"`
	Key   *string `json:"TargetKeyId"`
}

func (r *createAlias) about(c *Call) { c.Entity = deref(r.Key) }

// asks: "kms:CreateAlias on the alias (IAM policy) and on the KMS key (key policy)".
func (r *createAlias) asks(s *account) []permission {
	return []permission{{resource: s.regionalARN("kms", deref(r.Alias))}, s.forKey(r.Key, false)}
}

func (r *createAlias) do(s *account, _ identity) (any, *APIError) {
	if !aliasName.MatchString(deref(r.Alias)) || strings.HasPrefix(*r.Alias, "alias/aws/") {
		return nil, &APIError{Code: "InvalidAliasNameException", Message: "The alias name is not valid."}
	}
	return nil, s.updateKey(r.Key, false, func(k *kmsKey) *APIError {
		if _, taken := s.kms.aliases[*r.Alias]; taken {
			return &APIError{Code: "AlreadyExistsException", Message: "An alias with the name " + s.regionalARN("kms", *r.Alias) + " already exists"}
		}
		s.kms.aliases[*r.Alias] = k.id
		return nil
	})
}

// kmsPage is what a page of a listing says of the pages behind it.
type kmsPage struct {
	Truncated bool   `json:"Truncated"`
	Marker    string `json:"NextMarker,omitempty"`
}

func pageOfKMS(marker *string, limit *int64, most, usual int, keys []string, query ...any) ([]string, kmsPage, *APIError) {
	if limit != nil && (*limit < 1 || *limit > int64(most)) {
		return nil, kmsPage{}, kmsInvalid("1 validation error detected: Value at 'limit' failed to satisfy constraint: Member must have value less than or equal to %d", most)
	}
	p, size := paging{Marker: marker}, int64(usual)
	if limit != nil {
		size = *limit
	}
	p.MaxItems = &size
	keys, more, err := p.page(&constraints{}, keys, query...)
	if err != nil {
		return nil, kmsPage{}, &APIError{Code: "InvalidMarkerException", Message: "The marker is not valid."}
	}
	return keys, kmsPage(more), nil
}

type listAliases struct {
	Key    *string `json:"KeyId"`
	Limit  *int64  `json:"Limit"`
	Marker *string `json:"Marker"`
}

func (r *listAliases) about(c *Call) { c.Entity = deref(r.Key) }

func (r *listAliases) asks(*account) []permission { return []permission{{}} }

func (r *listAliases) do(s *account, _ identity) (any, *APIError) {
	s.kms.mu.RLock()
	defer s.kms.mu.RUnlock()
	wanted := ""
	if r.Key != nil {
		k, err := s.findKey(*r.Key, false)
		if err != nil {
			return nil, err
		}
		wanted = k.id
	}
	var keys []string
	for alias, id := range s.kms.aliases {
		if wanted == "" || id == wanted {
			keys = append(keys, alias)
		}
	}
	keys, more, err := pageOfKMS(r.Marker, r.Limit, 100, 50, keys, "ListAliases", r.Key)
	if err != nil {
		return nil, err
	}
	type entry struct {
		ARN  string `json:"AliasArn"`
		Name string `json:"AliasName"`
		Key  string `json:"TargetKeyId"`
	}
	out := struct {
		Aliases []entry `json:"Aliases"`
		kmsPage
	}{[]entry{}, more}
	for _, alias := range keys {
		out.Aliases = append(out.Aliases, entry{s.regionalARN("kms", alias), alias, s.kms.aliases[alias]})
	}
	return out, nil
}

type listKeys struct {
	Limit  *int64  `json:"Limit"`
	Marker *string `json:"Marker"`
}

func (r *listKeys) about(*Call) {}

func (r *listKeys) asks(*account) []permission { return []permission{{}} }

func (r *listKeys) do(s *account, _ identity) (any, *APIError) {
	s.kms.mu.RLock()
	defer s.kms.mu.RUnlock()
	ids, more, err := pageOfKMS(r.Marker, r.Limit, 1_000, 100, slices.Collect(maps.Keys(s.kms.keys)), "ListKeys")
	if err != nil {
		return nil, err
	}
	type entry struct {
		ARN string `json:"KeyArn"`
		ID  string `json:"KeyId"`
	}
	out := struct {
		Keys []entry `json:"Keys"`
		kmsPage
	}{[]entry{}, more}
	for _, id := range ids {
		out.Keys = append(out.Keys, entry{s.kms.keys[id].arn, id})
	}
	return out, nil
}

type enableKeyRotation struct {
	Key    *string `json:"KeyId"`
	Period *int64  `json:"RotationPeriodInDays"`
}

func (r *enableKeyRotation) about(c *Call) { c.Entity = deref(r.Key) }

func (r *enableKeyRotation) asks(s *account) []permission {
	return []permission{s.forKey(r.Key, false)}
}

func (r *enableKeyRotation) do(s *account, _ identity) (any, *APIError) {
	period := int64(365)
	if r.Period != nil {
		period = *r.Period
	}
	if period < 90 || period > 2_560 {
		return nil, kmsInvalid("1 validation error detected: Value at 'rotationPeriodInDays' failed to satisfy constraint: Member must have value between 90 and 2560")
	}
	return nil, s.updateKey(r.Key, false, func(k *kmsKey) *APIError {
		if err := usable(k); err != nil {
			return err
		}
		k.rotation, k.period = true, period
		return nil
	})
}

type disableKeyRotation struct {
	Key *string `json:"KeyId"`
}

func (r *disableKeyRotation) about(c *Call) { c.Entity = deref(r.Key) }

func (r *disableKeyRotation) asks(s *account) []permission {
	return []permission{s.forKey(r.Key, false)}
}

func (r *disableKeyRotation) do(s *account, _ identity) (any, *APIError) {
	return nil, s.updateKey(r.Key, false, func(k *kmsKey) *APIError {
		if err := usable(k); err != nil {
			return err
		}
		k.rotation, k.period = false, 0
		return nil
	})
}

// usable reports why a key can't be used.
func usable(k *kmsKey) *APIError {
	switch {
	case k.deleting:
		return &APIError{Code: "KMSInvalidStateException", Message: k.arn + " is pending deletion."}
	case !k.enabled:
		return &APIError{Code: "DisabledException", Message: k.arn + " is disabled."}
	}
	return nil
}

type getKeyRotationStatus struct {
	Key *string `json:"KeyId"`
}

func (r *getKeyRotationStatus) about(c *Call) { c.Entity = deref(r.Key) }

func (r *getKeyRotationStatus) asks(s *account) []permission {
	return []permission{s.forKey(r.Key, false)}
}

func (r *getKeyRotationStatus) do(s *account, _ identity) (any, *APIError) {
	var out struct {
		Key     string `json:"KeyId"`
		Enabled bool   `json:"KeyRotationEnabled"`
		Period  int64  `json:"RotationPeriodInDays,omitempty"`
	}
	err := s.updateKey(r.Key, false, func(k *kmsKey) *APIError {
		out.Key, out.Enabled, out.Period = k.id, k.rotation, k.period
		return nil
	})
	return out, err
}

type tagKey struct {
	Key  *string  `json:"KeyId"`
	Tags []kmsTag `json:"Tags"`
}

func (r *tagKey) about(c *Call) { c.Entity = deref(r.Key) }

func (r *tagKey) asks(s *account) []permission {
	p := s.forKey(r.Key, false)
	p.add(kmsTagKeys(r.Tags))
	return []permission{p}
}

func (r *tagKey) do(s *account, _ identity) (any, *APIError) {
	if r.Tags == nil {
		return nil, kmsInvalid("1 validation error detected: Value null at 'tags' failed to satisfy constraint: %s", memberNotNull)
	}
	return nil, s.updateKey(r.Key, false, func(k *kmsKey) *APIError {
		tags, err := withKMSTags(k.tags, r.Tags)
		if err == nil {
			k.tags = tags
		}
		return err
	})
}

type listResourceTags struct {
	Key    *string `json:"KeyId"`
	Limit  *int64  `json:"Limit"`
	Marker *string `json:"Marker"`
}

func (r *listResourceTags) about(c *Call) { c.Entity = deref(r.Key) }

func (r *listResourceTags) asks(s *account) []permission { return []permission{s.forKey(r.Key, false)} }

func (r *listResourceTags) do(s *account, _ identity) (any, *APIError) {
	out := struct {
		Tags []kmsTag `json:"Tags"`
		kmsPage
	}{Tags: []kmsTag{}}
	err := s.updateKey(r.Key, false, func(k *kmsKey) *APIError {
		keys, more, err := pageOfKMS(r.Marker, r.Limit, 50, 50, slices.Collect(maps.Keys(k.tags)), "ListResourceTags", k.id)
		for _, key := range keys {
			v := k.tags[key]
			out.Tags = append(out.Tags, kmsTag{&key, &v})
		}
		out.kmsPage = more
		return err
	})
	return out, err
}

// checkKeyPolicy checks the policy of a key of which context tells (keyContext). KMS refuses one "that doesn't allow the calling principal to
// make a subsequent PutKeyPolicy request" (CreateKey); how it finds out is unverified. Here the whole of that request is
// decided, the caller's own policies included where the key's leaves it to them, with the key's tags as aws:ResourceTag
// and its aliases: tags that CreateKey brings are taken for the key's.
func (s *account) checkKeyPolicy(policy string, bypass bool, caller identity, arn string, context map[string][]string) *APIError {
	if len(policy) > maxKeyPolicy {
		return &APIError{Code: "LimitExceededException", Message: fmt.Sprintf("The key policy is larger than %d bytes.", maxKeyPolicy)}
	}
	document, err := parseDocument(policy)
	if err != nil {
		return &APIError{Code: "MalformedPolicyDocumentException", Message: err.Message}
	}
	for _, st := range document.Statements {
		if st.Principal == nil && st.NotPrincipal == nil {
			return &APIError{Code: "MalformedPolicyDocumentException", Message: "A statement of the key policy has no principal."}
		}
	}
	again := permission{action: "kms:PutKeyPolicy", resource: arn, context: context, keyPolicy: &policy}
	if allowed, _ := s.permits(caller, again); s.cfg.Enforce && !bypass && !allowed {
		return &APIError{Code: "MalformedPolicyDocumentException", Message: "The new key policy will not allow you to update the key policy in the future."}
	}
	return nil
}
