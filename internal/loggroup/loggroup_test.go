package loggroup

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/cloudwatchlogs"
	"github.com/aws/aws-sdk-go-v2/service/cloudwatchlogs/types"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/eks-tenant-logs/eks-tenant-logs/internal/awsclient"
	"github.com/eks-tenant-logs/eks-tenant-logs/internal/fakeaws"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m, goleak.IgnoreTopFunction("net/http.(*persistConn).readLoop"), goleak.IgnoreTopFunction("net/http.(*persistConn).writeLoop"),
		goleak.IgnoreTopFunction("internal/poll.runtime_pollWait"))
}

func fake(t *testing.T, cfg fakeaws.Config) (*fakeaws.Server, *cloudwatchlogs.Client) {
	s := fakeaws.New(cfg)
	url, err := s.Start("")
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, s.Close()) })
	return s, cloudwatchlogs.New(cloudwatchlogs.Options{
		Region: "us-east-1", BaseEndpoint: &url,
		Credentials: credentials.NewStaticCredentialsProvider(fakeaws.DefaultAccessKeyID, fakeaws.DefaultSecretAccessKey, ""),
	})
}

func keeper(t *testing.T, api API, create bool, log io.Writer) *Keeper {
	h := slog.DiscardHandler
	if log != nil {
		h = slog.NewTextHandler(log, nil)
	}
	k := NewKeeper(api, Config{Create: create, Log: slog.New(h), Backoff: func(int) time.Duration { return time.Millisecond },
		Unmarked: func() time.Duration { return 0 }})
	t.Cleanup(k.Close)
	return k
}

func settled(t *testing.T, k *Keeper) {
	t.Helper()
	require.Eventually(t, func() bool { return k.Open() == 0 }, 30*time.Second, time.Millisecond)
}

func spec(group string) Spec { return Spec{Group: group, Tenant: "a", RetentionDays: 365} }

func TestDecide(t *testing.T) {
	days := func(n int32) types.LogGroup { return types.LogGroup{RetentionInDays: &n} }
	never := types.LogGroup{}
	by := func(g types.LogGroup) types.LogGroup { g.RetentionPolicyName = aws.String("org"); return g }
	for name, test := range map[string]struct {
		group      types.LogGroup
		unfinished bool
		want       Verdict
	}{
		"ours, not set":            {never, true, Raise},
		"ours, too short":          {days(7), true, Raise},
		"ours, right":              {days(365), true, Leave},
		"ours, policy longer":      {by(days(731)), true, Raise},
		"ours, policy never":       {by(never), true, Raise},
		"before, never":            {never, false, Report},
		"before, too short":        {days(364), false, Raise},
		"before, right":            {days(365), false, Leave},
		"before, longer stays":     {days(3653), false, Leave},
		"before, policy too short": {by(days(30)), false, Raise},
		"before, policy long":      {by(days(731)), false, Leave},
		"before, policy never":     {by(never), false, Leave},
	} {
		require.Equal(t, test.want, Decide(test.group, 365, test.unfinished), name)
	}
}

func TestAGroupIsCreatedOnceHoweverManyAsk(t *testing.T) {
	s, api := fake(t, fakeaws.Config{})
	k := keeper(t, api, true, nil)
	var wg sync.WaitGroup
	for i := range 40 {
		wg.Add(1)
		go func() {
			defer wg.Done()
			require.NoError(t, k.EnsureStream(context.Background(), spec("/g"), fmt.Sprint("s", i%4)))
		}()
	}
	wg.Wait()
	settled(t, k)
	require.Equal(t, 1, s.CallCount("CreateLogGroup"))
	require.Equal(t, 1, s.CallCount("PutRetentionPolicy"))
	g := s.Groups()[0]
	require.Equal(t, 365, g.RetentionInDays)
	require.Equal(t, map[string]string{TagTenant: "a", TagState: StateReady}, g.Tags)
	require.Len(t, g.Streams, 4)
}

func TestTwoProcessesCreateTheSameGroups(t *testing.T) {
	s, api := fake(t, fakeaws.Config{})
	keepers := []*Keeper{keeper(t, api, true, nil), keeper(t, api, true, nil)}
	var wg sync.WaitGroup
	for i := range 30 {
		for _, k := range keepers {
			wg.Add(1)
			go func() {
				defer wg.Done()
				require.NoError(t, k.EnsureStream(context.Background(), spec(fmt.Sprint("/g", i)), "s"))
			}()
		}
	}
	wg.Wait()
	for _, k := range keepers {
		settled(t, k)
	}
	groups := s.Groups()
	require.Len(t, groups, 30)
	for _, g := range groups {
		require.Equal(t, 365, g.RetentionInDays)
		require.Equal(t, StateReady, g.Tags[TagState])
	}
}

func TestOperationAbortedMeansLookAgain(t *testing.T) {
	s, api := fake(t, fakeaws.Config{})
	var aborted atomic.Int32
	s.SetIntercept(func(c fakeaws.Call) error {
		if c.Operation == "CreateLogGroup" && aborted.Add(1) == 1 {
			// The other node wins meanwhile.
			go func() {
				_, _ = api.CreateLogGroup(context.Background(), &cloudwatchlogs.CreateLogGroupInput{LogGroupName: aws.String("/g"), Tags: map[string]string{TagState: StateNew}})
			}()
			return &fakeaws.APIError{Code: "OperationAbortedException", Message: "A conflicting operation is currently in progress"}
		}
		return nil
	})
	k := keeper(t, api, true, nil)
	require.NoError(t, k.EnsureStream(context.Background(), spec("/g"), "s"))
	settled(t, k)
	g := s.Groups()[0]
	require.Equal(t, 365, g.RetentionInDays)
	require.Equal(t, StateReady, g.Tags[TagState])
}

func TestAGroupLeftUnfinishedIsFinishedByWhoeverUsesIt(t *testing.T) {
	for name, days := range map[string]int32{"nothing set": 0, "set, not marked": 365} {
		t.Run(name, func(t *testing.T) {
			s, api := fake(t, fakeaws.Config{})
			ctx := context.Background()
			_, err := api.CreateLogGroup(ctx, &cloudwatchlogs.CreateLogGroupInput{LogGroupName: aws.String("/g"), Tags: map[string]string{TagState: StateNew}})
			require.NoError(t, err)
			if days > 0 {
				_, err = api.PutRetentionPolicy(ctx, &cloudwatchlogs.PutRetentionPolicyInput{LogGroupName: aws.String("/g"), RetentionInDays: &days})
				require.NoError(t, err)
			}
			k := keeper(t, api, true, nil)
			k.Used(spec("/g"))
			settled(t, k)
			g := s.Groups()[0]
			require.Equal(t, 365, g.RetentionInDays)
			require.Equal(t, StateReady, g.Tags[TagState])
			k.Used(spec("/g")) // once a process
			settled(t, k)
			require.Equal(t, 1, s.CallCount("TagResource"))
		})
	}
}

func TestManyGroupsAreLookedAtFiftyACall(t *testing.T) {
	s, api := fake(t, fakeaws.Config{})
	ctx := context.Background()
	const n = 120
	for i := range n {
		name := fmt.Sprint("/g", i)
		_, err := api.CreateLogGroup(ctx, &cloudwatchlogs.CreateLogGroupInput{LogGroupName: &name})
		require.NoError(t, err)
		_, err = api.PutRetentionPolicy(ctx, &cloudwatchlogs.PutRetentionPolicyInput{LogGroupName: &name, RetentionInDays: aws.Int32(731)})
		require.NoError(t, err)
	}
	// All of them come due together, as after a restart.
	k := NewKeeper(api, Config{Create: true, Log: slog.New(slog.DiscardHandler), Delay: func() time.Duration { return 300 * time.Millisecond }})
	t.Cleanup(k.Close)
	for i := range n {
		k.Used(spec(fmt.Sprint("/g", i)))
	}
	settled(t, k)
	require.LessOrEqual(t, s.CallCount("DescribeLogGroups"), n/describeAtOnce+3)
	require.Equal(t, n, s.CallCount("PutRetentionPolicy"), "the test's own: a longer retention is left alone")
}

func TestRetentionThatDoesNotTakeIsToldAndTriedAgain(t *testing.T) {
	s, api := fake(t, fakeaws.Config{})
	var tries atomic.Int32
	s.SetIntercept(func(c fakeaws.Call) error {
		if c.Operation == "PutRetentionPolicy" && tries.Add(1) <= 3 {
			return &fakeaws.APIError{Code: "AccessDeniedException", Message: "no"}
		}
		return nil
	})
	var log bytes.Buffer
	k := NewKeeper(api, Config{Create: true, Log: slog.New(slog.NewTextHandler(&log, nil)), Backoff: func(int) time.Duration { return time.Millisecond }})
	require.NoError(t, k.EnsureStream(context.Background(), spec("/g"), "s"))
	settled(t, k)
	k.Close()
	require.Equal(t, 365, s.Groups()[0].RetentionInDays)
	require.Equal(t, 3, bytes.Count(log.Bytes(), []byte("retention of a log group is not confirmed")))
}

func TestAnAccountPolicyThatWinsIsToldAndNotFought(t *testing.T) {
	s, api := fake(t, fakeaws.Config{})
	s.SetAccountRetention("org", 30)
	var log syncBuffer
	rechecked := make(chan struct{})
	var once sync.Once
	k := NewKeeper(api, Config{Create: true, Log: slog.New(slog.NewTextHandler(&log, nil)), Recheck: time.Millisecond,
		Backoff: func(n int) time.Duration {
			if n > consistency+3 {
				once.Do(func() { close(rechecked) })
			}
			return time.Millisecond
		}})
	t.Cleanup(k.Close)
	require.NoError(t, k.EnsureStream(context.Background(), spec("/g"), "s"))
	select {
	case <-rechecked:
	case <-time.After(30 * time.Second):
		t.Fatal("it is not looked at any more")
	}
	require.Equal(t, 1, s.CallCount("PutRetentionPolicy"))
	require.Contains(t, log.String(), `group /g keeps its events 30 days instead of 365: the account-level retention policy \"org\" wins over it`)
	require.Equal(t, StateNew, s.Groups()[0].Tags[TagState], "nothing is confirmed")
	// The policy goes: what was set shows, and is confirmed.
	s.SetAccountRetention("", 0)
	settled(t, k)
	require.Equal(t, 1, s.CallCount("PutRetentionPolicy"))
	require.Equal(t, 365, s.Groups()[0].RetentionInDays)
	require.Equal(t, StateReady, s.Groups()[0].Tags[TagState])
}

// Under an account-level policy that keeps events long enough, a group of ours has its
// own days all the same: the policy may go.
func TestAnAccountPolicyThatIsLongEnough(t *testing.T) {
	for name, days := range map[string]int{"731": 731, "never": 0} {
		t.Run(name, func(t *testing.T) {
			s, api := fake(t, fakeaws.Config{})
			s.SetAccountRetention("org", days)
			k := keeper(t, api, true, nil)
			require.NoError(t, k.EnsureStream(context.Background(), spec("/g"), "s"))
			settled(t, k)
			g := s.Groups()[0]
			require.Equal(t, days, g.RetentionInDays)
			require.Equal(t, StateReady, g.Tags[TagState])
			s.SetAccountRetention("", 0)
			require.Equal(t, 365, s.Groups()[0].RetentionInDays)
		})
	}
}

// stale answers DescribeLogGroups as a host of AWS that a change has not reached yet.
type stale struct {
	*cloudwatchlogs.Client
	answers *atomic.Int32
}

func (c stale) DescribeLogGroups(ctx context.Context, in *cloudwatchlogs.DescribeLogGroupsInput, o ...func(*cloudwatchlogs.Options)) (*cloudwatchlogs.DescribeLogGroupsOutput, error) {
	out, err := c.Client.DescribeLogGroups(ctx, in, o...)
	switch n := c.answers.Add(-1); {
	case err != nil:
	case n >= 3:
		out.LogGroups = nil
	case n >= 0:
		for i := range out.LogGroups {
			out.LogGroups[i].RetentionInDays = nil
		}
	}
	return out, err
}

func TestAnswersThatAreBehindAreWaitedFor(t *testing.T) {
	s, api := fake(t, fakeaws.Config{})
	c := stale{api, new(atomic.Int32)}
	c.answers.Store(6)
	k := keeper(t, c, true, nil)
	require.NoError(t, k.EnsureStream(context.Background(), spec("/g"), "s"))
	settled(t, k)
	require.Equal(t, 1, s.CallCount("PutRetentionPolicy"))
	require.Equal(t, StateReady, s.Groups()[0].Tags[TagState])
}

func TestAnAnswerThatHangsDoesNotEndTheKeeping(t *testing.T) {
	for _, op := range []string{"DescribeLogGroups", "PutRetentionPolicy", "ListTagsForResource", "TagResource"} {
		t.Run(op, func(t *testing.T) {
			s, api := fake(t, fakeaws.Config{})
			release := make(chan struct{})
			var hung atomic.Int32
			s.SetIntercept(func(c fakeaws.Call) error {
				if c.Operation == op && hung.Add(1) == 1 {
					<-release
				}
				return nil
			})
			defer close(release)
			_, err := api.CreateLogGroup(context.Background(), &cloudwatchlogs.CreateLogGroupInput{LogGroupName: aws.String("/g"), Tags: map[string]string{TagState: StateNew}})
			require.NoError(t, err)
			k := NewKeeper(api, Config{Create: true, Log: slog.New(slog.DiscardHandler), CallTimeout: 50 * time.Millisecond,
				Backoff: func(int) time.Duration { return time.Millisecond }})
			t.Cleanup(k.Close)
			k.Used(spec("/g"))
			settled(t, k)
			require.Equal(t, 365, s.Groups()[0].RetentionInDays)
			require.Equal(t, StateReady, s.Groups()[0].Tags[TagState])
		})
	}
}

// panics panics in the first call of each kind.
type panics struct {
	*cloudwatchlogs.Client
	describe, create *sync.Once
}

func (p panics) DescribeLogGroups(ctx context.Context, in *cloudwatchlogs.DescribeLogGroupsInput, o ...func(*cloudwatchlogs.Options)) (*cloudwatchlogs.DescribeLogGroupsOutput, error) {
	p.describe.Do(func() { panic("describe") })
	return p.Client.DescribeLogGroups(ctx, in, o...)
}

func (p panics) CreateLogGroup(ctx context.Context, in *cloudwatchlogs.CreateLogGroupInput, o ...func(*cloudwatchlogs.Options)) (*cloudwatchlogs.CreateLogGroupOutput, error) {
	p.create.Do(func() { panic("create") })
	return p.Client.CreateLogGroup(ctx, in, o...)
}

func TestAPanicIsAnErrorAndNotTheEndOfFluentBit(t *testing.T) {
	s, api := fake(t, fakeaws.Config{})
	k := keeper(t, panics{api, new(sync.Once), new(sync.Once)}, true, nil)
	require.ErrorContains(t, k.EnsureStream(context.Background(), spec("/g"), "s"), "panicked, please report this: create")
	require.NoError(t, k.EnsureStream(context.Background(), spec("/g"), "s"))
	settled(t, k)
	require.Equal(t, StateReady, s.Groups()[0].Tags[TagState])
}

func TestAGroupThatIsGoneIsForgottenUntilItIsUsedAgain(t *testing.T) {
	s, api := fake(t, fakeaws.Config{})
	var log syncBuffer
	k := keeper(t, api, true, &log)
	k.Used(spec("/g"))
	settled(t, k)
	require.Contains(t, log.String(), "a log group is gone")
	_, err := api.CreateLogGroup(context.Background(), &cloudwatchlogs.CreateLogGroupInput{LogGroupName: aws.String("/g"), Tags: map[string]string{TagState: StateNew}})
	require.NoError(t, err)
	k.Used(spec("/g"))
	settled(t, k)
	require.Equal(t, 365, s.Groups()[0].RetentionInDays)
}

// A group that is deleted and made anew while its retention is being confirmed is
// confirmed once more.
func TestAGroupMadeAnewWhileItIsConfirmedIsConfirmedAgain(t *testing.T) {
	s, api := fake(t, fakeaws.Config{})
	inside, release := make(chan struct{}), make(chan struct{})
	var once sync.Once
	s.SetIntercept(func(c fakeaws.Call) error {
		if c.Operation == "TagResource" {
			once.Do(func() { close(inside); <-release })
		}
		return nil
	})
	k := keeper(t, api, true, nil)
	require.NoError(t, k.EnsureStream(context.Background(), spec("/g"), "s"))
	<-inside // all but the tag is done
	_, err := api.DeleteLogGroup(context.Background(), &cloudwatchlogs.DeleteLogGroupInput{LogGroupName: aws.String("/g")})
	require.NoError(t, err)
	require.NoError(t, k.EnsureStream(context.Background(), spec("/g"), "s"))
	close(release)
	settled(t, k)
	require.Equal(t, 365, s.Groups()[0].RetentionInDays)
	require.Equal(t, StateReady, s.Groups()[0].Tags[TagState])
}

func TestGroupsThatComeIntoUseTogetherAreLookedAtTogether(t *testing.T) {
	_, api := fake(t, fakeaws.Config{})
	asked := 0
	k := NewKeeper(api, Config{Create: true, Log: slog.New(slog.DiscardHandler), Delay: func() time.Duration { asked++; return time.Hour }})
	t.Cleanup(k.Close)
	for i := range 100 {
		k.Used(spec(fmt.Sprint("/g", i)))
	}
	require.Equal(t, 1, asked)
	now := time.Now()
	require.Equal(t, k.nextLook(now), k.nextLook(now.Add(59*time.Minute)))
	require.Equal(t, now.Add(3*time.Hour), k.nextLook(now.Add(2*time.Hour)))
}

type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *syncBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *syncBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

func TestWithoutPermissionToCreateAMissingGroupSaysWhoHasTo(t *testing.T) {
	s, api := fake(t, fakeaws.Config{})
	k := keeper(t, api, false, nil)
	err := k.EnsureStream(context.Background(), spec("/g"), "s")
	require.ErrorContains(t, err, "log group /g does not exist and auto_create_group is off: the provisioner has to create it")
	require.Equal(t, awsclient.ClassNotFound, awsclient.Classify(err))
	k.Used(spec("/g"))
	require.Zero(t, k.Open())
	require.Zero(t, s.CallCount("CreateLogGroup")+s.CallCount("DescribeLogGroups"))
}

func TestACallerThatLeavesDoesNotEndTheOthersCreation(t *testing.T) {
	s, api := fake(t, fakeaws.Config{})
	inside, release := make(chan struct{}), make(chan struct{})
	var once sync.Once
	s.SetIntercept(func(c fakeaws.Call) error {
		if c.Operation == "CreateLogGroup" {
			once.Do(func() { close(inside); <-release })
		}
		return nil
	})
	k := keeper(t, api, true, nil)
	ctx, cancel := context.WithCancel(context.Background())
	first := make(chan error, 1)
	go func() { first <- k.EnsureStream(ctx, spec("/g"), "s") }()
	<-inside
	second := make(chan error, 1)
	go func() { second <- k.EnsureStream(context.Background(), spec("/g"), "s") }()
	cancel()
	require.ErrorIs(t, <-first, context.Canceled)
	close(release)
	require.NoError(t, <-second)
}

// A refusal that was on its way while another stream's caller created the group
// does not create it again.
func TestALateRefusalDoesNotCreateTheGroupAgain(t *testing.T) {
	s, api := fake(t, fakeaws.Config{})
	late := lateRefusal{Client: api, refused: make(chan struct{}), pass: make(chan struct{})}
	k := keeper(t, late, true, nil)
	second := make(chan error, 1)
	go func() { second <- k.EnsureStream(context.Background(), spec("/g"), "late") }()
	<-late.refused
	require.NoError(t, k.EnsureStream(context.Background(), spec("/g"), "s"))
	close(late.pass)
	require.NoError(t, <-second)
	require.Equal(t, 1, s.CallCount("CreateLogGroup"))
	settled(t, k)
}

// lateRefusal keeps the answer to the first CreateLogStream for the stream `late`.
type lateRefusal struct {
	*cloudwatchlogs.Client
	refused, pass chan struct{}
}

func (l lateRefusal) CreateLogStream(ctx context.Context, in *cloudwatchlogs.CreateLogStreamInput, o ...func(*cloudwatchlogs.Options)) (*cloudwatchlogs.CreateLogStreamOutput, error) {
	out, err := l.Client.CreateLogStream(ctx, in, o...)
	if *in.LogStreamName == "late" && err != nil {
		select {
		case <-l.refused:
		default:
			close(l.refused)
			<-l.pass
		}
	}
	return out, err
}

// A process can end before any of the calls that make a group, with all before it done.
// Whoever uses the group next finishes the work, whatever was left.
func TestWhereverACreationEndsItIsFinished(t *testing.T) {
	points := []struct {
		operation string
		nth       int
		left      string // what the next one finds
	}{
		{"CreateLogStream", 1, "nothing"},
		{"CreateLogGroup", 1, "nothing"},
		{"CreateLogStream", 2, "a group in state new, no stream"},
		{"DescribeLogGroups", 1, "a group in state new, for ever"},
		{"PutRetentionPolicy", 1, "a group in state new, for ever"},
		{"DescribeLogGroups", 2, "a group in state new, its days set and not read back"},
		{"TagResource", 1, "a group in state new, its days read back"},
	}
	for _, p := range points {
		t.Run(fmt.Sprintf("before %s %d", p.operation, p.nth), func(t *testing.T) {
			s, api := fake(t, fakeaws.Config{})
			var mu sync.Mutex
			seen, dead := 0, false
			ended := make(chan struct{})
			s.SetIntercept(func(c fakeaws.Call) error {
				mu.Lock()
				defer mu.Unlock()
				if c.Operation == p.operation {
					if seen++; seen == p.nth {
						dead = true
						close(ended)
					}
				}
				if dead {
					return fakeaws.ErrConnectionReset
				}
				return nil
			})
			once := cloudwatchlogs.New(api.Options(), func(o *cloudwatchlogs.Options) { o.Retryer = aws.NopRetryer{} })
			k := NewKeeper(once, Config{Create: true, Log: slog.New(slog.DiscardHandler), Backoff: func(int) time.Duration { return time.Hour }})
			_ = k.EnsureStream(context.Background(), spec("/g"), "s")
			<-ended
			k.Close()
			t.Logf("left: %s", p.left)

			mu.Lock()
			s.SetIntercept(nil)
			mu.Unlock()
			next := keeper(t, api, true, nil)
			require.NoError(t, next.EnsureStream(context.Background(), spec("/g"), "s"))
			next.Used(spec("/g"))
			settled(t, next)
			g := s.Groups()[0]
			require.Equal(t, 365, g.RetentionInDays)
			require.Equal(t, StateReady, g.Tags[TagState])
			require.Len(t, g.Streams, 1)
		})
	}
}

// Two nodes of different configurations set a group's retention at the same time, and
// the shorter is put last. The node that wants more looks again, and wins.
func TestTheLongerRetentionWinsWhoeverPutLast(t *testing.T) {
	s, api := fake(t, fakeaws.Config{})
	_, err := api.CreateLogGroup(context.Background(), &cloudwatchlogs.CreateLogGroupInput{LogGroupName: aws.String("/g"), Tags: map[string]string{TagState: StateNew}})
	require.NoError(t, err)
	long := NewKeeper(api, Config{Create: true, Log: slog.New(slog.DiscardHandler), Recheck: 50 * time.Millisecond})
	t.Cleanup(long.Close)
	var n atomic.Int32
	s.SetIntercept(func(c fakeaws.Call) error {
		if c.Operation == "PutRetentionPolicy" && n.Add(1) == 1 { // the short one's is on its way
			long.Used(Spec{Group: "/g", RetentionDays: 365})
			for s.Groups()[0].Tags[TagState] != StateReady {
				time.Sleep(time.Millisecond)
			}
		}
		return nil
	})
	short := keeper(t, api, true, nil)
	short.Used(Spec{Group: "/g", RetentionDays: 30})
	settled(t, short)
	require.Eventually(t, func() bool { return s.Groups()[0].RetentionInDays == 365 && long.Open() == 0 && n.Load() >= 3 }, 30*time.Second, time.Millisecond)
}
