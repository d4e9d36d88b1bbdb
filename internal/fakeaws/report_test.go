package fakeaws_test

import (
	"fmt"
	"net/http"
	"net/url"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/iam"
	"github.com/aws/aws-sdk-go-v2/service/iam/types"
	"github.com/stretchr/testify/require"

	"github.com/eks-tenant-logs/eks-tenant-logs/internal/fakeaws"
)

func TestAccountAuthorizationDetails(t *testing.T) {
	f := start(t, fakeaws.Config{})
	c := newIAM(f.url, exampleCredentials)
	boundary := createPolicy(t, c, "boundary", allowAll)
	for i := range 9 {
		role(t, c, fmt.Sprint("r", i), trustSelf, allowAll, tagged("k", "v"), func(in *iam.CreateRoleInput) { in.PermissionsBoundary = &boundary })
	}
	_, err := c.AttachRolePolicy(t.Context(), &iam.AttachRolePolicyInput{RoleName: aws.String("r0"), PolicyArn: &boundary})
	require.NoError(t, err)
	var roles []types.RoleDetail
	var policies []types.ManagedPolicyDetail
	pages := 0
	for p := iam.NewGetAccountAuthorizationDetailsPaginator(c, &iam.GetAccountAuthorizationDetailsInput{MaxItems: aws.Int32(4)}); p.HasMorePages(); pages++ {
		page, err := p.NextPage(t.Context())
		require.NoError(t, err)
		roles, policies = append(roles, page.RoleDetailList...), append(policies, page.Policies...)
	}
	require.Equal(t, 3, pages)
	require.Len(t, roles, 9)
	require.Len(t, policies, 1)
	require.Equal(t, boundary, *roles[0].PermissionsBoundary.PermissionsBoundaryArn)
	require.Equal(t, boundary, *roles[0].AttachedManagedPolicies[0].PolicyArn)
	require.Equal(t, []types.Tag{{Key: aws.String("k"), Value: aws.String("v")}}, roles[0].Tags)
	document, err := url.PathUnescape(*roles[0].RolePolicyList[0].PolicyDocument)
	require.NoError(t, err)
	require.Equal(t, allowAll, document)
	document, err = url.PathUnescape(*policies[0].PolicyVersionList[0].Document)
	require.NoError(t, err)
	require.Equal(t, allowAll, document)
	require.EqualValues(t, 9, *policies[0].PermissionsBoundaryUsageCount)

	only, err := c.GetAccountAuthorizationDetails(t.Context(), &iam.GetAccountAuthorizationDetailsInput{Filter: []types.EntityType{types.EntityTypeLocalManagedPolicy, types.EntityTypeUser}})
	require.NoError(t, err)
	require.Empty(t, only.RoleDetailList)
	require.Len(t, only.Policies, 1)
	_, err = c.GetAccountAuthorizationDetails(t.Context(), &iam.GetAccountAuthorizationDetailsInput{Filter: []types.EntityType{"Nonsense"}})
	requireStatus(t, err, "ValidationError", 400)
}

func TestAccountSummary(t *testing.T) {
	f := start(t, fakeaws.Config{RoleQuota: 7})
	c := newIAM(f.url, exampleCredentials)
	createRole(t, c, "r")
	createPolicy(t, c, "p", allowAll)
	out, err := c.GetAccountSummary(t.Context(), &iam.GetAccountSummaryInput{})
	require.NoError(t, err)
	for key, value := range map[string]int32{"Roles": 1, "RolesQuota": 7, "Policies": 1, "PolicySizeQuota": 6144, "AssumeRolePolicySizeQuota": 2048, "VersionsPerPolicyQuota": 5} {
		require.Equal(t, value, out.SummaryMap[key], key)
	}
}

func TestSimulations(t *testing.T) {
	f := start(t, fakeaws.Config{})
	c := newIAM(f.url, exampleCredentials)
	boundary := createPolicy(t, c, "boundary", policy(groupPrefix+"/eks/tenants/${aws:PrincipalTag/tenant}:*", "logs:Get*", "logs:Filter*"))
	arn := role(t, c, "r", trustSelf, `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"logs:*","Resource":"*"},{"Effect":"Deny","Action":"logs:Delete*","Resource":"*"}]}`,
		func(in *iam.CreateRoleInput) { in.PermissionsBoundary = &boundary })
	simulate := func(tenant string) map[string]string {
		out, err := c.SimulatePrincipalPolicy(t.Context(), &iam.SimulatePrincipalPolicyInput{
			PolicySourceArn: &arn, ActionNames: []string{"logs:GetLogEvents", "logs:DeleteLogStream", "logs:PutLogEvents"},
			ResourceArns:   []string{groupPrefix + "/eks/tenants/acme:log-stream:s"},
			ContextEntries: []types.ContextEntry{{ContextKeyName: aws.String("aws:PrincipalTag/tenant"), ContextKeyType: types.ContextKeyTypeEnumString, ContextKeyValues: []string{tenant}}},
		})
		require.NoError(t, err)
		decisions := map[string]string{}
		for _, r := range out.EvaluationResults {
			decisions[*r.EvalActionName] = fmt.Sprint(r.EvalDecision, " ", r.PermissionsBoundaryDecisionDetail.AllowedByPermissionsBoundary)
		}
		return decisions
	}
	require.Equal(t, map[string]string{"logs:GetLogEvents": "allowed true", "logs:DeleteLogStream": "explicitDeny false", "logs:PutLogEvents": "implicitDeny false"}, simulate("acme"))
	require.Equal(t, "implicitDeny false", simulate("globex")["logs:GetLogEvents"])
	_, err := c.SimulatePrincipalPolicy(t.Context(), &iam.SimulatePrincipalPolicyInput{PolicySourceArn: aws.String(arn + "x"), ActionNames: []string{"logs:GetLogEvents"}})
	requireStatus(t, err, "NoSuchEntity", 404)
	_, err = c.SimulatePrincipalPolicy(t.Context(), &iam.SimulatePrincipalPolicyInput{PolicySourceArn: &arn, ActionNames: []string{"nonsense"}})
	requireStatus(t, err, "InvalidInput", 400)
}

func TestFaultsOfIAM(t *testing.T) {
	f := start(t, fakeaws.Config{})
	faults := fakeaws.NewFaults(1)
	f.SetIntercept(faults.Intercept)
	c := newIAM(f.url, exampleCredentials)

	faults.SetQuotas(map[string]float64{"iam:GetRole": 1})
	createRole(t, c, "r")
	get := func(name string) error {
		_, err := c.GetRole(t.Context(), &iam.GetRoleInput{RoleName: &name})
		return err
	}
	require.NoError(t, get("r"))
	requireStatus(t, get("r"), "Throttling", http.StatusBadRequest)
	faults.SetQuotas(nil)

	faults.SetAppearing(time.Hour)
	require.NoError(t, get("r"), "it was there before")
	createRole(t, c, "young")
	requireStatus(t, get("young"), "NoSuchEntity", http.StatusNotFound)
	arn := createPolicy(t, c, "young-policy", allowAll)
	_, err := c.GetPolicy(t.Context(), &iam.GetPolicyInput{PolicyArn: &arn})
	requireStatus(t, err, "NoSuchEntity", http.StatusNotFound)
	list, err := c.ListRoles(t.Context(), &iam.ListRolesInput{})
	require.NoError(t, err)
	require.Len(t, list.Roles, 2)
	faults.SetAppearing(0)
	require.NoError(t, get("young"))

	faults.Set("race", fakeaws.Fault{Operations: []string{"iam:PutRolePolicy"}, Answer: &fakeaws.APIError{Code: "ConcurrentModification", Status: http.StatusConflict}})
	_, err = c.PutRolePolicy(t.Context(), &iam.PutRolePolicyInput{RoleName: aws.String("r"), PolicyName: aws.String("p"), PolicyDocument: aws.String(allowAll)})
	requireStatus(t, err, "ConcurrentModification", http.StatusConflict)
	require.Equal(t, map[string]int{"quota": 1, "appear": 2, "race": 1}, faults.Hits())
}
