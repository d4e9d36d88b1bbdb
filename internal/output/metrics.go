package output

import (
	"time"

	"github.com/eks-tenant-logs/eks-tenant-logs/internal/awsclient"
	"github.com/eks-tenant-logs/eks-tenant-logs/internal/chunk"
	"github.com/eks-tenant-logs/eks-tenant-logs/internal/delivery"
	"github.com/eks-tenant-logs/eks-tenant-logs/internal/telemetry"
	"github.com/eks-tenant-logs/eks-tenant-logs/internal/tenancy"
)

func (i *Instance) snapshot() telemetry.Snapshot {
	load := i.queue.Load()
	skew, told := i.clock.Told()
	free, size := i.room()
	return telemetry.Snapshot{
		ClockSkew: skew, ClockTold: told, StorageFree: free, StorageSize: size,
		RefusedChunks: i.refusedLeft(), RefusedKnown: i.opts.StoragePath != "",
		InFlight: load.InFlight, Oldest: load.Oldest, LedgerChunks: load.LedgerChunks,
		LedgerEvictions: i.queue.Stats().Evicted, RetentionOpen: i.accounts.open(), HeldChunks: i.held.len(),
	}
}

// arrived notes that Fluent Bit brought a chunk of a route, whatever comes of it. What is in
// quarantine from the start has no group to arrive in.
func (i *Instance) arrived(r *route) {
	if r.kind != tenancy.KindPending {
		i.metrics.Arrived(r.tenant)
	}
}

// observe counts one PutLogEvents call.
func (i *Instance) observe(p delivery.Put) {
	i.compareClocks()
	tenant, own := i.view.Load().router.TenantOf(p.Target.Group)
	// What quarantine takes is no success of the platform's group.
	arrived := p.Class == awsclient.ClassNone && (own || p.Target.Group == i.opts.PlatformLogGroup)
	if p.Unanswered {
		i.metrics.Unanswered(tenant, p.Events)
	}
	i.metrics.Put(tenant, p.Class.String(), arrived, p.Took, float64(p.Bytes)/delivery.MaxBatchBytes, p.Wire)
}

// clockWarning is the difference between the clocks of this node and of AWS from which on a line is logged.
// chronyd keeps a node within milliseconds; at 5 minutes AWS refuses signatures.
const clockWarning = time.Minute

// compareClocks tells once an hour while this node's clock differs from AWS's.
func (i *Instance) compareClocks() {
	skew := i.clock.Skew()
	if skew.Abs() < clockWarning {
		return
	}
	if _, ok := i.hourly.Allow("clock"); !ok {
		return
	}
	now := i.env.Now().UTC()
	i.env.Log.Warn("this node's clock differs from AWS's: synchronise it, with chronyd and the Amazon Time Sync Service (169.254.169.123); meanwhile requests are signed with AWS's time, and records whose time CloudWatch refuses are delivered with AWS's present time",
		"node_time", now.Format(time.RFC3339), "aws_time", now.Add(-skew).Format(time.RFC3339), "ahead_seconds", int64(skew.Seconds()))
}

// discarded counts events that CloudWatch rejected for their time.
func (i *Instance) discarded(t delivery.Target, events int) {
	tenant, _ := i.view.Load().router.TenantOf(t.Group)
	i.metrics.Discarded(tenant, events)
}

// guarded reports whether a group is a tenant's own: for the platform's and for
// quarantine there is nothing else to do with events.
func (i *Instance) guarded(t delivery.Target) bool {
	_, ok := i.view.Load().router.TenantOf(t.Group)
	return ok
}

// tripped notes that a group stopped taking events, or takes them again.
func (i *Instance) tripped(t delivery.Target, open bool) {
	tenant, _ := i.view.Load().router.TenantOf(t.Group)
	i.metrics.Breaker(tenant, open)
}

// stalled notes that a group takes nothing while others do, or takes events again.
func (i *Instance) stalled(t delivery.Target, is bool) {
	tenant, _ := i.view.Load().router.TenantOf(t.Group)
	i.metrics.Stalled(tenant, is)
}

// count counts the records of a chunk that was delivered: once, because a chunk that is
// sent again has not been delivered before.
func (i *Instance) count(dests []dest, ev *chunk.Events) {
	if i.metrics == nil {
		return
	}
	type sum struct{ records, bytes int }
	sums := make([]sum, len(dests))
	last := -1
	for n := range ev.List {
		e := &ev.List[n]
		if e.Dropped {
			continue
		}
		if e.Record != last {
			sums[e.Dest].records++
			last = e.Record
		}
		sums[e.Dest].bytes += e.To - e.From
	}
	whole := telemetry.ManyTenants // what is known of the chunk as a whole
	for n, d := range dests {
		i.metrics.Records(d.tenant, d.outcome, sums[n].records, sums[n].bytes)
		if len(dests) == 1 {
			whole = d.tenant
		}
	}
	s := &ev.Stats
	i.metrics.Records(whole, telemetry.Malformed, s.Malformed, s.LostBytes)
	i.metrics.Records(whole, telemetry.Dropped, s.Dropped, s.DroppedBytes)
	i.metrics.Change(whole, "restamped", s.Restamped)
	i.metrics.Change(whole, "split", s.Split)
	i.metrics.Change(whole, "mismatch", s.Claimed)
	i.metrics.Change(whole, "reserved_name", s.Reserved)
	i.metrics.Change(whole, "emf", s.EMF)
	i.metrics.Change(whole, "normalised", s.Normalised)
	i.metrics.Change(whole, "enveloped", s.Enveloped)
	i.metrics.Change(whole, "no_log_key", s.NoLogKey)
	i.metrics.Change(whole, "joined", s.Joined)
	i.metrics.Change(whole, "partial", s.Partial)
	i.metrics.Change(whole, "not_cri", s.NotCRI)
}

// WithoutWorkers notes that no workers are configured.
func (i *Instance) WithoutWorkers() { i.metrics.WithoutWorkers() }
