// Package environment gives tests, and the programs beside them, an environment that the machine's does not
// reach. Importing it replaces the process's variables: what is in Kept stays, what is in Own is set, and
// everything else is gone, for this process and the programs it starts. So no proxy, certificate, region,
// endpoint, profile or setting of the machine's decides what a test sees.
//
// It must not be linked into the product.
package environment

import (
	"os"
	"regexp"
	"slices"
	"strings"
)

// Kept are the variables that stay as they are: where programs and files are, and what the project's own tests
// are asked to do. A name that ends in `*` stands for all that begin so.
var Kept = []string{
	"PATH", "HOME", "TMPDIR", "CC", "GOCOVERDIR", "GORACE",
	"FLUENT_BIT", "AWSCLI", "AWSCLI_REQUIRED", "NODE_E2E", "KUBE_BINARIES", "CHARTS_REQUIRED", "RELEASE_REQUIRED", "IMAGE_ARCHIVES", "PEERS", "OUTAGE",
	"SPOOFING_TABLE", "TESTPLUGIN_RECORD", "E2E_*", "TENANTLOGS_*",
}

// Own are the variables that every test begins with. There are no credentials among them. Files that are to say nothing
// are /dev/null, for any other name may exist.
var Own = []string{
	"AWS_CONFIG_FILE=/dev/null", "AWS_SHARED_CREDENTIALS_FILE=/dev/null", "AWS_EC2_METADATA_DISABLED=true",
	"KUBECONFIG=/dev/null", "LC_ALL=C.UTF-8", "TZ=UTC",
}

// odd is a folder whose name lists and patterns, Fluent Bit's among them, read as something else.
var odd = regexp.MustCompile(`[^A-Za-z0-9/._+@-]`)

var machine = os.Environ()

// Machine is the environment that the process was started with. It is for the go command, whose caches, proxies
// and certificates are the machine's.
func Machine() []string { return slices.Clone(machine) }

// Build is Machine with what a test has set of how Go builds: GOARCH and CC.
func Build() []string {
	env := Machine()
	for _, name := range []string{"GOARCH", "CC"} {
		if value, set := os.LookupEnv(name); set {
			env = append(env, name+"="+value)
		}
	}
	return env
}

func init() { replace(of(machine)) }

// of is the environment that is made of a machine's.
func of(machine []string) []string {
	own := slices.DeleteFunc(slices.Clone(machine), func(variable string) bool {
		name, value, _ := strings.Cut(variable, "=")
		return !kept(name) || name == "TMPDIR" && odd.MatchString(value)
	})
	return append(own, Own...)
}

// kept reports whether a variable stays.
func kept(name string) bool {
	return slices.ContainsFunc(Kept, func(k string) bool {
		prefix, all := strings.CutSuffix(k, "*")
		return name == k || all && strings.HasPrefix(name, prefix)
	})
}

func replace(with []string) {
	os.Clearenv()
	for _, variable := range with {
		name, value, _ := strings.Cut(variable, "=")
		if err := os.Setenv(name, value); err != nil {
			panic(err) // a name that the machine itself could not have given
		}
	}
}
