// Package chunk turns the bytes that Fluent Bit hands to a flush into CloudWatch
// log events: one pass over MessagePack, straight into JSON, no maps built.
//
// It must not know what a tag means, who a tenant is, or that AWS exists beyond
// the limits on one event.
package chunk

import (
	"errors"
	"strconv"
	"time"
)

// MaxMessage is the most bytes a message may have: PutLogEvents takes 1,048,576
// bytes a call and counts 26 for each event on top of its message (API reference,
// PutLogEvents). A longer message becomes numbered parts.
const MaxMessage = 1_048_576 - 26

// CloudWatch rejects events that are older, and those that are further ahead (API reference,
// PutLogEvents).
const (
	OldestEvent = 14 * 24 * time.Hour
	NewestEvent = 2 * time.Hour
)

// maxDepth bounds how deep maps and arrays are followed. What lies deeper is
// carried as its MessagePack bytes in base64: nothing is lost, and no nesting
// exhausts the stack.
const maxDepth = 96

// Event is one CloudWatch log event. Its message is a part of Events.Arena.
type Event struct {
	// Timestamp is in milliseconds since 1970-01-01 UTC.
	Timestamp int64
	// From and To bound the message in Events.Arena, in bytes.
	From, To int
	// Record is the index of the record in its chunk, counted over everything
	// that stands in the chunk. The parts of one long message share it.
	Record int
	// Part counts from 1 the events of a message that is too long for one; 0 for the others.
	Part int
	// Dest is what Options.Resolve answered; 0 without it.
	Dest int
	// Dropped says that the event is not to be sent, by Options.DropLate. It has its place
	// all the same, so that the others keep theirs when the chunk comes again and the
	// clock has moved on.
	Dropped bool
}

// Stats counts what became of a chunk's records.
type Stats struct {
	Records      int // log records delivered as one or more events
	Events       int // events made of them
	GroupMarkers int // Fluent Bit's own group start and end marks: no log, not shipped
	Malformed    int // records that are not [time, map]; the rest of the chunk is delivered
	LostBytes    int // bytes after which no record could be found any more
	Claimed      int // records with a `kubernetes` map that disagrees with the source
	Reserved     int // records with another field named as ours (_aws, _tenantlogs); renamed
	EMF          int // raw messages enveloped because they could be read as EMF
	Normalised   int // records with bytes that are no UTF-8, NaN, deep nesting: marked in the message
	Duplicates   int // keys that stood in a map again; the last one wins
	Restamped    int // records whose time CloudWatch would refuse
	Dropped      int // the same, where Options.DropLate drops them
	DroppedBytes int // of their messages, as far as they were written
	Split        int // records whose message became several events
	Enveloped    int // raw messages wrapped in JSON, whatever the reason
	NoLogKey     int // records without the field log_key names: shipped whole
	Joined       int // events put together of several parts of a container's line
	Partial      int // events that hold a line whose end was not in the chunk
	NotCRI       int // records that are no line of a container's log file: shipped whole
}

// Damage says where a chunk could not be read. The zero value means nowhere.
type Damage struct {
	Offset int // bytes from the start of the chunk
	Err    error
}

// Events is what Decode makes. It owns its memory: nothing in it points into the
// chunk. It may be used again for another chunk.
type Events struct {
	Arena []byte
	List  []Event
	Stats Stats
	// Damage is the first of the chunk's damages.
	Damage Damage
}

// Message returns the message of event i. It is valid until the next Decode.
func (e *Events) Message(i int) []byte { return e.Arena[e.List[i].From:e.List[i].To] }

// Claim is what a record's own `kubernetes` map says. The strings are parts of
// the chunk and must not be kept.
type Claim struct {
	Namespace, Pod, Container, PodUID, ContainerID, Host []byte
	// Present is false where the record has no `kubernetes` map.
	Present bool
}

// Options say what the message of a record is.
type Options struct {
	// Identity is the source of every record; nil where the tag names none.
	Identity *Identity
	// Resolve, when set, decides the identity record by record (`identity record`)
	// from the last `kubernetes` map; the int becomes Event.Dest. A nil Identity
	// leaves the record without authentic `kubernetes`. The text is a note for this
	// record, like Note.
	Resolve func(Claim) (*Identity, int, string)
	// LogKey sends this one top-level field raw instead of the record as JSON. The
	// key is matched exactly. Empty means the whole record.
	LogKey string
	// CRI says that records hold lines of container log files as the runtime wrote them, or
	// as Fluent Bit's parser `cri` took them apart. Their parts are joined. It excludes
	// Resolve: the parts of one chunk must be of one source.
	CRI bool
	// AllowEMF leaves a top-level `_aws` as it is.
	AllowEMF bool
	// Note is put into `_tenantlogs` of every event: JSON members, no braces.
	Note string
	// Now, Oldest and Newest are milliseconds since 1970. A record outside
	// [Oldest, Newest] gets Now as its time and keeps its own in `_tenantlogs`:
	// CloudWatch refuses events older than 14 days or 2 hours ahead. Newest 0
	// turns this off.
	Now, Oldest, Newest int64
	// Skew is how many milliseconds the clock that records' times are from is ahead of the one
	// that Now, Oldest and Newest are from; 0 where they agree.
	Skew int64
	// DropLate drops such records instead, but for those whose time is none at all, and those
	// that are outside only for the Skew: they are not late.
	DropLate bool
	// MaxMessage bounds a message in bytes; 0 means the constant of that name.
	MaxMessage int
}

// skewed reports whether a time outside [Oldest, Newest] is so for the skew: without it, it
// would be inside.
func (o *Options) skewed(ms int64) bool {
	return ms != badTime && Skewed(ms, o.Skew, o.Oldest, o.Newest)
}

// Skewed reports whether a time, by a clock that is skew ahead, is outside [oldest, newest] and
// would be inside without the skew. All are in milliseconds.
func Skewed(ms, skew, oldest, newest int64) bool {
	outside := skew > 0 && ms > newest || skew < 0 && ms < oldest
	return outside && ms-skew >= oldest && ms-skew <= newest
}

// Identity is who wrote a record, in the form that goes into its message.
type Identity struct {
	namespace, pod, container, podUID, containerID, host string
	// members is the inside of the `kubernetes` object.
	members []byte
}

// NewIdentity makes the authentic `kubernetes` of a source. podUID, containerID
// and host may be empty where they are not known; what a record says of them is then
// a claim.
func NewIdentity(namespace, pod, container, podUID, containerID, host string) *Identity {
	id := &Identity{namespace: namespace, pod: pod, container: container, podUID: podUID, containerID: containerID, host: host}
	for i, name := range identityKeys {
		v := id.field(i)
		if v == "" {
			continue
		}
		if len(id.members) > 0 {
			id.members = append(id.members, ',')
		}
		id.members = AppendString(id.members, []byte(name))
		id.members = append(id.members, ':')
		id.members = AppendString(id.members, []byte(v))
	}
	return id
}

// identityKeys are the fields of `kubernetes` that say who wrote a record, with
// the names Fluent Bit's kubernetes filter gives them.
var identityKeys = [...]string{"namespace_name", "pod_name", "container_name", "pod_id", "docker_id", "host"}

// hostKey is the index of the one field that says where, not who.
const hostKey = 5

func (id *Identity) field(i int) string {
	switch i {
	case 0:
		return id.namespace
	case 1:
		return id.pod
	case 2:
		return id.container
	case 3:
		return id.podUID
	case 4:
		return id.containerID
	}
	return id.host // hostKey
}

// mark is a change made to a record that its message must tell of.
type mark uint8

const (
	markUTF8 mark = 1 << iota
	markNumber
	markDeep
	markKey
	markNUL
)

var markNames = [...]string{"utf8", "number", "depth", "key", "nul"}

// entry is one key and value of a map while it is written.
type entry struct {
	start, key, end int // in the output: entry, end of the key, end of the value
	rawFrom, rawTo  int // the key in the input
	fate            fate
}

// fate is what becomes of an entry whose key stands in its map again.
type fate uint8

const (
	keep   fate = iota
	drop        // a later entry has exactly this key
	rename      // a later entry has a key that only JSON can't tell from this one
)

// Decoder decodes chunks, one at a time; it keeps its memory between them. It
// must not be used by two goroutines at once.
type Decoder struct {
	in      []byte
	opts    Options
	ev      *Events
	out     []byte
	entries []entry
	order   []int
	scratch []byte
	marks   mark
	told    []byte // members of `_tenantlogs` for the next event

	// Options.CRI: the lines that are being read, by stream; whether there was one of this
	// stream in the chunk, and its latest time; and the record that is made of a line.
	lines    [len(streamNames)]lineParts
	seen     [len(streamNames)]bool
	latest   [len(streamNames)]int64
	composed []byte
	joined   []byte // its text
}

var (
	errNotRecord = errors.New("not a record: [time, map] or [[time, metadata], map]")
	errNotTime   = errors.New("a record without a time: an event time, an integer or a float")
)

const (
	markerStart = 0xFFFFFFFF
	markerEnd   = 0xFFFFFFFE
)

// Decode reads a chunk into ev, replacing what was there. It never fails as a
// whole: what can't be read is counted in ev.Stats and named in ev.Damage, and
// everything before it is delivered. data is not kept.
func (d *Decoder) Decode(data []byte, opts Options, ev *Events) {
	if opts.MaxMessage <= 0 || opts.MaxMessage > MaxMessage {
		opts.MaxMessage = MaxMessage
	}
	d.in, d.opts, d.ev, d.out = data, opts, ev, ev.Arena[:0]
	ev.List, ev.Stats, ev.Damage = ev.List[:0], Stats{}, Damage{}
	d.told = d.told[:0]
	for stream := range d.lines {
		d.lines[stream].text, d.seen[stream] = d.lines[stream].text[:0], false
	}
	record := 0
	for off := 0; off < len(data); record++ {
		start := len(d.out)
		d.entries = d.entries[:0]
		d.marks = 0
		end, err := d.record(off, record)
		if err == nil {
			off = end
			continue
		}
		d.out = d.out[:start]
		if ev.Damage.Err == nil {
			ev.Damage = Damage{Offset: off, Err: err}
		}
		if !errors.Is(err, errShort) && !errors.Is(err, errReserved) {
			if end, err = skip(data, off); err == nil {
				ev.Stats.Malformed++
				off = end
				continue
			}
		}
		ev.Stats.Malformed++
		ev.Stats.LostBytes = len(data) - off
		break
	}
	if err := d.endLines(); err != nil && ev.Damage.Err == nil {
		ev.Damage = Damage{Offset: len(data), Err: err} // their records were read before: it does not happen
	}
	ev.Stats.Events = len(ev.List) - ev.Stats.Dropped
	ev.Arena = d.out
	d.in, d.out, d.ev, d.opts = nil, nil, nil, Options{}
}

// record decodes the record at off and adds its events.
func (d *Decoder) record(off, index int) (int, error) {
	t, off, err := next(d.in, off)
	if err != nil {
		return off, err
	}
	if t.kind != kindArray || t.count != 2 {
		return off, errNotRecord
	}
	t, off, err = next(d.in, off)
	if err != nil {
		return off, err
	}
	v2 := t.kind == kindArray
	if v2 {
		if t.count != 2 {
			return off, errNotRecord
		}
		if t, off, err = next(d.in, off); err != nil {
			return off, err
		}
	}
	ms, mark, ok := d.time(t)
	if !ok {
		return off, errNotTime
	}
	if v2 {
		metadata := off
		if off, err = skip(d.in, off); err != nil {
			return off, err
		}
		if d.groupMarker(mark, metadata, off) {
			if off, err = skip(d.in, off); err != nil {
				return off, err
			}
			d.ev.Stats.GroupMarkers++
			return off, nil
		}
	}
	if d.opts.CRI {
		return d.line(off, index, ms)
	}
	return d.body(off, index, ms)
}

// groupMarker reports whether a record is Fluent Bit's own mark around a group of
// records (flb_log_event_encoder_group_init, _end), and no log. The time alone does
// not say so: where a parser reads times from lines, a tenant could write one that
// makes its lines vanish. A start says in its metadata what group it is of, an end
// has nothing in it.
func (d *Decoder) groupMarker(mark uint32, metadata, body int) bool {
	switch mark {
	case markerStart:
		t, _, err := next(d.in, metadata)
		return err == nil && t.kind == kindMap && t.count > 0
	case markerEnd:
		t, _, err := next(d.in, body)
		return err == nil && t.kind == kindMap && t.count == 0
	}
	return false
}

// badTime stands for a time that no calendar has; it is always outside the window.
const badTime = -1 << 62

// time reads a record's time in milliseconds, and its seconds as Fluent Bit's markers
// have them, 0 for those that can be none. Fluent Bit writes event times (ext type 0:
// seconds and nanoseconds, 32 bit each), other senders integers and floats.
func (d *Decoder) time(t token) (ms int64, mark uint32, ok bool) {
	switch t.kind {
	case kindExt:
		b := d.in[t.from:t.to]
		if t.num != 0 || len(b) != 8 {
			return 0, 0, false
		}
		sec, nsec := uint32(bigEndian(b[:4])), int64(bigEndian(b[4:]))
		return int64(sec)*1000 + nsec/1e6, sec, true
	case kindInt:
		sec := int64(t.num)
		if sec > 1<<53/1000 || sec < -1<<53/1000 {
			return badTime, 0, true
		}
		if sec == int64(int32(sec)) || sec == int64(uint32(sec)) {
			mark = uint32(sec)
		}
		return sec * 1000, mark, true
	case kindUint:
		return badTime, 0, true
	case kindFloat, kindFloat32:
		sec := float(t)
		if !(sec < 1<<53/1000 && sec > -1<<53/1000) { // NaN is neither
			return badTime, 0, true
		}
		return int64(sec * 1000), 0, true
	}
	return 0, 0, false
}

// body writes the message of the record whose body is at off.
func (d *Decoder) body(off, index int, ms int64) (int, error) {
	t, inside, err := next(d.in, off)
	if err != nil {
		return inside, err
	}
	dest := 0
	id := d.opts.Identity
	f := fields{kube: -1, raw: -1}
	start := len(d.out)
	var end int
	raw := d.opts.LogKey != "" && t.kind == kindMap
	switch {
	case raw:
		end, err = d.find(inside, t.count, &f)
	case t.kind == kindMap:
		end, err = d.object(inside, t.count, 0, &f)
	default:
		// Not what Fluent Bit makes, but somebody's log all the same.
		d.out = append(d.out, `{"record":`...)
		end, err = d.value(off, 0)
		d.out = append(d.out, '}')
	}
	if err != nil {
		return end, err
	}
	said := d.opts.Note
	if d.opts.Resolve != nil {
		id, dest, said = d.opts.Resolve(d.claim(f.kube))
	}

	var notes []byte
	d.scratch = append(d.scratch[:0], said...)
	if len(d.told) > 0 {
		d.note("")
		d.scratch = append(d.scratch, d.told...)
	}
	late := d.opts.Newest != 0 && (ms < d.opts.Oldest || ms > d.opts.Newest)
	if late && d.opts.DropLate && ms != badTime && !d.opts.skewed(ms) {
		d.ev.Stats.Dropped++
		d.ev.Stats.DroppedBytes += len(d.out) - start
		d.out = d.out[:start]
		d.ev.List = append(d.ev.List, Event{Timestamp: d.opts.Now, From: start, To: start, Record: index, Dest: dest, Dropped: true})
		return end, nil
	}
	if late {
		d.noteTime(ms)
		ms = d.opts.Now
		d.ev.Stats.Restamped++
	} else if ms < 0 {
		d.noteTime(ms)
		ms = 0
		d.ev.Stats.Restamped++
	}

	if raw && f.raw >= 0 {
		if err := d.rawMessage(f.raw); err != nil {
			return end, err
		}
		d.noteMarks()
		message := d.out[start:]
		switch {
		case len(message) == 0:
			d.noteString("reason", "empty")
		case !d.opts.AllowEMF && mayBeEMF(message):
			d.noteString("reason", "emf")
			d.ev.Stats.EMF++
		}
		notes = d.scratch
		if len(notes) > 0 {
			d.ev.Stats.Enveloped++
		}
		d.emit(start, index, dest, ms, notes, true)
		return end, nil
	}
	if raw {
		// log_key names a field this record does not have: it goes whole.
		d.ev.Stats.NoLogKey++
		d.noteString("reason", "no_log_key")
		f = fields{kube: -1, raw: -1}
		if _, err := d.object(inside, t.count, 0, &f); err != nil {
			return end, err
		}
	}
	if err := d.kubernetes(id, f.kube); err != nil {
		return end, err
	}
	d.noteMarks()
	notes = d.scratch
	if len(notes) > 0 {
		d.member("_tenantlogs")
		d.out = append(d.out, '{')
		d.out = append(d.out, notes...)
		d.out = append(d.out, '}', '}')
	}
	if f.reserved {
		d.ev.Stats.Reserved++
	}
	d.emit(start, index, dest, ms, notes, false)
	return end, nil
}

// note starts a member of `_tenantlogs`, which is gathered in d.scratch.
func (d *Decoder) note(name string) {
	if len(d.scratch) > 0 {
		d.scratch = append(d.scratch, ',')
	}
	if name != "" {
		d.scratch = append(d.scratch, '"')
		d.scratch = append(d.scratch, name...)
		d.scratch = append(d.scratch, '"', ':')
	}
}

func (d *Decoder) noteString(name, v string) {
	d.note(name)
	d.scratch = append(d.scratch, '"')
	d.scratch = append(d.scratch, v...)
	d.scratch = append(d.scratch, '"')
}

// noteTime records the time a record came with, where its event bears another.
func (d *Decoder) noteTime(ms int64) {
	reason := "too_new"
	switch {
	case ms == badTime:
		d.noteString("time_reason", "not_a_time")
		return
	case d.opts.skewed(ms):
		reason = "clock_skew"
	case ms < d.opts.Oldest || ms < 0:
		reason = "too_old"
	}
	d.note("original_time")
	// Go's calendar prints years of more than four digits in a form RFC 3339 does
	// not know; such a time is kept as its number.
	if at := time.UnixMilli(ms).UTC(); at.Year() > 0 && at.Year() < 10000 {
		d.scratch = append(d.scratch, '"')
		d.scratch = at.AppendFormat(d.scratch, "2006-01-02T15:04:05.000Z07:00")
		d.scratch = append(d.scratch, '"')
	} else {
		d.scratch = strconv.AppendInt(d.scratch, ms, 10)
	}
	d.noteString("time_reason", reason)
	if d.opts.Skew != 0 {
		d.note("clock_skew_seconds")
		d.scratch = strconv.AppendInt(d.scratch, d.opts.Skew/1000, 10)
	}
}

func (d *Decoder) noteMarks() {
	if d.marks == 0 {
		return
	}
	d.ev.Stats.Normalised++
	d.note("changed")
	d.scratch = append(d.scratch, '[')
	first := true
	for i, name := range markNames {
		if d.marks&(1<<i) == 0 {
			continue
		}
		if !first {
			d.scratch = append(d.scratch, ',')
		}
		first = false
		d.scratch = append(d.scratch, '"')
		d.scratch = append(d.scratch, name...)
		d.scratch = append(d.scratch, '"')
	}
	d.scratch = append(d.scratch, ']')
}

// member reopens the object that ends the output and starts another member.
func (d *Decoder) member(name string) {
	d.out = d.out[:len(d.out)-1]
	if d.out[len(d.out)-1] != '{' {
		d.out = append(d.out, ',')
	}
	d.out = append(d.out, '"')
	d.out = append(d.out, name...)
	d.out = append(d.out, '"', ':')
}

// emit adds the message d.out[start:] as one event or, where it is too long, as
// numbered parts. A raw message with notes, and every part, goes into an envelope.
func (d *Decoder) emit(start, index, dest int, ms int64, notes []byte, raw bool) {
	size := len(d.out) - start
	if size <= d.opts.MaxMessage && (!raw || len(notes) == 0) {
		d.add(start, index, dest, ms)
		return
	}
	name := "record"
	if raw {
		name = "log"
	}
	// The whole message moves behind, its envelopes are written from where it stood.
	message := append([]byte(nil), d.out[start:]...)
	d.out = d.out[:start]
	if raw && len(notes) > 0 {
		escaped := 0
		for i := 0; i < len(message); {
			e, n := escapedLen(message, i)
			escaped, i = escaped+e, i+n
		}
		if len(`{"log":"","_tenantlogs":{}}`)+escaped+len(notes) <= d.opts.MaxMessage {
			d.envelope(name, message, notes, 0, 0)
			d.add(start, index, dest, ms)
			return
		}
	}
	if !raw {
		notes = nil // they are inside the message
	}
	cuts := d.cut(message, len(notes)+len(name)+80)
	d.ev.Stats.Split++
	if raw && len(notes) == 0 {
		d.ev.Stats.Enveloped++
	}
	from := 0
	for i, to := range cuts {
		start := len(d.out)
		d.envelope(name, message[from:to], notes, i+1, len(cuts))
		d.add(start, index, dest, ms)
		d.ev.List[len(d.ev.List)-1].Part = i + 1
		from = to
	}
}

// cut says where a message is to be cut so that every part fits with its
// envelope, never inside a character.
func (d *Decoder) cut(message []byte, overhead int) []int {
	room := d.opts.MaxMessage - overhead
	if room < 16 {
		room = 16 // only where a test asks for less than an envelope needs
	}
	var cuts []int
	used := 0
	for i := 0; i < len(message); {
		e, n := escapedLen(message, i)
		if used+e > room {
			cuts = append(cuts, i)
			used = 0
		}
		used, i = used+e, i+n
	}
	return append(cuts, len(message))
}

func (d *Decoder) envelope(name string, message, notes []byte, part, parts int) {
	d.out = append(d.out, '{', '"')
	d.out = append(d.out, name...)
	d.out = append(d.out, '"', ':')
	d.out = AppendString(d.out, message)
	d.out = append(d.out, `,"_tenantlogs":{`...)
	d.out = append(d.out, notes...)
	if parts > 0 {
		if len(notes) > 0 {
			d.out = append(d.out, ',')
		}
		d.out = append(d.out, `"part":`...)
		d.out = strconv.AppendInt(d.out, int64(part), 10)
		d.out = append(d.out, `,"parts":`...)
		d.out = strconv.AppendInt(d.out, int64(parts), 10)
	}
	d.out = append(d.out, '}', '}')
}

func (d *Decoder) add(start, index, dest int, ms int64) {
	if n := len(d.ev.List); n == 0 || d.ev.List[n-1].Record != index {
		d.ev.Stats.Records++
	}
	d.ev.List = append(d.ev.List, Event{Timestamp: ms, From: start, To: len(d.out), Record: index, Dest: dest})
}

// Restamp makes the event of a message that CloudWatch rejected for its time: the
// message in an envelope that keeps its own time, at the time now. Both times are
// in milliseconds, and so is skew, as in Options. reason is told as well where it is not empty.
func Restamp(message []byte, original, now, skew int64, reason string) *Events {
	d := Decoder{ev: &Events{}, opts: Options{Oldest: now, Newest: now, Skew: skew, MaxMessage: MaxMessage}}
	if RejectedForSkew(original, now, skew) {
		d.opts.Oldest, d.opts.Newest = now-OldestEvent.Milliseconds(), now+NewestEvent.Milliseconds()
	}
	d.noteTime(original)
	if reason != "" {
		d.noteString("reason", reason)
	}
	return d.wrap(message, now)
}

// RejectedForSkew reports whether an event that CloudWatch rejected for its time was so because
// the clock that its time is from is skew ahead. All are in milliseconds.
func RejectedForSkew(ms, now, skew int64) bool {
	return Skewed(ms, skew, now-OldestEvent.Milliseconds(), now+NewestEvent.Milliseconds())
}

// Envelope makes the event, or the events, of a message that CloudWatch refused for
// another reason, at its own time in milliseconds.
func Envelope(message []byte, timestamp int64, reason string) *Events {
	d := Decoder{ev: &Events{}, opts: Options{MaxMessage: MaxMessage}}
	d.noteString("reason", reason)
	return d.wrap(message, timestamp)
}

func (d *Decoder) wrap(message []byte, timestamp int64) *Events {
	d.out = append(d.out, message...)
	d.emit(0, 0, 0, timestamp, d.scratch, true)
	d.ev.Arena = d.out
	return d.ev
}
