package output

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/tinylib/msgp/msgp"
)

// BenchmarkFlush is the plugin's whole way, from a chunk's bytes to the answer, against a
// server that takes everything: one pod's chunks of two sizes without latency, and a chunk of
// sixty pods (`identity record`) with 20 ms of it, by one and by four workers. It is what to
// profile: go test -run xxx -bench Flush -cpuprofile cpu.out ./internal/output.
func BenchmarkFlush(b *testing.B) {
	b.Setenv("AWS_ACCESS_KEY_ID", "AKIAIOSFODNN7EXAMPLE")
	b.Setenv("AWS_SECRET_ACCESS_KEY", "x")
	for _, c := range []struct {
		identity               string
		records, pods, workers int
		latency                time.Duration
	}{
		{"tag", 1000, 1, 1, 0},
		{"tag", 5000, 1, 1, 0},
		{"record", 7000, 60, 1, 20 * time.Millisecond},
		{"record", 7000, 60, 4, 20 * time.Millisecond},
	} {
		b.Run(fmt.Sprintf("%s/%d/workers=%d", c.identity, c.records, c.workers), func(b *testing.B) {
			var puts atomic.Int64
			srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				_, _ = io.Copy(io.Discard, r.Body)
				puts.Add(1)
				time.Sleep(c.latency)
				w.Header().Set("Content-Type", "application/x-amz-json-1.1")
				_, _ = w.Write([]byte("{}"))
			}))
			defer srv.Close()
			o, err := ParseOptions(from(map[string]string{"region": "us-east-1", "endpoint": srv.URL, "identity": c.identity}))
			require.NoError(b, err)
			i, err := New(context.Background(), o, Environment{Log: slog.New(slog.DiscardHandler), Node: "n"})
			require.NoError(b, err)
			defer i.Close()
			data := accessLog(c.records, c.pods, c.identity == "record")
			b.SetBytes(int64(len(data)))
			b.ReportAllocs()
			b.ResetTimer()
			var left atomic.Int64
			left.Store(int64(b.N))
			var workers sync.WaitGroup
			for range c.workers {
				workers.Go(func() {
					for left.Add(-1) >= 0 {
						if i.Flush(context.Background(), tagA, data, 0) != OK {
							b.Error("retry")
						}
					}
				})
			}
			workers.Wait()
			events := float64(b.N * c.records)
			b.ReportMetric(events/b.Elapsed().Seconds(), "events/s")
			b.ReportMetric(float64(puts.Load())/events, "puts/event")
		})
	}
}

// accessLog is a chunk of access-log lines of some 160 bytes, of pods in turn.
func accessLog(records, pods int, kubernetes bool) (data []byte) {
	rng := rand.New(rand.NewPCG(1, 1))
	now := time.Now().Add(-time.Minute)
	for n := range records {
		record := map[string]any{
			"time": now.Format(time.RFC3339Nano), "stream": "stdout", "_p": "F",
			"log": fmt.Sprintf(`#%d 10.%d.%d.%d "GET /api/v1/orders/%016x HTTP/1.1" 200 %d %dms "Mozilla/5.0 (X11; Linux)" trace=%016x`,
				n, rng.IntN(256), rng.IntN(256), rng.IntN(256), rng.Uint64(), rng.IntN(50_000), rng.IntN(999), rng.Uint64()),
		}
		if kubernetes {
			pod := n % pods
			record["kubernetes"] = map[string]any{"namespace_name": fmt.Sprint("tenant-t", pod%20), "pod_name": fmt.Sprint("pod-", pod), "container_name": "app"}
		}
		data = append(data, 0x92)
		data = msgp.AppendInt64(data, now.Unix()+int64(n)/100)
		var err error
		if data, err = msgp.AppendIntf(data, record); err != nil {
			panic(err)
		}
	}
	return data
}
