package e2e

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/tinylib/msgp/msgp"

	"github.com/eks-tenant-logs/eks-tenant-logs/e2e/host"
	"github.com/eks-tenant-logs/eks-tenant-logs/e2e/node"
	"github.com/eks-tenant-logs/eks-tenant-logs/internal/fakeaws"
)

// Promise 2, told: what names no pod is in the platform's stream `unrouted`, and the log says how much, why, and
// what mends it. Else a mistake in one option of tail takes every tenant's logs away in silence.

// tally sums the numbers that lines of the log with this text give as of=<n>.
func tally(t *testing.T, log, text, of string) (lines, sum int) {
	t.Helper()
	number := regexp.MustCompile(` ` + of + `=(\d+)`)
	for line := range strings.SplitSeq(log, "\n") {
		if !strings.Contains(line, text) {
			continue
		}
		found := number.FindStringSubmatch(line)
		require.NotNil(t, found, line)
		n, err := strconv.Atoi(found[1])
		require.NoError(t, err)
		lines, sum = lines+1, sum+n
	}
	return lines, sum
}

func logOf(h *host.Host) string {
	var text strings.Builder
	for _, l := range h.Logs() {
		text.WriteString(l.Text + "\n")
	}
	return text.String()
}

func TestUnroutedChunksAreCountedInTheLogByReason(t *testing.T) {
	cw, s := standIn(t, fakeaws.Config{})
	h, err := startHost(t, host.Config{Env: cw.Env(), Outputs: []host.Output{{Workers: 2, Properties: options(cw)}}})
	require.NoError(t, err)
	for i := range 20 { // as Tag_Regex makes them
		require.NoError(t, h.Send(fmt.Sprintf("kube.tenant-a.p-%d.c", i), record("x")))
	}
	for range 5 {
		require.NoError(t, h.Send("kube.var.log.pods.tenant-a.p.c", record("x")))
	}
	require.NoError(t, h.Send(tagOfA, record("x")))
	require.NoError(t, h.Drain(within(t, time.Minute)))
	_, err = h.Stop(within(t, time.Minute))
	require.NoError(t, err)
	require.Len(t, s.Events("/eks/platform", "unrouted"), 25)

	log := logOf(h)
	const text = "tags name no pod"
	lines, sum := tally(t, log, text, "chunks")
	require.Equal(t, 25, sum, "every chunk is told of once: %s", log)
	require.Equal(t, 4, lines, "one a reason, and what came within its minute at exit")
	require.Regexp(t, `tag=kube\.tenant-a\.p-\d+\.c reason="the tag does not begin with a configured tag_prefix" remedy="give tail Tag kube\.\* and no Tag_Regex, or set tag_prefix`, log)
	require.Contains(t, log, `tag=kube.var.log.pods.tenant-a.p.c reason="what follows the prefix is not shaped like a container's log file"`)
	require.NotContains(t, log, tagOfA)
}

func TestUnroutedRecordsAreCountedInTheLog(t *testing.T) {
	cw, s := standIn(t, fakeaws.Config{})
	h, err := startHost(t, host.Config{Env: cw.Env(), Outputs: []host.Output{{Workers: 1, Properties: options(cw, "identity", "record")}}})
	require.NoError(t, err)
	kube := msgp.AppendMapHeader(nil, 2)
	kube = msgp.AppendString(msgp.AppendString(kube, "namespace_name"), "tenant-b")
	kube = msgp.AppendString(msgp.AppendString(kube, "pod_name"), "q")
	body := msgp.AppendString(msgp.AppendString(msgp.AppendMapHeader(nil, 2), "log"), "x")
	good := host.AppendRecord(nil, host.V2, time.Now(), append(msgp.AppendString(body, "kubernetes"), kube...))
	for range 3 {
		require.NoError(t, h.Send("forwarded", append(append(record("secret"), good...), record("secret")...)))
	}
	require.NoError(t, h.Send("forwarded", good))
	require.NoError(t, h.Drain(within(t, time.Minute)))
	_, err = h.Stop(within(t, time.Minute))
	require.NoError(t, err)
	require.Len(t, s.Events("/eks/platform", "unrouted"), 6)
	log := logOf(h)
	lines, sum := tally(t, log, "records name no pod", "records")
	require.Equal(t, 6, sum, log)
	require.Equal(t, 2, lines)
	require.Contains(t, log, "tag=forwarded remedy=")
	require.NotContains(t, log, "secret")
}

func TestALogKeyThatNoRecordHasIsTold(t *testing.T) {
	cw, _ := standIn(t, fakeaws.Config{})
	for key, told := range map[string]int{"log": 0, "message": 1} {
		h, err := startHost(t, host.Config{Env: cw.Env(), Outputs: []host.Output{{Workers: 1, Properties: options(cw, "log_key", key)}}})
		require.NoError(t, err)
		for range 3 {
			require.NoError(t, h.Send(tagOfA, record("x")))
		}
		require.NoError(t, h.Drain(within(t, time.Minute)))
		_, err = h.Stop(within(t, time.Minute))
		require.NoError(t, err)
		require.Equal(t, told, strings.Count(logOf(h), "no record of the chunk has the field that log_key names"), key)
	}
}

// The same with Fluent Bit's own Tag_Regex.
func TestTagsThatTagRegexMakesAreTold(t *testing.T) {
	if fluentBitWanted() == "" {
		t.Skip("Tag_Regex is Fluent Bit's: needs E2E_ENGINE=fluent-bit")
	}
	onEngines(t, func(t *testing.T, e node.Engine) {
		cw, s := standIn(t, fakeaws.Config{})
		n := newNode(t)
		for i := range 3 {
			f := node.Pod{Namespace: "tenant-a", Name: fmt.Sprint("p-", i), Container: "c"}
			require.NoError(t, n.Write(f, "x"))
		}
		log := newLog(t)
		require.NoError(t, e.Ship(within(t, time.Minute), node.Run{
			Node: n, Plugin: pluginPath(t), Env: cw.Env(), Log: log, Options: options(cw), Until: arrived(s, 3),
			Input: map[string]string{"tag": "kube.<namespace>.<pod>", "tag_regex": `pods/(?<namespace>[^_]+)_(?<pod>[^_]+)_`},
		}))
		require.Len(t, s.Events("/eks/platform", "unrouted"), 3)
		_, sum := tally(t, log.String(), "tags name no pod", "chunks")
		require.Equal(t, 3, sum)
		require.Contains(t, log.String(), "tag=kube.tenant-a.p-")
	})
}
