package delivery

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aws/smithy-go"
	"github.com/klauspost/compress/gzip"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
	"pgregory.net/rapid"

	"github.com/eks-tenant-logs/eks-tenant-logs/internal/awsclient"
	"github.com/eks-tenant-logs/eks-tenant-logs/internal/chunk"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var quiet = slog.New(slog.DiscardHandler)

// put is one call as the other side saw it.
type put struct {
	Group  string `json:"logGroupName"`
	Stream string `json:"logStreamName"`
	Events []struct {
		Timestamp int64  `json:"timestamp"`
		Message   string `json:"message"`
	} `json:"logEvents"`
}

// logsFunc answers calls with a function, after checking every documented limit.
type logsFunc struct {
	t      interface{ Errorf(string, ...any) }
	answer func(ctx context.Context, p put) (awsclient.Rejected, error)
	ensure func(Target) error

	mu   sync.Mutex
	puts []put
	// live are the calls under way for a stream, by the times they carry.
	live map[Target][]times
	most int // calls at once for one stream
}

type times map[int64]bool

func (l *logsFunc) broken(format string, args ...any) (awsclient.Rejected, error) {
	l.t.Errorf(format, args...)
	return awsclient.Rejected{}, fmt.Errorf(format, args...)
}

func (l *logsFunc) Put(ctx context.Context, target Target, body awsclient.Body, count int) (awsclient.Rejected, error) {
	group, stream := target.Group, target.Stream
	raw := body.Bytes
	if body.Gzip {
		z, err := gzip.NewReader(bytes.NewReader(raw))
		if err != nil {
			return l.broken("body: %v", err)
		}
		if raw, err = io.ReadAll(z); err != nil {
			return l.broken("body: %v", err)
		}
	}
	var p put
	if err := json.Unmarshal(raw, &p); err != nil {
		return l.broken("body: %v", err)
	}
	if p.Group != group || p.Stream != stream || len(p.Events) != count || count == 0 || count > MaxBatchEvents {
		return l.broken("%d events announced, %d sent, to %s/%s", count, len(p.Events), p.Group, p.Stream)
	}
	size := 0
	for i, e := range p.Events {
		size += len(e.Message) + EventOverhead
		if i > 0 && e.Timestamp < p.Events[i-1].Timestamp {
			return l.broken("events out of order")
		}
	}
	if size > MaxBatchBytes || p.Events[count-1].Timestamp-p.Events[0].Timestamp > MaxBatchSpan {
		return l.broken("%d bytes over %d ms", size, p.Events[count-1].Timestamp-p.Events[0].Timestamp)
	}
	if err := l.enter(target, p); err != nil {
		l.t.Errorf("%v", err)
		return awsclient.Rejected{}, err
	}
	defer l.leave(target, p)
	if l.answer == nil {
		return awsclient.Rejected{}, nil
	}
	return l.answer(ctx, p)
}

// enter notes a call, and holds it against those under way: no order may depend on
// which is faster, so they must have no time in common.
func (l *logsFunc) enter(target Target, p put) error {
	here := times{}
	for _, e := range p.Events {
		here[e.Timestamp] = true
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.live == nil {
		l.live = map[Target][]times{}
	}
	for _, other := range l.live[target] {
		for at := range here {
			if other[at] {
				return fmt.Errorf("two calls at once for %v with events of %d", target, at)
			}
		}
	}
	l.live[target] = append(l.live[target], here)
	l.most = max(l.most, len(l.live[target]))
	l.puts = append(l.puts, p)
	return nil
}

func (l *logsFunc) leave(target Target, p put) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.live[target] = slices.DeleteFunc(l.live[target], func(other times) bool { return other[p.Events[0].Timestamp] })
}

func (l *logsFunc) EnsureStream(_ context.Context, t Target) error {
	if l.ensure == nil {
		return nil
	}
	return l.ensure(t)
}

func apiError(code string) error { return &smithy.GenericAPIError{Code: code, Message: "test"} }

func soon(int) time.Duration { return time.Millisecond }

// events makes a chunk's events: message i at times[i].
func makeEvents(times []int64, message func(i int) string) *chunk.Events {
	ev := &chunk.Events{}
	for i, at := range times {
		from := len(ev.Arena)
		ev.Arena = append(ev.Arena, message(i)...)
		ev.List = append(ev.List, chunk.Event{Timestamp: at, From: from, To: len(ev.Arena), Record: i})
	}
	return ev
}

func numbered(n int) *chunk.Events {
	return makeEvents(make([]int64, n), func(i int) string { return fmt.Sprint("event ", i) })
}

var here = []Target{{Group: "/eks/tenants/acme", Stream: "s"}}

func closed(t interface{ Cleanup(func()) }, d *Deliverer) *Deliverer {
	t.Cleanup(func() { d.Close(context.Background()) })
	return d
}

func TestBatchesStayWithinEveryLimit(t *testing.T) {
	day := int64(24 * 3600 * 1000)
	for name, test := range map[string]struct {
		events *chunk.Events
		puts   []int // events of each call
	}{
		"one event":                   {numbered(1), []int{1}},
		"exactly 10,000 events":       {numbered(MaxBatchEvents), []int{MaxBatchEvents}},
		"one more":                    {numbered(MaxBatchEvents + 1), []int{MaxBatchEvents, 1}},
		"exactly 24 hours":            {makeEvents([]int64{0, day}, func(int) string { return "x" }), []int{2}},
		"a millisecond more":          {makeEvents([]int64{0, day + 1}, func(int) string { return "x" }), []int{1, 1}},
		"24 hours, the later first":   {makeEvents([]int64{day + 1, 0}, func(int) string { return "x" }), []int{1, 1}},
		"the largest event":           {makeEvents([]int64{0}, func(int) string { return string(make([]byte, 0)) + bigString(chunk.MaxMessage) }), []int{1}},
		"exactly 1,048,576 bytes":     {makeEvents([]int64{0, 0}, func(i int) string { return bigString(MaxBatchBytes/2 - EventOverhead) }), []int{2}},
		"one byte more":               {makeEvents([]int64{0, 0}, func(i int) string { return bigString(MaxBatchBytes/2 - EventOverhead + i) }), []int{1, 1}},
		"bytes count, not characters": {makeEvents([]int64{0, 0}, func(i int) string { return string(bytes.Repeat([]byte("é"), 262144-EventOverhead/2+i)) }), []int{1, 1}},
	} {
		t.Run(name, func(t *testing.T) {
			l := &logsFunc{t: t}
			d := closed(t, New(l, Config{Log: quiet, Compress: true}))
			require.NoError(t, d.Deliver(context.Background(), Key{}, test.events, here))
			var got []int
			for _, p := range l.puts {
				got = append(got, len(p.Events))
			}
			require.Equal(t, test.puts, got)
		})
	}
}

func bigString(n int) string { return string(bytes.Repeat([]byte("a"), n)) }

func TestEventsOfTheSameTimeKeepTheirOrder(t *testing.T) {
	times := []int64{5, 3, 5, 3, 5, 1}
	ev := makeEvents(times, func(i int) string { return fmt.Sprint(i) })
	l := &logsFunc{t: t}
	fails := 0
	l.answer = func(context.Context, put) (awsclient.Rejected, error) {
		if fails++; fails <= 2 {
			return awsclient.Rejected{}, apiError("ThrottlingException")
		}
		return awsclient.Rejected{}, nil
	}
	d := closed(t, New(l, Config{Log: quiet, Backoff: soon}))
	require.NoError(t, d.Deliver(context.Background(), Key{}, ev, here))
	for _, p := range l.puts {
		var got string
		for _, e := range p.Events {
			got += e.Message
		}
		require.Equal(t, "513024", got)
	}
}

// A call that was refused for credentials that have been replaced is made again while its flush
// waits; one whose credentials are all there is gives its chunk back.
func TestACallRefusedForItsCredentialsIsMadeAgainWithOthers(t *testing.T) {
	for again, calls := range map[bool]int{true: 2, false: 1} {
		l := &logsFunc{t: t}
		made := 0
		l.answer = func(context.Context, put) (awsclient.Rejected, error) {
			if made++; made == 1 {
				return awsclient.Rejected{}, &awsclient.RefusedError{Again: again, Err: apiError("ExpiredTokenException")}
			}
			return awsclient.Rejected{}, nil
		}
		d := closed(t, New(l, Config{Log: quiet, Backoff: soon}))
		err := d.Deliver(context.Background(), Key{}, numbered(3), here)
		if again {
			require.NoError(t, err)
		} else {
			var e *Error
			require.ErrorAs(t, err, &e)
			require.Equal(t, awsclient.ClassCredentials, e.Class)
		}
		require.Equal(t, calls, made)
	}
}

// waits until n runs of events wait for the stream.
func waits(t *testing.T, d *Deliverer, n int) {
	t.Helper()
	require.Eventually(t, func() bool {
		d.mu.Lock()
		s := d.senders[here[0]]
		d.mu.Unlock()
		s.mu.Lock()
		defer s.mu.Unlock()
		return len(s.queue) == n
	}, 10*time.Second, time.Millisecond)
}

func TestFlushesAtTheSameTimeShareABatch(t *testing.T) {
	l := &logsFunc{t: t}
	first := make(chan struct{})
	release := make(chan struct{})
	var once sync.Once
	l.answer = func(context.Context, put) (awsclient.Rejected, error) {
		once.Do(func() { close(first); <-release })
		return awsclient.Rejected{}, nil
	}
	d := closed(t, New(l, Config{Log: quiet}))
	var wg sync.WaitGroup
	deliver := func(k byte) {
		defer wg.Done()
		require.NoError(t, d.Deliver(context.Background(), Key{k}, numbered(3), here))
	}
	wg.Add(5)
	go deliver(0)
	<-first
	for k := range 4 {
		go deliver(byte(k + 1))
	}
	// The four are joined while the first call is under way.
	waits(t, d, 4)
	close(release)
	wg.Wait()
	require.Len(t, l.puts, 2)
	require.Len(t, l.puts[1].Events, 12)
}

func TestARetriedChunkSendsOnlyTheRest(t *testing.T) {
	ev := makeEvents(make([]int64, 3), func(i int) string { return bigString(600_000) + fmt.Sprint(i) })
	l := &logsFunc{t: t}
	calls := 0
	l.answer = func(context.Context, put) (awsclient.Rejected, error) {
		if calls++; calls == 2 {
			return awsclient.Rejected{}, apiError("AccessDeniedException")
		}
		return awsclient.Rejected{}, nil
	}
	d := closed(t, New(l, Config{Log: quiet}))
	var e *Error
	require.ErrorAs(t, d.Deliver(context.Background(), Key{1}, ev, here), &e)
	require.Equal(t, awsclient.ClassDenied, e.Class)
	require.NoError(t, d.Deliver(context.Background(), Key{1}, ev, here))
	accepted := map[string]int{}
	for i, p := range l.puts {
		if i != 1 {
			for _, e := range p.Events {
				accepted[e.Message[600_000:]]++
			}
		}
	}
	require.Equal(t, map[string]int{"0": 1, "1": 1, "2": 1}, accepted)
}

func TestTwoIdenticalChunksBothArrive(t *testing.T) {
	l := &logsFunc{t: t}
	fail := true
	l.answer = func(context.Context, put) (awsclient.Rejected, error) {
		if fail {
			return awsclient.Rejected{}, apiError("AccessDeniedException")
		}
		return awsclient.Rejected{}, nil
	}
	d := closed(t, New(l, Config{Log: quiet}))
	require.Error(t, d.Deliver(context.Background(), Key{1}, numbered(2), here))
	require.Error(t, d.Deliver(context.Background(), Key{1}, numbered(2), here))
	fail = false
	require.NoError(t, d.Deliver(context.Background(), Key{1}, numbered(2), here))
	require.NoError(t, d.Deliver(context.Background(), Key{1}, numbered(2), here))
	require.EqualValues(t, 4, d.Stats().Events)
}

func TestAFlushThatLeavesTakesBackWhatWasNotSent(t *testing.T) {
	l := &logsFunc{t: t}
	inside, release := make(chan struct{}, 1), make(chan struct{})
	l.answer = func(ctx context.Context, p put) (awsclient.Rejected, error) {
		inside <- struct{}{}
		<-release
		return awsclient.Rejected{}, nil
	}
	d := closed(t, New(l, Config{Log: quiet}))
	ev := makeEvents(make([]int64, 2), func(i int) string { return bigString(600_000) + fmt.Sprint(i) })
	ctx, cancel := context.WithCancel(context.Background())
	left := make(chan error)
	go func() { left <- d.Deliver(ctx, Key{1}, ev, here) }()
	<-inside
	cancel()
	require.ErrorIs(t, <-left, ErrTimeout)
	// The memory is Fluent Bit's again.
	for i := range ev.Arena {
		ev.Arena[i] = 0xDD
	}
	ev = makeEvents(make([]int64, 2), func(i int) string { return bigString(600_000) + fmt.Sprint(i) })
	again := make(chan error)
	go func() { again <- d.Deliver(context.Background(), Key{1}, ev, here) }()
	release <- struct{}{} // the first answer comes, after its flush left
	<-inside              // the second half, sent by the retry
	release <- struct{}{}
	require.NoError(t, <-again)
	require.Len(t, l.puts, 2)
	for i, p := range l.puts {
		require.Len(t, p.Events, 1)
		require.Equal(t, fmt.Sprint(i), p.Events[0].Message[600_000:])
	}
}

func TestAMissingStreamIsCreatedOnce(t *testing.T) {
	l := &logsFunc{t: t}
	created := 0
	l.ensure = func(Target) error { created++; return nil }
	l.answer = func(context.Context, put) (awsclient.Rejected, error) {
		if created == 0 {
			return awsclient.Rejected{}, apiError("ResourceNotFoundException")
		}
		return awsclient.Rejected{}, nil
	}
	d := closed(t, New(l, Config{Log: quiet}))
	require.NoError(t, d.Deliver(context.Background(), Key{}, numbered(5), here))
	require.Equal(t, 1, created)
}

func TestAStreamThatCannotBeCreatedSaysSo(t *testing.T) {
	l := &logsFunc{t: t}
	l.ensure = func(Target) error { return apiError("AccessDeniedException") }
	l.answer = func(context.Context, put) (awsclient.Rejected, error) {
		return awsclient.Rejected{}, apiError("ResourceNotFoundException")
	}
	d := closed(t, New(l, Config{Log: quiet}))
	var e *Error
	require.ErrorAs(t, d.Deliver(context.Background(), Key{}, numbered(5), here), &e)
	require.Equal(t, awsclient.ClassDenied, e.Class)
	require.Equal(t, here[0], e.Target)
}

func TestEventsRejectedForTheirTimeGoAgainWithAnother(t *testing.T) {
	l := &logsFunc{t: t}
	l.answer = func(_ context.Context, p put) (awsclient.Rejected, error) {
		var r awsclient.Rejected
		for _, e := range p.Events {
			switch {
			case e.Timestamp < 100:
				r.Old++
			case e.Timestamp > 1000:
				r.New++
			}
		}
		return r, nil
	}
	now := time.UnixMilli(500)
	d := closed(t, New(l, Config{Log: quiet, Now: func() time.Time { return now }}))
	ev := makeEvents([]int64{1, 200, 2000, 2, 300}, func(i int) string { return fmt.Sprint("m", i) })
	require.NoError(t, d.Deliver(context.Background(), Key{}, ev, here))
	require.EqualValues(t, 5, d.Stats().Events)
	require.EqualValues(t, 3, d.Stats().Restamped)
	require.Contains(t, l.puts[1].Events[0].Message, `"original_time":"1970-01-01T00:00:00.001Z"`)

	// A clock that is wrong on one side is no reason to turn in circles.
	l.answer = func(_ context.Context, p put) (awsclient.Rejected, error) {
		return awsclient.Rejected{Old: len(p.Events)}, nil
	}
	require.ErrorContains(t, d.Deliver(context.Background(), Key{}, numbered(2), here), "clock")
}

// rejecting answers as CloudWatch does whose time is at: it takes 14 days before, 2 hours ahead.
func rejecting(at func() time.Time) func(context.Context, put) (awsclient.Rejected, error) {
	return func(_ context.Context, p put) (awsclient.Rejected, error) {
		var r awsclient.Rejected
		for _, e := range p.Events {
			switch {
			case e.Timestamp < at().Add(-14*24*time.Hour).UnixMilli():
				r.Old++
			case e.Timestamp > at().Add(2*time.Hour).UnixMilli():
				r.New++
			}
		}
		return r, nil
	}
}

// What was given a present time that turned out to be wrong is given AWS's in the same flush, the
// rest of a message in parts too.
func TestAnEventThatWasRestampedByAWrongClockGoesAgain(t *testing.T) {
	aws := time.Now()
	for name, test := range map[string]struct {
		ahead time.Duration
		size  int
		puts  int
	}{
		"ahead":           {3 * time.Hour, 10, 3},
		"behind":          {-15 * 24 * time.Hour, 10, 3},
		"behind in parts": {-15 * 24 * time.Hour, chunk.MaxMessage - 10, 4},
	} {
		t.Run(name, func(t *testing.T) {
			l := &logsFunc{t: t}
			calls := 0
			var skew atomic.Int64 // what is known of it
			takes := rejecting(func() time.Time { return aws })
			l.answer = func(ctx context.Context, p put) (awsclient.Rejected, error) {
				if calls++; calls == 2 { // the second answer is believed
					skew.Store(int64(test.ahead))
				}
				return takes(ctx, p)
			}
			d := closed(t, New(l, Config{Log: quiet, Now: func() time.Time { return aws.Add(test.ahead) },
				Skew: func() time.Duration { return time.Duration(skew.Load()) }}))
			ev := makeEvents([]int64{aws.Add(test.ahead).UnixMilli()}, func(int) string { return strings.Repeat("x", test.size) })
			require.NoError(t, d.Deliver(context.Background(), Key{}, ev, here))
			require.Len(t, l.puts, test.puts)
			for _, p := range l.puts[2:] {
				require.EqualValues(t, aws.UnixMilli(), p.Events[0].Timestamp)
				require.Contains(t, p.Events[0].Message, `"original_time":"`+aws.Add(test.ahead).UTC().Format("2006-01-02T15:04"))
			}
		})
	}
}

// A clock that tells another time at each answer makes no endless round.
func TestAClockThatIsNeverRightIsGivenUp(t *testing.T) {
	l := &logsFunc{t: t}
	l.answer = func(_ context.Context, p put) (awsclient.Rejected, error) {
		return awsclient.Rejected{Old: len(p.Events)}, nil
	}
	var looks atomic.Int64
	d := closed(t, New(l, Config{Log: quiet, Skew: func() time.Duration { return time.Duration(looks.Add(1)) * time.Hour }}))
	require.ErrorContains(t, d.Deliver(context.Background(), Key{}, numbered(2), here), "clock")
	require.Len(t, l.puts, 2+maxStamps)
}

// TestNothingLostNothingTwice drives many flushes through a service that fails in
// every way it can without hiding an answer, until every chunk is OK. Every event
// must have been accepted exactly once.
func TestNothingLostNothingTwice(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		seed := rapid.Uint64().Draw(t, "seed")
		failing := rapid.IntRange(0, 70).Draw(t, "percent failing")
		chunks := rapid.IntRange(1, 12).Draw(t, "chunks")
		streams := rapid.IntRange(1, 3).Draw(t, "streams")
		var mu sync.Mutex
		rng := rand.New(rand.NewPCG(seed, 1))
		roll := func(n int) int {
			mu.Lock()
			defer mu.Unlock()
			return rng.IntN(n)
		}
		accepted := map[string]int{}
		// Of one chunk, events of the same time arrive in their order.
		type place struct {
			group, stream string
			chunk         int
			at            int64
		}
		order := map[place]int{}
		var wrong []string
		wrongChunks, moved := map[int]bool{}, map[int]bool{}
		l := &logsFunc{t: t}
		l.answer = func(ctx context.Context, p put) (awsclient.Rejected, error) {
			if roll(100) < failing {
				switch roll(5) {
				case 0:
					return awsclient.Rejected{}, apiError("ThrottlingException")
				case 1:
					return awsclient.Rejected{}, apiError("AccessDeniedException")
				case 2:
					return awsclient.Rejected{}, apiError("ResourceNotFoundException")
				case 3:
					return awsclient.Rejected{}, errors.New("connection refused")
				}
				time.Sleep(time.Duration(roll(3)) * time.Millisecond)
			}
			for _, e := range p.Events {
				if strings.HasPrefix(e.Message, "bad") {
					return awsclient.Rejected{}, apiError("InvalidParameterException")
				}
			}
			rejected := awsclient.Rejected{}
			if roll(100) < 5 {
				for _, e := range p.Events {
					if e.Timestamp < 1000 {
						rejected.Old++
					}
				}
			}
			mu.Lock()
			defer mu.Unlock()
			for _, e := range p.Events[rejected.Old:] {
				accepted[id(e.Message)]++
				if !strings.Contains(e.Message, "original_time") {
					var c, i int
					if _, err := fmt.Sscanf(id(e.Message), "<%d.%d>", &c, &i); err != nil {
						wrong = append(wrong, err.Error())
						wrongChunks[-1] = true
					}
					at := place{p.Group, p.Stream, c, e.Timestamp}
					if last, ok := order[at]; ok && last > i {
						// Not told here: a panic, which is how rapid's Fatalf ends, is the sender's.
						wrong = append(wrong, fmt.Sprintf("event %d of chunk %d arrived after event %d of the same time", i, c, last))
						wrongChunks[c] = true
					}
					order[at] = i
				}
			}
			return rejected, nil
		}
		targets := make([]Target, streams)
		for i := range targets {
			targets[i] = Target{Group: "/eks/tenants/acme", Stream: fmt.Sprint(i)}
		}
		// Where a chunk goes may change from one flush to the next.
		elsewhere := slices.Clone(targets)
		for i := range elsewhere {
			elsewhere[i].Group = "/eks/quarantine/acme"
		}
		d := New(l, Config{Log: quiet, MaxInFlight: 2, Backoff: soon})
		var wg sync.WaitGroup
		want := map[string]int{}
		for c := range chunks {
			times := make([]int64, roll(20)+1)
			dest := make([]int, len(times))
			bad := make([]string, len(times))
			for i := range times {
				times[i] = int64(500 + roll(12)*100)
				if roll(40) == 0 {
					bad[i] = "bad"
				}
				dest[i] = roll(streams)
				want[fmt.Sprintf("<%d.%d>", c, i)] = 1
			}
			wg.Add(1)
			go func() {
				defer wg.Done()
				for {
					ev := makeEvents(times, func(i int) string { return bad[i] + fmt.Sprintf("<%d.%d>", c, i) })
					for i := range ev.List {
						ev.List[i].Dest = dest[i]
					}
					ctx, cancel := context.WithTimeout(context.Background(), time.Duration(1+roll(20))*time.Millisecond)
					to := targets
					if roll(4) == 0 {
						to = elsewhere
						mu.Lock()
						moved[c] = true
						mu.Unlock()
					}
					err := d.Deliver(ctx, Key{byte(c)}, ev, to)
					cancel()
					for i := range ev.Arena {
						ev.Arena[i] = 0xDD // Fluent Bit's again
					}
					if err == nil {
						return
					}
				}
			}()
		}
		wg.Wait()
		d.Close(context.Background())
		// What went to and fro between two groups may have been overtaken in one of them.
		for c := range wrongChunks {
			if !moved[c] {
				t.Fatalf("%v", wrong)
			}
		}
		for k := range want {
			if accepted[k] != 1 {
				t.Fatalf("event %s accepted %d times", k, accepted[k])
			}
		}
		if len(accepted) != len(want) {
			t.Fatalf("%d events accepted, %d sent", len(accepted), len(want))
		}
	})
}

func TestCallsForOneStreamRunBesideEachOther(t *testing.T) {
	l := &logsFunc{t: t}
	entered := make(chan struct{}, 10)
	release := make(chan struct{})
	l.answer = func(_ context.Context, p put) (awsclient.Rejected, error) {
		entered <- struct{}{}
		if p.Events[0].Timestamp > 0 {
			<-release
		}
		return awsclient.Rejected{}, nil
	}
	d := closed(t, New(l, Config{Log: quiet}))
	// Half a batch each; two share a time, the others do not.
	big := func(times ...int64) *chunk.Events {
		return makeEvents(times, func(i int) string { return bigString(600_000) + fmt.Sprint(i) })
	}
	done := make(chan error, 1)
	go func() { done <- d.Deliver(context.Background(), Key{1}, big(0, 1, 2, 2, 3, 4, 5), here) }()
	for range 1 + maxFlying { // the first shows that the stream is there
		<-entered
	}
	require.Empty(t, entered, "no more than maxFlying")
	close(release)
	require.NoError(t, <-done)
	require.Equal(t, maxFlying, l.most)
	require.Len(t, l.puts, 7)
	order := ""
	for _, p := range l.puts {
		if p.Events[0].Timestamp == 2 {
			order += p.Events[0].Message[600_000:]
		}
	}
	require.Equal(t, "23", order, "of the same time, one after the other")
}

func TestTheEventThatCloudWatchRefusesIsFoundAndEnveloped(t *testing.T) {
	for name, bad := range map[string][]int{"first": {0}, "last": {999}, "two": {10, 700}, "none": nil} {
		t.Run(name, func(t *testing.T) {
			l := &logsFunc{t: t}
			l.answer = func(_ context.Context, p put) (awsclient.Rejected, error) {
				for _, e := range p.Events {
					if strings.HasPrefix(e.Message, "bad") {
						return awsclient.Rejected{}, apiError("InvalidParameterException")
					}
				}
				return awsclient.Rejected{}, nil
			}
			var log bytes.Buffer
			d := New(l, Config{Log: slog.New(slog.NewTextHandler(&log, nil))})
			ev := makeEvents(make([]int64, 1000), func(i int) string {
				if slices.Contains(bad, i) {
					return fmt.Sprint("bad ", i)
				}
				return fmt.Sprint("good ", i)
			})
			require.NoError(t, d.Deliver(context.Background(), Key{1}, ev, here))
			d.Close(context.Background())
			require.LessOrEqual(t, len(l.puts), 1+len(bad)*14, "by halves")
			require.EqualValues(t, 1000, d.Stats().Events)
			require.EqualValues(t, len(bad), d.Stats().Enveloped)
			var wrapped []string
			for _, p := range l.puts {
				for _, e := range p.Events {
					if strings.HasPrefix(e.Message, "{") {
						wrapped = append(wrapped, e.Message)
					}
				}
			}
			for i, n := range bad {
				require.Equal(t, fmt.Sprintf(`{"log":"bad %d","_tenantlogs":{"reason":"invalid"}}`, n), wrapped[i])
			}
			require.NotContains(t, log.String(), "bad 1")
		})
	}
}

// Where the request as a whole is at fault, no search finds an event: the chunk goes
// back, after a number of calls that does not grow with its events.
func TestARequestThatIsInvalidWhateverIsInIt(t *testing.T) {
	l := &logsFunc{t: t}
	l.answer = func(context.Context, put) (awsclient.Rejected, error) {
		return awsclient.Rejected{}, apiError("InvalidParameterException")
	}
	d := closed(t, New(l, Config{Log: quiet}))
	var e *Error
	require.ErrorAs(t, d.Deliver(context.Background(), Key{1}, numbered(10_000), here), &e)
	require.Equal(t, awsclient.ClassInvalid, e.Class)
	require.LessOrEqual(t, len(l.puts), 20)
}

func TestLateEventsAreDroppedWhereThatIsConfigured(t *testing.T) {
	l := &logsFunc{t: t}
	l.answer = func(_ context.Context, p put) (awsclient.Rejected, error) {
		return awsclient.Rejected{Old: 1, New: 2}, nil
	}
	told := 0
	d := closed(t, New(l, Config{Log: quiet, DropLate: true, Discarded: func(_ Target, n int) { told += n }}))
	require.NoError(t, d.Deliver(context.Background(), Key{1}, numbered(10), here))
	require.Len(t, l.puts, 1)
	require.EqualValues(t, 7, d.Stats().Events)
	require.EqualValues(t, 3, d.Stats().Dropped)
	require.Equal(t, 3, told)
}

// What CloudWatch panics us with is one batch's failure, and no slot is lost.
func TestAPanicInACallGivesItsChunkBack(t *testing.T) {
	l := &logsFunc{t: t}
	calls := 0
	l.answer = func(context.Context, put) (awsclient.Rejected, error) {
		if calls++; calls <= 3 {
			panic("in Put")
		}
		return awsclient.Rejected{}, nil
	}
	d := closed(t, New(l, Config{Log: quiet, MaxInFlight: 1}))
	for range 3 {
		require.ErrorContains(t, d.Deliver(context.Background(), Key{1}, numbered(5), here), "panicked: in Put")
	}
	require.NoError(t, d.Deliver(context.Background(), Key{1}, numbered(5), here))
	require.EqualValues(t, 5, d.Stats().Events)
}

func TestEveryCallIsObserved(t *testing.T) {
	l := &logsFunc{t: t}
	fail := true
	l.answer = func(context.Context, put) (awsclient.Rejected, error) {
		if fail = !fail; !fail {
			return awsclient.Rejected{}, apiError("ThrottlingException")
		}
		return awsclient.Rejected{}, nil
	}
	var seen []Put
	d := closed(t, New(l, Config{Log: quiet, Backoff: soon, Observe: func(p Put) { seen = append(seen, p) }}))
	require.NoError(t, d.Deliver(context.Background(), Key{1}, numbered(2), here))
	require.Len(t, seen, 2)
	require.Equal(t, awsclient.ClassThrottled, seen[0].Class)
	require.Equal(t, awsclient.ClassNone, seen[1].Class)
	require.Equal(t, here[0], seen[1].Target)
	require.Equal(t, 2, seen[1].Events)
	require.Equal(t, 2*(len("event 0")+EventOverhead), seen[1].Bytes)
	require.Positive(t, seen[1].Wire)
}

// id finds an event's mark in its message, enveloped or not.
func id(m string) string {
	from := bytes.IndexByte([]byte(m), '<')
	if from < 0 {
		// encoding/json is not what wrote it, so '<' is never escaped
		return "broken: " + m
	}
	to := bytes.IndexByte([]byte(m), '>')
	return m[from : to+1]
}

func TestCloseEndsWhatIsWaiting(t *testing.T) {
	l := &logsFunc{t: t}
	l.answer = func(ctx context.Context, _ put) (awsclient.Rejected, error) {
		<-ctx.Done()
		return awsclient.Rejected{}, ctx.Err()
	}
	d := New(l, Config{Log: quiet})
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Millisecond)
	defer cancel()
	require.ErrorIs(t, d.Deliver(ctx, Key{}, numbered(1), here), ErrTimeout)
	d.Close(ctx) // returns although the call never would
}

func TestTheLedgerIsBounded(t *testing.T) {
	evicted := 0
	l := newLedger(3, func(*progress) { evicted++ })
	for k := range 5 {
		l.put(Key{byte(k)}, newProgress(1))
	}
	l.put(Key{4}, newProgress(1))
	require.Equal(t, 3, evicted)
	require.Equal(t, 3, l.size)
	p := l.take(Key{4}, 1, 0)
	require.NotSame(t, p, l.take(Key{4}, 1, 0))
	require.Equal(t, 1, l.size)
	// Another number of events means other rules for messages: not to be trusted.
	l.take(Key{3}, 2, 0)
	require.Equal(t, 4, evicted)
	l.take(Key{4}, 1, 0)
	require.Zero(t, l.size)
	require.Empty(t, l.sketches)
}

func TestAChunkIsHashedOnlyWhereSomethingLikeItIsRemembered(t *testing.T) {
	fail := true
	l := &logsFunc{t: t, answer: func(context.Context, put) (awsclient.Rejected, error) {
		if fail {
			return awsclient.Rejected{}, apiError("AccessDeniedException")
		}
		return awsclient.Rejected{}, nil
	}}
	d := closed(t, New(l, Config{Log: quiet}))
	hashed := func(c *Bytes) bool { return c.hashed }
	deliver := func(tag, data string) (*Bytes, error) {
		c := &Bytes{Tag: tag, Data: []byte(data)}
		return c, d.Deliver(context.Background(), c, numbered(2), here)
	}
	c, err := deliver("a", "12")
	require.Error(t, err)
	require.True(t, hashed(c), "it is remembered under its key")
	fail = false
	for _, other := range [][2]string{{"b", "12"}, {"a", "123"}} {
		c, err = deliver(other[0], other[1])
		require.NoError(t, err)
		require.False(t, hashed(c))
	}
	for range 2 { // alike, but another; then the one that is remembered
		c, err = deliver("a", "13")
		require.NoError(t, err)
		require.True(t, hashed(c))
	}
	c, err = deliver("a", "12")
	require.NoError(t, err)
	require.True(t, hashed(c))
	c, err = deliver("a", "12")
	require.NoError(t, err)
	require.False(t, hashed(c), "nothing is remembered any more")
}

func BenchmarkBatch(b *testing.B) {
	ev := makeEvents(make([]int64, 5000), func(i int) string {
		return fmt.Sprintf(`{"log":"10.1.2.3 - - \"GET /api/v1/orders/%d HTTP/1.1\" 200","stream":"stdout"}`, i)
	})
	for _, compress := range []bool{false, true} {
		b.Run(fmt.Sprintf("gzip=%v", compress), func(b *testing.B) {
			b.ReportAllocs()
			b.SetBytes(int64(len(ev.Arena)))
			p := newProgress(len(ev.List))
			bt := new(batch)
			for range b.N {
				p.end()
				for i := range p.state {
					p.state[i] = waiting
				}
				queues, _ := p.begin(ev, here, nil, present{})
				bt.fill(here[0], []item{{p: p, events: queues[0]}}, MaxBatchEvents, nil)
				bt.finish(here[0])
				if _, err := bt.body(compress); err != nil {
					b.Fatal(err)
				}
				bt.release()
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/5000, "ns/event")
		})
	}
}

// The flush has left and its memory is gone: a call that fails then must not be
// made again from it.
func TestACallThatFailsAfterItsFlushLeftIsNotRepeated(t *testing.T) {
	l := &logsFunc{t: t}
	inside, release := make(chan struct{}, 1), make(chan struct{})
	var calls int
	l.answer = func(context.Context, put) (awsclient.Rejected, error) {
		if calls++; calls == 1 {
			inside <- struct{}{}
			<-release
			return awsclient.Rejected{}, apiError("ThrottlingException")
		}
		return awsclient.Rejected{}, nil
	}
	d := New(l, Config{Log: quiet, Backoff: soon})
	ev := numbered(2)
	ctx, cancel := context.WithCancel(context.Background())
	left := make(chan error)
	go func() { left <- d.Deliver(ctx, Key{1}, ev, here) }()
	<-inside
	cancel()
	require.ErrorIs(t, <-left, ErrTimeout)
	for i := range ev.Arena {
		ev.Arena[i] = 0xDD
	}
	close(release)
	d.running.Wait() // the sender has nothing left to do
	require.Len(t, l.puts, 1)
	require.NoError(t, d.Deliver(context.Background(), Key{1}, numbered(2), here))
	d.Close(context.Background())
	require.Len(t, l.puts, 2)
	require.Equal(t, "event 0", l.puts[1].Events[0].Message)
}

// What failed goes before what came later, or two events of the same time would
// change places.
func TestWhatFailedStaysInFrontOfWhatWaits(t *testing.T) {
	l := &logsFunc{t: t}
	inside, release := make(chan struct{}), make(chan struct{})
	var calls int
	l.answer = func(context.Context, put) (awsclient.Rejected, error) {
		if calls++; calls == 1 {
			close(inside)
			<-release
			return awsclient.Rejected{}, apiError("ThrottlingException")
		}
		return awsclient.Rejected{}, nil
	}
	d := closed(t, New(l, Config{Log: quiet, Backoff: soon}))
	var wg sync.WaitGroup
	deliver := func(k byte, name string) {
		defer wg.Done()
		ev := makeEvents(make([]int64, 2), func(i int) string { return fmt.Sprint(name, i) })
		require.NoError(t, d.Deliver(context.Background(), Key{k}, ev, here))
	}
	wg.Add(2)
	go deliver(1, "first")
	<-inside
	go deliver(2, "second")
	waits(t, d, 1)
	close(release)
	wg.Wait()
	var got []string
	for _, e := range l.puts[1].Events {
		got = append(got, e.Message)
	}
	require.Equal(t, []string{"first0", "first1", "second0", "second1"}, got)
}

// The retry of a chunk comes while the second of a rejected event's parts is still
// to be sent: FLB_OK must mean both.
func TestARestampedEventInPartsIsWholeAcrossFlushes(t *testing.T) {
	inside, release := make(chan struct{}), make(chan struct{})
	l := &logsFunc{t: t}
	calls := 0
	l.answer = func(_ context.Context, p put) (awsclient.Rejected, error) {
		switch calls++; calls {
		case 1:
			return awsclient.Rejected{Old: len(p.Events)}, nil
		case 2: // the first part
			close(inside)
			<-release
		}
		return awsclient.Rejected{}, nil
	}
	d := closed(t, New(l, Config{Log: quiet, Now: func() time.Time { return time.UnixMilli(500) }}))
	const size = 1_048_000
	ev := func() *chunk.Events {
		return makeEvents([]int64{1}, func(int) string { return strings.Repeat("\"", size) })
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- d.Deliver(ctx, Key{1}, ev(), here) }()
	<-inside
	cancel()
	require.ErrorIs(t, <-done, ErrTimeout)
	go func() { done <- d.Deliver(context.Background(), Key{1}, ev(), here) }()
	require.Eventually(t, func() bool { return d.ledger.len() == 0 }, 10*time.Second, time.Millisecond, "the retry has the entry")
	close(release)
	require.NoError(t, <-done)
	got := 0
	for _, p := range l.puts[1:] {
		for _, e := range p.Events {
			got += strings.Count(e.Message, `\"`)
		}
	}
	require.Equal(t, size, got)
}

func TestTimesThatAlternateDoNotMakeACallEach(t *testing.T) {
	l := &logsFunc{t: t}
	d := closed(t, New(l, Config{Log: quiet}))
	times := make([]int64, 2000)
	for i := range times {
		times[i] = 10*MaxBatchSpan - int64(i%3)*2*MaxBatchSpan
	}
	require.NoError(t, d.Deliver(context.Background(), Key{}, makeEvents(times, func(i int) string { return fmt.Sprintf("%04d", i) }), here))
	require.Len(t, l.puts, 3)
	for _, p := range l.puts {
		for i := 1; i < len(p.Events); i++ {
			require.Less(t, p.Events[i-1].Message, p.Events[i].Message, "the order of arrival")
		}
	}
}

func TestATimeoutSaysWhatFailedLast(t *testing.T) {
	l := &logsFunc{t: t}
	failed := make(chan struct{})
	var once sync.Once
	l.answer = func(context.Context, put) (awsclient.Rejected, error) {
		return awsclient.Rejected{}, apiError("ThrottlingException")
	}
	d := closed(t, New(l, Config{Log: quiet, Backoff: func(int) time.Duration { once.Do(func() { close(failed) }); return time.Hour }}))
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- d.Deliver(ctx, Key{1}, numbered(1), here) }()
	<-failed
	// The sender is idle until its time: what it found is written down by then.
	waits(t, d, 1)
	cancel()
	err := <-done
	require.ErrorIs(t, err, ErrTimeout)
	var e *Error
	require.ErrorAs(t, err, &e)
	require.Equal(t, awsclient.ClassThrottled, e.Class)
	require.Equal(t, here[0], e.Target)
}

// A stream that can't be made gives its flush back at once, whatever the reason.
func TestACreationThatFailsDoesNotHoldAThread(t *testing.T) {
	for _, code := range []string{"LimitExceededException", "ThrottlingException", "InternalFailure", "AccessDeniedException"} {
		l := &logsFunc{t: t}
		l.ensure = func(Target) error { return apiError(code) }
		l.answer = func(context.Context, put) (awsclient.Rejected, error) {
			return awsclient.Rejected{}, apiError("ResourceNotFoundException")
		}
		d := closed(t, New(l, Config{Log: quiet, Backoff: func(int) time.Duration { return time.Hour }}))
		var e *Error
		require.ErrorAs(t, d.Deliver(context.Background(), Key{}, numbered(1), here), &e, code)
		require.Equal(t, 1, len(l.puts))
	}
}

// Events are in one queue once. Should one ever be there twice, it is still sent
// once, and never from the memory of a flush that has returned.
func TestAStrayCopyInAQueueSendsNothing(t *testing.T) {
	l := &logsFunc{t: t}
	inside, release := make(chan struct{}), make(chan struct{})
	l.answer = func(_ context.Context, p put) (awsclient.Rejected, error) {
		if len(l.puts) == 1 {
			close(inside)
			<-release
		}
		return awsclient.Rejected{}, nil
	}
	d := New(l, Config{Log: quiet})
	ev := numbered(3)
	p := newProgress(len(ev.List))
	senders := d.enqueue(p, ev, here, nil)
	<-inside
	// A copy of what is in flight, as a race might leave it.
	senders[0].mu.Lock()
	senders[0].queue = append(senders[0].queue, item{p: p, events: []int32{0, 1, 2}})
	senders[0].mu.Unlock()
	close(release)
	w := wait{d: d, p: p, senders: senders, began: time.Now(), leave: d.stalls.leave()}
	require.NoError(t, w.until(context.Background()))
	p.end()
	for i := range ev.Arena {
		ev.Arena[i] = 'Z' // another tenant's, from here on
	}
	d.Close(context.Background())
	require.Len(t, l.puts, 1)
	require.EqualValues(t, 3, d.Stats().Events)
}

func TestTheOldestChunkThatIsNotAcknowledged(t *testing.T) {
	l := &logsFunc{t: t}
	fail := true
	l.answer = func(context.Context, put) (awsclient.Rejected, error) {
		if fail {
			return awsclient.Rejected{}, apiError("AccessDeniedException")
		}
		return awsclient.Rejected{}, nil
	}
	now := time.Unix(1000, 0)
	d := closed(t, New(l, Config{Log: quiet, LedgerSize: 2, Now: func() time.Time { return now }}))
	deliver := func(k byte) error { return d.Deliver(context.Background(), Key{k}, numbered(1), here) }
	require.Zero(t, d.Load())
	for k := range byte(3) {
		require.Error(t, deliver(k))
		now = now.Add(time.Second)
	}
	// The first was forgotten for the third; nobody will acknowledge it any more.
	require.Equal(t, Load{Oldest: time.Unix(1001, 0), LedgerChunks: 2}, d.Load())
	fail = false
	require.NoError(t, deliver(1))
	require.Equal(t, Load{Oldest: time.Unix(1002, 0), LedgerChunks: 1}, d.Load())
	require.NoError(t, deliver(2))
	require.Zero(t, d.Load())
}

func TestEventsThatGoNowhereAreDone(t *testing.T) {
	l := &logsFunc{t: t}
	d := closed(t, New(l, Config{Log: quiet}))
	ev := numbered(6)
	for i := range ev.List {
		ev.List[i].Dest = i % 2
	}
	require.NoError(t, d.Deliver(context.Background(), Key{1}, ev, []Target{{}, here[0]}))
	require.Len(t, l.puts, 1)
	require.Len(t, l.puts[0].Events, 3)
	require.NoError(t, d.Deliver(context.Background(), Key{1}, numbered(3), []Target{{}}))
	require.Len(t, l.puts, 1)
}

// A chunk's events for one destination arrive although another's are refused at once.
func TestOneDestinationThatFailsDoesNotHoldUpTheOthers(t *testing.T) {
	l := &logsFunc{t: t}
	refused := make(chan struct{})
	l.answer = func(_ context.Context, p put) (awsclient.Rejected, error) {
		if p.Stream == "bad" {
			close(refused)
			return awsclient.Rejected{}, apiError("AccessDeniedException")
		}
		<-refused
		return awsclient.Rejected{}, nil
	}
	d := closed(t, New(l, Config{Log: quiet}))
	ev := makeEvents(make([]int64, 4), func(i int) string { return bigString(600_000) + fmt.Sprint(i) })
	for i := range ev.List {
		ev.List[i].Dest = i % 2
	}
	var e *Error
	require.ErrorAs(t, d.Deliver(context.Background(), Key{1}, ev, []Target{{Group: "/a", Stream: "bad"}, {Group: "/b", Stream: "good"}}), &e)
	require.Equal(t, "bad", e.Target.Stream)
	require.EqualValues(t, 2, d.Stats().Events, "both of the good ones")
	require.Len(t, l.puts, 3, "and of the bad ones only the first was tried")
}

// A chunk comes back and goes elsewhere, for its tenant's settings changed, while a call
// to where it went before is under way. When that call fails, what it carried is not
// queued there again: its memory is this flush's, and nothing withdraws it there.
func TestACallToWhereAChunkWentBeforeDoesNotTouchTheNextFlush(t *testing.T) {
	inside, release := make(chan struct{}), make(chan struct{})
	l := &logsFunc{t: t}
	calls := 0
	l.answer = func(context.Context, put) (awsclient.Rejected, error) {
		if calls++; calls == 1 {
			close(inside)
			<-release
			return awsclient.Rejected{}, apiError("ThrottlingException")
		}
		return awsclient.Rejected{}, nil
	}
	d := closed(t, New(l, Config{Log: quiet, Backoff: soon}))
	before, after := []Target{{Group: "/eks/quarantine/acme", Stream: "s"}}, []Target{{Group: "/eks/tenants/acme", Stream: "s"}}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- d.Deliver(ctx, Key{1}, numbered(3), before) }()
	<-inside
	cancel()
	require.ErrorIs(t, <-done, ErrTimeout)
	go func() { done <- d.Deliver(context.Background(), Key{1}, numbered(3), after) }()
	require.Eventually(t, func() bool { return d.ledger.len() == 0 }, 10*time.Second, time.Millisecond)
	close(release)
	require.ErrorIs(t, <-done, errMoved, "told at once, not at the end of its time")
	require.NoError(t, d.Deliver(context.Background(), Key{1}, numbered(3), after))
	require.Len(t, l.puts, 2)
	require.Equal(t, "/eks/tenants/acme", l.puts[1].Group)
	require.EqualValues(t, 3, d.Stats().Events)
}

func TestAnEventThatIsInvalidAndTooOldArrives(t *testing.T) {
	l := &logsFunc{t: t}
	l.answer = func(_ context.Context, p put) (awsclient.Rejected, error) {
		r := awsclient.Rejected{}
		for _, e := range p.Events {
			if strings.HasPrefix(e.Message, "bad") {
				return r, apiError("InvalidParameterException")
			}
			if e.Timestamp < 1000 {
				r.Old++
			}
		}
		return r, nil
	}
	d := closed(t, New(l, Config{Log: quiet, Backoff: soon, Now: func() time.Time { return time.UnixMilli(5000) }}))
	ev := makeEvents([]int64{10, 2000}, func(i int) string { return []string{"bad", "good"}[i] })
	require.NoError(t, d.Deliver(context.Background(), Key{1}, ev, here))
	require.Equal(t, `{"log":"bad","_tenantlogs":{"original_time":"1970-01-01T00:00:00.010Z","time_reason":"too_old","reason":"invalid"}}`,
		l.puts[len(l.puts)-1].Events[len(l.puts[len(l.puts)-1].Events)-1].Message)
}

// The ledger remembers which events are left, not their bytes.
func TestTheLedgerKeepsNoMessages(t *testing.T) {
	l := &logsFunc{t: t}
	inside, release := make(chan struct{}), make(chan struct{})
	l.answer = func(_ context.Context, p put) (awsclient.Rejected, error) {
		if p.Events[0].Timestamp < 1000 {
			return awsclient.Rejected{Old: len(p.Events)}, nil
		}
		close(inside)
		<-release
		return awsclient.Rejected{}, apiError("ThrottlingException")
	}
	d := New(l, Config{Log: quiet, Backoff: soon, Now: func() time.Time { return time.UnixMilli(5000) }})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- d.Deliver(ctx, Key{1}, numbered(10), here) }()
	<-inside
	cancel()
	require.Error(t, <-done)
	close(release)
	d.Close(context.Background())
	list, _ := d.ledger.entries.Peek(Key{1})
	require.Len(t, list, 1)
	require.Nil(t, list[0].replaced)
}

// Two chunks' events of the same time keep the order the chunks came in, also when the
// call that carried both has to be made again.
func TestChunksKeepTheirOrderOnASecondAttempt(t *testing.T) {
	l := &logsFunc{t: t}
	inside, release := make(chan struct{}), make(chan struct{})
	calls := 0
	l.answer = func(context.Context, put) (awsclient.Rejected, error) {
		switch calls++; calls {
		case 1:
			close(inside)
			<-release
		case 2:
			return awsclient.Rejected{}, apiError("ThrottlingException")
		}
		return awsclient.Rejected{}, nil
	}
	d := closed(t, New(l, Config{Log: quiet, Backoff: soon}))
	done := make(chan error, 3)
	go func() { done <- d.Deliver(context.Background(), Key{0}, numbered(1), here) }()
	<-inside
	add := func(k byte, n int, name string, at ...int64) {
		go func() {
			done <- d.Deliver(context.Background(), Key{k}, makeEvents(at, func(i int) string { return fmt.Sprint(name, at[i]) }), here)
		}()
		waits(t, d, n)
	}
	add(1, 1, "first@", 5)
	add(2, 2, "second@", 3, 5)
	close(release)
	for range 3 {
		require.NoError(t, <-done)
	}
	var got []string
	for _, e := range l.puts[2].Events {
		got = append(got, e.Message)
	}
	require.Equal(t, []string{"second@3", "first@5", "second@5"}, got)
}
