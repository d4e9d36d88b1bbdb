package realnode

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/iam"
	iamtypes "github.com/aws/aws-sdk-go-v2/service/iam/types"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/yaml"

	"github.com/eks-tenant-logs/eks-tenant-logs/e2e/helm"
	"github.com/eks-tenant-logs/eks-tenant-logs/internal/fakeaws"
)

// The release, as docs/install.md has it.
const (
	ReleaseName      = "eks-tenant-logs"
	ReleaseNamespace = "logs"
	AgentName        = ReleaseName + "-fluent-bit"
	CanaryTenant     = "canary"
	clusterName      = "real-node"
	secretName       = "aws-credentials"
	caName           = "aws-authority"
	caMount          = "/etc/aws-authority"
	readers          = "arn:aws:iam::" + account + ":role/$(tenant)-readers"
)

// Values are the chart's, as YAML has them.
type Values = map[string]any

// values are what the release is installed with: neither an endpoint nor an image is named, for the stand-in answers under AWS's names and
// the nodes have images of the chart's names. Its authority comes by a ConfigMap, its credentials by a Secret.
func (c *Cluster) values() Values {
	trusting := func() Values {
		return Values{
			"env":               []Values{{"name": "AWS_CA_BUNDLE", "value": caMount + "/ca.pem"}},
			"envFrom":           []Values{{"secretRef": Values{"name": secretName}}},
			"extraVolumes":      []Values{{"name": "aws-authority", "configMap": Values{"name": caName}}},
			"extraVolumeMounts": []Values{{"name": "aws-authority", "mountPath": caMount, "readOnly": true}},
		}
	}
	v := Values{
		"clusterName": clusterName, "aws": Values{"region": Region}, "identity": Values{"mode": "environment"},
		"fluentBit": trusting(), "provisioner": trusting(),
		"canary":          trusting(),
		"admissionPolicy": Values{"allowedGroups": []string{"system:masters"}},
	}
	v["canary"].(Values)["timeout"] = "60s"
	v["provisioner"].(Values)["readerRoles"] = Values{"trust": Values{"principals": []string{readers}}}
	return v
}

// Merge lays values over others.
func Merge(under, over Values) Values {
	for key, value := range over {
		if deeper, ok := value.(Values); ok {
			if below, ok := under[key].(Values); ok {
				under[key] = Merge(below, deeper)
				continue
			}
		}
		under[key] = value
	}
	return under
}

// Helm runs Helm against the cluster.
func (c *Cluster) Helm(ctx context.Context, args ...string) (string, error) {
	binary, err := helm.Find(c.options.Root)
	if err != nil {
		return "", err
	}
	home := c.path("helm")
	if err := os.MkdirAll(home, 0o755); err != nil {
		return "", err
	}
	return helm.Run(ctx, binary, home, c.Kubeconfig, args...)
}

// Install does what docs/install.md says, with an administrator's key in a Secret, and returns when Helm finds everything ready. It can be called again
// after Uninstall.
func (c *Cluster) Install(ctx context.Context, over Values) error {
	_, err := c.InstallAs(ctx, Environment, over)
	return err
}

// InstallAs is Install where the pods have their credentials from elsewhere, and returns the roles that bootstrap made.
func (c *Cluster) InstallAs(ctx context.Context, identity Identity, over Values) (Roles, error) {
	roles, err := c.bootstrap(ctx, identity)
	if err != nil {
		return nil, err
	}
	var associated Roles
	if identity == PodIdentity {
		associated = roles
	}
	if c.eks != nil {
		if err := c.associate(ctx, associated); err != nil {
			return nil, err
		}
	}
	return roles, c.firstInstall(ctx, Merge(identity.over(roles), over))
}

func (c *Cluster) firstInstall(ctx context.Context, over Values) error {
	if err := c.namespace(ctx, ReleaseNamespace, "privileged"); err != nil {
		return err
	}
	if err := c.namespace(ctx, "tenant-"+CanaryTenant, "baseline"); err != nil {
		return err
	}
	if err := c.reader(ctx, CanaryTenant); err != nil {
		return err
	}
	return c.install(ctx, "install", over)
}

// Upgrade gives the release other values.
func (c *Cluster) Upgrade(ctx context.Context, over Values) error {
	return c.install(ctx, "upgrade", over)
}

func (c *Cluster) install(ctx context.Context, command string, over Values) error {
	text, err := yaml.Marshal(Merge(c.values(), over))
	if err != nil {
		return err
	}
	file, err := c.write("values.yaml", text)
	if err != nil {
		return err
	}
	_, err = c.Helm(ctx, command, ReleaseName, filepath.Join(c.options.Root, "charts/eks-tenant-logs"), "--namespace", ReleaseNamespace, "--values", file, "--wait", "--timeout", "3m")
	if err != nil {
		return errors.Join(err, errors.New(c.Describe(ctx, ReleaseNamespace)))
	}
	return nil
}

// InstallAlso installs the chart once more, as another cluster of the account would have it: with a release and a namespace of its own, and values over
// those of the first, of which clusterName, the log groups' prefixes and storage.hostPath must be among them.
func (c *Cluster) InstallAlso(ctx context.Context, release, namespace string, over Values) error {
	if err := c.namespace(ctx, namespace, "privileged"); err != nil {
		return err
	}
	text, err := yaml.Marshal(Merge(c.values(), over))
	if err != nil {
		return err
	}
	file, err := c.write(release+".yaml", text)
	if err != nil {
		return err
	}
	if _, err = c.Helm(ctx, "install", release, filepath.Join(c.options.Root, "charts/eks-tenant-logs"), "--namespace", namespace, "--values", file, "--wait", "--timeout", "3m"); err != nil {
		err = errors.Join(err, errors.New(c.Describe(ctx, namespace)))
	}
	return err
}

// HelmTest runs `helm test`, and returns what the canary said.
func (c *Cluster) HelmTest(ctx context.Context) (string, error) {
	_, err := c.Helm(ctx, "test", ReleaseName, "--namespace", ReleaseNamespace, "--timeout", "2m")
	said := c.PodLog(ctx, "tenant-"+CanaryTenant, "job-name="+ReleaseName+"-canary")
	if err != nil {
		err = errors.Join(err, errors.New(c.Describe(ctx, "tenant-"+CanaryTenant)))
	}
	return said, err
}

// Uninstall removes the release, waits for the end of its pods, and removes the agents' folder from the nodes.
func (c *Cluster) Uninstall(ctx context.Context) error {
	if _, err := c.Helm(ctx, "uninstall", ReleaseName, "--namespace", ReleaseNamespace, "--wait", "--timeout", "3m"); err != nil {
		return err
	}
	if err := c.Until(ctx, "no pod of the release is left", func() (bool, error) {
		pods, err := c.Admin.CoreV1().Pods(ReleaseNamespace).List(ctx, metav1.ListOptions{})
		return err == nil && len(pods.Items) == 0, err
	}); err != nil {
		return err
	}
	for _, n := range c.Nodes {
		if err := os.RemoveAll(n.Path(stateFolder)); err != nil {
			return err
		}
	}
	return nil
}

// bootstrap makes the account's roles and the platform's groups, with the choices that values has.
func (c *Cluster) bootstrap(ctx context.Context, identity Identity) (Roles, error) {
	return c.Bootstrap(ctx, clusterName, identity.bootstrapArgs()...)
}

// Bootstrap runs `tenantlogs bootstrap` for a cluster of the account, with an administrator's key.
func (c *Cluster) Bootstrap(ctx context.Context, cluster string, args ...string) (Roles, error) {
	endpoint := c.AWS.CloudWatch.Endpoint
	cmd := exec.CommandContext(ctx, filepath.Join(buildFolder(c.options.Root), "tenantlogs"), "bootstrap", "--cluster", cluster, "--region", Region, "--trust-principal", readers,
		"--endpoint", endpoint, "--sts-endpoint", endpoint, "--iam-endpoint", endpoint, "--kms-endpoint", endpoint, "--eks-endpoint", endpoint, "--output=json")
	cmd.Args = append(cmd.Args, args...)
	cmd.Env = append(os.Environ(), c.AWS.CloudWatch.Env()...)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		return nil, fmt.Errorf("tenantlogs bootstrap: %w: %s%s", err, &out, &errs)
	}
	var made struct {
		Roles Roles `json:"roles"`
	}
	if err := json.Unmarshal(out.Bytes(), &made); err != nil {
		return nil, fmt.Errorf("tenantlogs bootstrap: %w: %s", err, &out)
	}
	return made.Roles, nil
}

// namespace makes one with a Pod Security level, and what the release's pods need there. It waits for the service account without which no pod
// can be made.
func (c *Cluster) namespace(ctx context.Context, name, level string) error {
	labels := map[string]string{"pod-security.kubernetes.io/enforce": level}
	_, err := c.Admin.CoreV1().Namespaces().Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: labels}}, metav1.CreateOptions{})
	if err != nil && !apierrors.IsAlreadyExists(err) {
		return err
	}
	secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: secretName}, StringData: map[string]string{
		"AWS_ACCESS_KEY_ID": c.AWS.CloudWatch.AccessKey, "AWS_SECRET_ACCESS_KEY": c.AWS.CloudWatch.SecretKey,
	}}
	if _, err := c.Admin.CoreV1().Secrets(name).Create(ctx, secret, metav1.CreateOptions{}); err != nil && !apierrors.IsAlreadyExists(err) {
		return err
	}
	authority := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: caName}, Data: map[string]string{"ca.pem": string(c.AWS.CA)}}
	if _, err := c.Admin.CoreV1().ConfigMaps(name).Create(ctx, authority, metav1.CreateOptions{}); err != nil && !apierrors.IsAlreadyExists(err) {
		return err
	}
	return c.Until(ctx, "namespace "+name+" has its service account", func() (bool, error) {
		_, err := c.Admin.CoreV1().ServiceAccounts(name).Get(ctx, "default", metav1.GetOptions{})
		return err == nil, err
	})
}

// Tenant makes a tenant's namespace, and waits until the provisioner has made its log group.
func (c *Cluster) Tenant(ctx context.Context, name string) error {
	if err := c.reader(ctx, name); err != nil {
		return err
	}
	return c.Namespace(ctx, "tenant-"+name, Group(name))
}

// reader makes the role of a tenant's people, whom its reader role is to trust: AWS refuses a trust policy that names a role that is not there.
func (c *Cluster) reader(ctx context.Context, tenant string) error {
	var exists *iamtypes.EntityAlreadyExistsException
	_, err := c.AWS.iamAPI().CreateRole(ctx, &iam.CreateRoleInput{
		RoleName: aws.String(tenant + "-readers"), AssumeRolePolicyDocument: aws.String(`{"Version":"2012-10-17","Statement":{"Effect":"Allow","Principal":{"AWS":"arn:aws:iam::` + account + `:root"},"Action":"sts:AssumeRole"}}`),
	})
	if errors.As(err, &exists) {
		return nil
	}
	return err
}

// Namespace makes a namespace, and waits until a provisioner has made a log group.
func (c *Cluster) Namespace(ctx context.Context, name, group string) error {
	if err := c.namespace(ctx, name, "baseline"); err != nil {
		return err
	}
	return c.Until(ctx, "namespace "+name+" has its log group", func() (bool, error) {
		return slices.ContainsFunc(c.AWS.Groups(), func(g fakeaws.Group) bool { return g.Name == group }), nil
	})
}

// DeleteTenant deletes a tenant's namespace, and does not wait until its pods are gone. The log group stays.
func (c *Cluster) DeleteTenant(ctx context.Context, name string) error {
	return c.DeleteNamespace(ctx, "tenant-"+name)
}

// DeleteNamespace is the same for any namespace.
func (c *Cluster) DeleteNamespace(ctx context.Context, name string) error {
	now := int64(0)
	err := c.Admin.CoreV1().Namespaces().Delete(ctx, name, metav1.DeleteOptions{GracePeriodSeconds: &now})
	if apierrors.IsNotFound(err) {
		return nil
	}
	return err
}

// Group is a tenant's log group.
func Group(tenant string) string { return "/eks/tenants/" + tenant }

// Roll restarts the agents, as `kubectl rollout restart` does, and returns when each node's new one is ready.
func (c *Cluster) Roll(ctx context.Context) error {
	patch := fmt.Sprintf(`{"spec":{"template":{"metadata":{"annotations":{"kubectl.kubernetes.io/restartedAt":%q}}}}}`, time.Now().Format(time.RFC3339Nano))
	ds, err := c.Admin.AppsV1().DaemonSets(ReleaseNamespace).Patch(ctx, AgentName, types.StrategicMergePatchType, []byte(patch), metav1.PatchOptions{})
	if err != nil {
		return err
	}
	return c.rolled(ctx, ds.Generation)
}

// rolled waits for the agents of a generation.
func (c *Cluster) rolled(ctx context.Context, generation int64) error {
	err := c.Until(ctx, "the agents are rolled", func() (bool, error) {
		ds, err := c.Admin.AppsV1().DaemonSets(ReleaseNamespace).Get(ctx, AgentName, metav1.GetOptions{})
		return err == nil && ds.Status.ObservedGeneration >= generation && current(ds), err
	})
	if err != nil {
		err = errors.Join(err, errors.New(c.Describe(ctx, ReleaseNamespace)))
	}
	return err
}

func current(ds *appsv1.DaemonSet) bool {
	s := ds.Status
	return s.DesiredNumberScheduled > 0 && s.UpdatedNumberScheduled == s.DesiredNumberScheduled && s.NumberReady == s.DesiredNumberScheduled
}

// Agents are the agents' pods.
func (c *Cluster) Agents(ctx context.Context) ([]corev1.Pod, error) {
	pods, err := c.Admin.CoreV1().Pods(ReleaseNamespace).List(ctx, metav1.ListOptions{LabelSelector: "app.kubernetes.io/component=fluent-bit"})
	if err != nil {
		return nil, err
	}
	return pods.Items, nil
}

// Metrics are those of an agent's pod, of the plugin and the launcher, as Prometheus gets them.
func (c *Cluster) Metrics(ctx context.Context, p corev1.Pod) (string, error) {
	transport := &http.Transport{DialContext: c.Dial}
	defer transport.CloseIdleConnections()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+net.JoinHostPort(p.Status.PodIP, "2021")+"/metrics", nil)
	if err != nil {
		return "", err
	}
	resp, err := transport.RoundTrip(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	return string(text), err
}

// Until asks until it is so, and says what was waited for if it does not come to be.
func (c *Cluster) Until(ctx context.Context, what string, so func() (bool, error)) error {
	for {
		ok, err := so()
		if ok {
			return nil
		}
		select {
		case <-ctx.Done():
			return errors.Join(fmt.Errorf("waited until %s: %w", what, ctx.Err()), err)
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// PodLog is what the pods with a label said, as `kubectl logs` has it.
func (c *Cluster) PodLog(ctx context.Context, namespace, selector string) string {
	pods, err := c.Admin.CoreV1().Pods(namespace).List(ctx, metav1.ListOptions{LabelSelector: selector})
	if err != nil {
		return err.Error()
	}
	var all bytes.Buffer
	for _, p := range pods.Items {
		for _, container := range p.Spec.Containers {
			text, err := c.Admin.CoreV1().Pods(namespace).GetLogs(p.Name, &corev1.PodLogOptions{Container: container.Name}).DoRaw(ctx)
			if err != nil {
				text = []byte(err.Error())
			}
			fmt.Fprintf(&all, "%s/%s:\n%s\n", p.Name, container.Name, text[max(0, len(text)-8000):])
		}
	}
	return all.String()
}

// Describe says how a namespace's pods are, their events and what they said, for a failure's message. It asks anew where ctx has ended.
func (c *Cluster) Describe(ctx context.Context, namespace string) string {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 20*time.Second)
	defer cancel()
	var all strings.Builder
	pods, err := c.Admin.CoreV1().Pods(namespace).List(ctx, metav1.ListOptions{})
	if err != nil {
		return err.Error()
	}
	for _, p := range pods.Items {
		fmt.Fprintf(&all, "pod %s on %s: %s %s\n", p.Name, p.Spec.NodeName, p.Status.Phase, p.Status.Message)
		for _, s := range p.Status.ContainerStatuses {
			fmt.Fprintf(&all, "  %s: ready %v, restarts %d, %s\n", s.Name, s.Ready, s.RestartCount, s.State.String())
		}
	}
	events, err := c.Admin.CoreV1().Events(namespace).List(ctx, metav1.ListOptions{})
	if err != nil {
		return err.Error()
	}
	for _, e := range events.Items[max(0, len(events.Items)-30):] {
		fmt.Fprintf(&all, "event %s %s: %s %s\n", e.LastTimestamp.Format(time.TimeOnly), e.InvolvedObject.Name, e.Reason, e.Message)
	}
	all.WriteString(c.PodLog(ctx, namespace, ""))
	return all.String()
}
