package fakeaws_test

import (
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
	"github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/stretchr/testify/require"

	"github.com/eks-tenant-logs/eks-tenant-logs/internal/fakeaws"
)

// What the services' models refuse (IAM pathPrefixType and policyPathType, KMS TagResource and GetKeyPolicy,
// STS roleSessionNameType), sent as no client of AWS's would.
func TestWhatTheModelsRefuseIsRefused(t *testing.T) {
	f := start(t, fakeaws.Config{})
	created, err := newKMS(f.url, exampleCredentials).CreateKey(t.Context(), &kms.CreateKeyInput{})
	require.NoError(t, err)
	key := *created.KeyMetadata.KeyId
	role := "Action=AssumeRole&Version=2011-06-15&RoleArn=" + url.QueryEscape("arn:aws:iam::"+home+":role/r")
	createRole(t, newIAM(f.url, exampleCredentials), "r")
	const iam, sts = "iam", "sts"
	for name, x := range map[string]struct {
		service, target, body string
		status                int
		want                  []string
	}{
		"ListRoles, a prefix without /":    {iam, "", "Action=ListRoles&Version=2010-05-08&PathPrefix=eks", 400, []string{"ValidationError", "regular expression pattern"}},
		"ListRoles, a prefix":              {iam, "", "Action=ListRoles&Version=2010-05-08&PathPrefix=%2Feks", 200, nil},
		"ListPolicies, no / at the end":    {iam, "", "Action=ListPolicies&Version=2010-05-08&PathPrefix=%2Feks", 400, []string{"ValidationError", "regular expression pattern"}},
		"ListPolicies, a prefix":           {iam, "", "Action=ListPolicies&Version=2010-05-08&PathPrefix=%2Feks%2F", 200, nil},
		"ListAttachedRolePolicies, no /":   {iam, "", "Action=ListAttachedRolePolicies&Version=2010-05-08&RoleName=r&PathPrefix=eks%2F", 400, []string{"ValidationError", "regular expression pattern"}},
		"GetKeyPolicy, another policy":     {"kms", "GetKeyPolicy", `{"KeyId":"` + key + `","PolicyName":"other"}`, 400, []string{"NotFoundException", "No such policy"}},
		"GetKeyPolicy, its policy":         {"kms", "GetKeyPolicy", `{"KeyId":"` + key + `","PolicyName":"default"}`, 200, nil},
		"TagResource, no tags":             {"kms", "TagResource", `{"KeyId":"` + key + `"}`, 400, []string{"ValidationException", "'tags'", "must not be null"}},
		"AssumeRole, a name of one letter": {sts, "", role + "&RoleSessionName=x", 400, []string{"ValidationError", "greater than or equal to 2"}},
		"AssumeRole, a name too long":      {sts, "", role + "&RoleSessionName=" + strings.Repeat("x", 65), 400, []string{"ValidationError", "less than or equal to 64"}},
		"AssumeRole, a name with a colon":  {sts, "", role + "&RoleSessionName=a%3Ab", 400, []string{"ValidationError", "regular expression pattern"}},
		"AssumeRole, no name":              {sts, "", role, 400, []string{"ValidationError", "must not be null"}},
	} {
		t.Run(name, func(t *testing.T) {
			r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, f.url+"/", strings.NewReader(x.body))
			require.NoError(t, err)
			r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
			if x.target != "" {
				r.Header.Set("Content-Type", "application/x-amz-json-1.1")
				r.Header.Set("X-Amz-Target", "TrentService."+x.target)
			}
			creds := aws.Credentials{AccessKeyID: fakeaws.DefaultAccessKeyID, SecretAccessKey: fakeaws.DefaultSecretAccessKey}
			require.NoError(t, v4.NewSigner().SignHTTP(t.Context(), creds, r, sha256Hex(x.body), x.service, "us-east-1", time.Now()))
			resp, err := http.DefaultClient.Do(r)
			require.NoError(t, err)
			defer resp.Body.Close()
			body, err := io.ReadAll(resp.Body)
			require.NoError(t, err)
			require.Equal(t, x.status, resp.StatusCode, string(body))
			for _, want := range x.want {
				require.Contains(t, string(body), want)
			}
		})
	}
}
