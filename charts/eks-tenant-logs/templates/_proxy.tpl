{{/* Hosts that are never asked through a proxy, of (dict "kubeApi" bool): this machine, the addresses of the
node itself (Pod Identity's agent, ECS's, the instance metadata service) and the API server. Go takes suffixes
(.svc) and IPv6 addresses without brackets; Fluent Bit takes a host as it is written; other programs want the
brackets. */}}
{{- define "eks-tenant-logs.noProxy" -}}
{{- $hosts := list "localhost" "127.0.0.1" "::1" "169.254.170.2" "169.254.170.23" "fd00:ec2::23" "[fd00:ec2::23]" "169.254.169.254" "fd00:ec2::254" "[fd00:ec2::254]" }}
{{- if .kubeApi }}
{{- $hosts = concat $hosts (list "$(KUBERNETES_SERVICE_HOST)" "kubernetes.default.svc" ".svc" ".cluster.local") }}
{{- end }}
{{- join "," $hosts }}
{{- end }}

{{/* "true" where environment variables name a proxy. */}}
{{- define "eks-tenant-logs.proxied" -}}
{{- $proxied := "" }}
{{- range . }}
{{- if and (has (upper .name) (list "HTTP_PROXY" "HTTPS_PROXY" "ALL_PROXY")) (or .value .valueFrom) }}{{ $proxied = "true" }}{{ end }}
{{- end }}
{{- $proxied }}
{{- end }}

{{/* Environment variables of a workload, of (dict "env" list "kubeApi" bool). Where they name a proxy, NO_PROXY and
no_proxy have the hosts above and those that were given: Go and Fluent Bit read the one that is upper case first. */}}
{{- define "eks-tenant-logs.env" -}}
{{- if include "eks-tenant-logs.proxied" .env }}
{{- $others := list }}
{{- $hosts := include "eks-tenant-logs.noProxy" . | splitList "," }}
{{- $all := false }}
{{- range .env }}
{{- if ne (upper .name) "NO_PROXY" }}
{{- $others = append $others . }}
{{- else if .valueFrom }}
{{- /* What is in there is not known here: the kubelet puts it in. */ -}}
{{- $name := printf "TENANTLOGS_%s" .name }}
{{- $others = append $others (dict "name" $name "valueFrom" .valueFrom) }}
{{- $hosts = append $hosts (printf "$(%s)" $name) }}
{{- else }}
{{- range splitList "," (default "" .value) }}
{{- if eq (trim .) "*" }}{{ $all = true }}{{ else if trim . }}{{ $hosts = append $hosts (trim .) }}{{ end }}
{{- end }}
{{- end }}
{{- end }}
{{- $value := ternary "*" (uniq $hosts | join ",") $all }}
{{- toYaml (concat $others (list (dict "name" "NO_PROXY" "value" $value) (dict "name" "no_proxy" "value" $value))) }}
{{- else if .env }}
{{- toYaml .env }}
{{- end }}
{{- end }}
