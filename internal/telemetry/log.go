// Package telemetry is how the project speaks of itself: its log lines now, its
// metrics and health later. It must not know what is delivered.
package telemetry

import (
	"context"
	"log/slog"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Printer writes one log line at a level.
type Printer interface {
	// Enabled reports whether lines of this level are wanted.
	Enabled(slog.Level) bool
	// Print writes one line, without a line break at its end.
	Print(slog.Level, string)
}

// NewLogger returns a logger that writes `[name] message key=value ...` lines.
func NewLogger(name string, p Printer) *slog.Logger {
	return slog.New(&handler{prefix: "[" + name + "] ", p: p})
}

type handler struct {
	prefix string
	attrs  string
	group  string
	p      Printer
}

func (h *handler) Enabled(_ context.Context, l slog.Level) bool { return h.p.Enabled(l) }

func (h *handler) Handle(_ context.Context, r slog.Record) error {
	var b strings.Builder
	b.WriteString(h.prefix)
	b.WriteString(oneLine(r.Message))
	b.WriteString(h.attrs)
	r.Attrs(func(a slog.Attr) bool {
		writeAttr(&b, h.group, a)
		return true
	})
	h.p.Print(r.Level, b.String())
	return nil
}

func (h *handler) WithAttrs(attrs []slog.Attr) slog.Handler {
	var b strings.Builder
	b.WriteString(h.attrs)
	for _, a := range attrs {
		writeAttr(&b, h.group, a)
	}
	c := *h
	c.attrs = b.String()
	return &c
}

func (h *handler) WithGroup(name string) slog.Handler {
	c := *h
	c.group += name + "."
	return &c
}

func writeAttr(b *strings.Builder, group string, a slog.Attr) {
	v := a.Value.Resolve()
	if v.Kind() == slog.KindGroup {
		for _, m := range v.Group() {
			writeAttr(b, group+a.Key+".", m)
		}
		return
	}
	b.WriteByte(' ')
	b.WriteString(group)
	b.WriteString(a.Key)
	b.WriteByte('=')
	s := v.String()
	if s == "" || strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r == '"' || r == '=' || r == 0x7f || r > 0x7e }) {
		s = strconv.QuoteToASCII(s)
	}
	b.WriteString(s)
}

// oneLine keeps a message from looking like two lines of the log.
func oneLine(s string) string {
	if !strings.ContainsAny(s, "\r\n\x00") {
		return s
	}
	return strings.NewReplacer("\r", " ", "\n", " ", "\x00", " ").Replace(s)
}

// Limiter lets one line of a kind through in a while, and says how many it kept back.
type Limiter struct {
	every time.Duration
	now   func() time.Time

	mu   sync.Mutex
	seen map[string]*repeat
}

type repeat struct {
	last time.Time
	held int
}

// limiterKinds bounds how many kinds are remembered.
const limiterKinds = 1024

// NewLimiter makes a Limiter that lets each kind through once per every.
func NewLimiter(every time.Duration, now func() time.Time) *Limiter {
	return &Limiter{every: every, now: now, seen: map[string]*repeat{}}
}

// Allow reports whether a line of this kind is to be written now, and how many were
// held back since the last that was.
func (l *Limiter) Allow(kind string) (held int, ok bool) { return l.AllowOf(kind, 1) }

// AllowOf is Allow for a line that would tell of n things: what is held back is counted in those.
func (l *Limiter) AllowOf(kind string, n int) (held int, ok bool) {
	now := l.now()
	l.mu.Lock()
	defer l.mu.Unlock()
	r := l.seen[kind]
	if r == nil {
		if len(l.seen) >= limiterKinds {
			l.forget(now)
		}
		l.seen[kind] = &repeat{last: now}
		return 0, true
	}
	if now.Sub(r.last) < l.every {
		r.held += n
		return 0, false
	}
	held, r.held, r.last = r.held, 0, now
	return held, true
}

// Rest is what is held back of a kind, and forgets it.
func (l *Limiter) Rest(kind string) (held int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if r := l.seen[kind]; r != nil {
		held, r.held = r.held, 0
	}
	return held
}

// forget makes room: kinds that are quiet, else the oldest half.
func (l *Limiter) forget(now time.Time) {
	kinds := make([]string, 0, len(l.seen))
	for k, r := range l.seen {
		if now.Sub(r.last) >= l.every {
			delete(l.seen, k)
			continue
		}
		kinds = append(kinds, k)
	}
	if len(l.seen) < limiterKinds {
		return
	}
	slices.SortFunc(kinds, func(a, b string) int { return l.seen[a].last.Compare(l.seen[b].last) })
	for _, k := range kinds[:len(kinds)/2] {
		delete(l.seen, k)
	}
}
