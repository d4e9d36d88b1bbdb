package main

import (
	"encoding/json"
	"fmt"
	"io"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/eks-tenant-logs/eks-tenant-logs/internal/tenancy"
	"github.com/eks-tenant-logs/eks-tenant-logs/internal/version"
)

// Exit codes, other than 0.
const (
	// exitFound: the answer is that something is not as it should be.
	exitFound = 1
	// exitUnknown: the question could not be answered.
	exitUnknown = 2
)

// exitError ends the process with a code of its own; all there is to say was said.
type exitError int

func (e exitError) Error() string { return fmt.Sprintf("exit code %d", int(e)) }

func root() *cobra.Command {
	cmd := &cobra.Command{
		Use:           "tenantlogs",
		Short:         "Per-tenant log isolation on EKS: set up, check and report tenants' log groups",
		Version:       version.String(),
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	cmd.AddCommand(
		routeCommand(), replayCommand(), policyCommand(), controllerCommand(), planCommand(), applyCommand(), bootstrapCommand(), tenantsCommand(), retireCommand(), reactivateCommand(), lifecycleCommand(), canaryCommand(),
	)
	return cmd
}

// answer is what `route` says, in its JSON form.
type answer struct {
	Tag    string `json:"tag"`
	Kind   string `json:"kind"`
	Tenant string `json:"tenant,omitempty"`
	Group  string `json:"group"`
	Stream string `json:"stream"`
	Why    string `json:"why"`
}

func routeCommand() *cobra.Command {
	var output string
	var tagPrefixes []string
	var flags routingFlags
	cmd := &cobra.Command{
		Use:   "route <tag>",
		Short: "Say where the lines of a Fluent Bit tag go, and why",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if output != "table" && output != "json" {
				return fmt.Errorf("--output %q is neither table nor json", output)
			}
			parser, err := tenancy.NewTagParser(tagPrefixes)
			if err != nil {
				return fmt.Errorf("--tag-prefix: %w", err)
			}
			to, err := flags.read()
			if err != nil {
				return err
			}
			r := tenancy.NewRouter(parser, to.registry, to.names, to.template, "<node>").Route(args[0])
			return write(cmd.OutOrStdout(), output, explain(args[0], r, to.mode))
		},
	}
	f := cmd.Flags()
	flags.add(cmd)
	f.StringSliceVar(&tagPrefixes, "tag-prefix", nil, "the plugin's tag_prefix")
	f.StringVarP(&output, "output", "o", "table", "table or json")
	return cmd
}

func explain(tag string, r tenancy.Route, mode tenancy.Mode) answer {
	a := answer{Tag: tag, Kind: r.Kind.String(), Group: r.Group, Stream: r.Stream}
	switch r.Kind {
	case tenancy.KindTenant:
		a.Tenant = r.Tenant.Name
		a.Why = fmt.Sprintf("namespace %s is tenant %s's", r.Source.Namespace, a.Tenant)
	case tenancy.KindPending:
		a.Why = fmt.Sprintf("namespace %s is not in the registry", r.Source.Namespace)
	case tenancy.KindPlatform:
		a.Why = fmt.Sprintf("namespace %s is no tenant's (tenant source %s)", r.Source.Namespace, mode)
	default:
		a.Why = r.Reason.Explain()
	}
	if r.Source.Truncated {
		a.Why += "; the kubelet cut the file name, so the container may be longer than shown"
	}
	return a
}

func write(w io.Writer, format string, a answer) error {
	if format == "json" {
		enc := json.NewEncoder(w)
		enc.SetIndent("", "  ")
		return enc.Encode(a)
	}
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	tenant := a.Tenant
	if tenant == "" {
		tenant = "-"
	}
	fmt.Fprintf(t, "KIND\tTENANT\tGROUP\tSTREAM\tWHY\n%s\t%s\t%s\t%s\t%s\n", a.Kind, tenant, a.Group, a.Stream, a.Why)
	return t.Flush()
}
