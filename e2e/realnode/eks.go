package realnode

import (
	"context"
	"crypto/tls"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/eks"
	"github.com/aws/aws-sdk-go-v2/service/iam"
	"github.com/aws/aws-sdk-go-v2/service/iam/types"
	admissionv1 "k8s.io/api/admission/v1"
	registrationv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
)

// EKS is what an EKS cluster has beside Kubernetes so that pods get roles: an identity provider in IAM for the cluster's own issuer, the webhook that
// gives a pod what its service account's role needs, and on each node the agent of Pod Identity. The tokens are the API server's, and the kubelet brings
// and renews them.
type EKS struct{ c *Cluster }

const (
	account = "123456789012"
	// issuerURL is the API server's issuer of tokens.
	issuerURL = "https://" + OIDCProvider

	webhookPort   = "9443"
	webhookName   = "pod-identity-webhook"
	webhookSocket = "webhook.sock"
	// agentAddress is where EKS's agent listens on each node.
	agentAddress = "169.254.170.23"
	agentSocket  = "pod-identity.sock"

	// tokenLife is how long the webhook has tokens live, in seconds, where the service account does not say.
	tokenLife = 86400
)

// OIDCProvider is the name of the cluster's identity provider in IAM.
const OIDCProvider = "kubernetes.default.svc.cluster.local"

// TokenLife is the annotation of a service account that says how many seconds the tokens of its pods live. EKS's webhook takes no less than an hour; here
// it is Kubernetes' own 10 minutes, of which the kubelet renews a token after 8.
const TokenLife = "eks.amazonaws.com/token-expiration"

// RoleAnnotation is the one by which a service account names its role, for IRSA.
const RoleAnnotation = "eks.amazonaws.com/role-arn"

// The volumes that the webhook gives pods, as EKS's names them.
const (
	irsaVolume        = "aws-iam-token"
	podIdentityVolume = "eks-pod-identity-token"
)

// StartEKS starts it. It ends with the cluster. A node that is started again has no agent of Pod Identity.
func (c *Cluster) StartEKS(ctx context.Context) (*EKS, error) {
	if c.eks != nil {
		return c.eks, nil
	}
	e := &EKS{c: c}
	home := c.AWS.Account(account)
	home.AddCluster(clusterName)
	if err := home.SetClusterIssuer(clusterName, issuerURL); err != nil {
		return nil, err
	}
	keys, err := c.issuerKeys(ctx)
	if err != nil {
		return nil, err
	}
	c.AWS.TrustIssuer(issuerURL, keys)
	var exists *types.EntityAlreadyExistsException
	if _, err := c.AWS.iamAPI().CreateOpenIDConnectProvider(ctx,
		&iam.CreateOpenIDConnectProviderInput{Url: aws.String(issuerURL), ClientIDList: []string{"sts.amazonaws.com"}}); err != nil && !errors.As(err, &exists) {
		return nil, err
	}
	if err := e.startWebhook(ctx); err != nil {
		return nil, fmt.Errorf("the webhook: %w", err)
	}
	if err := e.startAgents(ctx); err != nil {
		return nil, fmt.Errorf("the agents of Pod Identity: %w", err)
	}
	c.eks = e
	return e, nil
}

// issuerKeys is how the API server's public keys are had: by its discovery document, as any relying party does.
func (c *Cluster) issuerKeys(ctx context.Context) (func() ([]byte, error), error) {
	client, err := rest.HTTPClientFor(c.Config)
	if err != nil {
		return nil, err
	}
	get := func(ctx context.Context, path string) ([]byte, error) {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, c.Config.Host+path, nil)
		if err != nil {
			return nil, err
		}
		resp, err := client.Do(req)
		if err != nil {
			return nil, err
		}
		defer resp.Body.Close()
		text, err := io.ReadAll(resp.Body)
		if err == nil && resp.StatusCode != http.StatusOK {
			err = fmt.Errorf("%s: %s", path, resp.Status)
		}
		return text, err
	}
	text, err := get(ctx, "/.well-known/openid-configuration")
	if err != nil {
		return nil, err
	}
	var discovery struct {
		Issuer string `json:"issuer"`
		Keys   string `json:"jwks_uri"`
	}
	if err := json.Unmarshal(text, &discovery); err != nil {
		return nil, err
	}
	if discovery.Issuer != issuerURL {
		return nil, fmt.Errorf("the API server's issuer is %s", discovery.Issuer)
	}
	u, err := url.Parse(discovery.Keys)
	if err != nil {
		return nil, err
	}
	return func() ([]byte, error) {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		return get(ctx, u.Path)
	}, nil
}

// startWebhook starts what stands in for amazon-eks-pod-identity-webhook, and has the API server ask it about each new pod.
func (e *EKS) startWebhook(ctx context.Context) error {
	c := e.c
	cert, key, err := c.ca.Server(webhookName, planeAddress)
	if err != nil {
		return err
	}
	pair, err := tls.X509KeyPair(cert, key)
	if err != nil {
		return err
	}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /mutate", e.mutate)
	if err := c.serve(webhookSocket, mux, &tls.Config{Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12}); err != nil {
		return err
	}
	if err := c.plane.call(ctx, "/relay", map[string]any{"Listen": "tcp:" + net.JoinHostPort(planeAddress, webhookPort), "To": "unix:" + c.path(webhookSocket)}, nil); err != nil {
		return err
	}
	// EKS ignores a webhook that fails. Here a pod without its role would be a test's riddle.
	address, fail, none, timeout := "https://"+net.JoinHostPort(planeAddress, webhookPort)+"/mutate", registrationv1.Fail, registrationv1.SideEffectClassNone, int32(10)
	_, err = c.Admin.AdmissionregistrationV1().MutatingWebhookConfigurations().Create(ctx, &registrationv1.MutatingWebhookConfiguration{
		ObjectMeta: metav1.ObjectMeta{Name: webhookName},
		Webhooks: []registrationv1.MutatingWebhook{{
			Name: webhookName + ".amazonaws.com", ClientConfig: registrationv1.WebhookClientConfig{URL: &address, CABundle: c.ca.PEM},
			Rules: []registrationv1.RuleWithOperations{{
				Operations: []registrationv1.OperationType{registrationv1.Create},
				Rule:       registrationv1.Rule{APIGroups: []string{""}, APIVersions: []string{"v1"}, Resources: []string{"pods"}},
			}},
			FailurePolicy: &fail, SideEffects: &none, TimeoutSeconds: &timeout, AdmissionReviewVersions: []string{"v1"},
		}},
	}, metav1.CreateOptions{})
	return err
}

// startAgents gives each node EKS's address, and what listens there.
func (e *EKS) startAgents(ctx context.Context) error {
	if err := e.c.serve(agentSocket, e.c.AWS.Account(account).PodIdentityEndpoint(clusterName), nil); err != nil {
		return err
	}
	for _, n := range e.c.Nodes {
		if err := n.machine.try(ctx, "ip", "address", "add", agentAddress+"/32", "dev", "lo"); err != nil {
			return err
		}
		if err := n.machine.call(ctx, "/relay", map[string]any{"Listen": "tcp:" + net.JoinHostPort(agentAddress, "80"), "To": "unix:" + e.c.path(agentSocket)}, nil); err != nil {
			return err
		}
	}
	return nil
}

// serve answers at a socket of the cluster's folder until the cluster stops.
func (c *Cluster) serve(socket string, handler http.Handler, config *tls.Config) error {
	l, err := net.Listen("unix", c.path(socket))
	if err != nil {
		return err
	}
	c.relays = append(c.relays, l)
	if config != nil {
		l = tls.NewListener(l, config)
	}
	server := &http.Server{Handler: handler, ReadHeaderTimeout: 30 * time.Second}
	go func() { _ = server.Serve(l) }() // until the listener is closed
	return nil
}

// mutate answers an AdmissionReview of a pod.
func (e *EKS) mutate(w http.ResponseWriter, r *http.Request) {
	var review admissionv1.AdmissionReview
	if err := json.NewDecoder(r.Body).Decode(&review); err != nil || review.Request == nil {
		http.Error(w, "no AdmissionReview", http.StatusBadRequest)
		return
	}
	answer := &admissionv1.AdmissionResponse{UID: review.Request.UID, Allowed: true}
	var pod corev1.Pod
	err := json.Unmarshal(review.Request.Object.Raw, &pod)
	if err == nil {
		var changed bool
		if changed, err = e.give(r.Context(), review.Request.Namespace, &pod.Spec); err == nil && changed {
			kind := admissionv1.PatchTypeJSONPatch
			answer.PatchType = &kind
			answer.Patch, err = json.Marshal([]map[string]any{{"op": "replace", "path": "/spec", "value": pod.Spec}})
		}
	}
	if err != nil {
		answer.Allowed, answer.Result = false, &metav1.Status{Message: err.Error()}
	}
	review.Request, review.Response = nil, answer
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(review)
}

// give adds to a pod what its service account's role needs: an association of Pod Identity goes before the annotation of IRSA, as with EKS.
func (e *EKS) give(ctx context.Context, namespace string, spec *corev1.PodSpec) (changed bool, err error) {
	sa, err := e.c.Admin.CoreV1().ServiceAccounts(namespace).Get(ctx, spec.ServiceAccountName, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	found, err := e.c.AWS.eksAPI().ListPodIdentityAssociations(ctx, &eks.ListPodIdentityAssociationsInput{
		ClusterName: aws.String(clusterName), Namespace: &namespace, ServiceAccount: &sa.Name,
	})
	if err != nil {
		return false, err
	}
	life := int64(tokenLife)
	if text := sa.Annotations[TokenLife]; text != "" {
		if life, err = strconv.ParseInt(text, 10, 64); err != nil {
			return false, fmt.Errorf("%s: %w", TokenLife, err)
		}
	}
	switch role := sa.Annotations[RoleAnnotation]; {
	case len(found.Associations) > 0:
		givePodIdentity(spec, life)
	case role != "":
		giveToken(spec, irsaVolume, "sts.amazonaws.com", "/var/run/secrets/eks.amazonaws.com/serviceaccount", "token", life, "AWS_WEB_IDENTITY_TOKEN_FILE",
			corev1.EnvVar{Name: "AWS_ROLE_ARN", Value: role})
	default:
		return false, nil
	}
	return true, nil
}

// AsByPodIdentity gives a pod what the webhook gives the pods of a service account with an association. Anybody can write a pod so.
func (c *Cluster) AsByPodIdentity(p *corev1.Pod) { givePodIdentity(&p.Spec, tokenLife) }

func givePodIdentity(spec *corev1.PodSpec, life int64) {
	giveToken(spec, podIdentityVolume, "pods.eks.amazonaws.com", "/var/run/secrets/pods.eks.amazonaws.com/serviceaccount", "eks-pod-identity-token", life,
		"AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", corev1.EnvVar{Name: "AWS_CONTAINER_CREDENTIALS_FULL_URI", Value: "http://" + agentAddress + "/v1/credentials"})
}

// giveToken adds a volume with a token, the variable that names its file, and others.
func giveToken(spec *corev1.PodSpec, volume, audience, dir, file string, life int64, variable string, env ...corev1.EnvVar) {
	env = append(env, corev1.EnvVar{Name: variable, Value: dir + "/" + file},
		corev1.EnvVar{Name: "AWS_STS_REGIONAL_ENDPOINTS", Value: "regional"}, corev1.EnvVar{Name: "AWS_DEFAULT_REGION", Value: Region}, corev1.EnvVar{Name: "AWS_REGION", Value: Region})
	spec.Volumes = append(spec.Volumes, corev1.Volume{Name: volume, VolumeSource: corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{
		Sources: []corev1.VolumeProjection{{ServiceAccountToken: &corev1.ServiceAccountTokenProjection{Audience: audience, ExpirationSeconds: &life, Path: file}}},
	}}})
	for _, containers := range [][]corev1.Container{spec.InitContainers, spec.Containers} {
		for i := range containers {
			for _, v := range env {
				if !slices.ContainsFunc(containers[i].Env, func(has corev1.EnvVar) bool { return has.Name == v.Name }) {
					containers[i].Env = append(containers[i].Env, v)
				}
			}
			containers[i].VolumeMounts = append(containers[i].VolumeMounts, corev1.VolumeMount{Name: volume, MountPath: dir, ReadOnly: true})
		}
	}
}

// credentials are the administrator's.
func (a *AWS) credentials() aws.CredentialsProvider {
	return credentials.NewStaticCredentialsProvider(a.CloudWatch.AccessKey, a.CloudWatch.SecretKey, "")
}

func (a *AWS) eksAPI() *eks.Client {
	return eks.New(eks.Options{Region: Region, BaseEndpoint: &a.CloudWatch.Endpoint, HTTPClient: a.CloudWatch.HTTP, Credentials: a.credentials()})
}

func (a *AWS) iamAPI() *iam.Client {
	return iam.New(iam.Options{Region: Region, BaseEndpoint: &a.CloudWatch.Endpoint, HTTPClient: a.CloudWatch.HTTP, Credentials: a.credentials()})
}

// Identity is where the release's pods have their credentials from.
type Identity string

// The chart's values of identity.mode that a node can carry out.
const (
	// Environment is an administrator's key in a Secret.
	Environment Identity = "environment"
	// IRSA is a role annotated on each service account; it needs StartEKS.
	IRSA Identity = "irsa"
	// PodIdentity is an association of each service account with its role; it needs StartEKS.
	PodIdentity Identity = "podIdentity"
)

// Roles are what bootstrap printed: writer, provisioner and so on, with their ARNs.
type Roles map[string]string

// serviceAccounts are those of the release, by the purpose of their roles.
var serviceAccounts = map[string][2]string{
	"writer": {ReleaseNamespace, AgentName}, "provisioner": {ReleaseNamespace, ReleaseName + "-provisioner"}, "canary": {"tenant-" + CanaryTenant, ReleaseName + "-canary"},
}

// bootstrapArgs say whom the roles trust.
func (i Identity) bootstrapArgs() []string {
	if i == Environment {
		return []string{"--writer-principal=arn:aws:iam::" + account + ":root"}
	}
	args := []string{"--canary=" + CanaryTenant}
	kind := "pod-identity"
	if i == IRSA {
		kind = "irsa"
		args = append(args, "--trust-oidc-provider="+OIDCProvider)
	}
	for purpose, sa := range serviceAccounts {
		args = append(args, fmt.Sprintf("--%s-%s=%s/%s", purpose, kind, sa[0], sa[1]))
	}
	return args
}

// over are the values of the identity.
func (i Identity) over(roles Roles) Values {
	if i == Environment {
		return Values{}
	}
	keyless := func() Values { return Values{"envFrom": []Values{}} }
	v := Values{"identity": Values{"mode": string(i)}, "fluentBit": keyless(), "provisioner": keyless(), "canary": keyless()}
	if i == IRSA {
		v["identity"] = Values{"mode": string(i), "writerRoleArn": roles["writer"], "provisionerRoleArn": roles["provisioner"], "canaryRoleArn": roles["canary"]}
	}
	return v
}

// associate has EKS give the release's service accounts their roles by Pod Identity, or no longer.
func (c *Cluster) associate(ctx context.Context, roles Roles) error {
	client := c.AWS.eksAPI()
	for purpose, sa := range serviceAccounts {
		found, err := client.ListPodIdentityAssociations(ctx, &eks.ListPodIdentityAssociationsInput{ClusterName: aws.String(clusterName), Namespace: &sa[0], ServiceAccount: &sa[1]})
		if err != nil {
			return err
		}
		for _, a := range found.Associations {
			if _, err := client.DeletePodIdentityAssociation(ctx, &eks.DeletePodIdentityAssociationInput{ClusterName: aws.String(clusterName), AssociationId: a.AssociationId}); err != nil {
				return err
			}
		}
		if roles == nil {
			continue
		}
		if _, err := client.CreatePodIdentityAssociation(ctx, &eks.CreatePodIdentityAssociationInput{
			ClusterName: aws.String(clusterName), Namespace: &sa[0], ServiceAccount: &sa[1], RoleArn: aws.String(roles[purpose]),
		}); err != nil {
			return err
		}
	}
	return nil
}

// Token is what a service account token says.
type Token struct {
	ID string `json:"jti"`
	// Issued is in seconds since 1970.
	Issued int64 `json:"iat"`
}

// TokenOf reads the token for AWS that the kubelet keeps in a pod's volume now.
func (c *Cluster) TokenOf(ctx context.Context, p corev1.Pod) (Token, error) {
	var token Token
	i := slices.IndexFunc(c.Nodes, func(n *Node) bool { return n.Name == p.Spec.NodeName })
	v := slices.IndexFunc(p.Spec.Volumes, func(v corev1.Volume) bool { return v.Name == irsaVolume || v.Name == podIdentityVolume })
	if i < 0 || v < 0 {
		return token, fmt.Errorf("pod %s has no token for AWS", p.Name)
	}
	volume := p.Spec.Volumes[v]
	text, err := c.Nodes[i].Exec(ctx, "cat", fmt.Sprintf("/var/lib/kubelet/pods/%s/volumes/kubernetes.io~projected/%s/%s", p.UID, volume.Name, volume.Projected.Sources[0].ServiceAccountToken.Path))
	if err != nil {
		return token, err
	}
	parts := strings.Split(text, ".")
	if len(parts) != 3 {
		return token, fmt.Errorf("what pod %s has is no token", p.Name)
	}
	claims, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil {
		return token, err
	}
	return token, json.Unmarshal(claims, &token)
}
