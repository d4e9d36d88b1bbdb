package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"text/tabwriter"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/cloudwatchlogs"
	"github.com/aws/aws-sdk-go-v2/service/cloudwatchlogs/types"
	smithytime "github.com/aws/smithy-go/time"
	"github.com/spf13/cobra"

	"github.com/eks-tenant-logs/eks-tenant-logs/internal/awsclient"
	"github.com/eks-tenant-logs/eks-tenant-logs/internal/provision"
	"github.com/eks-tenant-logs/eks-tenant-logs/internal/tenancy"
)

// lifecycleNamespace is the namespace that has the tenant of a lifecycle test; no cluster
// has to have it.
const lifecycleNamespace = "lifecycle-test"

// step is one step of a lifecycle test.
type step struct {
	Step string `json:"step" yaml:"step"`
	// Passed is false also for a step that was not reached.
	Passed bool   `json:"passed" yaml:"passed"`
	Detail string `json:"detail" yaml:"detail"`
}

func lifecycleCommand() *cobra.Command {
	var f installationFlags
	var other string
	var wait time.Duration
	cmd := &cobra.Command{
		Use:   "lifecycle-test <tenant>",
		Short: "Create a tenant, ship a line, read it as its reader, be refused elsewhere, and retire it",
		Long: `Create a tenant, ship a line, read it by its reader role, be refused on another tenant's group, and
retire it. The tenant must not be anybody's: nothing is deleted, so it stays, retired, and may be
tested again. --trust-principal must let the caller assume the reader role.

Exit code 0: all steps passed; 1: one did not; 2: it could not be told.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if !tenancy.Label(args[0]) || other != "" && !tenancy.Label(other) || args[0] == other {
				return fmt.Errorf("%q and --other %q must be two tenants' names: DNS labels, lower-case letters, digits and -, up to 63", args[0], other)
			}
			s, err := f.start(cmd.Context(), cmd)
			if err != nil {
				return err
			}
			l := &lifecycle{session: s, tenant: args[0], other: other, wait: wait, uid: "lifecycle-" + rand.Text()[:16]}
			if l.other == "" {
				l.other = "other-than-" + args[0]
				if !tenancy.Label(l.other) {
					l.other = "other"
				}
			}
			err = l.run(cmd.Context())
			s.bar.end()
			if len(l.steps) > 0 {
				if err := encode(cmd.OutOrStdout(), f.output, l.steps, func(w io.Writer) error { return stepTable(w, l.steps) }); err != nil {
					return err
				}
			}
			switch {
			case errors.Is(err, errStep):
				return exitError(exitFound)
			case err != nil:
				return err
			}
			return nil
		},
	}
	f.add(cmd)
	cmd.Flags().StringVar(&other, "other", "", "the tenant whose group must refuse; default: one that need not exist")
	cmd.Flags().DurationVar(&wait, "wait", time.Minute, "how long IAM and CloudWatch Logs may take to show what was done")
	return cmd
}

func stepTable(w io.Writer, steps []step) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "STEP\tRESULT\tDETAIL")
	for _, s := range steps {
		fmt.Fprintf(t, "%s\t%s\t%s\n", s.Step, map[bool]string{true: "passed", false: "FAILED"}[s.Passed], s.Detail)
	}
	return t.Flush()
}

var errStep = errors.New("a step failed")

// lifecycle is one test.
type lifecycle struct {
	*session
	tenant, other, uid string
	wait               time.Duration
	steps              []step
}

func (l *lifecycle) passed(name, format string, args ...any) {
	l.steps = append(l.steps, step{name, true, fmt.Sprintf(format, args...)})
}

func (l *lifecycle) failed(name, format string, args ...any) error {
	l.steps = append(l.steps, step{name, false, fmt.Sprintf(format, args...)})
	return errStep
}

// run does the steps until one fails. A tenant that was created is retired in any case.
func (l *lifecycle) run(ctx context.Context) (err error) {
	tenant := provision.Tenant{Name: l.tenant, Namespaces: []provision.Namespace{{Name: lifecycleNamespace, UID: l.uid}}}
	entries, err := l.Inventory(ctx, false)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if e.Tenant != l.tenant {
			continue
		}
		if len(e.Namespaces) != 1 || e.Namespaces[0] != lifecycleNamespace {
			return l.failed("create", "tenant %s is somebody's: give a name that is nobody's", l.tenant)
		}
		if _, _, err := l.Reactivate(ctx, tenant); err != nil {
			return err
		}
	}
	report, err := l.Reconcile(ctx, []provision.Tenant{tenant})
	if err != nil {
		return err
	}
	status := report.Tenants[0]
	if status.State != provision.StateReady {
		return l.failed("create", "%s: %s", status.State, status.Reason)
	}
	l.passed("create", "%s keeps its events %d days; role %s", status.Group, status.RetentionDays, status.Role)
	retired := false
	defer func() {
		if !retired {
			_, _, retireErr := l.RetireTenant(ctx, tenant)
			err = errors.Join(err, retireErr)
		}
	}()
	line := "lifecycle-test " + l.uid
	if err := l.ship(ctx, status.Group, line); err != nil {
		return err
	}
	reader := l.client.As(awsclient.Role{ARN: l.Installation().Scope.ReaderRoleARN(l.tenant)})
	if err := l.until(ctx, func() error { return found(ctx, reader, status.Group, line) }); err != nil {
		return l.failed("read", "%s", awsclient.Brief(err))
	}
	l.passed("read", "the reader role reads the line")
	elsewhere := l.Installation().Scope.Names.Group(l.other)
	if text := denied(ctx, reader, elsewhere); text != "" {
		return l.failed("refused elsewhere", "%s", text)
	}
	l.passed("refused elsewhere", "%d calls on %s: access denied", len(readCalls), elsewhere)
	retired = true
	gone, writes, err := l.RetireTenant(ctx, tenant)
	if err != nil {
		return l.failed("retire", "%s", err)
	}
	if gone.State != provision.StateRetired {
		return l.failed("retire", "%s: %s", gone.State, gone.Reason)
	}
	l.passed("retire", "%d writes; the group and its events are kept", writes)
	if err := l.until(ctx, func() error {
		if text := denied(ctx, reader, status.Group); text != "" {
			return errors.New(text)
		}
		return nil
	}); err != nil {
		return l.failed("refused once retired", "%s", err)
	}
	l.passed("refused once retired", "the session given out before is denied its own group")
	return nil
}

// ship puts a line as a node would: by the writer's role, or where that may not be assumed
// from here, as the caller.
func (l *lifecycle) ship(ctx context.Context, group, line string) error {
	in := l.Installation()
	writer := l.client.As(awsclient.Role{ARN: in.Scope.RoleARN(in.BootstrapRole("writer"))})
	who := "by the writer's role"
	stream := lifecycleNamespace + "/" + l.uid
	put := func(c *awsclient.Client) error {
		_, err := c.CreateLogStream(ctx, &cloudwatchlogs.CreateLogStreamInput{LogGroupName: &group, LogStreamName: &stream})
		if class := awsclient.Classify(err); class != awsclient.ClassNone && class != awsclient.ClassExists {
			return err
		}
		_, err = c.PutLogEvents(ctx, &cloudwatchlogs.PutLogEventsInput{
			LogGroupName: &group, LogStreamName: &stream, LogEvents: []types.InputLogEvent{{Timestamp: aws.Int64(c.Clock().Now().UnixMilli()), Message: &line}},
		})
		return err
	}
	err := l.until(ctx, func() error { return put(writer) })
	var credentials *awsclient.CredentialsError
	if errors.As(err, &credentials) {
		who = "with the caller's own credentials, for the writer's role may not be assumed from here"
		err = l.until(ctx, func() error { return put(l.client) })
	}
	if err != nil {
		return l.failed("ship", "%s", awsclient.Brief(err))
	}
	l.passed("ship", "a line in %s, %s", stream, who)
	return nil
}

// until tries again what AWS may take a while to show. Credentials that can't be had are
// waited for a few seconds only: a role that was made a moment ago can't be assumed at once.
func (l *lifecycle) until(ctx context.Context, f func() error) error {
	begun := time.Now()
	for n := 0; ; n++ {
		err := f()
		limit := l.wait
		if awsclient.Classify(err) == awsclient.ClassCredentials {
			limit = min(limit, 10*time.Second)
		}
		if err == nil || time.Since(begun) > limit {
			return err
		}
		if err := smithytime.SleepWithContext(ctx, min(time.Duration(n+1)*200*time.Millisecond, 3*time.Second)); err != nil {
			return err
		}
	}
}

func found(ctx context.Context, c *awsclient.Client, group, line string) error {
	out, err := c.FilterLogEvents(ctx, &cloudwatchlogs.FilterLogEventsInput{LogGroupName: &group})
	if err != nil {
		return err
	}
	for _, e := range out.Events {
		if aws.ToString(e.Message) == line {
			return nil
		}
	}
	return errors.New("the line is not to be seen yet")
}

// readCalls are the ways to a group's events.
var readCalls = map[string]func(context.Context, *awsclient.Client, string) error{
	"FilterLogEvents": func(ctx context.Context, c *awsclient.Client, group string) error {
		_, err := c.FilterLogEvents(ctx, &cloudwatchlogs.FilterLogEventsInput{LogGroupName: &group})
		return err
	},
	"GetLogEvents": func(ctx context.Context, c *awsclient.Client, group string) error {
		_, err := c.GetLogEvents(ctx, &cloudwatchlogs.GetLogEventsInput{LogGroupName: &group, LogStreamName: aws.String(lifecycleNamespace)})
		return err
	},
	"DescribeLogStreams": func(ctx context.Context, c *awsclient.Client, group string) error {
		_, err := c.DescribeLogStreams(ctx, &cloudwatchlogs.DescribeLogStreamsInput{LogGroupName: &group})
		return err
	},
}

// unenforced is why a call may be answered that IAM's policies deny, but for their being wrong.
const unenforced = "; IAM may not be enforced there: stand-ins and emulators of AWS often carry out every call, whatever the policies say"

// denied says which way to a group's events is open, or could not be told.
func denied(ctx context.Context, c *awsclient.Client, group string) string {
	for name, call := range readCalls {
		if err := call(ctx, c, group); awsclient.Classify(err) != awsclient.ClassDenied {
			switch awsclient.Classify(err) {
			case awsclient.ClassNone:
				return name + " on " + group + " is allowed" + unenforced
			case awsclient.ClassNotFound: // what is looked for comes after who may look
				return name + " on " + group + ": " + awsclient.Brief(err) + unenforced
			}
			return name + " on " + group + ": " + awsclient.Brief(err)
		}
	}
	return ""
}
