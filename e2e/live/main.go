// Command live asks a real AWS account what only AWS can tell, in log groups of its
// own, which it deletes at the end, and prints what it found beside what the project
// takes for true. It is run by hand (make live), never by CI, and costs cents.
//
// TENANTLOGS_LIVE_ACCOUNT must hold the account's number: it is compared with the
// credentials', so that nobody asks the wrong account by mistake.
package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/signal"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/service/cloudwatchlogs"
	"github.com/aws/aws-sdk-go-v2/service/cloudwatchlogs/types"
	"github.com/aws/aws-sdk-go-v2/service/sts"
	"github.com/klauspost/compress/gzip"

	"github.com/eks-tenant-logs/eks-tenant-logs/internal/awsclient"
	"github.com/eks-tenant-logs/eks-tenant-logs/internal/chunk"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, os.Getenv, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "make live:", err)
		os.Exit(2)
	}
}

// answer is what one question found.
type answer struct{ question, expected, found string }

// asker asks within groups under a prefix of its own.
type asker struct {
	client  *awsclient.Client
	cfg     aws.Config
	prefix  string
	emf     bool
	key     string   // a KMS key that may be disabled for some minutes
	made    []string // groups to delete
	answers []answer
}

func run(ctx context.Context, env func(string) string, out io.Writer) error {
	want := env("TENANTLOGS_LIVE_ACCOUNT")
	if want == "" {
		return errors.New("set TENANTLOGS_LIVE_ACCOUNT to the number of the AWS account to ask; log groups are created in it and deleted again")
	}
	endpoint := env("TENANTLOGS_LIVE_ENDPOINT") // a stand-in, to try this program itself
	cfg, err := config.LoadDefaultConfig(ctx)
	if err != nil {
		return fmt.Errorf("failed to load the AWS configuration: %w", err)
	}
	who, err := sts.NewFromConfig(cfg, func(o *sts.Options) {
		if endpoint != "" {
			o.BaseEndpoint = &endpoint
		}
	}).GetCallerIdentity(ctx, &sts.GetCallerIdentityInput{})
	if err != nil {
		return fmt.Errorf("failed to ask whose credentials these are: %w", err)
	}
	if aws.ToString(who.Account) != want {
		return fmt.Errorf("the credentials are of account %s, and TENANTLOGS_LIVE_ACCOUNT is %s", aws.ToString(who.Account), want)
	}
	client, err := awsclient.New(ctx, awsclient.Config{Endpoint: endpoint})
	if err != nil {
		return err
	}
	var id [6]byte
	if _, err := rand.Read(id[:]); err != nil {
		return fmt.Errorf("failed to make a name: %w", err)
	}
	a := &asker{client: client, prefix: "/tenantlogs-live/" + hex.EncodeToString(id[:]) + "/", cfg: cfg,
		emf: env("TENANTLOGS_LIVE_EMF") != "", key: env("TENANTLOGS_LIVE_KMS_KEY")}
	fmt.Fprintf(out, "account %s, region %s, groups %s*\n", want, client.Region, a.prefix)
	a.all(ctx)
	err = a.cleanUp(out)
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "\nQUESTION\tTAKEN FOR TRUE\tFOUND\t")
	for _, x := range a.answers {
		verdict := "as taken"
		if x.expected != x.found {
			verdict = "DIFFERENT"
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", x.question, x.expected, x.found, verdict)
	}
	return errors.Join(err, w.Flush())
}

// all asks everything. A question that fails is an answer, too.
func (a *asker) all(ctx context.Context) {
	a.ask(ctx, "a gzip body", "accepted, read back the same", a.gzip)
	a.ask(ctx, "an event of 1,048,550 bytes", "accepted, read back the same", a.largest)
	a.ask(ctx, "one byte more", "InvalidParameterException", a.tooLarge)
	a.ask(ctx, "15 days old, now, 3 hours ahead, in one call", "accepted but for too_old=1 too_new=1", a.rejected)
	a.ask(ctx, "2 days old, in a group that keeps 1 day", "accepted but for too_old=1 too_new=0", a.expired)
	a.ask(ctx, "24 hours and a millisecond in one call", "InvalidParameterException", a.span)
	a.ask(ctx, "an empty message", "InvalidParameterException", a.empty)
	a.ask(ctx, "order of events of the same time, in two calls", "that of the calls", a.order)
	a.ask(ctx, "a group tagged when it is created", "the tags are there", a.tags)
	a.ask(ctx, "retention set, and read back at once", "365", a.retention)
	a.ask(ctx, "an account-level retention policy, as a dry run", "accepted", a.accountPolicy)
	if a.emf {
		a.ask(ctx, "a message with _aws, without the header", "makes a metric", a.embedded)
	}
	if a.key != "" {
		a.ask(ctx, "a put to a group whose KMS key was disabled", "AccessDeniedException", a.disabledKey)
	}
}

func (a *asker) ask(ctx context.Context, question, expected string, f func(context.Context) (string, error)) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Minute)
	defer cancel()
	found, err := f(ctx)
	if err != nil {
		found = awsclient.Brief(err)
		if code, _, ok := strings.Cut(found, ": "); ok && !strings.Contains(code, " ") {
			found = code
		}
	}
	a.answers = append(a.answers, answer{question, expected, found})
}

// group makes a group with a stream `s`.
func (a *asker) group(ctx context.Context, name string, tags map[string]string) (string, error) {
	name = a.prefix + name
	if _, err := a.client.CreateLogGroup(ctx, &cloudwatchlogs.CreateLogGroupInput{LogGroupName: &name, Tags: tags}); err != nil {
		return "", err
	}
	a.made = append(a.made, name)
	_, err := a.client.CreateLogStream(ctx, &cloudwatchlogs.CreateLogStreamInput{LogGroupName: &name, LogStreamName: aws.String("s")})
	return name, err
}

type event struct {
	Timestamp int64  `json:"timestamp"`
	Message   string `json:"message"`
}

func now() int64 { return time.Now().UnixMilli() }

// put makes one PutLogEvents call with the project's own body.
func (a *asker) put(ctx context.Context, group string, zip bool, events ...event) (awsclient.Rejected, error) {
	text, err := json.Marshal(map[string]any{"logGroupName": group, "logStreamName": "s", "logEvents": events})
	if err != nil {
		return awsclient.Rejected{}, err
	}
	body := awsclient.Body{Bytes: text}
	if zip {
		var b bytes.Buffer
		z := gzip.NewWriter(&b)
		if _, err := z.Write(text); err != nil {
			return awsclient.Rejected{}, err
		}
		if err := z.Close(); err != nil {
			return awsclient.Rejected{}, err
		}
		body = awsclient.Body{Bytes: b.Bytes(), Gzip: true}
	}
	return a.client.Put(ctx, group, "s", body, len(events))
}

// read waits for n messages, in the order GetLogEvents returns.
func (a *asker) read(ctx context.Context, group string, n int) ([]string, error) {
	for {
		out, err := a.client.GetLogEvents(ctx, &cloudwatchlogs.GetLogEventsInput{LogGroupName: &group, LogStreamName: aws.String("s"), StartFromHead: aws.Bool(true)})
		if err != nil {
			return nil, err
		}
		if len(out.Events) >= n {
			var messages []string
			for _, e := range out.Events {
				messages = append(messages, aws.ToString(e.Message))
			}
			return messages, nil
		}
		if pause(ctx, 2*time.Second) != nil {
			return nil, fmt.Errorf("only %d of %d events could be read back", len(out.Events), n)
		}
	}
}

func (a *asker) roundTrip(ctx context.Context, name, message string, zip bool) (string, error) {
	group, err := a.group(ctx, name, nil)
	if err != nil {
		return "", err
	}
	if _, err := a.put(ctx, group, zip, event{now(), message}); err != nil {
		return "", err
	}
	got, err := a.read(ctx, group, 1)
	switch {
	case err != nil:
		return "", err
	case got[0] != message:
		return fmt.Sprintf("accepted, read back changed (%d bytes of %d)", len(got[0]), len(message)), nil
	}
	return "accepted, read back the same", nil
}

func (a *asker) gzip(ctx context.Context) (string, error) {
	return a.roundTrip(ctx, "gzip", `{"log":"grüße \u0001 😀"}`, true)
}

func (a *asker) largest(ctx context.Context) (string, error) {
	return a.roundTrip(ctx, "largest", strings.Repeat("x", chunk.MaxMessage), true)
}

// putOne is for calls of which only the answer matters.
func (a *asker) putOne(ctx context.Context, name string, events ...event) (string, error) {
	group, err := a.group(ctx, name, nil)
	if err != nil {
		return "", err
	}
	r, err := a.put(ctx, group, true, events...)
	if err != nil {
		return "", err
	}
	return rejectedText(r), nil
}

func rejectedText(r awsclient.Rejected) string {
	if r == (awsclient.Rejected{}) {
		return "accepted"
	}
	return fmt.Sprintf("accepted but for too_old=%d too_new=%d", r.Old, r.New)
}

func (a *asker) tooLarge(ctx context.Context) (string, error) {
	return a.putOne(ctx, "too-large", event{now(), strings.Repeat("x", chunk.MaxMessage+1)})
}

const hour = int64(time.Hour / time.Millisecond)

func (a *asker) rejected(ctx context.Context) (string, error) {
	return a.putOne(ctx, "rejected", event{now() - 15*24*hour, "old"}, event{now(), "now"}, event{now() + 3*hour, "new"})
}

func (a *asker) span(ctx context.Context) (string, error) {
	return a.putOne(ctx, "span", event{now() - 25*hour, "first"}, event{now() - hour + 1, "last"})
}

func (a *asker) empty(ctx context.Context) (string, error) {
	return a.putOne(ctx, "empty", event{now(), ""})
}

func (a *asker) expired(ctx context.Context) (string, error) {
	group, err := a.group(ctx, "expired", nil)
	if err != nil {
		return "", err
	}
	if _, err := a.client.PutRetentionPolicy(ctx, &cloudwatchlogs.PutRetentionPolicyInput{LogGroupName: &group, RetentionInDays: aws.Int32(1)}); err != nil {
		return "", err
	}
	r, err := a.put(ctx, group, true, event{now() - 48*hour, "expired"})
	if err != nil {
		return "", err
	}
	return rejectedText(r), nil
}

func (a *asker) order(ctx context.Context) (string, error) {
	group, err := a.group(ctx, "order", nil)
	if err != nil {
		return "", err
	}
	at := now()
	for n := range 10 {
		if _, err := a.put(ctx, group, true, event{at, fmt.Sprint(n, "a")}, event{at, fmt.Sprint(n, "b")}); err != nil {
			return "", err
		}
	}
	got, err := a.read(ctx, group, 20)
	if err != nil {
		return "", err
	}
	for n := range 20 {
		if got[n] != fmt.Sprint(n/2, string("ab"[n%2])) {
			return "another: " + strings.Join(got, " "), nil
		}
	}
	return "that of the calls", nil
}

func (a *asker) tags(ctx context.Context) (string, error) {
	group, err := a.group(ctx, "tags", map[string]string{"eks-tenant-logs/state": "new"})
	if err != nil {
		return "", err
	}
	g, err := a.describe(ctx, group)
	if err != nil {
		return "", err
	}
	out, err := a.client.ListTagsForResource(ctx, &cloudwatchlogs.ListTagsForResourceInput{ResourceArn: g.LogGroupArn})
	if err != nil {
		return "", err
	}
	if out.Tags["eks-tenant-logs/state"] != "new" {
		return fmt.Sprint("others: ", out.Tags), nil
	}
	return "the tags are there", nil
}

func (a *asker) describe(ctx context.Context, group string) (types.LogGroup, error) {
	out, err := a.client.DescribeLogGroups(ctx, &cloudwatchlogs.DescribeLogGroupsInput{LogGroupIdentifiers: []string{group}})
	if err != nil {
		return types.LogGroup{}, err
	}
	if len(out.LogGroups) != 1 {
		return types.LogGroup{}, fmt.Errorf("%d groups described by one identifier", len(out.LogGroups))
	}
	return out.LogGroups[0], nil
}

func (a *asker) retention(ctx context.Context) (string, error) {
	group, err := a.group(ctx, "retention", nil)
	if err != nil {
		return "", err
	}
	if _, err := a.client.PutRetentionPolicy(ctx, &cloudwatchlogs.PutRetentionPolicyInput{LogGroupName: &group, RetentionInDays: aws.Int32(365)}); err != nil {
		return "", err
	}
	g, err := a.describe(ctx, group)
	if err != nil {
		return "", err
	}
	if g.RetentionPolicyName != nil {
		return fmt.Sprintf("%d, by the account-level policy %s", aws.ToInt32(g.RetentionInDays), *g.RetentionPolicyName), nil
	}
	return fmt.Sprint(aws.ToInt32(g.RetentionInDays)), nil
}

// accountPolicy changes nothing: a policy that is made takes effect a day later, and for
// others' groups too.
func (a *asker) accountPolicy(ctx context.Context) (string, error) {
	_, err := a.client.PutAccountPolicy(ctx, &cloudwatchlogs.PutAccountPolicyInput{
		PolicyName: aws.String("tenantlogs-live"), PolicyType: types.PolicyTypeRetentionPolicy, DryRun: true,
		PolicyDocument:    aws.String(`{"retentionInDays":30}`),
		SelectionCriteria: aws.String(fmt.Sprintf(`LogGroupNamePrefix IN ["%s"]`, a.prefix)),
	})
	if err != nil {
		return "", err
	}
	return "accepted", nil
}

func (a *asker) embedded(ctx context.Context) (string, error) {
	namespace := strings.Trim(a.prefix, "/")
	found, err := a.putOne(ctx, "emf", event{now(), fmt.Sprintf(
		`{"_aws":{"Timestamp":%d,"CloudWatchMetrics":[{"Namespace":%q,"Dimensions":[[]],"Metrics":[{"Name":"m"}]}]},"m":1}`, now(), namespace)})
	if err != nil || found != "accepted" {
		return found, err
	}
	query := url.Values{"Action": {"ListMetrics"}, "Version": {"2010-08-01"}, "Namespace": {namespace}}.Encode()
	for {
		text, err := a.signed(ctx, "monitoring", "application/x-www-form-urlencoded", "", query)
		if err == nil && strings.Contains(text, "<MetricName>m</MetricName>") {
			return "makes a metric", nil
		}
		if werr := pause(ctx, 15*time.Second); werr != nil {
			return "accepted, and no metric seen in ten minutes", err
		}
	}
}

func (a *asker) disabledKey(ctx context.Context) (found string, err error) {
	name := a.prefix + "kms"
	if _, err := a.client.CreateLogGroup(ctx, &cloudwatchlogs.CreateLogGroupInput{LogGroupName: &name, KmsKeyId: &a.key}); err != nil {
		return "", err
	}
	a.made = append(a.made, name)
	if _, err := a.client.CreateLogStream(ctx, &cloudwatchlogs.CreateLogStreamInput{LogGroupName: &name, LogStreamName: aws.String("s")}); err != nil {
		return "", err
	}
	if _, err := a.put(ctx, name, true, event{now(), "before"}); err != nil {
		return "", err
	}
	body := fmt.Sprintf(`{"KeyId":%q}`, a.key)
	const json11 = "application/x-amz-json-1.1"
	if _, err := a.signed(ctx, "kms", json11, "TrentService.DisableKey", body); err != nil {
		return "", err
	}
	defer func() {
		_, eerr := a.signed(context.WithoutCancel(ctx), "kms", json11, "TrentService.EnableKey", body)
		if eerr != nil {
			err = errors.Join(err, fmt.Errorf("the key is STILL DISABLED, enable it by hand: %w", eerr))
		}
	}()
	for {
		if _, err := a.put(ctx, name, true, event{now(), "after"}); err != nil {
			return "", err
		}
		if pause(ctx, 10*time.Second) != nil {
			return "accepted, for ten minutes", nil
		}
	}
}

func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}

// signed makes one call to a service this project has no client for.
func (a *asker) signed(ctx context.Context, service, contentType, target, body string) (string, error) {
	suffix := "amazonaws.com"
	if strings.HasPrefix(a.client.Region, "cn-") {
		suffix += ".cn"
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, fmt.Sprintf("https://%s.%s.%s/", service, a.client.Region, suffix), strings.NewReader(body))
	if err != nil {
		return "", err
	}
	req.Header.Set("Content-Type", contentType)
	if target != "" {
		req.Header.Set("X-Amz-Target", target)
	}
	creds, err := a.cfg.Credentials.Retrieve(ctx)
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256([]byte(body))
	if err := v4.NewSigner().SignHTTP(ctx, creds, req, hex.EncodeToString(sum[:]), service, a.client.Region, time.Now()); err != nil {
		return "", err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	if err != nil {
		return "", err
	}
	if resp.StatusCode != http.StatusOK {
		return "", fmt.Errorf("%s answered %s: %.300s", service, resp.Status, text)
	}
	return string(text), nil
}

// cleanUp deletes the groups that were made here, and no others.
func (a *asker) cleanUp(out io.Writer) error {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	var errs []error
	for _, name := range a.made {
		if !strings.HasPrefix(name, a.prefix) {
			continue
		}
		if _, err := a.client.DeleteLogGroup(ctx, &cloudwatchlogs.DeleteLogGroupInput{LogGroupName: &name}); err != nil {
			errs = append(errs, fmt.Errorf("group %s is left, delete it by hand: %w", name, err))
		}
	}
	fmt.Fprintf(out, "%d of %d groups deleted again\n", len(a.made)-len(errs), len(a.made))
	return errors.Join(errs...)
}
