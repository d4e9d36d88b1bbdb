package scale

import (
	"math"
	"slices"
	"time"
)

// Calls are those of one operation.
type Calls struct {
	Made, Throttled int64
	PeakMade        int32 // in one second
	PeakPassed      int32
}

// Quantiles of something, in seconds.
type Quantiles struct{ P50, P99, Max float64 }

// Result is what came of a scenario. Times are in seconds since the start.
type Result struct {
	Scenario Scenario
	Calls    map[string]Calls
	// Groups exist; Exists, Retained and Ready are when the last of them did, had its
	// retention, and was marked as ready; -1 where one did not.
	Groups                  int
	Exists, Retained, Ready float64
	// Heard is from a pod's start to its first event that was accepted; Silent pods had none.
	Heard  Quantiles
	Silent int
	// Puts are PutLogEvents calls a second, by second: made, and not throttled. Steady is
	// the mean of the latter in the last minute in which lines were written.
	Puts, Passed          []int32
	Steady, SteadyRefused float64
	// Delay is from the end of a chunk to its FLB_OK, in that minute.
	Delay Quantiles
	// Waiting is how many chunks were under way or waiting at the end, of all nodes and of
	// the one with the most; Full is how often a chunk was not made because of 2,048.
	Waiting, MostWaiting int
	Full                 int64
	// Retries are flushes that ended in FLB_RETRY, Timeouts those of them whose time was
	// over; Longest is how long the longest flush took.
	Retries, Timeouts int64
	Longest           float64
	// Lost are chunks for which FLB_OK was said and which did not arrive in full; Twice
	// are events that arrived again; Strange those in another pod's stream. Undelivered are
	// chunks that did not arrive and wait nowhere.
	Lost, Twice, Strange int64
	Undelivered          int
	Trips                int64 // of the breaker
	Unretained           int   // groups without 365 days
	// Open is how many groups' retention the nodes had still to confirm at the end, each
	// node's counted.
	Open     int
	Exceeded []string
	Written  float64 // for how long lines were written
	Real     float64 // what it took to compute, which a bubble's clock can't tell: set by whoever runs it
}

func (s *Simulation) result(written time.Duration) Result {
	r := Result{
		Scenario: s.Scenario, Calls: map[string]Calls{}, Full: s.full.Load(), Retries: s.retries.Load(), Timeouts: s.timeouts.Load(),
		Longest: s.longest.Seconds(), Lost: s.lost.Load(), Trips: s.trips.Load(), Written: written.Seconds(),
	}
	a := s.account
	for op := range operations {
		r.Calls[op.String()] = Calls{Made: a.made[op].total(), Throttled: a.made[op].total() - a.passed[op].total(), PeakMade: a.made[op].peak(), PeakPassed: a.passed[op].peak()}
		if a.passed[op].exceeds(s.Scenario.Quotas[op]) {
			r.Exceeded = append(r.Exceeded, op.String())
		}
	}
	last := int(written / time.Second)
	r.Puts, r.Passed = a.made[PutLogEvents], a.passed[PutLogEvents]
	r.Steady = a.passed[PutLogEvents].mean(max(0, last-60), last)
	r.SteadyRefused = a.made[PutLogEvents].mean(max(0, last-60), last) - r.Steady
	if minute := last/60 - 1; minute >= 0 && minute < len(s.delays) {
		r.Delay = s.delays[minute].quantiles()
	}
	r.groups(a)
	r.pods(s)
	for _, n := range s.nodes {
		r.Waiting += n.tasks
		r.Open += n.plugin.groups.Open()
		r.MostWaiting = max(r.MostWaiting, n.tasks)
	}
	r.Twice, r.Strange = a.twice, a.strange
	return r
}

func (r *Result) groups(a *Account) {
	r.Groups = len(a.groups)
	for _, g := range a.groups {
		r.Exists = max(r.Exists, g.created.Sub(a.start).Seconds())
		r.Retained = latest(r.Retained, g.retained, a.start)
		r.Ready = latest(r.Ready, g.ready, a.start)
		if g.days == nil || *g.days != days {
			r.Unretained++
		}
	}
}

// latest is the later of two moments; -1 is never.
func latest(so float64, at, start time.Time) float64 {
	if so < 0 || at.IsZero() {
		return -1
	}
	return max(so, at.Sub(start).Seconds())
}

func (r *Result) pods(s *Simulation) {
	var heard []float64
	missing := 0
	for i, p := range s.account.pods {
		if p.first.IsZero() {
			r.Silent++
		} else {
			heard = append(heard, p.first.Sub(s.born[i]).Seconds())
		}
		for c := range s.pods[i].chunks {
			if !s.account.has(i, c) {
				missing++
			}
		}
	}
	waiting := 0
	for _, n := range s.nodes {
		waiting += n.tasks
	}
	r.Undelivered = max(0, missing-waiting)
	r.Heard = quantiles(heard)
}

func quantiles(v []float64) Quantiles {
	if len(v) == 0 {
		return Quantiles{}
	}
	slices.Sort(v)
	return Quantiles{v[len(v)/2], v[len(v)*99/100], v[len(v)-1]}
}

// histogram counts durations in steps of about 4 %, from 10 ms up.
type histogram [512]int32

const (
	finest = 0.01 // seconds
	step   = 1.04
)

func (h *histogram) add(d time.Duration) {
	i := 0
	if s := d.Seconds(); s > finest {
		i = min(len(h)-1, int(math.Log(s/finest)/math.Log(step))+1)
	}
	h[i]++
}

func (h *histogram) quantiles() (q Quantiles) {
	var total, n int64
	for _, v := range h {
		total += int64(v)
	}
	for i, v := range h {
		if v == 0 {
			continue
		}
		n += int64(v)
		at := finest * math.Pow(step, float64(i))
		if n-int64(v) <= total/2 {
			q.P50 = at
		}
		if n-int64(v) <= total*99/100 {
			q.P99 = at
		}
		q.Max = at
	}
	return q
}
