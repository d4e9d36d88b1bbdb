package node

import (
	"context"
	"errors"
	"maps"
	"time"

	"github.com/eks-tenant-logs/eks-tenant-logs/e2e/host"
)

// Host is the project's own host of Fluent Bit plugins. Emulator is for a Loader of another architecture.
type Host struct {
	Loader   string
	Emulator []string
}

// Name is "host".
func (Host) Name() string { return "host" }

// Ship implements Engine.
func (e Host) Ship(ctx context.Context, r Run) error {
	if r.Output != "" || r.Input != nil || r.Filters != "" || r.State != "" || r.YAML || r.Service != nil || r.Used != nil {
		return errors.New("the host has neither filters nor outputs nor storage nor formats of its own")
	}
	workers := r.Workers
	switch workers {
	case 0:
		workers = 4
	case -1:
		workers = 0
	}
	outputs := []host.Output{}
	for _, options := range append([]map[string]string{r.Options}, r.More...) {
		outputs = append(outputs, host.Output{Workers: workers, Properties: r.withDefaults(options)})
	}
	h, err := host.Start(ctx, host.Config{
		Loader: e.Loader, Emulator: e.Emulator, Plugin: r.Plugin, Outputs: outputs, Grace: r.Grace,
		Retry: host.Retry{Base: 20 * time.Millisecond, Cap: time.Second},
		Env:   r.Env, Stderr: r.Log, KeepPoisoned: 64,
	})
	if err != nil {
		return err
	}
	layout := r.Layout
	if layout == "" {
		layout = Pods
	}
	var parse *host.ParseJSON
	if r.ParseJSON {
		parse = &host.ParseJSON{ReserveData: r.ReserveData}
	}
	chunker := host.Chunker{Emit: h.Send}
	read := host.ReadCRI
	if r.raw() {
		read = host.ReadLines
	}
	err = read(r.Node.Root, layout.glob(), "kube.*", func(rec host.Record) error {
		return chunker.Append(rec.Tag, rec.Time, rec.AppendBody(nil, parse))
	})
	if err == nil {
		err = chunker.Flush()
	}
	if err == nil && r.Until != nil {
		err = poll(ctx, r.Until)
	}
	if _, stopErr := h.Stop(ctx); err == nil {
		err = stopErr
	}
	return err
}

// raw reports whether tail reads lines without a parser, as the chart has it. Filters of
// Fluent Bit's, other outputs and aggregators need what `multiline.parser cri` makes of them.
func (r *Run) raw() bool {
	return !r.Multiline && !r.ParseJSON && r.Filters == "" && r.Output == "" && r.Load == "" && r.Options["identity"] != "record"
}

func (r *Run) withDefaults(options map[string]string) map[string]string {
	all := map[string]string{"retry_limit": "no_limits"}
	if r.raw() {
		all["parser"] = "cri"
	}
	maps.Copy(all, options)
	return all
}
