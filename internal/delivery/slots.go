package delivery

import (
	"sync"

	"github.com/eks-tenant-logs/eks-tenant-logs/internal/awsclient"
)

// groupKey is a log group and who writes there: what a tenant has of its own.
type groupKey struct {
	role  awsclient.Role
	group string
}

func (t Target) key() groupKey { return groupKey{t.Role, t.Group} }

// slots are the calls that may be under way at once. Whose calls they are matters: one
// group may have a share of them at most, so that calls that hang for one tenant leave
// room for the others', and a slot that comes free goes to the group that has the fewest.
type slots struct {
	share int // the most of one group

	mu      sync.Mutex
	total   int
	free    int
	used    map[groupKey]int
	waiting map[groupKey][]*ticket // each in the order of arrival
	tickets uint64
}

// ticket is somebody who waits for a slot.
type ticket struct {
	number  uint64
	granted chan struct{}
}

// newSlots makes n slots, of which one group may have half.
func newSlots(n int) *slots {
	return &slots{share: (n + 1) / 2, total: n, free: n, used: map[groupKey]int{}, waiting: map[groupKey][]*ticket{}}
}

// take waits for a slot. It reports false where done was closed first.
func (s *slots) take(done <-chan struct{}, key groupKey) bool {
	s.mu.Lock()
	// Nobody who could have a free slot waits: give sees to that.
	if s.free > 0 && s.used[key] < s.share {
		s.free--
		s.used[key]++
		s.mu.Unlock()
		return true
	}
	s.tickets++
	t := &ticket{number: s.tickets, granted: make(chan struct{})}
	s.waiting[key] = append(s.waiting[key], t)
	s.mu.Unlock()
	select {
	case <-t.granted:
		return true
	case <-done:
	}
	if s.leave(key, t) {
		return false
	}
	s.put(key) // it was granted meanwhile
	return false
}

// leave takes a ticket back, and reports whether it was still waiting.
func (s *slots) leave(key groupKey, t *ticket) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i, other := range s.waiting[key] {
		if other == t {
			s.forget(key, i)
			return true
		}
	}
	return false
}

func (s *slots) forget(key groupKey, i int) {
	list := s.waiting[key]
	if list = append(list[:i], list[i+1:]...); len(list) == 0 {
		delete(s.waiting, key)
		return
	}
	s.waiting[key] = list
}

// put gives a slot back.
func (s *slots) put(key groupKey) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.free++
	if s.used[key]--; s.used[key] == 0 {
		delete(s.used, key)
	}
	for s.free > 0 && s.give() {
		s.free--
	}
}

// give grants a slot to the group with the fewest among those that wait and are below
// their share; of two, to the one that has waited longer.
func (s *slots) give() bool {
	var best groupKey
	found := false
	for key, list := range s.waiting {
		n := s.used[key]
		if n >= s.share {
			continue
		}
		if m := s.used[best]; !found || n < m || n == m && list[0].number < s.waiting[best][0].number {
			best, found = key, true
		}
	}
	if !found {
		return false
	}
	t := s.waiting[best][0]
	s.forget(best, 0)
	s.used[best]++
	close(t.granted)
	return true
}

// busy is how many calls are under way.
func (s *slots) busy() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.total - s.free
}
