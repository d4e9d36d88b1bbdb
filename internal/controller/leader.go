package controller

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math"
	"reflect"
	"slices"
	"time"

	"github.com/eks-tenant-logs/eks-tenant-logs/internal/provision"
	"github.com/eks-tenant-logs/eks-tenant-logs/internal/tenancy"
)

// errMoved: somebody else wrote the object since it was read.
var errMoved = errors.New("it was changed by somebody else")

// object is a ConfigMap of the release's namespace.
type object struct {
	data map[string]string
	// version is the API server's; empty where there is none.
	version string
	// ours: it has the label that the controller puts on what it makes.
	ours bool
}

// surroundings is what the leader reads and writes of Kubernetes.
type surroundings interface {
	// namespaces lists all of them, from what is watched.
	namespaces(ctx context.Context) ([]Namespace, error)
	// seen is a ConfigMap as it is watched, which may be a moment old.
	seen(ctx context.Context, name string) (object, error)
	// read asks the API server for a ConfigMap.
	read(ctx context.Context, name string) (object, error)
	// write makes or replaces a ConfigMap that has this version, and returns its next one;
	// errMoved where it has another.
	write(ctx context.Context, name, version string, data map[string]string) (string, error)
	// tell makes an event.
	tell(ctx context.Context, n news) error
}

// leader does the work of the one controller that leads. Only its loop uses it.
type leader struct {
	cfg     Config
	engine  provision.Engine
	k       surroundings
	now     func() time.Time
	random  func() float64
	log     *slog.Logger
	metrics *metrics

	loaded    bool
	status    status
	published published
	held      map[string]object // what was read or written last, by name

	exceptionsText string
	exceptions     *tenancy.Registry // nil until it could be read

	// handled are the tenants as the engine was last asked for them.
	handled map[string]provision.Tenant
	retries map[string]retry
	// refusedBy are the namespaces that the engine refused last, by tenant.
	refusedBy map[string][]Refusal
	// owned are the tenants that had read access at the last resync.
	owned []string
	// whole is the retry of a run that failed as a whole.
	whole retry
	// resync is when all are looked at again; zero: now.
	resync time.Time
	// complete: the engine has looked at all tenants once.
	complete bool
}

// retry is when something that failed is tried again.
type retry struct {
	tries int
	at    time.Time
}

const (
	retryFirst = 2 * time.Second
	retryLast  = 10 * time.Minute
)

// again is the next try: twice as late each time, up to retryLast, less up to a fifth, so
// that what failed together is not tried together.
func (r retry) again(now time.Time, random float64) retry {
	wait := min(float64(retryLast), float64(retryFirst)*math.Pow(2, float64(min(r.tries, 20))))
	return retry{tries: r.tries + 1, at: now.Add(time.Duration(wait * (1 - 0.2*random)))}
}

// pass makes everything right once, and returns how long the next pass may wait if nothing
// happens. Its error has been told already; the next pass tries again.
func (l *leader) pass(ctx context.Context) (time.Duration, error) {
	if err := l.load(ctx); err != nil {
		return retryFirst, err
	}
	ready, changed, err := l.readExceptions(ctx)
	if err != nil {
		return retryFirst, err
	}
	if !ready {
		return l.cfg.Resync, l.save(ctx, nil)
	}
	namespaces, err := l.k.namespaces(ctx)
	if err != nil {
		return retryFirst, fmt.Errorf("failed to list namespaces: %w", err)
	}
	if !slices.ContainsFunc(namespaces, func(ns Namespace) bool { return ns.Name == l.cfg.Namespace }) {
		// Whoever believed it would retire tenants that are there.
		return retryFirst, fmt.Errorf("the list of %d namespaces is without the release's own, %s: it is not this cluster's", len(namespaces), l.cfg.Namespace)
	}
	rules := Rules{Mode: l.cfg.Mode, Exceptions: l.exceptions, Reserved: l.cfg.Reserved}
	if l.cfg.Mode == tenancy.ModeRegistry {
		rules.Owners = l.published.owners
	}
	desired, refusals := Desired(namespaces, rules)
	claimed := map[string]provision.Tenant{}
	for _, t := range desired {
		claimed[t.Name] = t
	}
	exists := map[string]string{}
	for _, ns := range namespaces {
		exists[ns.Name] = ns.UID
	}
	engineRefusals, told := l.reconcile(ctx, desired, claimed, exists, changed)
	if ctx.Err() != nil {
		return 0, ctx.Err() // another may lead by now
	}
	told = append(told, l.status.refuse(slices.Concat(refusals, engineRefusals))...)
	l.status.forget(claimed, l.now())
	if l.cfg.Mode == tenancy.ModeRegistry && l.complete {
		if err := l.publish(ctx, claimed, refusals, exists); err != nil {
			return retryFirst, errors.Join(err, l.save(ctx, told))
		}
	}
	if err := l.save(ctx, told); err != nil {
		return retryFirst, err
	}
	return l.wait(), nil
}

// load reads what the last leader knew; after that, only where somebody else has written.
func (l *leader) load(ctx context.Context) error {
	names := []string{l.cfg.statusName()}
	if l.cfg.Mode == tenancy.ModeRegistry {
		names = append(names, l.cfg.registryName())
	}
	for _, name := range names {
		if !l.loaded {
			break
		}
		seen, err := l.k.seen(ctx, name)
		if err != nil {
			return fmt.Errorf("failed to look at ConfigMap %s: %w", name, err)
		}
		if !maps.Equal(seen.data, l.held[name].data) {
			now, err := l.k.read(ctx, name)
			if err != nil {
				return fmt.Errorf("failed to read ConfigMap %s: %w", name, err)
			}
			if now.version != l.held[name].version {
				l.log.Warn("somebody else wrote a ConfigMap of the controller's; it is written again", "configmap", name)
				l.loaded = false
			}
		}
	}
	if l.loaded {
		return nil
	}
	held := map[string]object{}
	for _, name := range names {
		o, err := l.k.read(ctx, name)
		if err != nil {
			return fmt.Errorf("failed to read ConfigMap %s: %w", name, err)
		}
		if o.version != "" && !o.ours {
			return fmt.Errorf("ConfigMap %s is not the controller's: it has no label %s=%s; remove it, or give the release another name", name, managedBy, manager)
		}
		held[name] = o
	}
	l.held = held
	if l.handled == nil {
		l.handled, l.retries = map[string]provision.Tenant{}, map[string]retry{}
		l.status = readStatus(held[l.cfg.statusName()].data)
		l.published.owners = map[string]Owner{}
	}
	l.loaded = true
	if l.cfg.Mode != tenancy.ModeRegistry || held[l.cfg.registryName()].version == "" {
		if l.status.problems["registry"] != "" {
			// It was deleted to have it written anew, whatever it was.
			l.published.registry, l.published.data = nil, nil
		}
		return nil // what is in memory, if anything, is written again
	}
	p, err := readPublished(held[l.cfg.registryName()].data)
	if err != nil {
		l.log.Error("the published registry is broken, and is written anew", "err", err)
	}
	if p.registry != nil {
		l.status.generation = max(l.status.generation, p.registry.Generation)
	}
	// Another leader's goes on from what was published here; what does not is a mistake.
	if l.published.registry == nil || p.registry != nil && len(p.owners) > 0 && l.published.registry.Replaceable(p.registry) == nil {
		l.published = p
	}
	return nil
}

// readExceptions reads the tenants file of the release. A version that is broken, or that
// loses most tenants, is refused, and the one before stays; without one before, nothing is
// done at all: settings that nobody can read may be those that matter.
func (l *leader) readExceptions(ctx context.Context) (ready, changed bool, err error) {
	text, err := l.cfg.exceptionsText(ctx, l.k)
	if err != nil {
		if ctx.Err() != nil {
			return false, false, ctx.Err()
		}
		l.problem("exceptions", fmt.Sprintf("the tenants file can't be read, %s: %v", l.kept(), err))
		return l.exceptions != nil, false, nil
	}
	if l.exceptions != nil && text == l.exceptionsText {
		return true, false, nil
	}
	next, err := parseExceptions(text, l.cfg.Mode, l.cfg.Prefix)
	if err == nil && l.exceptions != nil {
		err = l.exceptions.Replaceable(next)
	}
	if err != nil {
		l.problem("exceptions", fmt.Sprintf("the tenants file %s is refused, %s: %v", l.cfg.exceptionsFrom(), l.kept(), err))
		return l.exceptions != nil, false, nil
	}
	l.problem("exceptions", "")
	changed = l.exceptions != nil
	l.exceptions, l.exceptionsText = next, text
	return true, changed, nil
}

// kept says what a tenants file that is not taken means.
func (l *leader) kept() string {
	if l.exceptions == nil {
		return "and nothing is done until it is right"
	}
	return "and the last one stays in force"
}

// parseExceptions reads a tenants file; empty means there is none.
func parseExceptions(text string, mode tenancy.Mode, prefix string) (*tenancy.Registry, error) {
	if text == "" {
		text = "version: 1"
	}
	return tenancy.ParseRegistry([]byte(text), tenancy.RegistryOptions{Mode: mode, NamespacePrefix: prefix})
}

// problem is something that concerns no single tenant; an empty text says that it is over.
func (l *leader) problem(about, text string) {
	text = cut(text)
	if text == l.status.problems[about] {
		return
	}
	if text == "" {
		delete(l.status.problems, about)
		l.log.Info("over: " + about)
		return
	}
	l.status.problems[about] = text
	l.log.Error(text)
}

// todo are the tenants to ask the engine for: all at a resync, else those that are new or
// changed, and those whose retry is due.
func (l *leader) todo(desired []provision.Tenant, all bool) []provision.Tenant {
	if all {
		return desired
	}
	now := l.now()
	var todo []provision.Tenant
	for _, t := range desired {
		before, handled := l.handled[t.Name]
		r, failed := l.retries[t.Name]
		if !handled || !reflect.DeepEqual(before, t) || failed && !now.Before(r.at) {
			todo = append(todo, t)
		}
	}
	return todo
}

// reconcile asks the engine, and takes over what it says.
func (l *leader) reconcile(ctx context.Context, desired []provision.Tenant, claimed map[string]provision.Tenant, exists map[string]string, changed bool) ([]Refusal, []news) {
	var told []news
	now := l.now()
	all := changed || !l.complete || !now.Before(l.resync)
	if l.whole.tries > 0 && now.Before(l.whole.at) {
		return l.refusalsBefore(nil, claimed), nil
	}
	todo := l.todo(desired, all)
	var refusals []Refusal
	if all || len(todo) > 0 {
		report, err := l.ask(ctx, todo)
		if ctx.Err() != nil {
			return nil, nil
		}
		if err != nil {
			l.whole = l.whole.again(now, l.random())
			l.problem("engine", "nothing could be set up: "+err.Error())
			l.metrics.failed(all)
			return l.refusalsBefore(nil, claimed), nil
		}
		l.whole = retry{}
		l.problem("engine", "")
		if all || report.Failed != "" {
			l.problem("cluster", report.Failed)
		}
		told = l.status.fold(report.Tenants, claimed, now)
		refusals = l.refusalsBefore(report.Tenants, claimed)
		l.remember(todo, report)
		l.metrics.reconciled(report, all, now)
		if all {
			l.complete = true
			l.lookAtQuarantine(ctx)
			l.resync = now.Add(time.Duration(float64(l.cfg.Resync) * (0.9 + 0.2*l.random())))
		}
	} else {
		refusals = l.refusalsBefore(nil, claimed)
	}
	if l.complete {
		told = append(told, l.retire(ctx, claimed, exists, all)...)
	}
	return refusals, told
}

// lookAtQuarantine shows what waits in quarantine. Nothing rests on it.
func (l *leader) lookAtQuarantine(ctx context.Context) {
	bounded, cancel := context.WithTimeout(ctx, l.cfg.PassTimeout)
	defer cancel()
	waiting, err := l.engine.Quarantined(bounded)
	if err != nil {
		if ctx.Err() == nil {
			l.problem("quarantine", "what waits in quarantine could not be looked at: "+err.Error())
		}
		return
	}
	l.problem("quarantine", "")
	l.metrics.waiting(waiting)
}

// ask calls the engine, for as long as a pass may take.
func (l *leader) ask(ctx context.Context, todo []provision.Tenant) (provision.Report, error) {
	ctx, cancel := context.WithTimeout(ctx, l.cfg.PassTimeout)
	defer cancel()
	return l.engine.Reconcile(ctx, todo)
}

// refusalsBefore are the namespaces the engine refused: of tenants in the report what it
// says now, of others what it said last.
func (l *leader) refusalsBefore(report []provision.TenantStatus, claimed map[string]provision.Tenant) []Refusal {
	if l.refusedBy == nil {
		l.refusedBy = map[string][]Refusal{}
	}
	for _, t := range report {
		delete(l.refusedBy, t.Tenant)
		if t.State == provision.StateRetired {
			// Whoever claims a name that was used gets nothing.
			for _, ns := range claimed[t.Tenant].Namespaces {
				l.refusedBy[t.Tenant] = append(l.refusedBy[t.Tenant], Refusal{Namespace: ns.Name, UID: ns.UID, Reason: t.Reason})
			}
			continue
		}
		for _, r := range t.Refused {
			for _, ns := range claimed[t.Tenant].Namespaces {
				if ns.Name == r.Namespace {
					l.refusedBy[t.Tenant] = append(l.refusedBy[t.Tenant], Refusal{Namespace: ns.Name, UID: ns.UID, Reason: r.Reason})
				}
			}
		}
	}
	var all []Refusal
	for _, tenant := range slices.Sorted(maps.Keys(l.refusedBy)) {
		for _, r := range l.refusedBy[tenant] {
			if slices.Contains(claimed[tenant].Namespaces, provision.Namespace{Name: r.Namespace, UID: r.UID}) {
				all = append(all, r)
			}
		}
	}
	return all
}

// remember notes what was handled, and what is to be tried again.
func (l *leader) remember(todo []provision.Tenant, report provision.Report) {
	states := map[string]provision.State{}
	for _, t := range report.Tenants {
		states[t.Tenant] = t.State
	}
	for _, t := range todo {
		l.handled[t.Name] = t
		switch states[t.Name] {
		case provision.StateReady, provision.StateRefused, provision.StateRetired:
			delete(l.retries, t.Name) // until the resync
		default:
			l.retries[t.Name] = l.retries[t.Name].again(l.now(), l.random())
		}
	}
}

// retire retires the tenants whose namespaces are gone.
func (l *leader) retire(ctx context.Context, claimed map[string]provision.Tenant, exists map[string]string, all bool) []news {
	active := map[string]bool{}
	had := map[string]map[string]string{}
	for name, e := range l.status.tenants {
		if e.State != provision.StateRetired && len(e.Namespaces) > 0 {
			active[name], had[name] = true, e.Namespaces
		}
	}
	if all {
		owned, err := l.engine.Owned(ctx)
		if err != nil {
			l.drop(claimed, nil)
			l.problem("owned", "which tenants have read access could not be read: "+err.Error())
			return nil
		}
		l.problem("owned", "")
		l.owned = owned
	}
	for _, name := range l.owned {
		active[name] = true
	}
	wanted := map[string]bool{}
	for name := range claimed {
		wanted[name] = l.status.tenants[name].State == provision.StateRefused
	}
	r := retirements(slices.Collect(maps.Keys(active)), wanted, had, exists)
	l.drop(claimed, r.retire)
	var told []news
	now := l.now()
	for _, tenant := range r.retire {
		if again, failed := l.retries[tenant]; failed && now.Before(again.at) && l.status.tenants[tenant].State == provision.StateFailed {
			continue
		}
		s, err := l.engine.Retire(ctx, tenant)
		if ctx.Err() != nil {
			return told
		}
		e := l.status.tenants[tenant]
		before := e.State
		e.State, e.Reason, e.Findings = s.State, cut(s.Reason), nil
		if err != nil {
			e.State, e.Reason = provision.StateFailed, cut("it is to be retired: "+err.Error())
			l.retries[tenant] = l.retries[tenant].again(now, l.random())
		} else {
			e.Group, e.Role, e.RetentionDays, e.Namespaces = s.Group, s.Role, s.RetentionDays, nil
			delete(l.retries, tenant)
			delete(l.handled, tenant)
			l.owned = slices.DeleteFunc(l.owned, func(name string) bool { return name == tenant })
			l.metrics.retired()
			told = append(told, news{reason: eventRetired, text: fmt.Sprintf("tenant %s is retired, for its namespaces are gone: %s", tenant, e.Reason)})
		}
		if before != e.State {
			e.Since = now.UTC().Truncate(time.Second)
		}
		l.status.tenants[tenant] = e
	}
	text := ""
	for _, tenant := range slices.Sorted(maps.Keys(r.left)) {
		if text != "" {
			text += "; "
		}
		text += "tenant " + tenant + ": " + r.left[tenant]
	}
	l.metrics.unclaimed.Set(float64(len(r.left)))
	l.problem("unclaimed", text)
	return told
}

// drop forgets the retries of tenants that nobody claims and that are not to be retired: nothing
// is tried for them.
func (l *leader) drop(claimed map[string]provision.Tenant, retire []string) {
	maps.DeleteFunc(l.retries, func(name string, _ retry) bool {
		_, wanted := claimed[name]
		return !wanted && !slices.Contains(retire, name)
	})
}

// publish writes the registry, where it changed.
func (l *leader) publish(ctx context.Context, claimed map[string]provision.Tenant, refusals []Refusal, exists map[string]string) error {
	verdicts := map[string]verdict{}
	for ns, uid := range exists {
		verdicts[ns] = verdict{uid: uid}
	}
	for name, t := range claimed {
		e := l.status.tenants[name]
		for _, ns := range t.Namespaces {
			v := verdict{uid: ns.UID}
			switch {
			case e.State == provision.StateRefused || slices.ContainsFunc(l.refusedBy[name], func(r Refusal) bool { return r.Namespace == ns.Name && r.UID == ns.UID }):
				v.refused = true
			case e.State != provision.StateRetired && e.Namespaces[ns.Name] == ns.UID:
				v.tenant = name
			}
			verdicts[ns.Name] = v
		}
	}
	for _, r := range refusals {
		if v := verdicts[r.Namespace]; v.tenant == "" {
			v.refused = true
			verdicts[r.Namespace] = v
		}
	}
	now := l.now()
	owners := nextOwners(l.published.owners, verdicts, l.published.lists, now)
	platform := slices.Clone(l.cfg.Reserved)
	for ns := range exists {
		if (Rules{}).reserved(ns) {
			platform = append(platform, ns)
		}
	}
	next, kept, err := publication{
		exceptions: l.exceptions, platform: platform, owners: owners, at: now, floor: l.status.generation,
		exists: func(ns string) bool { _, ok := exists[ns]; return ok },
	}.next(l.published)
	if err != nil {
		l.problem("registry", fmt.Sprintf("the registry is not published, and the last one stays: %v; to have it written anew whatever it was, delete ConfigMap %s", err, l.cfg.registryName()))
		return nil
	}
	if kept != nil {
		l.problem("registry", kept.reason)
	} else {
		l.problem("registry", "")
	}
	data, err := next.configMap()
	if err != nil {
		return err
	}
	if size := sizeOf(data); size > maxConfigMap {
		l.problem("registry", fmt.Sprintf("the registry is not published, and the last one stays: it would have %d bytes, and a ConfigMap holds %d: namespaces that are new wait in quarantine; give some of the cluster's tenants another cluster, or use --tenant-source prefix",
			size, maxConfigMap))
		return nil
	}
	if err := l.put(ctx, l.cfg.registryName(), data); err != nil {
		return err
	}
	l.published = next
	l.status.generation = next.registry.Generation
	l.metrics.generation.Set(float64(next.registry.Generation))
	return nil
}

// save tells the news and writes the status, where there is something new.
func (l *leader) save(ctx context.Context, told []news) error {
	for _, n := range told {
		if ctx.Err() != nil {
			return ctx.Err() // another may lead by now
		}
		if err := l.k.tell(ctx, n); err != nil {
			// Nothing rests on events: the status says the same.
			l.log.Warn("an event could not be made", "namespace", n.namespace, "reason", n.reason, "err", err)
			continue
		}
		l.metrics.writes.WithLabelValues("event").Inc()
	}
	l.metrics.states(l.status)
	data, err := l.status.configMap()
	if err != nil {
		return err
	}
	return l.put(ctx, l.cfg.statusName(), data)
}

// put writes a ConfigMap unless it says so already. Where somebody else wrote it since,
// all is read again.
func (l *leader) put(ctx context.Context, name string, data map[string]string) error {
	if o := l.held[name]; o.version != "" && maps.Equal(o.data, data) {
		return nil
	}
	if ctx.Err() != nil {
		return ctx.Err() // another may lead by now
	}
	version, err := l.k.write(ctx, name, l.held[name].version, data)
	if err != nil {
		if errors.Is(err, errMoved) {
			l.loaded = false
		}
		return fmt.Errorf("failed to write ConfigMap %s: %w", name, err)
	}
	l.held[name] = object{data: data, version: version, ours: true}
	l.metrics.writes.WithLabelValues("configmap").Inc()
	return nil
}

// wait is how long nothing needs to be done.
func (l *leader) wait() time.Duration {
	next := l.resync
	if l.whole.tries > 0 {
		next = l.whole.at
	} else {
		for _, r := range l.retries {
			if r.at.Before(next) {
				next = r.at
			}
		}
	}
	return max(0, next.Sub(l.now()))
}
