package output

import (
	"log/slog"

	"github.com/eks-tenant-logs/eks-tenant-logs/internal/chunk"
	"github.com/eks-tenant-logs/eks-tenant-logs/internal/telemetry"
	"github.com/eks-tenant-logs/eks-tenant-logs/internal/tenancy"
)

// Lines about what names no pod: one a minute and reason, the rest at exit.
const (
	unroutedChunks = "tags name no pod; their chunks are delivered to the platform group's stream unrouted, and no tenant sees them"
	unroutedRecord = "records name no pod; delivered to the platform group's stream unrouted, and no tenant sees them"
	recordRemedy   = "make the senders' kubernetes filter add its map to every record, and no filter remove it"
	noLogKey       = "no record of the chunk has the field that log_key names; delivered whole, as JSON"
)

// tagRemedy is what mends tags that name no pod for this reason.
func tagRemedy(reason tenancy.Reason) string {
	switch reason {
	case tenancy.BadPrefix:
		return "give tail Tag kube.* and no Tag_Regex, or set tag_prefix to what its tags begin with, up to pods. or containers."
	case tenancy.CutName:
		return "read /var/log/pods instead of /var/log/containers"
	}
	return "give tail Tag kube.* and no Tag_Regex: behind tag_prefix a tag must be the name of a container's log file as the kubelet makes it"
}

// tellUnrouted tells of a delivered chunk that names no pod, or of its records that do not, and of one in which log_key
// finds nothing: each is most often a mistake in the configuration, which else shows only in a metric.
func (i *Instance) tellUnrouted(tag string, by *route, dests []dest, ev *chunk.Events) {
	if i.opts.LogKey != "" && ev.Stats.Records > 0 && ev.Stats.NoLogKey == ev.Stats.Records {
		i.limited(slog.LevelWarn, "no log_key", noLogKey, "log_key", i.opts.LogKey, "records", ev.Stats.Records, "tag", shortTag(tag))
	}
	if by != nil {
		if by.unrouted != tenancy.None {
			i.counted(unroutedChunks, by.unrouted.String(), "chunks", 1, "tag", shortTag(tag), "reason", by.unrouted.Explain(), "remedy", tagRemedy(by.unrouted))
		}
		return
	}
	for n := range dests {
		if dests[n].outcome != telemetry.Unrouted {
			continue
		}
		if records := recordsTo(n, ev); records > 0 {
			i.counted(unroutedRecord, "", "records", records, "tag", shortTag(tag), "remedy", recordRemedy)
		}
	}
}

// recordsTo counts the records that have events for a destination.
func recordsTo(dest int, ev *chunk.Events) (records int) {
	last := -1
	for n := range ev.List {
		if e := &ev.List[n]; e.Dest == dest && !e.Dropped && e.Record != last {
			records, last = records+1, e.Record
		}
	}
	return records
}

// counted writes a line with how many of a kind there were since the last.
func (i *Instance) counted(message, kind, of string, n int, attrs ...any) {
	if held, ok := i.again.AllowOf(message+kind, n); ok {
		i.env.Log.Warn(message, append([]any{of, held + n}, attrs...)...)
	}
}

// tellRest tells at exit of what no line has told yet.
func (i *Instance) tellRest() {
	for reason := tenancy.BadPrefix; reason <= tenancy.CutName; reason++ {
		if rest := i.again.Rest(unroutedChunks + reason.String()); rest > 0 {
			i.env.Log.Warn(unroutedChunks, "chunks", rest, "reason", reason.Explain(), "remedy", tagRemedy(reason))
		}
	}
	if rest := i.again.Rest(unroutedRecord); rest > 0 {
		i.env.Log.Warn(unroutedRecord, "records", rest, "remedy", recordRemedy)
	}
}
