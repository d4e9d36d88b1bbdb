package charts

import (
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
	"sigs.k8s.io/yaml"
)

// another is a value that is not the default, and what else must be set for it to count.
type another struct {
	value string            // as JSON
	with  map[string]string // path: JSON
}

// monitored switches on what the values of monitoring are about.
var monitored = map[string]string{"monitoring.podMonitor.enabled": "true", "monitoring.rules.enabled": "true", "monitoring.dashboard.enabled": "true"}

// others are other values where the rule makes none that is valid or counts by itself: true is
// turned round, a number raised by one, and a text gets an x at its end.
var others = map[string]another{
	"imagePullSecrets": {`[{"name": "x"}]`, nil}, "commonLabels": {`{"a": "b"}`, nil},
	"aws.region": {`"us-east-1"`, nil}, "aws.partition": {`"aws-us-gov"`, map[string]string{"aws.region": `"us-gov-west-1"`}}, "aws.accountId": {`"111122223333"`, nil},
	"aws.endpoint": {`"logs.example.com"`, nil}, "aws.stsEndpoint": {`"sts.example.com"`, nil}, "aws.iamEndpoint": {`"iam.example.com"`, nil},
	"aws.kmsEndpoint": {`"kms.example.com"`, nil}, "aws.eksEndpoint": {`"eks.example.com"`, nil},

	"tenants.source": {`"registry"`, nil}, "tenants.namespacePrefix": {`"t-"`, nil}, "tenants.exceptions": {`{"tenants": {"acme": {"retentionDays": 731}}}`, nil}, "tenants.reservedNamespaces": {`["x"]`, nil},
	"logs.groupPrefix": {`"/x/tenants/"`, nil}, "logs.quarantineGroupPrefix": {`"/x/quarantine/"`, nil}, "logs.streamTemplate": {`"$(pod)"`, nil}, "logs.retentionDays": {"400", nil}, "logs.onFailure": {`"hold"`, nil},
	"logs.lateEvents": {`"drop"`, nil}, "logs.kmsKeyArn": {`"arn:aws:kms:eu-central-1:111122223333:key/1"`, nil}, "logs.keyPerTenant": {"true", map[string]string{"logs.onFailure": `"hold"`}},
	"logs.class": {`"INFREQUENT_ACCESS"`, nil}, "logs.tags": {`{"a": "b"}`, nil}, "logs.compress": {`"none"`, nil}, "logs.autoCreateGroup": {"false", map[string]string{"provisioner.enabled": "false"}},
	"logs.key": {`"log"`, nil}, "logs.format": {`"json/emf"`, map[string]string{"tenants.exceptions": `{"tenants": {"acme": {"emf": true}}}`}},

	"identity.mode":                  {`"environment"`, map[string]string{"fluentBit.envFrom": `[{"secretRef": {"name": "x"}}]`, "provisioner.envFrom": `[{"secretRef": {"name": "x"}}]`}},
	"identity.writerRoleArn":         {`"arn:aws:iam::111122223333:role/x"`, irsa("writerRoleArn")},
	"identity.provisionerRoleArn":    {`"arn:aws:iam::111122223333:role/x"`, irsa("provisionerRoleArn")},
	"identity.canaryRoleArn":         {`"arn:aws:iam::111122223333:role/x"`, irsa("")},
	"identity.allowNodeInstanceRole": {"true", map[string]string{"identity.mode": `"nodeRole"`}},

	"fluentBit.image.digest": {digest, nil}, "fluentBit.image.pullPolicy": {`"Always"`, nil}, "fluentBit.serviceAccount.annotations": {`{"a": "b"}`, nil},
	"fluentBit.podSecurityContext.seccompProfile.type": {`"Unconfined"`, nil}, "fluentBit.securityContext.capabilities.drop": {`["NET_RAW"]`, nil},
	"fluentBit.resources.requests.cpu": {`"1"`, nil}, "fluentBit.resources.requests.memory": {`"1Gi"`, nil}, "fluentBit.resources.limits.memory": {`"1Gi"`, nil},
	"fluentBit.tolerations": {`[]`, nil}, "fluentBit.nodeSelector": {`{"a": "b"}`, nil},
	"fluentBit.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms": {`[{"matchExpressions": [{"key": "a", "operator": "Exists"}]}]`, nil},
	"fluentBit.updateStrategy.type": {`"OnDelete"`, nil}, "fluentBit.updateStrategy.rollingUpdate.maxUnavailable": {`"20%"`, nil}, "fluentBit.podAnnotations": {`{"a": "b"}`, nil}, "fluentBit.podLabels": {`{"a": "b"}`, nil},
	"fluentBit.env": {`[{"name": "A", "value": "b"}]`, nil}, "fluentBit.envFrom": {`[{"secretRef": {"name": "x"}}]`, nil}, "fluentBit.extraVolumes": {`[{"name": "x", "emptyDir": {}}]`, nil},
	"fluentBit.extraVolumeMounts": {`[{"name": "x", "mountPath": "/x"}]`, nil}, "fluentBit.dnsPolicy": {`"Default"`, nil}, "fluentBit.dnsConfig.options": {`[]`, nil},
	"provisioner.dnsPolicy": {`"Default"`, nil}, "provisioner.dnsConfig.options": {`[]`, nil}, "canary.dnsPolicy": {`"Default"`, nil}, "canary.dnsConfig.options": {`[]`, nil},
	"canary.extraVolumes": {`[{"name": "x", "emptyDir": {}}]`, nil}, "canary.extraVolumeMounts": {`[{"name": "x", "mountPath": "/x"}]`, nil},
	"fluentBit.config.layout": {`"containers"`, nil}, "fluentBit.config.logLevel": {`"debug"`, nil}, "fluentBit.config.retentionCheckDelay": {`"1m"`, nil},
	"fluentBit.config.tail.bufferMaxSize":     {`"8MB"`, nil},
	"fluentBit.config.storage.totalLimitSize": {`"10G"`, nil}, "fluentBit.config.storage.onFullVolume": {`"continue"`, nil}, "fluentBit.config.storage.backlogMemLimit": {`"64M"`, nil}, "fluentBit.config.storage.sync": {`"full"`, nil},
	"fluentBit.config.extraInputs": {`[{"name": "systemd", "tag": "host.*"}]`, nil}, "fluentBit.config.extraFilters": {`[{"name": "grep", "match": "host.*"}]`, nil}, "fluentBit.config.extraOutputs": {`[{"name": "null", "match": "host.*"}]`, nil},
	"enrich.annotations": {"true", map[string]string{"enrich.enabled": "true"}},

	"provisioner.image.digest": {digest, nil}, "provisioner.image.pullPolicy": {`"Always"`, nil}, "provisioner.serviceAccount.annotations": {`{"a": "b"}`, nil}, "provisioner.resync": {`"20m"`, nil},
	"provisioner.logLevel": {`"debug"`, nil}, "provisioner.rolePath": {`"/x/"`, nil},
	"provisioner.readerRoles.create":                     {"false", map[string]string{"provisioner.readerRoles.trust.principals": `["arn:aws:iam::111122223333:role/x"]`}},
	"provisioner.readerRoles.trust.principals":           {`["arn:aws:iam::111122223333:role/x"]`, nil},
	"provisioner.readerRoles.trust.accounts":             {`["444455556666"]`, map[string]string{"provisioner.readerRoles.trust.externalId": `"x"`}},
	"provisioner.readerRoles.trust.externalId":           {`"y"`, map[string]string{"provisioner.readerRoles.trust.accounts": `["444455556666"]`}},
	"provisioner.readerRoles.trust.ssoRoles":             {`["$(tenant)-readers"]`, nil},
	"provisioner.readerRoles.trust.irsa":                 {`["a/b"]`, map[string]string{"provisioner.readerRoles.trust.oidcProvider": `"oidc.example.com/id/A"`}},
	"provisioner.readerRoles.trust.oidcProvider":         {`"oidc.example.com/id/A"`, map[string]string{"provisioner.readerRoles.trust.irsa": `["a/b"]`}},
	"provisioner.readerRoles.trust.podIdentity":          {`["a/b"]`, nil},
	"provisioner.podSecurityContext.seccompProfile.type": {`"Unconfined"`, nil}, "provisioner.securityContext.capabilities.drop": {`["NET_RAW"]`, nil},
	"provisioner.resources.requests.cpu": {`"1"`, nil}, "provisioner.resources.requests.memory": {`"1Gi"`, nil}, "provisioner.resources.limits.memory": {`"1Gi"`, nil},
	"provisioner.tolerations": {`[{"operator": "Exists"}]`, nil}, "provisioner.nodeSelector": {`{"a": "b"}`, nil}, "provisioner.affinity": {`{"nodeAffinity": {}}`, nil},
	"provisioner.topologySpreadConstraints": {`[{"maxSkew": 1, "topologyKey": "a", "whenUnsatisfiable": "DoNotSchedule"}]`, nil}, "provisioner.podAnnotations": {`{"a": "b"}`, nil}, "provisioner.podLabels": {`{"a": "b"}`, nil},
	"provisioner.env": {`[{"name": "A", "value": "b"}]`, nil}, "provisioner.envFrom": {`[{"secretRef": {"name": "x"}}]`, nil}, "provisioner.extraVolumes": {`[{"name": "x", "emptyDir": {}}]`, nil},
	"provisioner.extraVolumeMounts": {`[{"name": "x", "mountPath": "/x"}]`, nil},

	"admissionPolicy.allowedGroups": {`["x"]`, nil}, "admissionPolicy.allowedUsers": {`["x"]`, nil},
	"networkPolicy.scrapeFrom": {`[]`, nil}, "networkPolicy.kubeApiPorts": {`[8443]`, nil}, "networkPolicy.extraEgress": {`[{"ports": [{"port": 3128, "protocol": "TCP"}]}]`, nil},
	"canary.elsewhere": {`["/x"]`, nil}, "canary.env": {`[{"name": "A", "value": "b"}]`, nil}, "canary.envFrom": {`[{"secretRef": {"name": "x"}}]`, nil}, "canary.serviceAccount.annotations": {`{"a": "b"}`, nil}, "canary.timeout": {`"1m"`, nil},

	"monitoring.podMonitor.labels": {`{"a": "b"}`, nil}, "monitoring.podMonitor.interval": {`"1m"`, nil}, "monitoring.podMonitor.scrapeTimeout": {`"5s"`, nil},
	"monitoring.rules.labels": {`{"a": "b"}`, nil}, "monitoring.rules.annotations": {`{"a": "b"}`, nil}, "monitoring.rules.alertLabels": {`{"a": "b"}`, nil}, "monitoring.rules.disabled": {`["TenantLogsThrottled"]`, nil},
	"monitoring.rules.runbookUrl": {`"https://example.com/x"`, nil}, "monitoring.rules.thresholds.throttledRatio": {"0.5", nil}, "monitoring.rules.thresholds.diskFreeRatio": {"0.5", nil},
	"monitoring.dashboard.annotations": {`{"a": "b"}`, nil}, "monitoring.dashboard.labels.grafana_dashboard": {`"2"`, nil},
}

const digest = `"sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"`

// irsa is the mode with the roles it wants, but for one.
func irsa(without string) map[string]string {
	with := map[string]string{"identity.mode": `"irsa"`}
	for _, role := range []string{"writerRoleArn", "provisionerRoleArn"} {
		// The one that is asked about is, before, another.
		arn := `"arn:aws:iam::111122223333:role/y"`
		if role == without {
			arn = `"arn:aws:iam::111122223333:role/z"`
		}
		with["identity."+role] = arn
	}
	return with
}

// neverTaken are values whose other value is refused, whatever else is set.
var neverTaken = map[string]bool{"fluentBit.securityContext.privileged": true, "fluentBit.config.layout": true}

// leaves are the values that are no maps, or empty ones, by their paths.
func leaves(prefix string, v any, all map[string]any) {
	m, ok := v.(map[string]any)
	if !ok || len(m) == 0 {
		all[prefix] = v
		return
	}
	for k, x := range m {
		if prefix == "" {
			leaves(k, x, all)
			continue
		}
		leaves(prefix+"."+k, x, all)
	}
}

func setJSON(values map[string]string) (args []string) {
	for _, path := range slices.Sorted(maps.Keys(values)) {
		args = append(args, "--set-json", path+"="+values[path])
	}
	return args
}

func TestEveryValueChangesSomething(t *testing.T) {
	text, err := os.ReadFile(chart + "/values.yaml")
	require.NoError(t, err)
	var values map[string]any
	require.NoError(t, yaml.Unmarshal(text, &values))
	all := map[string]any{}
	leaves("", values, all)
	for path := range others {
		require.Contains(t, all, path, "no such value")
	}
	base := []string{release, chart, "--namespace", namespace, "--values", chart + "/ci/minimal-values.yaml"}
	_, err = template(t, base...)
	require.NoError(t, err)
	var mu sync.Mutex
	rendered := map[string]func() (string, error){}
	plain := func(set []string) (string, error) {
		mu.Lock()
		key := strings.Join(set, " ")
		if rendered[key] == nil {
			rendered[key] = sync.OnceValues(func() (string, error) { return template(t, append(slices.Clone(base), set...)...) })
		}
		once := rendered[key]
		mu.Unlock()
		return once()
	}
	for path, value := range all {
		t.Run(path, func(t *testing.T) {
			t.Parallel()
			other, found := others[path]
			if !found {
				switch v := value.(type) {
				case bool:
					other.value = fmt.Sprint(!v)
				case float64:
					other.value = fmt.Sprint(v + 1)
				case string:
					other.value = strconv.Quote(v + "x")
				default:
					t.Fatalf("give %s another value in others", path)
				}
			}
			if strings.HasPrefix(path, "monitoring.") && !strings.HasSuffix(path, ".enabled") {
				other.with = monitored
			}
			given, err := json.Marshal(value)
			require.NoError(t, err)
			require.NotEqual(t, string(given), other.value)
			// What is refused without the value is installed with it: that is a change, too.
			before, refused := plain(setJSON(other.with))
			with := maps.Clone(other.with)
			if with == nil {
				with = map[string]string{}
			}
			with[path] = other.value
			after, err := template(t, append(slices.Clone(base), setJSON(with)...)...)
			if neverTaken[path] {
				require.ErrorContains(t, err, path)
				return
			}
			require.NoError(t, err)
			require.False(t, refused == nil && before == after, "%s=%s changes nothing", path, other.value)
		})
	}
}

// A case of the suite is run again here, for what it is told in full.
func TestEveryRefusalIsProvokedBySomeCase(t *testing.T) {
	text, err := os.ReadFile(chart + "/tests/validation_test.yaml")
	require.NoError(t, err)
	var suite struct {
		Tests []struct {
			It                 string
			Set                map[string]any
			Release            struct{ Name, Namespace string }
			KubernetesProvider any
		}
	}
	require.NoError(t, yaml.Unmarshal(text, &suite))
	var mu sync.Mutex
	var said strings.Builder
	t.Run("cases", func(t *testing.T) {
		for _, c := range suite.Tests {
			t.Run(c.It, func(t *testing.T) {
				t.Parallel()
				if c.KubernetesProvider != nil {
					return
				}
				set := map[string]string{}
				for path, value := range c.Set {
					one, err := json.Marshal(value)
					require.NoError(t, err)
					set[path] = string(one)
				}
				args := []string{cmp.Or(c.Release.Name, release), chart, "--namespace", cmp.Or(c.Release.Namespace, namespace), "--values", chart + "/ci/minimal-values.yaml"}
				if _, err := template(t, append(args, setJSON(set)...)...); err != nil {
					mu.Lock()
					defer mu.Unlock()
					fmt.Fprintln(&said, err)
				}
			})
		}
	})
	templates, err := os.ReadFile(chart + "/templates/_validate.tpl")
	require.NoError(t, err)
	messages := regexp.MustCompile(`append \$p \(?(?:printf )?("(?:[^"\\]|\\.)*")`).FindAllSubmatch(templates, -1)
	require.NotEmpty(t, messages)
	require.Len(t, messages, strings.Count(string(templates), "append $p "), "a message in a form that is not known here")
	// These look at the cluster: helm-unittest's cases alone provoke them.
	inACluster := []string{"enforces PodSecurity", "already runs an agent", "the agents are DaemonSet", "already runs the provisioner"}
	verb := regexp.MustCompile(`%[a-z]`)
	for _, m := range messages {
		message, err := strconv.Unquote(string(m[1]))
		require.NoError(t, err, "%s", m[1])
		if i := slices.IndexFunc(inACluster, func(s string) bool { return strings.Contains(message, s) }); i >= 0 {
			require.Contains(t, string(text), inACluster[i])
			continue
		}
		parts := verb.Split(message, -1)
		for i := range parts {
			parts[i] = regexp.QuoteMeta(parts[i])
		}
		require.Regexp(t, strings.Join(parts, ".*"), said.String(), "no case of validation_test.yaml is told this")
		require.Regexp(t, `: |; |, which `, message, "what to do")
	}
}
