package charts

import (
	"net/http"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
)

// The exceptions that the chart renders are read by Go as they are meant, once the kubelet has
// put the API server's address in.
func TestExceptionsFromAProxyAreReadAsTheyAreMeant(t *testing.T) {
	if os.Getenv("PROXY_OF_THE_ENVIRONMENT") != "" { // which Go reads once a process
		for url, proxied := range map[string]bool{
			"http://169.254.170.23/v1/credentials":        false,
			"http://[fd00:ec2::23]/v1/credentials":        false,
			"http://169.254.170.2/x":                      false,
			"http://169.254.169.254/latest":               false,
			"http://[fd00:ec2::254]/latest":               false,
			"https://" + os.Getenv("API_SERVER") + "/api": os.Getenv("API_SERVER_PROXIED") != "",
			"https://registry.example.com/v2":             os.Getenv("REGISTRY_PROXIED") != "",
			"https://logs.eu-central-1.api.aws/":          true,
		} {
			r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
			require.NoError(t, err)
			proxy, err := http.ProxyFromEnvironment(r)
			require.NoError(t, err)
			require.Equal(t, proxied, proxy != nil, url)
		}
		return
	}
	rendered, err := render(t, cases(t)["proxy"])
	require.NoError(t, err)
	all := objects(t, rendered)
	for name, test := range map[string]struct {
		env   []corev1.EnvVar
		extra []string
	}{
		"agent":       {one[*appsv1.DaemonSet](t, all, release+"-fluent-bit").Spec.Template.Spec.Containers[0].Env, nil},
		"provisioner": {one[*appsv1.Deployment](t, all, release+"-provisioner").Spec.Template.Spec.Containers[0].Env, []string{"REGISTRY_PROXIED=yes"}},
		"canary":      {one[*batchv1.Job](t, all, release+"-canary").Spec.Template.Spec.Containers[0].Env, []string{"REGISTRY_PROXIED=yes", "API_SERVER_PROXIED=yes"}},
	} {
		for _, address := range []string{"172.20.0.1", "fd12:3456::1"} {
			t.Run(name+" "+address, func(t *testing.T) {
				host := address
				if strings.Contains(address, ":") {
					host = "[" + address + "]"
				}
				self := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestExceptionsFromAProxyAreReadAsTheyAreMeant$", "-test.v")
				self.Env = append(os.Environ(), "PROXY_OF_THE_ENVIRONMENT=1", "HTTP_PROXY=http://proxy.example.com:3128", "HTTPS_PROXY=http://proxy.example.com:3128", "REQUEST_METHOD=", "API_SERVER="+host)
				self.Env = append(self.Env, test.extra...)
				for _, e := range test.env {
					if strings.EqualFold(e.Name, "no_proxy") {
						self.Env = append(self.Env, e.Name+"="+strings.ReplaceAll(e.Value, "$(KUBERNETES_SERVICE_HOST)", address))
					}
				}
				out, err := self.CombinedOutput()
				require.NoError(t, err, "%s", out)
				require.Contains(t, string(out), "--- PASS")
			})
		}
	}
}
