package e2e

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/cloudwatchlogs"
	cwtypes "github.com/aws/aws-sdk-go-v2/service/cloudwatchlogs/types"
	"github.com/stretchr/testify/require"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"github.com/eks-tenant-logs/eks-tenant-logs/e2e/node"
	"github.com/eks-tenant-logs/eks-tenant-logs/internal/fakeaws"
)

// `helm test`, run by Helm on a real API server. The test is the kubelet: it starts the command
// of the Job that the API server has, writes what that prints where a kubelet does, and tells the
// API server how it ended.

const canarySpace = "tenant-canary"

// canaryRun is one helm test.
type canaryRun struct {
	said string // by the canary
	err  error  // of Helm
}

// helmTest runs helm test; what the canary prints goes through print.
func helmTest(t *testing.T, cw *node.CloudWatch, admin kubernetes.Interface, kubeconfig string, print func(pod node.Pod, line string)) canaryRun {
	t.Helper()
	before := jobUID(t, admin)
	helmed := make(chan error, 1)
	go func() {
		_, err := runHelm(t, kubeconfig, "test", "eks-tenant-logs", "--namespace", chartSpace, "--timeout", "90s")
		helmed <- err
	}()
	var job *batchv1.Job
	eventually(t, "helm test makes the canary's Job", func(ctx context.Context) (bool, string) {
		j, err := admin.BatchV1().Jobs(canarySpace).Get(ctx, "eks-tenant-logs-canary", metav1.GetOptions{})
		job = j
		return err == nil && string(j.UID) != before, fmt.Sprint(err)
	})
	spec := job.Spec.Template.Spec
	_, err := admin.CoreV1().ServiceAccounts(canarySpace).Get(within(t, time.Minute), spec.ServiceAccountName, metav1.GetOptions{})
	require.NoError(t, err, "the pod would wait for its service account")

	cmd := exec.CommandContext(within(t, time.Minute), builtCommand(t), spec.Containers[0].Args...) //nolint:gosec // what the chart says
	cmd.Env = append(os.Environ(), cw.Env()...)
	mounts := mounted(t, admin, spec)
	for _, v := range spec.Containers[0].Env {
		cmd.Env = append(cmd.Env, v.Name+"="+mounts(v.Value))
	}
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	var errs strings.Builder
	cmd.Stderr = &errs
	require.NoError(t, cmd.Start())
	var said strings.Builder
	pod := node.Pod{Namespace: canarySpace, Name: "eks-tenant-logs-canary-x7k2p", Container: spec.Containers[0].Name}
	for lines := bufio.NewScanner(io.TeeReader(out, &said)); lines.Scan(); {
		print(pod, lines.Text())
	}
	ended := cmd.Wait()
	var exit *exec.ExitError
	require.True(t, ended == nil || errors.As(ended, &exit), "%v", ended)
	finish(t, admin, job, ended == nil)
	return canaryRun{said.String() + errs.String(), <-helmed}
}

// mounted mounts what a pod has of ConfigMaps, and translates a path in the container.
func mounted(t *testing.T, admin kubernetes.Interface, spec corev1.PodSpec) func(path string) string {
	t.Helper()
	var oldnew []string
	for _, m := range spec.Containers[0].VolumeMounts {
		i := slices.IndexFunc(spec.Volumes, func(v corev1.Volume) bool { return v.Name == m.Name })
		require.GreaterOrEqual(t, i, 0, "no volume %s", m.Name)
		require.NotNil(t, spec.Volumes[i].ConfigMap)
		c, err := admin.CoreV1().ConfigMaps(canarySpace).Get(within(t, time.Minute), spec.Volumes[i].ConfigMap.Name, metav1.GetOptions{})
		require.NoError(t, err)
		dir := t.TempDir()
		for name, text := range c.Data {
			require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600))
		}
		oldnew = append(oldnew, m.MountPath+"/", dir+"/")
	}
	return strings.NewReplacer(oldnew...).Replace
}

func jobUID(t *testing.T, admin kubernetes.Interface) string {
	t.Helper()
	j, err := admin.BatchV1().Jobs(canarySpace).Get(within(t, time.Minute), "eks-tenant-logs-canary", metav1.GetOptions{})
	if err != nil {
		return ""
	}
	return string(j.UID)
}

// finish writes the status that the Job's controller would.
func finish(t *testing.T, admin kubernetes.Interface, job *batchv1.Job, ok bool) {
	t.Helper()
	now := metav1.Now()
	conditions := func(types ...batchv1.JobConditionType) (all []batchv1.JobCondition) {
		for _, of := range types {
			all = append(all, batchv1.JobCondition{Type: of, Status: corev1.ConditionTrue, LastProbeTime: now, LastTransitionTime: now, Reason: "BackoffLimitExceeded", Message: "Job has reached the specified backoff limit"})
		}
		return all
	}
	job.Status.StartTime = &job.CreationTimestamp
	if ok {
		job.Status.Succeeded, job.Status.CompletionTime = 1, &now
		job.Status.Conditions = conditions(batchv1.JobSuccessCriteriaMet, batchv1.JobComplete)
	} else {
		job.Status.Failed = 1
		job.Status.Conditions = conditions(batchv1.JobFailureTarget, batchv1.JobFailed)
	}
	_, err := admin.BatchV1().Jobs(canarySpace).UpdateStatus(within(t, time.Minute), job, metav1.UpdateOptions{})
	require.NoError(t, err)
}

func TestHelmTestSeesALineArriveInItsGroupAndNowhereElse(t *testing.T) {
	_, admin, kubeconfig := forTheChart(t)
	cw, s := standIn(t, fakeaws.Config{})
	createNamespace(t, admin, chartSpace, "")
	createNamespace(t, admin, canarySpace, "")
	require.NoError(t, install(t, kubeconfig, "eks-tenant-logs", chartSpace, "aws.region="+cw.Region, "admissionPolicy.enabled=false", "aws.endpoint="+cw.Endpoint, "canary.timeout=20s", "canary.elsewhere={/eks/tenants/acme}"))

	// A node, whose agent finds the canary's file.
	e := engines(t)[0]
	onANode := func() (written func(pod node.Pod, line string), end func()) {
		n, log, over := newNode(t), newLog(t), make(chan struct{})
		shipped := make(chan error, 1)
		var once sync.Once
		ctx := within(t, 2*time.Minute)
		return func(pod node.Pod, line string) {
				if err := n.Write(pod, line); err != nil {
					t.Error(err)
				}
				once.Do(func() {
					plugin := pluginPath(t)
					go func() {
						shipped <- e.Ship(ctx, node.Run{Node: n, Plugin: plugin, Env: cw.Env(), Log: log, Options: options(cw), Until: func() bool {
							select {
							case <-over:
								return true
							default:
								return false
							}
						}})
					}()
				})
			}, func() {
				close(over)
				require.NoError(t, <-shipped, "%s", log)
			}
	}

	written, end := onANode()
	run := helmTest(t, cw, admin, kubeconfig, written)
	end()
	require.NoError(t, run.err, run.said)
	require.Contains(t, run.said, "in /eks/tenants/canary, stream tenant-canary/eks-tenant-logs-canary-x7k2p/canary")
	require.Contains(t, run.said, "/eks/tenants/acme is not there")
	require.NotZero(t, in(t, s, "/eks/tenants/canary"))

	// The line is in the platform's group, too.
	ctx := within(t, time.Minute)
	written, end = onANode()
	run = helmTest(t, cw, admin, kubeconfig, func(pod node.Pod, line string) {
		if strings.HasPrefix(line, "canary of eks-tenant-logs") {
			if err := putLine(ctx, cw, "/eks/platform", "astray", line); err != nil {
				t.Error(err)
			}
		}
		written(pod, line)
	})
	end()
	require.Error(t, run.err)
	require.Contains(t, run.said, "it is in /eks/platform too")

	// Nobody ships it.
	_, err := runHelm(t, kubeconfig, "upgrade", "eks-tenant-logs", chartFolder, "--namespace", chartSpace, "--reuse-values", "--set", "canary.timeout=1s")
	require.NoError(t, err)
	run = helmTest(t, cw, admin, kubeconfig, func(node.Pod, string) {})
	require.Error(t, run.err)
	require.Contains(t, run.said, "it is not in /eks/tenants/canary after 1s")
}

// A private authority's certificate reaches the canary as it reaches the agents. Without it the
// canary ends at once, and says what is missing.
func TestHelmTestTrustsAPrivateAuthority(t *testing.T) {
	_, admin, kubeconfig := forTheChart(t)
	cw, _ := standIn(t, fakeaws.Config{})
	createNamespace(t, admin, chartSpace, "")
	createNamespace(t, admin, canarySpace, "")
	ctx := within(t, 3*time.Minute)
	bundle, err := os.ReadFile(cw.CAFile)
	require.NoError(t, err)
	_, err = admin.CoreV1().ConfigMaps(canarySpace).Create(ctx, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "corporate-ca"}, Data: map[string]string{"ca.crt": string(bundle)}}, metav1.CreateOptions{})
	require.NoError(t, err)
	// What the stand-in's own environment would have it trust is not the pod's.
	bare := *cw
	bare.CAFile = filepath.Join(t.TempDir(), "others.pem")
	others, _ := standIn(t, fakeaws.Config{})
	text, err := os.ReadFile(others.CAFile)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(bare.CAFile, text, 0o600))

	require.NoError(t, install(t, kubeconfig, "eks-tenant-logs", chartSpace, "aws.region="+cw.Region, "admissionPolicy.enabled=false", "aws.endpoint="+cw.Endpoint, "canary.timeout=5m"))
	began := time.Now()
	run := helmTest(t, &bare, admin, kubeconfig, func(node.Pod, string) {})
	require.Error(t, run.err)
	require.Contains(t, run.said, "an authority that is not trusted here: put the authority's certificate into the file that AWS_CA_BUNDLE names")
	require.Less(t, time.Since(began), time.Minute, "it does not try for canary.timeout")

	_, err = runHelm(t, kubeconfig, "upgrade", "eks-tenant-logs", chartFolder, "--namespace", chartSpace, "--reuse-values",
		"--set-json", `canary.extraVolumes=[{"name":"ca","configMap":{"name":"corporate-ca"}}]`, "--set-json", `canary.extraVolumeMounts=[{"name":"ca","mountPath":"/etc/corporate-ca","readOnly":true}]`,
		"--set-json", `canary.env=[{"name":"AWS_CA_BUNDLE","value":"/etc/corporate-ca/ca.crt"}]`)
	require.NoError(t, err)
	run = helmTest(t, &bare, admin, kubeconfig, func(_ node.Pod, line string) {
		if strings.HasPrefix(line, "canary of eks-tenant-logs") {
			if err := putLine(ctx, cw, "/eks/tenants/canary", "tenant-canary/p/canary", line); err != nil {
				t.Error(err)
			}
		}
	})
	require.NoError(t, run.err, run.said)
}

// putLine writes a line as anybody with the stand-in's own key may, group and stream with it.
func putLine(ctx context.Context, cw *node.CloudWatch, group, stream, line string) error {
	if err := ignoring(cw.API().CreateLogGroup(ctx, &cloudwatchlogs.CreateLogGroupInput{LogGroupName: &group})); err != nil {
		return err
	}
	if err := ignoring(cw.API().CreateLogStream(ctx, &cloudwatchlogs.CreateLogStreamInput{LogGroupName: &group, LogStreamName: &stream})); err != nil {
		return err
	}
	_, err := cw.API().PutLogEvents(ctx, &cloudwatchlogs.PutLogEventsInput{LogGroupName: &group, LogStreamName: &stream,
		LogEvents: []cwtypes.InputLogEvent{{Message: &line, Timestamp: aws.Int64(time.Now().UnixMilli())}}})
	return err
}

// ignoring leaves the answer out, and that something is there already.
func ignoring[T any](_ T, err error) error {
	var exists *cwtypes.ResourceAlreadyExistsException
	if errors.As(err, &exists) {
		return nil
	}
	return err
}
