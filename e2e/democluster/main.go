// Command democluster shows the project on a real Kubernetes cluster: three tenants whose pods write, the chart as docs/install.md installs it,
// `helm test`, an upgrade's roll under load, and what has arrived. It keeps the cluster until Ctrl-C. AWS is a stand-in; no account is needed.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"

	_ "github.com/eks-tenant-logs/eks-tenant-logs/e2e/environment" // the machine's does not reach the programs
	"github.com/eks-tenant-logs/eks-tenant-logs/e2e/realnode"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx); err != nil {
		stop()
		fmt.Fprintln(os.Stderr, "demo-cluster:", err)
		os.Exit(1)
	}
}

// The cast: what each tenant's pod writes, in lines a second.
var writers = []realnode.Writer{
	{Tenant: "acme", Name: "shop", Rate: 500},
	{Tenant: "acme-corp", Name: "api", Rate: 100},
	{Tenant: "initech", Name: "tps-reports", Rate: 10},
}

func run(ctx context.Context) (err error) {
	if err := realnode.Check(ctx); err != nil {
		return fmt.Errorf("this machine can't have a node (docs/node.md): %w", err)
	}
	say := func(format string, args ...any) {
		fmt.Printf("%s  %s\n", time.Now().Format(time.TimeOnly), fmt.Sprintf(format, args...))
	}
	say("starting a cluster: etcd, API server, controllers, kubelet, containerd, a stand-in for AWS")
	c, err := realnode.Start(ctx, realnode.Options{Log: say})
	if err != nil {
		return err
	}
	defer func() {
		say("ending the cluster")
		if stopErr := c.Stop(); err == nil {
			err = stopErr
		}
	}()
	say("the agent's engine: %s", c.Images)
	say("helm install %s --namespace %s --wait", realnode.ReleaseName, realnode.ReleaseNamespace)
	if err := c.Install(ctx, nil); err != nil {
		return err
	}
	for _, w := range writers {
		say("tenant %s: namespace %s, pod %s, %.0f lines/s", w.Tenant, w.Namespace(), w.Name, w.Rate)
		if err := c.Tenant(ctx, w.Tenant); err != nil {
			return err
		}
		if err := c.StartWriter(ctx, w); err != nil {
			return err
		}
	}
	say("helm test %s", realnode.ReleaseName)
	said, err := c.HelmTest(ctx)
	fmt.Println(indent(said))
	if err != nil {
		return err
	}
	say("an upgrade's roll under load: kubectl rollout restart daemonset/%s", realnode.AgentName)
	if err := c.Roll(ctx); err != nil {
		return err
	}
	time.Sleep(3 * time.Second)
	if err := show(ctx, c); err != nil {
		return err
	}
	fmt.Printf(`
The cluster is there until Ctrl-C. In another terminal:

  export KUBECONFIG=%s PATH=%s:$PATH
  kubectl get pods --all-namespaces
  kubectl -n %s logs daemonset/%s
  kubectl create namespace tenant-yours && kubectl -n tenant-yours run hello --image=%s --image-pull-policy=Never --restart=Never -- write -id=hello -lines=10
  aws logs tail %s --endpoint-url %s --region %s      # with AWS_CA_BUNDLE=%s AWS_ACCESS_KEY_ID=%s AWS_SECRET_ACCESS_KEY=%s
  ls %s

`, c.Kubeconfig, programs(), realnode.ReleaseNamespace, realnode.AgentName, c.Images.Tool, realnode.Group("acme"), c.AWS.CloudWatch.Endpoint, realnode.Region,
		c.AWS.CloudWatch.CAFile, c.AWS.CloudWatch.AccessKey, c.AWS.CloudWatch.SecretKey, c.Nodes[0].PodLogs())
	<-ctx.Done()
	return show(context.WithoutCancel(ctx), c)
}

func programs() string {
	dir, err := filepath.Abs("build")
	if err != nil {
		return "build/kube:build/tools"
	}
	return filepath.Join(dir, "kube") + ":" + filepath.Join(dir, "tools")
}

func indent(text string) string {
	return "    " + strings.ReplaceAll(strings.TrimSpace(text), "\n", "\n    ")
}

// show prints the log groups, and counts the writers' lines up to the highest number that has arrived.
func show(ctx context.Context, c *realnode.Cluster) error {
	groups, err := c.AWS.CloudWatch.Groups(ctx)
	if err != nil {
		return err
	}
	events := map[string]int64{}
	for _, g := range c.AWS.Groups() {
		events[g.Name] = g.Events
	}
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "\nGROUP\tRETENTION\tEVENTS")
	for _, g := range groups {
		days := "never expires"
		if g.RetentionInDays != nil {
			days = fmt.Sprint(*g.RetentionInDays, " days")
		}
		fmt.Fprintf(w, "%s\t%s\t%d\n", *g.LogGroupName, days, events[*g.LogGroupName])
	}
	fmt.Fprintln(w, "\nWRITER\tGROUP\tUP TO THE NEWEST LINE THAT ARRIVED")
	for _, writer := range writers {
		count := c.Lines.Between(writer.Name, 0, c.Lines.Highest(writer.Name)+1)
		fmt.Fprintf(w, "%s/%s\t%s\t%s\n", writer.Namespace(), writer.Name, realnode.Group(writer.Tenant), count)
		if others := count.Others(realnode.Group(writer.Tenant)); others != nil {
			return fmt.Errorf("lines of %s are in %v", writer.Name, others)
		}
	}
	return w.Flush()
}
