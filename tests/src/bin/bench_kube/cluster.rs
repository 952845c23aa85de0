//! The large cluster: what is written to the API server before the agent starts, and changes that nobody looks at.

use std::fmt::Debug;

use anyhow::{Context, Result};
use futures_util::{StreamExt, stream};
use k8s_openapi::api::core::v1::{Namespace, Node, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::networking::v1::{Ingress, IngressClass};
use kube::api::{Patch, PatchParams, PostParams};
use kube::core::NamespaceResourceScope;
use kube::{Api, Client, Resource};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::Arguments;

pub(crate) const ENDPOINTS: usize = 100;
/// Requests to the API server at one time, while it is filled.
const AT_ONCE: usize = 32;
pub(crate) const NODES: usize = 100;

/// Services of one endpoint, whose changes are timed: what is asked over TCP in XDP, and over HTTP in the proxy.
pub(crate) const ECHO: (&str, u16) = ("echo", 9000);
pub(crate) const WEB: (&str, u16) = ("web", 8080);
pub(crate) const WEB_HOST: &str = "web.example";

pub(crate) async fn fill(client: &Client, arguments: &Arguments) -> Result<()> {
    let namespace = json!({"metadata": {"name": "demo"}});
    Api::<Namespace>::all(client.clone()).create(&PostParams::default(), &serde_json::from_value(namespace)?).await?;
    let class = json!({"metadata": {"name": "sluicegate", "annotations": {"sluicegate.io/vips": "10.1.0.100"}},
        "spec": {"controller": "sluicegate.io/ingress-controller"}});
    Api::<IngressClass>::all(client.clone()).create(&PostParams::default(), &serde_json::from_value(class)?).await?;
    for (name, port) in [ECHO, WEB] {
        create::<Service>(client, [service(name, "10.1.0.101", port.into())]).await?;
        create::<EndpointSlice>(client, [slice(name, port, ["10.1.0.11".to_owned()])]).await?;
    }
    create::<Ingress>(client, [ingress(WEB.0, WEB_HOST, WEB.0, WEB.1.into())]).await?;
    let named = |i: usize| format!("s-{i}");
    create::<Service>(client, (0..arguments.services).map(|i| service(&named(i), "10.1.0.102", port(i)))).await?;
    create::<EndpointSlice>(client, (0..arguments.services).map(|i| slice(&named(i), 8080, endpoints(i, 0)))).await?;
    let ingresses = (0..arguments.ingresses).map(|i| {
        let of = i % arguments.services.max(1);
        ingress(&format!("i-{i}"), &format!("h-{i}.example"), &named(of), port(of))
    });
    create::<Ingress>(client, ingresses).await?;
    let nodes = (0..NODES).map(|i| json!({"metadata": {"name": format!("node-{i}")}}));
    let api = Api::<Node>::all(client.clone());
    for node in nodes {
        api.create(&PostParams::default(), &serde_json::from_value(node)?).await?;
    }
    Ok(())
}

fn port(service: usize) -> usize {
    10_000 + service
}

/// A hundred addresses; another `turn` gives the last one another number.
fn endpoints(service: usize, turn: usize) -> impl Iterator<Item = String> {
    let address = move |i: usize| format!("10.{}.{}.{}", 60 + service / 256, service % 256, 1 + i);
    (0..ENDPOINTS - 1).chain([ENDPOINTS + turn % 100]).map(address)
}

fn service(name: &str, vip: &str, port: usize) -> Value {
    json!({"metadata": {"name": name, "namespace": "demo", "annotations": {"sluicegate.io/vips": vip}},
        "spec": {"type": "LoadBalancer", "loadBalancerClass": "sluicegate.io/xdp", "ports": [{"port": port}]}})
}

fn slice(service: &str, port: u16, addresses: impl IntoIterator<Item = String>) -> Value {
    let endpoints: Vec<_> = addresses
        .into_iter()
        .map(|a| json!({"addresses": [a], "nodeName": "worker", "conditions": {"ready": true, "serving": true}}))
        .collect();
    json!({"metadata": {"name": format!("{service}-1"), "namespace": "demo",
            "labels": {"kubernetes.io/service-name": service}},
        "addressType": "IPv4", "endpoints": endpoints, "ports": [{"port": port, "protocol": "TCP"}]})
}

fn ingress(name: &str, host: &str, service: &str, port: usize) -> Value {
    let backend = json!({"service": {"name": service, "port": {"number": port}}});
    json!({"metadata": {"name": name, "namespace": "demo"},
        "spec": {"ingressClassName": "sluicegate", "rules": [{"host": host,
            "http": {"paths": [{"path": "/", "pathType": "Prefix", "backend": backend}]}}]}})
}

async fn create<K>(client: &Client, objects: impl IntoIterator<Item = Value>) -> Result<()>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + Debug + Serialize + DeserializeOwned,
{
    let api = Api::<K>::namespaced(client.clone(), "demo");
    let mut done = stream::iter(objects)
        .map(async |object| {
            let object = serde_json::from_value(object).context("make an object")?;
            api.create(&PostParams::default(), &object).await.context("create an object").map(drop)
        })
        .buffer_unordered(AT_ONCE);
    while let Some(result) = done.next().await {
        result?;
    }
    Ok(())
}

/// Changes slices that nobody looks at, one endpoint of a Service at a time: those of the given turns.
pub(crate) async fn churn(client: &Client, services: usize, turns: std::ops::Range<usize>) -> Result<()> {
    let api = Api::<EndpointSlice>::namespaced(client.clone(), "demo");
    let mut done = stream::iter(turns)
        .map(async |turn| {
            let service = turn % services;
            let new = endpoints(service, 1 + turn / services);
            change(&api, &format!("s-{service}"), new.collect()).await
        })
        .buffer_unordered(AT_ONCE);
    while let Some(result) = done.next().await {
        result?;
    }
    Ok(())
}

/// Returns when the API server has taken the change.
pub(crate) async fn change(api: &Api<EndpointSlice>, service: &str, addresses: Vec<String>) -> Result<()> {
    let patch = json!({"endpoints": slice(service, 1, addresses)["endpoints"]});
    let name = format!("{service}-1");
    api.patch(&name, &PatchParams::default(), &Patch::Merge(patch)).await.context("change a slice").map(drop)
}
