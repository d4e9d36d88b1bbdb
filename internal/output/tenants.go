package output

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/eks-tenant-logs/eks-tenant-logs/internal/tenancy"
)

func registryOptions(opts Options) tenancy.RegistryOptions {
	return tenancy.RegistryOptions{Mode: opts.TenantSource, NamespacePrefix: opts.NamespacePrefix}
}

// readTenants reads tenants_file, and returns its bytes to tell later whether it changed;
// nil where there is none.
//
// A registry that nobody has published yet is one that knows no namespace: their lines go to
// quarantine, from where replay takes them, and a node need not wait. The folder must be
// there: that it is not is a mistake in the path.
func readTenants(opts Options) (*tenancy.Registry, []byte, error) {
	if opts.TenantsFile == "" {
		r, err := tenancy.NewRegistry(registryOptions(opts))
		if err != nil {
			return nil, nil, fmt.Errorf("tenant_source: %w", err)
		}
		return r, nil, nil
	}
	data, err := os.ReadFile(opts.TenantsFile)
	if errors.Is(err, fs.ErrNotExist) && opts.TenantSource == tenancy.ModeRegistry {
		if folder, err := os.Stat(filepath.Dir(opts.TenantsFile)); err == nil && folder.IsDir() {
			r, err := parseTenants(opts, []byte("version: 1\n"))
			return r, nil, err
		}
	}
	if err != nil {
		return nil, nil, fmt.Errorf("tenants_file: failed to read it: %w", err)
	}
	r, err := parseTenants(opts, data)
	return r, data, err
}

func parseTenants(opts Options, data []byte) (*tenancy.Registry, error) {
	r, err := tenancy.ParseRegistry(data, registryOptions(opts))
	if err != nil {
		return nil, prefixed("tenants_file: "+opts.TenantsFile, err)
	}
	return r, nil
}

// prefixed puts a word in front of each of an error's lines.
func prefixed(word string, err error) error {
	return errors.New(word + ": " + strings.ReplaceAll(err.Error(), "\n", "\n"+word+": "))
}

// mayMakeMetrics reports whether any tenant has the permission.
func mayMakeMetrics(r *tenancy.Registry) bool {
	return slices.ContainsFunc(r.Tenants(), func(t *tenancy.Tenant) bool { return t.EMF })
}

const (
	// reloadEvery is how often tenants_file is looked at. Its bytes are compared: a
	// mounted ConfigMap changes by a link, and times of files say nothing there.
	reloadEvery = 10 * time.Second
	// remindEvery is how often a version that was refused is told of again.
	remindEvery = 10 * time.Minute
)

// watch puts new versions of tenants_file in force until ctx ends.
func (i *Instance) watch(ctx context.Context, inForce []byte) {
	every := i.env.ReloadEvery
	if every <= 0 {
		every = reloadEvery
	}
	tick := time.NewTicker(every)
	defer tick.Stop()
	w := watcher{i: i, inForce: inForce}
	if inForce == nil {
		w.look() // says what it means, and is told again
	}
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			w.look()
		}
	}
}

type watcher struct {
	i       *Instance
	inForce []byte
	refused string // why the present version is not in force
	told    time.Time
}

// look puts the file's present version in force, or says why not: once, and then again
// from time to time.
func (w *watcher) look() {
	// The process is Fluent Bit's: whatever is wrong with a file must not end it.
	defer func() {
		if r := recover(); r != nil {
			w.refuse(fmt.Errorf("reading tenants_file panicked, please report this: %v", r))
		}
	}()
	w.i.accounts.sweep(w.i.view.Load().roles(), w.i.env.Now())
	data, err := os.ReadFile(w.i.opts.TenantsFile)
	if err != nil {
		w.refuse(fmt.Errorf("tenants_file: failed to read it: %w", err))
		return
	}
	if w.inForce != nil && bytes.Equal(data, w.inForce) {
		if w.refused != "" {
			w.refused = ""
			w.i.metrics.TenantsRefused(false)
			w.i.env.Log.Info("tenants_file is again the version in force")
		}
		return
	}
	if err := w.i.replace(data); err != nil {
		w.refuse(err)
		return
	}
	w.inForce, w.refused = data, ""
	w.i.metrics.TenantsRefused(false)
}

func (w *watcher) refuse(err error) {
	w.i.metrics.TenantsRefused(true)
	now := w.i.env.Now()
	if err.Error() == w.refused && now.Sub(w.told) < remindEvery {
		return
	}
	w.refused, w.told = err.Error(), now
	what := "tenants_file changed and is refused; the version before stays in force"
	if w.inForce == nil {
		what = "the registry is not there yet: the lines of all namespaces go to " + w.i.view.Load().router.PendingGroup() + ", from where replay takes them to their tenants"
	}
	for _, line := range strings.Split(err.Error(), "\n") {
		w.i.env.Log.Error(what, "error", line)
	}
}

// replace puts a new version in force. Chunks on their way finish under the old one.
func (i *Instance) replace(data []byte) error {
	next, err := parseTenants(i.opts, data)
	if err != nil {
		return err
	}
	old := i.view.Load()
	was := old.router.Registry()
	if err := was.Replaceable(next); err != nil {
		return prefixed("tenants_file", err)
	}
	v, err := newView(&i.opts, old.router.With(next), old.host)
	if err != nil {
		return err
	}
	i.view.Store(v)
	i.queue.Keep(v.sendsTo)
	i.metrics.Tenants(next.Generation, len(next.Tenants()))
	if i.opts.EMF && !mayMakeMetrics(next) {
		i.env.Log.Warn("log_format is json/emf, but no tenant in tenants_file has emf: true any more: no line makes metrics")
	}
	added, removed, changed := difference(was, next)
	i.env.Log.Info("tenants_file reloaded", slog.Int64("generation", next.Generation), slog.Int("tenants", len(next.Tenants())),
		slog.String("added", few(added)), slog.String("removed", few(removed)), slog.String("changed", few(changed)))
	return nil
}

// difference names the tenants by which two registries differ.
func difference(was, next *tenancy.Registry) (added, removed, changed []string) {
	old := map[string]*tenancy.Tenant{}
	for _, t := range was.Tenants() {
		old[t.Name] = t
	}
	for _, t := range next.Tenants() {
		before, ok := old[t.Name]
		delete(old, t.Name)
		switch {
		case !ok:
			added = append(added, t.Name)
		case !t.Equal(before):
			changed = append(changed, t.Name)
		}
	}
	return added, slices.Sorted(maps.Keys(old)), changed
}

// few lists names for a log line, the first twenty of them.
func few(names []string) string {
	const most = 20
	if len(names) <= most {
		return strings.Join(names, ",")
	}
	return fmt.Sprintf("%s and %d more", strings.Join(names[:most], ","), len(names)-most)
}
