{{- define "spillway.name" -}}
{{- if contains .Chart.Name .Release.Name }}{{ .Release.Name | trunc 52 | trimSuffix "-" }}{{ else }}{{ printf "%s-%s" .Release.Name .Chart.Name | trunc 52 | trimSuffix "-" }}{{ end }}
{{- end }}

{{- define "spillway.selector" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "spillway.labels" -}}
{{ include "spillway.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end }}

{{- /* The ports of all addresses in the configuration: engines, PostgreSQL, clouds that are not at 443. */ -}}
{{- define "spillway.ports" -}}
{{- $ports := dict }}
{{- range regexFindAll "(https?|postgres(ql)?|rediss?)://[^/ \"'?,]+" .Values.config -1 }}
{{- $scheme := regexFind "^[a-z]+" . }}
{{- $port := regexFind "[0-9]+" (regexFind ":[0-9]+[]}]*$" .) }}
{{- $usual := dict "http" "80" "https" "443" "postgresql" "5432" "postgres" "5432" "redis" "6379" "rediss" "6379" }}
{{- $port := default (get $usual $scheme) $port }}
{{- if ne $port "443" }}{{ $_ := set $ports $port true }}{{ end }}
{{- end }}
{{- range (get (fromYaml .Values.config) "backends" | default list) }}
{{- if and (kindIs "map" .) (eq (toString (get . "discover")) "dns") }}
{{- with regexFind "[0-9]+$" (regexFind ":[0-9]+$" (toString (get . "discover_from"))) }}{{ $_ := set $ports . true }}{{ end }}
{{- end }}
{{- end }}
{{- keys $ports | sortAlpha | join "," }}
{{- end }}

{{- /* Ends the rendering where the values contradict each other, or the pod could not work. */ -}}
{{- define "spillway.check" -}}
{{- $config := fromYaml .Values.config }}
{{- with get $config "Error" }}{{ fail (printf "config is not the YAML of a spillway.yaml: %s" .) }}{{ end }}
{{- range $name := list "ledger" "limits" }}
{{- if not (kindIs "map" (get $config $name | default dict)) }}{{ fail (printf "config: %s must be a mapping" $name) }}{{ end }}
{{- end }}
{{- if not (kindIs "slice" (get $config "backends" | default list)) }}{{ fail "config: backends must be a list" }}{{ end }}
{{- include "spillway.checkListen" $config }}
{{- include "spillway.checkLedger" (dict "values" .Values "config" $config) }}
{{- include "spillway.checkStop" (dict "values" .Values "config" $config) }}
{{- include "spillway.checkVariables" (dict "values" .Values "config" $config) }}
{{- if and .Values.gpu.count (has "route" .Values.args) }}
{{- fail "args run the router alone, and gpu.count claims a GPU that nothing would use; set gpu.count: 0" }}
{{- end }}
{{- if gt (int .Values.autoscaling.minReplicas) (int .Values.autoscaling.maxReplicas) }}
{{- fail "autoscaling.minReplicas is more than autoscaling.maxReplicas" }}
{{- end }}
{{- if and .Values.serviceMonitor.enabled (not (or .Values.serviceMonitor.tokenSecret.name .Values.providerKeys.existingSecret)) }}
{{- fail "serviceMonitor: /metrics needs a token; name its Secret in serviceMonitor.tokenSecret.name or providerKeys.existingSecret" }}
{{- end }}
{{- if and (get .Values.affinity "nodeAffinity") (or .Values.gpu.products .Values.gpu.minDriver) }}
{{- fail "affinity.nodeAffinity takes the place of what gpu.products and gpu.minDriver ask for; write their labels into it and leave them out" }}
{{- end }}
{{- end }}

{{- define "spillway.checkListen" -}}
{{- $listen := toString (get . "listen" | default "127.0.0.1:8080") }}
{{- if regexMatch "^(127\\.|localhost|\\[?::1)" $listen }}
{{- fail (printf "config: listen: %s can't be reached from outside the pod; write 0.0.0.0:8080" $listen) }}
{{- end }}
{{- if not (hasSuffix ":8080" $listen) }}{{ fail (printf "config: listen: %s is not the port of the Services; write 0.0.0.0:8080" $listen) }}{{ end }}
{{- end }}

{{- define "spillway.checkLedger" -}}
{{- $url := toString (get (get .config "ledger" | default dict) "url" | default "sqlite:///data/spillway.db") }}
{{- $most := int .values.replicaCount }}
{{- if ne .values.autoscaling.kind "none" }}{{ $most = int .values.autoscaling.maxReplicas }}{{ end }}
{{- if hasPrefix "sqlite:" $url }}
{{- if gt $most 1 }}
{{- fail (printf "up to %d pods would each have a SQLite ledger, and every budget would count once per pod; put the ledger into PostgreSQL (config: ledger: {url: postgresql://...})" $most) }}
{{- end }}
{{- if and (not (hasPrefix "sqlite:////data/" $url)) (not .values.extraVolumeMounts) }}
{{- fail (printf "config: ledger.url: %s is on no volume that could be written to; write sqlite:////data/spillway.db" $url) }}
{{- end }}
{{- end }}
{{- end }}

{{- /* 10 s until the Service has dropped the pod, the answers in progress, 30 s for the last rows and 20 s for the engine. */ -}}
{{- define "spillway.checkStop" -}}
{{- $limits := get .config "limits" | default dict }}
{{- $answers := get $limits "stop_s" }}
{{- $unready := get $limits "stop_unready_s" }}
{{- $needed := addf 60 (ternary $answers 130 (kindIs "float64" $answers)) (ternary $unready 0 (kindIs "float64" $unready)) | ceil | int }}
{{- if lt (int .values.terminationGracePeriodSeconds) $needed }}
{{- fail (printf "the pod may take %d s to stop by config (limits.stop_s, limits.stop_unready_s and 60 s), and is ended after %d s; set terminationGracePeriodSeconds: %d" $needed (int .values.terminationGracePeriodSeconds) $needed) }}
{{- end }}
{{- end }}

{{- define "spillway.checkVariables" -}}
{{- $given := list }}
{{- range .values.extraEnv }}{{ $given = append $given (get . "name") }}{{ end }}
{{- $secret := .values.providerKeys.existingSecret }}
{{- range regexFindAll "\\$\\{[A-Za-z_][A-Za-z0-9_]*\\}" (toYaml .config) -1 }}
{{- $name := . | trimPrefix "${" | trimSuffix "}" }}
{{- if and (not $secret) (not (has $name $given)) }}
{{- fail (printf "config names the variable %s, and the pod has none; put it into the Secret providerKeys.existingSecret, or into extraEnv" .) }}
{{- end }}
{{- end }}
{{- end }}

{{- define "spillway.serviceAccount" -}}
{{- if .Values.serviceAccount.create }}{{ default (include "spillway.name" .) .Values.serviceAccount.name }}{{ else }}{{ default "default" .Values.serviceAccount.name }}{{ end }}
{{- end }}

{{- define "spillway.image" -}}
{{- if .Values.image.digest }}{{ printf "%s@%s" .Values.image.repository .Values.image.digest }}{{ else }}{{ printf "%s:%s" .Values.image.repository (default .Chart.AppVersion .Values.image.tag) }}{{ end }}
{{- end }}

{{- /* The namespaces in which the configuration has the router look for engines, with commas between. */ -}}
{{- define "spillway.discovered" -}}
{{- $found := dict }}
{{- $config := fromYaml .Values.config }}
{{- range (get $config "backends" | default list) }}
{{- if and (kindIs "map" .) (eq (toString (get . "discover")) "kubernetes") }}
{{- $_ := set $found (regexFind "^[^/]+" (toString (get . "discover_from"))) true }}
{{- end }}
{{- end }}
{{- keys $found | sortAlpha | join "," }}
{{- end }}

{{- /* HTTPS where the router itself answers by TLS. */ -}}
{{- define "spillway.scheme" -}}
{{- ternary "HTTPS" "HTTP" (kindIs "map" (get (fromYaml .Values.config) "tls")) }}
{{- end }}
