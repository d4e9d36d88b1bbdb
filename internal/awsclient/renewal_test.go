package awsclient

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/cloudwatchlogs"
	"github.com/aws/smithy-go"
	"github.com/stretchr/testify/require"

	"github.com/eks-tenant-logs/eks-tenant-logs/internal/fakeaws"
)

// rotating is a stand-in on which credentials change, and what a client of it needs.
type rotating struct {
	*fakeaws.Server
	t     *testing.T
	url   string
	clock atomic.Int64 // what the client's clock is ahead of the real one, in ns

	mu       sync.Mutex
	signed   []string // the keys that calls of CloudWatch Logs were signed with
	renewals []Renewal
}

// rotation starts one with group /g and stream s. No credentials are in the environment.
func rotation(t *testing.T) *rotating {
	s, url := start(t, fakeaws.Config{})
	c, err := New(context.Background(), Config{Region: "us-east-1", Endpoint: url})
	require.NoError(t, err)
	_, err = c.CreateLogGroup(context.Background(), &cloudwatchlogs.CreateLogGroupInput{LogGroupName: aws.String("/g")})
	require.NoError(t, err)
	_, err = c.CreateLogStream(context.Background(), &cloudwatchlogs.CreateLogStreamInput{LogGroupName: aws.String("/g"), LogStreamName: aws.String("s")})
	require.NoError(t, err)
	for _, name := range []string{"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_ROLE_ARN", "AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_CONTAINER_CREDENTIALS_FULL_URI",
		"AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", "AWS_CONTAINER_AUTHORIZATION_TOKEN"} {
		t.Setenv(name, "")
	}
	t.Setenv("AWS_ENDPOINT_URL_STS", url)
	w := &rotating{Server: s, t: t, url: url}
	w.answer(nil)
	return w
}

// answer sets what calls of CloudWatch Logs are answered.
func (w *rotating) answer(f func(fakeaws.Call) error) {
	w.SetIntercept(func(c fakeaws.Call) error {
		if c.LogGroup == "" {
			return nil
		}
		w.mu.Lock()
		w.signed = append(w.signed, c.AccessKeyID)
		w.mu.Unlock()
		if f != nil {
			return f(c)
		}
		return nil
	})
}

func (w *rotating) now() time.Time { return time.Now().Add(time.Duration(w.clock.Load())) }

func (w *rotating) pass(d time.Duration) { w.clock.Add(int64(d)) }

// client is one whose configuration, but for the endpoints, is c's.
func (w *rotating) client(c Config) *Client {
	w.t.Helper()
	c.Region, c.Endpoint, c.STSEndpoint, c.Now = "us-east-1", w.url, w.url, w.now
	c.Renewed = func(r Renewal) {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.renewals = append(w.renewals, r)
	}
	client, err := New(context.Background(), c)
	require.NoError(w.t, err)
	return client
}

// put puts one event, once, as a sender does.
func (w *rotating) put(c *Client) error {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	_, err := c.Put(ctx, "/g", "s", Body{Bytes: fmt.Appendf(nil, `{"logGroupName":"/g","logStreamName":"s","logEvents":[{"timestamp":%d,"message":"x"}]}`, time.Now().UnixMilli())}, 1)
	return err
}

// last is the key of the last call of CloudWatch Logs.
func (w *rotating) last() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.signed[len(w.signed)-1]
}

func (w *rotating) causes() (all []Cause) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, r := range w.renewals {
		all = append(all, r.Cause)
	}
	return all
}

// refusedOnce wants a put that is refused, and says that another is worth it.
func (w *rotating) refusedOnce(c *Client) *RefusedError {
	w.t.Helper()
	var refused *RefusedError
	err := w.put(c)
	require.ErrorAs(w.t, err, &refused)
	require.True(w.t, refused.Again, "%v", err)
	require.Equal(w.t, ClassCredentials, Classify(err))
	return refused
}

func (w *rotating) user() fakeaws.Credentials {
	key, err := w.Account("123456789012").AddUser("agent")
	require.NoError(w.t, err)
	return key
}

func (w *rotating) rotate(old fakeaws.Credentials) fakeaws.Credentials {
	key, err := w.RotateKey(old.AccessKeyID)
	require.NoError(w.t, err)
	return key
}

func profileText(name string, c fakeaws.Credentials) string {
	text := fmt.Sprintf("[%s]\naws_access_key_id = %s\naws_secret_access_key = %s\n", name, c.AccessKeyID, c.SecretAccessKey)
	if c.SessionToken != "" {
		text += "aws_session_token = " + c.SessionToken + "\n"
	}
	return text
}

// writers are the ways in which another process replaces a file; each returns the path to read.
func writers(t *testing.T) map[string]func(text string) (path string) {
	dir := t.TempDir()
	write := func(path, text string) string {
		require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o700))
		require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
		return path
	}
	link := func(to, path string) {
		require.NoError(t, os.Symlink(to, path+".new"))
		require.NoError(t, os.Rename(path+".new", path))
	}
	n := 0
	return map[string]func(string) string{
		"in place": func(text string) string { return write(dir+"/in-place", text) },
		"renamed": func(text string) string {
			require.NoError(t, os.Rename(write(dir+"/next", text), dir+"/renamed"))
			return dir + "/renamed"
		},
		// As the kubelet does with a volume's files: file -> ..data/file, ..data -> a new folder.
		"a volume's link": func(text string) string {
			n++
			folder := fmt.Sprintf("..version-%d", n)
			write(dir+"/volume/"+folder+"/file", text)
			link(folder, dir+"/volume/..data")
			if n == 1 {
				link("..data/file", dir+"/volume/file")
			}
			return dir + "/volume/file"
		},
	}
}

func TestAReplacedCredentialsFileIsReadAgain(t *testing.T) {
	for how, write := range writers(t) {
		t.Run(how, func(t *testing.T) {
			w := rotation(t)
			first := w.user()
			t.Setenv("AWS_SHARED_CREDENTIALS_FILE", write(profileText("default", first)))
			c := w.client(Config{})
			require.NoError(t, w.put(c))
			require.Equal(t, first.AccessKeyID, w.last())

			// The keys before still work: the file is seen by itself, a second later.
			second := w.rotate(first)
			write(profileText("default", second))
			w.pass(filesEvery)
			require.NoError(t, w.put(c))
			require.Equal(t, second.AccessKeyID, w.last())

			// They are refused before that second is over: one refusal, and the next call has others.
			third := w.rotate(second)
			write(profileText("default", third))
			w.RetireKey(second.AccessKeyID)
			w.pass(2 * askGap)
			w.looked(c)
			_ = w.refusedOnce(c)
			require.NoError(t, w.put(c))
			require.Equal(t, third.AccessKeyID, w.last())
			require.Equal(t, []Cause{CauseFirst, CauseChanged, CauseChanged}, w.causes())
		})
	}
}

// looked pretends that the files were looked at just now.
func (w *rotating) looked(c *Client) { c.identity.looked.Store(w.now().UnixNano()) }

// A call that creates or describes something is made again by the SDK's retries, with the new keys.
func TestCallsThatTheSDKRepeatsDoNotFailForRotatedKeys(t *testing.T) {
	w := rotation(t)
	write := writers(t)["renamed"]
	first := w.user()
	t.Setenv("AWS_SHARED_CREDENTIALS_FILE", write(profileText("team", first)))
	c := w.client(Config{Profile: "team"})
	require.NoError(t, w.put(c))
	write(profileText("team", w.rotate(first)))
	w.RetireKey(first.AccessKeyID)
	w.looked(c)
	_, err := c.DescribeLogGroups(context.Background(), &cloudwatchlogs.DescribeLogGroupsInput{})
	require.NoError(t, err)
	require.Equal(t, 1, w.Calls()[fakeaws.CallKey{Operation: "-", Result: "UnrecognizedClientException"}]+w.Calls()[fakeaws.CallKey{Operation: "DescribeLogGroups", Result: "UnrecognizedClientException"}])
}

// A key's secret that was changed: AWS calls the signature wrong.
func TestAChangedSecretIsReadAgain(t *testing.T) {
	w := rotation(t)
	write := writers(t)["in place"]
	key := w.user()
	t.Setenv("AWS_SHARED_CREDENTIALS_FILE", write(profileText("default", key)))
	c := w.client(Config{})
	require.NoError(t, w.put(c))
	key, err := w.ChangeSecret(key.AccessKeyID)
	require.NoError(t, err)
	write(profileText("default", key))
	w.looked(c)
	_ = w.refusedOnce(c)
	require.NoError(t, w.put(c))
}

// While a file is being written it may be empty, or without the profile: the chain would go on
// to what the machine offers, and the node write as another identity.
func TestAHalfWrittenFileLeadsToNoOtherIdentity(t *testing.T) {
	w := rotation(t)
	agent, err := w.StartPodIdentityAgent("arn:aws:iam::123456789012:role/node", "")
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, agent.Stop()) })
	t.Setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", agent.URL())
	write := writers(t)["in place"]
	first := w.user()
	t.Setenv("AWS_SHARED_CREDENTIALS_FILE", write(profileText("default", first)))
	c := w.client(Config{})
	write("")
	require.ErrorContains(t, w.put(c), "there are no credentials any more in profile default in ", "the first time that they are needed")
	write(profileText("default", first))
	w.pass(maxAskGap)
	require.NoError(t, w.put(c))
	for _, text := range []string{"", "[default]\naws_access_key_id = AKIA\n", "[other]\n", "[default"} {
		write(text)
		w.pass(maxAskGap)
		require.NoError(t, w.put(c), text)
		require.Equal(t, first.AccessKeyID, w.last(), text)
	}
	require.Zero(t, agent.Asked())
	second := w.rotate(first)
	write(profileText("default", second))
	w.pass(filesEvery)
	require.NoError(t, w.put(c))
	require.Equal(t, second.AccessKeyID, w.last())
}

// Without an Expiration the SDK takes what a credential_process prints for ever.
func TestACredentialProcessIsRunAgainWhenItsKeysAreRefused(t *testing.T) {
	w := rotation(t)
	dir := t.TempDir()
	output := func(c fakeaws.Credentials) {
		require.NoError(t, os.WriteFile(dir+"/keys", fmt.Appendf(nil, `{"Version":1,"AccessKeyId":%q,"SecretAccessKey":%q}`, c.AccessKeyID, c.SecretAccessKey), 0o600))
	}
	first := w.user()
	output(first)
	require.NoError(t, os.WriteFile(dir+"/config", fmt.Appendf(nil, "[default]\ncredential_process = cat %s/keys\n", dir), 0o600))
	t.Setenv("AWS_CONFIG_FILE", dir+"/config")
	c := w.client(Config{})
	require.NoError(t, w.put(c))
	second := w.rotate(first)
	output(second)
	w.RetireKey(first.AccessKeyID)
	w.pass(askGap * 2)
	refused := w.refusedOnce(c)
	require.Equal(t, "the credential_process of profile default in "+dir+"/config", refused.Source)
	require.NoError(t, w.put(c))
	require.Equal(t, second.AccessKeyID, w.last())
}

// The environment of a process can't change; the error says so, and names what can be done.
func TestKeysOfTheEnvironmentThatAreRefusedSayWhatToDo(t *testing.T) {
	w := rotation(t)
	key := w.user()
	t.Setenv("AWS_ACCESS_KEY_ID", key.AccessKeyID)
	t.Setenv("AWS_SECRET_ACCESS_KEY", key.SecretAccessKey)
	c := w.client(Config{})
	require.NoError(t, w.put(c))
	w.RetireKey(key.AccessKeyID)
	w.pass(time.Hour)
	err := w.put(c)
	var refused *RefusedError
	require.ErrorAs(t, err, &refused)
	require.False(t, refused.Again)
	require.Equal(t, "UnrecognizedClientException: The security token included in the request is invalid. (credentials of AWS_ACCESS_KEY_ID in the environment); "+
		"the environment of a process can't change: restart it with valid keys, or use a role or a shared credentials file, which are read again", Brief(err))
}

const logsRole, otherRole = "arn:aws:iam::123456789012:role/logs", "arn:aws:iam::123456789012:role/other"

// assuming is a client whose own keys assume roles.
func (w *rotating) assuming() (own *Client, key fakeaws.Credentials, write func(string) string) {
	write = writers(w.t)["renamed"]
	key = w.user()
	w.t.Setenv("AWS_SHARED_CREDENTIALS_FILE", write(profileText("default", key)))
	return w.client(Config{}), key, write
}

func TestASessionThatEndedEarlyIsReplacedForItsRoleAlone(t *testing.T) {
	for how, end := range map[string]func(*fakeaws.Server) int{
		"expired": func(s *fakeaws.Server) int { return s.ExpireSessions(logsRole) },
		"revoked": func(s *fakeaws.Server) int { return s.RevokeSessions(logsRole) },
	} {
		t.Run(how, func(t *testing.T) {
			w := rotation(t)
			own, _, _ := w.assuming()
			tenant, other := own.As(Role{ARN: logsRole}), own.As(Role{ARN: otherRole})
			require.NoError(t, w.put(tenant))
			require.NoError(t, w.put(other))
			w.pass(maxAskGap)
			require.Equal(t, 1, end(w.Server))
			refused := w.refusedOnce(tenant)
			require.Equal(t, "role "+logsRole, refused.Source)
			require.Eventually(t, func() bool { return w.put(tenant) == nil }, 10*time.Second, time.Millisecond)
			require.NoError(t, w.put(other))
			roles := []string{}
			for _, r := range w.AssumedRoles() {
				roles = append(roles, r.RoleARN)
			}
			require.Equal(t, []string{logsRole, otherRole, logsRole}, roles, "one more session, and only of the role whose ended")
		})
	}
}

// What a role is assumed with may be what was rotated.
func TestARoleIsAssumedWithKeysThatWereRotated(t *testing.T) {
	w := rotation(t)
	own, key, write := w.assuming()
	tenant := own.As(Role{ARN: logsRole})
	require.NoError(t, w.put(tenant))
	w.pass(maxAskGap)
	write(profileText("default", w.rotate(key)))
	w.RetireKey(key.AccessKeyID)
	w.ExpireSessions(logsRole)
	w.looked(own)
	_ = w.refusedOnce(tenant)
	require.NoError(t, w.put(tenant))
	require.Equal(t, 1, w.CallCount("AssumeRole")-len(w.AssumedRoles()), "STS refused the old key once, and the SDK's retry had the new one")
}

func TestAWebIdentityTokenThatIsRotatedLateIsUsedOnceItIsThere(t *testing.T) {
	w := rotation(t)
	token := func(life time.Duration) string {
		return w.WebIdentityToken("https://oidc.example/1", "system:serviceaccount:logs:fb", "sts.amazonaws.com", life)
	}
	write := writers(t)["a volume's link"]
	t.Setenv("AWS_ROLE_ARN", logsRole)
	file := write(token(time.Hour))
	t.Setenv("AWS_WEB_IDENTITY_TOKEN_FILE", file)
	c := w.client(Config{})
	require.NoError(t, w.put(c))
	w.pass(maxAskGap)
	write(token(-time.Second)) // what STS takes no more
	w.ExpireSessions(logsRole)
	_ = w.refusedOnce(c)
	for range 20 {
		err := w.put(c)
		require.Equal(t, ClassCredentials, Classify(err), "%v", err)
		w.pass(askGap / 100)
	}
	require.Equal(t, 2, w.CallCount("AssumeRoleWithWebIdentity"), "STS is not asked for each call")
	require.Contains(t, Brief(w.put(c)), "(credentials of role "+logsRole+" with the web identity token "+file+"); check that the kubelet renews the token")
	write(token(time.Hour))
	w.pass(filesEvery)
	require.NoError(t, w.put(c), "the file has changed: STS is asked at once")
	require.Equal(t, 3, w.CallCount("AssumeRoleWithWebIdentity"))
}

func TestAPodIdentityAgentThatRestartsIsAskedAgain(t *testing.T) {
	w := rotation(t)
	write := writers(t)["a volume's link"]
	agent, err := w.StartPodIdentityAgent(logsRole, "token-1")
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, agent.Stop()) })
	t.Setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", agent.URL())
	t.Setenv("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", write("token-1"))
	c := w.client(Config{})
	require.NoError(t, w.put(c))
	first := w.last()

	// Away while its session is good: nothing is noticed, before and after the time to renew it.
	require.NoError(t, agent.Stop())
	require.NoError(t, w.put(c))
	w.pass(podSessionLife - renewBefore)
	for range 5 {
		require.NoError(t, w.put(c))
		w.pass(10 * time.Second)
	}
	w.settled(c)
	require.Equal(t, first, w.last())

	// Away, and the session has ended: the call fails, and says who is away.
	w.ExpireSessions(logsRole)
	w.pass(maxAskGap * 2)
	_ = w.refusedOnce(c)
	require.Error(t, w.put(c))
	w.pass(podSessionLife)
	err = w.put(c)
	require.Equal(t, ClassCredentials, Classify(err))
	require.Contains(t, Brief(err), "no usable AWS credentials from the credentials endpoint "+agent.URL()+": ")
	require.Contains(t, Brief(err), "connection refused; check that EKS Pod Identity's agent runs on the node")

	// Back, with trouble of its own, and another token.
	agent.Fail(http.StatusInternalServerError)
	require.NoError(t, agent.Start())
	w.pass(maxAskGap * 2)
	require.Equal(t, ClassCredentials, Classify(w.put(c)))
	agent.Fail(0)
	agent.Expect("token-2")
	w.pass(maxAskGap * 2)
	require.Equal(t, ClassCredentials, Classify(w.put(c)), "the old token")
	write("token-2")
	w.pass(filesEvery)
	require.NoError(t, w.put(c))
}

const podSessionLife = 6 * time.Hour

// settled waits for what is asked for in the background.
func (w *rotating) settled(c *Client) {
	require.Eventually(w.t, func() bool {
		c.identity.mu.Lock()
		defer c.identity.mu.Unlock()
		return c.identity.asking == nil
	}, 10*time.Second, time.Millisecond)
}

// A session is renewed before it ends, once, and no call waits for it.
func TestASessionIsRenewedBeforeItEnds(t *testing.T) {
	w := rotation(t)
	own, _, _ := w.assuming()
	c := own.As(Role{ARN: logsRole})
	require.NoError(t, w.put(c))
	w.pass(11 * time.Minute) // the SDK asks for 15 minutes
	require.NoError(t, w.put(c))
	require.Len(t, w.AssumedRoles(), 1)
	w.pass(time.Minute)
	require.NoError(t, w.put(c))
	w.settled(c)
	require.NoError(t, w.put(c))
	require.Len(t, w.AssumedRoles(), 2)
	require.Equal(t, w.AssumedRoles()[1].AccessKeyID, w.last())
}

// A clock that is ahead makes each session look as if it had ended: the SDK asks STS for each call.
func TestAClockThatIsAheadDoesNotAskSTSForEachCall(t *testing.T) {
	w := rotation(t)
	w.pass(2 * time.Hour)
	own, _, _ := w.assuming()
	c := own.As(Role{ARN: logsRole})
	for range 20 {
		require.NoError(t, w.put(c))
	}
	require.Len(t, w.AssumedRoles(), 1)
}

// STS hands out sessions that CloudWatch refuses, each and every one.
func TestSTSIsAskedSeldomWhileItsSessionsAreRefused(t *testing.T) {
	w := rotation(t)
	own, _, _ := w.assuming()
	c := own.As(Role{ARN: logsRole})
	w.answer(func(fakeaws.Call) error {
		return &fakeaws.APIError{Code: "ExpiredTokenException", Message: "The security token included in the request is expired"}
	})
	var again, renewed int
	for range 1200 { // ten minutes
		var refused *RefusedError
		require.ErrorAs(t, w.put(c), &refused)
		if refused.Again {
			again++
		}
		if refused.Renewed {
			renewed++
		}
		w.pass(500 * time.Millisecond)
	}
	n := len(w.AssumedRoles())
	t.Logf("%d sessions in ten minutes of 1,200 calls", n)
	require.LessOrEqual(t, n, 28, "two seconds, growing to a minute, less a quarter")
	require.GreaterOrEqual(t, n, 8)
	require.LessOrEqual(t, again, n)
	require.Greater(t, renewed, 500, "each that was made")
	w.answer(nil)
	w.pass(trialEvery)
	require.NoError(t, w.put(c), "and what it hands out is tried all the same")
}

// What is refused is not sent again and again: a trial a second, and the rest fails at once.
func TestRefusedCredentialsAreTriedOnceASecond(t *testing.T) {
	w := rotation(t)
	own, key, write := w.assuming()
	require.NoError(t, w.put(own))
	w.RetireKey(key.AccessKeyID)
	calls := 0
	for range 100 { // ten seconds
		err := w.put(own)
		require.Equal(t, ClassCredentials, Classify(err))
		require.False(t, Unanswered(err))
		require.Contains(t, Brief(err), "UnrecognizedClientException: The security token included in the request is invalid. (credentials of profile default in ")
		w.pass(100 * time.Millisecond)
	}
	for k, n := range w.Calls() {
		if k.Result == "UnrecognizedClientException" {
			calls += n
		}
	}
	t.Logf("%d calls of 100", calls)
	require.LessOrEqual(t, calls, 20)
	require.GreaterOrEqual(t, calls, 8)
	write(profileText("default", w.user()))
	w.pass(filesEvery)
	for range 5 {
		require.NoError(t, w.put(own))
	}
}

// Most denials are the policies'. A session is suspected seldom.
func TestADenialThatLastsAsksForFewSessions(t *testing.T) {
	w := rotation(t)
	own, _, _ := w.assuming()
	c := own.As(Role{ARN: logsRole})
	require.NoError(t, w.put(c))
	n := 0
	w.answer(func(fakeaws.Call) error {
		if n++; n%3 == 0 {
			return nil // others' groups
		}
		return &fakeaws.APIError{Code: "AccessDeniedException", Message: "no"}
	})
	denied := 0
	for range 1200 { // an hour
		if err := w.put(c); Classify(err) == ClassDenied {
			denied++
		}
		w.pass(3 * time.Second)
	}
	w.settled(c)
	t.Logf("%d sessions in an hour, %d of 800 denials told as such: %v", len(w.AssumedRoles()), denied, w.causes())
	require.LessOrEqual(t, len(w.AssumedRoles()), 16, "six for the denials, and those that end")
	require.Greater(t, denied, 700)
}

// A denial of what was never allowed says nothing of the session, and neither of keys that are no session's.
func TestADenialOfAFreshSessionIsADenial(t *testing.T) {
	w := rotation(t)
	own, _, _ := w.assuming()
	w.answer(func(fakeaws.Call) error { return &fakeaws.APIError{Code: "AccessDeniedException", Message: "no"} })
	c := own.As(Role{ARN: logsRole})
	require.Equal(t, ClassDenied, Classify(w.put(c)))
	require.Len(t, w.AssumedRoles(), 1)
	w.answer(nil)
	require.NoError(t, w.put(own))
	w.answer(func(fakeaws.Call) error { return &fakeaws.APIError{Code: "AccessDeniedException", Message: "no"} })
	require.Equal(t, ClassDenied, Classify(w.put(own)))
}

// The clock's trouble is not the credentials'.
func TestASignatureThatIsRefusedForItsTimeRenewsNothing(t *testing.T) {
	w := rotation(t)
	own, _, _ := w.assuming()
	c := own.As(Role{ARN: logsRole})
	require.NoError(t, w.put(c))
	w.pass(maxAskGap)
	w.answer(func(fakeaws.Call) error {
		return &fakeaws.APIError{Code: "InvalidSignatureException", Message: "Signature expired: 20260101T000000Z is now earlier than 20260101T020000Z (20260101T020500Z - 5 min.)"}
	})
	err := w.put(c)
	require.Equal(t, ClassCredentials, Classify(err))
	var refused *RefusedError
	require.False(t, errors.As(err, &refused))
	require.NotContains(t, w.causes(), CauseRefused)
}

// Many calls at once that find the same session refused ask once.
func TestManyRefusedCallsAskOnce(t *testing.T) {
	w := rotation(t)
	own, _, _ := w.assuming()
	c := own.As(Role{ARN: logsRole})
	require.NoError(t, w.put(c))
	w.pass(maxAskGap)
	w.ExpireSessions(logsRole)
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			for range 3 {
				if w.put(c) == nil {
					return
				}
			}
			t.Error("refused three times")
		})
	}
	wg.Wait()
	require.Len(t, w.AssumedRoles(), 2)
}

// A call that was refused, and comes to ask when others have just been got, does not ask again: it
// goes by what there is when it asks, not by what there was when it began.
func TestACallThatComesLateAsksNoMore(t *testing.T) {
	w := rotation(t)
	own, _, _ := w.assuming()
	c := own.As(Role{ARN: logsRole})
	require.NoError(t, w.put(c))
	r := c.identity
	before := r.cur.Load()
	w.pass(maxAskGap)
	w.ExpireSessions(logsRole)
	require.NotNil(t, w.refusedOnce(c))
	require.NoError(t, w.put(c))
	require.NotSame(t, before, r.cur.Load())
	require.Nil(t, r.begin(CauseRefused, before, unchanged))
	again, _ := r.refused(before.AccessKeyID, &smithy.GenericAPIError{Code: "ExpiredTokenException"})
	require.True(t, again, "the next call is signed with the others")
	require.False(t, r.cur.Load().refused.Load())
	require.Len(t, w.AssumedRoles(), 2)
}

// What a log line says of where the credentials come from.
func TestEachSourceIsNamed(t *testing.T) {
	for name, test := range map[string]struct {
		config string
		env    map[string]string
		want   string
	}{
		"keys of a profile":   {"[default]\naws_access_key_id=a\naws_secret_access_key=b\n", nil, "profile default in FILE"},
		"a profile's role":    {"[default]\nrole_arn=" + logsRole + "\nsource_profile=base\n[profile base]\naws_access_key_id=a\naws_secret_access_key=b\n", nil, "role " + logsRole + " of profile default in FILE"},
		"a process":           {"[default]\ncredential_process=true\n", nil, "the credential_process of profile default in FILE"},
		"a profile's token":   {"[default]\nrole_arn=" + logsRole + "\nweb_identity_token_file=/t\n", nil, "role " + logsRole + " with the web identity token /t of profile default in FILE"},
		"a profile's source":  {"[default]\nrole_arn=" + logsRole + "\ncredential_source=Environment\n", map[string]string{"AWS_CONTAINER_CREDENTIALS_FULL_URI": "http://127.0.0.1/x"}, "role " + logsRole + " by the credential_source Environment of profile default in FILE"},
		"a login":             {"[default]\nsso_session=s\nsso_account_id=1\nsso_role_name=r\n[sso-session s]\nsso_region=us-east-1\nsso_start_url=https://x\n", nil, "the login of profile default in FILE"},
		"Pod Identity":        {"", map[string]string{"AWS_CONTAINER_CREDENTIALS_FULL_URI": "http://127.0.0.1/x"}, "the credentials endpoint http://127.0.0.1/x"},
		"IRSA":                {"", map[string]string{"AWS_ROLE_ARN": logsRole, "AWS_WEB_IDENTITY_TOKEN_FILE": "/t"}, "role " + logsRole + " with the web identity token /t"},
		"the environment":     {"", map[string]string{"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b"}, "AWS_ACCESS_KEY_ID in the environment"},
		"what is left to ask": {"", nil, "EC2's instance metadata"},
	} {
		t.Run(name, func(t *testing.T) {
			environment(t)
			file := t.TempDir() + "/config"
			require.NoError(t, os.WriteFile(file, []byte(test.config), 0o600))
			for _, unset := range []string{"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_ROLE_ARN", "AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_CONTAINER_CREDENTIALS_FULL_URI", "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI"} {
				t.Setenv(unset, test.env[unset])
			}
			t.Setenv("AWS_CONFIG_FILE", file)
			c, err := New(context.Background(), Config{Region: "us-east-1"})
			require.NoError(t, err)
			require.Equal(t, strings.ReplaceAll(test.want, "FILE", file), c.identity.source.name())
			require.NotEmpty(t, c.identity.source.remedy())
		})
	}
}
