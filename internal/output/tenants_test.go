package output

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/eks-tenant-logs/eks-tenant-logs/internal/awsclient"
	"github.com/eks-tenant-logs/eks-tenant-logs/internal/fakeaws"
)

// put writes a version of the file as Kubernetes does: whole, by a rename.
func replaceFile(t *testing.T, path, content string) {
	t.Helper()
	require.NoError(t, os.WriteFile(path+".new", []byte(content), 0o600))
	require.NoError(t, os.Rename(path+".new", path))
}

// says waits until the log says something n times.
func says(t *testing.T, log *logText, n int, what string) {
	t.Helper()
	require.Eventually(t, func() bool { return strings.Count(log.String(), what) >= n }, 30*time.Second, time.Millisecond, what)
}

func watched(t *testing.T, content string, opts ...string) (i *Instance, s *fakeaws.Server, log *logText, file string) {
	t.Helper()
	file = t.TempDir() + "/tenants.yaml"
	replaceFile(t, file, content)
	i, s, log = instance(t, fakeaws.Config{}, Environment{Node: "n1", ReloadEvery: time.Millisecond}, append(opts, "tenants_file", file)...)
	return i, s, log, file
}

func TestANewVersionOfTheTenantsIsPutInForce(t *testing.T) {
	i, s, log, file := watched(t, "version: 1\ngeneration: 1\ntenants: {a: {retentionDays: 365}, old: {}}")
	ship := func(ns string) {
		t.Helper()
		tag := strings.Replace(tagA, "tenant-a", ns, 1)
		require.Equal(t, OK, i.Flush(context.Background(), tag, chunkOf(time.Now(), map[string]any{"log": "x", "_aws": map[string]any{}}), 0))
	}
	ship("tenant-a")
	ship("team-b")
	require.Equal(t, 1, len(s.Events("/eks/platform", "team-b/p/c")))
	replaceFile(t, file, "version: 1\ngeneration: 2\ntenants: {a: {retentionDays: 731, emf: true}, b: {namespaces: [team-b, tenant-b]}}")
	says(t, log, 1, "tenants_file reloaded")
	require.Contains(t, log.String(), "generation=2 tenants=2 added=b removed=old changed=a")
	ship("tenant-a")
	ship("team-b")
	require.Contains(t, s.Events("/eks/tenants/a", "tenant-a/p/c")[0].Message, `"_aws_claimed"`)
	require.Contains(t, s.Events("/eks/tenants/a", "tenant-a/p/c")[1].Message, `"_aws":`)
	require.Equal(t, 1, len(s.Events("/eks/platform", "team-b/p/c")))
	require.Equal(t, 1, len(s.Events("/eks/tenants/b", "team-b/p/c")))
	require.Eventually(t, func() bool { return s.Groups()[1].RetentionInDays == 731 }, 30*time.Second, time.Millisecond,
		"the retention of a group already looked at is raised")
	i.Close()
}

func TestABrokenOrShrunkenVersionIsRefusedAndTheOldOneStays(t *testing.T) {
	const good = "version: 1\ngeneration: 5\ntenants: {a: {namespaces: [team-a, tenant-a]}, b: {}, c: {}}"
	for name, test := range map[string]struct{ content, why string }{
		"no YAML":     {"version: [", "not a tenants file"},
		"empty":       {"", "tenants_file"},
		"unknown key": {"version: 1\ntenants: {a: {retention: 5}}", "is not known here"},
		"shrunken":    {"version: 1\ngeneration: 6\ntenants: {b: {}}", "2 of 3 tenants are missing"},
		"older":       {strings.Replace(good, "5", "4", 1), "generation 4 is older than 5"},
		"moved":       {"version: 1\ngeneration: 6\ntenants: {a: {namespaces: [tenant-a]}, b: {namespaces: [team-a, tenant-b]}, c: {}}", "namespace team-a was tenant a's and would become b's"},
	} {
		t.Run(name, func(t *testing.T) {
			i, s, log, file := watched(t, good)
			replaceFile(t, file, test.content)
			says(t, log, 1, "tenants_file changed and is refused; the version before stays in force")
			require.Contains(t, log.String(), test.why)
			require.Equal(t, OK, i.Flush(context.Background(), strings.Replace(tagA, "tenant-a", "team-a", 1), chunkOf(time.Now(), map[string]any{"log": "x"}), 0))
			require.Len(t, s.Events("/eks/tenants/a", "team-a/p/c"), 1)
			replaceFile(t, file, good)
			says(t, log, 1, "tenants_file is again the version in force")
			require.NoError(t, os.Remove(file))
			says(t, log, 1, "failed to read it")
			replaceFile(t, file, strings.Replace(good, "5", "6", 1))
			says(t, log, 1, "tenants_file reloaded")
			i.Close()
			require.LessOrEqual(t, strings.Count(log.String(), "is refused"), 3, "each once, not each time it is looked at")
		})
	}
}

// Nodes may be up before the registry is published for the first time.
func TestARegistryThatIsNotThereYetQuarantinesAndIsTakenOver(t *testing.T) {
	file := t.TempDir() + "/tenants.yaml"
	i, s, log := instance(t, fakeaws.Config{}, Environment{Node: "n1", ReloadEvery: time.Millisecond}, "tenant_source", "registry", "log_format", "json/emf", "tenants_file", file)
	ship := func() {
		t.Helper()
		require.Equal(t, OK, i.Flush(context.Background(), tagA, chunkOf(time.Now(), map[string]any{"log": "x"}), 0))
	}
	says(t, log, 1, "the registry is not there yet: the lines of all namespaces go to /eks/quarantine/_pending")
	ship()
	require.Len(t, s.Events("/eks/quarantine/_pending", "tenant-a/p/c"), 1)
	replaceFile(t, file, "")
	says(t, log, 2, "the registry is not there yet")
	replaceFile(t, file, "version: 1\ngeneration: 7\ntenants: {a: {namespaces: [tenant-a], emf: true}}")
	says(t, log, 1, "tenants_file reloaded")
	ship()
	require.Len(t, s.Events("/eks/tenants/a", "tenant-a/p/c"), 1)
	require.NoError(t, os.Remove(file))
	says(t, log, 1, "the version before stays in force")
	ship()
	require.Len(t, s.Events("/eks/tenants/a", "tenant-a/p/c"), 2)
	i.Close()
}

func TestAPathThatLeadsNowhereIsRefused(t *testing.T) {
	for _, opts := range []map[string]string{
		{"tenant_source": "registry", "tenants_file": t.TempDir() + "/typo/tenants.yaml"},
		{"tenant_source": "prefix", "tenants_file": t.TempDir() + "/tenants.yaml"},
	} {
		opts["region"] = "us-east-1"
		o, err := ParseOptions(from(opts))
		require.NoError(t, err)
		_, err = New(context.Background(), o, Environment{Log: slog.New(slog.DiscardHandler)})
		require.ErrorContains(t, err, "tenants_file: failed to read it")
	}
}

// A chunk on its way keeps the destination it had.
func TestAChunkOnItsWayFinishesUnderTheOldVersion(t *testing.T) {
	i, s, log, file := watched(t, "version: 1\ntenants: {a: {}}")
	inside, release := make(chan struct{}), make(chan struct{})
	var once sync.Once
	s.SetIntercept(func(c fakeaws.Call) error {
		if c.Operation == "PutLogEvents" {
			once.Do(func() { close(inside); <-release })
		}
		return nil
	})
	tag := strings.Replace(tagA, "tenant-a", "team-b", 1)
	done := make(chan Result, 1)
	go func() { done <- i.Flush(context.Background(), tag, chunkOf(time.Now(), map[string]any{"log": "x"}), 0) }()
	<-inside
	replaceFile(t, file, "version: 1\ntenants: {a: {}, b: {namespaces: [team-b, tenant-b]}}")
	says(t, log, 1, "tenants_file reloaded")
	close(release)
	require.Equal(t, OK, <-done)
	require.Len(t, s.Events("/eks/platform", "team-b/p/c"), 1)
	i.Close()
	require.Len(t, s.Groups(), 1)
}

func TestATenantsOwnAccountIsWrittenToWithItsRole(t *testing.T) {
	const role = "arn:aws:iam::210987654321:role/logs"
	file := t.TempDir() + "/tenants.yaml"
	replaceFile(t, file, fmt.Sprintf("version: 1\ntenants: {a: {roleArn: %q, externalId: ext-1}, b: {}}", role))
	s := fakeaws.New(fakeaws.Config{})
	var mu sync.Mutex
	who := map[string]map[string]bool{}
	s.SetIntercept(func(c fakeaws.Call) error {
		mu.Lock()
		defer mu.Unlock()
		if who[c.LogGroup] == nil {
			who[c.LogGroup] = map[string]bool{}
		}
		who[c.LogGroup][c.PrincipalARN] = true
		return nil
	})
	i, log := at(t, s, Environment{}, "tenants_file", file)
	for _, ns := range []string{"tenant-a", "tenant-b"} {
		require.Equal(t, OK, i.Flush(context.Background(), strings.Replace(tagA, "tenant-a", ns, 1), chunkOf(time.Now(), map[string]any{"log": "x"}), 0))
	}
	require.Eventually(t, func() bool { return s.CallCount("TagResource") == 2 }, 30*time.Second, time.Millisecond)
	i.Close()
	require.Equal(t, []fakeaws.AssumedRole{{RoleARN: role, SessionName: "eks-tenant-logs", ExternalID: "ext-1", AccessKeyID: s.AssumedRoles()[0].AccessKeyID}}, s.AssumedRoles())
	assumed := "arn:aws:sts::210987654321:assumed-role/logs/eks-tenant-logs"
	require.Equal(t, map[string]bool{assumed: true}, who["/eks/tenants/a"], "creating, putting, retention: all of it")
	require.False(t, who["/eks/tenants/b"][assumed])
	require.NotContains(t, log.String(), "ext-1")
}

// A role that can't be assumed is its tenant's trouble, told with its name.
func TestARoleThatCannotBeAssumedHoldsItsTenantAlone(t *testing.T) {
	file := t.TempDir() + "/tenants.yaml"
	replaceFile(t, file, "version: 1\ntenants: {a: {roleArn: \"arn:aws:iam::210987654321:role/logs\"}, b: {}}")
	s := fakeaws.New(fakeaws.Config{})
	s.SetIntercept(func(c fakeaws.Call) error {
		if c.Operation == "AssumeRole" {
			return &fakeaws.APIError{Code: "AccessDenied", Message: "not authorized to perform: sts:AssumeRole"}
		}
		return nil
	})
	i, log := at(t, s, Environment{}, "tenants_file", file)
	require.Equal(t, Retry, i.Flush(context.Background(), tagA, chunkOf(time.Now(), map[string]any{"log": "x"}), 0))
	require.Equal(t, OK, i.Flush(context.Background(), strings.Replace(tagA, "tenant-a", "tenant-b", 1), chunkOf(time.Now(), map[string]any{"log": "x"}), 0))
	i.Close()
	require.Contains(t, log.String(), "role arn:aws:iam::210987654321:role/logs can't be assumed: AccessDenied: not authorized to perform: sts:AssumeRole; check its trust policy and the external id")
	require.Len(t, s.Groups(), 1)
}

func TestEMFIsAnnouncedForTenantsThatMay(t *testing.T) {
	file := t.TempDir() + "/tenants.yaml"
	replaceFile(t, file, "version: 1\ntenants: {a: {emf: true}}")
	i, s, _ := instance(t, fakeaws.Config{}, Environment{}, "tenants_file", file, "log_format", "json/emf")
	var mu sync.Mutex
	formats := map[string]string{}
	s.SetIntercept(func(c fakeaws.Call) error {
		mu.Lock()
		defer mu.Unlock()
		if c.Operation == "PutLogEvents" {
			formats[c.LogGroup] = c.LogsFormat
		}
		return nil
	})
	for _, ns := range []string{"tenant-a", "tenant-b"} {
		require.Equal(t, OK, i.Flush(context.Background(), strings.Replace(tagA, "tenant-a", ns, 1), chunkOf(time.Now(), map[string]any{"_aws": map[string]any{}}), 0))
	}
	i.Close()
	require.Equal(t, map[string]string{"/eks/tenants/a": "json/emf", "/eks/tenants/b": ""}, formats)
}

func TestEMFWithoutATenantThatMayIsRefused(t *testing.T) {
	o, err := ParseOptions(from(map[string]string{"region": "us-east-1", "log_format": "json/emf"}))
	require.NoError(t, err)
	_, err = New(context.Background(), o, Environment{})
	require.EqualError(t, err, "log_format: \"json/emf\" is not allowed: no tenant in tenants_file has `emf: true`, so no line could make metrics: give a tenant the permission, or json")
}

func TestLateEventsAreDroppedOnlyWhereConfigured(t *testing.T) {
	now := time.Now()
	for option, want := range map[string]int{"restamp": 3, "drop": 1} {
		i, s, log := instance(t, fakeaws.Config{}, Environment{}, "late_events", option)
		var chunk []byte
		for _, at := range []time.Time{now.Add(-20 * 24 * time.Hour), now, now.Add(3 * time.Hour)} {
			chunk = append(chunk, chunkOf(at, map[string]any{"log": "x"})...)
		}
		require.Equal(t, OK, i.Flush(context.Background(), tagA, chunk, 0))
		i.Close()
		require.Len(t, s.Events("/eks/tenants/a", "tenant-a/p/c"), want, option)
		require.Equal(t, option == "drop", strings.Contains(log.String(), "dropped, as late_events says"))
	}
}

// On a node whose clock is wrong late_events drops what is late by AWS's clock, and nothing that only
// the node's clock made late: neither the first chunk, which goes before AWS's time is known, nor the next.
func TestASkewedClockMakesNoEventLate(t *testing.T) {
	for _, ahead := range []time.Duration{3 * time.Hour, -15 * 24 * time.Hour} {
		s := fakeaws.New(fakeaws.Config{})
		s.SetClockOffset(-ahead)
		i, log := at(t, s, Environment{}, "late_events", "drop")
		now := time.Now()
		for range 2 {
			data := chunkOf(now, map[string]any{"log": "fresh"})
			if ahead > 0 { // late by both clocks
				data = append(chunkOf(now.Add(-20*24*time.Hour), map[string]any{"log": "late"}), data...)
			}
			require.Equal(t, OK, i.Flush(context.Background(), tagA, data, 0))
		}
		i.Close()
		events := s.Events("/eks/tenants/a", "tenant-a/p/c")
		require.Len(t, events, 2, "%v: %s", ahead, log)
		for _, e := range events {
			require.Contains(t, e.Message, "fresh")
			require.Contains(t, e.Message, `"time_reason":"clock_skew","clock_skew_seconds":`)
			require.WithinDuration(t, now.Add(-ahead), time.UnixMilli(e.Timestamp), time.Minute)
		}
		require.Equal(t, 1, strings.Count(log.String(), "this node's clock differs from AWS's"))
	}
}

// A record that turns too old between two attempts at its chunk leaves the others their
// places: what was accepted is not sent again.
func TestARecordThatTurnsTooOldMeanwhileBringsNothingTwice(t *testing.T) {
	base := time.Now()
	var clock atomic.Int64
	i, s, _ := instance(t, fakeaws.Config{}, Environment{Now: func() time.Time { return base.Add(time.Duration(clock.Load())) }},
		"log_retention_days", "1", "late_events", "drop")
	inside, release := make(chan struct{}), make(chan struct{})
	var puts atomic.Int32
	s.SetIntercept(func(c fakeaws.Call) error {
		if c.Operation == "PutLogEvents" && puts.Add(1) == 2 { // the first finds no group
			close(inside)
			<-release
		}
		return nil
	})
	data := append(chunkOf(base.Add(-24*time.Hour+30*time.Second), map[string]any{"log": "old"}), chunkOf(base, map[string]any{"log": "new"})...)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan Result, 1)
	go func() { done <- i.Flush(ctx, tagA, data, 0) }()
	<-inside
	cancel()
	require.Equal(t, Retry, <-done)
	clock.Store(int64(time.Minute))
	close(release)
	require.Equal(t, OK, i.Flush(context.Background(), tagA, data, 0))
	i.Close()
	require.Len(t, s.Events("/eks/tenants/a", "tenant-a/p/c"), 2)
}

// Accounts no tenant has any more are left after a while, and not before their calls.
func TestAccountsThatNobodyHasAreLeft(t *testing.T) {
	i, _, _ := instance(t, fakeaws.Config{}, Environment{})
	now := time.Now()
	gone, kept := awsclient.Role{ARN: "gone"}, awsclient.Role{ARN: "kept"}
	for _, r := range []awsclient.Role{{}, gone, kept} {
		i.accounts.of(r)
	}
	inUse := map[awsclient.Role]bool{kept: true}
	i.accounts.sweep(inUse, now)
	i.accounts.sweep(inUse, now.Add(leaveAfter-1))
	require.Len(t, i.accounts.all(), 3)
	i.accounts.sweep(inUse, now.Add(leaveAfter))
	require.Len(t, i.accounts.all(), 2)
	require.NotNil(t, i.accounts.of(gone), "it may come back")
	i.Close()
}
