package e2e

import (
	"encoding/binary"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/eks-tenant-logs/eks-tenant-logs/e2e/host"
	"github.com/eks-tenant-logs/eks-tenant-logs/e2e/node"
	"github.com/eks-tenant-logs/eks-tenant-logs/internal/fakeaws"
)

// Promise 3 where the disk under Fluent Bit's storage has no room. They need the right to
// mount a small file system.

// smallVolume mounts one. Its path has no comma, and is gone after the test.
func smallVolume(t *testing.T, size string) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "volume-")
	require.NoError(t, err)
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size="+size); err != nil {
		t.Skipf("needs the right to mount (%v); NOT tested here", err)
	}
	t.Cleanup(func() { require.NoError(t, syscall.Unmount(dir, syscall.MNT_DETACH)) })
	return dir
}

// another is a writer that takes all that becomes free of a volume.
type another struct{ f *os.File }

func fillUp(t *testing.T, dir string) *another {
	t.Helper()
	f, err := os.Create(filepath.Join(dir, "of-others"))
	require.NoError(t, err)
	a := &another{f}
	a.more(t)
	return a
}

// more takes what became free since.
func (a *another) more(t *testing.T) {
	t.Helper()
	var err error
	for err == nil {
		_, err = a.f.Write(make([]byte, 4096))
	}
	require.ErrorIs(t, err, syscall.ENOSPC)
}

// gone gives all of it back.
func (a *another) gone(t *testing.T) {
	t.Helper()
	require.NoError(t, a.f.Close())
	require.NoError(t, os.Remove(a.f.Name()))
}

// onVolume is a Fluent Bit whose storage, database and ledger are on a volume, as the chart has
// them, and where its own metrics are.
func onVolume(t *testing.T, cw *node.CloudWatch, n *node.Node, volume string, opts ...string) (run node.Run, listen, own string) {
	t.Helper()
	listen, err := node.FreeAddress()
	require.NoError(t, err)
	own, err = node.FreeAddress()
	require.NoError(t, err)
	_, port, _ := strings.Cut(own, ":")
	return node.Run{
		Node: n, Plugin: pluginPath(t), Env: cw.Env(), Log: newLog(t), State: volume,
		Service: map[string]string{"http_server": "on", "http_listen": "127.0.0.1", "http_port": port, "storage.metrics": "on"},
		Options: options(cw, append([]string{"retry_limit", "no_limits", "metrics_listen", listen, "storage_path", filepath.Join(volume, "storage"), "state_path", filepath.Join(volume, "ledger")}, opts...)...),
	}, listen, own
}

// errorLines are those of Fluent Bit's own, the plugin's left out: what the alert
// TenantLogsFluentBitErrors counts.
func errorLines(listen, own string) int {
	const all, ours = `fluentbit_logger_logs_total{message_type="error"}`, `tenantlogs_log_lines_total{level="error",output="cloudwatch_tenants.0"}`
	return sampleAt("http://"+own+"/api/v2/metrics/prometheus", all) - sampleAt("http://"+listen+"/metrics", ours)
}

// page is what a URL answers; empty while nothing answers.
func page(url string) string {
	resp, err := http.Get(url)
	if err != nil {
		return ""
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		return ""
	}
	return string(text)
}

// sampleAt is the value of one sample, labels included; 0 where nothing answers or it is not there.
func sampleAt(url, name string) int {
	for _, line := range strings.Split(page(url), "\n") {
		if rest, ok := strings.CutPrefix(line, name+" "); ok {
			v, _ := strconv.ParseFloat(rest, 64)
			return int(v)
		}
	}
	return 0
}

// writeMore is writeNumbered for a second time: further lines of the same pods.
func writeMore(t *testing.T, n *node.Node, want map[string]int, pods, from, to int) {
	t.Helper()
	for p := range pods {
		var texts []string
		for i := from; i < to; i++ {
			texts = append(texts, fmt.Sprintf("a line of some length, as they are %s#%d.%d", strings.Repeat("x", 400), p, i))
			want[fmt.Sprintf("#%d.%d", p, i)] = 1
		}
		require.NoError(t, n.Write(node.Pod{Namespace: fmt.Sprintf("tenant-t%d", p%7), Name: fmt.Sprint("pod-", p), Container: "c"}, texts...))
	}
}

func missing(want, got map[string]int) (n int) {
	for number := range want {
		if got[number] == 0 {
			n++
		}
	}
	return n
}

// Others fill the disk. With `on_full_volume stop`, as the chart has it, Fluent Bit ends, does not
// start while there is no room, and reads on afterwards: nothing is lost.
func TestNothingIsLostWhereOthersFillTheDisk(t *testing.T) {
	e := onFluentBit(t)
	cw, s := standIn(t, fakeaws.Config{})
	n := newNode(t)
	volume := smallVolume(t, "64m")
	want := map[string]int{}
	const pods = 60
	writeMore(t, n, want, pods, 0, 100)
	run, _, _ := onVolume(t, cw, n, volume, "on_full_volume", "stop")
	log := newLog(t)
	run.Log = log
	var once sync.Once
	var other *another
	run.Until = func() bool {
		if s.Accepted() >= pods*100 {
			once.Do(func() {
				other = fillUp(t, volume)
				writeMore(t, n, want, pods, 100, 400)
			})
			other.more(t)
		}
		return false // it ends by itself
	}
	require.ErrorContains(t, e.Ship(within(t, 5*time.Minute), run), "ended by itself")
	require.Contains(t, log.String(), "Fluent Bit is ended, as on_full_volume says")
	atTheEnd := missing(want, numbers(t, s))
	require.Positive(t, atTheEnd)
	// As often as the kubelet starts it while there is no room: it delivers what chunks were left,
	// if any, and is refused then.
	refused := false
	for starts := 0; !refused; starts++ {
		require.Less(t, starts, 5)
		again := newLog(t)
		run.Log, run.Until = again, func() bool {
			other.more(t)
			return false
		}
		require.ErrorContains(t, e.Ship(within(t, 3*time.Minute), run), "ended by itself")
		refused = strings.Contains(again.String(), "on_full_volume: the volume of storage_path")
	}
	other.gone(t)
	run.Log, run.Until = newLog(t), func() bool { return missing(want, numbers(t, s)) == 0 }
	require.NoError(t, e.Ship(within(t, 5*time.Minute), run))
	twice := requireThere(t, want, numbers(t, s))
	t.Logf("%d lines written, %d of them while the disk was full; 0 lost, %d twice", len(want), atTheEnd, twice)
	require.Zero(t, twice)
}

// What `continue` does, and what an operator sees of it: Fluent Bit loses what it reads, and nothing
// but its count of error lines moves.
func TestOnlyErrorLinesTellThatAFullDiskLosesLines(t *testing.T) {
	e := onFluentBit(t)
	cw, s := standIn(t, fakeaws.Config{})
	n := newNode(t)
	volume := smallVolume(t, "64m")
	want := map[string]int{}
	const pods = 60
	writeMore(t, n, want, pods, 0, 100)
	run, listen, own := onVolume(t, cw, n, volume)
	var once, again sync.Once
	var other *another
	quiet, told := 0, 0
	run.Until = func() bool {
		if s.Accepted() < pods*100 {
			return false
		}
		once.Do(func() {
			quiet = errorLines(listen, own)
			other = fillUp(t, volume)
			writeMore(t, n, want, pods, 100, 400)
		})
		if told < quiet+100 {
			other.more(t)
		}
		if lines := errorLines(listen, own); lines > told {
			told = lines
		}
		if told < quiet+100 {
			return false
		}
		again.Do(func() {
			require.Less(t, sampleAt("http://"+listen+"/metrics", `tenantlogs_storage_free_bytes{output="cloudwatch_tenants.0"}`), 64<<20/10, "the alert on free space, too")
			text := page("http://" + own + "/api/v2/metrics/prometheus")
			for _, metric := range []string{"fluentbit_output_dropped_records_total", "fluentbit_output_retries_failed_total", "fluentbit_output_errors_total"} {
				require.Zero(t, value(text, metric, "cloudwatch_tenants.0"), metric)
			}
			other.gone(t)
			writeMore(t, n, want, pods, 400, 410)
		})
		return numbers(t, s)[fmt.Sprintf("#%d.409", pods-1)] > 0
	}
	require.NoError(t, e.Ship(within(t, 5*time.Minute), run))
	lost := missing(want, numbers(t, s))
	t.Logf("%d lines written; %d lost, of which %d error lines told", len(want), lost, told-quiet)
	require.Positive(t, lost, "Fluent Bit does not lose them any more: on_full_volume may go")
	require.Zero(t, quiet)
}

// A limit below the volume's size: what an outage brings beyond it is dropped, the oldest first, and
// counted; what comes afterwards arrives. A chunk that a worker has in hand may be counted and
// arrive.
func TestWhatAnOutageLosesBeyondALimitBelowTheVolumeIsCounted(t *testing.T) {
	e := onFluentBit(t)
	cw, s, g := gate(t, fakeaws.Config{})
	n := newNode(t)
	volume := smallVolume(t, "16m")
	want := map[string]int{}
	const pods = 60
	run, listen, own := onVolume(t, cw, n, volume, "storage.total_limit_size", "12M", "on_full_volume", "stop")
	require.NoError(t, g.Set(node.Refused))
	writeMore(t, n, want, pods, 0, 100)
	var first, once sync.Once
	outage, dropped := 0, 0.0
	run.Until = func() bool {
		text := page("http://" + own + "/api/v2/metrics/prometheus")
		if value(text, "fluentbit_input_records_total", "tail.0") < pods*100 || value(text, "fluentbit_output_retries_total", "cloudwatch_tenants.0") < pods {
			return false
		}
		first.Do(func() {
			outage = errorLines(listen, own)
			writeMore(t, n, want, pods, 100, 800)
		})
		if value(text, "fluentbit_input_records_total", "tail.0") < pods*800 || value(text, "fluentbit_output_dropped_records_total", "cloudwatch_tenants.0") <= 0 {
			return false
		}
		once.Do(func() {
			require.NoError(t, g.Set(node.Open))
			writeMore(t, n, want, pods, 800, 810)
		})
		dropped = value(text, "fluentbit_output_dropped_records_total", "cloudwatch_tenants.0")
		return float64(len(numbers(t, s)))+dropped >= float64(len(want))
	}
	require.NoError(t, e.Ship(within(t, 5*time.Minute), run))
	lost := missing(want, numbers(t, s))
	t.Logf("%d lines written, %d lost, %.0f counted; %d error lines in the outage", len(want), lost, dropped, outage)
	require.Positive(t, lost)
	require.LessOrEqual(t, float64(lost), dropped)
	require.Positive(t, numbers(t, s)[fmt.Sprintf("#%d.809", pods-1)])
	require.LessOrEqual(t, outage, 0, "an outage is no reason for the alert; Fluent Bit counts a moment later than the plugin")
}

// A ledger that can't be written is noticed when it is too late: at the end.
func TestAStatePathOnAReadOnlyMountRefusesTheStart(t *testing.T) {
	volume := smallVolume(t, "1m")
	require.NoError(t, os.Mkdir(filepath.Join(volume, "ledger"), 0o700))
	require.NoError(t, syscall.Mount("", volume, "", syscall.MS_REMOUNT|syscall.MS_RDONLY, ""))
	_, err := startHost(t, host.Config{Outputs: []host.Output{{Workers: 1, Properties: map[string]string{
		"region": "us-east-1", "state_path": filepath.Join(volume, "ledger"),
	}}}})
	var start *host.StartError
	require.ErrorAs(t, err, &start)
	require.Contains(t, fmt.Sprint(start.Logs), `state_path: "`+filepath.Join(volume, "ledger")+`" can't be written to: failed to make a file in it: read-only file system: mount it writable`)
}

// An outage whose chunks fill the volume, because the limit is above its size: the agent ends, is
// started as long as chunks wait, and delivers them once CloudWatch is back. It never waits for
// room that only its own delivery makes.
func TestAVolumeThatChunksFillIsDelivered(t *testing.T) {
	e := onFluentBit(t)
	cw, s, g := gate(t, fakeaws.Config{})
	n := newNode(t)
	volume := smallVolume(t, "16m")
	want := map[string]int{}
	const pods = 60
	run, _, _ := onVolume(t, cw, n, volume, "storage.total_limit_size", "5G", "on_full_volume", "stop", "flush_timeout", "5s")
	require.NoError(t, g.Set(node.Refused))
	writeMore(t, n, want, pods, 0, 800)
	run.Until = func() bool { return false }
	for range 2 { // as the kubelet starts it, in the outage
		log := newLog(t)
		run.Log = log
		require.ErrorContains(t, e.Ship(within(t, 5*time.Minute), run), "ended by itself")
		require.Contains(t, log.String(), "Fluent Bit is ended, as on_full_volume says")
	}
	require.NoError(t, g.Set(node.Open))
	var once sync.Once
	run.Log = newLog(t)
	run.Until = func() bool {
		if !chunksGone(t, filepath.Join(volume, "storage")) {
			return false
		}
		once.Do(func() { writeMore(t, n, want, pods, 800, 810) })
		got := numbers(t, s)
		for p := range pods {
			if got[fmt.Sprintf("#%d.809", p)] == 0 {
				return false
			}
		}
		return true
	}
	require.NoError(t, e.Ship(within(t, 5*time.Minute), run))
	got := numbers(t, s)
	twice := 0
	for _, times := range got {
		twice += times - 1
	}
	t.Logf("%d lines written, %d lost, %d twice", len(want), missing(want, got), twice)
	for p := range pods {
		for i := 800; i < 810; i++ {
			require.Equal(t, 1, got[fmt.Sprintf("#%d.%d", p, i)], "what is written once there is room arrives")
		}
	}
}

// chunksGone says whether no chunk is left that holds anything. Where the first write to a new chunk
// found no room, Fluent Bit keeps the chunk without content until its pod writes again.
func chunksGone(t *testing.T, storage string) bool {
	t.Helper()
	left := false
	require.NoError(t, filepath.Walk(storage, func(path string, info os.FileInfo, err error) error {
		if err != nil || !info.Mode().IsRegular() || info.Size() == 0 {
			return nil //nolint:nilerr // gone meanwhile
		}
		b, err := os.ReadFile(path)
		const length = 10 // where the header has the content's length, in 4 bytes (chunkio/cio_file_st.h)
		if err == nil && (len(b) < length+4 || binary.BigEndian.Uint32(b[length:]) > 0) {
			left = true
		}
		return nil
	}))
	return !left
}
