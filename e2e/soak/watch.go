package main

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"sync/atomic"
	"time"

	"github.com/eks-tenant-logs/eks-tenant-logs/e2e/node"
	"github.com/eks-tenant-logs/eks-tenant-logs/e2e/plot"
)

// sample is one moment.
type sample struct {
	Seconds, RSS, Heap float64 // MB
	Goroutines, Held   float64
	Oldest             float64 // seconds
	Accepted, Behind   int     // events; lines written and not accepted
	Trouble            string
	AcceptedPerSecond  float64
}

// watch samples Fluent Bit's process and the plugin's metrics.
type watch struct {
	began      time.Time
	address    string
	written    func() int64
	accepted   func() int
	trouble    *trouble
	pid        *atomic.Int64
	samples    []sample
	unanswered int
}

func (w *watch) every(d time.Duration, stop <-chan struct{}) {
	ticker := time.NewTicker(d)
	defer ticker.Stop()
	for {
		select {
		case <-stop:
			return
		case <-ticker.C:
			w.look()
		}
	}
}

func (w *watch) look() {
	m := node.Metrics(w.address)
	s := sample{
		Seconds: time.Since(w.began).Seconds(), RSS: node.Resident(int(w.pid.Load())), Heap: m["go_memstats_heap_inuse_bytes"] / (1 << 20),
		Goroutines: m["go_goroutines"], Held: m["tenantlogs_held_chunks"], Oldest: m["tenantlogs_oldest_unacknowledged_age_seconds"],
		Accepted: w.accepted(), Trouble: w.trouble.present(),
	}
	s.Behind = int(w.written()) - s.Accepted
	if n := len(w.samples); n > 0 {
		last := w.samples[n-1]
		s.AcceptedPerSecond = float64(s.Accepted-last.Accepted) / (s.Seconds - last.Seconds)
	}
	w.samples = append(w.samples, s)
	if v, ok := m["tenantlogs_unanswered_events_total"]; ok {
		w.unanswered = int(v)
	}
}

// report is what became of it all.
type report struct {
	Rate                 int
	Seconds, Drained     float64
	Written, Lost, Twice int
	Strange              int // events that hold no line as it was written
	Unanswered           int // events in calls without an answer: at most so many may be twice
	Faults               map[string]int
	Hits                 map[string]int
	Samples              []sample
}

// middle is the median of a figure over a part of the run.
func (r *report) middle(from, to float64, get func(sample) float64) float64 {
	n := len(r.Samples)
	var values []float64
	for _, s := range r.Samples[int(from*float64(n)):int(to*float64(n))] {
		values = append(values, get(s))
	}
	slices.Sort(values)
	if len(values) == 0 {
		return 0
	}
	return values[len(values)/2]
}

func (r *report) print(out io.Writer) {
	rss, goroutines := func(s sample) float64 { return s.RSS }, func(s sample) float64 { return s.Goroutines }
	fmt.Fprintf(out, "%.0f s at %d lines/s: %d lines; all there %.0f s after the last\n", r.Seconds, r.Rate, r.Written, r.Drained)
	fmt.Fprintf(out, "lost %d, twice %d (of %d in calls without an answer), not as written %d\n", r.Lost, r.Twice, r.Unanswered, r.Strange)
	fmt.Fprintf(out, "faults:")
	for _, name := range slices.Sorted(maps.Keys(r.Faults)) {
		fmt.Fprintf(out, " %s %d,", name, r.Faults[name])
	}
	fmt.Fprintf(out, " calls hit: %v\n", r.Hits)
	fmt.Fprintf(out, "resident memory, MB, median of each fifth:")
	for n := range 5 {
		fmt.Fprintf(out, " %.0f", r.middle(float64(n)/5, float64(n+1)/5, rss))
	}
	fmt.Fprintf(out, "\ngoroutines, median of each fifth:")
	for n := range 5 {
		fmt.Fprintf(out, " %.0f", r.middle(float64(n)/5, float64(n+1)/5, goroutines))
	}
	fmt.Fprintln(out)
}

func (r *report) verdict() error {
	switch {
	case r.Lost > 0:
		return fmt.Errorf("%d lines were lost", r.Lost)
	case r.Strange > 0:
		return fmt.Errorf("%d events hold no line as it was written", r.Strange)
	case r.Twice > r.Unanswered:
		return fmt.Errorf("%d lines arrived twice, of which %d at most had lost their answer", r.Twice, r.Unanswered)
	case r.Written == 0:
		return errors.New("nothing was written")
	}
	return nil
}

func (r *report) draw(file string) error {
	line := func(name string, get func(sample) float64) plot.Series {
		s := plot.Series{Name: name}
		for _, x := range r.Samples {
			s.Points = append(s.Points, plot.Point{X: x.Seconds, Y: get(x)})
		}
		return s
	}
	trouble := func(most float64) plot.Series {
		return line("a fault", func(s sample) float64 {
			if s.Trouble == "" {
				return 0
			}
			return most
		})
	}
	return plot.Write(file,
		plot.Panel{Title: "Events accepted per second, and when something was wrong", X: "seconds", Y: "1,000/s", Lines: []plot.Series{
			line("accepted", func(s sample) float64 { return s.AcceptedPerSecond / 1000 }), trouble(float64(r.Rate) / 1000),
		}},
		plot.Panel{Title: "Memory of Fluent Bit with the plugin", X: "seconds", Y: "MB", Lines: []plot.Series{
			line("resident", func(s sample) float64 { return s.RSS }), line("Go heap", func(s sample) float64 { return s.Heap }),
		}},
		plot.Panel{Title: "Goroutines", X: "seconds", Lines: []plot.Series{line("", func(s sample) float64 { return s.Goroutines })}},
		plot.Panel{Title: "Lines written and not accepted yet", X: "seconds", Y: "1,000 lines", Lines: []plot.Series{
			line("", func(s sample) float64 { return max(0, float64(s.Behind)/1000) }),
		}},
	)
}
