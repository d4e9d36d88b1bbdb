package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"go.yaml.in/yaml/v3"

	"github.com/eks-tenant-logs/eks-tenant-logs/internal/iampolicy"
	"github.com/eks-tenant-logs/eks-tenant-logs/internal/tenancy"
)

// policyFlags are what the documents are made of.
type policyFlags struct {
	routing    routingFlags
	scope      iampolicy.Scope
	trust      trustFlags
	tenant     string
	namespace  string
	controller bool
	roles      []string
	duty       string
	output     string
}

// part is the part of a policy that --duty names, or the whole.
func (f *policyFlags) part(name string, parts []iampolicy.Part, whole *iampolicy.Document) (*iampolicy.Document, error) {
	if f.duty == "" {
		return whole, nil
	}
	var duties []string
	for _, p := range parts {
		if p.Duty == f.duty {
			return p.Document, nil
		}
		duties = append(duties, p.Duty)
	}
	return nil, fmt.Errorf("--duty %q is no part of %s: use %s", f.duty, name, strings.Join(duties, ", "))
}

// policies are the documents there are to print. Those about one tenant need its name.
var policies = map[string]struct {
	about     string
	ofATenant bool
	make      func(f *policyFlags, s iampolicy.Scope) (*iampolicy.Document, error)
}{
	"writer": {"the nodes' policy", false, func(f *policyFlags, s iampolicy.Scope) (*iampolicy.Document, error) {
		return s.Writer(f.controller, f.roles...), nil
	}},
	"reader": {"the inline policy of a tenant's reader role", true, func(f *policyFlags, s iampolicy.Scope) (*iampolicy.Document, error) {
		return s.Reader(f.tenant), nil
	}},
	"reader-abac": {"the policy of one reader role for all tenants, by the tags of EKS Pod Identity", false, func(f *policyFlags, s iampolicy.Scope) (*iampolicy.Document, error) {
		if f.routing.source != "prefix" || f.routing.prefix != "" || f.routing.file != "" {
			return nil, errors.New("a role by tags reads the group that is called as the namespace is: it is right only where every namespace is a tenant of its own name (--namespace-prefix= and no --tenants-file); else give each tenant its reader role")
		}
		return s.ReaderABAC(), nil
	}},
	"boundary": {"the permissions boundary of all reader roles", false, func(_ *policyFlags, s iampolicy.Scope) (*iampolicy.Document, error) { return s.Boundary(), nil }},
	"auditor": {"the auditors' policy", false, func(f *policyFlags, s iampolicy.Scope) (*iampolicy.Document, error) {
		return f.part("auditor", s.AuditorParts(), s.Auditor())
	}},
	"provisioner": {"the controller's policy", false, func(f *policyFlags, s iampolicy.Scope) (*iampolicy.Document, error) {
		return f.part("provisioner", s.ProvisionerParts(f.roles...), s.Provisioner(f.roles...))
	}},
	"replay": {"the policy of tenantlogs replay", false, func(f *policyFlags, s iampolicy.Scope) (*iampolicy.Document, error) { return s.Replay(f.roles...), nil }},
	"canary": {"the policy of the canary (helm test), which is a test tenant's pod", true, func(f *policyFlags, s iampolicy.Scope) (*iampolicy.Document, error) { return s.Canary(f.tenant), nil }},
	"kms":    {"the policy of a tenant's KMS key", true, func(f *policyFlags, s iampolicy.Scope) (*iampolicy.Document, error) { return s.KMS(f.tenant), nil }},
	"trust": {"the trust policy of a tenant's reader role, by the --trust- flags", true, func(f *policyFlags, s iampolicy.Scope) (*iampolicy.Document, error) {
		t, err := f.trust.read()
		if err != nil {
			return nil, err
		}
		return s.TrustPolicy(t, f.tenant, f.namespace)
	}},
}

func policyCommand() *cobra.Command {
	var f policyFlags
	names := slices.Sorted(maps.Keys(policies))
	about := ""
	for _, n := range names {
		about += fmt.Sprintf("  %-12s %s\n", n, policies[n].about)
	}
	cmd := &cobra.Command{
		Use:       "policy <" + strings.Join(names, "|") + ">",
		Short:     "Print an IAM policy as JSON; no call is made",
		Long:      "Print an IAM policy as JSON, for those who make their roles with Terraform or by hand. No call is made.\n\n" + about,
		Args:      cobra.MatchAll(cobra.ExactArgs(1), cobra.OnlyValidArgs),
		ValidArgs: names,
		RunE: func(cmd *cobra.Command, args []string) error {
			text, err := f.render(args[0])
			if err != nil {
				return err
			}
			_, err = cmd.OutOrStdout().Write(text)
			return err
		},
	}
	fs := cmd.Flags()
	f.routing.add(cmd)
	fs.StringVar(&f.scope.Region, "region", "", "the AWS region")
	fs.StringVar(&f.scope.Account, "account", "", "the AWS account")
	fs.StringVar(&f.scope.Cluster, "cluster", "", "the EKS cluster's name")
	fs.StringVar(&f.scope.Partition, "partition", "", "the AWS partition; default: the region's")
	fs.StringVar(&f.scope.RolePath, "role-path", "", "the path of roles and policies; default "+iampolicy.DefaultRolePath)
	fs.StringVar(&f.tenant, "tenant", "", "the tenant, for reader, canary, kms and trust")
	fs.StringVar(&f.namespace, "namespace", "", "the tenant's namespace, for trust; default: by the prefix rule")
	fs.BoolVar(&f.controller, "controller", true, "of writer: the provisioner is there, so nodes neither create groups nor set retention")
	fs.StringSliceVar(&f.roles, "tenant-role", nil, "of writer, provisioner and replay: the roleArn of a tenant with an account of its own; its account may be *; may be given again")
	fs.StringVar(&f.duty, "duty", "", "of provisioner (groups, roles, pods-and-keys, accounts with --tenant-role, denies) and auditor (reads, denies): this part alone, which fits a managed policy; the role needs all")
	f.trust.add(cmd, "trust-", "of the reader role; $(tenant) and $(namespace) are replaced")
	fs.StringVarP(&f.output, "output", "o", "json", "json or yaml")
	return cmd
}

// render is the document in the format asked for.
func (f *policyFlags) render(name string) ([]byte, error) {
	if f.output != "json" && f.output != "yaml" {
		return nil, fmt.Errorf("--output %q is neither json nor yaml", f.output)
	}
	to, err := f.routing.read()
	if err != nil {
		return nil, err
	}
	f.scope.Names = to.names
	scope, err := iampolicy.NewScope(f.scope)
	if err != nil {
		return nil, err
	}
	if err := scope.CheckTenantRoles(f.roles); err != nil {
		return nil, err
	}
	p := policies[name]
	if f.duty != "" && name != "provisioner" && name != "auditor" {
		return nil, fmt.Errorf("--duty %q: only the policies provisioner and auditor have parts", f.duty)
	}
	if p.ofATenant && !tenancy.Label(f.tenant) {
		return nil, fmt.Errorf("--tenant %q is no tenant's name: %s is about one tenant, whose name is a DNS label", f.tenant, name)
	}
	if f.namespace == "" && to.mode == tenancy.ModePrefix {
		f.namespace = f.routing.prefix + f.tenant
	}
	d, err := p.make(f, scope)
	if err != nil {
		return nil, err
	}
	text, err := d.Indent()
	if err != nil || f.output == "json" {
		return text, err
	}
	var v any
	if err := json.Unmarshal(text, &v); err != nil {
		return nil, err
	}
	return yaml.Marshal(v)
}
