package e2e

import (
	"bytes"
	"cmp"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/eks-tenant-logs/eks-tenant-logs/e2e/node"
	"github.com/eks-tenant-logs/eks-tenant-logs/internal/fakeaws"
)

// line is a line of a container as a reader puts it together from a stream's events
// (docs/message.md, "To read a line whole").
type line struct {
	text   string
	events int // it was delivered as
	times  int // it arrived
}

// readLines reads a stream's lines. An event that begins within another one of its output, up to
// what that one has, was delivered again; what is partial goes on in the next event of the same output.
func readLines(t require.TestingT, events []fakeaws.Event) (lines []line, ends bool) {
	type part struct {
		at, until, stream string
		text              []byte
		partial           bool
		times             int
	}
	var parts []*part
	same := map[string]*part{}
	record := "" // of which some parts were there
	for _, e := range events {
		key := fmt.Sprint(e.Timestamp, e.Message)
		if p := same[key]; p != nil {
			p.times++
			continue
		}
		type message struct {
			Time, Stream, Log, Record string
			Notes                     struct {
				Part, Parts int
				Partial     bool
				Until       string
				Before      string `json:"bytes_before"`
				After       string `json:"bytes_after"`
			} `json:"_tenantlogs"`
		}
		var m message
		require.NoError(t, json.Unmarshal([]byte(e.Message), &m), e.Message)
		if m.Notes.Parts > 0 { // the record is longer than an event may be
			if record += m.Record; m.Notes.Part < m.Notes.Parts {
				continue
			}
			m = message{}
			require.NoError(t, json.Unmarshal([]byte(record), &m))
			record = ""
		}
		before, err := hex.DecodeString(m.Notes.Before)
		require.NoError(t, err)
		after, err := hex.DecodeString(m.Notes.After)
		require.NoError(t, err)
		p := &part{at: m.Time, until: cmp.Or(m.Notes.Until, m.Time), stream: m.Stream, text: slices.Concat(before, []byte(m.Log), after), partial: m.Notes.Partial, times: 1}
		same[key] = p
		parts = append(parts, p)
	}
	// By time; of those that begin at the same one, that which has the most first.
	slices.SortStableFunc(parts, func(a, b *part) int { return cmp.Or(cmp.Compare(a.at, b.at), cmp.Compare(b.until, a.until)) })
	long := map[string]*part{}
	parts = slices.DeleteFunc(parts, func(p *part) bool {
		if l := long[p.stream]; l != nil && p.at <= l.until && p.at >= l.at {
			l.times++
			return true
		}
		if p.until != p.at {
			long[p.stream] = p
		}
		return false
	})
	open := map[string]*line{}
	var text = map[string][]byte{}
	for _, p := range parts {
		l := open[p.stream]
		if l == nil {
			l = &line{}
			open[p.stream] = l
		}
		text[p.stream] = append(text[p.stream], p.text...)
		l.events++
		l.times = max(l.times, p.times)
		if !p.partial {
			l.text = string(text[p.stream])
			lines = append(lines, *l)
			delete(open, p.stream)
			delete(text, p.stream)
		}
	}
	return lines, len(open) == 0
}

// numbersOfLines is numbers for lines that may have arrived in parts; cut counts those.
func numbersOfLines(t *testing.T, s *fakeaws.Server) (got map[string]int, cut int) {
	t.Helper()
	got = map[string]int{}
	for _, g := range s.Groups() {
		for _, st := range g.Streams {
			lines, _ := readLines(t, s.Events(g.Name, st.Name))
			for _, l := range lines {
				if l.events > 1 {
					cut++
				}
				// The number stands at both ends: a line that lost a part, or was joined with
				// another, has no number.
				number := l.text[strings.LastIndexByte(l.text, '#')+1:]
				if !strings.HasPrefix(l.text, "#"+number+" ") {
					got["damaged: "+l.text[:min(len(l.text), 40)]+"..."+number] += l.times
					continue
				}
				got["#"+number] += l.times
			}
		}
	}
	return got, cut
}

// container is a container that writes lines, as its runtime does: in parts of 16 KiB, each
// of which can be read as soon as it is there.
type container struct {
	pod  node.Pod
	file *os.File
	mu   sync.Mutex
	n    int
	want map[string]int
}

func newContainer(t *testing.T, n *node.Node, pod node.Pod) *container {
	t.Helper()
	dir := filepath.Join(n.Root, "var/log/pods", pod.Namespace+"_"+pod.Name+"_"+pod.UID(), pod.Container)
	require.NoError(t, os.MkdirAll(dir, 0o755))
	f, err := os.OpenFile(filepath.Join(dir, "0.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	require.NoError(t, err)
	t.Cleanup(func() { f.Close() })
	return &container{pod: pod, file: f, want: map[string]int{}}
}

const runtimeCut = 16 << 10

// begin makes a line of some size, and writes its first parts; end writes the rest. The text
// is of three-byte characters, which the runtime cuts in the middle.
func (c *container) begin(t *testing.T, size, parts int) (end func()) {
	t.Helper()
	c.mu.Lock()
	defer c.mu.Unlock()
	c.n++
	number := fmt.Sprintf("%s.%d", c.pod.Name, c.n)
	text := []byte("#" + number + " " + strings.Repeat("€", size/3) + " #" + number)
	c.want["#"+number] = 1
	write := func(most int) {
		for ; len(text) > 0 && most > 0; most-- {
			n, tag := min(len(text), runtimeCut), "P"
			if n == len(text) {
				tag = "F"
			}
			var b bytes.Buffer
			fmt.Fprintf(&b, "%s stdout %s %s\n", time.Now().UTC().Format("2006-01-02T15:04:05.000000000Z07:00"), tag, text[:n])
			_, err := c.file.Write(b.Bytes())
			require.NoError(t, err)
			text = text[n:]
		}
	}
	write(parts)
	return func() { write(len(text)) }
}

func (c *container) write(t *testing.T, size int) { c.begin(t, size, 1+size/runtimeCut+1) }
