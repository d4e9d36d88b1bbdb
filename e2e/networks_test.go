package e2e

import (
	"crypto/tls"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/eks-tenant-logs/eks-tenant-logs/e2e/host"
	"github.com/eks-tenant-logs/eks-tenant-logs/e2e/node"
	"github.com/eks-tenant-logs/eks-tenant-logs/internal/fakeaws"
)

// Promises 3, 4 and 8 over what is between a node and CloudWatch: versions of HTTP and TLS,
// connections that end, and proxies.

// beyond is a name that only a proxy knows. Loopback addresses are not sent to proxies.
const beyond = "logs.us-east-1.test"

// bothVersions are HTTP/1.1 and HTTP/2, of which a client that offers h2 gets HTTP/2.
func bothVersions() (p http.Protocols) {
	p.SetHTTP1(true)
	p.SetHTTP2(true)
	return p
}

// proxied is a stand-in that is reached by the name beyond, and only through a proxy.
func proxied(t *testing.T, cfg node.ProxyConfig) (*node.CloudWatch, *fakeaws.Server, *node.Proxy) {
	t.Helper()
	cw, s := standIn(t, fakeaws.Config{Hosts: []string{beyond}})
	u, err := url.Parse(cw.Endpoint)
	require.NoError(t, err)
	cfg.To = u.Host
	if cfg.Open {
		cfg.Host = beyond
		cfg.CA, err = s.CAPEM()
		require.NoError(t, err)
	}
	p, err := node.NewProxy(cfg)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, p.Close()) })
	behind := *cw
	behind.Endpoint = "https://" + beyond
	if cfg.Open {
		pem, err := p.CAPEM()
		require.NoError(t, err)
		behind.CAFile = filepath.Join(t.TempDir(), "proxy-ca.pem")
		require.NoError(t, os.WriteFile(behind.CAFile, pem, 0o600))
	}
	return &behind, s, p
}

func TestNothingLostNothingTwiceOverWhatIsBetweenANodeAndCloudWatch(t *testing.T) {
	// over is a stand-in with what is before it. seen fails unless what the case is about was met.
	type over struct {
		cw   *node.CloudWatch
		s    *fakeaws.Server
		env  []string
		seen func(t *testing.T)
	}
	straight := func(cfg fakeaws.Config, seen func(t *testing.T, s *fakeaws.Server)) func(*testing.T) over {
		return func(t *testing.T) over {
			cw, s := standIn(t, cfg)
			return over{cw, s, nil, func(t *testing.T) {
				if seen != nil {
					seen(t, s)
				}
			}}
		}
	}
	for name, start := range map[string]func(t *testing.T) over{
		"a peer that prefers HTTP/2": straight(fakeaws.Config{Protocols: bothVersions()}, nil),
		"TLS 1.3 alone":              straight(fakeaws.Config{MinTLS: tls.VersionTLS13}, nil),
		"TLS 1.2 alone":              straight(fakeaws.Config{MaxTLS: tls.VersionTLS12}, nil),
		"Connection: close": straight(fakeaws.Config{CloseConnections: true}, func(t *testing.T, s *fakeaws.Server) {
			require.GreaterOrEqual(t, s.Connections(), int64(s.CallCount("PutLogEvents")))
		}),
		"connections that end as a call is sent": straight(fakeaws.Config{CallsPerConnection: 3}, func(t *testing.T, s *fakeaws.Server) {
			require.Positive(t, s.Calls()[fakeaws.CallKey{Operation: "-", Result: "(connection reset)"}])
		}),
		"idle connections that end at any moment": func(t *testing.T) over {
			cw, s := standIn(t, fakeaws.Config{})
			var closed atomic.Int64
			s.SetIntercept(func(fakeaws.Call) error {
				closed.Add(int64(s.CloseIdle())) // those that other calls are about to use
				return nil
			})
			return over{cw, s, nil, func(t *testing.T) { require.Positive(t, closed.Load()) }}
		},
		"a proxy": func(t *testing.T) over {
			cw, s, p := proxied(t, node.ProxyConfig{})
			return over{cw, s, p.Env(), func(t *testing.T) { require.EqualValues(t, s.Connections(), p.Targets()[beyond+":443"]) }}
		},
		"a proxy that asks for a password": func(t *testing.T) over {
			cw, s, p := proxied(t, node.ProxyConfig{User: "node", Password: "p@ss/word"})
			return over{cw, s, p.Env(), func(t *testing.T) {
				require.Zero(t, p.Refused())
				require.EqualValues(t, s.Connections(), p.Targets()[beyond+":443"])
			}}
		},
		"a proxy that opens TLS and prefers HTTP/2": func(t *testing.T) over {
			cw, s, p := proxied(t, node.ProxyConfig{Open: true})
			return over{cw, s, p.Env(), func(t *testing.T) {
				require.Equal(t, []string{"HTTP/1.1"}, keys(p.Spoken()), "what the plugin offers")
				require.Positive(t, p.Targets()[beyond+":443"])
			}}
		},
	} {
		t.Run(name, func(t *testing.T) {
			onEngines(t, func(t *testing.T, e node.Engine) {
				o := start(t)
				n := newNode(t)
				want := writeNumbered(t, n, 20, 250)
				require.NoError(t, e.Ship(within(t, 2*time.Minute), node.Run{
					Node: n, Plugin: pluginPath(t), Env: append(o.cw.Env(), o.env...), Log: newLog(t), Options: options(o.cw), Until: arrived(o.s, len(want)),
				}))
				require.Equal(t, want, numbers(t, o.s), "each number once")
				o.seen(t)
			})
		})
	}
}

func keys(m map[string]int) (all []string) {
	for k := range m {
		all = append(all, k)
	}
	return all
}

// Whatever is wrong on the way, the log has one line that names it and what mends it, and every
// chunk goes back to Fluent Bit.
func TestTheLogNamesWhatIsWrongOnTheWay(t *testing.T) {
	var only http.Protocols
	only.SetHTTP2(true)
	for name, test := range map[string]struct {
		start func(t *testing.T) (cw *node.CloudWatch, env []string)
		want  string
	}{
		"a peer that speaks HTTP/2 alone": {func(t *testing.T) (*node.CloudWatch, []string) {
			cw, _ := standIn(t, fakeaws.Config{Protocols: only})
			return cw, nil
		}, "speaks HTTP/2 only, and HTTP/1.1 is spoken here: have the endpoint, or the proxy in front of it, offer http/1.1"},
		"an authority that is not trusted": {func(t *testing.T) (*node.CloudWatch, []string) {
			cw, _ := standIn(t, fakeaws.Config{})
			other, _ := standIn(t, fakeaws.Config{})
			untrusted := *cw
			untrusted.CAFile = other.CAFile
			return &untrusted, nil
		}, "an authority that is not trusted here: put the authority's certificate into the file that AWS_CA_BUNDLE names"},
		"a proxy that wants a password": {func(t *testing.T) (*node.CloudWatch, []string) {
			cw, _, p := proxied(t, node.ProxyConfig{User: "node", Password: "secret"})
			return cw, append(p.Env(), "HTTPS_PROXY="+p.URL())
		}, "give its user and password in HTTPS_PROXY, as http://user:password@host:port"},
	} {
		t.Run(name, func(t *testing.T) {
			cw, env := test.start(t)
			h, err := startHost(t, host.Config{Env: append(cw.Env(), env...), StorageDir: t.TempDir(), Grace: 200 * time.Millisecond, Outputs: []host.Output{{
				Workers: 4, Properties: options(cw, "retry_limit", "no_limits"),
			}}})
			require.NoError(t, err)
			const chunks = 10
			for n := range chunks {
				require.NoError(t, h.Send(tagOfA, record(fmt.Sprint("#", n))))
			}
			require.NoError(t, h.Until(within(t, time.Minute), func(st host.Stats) bool { return st.Retries >= chunks }))
			require.NoError(t, h.UntilLog(within(t, time.Minute), "CloudWatch Logs is out of reach"))
			require.NoError(t, h.UntilLog(within(t, time.Minute), test.want))
			sum, err := h.Stop(within(t, time.Minute))
			require.NoError(t, err)
			require.Equal(t, chunks, sum.KeptInStorage, "none is dropped")
		})
	}
}

// The command's clients of STS, IAM, KMS, EKS and CloudWatch Logs are of the same kind.
func TestTheCommandOverAPeerThatPrefersHTTP2(t *testing.T) {
	cw, s := standIn(t, fakeaws.Config{Protocols: bothVersions()})
	s.Account("123456789012").AddCluster("c1")
	for _, args := range [][]string{
		{"bootstrap", "--writer-pod-identity=logs/eks-tenant-logs-fluent-bit"},
		{"apply", trusting, "--trust-pod-identity=$(namespace)/logs", "--key-per-tenant", "--namespace", "tenant-acme=uid-1"},
	} {
		said, code := provision(t, cw, args...)
		require.Zero(t, code, "%s: %+v", args[0], said)
	}
	services := map[string]int{}
	for k, n := range s.Calls() {
		service, _, other := strings.Cut(k.Operation, ":")
		switch {
		case strings.HasPrefix(k.Operation, "GetCallerIdentity"):
			service = "sts"
		case !other:
			service = "logs"
		}
		if k.Result == "OK" {
			services[service] += n
		}
	}
	for _, service := range []string{"sts", "iam", "kms", "eks", "logs"} {
		require.Positive(t, services[service], "%s was not asked: %v", service, s.Calls())
	}
}
