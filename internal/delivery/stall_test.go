package delivery

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/eks-tenant-logs/eks-tenant-logs/internal/awsclient"
)

func target(tenant string) []Target {
	return []Target{{Group: "/eks/tenants/" + tenant, Stream: "s"}}
}

// trouble answers by group: what is not named works, after 20 ms.
type trouble struct {
	*logsFunc
	groups map[string]func(ctx context.Context) error
}

func inTrouble(t *testing.T) *trouble {
	x := &trouble{logsFunc: &logsFunc{t: t}, groups: map[string]func(context.Context) error{}}
	x.answer = func(ctx context.Context, p put) (awsclient.Rejected, error) {
		time.Sleep(20 * time.Millisecond)
		x.mu.Lock()
		f := x.groups[p.Group]
		if f == nil {
			f = x.groups["*"]
		}
		x.mu.Unlock()
		if f == nil {
			return awsclient.Rejected{}, nil
		}
		return awsclient.Rejected{}, f(ctx)
	}
	return x
}

func (x *trouble) set(group string, f func(context.Context) error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.groups[group] = f
}

func hang(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }

func always(err error) func(context.Context) error { return func(context.Context) error { return err } }

// flush is a Deliver of a chunk of its own with a time limit; it tells how long it took.
func flush(d *Deliverer, n byte, to []Target) (time.Duration, error) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	began := time.Now()
	err := d.Deliver(ctx, Key{n}, numbered(5), to)
	took := time.Since(began)
	if err != nil && !namesCause(err) {
		panic("no cause: " + err.Error())
	}
	return took, err
}

// namesCause reports whether an operator who reads a flush's error learns why: what the
// plugin makes of a failure says nothing of the failure.
func namesCause(err error) bool {
	switch err.Error() {
	case ErrDown.Error(), ErrStalled.Error(), ErrTimeout.Error(), errWaiting.Error():
		return false
	}
	return true
}

var errRefused = errors.New("dial tcp: connection refused")

// A flush whose own calls have not failed yet may be sent away because of others'. It says
// what those failed of.
func TestAFlushThatIsSentAwayNamesTheCause(t *testing.T) {
	// outage makes CloudWatch out of reach by the calls of other groups.
	outage := func(d *Deliverer) {
		began := d.stalls.now()
		time.Sleep(downAfter)
		for _, tenant := range []string{"x", "y", "z"} {
			d.stalls.failed(target(tenant)[0], began, errRefused)
		}
	}
	for name, c := range map[string]struct {
		answer  func(context.Context) error
		trouble func(t *testing.T, d *Deliverer)
		is      error
		want    string
	}{
		"while it waits, CloudWatch goes out of reach": {hang, func(_ *testing.T, d *Deliverer) { go outage(d) }, ErrDown, "out of reach: dial tcp: connection refused"},
		"CloudWatch is out of reach":                   {hang, func(_ *testing.T, d *Deliverer) { outage(d) }, ErrDown, "out of reach: dial tcp: connection refused"},
		"its call has no answer":                       {hang, func(*testing.T, *Deliverer) {}, ErrTimeout, "flush_timeout: no call has been answered yet"},
		"its stream backs off": {always(apiError("ThrottlingException")), func(_ *testing.T, d *Deliverer) {
			go func() { _, _ = flush(d, 2, target("a")) }() // a stream that nothing waits for forgets that it backs off
			time.Sleep(time.Second)
		}, ErrTimeout, "flush_timeout: ThrottlingException"},
		"another flush waits for the group": {always(apiError("ThrottlingException")), func(t *testing.T, d *Deliverer) {
			everySecond(t, d)
			time.Sleep(1500 * time.Millisecond)
			go func() { _, _ = flush(d, 2, target("a")) }()
			time.Sleep(800 * time.Millisecond) // another tenant's events arrived meanwhile
		}, ErrStalled, "another flush waits for it: ThrottlingException"},
		"the group is stalled": {always(apiError("ThrottlingException")), func(t *testing.T, d *Deliverer) {
			everySecond(t, d)
			_, err := flush(d, 2, target("a"))
			require.ErrorIs(t, err, ErrStalled)
		}, ErrStalled, "although others do: ThrottlingException"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				x := inTrouble(t)
				x.set("/eks/tenants/a", c.answer)
				d := closed(t, New(x, Config{Log: quiet, AttemptTimeout: time.Hour, Trial: func(int) time.Duration { return time.Hour },
					Backoff: func(int) time.Duration { return 40 * time.Second }}))
				c.trouble(t, d)
				ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
				defer cancel()
				err := d.Deliver(ctx, Key{1}, numbered(5), target("a"))
				require.ErrorIs(t, err, c.is)
				require.ErrorContains(t, err, c.want)
			})
		})
	}
}

// everySecond delivers something of another tenant's until the test ends.
func everySecond(t *testing.T, d *Deliverer) (failures *atomic.Int32) {
	failures = &atomic.Int32{}
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for n := 0; ; n++ {
			select {
			case <-stop:
				return
			case <-time.After(time.Second):
			}
			if took, err := flush(d, 100, target("fine")); err != nil || took > 100*time.Millisecond {
				failures.Add(1)
			}
		}
	}()
	t.Cleanup(func() { close(stop); <-done })
	return failures
}

func TestAStalledGroupHoldsAFlushForSecondsAndTheNextOnesNotAtAll(t *testing.T) {
	for name, answer := range map[string]func(context.Context) error{
		"no answer": hang,
		"throttled": always(apiError("ThrottlingException")),
		"5xx":       always(apiError("ServiceUnavailableException")),
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				x := inTrouble(t)
				x.set("/eks/tenants/slow", answer)
				var told []string
				d := closed(t, New(x, Config{Log: quiet, Trial: func(int) time.Duration { return 10 * time.Second },
					Stalled: func(to Target, stalled bool) { told = append(told, fmt.Sprint(to.Group, " ", stalled)) }}))
				failures := everySecond(t, d)
				took, err := flush(d, 1, target("slow"))
				require.ErrorIs(t, err, ErrStalled)
				require.LessOrEqual(t, took, patience+patience/4)
				for range 5 {
					took, err = flush(d, 1, target("slow"))
					require.ErrorIs(t, err, ErrStalled)
					require.Zero(t, took)
				}
				require.NotZero(t, d.Load().Oldest)
				require.ErrorIs(t, d.TurnedAway(target("slow")[0]), ErrStalled)
				// A trial: short.
				time.Sleep(11 * time.Second)
				require.NoError(t, d.TurnedAway(target("slow")[0]))
				took, err = flush(d, 3, target("slow"))
				require.ErrorIs(t, err, ErrStalled)
				require.LessOrEqual(t, took, trialPatience+trialPatience/4)
				require.NotZero(t, took)
				// When the trouble ends, the next trial succeeds, and everything after it.
				x.set("/eks/tenants/slow", nil)
				time.Sleep(20 * time.Second)
				_, err = flush(d, 1, target("slow"))
				require.NoError(t, err)
				_, err = flush(d, 3, target("slow"))
				require.NoError(t, err)
				took, err = flush(d, 2, target("slow"))
				require.NoError(t, err)
				require.LessOrEqual(t, took, 100*time.Millisecond)
				require.Equal(t, []string{"/eks/tenants/slow true", "/eks/tenants/slow false"}, told)
				require.Zero(t, failures.Load(), "another tenant's flushes")
				require.Zero(t, d.Load().Oldest)
			})
		})
	}
}

func TestWhereNobodyIsServedNoGroupIsStalled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x := inTrouble(t)
		x.set("*", always(apiError("ThrottlingException")))
		d := closed(t, New(x, Config{Log: quiet}))
		for n, tenant := range []string{"a", "b", "c", "d"} {
			took, err := flush(d, byte(n), target(tenant))
			require.ErrorIs(t, err, ErrTimeout)
			require.Equal(t, time.Minute, took)
		}
	})
}

// One chunk of many tenants (`identity record`): the stalled one's events wait, the
// others' arrive, and nothing arrives twice.
func TestAStalledDestinationIsLeftOutOfAChunkOfMany(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x := inTrouble(t)
		x.set("/eks/tenants/slow", hang)
		d := closed(t, New(x, Config{Log: quiet, Trial: func(int) time.Duration { return time.Minute }}))
		failures := everySecond(t, d)
		_, err := flush(d, 1, target("slow"))
		require.ErrorIs(t, err, ErrStalled)
		events := numbered(6)
		for i := range events.List {
			events.List[i].Dest = i % 2
		}
		to := append(target("slow"), target("b")...)
		for range 3 {
			began := time.Now()
			require.ErrorIs(t, d.Deliver(context.Background(), Key{9}, events, to), ErrStalled)
			require.LessOrEqual(t, time.Since(began), 100*time.Millisecond)
		}
		x.set("/eks/tenants/slow", nil)
		time.Sleep(2 * time.Minute)
		require.NoError(t, d.Deliver(context.Background(), Key{9}, events, to))
		got := map[string]int{}
		x.mu.Lock()
		for _, p := range x.puts {
			for _, e := range p.Events {
				if p.Group != "/eks/tenants/fine" && (p.Group == "/eks/tenants/b" || len(p.Events) == 3) {
					got[e.Message]++
				}
			}
		}
		x.mu.Unlock()
		require.Len(t, got, 6)
		for message, n := range got {
			require.Equal(t, 1, n, message)
		}
		require.Zero(t, failures.Load())
	})
}

func TestAnOutageSendsEverythingBackAtOnceAndEndsWithTheFirstAnswer(t *testing.T) {
	for name, answer := range map[string]func(context.Context) error{
		"refused":   always(errors.New("dial tcp: connection refused")),
		"no answer": hang,
		"5xx":       always(apiError("InternalFailure")),
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				x := inTrouble(t)
				x.set("*", answer)
				var told []bool
				d := closed(t, New(x, Config{Log: quiet, Trial: func(int) time.Duration { return 5 * time.Second }, Down: func(down bool) { told = append(told, down) }}))
				done := make(chan time.Duration)
				for n, tenant := range []string{"a", "b", "c", "d"} {
					go func() {
						took, err := flush(d, byte(n), target(tenant))
						require.ErrorIs(t, err, ErrDown)
						done <- took
					}()
				}
				for range 4 {
					require.LessOrEqual(t, <-done, 16*time.Second, "a call that gets no answer ends after 15 s")
				}
				require.Equal(t, []bool{true}, told)
				puts := d.Stats().Puts
				for range 50 {
					took, err := flush(d, 1, target("b"))
					require.ErrorIs(t, err, ErrDown)
					require.Zero(t, took)
				}
				require.LessOrEqual(t, d.Stats().Puts, puts+4, "no calls but those that were under way")
				require.ErrorIs(t, d.TurnedAway(target("new")[0]), ErrDown)
				// One trial, and when it is answered, everything.
				x.set("*", nil)
				time.Sleep(time.Minute)
				_, err := flush(d, 1, target("b"))
				require.NoError(t, err)
				require.Equal(t, []bool{true, false}, told)
				for n, tenant := range []string{"a", "b", "c", "d"} {
					took, err := flush(d, byte(n), target(tenant))
					require.NoError(t, err)
					require.LessOrEqual(t, took, 100*time.Millisecond)
				}
			})
		})
	}
}

// What fails for one tenant alone says nothing of the others, of which nothing was tried.
func TestATenantsOwnFailuresAreNoOutageForTheOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x := inTrouble(t)
		x.set("/eks/tenants/a", always(errors.New("connection reset")))
		d := closed(t, New(x, Config{Log: quiet, Trial: func(int) time.Duration { return time.Hour }}))
		took, err := flush(d, 1, target("a"))
		require.ErrorIs(t, err, ErrDown)
		require.Less(t, took, 10*time.Second)
		took, err = flush(d, 2, target("b"))
		require.NoError(t, err)
		require.LessOrEqual(t, took, 100*time.Millisecond)
	})
}

func TestAFewFailuresInAMomentAreNoOutage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x := inTrouble(t)
		n := 0
		x.set("/eks/tenants/a", func(context.Context) error {
			if n++; n <= 4 {
				return errors.New("connection reset")
			}
			return nil
		})
		d := closed(t, New(x, Config{Log: quiet, Backoff: func(int) time.Duration { return 100 * time.Millisecond }}))
		_, err := flush(d, 1, target("a"))
		require.NoError(t, err)
	})
}

// A chunk of many tenants comes again for the sake of one: the trial is for that one.
func TestATrialIsNotSpentOnADestinationThatHasNothingToSend(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x := inTrouble(t)
		x.set("/eks/tenants/b", always(errors.New("connection reset")))
		d := closed(t, New(x, Config{Log: quiet, Trial: func(int) time.Duration { return 5 * time.Second }}))
		events := numbered(6)
		for i := range events.List {
			events.List[i].Dest = i % 2
		}
		to := append(target("a"), target("b")...)
		to = append(to, target("c")...) // of which there is no event
		deliver := func() error {
			ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
			defer cancel()
			return d.Deliver(ctx, Key{9}, events, to)
		}
		require.ErrorIs(t, deliver(), ErrStalled, "a's events arrive, b's do not")
		x.set("/eks/tenants/b", nil)
		x.set("*", always(errors.New("connection reset")))
		for n, tenant := range []string{"c", "d", "e"} { // now it is everybody's
			_, err := flush(d, byte(n), target(tenant))
			require.ErrorIs(t, err, ErrDown)
		}
		x.set("*", nil)
		time.Sleep(6 * time.Second)
		require.NoError(t, deliver())
	})
}

// While CloudWatch is out of reach a stalled group waits for its own trial; it must not
// spend everybody's on that.
func TestAStalledGroupDoesNotSpendTheTrialOfAnOutage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x := inTrouble(t)
		d := closed(t, New(x, Config{Log: quiet, Trial: func(int) time.Duration { return 5 * time.Second }}))
		s := d.stalls
		slow, fine := target("slow")[0], target("fine")[0]
		began := s.now()
		time.Sleep(time.Second)
		s.succeeded(fine, 20*time.Millisecond)
		for _, tenant := range []string{"slow", "b", "c"} {
			s.failed(target(tenant)[0], began, errors.New("connection reset"))
			time.Sleep(2 * time.Second)
		}
		require.ErrorIs(t, d.TurnedAway(fine), ErrDown)
		time.Sleep(4 * time.Second)
		require.True(t, s.stall(slow, began), "marked later than the outage: its trial comes later")
		time.Sleep(2 * time.Second)
		_, err := s.turned(slow, false)
		require.ErrorIs(t, err, ErrStalled)
		trial, err := s.turned(fine, false)
		require.NoError(t, err)
		require.True(t, trial)
	})
}

// To find the event at fault takes a call for each half: that is no stall.
func TestTheSearchForAnInvalidEventIsNoStall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x := inTrouble(t)
		x.answer = func(_ context.Context, p put) (awsclient.Rejected, error) {
			time.Sleep(400 * time.Millisecond)
			if p.Group == "/eks/tenants/a" && p.Events[0].Message == "event 0" {
				return awsclient.Rejected{}, apiError("InvalidParameterException")
			}
			return awsclient.Rejected{}, nil
		}
		var told []string
		d := closed(t, New(x, Config{Log: quiet, Stalled: func(to Target, is bool) { told = append(told, fmt.Sprint(to.Group, is)) }}))
		stop, done := make(chan struct{}), make(chan struct{})
		go func() {
			defer close(done)
			for {
				select {
				case <-stop:
					return
				case <-time.After(100 * time.Millisecond):
					_, _ = flush(d, 100, target("fine"))
				}
			}
		}()
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		err := d.Deliver(ctx, Key{1}, makeEvents(make([]int64, 9000), func(i int) string { return fmt.Sprint("event ", i) }), target("a"))
		close(stop)
		<-done
		require.NoError(t, err)
		require.Empty(t, told)
	})
}

// Answers that come after every flush has left must not be the first ones each time: what
// they say of an event is kept with the chunk.
func TestAnEventThatIsRefusedArrivesAlsoWhereEveryAnswerIsSlowerThanAFlushWaits(t *testing.T) {
	const now = int64(1_700_000_000_000)
	for name, test := range map[string]struct {
		answer func(p put) (awsclient.Rejected, error)
		marked string
		count  func(Stats) int64
	}{
		"invalid": {func(p put) (awsclient.Rejected, error) {
			for _, e := range p.Events {
				if e.Message == "event 13" {
					return awsclient.Rejected{}, apiError("InvalidParameterException")
				}
			}
			return awsclient.Rejected{}, nil
		}, reasonInvalid, func(s Stats) int64 { return s.Enveloped }},
		"too old": {func(p put) (r awsclient.Rejected, _ error) {
			for _, e := range p.Events {
				if e.Timestamp == 0 {
					r.Old++
				}
			}
			return r, nil
		}, "too_old", func(s Stats) int64 { return s.Restamped }},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				x := inTrouble(t)
				arrived := map[string]int{}
				x.answer = func(_ context.Context, p put) (awsclient.Rejected, error) {
					if p.Group != "/eks/tenants/slow" {
						return awsclient.Rejected{}, nil
					}
					time.Sleep(2 * time.Second)
					rejected, err := test.answer(p)
					x.mu.Lock()
					defer x.mu.Unlock()
					for _, e := range p.Events[rejected.Old:] {
						if err == nil {
							arrived[e.Message]++
						}
					}
					return rejected, err
				}
				d := closed(t, New(x, Config{Log: quiet, Patience: 200 * time.Millisecond}))
				stop, done := make(chan struct{}), make(chan struct{})
				go func() {
					defer close(done)
					for {
						select {
						case <-stop:
							return
						case <-time.After(50 * time.Millisecond):
							_, _ = flush(d, 100, target("fine"))
						}
					}
				}()
				at := make([]int64, 20)
				for i := range at {
					at[i] = now
				}
				at[13] = 0
				if name == "invalid" {
					at[13] = now
				}
				rounds := 0
				for err := errors.New("not yet"); err != nil && rounds < 40; rounds++ {
					err = d.Deliver(context.Background(), Key{1}, makeEvents(at, func(i int) string { return fmt.Sprint("event ", i) }), target("slow"))
					time.Sleep(3 * time.Second) // until Fluent Bit brings the chunk again
				}
				close(stop)
				<-done
				require.Less(t, rounds, 40, "it never arrived: %v", arrived)
				require.Greater(t, rounds, 1, "a flush that waited proves nothing")
				require.Len(t, arrived, 20)
				marked := 0
				for message, n := range arrived {
					require.Equal(t, 1, n, message)
					if strings.Contains(message, "_tenantlogs") {
						require.Contains(t, message, "event 13")
						require.Contains(t, message, test.marked)
						marked++
					}
				}
				require.Equal(t, 1, marked)
				require.NotZero(t, test.count(d.Stats()))
			})
		})
	}
}

func TestWhatCloudWatchFindsWantingIsNoOutage(t *testing.T) {
	for name, answer := range map[string]error{
		"invalid":   apiError("InvalidParameterException"),
		"not found": apiError("ResourceNotFoundException"),
		"denied":    apiError("AccessDeniedException"),
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				x := inTrouble(t)
				x.ensure = func(Target) error { return answer }
				x.set("*", always(errors.New("connection refused")))
				d := closed(t, New(x, Config{Log: quiet, Trial: func(int) time.Duration { return time.Second }}))
				for n, tenant := range []string{"a", "b", "c"} {
					_, _ = flush(d, byte(n), target(tenant))
				}
				require.ErrorIs(t, d.TurnedAway(Target{}), ErrDown)
				x.set("*", always(answer))
				time.Sleep(2 * time.Second)
				_, err := flush(d, 1, target("a"))
				require.Error(t, err)
				require.NoError(t, d.TurnedAway(Target{}), "an answer came")
			})
		})
	}
}

func TestTheEndOfALongStallIsSaid(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		s := newStalls(slog.New(slog.NewTextHandler(&log, nil)), time.Now)
		began := s.now()
		time.Sleep(time.Second)
		s.succeeded(target("fine")[0], 20*time.Millisecond)
		require.True(t, s.stall(target("slow")[0], began))
		time.Sleep(2 * sayAgain)
		s.succeeded(target("slow")[0], 20*time.Millisecond)
		require.Contains(t, log.String(), "takes events again")
	})
}

func TestATrialIsShortAlsoWhereNobodyElseIsServed(t *testing.T) {
	for name, answer := range map[string]func(context.Context) error{
		"no answer": hang,
		"throttled": always(apiError("ThrottlingException")),
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				x := inTrouble(t)
				d := closed(t, New(x, Config{Log: quiet, Trial: func(int) time.Duration { return 5 * time.Second }}))
				began := d.stalls.now()
				time.Sleep(time.Second)
				d.stalls.succeeded(target("fine")[0], 20*time.Millisecond)
				require.True(t, d.stalls.stall(target("slow")[0], began))
				time.Sleep(6 * time.Second)
				x.set("/eks/tenants/slow", answer)
				took, err := flush(d, 1, target("slow"))
				require.ErrorIs(t, err, ErrStalled)
				require.NotZero(t, took)
				require.LessOrEqual(t, took, trialPatience+trialPatience/4)

				x.set("*", always(errors.New("connection reset")))
				for n, tenant := range []string{"a", "b", "c"} {
					_, err := flush(d, byte(10+n), target(tenant))
					require.ErrorIs(t, err, ErrDown)
				}
				x.set("*", answer)
				time.Sleep(6 * time.Second)
				took, err = flush(d, 2, target("a"))
				require.ErrorIs(t, err, ErrDown)
				require.NotZero(t, took)
				require.LessOrEqual(t, took, trialPatience+trialPatience/4)
			})
		})
	}
}

// Every flush that waits holds a worker: one is enough to learn that a group takes nothing.
func TestOneFlushWaitsForAGroupThatTakesNothingAndTheOthersLeave(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x := inTrouble(t)
		x.set("/eks/tenants/slow", hang)
		var marked atomic.Int32
		d := closed(t, New(x, Config{Log: quiet, Trial: func(int) time.Duration { return time.Hour },
			Stalled: func(Target, bool) { marked.Add(1) }}))
		for n := range 50 {
			_, err := flush(d, byte(100+n), target("fine"))
			require.NoError(t, err)
		}
		failures := everySecond(t, d)
		stop := make(chan struct{})
		var busy sync.WaitGroup
		busy.Go(func() { // others are served all the while
			for n := 0; ; n++ {
				select {
				case <-stop:
					return
				case <-time.After(30 * time.Millisecond):
					_, _ = flush(d, 99, target("busy"))
				}
			}
		})
		var wg sync.WaitGroup
		var first atomic.Int32
		for n := range 6 {
			wg.Go(func() {
				to := Target{Group: "/eks/tenants/slow", Stream: fmt.Sprint(n)}
				took, err := flush(d, byte(n), []Target{to})
				if !errors.Is(err, ErrStalled) {
					t.Errorf("flush %d: %v", n, err)
				}
				if took > leastSecond+leastSecond/4 {
					first.Add(1)
					if took > leastPatience+leastPatience/4 {
						t.Errorf("flush %d took %v", n, took)
					}
				}
			})
		}
		wg.Wait()
		close(stop)
		busy.Wait()
		require.EqualValues(t, 1, first.Load(), "flushes that waited for long")
		require.EqualValues(t, 1, marked.Load())
		require.Empty(t, d.stalls.waits)
		require.Zero(t, failures.Load())
	})
}

func TestHowLongAFlushWaitsFollowsWhatAnswersTake(t *testing.T) {
	now := time.Unix(1e9, 0)
	s := newStalls(quiet, func() time.Time { return now })
	waits := func(most time.Duration) []time.Duration {
		first, second := s.patience(here[0], most)
		return []time.Duration{first.Round(100 * time.Millisecond), second.Round(50 * time.Millisecond)}
	}
	require.Equal(t, []time.Duration{patience, patience}, waits(patience), "nothing is known yet")
	for _, test := range []struct{ answer, first, second time.Duration }{
		{20 * time.Millisecond, leastPatience, leastSecond},
		{100 * time.Millisecond, 2 * time.Second, time.Second},
		{time.Second, patience, patience},
		{20 * time.Millisecond, leastPatience, leastSecond},
	} {
		for range 500 {
			s.succeeded(here[0], test.answer)
		}
		require.Equal(t, []time.Duration{test.first, test.second}, waits(patience), test)
		require.Equal(t, []time.Duration{100 * time.Millisecond, 100 * time.Millisecond}, waits(100*time.Millisecond), test)
	}
	s.struggled(here[0], errRefused)
	require.Equal(t, []time.Duration{leastPatience, leastSecond}, waits(patience), "its own failures")
	s.struggled(target("other")[0], errRefused)
	require.Equal(t, []time.Duration{patience, patience}, waits(patience), "another fails as well")
	s.struggled(here[0], errRefused)
	require.Equal(t, []time.Duration{patience, patience}, waits(patience), "both do")
	now = now.Add(lately + time.Second)
	require.Equal(t, []time.Duration{leastPatience, leastSecond}, waits(patience), "that was long ago")
}

// With slow answers for everybody nobody leaves early.
func TestWhereAllAnswersAreSlowFlushesWaitForTheirs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x := inTrouble(t)
		x.set("*", func(context.Context) error { time.Sleep(900 * time.Millisecond); return nil })
		d := closed(t, New(x, Config{Log: quiet}))
		for round := range 5 {
			var wg sync.WaitGroup
			for n := range 8 {
				wg.Go(func() {
					if _, err := flush(d, byte(10*round+n), []Target{{Group: fmt.Sprint("/eks/tenants/", n%3), Stream: fmt.Sprint(n)}}); err != nil {
						t.Errorf("round %d: %v", round, err)
					}
				})
			}
			wg.Wait()
		}
	})
}

// In a chunk of many tenants one's trial is short, and the others have their time.
func TestATrialBesideASlowAnswerDoesNotMarkWhoIsSlow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x := inTrouble(t)
		var told []string
		d := closed(t, New(x, Config{Log: quiet, Trial: func(int) time.Duration { return 5 * time.Second },
			Stalled: func(to Target, is bool) { told = append(told, fmt.Sprint(to.Group, " ", is)) }}))
		failures := everySecond(t, d)
		x.set("/eks/tenants/a", hang)
		_, err := flush(d, 1, target("a"))
		require.ErrorIs(t, err, ErrStalled)
		x.set("/eks/tenants/b", func(context.Context) error { time.Sleep(900 * time.Millisecond); return nil })
		time.Sleep(16 * time.Second)
		events := numbered(6)
		for i := range events.List {
			events.List[i].Dest = i % 2
		}
		require.ErrorIs(t, d.Deliver(context.Background(), Key{9}, events, append(target("a"), target("b")...)), ErrStalled)
		require.Equal(t, []string{"/eks/tenants/a true"}, told)
		require.Zero(t, failures.Load())
	})
}

// A chunk that goes to quarantine now may still hang where it went before.
func TestWhereAChunkGoesNextIsNotBlamedForWhereItHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x := inTrouble(t)
		x.set("/eks/tenants/slow", hang)
		var told []string
		d := closed(t, New(x, Config{Log: quiet, Stalled: func(to Target, is bool) { told = append(told, fmt.Sprint(to.Group, " ", is)) }}))
		failures := everySecond(t, d)
		_, err := flush(d, 1, target("slow"))
		require.ErrorIs(t, err, ErrStalled)
		took, err := flush(d, 1, target("quarantine"))
		require.ErrorIs(t, err, errUnderWay)
		require.LessOrEqual(t, took, patience+patience/4)
		require.Equal(t, []string{"/eks/tenants/slow true"}, told)
		time.Sleep(15 * time.Second)
		_, err = flush(d, 1, target("quarantine"))
		require.NoError(t, err)
		require.Zero(t, failures.Load())
	})
}

func TestAGroupIsNotMarkedForWhatIsForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := closed(t, New(inTrouble(t), Config{Log: quiet})).stalls
		began := s.now()
		time.Sleep(time.Second)
		for n := range maxStalled + 1 {
			s.succeeded(target(fmt.Sprint("t", n))[0], 20*time.Millisecond)
		}
		require.True(t, s.stall(target("t0")[0], began), "others are served")
		require.Empty(t, s.groups, "it took something a moment ago")
	})
}

// Creations are the account's quota: a stream that waits for its own says nothing of the
// group, whose other streams are served.
func TestAStreamThatIsBeingCreatedLeavesItsWorkerAndMarksNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x := inTrouble(t)
		made := false
		x.ensure = func(to Target) error {
			time.Sleep(20 * time.Second)
			x.mu.Lock()
			defer x.mu.Unlock()
			made = true
			return nil
		}
		x.set("/eks/tenants/new", func(context.Context) error {
			x.mu.Lock()
			defer x.mu.Unlock()
			if !made {
				return apiError("ResourceNotFoundException")
			}
			return nil
		})
		d := closed(t, New(x, Config{Log: quiet, Stalled: func(to Target, _ bool) { t.Errorf("%s was called stalled", to.Group) }}))
		failures := everySecond(t, d)
		took, err := flush(d, 1, target("new"))
		require.ErrorIs(t, err, errCreating)
		require.LessOrEqual(t, took, patience+patience/4)
		time.Sleep(20 * time.Second)
		_, err = flush(d, 1, target("new"))
		require.NoError(t, err)
		require.Zero(t, failures.Load())
	})
}

// A pod that is gone, or whose events go to quarantine now, leaves no mark and no age for ever.
func TestAStalledGroupToWhichNobodySendsIsForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x := inTrouble(t)
		x.set("/eks/tenants/slow", hang)
		var told []bool
		d := closed(t, New(x, Config{Log: quiet, LedgerSize: 1, Stalled: func(_ Target, stalled bool) { told = append(told, stalled) }}))
		everySecond(t, d)
		for n := range 2 {
			_, err := flush(d, byte(n), target("slow"))
			require.ErrorIs(t, err, ErrStalled)
		}
		require.False(t, d.stalls.waiting().IsZero())
		time.Sleep(forgetStalled + time.Minute)
		require.True(t, d.stalls.waiting().IsZero())
		require.Equal(t, []bool{true, false}, told)
	})
}
