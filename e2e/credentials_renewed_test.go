package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/eks-tenant-logs/eks-tenant-logs/e2e/host"
	"github.com/eks-tenant-logs/eks-tenant-logs/e2e/node"
	"github.com/eks-tenant-logs/eks-tenant-logs/internal/fakeaws"
)

// Promises 3, 4 and 5 while the credentials change: no line is lost, none is there twice, and
// nothing is restarted.

// replaceFile replaces a file as the kubelet and careful agents do.
func replaceFile(t *testing.T, path, text string) {
	t.Helper()
	require.NoError(t, os.WriteFile(path+".new", []byte(text), 0o600))
	require.NoError(t, os.Rename(path+".new", path))
}

func credentialsFile(c fakeaws.Credentials) string {
	return fmt.Sprintf("[default]\naws_access_key_id = %s\naws_secret_access_key = %s\n", c.AccessKeyID, c.SecretAccessKey)
}

// refusedCalls is how many calls were refused for their credentials.
func refusedCalls(s *fakeaws.Server) (n int) {
	for k, count := range s.Calls() {
		switch k.Result {
		case "UnrecognizedClientException", "ExpiredTokenException", "AccessDeniedException":
			n += count
		}
	}
	return n
}

const writerRole = "arn:aws:iam::123456789012:role/writer"

// renewing is one way of having credentials, and of losing them.
type renewing struct {
	env     []string
	options []string
	// end makes the present credentials worthless. renew, if set, makes good ones available, once
	// calls have been refused.
	end, renew func()
	// once says that the bound allows no second time within this test.
	once bool
}

// waysToRenew are those that are tried, each on a stand-in of its own.
var waysToRenew = map[string]func(*testing.T, *node.CloudWatch, *fakeaws.Server) renewing{
	"the shared credentials file is replaced": func(t *testing.T, _ *node.CloudWatch, s *fakeaws.Server) renewing {
		key, file := rotatedKey(t, s)
		return renewing{env: []string{"AWS_SHARED_CREDENTIALS_FILE=" + file}, end: func() {
			next, err := s.RotateKey(key.AccessKeyID)
			require.NoError(t, err)
			replaceFile(t, file, credentialsFile(next))
			s.RetireKey(key.AccessKeyID)
			key = next
		}}
	},
	"the shared credentials file is replaced late": func(t *testing.T, _ *node.CloudWatch, s *fakeaws.Server) renewing {
		key, file := rotatedKey(t, s)
		var next fakeaws.Credentials
		return renewing{env: []string{"AWS_SHARED_CREDENTIALS_FILE=" + file}, end: func() {
			var err error
			next, err = s.RotateKey(key.AccessKeyID)
			require.NoError(t, err)
			s.RetireKey(key.AccessKeyID)
			key = next
		}, renew: func() { replaceFile(t, file, credentialsFile(next)) }}
	},
	"a role's sessions expire early": func(_ *testing.T, cw *node.CloudWatch, s *fakeaws.Server) renewing {
		return renewing{options: []string{"role_arn", writerRole, "sts_endpoint", cw.Endpoint}, end: func() { s.ExpireSessions(writerRole) }}
	},
	"a role's sessions are revoked": func(_ *testing.T, cw *node.CloudWatch, s *fakeaws.Server) renewing {
		return renewing{options: []string{"role_arn", writerRole, "sts_endpoint", cw.Endpoint}, end: func() { s.RevokeSessions(writerRole) }, once: true}
	},
	"the web identity token is rotated late": func(t *testing.T, cw *node.CloudWatch, s *fakeaws.Server) renewing {
		file := filepath.Join(t.TempDir(), "token")
		token := func(life time.Duration) {
			replaceFile(t, file, s.WebIdentityToken("https://oidc.example/1", "system:serviceaccount:logs:fluent-bit", "sts.amazonaws.com", life))
		}
		token(time.Hour)
		return renewing{
			env: []string{
				"AWS_ACCESS_KEY_ID=", "AWS_SECRET_ACCESS_KEY=", "AWS_ROLE_ARN=" + writerRole, "AWS_WEB_IDENTITY_TOKEN_FILE=" + file,
				"AWS_ENDPOINT_URL_STS=" + cw.Endpoint,
			},
			end: func() {
				token(-time.Second)
				s.ExpireSessions(writerRole)
			},
			renew: func() { token(time.Hour) },
		}
	},
	"the agent of Pod Identity restarts": func(t *testing.T, _ *node.CloudWatch, s *fakeaws.Server) renewing {
		file := filepath.Join(t.TempDir(), "token")
		replaceFile(t, file, "token-1")
		agent, err := s.StartPodIdentityAgent(writerRole, "token-1")
		require.NoError(t, err)
		t.Cleanup(func() { require.NoError(t, agent.Stop()) })
		n := 1
		return renewing{
			env: []string{
				"AWS_ACCESS_KEY_ID=", "AWS_SECRET_ACCESS_KEY=", "AWS_CONTAINER_CREDENTIALS_FULL_URI=" + agent.URL(),
				"AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE=" + file,
			},
			end: func() {
				require.NoError(t, agent.Stop())
				s.ExpireSessions(writerRole)
			},
			renew: func() {
				n++
				agent.Expect(fmt.Sprint("token-", n))
				require.NoError(t, agent.Start())
				replaceFile(t, file, fmt.Sprint("token-", n))
			},
		}
	},
}

// rotatedKey is a user's key, and the file that it is in.
func rotatedKey(t *testing.T, s *fakeaws.Server) (fakeaws.Credentials, string) {
	t.Helper()
	key, err := s.Account("123456789012").AddUser("agent")
	require.NoError(t, err)
	file := filepath.Join(t.TempDir(), "credentials")
	replaceFile(t, file, credentialsFile(key))
	return key, file
}

// shipping is an engine that runs while a test says what the node's pods log.
type shipping struct {
	t    *testing.T
	s    *fakeaws.Server
	log  *logBuffer
	send func(tenant int, text string)
	want map[string]int
	stop func()
}

// ship starts an engine.
func ship(t *testing.T, e node.Engine, s *fakeaws.Server, env []string, opts map[string]string) *shipping {
	t.Helper()
	x := &shipping{t: t, s: s, log: newLog(t), want: map[string]int{}}
	if e.Name() == "host" {
		opts["retry_limit"] = "no_limits"
		h, err := startHost(t, host.Config{Env: env, Stderr: x.log, Outputs: []host.Output{{Workers: 4, Properties: opts}}})
		require.NoError(t, err)
		x.send = func(tenant int, text string) {
			require.NoError(t, h.Send(strings.Replace(tagOfA, "tenant-a", fmt.Sprint("tenant-t", tenant), 1), record(text)))
		}
		x.stop = func() {
			_, err := h.Stop(within(t, time.Minute))
			require.NoError(t, err)
		}
		return x
	}
	n := newNode(t)
	over, ended := make(chan struct{}), make(chan error, 1)
	go func() {
		ended <- e.Ship(within(t, 3*time.Minute), node.Run{Node: n, Plugin: pluginPath(t), Env: env, Log: x.log, Options: opts, Until: func() bool {
			select {
			case <-over:
				return true
			default:
				return false
			}
		}})
	}()
	x.send = func(tenant int, text string) {
		require.NoError(t, n.Write(node.Pod{Namespace: fmt.Sprint("tenant-t", tenant), Name: "p", Container: "c"}, text))
	}
	x.stop = func() {
		close(over)
		require.NoError(t, <-ended)
	}
	return x
}

// tenantsShipping is how many tenants log.
const tenantsShipping = 5

// lines has each tenant log that many.
func (x *shipping) lines(each int) {
	x.t.Helper()
	for range each {
		for tenant := range tenantsShipping {
			number := fmt.Sprintf("#%d.%d", tenant, len(x.want))
			x.want[number] = 1
			x.send(tenant, "a line "+number)
		}
	}
}

// arrived waits until what was logged has arrived.
func (x *shipping) arrived() {
	x.t.Helper()
	require.Eventually(x.t, arrived(x.s, len(x.want)), time.Minute, 5*time.Millisecond)
}

func TestNothingLostNothingTwiceWhileCredentialsAreRenewed(t *testing.T) {
	for name, way := range waysToRenew {
		t.Run(name, func(t *testing.T) {
			onEngines(t, func(t *testing.T, e node.Engine) {
				cw, s := standIn(t, fakeaws.Config{})
				w := way(t, cw, s)
				env := cw.Env()
				if len(w.env) > 0 {
					env = append(append(env, "AWS_ACCESS_KEY_ID=", "AWS_SECRET_ACCESS_KEY="), w.env...)
				}
				listen, err := node.FreeAddress()
				require.NoError(t, err)
				x := ship(t, e, s, env, options(cw, append(w.options, "metrics_listen", listen)...))
				for range 2 {
					x.lines(20)
					x.arrived()
					w.end()
					before := refusedCalls(s)
					x.lines(20)
					if w.renew != nil {
						require.Eventually(t, func() bool { return refusedCalls(s) >= before+3 }, time.Minute, time.Millisecond)
						w.renew()
					}
					x.lines(20)
					x.arrived()
					if w.once {
						break
					}
				}
				require.Eventually(t, func() bool { return strings.Contains(x.log.String(), "AWS credentials were renewed") }, time.Minute, time.Millisecond)
				told := metric(listen, "tenantlogs_credential_renewals_total")
				x.stop()
				requireOnce(t, x.want, numbers(t, s))
				require.NotEmpty(t, told)
				for _, g := range s.Groups() {
					require.True(t, strings.HasPrefix(g.Name, "/eks/tenants/"), g.Name)
				}
				t.Logf("%d lines, none lost, none twice; %d calls were refused, and credentials asked for %s times", len(x.want), refusedCalls(s), told)
			})
		})
	}
}

// The sessions of one tenant's role end early: its lines are in its own group, none is
// quarantined, and the others' sessions are left alone.
func TestTheSessionOfOneTenantsRoleIsReplacedAlone(t *testing.T) {
	for how, end := range map[string]func(*fakeaws.Server, string) int{
		"expired": (*fakeaws.Server).ExpireSessions, "revoked": (*fakeaws.Server).RevokeSessions,
	} {
		t.Run(how, func(t *testing.T) {
			onEngines(t, func(t *testing.T, e node.Engine) {
				cw, s := standIn(t, fakeaws.Config{})
				role := func(n int) string { return fmt.Sprintf("arn:aws:iam::21098765432%d:role/logs", n) }
				file := filepath.Join(t.TempDir(), "tenants.yaml")
				require.NoError(t, os.WriteFile(file, fmt.Appendf(nil, "version: 1\ntenants: {t3: {roleArn: %q, onFailure: quarantine}, t4: {roleArn: %q, onFailure: quarantine}}\n", role(3), role(4)), 0o600))
				x := ship(t, e, s, cw.Env(), options(cw, "tenants_file", file, "sts_endpoint", cw.Endpoint))
				x.lines(20)
				x.arrived()
				require.Equal(t, 1, end(s, role(3)))
				x.lines(20)
				x.arrived()
				x.stop()
				requireOnce(t, x.want, numbers(t, s))
				for _, g := range s.Groups() {
					require.True(t, strings.HasPrefix(g.Name, "/eks/tenants/"), g.Name)
				}
				assumed := map[string]int{}
				for _, r := range s.AssumedRoles() {
					assumed[r.RoleARN]++
				}
				require.Equal(t, map[string]int{role(3): 2, role(4): 1}, assumed)
			})
		})
	}
}

// What STS hands out for one tenant's role is refused for good: that is the tenant's own failure.
func TestARoleWhoseSessionsAreRefusedIsItsTenantsFailure(t *testing.T) {
	onEngines(t, func(t *testing.T, e node.Engine) {
		cw, s := standIn(t, fakeaws.Config{})
		const role = "arn:aws:iam::210987654321:role/logs"
		s.SetIntercept(func(c fakeaws.Call) error {
			if strings.Contains(c.PrincipalARN, ":210987654321:") && c.LogGroup != "" {
				return &fakeaws.APIError{Code: "ExpiredTokenException", Message: "The security token included in the request is expired"}
			}
			return nil
		})
		file := filepath.Join(t.TempDir(), "tenants.yaml")
		require.NoError(t, os.WriteFile(file, fmt.Appendf(nil, "version: 1\ntenants: {t3: {roleArn: %q, onFailure: quarantine}}\n", role), 0o600))
		x := ship(t, e, s, cw.Env(), options(cw, "tenants_file", file, "sts_endpoint", cw.Endpoint))
		x.lines(20)
		x.arrived()
		x.stop()
		requireOnce(t, x.want, numbers(t, s))
		require.EqualValues(t, 20, events(s, "/eks/quarantine/t3"))
		require.EqualValues(t, 20, events(s, "/eks/tenants/t4"))
		require.LessOrEqual(t, len(s.AssumedRoles()), 8, "STS is not asked for each call")
	})
}

// events is how many a group has.
func events(s *fakeaws.Server, group string) int64 {
	for _, g := range s.Groups() {
		if g.Name == group {
			return g.Events
		}
	}
	return 0
}
