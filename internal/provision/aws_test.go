package provision

import (
	"context"
	"encoding/json"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/cloudwatchlogs"
	"github.com/aws/aws-sdk-go-v2/service/eks"
	"github.com/aws/aws-sdk-go-v2/service/iam"
	"github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/stretchr/testify/require"

	"github.com/eks-tenant-logs/eks-tenant-logs/internal/awsclient"
	"github.com/eks-tenant-logs/eks-tenant-logs/internal/awsclient/control"
	"github.com/eks-tenant-logs/eks-tenant-logs/internal/fakeaws"
	"github.com/eks-tenant-logs/eks-tenant-logs/internal/iampolicy"
	"github.com/eks-tenant-logs/eks-tenant-logs/internal/tenancy"
)

const (
	account    = "123456789012"
	readersARN = "arn:aws:iam::123456789012:role/readers"
)

// testAccount is a stand-in of one account, and clients of it.
type testAccount struct {
	*fakeaws.Server
	url   string
	logs  *awsclient.Client
	iam   *iam.Client
	kms   *kms.Client
	eks   *eks.Client
	cloud Cloud
}

func newAccount(t testing.TB, cfg fakeaws.Config) *testAccount {
	t.Helper()
	s := fakeaws.New(cfg)
	url, err := s.Start("")
	require.NoError(t, err)
	t.Cleanup(func() { _ = s.Close() })
	a := &testAccount{Server: s, url: url}
	a.connect(t)
	_, err = a.iam.CreateRole(context.Background(), &iam.CreateRoleInput{
		RoleName: aws.String("readers"), AssumeRolePolicyDocument: aws.String(`{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":{"AWS":"arn:aws:iam::123456789012:root"},"Action":"sts:AssumeRole"}]}`),
	})
	require.NoError(t, err)
	a.boundary(t, "c1")
	return a
}

// connect makes new clients, as a new process would.
func (a *testAccount) connect(t testing.TB) {
	t.Helper()
	t.Setenv("AWS_ACCESS_KEY_ID", fakeaws.DefaultAccessKeyID)
	t.Setenv("AWS_SECRET_ACCESS_KEY", fakeaws.DefaultSecretAccessKey)
	t.Setenv("AWS_CONFIG_FILE", "/dev/null")
	t.Setenv("AWS_SHARED_CREDENTIALS_FILE", "/dev/null")
	c, err := awsclient.New(context.Background(), awsclient.Config{Region: "us-east-1", Endpoint: a.url, STSEndpoint: a.url})
	require.NoError(t, err)
	a.logs = c
	a.iam, err = control.NewIAM(c, a.url)
	require.NoError(t, err)
	a.kms, err = control.NewKMS(c, a.url)
	require.NoError(t, err)
	a.eks, err = control.NewEKS(c, a.url)
	require.NoError(t, err)
	a.cloud = Cloud{Logs: c, IAM: a.iam, KMS: a.kms, EKS: a.eks, As: func(r awsclient.Role) Logs { return c.As(r) }}
}

// boundary makes a cluster's boundary, which reader roles can't be made without.
func (a *testAccount) boundary(t testing.TB, cluster string) {
	t.Helper()
	in := installation(t, cluster)
	text, err := json.Marshal(in.Scope.Boundary())
	require.NoError(t, err)
	arn := in.Scope.BoundaryARN()
	_, err = a.iam.CreatePolicy(context.Background(), &iam.CreatePolicyInput{
		PolicyName: aws.String(arn[strings.LastIndex(arn, "/")+1:]), Path: &in.Scope.RolePath, PolicyDocument: aws.String(string(text)),
	})
	if awsclient.Classify(err) != awsclient.ClassExists {
		require.NoError(t, err)
	}
}

func installation(t testing.TB, cluster string, change ...func(*Installation)) Installation {
	t.Helper()
	in := Installation{
		Scope: iampolicy.Scope{Partition: "aws", Region: "us-east-1", Account: account, Cluster: cluster, Names: tenancy.DefaultNames()},
		Trust: iampolicy.Trust{Principals: []string{readersARN}},
	}
	for _, f := range change {
		f(&in)
	}
	in, err := NewInstallation(in)
	require.NoError(t, err)
	return in
}

func (a *testAccount) provisioner(t testing.TB, cluster string, change ...func(*Installation)) *Provisioner {
	t.Helper()
	p, err := New(installation(t, cluster, change...), a.cloud, Options{Random: func() float64 { return 0.5 }, Clock: (&testClock{now: time.Now()}).clock()})
	require.NoError(t, err)
	return p
}

// writes counts the calls that change something and were answered with success.
func (a *testAccount) writes() map[string]int {
	n := map[string]int{}
	for k, v := range a.Calls() {
		if k.Result == "OK" && changes(k.Operation) {
			n[k.Operation] += v
		}
	}
	return n
}

// changes reports whether a call changes something; iam: and the like stand before the
// names of other services than CloudWatch Logs.
func changes(operation string) bool {
	operation = operation[strings.Index(operation, ":")+1:]
	for _, reads := range []string{"Get", "List", "Describe", "AssumeRole", "Filter"} {
		if strings.HasPrefix(operation, reads) {
			return false
		}
	}
	return true
}

func sum(m map[string]int) (n int) {
	for _, v := range m {
		n += v
	}
	return n
}

func tenantOf(name, uid string) Tenant {
	return Tenant{Name: name, Namespaces: []Namespace{{"tenant-" + name, uid}}}
}

func (a *testAccount) group(t testing.TB, name string) fakeaws.Group {
	t.Helper()
	for _, g := range a.Groups() {
		if g.Name == name {
			return g
		}
	}
	require.Fail(t, "there is no group "+name)
	return fakeaws.Group{}
}

// role reads a reader role as the provisioner does.
func (a *testAccount) role(t testing.TB, p *Provisioner, tenant string) *role {
	t.Helper()
	r, err := p.readRole(context.Background(), tenancy.ReaderRole(p.in.Scope.Cluster, p.in.Scope.Region, tenant))
	require.NoError(t, err)
	return r
}

func (a *testAccount) createGroup(t testing.TB, name string, tags map[string]string) {
	t.Helper()
	_, err := a.logs.CreateLogGroup(context.Background(), &cloudwatchlogs.CreateLogGroupInput{LogGroupName: &name, Tags: tags})
	require.NoError(t, err)
}

func status(t testing.TB, r Report, tenant string) TenantStatus {
	t.Helper()
	for _, s := range r.Tenants {
		if s.Tenant == tenant {
			return s
		}
	}
	require.Fail(t, "the report does not tell of "+tenant)
	return TenantStatus{}
}

// testClock passes when somebody sleeps.
type testClock struct {
	mu  sync.Mutex
	now time.Time
}

func (c *testClock) clock() Clock {
	return Clock{
		Now: func() time.Time { c.mu.Lock(); defer c.mu.Unlock(); return c.now },
		Sleep: func(ctx context.Context, d time.Duration) error {
			c.mu.Lock()
			defer c.mu.Unlock()
			c.now = c.now.Add(d)
			return ctx.Err()
		},
	}
}
