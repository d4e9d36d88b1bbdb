package delivery

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/eks-tenant-logs/eks-tenant-logs/internal/awsclient"
)

// isOpen is Open without a trial.
func isOpen(b *Breaker, t Target) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	c := b.circuits[groupKey{t.Role, t.Group}]
	return c != nil && c.open
}

func TestWhatOpensACircuit(t *testing.T) {
	own := awsclient.Role{ARN: "arn:aws:iam::210987654321:role/x"}
	shared, account := Target{Group: "/a"}, Target{Role: own, Group: "/a"}
	role := &awsclient.CredentialsError{Role: own.ARN, Err: apiError("AccessDenied")}
	for name, test := range map[string]struct {
		target Target
		err    error
		others bool
		reason string // empty: never opens
	}{
		"denied, others work":                      {shared, apiError("AccessDeniedException"), true, "denied"},
		"denied everywhere":                        {shared, apiError("AccessDeniedException"), false, ""},
		"denied in its own account":                {account, apiError("AccessDeniedException"), false, "denied"},
		"missing and may not be made":              {shared, apiError("ResourceNotFoundException"), false, "missing"},
		"role can't be assumed":                    {account, role, false, "role"},
		"STS throttled":                            {account, &awsclient.CredentialsError{Role: own.ARN, Err: apiError("Throttling")}, true, ""},
		"STS out of reach":                         {account, &awsclient.CredentialsError{Role: own.ARN, Err: errors.New("deadline exceeded")}, true, ""},
		"STS knows us no more":                     {account, &awsclient.CredentialsError{Role: own.ARN, Err: apiError("ExpiredToken")}, true, ""},
		"the platform's credentials":               {account, &awsclient.CredentialsError{Err: errors.New("none")}, true, ""},
		"somebody else's role":                     {shared, role, true, ""},
		"sessions of the role are refused":         {account, &awsclient.RefusedError{Role: own.ARN, Renewed: true, Err: apiError("ExpiredTokenException")}, false, "role"},
		"one session of the role is refused":       {account, &awsclient.RefusedError{Role: own.ARN, Err: apiError("ExpiredTokenException")}, true, ""},
		"sessions of the platform's are refused":   {shared, &awsclient.RefusedError{Renewed: true, Err: apiError("ExpiredTokenException")}, true, ""},
		"a denial that may be the session's":       {account, &awsclient.RefusedError{Role: own.ARN, Again: true, Err: apiError("AccessDeniedException")}, true, ""},
		"the role is assumed with what is refused": {account, &awsclient.CredentialsError{Role: own.ARN, Err: &awsclient.RefusedError{Err: apiError("InvalidClientTokenId")}}, true, ""},
		"throttled":                                {shared, apiError("ThrottlingException"), true, ""},
		"a quota":                                  {shared, apiError("LimitExceededException"), true, ""},
		"5xx":                                      {shared, apiError("ServiceUnavailableException"), true, ""},
		"no route":                                 {shared, errors.New("dial tcp: no route to host"), true, ""},
		"expired":                                  {shared, apiError("ExpiredTokenException"), true, ""},
		"a clock that is off":                      {shared, apiError("InvalidSignatureException"), true, ""},
		"an event it calls invalid":                {shared, apiError("InvalidParameterException"), true, ""},
		"wrapped":                                  {shared, fmt.Errorf("put: %w", apiError("AccessDeniedException")), true, "denied"},
	} {
		t.Run(name, func(t *testing.T) {
			now := time.Unix(1000, 0)
			b := newBreaker(quiet, func() time.Time { return now }, nil)
			if test.others {
				b.succeeded(Target{Role: test.target.Role, Group: "/other"})
			}
			b.failed(test.target, test.err)
			require.False(t, isOpen(b, test.target), "once is none")
			for range 10 {
				b.failed(test.target, test.err)
			}
			reason, open := b.Open(test.target)
			require.Equal(t, test.reason != "", open)
			require.Equal(t, test.reason, reason)
			require.False(t, isOpen(b, Target{Group: "/other"}))
			require.False(t, isOpen(b, Target{Role: awsclient.Role{ARN: "another"}, Group: "/a"}))
		})
	}
}

func TestACircuitIsTriedFromTimeToTimeAndCloses(t *testing.T) {
	now := time.Unix(1000, 0)
	b := newBreaker(quiet, func() time.Time { return now }, func(n int) time.Duration { return time.Duration(n+1) * time.Minute })
	a := Target{Group: "/a", Stream: "s"}
	b.succeeded(Target{Group: "/b"})
	for range tripsAfter {
		b.failed(a, apiError("AccessDeniedException"))
	}
	through := func() (n int) {
		for range 5 {
			if _, open := b.Open(a); !open {
				n++
			}
		}
		return n
	}
	require.Zero(t, through())
	now = now.Add(time.Minute)
	require.Equal(t, 1, through(), "one is let through")
	b.failed(a, apiError("AccessDeniedException"))
	require.Zero(t, through())
	now = now.Add(2 * time.Minute)
	require.Equal(t, 1, through())
	b.succeeded(Target{Group: "/a", Stream: "another"})
	require.Equal(t, 5, through(), "closed")
	b.failed(a, apiError("AccessDeniedException"))
	require.Equal(t, 5, through(), "and counts anew")
}

// A denial long after anything worked may be of all.
func TestADenialIsHeldAgainstAGroupOnlyWhileOthersWork(t *testing.T) {
	now := time.Unix(1000, 0)
	b := newBreaker(quiet, func() time.Time { return now }, nil)
	a := Target{Group: "/a"}
	b.succeeded(Target{Group: "/b"})
	now = now.Add(othersWork)
	for range 5 {
		b.failed(a, apiError("AccessDeniedException"))
	}
	require.False(t, isOpen(b, a))
	b.succeeded(Target{Group: "/b"})
	b.failed(a, apiError("AccessDeniedException"))
	require.True(t, isOpen(b, a))
}

// What a group itself took, and what others took before, says nothing of a denial.
func TestADenialEverywhereOpensNothing(t *testing.T) {
	now := time.Unix(1000, 0)
	b := newBreaker(quiet, func() time.Time { return now }, nil)
	groups := []Target{{Group: "/a"}, {Group: "/b"}, {Group: "/c"}}
	for _, g := range groups {
		b.succeeded(g)
		b.succeeded(g)
	}
	now = now.Add(time.Second)
	for range 5 {
		for _, g := range groups {
			b.failed(g, apiError("AccessDeniedException"))
		}
	}
	for _, g := range groups {
		require.False(t, isOpen(b, g), g.Group)
	}
}

func TestCircuitsOfTargetsThatAreNoMoreAreForgotten(t *testing.T) {
	var told []bool
	b := newBreaker(quiet, time.Now, nil)
	b.told = func(_ Target, open bool) { told = append(told, open) }
	wrong := Target{Role: awsclient.Role{ARN: "wrong"}, Group: "/a"}
	for range tripsAfter {
		b.failed(wrong, apiError("AccessDeniedException"))
	}
	b.keep(func(key groupKey) bool { return key.role.ARN != "wrong" })
	require.False(t, isOpen(b, wrong))
	require.Equal(t, []bool{true, false}, told)
	require.Zero(t, b.open.Load())
}

func TestOnlyWhatIsGuardedHasACircuitAndTheyAreBounded(t *testing.T) {
	b := newBreaker(quiet, time.Now, nil)
	b.guard = func(t Target) bool { return t.Group != "/eks/platform" }
	missing := apiError("ResourceNotFoundException")
	for range 5 {
		b.failed(Target{Group: "/eks/platform"}, missing)
	}
	require.False(t, isOpen(b, Target{Group: "/eks/platform"}))
	for i := range 2 * maxCircuits {
		b.failed(Target{Group: fmt.Sprint("/g", i)}, missing)
	}
	require.LessOrEqual(t, len(b.circuits), maxCircuits)
}
