package main

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"

	smithytime "github.com/aws/smithy-go/time"
	"github.com/spf13/cobra"
	"go.yaml.in/yaml/v3"

	"github.com/eks-tenant-logs/eks-tenant-logs/internal/awsclient"
	"github.com/eks-tenant-logs/eks-tenant-logs/internal/loggroup"
	"github.com/eks-tenant-logs/eks-tenant-logs/internal/output"
	"github.com/eks-tenant-logs/eks-tenant-logs/internal/replay"
	"github.com/eks-tenant-logs/eks-tenant-logs/internal/tenancy"
)

// replayFlags are the command's own.
type replayFlags struct {
	routing         routingFlags
	options         map[string]*string // the plugin's, by name
	fips, dualStack bool
	create, dry     bool
	tenants         []string
	settle          time.Duration
	output          string
}

func replayCommand() *cobra.Command {
	flags := replayFlags{options: map[string]*string{}}
	cmd := &cobra.Command{
		Use:   "replay",
		Short: "Copy what is in quarantine back to the tenants' own groups",
		Long: `Copy what is in quarantine back to the tenants' own groups. Nothing is deleted; what was
copied is written down in the quarantine group, so that a replay that was interrupted goes on
where it was, and what comes in later is found by the next.

Exit code 0: nothing is left to replay; 1: something is; 2: it could not be told.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return flags.run(cmd) },
	}
	flags.routing.add(cmd)
	f := cmd.Flags()
	for _, o := range [][2]string{
		{"region", "the AWS region; default: AWS_REGION"},
		{"endpoint", "replaces AWS's host for CloudWatch Logs"},
		{"sts-endpoint", "replaces AWS's host for STS"},
		{"profile", "a profile of the shared AWS configuration"},
		{"role-arn", "a role to assume for all calls"},
		{"external-id", "goes with --role-arn"},
		{"compress", "request bodies: gzip or none; default gzip"},
		{"log-retention-days", "of groups that --auto-create-group creates; default 365"},
		{"kms-key-id", "of groups that --auto-create-group creates"},
	} {
		flags.options[strings.ReplaceAll(o[0], "-", "_")] = f.String(o[0], "", o[1])
	}
	f.BoolVar(&flags.fips, "use-fips", false, "use FIPS 140 endpoints")
	f.BoolVar(&flags.dualStack, "use-dual-stack", false, "use endpoints that have IPv6 addresses too")
	f.BoolVar(&flags.create, "auto-create-group", false, "create groups that are missing, with their retention")
	f.BoolVar(&flags.dry, "dry-run", false, "count what is to be replayed, and write nothing")
	f.StringSliceVar(&flags.tenants, "tenant", nil, "a tenant, or "+tenancy.PendingName+"; may be given again; default: every quarantine group")
	f.DurationVar(&flags.settle, "settle", time.Minute, "leave events that came in less than this ago: CloudWatch may not show all of them yet")
	f.StringVarP(&flags.output, "output", "o", "table", "table, json or yaml")
	return cmd
}

// get answers the plugin's options with what the flags say.
func (f *replayFlags) get(name string) string {
	if v, ok := f.options[name]; ok {
		return *v
	}
	switch name {
	case "use_fips":
		return map[bool]string{true: "on", false: "off"}[f.fips]
	case "use_dual_stack":
		return map[bool]string{true: "on", false: "off"}[f.dualStack]
	case "tenants_file":
		return f.routing.file
	case "tenant_source":
		return f.routing.source
	}
	return ""
}

func (f *replayFlags) run(cmd *cobra.Command) error {
	if err := checkOutput(f.output); err != nil {
		return err
	}
	to, err := f.routing.read()
	if err != nil {
		return err
	}
	opts, err := output.ParseOptions(f.get)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(cmd.Context())
	defer cancel()
	client, err := awsclient.New(ctx, awsclient.Config{
		Region: opts.Region, Endpoint: opts.Endpoint, STSEndpoint: opts.STSEndpoint, UseFIPS: opts.UseFIPS, UseDualStack: opts.UseDualStack,
		Profile: opts.Profile, RoleARN: opts.RoleARN, ExternalID: opts.ExternalID, ExtraUserAgent: "tenantlogs-replay",
	})
	if err != nil {
		return err
	}
	stop, release := interrupts(cancel, cmd.ErrOrStderr())
	defer release()
	bar := newProgressBar(cmd.ErrOrStderr())
	report, err := replay.Run(ctx, replay.Config{
		Names: to.names, Registry: to.registry, Template: to.template, Tenants: f.tenants,
		DryRun: f.dry, Settle: f.settle, CreateGroups: f.create, Uncompressed: !opts.Compress,
		Spec: func(home tenancy.Home) loggroup.Spec {
			if home.Tenant == nil {
				return opts.GroupSpec(home.Group, nil, "")
			}
			return opts.GroupSpec(home.Group, home.Tenant, home.Tenant.KMSKeyARN)
		},
		As: func(role awsclient.Role) replay.Account {
			if role == (awsclient.Role{}) {
				return client
			}
			return client.As(role)
		},
		Log:  slog.New(slog.NewTextHandler(bar, &slog.HandlerOptions{Level: slog.LevelWarn})),
		Stop: stop, Progress: bar.show, Clock: replay.Clock{Now: time.Now, Sleep: smithytime.SleepWithContext, Ahead: client.Clock().Skew},
		Random: rand.Reader, Writer: writer(),
	})
	bar.end()
	if err != nil {
		return err
	}
	if err := writeReport(cmd.OutOrStdout(), f.output, report); err != nil {
		return err
	}
	switch {
	case report.Left() > 0:
		return exitError(exitFound)
	case report.Unknown():
		return exitError(exitUnknown)
	}
	return nil
}

// interrupts asks for an end at the first signal, and forces it at the second.
func interrupts(force func(), w io.Writer) (stop <-chan struct{}, release func()) {
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	asked, done := make(chan struct{}), make(chan struct{})
	go func() {
		for first := true; ; first = false {
			select {
			case <-signals:
			case <-done:
				return
			}
			if !first {
				force()
				return
			}
			fmt.Fprintln(w, "\nstopping after what is under way; run the same command again to go on; once more to stop at once")
			close(asked)
		}
	}()
	return asked, func() { signal.Stop(signals); close(done) }
}

func writer() string {
	host, err := os.Hostname()
	if err != nil {
		host = "unknown host"
	}
	return host + " " + strconv.Itoa(os.Getpid())
}

func writeReport(w io.Writer, format string, r replay.Report) error {
	switch format {
	case "json":
		enc := json.NewEncoder(w)
		enc.SetIndent("", "  ")
		return enc.Encode(r)
	case "yaml":
		return yaml.NewEncoder(w).Encode(r)
	}
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "TENANT\tQUARANTINED\tREPLAYED BEFORE\tREPLAYED\tLEFT\tOLDEST LEFT\tWHY")
	for _, x := range r.Tenants {
		oldest, left := "-", strconv.FormatInt(x.Left, 10)
		if x.Left > 0 {
			oldest = (time.Duration(x.OldestLeft) * time.Second).String()
		}
		if x.Unknown {
			left += " or more"
		}
		why := "-"
		switch {
		case len(x.Why) > 0:
			why = strings.Join(x.Why, "; ")
		case r.DryRun && x.Left > 0:
			why = "dry run"
		}
		fmt.Fprintf(t, "%s\t%d\t%d\t%d\t%s\t%s\t%s\n", x.Tenant, x.Quarantined, x.Before, x.Replayed, left, oldest, why)
	}
	if err := t.Flush(); err != nil {
		return err
	}
	state := fmt.Sprintf("un-replayed = %d", r.Left())
	if r.Unknown() {
		state += ", and what could not be told"
	}
	_, err := fmt.Fprintln(w, state)
	return err
}
