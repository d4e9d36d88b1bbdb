// Package control builds the SDK's clients of what only the provisioner asks: IAM, KMS and
// EKS, configured as awsclient does. It is apart so that the plugin does not link them.
package control

import (
	"context"

	"github.com/aws/aws-sdk-go-v2/service/eks"
	"github.com/aws/aws-sdk-go-v2/service/iam"
	"github.com/aws/aws-sdk-go-v2/service/kms"
	smithyendpoints "github.com/aws/smithy-go/endpoints"

	"github.com/eks-tenant-logs/eks-tenant-logs/internal/awsclient"
)

// NewIAM is IAM as c's identity; endpoint replaces AWS's own host, as in awsclient.Config.
// What the environment or the profile say of it is judged as the option is: awsclient.Judge.
func NewIAM(c *awsclient.Client, endpoint string) (*iam.Client, error) {
	cfg := c.Config()
	cfg.Region = awsclient.IAMRegion(awsclient.Partition(c.Region), c.Region)
	o := iam.NewFromConfig(cfg).Options()
	at, err := c.Judge(context.Background(), awsclient.Service{
		Name: "iam", ID: iam.ServiceID, Option: "iam endpoint", Given: endpoint,
		Region: o.Region, Configured: o.BaseEndpoint,
		FIPS: o.EndpointOptions.UseFIPSEndpoint, DualStack: o.EndpointOptions.UseDualStackEndpoint,
		Resolve: func(ctx context.Context, region string, fips, dualStack bool) (smithyendpoints.Endpoint, error) {
			return o.EndpointResolverV2.ResolveEndpoint(ctx, iam.EndpointParameters{Region: &region, UseFIPS: &fips, UseDualStack: &dualStack})
		},
	})
	if err != nil {
		return nil, err
	}
	return iam.NewFromConfig(cfg, func(o *iam.Options) {
		o.HTTPSignerV4 = c.Signer()
		o.BaseEndpoint = at.Base()
	}), nil
}

// NewKMS is KMS in c's region and as c's identity; endpoint as for NewIAM.
func NewKMS(c *awsclient.Client, endpoint string) (*kms.Client, error) {
	o := kms.NewFromConfig(c.Config()).Options()
	at, err := c.Judge(context.Background(), awsclient.Service{
		Name: "kms", ID: kms.ServiceID, Option: "kms endpoint", Given: endpoint,
		Region: o.Region, Configured: o.BaseEndpoint,
		FIPS: o.EndpointOptions.UseFIPSEndpoint, DualStack: o.EndpointOptions.UseDualStackEndpoint,
		Resolve: func(ctx context.Context, region string, fips, dualStack bool) (smithyendpoints.Endpoint, error) {
			return o.EndpointResolverV2.ResolveEndpoint(ctx, kms.EndpointParameters{Region: &region, UseFIPS: &fips, UseDualStack: &dualStack})
		},
	})
	if err != nil {
		return nil, err
	}
	return kms.NewFromConfig(c.Config(), func(o *kms.Options) {
		o.HTTPSignerV4 = c.Signer()
		o.BaseEndpoint = at.Base()
	}), nil
}

// NewEKS is EKS in c's region and as c's identity; endpoint as for NewIAM.
func NewEKS(c *awsclient.Client, endpoint string) (*eks.Client, error) {
	o := eks.NewFromConfig(c.Config()).Options()
	at, err := c.Judge(context.Background(), awsclient.Service{
		Name: "eks", ID: eks.ServiceID, Option: "eks endpoint", Given: endpoint,
		Region: o.Region, Configured: o.BaseEndpoint,
		FIPS: o.EndpointOptions.UseFIPSEndpoint, DualStack: o.EndpointOptions.UseDualStackEndpoint,
		Resolve: func(ctx context.Context, region string, fips, dualStack bool) (smithyendpoints.Endpoint, error) {
			return o.EndpointResolverV2.ResolveEndpoint(ctx, eks.EndpointParameters{Region: &region, UseFIPS: &fips, UseDualStack: &dualStack})
		},
	})
	if err != nil {
		return nil, err
	}
	return eks.NewFromConfig(c.Config(), func(o *eks.Options) {
		o.HTTPSignerV4 = c.Signer()
		o.BaseEndpoint = at.Base()
	}), nil
}
