package controller

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/stretchr/testify/require"

	"github.com/eks-tenant-logs/eks-tenant-logs/internal/provision"
)

var noon = time.Date(2026, 3, 4, 12, 0, 0, 0, time.UTC)

// claimOf is what one tenant's namespaces claim, given as name=uid.
func claimOf(tenant string, namespaces ...string) map[string]provision.Tenant {
	t := provision.Tenant{Name: tenant}
	for _, ns := range namespaces {
		name, uid, _ := strings.Cut(ns, "=")
		t.Namespaces = append(t.Namespaces, provision.Namespace{Name: name, UID: uid})
	}
	return map[string]provision.Tenant{tenant: t}
}

func TestOnlyAChangeOfATenantIsNews(t *testing.T) {
	s := newStatus()
	claimed := claimOf("acme", "x=1", "y=2")
	ready := provision.TenantStatus{Tenant: "acme", State: provision.StateReady, Namespaces: []string{"x"}, Refused: []provision.Refusal{{Namespace: "y", Reason: "not yours"}}, Group: "/eks/tenants/acme", Role: "r", RetentionDays: 365}
	pending := provision.TenantStatus{Tenant: "acme", State: provision.StatePending}
	failed := provision.TenantStatus{Tenant: "acme", State: provision.StateFailed, Reason: "denied"}
	refused := provision.TenantStatus{Tenant: "acme", State: provision.StateRefused, Reason: "somebody else's group"}
	because := func(s provision.TenantStatus, reason string) provision.TenantStatus { s.Reason = reason; return s }
	for _, step := range []struct {
		what   string
		report provision.TenantStatus
		news   []string // namespace reason
		text   string
		since  int // minutes after noon
	}{
		{"first, pending", pending, nil, "", 0},
		{"ready: those who have it are told", ready, []string{"x TenantReady"}, "the logs of tenant acme are kept in /eks/tenants/acme for 365 days, to be read by role r", 1},
		{"ready still", ready, nil, "", 1},
		{"failed", failed, []string{"x TenantFailed", "y TenantFailed"}, "will be tried again: denied", 3},
		{"failed for another reason", because(failed, "throttled"), nil, "", 3},
		{"refused", refused, []string{"x TenantRefused", "y TenantRefused"}, "is not set up: somebody else's group", 5},
		{"refused still", refused, nil, "", 5},
		{"refused for another reason", because(refused, "a role"), []string{"x TenantRefused", "y TenantRefused"}, "a role", 5},
	} {
		at := noon.Add(time.Duration(step.since) * time.Minute)
		news := s.fold([]provision.TenantStatus{step.report}, claimed, at)
		var got []string
		for _, n := range news {
			got = append(got, n.namespace+" "+n.reason)
			require.Contains(t, n.text, step.text, step.what)
			require.Equal(t, n.reason != eventReady, n.warning, step.what)
			require.Equal(t, map[string]string{"x": "1", "y": "2"}[n.namespace], n.uid, step.what)
		}
		require.Equal(t, step.news, got, step.what)
		require.Equal(t, at, s.tenants["acme"].Since, step.what)
	}
}

func TestWhoHadATenantStaysKnownUntilItIsRetired(t *testing.T) {
	for name, test := range map[string]struct {
		before  map[string]string
		claimed []string
		granted []string
		refused []string
		want    map[string]string
	}{
		"granted":                       {nil, []string{"x=1"}, []string{"x"}, nil, map[string]string{"x": "1"}},
		"granted, but not claimed":      {nil, []string{"x=1"}, []string{"y"}, nil, map[string]string{}},
		"nothing said":                  {map[string]string{"x": "1"}, []string{"x=1"}, nil, nil, map[string]string{"x": "1"}},
		"gone":                          {map[string]string{"x": "1"}, []string{"y=2"}, []string{"y"}, nil, map[string]string{"x": "1", "y": "2"}},
		"refused":                       {map[string]string{"x": "1"}, []string{"x=1"}, nil, []string{"x"}, map[string]string{}},
		"a newcomer of its name":        {map[string]string{"x": "1"}, []string{"x=2"}, nil, []string{"x"}, map[string]string{"x": "1"}},
		"a newcomer that is granted it": {map[string]string{"x": "1"}, []string{"x=2"}, []string{"x"}, nil, map[string]string{"x": "2"}},
	} {
		s := newStatus()
		s.tenants["acme"] = Entry{State: provision.StateReady, Since: noon, Namespaces: test.before}
		report := provision.TenantStatus{Tenant: "acme", State: provision.StateReady, Namespaces: test.granted}
		for _, ns := range test.refused {
			report.Refused = append(report.Refused, provision.Refusal{Namespace: ns})
		}
		s.fold([]provision.TenantStatus{report}, claimOf("acme", test.claimed...), noon)
		require.Equal(t, test.want, s.tenants["acme"].Namespaces, name)
	}
}

func TestARefusedNamespaceIsToldOnceOfEachReason(t *testing.T) {
	s := newStatus()
	one := []Refusal{{Namespace: "x", UID: "1", Reason: "reserved"}}
	require.Equal(t, []news{{namespace: "x", uid: "1", warning: true, reason: eventRefused, text: "reserved"}}, s.refuse(one))
	require.Empty(t, s.refuse(one))
	two := []Refusal{{Namespace: "x", UID: "1", Reason: "reserved"}, {Namespace: "y", UID: "2", Reason: "used"}, {Namespace: "x", UID: "1", Reason: "no tenant"}}
	got := s.refuse(two)
	require.Len(t, got, 2)
	require.Equal(t, "reserved; no tenant", got[0].text)
	require.Equal(t, "y", got[1].namespace)
	require.Empty(t, s.refuse(two))
	require.Empty(t, s.refuse(nil))
	require.Empty(t, s.refused)
}

func TestWhatIsForgotten(t *testing.T) {
	old, had := noon.Add(-retiredFor), map[string]string{"x": "1"}
	for name, test := range map[string]struct {
		entry     Entry
		claimed   bool
		forgotten bool
	}{
		"retired long ago":                   {Entry{State: provision.StateRetired, Since: old}, false, true},
		"retired long ago, and claimed":      {Entry{State: provision.StateRetired, Since: old}, true, false},
		"retired a while ago":                {Entry{State: provision.StateRetired, Since: old.Add(time.Second)}, false, false},
		"refused, and came to nothing":       {Entry{State: provision.StateRefused}, false, true},
		"refused, and somebody had it":       {Entry{State: provision.StateRefused, Namespaces: had}, false, false},
		"failed, and came to nothing":        {Entry{State: provision.StateFailed}, false, true},
		"failed, and somebody has it":        {Entry{State: provision.StateFailed, Namespaces: had}, false, false},
		"failed, claimed":                    {Entry{State: provision.StateFailed}, true, false},
		"pending, and came to nothing":       {Entry{State: provision.StatePending}, false, true},
		"ready, and its namespaces are gone": {Entry{State: provision.StateReady, Namespaces: had}, false, false},
	} {
		s := newStatus()
		s.tenants["acme"] = test.entry
		claimed := map[string]provision.Tenant{}
		if test.claimed {
			claimed = claimOf("acme", "x=1")
		}
		s.forget(claimed, noon)
		require.Equal(t, test.forgotten, len(s.tenants) == 0, name)
	}
}

func TestAStatusIsReadAsItWasWritten(t *testing.T) {
	s := newStatus()
	s.generation = 42
	s.problems["engine"] = "no credentials"
	s.refused["team"] = "reserved"
	s.tenants["acme"] = Entry{State: provision.StateReady, Since: noon, Group: "/eks/tenants/acme", Role: "r", RetentionDays: 365, Namespaces: map[string]string{"x": "1"}, Findings: []string{"longer"}}
	s.tenants["globex"] = Entry{State: provision.StateFailed, Since: noon, Reason: "denied"}
	data, err := s.configMap()
	require.NoError(t, err)
	require.JSONEq(t, `{"tenants":{"ready":1,"failed":1},"refusedNamespaces":1,"generation":42,"problems":["no credentials"]}`, data[summaryKey])
	read := readStatus(data)
	s.problems = map[string]string{} // they are found again, or are over
	require.Equal(t, s, read)
	again, err := s.configMap()
	require.NoError(t, err)
	delete(data, summaryKey)
	delete(again, summaryKey)
	require.Equal(t, data, again)
}

func TestWhatIsBrokenInAStatusIsForgottenAndTheRestIsNot(t *testing.T) {
	s := readStatus(map[string]string{summaryKey: "{", refusedKey: "1", "acme": `{"state":"ready"}`, "globex": "x", "empty": "{}"})
	require.Equal(t, []string{"acme"}, slices.Collect(maps.Keys(s.tenants)))
	require.Zero(t, s.generation)
	require.Empty(t, s.refused)
}

// A ConfigMap holds 1 MiB. What is in trouble is shown before what is ready.
func TestTheStatusOf5000TenantsFitsIn(t *testing.T) {
	for name, reason := range map[string]string{"short reasons": "denied", "the longest": strings.Repeat("\x01", maxReason)} {
		t.Run(name, func(t *testing.T) {
			s := newStatus()
			for i := range 5000 {
				tenant := fmt.Sprintf("tenant-with-a-rather-long-name-%d", i)
				e := Entry{
					State: provision.StateReady, Since: noon, Group: "/eks/tenants/" + tenant, Role: "eks-tenant-logs_" + tenant, RetentionDays: 365,
					Namespaces: map[string]string{"tenant-" + tenant: "7c9e6679-7425-40de-944b-e07fc1f90ae7"},
				}
				if i%10 == 0 {
					e.State, e.Reason = provision.StateFailed, reason
				}
				s.tenants[tenant] = e
				s.refused[tenant] = reason
			}
			for i := range 5 {
				s.problems[fmt.Sprint(i)] = strings.Repeat("p", maxReason)
			}
			data, err := s.configMap()
			require.NoError(t, err)
			size := 0
			for key, text := range data {
				size += len(key) + len(text)
			}
			require.Less(t, size, 1<<20)
			read := readStatus(data)
			require.NotEmpty(t, read.refused)
			require.Contains(t, data[summaryKey], fmt.Sprintf(`"notShown":%d`, 5000-len(read.tenants)))
			require.Contains(t, data[summaryKey], `"tenants":{"failed":500,"ready":4500},"refusedNamespaces":5000`)
			if reason == "denied" {
				require.Equal(t, 500, read.count()[provision.StateFailed])
			}
			t.Logf("%d of 5000 tenants and %d of 5000 refusals are shown in %d bytes", len(read.tenants), len(read.refused), size)
		})
	}
}

func TestATextIsCutBetweenCharacters(t *testing.T) {
	require.Equal(t, "short", cut("short"))
	require.Len(t, cut(strings.Repeat("a", maxReason)), maxReason)
	for _, c := range []string{"a", "é", "…", "😀"} {
		for shift := range 4 {
			got := cut(strings.Repeat("a", shift) + strings.Repeat(c, 2*maxReason))
			require.LessOrEqual(t, len(got), maxReason)
			require.Greater(t, len(got), maxReason-8)
			require.True(t, utf8.ValidString(got))
			require.True(t, strings.HasSuffix(got, "…"))
		}
	}
	got := cut(strings.Repeat("\x80", 2*maxReason))
	require.LessOrEqual(t, len(got), maxReason, "no character begins anywhere")
	require.Greater(t, len(got), maxReason-8)
}
