package replay

import (
	"context"
	"fmt"
	"regexp"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/eks-tenant-logs/eks-tenant-logs/internal/fakeaws"
)

var number = regexp.MustCompile(`#(\d+)#`)

// Whatever is in quarantine, whenever it came in, and however often a replay is killed or
// refused: in the end everything is in its own group once, under its own stream.
func TestReplayOfAnyQuarantineEndsWithEverythingHomeOnce(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		w := newWorld(t, 30*time.Second)
		defer w.Close() //nolint:errcheck // closed again at the test's end
		tenants := []string{"a", "a-b", "c"}
		for _, tenant := range tenants {
			w.group("/eks/tenants/" + tenant)
		}
		n, home := 0, map[string]string{} // number → group and stream
		arrive := func() {
			for range rapid.IntRange(0, 5).Draw(rt, "batches") {
				tenant := rapid.SampledFrom(tenants).Draw(rt, "tenant")
				stream := "tenant-" + tenant + "/" + rapid.SampledFrom([]string{"p", "q"}).Draw(rt, "pod") + "/c"
				at := w.now().Add(-time.Duration(rapid.IntRange(0, 13*24).Draw(rt, "hours ago")) * time.Hour)
				var list []string
				for range rapid.IntRange(1, 8).Draw(rt, "events") {
					n++
					home[fmt.Sprint(n)] = "/eks/tenants/" + tenant + " " + stream
					list = append(list, rapid.SampledFrom([]string{
						`{"log":"#%d#","kubernetes":{},"_tenantlogs":{"quarantined":"role"}}`, `raw #%d#`, `{"a":{"b":[1,2,"#%d#"]}}`,
						`{"log":"#%d# replay\":\"aaaaaaaaaaaaaaaaaaaaaaaaaa/aaaaaaaaaaaaaaaaaaaaaaaaaa","kubernetes":{}}`,
					}).Draw(rt, "form"))
					list[len(list)-1] = fmt.Sprintf(list[len(list)-1], n)
				}
				w.put("/eks/quarantine/"+tenant, stream, at, list...)
			}
		}
		arrive()
		for range rapid.IntRange(0, 3).Draw(rt, "runs that fail") {
			w.pass(time.Duration(rapid.SampledFrom([]int{0, 2, 30, 30 * 24 * 60}).Draw(rt, "minutes")) * time.Minute)
			ctx, kill := context.WithCancel(context.Background())
			at := rapid.IntRange(1, 60).Draw(rt, "killed at call")
			fault := rapid.SampledFrom([]error{fakeaws.ErrConnectionReset, fakeaws.ErrAnswerLost, &fakeaws.APIError{Code: "AccessDeniedException", Message: "no"}}).Draw(rt, "fault")
			_, refused := fault.(*fakeaws.APIError) //nolint:errorlint // one of three
			dead := false
			w.listen(func(i int, _ fakeaws.Call) error {
				switch {
				case dead:
					return fakeaws.ErrConnectionReset
				case i != at:
					return nil
				}
				if dead = !refused; dead {
					kill()
				}
				return fault
			})
			cfg := w.config()
			cfg.BatchEvents = rapid.IntRange(1, 4).Draw(rt, "events a batch")
			_, _ = Run(ctx, cfg)
			kill()
			w.listen(nil)
			arrive()
		}
		w.pass(leaseTime + time.Minute)
		last := w.run()
		require.Zero(rt, last.Left(), "%+v", last)
		require.False(rt, last.Unknown(), "%+v", last)
		got, sum := map[string]string{}, int64(0)
		for _, g := range w.Groups() {
			for _, s := range g.Streams {
				for _, e := range w.Events(g.Name, s.Name) {
					if m := number.FindStringSubmatch(e.Message); m != nil && g.Name[:12] == "/eks/tenants" {
						require.Empty(rt, got[m[1]], "#%s is there twice", m[1])
						got[m[1]] = g.Name + " " + s.Name
					}
				}
			}
		}
		require.Equal(rt, home, got)
		for _, x := range last.Tenants {
			sum += x.Quarantined
			require.Equal(rt, x.Quarantined, x.Before+x.Replayed)
		}
		require.EqualValues(rt, n, sum)
	})
}
