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

// Source is what a tag names. Its strings are parts of the tag.
type Source struct {
	Namespace, Pod, Container string
	// PodUID is known under /var/log/pods, ContainerID (64 hexadecimal digits) under
	// /var/log/containers; the other is empty.
	PodUID, ContainerID string
	// Truncated says that the kubelet cut the file's name: Container is then what is
	// left of it, and ContainerID is empty. Namespace and Pod are whole.
	Truncated bool
}

// Reason is why a tag names no pod.
type Reason uint8

// Reasons; None means that the tag names a pod.
const (
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

// String is the reason in the words used in events and metrics.
func (r Reason) String() string {
	return [...]string{"", "prefix", "layout", "namespace", "pod", "container", "uid", "container id", "truncated"}[r]
}

// Explain is the reason as a sentence for people.
func (r Reason) Explain() string {
	return [...]string{
		"the tag names a pod",
		"the tag does not begin with a configured tag_prefix",
		"what follows the prefix is not shaped like a container's log file",
		"the namespace is not a name Kubernetes allows",
		"the pod is not a name Kubernetes allows",
		"the container is not a name Kubernetes allows",
		"the pod's UID is neither a UUID nor 32 hexadecimal digits",
		"the container's id is not 64 hexadecimal digits",
		"the kubelet cut the file name so short that the namespace may be cut as well",
	}[r]
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
// its layout.
func NewTagParser(prefixes []string) (*TagParser, error) {
	if len(prefixes) == 0 {
		prefixes = []string{PodsPrefix, ContainersPrefix}
	}
	p := &TagParser{}
	var errs []error
	for _, text := range prefixes {
		switch {
		case text == "pods." || strings.HasSuffix(text, ".pods."):
			p.prefixes = append(p.prefixes, prefix{text, true})
		case text == "containers." || strings.HasSuffix(text, ".containers."):
			p.prefixes = append(p.prefixes, prefix{text, false})
		default:
			errs = append(errs, fmt.Errorf("%q does not end in pods. or containers., so its layout is not known", text))
		}
	}
	return p, errors.Join(errs...)
}

// Parse reads a tag in one pass, without allocating. Whatever is not exactly a
// pod's tag has a Reason, and no Source.
func (p *TagParser) Parse(tag string) (Source, Reason) {
	reason := BadPrefix
	for _, pre := range p.prefixes {
		if !strings.HasPrefix(tag, pre.text) {
			continue
		}
		var s Source
		if pre.pods {
			s, reason = parsePods(tag[len(pre.text):])
		} else {
			s, reason = parseContainers(tag[len(pre.text):])
		}
		if reason == None {
			return s, None
		}
	}
	return Source{}, reason
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
	if !ok || end != "log" || !digits(restart) {
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
//	pod_namespace_container-0123   id cut: the container is known but for a doubt,
//	pod_namespace_contai           container cut,
//	pod_namespace_                 nothing of the container left,
//	pod_namespa                    the namespace may be cut: no source.
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
		if dash > 0 && Label(rest) {
			return Source{}, BadContainerID
		}
		return Source{}, cutOr(false, containerReason(rest))
	}
	// Cut. What follows the last dash is the start of the id, if it could be one: a
	// container `app-ab` cut there is then told as `app`. The namespace is certain.
	container := rest
	if i := strings.LastIndexByte(rest, '-'); i > 0 && hexadecimal(rest[i+1:]) && len(rest)-i-1 < idLength {
		container = rest[:i]
	}
	if container != "" && !labelPart(container) {
		return Source{}, BadContainer
	}
	return Source{Namespace: ns, Pod: pod, Container: container, Truncated: true}, None
}

func cutOr(cut bool, otherwise Reason) Reason {
	if cut {
		return CutName
	}
	return otherwise
}

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

func digits(s string) bool {
	if len(s) == 0 || len(s) > 10 {
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
