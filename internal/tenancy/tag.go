// Package tenancy says who a record belongs to: it reads tags, maps namespaces to
// tenants, and derives every name that comes from a tenant (group, stream, role,
// quarantine) in this one place, for the plugin, the provisioner and audits alike.
//
// It must not know of AWS's SDK, of MessagePack, or of what a record says.
package tenancy

import (
	"errors"
	"fmt"
	"strings"
)

// Source is what a tag names. Its strings are parts of the tag: they keep it in memory.
type Source struct {
	// Namespace and Container are DNS labels, Pod is a DNS subdomain.
	Namespace, Pod, Container string
	// PodUID is known under /var/log/pods, ContainerID (64 hexadecimal digits) under
	// /var/log/containers; the other is empty.
	PodUID, ContainerID string
	// Truncated says that the kubelet cut the file's name: Container is then what is
	// left of it, may be empty, and may lack its end; ContainerID is empty. Namespace
	// and Pod are whole.
	Truncated bool
}

// Reason is why a tag names no pod.
type Reason uint8

// Reasons. Explain says what each means.
const (
	// None: the tag names a pod.
	None Reason = iota
	BadPrefix
	BadLayout
	BadNamespace
	BadPod
	BadContainer
	BadUID
	BadContainerID
	CutName
)

var reasons = [...]struct{ word, sentence string }{
	None:           {"", "the tag names a pod"},
	BadPrefix:      {"prefix", "the tag does not begin with a configured tag_prefix"},
	BadLayout:      {"layout", "what follows the prefix is not shaped like a container's log file"},
	BadNamespace:   {"namespace", "the namespace is not a name Kubernetes allows"},
	BadPod:         {"pod", "the pod is not a name Kubernetes allows"},
	BadContainer:   {"container", "the container is not a name Kubernetes allows"},
	BadUID:         {"uid", "the pod's UID is neither a UUID nor 32 hexadecimal digits"},
	BadContainerID: {"container id", "the container's id is not 64 hexadecimal digits"},
	CutName:        {"truncated", "the kubelet cut the file name so short that the namespace may be cut as well"},
}

// String is the reason in the word used in events and metrics; None's is empty.
func (r Reason) String() string {
	if int(r) < len(reasons) {
		return reasons[r].word
	}
	return fmt.Sprintf("reason %d", uint8(r))
}

// Explain is the reason as a sentence for people.
func (r Reason) Explain() string {
	if int(r) < len(reasons) {
		return reasons[r].sentence
	}
	return r.String()
}

// The two layouts under /var/log, as `tail` with `Tag kube.*` writes them.
const (
	PodsPrefix       = "kube.var.log.pods."
	ContainersPrefix = "kube.var.log.containers."
)

type prefix struct {
	text string
	pods bool // the layout of /var/log/pods, else of /var/log/containers
}

// TagParser reads tags. It may be used by many goroutines.
type TagParser struct{ prefixes []prefix }

// NewTagParser makes a parser for tags that begin with exactly one of the prefixes;
// none means the two defaults. A prefix ends in `pods.` or `containers.`, which says
// its layout. None may begin with another: a tag could then be read in two ways. All
// that is wrong is reported together.
func NewTagParser(prefixes []string) (*TagParser, error) {
	if len(prefixes) == 0 {
		prefixes = []string{PodsPrefix, ContainersPrefix}
	}
	p := &TagParser{}
	var errs []error
	for _, text := range prefixes {
		pods := strings.HasSuffix(text, "pods.")
		if !pods && !strings.HasSuffix(text, "containers.") {
			errs = append(errs, fmt.Errorf("%q does not end in pods. or containers., so its layout is not known", text))
			continue
		}
		for _, other := range p.prefixes {
			if strings.HasPrefix(text, other.text) || strings.HasPrefix(other.text, text) {
				errs = append(errs, fmt.Errorf("%q and %q: one begins with the other, so a tag could be read in two ways: keep one of them", other.text, text))
			}
		}
		p.prefixes = append(p.prefixes, prefix{text, pods})
	}
	if len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	return p, nil
}

// Parse reads a tag in one pass, without allocating. Whatever is not exactly a
// pod's tag has a Reason, and no Source.
func (p *TagParser) Parse(tag string) (Source, Reason) {
	for _, pre := range p.prefixes {
		file, ok := strings.CutPrefix(tag, pre.text)
		switch {
		case !ok:
		case pre.pods:
			return parsePods(file)
		default:
			return parseContainers(file)
		}
	}
	return Source{}, BadPrefix
}

// parsePods reads `<namespace>_<pod>_<uid>.<container>.<n>.log`.
func parsePods(s string) (Source, Reason) {
	ns, rest, ok := strings.Cut(s, "_")
	if !ok {
		return Source{}, BadLayout
	}
	pod, rest, ok := strings.Cut(rest, "_")
	if !ok {
		return Source{}, BadLayout
	}
	uid, rest, ok := strings.Cut(rest, ".")
	if !ok {
		return Source{}, BadLayout
	}
	container, rest, ok := strings.Cut(rest, ".")
	if !ok {
		return Source{}, BadLayout
	}
	restart, end, ok := strings.Cut(rest, ".")
	if !ok || end != "log" || !count(restart) {
		return Source{}, BadLayout
	}
	switch {
	case !Label(ns):
		return Source{}, BadNamespace
	case !subdomain(pod):
		return Source{}, BadPod
	case !podUID(uid):
		return Source{}, BadUID
	case !Label(container):
		return Source{}, BadContainer
	}
	return Source{Namespace: ns, Pod: pod, Container: container, PodUID: uid}, None
}

// The kubelet cuts `<pod>_<namespace>_<container>-<id>` so that the file name has at
// most 255 bytes with `.log` (kubernetes, pkg/kubelet/kuberuntime/legacy.go).
const (
	maxFileName = 255
	idLength    = 64
)

// parseContainers reads `<pod>_<namespace>_<container>-<id>.log`.
//
// Only a file name of exactly 255 bytes may be cut. What is left of it is
//
//	pod_namespace_container-0123   the id is cut: source, truncated
//	pod_namespace_contai           the container is cut: source, truncated
//	pod_namespace_                 nothing of the container is left: source, truncated
//	pod_namespa                    the namespace may be cut, `tenant-acme-corp` to
//	                               `tenant-acme`: no source, CutName
//
// A name that is 255 bytes long by itself, with a whole id, is not cut: an id that was
// cut can't look whole, for its 64 last characters hold the dash in front of it.
func parseContainers(s string) (Source, Reason) {
	name, ok := strings.CutSuffix(s, ".log")
	if !ok {
		return Source{}, BadLayout
	}
	full := len(s) == maxFileName
	pod, rest, ok := strings.Cut(name, "_")
	if !ok {
		return Source{}, cutOr(full && subdomainPart(name), BadLayout)
	}
	if !subdomain(pod) {
		return Source{}, BadPod
	}
	ns, rest, ok := strings.Cut(rest, "_")
	if !ok {
		return Source{}, cutOr(full && (ns == "" || labelPart(ns)), BadLayout)
	}
	if !Label(ns) {
		return Source{}, BadNamespace
	}
	dash := len(rest) - idLength - 1
	if dash > 0 && rest[dash] == '-' && hexadecimal(rest[dash+1:]) {
		if !Label(rest[:dash]) {
			return Source{}, BadContainer
		}
		return Source{Namespace: ns, Pod: pod, Container: rest[:dash], ContainerID: rest[dash+1:]}, None
	}
	if !full {
		return Source{}, containerReason(rest)
	}
	// Cut. What follows the last dash is taken for the start of the id where it could
	// be that and what precedes it could be a container. So every container of a cut
	// name keeps one name over its restarts; the price is that `app-ab`, cut right
	// there, is told as `app`: a container of the same pod.
	container := rest
	if i := strings.LastIndexByte(rest, '-'); i > 0 && Label(rest[:i]) && hexadecimal(rest[i+1:]) && len(rest)-i-1 < idLength {
		container = rest[:i]
	}
	if container != "" && !labelPart(container) {
		return Source{}, BadContainer
	}
	return Source{Namespace: ns, Pod: pod, Container: container, Truncated: true}, None
}

// cutOr is CutName where the name is cut, else the other reason.
func cutOr(cut bool, otherwise Reason) Reason {
	if cut {
		return CutName
	}
	return otherwise
}

// containerReason is what is wrong with `<container>-<id>` that is not cut.
func containerReason(rest string) Reason {
	i := strings.LastIndexByte(rest, '-')
	if i <= 0 || !Label(rest[:i]) {
		return BadContainer
	}
	return BadContainerID
}

// Label reports whether s is a DNS label: what namespaces, containers and tenants
// are called (RFC 1123; 63 bytes at most).
func Label(s string) bool { return len(s) <= 63 && labelPart(s) && alnum(s[len(s)-1]) }

// labelPart reports whether s is the start of a DNS label.
func labelPart(s string) bool {
	if len(s) == 0 || len(s) > 63 || !alnum(s[0]) {
		return false
	}
	for i := range len(s) {
		if !alnum(s[i]) && s[i] != '-' {
			return false
		}
	}
	return true
}

// subdomain reports whether s is a DNS subdomain: what pods are called (253 bytes).
func subdomain(s string) bool {
	return len(s) > 0 && len(s) <= 253 && alnum(s[len(s)-1]) && subdomainPart(s)
}

// subdomainPart reports whether s is the start of a DNS subdomain.
func subdomainPart(s string) bool {
	if len(s) == 0 || len(s) > 253 {
		return false
	}
	for i := range len(s) {
		start := i == 0 || s[i-1] == '.'
		switch {
		case alnum(s[i]):
		case start: // a label begins with neither
			return false
		case s[i] == '-':
		case s[i] == '.' && s[i-1] != '-':
		default:
			return false
		}
	}
	return true
}

func alnum(c byte) bool { return c >= 'a' && c <= 'z' || c >= '0' && c <= '9' }

// count reports whether s is a container's number of restarts as the kubelet writes
// it (%d): up to 10 digits, no zero in front.
func count(s string) bool {
	if len(s) == 0 || len(s) > 10 || s[0] == '0' && len(s) > 1 {
		return false
	}
	for i := range len(s) {
		if s[i] < '0' || s[i] > '9' {
			return false
		}
	}
	return true
}

func hexadecimal(s string) bool {
	for i := range len(s) {
		if c := s[i]; (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	return true
}

// podUID takes a UUID, and the 32 hexadecimal digits static pods have (the hash of
// their manifest).
func podUID(s string) bool {
	switch len(s) {
	case 32:
		return hexadecimal(s)
	case 36:
		for i := range len(s) {
			if dash := i == 8 || i == 13 || i == 18 || i == 23; dash != (s[i] == '-') {
				return false
			}
		}
		return hexadecimal(s[:8]) && hexadecimal(s[9:13]) && hexadecimal(s[14:18]) && hexadecimal(s[19:23]) && hexadecimal(s[24:])
	}
	return false
}
