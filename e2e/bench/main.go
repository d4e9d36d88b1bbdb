// Command bench runs a real Fluent Bit with nothing (`null`), with core cloudwatch_logs
// and with this plugin, in turn, over the same log files and the same stand-in with 20 ms
// of latency, and prints what each took beside core. It is slow, and its figures are
// ratios within one run: never an absolute, never a test.
package main

import (
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/eks-tenant-logs/eks-tenant-logs/e2e/node"
	"github.com/eks-tenant-logs/eks-tenant-logs/internal/fakeaws"
)

func main() {
	rounds := flag.Int("rounds", 3, "how often each contender runs each work")
	scale := flag.Float64("scale", 1, "of the number of lines")
	out := flag.String("json", "", "a file for the figures of every run")
	flag.Parse()
	if err := run(context.Background(), *rounds, *scale, *out); err != nil {
		fmt.Fprintln(os.Stderr, "make bench:", err)
		os.Exit(1)
	}
}

// work is what is shipped.
type work struct {
	Name          string
	Pods, Tenants int
	Lines         int // in all
}

// contender is one output.
type contender struct {
	Name    string
	Workers int
	// output is its section, for those that are Fluent Bit's own.
	output func(cw *node.CloudWatch, workers int) string
	// options are ours; nil for the others.
	options map[string]string
	filter  bool // with the kubernetes filter, which core needs to know the namespace
}

// figures are one run's.
type figures struct {
	Work, Contender  string
	Workers, Round   int
	EventsPerSecond  float64
	CPUMicroseconds  float64 // of the whole process, for each event
	PeakMB           float64
	Puts             int
	WireMB           float64
	Lost, Duplicates int
	Inversions       int // within a pod, in GetLogEvents' order
}

type bench struct {
	engine node.FluentBit
	plugin string
	api    string // the Kubernetes API's stand-in
	token  string
	node   *node.Node
	work   work
}

func run(ctx context.Context, rounds int, scale float64, jsonFile string) error {
	binary := node.FindFluentBit()
	if binary == "" {
		fmt.Println("make bench: no Fluent Bit found on PATH or in $FLUENT_BIT: the comparison was NOT run")
		return nil
	}
	dir, err := os.MkdirTemp("", "bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	b := &bench{engine: node.FluentBit{Binary: binary}, plugin: filepath.Join(dir, "out_cloudwatch_tenants.so"), token: filepath.Join(dir, "token")}
	if err := os.WriteFile(b.token, []byte("a-token"), 0o600); err != nil {
		return err
	}
	build := exec.CommandContext(ctx, "go", "build", "-trimpath", "-ldflags", "-s -w", "-buildmode=c-shared", "-o", b.plugin, "./plugin")
	if text, err := build.CombinedOutput(); err != nil {
		return fmt.Errorf("failed to build the plugin: %w\n%s", err, text)
	}
	api := httptest.NewServer(http.HandlerFunc(pod))
	defer api.Close()
	b.api = api.URL

	n := func(lines int) int { return int(float64(lines) * scale) }
	works := []work{{"w1", 1, 1, n(400_000)}, {"w2", 60, 20, n(480_000)}}
	contenders := []contender{
		{Name: "null", Workers: 1, output: func(*node.CloudWatch, int) string { return "    name null\n    match *\n" }, filter: true},
		{Name: "core", Workers: 1, output: node.CoreOutput, filter: true},
		{Name: "core", Workers: 4, output: node.CoreOutput, filter: true},
		{Name: "ours", Workers: 1, options: map[string]string{}},
		{Name: "ours", Workers: 4, options: map[string]string{}},
		{Name: "ours, compress none", Workers: 4, options: map[string]string{"compress": "none"}},
	}
	var all []figures
	for _, w := range works {
		b.work = w
		b.node = node.New(filepath.Join(dir, w.Name), time.Now().Add(-time.Hour))
		if err := b.write(); err != nil {
			return err
		}
		for round := range rounds {
			for _, c := range contenders {
				f, err := b.one(ctx, dir, c)
				if err != nil {
					return fmt.Errorf("%s with %s: %w", w.Name, c.Name, err)
				}
				f.Round = round + 1
				all = append(all, f)
				fmt.Fprintf(os.Stderr, "%s round %d %s workers %d: %.0f events/s\n", w.Name, f.Round, c.Name, c.Workers, f.EventsPerSecond)
			}
		}
	}
	if jsonFile != "" {
		text, err := json.MarshalIndent(all, "", "  ")
		if err != nil {
			return err
		}
		if err := os.WriteFile(jsonFile, text, 0o600); err != nil {
			return err
		}
	}
	return table(os.Stdout, works, contenders, all)
}

// write makes the log files: lines of about 160 bytes with their pod's count in front.
func (b *bench) write() error {
	filler := strings.Repeat("GET /api/v1/orders HTTP/1.1 200 ", 4)
	each := b.work.Lines / b.work.Pods
	for p := range b.work.Pods {
		texts := make([]string, each)
		for i := range texts {
			texts[i] = fmt.Sprintf("#%d %s%d ms", i, filler, i%997)
		}
		err := b.node.Write(node.Pod{Namespace: fmt.Sprint("tenant-t", p%b.work.Tenants), Name: fmt.Sprint("pod-", p), Container: "app"}, texts...)
		if err != nil {
			return err
		}
	}
	b.work.Lines = each * b.work.Pods
	return nil
}

func (b *bench) one(ctx context.Context, dir string, c contender) (figures, error) {
	f := figures{Work: b.work.Name, Contender: c.Name, Workers: c.Workers}
	cw, s, err := node.StartStandIn(dir, fakeaws.Config{Latency: 20 * time.Millisecond})
	if err != nil {
		return f, err
	}
	defer func() { _ = s.Close() }()
	pid := 0
	layout := node.Containers // the kubernetes filter knows these tags alone
	r := node.Run{
		Node: b.node, Plugin: b.plugin, Layout: layout, Env: cw.Env(), Log: io.Discard, Options: c.options, Workers: c.Workers,
		Service: map[string]string{"flush": "1"}, // Fluent Bit's default
		Started: func(p *os.Process) { pid = p.Pid },
		Used: func(p *os.ProcessState) {
			f.CPUMicroseconds = float64((p.UserTime() + p.SystemTime()).Microseconds()) / float64(b.work.Lines)
		},
	}
	if c.options != nil {
		r.Options = map[string]string{"region": cw.Region, "endpoint": cw.Endpoint}
		for k, v := range c.options {
			r.Options[k] = v
		}
	}
	if c.filter {
		r.Filters = node.KubernetesFilter(b.api, b.engine.TagPrefix(b.node, layout), b.token)
	}
	arrived := s.Accepted
	if c.output != nil {
		r.Output = c.output(cw, c.Workers)
	}
	if c.Name == "null" {
		address, err := node.FreeAddress()
		if err != nil {
			return f, err
		}
		_, port, err := net.SplitHostPort(address)
		if err != nil {
			return f, err
		}
		r.Service["http_server"], r.Service["http_listen"], r.Service["http_port"] = "on", "127.0.0.1", port
		arrived = func() int { return discarded(port) }
	}
	start := time.Now()
	var took time.Duration
	r.Until = func() bool {
		if arrived() < b.work.Lines {
			return false
		}
		took = time.Since(start)
		f.PeakMB = peak(pid)
		return true
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Minute)
	defer cancel()
	if err := b.engine.Ship(ctx, r); err != nil {
		return f, err
	}
	f.EventsPerSecond = float64(b.work.Lines) / took.Seconds()
	if c.Name == "null" {
		return f, nil
	}
	f.Puts = s.CallCount("PutLogEvents")
	f.WireMB = float64(s.BytesReceived()) / (1 << 20)
	b.verify(s, &f)
	return f, nil
}

// pod answers for the Kubernetes API.
func pod(w http.ResponseWriter, r *http.Request) {
	parts := strings.Split(strings.Trim(r.URL.Path, "/"), "/") // api v1 namespaces NS pods POD
	if len(parts) != 6 {
		http.NotFound(w, r)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	fmt.Fprintf(w, `{"kind":"Pod","apiVersion":"v1","metadata":{"name":%q,"namespace":%q,"uid":"0c8f1f1e-0000-4000-8000-000000000001","labels":{"app":"web"}},`+
		`"spec":{"nodeName":"node-1","containers":[{"name":"app","image":"app:1"}]},"status":{"podIP":"10.0.0.1"}}`, parts[5], parts[3])
}

// discarded is how many records `null` has had.
func discarded(port string) int {
	resp, err := http.Get("http://127.0.0.1:" + port + "/api/v1/metrics")
	if err != nil {
		return 0
	}
	defer resp.Body.Close()
	var m struct {
		Output map[string]struct {
			Records int `json:"proc_records"`
		} `json:"output"`
	}
	if json.NewDecoder(resp.Body).Decode(&m) != nil {
		return 0
	}
	return m.Output["null.0"].Records
}

// peak is the most memory a process had, in MB: what the kernel says of the process
// itself, because rusage counts what its parent had when it was forked.
func peak(pid int) float64 {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0
	}
	_, after, _ := strings.Cut(string(text), "VmHWM:")
	line, _, _ := strings.Cut(after, "kB")
	kb, err := strconv.Atoi(strings.TrimSpace(line))
	if err != nil {
		return 0
	}
	return float64(kb) / 1024
}

var number = regexp.MustCompile(`#(\d+) GET`)

// verify reads everything back: each line's number must be there once, in order.
func (b *bench) verify(s *fakeaws.Server, f *figures) {
	each := b.work.Lines / b.work.Pods
	total := 0
	for _, g := range s.Groups() {
		for _, st := range g.Streams {
			seen := make([]bool, each)
			last := -1
			for _, e := range s.Events(g.Name, st.Name) {
				m := number.FindStringSubmatch(e.Message)
				if m == nil {
					continue
				}
				n, err := strconv.Atoi(m[1])
				if err != nil || n >= each {
					continue
				}
				if seen[n] {
					f.Duplicates++
					continue
				}
				seen[n] = true
				total++
				if n < last {
					f.Inversions++
				}
				last = max(last, n)
			}
		}
	}
	f.Lost = b.work.Lines - total
}

// table prints each contender's median beside core's best.
func table(out io.Writer, works []work, contenders []contender, all []figures) error {
	var text bytes.Buffer
	w := tabwriter.NewWriter(&text, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "WORK\tOUTPUT\tWORKERS\tEVENTS/S\tTO CORE\tCPU µs/EVENT\tTO CORE\tPEAK MB\tPUTS\tWIRE MB\tLOST\tTWICE\tINVERSIONS")
	for _, wk := range works {
		of := func(c contender) []figures {
			var list []figures
			for _, f := range all {
				if f.Work == wk.Name && f.Contender == c.Name && f.Workers == c.Workers {
					list = append(list, f)
				}
			}
			return list
		}
		var speed, cpu float64 // core's, at its best number of workers
		for _, c := range contenders {
			if c.Name != "core" {
				continue
			}
			if v := median(of(c), func(f figures) float64 { return f.EventsPerSecond }); v > speed {
				speed, cpu = v, median(of(c), func(f figures) float64 { return f.CPUMicroseconds })
			}
		}
		for _, c := range contenders {
			list := of(c)
			m := func(g func(figures) float64) float64 { return median(list, g) }
			evs, us := m(func(f figures) float64 { return f.EventsPerSecond }), m(func(f figures) float64 { return f.CPUMicroseconds })
			lost, twice, inversions := 0, 0, 0
			for _, f := range list {
				lost, twice, inversions = lost+f.Lost, twice+f.Duplicates, inversions+f.Inversions
			}
			fmt.Fprintf(w, "%s\t%s\t%d\t%.0f\t%.2f\t%.2f\t%.2f\t%.0f\t%.0f\t%.1f\t%d\t%d\t%d\n", wk.Name, c.Name, c.Workers, evs, evs/speed, us, us/cpu,
				m(func(f figures) float64 { return f.PeakMB }), m(func(f figures) float64 { return float64(f.Puts) }), m(func(f figures) float64 { return f.WireMB }),
				lost, twice, inversions)
		}
	}
	if err := w.Flush(); err != nil {
		return err
	}
	fmt.Fprintln(&text, "\nMedians of the rounds; lost, twice and inversions are sums. TO CORE is against core at its better number of workers in this run.")
	_, err := out.Write(text.Bytes())
	return err
}

func median(list []figures, get func(figures) float64) float64 {
	values := make([]float64, len(list))
	for i, f := range list {
		values[i] = get(f)
	}
	slices.Sort(values)
	if len(values) == 0 {
		return 0
	}
	return values[len(values)/2]
}
