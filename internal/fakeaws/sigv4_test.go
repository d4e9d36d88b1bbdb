package fakeaws_test

import (
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/stretchr/testify/require"

	"github.com/eks-tenant-logs/eks-tenant-logs/internal/fakeaws"
)

func TestSignatures(t *testing.T) {
	f := start(t, fakeaws.Config{})
	setAuthorization := func(change func(string) string) func(*http.Request) {
		return func(r *http.Request) { r.Header.Set("Authorization", change(r.Header.Get("Authorization"))) }
	}
	replace := func(old, with string) func(*http.Request) {
		return setAuthorization(func(a string) string { return strings.Replace(a, old, with, 1) })
	}
	const body = `{"limit":1}`
	for name, c := range map[string]struct {
		raw
		code, text string
	}{
		"made by the SDK's signer":            {raw{}, "", ""},
		"with another header signed":          {raw{before: func(r *http.Request) { r.Header.Set("X-Custom", "  a   b ") }}, "", ""},
		"with a header of two values":         {raw{before: func(r *http.Request) { r.Header["X-Custom"] = []string{"a", "b"} }}, "", ""},
		"with the payload's hash as a header": {raw{before: func(r *http.Request) { r.Header.Set("X-Amz-Content-Sha256", sha256Hex(body)) }}, "", ""},
		"with a wrong hash as a header": {
			raw{before: func(r *http.Request) { r.Header.Set("X-Amz-Content-Sha256", sha256Hex("x")) }},
			"InvalidSignatureException", "does not match what was computed",
		},
		"unsigned payload": {
			raw{before: func(r *http.Request) { r.Header.Set("X-Amz-Content-Sha256", "UNSIGNED-PAYLOAD") }},
			"InvalidSignatureException", "does not match what was computed",
		},
		"over another body": {raw{after: func(r *http.Request) { r.Body = io.NopCloser(strings.NewReader(`{"limit":2}`)) }}, "InvalidSignatureException", "does not match the signature you provided"},
		"over another operation": {
			raw{after: func(r *http.Request) { r.Header.Set("X-Amz-Target", "Logs_20140328.DescribeLogStreams") }},
			"InvalidSignatureException", "does not match the signature you provided",
		},
		"with another secret": {
			raw{creds: aws.Credentials{AccessKeyID: fakeaws.DefaultAccessKeyID, SecretAccessKey: "x"}},
			"InvalidSignatureException", "does not match the signature you provided",
		},
		"by an unknown key": {raw{creds: aws.Credentials{AccessKeyID: "AKIAUNKNOWN", SecretAccessKey: "x"}}, "UnrecognizedClientException", "security token"},
		"with a session token the key has not": {
			raw{creds: aws.Credentials{AccessKeyID: fakeaws.DefaultAccessKeyID, SecretAccessKey: fakeaws.DefaultSecretAccessKey, SessionToken: "x"}},
			"UnrecognizedClientException", "security token",
		},
		"missing":                   {raw{after: func(r *http.Request) { r.Header.Del("Authorization") }}, "MissingAuthenticationTokenException", ""},
		"twice":                     {raw{after: func(r *http.Request) { r.Header.Add("Authorization", "x") }}, "IncompleteSignatureException", ""},
		"of another algorithm":      {raw{after: replace("AWS4-HMAC-SHA256", "AWS3")}, "IncompleteSignatureException", "algorithm"},
		"for another service":       {raw{service: "s3"}, "InvalidSignatureException", "correct service: 'logs'"},
		"for sts":                   {raw{service: "sts"}, "InvalidSignatureException", "correct service: 'logs'"},
		"for another region":        {raw{region: "eu-west-1"}, "InvalidSignatureException", "valid region, not 'eu-west-1'"},
		"four minutes old":          {raw{at: time.Now().Add(-4 * time.Minute)}, "", ""},
		"four minutes ahead":        {raw{at: time.Now().Add(4 * time.Minute)}, "", ""},
		"six minutes old":           {raw{at: time.Now().Add(-6 * time.Minute)}, "InvalidSignatureException", "Signature expired"},
		"six minutes ahead":         {raw{at: time.Now().Add(6 * time.Minute)}, "InvalidSignatureException", "Signature not yet current"},
		"without a date":            {raw{after: func(r *http.Request) { r.Header.Del("X-Amz-Date") }}, "IncompleteSignatureException", "X-Amz-Date"},
		"scope of another day":      {raw{after: replace(time.Now().UTC().Format("/20060102/"), "/20200101/")}, "InvalidSignatureException", "Date in Credential scope"},
		"target header not signed":  {raw{after: replace(";x-amz-target", "")}, "InvalidSignatureException", "'x-amz-target' must be a 'SignedHeader'"},
		"host not signed":           {raw{after: replace("host;", "")}, "InvalidSignatureException", "'host' must be a 'SignedHeader'"},
		"signed header left out":    {raw{after: replace("host;", "host;if-match;")}, "InvalidSignatureException", "'if-match' is not in the request"},
		"signature cut short":       {raw{after: setAuthorization(func(a string) string { return a[:len(a)-1] })}, "IncompleteSignatureException", "64"},
		"one digit of it different": {raw{after: setAuthorization(flipLast)}, "InvalidSignatureException", "does not match the signature you provided"},
	} {
		t.Run(name, func(t *testing.T) {
			c.operation, c.body = "DescribeLogGroups", body
			a := f.send(t, c.raw)
			require.Equal(t, c.code, a.code, a.text)
			require.Contains(t, a.text, c.text)
			require.NotEmpty(t, a.header.Get("X-Amzn-Requestid"))
			if c.code == "" {
				require.Equal(t, 200, a.status)
			} else {
				require.Equal(t, 400, a.status)
				require.Equal(t, c.code, a.header.Get("X-Amzn-Errortype"))
			}
		})
	}
}

func flipLast(a string) string {
	last := "0"
	if strings.HasSuffix(a, "0") {
		last = "1"
	}
	return a[:len(a)-1] + last
}
