package e2e

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
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
		body, err := json.Marshal(map[string]any{
			"kind": "Pod", "apiVersion": "v1",
			"metadata": map[string]any{
				"name": parts[5], "namespace": parts[3], "uid": spoofer.UID(),
				"labels": map[string]any{"app": "web"}, "annotations": map[string]any{"padding": strings.Repeat("x", k.pad)},
			},
			"spec":   map[string]any{"nodeName": "node-1", "containers": []any{map[string]any{"name": "app", "image": "app:1"}}},
			"status": map[string]any{"podIP": "10.0.0.1"},
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

// unreachable is an address where nobody listens.
func unreachable(t *testing.T) string {
	s := httptest.NewServer(http.NotFoundHandler())
	u := s.URL
	s.Close()
	return u
}

var spoofer = node.Pod{Namespace: "tenant-a", Name: "web-0", Container: "app"}

const (
	claim       = `{"log":"I am the victim","kubernetes":{"namespace_name":"tenant-victim","pod_name":"web-0","container_name":"app"}}`
	doubleClaim = `{"log":"x","kubernetes":{"namespace_name":"tenant-a"},"kubernetes":{"namespace_name":"tenant-victim"}}`
	liftClaim   = `{"log":"x","data":{"kubernetes":{"namespace_name":"tenant-victim"}}}`
	renameClaim = `{"log":"x","meta":{"namespace_name":"tenant-victim"}}`

	parserFilter = "\n[FILTER]\n    Name parser\n    Match *\n    Key_Name log\n    Parser json\n    Reserve_Data %s\n"
)

type situation struct {
	name    string
	line    string
	layout  node.Layout
	filters func(t *testing.T, tagPrefix string) string
}

// kubernetesFilter is the filter with an API server and further lines.
func kubernetesFilter(api func(t *testing.T) string, lines ...string) func(*testing.T, string) string {
	return func(t *testing.T, tagPrefix string) string {
		dir, err := os.MkdirTemp("", "token-")
		require.NoError(t, err)
		t.Cleanup(func() { os.RemoveAll(dir) })
		// The filter asks nobody without a token.
		require.NoError(t, os.WriteFile(dir+"/token", []byte("a-token"), 0o600))
		f := fmt.Sprintf("\n[FILTER]\n    Name kubernetes\n    Match *\n    Kube_URL %s\n    Kube_Tag_Prefix %s\n    Kube_Token_File %s/token\n    tls.verify Off\n", api(t), tagPrefix, dir)
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
	then := func(first func(*testing.T, string) string, more string) func(*testing.T, string) string {
		return func(t *testing.T, p string) string { return first(t, p) + more }
	}
	only := func(text string) func(*testing.T, string) string {
		return func(*testing.T, string) string { return text }
	}
	return []situation{
		{"the API server answers, Merge_Log On", claim, node.Containers, kubernetesFilter(answers, "Merge_Log On")},
		{"pod metadata of 40 KB, default Buffer_Size", claim, node.Containers, kubernetesFilter(large, "Merge_Log On")},
		{"pod metadata of 40 KB, Buffer_Size 0", claim, node.Containers, kubernetesFilter(large, "Merge_Log On", "Buffer_Size 0")},
		{"the API server answers 404 for the pod", claim, node.Containers, kubernetesFilter(missing, "Merge_Log On")},
		{"API server unreachable, Merge_Log On", claim, node.Containers, kubernetesFilter(unreachable, "Merge_Log On")},
		{"unreachable, Merge_Log Off", claim, node.Containers, kubernetesFilter(unreachable, "Merge_Log Off")},
		{"unreachable, Merge_Log_Key set", claim, node.Containers, kubernetesFilter(unreachable, "Merge_Log On", "Merge_Log_Key app")},
		{"Use_Tag_For_Meta On", claim, node.Containers, kubernetesFilter(unreachable, "Merge_Log On", "Use_Tag_For_Meta On")},
		{"a parser filter after kubernetes, Reserve_Data Off", claim, node.Containers, then(kubernetesFilter(answers), fmt.Sprintf(parserFilter, "Off"))},
		{"a parser filter after kubernetes, Reserve_Data On", claim, node.Containers, then(kubernetesFilter(answers), fmt.Sprintf(parserFilter, "On"))},
		{"JSON parsed without a kubernetes filter", claim, node.Containers, only(fmt.Sprintf(parserFilter, "On"))},
		{"the same from /var/log/pods", claim, node.Pods, only(fmt.Sprintf(parserFilter, "On"))},
		{"the kubernetes filter on /var/log/pods tags", claim, node.Pods, kubernetesFilter(perhaps, "Merge_Log On")},
		{"404, Merge_Log On, Keep_Log Off", claim, node.Containers, kubernetesFilter(missing, "Merge_Log On", "Keep_Log Off")},
		{"two kubernetes maps in the line", doubleClaim, node.Containers, only(fmt.Sprintf(parserFilter, "On"))},
		{"two kubernetes maps, 404, Merge_Log On", doubleClaim, node.Containers, kubernetesFilter(missing, "Merge_Log On")},
		{"a nest filter lifts a field the tenant nested", liftClaim, node.Containers, only(fmt.Sprintf(parserFilter, "On") + "\n[FILTER]\n    Name nest\n    Match *\n    Operation lift\n    Nested_under data\n")},
		{"a modify filter renames the tenant's field", renameClaim, node.Containers, only(fmt.Sprintf(parserFilter, "On") + "\n[FILTER]\n    Name modify\n    Match *\n    Hard_rename meta kubernetes\n")},
		{"a modify filter renames it over the true map", renameClaim, node.Containers, then(kubernetesFilter(answers, "Merge_Log On"), "\n[FILTER]\n    Name modify\n    Match *\n    Hard_rename meta kubernetes\n")},
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
			fmt.Fprintf(&table, "| %d | %s | %s | %s |\n", i+1, s.name, strings.Join(ours, ", "), bold(core))
			require.Equal(t, []string{"/eks/tenants/a"}, ours)
		})
	}
	t.Logf("what each wrote:\n%s", table.String())
	if file := os.Getenv("SPOOFING_TABLE"); file != "" {
		require.NoError(t, os.WriteFile(file, []byte(table.String()), 0o600))
	}
}

func bold(groups []string) string {
	for i, g := range groups {
		if g != "/eks/tenants/tenant-a" {
			groups[i] = "**" + g + "**"
		}
	}
	return strings.Join(groups, ", ")
}

// spoof runs one situation and returns the groups that the line reached.
func spoof(t *testing.T, engine node.FluentBit, s situation, core bool) []string {
	t.Helper()
	cw, server := standIn(t, fakeaws.Config{})
	n := newNode(t)
	require.NoError(t, n.Write(spoofer, s.line))
	r := node.Run{
		Node: n, Plugin: pluginPath(t), Layout: s.layout, Env: cw.Env(), Log: newLog(t), Options: options(cw),
		Filters: s.filters(t, engine.TagPrefix(n, s.layout)), Until: arrived(server, 1),
	}
	if core {
		u, err := url.Parse(cw.Endpoint)
		require.NoError(t, err)
		r.Output = fmt.Sprintf("    Name cloudwatch_logs\n    Match *\n    region us-east-1\n    endpoint localhost\n    port %s\n    tls.verify On\n    tls.ca_file %s\n"+
			"    log_group_name /eks/shared-fallback\n    log_group_template /eks/tenants/$kubernetes['namespace_name']\n"+
			"    log_stream_prefix from-\n    auto_create_group On\n    Retry_Limit no_limits\n", u.Port(), cw.CAFile)
	}
	require.NoError(t, engine.Ship(within(t, time.Minute), r))
	var groups []string
	for _, g := range server.Groups() {
		if g.Events > 0 {
			groups = append(groups, g.Name)
		}
	}
	slices.Sort(groups)
	return groups
}
