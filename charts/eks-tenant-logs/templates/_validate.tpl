{{/* What the schema can't know: all that is wrong is told at once, each with what to do. */}}
{{- define "eks-tenant-logs.problems" -}}
{{- $v := .Values -}}
{{- $c := $v.fluentBit.config -}}
{{- $p := list -}}
{{- $role := "eks.amazonaws.com/role-arn" -}}

{{- /* What an installation is. */ -}}
{{- if not $v.clusterName }}
{{- $p = append $p "clusterName is not set: reader roles are named after the EKS cluster: --set clusterName=<name>" }}
{{- end }}
{{- if not $v.aws.region }}
{{- $p = append $p "aws.region is not set: --set aws.region=<region>, such as eu-central-1" }}
{{- end }}
{{- if not (or $v.fluentBit.enabled $v.provisioner.enabled) }}
{{- $p = append $p "neither fluentBit.enabled nor provisioner.enabled: nothing would run; enable one of them" }}
{{- end }}
{{- if contains "." .Release.Name }}
{{- $p = append $p (printf "the release's name %q has a dot: the controller takes a DNS label; install under another name" .Release.Name) }}
{{- end }}
{{- if and $v.aws.partition $v.aws.region }}
{{- $of := ternary "aws-us-gov" (ternary "aws-cn" "aws" (hasPrefix "cn-" $v.aws.region)) (hasPrefix "us-gov-" $v.aws.region) }}
{{- if and (or (hasPrefix "us-gov-" $v.aws.region) (hasPrefix "cn-" $v.aws.region) (has $v.aws.partition (list "aws-us-gov" "aws-cn"))) (ne $of $v.aws.partition) }}
{{- $p = append $p (printf "aws.partition %s is not that of aws.region %s, which is %s: leave aws.partition out" $v.aws.partition $v.aws.region $of) }}
{{- end }}
{{- end }}
{{- range $kind := list "useFips" "useDualStack" }}
{{- range $endpoint := list "endpoint" "stsEndpoint" "iamEndpoint" "kmsEndpoint" "eksEndpoint" }}
{{- if and (index $v.aws $kind) (index $v.aws $endpoint) }}
{{- $p = append $p (printf "aws.%s and aws.%s: the endpoint would win; leave one of them out" $kind $endpoint) }}
{{- end }}
{{- end }}
{{- end }}

{{- /* Credentials. */ -}}
{{- if eq $v.identity.mode "podIdentity" }}
{{- range $key := list "writerRoleArn" "provisionerRoleArn" "canaryRoleArn" }}
{{- if index $v.identity $key }}
{{- $p = append $p (printf "identity.%s is IRSA's, and identity.mode is podIdentity: set identity.mode=irsa, or leave it out and name the role in the Pod Identity association" $key) }}
{{- end }}
{{- end }}
{{- range $who, $a := dict "fluentBit" $v.fluentBit.serviceAccount.annotations "provisioner" $v.provisioner.serviceAccount.annotations "canary" $v.canary.serviceAccount.annotations }}
{{- if hasKey $a $role }}
{{- $p = append $p (printf "%s.serviceAccount.annotations has %s, which is IRSA, and identity.mode is podIdentity: only one of them gives the pods their role; set identity.mode=irsa, or remove the annotation" $who $role) }}
{{- end }}
{{- end }}
{{- end }}
{{- if eq $v.identity.mode "irsa" }}
{{- range $which := list (list "fluentBit" $v.fluentBit.enabled $v.fluentBit.serviceAccount "writerRoleArn") (list "provisioner" $v.provisioner.enabled $v.provisioner.serviceAccount "provisionerRoleArn") }}
{{- $account := index $which 2 }}
{{- $annotated := get $account.annotations $role }}
{{- $arn := index $v.identity (index $which 3) }}
{{- if and (index $which 1) $account.create (not $annotated) (not $arn) }}
{{- $p = append $p (printf "identity.mode is irsa and identity.%s is not set: %s would have no credentials; `tenantlogs bootstrap` prints the ARN" (index $which 3) (index $which 0)) }}
{{- end }}
{{- if and $annotated $arn (ne $annotated $arn) }}
{{- $p = append $p (printf "identity.%s and %s.serviceAccount.annotations name two roles: keep one of them" (index $which 3) (index $which 0)) }}
{{- end }}
{{- end }}
{{- end }}
{{- if and (eq $v.identity.mode "nodeRole") (not $v.identity.allowNodeInstanceRole) }}
{{- $p = append $p "identity.mode is nodeRole: with the instance's role every pod on a node can write logs in any tenant's name. Use podIdentity or irsa, or set identity.allowNodeInstanceRole=true to accept that" }}
{{- end }}
{{- if and $v.identity.allowNodeInstanceRole (ne $v.identity.mode "nodeRole") }}
{{- $p = append $p (printf "identity.allowNodeInstanceRole is set and identity.mode is %s: should its credentials fail, the pods would take the instance's role unnoticed; set identity.mode=nodeRole, or leave it out" $v.identity.mode) }}
{{- end }}
{{- if eq $v.identity.mode "environment" }}
{{- range $who, $w := dict "fluentBit" $v.fluentBit "provisioner" $v.provisioner }}
{{- if and $w.enabled (not $w.env) (not $w.envFrom) }}
{{- $p = append $p (printf "identity.mode is environment and %s has neither env nor envFrom: give its credentials there, or use podIdentity or irsa" $who) }}
{{- end }}
{{- end }}
{{- end }}
{{- range $who, $w := dict "fluentBit" $v.fluentBit "provisioner" $v.provisioner }}
{{- range $w.env }}
{{- if has .name (list "AWS_EC2_METADATA_DISABLED" "NODE_NAME" "POD_NAMESPACE") }}
{{- $p = append $p (printf "%s.env has %s, which the chart sets%s: remove it" $who .name (ternary " by identity.allowNodeInstanceRole" "" (eq .name "AWS_EC2_METADATA_DISABLED"))) }}
{{- end }}
{{- end }}
{{- end }}
{{- $partition := trim (include "eks-tenant-logs.partition" .) }}
{{- range $key, $arn := dict "identity.writerRoleArn" $v.identity.writerRoleArn "identity.provisionerRoleArn" $v.identity.provisionerRoleArn "identity.canaryRoleArn" $v.identity.canaryRoleArn "logs.kmsKeyArn" $v.logs.kmsKeyArn }}
{{- if and $arn $v.aws.region (not (hasPrefix (printf "arn:%s:" $partition) $arn)) }}
{{- $p = append $p (printf "%s %s is not of partition %s, which aws.region %s is in: give the ARN of that partition" $key $arn $partition $v.aws.region) }}
{{- end }}
{{- end }}
{{- if and $v.logs.kmsKeyArn $v.aws.region (not (contains (printf ":kms:%s:" $v.aws.region) $v.logs.kmsKeyArn)) }}
{{- $p = append $p (printf "logs.kmsKeyArn is not a key of aws.region %s: CloudWatch Logs takes only keys of its own region" $v.aws.region) }}
{{- end }}

{{- /* Log groups. */ -}}
{{- $days := list 1 3 5 7 14 30 60 90 120 150 180 365 400 545 731 1096 1827 2192 2557 2922 3288 3653 }}
{{- $given := dict "logs.retentionDays" $v.logs.retentionDays }}
{{- range $tenant, $settings := default dict $v.tenants.exceptions.tenants }}
{{- if hasKey (default dict $settings) "retentionDays" }}
{{- $_ := set $given (printf "tenants.exceptions.tenants.%s.retentionDays" $tenant) $settings.retentionDays }}
{{- end }}
{{- end }}
{{- range $key, $value := $given }}
{{- if not (has (int $value) $days) }}
{{- $p = append $p (printf "%s: CloudWatch Logs does not know %v days: give one of %s" $key $value (join " " $days)) }}
{{- end }}
{{- end }}
{{- $l := $v.logs }}
{{- range $key, $prefix := dict "logs.groupPrefix" $l.groupPrefix "logs.quarantineGroupPrefix" $l.quarantineGroupPrefix }}
{{- if not (hasSuffix "/" $prefix) }}
{{- $p = append $p (printf "%s %q does not end in /: tenant acme of one prefix could be tenant corp-acme of another; add the /" $key $prefix) }}
{{- end }}
{{- end }}
{{- range $key, $group := dict "logs.groupPrefix" $l.groupPrefix "logs.quarantineGroupPrefix" $l.quarantineGroupPrefix "logs.platformGroup" $l.platformGroup }}
{{- if or (hasPrefix "/aws/" $group) (hasPrefix "aws/" $group) }}
{{- $p = append $p (printf "%s %q is in AWS's own name space: choose another" $key $group) }}
{{- end }}
{{- end }}
{{- if hasSuffix "/" $l.platformGroup }}
{{- $p = append $p (printf "logs.platformGroup %q ends in /: it is one group, not a prefix" $l.platformGroup) }}
{{- end }}
{{- if or (hasPrefix $l.groupPrefix $l.quarantineGroupPrefix) (hasPrefix $l.quarantineGroupPrefix $l.groupPrefix) }}
{{- $p = append $p (printf "logs.groupPrefix %q and logs.quarantineGroupPrefix %q lie inside one another: a tenant could read another's quarantine; take them apart" $l.groupPrefix $l.quarantineGroupPrefix) }}
{{- end }}
{{- if or (hasPrefix $l.groupPrefix $l.platformGroup) (hasPrefix $l.quarantineGroupPrefix $l.platformGroup) (hasPrefix (printf "%s/" $l.platformGroup) $l.groupPrefix) (hasPrefix (printf "%s/" $l.platformGroup) $l.quarantineGroupPrefix) }}
{{- $p = append $p (printf "logs.platformGroup %q lies inside a prefix of tenants, or one of those inside it: a policy for one would cover the other; take them apart" $l.platformGroup) }}
{{- end }}
{{- if and $l.kmsKeyArn $l.keyPerTenant }}
{{- $p = append $p "logs.kmsKeyArn and logs.keyPerTenant exclude each other: leave one of them out" }}
{{- end }}
{{- if and $l.keyPerTenant (not $v.provisioner.enabled) }}
{{- $p = append $p "logs.keyPerTenant needs the provisioner, which makes the keys: set provisioner.enabled=true" }}
{{- end }}
{{- if and $l.keyPerTenant (eq $l.onFailure "quarantine") }}
{{- $p = append $p "logs.keyPerTenant with logs.onFailure quarantine would copy a tenant's events under the platform's key: set logs.onFailure=hold" }}
{{- end }}
{{- if and $v.provisioner.enabled (kindIs "bool" $l.autoCreateGroup) (eq (toString $l.autoCreateGroup) "true") }}
{{- $p = append $p "logs.autoCreateGroup with the provisioner: nodes would need rights to create groups and set retention, and a node that is broken into could set one day on every tenant; leave it out" }}
{{- end }}
{{- if and (eq $l.format "json/emf") (not (contains "emf: true" (toYaml $v.tenants.exceptions))) }}
{{- $p = append $p "logs.format json/emf announces metrics, which no tenant may make: set emf: true for one under tenants.exceptions.tenants, or leave logs.format out" }}
{{- end }}

{{- /* Tenants. */ -}}
{{- if and (eq $v.tenants.source "registry") $v.fluentBit.enabled (not $v.provisioner.enabled) }}
{{- $p = append $p "tenants.source registry needs the provisioner, which publishes the registry: set provisioner.enabled=true, or tenants.source=prefix" }}
{{- end }}
{{- if and (eq $v.tenants.source "prefix") (hasPrefix $v.tenants.namespacePrefix .Release.Namespace) }}
{{- $p = append $p (printf "the release's namespace %s begins with tenants.namespacePrefix: the agent's own logs would be a tenant's; install into another namespace, such as logs" .Release.Namespace) }}
{{- end }}
{{- if eq $v.tenants.source "prefix" }}
{{- $covered := "" }}
{{- range list "kube-system" "kube-public" "kube-node-lease" "default" }}
{{- if hasPrefix $v.tenants.namespacePrefix . }}{{ $covered = . }}{{ end }}
{{- end }}
{{- if and (not $covered) (hasPrefix "kube-" $v.tenants.namespacePrefix) }}{{ $covered = "kube-*" }}{{ end }}
{{- if $covered }}
{{- $p = append $p (printf "tenants.namespacePrefix %q covers %s: choose one that only tenants' namespaces begin with" $v.tenants.namespacePrefix $covered) }}
{{- end }}
{{- end }}
{{- $owner := dict }}
{{- range (default list $v.tenants.exceptions.platformNamespaces) }}
{{- $_ := set $owner . "platformNamespaces" }}
{{- end }}
{{- range $v.tenants.reservedNamespaces }}
{{- $_ := set $owner . "tenants.reservedNamespaces" }}
{{- end }}
{{- range $tenant, $settings := default dict $v.tenants.exceptions.tenants }}
{{- range (default list (default dict $settings).namespaces) }}
{{- if hasKey $owner . }}
{{- $p = append $p (printf "namespace %s is listed for tenant %s and for %s: a namespace has one tenant; remove it from one of them" . $tenant (get $owner .)) }}
{{- end }}
{{- $_ := set $owner . $tenant }}
{{- end }}
{{- end }}
{{- if eq $v.tenants.source "prefix" }}
{{- range $tenant, $settings := default dict $v.tenants.exceptions.tenants }}
{{- $by := printf "%s%s" $v.tenants.namespacePrefix $tenant }}
{{- if and (default dict $settings).namespaces (not (hasKey $owner $by)) }}
{{- $p = append $p (printf "tenants.exceptions.tenants.%s.namespaces gives the tenant to %s, and namespace %s would get it by its name: list %s as well, or put it under platformNamespaces" $tenant (join ", " $settings.namespaces) $by $by) }}
{{- end }}
{{- end }}
{{- end }}
{{- $t := $v.provisioner.readerRoles.trust }}
{{- if and $t.irsa (not $t.oidcProvider) }}
{{- $p = append $p "provisioner.readerRoles.trust.irsa needs provisioner.readerRoles.trust.oidcProvider: that of `aws eks describe-cluster`, without https://" }}
{{- end }}
{{- if and $t.accounts (not $t.externalId) }}
{{- $p = append $p "provisioner.readerRoles.trust.accounts needs provisioner.readerRoles.trust.externalId: without it anybody whom those accounts let assume roles could be used to (confused deputy)" }}
{{- end }}

{{- /* Who may name a tenant. */ -}}
{{- if and $v.admissionPolicy.enabled (not $v.admissionPolicy.allowedGroups) (not $v.admissionPolicy.allowedUsers) }}
{{- $p = append $p "admissionPolicy has neither allowedGroups nor allowedUsers: nobody could create a tenant's namespace; name a group" }}
{{- end }}
{{- range $v.admissionPolicy.allowedGroups }}
{{- if has . (list "system:authenticated" "system:unauthenticated" "system:serviceaccounts") }}
{{- $p = append $p (printf "admissionPolicy.allowedGroups has %s: everybody is in it, and could name themselves any tenant; name those who may" .) }}
{{- end }}
{{- end }}
{{- if has "system:anonymous" $v.admissionPolicy.allowedUsers }}
{{- $p = append $p "admissionPolicy.allowedUsers has system:anonymous: anybody could name themselves any tenant; remove it" }}
{{- end }}

{{- /* The node agent. */ -}}
{{- if $v.fluentBit.enabled }}
{{- if ne $c.layout "pods" }}
{{- $p = append $p (printf "fluentBit.config.layout %s: with it, every start of the agent delivers again every line that the kubelet's files hold. Leave fluentBit.config.layout out, or set it to pods: /var/log/pods has the same files. Where the agent has run with it, the first start afterwards delivers those lines once more, as each start did; the later ones don't" $c.layout) }}
{{- end }}
{{- if $v.fluentBit.launcherPath }}
{{- if lt (int $v.fluentBit.terminationGracePeriodSeconds) (add (int $c.grace) 15) }}
{{- $p = append $p (printf "fluentBit.terminationGracePeriodSeconds (%d) is less than config.grace + 15 (%d): the kubelet would kill Fluent Bit while it writes down what was delivered, and that would come twice; set it to %d or more" (int $v.fluentBit.terminationGracePeriodSeconds) (add (int $c.grace) 15) (add (int $c.grace) 15)) }}
{{- end }}
{{- else }}
{{- if le (int $c.grace) (int $c.flushTimeout) }}
{{- $p = append $p (printf "fluentBit.config.grace (%d s) must be greater than fluentBit.config.flushTimeout (%d s) where fluentBit.launcherPath is empty: a flush under way at the end would be cut off, and its events sent again" (int $c.grace) (int $c.flushTimeout)) }}
{{- end }}
{{- if lt (int $v.fluentBit.terminationGracePeriodSeconds) (add (int $c.grace) (int $c.flushTimeout)) }}
{{- $p = append $p (printf "fluentBit.terminationGracePeriodSeconds (%d) is less than config.grace + config.flushTimeout (%d): the kubelet would kill Fluent Bit while it writes down what was delivered, and that would come twice; set it to %d or more" (int $v.fluentBit.terminationGracePeriodSeconds) (add (int $c.grace) (int $c.flushTimeout)) (add (int $c.grace) (int $c.flushTimeout) 20)) }}
{{- end }}
{{- end }}
{{- if gt (int $c.schedulerBase) (int $c.schedulerCap) }}
{{- $p = append $p "fluentBit.config.schedulerBase is greater than schedulerCap: Fluent Bit does not start so" }}
{{- end }}
{{- $state := clean $c.storage.hostPath }}
{{- $taken := has $state (list "/" "/home" "/mnt" "/opt" "/srv" "/tmp" "/var" "/var/lib") }}
{{- range list "/bin" "/boot" "/dev" "/etc" "/lib" "/lib64" "/proc" "/root" "/run" "/sbin" "/sys" "/usr" "/var/lib/cni" "/var/lib/containerd" "/var/lib/containers" "/var/lib/docker" "/var/lib/etcd" "/var/lib/kubelet" "/var/log" "/var/run" }}
{{- if hasPrefix (printf "%s/" .) (printf "%s/" $state) }}{{ $taken = true }}{{ end }}
{{- end }}
{{- if $taken }}
{{- $p = append $p (printf "fluentBit.config.storage.hostPath %s is not a folder of its own: the agent writes there as root; use one such as /var/lib/eks-tenant-logs" $c.storage.hostPath) }}
{{- end }}
{{- range $c.extraInputs }}
{{- $input := dict }}
{{- range $key, $value := . }}
{{- $_ := set $input (lower $key) $value }}
{{- end }}
{{- if not $input.tag }}
{{- $p = append $p (printf "fluentBit.config.extraInputs: %v has no tag: give one that does not begin with kube." (default "an input" $input.name)) }}
{{- else if or (hasPrefix "kube." $input.tag) (regexMatch "^[^.]*[*<]" $input.tag) }}
{{- $p = append $p (printf "fluentBit.config.extraInputs: tag %s could begin with kube.: such tags say whose a record is, and only the agent's own tail makes them; use another, such as host." $input.tag) }}
{{- end }}
{{- if eq (lower $input.name) "http" }}
{{- $p = append $p "fluentBit.config.extraInputs: http takes its tag from the path that the sender asks for, whatever tag says: a sender could name a tenant's; leave it out" }}
{{- end }}
{{- if hasKey $input "tag_key" }}
{{- $p = append $p "fluentBit.config.extraInputs: tag_key makes tags of what is sent, and whoever sends could name another's: leave it out" }}
{{- end }}
{{- if hasKey $input "tag_prefix" }}
{{- $prefix := toString $input.tag_prefix }}
{{- if or (hasPrefix $prefix "kube.") (hasPrefix "kube." $prefix) }}
{{- $p = append $p (printf "fluentBit.config.extraInputs: tag_prefix %q, which the sender's own tag follows, could begin with kube.: such tags say whose a record is; use another, such as host., or leave it out" $prefix) }}
{{- end }}
{{- end }}
{{- end }}
{{- range $c.extraFilters }}
{{- $name := "" }}
{{- range $key, $value := . }}
{{- if eq (lower $key) "name" }}{{ $name = lower (toString $value) }}{{ end }}
{{- end }}
{{- if eq $name "rewrite_tag" }}
{{- $p = append $p "fluentBit.config.extraFilters: rewrite_tag makes tags of what a record says, and a tenant could name another's: leave it out" }}
{{- else if eq $name "kubernetes" }}
{{- $p = append $p "fluentBit.config.extraFilters: kubernetes: use enrich.enabled, which sets it up so that no annotation of a tenant's can drop lines" }}
{{- end }}
{{- end }}
{{- range $c.extraOutputs }}
{{- $name := "" }}
{{- range $key, $value := . }}
{{- if eq (lower $key) "name" }}{{ $name = lower (toString $value) }}{{ end }}
{{- end }}
{{- if eq $name "cloudwatch_tenants" }}
{{- $p = append $p "fluentBit.config.extraOutputs: a second cloudwatch_tenants would bring every line twice: leave it out" }}
{{- end }}
{{- end }}
{{- range $v.fluentBit.extraVolumes }}
{{- if hasKey . "hostPath" }}
{{- $p = append $p (printf "fluentBit.extraVolumes: %s is a hostPath: the agent reads /var/log and writes its own folder, and has no more of the host; use a ConfigMap, Secret or CSI volume" .name) }}
{{- end }}
{{- end }}
{{- if $v.fluentBit.securityContext.privileged }}
{{- $p = append $p "fluentBit.securityContext.privileged: the agent reads files of root as root and needs no privilege; remove it" }}
{{- end }}
{{- /* Only where there is a cluster to ask. */ -}}
{{- $namespace := lookup "v1" "Namespace" "" .Release.Namespace }}
{{- if $namespace }}
{{- $level := get (default dict $namespace.metadata.labels) "pod-security.kubernetes.io/enforce" }}
{{- if has $level (list "baseline" "restricted") }}
{{- $p = append $p (printf "namespace %s enforces PodSecurity %s, which forbids hostPath: the agent's pods would be refused: kubectl label namespace %s --overwrite pod-security.kubernetes.io/enforce=privileged" .Release.Namespace $level .Release.Namespace) }}
{{- end }}
{{- end }}
{{- /* Two agents that write one folder would spoil each other's offsets and chunks. */ -}}
{{- $agent := printf "%s-fluent-bit" (include "eks-tenant-logs.fullname" .) }}
{{- range (default dict (lookup "apps/v1" "DaemonSet" "" "")).items }}
{{- $of := default dict .metadata.labels }}
{{- $name := .metadata.name }}
{{- $ours := and (eq (default "" (get $of "app.kubernetes.io/instance")) $.Release.Name) (eq .metadata.namespace $.Release.Namespace) }}
{{- if and (eq (default "" (get $of "app.kubernetes.io/part-of")) "eks-tenant-logs") (not (and $ours (eq $name $agent))) }}
{{- range .spec.template.spec.volumes }}
{{- if and (eq .name "state") .hostPath (eq (clean .hostPath.path) $state) }}
{{- if $ours }}
{{- $p = append $p (printf "the agents are DaemonSet %s, and nameOverride or fullnameOverride would call them %s: the new ones would start beside the old ones, in the same %s; leave the names as they are, or uninstall first" $name $agent $state) }}
{{- else }}
{{- $p = append $p (printf "release %s already runs an agent on every node, which writes %s: install once per cluster; for a second agent, which brings every line again, set fluentBit.config.storage.hostPath to a folder of its own" (get $of "app.kubernetes.io/instance") $state) }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}

{{- /* Two provisioners of one cluster would each set right what the other made. */ -}}
{{- if $v.provisioner.enabled }}
{{- range (default dict (lookup "apps/v1" "Deployment" "" "")).items }}
{{- $of := default dict .metadata.labels }}
{{- $namespace := .metadata.namespace }}
{{- if and (eq (default "" (get $of "app.kubernetes.io/part-of")) "eks-tenant-logs") (or (ne (default "" (get $of "app.kubernetes.io/instance")) $.Release.Name) (ne $namespace $.Release.Namespace)) }}
{{- range .spec.template.spec.containers }}
{{- $args := default list .args }}
{{- if and (has "controller" $args) (has (printf "--cluster=%s" $v.clusterName) $args) (has (printf "--region=%s" $v.aws.region) $args) }}
{{- $p = append $p (printf "release %s in namespace %s already runs the provisioner of cluster %s: two of them would each set right what the other made of roles and retention; set provisioner.enabled=false" (get $of "app.kubernetes.io/instance") $namespace $v.clusterName) }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}

{{- if and $v.provisioner.enabled (not (regexMatch "^0*[1-9][0-9]*(m|h)" $v.provisioner.resync)) }}
{{- $p = append $p (printf "provisioner.resync %s: give a minute at least, such as 10m: each looks at all tenants" $v.provisioner.resync) }}
{{- end }}
{{- if $p }}
{{- toJson $p }}
{{- end }}
{{- end }}
