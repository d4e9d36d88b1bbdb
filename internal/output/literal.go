package output

import "regexp"

// foreignSyntax is what other outputs and Fluent Bit replace by a record's or a tag's content: record accessors
// ($log, $kubernetes['pod_name'], $TAG, $(pod)), templates ({pod}, {{ .pod }}) and Tag_Regex's names (<pod>). Fluent Bit
// itself replaces ${VARIABLE} from its environment before a plugin reads an option.
var foreignSyntax = regexp.MustCompile(`\$[A-Za-z0-9_({\[]|\{\{|\{[A-Za-z_.]+\}|\[['"]|<[A-Za-z_]`)

// ownSyntax are the options that say themselves what a $ means in them.
var ownSyntax = map[string]bool{"log_stream_template": true, "extra_user_agent": true}

// literal refuses a value that would be taken as it is although it asks for something to be put in its place. A value
// that really has such characters can't be given: no name that AWS or Kubernetes allows has them, and a record's field
// can be renamed by a filter.
func literal(name, value string) (reason string) {
	if ownSyntax[name] {
		return ""
	}
	if found := foreignSyntax.FindString(value); found != "" {
		return "it is used as it is, so no variable, template or record accessor (" + found + "…) is replaced in it"
	}
	return ""
}
