package fakeaws

import (
	"cmp"
	"encoding/json"
	"maps"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
)

// Results of calls that are no error codes of AWS.
const (
	resultOK    = "OK"
	resultReset = "(connection reset)" // an intercept function wanted it, or the client left
	resultLost  = "(answer lost)"
)

// CallKey is what calls are counted by.
type CallKey struct {
	// Operation is AWS's name, or "-" for a request that names no operation of this server, or that was not read because its
	// connection had ended.
	Operation string
	// Result is "OK", AWS's error code, "(connection reset)" or "(answer lost)".
	Result string
}

type stats struct {
	mu          sync.Mutex
	calls       map[CallKey]int
	received    atomic.Int64
	connections atomic.Int64
}

func (s *stats) count(operation, result string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.calls[CallKey{operation, result}]++
}

// Calls returns how many calls there were, by operation and result.
func (s *Server) Calls() map[CallKey]int {
	s.stats.mu.Lock()
	defer s.stats.mu.Unlock()
	return maps.Clone(s.stats.calls)
}

// CallCount returns how many calls there were of one operation, whatever came of them.
func (s *Server) CallCount(operation string) (n int) {
	for k, v := range s.Calls() {
		if k.Operation == operation {
			n += v
		}
	}
	return n
}

// BytesReceived returns how many bytes arrived on the connections of Start and StartTLS: headers, bodies and TLS.
func (s *Server) BytesReceived() int64 { return s.stats.received.Load() }

// Connections returns how many connections Start and StartTLS have accepted.
func (s *Server) Connections() int64 { return s.stats.connections.Load() }

// Event is an accepted log event.
type Event struct {
	// Timestamp and IngestionTime are in milliseconds since 1970.
	Timestamp     int64  `json:"timestamp"`
	IngestionTime int64  `json:"ingestionTime"`
	Message       string `json:"message"`
}

// Events returns a stream's events as GetLogEvents would: by timestamp, then arrival. It returns nil when there is no
// such group or stream.
func (s *Server) Events(group, stream string) []Event { return s.home.events(group, stream) }

func (s *account) events(group, stream string) []Event {
	_, st, err := s.lookup(group, stream)
	if err != nil || st == nil {
		return nil
	}
	v := st.view()
	events := make([]Event, len(v.order))
	for i := range events {
		b, index := v.event(i)
		events[i] = Event{b.records[index].ts, b.ingested, b.message(index)}
	}
	return events
}

// Group is what is known of a log group.
type Group struct {
	Name               string            `json:"name"`
	ARN                string            `json:"arn"` // without ":*"
	Class              string            `json:"class"`
	KMSKeyID           string            `json:"kmsKeyId,omitempty"`
	RetentionInDays    int               `json:"retentionInDays"` // effective; 0: events never expire
	DeletionProtection bool              `json:"deletionProtection"`
	BearerTokens       bool              `json:"bearerTokens"` // bearer tokens open it
	CreationTime       int64             `json:"creationTime"` // milliseconds since 1970
	Tags               map[string]string `json:"tags"`
	StoredBytes        int64             `json:"storedBytes"` // as PutLogEvents counts
	Events             int64             `json:"events"`      // accepted since the group was made, those of deleted streams included
	Streams            []Stream          `json:"streams"`     // by name
}

// Stream is what is known of a log stream.
type Stream struct {
	Name   string `json:"name"`
	Events int    `json:"events"`
	Bytes  int64  `json:"bytes"` // as PutLogEvents counts
}

// Accepted is how many events were accepted in all.
func (s *Server) Accepted() (n int) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	for _, g := range s.home.groups {
		n += int(g.eventCount.Load())
	}
	return n
}

// Groups returns all log groups by name.
func (s *Server) Groups() []Group { return s.home.listGroups() }

func (s *account) listGroups() []Group {
	s.mu.RLock()
	defer s.mu.RUnlock()
	groups := make([]Group, 0, len(s.groups))
	for _, g := range s.groups {
		days, _ := s.effectiveRetention(g)
		out := Group{
			Name: g.name, ARN: s.groupARN(g.name), Class: g.class, KMSKeyID: g.kmsKey,
			RetentionInDays: int(days), DeletionProtection: g.protected, BearerTokens: g.bearer, CreationTime: millis(g.created),
			Tags: maps.Clone(g.tags), StoredBytes: g.stored.Load(), Events: g.eventCount.Load(),
			Streams: make([]Stream, 0, len(g.streams)),
		}
		for _, st := range g.streams {
			st.mu.Lock()
			out.Streams = append(out.Streams, Stream{st.name, st.events, st.bytes})
			st.mu.Unlock()
		}
		slices.SortFunc(out.Streams, func(x, y Stream) int { return strings.Compare(x.Name, y.Name) })
		groups = append(groups, out)
	}
	slices.SortFunc(groups, func(x, y Group) int { return strings.Compare(x.Name, y.Name) })
	return groups
}

// Snapshot is everything but the messages.
type Snapshot struct {
	Region        string        `json:"region"`
	AccountID     string        `json:"accountId"`
	Groups        []Group       `json:"groups"`
	Calls         []CallTotal   `json:"calls"`
	AssumedRoles  []AssumedRole `json:"assumedRoles"`
	BytesReceived int64         `json:"bytesReceived"`
	Connections   int64         `json:"connections"`
}

// CallTotal is one entry of Calls.
type CallTotal struct {
	Operation string `json:"operation"`
	Result    string `json:"result"`
	Count     int    `json:"count"`
}

// Snapshot returns the present state. Calls that are under way may be in one part of it and not in another.
func (s *Server) Snapshot() Snapshot {
	return Snapshot{
		Region: s.cfg.Region, AccountID: s.cfg.AccountID, Groups: s.Groups(), Calls: s.callTotals(),
		AssumedRoles: s.AssumedRoles(), BytesReceived: s.BytesReceived(), Connections: s.Connections(),
	}
}

func (s *Server) callTotals() []CallTotal {
	totals := []CallTotal{}
	for k, n := range s.Calls() {
		totals = append(totals, CallTotal{k.Operation, k.Result, n})
	}
	slices.SortFunc(totals, func(x, y CallTotal) int {
		return cmp.Or(strings.Compare(x.Operation, y.Operation), strings.Compare(x.Result, y.Result))
	})
	return totals
}

// The unsigned endpoints under /_fake/ are for tests of another process; they answer the loopback interface only.

func (s *Server) serveState(w http.ResponseWriter, r *http.Request) {
	answerDebug(w, r, func() any {
		v := s.Snapshot()
		v.AccountID, v.Groups = s.accountIn(r).a.id, s.accountIn(r).Groups()
		return v
	})
}

func (s *Server) serveCalls(w http.ResponseWriter, r *http.Request) {
	answerDebug(w, r, func() any { return s.callTotals() })
}

func (s *Server) serveEvents(w http.ResponseWriter, r *http.Request) {
	answerDebug(w, r, func() any {
		return s.accountIn(r).Events(r.URL.Query().Get("group"), r.URL.Query().Get("stream"))
	})
}

func answerDebug(w http.ResponseWriter, r *http.Request, answer func() any) {
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	if ip := net.ParseIP(host); err != nil || ip == nil || !ip.IsLoopback() {
		http.Error(w, "only for the loopback interface", http.StatusForbidden)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false)
	_ = e.Encode(answer()) // a client that is gone needs no answer
}
