package awsclient

import (
	"context"
	"fmt"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sts"
)

// Partition is the partition a region is in, as its name says.
func Partition(region string) string {
	for prefix, partition := range map[string]string{
		"us-gov-": "aws-us-gov", "cn-": "aws-cn", "us-iso-": "aws-iso", "us-isob-": "aws-iso-b", "us-isof-": "aws-iso-f",
		"eu-isoe-": "aws-iso-e", "eusc-": "aws-eusc",
	} {
		if strings.HasPrefix(region, prefix) {
			return partition
		}
	}
	return "aws"
}

// IAMRegion is the region that calls of IAM are signed for: IAM is one per partition (IAM
// User Guide, endpoints). For a partition it does not know it is region.
func IAMRegion(partition, region string) string {
	switch partition {
	case "aws":
		return "us-east-1"
	case "aws-us-gov":
		return "us-gov-west-1"
	case "aws-cn":
		return "cn-north-1"
	}
	return region
}

// Account asks STS whose credentials these are: the account's 12 digits, and the ARN of
// the caller.
func (c *Client) Account(ctx context.Context) (account, arn string, err error) {
	out, err := c.stsClient().GetCallerIdentity(ctx, &sts.GetCallerIdentityInput{})
	if err != nil {
		return "", "", fmt.Errorf("failed to ask whose credentials these are: %w", err)
	}
	return aws.ToString(out.Account), aws.ToString(out.Arn), nil
}

func (c *Client) stsClient() *sts.Client {
	return sts.NewFromConfig(c.cfg, func(o *sts.Options) {
		o.HTTPSignerV4 = c.Signer()
		if c.sts != "" {
			o.BaseEndpoint = &c.sts
		}
	})
}

// Config is the SDK's configuration of these calls, for clients of other services. It must
// not be changed.
func (c *Client) Config() aws.Config { return c.cfg }
