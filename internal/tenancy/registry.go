package tenancy

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

// Mode is where tenants come from.
type Mode uint8

const (
	// ModePrefix: a prefix rule over namespaces, with the file's exceptions.
	ModePrefix Mode = iota
	// ModeRegistry: only what the published registry says.
	ModeRegistry
)

func (m Mode) String() string {
	if m == ModeRegistry {
		return "registry"
	}
	return "prefix"
}

// ParseMode reads `prefix` or `registry`.
func ParseMode(s string) (Mode, error) {
	switch strings.ToLower(s) {
	case "prefix":
		return ModePrefix, nil
	case "registry":
		return ModeRegistry, nil
	}
	return 0, fmt.Errorf("%q is neither prefix nor registry", s)
}

// DefaultNamespacePrefix is what the prefix rule cuts off a namespace's name.
const DefaultNamespacePrefix = "tenant-"

// RetentionDays are the values CloudWatch Logs takes (API reference, PutRetentionPolicy).
var RetentionDays = []int{1, 3, 5, 7, 14, 30, 60, 90, 120, 150, 180, 365, 400, 545, 731, 1096, 1827, 2192, 2557, 2922, 3288, 3653}

// ValidRetention reports whether CloudWatch Logs takes this number of days.
func ValidRetention(days int) bool { return slices.Contains(RetentionDays, days) }

// Tenant is one tenant with the settings the file gives it. What is empty or zero
// follows the plugin's own options.
type Tenant struct {
	Name string `yaml:"-"`
	// Namespaces are those the file names; under the prefix rule there may be none.
	Namespaces []string `yaml:"namespaces"`
	// RetentionDays is the least its group keeps.
	RetentionDays int `yaml:"retentionDays"`
	// KMSKeyARN encrypts its group, QuarantineKMSKeyARN its quarantine group.
	KMSKeyARN           string `yaml:"kmsKeyArn"`
	QuarantineKMSKeyARN string `yaml:"quarantineKmsKeyArn"`
	// OnFailure is quarantine, hold or drop.
	OnFailure string `yaml:"onFailure"`
	// EMF allows its lines to make metrics.
	EMF bool `yaml:"emf"`
	// RoleARN is assumed to write into the tenant's own account, with ExternalID.
	RoleARN    string `yaml:"roleArn"`
	ExternalID string `yaml:"externalId"`
}

// file is the YAML of tenants_file.
type file struct {
	Version            int                `yaml:"version"`
	Generation         int64              `yaml:"generation"`
	Tenants            map[string]*Tenant `yaml:"tenants"`
	PlatformNamespaces []string           `yaml:"platformNamespaces"`
}

// RegistryOptions say how a registry is read.
type RegistryOptions struct {
	Mode Mode
	// NamespacePrefix is the prefix rule's; empty means the default.
	NamespacePrefix string
}

// Kind is what a namespace, or a tag, is to us.
type Kind uint8

const (
	// KindUnrouted: the tag names no pod.
	KindUnrouted Kind = iota
	// KindPlatform: a namespace that is no tenant's.
	KindPlatform
	// KindPending: in registry mode, a namespace the registry does not know yet.
	KindPending
	// KindTenant: a tenant's namespace.
	KindTenant
)

func (k Kind) String() string {
	return [...]string{"unrouted", "platform", "pending", "tenant"}[k]
}

// Registry maps namespaces to tenants. It never changes, and may be used by many
// goroutines.
type Registry struct {
	mode       Mode
	prefix     string
	tenants    map[string]*Tenant
	namespaces map[string]*Tenant // nil for the platform's
	// Generation is the published registry's; 0 where the file has none.
	Generation int64
}

// Namespaces that are never a tenant's by the prefix rule, whatever it is.
func reserved(namespace string) bool {
	return strings.HasPrefix(namespace, "kube-") || namespace == "default"
}

// NewRegistry is the registry without a file.
func NewRegistry(o RegistryOptions) (*Registry, error) {
	if o.Mode == ModeRegistry {
		return nil, errors.New("tenant_source registry needs a file to read the registry from")
	}
	return build(file{Version: 1}, o)
}

// LoadRegistry reads the registry from a file.
func LoadRegistry(path string, o RegistryOptions) (*Registry, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("failed to read the tenants: %w", err)
	}
	r, err := ParseRegistry(data, o)
	if err != nil {
		var lines []error
		for _, e := range list(err) {
			lines = append(lines, fmt.Errorf("%s: %w", path, e))
		}
		return nil, errors.Join(lines...)
	}
	return r, nil
}

func list(err error) []error {
	if many, ok := err.(interface{ Unwrap() []error }); ok { //nolint:errorlint // the outermost error alone is the list
		return many.Unwrap()
	}
	return []error{err}
}

// ParseRegistry reads the YAML of a tenants_file. Unknown keys, keys that stand
// twice and further documents are errors; everything wrong is reported together.
func ParseRegistry(data []byte, o RegistryOptions) (*Registry, error) {
	dec := yaml.NewDecoder(bytes.NewReader(data))
	dec.KnownFields(true)
	var f file
	if err := dec.Decode(&f); err != nil {
		if errors.Is(err, io.EOF) {
			return nil, errors.New("the file is empty: it needs at least `version: 1`")
		}
		return nil, fmt.Errorf("not a tenants file: %s", oneLine(err))
	}
	if err := dec.Decode(new(any)); !errors.Is(err, io.EOF) {
		return nil, errors.New("there is more than one YAML document: keep one")
	}
	return build(f, o)
}

func oneLine(err error) string {
	return strings.Join(strings.Fields(strings.ReplaceAll(err.Error(), "\n", " ")), " ")
}

var (
	kmsARN     = regexp.MustCompile(`^arn:aws[a-z-]*:kms:[a-z0-9-]+:\d{12}:key/[A-Za-z0-9-]+$`)
	roleARN    = regexp.MustCompile(`^arn:aws[a-z-]*:iam::\d{12}:role/[\w+=,.@/-]{1,512}$`)
	externalID = regexp.MustCompile(`^[\w+=,.@:/-]+$`)
)

// ValidExternalID reports whether STS takes this external id: 2 to 1224 letters,
// digits and +=,.@:/-_ (API reference, AssumeRole).
func ValidExternalID(s string) bool {
	return len(s) >= 2 && len(s) <= 1224 && externalID.MatchString(s)
}

func build(f file, o RegistryOptions) (*Registry, error) {
	prefix := o.NamespacePrefix
	if prefix == "" {
		prefix = DefaultNamespacePrefix
	}
	r := &Registry{mode: o.Mode, prefix: prefix, tenants: f.Tenants, namespaces: map[string]*Tenant{}, Generation: f.Generation}
	var errs []error
	add := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if f.Version != 1 {
		add("version: %d is not known: use 1", f.Version)
	}
	if f.Generation < 0 {
		add("generation: %d is below 0", f.Generation)
	}
	if o.Mode == ModePrefix && !labelPart(prefix) {
		add("namespace_prefix: %q is not the start of a namespace's name", prefix)
	}
	for _, ns := range f.PlatformNamespaces {
		if !Label(ns) {
			add("platformNamespaces: %q is not a namespace's name", ns)
		}
		r.namespaces[ns] = nil
	}
	for _, name := range slices.Sorted(maps.Keys(f.Tenants)) {
		t := f.Tenants[name]
		if t == nil {
			t = &Tenant{}
			f.Tenants[name] = t
		}
		t.Name = name
		errs = append(errs, t.check()...)
		for _, ns := range t.Namespaces {
			if !Label(ns) {
				add("tenants.%s.namespaces: %q is not a namespace's name", name, ns)
				continue
			}
			other, taken := r.namespaces[ns]
			switch {
			case taken && other == nil:
				add("tenants.%s.namespaces: %s is also in platformNamespaces: remove it from one of the two", name, ns)
			case taken:
				add("tenants.%s.namespaces: %s is also tenant %s's: a namespace has one tenant", name, ns, other.Name)
			default:
				r.namespaces[ns] = t
			}
		}
	}
	// A tenant the file gives to some namespaces must not get another one by the
	// prefix rule behind the file's back.
	if o.Mode == ModePrefix {
		for _, name := range slices.Sorted(maps.Keys(f.Tenants)) {
			t := f.Tenants[name]
			by := prefix + name
			if _, listed := r.namespaces[by]; len(t.Namespaces) > 0 && !listed && Label(by) && !reserved(by) {
				add("tenants.%s.namespaces: the file gives the tenant to namespace %s, and namespace %s would get it by namespace_prefix: list %s as well, or put it under platformNamespaces",
					name, t.Namespaces[0], by, by)
			}
		}
	}
	if len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	return r, nil
}

func (t *Tenant) check() (errs []error) {
	add := func(key, value, remedy string) {
		errs = append(errs, fmt.Errorf("tenants.%s.%s: %q is not allowed: %s", t.Name, key, value, remedy))
	}
	if !Label(t.Name) {
		errs = append(errs, fmt.Errorf("tenants: %q is not allowed: a tenant's name is a DNS label, lower-case letters, digits and -, up to 63", t.Name))
	}
	if t.RetentionDays != 0 && !ValidRetention(t.RetentionDays) {
		add("retentionDays", fmt.Sprint(t.RetentionDays), strings.Trim(fmt.Sprint("give one of ", RetentionDays), "[]"))
	}
	for _, k := range []struct{ key, v string }{{"kmsKeyArn", t.KMSKeyARN}, {"quarantineKmsKeyArn", t.QuarantineKMSKeyARN}} {
		if k.v != "" && !kmsARN.MatchString(k.v) {
			add(k.key, k.v, "give arn:<partition>:kms:<region>:<account>:key/<id>")
		}
	}
	if t.RoleARN != "" && !roleARN.MatchString(t.RoleARN) {
		add("roleArn", t.RoleARN, "give arn:<partition>:iam::<account>:role/<name>")
	}
	if t.ExternalID != "" && !ValidExternalID(t.ExternalID) {
		add("externalId", t.ExternalID, "2 to 1224 characters of letters, digits and +=,.@:/-_")
	}
	if t.ExternalID != "" && t.RoleARN == "" {
		add("externalId", t.ExternalID, "it is used with roleArn, which is not set")
	}
	switch t.OnFailure {
	case "", "quarantine", "hold", "drop":
	default:
		add("onFailure", t.OnFailure, "give quarantine, hold or drop")
	}
	return errs
}

// Tenants lists the tenants the file names, by name.
func (r *Registry) Tenants() []*Tenant {
	all := make([]*Tenant, 0, len(r.tenants))
	for _, name := range slices.Sorted(maps.Keys(r.tenants)) {
		all = append(all, r.tenants[name])
	}
	return all
}

// Resolve says whose a namespace is. The tenant is set for KindTenant alone; one the
// prefix rule found has a name and no settings unless the file gives it some.
func (r *Registry) Resolve(namespace string) (Kind, *Tenant) {
	if t, ok := r.namespaces[namespace]; ok {
		if t == nil {
			return KindPlatform, nil
		}
		return KindTenant, t
	}
	if r.mode == ModeRegistry {
		return KindPending, nil
	}
	name, ok := strings.CutPrefix(namespace, r.prefix)
	if !ok || !Label(name) || reserved(namespace) {
		return KindPlatform, nil
	}
	if t := r.tenants[name]; t != nil {
		return KindTenant, t
	}
	return KindTenant, &Tenant{Name: name}
}

// lossLimit is how many of the known tenants, in per cent, may vanish at once before
// a new version is taken for a mistake rather than for a change.
const lossLimit = 50

// Replaceable says why next must not take the place of r: it loses most tenants at
// once, moves a namespace from one tenant to another, or is older.
func (r *Registry) Replaceable(next *Registry) error {
	var errs []error
	if next.Generation < r.Generation {
		errs = append(errs, fmt.Errorf("generation %d is older than %d, which is in force", next.Generation, r.Generation))
	}
	lost := 0
	for name := range r.tenants {
		if next.tenants[name] == nil {
			lost++
		}
	}
	if lost > 0 && lost*100 >= len(r.tenants)*lossLimit && len(r.tenants) > 1 {
		errs = append(errs, fmt.Errorf("%d of %d tenants are missing from the new version", lost, len(r.tenants)))
	}
	for _, ns := range slices.Sorted(maps.Keys(r.namespaces)) {
		was := r.namespaces[ns]
		if _, now := next.Resolve(ns); was != nil && now != nil && was.Name != now.Name {
			errs = append(errs, fmt.Errorf("namespace %s was tenant %s's and would become %s's: a namespace does not change its tenant", ns, was.Name, now.Name))
		}
	}
	return errors.Join(errs...)
}
