package controller

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"

	"github.com/eks-tenant-logs/eks-tenant-logs/internal/provision"
	"github.com/eks-tenant-logs/eks-tenant-logs/internal/tenancy"
)

// world is a cluster in memory: namespaces, and ConfigMaps with versions.
type world struct {
	all     map[string]Namespace
	objects map[string]object
	version int
	writes  int
	news    []news
	onWrite func(name string) error // before a write; nil: nothing
}

func newWorld(namespaces ...Namespace) *world {
	w := &world{all: map[string]Namespace{}, objects: map[string]object{}}
	w.set("r-exceptions", map[string]string{registryKey: "version: 1\n"})
	w.add(plain("logs"), plain("kube-system"))
	w.add(namespaces...)
	return w
}

func (w *world) add(namespaces ...Namespace) {
	for _, ns := range namespaces {
		w.all[ns.Name] = ns
	}
}

// set writes a ConfigMap as somebody else does; nil data deletes it.
func (w *world) set(name string, data map[string]string) {
	w.version++
	if data == nil {
		delete(w.objects, name)
		return
	}
	w.objects[name] = object{data: data, version: strconv.Itoa(w.version), ours: true}
}

func (w *world) namespaces(context.Context) ([]Namespace, error) {
	return slices.Collect(maps.Values(w.all)), nil
}

func (w *world) seen(ctx context.Context, name string) (object, error) { return w.read(ctx, name) }

func (w *world) read(_ context.Context, name string) (object, error) { return w.objects[name], nil }

func (w *world) write(_ context.Context, name, version string, data map[string]string) (string, error) {
	if w.onWrite != nil {
		if err := w.onWrite(name); err != nil {
			return "", err
		}
	}
	if w.objects[name].version != version {
		return "", errMoved
	}
	w.writes++
	w.set(name, maps.Clone(data))
	return w.objects[name].version, nil
}

func (w *world) tell(_ context.Context, n news) error {
	w.writes++
	w.news = append(w.news, n)
	return nil
}

// told are the events since it was last asked, as "namespace reason".
func (w *world) told() []string {
	var all []string
	for _, n := range w.news {
		all = append(all, n.namespace+" "+n.reason)
	}
	w.news = nil
	return all
}

func (w *world) status() status { return readStatus(w.objects["r-status"].data) }

func (w *world) registry(t *testing.T) *tenancy.Registry {
	p, err := readPublished(w.objects["r-registry"].data)
	require.NoError(t, err)
	require.NotNil(t, p.registry)
	return p.registry
}

func (w *world) tenantOf(t *testing.T, ns string) string {
	if _, tenant := w.registry(t).Resolve(ns); tenant != nil {
		return tenant.Name
	}
	return ""
}

// recorder is an engine that gives a tenant to the UID that came first, and records what it is
// asked.
type recorder struct {
	asked   [][]string
	retired []string
	owner   map[string]string // UID by tenant
	gone    map[string]bool   // retired
	err     error             // of the whole
	failing map[string]bool
	failed  string // of the cluster's own
	before  func()

	quarantined []provision.Quarantined
	lookErr     bool           // when looking at quarantine
	shortBy     map[string]int // days of retention that a tenant's group lacks
}

func newRecorder() *recorder {
	return &recorder{owner: map[string]string{}, gone: map[string]bool{}, failing: map[string]bool{}}
}

func (r *recorder) Reconcile(_ context.Context, tenants []provision.Tenant) (provision.Report, error) {
	var names []string
	for _, t := range tenants {
		names = append(names, t.Name)
	}
	r.asked = append(r.asked, names)
	if r.before != nil {
		r.before()
	}
	if r.err != nil {
		return provision.Report{}, r.err
	}
	report := provision.Report{Failed: r.failed}
	for _, t := range tenants {
		s := provision.TenantStatus{Tenant: t.Name, State: provision.StateReady, Group: "/eks/tenants/" + t.Name, RetentionDays: 365 - r.shortBy[t.Name], WantedDays: 365}
		for _, ns := range t.Namespaces {
			if r.owner[t.Name] == "" && !r.failing[t.Name] {
				r.owner[t.Name] = ns.UID
			}
			if r.owner[t.Name] == ns.UID {
				s.Namespaces = append(s.Namespaces, ns.Name)
			} else {
				s.Refused = append(s.Refused, provision.Refusal{Namespace: ns.Name, Reason: "another has it"})
			}
		}
		switch {
		case r.failing[t.Name]:
			s.State, s.Reason, s.Refused = provision.StateFailed, "denied", nil
		case r.gone[t.Name]:
			s.State, s.Reason, s.Namespaces, s.Refused = provision.StateRetired, "the name was used", nil, nil
		case len(s.Namespaces) == 0:
			s.State, s.Reason = provision.StateRefused, "another has it"
		}
		report.Tenants = append(report.Tenants, s)
	}
	return report, nil
}

func (r *recorder) Retire(_ context.Context, tenant string) (provision.TenantStatus, error) {
	r.retired = append(r.retired, tenant)
	if r.failing[tenant] {
		return provision.TenantStatus{}, errors.New("denied")
	}
	r.gone[tenant] = true
	return provision.TenantStatus{Tenant: tenant, State: provision.StateRetired, Reason: "read access taken away"}, nil
}

func (r *recorder) Owned(context.Context) ([]string, error) {
	var all []string
	for tenant := range r.owner {
		if !r.gone[tenant] {
			all = append(all, tenant)
		}
	}
	return all, nil
}

func (r *recorder) Quarantined(context.Context) ([]provision.Quarantined, error) {
	if r.lookErr {
		return nil, errors.New("denied")
	}
	return r.quarantined, nil
}

// calls are the tenants the engine was asked for since the last time.
func (r *recorder) calls() [][]string {
	asked := r.asked
	r.asked = nil
	return asked
}

func lead(t *testing.T, mode tenancy.Mode, w *world, e provision.Engine) *leader {
	t.Helper()
	cfg := Config{Namespace: "logs", Release: "r", Mode: mode, ExceptionsConfigMap: "r-exceptions", Reserved: []string{"logs"}, Log: slog.New(slog.DiscardHandler)}
	if mode == tenancy.ModePrefix {
		cfg.Prefix = "tenant-"
	}
	require.NoError(t, cfg.Check())
	m, err := newMetrics(prometheus.NewRegistry())
	require.NoError(t, err)
	return &leader{cfg: cfg, engine: e, k: w, now: time.Now, random: func() float64 { return 0.5 }, log: cfg.Log, metrics: m}
}

// pass makes one that must succeed, and returns how long the next may wait.
func pass(t *testing.T, l *leader) time.Duration {
	t.Helper()
	wait, err := l.pass(t.Context())
	require.NoError(t, err)
	return wait
}

// inBubble runs a test in virtual time.
func inBubble(t *testing.T, test func(t *testing.T)) { synctest.Test(t, test) }

func TestANamespacesLife(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		w, e := newWorld(labelled("blue", "acme"), plain("team")), newRecorder()
		l := lead(t, tenancy.ModeRegistry, w, e)
		require.Equal(t, 10*time.Minute, pass(t, l))
		require.Equal(t, [][]string{{"acme"}}, e.calls())
		require.Equal(t, []string{"blue TenantReady"}, w.told())
		require.Equal(t, provision.StateReady, w.status().tenants["acme"].State)
		require.Equal(t, "acme", w.tenantOf(t, "blue"))
		kind, _ := w.registry(t).Resolve("team")
		require.Equal(t, tenancy.KindPending, kind)

		// Another is created: only it is asked for.
		w.add(labelled("green", "globex"), labelled("red", "initech"))
		generation := w.registry(t).Generation
		pass(t, l)
		require.Equal(t, [][]string{{"globex", "initech"}}, e.calls())
		require.Equal(t, generation+1, w.registry(t).Generation)
		w.told()
		pass(t, l)
		require.Empty(t, e.calls())

		// Deleted: retired at once; its last lines are still its tenant's for an hour.
		delete(w.all, "blue")
		pass(t, l)
		require.Equal(t, []string{"acme"}, e.retired)
		require.Equal(t, []string{" TenantRetired"}, w.told())
		require.Equal(t, provision.StateRetired, w.status().tenants["acme"].State)
		require.Equal(t, "acme", w.tenantOf(t, "blue"))

		// Made anew: nothing of its predecessor's, not even in the file.
		w.add(Namespace{Name: "blue", UID: "anew", Label: "acme", Labelled: true})
		pass(t, l)
		require.Equal(t, []string{"blue TenantRefused"}, w.told())
		require.Equal(t, "the name was used", w.status().refused["blue"])
		require.Empty(t, w.tenantOf(t, "blue"))
		pass(t, l)
		require.Empty(t, w.told())
		require.Equal(t, []string{"acme"}, e.retired, "once")
	})
}

func TestAnHourOfResyncsWritesNothingInKubernetes(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		w, e := newWorld(labelled("blue", "acme"), labelled("green", "globex"), labelled("bad", "No Tenant")), newRecorder()
		l := lead(t, tenancy.ModeRegistry, w, e)
		random := 0.0
		l.random = func() float64 { random += 0.37; return random - float64(int(random)) }
		wait := pass(t, l)
		writes, begun := w.writes, time.Now()
		resyncs := 0
		for time.Since(begun) < time.Hour {
			require.GreaterOrEqual(t, wait, 9*time.Minute)
			require.LessOrEqual(t, wait, 11*time.Minute)
			time.Sleep(wait)
			wait = pass(t, l)
			resyncs++
		}
		require.GreaterOrEqual(t, resyncs, 5)
		require.Len(t, e.calls(), resyncs+1)
		require.Zero(t, w.writes-writes)
	})
}

func TestAResyncIsATenthSoonerOrLaterAtMost(t *testing.T) {
	for random, want := range map[float64]time.Duration{0: 9 * time.Minute, 0.5: 10 * time.Minute, 1: 11 * time.Minute} {
		inBubble(t, func(t *testing.T) {
			l := lead(t, tenancy.ModePrefix, newWorld(), newRecorder())
			l.random = func() float64 { return random }
			require.InDelta(t, want, pass(t, l), float64(time.Microsecond))
		})
	}
}

func TestAnEngineThatFailsAsAWholeIsAskedLaterAndLater(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		w, e := newWorld(plain("tenant-acme")), newRecorder()
		l := lead(t, tenancy.ModePrefix, w, e)
		e.err = errors.New("no credentials")
		var waits []time.Duration
		for range 12 {
			wait := pass(t, l)
			waits = append(waits, wait)
			asked := len(e.asked)
			pass(t, l) // something else happened meanwhile
			require.Len(t, e.asked, asked, "not before its time")
			time.Sleep(wait)
		}
		require.Equal(t, 1800*time.Millisecond, waits[0])
		for i := 1; i < len(waits); i++ {
			require.GreaterOrEqual(t, waits[i], waits[i-1])
			require.LessOrEqual(t, waits[i], retryLast)
		}
		require.Equal(t, 9*time.Minute, waits[11])
		require.Contains(t, w.objects["r-status"].data[summaryKey], "no credentials")
		e.err = nil
		require.Equal(t, 10*time.Minute, pass(t, l))
		require.NotContains(t, w.objects["r-status"].data[summaryKey], "no credentials")
		require.Equal(t, provision.StateReady, w.status().tenants["acme"].State)
	})
}

func TestATenantThatFailsIsTriedAgainByItself(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		w, e := newWorld(plain("tenant-acme"), plain("tenant-globex")), newRecorder()
		e.failing["acme"] = true
		l := lead(t, tenancy.ModePrefix, w, e)
		wait := pass(t, l)
		require.Equal(t, 1800*time.Millisecond, wait)
		require.ElementsMatch(t, []string{"tenant-acme TenantFailed", "tenant-globex TenantReady"}, w.told())
		e.calls()
		for range 3 {
			time.Sleep(wait)
			next := pass(t, l)
			require.Equal(t, [][]string{{"acme"}}, e.calls())
			require.Equal(t, 2*wait, next)
			wait = next
		}
		e.failing["acme"] = false
		time.Sleep(wait)
		pass(t, l)
		require.Equal(t, []string{"tenant-acme TenantReady"}, w.told())
	})
}

// Its namespace goes before it ever came to anything: it is forgotten, and nothing is tried.
func TestATenantThatFailedAndIsGoneIsLeftAlone(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		w, e := newWorld(plain("tenant-acme"), plain("tenant-globex")), newRecorder()
		e.failing["acme"] = true
		l := lead(t, tenancy.ModePrefix, w, e)
		pass(t, l)
		delete(w.all, "tenant-acme")
		time.Sleep(time.Minute)
		require.Greater(t, pass(t, l), 8*time.Minute)
		require.NotContains(t, w.status().tenants, "acme")
		require.Empty(t, e.retired)
	})
}

// Two of three had failed when they went: nobody is retired, and no pass after the other is made.
func TestTenantsThatFailedAndAreLeftAreNotTriedForEver(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		w, e := newWorld(plain("tenant-a"), plain("tenant-b"), plain("tenant-c")), newRecorder()
		l := lead(t, tenancy.ModePrefix, w, e)
		time.Sleep(pass(t, l))
		e.failing["a"], e.failing["b"] = true, true
		pass(t, l)
		delete(w.all, "tenant-a")
		delete(w.all, "tenant-b")
		time.Sleep(time.Minute)
		require.Greater(t, pass(t, l), 8*time.Minute)
		require.Empty(t, e.retired)
		require.Contains(t, w.objects["r-status"].data[summaryKey], "so nothing was retired")
	})
}

func TestARetirementThatFailsIsTriedAgain(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		w, e := newWorld(plain("tenant-acme"), plain("tenant-globex")), newRecorder()
		l := lead(t, tenancy.ModePrefix, w, e)
		pass(t, l)
		delete(w.all, "tenant-acme")
		e.failing["acme"] = true
		wait := pass(t, l)
		require.Equal(t, 1800*time.Millisecond, wait)
		pass(t, l)
		require.Equal(t, []string{"acme"}, e.retired, "not before its time")
		require.Equal(t, provision.StateFailed, w.status().tenants["acme"].State)
		e.failing["acme"] = false
		time.Sleep(wait)
		pass(t, l)
		require.Equal(t, provision.StateRetired, w.status().tenants["acme"].State)
		require.Equal(t, []string{"acme", "acme"}, e.retired)
		time.Sleep(retiredFor)
		pass(t, l)
		require.NotContains(t, w.status().tenants, "acme")
	})
}

func TestSomebodyElseWritesAConfigMap(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		w, e := newWorld(labelled("blue", "acme"), labelled("green", "globex")), newRecorder()
		l := lead(t, tenancy.ModeRegistry, w, e)
		pass(t, l)
		truth := maps.Clone(w.objects["r-registry"].data)
		generation := w.registry(t).Generation

		// Between two passes: it is seen, and set right.
		w.set("r-status", map[string]string{"acme": `{"state":"retired"}`})
		pass(t, l)
		require.Equal(t, provision.StateReady, w.status().tenants["acme"].State)
		w.set("r-registry", nil)
		pass(t, l)
		require.Equal(t, truth, w.objects["r-registry"].data, "deleted: the same again")

		// One that nodes would not take, with another's namespace: what is true is published above it.
		w.set("r-registry", map[string]string{registryKey: fmt.Sprintf("version: 1\ngeneration: %d\ntenants: {evil: {namespaces: [blue, green]}}\n", generation+5), ownersKey: `{"blue":{"tenant":"evil","uid":"uid-blue"}}`})
		pass(t, l)
		require.Equal(t, "acme", w.tenantOf(t, "blue"))
		require.Greater(t, w.registry(t).Generation, generation+5)

		// In mid-pass: the write is refused, all is read again, and then it is written.
		w.add(labelled("red", "initech"))
		w.onWrite = func(name string) error {
			w.onWrite = nil
			w.set(name, map[string]string{})
			return nil
		}
		_, err := l.pass(t.Context())
		require.ErrorIs(t, err, errMoved)
		pass(t, l)
		require.Equal(t, "initech", w.tenantOf(t, "red"))
		require.Equal(t, "acme", w.tenantOf(t, "blue"))

		// One that is not the controller's is never overwritten.
		w.set("r-status", map[string]string{})
		w.objects["r-status"] = object{data: map[string]string{"a": "b"}, version: "x"}
		_, err = l.pass(t.Context())
		require.ErrorContains(t, err, "is not the controller's")
		require.Equal(t, map[string]string{"a": "b"}, w.objects["r-status"].data)
	})
}

func TestTheNextLeaderGoesOnFromWhatWasPublished(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		w, e := newWorld(labelled("blue", "acme"), labelled("green", "globex"), labelled("bad", "!")), newRecorder()
		pass(t, lead(t, tenancy.ModeRegistry, w, e))
		generation, writes := w.registry(t).Generation, w.writes

		next := lead(t, tenancy.ModeRegistry, w, e)
		pass(t, next)
		require.Equal(t, writes, w.writes, "nothing changed, so nothing is written or told")

		// While nobody led, one went; another lost its label.
		delete(w.all, "blue")
		w.add(plain("green"))
		time.Sleep(time.Minute)
		pass(t, lead(t, tenancy.ModeRegistry, w, e))
		require.Equal(t, []string{"acme"}, e.retired)
		require.Equal(t, "globex", w.tenantOf(t, "green"), "it keeps its tenant")
		require.Contains(t, w.status().refused["green"], "nothing says so any more")
		require.GreaterOrEqual(t, w.registry(t).Generation, generation)
	})
}

func TestATenantsFileThatIsBrokenOrEmptyIsNotTaken(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		const good = "version: 1\ntenants: {acme: {namespaces: [tenant-acme], retentionDays: 731}}\n"
		w, e := newWorld(plain("tenant-acme"), plain("tenant-globex")), newRecorder()
		l := lead(t, tenancy.ModePrefix, w, e)
		for _, bad := range []map[string]string{{registryKey: "tenants: ["}, {"tenants.yml": good}, nil} {
			w.set("r-exceptions", bad)
			require.Equal(t, 10*time.Minute, pass(t, l))
			require.Empty(t, e.calls(), "nothing is done before there was a right one")
			require.Contains(t, w.objects["r-status"].data[summaryKey], "nothing is done until it is right")
		}

		w.set("r-exceptions", map[string]string{registryKey: good})
		pass(t, l)
		require.Equal(t, [][]string{{"acme", "globex"}}, e.calls())
		for _, bad := range []map[string]string{{registryKey: "tenants: ["}, nil} {
			w.set("r-exceptions", bad)
			pass(t, l)
			require.Empty(t, e.calls())
			require.Contains(t, w.objects["r-status"].data[summaryKey], "the last one stays in force")
			require.Equal(t, 731, l.exceptions.Tenant("acme").RetentionDays)
		}
		w.set("r-exceptions", map[string]string{registryKey: good + "platformNamespaces: [monitoring]\n"})
		pass(t, l)
		require.Equal(t, [][]string{{"acme", "globex"}}, e.calls(), "a new one: all are looked at")
		require.NotContains(t, w.objects["r-status"].data[summaryKey], "problems")
	})
}

func TestMostNamespacesGoneAtOnceRetiresNobodyAndSaysSo(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		w, e := newWorld(labelled("a", "acme"), labelled("b", "globex"), labelled("c", "initech")), newRecorder()
		l := lead(t, tenancy.ModeRegistry, w, e)
		pass(t, l)
		delete(w.all, "a")
		delete(w.all, "b")
		pass(t, l)
		require.Empty(t, e.retired)
		require.Contains(t, w.objects["r-status"].data[summaryKey], "2 of 3 tenants at once, so nothing was retired")
		time.Sleep(2 * time.Hour)
		pass(t, l)
		require.Contains(t, w.objects["r-status"].data[summaryKey], "nodes refuse one that loses so many")
		require.Equal(t, "acme", w.tenantOf(t, "a"))

		// An operator wants it so: the ConfigMap is deleted.
		w.add(plain("monitoring"))
		w.set("r-exceptions", map[string]string{registryKey: "version: 1\nplatformNamespaces: [a, b, c]\n"})
		pass(t, l)
		require.Contains(t, w.objects["r-status"].data[summaryKey], "delete ConfigMap r-registry")
		generation := w.registry(t).Generation
		w.set("r-registry", nil)
		pass(t, l)
		require.Empty(t, w.registry(t).Tenants())
		require.Greater(t, w.registry(t).Generation, generation)
	})
}

// A cluster always has namespaces, the release's among them: a list without it is not one.
func TestAListWithoutTheReleasesNamespaceIsNotBelieved(t *testing.T) {
	for name, left := range map[string][]Namespace{"empty": nil, "another cluster's": {plain("kube-system"), plain("tenant-other")}} {
		inBubble(t, func(t *testing.T) {
			w, e := newWorld(plain("tenant-acme")), newRecorder()
			l := lead(t, tenancy.ModePrefix, w, e)
			pass(t, l)
			e.calls()
			writes := w.writes
			clear(w.all)
			w.add(left...)
			time.Sleep(time.Hour)
			_, err := l.pass(t.Context())
			require.ErrorContains(t, err, "logs", name)
			require.Empty(t, e.retired, name)
			require.Empty(t, e.calls(), name)
			require.Equal(t, writes, w.writes, name)
		})
	}
}

func TestALeaderThatEndsInMidPassWritesNothingMore(t *testing.T) {
	for name, end := range map[string]func(cancel func(), w *world, e *recorder){
		"while the engine works": func(cancel func(), _ *world, e *recorder) { e.before = cancel },
		"while it writes": func(cancel func(), w *world, _ *recorder) {
			w.onWrite = func(string) error { cancel(); return context.Canceled }
		},
	} {
		inBubble(t, func(t *testing.T) {
			w, e := newWorld(labelled("a", "acme"), labelled("b", "globex"), labelled("c", "initech")), newRecorder()
			l := lead(t, tenancy.ModeRegistry, w, e)
			pass(t, l)
			w.add(labelled("d", "umbrella"))
			delete(w.all, "a")
			if name == "while it writes" {
				w.add(labelled("a", "acme")) // nothing to retire: the engine may act before
			}
			writes := w.writes
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			end(cancel, w, e)
			_, err := l.pass(ctx)
			require.ErrorIs(t, err, context.Canceled, name)
			require.Equal(t, writes, w.writes, name)
			require.Empty(t, e.retired, name)
		})
	}
}

func TestWhatOfTheClustersOwnFailsIsAProblem(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		w, e := newWorld(plain("tenant-acme")), newRecorder()
		e.failed = "group /eks/platform: denied"
		l := lead(t, tenancy.ModePrefix, w, e)
		wait := pass(t, l)
		require.Contains(t, w.objects["r-status"].data[summaryKey], "group /eks/platform: denied")
		e.failed = ""
		time.Sleep(wait)
		pass(t, l)
		require.NotContains(t, w.objects["r-status"].data[summaryKey], "/eks/platform")
	})
}

// A ConfigMap holds 1 MiB. What does not fit is told, and what was published stays.
func TestARegistryThatDoesNotFitIsToldAndTheLastOneStays(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		w, e := newWorld(), newRecorder()
		for i := range 5000 {
			w.add(labelled(fmt.Sprintf("customer-%05d-production", i), fmt.Sprintf("customer-%05d", i)))
		}
		l := lead(t, tenancy.ModeRegistry, w, e)
		pass(t, l)
		require.Len(t, w.registry(t).Tenants(), 5000)
		t.Logf("5,000 namespaces take %d bytes", sizeOf(w.objects["r-registry"].data))
		for i := range 5000 {
			w.add(labelled(fmt.Sprintf("another-%05d-production", i), fmt.Sprintf("another-%05d", i)))
		}
		require.Greater(t, pass(t, l), time.Minute, "and it is not tried again and again")
		require.Len(t, w.registry(t).Tenants(), 5000)
		require.Contains(t, w.objects["r-status"].data[summaryKey], "a ConfigMap holds 1048576")
		require.LessOrEqual(t, sizeOf(w.objects["r-status"].data), maxConfigMap)
	})
}
