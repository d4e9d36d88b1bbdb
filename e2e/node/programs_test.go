package node

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	_ "github.com/eks-tenant-logs/eks-tenant-logs/e2e/environment" // the machine's does not reach these tests
)

// program writes one that prints a text and ends with a code.
func program(t *testing.T, dir, name, says, code string) string {
	t.Helper()
	path := filepath.Join(dir, name)
	require.NoError(t, os.MkdirAll(dir, 0o755))
	require.NoError(t, os.WriteFile(path, []byte("#!/bin/sh\necho '"+says+"'\nexit "+code+"\n"), 0o755))
	return path
}

func TestAFluentBitIsUsedWhereItRunsAndIsNotRefused(t *testing.T) {
	for name, c := range map[string]struct{ says, code, want string }{
		"a good one":            {"Fluent Bit v5.1.1", "0", ""},
		"one that does not run": {"", "127", "does not run: exit status 127"},
		"one that is too old":   {"Fluent Bit v3.2.0", "0", "3.2.0 is refused"},
		"another program":       {"hello", "0", "does not tell its version"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			path := program(t, dir, "fluent-bit", c.says, c.code)
			for _, variable := range []string{"FLUENT_BIT", "PATH"} {
				t.Run(variable, func(t *testing.T) {
					t.Setenv("FLUENT_BIT", "")
					t.Setenv("PATH", "/nonexistent")
					t.Setenv(variable, map[string]string{"FLUENT_BIT": path, "PATH": dir}[variable])
					got, err := FindFluentBit(t.Context())
					if c.want != "" {
						require.ErrorContains(t, err, c.want)
						return
					}
					require.NoError(t, err)
					require.Equal(t, path, got)
				})
			}
		})
	}
	t.Setenv("PATH", "/nonexistent")
	t.Setenv("FLUENT_BIT", "")
	_, err := FindFluentBit(t.Context())
	require.ErrorContains(t, err, "no Fluent Bit on PATH or in $FLUENT_BIT")
	t.Setenv("FLUENT_BIT", "/nonexistent")
	_, err = FindFluentBit(t.Context())
	require.ErrorContains(t, err, "the Fluent Bit at /nonexistent does not run")
}

// The first of each version counts, wherever on PATH, and one that does not run counts for none.
func TestAnAWSCLIOfEachVersionIsFoundBehindOthers(t *testing.T) {
	dir := t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }
	program(t, at("shim"), "aws", "aws-cli/2.1.0 shim", "1")
	one := program(t, at("one"), "aws", "aws-cli/1.45.11 Python/3.11.7", "0")
	program(t, at("another"), "aws", "aws-cli/1.2.3 Python/3.11.7", "0")
	two := program(t, at("two"), "aws", "aws-cli/2.9.19 Python/3.11.2 source/x86_64.debian.12", "0")
	found := func(path, named string) map[int]string {
		t.Setenv("PATH", path)
		t.Setenv("AWSCLI", named)
		all := map[int]string{}
		clis, missing := AWSCLIs(t.Context())
		for _, c := range clis {
			all[c.Major] = c.Path
		}
		for _, major := range missing {
			require.NotContains(t, all, major)
		}
		require.Len(t, AWSCLIVersions, len(clis)+len(missing))
		return all
	}
	list := string(os.PathListSeparator)
	got := found(at("shim")+list+at("none")+list+at("one")+list+at("another")+list+at("two"), "")
	require.Equal(t, map[int]string{1: one, 2: two}, got)
	require.Equal(t, map[int]string{1: one, 2: two}, found(at("two"), one), "$AWSCLI")
	require.Equal(t, map[int]string{2: two}, found(at("two"), "/nonexistent"), "$AWSCLI that is not there")
	require.Empty(t, found(at("shim"), ""))
}
