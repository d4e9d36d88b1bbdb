package fakeaws_test

import (
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	logs "github.com/aws/aws-sdk-go-v2/service/cloudwatchlogs"
	"github.com/aws/aws-sdk-go-v2/service/iam"
	"github.com/stretchr/testify/require"

	"github.com/eks-tenant-logs/eks-tenant-logs/internal/fakeaws"
)

func call(operation, group, stream string) fakeaws.Call {
	return fakeaws.Call{Operation: operation, LogGroup: group, LogStream: stream}
}

func TestAFaultHitsTheCallsItNames(t *testing.T) {
	f := fakeaws.NewFaults(1)
	f.Set("denied", fakeaws.Fault{LogGroup: "/g", Answer: fakeaws.Denied})
	f.Set("creating", fakeaws.Fault{Operations: []string{"CreateLogGroup", "CreateLogStream"}, Answer: fakeaws.Throttled})
	require.Equal(t, fakeaws.Denied, f.Intercept(call("CreateLogGroup", "/g", "")), "the first that was set wins")
	require.Equal(t, fakeaws.Throttled, f.Intercept(call("CreateLogGroup", "/h", "")))
	require.NoError(t, f.Intercept(call("PutLogEvents", "/h", "s")))
	f.Clear("denied")
	require.Equal(t, fakeaws.Throttled, f.Intercept(call("CreateLogGroup", "/g", "")))
	f.Clear()
	require.NoError(t, f.Intercept(call("CreateLogGroup", "/g", "")))
	require.Equal(t, map[string]int{"denied": 1, "creating": 2}, f.Hits())
}

func TestAShareOfTheCallsIsHit(t *testing.T) {
	f := fakeaws.NewFaults(1)
	f.Set("some", fakeaws.Fault{Percent: 30, Answer: fakeaws.Unavailable})
	n := 0
	for range 10_000 {
		if f.Intercept(call("PutLogEvents", "/g", "s")) != nil {
			n++
		}
	}
	require.InDelta(t, 3000, n, 200)
	require.Equal(t, n, f.Hits()["some"])
}

func TestAHangLastsUntilItIsCleared(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := fakeaws.NewFaults(1)
		f.Set("hang", fakeaws.Fault{Answer: fakeaws.ErrHang})
		got := make(chan error, 1)
		go func() { got <- f.Intercept(call("PutLogEvents", "/g", "s")) }()
		time.Sleep(time.Hour)
		require.Empty(t, got)
		f.Clear("hang")
		require.ErrorIs(t, <-got, fakeaws.ErrConnectionReset)
	})
}

func TestLatencyIsWaitedAndAddsUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := fakeaws.NewFaults(1)
		f.Set("a", fakeaws.Fault{Latency: time.Second})
		f.Set("b", fakeaws.Fault{Latency: 2 * time.Second})
		began := time.Now()
		require.NoError(t, f.Intercept(call("PutLogEvents", "/g", "s")))
		require.Equal(t, 3*time.Second, time.Since(began))
	})
}

func TestQuotasAreASecondsWorthAtOnceAndThenTheRate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := fakeaws.NewFaults(1)
		f.SetQuotas(map[string]float64{"CreateLogGroup": 10})
		passed := func(tries int) (n int) {
			for range tries {
				if !errors.Is(f.Intercept(call("CreateLogGroup", "/g", "")), fakeaws.Throttled) {
					n++
				}
			}
			return n
		}
		require.Equal(t, 10, passed(50))
		time.Sleep(500 * time.Millisecond)
		require.Equal(t, 5, passed(50))
		time.Sleep(time.Hour)
		require.Equal(t, 10, passed(50))
		require.NoError(t, f.Intercept(call("PutLogEvents", "/g", "s")), "no quota was set for it")
		f.SetQuotas(nil)
		require.Equal(t, 50, passed(50))
	})
}

func TestWhatWasMadeTakesAWhileToAppear(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := fakeaws.NewFaults(1)
		f.SetAppearing(time.Second)
		require.NoError(t, f.Intercept(call("PutLogEvents", "/old", "s")), "what was there before")
		require.NoError(t, f.Intercept(call("CreateLogGroup", "/g", "")))
		require.Equal(t, fakeaws.NotFound, f.Intercept(call("CreateLogStream", "/g", "s")))
		time.Sleep(time.Second)
		require.NoError(t, f.Intercept(call("CreateLogStream", "/g", "s")))
		require.Equal(t, fakeaws.NotFound, f.Intercept(call("PutLogEvents", "/g", "s")))
		time.Sleep(time.Second)
		require.NoError(t, f.Intercept(call("PutLogEvents", "/g", "s")))
	})
}

func TestACreateThatFailsHidesNothing(t *testing.T) {
	f := start(t, fakeaws.Config{})
	c := newIAM(f.url, exampleCredentials)
	const group = "/eks/tenants/acme"
	f.createGroup(t, group)
	f.createStream(t, group, "s")
	createRole(t, c, "r")
	policyARN := createPolicy(t, c, "p", allowAll)
	faults := fakeaws.NewFaults(1)
	faults.SetAppearing(time.Hour)
	f.SetIntercept(faults.Intercept)

	createLogGroup := func(in logs.CreateLogGroupInput) error {
		_, err := f.client.CreateLogGroup(t.Context(), &in)
		return err
	}
	createStream := func(stream string) error {
		_, err := f.client.CreateLogStream(t.Context(), &logs.CreateLogStreamInput{LogGroupName: aws.String(group), LogStreamName: &stream})
		return err
	}
	put := func(stream string) error {
		_, err := f.put(t.Context(), group, stream, event(time.Now(), "m"))
		return err
	}
	get := func(name string) error {
		_, err := c.GetRole(t.Context(), &iam.GetRoleInput{RoleName: &name})
		return err
	}
	create := func(name, trust string) error {
		_, err := c.CreateRole(t.Context(), &iam.CreateRoleInput{RoleName: &name, AssumeRolePolicyDocument: &trust})
		return err
	}
	for range 2 {
		requireCode(t, createLogGroup(logs.CreateLogGroupInput{LogGroupName: aws.String(group)}), "ResourceAlreadyExistsException", "")
		requireCode(t, createStream("s"), "ResourceAlreadyExistsException", "")
		require.NoError(t, put("s"))
		requireStatus(t, create("r", trustSelf), "EntityAlreadyExists", 409)
		require.NoError(t, get("r"))
		_, err := c.CreatePolicy(t.Context(), &iam.CreatePolicyInput{PolicyName: aws.String("p"), PolicyDocument: aws.String(allowAll)})
		requireStatus(t, err, "EntityAlreadyExists", 409)
		_, err = c.GetPolicy(t.Context(), &iam.GetPolicyInput{PolicyArn: &policyARN})
		require.NoError(t, err)
	}
	require.Empty(t, faults.Hits())

	// One that is made is hidden, also where a first attempt failed or its answer was lost.
	requireCode(t, createStream("a:b"), "InvalidParameterException", "")
	require.Error(t, create("new", "{"))
	requireStatus(t, get("new"), "NoSuchEntity", 404)
	require.Empty(t, faults.Hits(), "there is none, which is no fault")
	require.NoError(t, createStream("new"))
	requireCode(t, put("new"), "ResourceNotFoundException", "")
	require.NoError(t, create("new", trustSelf))
	requireStatus(t, get("new"), "NoSuchEntity", 404)
	require.Equal(t, map[string]int{"appear": 2}, faults.Hits())
	f.SetIntercept(func(c fakeaws.Call) error {
		if err := faults.Intercept(c); err != nil {
			return err
		}
		return fakeaws.ErrAnswerLost
	})
	require.Error(t, createStream("lost"))
	f.SetIntercept(faults.Intercept)
	requireCode(t, put("lost"), "ResourceNotFoundException", "")
	require.Equal(t, 3, faults.Hits()["appear"])
}

// What is deleted and made anew is another, and takes its while again.
func TestWhatIsMadeAnewTakesAWhileToAppearAgain(t *testing.T) {
	f := start(t, fakeaws.Config{})
	c := newIAM(f.url, exampleCredentials)
	faults := fakeaws.NewFaults(1)
	var passed atomic.Int64
	fakeaws.SetFaultsClock(faults, func() time.Time { return noon.Add(time.Duration(passed.Load())) })
	faults.SetAppearing(time.Hour)
	f.SetIntercept(faults.Intercept)
	get := func() error {
		_, err := c.GetRole(t.Context(), &iam.GetRoleInput{RoleName: aws.String("r")})
		return err
	}
	createRole(t, c, "r")
	requireStatus(t, get(), "NoSuchEntity", 404)
	passed.Add(int64(time.Hour))
	require.NoError(t, get())
	_, err := c.DeleteRole(t.Context(), &iam.DeleteRoleInput{RoleName: aws.String("r")})
	require.NoError(t, err)
	createRole(t, c, "r")
	requireStatus(t, get(), "NoSuchEntity", 404)
	passed.Add(int64(time.Hour))
	require.NoError(t, get())
}
