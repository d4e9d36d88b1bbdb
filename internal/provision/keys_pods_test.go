package provision

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/eks"
	"github.com/aws/aws-sdk-go-v2/service/kms"
	kmstypes "github.com/aws/aws-sdk-go-v2/service/kms/types"
	"github.com/stretchr/testify/require"

	"github.com/eks-tenant-logs/eks-tenant-logs/internal/awsclient/control"
	"github.com/eks-tenant-logs/eks-tenant-logs/internal/fakeaws"
	"github.com/eks-tenant-logs/eks-tenant-logs/internal/iampolicy"
)

// listedKMS is the stand-in's KMS with the one call it does not have: the keys made through
// it, whatever became of their answers.
type listedKMS struct {
	*kms.Client
	made []string
	// crash stops the caller once the key is made.
	crash bool
}

func (l *listedKMS) CreateKey(_ context.Context, in *kms.CreateKeyInput, options ...func(*kms.Options)) (*kms.CreateKeyOutput, error) {
	out, err := l.Client.CreateKey(context.Background(), in, options...)
	if err == nil {
		l.made = append(l.made, *out.KeyMetadata.KeyId)
		if l.crash {
			return nil, errors.New("the answer is lost")
		}
	}
	return out, err
}

func (l *listedKMS) ListKeys(context.Context, *kms.ListKeysInput, ...func(*kms.Options)) (*kms.ListKeysOutput, error) {
	out := &kms.ListKeysOutput{}
	for _, id := range l.made {
		out.Keys = append(out.Keys, kmstypes.KeyListEntry{KeyId: &id})
	}
	return out, nil
}

func TestEachTenantHasAKeyMadeOnceWhateverIsInterrupted(t *testing.T) {
	for _, at := range []string{"", "CreateKey's answer", "kms:CreateAlias", "kms:EnableKeyRotation", "CreateLogGroup"} {
		t.Run(at, func(t *testing.T) {
			a := newAccount(t, fakeaws.Config{})
			keys := &listedKMS{Client: a.kms, crash: at == "CreateKey's answer"}
			a.cloud.KMS = keys
			var failed atomic.Bool
			a.SetIntercept(func(c fakeaws.Call) error {
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
				keys.crash = false
				r = reconciled(t, a.provisioner(t, "c1", own), acme)
			}
			require.Equal(t, StateReady, status(t, r, "acme").State, "%+v", r)
			require.Len(t, keys.made, 1)
			require.Equal(t, "arn:aws:kms:us-east-1:123456789012:key/"+keys.made[0], a.group(t, "/eks/tenants/acme").KMSKeyID)
			p := a.provisioner(t, "c1", own)
			require.Zero(t, reconciled(t, p, acme).Actions)
			require.Zero(t, reconciled(t, p, acme).Actions)
		})
	}
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
