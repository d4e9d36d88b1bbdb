package tenancy

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// fixture is a tenants file whose comments say how it is read (`# mode registry`,
// `# prefix team-`) and what comes out: each error, to the letter and in order
// (`# error: …`), or who each namespace belongs to (`# resolve ns: tenant acme`).
type fixture struct {
	path    string
	data    []byte
	options RegistryOptions
	errors  []string
	resolve map[string]string
}

func readFixtures(t *testing.T, folder string) []fixture {
	paths, err := filepath.Glob(filepath.Join("testdata", "registry", folder, "*.yaml"))
	require.NoError(t, err)
	require.NotEmpty(t, paths)
	var all []fixture
	for _, path := range paths {
		data, err := os.ReadFile(path)
		require.NoError(t, err)
		f := fixture{path: path, data: data, resolve: map[string]string{}}
		for line := range strings.Lines(string(data)) {
			line = strings.TrimSuffix(line, "\n")
			if mode, ok := strings.CutPrefix(line, "# mode "); ok {
				f.options.Mode, err = ParseMode(mode)
				require.NoError(t, err)
			} else if prefix, ok := strings.CutPrefix(line, "# prefix "); ok {
				f.options.NamespacePrefix = prefix
			} else if text, ok := strings.CutPrefix(line, "# error: "); ok {
				f.errors = append(f.errors, text)
			} else if text, ok := strings.CutPrefix(line, "# resolve "); ok {
				ns, owner, ok := strings.Cut(text, ": ")
				require.True(t, ok, line)
				f.resolve[ns] = owner
			} else {
				require.False(t, strings.HasPrefix(line, "#"), "%s: %s", path, line)
			}
		}
		all = append(all, f)
	}
	return all
}

func TestGoodTenantsFilesSayWhoseNamespacesAre(t *testing.T) {
	for _, f := range readFixtures(t, "good") {
		t.Run(filepath.Base(f.path), func(t *testing.T) {
			r, err := LoadRegistry(f.path, f.options)
			require.NoError(t, err)
			require.NotEmpty(t, f.resolve)
			for ns, want := range f.resolve {
				kind, tenant := r.Resolve(ns)
				got := kind.String()
				if tenant != nil {
					got += " " + tenant.Name
				}
				require.Equal(t, want, got, ns)
			}
			require.NoError(t, r.Replaceable(r))
		})
	}
}

func TestBadTenantsFilesSayAllThatIsWrong(t *testing.T) {
	for _, f := range readFixtures(t, "bad") {
		t.Run(filepath.Base(f.path), func(t *testing.T) {
			r, err := ParseRegistry(f.data, f.options)
			require.Nil(t, r)
			require.EqualError(t, err, strings.Join(f.errors, "\n"))
			// Of a file, each line names it; the options are not the file's fault.
			_, err = LoadRegistry(f.path, f.options)
			for i, line := range strings.Split(err.Error(), "\n") {
				if want := f.errors[i]; f.options.NamespacePrefix == "" {
					require.Equal(t, f.path+": "+want, line)
				} else {
					require.Equal(t, want, line)
				}
			}
		})
	}
}

func TestTheFilesSettingsReachTheTenant(t *testing.T) {
	r, err := LoadRegistry("testdata/registry/good/whole.yaml", RegistryOptions{})
	require.NoError(t, err)
	_, acme := r.Resolve("acme-batch")
	require.Equal(t, &Tenant{
		Name: "acme", Namespaces: []string{"tenant-acme", "acme-batch"}, RetentionDays: 731,
		KMSKeyARN:           "arn:aws-us-gov:kms:us-gov-west-1:123456789012:key/1234abcd-12ab-34cd-56ef-1234567890ab",
		QuarantineKMSKeyARN: "arn:aws-cn:kms:cn-north-1:123456789012:key/mrk-1234abcd12ab34cd56ef1234567890ab",
		OnFailure:           "quarantine", EMF: true,
		RoleARN: "arn:aws:iam::123456789012:role/logs/writer", ExternalID: "a:b/c=d,e.f@g-h_i+j",
	}, acme)
	_, globex := r.Resolve("tenant-globex")
	require.Equal(t, &Tenant{Name: "globex"}, globex)
	for _, ns := range []string{"tenant-acme", "acme-batch", "kube-system", "other"} {
		require.Zero(t, testing.AllocsPerRun(100, func() { r.Resolve(ns) }), ns)
	}
}

func TestTheKeysNamedInErrorsAreTheFilesKeys(t *testing.T) {
	for name, keys := range fileKeys {
		var y strings.Builder
		y.WriteString("version: 1\n")
		indent := ""
		if name == "tenantEntry" {
			y.WriteString("tenants:\n  a:\n")
			indent = "    "
		}
		for _, key := range strings.Split(keys, ", ") {
			if key != "version" {
				y.WriteString(indent + key + ":\n")
			}
		}
		_, err := ParseRegistry([]byte(y.String()), RegistryOptions{})
		require.NoError(t, err)
	}
}
