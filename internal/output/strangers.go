package output

import (
	"maps"
	"slices"
	"strings"
)

// foreign are options of other CloudWatch outputs that mean nothing here. Fluent Bit
// takes any key in silence and lists none, so they are asked for by name: who moves
// over should not find out from an audit that one of them did nothing.
var foreign = map[string]string{ //nolint:gosec // names of options, no credentials
	"log_group_name":         "a tenant's group is log_group_prefix and the tenant's name; what is no tenant's goes to platform_log_group: remove it",
	"log_group_template":     "a group is never made of what a record says; it is log_group_prefix and the tenant's name: remove it",
	"log_stream_name":        "one stream for all pods would mix them: use log_stream_template, or remove it",
	"log_stream_prefix":      "use log_stream_template, such as from-$(node)/$(namespace)/$(pod)/$(container), or remove it",
	"default_log_group_name": "there is no group to fall back to; what is no tenant's goes to platform_log_group: remove it",
	"new_log_group_tags":     "it is called log_group_tags here",
	"credentials_endpoint":   "set AWS_CONTAINER_CREDENTIALS_FULL_URI in the environment instead",
	"auto_retry_requests":    "each attempt is the plugin's own, so that none is made twice: remove it",
	"add_entity":             "it is not available: remove it",
	"metric_namespace":       "Fluent Bit's metrics are not taken, only logs: use another output for them",
	"metric_dimensions":      "Fluent Bit's metrics are not taken, only logs: use another output for them",
	"kms_key_arn":            "it is called kms_key_id here",
	"retention_in_days":      "it is called log_retention_days here",
	"log_group_retention":    "it is called log_retention_days here",
	"tenant_file":            "it is called tenants_file here",
	"log_group_tag":          "it is called log_group_tags here",
}

// strangers finds options that are set and mean nothing: those of other outputs, and
// ours misspelt in the ways one does.
func strangers(get func(name string) string) (errs []error) {
	known := map[string]bool{}
	for _, s := range specs {
		known[s.name] = true
	}
	found := func(name, reason string) {
		if v := get(name); v != "" && !known[name] {
			errs = append(errs, &OptionError{name, v, reason})
		}
	}
	for _, name := range slices.Sorted(maps.Keys(foreign)) {
		found(name, foreign[name])
	}
	for _, s := range specs {
		for _, name := range []string{strings.ReplaceAll(s.name, "_", ""), strings.ReplaceAll(s.name, "_", "-"), strings.ReplaceAll(s.name, "_", "."), s.name + "s"} {
			if _, told := foreign[name]; !told {
				found(name, "it is called "+s.name+" here")
			}
		}
	}
	return errs
}
