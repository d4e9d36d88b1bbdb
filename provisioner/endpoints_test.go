package main

import (
	"os"
	"testing"

	"github.com/stretchr/testify/require"
)

// What is given outside the flags is judged before the first call, for every service that a
// command asks.
func TestEndpointsOfTheEnvironmentHaveTheRulesOfTheFlags(t *testing.T) {
	for _, name := range []string{"AWS_PROFILE", "AWS_ENDPOINT_URL"} {
		t.Setenv(name, "")
	}
	t.Setenv("AWS_CONFIG_FILE", os.DevNull)
	t.Setenv("AWS_SHARED_CREDENTIALS_FILE", os.DevNull)
	t.Setenv("AWS_EC2_METADATA_DISABLED", "true")
	plan := []string{"plan", "--cluster", "prod", "--region", "us-east-1", "--tenant", "acme", "--no-reader-roles"}
	for name, test := range map[string]struct {
		args     []string
		variable string
		value    string
		want     string
	}{
		"logs":                {plan, "AWS_ENDPOINT_URL_CLOUDWATCH_LOGS", "http://e.example.com", "AWS_ENDPOINT_URL_CLOUDWATCH_LOGS: "},
		"STS":                 {plan, "AWS_ENDPOINT_URL_STS", "http://e.example.com", "AWS_ENDPOINT_URL_STS: "},
		"IAM":                 {plan, "AWS_ENDPOINT_URL_IAM", "http://e.example.com", "AWS_ENDPOINT_URL_IAM: "},
		"KMS":                 {plan, "AWS_ENDPOINT_URL_KMS", "http://e.example.com", "AWS_ENDPOINT_URL_KMS: "},
		"EKS":                 {plan, "AWS_ENDPOINT_URL_EKS", "http://e.example.com", "AWS_ENDPOINT_URL_EKS: "},
		"FIPS":                {append(plan, "--iam-endpoint", "https://e.example.com"), "AWS_USE_FIPS_ENDPOINT", "true", "iam endpoint (https://e.example.com) replaces AWS's host of IAM, and AWS_USE_FIPS_ENDPOINT asks for FIPS endpoints"},
		"dual-stack":          {append(plan, "--use-dual-stack"), "AWS_ENDPOINT_URL_KMS", "https://e.example.com", "AWS_ENDPOINT_URL_KMS (https://e.example.com) replaces AWS's host of KMS, and use_dual_stack asks for dual-stack endpoints"},
		"replay":              {[]string{"replay", "--region", "us-east-1"}, "AWS_ENDPOINT_URL", "http://e.example.com", "AWS_ENDPOINT_URL: "},
		"replay, dual-stack":  {[]string{"replay", "--region", "us-east-1", "--use-dual-stack", "--endpoint", "https://h"}, "X", "", `use_dual_stack: "on" is not allowed: endpoint is set`},
		"the canary":          {[]string{"canary", "acme", "--region", "us-east-1"}, "AWS_ENDPOINT_URL_CLOUDWATCH_LOGS", "http://e.example.com", "AWS_ENDPOINT_URL_CLOUDWATCH_LOGS: "},
		"the canary, two own": {[]string{"canary", "acme", "--region", "us-east-1", "--use-dual-stack", "--endpoint", "https://h"}, "X", "", "use_dual_stack asks for dual-stack endpoints"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Setenv(test.variable, test.value)
			_, err := execute(test.args...)
			require.ErrorContains(t, err, test.want)
		})
	}
}
