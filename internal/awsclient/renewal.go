package awsclient

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials/stscreds"
	"github.com/aws/smithy-go"
	"github.com/aws/smithy-go/middleware"
	smithyhttp "github.com/aws/smithy-go/transport/http"
)

// The SDK caches what its chain found: for ever where no expiry was stated, as with the keys of a
// profile, and else until the stated expiry, whatever AWS answers meanwhile. A renewal takes that
// cache's place. It asks the source anew when the source's files change, when AWS refuses what the
// source handed out, and before the expiry.
//
// How often a source is asked is bounded for each identity:
const (
	// askGap is how long a source is left alone after an answer. After steadyAsks answers without
	// credentials that AWS accepts it doubles with each further one, to maxAskGap: a role that was
	// just made can be assumed after some seconds, and an agent restarts in some. It is jittered by
	// a quarter. A thousand nodes then make 17 calls a second; STS takes 600 a second for an account
	// and region (IAM User Guide, "IAM and AWS STS quotas").
	askGap     = 2 * time.Second
	maxAskGap  = time.Minute
	steadyAsks = 4
	// askTimeout is how long one attempt to get credentials may take, the SDK's retries included.
	askTimeout = time.Minute
	// filesEvery is how often the files of a source are looked at, by stat.
	filesEvery = time.Second
	// renewBefore is how long before its expiry a session is renewed, in the background: AWS's
	// agents hand out the next session at least five minutes before the expiry of the last (EKS
	// and EC2 user guides). Of a short session it is one part in renewPart, for AssumeRole's 15
	// minutes are asked for by many nodes. renewAgain is the least wait before the next attempt.
	renewBefore = 5 * time.Minute
	renewPart   = 5
	renewAgain  = time.Minute
	// mistimed is when a session is renewed that is past its expiry on arrival: this machine's
	// clock is ahead, and only AWS can tell when the session has ended.
	mistimed = 10 * time.Minute
	// trialEvery is how often a call is made with credentials that AWS refuses and whose source has
	// no others. What is not tried fails without a call: a refused call costs as much as another,
	// its body included, and everything that a node holds would be sent again and again.
	trialEvery = time.Second
	// deniedGap is how long a session is not suspected again of having been revoked, because a
	// call was denied. It doubles to maxDeniedGap: most denials are the policies'.
	deniedGap    = time.Minute
	maxDeniedGap = time.Hour
)

// Cause is why credentials were asked for.
type Cause string

// Causes of a Renewal.
const (
	CauseFirst    Cause = "first"    // there were none
	CauseExpiring Cause = "expiring" // the present ones end soon, or have ended
	CauseChanged  Cause = "changed"  // a file that they come from changed
	CauseRefused  Cause = "refused"  // AWS refused the present ones
	CauseDenied   Cause = "denied"   // a call was denied, as it is when a session was revoked
)

// Renewal is one attempt to get credentials from their source.
type Renewal struct {
	// Role is the role that is assumed; empty for the credentials to begin with.
	Role string
	// Source names where the credentials come from.
	Source string
	Cause  Cause
	// Other says that other credentials were had than before.
	Other bool
	// Err is why none were had. The present ones stay in use while AWS accepts them.
	Err error
}

// source hands out the credentials of one identity. It remembers none.
type source interface {
	ask(ctx context.Context) (aws.Credentials, error)
	// name names the source, and remedy says what an operator can do when it is refused.
	name() string
	remedy() string
	// look compares the source's files with those that were last read.
	look() change
	// fixed says that the source can't hand out anything else in this process's life.
	fixed() bool
}

// change is what happened to a source since it was asked.
type change uint8

const (
	unchanged change = iota
	// askable: what the source asks with is another, as a token. Worth an attempt where the last failed.
	askable
	// replaced: the files that hold the credentials, or say where they come from, are others.
	replaced
)

// held are credentials in use.
type held struct {
	aws.Credentials
	got            time.Time
	renew, expires time.Time // zero: never
	renewed        bool      // asked for because those before were refused
	refused        atomic.Bool
	worked         atomic.Bool
}

func (h *held) over(now time.Time) bool { return !h.expires.IsZero() && !now.Before(h.expires) }

func (h *held) same(c aws.Credentials) bool {
	return h.AccessKeyID == c.AccessKeyID && h.SecretAccessKey == c.SecretAccessKey && h.SessionToken == c.SessionToken
}

// renewal provides the credentials of one identity. It may be used by many goroutines.
type renewal struct {
	role   string
	source source
	now    func() time.Time
	clock  *Clock        // AWS's: a session ends when AWS says so
	told   func(Renewal) // may be nil
	signer Signer

	cur     atomic.Pointer[held]
	looked  atomic.Int64 // when the files were last looked at, in ns since 1970
	trouble atomic.Bool  // it matters whether AWS accepts the present ones

	mu       sync.Mutex
	asking   chan struct{}          // closed at the end of the attempt under way; nil without one
	why      Cause                  // that attempt's
	asked    time.Time              // the end of the last attempt
	gap      time.Duration          // until the next
	attempts int                    // since credentials were last accepted
	err      error                  // the last attempt's
	answer   smithy.GenericAPIError // the last refusal
	trial    time.Time              // the next call with refused credentials
	denials  int
	lastDeny time.Time // when a denial last led to an attempt
}

func newRenewal(role string, s source, now func() time.Time, told func(Renewal)) *renewal {
	if now == nil {
		now = time.Now
	}
	return &renewal{role: role, source: s, now: now, told: told}
}

// identify has calls signed with a renewal's credentials, and the renewal see the answers.
func (c *Client) identify(r *renewal) {
	c.identity = r
	r.clock, r.signer.clock = c.clock, c.clock
	c.cfg.Credentials = r
	c.cfg.APIOptions = append(slices.Clip(c.cfg.APIOptions), r.install)
}

// assume is a role as this client's identity assumes it.
func (c *Client) assume(role Role) *renewal {
	by := stscreds.NewAssumeRoleProvider(c.stsClient(), role.ARN, func(o *stscreds.AssumeRoleOptions) {
		o.RoleSessionName = sessionName
		if role.ExternalID != "" {
			o.ExternalID = &role.ExternalID
		}
	})
	return newRenewal(role.ARN, &assumed{role: role.ARN, by: by, parent: c.identity}, c.identity.now, c.identity.told)
}

// byAWS is AWS's time at a time of this machine's clock.
func (r *renewal) byAWS(now time.Time) time.Time { return now.Add(-r.clock.Skew()) }

// Retrieve implements aws.CredentialsProvider. It waits for the source where there are no
// credentials, or AWS refused the present ones, or their files changed.
func (r *renewal) Retrieve(ctx context.Context) (aws.Credentials, error) {
	now := r.now()
	h := r.cur.Load()
	seen := r.look(now, filesEvery)
	switch {
	case h == nil:
		return r.need(ctx, r.begin(CauseFirst, h, seen))
	case h.over(r.byAWS(now)):
		return r.need(ctx, r.begin(CauseExpiring, h, seen))
	case seen == replaced:
		return r.want(ctx, r.begin(CauseChanged, h, seen))
	case h.refused.Load():
		c, err := r.want(ctx, r.begin(CauseRefused, h, seen))
		if err == nil && !r.try(now) {
			err = r.refusal()
		}
		return c, err
	case !h.renew.IsZero() && !r.byAWS(now).Before(h.renew):
		r.begin(CauseExpiring, h, seen)
	}
	return h.Credentials, nil
}

// want waits for an attempt, if there is one, and returns what there is then: the present
// credentials, where there are no others. AWS decides whether it takes them.
func (r *renewal) want(ctx context.Context, done <-chan struct{}) (aws.Credentials, error) {
	if done != nil {
		select {
		case <-done:
		case <-ctx.Done():
		}
	}
	return r.cur.Load().Credentials, nil
}

// try says whether a call may be made: not with credentials that AWS refuses, but for a trial from
// time to time.
func (r *renewal) try(now time.Time) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if h := r.cur.Load(); !h.refused.Load() {
		return true
	}
	if now.Before(r.trial) && r.trial.Sub(now) <= trialEvery {
		return false
	}
	r.trial = now.Add(trialEvery)
	return true
}

// refusal is the error of a call that is not made, for AWS refused the credentials before.
func (r *renewal) refusal() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	answer := r.answer
	return &RefusedError{Role: r.role, Source: r.source.name(), Remedy: r.source.remedy(), Err: &answer}
}

// need is want where there are none to fall back to.
func (r *renewal) need(ctx context.Context, done <-chan struct{}) (aws.Credentials, error) {
	if done != nil {
		select {
		case <-done:
		case <-ctx.Done():
			return aws.Credentials{}, r.none(fmt.Errorf("no answer yet: %w", ctx.Err()))
		}
	}
	if h := r.cur.Load(); h != nil && !h.over(r.byAWS(r.now())) {
		return h.Credentials, nil
	}
	r.mu.Lock()
	err := r.err
	r.mu.Unlock()
	if err == nil {
		err = errors.New("they have expired")
	}
	return aws.Credentials{}, r.none(err)
}

// none is the error where there are no credentials.
func (r *renewal) none(err error) error {
	var named *CredentialsError
	if errors.As(err, &named) {
		return err
	}
	return &CredentialsError{Role: r.role, Source: r.source.name(), Remedy: r.source.remedy(), Err: err}
}

// look asks the source whether it changed, at most once in every.
func (r *renewal) look(now time.Time, every time.Duration) change {
	last := r.looked.Load()
	if now.UnixNano()-last < int64(every) && now.UnixNano() >= last || !r.looked.CompareAndSwap(last, now.UnixNano()) {
		return unchanged
	}
	return r.source.look()
}

// begin starts an attempt because of the credentials h, and returns what is closed at its end: nil
// where the bound allows none now, or others have taken h's place. A source that changed is asked
// at once.
func (r *renewal) begin(why Cause, h *held, seen change) <-chan struct{} {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch free := seen == replaced || seen == askable && r.err != nil; {
	case r.asking != nil:
		return r.asking
	case seen == unchanged && r.cur.Load() != h:
		return nil
	case !free && !r.due(r.now()):
		return nil
	}
	return r.start(why)
}

// start starts an attempt where none is under way. The caller holds the lock.
func (r *renewal) start(why Cause) <-chan struct{} {
	done := make(chan struct{})
	r.asking, r.why = done, why
	go r.attempt(why, done)
	return done
}

// due says whether the bound allows an attempt. now was read under the lock, which the caller
// holds: an earlier time would look like a clock that was set back.
func (r *renewal) due(now time.Time) bool {
	return r.asked.IsZero() || now.Before(r.asked) || now.Sub(r.asked) >= r.gap
}

// attempt asks the source. It goes on without the call that needed it: others wait, too.
func (r *renewal) attempt(why Cause, done chan struct{}) {
	defer close(done)
	ctx, cancel := context.WithTimeout(context.Background(), askTimeout)
	defer cancel()
	c, err := r.safely(ctx)
	r.tell(r.finish(why, c, err))
}

// tell tells of an attempt; a panic in it must not end Fluent Bit either.
func (r *renewal) tell(attempt Renewal) {
	if r.told == nil {
		return
	}
	defer func() { _ = recover() }()
	r.told(attempt)
}

// safely asks the source; a panic in it must not end Fluent Bit.
func (r *renewal) safely(ctx context.Context) (c aws.Credentials, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("the source panicked: %v", p)
		}
	}()
	if c, err = r.source.ask(ctx); err == nil && !c.HasKeys() {
		err = errors.New("the source gave no keys")
	}
	return c, err
}

func (r *renewal) finish(why Cause, c aws.Credentials, err error) Renewal {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := r.now()
	told := Renewal{Role: r.role, Source: r.source.name(), Cause: why, Err: err}
	r.asking, r.asked, r.err = nil, now, err
	d := min(askGap<<min(max(r.attempts-steadyAsks, 0), 10), maxAskGap)
	r.gap = d*3/4 + rand.N(d/2+1)
	r.attempts++
	if err != nil {
		return told
	}
	old := r.cur.Load()
	h := &held{Credentials: c, got: now, renewed: why == CauseRefused}
	if c.CanExpire {
		now := r.byAWS(now)
		h.expires = c.Expires
		before := max(min(renewBefore, c.Expires.Sub(now)/renewPart), 0)
		h.renew = h.expires.Add(-before - rand.N(before/renewPart+1))
		if least := now.Add(renewAgain); h.renew.Before(least) {
			h.renew = least
		}
		if h.over(now) {
			h.expires, h.renew = time.Time{}, now.Add(mistimed)
		}
	}
	if old != nil && old.same(c) {
		h.got, h.renewed = old.got, old.renewed || h.renewed
		h.refused.Store(old.refused.Load())
		h.worked.Store(old.worked.Load())
	} else {
		told.Other = old != nil
	}
	r.cur.Store(h)
	r.trouble.Store(true)
	return told
}

// accepted notes that AWS took a signature: the credentials are good.
func (r *renewal) accepted(key func() string) {
	h := r.cur.Load()
	if h == nil || !r.trouble.Load() || h.AccessKeyID != key() {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.cur.Load() != h {
		return
	}
	h.worked.Store(true)
	h.refused.Store(false)
	if r.err == nil {
		r.attempts, r.gap = 0, min(r.gap, askGap)
	}
	r.trouble.Store(false)
}

// refused notes that AWS refused credentials. again says that the next call is signed with
// others, or with what the source says then; renewed, that the source had been asked for the
// refused ones because those before them were refused.
func (r *renewal) refused(key string, answer smithy.APIError) (again, renewed bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	h := r.cur.Load()
	switch {
	case h == nil:
		return false, false
	case h.AccessKeyID != key:
		return true, false
	}
	h.refused.Store(true)
	r.trouble.Store(true)
	r.answer = smithy.GenericAPIError{Code: answer.ErrorCode(), Message: answer.ErrorMessage(), Fault: answer.ErrorFault()}
	now := r.now()
	again = !r.source.fixed() && (r.asking != nil || r.due(now) || r.source.look() != unchanged)
	if again {
		r.looked.Store(0) // the next call looks at the files
	}
	return again, h.renewed
}

// denied notes that a call was denied. Where that may be because the session was revoked (its
// role then denies what is older than a moment), another is asked for, in the background: other
// calls may be allowed, and do not wait for it.
func (r *renewal) denied(key string) (again bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	h := r.cur.Load()
	switch {
	case h == nil:
		return false
	case h.AccessKeyID != key:
		return true
	case h.SessionToken == "" || r.source.fixed():
		return false
	case r.asking != nil:
		return r.why == CauseDenied
	}
	now := r.now()
	if !r.lastDeny.IsZero() && now.Sub(r.lastDeny) > 2*maxDeniedGap {
		r.denials = 0
	}
	gap := min(deniedGap<<min(r.denials, 10), maxDeniedGap)
	// Credentials that never worked are denied what they were never allowed.
	due := (h.worked.Load() || now.Sub(h.got) >= deniedGap) && (r.lastDeny.IsZero() || now.Sub(r.lastDeny) >= gap)
	if due {
		r.denials++
		r.lastDeny = now
		r.start(CauseDenied)
	}
	return due
}

// RefusedError says that AWS refused the credentials that a call was signed with, or may have.
type RefusedError struct {
	// Role is the role whose session was refused; empty for the credentials to begin with.
	Role string
	// Source names where they come from, and Remedy says what an operator can do.
	Source, Remedy string
	// Again says that the call is worth repeating: it will be signed with other credentials, or
	// with what their source says then.
	Again bool
	// Renewed says that these had been asked for because those before were refused.
	Renewed bool
	// Err is AWS's answer: to this call, or, where it was not made because of that, to one before.
	Err error
}

func (e *RefusedError) Error() string {
	return fmt.Sprintf("%s (credentials of %s); %s", Brief(e.Err), e.Source, e.Remedy)
}

// Class is ClassCredentials.
func (e *RefusedError) Class() Class { return ClassCredentials }

// RetryableError tells the SDK's retryer whether to make the call again, which signs it anew.
func (e *RefusedError) RetryableError() bool { return e.Again }

func (e *RefusedError) Unwrap() error { return e.Err }

// refusals are the codes by which AWS says that the credentials themselves are not good, in the
// names of the JSON and of the query services (Common Error Types; STS API Reference).
var refusals = map[string]bool{
	"ExpiredTokenException": true, "ExpiredToken": true, "TokenRefreshRequired": true,
	"UnrecognizedClientException": true, "InvalidClientTokenId": true, "InvalidToken": true,
	"InvalidSignatureException": true, "SignatureDoesNotMatch": true, // a key with another's secret
}

// aboutTime tells a signature that is refused for its date from one that is wrong: AWS's texts
// say which way the date is off.
func aboutTime(message string) bool {
	return strings.Contains(message, "is now earlier than") || strings.Contains(message, "is still later than")
}

// observer tells a renewal of each answer to a call that was signed with its credentials: each
// attempt, for it is inside the SDK's retries.
type observer struct{ r *renewal }

// ID names the middleware in the SDK's stack.
func (observer) ID() string { return "CredentialsRenewal" }

// install puts the observer into a call's stack, in the place of another identity's.
func (r *renewal) install(s *middleware.Stack) error {
	m := observer{r}
	if _, found := s.Deserialize.Get(m.ID()); found {
		_, err := s.Deserialize.Swap(m.ID(), m)
		return err
	}
	return s.Deserialize.Add(m, middleware.Before)
}

func (m observer) HandleDeserialize(ctx context.Context, in middleware.DeserializeInput, next middleware.DeserializeHandler) (middleware.DeserializeOutput, middleware.Metadata, error) {
	out, metadata, err := next.HandleDeserialize(ctx, in)
	return out, metadata, m.r.answered(func() string { return signedBy(in.Request) }, err)
}

// answered looks at an answer, and returns its error with what is known of the credentials.
func (r *renewal) answered(key func() string, err error) error {
	if err == nil {
		r.accepted(key)
		return nil
	}
	var api smithy.APIError
	var wrongTime *signedAtWrongTime
	if !errors.As(err, &api) || errors.As(err, &wrongTime) {
		return err
	}
	e := &RefusedError{Role: r.role, Err: err}
	switch class := codes[api.ErrorCode()]; {
	case refusals[api.ErrorCode()] && !aboutTime(api.ErrorMessage()):
		e.Again, e.Renewed = r.refused(key(), api)
	case class == ClassDenied:
		if e.Again = r.denied(key()); !e.Again {
			return err
		}
	case class == ClassNotFound || class == ClassExists || class == ClassConflict:
		r.accepted(key)
		return err
	default:
		return err
	}
	e.Source, e.Remedy = r.source.name(), r.source.remedy()
	return e
}

// signedBy is the id of the access key that a request was signed with; empty where it is not.
func signedBy(request any) string {
	r, ok := request.(*smithyhttp.Request)
	if !ok {
		return ""
	}
	_, rest, _ := strings.Cut(r.Header.Get("Authorization"), "Credential=")
	key, _, _ := strings.Cut(rest, "/")
	return key
}
