package controller

import (
	"context"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// kubernetes is the surroundings in a cluster.
type kubernetes struct {
	cfg    *Config
	watch  client.Reader // what is watched
	direct client.Reader // the API server
	client client.Writer
	now    func() time.Time
}

func (k *kubernetes) namespaces(ctx context.Context) ([]Namespace, error) {
	var list corev1.NamespaceList
	if err := k.watch.List(ctx, &list); err != nil {
		return nil, err
	}
	return Namespaces(&list), nil
}

// Namespaces are what is read of a list of them.
func Namespaces(list *corev1.NamespaceList) []Namespace {
	all := make([]Namespace, 0, len(list.Items))
	for i := range list.Items {
		ns := &list.Items[i]
		label, labelled := ns.Labels[Label]
		all = append(all, Namespace{Name: ns.Name, UID: string(ns.UID), Label: label, Labelled: labelled})
	}
	return all
}

func (k *kubernetes) seen(ctx context.Context, name string) (object, error) {
	return k.get(ctx, k.watch, name)
}

func (k *kubernetes) read(ctx context.Context, name string) (object, error) {
	return k.get(ctx, k.direct, name)
}

func (k *kubernetes) get(ctx context.Context, from client.Reader, name string) (object, error) {
	var m corev1.ConfigMap
	err := from.Get(ctx, types.NamespacedName{Namespace: k.cfg.Namespace, Name: name}, &m)
	if apierrors.IsNotFound(err) {
		return object{}, nil
	}
	if err != nil {
		return object{}, err
	}
	return object{data: m.Data, version: m.ResourceVersion, ours: m.Labels[managedBy] == manager}, nil
}

func (k *kubernetes) write(ctx context.Context, name, version string, data map[string]string) (string, error) {
	m := &corev1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: k.cfg.Namespace, Name: name, ResourceVersion: version,
			Labels: map[string]string{managedBy: manager, "app.kubernetes.io/instance": k.cfg.Release},
		},
		Data: data,
	}
	var err error
	if version == "" {
		err = k.client.Create(ctx, m)
	} else {
		err = k.client.Update(ctx, m)
	}
	switch {
	case apierrors.IsConflict(err), apierrors.IsAlreadyExists(err), apierrors.IsNotFound(err) && version != "":
		return "", fmt.Errorf("%w: %w", errMoved, err)
	case err != nil:
		return "", err
	}
	return m.ResourceVersion, nil
}

// tell makes an event in the namespace it is about, or in the release's.
func (k *kubernetes) tell(ctx context.Context, n news) error {
	at := metav1.NewTime(k.now())
	kind := corev1.EventTypeNormal
	if n.warning {
		kind = corev1.EventTypeWarning
	}
	about := corev1.ObjectReference{APIVersion: "v1", Kind: "Namespace", Name: n.namespace, Namespace: n.namespace, UID: types.UID(n.uid)}
	where := n.namespace
	if where == "" {
		where = k.cfg.Namespace
		about = corev1.ObjectReference{APIVersion: "v1", Kind: "ConfigMap", Name: k.cfg.statusName(), Namespace: where}
	}
	return k.client.Create(ctx, &corev1.Event{
		ObjectMeta:     metav1.ObjectMeta{Namespace: where, GenerateName: "tenantlogs-"},
		InvolvedObject: about, Reason: n.reason, Message: n.text, Type: kind,
		Source:         corev1.EventSource{Component: manager},
		FirstTimestamp: at, LastTimestamp: at, Count: 1,
	})
}
