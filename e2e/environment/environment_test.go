package environment

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// hostile are variables of a machine that would decide what a test sees.
var hostile = []string{
	"AWS_CA_BUNDLE=/nonexistent", "AWS_PROFILE=absent", "AWS_REGION=xx-nowhere-9", "AWS_ENDPOINT_URL_CLOUDWATCH_LOGS=https://127.0.0.1:1", "AWS_CONFIG_FILE=/machine",
	"HTTPS_PROXY=http://127.0.0.1:1", "https_proxy=http://127.0.0.1:1", "SSL_CERT_FILE=/nonexistent", "SSL_CERT_DIR=/nonexistent",
	"KUBECONFIG=/machine", "HELM_NAMESPACE=machine", "NODE_NAME=machine", "FLUENT_BIT_VERSION=1.0.0", "GOFLAGS=-mod=vendor", "LC_ALL=tr_TR.UTF-8", "TZ=Asia/Kathmandu",
}

func TestMain(m *testing.M) {
	if os.Getenv("TENANTLOGS_PRINT_ENVIRONMENT") != "" {
		_, _ = os.Stdout.WriteString(strings.Join(os.Environ(), "\n"))
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func TestNothingOfTheMachineReachesAProcessThatImportsThis(t *testing.T) {
	self, err := os.Executable()
	require.NoError(t, err)
	cmd := exec.CommandContext(t.Context(), self)
	cmd.Env = append(slices.Clone(hostile), "PATH=/bin", "HOME=/home/x", "E2E_ENGINE=fluent-bit", "TENANTLOGS_PRINT_ENVIRONMENT=1", "FLUENT_BIT=/fb", "TMPDIR=/tmp/a, [b]")
	said, err := cmd.CombinedOutput()
	require.NoError(t, err, string(said))
	want := append([]string{"PATH=/bin", "HOME=/home/x", "E2E_ENGINE=fluent-bit", "TENANTLOGS_PRINT_ENVIRONMENT=1", "FLUENT_BIT=/fb"}, Own...)
	require.ElementsMatch(t, want, strings.Split(string(said), "\n"))
}

func TestTheGoCommandGetsTheMachinesEnvironment(t *testing.T) {
	for _, v := range machine {
		require.Contains(t, Machine(), v)
	}
	require.NotContains(t, of([]string{"GOPROXY=x", "PATH=/bin"}), "GOPROXY=x")
	require.Contains(t, of([]string{"TMPDIR=/var/tmp"}), "TMPDIR=/var/tmp")
}

// A variable that a test or one of its programs asks for, and that is not in Kept, would never be there.
func TestEveryVariableThatTestsAskForIsKept(t *testing.T) {
	own := func(name string) bool {
		return slices.ContainsFunc(Own, func(v string) bool { return strings.HasPrefix(v, name+"=") })
	}
	asked := 0
	err := filepath.WalkDir("../..", func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && (d.Name() == "build" || d.Name() == ".git" || path == "../../e2e/live") {
			return filepath.SkipDir
		}
		if filepath.Ext(path) != ".go" || !strings.HasSuffix(path, "_test.go") && !strings.HasPrefix(path, "../../e2e/") {
			return nil
		}
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		ast.Inspect(file, func(n ast.Node) bool {
			call, ok := n.(*ast.CallExpr)
			if !ok || len(call.Args) != 1 {
				return true
			}
			sel, ok := call.Fun.(*ast.SelectorExpr)
			name, literal := call.Args[0].(*ast.BasicLit)
			if !ok || !literal || name.Kind != token.STRING || sel.Sel.Name != "Getenv" && sel.Sel.Name != "LookupEnv" {
				return true
			}
			v, err := strconv.Unquote(name.Value)
			require.NoError(t, err)
			asked++
			require.True(t, kept(v) || own(v), "%s asks for $%s, which Kept leaves out", path, v)
			return true
		})
		return nil
	})
	require.NoError(t, err)
	require.Greater(t, asked, 10, "nothing was read")
}

// make's recipes do not see what decides how Go builds, and in what language programs speak.
func TestMakeLeavesOutWhatDecidesHowGoBuilds(t *testing.T) {
	recipe := func(env, args []string) map[string]string {
		t.Helper()
		cmd := exec.CommandContext(t.Context(), "make", append([]string{"-s", "-C", "../..", "--no-print-directory", "--eval", "show:;@env; echo PLUGIN=$(PLUGIN)"}, append(args, "show")...)...)
		cmd.Env = slices.Concat(Machine(), env)
		said, err := cmd.CombinedOutput()
		require.NoError(t, err, string(said))
		got := map[string]string{}
		for line := range strings.Lines(string(said)) {
			name, value, _ := strings.Cut(strings.TrimSuffix(line, "\n"), "=")
			got[name] = value
		}
		return got
	}
	bad := filepath.Join(t.TempDir(), "odd, [name]")
	require.NoError(t, os.Mkdir(bad, 0o755))
	native := recipe(nil, nil)
	got := recipe([]string{
		"GOFLAGS=-mod=vendor", "GOWORK=/nonexistent", "GOTOOLCHAIN=go1.1", "GOOS=plan9", "GOARCH=mips", "GOEXPERIMENT=nosuch", "GOGC=1", "GODEBUG=x=1", "CGO_ENABLED=0", "CC=/nonexistent",
		"CGO_LDFLAGS=-lnosuch", "BASH_ENV=/nonexistent", "CDPATH=/", "TZ=Asia/Kathmandu", "LC_ALL=tr_TR.UTF-8", "LC_NUMERIC=de_DE.UTF-8", "LANG=tr_TR.UTF-8", "E2E_ENGINE=fluent-bit", "TMPDIR=" + bad,
		"GOPROXY=off", "HTTPS_PROXY=http://127.0.0.1:1",
	}, nil)
	for _, name := range []string{"GOTOOLCHAIN", "GOOS", "GOARCH", "GOEXPERIMENT", "GOGC", "GODEBUG", "CC", "CGO_LDFLAGS", "BASH_ENV", "CDPATH", "TZ", "LC_NUMERIC", "LANG", "E2E_ENGINE", "TMPDIR"} {
		require.NotContains(t, got, name)
	}
	require.Equal(t, "-buildvcs=false", got["GOFLAGS"])
	require.Equal(t, "off", got["GOWORK"])
	require.Equal(t, "1", got["CGO_ENABLED"])
	require.Equal(t, "C.UTF-8", got["LC_ALL"])
	require.Equal(t, native["PLUGIN"], got["PLUGIN"])
	require.Equal(t, "off", got["GOPROXY"], "the go command's own matter")
	require.Equal(t, "http://127.0.0.1:1", got["HTTPS_PROXY"], "the go command's own matter")

	given := recipe([]string{"GOARCH=mips"}, []string{"GOARCH=arm64", "CC=clang"})
	require.Equal(t, "build/arm64/out_cloudwatch_tenants.so", given["PLUGIN"], "make's command line counts")
	require.Equal(t, "clang", given["CC"])

	nowhere := recipe([]string{"HOME=" + filepath.Join(t.TempDir(), "none")}, nil)
	require.True(t, strings.HasSuffix(nowhere["HOME"], "/build/home"), nowhere["HOME"])
}
