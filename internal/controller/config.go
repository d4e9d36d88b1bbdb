// Package controller watches a cluster's namespaces and has each tenant's log group and IAM
// set up by an engine, publishes who is whose, and says in Kubernetes what came of it.
//
// It must not know AWS.
package controller

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"time"

	"github.com/eks-tenant-logs/eks-tenant-logs/internal/tenancy"
)

// Every ConfigMap that the controller writes bears this label; one without it is somebody
// else's and is not touched.
const (
	managedBy = "app.kubernetes.io/managed-by"
	manager   = "eks-tenant-logs"
)

const (
	defaultResync      = 10 * time.Minute
	defaultPassTimeout = 30 * time.Minute
	// fileLook is how often a tenants file is looked at: nobody tells of its changes.
	fileLook = 15 * time.Second
	// maxConfigMap bounds the registry and a tenants file in bytes: a ConfigMap's data holds
	// 1 MiB (API reference), and etcd takes no request of more than 1.5 MiB.
	maxConfigMap = 1 << 20
)

// Config is how the controller works.
type Config struct {
	// Namespace is the release's, Release its name: its ConfigMaps are <Release>-status and,
	// with ModeRegistry, <Release>-registry.
	Namespace, Release string
	Mode               tenancy.Mode
	// Prefix is the namespaces' with ModePrefix.
	Prefix string
	// ExceptionsFile is the tenants file, or ExceptionsConfigMap the ConfigMap of the release's
	// namespace that has it under tenants.yaml; one of them, or none. One that is not there is
	// an error: until it is, nothing is done, or the last one stays in force.
	ExceptionsFile, ExceptionsConfigMap string
	// Reserved namespaces are never a tenant's, beside those of Kubernetes; the release's own
	// is to be among them.
	Reserved []string
	// Resync is how often all tenants are looked at again, give or take a tenth; 0 means 10
	// minutes.
	Resync time.Duration
	// PassTimeout bounds one call of the engine; 0 means 30 minutes: the first one of
	// thousands of tenants takes its time under AWS's quotas.
	PassTimeout time.Duration
	// MetricsAddress and HealthAddress are host:port, "0" for none.
	MetricsAddress, HealthAddress string
	Log                           *slog.Logger
}

// Check fills what is empty, and says all that is wrong.
func (c *Config) Check() error {
	var errs []error
	add := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if !tenancy.Label(c.Namespace) {
		add("the release's namespace %q is no namespace's name", c.Namespace)
	}
	if !tenancy.Label(c.Release) || len(c.Release) > 53 {
		add("the release %q: Helm calls releases by a DNS label of up to 53 characters", c.Release)
	}
	if c.ExceptionsFile != "" && c.ExceptionsConfigMap != "" {
		add("the tenants file is given as a file and as a ConfigMap: one of them is enough")
	}
	if c.Resync == 0 {
		c.Resync = defaultResync
	}
	if c.PassTimeout == 0 {
		c.PassTimeout = defaultPassTimeout
	}
	if c.Resync < time.Minute {
		add("resync %v: at least a minute, for each looks at all tenants", c.Resync)
	}
	if c.PassTimeout < time.Second {
		add("the time limit of a pass, %v, is too short", c.PassTimeout)
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	return errors.Join(errs...)
}

func (c *Config) statusName() string   { return c.Release + "-status" }
func (c *Config) registryName() string { return RegistryName(c.Release) }

// exceptionsFrom says where the tenants file is, for people.
func (c *Config) exceptionsFrom() string {
	switch {
	case c.ExceptionsFile != "":
		return c.ExceptionsFile
	case c.ExceptionsConfigMap != "":
		return "ConfigMap " + c.Namespace + "/" + c.ExceptionsConfigMap
	}
	return "(none)"
}

// exceptionsText is the tenants file; empty where none is configured.
func (c *Config) exceptionsText(ctx context.Context, k surroundings) (string, error) {
	switch {
	case c.ExceptionsFile != "":
		info, err := os.Stat(c.ExceptionsFile)
		if err != nil {
			return "", err
		}
		if info.Size() > maxConfigMap {
			return "", fmt.Errorf("%s has %d bytes, more than a ConfigMap holds", c.ExceptionsFile, info.Size())
		}
		text, err := os.ReadFile(c.ExceptionsFile)
		return string(text), err
	case c.ExceptionsConfigMap != "":
		o, err := k.seen(ctx, c.ExceptionsConfigMap)
		if err != nil {
			return "", err
		}
		// Whoever took a missing file for an empty one would give namespaces to other tenants
		// than the nodes do, and retire those that the file names.
		text, ok := o.data[registryKey]
		if !ok {
			return "", fmt.Errorf("there is no ConfigMap %s/%s with the key %s: helm upgrade makes it", c.Namespace, c.ExceptionsConfigMap, registryKey)
		}
		return text, nil
	}
	return "", nil
}
