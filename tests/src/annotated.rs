//! The plan of one Ingress, for what its annotations mean.

use std::sync::Arc;
use std::time::SystemTime;

use ingress_agent::model::snapshot::Snapshot;
use ingress_agent::plan::{PlanOptions, plan};
use ingress_agent::sources::SourceOptions;
use ingress_agent::sources::store::Store;
use serde_json::json;

/// What is planned of one Ingress, `shop/web` of `shop.example/` with these annotations, which is served at one address.
pub fn annotated(annotations: &[(&str, &str)], options: PlanOptions) -> Arc<Snapshot> {
    let annotations: serde_json::Map<String, serde_json::Value> =
        annotations.iter().map(|(k, v)| ((*k).to_owned(), (*v).into())).collect();
    let backend = json!({"service": {"name": "web", "port": {"number": 80}}});
    let list = json!({"apiVersion": "v1", "kind": "List", "items": [
        {"apiVersion": "networking.k8s.io/v1", "kind": "IngressClass", "metadata": {"name": "edge"},
            "spec": {"controller": "sluicegate.io/ingress-controller"}},
        {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web", "namespace": "shop"}, "spec": {"ports": [{"port": 80}]}},
        {"apiVersion": "networking.k8s.io/v1", "kind": "Ingress",
            "metadata": {"name": "web", "namespace": "shop", "annotations": annotations},
            "spec": {"ingressClassName": "edge", "rules": [{"host": "shop.example",
                "http": {"paths": [{"path": "/", "pathType": "Prefix", "backend": backend}]}}]}},
    ]});
    let mut store = Store::new(SourceOptions::default());
    store.put("a.json", Ok(&list.to_string()));
    let facts = store.publish(SystemTime::now(), &[]).expect("the first facts");
    let ingress_vips = vec!["192.0.2.1".parse().expect("an address")];
    plan(&facts, &PlanOptions { ingress_vips, ..options }, None).snapshot
}
