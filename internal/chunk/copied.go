package chunk

import (
	"encoding/json"
)

// CopyReserve is how many bytes Copied keeps free in a message for its notes, so that a
// message is cut at the same places whatever is said about it.
const CopyReserve = 256

// Copied adds the event, or the numbered parts, of a message that is copied from
// quarantine to its own group, at the time at. replay is told what the part is (0: the
// message is not cut) and answers the member `replay` of its `_tenantlogs`, at most 128
// bytes that need no escape in JSON. Where at is not the event's own time, original,
// that one is kept beside it; all times are in milliseconds since 1970.
//
// The member goes into the `_tenantlogs` that ends the message, or into a new one where
// the message is a record; everything else stays byte for byte. What is neither (raw
// text) is wrapped as {"log":…}; what is too long then is cut as {"record":…}, {"log":…}
// where it is raw.
func (e *Events) Copied(message []byte, original, at int64, replay func(part int) string) {
	index := 0
	if n := len(e.List); n > 0 {
		index = e.List[n-1].Record + 1
	}
	d := Decoder{ev: e, out: e.Arena, opts: Options{Oldest: at, Newest: at, MaxMessage: MaxMessage}}
	defer func() { e.Arena = d.out }()
	place, ok := notesPlace(message)
	notes := func(part int) []byte {
		d.scratch = d.scratch[:0]
		d.noteString("replay", replay(part))
		if at != original && !place.timed {
			d.noteTime(original)
		}
		return d.scratch
	}
	name := "record"
	if !ok {
		name = "log"
	}
	start := len(d.out)
	switch size := len(message); {
	case ok && size+CopyReserve <= MaxMessage:
		d.out = append(d.out, message[:place.at]...)
		if place.comma {
			d.out = append(d.out, ',')
		}
		if place.member {
			d.out = append(d.out, `"_tenantlogs":{`...)
		}
		d.out = append(d.out, notes(0)...)
		if place.member {
			d.out = append(d.out, '}')
		}
		d.out = append(d.out, message[place.at:]...)
		d.add(start, index, 0, at)
		return
	case !ok && escapedSize(message)+CopyReserve <= MaxMessage:
		d.envelope(name, message, notes(0), 0, 0)
		d.add(start, index, 0, at)
		return
	}
	cuts := d.cut(message, CopyReserve+len(name)+80)
	from := 0
	for i, to := range cuts {
		start := len(d.out)
		d.envelope(name, message[from:to], notes(i+1), i+1, len(cuts))
		d.add(start, index, 0, at)
		d.ev.List[len(d.ev.List)-1].Part = i + 1
		from = to
	}
}

func escapedSize(s []byte) (size int) {
	for i := 0; i < len(s); {
		e, n := escapedLen(s, i)
		size, i = size+e, i+n
	}
	return size
}

// place is where notes go into a message.
type place struct {
	at     int  // before this byte
	comma  bool // something stands before them
	member bool // there is no `_tenantlogs` yet
	timed  bool // the message has its original time already
}

// notesPlace finds the place; ok is false for what is not one of our records: not a JSON
// object, or one with `_tenantlogs` elsewhere than at its end, where we never write it.
func notesPlace(message []byte) (p place, ok bool) {
	if len(message) == 0 || message[0] != '{' || !json.Valid(message) {
		return place{}, false
	}
	kubernetes, found := false, 0
	last := member{}
	end := members(message, 0, func(m member) {
		last = m
		switch m.key {
		case "_tenantlogs":
			found++
		case "kubernetes":
			kubernetes = message[m.from] == '{'
		}
	})
	if end != len(message)-1 {
		return place{}, false // white space behind it: not ours
	}
	switch {
	case found == 1 && last.key == "_tenantlogs" && message[last.from] == '{':
		p.at = last.to - 1
		inside := false
		taken := false
		members(message, last.from, func(m member) {
			inside = true
			taken = taken || m.key == "replay"
			p.timed = p.timed || m.key == "time_reason"
		})
		p.comma = inside
		return p, !taken
	case found == 0 && kubernetes:
		return place{at: end, comma: true, member: true}, true
	}
	return place{}, false
}

// member is one member of an object: its key, and where its value stands.
type member struct {
	key      string
	from, to int
}

// members goes over the object that begins at i of a valid JSON text, and returns where
// its closing brace is.
func members(s []byte, i int, each func(member)) int {
	i++
	for {
		i = skipJSON(s, i, " \t\r\n,")
		if s[i] == '}' {
			return i
		}
		keyEnd := stringEnd(s, i)
		var key string
		if err := json.Unmarshal(s[i:keyEnd], &key); err != nil {
			key = "" // the text is valid, so this does not happen
		}
		from := skipJSON(s, keyEnd, " \t\r\n:")
		i = valueEnd(s, from)
		each(member{key, from, i})
	}
}

func skipJSON(s []byte, i int, what string) int {
	for i < len(s) {
		known := false
		for k := range len(what) {
			known = known || s[i] == what[k]
		}
		if !known {
			break
		}
		i++
	}
	return i
}

func stringEnd(s []byte, i int) int {
	for i++; s[i] != '"'; i++ {
		if s[i] == '\\' {
			i++
		}
	}
	return i + 1
}

// valueEnd is the end of the value that begins at i of a valid JSON text.
func valueEnd(s []byte, i int) int {
	depth := 0
	for {
		switch s[i] {
		case '"':
			i = stringEnd(s, i)
		case '{', '[':
			depth++
			i++
		case '}', ']':
			depth--
			i++
		case ',', ':', ' ', '\t', '\r', '\n':
			i++
			continue
		default:
			for i < len(s) && s[i] != ',' && s[i] != '}' && s[i] != ']' && s[i] > ' ' {
				i++
			}
		}
		if depth == 0 {
			return i
		}
	}
}
