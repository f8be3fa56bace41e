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
{{- range regexFindAll "(https?|postgresql|rediss?)://[^/ \"'?,]+" .Values.config -1 }}
{{- $scheme := regexFind "^[a-z]+" . }}
{{- $port := regexFind "[0-9]+" (regexFind ":[0-9]+[]}]*$" .) }}
{{- $port := default (get (dict "http" "80" "https" "443" "postgresql" "5432" "redis" "6379" "rediss" "6379") $scheme) $port }}
{{- if ne $port "443" }}{{ $_ := set $ports $port true }}{{ end }}
{{- end }}
{{- keys $ports | sortAlpha | join "," }}
{{- end }}

{{- /* Ends the rendering where the values contradict each other. */ -}}
{{- define "spillway.check" -}}
{{- $most := .Values.replicaCount }}
{{- if ne .Values.autoscaling.kind "none" }}{{ $most = .Values.autoscaling.maxReplicas }}{{ end }}
{{- $ledger := dig "ledger" "url" "sqlite:" (fromYaml .Values.config) }}
{{- if and (gt (int $most) 1) (hasPrefix "sqlite:" $ledger) }}
{{- fail (printf "up to %d pods would each have a SQLite ledger, and every budget would count once per pod; put the ledger into PostgreSQL (config: ledger: {url: postgresql://...})" (int $most)) }}
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
