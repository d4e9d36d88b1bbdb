package node

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

// FluentBit is a real one.
type FluentBit struct{ Binary string }

// Name is "fluent-bit".
func (FluentBit) Name() string { return "fluent-bit" }

// TagPrefix is what the tags of a node's files begin with when Fluent Bit reads
// them where they really are: `kube.`, the path with dots for slashes, and a dot.
func (FluentBit) TagPrefix(n *Node, l Layout) string {
	return "kube." + strings.ReplaceAll(strings.TrimPrefix(filepath.ToSlash(n.Root), "/"), "/", ".") + ".var.log." + string(l) + "."
}

// Ship implements Engine.
func (e FluentBit) Ship(ctx context.Context, r Run) error {
	dir, err := os.MkdirTemp("", "fluent-bit-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	if err := os.WriteFile(filepath.Join(dir, "parsers.conf"), []byte(parsers), 0o600); err != nil {
		return err
	}
	conf := filepath.Join(dir, "fluent-bit.conf")
	if err := os.WriteFile(conf, []byte(e.Config(r, dir)), 0o600); err != nil {
		return err
	}
	args := []string{"-c", conf}
	if r.Output == "" {
		args = append(args, "-e", r.Plugin)
	}
	cmd := exec.Command(e.Binary, args...)
	cmd.Env = append(os.Environ(), r.Env...)
	cmd.Stdout, cmd.Stderr = r.Log, r.Log
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("failed to start Fluent Bit: %w", err)
	}
	exited := make(chan error, 1)
	go func() { exited <- cmd.Wait() }()
	err = nil
	if r.Until != nil {
		var ended error
		err = poll(ctx, func() bool {
			select {
			case werr := <-exited:
				ended = errors.Join(errEnded, werr)
				return true
			default:
				return r.Until()
			}
		})
		if ended != nil {
			return ended
		}
	}
	if serr := cmd.Process.Signal(syscall.SIGTERM); serr != nil && err == nil {
		err = serr
	}
	select {
	case werr := <-exited:
		if err == nil && werr != nil {
			err = fmt.Errorf("the engine ended with %w", werr)
		}
	case <-time.After(time.Minute):
		_ = cmd.Process.Kill()
		err = errors.Join(err, errors.New("the engine did not stop within a minute of SIGTERM"))
	}
	return err
}

var errEnded = errors.New("the engine ended by itself, before what was waited for")

const parsers = `[PARSER]
    Name        json
    Format      json
`

// Config is the classic configuration Ship runs with; dir holds parsers.conf.
func (e FluentBit) Config(r Run, dir string) string {
	layout := r.Layout
	if layout == "" {
		layout = Pods
	}
	var b strings.Builder
	grace := r.Grace
	if grace == 0 {
		grace = 5 * time.Second
	}
	// tail's own defaults lose lines; the values are those the chart pins.
	fmt.Fprintf(&b, `[SERVICE]
    Flush         0.2
    Grace         %d
    Log_Level     info
    Parsers_File  %s/parsers.conf
    Scheduler.Base 1
    Scheduler.Cap  2

[INPUT]
    Name              tail
    Path              %s%s
    Tag               kube.*
    multiline.parser  cri
    Read_from_Head    On
    Refresh_Interval  1
    Buffer_Max_Size   4MB
    Skip_Long_Lines   Off
    DB                %s/tail.db
`, int(grace.Seconds()), dir, r.Node.Root, layout.glob(), dir)
	if r.ParseJSON {
		fmt.Fprintf(&b, `
[FILTER]
    Name          parser
    Match         *
    Key_Name      log
    Parser        json
    Reserve_Data  %s
`, onOff(r.ReserveData))
	}
	b.WriteString(r.Filters)
	if r.Output != "" {
		fmt.Fprintf(&b, "\n[OUTPUT]\n%s\n", r.Output)
		return b.String()
	}
	for _, options := range append([]map[string]string{r.Options}, r.More...) {
		workers := r.Workers
		if workers == 0 {
			workers = 4
		}
		b.WriteString("\n[OUTPUT]\n    Name cloudwatch_tenants\n    Match *\n")
		if workers > 0 {
			fmt.Fprintf(&b, "    Workers %d\n", workers)
		}
		all := withDefaults(options)
		if all["tag_prefix"] == "" {
			all["tag_prefix"] = e.TagPrefix(r.Node, layout)
		}
		names := make([]string, 0, len(all))
		for name := range all {
			names = append(names, name)
		}
		slices.Sort(names)
		for _, name := range names {
			fmt.Fprintf(&b, "    %s %s\n", name, all[name])
		}
	}
	return b.String()
}

func onOff(on bool) string {
	if on {
		return "On"
	}
	return "Off"
}
