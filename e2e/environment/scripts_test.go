package environment

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

// machineWith is a folder for PATH that stands for a machine: what scripts need, and programs by name, each a shell script.
func machineWith(t *testing.T, programs map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for _, name := range []string{"sh", "bash", "env", "dirname", "date", "sed", "paste", "mktemp", "rm", "chmod"} {
		path, err := exec.LookPath(name)
		require.NoError(t, err)
		require.NoError(t, os.Symlink(path, filepath.Join(dir, name)))
	}
	for name, script := range programs {
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte("#!/bin/sh\n"+script+"\n"), 0o755))
	}
	return dir
}

// script runs one of .ci there.
func script(t *testing.T, name, path string, env ...string) (said string, failed bool) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "../../.ci/"+name)
	cmd.Env = append([]string{"PATH=" + path, "HOME=" + t.TempDir()}, env...)
	out, err := cmd.CombinedOutput()
	return string(out), err != nil
}

const (
	awsOne = "echo aws-cli/1.45.11 Python/3.11.7"
	awsTwo = "echo aws-cli/2.9.19 Python/3.11.2"
)

// CI has version 2 of the AWS CLI tested on every machine where it can be had, whatever other `aws` there is.
func TestCIHasVersion2OfTheAWSCLITestedWhereItCanBe(t *testing.T) {
	const required, untested, told = "make test, required: 2", "make test, required: \n", "NOT tested"
	install := `[ "$1" != install ] || [ -n "${APT_FAILS:-}" ] || { echo installed; printf '#!/bin/sh\n` + awsTwo + `\n' >"$(dirname "$0")/aws"; chmod +x "$(dirname "$0")/aws"; }; [ -z "${APT_FAILS:-}" ]`
	for name, c := range map[string]struct {
		aws, id, apt string
		env          string
		want         []string
		fails        bool
	}{
		"version 2":                           {aws: awsTwo, apt: install, id: "echo 0", want: []string{required}},
		"version 1":                           {aws: awsOne, apt: install, id: "echo 0", want: []string{"installed", required}},
		"none":                                {apt: install, id: "echo 0", want: []string{"installed", required}},
		"a shim that does not run":            {aws: "exit 127", apt: install, id: "echo 0", want: []string{"installed", required}},
		"version 1, nothing downloads":        {aws: awsOne, apt: install, env: "APT_FAILS=1", id: "echo 0", fails: true},
		"version 1, not root":                 {aws: awsOne, apt: install, id: "echo 1000", want: []string{told, untested}},
		"version 1, and no apt-get":           {aws: awsOne, id: "echo 0", want: []string{told, untested}},
		"version 1 is what is in the package": {aws: awsOne, apt: "true", id: "echo 0", want: []string{told, untested}},
	} {
		t.Run(name, func(t *testing.T) {
			programs := map[string]string{
				"make": `echo "make $*, required: ${AWSCLI_REQUIRED:-}"`, "go": "true", "gcc": "true", "aarch64-linux-gnu-gcc": "true", "uname": "echo x86_64", "qemu-aarch64-static": "true", "id": c.id,
			}
			for name, text := range map[string]string{"aws": c.aws, "apt-get": c.apt} {
				if text != "" {
					programs[name] = text
				}
			}
			said, failed := script(t, "run", machineWith(t, programs), c.env)
			require.Equal(t, c.fails, failed, said)
			for _, want := range c.want {
				require.Contains(t, said, want)
			}
			require.Regexp(t, `\d s  installing what is missing`, said, "how long each step took")
			require.Regexp(t, `\d s  in all`, said)
			if c.fails {
				require.Contains(t, said, "installing what is missing: FAILED")
				require.NotContains(t, said, "make test")
			}
		})
	}
}

// The nightly run fails where something that ran failed, and says what it left out.
func TestTheNightlyRunSaysWhatItLeftOut(t *testing.T) {
	programs := map[string]string{"make": `echo "make $*"; [ "$1" != "$FAILS" ]`, "go": "true", "id": "echo 1000"}
	said, failed := script(t, "nightly", machineWith(t, programs), "FAILS=none")
	require.False(t, failed, said)
	require.Contains(t, said, "left out           make e2e: no Fluent Bit on PATH or in $FLUENT_BIT\n")
	require.Contains(t, said, "left out           make soak: no Fluent Bit on PATH or in $FLUENT_BIT\n")
	require.Contains(t, said, "left out           make image-test: no Fluent Bit on PATH or in $FLUENT_BIT, not root, no buildah on PATH, no debootstrap on PATH\n")
	require.NotContains(t, said, "make e2e\n=")
	require.Regexp(t, `passed +\d+ s  every fuzz target`, said)

	said, failed = script(t, "nightly", machineWith(t, programs), "FAILS=fuzz")
	require.True(t, failed)
	require.Regexp(t, `FAILED +\d+ s  every fuzz target`, said)
	require.Regexp(t, `passed +\d+ s  make hostile-test`, said, "the others run all the same")

	programs["fluent-bit"] = "exit 1"
	said, failed = script(t, "nightly", machineWith(t, programs), "FAILS=none")
	require.False(t, failed, said)
	require.Regexp(t, `left out +make e2e: \S+/fluent-bit does not run`, said)

	programs["fluent-bit"], programs["buildah"], programs["debootstrap"], programs["id"] = "true", "true", "true", "echo 0"
	said, failed = script(t, "nightly", machineWith(t, programs), "FAILS=e2e")
	require.True(t, failed)
	require.Regexp(t, `FAILED +\d+ s  make e2e`, said)
	require.Regexp(t, `passed +\d+ s  make image-test`, said)
	require.NotContains(t, said, "left out           make image-test")
}
