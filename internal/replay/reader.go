package replay

import (
	"context"
	"fmt"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/cloudwatchlogs"
	"github.com/aws/aws-sdk-go-v2/service/cloudwatchlogs/types"

	"github.com/eks-tenant-logs/eks-tenant-logs/internal/awsclient"
)

// readInterval keeps the calls that read at 10 a second: GetLogEvents may be called 25
// times a second per account and region, 10 in some regions, DescribeLogStreams 25 (CloudWatch
// Logs quotas), and others read, too.
const readInterval = 100 * time.Millisecond

// reader reads as one identity, page by page.
type reader struct {
	account Account
	clock   Clock
	ending  *ending
	next    time.Time
}

// ask makes a call that reads, when the next may be made. It is broken off when the end of the replay is
// asked for, and says so.
func ask[I, O any](ctx context.Context, r *reader, call func(context.Context, *I, ...func(*cloudwatchlogs.Options)) (*O, error), in *I) (*O, error) {
	ctx, release := r.ending.breakable(ctx)
	defer release()
	if err := r.pace(ctx); err != nil {
		return nil, r.ending.because(err)
	}
	out, err := call(ctx, in)
	return out, r.ending.because(err)
}

// pace waits until the next call may be made.
func (r *reader) pace(ctx context.Context) error {
	now := r.clock.Now()
	if wait := r.next.Sub(now); wait > 0 {
		if err := r.clock.Sleep(ctx, wait); err != nil {
			return err
		}
	}
	r.next = r.clock.Now().Add(readInterval)
	return nil
}

// groups lists the groups whose names begin with prefix, each once. The time is AWS's at the first
// answer; zero where it is not known.
func (r *reader) groups(ctx context.Context, prefix string) (names []string, server time.Time, err error) {
	in := &cloudwatchlogs.DescribeLogGroupsInput{LogGroupNamePrefix: &prefix}
	listed := map[string]bool{}
	for {
		out, err := ask(ctx, r, r.account.DescribeLogGroups, in)
		if err != nil {
			return nil, server, err
		}
		if at, ok := awsclient.ServerTime(out.ResultMetadata); ok && server.IsZero() {
			server = at
		}
		for _, g := range out.LogGroups {
			if g.LogGroupName != nil && !listed[*g.LogGroupName] {
				listed[*g.LogGroupName] = true
				names = append(names, *g.LogGroupName)
			}
		}
		if out.NextToken == nil || *out.NextToken == "" {
			return names, server, nil
		}
		in.NextToken = out.NextToken
	}
}

// retention is how many days a group keeps its events; 0 for ever, or where the group is
// not there.
func (r *reader) retention(ctx context.Context, group string) (days int, err error) {
	out, err := ask(ctx, r, r.account.DescribeLogGroups, &cloudwatchlogs.DescribeLogGroupsInput{LogGroupIdentifiers: []string{group}})
	if err != nil {
		return 0, err
	}
	for _, g := range out.LogGroups {
		if g.LogGroupName != nil && *g.LogGroupName == group && g.RetentionInDays != nil {
			days = int(*g.RetentionInDays)
		}
	}
	return days, nil
}

// streams lists a group's streams by name, each once: where streams are created or deleted
// between two pages, both pages may have the same one, which would be copied twice. What
// CloudWatch says of their last events is not looked at: it may be an hour behind (API
// reference, LogStream).
func (r *reader) streams(ctx context.Context, group string) (list []types.LogStream, server time.Time, err error) {
	in := &cloudwatchlogs.DescribeLogStreamsInput{LogGroupName: &group, OrderBy: types.OrderByLogStreamName}
	listed := map[string]bool{}
	for {
		out, err := ask(ctx, r, r.account.DescribeLogStreams, in)
		if err != nil {
			return nil, server, fmt.Errorf("failed to list the streams of %s: %w", group, err)
		}
		if at, ok := awsclient.ServerTime(out.ResultMetadata); ok && server.IsZero() {
			server = at
		}
		for _, s := range out.LogStreams {
			if s.LogStreamName != nil && !listed[*s.LogStreamName] {
				listed[*s.LogStreamName] = true
				list = append(list, s)
			}
		}
		if out.NextToken == nil || *out.NextToken == "" {
			return list, server, nil
		}
		in.NextToken = out.NextToken
	}
}

// event is one event as it was read; times are in milliseconds since 1970.
type event struct {
	timestamp, ingested int64
	message             string
}

// events reads a stream in the order GetLogEvents has: by time. from is the first time,
// before the first that is not read; 0 is no bound. A page may be empty in the middle:
// the end is where a token comes back.
func (r *reader) events(ctx context.Context, group, stream string, from, before int64, each func(event) error) error {
	head := true
	in := &cloudwatchlogs.GetLogEventsInput{LogGroupName: &group, LogStreamName: &stream, StartFromHead: &head}
	if from > 0 {
		in.StartTime = &from
	}
	if before > 0 {
		in.EndTime = &before
	}
	for {
		out, err := ask(ctx, r, r.account.GetLogEvents, in)
		if err != nil {
			return fmt.Errorf("failed to read stream %s of %s: %w", stream, group, err)
		}
		for _, e := range out.Events {
			if e.Timestamp == nil || e.Message == nil || e.IngestionTime == nil {
				return fmt.Errorf("stream %s of %s has an event without a time or message", stream, group)
			}
			if err := each(event{*e.Timestamp, *e.IngestionTime, *e.Message}); err != nil {
				return err
			}
		}
		if out.NextForwardToken == nil || in.NextToken != nil && *in.NextToken == *out.NextForwardToken {
			return nil
		}
		in.NextToken = out.NextForwardToken
	}
}
