package fakeaws_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/service/iam"
	"github.com/stretchr/testify/require"
)

// Every reader on every group, by every call that reads: names that are the beginning of others, and as long as they get.
func TestNoReaderReadsAnothersGroup(t *testing.T) {
	long := strings.Repeat("x", 62)
	tenants := []string{"a", "aa", "acme", "acme-", "acme-corp", "acme-corp-2", "corp", "1", "12", long + "1", long + "2", "acmE"}
	reads := []string{"GetLogEvents", "FilterLogEvents", "DescribeLogStreams"}
	f := startEnforcing(t)
	boundary := createPolicy(t, f.iam, "boundary", policy(groupPrefix+"/eks/tenants/${aws:PrincipalTag/eks-tenant-logs/tenant}:*", "logs:*"))
	calls := map[string]map[string]func(string) error{}
	for i, tenant := range tenants {
		group := "/eks/tenants/" + tenant
		f.createGroup(t, group)
		f.createStream(t, group, "s")
		// Half of the roles have no more than their boundary to hold them.
		inline := policy(groupPrefix+group+":*", "logs:GetLogEvents", "logs:FilterLogEvents", "logs:DescribeLogStreams")
		if i%2 == 1 {
			inline = policy("*", "logs:*")
		}
		arn := role(t, f.iam, fmt.Sprint("reader-", i), trustSelf, inline, tagged("eks-tenant-logs/tenant", tenant), func(in *iam.CreateRoleInput) { in.PermissionsBoundary = &boundary })
		calls[tenant] = logsCalls(t, newClient(f.url, assume(t, f.sts, arn)))
	}
	for _, reader := range tenants {
		for _, owner := range tenants {
			for _, operation := range reads {
				err := calls[reader][operation]("/eks/tenants/" + owner)
				if reader == owner {
					require.NoError(t, err, "%s by %s", operation, reader)
					continue
				}
				require.Error(t, err, "%s of %s by %s", operation, owner, reader)
				requireStatus(t, err, "AccessDeniedException", http.StatusBadRequest)
			}
		}
		requireCode(t, calls[reader]["DescribeLogGroups"]("/"), "AccessDeniedException", "")
	}
}
