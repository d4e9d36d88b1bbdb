package output

import (
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/tinylib/msgp/msgp"

	"github.com/eks-tenant-logs/eks-tenant-logs/internal/awsclient"
	"github.com/eks-tenant-logs/eks-tenant-logs/internal/fakeaws"
)

type logText struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logText) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logText) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func from(m map[string]string) func(string) string { return func(k string) string { return m[k] } }

func instance(t *testing.T, cfg fakeaws.Config, env Environment, opts ...string) (*Instance, *fakeaws.Server, *logText) {
	t.Helper()
	s := fakeaws.New(cfg)
	i, log := at(t, s, env, opts...)
	return i, s, log
}

// at makes an instance that talks to this server.
func at(t *testing.T, s *fakeaws.Server, env Environment, opts ...string) (*Instance, *logText) {
	t.Helper()
	for k, v := range map[string]string{
		"AWS_ACCESS_KEY_ID": fakeaws.DefaultAccessKeyID, "AWS_SECRET_ACCESS_KEY": fakeaws.DefaultSecretAccessKey, "AWS_SESSION_TOKEN": "",
		"AWS_PROFILE": "", "AWS_CONFIG_FILE": t.TempDir() + "/none", "AWS_SHARED_CREDENTIALS_FILE": t.TempDir() + "/none",
	} {
		t.Setenv(k, v)
	}
	url, err := s.Start("")
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, s.Close()) })
	m := map[string]string{"region": "us-east-1", "endpoint": url, "retention_check_delay": "0s"}
	for i := 0; i < len(opts); i += 2 {
		m[opts[i]] = opts[i+1]
	}
	if m["tenants_file"] != "" { // it may name roles
		m["sts_endpoint"] = url
	}
	o, err := ParseOptions(from(m))
	require.NoError(t, err)
	log := &logText{}
	env.Log = slog.New(slog.NewTextHandler(log, nil))
	i, err := New(context.Background(), o, env)
	require.NoError(t, err)
	return i, log
}

const tagA = "kube.var.log.pods.tenant-a_p_0c8f1f1e-9d3b-4b6a-8f5e-2f1d3c4b5a69.c.0.log"

func chunkOf(at time.Time, records ...map[string]any) []byte {
	var b []byte
	for _, r := range records {
		b = append(b, 0x92)
		b = msgp.AppendInt64(b, at.Unix())
		var err error
		if b, err = msgp.AppendIntf(b, r); err != nil {
			panic(err)
		}
	}
	return b
}

func TestDefaultsAreSafe(t *testing.T) {
	o, err := ParseOptions(from(nil))
	require.NoError(t, err)
	require.True(t, o.AutoCreateGroup)
	require.True(t, o.Compress)
	require.Equal(t, 365, o.RetentionDays)
	require.Equal(t, "tag", o.Identity)
	require.Equal(t, time.Minute, o.FlushTimeout)
}

func TestOptionsThatContradictEachOther(t *testing.T) {
	for name, test := range map[string]struct {
		opts map[string]string
		want []string
	}{
		"external id alone": {map[string]string{"external_id": "abc"}, []string{"external_id", "role_arn, which is not set"}},
		"sts alone":         {map[string]string{"sts_endpoint": "h"}, []string{"sts_endpoint", "neither of which is set"}},
		"stop, no storage":  {map[string]string{"on_full_volume": "stop"}, []string{"on_full_volume", "storage_path, which is not set"}},
		"FIPS and endpoint": {map[string]string{"use_fips": "on", "endpoint": "h"}, []string{"use_fips", "endpoint is set and would win"}},
		"registry, no file": {map[string]string{"tenant_source": "registry"}, []string{"tenant_source", "tenants_file, which is not set"}},
		"groups that meet":  {map[string]string{"platform_log_group": "/eks/tenants/p"}, []string{"platform_log_group", "lies inside a prefix of tenants"}},
	} {
		_, err := ParseOptions(from(test.opts))
		for _, w := range test.want {
			require.ErrorContains(t, err, w, name)
		}
	}
}

func TestOptionsOfOthersAndMisspeltOnesAreNotIgnored(t *testing.T) {
	_, err := ParseOptions(from(map[string]string{
		"log_group_name": "x", "log_group_template": "y", "logretentiondays": "7", "log-key": "log", "tenant_file": "f", "region": "us-east-1",
	}))
	require.EqualError(t, err, strings.Join([]string{
		`log_group_name: "x" is not allowed: a tenant's group is log_group_prefix and the tenant's name; what is no tenant's goes to platform_log_group: remove it`,
		`log_group_template: "y" is not allowed: a group is never made of what a record says; it is log_group_prefix and the tenant's name: remove it`,
		`tenant_file: "f" is not allowed: it is called tenants_file here`,

		`log-key: "log" is not allowed: it is called log_key here`,
		`logretentiondays: "7" is not allowed: it is called log_retention_days here`,
	}, "\n"))
}

var update = flag.Bool("update", false, "write the generated part of docs/options.md")

// optionsTable is the generated part of docs/options.md.
func optionsTable() string {
	var b strings.Builder
	b.WriteString("| option | default | allowed | meaning |\n| --- | --- | --- | --- |\n")
	cell := func(s string) string { return strings.NewReplacer("|", "\\|", "<", "&lt;").Replace(s) }
	for _, s := range specs {
		value := ""
		if s.value != "" {
			value = "`" + s.value + "`"
		}
		fmt.Fprintf(&b, "| `%s` | %s | %s | %s |\n", s.name, value, cell(s.allowed), cell(s.meaning))
	}
	return b.String()
}

// The table of docs/options.md is made from the code; a stale one fails here.
func TestEveryOptionIsDocumented(t *testing.T) {
	const file, from, to = "../../docs/options.md", "-update` -->\n", "<!-- end of options -->"
	page, err := os.ReadFile(file)
	require.NoError(t, err)
	head, rest, ok := strings.Cut(string(page), from)
	require.True(t, ok)
	table, tail, ok := strings.Cut(rest, to)
	require.True(t, ok)
	if *update {
		require.NoError(t, os.WriteFile(file, []byte(head+from+optionsTable()+to+tail), 0o644))
		return
	}
	require.Equal(t, optionsTable(), table, "stale: run go test ./internal/output -run Documented -update")
}

func TestTheTenantsFileSettlesRetentionKeyAndEMF(t *testing.T) {
	file := t.TempDir() + "/tenants.yaml"
	require.NoError(t, os.WriteFile(file, []byte(`
version: 1
tenants:
  a: {retentionDays: 731, emf: true, kmsKeyArn: "arn:aws:kms:us-east-1:123456789012:key/1234abcd-12ab-34cd-56ef-1234567890ab"}
`), 0o600))
	i, s, _ := instance(t, fakeaws.Config{}, Environment{Node: "n1"}, "tenants_file", file)
	now := time.Now()
	record := map[string]any{"log": "x", "_aws": map[string]any{"Timestamp": 1}}
	require.Equal(t, OK, i.Flush(context.Background(), tagA, chunkOf(now, record), 0))
	require.Equal(t, OK, i.Flush(context.Background(), strings.Replace(tagA, "tenant-a", "tenant-b", 1), chunkOf(now, record), 0))
	require.Eventually(t, func() bool {
		return i.accounts.of(awsclient.Role{}).groups.Open() == 0 && s.CallCount("TagResource") == 2
	}, 30*time.Second, 5*time.Millisecond)
	i.Close()
	groups := s.Groups()
	require.Equal(t, 731, groups[0].RetentionInDays)
	require.Contains(t, groups[0].KMSKeyID, "1234abcd")
	require.Equal(t, 365, groups[1].RetentionInDays)
	require.Empty(t, groups[1].KMSKeyID)
	require.Contains(t, s.Events("/eks/tenants/a", "tenant-a/p/c")[0].Message, `"_aws":{`)
	require.Contains(t, s.Events("/eks/tenants/b", "tenant-b/p/c")[0].Message, `"_aws_claimed":{`)
	require.Contains(t, s.Events("/eks/tenants/b", "tenant-b/p/c")[0].Message, `"host":"n1"`)
}

func TestATenantsFileThatIsWrongIsRefusedAtStart(t *testing.T) {
	file := t.TempDir() + "/tenants.yaml"
	for yaml, want := range map[string]string{
		"version: 1\ntenants: {a: {quarantineKmsKeyArn: x}}": "tenants.a.quarantineKmsKeyArn",
		"version: 1\nunknown: 1":                             "tenants_file: " + file,
	} {
		require.NoError(t, os.WriteFile(file, []byte(yaml), 0o600))
		o, err := ParseOptions(from(map[string]string{"region": "us-east-1", "tenants_file": file}))
		require.NoError(t, err)
		_, err = New(context.Background(), o, Environment{Log: slog.New(slog.DiscardHandler)})
		require.ErrorContains(t, err, want)
	}
}

// bring flushes a chunk of several destinations until it is taken, as Fluent Bit does: on a busy machine creating one of
// the streams may take longer than a flush waits while others are served.
func bring(t *testing.T, i *Instance, tag string, data []byte) {
	t.Helper()
	require.Eventually(t, func() bool { return i.Flush(context.Background(), tag, data, 0) == OK }, 2*time.Minute, 10*time.Millisecond)
}

func TestRecordModeKeepsBatchesPerStream(t *testing.T) {
	i, s, log := instance(t, fakeaws.Config{}, Environment{}, "identity", "record")
	var records []map[string]any
	const n, pods = 3000, 6
	for r := range n {
		records = append(records, map[string]any{"log": fmt.Sprint(r), "kubernetes": map[string]any{
			"namespace_name": fmt.Sprintf("tenant-%d", r%pods), "pod_name": "p", "container_name": "c", "labels": map[string]any{"app": "x"},
		}})
	}
	records = append(records, map[string]any{"log": "without"}, map[string]any{"kubernetes": map[string]any{"namespace_name": "../x"}})
	bring(t, i, "any.tag", chunkOf(time.Now(), records...))
	i.Close()
	require.LessOrEqual(t, s.CallCount("PutLogEvents"), 2*(pods+1), "one for each stream, and one each that did not find it")
	for p := range pods {
		events := s.Events(fmt.Sprintf("/eks/tenants/%d", p), fmt.Sprintf("tenant-%d/p/c", p))
		require.Len(t, events, n/pods)
		require.Contains(t, events[0].Message, `"labels":{"app":"x"}`)
	}
	require.Len(t, s.Events("/eks/platform", "unrouted"), 2)
	require.Contains(t, log.String(), "identity is record")
}

// In `identity tag` a record decides nothing, however whole and right its claim looks.
func TestInTagModeNoRecordChoosesItsGroup(t *testing.T) {
	i, s, log := instance(t, fakeaws.Config{}, Environment{Node: "n1"})
	victim := map[string]any{
		"namespace_name": "tenant-b", "pod_name": "p", "container_name": "c",
		"pod_id": "0c8f1f1e-9d3b-4b6a-8f5e-2f1d3c4b5a69", "docker_id": strings.Repeat("a", 64), "host": "n1",
	}
	for n := range 3 { // the second and third by what the first left behind
		require.Equal(t, OK, i.Flush(context.Background(), tagA, chunkOf(time.Now(), map[string]any{"log": fmt.Sprint(n), "kubernetes": victim}), 0))
	}
	i.Close()
	groups := s.Groups()
	require.Len(t, groups, 1)
	require.Equal(t, "/eks/tenants/a", groups[0].Name)
	events := s.Events("/eks/tenants/a", "tenant-a/p/c")
	require.Len(t, events, 3)
	var m map[string]map[string]any
	require.NoError(t, json.Unmarshal([]byte(strings.Replace(events[0].Message, `"log":"0",`, "", 1)), &m))
	require.Equal(t, "tenant-a", m["kubernetes"]["namespace_name"])
	require.Equal(t, "tenant-b", m["kubernetes_claimed"]["namespace_name"])
	require.Contains(t, log.String(), "records name another source than the file they were read from")
}

func TestInRecordModeTheHostIsTheRecords(t *testing.T) {
	i, s, _ := instance(t, fakeaws.Config{}, Environment{Node: "aggregator"}, "identity", "record")
	claim := func(host string) map[string]any {
		m := map[string]any{"namespace_name": "tenant-a", "pod_name": "p", "container_name": "c"}
		if host != "" {
			m["host"] = host
		}
		return map[string]any{"kubernetes": m}
	}
	require.Equal(t, OK, i.Flush(context.Background(), "any", chunkOf(time.Now(), claim("n1"), claim("n2"), claim("")), 0))
	i.Close()
	events := s.Events("/eks/tenants/a", "tenant-a/p/c")
	require.Len(t, events, 3)
	require.Contains(t, events[0].Message, `"host":"n1"`)
	require.Contains(t, events[1].Message, `"host":"n2"`)
	require.NotContains(t, events[2].Message, "host")
}

// Whoever sends the records must not fill our memory, nor make one claim pass for
// another.
func TestWhatNamesNoPodIsNotRemembered(t *testing.T) {
	i, s, _ := instance(t, fakeaws.Config{}, Environment{}, "identity", "record")
	var records []map[string]any
	add := func(ns, pod, container string) {
		records = append(records, map[string]any{"kubernetes": map[string]any{"namespace_name": ns, "pod_name": pod, "container_name": container}})
	}
	for n := range 100 {
		add(strings.Repeat("x", 64+n), "p", "c")
		add(fmt.Sprintf("Tenant-%d", n), "p", "c")
		add("tenant-a", strings.Repeat("p", 254+n), "c")
	}
	add("tenant-a\x00p", "c", "")
	add("tenant-a", "p\x00c", "")
	add("tenant-a", "p", "c")
	bring(t, i, "any", chunkOf(time.Now(), records...))
	require.Equal(t, 1, i.view.Load().claims.Len())
	i.Close()
	require.Len(t, s.Events("/eks/platform", "unrouted"), 302)
	require.Len(t, s.Events("/eks/tenants/a", "tenant-a/p/c"), 1)
}

func TestTheEffectiveConfigurationIsWhole(t *testing.T) {
	o, err := ParseOptions(from(map[string]string{
		"region": "us-east-1", "profile": "p", "role_arn": "arn:aws:iam::123456789012:role/x", "external_id": "secret", "sts_endpoint": "sts.example.com",
		"log_group_tags": "b=2,a=1", "extra_user_agent": "x/1",
	}))
	require.NoError(t, err)
	said := map[string]string{}
	for _, a := range o.Effective() {
		said[a.Key] = a.Value.String()
	}
	for _, s := range specs {
		switch s.name {
		case "endpoint", "tenants_file", "tag_prefix", "log_key", "kms_key_id": // empty here
		case "state_path", "storage_path", "metrics_listen": // empty here, too
		default:
			require.Contains(t, said, s.name)
		}
	}
	require.Equal(t, "a=1,b=2", said["log_group_tags"])
	require.Equal(t, "set", said["external_id"])
}

func TestAnUnroutedLineSaysWhyAndWhere(t *testing.T) {
	i, s, _ := instance(t, fakeaws.Config{}, Environment{})
	require.Equal(t, OK, i.Flush(context.Background(), "kube.var.log.pods.nonsense", chunkOf(time.Now(), map[string]any{"log": "x"}), 0))
	i.Close()
	events := s.Events("/eks/platform", "unrouted")
	require.Len(t, events, 1)
	var m map[string]any
	require.NoError(t, json.Unmarshal([]byte(events[0].Message), &m))
	require.Equal(t, map[string]any{"unrouted": "layout", "tag": "kube.var.log.pods.nonsense"}, m["_tenantlogs"])
	require.NotContains(t, m, "kubernetes")
}

func TestAChunkThatGoesBackIsToldOnceInAWhile(t *testing.T) {
	i, s, log := instance(t, fakeaws.Config{}, Environment{})
	s.SetIntercept(func(c fakeaws.Call) error {
		return &fakeaws.APIError{Code: "AccessDeniedException", Message: "User is not authorized to perform logs:" + c.Operation}
	})
	for range 5 {
		require.Equal(t, Retry, i.Flush(context.Background(), tagA, chunkOf(time.Now(), map[string]any{"log": "content of a record"}), 0))
	}
	i.Close()
	require.Equal(t, 1, strings.Count(log.String(), "chunk not delivered"))
	require.Contains(t, log.String(), "class=denied")
	require.Contains(t, log.String(), "/eks/tenants/a")
	require.NotContains(t, log.String(), "content of a record")
}

func TestAGroupThatKeepsLessThanFourteenDays(t *testing.T) {
	i, s, _ := instance(t, fakeaws.Config{}, Environment{}, "log_retention_days", "3")
	require.Equal(t, OK, i.Flush(context.Background(), tagA, chunkOf(time.Now().Add(-4*24*time.Hour), map[string]any{"log": "x"}), 0))
	i.Close()
	require.Contains(t, s.Events("/eks/tenants/a", "tenant-a/p/c")[0].Message, `"time_reason":"too_old"`)
}

func TestAnEmptyChunkIsNothingToDo(t *testing.T) {
	i, s, _ := instance(t, fakeaws.Config{}, Environment{})
	require.Equal(t, OK, i.Flush(context.Background(), tagA, nil, 0))
	i.Close()
	require.Zero(t, s.CallCount("PutLogEvents"))
}
