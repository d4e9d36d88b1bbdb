package e2e

import (
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// The chart is installed once per cluster: a second time is refused with what to do, and breaks
// nothing of the first. Whatever the values become, an upgrade takes them.
func TestTheChartIsInstalledOnceAndTakesAnyOtherValues(t *testing.T) {
	_, admin, kubeconfig := forTheChart(t)
	for _, space := range []string{chartSpace, "other", "tenant-canary"} {
		createNamespace(t, admin, space, "")
	}
	require.NoError(t, install(t, kubeconfig, "eks-tenant-logs", chartSpace))

	ctx := within(t, 3*time.Minute)
	policies := func() (owners []string) {
		all, err := admin.AdmissionregistrationV1().ValidatingAdmissionPolicies().List(ctx, metav1.ListOptions{})
		require.NoError(t, err)
		for _, p := range all.Items {
			owners = append(owners, p.Name+" of "+p.Annotations["meta.helm.sh/release-namespace"])
		}
		return owners
	}
	before := policies()
	for _, space := range []string{chartSpace, "other"} {
		require.ErrorContains(t, install(t, kubeconfig, "second", space), "release eks-tenant-logs already runs an agent on every node, which writes /var/lib/eks-tenant-logs: install once per cluster")
	}
	// A provisioner alone has no folder to meet in, but the same roles.
	require.ErrorContains(t, install(t, kubeconfig, "second", "other", "fluentBit.enabled=false"), "already runs the provisioner of cluster c1: two of them would each set right what the other made")
	// The same name: the agents would not meet in a folder, but the cluster's objects have that name.
	require.ErrorContains(t, install(t, kubeconfig, "eks-tenant-logs", "other", "fluentBit.config.storage.hostPath=/var/lib/other", "provisioner.enabled=false"), "invalid ownership metadata")
	require.Equal(t, before, policies())
	// A second agent that is wanted: another folder, no policy of its own.
	require.NoError(t, install(t, kubeconfig, "second", "other", "fluentBit.config.storage.hostPath=/var/lib/other", "admissionPolicy.enabled=false", "provisioner.enabled=false", "logs.groupPrefix=/second/tenants/"))

	// Names are no part of selectors, which can't be changed; the agents keep theirs.
	upgrade := func(set string) error {
		_, err := runHelm(t, kubeconfig, "upgrade", "eks-tenant-logs", chartFolder, "--namespace", chartSpace, "--set", "clusterName=c1,aws.region=us-east-1,"+set)
		return err
	}
	require.NoError(t, upgrade("nameOverride=logs"))
	require.ErrorContains(t, upgrade("fullnameOverride=renamed"), "leave the names as they are, or uninstall first")

	files, err := filepath.Glob(chartFolder + "/ci/*-values.yaml")
	require.NoError(t, err)
	require.NotEmpty(t, files)
	upgraded := 0
	for _, values := range append(files, chartFolder+"/ci/minimal-values.yaml") {
		if strings.Contains(values, "openshift") || strings.Contains(values, "monitoring") {
			continue // their kinds are not Kubernetes' own
		}
		_, err := runHelm(t, kubeconfig, "upgrade", "eks-tenant-logs", chartFolder, "--namespace", chartSpace, "--reset-values", "--values", values)
		require.NoError(t, err, values)
		upgraded++
	}
	require.Greater(t, upgraded, 8)
}
