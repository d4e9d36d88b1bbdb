package delivery

import (
	"context"
	"fmt"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/eks-tenant-logs/eks-tenant-logs/internal/awsclient"
)

// strict is a CloudWatch in which streams are there once they were created.
type strict struct {
	mu                     sync.Mutex
	streams                map[Target]bool
	misses, creates, wrong int // puts that found no stream; creations; of those, of what was there
	refuse                 error
}

func (s *strict) Put(_ context.Context, t Target, _ awsclient.Body, _ int) (awsclient.Rejected, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.streams[t] {
		s.misses++
		return awsclient.Rejected{}, apiError("ResourceNotFoundException")
	}
	return awsclient.Rejected{}, nil
}

func (s *strict) EnsureStream(_ context.Context, t Target) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.creates++
	if s.refuse != nil {
		return s.refuse
	}
	if s.streams[t] {
		s.wrong++
	}
	s.streams[t] = true
	return nil
}

func stream(n int) []Target { return []Target{{Group: "/g", Stream: fmt.Sprint(n)}} }

func TestStreamsOfNewPodsAreCreatedBeforeTheFirstPut(t *testing.T) {
	l := &strict{streams: map[Target]bool{}}
	d := closed(t, New(l, Config{Log: quiet, Backoff: soon}))
	for n := range 83 {
		_, err := flush(d, byte(n), stream(n))
		require.NoError(t, err)
	}
	require.Equal(t, 83, l.creates)
	require.Zero(t, l.wrong)
	require.Equal(t, missingInARow+(83-missingInARow)/sampled, l.misses, "the first few, and those that are tried now and then")
}

// A node that starts again finds its streams: nobody's quota is used to create them.
func TestStreamsThatAreThereAreNotCreated(t *testing.T) {
	l := &strict{streams: map[Target]bool{}}
	for n := range 200 {
		l.streams[stream(n)[0]] = true
	}
	d := closed(t, New(l, Config{Log: quiet, Backoff: soon}))
	for round := range 3 {
		for n := range 200 {
			_, err := flush(d, byte(n), stream(n))
			require.NoError(t, err, round)
		}
	}
	require.Zero(t, l.creates)
	// Then some pods come that are new, and after them some that are not.
	for n := range 5 {
		_, err := flush(d, byte(n), stream(1000+n))
		require.NoError(t, err)
	}
	for n := range 100 {
		l.streams[stream(2000 + n)[0]] = true
		_, err := flush(d, byte(n), stream(2000+n))
		require.NoError(t, err)
	}
	require.LessOrEqual(t, l.wrong, sampled, "one that is found ends it")
}

func TestAFirstCreationThatFailsGivesTheChunkBack(t *testing.T) {
	l := &strict{streams: map[Target]bool{}}
	d := closed(t, New(l, Config{Log: quiet, Backoff: soon}))
	for n := range missingInARow {
		_, err := flush(d, byte(n), stream(n))
		require.NoError(t, err)
	}
	l.refuse = apiError("AccessDeniedException")
	for range 3 {
		_, err := flush(d, 100, stream(100))
		var e *Error
		require.ErrorAs(t, err, &e)
		require.Equal(t, awsclient.ClassDenied, e.Class)
	}
	l.refuse = nil
	_, err := flush(d, 100, stream(100))
	require.NoError(t, err)
	require.Equal(t, missingInARow, l.misses)
}
