package output

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/eks-tenant-logs/eks-tenant-logs/internal/awsclient"
	"github.com/eks-tenant-logs/eks-tenant-logs/internal/tenancy"
)

// Options are one [OUTPUT] section, validated. Where core cloudwatch_logs has an
// option of the same meaning, ours has its name.
type Options struct {
	Region, Endpoint, STSEndpoint, Profile string
	RoleARN, ExternalID                    string
	ExtraUserAgent                         string
	UseFIPS, UseDualStack                  bool

	Identity     string // "tag" or "record"
	TenantSource tenancy.Mode
	TenantsFile  string
	// NamespacePrefix is what the prefix rule cuts off a namespace.
	NamespacePrefix string
	// TagPrefix is empty for the two layouts under /var/log.
	TagPrefix []string

	LogGroupPrefix, PlatformLogGroup, QuarantineLogGroupPrefix string
	LogStreamTemplate                                          string
	LogKey                                                     string
	// ParseCRI says that records hold lines of container log files as the runtime wrote them.
	ParseCRI bool

	AutoCreateGroup bool
	RetentionDays   int
	// RetentionCheckDelay bounds the random wait before groups that existed before are
	// looked at.
	RetentionCheckDelay time.Duration
	LogGroupClass       string
	LogGroupTags        map[string]string
	KMSKeyID            string
	DeletionProtection  bool

	// EMF announces messages in the embedded metric format, for tenants that may.
	EMF bool
	// DropLate drops records whose time CloudWatch refuses.
	DropLate bool
	// OnFailure is quarantine, hold or drop.
	OnFailure string
	// HoldBudget is how many chunks may be held; 0 means any number.
	HoldBudget int

	Compress     bool
	FlushTimeout time.Duration
	MaxInFlight  int

	// StatePath is a folder; empty for none.
	StatePath string
	// StoragePath is Fluent Bit's storage.path; empty where it is not told.
	StoragePath string
	// StopWhenFull ends Fluent Bit where the volume of StoragePath is full.
	StopWhenFull bool
	// MetricsListen is host:port; empty for no metrics.
	MetricsListen string
}

// spec is one option: its name, its default, what is allowed, what it means (Markdown,
// for docs/options.md), and how it is read.
type spec struct {
	name, value, allowed, meaning string
	set                           func(*Options, string) error
}

// errValue is the answer of a setter whose allowed text says everything.
var errValue = errors.New("not allowed")

func text(field func(*Options) *string) func(*Options, string) error {
	return func(o *Options, v string) error { *field(o) = v; return nil }
}

func matching(re string, field func(*Options) *string) func(*Options, string) error {
	r := regexp.MustCompile(re)
	return func(o *Options, v string) error {
		if v != "" && !r.MatchString(v) {
			return errValue
		}
		*field(o) = v
		return nil
	}
}

func endpoint(field func(*Options) *string) func(*Options, string) error {
	return func(o *Options, v string) error {
		u, err := awsclient.EndpointURL(v)
		*field(o) = u
		return err
	}
}

func oneOf(values []string, field func(*Options) *string) func(*Options, string) error {
	return func(o *Options, v string) error {
		for _, a := range values {
			if strings.EqualFold(a, v) {
				*field(o) = a
				return nil
			}
		}
		return errValue
	}
}

// choice is one of some words, each of which means yes or no.
func choice(words map[string]bool, field func(*Options) *bool) func(*Options, string) error {
	return func(o *Options, v string) error {
		is, ok := words[strings.ToLower(v)]
		if !ok {
			return errValue
		}
		*field(o) = is
		return nil
	}
}

// boolean takes the words Fluent Bit takes (flb_utils_bool).
func boolean(field func(*Options) *bool) func(*Options, string) error {
	return choice(map[string]bool{"on": true, "true": true, "yes": true, "off": false, "false": false, "no": false}, field)
}

func number(low, high int, field func(*Options) *int) func(*Options, string) error {
	return func(o *Options, v string) error {
		n, err := strconv.Atoi(v)
		if err != nil || n < low || n > high {
			return errValue
		}
		*field(o) = n
		return nil
	}
}

func duration(low, high time.Duration, field func(*Options) *time.Duration) func(*Options, string) error {
	return func(o *Options, v string) error {
		if _, err := strconv.Atoi(v); err == nil {
			v += "s"
		}
		d, err := time.ParseDuration(v)
		if err != nil || d < low || d > high {
			return errValue
		}
		*field(o) = d
		return nil
	}
}

const onOff = "on or off"

var specs = []spec{
	{"region", "", "an AWS region such as us-east-1; default: AWS_REGION",
		"The region the logs go to.",
		matching(`^[a-z]{2,}(-[a-z0-9]+)+-\d+$`, func(o *Options) *string { return &o.Region })},
	{"endpoint", "", "a host, host:port, or https://host[:port]",
		"Replaces AWS's host for CloudWatch Logs, such as a VPC endpoint's. Plain http only for this machine's own addresses. Empty leaves it to `AWS_ENDPOINT_URL_CLOUDWATCH_LOGS`, `AWS_ENDPOINT_URL` and the profile's `endpoint_url`, for which the same rules hold.",
		endpoint(func(o *Options) *string { return &o.Endpoint })},
	{"sts_endpoint", "", "a host, host:port, or https://host[:port]",
		"The same for STS, for `role_arn` and tenants' `roleArn`. Empty leaves it to `AWS_ENDPOINT_URL_STS`, `AWS_ENDPOINT_URL` and the profile. The credentials that the SDK finds by itself (a web identity, a profile's `role_arn`) ask the STS of the environment or the profile in any case.",
		endpoint(func(o *Options) *string { return &o.STSEndpoint })},
	{"use_fips", "off", onOff,
		"FIPS 140 endpoints. Not together with `endpoint` or `sts_endpoint`. In GovCloud the plain host is the FIPS one. `off` leaves it to `AWS_USE_FIPS_ENDPOINT` and the profile.",
		boolean(func(o *Options) *bool { return &o.UseFIPS })},
	{"use_dual_stack", "off", onOff,
		"Endpoints that have IPv6 addresses too, such as `logs.eu-central-1.api.aws`. Not together with `endpoint` or `sts_endpoint`. `off` leaves it to `AWS_USE_DUALSTACK_ENDPOINT` and the profile.",
		boolean(func(o *Options) *bool { return &o.UseDualStack })},
	{"profile", "", "a profile of the shared AWS configuration",
		"A profile of the shared AWS configuration files, which are read again when they change.",
		text(func(o *Options) *string { return &o.Profile })},
	{"role_arn", "", "arn:<partition>:iam::<account>:role/<name>",
		"A role to assume for all calls.",
		matching(`^arn:aws[a-z-]*:iam::\d{12}:role/[\w+=,.@/-]{1,512}$`, func(o *Options) *string { return &o.RoleARN })},
	{"external_id", "", "2 to 1224 characters of letters, digits and +=,.@:/-_",
		"Goes with `role_arn`.",
		func(o *Options, v string) error {
			if o.ExternalID = v; v != "" && !tenancy.ValidExternalID(v) {
				return errValue
			}
			return nil
		}},
	{"extra_user_agent", "", "up to 128 letters, digits and !#$%&'*+-.^_`|~/",
		"Appended to the user agent of every call.",
		matching("^[A-Za-z0-9!#$%&'*+.^_`|~/-]{1,128}$", func(o *Options) *string { return &o.ExtraUserAgent })},

	{"identity", "tag", "tag or record",
		"Whose a record is: what its tag says, or (`record`, for aggregators only) what its last `kubernetes` map says: [security.md](security.md).",
		oneOf([]string{"tag", "record"}, func(o *Options) *string { return &o.Identity })},
	{"tenant_source", "prefix", "prefix or registry",
		"Namespace to tenant by the prefix rule with the file's exceptions, or only by the file.",
		func(o *Options, v string) (err error) { o.TenantSource, err = tenancy.ParseMode(v); return err }},
	{"tenants_file", "", "the path of a YAML file",
		"Tenants, their namespaces and settings: see below. Reloaded when it changes.",
		text(func(o *Options) *string { return &o.TenantsFile })},
	{"namespace_prefix", "tenant-", "the start of a namespace's name",
		"What the prefix rule cuts off: `tenant-acme` is tenant `acme`.",
		text(func(o *Options) *string { return &o.NamespacePrefix })},
	{"tag_prefix", "", "prefixes separated by commas, each ending in containers. or pods.",
		"How tags of pods' files begin, matched exactly, without wildcards or variables; it tells the layout by its end. Default: `kube.var.log.pods.` and `kube.var.log.containers.`, which is `tail` with `Tag kube.*`.",
		func(o *Options, v string) error {
			o.TagPrefix = nil
			if strings.ContainsRune(v, '*') {
				return fmt.Errorf("a wildcard is not expanded in %q: a tag that tail makes has the file's path, with dots for slashes, in place of its Tag's *", v)
			}
			for _, p := range strings.Split(v, ",") {
				if p = strings.TrimSpace(p); p != "" {
					o.TagPrefix = append(o.TagPrefix, p)
				}
			}
			_, err := tenancy.NewTagParser(o.TagPrefix)
			return err
		}},
	{"log_group_prefix", "/eks/tenants/", "a prefix of group names ending in /",
		"A tenant's group is this and its name.",
		text(func(o *Options) *string { return &o.LogGroupPrefix })},
	{"platform_log_group", "/eks/platform", "a group name",
		"Takes what is no tenant's, and in stream `unrouted` what names no pod.",
		text(func(o *Options) *string { return &o.PlatformLogGroup })},
	{"quarantine_log_group_prefix", "/eks/quarantine/", "a prefix of group names ending in /",
		"Quarantine groups are this and the tenant's name; in registry mode `_pending` takes namespaces that are not in the registry yet.",
		text(func(o *Options) *string { return &o.QuarantineLogGroupPrefix })},
	{"log_stream_template", tenancy.DefaultStreamTemplate, "text with $(node) $(namespace) $(pod) $(container) $(tenant)",
		"The name of a stream. Variables are kept apart by a character no Kubernetes name holds; any other `$` is refused, as core's `$kubernetes['pod_name']` would be taken literally.",
		func(o *Options, v string) error {
			o.LogStreamTemplate = v
			_, err := tenancy.ParseStreamTemplate(v)
			return err
		}},
	{"parser", "none", "none or cri",
		"`cri`: records hold lines of container log files as the runtime wrote them, which is `tail` without any parser. The plugin takes them apart and joins the parts of long lines: [message.md](message.md). Not with `identity record`.",
		choice(map[string]bool{"none": false, "cri": true}, func(o *Options) *bool { return &o.ParseCRI })},
	{"log_key", "", "the name of one top-level field, such as log",
		"Sends this one field raw instead of the record as JSON. Matched exactly: a record accessor such as `$log` or `$kubernetes['labels']` is refused. To send a field whose name begins with `$`, rename it with a filter.",
		text(func(o *Options) *string { return &o.LogKey })},
	{"log_format", "json", "json or json/emf",
		"`json/emf` announces the embedded metric format for tenants with `emf: true`, and needs one.",
		choice(map[string]bool{"json": false, "json/emf": true}, func(o *Options) *bool { return &o.EMF })},
	{"late_events", "restamp", "restamp or drop",
		"Records CloudWatch refuses for their time: delivered with the present one, their own kept; or dropped and counted.",
		choice(map[string]bool{"restamp": false, "drop": true}, func(o *Options) *bool { return &o.DropLate })},
	{"on_failure", "quarantine", "quarantine, hold or drop",
		"What is done with a tenant's events while its group does not take them: [delivery.md](delivery.md). A tenant with a key or an account of its own has `hold` instead of `quarantine` unless `tenants_file` says otherwise.",
		oneOf([]string{onFailureQuarantine, onFailureHold, onFailureDrop}, func(o *Options) *string { return &o.OnFailure })},
	{"hold_budget", defaultHoldBudget, "0 to 2000 chunks; 0 is no bound",
		"How many chunks may wait with Fluent Bit for log groups that take nothing: each is one of its 2,048 tasks, and when those are used up nobody's logs move. What comes above it: [delivery.md](delivery.md).",
		number(0, 2000, func(o *Options) *int { return &o.HoldBudget })},

	{"auto_create_group", "on", onOff,
		"Create missing groups and keep their retention. With `off` a missing group is an error and retention is the provisioner's.",
		boolean(func(o *Options) *bool { return &o.AutoCreateGroup })},
	{"log_retention_days", "365", "a number of days CloudWatch Logs knows: " + retentionDays(),
		"The least a group keeps its events. Existing groups are raised, never shortened.",
		func(o *Options, v string) error {
			n, err := strconv.Atoi(v)
			if err != nil || !tenancy.ValidRetention(n) {
				return errValue
			}
			o.RetentionDays = n
			return nil
		}},
	{"retention_check_delay", "5m", "a time from 0s to 1h, such as 5m; a number alone is seconds",
		"A random wait up to this long before the retention of groups that existed already is looked at, so that a restart of all nodes is no burst on an account's quota. New groups do not wait.",
		duration(0, time.Hour, func(o *Options) *time.Duration { return &o.RetentionCheckDelay })},
	{"log_group_class", "STANDARD", "STANDARD or INFREQUENT_ACCESS",
		"Of groups that are created; it can't be changed later.",
		oneOf([]string{"STANDARD", "INFREQUENT_ACCESS"}, func(o *Options) *string { return &o.LogGroupClass })},
	{"log_group_tags", "", "key=value pairs separated by commas, of letters, digits, spaces and _.:/=+-@, at most 40, no key starting with aws: or eks-tenant-logs/state or /tenant",
		"Of groups that are created.",
		func(o *Options, v string) (err error) {
			o.LogGroupTags, err = parseTags(v)
			return err
		}},
	{"kms_key_id", "", "arn:<partition>:kms:<region>:<account>:key/<id>",
		"The key that encrypts groups that are created.",
		matching(`^arn:aws[a-z-]*:kms:[a-z0-9-]+:\d{12}:key/[A-Za-z0-9-]+$`, func(o *Options) *string { return &o.KMSKeyID })},
	{"deletion_protection", "off", onOff,
		"Of groups that are created.",
		boolean(func(o *Options) *bool { return &o.DeletionProtection })},

	{"compress", "gzip", "gzip or none",
		"Request bodies.",
		choice(map[string]bool{"gzip": true, "none": false}, func(o *Options) *bool { return &o.Compress })},
	{"flush_timeout", "60s", "a time from 1s to 5m, such as 60s; a number alone is seconds",
		"How long a flush may take. Keep Fluent Bit's `Grace` above it.",
		duration(time.Second, 5*time.Minute, func(o *Options) *time.Duration { return &o.FlushTimeout })},
	{"max_in_flight", "32", "1 to 256 calls at once",
		"PutLogEvents calls at once, of this `[OUTPUT]`; one log group has half of them. With fewer than 8, calls that hang for two tenants can hold up the others.",
		number(1, 256, func(o *Options) *int { return &o.MaxInFlight })},
	{"state_path", "", "the path of a folder",
		"Where is kept over a restart what was delivered of chunks that were not delivered whole, so that the rest does not bring it twice. Beside Fluent Bit's `storage.path`, with `storage.type filesystem`.",
		text(func(o *Options) *string { return &o.StatePath })},
	{"storage_path", "", "Fluent Bit's `storage.path`",
		"The folder of Fluent Bit's chunks, which a plugin can't ask for. Its volume's free space is watched: a metric, and an error while next to nothing is free.",
		text(func(o *Options) *string { return &o.StoragePath })},
	{"on_full_volume", "continue", "continue or stop",
		"What is done while the volume of `storage_path` is full, where Fluent Bit reads on and loses every line. `stop` ends Fluent Bit in order, and refuses a start: lines wait in their files. Where enough chunks wait that their delivery makes room, it ends Fluent Bit only after 10 s in which nothing was accepted, and refuses no start. " +
			"It needs something that starts Fluent Bit again, also after exit code 0, such as the kubelet.",
		choice(map[string]bool{"continue": false, "stop": true}, func(o *Options) *bool { return &o.StopWhenFull })},
	{"metrics_listen", "", "host:port or :port",
		"Metrics and health: [metrics.md](metrics.md). One address a process.",
		func(o *Options, v string) error {
			if o.MetricsListen = v; v == "" {
				return nil
			}
			_, port, err := net.SplitHostPort(v)
			if n, perr := strconv.Atoi(port); err != nil || perr != nil || n < 0 || n > 65535 {
				return errValue
			}
			return nil
		}},
}

func retentionDays() string {
	days := make([]string, len(tenancy.RetentionDays))
	for i, d := range tenancy.RetentionDays {
		days[i] = strconv.Itoa(d)
	}
	return strings.Join(days, " ")
}

// maxTags leaves room for our own tags: a log group has at most 50.
const maxTags = 40

// tagText is what CreateLogGroup allows in a tag's key and value.
var tagText = regexp.MustCompile(`^[\p{L}\p{Z}\p{N}_.:/=+\-@]*$`)

func parseTags(v string) (map[string]string, error) {
	tags := map[string]string{}
	for _, pair := range strings.Split(v, ",") {
		if pair = strings.TrimSpace(pair); pair == "" {
			continue
		}
		key, value, ok := strings.Cut(pair, "=")
		key, value = strings.TrimSpace(key), strings.TrimSpace(value)
		_, twice := tags[key]
		if !ok || key == "" || len(key) > 128 || len(value) > 256 || twice || len(tags) == maxTags ||
			!tagText.MatchString(key) || !tagText.MatchString(value) ||
			strings.HasPrefix(strings.ToLower(key), "aws:") || key == "eks-tenant-logs/state" || key == "eks-tenant-logs/tenant" {
			return nil, fmt.Errorf("at %q", pair)
		}
		tags[key] = value
	}
	return tags, nil
}

// OptionError is one option that can't be used.
type OptionError struct{ Name, Value, Reason string }

func (e *OptionError) Error() string {
	return fmt.Sprintf("%s: %q is not allowed: %s", e.Name, e.Value, e.Reason)
}

// ParseOptions reads every option through get, which answers "" for one that is not
// set. It reports all that is wrong at once, each as an OptionError.
func ParseOptions(get func(name string) string) (Options, error) {
	var o Options
	var errs []error
	for _, s := range specs {
		v := strings.TrimSpace(get(s.name))
		if v == "" {
			v = s.value
		}
		err := s.set(&o, v)
		reason := literal(s.name, v)
		switch {
		case reason != "":
			errs = append(errs, &OptionError{s.name, v, reason + ": give " + s.allowed})
		case err == nil:
		case errors.Is(err, errValue):
			errs = append(errs, &OptionError{s.name, v, "give " + s.allowed})
		default:
			errs = append(errs, &OptionError{s.name, v, err.Error() + "; give " + s.allowed})
		}
	}
	errs = append(errs, strangers(get)...)
	if len(errs) == 0 {
		errs = append(errs, o.together()...)
	}
	return o, errors.Join(errs...)
}

// together checks what no option can know alone.
func (o *Options) together() (errs []error) {
	add := func(name, value, reason string) { errs = append(errs, &OptionError{name, value, reason}) }
	if o.ExternalID != "" && o.RoleARN == "" {
		add("external_id", o.ExternalID, "it is used with role_arn, which is not set")
	}
	if o.STSEndpoint != "" && o.RoleARN == "" && o.TenantsFile == "" {
		add("sts_endpoint", o.STSEndpoint, "it is used with role_arn, or with roleArn in tenants_file, neither of which is set")
	}
	if o.ParseCRI && o.Identity == "record" {
		add("parser", "cri", "identity is record, and the parts of different containers' lines could be joined; let the forwarders parse, or set identity tag")
	}
	if o.StopWhenFull && o.StoragePath == "" {
		add("on_full_volume", "stop", "it is the volume of storage_path, which is not set")
	}
	for _, kind := range []struct {
		name string
		on   bool
	}{{"use_fips", o.UseFIPS}, {"use_dual_stack", o.UseDualStack}} {
		if kind.on && o.Endpoint != "" {
			add(kind.name, "on", "endpoint is set and would win; set one of them")
		}
		if kind.on && o.STSEndpoint != "" {
			add(kind.name, "on", "sts_endpoint is set and would win; set one of them")
		}
	}
	if o.TenantSource == tenancy.ModeRegistry && o.TenantsFile == "" {
		add("tenant_source", "registry", "the registry is read from tenants_file, which is not set")
	}
	if _, err := tenancy.NewNames(o.LogGroupPrefix, o.PlatformLogGroup, o.QuarantineLogGroupPrefix); err != nil {
		for _, e := range flatten(err) {
			add("log_group_prefix, platform_log_group, quarantine_log_group_prefix",
				o.LogGroupPrefix+" "+o.PlatformLogGroup+" "+o.QuarantineLogGroupPrefix, e.Error())
		}
	}
	return errs
}

// flatten lists what errors.Join joined.
func flatten(err error) []error {
	var many interface{ Unwrap() []error }
	if errors.As(err, &many) {
		return many.Unwrap()
	}
	return []error{err}
}

// Effective lists the options as they are in force, for the log. external_id is said
// to be set and no more: whoever knows it can ask for the role. inForce replaces options by
// what they come to together with the environment and the profile.
func (o *Options) Effective(inForce ...slog.Attr) []slog.Attr {
	tags := make([]string, 0, len(o.LogGroupTags))
	for k, v := range o.LogGroupTags {
		tags = append(tags, k+"="+v)
	}
	slices.Sort(tags)
	external := ""
	if o.ExternalID != "" {
		external = "set"
	}
	word := func(is bool, yes, no string) string {
		if is {
			return yes
		}
		return no
	}
	values := map[string]any{
		"region": o.Region, "endpoint": o.Endpoint, "sts_endpoint": o.STSEndpoint, "use_fips": o.UseFIPS, "use_dual_stack": o.UseDualStack, "profile": o.Profile,
		"role_arn": o.RoleARN, "external_id": external, "extra_user_agent": o.ExtraUserAgent,
		"identity": o.Identity, "tenant_source": o.TenantSource.String(), "tenants_file": o.TenantsFile,
		"namespace_prefix": o.NamespacePrefix, "tag_prefix": strings.Join(o.TagPrefix, ","),
		"log_group_prefix": o.LogGroupPrefix, "platform_log_group": o.PlatformLogGroup,
		"quarantine_log_group_prefix": o.QuarantineLogGroupPrefix, "log_stream_template": o.LogStreamTemplate,
		"log_key": o.LogKey, "parser": word(o.ParseCRI, "cri", "none"), "auto_create_group": o.AutoCreateGroup, "log_retention_days": o.RetentionDays,
		"retention_check_delay": o.RetentionCheckDelay.String(), "log_group_class": o.LogGroupClass,
		"log_group_tags": strings.Join(tags, ","), "kms_key_id": o.KMSKeyID, "deletion_protection": o.DeletionProtection,
		"log_format": word(o.EMF, "json/emf", "json"), "late_events": word(o.DropLate, "drop", "restamp"), "on_failure": o.OnFailure, "hold_budget": o.HoldBudget,
		"compress": word(o.Compress, "gzip", "none"), "flush_timeout": o.FlushTimeout.String(), "max_in_flight": o.MaxInFlight, "metrics_listen": o.MetricsListen, "state_path": o.StatePath,
		"storage_path": o.StoragePath, "on_full_volume": word(o.StopWhenFull, "stop", "continue"),
	}
	for _, a := range inForce {
		values[a.Key] = a.Value.Any()
	}
	names := make([]string, 0, len(values))
	for name, v := range values {
		if v != "" {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	attrs := make([]slog.Attr, len(names))
	for i, name := range names {
		attrs[i] = slog.Any(name, values[name])
	}
	return attrs
}
