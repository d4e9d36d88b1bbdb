package output

import (
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"

	"github.com/eks-tenant-logs/eks-tenant-logs/internal/folder"
)

// ledgerFile is where this instance keeps its ledger; empty where it keeps none.
func (i *Instance) ledgerFile() string {
	if i.opts.StatePath == "" {
		return ""
	}
	name := i.env.Name
	if name == "" {
		name = "output"
	}
	return filepath.Join(i.opts.StatePath, name+".ledger")
}

// stateFolder makes the folder of state_path, where one is set, and proves that it can be
// written to: the ledger is written when the process ends, when it is too late to say so.
//
// A full volume is an error in the log and no reason to refuse: only delivery takes Fluent
// Bit's own chunks off the disk, and a refusal would go on for as long as they are there.
func stateFolder(path string, log *slog.Logger) error {
	if path == "" {
		return nil
	}
	err := folder.Prove(path)
	var fault *folder.Fault
	switch {
	case err == nil:
		return nil
	case errors.As(err, &fault) && fault.Full():
		log.Error("state_path: the volume is full; starting nevertheless, because delivery frees what chunks take; Fluent Bit loses the lines that it reads until there is room", "error", err)
		return nil
	}
	return fmt.Errorf("state_path: %w", err)
}

// whose says where this instance writes: files are named by the place of an [OUTPUT]
// among the others, and that changes.
func (i *Instance) whose() string {
	o := i.opts
	return fmt.Sprintf("%q", []string{o.Region, o.Endpoint, o.Profile, o.RoleARN, o.LogGroupPrefix, o.PlatformLogGroup, o.QuarantineLogGroupPrefix, o.LogStreamTemplate})
}

// restore reads what the process before remembered. A file that can't be read costs
// duplicates and nothing else.
func (i *Instance) restore() {
	file := i.ledgerFile()
	if file == "" {
		return
	}
	chunks, err := i.queue.Restore(file, i.whose())
	switch {
	case err != nil:
		i.env.Log.Warn("state_path: what was delivered before the restart could not be read; some of it may arrive twice", "file", file, "error", err)
	case chunks > 0:
		i.env.Log.Info("state_path: read what was delivered of unfinished chunks", "chunks", chunks)
	}
}

// save keeps what is remembered for the next process.
func (i *Instance) save() {
	file := i.ledgerFile()
	if file == "" {
		return
	}
	chunks, err := i.queue.Save(file, i.whose())
	switch {
	case err != nil:
		i.env.Log.Error("state_path: what was delivered of unfinished chunks could not be kept; some of it may arrive twice", "file", file, "error", err)
	case chunks > 0:
		i.env.Log.Info("state_path: kept what was delivered of unfinished chunks", "chunks", chunks)
	}
}
