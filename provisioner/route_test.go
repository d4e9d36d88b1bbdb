package main

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

func runRoute(args ...string) (string, error) {
	cmd := root()
	var out bytes.Buffer
	cmd.SetOut(&out)
	cmd.SetErr(&out)
	cmd.SetArgs(append([]string{"route"}, args...))
	err := cmd.Execute()
	return out.String(), err
}

const podTag = "kube.var.log.pods.tenant-acme_web-0_0c8f1f1e-9d3b-4b6a-8f5e-2f1d3c4b5a69.app.0.log"

func TestRouteSaysWhereAndWhy(t *testing.T) {
	file := filepath.Join(t.TempDir(), "t.yaml")
	require.NoError(t, os.WriteFile(file, []byte("version: 1\ntenants: {corp: {namespaces: [tenant-acme, tenant-corp]}}"), 0o600))
	for name, test := range map[string]struct {
		args []string
		want string
	}{
		"tenant":         {[]string{podTag}, "namespace tenant-acme is tenant acme's"},
		"by the file":    {[]string{"--tenants-file", file, podTag}, "/eks/tenants/corp"},
		"platform":       {[]string{"--namespace-prefix", "t-", podTag}, "no tenant's (tenant source prefix)"},
		"unrouted":       {[]string{podTag + ".gz"}, "not shaped like a container's log file"},
		"JSON":           {[]string{"-o", "json", podTag}, `"group": "/eks/tenants/acme"`},
		"other template": {[]string{"--log-stream-template", "$(node)/$(pod)", podTag}, "<node>/web-0"},
	} {
		out, err := runRoute(test.args...)
		require.NoError(t, err, name)
		require.Contains(t, out, test.want, name)
	}
}

func TestRouteRefusesWhatItCannotUse(t *testing.T) {
	for name, test := range map[string]struct {
		args []string
		want string
	}{
		"no tag":       {nil, "accepts 1 arg"},
		"output":       {[]string{"-o", "xml", podTag}, "neither table nor json"},
		"source":       {[]string{"--tenant-source", "x", podTag}, "neither prefix nor registry"},
		"registry":     {[]string{"--tenant-source", "registry", podTag}, "needs a file"},
		"tag prefix":   {[]string{"--tag-prefix", "kube.", podTag}, "--tag-prefix"},
		"template":     {[]string{"--log-stream-template", "$(x)", podTag}, "--log-stream-template"},
		"missing file": {[]string{"--tenants-file", "/does/not/exist", podTag}, "/does/not/exist"},
		"group prefix": {[]string{"--log-group-prefix", "x", podTag}, "does not end in /"},
	} {
		_, err := runRoute(test.args...)
		require.ErrorContains(t, err, test.want, name)
	}
}
