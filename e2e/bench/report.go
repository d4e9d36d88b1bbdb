package main

import (
	"fmt"
	"io"
	"math"
	"slices"
	"text/tabwriter"

	"github.com/eks-tenant-logs/eks-tenant-logs/e2e/plot"
)

// report is what a run of the bench found.
type report struct {
	Ceilings []ceiling
	Runs     []figures
	Verdicts []verdict
}

type metric func(figures) float64

func speed(f figures) float64 { return f.EventsPerSecond }
func cpu(f figures) float64   { return f.CPUMicroseconds }
func mem(f figures) float64   { return f.PeakMB }
func wire(f figures) float64  { return f.WirePerEvent }
func calls(f figures) float64 { return float64(f.Calls) / float64(f.Lines) }

// of are the runs of one contender at one work, in one part of the bench.
func (r *report) of(part, work, name string, workers int) (list []figures) {
	for _, f := range r.Runs {
		if f.Part == part && f.Work == work && f.Contender == name && (workers == 0 || f.Workers == workers) {
			list = append(list, f)
		}
	}
	return list
}

// median is the middle value of the rounds; NaN where there are none.
func median(list []figures, get metric) float64 {
	values := make([]float64, len(list))
	for i, f := range list {
		values[i] = get(f)
	}
	slices.Sort(values)
	if len(values) == 0 {
		return math.NaN()
	}
	return values[len(values)/2]
}

// best is a contender at the number of workers with which it is fastest.
func (r *report) best(work, name string) (list []figures) {
	fastest := math.Inf(-1)
	for _, f := range r.Runs {
		if of := r.of("speed", work, name, f.Workers); len(of) > 0 && median(of, speed) > fastest {
			fastest, list = median(of, speed), of
		}
	}
	return list
}

// verdict is one bar, and whether it was met.
type verdict struct {
	What           string
	Figure         float64
	AtLeast, Bound bool // Figure must be at least, else at most, Bar
	Bar            float64
	Met            bool
}

func atLeast(what string, figure, bar float64) verdict {
	return verdict{What: what, Figure: figure, AtLeast: true, Bar: bar, Met: figure >= bar}
}

func atMost(what string, figure, bar float64) verdict {
	return verdict{What: what, Figure: figure, Bar: bar, Met: figure <= bar}
}

func (v verdict) String() string {
	sign, word := "<=", "missed"
	if v.AtLeast {
		sign = ">="
	}
	if v.Met {
		word = "met"
	}
	return fmt.Sprintf("%s\t%.3g\t%s %.3g\t%s", v.What, v.Figure, sign, v.Bar, word)
}

// bars are what this plugin has to reach beside core, each at its better number of workers.
func (r *report) bars() (list []verdict) {
	ratio := func(work, name string, get metric) float64 {
		return median(r.best(work, name), get) / median(r.best(work, "core"), get)
	}
	has := func(work string) bool { return len(r.best(work, "core")) > 0 && len(r.best(work, oursGzip)) > 0 }
	if has("w1") {
		list = append(list, atLeast("w1 events/s, to core", ratio("w1", oursGzip, speed), 1))
	}
	if has("w2") {
		list = append(list, atLeast("w2 events/s, to core", ratio("w2", oursGzip, speed), 1.1))
	}
	for _, work := range []string{"w1", "w2"} {
		if has(work) {
			list = append(list,
				atMost(work+" CPU per event, gzip, to core", ratio(work, oursGzip, cpu), 1.2),
				atMost(work+" CPU per event, compress none, to core", ratio(work, oursPlain, cpu), 1),
				atMost(work+" bytes on the wire, gzip, to core", ratio(work, oursGzip, wire), 0.2),
				atMost(work+" peak memory above core, MB", median(r.best(work, oursGzip), mem)-median(r.best(work, "core"), mem), 50))
		}
	}
	if has("w3") {
		list = append(list, atLeast("w3 events/s, to core", ratio("w3", oursGzip, speed), 40),
			atMost("w3 API calls per event, to core", ratio("w3", oursGzip, calls), 0.01),
			atMost("w3 peak memory above core, MB", median(r.best("w3", oursGzip), mem)-median(r.best("w3", "core"), mem), 50))
	}
	lost, twice, inversions := 0, 0, 0
	for _, f := range r.Runs {
		if f.Contender == oursGzip || f.Contender == oursPlain {
			lost, twice, inversions = lost+f.Lost, twice+f.Duplicates, inversions+f.Inversions
		}
	}
	list = append(list, atMost("lost, all runs", float64(lost), 0), atMost("twice, all runs", float64(twice), 0), atMost("inversions, all runs", float64(inversions), 0))
	if with := r.of("throttled", "w2", oursGzip, 0); len(with) > 1 {
		list = append(list, atMost("w2, 30 % of calls throttled, time to without", slowdown(with), 3))
	}
	return list
}

// slowdown is the time of the throttled runs to that of the others.
func slowdown(list []figures) float64 {
	of := func(throttled bool) (some []figures) {
		for _, f := range list {
			if (f.Throttled > 0) == throttled {
				some = append(some, f)
			}
		}
		return some
	}
	seconds := func(f figures) float64 { return f.Seconds }
	return median(of(true), seconds) / median(of(false), seconds)
}

// write prints the tables.
func (r *report) write(out io.Writer) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	for _, c := range r.Ceilings {
		fmt.Fprintf(w, "the stand-in's own ceiling, bodies %s:\t%.0f events/s\t%.0f MB/s of messages\n", c.Body, c.EventsPerSecond, c.MBPerSecond)
	}
	type row struct {
		part, work, name          string
		workers, streams, percent int
	}
	var rows []row
	runs := map[row][]figures{}
	for _, f := range r.Runs {
		k := row{f.Part, f.Work, f.Contender, f.Workers, f.Streams, f.Throttled}
		if runs[k] == nil {
			rows = append(rows, k)
		}
		runs[k] = append(runs[k], f)
	}
	part := ""
	for _, k := range rows {
		if k.part != part {
			part = k.part
			fmt.Fprintf(w, "\n%s\nWORK\tSTREAMS\tTHROTTLED\tOUTPUT\tWORKERS\tLINES\tEVENTS/S\tTO CORE\tCPU µs/EVENT\tTO CORE\tSTAND-IN µs\tPEAK MB\tCALLS\tPUTS\tWIRE MB\tTO CORE\tLOST\tTWICE\tINVERSIONS\n", part)
		}
		list := runs[k]
		base := r.best(k.work, "core")
		m := func(get metric) float64 { return median(list, get) }
		to := func(get metric) string {
			v := m(get) / median(base, get)
			if math.IsNaN(v) || k.part != "speed" {
				return "-"
			}
			return fmt.Sprintf("%.2f", v)
		}
		lost, twice, inversions := 0, 0, 0
		for _, f := range list {
			lost, twice, inversions = lost+f.Lost, twice+f.Duplicates, inversions+f.Inversions
		}
		fmt.Fprintf(w, "%s\t%d\t%d %%\t%s\t%d\t%d\t%.0f\t%s\t%.2f\t%s\t%.2f\t%.0f\t%.0f\t%.0f\t%.1f\t%s\t%d\t%d\t%d\n", k.work, k.streams, k.percent, k.name, k.workers, list[0].Lines,
			m(speed), to(speed), m(cpu), to(cpu), m(func(f figures) float64 { return f.StandInMicroseconds }), m(mem),
			m(func(f figures) float64 { return float64(f.Calls) }), m(func(f figures) float64 { return float64(f.Puts) }),
			m(func(f figures) float64 { return f.WireMB }), to(wire), lost, twice, inversions)
	}
	fmt.Fprint(w, "\nMedians of the rounds; lost, twice and inversions are sums. TO CORE is against core at its better number of workers in this run.\n\n")
	for _, v := range r.Verdicts {
		fmt.Fprintln(w, v)
	}
	return w.Flush()
}

// plot draws the figures.
func (r *report) plot(file string) error {
	var panels []plot.Panel
	works := []string{}
	for _, w := range []string{"w1", "w2"} {
		if len(r.best(w, "core")) > 0 {
			works = append(works, w)
		}
	}
	if len(works) > 0 {
		bars := func(title string, get metric) plot.Panel {
			p := plot.Panel{Title: title, Y: "to core", Labels: works, Level: 1}
			for _, name := range []string{"null", "core", oursGzip, oursPlain} {
				b := plot.Bar{Name: name}
				for _, w := range works {
					v := median(r.best(w, name), get) / median(r.best(w, "core"), get)
					if math.IsNaN(v) {
						v = 0
					}
					b.Values = append(b.Values, v)
				}
				p.Bars = append(p.Bars, b)
			}
			return p
		}
		panels = append(panels, bars("Events per second", speed), bars("CPU per event, all of Fluent Bit", cpu))
	}
	curve := func(part, title, x string, at func(figures) int, get metric, y string) {
		p := plot.Panel{Title: title, X: x, Y: y}
		for _, name := range []string{"core", oursGzip} {
			s := plot.Series{Name: name}
			byX := map[int][]figures{}
			for _, f := range r.Runs {
				if f.Part == part && f.Contender == name {
					byX[at(f)] = append(byX[at(f)], f)
				}
			}
			for v, list := range byX {
				s.Points = append(s.Points, plot.Point{X: float64(v), Y: median(list, get)})
			}
			slices.SortFunc(s.Points, func(a, b plot.Point) int { return int(a.X - b.X) })
			if len(s.Points) > 0 {
				p.Lines = append(p.Lines, s)
			}
		}
		if len(p.Lines) > 0 {
			panels = append(panels, p)
		}
	}
	thousands := func(f figures) float64 { return f.EventsPerSecond / 1000 }
	streams, workers := func(f figures) int { return f.Streams }, func(f figures) int { return f.Workers }
	curve("streams", "From 1 to 500 streams, 4 workers", "streams", streams, thousands, "1,000 events/s")
	curve("streams", "", "streams", streams, cpu, "CPU, µs per event")
	curve("workers", "60 streams, from 1 to 16 workers", "workers", workers, thousands, "1,000 events/s")
	curve("workers", "", "workers", workers, cpu, "CPU, µs per event")
	if len(panels) == 0 {
		return nil
	}
	return plot.Write(file, panels...)
}
