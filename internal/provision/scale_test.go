package provision

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/cloudwatchlogs"
	"github.com/aws/aws-sdk-go-v2/service/iam"
	"github.com/stretchr/testify/require"

	"github.com/eks-tenant-logs/eks-tenant-logs/internal/awsclient"
	"github.com/eks-tenant-logs/eks-tenant-logs/internal/fakeaws"
)

// inProcess hands requests to the stand-in without a network, which virtual time does not
// wait for.
type inProcess struct{ http.Handler }

func (p inProcess) Do(r *http.Request) (*http.Response, error) {
	answer := httptest.NewRecorder()
	time.Sleep(20 * time.Millisecond) // an answer's way
	in := r.Clone(r.Context())
	in.Host, in.RequestURI = r.URL.Host, r.URL.RequestURI()
	if r.ContentLength > 0 {
		in.Header.Set("Content-Length", strconv.FormatInt(r.ContentLength, 10))
	}
	p.ServeHTTP(answer, in)
	return answer.Result(), nil
}

// virtual is an account in virtual time, with CloudWatch Logs' quotas and roles enough.
func virtual(t *testing.T) (*fakeaws.Server, *fakeaws.Faults, Cloud) {
	s := fakeaws.New(fakeaws.Config{RoleQuota: 5000})
	quotas := fakeaws.NewFaults(1)
	quotas.SetQuotas(fakeaws.Quotas)
	s.SetIntercept(quotas.Intercept)
	keys := credentials.NewStaticCredentialsProvider(fakeaws.DefaultAccessKeyID, fakeaws.DefaultSecretAccessKey, "")
	logs := cloudwatchlogs.New(cloudwatchlogs.Options{Region: "us-east-1", BaseEndpoint: aws.String("http://127.0.0.1"), HTTPClient: inProcess{s}, Credentials: keys, Retryer: awsclient.Retryer()})
	roles := iam.New(iam.Options{Region: "us-east-1", BaseEndpoint: aws.String("http://127.0.0.1"), HTTPClient: inProcess{s}, Credentials: keys, Retryer: awsclient.Retryer()})
	a := &testAccount{Server: s, iam: roles}
	_, err := roles.CreateRole(context.Background(), &iam.CreateRoleInput{
		RoleName: aws.String("readers"), AssumeRolePolicyDocument: aws.String(`{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":{"AWS":"arn:aws:iam::123456789012:root"},"Action":"sts:AssumeRole"}]}`),
	})
	require.NoError(t, err)
	a.boundary(t, "c1")
	return s, quotas, Cloud{Logs: logs, IAM: roles}
}

func manyTenants(n int) (tenants []Tenant) {
	for i := range n {
		tenants = append(tenants, tenantOf(fmt.Sprintf("t%04d", i), fmt.Sprintf("5f3c1c2e-0000-4000-8000-%012d", i)))
	}
	return tenants
}

// size is how many tenants there are; TENANTLOGS_TENANTS=2000 is what docs/provisioner.md
// tells of.
func size(t testing.TB) int {
	n, err := strconv.Atoi(os.Getenv("TENANTLOGS_TENANTS"))
	if err != nil {
		n = 120
	}
	t.Logf("%d tenants", n)
	return n
}

func callText(before, after map[fakeaws.CallKey]int) string {
	by := map[string]int{}
	for k, n := range after {
		by[k.Operation+map[bool]string{true: "", false: " " + k.Result}[k.Result == "OK"]] += n - before[k]
	}
	var parts []string
	for _, op := range slices.Sorted(maps.Keys(by)) {
		if by[op] > 0 {
			parts = append(parts, fmt.Sprintf("%s %d", op, by[op]))
		}
	}
	return strings.Join(parts, ", ")
}

// The first apply of many tenants stays under the account's quotas; an hour of resync after
// it, by this process and by one that knows nothing yet, writes nothing.
func TestFirstApplyStaysUnderQuotasAndAnHourOfResyncWritesNothing(t *testing.T) {
	n := size(t)
	synctest.Test(t, func(t *testing.T) {
		s, quotas, cloud := virtual(t)
		tenants := manyTenants(n)
		p, err := New(installation(t, "c1"), cloud, Options{})
		require.NoError(t, err)
		before, begun := s.Calls(), time.Now()
		report, err := p.Reconcile(t.Context(), tenants)
		require.NoError(t, err)
		for _, st := range report.Tenants {
			require.Equal(t, StateReady, st.State, "%s: %s", st.Tenant, st.Reason)
		}
		t.Logf("first apply: %d writes in %s of virtual time, %d calls throttled: %s", report.Writes, time.Since(begun).Round(time.Second), quotas.Hits()["quota"], callText(before, s.Calls()))
		require.Equal(t, 8*n+6, report.Writes, "two groups of three calls and a role of two for each, and two groups of the platform's")
		require.Zero(t, quotas.Hits()["quota"], "nothing is throttled")

		writes := func() (n int) {
			for k, v := range s.Calls() {
				if changes(k.Operation) {
					n += v
				}
			}
			return n
		}
		first := writes()
		for _, who := range []string{"the same process", "a process that knows nothing yet"} {
			if who != "the same process" {
				p, err = New(installation(t, "c1"), cloud, Options{})
				require.NoError(t, err)
			}
			before = s.Calls()
			for range 6 {
				report, err = p.Reconcile(t.Context(), tenants)
				require.NoError(t, err)
				require.Zero(t, report.Actions)
				time.Sleep(10 * time.Minute)
			}
			t.Logf("an hour of resync every 10 min, %s: %s", who, callText(before, s.Calls()))
			require.Equal(t, first, writes(), who)
		}
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		t.Logf("heap with the stand-in's: %d MB", m.HeapAlloc>>20)
		require.NoError(t, s.Close())
	})
}

// BenchmarkPlan is the plan of many tenants of which nothing, and of which all, is there.
func BenchmarkPlan(b *testing.B) {
	const n = 2000
	tenants := manyTenants(n)
	in := installation(b, "c1")
	there := &Observed{groups: map[groupKey]*group{}, roles: map[string]*role{}, failed: map[string]error{}}
	add := func(spec groupSpec, tags map[string]string) *group {
		g := &group{tags: maps.Clone(tags), source: tagsRemembered}
		g.LogGroupName, g.LogGroupArn, g.RetentionInDays = aws.String(spec.key.name), aws.String("arn"), aws.Int32(365)
		g.LogGroupClass, g.CreationTime = "STANDARD", aws.Int64(1)
		g.tags[tagState] = stateReady
		there.groups[spec.key] = g
		return g
	}
	for _, spec := range in.platformGroups() {
		add(spec, spec.tags)
	}
	for _, t := range tenants {
		spec := in.groupOf(t)
		q, _ := in.quarantineOf(t)
		add(q, q.tags)
		tags := maps.Clone(spec.tags)
		maps.Copy(tags, recordTags(t.Namespaces))
		g := add(spec, tags)
		d, err := trust(in, t.Name, t.Namespaces)
		require.NoError(b, err)
		text, err := json.Marshal(d)
		require.NoError(b, err)
		policy, err := json.Marshal(in.Scope.Reader(t.Name))
		require.NoError(b, err)
		name := in.Scope.ReaderRoleARN(t.Name)
		name = name[strings.LastIndex(name, "/")+1:]
		r := &role{name: name, path: in.Scope.RolePath, tags: maps.Clone(g.tags), boundary: in.Scope.BoundaryARN(), trust: string(text), inline: map[string]string{readerPolicy: string(policy)}}
		r.tags[tagGroupCreated] = "1"
		there.roles[roleKey(name)] = r
	}
	for name, o := range map[string]*Observed{"nothing there": {groups: map[groupKey]*group{}, roles: map[string]*role{}, failed: map[string]error{}}, "all there": there} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				r := Plan(in, tenants, o)
				if want := map[string]int{"all there": 0, "nothing there": 8*n + 6}[name]; len(r.Actions) != want {
					b.Fatalf("%d actions instead of %d: %+v", len(r.Actions), want, r.Actions[0])
				}
			}
			b.ReportMetric(b.Elapsed().Seconds()/float64(b.N), "s/plan")
		})
	}
}

// One namespace more, beside many tenants: what it costs, in virtual time with answers that
// take 20 ms.
func TestOneTenantMoreIsReadySoonAndCostsFewCalls(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, quotas, cloud := virtual(t)
		p, err := New(installation(t, "c1"), cloud, Options{})
		require.NoError(t, err)
		_, err = p.Reconcile(t.Context(), manyTenants(60))
		require.NoError(t, err)
		time.Sleep(time.Minute)
		before, begun := s.Calls(), time.Now()
		report, err := p.Reconcile(t.Context(), []Tenant{tenantOf("acme", "uid-1")})
		require.NoError(t, err)
		require.Equal(t, StateReady, report.Tenants[0].State)
		took := time.Since(begun)
		t.Logf("ready after %s: %s", took, callText(before, s.Calls()))
		require.Less(t, took, 5*time.Second, "in virtual time, which no machine's load changes")
		before = s.Calls()
		report, err = p.Reconcile(t.Context(), []Tenant{tenantOf("acme", "uid-1")})
		require.NoError(t, err)
		require.Zero(t, report.Actions)
		t.Logf("looked at again: %s", callText(before, s.Calls()))
		require.Zero(t, quotas.Hits()["quota"])
		require.NoError(t, s.Close())
	})
}
