package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/eks-tenant-logs/eks-tenant-logs/internal/provision"
)

const codes = `

Exit code 0: all is as it should be; 1: something is not, or somebody should know of
something; 2: it could not be told.`

func planCommand() *cobra.Command {
	var f installationFlags
	cmd := &cobra.Command{
		Use:   "plan",
		Short: "Say what is to be done for tenants' log groups and roles, and do nothing",
		Long:  "Compare what AWS has for the tenants with what it should have, and print what apply would do." + codes,
		Args:  cobra.NoArgs,
		RunE:  func(cmd *cobra.Command, _ []string) error { return f.plan(cmd) },
	}
	f.add(cmd)
	f.addTenants(cmd)
	return cmd
}

func applyCommand() *cobra.Command {
	var f installationFlags
	var dry bool
	cmd := &cobra.Command{
		Use:   "apply",
		Short: "Set up tenants' log groups and roles; what is right is not touched",
		Long: `Set up tenants' log groups and roles. What is right is not touched, so it may be run again at
any time; interrupted, it goes on where it was.` + codes,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if dry {
				return f.plan(cmd)
			}
			return f.apply(cmd)
		},
	}
	f.add(cmd)
	f.addTenants(cmd)
	cmd.Flags().BoolVar(&dry, "dry-run", false, "print the plan, as plan does")
	return cmd
}

// begin reads the flags of a command about some tenants.
func (f *installationFlags) begin(ctx context.Context, cmd *cobra.Command) (*session, []provision.Tenant, error) {
	tenants, err := f.desired()
	if err != nil {
		return nil, nil, err
	}
	s, err := f.start(ctx, cmd)
	return s, tenants, err
}

func (f *installationFlags) plan(cmd *cobra.Command) error {
	s, tenants, err := f.begin(cmd.Context(), cmd)
	if err != nil {
		return err
	}
	result, err := s.Plan(cmd.Context(), tenants)
	s.bar.end()
	if err != nil {
		return err
	}
	return f.tell(cmd, result)
}

// tell prints a plan, and makes it the exit code.
func (f *installationFlags) tell(cmd *cobra.Command, result provision.Result) error {
	if err := encode(cmd.OutOrStdout(), f.output, result, func(w io.Writer) error { return planTable(w, result) }); err != nil {
		return err
	}
	switch {
	case slices.ContainsFunc(result.Tenants, func(s provision.TenantStatus) bool { return s.State == provision.StateFailed }):
		return exitError(exitUnknown)
	case !result.Clean():
		return exitError(exitFound)
	}
	return nil
}

func (f *installationFlags) apply(cmd *cobra.Command) error {
	ctx, cancel := context.WithCancel(cmd.Context())
	defer cancel()
	s, tenants, err := f.begin(ctx, cmd)
	if err != nil {
		return err
	}
	stop, release := interrupts(cancel, cmd.ErrOrStderr())
	defer release()
	go func() {
		select {
		case <-stop: // every step can be repeated: nothing has to be finished first
			cancel()
		case <-ctx.Done():
		}
	}()
	report, err := s.Reconcile(ctx, tenants)
	s.bar.end()
	if errors.Is(err, context.Canceled) && len(report.Tenants) == 0 && report.Writes > 0 {
		return fmt.Errorf("interrupted after %d writes: run the same command again to go on", report.Writes)
	}
	if err != nil {
		return err
	}
	return f.done(cmd, report)
}

// done prints a report, and makes it the exit code.
func (f *installationFlags) done(cmd *cobra.Command, report provision.Report) error {
	if err := encode(cmd.OutOrStdout(), f.output, report, func(w io.Writer) error { return reportTable(w, report) }); err != nil {
		return err
	}
	wrong := len(report.Findings) > 0 || report.Failed != ""
	for _, s := range report.Tenants {
		wrong = wrong || s.State != provision.StateReady && s.State != provision.StateRetired || len(s.Refused) > 0
	}
	if wrong {
		return exitError(exitFound)
	}
	return nil
}

func dash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

func planTable(w io.Writer, r provision.Result) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	if len(r.Actions) > 0 {
		fmt.Fprintln(t, "TENANT\tLAYER\tACTION\tTARGET\tNOW\tWILL BE\tWHY")
		for _, a := range r.Actions {
			why := a.Reason
			if a.Repair {
				why = "repair: " + why
			}
			fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s\t%s\n", dash(a.Tenant), a.Layer, a.Kind, a.Target, a.Now, a.Will, why)
		}
	}
	if err := t.Flush(); err != nil {
		return err
	}
	findings(w, r.Findings)
	counts := map[provision.State]int{}
	for _, s := range r.Tenants {
		counts[s.State]++
		if s.State == provision.StateFailed || s.State == provision.StateRetired {
			fmt.Fprintf(w, "%s: %s: %s\n", s.Tenant, s.State, s.Reason)
		}
	}
	_, err := fmt.Fprintf(w, "%d actions for %d tenants (%s), %d findings\n", len(r.Actions), len(r.Tenants), countText(counts), len(r.Findings))
	return err
}

func countText(counts map[provision.State]int) string {
	var parts []string
	for _, s := range []provision.State{provision.StateReady, provision.StatePending, provision.StateRefused, provision.StateFailed, provision.StateRetired} {
		if counts[s] > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", counts[s], s))
		}
	}
	if parts == nil {
		return "none"
	}
	return strings.Join(parts, ", ")
}

func findings(w io.Writer, all []provision.Finding) {
	for _, f := range all {
		fmt.Fprintf(w, "finding: %s%s\n", map[bool]string{true: "tenant " + f.Tenant + ": "}[f.Tenant != ""], f.Text)
	}
}

func reportTable(w io.Writer, r provision.Report) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	if len(r.Tenants) > 0 {
		fmt.Fprintln(t, "TENANT\tSTATE\tGROUP\tRETENTION\tROLE\tWHY")
		for _, s := range r.Tenants {
			fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s\n", s.Tenant, s.State, dash(s.Group), retention(s.RetentionDays), dash(s.Role), dash(s.Reason))
		}
	}
	if err := t.Flush(); err != nil {
		return err
	}
	findings(w, r.Findings)
	if r.Failed != "" {
		fmt.Fprintln(w, "failed:", r.Failed)
	}
	repaired := 0
	for _, n := range r.Repaired {
		repaired += n
	}
	_, err := fmt.Fprintf(w, "%d actions, %d writes, %d repaired, %d findings\n", r.Actions, r.Writes, repaired, len(r.Findings))
	return err
}

func retention(days int) string {
	if days == 0 {
		return "-"
	}
	return fmt.Sprintf("%d days", days)
}
