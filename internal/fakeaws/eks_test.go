package fakeaws_test

import (
	"fmt"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/eks"
	"github.com/aws/aws-sdk-go-v2/service/eks/types"
	"github.com/aws/aws-sdk-go-v2/service/sts"
	"github.com/stretchr/testify/require"

	"github.com/eks-tenant-logs/eks-tenant-logs/internal/fakeaws"
)

func newEKS(url string, creds aws.CredentialsProvider) *eks.Client {
	return eks.New(eks.Options{Region: "us-east-1", BaseEndpoint: &url, Credentials: creds, Retryer: aws.NopRetryer{}})
}

const trustPods = `{"Version":"2012-10-17","Statement":{"Effect":"Allow","Principal":{"Service":"pods.eks.amazonaws.com"},"Action":["sts:AssumeRole","sts:TagSession"],
	"Condition":{"StringEquals":{"aws:SourceAccount":"` + home + `","aws:RequestTag/eks-cluster-arn":"arn:aws:eks:us-east-1:` + home + `:cluster/c1","aws:RequestTag/kubernetes-namespace":"tenant-acme","aws:RequestTag/kubernetes-service-account":"app"}}}}`

func TestPodIdentityAssociations(t *testing.T) {
	f := startEnforcing(t)
	c := newEKS(f.url, exampleCredentials)
	clusterARN := f.Account(home).AddCluster("c1")
	described, err := c.DescribeCluster(t.Context(), &eks.DescribeClusterInput{Name: aws.String("c1")})
	require.NoError(t, err)
	require.Equal(t, clusterARN, *described.Cluster.Arn)
	require.Regexp(t, `^https://oidc\.eks\.us-east-1\.amazonaws\.com/id/[0-9A-F]{32}$`, *described.Cluster.Identity.Oidc.Issuer)
	_, err = c.DescribeCluster(t.Context(), &eks.DescribeClusterInput{Name: aws.String("c2")})
	requireStatus(t, err, "ResourceNotFoundException", 404)
	var gone *types.ResourceNotFoundException
	require.ErrorAs(t, err, &gone)

	reader := role(t, f.iam, "reader", trustPods, "")
	create := func(cluster, namespace, role string) (*eks.CreatePodIdentityAssociationOutput, error) {
		return c.CreatePodIdentityAssociation(t.Context(), &eks.CreatePodIdentityAssociationInput{
			ClusterName: &cluster, Namespace: &namespace, ServiceAccount: aws.String("app"), RoleArn: &role, Tags: map[string]string{"k": "v"},
		})
	}
	out, err := create("c1", "tenant-acme", reader)
	require.NoError(t, err)
	id := *out.Association.AssociationId
	require.Regexp(t, "^a-[a-z0-9]{17}$", id)
	require.Equal(t, "arn:aws:eks:us-east-1:"+home+":podidentityassociation/c1/"+id, *out.Association.AssociationArn)
	require.Equal(t, map[string]string{"k": "v"}, out.Association.Tags)
	_, err = create("c1", "tenant-acme", reader)
	requireStatus(t, err, "ResourceInUseException", 409)
	_, err = create("c2", "tenant-acme", reader)
	requireStatus(t, err, "ResourceNotFoundException", 404)
	_, err = create("c1", "n", reader+"x")
	requireStatus(t, err, "InvalidParameterException", 400)
	for i := range 5 {
		_, err = create("c1", fmt.Sprint("n", i), reader)
		require.NoError(t, err)
	}
	var all []types.PodIdentityAssociationSummary
	for p := eks.NewListPodIdentityAssociationsPaginator(c, &eks.ListPodIdentityAssociationsInput{ClusterName: aws.String("c1"), MaxResults: aws.Int32(4)}); p.HasMorePages(); {
		page, err := p.NextPage(t.Context())
		require.NoError(t, err)
		all = append(all, page.Associations...)
	}
	require.Len(t, all, 6)
	one, err := c.ListPodIdentityAssociations(t.Context(), &eks.ListPodIdentityAssociationsInput{ClusterName: aws.String("c1"), Namespace: aws.String("tenant-acme"), ServiceAccount: aws.String("app")})
	require.NoError(t, err)
	require.Len(t, one.Associations, 1)
	require.Equal(t, id, *one.Associations[0].AssociationId)

	second := role(t, f.iam, "second", trustPods, "")
	updated, err := c.UpdatePodIdentityAssociation(t.Context(), &eks.UpdatePodIdentityAssociationInput{ClusterName: aws.String("c1"), AssociationId: &id, RoleArn: &second})
	require.NoError(t, err)
	require.Equal(t, second, *updated.Association.RoleArn)
	got, err := c.DescribePodIdentityAssociation(t.Context(), &eks.DescribePodIdentityAssociationInput{ClusterName: aws.String("c1"), AssociationId: &id})
	require.NoError(t, err)
	require.Equal(t, second, *got.Association.RoleArn)
	_, err = c.DeletePodIdentityAssociation(t.Context(), &eks.DeletePodIdentityAssociationInput{ClusterName: aws.String("c1"), AssociationId: &id})
	require.NoError(t, err)
	_, err = c.DescribePodIdentityAssociation(t.Context(), &eks.DescribePodIdentityAssociationInput{ClusterName: aws.String("c1"), AssociationId: &id})
	requireStatus(t, err, "ResourceNotFoundException", 404)
	_, err = c.ListNodegroups(t.Context(), &eks.ListNodegroupsInput{ClusterName: aws.String("c1")})
	requireStatus(t, err, "UnknownOperationException", 404)
}

func TestAnAssociationNeedsPassRole(t *testing.T) {
	f := startEnforcing(t)
	f.Account(home).AddCluster("c1")
	reader := role(t, f.iam, "reader", trustPods, "")
	inPath := role(t, f.iam, "outside", trustPods, "")
	statement := func(passTo string) string {
		return `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":["eks:*","iam:GetRole"],"Resource":"*"},
			{"Effect":"Allow","Action":"iam:PassRole","Resource":"` + reader + `","Condition":{"StringEquals":{"iam:PassedToService":"` + passTo + `"}}}]}`
	}
	for name, x := range map[string]struct {
		inline, role string
		allowed      bool
	}{
		"to pods":         {statement("pods.eks.amazonaws.com"), reader, true},
		"to others":       {statement("ec2.amazonaws.com"), reader, false},
		"another role":    {statement("pods.eks.amazonaws.com"), inPath, false},
		"without passing": {policy("*", "eks:*", "iam:GetRole"), reader, false},
		"without looking": {policy("*", "eks:*", "iam:PassRole"), reader, false},
		"without EKS":     {policy("*", "iam:*"), reader, false},
	} {
		t.Run(name, func(t *testing.T) {
			caller := role(t, f.iam, fmt.Sprint("caller-", len(f.Account(home).RoleNames())), trustSelf, x.inline)
			_, err := newEKS(f.url, assume(t, f.sts, caller)).CreatePodIdentityAssociation(t.Context(), &eks.CreatePodIdentityAssociationInput{
				ClusterName: aws.String("c1"), Namespace: aws.String("tenant-acme"), ServiceAccount: aws.String("app"), RoleArn: &x.role,
			})
			if x.allowed {
				require.NoError(t, err)
				return
			}
			requireStatus(t, err, "AccessDeniedException", 403)
		})
	}
}

func TestPodSessions(t *testing.T) {
	f := startEnforcing(t)
	account := f.Account(home)
	account.AddCluster("c1")
	account.AddCluster("c2")
	reader := role(t, f.iam, "reader", trustPods, policy(groupPrefix+"/eks/tenants/${aws:PrincipalTag/kubernetes-namespace}:*", "logs:*"))
	c := newEKS(f.url, exampleCredentials)
	for _, x := range [][2]string{{"c1", "tenant-acme"}, {"c1", "tenant-globex"}, {"c2", "tenant-acme"}} {
		_, err := c.CreatePodIdentityAssociation(t.Context(), &eks.CreatePodIdentityAssociationInput{ClusterName: &x[0], Namespace: &x[1], ServiceAccount: aws.String("app"), RoleArn: &reader})
		require.NoError(t, err)
	}
	pod := fakeaws.Pod{Cluster: "c1", Namespace: "tenant-acme", ServiceAccount: "app", Name: "web-0", UID: "0b2a"}
	key, err := account.PodSession(pod)
	require.NoError(t, err)
	me, err := newSTS(f.url, static(key)).GetCallerIdentity(t.Context(), &sts.GetCallerIdentityInput{})
	require.NoError(t, err)
	require.Regexp(t, `^arn:aws:sts::`+home+`:assumed-role/reader/eks-c1-web-0-[0-9a-f-]{36}$`, *me.Arn)
	calls := logsCalls(t, newClient(f.url, static(key)))
	require.NoError(t, calls["CreateLogGroup"]("/eks/tenants/tenant-acme"))
	requireCode(t, calls["CreateLogGroup"]("/eks/tenants/tenant-globex"), "AccessDeniedException", "")

	for name, change := range map[string]func(*fakeaws.Pod){
		"another namespace, which the trust policy leaves out": func(p *fakeaws.Pod) { p.Namespace = "tenant-globex" },
		"another cluster, which the trust policy leaves out":   func(p *fakeaws.Pod) { p.Cluster = "c2" },
		"a service account without association":                func(p *fakeaws.Pod) { p.ServiceAccount = "default" },
		"a cluster that is not there":                          func(p *fakeaws.Pod) { p.Cluster = "c3" },
	} {
		p := pod
		change(&p)
		_, err := account.PodSession(p)
		var answer *fakeaws.APIError
		require.ErrorAs(t, err, &answer, name)
	}
	_, err = tryAssume(t, f.sts, reader)
	requireStatus(t, err, "AccessDenied", 403) // nobody but EKS
}
