{{/* Fluent Bit's configuration, its YAML. */}}
{{- define "eks-tenant-logs.fluentBit.config" -}}
{{- $c := .Values.fluentBit.config -}}
service:
  flush: {{ $c.flush | toJson }}
  grace: {{ int $c.grace }}
  log_level: {{ $c.logLevel }}
  # Fluent Bit 5.1.1 crashes on hot reload where a Go output has workers: pods are rolled
  # when this file changes, and the plugin reloads the tenants file by itself.
  hot_reload: "off"
  http_server: "on"
  http_listen: 0.0.0.0
  http_port: 2020
  storage.path: /state/storage
  storage.sync: {{ $c.storage.sync }}
  # On, a kill (an out-of-memory kill is one) loses every chunk that is being written: its checksum is
  # of an earlier state, and Fluent Bit refuses it (docs/faults.md).
  storage.checksum: "off"
  storage.max_chunks_up: {{ int $c.storage.maxChunksUp }}
  storage.backlog.mem_limit: {{ $c.storage.backlogMemLimit | quote }}
  storage.metrics: "on"
  scheduler.base: {{ int $c.schedulerBase }}
  scheduler.cap: {{ int $c.schedulerCap }}
{{- $parsed := or $c.extraFilters $c.extraOutputs }}
{{- if or .Values.enrich.enabled $parsed }}
parsers:
{{- end }}
{{- if $parsed }}
  # A part of a line as the runtime wrote it; the plugin joins the parts.
  - name: tenantlogs_cri
    format: regex
    regex: '^(?<time>[^ ]+) (?<stream>stdout|stderr) (?<logtag>[^ ]*) (?<log>.*)$'
    time_key: time
    time_format: '%Y-%m-%dT%H:%M:%S.%L%z'
    time_keep: "on"
{{- end }}
{{- if .Values.enrich.enabled }}
  # /var/log/pods; no container's id is in it.
  - name: tenantlogs_pods
    format: regex
    regex: '^(?<namespace_name>[^_]+)_(?<pod_name>[^_]+)_[^.]+\.(?<container_name>[^.]+)\.[0-9]+\.log$'
{{- end }}
pipeline:
  inputs:
    - name: tail
      path: /var/log/pods/*/*/*.log
{{- if $c.tail.excludeOwnLogs }}
      # What the agent writes about a record would be a record again.
      exclude_path: {{ include "eks-tenant-logs.fluentBit.ownLogs" . }}
{{- end }}
      # The plugin reads whose a line is from this tag, which is made of the file's path.
      tag: kube.*
{{- if $parsed }}
      # Filters and other outputs find a line's text in `log`.
      parser: tenantlogs_cri
{{- end }}
      # No multiline.parser: what it holds of a long line is lost when Fluent Bit ends, and 5.1.1 crashes then.
      # The plugin takes lines apart and joins their parts.
      db: /state/tail.db
{{- include "eks-tenant-logs.fluentBit.tail" . | nindent 6 }}
{{- if .Values.fluentBit.launcherPath }}
    # What the kubelet rotated before it was read: copies that the launcher makes, with the tags of the files they are of.
    - name: tail
      path: /state/catch-up/*/*/*.log
      tag: kube.var.log.pods.<pod>.<container>.<restarts>.log
      tag_regex: '/(?<pod>[^/]+)/(?<container>[^/]+)/(?<restarts>[0-9]+)\.[^/]+\.log$'
{{- if $parsed }}
      parser: tenantlogs_cri
{{- end }}
      db: /state/catch-up.db
{{- include "eks-tenant-logs.fluentBit.tail" . | nindent 6 }}
{{- end }}
{{- with $c.extraInputs }}
{{ toYaml . | indent 4 }}
{{- end }}
{{- if or .Values.enrich.enabled $c.extraFilters }}
  filters:
{{- if .Values.enrich.enabled }}
    - name: kubernetes
      match: kube.*
      kube_tag_prefix: kube.var.log.pods.
      regex_parser: tenantlogs_pods
      # A pod may bear more metadata than the default of 32k, and would have no labels then.
      buffer_size: 2M
      labels: "on"
      annotations: {{ ternary "on" "off" .Values.enrich.annotations | quote }}
      # Nothing of what a line says is read as a field, and no tenant's annotation has a
      # say in how, or whether, its lines are read.
      merge_log: "off"
      k8s-logging.parser: "off"
      k8s-logging.exclude: "off"
{{- end }}
{{- with $c.extraFilters }}
{{ toYaml . | indent 4 }}
{{- end }}
{{- end }}
  outputs:
    - name: cloudwatch_tenants
      match: kube.*
      workers: {{ int $c.workers }}
      retry_limit: no_limits
      storage.total_limit_size: {{ $c.storage.totalLimitSize | quote }}
{{- range $key, $value := include "eks-tenant-logs.fluentBit.options" . | fromYaml }}
      {{ $key }}: {{ $value | toJson }}
{{- end }}
{{- with $c.extraOutputs }}
{{ toYaml . | indent 4 }}
{{- end }}
{{- end }}

{{/* The plugin's options: docs/options.md. */}}
{{- define "eks-tenant-logs.fluentBit.options" -}}
{{- $c := .Values.fluentBit.config -}}
region: {{ .Values.aws.region | quote }}
{{- with .Values.aws.endpoint }}
endpoint: {{ . | quote }}
{{- end }}
{{- with .Values.aws.stsEndpoint }}
sts_endpoint: {{ . | quote }}
{{- end }}
{{- if .Values.aws.useFips }}
use_fips: "on"
{{- end }}
{{- if .Values.aws.useDualStack }}
use_dual_stack: "on"
{{- end }}
extra_user_agent: {{ printf "eks-tenant-logs-chart/%s" .Chart.Version | replace "+" "-" }}
identity: tag
tag_prefix: kube.var.log.pods.
tenant_source: {{ .Values.tenants.source }}
{{- if eq .Values.tenants.source "prefix" }}
namespace_prefix: {{ .Values.tenants.namespacePrefix | quote }}
{{- end }}
tenants_file: /tenants/tenants.yaml
log_group_prefix: {{ .Values.logs.groupPrefix | quote }}
platform_log_group: {{ .Values.logs.platformGroup | quote }}
quarantine_log_group_prefix: {{ .Values.logs.quarantineGroupPrefix | quote }}
log_stream_template: {{ .Values.logs.streamTemplate | quote }}
parser: cri
{{- with .Values.logs.key }}
log_key: {{ . | quote }}
{{- end }}
log_format: {{ .Values.logs.format }}
late_events: {{ .Values.logs.lateEvents }}
on_failure: {{ .Values.logs.onFailure }}
hold_budget: {{ int $c.holdBudget | quote }}
auto_create_group: {{ include "eks-tenant-logs.autoCreateGroup" . | quote }}
log_retention_days: {{ int .Values.logs.retentionDays | quote }}
retention_check_delay: {{ $c.retentionCheckDelay | quote }}
log_group_class: {{ .Values.logs.class }}
{{- with .Values.logs.tags }}
{{- $tags := list }}
{{- range $key, $value := . }}
{{- $tags = append $tags (printf "%s=%s" $key $value) }}
{{- end }}
log_group_tags: {{ join "," $tags | quote }}
{{- end }}
{{- with .Values.logs.kmsKeyArn }}
kms_key_id: {{ . | quote }}
{{- end }}
deletion_protection: {{ ternary "on" "off" .Values.logs.deletionProtection | quote }}
compress: {{ .Values.logs.compress }}
flush_timeout: {{ printf "%ds" (int $c.flushTimeout) }}
max_in_flight: {{ int $c.maxInFlight | quote }}
state_path: /state/ledger
storage_path: /state/storage
on_full_volume: {{ $c.storage.onFullVolume }}
metrics_listen: ":2021"
{{- end }}

{{/* What both inputs have in common. */}}
{{- define "eks-tenant-logs.fluentBit.tail" -}}
{{- $c := .Values.fluentBit.config -}}
# tail's own defaults lose lines of pods that live short, of long lines, of files
# that are rotated while much waits, and of a new file with an old one's inode.
read_from_head: "on"
refresh_interval: {{ int $c.tail.refreshInterval }}
rotate_wait: {{ int $c.tail.rotateWait }}
buffer_chunk_size: 64KB
buffer_max_size: {{ $c.tail.bufferMaxSize | quote }}
skip_long_lines: "off"
truncate_long_lines: "on"
db.sync: {{ $c.storage.sync }}
db.locking: "on"
db.compare_filename: "on"
storage.type: filesystem
# On, a tenant whose chunks wait would pause the reading of all tenants' files
# (docs/faults.md); and Fluent Bit would not use the disk in an outage.
storage.pause_on_chunks_overlimit: "off"
{{- end }}

{{/* Where the agent's own log files are, as a pattern of paths. */}}
{{- define "eks-tenant-logs.fluentBit.ownLogs" -}}
/var/log/pods/{{ .Release.Namespace }}_{{ include "eks-tenant-logs.fullname" . }}-fluent-bit-*/*/*.log
{{- end }}
