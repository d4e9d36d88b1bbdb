package main

import (
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/eks-tenant-logs/eks-tenant-logs/internal/controller"
	"github.com/eks-tenant-logs/eks-tenant-logs/internal/tenancy"
)

func controllerCommand() *cobra.Command {
	var f installationFlags
	var cfg controller.Config
	var level string
	cmd := &cobra.Command{
		Use:   "controller",
		Short: "Keep every tenant namespace's log group and IAM right, in the cluster",
		Long: `Watches the cluster's namespaces. A namespace that is a tenant's gets its log group, retention and reader
role within seconds; what somebody changes is set right at the next look; one that is deleted is retired.
What came of it is in ConfigMap <release>-status and in events. With --tenant-source registry the registry
for the nodes is published as ConfigMap <release>-registry. Of several, one leads.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx, stop := signal.NotifyContext(cmd.Context(), os.Interrupt, syscall.SIGTERM)
			defer stop()
			var l slog.Level
			if err := l.UnmarshalText([]byte(level)); err != nil {
				return fmt.Errorf("--log-level %q: use debug, info, warn or error", level)
			}
			cfg.Log = slog.New(slog.NewJSONHandler(cmd.ErrOrStderr(), &slog.HandlerOptions{Level: l}))
			f.routing.elsewhere = true // namespaces' labels
			to, err := f.routing.read()
			if err != nil {
				return err
			}
			cfg.Mode, cfg.Prefix, cfg.ExceptionsFile = to.mode, f.routing.prefix, f.routing.file
			if cfg.Mode == tenancy.ModeRegistry {
				cfg.Prefix = ""
			}
			cfg.Reserved = reservedNamespaces(cfg.Namespace, cfg.Reserved)
			if err := cfg.Check(); err != nil {
				return err
			}
			cluster, err := restConfig(f.kubeconfig)
			if err != nil {
				return err
			}
			f.quiet = cfg.Log
			s, err := f.start(ctx, cmd)
			if err != nil {
				return err
			}
			cfg.Log.With("release", cfg.Release, "namespace", cfg.Namespace, "tenant_source", cfg.Mode.String(), "exceptions", cfg.ExceptionsFile+cfg.ExceptionsConfigMap,
				"reserved", strings.Join(cfg.Reserved, " "), "resync", cfg.Resync.String()).LogAttrs(ctx, slog.LevelInfo, "starting", s.client.InForce()...)
			return controller.Run(ctx, cluster, cfg, s.Provisioner)
		},
	}
	f.add(cmd)
	fs := cmd.Flags()
	fs.StringVar(&cfg.Release, "release", "eks-tenant-logs", "the Helm release: ConfigMaps are called after it")
	fs.StringVar(&cfg.Namespace, "release-namespace", os.Getenv("POD_NAMESPACE"), "the release's namespace; default: $POD_NAMESPACE")
	fs.StringVar(&cfg.ExceptionsConfigMap, "exceptions-configmap", "", "a ConfigMap of the release's namespace with the tenants file as tenants.yaml, instead of --tenants-file")
	fs.StringSliceVar(&cfg.Reserved, "reserved-namespace", nil, "a namespace that is never a tenant's; may be given again; the release's and Kubernetes' own always are")
	fs.DurationVar(&cfg.Resync, "resync", 0, "how often all tenants are looked at again; default 10m")
	fs.StringVar(&cfg.MetricsAddress, "metrics-address", ":8080", "host:port of /metrics; 0 for none")
	fs.StringVar(&cfg.HealthAddress, "health-address", ":8081", "host:port of /healthz and /readyz; 0 for none")
	fs.StringVar(&f.kubeconfig, "kubeconfig", "", "a kubeconfig; default: the pod's service account")
	fs.StringVar(&level, "log-level", "info", "debug, info, warn or error")
	return cmd
}
