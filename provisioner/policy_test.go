package main

import (
	"bytes"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/eks-tenant-logs/eks-tenant-logs/internal/iampolicy"
	"github.com/eks-tenant-logs/eks-tenant-logs/internal/provision"
	"github.com/eks-tenant-logs/eks-tenant-logs/internal/tenancy"
)

func printed(args ...string) (string, error) {
	cmd := root()
	var out bytes.Buffer
	cmd.SetOut(&out)
	cmd.SetErr(&out)
	cmd.SetArgs(append([]string{"policy"}, args...))
	err := cmd.Execute()
	return out.String(), err
}

var whereabouts = []string{"--region", "us-gov-west-1", "--account", "111122223333", "--cluster", "prod"}

func TestPoliciesArePrintedWithoutACall(t *testing.T) {
	scope, err := iampolicy.NewScope(iampolicy.Scope{Region: "us-gov-west-1", Account: "111122223333", Cluster: "prod"})
	require.NoError(t, err)
	for name := range policies {
		args := append([]string{name, "--tenant", "acme"}, whereabouts...)
		switch name {
		case "trust":
			args = append(args, "--trust-pod-identity", "$(namespace)/logs")
		case "reader-abac":
			args = append(args, "--namespace-prefix=")
		}
		text, err := printed(args...)
		require.NoError(t, err, name)
		_, err = iampolicy.Parse([]byte(text))
		require.NoError(t, err, text)
		require.NotContains(t, text, "arn:aws:")
	}
	text, err := printed(append([]string{"reader", "--tenant", "acme"}, whereabouts...)...)
	require.NoError(t, err)
	want, err := scope.Reader("acme").Indent()
	require.NoError(t, err)
	require.Equal(t, string(want), text)
	text, err = printed(append([]string{"trust", "--tenant", "acme", "--trust-pod-identity", "$(namespace)/logs"}, whereabouts...)...)
	require.NoError(t, err)
	require.Contains(t, text, `"aws:RequestTag/kubernetes-namespace": "tenant-acme"`)
	text, err = printed(append([]string{"writer", "--controller=false", "-o", "yaml", "--tenant-role", "arn:aws-us-gov:iam::444455556666:role/logs"}, whereabouts...)...)
	require.NoError(t, err)
	require.Contains(t, text, "logs:CreateLogGroup")
	require.Contains(t, text, "444455556666:role/logs")
	text, err = printed(append([]string{"provisioner", "--duty", "denies"}, whereabouts...)...)
	require.NoError(t, err)
	require.Contains(t, text, "NoContent")
	require.NotContains(t, text, `"Allow"`)
}

func TestPoliciesThatWouldBeForSomethingElseAreNotPrinted(t *testing.T) {
	for says, args := range map[string][]string{
		"invalid argument":      {"owner"},
		"12 digits":             {"writer", "--region", "us-east-1", "--account", "1", "--cluster", "prod"},
		"such as us-east-1":     {"writer", "--account", "111122223333", "--cluster", "prod"},
		"EKS calls clusters":    {"writer", "--region", "us-east-1", "--account", "111122223333"},
		"is about one tenant":   append([]string{"reader"}, whereabouts...),
		"whose name is a DNS":   append([]string{"kms", "--tenant", "Acme"}, whereabouts...),
		"names nobody":          append([]string{"trust", "--tenant", "acme"}, whereabouts...),
		"called as the namespa": append([]string{"reader-abac"}, whereabouts...),
		"neither json nor yaml": append([]string{"writer", "-o", "table"}, whereabouts...),
		"use groups, roles,":    append([]string{"provisioner", "--duty", "reads"}, whereabouts...),
		"auditor have parts":    append([]string{"writer", "--duty", "denies"}, whereabouts...),
		"which is aws-us-gov":   append([]string{"writer", "--partition", "aws"}, whereabouts...),
	} {
		_, err := printed(args...)
		require.ErrorContains(t, err, says)
	}
}

func TestTenantsWithAnAccountOfTheirOwnAreReached(t *testing.T) {
	tenants := []provision.Tenant{
		{Name: "a", Settings: &tenancy.Tenant{Name: "a", RoleARN: "arn:aws:iam::444455556666:role/logs"}},
		{Name: "b"}, {Name: "c", Settings: &tenancy.Tenant{Name: "c", RoleARN: "arn:aws:iam::444455556666:role/logs"}},
	}
	const open = "arn:aws-us-gov:iam::*:role/tenant-logs"
	require.Equal(t, []string{open, "arn:aws:iam::444455556666:role/logs"}, tenantRoles([]string{open}, tenants))
	for _, name := range []string{"writer", "provisioner", "replay"} {
		for _, role := range []string{open, "arn:aws-us-gov:iam::444455556666:role/path/logs"} {
			text, err := printed(append([]string{name, "--tenant-role", role}, whereabouts...)...)
			require.NoError(t, err)
			require.Contains(t, text, `"sts:AssumeRole"`)
			require.Contains(t, text, role)
		}
	}
}

// Both commands say the same of a role that must not be named, bootstrap before it makes a call.
func TestOnlyRolesMayBeNamedForTenantsOwnAccounts(t *testing.T) {
	t.Setenv("AWS_ACCESS_KEY_ID", "x")
	t.Setenv("AWS_SECRET_ACCESS_KEY", "y")
	for _, arn := range []string{"*", "arn:aws-us-gov:iam::444455556666:role/*", "arn:aws-us-gov:iam::444455556666:root", "arn:aws-us-gov:iam::444455556666:user/u", "arn:aws-us-gov:iam::*:role/eks-tenant-logs/x"} {
		_, err := printed(append([]string{"writer", "--tenant-role", arn}, whereabouts...)...)
		require.ErrorContains(t, err, "of a tenant's own account")
		_, again := execute(append([]string{"bootstrap", "--partition", "aws-us-gov", "--tenant-role", arn, "--endpoint", "http://127.0.0.1:1", "--sts-endpoint", "http://127.0.0.1:1"}, whereabouts...)...)
		require.EqualError(t, again, err.Error())
	}
}
