package control

import (
	"context"
	"testing"

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
