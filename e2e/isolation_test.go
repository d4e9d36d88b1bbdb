package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/eks-tenant-logs/eks-tenant-logs/e2e/node"
	"github.com/eks-tenant-logs/eks-tenant-logs/internal/fakeaws"
)

// Promises 1 and 2: a record of tenant T reaches T's group and nothing else,
// whatever it contains; what is no tenant's goes to the platform.
//
// Every line bears a mark that says which file it was written to. Where an event
// should be is told from the mark alone: a forged line that arrived as its victim's
// agrees with itself in group, stream and `kubernetes`, so none of these can tell.

type attack struct {
	name string
	// line has a %s for the mark; a second one where the event is cut in two.
	line string
	// claimed is the field that must hold what the line claimed, once it was parsed.
	claimed string
	// parts is how many events it makes, if not one.
	parts int
}

var attacks = []attack{
	{name: "a whole kubernetes map of the victim's", claimed: "kubernetes_claimed",
		line: `{"log":"%s","kubernetes":{"namespace_name":"tenant-victim","pod_name":"db-0","container_name":"db"}}`},
	{name: "a whole kubernetes map of a tenant that is not there", claimed: "kubernetes_claimed",
		line: `{"log":"%s","kubernetes":{"namespace_name":"tenant-nobody","pod_name":"p","container_name":"c"}}`},
	{name: "a kubernetes map of kube-system", claimed: "kubernetes_claimed",
		line: `{"log":"%s","kubernetes":{"namespace_name":"kube-system","pod_name":"p","container_name":"c"}}`},
	{name: "two kubernetes maps, the victim's last", claimed: "kubernetes_claimed",
		line: `{"log":"%s","kubernetes":{"namespace_name":"tenant-evil","pod_name":"p","container_name":"c"},"kubernetes":{"namespace_name":"tenant-victim","pod_name":"db-0","container_name":"db"}}`},
	{name: "two kubernetes maps, the victim's first", claimed: "kubernetes_claimed",
		line: `{"log":"%s","kubernetes":{"namespace_name":"tenant-victim","pod_name":"db-0","container_name":"db"},"kubernetes":{"namespace_name":"tenant-evil","pod_name":"p","container_name":"c"}}`},
	{name: "a kubernetes map with the namespace in it twice", claimed: "kubernetes_claimed",
		line: `{"log":"%s","kubernetes":{"namespace_name":"tenant-evil","namespace_name":"tenant-victim","pod_name":"db-0","container_name":"db"}}`},
	{name: "a kubernetes string", claimed: "kubernetes_claimed",
		line: `{"log":"%s","kubernetes":"tenant-victim"}`},
	{name: "a kubernetes array", claimed: "kubernetes_claimed",
		line: `{"log":"%s","kubernetes":[{"namespace_name":"tenant-victim","pod_name":"db-0","container_name":"db"}]}`},
	{name: "its own namespace with another's pod_id", claimed: "kubernetes_claimed",
		line: `{"log":"%s","kubernetes":{"namespace_name":"tenant-evil","pod_id":"00000000-0000-4000-8000-000000000000"}}`},
	{name: "a kubernetes_claimed of its own making", claimed: "kubernetes_claimed_claimed",
		line: `{"log":"%s","kubernetes_claimed":{"namespace_name":"tenant-victim"}}`},
	{name: "a group's name", line: `{"log":"%s","log_group_name":"/eks/tenants/victim","logGroupName":"/eks/tenants/victim","log_group":"victim","group":"victim"}`},
	{name: "a stream's name", line: `{"log":"%s","log_stream_name":"tenant-victim/db-0/db","log_stream":"tenant-victim/db-0/db"}`},
	{name: "a namespace", line: `{"log":"%s","namespace":"tenant-victim","namespace_name":"tenant-victim","tenant":"victim"}`},
	{name: "a tag", line: `{"log":"%s","tag":"kube.var.log.pods.tenant-victim_db-0_x.db.0.log","_tag":"x"}`},
	{name: "the plugin's own notes", claimed: "_tenantlogs_claimed",
		line: `{"log":"%s","_tenantlogs":{"part":1,"parts":9,"unrouted":"prefix"}}`},
	{name: "metrics at the platform's cost", claimed: "_aws_claimed",
		line: `{"log":"%s","_aws":{"Timestamp":1,"CloudWatchMetrics":[{"Namespace":"n","Dimensions":[[]],"Metrics":[{"Name":"m"}]}]},"m":1}`},
	{name: "the start of a kubernetes map", line: `%s tenant-victim stdout F {"kubernetes":`},
	{name: "a line that looks like the CRI's", line: `2026-11-23T10:00:00.000000000Z stdout F {"log":"%s","kubernetes":{"namespace_name":"tenant-victim"}}`},
	{name: "a line that looks like a request's body", line: `%s"}],"logGroupName":"/eks/tenants/victim","logEvents":[{"timestamp":1,"message":"`},
	{name: "bytes that are no text", line: "\xff\xfe%s{\"kubernetes\":\"tenant-victim\"}\x00\x1b"},
	{name: "bytes that are no text in a forged map", line: "{\"log\":\"%s \xff\",\"kubernetes\":{\"namespace_name\":\"tenant-victim\",\"pod_name\":\"db-0\xc3\"}}"},
	{name: "a forged map behind several partial lines", claimed: "kubernetes_claimed",
		line: `{"log":"%s` + strings.Repeat("y", 40<<10) + `","kubernetes":{"namespace_name":"tenant-victim","pod_name":"db-0","container_name":"db"}}`},
	{name: "a forged map behind more than an event may have", parts: 2,
		line: `{"log":"%s` + strings.Repeat("z", 1200<<10) + `","kubernetes":{"namespace_name":"tenant-victim","pod_name":"db-0","container_name":"db"},"end":"%s"}`},
}

func TestIsolationWhateverALineSays(t *testing.T) {
	modes := []struct {
		name           string
		parse, reserve bool
	}{{"lines as text", false, false}, {"JSON parsed, Reserve_Data Off", true, false}, {"JSON parsed, Reserve_Data On", true, true}}
	onEngines(t, func(t *testing.T, e node.Engine) {
		for _, mode := range modes {
			t.Run(mode.name, func(t *testing.T) {
				isolationWhateverALineSays(t, e, pluginPath(t), mode.parse, mode.reserve)
			})
		}
	})
}

// isolationWhateverALineSays ships every attack through a plugin and looks where its mark is.
func isolationWhateverALineSays(t *testing.T, e node.Engine, plugin string, parse, reserve bool) {
	t.Helper()
	cw, s := standIn(t, fakeaws.Config{})
	n := newNode(t)
	w := written{}
	for i, a := range attacks {
		f := w.pod(t, n, node.Pod{Namespace: "tenant-evil", Name: fmt.Sprint("p-", i), Container: "c"}, "/eks/tenants/evil", a.line)
		f.name, f.parts = "a line with "+a.name, max(1, a.parts)
		if parse {
			f.holds = a.claimed
		}
	}
	// The victim is there, with a group of its own, and one whose name begins alike.
	w.pod(t, n, node.Pod{Namespace: "tenant-victim", Name: "db-0", Container: "db"}, "/eks/tenants/victim", "%s")
	w.pod(t, n, node.Pod{Namespace: "tenant-evil-twin", Name: "p-0", Container: "c"}, "/eks/tenants/evil-twin", "%s")
	ctx := within(t, 3*time.Minute)
	require.NoError(t, e.Ship(ctx, node.Run{
		Node: n, Plugin: plugin, Env: cw.Env(), Log: newLog(t), Options: options(cw),
		ParseJSON: parse, ReserveData: reserve, Until: arrived(s, w.events()),
	}))
	w.check(t, ctx, cw, node.Pods)
}

func TestIsolationWhateverAPodIsCalled(t *testing.T) {
	// Each pod, and the group its line belongs to.
	const platform = "/eks/platform"
	pods := map[node.Pod]string{
		{Namespace: "tenant-acme", Name: "web-0", Container: "c"}:                                   "/eks/tenants/acme",
		{Namespace: "tenant-acme-corp", Name: "web-0", Container: "c"}:                              "/eks/tenants/acme-corp",
		{Namespace: "tenant-acme-corp-eu", Name: "web-0", Container: "c"}:                           "/eks/tenants/acme-corp-eu",
		{Namespace: "tenant-a", Name: "cme-web-0", Container: "c"}:                                  "/eks/tenants/a",
		{Namespace: "tenant-evil", Name: "tenant-victim", Container: "tenant-victim"}:               "/eks/tenants/evil",
		{Namespace: "tenant-evil", Name: "x.var.log.pods.tenant-victim", Container: "c"}:            "/eks/tenants/evil",
		{Namespace: "tenant-evil", Name: "kube.var.log.containers.x.tenant-victim", Container: "c"}: "/eks/tenants/evil",
		{Namespace: "tenant-evil", Name: "tenant-victim.db-0.log", Container: "0"}:                  "/eks/tenants/evil",
		// The longest a pod of this namespace can be called: <namespace>_<pod>_<uid> is a
		// folder's name. Under /var/log/containers its id is cut, and with the longer
		// container that too.
		{Namespace: "tenant-evil", Name: strings.Repeat("p", 200), Container: "c"}:                       "/eks/tenants/evil",
		{Namespace: "tenant-evil", Name: strings.Repeat("p", 206), Container: strings.Repeat("c", 33)}:   "/eks/tenants/evil",
		{Namespace: "tenant-evil", Name: strings.Repeat("q", 205), Container: strings.Repeat("c", 63)}:   "/eks/tenants/evil",
		{Namespace: "tenant-acme-corp", Name: strings.Repeat("r", 201), Container: "tenant-victim-db-0"}: "/eks/tenants/acme-corp",
		{Namespace: "kube-system", Name: "coredns-0", Container: "coredns"}:                              platform,
		{Namespace: "default", Name: "p", Container: "c"}:                                                platform,
		{Namespace: "team-a", Name: "p", Container: "c"}:                                                 platform,
		{Namespace: "tenant", Name: "p", Container: "c"}:                                                 platform,
		{Namespace: "xtenant-victim", Name: "p", Container: "c"}:                                         platform,
	}
	// Files that are no pod's, and the reason that must be given.
	const uid, id = "00000000-0000-4000-8000-000000000000", "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
	// cut is the kubelet's name for a file whose pod is called so long that the
	// namespace would be cut, were there a folder of such a name under /var/log/pods.
	cut := func(namespace string, pod int) string {
		return node.ContainersName(node.Pod{Namespace: namespace, Name: strings.Repeat("p", pod), Container: "c"})
	}
	strangers := map[node.Layout]map[string]string{
		node.Pods: {
			"tenant-victim_by-hand/c/0.log":                                "layout",
			"tenant-victim/c/0.log":                                        "layout",
			"tenant-victim_web-0_" + uid + "/c/previous.log":               "layout",
			"tenant-victim_web-0_" + uid + "/c/0.1.log":                    "layout",
			"tenant-victim_web-0_not-a-uid/c/0.log":                        "uid",
			"Tenant-victim_web-0_" + uid + "/c/0.log":                      "namespace",
			"tenant.victim_web-0_" + uid + "/c/0.log":                      "namespace",
			"tenant-victim_WEB_" + uid + "/c/0.log":                        "pod",
			"tenant-victim_web-0_" + uid + "/C/0.log":                      "container",
			"tenant-evil_x_tenant-victim_web-0_" + uid + "/c/0.log":        "uid",
			"x.var.log.pods.tenant-victim_web-0_" + uid + "/c/0.log":       "namespace",
			"tenant-victim-_web-0_" + uid + "/c/0.log":                     "namespace",
			"tenant-" + strings.Repeat("v", 57) + "_w_" + uid + "/c/0.log": "namespace",
		},
		node.Containers: {
			"by-hand.log":                                          "layout",
			"by-hand_tenant-victim.log":                            "layout",
			"by-hand_tenant-victim_c.log":                          "container",
			"web-0_tenant-victim_c-" + id[:63] + ".log":            "container id",
			"web-0_tenant-victim_c-" + id + ".1.log":               "container id",
			"WEB_tenant-victim_c-" + id + ".log":                   "pod",
			"web-0_Tenant_c-" + id + ".log":                        "namespace",
			"x_tenant-evil_tenant-victim_c-" + id + ".log":         "container",
			cut("tenant-evil", 253):                                "truncated", // not even the pod is whole
			cut("tenant-evil", 245):                                "truncated",
			cut("tenant-acme-corp", 251-len("_tenant-acme")):       "truncated", // reads tenant-acme
			cut("tenant-acme-corp-eu", 251-len("_tenant-acme-co")): "truncated",
			cut("tenant-victim", 251-len("_tenant-victim")):        "truncated", // whole, but who could know
		},
	}
	onEngines(t, func(t *testing.T, e node.Engine) {
		for _, layout := range []node.Layout{node.Pods, node.Containers} {
			t.Run(string(layout), func(t *testing.T) {
				cw, s := standIn(t, fakeaws.Config{})
				n := newNode(t)
				w := written{}
				for p, group := range pods {
					w.pod(t, n, p, group, "%s")
				}
				for name, reason := range strangers[layout] {
					w.stranger(t, n, layout, name, reason)
				}
				ctx := within(t, time.Minute)
				require.NoError(t, e.Ship(ctx, node.Run{
					Node: n, Plugin: pluginPath(t), Layout: layout, Env: cw.Env(), Log: newLog(t), Options: options(cw), Until: arrived(s, w.events()),
				}))
				w.check(t, ctx, cw, layout)
			})
		}
	})
}

func TestIsolationOfTagsThatHaveAnotherPrefix(t *testing.T) {
	onEngines(t, func(t *testing.T, e node.Engine) {
		cw, s := standIn(t, fakeaws.Config{})
		n := newNode(t)
		w := written{}
		for _, ns := range []string{"tenant-acme", "tenant-victim", "kube-system"} {
			f := w.pod(t, n, node.Pod{Namespace: ns, Name: "web-0", Container: "c"}, "/eks/platform", "%s")
			f.pod, f.reason = node.Pod{}, "prefix"
		}
		ctx := within(t, time.Minute)
		require.NoError(t, e.Ship(ctx, node.Run{
			Node: n, Plugin: pluginPath(t), Env: cw.Env(), Log: newLog(t), Until: arrived(s, w.events()),
			// The true prefix ends like this one; it is not searched for.
			Options: options(cw, "tag_prefix", "log.pods."),
		}))
		w.check(t, ctx, cw, node.Pods)
	})
}

// file is what was written to one file, and where it must be found.
type file struct {
	name   string // as a sentence
	group  string
	pod    node.Pod // zero where the file is no pod's
	reason string   // then this is why
	parts  int
	holds  string // a field the message must have
}

// written are the files of a node, by the mark in each one's line.
type written map[string]*file

var mark = regexp.MustCompile(`mark-\d{3}\.`)

func (w written) add(f *file) string {
	m := fmt.Sprintf("mark-%03d.", len(w))
	f.parts = 1
	w[m] = f
	return m
}

// pod writes one line to a pod's log.
func (w written) pod(t *testing.T, n *node.Node, p node.Pod, group, line string) *file {
	t.Helper()
	name := p.Namespace + " " + p.Name + " " + p.Container
	if len(name) > 80 {
		name = fmt.Sprintf("%s with a pod of %d bytes and a container of %d", p.Namespace, len(p.Name), len(p.Container))
	}
	f := &file{name: name, group: group, pod: p}
	require.NoError(t, n.Write(p, strings.ReplaceAll(line, "%s", w.add(f))))
	return f
}

// stranger writes one line to a file that is no pod's.
func (w written) stranger(t *testing.T, n *node.Node, layout node.Layout, name, reason string) {
	t.Helper()
	f := &file{name: "no pod's " + name, group: "/eks/platform", reason: reason}
	if len(f.name) > 80 {
		f.name = f.name[:8] + "..." + f.name[len(f.name)-40:]
	}
	path := filepath.Join(n.Root, "var/log", string(layout), name)
	require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o755))
	line := time.Now().UTC().Format(time.RFC3339Nano) + " stdout F " + w.add(f) + "\n"
	require.NoError(t, os.WriteFile(path, []byte(line), 0o600))
}

// events is how many events all of it makes.
func (w written) events() int {
	total := 0
	for _, f := range w {
		total += f.parts
	}
	return total
}

// check reads every group back and holds each event against the file it came from.
func (w written) check(t *testing.T, ctx context.Context, cw *node.CloudWatch, layout node.Layout) {
	t.Helper()
	all, err := cw.All(ctx)
	require.NoError(t, err)
	from := map[string][]node.Event{}
	for _, ev := range all {
		marks := slices.Compact(mark.FindAllString(ev.Message, -1))
		require.Len(t, marks, 1, "an event of no file, or of two: %.300s", ev.Message)
		from[marks[0]] = append(from[marks[0]], ev)
	}
	for _, m := range slices.Sorted(maps.Keys(w)) {
		f := w[m]
		t.Run(f.name, func(t *testing.T) { f.check(t, from[m], layout) })
	}
	groups, err := cw.Groups(ctx)
	require.NoError(t, err)
	var have, want []string
	for _, g := range groups {
		have = append(have, *g.LogGroupName)
	}
	for _, f := range w {
		want = append(want, f.group)
	}
	slices.Sort(want)
	require.ElementsMatch(t, slices.Compact(want), have, "the groups that are there")
	require.Len(t, all, w.events())
}

func (f *file) check(t *testing.T, events []node.Event, layout node.Layout) {
	require.Len(t, events, f.parts)
	// parts by their number: those of one record have the same time.
	parts := make([]string, f.parts)
	for i, ev := range events {
		require.Equal(t, f.group, ev.Group, "%.300s", ev.Message)
		switch {
		case f.reason != "":
			require.Equal(t, "unrouted", ev.Stream)
		case f.cut(layout):
			// What is left of the container's name; namespace and pod are certain.
			require.True(t, strings.HasPrefix(ev.Stream, f.pod.Namespace+"/"+f.pod.Name+"/"), ev.Stream)
		default:
			require.Equal(t, f.pod.Stream(), ev.Stream)
		}
		if f.parts == 1 {
			parts[i] = ev.Message
			continue
		}
		var part struct {
			Record string
			Notes  struct{ Part, Parts int } `json:"_tenantlogs"`
		}
		require.NoError(t, json.Unmarshal([]byte(ev.Message), &part))
		require.Equal(t, f.parts, part.Notes.Parts)
		require.Equal(t, "", parts[part.Notes.Part-1], "a part twice")
		parts[part.Notes.Part-1] = part.Record
	}
	m := fields(t, strings.Join(parts, ""))
	require.NotContains(t, m, "_aws")
	if f.reason != "" {
		var notes struct{ Unrouted, Tag string }
		require.NoError(t, json.Unmarshal(m["_tenantlogs"], &notes))
		require.Equal(t, f.reason, notes.Unrouted)
		require.NotEmpty(t, notes.Tag)
		require.NotContains(t, m, "kubernetes")
		return
	}
	want := map[string]string{"namespace_name": f.pod.Namespace, "pod_name": f.pod.Name, "host": "node-1"}
	if !f.cut(layout) {
		want["container_name"] = f.pod.Container
		if layout == node.Pods {
			want["pod_id"] = f.pod.UID()
		} else {
			want["docker_id"] = f.pod.ContainerID()
		}
	}
	k := fields(t, string(m["kubernetes"]))
	if f.cut(layout) {
		delete(k, "container_name")
	}
	got := map[string]string{}
	for name, value := range k {
		var text string
		require.NoError(t, json.Unmarshal(value, &text), name)
		got[name] = text
	}
	require.Equal(t, want, got, "kubernetes")
	if f.holds != "" {
		require.Contains(t, m, f.holds)
	}
}

// cut reports whether the kubelet cut the file's name.
func (f *file) cut(layout node.Layout) bool {
	return layout == node.Containers && !strings.Contains(node.ContainersName(f.pod), f.pod.ContainerID())
}

// fields are a JSON object's, none of them there twice: readers differ on which of
// two counts.
func fields(t *testing.T, object string) map[string]json.RawMessage {
	t.Helper()
	dec := json.NewDecoder(bytes.NewReader([]byte(object)))
	start, err := dec.Token()
	require.NoError(t, err, "%.300s", object)
	require.Equal(t, json.Delim('{'), start, "%.300s", object)
	m := map[string]json.RawMessage{}
	for dec.More() {
		key, err := dec.Token()
		require.NoError(t, err)
		var value json.RawMessage
		require.NoError(t, dec.Decode(&value))
		require.NotContains(t, m, key.(string), "a field twice")
		m[key.(string)] = value
	}
	return m
}
