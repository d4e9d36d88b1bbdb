package provision

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/iam"
	iamtypes "github.com/aws/aws-sdk-go-v2/service/iam/types"

	"github.com/eks-tenant-logs/eks-tenant-logs/internal/awsclient"
	"github.com/eks-tenant-logs/eks-tenant-logs/internal/iampolicy"
	"github.com/eks-tenant-logs/eks-tenant-logs/internal/loggroup"
	"github.com/eks-tenant-logs/eks-tenant-logs/internal/tenancy"
)

// Bootstrap is what a cluster has one of. For each role, who may assume it; where nobody is
// named the role is made, and trusts nobody.
type Bootstrap struct {
	// Writer is the nodes'. With Controller it may neither create groups nor set retention.
	Writer     iampolicy.Trust
	Controller bool
	// Provisioner is the controller's, and whoever's runs apply.
	Provisioner iampolicy.Trust
	// TenantRoles are the ARNs of the roles by which tenants with an account of their own are
	// reached, with * as the account where it is open (iampolicy.Scope.CheckTenantRoles):
	// writer, provisioner and replay may assume them.
	TenantRoles []string
	Auditor     iampolicy.Trust
	Replay      iampolicy.Trust
	// CanaryTenant is the test tenant of the canary, whose role reads the platform's group, too;
	// empty: no role is made for it.
	CanaryTenant string
	Canary       iampolicy.Trust
}

// clusterPolicy is the name of the one inline policy of a cluster's role.
const clusterPolicy = "permissions"

// clusterRole is one of the cluster's roles as it is to be.
type clusterRole struct {
	purpose, name, about string
	who                  iampolicy.Trust // may assume it
	policy, trust        *iampolicy.Document
}

// BootstrapRole is the name of a cluster's role: writer, provisioner, auditor, replay, canary.
func (in Installation) BootstrapRole(purpose string) string {
	return tenancy.ClusterRole(in.Scope.Cluster, in.Scope.Region, purpose)
}

func (in Installation) clusterRoles(b Bootstrap) ([]clusterRole, error) {
	if err := in.Scope.CheckTenantRoles(b.TenantRoles); err != nil {
		return nil, err
	}
	roles := []clusterRole{
		{purpose: "writer", who: b.Writer, about: "The nodes of EKS cluster %s write tenants' logs with it", policy: in.Scope.Writer(b.Controller, b.TenantRoles...)},
		{purpose: "provisioner", who: b.Provisioner, about: "Sets up tenants' log groups and reader roles of EKS cluster %s", policy: in.Scope.Provisioner(b.TenantRoles...)},
		{purpose: "auditor", who: b.Auditor, about: "Looks at tenants' log groups and roles of EKS cluster %s", policy: in.Scope.Auditor()},
		{purpose: "replay", who: b.Replay, about: "Copies quarantined logs of EKS cluster %s back", policy: in.Scope.Replay(b.TenantRoles...)},
	}
	if b.CanaryTenant != "" {
		if !tenancy.Label(b.CanaryTenant) {
			return nil, fmt.Errorf("%q is no tenant's name: the canary's is a DNS label", b.CanaryTenant)
		}
		roles = append(roles, clusterRole{purpose: "canary", who: b.Canary, about: "The canary of EKS cluster %s looks for its line with it", policy: in.Scope.Canary(b.CanaryTenant)})
	}
	for i := range roles {
		r := &roles[i]
		t := r.who
		r.name, r.about = in.BootstrapRole(r.purpose), fmt.Sprintf(r.about, in.Scope.Cluster)
		if text, err := json.Marshal(r.policy); err != nil {
			return nil, err
		} else if len(text) > maxInline {
			return nil, fmt.Errorf("the policy of the %s's role has %d characters, IAM takes %d: name fewer tenants' roles, by giving them one name and * as the account", r.purpose, len(text), maxInline)
		}
		r.trust = closedTrust()
		if len(t.Principals)+len(t.Accounts)+len(t.SSORoles)+len(t.IRSA)+len(t.PodIdentity) > 0 {
			var err error
			if strings.Contains(fmt.Sprint(t), "$(tenant)") || strings.Contains(fmt.Sprint(t), "$(namespace)") {
				return nil, fmt.Errorf("trust of the %s: it is no tenant's, and $(tenant) and $(namespace) are nobody's", r.purpose)
			}
			if r.trust, err = in.Scope.TrustPolicy(t, "", ""); err != nil {
				return nil, fmt.Errorf("trust of the %s: %w", r.purpose, err)
			}
		}
	}
	return roles, nil
}

// managedPolicy is a managed policy there is.
type managedPolicy struct {
	document string
	tags     map[string]string
}

// PlanBootstrap plans what the cluster has one of: the boundary, its roles, the platform's
// groups. The boundary comes first: no reader role is made without it.
//
//	of a role            | differs               | plan
//	---------------------+-----------------------+-------------------------------------
//	there, not ours      |                       | finding, not touched
//	inline policy        | missing or another    | put
//	trust policy         | another meaning       | set
//	further policies     | any                   | finding: these roles may be added to
//	boundary             | another meaning       | a new version of it
//	OIDC provider        | missing               | finding: it is the cluster's to make
func (p *Provisioner) PlanBootstrap(ctx context.Context, b Bootstrap) (Result, error) {
	roles, err := p.in.clusterRoles(b)
	if err != nil {
		return Result{}, err
	}
	// The platform's groups are in every plan.
	result, _, err := p.plan(ctx, nil)
	if err != nil {
		return Result{}, err
	}
	pl := &planner{in: p.in}
	pl.result.Actions, pl.result.Findings, pl.result.Tenants = []Action{}, []Finding{}, []TenantStatus{}
	boundary, err := p.readPolicy(ctx, p.in.Scope.BoundaryARN())
	if err != nil {
		return Result{}, err
	}
	pl.boundary(boundary)
	for _, r := range roles {
		have, err := p.readRole(ctx, r.name)
		if err != nil {
			return Result{}, err
		}
		pl.clusterRole(r, have)
	}
	looked := map[string]bool{}
	trusts := []iampolicy.Trust{p.in.Trust}
	for _, r := range roles {
		trusts = append(trusts, r.who)
	}
	for _, t := range trusts {
		if len(t.IRSA) == 0 || t.OIDCProvider == "" || looked[t.OIDCProvider] {
			continue
		}
		looked[t.OIDCProvider] = true
		if err := p.provider(ctx, pl, t.OIDCProvider); err != nil {
			return Result{}, err
		}
	}
	pl.result.Actions = append(pl.result.Actions, result.Actions...)
	pl.result.Findings = append(pl.result.Findings, result.Findings...)
	return pl.result, nil
}

func (p *Provisioner) provider(ctx context.Context, pl *planner, name string) error {
	if err := p.rates.wait(ctx, awsclient.Role{}, "GetOpenIDConnectProvider"); err != nil {
		return err
	}
	arn := "arn:" + p.in.Scope.Partition + ":iam::" + p.in.Scope.Account + ":oidc-provider/" + name
	out, err := p.cloud.IAM.GetOpenIDConnectProvider(ctx, &iam.GetOpenIDConnectProviderInput{OpenIDConnectProviderArn: &arn})
	switch {
	case awsclient.Classify(err) == awsclient.ClassNotFound:
		pl.find("", LayerCluster, arn, "there is no OIDC provider %s: no service account gets a role by IRSA; make it for the cluster (eksctl utils associate-iam-oidc-provider)", arn)
	case err != nil:
		return fmt.Errorf("failed to look for the OIDC provider: %w", err)
	case !slices.Contains(out.ClientIDList, "sts.amazonaws.com"):
		pl.find("", LayerCluster, arn, "OIDC provider %s does not have the audience sts.amazonaws.com: IRSA's tokens are refused", arn)
	}
	return nil
}

// readPolicy reads a managed policy; nil where there is none.
func (p *Provisioner) readPolicy(ctx context.Context, arn string) (*managedPolicy, error) {
	if err := p.rates.wait(ctx, awsclient.Role{}, "GetPolicy"); err != nil {
		return nil, err
	}
	out, err := p.cloud.IAM.GetPolicy(ctx, &iam.GetPolicyInput{PolicyArn: &arn})
	switch {
	case awsclient.Classify(err) == awsclient.ClassNotFound:
		return nil, nil
	case err != nil:
		return nil, fmt.Errorf("failed to read policy %s: %w", arn, err)
	case out.Policy == nil:
		return nil, errors.New("the answer has no policy")
	}
	if err := p.rates.wait(ctx, awsclient.Role{}, "GetPolicyVersion"); err != nil {
		return nil, err
	}
	version, err := p.cloud.IAM.GetPolicyVersion(ctx, &iam.GetPolicyVersionInput{PolicyArn: &arn, VersionId: out.Policy.DefaultVersionId})
	if err != nil {
		return nil, fmt.Errorf("failed to read policy %s: %w", arn, err)
	}
	m := &managedPolicy{tags: roleTags(out.Policy.Tags)}
	if version.PolicyVersion != nil {
		m.document = decoded(version.PolicyVersion.Document)
	}
	return m, nil
}

func (p *planner) boundary(have *managedPolicy) {
	arn := p.in.Scope.BoundaryARN()
	want := p.in.Scope.Boundary()
	a := Action{Layer: LayerCluster, Target: arn, document: want, tags: p.in.tags("")}
	switch {
	case have == nil:
		a.Kind, a.Now, a.Will, a.Reason = CreateManagedPolicy, "missing", "what no reader role may exceed", "reader roles are made with it"
	case have.tags[loggroup.TagCluster] != p.in.Scope.Cluster:
		if !same(have.document, want) {
			p.find("", LayerCluster, arn, "policy %s is not this cluster's (tag %s is %q), and says something else: %s", arn, loggroup.TagCluster, have.tags[loggroup.TagCluster], brief(have.document))
		}
		return
	case !same(have.document, want):
		a.Kind, a.Now, a.Will, a.Reason, a.Repair = UpdateManagedPolicy, brief(have.document), "what no reader role may exceed", "the boundary is another", true
	default:
		return
	}
	p.act(a)
}

func (p *planner) clusterRole(want clusterRole, have *role) {
	begin := Action{Layer: LayerCluster, Target: want.name}
	tags := p.in.tags("")
	if have == nil {
		a := begin
		a.Kind, a.Now, a.Will, a.Reason = CreateRole, "missing", "trusts "+whom(want.trust), "the "+want.purpose+"'s role is missing"
		a.document, a.tags, a.about = want.trust, tags, want.about
		p.act(a)
		a = begin
		a.Kind, a.Now, a.Will, a.Reason = PutPolicy, "missing", "what the "+want.purpose+" needs", "the "+want.purpose+"'s role has no policy yet"
		a.document, a.name = want.policy, clusterPolicy
		p.act(a)
		return
	}
	if have.path != p.in.Scope.RolePath || have.tags[loggroup.TagCluster] != p.in.Scope.Cluster {
		p.find("", LayerCluster, want.name, "role %s is not ours (path %q, tags %s): it is not touched; rename or remove it", want.name, have.path, ownTagText(have))
		return
	}
	begin.Repair = true
	if text, there := have.inline[clusterPolicy]; !there || !same(text, want.policy) {
		a := begin
		a.Kind, a.Now, a.Will, a.Reason, a.Repair = PutPolicy, cmp.Or(brief(text), "missing"), "what the "+want.purpose+" needs", "the role's policy is another", there
		a.document, a.name = want.policy, clusterPolicy
		p.act(a)
	}
	if !same(have.trust, want.trust) {
		a := begin
		a.Kind, a.Now, a.Will, a.Reason, a.document = SetTrust, trusts(have.trust), "trusts "+whom(want.trust), "others are to assume the role than may now", want.trust
		p.act(a)
	}
	for _, name := range slices.Sorted(maps.Keys(have.inline)) {
		if name != clusterPolicy {
			p.find("", LayerCluster, want.name, "role %s has the further inline policy %s: %s", want.name, name, brief(have.inline[name]))
		}
	}
	for _, arn := range have.attached {
		p.find("", LayerCluster, want.name, "role %s has the managed policy %s attached", want.name, arn)
	}
}

// managedPolicy makes the boundary, or a new version of it.
func (t *tenantRun) managedPolicy(ctx context.Context, a Action) error {
	text, err := json.Marshal(a.document)
	if err != nil {
		return err
	}
	document, arn := string(text), a.Target
	api := t.p.cloud.IAM
	if a.Kind == CreateManagedPolicy {
		path := t.p.in.Scope.RolePath
		name := arn[strings.LastIndex(arn, "/")+1:]
		if !strings.HasSuffix(arn, path+name) {
			path = "/"
		}
		err := t.write(ctx, awsclient.Role{}, "CreatePolicy", func() error {
			_, err := api.CreatePolicy(ctx, &iam.CreatePolicyInput{
				PolicyName: &name, Path: &path, PolicyDocument: &document, Tags: iamTags(a.tags),
				Description: aws.String("What no reader role of eks-tenant-logs may exceed"),
			})
			return err
		})
		if awsclient.Classify(err) == awsclient.ClassExists {
			return errAgain
		}
		return err
	}
	if err := t.p.rates.wait(ctx, awsclient.Role{}, "ListPolicyVersions"); err != nil {
		return err
	}
	versions, err := api.ListPolicyVersions(ctx, &iam.ListPolicyVersionsInput{PolicyArn: &arn})
	if err != nil {
		return err
	}
	// A policy has up to five versions (IAM quotas): the oldest that is not in force goes.
	const most = 5
	if len(versions.Versions) >= most {
		old := slices.DeleteFunc(slices.Clone(versions.Versions), func(v iamtypes.PolicyVersion) bool { return v.IsDefaultVersion })
		oldest := slices.MinFunc(old, func(a, b iamtypes.PolicyVersion) int {
			return aws.ToTime(a.CreateDate).Compare(aws.ToTime(b.CreateDate))
		})
		if err := t.write(ctx, awsclient.Role{}, "DeletePolicyVersion", func() error {
			_, err := api.DeletePolicyVersion(ctx, &iam.DeletePolicyVersionInput{PolicyArn: &arn, VersionId: oldest.VersionId})
			return err
		}); err != nil {
			return err
		}
	}
	return t.write(ctx, awsclient.Role{}, "CreatePolicyVersion", func() error {
		_, err := api.CreatePolicyVersion(ctx, &iam.CreatePolicyVersionInput{PolicyArn: &arn, PolicyDocument: &document, SetAsDefault: true})
		return err
	})
}
