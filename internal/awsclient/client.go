// Package awsclient builds the AWS SDK's clients: region, endpoints, FIPS, roles
// and user agent in one place, and the classes of AWS's errors. Nothing else in
// the project configures the SDK.
package awsclient

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/url"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awsmiddleware "github.com/aws/aws-sdk-go-v2/aws/middleware"
	"github.com/aws/aws-sdk-go-v2/aws/retry"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/service/cloudwatchlogs"
	"github.com/aws/aws-sdk-go-v2/service/cloudwatchlogs/types"
	"github.com/aws/smithy-go/middleware"
	smithyhttp "github.com/aws/smithy-go/transport/http"
)

// Config says how AWS is reached. The zero value is the SDK's default chain.
type Config struct {
	// Region is the AWS region; empty means AWS_REGION or the profile's.
	Region string
	// Endpoint and STSEndpoint replace AWS's own hosts: a host, host:port or URL;
	// https where no scheme is given.
	Endpoint, STSEndpoint string
	// UseFIPS asks for FIPS 140 endpoints, and UseDualStack for those that have IPv6 addresses
	// too. Each excludes Endpoint and STSEndpoint. False leaves it to the environment and the
	// profile.
	UseFIPS, UseDualStack bool
	// Profile is a profile of the shared configuration files.
	Profile string
	// RoleARN is assumed on top of the credentials found, with ExternalID if set.
	RoleARN, ExternalID string
	// ExtraUserAgent is appended to the user agent of every call.
	ExtraUserAgent string
	// MaxConns bounds the connections to one host, but for a few more that are left to
	// calls that create or describe something; 0 means no bound.
	MaxConns int
	// Now replaces the clock that expiries are compared with; nil means time.Now.
	Now func() time.Time
	// Renewed, if set, gets each attempt to get credentials. It is called from many
	// goroutines, and calls wait for it.
	Renewed func(Renewal)
}

// sessionName is what CloudTrail shows for the calls made with RoleARN.
const sessionName = "eks-tenant-logs"

// controlAttempts is how often the SDK tries a call that creates or describes
// something. PutLogEvents is never tried again by the SDK, but where its signature was
// refused for its time: every attempt that may have delivered something must be seen by the
// one who accounts for what was delivered.
const controlAttempts = 8

// Retryer is how the SDK repeats calls that create or describe something.
func Retryer() aws.Retryer {
	return retry.NewStandard(func(o *retry.StandardOptions) {
		o.MaxAttempts = controlAttempts
		o.Backoff = retry.BackoffDelayerFunc(controlBackoff)
		o.Retryables = append([]retry.IsErrorRetryable{retry.IsErrorRetryableFunc(notOnTheWay)}, o.Retryables...)
	})
}

// controlBackoff is the wait before another attempt at such a call, attempt counting the attempts
// there were: the SDK begins with 1.
// The SDK's own begins with up to a second, which a flush spends for each of the four calls
// that make a group and its stream. What is throttled again waits longer, up to 6 s.
func controlBackoff(attempt int, _ error) (time.Duration, error) {
	most := min(50*time.Millisecond<<min(attempt, 10), 10*time.Second)
	return most/4 + rand.N(most*3/4), nil
}

// Role is a role to be assumed. The zero value is nobody's: the identity one has.
type Role struct{ ARN, ExternalID string }

// Client is CloudWatch Logs as one identity. It may be used by many goroutines.
type Client struct {
	*cloudwatchlogs.Client
	// Region is the region the calls go to.
	Region string

	cfg             aws.Config
	identity        *renewal
	logs, sts       Endpoint
	fips, dualStack bool // in force
	origins         *origins
	inForce         *endpointsInForce
	clock           *Clock // shared by all identities
}

// New builds a client. It makes no network call, except where the SDK must ask the
// EC2 metadata service for nothing else being configured.
func New(ctx context.Context, c Config) (*Client, error) {
	clock := NewClock(time.Now)
	opts := append(transportOptions(c.MaxConns), config.WithRetryer(Retryer), config.WithAPIOptions([]func(*middleware.Stack) error{noCleartext, clock.watch}))
	if c.Region != "" {
		opts = append(opts, config.WithRegion(c.Region))
	}
	if c.Profile != "" {
		opts = append(opts, config.WithSharedConfigProfile(c.Profile))
	}
	if c.UseFIPS {
		opts = append(opts, config.WithUseFIPSEndpoint(aws.FIPSEndpointStateEnabled))
	}
	if c.UseDualStack {
		opts = append(opts, config.WithUseDualStackEndpoint(aws.DualStackEndpointStateEnabled))
	}
	if c.ExtraUserAgent != "" {
		opts = append(opts, config.WithAPIOptions([]func(*middleware.Stack) error{
			awsmiddleware.AddUserAgentKey(c.ExtraUserAgent),
		}))
	}
	cfg, err := config.LoadDefaultConfig(ctx, opts...)
	if err != nil {
		return nil, fmt.Errorf("failed to load the AWS configuration: %w", err)
	}
	if cfg.Region == "" {
		return nil, errors.New("region is not set: set the option region, or AWS_REGION in the environment")
	}
	if pseudoRegion(cfg.Region) {
		return nil, fmt.Errorf("region %s is a pseudo-region, another name for FIPS endpoints: give the region itself, and use_fips", cfg.Region)
	}
	client := &Client{Region: cfg.Region, cfg: cfg, origins: newOrigins(c, cfg), inForce: &endpointsInForce{}, clock: clock}
	if err := client.resolveEndpoints(ctx, c.Endpoint, c.STSEndpoint); err != nil {
		return nil, err
	}
	client.identify(newRenewal("", newChain(client.pinned(opts), cfg), c.Now, c.Renewed))
	return client.As(Role{c.RoleARN, c.ExternalID}), nil
}

// pinned are options whose region and kinds of endpoints are those that were judged: the chain
// of credentials is built anew with each renewal, and a profile may say something else then.
func (c *Client) pinned(opts []func(*config.LoadOptions) error) []func(*config.LoadOptions) error {
	fips, dualStack := aws.FIPSEndpointStateDisabled, aws.DualStackEndpointStateDisabled
	if c.fips {
		fips = aws.FIPSEndpointStateEnabled
	}
	if c.dualStack {
		dualStack = aws.DualStackEndpointStateEnabled
	}
	return append(slices.Clip(opts), config.WithRegion(c.Region), config.WithUseFIPSEndpoint(fips), config.WithUseDualStackEndpoint(dualStack))
}

// FewAttempts is an option of one call: it is made five times at most, within some 0.9 s
// and never more than 1.5 s, the answers' own time apart. For callers that hold up others while they wait.
func FewAttempts(o *cloudwatchlogs.Options) {
	if o.Retryer != nil {
		o.Retryer = fewAttempts{o.Retryer}
	}
}

type fewAttempts struct{ aws.Retryer }

func (fewAttempts) MaxAttempts() int { return 5 }

// As is the same client with another identity, which it assumes from its own. It shares
// the connections, and makes no call until it is used.
func (c *Client) As(role Role) *Client {
	as := &Client{Region: c.Region, cfg: c.cfg, identity: c.identity, logs: c.logs, sts: c.sts, fips: c.fips, dualStack: c.dualStack, origins: c.origins, inForce: c.inForce, clock: c.clock}
	if role.ARN != "" {
		as.identify(c.assume(role))
	}
	as.Client = cloudwatchlogs.NewFromConfig(as.cfg, func(o *cloudwatchlogs.Options) {
		o.HTTPSignerV4 = as.Signer()
		o.BaseEndpoint = c.logs.Base()
	})
	return as
}

// EndpointURL completes an endpoint given as host, host:port or URL. Empty stays
// empty. Anything with a path or query is an error: CloudWatch has none. So is plain
// http to anywhere but this machine: tenants' logs do not travel in the clear.
func EndpointURL(s string) (string, error) {
	if s == "" {
		return "", nil
	}
	if !strings.Contains(s, "://") {
		s = "https://" + s
	}
	u, err := url.Parse(s)
	if err != nil || u.Host == "" || u.Hostname() == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" ||
		u.Path != "" && u.Path != "/" || u.Scheme != "https" && u.Scheme != "http" {
		return "", fmt.Errorf("%q is no endpoint: give a host, host:port, or https://host[:port]", s)
	}
	if u.Scheme == "http" && !loopback(u.Hostname()) {
		return "", fmt.Errorf("%q would send logs unencrypted: use https; http is for this machine's own addresses", s)
	}
	return u.Scheme + "://" + u.Host, nil
}

func loopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// Body is the JSON of a PutLogEvents call, as it goes on the wire.
type Body struct {
	Bytes []byte
	// Gzip says that Bytes are compressed.
	Gzip bool
	// EMF announces messages in the embedded metric format.
	EMF bool
}

// Rejected is CloudWatch's rejectedLogEventsInfo: positions in the batch that was
// sent. The zero value means that every event was accepted.
type Rejected struct {
	// Old is the exclusive end of the events too old or expired, from the start.
	Old int
	// New is how many events, from the end, were too new.
	New int
}

// Put calls PutLogEvents once with a body that is already encoded; count is the
// number of events in it. The body is not kept after Put returns.
func (c *Client) Put(ctx context.Context, group, stream string, body Body, count int) (Rejected, error) {
	var connected atomic.Bool
	out, err := c.PutLogEvents(noteConnected(ctx, &connected), &cloudwatchlogs.PutLogEventsInput{
		LogGroupName:  &group,
		LogStreamName: &stream,
		LogEvents:     []types.InputLogEvent{},
	}, func(o *cloudwatchlogs.Options) {
		o.Retryer = putRetryer{}
		o.APIOptions = append(o.APIOptions, func(s *middleware.Stack) error {
			return s.Serialize.Insert(bodyMiddleware{body}, "OperationSerializer", middleware.After)
		})
	})
	if err != nil {
		if !connected.Load() {
			err = unsentError{err}
		}
		return Rejected{}, fmt.Errorf("failed to put %d events into stream %s of group %s: %w", count, stream, group, err)
	}
	var r Rejected
	if info := out.RejectedLogEventsInfo; info != nil {
		if info.TooOldLogEventEndIndex != nil {
			r.Old = int(*info.TooOldLogEventEndIndex)
		}
		if info.ExpiredLogEventEndIndex != nil {
			r.Old = max(r.Old, int(*info.ExpiredLogEventEndIndex))
		}
		if info.TooNewLogEventStartIndex != nil {
			r.New = count - int(*info.TooNewLogEventStartIndex)
		}
		r.Old = min(max(r.Old, 0), count)
		r.New = min(max(r.New, 0), count-r.Old)
	}
	return r, nil
}

// bodyMiddleware puts our bytes in the place of the serializer's; the SDK computes
// the hash, signs and sends them.
type bodyMiddleware struct{ body Body }

func (bodyMiddleware) ID() string { return "EncodedBody" }

func (m bodyMiddleware) HandleSerialize(ctx context.Context, in middleware.SerializeInput, next middleware.SerializeHandler) (middleware.SerializeOutput, middleware.Metadata, error) {
	req, ok := in.Request.(*smithyhttp.Request)
	if !ok {
		return middleware.SerializeOutput{}, middleware.Metadata{}, fmt.Errorf("unexpected transport %T", in.Request)
	}
	req, err := req.SetStream(bytes.NewReader(m.body.Bytes))
	if err != nil {
		return middleware.SerializeOutput{}, middleware.Metadata{}, err
	}
	if m.body.Gzip {
		req.Header.Set("Content-Encoding", "gzip")
	}
	if m.body.EMF {
		req.Header.Set("X-Amzn-Logs-Format", "json/emf")
	}
	in.Request = req
	return next.HandleSerialize(ctx, in)
}

// ServerTime is AWS's clock in an answer, to the second; false where it did not say.
func ServerTime(answer middleware.Metadata) (time.Time, bool) {
	return awsmiddleware.GetServerTime(answer)
}
