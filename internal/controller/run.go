package controller

import (
	"context"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/go-logr/logr"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/rest"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/healthz"
	crmetrics "sigs.k8s.io/controller-runtime/pkg/metrics"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"

	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/eks-tenant-logs/eks-tenant-logs/internal/provision"
)

// Run leads, or waits to lead, until ctx ends or another leads: then the process is to end, for
// it may not go on writing. One of several does the work.
func Run(ctx context.Context, cluster *rest.Config, cfg Config, engine provision.Engine) error {
	if err := cfg.Check(); err != nil {
		return err
	}
	counted, err := newMetrics(crmetrics.Registry)
	if err != nil {
		return err
	}
	mgr, err := ctrl.NewManager(cluster, ctrl.Options{
		Logger:  logr.FromSlogHandler(cfg.Log.Handler()),
		Metrics: metricsserver.Options{BindAddress: cfg.MetricsAddress}, HealthProbeBindAddress: cfg.HealthAddress,
		LeaderElection: true, LeaderElectionID: cfg.Release + "-leader", LeaderElectionNamespace: cfg.Namespace, LeaderElectionReleaseOnCancel: true,
		Cache: cache.Options{ByObject: map[client.Object]cache.ByObject{
			&corev1.Namespace{}: {},
			&corev1.ConfigMap{}: {Namespaces: map[string]cache.Config{cfg.Namespace: {}}},
		}},
	})
	if err != nil {
		return fmt.Errorf("failed to reach the cluster: %w", err)
	}
	k := &kubernetes{cfg: &cfg, watch: mgr.GetCache(), direct: mgr.GetAPIReader(), client: mgr.GetClient(), now: time.Now}
	l := &leader{cfg: cfg, engine: engine, k: k, now: time.Now, random: rand.Float64, log: cfg.Log, metrics: counted}
	// Whatever changed, one pass looks at it all; many changes at once are one.
	all := handler.EnqueueRequestsFromMapFunc(func(context.Context, client.Object) []reconcile.Request { return []reconcile.Request{{}} })
	err = ctrl.NewControllerManagedBy(mgr).Named("tenants").
		Watches(&corev1.Namespace{}, all).Watches(&corev1.ConfigMap{}, all).
		Complete(reconcile.Func(func(ctx context.Context, _ reconcile.Request) (reconcile.Result, error) {
			wait, err := l.pass(ctx)
			if err != nil && ctx.Err() == nil {
				cfg.Log.Error("a pass failed, and is made again", "err", err, "in", wait)
			}
			if cfg.ExceptionsFile != "" {
				wait = min(wait, fileLook)
			}
			return reconcile.Result{RequeueAfter: max(wait, time.Millisecond)}, nil
		}))
	if err != nil {
		return err
	}
	if err := mgr.AddHealthzCheck("alive", healthz.Ping); err != nil {
		return err
	}
	if err := mgr.AddReadyzCheck("alive", healthz.Ping); err != nil {
		return err
	}
	return mgr.Start(ctx)
}
