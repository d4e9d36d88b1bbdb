package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/cloudwatchlogs"
	"github.com/aws/aws-sdk-go-v2/service/cloudwatchlogs/types"
	smithytime "github.com/aws/smithy-go/time"
	"github.com/spf13/cobra"

	"github.com/eks-tenant-logs/eks-tenant-logs/internal/awsclient"
	"github.com/eks-tenant-logs/eks-tenant-logs/internal/tenancy"
)

// canary is one line's way: from standard output to where CloudWatch Logs has it.
type canary struct {
	client *awsclient.Client
	names  tenancy.Names
	tenant string
	// elsewhere are groups in which the line must not be, beside the platform's and the
	// tenant's quarantine.
	elsewhere []string
	wait      time.Duration
	begun     time.Time
	id        string
}

func canaryCommand() *cobra.Command {
	var routing routingFlags
	var cfg awsclient.Config
	var elsewhere []string
	var wait time.Duration
	var output string
	cmd := &cobra.Command{
		Use:   "canary <tenant>",
		Short: "Log a line, as a pod of the tenant, and see that it arrives in its group and nowhere else",
		Long: `Writes one line to standard output and waits until it is in the tenant's log group; then looks for it in
the platform's group, in the tenant's quarantine, and in those of --elsewhere. It is run in a container
of a namespace that is the tenant's, on a node with the agent: helm test does. It needs
logs:FilterLogEvents on all of these groups. A group that is not there does not have the line.

Exit code 0: the line is where it belongs; 1: it is not, or elsewhere too; 2: it could not be told.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if !tenancy.Label(args[0]) {
				return fmt.Errorf("%q is no tenant's name: it is a DNS label, lower-case letters, digits and -, up to 63", args[0])
			}
			routing.elsewhere = true
			to, err := routing.read()
			if err != nil {
				return err
			}
			if err := checkOutput(output); err != nil {
				return err
			}
			cfg.ExtraUserAgent = "tenantlogs"
			client, err := awsclient.New(cmd.Context(), cfg)
			if err != nil {
				return err
			}
			c := canary{client: client, names: to.names, tenant: args[0], elsewhere: elsewhere, wait: wait, begun: time.Now(), id: rand.Text()}
			steps, err := c.run(cmd.Context(), cmd.OutOrStdout())
			if len(steps) > 0 {
				if err := encode(cmd.OutOrStdout(), output, steps, func(w io.Writer) error { return stepTable(w, steps) }); err != nil {
					return err
				}
			}
			if errors.Is(err, errStep) {
				return exitError(exitFound)
			}
			return err
		},
	}
	routing.add(cmd)
	fs := cmd.Flags()
	fs.StringVar(&cfg.Region, "region", "", "the AWS region; default: AWS_REGION")
	fs.StringVar(&cfg.Endpoint, "endpoint", "", "replaces AWS's host for CloudWatch Logs")
	fs.StringVar(&cfg.STSEndpoint, "sts-endpoint", "", "replaces AWS's host for STS")
	fs.BoolVar(&cfg.UseFIPS, "use-fips", false, "use FIPS 140 endpoints")
	fs.BoolVar(&cfg.UseDualStack, "use-dual-stack", false, "use endpoints that have IPv6 addresses too")
	fs.StringVar(&cfg.RoleARN, "role-arn", "", "a role to assume for all calls")
	fs.StringSliceVar(&elsewhere, "elsewhere", nil, "a further log group in which the line must not be; may be given again")
	fs.DurationVar(&wait, "wait", 3*time.Minute, "how long the line may take")
	fs.StringVarP(&output, "output", "o", "table", "table, json or yaml")
	return cmd
}

// run logs the line and looks for it. Its error is errStep where the line is not as it
// should be, and another where that could not be told.
func (c *canary) run(ctx context.Context, out io.Writer) ([]step, error) {
	if _, err := fmt.Fprintf(out, "canary of eks-tenant-logs: %s\n", c.id); err != nil {
		return nil, err
	}
	group := c.names.Group(c.tenant)
	var steps []step
	arrived, err := c.arrived(ctx, group)
	switch {
	case err != nil:
		return nil, err
	case arrived == nil:
		return append(steps, step{"arrives", false, fmt.Sprintf("it is not in %s after %v", group, c.wait)}), errStep
	}
	steps = append(steps, step{"arrives", true, fmt.Sprintf("in %s, stream %s, after %v", group, aws.ToString(arrived.LogStreamName), time.Since(c.begun).Round(100*time.Millisecond))})
	astray := false
	for _, other := range append([]string{c.names.PlatformGroup, c.names.QuarantineGroup(c.tenant)}, c.elsewhere...) {
		e, err := c.find(ctx, other)
		switch class := awsclient.Classify(err); {
		case class == awsclient.ClassNotFound:
			steps = append(steps, step{"nowhere else", true, other + " is not there"})
		case class == awsclient.ClassDenied:
			return steps, fmt.Errorf("%s could not be looked into: give the canary's role logs:FilterLogEvents on it: %s", other, awsclient.Brief(err))
		case err != nil:
			return steps, fmt.Errorf("%s could not be looked into: %s", other, awsclient.Brief(err))
		case e != nil:
			astray = true
			steps = append(steps, step{"nowhere else", false, "it is in " + other + " too"})
		default:
			steps = append(steps, step{"nowhere else", true, "not in " + other})
		}
	}
	if astray {
		return steps, errStep
	}
	return steps, nil
}

// arrived waits for the line in a group, which may itself be made meanwhile.
func (c *canary) arrived(ctx context.Context, group string) (*types.FilteredLogEvent, error) {
	for n := 1; ; n++ {
		e, err := c.find(ctx, group)
		class := awsclient.Classify(err)
		switch {
		case err == nil && e != nil:
			return e, nil
		case class == awsclient.ClassDenied:
			return nil, fmt.Errorf("%s could not be read: %s: give the canary's role logs:FilterLogEvents on it", group, awsclient.Brief(err))
		case awsclient.Lasting(err):
			return nil, fmt.Errorf("%s could not be read: %s", group, awsclient.Brief(err))
		case time.Since(c.begun) > c.wait:
			if err != nil && class != awsclient.ClassNotFound {
				return nil, fmt.Errorf("%s could not be read: %s", group, awsclient.Brief(err))
			}
			return nil, nil
		}
		if err := smithytime.SleepWithContext(ctx, min(time.Duration(n)*200*time.Millisecond, 3*time.Second)); err != nil {
			return nil, err
		}
	}
}

// find looks for the line in a group; nil where it is not there.
func (c *canary) find(ctx context.Context, group string) (*types.FilteredLogEvent, error) {
	// Node and this container may differ by some minutes' clock.
	// The line has the time of this machine, or AWS's where this machine's is far ahead of it.
	from := c.begun.Add(-10*time.Minute - max(0, c.client.Clock().Skew()))
	in := &cloudwatchlogs.FilterLogEventsInput{LogGroupName: &group, FilterPattern: aws.String(`"` + c.id + `"`), StartTime: aws.Int64(from.UnixMilli())}
	for pages := cloudwatchlogs.NewFilterLogEventsPaginator(c.client, in); pages.HasMorePages(); {
		page, err := pages.NextPage(ctx)
		if err != nil {
			return nil, err
		}
		if len(page.Events) > 0 {
			return &page.Events[0], nil
		}
	}
	return nil, nil
}
