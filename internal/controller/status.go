package controller

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/eks-tenant-logs/eks-tenant-logs/internal/provision"
)

// Keys of the status' ConfigMap, beside one for each tenant. A tenant's name is a DNS
// label and begins with no _.
const (
	summaryKey = "_summary"
	refusedKey = "_refused"
)

const (
	// maxReason bounds what people are told in one place, in bytes.
	maxReason = 512
	// maxStatus bounds the status as a whole: a ConfigMap holds 1 MiB (API reference).
	maxStatus = 900_000
	// retiredFor is how long a tenant that nobody claims any more is still shown.
	retiredFor = 30 * 24 * time.Hour
)

// Entry is one tenant's line of the status.
type Entry struct {
	State provision.State `json:"state"`
	// Since is when it came to this state.
	Since  time.Time `json:"since"`
	Reason string    `json:"reason,omitempty"`
	Group  string    `json:"group,omitempty"`
	Role   string    `json:"role,omitempty"`
	// RetentionDays is the group's effective retention; 0: none, or it never expires.
	RetentionDays int `json:"retentionDays"`
	// Namespaces are those that have the tenant, by name with their UIDs. Those that are
	// gone stay until the tenant is retired.
	Namespaces map[string]string `json:"namespaces,omitempty"`
	Findings   []string          `json:"findings,omitempty"`
}

// Summary is the status of the whole.
type Summary struct {
	// Tenants is how many tenants are in each state.
	Tenants map[provision.State]int `json:"tenants"`
	// RefusedNamespaces is how many namespaces do not get what they claim.
	RefusedNamespaces int `json:"refusedNamespaces"`
	// Generation is the published registry's; 0 where none is published.
	Generation int64 `json:"generation,omitempty"`
	// Problems are what concerns no single tenant.
	Problems []string `json:"problems,omitempty"`
	// NotShown is how many tenants did not fit in.
	NotShown int `json:"notShown,omitempty"`
}

// status is all that is said, and what the next leader goes on from.
type status struct {
	tenants    map[string]Entry
	refused    map[string]string // by namespace: why
	problems   map[string]string // by what they are about
	generation int64
}

func newStatus() status {
	return status{tenants: map[string]Entry{}, refused: map[string]string{}, problems: map[string]string{}}
}

// readStatus reads what the ConfigMap says; what is broken in it is forgotten.
func readStatus(data map[string]string) status {
	s := newStatus()
	for key, text := range data {
		switch key {
		case summaryKey:
			var summary Summary
			if json.Unmarshal([]byte(text), &summary) == nil {
				s.generation = summary.Generation
			}
		case refusedKey:
			var refusals []Refusal
			if json.Unmarshal([]byte(text), &refusals) == nil {
				for _, r := range refusals {
					s.refused[r.Namespace] = r.Reason
				}
			}
		default:
			var e Entry
			if json.Unmarshal([]byte(text), &e) == nil && e.State != "" {
				s.tenants[key] = e
			}
		}
	}
	return s
}

// configMap is the ConfigMap's data; what does not fit is left out and counted, whole
// tenants at a time, those that are ready first.
func (s status) configMap() (map[string]string, error) {
	summary := Summary{Tenants: s.count(), RefusedNamespaces: len(s.refused), Generation: s.generation}
	for _, about := range slices.Sorted(maps.Keys(s.problems)) {
		summary.Problems = append(summary.Problems, s.problems[about])
	}
	data := map[string]string{}
	size := 0
	put := func(key string, v any) bool {
		text, err := json.Marshal(v)
		if err != nil || size+len(key)+len(text) > maxStatus {
			return false
		}
		size += len(key) + len(text)
		data[key] = string(text)
		return true
	}
	var refusals []Refusal
	for _, ns := range slices.Sorted(maps.Keys(s.refused)) {
		refusals = append(refusals, Refusal{Namespace: ns, Reason: s.refused[ns]})
	}
	if len(refusals) > 0 {
		for !put(refusedKey, refusals) {
			refusals = refusals[:len(refusals)/2]
		}
	}
	names := slices.SortedFunc(maps.Keys(s.tenants), func(a, b string) int {
		if ra, rb := s.tenants[a].State == provision.StateReady, s.tenants[b].State == provision.StateReady; ra != rb {
			if rb {
				return -1
			}
			return 1
		}
		return strings.Compare(a, b)
	})
	for _, name := range names {
		if !put(name, s.tenants[name]) {
			summary.NotShown++
		}
	}
	text, err := json.Marshal(summary)
	if err != nil {
		return nil, fmt.Errorf("failed to write the status: %w", err)
	}
	data[summaryKey] = string(text)
	return data, nil
}

func (s status) count() map[provision.State]int {
	n := map[provision.State]int{}
	for _, e := range s.tenants {
		n[e.State]++
	}
	return n
}

// news is something a namespace's people should know.
type news struct {
	namespace, uid string
	warning        bool
	reason, text   string
}

// Reasons of events.
const (
	eventReady   = "TenantReady"
	eventRefused = "TenantRefused"
	eventFailed  = "TenantFailed"
	eventRetired = "TenantRetired"
	eventProblem = "TenantLogsProblem"
)

// fold takes over what the engine says of tenants, and returns what is new to whom. Only a
// change is news: to another state, or to another reason of a refusal.
func (s status) fold(report []provision.TenantStatus, claimed map[string]provision.Tenant, at time.Time) []news {
	var all []news
	for _, t := range report {
		before := s.tenants[t.Tenant]
		e := Entry{
			State: t.State, Since: before.Since, Reason: cut(t.Reason), Group: t.Group, Role: t.Role, RetentionDays: t.RetentionDays,
			Namespaces: map[string]string{}, Findings: slices.Clone(t.Findings),
		}
		uids := map[string]string{}
		for _, ns := range claimed[t.Tenant].Namespaces {
			uids[ns.Name] = ns.UID
		}
		refused := map[string]bool{}
		for _, r := range t.Refused {
			refused[r.Namespace] = true
		}
		// Those that are gone, and those of which nothing was said, had it before.
		for ns, uid := range before.Namespaces {
			if !refused[ns] || uids[ns] != uid {
				e.Namespaces[ns] = uid
			}
		}
		for _, ns := range t.Namespaces {
			if uid := uids[ns]; uid != "" {
				e.Namespaces[ns] = uid
			}
		}
		if before.State != e.State || before.Since.IsZero() {
			e.Since = at.UTC().Truncate(time.Second)
		}
		for i, f := range e.Findings {
			e.Findings[i] = cut(f)
		}
		s.tenants[t.Tenant] = e
		if before.State == e.State && (e.State != provision.StateRefused || before.Reason == e.Reason) {
			continue
		}
		for _, ns := range claimed[t.Tenant].Namespaces {
			if !refused[ns.Name] {
				all = append(all, e.news(t.Tenant, ns)...)
			}
		}
	}
	return all
}

func (e Entry) news(tenant string, ns provision.Namespace) []news {
	n := news{namespace: ns.Name, uid: ns.UID}
	switch e.State {
	case provision.StateReady:
		n.reason, n.text = eventReady, fmt.Sprintf("the logs of tenant %s are kept in %s", tenant, e.Group)
		if e.RetentionDays > 0 {
			n.text += fmt.Sprintf(" for %d days", e.RetentionDays)
		}
		if e.Role != "" {
			n.text += ", to be read by role " + e.Role
		}
	case provision.StateRefused:
		n.warning, n.reason, n.text = true, eventRefused, fmt.Sprintf("tenant %s is not set up: %s", tenant, e.Reason)
	case provision.StateFailed:
		n.warning, n.reason, n.text = true, eventFailed, fmt.Sprintf("tenant %s is not set up yet, and will be tried again: %s", tenant, e.Reason)
	default:
		return nil
	}
	return []news{n}
}

// refuse takes over which namespaces do not get what they claim. It is all of them, or,
// where namespaces is given, all of those.
func (s status) refuse(refusals []Refusal) []news {
	var all []news
	next := map[string]string{}
	for _, r := range refusals {
		reason := cut(r.Reason)
		if next[r.Namespace] != "" {
			reason = cut(next[r.Namespace] + "; " + r.Reason)
		}
		next[r.Namespace] = reason
	}
	told := map[string]bool{}
	for _, r := range refusals {
		if reason := next[r.Namespace]; s.refused[r.Namespace] != reason && !told[r.Namespace] {
			told[r.Namespace] = true
			all = append(all, news{namespace: r.Namespace, uid: r.UID, warning: true, reason: eventRefused, text: reason})
		}
	}
	clear(s.refused)
	maps.Copy(s.refused, next)
	return all
}

// forget leaves out tenants that nobody claims and that were retired long ago, or never
// came to anything.
func (s status) forget(claimed map[string]provision.Tenant, at time.Time) {
	maps.DeleteFunc(s.tenants, func(name string, e Entry) bool {
		if _, ok := claimed[name]; ok {
			return false
		}
		switch e.State {
		case provision.StateRetired:
			return at.Sub(e.Since) >= retiredFor
		case provision.StateReady:
			return false
		}
		return len(e.Namespaces) == 0 // nobody ever had it
	})
}

// cut bounds a text, and keeps its characters whole.
func cut(s string) string {
	if len(s) <= maxReason {
		return s
	}
	end := maxReason - len("…")
	for range utf8.UTFMax - 1 { // what is not UTF-8 has no characters to keep
		if utf8.RuneStart(s[end]) {
			break
		}
		end--
	}
	return s[:end] + "…"
}
