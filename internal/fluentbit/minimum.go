// Package fluentbit decides with which Fluent Bit the plugin starts. It finds out the version of
// the process it is loaded into, and knows nothing of outputs.
package fluentbit

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"
)

// Version is a release of Fluent Bit.
type Version struct{ Major, Minor, Patch int }

// String is the version as Fluent Bit writes it.
func (v Version) String() string { return fmt.Sprintf("%d.%d.%d", v.Major, v.Minor, v.Patch) }

// before tells whether v is older than w.
func (v Version) before(w Version) bool {
	if v.Major != w.Major {
		return v.Major < w.Major
	}
	if v.Minor != w.Minor {
		return v.Minor < w.Minor
	}
	return v.Patch < w.Patch
}

// Fixed are the first releases with the fixes of CVEs: one on each line that got them. The fix
// commits in Fluent Bit's history are first in these two tags; a line between them and 4.2
// does not exist.
var Fixed = []Version{{4, 0, 12}, {4, 1, 1}}

// CVEs are the vulnerabilities of November 2025 that a version older than Fixed has: authentication
// that in_forward leaves out, a stack overflow in in_docker, files written outside out_file's
// directory, tags forged through tag_key.
var CVEs = []string{"CVE-2025-12969", "CVE-2025-12970", "CVE-2025-12972", "CVE-2025-12977", "CVE-2025-12978"}

// Check refuses a version older than the fixes, naming them and the remedy. Whatever is newer
// than the lines known here passes.
func Check(v Version) error {
	ok := false
	for _, f := range Fixed {
		if v.Major == f.Major && v.Minor == f.Minor {
			ok = !v.before(f)
			break
		}
		ok = !v.before(f)
	}
	if ok {
		return nil
	}
	return fmt.Errorf("Fluent Bit %s is refused: it has %s; use the image of this release, or Fluent Bit 4.0.12, 4.1.1 or newer", v, strings.Join(CVEs, ", ")) //nolint:staticcheck // a name is capitalised
}

// number is a version with what builds append to it: v5.1.1, 4.2.3.1, 5.0.0-rc1.
var number = regexp.MustCompile(`^v?(\d{1,6})\.(\d{1,6})\.(\d{1,6})(?:[.+~-].*)?$`)

// Parse reads a version; false where it is none.
func Parse(s string) (Version, bool) {
	m := number.FindStringSubmatch(strings.TrimSpace(s))
	if m == nil {
		return Version{}, false
	}
	var v Version
	for i, to := range []*int{&v.Major, &v.Minor, &v.Patch} {
		n, err := strconv.Atoi(m[i+1])
		if err != nil {
			return Version{}, false
		}
		*to = n
	}
	return v, true
}

// said is the line of `fluent-bit --version`, "Fluent Bit v5.1.1", to which nightly builds append.
var said = regexp.MustCompile(`(?m)^Fluent Bit (v\d\S*)`)

// parseOutput reads what `fluent-bit --version` printed.
func parseOutput(out []byte) (Version, bool) {
	m := said.FindSubmatch(out)
	if m == nil {
		return Version{}, false
	}
	return Parse(string(m[1]))
}
