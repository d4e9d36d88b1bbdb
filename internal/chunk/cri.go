package chunk

import (
	"bytes"
	"encoding/binary"
	"errors"
	"unicode/utf8"
)

// This file takes apart lines of container log files as the container runtime writes them
// (Kubernetes CRI, "Logging format"): `<time> <stdout|stderr> <tag> <text>`. The tag is P
// where the runtime cut a line that is longer than it writes at once (16 KiB in containerd),
// and F at the end of a line.
//
// No state is kept from one chunk to the next: Fluent Bit brings chunks in any order, to
// several threads, and again. A line whose parts are in one chunk becomes one event. The
// parts of a line that lie in several chunks become an event for each chunk; all but the
// last say that they are partial.

// runtimeLine is a line of a container's log file. Its text is what follows textAt.
type runtimeLine struct {
	ms     int64 // milliseconds since 1970
	timeTo int   // where the time ends, which begins the line
	stream int   // an index of streamNames
	more   bool
	textAt int
}

var streamNames = [...]string{"stdout", "stderr"}

// maxTime bounds the bytes of a time with the space behind it. Runtimes write 35 at most. Without
// a bound, a line of NULs would be searched to its end from each of them.
const maxTime = 64

// parseRuntimeLine takes a line apart.
func parseRuntimeLine(line []byte) (l runtimeLine, ok bool) {
	if l.timeTo = bytes.IndexByte(line[:min(len(line), maxTime)], ' '); l.timeTo < 0 {
		return l, false
	}
	if l.ms, ok = parseTime(line[:l.timeTo]); !ok {
		return l, false
	}
	const name = len("stdout")
	tagAt := l.timeTo + 1 + name + 1
	if len(line) <= tagAt || line[tagAt-1] != ' ' {
		return l, false
	}
	if l.stream = streamIndex(line[l.timeTo+1 : tagAt-1]); l.stream < 0 {
		return l, false
	}
	tag := line[tagAt:]
	l.textAt = len(line)
	if space := bytes.IndexByte(tag, ' '); space >= 0 {
		tag = tag[:space]
		l.textAt = tagAt + space + 1
	}
	l.more, ok = parseTag(tag)
	return l, ok
}

func streamIndex(name []byte) int {
	switch string(name) {
	case streamNames[0]:
		return 0
	case streamNames[1]:
		return 1
	}
	return -1
}

// parseTag reads a tag; more says that the line goes on. The format allows further tags
// behind a colon, and none is defined.
func parseTag(tag []byte) (more, ok bool) {
	if len(tag) == 0 || len(tag) > 1 && tag[1] != ':' {
		return false, false
	}
	return tag[0] == 'P', tag[0] == 'P' || tag[0] == 'F'
}

// parseTime reads a time in RFC 3339 with any number of digits after the second, as
// milliseconds since 1970. Runtimes write nothing else.
func parseTime(b []byte) (ms int64, ok bool) {
	const date = len("2006-01-02T15:04:05")
	if len(b) <= date || b[4] != '-' || b[7] != '-' || b[10] != 'T' || b[13] != ':' || b[16] != ':' {
		return 0, false
	}
	year, ok1 := digits(b[0:4])
	month, ok2 := digits(b[5:7])
	day, ok3 := digits(b[8:10])
	hour, ok4 := digits(b[11:13])
	minute, ok5 := digits(b[14:16])
	second, ok6 := digits(b[17:19])
	if !(ok1 && ok2 && ok3 && ok4 && ok5 && ok6) || month < 1 || month > 12 || day < 1 || day > daysIn(year, month) ||
		hour > 23 || minute > 59 || second > 59 {
		return 0, false
	}
	b = b[date:]
	fraction := int64(0)
	if b[0] == '.' {
		n := 1
		for scale := int64(100); n < len(b) && b[n] >= '0' && b[n] <= '9'; n++ {
			fraction += int64(b[n]-'0') * scale
			scale /= 10
		}
		if n == 1 {
			return 0, false
		}
		b = b[n:]
	}
	zone, ok := parseZone(b)
	if !ok {
		return 0, false
	}
	seconds := daysSince1970(year, month, day)*86400 + int64(hour)*3600 + int64(minute)*60 + int64(second) - zone
	return seconds*1000 + fraction, true
}

// parseZone reads Z or ±hh:mm, in seconds east of UTC.
func parseZone(b []byte) (seconds int64, ok bool) {
	if len(b) == 1 && b[0] == 'Z' {
		return 0, true
	}
	if len(b) != len("+00:00") || b[3] != ':' || b[0] != '+' && b[0] != '-' {
		return 0, false
	}
	hour, ok1 := digits(b[1:3])
	minute, ok2 := digits(b[4:6])
	if !ok1 || !ok2 || hour > 24 || minute > 60 { // as time.Parse has it
		return 0, false
	}
	seconds = int64(hour)*3600 + int64(minute)*60
	if b[0] == '-' {
		seconds = -seconds
	}
	return seconds, true
}

func digits(b []byte) (n int, ok bool) {
	for _, c := range b {
		if c < '0' || c > '9' {
			return 0, false
		}
		n = n*10 + int(c-'0')
	}
	return n, true
}

func daysIn(year, month int) int {
	switch month {
	case 4, 6, 9, 11:
		return 30
	case 2:
		if year%4 == 0 && (year%100 != 0 || year%400 == 0) {
			return 29
		}
		return 28
	}
	return 31
}

// daysSince1970 counts days in the Gregorian calendar. A year begins in March here, so that
// the leap day is its last one.
func daysSince1970(year, month, day int) int64 {
	if month <= 2 {
		year--
		month += 12
	}
	y := int64(year) + 400 // no negative years below
	const daysTo1970 = 719468 + 146097
	return y*365 + y/4 - y/100 + y/400 + int64((153*(month-3)+2)/5) + int64(day) - 1 - daysTo1970
}

// span is a part of Decoder.in.
type span struct{ from, to int }

func (s span) empty() bool { return s.from == s.to }

// lineParts are the parts of one line that were read so far.
type lineParts struct {
	record int  // the index of the first part's record
	body   span // the first part's record
	ms     int64
	at     span // the time as the runtime wrote it; empty where a parser took it
	text   []span
	size   int // bytes of text
	marks  mark
	// before are the bytes in front of the text that end a character of another chunk.
	before span
}

// runtimeRecord is what a record holds of a line of a container's log file.
type runtimeRecord struct {
	log, tag, stream span
	// parsed says that a parser of Fluent Bit's took the line apart.
	parsed bool
	// joined says that its multiline parser did, which joins parts itself.
	joined bool
}

// scanRecord looks for the fields of a line in the map at off, with count pairs.
func (d *Decoder) scanRecord(off int, count uint32) (r runtimeRecord, end int, err error) {
	for range count {
		var key, value token
		if key, off, err = next(d.in, off); err != nil {
			return r, off, err
		}
		if key.kind == kindMap || key.kind == kindArray {
			return r, off, errNotLine
		}
		if value, end, err = next(d.in, off); err != nil {
			return r, end, err
		}
		if off, err = skip(d.in, off); err != nil {
			return r, off, err
		}
		if key.kind != kindString {
			continue
		}
		text := span{value.from, value.to}
		if value.kind != kindString {
			text = span{-1, -1}
		}
		switch string(d.in[key.from:key.to]) {
		case "log", "message":
			r.log = text
		case "stream":
			r.stream, r.parsed = text, true
		case "logtag":
			r.tag, r.parsed = text, true
		case "_p":
			r.parsed, r.joined = true, true
		}
	}
	return r, off, nil
}

// errNotLine says that a record is to be read without looking for a line in it.
var errNotLine = errNotRecord

// line decodes the record whose body is at off as a line of a container's log file.
func (d *Decoder) line(off, index int, ms int64) (int, error) {
	t, inside, err := next(d.in, off)
	if err != nil {
		return inside, err
	}
	if t.kind != kindMap {
		return d.body(off, index, ms)
	}
	r, end, err := d.scanRecord(inside, t.count)
	switch {
	case errors.Is(err, errNotLine), err == nil && (r.joined || r.log.from <= 0):
		return d.body(off, index, ms)
	case err != nil:
		return end, err
	}
	body := span{off, end}
	if r.parsed {
		return end, d.parsedLine(r, body, index, ms)
	}
	return end, d.rawLine(r.log, body, index, ms)
}

// parsedLine is a line that Fluent Bit's parser `cri` took apart, one record for each part.
func (d *Decoder) parsedLine(r runtimeRecord, body span, index int, ms int64) error {
	stream, more, ok := -1, false, false
	if r.stream.from > 0 && r.tag.from > 0 {
		stream = streamIndex(d.in[r.stream.from:r.stream.to])
		more, ok = parseTag(d.in[r.tag.from:r.tag.to])
	}
	if stream < 0 || !ok {
		_, err := d.body(body.from, index, ms)
		return err
	}
	return d.part(stream, more, r.log, lineParts{record: index, body: body, ms: ms})
}

// rawLine is a line as the runtime wrote it. readAt is when Fluent Bit read it.
func (d *Decoder) rawLine(line, body span, index int, readAt int64) error {
	p := lineParts{record: index, body: body}
	// NULs are left where a node lost power: the file's size was written, its bytes were not.
	for line.from < line.to && d.in[line.from] == 0 {
		line.from++
		p.marks = markNUL
	}
	l, ok := parseRuntimeLine(d.in[line.from:line.to])
	if !ok {
		return d.notLine(p.marks, body, index, readAt)
	}
	for {
		p.ms, p.at = l.ms, span{line.from, line.from + l.timeTo}
		text := span{line.from + l.textAt, line.to}
		torn, next, behind, found := d.tear(text, l.ms, readAt)
		if !found {
			return d.part(l.stream, l.more, text, p)
		}
		// The end of the torn line is lost with its line break, and so may further parts be.
		p.marks |= markNUL
		if err := d.part(l.stream, false, span{text.from, torn}, p); err != nil {
			return err
		}
		line.from, l, p.marks = next, behind, markNUL
	}
}

// tear looks for a place in a text where NULs replaced the end of its line and perhaps the
// beginning of the next: the text ends at torn, and the line behind begins at next. A tenant
// can write NULs, and behind them what looks like a line: so the second line's time must lie
// between the first one's, which the runtime wrote, and the time of reading, and a tenant who
// does this only chooses a time in between for a line of its own.
func (d *Decoder) tear(text span, ms, readAt int64) (torn, next int, behind runtimeLine, found bool) {
	for torn = text.from; torn < text.to; torn = next {
		nul := bytes.IndexByte(d.in[torn:text.to], 0)
		if nul < 0 {
			return 0, 0, behind, false
		}
		torn += nul
		for next = torn; next < text.to && d.in[next] == 0; next++ {
		}
		if l, ok := parseRuntimeLine(d.in[next:text.to]); ok && l.ms >= ms && l.ms <= readAt {
			return torn, next, l, true
		}
	}
	return 0, 0, behind, false
}

// notLine is a record whose text is no runtime's: a damaged file, or not a container's.
func (d *Decoder) notLine(marks mark, body span, index int, readAt int64) error {
	d.marks, d.told = marks, append(d.told[:0], `"not_cri":true`...)
	d.ev.Stats.NotCRI++
	_, err := d.body(body.from, index, readAt)
	d.told = d.told[:0]
	return err
}

// part adds a part to its line, and ends the line where no more of it follows. first is what
// is known of the line where this is its first part in the chunk.
func (d *Decoder) part(stream int, more bool, text span, first lineParts) error {
	line := &d.lines[stream]
	if len(line.text) == 0 {
		buffer := line.text
		*line = first
		line.text = buffer
		if !d.seen[stream] {
			line.before = d.characterEnd(text)
			text.from = line.before.to
		}
	}
	d.seen[stream] = true
	line.marks |= first.marks
	line.text = append(line.text, text)
	line.size += text.to - text.from
	if more {
		return nil
	}
	return d.endLine(stream, false)
}

// characterEnd is the beginning of a text that ends a UTF-8 character, at most three bytes;
// empty where there is none.
func (d *Decoder) characterEnd(text span) span {
	end := text.from
	for end < text.to && end-text.from < utf8.UTFMax-1 && !utf8.RuneStart(d.in[end]) {
		end++
	}
	return span{text.from, end}
}

// characterBegin is the end of a text that begins a UTF-8 character and does not end it.
func (d *Decoder) characterBegin(text span) span {
	for from := text.to - 1; from >= text.from && text.to-from < utf8.UTFMax; from-- {
		if utf8.RuneStart(d.in[from]) {
			if !utf8.FullRune(d.in[from:text.to]) {
				return span{from, text.to}
			}
			break
		}
	}
	return span{text.to, text.to}
}

// endLines makes events of the lines whose end is not in the chunk, in the order in which
// they began.
func (d *Decoder) endLines() error {
	order := [...]int{0, 1}
	if d.lines[1].record < d.lines[0].record {
		order = [...]int{1, 0}
	}
	for _, stream := range order {
		if len(d.lines[stream].text) == 0 {
			continue
		}
		if err := d.endLine(stream, true); err != nil {
			return err
		}
	}
	return nil
}

// endLine makes the event of a line. partial says that the line goes on in another chunk.
func (d *Decoder) endLine(stream int, partial bool) error {
	line := &d.lines[stream]
	d.told = d.told[:0]
	if partial {
		d.ev.Stats.Partial++
		d.tell(`"partial":true`)
		last := &line.text[len(line.text)-1]
		if cut := d.characterBegin(*last); !cut.empty() {
			d.tellBytes("bytes_after", cut)
			line.size -= cut.to - cut.from
			last.to = cut.from
		}
	}
	if !line.before.empty() {
		d.tellBytes("bytes_before", line.before)
	}
	if len(line.text) > 1 {
		d.ev.Stats.Joined++
	}
	err := d.compose(line, stream)
	if err == nil {
		in := d.in
		d.in, d.marks = d.composed, line.marks
		_, err = d.body(0, line.record, line.ms)
		d.in = in
	}
	line.text, d.told = line.text[:0], d.told[:0]
	return err
}

// compose makes the record of a line in d.composed: its fields as Fluent Bit's parser names
// them, and what else was in the record of its first part.
func (d *Decoder) compose(line *lineParts, stream int) error {
	t, off, err := next(d.in, line.body.from)
	if err != nil {
		return err
	}
	raw := !line.at.empty()
	b := append(d.composed[:0], 0xdf, 0, 0, 0, 0) // a map; how many pairs is not known yet
	pairs := uint32(0)
	if raw {
		b = appendString(b, "time")
		b = append(appendStringHeader(b, line.at.to-line.at.from), d.in[line.at.from:line.at.to]...)
		b = appendString(appendString(b, "stream"), streamNames[stream])
		pairs = 2
	}
	written := false
	for range t.count {
		start := off
		var key token
		if key, off, err = next(d.in, off); err != nil {
			return err
		}
		name := ""
		if key.kind == kindString {
			name = string(d.in[key.from:key.to])
		}
		if off, err = skip(d.in, off); err != nil {
			return err
		}
		switch {
		case name == "logtag":
			continue
		case name == "log", name == "message" && !raw:
			if written {
				continue
			}
			written = true
			b = appendStringHeader(appendString(b, "log"), line.size)
			for _, s := range line.text {
				b = append(b, d.in[s.from:s.to]...)
			}
		default:
			b = append(b, d.in[start:off]...)
		}
		pairs++
	}
	binary.BigEndian.PutUint32(b[1:], pairs)
	d.composed = b
	return nil
}

// appendStringHeader appends the header of a MessagePack string of n bytes.
func appendStringHeader(b []byte, n int) []byte {
	if n < 32 {
		return append(b, 0xa0|byte(n))
	}
	return binary.BigEndian.AppendUint32(append(b, 0xdb), uint32(n))
}

func appendString(b []byte, s string) []byte { return append(appendStringHeader(b, len(s)), s...) }

// tell adds a member to what `_tenantlogs` says of the next event.
func (d *Decoder) tell(member string) {
	if len(d.told) > 0 {
		d.told = append(d.told, ',')
	}
	d.told = append(d.told, member...)
}

// tellBytes adds a member whose value is bytes in hexadecimal.
func (d *Decoder) tellBytes(name string, s span) {
	d.tell(`"` + name + `":"`)
	for _, c := range d.in[s.from:s.to] {
		d.told = append(d.told, hex[c>>4], hex[c&15])
	}
	d.told = append(d.told, '"')
}
