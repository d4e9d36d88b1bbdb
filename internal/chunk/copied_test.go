package chunk

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/stretchr/testify/require"
)

func copied(message string, original, at int64) *Events {
	ev := &Events{}
	ev.Copied([]byte(message), original, at, func(part int) string { return fmt.Sprintf("id/%d", part) })
	return ev
}

func TestCopiedMessagesSayWhichReplayBroughtThemAndAreElseTheSame(t *testing.T) {
	const late = `,"original_time":"1970-01-01T00:00:00.001Z","time_reason":"too_old"`
	for name, test := range map[string]struct {
		in   string
		late bool
		want string
	}{
		"a quarantined record": {`{"log":"x","kubernetes":{},"_tenantlogs":{"quarantined":"denied","log_group":"/g"}}`, false,
			`{"log":"x","kubernetes":{},"_tenantlogs":{"quarantined":"denied","log_group":"/g","replay":"id/0"}}`},
		"numbers keep every digit": {`{"n":1e400,"m":18446744073709551615,"f":1.10,"_tenantlogs":{}}`, false,
			`{"n":1e400,"m":18446744073709551615,"f":1.10,"_tenantlogs":{"replay":"id/0"}}`},
		"late": {`{"kubernetes":{},"_tenantlogs":{"a":[1,{"b":"}"}]}}`, true,
			`{"kubernetes":{},"_tenantlogs":{"a":[1,{"b":"}"}],"replay":"id/0"` + late + `}}`},
		"late for the second time keeps the first": {`{"_tenantlogs":{"original_time":"x","time_reason":"too_old"}}`, true,
			`{"_tenantlogs":{"original_time":"x","time_reason":"too_old","replay":"id/0"}}`},
		"a pending record has no notes yet": {`{"log":"{\"_tenantlogs\":{}}","kubernetes":{"namespace_name":"a"}}`, false,
			`{"log":"{\"_tenantlogs\":{}}","kubernetes":{"namespace_name":"a"},"_tenantlogs":{"replay":"id/0"}}`},
		"raw in quarantine's envelope": {`{"log":"raw","_tenantlogs":{"quarantined":"role","log_group":"/g"}}`, false,
			`{"log":"raw","_tenantlogs":{"quarantined":"role","log_group":"/g","replay":"id/0"}}`},
		"raw text":               {`raw "text"`, false, `{"log":"raw \"text\"","_tenantlogs":{"replay":"id/0"}}`},
		"raw text, late":         {`raw`, true, `{"log":"raw","_tenantlogs":{"replay":"id/0"` + late + `}}`},
		"raw JSON":               {`{"a":1}`, false, `{"log":"{\"a\":1}","_tenantlogs":{"replay":"id/0"}}`},
		"raw JSON with a replay": {`{"_tenantlogs":{"replay":"id/0"}}`, false, `{"log":"{\"_tenantlogs\":{\"replay\":\"id/0\"}}","_tenantlogs":{"replay":"id/0"}}`},
		"notes that are not at the end": {`{"_tenantlogs":{},"kubernetes":{}}`, false,
			`{"log":"{\"_tenantlogs\":{},\"kubernetes\":{}}","_tenantlogs":{"replay":"id/0"}}`},
		"notes twice, once in other letters": {`{"_tenant\u006cogs":{},"_tenantlogs":{}}`, false,
			`{"log":"{\"_tenant\\u006cogs\":{},\"_tenantlogs\":{}}","_tenantlogs":{"replay":"id/0"}}`},
		"notes that are no object": {`{"_tenantlogs":1}`, false, `{"log":"{\"_tenantlogs\":1}","_tenantlogs":{"replay":"id/0"}}`},
		"two objects":              {`{"kubernetes":{}}{}`, false, `{"log":"{\"kubernetes\":{}}{}","_tenantlogs":{"replay":"id/0"}}`},
		"a part of a record":       {`{"record":"{\"log\":","_tenantlogs":{"part":1,"parts":2}}`, false, `{"record":"{\"log\":","_tenantlogs":{"part":1,"parts":2,"replay":"id/0"}}`},
	} {
		at := int64(1)
		if test.late {
			at = 5
		}
		ev := copied(test.in, 1, at)
		require.Len(t, ev.List, 1, name)
		require.Equal(t, test.want, string(ev.Message(0)), name)
		require.Equal(t, at, ev.List[0].Timestamp)
	}
}

func TestCopiedMessagesThatGetTooLongAreCutAtTheSamePlacesWhateverTheirTime(t *testing.T) {
	long := func(size int, head, tail string) string {
		return head + strings.Repeat("é\"", (size-len(head)-len(tail))/3) + tail
	}
	for name, in := range map[string]string{
		"record": strings.ReplaceAll(long(MaxMessage, `{"log":"`, `","_tenantlogs":{"quarantined":"denied"}}`), `é"`, `é\`+`n`),
		"raw":    long(MaxMessage-300, "", ""),
		"part":   strings.ReplaceAll(long(MaxMessage, `{"record":"`, `","_tenantlogs":{"part":1,"parts":2}}`), `é"`, "éx"),
	} {
		if len(in) > MaxMessage {
			in = in[:MaxMessage]
		}
		now, late := copied(in, 1, 1), copied(in, 1, 5)
		require.Greater(t, len(now.List), 1, name)
		require.Equal(t, len(now.List), len(late.List), name)
		joined := ""
		for i := range now.List {
			require.LessOrEqual(t, len(late.Message(i)), MaxMessage)
			var a, b struct {
				Log, Record string
				Notes       struct {
					Replay      string
					Part, Parts int
				} `json:"_tenantlogs"`
			}
			require.NoError(t, json.Unmarshal(now.Message(i), &a))
			require.NoError(t, json.Unmarshal(late.Message(i), &b))
			require.Equal(t, a, b, name)
			require.Equal(t, fmt.Sprintf("id/%d", i+1), a.Notes.Replay)
			require.Equal(t, []int{i + 1, len(now.List)}, []int{a.Notes.Part, a.Notes.Parts})
			joined += a.Log + a.Record
		}
		require.True(t, joined == strings.ToValidUTF8(in, "\ufffd"), name)
	}
}

func TestCopiedMessagesStandBesideOneAnother(t *testing.T) {
	ev := &Events{}
	for _, m := range []string{"a", `{"kubernetes":{}}`} {
		ev.Copied([]byte(m), 1, 1, func(int) string { return "r" })
	}
	require.Equal(t, `{"log":"a","_tenantlogs":{"replay":"r"}}`, string(ev.Message(0)))
	require.Equal(t, `{"kubernetes":{},"_tenantlogs":{"replay":"r"}}`, string(ev.Message(1)))
	require.Equal(t, []int{0, 1}, []int{ev.List[0].Record, ev.List[1].Record})
}

func FuzzCopied(f *testing.F) {
	for _, s := range []string{``, `x`, `{}`, `{"kubernetes":{}}`, `{"_tenantlogs":{}}`, `{"a":"\"","_tenantlogs":{"x":[{}]}}`, ` {"a":1} `, `{"a":1e5,"kubernetes":{"b":null},"c":true}`} {
		f.Add(s, true)
	}
	f.Fuzz(func(t *testing.T, s string, late bool) {
		if !utf8.ValidString(s) {
			return // CloudWatch returns none
		}
		at := int64(1)
		if late {
			at = 9
		}
		ev := copied(s, 1, at)
		if len(ev.List) != 1 {
			t.Fatalf("%d events", len(ev.List))
		}
		got := ev.Message(0)
		var m map[string]json.RawMessage
		if err := json.Unmarshal(got, &m); err != nil {
			t.Fatalf("%s: %v", got, err)
		}
		var notes struct{ Replay string }
		if err := json.Unmarshal(m["_tenantlogs"], &notes); err != nil || notes.Replay != "id/0" {
			t.Fatalf("%s: %v", got, err)
		}
		p, ok := notesPlace([]byte(s))
		if !ok {
			var log string
			if err := json.Unmarshal(m["log"], &log); err != nil || log != s {
				t.Fatalf("%s is not %q in an envelope", got, s)
			}
			return
		}
		// Taking out what was put in gives the message back, byte for byte.
		if !bytes.HasPrefix(got, []byte(s[:p.at])) || !bytes.HasSuffix(got, []byte(s[p.at:])) {
			t.Fatalf("%s is not %s with a note", got, s)
		}
	})
}
