package fakeaws

import "time"

// SetWallClock replaces the clock that signatures and expiry are checked against; call it before Start.
func SetWallClock(s *Server, clock func() time.Time) { s.wallClock = clock }
