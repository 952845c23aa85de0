{{- define "sluicegate.labels" -}}
app.kubernetes.io/name: {{ .Values.name }}
app.kubernetes.io/part-of: sluicegate
{{- end }}

{{- define "sluicegate.selector" -}}
app.kubernetes.io/name: {{ .Values.name }}
app.kubernetes.io/component: agent
{{- end }}

{{- define "sluicegate.image" -}}
{{- if .Values.image.digest -}}
{{ .Values.image.repository }}@{{ .Values.image.digest }}
{{- else -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end -}}
{{- end }}
