package provision

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"

	"github.com/eks-tenant-logs/eks-tenant-logs/internal/loggroup"
)

const (
	tagState   = loggroup.TagState
	stateNew   = loggroup.StateNew
	stateReady = loggroup.StateReady
)

// group plans a tenant's own group, which c grants.
func (p *planner) group(tenant string, spec groupSpec, g *group, c claim) {
	tags := maps.Clone(spec.tags)
	maps.Copy(tags, recordTags(c.record))
	if g == nil {
		p.create(tenant, spec, tags)
		return
	}
	if c.shared {
		tags = nil // the other cluster's to keep
	}
	p.settings(tenant, spec, g, tags, g.tags[tagState] == stateNew)
}

// auxiliary plans a group that nobody is given access to: the platform's, and a tenant's
// quarantine group. Its tags are read only where something is to be done about it, so they
// may be unknown; finished says that whoever made it had finished.
func (p *planner) auxiliary(tenant string, spec groupSpec, g *group, finished bool) {
	if g == nil {
		p.create(tenant, spec, spec.tags)
		return
	}
	if g.source == tagsUnknown {
		// Something is to be done only if this finds something: then the tags are read, and
		// it is planned once more.
		p.settings(tenant, spec, g, nil, g.RetentionInDays == nil && !finished)
		return
	}
	cluster, owner := g.tags[loggroup.TagCluster], g.tags[loggroup.TagTenant]
	ours := cluster == p.in.Scope.Cluster || cluster == "" && (g.tags[tagState] != "" || p.in.Adopt)
	switch {
	case owner != tenant && owner != "", !ours && cluster == "":
		p.find(tenant, LayerGroup, spec.key.name, "log group %s has none of our tags, and is left as it is: if it is to be used, run `tenantlogs apply --adopt`", spec.key.name)
		return
	case !ours && !p.in.Shared && tenant != "":
		p.find(tenant, LayerGroup, spec.key.name, "log group %s is cluster %q's: give this cluster another quarantine_log_group_prefix, or say that the two share their tenants (--shared)", spec.key.name, cluster)
		return
	case !ours:
		// Clusters may well share the platform's groups: only what is too short is set right.
		p.settings(tenant, spec, g, nil, false)
		return
	}
	p.settings(tenant, spec, g, spec.tags, g.tags[tagState] == stateNew)
}

// create plans a group that is missing. It is in state new until it was read back: whoever
// finds it so finishes it.
func (p *planner) create(tenant string, spec groupSpec, tags map[string]string) {
	tags = maps.Clone(tags)
	tags[tagState] = stateNew
	a := Action{Tenant: tenant, Layer: LayerGroup, Target: spec.key.name, spec: &spec, account: spec.key.account, tags: tags}
	a.Kind, a.Now, a.Will, a.Reason = CreateGroup, "missing", describe(spec), "the group is missing"
	p.act(a)
	p.retention(tenant, spec, nil, "a new group keeps its events for ever", false)
	p.confirm(tenant, spec, map[string]string{tagState: stateReady}, "only what was read back counts")
}

func describe(spec groupSpec) string {
	parts := []string{strings.ToLower(spec.class)}
	switch {
	case spec.ownKey:
		parts = append(parts, "a key of its own")
	case spec.kmsKey != "":
		parts = append(parts, "key "+spec.kmsKey)
	}
	if spec.protected {
		parts = append(parts, "deletion protection")
	}
	if spec.key.account.ARN != "" {
		parts = append(parts, "in the account of "+spec.key.account.ARN)
	}
	return strings.Join(parts, ", ")
}

func (p *planner) retention(tenant string, spec groupSpec, g *group, reason string, repair bool) {
	now := "for ever"
	if g != nil {
		now = daysText(g.days())
	}
	p.act(Action{
		Tenant: tenant, Layer: LayerGroup, Kind: SetRetention, Target: spec.key.name, Now: now, Will: daysText(spec.days),
		Reason: reason, Repair: repair, spec: &spec, account: spec.key.account,
	})
}

func (p *planner) confirm(tenant string, spec groupSpec, tags map[string]string, reason string) {
	a := Action{
		Tenant: tenant, Layer: LayerGroup, Kind: ConfirmGroup, Target: spec.key.name, Now: "not read back", Will: "read back",
		Reason: reason, spec: &spec, account: spec.key.account, tags: tags,
	}
	if tags != nil {
		a.Will = "read back, tagged " + tagText(tags)
	}
	p.act(a)
}

// settings compares a group that is there. tags are those it should have; nil leaves them.
// A group that is not finished is made so, and marked.
//
//	setting              | differs                  | plan
//	---------------------+--------------------------+-----------------------------------
//	retention            | too short                | set, read back
//	                     | too short by an account-level policy | finding; own days are set once
//	                     | for ever, and finished   | finding
//	                     | longer                   | nothing
//	KMS key              | another, or none         | associated: new events use it
//	                     | one, and none is wanted  | nothing
//	class                | another, or not told     | not ready: it can't be changed
//	deletion protection  | off, or not told, and wanted | switched on
//	bearer tokens        | on                       | switched off
//	ownership tags       | missing or others        | tagged
//
// What is switched is read back.
func (p *planner) settings(tenant string, spec groupSpec, g *group, tags map[string]string, unfinished bool) {
	name := spec.key.name
	finished := !unfinished && g.tags[tagState] == stateReady
	begin := Action{Tenant: tenant, Layer: LayerGroup, Target: name, spec: &spec, account: spec.key.account, Repair: finished}
	readBack := "" // why; empty for no need
	act := func(kind Kind, now, will, reason string) {
		readBack = "only what was read back counts"
		a := begin
		a.Kind, a.Now, a.Will, a.Reason = kind, now, will, reason
		p.act(a)
	}
	if err := unlikeClass(g, spec); err != nil {
		p.find(tenant, LayerGroup, name, "log group %s %v", name, err)
		p.unmet = append(p.unmet, fmt.Errorf("log group %s %w", name, err))
	}
	if have := aws.ToString(g.KmsKeyId); spec.kmsKey != "" && have != spec.kmsKey || spec.ownKey && have == "" {
		now := strings.TrimPrefix(keyText(have), "key ")
		will := "key " + spec.kmsKey
		if spec.ownKey {
			will = "a key of its own"
		}
		act(AssociateKey, now, will, "events that come in from now on are to be encrypted with it; what is there keeps its key")
	}
	if spec.protected && !aws.ToBool(g.DeletionProtectionEnabled) {
		act(ProtectGroup, "off", "on", "deletion protection is configured")
	}
	if aws.ToBool(g.BearerTokenAuthenticationEnabled) {
		act(CloseBearer, "on", "off", "bearer tokens open the group to API keys that no role's policy is asked about")
	}
	policy := aws.ToString(g.RetentionPolicyName)
	switch verdict := loggroup.Decide(g.LogGroup, spec.days, unfinished); {
	case policy != "" && !loggroup.Enough(g.LogGroup, spec.days):
		p.find(tenant, LayerGroup, name, "log group %s keeps its events %s instead of %s: the account-level retention policy %q wins over it; change the policy", name, daysText(g.days()), daysText(spec.days), policy)
		if unfinished {
			readBack = "an account-level policy may win over it"
			p.retention(tenant, spec, g, "an account-level policy wins for now; the group has days of its own under it", false)
		}
	case verdict == loggroup.Raise:
		readBack = "an account-level policy may win over it"
		why := fmt.Sprintf("%s are the least", daysText(spec.days))
		if unfinished {
			why = "whoever made the group did not get as far"
		}
		p.retention(tenant, spec, g, why, finished && g.days() != 0)
	case verdict == loggroup.Report:
		p.find(tenant, LayerGroup, name, "log group %s keeps its events for ever; %s are configured; a longer retention is never shortened", name, daysText(spec.days))
	}
	if tags == nil {
		if readBack != "" {
			p.confirm(tenant, spec, nil, readBack)
		}
		return
	}
	missing := map[string]string{}
	var differ []string
	for _, key := range slices.Sorted(maps.Keys(tags)) {
		have, there := g.tags[key]
		if there && have == tags[key] || g.source == tagsCopied && !strings.HasPrefix(key, ownTags) {
			continue // only our own tags are copied to the reader role
		}
		missing[key] = tags[key]
		if there {
			differ = append(differ, key+"="+have)
		}
	}
	state := g.tags[tagState]
	now := "not there"
	if len(differ) > 0 {
		now = strings.Join(differ, " ")
	}
	switch {
	case state != stateReady:
		missing[tagState] = stateReady
		reason := "it is ours from now on"
		if unfinished {
			reason = "whoever made the group did not get as far"
		}
		p.confirm(tenant, spec, missing, reason)
	case len(missing) > 0:
		a := begin
		a.Kind, a.Now, a.Will, a.Reason, a.tags, a.Repair = TagGroup, now, tagText(missing), "the group's tags say whose it is", missing, len(differ) > 0 && !growth(differ)
		p.act(a)
		if readBack != "" {
			p.confirm(tenant, spec, nil, readBack)
		}
	case readBack != "":
		p.confirm(tenant, spec, nil, readBack)
	}
}

// unlikeClass says that a group has another class than it should, or that AWS does not tell its class.
func unlikeClass(g *group, spec groupSpec) error {
	switch class := string(g.LogGroupClass); class {
	case spec.class:
		return nil
	case "":
		return fmt.Errorf("is not known to have class %s: AWS does not tell its class", spec.class)
	default:
		return fmt.Errorf("has class %s instead of %s; a class can't be changed", class, spec.class)
	}
}

// unlike says what a group that was read back has not of what was asked for; nil for nothing. Retention
// is apart: an account-level policy may win over it. key is the ARN of the tenant's own key.
func unlike(g *group, spec groupSpec, key string) error {
	var missing []error
	if err := unlikeClass(g, spec); err != nil {
		missing = append(missing, fmt.Errorf("it %w", err))
	}
	have := aws.ToString(g.KmsKeyId)
	switch {
	case key != "" && have != key:
		missing = append(missing, fmt.Errorf("it is encrypted with %s instead of key %s", keyText(have), key))
	case spec.ownKey && have == "":
		missing = append(missing, errors.New("it is not encrypted with a key of its own"))
	}
	if spec.protected && !aws.ToBool(g.DeletionProtectionEnabled) {
		missing = append(missing, errors.New("it has no deletion protection"))
	}
	if aws.ToBool(g.BearerTokenAuthenticationEnabled) {
		missing = append(missing, errors.New("it is still open to bearer tokens"))
	}
	return errors.Join(missing...)
}

func keyText(arn string) string {
	if arn == "" {
		return "CloudWatch's own key"
	}
	return "key " + arn
}

// growth: the only tags that differ are those that record who has the tenant, which change
// when a namespace joins.
func growth(differ []string) bool {
	return !slices.ContainsFunc(differ, func(d string) bool { return !strings.HasPrefix(d, loggroup.TagNamespace) })
}

func daysText(days int) string {
	if days == 0 {
		return "for ever"
	}
	return fmt.Sprintf("%d days", days)
}

// tagText is tags for people, without the project's prefix.
func tagText(tags map[string]string) string {
	var parts []string
	for _, k := range slices.Sorted(maps.Keys(tags)) {
		parts = append(parts, strings.TrimPrefix(k, ownTags)+"="+tags[k])
	}
	return strings.Join(parts, " ")
}
