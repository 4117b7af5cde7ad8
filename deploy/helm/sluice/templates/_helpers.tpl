{{- define "sluice.name" -}}
{{- ternary .Release.Name (printf "%s-sluice" .Release.Name) (contains "sluice" .Release.Name) | trunc 57 | trimSuffix "-" }}
{{- end }}

{{- define "sluice.selector" -}}
app.kubernetes.io/name: sluice
app.kubernetes.io/instance: {{ .Release.Name | quote }}
{{- end }}

{{- define "sluice.labels" -}}
{{ include "sluice.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | replace "+" "_" | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version | replace "+" "_" }}
{{- end }}

{{- define "sluice.port" -}}
{{- dig "port" .default (index .root.Values.config .section | default dict) }}
{{- end }}

{{- /* Whether the forward proxy is on: an empty forwardProxy turns it on, and is no less than a full one. */}}
{{- define "sluice.hasProxy" -}}
{{- if kindIs "map" (get .Values.config "forwardProxy") }}true{{ end }}
{{- end }}

{{- /* A duration of the configuration in seconds, and 0 for a reference, whose value is not known here. */}}
{{- define "sluice.seconds" -}}
{{- $parts := dict "ms" 1 "s" 1000 "m" 60000 "h" 3600000 }}
{{- $ms := mul (regexFind "^[0-9]+" . | int64) (get $parts (regexFind "[a-z]+$" .) | default 0) }}
{{- div (add $ms 999) 1000 }}
{{- end }}
