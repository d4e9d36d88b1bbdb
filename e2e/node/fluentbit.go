package node

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"go.yaml.in/yaml/v3"
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
	dir := r.State
	if dir == "" {
		var err error
		if dir, err = os.MkdirTemp("", "fluent-bit-"); err != nil {
			return err
		}
		defer os.RemoveAll(dir)
	}
	if err := os.WriteFile(filepath.Join(dir, "parsers.conf"), []byte(parsers), 0o600); err != nil {
		return err
	}
	text, err := e.Config(r, dir)
	if err != nil {
		return err
	}
	conf := filepath.Join(dir, "fluent-bit.conf")
	if r.YAML {
		conf = filepath.Join(dir, "fluent-bit.yaml")
	}
	if err := os.WriteFile(conf, []byte(text), 0o600); err != nil {
		return err
	}
	args := []string{"-c", conf}
	switch {
	case r.Output == "":
		args = append(args, "-e", r.Plugin)
	case r.Load != "":
		args = append(args, "-e", r.Load)
	}
	program := e.Binary
	if r.Launcher != "" {
		args = append([]string{"-logs", filepath.Join(r.Node.Root, "var/log/pods"), "-db", filepath.Join(dir, "tail.db"),
			"-catch-up", filepath.Join(dir, "catch-up"), "-grace", r.grace().String(), "--", program}, args...)
		program = r.Launcher
	}
	cmd := exec.Command(program, args...)
	cmd.Env = append(os.Environ(), r.Env...)
	cmd.Stdout, cmd.Stderr = r.Log, r.Log
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("failed to start Fluent Bit: %w", err)
	}
	if r.Started != nil {
		r.Started(cmd.Process)
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
		if r.Used != nil {
			r.Used(cmd.ProcessState)
		}
	case <-time.After(time.Minute):
		_ = cmd.Process.Kill()
		err = errors.Join(err, errors.New("the engine did not stop within a minute of SIGTERM"))
	}
	return err
}

func (r Run) grace() time.Duration {
	if r.Grace == 0 {
		return 5 * time.Second
	}
	return r.Grace
}

var errEnded = errors.New("the engine ended by itself, before what was waited for")

const parsers = `[PARSER]
    Name        json
    Format      json
`

// section is one section of Fluent Bit's configuration.
type section struct {
	kind string // service, input, filter or output
	keys [][2]string
}

func (s *section) add(key, value string) { s.keys = append(s.keys, [2]string{key, value}) }

// Config is the configuration Ship runs with; dir holds parsers.conf and what is kept.
func (e FluentBit) Config(r Run, dir string) (string, error) {
	layout := r.Layout
	if layout == "" {
		layout = Pods
	}
	grace := r.grace()
	service := section{kind: "service", keys: [][2]string{
		{"flush", "0.2"}, {"grace", strconv.Itoa(int(grace.Seconds()))}, {"log_level", "info"},
		{"parsers_file", dir + "/parsers.conf"}, {"scheduler.base", "1"}, {"scheduler.cap", "2"},
	}}
	// tail's own defaults lose lines; the values are those the chart pins.
	tail := section{kind: "input", keys: [][2]string{
		{"name", "tail"}, {"path", r.Node.Root + layout.glob()}, {"tag", "kube.*"},
		{"read_from_head", "on"}, {"refresh_interval", "1"}, {"buffer_max_size", "4MB"}, {"skip_long_lines", "off"},
		{"db", dir + "/tail.db"},
	}}
	if !r.raw() {
		tail.add("multiline.parser", "cri")
	}
	for _, name := range slices.Sorted(maps.Keys(r.Service)) {
		service.keys = slices.DeleteFunc(service.keys, func(k [2]string) bool { return k[0] == name })
		service.add(name, r.Service[name])
	}
	if r.State != "" {
		service.add("storage.path", dir+"/storage")
		service.add("storage.sync", "full")
		tail.add("storage.type", "filesystem")
	}
	for _, name := range slices.Sorted(maps.Keys(r.Input)) {
		tail.keys = slices.DeleteFunc(tail.keys, func(k [2]string) bool { return k[0] == name })
		if v := r.Input[name]; v != "" {
			tail.add(name, v)
		}
	}
	sections := []section{service, tail}
	if r.Launcher != "" {
		copies := section{kind: "input", keys: slices.Clone(tail.keys)}
		for i, k := range copies.keys {
			switch k[0] {
			case "path":
				copies.keys[i][1] = dir + "/catch-up/*/*/*.log"
			case "tag":
				copies.keys[i][1] = e.TagPrefix(r.Node, layout) + "<pod>.<container>.<restarts>.log"
			case "db":
				copies.keys[i][1] = dir + "/catch-up.db"
			}
		}
		copies.add("tag_regex", `/(?<pod>[^/]+)/(?<container>[^/]+)/(?<restarts>[0-9]+)\.[^/]+\.log$`)
		sections = append(sections, copies)
	}
	if r.ParseJSON {
		sections = append(sections, section{kind: "filter", keys: [][2]string{
			{"name", "parser"}, {"match", "*"}, {"key_name", "log"}, {"parser", "json"}, {"reserve_data", onOff(r.ReserveData)},
		}})
	}
	if r.Output == "" {
		for _, options := range append([]map[string]string{r.Options}, r.More...) {
			sections = append(sections, e.output(r, layout, options))
		}
	}
	if !r.YAML {
		return classic(sections, r.Filters, r.Output), nil
	}
	if r.Filters != "" || r.Output != "" {
		return "", errors.New("filters and outputs as text are of the classic format")
	}
	return yamlConfig(sections)
}

func (e FluentBit) output(r Run, layout Layout, options map[string]string) section {
	out := section{kind: "output", keys: [][2]string{{"name", "cloudwatch_tenants"}, {"match", "*"}}}
	switch {
	case r.Workers == 0:
		out.add("workers", "4")
	case r.Workers > 0:
		out.add("workers", strconv.Itoa(r.Workers))
	}
	all := r.withDefaults(options)
	if all["tag_prefix"] == "" {
		all["tag_prefix"] = e.TagPrefix(r.Node, layout)
	}
	for _, name := range slices.Sorted(maps.Keys(all)) {
		out.add(name, all[name])
	}
	return out
}

// classic writes sections, with filters and one output as they are in between.
func classic(sections []section, filters, output string) string {
	var b strings.Builder
	for _, s := range sections {
		if s.kind == "output" {
			b.WriteString(filters)
			filters = ""
		}
		fmt.Fprintf(&b, "\n[%s]\n", strings.ToUpper(s.kind))
		for _, k := range s.keys {
			fmt.Fprintf(&b, "    %s %s\n", k[0], k[1])
		}
	}
	b.WriteString(filters)
	if output != "" {
		fmt.Fprintf(&b, "\n[OUTPUT]\n%s\n", output)
	}
	return b.String()
}

// yamlConfig writes the same as Fluent Bit's YAML.
func yamlConfig(sections []section) (string, error) {
	keys := func(s section) map[string]string {
		m := map[string]string{}
		for _, k := range s.keys {
			m[k[0]] = k[1]
		}
		return m
	}
	pipeline := map[string][]map[string]string{}
	doc := map[string]any{"pipeline": pipeline}
	for _, s := range sections {
		if s.kind == "service" {
			doc["service"] = keys(s)
			continue
		}
		pipeline[s.kind+"s"] = append(pipeline[s.kind+"s"], keys(s))
	}
	text, err := yaml.Marshal(doc)
	return string(text), err
}

func onOff(on bool) string {
	if on {
		return "on"
	}
	return "off"
}

// KubernetesFilter is Fluent Bit's `kubernetes` filter against an API server, as classic
// text; further lines may follow. It asks nobody without a token.
func KubernetesFilter(api, tagPrefix, tokenFile string) string {
	return fmt.Sprintf("\n[FILTER]\n    Name kubernetes\n    Match *\n    Kube_URL %s\n    Kube_Tag_Prefix %s\n    Kube_Token_File %s\n    tls.verify Off\n",
		api, tagPrefix, tokenFile)
}

// CoreOutput is core's cloudwatch_logs as its users have it, for Run.Output: a group for
// each namespace, by what the kubernetes filter says. 0 workers leaves Fluent Bit's default.
func CoreOutput(cw *CloudWatch, workers int) string {
	_, port, _ := strings.Cut(strings.TrimPrefix(cw.Endpoint, "https://"), ":")
	text := fmt.Sprintf("    Name cloudwatch_logs\n    Match *\n    region us-east-1\n    endpoint localhost\n    port %s\n    tls.verify On\n    tls.ca_file %s\n"+
		"    log_group_name /eks/shared-fallback\n    log_group_template /eks/tenants/$kubernetes['namespace_name']\n"+
		"    log_stream_prefix from-\n    auto_create_group On\n    Retry_Limit no_limits\n", port, cw.CAFile)
	if workers > 0 {
		text += fmt.Sprintf("    Workers %d\n", workers)
	}
	return text
}
