package delivery

import (
	"sync"

	lru "github.com/hashicorp/golang-lru/v2"
)

// streams knows which streams are there, and guesses of one it does not know whether it is.
//
// A put into a stream that is missing is a call for nothing, with all its bytes, while a
// worker waits; creating one that exists is a call for nothing, too, and creations are 50 a
// second for a whole account (CreateLogStream's quota). When a node starts again its
// streams are there; when pods come and go theirs are not. So the last ones tell: after a
// few in a row that were missing the next are created first, all but one now and then whose
// put shows whether that is still so.
type streams struct {
	mu      sync.Mutex
	known   *lru.Cache[Target, struct{}]
	missing int // in a row
	guesses int
}

const (
	// knownStreams bounds how many streams are remembered; an eviction costs at most a
	// creation that was not needed.
	knownStreams = 16_384
	// missingInARow is from when on streams are created before the first put.
	missingInARow = 3
	// sampled is how many of those are tried all the same: one in so many.
	sampled = 8
)

func newStreams() *streams {
	known, err := lru.New[Target, struct{}](knownStreams)
	if err != nil {
		panic(err) // only for a size that is not positive
	}
	return &streams{known: known}
}

// there reports whether a stream is known to be there.
func (s *streams) there(t Target) bool {
	_, ok := s.known.Get(t)
	return ok
}

// createFirst guesses that a stream of which nothing is known is missing.
func (s *streams) createFirst() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.missing < missingInARow {
		return false
	}
	s.guesses++
	return s.guesses%sampled != 0
}

// found notes that a put arrived. first says that it was the first thing that was tried.
func (s *streams) found(t Target, first bool) {
	s.known.Add(t, struct{}{})
	if first {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.missing = 0
	}
}

// lost notes that a put found no stream.
func (s *streams) lost(t Target) {
	s.known.Remove(t)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.missing++
}
