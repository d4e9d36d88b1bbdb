package chunk

import (
	"bytes"
	"encoding/base64"
	"math"
	"slices"
	"strconv"
	"unicode/utf8"
)

// fields is what the top level of a record is searched for while it is written.
type fields struct {
	kube     int // offset of the last `kubernetes` value; -1 without one
	raw      int // offset of the last value of log_key; -1 without one
	reserved bool
}

func float(t token) float64 { return math.Float64frombits(t.num) }

// value writes the value at off as JSON.
func (d *Decoder) value(off, depth int) (int, error) {
	t, end, err := next(d.in, off)
	if err != nil {
		return end, err
	}
	switch t.kind {
	case kindNil:
		d.out = append(d.out, "null"...)
	case kindBool:
		d.out = strconv.AppendBool(d.out, t.num != 0)
	case kindInt:
		d.out = strconv.AppendInt(d.out, int64(t.num), 10)
	case kindUint:
		d.out = strconv.AppendUint(d.out, t.num, 10)
	case kindFloat:
		d.number(float(t), 64)
	case kindFloat32:
		d.number(float(t), 32)
	case kindString:
		d.text(d.in[t.from:t.to])
	case kindBinary:
		d.binary(d.in[t.from:t.to])
	case kindExt:
		d.out = append(d.out, `{"ext":`...)
		d.out = strconv.AppendInt(d.out, int64(t.num), 10)
		d.out = append(d.out, `,"base64":"`...)
		d.out = base64.StdEncoding.AppendEncode(d.out, d.in[t.from:t.to])
		d.out = append(d.out, '"', '}')
	case kindArray, kindMap:
		if depth >= maxDepth {
			return d.tooDeep(off)
		}
		if t.kind == kindMap {
			return d.object(end, t.count, depth+1, nil)
		}
		return d.array(end, t.count, depth+1)
	}
	return end, nil
}

// tooDeep carries a value that lies too deep as its own bytes.
func (d *Decoder) tooDeep(off int) (int, error) {
	end, err := skip(d.in, off)
	if err != nil {
		return end, err
	}
	d.marks |= markDeep
	d.out = append(d.out, `{"msgpack":"`...)
	d.out = base64.StdEncoding.AppendEncode(d.out, d.in[off:end])
	d.out = append(d.out, '"', '}')
	return end, nil
}

// number writes a float. JSON has no NaN and no infinity: they become strings.
func (d *Decoder) number(f float64, bits int) {
	switch {
	case math.IsNaN(f):
		d.marks |= markNumber
		d.out = append(d.out, `"NaN"`...)
	case math.IsInf(f, 0):
		d.marks |= markNumber
		if f < 0 {
			d.out = append(d.out, `"-Infinity"`...)
		} else {
			d.out = append(d.out, `"Infinity"`...)
		}
	default:
		d.out = strconv.AppendFloat(d.out, f, 'g', -1, bits)
	}
}

func (d *Decoder) text(s []byte) {
	var replaced bool
	d.out = append(d.out, '"')
	d.out, replaced = appendEscaped(d.out, s)
	d.out = append(d.out, '"')
	if replaced {
		d.marks |= markUTF8
	}
}

// binary writes bytes that most often are text. Those that are none are carried
// in base64, so that nothing of them is lost.
func (d *Decoder) binary(s []byte) {
	mark := len(d.out)
	var replaced bool
	d.out = append(d.out, '"')
	if d.out, replaced = appendEscaped(d.out, s); !replaced {
		d.out = append(d.out, '"')
		return
	}
	d.out = append(d.out[:mark], `{"base64":"`...)
	d.out = base64.StdEncoding.AppendEncode(d.out, s)
	d.out = append(d.out, '"', '}')
}

func (d *Decoder) array(off int, count uint32, depth int) (int, error) {
	d.out = append(d.out, '[')
	var err error
	for i := range count {
		if i > 0 {
			d.out = append(d.out, ',')
		}
		if off, err = d.value(off, depth); err != nil {
			return off, err
		}
	}
	d.out = append(d.out, ']')
	return off, nil
}

// object writes a map. At the top level of a record (top is not nil) the names
// that are ours are taken out or renamed.
func (d *Decoder) object(off int, count uint32, depth int, top *fields) (int, error) {
	base := len(d.entries)
	open := len(d.out)
	d.out = append(d.out, '{')
	for range count {
		var skipped bool
		var err error
		if off, skipped, err = d.pair(off, depth, top); err != nil {
			return off, err
		}
		if !skipped {
			d.out = append(d.out, ',')
		}
	}
	d.dedupe(base, open)
	d.entries = d.entries[:base]
	if last := len(d.out) - 1; d.out[last] == ',' {
		d.out[last] = '}'
	} else {
		d.out = append(d.out, '}')
	}
	return off, nil
}

// pair writes one key and value. skipped says that nothing was written.
func (d *Decoder) pair(off, depth int, top *fields) (end int, skipped bool, err error) {
	e := entry{start: len(d.out), rawFrom: off, rawTo: off}
	t, valueAt, err := next(d.in, off)
	if err != nil {
		return valueAt, false, err
	}
	if t.kind == kindString || t.kind == kindBinary {
		key := d.in[t.from:t.to]
		e.rawFrom, e.rawTo = t.from, t.to
		switch {
		case top == nil || len(key) < len("_aws"):
			d.text(key)
		case string(key) == "kubernetes":
			if top.kube >= 0 {
				d.ev.Stats.Duplicates++
			}
			top.kube = valueAt
			end, err = skip(d.in, valueAt)
			return end, true, err
		case d.renamed(key):
			top.reserved = true
		default:
			d.text(key)
		}
	} else {
		if valueAt, err = d.oddKey(off, t); err != nil {
			return valueAt, false, err
		}
		e.rawTo = valueAt
	}
	e.key = len(d.out)
	d.out = append(d.out, ':')
	if end, err = d.value(valueAt, depth); err != nil {
		return end, false, err
	}
	e.end = len(d.out)
	d.entries = append(d.entries, e)
	return end, false, nil
}

// oddKey writes a key that is no string as the string of its JSON. An array or a map
// is written as its bytes instead: its JSON would be escaped again for every key it
// lies in, and double each time.
func (d *Decoder) oddKey(off int, t token) (end int, err error) {
	d.marks |= markKey
	switch t.kind {
	case kindArray, kindMap, kindExt:
		if end, err = skip(d.in, off); err != nil {
			return end, err
		}
		d.out = append(d.out, `"msgpack:`...)
		d.out = base64.StdEncoding.AppendEncode(d.out, d.in[off:end])
		d.out = append(d.out, '"')
		return end, nil
	}
	start := len(d.out)
	if end, err = d.value(off, 0); err != nil {
		return end, err
	}
	if d.out[start] == '"' { // NaN and the infinities are strings already
		return end, nil
	}
	d.out = append(d.out, '"', '"')
	copy(d.out[start+1:], d.out[start:len(d.out)-2])
	d.out[start] = '"'
	return end, nil
}

// renamed writes the key as a claim, where the name is one of ours, and says so.
// Every claim grows by the same suffix, so two names never become one.
func (d *Decoder) renamed(key []byte) bool {
	name := unclaimed(key)
	switch string(name) {
	case "_aws":
		if d.opts.AllowEMF && len(name) == len(key) {
			return false
		}
	case "_tenantlogs":
	case "kubernetes": // itself never comes here
	default:
		return false
	}
	d.claimedKey(key)
	return true
}

func (d *Decoder) claimedKey(key []byte) {
	d.out = append(d.out, '"')
	d.out = append(d.out, key...)
	d.out = append(append(d.out, claimedSuffix...), '"')
}

// unclaimed is the name that a claim, or a claim of a claim, is about.
func unclaimed(key []byte) []byte {
	for bytes.HasSuffix(key, []byte(claimedSuffix)) {
		key = key[:len(key)-len(claimedSuffix)]
	}
	return key
}

// fewKeys is up to where comparing every key with every other beats sorting.
const fewKeys = 16

// dedupe removes all but the last of the entries that have the same key, as
// Fluent Bit's own readers do. Keys that differed in the chunk and became the same
// in JSON (1 and "1", two kinds of broken UTF-8) are kept apart by a number; none is
// given that makes a third key's name.
func (d *Decoder) dedupe(base, open int) {
	list := d.entries[base:]
	found := false
	if len(list) <= fewKeys {
		for i := range list {
			for j := i + 1; j < len(list); j++ {
				if !d.sameKey(&list[i], &list[j]) {
					continue
				}
				found = true
				list[i].fate = rename
				if d.sameRaw(&list[i], &list[j]) {
					list[i].fate = drop
					break
				}
			}
		}
	} else {
		found = d.dedupeSorted(list)
	}
	if found {
		d.rewrite(list, open)
	}
}

// dedupeSorted is dedupe for maps with many keys: a tenant's line must not cost
// the square of its length.
func (d *Decoder) dedupeSorted(list []entry) (found bool) {
	d.order = d.order[:0]
	for i := range list {
		d.order = append(d.order, i)
	}
	slices.SortFunc(d.order, func(a, b int) int {
		x, y := &list[a], &list[b]
		if c := bytes.Compare(d.key(x), d.key(y)); c != 0 {
			return c
		}
		if c := bytes.Compare(d.raw(x), d.raw(y)); c != 0 {
			return c
		}
		return a - b
	})
	last := -1 // the latest entry of a run of equal keys: the one that keeps its name
	for i, at := range d.order {
		if i == 0 || !d.sameKey(&list[d.order[i-1]], &list[at]) {
			last = at
			continue
		}
		found = true
		if prev := d.order[i-1]; d.sameRaw(&list[prev], &list[at]) {
			list[prev].fate = drop
			if last == prev {
				last = at
				continue
			}
		}
		if at > last {
			list[last].fate = rename
			last = at
		} else {
			list[at].fate = rename
		}
	}
	return found
}

func (d *Decoder) key(e *entry) []byte { return d.out[e.start:e.key] }
func (d *Decoder) raw(e *entry) []byte { return d.in[e.rawFrom:e.rawTo] }

func (d *Decoder) sameKey(a, b *entry) bool {
	return a.key-a.start == b.key-b.start && bytes.Equal(d.key(a), d.key(b))
}

func (d *Decoder) sameRaw(a, b *entry) bool { return bytes.Equal(d.raw(a), d.raw(b)) }

// rewrite writes the entries of an object again, each by its fate.
func (d *Decoder) rewrite(list []entry, open int) {
	old := append([]byte(nil), d.out[open:]...)
	d.out = append(d.out[:open], '{')
	var taken map[string]bool // names, once one has to be found
	for i := range list {
		e := &list[i]
		if e.fate == drop {
			d.ev.Stats.Duplicates++
			continue
		}
		d.out = append(d.out, old[e.start-open:e.key-open]...)
		if e.fate == rename {
			d.marks |= markKey
			if taken == nil {
				taken = make(map[string]bool, len(list))
				for _, e := range list {
					taken[string(old[e.start-open:e.key-open])] = true
				}
			}
			end := len(d.out) - 1
			for n, free := i, false; !free; n++ {
				d.out = append(d.out[:end], '#')
				d.out = strconv.AppendInt(d.out, int64(n), 10)
				d.out = append(d.out, '"')
				name := string(d.out[end-(e.key-e.start-1):])
				free = !taken[name]
				taken[name] = true
			}
		}
		d.out = append(d.out, old[e.key-open:e.end-open]...)
		d.out = append(d.out, ',')
	}
}

// find looks for log_key at the top level without writing anything.
func (d *Decoder) find(off int, count uint32, f *fields) (int, error) {
	for range count {
		t, valueAt, err := next(d.in, off)
		if err != nil {
			return valueAt, err
		}
		switch t.kind {
		case kindArray, kindMap:
			if valueAt, err = skip(d.in, off); err != nil {
				return valueAt, err
			}
		case kindString, kindBinary:
			key := d.in[t.from:t.to]
			if string(key) == d.opts.LogKey {
				if f.raw >= 0 {
					d.ev.Stats.Duplicates++
				}
				f.raw = valueAt
			}
			if string(key) == "kubernetes" {
				f.kube = valueAt
			}
		}
		if off, err = skip(d.in, valueAt); err != nil {
			return off, err
		}
	}
	return off, nil
}

// rawMessage writes the value of log_key: text as it is, anything else as JSON.
func (d *Decoder) rawMessage(off int) error {
	t, _, err := next(d.in, off)
	if err != nil {
		return err
	}
	if t.kind == kindString || t.kind == kindBinary {
		s := d.in[t.from:t.to]
		d.out = appendUTF8(d.out, s)
		if !utf8.Valid(s) {
			d.marks |= markUTF8
		}
		return nil
	}
	_, err = d.value(off, 0)
	return err
}

// kubernetes adds the authentic map to the object that ends the output, with the
// further fields of a record's own map that agrees, or that map as a claim.
func (d *Decoder) kubernetes(id *Identity, claimed int) error {
	agrees := claimed >= 0 && id != nil && d.agrees(id, claimed)
	if claimed >= 0 && !agrees {
		d.ev.Stats.Claimed++
		d.member("kubernetes_claimed")
		if _, err := d.value(claimed, 1); err != nil {
			return err
		}
		d.out = append(d.out, '}')
	}
	if id == nil {
		return nil
	}
	d.member("kubernetes")
	if !agrees {
		d.out = append(d.out, '{')
		d.out = append(d.out, id.members...)
		d.out = append(d.out, '}', '}')
		return nil
	}
	base, open := len(d.entries), len(d.out)
	d.out = append(d.out, '{')
	t, off, err := next(d.in, claimed)
	if err != nil {
		return err
	}
	for range t.count {
		k, valueAt, err := next(d.in, off)
		if err != nil {
			return err
		}
		if k.kind == kindString || k.kind == kindBinary {
			key := d.in[k.from:k.to]
			name := unclaimed(key)
			if i := identityKey(name); i >= 0 {
				// What the tag does not vouch for is a claim. Where a pod ran is not who
				// it is: with another host the rest of the map may stand.
				if len(name) < len(key) || id.field(i) == "" || i == hostKey && !d.same(valueAt, id.host) {
					e := entry{start: len(d.out), rawFrom: k.from, rawTo: k.to}
					d.claimedKey(key)
					e.key = len(d.out)
					d.out = append(d.out, ':')
					if off, err = d.value(valueAt, 1); err != nil {
						return err
					}
					e.end = len(d.out)
					d.entries = append(d.entries, e)
					d.out = append(d.out, ',')
					continue
				}
				if off, err = skip(d.in, valueAt); err != nil {
					return err
				}
				continue
			}
		}
		if off, _, err = d.pair(off, 1, nil); err != nil {
			return err
		}
		d.out = append(d.out, ',')
	}
	d.dedupe(base, open)
	d.entries = d.entries[:base]
	d.out = append(d.out, id.members...)
	d.out = append(d.out, '}', '}')
	return nil
}

func identityKey(key []byte) int {
	for i, name := range identityKeys {
		if string(key) == name {
			return i
		}
	}
	return -1
}

// same reports whether the value at off is this text.
func (d *Decoder) same(off int, want string) bool {
	v, _, err := next(d.in, off)
	return err == nil && (v.kind == kindString || v.kind == kindBinary) && string(d.in[v.from:v.to]) == want
}

// agrees reports whether the map at off names the same source. Namespace and pod
// must be there, and nothing that says who wrote the record may differ, not even
// in a key that stands there twice.
func (d *Decoder) agrees(id *Identity, off int) bool {
	t, off, err := next(d.in, off)
	if err != nil || t.kind != kindMap {
		return false
	}
	var seen [len(identityKeys)]bool
	for range t.count {
		k, valueAt, err := next(d.in, off)
		if err != nil {
			return false
		}
		if k.kind == kindArray || k.kind == kindMap {
			if valueAt, err = skip(d.in, off); err != nil {
				return false
			}
		}
		if k.kind == kindString || k.kind == kindBinary {
			if i := identityKey(d.in[k.from:k.to]); i >= 0 && id.field(i) != "" {
				if i != hostKey && !d.same(valueAt, id.field(i)) {
					return false
				}
				seen[i] = true
			}
		}
		if off, err = skip(d.in, valueAt); err != nil {
			return false
		}
	}
	return seen[0] && seen[1]
}

// claim reads who a record says it is from, for `identity record`.
func (d *Decoder) claim(off int) Claim {
	if off < 0 {
		return Claim{}
	}
	t, off, err := next(d.in, off)
	if err != nil || t.kind != kindMap {
		return Claim{}
	}
	c := Claim{Present: true}
	for range t.count {
		k, valueAt, err := next(d.in, off)
		if err != nil {
			return Claim{}
		}
		if k.kind == kindArray || k.kind == kindMap {
			if valueAt, err = skip(d.in, off); err != nil {
				return Claim{}
			}
		}
		if k.kind == kindString || k.kind == kindBinary {
			if v, _, err := next(d.in, valueAt); err == nil && (v.kind == kindString || v.kind == kindBinary) {
				s := d.in[v.from:v.to]
				switch identityKey(d.in[k.from:k.to]) {
				case 0:
					c.Namespace = s
				case 1:
					c.Pod = s
				case 2:
					c.Container = s
				case 3:
					c.PodUID = s
				case 4:
					c.ContainerID = s
				case 5:
					c.Host = s
				}
			}
		}
		if off, err = skip(d.in, valueAt); err != nil {
			return Claim{}
		}
	}
	return c
}
