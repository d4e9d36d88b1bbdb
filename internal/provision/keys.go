package provision

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/kms"
	kmstypes "github.com/aws/aws-sdk-go-v2/service/kms/types"

	"github.com/eks-tenant-logs/eks-tenant-logs/internal/awsclient"
	"github.com/eks-tenant-logs/eks-tenant-logs/internal/loggroup"
)

// aliasPrefix begins the aliases of tenants' keys; a cluster's name and a tenant's follow.
const aliasPrefix = "alias/eks-tenant-logs/"

// alias is the name of a tenant's key.
func (p *Provisioner) alias(tenant string) string { return p.in.alias(tenant) }

func (in Installation) alias(tenant string) string {
	return aliasPrefix + in.Scope.Cluster + "/" + tenant
}

func (in Installation) keyARN(id string) string {
	return "arn:" + in.Scope.Partition + ":kms:" + in.Scope.Region + ":" + in.Scope.Account + ":key/" + id
}

// rememberedKey is what was read of a key; it is read anew about once a day.
type rememberedKey struct {
	policy   string
	rotation bool
	until    time.Time
}

// observeKeys finds the tenants' keys: by their aliases, and those that a crash left
// without one by their tags, for KMS would make a second one.
func (p *Provisioner) observeKeys(ctx context.Context, tenants []Tenant, o *Observed) error {
	if !p.in.KeyPerTenant || len(tenants) == 0 {
		return nil
	}
	byAlias := map[string]string{}
	aliased := map[string]bool{}
	in := &kms.ListAliasesInput{Limit: aws.Int32(100)}
	for {
		if err := p.rates.wait(ctx, awsclient.Role{}, "ListAliases"); err != nil {
			return err
		}
		out, err := p.cloud.KMS.ListAliases(ctx, in)
		if err != nil {
			return fmt.Errorf("failed to list the aliases of keys: %w", err)
		}
		for _, a := range out.Aliases {
			if id := aws.ToString(a.TargetKeyId); id != "" {
				byAlias[aws.ToString(a.AliasName)] = id
				aliased[id] = true
			}
		}
		if !out.Truncated {
			break
		}
		in = &kms.ListAliasesInput{Limit: in.Limit, Marker: out.NextMarker}
	}
	missing := map[string]bool{}
	for _, t := range tenants {
		if !p.in.groupOf(t).ownKey {
			continue
		}
		if id, ok := byAlias[p.alias(t.Name)]; ok {
			o.keys[t.Name] = &key{id: id, arn: p.in.keyARN(id), aliased: true}
		} else {
			missing[t.Name] = true
		}
	}
	if len(missing) > 0 {
		if err := p.orphans(ctx, aliased, missing, o); err != nil {
			return err
		}
	}
	for tenant, k := range o.keys {
		if err := p.readKey(ctx, k); err != nil {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			o.failed[tenant] = err
		}
	}
	return nil
}

// orphans looks for keys of missing tenants among those no alias names.
func (p *Provisioner) orphans(ctx context.Context, aliased, missing map[string]bool, o *Observed) error {
	in := &kms.ListKeysInput{Limit: aws.Int32(1000)}
	for {
		if err := p.rates.wait(ctx, awsclient.Role{}, "ListKeys"); err != nil {
			return err
		}
		out, err := p.cloud.KMS.ListKeys(ctx, in)
		if err != nil {
			return fmt.Errorf("failed to list the keys: %w", err)
		}
		for _, k := range out.Keys {
			id := aws.ToString(k.KeyId)
			if aliased[id] {
				continue
			}
			if err := p.rates.wait(ctx, awsclient.Role{}, "ListResourceTags"); err != nil {
				return err
			}
			tags, err := p.cloud.KMS.ListResourceTags(ctx, &kms.ListResourceTagsInput{KeyId: &id})
			if err != nil {
				continue // a key that this role may not even look at is none it made
			}
			has := map[string]string{}
			for _, t := range tags.Tags {
				has[aws.ToString(t.TagKey)] = aws.ToString(t.TagValue)
			}
			if tenant := has[loggroup.TagTenant]; missing[tenant] && has[loggroup.TagCluster] == p.in.Scope.Cluster && o.keys[tenant] == nil {
				o.keys[tenant] = &key{id: id, arn: p.in.keyARN(id)}
			}
		}
		if !out.Truncated {
			return nil
		}
		in = &kms.ListKeysInput{Limit: in.Limit, Marker: out.NextMarker}
	}
}

func (p *Provisioner) readKey(ctx context.Context, k *key) error {
	p.memory.mu.Lock()
	m, ok := p.memory.keys[k.id]
	p.memory.mu.Unlock()
	if ok && p.clock.Now().Before(m.until) {
		k.policy, k.rotation = m.policy, m.rotation
		return nil
	}
	if err := p.rates.wait(ctx, awsclient.Role{}, "GetKeyPolicy"); err != nil {
		return err
	}
	policy, err := p.cloud.KMS.GetKeyPolicy(ctx, &kms.GetKeyPolicyInput{KeyId: &k.id, PolicyName: aws.String("default")})
	if err != nil {
		return fmt.Errorf("failed to read the policy of key %s: %w", k.id, err)
	}
	if err := p.rates.wait(ctx, awsclient.Role{}, "GetKeyRotationStatus"); err != nil {
		return err
	}
	rotation, err := p.cloud.KMS.GetKeyRotationStatus(ctx, &kms.GetKeyRotationStatusInput{KeyId: &k.id})
	if err != nil {
		return fmt.Errorf("failed to read whether key %s rotates: %w", k.id, err)
	}
	k.policy, k.rotation = aws.ToString(policy.Policy), rotation.KeyRotationEnabled
	p.memory.mu.Lock()
	p.memory.keys[k.id] = rememberedKey{k.policy, k.rotation, p.forgetAt()}
	p.memory.mu.Unlock()
	return nil
}

// key plans a tenant's key, and completes the group's spec with its ARN.
//
//	key     | plan
//	--------+---------------------------------------------
//	missing | create with policy and tags, alias, rotation
//	made, without its alias | alias, rotation
//	policy of another meaning | set, as a repair
//	does not rotate | rotation
func (p *planner) key(tenant string, spec *groupSpec) {
	if !spec.ownKey {
		return
	}
	k := p.o.keys[tenant]
	alias := p.in.alias(tenant)
	policy := p.in.Scope.KMS(tenant)
	act := func(kind Kind, now, will, reason string, repair bool) {
		name := ""
		if k != nil {
			name = k.id
		}
		p.act(Action{
			Tenant: tenant, Layer: LayerKey, Kind: kind, Target: alias, Now: now, Will: will, Reason: reason, Repair: repair,
			document: policy, name: name, tags: p.in.tags(tenant),
		})
	}
	if k != nil {
		spec.kmsKey, spec.ownKey = k.arn, false
	} else {
		act(CreateKey, "missing", "a key for the tenant's log group alone", "each tenant has a key of its own", false)
	}
	if k == nil || !k.aliased {
		act(AliasKey, "missing", alias, "the key is found by its alias", false)
	}
	if k != nil && !same(k.policy, policy) {
		act(SetKeyPolicy, brief(k.policy), "CloudWatch Logs may use it for the tenant's group alone", "the key's policy is another", k.aliased)
		if k.aliased {
			p.find(tenant, LayerKey, alias, "the policy of key %s was changed: %s", k.id, brief(k.policy))
		}
	}
	if k == nil || !k.rotation {
		act(RotateKey, "off", "on", "keys rotate", k != nil && k.aliased && same(k.policy, policy))
	}
}

// kms does an action on a key.
func (t *tenantRun) kms(ctx context.Context, a Action) error {
	id := a.name
	if id == "" {
		_, id, _ = strings.Cut(t.keyARN, ":key/")
	}
	if id == "" && a.Kind != CreateKey {
		return errors.New("the key is not known yet")
	}
	text, err := json.Marshal(a.document)
	if err != nil {
		return err
	}
	policy := string(text)
	write := func(operation string, f func() error) error { return t.write(ctx, awsclient.Role{}, operation, f) }
	switch a.Kind {
	case CreateKey:
		var tags []kmstypes.Tag
		for _, tag := range iamTags(a.tags) {
			tags = append(tags, kmstypes.Tag{TagKey: tag.Key, TagValue: tag.Value})
		}
		return write("CreateKey", func() error {
			out, err := t.p.cloud.KMS.CreateKey(ctx, &kms.CreateKeyInput{
				Policy: &policy, Tags: tags, Description: aws.String(fmt.Sprintf("Logs of tenant %s of EKS cluster %s; kept by eks-tenant-logs", t.tenant, t.p.in.Scope.Cluster)),
			}, func(o *kms.Options) { o.RetryMaxAttempts = 1 }) // a call whose answer was lost is not repeated: it would make another key
			if err == nil && out.KeyMetadata != nil {
				t.keyARN = aws.ToString(out.KeyMetadata.Arn)
				t.made[a.Target] = a.tags
			}
			return err
		})
	case AliasKey:
		err := write("CreateAlias", func() error {
			_, err := t.p.cloud.KMS.CreateAlias(ctx, &kms.CreateAliasInput{AliasName: aws.String(a.Target), TargetKeyId: &id})
			return err
		})
		if awsclient.Classify(err) == awsclient.ClassExists {
			return errAgain
		}
		return err
	case SetKeyPolicy:
		t.p.forgetKey(id)
		return write("PutKeyPolicy", func() error {
			_, err := t.p.cloud.KMS.PutKeyPolicy(ctx, &kms.PutKeyPolicyInput{KeyId: &id, Policy: &policy, PolicyName: aws.String("default")})
			return err
		})
	}
	t.p.forgetKey(id)
	return write("EnableKeyRotation", func() error {
		_, err := t.p.cloud.KMS.EnableKeyRotation(ctx, &kms.EnableKeyRotationInput{KeyId: &id})
		return err
	})
}

func (p *Provisioner) forgetKey(id string) {
	p.memory.mu.Lock()
	defer p.memory.mu.Unlock()
	delete(p.memory.keys, id)
}
