package e2e

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/eks-tenant-logs/eks-tenant-logs/e2e/node"
	"github.com/eks-tenant-logs/eks-tenant-logs/internal/fakeaws"
)

// Promise 1 on a real Fluent Bit, in every situation known in which what a line
// claims can take the place of where it came from. A pod of tenant-a writes a line
// that says it is tenant-victim's. Each situation runs twice: with this plugin,
// which must write to tenant a, and with Fluent Bit's own cloudwatch_logs routing by
// $kubernetes['namespace_name'], to show what it does.

// kubeAPI answers the kubernetes filter's question for a pod.
type kubeAPI struct {
	status int
	pad    int // bytes of an annotation, which a tenant can set on its own pod
	labels int // how many labels of about 120 bytes; a tenant sets these, too
	// annotations are further ones.
	annotations map[string]string
	// answersAs is the pod whose metadata is returned, whatever was asked for.
	answersAs node.Pod
	// mustBeAsked fails the test where the filter found no reason to ask.
	mustBeAsked bool
}

func (k kubeAPI) start(t *testing.T) string {
	var asked atomic.Int32
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked.Add(1)
		parts := strings.Split(strings.Trim(r.URL.Path, "/"), "/") // api v1 namespaces NS pods POD
		if k.status != http.StatusOK || len(parts) != 6 {
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(http.StatusNotFound)
			fmt.Fprint(w, `{"kind":"Status","apiVersion":"v1","status":"Failure","reason":"NotFound","code":404}`)
			return
		}
		name, namespace, uid := parts[5], parts[3], spoofer.UID()
		if p := k.answersAs; p != (node.Pod{}) {
			name, namespace, uid = p.Name, p.Namespace, p.UID()
		}
		labels := map[string]string{"app": "web"}
		for i := range k.labels {
			labels[fmt.Sprintf("%s/%d", strings.Repeat("l", 60), i)] = strings.Repeat("v", 60)
		}
		annotations := map[string]string{"padding": strings.Repeat("x", k.pad)}
		maps.Copy(annotations, k.annotations)
		body, err := json.Marshal(map[string]any{
			"kind": "Pod", "apiVersion": "v1",
			"metadata": map[string]any{"name": name, "namespace": namespace, "uid": uid, "labels": labels, "annotations": annotations},
			"spec":     map[string]any{"nodeName": "node-1", "containers": []any{map[string]any{"name": "app", "image": "app:1"}}},
			"status":   map[string]any{"podIP": "10.0.0.1"},
		})
		if err != nil {
			t.Error(err)
		}
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write(body)
	}))
	t.Cleanup(func() {
		s.Close()
		if k.mustBeAsked && asked.Load() == 0 {
			t.Error("the filter never asked: this was another situation")
		}
	})
	return s.URL
}

// unreachable is an address where nobody listens: a port that is never given to a
// listener by chance, as one just closed may be.
func unreachable(*testing.T) string { return "http://127.0.0.1:1" }

var (
	spoofer = node.Pod{Namespace: "tenant-a", Name: "web-0", Container: "app"}
	victim  = node.Pod{Namespace: "tenant-victim", Name: "web-0", Container: "app"}
)

const (
	claim       = `{"log":"I am the victim","kubernetes":{"namespace_name":"tenant-victim","pod_name":"web-0","container_name":"app"}}`
	doubleClaim = `{"log":"x","kubernetes":{"namespace_name":"tenant-a"},"kubernetes":{"namespace_name":"tenant-victim"}}`
	liftClaim   = `{"log":"x","data":{"kubernetes":{"namespace_name":"tenant-victim"}}}`
	renameClaim = `{"log":"x","meta":{"namespace_name":"tenant-victim"}}`

	trimClaim   = `  {"log":"x\n\n","kubernetes":{"namespace_name":"tenant-victim","pod_name":"web-0","container_name":"app"}}  `
	noNameClaim = `{"log":"x","kubernetes":{"namespace_name":"tenant-victim\n","pod_name":"web-0","container_name":"app"}}`

	multilineFilter = "\n[FILTER]\n    Name multiline\n    Match *\n    multiline.key_content log\n    multiline.parser go\n"
	rewriteFilter   = "\n[FILTER]\n    Name rewrite_tag\n    Match kube.*\n    Rule $kubernetes['namespace_name'] ^(.+)$ %s false\n"
	parserFilter    = "\n[FILTER]\n    Name parser\n    Match *\n    Key_Name log\n    Parser json\n    Reserve_Data %s\n"
)

type situation struct {
	name    string
	line    string
	layout  node.Layout
	filters func(t *testing.T, tagPrefix string) string
	// unrouted says that the tag comes from the record: then the line is nobody's.
	unrouted bool
	// coreRefused says that core is refused, and tries again as often as Retry_Limit lets it.
	coreRefused bool
}

// kubernetesFilter is the filter with an API server and further lines.
func kubernetesFilter(api func(t *testing.T) string, lines ...string) func(*testing.T, string) string {
	return func(t *testing.T, tagPrefix string) string {
		dir, err := os.MkdirTemp("", "token-")
		require.NoError(t, err)
		t.Cleanup(func() { os.RemoveAll(dir) })
		// The filter asks nobody without a token.
		require.NoError(t, os.WriteFile(dir+"/token", []byte("a-token"), 0o600))
		f := node.KubernetesFilter(api(t), tagPrefix, dir+"/token")
		for _, l := range lines {
			f += "    " + l + "\n"
		}
		return f
	}
}

func situations() []situation {
	answers := kubeAPI{status: http.StatusOK, mustBeAsked: true}.start
	large := kubeAPI{status: http.StatusOK, pad: 40 << 10, mustBeAsked: true}.start
	missing := kubeAPI{status: http.StatusNotFound, mustBeAsked: true}.start
	// Its tags are of another shape than the filter's own: it may never ask.
	perhaps := kubeAPI{status: http.StatusOK}.start
	labelled := kubeAPI{status: http.StatusOK, labels: 340, mustBeAsked: true}.start
	annotated := kubeAPI{status: http.StatusOK, annotations: map[string]string{"fluentbit.io/parser": "json"}, mustBeAsked: true}.start
	answersVictim := kubeAPI{status: http.StatusOK, answersAs: victim, mustBeAsked: true}.start
	before := func(first string, then func(*testing.T, string) string) func(*testing.T, string) string {
		return func(t *testing.T, p string) string { return first + then(t, p) }
	}
	then := func(first func(*testing.T, string) string, more string) func(*testing.T, string) string {
		return func(t *testing.T, p string) string { return first(t, p) + more }
	}
	only := func(text string) func(*testing.T, string) string {
		return func(*testing.T, string) string { return text }
	}
	return []situation{
		{name: "the API server answers, Merge_Log On", line: claim, layout: node.Containers, filters: kubernetesFilter(answers, "Merge_Log On")},
		{name: "pod metadata of 40 KB, default Buffer_Size", line: claim, layout: node.Containers, filters: kubernetesFilter(large, "Merge_Log On")},
		{name: "pod metadata of 40 KB, Buffer_Size 0", line: claim, layout: node.Containers, filters: kubernetesFilter(large, "Merge_Log On", "Buffer_Size 0")},
		{name: "the API server answers 404 for the pod", line: claim, layout: node.Containers, filters: kubernetesFilter(missing, "Merge_Log On")},
		{name: "API server unreachable, Merge_Log On", line: claim, layout: node.Containers, filters: kubernetesFilter(unreachable, "Merge_Log On")},
		{name: "unreachable, Merge_Log Off", line: claim, layout: node.Containers, filters: kubernetesFilter(unreachable, "Merge_Log Off")},
		{name: "unreachable, Merge_Log_Key set", line: claim, layout: node.Containers, filters: kubernetesFilter(unreachable, "Merge_Log On", "Merge_Log_Key app")},
		{name: "Use_Tag_For_Meta On", line: claim, layout: node.Containers, filters: kubernetesFilter(unreachable, "Merge_Log On", "Use_Tag_For_Meta On")},
		{name: "a parser filter after kubernetes, Reserve_Data Off", line: claim, layout: node.Containers, filters: then(kubernetesFilter(answers), fmt.Sprintf(parserFilter, "Off"))},
		{name: "a parser filter after kubernetes, Reserve_Data On", line: claim, layout: node.Containers, filters: then(kubernetesFilter(answers), fmt.Sprintf(parserFilter, "On"))},
		{name: "JSON parsed without a kubernetes filter", line: claim, layout: node.Containers, filters: only(fmt.Sprintf(parserFilter, "On"))},
		{name: "the same from /var/log/pods", line: claim, layout: node.Pods, filters: only(fmt.Sprintf(parserFilter, "On"))},
		{name: "the kubernetes filter on /var/log/pods tags", line: claim, layout: node.Pods, filters: kubernetesFilter(perhaps, "Merge_Log On")},
		{name: "404, Merge_Log On, Keep_Log Off", line: claim, layout: node.Containers, filters: kubernetesFilter(missing, "Merge_Log On", "Keep_Log Off")},
		{name: "two kubernetes maps in the line", line: doubleClaim, layout: node.Containers, filters: only(fmt.Sprintf(parserFilter, "On"))},
		{name: "two kubernetes maps, 404, Merge_Log On", line: doubleClaim, layout: node.Containers, filters: kubernetesFilter(missing, "Merge_Log On")},
		{name: "a nest filter lifts a field the tenant nested", line: liftClaim, layout: node.Containers, filters: only(fmt.Sprintf(parserFilter, "On") + "\n[FILTER]\n    Name nest\n    Match *\n    Operation lift\n    Nested_under data\n")},
		{name: "a modify filter renames the tenant's field", line: renameClaim, layout: node.Containers, filters: only(fmt.Sprintf(parserFilter, "On") + "\n[FILTER]\n    Name modify\n    Match *\n    Hard_rename meta kubernetes\n")},
		{name: "a modify filter renames it over the true map", line: renameClaim, layout: node.Containers, filters: then(kubernetesFilter(answers, "Merge_Log On"), "\n[FILTER]\n    Name modify\n    Match *\n    Hard_rename meta kubernetes\n")},
		{name: "the API server answers with the victim's metadata", line: claim, layout: node.Containers, filters: kubernetesFilter(answersVictim, "Merge_Log On")},
		{name: "40 KB of labels, default Buffer_Size", line: claim, layout: node.Containers, filters: kubernetesFilter(labelled, "Merge_Log On")},
		{name: "annotation fluentbit.io/parser, Merge_Log On", line: claim, layout: node.Containers, filters: kubernetesFilter(annotated, "Merge_Log On", "K8S-Logging.Parser On")},
		{name: "the same, and a parser filter after kubernetes, Reserve_Data Off", line: claim, layout: node.Containers, filters: then(kubernetesFilter(annotated, "K8S-Logging.Parser On"), fmt.Sprintf(parserFilter, "Off"))},
		{name: "404, Merge_Log On, Merge_Log_Trim On, spaces and line ends around", line: trimClaim, layout: node.Containers, filters: kubernetesFilter(missing, "Merge_Log On", "Merge_Log_Trim On")},
		{name: "404, Merge_Log On, Merge_Log_Trim Off, spaces and line ends around", line: trimClaim, layout: node.Containers, filters: kubernetesFilter(missing, "Merge_Log On", "Merge_Log_Trim Off")},
		{name: "404, Merge_Log On, a claim that can be no group's name", line: noNameClaim, layout: node.Containers, filters: kubernetesFilter(missing, "Merge_Log On"), coreRefused: true},
		{name: "404, Labels and Annotations Off", line: claim, layout: node.Containers, filters: kubernetesFilter(missing, "Merge_Log On", "Labels Off", "Annotations Off")},
		{name: "a multiline filter before kubernetes, 404", line: claim, layout: node.Containers, filters: before(multilineFilter, kubernetesFilter(missing, "Merge_Log On"))},
		{name: "a multiline filter after JSON was parsed", line: claim, layout: node.Pods, filters: only(fmt.Sprintf(parserFilter, "On") + multilineFilter)},
		{name: "rewrite_tag makes the tag of what the record says", line: claim, layout: node.Pods, filters: only(fmt.Sprintf(parserFilter, "On") + fmt.Sprintf(rewriteFilter, "$1")), unrouted: true},
	}
}

func TestIsolationInEverySpoofingSituation(t *testing.T) {
	if os.Getenv("E2E_ENGINE") != "fluent-bit" {
		t.Skip("needs a real Fluent Bit's filters: make e2e runs it")
	}
	engine, ok := engines(t)[0].(node.FluentBit)
	require.True(t, ok)
	var table strings.Builder
	table.WriteString("| # | situation | this plugin wrote to | core `cloudwatch_logs` wrote to |\n| --- | --- | --- | --- |\n")
	for i, s := range situations() {
		t.Run(s.name, func(t *testing.T) {
			ours := spoof(t, engine, s, false)
			core := spoof(t, engine, s, true)
			coreWrote := groupsOf(core, "/eks/tenants/tenant-a")
			if s.coreRefused {
				require.Empty(t, core)
				coreWrote = "**nowhere**: refused, and tried again"
			}
			fmt.Fprintf(&table, "| %d | %s | %s | %s |\n", i+1, s.name, groupsOf(ours, "/eks/tenants/a"), coreWrote)
			require.Len(t, ours, 1)
			if s.unrouted {
				require.Equal(t, "/eks/platform unrouted", ours[0].Group+" "+ours[0].Stream)
				require.NotContains(t, fields(t, ours[0].Message), "kubernetes")
				return
			}
			require.Equal(t, "/eks/tenants/a", ours[0].Group)
			require.Equal(t, spoofer.Stream(), ours[0].Stream)
			var k map[string]any // with the filter's labels, where they are the true pod's
			require.NoError(t, json.Unmarshal(fields(t, ours[0].Message)["kubernetes"], &k))
			want := map[string]any{"namespace_name": spoofer.Namespace, "pod_name": spoofer.Name, "container_name": spoofer.Container, "host": "node-1"}
			if s.layout == node.Pods {
				want["pod_id"] = spoofer.UID()
			} else {
				want["docker_id"] = spoofer.ContainerID()
			}
			for name, value := range want {
				require.Equal(t, value, k[name], ours[0].Message)
			}
		})
	}
	t.Logf("what each wrote:\n%s", table.String())
	if file := os.Getenv("SPOOFING_TABLE"); file != "" {
		require.NoError(t, os.WriteFile(file, []byte(table.String()), 0o600))
	}
}

// groupsOf lists the groups, in bold those that are not the true tenant's.
func groupsOf(events []node.Event, own string) string {
	var groups []string
	for _, ev := range events {
		g := ev.Group
		if ev.Stream == "unrouted" {
			g += " (unrouted)"
		}
		if g != own {
			g = "**" + g + "**"
		}
		groups = append(groups, g)
	}
	slices.Sort(groups)
	return strings.Join(slices.Compact(groups), ", ")
}

// spoof runs one situation and returns every event that arrived anywhere.
func spoof(t *testing.T, engine node.FluentBit, s situation, core bool) []node.Event {
	t.Helper()
	cw, server := standIn(t, fakeaws.Config{})
	n := newNode(t)
	require.NoError(t, n.Write(spoofer, s.line))
	log := newLog(t)
	r := node.Run{
		Node: n, Plugin: pluginPath(t), Layout: s.layout, Env: cw.Env(), Log: log, Options: options(cw),
		Filters: s.filters(t, engine.TagPrefix(n, s.layout)), Until: arrived(server, 1),
	}
	if core {
		r.Output = node.CoreOutput(cw, 0)
	}
	if core && s.coreRefused {
		r.Until = func() bool { return strings.Contains(log.String(), "Failed to create log stream") }
	}
	ctx := within(t, time.Minute)
	require.NoError(t, engine.Ship(ctx, r))
	events, err := cw.All(ctx)
	require.NoError(t, err)
	return events
}
