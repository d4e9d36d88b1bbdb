package provision

import (
	"context"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/cloudwatchlogs"
	"github.com/aws/aws-sdk-go-v2/service/eks"
	"github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/stretchr/testify/require"

	"github.com/eks-tenant-logs/eks-tenant-logs/internal/awsclient/control"
	"github.com/eks-tenant-logs/eks-tenant-logs/internal/fakeaws"
	"github.com/eks-tenant-logs/eks-tenant-logs/internal/iampolicy"
)

// tenantKeys are the ids of all keys there are.
func (a *testAccount) tenantKeys(t testing.TB) (ids []string) {
	t.Helper()
	out, err := a.kms.ListKeys(context.Background(), &kms.ListKeysInput{})
	require.NoError(t, err)
	for _, k := range out.Keys {
		ids = append(ids, *k.KeyId)
	}
	return ids
}

func TestEachTenantHasAKeyMadeOnceWhateverIsInterrupted(t *testing.T) {
	for _, at := range []string{"", "CreateKey's answer", "kms:CreateAlias", "kms:EnableKeyRotation", "CreateLogGroup"} {
		t.Run(at, func(t *testing.T) {
			a := newAccount(t, fakeaws.Config{})
			var failed atomic.Bool
			a.SetIntercept(func(c fakeaws.Call) error {
				if at == "CreateKey's answer" && c.Operation == "kms:CreateKey" && failed.CompareAndSwap(false, true) {
					return fakeaws.ErrAnswerLost
				}
				if c.Operation == at && !strings.HasPrefix(c.LogGroup, "/eks/platform") && !strings.HasPrefix(c.LogGroup, "/eks/quarantine") && failed.CompareAndSwap(false, true) {
					return &fakeaws.APIError{Code: "AccessDeniedException", Message: "killed"}
				}
				return nil
			})
			own := func(in *Installation) { in.KeyPerTenant = true }
			acme := tenantOf("acme", "uid-1")
			r := reconciled(t, a.provisioner(t, "c1", own), acme)
			if at != "" {
				require.Equal(t, StateFailed, status(t, r, "acme").State)
				require.Nil(t, a.role(t, a.provisioner(t, "c1"), "acme"), "nobody is given what is not ready")
				r = reconciled(t, a.provisioner(t, "c1", own), acme)
			}
			require.Equal(t, StateReady, status(t, r, "acme").State, "%+v", r)
			keys := a.tenantKeys(t)
			require.Len(t, keys, 1)
			require.Equal(t, "arn:aws:kms:us-east-1:123456789012:key/"+keys[0], a.group(t, "/eks/tenants/acme").KMSKeyID)
			p := a.provisioner(t, "c1", own)
			require.Zero(t, reconciled(t, p, acme).Actions)
			require.Zero(t, reconciled(t, p, acme).Actions)
		})
	}
}

func TestBearerTokensAreClosedAndStayClosed(t *testing.T) {
	a := newAccount(t, fakeaws.Config{})
	p := a.provisioner(t, "c1")
	acme := tenantOf("acme", "uid-1")
	reconciled(t, p, acme)
	names := []string{"/eks/tenants/acme", "/eks/quarantine/acme", "/eks/platform"}
	for _, name := range names {
		_, err := a.logs.PutBearerTokenAuthentication(context.Background(), &cloudwatchlogs.PutBearerTokenAuthenticationInput{LogGroupIdentifier: &name, BearerTokenAuthenticationEnabled: aws.Bool(true)})
		require.NoError(t, err)
		require.True(t, a.group(t, name).BearerTokens)
	}
	r := reconciled(t, p, acme)
	require.Equal(t, StateReady, status(t, r, "acme").State, "%+v", r)
	require.Equal(t, len(names), r.Writes)
	require.Equal(t, len(names), r.Repaired["group"], "%+v", r)
	for _, name := range names {
		require.False(t, a.group(t, name).BearerTokens, name)
	}
	require.Zero(t, reconciled(t, p, acme).Writes)
	require.Zero(t, reconciled(t, a.provisioner(t, "c1"), acme).Writes)
}

func TestPodIdentityAssociationsFollowTheClaim(t *testing.T) {
	a := newAccount(t, fakeaws.Config{})
	a.Account(account).AddCluster("c1")
	api, err := control.NewEKS(a.logs, a.url)
	require.NoError(t, err)
	a.cloud.EKS = api
	pods := func(in *Installation) {
		in.Trust = iampolicy.Trust{PodIdentity: []iampolicy.ServiceAccount{{Namespace: "$(namespace)", Name: "log-reader"}}}
	}
	list := func() []string {
		out, err := api.ListPodIdentityAssociations(context.Background(), &eks.ListPodIdentityAssociationsInput{ClusterName: aws.String("c1")})
		require.NoError(t, err)
		var names []string
		for _, s := range out.Associations {
			names = append(names, *s.Namespace+"/"+*s.ServiceAccount)
		}
		return names
	}
	p := a.provisioner(t, "c1", pods)
	acme := tenantOf("acme", "uid-1")
	r := reconciled(t, p, acme)
	require.Equal(t, StateReady, status(t, r, "acme").State, "%+v", r)
	require.Equal(t, []string{"tenant-acme/log-reader"}, list())
	require.Zero(t, reconciled(t, p, acme).Actions)
	require.Zero(t, reconciled(t, a.provisioner(t, "c1", pods), acme).Actions)
	reconciled(t, p, tenantOf("acme", "uid-2"))
	require.Empty(t, list(), "the newcomer's pods get no role")
}
