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
{{- with .Values.watchNamespaceSelector }}
- { name: SLUICEGATE_WATCH_NAMESPACE_SELECTOR, value: {{ . | quote }} }
{{- end }}
{{- if .Values.watchServicesWithoutClass }}
- { name: SLUICEGATE_WATCH_SERVICES_WITHOUT_CLASS, value: "true" }
{{- end }}
{{- end }}

{{- /* For a rule of both. */}}
{{- define "sluicegate.namespaces" -}}
{{- if .Values.watchNamespaceSelector }}
- apiGroups: [""]
  resources: [namespaces]
  verbs: [list, watch]
{{- end }}
{{- end }}

{{- define "sluicegate.webhook.labels" -}}
app.kubernetes.io/name: {{ .Values.name }}
app.kubernetes.io/component: webhook
{{- end }}

{{- /* Elections and what the edges tell each other. What is left at the agent's default is not said. */}}
{{- define "sluicegate.failover" -}}
{{- with .Values.flowSync }}
{{- if .secret }}
- { name: SLUICEGATE_HASH_SEED, valueFrom: { secretKeyRef: { name: {{ .secret | quote }}, key: hash-seed } } }
- { name: SLUICEGATE_SYNC_KEY_FILE, value: /etc/sluicegate/flow-sync/key }
{{- with .peers }}
- { name: SLUICEGATE_SYNC_PEER, value: {{ join "," . | quote }} }
{{- end }}
{{- with .port }}
- { name: SLUICEGATE_SYNC_PORT, value: {{ . | int | quote }} }
{{- end }}
{{- else if .peers }}
{{- fail "flowSync.peers needs flowSync.secret: the Secret with `key` and `hash-seed`" }}
{{- end }}
{{- end }}
{{- with .Values.failover }}
{{- if .enabled }}
- { name: SLUICEGATE_VIP_MODE, value: vrrp }
{{- with .intervalMs }}
- { name: SLUICEGATE_VRRP_INTERVAL_MS, value: {{ . | int | quote }} }
{{- end }}
{{- with .version }}
- { name: SLUICEGATE_VRRP_VERSION, value: {{ . | int | quote }} }
{{- end }}
{{- with .checksum }}
- { name: SLUICEGATE_VRRP_CHECKSUM, value: {{ . | quote }} }
{{- end }}
{{- with .vrids }}
- { name: SLUICEGATE_VRRP_VRIDS, value: {{ . | quote }} }
{{- end }}
{{- with .routers }}
- { name: SLUICEGATE_VRRP_VRID, value: {{ join ";" . | quote }} }
{{- end }}
{{- with .nodes }}
- { name: SLUICEGATE_VRRP_NODES, value: {{ join "," . | quote }} }
{{- end }}
{{- with .peers }}
- { name: SLUICEGATE_VRRP_PEERS, value: {{ join "," . | quote }} }
{{- end }}
{{- with .checks }}
- { name: SLUICEGATE_VRRP_CHECKS, value: {{ join ";" . | quote }} }
{{- end }}
{{- if .nopreempt }}
- { name: SLUICEGATE_VRRP_NOPREEMPT, value: "true" }
{{- end }}
{{- with .preemptDelay }}
- { name: SLUICEGATE_VRRP_PREEMPT_DELAY, value: {{ . | quote }} }
{{- end }}
{{- end }}
{{- end }}
{{- end }}
