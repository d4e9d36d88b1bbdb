package awsclient

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/smithy-go"
	"github.com/aws/smithy-go/middleware"
	smithyhttp "github.com/aws/smithy-go/transport/http"
)

const (
	// sameTime is by how much two answers may differ and still tell the same time: AWS's hosts have
	// clocks of their own.
	sameTime = 2 * time.Second
	// clockNoise is the least difference between the two clocks that counts: Date has whole
	// seconds, and an answer is on its way for a while.
	clockNoise = 5 * time.Second
	// signatureWindow is how far the time of a signature may be from AWS's clock (IAM User Guide,
	// "Troubleshoot Signature Version 4": 5 minutes), less a minute.
	signatureWindow = 4 * time.Minute
)

// Clock is AWS's clock, as its answers tell it by their Date. It may be used by many goroutines.
//
// It keeps AWS's time beside this machine's monotonic clock, so that a step of the machine's
// clock changes what Skew says at once and nothing of what Now says.
type Clock struct {
	now     func() time.Time     // this machine's clock, which may be set
	elapsed func() time.Duration // since the Clock was made, whatever is set

	mu     sync.Mutex
	told   bool
	origin time.Time // AWS's clock when the Clock was made
	doubt  *span     // the last answer, where it told another time
}

// span is between which times AWS's clock was when a Clock was made, according to one answer.
type span struct{ low, high time.Time }

func (s span) middle() time.Time { return s.low.Add(s.high.Sub(s.low) / 2) }

// has reports whether a time is within the span, or so little beside it that it is the same time.
func (s span) has(t time.Time) bool {
	return !t.Before(s.low.Add(-sameTime)) && !t.After(s.high.Add(sameTime))
}

// NewClock makes a Clock that no answer has told anything yet; now is this machine's clock.
func NewClock(now func() time.Time) *Clock {
	start := now() // with its monotonic reading
	return &Clock{now: now, elapsed: func() time.Duration { return now().Sub(start) }}
}

// Skew is how far this machine's clock is ahead of AWS's; negative where it is behind. It is 0
// before the first answer, and where the difference is less than an answer can tell (5 s).
func (c *Clock) Skew() time.Duration {
	skew, _ := c.Told()
	return skew
}

// Told is Skew, and false before the first answer.
func (c *Clock) Told() (skew time.Duration, ok bool) {
	now, elapsed := c.now(), c.elapsed()
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.told {
		return 0, false
	}
	skew = now.Round(0).Sub(c.origin.Add(elapsed))
	if skew.Abs() < clockNoise {
		skew = 0
	}
	return skew, true
}

// Now is AWS's time, as well as it is known.
func (c *Clock) Now() time.Time {
	skew := c.Skew()
	return c.now().Round(0).Add(-skew)
}

// heard takes in the Date of an answer to a request that was begun and ended at these times of
// elapsed. The first answer is believed; later, a time that differs from what is known is
// believed when a second answer in a row tells the same: one host may be wrong.
func (c *Clock) heard(date time.Time, begun, ended time.Duration) {
	if ended-begun > answerTimeout {
		return // it tells too little
	}
	here := c.now().Round(0).Add(-ended) // this machine's clock when the Clock was made
	c.mu.Lock()
	defer c.mu.Unlock()
	// The clock was at Date, or less than a second later, at some moment of the call: however long
	// the call took, that is no skew.
	said := span{date.Add(-ended), date.Add(time.Second - begun)}
	switch {
	case c.told && said.has(c.origin):
		c.doubt = nil
		return
	case c.told && (c.doubt == nil || !said.has(c.doubt.middle()) && !c.doubt.has(said.middle())):
		c.doubt = &said
		return
	}
	c.told, c.doubt = true, nil
	if c.origin = here; !said.has(here) {
		c.origin = said.middle()
	}
}

// watch is an option of a client: it has every answer of AWS's heard, and marks refusals of
// signatures for their time.
func (c *Clock) watch(s *middleware.Stack) error {
	return s.Deserialize.Add(clockMiddleware{c}, middleware.Before)
}

type clockMiddleware struct{ clock *Clock }

func (clockMiddleware) ID() string { return "AWSClock" }

func (m clockMiddleware) HandleDeserialize(ctx context.Context, in middleware.DeserializeInput, next middleware.DeserializeHandler) (middleware.DeserializeOutput, middleware.Metadata, error) {
	begun := m.clock.elapsed()
	out, metadata, err := next.HandleDeserialize(ctx, in)
	answer, ok := out.RawResponse.(*smithyhttp.Response)
	if !ok || answer == nil {
		return out, metadata, err
	}
	date, ok := awsDate(answer.Header)
	if !ok {
		return out, metadata, err
	}
	m.clock.heard(date, begun, m.clock.elapsed())
	if request, ok := in.Request.(*smithyhttp.Request); ok && err != nil && refusesSignature(err) {
		signed, bad := time.Parse("20060102T150405Z", request.Header.Get("X-Amz-Date"))
		if bad == nil && signed.Sub(date).Abs() > signatureWindow {
			err = &signedAtWrongTime{Err: err, Ahead: signed.Sub(date)}
		}
	}
	return out, metadata, err
}

// awsDate is the Date of an answer that AWS made itself: a proxy's page bears no request id, and
// what a cache kept bears its Age.
func awsDate(h http.Header) (time.Time, bool) {
	if h.Get("X-Amzn-Requestid") == "" || h.Get("Age") != "" {
		return time.Time{}, false
	}
	at, err := http.ParseTime(h.Get("Date"))
	return at, err == nil
}

// refusesSignature reports whether an error is one of those that a signature of the wrong time
// gets. They are told for a wrong key as well.
func refusesSignature(err error) bool {
	var api smithy.APIError
	if !errors.As(err, &api) {
		return false
	}
	switch api.ErrorCode() {
	case "InvalidSignatureException", "SignatureDoesNotMatch", "RequestExpired", "RequestTimeTooSkewed", "AuthFailure":
		return true
	}
	return false
}

// signedAtWrongTime is a refusal of a signature that was made for a time which is not AWS's. The
// SDK's retryers take it for one that the next attempt may mend: it is signed anew.
type signedAtWrongTime struct {
	Err error
	// Ahead is how far the signature's time was ahead of AWS's.
	Ahead time.Duration
}

func (e *signedAtWrongTime) Error() string {
	return fmt.Sprintf("%v (the request was signed for a time %v from AWS's)", e.Err, e.Ahead)
}

func (e *signedAtWrongTime) Unwrap() error { return e.Err }

// RetryableError is true: retry.RetryableError asks for it.
func (e *signedAtWrongTime) RetryableError() bool { return true }

// Clock is AWS's clock, as the answers to this client and to its other identities told it.
func (c *Client) Clock() *Clock { return c.clock }

// putRetryer repeats a PutLogEvents where its signature was refused for its time and nothing
// else: such a call has delivered nothing. The second attempt knows AWS's time; the third is for
// a time that was known and is so no more.
type putRetryer struct{ aws.NopRetryer }

func (putRetryer) IsErrorRetryable(err error) bool {
	var credentials *RefusedError // others may be had: the flush that comes next uses them
	var again interface{ RetryableError() bool }
	return !errors.As(err, &credentials) && refusesSignature(err) && errors.As(err, &again) && again.RetryableError()
}

func (putRetryer) MaxAttempts() int { return 3 }

func (putRetryer) RetryDelay(int, error) (time.Duration, error) { return 0, nil }

func (putRetryer) GetRetryToken(context.Context, error) (func(error) error, error) {
	return func(error) error { return nil }, nil
}
