{{/* Flags that say what an installation is: the controller's, and the canary's. */}}
{{- define "eks-tenant-logs.provisioner.installation" -}}
{{- $p := .Values.provisioner -}}
- --cluster={{ .Values.clusterName }}
- --region={{ .Values.aws.region }}
{{- with .Values.aws.partition }}
- --partition={{ . }}
{{- end }}
{{- with .Values.aws.accountId }}
- --account={{ . }}
{{- end }}
{{- if .Values.aws.useFips }}
- --use-fips
{{- end }}
{{- if .Values.aws.useDualStack }}
- --use-dual-stack
{{- end }}
{{- with .Values.aws.endpoint }}
- --endpoint={{ . }}
{{- end }}
{{- with .Values.aws.stsEndpoint }}
- --sts-endpoint={{ . }}
{{- end }}
{{- with .Values.aws.iamEndpoint }}
- --iam-endpoint={{ . }}
{{- end }}
{{- with .Values.aws.kmsEndpoint }}
- --kms-endpoint={{ . }}
{{- end }}
{{- with .Values.aws.eksEndpoint }}
- --eks-endpoint={{ . }}
{{- end }}
- --tenant-source={{ .Values.tenants.source }}
{{- if eq .Values.tenants.source "prefix" }}
- --namespace-prefix={{ .Values.tenants.namespacePrefix }}
{{- end }}
{{- if .Values.tenants.shared }}
- --shared
{{- end }}
{{- if .Values.tenants.adopt }}
- --adopt
{{- end }}
- --log-group-prefix={{ .Values.logs.groupPrefix }}
- --platform-log-group={{ .Values.logs.platformGroup }}
- --quarantine-log-group-prefix={{ .Values.logs.quarantineGroupPrefix }}
- --log-stream-template={{ .Values.logs.streamTemplate | replace "$(" "$$(" }}
- --log-retention-days={{ int .Values.logs.retentionDays }}
- --log-group-class={{ .Values.logs.class }}
{{- with .Values.logs.kmsKeyArn }}
- --kms-key-id={{ . }}
{{- end }}
{{- if .Values.logs.keyPerTenant }}
- --key-per-tenant
{{- end }}
{{- if .Values.logs.deletionProtection }}
- --deletion-protection
{{- end }}
- --on-failure={{ .Values.logs.onFailure }}
{{- range $key, $value := .Values.logs.tags }}
- {{ printf "--tag=%s=%s" $key $value | quote }}
{{- end }}
{{- with $p.rolePath }}
- --role-path={{ . }}
{{- end }}
{{- if and $p.readerRoles.create (include "eks-tenant-logs.trustNamed" .) }}
{{- $flags := dict "principals" "principal" "accounts" "account" "ssoRoles" "sso-role" "irsa" "irsa" "podIdentity" "pod-identity" }}
{{- range $key := list "principals" "accounts" "ssoRoles" "irsa" "podIdentity" }}
{{- range index $p.readerRoles.trust $key }}
- {{ printf "--trust-%s=%s" (get $flags $key) . | replace "$(" "$$(" | quote }}
{{- end }}
{{- end }}
{{- with $p.readerRoles.trust.oidcProvider }}
- --trust-oidc-provider={{ . }}
{{- end }}
{{- with $p.readerRoles.trust.externalId }}
- {{ printf "--trust-external-id=%s" . | quote }}
{{- end }}
{{- else }}
- --no-reader-roles
{{- end }}
{{- end }}
