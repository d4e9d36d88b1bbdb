package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/cloudwatchlogs"
	"github.com/stretchr/testify/require"

	"github.com/eks-tenant-logs/eks-tenant-logs/e2e/host"
	"github.com/eks-tenant-logs/eks-tenant-logs/e2e/node"
	"github.com/eks-tenant-logs/eks-tenant-logs/internal/fakeaws"
)

// Promises 3, 4 and 5 while much is to be done and much fails.

func TestNothingLostNothingTwiceWhileAThirdOfAllCallsIsThrottled(t *testing.T) {
	onEngines(t, func(t *testing.T, e node.Engine) {
		pods := 60 // and 20 in the host, where the race detector is at work
		if e.Name() == "host" {
			pods = 20
		}
		ship := func(percent int) time.Duration {
			cw, s := standIn(t, fakeaws.Config{Latency: 20 * time.Millisecond})
			if percent > 0 { // 0 would be all of them
				f := fakeaws.NewFaults(11)
				f.Set("throttled", fakeaws.Fault{Percent: percent, Answer: fakeaws.Throttled})
				s.SetIntercept(f.Intercept)
			}
			n := newNode(t)
			want := writeNumbered(t, n, pods, 400)
			var began, ended time.Time
			require.NoError(t, e.Ship(within(t, 3*time.Minute), node.Run{
				Node: n, Plugin: pluginPath(t), Env: cw.Env(), Log: newLog(t), Options: options(cw),
				Until: func() bool {
					if began.IsZero() {
						began = time.Now()
					}
					ended = time.Now()
					return arrived(s, len(want))()
				},
			}))
			requireOnce(t, want, numbers(t, s))
			return ended.Sub(began)
		}
		without, with := ship(0), ship(30)
		t.Logf("30 %% throttled: %v, without: %v: %.1f times", with, without, with.Seconds()/without.Seconds())
	})
}

// A chunk of several batches, of which one is refused once: its retry sends only the rest.
func TestARetrySendsOnlyWhatWasNotAccepted(t *testing.T) {
	onEngines(t, func(t *testing.T, e node.Engine) {
		cw, s := standIn(t, fakeaws.Config{})
		var puts, events atomic.Int32
		s.SetIntercept(func(c fakeaws.Call) error {
			if c.Operation != "PutLogEvents" {
				return nil
			}
			if puts.Add(1) == 3 { // the first finds no stream, the second arrives
				return &fakeaws.APIError{Code: "AccessDeniedException", Message: "not now"}
			}
			events.Add(int32(c.Events))
			return nil
		})
		n := newNode(t)
		want := writeNumbered(t, n, 1, 9000) // some 2 MB of events
		log := newLog(t)
		require.NoError(t, e.Ship(within(t, time.Minute), node.Run{
			Node: n, Plugin: pluginPath(t), Env: cw.Env(), Log: log, Options: options(cw), Until: arrived(s, len(want)),
		}))
		requireOnce(t, want, numbers(t, s))
		require.Contains(t, log.String(), "chunk not delivered")
	})
}

// Chunks of the same tag with the same bytes are told from retries.
func TestChunksThatAreEqualByteByByteAllArrive(t *testing.T) {
	cw, s := standIn(t, fakeaws.Config{})
	var puts atomic.Int32
	s.SetIntercept(func(c fakeaws.Call) error {
		if c.Operation == "PutLogEvents" && puts.Add(1)%3 == 2 {
			return &fakeaws.APIError{Code: "AccessDeniedException", Message: "not now"}
		}
		return nil
	})
	h, err := startHost(t, host.Config{Env: cw.Env(), Outputs: []host.Output{{Workers: 4, Properties: options(cw, "retry_limit", "no_limits")}}})
	require.NoError(t, err)
	same := record("the same")
	for range 50 {
		require.NoError(t, h.Send(tagOfA, same))
	}
	require.NoError(t, h.Drain(within(t, time.Minute)))
	_, err = h.Stop(within(t, time.Minute))
	require.NoError(t, err)
	require.Len(t, s.Events("/eks/tenants/a", "tenant-a/p/c"), 50)
}

// troubles are what can be wrong with one tenant, t0, for as long as it lasts. Every one
// of them outlasts what the others have to say.
func troubles(ended <-chan struct{}) map[string]func(fakeaws.Call) error {
	own := func(answer func() error) func(fakeaws.Call) error {
		return func(c fakeaws.Call) error {
			if c.LogGroup == "/eks/tenants/t0" {
				return answer()
			}
			return nil
		}
	}
	return map[string]func(fakeaws.Call) error{
		"nothing":                 func(fakeaws.Call) error { return nil },
		"its calls get no answer": own(func() error { <-ended; return fakeaws.ErrConnectionReset }),
		"its calls are throttled": own(func() error { return &fakeaws.APIError{Code: "ThrottlingException", Message: "Rate exceeded"} }),
		"its calls fail in AWS":   own(func() error { return &fakeaws.APIError{Code: "InternalFailure", Message: "x", Status: 500} }),
		"its connections break":   own(func() error { return fakeaws.ErrConnectionReset }),
		"its group is denied":     own(func() error { return &fakeaws.APIError{Code: "AccessDeniedException", Message: "no"} }),
	}
}

// The others' chunks are done while one tenant's trouble lasts: with every worker held for
// flush_timeout they could not be.
func TestATenantInTroubleHoldsUpNobody(t *testing.T) {
	for name := range troubles(nil) {
		t.Run(name, func(t *testing.T) {
			cw, s := standIn(t, fakeaws.Config{Latency: 5 * time.Millisecond})
			ended := make(chan struct{})
			s.SetIntercept(troubles(ended)[name])
			h, err := startHost(t, host.Config{Env: cw.Env(), Outputs: []host.Output{{
				Workers: 4, Properties: options(cw, "retry_limit", "no_limits", "flush_timeout", "5m"),
			}}})
			require.NoError(t, err)
			tag := func(tenant int) string { return strings.Replace(tagOfA, "tenant-a", fmt.Sprint("tenant-t", tenant), 1) }
			const rounds, tenants = 50, 10
			began := time.Now()
			for n := range rounds {
				for tenant := range tenants {
					require.NoError(t, h.Send(tag(tenant), record(fmt.Sprintf("#%d.%d", tenant, n))))
				}
			}
			others := func() (events int64) {
				for _, g := range s.Groups() {
					if g.Name != "/eks/tenants/t0" && strings.HasPrefix(g.Name, "/eks/tenants/") {
						events += g.Events
					}
				}
				return events
			}
			require.NoError(t, h.Until(within(t, time.Minute), func(st host.Stats) bool { return others() == rounds*(tenants-1) }))
			pending := h.Stats().Pending
			t.Logf("the others' %d chunks: %v", rounds*(tenants-1), time.Since(began))
			require.LessOrEqual(t, pending, rounds+4, "of the one tenant alone, and of what workers have in hand")
			if name == "its group is denied" {
				require.NoError(t, h.Drain(within(t, time.Minute)), "its events went to quarantine")
			}
			close(ended)
			s.SetIntercept(nil)
			require.NoError(t, h.Drain(within(t, 2*time.Minute)), "when the trouble ends, the rest arrives without a restart")
			_, err = h.Stop(within(t, time.Minute))
			require.NoError(t, err)
			want := map[string]int{}
			for n := range rounds {
				for tenant := range tenants {
					want[fmt.Sprintf("#%d.%d", tenant, n)] = 1
				}
			}
			requireOnce(t, want, numbers(t, s))
		})
	}
}

// A role that can't be assumed, or a group that was deleted and may not be made again: the
// same, told by its own reason; on_failure hold keeps within its budget.
func TestEventsOfATenantWithoutAGroupOrARoleAreInQuarantine(t *testing.T) {
	for name, test := range map[string]struct {
		tenant, reason string
		options        []string
	}{
		"role":    {`{roleArn: "arn:aws:iam::210987654321:role/x", onFailure: quarantine}`, "role", nil},
		"missing": {`{retentionDays: 731}`, "missing", []string{"auto_create_group", "off"}},
	} {
		t.Run(name, func(t *testing.T) {
			cw, s := standIn(t, fakeaws.Config{})
			s.SetIntercept(func(c fakeaws.Call) error {
				if c.Operation == "AssumeRole" {
					return &fakeaws.APIError{Code: "AccessDenied", Message: "User is not authorized to perform: sts:AssumeRole"}
				}
				return nil
			})
			for _, group := range []string{"/eks/tenants/t1", "/eks/quarantine/t0"} { // the provisioner's work
				_, err := cw.API().CreateLogGroup(within(t, time.Minute), createGroup(group))
				require.NoError(t, err)
			}
			file := filepath.Join(t.TempDir(), "tenants.yaml")
			require.NoError(t, os.WriteFile(file, []byte("version: 1\ntenants: {t0: "+test.tenant+"}\n"), 0o600))
			h, err := startHost(t, host.Config{Env: cw.Env(), Outputs: []host.Output{{
				Workers: 4, Properties: options(cw, append(test.options, "retry_limit", "no_limits", "tenants_file", file, "sts_endpoint", cw.Endpoint)...),
			}}})
			require.NoError(t, err)
			for n := range 100 {
				for _, tenant := range []string{"t0", "t1"} {
					require.NoError(t, h.Send(strings.Replace(tagOfA, "tenant-a", "tenant-"+tenant, 1), record(fmt.Sprintf("#%s.%d", tenant, n))))
				}
			}
			require.NoError(t, h.Drain(within(t, time.Minute)), "Fluent Bit's outstanding tasks come to none while the trouble lasts")
			_, err = h.Stop(within(t, time.Minute))
			require.NoError(t, err)
			quarantined := s.Events("/eks/quarantine/t0", "tenant-t0/p/c")
			require.Len(t, quarantined, 100)
			for _, e := range quarantined {
				require.Contains(t, e.Message, `"_tenantlogs":{"quarantined":"`+test.reason+`","log_group":"/eks/tenants/t0"}`)
			}
			require.Len(t, s.Events("/eks/tenants/t1", "tenant-t1/p/c"), 100)
		})
	}
}

// live writes lines at a rate into pods' files while an engine reads them.
func live(t *testing.T, n *node.Node, pod node.Pod, perSecond int, stop <-chan struct{}, done *sync.WaitGroup, count *atomic.Int64) {
	const tick = 50 * time.Millisecond
	done.Go(func() {
		ticker := time.NewTicker(tick)
		defer ticker.Stop()
		due := 0.0
		for {
			select {
			case <-stop:
				return
			case now := <-ticker.C:
				due += float64(perSecond) * tick.Seconds()
				lines := make([]node.Line, int(due))
				due -= float64(len(lines))
				for i := range lines {
					lines[i] = node.Line{Time: now, Text: fmt.Sprintf("a line %s#%s.%d", strings.Repeat("x", 120), pod.Name, count.Add(1))}
				}
				if err := n.WriteLines(pod, lines...); err != nil {
					t.Error(err)
					return
				}
			}
		}
	})
}

// ages is how old the lines of ten steady tenants are when they arrive, beside what else a
// node has to do, and how long it takes until the last has arrived.
func ages(t *testing.T, e node.Engine, lasts time.Duration, flood bool, fault *fakeaws.Fault) (p50, p99, all time.Duration) {
	cw, s := standIn(t, fakeaws.Config{Latency: 20 * time.Millisecond})
	f := fakeaws.NewFaults(1)
	s.SetIntercept(f.Intercept)
	if fault != nil {
		f.Set("trouble", *fault)
	}
	n := newNode(t)
	stop := make(chan struct{})
	var writers sync.WaitGroup
	var steady, beside atomic.Int64
	for tenant := range 10 {
		live(t, n, node.Pod{Namespace: fmt.Sprint("tenant-t", tenant), Name: fmt.Sprint("p", tenant), Container: "c"}, 40, stop, &writers, &steady)
	}
	other := node.Pod{Namespace: "tenant-other", Name: "p", Container: "c"}
	if flood {
		live(t, n, other, 4000, stop, &writers, &beside)
	}
	if fault != nil {
		live(t, n, other, 40, stop, &writers, &beside)
	}
	others := func() (events int64) {
		for _, g := range s.Groups() {
			if !strings.HasSuffix(g.Name, "/other") {
				events += g.Events
			}
		}
		return events
	}
	began := time.Now()
	var once, over sync.Once
	require.NoError(t, e.Ship(within(t, lasts+2*time.Minute), node.Run{
		Node: n, Plugin: pluginPath(t), Env: cw.Env(), Log: newLog(t), Options: options(cw),
		Until: func() bool {
			if time.Since(began) < lasts {
				return false
			}
			once.Do(func() { close(stop); writers.Wait() })
			if others() < steady.Load() {
				return false
			}
			over.Do(func() { all = time.Since(began); f.Clear() })
			return s.Accepted() >= int(steady.Load()+beside.Load())
		},
	}))
	require.EqualValues(t, steady.Load()+beside.Load(), s.Accepted(), "each line once")
	var list []int64
	for _, g := range s.Groups() {
		for _, st := range g.Streams {
			for _, ev := range s.Events(g.Name, st.Name) {
				if !strings.HasSuffix(g.Name, "/other") && ev.Timestamp > began.Add(2*time.Second).UnixMilli() { // streams are there, files are found
					list = append(list, ev.IngestionTime-ev.Timestamp)
				}
			}
		}
	}
	require.NotEmpty(t, list)
	slices.Sort(list)
	at := func(q float64) time.Duration {
		return time.Duration(list[int(q*float64(len(list)-1))]) * time.Millisecond
	}
	return at(0.5), at(0.99), all
}

// One tenant logs a hundred times what the others do, or gets no answer for the whole run.
// All of it arrives, once, and how much later the others' lines arrive is measured and
// printed.
func TestAFloodOfOneTenantArrivesAndDelaysTheOthersLittle(t *testing.T) {
	e := onFluentBit(t)
	const lasts = 12 * time.Second
	p50, p99, _ := ages(t, e, lasts, false, nil)
	floodP50, floodP99, _ := ages(t, e, lasts, true, nil)
	t.Logf("age of the others' lines on arrival: p50 %v, p99 %v; beside a flood of 100 times their rate p50 %v, p99 %v: %.2f times",
		p50, p99, floodP50, floodP99, floodP99.Seconds()/p99.Seconds())
}

func TestATenantWithoutAnswersDelaysTheOthersLittle(t *testing.T) {
	e := onFluentBit(t)
	const lasts = 40 * time.Second
	p50, p99, all := ages(t, e, lasts, false, nil)
	for name, answer := range map[string]error{"no answer": fakeaws.ErrHang, "throttled": fakeaws.Throttled, "denied": fakeaws.Denied} {
		inP50, inP99, inAll := ages(t, e, lasts, false, &fakeaws.Fault{LogGroup: "/eks/tenants/other", Answer: answer})
		t.Logf("one tenant %s for %v: the others' last line after %v, without it %v: %.2f times; age of their lines p50 %v, p99 %v; without it p50 %v, p99 %v",
			name, lasts, inAll, all, inAll.Seconds()/all.Seconds(), inP50, inP99, p50, p99)
	}
}

func createGroup(name string) *cloudwatchlogs.CreateLogGroupInput {
	return &cloudwatchlogs.CreateLogGroupInput{LogGroupName: &name}
}
