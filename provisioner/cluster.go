package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/eks-tenant-logs/eks-tenant-logs/internal/controller"
	"github.com/eks-tenant-logs/eks-tenant-logs/internal/controller/admission"
	"github.com/eks-tenant-logs/eks-tenant-logs/internal/provision"
	"github.com/eks-tenant-logs/eks-tenant-logs/internal/tenancy"
)

// restConfig is how the cluster is reached.
func restConfig(kubeconfig string) (*rest.Config, error) {
	if kubeconfig == "" {
		cfg, err := rest.InClusterConfig()
		if errors.Is(err, rest.ErrNotInCluster) {
			return nil, errors.New("this is no pod with a service account: give --kubeconfig")
		}
		return cfg, err
	}
	cfg, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	if err != nil {
		return nil, fmt.Errorf("--kubeconfig: %w", err)
	}
	return cfg, nil
}

// reservedNamespaces are those that are never a tenant's: Kubernetes' own, the release's, and
// those that were given.
func reservedNamespaces(release string, given []string) []string {
	all := slices.Concat(admission.DefaultReserved(), []string{release}, given)
	slices.Sort(all)
	return slices.Compact(all)
}

// listTimeout bounds the question for namespaces.
const listTimeout = 30 * time.Second

// ofCluster are the tenants by the same rules as the controller's, and with what it knows of
// who has which namespace. What is refused is told on the standard error, and set up nowhere.
func (f *installationFlags) ofCluster(to routing) ([]provision.Tenant, error) {
	if f.releaseNamespace == "" {
		return nil, errors.New("--kubeconfig needs --release-namespace: the release's own namespace is nobody's, and its registry says who has which")
	}
	cfg, err := restConfig(f.kubeconfig)
	if err != nil {
		return nil, err
	}
	client, err := kubernetes.NewForConfig(cfg)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), listTimeout)
	defer cancel()
	list, err := client.CoreV1().Namespaces().List(ctx, metav1.ListOptions{})
	if err != nil {
		return nil, fmt.Errorf("failed to list the cluster's namespaces: %w", err)
	}
	rules := controller.Rules{Mode: to.mode, Exceptions: to.registry, Reserved: reservedNamespaces(f.releaseNamespace, f.reserved)}
	if to.mode == tenancy.ModeRegistry {
		name := controller.RegistryName(f.release)
		m, err := client.CoreV1().ConfigMaps(f.releaseNamespace).Get(ctx, name, metav1.GetOptions{})
		switch {
		case apierrors.IsNotFound(err):
			fmt.Fprintf(os.Stderr, "there is no ConfigMap %s/%s yet: no namespace has a tenant by it\n", f.releaseNamespace, name)
		case err != nil:
			return nil, fmt.Errorf("failed to read who has which namespace: %w", err)
		default:
			if rules.Owners, err = controller.Owners(m.Data); err != nil {
				return nil, fmt.Errorf("ConfigMap %s/%s can't be read: %w", f.releaseNamespace, name, err)
			}
		}
	}
	tenants, refusals := controller.Desired(controller.Namespaces(list), rules)
	for _, r := range refusals {
		fmt.Fprintf(os.Stderr, "namespace %s: %s\n", r.Namespace, r.Reason)
	}
	return slices.DeleteFunc(tenants, func(t provision.Tenant) bool { return len(f.tenants) > 0 && !slices.Contains(f.tenants, t.Name) }), nil
}
