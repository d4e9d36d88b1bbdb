// Package version is what a binary says it is. It knows nothing else.
package version

// version is set when a release is linked:
// -ldflags "-X github.com/eks-tenant-logs/eks-tenant-logs/internal/version.version=1.2.3".
var version string

// Development is the version of a build that is no release.
const Development = "dev"

// String is the release without a leading v, or Development.
func String() string {
	if version == "" {
		return Development
	}
	return version
}
