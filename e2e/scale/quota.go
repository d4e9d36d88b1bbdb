package scale

import "github.com/eks-tenant-logs/eks-tenant-logs/internal/fakeaws"

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

// DefaultQuotas are what an account has that asked for nothing (fakeaws.Quotas). The last
// three can't be raised.
var DefaultQuotas = func() (q Quotas) {
	for op := range operations {
		q[op] = fakeaws.Quotas[op.String()]
	}
	return q
}()

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
