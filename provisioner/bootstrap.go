package main

import (
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/spf13/cobra"

	"github.com/eks-tenant-logs/eks-tenant-logs/internal/iampolicy"
	"github.com/eks-tenant-logs/eks-tenant-logs/internal/provision"
)

func bootstrapCommand() *cobra.Command {
	var f installationFlags
	var writer, provisioner, auditor, replay, canary trustFlags
	var canaryTenant string
	var dry, standalone bool
	var roles []string
	cmd := &cobra.Command{
		Use:   "bootstrap",
		Short: "Set up what a cluster has one of: boundary, roles, the platform's groups",
		Long: `Set up what a cluster has one of: the boundary of the reader roles, the roles of the nodes, the
provisioner, auditors and replay, and the platform's log groups. Roles whose --…-principal, irsa
or pod-identity is not given are made, and trust nobody. The canary's is made where --canary names its
tenant; it reads the platform's group, too. The OIDC provider is looked for, not made.
It is run once, by somebody who may create roles; again, it sets right what was changed.` + codes,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			b := provision.Bootstrap{Controller: !standalone, CanaryTenant: canaryTenant}
			if canaryTenant == "" && len(slices.Concat(canary.principals, canary.accounts, canary.sso, canary.irsa, canary.pods)) > 0 {
				return errors.New("--canary-…: whose the canary's line is must be said, by --canary <tenant>")
			}
			for _, t := range []struct {
				name  string
				flags *trustFlags
				trust *iampolicy.Trust
			}{
				{"writer", &writer, &b.Writer}, {"provisioner", &provisioner, &b.Provisioner}, {"auditor", &auditor, &b.Auditor},
				{"replay", &replay, &b.Replay}, {"canary", &canary, &b.Canary},
			} {
				if t.flags.oidc == "" {
					t.flags.oidc = f.trust.oidc
				}
				trust, readErr := t.flags.read()
				if readErr != nil {
					return fmt.Errorf("--%s-…: %w", t.name, readErr)
				}
				*t.trust = trust
			}
			tenants, err := f.desired()
			if err != nil {
				return err
			}
			b.TenantRoles = tenantRoles(roles, tenants)
			// The account is not known yet; what there is of the scope tells most.
			if err := f.installation.Scope.CheckTenantRoles(b.TenantRoles); err != nil {
				return err
			}
			if t, readErr := f.trust.read(); readErr == nil && len(t.Principals)+len(t.Accounts)+len(t.SSORoles)+len(t.IRSA)+len(t.PodIdentity) == 0 {
				f.installation.NoReaderRoles = true // bootstrap makes none
			}
			s, err := f.start(cmd.Context(), cmd)
			if err != nil {
				return err
			}
			if dry {
				result, err := s.PlanBootstrap(cmd.Context(), b)
				s.bar.end()
				if err != nil {
					return err
				}
				return f.tell(cmd, result)
			}
			report, err := s.Bootstrap(cmd.Context(), b)
			s.bar.end()
			if err != nil {
				return err
			}
			in := s.Installation()
			made := bootstrapped{Report: report, Boundary: in.Scope.BoundaryARN(), Roles: map[string]string{}}
			for _, purpose := range purposes {
				if purpose == "canary" && canaryTenant == "" {
					continue
				}
				made.Roles[purpose] = in.Scope.RoleARN(in.BootstrapRole(purpose))
			}
			return f.bootstrapped(cmd, made)
		},
	}
	f.add(cmd)
	writer.add(cmd, "writer-", "of the nodes")
	provisioner.add(cmd, "provisioner-", "of the provisioner")
	auditor.add(cmd, "auditor-", "of auditors")
	replay.add(cmd, "replay-", "of replay")
	cmd.Flags().StringVar(&canaryTenant, "canary", "", "the test tenant of helm test: make a role for its pod")
	canary.add(cmd, "canary-", "of the canary")
	cmd.Flags().StringSliceVar(&roles, "tenant-role", nil, "the roleArn of a tenant with an account of its own; its account may be *; may be given again; those of --tenants-file are known")
	cmd.Flags().BoolVar(&dry, "dry-run", false, "print the plan")
	cmd.Flags().BoolVar(&standalone, "no-controller", false, "the nodes create groups themselves: no controller, and nobody runs apply")
	return cmd
}

// tenantRoles are the roles given, and those of the tenants file.
func tenantRoles(given []string, tenants []provision.Tenant) []string {
	roles := slices.Clone(given)
	for _, t := range tenants {
		if t.Settings != nil && t.Settings.RoleARN != "" {
			roles = append(roles, t.Settings.RoleARN)
		}
	}
	slices.Sort(roles)
	return slices.Compact(roles)
}

var purposes = []string{"writer", "provisioner", "auditor", "replay", "canary"}

// bootstrapped is what bootstrap says, with what goes into the chart's values.
type bootstrapped struct {
	provision.Report `yaml:",inline"`
	Boundary         string            `json:"boundary" yaml:"boundary"`
	Roles            map[string]string `json:"roles" yaml:"roles"`
}

func (f *installationFlags) bootstrapped(cmd *cobra.Command, b bootstrapped) error {
	err := encode(cmd.OutOrStdout(), f.output, b, func(w io.Writer) error {
		fmt.Fprintln(w, "boundary:", b.Boundary)
		for _, purpose := range purposes {
			if arn, made := b.Roles[purpose]; made {
				fmt.Fprintf(w, "%s: %s\n", purpose, arn)
			}
		}
		return reportTable(w, b.Report)
	})
	if err != nil {
		return err
	}
	if len(b.Findings) > 0 || b.Failed != "" {
		return exitError(exitFound)
	}
	return nil
}
