package output

import (
	"log/slog"

	"github.com/eks-tenant-logs/eks-tenant-logs/internal/awsclient"
)

// renewed counts an attempt to get credentials and tells of those that an operator would want
// to know of. The first attempt's failure is told by the chunk that waits for it.
func (i *Instance) renewed(r awsclient.Renewal) {
	i.metrics.Renewal(string(r.Cause), r.Err == nil)
	attrs := []any{"cause", string(r.Cause), "source", r.Source}
	switch {
	case r.Cause == awsclient.CauseFirst:
	case r.Err != nil:
		i.limited(slog.LevelWarn, "credentials "+r.Source, "AWS credentials could not be renewed; the present ones are used as long as AWS accepts them",
			append(attrs, "error", awsclient.Brief(r.Err))...)
	case r.Other && r.Cause != awsclient.CauseExpiring:
		i.limited(slog.LevelInfo, "renewed "+r.Source+" "+string(r.Cause), "AWS credentials were renewed", attrs...)
	}
}
