package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/eks-tenant-logs/eks-tenant-logs/internal/tenancy"
)

// routingFlags are the plugin's options that say where what goes, for every command that
// must know it.
type routingFlags struct {
	file, source, prefix, template string
	names                          tenancy.Names
	// elsewhere: the registry comes from somewhere else where there is no file.
	elsewhere bool
}

func (r *routingFlags) add(cmd *cobra.Command) {
	f := cmd.Flags()
	r.names = tenancy.DefaultNames()
	f.StringVar(&r.file, "tenants-file", "", "the plugin's tenants_file")
	f.StringVar(&r.source, "tenant-source", "prefix", "prefix or registry, as the plugin's tenant_source")
	f.StringVar(&r.prefix, "namespace-prefix", tenancy.DefaultNamespacePrefix, "the plugin's namespace_prefix")
	f.StringVar(&r.template, "log-stream-template", tenancy.DefaultStreamTemplate, "the plugin's log_stream_template")
	f.StringVar(&r.names.TenantPrefix, "log-group-prefix", r.names.TenantPrefix, "the plugin's log_group_prefix")
	f.StringVar(&r.names.PlatformGroup, "platform-log-group", r.names.PlatformGroup, "the plugin's platform_log_group")
	f.StringVar(&r.names.QuarantinePrefix, "quarantine-log-group-prefix", r.names.QuarantinePrefix, "the plugin's quarantine_log_group_prefix")
}

// routing is what the flags say, checked together.
type routing struct {
	mode     tenancy.Mode
	names    tenancy.Names
	template *tenancy.StreamTemplate
	registry *tenancy.Registry
}

func (r *routingFlags) read() (to routing, err error) {
	if to.mode, err = tenancy.ParseMode(r.source); err != nil {
		return to, fmt.Errorf("--tenant-source: %w", err)
	}
	if to.names, err = tenancy.NewNames(r.names.TenantPrefix, r.names.PlatformGroup, r.names.QuarantinePrefix); err != nil {
		return to, err
	}
	if to.template, err = tenancy.ParseStreamTemplate(r.template); err != nil {
		return to, fmt.Errorf("--log-stream-template: %w", err)
	}
	o := tenancy.RegistryOptions{Mode: to.mode, NamespacePrefix: r.prefix}
	switch {
	case r.file != "":
		to.registry, err = tenancy.LoadRegistry(r.file, o)
	case r.elsewhere && to.mode == tenancy.ModeRegistry:
		to.registry, err = tenancy.ParseRegistry([]byte("version: 1"), o)
	default:
		to.registry, err = tenancy.NewRegistry(o)
	}
	return to, err
}
