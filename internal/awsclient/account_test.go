package awsclient

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/eks-tenant-logs/eks-tenant-logs/internal/fakeaws"
)

func TestEachPartitionHasOneRegionForIAM(t *testing.T) {
	for region, want := range map[string][2]string{
		"us-east-1":      {"aws", "us-east-1"},
		"eu-central-1":   {"aws", "us-east-1"},
		"us-gov-east-1":  {"aws-us-gov", "us-gov-west-1"},
		"cn-north-1":     {"aws-cn", "cn-north-1"},
		"cn-northwest-1": {"aws-cn", "cn-north-1"},
		"us-iso-east-1":  {"aws-iso", "us-iso-east-1"},
		"us-isob-east-1": {"aws-iso-b", "us-isob-east-1"},
	} {
		require.Equal(t, want, [2]string{Partition(region), IAMRegion(Partition(region), region)}, region)
	}
}

func TestTheAccountIsTheCallers(t *testing.T) {
	_, url := start(t, fakeaws.Config{AccountID: "999988887777"})
	c, err := New(context.Background(), Config{Region: "us-east-1", Endpoint: url, STSEndpoint: url})
	require.NoError(t, err)
	account, arn, err := c.Account(context.Background())
	require.NoError(t, err)
	require.Equal(t, "999988887777", account)
	require.Contains(t, arn, ":user/")
}
