package main

import (
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/eks-tenant-logs/eks-tenant-logs/internal/provision"
	"github.com/eks-tenant-logs/eks-tenant-logs/internal/replay"
)

// progressBar shows how far a command is: a bar on a terminal, now and then a line
// elsewhere, and nothing for what is over within two seconds. Log lines are written through
// it, so that they do not stand in the bar.
type progressBar struct {
	w        io.Writer
	terminal bool

	mu    sync.Mutex
	begun time.Time
	shown time.Time
	drawn bool
}

const (
	progressAfter   = 2 * time.Second
	progressRedraw  = 200 * time.Millisecond
	progressNewLine = 30 * time.Second
)

func newProgressBar(w io.Writer) *progressBar {
	b := &progressBar{w: w, begun: time.Now()}
	if f, ok := w.(*os.File); ok {
		info, err := f.Stat()
		b.terminal = err == nil && info.Mode()&os.ModeCharDevice != 0
	}
	return b
}

func (b *progressBar) show(p replay.Progress) { b.draw(func() string { return progressText(p) }) }

// draw shows what text returns, if it is time for it.
func (b *progressBar) draw(show func() string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	now := time.Now()
	every := progressNewLine
	if b.terminal {
		every = progressRedraw
	}
	if now.Sub(b.begun) < progressAfter || now.Sub(b.shown) < every {
		return
	}
	b.shown = now
	text := show()
	if !b.terminal {
		fmt.Fprintln(b.w, text)
		return
	}
	fmt.Fprintf(b.w, "\r\x1b[K%s", text)
	b.drawn = true
}

func progressText(p replay.Progress) string {
	const width = 30
	full := 0
	if p.Streams > 0 {
		full = min(width, width*p.Stream/p.Streams)
	}
	text := fmt.Sprintf("[%s%s] %s (group %d of %d) stream %d of %d, %d events replayed",
		strings.Repeat("#", full), strings.Repeat("-", width-full), p.Tenant, p.Group, p.Groups, p.Stream, p.Streams, p.Replayed)
	if p.Waiting > 0 {
		text += fmt.Sprintf(", waiting %s for what was sent to be seen", p.Waiting.Round(time.Second))
	}
	return text
}

// provisioning shows how far a run of the provisioner is.
func (b *progressBar) provisioning(p provision.Progress) {
	b.draw(func() string {
		if p.Of == 0 {
			return fmt.Sprintf("%s: %d", p.Step, p.Done)
		}
		return fmt.Sprintf("%s: %d of %d", p.Step, p.Done, p.Of)
	})
}

// Write takes the bar away and writes a line; the next show draws the bar again.
func (b *progressBar) Write(line []byte) (int, error) {
	b.end()
	return b.w.Write(line)
}

// end takes the bar away.
func (b *progressBar) end() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.drawn {
		fmt.Fprint(b.w, "\r\x1b[K")
		b.drawn = false
	}
}
