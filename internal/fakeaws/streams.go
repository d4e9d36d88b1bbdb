package fakeaws

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

type createLogStream struct {
	Group  *string `json:"logGroupName"`
	Stream *string `json:"logStreamName"`
}

func (r *createLogStream) target(*account) (group, stream string) {
	return deref(r.Group), deref(r.Stream)
}

func (r *createLogStream) do(s *account, _ *Call) (any, *APIError) {
	var c constraints
	c.required("logGroupName", r.Group, ruleGroupName)
	c.required("logStreamName", r.Stream, ruleStreamName)
	if err := c.err(); err != nil {
		return nil, err
	}
	return nil, s.update(*r.Group, func(g *group) *APIError {
		if g.streams[*r.Stream] != nil {
			return &APIError{Code: codeAlreadyExists, Message: textStreamExists}
		}
		g.streams[*r.Stream] = &stream{name: *r.Stream, created: s.now()}
		return nil
	})
}

type deleteLogStream struct {
	Group  *string `json:"logGroupName"`
	Stream *string `json:"logStreamName"`
}

func (r *deleteLogStream) target(*account) (group, stream string) {
	return deref(r.Group), deref(r.Stream)
}

func (r *deleteLogStream) do(s *account, _ *Call) (any, *APIError) {
	var c constraints
	c.required("logGroupName", r.Group, ruleGroupName)
	c.required("logStreamName", r.Stream, ruleStreamName)
	if err := c.err(); err != nil {
		return nil, err
	}
	return nil, s.update(*r.Group, func(g *group) *APIError {
		if g.streams[*r.Stream] == nil {
			return streamNotFound()
		}
		// "Deletion protection blocks all deletion operations" (PutLogGroupDeletionProtection).
		if g.protected {
			return errProtected()
		}
		delete(g.streams, *r.Stream)
		return nil
	})
}

type describeLogStreams struct {
	Descending *bool   `json:"descending"`
	Limit      *int64  `json:"limit"`
	Identifier *string `json:"logGroupIdentifier"`
	Group      *string `json:"logGroupName"`
	Prefix     *string `json:"logStreamNamePrefix"`
	NextToken  *string `json:"nextToken"`
	OrderBy    *string `json:"orderBy"`
}

func (r *describeLogStreams) target(s *account) (group, stream string) {
	return groupTarget(s, r.Group, r.Identifier), ""
}

func groupTarget(s *account, name, identifier *string) string {
	if name != nil {
		return *name
	}
	return s.groupName(identifier)
}

// nameOrIdentifier returns the group that a request for reading names in one of two ways.
func (s *account) nameOrIdentifier(name, identifier *string) (string, *APIError) {
	switch {
	case (name == nil) == (identifier == nil):
		return "", invalidParameter(textEitherNameOrIdent)
	case name != nil:
		return *name, nil
	}
	return s.groupOf(*identifier)
}

// logStream is the model's LogStream.
type logStream struct {
	ARN           string `json:"arn"`
	CreationTime  int64  `json:"creationTime"`
	Name          string `json:"logStreamName"`
	FirstEvent    *int64 `json:"firstEventTimestamp,omitempty"`
	LastEvent     *int64 `json:"lastEventTimestamp,omitempty"`
	LastIngestion *int64 `json:"lastIngestionTime,omitempty"`
	StoredBytes   int64  `json:"storedBytes"` // always 0 since June 2019
	Token         string `json:"uploadSequenceToken"`
}

func (r *describeLogStreams) do(s *account, _ *Call) (any, *APIError) {
	const byName, byTime = "LogStreamName", "LastEventTime"
	var c constraints
	c.between("limit", r.Limit, 1, describeLimit)
	c.text("logGroupIdentifier", r.Identifier, ruleIdentifier)
	c.text("logGroupName", r.Group, ruleGroupName)
	c.text("logStreamNamePrefix", r.Prefix, ruleStreamName)
	c.text("nextToken", r.NextToken, ruleToken)
	c.oneOf("orderBy", r.OrderBy, byName, byTime)
	if err := c.err(); err != nil {
		return nil, err
	}
	name, err := s.nameOrIdentifier(r.Group, r.Identifier)
	if err != nil {
		return nil, err
	}
	timeOrder := deref(r.OrderBy) == byTime
	if timeOrder && r.Prefix != nil {
		return nil, invalidParameter("Cannot order by LastEventTime with a logStreamNamePrefix.")
	}
	g, _, err := s.lookup(name, "")
	if err != nil {
		return nil, err
	}
	query := queryID("DescribeLogStreams", name, r.Prefix, r.OrderBy, deref(r.Descending))
	at, err := readPageToken(r.NextToken, query, 2)
	if err != nil {
		return nil, err
	}

	type item struct {
		order int64 // the last event's time, when ordered by it
		logStream
	}
	compare := func(x, y *item) int {
		order := cmp.Compare(x.order, y.order)
		if order == 0 {
			order = strings.Compare(x.Name, y.Name)
		}
		if deref(r.Descending) {
			return -order
		}
		return order
	}
	var after *item
	if at != nil {
		order, err := strconv.ParseInt(at[0], 10, 64)
		if err != nil {
			return nil, invalidParameter(textInvalidToken)
		}
		after = &item{order: order, logStream: logStream{Name: at[1]}}
	}

	var items []*item
	s.mu.RLock()
	for _, st := range g.streams {
		if r.Prefix != nil && !strings.HasPrefix(st.name, *r.Prefix) {
			continue
		}
		st.mu.Lock()
		it := &item{logStream: logStream{
			ARN: s.groupARN(g.name) + ":log-stream:" + st.name, CreationTime: millis(st.created), Name: st.name,
			Token: fmt.Sprintf("%056d", len(st.batches)+1),
		}}
		if st.events > 0 {
			first, last, ingested := st.firstTS, st.lastTS, st.ingested
			it.FirstEvent, it.LastEvent, it.LastIngestion = &first, &last, &ingested
			if timeOrder {
				it.order = last
			}
		}
		st.mu.Unlock()
		if after == nil || compare(it, after) > 0 {
			items = append(items, it)
		}
	}
	s.mu.RUnlock()
	slices.SortFunc(items, compare)

	out := struct {
		Streams   []logStream `json:"logStreams"`
		NextToken string      `json:"nextToken,omitempty"`
	}{Streams: []logStream{}}
	limit := describeLimit
	if r.Limit != nil {
		limit = int(*r.Limit)
	}
	for i, it := range items {
		if i == limit {
			last := items[i-1]
			out.NextToken = pageToken(query, strconv.FormatInt(last.order, 10), last.Name)
			break
		}
		out.Streams = append(out.Streams, it.logStream)
	}
	return out, nil
}
