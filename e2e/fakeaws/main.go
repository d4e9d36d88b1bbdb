// Command fakeaws runs the stand-in for AWS of internal/fakeaws as a process, for tests of programs that are
// written in other languages or that must not share the test's memory.
//
// When it is ready it prints one line of JSON, {"url": …, "ca_file": …}, and serves until SIGTERM or SIGINT. What it was
// sent can be read, unsigned, from <url>/_fake/state, /_fake/calls and /_fake/events?group=…&stream=…. With --enforce it holds
// every call to its caller's policies; the accepted keys are administrators, and further keys come from POST requests to
// /_fake/root-key, /_fake/pod-session and /_fake/web-identity-token.
package main

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/eks-tenant-logs/eks-tenant-logs/internal/fakeaws"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer stop()
	if err := command(os.Stdout, os.Stderr).ExecuteContext(ctx); err != nil {
		stop()
		os.Exit(1)
	}
}

type options struct {
	listen, region, account, partition string
	caFile, readyFile                  string
	credentials                        []string
	latency                            time.Duration
	tls, allowUnknown, discard, debug  bool
	enforce, closeConnections          bool
	http2, minTLS, maxTLS              string
	callsPerConnection                 int
}

// ready is the line that is printed, and written to the ready file, once requests are served.
type ready struct {
	URL    string `json:"url"`
	CAFile string `json:"ca_file,omitempty"`
}

func command(stdout, stderr io.Writer) *cobra.Command {
	var o options
	c := &cobra.Command{
		Use:          "fakeaws",
		Short:        "A strict stand-in for CloudWatch Logs, IAM, STS, EKS and KMS on the loopback interface",
		Args:         cobra.NoArgs,
		SilenceUsage: true,
		RunE: func(c *cobra.Command, _ []string) error {
			return run(c.Context(), o, stdout, stderr)
		},
	}
	c.SetOut(stdout)
	c.SetErr(stderr)
	f := c.Flags()
	f.StringVar(&o.listen, "listen", "127.0.0.1:0", "loopback address and port; port 0 takes any")
	f.BoolVar(&o.tls, "tls", false, "serve HTTPS with a certificate made for this run")
	f.StringVar(&o.caFile, "ca-file", "", "with --tls: where to write the authority's certificate (default: a temporary file)")
	f.StringVar(&o.readyFile, "ready-file", "", "also write the ready line to this file")
	f.DurationVar(&o.latency, "latency", 0, "time to wait before each answer")
	f.StringVar(&o.region, "region", "us-east-1", "the region that is served")
	f.StringVar(&o.account, "account", "123456789012", "the account's id")
	f.StringVar(&o.partition, "partition", "aws", "the partition in ARNs")
	f.StringArrayVar(&o.credentials, "credential", nil, "<access key id>:<secret> to accept; repeatable (default: the example key of AWS's documentation)")
	f.BoolVar(&o.allowUnknown, "allow-unknown-members", false, "ignore request members that AWS's model does not have, instead of refusing them")
	f.BoolVar(&o.discard, "discard-messages", false, "count events without keeping them")
	f.BoolVar(&o.enforce, "enforce", false, "allow a call only where its caller's IAM policies do")
	f.StringVar(&o.http2, "http2", "off", "with --tls: off, on (beside HTTP/1.1, and preferred) or only")
	f.StringVar(&o.minTLS, "tls-min", "1.2", "with --tls: the oldest version, 1.2 or 1.3")
	f.StringVar(&o.maxTLS, "tls-max", "1.3", "with --tls: the newest version, 1.2 or 1.3")
	f.BoolVar(&o.closeConnections, "close-connections", false, "answer each call with Connection: close, over HTTP/2 with GOAWAY")
	f.IntVar(&o.callsPerConnection, "calls-per-connection", 0, "close a connection when a call arrives after so many, without carrying it out; 0: never")
	f.BoolVar(&o.debug, "debug", false, "log each call to stderr")
	return c
}

func run(ctx context.Context, o options, stdout, stderr io.Writer) (err error) {
	level := slog.LevelInfo
	if o.debug {
		level = slog.LevelDebug
	}
	cfg := fakeaws.Config{
		Region: o.region, AccountID: o.account, Partition: o.partition, Latency: o.latency,
		Enforce: o.enforce, AllowUnknownMembers: o.allowUnknown, DiscardMessages: o.discard,
		Logger: slog.New(slog.NewTextHandler(stderr, &slog.HandlerOptions{Level: level})),
	}
	cfg.CloseConnections, cfg.CallsPerConnection = o.closeConnections, o.callsPerConnection
	if err := o.speak(&cfg); err != nil {
		return err
	}
	for _, c := range o.credentials {
		id, secret, ok := strings.Cut(c, ":")
		if !ok || id == "" || secret == "" {
			return errors.New("--credential must be <access key id>:<secret>")
		}
		if cfg.Credentials == nil {
			cfg.Credentials = map[string]string{}
		}
		cfg.Credentials[id] = secret
	}
	if o.caFile != "" && !o.tls {
		return errors.New("--ca-file needs --tls")
	}

	s := fakeaws.New(cfg)
	start := s.Start
	if o.tls {
		start = s.StartTLS
	}
	var r ready
	if r.URL, err = start(o.listen); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	if o.tls {
		if r.CAFile, err = writeCA(s, o.caFile); err != nil {
			return err
		}
		if o.caFile == "" {
			defer func() { err = errors.Join(err, os.Remove(r.CAFile)) }()
		}
	}
	line, err := json.Marshal(r)
	if err != nil {
		return err
	}
	line = append(line, '\n')
	if o.readyFile != "" {
		if err := writeWhole(o.readyFile, line); err != nil {
			return fmt.Errorf("write the ready file: %w", err)
		}
	}
	if _, err := stdout.Write(line); err != nil {
		return err
	}
	<-ctx.Done()
	return nil
}

// speak sets the versions of HTTP and TLS.
func (o options) speak(cfg *fakeaws.Config) error {
	switch o.http2 {
	case "off":
	case "on":
		cfg.Protocols.SetHTTP1(true)
		cfg.Protocols.SetHTTP2(true)
	case "only":
		cfg.Protocols.SetHTTP2(true)
	default:
		return fmt.Errorf("--http2 is %q: off, on or only", o.http2)
	}
	versions := map[string]uint16{"1.2": tls.VersionTLS12, "1.3": tls.VersionTLS13}
	cfg.MinTLS, cfg.MaxTLS = versions[o.minTLS], versions[o.maxTLS]
	if cfg.MinTLS == 0 || cfg.MaxTLS == 0 || cfg.MinTLS > cfg.MaxTLS {
		return fmt.Errorf("--tls-min is %q and --tls-max %q: 1.2 or 1.3, and the first not above the second", o.minTLS, o.maxTLS)
	}
	return nil
}

// writeCA writes the authority's certificate to path, or to a new temporary file, and returns the file's absolute name.
func writeCA(s *fakeaws.Server, path string) (string, error) {
	pem, err := s.CAPEM()
	if err != nil {
		return "", err
	}
	if path == "" {
		f, err := os.CreateTemp("", "fakeaws-ca-*.pem")
		if err != nil {
			return "", err
		}
		path = f.Name()
		if err := f.Close(); err != nil {
			return "", err
		}
	}
	if err := writeWhole(path, pem); err != nil {
		return "", fmt.Errorf("write the CA file: %w", err)
	}
	return filepath.Abs(path)
}

// writeWhole writes a file so that nobody ever sees half of it.
func writeWhole(path string, data []byte) error {
	tmp, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".*")
	if err != nil {
		return err
	}
	_, err = tmp.Write(data)
	err = errors.Join(err, tmp.Chmod(0o644), tmp.Close())
	if err == nil {
		err = os.Rename(tmp.Name(), path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(tmp.Name()))
	}
	return nil
}
