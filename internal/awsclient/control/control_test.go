package control

import (
	"context"
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/eks"
	"github.com/aws/aws-sdk-go-v2/service/iam"
	"github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/stretchr/testify/require"

	"github.com/eks-tenant-logs/eks-tenant-logs/internal/awsclient"
	"github.com/eks-tenant-logs/eks-tenant-logs/internal/fakeaws"
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

// Keys that were rotated fail no call of any service, and neither does a session that ended early.
func TestRotatedCredentialsAreReadAgainForEachService(t *testing.T) {
	s := fakeaws.New(fakeaws.Config{})
	url, err := s.Start("")
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, s.Close()) })
	s.Account("123456789012").AddCluster("c1")
	for _, name := range []string{"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"} {
		t.Setenv(name, "")
	}
	file := t.TempDir() + "/credentials"
	t.Setenv("AWS_CONFIG_FILE", "/dev/null")
	t.Setenv("AWS_SHARED_CREDENTIALS_FILE", file)
	write := func(c fakeaws.Credentials) {
		require.NoError(t, os.WriteFile(file+".new", fmt.Appendf(nil, "[default]\naws_access_key_id=%s\naws_secret_access_key=%s\n", c.AccessKeyID, c.SecretAccessKey), 0o600))
		require.NoError(t, os.Rename(file+".new", file))
	}
	const role = "arn:aws:iam::123456789012:role/provisioner"
	for _, assume := range []string{"", role} {
		for service, call := range map[string]func(*testing.T, *awsclient.Client) error{
			"iam": func(t *testing.T, c *awsclient.Client) error {
				api, err := NewIAM(c, url)
				require.NoError(t, err)
				_, err = api.ListRoles(t.Context(), &iam.ListRolesInput{})
				return err
			},
			"kms": func(t *testing.T, c *awsclient.Client) error {
				api, err := NewKMS(c, url)
				require.NoError(t, err)
				_, err = api.ListAliases(t.Context(), &kms.ListAliasesInput{})
				return err
			},
			"eks": func(t *testing.T, c *awsclient.Client) error {
				api, err := NewEKS(c, url)
				require.NoError(t, err)
				_, err = api.ListPodIdentityAssociations(t.Context(), &eks.ListPodIdentityAssociationsInput{ClusterName: aws.String("c1")})
				return err
			},
			"sts": func(t *testing.T, c *awsclient.Client) error {
				_, _, err := c.Account(t.Context())
				return err
			},
		} {
			t.Run(service+assume, func(t *testing.T) {
				key, err := s.Account("123456789012").AddUser("agent")
				require.NoError(t, err)
				write(key)
				c, err := awsclient.New(t.Context(), awsclient.Config{Region: "us-east-1", Endpoint: url, STSEndpoint: url, RoleARN: assume})
				require.NoError(t, err)
				require.NoError(t, call(t, c))
				next, err := s.RotateKey(key.AccessKeyID)
				require.NoError(t, err)
				write(next)
				s.RetireKey(key.AccessKeyID)
				if assume == "" {
					require.NoError(t, call(t, c))
					return
				}
				// A session's end needs STS, which is asked a while after the last time at most.
				require.NotZero(t, s.ExpireSessions(role))
				require.Eventually(t, func() bool { return call(t, c) == nil }, time.Minute, 10*time.Millisecond)
			})
		}
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
