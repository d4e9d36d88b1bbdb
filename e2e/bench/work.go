package main

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/eks-tenant-logs/eks-tenant-logs/e2e/node"
)

// work is what is shipped.
type work struct {
	Name          string
	Pods, Tenants int
	Lines         int // in all
	// Aggregated: the pods' records are in one file, line by line in turn, as JSON with a
	// `kubernetes` map; else each pod has its own, as the kubelet writes it.
	Aggregated bool
}

func (w work) each() int { return w.Lines / w.Pods }

// scaled is a work with less, or more, to do.
func (w work) scaled(by float64) work {
	w.Lines = max(1, int(float64(w.Lines)*by)/w.Pods) * w.Pods
	return w
}

func (w work) pod(n int) node.Pod {
	return node.Pod{Namespace: fmt.Sprint("tenant-t", n%w.Tenants), Name: fmt.Sprint("pod-", n), Container: "app"}
}

// lines makes access-log lines of about 160 bytes with their pod's count in front. What
// differs from one line to the next is as much as in real ones: compression is measured, too.
type lines struct{ rng *rand.Rand }

func newLines(seed uint64) lines { return lines{rand.New(rand.NewPCG(seed, 1))} }

var (
	methods = []string{"GET", "GET", "GET", "POST", "PUT", "DELETE"}
	paths   = []string{"orders", "users", "carts", "search", "products", "health", "sessions"}
	agents  = []string{"Mozilla/5.0 (X11; Linux x86_64)", "curl/8.5.0", "okhttp/4.12.0", "kube-probe/1.31", "python-requests/2.32"}
)

func (l lines) next(n int) string {
	r := l.rng
	return fmt.Sprintf(`#%d 10.%d.%d.%d "%s /api/v1/%s/%016x HTTP/1.1" %d %d %d.%03dms "%s" trace=%016x%016x`, n, r.IntN(256), r.IntN(256), r.IntN(256),
		methods[r.IntN(len(methods))], paths[r.IntN(len(paths))], r.Uint64(), 200+100*(r.IntN(20)/17)+r.IntN(2), r.IntN(50_000), r.IntN(900), r.IntN(1000),
		agents[r.IntN(len(agents))], r.Uint64(), r.Uint64())
}

// write makes the work's log files below root.
func (w work) write(root string) (*node.Node, error) {
	n := node.New(root, time.Now().Add(-time.Hour))
	if w.Aggregated {
		return n, w.writeAggregated(root)
	}
	for p := range w.Pods {
		l := newLines(uint64(p))
		texts := make([]string, w.each())
		for i := range texts {
			texts[i] = l.next(i)
		}
		if err := n.Write(w.pod(p), texts...); err != nil {
			return nil, err
		}
	}
	return n, nil
}

func aggregate(root string) string { return filepath.Join(root, "aggregated.log") }

func (w work) writeAggregated(root string) error {
	if err := os.MkdirAll(root, 0o755); err != nil {
		return err
	}
	l := newLines(0)
	var b strings.Builder
	for i := range w.each() {
		for p := range w.Pods {
			pod := w.pod(p)
			fmt.Fprintf(&b, `{"log":%q,"stream":"stdout","kubernetes":{"pod_name":%q,"namespace_name":%q,"container_name":%q,"host":"node-1"}}`+"\n",
				l.next(i), pod.Name, pod.Namespace, pod.Container)
		}
	}
	return os.WriteFile(aggregate(root), []byte(b.String()), 0o600)
}

// input is what tail needs to read an aggregated file.
func (w work) input(root string) map[string]string {
	if !w.Aggregated {
		return nil
	}
	return map[string]string{"path": aggregate(root), "tag": "aggregated", "multiline.parser": "", "parser": "json"}
}
