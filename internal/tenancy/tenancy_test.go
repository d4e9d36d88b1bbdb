package tenancy

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

const (
	testUID = "0c8f1f1e-9d3b-4b6a-8f5e-2f1d3c4b5a69"
	test32  = "0123456789abcdef0123456789abcdef"
	testHex = test32 + test32
)

func testRouter(t require.TestingT, o RegistryOptions, data string, prefixes ...string) *Router {
	parser, err := NewTagParser(prefixes)
	require.NoError(t, err)
	template, err := ParseStreamTemplate("$(namespace)/$(pod)/$(container)")
	require.NoError(t, err)
	registry, err := NewRegistry(RegistryOptions{})
	require.NoError(t, err)
	if data != "" {
		registry, err = ParseRegistry([]byte(data), o)
		require.NoError(t, err)
	}
	return NewRouter(parser, registry, DefaultNames(), template, "node-1")
}

func tenantName(r Route) string {
	if r.Tenant == nil {
		return "-"
	}
	return r.Tenant.Name
}

// The fixture is the specification.
func TestEveryTagOfTheFixtureGoesWhereItSays(t *testing.T) {
	data, err := os.ReadFile("testdata/tags.txt")
	require.NoError(t, err)
	router := testRouter(t, RegistryOptions{}, "")
	fill := strings.NewReplacer("{uid}", testUID, "{hex}", testHex, "{32}", test32, "{nul}", "\x00", "{63}", strings.Repeat("n", 63))
	rows := 0
	for i, line := range strings.Split(string(data), "\n") {
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		rows++
		cells := strings.Split(line, "|")
		require.Len(t, cells, 6, "line %d", i+1)
		for c := range cells {
			cells[c] = strings.TrimSpace(cells[c])
		}
		r := router.Route(fill.Replace(cells[0]))
		cells[4] = fill.Replace(cells[4])
		got := []string{cells[0], r.Kind.String(), tenantName(r), r.Group, r.Stream, r.Reason.String()}
		require.Equal(t, cells, got, "line %d", i+1)
	}
	require.Greater(t, rows, 60)
}

func TestAPrefixMayBeConfiguredAndIsMatchedExactly(t *testing.T) {
	r := testRouter(t, RegistryOptions{}, "", "k8s.host.var.log.pods.")
	tag := "tenant-acme_web-0_" + testUID + ".app.0.log"
	require.Equal(t, KindTenant, r.Route("k8s.host.var.log.pods."+tag).Kind)
	for _, other := range []string{"kube.var.log.pods.", "xk8s.host.var.log.pods.", "k8s-host.var.log.pods.", "k8s.host.var.log.pods"} {
		require.Equal(t, BadPrefix, r.Route(other+tag).Reason, other)
	}
	r = testRouter(t, RegistryOptions{}, "", "k8s-pods.", "containers.")
	require.Equal(t, KindTenant, r.Route("k8s-pods."+tag).Kind)
	require.Equal(t, BadPrefix, r.Route("pods."+tag).Reason)
	require.Equal(t, KindTenant, r.Route("containers.web-0_tenant-acme_app-"+testHex+".log").Kind)
	for _, bad := range []string{"kube.", "kube.var.log.pods", "kube.pods.*", "kube.containers", "Pods", ""} {
		p, err := NewTagParser([]string{bad, PodsPrefix})
		require.Nil(t, p)
		require.EqualError(t, err, fmt.Sprintf("%q does not end in pods. or containers., so its layout is not known", bad))
	}
	// With both, pod `b.containers.x` of the first would be pod `x` of the second.
	for _, two := range [][]string{{"a.containers.", "a.containers.b.containers."}, {"a.containers.b.pods.", "a.containers."}, {PodsPrefix, PodsPrefix}} {
		_, err := NewTagParser(two)
		require.EqualError(t, err, fmt.Sprintf("%q and %q: one begins with the other, so a tag could be read in two ways: keep one of them", two[0], two[1]))
	}
}

// cutName is what the kubelet does to a name that is too long.
func cutName(pod, ns, container string) string {
	name := pod + "_" + ns + "_" + container + "-" + testHex
	if len(name) > 251 {
		name = name[:251]
	}
	return name + ".log"
}

// TestACutNameNeverNamesAnotherTenant walks the cut through every byte of the name.
func TestACutNameNeverNamesAnotherTenant(t *testing.T) {
	router := testRouter(t, RegistryOptions{}, "")
	const ns, container = "tenant-acme-corp", "app-with-ab"
	seen := map[string]int{}
	for n := 1; n <= 253; n++ {
		pod := strings.Repeat("p", n)
		name := cutName(pod, ns, container)
		r := router.Route(ContainersPrefix + name)
		whole := pod + "_" + ns + "_"
		switch {
		case len(pod+"_"+ns+"_"+container+"-"+testHex) <= 251:
			require.Equal(t, KindTenant, r.Kind)
			require.False(t, r.Source.Truncated)
			require.Equal(t, container, r.Source.Container)
			seen["whole"]++
		case len(whole) <= 251:
			require.Equal(t, "acme-corp", tenantName(r), name)
			require.True(t, r.Source.Truncated)
			require.Empty(t, r.Source.ContainerID)
			require.True(t, strings.HasPrefix(container, r.Source.Container), r.Source.Container)
			seen["cut behind the namespace"]++
		default:
			require.Equal(t, KindUnrouted, r.Kind, name)
			require.Equal(t, CutName, r.Reason, name)
			seen["cut within"]++
		}
	}
	require.Len(t, seen, 3)
	// The same bytes with one less or more are not what the kubelet makes.
	name := cutName(strings.Repeat("p", 200), ns, container)
	require.Equal(t, KindTenant, router.Route(ContainersPrefix+name).Kind)
	require.Equal(t, KindUnrouted, router.Route(ContainersPrefix+name[1:]).Kind)
	require.Equal(t, KindUnrouted, router.Route(ContainersPrefix+"p"+name).Kind)
}

func TestTheEdgesOfACutName(t *testing.T) {
	const ns = "tenant-acme"
	router := testRouter(t, RegistryOptions{}, "")
	// file is a file name of length n that ends in `_<ns>_<tail>.log`.
	file := func(n int, tail string) (name, pod string) {
		end := "_" + ns + "_" + tail + ".log"
		pod = strings.Repeat("p", n-len(end))
		return pod + end, pod
	}
	for name, test := range map[string]struct {
		tail, container, id string
		cut                 bool
		reason              Reason
	}{
		"the whole id just fits":              {"app-" + testHex, "app", testHex, false, None},
		"the id has lost one digit":           {"app-" + testHex[1:], "app", "", true, None},
		"one digit of the id":                 {"app-a", "app", "", true, None},
		"only the dash of the id":             {"app-", "app", "", true, None},
		"no dash":                             {"app", "app", "", true, None},
		"one letter of the container":         {"a", "a", "", true, None},
		"nothing of the container":            {"", "", "", true, None},
		"a container that looks like id":      {"app-ab", "app", "", true, None},
		"a container in two parts":            {"app-web", "app-web", "", true, None},
		"cut between two dashes":              {"app--", "app--", "", true, None},
		"cut behind two dashes and a digit":   {"app--0", "app--0", "", true, None},
		"the longest container and an id":     {strings.Repeat("c", 63) + "-" + testHex[:30], strings.Repeat("c", 63), "", true, None},
		"the longest container":               {strings.Repeat("c", 63), strings.Repeat("c", 63), "", true, None},
		"a container that is too long":        {strings.Repeat("c", 64), "", "", false, BadContainer},
		"too long before a cut id":            {strings.Repeat("c", 64) + "-ab", "", "", false, BadContainer},
		"an id that is too long":              {"app-" + testHex + "0", "", "", false, BadContainer},
		"an id in upper case":                 {"app-" + strings.ToUpper(testHex), "", "", false, BadContainer},
		"a dot":                               {"a.b", "", "", false, BadContainer},
		"a third underscore":                  {"a_b", "", "", false, BadContainer},
		"nothing before the id":               {"-" + testHex, "", "", false, BadContainer},
		"nothing before a cut id":             {"-" + testHex[1:], "", "", false, BadContainer},
		"a NUL":                               {"a\x00", "", "", false, BadContainer},
		"not ASCII, of the length in bytes":   {"é", "", "", false, BadContainer},
		"the file of a rotated log":           {"app.log", "", "", false, BadContainer},
		"a path that leaves the folder":       {"../x", "", "", false, BadContainer},
		"a container that begins with a dash": {"-a", "", "", false, BadContainer},
	} {
		file255, pod := file(255, test.tail)
		r := router.Route(ContainersPrefix + file255)
		require.Equal(t, test.reason, r.Reason, name)
		if test.reason != None {
			require.Equal(t, "/eks/platform unrouted", r.Group+" "+r.Stream, name)
			continue
		}
		require.Equal(t, Source{Namespace: ns, Pod: pod, Container: test.container, ContainerID: test.id, Truncated: test.cut}, r.Source, name)
		require.Equal(t, "/eks/tenants/acme "+ns+"/"+pod+"/"+test.container, r.Group+" "+r.Stream, name)
		// One byte less or more, and nothing may be missing.
		for _, n := range []int{254, 256} {
			other, _ := file(n, test.tail)
			require.Equal(t, test.cut, router.Route(ContainersPrefix+other).Kind == KindUnrouted, "%s, %d bytes", name, n)
		}
	}
	// The second underscore is what makes the namespace certain.
	for tail, want := range map[string]Reason{
		"_tenant-acme": CutName, "_tenant-": CutName, "_t": CutName, "_": CutName, "": CutName, "-": CutName,
		"_Tenant": BadLayout, "_a.b": BadLayout, "_-a": BadLayout, "P": BadLayout, "..p": BadLayout, "-_t": BadPod,
	} {
		name := strings.Repeat("p", 251-len(tail)) + tail + ".log"
		r := router.Route(ContainersPrefix + name)
		require.Equal(t, want, r.Reason, tail)
		require.Equal(t, KindUnrouted, r.Kind)
		if want == CutName {
			require.Equal(t, BadLayout, router.Route(ContainersPrefix+name[1:]).Reason, "%s, 254 bytes", tail)
		}
	}
}

func TestWordsForWhatNobodyMade(t *testing.T) {
	require.Equal(t, "reason 200", Reason(200).String())
	require.Equal(t, "reason 200", Reason(200).Explain())
	require.Equal(t, "unrouted", Kind(200).String())
}

func TestParsingATagAllocatesNothing(t *testing.T) {
	p, err := NewTagParser(nil)
	require.NoError(t, err)
	for _, tag := range []string{
		PodsPrefix + "tenant-acme_web-0_" + testUID + ".app.0.log",
		ContainersPrefix + "web-0_tenant-acme_app-" + testHex + ".log",
		ContainersPrefix + "web-0",
	} {
		require.Zero(t, testing.AllocsPerRun(100, func() { p.Parse(tag) }))
	}
}

func FuzzParseTag(f *testing.F) {
	f.Add(PodsPrefix + "tenant-acme_web-0_" + testUID + ".app.0.log")
	f.Add(ContainersPrefix + "web-0_tenant-acme_app-" + testHex + ".log")
	f.Add(ContainersPrefix + cutName(strings.Repeat("p", 200), "tenant-acme", "app"))
	f.Add(ContainersPrefix + cutName(strings.Repeat("p", 240), "tenant-acme", "app"))
	p, err := NewTagParser(nil)
	if err != nil {
		f.Fatal(err)
	}
	label := regexp.MustCompile(`^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$`)
	subdomain := regexp.MustCompile(`^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$`)
	f.Fuzz(func(t *testing.T, tag string) {
		s, reason := p.Parse(tag)
		if reason != None {
			if s != (Source{}) || reason.String() == "" || reason.Explain() == "" {
				t.Fatalf("%q: reason %d with source %+v", tag, reason, s)
			}
			return
		}
		if !label.MatchString(s.Namespace) || !subdomain.MatchString(s.Pod) || len(s.Pod) > 253 {
			t.Fatalf("%q: %+v", tag, s)
		}
		switch {
		case s.Truncated:
			if file := strings.TrimPrefix(tag, ContainersPrefix); len(file) != 255 || !strings.HasPrefix(file, s.Pod+"_"+s.Namespace+"_"+s.Container) {
				t.Fatalf("%q: %+v", tag, s)
			}
		case s.PodUID != "":
			rest := strings.TrimPrefix(tag, PodsPrefix+s.Namespace+"_"+s.Pod+"_"+s.PodUID+"."+s.Container+".")
			if !regexp.MustCompile(`^[0-9]{1,10}\.log$`).MatchString(rest) {
				t.Fatalf("%q: %+v", tag, s)
			}
		default:
			if tag != ContainersPrefix+s.Pod+"_"+s.Namespace+"_"+s.Container+"-"+s.ContainerID+".log" || len(s.ContainerID) != 64 {
				t.Fatalf("%q: %+v", tag, s)
			}
		}
	})
}

var genLabel = rapid.StringMatching(`[a-z0-9]([-a-z0-9]{0,20}[a-z0-9])?`)

// iamMatch is IAM's own wildcard: * any characters, ? any one.
func iamMatch(pattern, s string) bool {
	var re strings.Builder
	re.WriteString("(?s)^")
	for _, r := range pattern {
		switch r {
		case '*':
			re.WriteString(".*")
		case '?':
			re.WriteString(".")
		default:
			re.WriteString(regexp.QuoteMeta(string(r)))
		}
	}
	re.WriteString("$")
	return regexp.MustCompile(re.String()).MatchString(s)
}

func TestNoTenantsPatternMatchesAnothersGroup(t *testing.T) {
	n := DefaultNames()
	rapid.Check(t, func(t *rapid.T) {
		a := genLabel.Draw(t, "a")
		b := genLabel.Draw(t, "b")
		if rapid.Bool().Draw(t, "related") {
			b = a + "-" + b
		}
		if a == b {
			return
		}
		if n.Group(a) == n.Group(b) || n.QuarantineGroup(a) == n.QuarantineGroup(b) {
			t.Fatalf("%s and %s share a group", a, b)
		}
		pattern := GroupARNPattern("aws-us-gov", "us-gov-west-1", "123456789012", n.Group(a))
		for _, other := range []string{n.Group(b), n.QuarantineGroup(a), n.QuarantineGroup(b), n.PlatformGroup, n.PendingGroup()} {
			arn := GroupARN("aws-us-gov", "us-gov-west-1", "123456789012", other)
			for _, s := range []string{arn, arn + ":*", arn + ":log-stream:x"} {
				if iamMatch(pattern, s) {
					t.Fatalf("%s matches %s", pattern, s)
				}
			}
		}
		own := GroupARN("aws-us-gov", "us-gov-west-1", "123456789012", n.Group(a))
		if !iamMatch(pattern, own+":*") || !iamMatch(pattern, own+":log-stream:x") {
			t.Fatalf("%s does not match its own group", pattern)
		}
	})
}

func TestRolesAreDistinctWhateverTheCase(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		cluster := rapid.StringMatching(`[A-Za-z0-9][A-Za-z0-9_-]{0,30}`)
		a := [3]string{cluster.Draw(t, "cluster"), "us-east-1", genLabel.Draw(t, "tenant")}
		b := [3]string{cluster.Draw(t, "cluster"), "us-east-1", genLabel.Draw(t, "tenant")}
		if rapid.Bool().Draw(t, "shifted") {
			b = [3]string{a[0] + "us", "-east-1", a[2]} // the same characters, cut elsewhere
		}
		ra, rb := ReaderRole(a[0], a[1], a[2]), ReaderRole(b[0], b[1], b[2])
		if len(ra) > 64 || !regexp.MustCompile(`^[\w+=,.@-]+$`).MatchString(ra) {
			t.Fatalf("role %q", ra)
		}
		if a != b && strings.EqualFold(ra, rb) {
			t.Fatalf("%v and %v share the role %s", a, b, ra)
		}
	})
	long := strings.Repeat("a", 63)
	require.Len(t, ReaderRole("c", "r", long), 64)
}

func TestStreamsAreDistinct(t *testing.T) {
	templates := []string{"$(namespace)/$(pod)/$(container)", "$(node)/$(tenant)_$(namespace)/$(pod)#$(container)", "x-$(pod)/$(namespace)_$(container)"}
	pod := rapid.StringMatching(`[a-z0-9]([-.a-z0-9]{0,250}[a-z0-9])?`)
	rapid.Check(t, func(t *rapid.T) {
		tpl, err := ParseStreamTemplate(rapid.SampledFrom(templates).Draw(t, "template"))
		if err != nil {
			t.Fatal(err)
		}
		node := strings.Repeat("n", rapid.IntRange(1, 253).Draw(t, "node"))
		draw := func() Source {
			return Source{Namespace: genLabel.Draw(t, "ns"), Pod: pod.Draw(t, "pod"), Container: genLabel.Draw(t, "c")}
		}
		a, b := draw(), draw()
		if rapid.Bool().Draw(t, "shifted") && len(a.Namespace) > 2 {
			b = a
			b.Namespace, b.Pod = a.Namespace[:len(a.Namespace)-1], a.Namespace[len(a.Namespace)-1:]+a.Pod
		}
		sa, sb := string(tpl.Append(nil, a, "t", node)), string(tpl.Append(nil, b, "t", node))
		if len(sa) == 0 || len(sa) > 512 || strings.ContainsAny(sa, ":*") {
			t.Fatalf("stream %q", sa)
		}
		if a != b && sa == sb {
			t.Fatalf("%+v and %+v share the stream %s", a, b, sa)
		}
	})
}

func TestTemplatesThatCannotNameAStream(t *testing.T) {
	for template, want := range map[string]string{
		"":                      "the template is empty",
		"$(pod":                 "$( without its )",
		"$(cluster)":            `unknown variable "$(cluster)": use $(node) $(namespace) $(pod) $(container) $(tenant)`,
		"$(namespace)$(pod)":    "nothing before $(pod) that keeps it from the variable in front",
		"$(namespace)-$(pod)":   "nothing before $(pod)",
		"$(namespace).0.$(pod)": "nothing before $(pod)",
		"$()":                   `unknown variable "$()"`,
		"$(Pod)":                `unknown variable "$(Pod)"`,
		"$pod":                  "has a $ that begins no variable: use $(node)",
		"$kubernetes['pod']":    "has a $ that begins no variable",
		"$(pod)/$":              "has a $ that begins no variable",
		"a\x00$(pod)":           "use printable ASCII",
		"a:$(pod)":              "has the character ':'",
		"*$(pod)":               "has the character '*'",
		"é$(pod)":               "use printable ASCII",
	} {
		_, err := ParseStreamTemplate(template)
		require.ErrorContains(t, err, want, template)
	}
}

// A cut name ends in what anybody can work out. Were it a name that a pod could have by
// itself, a tenant could write into another pod's stream.
func TestNoPodCanTakeTheStreamOfACutName(t *testing.T) {
	tpl, err := ParseStreamTemplate("$(namespace)/$(node)/$(pod)#$(container)")
	require.NoError(t, err)
	ns, node := strings.Repeat("n", 63), strings.Repeat("o", 200)
	append512 := func(pod, container string) string {
		return string(tpl.Append([]byte("kept "), Source{Namespace: ns, Pod: pod, Container: container}, "", node))[len("kept "):]
	}
	long := append512(strings.Repeat("p", 253), "app")
	require.Len(t, long, 512)
	require.NotEqual(t, long, append512(strings.Repeat("p", 253), "abb"))
	forged := append512(strings.Repeat("p", 512-1-20-63-1-200-1), long[512-20:])
	require.Len(t, forged, 512)
	require.Equal(t, "#"+long[512-20:], forged[512-21:], "as near as it gets")
	require.NotEqual(t, long, forged)
	// One byte more is cut, and stays within the limit.
	over := append512(strings.Repeat("p", 512-1-20-63-1-200-1)+"p", long[512-20:])
	require.Len(t, over, 512)
	require.Equal(t, byte('$'), over[512-21])
	// Exactly 512 bytes are not cut, and a node can't bring the mark in.
	require.NotContains(t, forged, "$")
	require.Equal(t, ns+"/a_b_c_/p#c", string(tpl.Append(nil, Source{Namespace: ns, Pod: "p", Container: "c"}, "", "a$b*c:")))
}

func FuzzStreamTemplate(f *testing.F) {
	f.Add("$(namespace)/$(pod)/$(container)", "node", "team", "abilling-0")
	f.Add("$(node)_$(tenant)", "a:b*c", "a", "b")
	f.Add("$(pod)#$(namespace) $(namespace)", "n$", "a-b", "c.d")
	f.Fuzz(func(t *testing.T, template, node, ns, pod string) {
		tpl, err := ParseStreamTemplate(template)
		if err != nil {
			if err.Error() == "" || strings.Contains(err.Error(), "\n") {
				t.Fatalf("%q: error %q", template, err)
			}
			return
		}
		name := func(ns, pod string) string {
			s := string(tpl.Append(nil, Source{Namespace: ns, Pod: pod, Container: "c"}, "t", node))
			if len(s) > 512 || strings.ContainsAny(s, ":*") {
				t.Fatalf("%q makes %q", template, s)
			}
			return s
		}
		one := name("n", "p")
		if !Label(ns) || !subdomain(pod) || !strings.Contains(template, "$(namespace)") || !strings.Contains(template, "$(pod)") {
			return
		}
		// A character that changes sides, and one that is other.
		for _, two := range [][2]string{{ns + pod[:1], pod[1:]}, {ns[:len(ns)-1], ns[len(ns)-1:] + pod}, {"n", "p"}} {
			if two == [2]string{ns, pod} || !Label(two[0]) || !subdomain(two[1]) {
				continue
			}
			if a, b := name(ns, pod), name(two[0], two[1]); a == b {
				t.Fatalf("%q: %s %s and %v share %q (%q)", template, ns, pod, two, a, one)
			}
		}
	})
}

func TestGroupNamesThatCouldMeet(t *testing.T) {
	for name, test := range map[string]struct{ tenants, platform, quarantine, want string }{
		"empty":                {"", "/eks/platform", "/eks/quarantine/", "the tenants' prefix is empty"},
		"no slash at the end":  {"/eks/tenants-", "/eks/platform", "/eks/quarantine/", "does not end in /"},
		"characters":           {"/eks/ten ants/", "/eks/platform", "/eks/quarantine/", "characters other than"},
		"AWS's own":            {"/aws/eks/", "/eks/platform", "/eks/quarantine/", "AWS's own name space"},
		"too long":             {"/" + strings.Repeat("a", 450) + "/", "/eks/platform", "/eks/quarantine/", "449 are allowed"},
		"one in another":       {"/eks/", "/platform", "/eks/quarantine/", "lie inside one another"},
		"the other in one":     {"/eks/t/", "/platform", "/eks/", "lie inside one another"},
		"the first in another": {"/eks/q/t/", "/platform", "/eks/q/", "lie inside one another"},
		"the same":             {"/eks/t/", "/eks/platform", "/eks/t/", "lie inside one another"},
		"platform is a tenant": {"/eks/tenants/", "/eks/tenants/platform", "/eks/quarantine/", "lies inside a prefix of tenants"},
		"tenants in platform":  {"/eks/tenants/", "/eks", "/eks/quarantine/", "lies inside the platform's group"},
		"only tenants in it":   {"/p/tenants/", "/p", "/eks/quarantine/", "lies inside the platform's group"},
		"only quarantine in":   {"/eks/tenants/", "/p", "/p/quarantine/", "lies inside the platform's group"},
		"platform ends in /":   {"/eks/tenants/", "/eks/platform/", "/eks/quarantine/", "ends in /"},
	} {
		_, err := NewNames(test.tenants, test.platform, test.quarantine)
		require.ErrorContains(t, err, test.want, name)
	}
	n, err := NewNames("", "", "")
	require.Zero(t, n)
	require.Len(t, list(err), 3, "all at once")
	_, err = NewNames("/eks/tenants/", "/eks/platform", "/eks/quarantine/")
	require.NoError(t, err)
}

const goodRegistry = `
version: 1
generation: 7
tenants:
  acme:
    namespaces: [tenant-acme, acme-batch]
    retentionDays: 731
    kmsKeyArn: arn:aws-us-gov:kms:us-gov-west-1:123456789012:key/1234abcd-12ab-34cd-56ef-1234567890ab
    emf: true
  globex: {}
  own:
    roleArn: arn:aws:iam::123456789012:role/logs/own
    externalId: ab
    onFailure: drop
platformNamespaces: [tenant-tools]
`

func TestNamespacesFindTheirTenant(t *testing.T) {
	for _, mode := range []Mode{ModePrefix, ModeRegistry} {
		r, err := ParseRegistry([]byte(goodRegistry), RegistryOptions{Mode: mode})
		require.NoError(t, err)
		require.EqualValues(t, 7, r.Generation)
		require.Len(t, r.Tenants(), 3)
		for ns, want := range map[string][2]string{
			"tenant-acme":   {"tenant acme", "tenant acme"},
			"acme-batch":    {"tenant acme", "tenant acme"},
			"tenant-globex": {"tenant globex", "pending"},
			"tenant-new":    {"tenant new", "pending"},
			"tenant-tools":  {"platform", "platform"},
			"kube-system":   {"platform", "pending"},
			"tenant-":       {"platform", "pending"},
			"other":         {"platform", "pending"},
		} {
			kind, tenant := r.Resolve(ns)
			got := kind.String()
			if tenant != nil {
				got += " " + tenant.Name
			}
			require.Equal(t, want[mode], got, "%s in mode %s", ns, mode)
		}
	}
	r, err := ParseRegistry([]byte(goodRegistry), RegistryOptions{})
	require.NoError(t, err)
	_, acme := r.Resolve("acme-batch")
	require.Equal(t, 731, acme.RetentionDays)
	require.True(t, acme.EMF)
	router := testRouter(t, RegistryOptions{Mode: ModeRegistry}, goodRegistry)
	route := router.Route(PodsPrefix + "tenant-new_p_" + testUID + ".c.0.log")
	require.Equal(t, "/eks/quarantine/_pending tenant-new/p/c", route.Group+" "+route.Stream)
}

func TestThePrefixNeverTakesWhatIsKubernetesOwn(t *testing.T) {
	r, err := NewRegistry(RegistryOptions{NamespacePrefix: "kube-"})
	require.NoError(t, err)
	kind, _ := r.Resolve("kube-system")
	require.Equal(t, KindPlatform, kind)
	_, err = NewRegistry(RegistryOptions{NamespacePrefix: "Tenant_"})
	require.ErrorContains(t, err, "namespace_prefix")
	_, err = NewRegistry(RegistryOptions{Mode: ModeRegistry})
	require.ErrorContains(t, err, "needs a file")
}

func TestATenantsFileThatIsWrongSaysWhereAndWhat(t *testing.T) {
	_, err := ParseRegistry([]byte("version: 2\ntenants: {A: {retentionDays: 2}}"), RegistryOptions{})
	require.Len(t, list(err), 3, "all at once: %v", err)
	_, err = LoadRegistry("/does/not/exist.yaml", RegistryOptions{})
	require.ErrorContains(t, err, "/does/not/exist.yaml")
	path := t.TempDir() + "/t.yaml"
	require.NoError(t, os.WriteFile(path, []byte("version: 3"), 0o600))
	_, err = LoadRegistry(path, RegistryOptions{})
	require.ErrorContains(t, err, path+": version: 3 is not known")
	require.NoError(t, os.WriteFile(path, []byte(goodRegistry), 0o600))
	_, err = LoadRegistry(path, RegistryOptions{})
	require.NoError(t, err)
}

func TestWhatMayNotTakeTheRegistrysPlace(t *testing.T) {
	parse := func(s string) *Registry {
		r, err := ParseRegistry([]byte(s), RegistryOptions{Mode: ModeRegistry})
		require.NoError(t, err)
		return r
	}
	old := parse("version: 1\ngeneration: 5\ntenants: {a: {namespaces: [na]}, b: {namespaces: [nb]}, c: {namespaces: [nc]}}")
	require.NoError(t, old.Replaceable(old))
	require.NoError(t, old.Replaceable(parse("version: 1\ngeneration: 6\ntenants: {a: {namespaces: [na]}, b: {namespaces: [nb]}}")))
	require.ErrorContains(t, old.Replaceable(parse("version: 1\ngeneration: 6\ntenants: {a: {namespaces: [na]}}")), "2 of 3 tenants are missing")
	require.ErrorContains(t, old.Replaceable(parse("version: 1\ngeneration: 4\ntenants: {a: {namespaces: [na]}, b: {namespaces: [nb]}, c: {namespaces: [nc]}}")), "generation 4 is older than 5")
	require.ErrorContains(t, old.Replaceable(parse("version: 1\ngeneration: 6\ntenants: {a: {namespaces: [na, nb]}, b: {}, c: {namespaces: [nc]}}")), "namespace nb was tenant b's and would become a's")
	require.ErrorContains(t, old.Replaceable(parse("version: 1\ngeneration: 6\ntenants: {a: {}, b: {}, c: {namespaces: [nc]}}")), "2 of 3 tenants are missing from the new version, or have none of their namespaces left")
	require.NoError(t, old.Replaceable(parse("version: 1\ngeneration: 6\ntenants: {a: {namespaces: [new]}, b: {namespaces: [nb]}, c: {namespaces: [nc]}}")))
	require.NoError(t, old.Replaceable(parse("version: 1\ngeneration: 6\ntenants: {a: {namespaces: [na]}, b: {namespaces: [nb]}}\nplatformNamespaces: [nc]")), "to the platform")
	require.Len(t, list(old.Replaceable(parse("version: 1\ntenants: {a: {namespaces: [nb]}}"))), 3, "all at once")
	// An emptied file, and half of few.
	one, two := parse("version: 1\ntenants: {a: {namespaces: [na]}}"), parse("version: 1\ntenants: {a: {namespaces: [na]}, b: {namespaces: [nb]}}")
	none := parse("version: 1")
	require.ErrorContains(t, one.Replaceable(none), "1 of 1 tenants")
	require.NoError(t, two.Replaceable(one))
	require.NoError(t, none.Replaceable(two))
}

func TestNoNamespaceLeavesATenantThatHadItByThePrefixRule(t *testing.T) {
	parse := func(s string, o RegistryOptions) *Registry {
		r, err := ParseRegistry([]byte(s), o)
		require.NoError(t, err)
		return r
	}
	rule, err := NewRegistry(RegistryOptions{})
	require.NoError(t, err)
	listed := parse("version: 1\ntenants: {corp: {namespaces: [tenant-corp, tenant-acme]}}", RegistryOptions{})
	require.EqualError(t, rule.Replaceable(listed), "namespace tenant-acme was tenant acme's and would become corp's: a namespace does not change its tenant")
	require.ErrorContains(t, listed.Replaceable(rule), "namespace tenant-acme was tenant corp's and would become acme's")
	require.NoError(t, rule.Replaceable(parse("version: 1\ntenants: {acme: {retentionDays: 731}}\nplatformNamespaces: [tenant-tools]", RegistryOptions{})))

	other, err := NewRegistry(RegistryOptions{NamespacePrefix: "t-"})
	require.NoError(t, err)
	require.EqualError(t, rule.Replaceable(other), "tenant_source prefix with namespace_prefix tenant- would become prefix with t-: neither changes while running")
	require.ErrorContains(t, rule.Replaceable(parse("version: 1", RegistryOptions{Mode: ModeRegistry})), "neither changes while running")
}

func FuzzParseRegistry(f *testing.F) {
	f.Add([]byte(goodRegistry), false)
	f.Add([]byte("version: 1\ntenants: {a: null}"), true)
	for _, folder := range []string{"good", "bad"} {
		paths, err := filepath.Glob(filepath.Join("testdata", "registry", folder, "*.yaml"))
		if err != nil || len(paths) == 0 {
			f.Fatal("no fixtures", err)
		}
		for _, path := range paths {
			data, err := os.ReadFile(path)
			if err != nil {
				f.Fatal(err)
			}
			f.Add(data, false)
		}
	}
	f.Fuzz(func(t *testing.T, data []byte, registry bool) {
		o := RegistryOptions{}
		if registry {
			o.Mode = ModeRegistry
		}
		r, err := ParseRegistry(data, o)
		if err != nil {
			for _, e := range list(err) {
				if text := e.Error(); text == "" || strings.ContainsAny(text, "\r\n") || strings.Contains(text, "tenancy.") {
					t.Fatalf("the error %q", text)
				}
			}
			return
		}
		for _, tenant := range r.Tenants() {
			if !Label(tenant.Name) {
				t.Fatalf("tenant %q", tenant.Name)
			}
			for _, ns := range tenant.Namespaces {
				if _, got := r.Resolve(ns); got != tenant {
					t.Fatalf("namespace %q is not its tenant's", ns)
				}
			}
		}
	})
}

func TestASourceFromARecordIsHeldToTheSameRules(t *testing.T) {
	r := testRouter(t, RegistryOptions{}, "")
	for name, test := range map[string]struct {
		src  Source
		want Reason
	}{
		"good":         {Source{Namespace: "tenant-a", Pod: "p", Container: "c", PodUID: testUID, ContainerID: testHex}, None},
		"no container": {Source{Namespace: "tenant-a", Pod: "p"}, None},
		"nothing":      {Source{}, BadNamespace},
		"namespace":    {Source{Namespace: "tenant-a/../b", Pod: "p"}, BadNamespace},
		"pod":          {Source{Namespace: "tenant-a", Pod: "P"}, BadPod},
		"container":    {Source{Namespace: "tenant-a", Pod: "p", Container: "a.b"}, BadContainer},
		"uid":          {Source{Namespace: "tenant-a", Pod: "p", PodUID: "x"}, BadUID},
		"container id": {Source{Namespace: "tenant-a", Pod: "p", ContainerID: "x"}, BadContainerID},
	} {
		require.Equal(t, test.want, r.RouteSource(test.src).Reason, name)
	}
}

func BenchmarkParse(b *testing.B) {
	p, err := NewTagParser(nil)
	if err != nil {
		b.Fatal(err)
	}
	tag := PodsPrefix + "tenant-acme_web-6d4cf56db6-x8x7k_" + testUID + ".app.0.log"
	b.ReportAllocs()
	for range b.N {
		p.Parse(tag)
	}
}

func BenchmarkRoute(b *testing.B) {
	r := testRouter(b, RegistryOptions{}, "")
	tag := PodsPrefix + "tenant-acme_web-6d4cf56db6-x8x7k_" + testUID + ".app.0.log"
	b.ReportAllocs()
	for range b.N {
		r.Route(tag)
	}
}

// What Replaceable lets pass moves no namespace between tenants.
func TestNoReloadMovesANamespace(t *testing.T) {
	names := []string{"a", "b", "c"}
	spaces := []string{"tenant-a", "tenant-b", "tenant-c", "x", "y", "kube-system"}
	rapid.Check(t, func(t *rapid.T) {
		o := RegistryOptions{Mode: Mode(rapid.IntRange(0, 1).Draw(t, "mode"))}
		draw := func(label string) *Registry {
			owner := map[string][]string{}
			for _, ns := range spaces {
				to := rapid.SampledFrom(append([]string{"", "platform"}, names...)).Draw(t, label+ns)
				owner[to] = append(owner[to], ns)
			}
			y := "version: 1\nplatformNamespaces: [" + strings.Join(owner["platform"], ", ") + "]\ntenants:\n"
			for _, name := range names {
				y += "  " + name + ": {namespaces: [" + strings.Join(owner[name], ", ") + "]}\n"
			}
			r, err := ParseRegistry([]byte(y), o)
			if err != nil {
				t.Skip("a clash")
			}
			return r
		}
		old, next := draw("old "), draw("next ")
		moved := false
		for _, ns := range append(spaces, "tenant-d") {
			_, was := old.Resolve(ns)
			_, now := next.Resolve(ns)
			moved = moved || was != nil && now != nil && was.Name != now.Name
		}
		if err := old.Replaceable(next); moved && err == nil {
			t.Fatal("a namespace moved")
		}
	})
}

func TestAGroupSaysWhoseItIs(t *testing.T) {
	registry, err := NewRegistry(RegistryOptions{})
	require.NoError(t, err)
	parser, err := NewTagParser(nil)
	require.NoError(t, err)
	template, err := ParseStreamTemplate(DefaultStreamTemplate)
	require.NoError(t, err)
	r := NewRouter(parser, registry, DefaultNames(), template, "n")
	for group, want := range map[string]string{
		"/eks/tenants/acme": "acme", "/eks/tenants/acme-corp": "acme-corp", "/eks/platform": "", "/eks/quarantine/acme": "",
		"/eks/quarantine/_pending": "", "/eks/tenants/": "", "/eks/tenants/Acme": "", "/eks/tenants/a/b": "", "x/eks/tenants/acme": "",
	} {
		got, ok := r.TenantOf(group)
		require.Equal(t, want, got, group)
		require.Equal(t, want != "", ok, group)
	}
}
