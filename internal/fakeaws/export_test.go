package fakeaws

import "time"

// SetWallClock replaces the clock that signatures and expiry are checked against; call it before Start.
func SetWallClock(s *Server, clock func() time.Time) { s.wallClock = clock }

// Described is the call without what only a server and its intercept function know of it.
func (c Call) Described() Call {
	c.later = nil
	return c
}

// SetFaultsClock replaces the clock that faults go by; call it before their first use.
func SetFaultsClock(f *Faults, clock func() time.Time) { f.now = clock }
