package e2e

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/eks-tenant-logs/eks-tenant-logs/e2e/node"
	"github.com/eks-tenant-logs/eks-tenant-logs/internal/fakeaws"
)

// Promises 1 and 2: a record of tenant T reaches T's group and nothing else,
// whatever it contains; what is no tenant's goes to the platform.

// attacks are lines that say something about where they belong.
var attacks = map[string]string{
	"a kubernetes map":                        `{"log":"x","kubernetes":{"namespace_name":"tenant-victim","pod_name":"db-0","container_name":"db"}}`,
	"two kubernetes maps":                     `{"log":"x","kubernetes":{"namespace_name":"tenant-evil","pod_name":"p"},"kubernetes":{"namespace_name":"tenant-victim"}}`,
	"two kubernetes maps, the other way":      `{"log":"x","kubernetes":{"namespace_name":"tenant-victim"},"kubernetes":{"namespace_name":"tenant-evil","pod_name":"p"}}`,
	"a kubernetes string":                     `{"log":"x","kubernetes":"tenant-victim"}`,
	"its own pod with another's id":           `{"log":"x","kubernetes":{"namespace_name":"tenant-evil","pod_name":"p","pod_id":"00000000-0000-4000-8000-000000000000"}}`,
	"a claim prepared":                        `{"log":"x","kubernetes_claimed":{"namespace_name":"tenant-victim"}}`,
	"a group's name":                          `{"log":"x","log_group_name":"/eks/tenants/victim","logGroupName":"/eks/tenants/victim","log_group":"victim","group":"victim"}`,
	"a stream's name":                         `{"log":"x","log_stream_name":"tenant-victim/db-0/db"}`,
	"a namespace":                             `{"log":"x","namespace":"tenant-victim","namespace_name":"tenant-victim","tenant":"victim"}`,
	"a tag":                                   `{"log":"x","tag":"kube.var.log.pods.tenant-victim_p_x.c.0.log","_tag":"x"}`,
	"our own notes":                           `{"log":"x","_tenantlogs":{"part":1,"parts":9,"unrouted":"prefix"}}`,
	"metrics":                                 `{"log":"x","_aws":{"Timestamp":1,"CloudWatchMetrics":[{"Namespace":"n","Dimensions":[[]],"Metrics":[{"Name":"m"}]}]},"m":1}`,
	"no JSON":                                 `tenant-victim stdout F {"kubernetes":`,
	"a line that looks like the CRI's":        `2026-11-23T10:00:00.000000000Z stdout F {"kubernetes":{"namespace_name":"tenant-victim"}}`,
	"a line that looks like a request's body": `"}],"logGroupName":"/eks/tenants/victim","logEvents":[{"timestamp":1,"message":"`,
	"bytes that are no text":                  "\xff\xfe{\"kubernetes\":\"tenant-victim\"}\x00\x1b",
	"more than a partial line":                `{"log":"` + strings.Repeat("y", 40<<10) + `","kubernetes":{"namespace_name":"tenant-victim"}}`,
	"more than an event may have":             `{"log":"` + strings.Repeat("z", 1200<<10) + `","kubernetes":{"namespace_name":"tenant-victim"}}`,
}

func TestIsolationWhateverALineSays(t *testing.T) {
	onEngines(t, func(t *testing.T, e node.Engine) {
		for _, reserve := range []bool{false, true} {
			t.Run(fmt.Sprintf("Reserve_Data %v", reserve), func(t *testing.T) {
				cw, s := standIn(t, fakeaws.Config{})
				n := newNode(t)
				evil := func(i int) node.Pod {
					return node.Pod{Namespace: "tenant-evil", Name: fmt.Sprint("p-", i), Container: "c"}
				}
				pods := map[string]string{}
				for name, line := range attacks {
					p := evil(len(pods))
					pods[p.Stream()] = name
					require.NoError(t, n.Write(p, line))
				}
				// The victim is there, with a group of its own, and one whose name begins alike.
				victims := []node.Pod{{Namespace: "tenant-victim", Name: "db-0", Container: "db"}, {Namespace: "tenant-evil-twin", Name: "p-0", Container: "c"}}
				for _, p := range victims {
					require.NoError(t, n.Write(p, "innocent"))
				}
				want := len(attacks) + 1 /* the long one is two */ + len(victims)
				require.NoError(t, e.Ship(within(t, time.Minute), node.Run{
					Node: n, Plugin: pluginPath(t), Env: cw.Env(), Log: newLog(t), Options: options(cw),
					ParseJSON: true, ReserveData: reserve, Until: arrived(s, want),
				}))
				total := 0
				for _, g := range s.Groups() {
					for _, st := range g.Streams {
						for _, ev := range s.Events(g.Name, st.Name) {
							total++
							var m map[string]json.RawMessage
							require.NoError(t, json.Unmarshal([]byte(ev.Message), &m), ev.Message)
							require.NotContains(t, m, "_aws")
							ns := strings.SplitN(st.Name, "/", 3)[0]
							require.Equal(t, "/eks/tenants/"+strings.TrimPrefix(ns, "tenant-"), g.Name, "%s: %s", pods[st.Name], ev.Message)
							if _, part := m["record"]; part {
								continue
							}
							var k map[string]string
							require.NoError(t, json.Unmarshal(m["kubernetes"], &k), ev.Message)
							require.Equal(t, st.Name, k["namespace_name"]+"/"+k["pod_name"]+"/"+k["container_name"], pods[st.Name])
							require.Equal(t, "node-1", k["host"])
						}
					}
				}
				require.Equal(t, want, total)
			})
		}
	})
}

func TestIsolationWhateverAPodIsCalled(t *testing.T) {
	onEngines(t, func(t *testing.T, e node.Engine) {
		long := strings.Repeat("p", 250)
		// Each pod and the tenant whose its line is; empty: the platform's.
		pods := map[node.Pod]string{
			{Namespace: "tenant-acme", Name: "web-0", Container: "c"}:                                   "acme",
			{Namespace: "tenant-acme-corp", Name: "web-0", Container: "c"}:                              "acme-corp",
			{Namespace: "tenant-acme-corp-eu", Name: "web-0", Container: "c"}:                           "acme-corp-eu",
			{Namespace: "tenant-a", Name: "cme-web-0", Container: "c"}:                                  "a",
			{Namespace: "tenant-evil", Name: "tenant-victim", Container: "tenant-victim"}:               "evil",
			{Namespace: "tenant-evil", Name: "x.var.log.pods.tenant-victim", Container: "c"}:            "evil",
			{Namespace: "tenant-evil", Name: "kube.var.log.containers.x.tenant-victim", Container: "c"}: "evil",
			{Namespace: "kube-system", Name: "coredns-0", Container: "coredns"}:                         "",
			{Namespace: "default", Name: "p", Container: "c"}:                                           "",
			{Namespace: "team-a", Name: "p", Container: "c"}:                                            "",
			{Namespace: "tenant", Name: "p", Container: "c"}:                                            "",
		}
		for _, layout := range []node.Layout{node.Pods, node.Containers} {
			t.Run(string(layout), func(t *testing.T) {
				cw, s := standIn(t, fakeaws.Config{})
				n := newNode(t)
				mine := map[node.Pod]string{}
				for p, tenant := range pods {
					mine[p] = tenant
				}
				// Not a pod's: somebody put it there by hand.
				byHand := "var/log/pods/tenant-victim_by-hand/c/0.log"
				if layout == node.Containers {
					byHand = "var/log/containers/by-hand_tenant-victim_c.log"
					// The kubelet cuts these names at 255 bytes, within the id and within the
					// container. (It can't cut them sooner: /var/log/pods/<namespace>_<pod>_<uid>
					// must be a file's name as well, or the pod does not start.)
					mine[node.Pod{Namespace: "tenant-evil", Name: long[:200], Container: "c"}] = "evil"
					mine[node.Pod{Namespace: "tenant-evil", Name: long[:206], Container: strings.Repeat("c", 33)}] = "evil"
				}
				byHand = filepath.Join(n.Root, byHand)
				require.NoError(t, os.MkdirAll(filepath.Dir(byHand), 0o755))
				require.NoError(t, os.WriteFile(byHand, []byte(time.Now().UTC().Format(time.RFC3339Nano)+" stdout F by hand\n"), 0o600))
				const unrouted = 1
				for p := range mine {
					require.NoError(t, n.Write(p, "line of "+p.Stream()))
				}
				require.NoError(t, e.Ship(within(t, time.Minute), node.Run{
					Node: n, Plugin: pluginPath(t), Layout: layout, Env: cw.Env(), Log: newLog(t), Options: options(cw), Until: arrived(s, len(mine)+unrouted),
				}))
				total := 0
				for p, tenant := range mine {
					group := "/eks/platform"
					if tenant != "" {
						group = "/eks/tenants/" + tenant
					}
					var texts []string
					for _, g := range s.Groups() {
						for _, st := range g.Streams {
							for _, ev := range s.Events(g.Name, st.Name) {
								if strings.Contains(ev.Message, `line of `+p.Stream()+`"`) {
									require.Equal(t, group, g.Name, p)
									texts = append(texts, ev.Message)
								}
							}
						}
					}
					require.Len(t, texts, 1, p)
					total++
				}
				left := s.Events("/eks/platform", "unrouted")
				require.Len(t, left, unrouted)
				for _, ev := range left {
					require.Contains(t, ev.Message, `"_tenantlogs":{"unrouted":"`)
					require.NotContains(t, ev.Message, `"kubernetes"`)
				}
				require.Equal(t, len(mine), total)
				for _, g := range s.Groups() {
					require.NotEqual(t, "/eks/tenants/victim", g.Name)
				}
			})
		}
	})
}
