package realnode

import (
	"context"
	"errors"
	"net"
	"net/url"
	"os"

	"github.com/eks-tenant-logs/eks-tenant-logs/e2e/node"
	"github.com/eks-tenant-logs/eks-tenant-logs/internal/fakeaws"
)

// AWS is the stand-in, as the cluster reaches it under AWS's own names and this process at loopback.
type AWS struct {
	*fakeaws.Server
	// CloudWatch reads back what arrived, and has the credentials.
	CloudWatch *node.CloudWatch
	// Gate is between the cluster and the stand-in.
	Gate *node.Gate
	// CA is the authority that pods must trust, as PEM.
	CA []byte
}

// awsSocket is where the control plane's machine brings the connections to AWS's names.
const awsSocket = "aws.sock"

// startAWS starts the stand-in in this process.
func (c *Cluster) startAWS() error {
	cfg := c.options.AWS
	cfg.Region, cfg.Observe = Region, c.Lines.observe
	cfg.Hosts = append(cfg.Hosts, "*.amazonaws.com", "*."+Region+".amazonaws.com", "*."+Region+".api.aws")
	cw, server, err := node.StartStandIn(c.Dir, cfg)
	if err != nil {
		return err
	}
	c.AWS = &AWS{Server: server, CloudWatch: cw}
	if c.AWS.CA, err = os.ReadFile(cw.CAFile); err != nil {
		return err
	}
	gate, through, err := node.NewGate(cw.Endpoint)
	if err != nil {
		return err
	}
	c.AWS.Gate = gate
	u, err := url.Parse(through)
	if err != nil {
		return err
	}
	// A Unix socket reaches over the border of network namespaces.
	l, err := net.Listen("unix", c.path(awsSocket))
	if err != nil {
		return err
	}
	c.forward(l, func(ctx context.Context) (net.Conn, error) { return new(net.Dialer).DialContext(ctx, "tcp", u.Host) })
	return nil
}

func (a *AWS) close() error {
	var err error
	if a.Gate != nil {
		err = a.Gate.Close()
	}
	return errors.Join(err, a.Server.Close())
}
