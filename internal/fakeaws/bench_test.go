package fakeaws_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
	"github.com/aws/aws-sdk-go-v2/service/iam"
	"github.com/stretchr/testify/require"

	"github.com/eks-tenant-logs/eks-tenant-logs/internal/fakeaws"
)

// BenchmarkPutLogEvents measures the server over one HTTP connection with batches of 4,000 events of 200 bytes, each
// of them JSON and thus full of escapes. The client sends one signed body again and again and costs little; run it
// with -cpu 1 to have both on one core.
func BenchmarkPutLogEvents(b *testing.B) {
	for _, encoding := range []string{"identity", "gzip"} {
		b.Run(encoding, func(b *testing.B) {
			const perPut = 4_000
			f := withStream(b, fakeaws.Config{DiscardMessages: true}) // the benchmark would fill the memory otherwise
			now := time.Now().UnixMilli()
			var body bytes.Buffer
			body.WriteString(`{"logGroupName":"g","logStreamName":"s","logEvents":[`)
			for i := range perPut {
				message, err := json.Marshal(fmt.Sprintf(`{"log":"%0130d","stream":"stdout","kubernetes":{"namespace_name":"tenant-a"}}`, i))
				require.NoError(b, err)
				if i > 0 {
					body.WriteByte(',')
				}
				fmt.Fprintf(&body, `{"timestamp":%d,"message":%s}`, now, message)
			}
			body.WriteString(`]}`)
			payload := body.Bytes()
			if encoding == "gzip" {
				payload = []byte(zip(b, body.String()))
			}
			sum := sha256.Sum256(payload)
			header := http.Header{"Content-Type": {"application/x-amz-json-1.1"}, "X-Amz-Target": {"Logs_20140328.PutLogEvents"}}
			if encoding == "gzip" {
				header.Set("Content-Encoding", "gzip")
			}
			creds := aws.Credentials{AccessKeyID: fakeaws.DefaultAccessKeyID, SecretAccessKey: fakeaws.DefaultSecretAccessKey}
			signer := v4.NewSigner()
			b.SetBytes(int64(body.Len()))
			for b.Loop() {
				r, err := http.NewRequest(http.MethodPost, f.url, bytes.NewReader(payload))
				if err != nil {
					b.Fatal(err)
				}
				r.Header = header.Clone()
				if err := signer.SignHTTP(b.Context(), creds, r, hex.EncodeToString(sum[:]), "logs", "us-east-1", time.Now()); err != nil {
					b.Fatal(err)
				}
				resp, err := http.DefaultClient.Do(r)
				if err != nil {
					b.Fatal(err)
				}
				answer, err := io.ReadAll(resp.Body)
				if err != nil || resp.StatusCode != http.StatusOK || strings.Contains(string(answer), "rejected") {
					b.Fatal(resp.Status, string(answer), err)
				}
				_ = resp.Body.Close() // read to its end already
			}
			b.ReportMetric(float64(b.N)*perPut/b.Elapsed().Seconds(), "events/s")
		})
	}
}

// BenchmarkDecision measures what one call costs where IAM is enforced: a reader with a boundary and an inline policy.
func BenchmarkDecision(b *testing.B) {
	for _, enforce := range []bool{false, true} {
		b.Run(fmt.Sprint("enforce=", enforce), func(b *testing.B) {
			f := startEnforcing(b, func(c *fakeaws.Config) { c.Enforce = enforce })
			boundary := createPolicy(b, f.iam, "boundary", policy(groupPrefix+"/eks/tenants/${aws:PrincipalTag/tenant}:*", "logs:*"))
			arn := role(b, f.iam, "r", trustSelf, policy(groupPrefix+"/eks/tenants/acme:*", "logs:Get*", "logs:Filter*"), tagged("tenant", "acme"),
				func(in *iam.CreateRoleInput) { in.PermissionsBoundary = &boundary })
			f.createGroup(b, "/eks/tenants/acme")
			read := logsCalls(b, newClient(f.url, assume(b, f.sts, arn)))["FilterLogEvents"]
			for b.Loop() {
				if err := read("/eks/tenants/acme"); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
