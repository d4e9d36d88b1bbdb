package chunk

import (
	stdhex "encoding/hex"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

const readAt = 1_790_000_000 // when Fluent Bit read the lines, in seconds

// raw is a chunk of lines as tail makes it without a parser.
func raw(lines ...string) (b []byte) {
	for _, l := range lines {
		b = append(b, v2(eventTime(readAt, 0), pairs{{"log", l}})...)
	}
	return b
}

func decodeCRI(data []byte, opts Options) *Events {
	opts.CRI = true
	if opts.Identity == nil {
		opts.Identity = NewIdentity("ns", "p", "c", "", "", "")
	}
	var d Decoder
	ev := &Events{}
	d.Decode(data, opts, ev)
	return ev
}

func messages(ev *Events) (list []string) {
	for i, e := range ev.List {
		list = append(list, fmt.Sprintf("%d %s", e.Timestamp, strings.Replace(string(ev.Message(i)), `,"kubernetes":{"namespace_name":"ns","pod_name":"p","container_name":"c"}`, "", 1)))
	}
	return list
}

func TestLinesOfContainersAreTakenApartAndJoined(t *testing.T) {
	at := func(s int) string { return fmt.Sprintf("2026-09-21T14:13:%02d.123456789Z", s) }
	ms := func(s int) string { return fmt.Sprint(time.Date(2026, 9, 21, 14, 13, s, 123e6, time.UTC).UnixMilli()) }
	read := fmt.Sprint(int64(readAt) * 1000)
	for name, test := range map[string]struct {
		data []byte
		want []string
	}{
		"a line":              {raw(at(0) + " stdout F hello"), []string{ms(0) + ` {"time":"` + at(0) + `","stream":"stdout","log":"hello"}`}},
		"an empty line":       {raw(at(0) + " stderr F "), []string{ms(0) + ` {"time":"` + at(0) + `","stream":"stderr","log":""}`}},
		"no space behind":     {raw(at(0) + " stderr F"), []string{ms(0) + ` {"time":"` + at(0) + `","stream":"stderr","log":""}`}},
		"a further tag":       {raw(at(0) + " stdout F:x hello"), []string{ms(0) + ` {"time":"` + at(0) + `","stream":"stdout","log":"hello"}`}},
		"CRI-O's time":        {raw("2026-09-21T16:13:00.123456789+02:00 stdout F hello"), []string{ms(0) + ` {"time":"2026-09-21T16:13:00.123456789+02:00","stream":"stdout","log":"hello"}`}},
		"parts, joined":       {raw(at(0)+" stdout P a", at(1)+" stdout P b", at(2)+" stdout F c", at(3)+" stdout F d"), []string{ms(0) + ` {"time":"` + at(0) + `","stream":"stdout","log":"abc","_tenantlogs":{"until":"` + at(2) + `"}}`, ms(3) + ` {"time":"` + at(3) + `","stream":"stdout","log":"d"}`}},
		"two streams at once": {raw(at(0)+" stdout P a", at(1)+" stderr P x", at(2)+" stdout F b", at(3)+" stderr F y"), []string{ms(0) + ` {"time":"` + at(0) + `","stream":"stdout","log":"ab","_tenantlogs":{"until":"` + at(2) + `"}}`, ms(1) + ` {"time":"` + at(1) + `","stream":"stderr","log":"xy","_tenantlogs":{"until":"` + at(3) + `"}}`}},
		// Around a rotation tail reads the old file and the new one by turns.
		"the end of the old file between lines of the new one": {raw(at(1)+" stdout F end", at(2)+" stdout F new", at(0)+" stdout F old", at(1)+" stdout P begin", at(3)+" stdout F newer"), []string{
			ms(1) + ` {"time":"` + at(1) + `","stream":"stdout","log":"end"}`, ms(2) + ` {"time":"` + at(2) + `","stream":"stdout","log":"new"}`, ms(0) + ` {"time":"` + at(0) + `","stream":"stdout","log":"old"}`,
			ms(1) + ` {"time":"` + at(1) + `","stream":"stdout","log":"begin","_tenantlogs":{"partial":true,"last_part_bytes":5}}`, ms(3) + ` {"time":"` + at(3) + `","stream":"stdout","log":"newer"}`}},
		"lines of the old file between the parts of one of the new": {raw(at(2)+" stdout P a", at(0)+" stdout F old", at(3)+" stdout F b"), []string{
			ms(2) + ` {"time":"` + at(2) + `","stream":"stdout","log":"a","_tenantlogs":{"partial":true,"last_part_bytes":1}}`, ms(0) + ` {"time":"` + at(0) + `","stream":"stdout","log":"old"}`, ms(3) + ` {"time":"` + at(3) + `","stream":"stdout","log":"b"}`}},
		"the other stream's times say nothing": {raw(at(5)+" stderr F x", at(0)+" stdout P a", at(1)+" stdout F b"), []string{
			ms(5) + ` {"time":"` + at(5) + `","stream":"stderr","log":"x"}`, ms(0) + ` {"time":"` + at(0) + `","stream":"stdout","log":"ab","_tenantlogs":{"until":"` + at(1) + `"}}`}},
		"the end is in another chunk": {raw(at(0)+" stderr P x", at(1)+" stdout P a", at(2)+" stdout P b"), []string{
			ms(0) + ` {"time":"` + at(0) + `","stream":"stderr","log":"x","_tenantlogs":{"partial":true,"last_part_bytes":1}}`, ms(1) + ` {"time":"` + at(1) + `","stream":"stdout","log":"ab","_tenantlogs":{"partial":true,"last_part_bytes":1,"until":"` + at(2) + `"}}`}},
		"a character cut by the chunk's end":       {raw(at(0) + " stdout P 5 \xe2\x82"), []string{ms(0) + ` {"time":"` + at(0) + `","stream":"stdout","log":"5 ","_tenantlogs":{"partial":true,"last_part_bytes":4,"bytes_after":"e282"}}`}},
		"a character cut by the chunk's beginning": {raw(at(0) + " stdout F \xac and more"), []string{ms(0) + ` {"time":"` + at(0) + `","stream":"stdout","log":" and more","_tenantlogs":{"bytes_before":"ac"}}`}},
		"a character cut within the chunk":         {raw(at(0)+" stdout P \xe2\x82", at(1)+" stdout F \xac"), []string{ms(0) + ` {"time":"` + at(0) + `","stream":"stdout","log":"€","_tenantlogs":{"until":"` + at(1) + `"}}`}},
		"NULs in front":                            {raw("\x00\x00\x00" + at(0) + " stdout F hello"), []string{ms(0) + ` {"time":"` + at(0) + `","stream":"stdout","log":"hello","_tenantlogs":{"changed":["nul"]}}`}},
		"NULs between two lines": {raw(at(0) + " stdout F hel\x00\x00\x00" + at(1) + " stderr F next"), []string{
			ms(0) + ` {"time":"` + at(0) + `","stream":"stdout","log":"hel","_tenantlogs":{"changed":["nul"]}}`, ms(1) + ` {"time":"` + at(1) + `","stream":"stderr","log":"next","_tenantlogs":{"changed":["nul"]}}`}},
		"NULs of the container's own":    {raw(at(0) + " stdout F a\x00b"), []string{ms(0) + ` {"time":"` + at(0) + `","stream":"stdout","log":"a\u0000b"}`}},
		"a forged line behind NULs":      {raw(at(5) + " stdout F a\x00" + at(4) + " stdout F b"), []string{ms(5) + ` {"time":"` + at(5) + `","stream":"stdout","log":"a\u0000` + at(4) + ` stdout F b"}`}},
		"a forged line of the future":    {raw(at(5) + " stdout F a\x002027-01-01T00:00:00Z stdout F b"), []string{ms(5) + ` {"time":"` + at(5) + `","stream":"stdout","log":"a\u00002027-01-01T00:00:00Z stdout F b"}`}},
		"only NULs":                      {raw("\x00\x00"), []string{read + ` {"log":"\u0000\u0000","_tenantlogs":{"not_cri":true,"changed":["nul"]}}`}},
		"a time out of range":            {raw("2026-13-41T25:61:61Z stdout F hello", at(1)+" stdout F next"), []string{read + ` {"log":"2026-13-41T25:61:61Z stdout F hello","_tenantlogs":{"not_cri":true}}`, ms(1) + ` {"time":"` + at(1) + `","stream":"stdout","log":"next"}`}},
		"not a line, between parts":      {raw(at(0)+" stdout P a", "garbage", at(1)+" stdout F b"), []string{read + ` {"log":"garbage","_tenantlogs":{"not_cri":true}}`, ms(0) + ` {"time":"` + at(0) + `","stream":"stdout","log":"ab","_tenantlogs":{"until":"` + at(1) + `"}}`}},
		"a docker line":                  {raw(`{"log":"x\n","stream":"stdout","time":"2026-09-21T14:13:20Z"}`), []string{read + ` {"log":"{\"log\":\"x\\n\",\"stream\":\"stdout\",\"time\":\"2026-09-21T14:13:20Z\"}","_tenantlogs":{"not_cri":true}}`}},
		"a filter's fields stay":         {v2(eventTime(readAt, 0), pairs{{"cluster", "prod"}, {"log", at(0) + " stdout F hello"}, {"n", 1}}), []string{ms(0) + ` {"time":"` + at(0) + `","stream":"stdout","cluster":"prod","log":"hello","n":1}`}},
		"a filter's time wins":           {v2(eventTime(readAt, 0), pairs{{"log", at(0) + " stdout F hello"}, {"time", "mine"}}), []string{ms(0) + ` {"stream":"stdout","log":"hello","time":"mine"}`}},
		"joined by multiline.parser cri": {v2(eventTime(readAt, 0), pairs{{"time", at(0)}, {"stream", "stdout"}, {"_p", "P"}, {"log", "whole"}}), []string{read + ` {"time":"` + at(0) + `","stream":"stdout","_p":"P","log":"whole"}`}},
		"parts by the parser cri": {slices.Concat(v2(eventTime(readAt, 0), pairs{{"time", at(0)}, {"stream", "stdout"}, {"logtag", "P"}, {"message", "a"}}), v2(eventTime(readAt+1, 0), pairs{{"time", at(1)}, {"stream", "stdout"}, {"logtag", "F"}, {"message", "b"}})),
			[]string{read + ` {"time":"` + at(0) + `","stream":"stdout","message":"ab","_tenantlogs":{"until":"` + at(1) + `"}}`}},
		"a parser's fields that are none": {v2(eventTime(readAt, 0), pairs{{"stream", "other"}, {"logtag", "P"}, {"log", "a"}}), []string{read + ` {"stream":"other","logtag":"P","log":"a"}`}},
		"a field with another name, in parts": {slices.Concat(v2(eventTime(readAt, 0), pairs{{"message", at(0) + " stdout P a"}}), v2(eventTime(readAt, 0), pairs{{"message", at(1) + " stdout F b"}})),
			[]string{ms(0) + ` {"time":"` + at(0) + `","stream":"stdout","message":"ab","_tenantlogs":{"until":"` + at(1) + `"}}`}},
		"what a filter lifted out of the text takes nothing's place": {v2(eventTime(readAt, 0), pairs{{"time", at(0)}, {"stream", "stdout"}, {"logtag", "F"}, {"message", `{"log":"x"}`}, {"log", "x"}, {"message", "y"}, {"stream", "stderr"}, {"logtag", "P"}}),
			[]string{read + ` {"time":"` + at(0) + `","message":"{\"log\":\"x\"}","log":"x","message_claimed":"y","stream":"stderr"}`}},
		"a filter's stream is no parser's": {v2(eventTime(readAt, 0), pairs{{"log", at(0) + " stdout F hello"}, {"n", 1}}), []string{ms(0) + ` {"time":"` + at(0) + `","stream":"stdout","log":"hello","n":1}`}},
		"characters in parts of a byte":    {raw(at(0)+" stdout P \xe2", at(1)+" stdout P \x82"), []string{ms(0) + ` {"time":"` + at(0) + `","stream":"stdout","log":"","_tenantlogs":{"partial":true,"last_part_bytes":1,"bytes_after":"e282","until":"` + at(1) + `"}}`}},
		"NULs between the parts of a line": {raw(at(0)+" stdout P half", "\x00\x00"+at(1)+" stdout F unrelated"), []string{ms(0) + ` {"time":"` + at(0) + `","stream":"stdout","log":"half","_tenantlogs":{"changed":["nul"]}}`, ms(1) + ` {"time":"` + at(1) + `","stream":"stdout","log":"unrelated","_tenantlogs":{"changed":["nul"]}}`}},
		"only NULs between parts":          {raw(at(0)+" stdout P half", "\x00\x00", at(1)+" stdout F unrelated"), []string{ms(0) + ` {"time":"` + at(0) + `","stream":"stdout","log":"half","_tenantlogs":{"changed":["nul"]}}`, read + ` {"log":"\u0000\u0000","_tenantlogs":{"not_cri":true,"changed":["nul"]}}`, ms(1) + ` {"time":"` + at(1) + `","stream":"stdout","log":"unrelated"}`}},
		"the other stream's line is torn":  {raw(at(0)+" stdout P half", at(1)+" stderr F a\x00"+at(2)+" stderr F b", at(3)+" stdout F unrelated"), []string{ms(1) + ` {"time":"` + at(1) + `","stream":"stderr","log":"a","_tenantlogs":{"changed":["nul"]}}`, ms(0) + ` {"time":"` + at(0) + `","stream":"stdout","log":"half","_tenantlogs":{"changed":["nul"]}}`, ms(2) + ` {"time":"` + at(2) + `","stream":"stderr","log":"b","_tenantlogs":{"changed":["nul"]}}`, ms(3) + ` {"time":"` + at(3) + `","stream":"stdout","log":"unrelated"}`}},
		"a forged tag behind NULs":         {raw(at(0) + " stdout F a\x00" + at(1) + " stderr F:HIDDEN"), []string{ms(0) + ` {"time":"` + at(0) + `","stream":"stdout","log":"a\u0000` + at(1) + ` stderr F:HIDDEN"}`}},
		"a record without log":             {v2(eventTime(readAt, 0), pairs{{"x", 1}}), []string{read + ` {"x":1}`}},
		"a log that is no text":            {v2(eventTime(readAt, 0), pairs{{"log", 1}}), []string{read + ` {"log":1}`}},
		"a key that is an array":           {v2(eventTime(readAt, 0), pairs{{[]any{1}, "x"}, {"log", at(0) + " stdout F a"}}), []string{read + ` {"msgpack:kQE=":"x","log":"` + at(0) + ` stdout F a","_tenantlogs":{"changed":["key"]}}`}},
	} {
		ev := decodeCRI(test.data, Options{})
		require.Equal(t, test.want, messages(ev), name)
		require.NoError(t, ev.Damage.Err, name)
	}
}

func TestOneFieldOfALineIsSentRaw(t *testing.T) {
	ev := decodeCRI(raw("2026-09-21T14:13:00Z stdout P a", "2026-09-21T14:13:00Z stdout F b", "2026-09-21T14:13:01Z stdout P c"), Options{LogKey: "log"})
	require.Equal(t, "ab", string(ev.Message(0)))
	require.Equal(t, `{"log":"c","_tenantlogs":{"partial":true,"last_part_bytes":1}}`, string(ev.Message(1)))
	require.Equal(t, 1, ev.Stats.Joined)
	require.Equal(t, 1, ev.Stats.Partial)
}

// A tenant's line costs as much as its length, whatever is in it.
func BenchmarkALineOfNULs(b *testing.B) {
	data := raw("2026-09-21T14:13:00Z stdout F " + strings.Repeat("\x00x", 8000))
	var d Decoder
	ev := &Events{}
	for b.Loop() {
		d.Decode(data, Options{CRI: true}, ev)
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/16000, "ns/byte")
}

// What a reader does: in the order in which GetLogEvents returns a stream, what is partial goes
// on in the next event of the same stream.
func readLines(t require.TestingT, events []Event, message func(i int) []byte) map[string][]string {
	order := make([]int, len(events))
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(a, b int) int { return int(events[a].Timestamp - events[b].Timestamp) })
	lines, open := map[string][]string{}, map[string][]byte{}
	for _, i := range order {
		var m struct {
			Log, Stream string
			Notes       struct {
				Partial bool
				Before  string `json:"bytes_before"`
				After   string `json:"bytes_after"`
			} `json:"_tenantlogs"`
		}
		require.NoError(t, json.Unmarshal(message(i), &m))
		before, err := stdhex.DecodeString(m.Notes.Before)
		require.NoError(t, err)
		after, err := stdhex.DecodeString(m.Notes.After)
		require.NoError(t, err)
		open[m.Stream] = slices.Concat(open[m.Stream], before, []byte(m.Log), after)
		if !m.Notes.Partial {
			lines[m.Stream] = append(lines[m.Stream], string(open[m.Stream]))
			open[m.Stream] = nil
		}
	}
	for stream, rest := range open {
		require.Empty(t, rest, "the last line of %s has an end", stream)
	}
	return lines
}

// Whatever chunks a file is cut into, each line can be read whole and once.
func TestLinesAreWholeWhateverTheChunks(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		cut := rapid.IntRange(1, 9).Draw(t, "most bytes the runtime writes at once")
		var file []string
		want := map[string][]string{}
		rest := map[string]string{}
		ms := time.UnixMilli(1_780_000_000_000).UTC()
		for range rapid.IntRange(1, 30).Draw(t, "writes") {
			stream := rapid.SampledFrom(streamNames[:]).Draw(t, "stream")
			if rest[stream] == "" {
				rest[stream] = rapid.StringOf(rapid.RuneFrom([]rune("ab\"\\é€😀\x00"))).Draw(t, "line")
				want[stream] = append(want[stream], rest[stream])
			}
			text, tag := rest[stream], "F"
			if len(text) > cut {
				text, tag = text[:cut], "P"
			}
			rest[stream] = rest[stream][len(text):]
			file = append(file, ms.Format(time.RFC3339Nano)+" "+stream+" "+tag+" "+text)
			ms = ms.Add(time.Duration(rapid.IntRange(0, 2).Draw(t, "pause")) * time.Millisecond)
		}
		for _, stream := range streamNames {
			for text := rest[stream]; text != ""; {
				n := min(cut, len(text))
				tag := "F"
				if n < len(text) {
					tag = "P"
				}
				file = append(file, ms.Format(time.RFC3339Nano)+" "+stream+" "+tag+" "+text[:n])
				text = text[n:]
			}
		}
		var events []Event
		var bodies [][]byte
		for len(file) > 0 {
			n := rapid.IntRange(1, len(file)).Draw(t, "records in the chunk")
			ev := decodeCRI(raw(file[:n]...), Options{})
			require.NoError(t, ev.Damage.Err)
			for i, e := range ev.List {
				events, bodies = append(events, e), append(bodies, slices.Clone(ev.Message(i)))
			}
			file = file[n:]
		}
		require.Equal(t, want, readLines(t, events, func(i int) []byte { return bodies[i] }))
	})
}

func FuzzParseTime(f *testing.F) {
	for _, s := range []string{"2026-09-21T14:13:20.123456789Z", "2024-02-29T23:59:59+02:00", "0000-01-01T00:00:00Z", "2026-02-30T00:00:00Z", "9999-12-31T23:59:59.9Z", "2026-09-21T14:13:20,5Z", "2026-09-21T4:13:20Z"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		ms, ok := parseTime([]byte(s))
		at, err := time.Parse(time.RFC3339Nano, s)
		// time.Parse takes more than RFC 3339 has.
		if strings.Contains(s, ",") || len(s) > 12 && s[12] == ':' {
			require.False(t, ok, "RFC 3339 has a point, and two digits of an hour: %q", s)
			return
		}
		require.Equal(t, err == nil, ok, "%q: %v", s, err)
		if ok {
			require.Equal(t, at.UnixMilli(), ms, s)
		}
	})
}

// Nothing that stands in a log file stops the decoder or is lost.
func FuzzRuntimeLine(f *testing.F) {
	f.Add("2026-09-21T14:13:20Z stdout P a", "2026-09-21T14:13:20Z stdout F b\x00\x002026-09-21T14:13:20Z stderr F c", false)
	f.Add("\x00", "2026-09-21T14:13:20Z stdout F:x \x80", true)
	f.Fuzz(func(t *testing.T, a, b string, key bool) {
		opts := Options{}
		if key {
			opts.LogKey = "log"
		}
		data := raw(a, b)
		ev := decodeCRI(data, opts)
		require.NoError(t, ev.Damage.Err)
		require.NotEmpty(t, ev.List)
		for i := range ev.List {
			require.NotEmpty(t, ev.Message(i))
			if !key {
				require.True(t, json.Valid(ev.Message(i)), "%s", ev.Message(i))
			}
		}
		again := decodeCRI(data, opts)
		require.Equal(t, ev.List, again.List, "the same chunk is the same events")
		require.Equal(t, ev.Arena, again.Arena)
	})
}

func BenchmarkDecodeCRI(b *testing.B) {
	line := `2026-11-27T02:46:29.123456789Z stdout F 10.0.0.1 - - [27/Nov/2026:02:46:29 +0000] "GET /api/v1/items/17 HTTP/1.1" 200 512 "-" "Mozilla/5.0 (X11; Linux x86_64)"`
	var data []byte
	const records = 1000
	for range records {
		data = append(data, raw(line)...)
	}
	id := NewIdentity("tenant-acme", "web-0", "app", "0c8f1f1e-0000-4000-8000-000000000001", "", "node-1")
	var d Decoder
	ev := &Events{}
	b.ReportAllocs()
	for b.Loop() {
		d.Decode(data, Options{Identity: id, CRI: true}, ev)
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/records, "ns/record")
}
