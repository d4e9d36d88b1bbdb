package awsclient

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/cloudwatchlogs"
	"github.com/stretchr/testify/require"

	"github.com/eks-tenant-logs/eks-tenant-logs/internal/fakeaws"
)

// nodeClock is a machine's clock that tests set.
type nodeClock struct{ at time.Time }

func (n *nodeClock) now() time.Time         { return n.at }
func (n *nodeClock) passes(d time.Duration) { n.at = n.at.Add(d) }
func (n *nodeClock) date(ahead time.Duration) time.Time {
	return n.at.Add(-ahead).Truncate(time.Second)
}

// answered has an answer heard that took so long, by a node that is so far ahead of AWS.
func (n *nodeClock) answered(c *Clock, ahead, took time.Duration) {
	begun := c.elapsed()
	n.passes(took)
	c.heard(n.date(ahead), begun, c.elapsed())
}

// A step of the machine's clock is no step of AWS's: what is known of it holds, and no answer is needed.
func TestAMachinesClockThatIsSetChangesNothingOfAWSs(t *testing.T) {
	n := &nodeClock{at: time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)}
	c := NewClock(n.now)
	var passed time.Duration
	c.elapsed = func() time.Duration { return passed }
	const ahead = 2 * time.Hour
	c.heard(n.at.Add(-ahead), 0, 0)
	want := c.Now()
	n.at = n.at.Add(-ahead) // it is set right
	require.WithinDuration(t, want, c.Now(), 5*time.Second)
	require.Zero(t, c.Skew())
	n.at = n.at.Add(-15*24*time.Hour + time.Minute)
	passed = time.Minute
	require.WithinDuration(t, want.Add(time.Minute), c.Now(), 5*time.Second)
	require.InDelta(t, (-15 * 24 * time.Hour).Seconds(), c.Skew().Seconds(), 2)
}

func TestTheClockOfAWS(t *testing.T) {
	type answer struct{ ahead, took time.Duration }
	const ms = time.Millisecond
	for name, test := range map[string]struct {
		answers []answer
		want    time.Duration
	}{
		"before the first answer":                       {nil, 0},
		"clocks that agree":                             {[]answer{{0, 20 * ms}}, 0},
		"a difference that Date does not tell":          {[]answer{{3 * time.Second, 20 * ms}}, 0},
		"the first answer is believed":                  {[]answer{{2 * time.Hour, 20 * ms}}, 2 * time.Hour},
		"two weeks behind":                              {[]answer{{-14 * 24 * time.Hour, 20 * ms}}, -14 * 24 * time.Hour},
		"a slow answer is no skew":                      {[]answer{{0, 19 * time.Second}}, 0},
		"one that took longer tells nothing":            {[]answer{{time.Hour, time.Minute}}, 0},
		"one host that is wrong":                        {[]answer{{0, 20 * ms}, {time.Hour, 20 * ms}, {0, 20 * ms}, {time.Hour, 20 * ms}}, 0},
		"two in a row that tell another time":           {[]answer{{0, 20 * ms}, {time.Hour, 20 * ms}, {time.Hour, 20 * ms}}, time.Hour},
		"two that tell two other times":                 {[]answer{{0, 20 * ms}, {time.Hour, 20 * ms}, {-time.Hour, 20 * ms}}, 0},
		"a first answer that was wrong is put right":    {[]answer{{time.Hour, 20 * ms}, {0, 20 * ms}, {0, 20 * ms}}, 0},
		"a slow answer does not mend what is not known": {[]answer{{time.Hour, 20 * ms}, {time.Hour, 15 * time.Second}}, time.Hour},
	} {
		t.Run(name, func(t *testing.T) {
			n := &nodeClock{at: time.Date(2026, 3, 1, 12, 0, 0, 700e6, time.UTC)}
			c := NewClock(n.now)
			for _, a := range test.answers {
				n.answered(c, a.ahead, a.took)
				n.passes(time.Second)
			}
			require.InDelta(t, test.want.Seconds(), c.Skew().Seconds(), 2)
			require.WithinDuration(t, n.at.Add(-test.want), c.Now(), 2*time.Second)
			_, told := c.Told()
			require.Equal(t, len(test.answers) > 0 && test.answers[0].took < answerTimeout, told)
		})
	}
}

// Whatever answers take, and wherever in the call AWS reads its clock: what is told stays within
// what one answer can tell, and clocks that agree are not called skewed.
func TestTheClockOfAWSWithAnswersOfAnyLength(t *testing.T) {
	for seed := range uint64(200) {
		rng := rand.New(rand.NewPCG(seed, 1))
		skew := time.Duration(0)
		if seed%2 == 1 {
			skew = time.Duration(rng.Int64N(int64(60*24*time.Hour))) - 30*24*time.Hour
		}
		n := &nodeClock{at: time.Date(2026, 3, 1, 12, 0, 0, rng.IntN(1e9), time.UTC)}
		c := NewClock(n.now)
		first := time.Duration(0)
		for i := range 20 {
			took := time.Duration(rng.Int64N(int64(answerTimeout)))
			if i == 0 {
				first = took
			}
			begun := c.elapsed()
			read := n.at.Add(time.Duration(rng.Int64N(int64(took) + 1)))
			n.passes(took)
			c.heard(read.Add(-skew).Truncate(time.Second), begun, c.elapsed())
			n.passes(time.Duration(rng.Int64N(int64(time.Minute))))
			require.InDelta(t, skew.Seconds(), c.Skew().Seconds(), first.Seconds()/2+3.5, "seed %d", seed)
		}
		if skew == 0 {
			require.Zero(t, c.Skew(), "seed %d", seed)
		}
	}
}

func TestOnlyAnswersOfAWSTellItsTime(t *testing.T) {
	date := time.Now().Add(-time.Hour).UTC().Format(http.TimeFormat)
	for name, test := range map[string]struct {
		header http.Header
		want   bool
	}{
		"AWS's":               {http.Header{"X-Amzn-Requestid": {"x"}, "Date": {date}}, true},
		"a proxy's page":      {http.Header{"Date": {date}}, false},
		"a cached one":        {http.Header{"X-Amzn-Requestid": {"x"}, "Date": {date}, "Age": {"3600"}}, false},
		"none":                {http.Header{"X-Amzn-Requestid": {"x"}}, false},
		"one that is no date": {http.Header{"X-Amzn-Requestid": {"x"}, "Date": {"yesterday"}}, false},
	} {
		_, ok := awsDate(test.header)
		require.Equal(t, test.want, ok, name)
	}
}

// skewed is a client in front of a stand-in whose clock is behind this machine's.
func skewed(t *testing.T, ahead time.Duration) (*Client, *fakeaws.Server) {
	t.Helper()
	s := fakeaws.New(fakeaws.Config{})
	s.SetClockOffset(-ahead)
	url, err := s.Start("")
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, s.Close()) })
	for k, v := range map[string]string{
		"AWS_ACCESS_KEY_ID": fakeaws.DefaultAccessKeyID, "AWS_SECRET_ACCESS_KEY": fakeaws.DefaultSecretAccessKey, "AWS_SESSION_TOKEN": "",
		"AWS_PROFILE": "", "AWS_CONFIG_FILE": t.TempDir() + "/none", "AWS_SHARED_CREDENTIALS_FILE": t.TempDir() + "/none",
	} {
		t.Setenv(k, v)
	}
	c, err := New(context.Background(), Config{Region: "us-east-1", Endpoint: url, STSEndpoint: url})
	require.NoError(t, err)
	return c, s
}

func refusedSignatures(s *fakeaws.Server) (n int) {
	for k, calls := range s.Calls() {
		if k.Result == "InvalidSignatureException" || k.Result == "SignatureDoesNotMatch" {
			n += calls
		}
	}
	return n
}

func TestSignaturesSurviveASkewedClock(t *testing.T) {
	for _, ahead := range []time.Duration{2 * time.Hour, -2 * time.Hour, 15 * 24 * time.Hour, -15 * 24 * time.Hour} {
		t.Run(ahead.String(), func(t *testing.T) {
			c, s := skewed(t, ahead)
			ctx := context.Background()
			body := func() Body {
				at := c.Clock().Now().UnixMilli()
				return Body{Bytes: fmt.Appendf(nil, `{"logGroupName":"g","logStreamName":"s","logEvents":[{"timestamp":%d,"message":"m"}]}`, at)}
			}
			_, err := c.Put(ctx, "g", "s", body(), 1)
			require.Equal(t, ClassNotFound, Classify(err), "signed anew in the same call: %v", err)
			require.Equal(t, 1, refusedSignatures(s))
			group, stream := "g", "s"
			_, err = c.CreateLogGroup(ctx, &cloudwatchlogs.CreateLogGroupInput{LogGroupName: &group})
			require.NoError(t, err)
			_, err = c.CreateLogStream(ctx, &cloudwatchlogs.CreateLogStreamInput{LogGroupName: &group, LogStreamName: &stream})
			require.NoError(t, err)
			for range 5 {
				rejected, err := c.Put(ctx, group, stream, body(), 1)
				require.NoError(t, err)
				require.Zero(t, rejected)
			}
			_, err = c.As(Role{ARN: "arn:aws:iam::123456789012:role/r"}).Put(ctx, group, stream, body(), 1)
			require.NoError(t, err)
			require.Equal(t, 1, refusedSignatures(s), "of all calls: another identity, and STS, know the time already")
			require.InDelta(t, ahead.Seconds(), c.Clock().Skew().Seconds(), 5)

			// The clock is set right.
			s.SetClockOffset(0)
			_, err = c.Put(ctx, group, stream, Body{Bytes: fmt.Appendf(nil, `{"logGroupName":"g","logStreamName":"s","logEvents":[{"timestamp":%d,"message":"m"}]}`, time.Now().UnixMilli())}, 1)
			require.NoError(t, err)
			require.Zero(t, c.Clock().Skew())
			require.LessOrEqual(t, refusedSignatures(s), 3)
		})
	}
}

// A wrong key is refused with the same code, and is not tried again.
func TestAWrongKeyOnASkewedNodeIsRefusedAfterTwoCalls(t *testing.T) {
	c, s := skewed(t, 2*time.Hour)
	t.Setenv("AWS_SECRET_ACCESS_KEY", "another")
	wrong, err := New(context.Background(), Config{Region: "us-east-1", Endpoint: c.logs.URL})
	require.NoError(t, err)
	_, err = wrong.Put(context.Background(), "g", "s", Body{Bytes: []byte(`{}`)}, 1)
	require.Equal(t, ClassCredentials, Classify(err))
	require.Equal(t, 2, s.CallCount("PutLogEvents"))
}

func TestASessionLastsUntilAWSSaysSo(t *testing.T) {
	for _, ahead := range []time.Duration{2 * time.Hour, -2 * time.Hour, 15 * 24 * time.Hour, -15 * 24 * time.Hour} {
		t.Run(ahead.String(), func(t *testing.T) {
			c, s := skewed(t, ahead)
			ctx := context.Background()
			role := c.As(Role{ARN: "arn:aws:iam::123456789012:role/r"})
			calls := func() {
				for range 20 {
					_, err := role.DescribeLogGroups(ctx, &cloudwatchlogs.DescribeLogGroupsInput{})
					require.NoError(t, err)
				}
			}
			calls()
			require.Len(t, s.AssumedRoles(), 1)
			// An hour and more later, here as well; two answers are needed to be believed.
			role.identity.mu.Lock()
			role.identity.asked = time.Time{}
			role.identity.mu.Unlock()
			s.SetClockOffset(-ahead + 61*time.Minute)
			_, _ = c.DescribeLogGroups(ctx, &cloudwatchlogs.DescribeLogGroupsInput{})
			_, _ = c.DescribeLogGroups(ctx, &cloudwatchlogs.DescribeLogGroupsInput{})
			calls()
			require.Len(t, s.AssumedRoles(), 2)
			for k := range s.Calls() {
				require.NotEqual(t, "ExpiredTokenException", k.Result)
			}
		})
	}
}

// A page that a proxy puts in the way, with a Date of its own, changes nothing.
func TestAProxysDateIsNotAWSs(t *testing.T) {
	c, _ := skewed(t, 0)
	_, err := c.DescribeLogGroups(context.Background(), &cloudwatchlogs.DescribeLogGroupsInput{})
	require.NoError(t, err)
	page := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Date", time.Now().Add(-3*time.Hour).UTC().Format(http.TimeFormat))
		w.WriteHeader(http.StatusBadGateway)
		_, _ = io.WriteString(w, "<html>")
	}))
	defer page.Close()
	for range 3 {
		_, err = c.Put(context.Background(), "g", "s", Body{Bytes: []byte(`{}`)}, 1)
		require.Error(t, err)
		other := *c
		other.Client = cloudwatchlogs.NewFromConfig(c.cfg, func(o *cloudwatchlogs.Options) { o.BaseEndpoint, o.HTTPSignerV4 = &page.URL, c.Signer() })
		_, err = other.Put(context.Background(), "g", "s", Body{Bytes: []byte(`{}`)}, 1)
		require.Equal(t, ClassRetryable, Classify(err), err)
	}
	require.Zero(t, c.Clock().Skew())
}

// withoutID is an answer that loses AWS's request id.
type withoutID struct{ http.ResponseWriter }

func (w withoutID) WriteHeader(status int) {
	w.Header().Del("X-Amzn-Requestid")
	w.ResponseWriter.WriteHeader(status)
}

// Where an endpoint sends no request id its time is not believed; the SDK corrects signatures all the same.
func TestAnEndpointWithoutRequestIDs(t *testing.T) {
	_, s := skewed(t, 2*time.Hour)
	front := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { s.ServeHTTP(withoutID{w}, r) }))
	defer front.Close()
	c, err := New(context.Background(), Config{Region: "us-east-1", Endpoint: front.URL})
	require.NoError(t, err)
	for range 3 {
		_, err = c.Put(context.Background(), "g", "s", Body{Bytes: []byte(`{"logGroupName":"g","logStreamName":"s","logEvents":[{"timestamp":1,"message":"m"}]}`)}, 1)
		require.Equal(t, ClassNotFound, Classify(err), err)
	}
	require.Equal(t, 1, refusedSignatures(s))
	_, told := c.Clock().Told()
	require.False(t, told)
}
