package chunk

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/stretchr/testify/require"
	"github.com/tinylib/msgp/msgp"
	"pgregory.net/rapid"
)

var update = flag.Bool("update", false, "write the golden files anew")

var testIdentity = NewIdentity("tenant-acme", "web-0", "app", "0c8f1f1e-0000-4000-8000-000000000001", "", "node-1")

// pair keeps the order of keys, and keys that stand twice, which a Go map can't.
type pair struct{ k, v any }
type pairs []pair
type bin []byte
type extension struct {
	kind int8
	data []byte
}
type rawBytes []byte

// appendValue writes with tinylib/msgp: somebody else's opinion of MessagePack.
func appendValue(b []byte, v any) []byte {
	switch v := v.(type) {
	case pairs:
		b = msgp.AppendMapHeader(b, uint32(len(v)))
		for _, p := range v {
			b = appendValue(appendValue(b, p.k), p.v)
		}
		return b
	case []any:
		b = msgp.AppendArrayHeader(b, uint32(len(v)))
		for _, e := range v {
			b = appendValue(b, e)
		}
		return b
	case bin:
		return msgp.AppendBytes(b, v)
	case extension:
		b, err := msgp.AppendExtension(b, &msgp.RawExtension{Type: v.kind, Data: v.data})
		if err != nil {
			panic(err)
		}
		return b
	case rawBytes:
		return append(b, v...)
	}
	b, err := msgp.AppendIntf(b, v)
	if err != nil {
		panic(err)
	}
	return b
}

// eventTime is Fluent Bit's fixext8 of type 0.
func eventTime(sec, nsec uint32) rawBytes {
	b := []byte{0xd7, 0x00}
	for _, v := range []uint32{sec, nsec} {
		b = append(b, byte(v>>24), byte(v>>16), byte(v>>8), byte(v))
	}
	return b
}

func v2(ts, body any) []byte { return appendValue(nil, []any{[]any{ts, pairs{}}, body}) }

func withMetadata(ts, metadata, body any) []byte {
	return appendValue(nil, []any{[]any{ts, metadata}, body})
}

func legacy(ts, body any) []byte { return appendValue(nil, []any{ts, body}) }

const testSec = 1_700_000_000

var testTime = eventTime(testSec, 123_456_789)

func testOptions() Options {
	return Options{
		Identity: testIdentity,
		Now:      testSec*1000 + 5000, Oldest: (testSec - 14*86400) * 1000, Newest: (testSec + 7200) * 1000,
	}
}

func log(body ...pair) pairs { return append(pairs{{"log", "hello"}}, body...) }

// oddRecords is what comes out of a pod, or out of somebody who tries things. The
// golden file beside it says what each becomes.
func oddRecords() []struct {
	name string
	in   []byte
	opts func(*Options)
} {
	nested := any("deepest")
	for range maxDepth + 5 {
		nested = []any{nested}
	}
	logKey := func(o *Options) { o.LogKey = "log" }
	many := pairs{}
	for i := range 20 {
		many = append(many, pair{fmt.Sprintf("k%02d", i), i})
	}
	kube := func(p ...pair) pair { return pair{"kubernetes", pairs(p)} }
	truth := pairs{{"namespace_name", "tenant-acme"}, {"pod_name", "web-0"}}
	return []struct {
		name string
		in   []byte
		opts func(*Options)
	}{
		{"V2 record", v2(testTime, log(pair{"stream", "stdout"})), nil},
		{"legacy record", legacy(testTime, log()), nil},
		{"time as ext8", v2(append(rawBytes{0xc7, 8, 0}, testTime[2:]...), log()), nil},
		{"time as integer", v2(testSec, log()), nil},
		{"time as float", v2(float64(testSec)+0.5, log()), nil},
		{"time as float32", legacy(float32(testSec), log()), nil},
		{"time NaN", v2(math.NaN(), log()), nil},
		{"time beyond any calendar", v2(uint64(math.MaxUint64), log()), nil},
		{"time before 1970", v2(-86400, log()), nil},
		{"15 days old", v2(testSec-15*86400, log()), nil},
		{"3 hours ahead", v2(testSec+3*3600, log()), nil},
		{"metadata is not shipped", appendValue(nil, []any{[]any{testTime, pairs{{"severity", 9}}}, log()}), nil},
		{"group start", withMetadata(eventTime(0xFFFFFFFF, 0), pairs{{"schema", "otlp"}}, pairs{{"resource", "x"}}), nil},
		{"group end", v2(eventTime(0xFFFFFFFE, 0), pairs{}), nil},
		{"group start as fixint", withMetadata(-1, pairs{{"schema", "otlp"}}, pairs{}), nil},
		{"group end as fixint", v2(-2, pairs{}), nil},
		{"a line with a group start's time is a record", v2(eventTime(0xFFFFFFFF, 0), log()), nil},
		{"a line with a group end's time is a record", v2(eventTime(0xFFFFFFFE, 0), log()), nil},
		{"a legacy record is no group's mark", legacy(eventTime(0xFFFFFFFE, 0), pairs{}), nil},
		{"nested maps and arrays", v2(testTime, pairs{{"a", []any{1, pairs{{"b", nil}, {"c", []any{}}}, pairs{}}}}), nil},
		{"every width of number", v2(testTime, pairs{
			{"i8", int8(-100)}, {"i16", int16(-30000)}, {"i32", int32(-2000000000)}, {"i64", int64(math.MinInt64)},
			{"u64", uint64(math.MaxUint64)}, {"f32", float32(0.1)}, {"f64", 0.1}, {"big", 1e300}, {"bool", true}}), nil},
		{"NaN and infinities", v2(testTime, pairs{{"a", math.NaN()}, {"b", math.Inf(1)}, {"c", math.Inf(-1)}}), nil},
		{"text as bin", v2(testTime, pairs{{"log", bin("text")}}), nil},
		{"bin that is no text", v2(testTime, pairs{{"log", bin{0xff, 0x00}}}), nil},
		{"ext", v2(testTime, pairs{{"x", extension{42, []byte{1, 2, 3}}}}), nil},
		{"invalid UTF-8", v2(testTime, pairs{{"log", "caf\xe9 \xc3("}}), nil},
		{"control characters and quotes", v2(testTime, pairs{{"log", "a\x00\x1b\"\\\n\r\t\u2028é€😀"}}), nil},
		{"keys that are not strings", v2(testTime, pairs{{1, "one"}, {nil, "nil"}, {true, "true"}, {1.5, "float"}, {[]any{1}, "array"}, {math.NaN(), "NaN"}, {bin("bin"), "bin"}}), nil},
		{"1 and \"1\" stay two keys", v2(testTime, pairs{{1, "number"}, {"1", "text"}}), nil},
		{"two keys broken in different ways", v2(testTime, pairs{{"\xff", 1}, {"\xfe", 2}}), nil},
		{"duplicate key, the last wins", v2(testTime, pairs{{"log", "first"}, {"a", 1}, {"log", "last"}}), nil},
		{"duplicate keys in a nested map", v2(testTime, pairs{{"m", pairs{{"a", 1}, {"a", 2}}}}), nil},
		{"duplicates among many keys", v2(testTime, append(many, pair{"k03", "again"}, pair{"k07", "again"}, pair{"k03", "last"})), nil},
		{"empty map", v2(testTime, pairs{}), nil},
		{"body that is no map", v2(testTime, "just text"), nil},
		{"nesting deeper than followed", v2(testTime, pairs{{"deep", nested}}), nil},

		{"kubernetes agrees and keeps its labels", v2(testTime, log(kube(append(truth, pair{"labels", pairs{{"app", "web"}}})...))), nil},
		{"kubernetes names another namespace", v2(testTime, log(kube(pair{"namespace_name", "tenant-victim"}, pair{"pod_name", "web-0"}))), nil},
		{"kubernetes names another pod id", v2(testTime, log(kube(append(truth, pair{"pod_id", "forged"})...))), nil},
		{"kubernetes names another host", v2(testTime, log(kube(append(truth, pair{"host", "elsewhere"})...))), nil},
		{"kubernetes says nothing of the source", v2(testTime, log(kube(pair{"labels", pairs{{"team", "victim"}}}))), nil},
		{"kubernetes is no map", v2(testTime, log(pair{"kubernetes", "tenant-victim"})), nil},
		{"kubernetes as a bin key", v2(testTime, log(pair{bin("kubernetes"), pairs{{"namespace_name", "tenant-victim"}}})), nil},
		{"two kubernetes maps, the last agrees", v2(testTime, log(kube(pair{"namespace_name", "tenant-victim"}), kube(truth...))), nil},
		{"two kubernetes maps, the last is forged", v2(testTime, log(kube(truth...), kube(pair{"namespace_name", "tenant-victim"}))), nil},
		{"namespace_name twice in one map", v2(testTime, log(kube(pair{"namespace_name", "tenant-victim"}, pair{"namespace_name", "tenant-acme"}, pair{"pod_name", "web-0"}))), nil},
		{"1 and \"1\" and \"1#0\" stay three", v2(testTime, pairs{{1, "number"}, {"1#0", "other"}, {"1", "text"}}), nil},
		{"a claim within kubernetes of its own making", v2(testTime, log(kube(append(truth, pair{"host", "elsewhere"}, pair{"host_claimed", "x"}, pair{"pod_id_claimed", "y"})...))), nil},
		{"docker_id that the tag does not tell is a claim", v2(testTime, log(kube(append(truth, pair{"docker_id", "abc"})...))), nil},
		{"a claim of a claim", v2(testTime, log(pair{"kubernetes_claimed", "forged"}, kube(pair{"namespace_name", "x"}))), nil},
		{"no source: the record's own map is a claim", v2(testTime, log(kube(truth...))), func(o *Options) { o.Identity, o.Note = nil, `"unrouted":"layout"` }},

		{"_aws", v2(testTime, log(pair{"_aws", pairs{{"CloudWatchMetrics", []any{}}}})), nil},
		{"_aws of a tenant that may", v2(testTime, log(pair{"_aws", pairs{{"Timestamp", 1}}})), func(o *Options) { o.AllowEMF = true }},
		{"_aws in a nested map is nothing", v2(testTime, pairs{{"m", pairs{{"_aws", 1}}}}), nil},
		{"_tenantlogs of the record's own", v2(testTime, log(pair{"_tenantlogs", pairs{{"part", 1}}})), nil},

		{"raw", v2(testTime, log(pair{"stream", "stdout"})), logKey},
		{"raw: a longer key with the same start", v2(testTime, pairs{{"logger", "no"}, {"log", "yes"}}), logKey},
		{"raw: the field is missing", v2(testTime, pairs{{"message", "m"}}), logKey},
		{"raw: twice", v2(testTime, pairs{{"log", "first"}, {"log", "last"}}), logKey},
		{"raw: a map", v2(testTime, pairs{{"log", pairs{{"a", 1}}}}), logKey},
		{"raw: empty", v2(testTime, pairs{{"log", ""}}), logKey},
		{"raw: invalid UTF-8", v2(testTime, pairs{{"log", "caf\xe9"}}), logKey},
		{"raw: EMF", v2(testTime, pairs{{"log", `{"_aws":{"CloudWatchMetrics":[]}}`}}), logKey},
		{"raw: EMF with an escaped key", v2(testTime, pairs{{"log", `  {"a":1,"\u005faws":{}}`}}), logKey},
		{"raw: EMF of a tenant that may", v2(testTime, pairs{{"log", `{"_aws":{}}`}}), func(o *Options) { o.LogKey, o.AllowEMF = "log", true }},
		{"raw: JSON that is no EMF", v2(testTime, pairs{{"log", `{"a":{"_aws":1},"b":"_aws"}`}}), logKey},
		{"raw: a map with _aws", v2(testTime, pairs{{"log", pairs{{"_aws", pairs{}}}}}), logKey},
		{"raw: 15 days old", v2(testSec-15*86400, pairs{{"log", "old"}}), logKey},

		{"too long, in parts", v2(testTime, pairs{{"log", strings.Repeat("é\"", 150)}}), func(o *Options) { o.MaxMessage = 400 }},
		{"raw: too long, in parts", v2(testTime, pairs{{"log", strings.Repeat("é\x01", 150)}}), func(o *Options) { o.LogKey, o.MaxMessage = "log", 300 }},

		{"broken: not a record, then one that is", append(appendValue(nil, "text"), v2(testTime, log())...), nil},
		{"broken: an array of three", append(appendValue(nil, []any{1, 2, 3}), v2(testTime, log())...), nil},
		{"broken: no time", append(legacy("yesterday", log()), v2(testTime, log())...), nil},
		{"broken: cut in the second record", append(v2(testTime, log()), v2(testTime, log())[:9]...), nil},
		{"broken: 0xc1 in the second record", append(v2(testTime, log()), 0x92, 0xc1), nil},
		{"broken: a map said to hold 4 billion", append(v2(testTime, log()), 0x92, 0x00, 0xdf, 0xff, 0xff, 0xff, 0xff), nil},
	}
}

func TestOddRecordsBecomeWhatTheGoldenFileSays(t *testing.T) {
	var got strings.Builder
	var d Decoder
	var ev Events
	for _, r := range oddRecords() {
		opts := testOptions()
		if r.opts != nil {
			r.opts(&opts)
		}
		d.Decode(r.in, opts, &ev)
		fmt.Fprintf(&got, "# %s\n", r.name)
		for i, e := range ev.List {
			require.LessOrEqual(t, e.To-e.From, MaxMessage)
			require.True(t, utf8.Valid(ev.Message(i)), r.name)
			require.NotEmpty(t, ev.Message(i), r.name)
			if opts.LogKey == "" {
				require.True(t, json.Valid(ev.Message(i)), "%s: %s", r.name, ev.Message(i))
			}
			at := time.UnixMilli(e.Timestamp).UTC().Format("2006-01-02T15:04:05.000")
			fmt.Fprintf(&got, "%s %s\n", at, ev.Message(i))
		}
		if ev.Damage.Err != nil {
			fmt.Fprintf(&got, "! at %d: %v\n", ev.Damage.Offset, ev.Damage.Err)
		}
		got.WriteString(counts(ev.Stats))
	}
	golden := filepath.Join("testdata", "odd_records.golden")
	if *update {
		require.NoError(t, os.WriteFile(golden, []byte(got.String()), 0o644))
	}
	want, err := os.ReadFile(golden)
	require.NoError(t, err)
	require.Equal(t, string(want), got.String(), "run with -update after reading the difference")
}

// counts lists the counts that are not zero, but for the plain ones.
func counts(s Stats) string {
	s.Events = 0
	if s.Records == 1 {
		s.Records = 0
	}
	var b strings.Builder
	for _, f := range strings.Fields(strings.Trim(fmt.Sprintf("%+v", s), "{}")) {
		if !strings.HasSuffix(f, ":0") {
			b.WriteString(" " + f)
		}
	}
	if b.Len() == 0 {
		return "\n"
	}
	return "=" + b.String() + "\n\n"
}

// TestPartsJoinToTheWhole: what was split can be put together again, byte for byte.
func TestPartsJoinToTheWhole(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		text := rapid.StringN(100, 2000, -1).Draw(t, "text")
		raw := rapid.Bool().Draw(t, "raw")
		opts := testOptions()
		field := "record"
		if raw {
			opts.LogKey, field = "log", "log"
		}
		var d Decoder
		var whole, parts Events
		in := v2(testTime, pairs{{"log", text}})
		d.Decode(in, opts, &whole)
		opts.MaxMessage = rapid.IntRange(150, 600).Draw(t, "max")
		d.Decode(in, opts, &parts)
		if len(parts.List) == 1 {
			return
		}
		var joined strings.Builder
		for i := range parts.List {
			if n := len(parts.Message(i)); n > opts.MaxMessage {
				t.Fatalf("part %d has %d bytes, %d allowed", i, n, opts.MaxMessage)
			}
			var part map[string]any
			if err := json.Unmarshal(parts.Message(i), &part); err != nil {
				t.Fatal(err)
			}
			meta := part["_tenantlogs"].(map[string]any)
			if int(meta["part"].(float64)) != i+1 || int(meta["parts"].(float64)) != len(parts.List) {
				t.Fatalf("part %d says %v", i, meta)
			}
			joined.WriteString(part[field].(string))
		}
		if joined.String() != string(whole.Message(0)) {
			t.Fatalf("joined %q, whole %q", joined.String(), whole.Message(0))
		}
	})
}

// TestEveryRecordOfAChunkIsAnEvent: a chunk of any valid records becomes exactly
// those records, in order, each readable by encoding/json with the value it had.
func TestEveryRecordOfAChunkIsAnEvent(t *testing.T) {
	value := func(t *rapid.T, depth int) any { return nil }
	value = func(t *rapid.T, depth int) any {
		top := 8
		if depth > 3 {
			top = 5
		}
		switch rapid.IntRange(0, top).Draw(t, "kind") {
		case 0:
			return nil
		case 1:
			return rapid.Bool().Draw(t, "bool")
		case 2:
			return float64(rapid.IntRange(-1<<50, 1<<50).Draw(t, "int"))
		case 3:
			return rapid.Float64().Draw(t, "float")
		case 4, 5:
			return rapid.String().Draw(t, "string")
		case 6:
			list := []any{}
			for range rapid.IntRange(0, 4).Draw(t, "len") {
				list = append(list, value(t, depth+1))
			}
			return list
		default:
			m := map[string]any{}
			for range rapid.IntRange(0, 24).Draw(t, "len") {
				m[rapid.String().Draw(t, "key")] = value(t, depth+1)
			}
			return m
		}
	}
	rapid.Check(t, func(t *rapid.T) {
		var in []byte
		var want []map[string]any
		for range rapid.IntRange(0, 8).Draw(t, "records") {
			m := map[string]any{"log": value(t, 0), "other": value(t, 1)}
			want = append(want, m)
			var err error
			in = append(in, 0x92, 0x92)
			in = append(in, testTime...)
			in = append(in, 0x80)
			if in, err = msgp.AppendIntf(in, m); err != nil {
				t.Fatal(err)
			}
		}
		var d Decoder
		var ev Events
		d.Decode(in, Options{}, &ev)
		if len(ev.List) != len(want) || ev.Damage.Err != nil || ev.Stats.Records != len(want) {
			t.Fatalf("%d events of %d records: %v", len(ev.List), len(want), ev.Damage.Err)
		}
		for i, w := range want {
			var got map[string]any
			if err := json.Unmarshal(ev.Message(i), &got); err != nil {
				t.Fatalf("%v: %s", err, ev.Message(i))
			}
			if a, b := mustJSON(got), mustJSON(w); a != b {
				t.Fatalf("record %d\n got %s\nwant %s", i, a, b)
			}
		}
	})
}

func mustJSON(v any) string {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return string(b)
}

func TestNothingPointsIntoTheChunk(t *testing.T) {
	in := append(v2(testTime, log()), v2(testTime, pairs{{"log", "world"}})...)
	var d Decoder
	var ev Events
	d.Decode(in, testOptions(), &ev)
	before := append([]byte(nil), ev.Arena...)
	for i := range in {
		in[i] = 0xDD
	}
	require.Equal(t, before, ev.Arena)
}

func TestIdentityRecordResolvesEachRecord(t *testing.T) {
	in := slicesConcat(
		v2(testTime, log(pair{"kubernetes", pairs{{"namespace_name", "tenant-a"}, {"pod_name", "p"}, {"container_name", "c"}}})),
		v2(testTime, log()),
		v2(testTime, log(pair{"kubernetes", pairs{{"namespace_name", "x"}}}, pair{"kubernetes", pairs{{"namespace_name", "tenant-b"}, {"pod_name", "p"}}})),
	)
	var d Decoder
	var ev Events
	var claims []string
	d.Decode(in, Options{Resolve: func(c Claim) (*Identity, int, string) {
		claims = append(claims, fmt.Sprintf("%s/%s/%s %v", c.Namespace, c.Pod, c.Container, c.Present))
		if !c.Present {
			return nil, 0, `"unrouted":"record"`
		}
		return NewIdentity(string(c.Namespace), string(c.Pod), string(c.Container), "", "", ""), len(claims), ""
	}}, &ev)
	require.Equal(t, []string{"tenant-a/p/c true", "// false", "tenant-b/p/ true"}, claims)
	require.Equal(t, []int{1, 0, 3}, []int{ev.List[0].Dest, ev.List[1].Dest, ev.List[2].Dest})
	require.Equal(t, `{"log":"hello","_tenantlogs":{"unrouted":"record"}}`, string(ev.Message(1)))
	require.Equal(t, `{"log":"hello","kubernetes":{"namespace_name":"tenant-b","pod_name":"p"}}`, string(ev.Message(2)))
}

func slicesConcat(s ...[]byte) []byte { return bytes.Join(s, nil) }

func TestRestampKeepsTheMessageAndItsTime(t *testing.T) {
	ev := Restamp([]byte(`{"log":"x"}`), (testSec-20*86400)*1000, testSec*1000, 0, "")
	require.Len(t, ev.List, 1)
	require.EqualValues(t, testSec*1000, ev.List[0].Timestamp)
	require.Equal(t, `{"log":"{\"log\":\"x\"}","_tenantlogs":{"original_time":"2023-10-25T22:13:20.000Z","time_reason":"too_old"}}`, string(ev.Message(0)))
	big := Restamp(bytes.Repeat([]byte{'"'}, MaxMessage), 0, testSec*1000, 0, "")
	require.Greater(t, len(big.List), 1)
	for i := range big.List {
		require.LessOrEqual(t, len(big.Message(i)), MaxMessage)
	}
}

// What is outside only for the clock that its time is from is told apart from what is late.
func TestATimeThatIsWrongForTheClockIsToldApart(t *testing.T) {
	const hour, day = 3600, 86400
	for name, test := range map[string]struct {
		at, skew int64 // seconds: by testSec, and how far that clock is ahead
		want     string
	}{
		"fresh, two weeks behind":                   {-15 * day, -15 * day, `"time_reason":"clock_skew","clock_skew_seconds":-1296000`},
		"fresh, three hours ahead":                  {3 * hour, 3 * hour, `"time_reason":"clock_skew","clock_skew_seconds":10800`},
		"a day old, two weeks behind":               {-16 * day, -15 * day, `"time_reason":"clock_skew","clock_skew_seconds":-1296000`},
		"too old by both clocks":                    {-30 * day, -15 * day, `"time_reason":"too_old","clock_skew_seconds":-1296000`},
		"too old, and the clock ahead":              {-15 * day, 3 * hour, `"time_reason":"too_old","clock_skew_seconds":10800`},
		"too new by both clocks":                    {9 * hour, 3 * hour, `"time_reason":"too_new","clock_skew_seconds":10800`},
		"too new, and the clock behind":             {3 * hour, -hour, `"time_reason":"too_new","clock_skew_seconds":-3600`},
		"too new, and the clock right":              {3 * hour, 0, `"time_reason":"too_new"`},
		"taken as it is, whatever the clock":        {hour, hour, ""},
		"13 days 23 hours old is taken as it is":    {-14*day + hour, 0, ""},
		"two hours ahead less a minute is taken so": {2*hour - 60, 0, ""},
	} {
		t.Run(name, func(t *testing.T) {
			opts := Options{Now: testSec * 1000, Oldest: testSec*1000 - OldestEvent.Milliseconds(), Newest: testSec*1000 + NewestEvent.Milliseconds(), Skew: test.skew * 1000}
			var d Decoder
			var ev Events
			d.Decode(v2(testSec+test.at, log()), opts, &ev)
			if test.want == "" {
				require.EqualValues(t, (testSec+test.at)*1000, ev.List[0].Timestamp)
				require.NotContains(t, string(ev.Message(0)), "_tenantlogs")
				return
			}
			require.EqualValues(t, testSec*1000, ev.List[0].Timestamp)
			require.Contains(t, string(ev.Message(0)), test.want+"}}")
			// The same where CloudWatch finds out.
			again := Restamp([]byte("x"), (testSec+test.at)*1000, testSec*1000, test.skew*1000, "")
			require.Contains(t, string(again.Message(0)), test.want+"}}")
			// Only what is late is dropped.
			opts.DropLate = true
			d.Decode(v2(testSec+test.at, log()), opts, &ev)
			require.Equal(t, !strings.Contains(test.want, "clock_skew\","), ev.List[0].Dropped)
		})
	}
}

// A tenant's line must not cost the square of its length.
func TestManyKeysAreDedupedByOrderNotByPairs(t *testing.T) {
	const n = 200_000
	b := appendValue(nil, []any{})
	b = append(b[:0], 0x92, 0x00)
	b = msgp.AppendMapHeader(b, 2*n)
	for range 2 {
		for i := range n {
			b = msgp.AppendInt(msgp.AppendInt(b, i), i)
		}
	}
	var d Decoder
	var ev Events
	d.Decode(b, Options{}, &ev)
	require.Equal(t, n, ev.Stats.Duplicates)
	require.Equal(t, 1, ev.Stats.Records)
}

// A key that is a map whose key is a map ... must not double with every level.
func TestKeysWithinKeysDoNotGrow(t *testing.T) {
	in := []byte{0x92, 0x00}
	const deep = 5000
	for range deep {
		in = append(in, 0x81) // a map of one, its key the next
	}
	in = append(in, 0xa1, 'k')
	for range deep {
		in = append(in, 0xc0)
	}
	var d Decoder
	var ev Events
	d.Decode(in, Options{}, &ev)
	require.NoError(t, ev.Damage.Err)
	require.Len(t, ev.List, 1)
	require.Less(t, len(ev.Message(0)), 4*len(in))
}

// checkEvents holds for whatever comes in.
func checkEvents(t *testing.T, in []byte, opts Options, ev *Events) {
	limit := opts.MaxMessage
	if limit == 0 {
		limit = MaxMessage
	}
	last := -1
	for i, e := range ev.List {
		m := ev.Message(i)
		if len(m) == 0 || len(m) > limit {
			t.Fatalf("a message of %d bytes", len(m))
		}
		if !utf8.Valid(m) {
			t.Fatalf("not UTF-8: %q", m)
		}
		if e.Record < last {
			t.Fatalf("records out of order: %d after %d", e.Record, last)
		}
		last = e.Record
		if e.Timestamp < 0 {
			t.Fatalf("time %d", e.Timestamp)
		}
		if opts.LogKey != "" {
			if !opts.AllowEMF && readsAsEMF(m) {
				t.Fatalf("EMF: %s", m)
			}
			continue
		}
		var top map[string]json.RawMessage
		if err := json.Unmarshal(m, &top); err != nil {
			t.Fatalf("%v: %s", err, m)
		}
		if _, there := top["_aws"]; there {
			t.Fatalf("EMF: %s", m)
		}
		if _, part := top["_tenantlogs"]; !part || top["kubernetes"] != nil {
			var k map[string]any
			if err := json.Unmarshal(top["kubernetes"], &k); err != nil || k["namespace_name"] != "tenant-acme" || k["pod_name"] != "web-0" ||
				k["container_name"] != "app" || k["host"] != "node-1" || k["pod_id"] != "0c8f1f1e-0000-4000-8000-000000000001" {
				t.Fatalf("kubernetes is not the source: %v: %s", err, m)
			}
		}
	}
	// The worst is a record of three bytes that gets a source and a note.
	if len(ev.Arena) > 128*len(in)+1<<16 {
		t.Fatalf("%d bytes became %d", len(in), len(ev.Arena))
	}
	if ev.Damage.Err == nil && ev.Stats.LostBytes != 0 {
		t.Fatalf("%d bytes lost without a word", ev.Stats.LostBytes)
	}
	if ev.Damage.Err != nil && (ev.Damage.Offset < 0 || ev.Damage.Offset >= len(in)) {
		t.Fatalf("damage at %d of %d", ev.Damage.Offset, len(in))
	}
}

func readsAsEMF(m []byte) bool {
	var top map[string]json.RawMessage
	if json.Unmarshal(m, &top) != nil {
		return false
	}
	_, there := top["_aws"]
	return there
}

func FuzzDecode(f *testing.F) {
	for _, r := range oddRecords() {
		f.Add(r.in, false)
		f.Add(r.in, true)
	}
	f.Fuzz(func(t *testing.T, in []byte, raw bool) {
		opts := testOptions()
		if raw {
			opts.LogKey = "log"
		}
		var d Decoder
		var ev, again Events
		d.Decode(in, opts, &ev)
		checkEvents(t, in, opts, &ev)
		// The same bytes give the same events, whatever the decoder did before.
		d.Decode(in, opts, &again)
		if !bytes.Equal(ev.Arena, again.Arena) || len(ev.List) != len(again.List) {
			t.Fatal("a second pass differs")
		}
		// What stands before a broken record is delivered: cutting the chunk after
		// it changes nothing of it.
		if off := ev.Damage.Offset; ev.Damage.Err != nil {
			d.Decode(in[:off], opts, &again)
			if again.Damage.Err != nil || len(again.List) > len(ev.List) || !bytes.HasPrefix(ev.Arena, again.Arena) {
				t.Fatalf("what precedes the damage at %d is not delivered", off)
			}
		}
	})
}

// FuzzRawEMF: nothing that encoding/json reads as an object with `_aws` gets past.
func FuzzRawEMF(f *testing.F) {
	for _, s := range []string{`{"_aws":1}`, `{"a":{"_aws":1}}`, `{"\u005f\u0061ws":{}}`, `[{"_aws":1}]`, ` {"x":"{","_aws":1}`, "\ufeff{\"_aws\":1}", `{"a":"\"","_aws":[]}`, `{"_AWS":1}`, `{"a":1}{"_aws":2}`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, s []byte) {
		if readsAsEMF(s) && !mayBeEMF(s) {
			t.Fatalf("passed as harmless: %q", s)
		}
		if json.Valid(s) && mayBeEMF(s) && !readsAsEMF(s) {
			t.Fatalf("harmless JSON enveloped: %q", s)
		}
	})
}

func benchChunk(records int) []byte {
	var b []byte
	for i := range records {
		b = append(b, v2(testTime, pairs{
			{"time", "2026-11-23T10:00:00.000000000Z"}, {"stream", "stdout"}, {"_p", "F"},
			{"log", fmt.Sprintf("10.1.2.3 - - \"GET /api/v1/orders/%d HTTP/1.1\" 200 1234 \"-\" \"Mozilla/5.0 (X11; Linux x86_64)\" rt=0.%03d", i, i%1000)},
		})...)
	}
	return b
}

func benchmark(b *testing.B, opts Options) {
	const records = 10_000
	in := benchChunk(records)
	var d Decoder
	var ev Events
	d.Decode(in, opts, &ev)
	b.SetBytes(int64(len(in)))
	b.ReportAllocs()
	b.ResetTimer()
	for range b.N {
		d.Decode(in, opts, &ev)
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/records, "ns/record")
}

func BenchmarkDecodeJSON(b *testing.B) { benchmark(b, testOptions()) }
func BenchmarkDecodeRaw(b *testing.B) {
	o := testOptions()
	o.LogKey = "log"
	benchmark(b, o)
}

func TestARecordAllocatesNothing(t *testing.T) {
	in := benchChunk(1000)
	for _, key := range []string{"", "log"} {
		opts := testOptions()
		opts.LogKey = key
		var d Decoder
		var ev Events
		d.Decode(in, opts, &ev)
		require.Zero(t, testing.AllocsPerRun(20, func() { d.Decode(in, opts, &ev) }))
	}
}

// The eight bytes at a time of appendEscaped are held against one byte at a time.
func TestEscapingIsTheSameOneByteAtATime(t *testing.T) {
	slowly := func(s []byte) (out []byte, replaced bool) {
		for i := 0; i < len(s); {
			switch r, size := utf8.DecodeRune(s[i:]); {
			case r == utf8.RuneError && size <= 1:
				out, replaced = append(out, "\ufffd"...), true
				i++
			case r < 0x20 || r == '"' || r == '\\':
				out = appendEscapedByte(out, byte(r))
				i++
			default:
				out = append(out, s[i:i+size]...)
				i += size
			}
		}
		return out, replaced
	}
	piece := rapid.OneOf(
		rapid.SliceOfN(rapid.Byte(), 0, 12),
		rapid.Map(rapid.StringMatching(`[a-z0-9 ]{0,20}`), func(s string) []byte { return []byte(s) }),
		rapid.SampledFrom([][]byte{[]byte(`"`), []byte(`\`), {0}, {0x1f}, {0x20}, {0x7f}, {0x80}, {0xff}, []byte("é"), []byte("漢字"), []byte("😀"), {0xe2, 0x82}, []byte("\n")}),
	)
	rapid.Check(t, func(rt *rapid.T) {
		s := slices.Concat(rapid.SliceOf(piece).Draw(rt, "pieces")...)
		before := []byte(rapid.StringN(0, 20, -1).Draw(rt, "before"))
		room := slices.Grow(slices.Clone(before), rapid.IntRange(0, 100).Draw(rt, "room"))
		want, bad := slowly(s)
		got, replaced := appendEscaped(room, s)
		if string(got) != string(before)+string(want) || bad != replaced {
			rt.Fatalf("%q became %q, not %q", s, got, want)
		}
	})
}
