package e2e

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/credentials/stscreds"
	"github.com/aws/aws-sdk-go-v2/service/cloudwatchlogs"
	"github.com/aws/aws-sdk-go-v2/service/sts"
	"github.com/aws/smithy-go"
	"github.com/stretchr/testify/require"

	"github.com/eks-tenant-logs/eks-tenant-logs/e2e/host"
	"github.com/eks-tenant-logs/eks-tenant-logs/e2e/node"
	"github.com/eks-tenant-logs/eks-tenant-logs/internal/fakeaws"
	"github.com/eks-tenant-logs/eks-tenant-logs/internal/tenancy"
)

// nastyTenants are twelve names that something careless would take for one another: prefixes
// of each other, digits, 63 characters, and twins where a role's name cuts them.
var nastyTenants = []string{
	"a", "acme", "acme-corp", "acme-corp-eu", "acmecorp", "1", "12", "0", "x--y",
	strings.Repeat("t", 63), strings.Repeat("t", 62) + "u", strings.Repeat("t", 40),
}

// reading are the calls by which a log group can be read, by name.
var reading = map[string]func(context.Context, *cloudwatchlogs.Client, string, string) error{
	"GetLogEvents": func(ctx context.Context, c *cloudwatchlogs.Client, group, stream string) error {
		_, err := c.GetLogEvents(ctx, &cloudwatchlogs.GetLogEventsInput{LogGroupName: &group, LogStreamName: &stream})
		return err
	},
	"GetLogEvents by ARN": func(ctx context.Context, c *cloudwatchlogs.Client, group, stream string) error {
		_, err := c.GetLogEvents(ctx, &cloudwatchlogs.GetLogEventsInput{LogGroupIdentifier: arnOf(group), LogStreamName: &stream})
		return err
	},
	"FilterLogEvents": func(ctx context.Context, c *cloudwatchlogs.Client, group, _ string) error {
		_, err := c.FilterLogEvents(ctx, &cloudwatchlogs.FilterLogEventsInput{LogGroupName: &group})
		return err
	},
	"FilterLogEvents by ARN": func(ctx context.Context, c *cloudwatchlogs.Client, group, _ string) error {
		_, err := c.FilterLogEvents(ctx, &cloudwatchlogs.FilterLogEventsInput{LogGroupIdentifier: arnOf(group)})
		return err
	},
	"DescribeLogStreams": func(ctx context.Context, c *cloudwatchlogs.Client, group, _ string) error {
		_, err := c.DescribeLogStreams(ctx, &cloudwatchlogs.DescribeLogStreamsInput{LogGroupName: &group})
		return err
	},
	"StartQuery": func(ctx context.Context, c *cloudwatchlogs.Client, group, _ string) error {
		_, err := c.StartQuery(ctx, &cloudwatchlogs.StartQueryInput{LogGroupName: &group, StartTime: aws.Int64(0), EndTime: aws.Int64(1), QueryString: aws.String("fields @message")})
		return err
	},
	"GetLogGroupFields": func(ctx context.Context, c *cloudwatchlogs.Client, group, _ string) error {
		_, err := c.GetLogGroupFields(ctx, &cloudwatchlogs.GetLogGroupFieldsInput{LogGroupName: &group})
		return err
	},
}

// elsewhere are the calls by which somebody could have a group read, widened or emptied: nobody's
// on any group.
var elsewhere = map[string]func(context.Context, *cloudwatchlogs.Client, string) error{
	"CreateExportTask": func(ctx context.Context, c *cloudwatchlogs.Client, group string) error {
		_, err := c.CreateExportTask(ctx, &cloudwatchlogs.CreateExportTaskInput{LogGroupName: &group, Destination: aws.String("b"), From: aws.Int64(0), To: aws.Int64(1)})
		return err
	},
	"PutSubscriptionFilter": func(ctx context.Context, c *cloudwatchlogs.Client, group string) error {
		_, err := c.PutSubscriptionFilter(ctx, &cloudwatchlogs.PutSubscriptionFilterInput{LogGroupName: &group, FilterName: aws.String("f"), FilterPattern: aws.String(""), DestinationArn: aws.String("arn:aws:lambda:us-east-1:123456789012:function:f")})
		return err
	},
	"PutRetentionPolicy": func(ctx context.Context, c *cloudwatchlogs.Client, group string) error {
		_, err := c.PutRetentionPolicy(ctx, &cloudwatchlogs.PutRetentionPolicyInput{LogGroupName: &group, RetentionInDays: aws.Int32(1)})
		return err
	},
	"PutLogEvents": func(ctx context.Context, c *cloudwatchlogs.Client, group string) error {
		_, err := c.CreateLogStream(ctx, &cloudwatchlogs.CreateLogStreamInput{LogGroupName: &group, LogStreamName: aws.String("forged")})
		return err
	},
	"DeleteLogGroup": func(ctx context.Context, c *cloudwatchlogs.Client, group string) error {
		_, err := c.DeleteLogGroup(ctx, &cloudwatchlogs.DeleteLogGroupInput{LogGroupName: &group})
		return err
	},
}

func arnOf(group string) *string {
	return aws.String(tenancy.GroupARN("aws", "us-east-1", "123456789012", group))
}

// as is CloudWatch Logs with a role's session.
func as(t *testing.T, cw *node.CloudWatch, role string) *cloudwatchlogs.Client {
	t.Helper()
	cfg := aws.Config{
		Region: cw.Region, RetryMaxAttempts: 1, HTTPClient: cw.API().Options().HTTPClient,
		Credentials: credentials.NewStaticCredentialsProvider(fakeaws.DefaultAccessKeyID, fakeaws.DefaultSecretAccessKey, ""),
	}
	assumes := sts.NewFromConfig(cfg, func(o *sts.Options) { o.BaseEndpoint = &cw.Endpoint })
	cfg.Credentials = aws.NewCredentialsCache(stscreds.NewAssumeRoleProvider(assumes, role))
	return cloudwatchlogs.NewFromConfig(cfg, func(o *cloudwatchlogs.Options) { o.BaseEndpoint = &cw.Endpoint })
}

// answer is what became of a call: "yes" where it was allowed, also where the stand-in can't carry
// it out.
func answer(err error) string {
	var api smithy.APIError
	switch {
	case err == nil:
		return "yes"
	case !errors.As(err, &api):
		return err.Error()
	case api.ErrorCode() == "NotCarriedOut":
		return "yes"
	}
	return api.ErrorCode()
}

// Twelve tenants set up by tenantlogs, their lines brought by the plugin with the nodes' own role;
// every tenant's role against every tenant's groups, by every call, with the policies that
// were really written, over HTTP.
func TestEveryTenantsRoleReadsItsOwnGroupAndNoOther(t *testing.T) {
	cw, s := standIn(t, fakeaws.Config{Enforce: true})
	bootstrap(t, cw)
	var file strings.Builder
	file.WriteString("version: 1\ntenants:\n")
	for n, tenant := range nastyTenants {
		fmt.Fprintf(&file, "  %q:\n    namespaces: [ns-%d]\n", tenant, n)
	}
	tenants := filepath.Join(t.TempDir(), "tenants.yaml")
	require.NoError(t, os.WriteFile(tenants, []byte(file.String()), 0o600))
	said, code := provision(t, cw, "apply", trusting, "--tenant-source", "registry", "--tenants-file", tenants)
	require.Zero(t, code, "%+v", said)
	require.Len(t, said.Tenants, len(nastyTenants))

	// The plugin holds the writer's role and nothing else.
	h, err := startHost(t, host.Config{Env: cw.Env(), Outputs: []host.Output{{Workers: 4, Properties: options(cw,
		"tenant_source", "registry", "tenants_file", tenants, "auto_create_group", "off", "sts_endpoint", cw.Endpoint,
		"role_arn", "arn:aws:iam::123456789012:role/eks-tenant-logs/"+tenancy.ClusterRole("c1", cw.Region, "writer"))}}})
	require.NoError(t, err)
	for n := range nastyTenants {
		tag := strings.Replace(tagOfA, "tenant-a", fmt.Sprint("ns-", n), 1)
		require.NoError(t, h.Send(tag, record(fmt.Sprintf("#%d", n))))
	}
	require.NoError(t, h.Drain(within(t, time.Minute)))
	_, err = h.Stop(within(t, time.Minute))
	require.NoError(t, err)

	names := tenancy.DefaultNames()
	streams := map[string]string{}
	for n, tenant := range nastyTenants {
		group := names.Group(tenant)
		for _, g := range s.Snapshot().Groups {
			if g.Name != group {
				continue
			}
			require.EqualValues(t, 365, g.RetentionInDays, group)
			require.Len(t, g.Streams, 1, group)
			streams[tenant] = g.Streams[0].Name
		}
		events := s.Events(group, streams[tenant])
		require.Len(t, events, 1, group)
		require.Contains(t, events[0].Message, fmt.Sprintf("#%d", n))
	}

	table := fmt.Sprintf("%d tenants, %d ways to read, %d other calls: ", len(nastyTenants), len(reading), len(elsewhere))
	allowed, refused := 0, 0
	for _, reader := range nastyTenants {
		c := as(t, cw, "arn:aws:iam::123456789012:role/eks-tenant-logs/"+tenancy.ReaderRole("c1", cw.Region, reader))
		for _, tenant := range nastyTenants {
			for call, read := range reading {
				want := "AccessDeniedException"
				if reader == tenant {
					want = "yes"
				}
				require.Equal(t, want, answer(read(t.Context(), c, names.Group(tenant), streams[tenant])), "%s of %s by %s's role", call, tenant, reader)
				if want == "yes" {
					allowed++
				} else {
					refused++
				}
			}
			for call, do := range elsewhere {
				require.Equal(t, "AccessDeniedException", answer(do(t.Context(), c, names.Group(tenant))), "%s on %s by %s's role", call, tenant, reader)
				refused++
			}
			for _, group := range []string{names.QuarantineGroup(tenant), names.PlatformGroup, names.PendingGroup()} {
				require.Equal(t, "AccessDeniedException", answer(reading["FilterLogEvents"](t.Context(), c, group, "")), "%s by %s's role", group, reader)
				refused++
			}
		}
		_, err := c.DescribeLogGroups(t.Context(), &cloudwatchlogs.DescribeLogGroupsInput{})
		require.Equal(t, "AccessDeniedException", answer(err), "who else is a tenant is not %s's to know", reader)
		refused++
	}
	t.Logf("%s%d allowed, %d refused with AccessDeniedException", table, allowed, refused)
	require.Equal(t, len(nastyTenants)*len(reading), allowed)
}
