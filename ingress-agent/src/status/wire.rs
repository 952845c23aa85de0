//! Objects as the API server has them: what is read of them, and what is written. No request is made here.

use k8s_openapi::api::core::v1::{ObjectReference, Service};
use k8s_openapi::api::events::v1::{Event, EventSeries};
use k8s_openapi::api::networking::v1::Ingress;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use k8s_openapi::jiff::Timestamp;
use kube::core::object::NotUsed;
use kube::core::{ApiResource, GroupVersionKind, Object};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::decide::{Entry, RECORD, Seen, Write, words};
use super::ledger::{Key, Kind};
use super::notices::Notice;
use super::pool::{PoolStatus, SeenPool};
use crate::model::snapshot::ObjectName;

/// Of `status.loadBalancer`, and of nothing else. Whoever reads `managedFields` or asks who has overwritten a status sees it.
pub(super) const MANAGER: &str = "sluicegate-status";
/// `kubectl describe` shows it as the source of an Event.
const CONTROLLER: &str = "sluicegate.io/status";

/// A Service or Ingress with nothing but its metadata and `status.loadBalancer`: the rest is dropped as it is read.
pub(super) type Thin = Object<NotUsed, ThinStatus>;

/// The same of a VirtualIPPool.
pub(super) type ThinPool = Object<NotUsed, PoolStatus>;

#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ThinStatus {
    #[serde(default)]
    load_balancer: ThinBalancer,
}

#[derive(Clone, Debug, Default, Deserialize, Serialize)]
struct ThinBalancer {
    #[serde(default)]
    ingress: Vec<ThinEntry>,
}

#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
struct ThinEntry {
    ip: String,
    hostname: String,
    ip_mode: String,
}

impl Kind {
    pub(super) fn resource(self) -> ApiResource {
        match self {
            Self::Service => ApiResource::erase::<Service>(&()),
            Self::Ingress => ApiResource::erase::<Ingress>(&()),
            Self::Pool => ApiResource::from_gvk_with_plural(
                &GroupVersionKind::gvk("sluicegate.io", "v1alpha1", "VirtualIPPool"),
                "virtualippools",
            ),
        }
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Service => "Service",
            Self::Ingress => "Ingress",
            Self::Pool => "VirtualIPPool",
        }
    }
}

pub(super) fn name(metadata: &ObjectMeta) -> ObjectName {
    ObjectName::new(metadata.namespace.clone().unwrap_or_default(), metadata.name.clone().unwrap_or_default())
}

pub(super) fn seen(object: &Thin) -> Seen {
    let entries = object.status.iter().flat_map(|s| &s.load_balancer.ingress);
    let entry = |e: &ThinEntry| Entry { ip: e.ip.clone(), hostname: e.hostname.clone(), ip_mode: e.ip_mode.clone() };
    Seen { entries: entries.map(entry).collect(), ..written_by(&object.metadata, "/f:status/f:loadBalancer") }
}

pub(super) fn seen_pool(object: &ThinPool) -> Seen {
    let generation = object.metadata.generation.unwrap_or_default();
    let pool = SeenPool { generation, status: object.status.clone().unwrap_or_default() };
    Seen { pool: Some(Box::new(pool)), ..written_by(&object.metadata, "/f:status") }
}

/// Who has written the part of an object that is ours to write.
fn written_by(metadata: &ObjectMeta, part: &str) -> Seen {
    let of_status = |f: &&_| {
        let fields: &k8s_openapi::apimachinery::pkg::apis::meta::v1::ManagedFieldsEntry = f;
        fields.fields_v1.as_ref().is_some_and(|f| f.0.pointer(part).is_some())
    };
    let managers = metadata.managed_fields.iter().flatten().filter(of_status).filter_map(|f| f.manager.as_deref());
    let (ours, others): (Vec<&str>, Vec<&str>) = managers.partition(|m| *m == MANAGER);
    let known = metadata.managed_fields.iter().flatten().any(|f| f.manager.as_deref() == Some(MANAGER));
    let record = metadata.annotations.as_ref().and_then(|a| a.get(RECORD)).cloned().unwrap_or_default();
    Seen {
        uid: metadata.uid.clone().unwrap_or_default(),
        // An opaque text by the letter of the API, a growing number by its practice. One that is none is as old as any.
        version: metadata.resource_version.as_deref().and_then(|v| v.parse().ok()).unwrap_or(0),
        record,
        ours: !ours.is_empty(),
        known,
        other: others.last().map(|m| (*m).to_owned()),
        ..Seen::default()
    }
}

/// Without what is empty.
fn written(entry: &Entry) -> Value {
    let parts = [("ip", &entry.ip), ("hostname", &entry.hostname), ("ipMode", &entry.ip_mode)];
    parts.into_iter().filter(|(_, text)| !text.is_empty()).map(|(name, text)| (name.to_owned(), json!(text))).collect()
}

/// The body of a server-side apply on the subresource `status`, which may change annotations, too. The uid is a condition: an object of the same name that was
/// made meanwhile is another one.
pub(super) fn apply(key: &Key, uid: &str, write: &Write) -> Value {
    let (kind, object) = key;
    let resource = kind.resource();
    let mut metadata = json!({ "name": object.name, "uid": uid });
    if !object.namespace.is_empty() {
        metadata["namespace"] = json!(object.namespace);
    }
    let mut body = json!({ "apiVersion": resource.api_version, "kind": resource.kind, "metadata": metadata });
    let (record, status) = match write {
        Write::Put { record, status } => (record, status),
        Write::Pool(status) => {
            body["status"] = json!(dated(status));
            return body;
        }
        Write::GiveUp => return body,
    };
    if let Some(record) = record {
        body["metadata"]["annotations"] = json!({ RECORD: words(record) });
    }
    if let Some(entries) = status {
        // An empty list is written as one: leaving it out would leave what another manager has written.
        body["status"] = json!({ "loadBalancer": { "ingress": entries.iter().map(written).collect::<Vec<_>>() } });
    }
    body
}

/// What has changed has changed now, to the second: `metav1.Time` knows no less.
fn dated(status: &PoolStatus) -> PoolStatus {
    let now = Timestamp::from_second(Timestamp::now().as_second()).unwrap_or_default().to_string();
    let mut status = status.clone();
    for condition in status.conditions.iter_mut().filter(|c| c.last_transition_time.is_empty()) {
        condition.last_transition_time.clone_from(&now);
    }
    status
}

/// Where the Events of an object live.
pub(super) fn event_namespace(notice: &Notice) -> &str {
    if notice.name.namespace.is_empty() { "default" } else { &notice.name.namespace }
}

/// `None`: nothing of this kind is in a cluster.
pub(super) fn event(notice: &Notice, instance: &str) -> Option<Event> {
    let version = match notice.kind.as_str() {
        "Service" | "Secret" | "ConfigMap" | "Node" => "v1",
        "Ingress" | "IngressClass" => "networking.k8s.io/v1",
        "EndpointSlice" => "discovery.k8s.io/v1",
        "VirtualIPPool" => "sluicegate.io/v1alpha1",
        _ => return None,
    };
    let namespace = Some(notice.name.namespace.clone()).filter(|n| !n.is_empty());
    Some(Event {
        metadata: ObjectMeta {
            name: Some(notice.event_name()),
            namespace: Some(event_namespace(notice).to_owned()),
            ..ObjectMeta::default()
        },
        regarding: Some(ObjectReference {
            api_version: Some(version.to_owned()),
            kind: Some(notice.kind.clone()),
            name: Some(notice.name.name.clone()),
            namespace,
            uid: Some(notice.uid.clone()),
            ..ObjectReference::default()
        }),
        event_time: Some(MicroTime(Timestamp::now())),
        type_: Some(if notice.warning { "Warning" } else { "Normal" }.to_owned()),
        reason: Some(notice.reason.to_owned()),
        action: Some(if notice.warning { "Plan" } else { "Announce" }.to_owned()),
        note: Some(notice.note.clone()),
        reporting_controller: Some(CONTROLLER.to_owned()),
        reporting_instance: Some(instance.chars().take(128).collect()),
        ..Event::default()
    })
}

/// The same Event once more. Everything else of it may not be changed.
pub(super) fn series(count: i32) -> Value {
    json!({ "series": EventSeries { count: count.max(2), last_observed_time: MicroTime(Timestamp::now()) } })
}

#[cfg(test)]
mod tests {
    use super::super::decide::IP_MODE;
    use super::*;

    fn thin(managed: &Value, status: &Value) -> Seen {
        let object = json!({
            "apiVersion": "v1", "kind": "Service", "spec": { "type": "LoadBalancer", "ports": [] }, "status": status,
            "metadata": { "name": "web", "namespace": "shop", "uid": "u", "resourceVersion": "42", "managedFields": managed },
        });
        seen(&serde_json::from_value(object).expect("a Service"))
    }

    #[test]
    fn a_status_is_ours_where_our_field_manager_says_so() {
        let of = |manager: &str, fields: &Value| json!([{ "manager": manager, "operation": "Apply", "subresource": "status", "fieldsType": "FieldsV1", "fieldsV1": fields }]);
        let balancer = json!({ "f:status": { "f:loadBalancer": { "f:ingress": {} } } });
        let status = json!({ "loadBalancer": { "ingress": [{ "ip": "10.0.0.1", "ipMode": "Proxy", "ports": [{ "port": 80 }] }] } });
        let ours = thin(&of(MANAGER, &balancer), &status);
        assert!(ours.ours && ours.other.is_none());
        assert_eq!(
            (ours.version, ours.entries[0].ip.as_str(), ours.entries[0].ip_mode.as_str()),
            (42, "10.0.0.1", "Proxy")
        );
        let theirs = thin(&of("speaker", &balancer), &status);
        assert_eq!((theirs.ours, theirs.other.as_deref()), (false, Some("speaker")));
        // Conditions are not our business.
        assert_eq!(thin(&of("kubectl", &json!({ "f:status": { "f:conditions": {} } })), &json!({})).other, None);
        assert_eq!(thin(&json!(null), &json!({ "loadBalancer": {} })).entries, []);
    }

    #[test]
    fn bodies_name_the_object_and_what_it_shall_be() {
        let key = |kind| (kind, ObjectName::new("shop", "web"));
        let address = "10.0.0.1".parse().expect("an address");
        let one = |mode| Write::Put { record: None, status: Some(vec![Entry::address(address, mode)]) };
        assert_eq!(
            apply(&key(Kind::Service), "u", &one(IP_MODE)),
            json!({
                "apiVersion": "v1", "kind": "Service", "metadata": { "name": "web", "namespace": "shop", "uid": "u" },
                "status": { "loadBalancer": { "ingress": [{ "ip": "10.0.0.1", "ipMode": "Proxy" }] } },
            })
        );
        let ingress = apply(&key(Kind::Ingress), "u", &one(""));
        assert_eq!(ingress["apiVersion"], "networking.k8s.io/v1");
        assert_eq!(ingress["status"], json!({ "loadBalancer": { "ingress": [{ "ip": "10.0.0.1" }] } }));
        let name = vec![Entry { hostname: "edge.example".into(), ..Entry::default() }];
        let named = apply(&key(Kind::Ingress), "u", &Write::Put { record: None, status: Some(name) });
        assert_eq!(named["status"], json!({ "loadBalancer": { "ingress": [{ "hostname": "edge.example" }] } }));
        assert_eq!(
            apply(&key(Kind::Service), "u", &Write::Put { record: None, status: Some(Vec::new()) })["status"],
            json!({ "loadBalancer": { "ingress": [] } })
        );
        let recorded = apply(&key(Kind::Service), "u", &Write::Put { record: Some(vec![address]), status: None });
        assert_eq!(recorded["metadata"]["annotations"], json!({ "sluicegate.io/assigned": "10.0.0.1" }));
        assert_eq!(recorded.get("status"), None);
        assert_eq!(apply(&key(Kind::Service), "u", &Write::GiveUp).get("status"), None);
    }
}
