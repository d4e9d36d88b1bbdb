package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"go.yaml.in/yaml/v3"

	"github.com/eks-tenant-logs/eks-tenant-logs/internal/awsclient"
	"github.com/eks-tenant-logs/eks-tenant-logs/internal/awsclient/control"
	"github.com/eks-tenant-logs/eks-tenant-logs/internal/iampolicy"
	"github.com/eks-tenant-logs/eks-tenant-logs/internal/provision"
	"github.com/eks-tenant-logs/eks-tenant-logs/internal/tenancy"
)

// installationFlags say what holds for all tenants, and how AWS is reached: for every
// command that provisions.
type installationFlags struct {
	routing                               routingFlags
	aws                                   awsclient.Config
	iamEndpoint, kmsEndpoint, eksEndpoint string
	installation                          provision.Installation
	tags                                  map[string]string
	trust                                 trustFlags
	tenants                               []string
	namespaces                            []string
	output                                string
	kubeconfig                            string
	release, releaseNamespace             string
	reserved                              []string
	// quiet is the log of a command that has no terminal; nil: a progress bar.
	quiet *slog.Logger
}

// trustFlags say who may assume a role.
type trustFlags struct {
	principals, accounts, sso, irsa, pods []string
	oidc, externalID                      string
}

func (f *installationFlags) add(cmd *cobra.Command) {
	f.routing.add(cmd)
	fs := cmd.Flags()
	fs.StringVar(&f.aws.Region, "region", "", "the AWS region; default: AWS_REGION")
	fs.StringVar(&f.aws.Endpoint, "endpoint", "", "replaces AWS's host for CloudWatch Logs")
	fs.StringVar(&f.aws.STSEndpoint, "sts-endpoint", "", "replaces AWS's host for STS")
	fs.StringVar(&f.iamEndpoint, "iam-endpoint", "", "replaces AWS's host for IAM")
	fs.StringVar(&f.kmsEndpoint, "kms-endpoint", "", "replaces AWS's host for KMS")
	fs.StringVar(&f.eksEndpoint, "eks-endpoint", "", "replaces AWS's host for EKS")
	fs.StringVar(&f.aws.Profile, "profile", "", "a profile of the shared AWS configuration")
	fs.StringVar(&f.aws.RoleARN, "role-arn", "", "a role to assume for all calls")
	fs.StringVar(&f.aws.ExternalID, "external-id", "", "goes with --role-arn")
	fs.BoolVar(&f.aws.UseFIPS, "use-fips", false, "use FIPS 140 endpoints")
	fs.BoolVar(&f.aws.UseDualStack, "use-dual-stack", false, "use endpoints that have IPv6 addresses too")
	in := &f.installation
	fs.StringVar(&in.Scope.Cluster, "cluster", "", "the EKS cluster's name")
	fs.StringVar(&in.Scope.Account, "account", "", "the AWS account; default: that of the credentials; refused where it is another")
	fs.StringVar(&in.Scope.Partition, "partition", "", "the AWS partition; default: the region's")
	fs.StringVar(&in.Scope.RolePath, "role-path", "", "the path of roles and policies; default /eks-tenant-logs/")
	fs.IntVar(&in.RetentionDays, "log-retention-days", provision.DefaultRetentionDays, "the least that groups keep their events, as the plugin's log_retention_days")
	fs.StringVar(&in.Class, "log-group-class", "", "of groups that are created: STANDARD or INFREQUENT_ACCESS")
	fs.StringVar(&in.KMSKeyARN, "kms-key-id", "", "the key of groups whose tenant names none")
	fs.BoolVar(&in.KeyPerTenant, "key-per-tenant", false, "make a KMS key for each tenant that names none")
	fs.BoolVar(&in.DeletionProtection, "deletion-protection", false, "switch deletion protection on")
	fs.StringVar(&in.OnFailure, "on-failure", "", "the plugin's on_failure: which tenants need a quarantine group")
	fs.StringToStringVar(&f.tags, "tag", nil, "key=value, put on groups, roles and keys; may be given again")
	fs.BoolVar(&in.NoReaderRoles, "no-reader-roles", false, "leave the reader roles to somebody else")
	fs.BoolVar(&in.Shared, "shared", false, "clusters with this log_group_prefix share their tenants")
	fs.BoolVar(&in.Adopt, "adopt", false, "take log groups that have none of our tags for the tenants' of their names")
	f.trust.add(cmd, "trust-", "of the reader roles; $(tenant) and $(namespace) are replaced")
	fs.StringVarP(&f.output, "output", "o", "table", "table, json or yaml")
}

// read is what the flags say of routing. Where namespaces are read from a cluster, the registry
// needs no file: their labels are it.
func (f *installationFlags) read() (routing, error) {
	f.routing.elsewhere = f.routing.elsewhere || f.kubeconfig != ""
	return f.routing.read()
}

// addTenants adds the flags that say which tenants.
func (f *installationFlags) addTenants(cmd *cobra.Command) {
	fs := cmd.Flags()
	fs.StringSliceVar(&f.tenants, "tenant", nil, "a tenant; may be given again; default: all of --tenants-file and --namespace")
	fs.StringSliceVar(&f.namespaces, "namespace", nil, "a namespace there is, as name=uid; may be given again")
	fs.StringVar(&f.kubeconfig, "kubeconfig", "", "read the namespaces, their UIDs and labels from this cluster, as the controller does; for that list on namespaces is needed, and get on ConfigMap <release>-registry with --tenant-source registry")
	fs.StringVar(&f.release, "release", "eks-tenant-logs", "with --kubeconfig: the Helm release, whose registry says which namespace has which tenant")
	fs.StringVar(&f.releaseNamespace, "release-namespace", "", "with --kubeconfig: the release's namespace, which is never a tenant's")
	fs.StringSliceVar(&f.reserved, "reserved-namespace", nil, "with --kubeconfig: a namespace that is never a tenant's, as the controller is told; may be given again")
}

func (t *trustFlags) add(cmd *cobra.Command, prefix, whose string) {
	fs := cmd.Flags()
	fs.StringSliceVar(&t.principals, prefix+"principal", nil, "the ARN of a role or user who may assume the role "+whose)
	fs.StringSliceVar(&t.accounts, prefix+"account", nil, "another account whose principals may; needs --"+prefix+"external-id")
	fs.StringSliceVar(&t.sso, prefix+"sso-role", nil, "a pattern of IAM Identity Center roles' ARNs")
	fs.StringSliceVar(&t.irsa, prefix+"irsa", nil, "a service account namespace/name that gets the role by IRSA, with --"+prefix+"oidc-provider")
	fs.StringVar(&t.oidc, prefix+"oidc-provider", "", "the cluster's OIDC provider, without https://")
	fs.StringSliceVar(&t.pods, prefix+"pod-identity", nil, "a service account namespace/name that gets the role by EKS Pod Identity")
	fs.StringVar(&t.externalID, prefix+"external-id", "", "the external id that other accounts give")
}

func (t *trustFlags) read() (iampolicy.Trust, error) {
	trust := iampolicy.Trust{Principals: t.principals, Accounts: t.accounts, SSORoles: t.sso, OIDCProvider: t.oidc, ExternalID: t.externalID}
	for _, list := range []struct {
		given []string
		to    *[]iampolicy.ServiceAccount
	}{{t.irsa, &trust.IRSA}, {t.pods, &trust.PodIdentity}} {
		for _, s := range list.given {
			namespace, name, ok := strings.Cut(s, "/")
			if !ok || namespace == "" || name == "" || strings.Contains(name, "/") {
				return trust, fmt.Errorf("%q is no service account: give namespace/name", s)
			}
			*list.to = append(*list.to, iampolicy.ServiceAccount{Namespace: namespace, Name: name})
		}
	}
	return trust, nil
}

// session is what a command works with.
type session struct {
	*provision.Provisioner
	client  *awsclient.Client
	routing routing
	bar     *progressBar
}

// start checks everything that was given, then asks whose credentials these are.
func (f *installationFlags) start(ctx context.Context, cmd *cobra.Command) (*session, error) {
	if err := checkOutput(f.output); err != nil {
		return nil, err
	}
	to, err := f.read()
	if err != nil {
		return nil, err
	}
	in := f.installation
	in.Tags, in.Scope.Names = f.tags, to.names
	if in.Trust, err = f.trust.read(); err != nil {
		return nil, err
	}
	if in.Scope.Cluster == "" {
		return nil, errors.New("--cluster is not given: roles are named after it")
	}
	f.aws.ExtraUserAgent = "tenantlogs"
	if f.quiet != nil {
		f.aws.Renewed = func(r awsclient.Renewal) { tellRenewal(f.quiet, r) }
	}
	client, err := awsclient.New(ctx, f.aws)
	if err != nil {
		return nil, err
	}
	in.Scope.Region = client.Region
	if in.Scope.Partition == "" {
		in.Scope.Partition = awsclient.Partition(client.Region)
	}
	given := in.Scope.Account
	if given == "" {
		in.Scope.Account = "000000000000" // until AWS says which: what is wrong is told before the first call
	}
	if _, err := provision.NewInstallation(in); err != nil {
		return nil, err
	}
	cloud := provision.Cloud{Logs: client, As: func(r awsclient.Role) provision.Logs { return client.As(r) }}
	if cloud.IAM, err = control.NewIAM(client, f.iamEndpoint); err != nil {
		return nil, err
	}
	if cloud.KMS, err = control.NewKMS(client, f.kmsEndpoint); err != nil {
		return nil, err
	}
	if cloud.EKS, err = control.NewEKS(client, f.eksEndpoint); err != nil {
		return nil, err
	}
	account, _, err := client.Account(ctx)
	if err != nil {
		return nil, err
	}
	if given != "" && given != account {
		return nil, fmt.Errorf("the credentials are account %s's, and --account says %s", account, given)
	}
	in.Scope.Account = account
	s := &session{client: client, routing: to}
	options := provision.Options{Log: f.quiet}
	if f.quiet == nil {
		s.bar = newProgressBar(cmd.ErrOrStderr())
		options.Log, options.Progress = slog.New(slog.NewTextHandler(s.bar, &slog.HandlerOptions{Level: slog.LevelWarn})), s.bar.provisioning
	}
	s.Provisioner, err = provision.New(in, cloud, options)
	return s, err
}

// tellRenewal tells of credentials that were renewed before their time, or could not be. How often
// credentials are asked for is bounded.
func tellRenewal(log *slog.Logger, r awsclient.Renewal) {
	attrs := []any{"cause", string(r.Cause), "source", r.Source}
	switch {
	case r.Err != nil:
		log.Warn("no AWS credentials could be had; those in use stay in use as long as AWS accepts them", append(attrs, "error", awsclient.Brief(r.Err))...)
	case r.Other && r.Cause != awsclient.CauseExpiring:
		log.Info("AWS credentials were renewed", attrs...)
	}
}

// desired is the one place where the tenants come from: the tenants file, and what the flags
// say there is in the cluster. It makes no call.
func (f *installationFlags) desired() ([]provision.Tenant, error) {
	to, err := f.read()
	if err != nil {
		return nil, err
	}
	tenants := map[string]*provision.Tenant{}
	tenant := func(name string) *provision.Tenant {
		if tenants[name] == nil {
			tenants[name] = &provision.Tenant{Name: name, Settings: to.registry.Tenant(name)}
		}
		return tenants[name]
	}
	for _, given := range f.namespaces {
		name, uid, _ := strings.Cut(given, "=")
		if !tenancy.Label(name) {
			return nil, fmt.Errorf("--namespace %q: %q is no namespace's name", given, name)
		}
		kind, t := to.registry.Resolve(name)
		switch {
		case kind == tenancy.KindTenant:
		case kind == tenancy.KindPending && len(f.tenants) == 1:
			// In registry mode the label is the cluster's to know: the flags say whose it is.
			t = &tenancy.Tenant{Name: f.tenants[0]}
		case kind == tenancy.KindPending:
			return nil, fmt.Errorf("--namespace %s: the tenants file does not list it: say whose it is with one --tenant", name)
		default:
			return nil, fmt.Errorf("--namespace %s: it is no tenant's by the tenants file and the prefix rule, and its lines go to the platform group", name)
		}
		x := tenant(t.Name)
		x.Namespaces = append(x.Namespaces, provision.Namespace{Name: name, UID: uid})
	}
	for _, t := range to.registry.Tenants() {
		tenant(t.Name)
	}
	for _, name := range f.tenants {
		if !tenancy.Label(name) {
			return nil, fmt.Errorf("--tenant %q is no tenant's name: it is a DNS label, lower-case letters, digits and -, up to 63", name)
		}
		tenant(name)
	}
	if f.kubeconfig != "" {
		if len(f.namespaces) > 0 {
			return nil, errors.New("--namespace and --kubeconfig both say which namespaces there are: one of them is enough")
		}
		return f.ofCluster(to)
	}
	var all []provision.Tenant
	for _, name := range slices.Sorted(maps.Keys(tenants)) {
		t := tenants[name]
		if len(f.tenants) > 0 && !slices.Contains(f.tenants, name) {
			continue
		}
		for _, ns := range named(t, to, f.routing.prefix) {
			if !slices.ContainsFunc(t.Namespaces, func(have provision.Namespace) bool { return have.Name == ns }) {
				t.Namespaces = append(t.Namespaces, provision.Namespace{Name: ns})
			}
		}
		all = append(all, *t)
	}
	return all, nil
}

// named are the namespaces a tenant has by the file or the prefix rule, whose UIDs only the
// cluster knows.
func named(t *provision.Tenant, to routing, prefix string) []string {
	switch {
	case t.Settings != nil && len(t.Settings.Namespaces) > 0:
		return t.Settings.Namespaces
	case len(t.Namespaces) > 0 || to.mode != tenancy.ModePrefix || !tenancy.Label(prefix+t.Name):
		return nil
	}
	return []string{prefix + t.Name}
}

// checkOutput refuses a format that encode does not know.
func checkOutput(format string) error {
	if format != "table" && format != "json" && format != "yaml" {
		return fmt.Errorf("--output %q is neither table, json nor yaml", format)
	}
	return nil
}

// encode writes v in the format asked for, or as table does.
func encode(w io.Writer, format string, v any, table func(io.Writer) error) error {
	switch format {
	case "json":
		enc := json.NewEncoder(w)
		enc.SetIndent("", "  ")
		enc.SetEscapeHTML(false)
		return enc.Encode(v)
	case "yaml":
		return yaml.NewEncoder(w).Encode(v)
	}
	return table(w)
}
