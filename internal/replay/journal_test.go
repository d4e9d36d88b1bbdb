package replay

import (
	"encoding/json"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func numbered(entries ...entry) []entry {
	for i := range entries {
		entries[i].Version, entries[i].N = journalVersion, i+1
	}
	return entries
}

func beginning(streams, unclosed int) entry {
	return entry{Kind: kindBegin, Replay: strings.Repeat("r", idLength), Key: strings.Repeat("k", keyLength), Base: 10, Copied: 5, Cutoff: 20, Streams: streams, Unclosed: unclosed}
}

func TestJournalSaysWhatIsReplayed(t *testing.T) {
	sending := entry{Kind: kindSending, Stream: "a", Cutoff: 20, From: 1, To: 2, At: 3, Until: 4, Count: 1, Copied: 6}
	open := span{20, 1, 2, 3, 4, 1}
	for name, test := range map[string]struct {
		entries []entry
		err     string
		a, b, c int64 // replayed up to
		copied  int64
		spans   map[string]span
		running bool
	}{
		"begun":       {entries: []entry{beginning(0, 0), {Kind: kindReady}}, a: 10, b: 10, c: 10, copied: 5, running: true},
		"held":        {entries: []entry{beginning(1, 0), {Kind: kindHeld, Held: map[string]int64{"b": 7}}, {Kind: kindReady}}, a: 10, b: 7, c: 10, copied: 5, running: true},
		"sending":     {entries: []entry{beginning(0, 0), {Kind: kindReady}, sending}, a: 10, b: 10, c: 10, copied: 6, spans: map[string]span{"a": open}, running: true},
		"done":        {entries: []entry{beginning(0, 0), {Kind: kindReady}, sending, {Kind: kindDone, Stream: "a", Copied: 8}}, a: 20, b: 10, c: 10, copied: 8, running: true},
		"ended":       {entries: []entry{beginning(0, 1), sending, {Kind: kindReady}, {Kind: kindAlive}, {Kind: kindKeep, Held: map[string]int64{"a": 10}}, {Kind: kindEnd, Streams: 1, Copied: 9}}, a: 10, b: 20, c: 20, copied: 9, spans: map[string]span{"a": open}},
		"stopped":     {entries: []entry{beginning(0, 0), {Kind: kindReady}, {Kind: kindStopped}}, a: 10, b: 10, c: 10, copied: 5, running: true},
		"unready":     {entries: []entry{beginning(0, 0)}, err: "was not finished"},
		"empty":       {err: "was not finished"},
		"short":       {entries: []entry{beginning(1, 0), {Kind: kindReady}}, err: "does not hold what it began with"},
		"kept":        {entries: []entry{beginning(0, 0), {Kind: kindReady}, {Kind: kindEnd, Streams: 1}}, err: "ends without the streams it keeps"},
		"no begin":    {entries: []entry{{Kind: kindReady}}, err: "entry 1 of the journal is a ready"},
		"begin later": {entries: []entry{beginning(0, 0), beginning(0, 0)}, err: "entry 2 of the journal is a begin"},
		"unknown":     {entries: []entry{beginning(0, 0), {Kind: "x"}}, err: "unknown kind"},
	} {
		entries := numbered(test.entries...)
		if len(entries) > 0 { // in any order, one of them twice
			entries = append(entries, entries[len(entries)-1])
			rand.Shuffle(len(entries), func(i, j int) { entries[i], entries[j] = entries[j], entries[i] })
		}
		s, err := fold(entries)
		if test.err != "" {
			require.ErrorContains(t, err, test.err, name)
			continue
		}
		require.NoError(t, err, name)
		require.Equal(t, []int64{test.a, test.b, test.c, test.copied}, []int64{s.replayed("a"), s.replayed("b"), s.replayed("c"), s.copied}, name)
		if test.spans == nil {
			test.spans = map[string]span{}
		}
		require.Equal(t, test.spans, s.spans, name)
		require.Equal(t, test.running, s.replay != "", name)
	}
	gap := numbered(beginning(0, 0), entry{Kind: kindReady}, sending)
	_, err := fold([]entry{gap[0], gap[2]})
	require.ErrorContains(t, err, "entry 2 of the journal is missing")
	other := gap[2]
	other.To++
	_, err = fold(append(gap, other))
	require.ErrorContains(t, err, "entry 3 of the journal is there twice, and differs")
}

func TestJournalStreamsAreNumberedAndNoContainersAre(t *testing.T) {
	require.Equal(t, 12, journalNumber(journalStream(12)))
	for _, s := range []string{"", "$replay/", "$replay/1", "$replay/0000000000", "$replay/-000000001", "$replay/00000000001x", "tenant-a/p/c", "_replay"} {
		require.Zero(t, journalNumber(s), s)
	}
}

// What a state begins a stream of the journal with is the state again.
func FuzzJournal(f *testing.F) {
	for _, e := range numbered(beginning(0, 0), entry{Kind: kindSending, Stream: "a"}, entry{Kind: kindDone, Stream: "a"}, entry{Kind: kindEnd}) {
		text, err := json.Marshal(e)
		require.NoError(f, err)
		f.Add(string(text), string(text))
	}
	f.Add(`{"v":2}`, `{}`)
	f.Fuzz(func(t *testing.T, first, second string) {
		var entries []entry
		for _, s := range []string{first, second} {
			e, err := parseEntry(s)
			if err != nil {
				continue
			}
			text, err := json.Marshal(e)
			if err != nil {
				t.Fatal(err)
			}
			again, err := parseEntry(string(text))
			if err != nil {
				t.Fatalf("%s was read, %s is not: %v", s, text, err)
			}
			if string(text) != string(must(json.Marshal(again))) {
				t.Fatalf("%s changes", text)
			}
			entries = append(entries, e)
		}
		s, err := fold(append(numbered(beginning(0, 0), entry{Kind: kindReady}), entries...))
		if err != nil {
			return
		}
		twice, err := fold(numbered(append(s.begin(strings.Repeat("r", idLength), "", 99), entry{Kind: kindReady})...))
		if err != nil {
			t.Fatal(err)
		}
		require.Equal(t, s.base, twice.base)
		require.Equal(t, s.held, twice.held)
		require.Equal(t, s.spans, twice.spans)
		require.Equal(t, s.copied, twice.copied)
	})
}

func must(b []byte, err error) []byte {
	if err != nil {
		panic(err)
	}
	return b
}
