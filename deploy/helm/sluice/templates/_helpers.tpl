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
