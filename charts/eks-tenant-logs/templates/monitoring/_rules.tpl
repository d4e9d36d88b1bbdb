{{/* What the named numbers of files/alerts.yaml are here: values, and what follows from others. */}}
{{- define "eks-tenant-logs.monitoring.numbers" -}}
{{- $numbers := deepCopy .Values.monitoring.rules.thresholds }}
{{- /* The shortest that is configured: tenants with more are the provisioner's to look at. */ -}}
{{- $days := int .Values.logs.retentionDays }}
{{- range $settings := values (default dict .Values.tenants.exceptions.tenants) }}
{{- with (default dict $settings).retentionDays }}
{{- $days = min $days (int .) }}
{{- end }}
{{- end }}
{{- $_ := set $numbers "retentionSeconds" (mul $days 86400) }}
{{- /* Four fifths of what may be held, of Fluent Bit's 2,048 tasks where that has no bound. */ -}}
{{- $_ := set $numbers "heldChunks" (div (mul 4 (default 2048 (int .Values.fluentBit.config.holdBudget))) 5) }}
{{- $seconds := 0 }}
{{- range regexFindAll "[0-9]+[hms]" .Values.provisioner.resync -1 }}
{{- $seconds = add $seconds (mul (int (regexFind "[0-9]+" .)) (get (dict "h" 3600 "m" 60 "s" 1) (regexFind "[hms]" .))) }}
{{- end }}
{{- $_ := set $numbers "threeResyncs" (mul 3 $seconds) }}
{{- /* Fluent Bit's units are of 1,000. */ -}}
{{- $limit := .Values.fluentBit.config.storage.totalLimitSize }}
{{- $_ := set $numbers "storageLimitBytes" (mul (int64 (regexFind "[0-9]+" $limit)) (get (dict "K" 1000 "M" 1000000 "G" 1000000000) (regexFind "[KMG]" $limit))) }}
{{- toYaml $numbers }}
{{- end }}

{{/* The groups of a PrometheusRule. */}}
{{- define "eks-tenant-logs.monitoring.groups" -}}
{{- $r := .Values.monitoring.rules }}
{{- $numbers := include "eks-tenant-logs.monitoring.numbers" . | fromYaml }}
{{- $target := printf "namespace=%q, daemonset=%q" .Release.Namespace (printf "%s-fluent-bit" (include "eks-tenant-logs.fullname" .)) }}
{{- $listed := concat (default list .Values.tenants.exceptions.platformNamespaces) .Values.tenants.reservedNamespaces }}
{{- range values (default dict .Values.tenants.exceptions.tenants) }}
{{- $listed = concat $listed (default list (default dict .).namespaces) }}
{{- end }}
{{- $listed = $listed | uniq | sortAlpha }}
{{- $groups := list }}
{{- $known := list }}
{{- range $group := (.Files.Get "files/alerts.yaml" | fromYaml).groups }}
{{- $runs := ternary $.Values.provisioner.enabled $.Values.fluentBit.enabled (hasSuffix ".provisioner" $group.name) }}
{{- $rules := list }}
{{- range $rule := $group.rules }}
{{- $known = append $known $rule.alert }}
{{- $knowable := or (ne $rule.alert "TenantLogsTenantNotRead") (eq $.Values.tenants.source "prefix") }}
{{- if and $runs $knowable (not (has $rule.alert $r.disabled)) }}
{{- $expr := $rule.expr | replace `namespace="logs", daemonset="eks-tenant-logs-fluent-bit"` $target }}
{{- /* Namespaces that get their tenant by their names, and no others. */ -}}
{{- $expr = $expr | replace `namespace=~"tenant-.+", namespace!~""` (printf `namespace=~"%s.+", namespace!~%q` $.Values.tenants.namespacePrefix (join "|" $listed)) | replace `"tenant-(.+)"` (printf `"%s(.+)"` $.Values.tenants.namespacePrefix) }}
{{- range $name, $number := $numbers }}
{{- $expr = regexReplaceAll (printf `[0-9.]+ # %s\b` $name) $expr (printf "%s # %s" ($number | toJson) $name) }}
{{- end }}
{{- /* What is absent has the labels that were asked for. */ -}}
{{- $expr = regexReplaceAll `absent\((\w+)\{` $expr (printf "absent(${1}{cluster=%q, " $.Values.clusterName) }}
{{- $_ := set $rule "expr" $expr }}
{{- $labels := merge $rule.labels $r.alertLabels }}
{{- /* kube-state-metrics and the kubelets know no cluster. */ -}}
{{- if regexMatch `\bkube(let)?_` $expr }}
{{- $_ := set $labels "cluster" $.Values.clusterName }}
{{- end }}
{{- $_ := set $rule "labels" $labels }}
{{- $_ := set $rule.annotations "runbook_url" (printf "%s#%s" $r.runbookUrl (lower $rule.alert)) }}
{{- $rules = append $rules $rule }}
{{- end }}
{{- end }}
{{- if $rules }}
{{- $groups = append $groups (dict "name" $group.name "rules" $rules) }}
{{- end }}
{{- end }}
{{- range $r.disabled }}
{{- if not (has . $known) }}
{{- fail (printf "monitoring.rules.disabled: there is no alert %s: remove it; the alerts are in docs/operations.md" .) }}
{{- end }}
{{- end }}
{{- toYaml $groups }}
{{- end }}
