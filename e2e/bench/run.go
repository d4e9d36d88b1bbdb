package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/eks-tenant-logs/eks-tenant-logs/e2e/node"
	"github.com/eks-tenant-logs/eks-tenant-logs/internal/fakeaws"
)

// figures are one run's.
type figures struct {
	Part, Work, Contender string
	Workers, Round        int
	Streams, Lines        int
	Throttled             int // percent of all calls
	Seconds               float64
	EventsPerSecond       float64
	CPUMicroseconds       float64 // of the whole Fluent Bit, for each event
	StandInMicroseconds   float64 // of this process, which the stand-in is in, for each event
	PeakMB                float64
	Calls, Puts           int
	WireMB                float64
	WirePerEvent          float64 // bytes
	Lost, Duplicates      int
	Inversions            int  // within a pod, in GetLogEvents' order
	Unfinished            bool // the time was over: Lost says how much was missing
}

type bench struct {
	dir    string
	engine node.FluentBit
	plugin string
	api    string // the Kubernetes API's stand-in
	token  string
	nodes  map[work]*node.Node // works that are written
	save   func() error        // keeps what was found so far
}

// most is how long one run may take.
const most = 4 * time.Minute

// node writes a work's files, once.
func (b *bench) node(w work) (*node.Node, error) {
	if n := b.nodes[w]; n != nil {
		return n, nil
	}
	n, err := w.write(filepath.Join(b.dir, fmt.Sprintf("%s-%d-%d", w.Name, w.Pods, w.Lines)))
	if err == nil {
		b.nodes[w] = n
	}
	return n, err
}

// one runs one contender once; throttled is the percentage of calls that are.
func (b *bench) one(ctx context.Context, w work, c contender, throttled int) (figures, error) {
	w = c.of(w)
	f := figures{Work: w.Name, Contender: c.Name, Workers: c.Workers, Streams: w.Pods, Lines: w.Lines, Throttled: throttled}
	n, err := b.node(w)
	if err != nil {
		return f, err
	}
	cw, s, err := node.StartStandIn(b.dir, fakeaws.Config{Latency: 20 * time.Millisecond})
	if err != nil {
		return f, err
	}
	defer func() { _ = s.Close() }()
	if throttled > 0 {
		f := fakeaws.NewFaults(1)
		f.Set("throttled", fakeaws.Fault{Percent: throttled, Answer: fakeaws.Throttled})
		s.SetIntercept(f.Intercept)
	}
	pid := 0
	layout := node.Containers // the kubernetes filter knows these tags alone
	r := node.Run{
		Node: n, Plugin: b.plugin, Load: c.load, Layout: layout, Env: cw.Env(), Log: io.Discard, Workers: c.Workers, Input: w.input(n.Root),
		Service: map[string]string{"flush": "1", "scheduler.base": "5", "scheduler.cap": "2000"}, // Fluent Bit's defaults
		Started: func(p *os.Process) { pid = p.Pid },
		Used: func(p *os.ProcessState) {
			f.CPUMicroseconds = float64((p.UserTime() + p.SystemTime()).Microseconds()) / float64(w.Lines)
		},
	}
	if c.options != nil {
		r.Options = map[string]string{"region": cw.Region, "endpoint": cw.Endpoint}
		for k, v := range c.options {
			r.Options[k] = v
		}
		if w.Aggregated {
			r.Options["identity"] = "record"
		}
	}
	if c.filter && !w.Aggregated {
		r.Filters = node.KubernetesFilter(b.api, b.engine.TagPrefix(n, layout), b.token)
	}
	arrived := s.Accepted
	if c.output != nil {
		r.Output = c.output(cw, w, c.Workers)
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
	began, used := time.Now(), ownCPU()
	var took time.Duration
	r.Until = func() bool {
		took = time.Since(began)
		if f.Unfinished = took > most; !f.Unfinished && arrived() < w.Lines {
			return false
		}
		f.PeakMB = peak(pid)
		return true
	}
	ctx, cancel := context.WithTimeout(ctx, 2*most)
	defer cancel()
	if err := b.engine.Ship(ctx, r); err != nil && !f.Unfinished {
		return f, err
	}
	f.Seconds = took.Seconds()
	f.StandInMicroseconds = float64((ownCPU() - used).Microseconds()) / float64(w.Lines)
	f.EventsPerSecond = float64(w.Lines) / f.Seconds
	if c.Name == "null" {
		return f, nil
	}
	for _, n := range s.Calls() {
		f.Calls += n
	}
	f.Puts = s.CallCount("PutLogEvents")
	f.WireMB = float64(s.BytesReceived()) / (1 << 20)
	f.WirePerEvent = float64(s.BytesReceived()) / float64(w.Lines)
	f.verify(w, stored(s))
	return f, nil
}

// ownCPU is what this process has used.
func ownCPU() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
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
