package telemetry

import (
	"errors"
	"fmt"
	"log/slog"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

type lines struct {
	level slog.Level
	got   []string
}

func (l *lines) Enabled(at slog.Level) bool { return at >= l.level }
func (l *lines) Print(at slog.Level, s string) {
	l.got = append(l.got, at.String()+" "+s)
}

func TestALineIsOneLineWhateverIsInIt(t *testing.T) {
	l := &lines{}
	log := NewLogger("x.0", l).With("tenant", "acme")
	log.Debug("not wanted")
	log.Error("two\nlines\x00", "tag", "a b\"\r\n", "n", 3, "empty", "", "err", errors.New("broken"), "bad", "\xff\x1b[31m")
	log.WithGroup("g").Info("grouped", slog.Group("h", "k", "v"))
	require.Equal(t, []string{
		`ERROR [x.0] two lines  tenant=acme tag="a b\"\r\n" n=3 empty="" err=broken bad="\xff\x1b[31m"`,
		`INFO [x.0] grouped tenant=acme g.h.k=v`,
	}, l.got)
}

func TestRepeatedLinesAreHeldBackAndCounted(t *testing.T) {
	now := time.Unix(0, 0)
	l := NewLimiter(time.Minute, func() time.Time { return now })
	allow := func(kind string) string {
		held, ok := l.Allow(kind)
		return fmt.Sprint(ok, held)
	}
	require.Equal(t, "true 0", allow("a"))
	require.Equal(t, "false 0", allow("a"))
	require.Equal(t, "false 0", allow("a"))
	require.Equal(t, "true 0", allow("b"))
	now = now.Add(time.Minute)
	require.Equal(t, "true 2", allow("a"))
	for i := range 5 * limiterKinds {
		now = now.Add(time.Millisecond)
		l.Allow(fmt.Sprint(i))
	}
	require.LessOrEqual(t, len(l.seen), limiterKinds)
}
