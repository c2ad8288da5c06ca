{{- define "lacuna.name" -}}
{{ .Release.Name | trunc 50 | trimSuffix "-" }}
{{- end }}

{{- define "lacuna.selectorLabels" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "lacuna.labels" -}}
{{ include "lacuna.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end }}

{{- define "lacuna.serviceAccountName" -}}
{{ .Values.serviceAccount.name | default (include "lacuna.name" .) }}
{{- end }}

{{- define "lacuna.image" -}}
{{- if .Values.image.digest -}}
{{ .Values.image.repository }}@{{ .Values.image.digest }}
{{- else -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end -}}
{{- end }}

{{- /* Series of this release's pods, for queries: not those of a release whose name only begins alike. Kubernetes
       appends two hashes, and cuts off the dash between them where the name is long. */}}
{{- define "lacuna.series" -}}
namespace="{{ .Release.Namespace }}",pod=~"{{ include "lacuna.name" . }}-[a-z0-9]+-?[a-z0-9]{5}"
{{- end }}

{{- define "lacuna.modelDirectory" -}}
/models{{ if .Values.model.path }}/{{ .Values.model.path }}{{ end }}
{{- end }}
