package fakeaws_test

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	logs "github.com/aws/aws-sdk-go-v2/service/cloudwatchlogs"
	"github.com/aws/aws-sdk-go-v2/service/cloudwatchlogs/types"
	"github.com/stretchr/testify/require"

	"github.com/eks-tenant-logs/eks-tenant-logs/internal/fakeaws"
)

var noon = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

func atNoon() fakeaws.Config { return fakeaws.Config{Clock: func() time.Time { return noon }} }

// same returns n events of one moment and one message.
func same(n int, message string) []types.InputLogEvent {
	events := make([]types.InputLogEvent, n)
	for i := range events {
		events[i] = event(noon, message)
	}
	return events
}

func TestPutLogEventsLimits(t *testing.T) {
	const overhead = 26
	const maxMessage = 1_048_576 - overhead
	ms := time.Millisecond
	for name, c := range map[string]struct {
		events []types.InputLogEvent
		text   string // "" when it is taken
	}{
		"1 event":                         {same(1, "m"), ""},
		"no event":                        {[]types.InputLogEvent{}, "greater than or equal to 1"},
		"9,999 events":                    {same(9_999, "m"), ""},
		"10,000 events":                   {same(10_000, "m"), ""},
		"10,001 events":                   {same(10_001, "m"), "less than or equal to 10000"},
		"a message one byte short":        {same(1, strings.Repeat("m", maxMessage-1)), ""},
		"a message of the limit":          {same(1, strings.Repeat("m", maxMessage)), ""},
		"a message one byte over":         {same(1, strings.Repeat("m", maxMessage+1)), "Log event too large: 1048577 bytes exceeds limit of 1048576"},
		"the limit in 2-byte characters":  {same(1, strings.Repeat("é", maxMessage/2)), ""},
		"one such character more":         {same(1, strings.Repeat("é", maxMessage/2+1)), "Log event too large"},
		"the limit in escaped characters": {same(1, strings.Repeat("\x01", maxMessage)), ""},
		"a batch one byte short":          {append(same(1, "m"), same(1, strings.Repeat("m", maxMessage-overhead-2))...), ""},
		"a batch of the limit":            {append(same(1, "m"), same(1, strings.Repeat("m", maxMessage-overhead-1))...), ""},
		"a batch one byte over":           {append(same(1, "m"), same(1, strings.Repeat("m", maxMessage-overhead))...), "Upload too large: 1048577 bytes exceeds limit of 1048576"},
		"an empty message":                {append(same(2, "m"), event(noon, "")), "Value '' at 'logEvents.3.member.message' failed to satisfy constraint: Member must have length greater than or equal to 1"},
		"equal times":                     {same(2, "m"), ""},
		"times out of order":              {[]types.InputLogEvent{event(noon, "a"), event(noon.Add(-ms), "b")}, "Log events in a single PutLogEvents request must be in chronological order."},
		"a span just under 24 h":          {[]types.InputLogEvent{event(noon.Add(-24*time.Hour+ms), "a"), event(noon, "b")}, ""},
		"a span of 24 h":                  {[]types.InputLogEvent{event(noon.Add(-24*time.Hour), "a"), event(noon, "b")}, ""},
		"a span just over 24 h":           {[]types.InputLogEvent{event(noon.Add(-24*time.Hour-ms), "a"), event(noon, "b")}, "cannot span more than 24 hours"},
		"a negative time":                 {[]types.InputLogEvent{event(time.UnixMilli(-1), "a")}, "Value '-1' at 'logEvents.1.member.timestamp'"},
	} {
		t.Run(name, func(t *testing.T) {
			f := withStream(t, atNoon())
			out, err := f.put(t.Context(), "g", "s", c.events...)
			if c.text != "" {
				requireCode(t, err, "InvalidParameterException", c.text)
				require.Empty(t, f.Events("g", "s"))
				return
			}
			require.NoError(t, err)
			require.Nil(t, out.RejectedLogEventsInfo)
			require.NotEmpty(t, out.NextSequenceToken)
			stored := f.Events("g", "s")
			require.Len(t, stored, len(c.events))
			var bytes int64
			for i, e := range stored {
				require.Equal(t, fakeaws.Event{Timestamp: *c.events[i].Timestamp, IngestionTime: noon.UnixMilli(), Message: *c.events[i].Message}, e)
				bytes += int64(len(e.Message)) + overhead
			}
			require.Equal(t, bytes, f.Groups()[0].StoredBytes)
		})
	}
}

func TestPutLogEventsRejects(t *testing.T) {
	ms, day := time.Millisecond, 24*time.Hour
	index := func(i int32) *int32 { return &i }
	for name, c := range map[string]struct {
		retention int32
		ages      []time.Duration // before now; negative is ahead
		want      *types.RejectedLogEventsInfo
		kept      []int
	}{
		"none at 14 days":                 {0, []time.Duration{14 * day}, nil, []int{0}},
		"older than 14 days":              {0, []time.Duration{14*day + ms, 14*day + ms, 14 * day}, &types.RejectedLogEventsInfo{TooOldLogEventEndIndex: index(2)}, []int{2}},
		"all older than 14 days":          {0, []time.Duration{15 * day}, &types.RejectedLogEventsInfo{TooOldLogEventEndIndex: index(1)}, nil},
		"none at 2 hours ahead":           {0, []time.Duration{0, -2 * time.Hour}, nil, []int{0, 1}},
		"more than 2 hours ahead":         {0, []time.Duration{0, -2 * time.Hour, -2*time.Hour - ms, -3 * time.Hour}, &types.RejectedLogEventsInfo{TooNewLogEventStartIndex: index(2)}, []int{0, 1}},
		"all too new":                     {0, []time.Duration{-3 * time.Hour}, &types.RejectedLogEventsInfo{TooNewLogEventStartIndex: index(0)}, nil},
		"none at the retention's end":     {1, []time.Duration{day}, nil, []int{0}},
		"older than the retention":        {1, []time.Duration{day + ms, day, time.Hour}, &types.RejectedLogEventsInfo{ExpiredLogEventEndIndex: index(1)}, []int{1, 2}},
		"too old and expired":             {7, []time.Duration{20 * day, 14*day + ms, 13*day + 12*time.Hour}, &types.RejectedLogEventsInfo{TooOldLogEventEndIndex: index(2), ExpiredLogEventEndIndex: index(3)}, nil},
		"a longer retention helps none":   {365, []time.Duration{15 * day, 0}, &types.RejectedLogEventsInfo{TooOldLogEventEndIndex: index(1)}, []int{1}},
		"too old and too new in one":      {0, []time.Duration{15 * day, time.Hour, -3 * time.Hour}, &types.RejectedLogEventsInfo{TooOldLogEventEndIndex: index(1), TooNewLogEventStartIndex: index(2)}, []int{1}},
		"the span counts valid ones only": {0, []time.Duration{20 * day, 15 * day, 0}, &types.RejectedLogEventsInfo{TooOldLogEventEndIndex: index(2)}, []int{2}},
	} {
		t.Run(name, func(t *testing.T) {
			f := withStream(t, atNoon())
			if c.retention > 0 {
				_, err := f.client.PutRetentionPolicy(t.Context(), &logs.PutRetentionPolicyInput{LogGroupName: aws.String("g"), RetentionInDays: &c.retention})
				require.NoError(t, err)
			}
			var events []types.InputLogEvent
			for i, age := range c.ages {
				events = append(events, event(noon.Add(-age), fmt.Sprint("message ", i)))
			}
			out, err := f.put(t.Context(), "g", "s", events...)
			require.NoError(t, err)
			require.Equal(t, c.want, out.RejectedLogEventsInfo)
			var kept []int
			for _, e := range f.Events("g", "s") {
				var i int
				_, err := fmt.Sscanf(e.Message, "message %d", &i)
				require.NoError(t, err)
				kept = append(kept, i)
			}
			require.Equal(t, c.kept, kept)
		})
	}
}

func TestPutLogEventsNeedsGroupAndStream(t *testing.T) {
	f := withStream(t, fakeaws.Config{})
	_, err := f.put(t.Context(), "none", "s", event(time.Now(), "m"))
	requireCode(t, err, "ResourceNotFoundException", "The specified log group does not exist.")
	_, err = f.put(t.Context(), "g", "none", event(time.Now(), "m"))
	requireCode(t, err, "ResourceNotFoundException", "The specified log stream does not exist.")

	a := f.send(t, raw{operation: "PutLogEvents", body: `{}`})
	require.Equal(t, "InvalidParameterException", a.code)
	require.Equal(t, "3 validation errors detected: Value null at 'logGroupName' failed to satisfy constraint: Member must not be null; "+
		"Value null at 'logStreamName' failed to satisfy constraint: Member must not be null; "+
		"Value null at 'logEvents' failed to satisfy constraint: Member must not be null", a.text)
	a = f.send(t, raw{operation: "PutLogEvents", body: `{"logGroupName":"g","logStreamName":"s","logEvents":[{}]}`})
	require.Contains(t, a.text, "Value null at 'logEvents.1.member.timestamp'")
	require.Contains(t, a.text, "Value null at 'logEvents.1.member.message'")
}

func TestPutLogEventsTakesOldMembers(t *testing.T) {
	f := withStream(t, fakeaws.Config{})
	out, err := f.client.PutLogEvents(t.Context(), &logs.PutLogEventsInput{
		LogGroupName: aws.String("g"), LogStreamName: aws.String("s"), SequenceToken: aws.String("wrong"),
		Entity:    &types.Entity{KeyAttributes: map[string]string{"Type": "Service", "Name": "n"}, Attributes: map[string]string{"K8s.Node": "x"}},
		LogEvents: []types.InputLogEvent{event(time.Now(), "m")},
	})
	require.NoError(t, err)
	require.Nil(t, out.RejectedEntityInfo)
	out, err = f.client.PutLogEvents(t.Context(), &logs.PutLogEventsInput{
		LogGroupName: aws.String("g"), LogStreamName: aws.String("s"), Entity: &types.Entity{}, LogEvents: []types.InputLogEvent{event(time.Now(), "m")},
	})
	require.NoError(t, err)
	require.EqualValues(t, "MissingRequiredFields", out.RejectedEntityInfo.ErrorType)
	require.Len(t, f.Events("g", "s"), 2)
}

func zip(t testing.TB, s string) string {
	t.Helper()
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	_, err := w.Write([]byte(s))
	require.NoError(t, err)
	require.NoError(t, w.Close())
	return b.String()
}

func TestBodies(t *testing.T) {
	f := withStream(t, fakeaws.Config{})
	good := fmt.Sprintf(`{"logGroupName":"g","logStreamName":"s","logEvents":[{"timestamp":%d,"message":"m"}]}`, time.Now().UnixMilli())
	encoding := func(names ...string) func(*http.Request) {
		return func(r *http.Request) { r.Header["Content-Encoding"] = names }
	}
	zipped := zip(t, good)
	const limit = 10 << 20
	for name, c := range map[string]struct {
		raw
		status int
		code   string
	}{
		"plain":                           {raw{body: good}, 200, ""},
		"gzip":                            {raw{body: zipped, before: encoding("gzip")}, 200, ""},
		"gzip that is none":               {raw{body: good, before: encoding("gzip")}, 400, "SerializationException"},
		"gzip cut short":                  {raw{body: zipped[:len(zipped)-1], before: encoding("gzip")}, 400, "SerializationException"},
		"gzip with a wrong checksum":      {raw{body: zipped[:len(zipped)-8] + "\x00\x00\x00\x00" + zipped[len(zipped)-4:], before: encoding("gzip")}, 400, "SerializationException"},
		"gzip with something behind it":   {raw{body: zipped + "x", before: encoding("gzip")}, 400, "SerializationException"},
		"gzip that nobody announced":      {raw{body: zipped}, 400, "SerializationException"},
		"gzip twice":                      {raw{body: zipped, before: encoding("gzip", "gzip")}, 400, "SerializationException"},
		"another encoding":                {raw{body: good, before: encoding("zstd")}, 400, "SerializationException"},
		"gzip of the limit":               {raw{body: zip(t, good+strings.Repeat(" ", limit-len(good))), before: encoding("gzip")}, 200, ""},
		"gzip that grows beyond it":       {raw{body: zip(t, good+strings.Repeat(" ", limit-len(good)+1)), before: encoding("gzip")}, 413, "RequestEntityTooLargeException"},
		"plain of the limit":              {raw{body: good + strings.Repeat(" ", limit-len(good))}, 200, ""},
		"plain beyond it":                 {raw{body: good + strings.Repeat(" ", limit-len(good)+1)}, 413, "RequestEntityTooLargeException"},
		"an empty body":                   {raw{body: ""}, 400, "SerializationException"},
		"no JSON":                         {raw{body: "x"}, 400, "SerializationException"},
		"an unknown member":               {raw{body: `{"x":1,` + good[1:]}, 400, "SerializationException"},
		"an unknown operation":            {raw{operation: "StartQuery", body: "{}"}, 400, "UnknownOperationException"},
		"another content type":            {raw{body: good, before: func(r *http.Request) { r.Header.Set("Content-Type", "application/json") }}, 404, "UnknownOperationException"},
		"another target":                  {raw{body: good, before: func(r *http.Request) { r.Header.Set("X-Amz-Target", "PutLogEvents") }}, 400, "UnknownOperationException"},
		"another path":                    {raw{body: good, before: func(r *http.Request) { r.URL.Path = "/x" }}, 404, "UnknownOperationException"},
		"a misspelt member elsewhere":     {raw{operation: "CreateLogStream", body: `{"loggroupname":"g"}`}, 400, "SerializationException"},
		"a member of another kind":        {raw{operation: "CreateLogStream", body: `{"logGroupName":5}`}, 400, "SerializationException"},
		"a list for a map":                {raw{operation: "CreateLogGroup", body: `{"tags":[]}`}, 400, "SerializationException"},
		"a text for a flag":               {raw{operation: "DescribeLogStreams", body: `{"descending":"true"}`}, 400, "SerializationException"},
		"a text with invalid UTF-8":       {raw{operation: "CreateLogStream", body: "{\"logGroupName\":\"g\",\"logStreamName\":\"\xff\"}"}, 400, "SerializationException"},
		"a body that nests without bound": {raw{operation: "CreateLogStream", body: `{"x":` + strings.Repeat("[", 100_000)}, 400, "SerializationException"},
	} {
		t.Run(name, func(t *testing.T) {
			if c.operation == "" {
				c.operation = "PutLogEvents"
			}
			a := f.send(t, c.raw)
			require.Equal(t, c.status, a.status, a.text)
			require.Equal(t, c.code, a.code, a.text)
		})
	}

	lenient := withStream(t, fakeaws.Config{AllowUnknownMembers: true})
	require.Equal(t, 200, lenient.send(t, raw{operation: "PutLogEvents", body: `{"x":[{"y":1e5}],` + good[1:]}).status)
	require.Equal(t, 200, lenient.send(t, raw{operation: "DescribeLogGroups", body: `{"x":null}`}).status)
	require.Equal(t, "SerializationException", lenient.send(t, raw{operation: "CreateLogStream", body: `{"x":` + strings.Repeat("[", 100_000)}).code)
	require.Equal(t, "SerializationException", lenient.send(t, raw{operation: "DescribeLogGroups", body: `{"x":01}`}).code)
}

func TestParallelPutsLoseNothing(t *testing.T) {
	f := withStream(t, fakeaws.Config{})
	now := time.Now()
	const writers, puts, perPut = 8, 20, 10
	var wg sync.WaitGroup
	errs := make(chan error, writers*puts)
	for w := range writers {
		wg.Go(func() {
			for p := range puts {
				var events []types.InputLogEvent
				for i := range perPut {
					events = append(events, event(now.Add(time.Duration(i)*time.Millisecond), fmt.Sprintf("%d/%d/%d", w, p, i)))
				}
				_, err := f.put(t.Context(), "g", "s", events...)
				errs <- err
				f.Events("g", "s")
			}
		})
	}
	wg.Wait()
	close(errs)
	for err := range errs {
		require.NoError(t, err)
	}
	seen := map[string]bool{}
	last := int64(0)
	for _, e := range f.Events("g", "s") {
		require.False(t, seen[e.Message], e.Message)
		seen[e.Message] = true
		require.LessOrEqual(t, last, e.Timestamp)
		last = e.Timestamp
	}
	require.Len(t, seen, writers*puts*perPut)
	require.Equal(t, writers*puts, f.Calls()[fakeaws.CallKey{Operation: "PutLogEvents", Result: "OK"}])
}
