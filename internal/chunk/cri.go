package chunk

import (
	"bytes"
	"encoding/binary"
	"errors"
	"strconv"
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
	// plain says that the tag is F or P alone, with a space behind it.
	plain bool
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
		l.plain = space == 1
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
	record int           // the index of the first part's record
	body   span          // the first part's record
	fields runtimeRecord // of it
	ms     int64
	// first and last are the times of the first and the last part, as the runtime wrote them.
	first, last span
	text        []span
	marks       mark
	lastMS      int64 // of the last part
	// head says that no part of this stream was in the chunk before.
	head bool
}

// runtimeRecord is where a record has what is known of a line of a container's log file. A
// field that stands there again is not looked at: what a filter lifts out of a tenant's text
// stands behind what the runtime wrote.
type runtimeRecord struct {
	pair              int  // where the pair begins whose value is the text
	key, text         span // of that pair
	time, stream, tag span
	// joined says that Fluent Bit's multiline parser joined the parts itself.
	joined bool
	// taken says that a parser took the line apart, whatever is left of it: the record is no raw line.
	taken bool
}

// scanRecord looks for the fields of a line in the map at off, with count pairs.
func (d *Decoder) scanRecord(off int, count uint32) (r runtimeRecord, end int, err error) {
	for range count {
		pair := off
		var key, value token
		if key, off, err = next(d.in, off); err != nil {
			return r, off, err
		}
		if key.kind == kindMap || key.kind == kindArray {
			return r, off, errNotLine
		}
		at := off
		if value, off, err = next(d.in, at); err != nil {
			return r, off, err
		}
		if value.kind == kindMap || value.kind == kindArray {
			if off, err = skip(d.in, at); err != nil {
				return r, off, err
			}
		}
		if key.kind != kindString {
			continue
		}
		name, text := span{key.from, key.to}, span{value.from, value.to}
		isText := value.kind == kindString
		switch string(d.in[key.from:key.to]) {
		case "log", "message":
			if isText && r.key.empty() {
				r.pair, r.key, r.text = pair, name, text
			}
		case "stream":
			r.taken = true
			if isText && r.stream.empty() {
				r.stream = text
			}
		case "logtag":
			r.taken = true
			if isText && r.tag.empty() {
				r.tag = text
			}
		case "time":
			if isText && r.time.empty() {
				r.time = text
			}
		case "_p":
			r.joined = true
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
	case errors.Is(err, errNotLine), err == nil && (r.joined || r.key.empty()):
		return d.body(off, index, ms)
	case err != nil:
		return end, err
	}
	p := lineParts{record: index, body: span{off, end}, fields: r, ms: ms}
	if stream := streamIndex(d.in[r.stream.from:r.stream.to]); stream >= 0 {
		if more, ok := parseTag(d.in[r.tag.from:r.tag.to]); ok {
			// Fluent Bit's parser `cri` took the line apart, one record for each part.
			p.first, p.last = r.time, r.time
			return end, d.part(stream, more, r.text, p)
		}
	}
	return end, d.rawLine(r.text, p)
}

// rawLine is a line as the runtime wrote it; p.ms is when Fluent Bit read it.
func (d *Decoder) rawLine(line span, p lineParts) error {
	readAt := p.ms
	// NULs are left where a node lost power: the file's size was written, its bytes were not.
	for line.from < line.to && d.in[line.from] == 0 {
		line.from++
		p.marks = markNUL
	}
	if p.marks != 0 {
		if err := d.tornOff(); err != nil {
			return err
		}
	}
	l, ok := parseRuntimeLine(d.in[line.from:line.to])
	if !ok {
		return d.notLine(p)
	}
	for {
		p.ms, p.first = l.ms, span{line.from, line.from + l.timeTo}
		p.last = p.first
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
		if err := d.tornOff(); err != nil {
			return err
		}
		line.from, l, p.marks = next, behind, markNUL
	}
}

// tornOff ends the lines that are being read where bytes of the file are lost: what follows
// is no part of them.
func (d *Decoder) tornOff() error {
	for stream := range d.lines {
		if len(d.lines[stream].text) == 0 {
			continue
		}
		d.lines[stream].marks |= markNUL
		if err := d.endLine(stream, false); err != nil {
			return err
		}
	}
	return nil
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
		if l, ok := parseRuntimeLine(d.in[next:text.to]); ok && l.plain && l.ms >= ms && l.ms <= readAt {
			return torn, next, l, true
		}
	}
	return 0, 0, behind, false
}

// notLine is a record whose text is no runtime's: a damaged file, or not a container's. A
// record that a parser took apart is what it is.
func (d *Decoder) notLine(p lineParts) error {
	d.marks, d.told = p.marks, d.told[:0]
	if !p.fields.taken {
		d.tell(`"not_cri":true`)
		d.ev.Stats.NotCRI++
	}
	_, err := d.body(p.body.from, p.record, p.ms)
	d.told = d.told[:0]
	return err
}

// part adds a part to its line, and ends the line where no more of it follows. first is what
// is known of the line where this is its first part in the chunk.
func (d *Decoder) part(stream int, more bool, text span, first lineParts) error {
	line := &d.lines[stream]
	if len(line.text) > 0 && first.ms < line.lastMS {
		// It is older than what would be the line's beginning: of another file.
		if err := d.endLine(stream, true); err != nil {
			return err
		}
	}
	if len(line.text) == 0 {
		buffer := line.text
		*line = first
		line.text, line.head = buffer, !d.seen[stream]
	}
	// Around a rotation, tail reads the old file and the new one by turns: behind the last part of the old one comes
	// a line from the middle of the new one. Within a file times only rise.
	behind := d.seen[stream] && first.ms < d.latest[stream]
	if !d.seen[stream] || !behind {
		d.latest[stream] = first.ms
	}
	d.seen[stream] = true
	line.marks |= first.marks
	line.last, line.lastMS = first.last, first.ms
	line.text = append(line.text, text)
	if more && !behind {
		return nil
	}
	return d.endLine(stream, more)
}

// characterEnd is how many bytes at the beginning of a text end a UTF-8 character that began
// before it; at most three.
func characterEnd(text []byte) (n int) {
	for n < len(text) && n < utf8.UTFMax-1 && !utf8.RuneStart(text[n]) {
		n++
	}
	return n
}

// characterBegin is how many bytes at the end of a text begin a UTF-8 character and do not end
// it; at most three.
func characterBegin(text []byte) int {
	for n := 1; n <= len(text) && n < utf8.UTFMax; n++ {
		if from := len(text) - n; utf8.RuneStart(text[from]) {
			if utf8.FullRune(text[from:]) {
				return 0
			}
			return n
		}
	}
	return 0
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

// endLine makes the event of a line. partial says that its end is not in the chunk.
func (d *Decoder) endLine(stream int, partial bool) error {
	line := &d.lines[stream]
	text := d.joined[:0]
	for _, s := range line.text {
		text = append(text, d.in[s.from:s.to]...)
	}
	d.joined = text
	d.told = d.told[:0]
	if partial {
		d.ev.Stats.Partial++
		last := line.text[len(line.text)-1]
		d.tell(`"partial":true,"last_part_bytes":`)
		d.told = strconv.AppendInt(d.told, int64(last.to-last.from), 10)
		if n := characterBegin(text); n > 0 {
			d.tellBytes("bytes_after", text[len(text)-n:])
			text = text[:len(text)-n]
		}
	}
	if n := characterEnd(text); line.head && n > 0 {
		d.tellBytes("bytes_before", text[:n])
		text = text[n:]
	}
	if len(line.text) > 1 {
		d.ev.Stats.Joined++
		if !line.last.empty() && d.opts.LogKey == "" { // a raw message would need an envelope for it
			d.tell(`"until":`)
			d.told = AppendString(d.told, d.in[line.last.from:line.last.to])
		}
	}
	err := d.compose(line, stream, text)
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
func (d *Decoder) compose(line *lineParts, stream int, text []byte) error {
	t, off, err := next(d.in, line.body.from)
	if err != nil {
		return err
	}
	b := append(d.composed[:0], 0xdf, 0, 0, 0, 0) // a map; how many pairs is not known yet
	pairs := uint32(0)
	if !line.fields.taken {
		b = appendString(b, "time")
		b = append(appendStringHeader(b, line.first.to-line.first.from), d.in[line.first.from:line.first.to]...)
		b = appendString(appendString(b, "stream"), streamNames[stream])
		pairs = 2
	}
	field := d.in[line.fields.key.from:line.fields.key.to]
	for range t.count {
		start := off
		var key token
		if key, off, err = next(d.in, off); err != nil {
			return err
		}
		value := off
		if off, err = skip(d.in, off); err != nil {
			return err
		}
		name := d.in[key.from:key.to]
		switch {
		case start == line.fields.pair:
			b = append(b, d.in[start:value]...)
			b = append(appendStringHeader(b, len(text)), text...)
		case key.kind == kindString && string(name) == "logtag":
			continue
		case key.kind == kindString && bytes.Equal(name, field):
			// It would replace the text, for the last of two keys counts.
			b = append(appendStringHeader(b, len(name)+len(claimedSuffix)), name...)
			b = append(append(b, claimedSuffix...), d.in[value:off]...)
		default:
			b = append(b, d.in[start:off]...)
		}
		pairs++
	}
	binary.BigEndian.PutUint32(b[1:], pairs)
	d.composed = b
	return nil
}

// claimedSuffix is what a name gets that the record may not have.
const claimedSuffix = "_claimed"

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
func (d *Decoder) tellBytes(name string, s []byte) {
	d.tell(`"` + name + `":"`)
	for _, c := range s {
		d.told = append(d.told, hex[c>>4], hex[c&15])
	}
	d.told = append(d.told, '"')
}
