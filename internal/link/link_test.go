package link

import (
	"os"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestMessagesArriveInOrderUntilTheLinkEnds(t *testing.T) {
	to, theirs, err := Pair()
	require.NoError(t, err)
	t.Setenv(Environment, strconv.Itoa(int(theirs.Fd())))
	want := []Message{
		{Report: &Report{Kind: Lost, Namespace: "tenant-acme", Pod: "web-0", Container: "app", Bytes: 12}},
		{Leave: 10 * time.Second},
	}
	// Before the plugin listens: the socket keeps it.
	for _, m := range want {
		require.NoError(t, to.Send(m))
	}
	require.NoError(t, to.Close())
	var got []Message
	require.NoError(t, Receive(func(m Message) { got = append(got, m) }))
	require.Equal(t, want, got)
	_, still := os.LookupEnv(Environment)
	require.False(t, still, "a second instance of the plugin does not read what is the first one's")
}

func TestWithoutALauncherThereIsNothingToReceive(t *testing.T) {
	require.NoError(t, os.Unsetenv(Environment))
	require.NoError(t, Receive(func(Message) { t.Fatal("a message") }))
}

func TestAnEnvironmentThatIsNoLaunchersIsTold(t *testing.T) {
	t.Setenv(Environment, "x")
	require.ErrorContains(t, Receive(nil), Environment+`: "x" is no file descriptor`)
	t.Setenv(Environment, "9999")
	require.ErrorContains(t, Receive(nil), Environment)
}

// A plugin that does not read keeps nothing waiting for ever.
func TestASenderDoesNotWaitForAPluginThatDoesNotRead(t *testing.T) {
	to, theirs, err := Pair()
	require.NoError(t, err)
	defer func() { _ = theirs.Close() }()
	defer func() { _ = to.Close() }()
	for n := 0; ; n++ {
		require.Less(t, n, 1<<20)
		if err := to.Send(Message{Report: &Report{Kind: CaughtUp, Namespace: "tenant-acme", Pod: "web-0", Container: "app"}}); err != nil {
			require.ErrorIs(t, err, os.ErrDeadlineExceeded)
			return
		}
	}
}
