package cluster

import (
	"context"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
)

// DeleteNamespace deletes a namespace and does what the namespace controller would do
// once it is empty: takes its finalizers away, so that it is gone when this returns.
func DeleteNamespace(ctx context.Context, client kubernetes.Interface, name string) error {
	all := client.CoreV1().Namespaces()
	if err := all.Delete(ctx, name, metav1.DeleteOptions{}); err != nil {
		return err
	}
	ns, err := all.Get(ctx, name, metav1.GetOptions{})
	if err != nil {
		if apierrors.IsNotFound(err) {
			return nil
		}
		return err
	}
	ns.Spec.Finalizers = []corev1.FinalizerName{}
	if _, err = all.Finalize(ctx, ns, metav1.UpdateOptions{}); apierrors.IsNotFound(err) {
		return nil
	}
	return err
}
