package e2e

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/eks-tenant-logs/eks-tenant-logs/e2e/host"
	"github.com/eks-tenant-logs/eks-tenant-logs/e2e/node"
	"github.com/eks-tenant-logs/eks-tenant-logs/internal/fakeaws"
)

// podToken is what a pod shows EKS Pod Identity's agent. Nothing but the agent may see it.
const podToken = "token-of-this-pod"

// credentialAgent stands in for EKS Pod Identity's agent, and for ECS's, which answer alike.
type credentialAgent struct {
	cw *node.CloudWatch
	mu sync.Mutex
	// authorizations are those of the requests.
	authorizations []string
}

func (a *credentialAgent) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	a.mu.Lock()
	a.authorizations = append(a.authorizations, r.Header.Get("Authorization"))
	a.mu.Unlock()
	_ = json.NewEncoder(w).Encode(map[string]string{
		"AccessKeyId": a.cw.AccessKey, "SecretAccessKey": a.cw.SecretKey, "Token": "", "Expiration": time.Now().Add(time.Hour).Format(time.RFC3339),
	})
}

// recordingProxy forwards what it is asked for by plain http to the agent, as a proxy on an
// agent's node would; a tunnel it refuses.
type recordingProxy struct {
	agent *url.URL
	mu    sync.Mutex
	// asked has the method and target of each request, and tokens the authorizations.
	asked, tokens []string
}

func (p *recordingProxy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	p.mu.Lock()
	p.asked = append(p.asked, r.Method+" "+r.RequestURI)
	p.tokens = append(p.tokens, r.Header.Get("Authorization"))
	p.mu.Unlock()
	if r.Method == http.MethodConnect {
		w.WriteHeader(http.StatusBadGateway)
		return
	}
	httputil.NewSingleHostReverseProxy(p.agent).ServeHTTP(w, r)
}

// seen is what was asked for, and all tokens.
func (p *recordingProxy) seen() (asked []string, tokens string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.asked), strings.Join(p.tokens, " ")
}

// A proxy is for what leaves the node. It never sees a request for credentials, of which
// the pod's token is a part, whatever NO_PROXY says.
func TestNoCredentialsAreAskedForThroughAProxy(t *testing.T) {
	token := filepath.Join(t.TempDir(), "token")
	require.NoError(t, os.WriteFile(token, []byte(podToken), 0o600))
	for name, env := range map[string][]string{
		"EKS Pod Identity":           {"AWS_CONTAINER_CREDENTIALS_FULL_URI=http://169.254.170.23/v1/credentials", "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE=" + token},
		"EKS Pod Identity over IPv6": {"AWS_CONTAINER_CREDENTIALS_FULL_URI=http://[fd00:ec2::23]/v1/credentials", "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE=" + token},
		"ECS":                        {"AWS_CONTAINER_CREDENTIALS_RELATIVE_URI=/v2/credentials/x", "AWS_CONTAINER_AUTHORIZATION_TOKEN=" + podToken},
		"the instance's role":        {"AWS_EC2_METADATA_DISABLED=false"},
		"the same over IPv6":         {"AWS_EC2_METADATA_DISABLED=false", "AWS_EC2_METADATA_SERVICE_ENDPOINT_MODE=IPv6"},
	} {
		t.Run(name, func(t *testing.T) {
			cw, _ := standIn(t, fakeaws.Config{})
			agent := httptest.NewServer(&credentialAgent{cw: cw})
			defer agent.Close()
			to, err := url.Parse(agent.URL)
			require.NoError(t, err)
			p := &recordingProxy{agent: to}
			proxy := httptest.NewServer(p)
			defer proxy.Close()
			h, err := startHost(t, host.Config{
				Env:        append(append(slices.Clone(noAWS), "HTTP_PROXY="+proxy.URL, "HTTPS_PROXY="+proxy.URL, "NO_PROXY=", "no_proxy="), env...),
				Outputs:    []host.Output{{Workers: 1, Properties: options(cw, "retry_limit", "no_limits", "flush_timeout", "1s")}},
				StorageDir: t.TempDir(), Grace: 100 * time.Millisecond,
			})
			require.NoError(t, err)
			require.NoError(t, h.Send(tagOfA, record("x")))
			require.NoError(t, h.Until(within(t, time.Minute), func(st host.Stats) bool { return st.Flushed >= 2 }))
			_, err = h.Stop(within(t, time.Minute))
			require.NoError(t, err)
			asked, tokens := p.seen()
			require.Empty(t, asked)
			require.NotContains(t, tokens, podToken)
		})
	}
}

// The agent's credentials are used while a proxy is set: the agent, here on this machine, has
// the pod's token, and the proxy has not.
func TestCredentialsOfAnAgentBesideAProxy(t *testing.T) {
	token := filepath.Join(t.TempDir(), "token")
	require.NoError(t, os.WriteFile(token, []byte(podToken), 0o600))
	cw, s := standIn(t, fakeaws.Config{})
	a := &credentialAgent{cw: cw}
	agent := httptest.NewServer(a)
	defer agent.Close()
	to, err := url.Parse(agent.URL)
	require.NoError(t, err)
	p := &recordingProxy{agent: to}
	proxy := httptest.NewServer(p)
	defer proxy.Close()
	h, err := startHost(t, host.Config{
		Env: append(slices.Clone(noAWS), "HTTP_PROXY="+proxy.URL, "HTTPS_PROXY="+proxy.URL, "NO_PROXY=", "no_proxy=", "AWS_CA_BUNDLE="+cw.CAFile,
			"AWS_CONTAINER_CREDENTIALS_FULL_URI="+agent.URL+"/v1/credentials", "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE="+token),
		Outputs: []host.Output{{Workers: 1, Properties: options(cw)}},
	})
	require.NoError(t, err)
	require.NoError(t, h.Send(tagOfA, record("x")))
	require.NoError(t, h.Drain(within(t, time.Minute)))
	_, err = h.Stop(within(t, time.Minute))
	require.NoError(t, err)
	require.Len(t, s.Events("/eks/tenants/a", "tenant-a/p/c"), 1, "%v", h.Logs())
	a.mu.Lock()
	defer a.mu.Unlock()
	require.Equal(t, []string{podToken}, a.authorizations)
	asked, _ := p.seen()
	require.Empty(t, asked)
}

// What leaves the node goes through the proxy.
func TestCloudWatchIsAskedThroughAProxy(t *testing.T) {
	p := &recordingProxy{}
	proxy := httptest.NewServer(p)
	defer proxy.Close()
	h, err := startHost(t, host.Config{
		Env: append(slices.Clone(noAWS), "HTTPS_PROXY="+proxy.URL, "NO_PROXY=", "no_proxy=", "AWS_ACCESS_KEY_ID=x", "AWS_SECRET_ACCESS_KEY=y"),
		Outputs: []host.Output{{Workers: 1, Properties: map[string]string{
			"region": "us-east-1", "use_dual_stack": "on", "retry_limit": "no_limits", "flush_timeout": "1s", "retention_check_delay": "0s"}}},
		StorageDir: t.TempDir(), Grace: 100 * time.Millisecond,
	})
	require.NoError(t, err)
	require.NoError(t, h.Send(tagOfA, record("x")))
	require.NoError(t, h.Until(within(t, time.Minute), func(st host.Stats) bool { return st.Flushed >= 1 }))
	_, err = h.Stop(within(t, time.Minute))
	require.NoError(t, err)
	asked, _ := p.seen()
	require.Contains(t, asked, "CONNECT logs.us-east-1.api.aws:443")
}
