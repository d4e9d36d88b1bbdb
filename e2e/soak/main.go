// Command soak runs a real Fluent Bit with the plugin for minutes, at a steady rate, while one
// thing after the other goes wrong at random, and accounts for every line: none lost, none
// twice but those whose answer was lost, memory and goroutines flat. It draws what it saw.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/eks-tenant-logs/eks-tenant-logs/e2e/environment"
	"github.com/eks-tenant-logs/eks-tenant-logs/e2e/node"
	"github.com/eks-tenant-logs/eks-tenant-logs/internal/fakeaws"
)

type settings struct {
	minutes    float64
	rate, pods int
	seed       uint64
	plot, json string
	log        string
}

func main() {
	var s settings
	flag.Float64Var(&s.minutes, "minutes", 10, "how long lines are written")
	flag.IntVar(&s.rate, "rate", 40_000, "lines a second")
	flag.IntVar(&s.pods, "pods", 60, "pods, three of each tenant")
	flag.Uint64Var(&s.seed, "seed", 1, "of the faults")
	flag.StringVar(&s.plot, "plot", "", "a file for the plot, SVG")
	flag.StringVar(&s.json, "json", "", "a file for the samples")
	flag.StringVar(&s.log, "log", "", "a file for Fluent Bit's log")
	flag.Parse()
	if err := run(context.Background(), s); err != nil {
		fmt.Fprintln(os.Stderr, "make soak:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, s settings) (err error) {
	binary, err := node.FindFluentBit(ctx)
	if err != nil {
		fmt.Printf("make soak: %v: nothing was run\n", err)
		return nil
	}
	dir, err := os.MkdirTemp("", "soak-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	plugin := filepath.Join(dir, "out_cloudwatch_tenants.so")
	build := exec.CommandContext(ctx, "go", "build", "-buildmode=c-shared", "-o", plugin, "./plugin")
	build.Env = environment.Machine()
	if text, err := build.CombinedOutput(); err != nil {
		return fmt.Errorf("failed to build the plugin: %w\n%s", err, text)
	}
	w := node.NewLoad(s.rate, s.pods)
	cw, server, err := node.StartStandIn(dir, fakeaws.Config{Latency: 20 * time.Millisecond, DiscardMessages: true, Observe: w.Observe})
	if err != nil {
		return err
	}
	defer func() { _ = server.Close() }()
	gate, through, err := node.NewGate(cw.Endpoint)
	if err != nil {
		return err
	}
	defer func() { _ = gate.Close() }()
	faults := fakeaws.NewFaults(s.seed)
	server.SetIntercept(faults.Intercept)
	listen, err := node.FreeAddress()
	if err != nil {
		return err
	}
	log := io.Discard
	if s.log != "" {
		f, err := os.Create(s.log)
		if err != nil {
			return err
		}
		defer f.Close()
		log = f
	}
	state := filepath.Join(dir, "state")
	if err := os.MkdirAll(state, 0o755); err != nil {
		return err
	}
	n := node.New(filepath.Join(dir, "node"), time.Now())
	stop := make(chan struct{})
	var running sync.WaitGroup
	w.Start(n, stop, &running)
	trouble := &trouble{faults: faults, gate: gate, rng: rand.New(rand.NewPCG(s.seed, 2)), tenants: s.pods / 3}
	running.Go(func() { trouble.cause(stop) })

	began := time.Now()
	var pid atomic.Int64
	watch := &watch{began: began, address: listen, written: w.Count, trouble: trouble, pid: &pid, accepted: server.Accepted}
	running.Go(func() { watch.every(time.Second, stop) })
	var once sync.Once
	var ended time.Time
	ship := node.FluentBit{Binary: binary}.Ship(ctx, node.Run{
		Node: n, Plugin: plugin, Env: cw.Env(), Log: log, State: state, Workers: 4,
		// Fluent Bit's default: five times as many chunks a second would be more than four
		// workers do (docs/performance.md), and the backlog would grow by itself.
		Service: map[string]string{"flush": "1"},
		Options: map[string]string{"region": cw.Region, "endpoint": through, "metrics_listen": listen, "state_path": filepath.Join(dir, "ledger")},
		Started: func(p *os.Process) { pid.Store(int64(p.Pid)) },
		Until: func() bool {
			if time.Since(began).Minutes() < s.minutes {
				return false
			}
			once.Do(func() {
				ended = time.Now()
				close(stop)
				running.Wait()
			})
			if w.Complete() {
				watch.look()
				return true
			}
			return time.Since(ended) > 6*time.Minute // lost, or far behind: the report says what
		},
	})
	once.Do(func() { close(stop); running.Wait() })
	outcome, written := w.Outcome()
	r := &report{Rate: s.rate, Written: outcome.Written, Lost: outcome.Lost, Twice: outcome.Twice, Strange: outcome.Damaged}
	r.Seconds, r.Drained = ended.Sub(began).Seconds(), time.Since(ended).Seconds()
	r.Faults, r.Hits, r.Samples = trouble.caused(), faults.Hits(), watch.samples
	r.Unanswered = watch.unanswered
	if s.json != "" {
		text, err := json.MarshalIndent(r, "", "  ")
		if err != nil {
			return err
		}
		if err := os.WriteFile(s.json, text, 0o600); err != nil {
			return err
		}
	}
	if s.plot != "" {
		if err := r.draw(s.plot); err != nil {
			return err
		}
	}
	r.print(os.Stdout)
	return errors.Join(ship, written, r.verdict())
}
