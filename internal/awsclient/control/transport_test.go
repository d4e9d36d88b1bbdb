package control

import (
	"net/http"
	"os"
	"path/filepath"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/cloudwatchlogs"
	"github.com/aws/aws-sdk-go-v2/service/eks"
	"github.com/aws/aws-sdk-go-v2/service/iam"
	"github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/stretchr/testify/require"

	"github.com/eks-tenant-logs/eks-tenant-logs/internal/awsclient"
	"github.com/eks-tenant-logs/eks-tenant-logs/internal/fakeaws"
)

// Each service's client is asked, for the SDK may clone the transport for each (golang/go#50571).
func TestEachServiceIsReachedWhereThePeerPrefersHTTP2(t *testing.T) {
	var both http.Protocols
	both.SetHTTP1(true)
	both.SetHTTP2(true)
	for _, mode := range []string{"", "in-region"} {
		t.Run("mode "+mode, func(t *testing.T) {
			s := fakeaws.New(fakeaws.Config{Protocols: both})
			t.Cleanup(func() { require.NoError(t, s.Close()) })
			url, err := s.StartTLS("")
			require.NoError(t, err)
			pem, err := s.CAPEM()
			require.NoError(t, err)
			file := filepath.Join(t.TempDir(), "ca.pem")
			require.NoError(t, os.WriteFile(file, pem, 0o600))
			for k, v := range map[string]string{
				"AWS_ACCESS_KEY_ID": fakeaws.DefaultAccessKeyID, "AWS_SECRET_ACCESS_KEY": fakeaws.DefaultSecretAccessKey, "AWS_SESSION_TOKEN": "",
				"AWS_CONFIG_FILE": "/nonexistent", "AWS_SHARED_CREDENTIALS_FILE": "/nonexistent", "AWS_EC2_METADATA_DISABLED": "true",
				"AWS_CA_BUNDLE": file, "AWS_DEFAULTS_MODE": mode,
			} {
				t.Setenv(k, v)
			}
			s.Account("123456789012").AddCluster("c1")
			c, err := awsclient.New(t.Context(), awsclient.Config{Region: "us-east-1", Endpoint: url, STSEndpoint: url, MaxConns: 2})
			require.NoError(t, err)
			roles, err := NewIAM(c, url)
			require.NoError(t, err)
			keys, err := NewKMS(c, url)
			require.NoError(t, err)
			clusters, err := NewEKS(c, url)
			require.NoError(t, err)
			for name, call := range map[string]func() error{
				"logs": func() error {
					_, err := c.DescribeLogGroups(t.Context(), &cloudwatchlogs.DescribeLogGroupsInput{})
					return err
				},
				"sts": func() error { _, _, err := c.Account(t.Context()); return err },
				"iam": func() error { _, err := roles.ListRoles(t.Context(), &iam.ListRolesInput{}); return err },
				"kms": func() error { _, err := keys.CreateKey(t.Context(), &kms.CreateKeyInput{}); return err },
				"eks": func() error {
					_, err := clusters.DescribeCluster(t.Context(), &eks.DescribeClusterInput{Name: aws.String("c1")})
					return err
				},
				"a role": func() error {
					_, err := c.As(awsclient.Role{ARN: "arn:aws:iam::123456789012:role/r"}).DescribeLogGroups(t.Context(), &cloudwatchlogs.DescribeLogGroupsInput{})
					return err
				},
			} {
				require.NoError(t, call(), name)
			}
		})
	}
}
