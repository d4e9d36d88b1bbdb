package output

import (
	"context"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/eks-tenant-logs/eks-tenant-logs/internal/awsclient"
	"github.com/eks-tenant-logs/eks-tenant-logs/internal/delivery"
	"github.com/eks-tenant-logs/eks-tenant-logs/internal/loggroup"
	"github.com/eks-tenant-logs/eks-tenant-logs/internal/telemetry"
)

// account is CloudWatch Logs as one identity sees it: the platform's own, or a
// tenant's account, which is written to with the tenant's role.
type account struct {
	client *awsclient.Client
	groups *loggroup.Keeper
	unused time.Time // since when no tenant has it; zero while one does
}

// accounts makes an account the first time somebody writes there.
type accounts struct {
	own  *awsclient.Client
	make func(*awsclient.Client) *loggroup.Keeper

	mu     sync.Mutex
	byRole map[awsclient.Role]*account
}

func newAccounts(own *awsclient.Client, opts Options, env Environment, metrics *telemetry.Output) *accounts {
	return &accounts{own: own, byRole: map[awsclient.Role]*account{}, make: func(c *awsclient.Client) *loggroup.Keeper {
		return loggroup.NewKeeper(c, loggroup.Config{
			Create: opts.AutoCreateGroup, Log: env.Log, Observe: metrics.Retention,
			Delay: func() time.Duration { return rand.N(opts.RetentionCheckDelay + 1) },
		})
	}}
}

func (a *accounts) of(role awsclient.Role) *account {
	a.mu.Lock()
	defer a.mu.Unlock()
	acc := a.byRole[role]
	if acc == nil {
		acc = &account{client: a.own}
		if role != (awsclient.Role{}) {
			acc.client = a.own.As(role)
		}
		acc.groups = a.make(acc.client)
		a.byRole[role] = acc
	}
	return acc
}

func (a *accounts) all() []*account {
	a.mu.Lock()
	defer a.mu.Unlock()
	all := make([]*account, 0, len(a.byRole))
	for _, acc := range a.byRole {
		all = append(all, acc)
	}
	return all
}

// leaveAfter is how long an account is kept that no tenant has any more: longer than
// any flush that may still write there.
const leaveAfter = 10 * time.Minute

// sweep ends the background work of accounts that no tenant has had for a while.
func (a *accounts) sweep(inUse map[awsclient.Role]bool, now time.Time) {
	var left []*account
	a.mu.Lock()
	for role, acc := range a.byRole {
		switch {
		case role == (awsclient.Role{}) || inUse[role]:
			acc.unused = time.Time{}
		case acc.unused.IsZero():
			acc.unused = now
		case now.Sub(acc.unused) >= leaveAfter:
			delete(a.byRole, role)
			left = append(left, acc)
		}
	}
	a.mu.Unlock()
	for _, acc := range left {
		acc.groups.Close()
	}
}

// open is how many groups' retention is not confirmed.
func (a *accounts) open() (n int) {
	for _, acc := range a.all() {
		n += acc.groups.Open()
	}
	return n
}

// close ends the background work.
func (a *accounts) close() {
	for _, acc := range a.all() {
		acc.groups.Close()
	}
}

// logs is CloudWatch as delivery sees it.
type logs struct{ i *Instance }

func (l logs) Put(ctx context.Context, t delivery.Target, body awsclient.Body, count int) (awsclient.Rejected, error) {
	body.EMF = l.i.opts.EMF && l.i.view.Load().emf(t.Group)
	return l.i.accounts.of(t.Role).client.Put(ctx, t.Group, t.Stream, body, count)
}

func (l logs) EnsureStream(ctx context.Context, t delivery.Target) error {
	return l.i.accounts.of(t.Role).groups.EnsureStream(ctx, l.i.view.Load().spec(t.Group), t.Stream)
}
