package scale

import (
	"context"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/retry"
	"github.com/aws/aws-sdk-go-v2/service/cloudwatchlogs"
	"github.com/aws/smithy-go/middleware"

	"github.com/eks-tenant-logs/eks-tenant-logs/internal/awsclient"
	"github.com/eks-tenant-logs/eks-tenant-logs/internal/delivery"
	"github.com/eks-tenant-logs/eks-tenant-logs/internal/loggroup"
)

// client is one process's client: the SDK's own retry middleware, with its limits, back-off
// and token bucket, before the account, for every call but PutLogEvents.
type client struct {
	account *Account
	options cloudwatchlogs.Options
	retries *retry.Attempt
}

func newClient(a *Account) *client {
	standard := awsclient.Retryer()
	return &client{account: a, options: cloudwatchlogs.Options{Retryer: standard}, retries: attempts(standard)}
}

func attempts(r aws.Retryer) *retry.Attempt {
	return retry.NewAttemptMiddleware(r, func(request any) any { return request })
}

// retried makes a call with the retries of the client, or of the call's own options.
func retried[In, Out any](ctx context.Context, c *client, in In, own []func(*cloudwatchlogs.Options), f func(context.Context, In) (Out, error)) (Out, error) {
	retries := c.retries
	if len(own) > 0 {
		options := c.options.Copy()
		for _, set := range own {
			set(&options)
		}
		retries = attempts(options.Retryer)
	}
	var out Out
	_, _, err := retries.HandleFinalize(ctx, middleware.FinalizeInput{}, middleware.FinalizeHandlerFunc(
		func(ctx context.Context, _ middleware.FinalizeInput) (o middleware.FinalizeOutput, m middleware.Metadata, err error) {
			out, err = f(ctx, in)
			return o, m, err
		}))
	return out, err
}

func (c *client) CreateLogGroup(ctx context.Context, in *cloudwatchlogs.CreateLogGroupInput, own ...func(*cloudwatchlogs.Options)) (*cloudwatchlogs.CreateLogGroupOutput, error) {
	return retried(ctx, c, in, own, c.account.createLogGroup)
}

func (c *client) CreateLogStream(ctx context.Context, in *cloudwatchlogs.CreateLogStreamInput, own ...func(*cloudwatchlogs.Options)) (*cloudwatchlogs.CreateLogStreamOutput, error) {
	return retried(ctx, c, in, own, c.account.createLogStream)
}

func (c *client) PutRetentionPolicy(ctx context.Context, in *cloudwatchlogs.PutRetentionPolicyInput, own ...func(*cloudwatchlogs.Options)) (*cloudwatchlogs.PutRetentionPolicyOutput, error) {
	return retried(ctx, c, in, own, c.account.putRetentionPolicy)
}

func (c *client) DescribeLogGroups(ctx context.Context, in *cloudwatchlogs.DescribeLogGroupsInput, own ...func(*cloudwatchlogs.Options)) (*cloudwatchlogs.DescribeLogGroupsOutput, error) {
	return retried(ctx, c, in, own, c.account.describeLogGroups)
}

func (c *client) ListTagsForResource(ctx context.Context, in *cloudwatchlogs.ListTagsForResourceInput, own ...func(*cloudwatchlogs.Options)) (*cloudwatchlogs.ListTagsForResourceOutput, error) {
	return retried(ctx, c, in, own, c.account.listTags)
}

func (c *client) TagResource(ctx context.Context, in *cloudwatchlogs.TagResourceInput, own ...func(*cloudwatchlogs.Options)) (*cloudwatchlogs.TagResourceOutput, error) {
	return retried(ctx, c, in, own, c.account.tagResource)
}

// logs is the account as delivery sees it.
type logs struct {
	account *Account
	groups  *loggroup.Keeper
}

func (l logs) Put(ctx context.Context, t delivery.Target, body awsclient.Body, _ int) (awsclient.Rejected, error) {
	return awsclient.Rejected{}, l.account.put(ctx, t.Group, t.Stream, body.Bytes)
}

func (l logs) EnsureStream(ctx context.Context, t delivery.Target) error {
	return l.groups.EnsureStream(ctx, spec(t.Group), t.Stream)
}

// days is the retention that is asked for.
const days = 365

func spec(group string) loggroup.Spec {
	return loggroup.Spec{Group: group, Tenant: group[len(groupPrefix):], RetentionDays: days}
}

const groupPrefix = "/eks/tenants/"
