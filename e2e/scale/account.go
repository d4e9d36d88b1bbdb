package scale

import (
	"bytes"
	"context"
	"maps"
	"math/rand/v2"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/cloudwatchlogs"
	"github.com/aws/aws-sdk-go-v2/service/cloudwatchlogs/types"
	"github.com/aws/smithy-go"

	"github.com/eks-tenant-logs/eks-tenant-logs/internal/fakeaws"
)

// Latency is how long an answer takes: this, and up to half as much again.
const Latency = 20 * time.Millisecond

// shows is how long after its creation a group or stream is not found yet. It is
// assumed: AWS says nothing of it. A group that is created again meanwhile is
// OperationAborted, and later ResourceAlreadyExists.
const shows = 100 * time.Millisecond

var (
	errThrottled = &smithy.GenericAPIError{Code: "ThrottlingException", Message: "Rate exceeded"}
	errNotFound  = &smithy.GenericAPIError{Code: "ResourceNotFoundException", Message: "The specified resource does not exist."}
	errExists    = &smithy.GenericAPIError{Code: "ResourceAlreadyExistsException", Message: "The specified resource already exists"}
	errAborted   = &smithy.GenericAPIError{Code: "OperationAbortedException", Message: "A conflicting operation is currently in progress against this resource."}
)

// Account is CloudWatch Logs of one account in one region: its groups and streams, its
// quotas, and which events it accepted. It is safe for concurrent use.
type Account struct {
	start time.Time

	mu      sync.Mutex
	buckets [operations]fakeaws.Bucket
	made    [operations]series // calls
	passed  [operations]series // of them, not throttled
	groups  map[string]*group
	pods    []received // by pod
	twice   int64      // events accepted more than once
	strange int64      // events in another stream than their pod's
}

type group struct {
	created time.Time
	days    *int32
	tags    map[string]string
	streams map[string]time.Time // by name, when it was created
	// retained and ready are when its retention and its state came to be what they should.
	retained, ready time.Time
}

// received is what the account has of one pod.
type received struct {
	seen          []uint64 // a bit for each event
	first         time.Time
	group, stream string
}

// eventsAChunk is how many events stand for the lines of a chunk: its first and its last,
// so that a chunk has its span of time.
const eventsAChunk = 2

func newAccount(quotas Quotas) *Account {
	a := &Account{start: time.Now(), groups: map[string]*group{}}
	for op, rate := range quotas {
		a.buckets[op].Rate = rate
	}
	return a
}

// add makes a group and streams that were there before.
func (a *Account) add(name string, age time.Duration, days int32, streams ...string) {
	g := a.groups[name]
	if g == nil {
		created := a.start.Add(-age)
		g = &group{created: created, days: &days, tags: map[string]string{}, streams: map[string]time.Time{}, retained: created, ready: created}
		a.groups[name] = g
	}
	for _, s := range streams {
		g.streams[s] = g.created
	}
}

// call is one call: it takes its time, then the quota is asked, then f answers.
func (a *Account) call(ctx context.Context, op Operation, f func(now time.Time) error) error {
	t := time.NewTimer(Latency + rand.N(Latency/2))
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	now := time.Now()
	second := int(now.Sub(a.start) / time.Second)
	a.made[op].add(second)
	if !a.buckets[op].Take(now) {
		return errThrottled
	}
	a.passed[op].add(second)
	return f(now)
}

// group is one that shows already.
func (a *Account) group(name string, now time.Time) *group {
	if g := a.groups[name]; g != nil && now.Sub(g.created) >= shows {
		return g
	}
	return nil
}

// put is PutLogEvents.
func (a *Account) put(ctx context.Context, name, stream string, body []byte) error {
	return a.call(ctx, PutLogEvents, func(now time.Time) error {
		g := a.group(name, now)
		if g == nil {
			return errNotFound
		}
		if made, ok := g.streams[stream]; !ok || now.Sub(made) < shows {
			return errNotFound
		}
		for {
			_, rest, ok := bytes.Cut(body, []byte(`"message":"`))
			if !ok {
				return nil
			}
			body = rest
			a.accept(rest, name, stream, now)
		}
	})
}

// message is the text of one of the events that stand for a chunk.
func message(dst []byte, pod, chunk, part int) []byte {
	dst = strconv.AppendInt(dst, int64(pod), 10)
	dst = append(dst, ' ')
	return strconv.AppendInt(dst, int64(chunk*eventsAChunk+part), 10)
}

// accept notes one event.
func (a *Account) accept(text []byte, group, stream string, now time.Time) {
	pod, i := digits(text, 0)
	event, _ := digits(text, i+1)
	p := &a.pods[pod]
	if p.first.IsZero() {
		p.first = now
	}
	if p.group != group || p.stream != stream {
		a.strange++
	}
	for len(p.seen) <= event/64 {
		p.seen = append(p.seen, 0)
	}
	bit := uint64(1) << (event % 64)
	if p.seen[event/64]&bit != 0 {
		a.twice++
	}
	p.seen[event/64] |= bit
}

func digits(text []byte, i int) (n, end int) {
	for ; i < len(text) && text[i] >= '0' && text[i] <= '9'; i++ {
		n = 10*n + int(text[i]-'0')
	}
	return n, i
}

// has reports whether every event of a chunk was accepted.
func (a *Account) has(pod, chunk int) bool {
	for part := range eventsAChunk {
		event := chunk*eventsAChunk + part
		seen := a.pods[pod].seen
		if event/64 >= len(seen) || seen[event/64]&(1<<(event%64)) == 0 {
			return false
		}
	}
	return true
}

func (a *Account) createLogGroup(ctx context.Context, in *cloudwatchlogs.CreateLogGroupInput) (*cloudwatchlogs.CreateLogGroupOutput, error) {
	return &cloudwatchlogs.CreateLogGroupOutput{}, a.call(ctx, CreateLogGroup, func(now time.Time) error {
		switch {
		case a.group(*in.LogGroupName, now) != nil:
			return errExists
		case a.groups[*in.LogGroupName] != nil:
			return errAborted
		}
		a.groups[*in.LogGroupName] = &group{created: now, tags: maps.Clone(in.Tags), streams: map[string]time.Time{}}
		return nil
	})
}

func (a *Account) createLogStream(ctx context.Context, in *cloudwatchlogs.CreateLogStreamInput) (*cloudwatchlogs.CreateLogStreamOutput, error) {
	return &cloudwatchlogs.CreateLogStreamOutput{}, a.call(ctx, CreateLogStream, func(now time.Time) error {
		g := a.group(*in.LogGroupName, now)
		if g == nil {
			return errNotFound
		}
		if _, ok := g.streams[*in.LogStreamName]; ok {
			return errExists
		}
		g.streams[*in.LogStreamName] = now
		return nil
	})
}

// describeLogGroups answers by names alone (logGroupIdentifiers), 50 at most.
func (a *Account) describeLogGroups(ctx context.Context, in *cloudwatchlogs.DescribeLogGroupsInput) (*cloudwatchlogs.DescribeLogGroupsOutput, error) {
	out := &cloudwatchlogs.DescribeLogGroupsOutput{}
	return out, a.call(ctx, DescribeLogGroups, func(now time.Time) error {
		if len(in.LogGroupIdentifiers) > 50 {
			return &smithy.GenericAPIError{Code: "InvalidParameterException", Message: "more than 50 logGroupIdentifiers"}
		}
		for _, name := range in.LogGroupIdentifiers {
			if g := a.group(name, now); g != nil {
				out.LogGroups = append(out.LogGroups, types.LogGroup{
					LogGroupName: aws.String(name), LogGroupArn: aws.String(arnPrefix + name),
					RetentionInDays: g.days, CreationTime: aws.Int64(g.created.UnixMilli()),
				})
			}
		}
		return nil
	})
}

const arnPrefix = "arn:aws:logs:us-east-1:111122223333:log-group:"

func (a *Account) putRetentionPolicy(ctx context.Context, in *cloudwatchlogs.PutRetentionPolicyInput) (*cloudwatchlogs.PutRetentionPolicyOutput, error) {
	return &cloudwatchlogs.PutRetentionPolicyOutput{}, a.call(ctx, PutRetentionPolicy, func(now time.Time) error {
		g := a.group(*in.LogGroupName, now)
		if g == nil {
			return errNotFound
		}
		g.days = aws.Int32(*in.RetentionInDays)
		if g.retained.IsZero() {
			g.retained = now
		}
		return nil
	})
}

func (a *Account) listTags(ctx context.Context, in *cloudwatchlogs.ListTagsForResourceInput) (*cloudwatchlogs.ListTagsForResourceOutput, error) {
	out := &cloudwatchlogs.ListTagsForResourceOutput{}
	return out, a.call(ctx, ListTagsForResource, func(now time.Time) error {
		g := a.group(strings.TrimPrefix(*in.ResourceArn, arnPrefix), now)
		if g == nil {
			return errNotFound
		}
		out.Tags = maps.Clone(g.tags)
		return nil
	})
}

func (a *Account) tagResource(ctx context.Context, in *cloudwatchlogs.TagResourceInput) (*cloudwatchlogs.TagResourceOutput, error) {
	return &cloudwatchlogs.TagResourceOutput{}, a.call(ctx, TagResource, func(now time.Time) error {
		g := a.group(strings.TrimPrefix(*in.ResourceArn, arnPrefix), now)
		if g == nil {
			return errNotFound
		}
		maps.Copy(g.tags, in.Tags)
		if g.ready.IsZero() {
			g.ready = now
		}
		return nil
	})
}
