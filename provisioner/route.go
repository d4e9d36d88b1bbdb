package main

import (
	"encoding/json"
	"fmt"
	"io"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/eks-tenant-logs/eks-tenant-logs/internal/tenancy"
)

// exitUnknown: the question could not be answered.
const exitUnknown = 2

func root() *cobra.Command {
	cmd := &cobra.Command{
		Use:           "tenantlogs",
		Short:         "Per-tenant log isolation on EKS: set up, check and report tenants' log groups",
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	cmd.AddCommand(routeCommand())
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
	var file, source, prefix, output, template string
	var tagPrefixes []string
	names := tenancy.DefaultNames()
	cmd := &cobra.Command{
		Use:   "route <tag>",
		Short: "Say where the lines of a Fluent Bit tag go, and why",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if output != "table" && output != "json" {
				return fmt.Errorf("--output %q is neither table nor json", output)
			}
			mode, err := tenancy.ParseMode(source)
			if err != nil {
				return fmt.Errorf("--tenant-source: %w", err)
			}
			parser, err := tenancy.NewTagParser(tagPrefixes)
			if err != nil {
				return fmt.Errorf("--tag-prefix: %w", err)
			}
			checked, err := tenancy.NewNames(names.TenantPrefix, names.PlatformGroup, names.QuarantinePrefix)
			if err != nil {
				return err
			}
			stream, err := tenancy.ParseStreamTemplate(template)
			if err != nil {
				return fmt.Errorf("--log-stream-template: %w", err)
			}
			o := tenancy.RegistryOptions{Mode: mode, NamespacePrefix: prefix}
			var registry *tenancy.Registry
			if file == "" {
				registry, err = tenancy.NewRegistry(o)
			} else {
				registry, err = tenancy.LoadRegistry(file, o)
			}
			if err != nil {
				return err
			}
			r := tenancy.NewRouter(parser, registry, checked, stream, "<node>").Route(args[0])
			return write(cmd.OutOrStdout(), output, explain(args[0], r, mode))
		},
	}
	f := cmd.Flags()
	f.StringVar(&file, "tenants-file", "", "the plugin's tenants_file")
	f.StringVar(&source, "tenant-source", "prefix", "prefix or registry, as the plugin's tenant_source")
	f.StringVar(&prefix, "namespace-prefix", tenancy.DefaultNamespacePrefix, "the plugin's namespace_prefix")
	f.StringSliceVar(&tagPrefixes, "tag-prefix", nil, "the plugin's tag_prefix")
	f.StringVar(&template, "log-stream-template", tenancy.DefaultStreamTemplate, "the plugin's log_stream_template")
	f.StringVar(&names.TenantPrefix, "log-group-prefix", names.TenantPrefix, "the plugin's log_group_prefix")
	f.StringVar(&names.PlatformGroup, "platform-log-group", names.PlatformGroup, "the plugin's platform_log_group")
	f.StringVar(&names.QuarantinePrefix, "quarantine-log-group-prefix", names.QuarantinePrefix, "the plugin's quarantine_log_group_prefix")
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
