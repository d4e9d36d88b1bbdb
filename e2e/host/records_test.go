package host

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/tinylib/msgp/msgp"
)

// criLine is the parser as Fluent Bit has it.
var criLine = regexp.MustCompile(`(?s)^.+? (?:stdout|stderr) (?:F|P) (.*)$`)

// asJSON shows MessagePack as JSON, duplicate keys and order included; msgp's own conversion does that.
func asJSON(t testing.TB, b []byte) string {
	t.Helper()
	var out bytes.Buffer
	rest, err := msgp.UnmarshalAsJSON(&out, b)
	require.NoError(t, err)
	require.Empty(t, rest)
	return out.String()
}

type decoded struct {
	seconds, nanos uint32
	body           string
}

// decode reads a chunk back with msgp's readers.
func decode(t testing.TB, format Format, b []byte) []decoded {
	t.Helper()
	var all []decoded
	for len(b) > 0 {
		array := func() {
			n, rest, err := msgp.ReadArrayHeaderBytes(b)
			require.NoError(t, err)
			require.EqualValues(t, 2, n)
			b = rest
		}
		if array(); format == V2 {
			array()
		}
		ext := msgp.RawExtension{Type: 0}
		rest, err := msgp.ReadExtensionBytes(b, &ext)
		require.NoError(t, err)
		require.Len(t, ext.Data, 8)
		b = rest
		if format == V2 {
			n, rest, err := msgp.ReadMapHeaderBytes(b)
			require.NoError(t, err)
			require.Zero(t, n)
			b = rest
		}
		rest, err = msgp.Skip(b)
		require.NoError(t, err)
		all = append(all, decoded{
			binary.BigEndian.Uint32(ext.Data), binary.BigEndian.Uint32(ext.Data[4:]), asJSON(t, b[:len(b)-len(rest)]),
		})
		b = rest
	}
	return all
}

func body(t testing.TB, text string) []byte {
	t.Helper()
	b, err := AppendJSON(nil, []byte(text))
	require.NoError(t, err)
	return b
}

func TestChunkerMakesChunksOfOneTag(t *testing.T) {
	for _, format := range []Format{V2, Legacy} {
		got := map[string][]decoded{}
		var order []string
		c := Chunker{Format: format, Emit: func(tag string, chunk []byte) error {
			got[tag] = append(got[tag], decode(t, format, chunk)...)
			order = append(order, tag)
			return nil
		}}
		require.NoError(t, c.Append("b", time.Unix(7, 8), body(t, `{"n":1}`)))
		require.NoError(t, c.Append("a", time.Unix(9, 999999999), body(t, `{"n":2}`)))
		require.NoError(t, c.Append("b", time.Unix(math.MaxUint32, 0), body(t, `{"n":3}`)))
		require.Empty(t, order)
		require.NoError(t, c.Flush())
		require.NoError(t, c.Flush())
		require.Equal(t, []string{"b", "a"}, order)
		require.Equal(t, map[string][]decoded{
			"b": {{7, 8, `{"n":1}`}, {math.MaxUint32, 0, `{"n":3}`}},
			"a": {{9, 999999999, `{"n":2}`}},
		}, got)

		require.NoError(t, c.Append("a", time.Unix(1, 0), body(t, `{}`)))
		require.NoError(t, c.Flush())
		require.Equal(t, []string{"b", "a", "a"}, order)
	}
}

func TestChunkerClosesAChunkAtFluentBitsSize(t *testing.T) {
	var sizes []int
	records := 0
	c := Chunker{Emit: func(_ string, chunk []byte) error {
		sizes = append(sizes, len(chunk))
		records += len(decode(t, V2, chunk))
		return nil
	}}
	b := body(t, `{"log":"`+strings.Repeat("x", 100_000)+`"}`)
	for range 50 {
		require.NoError(t, c.Append("t", time.Unix(1, 0), b))
	}
	require.Len(t, sizes, 2)
	require.NoError(t, c.Append("t", time.Unix(1, 0), body(t, `{"log":"`+strings.Repeat("x", 5_000_000)+`"}`)))
	require.NoError(t, c.Flush())
	require.Len(t, sizes, 3)
	require.Equal(t, 51, records)
	for _, n := range sizes[:2] {
		require.GreaterOrEqual(t, n, ChunkSize)
		require.Less(t, n, ChunkSize+len(b)+20)
	}
}

func TestAppendJSON(t *testing.T) {
	for in, want := range map[string]string{
		`{}`: `{}`,
		` {"b":1,"a":[1,{"x":null}],"b":"again"} `: `{"b":1,"a":[1,{"x":null}],"b":"again"}`,
		`{"kubernetes":{"a":1},"kubernetes":{}}`:   `{"kubernetes":{"a":1},"kubernetes":{}}`,
		`{"t":true,"f":false,"s":"é\u00e9\n"}`:     `{"t":true,"f":false,"s":"éé\n"}`,
		`{"a":1} and more`:                         `{"a":1}`, // Fluent Bit drops the rest
		"{\"a\":\"\xff\"}":                         "{\"a\":\"\uFFFD\"}",
		`{"a":1}{"b":2}`:                           "",
		`{"a":1} 2`:                                "",
		`[1]`:                                      "",
		`"a"`:                                      "",
		``:                                         "",
		`{"a":1`:                                   "",
		`{"a":}`:                                   "",
		`{1:2}`:                                    "",
		`{"a":1e999}`:                              "",
		`{"a":` + strings.Repeat("[", 600):         "",
	} {
		b, err := AppendJSON([]byte("before"), []byte(in))
		if want == "" {
			require.Error(t, err, in)
			require.Equal(t, "before", string(b))
			continue
		}
		require.NoError(t, err, in)
		require.Equal(t, want, asJSON(t, b[len("before"):]), in)
	}
}

func TestAppendJSONKeepsNumbersWhole(t *testing.T) {
	for in, want := range map[string]any{
		"0": int64(0), "-1": int64(-1), "9007199254740993": int64(9007199254740993),
		"-9223372036854775808": int64(math.MinInt64), "9223372036854775808": uint64(1 << 63),
		"18446744073709551615": uint64(math.MaxUint64), "18446744073709551616": float64(1 << 64), "1.5": 1.5, "1.0": 1.0, "1e3": 1000.0,
	} {
		b, err := AppendJSON(nil, fmt.Appendf(nil, `{"n":%s}`, in))
		require.NoError(t, err)
		got, _, err := msgp.ReadIntfBytes(b)
		require.NoError(t, err)
		require.EqualValues(t, map[string]any{"n": want}["n"], got.(map[string]any)["n"], in)
		_, isFloat := want.(float64)
		_, gotFloat := got.(map[string]any)["n"].(float64)
		require.Equal(t, isFloat, gotFloat, in)
	}
}

func FuzzAppendJSON(f *testing.F) {
	f.Add([]byte(`{"a":[1,2.5,{"b":null,"b":"x"}],"c":18446744073709551615}`))
	f.Add([]byte(`{"a":1} x`))
	f.Fuzz(func(t *testing.T, in []byte) {
		b, err := AppendJSON(nil, in)
		if err != nil {
			require.Empty(t, b)
			return
		}
		rest, err := msgp.Skip(b)
		require.NoError(t, err)
		require.Empty(t, rest)
		require.Equal(t, msgp.MapType, msgp.NextType(b))
		again, err := AppendJSON(nil, []byte(asJSON(t, b)))
		require.NoError(t, err)
		require.Equal(t, asJSON(t, b), asJSON(t, again))
	})
}

func TestComposeTag(t *testing.T) {
	for _, tc := range []struct{ tag, path, want string }{
		{"kube.*", "/var/log/containers/p_n_c-1.log", "kube.var.log.containers.p_n_c-1.log"},
		{"kube.*", "/var/log/pods/ns_pod.x_uid/c/0.log", "kube.var.log.pods.ns_pod.x_uid.c.0.log"},
		{"*", "/var/log/a.log", "var.log.a.log"},
		{"*.x", "/a", "a.x"},
		{"a.*", `/b\c:d//e..f/*g.`, "a.b.c.d.e.f.g"},
		{"fixed", "/a", "fixed"},
		{"a*b*", "/x", "a.xb"},
	} {
		require.Equal(t, tc.want, ComposeTag(tc.tag, tc.path), "%s %s", tc.tag, tc.path)
	}
}

// cri is ParseCRI's result with each record as JSON, preceded by its seconds; "now" for a line without a time.
func cri(t testing.TB, parse *ParseJSON, text string) []string {
	t.Helper()
	before := time.Now()
	var got []string
	require.NoError(t, ParseCRI(strings.NewReader(text), Record{Tag: "t"}, func(r Record) error {
		require.Equal(t, "t", r.Tag)
		at := fmt.Sprintf("%.3f ", float64(r.Time.UnixMilli())/1000)
		if !r.Time.Before(before) {
			at = "now "
		}
		got = append(got, at+asJSON(t, r.AppendBody(nil, parse)))
		return nil
	}))
	return got
}

func TestParseCRI(t *testing.T) {
	const at = "1970-01-01T00:00:01.500000000Z"
	rec := func(stream, p, log string) string {
		b, err := json.Marshal(log)
		require.NoError(t, err)
		return fmt.Sprintf(`1.500 {"time":%q,"stream":%q,"_p":%q,"log":%s}`, at, stream, p, b)
	}
	for name, tc := range map[string]struct {
		text string
		want []string
	}{
		"a line":             {at + " stdout F hello world\n", []string{rec("stdout", "F", "hello world")}},
		"an empty message":   {at + " stderr F \n", []string{rec("stderr", "F", "")}},
		"spaces are content": {at + " stdout F  a \n", []string{rec("stdout", "F", " a ")}},
		"CRLF":               {at + " stdout F a\r\n" + at + " stdout F b\r\n", []string{rec("stdout", "F", "a"), rec("stdout", "F", "b")}},
		"parts are joined": {
			at + " stdout P a\n" + at + " stdout P b\n" + at + " stdout F c\n" + at + " stdout F d\n",
			[]string{rec("stdout", "P", "abc"), rec("stdout", "F", "d")},
		},
		"parts of both streams, interleaved": {
			at + " stdout P a\n" + at + " stderr P x\n" + at + " stdout F b\n" + at + " stdout P c\n" + at + " stderr F y\n" + at + " stdout F d\n",
			[]string{rec("stdout", "P", "ab"), rec("stderr", "P", "xy"), rec("stdout", "P", "cd")},
		},
		"a part without its rest": {at + " stdout P a\n", []string{rec("stdout", "P", "a")}},
		"an empty last part":      {at + " stdout P a\n" + at + " stdout F \n", []string{rec("stdout", "P", "a")}},
		"a broken line ends what waits": {
			at + " stdout P a\noops\n" + at + " stdout F b\n",
			[]string{rec("stdout", "P", "a"), `now {"log":"oops"}`, rec("stdout", "F", "b")},
		},
		"an empty line is no record": {"\n" + at + " stdout F a\n\n", []string{rec("stdout", "F", "a")}},
		"a lone CR is one":           {"\r\n", []string{`now {"log":"\r"}`}},
		"no flag":                    {at + " stdout a\n", []string{`now {"log":"` + at + ` stdout a"}`}},
		"no space after the flag":    {at + " stdout F\n", []string{`now {"log":"` + at + ` stdout F"}`}},
		"an unknown stream":          {at + " stdin F a\n", []string{`now {"log":"` + at + ` stdin F a"}`}},
		"no time":                    {" stdout F a\n", []string{`now {"log":" stdout F a"}`}},
		"the first match counts":     {at + " stdout F x stderr P y\n", []string{rec("stdout", "F", "x stderr P y")}},
		"an unfinished line":         {at + " stdout F a\n" + at + " stdout F b", []string{rec("stdout", "F", "a")}},
		"zero bytes at the start":    {"\x00\x00" + at + " stdout F a\n", []string{rec("stdout", "F", "a")}},
		"a time that can't be read":  {"noon stdout F a\n", []string{`-2209075200.000 {"time":"noon","stream":"stdout","_p":"F","log":"a"}`}},
		"a time in another zone":     {"1970-01-01T01:00:00.25+01:00 stdout F a\n", []string{`0.250 {"time":"1970-01-01T01:00:00.25+01:00","stream":"stdout","_p":"F","log":"a"}`}},
		"a time without a fraction":  {"1970-01-01T00:00:01Z stdout F a\n", []string{`1.000 {"time":"1970-01-01T00:00:01Z","stream":"stdout","_p":"F","log":"a"}`}},
		"a long line":                {at + " stdout F " + strings.Repeat("x", 300_000) + "\n", []string{rec("stdout", "F", strings.Repeat("x", 300_000))}},
		"nothing":                    {"", nil},
	} {
		t.Run(name, func(t *testing.T) { require.Equal(t, tc.want, cri(t, nil, tc.text)) })
	}
}

func TestParseJSONIsAParserFilter(t *testing.T) {
	const line = `1970-01-01T00:00:01.5Z stdout F {"log":"x","kubernetes":{"namespace_name":"victim"},"log":2}` + "\n"
	require.Equal(t, []string{`1.500 {"log":"x","kubernetes":{"namespace_name":"victim"},"log":2}`}, cri(t, &ParseJSON{}, line))
	require.Equal(t, []string{`1.500 {"log":"x","kubernetes":{"namespace_name":"victim"},"log":2,"time":"1970-01-01T00:00:01.5Z","stream":"stdout","_p":"F"}`},
		cri(t, &ParseJSON{ReserveData: true}, line))
	require.Equal(t, []string{`1.500 {"time":"1970-01-01T00:00:01.5Z","stream":"stdout","_p":"F","log":"no JSON"}`},
		cri(t, &ParseJSON{}, "1970-01-01T00:00:01.5Z stdout F no JSON\n"))
	require.Equal(t, []string{`now {"a":1}`}, cri(t, &ParseJSON{ReserveData: true}, `{"a":1}`+"\n"))
}

func TestReadCRITagsAsIfTheRootWereSlash(t *testing.T) {
	root := t.TempDir()
	write := func(path, text string) {
		path = filepath.Join(root, path)
		require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o755))
		require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
	}
	write("var/log/pods/ns_pod-b_uid2/app/0.log", "1970-01-01T00:00:02.0Z stdout F two\n")
	write("var/log/pods/ns_pod-a_uid1/app/0.log", "1970-01-01T00:00:01.0Z stdout P one\n")
	write("var/log/pods/ns_pod-a_uid1/app/0.log.gz", "not matched\n")
	require.NoError(t, os.Mkdir(filepath.Join(root, "var/log/pods/ns_pod-a_uid1/app/dir.log"), 0o755))

	var got []string
	require.NoError(t, ReadCRI(root, "/var/log/pods/*/*/*.log", "kube.*", func(r Record) error {
		got = append(got, r.Tag+" "+r.Path+" "+string(r.Log))
		return nil
	}))
	require.Equal(t, []string{
		"kube.var.log.pods.ns_pod-a_uid1.app.0.log /var/log/pods/ns_pod-a_uid1/app/0.log one",
		"kube.var.log.pods.ns_pod-b_uid2.app.0.log /var/log/pods/ns_pod-b_uid2/app/0.log two",
	}, got)
}

func FuzzParseCRI(f *testing.F) {
	f.Add([]byte("2026-01-01T00:00:00.1Z stdout P a\n2026-01-01T00:00:00.1Z stderr F {\"a\":1}\r\nx\n\n"))
	f.Fuzz(func(t *testing.T, in []byte) {
		// Nothing is made up: every record's text is in the input, in order, and every finished line but the empty and
		// those with an empty message is in a record.
		var total int
		require.NoError(t, ParseCRI(bytes.NewReader(in), Record{}, func(r Record) error {
			total += len(r.Log)
			for _, parse := range []*ParseJSON{nil, {}, {ReserveData: true}} {
				b := r.AppendBody(nil, parse)
				rest, err := msgp.Skip(b)
				require.NoError(t, err)
				require.Empty(t, rest)
			}
			return nil
		}))
		want := 0
		end := bytes.LastIndexByte(in, '\n') + 1
		for i, line := range bytes.SplitAfter(in[:end], []byte("\n")) {
			if i == 0 {
				line = bytes.TrimLeft(line, "\x00")
			}
			line = bytes.TrimSuffix(line, []byte("\n"))
			if len(line) > 1 {
				line = bytes.TrimSuffix(line, []byte("\r"))
			}
			if m := criLine.FindSubmatch(line); m != nil {
				line = m[1]
			}
			want += len(line)
		}
		require.Equal(t, want, total)
	})
}
