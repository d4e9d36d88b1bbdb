package fakeaws_test

import (
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/aws-sdk-go-v2/service/iam"
	"github.com/aws/aws-sdk-go-v2/service/iam/types"
	"github.com/aws/aws-sdk-go-v2/service/sts"
	"github.com/stretchr/testify/require"

	"github.com/eks-tenant-logs/eks-tenant-logs/internal/fakeaws"
)

func newIAM(url string, creds aws.CredentialsProvider, change ...func(*iam.Options)) *iam.Client {
	return iam.New(iam.Options{Region: "us-east-1", BaseEndpoint: &url, Credentials: creds, Retryer: aws.NopRetryer{}}, change...)
}

func inRegion(region string) func(*iam.Options) {
	return func(o *iam.Options) { o.Region = region }
}

func roleInput(name string) *iam.CreateRoleInput {
	return &iam.CreateRoleInput{RoleName: &name, AssumeRolePolicyDocument: aws.String(trustSelf)}
}

// requireStatus wants err to be AWS's error code with an HTTP status.
func requireStatus(t testing.TB, err error, code string, status int) {
	t.Helper()
	requireCode(t, err, code, "")
	var answer *awshttp.ResponseError
	require.ErrorAs(t, err, &answer)
	require.Equal(t, status, answer.HTTPStatusCode())
}

const (
	trustSelf = `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":{"AWS":"arn:aws:iam::123456789012:root"},"Action":"sts:AssumeRole"}]}`
	allowAll  = `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"*","Resource":"*"}]}`
)

// padded is a policy of so many bytes that count.
func padded(document string, size int) string {
	return strings.Replace(document, `"Statement":[{`, `"Statement":[{"Sid":"`+strings.Repeat("x", size-len(document)-len(`"Sid":"",`))+`",`, 1)
}

func createRole(t testing.TB, c *iam.Client, name string, change ...func(*iam.CreateRoleInput)) *types.Role {
	t.Helper()
	in := roleInput(name)
	for _, f := range change {
		f(in)
	}
	out, err := c.CreateRole(t.Context(), in)
	require.NoError(t, err)
	return out.Role
}

func createPolicy(t testing.TB, c *iam.Client, name, document string) (arn string) {
	t.Helper()
	out, err := c.CreatePolicy(t.Context(), &iam.CreatePolicyInput{PolicyName: &name, PolicyDocument: &document, Path: aws.String("/eks-tenant-logs/")})
	require.NoError(t, err)
	return *out.Policy.Arn
}

func TestRoles(t *testing.T) {
	f := start(t, fakeaws.Config{Clock: func() time.Time { return noon }})
	c := newIAM(f.url, exampleCredentials)
	boundary := createPolicy(t, c, "boundary", allowAll)
	created := createRole(t, c, "reader", func(in *iam.CreateRoleInput) {
		in.Path, in.Description, in.MaxSessionDuration, in.PermissionsBoundary = aws.String("/eks-tenant-logs/"), aws.String("of acme"), aws.Int32(7200), &boundary
		in.Tags = []types.Tag{{Key: aws.String("eks-tenant-logs/tenant"), Value: aws.String("acme")}}
	})
	require.Equal(t, "arn:aws:iam::123456789012:role/eks-tenant-logs/reader", *created.Arn)
	require.Regexp(t, "^AROA[A-Z0-9]{17}$", *created.RoleId)
	require.NotContains(t, *created.AssumeRolePolicyDocument, "{", "documents come URL-encoded")
	trust, err := url.PathUnescape(*created.AssumeRolePolicyDocument)
	require.NoError(t, err)
	require.Equal(t, trustSelf, trust)

	got, err := c.GetRole(t.Context(), &iam.GetRoleInput{RoleName: aws.String("READER")})
	require.NoError(t, err, "names have no case")
	require.Equal(t, created, got.Role)
	require.Equal(t, noon, *got.Role.CreateDate)
	require.Equal(t, int32(7200), *got.Role.MaxSessionDuration)
	require.Equal(t, boundary, *got.Role.PermissionsBoundary.PermissionsBoundaryArn)
	require.Equal(t, "acme", *got.Role.Tags[0].Value)

	_, err = c.UpdateRole(t.Context(), &iam.UpdateRoleInput{RoleName: aws.String("reader"), Description: aws.String("new"), MaxSessionDuration: aws.Int32(3600)})
	require.NoError(t, err)
	const otherTrust = `{"Version":"2012-10-17","Statement":{"Effect":"Allow","Principal":{"Service":"ec2.amazonaws.com"},"Action":"sts:AssumeRole"}}`
	_, err = c.UpdateAssumeRolePolicy(t.Context(), &iam.UpdateAssumeRolePolicyInput{RoleName: aws.String("reader"), PolicyDocument: aws.String(otherTrust)})
	require.NoError(t, err)
	got, err = c.GetRole(t.Context(), &iam.GetRoleInput{RoleName: aws.String("reader")})
	require.NoError(t, err)
	require.Equal(t, "new", *got.Role.Description)
	trust, err = url.PathUnescape(*got.Role.AssumeRolePolicyDocument)
	require.NoError(t, err)
	require.Equal(t, otherTrust, trust)

	_, err = c.TagRole(t.Context(), &iam.TagRoleInput{RoleName: aws.String("reader"), Tags: []types.Tag{
		{Key: aws.String("EKS-tenant-logs/tenant"), Value: aws.String("globex")}, {Key: aws.String("a"), Value: aws.String("")},
	}})
	require.NoError(t, err)
	_, err = c.UntagRole(t.Context(), &iam.UntagRoleInput{RoleName: aws.String("reader"), TagKeys: []string{"A", "none"}})
	require.NoError(t, err)
	tags, err := c.ListRoleTags(t.Context(), &iam.ListRoleTagsInput{RoleName: aws.String("reader")})
	require.NoError(t, err)
	require.Equal(t, []types.Tag{{Key: aws.String("eks-tenant-logs/tenant"), Value: aws.String("globex")}}, tags.Tags)

	_, err = c.DeleteRolePermissionsBoundary(t.Context(), &iam.DeleteRolePermissionsBoundaryInput{RoleName: aws.String("reader")})
	require.NoError(t, err)
	_, err = c.DeleteRolePermissionsBoundary(t.Context(), &iam.DeleteRolePermissionsBoundaryInput{RoleName: aws.String("reader")})
	requireStatus(t, err, "NoSuchEntity", http.StatusNotFound)
	_, err = c.PutRolePermissionsBoundary(t.Context(), &iam.PutRolePermissionsBoundaryInput{RoleName: aws.String("reader"), PermissionsBoundary: &boundary})
	require.NoError(t, err)

	_, err = c.PutRolePolicy(t.Context(), &iam.PutRolePolicyInput{RoleName: aws.String("reader"), PolicyName: aws.String("p"), PolicyDocument: aws.String(allowAll)})
	require.NoError(t, err)
	_, err = c.DeleteRole(t.Context(), &iam.DeleteRoleInput{RoleName: aws.String("reader")})
	requireStatus(t, err, "DeleteConflict", http.StatusConflict)
	_, err = c.DeleteRolePolicy(t.Context(), &iam.DeleteRolePolicyInput{RoleName: aws.String("reader"), PolicyName: aws.String("p")})
	require.NoError(t, err)
	_, err = c.DeleteRole(t.Context(), &iam.DeleteRoleInput{RoleName: aws.String("reader")})
	require.NoError(t, err)
	_, err = c.GetRole(t.Context(), &iam.GetRoleInput{RoleName: aws.String("reader")})
	requireStatus(t, err, "NoSuchEntity", http.StatusNotFound)
	var gone *types.NoSuchEntityException
	require.ErrorAs(t, err, &gone)
	require.Equal(t, "The role with name reader cannot be found.", gone.ErrorMessage())
	require.Equal(t, 1, f.Calls()[fakeaws.CallKey{Operation: "iam:CreateRole", Result: "OK"}])
}

func TestRolesAreListedInPages(t *testing.T) {
	f := start(t, fakeaws.Config{})
	c := newIAM(f.url, exampleCredentials)
	for i := range 25 {
		createRole(t, c, fmt.Sprintf("role-%02d", i), func(in *iam.CreateRoleInput) {
			if i%5 > 0 {
				in.Path = aws.String("/eks-tenant-logs/")
			}
			in.Tags = []types.Tag{{Key: aws.String("k"), Value: aws.String("v")}}
		})
	}
	var names []string
	pages := 0
	for p := iam.NewListRolesPaginator(c, &iam.ListRolesInput{PathPrefix: aws.String("/eks-"), MaxItems: aws.Int32(7)}); p.HasMorePages(); pages++ {
		page, err := p.NextPage(t.Context())
		require.NoError(t, err)
		for _, r := range page.Roles {
			names = append(names, *r.RoleName)
			require.Empty(t, r.Tags, "a listing has no tags")
			require.Nil(t, r.PermissionsBoundary)
		}
	}
	require.Equal(t, 3, pages)
	require.Len(t, names, 20)
	require.True(t, slices.IsSorted(names))
	_, err := c.ListRoles(t.Context(), &iam.ListRolesInput{Marker: aws.String("nonsense")})
	requireStatus(t, err, "ValidationError", http.StatusBadRequest)
}

func TestInlinePolicies(t *testing.T) {
	f := start(t, fakeaws.Config{})
	c := newIAM(f.url, exampleCredentials)
	createRole(t, c, "r")
	put := func(name, document string) error {
		_, err := c.PutRolePolicy(t.Context(), &iam.PutRolePolicyInput{RoleName: aws.String("r"), PolicyName: &name, PolicyDocument: &document})
		return err
	}
	require.NoError(t, put("b", allowAll))
	require.NoError(t, put("a", padded(allowAll, 10_240-len(allowAll))))
	require.NoError(t, put("b", strings.ReplaceAll(allowAll, ",", " ,\n\t")), "white space does not count")
	requireStatus(t, put("c", allowAll), "LimitExceeded", http.StatusConflict)
	requireStatus(t, put("b", padded(allowAll, len(allowAll)+20)), "LimitExceeded", http.StatusConflict)
	requireStatus(t, put("b", `{"Version":"2012-10-17"}`), "MalformedPolicyDocument", http.StatusBadRequest)
	got, err := c.GetRolePolicy(t.Context(), &iam.GetRolePolicyInput{RoleName: aws.String("r"), PolicyName: aws.String("b")})
	require.NoError(t, err)
	document, err := url.PathUnescape(*got.PolicyDocument)
	require.NoError(t, err)
	require.Equal(t, strings.ReplaceAll(allowAll, ",", " ,\n\t"), document)
	list, err := c.ListRolePolicies(t.Context(), &iam.ListRolePoliciesInput{RoleName: aws.String("r"), MaxItems: aws.Int32(1)})
	require.NoError(t, err)
	require.Equal(t, []string{"a"}, list.PolicyNames)
	list, err = c.ListRolePolicies(t.Context(), &iam.ListRolePoliciesInput{RoleName: aws.String("r"), Marker: list.Marker})
	require.NoError(t, err)
	require.Equal(t, []string{"b"}, list.PolicyNames)
	_, err = c.DeleteRolePolicy(t.Context(), &iam.DeleteRolePolicyInput{RoleName: aws.String("r"), PolicyName: aws.String("x")})
	requireStatus(t, err, "NoSuchEntity", http.StatusNotFound)
	_, err = c.GetRolePolicy(t.Context(), &iam.GetRolePolicyInput{RoleName: aws.String("r"), PolicyName: aws.String("x")})
	requireStatus(t, err, "NoSuchEntity", http.StatusNotFound)
}

func TestManagedPolicies(t *testing.T) {
	f := start(t, fakeaws.Config{})
	c := newIAM(f.url, exampleCredentials)
	arn := createPolicy(t, c, "p", allowAll)
	require.Equal(t, "arn:aws:iam::123456789012:policy/eks-tenant-logs/p", arn)
	_, err := c.CreatePolicy(t.Context(), &iam.CreatePolicyInput{PolicyName: aws.String("P"), PolicyDocument: aws.String(allowAll)})
	requireStatus(t, err, "EntityAlreadyExists", http.StatusConflict)
	_, err = c.CreatePolicy(t.Context(), &iam.CreatePolicyInput{PolicyName: aws.String("big"), PolicyDocument: aws.String(padded(allowAll, 6_145))})
	requireStatus(t, err, "LimitExceeded", http.StatusConflict)
	createPolicy(t, c, "fits", padded(allowAll, 6_144))

	version := func(makeDefault bool) error {
		_, err := c.CreatePolicyVersion(t.Context(), &iam.CreatePolicyVersionInput{PolicyArn: &arn, PolicyDocument: aws.String(padded(allowAll, 200)), SetAsDefault: makeDefault})
		return err
	}
	for i := range 4 {
		require.NoError(t, version(i == 2))
	}
	requireStatus(t, version(true), "LimitExceeded", http.StatusConflict)
	remove := func(id string) error {
		_, err := c.DeletePolicyVersion(t.Context(), &iam.DeletePolicyVersionInput{PolicyArn: &arn, VersionId: &id})
		return err
	}
	requireStatus(t, remove("v4"), "DeleteConflict", http.StatusConflict)
	require.NoError(t, remove("v1"))
	requireStatus(t, remove("v1"), "NoSuchEntity", http.StatusNotFound)
	require.NoError(t, version(false))
	_, err = c.SetDefaultPolicyVersion(t.Context(), &iam.SetDefaultPolicyVersionInput{PolicyArn: &arn, VersionId: aws.String("v6")})
	require.NoError(t, err)
	versions, err := c.ListPolicyVersions(t.Context(), &iam.ListPolicyVersionsInput{PolicyArn: &arn})
	require.NoError(t, err)
	var ids []string
	for _, v := range versions.Versions {
		ids = append(ids, fmt.Sprint(*v.VersionId, v.IsDefaultVersion))
	}
	require.Equal(t, []string{"v2false", "v3false", "v4false", "v5false", "v6true"}, ids)
	v, err := c.GetPolicyVersion(t.Context(), &iam.GetPolicyVersionInput{PolicyArn: &arn, VersionId: aws.String("v6")})
	require.NoError(t, err)
	document, err := url.PathUnescape(*v.PolicyVersion.Document)
	require.NoError(t, err)
	require.Equal(t, padded(allowAll, 200), document)

	createRole(t, c, "r")
	attach := func(arn string) error {
		_, err := c.AttachRolePolicy(t.Context(), &iam.AttachRolePolicyInput{RoleName: aws.String("r"), PolicyArn: &arn})
		return err
	}
	require.NoError(t, attach(arn))
	require.NoError(t, attach(arn), "attaching twice is no error")
	requireStatus(t, attach(arn+"x"), "NoSuchEntity", http.StatusNotFound)
	for i := range 9 {
		require.NoError(t, attach(createPolicy(t, c, fmt.Sprint("more-", i), allowAll)))
	}
	requireStatus(t, attach("arn:aws:iam::123456789012:policy/eks-tenant-logs/fits"), "LimitExceeded", http.StatusConflict)
	attached, err := c.ListAttachedRolePolicies(t.Context(), &iam.ListAttachedRolePoliciesInput{RoleName: aws.String("r"), PathPrefix: aws.String("/eks-tenant-logs/")})
	require.NoError(t, err)
	require.Len(t, attached.AttachedPolicies, 10)
	require.Equal(t, types.AttachedPolicy{PolicyName: aws.String("p"), PolicyArn: &arn}, attached.AttachedPolicies[9])
	_, err = c.DetachRolePolicy(t.Context(), &iam.DetachRolePolicyInput{RoleName: aws.String("r"), PolicyArn: &arn})
	require.NoError(t, err)
	_, err = c.DetachRolePolicy(t.Context(), &iam.DetachRolePolicyInput{RoleName: aws.String("r"), PolicyArn: &arn})
	requireStatus(t, err, "NoSuchEntity", http.StatusNotFound)

	_, err = c.TagPolicy(t.Context(), &iam.TagPolicyInput{PolicyArn: &arn, Tags: []types.Tag{{Key: aws.String("k"), Value: aws.String("v")}}})
	require.NoError(t, err)
	got, err := c.GetPolicy(t.Context(), &iam.GetPolicyInput{PolicyArn: &arn})
	require.NoError(t, err)
	require.Equal(t, "v6", *got.Policy.DefaultVersionId)
	require.Equal(t, int32(0), *got.Policy.AttachmentCount)
	require.Equal(t, "v", *got.Policy.Tags[0].Value)
	local, err := c.ListPolicies(t.Context(), &iam.ListPoliciesInput{Scope: types.PolicyScopeTypeLocal, OnlyAttached: true})
	require.NoError(t, err)
	require.Len(t, local.Policies, 9)
	ofAWS, err := c.ListPolicies(t.Context(), &iam.ListPoliciesInput{Scope: types.PolicyScopeTypeAws})
	require.NoError(t, err)
	require.Empty(t, ofAWS.Policies)
}

func TestIAMRefuses(t *testing.T) {
	f := start(t, fakeaws.Config{RoleQuota: 2})
	c := newIAM(f.url, exampleCredentials)
	createRole(t, c, "taken")
	create := func(change func(*iam.CreateRoleInput)) error {
		in := &iam.CreateRoleInput{RoleName: aws.String("r"), AssumeRolePolicyDocument: aws.String(trustSelf)}
		change(in)
		_, err := c.CreateRole(t.Context(), in)
		return err
	}
	tags := func(n int, value string) (list []types.Tag) {
		for i := range n {
			list = append(list, types.Tag{Key: aws.String(fmt.Sprint("k", i)), Value: &value})
		}
		return list
	}
	for name, x := range map[string]struct {
		change func(*iam.CreateRoleInput)
		code   string
		status int
	}{
		"a name that is taken, whatever its case and path": {func(in *iam.CreateRoleInput) { in.RoleName, in.Path = aws.String("TAKEN"), aws.String("/x/") }, "EntityAlreadyExists", 409},
		"a name of 65 characters":                          {func(in *iam.CreateRoleInput) { in.RoleName = aws.String(strings.Repeat("r", 65)) }, "ValidationError", 400},
		"a name with a slash":                              {func(in *iam.CreateRoleInput) { in.RoleName = aws.String("a/b") }, "ValidationError", 400},
		"a path without its last slash":                    {func(in *iam.CreateRoleInput) { in.Path = aws.String("/a") }, "ValidationError", 400},
		"a path of 513 characters":                         {func(in *iam.CreateRoleInput) { in.Path = aws.String("/" + strings.Repeat("p", 511) + "/") }, "ValidationError", 400},
		"a description of 1,001 characters":                {func(in *iam.CreateRoleInput) { in.Description = aws.String(strings.Repeat("d", 1_001)) }, "ValidationError", 400},
		"a description beyond Latin-1":                     {func(in *iam.CreateRoleInput) { in.Description = aws.String("→") }, "ValidationError", 400},
		"a session of 3,599 seconds":                       {func(in *iam.CreateRoleInput) { in.MaxSessionDuration = aws.Int32(3_599) }, "ValidationError", 400},
		"51 tags":                                          {func(in *iam.CreateRoleInput) { in.Tags = tags(51, "v") }, "ValidationError", 400},
		"a tag value of 257 characters":                    {func(in *iam.CreateRoleInput) { in.Tags = tags(1, strings.Repeat("v", 257)) }, "ValidationError", 400},
		"a tag that is AWS's": {func(in *iam.CreateRoleInput) {
			in.Tags = []types.Tag{{Key: aws.String("aws:x"), Value: aws.String("")}}
		}, "InvalidInput", 400},
		"a tag given twice": {func(in *iam.CreateRoleInput) {
			in.Tags = []types.Tag{{Key: aws.String("k"), Value: aws.String("")}, {Key: aws.String("K"), Value: aws.String("")}}
		}, "InvalidInput", 400},
		"a trust policy over 2,048 bytes": {func(in *iam.CreateRoleInput) { in.AssumeRolePolicyDocument = aws.String(padded(trustSelf, 2_049)) }, "LimitExceeded", 409},
		"a trust policy that is no JSON":  {func(in *iam.CreateRoleInput) { in.AssumeRolePolicyDocument = aws.String("{") }, "MalformedPolicyDocument", 400},
		"a boundary that does not exist": {func(in *iam.CreateRoleInput) {
			in.PermissionsBoundary = aws.String("arn:aws:iam::123456789012:policy/none")
		}, "NoSuchEntity", 404},
		"a boundary whose ARN is far too short": {func(in *iam.CreateRoleInput) { in.PermissionsBoundary = aws.String("none") }, "ValidationError", 400},
	} {
		t.Run(name, func(t *testing.T) {
			requireStatus(t, create(x.change), x.code, x.status)
			_, err := c.GetRole(t.Context(), &iam.GetRoleInput{RoleName: aws.String("r")})
			requireStatus(t, err, "NoSuchEntity", 404)
		})
	}
	require.NoError(t, create(func(in *iam.CreateRoleInput) {
		in.AssumeRolePolicyDocument, in.Tags, in.Description = aws.String(padded(trustSelf, 2_048)), tags(50, ""), aws.String("ÿ")
	}))
	requireStatus(t, create(func(in *iam.CreateRoleInput) { in.RoleName = aws.String("third") }), "LimitExceeded", 409)
	_, err := c.TagRole(t.Context(), &iam.TagRoleInput{RoleName: aws.String("r"), Tags: []types.Tag{{Key: aws.String("one more"), Value: aws.String("")}}})
	requireStatus(t, err, "LimitExceeded", 409)

	_, err = newIAM(f.url, exampleCredentials, func(o *iam.Options) { o.Region = "eu-west-1" }).GetRole(t.Context(), &iam.GetRoleInput{RoleName: aws.String("r")})
	requireStatus(t, err, "SignatureDoesNotMatch", 403)
	_, err = c.ListUsers(t.Context(), &iam.ListUsersInput{})
	requireStatus(t, err, "InvalidAction", 400)
}

func TestOpenIDConnectProviders(t *testing.T) {
	f := start(t, fakeaws.Config{})
	c := newIAM(f.url, exampleCredentials)
	const issuer = "oidc.eks.us-east-1.amazonaws.com/id/ABC"
	created, err := c.CreateOpenIDConnectProvider(t.Context(), &iam.CreateOpenIDConnectProviderInput{Url: aws.String("https://" + issuer), ClientIDList: []string{"sts.amazonaws.com"}})
	require.NoError(t, err)
	require.Equal(t, "arn:aws:iam::123456789012:oidc-provider/"+issuer, *created.OpenIDConnectProviderArn)
	got, err := c.GetOpenIDConnectProvider(t.Context(), &iam.GetOpenIDConnectProviderInput{OpenIDConnectProviderArn: created.OpenIDConnectProviderArn})
	require.NoError(t, err)
	require.Equal(t, issuer, *got.Url)
	require.Equal(t, []string{"sts.amazonaws.com"}, got.ClientIDList)
	list, err := c.ListOpenIDConnectProviders(t.Context(), &iam.ListOpenIDConnectProvidersInput{})
	require.NoError(t, err)
	require.Equal(t, created.OpenIDConnectProviderArn, list.OpenIDConnectProviderList[0].Arn)
	_, err = c.CreateOpenIDConnectProvider(t.Context(), &iam.CreateOpenIDConnectProviderInput{Url: aws.String("https://" + issuer)})
	requireStatus(t, err, "EntityAlreadyExists", 409)
	_, err = c.CreateOpenIDConnectProvider(t.Context(), &iam.CreateOpenIDConnectProviderInput{Url: aws.String("http://" + issuer)})
	requireStatus(t, err, "InvalidInput", 400)
	_, err = c.GetOpenIDConnectProvider(t.Context(), &iam.GetOpenIDConnectProviderInput{OpenIDConnectProviderArn: aws.String(*created.OpenIDConnectProviderArn + "x")})
	requireStatus(t, err, "NoSuchEntity", 404)
}

func TestPolicyDocumentsAreHeldToTheirKind(t *testing.T) {
	f := start(t, fakeaws.Config{})
	c := newIAM(f.url, exampleCredentials)
	createRole(t, c, "r")
	trust := func(document string) error {
		_, err := c.UpdateAssumeRolePolicy(t.Context(), &iam.UpdateAssumeRolePolicyInput{RoleName: aws.String("r"), PolicyDocument: &document})
		return err
	}
	inline := func(document string) error {
		_, err := c.PutRolePolicy(t.Context(), &iam.PutRolePolicyInput{RoleName: aws.String("r"), PolicyName: aws.String("p"), PolicyDocument: &document})
		return err
	}
	managed := func(document string) error {
		_, err := c.CreatePolicy(t.Context(), &iam.CreatePolicyInput{PolicyName: aws.String("p"), PolicyDocument: &document})
		return err
	}
	session := func(document string) error {
		_, err := tryAssume(t, newSTS(f.url, exampleCredentials), "arn:aws:iam::"+home+":role/r", func(in *sts.AssumeRoleInput) { in.Policy = &document })
		return err
	}
	for name, x := range map[string]struct {
		put      func(string) error
		document string
	}{
		"a trust policy without principal":   {trust, `{"Version":"2012-10-17","Statement":{"Effect":"Allow","Action":"sts:AssumeRole"}}`},
		"a trust policy with a resource":     {trust, `{"Version":"2012-10-17","Statement":{"Effect":"Allow","Principal":{"AWS":"*"},"Action":"sts:AssumeRole","Resource":"*"}}`},
		"an inline policy with a principal":  {inline, `{"Version":"2012-10-17","Statement":{"Effect":"Allow","Principal":{"AWS":"*"},"Action":"*","Resource":"*"}}`},
		"an inline policy without resource":  {inline, `{"Version":"2012-10-17","Statement":{"Effect":"Allow","Action":"*"}}`},
		"a managed policy without action":    {managed, `{"Version":"2012-10-17","Statement":{"Effect":"Allow","Resource":"*"}}`},
		"a managed policy of another effect": {managed, `{"Version":"2012-10-17","Statement":{"Effect":"Perhaps","Action":"*","Resource":"*"}}`},
		"an effect that is a number":         {inline, `{"Version":"2012-10-17","Statement":{"Effect":1,"Action":"*","Resource":"*"}}`},
		"a condition that is a word":         {inline, `{"Version":"2012-10-17","Statement":{"Effect":"Allow","Action":"*","Resource":"*","Condition":"x"}}`},
		"a condition without keys":           {inline, `{"Version":"2012-10-17","Statement":{"Effect":"Allow","Action":"*","Resource":"*","Condition":{"StringEquals":"x"}}}`},
		"a session policy with a principal":  {session, trustSelf},
	} {
		t.Run(name, func(t *testing.T) {
			requireStatus(t, x.put(x.document), "MalformedPolicyDocument", http.StatusBadRequest)
		})
	}
	require.NoError(t, session(allowAll))
}
