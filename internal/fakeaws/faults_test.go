package fakeaws_test

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/eks-tenant-logs/eks-tenant-logs/internal/fakeaws"
)

func call(operation, group, stream string) fakeaws.Call {
	return fakeaws.Call{Operation: operation, LogGroup: group, LogStream: stream}
}

func TestAFaultHitsTheCallsItNames(t *testing.T) {
	f := fakeaws.NewFaults(1)
	f.Set("denied", fakeaws.Fault{LogGroup: "/g", Answer: fakeaws.Denied})
	f.Set("creating", fakeaws.Fault{Operations: []string{"CreateLogGroup", "CreateLogStream"}, Answer: fakeaws.Throttled})
	require.Equal(t, fakeaws.Denied, f.Intercept(call("CreateLogGroup", "/g", "")), "the first that was set wins")
	require.Equal(t, fakeaws.Throttled, f.Intercept(call("CreateLogGroup", "/h", "")))
	require.NoError(t, f.Intercept(call("PutLogEvents", "/h", "s")))
	f.Clear("denied")
	require.Equal(t, fakeaws.Throttled, f.Intercept(call("CreateLogGroup", "/g", "")))
	f.Clear()
	require.NoError(t, f.Intercept(call("CreateLogGroup", "/g", "")))
	require.Equal(t, map[string]int{"denied": 1, "creating": 2}, f.Hits())
}

func TestAShareOfTheCallsIsHit(t *testing.T) {
	f := fakeaws.NewFaults(1)
	f.Set("some", fakeaws.Fault{Percent: 30, Answer: fakeaws.Unavailable})
	n := 0
	for range 10_000 {
		if f.Intercept(call("PutLogEvents", "/g", "s")) != nil {
			n++
		}
	}
	require.InDelta(t, 3000, n, 200)
	require.Equal(t, n, f.Hits()["some"])
}

func TestAHangLastsUntilItIsCleared(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := fakeaws.NewFaults(1)
		f.Set("hang", fakeaws.Fault{Answer: fakeaws.ErrHang})
		got := make(chan error, 1)
		go func() { got <- f.Intercept(call("PutLogEvents", "/g", "s")) }()
		time.Sleep(time.Hour)
		require.Empty(t, got)
		f.Clear("hang")
		require.ErrorIs(t, <-got, fakeaws.ErrConnectionReset)
	})
}

func TestLatencyIsWaitedAndAddsUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := fakeaws.NewFaults(1)
		f.Set("a", fakeaws.Fault{Latency: time.Second})
		f.Set("b", fakeaws.Fault{Latency: 2 * time.Second})
		began := time.Now()
		require.NoError(t, f.Intercept(call("PutLogEvents", "/g", "s")))
		require.Equal(t, 3*time.Second, time.Since(began))
	})
}

func TestQuotasAreASecondsWorthAtOnceAndThenTheRate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := fakeaws.NewFaults(1)
		f.SetQuotas(map[string]float64{"CreateLogGroup": 10})
		passed := func(tries int) (n int) {
			for range tries {
				if !errors.Is(f.Intercept(call("CreateLogGroup", "/g", "")), fakeaws.Throttled) {
					n++
				}
			}
			return n
		}
		require.Equal(t, 10, passed(50))
		time.Sleep(500 * time.Millisecond)
		require.Equal(t, 5, passed(50))
		time.Sleep(time.Hour)
		require.Equal(t, 10, passed(50))
		require.NoError(t, f.Intercept(call("PutLogEvents", "/g", "s")), "no quota was set for it")
		f.SetQuotas(nil)
		require.Equal(t, 50, passed(50))
	})
}

func TestWhatWasMadeTakesAWhileToAppear(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := fakeaws.NewFaults(1)
		f.SetAppearing(time.Second)
		require.NoError(t, f.Intercept(call("PutLogEvents", "/old", "s")), "what was there before")
		require.NoError(t, f.Intercept(call("CreateLogGroup", "/g", "")))
		require.Equal(t, fakeaws.NotFound, f.Intercept(call("CreateLogStream", "/g", "s")))
		time.Sleep(time.Second)
		require.NoError(t, f.Intercept(call("CreateLogStream", "/g", "s")))
		require.Equal(t, fakeaws.NotFound, f.Intercept(call("PutLogEvents", "/g", "s")))
		time.Sleep(time.Second)
		require.NoError(t, f.Intercept(call("PutLogEvents", "/g", "s")))
	})
}
