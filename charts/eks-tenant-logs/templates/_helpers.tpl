{{/* Names and labels. Those that take a component are given (dict "root" $ "component" "fluent-bit"). */}}

{{/* 40 characters, so that every suffix fits in the 63 of a name. */}}
{{- define "eks-tenant-logs.fullname" -}}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" }}
{{- else }}
{{- $name := default .Chart.Name .Values.nameOverride }}
{{- if contains $name .Release.Name }}
{{- .Release.Name | trunc 40 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name $name | trunc 40 | trimSuffix "-" }}
{{- end }}
{{- end }}
{{- end }}

{{/* Selectors can't be changed later: no value but the release's name is in them. */}}
{{- define "eks-tenant-logs.selectorLabels" -}}
app.kubernetes.io/name: {{ .root.Chart.Name }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
{{- with .component }}
app.kubernetes.io/component: {{ . }}
{{- end }}
{{- end }}

{{/* commonLabels add; they take none of these away. */}}
{{- define "eks-tenant-logs.labels" -}}
{{- $ours := include "eks-tenant-logs.selectorLabels" . | fromYaml }}
{{- $_ := set $ours "app.kubernetes.io/version" .root.Chart.AppVersion }}
{{- $_ := set $ours "app.kubernetes.io/managed-by" .root.Release.Service }}
{{- $_ := set $ours "app.kubernetes.io/part-of" "eks-tenant-logs" }}
{{- $_ := set $ours "helm.sh/chart" (printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-") }}
{{- toYaml (merge $ours .root.Values.commonLabels) }}
{{- end }}

{{/* Of pods, with "extra" labels: without the chart's version, which is no reason to roll them. */}}
{{- define "eks-tenant-logs.podLabels" -}}
{{- toYaml (merge (omit (include "eks-tenant-logs.labels" . | fromYaml) "helm.sh/chart" "app.kubernetes.io/managed-by") .extra) }}
{{- end }}

{{/* The image of (dict "root" $ "image" .Values.….image). */}}
{{- define "eks-tenant-logs.image" -}}
{{- if .image.digest -}}
{{ .image.repository }}@{{ .image.digest }}
{{- else -}}
{{ .image.repository }}:{{ default .root.Chart.AppVersion .image.tag }}
{{- end }}
{{- end }}

{{- define "eks-tenant-logs.fluentBit.serviceAccount" -}}
{{- with .Values.fluentBit.serviceAccount.name }}{{ . }}{{ else }}{{ include "eks-tenant-logs.fullname" . }}-fluent-bit{{ end }}
{{- end }}

{{- define "eks-tenant-logs.provisioner.serviceAccount" -}}
{{- with .Values.provisioner.serviceAccount.name }}{{ . }}{{ else }}{{ include "eks-tenant-logs.fullname" . }}-provisioner{{ end }}
{{- end }}

{{- define "eks-tenant-logs.canary.serviceAccount" -}}
{{- with .Values.canary.serviceAccount.name }}{{ . }}{{ else }}{{ include "eks-tenant-logs.fullname" . }}-canary{{ end }}
{{- end }}

{{- define "eks-tenant-logs.canary.namespace" -}}
{{- with .Values.canary.namespace }}{{ . }}{{ else }}{{ .Values.tenants.namespacePrefix }}{{ .Values.canary.tenant }}{{ end }}
{{- end }}

{{/* Annotations of a service account, of (dict "root" $ "given" annotations "role" ARN). */}}
{{- define "eks-tenant-logs.roleAnnotations" -}}
{{- $all := deepCopy (default dict .given) }}
{{- if and (eq .root.Values.identity.mode "irsa") .role }}
{{- $_ := set $all "eks.amazonaws.com/role-arn" .role }}
{{- end }}
{{- with $all }}
{{- toYaml . }}
{{- end }}
{{- end }}

{{- define "eks-tenant-logs.partition" -}}
{{- if .Values.aws.partition }}{{ .Values.aws.partition }}
{{- else if hasPrefix "us-gov-" .Values.aws.region }}aws-us-gov
{{- else if hasPrefix "cn-" .Values.aws.region }}aws-cn
{{- else }}aws
{{- end }}
{{- end }}

{{/* ConfigMaps and the Lease bear the release's name: the controller derives the same. */}}
{{- define "eks-tenant-logs.exceptionsName" -}}{{ .Release.Name }}-exceptions{{- end }}
{{- define "eks-tenant-logs.registryName" -}}{{ .Release.Name }}-registry{{- end }}

{{/* Kubernetes' own namespaces are never a tenant's; nor is the release's. */}}
{{- define "eks-tenant-logs.reserved" -}}
{{- concat (list "default" "kube-node-lease" "kube-public" "kube-system" .Release.Namespace) .Values.tenants.reservedNamespaces | uniq | sortAlpha | toJson }}
{{- end }}

{{/* The tenants file. Nodes know reserved namespaces only by it. */}}
{{- define "eks-tenant-logs.tenantsFile" -}}
{{- $file := deepCopy .Values.tenants.exceptions }}
{{- $platform := concat (default list $file.platformNamespaces) .Values.tenants.reservedNamespaces | uniq | sortAlpha }}
{{- $_ := set $file "version" 1 }}
{{- if $platform }}
{{- $_ := set $file "platformNamespaces" $platform }}
{{- end }}
{{- toYaml $file }}
{{- end }}

{{- define "eks-tenant-logs.autoCreateGroup" -}}
{{- if kindIs "bool" .Values.logs.autoCreateGroup -}}
{{ ternary "on" "off" .Values.logs.autoCreateGroup }}
{{- else -}}
{{ ternary "off" "on" .Values.provisioner.enabled }}
{{- end }}
{{- end }}

{{- define "eks-tenant-logs.trustNamed" -}}
{{- with .Values.provisioner.readerRoles.trust }}
{{- if or .principals .accounts .ssoRoles .irsa .podIdentity }}true{{ end }}
{{- end }}
{{- end }}

{{/* Credentials of the instance's role are every pod's that reaches the metadata service. */}}
{{- define "eks-tenant-logs.metadataEnv" -}}
{{- if not .Values.identity.allowNodeInstanceRole }}
- name: AWS_EC2_METADATA_DISABLED
  value: "true"
{{- end }}
{{- end }}

{{/* OpenShift gives each namespace UIDs of its own, and refuses others. */}}
{{- define "eks-tenant-logs.provisioner.podSecurityContext" -}}
{{- $context := deepCopy .Values.provisioner.podSecurityContext }}
{{- if .Values.openshift.enabled }}
{{- $context = omit $context "runAsUser" "runAsGroup" "fsGroup" }}
{{- end }}
{{- toYaml $context }}
{{- end }}

{{/* CEL literals: whatever is in the text, it does not end the literal. */}}
{{- define "eks-tenant-logs.celString" -}}
'{{ . | replace "\\" "\\\\" | replace "'" "\\'" }}'
{{- end }}

{{- define "eks-tenant-logs.celList" -}}
{{- $all := list }}
{{- range . }}
{{- $all = append $all (include "eks-tenant-logs.celString" .) }}
{{- end -}}
[{{ join ", " $all }}]
{{- end }}

{{/* Metrics alone; the kubelet's probes come from the node and need no rule. */}}
{{- define "eks-tenant-logs.networkPolicy.ingress" -}}
{{- if .root.Values.networkPolicy.scrapeFrom -}}
- from:
    {{- toYaml .root.Values.networkPolicy.scrapeFrom | nindent 4 }}
  ports:
    {{- range .ports }}
    - port: {{ . }}
      protocol: TCP
    {{- end }}
{{- else -}}
[]
{{- end }}
{{- end }}

{{- define "eks-tenant-logs.networkPolicy.egress" -}}
{{- $v := .root.Values -}}
# DNS: of the cluster, and NodeLocal DNSCache.
- to:
    - namespaceSelector:
        matchLabels:
          kubernetes.io/metadata.name: kube-system
    {{- if $v.openshift.enabled }}
    - namespaceSelector:
        matchLabels:
          kubernetes.io/metadata.name: openshift-dns
    {{- end }}
    - ipBlock:
        cidr: 169.254.20.10/32
  ports:
    {{- range (ternary (list 53 5353) (list 53) $v.openshift.enabled) }}
    - port: {{ . }}
      protocol: UDP
    - port: {{ . }}
      protocol: TCP
    {{- end }}
# AWS, by the internet or by VPC endpoints, whose addresses are not known here.
- ports:
    - port: 443
      protocol: TCP
{{- if .kubeApi }}
# The Kubernetes API server, on the port behind its service.
- ports:
    {{- range $v.networkPolicy.kubeApiPorts }}
    - port: {{ int . }}
      protocol: TCP
    {{- end }}
{{- end }}
{{- if eq $v.identity.mode "podIdentity" }}
# EKS Pod Identity's agent on the node.
- to:
    - ipBlock:
        cidr: 169.254.170.23/32
    - ipBlock:
        cidr: fd00:ec2::23/128
  ports:
    - port: 80
      protocol: TCP
{{- end }}
{{- if $v.identity.allowNodeInstanceRole }}
# The instance metadata service.
- to:
    - ipBlock:
        cidr: 169.254.169.254/32
    - ipBlock:
        cidr: fd00:ec2::254/128
  ports:
    - port: 80
      protocol: TCP
{{- end }}
{{- with $v.networkPolicy.extraEgress }}
{{ toYaml . }}
{{- end }}
{{- end }}
