package provision

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/eks"
	"github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/stretchr/testify/require"

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
	for _, enforce := range []bool{false, true} {
		for _, at := range []string{"nowhere", "CreateKey's answer", "kms:CreateAlias", "kms:EnableKeyRotation", "CreateLogGroup"} {
			t.Run(fmt.Sprintf("%s, enforced %t", at, enforce), func(t *testing.T) {
				a := newAccount(t, fakeaws.Config{Enforce: enforce})
				another := func() *Provisioner { return a.provisioner(t, "c1", withKeys) }
				if enforce {
					another, _ = a.asItself(t, "c1", withKeys)
				}
				var failed atomic.Bool
				a.SetIntercept(func(c fakeaws.Call) error {
					switch {
					case c.LogGroup != "" && c.LogGroup != "/eks/tenants/acme":
					case at == "CreateKey's answer" && c.Operation == "kms:CreateKey" && failed.CompareAndSwap(false, true):
						return fakeaws.ErrAnswerLost
					case c.Operation == at && failed.CompareAndSwap(false, true):
						return &fakeaws.APIError{Code: "ValidationException", Message: "killed"}
					}
					return nil
				})
				acme := tenantOf("acme", "uid-1")
				r := reconciled(t, another(), acme)
				if at != "nowhere" {
					require.Equal(t, StateFailed, status(t, r, "acme").State)
					require.Nil(t, a.role(t, another(), "acme"), "nobody is given what is not ready")
					r = reconciled(t, another(), acme)
				}
				require.Equal(t, StateReady, status(t, r, "acme").State, "%+v", r)
				keys := a.tenantKeys(t)
				require.Len(t, keys, 1)
				require.Equal(t, "arn:aws:kms:us-east-1:123456789012:key/"+keys[0], a.group(t, "/eks/tenants/acme").KMSKeyID)
				p := another()
				require.Zero(t, reconciled(t, p, acme).Actions)
				require.Zero(t, reconciled(t, p, acme).Actions)
			})
		}
	}
}

func TestBearerTokensAreClosedAndStayClosed(t *testing.T) {
	a := newAccount(t, fakeaws.Config{})
	p := a.provisioner(t, "c1")
	acme := tenantOf("acme", "uid-1")
	reconciled(t, p, acme)
	names := []string{"/eks/tenants/acme", "/eks/quarantine/acme", "/eks/platform"}
	for _, name := range names {
		a.openBearer(t, name)
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
	list := func() []string {
		out, err := a.eks.ListPodIdentityAssociations(context.Background(), &eks.ListPodIdentityAssociationsInput{ClusterName: aws.String("c1")})
		require.NoError(t, err)
		var names []string
		for _, s := range out.Associations {
			names = append(names, *s.Namespace+"/"+*s.ServiceAccount)
		}
		return names
	}
	p := a.provisioner(t, "c1", withPods)
	acme := tenantOf("acme", "uid-1")
	r := reconciled(t, p, acme)
	require.Equal(t, StateReady, status(t, r, "acme").State, "%+v", r)
	require.Equal(t, []string{"tenant-acme/log-reader"}, list())
	require.Zero(t, reconciled(t, p, acme).Actions)
	require.Zero(t, reconciled(t, a.provisioner(t, "c1", withPods), acme).Actions)
	reconciled(t, p, tenantOf("acme", "uid-2"))
	require.Empty(t, list(), "the newcomer's pods get no role")
}

// A service account is called the same in the role's trust policy and in its association: else the
// pod would have an association with a role that does not trust it.
func TestPodIdentityAssociationsAreRenderedAsTheTrustPolicyIs(t *testing.T) {
	a := newAccount(t, fakeaws.Config{})
	a.Account(account).AddCluster("c1")
	const name = "$(tenant).$(cluster).$(region).$(account).$(partition)"
	p := a.provisioner(t, "c1", func(in *Installation) {
		in.Trust = iampolicy.Trust{PodIdentity: []iampolicy.ServiceAccount{{Namespace: "$(namespace)", Name: name}}}
	})
	acme := tenantOf("acme", "uid-1")
	r := reconciled(t, p, acme)
	require.Equal(t, StateReady, status(t, r, "acme").State, "%+v", r)
	out, err := a.eks.ListPodIdentityAssociations(context.Background(), &eks.ListPodIdentityAssociationsInput{ClusterName: aws.String("c1")})
	require.NoError(t, err)
	require.Len(t, out.Associations, 1)
	const filled = "acme.c1.us-east-1." + account + ".aws"
	require.Equal(t, "tenant-acme/"+filled, *out.Associations[0].Namespace+"/"+*out.Associations[0].ServiceAccount)
	trust, err := p.in.Scope.TrustPolicy(p.in.Trust, "acme", "tenant-acme")
	require.NoError(t, err)
	text, err := trust.Indent()
	require.NoError(t, err)
	require.Contains(t, string(text), `"`+filled+`"`)

	p = a.provisioner(t, "c1", func(in *Installation) {
		in.Trust = iampolicy.Trust{PodIdentity: []iampolicy.ServiceAccount{{Namespace: "$(namespace)", Name: "$(nobody)"}}}
	})
	r = reconciled(t, p, acme)
	require.Contains(t, status(t, r, "acme").Reason, "unknown variable $(nobody)")
}
