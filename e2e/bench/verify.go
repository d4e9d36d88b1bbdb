package main

import (
	"regexp"
	"strconv"

	"github.com/eks-tenant-logs/eks-tenant-logs/internal/fakeaws"
)

var number = regexp.MustCompile(`#(\d+) 10\.`)

// stream is what one log stream holds, in GetLogEvents' order.
type stream []string

func stored(s *fakeaws.Server) (streams []stream) {
	for _, g := range s.Groups() {
		for _, st := range g.Streams {
			var messages stream
			for _, e := range s.Events(g.Name, st.Name) {
				messages = append(messages, e.Message)
			}
			streams = append(streams, messages)
		}
	}
	return streams
}

// verify counts what is missing, twice or out of order: each pod, which is a stream, has
// its lines numbered.
func (f *figures) verify(w work, streams []stream) {
	total := 0
	for _, messages := range streams {
		seen := make([]bool, w.each())
		last := -1
		for _, message := range messages {
			m := number.FindStringSubmatch(message)
			if m == nil {
				continue
			}
			n, err := strconv.Atoi(m[1])
			if err != nil || n >= len(seen) {
				continue
			}
			if seen[n] {
				f.Duplicates++
				continue
			}
			seen[n] = true
			total++
			if n < last {
				f.Inversions++
			}
			last = max(last, n)
		}
	}
	f.Lost = w.Lines - total
}
