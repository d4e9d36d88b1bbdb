package realnode

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"sigs.k8s.io/yaml"

	"github.com/eks-tenant-logs/eks-tenant-logs/e2e/environment"
	"github.com/eks-tenant-logs/eks-tenant-logs/e2e/host"
)

// Images are the names of what the nodes have. Nothing is pulled from anywhere.
type Images struct {
	// FluentBit and Provisioner have the names that the chart gives them.
	FluentBit, Provisioner string
	// Tool is the image of e2e/realnode/tool: pause, and a writer of numbered lines.
	Tool string
	// Engine is what is in FluentBit: the path of a Fluent Bit, or empty where it is the project's own host of plugins.
	Engine string
	// Missing says why there is no Fluent Bit, if there is none.
	Missing error

	version  string
	archives map[string]string // by the image's name
}

const (
	fluentBitImage   = "ghcr.io/eks-tenant-logs/fluent-bit:"
	provisionerImage = "ghcr.io/eks-tenant-logs/provisioner:"

	toolImage  = "localhost/tenantlogs/tool:1"
	pauseImage = "localhost/tenantlogs/pause:1"
)

// stages are the Dockerfile's stages that compile. Here the machine's own Go and C compiler do, by the same targets of make;
// what a final stage copies from them is taken from these files.
var stages = map[string]struct {
	target string
	files  map[string]string // in the stage → below build/<architecture>
}{
	"plugin":     {"plugin", map[string]string{"/out/out_cloudwatch_tenants.so": "out_cloudwatch_tenants.so"}},
	"launcher":   {"launcher", map[string]string{"/out/tenantlogs-launcher": "tenantlogs-launcher"}},
	"tenantlogs": {"provisioner", map[string]string{"/out/tenantlogs": "tenantlogs"}},
}

// buildImages builds all images of the nodes, and archives of them.
func (c *Cluster) buildImages(ctx context.Context) error {
	b := c.builder(ctx)
	if err := os.MkdirAll(b.work, 0o755); err != nil {
		return err
	}
	storage := fmt.Sprintf("[storage]\ndriver = \"vfs\"\ngraphroot = \"%s/store\"\nrunroot = \"%s/run\"\n", b.work, b.work)
	if err := os.WriteFile(filepath.Join(b.work, "storage.conf"), []byte(storage), 0o644); err != nil {
		return err
	}
	version, err := chartVersion(c.options.Root)
	if err != nil {
		return err
	}
	c.Images = Images{FluentBit: fluentBitImage + version, Provisioner: provisionerImage + version, Tool: toolImage, version: version, archives: map[string]string{}}
	for _, step := range []func() error{b.tool, b.fluentBitBase, b.staticBase, b.final} {

		if err := step(); err != nil {
			return err
		}
	}
	// The archives are all that is needed of it.
	return os.RemoveAll(filepath.Join(b.work, "store"))
}

func chartVersion(root string) (string, error) {
	text, err := os.ReadFile(filepath.Join(root, "charts/eks-tenant-logs/Chart.yaml"))
	if err != nil {
		return "", err
	}
	var chart struct {
		AppVersion string `json:"appVersion"`
	}
	return chart.AppVersion, yaml.Unmarshal(text, &chart)
}

type builder struct {
	ctx  context.Context
	c    *Cluster
	work string
}

func (c *Cluster) builder(ctx context.Context) *builder {
	return &builder{ctx: ctx, c: c, work: c.path("images")}
}

// AddVersion builds plugin, launcher and provisioner again as another version of this commit, makes images of that version of the ones that are there,
// and gives the nodes those.
func (c *Cluster) AddVersion(ctx context.Context, version string) error {
	b := c.builder(ctx)
	out := filepath.Join(b.work, "build-"+version)
	make := exec.CommandContext(ctx, "make", "--no-print-directory", "-C", c.options.Root, "plugin", "launcher", "provisioner", "VERSION="+version, "BUILD="+out)
	make.Env = environment.Build()
	if said, err := make.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w\n%s", strings.Join(make.Args, " "), err, said)
	}
	for from, image := range map[string]struct {
		name  string
		files map[string]string
	}{
		c.Images.FluentBit: {fluentBitImage + version, map[string]string{
			"out_cloudwatch_tenants.so": "/fluent-bit/plugins/out_cloudwatch_tenants.so", "tenantlogs-launcher": "/fluent-bit/bin/tenantlogs-launcher",
		}},
		c.Images.Provisioner: {provisionerImage + version, map[string]string{"tenantlogs": "/tenantlogs"}},
	} {
		container, err := b.buildah("from", "docker-archive:"+c.Images.archives[from])
		if err != nil {
			return err
		}
		for file, to := range image.files {
			if _, err := b.buildah("copy", "--quiet", "--chmod=0555", container, filepath.Join(out, programArch, file), to); err != nil {
				return err
			}
		}
		if _, err := b.buildah("config", "--label", "org.opencontainers.image.version="+version, container); err != nil {
			return err
		}
		if _, err := b.buildah("commit", "--quiet", "--rm", container, image.name); err != nil {
			return err
		}
		if err := b.archive(image.name); err != nil {
			return err
		}
		for _, n := range c.Nodes {
			if err := n.Import(ctx, c.Images.archives[image.name]); err != nil {
				return err
			}
		}
	}
	return os.RemoveAll(filepath.Join(b.work, "store"))
}

func (b *builder) buildah(args ...string) (string, error) {
	cmd := exec.CommandContext(b.ctx, "buildah", args...)
	cmd.Env = append(os.Environ(), "CONTAINERS_STORAGE_CONF="+filepath.Join(b.work, "storage.conf"), "BUILDAH_ISOLATION=chroot", "TMPDIR="+b.work)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("buildah %s: %w: %s", strings.Join(args, " "), err, &errs)
	}
	return strings.TrimSpace(out.String()), nil
}

// fromFolder makes an image of a folder's contents.
func (b *builder) fromFolder(dir, name string, config ...string) error {
	container, err := b.buildah("from", "scratch")
	if err != nil {
		return err
	}
	if _, err := b.buildah("add", "--quiet", container, dir, "/"); err != nil {
		return err
	}
	if len(config) > 0 {
		if _, err := b.buildah(append(append([]string{"config"}, config...), container)...); err != nil {
			return err
		}
	}
	_, err = b.buildah("commit", "--quiet", "--rm", container, name)
	return err
}

func (b *builder) archive(name string) error {
	file := filepath.Join(b.work, strings.NewReplacer("/", "_", ":", "_").Replace(name)+".tar")
	if _, err := b.buildah("push", "--quiet", name, "docker-archive:"+file+":"+name); err != nil {
		return err
	}
	b.c.Images.archives[name] = file
	return nil
}

// tool makes the images of e2e/realnode/tool.
func (b *builder) tool() error {
	dir := filepath.Join(b.work, "tool")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	if err := build(b.ctx, b.c.options.Root, "./e2e/realnode/tool", filepath.Join(dir, "tool")); err != nil {
		return err
	}
	for name, command := range map[string]string{toolImage: `["/tool"]`, pauseImage: `["/tool","pause"]`} {
		if err := b.fromFolder(dir, name, "--entrypoint", command, "--user", "65532:65532"); err != nil {
			return err
		}
		if err := b.archive(name); err != nil {
			return err
		}
	}
	return nil
}

const (
	fluentBitBase = "localhost/tenantlogs/base-fluent-bit:1"
	staticBase    = "localhost/tenantlogs/base-static:1"
)

// fluentBitBase stands for upstream's image: Fluent Bit where that has it, the libraries that it loads, and nothing else.
func (b *builder) fluentBitBase() error {
	dir := filepath.Join(b.work, "fluent-bit")
	program, missing := FluentBit(b.ctx)
	b.c.Images.Engine, b.c.Images.Missing = program, missing
	bin := filepath.Join(dir, "fluent-bit/bin")
	if missing != nil {
		// The host of plugins, under Fluent Bit's name.
		if err := os.MkdirAll(bin, 0o755); err != nil {
			return err
		}
		if err := build(b.ctx, b.c.options.Root, "./e2e/realnode/agent", filepath.Join(bin, "fluent-bit")); err != nil {
			return err
		}
		loader, err := host.Build(b.ctx, buildFolder(b.c.options.Root))
		if err != nil {
			return err
		}
		if err := copyFile(loader, filepath.Join(bin, "loader"), 0o755); err != nil {
			return err
		}
		program = loader
	} else if err := copyFile(program, filepath.Join(bin, "fluent-bit"), 0o755); err != nil {
		return err
	}
	if err := b.libraries(program, dir); err != nil {
		return err
	}
	if err := names(dir); err != nil {
		return err
	}
	return b.fromFolder(dir, fluentBitBase)
}

// staticBase stands for distroless' static image, without any authority: what trusts the stand-in's was told to by the chart.
func (b *builder) staticBase() error {
	dir := filepath.Join(b.work, "static")
	if err := names(dir); err != nil {
		return err
	}
	return b.fromFolder(dir, staticBase)
}

// names writes the users' and groups' names that distroless images have.
func names(dir string) error {
	for name, text := range map[string]string{
		"etc/passwd": "root:x:0:0:root:/root:/sbin/nologin\nnonroot:x:65532:65532:nonroot:/home/nonroot:/sbin/nologin\n",
		"etc/group":  "root:x:0:\nnonroot:x:65532:\n", "etc/nsswitch.conf": "hosts: files dns\n",
	} {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			return err
		}
	}
	return os.MkdirAll(filepath.Join(dir, "tmp"), 0o777|fs.ModeSticky)
}

// libraries copies what a program loads, by ldd, to where it looks for it.
func (b *builder) libraries(program, dir string) error {
	out, err := exec.CommandContext(b.ctx, "ldd", program).Output()
	if err != nil {
		return fmt.Errorf("ldd %s: %w", program, err)
	}
	for lines := bufio.NewScanner(bytes.NewReader(out)); lines.Scan(); {
		for _, word := range strings.Fields(lines.Text()) {
			if !filepath.IsAbs(word) {
				continue
			}
			if err := copyFile(word, filepath.Join(dir, word), 0o755); err != nil {
				return err
			}
		}
	}
	return nil
}

func copyFile(from, to string, mode fs.FileMode) error {
	data, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
		return err
	}
	return os.WriteFile(to, data, mode)
}

// final builds the Dockerfile's own last stages on these bases.
func (b *builder) final() error {
	dockerfile, err := os.ReadFile(filepath.Join(b.c.options.Root, "Dockerfile"))
	if err != nil {
		return err
	}
	text, used, err := lastStages(string(dockerfile), "fluent-bit", "provisioner")
	if err != nil {
		return err
	}
	folder := filepath.Join(b.work, "context")
	make := exec.CommandContext(b.ctx, "make", "--no-print-directory", "-C", b.c.options.Root)
	for _, name := range used {
		make.Args = append(make.Args, stages[name].target)
	}
	make.Env = environment.Build()
	if out, err := make.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w\n%s", strings.Join(make.Args, " "), err, out)
	}
	for _, name := range used {
		for in, file := range stages[name].files {
			if err := copyFile(filepath.Join(buildFolder(b.c.options.Root), file), filepath.Join(folder, name, in), 0o755); err != nil {
				return err
			}
		}
	}
	if err := copyFile(filepath.Join(b.c.options.Root, "LICENSE"), filepath.Join(folder, "LICENSE"), 0o644); err != nil {
		return err
	}
	file := filepath.Join(b.work, "Dockerfile")
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		return err
	}
	for target, name := range map[string]string{"fluent-bit": b.c.Images.FluentBit, "provisioner": b.c.Images.Provisioner} {
		if _, err := b.buildah("build", "--quiet", "--pull-never", "--file", file, "--target", target, "--tag", name,
			"--build-arg", "FLUENT_BIT_IMAGE="+fluentBitBase, "--build-arg", "STATIC_IMAGE="+staticBase, folder); err != nil {
			return err
		}
		if err := b.archive(name); err != nil {
			return err
		}
	}
	return nil
}

var (
	fromLine = regexp.MustCompile(`^FROM .* AS ([a-z-]+)$`)
	copyFrom = regexp.MustCompile(`^COPY --from=([a-z-]+) (.*?)(/\S+) (\S+)$`)
)

// lastStages leaves of a Dockerfile the stages that are named, and has them copy from folders of the build's context, each of a stage's name,
// in place of the stages that compile. Those are returned.
func lastStages(dockerfile string, keep ...string) (text string, used []string, err error) {
	kept := true // what is before the first stage
	var out strings.Builder
	for line := range strings.Lines(dockerfile) {
		trimmed := strings.TrimSpace(line)
		if m := fromLine.FindStringSubmatch(trimmed); m != nil {
			kept = slices.Contains(keep, m[1])
		}
		if !kept {
			continue
		}
		if m := copyFrom.FindStringSubmatch(trimmed); m != nil {
			stage, options, from, to := m[1], m[2], m[3], m[4]
			if _, known := stages[stage].files[from]; !known {
				return "", nil, fmt.Errorf("the Dockerfile copies %s from its stage %s: realnode's stages do not say what that is", from, stage)
			}
			if !slices.Contains(used, stage) {
				used = append(used, stage)
			}
			line = fmt.Sprintf("COPY %s%s %s\n", options, stage+from, to)
		}
		out.WriteString(line)
	}
	return out.String(), used, nil
}

// Version is the tag of the images that were built first, the chart's appVersion.
func (i Images) Version() string { return i.version }

// String says what the agent is.
func (i Images) String() string {
	if i.Missing != nil {
		return "the project's own host of plugins (" + i.Missing.Error() + ")"
	}
	return i.Engine
}
