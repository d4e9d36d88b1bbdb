package loggroup

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strconv"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/cloudwatchlogs"
	"github.com/aws/aws-sdk-go-v2/service/cloudwatchlogs/types"
	"github.com/stretchr/testify/require"

	"github.com/eks-tenant-logs/eks-tenant-logs/internal/awsclient"
	"github.com/eks-tenant-logs/eks-tenant-logs/internal/fakeaws"
)

func TestARestGrowsWithEveryThrottledCallAndShrinksWithEveryOther(t *testing.T) {
	var p pace
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	require.NoError(t, p.resting(now))
	rest := func() time.Duration {
		p.answered(awsclient.ClassThrottled, now, now)
		require.Equal(t, awsclient.ClassThrottled, awsclient.Classify(p.resting(now)))
		until := p.until
		p.answered(awsclient.ClassThrottled, now, now) // of the same moment
		require.Equal(t, until, p.until)
		d := p.until.Sub(now)
		now = p.until
		require.NoError(t, p.resting(now))
		return d
	}
	between := func(low, high, d time.Duration) {
		t.Helper()
		require.GreaterOrEqual(t, d, low)
		require.Less(t, d, high)
	}
	p.answered(awsclient.ClassThrottled, now, now)
	require.NoError(t, p.resting(now), "one is no reason to rest")
	for _, most := range []time.Duration{1, 2, 4, 8, 8, 8, 8, 8} {
		between(most*time.Second/2, most*time.Second, rest())
	}
	for range 2 {
		p.answered(awsclient.ClassExists, now, now)
	}
	between(time.Second, 2*time.Second, rest())
}

// inProcess hands requests to the stand-in without a network, which virtual time does not
// wait for.
type inProcess struct{ http.Handler }

func (p inProcess) Do(r *http.Request) (*http.Response, error) {
	answer := httptest.NewRecorder()
	in := r.Clone(r.Context())
	in.Host, in.RequestURI = r.URL.Host, r.URL.RequestURI()
	if r.ContentLength > 0 {
		in.Header.Set("Content-Length", strconv.FormatInt(r.ContentLength, 10))
	}
	p.ServeHTTP(answer, in)
	return answer.Result(), nil
}

// In virtual time, for what the SDK waits between its attempts.
func TestAThrottledStreamFailsSoonAndTheOthersAreNotAskedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := fakeaws.New(fakeaws.Config{})
		api := cloudwatchlogs.New(cloudwatchlogs.Options{
			Region: "us-east-1", BaseEndpoint: aws.String("http://127.0.0.1"), HTTPClient: inProcess{s}, Retryer: awsclient.Retryer(),
			Credentials: credentials.NewStaticCredentialsProvider(fakeaws.DefaultAccessKeyID, fakeaws.DefaultSecretAccessKey, ""),
		})
		_, err := api.CreateLogGroup(context.Background(), &cloudwatchlogs.CreateLogGroupInput{LogGroupName: aws.String("/g")})
		require.NoError(t, err)
		throttled := atomic.Bool{}
		throttled.Store(true)
		s.SetIntercept(func(c fakeaws.Call) error {
			if c.Operation == "CreateLogStream" && throttled.Load() {
				return &fakeaws.APIError{Code: "ThrottlingException", Message: "Rate exceeded"}
			}
			return nil
		})
		k := keeper(t, api, true, nil)
		began := time.Now()
		for i := range 20 {
			err := k.EnsureStream(context.Background(), spec("/g"), fmt.Sprint("s", i))
			require.Equal(t, awsclient.ClassThrottled, awsclient.Classify(err), err)
		}
		require.Equal(t, 10, s.CallCount("CreateLogStream"), "two calls of five attempts")
		require.Less(t, time.Since(began), 3*time.Second, "waits of up to 0.1, 0.2, 0.4 and 0.8 s in each")
		throttled.Store(false)
		time.Sleep(firstRest)
		require.NoError(t, k.EnsureStream(context.Background(), spec("/g"), "s"))
	})
}

// describer answers DescribeLogGroups and ListTagsForResource, and counts.
type describer struct {
	API
	describes, tags atomic.Int32
	fail            atomic.Int32
	days            int32
}

func (d *describer) DescribeLogGroups(_ context.Context, in *cloudwatchlogs.DescribeLogGroupsInput, _ ...func(*cloudwatchlogs.Options)) (*cloudwatchlogs.DescribeLogGroupsOutput, error) {
	d.describes.Add(1)
	if d.fail.Add(-1) >= 0 {
		return nil, context.DeadlineExceeded
	}
	out := &cloudwatchlogs.DescribeLogGroupsOutput{}
	for _, name := range in.LogGroupIdentifiers {
		out.LogGroups = append(out.LogGroups, types.LogGroup{
			LogGroupName: aws.String(name), LogGroupArn: aws.String(name), RetentionInDays: &d.days, CreationTime: aws.Int64(time.Now().UnixMilli()),
		})
	}
	return out, nil
}

func (d *describer) ListTagsForResource(context.Context, *cloudwatchlogs.ListTagsForResourceInput, ...func(*cloudwatchlogs.Options)) (*cloudwatchlogs.ListTagsForResourceOutput, error) {
	d.tags.Add(1)
	return &cloudwatchlogs.ListTagsForResourceOutput{Tags: map[string]string{TagState: StateReady}}, nil
}

func TestGroupsWhoseLookFailedAreLookedAtAgainTogether(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &describer{days: 365}
		d.fail.Store(5)
		k := NewKeeper(d, Config{
			Create: true, Log: slog.New(slog.DiscardHandler), Delay: func() time.Duration { return time.Second },
			Unmarked: func() time.Duration { return time.Hour },
		})
		defer k.Close()
		for i := range 40 {
			k.Used(spec(fmt.Sprint("/g", i)))
		}
		require.Equal(t, 40, k.Open())
		time.Sleep(30 * time.Minute)
		require.Zero(t, k.Open())
		require.Equal(t, int32(6), d.describes.Load())
	})
}

func TestWhetherAYoungGroupWithItsRetentionIsMarkedIsLookedAtWithinADay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &describer{days: 365}
		k := NewKeeper(d, Config{Create: true, Log: slog.New(slog.DiscardHandler)})
		defer k.Close()
		for i := range 40 {
			k.Used(spec(fmt.Sprint("/g", i)))
		}
		time.Sleep(time.Second)
		require.Zero(t, k.Open(), "its retention is confirmed")
		require.Zero(t, d.tags.Load())
		time.Sleep(12 * time.Hour)
		require.Greater(t, d.tags.Load(), int32(5))
		require.Less(t, d.tags.Load(), int32(35))
		time.Sleep(12 * time.Hour)
		require.Equal(t, int32(40), d.tags.Load())
		time.Sleep(48 * time.Hour)
		require.Equal(t, int32(40), d.tags.Load())
	})
}

func TestARestThatCanBeLongEndsSoonWhenCallsAreTakenAgain(t *testing.T) {
	p := pace{max: 5 * time.Minute, halves: true}
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	for range 12 {
		p.answered(awsclient.ClassThrottled, now, now)
		now = now.Add(p.rest(now))
	}
	before := now
	p.answered(awsclient.ClassThrottled, now, now)
	require.GreaterOrEqual(t, p.rest(now), 150*time.Second)
	now = before.Add(p.rest(before))
	for range 2 {
		p.answered(awsclient.ClassNone, now, now)
	}
	p.answered(awsclient.ClassThrottled, now, now)
	require.Less(t, p.rest(now), 3*time.Second)
}
