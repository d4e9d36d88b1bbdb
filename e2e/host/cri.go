package host

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/tinylib/msgp/msgp"
)

// Record is a log line as Fluent Bit's tail makes it with `multiline.parser cri`, or without a parser. Its bytes are the reader's; they hold
// until the next record.
type Record struct {
	Tag  string
	Path string // seen from the root
	// Time is the record's. For a line without a readable time it is what Fluent Bit makes of that: the zero tm, in 1899,
	// which on the wire wraps to 2036.
	Time time.Time
	// The fields, in this order. Those of a joined line are the first part's, so Flag is P there.
	TimeText, Stream, Flag, Log []byte
	// Broken says that the line was not CRI's, or was not taken apart: then Log is the only field.
	Broken bool
}

// ParseJSON is a `parser` filter: Parser json, Key_Name log.
type ParseJSON struct {
	// ReserveData is Reserve_Data: keep the other fields, after those from the JSON.
	ReserveData bool
}

// AppendBody appends the record's body, a MessagePack map. With a nil parse, or when Log is no JSON object, that is the
// fields as they are.
func (r *Record) AppendBody(b []byte, parse *ParseJSON) []byte {
	type field struct {
		key   string
		value []byte
	}
	fields := []field{{"time", r.TimeText}, {"stream", r.Stream}, {"_p", r.Flag}, {"log", r.Log}}
	if r.Broken {
		fields = fields[3:]
	}

	var parsed []byte
	if parse != nil {
		if m, err := AppendJSON(nil, r.Log); err == nil {
			parsed = m
			fields = fields[:len(fields)-1]
			if !parse.ReserveData {
				fields = nil
			}
		}
	}
	var n uint32
	if parsed != nil {
		n, parsed, _ = msgp.ReadMapHeaderBytes(parsed) // AppendJSON wrote it
	}
	b = msgp.AppendMapHeader(b, n+uint32(len(fields)))
	b = append(b, parsed...)
	for _, f := range fields {
		b = msgp.AppendStringFromBytes(msgp.AppendString(b, f.key), f.value)
	}
	return b
}

// ReadCRI reads the container log files under root that fit the glob (`/var/log/pods/*/*/*.log`) from their beginning, one
// after the other, and calls fn with each record. Paths and tags are as if root were /. The tag is tail's Tag, in which
// `*` becomes the path (see ComposeTag). A last line without an end is left out, as it is not finished yet; tail's limits
// on the length of lines are not imitated.
func ReadCRI(root, glob, tag string, fn func(Record) error) error {
	return readFiles(root, glob, tag, ParseCRI, fn)
}

// ReadLines is ReadCRI for tail without a parser: each line is a record with the field Log alone, at the present time.
func ReadLines(root, glob, tag string, fn func(Record) error) error {
	return readFiles(root, glob, tag, func(r io.Reader, template Record, fn func(Record) error) error {
		return eachLine(r, func(line []byte) error {
			rec := template
			rec.Time, rec.Log, rec.Broken = time.Now(), line, true
			return fn(rec)
		})
	}, fn)
}

type parse func(r io.Reader, template Record, fn func(Record) error) error

func readFiles(root, glob, tag string, parse parse, fn func(Record) error) error {
	paths, err := filepath.Glob(filepath.Join(root, glob))
	if err != nil {
		return err
	}
	slices.Sort(paths)
	for _, path := range paths {
		info, err := os.Stat(path) // follows links, as tail does
		if err != nil || !info.Mode().IsRegular() {
			continue
		}
		rel, err := filepath.Rel(root, path)
		if err != nil {
			return err
		}
		rel = "/" + filepath.ToSlash(rel)
		if err := readFile(path, Record{Tag: ComposeTag(tag, rel), Path: rel}, parse, fn); err != nil {
			return fmt.Errorf("%s: %w", rel, err)
		}
	}
	return nil
}

func readFile(path string, template Record, parse parse, fn func(Record) error) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	return parse(f, template, fn)
}

// ParseCRI is ReadCRI for one open file. The template gives each record its Tag and Path.
func ParseCRI(r io.Reader, template Record, fn func(Record) error) error {
	j := joiner{template: template, emit: fn}
	if err := eachLine(r, j.line); err != nil {
		return err
	}
	return j.flush() // tail flushes parts that wait for their rest after a time
}

// eachLine calls fn with each line that has an end, cleaned as tail does. The line holds until fn returns.
func eachLine(r io.Reader, fn func([]byte) error) error {
	br := bufio.NewReaderSize(r, 64<<10)
	var line []byte
	first := true
	for {
		part, err := br.ReadSlice('\n')
		line = append(line, part...)
		switch {
		case errors.Is(err, bufio.ErrBufferFull):
			continue
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return err
		}
		if first {
			line, first = bytes.TrimLeft(line, "\x00"), false // what truncating a file being written leaves
		}
		line = line[:len(line)-1]
		if n := len(line); n >= 2 && line[n-1] == '\r' {
			line = line[:n-1]
		}
		if err := fn(line); err != nil {
			return err
		}
		line = line[:0]
	}
}

// joiner joins partial lines, per stream, as the cri multiline parser does.
type joiner struct {
	template Record
	emit     func(Record) error
	groups   []*group // in the order in which the streams came up
}

type group struct {
	stream  string
	waiting bool
	rec     Record // the first part's, in memory of its own
}

func (j *joiner) line(line []byte) error {
	when, stream, flag, log, ok := splitCRI(line)
	if !ok {
		// A line that does not fit ends what waits, and stands for itself. An empty one does only the former.
		if err := j.flush(); err != nil || len(line) == 0 {
			return err
		}
		rec := j.template
		rec.Time, rec.Log, rec.Broken = time.Now(), line, true
		return j.emit(rec)
	}

	var g *group
	for _, have := range j.groups {
		if have.stream == string(stream) {
			g = have
		}
	}
	if g == nil {
		g = &group{stream: string(stream)}
		j.groups = append(j.groups, g)
	}
	last := string(flag) == "F"
	if !g.waiting {
		rec := j.template
		rec.Time, rec.TimeText, rec.Stream, rec.Flag, rec.Log = criTime(when), when, stream, flag, log
		if last {
			return j.emit(rec)
		}
		rec.TimeText, rec.Stream, rec.Flag = bytes.Clone(when), bytes.Clone(stream), bytes.Clone(flag)
		rec.Log = append(g.rec.Log[:0], log...)
		g.rec, g.waiting = rec, true
		return nil
	}
	g.rec.Log = append(g.rec.Log, log...)
	if last {
		g.waiting = false
		return j.emit(g.rec)
	}
	return nil
}

func (j *joiner) flush() error {
	for _, g := range j.groups {
		if g.waiting {
			g.waiting = false
			if err := j.emit(g.rec); err != nil {
				return err
			}
		}
	}
	return nil
}

// splitCRI is the cri parser's ^(?<time>.+?) (?<stream>stdout|stderr) (?<_p>F|P) (?<log>.*)$
func splitCRI(line []byte) (when, stream, flag, log []byte, ok bool) {
	const n = len(" stdout F ")
	for i := 1; i+n <= len(line); i++ {
		mid := line[i : i+n]
		name, f := mid[1:7], mid[8:9]
		if mid[0] == ' ' && mid[7] == ' ' && mid[9] == ' ' && (f[0] == 'F' || f[0] == 'P') &&
			(string(name) == "stdout" || string(name) == "stderr") {
			return line[:i], name, f, line[i+n:], true
		}
	}
	return nil, nil, nil, nil, false
}

// criTime reads a time as Fluent Bit does with %Y-%m-%dT%H:%M:%S.%L%z, not strictly: what can't be read counts as zero, the
// zone after a missing fraction included.
func criTime(b []byte) time.Time {
	s := string(b)
	if len(s) > 19 && s[19] == '.' {
		if t, err := time.Parse(time.RFC3339Nano, s); err == nil {
			return t
		}
	}
	if len(s) >= 19 {
		if t, err := time.Parse("2006-01-02T15:04:05", s[:19]); err == nil {
			return t
		}
	}
	return time.Date(1899, 12, 31, 0, 0, 0, 0, time.UTC)
}

// ComposeTag puts the path in the place of the tag's `*`, and cleans the result up, as tail does: `/`, `\` and `:` become
// dots, runs of dots one, a leading one of the three and a dot at the end go, and so does any further `*`. So two paths can
// get the same tag.
func ComposeTag(tag, path string) string {
	head, tail, star := strings.Cut(tag, "*")
	if !star {
		return tag
	}
	var b []byte
	for _, c := range []byte(head + path + tail) {
		switch c {
		case '/', '\\', ':':
			if len(b) == 0 {
				continue
			}
			c = '.'
		case '*':
			continue
		}
		if c == '.' && len(b) > 0 && b[len(b)-1] == '.' {
			continue
		}
		b = append(b, c)
	}
	return strings.TrimSuffix(string(b), ".")
}
