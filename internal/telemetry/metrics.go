package telemetry

import (
	"log/slog"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
)

// MaxTenants is how many tenants, and how many log groups, have label values of their
// own; further ones are counted together as OtherTenants. A label for each of thousands
// of tenants on each node is more than a Prometheus server should be given.
const MaxTenants = 250

// Values of the label tenant that are no tenant's name: none of them is a DNS label.
const (
	// Platform is whatever is no tenant's.
	Platform = "_platform"
	// OtherTenants are those beyond MaxTenants.
	OtherTenants = "_other"
	// ManyTenants is for what is known of a chunk with records of several tenants only as
	// a whole (`identity record`).
	ManyTenants = "_many"
)

const namespace = "tenantlogs"

// Metrics are those of one process, whatever number of outputs is in it.
type Metrics struct {
	registry *prometheus.Registry

	records, recordBytes, changes    *prometheus.CounterVec
	discarded, unanswered            *prometheus.CounterVec
	flushes, puts, wire              *prometheus.CounterVec
	renewals                         *prometheus.CounterVec
	lines                            *prometheus.CounterVec
	duration, fill                   *prometheus.HistogramVec
	lastSuccess, retention, tenants  *prometheus.GaugeVec
	lastArrival                      *prometheus.GaugeVec
	breaker, stalled, down           *prometheus.GaugeVec
	refused, generation, workersLack *prometheus.GaugeVec
	readingFiles, readingBytes       *prometheus.CounterVec

	mu      sync.Mutex
	outputs map[*Output]struct{}
	names   map[string]struct{} // tenants and groups with label values of their own

	containers map[[3]string]struct{} // likewise, for Reading
}

// NewMetrics makes the metrics of a process.
func NewMetrics() *Metrics {
	m := &Metrics{registry: prometheus.NewRegistry(), outputs: map[*Output]struct{}{}, names: map[string]struct{}{}, containers: map[[3]string]struct{}{}}
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		v := prometheus.NewCounterVec(prometheus.CounterOpts{Namespace: namespace, Name: name, Help: help}, append([]string{"output"}, labels...))
		m.registry.MustRegister(v)
		return v
	}
	gauge := func(name, help string, labels ...string) *prometheus.GaugeVec {
		v := prometheus.NewGaugeVec(prometheus.GaugeOpts{Namespace: namespace, Name: name, Help: help}, append([]string{"output"}, labels...))
		m.registry.MustRegister(v)
		return v
	}
	histogram := func(name, help string, buckets []float64) *prometheus.HistogramVec {
		v := prometheus.NewHistogramVec(prometheus.HistogramOpts{Namespace: namespace, Name: name, Help: help, Buckets: buckets}, []string{"output"})
		m.registry.MustRegister(v)
		return v
	}
	m.records = counter("records_total", "Records by what became of them; each is counted once.", "tenant", "outcome")
	m.recordBytes = counter("record_bytes_total", "Bytes of these records' messages; of malformed ones, bytes of the chunk that could not be read.", "tenant", "outcome")
	m.changes = counter("record_changes_total", "Records that were delivered with a change, which the message tells.", "tenant", "change")
	m.discarded = counter("rejected_events_dropped_total", "Events that CloudWatch itself rejected for their time and late_events drop dropped; their records are among those delivered.", "tenant")
	m.unanswered = counter("unanswered_events_total", "Events in PutLogEvents calls that got no answer: CloudWatch may have accepted them, and they are sent again.", "tenant")
	m.flushes = counter("flushes_total", "Chunks Fluent Bit handed over, by the answer: ok, or retry, where Fluent Bit keeps the chunk.", "result")
	m.puts = counter("put_requests_total", "PutLogEvents calls by the class of their answer.", "class")
	m.wire = counter("put_wire_bytes_total", "Bytes of request bodies as sent, compressed where they were.")
	m.renewals = counter("credential_renewals_total", "Attempts to get AWS credentials from their source, by what made them necessary and whether any were had.", "cause", "result")
	m.lines = counter("log_lines_total", "Lines of the plugin's own in Fluent Bit's log. Fluent Bit counts them among its own (fluentbit_logger_logs_total).", "level")
	m.duration = histogram("put_duration_seconds", "How long PutLogEvents calls took.", prometheus.ExponentialBuckets(0.005, 2, 13))
	m.fill = histogram("batch_fill_ratio", "How full PutLogEvents calls were, of 1,048,576 bytes.", []float64{0.01, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 1})
	m.lastSuccess = gauge("last_success_timestamp_seconds", "When CloudWatch last accepted events of the tenant.", "tenant")
	m.lastArrival = gauge("last_arrival_timestamp_seconds", "When Fluent Bit last brought a chunk of the tenant, be it one that it had brought before.", "tenant")
	m.retention = gauge("log_group_retention_seconds", "Effective retention of a log group when it was last read; +Inf is for ever.", "log_group")
	m.breaker = gauge("breaker_open", "1 while the tenant's log group does not take events and on_failure is done with them.", "tenant")
	m.stalled = gauge("stalled", "1 while the tenant's log group takes nothing, without refusing, although others do.", "tenant")
	m.down = gauge("endpoint_down", "1 while CloudWatch Logs as a whole is out of reach.")
	m.tenants = gauge("tenants", "Tenants that tenants_file names.")
	m.refused = gauge("tenants_file_refused", "1 while tenants_file is in a version that was refused, and the one before stays in force.")
	m.generation = gauge("tenants_file_generation", "The generation that is in force.")
	m.workersLack = gauge("without_workers", "1 where no workers are configured: every flush stops all of Fluent Bit.")
	process := func(name, help string) *prometheus.CounterVec {
		v := prometheus.NewCounterVec(prometheus.CounterOpts{Namespace: namespace, Name: name, Help: help}, []string{"result", "source_namespace", "source_pod", "source_container"})
		m.registry.MustRegister(v)
		return v
	}
	m.readingFiles = process("rotated_files_total", "Container log files that were rotated before an agent read them, by what became of them: caught_up, or lost.")
	m.readingBytes = process("rotated_file_bytes_total", "Bytes of these files that no agent had read; 0 for a lost file whose size is not known.")
	m.registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}), m)
	return m
}

// Registry holds all of the process's metrics: for those who hold alerts to what there is.
func (m *Metrics) Registry() *prometheus.Registry { return m.registry }

// Counting is a printer that counts the lines it passes on under an output's name.
func (m *Metrics) Counting(output string, to Printer) Printer {
	c := counting{Printer: to, lines: map[slog.Level]prometheus.Counter{}}
	for level, name := range levels {
		c.lines[level] = m.lines.WithLabelValues(output, name)
	}
	return c
}

// levels are the levels of lines, named as Fluent Bit's log_level is.
var levels = map[slog.Level]string{slog.LevelDebug: "debug", slog.LevelInfo: "info", slog.LevelWarn: "warn", slog.LevelError: "error"}

type counting struct {
	Printer
	lines map[slog.Level]prometheus.Counter
}

// Print implements Printer.
func (c counting) Print(l slog.Level, line string) {
	c.Printer.Print(l, line)
	if lines := c.lines[l]; lines != nil {
		lines.Inc()
	}
}

// Snapshot is what is known of an output at one moment.
type Snapshot struct {
	InFlight int // PutLogEvents calls
	// Oldest is when the oldest chunk was first handed over that is not acknowledged
	// yet; zero where there is none.
	Oldest          time.Time
	LedgerChunks    int
	LedgerEvictions int64
	HeldChunks      int // with Fluent Bit, for log groups that take nothing
	// RetentionOpen is how many groups' retention is not confirmed.
	RetentionOpen int
	// ClockSkew is how far this node's clock is ahead of AWS's; ClockTold is false while no
	// answer of AWS told its time.
	ClockSkew time.Duration
	ClockTold bool
	// StorageFree and StorageSize are bytes of the volume of Fluent Bit's storage;
	// StorageSize is 0 where they are not known.
	StorageFree, StorageSize uint64
	// RefusedChunks are those on disk that Fluent Bit does not read; RefusedKnown is false where
	// nothing is known of its storage.
	RefusedChunks int
	RefusedKnown  bool
}

var (
	descInFlight  = desc("puts_in_flight", "PutLogEvents calls under way.")
	descOldest    = desc("oldest_unacknowledged_age_seconds", "Age of the oldest chunk that CloudWatch has not accepted in full; 0 where there is none.")
	descChunks    = desc("ledger_chunks", "Chunks that went back in part, whose accepted events are remembered.")
	descEvictions = desc("ledger_evictions_total", "Chunks the ledger forgot: events of theirs may arrive twice.")
	descOpen      = desc("log_groups_with_retention_open", "Log groups whose retention is not confirmed.")
	descHeld      = desc("held_chunks", "Chunks that wait with Fluent Bit for log groups that take nothing.")
	descSkew      = desc("clock_skew_seconds", "How far this node's clock is ahead of AWS's; negative where it is behind, 0 below 5 s.")
	descFree      = desc("storage_free_bytes", "Bytes free on the volume of Fluent Bit's storage.")
	descSize      = desc("storage_size_bytes", "Size of the volume of Fluent Bit's storage.")
	descRefused   = desc("storage_refused_chunks", "Chunks on disk that Fluent Bit refused to read when it started, and that are still there.")
	descPerOutput = []*prometheus.Desc{descInFlight, descOldest, descChunks, descEvictions, descOpen, descHeld, descSkew, descFree, descSize, descRefused}
)

func desc(name, help string) *prometheus.Desc {
	return prometheus.NewDesc(prometheus.BuildFQName(namespace, "", name), help, []string{"output"}, nil)
}

// Describe is a prometheus.Collector's.
func (m *Metrics) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range descPerOutput {
		ch <- d
	}
}

// Collect is a prometheus.Collector's.
func (m *Metrics) Collect(ch chan<- prometheus.Metric) {
	m.mu.Lock()
	outputs := make([]*Output, 0, len(m.outputs))
	for o := range m.outputs {
		outputs = append(outputs, o)
	}
	m.mu.Unlock()
	for _, o := range outputs {
		s, ok := o.look()
		if !ok {
			continue
		}
		age := 0.0
		if !s.Oldest.IsZero() {
			age = max(0, time.Since(s.Oldest).Seconds())
		}
		gauge := func(d *prometheus.Desc, v float64) {
			ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, o.name)
		}
		gauge(descInFlight, float64(s.InFlight))
		gauge(descOldest, age)
		gauge(descChunks, float64(s.LedgerChunks))
		gauge(descOpen, float64(s.RetentionOpen))
		gauge(descHeld, float64(s.HeldChunks))
		if s.ClockTold {
			gauge(descSkew, s.ClockSkew.Seconds())
		}
		if s.StorageSize > 0 {
			gauge(descFree, float64(s.StorageFree))
			gauge(descSize, float64(s.StorageSize))
		}
		if s.RefusedKnown {
			gauge(descRefused, float64(s.RefusedChunks))
		}
		ch <- prometheus.MustNewConstMetric(descEvictions, prometheus.CounterValue, float64(s.LedgerEvictions), o.name)
	}
}

// look takes a snapshot. It runs in a goroutine where a panic would end Fluent Bit.
func (o *Output) look() (s Snapshot, ok bool) {
	defer func() { ok = recover() == nil }()
	return o.snapshot(), true
}

// maxContainers is how many containers have label values of their own in what Reading counts.
const maxContainers = 500

// Reading counts one container log file that was rotated before an agent read it. kind is caught_up or lost.
func (m *Metrics) Reading(kind, ns, pod, container string, bytes int64) {
	m.mu.Lock()
	key := [3]string{ns, pod, container}
	if _, ok := m.containers[key]; !ok && len(m.containers) >= maxContainers {
		ns, pod, container = OtherTenants, OtherTenants, OtherTenants
	} else {
		m.containers[key] = struct{}{}
	}
	m.mu.Unlock()
	m.readingFiles.WithLabelValues(kind, ns, pod, container).Inc()
	m.readingBytes.WithLabelValues(kind, ns, pod, container).Add(float64(bytes))
}

// own reports whether a name has a label value of its own.
func (m *Metrics) own(name string) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, ok := m.names[name]; ok {
		return true
	}
	if len(m.names) >= 2*MaxTenants { // a tenant and its group
		return false
	}
	m.names[name] = struct{}{}
	return true
}

// tenant is the label value for a tenant; an empty name is the platform.
func (m *Metrics) tenant(name string) string {
	switch {
	case name == "":
		return Platform
	case name == ManyTenants || m.own(name):
		return name
	}
	return OtherTenants
}

// Output is one output's part of the metrics. A nil Output counts nothing.
type Output struct {
	m        *Metrics
	name     string
	snapshot func() Snapshot
	now      func() time.Time // the clock of what is shown as a time

	mu     sync.Mutex
	others map[string]float64 // retention of groups without a label value of their own
}

// Output makes an output under its name. It is counted from now on, and shown in
// full from Start.
func (m *Metrics) Output(name string) *Output {
	return &Output{m: m, name: name, others: map[string]float64{}, now: time.Now}
}

// Clock replaces the clock of what is shown as a time, before anything is: a reader that compares it
// with another's has that of a machine that is right.
func (o *Output) Clock(now func() time.Time) {
	if o != nil {
		o.now = now
	}
}

// Start says that the output is ready; snapshot is called at each scrape.
func (o *Output) Start(snapshot func() Snapshot) {
	if o == nil {
		return
	}
	o.snapshot = snapshot
	o.m.mu.Lock()
	defer o.m.mu.Unlock()
	o.m.outputs[o] = struct{}{}
}

// Close takes the output out of what is snapshot; what it counted stays.
func (o *Output) Close() {
	if o == nil {
		return
	}
	o.m.mu.Lock()
	defer o.m.mu.Unlock()
	delete(o.m.outputs, o)
}

// Outcomes of a record. Each record has one.
const (
	Delivered   = "delivered"
	Unrouted    = "unrouted"    // delivered to the platform, for its tag names no pod
	Dropped     = "dropped"     // as late_events or on_failure says
	Malformed   = "malformed"   // no record at all
	Quarantined = "quarantined" // its group does not take events; delivered to quarantine
)

// Records counts records of one tenant with one outcome.
func (o *Output) Records(tenant, outcome string, records, bytes int) {
	if o == nil || records == 0 && bytes == 0 {
		return
	}
	tenant = o.m.tenant(tenant)
	o.m.records.WithLabelValues(o.name, tenant, outcome).Add(float64(records))
	o.m.recordBytes.WithLabelValues(o.name, tenant, outcome).Add(float64(bytes))
}

// Change counts records that were changed in one way.
func (o *Output) Change(tenant, change string, records int) {
	if o == nil || records == 0 {
		return
	}
	o.m.changes.WithLabelValues(o.name, o.m.tenant(tenant), change).Add(float64(records))
}

// Discarded counts events that CloudWatch rejected for their time and that are dropped.
func (o *Output) Discarded(tenant string, events int) {
	if o != nil {
		o.m.discarded.WithLabelValues(o.name, o.m.tenant(tenant)).Add(float64(events))
	}
}

// Unanswered counts events in a call that got no answer: they may arrive twice.
func (o *Output) Unanswered(tenant string, events int) {
	if o != nil {
		o.m.unanswered.WithLabelValues(o.name, o.m.tenant(tenant)).Add(float64(events))
	}
}

// Flush counts one chunk's answer: ok or retry.
func (o *Output) Flush(result string) {
	if o != nil {
		o.m.flushes.WithLabelValues(o.name, result).Inc()
	}
}

// Renewal counts one attempt to get AWS credentials.
func (o *Output) Renewal(cause string, ok bool) {
	if o == nil {
		return
	}
	result := "ok"
	if !ok {
		result = "failed"
	}
	o.m.renewals.WithLabelValues(o.name, cause, result).Inc()
}

// Arrived notes that Fluent Bit brought a chunk of a tenant. Beside Put it tells a tenant
// that has nothing to say from one whose records do not get through.
func (o *Output) Arrived(tenant string) {
	if o != nil {
		o.m.lastArrival.WithLabelValues(o.name, o.m.tenant(tenant)).Set(unix(o.now()))
	}
}

// Put counts one PutLogEvents call for a tenant.
func (o *Output) Put(tenant, class string, accepted bool, took time.Duration, fill float64, wire int) {
	if o == nil {
		return
	}
	o.m.puts.WithLabelValues(o.name, class).Inc()
	o.m.wire.WithLabelValues(o.name).Add(float64(wire))
	o.m.duration.WithLabelValues(o.name).Observe(took.Seconds())
	o.m.fill.WithLabelValues(o.name).Observe(fill)
	if accepted {
		o.m.lastSuccess.WithLabelValues(o.name, o.m.tenant(tenant)).Set(unix(o.now()))
	}
}

// Retention notes a log group's effective retention in days; +Inf is for ever. Of the
// groups beyond MaxTenants the shortest is shown.
func (o *Output) Retention(group string, days float64) {
	if o == nil {
		return
	}
	seconds := days * (24 * time.Hour).Seconds()
	if o.m.own(group) {
		o.m.retention.WithLabelValues(o.name, group).Set(seconds)
		return
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	o.others[group] = seconds
	least := seconds
	for _, d := range o.others {
		least = min(least, d)
	}
	o.m.retention.WithLabelValues(o.name, OtherTenants).Set(least)
}

// Breaker notes that a tenant's log group stopped taking events, or takes them again.
func (o *Output) Breaker(tenant string, open bool) {
	if o != nil {
		set(o.m.breaker.WithLabelValues(o.name, o.m.tenant(tenant)), open)
	}
}

// Stalled notes that a tenant's log group takes nothing although others do, or does again.
func (o *Output) Stalled(tenant string, is bool) {
	if o != nil {
		set(o.m.stalled.WithLabelValues(o.name, o.m.tenant(tenant)), is)
	}
}

// Down notes that CloudWatch as a whole is out of reach, or answers again.
func (o *Output) Down(is bool) {
	if o != nil {
		set(o.m.down.WithLabelValues(o.name), is)
	}
}

// unix is a time as Prometheus has it, in seconds.
func unix(t time.Time) float64 { return float64(t.UnixMilli()) / 1000 }

func set(gauge prometheus.Gauge, is bool) {
	if is {
		gauge.Set(1)
		return
	}
	gauge.Set(0)
}

// Tenants notes which version of tenants_file is in force, and how many tenants it names.
func (o *Output) Tenants(generation int64, tenants int) {
	if o == nil {
		return
	}
	o.m.generation.WithLabelValues(o.name).Set(float64(generation))
	o.m.tenants.WithLabelValues(o.name).Set(float64(tenants))
}

// TenantsRefused notes whether tenants_file is in a version that was refused.
func (o *Output) TenantsRefused(is bool) {
	if o != nil {
		set(o.m.refused.WithLabelValues(o.name), is)
	}
}

// WithoutWorkers notes that no workers are configured.
func (o *Output) WithoutWorkers() {
	if o != nil {
		o.m.workersLack.WithLabelValues(o.name).Set(1)
	}
}
