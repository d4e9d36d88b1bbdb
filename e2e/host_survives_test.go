package e2e

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/tinylib/msgp/msgp"

	"github.com/eks-tenant-logs/eks-tenant-logs/e2e/host"
	"github.com/eks-tenant-logs/eks-tenant-logs/internal/fakeaws"
)

// Promise 8: no input, configuration or answer crashes or blocks the host. These
// go through our own host, which can hand over any bytes.

func startHost(t *testing.T, cfg host.Config) (*host.Host, error) {
	t.Helper()
	cfg.Plugin = pluginPath(t)
	cfg.Loader = built.loader
	cfg.Retry = host.Retry{Base: 10 * time.Millisecond, Cap: 200 * time.Millisecond}
	cfg.KeepPoisoned = 64
	return host.Start(t.Context(), cfg) // the host lives as long as the test
}

const tagOfA = "kube.var.log.pods.tenant-a_p_0c8f1f1e-9d3b-4b6a-8f5e-2f1d3c4b5a69.c.0.log"

func record(text string) []byte {
	body := msgp.AppendMapHeader(nil, 1)
	body = msgp.AppendString(msgp.AppendString(body, "log"), text)
	return host.AppendRecord(nil, host.V2, time.Now(), body)
}

func TestTheHostSurvivesAnyBytesAndTags(t *testing.T) {
	cw, s := standIn(t, fakeaws.Config{})
	h, err := startHost(t, host.Config{
		Outputs: []host.Output{{Workers: 4, Properties: options(cw, "retry_limit", "no_limits")}}, Env: cw.Env(),
	})
	require.NoError(t, err)
	rng := rand.New(rand.NewPCG(3, 4))
	good := record("good #1")
	chunks := [][]byte{nil, {0xc1}, {0x92}, {0xdf, 0xff, 0xff, 0xff, 0xff}, []byte("not MessagePack at all")}
	for range 300 {
		b := append([]byte(nil), good...)
		for range 1 + rng.IntN(4) {
			b[rng.IntN(len(b))] = byte(rng.Uint32())
		}
		chunks = append(chunks, b[:rng.IntN(len(b)+1)])
	}
	tags := []string{tagOfA, "", "kube.", strings.Repeat("a", 5000), "kube.var.log.pods.\xff\xfe", "kube.var.log.containers.:*"}
	for i, c := range chunks {
		if len(c) > 0 {
			require.NoError(t, h.Send(tags[i%len(tags)], c))
		}
	}
	require.NoError(t, h.Send(tagOfA, append(append([]byte(nil), good...), 0xc1, 0xff)))
	require.NoError(t, h.Drain(within(t, time.Minute)))
	sum, err := h.Stop(within(t, time.Minute))
	require.NoError(t, err)
	require.Equal(t, sum.Chunks, sum.OK, "every chunk ends as OK: what can't be read never will be")
	require.Zero(t, sum.Errors+sum.LostAtExit)
	found := false
	for _, e := range s.Events("/eks/tenants/a", "tenant-a/p/c") {
		found = found || strings.Contains(e.Message, "good #1")
	}
	require.True(t, found, "what precedes the damage is delivered")
	told := 0
	for _, l := range h.Logs() {
		if strings.Contains(l.Text, "a chunk could not be read to its end") {
			require.Contains(t, l.Text, "offset=")
			require.Contains(t, l.Text, "tag=")
			told++
		}
	}
	require.Positive(t, told)
}

// Every wrong option is named, with its value and what is allowed, and the start refused.
func TestTheHostIsToldAllThatIsWrongWithTheOptions(t *testing.T) {
	_, err := startHost(t, host.Config{Outputs: []host.Output{{Workers: 1, Properties: map[string]string{
		"region": "nowhere", "log_retention_days": "366", "identity": "guess", "compress": "zstd", "flush_timeout": "1h",
		"tag_prefix": "kube.", "log_stream_template": "$(namespace)$(pod)", "on_failure": "ignore", "max_in_flight": "0",
		"role_arn": "arn:aws:iam::1:role/x", "endpoint": "http://x/y", "auto_create_group": "perhaps", "log_group_tags": "aws:x=1",
	}}}})
	var start *host.StartError
	require.ErrorAs(t, err, &start)
	var text strings.Builder
	for _, l := range start.Logs {
		text.WriteString(l.Text + "\n")
	}
	for _, want := range []string{
		`region: "nowhere" is not allowed: give an AWS region such as us-east-1`,
		`log_retention_days: "366" is not allowed: give a number of days CloudWatch Logs knows: 1 3 5`,
		`identity: "guess" is not allowed: give tag or record`,
		`compress: "zstd" is not allowed: give gzip or none`,
		`flush_timeout: "1h" is not allowed: give a time from 1s to 5m`,
		`tag_prefix: "kube." is not allowed: "kube." does not end in pods. or containers.`,
		`log_stream_template: "$(namespace)$(pod)" is not allowed`,
		`on_failure: "ignore" is not allowed: give quarantine, hold or drop`,
		`max_in_flight: "0" is not allowed: give 1 to 256`,
		`role_arn: "arn:aws:iam::1:role/x" is not allowed`,
		`endpoint: "http://x/y" is not allowed: "http://x/y" is no endpoint: give a host, host:port, or https://host[:port]`,
		`auto_create_group: "perhaps" is not allowed: give on or off`,
		`log_group_tags: "aws:x=1" is not allowed`,
	} {
		require.Contains(t, text.String(), want)
	}
}

func TestTheHostIsWarnedOfWhatCannotWorkWell(t *testing.T) {
	cw, s := standIn(t, fakeaws.Config{})
	env := append(cw.Env(), "SECRET_MARKER=do-not-log")
	h, err := startHost(t, host.Config{
		HotReload: true, Env: env,
		Outputs: []host.Output{{Workers: 0, Properties: options(cw, "identity", "record")}},
	})
	require.NoError(t, err)
	kube := msgp.AppendMapHeader(nil, 2)
	kube = msgp.AppendString(msgp.AppendString(kube, "namespace_name"), "tenant-b")
	kube = msgp.AppendString(msgp.AppendString(kube, "pod_name"), "q")
	body := msgp.AppendMapHeader(nil, 2)
	body = msgp.AppendString(msgp.AppendString(body, "log"), "x")
	body = append(msgp.AppendString(body, "kubernetes"), kube...)
	chunk := host.AppendRecord(nil, host.V2, time.Now(), body)
	chunk = append(chunk, record("without a map")...)
	require.NoError(t, h.Send("forwarded", chunk))
	require.NoError(t, h.Drain(within(t, time.Minute)))
	_, err = h.Stop(within(t, time.Minute))
	require.NoError(t, err)
	require.Len(t, s.Events("/eks/tenants/b", "tenant-b/q/"), 1)
	require.Len(t, s.Events("/eks/platform", "unrouted"), 1)
	var text strings.Builder
	for _, l := range h.Logs() {
		text.WriteString(l.Text + "\n")
	}
	require.Contains(t, text.String(), "identity is record: the tenant is taken from each record's last kubernetes map")
	require.Contains(t, text.String(), "hot reload is on")
	require.Equal(t, 1, strings.Count(text.String(), "no workers are configured"))
	require.Equal(t, 1, strings.Count(text.String(), "effective configuration"))
	require.NotContains(t, text.String(), cw.SecretKey)
}

// Several [OUTPUT] sections are several plugins, each with its own options.
func TestTheHostRunsSeveralOutputsAtOnce(t *testing.T) {
	cw, s := standIn(t, fakeaws.Config{})
	outputs := make([]host.Output, 3)
	for i := range outputs {
		p := options(cw, "log_group_prefix", fmt.Sprintf("/o%d/tenants/", i), "platform_log_group", fmt.Sprintf("/o%d/platform", i),
			"quarantine_log_group_prefix", fmt.Sprintf("/o%d/quarantine/", i), "log_retention_days", []string{"365", "400", "545"}[i])
		outputs[i] = host.Output{Workers: i + 1, Properties: p}
	}
	h, err := startHost(t, host.Config{Outputs: outputs, Env: cw.Env()})
	require.NoError(t, err)
	for range 50 {
		require.NoError(t, h.Send(tagOfA, record("x")))
	}
	require.NoError(t, h.Drain(within(t, time.Minute)))
	retained := func() bool {
		for i, days := range []int{365, 400, 545} {
			if g, _ := group(s, fmt.Sprintf("/o%d/tenants/a", i)); g.RetentionInDays != days {
				return false
			}
		}
		return true
	}
	require.Eventually(t, retained, 30*time.Second, 10*time.Millisecond)
	_, err = h.Stop(within(t, time.Minute))
	require.NoError(t, err)
	for i := range outputs {
		g, _ := group(s, fmt.Sprintf("/o%d/tenants/a", i))
		require.EqualValues(t, 50, g.Events)
	}
}

// Promise 7: a flush returns, whatever CloudWatch does. The stand-in never answers;
// that the chunk comes back at all is the proof.
func TestTheHostGetsItsThreadsBackWhenCloudWatchHangs(t *testing.T) {
	cw, s := standIn(t, fakeaws.Config{})
	hang := make(chan struct{})
	s.SetIntercept(func(fakeaws.Call) error { <-hang; return errors.New("closed") })
	t.Cleanup(func() { close(hang) })
	h, err := startHost(t, host.Config{
		Outputs: []host.Output{{Workers: 2, Properties: options(cw, "flush_timeout", "1s", "retry_limit", "no_limits")}},
		Env:     cw.Env(), Grace: 100 * time.Millisecond, StorageDir: t.TempDir(),
	})
	require.NoError(t, err)
	for range 4 {
		require.NoError(t, h.Send(tagOfA, record("x")))
	}
	require.NoError(t, h.Until(within(t, time.Minute), func(st host.Stats) bool { return st.Flushed >= 6 }))
	sum, err := h.Stop(within(t, time.Minute))
	require.NoError(t, err)
	require.Equal(t, 4, sum.KeptInStorage)
	require.Zero(t, sum.OK)
}

// Lines follow the level of Fluent Bit's own log.
func TestTheHostHearsOnlyTheLevelItAskedFor(t *testing.T) {
	cw, _ := standIn(t, fakeaws.Config{})
	for level, want := range map[string]bool{"info": true, "error": false} {
		h, err := startHost(t, host.Config{
			LogLevel: level, Env: cw.Env(), Outputs: []host.Output{{Workers: 1, Properties: options(cw)}},
		})
		require.NoError(t, err)
		_, err = h.Stop(within(t, time.Minute))
		require.NoError(t, err)
		told := false
		for _, l := range h.Logs() {
			told = told || strings.Contains(l.Text, "effective configuration")
		}
		require.Equal(t, want, told, level)
	}
}

// What is the configuration's fault is refused at start, by a line that names the
// option, its value and what is allowed.
func TestTheHostIsRefusedAConfigurationThatCannotWork(t *testing.T) {
	dir := t.TempDir()
	file := func(name, content string) string {
		path := filepath.Join(dir, name)
		require.NoError(t, os.WriteFile(path, []byte(content), 0o600))
		return path
	}
	broken := file("broken.yaml", "version: [")
	clash := file("clash.yaml", "version: 1\ntenants: {a: {namespaces: [x]}, b: {namespaces: [x]}}")
	hidden := file("hidden.yaml", "version: 1\ntenants: {a: {namespaces: [team-a]}}")
	good := file("good.yaml", "version: 1\ntenants: {a: {}}")
	region := []string{"region", "us-east-1"}
	for name, test := range map[string]struct {
		options []string
		want    string
	}{
		"no region":             {nil, "region is not set: set the option region, or AWS_REGION in the environment"},
		"tenants_file missing":  {append(region, "tenants_file", dir+"/none"), "tenants_file: failed to read it: open " + dir + "/none"},
		"tenants_file broken":   {append(region, "tenants_file", broken), "tenants_file: " + broken + ": not a tenants file"},
		"tenants_file clashing": {append(region, "tenants_file", clash), "x is also tenant \"a\"'s: a namespace has one tenant"},
		"clash with the rule":   {append(region, "tenants_file", hidden), "namespace tenant-a would get it by namespace_prefix"},
		"registry, no file":     {append(region, "tenant_source", "registry"), `tenant_source: "registry" is not allowed: the registry is read from tenants_file, which is not set`},
		"group prefix":          {append(region, "log_group_prefix", "/eks/tenants"), "log_group_prefix"},
		"group prefix illegal":  {append(region, "log_group_prefix", "/eks:tenants/"), "log_group_prefix"},
		"template variable":     {append(region, "log_stream_template", "$(pods)"), `log_stream_template: "$(pods)" is not allowed: "$(pods)" has the unknown variable "$(pods)": use $(node)`},
		"core's template":       {append(region, "log_stream_template", "$kubernetes['pod_name']"), "has a $ that begins no variable"},
		"EMF, nobody may":       {append(region, "log_format", "json/emf", "tenants_file", good), "log_format: \"json/emf\" is not allowed: no tenant in tenants_file has `emf: true`"},
		"log_format":            {append(region, "log_format", "xml"), `log_format: "xml" is not allowed: give json or json/emf`},
		"late_events":           {append(region, "late_events", "keep"), `late_events: "keep" is not allowed: give restamp or drop`},
		"retention":             {append(region, "log_retention_days", "0"), `log_retention_days: "0" is not allowed: give a number of days CloudWatch Logs knows`},
		"check delay":           {append(region, "retention_check_delay", "2h"), `retention_check_delay: "2h" is not allowed: give a time from 0s to 1h`},
		"metrics_listen":        {append(region, "metrics_listen", "2021"), `metrics_listen: "2021" is not allowed: give host:port or :port`},
		"state_path":            {append(region, "state_path", good+"/x"), `state_path: "` + good + `/x" can't be written to: failed to make the folder: there is a file where the folder, or one above it, should be: remove the file`},
		"full volume of what":   {append(region, "on_full_volume", "stop"), `on_full_volume: "stop" is not allowed: it is the volume of storage_path, which is not set`},
		"plain http":            {append(region, "endpoint", "http://logs.example.com"), "would send logs unencrypted: use https"},
		"FIPS and endpoint":     {append(region, "use_fips", "on", "endpoint", "h"), "endpoint is set and would win; set one of them"},
		"profile unknown":       {append(region, "profile", "nobody"), "failed to load the AWS configuration"},
		"accessor as log_key":   {append(region, "log_key", "$kubernetes['pod_name']"), `log_key: "$kubernetes['pod_name']" is not allowed: it is used as it is, so no variable, template or record accessor ($k…) is replaced in it: give the name of one top-level field, such as log`},
		"$ and a name":          {append(region, "log_key", "$log"), `log_key: "$log" is not allowed: it is used as it is`},
		"accessor without a $":  {append(region, "log_key", "kubernetes['labels']"), `log_key: "kubernetes['labels']" is not allowed: it is used as it is`},
		"AWS plugin's template": {append(region, "platform_log_group", "/eks/$(kubernetes['namespace_name'])"), `platform_log_group: "/eks/$(kubernetes['namespace_name'])" is not allowed: it is used as it is`},
		"tag in a prefix":       {append(region, "log_group_prefix", "/eks/$TAG/"), `log_group_prefix: "/eks/$TAG/" is not allowed: it is used as it is`},
		"brace template":        {append(region, "quarantine_log_group_prefix", "/q/{namespace}/"), `quarantine_log_group_prefix: "/q/{namespace}/" is not allowed: it is used as it is`},
		"node in a path":        {append(region, "state_path", dir+"/$(node)"), `state_path: "` + dir + `/$(node)" is not allowed: it is used as it is`},
		"Tag_Regex's name":      {append(region, "tag_prefix", "kube.<namespace_name>.pods."), `tag_prefix: "kube.<namespace_name>.pods." is not allowed: it is used as it is`},
		"wildcard in a prefix":  {append(region, "tag_prefix", "kube.*.pods."), `tag_prefix: "kube.*.pods." is not allowed: a wildcard is not expanded`},
		"accessor in a role":    {append(region, "role_arn", "arn:aws:iam::123456789012:role/$kubernetes['namespace_name']"), `role/$kubernetes['namespace_name']" is not allowed: it is used as it is`},
		"accessor in a tag":     {append(region, "log_group_tags", "team=$kubernetes['namespace_name']"), `log_group_tags: "team=$kubernetes['namespace_name']" is not allowed: it is used as it is`},
		"tag AWS refuses":       {append(region, "log_group_tags", "team=a&b"), `log_group_tags: "team=a&b" is not allowed: at "team=a&b"; give key=value pairs`},
		"KMS key":               {append(region, "kms_key_id", "alias/x"), `kms_key_id: "alias/x" is not allowed: give arn:<partition>:kms:`},
	} {
		t.Run(name, func(t *testing.T) {
			properties := map[string]string{}
			for i := 0; i < len(test.options); i += 2 {
				properties[test.options[i]] = test.options[i+1]
			}
			env := []string{"AWS_REGION=", "AWS_DEFAULT_REGION=", "AWS_PROFILE=", "AWS_EC2_METADATA_DISABLED=true", "AWS_CONFIG_FILE=/dev/null", "AWS_SHARED_CREDENTIALS_FILE=/dev/null"}
			_, err := startHost(t, host.Config{Env: env, Outputs: []host.Output{{Workers: 1, Properties: properties}}})
			var start *host.StartError
			require.ErrorAs(t, err, &start)
			lines := 0
			for _, l := range start.Logs {
				if strings.Contains(l.Text, test.want) {
					lines++
				}
			}
			require.Equal(t, 1, lines, "%v", start.Logs)
		})
	}
}

// A $ that begins nothing is part of a name.
func TestTheHostTakesADollarThatIsNoAccessor(t *testing.T) {
	cw, s := standIn(t, fakeaws.Config{})
	h, err := startHost(t, host.Config{Env: cw.Env(), Outputs: []host.Output{{Workers: 1, Properties: options(cw, "log_key", "price.$")}}})
	require.NoError(t, err)
	body := msgp.AppendString(msgp.AppendString(msgp.AppendMapHeader(nil, 1), "price.$"), "12")
	require.NoError(t, h.Send(tagOfA, host.AppendRecord(nil, host.V2, time.Now(), body)))
	require.NoError(t, h.Drain(within(t, time.Minute)))
	_, err = h.Stop(within(t, time.Minute))
	require.NoError(t, err)
	events := s.Events("/eks/tenants/a", "tenant-a/p/c")
	require.Len(t, events, 1)
	require.Equal(t, "12", events[0].Message)
}

// What is the network's fault, or will be mended, is no reason not to start: chunks are
// kept, and one line in a while says why.
func TestTheHostGoesOnWhileNothingCanBeReached(t *testing.T) {
	for name, test := range map[string]struct {
		env     []string
		options map[string]string
		want    string
	}{
		"no credentials": {nil, map[string]string{"endpoint": "https://127.0.0.1:1"}, "class=credentials"},
		"refused": {[]string{"AWS_ACCESS_KEY_ID=x", "AWS_SECRET_ACCESS_KEY=y"},
			map[string]string{"endpoint": "https://127.0.0.1:1"}, "connection refused"},
		"no such host": {[]string{"AWS_ACCESS_KEY_ID=x", "AWS_SECRET_ACCESS_KEY=y"},
			map[string]string{"endpoint": "https://logs.invalid"}, "logs.invalid"},
	} {
		t.Run(name, func(t *testing.T) {
			test.options["region"], test.options["retry_limit"], test.options["flush_timeout"] = "us-east-1", "no_limits", "50s" // a call has 15 s
			env := append([]string{
				"AWS_ACCESS_KEY_ID=", "AWS_SECRET_ACCESS_KEY=", "AWS_SESSION_TOKEN=", "AWS_PROFILE=", "AWS_EC2_METADATA_DISABLED=true",
				"AWS_CONFIG_FILE=/dev/null", "AWS_SHARED_CREDENTIALS_FILE=/dev/null", "AWS_WEB_IDENTITY_TOKEN_FILE=", "AWS_CONTAINER_CREDENTIALS_FULL_URI=",
			}, test.env...)
			h, err := startHost(t, host.Config{Env: env, Outputs: []host.Output{{Workers: 2, Properties: test.options}},
				Grace: 100 * time.Millisecond, StorageDir: t.TempDir()})
			require.NoError(t, err)
			require.NoError(t, h.Send(tagOfA, record("x")))
			require.NoError(t, h.Until(within(t, time.Minute), func(st host.Stats) bool { return st.Flushed >= 3 }))
			sum, err := h.Stop(within(t, time.Minute))
			require.NoError(t, err)
			require.Equal(t, 1, sum.KeptInStorage, "nothing is lost")
			told := 0
			for _, l := range h.Logs() {
				if strings.Contains(l.Text, "chunk not delivered") {
					require.Contains(t, l.Text, test.want, "the line names the cause")
					told++
				}
			}
			require.Positive(t, told)
			require.LessOrEqual(t, told, 2, "once in a while: that it failed, and that it is out of reach")
		})
	}
}
