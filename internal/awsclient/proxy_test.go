package awsclient

import (
	"net/http"
	"os"
	"os/exec"
	"testing"

	"github.com/stretchr/testify/require"
)

// The environment's proxy is read once a process: the test runs in one of its own.
func TestNoProxyIsAskedForTheNodesOwnAddresses(t *testing.T) {
	if os.Getenv("PROXY_OF_THE_ENVIRONMENT") == "" {
		self := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^"+t.Name()+"$", "-test.v")
		self.Env = append(os.Environ(), "PROXY_OF_THE_ENVIRONMENT=1", "HTTP_PROXY=http://proxy.example.com:3128", "HTTPS_PROXY=http://proxy.example.com:3128", "NO_PROXY=", "no_proxy=", "REQUEST_METHOD=")
		out, err := self.CombinedOutput()
		require.NoError(t, err, "%s", out)
		require.Contains(t, string(out), "--- PASS: "+t.Name())
		return
	}
	for url, proxied := range map[string]bool{
		"http://169.254.170.23/v1/credentials":    false,
		"http://169.254.170.2/v2/credentials/x":   false,
		"http://169.254.169.254/latest/api/token": false,
		"http://[fd00:ec2::23]/v1/credentials":    false,
		"http://[fd00:ec2::254]/latest/api/token": false,
		"http://[::ffff:169.254.170.23]/v1":       false,
		"http://[fe80::1%25eth0]/x":               false,
		"http://127.0.0.1:1/x":                    false,
		"http://169.255.0.1/x":                    true,
		"http://[fd00:ec3::1]/x":                  true,
		"http://169.254.170.23.example.com/x":     true,
		"https://logs.us-east-1.amazonaws.com/":   true,
	} {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
		require.NoError(t, err)
		proxy, err := proxyFor(r)
		require.NoError(t, err)
		require.Equal(t, proxied, proxy != nil, url)
	}
}
