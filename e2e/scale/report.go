package scale

import (
	"fmt"
	"io"

	"github.com/eks-tenant-logs/eks-tenant-logs/e2e/plot"
)

// Report prints the tables of docs/scaling.md, of the cases there are results of.
func Report(w io.Writer, results map[string]Result) error {
	p := printer{w: w}
	p.line("PutLogEvents a second (the quota is 5,000), and what it means for a chunk. s = seconds.\n")
	p.line("| nodes, what, stream by, flush | steady | peak | throttled | a chunk's way, p50 | p99 | chunks waiting | flushes RETRY | of them timed out |")
	p.line("| --- | --- | --- | --- | --- | --- | --- | --- | --- |")
	for _, c := range Cases() {
		if r, ok := results[c.Name]; ok {
			p.line("| %s | %.0f/s | %d/s | %.0f/s | %s s | %s s | %d | %d | %d |", c.Name, r.Steady, r.Calls[PutLogEvents.String()].PeakPassed, r.SteadyRefused,
				seconds(r.Delay.P50), seconds(r.Delay.P99), r.Waiting, r.Retries, r.Timeouts)
		}
	}
	p.line("\nControl plane: calls made / of them throttled.\n")
	p.line("| nodes, what, stream by, flush | CreateLogStream | CreateLogGroup | DescribeLogGroups | PutRetentionPolicy | ListTags | TagResource | retention not confirmed at the end |")
	p.line("| --- | --- | --- | --- | --- | --- | --- | --- |")
	for _, c := range Cases() {
		if r, ok := results[c.Name]; ok {
			of := func(op Operation) string {
				n := r.Calls[op.String()]
				if n.Made == 0 {
					return "0"
				}
				return fmt.Sprintf("%d / %d", n.Made, n.Throttled)
			}
			p.line("| %s | %s | %s | %s | %s | %s | %s | %d |", c.Name, of(CreateLogStream), of(CreateLogGroup), of(DescribeLogGroups), of(PutRetentionPolicy),
				of(ListTagsForResource), of(TagResource), r.Open)
		}
	}
	p.line("\nFrom the start (a pod's own, where pods are new) until ...\n")
	p.line("| nodes, what, stream by, flush | every group exists | has its retention | is marked ready | first event of a pod accepted, p50 | p99 | max | pods silent at the end | after |")
	p.line("| --- | --- | --- | --- | --- | --- | --- | --- | --- |")
	for _, c := range Cases() {
		if r, ok := results[c.Name]; ok {
			p.line("| %s | %s s | %s s | %s s | %s s | %s s | %s s | %d | %.0f s |", c.Name, seconds(r.Exists), seconds(r.Retained), seconds(r.Ready),
				seconds(r.Heard.P50), seconds(r.Heard.P99), seconds(r.Heard.Max), r.Silent, r.Written)
		}
	}
	return p.err
}

func seconds(s float64) string {
	switch {
	case s < 0:
		return "never"
	case s < 10:
		return fmt.Sprintf("%.1f", s)
	}
	return fmt.Sprintf("%.0f", s)
}

type printer struct {
	w   io.Writer
	err error
}

func (p *printer) line(format string, a ...any) {
	if p.err == nil {
		_, p.err = fmt.Fprintf(p.w, format+"\n", a...)
	}
}

// Draw draws docs/scaling.svg.
func Draw(file string, results map[string]Result) error {
	puts := func(names ...string) (lines []plot.Series) {
		for _, name := range names {
			if r, ok := results[name]; ok {
				var points []plot.Point
				for at := 0; at+10 <= min(len(r.Passed), int(r.Written)); at += 10 {
					points = append(points, plot.Point{X: float64(at+5) / 60, Y: series(r.Passed).mean(at, at+10)})
				}
				if len(points) > 0 {
					lines = append(lines, plot.Series{Name: name, Points: points})
				}
			}
		}
		return lines
	}
	way := plot.Panel{Title: "From a chunk's end to FLB_OK in the last minute, 99 of 100 (restart)", X: "nodes", Y: "seconds", LogX: true, LogY: true}
	for _, flush := range []string{"1s", "5s", "10s"} {
		line := plot.Series{Name: "flush " + flush}
		for _, nodes := range []int{10, 100, 1000} {
			if r, ok := results[fmt.Sprintf("%d, restart, pod, %s", nodes, flush)]; ok {
				line.Points = append(line.Points, plot.Point{X: float64(nodes), Y: max(finest, r.Delay.P99)})
			}
		}
		if len(line.Points) > 1 {
			way.Lines = append(way.Lines, line)
		}
	}
	heard := plot.Panel{Title: "New account: until ...", X: "nodes", Y: "seconds", LogX: true, LogY: true}
	for _, what := range []struct {
		name string
		of   func(Result) float64
	}{
		{"every group exists", func(r Result) float64 { return r.Exists }},
		{"every group has its retention", func(r Result) float64 { return r.Retained }},
		{"half of the pods are heard of", func(r Result) float64 { return r.Heard.P50 }},
		{"all of the pods are heard of", func(r Result) float64 { return r.Heard.Max }},
	} {
		line := plot.Series{Name: what.name}
		for _, nodes := range []int{10, 100, 1000} {
			if r, ok := results[fmt.Sprintf("%d, new account, pod, 5s", nodes)]; ok {
				line.Points = append(line.Points, plot.Point{X: float64(nodes), Y: max(finest, what.of(r))})
			}
		}
		if len(line.Points) > 1 {
			heard.Lines = append(heard.Lines, line)
		}
	}
	panels := []plot.Panel{{Title: "PutLogEvents accepted a second, 1,000 nodes (quota 5,000)", X: "minutes", Y: "calls/s", Level: 5000,
		Lines: puts("1000, restart, pod, 1s", "1000, restart, pod, 5s", "1000, restart, pod, 10s", "1000, new account, pod, 5s", "1000, rolling, pod, 10s")}}
	for _, p := range []plot.Panel{way, heard} {
		if len(p.Lines) > 0 {
			panels = append(panels, p)
		}
	}
	return plot.Write(file, panels...)
}
