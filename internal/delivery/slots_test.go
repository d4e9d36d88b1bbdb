package delivery

import (
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

func group(name string) groupKey { return groupKey{group: name} }

func TestAGroupHasAShareOfTheSlotsAtMost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSlots(4)
		never := make(chan struct{})
		require.True(t, s.take(never, group("flood")))
		require.True(t, s.take(never, group("flood")))
		got := make(chan bool)
		go func() { got <- s.take(never, group("flood")) }()
		synctest.Wait()
		require.Equal(t, 2, s.busy(), "the third waits, although two are free")
		require.True(t, s.take(never, group("other")))
		s.put(group("flood"))
		require.True(t, <-got)
		require.Equal(t, 3, s.busy())
	})
}

func TestASlotGoesToTheGroupWithTheFewest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSlots(4)
		never := make(chan struct{})
		for _, g := range []string{"a", "a", "b", "b"} {
			require.True(t, s.take(never, group(g)))
		}
		order := make(chan string, 3)
		for _, g := range []string{"a", "b", "c"} {
			go func() { s.take(never, group(g)); order <- g }()
			synctest.Wait()
		}
		s.put(group("b")) // c has none: it comes before a, which has waited longer
		require.Equal(t, "c", <-order)
		s.put(group("a")) // a and b have one each, and a has waited longer
		require.Equal(t, "a", <-order)
		s.put(group("a"))
		require.Equal(t, "b", <-order)
	})
}

func TestWhoStopsWaitingTakesNoSlot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSlots(1)
		never, done := make(chan struct{}), make(chan struct{})
		require.True(t, s.take(never, group("a")))
		got := make(chan bool)
		go func() { got <- s.take(done, group("b")) }()
		synctest.Wait()
		close(done)
		require.False(t, <-got)
		s.put(group("a"))
		require.Zero(t, s.busy())
		require.Empty(t, s.waiting)
		require.Empty(t, s.used)
	})
}

// Whoever comes, leaves and gives up, there are never more than n, nor more of one group
// than its share; nobody waits for a slot that it could have; in the end all are free.
func TestSlotsAreNeitherLostNorMade(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		n := rapid.IntRange(1, 9).Draw(rt, "slots")
		groups := rapid.IntRange(1, 4).Draw(rt, "groups")
		users := rapid.IntRange(1, 40).Draw(rt, "users")
		seed := rapid.Uint64().Draw(rt, "seed")
		wrong := ""
		synctest.Test(t, func(*testing.T) {
			s := newSlots(n)
			rng := rand.New(rand.NewPCG(seed, 1))
			var mu sync.Mutex
			have := map[groupKey]int{}
			var wg sync.WaitGroup
			for range users {
				key := group(string(rune('a' + rng.IntN(groups))))
				start, hold, patience := time.Duration(rng.IntN(50)), time.Duration(1+rng.IntN(50)), time.Duration(rng.IntN(200))
				wg.Go(func() {
					time.Sleep(start)
					done := make(chan struct{})
					timer := time.AfterFunc(patience, func() { close(done) })
					defer timer.Stop()
					if !s.take(done, key) {
						return
					}
					mu.Lock()
					have[key]++
					total := 0
					for _, m := range have {
						total += m
					}
					if total > n || have[key] > s.share {
						wrong = "too many"
					}
					mu.Unlock()
					time.Sleep(hold)
					mu.Lock()
					have[key]--
					mu.Unlock()
					s.put(key)
					s.mu.Lock()
					for key := range s.waiting {
						if s.free > 0 && s.used[key] < s.share {
							wrong = "somebody waits for nothing"
						}
					}
					s.mu.Unlock()
				})
			}
			wg.Wait()
			if s.busy() != 0 || len(s.used) != 0 || len(s.waiting) != 0 {
				wrong = "not all are free"
			}
		})
		if wrong != "" {
			rt.Fatal(wrong)
		}
	})
}
