package output

import (
	"cmp"
	"sync"
	"sync/atomic"
	"time"

	"github.com/eks-tenant-logs/eks-tenant-logs/internal/delivery"
)

// defaultHoldBudget is half of the tasks Fluent Bit can have outstanding in all its
// outputs together (2,048; flb_engine: a chunk that waits for its retry is one).
const defaultHoldBudget = "1024"

// forgetHeld is when a chunk is taken for gone that has not come back: Fluent Bit's
// scheduler waits 2,000 s at most by default (scheduler.cap), and drops chunks of its own
// accord where its storage is full.
const forgetHeld = 2 * time.Hour

// sweepAt is from how many chunks on those that never come back are looked for where there
// is no budget.
const sweepAt = 4096

// held are the chunks that stay with Fluent Bit because their tenant's log group takes
// nothing. Each is one of its tasks, and when those are used up nobody's logs move any
// more: so there is a budget, of which each tenant in trouble has the same share.
type held struct {
	budget int // 0 means none
	some   atomic.Bool

	mu       sync.Mutex
	chunks   map[delivery.Key]heldChunk
	byTenant map[string]int
}

type heldChunk struct {
	tenant string
	seen   time.Time
}

func newHeld(budget int) *held {
	return &held{budget: budget, chunks: map[delivery.Key]heldChunk{}, byTenant: map[string]int{}}
}

// keep reports whether a chunk may stay with Fluent Bit.
func (h *held) keep(tenant string, key delivery.Key, now time.Time) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	c, ok := h.chunks[key]
	switch {
	case !ok:
		if len(h.chunks) >= cmp.Or(h.budget, sweepAt) {
			h.sweep(now)
		}
		tenants := len(h.byTenant)
		if h.byTenant[tenant] == 0 {
			tenants++
		}
		// A tenant within its share may stay even where others have used up the rest;
		// theirs go as they come back.
		if h.budget > 0 && h.byTenant[tenant] >= max(1, h.budget/tenants) {
			return false
		}
		h.byTenant[tenant]++
		c.tenant = tenant
	case c.tenant == tenant && h.budget > 0 && len(h.chunks) > h.budget && h.byTenant[tenant] > max(1, h.budget/len(h.byTenant)):
		h.forget(key)
		return false
	}
	// A chunk of many tenants (`identity record`) is one task: it is the first one's.
	c.seen = now
	h.chunks[key] = c
	h.some.Store(true)
	return true
}

// gone notes that a chunk does not come back.
func (h *held) gone(c delivery.Chunk) {
	if !h.some.Load() {
		return
	}
	key := c.Key()
	h.mu.Lock()
	defer h.mu.Unlock()
	h.forget(key)
}

// left notes that a chunk is not held for a tenant any more. It may be for another.
func (h *held) left(tenant string, c delivery.Chunk) {
	if !h.some.Load() {
		return
	}
	key := c.Key()
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.chunks[key].tenant == tenant {
		h.forget(key)
	}
}

func (h *held) forget(key delivery.Key) {
	c, ok := h.chunks[key]
	if !ok {
		return
	}
	delete(h.chunks, key)
	if h.byTenant[c.tenant]--; h.byTenant[c.tenant] == 0 {
		delete(h.byTenant, c.tenant)
	}
	h.some.Store(len(h.chunks) > 0)
}

func (h *held) sweep(now time.Time) {
	for key, c := range h.chunks {
		if now.Sub(c.seen) > forgetHeld {
			h.forget(key)
		}
	}
}

// len is how many chunks are held.
func (h *held) len() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.chunks)
}
