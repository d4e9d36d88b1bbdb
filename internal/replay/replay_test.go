package replay

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/retry"
	"github.com/aws/aws-sdk-go-v2/service/cloudwatchlogs"
	"github.com/aws/aws-sdk-go-v2/service/cloudwatchlogs/types"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/eks-tenant-logs/eks-tenant-logs/internal/awsclient"
	"github.com/eks-tenant-logs/eks-tenant-logs/internal/fakeaws"
	"github.com/eks-tenant-logs/eks-tenant-logs/internal/loggroup"
	"github.com/eks-tenant-logs/eks-tenant-logs/internal/tenancy"
)

func TestMain(m *testing.M) {
	for k, v := range map[string]string{
		"AWS_ACCESS_KEY_ID": fakeaws.DefaultAccessKeyID, "AWS_SECRET_ACCESS_KEY": fakeaws.DefaultSecretAccessKey, "AWS_SESSION_TOKEN": "",
		"AWS_PROFILE": "", "AWS_EC2_METADATA_DISABLED": "true", "AWS_CONFIG_FILE": "/dev/null", "AWS_SHARED_CREDENTIALS_FILE": "/dev/null",
	} {
		if err := os.Setenv(k, v); err != nil {
			panic(err)
		}
	}
	// A role's credentials are asked for on, when the call that needed them has been given up.
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction("github.com/eks-tenant-logs/eks-tenant-logs/internal/awsclient.(*renewal).attempt"))
}

// world is a CloudWatch Logs with a clock of its own, which stands in the past so that it
// can be moved on.
type world struct {
	*fakeaws.Server
	t        testing.TB
	client   *awsclient.Client
	offset   atomic.Int64
	listener *httptest.Server
	underWay sync.RWMutex // held for reading while a call is carried out
	stall    atomic.Int64 // how long the next call takes

	mu       sync.Mutex
	calls    []fakeaws.Call
	answer   func(n int, c fakeaws.Call) error // n counts from 1
	registry string
	mode     tenancy.Mode
}

func (w *world) now() time.Time { return time.Now().Add(time.Duration(w.offset.Load())) }

// quick does not wait long before it tries again.
type quick struct{ *awsclient.Client }

func quickly(o *cloudwatchlogs.Options) {
	o.Retryer = retry.AddWithMaxBackoffDelay(retry.NewStandard(), time.Millisecond)
}

func (q quick) DescribeLogGroups(ctx context.Context, in *cloudwatchlogs.DescribeLogGroupsInput, o ...func(*cloudwatchlogs.Options)) (*cloudwatchlogs.DescribeLogGroupsOutput, error) {
	return q.Client.DescribeLogGroups(ctx, in, append(o, quickly)...)
}

func (q quick) DescribeLogStreams(ctx context.Context, in *cloudwatchlogs.DescribeLogStreamsInput, o ...func(*cloudwatchlogs.Options)) (*cloudwatchlogs.DescribeLogStreamsOutput, error) {
	return q.Client.DescribeLogStreams(ctx, in, append(o, quickly)...)
}

func (q quick) GetLogEvents(ctx context.Context, in *cloudwatchlogs.GetLogEventsInput, o ...func(*cloudwatchlogs.Options)) (*cloudwatchlogs.GetLogEventsOutput, error) {
	return q.Client.GetLogEvents(ctx, in, append(o, quickly)...)
}

func (q quick) CreateLogStream(ctx context.Context, in *cloudwatchlogs.CreateLogStreamInput, o ...func(*cloudwatchlogs.Options)) (*cloudwatchlogs.CreateLogStreamOutput, error) {
	return q.Client.CreateLogStream(ctx, in, append(o, quickly)...)
}

func (q quick) PutLogEvents(ctx context.Context, in *cloudwatchlogs.PutLogEventsInput, o ...func(*cloudwatchlogs.Options)) (*cloudwatchlogs.PutLogEventsOutput, error) {
	return q.Client.PutLogEvents(ctx, in, append(o, quickly)...)
}

// pass lets time pass: calls that are under way end before. One that a client gave up is still carried out, and takes real time, of
// which minutes of the world's clock have none.
func (w *world) pass(d time.Duration) {
	w.underWay.Lock()
	defer w.underWay.Unlock()
	w.offset.Add(int64(d))
}

// sleep is Config's: calls go on during the pauses between two reads.
func (w *world) sleep(ctx context.Context, d time.Duration) error {
	if d <= readInterval {
		w.offset.Add(int64(d))
	} else {
		w.pass(d)
	}
	return ctx.Err()
}

// ServeHTTP carries out one call.
func (w *world) ServeHTTP(out http.ResponseWriter, r *http.Request) {
	w.underWay.RLock()
	defer w.underWay.RUnlock()
	w.Server.ServeHTTP(out, r)
}

// Close ends the world, and may be called again.
func (w *world) Close() error {
	w.listener.CloseClientConnections()
	w.listener.Close()
	return w.Server.Close()
}

// newWorld makes one whose events are read settles after they came in.
func newWorld(t testing.TB, settles time.Duration) *world {
	w := &world{t: t}
	w.offset.Store(int64(-200 * 24 * time.Hour))
	w.Server = fakeaws.New(fakeaws.Config{Clock: w.now, ReadDelay: settles})
	w.listener = httptest.NewServer(w)
	w.listener.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelDebug)
	t.Cleanup(func() { require.NoError(t, w.Close()) })
	var err error
	w.client, err = awsclient.New(context.Background(), awsclient.Config{Region: "us-east-1", Endpoint: w.listener.URL, STSEndpoint: w.listener.URL})
	require.NoError(t, err)
	w.SetIntercept(func(c fakeaws.Call) error {
		err := w.heard(c)
		time.Sleep(time.Duration(w.stall.Swap(0)))
		return err
	})
	return w
}

func (w *world) heard(c fakeaws.Call) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.calls = append(w.calls, c)
	if w.answer != nil {
		return w.answer(len(w.calls), c)
	}
	return nil
}

// listen forgets the calls so far and decides about those that come.
func (w *world) listen(answer func(n int, c fakeaws.Call) error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.calls, w.answer = nil, answer
}

func (w *world) group(name string) {
	_, err := w.client.CreateLogGroup(context.Background(), &cloudwatchlogs.CreateLogGroupInput{LogGroupName: &name})
	if awsclient.Classify(err) != awsclient.ClassExists {
		require.NoError(w.t, err)
	}
}

// put writes messages to a stream, a millisecond apart from at on.
func (w *world) put(group, stream string, at time.Time, messages ...string) {
	w.group(group)
	_, err := w.client.CreateLogStream(context.Background(), &cloudwatchlogs.CreateLogStreamInput{LogGroupName: &group, LogStreamName: &stream})
	if awsclient.Classify(err) != awsclient.ClassExists {
		require.NoError(w.t, err)
	}
	in := &cloudwatchlogs.PutLogEventsInput{LogGroupName: &group, LogStreamName: &stream}
	for i, m := range messages {
		ms := at.UnixMilli() + int64(i)
		in.LogEvents = append(in.LogEvents, types.InputLogEvent{Timestamp: &ms, Message: &m})
	}
	out, err := w.client.PutLogEvents(context.Background(), in)
	require.NoError(w.t, err)
	require.Nil(w.t, out.RejectedLogEventsInfo)
}

func quarantined(n int) string {
	return fmt.Sprintf(`{"log":"#%d","kubernetes":{"namespace_name":"tenant-acme"},"_tenantlogs":{"quarantined":"denied","log_group":"/eks/tenants/acme"}}`, n)
}

func (w *world) config() Config {
	template, err := tenancy.ParseStreamTemplate(tenancy.DefaultStreamTemplate)
	require.NoError(w.t, err)
	registry, err := tenancy.NewRegistry(tenancy.RegistryOptions{})
	if w.registry != "" {
		registry, err = tenancy.ParseRegistry([]byte(w.registry), tenancy.RegistryOptions{Mode: w.mode})
	}
	require.NoError(w.t, err)
	return Config{
		Names: tenancy.DefaultNames(), Registry: registry, Template: template, Settle: time.Minute, Log: slog.New(slog.DiscardHandler),
		Spec: func(h tenancy.Home) loggroup.Spec { return loggroup.Spec{Group: h.Group, RetentionDays: 365} },
		As: func(role awsclient.Role) Account {
			if role == (awsclient.Role{}) {
				return quick{w.client}
			}
			return quick{w.client.As(role)}
		},
		Clock:  Clock{Now: w.now, Sleep: w.sleep},
		Random: rand.Reader, Writer: "test", BatchEvents: 3,
	}
}

func (w *world) run(change ...func(*Config)) Report {
	cfg := w.config()
	for _, c := range change {
		c(&cfg)
	}
	r, err := Run(context.Background(), cfg)
	require.NoError(w.t, err)
	return r
}

// one is the report of a single group.
func one(t testing.TB, r Report) Tenant {
	require.Len(t, r.Tenants, 1, "%+v", r)
	return r.Tenants[0]
}

// home is what arrived in a stream: the numbers of its events, in order.
func (w *world) home(group, stream string) []string {
	var got []string
	for _, e := range w.Events(group, stream) {
		got = append(got, logOf(w.t, e.Message))
	}
	return got
}

func logOf(t testing.TB, message string) string {
	var m struct{ Log string }
	require.NoError(t, json.Unmarshal([]byte(message), &m), message)
	return m.Log
}

func numbers(from, to int) (list []string) {
	for i := from; i <= to; i++ {
		list = append(list, fmt.Sprintf("#%d", i))
	}
	return list
}

func messages(from, to int) (list []string) {
	for i := from; i <= to; i++ {
		list = append(list, quarantined(i))
	}
	return list
}

const acme, acmeStream = "/eks/quarantine/acme", "tenant-acme/p/c"

func TestReplayBringsEverythingHomeOnceAndSaysSo(t *testing.T) {
	w := newWorld(t, 0)
	w.group("/eks/tenants/acme")
	start := w.now()
	w.put(acme, acmeStream, start, messages(1, 8)...)
	w.pass(time.Hour)
	r := one(t, w.run())
	require.Equal(t, Tenant{Tenant: "acme", Group: acme, Replay: r.Replay, Quarantined: 8, Replayed: 8}, r)
	events := w.Events("/eks/tenants/acme", acmeStream)
	require.Equal(t, numbers(1, 8), w.home("/eks/tenants/acme", acmeStream))
	for i, e := range events {
		require.Equal(t, start.UnixMilli()+int64(i), e.Timestamp, "an event keeps its time")
		require.Contains(t, e.Message, `"_tenantlogs":{"quarantined":"denied","log_group":"/eks/tenants/acme","replay":"`+r.Replay+`/`)
	}
	// Again: there is nothing to do, and nothing is written.
	w.listen(nil)
	again := one(t, w.run())
	require.Equal(t, Tenant{Tenant: "acme", Group: acme, Quarantined: 8, Before: 8}, again)
	w.noWrites(t)
	// What comes in later is found, also with older times.
	w.put(acme, acmeStream, start.Add(-24*time.Hour), messages(9, 10)...)
	w.put(acme, "tenant-acme/q/c", start, messages(11, 11)...)
	fresh := one(t, w.run())
	require.EqualValues(t, 3, fresh.Left, "it has not settled")
	require.Contains(t, fresh.Why[0], "shortly before")
	w.pass(time.Hour)
	later := one(t, w.run())
	require.EqualValues(t, []int64{11, 8, 3, 0}, []int64{later.Quarantined, later.Before, later.Replayed, later.Left})
	require.Equal(t, append(numbers(9, 10), numbers(1, 8)...), w.home("/eks/tenants/acme", acmeStream))
	require.Equal(t, numbers(11, 11), w.home("/eks/tenants/acme", "tenant-acme/q/c"))
	require.Len(t, w.Events(acme, acmeStream), 10, "quarantine keeps what it has")
}

// noWrites says that no call since listen changed anything.
func (w *world) noWrites(t testing.TB) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, c := range w.calls {
		require.Contains(t, []string{"DescribeLogGroups", "DescribeLogStreams", "GetLogEvents"}, c.Operation)
	}
}

func TestReplayWritesNothingInADryRun(t *testing.T) {
	w := newWorld(t, 0)
	w.put(acme, acmeStream, w.now(), messages(1, 8)...)
	w.pass(time.Hour)
	w.listen(nil)
	r := w.run(func(c *Config) { c.DryRun = true; c.CreateGroups = true })
	w.noWrites(t)
	require.EqualValues(t, 8, one(t, r).Left)
	require.InDelta(t, 3600, one(t, r).OldestLeft, 60)
	require.EqualValues(t, 8, one(t, w.run(func(c *Config) { c.CreateGroups = true })).Replayed)
	w.listen(nil)
	require.EqualValues(t, 0, one(t, w.run(func(c *Config) { c.DryRun = true })).Left)
	w.noWrites(t)
}

func TestReplayEnvelopesOldEventsAndRawOnes(t *testing.T) {
	w := newWorld(t, 0)
	w.group("/eks/tenants/acme")
	old := w.now()
	w.put(acme, acmeStream, old, quarantined(1), `{"log":"raw","_tenantlogs":{"quarantined":"denied","log_group":"/g"}}`)
	w.pass(20 * 24 * time.Hour)
	w.put(acme, acmeStream, w.now(), quarantined(2))
	w.pass(time.Hour)
	require.EqualValues(t, 3, one(t, w.run()).Replayed)
	events := w.Events("/eks/tenants/acme", acmeStream)
	require.Len(t, events, 3)
	require.Contains(t, events[0].Message, `"#2"`)
	for _, e := range events[1:] {
		require.InDelta(t, w.now().UnixMilli(), e.Timestamp, 60_000)
		require.Contains(t, e.Message, `"original_time":"`+old.UTC().Format("2006-01-02T15:04"))
		require.Contains(t, e.Message, `"time_reason":"too_old"`)
	}
	require.True(t, strings.HasPrefix(events[2].Message, `{"log":"raw","_tenantlogs":{"quarantined":"denied","log_group":"/g","replay":"`), events[2].Message)
}

// On a machine whose clock is wrong everything that came in is replayed, and what is too old gets
// AWS's present time.
func TestReplayGoesByAWSsClock(t *testing.T) {
	for _, ahead := range []time.Duration{3 * time.Hour, -15 * 24 * time.Hour} {
		w := newWorld(t, 0)
		w.group("/eks/tenants/acme")
		w.put(acme, acmeStream, w.now(), quarantined(1))
		w.pass(20 * 24 * time.Hour)
		w.put(acme, acmeStream, w.now(), quarantined(2))
		w.pass(time.Hour)
		report := one(t, w.run(func(cfg *Config) {
			cfg.Clock.Now = func() time.Time { return w.now().Add(ahead) }
			cfg.Clock.Ahead = func() time.Duration { return ahead }
		}))
		require.EqualValues(t, 2, report.Replayed, "%+v", report)
		require.Zero(t, report.Left)
		events := w.Events("/eks/tenants/acme", acmeStream)
		require.Len(t, events, 2)
		require.Contains(t, events[0].Message, `"#2"`)
		require.NotContains(t, events[0].Message, "original_time")
		require.InDelta(t, w.now().UnixMilli(), events[1].Timestamp, 60_000)
		require.Contains(t, events[1].Message, `"time_reason":"too_old"`)
	}
}

func TestReplayGoesByTheGroupsNameWhateverMessagesSay(t *testing.T) {
	w := newWorld(t, 0)
	w.registry = "version: 1\ntenants: {acme: {}, victim: {}, own: {roleArn: 'arn:aws:iam::210987654321:role/x', externalId: only-us}}"
	for _, g := range []string{"acme", "victim", "own"} {
		w.group("/eks/tenants/" + g)
	}
	forged := `{"log":"x","kubernetes":{"namespace_name":"tenant-victim"},"_tenantlogs":{"log_group":"/eks/tenants/victim","quarantined":"denied"}}`
	w.put(acme, acmeStream, w.now(), forged, `{"_tenantlogs":{"log_group":"/eks/tenants/victim"},"kubernetes":{"namespace_name":"tenant-victim"}}`)
	w.put(acme, "tenant-victim/p/c", w.now(), forged)
	w.put("/eks/quarantine/own", "tenant-own/p/c", w.now(), quarantined(1))
	w.pass(time.Hour)
	w.listen(nil)
	r := w.run()
	require.EqualValues(t, []int64{2, 1}, []int64{r.Tenants[0].Replayed, r.Tenants[0].Left})
	require.Equal(t, []string{"namespace tenant-victim is now tenant victim's"}, r.Tenants[0].Why)
	require.EqualValues(t, 1, r.Tenants[1].Replayed)
	require.Empty(t, w.Events("/eks/tenants/victim", acmeStream))
	require.Len(t, w.Events("/eks/tenants/acme", acmeStream), 2)
	roles := w.AssumedRoles()
	require.Len(t, roles, 1)
	require.Equal(t, "only-us", roles[0].ExternalID)
	for _, c := range w.calls {
		if c.Operation != "DescribeLogGroups" && c.Operation != "AssumeRole" {
			require.Equal(t, c.LogGroup == "/eks/tenants/own", strings.Contains(c.PrincipalARN, "210987654321"), "%+v", c)
		}
	}
}

func TestReplayOfPendingNamespacesMovesThoseThatAreMapped(t *testing.T) {
	w := newWorld(t, 0)
	w.mode, w.registry = tenancy.ModeRegistry, "version: 1\ntenants: {acme: {namespaces: [team-a]}}"
	w.group("/eks/tenants/acme")
	const pending = "/eks/quarantine/_pending"
	w.put(pending, "team-a/p/c", w.now(), `{"log":"#1","kubernetes":{}}`, "raw")
	w.put(pending, "team-a-b/p/c", w.now(), `{"log":"#2","kubernetes":{"namespace_name":"team-a"}}`)
	w.pass(time.Hour)
	r := one(t, w.run())
	require.EqualValues(t, []int64{2, 1}, []int64{r.Replayed, r.Left})
	require.Equal(t, []string{"namespace team-a-b is not in the registry"}, r.Why)
	w.pass(24 * time.Hour)
	w.registry = "version: 1\ntenants: {acme: {namespaces: [team-a]}, b: {namespaces: [team-a-b]}}"
	r = one(t, w.run(func(c *Config) { c.CreateGroups = true }))
	require.EqualValues(t, []int64{3, 2, 1, 0}, []int64{r.Quarantined, r.Before, r.Replayed, r.Left})
	require.Equal(t, []string{"#2"}, w.home("/eks/tenants/b", "team-a-b/p/c"))
	require.Equal(t, []string{"#1", "raw"}, w.home("/eks/tenants/acme", "team-a/p/c"))
	// A template that does not tell the namespace is refused in words.
	w.put(pending, "x/p", w.now(), "late")
	w.pass(time.Hour)
	r = one(t, w.run(func(c *Config) {
		var err error
		c.Template, err = tenancy.ParseStreamTemplate("$(node)/$(namespace)")
		require.NoError(t, err)
	}))
	require.EqualValues(t, 1, r.Left)
	require.Contains(t, r.Why[0], "log_stream_template does not let the namespace be read")
}

func TestReplayLeavesWhatItsHomeRefusesAndCopiesTheOthers(t *testing.T) {
	w := newWorld(t, 0)
	for _, name := range []string{"denied", "fine", "gone"} {
		w.put("/eks/quarantine/"+name, "tenant-"+name+"/p/c", w.now(), messages(1, 4)...)
		w.put("/eks/quarantine/"+name, "tenant-"+name+"/q/c", w.now(), messages(5, 6)...)
	}
	w.group("/eks/tenants/fine")
	w.group("/eks/tenants/denied")
	w.pass(time.Hour)
	w.listen(func(_ int, c fakeaws.Call) error {
		if c.Operation == "PutLogEvents" && c.LogGroup == "/eks/tenants/denied" {
			return &fakeaws.APIError{Code: "AccessDeniedException", Message: "no"}
		}
		return nil
	})
	r := w.run()
	left := map[string]int64{}
	why := map[string]string{}
	for _, x := range r.Tenants {
		left[x.Tenant], why[x.Tenant] = x.Left, strings.Join(x.Why, "; ")
		require.False(t, x.Unknown)
	}
	require.Equal(t, map[string]int64{"denied": 6, "fine": 0, "gone": 6}, left)
	require.Contains(t, why["denied"], "AccessDeniedException")
	require.Contains(t, why["gone"], "log group /eks/tenants/gone does not exist: let the provisioner create it, or give --auto-create-group")
	w.listen(nil)
	r = w.run(func(c *Config) { c.CreateGroups = true })
	require.Zero(t, r.Left())
	for _, name := range []string{"denied", "fine", "gone"} {
		require.Equal(t, numbers(1, 4), w.home("/eks/tenants/"+name, "tenant-"+name+"/p/c"), name)
		require.Equal(t, numbers(5, 6), w.home("/eks/tenants/"+name, "tenant-"+name+"/q/c"), name)
	}
}

func TestReplayRefusesWhileAnotherIsAtWork(t *testing.T) {
	w := newWorld(t, 0)
	w.group("/eks/tenants/acme")
	w.put(acme, acmeStream, w.now(), messages(1, 8)...)
	w.pass(time.Hour)
	ctx, kill := context.WithCancel(context.Background())
	w.listen(func(_ int, c fakeaws.Call) error {
		if c.Operation == "PutLogEvents" && c.LogGroup == "/eks/tenants/acme" {
			kill()
			return fakeaws.ErrAnswerLost
		}
		return nil
	})
	killed, err := Run(ctx, w.config())
	require.NoError(t, err)
	require.True(t, killed.Unknown())
	w.listen(nil)
	r := one(t, w.run())
	require.True(t, r.Unknown)
	require.Contains(t, r.Why[0], "another replay (test) is at work, or was ended by force")
	w.noWrites(t)
	w.pass(leaseTime)
	r = one(t, w.run())
	require.EqualValues(t, []int64{8, 0, 8, 0}, []int64{r.Quarantined, r.Before, r.Replayed, r.Left})
	require.Equal(t, numbers(1, 8), w.home("/eks/tenants/acme", acmeStream))
}

// What a replay that was killed has sent may be accepted after its end. The lease is longer than that takes.
func TestACallThatOutlivesItsReplayIsFoundByTheNext(t *testing.T) {
	w := newWorld(t, 0)
	w.group("/eks/tenants/acme")
	w.put(acme, acmeStream, w.now(), messages(1, 8)...)
	w.pass(time.Hour)
	ctx, kill := context.WithCancel(context.Background())
	w.listen(func(_ int, c fakeaws.Call) error {
		if c.Operation == "PutLogEvents" && c.LogGroup == "/eks/tenants/acme" {
			kill()
			w.stall.Store(int64(200 * time.Millisecond))
			return fakeaws.ErrAnswerLost
		}
		return nil
	})
	killed, err := Run(ctx, w.config())
	require.NoError(t, err)
	require.True(t, killed.Unknown())
	w.listen(nil)
	w.pass(leaseTime)
	r := one(t, w.run())
	require.EqualValues(t, []int64{8, 0, 8, 0}, []int64{r.Quarantined, r.Before, r.Replayed, r.Left})
	require.NoError(t, w.Close()) // now nothing is under way
	require.Equal(t, numbers(1, 8), w.home("/eks/tenants/acme", acmeStream))
}

// overlapping lists each group and each stream on two pages.
type overlapping struct{ Account }

func twice(token *string) (next *string) {
	if token == nil {
		return aws.String("again")
	}
	return nil
}

func (o overlapping) DescribeLogGroups(ctx context.Context, in *cloudwatchlogs.DescribeLogGroupsInput, opts ...func(*cloudwatchlogs.Options)) (*cloudwatchlogs.DescribeLogGroupsOutput, error) {
	page := *in
	page.NextToken = nil
	out, err := o.Account.DescribeLogGroups(ctx, &page, opts...)
	if err == nil {
		out.NextToken = twice(in.NextToken)
	}
	return out, err
}

func (o overlapping) DescribeLogStreams(ctx context.Context, in *cloudwatchlogs.DescribeLogStreamsInput, opts ...func(*cloudwatchlogs.Options)) (*cloudwatchlogs.DescribeLogStreamsOutput, error) {
	page := *in
	page.NextToken = nil
	out, err := o.Account.DescribeLogStreams(ctx, &page, opts...)
	if err == nil {
		out.NextToken = twice(in.NextToken)
	}
	return out, err
}

func TestAStreamThatIsListedTwiceIsCopiedOnce(t *testing.T) {
	w := newWorld(t, 0)
	w.group("/eks/tenants/acme")
	w.put(acme, acmeStream, w.now(), messages(1, 8)...)
	w.pass(time.Hour)
	r := one(t, w.run(func(cfg *Config) {
		as := cfg.As
		cfg.As = func(role awsclient.Role) Account { return overlapping{as(role)} }
	}))
	require.EqualValues(t, []int64{8, 0, 8, 0}, []int64{r.Quarantined, r.Before, r.Replayed, r.Left})
	require.Equal(t, numbers(1, 8), w.home("/eks/tenants/acme", acmeStream))
}

func TestTwoReplaysThatBeginAtTheSameMomentAreOne(t *testing.T) {
	w := newWorld(t, 0)
	w.group("/eks/tenants/acme")
	w.put(acme, acmeStream, w.now(), messages(1, 8)...)
	w.pass(time.Hour)
	// Both have looked before either begins.
	var both sync.WaitGroup
	both.Add(2)
	w.SetIntercept(func(c fakeaws.Call) error {
		if c.Operation == "CreateLogStream" && strings.HasPrefix(c.LogStream, tenancy.ReplayStreamPrefix) {
			both.Done()
			both.Wait()
		}
		return nil
	})
	reports := make([]Report, 2)
	var wg sync.WaitGroup
	for i := range reports {
		wg.Go(func() { reports[i], _ = Run(context.Background(), w.config()) })
	}
	wg.Wait()
	refused := slices.IndexFunc(reports, func(r Report) bool { return r.Unknown() })
	require.GreaterOrEqual(t, refused, 0)
	require.Contains(t, one(t, reports[refused]).Why[0], "another replay of this group has begun at the same moment")
	require.EqualValues(t, 8, one(t, reports[1-refused]).Replayed)
	require.Equal(t, numbers(1, 8), w.home("/eks/tenants/acme", acmeStream))
}

func TestReplayHasEndedTenSecondsAfterItWasAskedTo(t *testing.T) {
	require.Less(t, finishTime+lastTime, 10*time.Second)
}

// A replay that ends before its journal counts gives the lease back all the same.
func TestReplayGivesTheLeaseBackWhereItsJournalWasRefused(t *testing.T) {
	w := newWorld(t, 0)
	w.group("/eks/tenants/acme")
	w.put(acme, acmeStream, w.now(), messages(1, 3)...)
	w.pass(time.Hour)
	refused := false
	w.listen(func(_ int, c fakeaws.Call) error {
		if c.Operation == "PutLogEvents" && !refused {
			refused = true
			return fakeaws.Denied
		}
		return nil
	})
	require.True(t, one(t, w.run()).Unknown)
	require.True(t, refused)
	require.EqualValues(t, 3, one(t, w.run()).Replayed, "at once")
}

func TestReplayStopsAfterWhatIsUnderWayAndGoesOnAtOnce(t *testing.T) {
	w := newWorld(t, 0)
	w.group("/eks/tenants/acme")
	w.put(acme, acmeStream, w.now(), messages(1, 8)...)
	w.pass(time.Hour)
	stop := make(chan struct{})
	var once sync.Once
	w.listen(func(_ int, c fakeaws.Call) error {
		if c.Operation == "PutLogEvents" && c.LogGroup == "/eks/tenants/acme" {
			once.Do(func() { close(stop) })
		}
		return nil
	})
	r := one(t, w.run(func(c *Config) { c.Stop = stop }))
	require.EqualValues(t, 3, r.Replayed, "the batch that was under way")
	require.Contains(t, r.Why[0], "run it again to go on")
	w.listen(nil)
	again := one(t, w.run())
	require.EqualValues(t, []int64{3, 5, 0}, []int64{again.Before, again.Replayed, again.Left})
	require.Equal(t, r.Replay, again.Replay, "the same replay goes on")
	require.Equal(t, numbers(1, 8), w.home("/eks/tenants/acme", acmeStream))
}

// scenario is a quarantine with all that makes trouble.
func scenario(w *world) map[string][]string {
	w.mode = tenancy.ModeRegistry
	w.registry = "version: 1\ntenants: {acme: {namespaces: [tenant-acme, team-a]}, own: {namespaces: [tenant-own], roleArn: 'arn:aws:iam::210987654321:role/x'}}"
	w.group("/eks/tenants/acme")
	w.group("/eks/tenants/own")
	same := w.now().Add(time.Minute)
	w.put(acme, acmeStream, w.now(), messages(1, 5)...)
	w.put(acme, "tenant-acme/q/c", w.now(), messages(6, 6)...)
	w.pass(20 * 24 * time.Hour)
	for range 2 { // five of the same time, two of them twins
		w.put(acme, acmeStream, same.Add(20*24*time.Hour), quarantined(7))
	}
	for i := 8; i <= 10; i++ {
		w.put(acme, acmeStream, same.Add(20*24*time.Hour), quarantined(i))
	}
	w.put("/eks/quarantine/_pending", "team-a/p/c", w.now(), `{"log":"#11","kubernetes":{}}`, `{"log":"#12","kubernetes":{}}`)
	w.put("/eks/quarantine/own", "tenant-own/p/c", w.now(), messages(13, 16)...)
	w.pass(time.Hour)
	return map[string][]string{
		"/eks/tenants/acme " + acmeStream:   append(append(numbers(7, 7), numbers(7, 10)...), numbers(1, 5)...),
		"/eks/tenants/acme tenant-acme/q/c": numbers(6, 6),
		"/eks/tenants/acme team-a/p/c":      numbers(11, 12),
		"/eks/tenants/own tenant-own/p/c":   numbers(13, 16),
	}
}

// arrived is what all the homes have, by group and stream. Order is kept only where times
// are events' own; those with the present time may come in another order after a crash.
func (w *world) arrived(want map[string][]string) map[string][]string {
	got := map[string][]string{}
	for at := range want {
		group, stream, _ := strings.Cut(at, " ")
		got[at] = w.home(group, stream)
	}
	return got
}

func sorted(m map[string][]string) map[string][]string {
	out := maps.Clone(m)
	for k, v := range out {
		out[k] = slices.Sorted(slices.Values(v))
	}
	return out
}

// Whatever call is the last of a replay that is killed, whether it was carried out or
// not, and whatever one call answers: in the end everything is home once.
func TestReplayInterruptedAtEveryCallBringsEverythingHomeOnce(t *testing.T) {
	w := newWorld(t, 50*time.Second)
	want := scenario(w)
	w.listen(nil)
	require.Zero(t, w.run().Left())
	require.Equal(t, want, w.arrived(want), "uninterrupted")
	total := len(w.calls)
	require.Greater(t, total, 40)
	for name, mode := range map[string]struct {
		kill bool
		err  error
	}{
		"killed before":      {true, fakeaws.ErrConnectionReset},
		"killed after":       {true, fakeaws.ErrAnswerLost},
		"the answer is lost": {false, fakeaws.ErrAnswerLost},
		"denied once":        {false, &fakeaws.APIError{Code: "AccessDeniedException", Message: "no"}},
	} {
		for n := 1; n <= total+2; n++ {
			t.Run(fmt.Sprintf("%s at call %d", name, n), func(t *testing.T) {
				t.Parallel()
				w := newWorld(t, 50*time.Second)
				want := scenario(w)
				ctx, kill := context.WithCancel(context.Background())
				dead := false
				w.listen(func(i int, c fakeaws.Call) error {
					switch {
					case dead:
						return fakeaws.ErrConnectionReset
					case i != n:
						return nil
					}
					if dead = mode.kill; dead {
						kill()
					}
					return mode.err
				})
				_, _ = Run(ctx, w.config())
				kill()
				w.listen(nil)
				w.pass(leaseTime + time.Minute)
				last := w.run()
				require.Zero(t, last.Left(), "call %d: %+v", n, last)
				require.False(t, last.Unknown(), "call %d: %+v", n, last)
				require.Equal(t, sorted(want), sorted(w.arrived(want)), "call %d", n)
				sum := int64(0)
				for _, x := range last.Tenants {
					sum += x.Before + x.Replayed
					require.Equal(t, x.Quarantined, x.Before+x.Replayed, "call %d", n)
				}
				require.EqualValues(t, 17, sum, "call %d", n)
			})
		}
	}
}

// A home that keeps less than 14 days is looked at first; where that is denied, what
// CloudWatch rejects is sent again by delivery, and found by the next replay all the same.
func TestReplayToAGroupThatKeepsLessSendsTheRestWithThePresentTime(t *testing.T) {
	for name, denied := range map[string]bool{"looked at": false, "not to be looked at": true} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, 0)
			w.group("/eks/tenants/acme")
			days, home := int32(3), "/eks/tenants/acme"
			_, err := w.client.PutRetentionPolicy(context.Background(), &cloudwatchlogs.PutRetentionPolicyInput{LogGroupName: &home, RetentionInDays: &days})
			require.NoError(t, err)
			w.put(acme, acmeStream, w.now(), messages(1, 2)...)
			w.pass(5 * 24 * time.Hour)
			w.put(acme, acmeStream, w.now(), messages(3, 4)...)
			w.pass(time.Hour)
			describes := 0
			w.listen(func(_ int, c fakeaws.Call) error {
				if c.Operation == "DescribeLogGroups" {
					if describes++; describes > 1 && denied {
						return &fakeaws.APIError{Code: "AccessDeniedException", Message: "no"}
					}
				}
				return nil
			})
			r := one(t, w.run())
			require.EqualValues(t, []int64{4, 0}, []int64{r.Replayed, r.Left}, "%+v", r)
			events := w.Events(home, acmeStream)
			require.Len(t, events, 4)
			var mark []string
			for _, e := range events {
				tags(e.Message, func(tag string) { mark = append(mark, tag) })
			}
			require.Len(t, mark, 4, "each can be found again")
			for _, e := range events[2:] {
				require.Contains(t, e.Message, `"time_reason":"too_old"`)
				require.InDelta(t, w.now().UnixMilli(), e.Timestamp, 60_000)
			}
		})
	}
}

func TestReplayOfTheLongestMessagesIsInPartsThatAreJoinedToWhatItWas(t *testing.T) {
	w := newWorld(t, 0)
	w.group("/eks/tenants/acme")
	long := `{"log":"` + strings.Repeat("é", 524_200) + `","_tenantlogs":{"quarantined":"denied","log_group":"/eks/tenants/acme"}}`
	w.put(acme, acmeStream, w.now(), long)
	w.put(acme, acmeStream, w.now().Add(time.Second), long)
	w.pass(time.Hour)
	// Killed in the middle: the part that has arrived does not arrive again.
	ctx, kill := context.WithCancel(context.Background())
	defer kill()
	puts := 0
	w.listen(func(_ int, c fakeaws.Call) error {
		if c.Operation == "PutLogEvents" && c.LogGroup == "/eks/tenants/acme" {
			if puts++; puts == 3 {
				kill()
				return fakeaws.ErrAnswerLost
			}
		}
		return nil
	})
	_, _ = Run(ctx, w.config())
	w.listen(nil)
	w.pass(leaseTime)
	require.EqualValues(t, 2, one(t, w.run()).Quarantined)
	joined := map[int64]string{}
	parts := 0
	for _, e := range w.Events("/eks/tenants/acme", acmeStream) {
		var m struct{ Record string }
		require.NoError(t, json.Unmarshal([]byte(e.Message), &m))
		joined[e.Timestamp] += m.Record
		parts++
	}
	require.Equal(t, 4, parts)
	require.Len(t, joined, 2)
	for _, j := range joined {
		require.True(t, j == long)
	}
}
