package provision

import (
	"context"
	"sync"
	"time"

	"github.com/eks-tenant-logs/eks-tenant-logs/internal/awsclient"
)

// Clock is how time passes.
type Clock struct {
	Now   func() time.Time
	Sleep func(context.Context, time.Duration) error
}

// perSecond is how often each operation is called, in calls a second. The account's quota
// (CloudWatch Logs quotas) is behind each; some of it is left to the nodes and to others.
// What is not here is IAM's, KMS's or EKS's: IAM documents none, KMS allows 5 a second for
// the calls that change a key, EKS about as much.
var perSecond = map[string]float64{
	"DescribeLogGroups":             5,   // of 10
	"ListTagsForResource":           4,   // of 5
	"DescribeLogStreams":            15,  // of 25
	"CreateLogGroup":                8,   // of 10
	"PutRetentionPolicy":            4.5, // of 5; nobody else has a reason to call it
	"TagResource":                   4.5, // of 5
	"AssociateKmsKey":               4,   // of 5
	"PutLogGroupDeletionProtection": 4,
	"PutBearerTokenAuthentication":  4,

	"GetAccountAuthorizationDetails": 2,
	"GetAccountSummary":              2,
	"CreateKey":                      2, // KMS: 5
	"ListAliases":                    10,
}

const otherPerSecond = 8

// rates keeps calls under their quotas. Of each operation a second's worth may come at once.
type rates struct {
	clock Clock

	mu   sync.Mutex
	next map[string]time.Time // when the bucket would be full again
	made map[string]int       // calls let through
}

func newRates(c Clock) *rates {
	return &rates{clock: c, next: map[string]time.Time{}, made: map[string]int{}}
}

// wait waits for an operation's turn. Tenants' own accounts have quotas of their own.
func (r *rates) wait(ctx context.Context, account awsclient.Role, operation string) error {
	rate, ok := perSecond[operation]
	if !ok {
		rate = otherPerSecond
	}
	interval := time.Duration(float64(time.Second) / rate)
	burst := time.Duration(max(rate, 1)-1) * interval
	key := operation + " " + account.ARN
	r.mu.Lock()
	now := r.clock.Now()
	at := r.next[key]
	if at.Before(now.Add(-burst)) {
		at = now.Add(-burst)
	}
	delay := at.Sub(now)
	r.next[key] = at.Add(interval)
	r.made[operation]++
	r.mu.Unlock()
	if delay <= 0 {
		return ctx.Err()
	}
	return r.clock.Sleep(ctx, delay)
}

// calls is how many calls of each operation there were.
func (r *rates) calls() map[string]int {
	r.mu.Lock()
	defer r.mu.Unlock()
	out := make(map[string]int, len(r.made))
	for k, n := range r.made {
		out[k] = n
	}
	return out
}
