// Package control builds the SDK's clients of what only the provisioner asks: IAM, KMS and
// EKS, configured as awsclient does. It is apart so that the plugin does not link them.
package control

import (
	"fmt"

	"github.com/aws/aws-sdk-go-v2/service/eks"
	"github.com/aws/aws-sdk-go-v2/service/iam"
	"github.com/aws/aws-sdk-go-v2/service/kms"

	"github.com/eks-tenant-logs/eks-tenant-logs/internal/awsclient"
)

// NewIAM is IAM as c's identity; endpoint replaces AWS's own host, as in awsclient.Config.
func NewIAM(c *awsclient.Client, endpoint string) (*iam.Client, error) {
	url, err := awsclient.EndpointURL(endpoint)
	if err != nil {
		return nil, fmt.Errorf("iam endpoint: %w", err)
	}
	return iam.NewFromConfig(c.Config(), func(o *iam.Options) {
		o.HTTPSignerV4 = c.Signer()
		o.Region = awsclient.IAMRegion(awsclient.Partition(c.Region), c.Region)
		if url != "" {
			o.BaseEndpoint = &url
		}
	}), nil
}

// NewKMS is KMS in c's region and as c's identity; endpoint as for NewIAM.
func NewKMS(c *awsclient.Client, endpoint string) (*kms.Client, error) {
	url, err := awsclient.EndpointURL(endpoint)
	if err != nil {
		return nil, fmt.Errorf("kms endpoint: %w", err)
	}
	return kms.NewFromConfig(c.Config(), func(o *kms.Options) {
		o.HTTPSignerV4 = c.Signer()
		if url != "" {
			o.BaseEndpoint = &url
		}
	}), nil
}

// NewEKS is EKS in c's region and as c's identity; endpoint as for NewIAM.
func NewEKS(c *awsclient.Client, endpoint string) (*eks.Client, error) {
	url, err := awsclient.EndpointURL(endpoint)
	if err != nil {
		return nil, fmt.Errorf("eks endpoint: %w", err)
	}
	return eks.NewFromConfig(c.Config(), func(o *eks.Options) {
		o.HTTPSignerV4 = c.Signer()
		if url != "" {
			o.BaseEndpoint = &url
		}
	}), nil
}
