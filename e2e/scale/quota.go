package scale

import "time"

// Operation is one of CloudWatch Logs' calls.
type Operation int

// The calls that the plugin makes.
const (
	PutLogEvents Operation = iota
	CreateLogStream
	CreateLogGroup
	DescribeLogGroups
	PutRetentionPolicy
	ListTagsForResource
	TagResource
	operations
)

func (o Operation) String() string {
	return [...]string{"PutLogEvents", "CreateLogStream", "CreateLogGroup", "DescribeLogGroups", "PutRetentionPolicy", "ListTagsForResource", "TagResource"}[o]
}

// Quotas are calls per second of one account in one region.
type Quotas [operations]float64

// DefaultQuotas are what an account has that asked for nothing (CloudWatch Logs user
// guide, "CloudWatch Logs quotas"). The last three can't be raised.
var DefaultQuotas = Quotas{
	PutLogEvents: 5000, CreateLogStream: 50, CreateLogGroup: 10, DescribeLogGroups: 10,
	PutRetentionPolicy: 5, ListTagsForResource: 5, TagResource: 5,
}

// bucket is a token bucket that holds one second's worth. How AWS counts is not
// documented; a call that is refused takes no token here.
type bucket struct {
	rate, tokens float64
	at           time.Time
}

func (b *bucket) take(now time.Time) bool {
	if b.at.IsZero() {
		b.tokens = b.rate
	} else {
		b.tokens = min(b.rate, b.tokens+b.rate*now.Sub(b.at).Seconds())
	}
	b.at = now
	if b.tokens < 1 {
		return false
	}
	b.tokens--
	return true
}

// series counts by second since the start.
type series []int32

func (s *series) add(second int) {
	for len(*s) <= second {
		*s = append(*s, 0)
	}
	(*s)[second]++
}

func (s series) total() (n int64) {
	for _, v := range s {
		n += int64(v)
	}
	return n
}

func (s series) peak() (n int32) {
	for _, v := range s {
		n = max(n, v)
	}
	return n
}

// mean is the average of the seconds [from, to).
func (s series) mean(from, to int) float64 {
	var n int64
	for i := from; i < to && i < len(s); i++ {
		n += int64(s[i])
	}
	return float64(n) / float64(max(1, to-from))
}

// exceeds reports whether more was let through in any span than the quota and one
// second's burst allow.
func (s series) exceeds(rate float64) bool {
	level := rate // what may be taken at once
	for _, v := range s {
		level += rate
		if float64(v) > level {
			return true
		}
		level = min(rate, level-float64(v))
	}
	return false
}
