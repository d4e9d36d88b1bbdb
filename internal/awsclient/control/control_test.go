package control

import (
	"context"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/stretchr/testify/require"

	"github.com/eks-tenant-logs/eks-tenant-logs/internal/awsclient"
)

func TestEndpointsOfTheOtherServicesAreCheckedLikeTheFirst(t *testing.T) {
	t.Setenv("AWS_CONFIG_FILE", "/dev/null")
	c, err := awsclient.New(context.Background(), awsclient.Config{Region: "us-east-1"})
	require.NoError(t, err)
	for name, build := range map[string]func(string) error{
		"iam": func(e string) error { _, err := NewIAM(c, e); return err },
		"kms": func(e string) error { _, err := NewKMS(c, e); return err },
		"eks": func(e string) error { _, err := NewEKS(c, e); return err },
	} {
		require.ErrorContains(t, build("http://example.com"), name+" endpoint: ", name)
		require.NoError(t, build("http://127.0.0.1:1"), name)
		require.NoError(t, build(""), name)
	}
}

// Another service's endpoint is judged whatever its source, and its client is built with what was judged.
func TestEndpointsOfTheOtherServicesAreJudgedWhateverTheirSource(t *testing.T) {
	const remote = "http://e.example.com"
	for name, build := range map[string]func(*awsclient.Client) (*string, error){
		"iam": func(c *awsclient.Client) (*string, error) {
			s, err := NewIAM(c, "")
			if err != nil {
				return nil, err
			}
			return s.Options().BaseEndpoint, nil
		},
		"kms": func(c *awsclient.Client) (*string, error) {
			s, err := NewKMS(c, "")
			if err != nil {
				return nil, err
			}
			return s.Options().BaseEndpoint, nil
		},
		"eks": func(c *awsclient.Client) (*string, error) {
			s, err := NewEKS(c, "")
			if err != nil {
				return nil, err
			}
			return s.Options().BaseEndpoint, nil
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Setenv("AWS_CONFIG_FILE", "/dev/null")
			variable := "AWS_ENDPOINT_URL_" + map[string]string{"iam": "IAM", "kms": "KMS", "eks": "EKS"}[name]
			for _, cfg := range []awsclient.Config{{Region: "us-east-1"}, {Region: "us-east-1", UseFIPS: true}, {Region: "us-east-1", UseDualStack: true}} {
				c, err := awsclient.New(context.Background(), cfg)
				require.NoError(t, err)
				base, err := build(c)
				require.NoError(t, err)
				require.Nil(t, base)
				t.Setenv(variable, remote)
				_, err = build(c)
				require.ErrorContains(t, err, variable+": ")
				t.Setenv(variable, "https://e.example.com/")
				base, err = build(c)
				if cfg.UseFIPS || cfg.UseDualStack {
					require.ErrorContains(t, err, variable+" (https://e.example.com) replaces AWS's host of ")
				} else {
					require.NoError(t, err)
					require.Equal(t, "https://e.example.com", aws.ToString(base))
				}
				t.Setenv(variable, "")
			}
		})
	}
}

// The hosts that the provisioner speaks to, as the SDK's resolvers have them: kinds of
// endpoints by partition.
func TestHostsOfTheOtherServices(t *testing.T) {
	t.Setenv("AWS_CONFIG_FILE", "/dev/null")
	for region, kinds := range map[string]map[[2]bool][3]string{ // FIPS, dual-stack: IAM, KMS, EKS
		"us-east-1": {
			{false, false}: {"iam.amazonaws.com", "kms.us-east-1.amazonaws.com", "eks.us-east-1.amazonaws.com"},
			{true, false}:  {"iam-fips.amazonaws.com", "kms-fips.us-east-1.amazonaws.com", "fips.eks.us-east-1.amazonaws.com"},
			{false, true}:  {"iam.global.api.aws", "kms.us-east-1.api.aws", "eks.us-east-1.api.aws"},
			{true, true}:   {"iam-fips.global.api.aws", "kms-fips.us-east-1.api.aws", "eks-fips.us-east-1.api.aws"},
		},
		"us-gov-west-1": {
			{false, false}: {"iam.us-gov.amazonaws.com", "kms.us-gov-west-1.amazonaws.com", "eks.us-gov-west-1.amazonaws.com"},
			{true, false}:  {"iam.us-gov.amazonaws.com", "kms-fips.us-gov-west-1.amazonaws.com", "eks.us-gov-west-1.amazonaws.com"},
			{false, true}:  {"iam.us-gov.api.aws", "kms.us-gov-west-1.api.aws", "eks.us-gov-west-1.api.aws"},
			{true, true}:   {"iam.us-gov.api.aws", "kms-fips.us-gov-west-1.api.aws", "eks-fips.us-gov-west-1.api.aws"},
		},
		"cn-north-1": {
			{false, false}: {"iam.cn-north-1.amazonaws.com.cn", "kms.cn-north-1.amazonaws.com.cn", "eks.cn-north-1.amazonaws.com.cn"},
			{false, true}:  {"iam.global.api.amazonwebservices.com.cn", "kms.cn-north-1.api.amazonwebservices.com.cn", "eks.cn-north-1.api.amazonwebservices.com.cn"},
		},
	} {
		for kind, want := range kinds {
			c, err := awsclient.New(context.Background(), awsclient.Config{Region: region, UseFIPS: kind[0], UseDualStack: kind[1]})
			require.NoError(t, err)
			_, err = NewIAM(c, "")
			require.NoError(t, err)
			_, err = NewKMS(c, "")
			require.NoError(t, err)
			_, err = NewEKS(c, "")
			require.NoError(t, err)
			said := map[string]string{}
			for _, a := range c.InForce() {
				said[a.Key] = a.Value.String()
			}
			require.Equal(t, [3]string{"https://" + want[0], "https://" + want[1], "https://" + want[2]},
				[3]string{said["iam_endpoint"], said["kms_endpoint"], said["eks_endpoint"]}, "%s, FIPS and dual-stack: %v", region, kind)
		}
	}
}
