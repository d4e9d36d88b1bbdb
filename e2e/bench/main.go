// Command bench runs a real Fluent Bit with nothing (`null`), with core cloudwatch_logs,
// with this plugin and with any other that $PEERS names, in turn, over the same log files and
// the same stand-in with 20 ms of latency, and prints what each took beside core. It is
// slow, and its figures are ratios within one run: never an absolute, never a test.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"github.com/eks-tenant-logs/eks-tenant-logs/e2e/environment"
	"github.com/eks-tenant-logs/eks-tenant-logs/e2e/node"
)

// Names of the contenders that are ours.
const (
	oursGzip  = "ours"
	oursPlain = "ours, compress none"
)

var quiet = slog.New(slog.DiscardHandler)

type settings struct {
	rounds     int
	scale      float64
	json, plot string
	only       []string
}

func main() {
	var s settings
	var only string
	flag.IntVar(&s.rounds, "rounds", 3, "how often each contender runs each work")
	flag.Float64Var(&s.scale, "scale", 1, "of the number of lines")
	flag.StringVar(&s.json, "json", "", "a file for the figures of every run; those that are in it are not run again")
	flag.StringVar(&s.plot, "plot", "", "a file for the plots, SVG")
	flag.StringVar(&only, "only", "", "parts to run, separated by commas: ceiling, w1, w2, w3, throttled, streams, workers; default all")
	flag.Parse()
	if only != "" {
		s.only = strings.Split(only, ",")
	}
	if err := run(context.Background(), s); err != nil {
		fmt.Fprintln(os.Stderr, "make bench:", err)
		os.Exit(1)
	}
}

func (s settings) wants(part string) bool { return len(s.only) == 0 || slices.Contains(s.only, part) }

func run(ctx context.Context, s settings) error {
	binary, err := node.FindFluentBit(ctx)
	if err != nil {
		fmt.Printf("make bench: %v: the comparison was NOT run\n", err)
		return nil
	}
	others, err := peers(os.Getenv("PEERS"))
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	b := &bench{dir: dir, engine: node.FluentBit{Binary: binary}, plugin: filepath.Join(dir, "out_cloudwatch_tenants.so"), token: filepath.Join(dir, "token"), nodes: map[work]*node.Node{}, save: func() error { return nil }}
	if err := os.WriteFile(b.token, []byte("a-token"), 0o600); err != nil {
		return err
	}
	build := exec.CommandContext(ctx, "go", "build", "-trimpath", "-ldflags", "-s -w", "-buildmode=c-shared", "-o", b.plugin, "./plugin")
	build.Env = environment.Machine()
	if text, err := build.CombinedOutput(); err != nil {
		return fmt.Errorf("failed to build the plugin: %w\n%s", err, text)
	}
	api := httptest.NewServer(http.HandlerFunc(pod))
	defer api.Close()
	b.api = api.URL

	r := &report{}
	if s.json != "" {
		if text, err := os.ReadFile(s.json); err == nil {
			if err := json.Unmarshal(text, r); err != nil {
				return fmt.Errorf("%s: %w", s.json, err)
			}
		}
		b.save = func() error {
			text, err := json.MarshalIndent(r, "", "  ")
			if err != nil {
				return err
			}
			return os.WriteFile(s.json, text, 0o600)
		}
	}
	if err := b.parts(ctx, s, r, others); err != nil {
		return err
	}
	r.Verdicts = r.bars()
	if err := b.save(); err != nil {
		return err
	}
	if s.plot != "" {
		if err := r.plot(s.plot); err != nil {
			return err
		}
	}
	return r.write(os.Stdout)
}

func (b *bench) parts(ctx context.Context, s settings, r *report, others []contender) error {
	if s.wants("ceiling") && len(r.Ceilings) == 0 {
		for _, compress := range []bool{true, false} {
			c, err := b.ceiling(ctx, compress)
			if err != nil {
				return fmt.Errorf("ceiling: %w", err)
			}
			r.Ceilings = append(r.Ceilings, c)
		}
	}
	w1 := work{Name: "w1", Pods: 1, Tenants: 1, Lines: 400_000}.scaled(s.scale)
	w2 := work{Name: "w2", Pods: 60, Tenants: 20, Lines: 480_000}.scaled(s.scale)
	w3 := work{Name: "w3", Pods: 60, Tenants: 20, Lines: 240_000, Aggregated: true}.scaled(s.scale)
	for _, w := range []work{w1, w2, w3} {
		if !s.wants(w.Name) {
			continue
		}
		contenders := append([]contender{null(), core(1), core(4), ours(oursGzip, 1), ours(oursGzip, 4), ours(oursPlain, 4, "compress", "none")}, others...)
		for round := range s.rounds {
			// Each begins a round in its turn, so that what drifts hits all alike.
			for n := range contenders {
				c := contenders[(n+round)%len(contenders)]
				if w.Aggregated && c.once && round > 0 {
					continue
				}
				if err := b.add(ctx, r, "speed", w, c, round+1, 0); err != nil {
					return err
				}
			}
		}
		// In the table they stand in one order.
		slices.SortStableFunc(r.Runs, func(x, y figures) int {
			at := func(f figures) int {
				return slices.IndexFunc(contenders, func(c contender) bool {
					return f.Part == "speed" && f.Work == w.Name && c.Name == f.Contender && c.Workers == f.Workers
				})
			}
			if x.Work != y.Work || x.Part != y.Part {
				return 0
			}
			return at(x) - at(y)
		})
	}
	if s.wants("throttled") {
		half := w2.scaled(0.5)
		for round := range s.rounds {
			for _, percent := range []int{0, 30} {
				if err := b.add(ctx, r, "throttled", half, ours(oursGzip, 4), round+1, percent); err != nil {
					return err
				}
			}
		}
		for _, percent := range []int{0, 30} { // once: it takes minutes
			if err := b.add(ctx, r, "throttled", half, core(1), 1, percent); err != nil {
				return err
			}
		}
	}
	if s.wants("streams") {
		for _, n := range []int{1, 10, 60, 200, 500} {
			w := work{Name: "streams", Pods: n, Tenants: min(n, 20), Lines: 300_000}.scaled(s.scale)
			for _, c := range []contender{core(1), ours(oursGzip, 4)} {
				if err := b.add(ctx, r, "streams", w, c, 1, 0); err != nil {
					return err
				}
			}
		}
	}
	if s.wants("workers") {
		for _, n := range []int{1, 2, 4, 8, 16} {
			for _, c := range []contender{core(n), ours(oursGzip, n)} {
				if err := b.add(ctx, r, "workers", w2, c, 1, 0); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

func (b *bench) add(ctx context.Context, r *report, part string, w work, c contender, round, throttled int) error {
	for _, f := range r.Runs {
		if f.Part == part && f.Work == w.Name && f.Streams == w.Pods && f.Contender == c.Name && f.Workers == c.Workers && f.Round == round && f.Throttled == throttled {
			return nil
		}
	}
	f, err := b.one(ctx, w, c, throttled)
	if err != nil {
		return fmt.Errorf("%s with %s: %w", w.Name, c, err)
	}
	f.Part, f.Round = part, round
	r.Runs = append(r.Runs, f)
	fmt.Fprintf(os.Stderr, "%s %s round %d, %s: %.0f events/s\n", part, w.Name, round, c, f.EventsPerSecond)
	return b.save()
}
