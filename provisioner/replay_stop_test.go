package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/cloudwatchlogs"
	"github.com/aws/aws-sdk-go-v2/service/cloudwatchlogs/types"
	"github.com/stretchr/testify/require"

	"github.com/eks-tenant-logs/eks-tenant-logs/internal/awsclient"
	"github.com/eks-tenant-logs/eks-tenant-logs/internal/fakeaws"
	"github.com/eks-tenant-logs/eks-tenant-logs/internal/tenancy"
)

// asCommand has the test's own program be the command.
const asCommand = "TENANTLOGS_TEST_AS_COMMAND"

func TestMain(m *testing.M) {
	if os.Getenv(asCommand) != "" {
		for k, v := range map[string]string{"AWS_ACCESS_KEY_ID": fakeaws.DefaultAccessKeyID, "AWS_SECRET_ACCESS_KEY": fakeaws.DefaultSecretAccessKey} {
			if err := os.Setenv(k, v); err != nil {
				panic(err)
			}
		}
		main()
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// trouble is what goes wrong with the calls of a replay.
type trouble struct {
	about func(fakeaws.Call) bool
	// skip is how many such calls are answered first, and times how many then are not; 0 means all.
	skip, times int
	// carriedOut: such a call is carried out, and not answered all the same.
	carriedOut bool
	// answer is given instead of none.
	answer error
}

// hangingAWS is a stand-in that never answers some calls: they end when the client goes.
type hangingAWS struct {
	*fakeaws.Server
	url string

	mu   sync.Mutex
	hold map[*http.Request]bool
	now  *http.Request // what is being carried out
	one  sync.Mutex    // one call at a time

	heard func(*http.Request) // told of each call before it is carried out, if set

	trouble *trouble
	met     int
	hit     chan struct{} // closed at the first call that meets the trouble
}

func newHangingAWS(t *testing.T) *hangingAWS {
	h := &hangingAWS{Server: fakeaws.New(fakeaws.Config{}), hold: map[*http.Request]bool{}, hit: make(chan struct{})}
	h.SetIntercept(h.decide)
	listener := httptest.NewServer(h)
	t.Cleanup(func() {
		listener.CloseClientConnections()
		listener.Close()
		require.NoError(t, h.Close())
	})
	h.url = listener.URL
	return h
}

func (h *hangingAWS) set(x *trouble) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.trouble, h.met, h.hit = x, 0, make(chan struct{})
}

func (h *hangingAWS) decide(c fakeaws.Call) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	x := h.trouble
	if x == nil || !x.about(c) {
		return nil
	}
	h.met++
	if h.met <= x.skip || x.times > 0 && h.met > x.skip+x.times {
		return nil
	}
	if h.met == x.skip+1 {
		close(h.hit)
	}
	if x.answer != nil {
		return x.answer
	}
	h.hold[h.now] = true
	if x.carriedOut {
		return nil
	}
	return fakeaws.Unavailable
}

func (h *hangingAWS) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	answer, held := h.carryOut(r)
	if held {
		<-r.Context().Done()
		panic(http.ErrAbortHandler)
	}
	for name, values := range answer.Header() {
		w.Header()[name] = values
	}
	w.WriteHeader(answer.Code)
	_, _ = w.Write(answer.Body.Bytes())
}

func (h *hangingAWS) carryOut(r *http.Request) (*httptest.ResponseRecorder, bool) {
	h.one.Lock()
	defer h.one.Unlock()
	h.mu.Lock()
	h.now = r
	h.mu.Unlock()
	if h.heard != nil {
		h.heard(r)
	}
	answer := httptest.NewRecorder()
	h.Server.ServeHTTP(answer, r)
	h.mu.Lock()
	defer h.mu.Unlock()
	held := h.hold[r]
	delete(h.hold, r)
	return answer, held
}

// quarantine puts messages into a stream of a quarantine group, and makes what is missing.
func (h *hangingAWS) quarantine(t *testing.T, group, stream string, from, to int) {
	client, err := awsclient.New(t.Context(), awsclient.Config{Region: "us-east-1", Endpoint: h.url, STSEndpoint: h.url})
	require.NoError(t, err)
	_, err = client.CreateLogGroup(t.Context(), &cloudwatchlogs.CreateLogGroupInput{LogGroupName: &group})
	require.Contains(t, []awsclient.Class{awsclient.ClassNone, awsclient.ClassExists}, awsclient.Classify(err))
	if stream == "" {
		return
	}
	_, err = client.CreateLogStream(t.Context(), &cloudwatchlogs.CreateLogStreamInput{LogGroupName: &group, LogStreamName: &stream})
	require.Contains(t, []awsclient.Class{awsclient.ClassNone, awsclient.ClassExists}, awsclient.Classify(err))
	in := &cloudwatchlogs.PutLogEventsInput{LogGroupName: &group, LogStreamName: &stream}
	now := time.Now().UnixMilli()
	for i := from; i <= to; i++ {
		message := fmt.Sprintf(`{"log":"%s #%d","_tenantlogs":{"quarantined":"denied"}}`, stream, i)
		in.LogEvents = append(in.LogEvents, types.InputLogEvent{Timestamp: &now, Message: &message})
	}
	_, err = client.PutLogEvents(t.Context(), in)
	require.NoError(t, err)
}

// home says which of those have arrived.
func (h *hangingAWS) home(t *testing.T, group, stream string) (list []string) {
	for _, e := range h.Events(group, stream) {
		var m struct{ Log string }
		require.NoError(t, json.Unmarshal([]byte(e.Message), &m))
		list = append(list, m.Log)
	}
	slices.Sort(list)
	return list
}

// command starts a replay; it is killed when ctx ends.
func (h *hangingAWS) command(ctx context.Context, t *testing.T, args ...string) (*exec.Cmd, *bytes.Buffer) {
	self, err := os.Executable()
	require.NoError(t, err)
	cmd := exec.CommandContext(ctx, self, append([]string{"replay", "--region", "us-east-1", "--endpoint", h.url}, args...)...)
	if slices.Contains(args, "--tenants-file") {
		cmd.Args = append(cmd.Args, "--sts-endpoint", h.url)
	}
	cmd.Env = append(os.Environ(), asCommand+"=1")
	var said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &said, &said
	require.NoError(t, cmd.Start())
	return cmd, &said
}

// interrupted runs a replay into trouble, and asks for its end there. A Job's pod is killed 30 s after that.
func (h *hangingAWS) interrupted(t *testing.T, x *trouble, args ...string) string {
	const grace = 30 * time.Second
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	h.set(x)
	hit := h.hit
	cmd, said := h.command(ctx, t, args...)
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	select {
	case <-hit:
	case err := <-ended:
		t.Fatalf("it ended before that (%v): %s", err, said)
	case <-time.After(2 * time.Minute):
		t.Fatal("no call met the trouble")
	}
	require.NoError(t, cmd.Process.Signal(syscall.SIGTERM))
	killed := time.AfterFunc(grace, cancel)
	err := <-ended
	require.True(t, killed.Stop(), "it does not end: %s", said)
	var exit *exec.ExitError
	require.True(t, err == nil || errors.As(err, &exit) && exit.Exited(), "%v: %s", err, said)
	h.set(nil)
	return said.String()
}

func TestReplayEndsWhileCloudWatchGivesNoAnswerAndTheNextGoesOnAtOnce(t *testing.T) {
	t.Setenv("AWS_ACCESS_KEY_ID", fakeaws.DefaultAccessKeyID)
	t.Setenv("AWS_SECRET_ACCESS_KEY", fakeaws.DefaultSecretAccessKey)
	const quarantine, home, stream, other = "/eks/quarantine/acme", "/eks/tenants/acme", "tenant-acme/p/c", "tenant-acme/q/c"
	registry := filepath.Join(t.TempDir(), "tenants.yaml")
	require.NoError(t, os.WriteFile(registry, []byte("version: 1\ntenants: {acme: {roleArn: 'arn:aws:iam::123456789012:role/x'}}\n"), 0o600))
	op := func(name string) func(fakeaws.Call) bool {
		return func(c fakeaws.Call) bool { return c.Operation == name }
	}
	journal := func(name string) func(fakeaws.Call) bool {
		return func(c fakeaws.Call) bool {
			return c.Operation == name && strings.HasPrefix(c.LogStream, tenancy.ReplayStreamPrefix)
		}
	}
	at := func(group, name string) func(fakeaws.Call) bool {
		return func(c fakeaws.Call) bool {
			return c.Operation == name && c.LogGroup == group && !strings.HasPrefix(c.LogStream, tenancy.ReplayStreamPrefix)
		}
	}
	type phase struct {
		before  *trouble // of a replay before this one
		trouble trouble
		args    []string
		homes   string // empty: the group is there
	}
	phases := map[string]phase{
		"listing the groups":                       {trouble: trouble{about: op("DescribeLogGroups")}},
		"listing the streams":                      {trouble: trouble{about: op("DescribeLogStreams")}},
		"listing the streams is throttled":         {trouble: trouble{about: op("DescribeLogStreams"), answer: fakeaws.Throttled}},
		"reading the journal":                      {before: &trouble{about: at(quarantine, "GetLogEvents"), skip: 2}, trouble: trouble{about: journal("GetLogEvents")}},
		"reading quarantine":                       {trouble: trouble{about: at(quarantine, "GetLogEvents")}},
		"reading quarantine, in the second stream": {trouble: trouble{about: func(c fakeaws.Call) bool { return c.Operation == "GetLogEvents" && c.LogStream == other }}},
		"taking the lease":                         {trouble: trouble{about: journal("CreateLogStream")}},
		"beginning the journal":                    {trouble: trouble{about: journal("PutLogEvents"), times: 1}},
		"beginning the journal, which was written": {trouble: trouble{about: journal("PutLogEvents"), times: 1, carriedOut: true}},
		"beginning the journal, throttled":         {trouble: trouble{about: journal("PutLogEvents"), times: 4, answer: fakeaws.Throttled}},
		"writing the journal":                      {trouble: trouble{about: journal("PutLogEvents"), skip: 1, times: 1}},
		"writing the journal, which was written":   {trouble: trouble{about: journal("PutLogEvents"), skip: 2, times: 1, carriedOut: true}},
		"looking at the home's retention":          {trouble: trouble{about: op("DescribeLogGroups"), skip: 1}},
		"creating the home's stream":               {trouble: trouble{about: at(home, "CreateLogStream")}},
		"creating the home":                        {trouble: trouble{about: op("CreateLogGroup")}, args: []string{"--auto-create-group"}, homes: "none"},
		"confirming the home's retention":          {trouble: trouble{about: op("PutRetentionPolicy")}, args: []string{"--auto-create-group"}, homes: "none"},
		"sending":                                  {trouble: trouble{about: at(home, "PutLogEvents")}},
		"sending what arrives":                     {trouble: trouble{about: at(home, "PutLogEvents"), skip: 1, carriedOut: true}},
		"sending, throttled":                       {trouble: trouble{about: at(home, "PutLogEvents"), answer: fakeaws.Throttled}},
		"waiting to look for what was sent":        {trouble: trouble{about: at(home, "PutLogEvents"), answer: fakeaws.Unavailable}, args: []string{"--settle", "1h"}},
		"looking for what was sent":                {before: &trouble{about: at(home, "PutLogEvents"), carriedOut: true}, trouble: trouble{about: at(home, "GetLogEvents")}},
		"assuming the tenant's role":               {trouble: trouble{about: op("AssumeRole")}, args: []string{"--tenants-file", registry}},
		"writing the end":                          {trouble: trouble{about: journal("PutLogEvents"), skip: 5, times: 1}},
	}
	run := func(t *testing.T, test phase) {
		h := newHangingAWS(t)
		if test.homes == "" {
			h.quarantine(t, home, "", 0, 0)
		}
		if slices.Contains(test.args, "--settle") { // what came in before is relied on
			h.SetClockOffset(-2 * time.Hour)
			h.quarantine(t, quarantine, stream, 1, 3)
			h.quarantine(t, quarantine, other, 1, 3)
			h.SetClockOffset(0)
		} else {
			h.quarantine(t, quarantine, stream, 1, 3)
			h.quarantine(t, quarantine, other, 1, 3)
		}
		args := append([]string{"--settle", "0s"}, test.args...)
		if test.before != nil {
			h.interrupted(t, test.before, args...)
		}
		h.interrupted(t, &test.trouble, args...)
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
		defer cancel()
		again := append(slices.Clone(test.args), "--settle", "0s")
		cmd, said := h.command(ctx, t, again...)
		require.NoError(t, cmd.Wait(), "the next one goes on at once: %s", said)
		for _, s := range []string{stream, other} {
			require.Equal(t, []string{s + " #1", s + " #2", s + " #3"}, h.home(t, home, s), "nothing lost, nothing twice: %s", said)
		}
	}
	t.Run("phase", func(t *testing.T) { // ends after all of them, so that what is set stays
		for name, test := range phases {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				run(t, test)
			})
		}
	})
}

// The plugin's option compress, for proxies and stand-ins that take no gzip.
func TestReplaySendsWithoutGzipWhereThatIsAskedFor(t *testing.T) {
	t.Setenv("AWS_ACCESS_KEY_ID", fakeaws.DefaultAccessKeyID)
	t.Setenv("AWS_SECRET_ACCESS_KEY", fakeaws.DefaultSecretAccessKey)
	const home, stream = "/eks/tenants/acme", "tenant-acme/p/c"
	for compress, want := range map[string]bool{"": true, "gzip": true, "none": false} {
		h := newHangingAWS(t)
		h.quarantine(t, home, "", 0, 0)
		h.quarantine(t, "/eks/quarantine/acme", stream, 1, 3)
		encodings := map[string]bool{}
		h.heard = func(r *http.Request) {
			if strings.HasSuffix(r.Header.Get("X-Amz-Target"), ".PutLogEvents") && strings.Contains(r.UserAgent(), "tenantlogs-replay") {
				encodings[r.Header.Get("Content-Encoding")] = true
			}
		}
		args := []string{"--region", "us-east-1", "--endpoint", h.url, "--settle", "0s"}
		if compress != "" {
			args = append(args, "--compress", compress)
		}
		said, err := runReplay(args...)
		require.NoError(t, err, said)
		require.Len(t, h.home(t, home, stream), 3)
		require.Equal(t, want, encodings["gzip"], "compress %q", compress)
	}
}
