package provision

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/cloudwatchlogs"
	"github.com/aws/aws-sdk-go-v2/service/cloudwatchlogs/types"

	"github.com/eks-tenant-logs/eks-tenant-logs/internal/awsclient"
	"github.com/eks-tenant-logs/eks-tenant-logs/internal/loggroup"
	"github.com/eks-tenant-logs/eks-tenant-logs/internal/tenancy"
)

// Entry is one tenant there is, whoever asked for it.
type Entry struct {
	Tenant     string   `json:"tenant" yaml:"tenant"`
	Namespaces []string `json:"namespaces" yaml:"namespaces"`
	Group      string   `json:"group" yaml:"group"`
	// RetentionDays is effective; 0: for ever.
	RetentionDays int `json:"retentionDays" yaml:"retentionDays"`
	// Role is the reader role's name; empty where there is none of ours.
	Role string `json:"role,omitempty" yaml:"role,omitempty"`
	// LastEvent is the time of the group's newest event as CloudWatch Logs knows it, which
	// may be an hour behind; nil where there is none, or was not asked.
	LastEvent *time.Time `json:"lastEvent,omitempty" yaml:"lastEvent,omitempty"`
	// State is that of the group's tags: new, ready, retired; "foreign" for a group under
	// the tenants' prefix that is not this cluster's.
	State string `json:"state" yaml:"state"`
}

// Foreign is the state of a group under the tenants' prefix that is not this cluster's.
const Foreign = "foreign"

// Inventory lists the tenants there are in the platform's account, by name: from the log
// groups under the tenants' prefix and the account's roles. lastEvent costs a call for each.
func (p *Provisioner) Inventory(ctx context.Context, lastEvent bool) ([]Entry, error) {
	o := &Observed{groups: map[groupKey]*group{}, roles: map[string]*role{}}
	prefix := p.in.Scope.Names.TenantPrefix
	if err := p.describePrefix(ctx, prefix, o); err != nil {
		return nil, err
	}
	if p.in.roles() && len(o.groups) > 0 {
		if err := p.allRoles(ctx, func(r *role) {
			if r.path == p.in.Scope.RolePath {
				o.roles[roleKey(r.name)] = r
			}
		}); err != nil {
			return nil, err
		}
	}
	entries := []Entry{}
	done := 0
	for k, g := range o.groups {
		done++
		p.progress(Progress{Step: "tenants", Done: done, Of: len(o.groups)})
		tenant := strings.TrimPrefix(k.name, prefix)
		if !tenancy.Label(tenant) {
			continue
		}
		e := Entry{Tenant: tenant, Namespaces: []string{}, Group: k.name, RetentionDays: g.days()}
		r := o.roles[roleKey(tenancy.ReaderRole(p.in.Scope.Cluster, p.in.Scope.Region, tenant))]
		if r != nil && r.ours(p.in, tenant) {
			e.Role = r.name
			if tags, ok := r.groupTags(g); ok && !p.recall(g) {
				g.tags, g.source = tags, tagsCopied
			}
		}
		if g.source == tagsUnknown && !p.recall(g) {
			if err := p.readTags(ctx, k, g); err != nil {
				return nil, err
			}
		}
		e.State = g.tags[tagState]
		if g.tags[loggroup.TagTenant] != tenant || g.tags[loggroup.TagCluster] != p.in.Scope.Cluster && g.tags[loggroup.TagCluster] != "" {
			e.State = Foreign
		} else if has, err := recorded(g.tags); err == nil {
			for _, ns := range has {
				e.Namespaces = append(e.Namespaces, ns.Name)
			}
		}
		if lastEvent {
			at, err := p.lastEvent(ctx, k.name)
			if err != nil {
				return nil, err
			}
			e.LastEvent = at
		}
		entries = append(entries, e)
	}
	slices.SortFunc(entries, func(a, b Entry) int { return strings.Compare(a.Tenant, b.Tenant) })
	return entries, nil
}

func (p *Provisioner) lastEvent(ctx context.Context, name string) (*time.Time, error) {
	if err := p.rates.wait(ctx, awsclient.Role{}, "DescribeLogStreams"); err != nil {
		return nil, err
	}
	out, err := p.cloud.Logs.DescribeLogStreams(ctx, &cloudwatchlogs.DescribeLogStreamsInput{
		LogGroupName: &name, OrderBy: types.OrderByLastEventTime, Descending: aws.Bool(true), Limit: aws.Int32(1),
	})
	if err != nil {
		return nil, fmt.Errorf("failed to ask for the newest event of log group %s: %w", name, err)
	}
	for _, s := range out.LogStreams {
		if s.LastEventTimestamp != nil {
			at := time.UnixMilli(*s.LastEventTimestamp).UTC()
			return &at, nil
		}
	}
	return nil, nil
}
