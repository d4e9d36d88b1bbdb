package charts

import (
	"net/url"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/net/http/httpproxy"
	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
)

// The exceptions that the chart renders are read by Go as they are meant, once the kubelet has
// put the API server's address in. httpproxy is what net/http reads them with.
func TestExceptionsFromAProxyAreReadAsTheyAreMeant(t *testing.T) {
	rendered, err := render(t, cases(t)["proxy"])
	require.NoError(t, err)
	all := objects(t, rendered)
	for name, test := range map[string]struct {
		env                 []corev1.EnvVar
		registry, apiServer bool // are reached through the proxy
	}{
		"agent":       {one[*appsv1.DaemonSet](t, all, release+"-fluent-bit").Spec.Template.Spec.Containers[0].Env, false, false},
		"provisioner": {one[*appsv1.Deployment](t, all, release+"-provisioner").Spec.Template.Spec.Containers[0].Env, true, false},
		"canary":      {one[*batchv1.Job](t, all, release+"-canary").Spec.Template.Spec.Containers[0].Env, true, true},
	} {
		for _, address := range []string{"172.20.0.1", "fd12:3456::1"} {
			t.Run(name+" "+address, func(t *testing.T) {
				host := address
				if strings.Contains(address, ":") {
					host = "[" + address + "]"
				}
				read := 0
				for _, e := range test.env {
					if !strings.EqualFold(e.Name, "no_proxy") {
						continue
					}
					read++
					const proxy = "http://proxy.example.com:3128"
					config := httpproxy.Config{HTTPProxy: proxy, HTTPSProxy: proxy, NoProxy: strings.ReplaceAll(e.Value, "$(KUBERNETES_SERVICE_HOST)", address)}
					for at, proxied := range map[string]bool{
						"http://169.254.170.23/v1/credentials": false,
						"http://[fd00:ec2::23]/v1/credentials": false,
						"http://169.254.170.2/x":               false,
						"http://169.254.169.254/latest":        false,
						"http://[fd00:ec2::254]/latest":        false,
						"https://" + host + "/api":             test.apiServer,
						"https://registry.example.com/v2":      test.registry,
						"https://logs.eu-central-1.api.aws/":   true,
					} {
						u, err := url.Parse(at)
						require.NoError(t, err)
						through, err := config.ProxyFunc()(u)
						require.NoError(t, err)
						require.Equal(t, proxied, through != nil, "%s: %s", e.Name, at)
					}
				}
				require.Equal(t, 2, read, "in both spellings")
			})
		}
	}
}
