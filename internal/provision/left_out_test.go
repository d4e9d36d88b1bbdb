package provision

import (
	"context"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/cloudwatchlogs"
	"github.com/aws/aws-sdk-go-v2/service/cloudwatchlogs/types"
	"github.com/stretchr/testify/require"

	"github.com/eks-tenant-logs/eks-tenant-logs/internal/fakeaws"
)

// leavingOut is CloudWatch Logs whose descriptions of groups are changed.
type leavingOut struct {
	Logs
	change func(*types.LogGroup)
}

func (l *leavingOut) DescribeLogGroups(ctx context.Context, in *cloudwatchlogs.DescribeLogGroupsInput, o ...func(*cloudwatchlogs.Options)) (*cloudwatchlogs.DescribeLogGroupsOutput, error) {
	out, err := l.Logs.DescribeLogGroups(ctx, in, o...)
	if err == nil {
		for i := range out.LogGroups {
			l.change(&out.LogGroups[i])
		}
	}
	return out, err
}

// A tenant is ready where all that was asked for was read back, in a group that is made now as well as in
// one that is there.
func TestWhatWasAskedForAndIsNotReadBackIsNotReady(t *testing.T) {
	const name = "/eks/tenants/acme"
	of := func(change func(*types.LogGroup)) func(*types.LogGroup) {
		return func(g *types.LogGroup) {
			if aws.ToString(g.LogGroupName) == name {
				change(g)
			}
		}
	}
	for what, test := range map[string]struct {
		change func(*types.LogGroup)
		want   string
	}{
		"retention":                 {func(g *types.LogGroup) { g.RetentionInDays = nil }, "keeps its events for ever"},
		"deletion protection":       {func(g *types.LogGroup) { g.DeletionProtectionEnabled = nil }, "no deletion protection"},
		"class":                     {func(g *types.LogGroup) { g.LogGroupClass = "" }, "does not tell its class"},
		"another class":             {func(g *types.LogGroup) { g.LogGroupClass = types.LogGroupClassInfrequentAccess }, "has class INFREQUENT_ACCESS instead of STANDARD"},
		"key":                       {func(g *types.LogGroup) { g.KmsKeyId = nil }, "encrypted with CloudWatch's own key instead of key arn:"},
		"another key":               {func(g *types.LogGroup) { g.KmsKeyId = aws.String("arn:aws:kms:us-east-1:123456789012:key/x") }, "encrypted with key arn:aws:kms:us-east-1:123456789012:key/x instead"},
		"bearer tokens not refused": {func(g *types.LogGroup) { g.BearerTokenAuthenticationEnabled = aws.Bool(true) }, "open to bearer tokens"},
	} {
		t.Run(what, func(t *testing.T) {
			a := newAccount(t, fakeaws.Config{})
			whole := a.cloud.Logs
			asked := func(in *Installation) { withKeys(in); in.DeletionProtection = true }
			a.cloud.Logs = &leavingOut{whole, of(test.change)}
			s := status(t, reconciled(t, a.provisioner(t, "c1", asked), tenantOf("acme", "uid-1")), "acme")
			require.Equal(t, StateFailed, s.State, "a new group")
			require.Contains(t, s.Reason, test.want)
			require.Equal(t, stateNew, a.group(t, name).Tags[tagState])
			a.cloud.Logs = whole
			s = status(t, reconciled(t, a.provisioner(t, "c1", asked), tenantOf("acme", "uid-1")), "acme")
			require.Equal(t, StateReady, s.State, s.Reason)
			if what == "retention" {
				return // a finished group without days keeps its events for ever, which is a finding
			}
			a.cloud.Logs = &leavingOut{whole, of(test.change)}
			s = status(t, reconciled(t, a.provisioner(t, "c1", asked), tenantOf("acme", "uid-1")), "acme")
			require.Equal(t, StateFailed, s.State, "a group that is there")
			require.Contains(t, s.Reason, test.want)
		})
	}
}
