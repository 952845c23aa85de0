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

{{- /* What the agents and the webhook must be told alike, so that both come to the same conclusions. */}}
{{- define "sluicegate.rules" -}}
- { name: SLUICEGATE_TCP_SERVICES_CONFIGMAP, value: $(POD_NAMESPACE)/tcp-services }
- { name: SLUICEGATE_UDP_SERVICES_CONFIGMAP, value: $(POD_NAMESPACE)/udp-services }
{{- with .Values.ingressVips }}
- { name: SLUICEGATE_INGRESS_VIP, value: {{ join "," . | quote }} }
{{- end }}
{{- with .Values.ingressPool }}
- { name: SLUICEGATE_INGRESS_POOL, value: {{ . | quote }} }
{{- end }}
{{- if ne .Values.ingressClass.controller "sluicegate.io/ingress-controller" }}
- { name: SLUICEGATE_CONTROLLER_CLASS, value: {{ .Values.ingressClass.controller | quote }} }
{{- end }}
{{- with .Values.ingressClass.annotation }}
- { name: SLUICEGATE_INGRESS_CLASS, value: {{ . | quote }} }
{{- end }}
{{- if .Values.ingressClass.byName }}
- { name: SLUICEGATE_INGRESS_CLASS_BY_NAME, value: "true" }
{{- end }}
{{- if not .Values.externalNames }}
- { name: SLUICEGATE_DISABLE_SVC_EXTERNAL_NAME, value: "true" }
{{- end }}
{{- if .Values.watchIngressWithoutClass }}
- { name: SLUICEGATE_WATCH_INGRESS_WITHOUT_CLASS, value: "true" }
{{- end }}
{{- if .Values.watchServicesWithoutClass }}
- { name: SLUICEGATE_WATCH_SERVICES_WITHOUT_CLASS, value: "true" }
{{- end }}
{{- end }}

{{- define "sluicegate.webhook.labels" -}}
app.kubernetes.io/name: {{ .Values.name }}
app.kubernetes.io/component: webhook
{{- end }}
