package fakeaws_test

import (
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
	"github.com/stretchr/testify/require"

	"github.com/eks-tenant-logs/eks-tenant-logs/internal/fakeaws"
)

// What a request is must be what it was signed for.
func TestServicesAndActions(t *testing.T) {
	f := start(t, fakeaws.Config{})
	const form, json11 = "application/x-www-form-urlencoded", "application/x-amz-json-1.1"
	const getRole = "Action=GetRole&Version=2010-05-08&RoleName=r"
	for name, x := range map[string]struct {
		service, region, method, path, target, contentType, body string
		status                                                   int
		code                                                     string
	}{
		"IAM":                                 {"iam", "us-east-1", "POST", "/", "", form, getRole, 404, "NoSuchEntity"},
		"IAM asked with GET":                  {"iam", "us-east-1", "GET", "/?" + getRole, "", "", "", 404, "NoSuchEntity"},
		"IAM signed for STS":                  {"sts", "us-east-1", "POST", "/", "", form, getRole, 403, "SignatureDoesNotMatch"},
		"IAM signed for logs":                 {"logs", "us-east-1", "POST", "/", "", form, getRole, 403, "SignatureDoesNotMatch"},
		"IAM signed for an unknown service":   {"s3", "us-east-1", "POST", "/", "", form, getRole, 403, "SignatureDoesNotMatch"},
		"IAM in another region":               {"iam", "us-west-2", "POST", "/", "", form, getRole, 403, "SignatureDoesNotMatch"},
		"STS signed for IAM":                  {"iam", "us-east-1", "POST", "/", "", form, "Action=GetCallerIdentity&Version=2011-06-15", 403, "SignatureDoesNotMatch"},
		"an action of IAM's in STS's version": {"sts", "us-east-1", "POST", "/", "", form, "Action=GetRole&Version=2011-06-15&RoleName=r", 400, "InvalidAction"},
		"an action of STS's in IAM's version": {"iam", "us-east-1", "POST", "/", "", form, "Action=GetCallerIdentity&Version=2010-05-08", 400, "InvalidAction"},
		"an unknown action":                   {"iam", "us-east-1", "POST", "/", "", form, "Action=DeleteEverything&Version=2010-05-08", 400, "InvalidAction"},
		"no version":                          {"iam", "us-east-1", "POST", "/", "", form, "Action=GetRole&RoleName=r", 400, "InvalidAction"},
		"a parameter twice":                   {"iam", "us-east-1", "POST", "/", "", form, getRole + "&RoleName=s", 404, "MalformedQueryString"},
		"a parameter the action has not":      {"iam", "us-east-1", "POST", "/", "", form, getRole + "&Path=%2F", 400, "ValidationError"},
		"KMS":                                 {"kms", "us-east-1", "POST", "/", "TrentService.ListAliases", json11, "{}", 200, ""},
		"KMS signed for logs":                 {"logs", "us-east-1", "POST", "/", "TrentService.ListAliases", json11, "{}", 400, "InvalidSignatureException"},
		"KMS in another region":               {"kms", "us-west-2", "POST", "/", "TrentService.ListAliases", json11, "{}", 400, "InvalidSignatureException"},
		"an unknown action of KMS":            {"kms", "us-east-1", "POST", "/", "TrentService.Decrypt", json11, "{}", 400, "UnknownOperationException"},
		"an unknown target":                   {"kms", "us-east-1", "POST", "/", "DynamoDB_20120810.ListTables", json11, "{}", 400, "UnknownOperationException"},
		"a member KMS does not know":          {"kms", "us-east-1", "POST", "/", "TrentService.ListAliases", json11, `{"limit":1}`, 400, "SerializationException"},
		"EKS":                                 {"eks", "us-east-1", "GET", "/clusters/c1", "", "", "", 404, "ResourceNotFoundException"},
		"EKS signed for logs":                 {"logs", "us-east-1", "GET", "/clusters/c1", "", "", "", 403, "InvalidSignatureException"},
		"an unknown path of EKS":              {"eks", "us-east-1", "GET", "/clusters/c1/addons", "", "", "", 404, "UnknownOperationException"},
		"a query EKS does not know":           {"eks", "us-east-1", "GET", "/clusters/c1?x=1", "", "", "", 400, "SerializationException"},
	} {
		t.Run(name, func(t *testing.T) {
			r, err := http.NewRequestWithContext(t.Context(), x.method, f.url+x.path, strings.NewReader(x.body))
			require.NoError(t, err)
			if x.contentType != "" {
				r.Header.Set("Content-Type", x.contentType)
			}
			if x.target != "" {
				r.Header.Set("X-Amz-Target", x.target)
			}
			creds := aws.Credentials{AccessKeyID: fakeaws.DefaultAccessKeyID, SecretAccessKey: fakeaws.DefaultSecretAccessKey}
			require.NoError(t, v4.NewSigner().SignHTTP(t.Context(), creds, r, sha256Hex(x.body), x.service, x.region, time.Now()))
			resp, err := http.DefaultClient.Do(r)
			require.NoError(t, err)
			defer resp.Body.Close()
			body, err := io.ReadAll(resp.Body)
			require.NoError(t, err)
			require.Equal(t, x.status, resp.StatusCode, string(body))
			require.Contains(t, string(body), x.code)
		})
	}
}

func TestIAMIsSignedForItsPartitionsRegion(t *testing.T) {
	for partition, x := range map[string]struct{ region, iam string }{
		"aws": {"eu-west-1", "us-east-1"}, "aws-us-gov": {"us-gov-east-1", "us-gov-west-1"}, "aws-cn": {"cn-northwest-1", "cn-north-1"},
	} {
		f := start(t, fakeaws.Config{Partition: partition, Region: x.region})
		c := newIAM(f.url, exampleCredentials, inRegion(x.iam))
		require.Equal(t, "arn:"+partition+":iam::"+home+":role/r", *createRole(t, c, "r").Arn)
		_, err := newIAM(f.url, exampleCredentials, inRegion("us-west-1")).CreateRole(t.Context(), roleInput("s"))
		requireStatus(t, err, "SignatureDoesNotMatch", 403)
	}
}
