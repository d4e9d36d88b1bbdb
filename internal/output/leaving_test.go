package output

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/eks-tenant-logs/eks-tenant-logs/internal/fakeaws"
)

// A flush that waits for a slow CloudWatch goes back when Fluent Bit ends; the answer that comes afterwards is in the
// ledger, so that the next start sends nothing again.
func TestFlushesGoBackWhenFluentBitEndsAndLateAnswersCount(t *testing.T) {
	s := fakeaws.New(fakeaws.Config{})
	state := t.TempDir()
	i, log := at(t, s, Environment{}, "state_path", state, "flush_timeout", "60s")
	// The group and its stream are there.
	require.Equal(t, OK, i.Flush(context.Background(), tagA, chunkOf(time.Now(), map[string]any{"log": "first"}), 0))
	waiting, answer := make(chan struct{}, 1), make(chan struct{})
	s.SetIntercept(func(c fakeaws.Call) error {
		if c.Operation == "PutLogEvents" {
			select {
			case waiting <- struct{}{}:
			default:
			}
			<-answer
		}
		return nil
	})
	chunk := chunkOf(time.Now(), map[string]any{"log": "slow"})
	result := make(chan Result)
	go func() { result <- i.Flush(context.Background(), tagA, chunk, 0) }()
	<-waiting
	i.Leave(time.Millisecond)
	require.Equal(t, Retry, <-result, "long before flush_timeout")
	calls := s.CallCount("PutLogEvents")
	require.Equal(t, Retry, i.Flush(context.Background(), tagA, chunkOf(time.Now(), map[string]any{"log": "later"}), 0))
	require.Equal(t, calls, s.CallCount("PutLogEvents"), "nothing is sent any more")
	require.Contains(t, log.String(), errLeaving.Error())
	close(answer)
	i.Close()
	require.Equal(t, 2, s.Accepted())

	next, err := New(context.Background(), i.opts, i.env)
	require.NoError(t, err)
	require.Equal(t, OK, next.Flush(context.Background(), tagA, chunk, 0))
	require.Equal(t, 2, s.Accepted(), "it had been accepted")
	next.Close()
}
