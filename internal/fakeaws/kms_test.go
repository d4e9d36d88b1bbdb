package fakeaws_test

import (
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	logs "github.com/aws/aws-sdk-go-v2/service/cloudwatchlogs"
	"github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/aws/aws-sdk-go-v2/service/kms/types"
	"github.com/stretchr/testify/require"

	"github.com/eks-tenant-logs/eks-tenant-logs/internal/fakeaws"
)

func newKMS(url string, creds aws.CredentialsProvider) *kms.Client {
	return kms.New(kms.Options{Region: "us-east-1", BaseEndpoint: &url, Credentials: creds, Retryer: aws.NopRetryer{}})
}

// keyPolicy leaves a key to its account, and to CloudWatch Logs for one group.
func keyPolicy(group string) string {
	return `{"Version":"2012-10-17","Statement":[{"Sid":"account","Effect":"Allow","Principal":{"AWS":"arn:aws:iam::` + home + `:root"},"Action":"kms:*","Resource":"*"},
		{"Sid":"logs","Effect":"Allow","Principal":{"Service":"logs.us-east-1.amazonaws.com"},"Action":["kms:Encrypt*","kms:Decrypt*","kms:ReEncrypt*","kms:GenerateDataKey*","kms:Describe*"],
		"Resource":"*","Condition":{"ArnEquals":{"kms:EncryptionContext:aws:logs:arn":"` + groupPrefix + group + `"}}}]}`
}

func TestKeys(t *testing.T) {
	f := start(t, fakeaws.Config{})
	c := newKMS(f.url, exampleCredentials)
	created, err := c.CreateKey(t.Context(), &kms.CreateKeyInput{Description: aws.String("acme"), Tags: []types.Tag{{TagKey: aws.String("a"), TagValue: aws.String("1")}}})
	require.NoError(t, err)
	key := created.KeyMetadata
	require.Equal(t, "arn:aws:kms:us-east-1:"+home+":key/"+*key.KeyId, *key.Arn)
	require.Equal(t, types.KeyStateEnabled, key.KeyState)
	_, err = c.CreateAlias(t.Context(), &kms.CreateAliasInput{AliasName: aws.String("alias/eks-tenant-logs/acme"), TargetKeyId: key.KeyId})
	require.NoError(t, err)
	_, err = c.CreateAlias(t.Context(), &kms.CreateAliasInput{AliasName: aws.String("alias/eks-tenant-logs/acme"), TargetKeyId: key.KeyId})
	requireCode(t, err, "AlreadyExistsException", "")
	_, err = c.CreateAlias(t.Context(), &kms.CreateAliasInput{AliasName: aws.String("alias/aws/x"), TargetKeyId: key.KeyId})
	requireCode(t, err, "InvalidAliasNameException", "")
	for _, name := range []string{*key.KeyId, *key.Arn, "alias/eks-tenant-logs/acme", "arn:aws:kms:us-east-1:" + home + ":alias/eks-tenant-logs/acme"} {
		got, err := c.DescribeKey(t.Context(), &kms.DescribeKeyInput{KeyId: &name})
		require.NoError(t, err, name)
		require.Equal(t, key, got.KeyMetadata)
	}
	_, err = c.DescribeKey(t.Context(), &kms.DescribeKeyInput{KeyId: aws.String("alias/none")})
	requireStatus(t, err, "NotFoundException", 400)
	aliases, err := c.ListAliases(t.Context(), &kms.ListAliasesInput{KeyId: key.KeyId})
	require.NoError(t, err)
	require.Equal(t, "alias/eks-tenant-logs/acme", *aliases.Aliases[0].AliasName)

	_, err = c.EnableKeyRotation(t.Context(), &kms.EnableKeyRotationInput{KeyId: key.KeyId})
	require.NoError(t, err)
	status, err := c.GetKeyRotationStatus(t.Context(), &kms.GetKeyRotationStatusInput{KeyId: key.Arn})
	require.NoError(t, err)
	require.True(t, status.KeyRotationEnabled)
	require.EqualValues(t, 365, *status.RotationPeriodInDays)
	_, err = c.TagResource(t.Context(), &kms.TagResourceInput{KeyId: key.KeyId, Tags: []types.Tag{{TagKey: aws.String("b"), TagValue: aws.String("2")}}})
	require.NoError(t, err)
	var tags []types.Tag
	for p := kms.NewListResourceTagsPaginator(c, &kms.ListResourceTagsInput{KeyId: key.KeyId, Limit: aws.Int32(1)}); p.HasMorePages(); {
		page, err := p.NextPage(t.Context())
		require.NoError(t, err)
		tags = append(tags, page.Tags...)
	}
	require.Equal(t, []types.Tag{{TagKey: aws.String("a"), TagValue: aws.String("1")}, {TagKey: aws.String("b"), TagValue: aws.String("2")}}, tags)

	put := func(policy string) error {
		_, err := c.PutKeyPolicy(t.Context(), &kms.PutKeyPolicyInput{KeyId: key.KeyId, Policy: &policy})
		return err
	}
	require.NoError(t, put(keyPolicy("g")))
	got, err := c.GetKeyPolicy(t.Context(), &kms.GetKeyPolicyInput{KeyId: key.KeyId})
	require.NoError(t, err)
	require.Equal(t, keyPolicy("g"), *got.Policy)
	requireCode(t, put("{"), "MalformedPolicyDocumentException", "")
	requireCode(t, put(allowAll), "MalformedPolicyDocumentException", "principal")
	requireCode(t, put(strings.Repeat(" ", 32_769)), "LimitExceededException", "")
	require.True(t, f.SetKeyState(*key.Arn, false, false))
	_, err = c.EnableKeyRotation(t.Context(), &kms.EnableKeyRotationInput{KeyId: key.KeyId})
	requireCode(t, err, "DisabledException", "")
	require.True(t, f.SetKeyState(*key.Arn, true, true))
	_, err = c.EnableKeyRotation(t.Context(), &kms.EnableKeyRotationInput{KeyId: key.KeyId})
	requireCode(t, err, "KMSInvalidStateException", "")
	require.False(t, f.SetKeyState(*key.Arn+"x", true, false))
	_, err = c.ScheduleKeyDeletion(t.Context(), &kms.ScheduleKeyDeletionInput{KeyId: key.KeyId})
	requireCode(t, err, "UnknownOperationException", "")
}

func TestKeysAreListedPageByPage(t *testing.T) {
	f := start(t, fakeaws.Config{})
	c := newKMS(f.url, exampleCredentials)
	var want, got []string
	for range 101 {
		out, err := c.CreateKey(t.Context(), &kms.CreateKeyInput{})
		require.NoError(t, err)
		want = append(want, *out.KeyMetadata.Arn)
	}
	first, err := c.ListKeys(t.Context(), &kms.ListKeysInput{})
	require.NoError(t, err)
	require.Len(t, first.Keys, 100)
	require.True(t, first.Truncated)
	for p := kms.NewListKeysPaginator(c, &kms.ListKeysInput{Limit: aws.Int32(40)}); p.HasMorePages(); {
		page, err := p.NextPage(t.Context())
		require.NoError(t, err)
		require.LessOrEqual(t, len(page.Keys), 40)
		for _, k := range page.Keys {
			require.True(t, strings.HasSuffix(*k.KeyArn, ":key/"+*k.KeyId))
			got = append(got, *k.KeyArn)
		}
	}
	require.ElementsMatch(t, want, got)
	_, err = c.ListKeys(t.Context(), &kms.ListKeysInput{Limit: aws.Int32(1_001)})
	requireCode(t, err, "ValidationException", "limit")
	_, err = c.ListKeys(t.Context(), &kms.ListKeysInput{Marker: aws.String("x")})
	requireCode(t, err, "InvalidMarkerException", "")
}

// The key's tags count where it is decided whether its policy leaves the caller the next change.
func TestALockOutIsJudgedWithTheKeysTags(t *testing.T) {
	f := startEnforcing(t)
	const mayChangeAcmes = `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":["kms:CreateKey","kms:TagResource"],"Resource":"*"},
		{"Effect":"Allow","Action":"kms:PutKeyPolicy","Resource":"*","Condition":{"StringEquals":{"aws:ResourceTag/tenant":"acme"}}}]}`
	c := newKMS(f.url, assume(t, f.sts, role(t, f.iam, "r", trustSelf, mayChangeAcmes)))
	create := func(tags ...types.Tag) (string, error) {
		out, err := c.CreateKey(t.Context(), &kms.CreateKeyInput{Tags: tags, Policy: aws.String(keyPolicy("g"))})
		if err != nil {
			return "", err
		}
		return *out.KeyMetadata.KeyId, nil
	}
	tag := func(tenant string) types.Tag { return types.Tag{TagKey: aws.String("tenant"), TagValue: &tenant} }
	for name, tags := range map[string][]types.Tag{"no tags": nil, "another's": {tag("globex")}} {
		_, err := create(tags...)
		require.Error(t, err, name)
		requireCode(t, err, "MalformedPolicyDocumentException", "will not allow you to update")
	}
	id, err := create(tag("acme"))
	require.NoError(t, err)
	put := func(policy string) error {
		_, err := c.PutKeyPolicy(t.Context(), &kms.PutKeyPolicyInput{KeyId: &id, Policy: &policy})
		return err
	}
	require.NoError(t, put(keyPolicy("h")))
	requireCode(t, put(`{"Version":"2012-10-17","Statement":{"Effect":"Allow","Principal":{"AWS":"arn:aws:iam::999999999999:root"},"Action":"kms:*","Resource":"*"}}`),
		"MalformedPolicyDocumentException", "will not allow you to update")
	_, err = c.ListKeys(t.Context(), &kms.ListKeysInput{})
	requireCode(t, err, "AccessDeniedException", "kms:ListKeys on resource: *")
	_, err = newKMS(f.url, exampleCredentials).PutKeyPolicy(t.Context(), &kms.PutKeyPolicyInput{KeyId: aws.String("none"), Policy: aws.String(keyPolicy("g"))})
	require.Error(t, err, "there is no such key")
}

func TestKeyPoliciesDecide(t *testing.T) {
	f := startEnforcing(t)
	admin := newKMS(f.url, exampleCredentials)
	caller := role(t, f.iam, "caller", trustSelf, policy("*", "kms:*"))
	nobody := role(t, f.iam, "nobody", trustSelf, "")
	session := map[string]*kms.Client{}
	for _, arn := range []string{caller, nobody} {
		session[arn] = newKMS(f.url, assume(t, f.sts, arn))
	}
	key := func(principal string, bypass bool) string {
		out, err := admin.CreateKey(t.Context(), &kms.CreateKeyInput{BypassPolicyLockoutSafetyCheck: bypass, Policy: aws.String(
			`{"Version":"2012-10-17","Statement":{"Effect":"Allow","Principal":{"AWS":"` + principal + `"},"Action":"kms:*","Resource":"*"}}`)})
		require.NoError(t, err)
		return *out.KeyMetadata.KeyId
	}
	describe := func(arn, id string) error {
		_, err := session[arn].DescribeKey(t.Context(), &kms.DescribeKeyInput{KeyId: &id})
		return err
	}
	account := key("arn:aws:iam::"+home+":root", false)
	require.NoError(t, describe(caller, account))
	requireCode(t, describe(nobody, account), "AccessDeniedException", "kms:DescribeKey")
	one := key(nobody, true)
	require.NoError(t, describe(nobody, one), "a key policy may allow by itself")
	requireCode(t, describe(caller, one), "AccessDeniedException", "") // and nobody is allowed what it does not

	_, err := admin.CreateKey(t.Context(), &kms.CreateKeyInput{Policy: aws.String(`{"Version":"2012-10-17","Statement":{"Effect":"Allow","Principal":{"AWS":"` + nobody + `"},"Action":"kms:*","Resource":"*"}}`)})
	requireCode(t, err, "MalformedPolicyDocumentException", "will not allow you to update")
	_, err = session[nobody].CreateKey(t.Context(), &kms.CreateKeyInput{})
	requireCode(t, err, "AccessDeniedException", "kms:CreateKey on resource: *")
}

func TestEncryptedGroupsNeedTheirKey(t *testing.T) {
	f := startEnforcing(t)
	c := newKMS(f.url, exampleCredentials)
	created, err := c.CreateKey(t.Context(), &kms.CreateKeyInput{Policy: aws.String(keyPolicy("/eks/tenants/acme"))})
	require.NoError(t, err)
	key := *created.KeyMetadata.Arn
	create := func(name, key string) error {
		_, err := f.client.CreateLogGroup(t.Context(), &logs.CreateLogGroupInput{LogGroupName: &name, KmsKeyId: &key})
		return err
	}
	requireCode(t, create("/eks/tenants/acme-corp", key), "AccessDeniedException", "not allowed to be used with LogGroup")
	requireCode(t, create("/eks/tenants/acme", key+"0"), "InvalidParameterException", "could not be found")
	require.NoError(t, create("/eks/tenants/acme", key))
	f.createGroup(t, "/eks/tenants/plain")
	_, err = f.client.AssociateKmsKey(t.Context(), &logs.AssociateKmsKeyInput{LogGroupName: aws.String("/eks/tenants/plain"), KmsKeyId: &key})
	requireCode(t, err, "AccessDeniedException", "")

	const group = "/eks/tenants/acme"
	f.createStream(t, group, "s")
	put := func() error {
		_, err := f.put(t.Context(), group, "s", event(time.Now(), "m"))
		return err
	}
	require.NoError(t, put())
	setPolicy := func(policy string) {
		_, err := c.PutKeyPolicy(t.Context(), &kms.PutKeyPolicyInput{KeyId: &key, Policy: &policy})
		require.NoError(t, err)
	}
	read := func() error {
		_, err := f.client.FilterLogEvents(t.Context(), &logs.FilterLogEventsInput{LogGroupName: aws.String(group)})
		return err
	}
	for name, x := range map[string]struct{ breaks, mends func() }{
		"disabled":          {func() { f.SetKeyState(key, false, false) }, func() { f.SetKeyState(key, true, false) }},
		"pending deletion":  {func() { f.SetKeyState(key, true, true) }, func() { f.SetKeyState(key, true, false) }},
		"for another group": {func() { setPolicy(keyPolicy("else")) }, func() { setPolicy(keyPolicy(group)) }},
	} {
		x.breaks()
		requireCode(t, put(), "AccessDeniedException", "KMS key")
		requireCode(t, read(), "AccessDeniedException", "KMS key")
		x.mends()
		require.NoError(t, put(), name)
		require.NoError(t, read(), name)
	}
	require.Len(t, f.Events(group, "s"), 4)
	f.SetKeyState(key, false, false)
	requireCode(t, create("/eks/tenants/new", key), "InvalidParameterException", "")
}
