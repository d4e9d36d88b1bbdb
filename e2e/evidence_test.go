package e2e

import (
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/cloudwatchlogs"
	"github.com/stretchr/testify/require"

	"github.com/eks-tenant-logs/eks-tenant-logs/internal/fakeaws"
)

// Promise 12: the evidence of docs/compliance.md can be had with the auditors' role, which reads
// no content and changes nothing.
func TestTheAuditorsRoleIsEnoughForTheEvidenceAndForNothingElse(t *testing.T) {
	cw, s := standIn(t, fakeaws.Config{Enforce: true})
	made := []string{"--writer-pod-identity=logs/eks-tenant-logs-fluent-bit", "--auditor-principal=arn:aws:iam::123456789012:root"}
	said, code := provision(t, cw, append([]string{"bootstrap"}, made...)...)
	require.Zero(t, code)
	role := said.Roles["auditor"]
	auditor := "--role-arn=" + role
	named := []string{trusting, "--namespace=tenant-acme=u1", "--namespace=tenant-globex=u2"}
	_, code = provision(t, cw, append([]string{"apply"}, named...)...)
	require.Zero(t, code)

	before := changing(s)
	stdout, stderr, code := runCommand(t, cw, "tenants", auditor)
	require.Zero(t, code, string(stderr))
	require.Regexp(t, `(?m)^acme +tenant-acme +/eks/tenants/acme +365 days +eks-tenant-logs_acme_\w+ +none +ready$`, string(stdout))
	stdout, _, code = runCommand(t, cw, append([]string{"plan", auditor}, named...)...)
	require.Zero(t, code)
	require.Equal(t, "0 actions for 2 tenants (2 ready), 0 findings\n", string(stdout))
	stdout, _, code = runCommand(t, cw, append([]string{"bootstrap", "--dry-run", auditor}, made...)...)
	require.Zero(t, code)
	require.Equal(t, "0 actions for 0 tenants (none), 0 findings\n", string(stdout))
	require.Equal(t, before, changing(s))

	group := "/eks/tenants/globex"
	_, err := cw.API().PutRetentionPolicy(t.Context(), &cloudwatchlogs.PutRetentionPolicyInput{LogGroupName: &group, RetentionInDays: aws.Int32(7)})
	require.NoError(t, err)
	stdout, _, code = runCommand(t, cw, append([]string{"plan", auditor}, named...)...)
	require.Equal(t, 1, code)
	require.Regexp(t, `(?m)^globex +group +set-retention +/eks/tenants/globex +7 days +365 days +repair: 365 days are the least$`, string(stdout))
	said, code = provision(t, cw, append([]string{"apply", auditor}, named...)...)
	require.NotZero(t, code, "an auditor repairs nothing: %+v", said)
	require.NotEqual(t, "ready", said.Tenants[1].State)

	c := as(t, cw, role)
	for call, read := range reading {
		if call != "DescribeLogStreams" {
			require.Equal(t, "AccessDeniedException", answer(read(t.Context(), c, "/eks/tenants/acme", "x")), call)
		}
	}
	for call, do := range elsewhere {
		require.Equal(t, "AccessDeniedException", answer(do(t.Context(), c, "/eks/tenants/acme")), call)
	}
}
