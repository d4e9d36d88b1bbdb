package node

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/cloudwatchlogs"
	"github.com/aws/aws-sdk-go-v2/service/cloudwatchlogs/types"

	"github.com/eks-tenant-logs/eks-tenant-logs/internal/fakeaws"
)

// CloudWatch reads back what arrived, as any user of the SDK would.
type CloudWatch struct {
	api *cloudwatchlogs.Client
	// Endpoint, Region, AccessKey and SecretKey are what engines need as well.
	Endpoint, Region, AccessKey, SecretKey string
	// CAFile is the PEM file of the endpoint's authority; empty for http.
	CAFile string
	// HTTP trusts that authority.
	HTTP *http.Client
}

// NewCloudWatch makes a client of the endpoint; caPEM is nil for http.
func NewCloudWatch(endpoint, region, accessKey, secretKey, caFile string, caPEM []byte) (*CloudWatch, error) {
	client := &http.Client{}
	if caPEM != nil {
		pool := x509.NewCertPool()
		if !pool.AppendCertsFromPEM(caPEM) {
			return nil, errors.New("the authority's PEM holds no certificate")
		}
		client.Transport = &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}}
	}
	return &CloudWatch{
		api: cloudwatchlogs.New(cloudwatchlogs.Options{
			Region: region, BaseEndpoint: &endpoint, HTTPClient: client,
			Credentials: aws.NewCredentialsCache(credentials.NewStaticCredentialsProvider(accessKey, secretKey, "")),
		}),
		Endpoint: endpoint, Region: region, AccessKey: accessKey, SecretKey: secretKey, CAFile: caFile, HTTP: client,
	}, nil
}

// API is the SDK's client.
func (c *CloudWatch) API() *cloudwatchlogs.Client { return c.api }

// Env is the environment an engine needs to reach this CloudWatch.
func (c *CloudWatch) Env() []string {
	env := []string{
		"AWS_ACCESS_KEY_ID=" + c.AccessKey, "AWS_SECRET_ACCESS_KEY=" + c.SecretKey, "AWS_SESSION_TOKEN=",
		"AWS_REGION=" + c.Region, "AWS_EC2_METADATA_DISABLED=true", "AWS_PROFILE=", "NODE_NAME=node-1",
		"AWS_CONFIG_FILE=/dev/null", "AWS_SHARED_CREDENTIALS_FILE=/dev/null",
	}
	if c.CAFile != "" {
		env = append(env, "AWS_CA_BUNDLE="+c.CAFile)
	}
	return env
}

// Groups lists every log group, by name.
func (c *CloudWatch) Groups(ctx context.Context) ([]types.LogGroup, error) {
	var all []types.LogGroup
	for p := cloudwatchlogs.NewDescribeLogGroupsPaginator(c.api, &cloudwatchlogs.DescribeLogGroupsInput{}); p.HasMorePages(); {
		out, err := p.NextPage(ctx)
		if err != nil {
			return nil, err
		}
		all = append(all, out.LogGroups...)
	}
	return all, nil
}

// Tags are a group's.
func (c *CloudWatch) Tags(ctx context.Context, g types.LogGroup) (map[string]string, error) {
	arn := strings.TrimSuffix(aws.ToString(g.Arn), ":*")
	out, err := c.api.ListTagsForResource(ctx, &cloudwatchlogs.ListTagsForResourceInput{ResourceArn: &arn})
	if err != nil {
		return nil, err
	}
	return out.Tags, nil
}

// Streams are the names of a group's streams.
func (c *CloudWatch) Streams(ctx context.Context, group string) ([]string, error) {
	var all []string
	for p := cloudwatchlogs.NewDescribeLogStreamsPaginator(c.api, &cloudwatchlogs.DescribeLogStreamsInput{LogGroupName: &group}); p.HasMorePages(); {
		out, err := p.NextPage(ctx)
		if err != nil {
			return nil, err
		}
		for _, s := range out.LogStreams {
			all = append(all, aws.ToString(s.LogStreamName))
		}
	}
	return all, nil
}

// Event is one event as it is read back.
type Event struct {
	Group, Stream string
	Timestamp     int64 // milliseconds
	Message       string
}

// Events are a stream's, in the order GetLogEvents returns.
func (c *CloudWatch) Events(ctx context.Context, group, stream string) ([]Event, error) {
	var all []Event
	in := &cloudwatchlogs.GetLogEventsInput{LogGroupName: &group, LogStreamName: &stream, StartFromHead: aws.Bool(true)}
	for {
		out, err := c.api.GetLogEvents(ctx, in)
		if err != nil {
			return nil, err
		}
		for _, e := range out.Events {
			all = append(all, Event{group, stream, aws.ToInt64(e.Timestamp), aws.ToString(e.Message)})
		}
		if in.NextToken != nil && aws.ToString(out.NextForwardToken) == *in.NextToken {
			return all, nil
		}
		in.NextToken = out.NextForwardToken
	}
}

// All reads every event of every group.
func (c *CloudWatch) All(ctx context.Context) ([]Event, error) {
	groups, err := c.Groups(ctx)
	if err != nil {
		return nil, err
	}
	var all []Event
	for _, g := range groups {
		streams, err := c.Streams(ctx, aws.ToString(g.LogGroupName))
		if err != nil {
			return nil, err
		}
		for _, s := range streams {
			events, err := c.Events(ctx, aws.ToString(g.LogGroupName), s)
			if err != nil {
				return nil, err
			}
			all = append(all, events...)
		}
	}
	return all, nil
}

// StartStandIn starts the stand-in over HTTPS and makes a client of it; dir takes the
// authority's PEM file. The server is returned for tests that inject answers.
func StartStandIn(dir string, cfg fakeaws.Config) (*CloudWatch, *fakeaws.Server, error) {
	if cfg.Region == "" {
		cfg.Region = "us-east-1"
	}
	s := fakeaws.New(cfg)
	url, err := s.StartTLS("")
	if err != nil {
		return nil, nil, err
	}
	pem, err := s.CAPEM()
	if err != nil {
		return nil, nil, err
	}
	caFile := filepath.Join(dir, "ca.pem")
	if err := os.WriteFile(caFile, pem, 0o600); err != nil {
		return nil, nil, err
	}
	cw, err := NewCloudWatch(url, cfg.Region, fakeaws.DefaultAccessKeyID, fakeaws.DefaultSecretAccessKey, caFile, pem)
	return cw, s, err
}
