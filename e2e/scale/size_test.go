package scale

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/tinylib/msgp/msgp"

	"github.com/eks-tenant-logs/eks-tenant-logs/internal/awsclient"
	"github.com/eks-tenant-logs/eks-tenant-logs/internal/chunk"
	"github.com/eks-tenant-logs/eks-tenant-logs/internal/delivery"
)

// size is what a call with this many lines weighs, in bytes a line.
type size struct {
	Kind  string
	Lines int
	// Raw is the line itself, Billed the event as CloudWatch counts it, Plain and Gzip the
	// body on the wire.
	Raw, Billed, Plain, Gzip float64
}

// writers make one line each, no two alike: times, ids, addresses and sizes are random.
var writers = map[string]func(r *rand.Rand, at time.Time) string{
	"access log": func(r *rand.Rand, at time.Time) string {
		paths := []string{"/api/v1/orders", "/api/v1/orders/%d", "/api/v1/users/%d/cart", "/healthz", "/static/app.%x.js", "/search?q=%x&page=%d", "/login"}
		path := paths[r.IntN(len(paths))]
		switch {
		case path == "/search?q=%x&page=%d":
			path = fmt.Sprintf(path, r.Uint32(), r.IntN(20))
		case len(path) > 0 && path[len(path)-1] != 'z' && path != "/login" && path != "/api/v1/orders":
			path = fmt.Sprintf(path, r.IntN(10_000_000))
		}
		return fmt.Sprintf(`10.%d.%d.%d - - [%s] "%s %s HTTP/1.1" %d %d "-" "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.%d" rt=%.3f id=%016x%016x`,
			r.IntN(256), r.IntN(256), r.IntN(256), at.Format("02/Jan/2006:15:04:05 -0700"), []string{"GET", "GET", "GET", "POST"}[r.IntN(4)], path,
			[]int{200, 200, 200, 200, 304, 404, 500}[r.IntN(7)], r.IntN(60_000), r.IntN(40), r.Float64(), r.Uint64(), r.Uint64())
	},
	"JSON": func(r *rand.Rand, at time.Time) string {
		said := []string{"order placed", "payment authorised", "cache miss", "retrying upstream", "user logged in", "item reserved", "slow query"}
		return fmt.Sprintf(`{"ts":"%s","level":"%s","msg":"%s","trace_id":"%016x%016x","user":%d,"took_ms":%.2f,"shard":%d}`,
			at.Format(time.RFC3339Nano), []string{"info", "info", "info", "warn", "debug"}[r.IntN(5)], said[r.IntN(len(said))],
			r.Uint64(), r.Uint64(), r.IntN(1_000_000), r.Float64()*300, r.IntN(64))
	},
}

// counted takes every call and keeps its body's size.
type counted struct{ wire int }

func (c *counted) Put(_ context.Context, _ delivery.Target, body awsclient.Body, _ int) (awsclient.Rejected, error) {
	c.wire += len(body.Bytes)
	return awsclient.Rejected{}, nil
}
func (*counted) EnsureStream(context.Context, delivery.Target) error { return nil }

// weigh sends lines the way they go: through the decoder, with a pod's `kubernetes`, and
// through delivery's own gzip.
func weigh(t *testing.T, kind string, lines int, logKey string) size {
	t.Helper()
	r, at, data, raw := rand.New(rand.NewPCG(1, uint64(lines))), time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC), []byte(nil), 0
	for range lines {
		at = at.Add(time.Duration(r.IntN(200)) * time.Millisecond)
		line := writers[kind](r, at)
		raw += len(line)
		data = msgp.AppendArrayHeader(data, 2)
		data = msgp.AppendFloat64(data, float64(at.UnixNano())/1e9)
		data = msgp.AppendMapHeader(data, 2)
		data = msgp.AppendString(msgp.AppendString(data, "log"), line)
		data = msgp.AppendString(msgp.AppendString(data, "stream"), "stdout")
	}
	var d chunk.Decoder
	var ev chunk.Events
	d.Decode(data, chunk.Options{LogKey: logKey, Identity: chunk.NewIdentity("tenant-17", "orders-5c9b8d7f6-x2x4q", "orders", "3f0a1c52-7c1e-4b8e-9d52-0a8b6f1f2c11", "", "ip-10-3-17-201.ec2.internal")}, &ev)
	require.Len(t, ev.List, lines)
	s := size{Kind: kind, Lines: lines, Raw: float64(raw) / float64(lines), Billed: float64(len(ev.Arena))/float64(lines) + delivery.EventOverhead}
	for _, gzip := range []bool{false, true} {
		c := &counted{}
		q := delivery.New(c, delivery.Config{Log: slog.New(slog.DiscardHandler), Compress: gzip})
		require.NoError(t, q.Deliver(context.Background(), delivery.Key{}, &ev, []delivery.Target{{Group: "/eks/tenants/tenant-17", Stream: "tenant-17/orders-5c9b8d7f6-x2x4q/orders"}}))
		q.Close(context.Background())
		if gzip {
			s.Gzip = float64(c.wire) / float64(lines)
		} else {
			s.Plain = float64(c.wire) / float64(lines)
		}
	}
	return s
}

// The figures are in docs/scaling.md.
func TestVariedLinesShrinkAndMoreSoInLargerBatches(t *testing.T) {
	for _, logKey := range []string{"", "log"} {
		for _, kind := range []string{"access log", "JSON"} {
			var last float64
			for _, lines := range []int{10, 50, 100, 1000} {
				s := weigh(t, kind, lines, logKey)
				t.Logf("| %s | %s | %d | %.0f | %.0f | %.0f | %.0f | %.1f |", s.Kind, logKey, s.Lines, s.Raw, s.Billed, s.Plain, s.Gzip, s.Plain/s.Gzip)
				require.Greater(t, s.Plain/s.Gzip, max(1.5, last))
				last = s.Plain / s.Gzip
			}
		}
	}
}
