// Command demo ships the container logs of three tenants, of kube-system and of a
// forger through the real plugin into a stand-in for CloudWatch Logs, reads them
// back and shows where each went. It needs no AWS account.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"

	"github.com/eks-tenant-logs/eks-tenant-logs/e2e/environment"
	"github.com/eks-tenant-logs/eks-tenant-logs/e2e/host"
	"github.com/eks-tenant-logs/eks-tenant-logs/e2e/node"
	"github.com/eks-tenant-logs/eks-tenant-logs/internal/fakeaws"
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "demo:", err)
		os.Exit(1)
	}
}

// The cast.
var (
	acme     = node.Pod{Namespace: "tenant-acme", Name: "shop-6d4cf56db6-x8x7k", Container: "web"}
	acmeDB   = node.Pod{Namespace: "tenant-acme", Name: "postgres-0", Container: "postgres"}
	acmeCorp = node.Pod{Namespace: "tenant-acme-corp", Name: "api-7f9d8b-2lq4z", Container: "api"}
	initech  = node.Pod{Namespace: "tenant-initech", Name: "tps-reports-0", Container: "worker"}
	system   = node.Pod{Namespace: "kube-system", Name: "coredns-5d78c9869d-abcde", Container: "coredns"}
	forger   = node.Pod{Namespace: "tenant-initech", Name: "forger", Container: "app"}
)

const (
	each   = 1000 // lines of each ordinary container
	marker = "forged line"
)

var forgeries = []string{
	`{"log":"` + marker + ` 1: I am acme","kubernetes":{"namespace_name":"tenant-acme","pod_name":"shop-6d4cf56db6-x8x7k"}}`,
	`{"log":"` + marker + ` 2: twice","kubernetes":{"namespace_name":"tenant-initech","pod_name":"forger"},"kubernetes":{"namespace_name":"tenant-acme"}}`,
	`{"log":"` + marker + ` 3: metrics at your cost","_aws":{"Timestamp":1,"CloudWatchMetrics":[{"Namespace":"x","Dimensions":[],"Metrics":[{"Name":"m"}]}]},"m":1}`,
	`{"log":"` + marker + ` 4: a group of my choice","log_group_name":"/eks/tenants/acme","namespace":"tenant-acme"}`,
}

func run() error {
	fmt.Println("building the plugin ...")
	// However long it takes: with empty caches it downloads and compiles the AWS SDK.
	plugin, err := build(context.Background())
	if err != nil {
		return err
	}
	loader, err := host.Build(context.Background(), filepath.Dir(plugin))
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	began := time.Now()
	dir, err := os.MkdirTemp("", "tenant-logs-demo-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)

	cw, server, err := node.StartStandIn(dir, fakeaws.Config{})
	if err != nil {
		return err
	}
	defer func() { _ = server.Close() }()
	fmt.Println("a stand-in for CloudWatch Logs listens on", cw.Endpoint)

	n := node.New(filepath.Join(dir, "node"), time.Now().Add(-time.Minute))
	want := 0
	for _, p := range []node.Pod{acme, acmeDB, acmeCorp, initech, system} {
		lines := make([]string, each)
		for i := range lines {
			lines[i] = fmt.Sprintf("%s line %d of %s", p.Name, i+1, p.Namespace)
		}
		if err := n.Write(p, lines...); err != nil {
			return err
		}
		want += each
	}
	if err := n.Write(forger, forgeries...); err != nil {
		return err
	}
	want += len(forgeries)

	var engine node.Engine
	if bin, err := node.FindFluentBit(ctx); err == nil {
		engine = node.FluentBit{Binary: bin}
		fmt.Println("shipping with Fluent Bit:", bin)
	} else {
		engine = node.Host{Loader: loader}
		fmt.Printf("%v: shipping with the project's own host of Fluent Bit plugins\n", err)
	}
	log, err := os.Create(filepath.Join(dir, "engine.log"))
	if err != nil {
		return err
	}
	defer log.Close()
	err = engine.Ship(ctx, node.Run{
		Node: n, Plugin: plugin, ParseJSON: true, ReserveData: true, Env: cw.Env(), Log: log,
		Options: map[string]string{"region": cw.Region, "endpoint": cw.Endpoint},
		Until: func() bool {
			groups, err := cw.Groups(ctx)
			if err != nil || len(groups) < 4 {
				return false
			}
			for _, g := range groups {
				if g.RetentionInDays == nil {
					return false
				}
			}
			all, err := cw.All(ctx)
			return err == nil && len(all) >= want
		},
	})
	if err != nil {
		text, _ := os.ReadFile(log.Name())
		return errors.Join(err, fmt.Errorf("the engine's log:\n%s", text))
	}
	if err := show(ctx, cw, want); err != nil {
		return err
	}
	fmt.Printf("\n%d lines in %.1f s. Next: README.md (install), docs/security.md (what is trusted), docs/message.md (what a record becomes),\n"+
		"make e2e (the promises against a real Fluent Bit).\n", want, time.Since(began).Seconds())
	return nil
}

func build(ctx context.Context) (string, error) {
	out, err := filepath.Abs(filepath.Join("build", runtime.GOARCH, "out_cloudwatch_tenants.so"))
	if err != nil {
		return "", err
	}
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-buildmode=c-shared", "-ldflags", "-s -w", "-o", out, "./plugin")
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	cmd.Env = append(environment.Machine(), "CGO_ENABLED=1")
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("failed to build the plugin (it needs gcc): %w", err)
	}
	return out, nil
}

func show(ctx context.Context, cw *node.CloudWatch, want int) error {
	groups, err := cw.Groups(ctx)
	if err != nil {
		return err
	}
	fmt.Println()
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "GROUP\tTENANT\tRETENTION\tSTREAMS\tEVENTS\tFIRST LINE")
	total := 0
	var forged []node.Event
	for _, g := range groups {
		name := aws.ToString(g.LogGroupName)
		tags, err := cw.Tags(ctx, g)
		if err != nil {
			return err
		}
		streams, err := cw.Streams(ctx, name)
		if err != nil {
			return err
		}
		var events []node.Event
		for _, s := range streams {
			list, err := cw.Events(ctx, name, s)
			if err != nil {
				return err
			}
			events = append(events, list...)
		}
		total += len(events)
		first := ""
		for _, e := range events {
			if strings.Contains(e.Message, marker) {
				forged = append(forged, e)
			} else if first == "" {
				first = e.Message
			}
		}
		tenant := tags["eks-tenant-logs/tenant"]
		if tenant == "" {
			tenant = "-"
		}
		retention := "never expires"
		if g.RetentionInDays != nil {
			retention = fmt.Sprintf("%d days", *g.RetentionInDays)
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%d\t%d\t%s\n", name, tenant, retention, len(streams), len(events), cut(first, 60))
	}
	if err := w.Flush(); err != nil {
		return err
	}
	fmt.Printf("\nThe forger is a pod of tenant-initech; its lines claim to be acme's. They went to:\n\n")
	for _, e := range forged {
		fmt.Printf("  %s  %s\n    %s\n", e.Group, e.Stream, e.Message)
		if e.Group != "/eks/tenants/initech" {
			return fmt.Errorf("a forged line reached %s", e.Group)
		}
	}
	if len(forged) != len(forgeries) || total != want {
		return fmt.Errorf("%d events arrived, %d of them forged; expected %d and %d", total, len(forged), want, len(forgeries))
	}
	return nil
}

func cut(s string, n int) string {
	if len(s) <= n {
		return s
	}
	return s[:n] + "..."
}
