package fakeaws_test

import (
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	logs "github.com/aws/aws-sdk-go-v2/service/cloudwatchlogs"
	logstypes "github.com/aws/aws-sdk-go-v2/service/cloudwatchlogs/types"
	"github.com/aws/aws-sdk-go-v2/service/iam"
	"github.com/aws/aws-sdk-go-v2/service/iam/types"
	"github.com/aws/aws-sdk-go-v2/service/sts"
	ststypes "github.com/aws/aws-sdk-go-v2/service/sts/types"
	"github.com/stretchr/testify/require"

	"github.com/eks-tenant-logs/eks-tenant-logs/internal/fakeaws"
)

const (
	home  = "123456789012"
	other = "210987654321"
)

// cloud is a server that enforces IAM, with an administrator's clients.
type cloud struct {
	*fixture
	iam *iam.Client
	sts *sts.Client
}

func startEnforcing(t testing.TB, change ...func(*fakeaws.Config)) *cloud {
	cfg := fakeaws.Config{Enforce: true}
	for _, f := range change {
		f(&cfg)
	}
	f := start(t, cfg)
	return &cloud{f, newIAM(f.url, exampleCredentials), newSTS(f.url, exampleCredentials)}
}

func newSTS(url string, creds aws.CredentialsProvider) *sts.Client {
	return sts.New(sts.Options{Region: "us-east-1", BaseEndpoint: &url, Credentials: creds, Retryer: aws.NopRetryer{}})
}

func static(c fakeaws.Credentials) aws.CredentialsProvider {
	return credentials.NewStaticCredentialsProvider(c.AccessKeyID, c.SecretAccessKey, c.SessionToken)
}

// policy is a document of one statement: Allow, actions, resource.
func policy(resource string, actions ...string) string {
	return fmt.Sprintf(`{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":["%s"],"Resource":"%s"}]}`, strings.Join(actions, `","`), resource)
}

// trusting is a trust policy for AWS principals.
func trusting(condition string, principals ...string) string {
	if condition != "" {
		condition = `,"Condition":` + condition
	}
	return fmt.Sprintf(`{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":{"AWS":["%s"]},"Action":["sts:AssumeRole","sts:TagSession"]%s}]}`, strings.Join(principals, `","`), condition)
}

// role makes a role with an inline policy, unless that is empty, in the account of a client.
func role(t testing.TB, c *iam.Client, name, trust, inline string, change ...func(*iam.CreateRoleInput)) (arn string) {
	t.Helper()
	created := createRole(t, c, name, append([]func(*iam.CreateRoleInput){func(in *iam.CreateRoleInput) { in.AssumeRolePolicyDocument = &trust }}, change...)...)
	if inline != "" {
		_, err := c.PutRolePolicy(t.Context(), &iam.PutRolePolicyInput{RoleName: &name, PolicyName: aws.String("inline"), PolicyDocument: &inline})
		require.NoError(t, err)
	}
	return *created.Arn
}

func tagged(pairs ...string) func(*iam.CreateRoleInput) {
	return func(in *iam.CreateRoleInput) {
		for i := 0; i < len(pairs); i += 2 {
			in.Tags = append(in.Tags, types.Tag{Key: &pairs[i], Value: &pairs[i+1]})
		}
	}
}

// assume gives the credentials of a role's session.
func assume(t testing.TB, c *sts.Client, arn string, change ...func(*sts.AssumeRoleInput)) aws.CredentialsProvider {
	t.Helper()
	creds, err := tryAssume(t, c, arn, change...)
	require.NoError(t, err)
	return creds
}

func tryAssume(t testing.TB, c *sts.Client, arn string, change ...func(*sts.AssumeRoleInput)) (aws.CredentialsProvider, error) {
	in := &sts.AssumeRoleInput{RoleArn: &arn, RoleSessionName: aws.String("session")}
	for _, f := range change {
		f(in)
	}
	out, err := c.AssumeRole(t.Context(), in)
	if err != nil {
		return nil, err
	}
	return credentials.NewStaticCredentialsProvider(*out.Credentials.AccessKeyId, *out.Credentials.SecretAccessKey, *out.Credentials.SessionToken), nil
}

const groupPrefix = "arn:aws:logs:us-east-1:" + home + ":log-group:"

// logsCalls are calls to CloudWatch Logs on a group, by operation.
func logsCalls(t testing.TB, c *logs.Client) map[string]func(group string) error {
	ctx := t.Context()
	return map[string]func(string) error{
		"CreateLogGroup": func(g string) error {
			_, err := c.CreateLogGroup(ctx, &logs.CreateLogGroupInput{LogGroupName: &g})
			return err
		},
		"CreateLogStream": func(g string) error {
			_, err := c.CreateLogStream(ctx, &logs.CreateLogStreamInput{LogGroupName: &g, LogStreamName: aws.String("s")})
			return err
		},
		"PutLogEvents": func(g string) error {
			_, err := c.PutLogEvents(ctx, &logs.PutLogEventsInput{LogGroupName: &g, LogStreamName: aws.String("s"), LogEvents: []logstypes.InputLogEvent{event(time.Now(), "m")}})
			return err
		},
		"GetLogEvents": func(g string) error {
			_, err := c.GetLogEvents(ctx, &logs.GetLogEventsInput{LogGroupIdentifier: aws.String(groupPrefix + g), LogStreamName: aws.String("s")})
			return err
		},
		"FilterLogEvents": func(g string) error {
			_, err := c.FilterLogEvents(ctx, &logs.FilterLogEventsInput{LogGroupName: &g})
			return err
		},
		"DescribeLogStreams": func(g string) error {
			_, err := c.DescribeLogStreams(ctx, &logs.DescribeLogStreamsInput{LogGroupIdentifier: &g})
			return err
		},
		"DescribeLogGroups": func(g string) error {
			_, err := c.DescribeLogGroups(ctx, &logs.DescribeLogGroupsInput{LogGroupNamePrefix: &g})
			return err
		},
		"PutRetentionPolicy": func(g string) error {
			_, err := c.PutRetentionPolicy(ctx, &logs.PutRetentionPolicyInput{LogGroupName: &g, RetentionInDays: aws.Int32(365)})
			return err
		},
		"DeleteRetentionPolicy": func(g string) error {
			_, err := c.DeleteRetentionPolicy(ctx, &logs.DeleteRetentionPolicyInput{LogGroupName: &g})
			return err
		},
		"PutLogGroupDeletionProtection": func(g string) error {
			_, err := c.PutLogGroupDeletionProtection(ctx, &logs.PutLogGroupDeletionProtectionInput{LogGroupIdentifier: &g, DeletionProtectionEnabled: aws.Bool(false)})
			return err
		},
		"TagResource": func(g string) error {
			_, err := c.TagResource(ctx, &logs.TagResourceInput{ResourceArn: aws.String(groupPrefix + g), Tags: map[string]string{"k": "v"}})
			return err
		},
		"UntagResource": func(g string) error {
			_, err := c.UntagResource(ctx, &logs.UntagResourceInput{ResourceArn: aws.String(groupPrefix + g), TagKeys: []string{"k"}})
			return err
		},
		"ListTagsForResource": func(g string) error {
			_, err := c.ListTagsForResource(ctx, &logs.ListTagsForResourceInput{ResourceArn: aws.String(groupPrefix + g)})
			return err
		},
		"DisassociateKmsKey": func(g string) error {
			_, err := c.DisassociateKmsKey(ctx, &logs.DisassociateKmsKeyInput{LogGroupName: &g})
			return err
		},
		"DeleteLogStream": func(g string) error {
			_, err := c.DeleteLogStream(ctx, &logs.DeleteLogStreamInput{LogGroupName: &g, LogStreamName: aws.String("s")})
			return err
		},
		"DeleteLogGroup": func(g string) error {
			_, err := c.DeleteLogGroup(ctx, &logs.DeleteLogGroupInput{LogGroupName: &g})
			return err
		},
	}
}

// Which operation each form of a log group's ARN in a policy allows, all of them on one group.
func TestPoliciesForLogGroupsNeedTheRightFormOfARN(t *testing.T) {
	const acme = "/eks/tenants/acme"
	bare := []string{"TagResource", "UntagResource", "ListTagsForResource"}
	ofStreams := []string{"CreateLogStream", "PutLogEvents", "GetLogEvents", "DeleteLogStream"}
	ofGroups := []string{
		"CreateLogGroup", "FilterLogEvents", "DescribeLogStreams", "PutRetentionPolicy", "DeleteRetentionPolicy", "PutLogGroupDeletionProtection",
		"DisassociateKmsKey", "DeleteLogGroup",
	}
	join := func(lists ...[]string) (all []string) {
		for _, l := range lists {
			all = append(all, l...)
		}
		return all
	}
	for name, x := range map[string]struct {
		resource string
		allowed  []string
	}{
		"everything":                  {"*", join(bare, ofStreams, ofGroups, []string{"DescribeLogGroups"})},
		"the group and what is in it": {groupPrefix + acme + ":*", join(ofStreams, ofGroups)},
		"the bare ARN":                {groupPrefix + acme, bare},
		"one stream":                  {groupPrefix + acme + ":log-stream:s", ofStreams},
		"another stream":              {groupPrefix + acme + ":log-stream:t", nil},
		"another tenant's group, of which this one's name is the beginning": {groupPrefix + acme + "-corp:*", nil},
		"a group whose name is the beginning of this one's":                 {groupPrefix + "/eks/tenants/acm:*", nil},
		"a wildcard without a colon":                                        {groupPrefix + "/eks/tenants/acm*", join(bare, ofStreams, ofGroups)},
		"another account's group of that name":                              {strings.Replace(groupPrefix, home, other, 1) + acme + ":*", nil},
		"another region's":                                                  {strings.Replace(groupPrefix, "us-east-1", "eu-west-1", 1) + acme + ":*", nil},
	} {
		t.Run(name, func(t *testing.T) {
			f := startEnforcing(t)
			arn := role(t, f.iam, "caller", trustSelf, policy(x.resource, "logs:*"))
			calls := logsCalls(t, newClient(f.url, assume(t, f.sts, arn)))
			for operation, call := range calls {
				err := call(acme)
				allowed := false
				for _, a := range x.allowed {
					allowed = allowed || a == operation
				}
				if allowed {
					var code string
					if err != nil {
						code = err.Error()
					}
					require.NotContains(t, code, "AccessDenied", operation)
					continue
				}
				requireStatus(t, err, "AccessDeniedException", http.StatusBadRequest)
				requireCode(t, err, "AccessDeniedException", "User: arn:aws:sts::"+home+":assumed-role/caller/session is not authorized to perform: logs:"+operation+" on resource: ")
			}
			require.Equal(t, len(calls)-len(x.allowed), count(f.Server, "AccessDeniedException"))
		})
	}
}

// count is how many calls had a result.
func count(s *fakeaws.Server, result string) (n int) {
	for k, v := range s.Calls() {
		if k.Result == result {
			n += v
		}
	}
	return n
}

func TestDeniedCallsNameTheirResource(t *testing.T) {
	f := startEnforcing(t)
	calls := logsCalls(t, newClient(f.url, assume(t, f.sts, role(t, f.iam, "r", trustSelf, ""))))
	const g = groupPrefix + "/g"
	for operation, resource := range map[string]string{
		"PutLogEvents": g + ":log-stream:s", "GetLogEvents": g + ":log-stream:s", "FilterLogEvents": g + ":log-stream:", "TagResource": g, "DescribeLogGroups": "*",
	} {
		require.ErrorContains(t, calls[operation]("/g"), "on resource: "+resource+" because no identity-based policy allows the logs:"+operation+" action", operation)
	}
}

func TestConditionsOnTagsOfLogGroups(t *testing.T) {
	f := startEnforcing(t)
	arn := role(t, f.iam, "r", trustSelf, `{"Version":"2012-10-17","Statement":[
		{"Effect":"Allow","Action":["logs:CreateLogGroup","logs:TagResource"],"Resource":"*","Condition":{"StringEquals":{"aws:RequestTag/tenant":"acme"}}},
		{"Effect":"Allow","Action":"logs:PutRetentionPolicy","Resource":"*","Condition":{"StringEquals":{"aws:ResourceTag/tenant":"${aws:PrincipalTag/tenant}"}}}]}`, tagged("tenant", "acme"))
	c := newClient(f.url, assume(t, f.sts, arn))
	create := func(name string, tags map[string]string) error {
		_, err := c.CreateLogGroup(t.Context(), &logs.CreateLogGroupInput{LogGroupName: &name, Tags: tags})
		return err
	}
	requireCode(t, create("a", nil), "AccessDeniedException", "logs:CreateLogGroup")
	requireCode(t, create("a", map[string]string{"tenant": "globex"}), "AccessDeniedException", "logs:CreateLogGroup")
	require.NoError(t, create("a", map[string]string{"tenant": "acme"}))
	_, err := f.client.CreateLogGroup(t.Context(), &logs.CreateLogGroupInput{LogGroupName: aws.String("b"), Tags: map[string]string{"tenant": "globex"}})
	require.NoError(t, err)
	calls := logsCalls(t, c)
	require.NoError(t, calls["PutRetentionPolicy"]("a"))
	requireCode(t, calls["PutRetentionPolicy"]("b"), "AccessDeniedException", "")
}

func TestCreatingATaggedGroupNeedsThePermissionToTag(t *testing.T) {
	f := startEnforcing(t)
	c := newClient(f.url, assume(t, f.sts, role(t, f.iam, "r", trustSelf, policy("*", "logs:CreateLogGroup"))))
	_, err := c.CreateLogGroup(t.Context(), &logs.CreateLogGroupInput{LogGroupName: aws.String("a"), Tags: map[string]string{"k": "v"}})
	requireCode(t, err, "AccessDeniedException", "logs:TagResource")
	_, err = c.CreateLogGroup(t.Context(), &logs.CreateLogGroupInput{LogGroupName: aws.String("a")})
	require.NoError(t, err)
}

func TestTrustPolicies(t *testing.T) {
	f := startEnforcing(t)
	theirs := f.Account(other)
	mayAssume := policy("*", "sts:AssumeRole", "sts:TagSession")
	user := func(account fakeaws.Account, name string, policies ...string) *sts.Client {
		key, err := account.AddUser(name, policies...)
		require.NoError(t, err)
		return newSTS(f.url, static(key))
	}
	ours := f.Account(home)
	callers := map[string]*sts.Client{
		"admin":                f.sts,
		"our root":             newSTS(f.url, static(ours.RootKey())),
		"alice":                user(ours, "alice", mayAssume),
		"bob without policy":   user(ours, "bob"),
		"eve, denied":          user(ours, "eve", `{"Version":"2012-10-17","Statement":{"Effect":"Deny","Action":"sts:*","Resource":"*"}}`),
		"their carol":          user(theirs, "carol", mayAssume),
		"their dan, no policy": user(theirs, "dan"),
		"a role of ours":       newSTS(f.url, assume(t, f.sts, role(t, f.iam, "chain", trustSelf, mayAssume, func(in *iam.CreateRoleInput) { in.Path = aws.String("/p/") }))),
	}
	external := func(in *sts.AssumeRoleInput) { in.ExternalId = aws.String("only-us") }
	needsExternal := `{"StringEquals":{"sts:ExternalId":"only-us"}}`
	for name, x := range map[string]struct {
		trust   string
		change  func(*sts.AssumeRoleInput)
		allowed []string
	}{
		"our account, which leaves it to IAM": {trusting("", "arn:aws:iam::"+home+":root"), nil, []string{"admin", "alice", "a role of ours"}},
		"one user, who needs no policy":       {trusting("", "arn:aws:iam::"+home+":user/bob"), nil, []string{"bob without policy"}},
		"a user whose policies deny":          {trusting("", "arn:aws:iam::"+home+":user/eve"), nil, nil},
		"a role by its ARN":                   {trusting("", "arn:aws:iam::"+home+":role/p/chain"), nil, []string{"a role of ours"}},
		"a role's session":                    {trusting("", "arn:aws:sts::"+home+":assumed-role/chain/session"), nil, []string{"a role of ours"}},
		"another session":                     {trusting("", "arn:aws:sts::"+home+":assumed-role/chain/else"), nil, nil},
		"another account":                     {trusting("", "arn:aws:iam::"+other+":root"), nil, []string{"their carol"}},
		"another account's user":              {trusting("", "arn:aws:iam::"+other+":user/dan"), nil, nil},
		"an external id that is given":        {trusting(needsExternal, "arn:aws:iam::"+other+":root"), external, []string{"their carol"}},
		"an external id that is not":          {trusting(needsExternal, "arn:aws:iam::"+other+":root"), nil, nil},
		"a pattern of role names, held to the account": {
			trusting(`{"ArnLike":{"aws:PrincipalArn":"arn:aws:iam::`+home+`:role/p/ch*"}}`, "arn:aws:iam::"+home+":root"), nil, []string{"a role of ours"},
		},
		"everybody, who needs a policy only elsewhere": {trusting("", "*"), nil, []string{"admin", "alice", "bob without policy", "a role of ours", "their carol"}},
		"a service": {`{"Version":"2012-10-17","Statement":{"Effect":"Allow","Principal":{"Service":"ec2.amazonaws.com"},"Action":"sts:AssumeRole"}}`, nil, nil},
	} {
		t.Run(name, func(t *testing.T) {
			target := role(t, f.iam, fmt.Sprintf("target-%d", len(f.Account(home).RoleNames())), x.trust, "")
			for caller, c := range callers {
				var change []func(*sts.AssumeRoleInput)
				if x.change != nil {
					change = append(change, x.change)
				}
				_, err := tryAssume(t, c, target, change...)
				if strings.Contains(strings.Join(x.allowed, "|"), caller) {
					require.NoError(t, err, caller)
				} else {
					require.Error(t, err, caller)
					requireStatus(t, err, "AccessDenied", http.StatusForbidden)
				}
			}
		})
	}
	_, err := tryAssume(t, f.sts, "arn:aws:iam::"+home+":role/none")
	requireStatus(t, err, "AccessDenied", http.StatusForbidden)
	_, err = tryAssume(t, f.sts, "arn:aws:iam::"+home+":role/chain")
	requireStatus(t, err, "AccessDenied", http.StatusForbidden) // its path is part of its ARN
}

func TestTrustedPrincipalsMustExist(t *testing.T) {
	f := startEnforcing(t)
	create := func(principal string) error {
		_, err := f.iam.CreateRole(t.Context(), &iam.CreateRoleInput{RoleName: aws.String("trusting"), AssumeRolePolicyDocument: aws.String(trusting("", principal))})
		return err
	}
	for _, principal := range []string{"arn:aws:iam::" + home + ":role/none", "arn:aws:iam::" + home + ":user/none", "arn:aws:iam::" + other + ":role/p/none"} {
		err := create(principal)
		requireStatus(t, err, "MalformedPolicyDocument", 400)
		require.ErrorContains(t, err, principal)
	}
	arn := role(t, f.iam, "there", trustSelf, "", func(in *iam.CreateRoleInput) { in.Path = aws.String("/p/") })
	requireStatus(t, create("arn:aws:iam::"+home+":role/there"), "MalformedPolicyDocument", 400)
	require.NoError(t, create(arn))
	_, err := f.iam.UpdateAssumeRolePolicy(t.Context(), &iam.UpdateAssumeRolePolicyInput{RoleName: aws.String("trusting"), PolicyDocument: aws.String(trusting("", arn+"x"))})
	requireStatus(t, err, "MalformedPolicyDocument", 400)
}

func TestARoleMadeAnewIsNotTheOneThatWasTrusted(t *testing.T) {
	f := startEnforcing(t)
	admin := role(t, f.iam, "admin", trustSelf, "")
	target := role(t, f.iam, "target", trusting("", admin), "")
	_, err := tryAssume(t, newSTS(f.url, assume(t, f.sts, admin)), target)
	require.NoError(t, err)
	_, err = f.iam.DeleteRole(t.Context(), &iam.DeleteRoleInput{RoleName: aws.String("admin")})
	require.NoError(t, err)
	role(t, f.iam, "admin", trustSelf, "")
	_, err = tryAssume(t, newSTS(f.url, assume(t, f.sts, admin)), target)
	requireStatus(t, err, "AccessDenied", 403)
	_, err = f.iam.UpdateAssumeRolePolicy(t.Context(), &iam.UpdateAssumeRolePolicyInput{RoleName: aws.String("target"), PolicyDocument: aws.String(trusting("", admin))})
	require.NoError(t, err)
	_, err = tryAssume(t, newSTS(f.url, assume(t, f.sts, admin)), target)
	require.NoError(t, err)
}

func TestSessionsActInTheAccountOfTheirRole(t *testing.T) {
	f := startEnforcing(t)
	theirIAM := newIAM(f.url, static(f.Account(other).RootKey()))
	full := policy("*", "logs:*")
	here := role(t, f.iam, "writer", trustSelf, full)
	there := role(t, theirIAM, "writer", trusting(`{"StringEquals":{"sts:ExternalId":"x1"}}`, "arn:aws:iam::"+home+":root"), full)
	require.Contains(t, there, other)
	external := func(in *sts.AssumeRoleInput) { in.ExternalId = aws.String("x1") }
	for name, creds := range map[string]aws.CredentialsProvider{"here": assume(t, f.sts, here), "there": assume(t, f.sts, there, external)} {
		_, err := newClient(f.url, creds).CreateLogGroup(t.Context(), &logs.CreateLogGroupInput{LogGroupName: aws.String("only-" + name)})
		require.NoError(t, err)
		_, err = newClient(f.url, creds).CreateLogGroup(t.Context(), &logs.CreateLogGroupInput{LogGroupName: aws.String("both")})
		require.NoError(t, err)
	}
	names := func(groups []fakeaws.Group) (list []string) {
		for _, g := range groups {
			list = append(list, g.ARN)
		}
		return list
	}
	require.Equal(t, []string{groupPrefix + "both", groupPrefix + "only-here"}, names(f.Groups()))
	require.Equal(t, []string{"arn:aws:logs:us-east-1:" + other + ":log-group:both", "arn:aws:logs:us-east-1:" + other + ":log-group:only-there"}, names(f.Account(other).Groups()))
	require.Equal(t, []string{home, other}, f.Accounts())

	// A group of another account is none of this one's, whatever IAM says.
	c := newClient(f.url, assume(t, f.sts, here))
	_, err := c.FilterLogEvents(t.Context(), &logs.FilterLogEventsInput{LogGroupIdentifier: aws.String("arn:aws:logs:us-east-1:" + other + ":log-group:both")})
	requireCode(t, err, "ResourceNotFoundException", "")
	c = newClient(f.url, assume(t, f.sts, role(t, f.iam, "narrow", trustSelf, policy(groupPrefix+"*", "logs:*"))))
	_, err = c.FilterLogEvents(t.Context(), &logs.FilterLogEventsInput{LogGroupIdentifier: aws.String("arn:aws:logs:us-east-1:" + other + ":log-group:both")})
	requireCode(t, err, "AccessDeniedException", "")
}

func TestBoundariesAndSessionPoliciesOnlyNarrow(t *testing.T) {
	f := startEnforcing(t)
	boundary := createPolicy(t, f.iam, "boundary", policy(groupPrefix+"/eks/tenants/${aws:PrincipalTag/tenant}:*", "logs:*"))
	arn := role(t, f.iam, "r", trustSelf, policy("*", "logs:*"), tagged("tenant", "acme"), func(in *iam.CreateRoleInput) { in.PermissionsBoundary = &boundary })
	calls := func(change ...func(*sts.AssumeRoleInput)) map[string]func(string) error {
		return logsCalls(t, newClient(f.url, assume(t, f.sts, arn, change...)))
	}
	f.createGroup(t, "/eks/tenants/acme")
	f.createGroup(t, "/eks/tenants/acme-corp")
	wide := calls()
	require.NoError(t, wide["FilterLogEvents"]("/eks/tenants/acme"))
	requireCode(t, wide["FilterLogEvents"]("/eks/tenants/acme-corp"), "AccessDeniedException", "")
	requireCode(t, wide["DescribeLogGroups"]("/eks"), "AccessDeniedException", "")

	narrow := calls(func(in *sts.AssumeRoleInput) { in.Policy = aws.String(policy("*", "logs:DescribeLogStreams")) })
	require.NoError(t, narrow["DescribeLogStreams"]("/eks/tenants/acme"))
	requireCode(t, narrow["FilterLogEvents"]("/eks/tenants/acme"), "AccessDeniedException", "")
	requireCode(t, narrow["DescribeLogStreams"]("/eks/tenants/acme-corp"), "AccessDeniedException", "")
	managed := createPolicy(t, f.iam, "session", policy("*", "logs:FilterLogEvents"))
	byARN := calls(func(in *sts.AssumeRoleInput) { in.PolicyArns = []ststypes.PolicyDescriptorType{{Arn: &managed}} })
	require.NoError(t, byARN["FilterLogEvents"]("/eks/tenants/acme"))
	requireCode(t, byARN["DescribeLogStreams"]("/eks/tenants/acme"), "AccessDeniedException", "")

	// A tag that is changed changes what the boundary reaches, also for sessions that were there before.
	_, err := f.iam.TagRole(t.Context(), &iam.TagRoleInput{RoleName: aws.String("r"), Tags: []types.Tag{{Key: aws.String("tenant"), Value: aws.String("acme-corp")}}})
	require.NoError(t, err)
	require.NoError(t, wide["FilterLogEvents"]("/eks/tenants/acme-corp"))
	requireCode(t, wide["FilterLogEvents"]("/eks/tenants/acme"), "AccessDeniedException", "")
	_, err = f.iam.DeleteRolePermissionsBoundary(t.Context(), &iam.DeleteRolePermissionsBoundaryInput{RoleName: aws.String("r")})
	require.NoError(t, err)
	require.NoError(t, wide["FilterLogEvents"]("/eks/tenants/acme"))
}

func TestSessionTags(t *testing.T) {
	f := startEnforcing(t)
	arn := role(t, f.iam, "abac", `{"Version":"2012-10-17","Statement":[
		{"Effect":"Allow","Principal":{"AWS":"arn:aws:iam::`+home+`:root"},"Action":"sts:AssumeRole"},
		{"Effect":"Allow","Principal":{"AWS":"arn:aws:iam::`+home+`:root"},"Action":"sts:TagSession","Condition":{"StringEquals":{"aws:RequestTag/kubernetes-namespace":["acme","globex"]}}}]}`,
		policy(groupPrefix+"/eks/tenants/${aws:PrincipalTag/kubernetes-namespace}:*", "logs:FilterLogEvents", "sts:AssumeRole")+"", tagged("kubernetes-namespace", "of-the-role"))
	withTag := func(value string) func(*sts.AssumeRoleInput) {
		return func(in *sts.AssumeRoleInput) {
			in.Tags = []ststypes.Tag{{Key: aws.String("kubernetes-namespace"), Value: &value}}
			in.TransitiveTagKeys = []string{"kubernetes-namespace"}
		}
	}
	for _, g := range []string{"acme", "globex", "of-the-role"} {
		f.createGroup(t, "/eks/tenants/"+g)
	}
	reads := func(creds aws.CredentialsProvider, group string) error {
		return logsCalls(t, newClient(f.url, creds))["FilterLogEvents"]("/eks/tenants/" + group)
	}
	acme := assume(t, f.sts, arn, withTag("acme"))
	require.NoError(t, reads(acme, "acme"))
	requireCode(t, reads(acme, "globex"), "AccessDeniedException", "")
	requireCode(t, reads(acme, "of-the-role"), "AccessDeniedException", "")
	plain := assume(t, f.sts, arn)
	require.NoError(t, reads(plain, "of-the-role"))
	requireCode(t, reads(plain, "acme"), "AccessDeniedException", "")
	_, err := tryAssume(t, f.sts, arn, withTag("initech"))
	requireStatus(t, err, "AccessDenied", http.StatusForbidden)
	require.ErrorContains(t, err, "sts:TagSession")

	// A transitive tag goes on to the next session, and can't be set there.
	next := role(t, f.iam, "next", trusting("", arn), policy(groupPrefix+"/eks/tenants/${aws:PrincipalTag/kubernetes-namespace}:*", "logs:FilterLogEvents"))
	chained := newSTS(f.url, acme)
	require.NoError(t, reads(assume(t, chained, next), "acme"))
	_, err = tryAssume(t, chained, next, withTag("globex"))
	requireStatus(t, err, "InvalidParameterValue", 400)
	_, err = tryAssume(t, chained, next, func(in *sts.AssumeRoleInput) { in.DurationSeconds = aws.Int32(3_601) })
	requireStatus(t, err, "ValidationError", 400)
	_, err = tryAssume(t, f.sts, arn, func(in *sts.AssumeRoleInput) { in.DurationSeconds = aws.Int32(3_601) })
	requireCode(t, err, "ValidationError", "MaxSessionDuration")
}

func TestWebIdentities(t *testing.T) {
	f := startEnforcing(t)
	const issuer = "oidc.eks.us-east-1.amazonaws.com/id/ABC"
	trust := fmt.Sprintf(`{"Version":"2012-10-17","Statement":{"Effect":"Allow","Principal":{"Federated":"arn:aws:iam::%s:oidc-provider/%s"},"Action":"sts:AssumeRoleWithWebIdentity",
		"Condition":{"StringEquals":{"%s:sub":"system:serviceaccount:tenant-acme:app","%s:aud":"sts.amazonaws.com"}}}}`, home, issuer, issuer, issuer)
	arn := role(t, f.iam, "irsa", trust, policy("*", "logs:DescribeLogGroups"))
	const good = "system:serviceaccount:tenant-acme:app"
	token := func(issuer, sub, aud string) string {
		return f.WebIdentityToken("https://"+issuer, sub, aud, time.Hour)
	}
	unsigned := newSTS(f.url, aws.AnonymousCredentials{})
	try := func(token string) (*sts.AssumeRoleWithWebIdentityOutput, error) {
		return unsigned.AssumeRoleWithWebIdentity(t.Context(), &sts.AssumeRoleWithWebIdentityInput{RoleArn: &arn, RoleSessionName: aws.String("app"), WebIdentityToken: &token})
	}
	_, err := try(token(issuer, good, "sts.amazonaws.com"))
	requireStatus(t, err, "InvalidIdentityToken", 400) // the account has no such provider
	_, err = f.iam.CreateOpenIDConnectProvider(t.Context(), &iam.CreateOpenIDConnectProviderInput{Url: aws.String("https://" + issuer), ClientIDList: []string{"sts.amazonaws.com", "else"}})
	require.NoError(t, err)
	out, err := try(token(issuer, good, "sts.amazonaws.com"))
	require.NoError(t, err)
	require.Equal(t, good, *out.SubjectFromWebIdentityToken)
	require.Equal(t, "arn:aws:sts::"+home+":assumed-role/irsa/app", *out.AssumedRoleUser.Arn)
	creds := credentials.NewStaticCredentialsProvider(*out.Credentials.AccessKeyId, *out.Credentials.SecretAccessKey, *out.Credentials.SessionToken)
	require.NoError(t, logsCalls(t, newClient(f.url, creds))["DescribeLogGroups"]("/"))
	requireCode(t, logsCalls(t, newClient(f.url, creds))["FilterLogEvents"]("/g"), "AccessDeniedException", "")

	for name, x := range map[string]struct {
		token, code string
		status      int
	}{
		"another service account":            {token(issuer, "system:serviceaccount:tenant-acme:app2", "sts.amazonaws.com"), "AccessDenied", 403},
		"another namespace":                  {token(issuer, "system:serviceaccount:tenant-acme2:app", "sts.amazonaws.com"), "AccessDenied", 403},
		"an audience the role does not want": {token(issuer, good, "else"), "AccessDenied", 403},
		"an audience the provider has not":   {token(issuer, good, "kubernetes"), "InvalidIdentityToken", 400},
		"another cluster":                    {token(issuer+"D", good, "sts.amazonaws.com"), "InvalidIdentityToken", 400},
		"an expired token":                   {f.WebIdentityToken("https://"+issuer, good, "sts.amazonaws.com", -time.Second), "ExpiredTokenException", 400},
		"a token of another signature":       {token(issuer, good, "sts.amazonaws.com") + "x", "InvalidIdentityToken", 400},
		"no token at all":                    {"nonsense", "InvalidIdentityToken", 400},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := try(x.token)
			requireStatus(t, err, x.code, x.status)
		})
	}
	_, err = tryAssume(t, f.sts, arn)
	requireStatus(t, err, "AccessDenied", 403) // a web identity's role is not for AssumeRole
}

func TestIAMIsEnforced(t *testing.T) {
	f := startEnforcing(t)
	boundary := createPolicy(t, f.iam, "boundary", policy("*", "logs:*"))
	loose := createPolicy(t, f.iam, "loose", allowAll)
	provisioner := role(t, f.iam, "provisioner", trustSelf, `{"Version":"2012-10-17","Statement":[
		{"Effect":"Allow","Action":["iam:CreateRole","iam:PutRolePolicy","iam:PutRolePermissionsBoundary"],"Resource":"arn:aws:iam::`+home+`:role/eks-tenant-logs/*","Condition":{"StringEquals":{"iam:PermissionsBoundary":"`+boundary+`"}}},
		{"Effect":"Allow","Action":["iam:TagRole","iam:GetRole","iam:UpdateAssumeRolePolicy"],"Resource":"arn:aws:iam::`+home+`:role/eks-tenant-logs/*"},
		{"Effect":"Allow","Action":"iam:AttachRolePolicy","Resource":"*","Condition":{"ArnEquals":{"iam:PolicyARN":"`+boundary+`"}}},
		{"Effect":"Allow","Action":"iam:UntagRole","Resource":"*","Condition":{"ForAllValues:StringEquals":{"aws:TagKeys":["a"]}}},
		{"Effect":"Allow","Action":"iam:UpdateRole","Resource":"*","Condition":{"StringEquals":{"aws:ResourceTag/eks-tenant-logs/tenant":"acme"}}}]}`)
	c := newIAM(f.url, assume(t, f.sts, provisioner))
	role(t, f.iam, "outside", trustSelf, "")
	create := func(name, path string, boundary *string) error {
		_, err := c.CreateRole(t.Context(), &iam.CreateRoleInput{
			RoleName: &name, Path: &path, AssumeRolePolicyDocument: aws.String(trustSelf), PermissionsBoundary: boundary,
			Tags: []types.Tag{{Key: aws.String("eks-tenant-logs/tenant"), Value: aws.String("acme")}},
		})
		return err
	}
	put := func(name string) error {
		_, err := c.PutRolePolicy(t.Context(), &iam.PutRolePolicyInput{RoleName: &name, PolicyName: aws.String("p"), PolicyDocument: aws.String(allowAll)})
		return err
	}
	setBoundary := func(arn string) error {
		_, err := c.PutRolePermissionsBoundary(t.Context(), &iam.PutRolePermissionsBoundaryInput{RoleName: aws.String("reader"), PermissionsBoundary: &arn})
		return err
	}
	attach := func(arn string) error {
		_, err := c.AttachRolePolicy(t.Context(), &iam.AttachRolePolicyInput{RoleName: aws.String("reader"), PolicyArn: &arn})
		return err
	}
	untag := func(keys ...string) error {
		_, err := c.UntagRole(t.Context(), &iam.UntagRoleInput{RoleName: aws.String("reader"), TagKeys: keys})
		return err
	}
	update := func(name string) error {
		_, err := c.UpdateRole(t.Context(), &iam.UpdateRoleInput{RoleName: &name, Description: aws.String("d")})
		return err
	}
	for _, x := range []struct {
		name    string
		err     error
		allowed bool
	}{
		{"a role without boundary", create("reader", "/eks-tenant-logs/", nil), false},
		{"a role with another boundary", create("reader", "/eks-tenant-logs/", &loose), false},
		{"a role of another path", create("reader", "/", &boundary), false},
		{"a role as it should be", create("reader", "/eks-tenant-logs/", &boundary), true},
		{"a policy for it", put("reader"), true},
		{"a policy for a role outside", put("outside"), false},
		{"a policy for a role that is not there", put("none"), false},
		{"another boundary", setBoundary(loose), false},
		{"the same boundary", setBoundary(boundary), true},
		{"a managed policy that is not the boundary", attach(loose), false},
		{"the boundary attached", attach(boundary), true},
		{"a tag it may take away", untag("a"), true},
		{"a tag it may not", untag("a", "eks-tenant-logs/tenant"), false},
		{"a role with the tag", update("reader"), true},
		{"a role without", update("outside"), false},
		{"a listing", func() error { _, err := c.ListRoles(t.Context(), &iam.ListRolesInput{}); return err }(), false},
		{"deleting the boundary", func() error {
			_, err := c.DeleteRolePermissionsBoundary(t.Context(), &iam.DeleteRolePermissionsBoundaryInput{RoleName: aws.String("reader")})
			return err
		}(), false},
	} {
		if x.allowed {
			require.NoError(t, x.err, x.name)
			continue
		}
		require.Error(t, x.err, x.name)
		requireStatus(t, x.err, "AccessDenied", http.StatusForbidden)
	}
	require.ErrorContains(t, put("outside"), "User: arn:aws:sts::"+home+":assumed-role/provisioner/session is not authorized to perform: iam:PutRolePolicy on resource: arn:aws:iam::"+home+":role/outside")
	_, err := newSTS(f.url, assume(t, f.sts, provisioner)).GetCallerIdentity(t.Context(), &sts.GetCallerIdentityInput{})
	require.NoError(t, err, "nobody needs a permission for that")
}

func TestCreatingATaggedRoleNeedsThePermissionToTag(t *testing.T) {
	f := startEnforcing(t)
	c := newIAM(f.url, assume(t, f.sts, role(t, f.iam, "r", trustSelf, policy("*", "iam:CreateRole", "iam:CreatePolicy"))))
	tags := []types.Tag{{Key: aws.String("k"), Value: aws.String("v")}}
	_, err := c.CreateRole(t.Context(), &iam.CreateRoleInput{RoleName: aws.String("x"), AssumeRolePolicyDocument: aws.String(trustSelf), Tags: tags})
	requireCode(t, err, "AccessDenied", "iam:TagRole")
	_, err = c.CreatePolicy(t.Context(), &iam.CreatePolicyInput{PolicyName: aws.String("x"), PolicyDocument: aws.String(allowAll), Tags: tags})
	requireCode(t, err, "AccessDenied", "iam:TagPolicy")
	createRole(t, c, "x")
}

func TestSessionsOfADeletedRoleMayDoNothing(t *testing.T) {
	f := startEnforcing(t)
	arn := role(t, f.iam, "r", trustSelf, "")
	attached := createPolicy(t, f.iam, "p", policy("*", "logs:DescribeLogGroups"))
	attach := func() {
		_, err := f.iam.AttachRolePolicy(t.Context(), &iam.AttachRolePolicyInput{RoleName: aws.String("r"), PolicyArn: &attached})
		require.NoError(t, err)
	}
	attach()
	old := logsCalls(t, newClient(f.url, assume(t, f.sts, arn)))["DescribeLogGroups"]
	require.NoError(t, old("/"))
	_, err := f.iam.DetachRolePolicy(t.Context(), &iam.DetachRolePolicyInput{RoleName: aws.String("r"), PolicyArn: &attached})
	require.NoError(t, err)
	_, err = f.iam.DeleteRole(t.Context(), &iam.DeleteRoleInput{RoleName: aws.String("r")})
	require.NoError(t, err)
	requireCode(t, old("/"), "AccessDeniedException", "")
	createRole(t, f.iam, "r")
	attach()
	requireCode(t, old("/"), "AccessDeniedException", "") // made anew, it is another role
	require.NoError(t, logsCalls(t, newClient(f.url, assume(t, f.sts, arn)))["DescribeLogGroups"]("/"))
}

func TestPoliciesCanTakeEffectLate(t *testing.T) {
	var clock struct {
		sync.Mutex
		time.Time
	}
	clock.Time = noon
	f := startEnforcing(t, func(c *fakeaws.Config) {
		c.Clock = func() time.Time {
			clock.Lock()
			defer clock.Unlock()
			return clock.Time
		}
	})
	pass := func(d time.Duration) {
		clock.Lock()
		defer clock.Unlock()
		clock.Time = clock.Add(d)
	}
	f.SetPolicyDelay(10 * time.Second)
	arn := role(t, f.iam, "r", trustSelf, policy("*", "logs:DescribeLogGroups"))
	_, err := tryAssume(t, f.sts, arn)
	requireStatus(t, err, "AccessDenied", 403)
	_, err = f.iam.GetRole(t.Context(), &iam.GetRoleInput{RoleName: aws.String("r")})
	require.NoError(t, err, "it can be read at once")
	pass(10 * time.Second)
	call := logsCalls(t, newClient(f.url, assume(t, f.sts, arn)))["DescribeLogGroups"]
	require.NoError(t, call("/"))
	_, err = f.iam.DeleteRolePolicy(t.Context(), &iam.DeleteRolePolicyInput{RoleName: aws.String("r"), PolicyName: aws.String("inline")})
	require.NoError(t, err)
	pass(9 * time.Second)
	require.NoError(t, call("/"))
	pass(time.Second)
	requireCode(t, call("/"), "AccessDeniedException", "")
}

func TestEnforcementWhilePoliciesChange(t *testing.T) {
	f := startEnforcing(t)
	arn := role(t, f.iam, "r", trustSelf, policy("*", "logs:DescribeLogGroups"))
	calls := logsCalls(t, newClient(f.url, assume(t, f.sts, arn)))
	var wg sync.WaitGroup
	for i := range 4 {
		wg.Go(func() {
			for range 20 {
				if i%2 == 0 {
					_, err := f.iam.PutRolePolicy(t.Context(), &iam.PutRolePolicyInput{RoleName: aws.String("r"), PolicyName: aws.String(fmt.Sprint("p", i)), PolicyDocument: aws.String(policy("*", "logs:FilterLogEvents"))})
					if err == nil {
						_, err = f.iam.GetAccountAuthorizationDetails(t.Context(), &iam.GetAccountAuthorizationDetailsInput{})
					}
					if err != nil {
						t.Error(err)
					}
				} else if err := calls["DescribeLogGroups"]("/"); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	f.createGroup(t, "g")
	require.NoError(t, calls["FilterLogEvents"]("g"))
}

func TestWithoutEnforcementAnyKnownKeyMayDoEverything(t *testing.T) {
	f := start(t, fakeaws.Config{})
	creds := assume(t, newSTS(f.url, exampleCredentials), "arn:aws:iam::"+other+":role/none")
	require.NoError(t, logsCalls(t, newClient(f.url, creds))["CreateLogGroup"]("g"))
	require.Len(t, f.Groups(), 1, "and all work on one account's groups")
}

func TestOtherWaysToAGroupAreDecidedAbout(t *testing.T) {
	f := startEnforcing(t)
	key := func(name, inline string) aws.CredentialsProvider {
		return assume(t, f.sts, role(t, f.iam, name, trustSelf, inline))
	}
	reader := key("reader", policy(groupPrefix+"/eks/tenants/acme:*", "logs:*"))
	own, others := "/eks/tenants/acme", "/eks/tenants/acme-corp"
	for name, x := range map[string]struct {
		operation, body string
		allowed         bool
	}{
		"a query on its group":                   {"StartQuery", `{"logGroupName":"` + own + `","queryString":"fields @message","startTime":0,"endTime":1}`, true},
		"a query on another's":                   {"StartQuery", `{"logGroupName":"` + others + `"}`, false},
		"a query on its group and another's":     {"StartQuery", `{"logGroupNames":["` + own + `","` + others + `"]}`, false},
		"by identifiers":                         {"StartQuery", `{"logGroupIdentifiers":["` + groupPrefix + others + `"]}`, false},
		"a query that chooses its groups itself": {"StartQuery", `{"queryString":"SOURCE logGroups(namePrefix: ['/eks'])"}`, false},
		"its live tail":                          {"StartLiveTail", `{"logGroupIdentifiers":["` + groupPrefix + own + `"]}`, true},
		"another's live tail":                    {"StartLiveTail", `{"logGroupIdentifiers":["` + groupPrefix + others + `"]}`, false},
		"another's fields":                       {"GetLogGroupFields", `{"logGroupIdentifier":"` + others + `"}`, false},
		"an export of another's":                 {"CreateExportTask", `{"logGroupName":"` + others + `","destination":"b"}`, false},
		"a subscription to another's":            {"PutSubscriptionFilter", `{"logGroupName":"` + others + `"}`, false},
		"another's bearer tokens":                {"PutBearerTokenAuthentication", `{"logGroupIdentifier":"` + others + `","bearerTokenAuthenticationEnabled":true}`, false},
		"a policy for the account":               {"PutAccountPolicy", `{}`, false},
		"the results of somebody's query":        {"GetQueryResults", `{"queryId":"q"}`, false},
	} {
		t.Run(name, func(t *testing.T) {
			creds, err := reader.Retrieve(t.Context())
			require.NoError(t, err)
			a := f.send(t, raw{operation: x.operation, body: x.body, creds: creds})
			if x.allowed {
				require.Equal(t, "NotCarriedOut", a.code)
				return
			}
			require.Equal(t, "AccessDeniedException", a.code, a.text)
			require.Contains(t, a.text, "logs:"+x.operation)
		})
	}
	require.Equal(t, "UnknownOperationException", start(t, fakeaws.Config{}).send(t, raw{operation: "StartQuery", body: "{}"}).code)
}
