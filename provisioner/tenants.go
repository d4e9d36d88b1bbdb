package main

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/eks-tenant-logs/eks-tenant-logs/internal/provision"
	"github.com/eks-tenant-logs/eks-tenant-logs/internal/tenancy"
)

func tenantsCommand() *cobra.Command {
	var f installationFlags
	var quick bool
	cmd := &cobra.Command{
		Use:   "tenants",
		Short: "List the tenants there are: namespaces, group, retention, role, last event, state",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			f.readOnly()
			s, err := f.start(cmd.Context(), cmd)
			if err != nil {
				return err
			}
			entries, err := s.Inventory(cmd.Context(), !quick)
			s.bar.end()
			if err != nil {
				return err
			}
			return encode(cmd.OutOrStdout(), f.output, entries, func(w io.Writer) error { return tenantsTable(w, entries, quick) })
		},
	}
	f.add(cmd)
	cmd.Flags().BoolVar(&quick, "no-last-event", false, "do not ask for each group's newest event: a call less for each")
	return cmd
}

// readOnly is for commands that give nobody access, so nobody has to be named who gets it.
func (f *installationFlags) readOnly() {
	if len(f.trust.principals)+len(f.trust.accounts)+len(f.trust.sso)+len(f.trust.irsa)+len(f.trust.pods) == 0 && !f.installation.NoReaderRoles {
		f.trust.accounts = []string{"000000000000"} // no trust policy is made of it
	}
}

func tenantsTable(w io.Writer, entries []provision.Entry, quick bool) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "TENANT\tNAMESPACES\tGROUP\tRETENTION\tROLE\tLAST EVENT\tSTATE")
	for _, e := range entries {
		last, days := "none", "for ever"
		if e.LastEvent != nil {
			last = e.LastEvent.Format(time.RFC3339)
		} else if quick {
			last = "-"
		}
		if e.RetentionDays > 0 {
			days = retention(e.RetentionDays)
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s\t%s\n", e.Tenant, dash(strings.Join(e.Namespaces, ", ")), e.Group, days, dash(e.Role), last, dash(e.State))
	}
	return t.Flush()
}

func retireCommand() *cobra.Command {
	var f installationFlags
	var dry bool
	cmd := &cobra.Command{
		Use:   "retire <tenant>",
		Short: "Take a tenant's read access away and keep its logs; deletes nothing",
		Long: `Take a tenant's read access away. Its log group stays with all its events and is marked as
retired, so that no newcomer of the same name gets it. Running it again writes nothing.

Exit code 0: it is retired; 1: it is not ours to retire; 2: it could not be done.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			f.readOnly()
			return f.one(cmd, args[0], func(s *session, t provision.Tenant) (o outcome, err error) {
				if dry {
					o.TenantStatus, o.Actions, err = s.PlanRetire(cmd.Context(), t)
					return o, err
				}
				o.TenantStatus, o.Writes, err = s.RetireTenant(cmd.Context(), t)
				return o, err
			})
		},
	}
	f.add(cmd)
	cmd.Flags().BoolVar(&dry, "dry-run", false, "write nothing")
	return cmd
}

func reactivateCommand() *cobra.Command {
	var f installationFlags
	cmd := &cobra.Command{
		Use:   "reactivate <tenant> --namespace <name>=<uid>",
		Short: "Give a retired tenant, or one whose namespace was made anew, to the namespaces named",
		Long: `Lift a tenant's tombstone, and record whose it is from now on: the namespaces named, which then
may read all that is in its log group, their predecessor's lines among it. The UID is what
kubectl get namespace <name> -o jsonpath={.metadata.uid} says. Access is given by the next apply,
or by the controller.

Exit code 0: it is reactivated; 1: it is not ours to reactivate; 2: it could not be done.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			f.readOnly()
			return f.one(cmd, args[0], func(s *session, t provision.Tenant) (o outcome, err error) {
				for _, given := range f.namespaces {
					name, uid, _ := strings.Cut(given, "=")
					t.Namespaces = append(t.Namespaces, provision.Namespace{Name: name, UID: uid})
				}
				o.TenantStatus, o.Writes, err = s.Reactivate(cmd.Context(), t)
				return o, err
			})
		},
	}
	f.add(cmd)
	cmd.Flags().StringSliceVar(&f.namespaces, "namespace", nil, "whose the tenant is from now on, as name=uid; may be given again")
	return cmd
}

// outcome is what a command about one tenant says.
type outcome struct {
	provision.TenantStatus `yaml:",inline"`
	Writes                 int `json:"writes" yaml:"writes"`
	// Actions are what a dry run would do.
	Actions []provision.Action `json:"actions,omitempty" yaml:"actions,omitempty"`
}

// one runs a command about one tenant, whose name is looked at before the first call.
func (f *installationFlags) one(cmd *cobra.Command, name string, do func(*session, provision.Tenant) (outcome, error)) error {
	if !tenancy.Label(name) {
		return fmt.Errorf("%q is no tenant's name: it is a DNS label, lower-case letters, digits and -, up to 63", name)
	}
	s, err := f.start(cmd.Context(), cmd)
	if err != nil {
		return err
	}
	o, err := do(s, provision.Tenant{Name: name, Settings: s.routing.registry.Tenant(name)})
	s.bar.end()
	if err != nil {
		return err
	}
	if err := encode(cmd.OutOrStdout(), f.output, o, func(w io.Writer) error {
		fmt.Fprintf(w, "%s: %s (%d writes)\n%s\n", o.Tenant, o.State, o.Writes, o.Reason)
		for _, a := range o.Actions {
			fmt.Fprintf(w, "%s %s: %s -> %s\n", a.Kind, a.Target, a.Now, a.Will)
		}
		return nil
	}); err != nil {
		return err
	}
	if o.State == provision.StateRefused {
		return exitError(exitFound)
	}
	return nil
}
