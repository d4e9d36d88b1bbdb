package provision

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/eks"
	ekstypes "github.com/aws/aws-sdk-go-v2/service/eks/types"

	"github.com/eks-tenant-logs/eks-tenant-logs/internal/awsclient"
	"github.com/eks-tenant-logs/eks-tenant-logs/internal/loggroup"
)

// podIdentity is an association of EKS Pod Identity: a service account and its role.
type podIdentity struct {
	namespace, account string
	id, role           string // the role's ARN
	tags               map[string]string
	// err says why its role and tags are not known.
	err error
}

// podIdentities are the cluster's associations of the service accounts that could be a
// tenant's.
type podIdentities struct{ all []podIdentity }

// unread are those that could not be read.
func (p *podIdentities) unread() (all []podIdentity) {
	if p != nil {
		for _, a := range p.all {
			if a.err != nil {
				all = append(all, a)
			}
		}
	}
	return all
}

// rememberedPod is what was read of an association; it is read anew about once a day.
type rememberedPod struct {
	podIdentity
	until time.Time
}

// observePods reads the cluster's associations: a list, and each once a day.
func (p *Provisioner) observePods(ctx context.Context, o *Observed) error {
	if len(p.in.Trust.PodIdentity) == 0 || !p.in.roles() {
		return nil
	}
	o.pods = &podIdentities{}
	in := &eks.ListPodIdentityAssociationsInput{ClusterName: &p.in.Scope.Cluster, MaxResults: aws.Int32(100)}
	for {
		if err := p.rates.wait(ctx, awsclient.Role{}, "ListPodIdentityAssociations"); err != nil {
			return err
		}
		out, err := p.cloud.EKS.ListPodIdentityAssociations(ctx, in)
		if err != nil {
			return fmt.Errorf("failed to list the Pod Identity associations of cluster %s: %w", p.in.Scope.Cluster, err)
		}
		for _, s := range out.Associations {
			a, err := p.readPod(ctx, s)
			if ctx.Err() != nil {
				return ctx.Err()
			}
			a.err = err
			o.pods.all = append(o.pods.all, a)
		}
		if aws.ToString(out.NextToken) == "" {
			return nil
		}
		in = &eks.ListPodIdentityAssociationsInput{ClusterName: in.ClusterName, MaxResults: in.MaxResults, NextToken: out.NextToken}
	}
}

func (p *Provisioner) readPod(ctx context.Context, s ekstypes.PodIdentityAssociationSummary) (podIdentity, error) {
	id := aws.ToString(s.AssociationId)
	p.memory.mu.Lock()
	m, ok := p.memory.pods[id]
	p.memory.mu.Unlock()
	if ok && p.clock.Now().Before(m.until) {
		return m.podIdentity, nil
	}
	a := podIdentity{namespace: aws.ToString(s.Namespace), account: aws.ToString(s.ServiceAccount), id: id}
	if err := p.rates.wait(ctx, awsclient.Role{}, "DescribePodIdentityAssociation"); err != nil {
		return a, err
	}
	out, err := p.cloud.EKS.DescribePodIdentityAssociation(ctx, &eks.DescribePodIdentityAssociationInput{ClusterName: &p.in.Scope.Cluster, AssociationId: &id})
	if awsclient.Classify(err) == awsclient.ClassNotFound {
		return a, nil // gone since it was listed
	}
	if err != nil {
		return a, fmt.Errorf("the Pod Identity association of service account %s/%s can't be read: %w", a.namespace, a.account, shortened{err})
	}
	if d := out.Association; d != nil {
		a.role, a.tags = aws.ToString(d.RoleArn), d.Tags
	}
	p.memory.mu.Lock()
	p.memory.pods[id] = rememberedPod{a, p.forgetAt()}
	p.memory.mu.Unlock()
	return a, nil
}

// serviceAccounts are a tenant's, by the template, as the role's trust policy has them.
func (in Installation) serviceAccounts(tenant string, has []Namespace) (all []podIdentity, err error) {
	for _, ns := range has {
		accounts, err := in.Scope.PodIdentities(in.Trust, tenant, ns.Name)
		if err != nil {
			return nil, err
		}
		for _, sa := range accounts {
			a := podIdentity{namespace: sa.Namespace, account: sa.Name, role: in.Scope.ReaderRoleARN(tenant)}
			if !slices.ContainsFunc(all, func(b podIdentity) bool { return b.namespace == a.namespace && b.account == a.account }) {
				all = append(all, a)
			}
		}
	}
	return all, nil
}

func (a podIdentity) ours(in Installation, tenant string) bool {
	return a.tags[loggroup.TagTenant] == tenant && a.tags[loggroup.TagCluster] == in.Scope.Cluster
}

// pod plans a tenant's associations. A service account has one association: if it is not
// ours it is left, for somebody gave the pods another role. The error says why nothing, or
// not all, could be planned.
func (p *planner) pod(tenant, role string, c claim) error {
	if p.o.pods == nil {
		return p.o.podsFailed
	}
	var failed []error
	begin := Action{Tenant: tenant, Layer: LayerRole}
	wanted, err := p.in.serviceAccounts(tenant, c.granted)
	if err != nil {
		return err // what is wanted is not known, so nothing is taken away
	}
	for _, want := range wanted {
		a := begin
		a.Target, a.pod, a.Will, a.grants = want.namespace+"/"+want.account, want, "role "+role, true
		a.tags = p.in.tags(tenant)
		i := slices.IndexFunc(p.o.pods.all, func(have podIdentity) bool {
			return have.namespace == want.namespace && have.account == want.account
		})
		switch {
		case i < 0:
			a.Kind, a.Now, a.Reason = CreateAssociation, "no role", "the service account gets the reader role by EKS Pod Identity"
			p.act(a)
		case p.o.pods.all[i].err != nil:
			failed = append(failed, p.o.pods.all[i].err)
		case p.o.pods.all[i].role == want.role:
		case !p.o.pods.all[i].ours(p.in, tenant):
			p.find(tenant, LayerRole, a.Target, "service account %s has the role %s by a Pod Identity association that is not ours; it is left", a.Target, p.o.pods.all[i].role)
		default:
			a.Kind, a.Now, a.Reason, a.Repair, a.pod.id = UpdateAssociation, "role "+p.o.pods.all[i].role, "the association is ours, and its role is another", true, p.o.pods.all[i].id
			p.act(a)
		}
	}
	p.unpodBut(tenant, wanted)
	return errors.Join(failed...)
}

// unpod plans to take a closed role's associations away.
func (p *planner) unpod(tenant, _ string) { p.unpodBut(tenant, nil) }

func (p *planner) unpodBut(tenant string, keep []podIdentity) {
	if p.o.pods == nil {
		return
	}
	for _, have := range p.o.pods.all {
		if !have.ours(p.in, tenant) || slices.ContainsFunc(keep, func(k podIdentity) bool {
			return k.namespace == have.namespace && k.account == have.account
		}) {
			continue
		}
		p.act(Action{
			Tenant: tenant, Layer: LayerRole, Kind: DeleteAssociation, Target: have.namespace + "/" + have.account, Now: "role " + have.role, Will: "no role",
			Reason: "the namespace does not have the tenant", pod: have, narrows: true,
		})
	}
}

// association does an action on an association.
func (t *tenantRun) association(ctx context.Context, a Action) error {
	cluster, api := t.p.in.Scope.Cluster, t.p.cloud.EKS
	t.p.memory.mu.Lock()
	delete(t.p.memory.pods, a.pod.id)
	t.p.memory.mu.Unlock()
	switch a.Kind {
	case CreateAssociation:
		// The SDK's token makes what it tries again one association. Not ours: of a token that
		// is always the same AWS may remember an association that was deleted since.
		err := t.write(ctx, awsclient.Role{}, "CreatePodIdentityAssociation", func() error {
			_, err := api.CreatePodIdentityAssociation(ctx, &eks.CreatePodIdentityAssociationInput{
				ClusterName: &cluster, Namespace: &a.pod.namespace, ServiceAccount: &a.pod.account, RoleArn: &a.pod.role, Tags: a.tags,
			})
			return err
		})
		if awsclient.Classify(err) == awsclient.ClassExists {
			return errAgain
		}
		return err
	case UpdateAssociation:
		return t.write(ctx, awsclient.Role{}, "UpdatePodIdentityAssociation", func() error {
			_, err := api.UpdatePodIdentityAssociation(ctx, &eks.UpdatePodIdentityAssociationInput{ClusterName: &cluster, AssociationId: &a.pod.id, RoleArn: &a.pod.role})
			return err
		})
	}
	return gone(t.write(ctx, awsclient.Role{}, "DeletePodIdentityAssociation", func() error {
		_, err := api.DeletePodIdentityAssociation(ctx, &eks.DeletePodIdentityAssociationInput{ClusterName: &cluster, AssociationId: &a.pod.id})
		return err
	}))
}
