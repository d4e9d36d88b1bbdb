package fakeaws_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	logs "github.com/aws/aws-sdk-go-v2/service/cloudwatchlogs"
	"github.com/aws/aws-sdk-go-v2/service/cloudwatchlogs/types"
	"github.com/stretchr/testify/require"

	"github.com/eks-tenant-logs/eks-tenant-logs/internal/fakeaws"
)

const keyARN = "arn:aws:kms:us-east-1:123456789012:key/1234abcd-12ab-34cd-56ef-1234567890ab"

func groupARN(name string) string { return "arn:aws:logs:us-east-1:123456789012:log-group:" + name }

func manyTags(n int) map[string]string {
	m := map[string]string{}
	for i := range n {
		m[fmt.Sprintf("k%02d", i)] = "v"
	}
	return m
}

func TestCreateLogGroup(t *testing.T) {
	f := start(t, fakeaws.Config{})
	for name, c := range map[string]struct {
		in         logs.CreateLogGroupInput
		code, text string
	}{
		"everything":         {logs.CreateLogGroupInput{LogGroupName: aws.String("/a/B.c-d_e#9"), KmsKeyId: aws.String(keyARN), LogGroupClass: "INFREQUENT_ACCESS", DeletionProtectionEnabled: aws.Bool(true), Tags: map[string]string{"eks-tenant-logs/tenant": "ä b"}}, "", ""},
		"a name of 512":      {logs.CreateLogGroupInput{LogGroupName: aws.String(strings.Repeat("n", 512))}, "", ""},
		"a name of 513":      {logs.CreateLogGroupInput{LogGroupName: aws.String(strings.Repeat("n", 513))}, "InvalidParameterException", "less than or equal to 512"},
		"an empty name":      {logs.CreateLogGroupInput{LogGroupName: aws.String("")}, "InvalidParameterException", "greater than or equal to 1"},
		"a name with space":  {logs.CreateLogGroupInput{LogGroupName: aws.String("a b")}, "InvalidParameterException", `1 validation error detected: Value 'a b' at 'logGroupName' failed to satisfy constraint: Member must satisfy regular expression pattern: [\.\-_/#A-Za-z0-9]+`},
		"a name of aws":      {logs.CreateLogGroupInput{LogGroupName: aws.String("aws/x")}, "InvalidParameterException", "reserved"},
		"an unknown class":   {logs.CreateLogGroupInput{LogGroupName: aws.String("x"), LogGroupClass: "GOLD"}, "InvalidParameterException", "enum value set"},
		"a key alias":        {logs.CreateLogGroupInput{LogGroupName: aws.String("x"), KmsKeyId: aws.String("alias/x")}, "InvalidParameterException", "KMS"},
		"a key id too long":  {logs.CreateLogGroupInput{LogGroupName: aws.String("x"), KmsKeyId: aws.String(keyARN + strings.Repeat("k", 257-len(keyARN)))}, "InvalidParameterException", "256"},
		"50 tags":            {logs.CreateLogGroupInput{LogGroupName: aws.String("tags50"), Tags: manyTags(50)}, "", ""},
		"51 tags":            {logs.CreateLogGroupInput{LogGroupName: aws.String("tags51"), Tags: manyTags(51)}, "InvalidParameterException", "less than or equal to 50"},
		"no tag in the map":  {logs.CreateLogGroupInput{LogGroupName: aws.String("x"), Tags: map[string]string{}}, "InvalidParameterException", "greater than or equal to 1"},
		"a tag key of 128":   {logs.CreateLogGroupInput{LogGroupName: aws.String("key128"), Tags: map[string]string{strings.Repeat("k", 128): ""}}, "", ""},
		"a tag key of 129":   {logs.CreateLogGroupInput{LogGroupName: aws.String("x"), Tags: map[string]string{strings.Repeat("k", 129): ""}}, "InvalidParameterException", "128"},
		"a tag value of 256": {logs.CreateLogGroupInput{LogGroupName: aws.String("value256"), Tags: map[string]string{"k": strings.Repeat("v", 256)}}, "", ""},
		"a tag value of 257": {logs.CreateLogGroupInput{LogGroupName: aws.String("x"), Tags: map[string]string{"k": strings.Repeat("v", 257)}}, "InvalidParameterException", "256"},
		"a tag with a star":  {logs.CreateLogGroupInput{LogGroupName: aws.String("x"), Tags: map[string]string{"k": "*"}}, "InvalidParameterException", "regular expression"},
		"a tag of aws":       {logs.CreateLogGroupInput{LogGroupName: aws.String("x"), Tags: map[string]string{"aws:k": "v"}}, "InvalidParameterException", "reserved"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := f.client.CreateLogGroup(t.Context(), &c.in)
			if c.code != "" {
				requireCode(t, err, c.code, c.text)
				return
			}
			require.NoError(t, err)
			_, err = f.client.CreateLogGroup(t.Context(), &c.in)
			requireCode(t, err, "ResourceAlreadyExistsException", "already exists")
		})
	}
	a := f.send(t, raw{operation: "CreateLogGroup", body: `{"tags":{"a":"*"},"logGroupClass":"X"}`})
	require.Equal(t, "InvalidParameterException", a.code)
	require.Contains(t, a.text, "3 validation errors detected: Value null at 'logGroupName' failed to satisfy constraint: Member must not be null; ")
}

func TestRetention(t *testing.T) {
	f := start(t, fakeaws.Config{})
	f.createGroup(t, "g")
	put := func(group string, days int32) error {
		_, err := f.client.PutRetentionPolicy(t.Context(), &logs.PutRetentionPolicyInput{LogGroupName: &group, RetentionInDays: &days})
		return err
	}
	allowed := []int32{1, 3, 5, 7, 14, 30, 60, 90, 120, 150, 180, 365, 400, 545, 731, 1096, 1827, 2192, 2557, 2922, 3288, 3653}
	for _, days := range allowed {
		require.NoError(t, put("g", days))
		require.Equal(t, days, *f.describe(t, "g").RetentionInDays)
		for _, near := range []int32{days - 1, days + 1} {
			if !slices.Contains(allowed, near) {
				requireCode(t, put("g", near), "InvalidParameterException", "enum value set: [1, 3, 5")
			}
		}
	}
	requireCode(t, put("none", 1), "ResourceNotFoundException", "The specified log group does not exist.")
	a := f.send(t, raw{operation: "PutRetentionPolicy", body: `{"logGroupName":"g"}`})
	require.Contains(t, a.text, "Value null at 'retentionInDays'")

	_, err := f.client.DeleteRetentionPolicy(t.Context(), &logs.DeleteRetentionPolicyInput{LogGroupName: aws.String("g")})
	require.NoError(t, err)
	require.Nil(t, f.describe(t, "g").RetentionInDays)
	_, err = f.client.DeleteRetentionPolicy(t.Context(), &logs.DeleteRetentionPolicyInput{LogGroupName: aws.String("none")})
	requireCode(t, err, "ResourceNotFoundException", "group")

	_, err = f.client.CreateLogGroup(t.Context(), &logs.CreateLogGroupInput{LogGroupName: aws.String("d"), LogGroupClass: "DELIVERY"})
	require.NoError(t, err)
	requireCode(t, put("d", 365), "InvalidParameterException", "DELIVERY")
	_, err = f.client.DeleteRetentionPolicy(t.Context(), &logs.DeleteRetentionPolicyInput{LogGroupName: aws.String("d")})
	requireCode(t, err, "InvalidParameterException", "DELIVERY")
	require.EqualValues(t, 1, *f.describe(t, "d").RetentionInDays)
}

// describe returns the one group of that very name.
func (f *fixture) describe(t testing.TB, name string) types.LogGroup {
	t.Helper()
	out, err := f.client.DescribeLogGroups(t.Context(), &logs.DescribeLogGroupsInput{LogGroupIdentifiers: []string{name}})
	require.NoError(t, err)
	require.Len(t, out.LogGroups, 1)
	return out.LogGroups[0]
}

func TestDescribeLogGroups(t *testing.T) {
	at := time.UnixMilli(1_700_000_000_123)
	f := start(t, fakeaws.Config{Clock: func() time.Time { return at }})
	for _, g := range []logs.CreateLogGroupInput{
		{LogGroupName: aws.String("/eks/tenants/acme"), KmsKeyId: aws.String(keyARN), DeletionProtectionEnabled: aws.Bool(true)},
		{LogGroupName: aws.String("/eks/tenants/acme-corp"), LogGroupClass: "INFREQUENT_ACCESS"},
		{LogGroupName: aws.String("/eks/platform"), LogGroupClass: "ESSENTIALS"},
		{LogGroupName: aws.String("/zzz"), LogGroupClass: "DELIVERY"},
	} {
		_, err := f.client.CreateLogGroup(t.Context(), &g)
		require.NoError(t, err)
	}
	names := func(in logs.DescribeLogGroupsInput) (names []string) {
		out, err := f.client.DescribeLogGroups(t.Context(), &in)
		require.NoError(t, err)
		for _, g := range out.LogGroups {
			names = append(names, *g.LogGroupName)
		}
		return names
	}
	require.Equal(t, []string{"/eks/platform", "/eks/tenants/acme", "/eks/tenants/acme-corp", "/zzz"}, names(logs.DescribeLogGroupsInput{}))
	require.Equal(t, []string{"/eks/tenants/acme", "/eks/tenants/acme-corp"}, names(logs.DescribeLogGroupsInput{LogGroupNamePrefix: aws.String("/eks/tenants/acme")}))
	require.Equal(t, []string{"/eks/tenants/acme-corp"}, names(logs.DescribeLogGroupsInput{LogGroupNamePattern: aws.String("corp")}))
	require.Equal(t, []string{"/eks/platform", "/eks/tenants/acme-corp"}, names(logs.DescribeLogGroupsInput{LogGroupClass: "INFREQUENT_ACCESS"}))
	require.Equal(t, []string{"/eks/tenants/acme"}, names(logs.DescribeLogGroupsInput{LogGroupClass: "STANDARD"}))
	require.Equal(t, []string{"/eks/tenants/acme", "/zzz"}, names(logs.DescribeLogGroupsInput{LogGroupIdentifiers: []string{"/zzz", groupARN("/eks/tenants/acme"), "/none"}}))

	require.Equal(t, types.LogGroup{
		Arn: aws.String(groupARN("/eks/tenants/acme") + ":*"), LogGroupArn: aws.String(groupARN("/eks/tenants/acme")),
		LogGroupName: aws.String("/eks/tenants/acme"), CreationTime: aws.Int64(at.UnixMilli()), StoredBytes: aws.Int64(0),
		KmsKeyId: aws.String(keyARN), DeletionProtectionEnabled: aws.Bool(true), BearerTokenAuthenticationEnabled: aws.Bool(false),
		LogGroupClass: "STANDARD", MetricFilterCount: aws.Int32(0),
	}, f.describe(t, "/eks/tenants/acme"))

	// "If you specify logGroupNamePattern in your request, then only arn, creationTime, and logGroupName are included."
	out, err := f.client.DescribeLogGroups(t.Context(), &logs.DescribeLogGroupsInput{LogGroupNamePattern: aws.String("tenants/acme")})
	require.NoError(t, err)
	require.Equal(t, types.LogGroup{
		Arn: aws.String(groupARN("/eks/tenants/acme") + ":*"), LogGroupName: aws.String("/eks/tenants/acme"), CreationTime: aws.Int64(at.UnixMilli()),
	}, out.LogGroups[0])

	for name, c := range map[string]struct {
		in   logs.DescribeLogGroupsInput
		text string
	}{
		"limit 0":                {logs.DescribeLogGroupsInput{Limit: aws.Int32(0)}, "greater than or equal to 1"},
		"limit 51":               {logs.DescribeLogGroupsInput{Limit: aws.Int32(51)}, "less than or equal to 50"},
		"prefix and pattern":     {logs.DescribeLogGroupsInput{LogGroupNamePrefix: aws.String("a"), LogGroupNamePattern: aws.String("a")}, "mutually exclusive"},
		"identifiers and prefix": {logs.DescribeLogGroupsInput{LogGroupNamePrefix: aws.String("a"), LogGroupIdentifiers: []string{"a"}}, "combined"},
		"an ARN with a star":     {logs.DescribeLogGroupsInput{LogGroupIdentifiers: []string{groupARN("a") + ":*"}}, "1 validation error"},
		"another account's":      {logs.DescribeLogGroupsInput{LogGroupIdentifiers: []string{"arn:aws:logs:us-east-1:999999999999:log-group:a"}}, "this account"},
		"51 identifiers":         {logs.DescribeLogGroupsInput{LogGroupIdentifiers: slices.Repeat([]string{"a"}, 51)}, "less than or equal to 50"},
		"an invalid token":       {logs.DescribeLogGroupsInput{NextToken: aws.String("x")}, "nextToken"},
		"linked accounts":        {logs.DescribeLogGroupsInput{IncludeLinkedAccounts: aws.Bool(true)}, "monitoring account"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := f.client.DescribeLogGroups(t.Context(), &c.in)
			requireCode(t, err, "InvalidParameterException", c.text)
		})
	}
	require.Len(t, names(logs.DescribeLogGroupsInput{Limit: aws.Int32(50), LogGroupIdentifiers: nil}), 4)
	require.Len(t, names(logs.DescribeLogGroupsInput{LogGroupIdentifiers: slices.Repeat([]string{"/zzz"}, 50)}), 1)
}

func TestDescribeLogGroupsPages(t *testing.T) {
	f := start(t, fakeaws.Config{})
	var want []string
	for i := range 101 {
		name := fmt.Sprintf("g%03d", i)
		want = append(want, name)
		f.createGroup(t, name)
	}
	for _, limit := range []int32{1, 7, 50} {
		var got []string
		p := logs.NewDescribeLogGroupsPaginator(f.client, &logs.DescribeLogGroupsInput{LogGroupNamePrefix: aws.String("g")}, func(o *logs.DescribeLogGroupsPaginatorOptions) { o.Limit = limit })
		for p.HasMorePages() {
			out, err := p.NextPage(t.Context())
			require.NoError(t, err)
			require.LessOrEqual(t, len(out.LogGroups), int(limit))
			for _, g := range out.LogGroups {
				got = append(got, *g.LogGroupName)
			}
		}
		require.Equal(t, want, got)
	}
	out, err := f.client.DescribeLogGroups(t.Context(), &logs.DescribeLogGroupsInput{})
	require.NoError(t, err)
	require.Len(t, out.LogGroups, 50)
	_, err = f.client.DescribeLogGroups(t.Context(), &logs.DescribeLogGroupsInput{LogGroupNamePrefix: aws.String("g0"), NextToken: out.NextToken})
	requireCode(t, err, "InvalidParameterException", "nextToken")
}

func TestTags(t *testing.T) {
	f := start(t, fakeaws.Config{})
	f.createGroup(t, "g")
	tag := func(arn string, tags map[string]string) error {
		_, err := f.client.TagResource(t.Context(), &logs.TagResourceInput{ResourceArn: &arn, Tags: tags})
		return err
	}
	list := func(arn string) (map[string]string, error) {
		out, err := f.client.ListTagsForResource(t.Context(), &logs.ListTagsForResourceInput{ResourceArn: &arn})
		if err != nil {
			return nil, err
		}
		return out.Tags, nil
	}
	require.NoError(t, tag(groupARN("g"), map[string]string{"a": "1", "b": ""}))
	require.NoError(t, tag(groupARN("g"), map[string]string{"a": "2"}))
	tags, err := list(groupARN("g"))
	require.NoError(t, err)
	require.Equal(t, map[string]string{"a": "2", "b": ""}, tags)

	untag := func(arn string, keys ...string) error {
		_, err := f.client.UntagResource(t.Context(), &logs.UntagResourceInput{ResourceArn: &arn, TagKeys: keys})
		return err
	}
	require.NoError(t, untag(groupARN("g"), "b", "c"))
	tags, err = list(groupARN("g"))
	require.NoError(t, err)
	require.Equal(t, map[string]string{"a": "2"}, tags)

	require.NoError(t, tag(groupARN("g"), manyTags(49)))
	requireCode(t, tag(groupARN("g"), map[string]string{"one": "more"}), "TooManyTagsException", "50")
	requireCode(t, tag(groupARN("g"), manyTags(51)), "InvalidParameterException", "50")
	requireCode(t, tag(groupARN("g"), map[string]string{"AWS:x": ""}), "InvalidParameterException", "reserved")
	requireCode(t, untag(groupARN("g"), slices.Repeat([]string{"x"}, 51)...), "InvalidParameterException", "50")
	for _, arn := range []string{groupARN("g") + ":*", "g", groupARN("g") + ":log-stream:s"} {
		requireCode(t, tag(arn, map[string]string{"a": "b"}), "InvalidParameterException", "")
		_, err := list(arn)
		requireCode(t, err, "InvalidParameterException", "")
		requireCode(t, untag(arn, "a"), "InvalidParameterException", "")
	}
	for _, arn := range []string{groupARN("none"), "arn:aws:logs:us-east-1:999999999999:log-group:g"} {
		requireCode(t, tag(arn, map[string]string{"a": "b"}), "ResourceNotFoundException", "")
		_, err := list(arn)
		requireCode(t, err, "ResourceNotFoundException", "")
		requireCode(t, untag(arn, "a"), "ResourceNotFoundException", "")
	}
}

func TestKMSKey(t *testing.T) {
	f := start(t, fakeaws.Config{})
	f.createGroup(t, "g")
	associate := func(in logs.AssociateKmsKeyInput) error {
		_, err := f.client.AssociateKmsKey(t.Context(), &in)
		return err
	}
	require.NoError(t, associate(logs.AssociateKmsKeyInput{LogGroupName: aws.String("g"), KmsKeyId: aws.String(keyARN)}))
	require.Equal(t, keyARN, *f.describe(t, "g").KmsKeyId)
	require.NoError(t, associate(logs.AssociateKmsKeyInput{ResourceIdentifier: aws.String(groupARN("g")), KmsKeyId: aws.String(keyARN + "2")}))
	require.Equal(t, keyARN+"2", *f.describe(t, "g").KmsKeyId)
	_, err := f.client.DisassociateKmsKey(t.Context(), &logs.DisassociateKmsKeyInput{LogGroupName: aws.String("g")})
	require.NoError(t, err)
	require.Nil(t, f.describe(t, "g").KmsKeyId)

	requireCode(t, associate(logs.AssociateKmsKeyInput{LogGroupName: aws.String("none"), KmsKeyId: aws.String(keyARN)}), "ResourceNotFoundException", "group")
	requireCode(t, associate(logs.AssociateKmsKeyInput{KmsKeyId: aws.String(keyARN)}), "InvalidParameterException", "either")
	requireCode(t, associate(logs.AssociateKmsKeyInput{LogGroupName: aws.String("g"), ResourceIdentifier: aws.String(groupARN("g")), KmsKeyId: aws.String(keyARN)}), "InvalidParameterException", "both")
	requireCode(t, associate(logs.AssociateKmsKeyInput{LogGroupName: aws.String("g"), KmsKeyId: aws.String("alias/x")}), "InvalidParameterException", "KMS")
}

func TestBearerTokens(t *testing.T) {
	f := start(t, fakeaws.Config{})
	f.createGroup(t, "g")
	set := func(identifier string, on *bool) error {
		_, err := f.client.PutBearerTokenAuthentication(t.Context(), &logs.PutBearerTokenAuthenticationInput{LogGroupIdentifier: &identifier, BearerTokenAuthenticationEnabled: on})
		return err
	}
	require.NoError(t, set("g", aws.Bool(true)))
	require.True(t, *f.describe(t, "g").BearerTokenAuthenticationEnabled)
	require.True(t, f.Groups()[0].BearerTokens)
	require.NoError(t, set(groupARN("g"), aws.Bool(false)))
	require.False(t, *f.describe(t, "g").BearerTokenAuthenticationEnabled)
	require.False(t, f.Groups()[0].BearerTokens)
	requireCode(t, set("none", aws.Bool(false)), "ResourceNotFoundException", "group")
	requireCode(t, set(groupARN("g")+":*", aws.Bool(false)), "InvalidParameterException", "")
	require.Equal(t, "InvalidParameterException", f.send(t, raw{operation: "PutBearerTokenAuthentication", body: `{"logGroupIdentifier":"g"}`}).code)
}

func TestDeletion(t *testing.T) {
	f := withStream(t, fakeaws.Config{})
	protect := func(identifier string, on bool) error {
		_, err := f.client.PutLogGroupDeletionProtection(t.Context(), &logs.PutLogGroupDeletionProtectionInput{LogGroupIdentifier: &identifier, DeletionProtectionEnabled: &on})
		return err
	}
	deleteStream := func(group, stream string) error {
		_, err := f.client.DeleteLogStream(t.Context(), &logs.DeleteLogStreamInput{LogGroupName: &group, LogStreamName: &stream})
		return err
	}
	deleteGroup := func(group string) error {
		_, err := f.client.DeleteLogGroup(t.Context(), &logs.DeleteLogGroupInput{LogGroupName: &group})
		return err
	}
	requireCode(t, protect("none", true), "ResourceNotFoundException", "group")
	require.NoError(t, protect(groupARN("g"), true))
	require.True(t, *f.describe(t, "g").DeletionProtectionEnabled)
	requireCode(t, deleteStream("g", "s"), "ValidationException", "protection")
	requireCode(t, deleteGroup("g"), "ValidationException", "protection")
	require.NoError(t, protect("g", false))
	requireCode(t, deleteStream("g", "none"), "ResourceNotFoundException", "The specified log stream does not exist.")
	require.NoError(t, deleteStream("g", "s"))
	requireCode(t, deleteStream("g", "s"), "ResourceNotFoundException", "stream")
	require.NoError(t, deleteGroup("g"))
	requireCode(t, deleteGroup("g"), "ResourceNotFoundException", "group")
	require.Empty(t, f.Groups())
}
