package fakeaws_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	logs "github.com/aws/aws-sdk-go-v2/service/cloudwatchlogs"
	"github.com/aws/aws-sdk-go-v2/service/cloudwatchlogs/types"
	"github.com/stretchr/testify/require"

	"github.com/eks-tenant-logs/eks-tenant-logs/internal/fakeaws"
)

func TestLogStreams(t *testing.T) {
	f := start(t, atNoon())
	f.createGroup(t, "g")
	create := func(group, stream string) error {
		_, err := f.client.CreateLogStream(t.Context(), &logs.CreateLogStreamInput{LogGroupName: &group, LogStreamName: &stream})
		return err
	}
	require.NoError(t, create("g", strings.Repeat("s", 512)))
	require.NoError(t, create("g", "ns/pod/ü ?"))
	requireCode(t, create("g", strings.Repeat("s", 513)), "InvalidParameterException", "less than or equal to 512")
	requireCode(t, create("g", ""), "InvalidParameterException", "greater than or equal to 1")
	requireCode(t, create("g", "a:b"), "InvalidParameterException", "[^:*]*")
	requireCode(t, create("g", "a*"), "InvalidParameterException", "[^:*]*")
	requireCode(t, create("g", "ns/pod/ü ?"), "ResourceAlreadyExistsException", "The specified log stream already exists")
	requireCode(t, create("none", "s"), "ResourceNotFoundException", "The specified log group does not exist.")
}

func TestDescribeLogStreams(t *testing.T) {
	f := start(t, atNoon())
	f.createGroup(t, "g")
	for i, s := range []string{"a/1", "a/2", "b/1", "empty"} {
		f.createStream(t, "g", s)
		if s != "empty" {
			_, err := f.put(t.Context(), "g", s, event(noon.Add(-time.Duration(i)*time.Hour-time.Minute), "first"), event(noon.Add(-time.Duration(i)*time.Hour), "last"))
			require.NoError(t, err)
		}
	}
	all := func(in logs.DescribeLogStreamsInput, limit int32) (names []string) {
		p := logs.NewDescribeLogStreamsPaginator(f.client, &in, func(o *logs.DescribeLogStreamsPaginatorOptions) { o.Limit = limit })
		for p.HasMorePages() {
			out, err := p.NextPage(t.Context())
			require.NoError(t, err)
			require.LessOrEqual(t, len(out.LogStreams), int(limit))
			for _, s := range out.LogStreams {
				names = append(names, *s.LogStreamName)
			}
		}
		return names
	}
	for _, limit := range []int32{1, 3, 50} {
		require.Equal(t, []string{"a/1", "a/2", "b/1", "empty"}, all(logs.DescribeLogStreamsInput{LogGroupName: aws.String("g")}, limit))
		require.Equal(t, []string{"empty", "b/1", "a/2", "a/1"}, all(logs.DescribeLogStreamsInput{LogGroupIdentifier: aws.String(groupARN("g")), Descending: aws.Bool(true)}, limit))
		require.Equal(t, []string{"a/1", "a/2"}, all(logs.DescribeLogStreamsInput{LogGroupName: aws.String("g"), LogStreamNamePrefix: aws.String("a/")}, limit))
		require.Equal(t, []string{"a/1", "a/2", "b/1", "empty"}, all(logs.DescribeLogStreamsInput{LogGroupName: aws.String("g"), OrderBy: "LastEventTime", Descending: aws.Bool(true)}, limit))
	}
	out, err := f.client.DescribeLogStreams(t.Context(), &logs.DescribeLogStreamsInput{LogGroupName: aws.String("g"), Limit: aws.Int32(2)})
	require.NoError(t, err)
	s := out.LogStreams[1]
	require.Equal(t, groupARN("g")+":log-stream:a/2", *s.Arn)
	require.Equal(t, noon.Add(-time.Hour-time.Minute).UnixMilli(), *s.FirstEventTimestamp)
	require.Equal(t, noon.Add(-time.Hour).UnixMilli(), *s.LastEventTimestamp)
	require.Equal(t, noon.UnixMilli(), *s.LastIngestionTime)
	require.Equal(t, noon.UnixMilli(), *s.CreationTime)
	require.NotEmpty(t, *s.UploadSequenceToken)

	for name, c := range map[string]struct {
		in         logs.DescribeLogStreamsInput
		code, text string
	}{
		"limit 0":                 {logs.DescribeLogStreamsInput{LogGroupName: aws.String("g"), Limit: aws.Int32(0)}, "InvalidParameterException", "limit"},
		"limit 51":                {logs.DescribeLogStreamsInput{LogGroupName: aws.String("g"), Limit: aws.Int32(51)}, "InvalidParameterException", "limit"},
		"no group named":          {logs.DescribeLogStreamsInput{}, "InvalidParameterException", "either"},
		"a group named twice":     {logs.DescribeLogStreamsInput{LogGroupName: aws.String("g"), LogGroupIdentifier: aws.String("g")}, "InvalidParameterException", "either"},
		"a prefix, ordered by ti": {logs.DescribeLogStreamsInput{LogGroupName: aws.String("g"), LogStreamNamePrefix: aws.String("a"), OrderBy: "LastEventTime"}, "InvalidParameterException", "Cannot order by LastEventTime with a logStreamNamePrefix."},
		"an unknown order":        {logs.DescribeLogStreamsInput{LogGroupName: aws.String("g"), OrderBy: "Size"}, "InvalidParameterException", "enum"},
		"another query's token":   {logs.DescribeLogStreamsInput{LogGroupName: aws.String("g"), Descending: aws.Bool(true), NextToken: out.NextToken}, "InvalidParameterException", "nextToken"},
		"no such group":           {logs.DescribeLogStreamsInput{LogGroupName: aws.String("none")}, "ResourceNotFoundException", "group"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := f.client.DescribeLogStreams(t.Context(), &c.in)
			requireCode(t, err, c.code, c.text)
		})
	}
}

// fill puts events "00".."24", a second apart, in an order that mixes puts; it returns their messages in reading order.
func (f *fixture) fill(t testing.TB, group, stream string) (want []string) {
	t.Helper()
	for i := range 25 {
		want = append(want, fmt.Sprintf("%02d", i))
	}
	for _, odd := range []int{1, 0} {
		var events []types.InputLogEvent
		for i := odd; i < 25; i += 2 {
			events = append(events, event(noon.Add(time.Duration(i)*time.Second), want[i]))
		}
		_, err := f.put(t.Context(), group, stream, events...)
		require.NoError(t, err)
	}
	return want
}

func messages(events []types.OutputLogEvent) (m []string) {
	for _, e := range events {
		m = append(m, *e.Message)
	}
	return m
}

func TestGetLogEvents(t *testing.T) {
	f := withStream(t, atNoon())
	want := f.fill(t, "g", "s")
	get := func(change func(*logs.GetLogEventsInput)) *logs.GetLogEventsOutput {
		in := &logs.GetLogEventsInput{LogGroupName: aws.String("g"), LogStreamName: aws.String("s")}
		change(in)
		out, err := f.client.GetLogEvents(t.Context(), in)
		require.NoError(t, err)
		return out
	}
	require.Equal(t, want, messages(get(func(*logs.GetLogEventsInput) {}).Events))
	at := func(second int) *int64 { return aws.Int64(noon.UnixMilli() + int64(second)*1000) }
	require.Equal(t, want[3:7], messages(get(func(in *logs.GetLogEventsInput) { in.StartTime, in.EndTime = at(3), at(7) }).Events))
	require.Empty(t, get(func(in *logs.GetLogEventsInput) { in.StartTime, in.EndTime = at(7), at(3) }).Events)

	for _, limit := range []int32{1, 7, 25, 26} {
		// Forwards from the head to the end, where the token stays the same.
		var got []string
		out := get(func(in *logs.GetLogEventsInput) { in.StartFromHead, in.Limit = aws.Bool(true), &limit })
		for len(out.Events) > 0 {
			got = append(got, messages(out.Events)...)
			token := out.NextForwardToken
			out = get(func(in *logs.GetLogEventsInput) {
				in.StartFromHead, in.Limit, in.NextToken = aws.Bool(true), &limit, token
			})
		}
		require.Equal(t, want, got)
		require.Equal(t, *out.NextForwardToken, *get(func(in *logs.GetLogEventsInput) { in.NextToken = out.NextForwardToken }).NextForwardToken)

		// Backwards from the tail.
		got = nil
		out = get(func(in *logs.GetLogEventsInput) { in.Limit = &limit })
		for len(out.Events) > 0 {
			got = append(messages(out.Events), got...)
			token := out.NextBackwardToken
			out = get(func(in *logs.GetLogEventsInput) { in.Limit, in.NextToken = &limit, token })
		}
		require.Equal(t, want, got)
		require.Equal(t, *out.NextBackwardToken, *get(func(in *logs.GetLogEventsInput) { in.NextToken = out.NextBackwardToken }).NextBackwardToken)
	}

	// A forward token finds what came after it was given.
	end := get(func(in *logs.GetLogEventsInput) { in.StartFromHead = aws.Bool(true) }).NextForwardToken
	_, err := f.put(t.Context(), "g", "s", event(noon.Add(time.Hour), "later"))
	require.NoError(t, err)
	require.Equal(t, []string{"later"}, messages(get(func(in *logs.GetLogEventsInput) { in.NextToken = end }).Events))

	f.createStream(t, "g", "empty")
	empty := get(func(in *logs.GetLogEventsInput) { in.LogStreamName = aws.String("empty") })
	require.Empty(t, empty.Events)
	require.NotNil(t, empty.NextForwardToken)
	require.NotNil(t, empty.NextBackwardToken)

	_, err = f.client.CreateLogGroup(t.Context(), &logs.CreateLogGroupInput{LogGroupName: aws.String("ia"), LogGroupClass: "INFREQUENT_ACCESS"})
	require.NoError(t, err)
	f.createStream(t, "ia", "s")
	for name, c := range map[string]struct {
		in         logs.GetLogEventsInput
		code, text string
	}{
		"limit 0":       {logs.GetLogEventsInput{LogGroupName: aws.String("g"), LogStreamName: aws.String("s"), Limit: aws.Int32(0)}, "InvalidParameterException", "limit"},
		"limit 10,001":  {logs.GetLogEventsInput{LogGroupName: aws.String("g"), LogStreamName: aws.String("s"), Limit: aws.Int32(10_001)}, "InvalidParameterException", "limit"},
		"no group":      {logs.GetLogEventsInput{LogStreamName: aws.String("s")}, "InvalidParameterException", "either"},
		"a bad token":   {logs.GetLogEventsInput{LogGroupName: aws.String("g"), LogStreamName: aws.String("s"), NextToken: aws.String("f/1")}, "InvalidParameterException", "nextToken"},
		"another group": {logs.GetLogEventsInput{LogGroupName: aws.String("x"), LogStreamName: aws.String("s")}, "ResourceNotFoundException", "log group"},
		"another":       {logs.GetLogEventsInput{LogGroupIdentifier: aws.String(groupARN("g")), LogStreamName: aws.String("x")}, "ResourceNotFoundException", "log stream"},
		"another class": {logs.GetLogEventsInput{LogGroupName: aws.String("ia"), LogStreamName: aws.String("s")}, "InvalidParameterException", "class"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := f.client.GetLogEvents(t.Context(), &c.in)
			requireCode(t, err, c.code, c.text)
		})
	}
	_, err = f.client.GetLogEvents(t.Context(), &logs.GetLogEventsInput{LogGroupName: aws.String("g"), LogStreamName: aws.String("s"), Limit: aws.Int32(10_000)})
	require.NoError(t, err)
}

func TestGetLogEventsKeepsArrivalOrderOfEqualTimes(t *testing.T) {
	f := withStream(t, atNoon())
	for i := range 5 {
		_, err := f.put(t.Context(), "g", "s", event(noon, fmt.Sprint(i, "a")), event(noon, fmt.Sprint(i, "b")))
		require.NoError(t, err)
	}
	out, err := f.client.GetLogEvents(t.Context(), &logs.GetLogEventsInput{LogGroupName: aws.String("g"), LogStreamName: aws.String("s")})
	require.NoError(t, err)
	require.Equal(t, []string{"0a", "0b", "1a", "1b", "2a", "2b", "3a", "3b", "4a", "4b"}, messages(out.Events))
}

func TestPagesHoldOneMegabyte(t *testing.T) {
	f := withStream(t, atNoon())
	const half = 1<<19 - 26 // two events fill a page to the byte
	for i, size := range []int{half, half, half, half + 1, half} {
		_, err := f.put(t.Context(), "g", "s", event(noon.Add(time.Duration(i)*time.Second), strings.Repeat("m", size)))
		require.NoError(t, err)
	}
	var sizes []int
	in := &logs.GetLogEventsInput{LogGroupName: aws.String("g"), LogStreamName: aws.String("s"), StartFromHead: aws.Bool(true)}
	for {
		out, err := f.client.GetLogEvents(t.Context(), in)
		require.NoError(t, err)
		if len(out.Events) == 0 {
			break
		}
		sizes = append(sizes, len(out.Events))
		in.NextToken = out.NextForwardToken
	}
	require.Equal(t, []int{2, 1, 1, 1}, sizes)

	sizes = nil
	p := logs.NewFilterLogEventsPaginator(f.client, &logs.FilterLogEventsInput{LogGroupName: aws.String("g")})
	for p.HasMorePages() {
		out, err := p.NextPage(t.Context())
		require.NoError(t, err)
		sizes = append(sizes, len(out.Events))
	}
	require.Equal(t, []int{2, 1, 1, 1}, sizes)
}

func TestFilterLogEvents(t *testing.T) {
	f := start(t, atNoon())
	f.createGroup(t, "g")
	var want []string
	for i, s := range []string{"a/1", "a/2", "b"} {
		f.createStream(t, "g", s)
		var events []types.InputLogEvent
		for j := range 7 {
			events = append(events, event(noon.Add(time.Duration(j)*time.Second), fmt.Sprintf(`{"n":%d,"s":"%s"}`, i, s)))
		}
		_, err := f.put(t.Context(), "g", s, events...)
		require.NoError(t, err)
	}
	for j := range 7 {
		for _, s := range []string{"a/1", "a/2", "b"} {
			want = append(want, fmt.Sprint(j, s))
		}
	}
	all := func(in logs.FilterLogEventsInput, limit int32) (got []string) {
		in.LogGroupName = aws.String("g")
		ids := map[string]bool{}
		p := logs.NewFilterLogEventsPaginator(f.client, &in, func(o *logs.FilterLogEventsPaginatorOptions) { o.Limit = limit })
		for p.HasMorePages() {
			out, err := p.NextPage(t.Context())
			require.NoError(t, err)
			require.LessOrEqual(t, len(out.Events), int(limit))
			require.Empty(t, out.SearchedLogStreams)
			for _, e := range out.Events {
				require.False(t, ids[*e.EventId])
				ids[*e.EventId] = true
				require.Equal(t, noon.UnixMilli(), *e.IngestionTime)
				got = append(got, fmt.Sprint((*e.Timestamp-noon.UnixMilli())/1000, *e.LogStreamName))
			}
		}
		return got
	}
	only := func(suffix string) (out []string) {
		for _, w := range want {
			if strings.HasSuffix(w, suffix) {
				out = append(out, w)
			}
		}
		return out
	}
	for _, limit := range []int32{1, 4, 21, 10_000} {
		require.Equal(t, want, all(logs.FilterLogEventsInput{}, limit))
		reversed := slices.Clone(want)
		slices.Reverse(reversed)
		require.Equal(t, reversed, all(logs.FilterLogEventsInput{StartFromHead: aws.Bool(false), StartTime: aws.Int64(noon.UnixMilli())}, limit))
		require.Equal(t, only("b"), all(logs.FilterLogEventsInput{LogStreamNames: []string{"b"}}, limit))
		require.Equal(t, only("a/2"), all(logs.FilterLogEventsInput{LogStreamNamePrefix: aws.String("a/2")}, limit))
		require.Equal(t, only("a/2"), all(logs.FilterLogEventsInput{FilterPattern: aws.String(`{ $.s = "a/2" }`)}, limit))
		require.Equal(t, only("b"), all(logs.FilterLogEventsInput{FilterPattern: aws.String(`"\"n\":2"`)}, limit))
		// Both ends are included, other than with GetLogEvents.
		require.Equal(t, want[3:9], all(logs.FilterLogEventsInput{StartTime: aws.Int64(noon.UnixMilli() + 1000), EndTime: aws.Int64(noon.UnixMilli() + 2000)}, limit))
	}
	for name, c := range map[string]struct {
		in         logs.FilterLogEventsInput
		code, text string
	}{
		"limit 0":               {logs.FilterLogEventsInput{LogGroupName: aws.String("g"), Limit: aws.Int32(0)}, "InvalidParameterException", "limit"},
		"limit 10,001":          {logs.FilterLogEventsInput{LogGroupName: aws.String("g"), Limit: aws.Int32(10_001)}, "InvalidParameterException", "limit"},
		"names and prefix":      {logs.FilterLogEventsInput{LogGroupName: aws.String("g"), LogStreamNames: []string{"b"}, LogStreamNamePrefix: aws.String("b")}, "InvalidParameterException", "exclusive"},
		"101 streams":           {logs.FilterLogEventsInput{LogGroupName: aws.String("g"), LogStreamNames: slices.Repeat([]string{"b"}, 101)}, "InvalidParameterException", "100"},
		"a stream not there":    {logs.FilterLogEventsInput{LogGroupName: aws.String("g"), LogStreamNames: []string{"b", "x"}}, "ResourceNotFoundException", "stream"},
		"a group not there":     {logs.FilterLogEventsInput{LogGroupIdentifier: aws.String(groupARN("x"))}, "ResourceNotFoundException", "group"},
		"a pattern of 1,025":    {logs.FilterLogEventsInput{LogGroupName: aws.String("g"), FilterPattern: aws.String(strings.Repeat("p", 1025))}, "InvalidParameterException", "1024"},
		"an unknown pattern":    {logs.FilterLogEventsInput{LogGroupName: aws.String("g"), FilterPattern: aws.String("%x%")}, "InvalidParameterException", "unsupported"},
		"backwards from before": {logs.FilterLogEventsInput{LogGroupName: aws.String("g"), StartFromHead: aws.Bool(false)}, "InvalidParameterException", "2024"},
		"an invalid token":      {logs.FilterLogEventsInput{LogGroupName: aws.String("g"), NextToken: aws.String("x")}, "InvalidParameterException", "nextToken"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := f.client.FilterLogEvents(t.Context(), &c.in)
			requireCode(t, err, c.code, c.text)
		})
	}
	_, err := f.client.FilterLogEvents(t.Context(), &logs.FilterLogEventsInput{LogGroupName: aws.String("g"), LogStreamNames: slices.Repeat([]string{"b"}, 100)})
	require.NoError(t, err)
}

func TestDiscardMessages(t *testing.T) {
	f := withStream(t, fakeaws.Config{DiscardMessages: true})
	_, err := f.put(t.Context(), "g", "s", event(time.Now(), "four"))
	require.NoError(t, err)
	require.Empty(t, f.Events("g", "s"))
	g := f.Groups()[0]
	require.EqualValues(t, 1, g.Events)
	require.EqualValues(t, 30, g.StoredBytes)
	require.Equal(t, []fakeaws.Stream{{Name: "s", Events: 1, Bytes: 30}}, g.Streams)
}

func TestEventsAreReadOnlyAfterTheReadDelay(t *testing.T) {
	now := noon
	f := start(t, fakeaws.Config{Clock: func() time.Time { return now }, ReadDelay: time.Minute})
	f.createGroup(t, "g")
	f.createStream(t, "g", "s")
	_, err := f.put(t.Context(), "g", "s", event(noon, "first"))
	require.NoError(t, err)
	read := func() (n int) {
		out, err := f.client.GetLogEvents(t.Context(), &logs.GetLogEventsInput{LogGroupName: aws.String("g"), LogStreamName: aws.String("s")})
		require.NoError(t, err)
		found, err := f.client.FilterLogEvents(t.Context(), &logs.FilterLogEventsInput{LogGroupName: aws.String("g")})
		require.NoError(t, err)
		require.Len(t, found.Events, len(out.Events))
		return len(out.Events)
	}
	now = noon.Add(59 * time.Second)
	require.Zero(t, read())
	now = noon.Add(time.Minute)
	require.Equal(t, 1, read())
}
