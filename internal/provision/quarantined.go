package provision

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/cloudwatchlogs"

	"github.com/eks-tenant-logs/eks-tenant-logs/internal/awsclient"
	"github.com/eks-tenant-logs/eks-tenant-logs/internal/tenancy"
)

// Quarantined is a quarantine group in which something waits for a replay.
type Quarantined struct {
	// Tenant is its name; "_pending" for namespaces that the registry does not know.
	Tenant string
	// Since is when the oldest of it came in, at the earliest. Only the times of streams are
	// known here, for nobody who sets up tenants may read what they log: of a stream that
	// takes something again after a replay, it is when that replay began.
	Since time.Time
}

// maxQuarantinePages bounds how many streams of a group are looked at: 50 a page.
const maxQuarantinePages = 40

// noteQuarantine keeps what a run has seen of quarantine groups.
func (p *Provisioner) noteQuarantine(o *Observed) {
	for k, g := range o.groups {
		if _, ok := p.in.Scope.Names.Quarantined(k.name); ok && k.account == (awsclient.Role{}) {
			p.quarantine[k.name] = g
		}
	}
}

// Quarantined implements Engine. It costs DescribeLogStreams calls for the groups that hold
// something by DescribeLogGroups, and none where quarantine is empty.
func (p *Provisioner) Quarantined(ctx context.Context) ([]Quarantined, error) {
	var all []Quarantined
	for _, name := range slices.Sorted(maps.Keys(p.quarantine)) {
		g := p.quarantine[name]
		if aws.ToInt64(g.StoredBytes) == 0 {
			continue
		}
		since, err := p.waitingSince(ctx, name, g.days())
		if err != nil {
			return nil, err
		}
		if !since.IsZero() {
			tenant, _ := p.in.Scope.Names.Quarantined(name)
			all = append(all, Quarantined{cmp.Or(tenant, tenancy.PendingName), since})
		}
	}
	return all, nil
}

// waitingSince is when the oldest of a quarantine group came in that came in after the last
// replay began; zero where nothing did, or what did has expired after days.
func (p *Provisioner) waitingSince(ctx context.Context, group string, days int) (time.Time, error) {
	var replayed int64                // when the last replay began, in milliseconds since 1970
	var streams [][2]int64            // created, last ingested
	kept := p.clock.Now().UnixMilli() // what came in before has expired
	if kept -= int64(days) * 24 * time.Hour.Milliseconds(); days == 0 {
		kept = 0
	}
	in := &cloudwatchlogs.DescribeLogStreamsInput{LogGroupName: &group, Limit: aws.Int32(50)}
	for range maxQuarantinePages {
		if err := p.rates.wait(ctx, awsclient.Role{}, "DescribeLogStreams"); err != nil {
			return time.Time{}, err
		}
		out, err := p.cloud.Logs.DescribeLogStreams(ctx, in)
		if err != nil {
			return time.Time{}, fmt.Errorf("failed to look at the streams of log group %s: %w", group, err)
		}
		for _, s := range out.LogStreams {
			created, ingested := aws.ToInt64(s.CreationTime), aws.ToInt64(s.LastIngestionTime)
			switch {
			case strings.HasPrefix(aws.ToString(s.LogStreamName), tenancy.ReplayStreamPrefix):
				replayed = max(replayed, created)
			case ingested > kept:
				streams = append(streams, [2]int64{max(created, kept), ingested})
			}
		}
		if aws.ToString(out.NextToken) == "" {
			break
		}
		in = &cloudwatchlogs.DescribeLogStreamsInput{LogGroupName: &group, Limit: in.Limit, NextToken: out.NextToken}
	}
	var oldest int64
	for _, s := range streams {
		if since := max(s[0], replayed); s[1] > replayed && (oldest == 0 || since < oldest) {
			oldest = since
		}
	}
	if oldest == 0 {
		return time.Time{}, nil
	}
	return time.UnixMilli(oldest), nil
}
