package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
	"bufio"
	"net/http"

	"github.com/stretchr/testify/require"

	"github.com/eks-tenant-logs/eks-tenant-logs/e2e/node"
	"github.com/eks-tenant-logs/eks-tenant-logs/internal/fakeaws"
)

func readSoFar(pid int, under string) (read int64) {
	fds, _ := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
	for _, fd := range fds {
		to, err := os.Readlink(fmt.Sprintf("/proc/%d/fd/%s", pid, fd.Name()))
		if err != nil || !strings.HasPrefix(to, under) || !strings.HasSuffix(to, ".log") {
			continue
		}
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/fdinfo/%s", pid, fd.Name()))
		if err != nil {
			continue
		}
		for _, l := range strings.Split(string(b), "\n") {
			if v, ok := strings.CutPrefix(l, "pos:"); ok {
				n, _ := strconv.ParseInt(strings.TrimSpace(v), 10, 64)
				read += n
			}
		}
	}
	return read
}

func sizeOfLogs(root string) (n int64) {
	_ = filepath.Walk(root, func(p string, i os.FileInfo, err error) error {
		if err == nil && i.Mode().IsRegular() && strings.HasSuffix(p, ".log") {
			n += i.Size()
		}
		return nil
	})
	return n
}

func dirUse(root string) (files int, apparent, blocks int64) {
	_ = filepath.Walk(root, func(p string, i os.FileInfo, err error) error {
		if err == nil && i.Mode().IsRegular() {
			files++
			apparent += i.Size()
			blocks += i.Sys().(*syscall.Stat_t).Blocks * 512
		}
		return nil
	})
	return
}

func fbMetrics(addr string, want ...string) string {
	resp, err := http.Get("http://" + addr + "/api/v2/metrics/prometheus")
	if err != nil {
		return err.Error()
	}
	defer resp.Body.Close()
	var b strings.Builder
	for l := bufio.NewScanner(resp.Body); l.Scan(); {
		line := l.Text()
		if strings.HasPrefix(line, "#") {
			continue
		}
		for _, w := range want {
			if strings.HasPrefix(line, w) {
				b.WriteString("  " + line + "\n")
			}
		}
	}
	return b.String()
}

type variant struct {
	name    string
	size    string // of the volume
	service map[string]string
	input   map[string]string
	output  []string
	pods, lines, length int
	filler  bool // something else fills the volume
	trickle bool
	wholeState bool
	denied bool
}

func TestZZExplore(t *testing.T) {
	e := onFluentBit(t)
	on := map[string]string{"storage.pause_on_chunks_overlimit": "on"}
	off := map[string]string{}
	base := func(more ...string) map[string]string {
		m := map[string]string{"storage.sync": "normal", "storage.checksum": "on", "storage.max_chunks_up": "128", "storage.backlog.mem_limit": "32M", "scheduler.base": "1", "scheduler.cap": "5", "flush": "1", "storage.metrics": "on"}
		for i := 0; i < len(more); i += 2 {
			m[more[i]] = more[i+1]
		}
		return m
	}
	variants := []variant{
		{name: "asis", size: "16m", service: base(), input: off, output: []string{"storage.total_limit_size", "5G"}, pods: 60, lines: 1000, length: 500},
		{name: "limit12", size: "16m", service: base(), input: off, output: []string{"storage.total_limit_size", "12M"}, pods: 60, lines: 1000, length: 500},
		{name: "limit12trim", size: "16m", service: base("storage.trim_files", "on"), input: off, output: []string{"storage.total_limit_size", "12M"}, pods: 60, lines: 1000, length: 500},
		{name: "pause", size: "64m", service: base("storage.max_chunks_up", "24"), input: on, output: []string{"storage.total_limit_size", "5G"}, pods: 60, lines: 1000, length: 500},
		{name: "pause1", size: "64m", service: base("storage.max_chunks_up", "24"), input: on, output: []string{"storage.total_limit_size", "5G"}, pods: 4, lines: 20000, length: 500},
		{name: "memory", size: "16m", service: base(), input: map[string]string{"storage.type": "memory", "mem_buf_limit": "8M"}, output: nil, pods: 60, lines: 1000, length: 500},
		{name: "trickle", size: "512m", service: base(), input: off, output: []string{"storage.total_limit_size", "5G"}, pods: 60, lines: 1, length: 100, trickle: true},
		{name: "trickletrim", size: "512m", service: base("storage.trim_files", "on"), input: off, output: []string{"storage.total_limit_size", "5G"}, pods: 60, lines: 1, length: 100, trickle: true},
		{name: "filler", size: "64m", service: base(), input: off, output: []string{"storage.total_limit_size", "5G"}, pods: 60, lines: 1000, length: 500, filler: true},
		{name: "pausedenied", size: "256m", service: base("storage.max_chunks_up", "24"), input: on, output: []string{"storage.total_limit_size", "5G", "on_failure", "hold"}, pods: 60, lines: 1000, length: 500, denied: true},
		{name: "memorydenied", size: "256m", service: base(), input: map[string]string{"storage.type": "memory", "mem_buf_limit": "8M"}, output: []string{"on_failure", "hold"}, pods: 60, lines: 1000, length: 500, denied: true},
		{name: "asisdenied", size: "256m", service: base(), input: off, output: []string{"on_failure", "hold", "storage.total_limit_size", "5G"}, pods: 60, lines: 1000, length: 500, denied: true},
	}
	for _, v := range variants {
		t.Run(v.name, func(t *testing.T) { explore(t, e, v) })
	}
}

func explore(t *testing.T, e node.Engine, v variant) {
	cw, s, g := gate(t, fakeaws.Config{})
	n := newNode(t)
	state, err := os.MkdirTemp("", "state-")
	require.NoError(t, err)
	storage := filepath.Join(state, "storage")
	require.NoError(t, os.MkdirAll(storage, 0o700))
	require.NoError(t, syscall.Mount("tmpfs", storage, "tmpfs", 0, "size="+v.size))
	t.Cleanup(func() { _ = syscall.Unmount(storage, syscall.MNT_DETACH); os.RemoveAll(state) })
	want := map[string]int{}
	write := func(phase string, lines int) {
		for p := range v.pods {
			texts := make([]string, lines)
			for i := range texts {
				number := fmt.Sprintf("#%d.%s.%d", p, phase, i)
				texts[i] = strings.Repeat("x", v.length) + number
				want[number] = 1
			}
			require.NoError(t, n.Write(node.Pod{Namespace: fmt.Sprintf("tenant-t%d", p%7), Name: fmt.Sprint("pod-", p), Container: "c"}, texts...))
		}
	}
	if v.denied {
		f := fakeaws.NewFaults(1)
		s.SetIntercept(func(c fakeaws.Call) error {
			if c.LogGroup == "/eks/tenants/t0" {
				return &fakeaws.APIError{Code: "AccessDeniedException", Message: "denied"}
			}
			return f.Intercept(c)
		})
	} else if !v.filler {
		require.NoError(t, g.Set(node.Refused))
	}
	write("a", v.lines)
	if v.filler {
		var st syscall.Statfs_t
		require.NoError(t, syscall.Statfs(storage, &st))
		require.NoError(t, os.WriteFile(filepath.Join(storage, "..", "x"), nil, 0o600))
		fill, err := os.Create(filepath.Join(storage, "filler"))
		require.NoError(t, err)
		buf := make([]byte, 1<<20)
		for {
			if _, err := fill.Write(buf); err != nil {
				break
			}
		}
		fill.Close()
	}
	listen, err := node.FreeAddress()
	require.NoError(t, err)
	fb, err := node.FreeAddress()
	require.NoError(t, err)
	_, port, _ := strings.Cut(fb, ":")
	log := newLog(t)
	v.service["http_server"] = "on"
	v.service["http_listen"] = "127.0.0.1"
	v.service["http_port"] = port
	v.service["storage.sync"] = "normal"
	var pid int
	run := node.Run{
		Node: n, Plugin: pluginPath(t), Env: cw.Env(), Log: log, State: state,
		Service: v.service, Input: v.input,
		Options: options(cw, append([]string{"retry_limit", "no_limits", "metrics_listen", listen, "flush_timeout", "5s", "log_stream_template", "$(namespace)/$(pod)/$(container)"}, v.output...)...),
		Started: func(p *os.Process) { pid = p.Pid },
	}
	names := []string{"fluentbit_logger_logs_total{message_type=\"error\"", "fluentbit_logger_logs_total{message_type=\"warn\"", "fluentbit_input_ingestion_paused", "fluentbit_input_records_total", "fluentbit_output_dropped_records_total", "fluentbit_output_chunk_available", "fluentbit_storage_fs_chunks", "fluentbit_storage_mem", "fluentbit_input_storage_overlimit"}
	total := sizeOfLogs(n.Root)
	start := time.Now()
	last, lastChange := int64(-1), time.Now()
	phase := 0
	tick := 0
	run.Until = func() bool {
		time.Sleep(100 * time.Millisecond)
		tick++
		read := readSoFar(pid, n.Root)
		accepted := int64(s.Accepted())
		if read*1000000+accepted != last {
			last, lastChange = read*1000000+accepted, time.Now()
		}
		if tick%20 == 0 {
			files, apparent, blocks := dirUse(storage)
			t.Logf("%5.1fs phase %d: read %d of %d, accepted %d of %d, storage files %d, %d kB apparent, %d kB used; plugin records", time.Since(start).Seconds(), phase, read, total, accepted, len(want), files, apparent>>10, blocks>>10)
		}
		switch phase {
		case 0:
			if v.trickle {
				if tick%10 == 0 {
					write(fmt.Sprint("t", tick), 1)
				}
				total = sizeOfLogs(n.Root)
				if time.Since(start) < 30*time.Second {
					return false
				}
			} else if time.Since(lastChange) < 12*time.Second {
				return false
			}
			t.Logf("after %.0fs away, metrics:\n%s", time.Since(start).Seconds(), fbMetrics(fb, names...))
			if v.denied {
				for _, g := range s.Groups() {
					c := 0
					for _, st := range g.Streams {
						c += len(s.Events(g.Name, st.Name))
					}
					t.Logf("group %s: %d", g.Name, c)
				}
				s.SetIntercept(nil)
			}
			if v.filler {
				require.NoError(t, os.Remove(filepath.Join(storage, "filler")))
			}
			require.NoError(t, g.Set(node.Open))
			phase, lastChange = 1, time.Now()
			write("b", 10)
			total = sizeOfLogs(n.Root)
		case 1:
			if time.Since(lastChange) > 12*time.Second || len(numbers(t, s)) == len(want) {
				t.Logf("back, metrics:\n%s", fbMetrics(fb, names...))
				return true
			}
		}
		return false
	}
	err = e.Ship(within(t, 3*time.Minute), run)
	t.Logf("end: %v", err)
	count := func() (lost, twice int) {
		got := numbers(t, s)
		for k := range want {
			if got[k] == 0 {
				lost++
			}
			twice += max(0, got[k]-1)
		}
		return
	}
	lost, twice := count()
	t.Logf("RESULT %s: %d written, before restart %d lost, %d twice", v.name, len(want), lost, twice)
	lines := map[string]int{}
	first := map[string]string{}
	for _, l := range strings.Split(log.String(), "\n") {
		if i := strings.Index(l, "] ["); i > 0 && !strings.Contains(l, "[ info]") {
			k := l[i:]
			if len(k) > 55 {
				k = k[:55]
			}
			lines[k]++
			first[k] = l
		}
	}
	for k, c := range lines {
		t.Logf("log %6d x %s", c, first[k])
		_ = k
	}
	lastChange, last = time.Now(), -1
	run.Until = func() bool {
		time.Sleep(100 * time.Millisecond)
		if a := int64(s.Accepted()); a != last {
			last, lastChange = a, time.Now()
		}
		return time.Since(lastChange) > 6*time.Second
	}
	err = e.Ship(within(t, 3*time.Minute), run)
	t.Logf("end: %v", err)
	lost, twice = count()
	t.Logf("RESULT %s: %d written, after restart %d lost, %d twice", v.name, len(want), lost, twice)
}
