package tenancy

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"reflect"
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

// Tenant is one tenant with the settings the file gives it. What is empty or zero was
// not given, and follows the plugin's own options. It must not be changed.
type Tenant struct {
	// Name is a DNS label, and the end of its groups' names.
	Name string
	// Namespaces are those the file names; under the prefix rule there may be none.
	Namespaces []string
	// RetentionDays is the least its groups keep, in days, one of the values of the
	// variable RetentionDays; 0: log_retention_days.
	RetentionDays int
	// KMSKeyARN is the key that encrypts its group; empty: kms_key_id.
	KMSKeyARN string
	// QuarantineKMSKeyARN is the key that encrypts its quarantine group. A tenant with
	// a key of its own and none here is not quarantined unless OnFailure says so.
	QuarantineKMSKeyARN string
	// OnFailure is what becomes of events its group does not take: quarantine, hold or
	// drop; empty: on_failure, or hold for a tenant with its own key or account.
	OnFailure string
	// EMF allows its lines to make CloudWatch metrics; false: they do not.
	EMF bool
	// RoleARN is the role assumed to write into the tenant's own account; empty: the
	// plugin's own identity and account.
	RoleARN string
	// ExternalID goes with RoleARN, if its trust policy asks for one.
	ExternalID string
}

// Values of OnFailure.
const (
	OnFailureQuarantine = "quarantine"
	OnFailureHold       = "hold"
	OnFailureDrop       = "drop"
)

// OnFailureOr is the tenant's on_failure, which is otherwise where the file gives none.
// What has a key or an account of its own is not copied under the platform's unless the
// file says so.
func (t *Tenant) OnFailureOr(otherwise string) string {
	switch {
	case t.OnFailure != "":
		return t.OnFailure
	case (t.KMSKeyARN != "" || t.RoleARN != "") && t.QuarantineKMSKeyARN == "" && otherwise == OnFailureQuarantine:
		return OnFailureHold
	}
	return otherwise
}

// Equal reports whether two tenants have the same name, namespaces and settings.
func (t *Tenant) Equal(other *Tenant) bool {
	a, b := *t, *other
	a.Namespaces, b.Namespaces = nil, nil
	return reflect.DeepEqual(a, b) && slices.Equal(t.Namespaces, other.Namespaces)
}

// tenantsFile is the YAML of tenants_file. Pointers tell what is not given from what
// is given empty: `retentionDays: 0` could be meant as "for ever", `kmsKeyArn: ""` is
// a template that went wrong; both are refused rather than read as the default.
type tenantsFile struct {
	Version            *int                    `yaml:"version"`
	Generation         int64                   `yaml:"generation"`
	Tenants            map[string]*tenantEntry `yaml:"tenants"`
	PlatformNamespaces []string                `yaml:"platformNamespaces"`
}

type tenantEntry struct {
	Namespaces          []string `yaml:"namespaces"`
	RetentionDays       *int     `yaml:"retentionDays"`
	KMSKeyARN           *string  `yaml:"kmsKeyArn"`
	QuarantineKMSKeyARN *string  `yaml:"quarantineKmsKeyArn"`
	OnFailure           *string  `yaml:"onFailure"`
	EMF                 bool     `yaml:"emf"`
	RoleARN             *string  `yaml:"roleArn"`
	ExternalID          *string  `yaml:"externalId"`
}

// RegistryOptions say how a registry is read.
type RegistryOptions struct {
	Mode Mode
	// NamespacePrefix is the prefix rule's; empty means the default. So there is no
	// rule by which every namespace is its own tenant: with it, each namespace that
	// somebody adds to the cluster, an operator's among them, would be given away.
	NamespacePrefix string
}

func (o RegistryOptions) prefix() (string, error) {
	prefix := o.NamespacePrefix
	if prefix == "" {
		prefix = DefaultNamespacePrefix
	}
	if o.Mode == ModePrefix && !labelPart(prefix) {
		return "", fmt.Errorf("namespace_prefix: %q is not the start of a namespace's name: use lower-case letters, digits and -, such as %s", prefix, DefaultNamespacePrefix)
	}
	return prefix, nil
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
	switch k {
	case KindPlatform:
		return "platform"
	case KindPending:
		return "pending"
	case KindTenant:
		return "tenant"
	}
	return "unrouted"
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

// reserved reports whether a namespace is never a tenant's by the prefix rule, whatever
// the prefix: Kubernetes keeps `kube-` for itself, and `default` is everybody's.
func reserved(namespace string) bool {
	return strings.HasPrefix(namespace, "kube-") || namespace == "default"
}

// NewRegistry is the registry without a file: the prefix rule alone. In registry mode
// that is an error.
func NewRegistry(o RegistryOptions) (*Registry, error) {
	if o.Mode == ModeRegistry {
		return nil, errors.New("tenant_source registry needs a file to read the registry from")
	}
	prefix, err := o.prefix()
	if err != nil {
		return nil, err
	}
	return &Registry{mode: o.Mode, prefix: prefix}, nil
}

// LoadRegistry reads the registry from a file. Each line of its error names the file.
func LoadRegistry(path string, o RegistryOptions) (*Registry, error) {
	if _, err := o.prefix(); err != nil {
		return nil, err // not the file's fault
	}
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

// ParseRegistry reads the YAML of a tenants_file. Unknown keys, keys that stand twice,
// merged (<<) or without a name, empty entries and further documents are errors, with
// their line; everything wrong is reported together, an error a line.
func ParseRegistry(data []byte, o RegistryOptions) (*Registry, error) {
	prefix, err := o.prefix()
	if err != nil {
		return nil, err
	}
	// What the decoder would pass over in silence is looked for in the tree.
	var tree yaml.Node
	dec := yaml.NewDecoder(bytes.NewReader(data))
	if err := dec.Decode(&tree); errors.Is(err, io.EOF) {
		return nil, errors.New("the file is empty: it needs at least `version: 1`")
	} else if err != nil {
		return nil, notYAML(err)
	}
	errs := plain(&tree)
	var more yaml.Node
	if err := dec.Decode(&more); err == nil {
		errs = append(errs, fmt.Errorf("line %d: another YAML document begins: keep one", more.Line))
	} else if !errors.Is(err, io.EOF) {
		return nil, notYAML(err)
	}
	sound := len(errs) == 0 // else what follows would be said of something half read

	var f tenantsFile
	dec = yaml.NewDecoder(bytes.NewReader(data))
	dec.KnownFields(true)
	if err := dec.Decode(&f); err != nil {
		types := new(yaml.TypeError)
		if !errors.As(err, &types) {
			return nil, notYAML(err)
		}
		for _, text := range types.Errors {
			text, unknownKey := inWords(text)
			errs, sound = append(errs, errors.New(text)), sound && unknownKey
		}
	}
	if !sound {
		return nil, errors.Join(errs...)
	}
	r, wrong := build(f, o.Mode, prefix)
	if errs = append(errs, wrong...); len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	return r, nil
}

func notYAML(err error) error {
	return fmt.Errorf("not a tenants file: %s", oneLine(strings.TrimPrefix(err.Error(), "yaml: ")))
}

func oneLine(s string) string { return strings.Join(strings.Fields(s), " ") }

// plain looks for keys and list entries without a value, which the decoder drops, and
// for keys that are merged or aliases, which can stand twice without its noticing.
func plain(n *yaml.Node) (errs []error) {
	for i, c := range n.Content {
		switch {
		case n.Kind == yaml.MappingNode && i%2 == 0 && c.Kind == yaml.ScalarNode && c.ShortTag() == "!!merge":
			errs = append(errs, fmt.Errorf("line %d: keys can't be merged with <<: write them out", c.Line))
		case n.Kind == yaml.MappingNode && i%2 == 0 && (c.Kind != yaml.ScalarNode || c.ShortTag() == "!!null"):
			errs = append(errs, fmt.Errorf("line %d: a key is no plain name: write it out", c.Line))
		case n.Kind == yaml.SequenceNode && c.ShortTag() == "!!null":
			errs = append(errs, fmt.Errorf("line %d: a list has an empty entry: remove it", c.Line))
		}
		errs = append(errs, plain(c)...)
	}
	return errs
}

var (
	unknownField = regexp.MustCompile(`(?s)^line (\d+): field (.*) not found in type tenancy\.(\w+)$`)
	wrongType    = regexp.MustCompile(`(?s)^line (\d+): cannot unmarshal \S*(.*) into (\S+)$`)
	fileKeys     = map[string]string{
		"tenantsFile": "version, generation, tenants, platformNamespaces",
		"tenantEntry": "namespaces, retentionDays, kmsKeyArn, quarantineKmsKeyArn, onFailure, emf, roleArn, externalId",
	}
	goTypes = map[string]string{
		"int": "a whole number", "int64": "a whole number", "bool": "true or false", "string": "text", "[]string": "a list of names",
	}
)

// inWords is the decoder's error without Go's types, and whether it is just a key that
// is not known, so that all else was read.
func inWords(text string) (words string, unknownKey bool) {
	if m := unknownField.FindStringSubmatch(text); m != nil {
		return fmt.Sprintf("line %s: %q is not known here: use %s", m[1], m[2], fileKeys[m[3]]), true
	}
	if m := wrongType.FindStringSubmatch(text); m != nil {
		want := goTypes[m[3]]
		if want == "" {
			want = "keys with values"
		}
		value := "what stands here"
		if v := oneLine(m[2]); strings.Trim(v, "`") != "" {
			value = v
		}
		return fmt.Sprintf("line %s: %s is not allowed: give %s", m[1], value, want), false
	}
	return oneLine(text), false
}

// The partition is part of the pattern, not of the code: aws, aws-us-gov, aws-cn, …
// Keys and roles are shaped as the KMS and IAM API references say. A key's alias is not
// taken: it can be turned to another key behind the file's back.
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

// build checks what the file says as a whole.
func build(f tenantsFile, mode Mode, prefix string) (*Registry, []error) {
	r := &Registry{mode: mode, prefix: prefix, tenants: map[string]*Tenant{}, namespaces: map[string]*Tenant{}, Generation: f.Generation}
	var errs []error
	add := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	const namespaceName = "%q is not a namespace's name: use lower-case letters, digits and -, up to 63"
	switch {
	case f.Version == nil:
		add("version: it is missing: add `version: 1`")
	case *f.Version != 1:
		add("version: %d is not known: use 1", *f.Version)
	}
	if f.Generation < 0 {
		add("generation: %d is below 0: count up from 1", f.Generation)
	}
	for _, ns := range f.PlatformNamespaces {
		if _, twice := r.namespaces[ns]; twice {
			add("platformNamespaces: %q is listed twice: remove one", ns)
		} else if !Label(ns) {
			add("platformNamespaces: "+namespaceName, ns)
		}
		r.namespaces[ns] = nil
	}
	for _, name := range slices.Sorted(maps.Keys(f.Tenants)) {
		key := "tenants." + name
		if !Label(name) {
			key = fmt.Sprintf("tenants.%q", name)
			add("tenants: %q is not allowed: a tenant's name is a DNS label, lower-case letters, digits and -, up to 63", name)
		}
		e := f.Tenants[name]
		if e == nil {
			e = &tenantEntry{}
		}
		t, wrong := e.tenant(name, key)
		errs = append(errs, wrong...)
		r.tenants[name] = t
		for _, ns := range t.Namespaces {
			other, taken := r.namespaces[ns]
			switch {
			case !Label(ns):
				add("%s.namespaces: "+namespaceName, key, ns)
			case taken && other == nil:
				add("%s.namespaces: %s is also in platformNamespaces: remove it from one of the two", key, ns)
			case taken && other == t:
				add("%s.namespaces: %s is listed twice: remove one", key, ns)
			case taken:
				add("%s.namespaces: %s is also tenant %q's: a namespace has one tenant: remove it from one of the two", key, ns, other.Name)
			default:
				r.namespaces[ns] = t
			}
		}
	}
	// A tenant the file gives to some namespaces must not get another one by the
	// prefix rule behind the file's back.
	if mode == ModePrefix {
		for _, t := range r.Tenants() {
			by := prefix + t.Name
			if _, listed := r.namespaces[by]; len(t.Namespaces) > 0 && !listed && Label(by) && !reserved(by) {
				add("tenants.%s.namespaces: the file gives the tenant to namespace %q, and namespace %s would get it by namespace_prefix: list %s as well, or put it under platformNamespaces",
					t.Name, t.Namespaces[0], by, by)
			}
		}
	}
	return r, errs
}

// tenant checks one tenant's settings, which stand under path.
func (e *tenantEntry) tenant(name, path string) (t *Tenant, errs []error) {
	add := func(key, value, remedy string) {
		errs = append(errs, fmt.Errorf("%s.%s: %q is not allowed: %s", path, key, value, remedy))
	}
	t = &Tenant{Name: name, Namespaces: e.Namespaces, EMF: e.EMF}
	if e.RetentionDays != nil {
		if t.RetentionDays = *e.RetentionDays; !ValidRetention(t.RetentionDays) {
			add("retentionDays", fmt.Sprint(t.RetentionDays), "give one of "+strings.Trim(fmt.Sprint(RetentionDays), "[]"))
		}
	}
	for _, k := range []struct {
		key    string
		given  *string
		to     *string
		valid  func(string) bool
		remedy string
	}{
		{"kmsKeyArn", e.KMSKeyARN, &t.KMSKeyARN, kmsARN.MatchString, "give arn:<partition>:kms:<region>:<account>:key/<id>"},
		{"quarantineKmsKeyArn", e.QuarantineKMSKeyARN, &t.QuarantineKMSKeyARN, kmsARN.MatchString, "give arn:<partition>:kms:<region>:<account>:key/<id>"},
		{"onFailure", e.OnFailure, &t.OnFailure, validOnFailure, "give quarantine, hold or drop"},
		{"roleArn", e.RoleARN, &t.RoleARN, roleARN.MatchString, "give arn:<partition>:iam::<account>:role/<name>"},
		{"externalId", e.ExternalID, &t.ExternalID, ValidExternalID, "give 2 to 1224 characters of letters, digits and +=,.@:/-_"},
	} {
		if k.given == nil {
			continue
		}
		if *k.to = *k.given; !k.valid(*k.given) {
			add(k.key, *k.given, k.remedy)
		}
	}
	if e.ExternalID != nil && e.RoleARN == nil {
		add("externalId", t.ExternalID, "it is used with roleArn, which is not set: set it, or remove this")
	}
	return t, errs
}

func validOnFailure(s string) bool {
	return s == OnFailureQuarantine || s == OnFailureHold || s == OnFailureDrop
}

// Tenants lists the tenants the file names, by name. They must not be changed.
func (r *Registry) Tenants() []*Tenant {
	all := make([]*Tenant, 0, len(r.tenants))
	for _, name := range slices.Sorted(maps.Keys(r.tenants)) {
		all = append(all, r.tenants[name])
	}
	return all
}

// Tenant is the tenant with the settings the file gives it; nil for one that is not
// in the file.
func (r *Registry) Tenant(name string) *Tenant { return r.tenants[name] }

// Resolve says whose a namespace is. The tenant is set for KindTenant alone; one the
// prefix rule found has a name and no settings unless the file gives it some. Only
// for one that is not in the file it allocates. In registry mode the prefix is never
// looked at.
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

// Replaceable says why next must not take the place of r, all reasons together:
//
//   - it has a lower generation;
//   - more than half of the tenants in r's file are lost: they are no longer in next's,
//     or none of their namespaces is theirs any more. That is how an emptied or half
//     written file looks; to retire so many at once, start anew;
//   - a namespace passes from one tenant to another, be it by the file or by the prefix
//     rule: its new owner would get the old one's lines still on their way;
//   - it was read with another mode or prefix.
//
// A namespace may become the platform's, or leave it. Two versions are all that is
// compared: who had a namespace before them is for the provisioner to remember.
func (r *Registry) Replaceable(next *Registry) error {
	var errs []error
	add := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if next.mode != r.mode || next.mode == ModePrefix && next.prefix != r.prefix {
		add("tenant_source %s with namespace_prefix %s would become %s with %s: neither changes while running", r.mode, r.prefix, next.mode, next.prefix)
	}
	if next.Generation < r.Generation {
		add("generation %d is older than %d, which is in force", next.Generation, r.Generation)
	}
	lost := 0
	for _, t := range r.tenants {
		if !next.keeps(t) {
			lost++
		}
	}
	if 2*lost > len(r.tenants) {
		add("%d of %d tenants are missing from the new version, or have none of their namespaces left", lost, len(r.tenants))
	}
	all := maps.Clone(r.namespaces)
	if all == nil {
		all = map[string]*Tenant{}
	}
	maps.Copy(all, next.namespaces)
	for _, ns := range slices.Sorted(maps.Keys(all)) {
		_, was := r.Resolve(ns)
		_, now := next.Resolve(ns)
		if was != nil && now != nil && was.Name != now.Name {
			add("namespace %s was tenant %s's and would become %s's: a namespace does not change its tenant", ns, was.Name, now.Name)
		}
	}
	return errors.Join(errs...)
}

// keeps reports whether the file still has a tenant and one of the namespaces it had.
func (r *Registry) keeps(t *Tenant) bool {
	if r.tenants[t.Name] == nil {
		return false
	}
	return len(t.Namespaces) == 0 || slices.ContainsFunc(t.Namespaces, func(ns string) bool {
		_, now := r.Resolve(ns)
		return now != nil && now.Name == t.Name
	})
}
