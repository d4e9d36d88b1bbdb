package release

import (
	"bytes"
	"debug/buildinfo"
	"debug/elf"
	"fmt"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// What an image is, beside its base.
var images = map[string]struct {
	programs        []string // the first of an image with cgo is the one that has it
	license         string
	user            string
	entrypoint, cmd []string
}{
	"fluent-bit": {
		programs: []string{"fluent-bit/plugins/out_cloudwatch_tenants.so", "fluent-bit/bin/tenantlogs-launcher"}, license: "licenses/eks-tenant-logs", user: "0:0",
		entrypoint: []string{"/fluent-bit/bin/fluent-bit"},
		cmd:        []string{"--plugin=/fluent-bit/plugins/out_cloudwatch_tenants.so", "--config=/etc/tenantlogs/fluent-bit.yaml"},
	},
	"provisioner": {
		programs: []string{"tenantlogs"}, license: "licenses/eks-tenant-logs", user: "65532:65532",
		entrypoint: []string{"/tenantlogs"},
	},
}

// machines are the architectures' names in ELF.
var machines = map[string]elf.Machine{"amd64": elf.EM_X86_64, "arm64": elf.EM_AARCH64}

// archives is where `make image-test` put what it built.
func archives(t *testing.T) string {
	t.Helper()
	dir := os.Getenv("IMAGE_ARCHIVES")
	if dir == "" {
		t.Skip("images are built and read by `make image-test`")
	}
	return dir
}

func TestImagesHoldWhatTheyShouldAndNothingElse(t *testing.T) {
	dir := archives(t)
	commit, err := exec.Command("git", "log", "-1", "--format=%H %ct").Output()
	require.NoError(t, err)
	revision, epoch, _ := strings.Cut(strings.TrimSpace(string(commit)), " ")
	out, err := exec.Command("./versions").Output()
	require.NoError(t, err)
	version := strings.TrimSpace(string(out))
	for target, want := range images {
		for arch, machine := range machines {
			t.Run(target+"/"+arch, func(t *testing.T) {
				img := readImage(t, filepath.Join(dir, fmt.Sprintf("first-%s-%s.tar", target, arch)))
				base := readImage(t, filepath.Join(dir, fmt.Sprintf("base-%s-%s.tar", target, arch)))

				require.Equal(t, "linux", img.Config.OS)
				require.Equal(t, arch, img.Config.Architecture)
				require.Equal(t, want.user, img.Config.Config.User)
				require.Equal(t, want.entrypoint, img.Config.Config.Entrypoint)
				require.Equal(t, want.cmd, img.Config.Config.Cmd)
				labels := img.Config.Config.Labels
				require.Equal(t, version, labels["org.opencontainers.image.version"])
				require.Equal(t, revision, labels["org.opencontainers.image.revision"])
				require.Equal(t, "Apache-2.0", labels["org.opencontainers.image.licenses"])
				require.Contains(t, labels["org.opencontainers.image.base.name"], "stand-in")

				require.Greater(t, len(img.Config.RootFS.DiffIDs), len(base.Config.RootFS.DiffIDs))
				require.Equal(t, base.Config.RootFS.DiffIDs, img.Config.RootFS.DiffIDs[:len(base.Config.RootFS.DiffIDs)], "the base is below, as it is")
				var added []string
				for name := range img.Files {
					if _, found := base.Files[name]; !found {
						added = append(added, name)
					}
				}
				require.ElementsMatch(t, append([]string{want.license}, want.programs...), added)
				for name, f := range img.Files {
					require.NotContains(t, []string{"sh", "bash", "dash", "ash", "busybox", "apt", "apt-get", "dpkg"}, path.Base(name), "no shell, no package manager")
					require.Zero(t, f.Mode&0o6000, "%s is set-uid or set-gid", name)
				}
				for _, name := range want.programs {
					program := img.Files[name]
					require.EqualValues(t, 0o555, program.Mode&0o7777)
					require.Zero(t, program.UID+program.GID, "root's, so that no process of the image can change it")
					require.Equal(t, epoch, fmt.Sprint(program.Modified.Unix()))

					binary, err := elf.NewFile(bytes.NewReader(program.Body))
					require.NoError(t, err)
					require.Equal(t, machine, binary.Machine)
					info, err := buildinfo.Read(bytes.NewReader(program.Body))
					require.NoError(t, err)
					require.Equal(t, "github.com/eks-tenant-logs/eks-tenant-logs", info.Main.Path)
					for _, s := range info.Settings {
						require.NotContains(t, s.Key, "vcs", "the history is no part of the bytes")
					}
					imported, err := binary.ImportedLibraries()
					require.NoError(t, err)
					if path.Ext(name) != ".so" {
						require.Empty(t, imported, "static")
					} else {
						so := filepath.Join(t.TempDir(), "plugin.so")
						require.NoError(t, os.WriteFile(so, program.Body, 0o600))
						needed, symbol := glibcNeeded(t, so)
						require.Falsef(t, newer(needed, oldestGLIBC), "%s needs glibc %s", symbol, needed)
						t.Logf("glibc %s is enough", needed)
					}
				}
				t.Logf("%s: %d files of the base, and:", img.Digest, len(base.Files))
				for _, name := range append([]string{want.license}, want.programs...) {
					t.Logf("  %04o %d:%d %9d bytes /%s", img.Files[name].Mode&0o7777, img.Files[name].UID, img.Files[name].GID, len(img.Files[name].Body), name)
				}
			})
		}
	}
}

func TestImagesBuiltTwiceAreTheSame(t *testing.T) {
	dir := archives(t)
	for target := range images {
		for arch := range machines {
			first := readImage(t, filepath.Join(dir, fmt.Sprintf("first-%s-%s.tar", target, arch)))
			second := readImage(t, filepath.Join(dir, fmt.Sprintf("second-%s-%s.tar", target, arch)))
			require.Equal(t, first.Digest, second.Digest, "%s for %s", target, arch)
		}
	}
}
