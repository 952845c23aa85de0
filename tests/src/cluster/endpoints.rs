//! What the controllers say about a Service's backends: the endpoints in its slices, as a test compares them.

use std::net::IpAddr;

use k8s_openapi::api::discovery::v1::{Endpoint as KubernetesEndpoint, EndpointSlice};
use kube::Api;
use kube::api::ListParams;

use super::ControlPlane;
use crate::wait;

/// A ready endpoint.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Endpoint {
    /// Of its pod.
    pub name: String,
    pub node: String,
    pub address: IpAddr,
}

/// The ready endpoints of a Service in the namespace `default`, of all families, sorted by name.
pub fn ready(cluster: &ControlPlane, service: &str) -> Vec<Endpoint> {
    let selector = format!("kubernetes.io/service-name={service}");
    let slices = cluster.with_client(async |client| {
        let api = Api::<EndpointSlice>::default_namespaced(client);
        Ok(api.list(&ListParams::default().labels(&selector)).await?.items)
    });
    let endpoints = slices.expect("ask for slices").into_iter().flat_map(|slice| slice.endpoints.unwrap_or_default());
    let read = |endpoint: KubernetesEndpoint| {
        endpoint.conditions.as_ref().and_then(|conditions| conditions.ready).filter(|ready| *ready)?;
        let name = endpoint.target_ref.as_ref()?.name.clone()?;
        let address = endpoint.addresses.first()?.parse().ok()?;
        Some(Endpoint { name, node: endpoint.node_name.clone()?, address })
    };
    let mut found: Vec<Endpoint> = endpoints.filter_map(read).collect();
    found.sort();
    found
}

/// Waits until a Service has just so many ready endpoints.
#[track_caller]
pub fn ready_when(cluster: &ControlPlane, service: &str, count: usize) -> Vec<Endpoint> {
    wait::within(super::PATIENCE, &format!("{service} has {count} ready endpoints"), || {
        let found = ready(cluster, service);
        (found.len() == count).then_some(found)
    })
}
