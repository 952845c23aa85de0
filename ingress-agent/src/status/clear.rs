//! Takes back what reporting has left in a cluster, for an uninstall: statuses and records of our field manager, and the Leases.
//! Of several nodes that leave, the last one does it.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Result, bail};
use k8s_openapi::api::coordination::v1::Lease;
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams};
use kube::core::{ApiResource, DynamicResourceScope};
use kube::{Client, Error};
use serde::de::DeserializeOwned;
use tokio::time::{Instant, sleep};

use super::decide::{Seen, Write};
use super::lease::{ELECTION, LABEL, NODE, NODE_LASTS};
use super::ledger::Kind;
use super::troubles::resource;
use super::wire::{MANAGER, Thin, ThinPool, apply, name, seen, seen_pool};
use crate::apiserver;
use crate::apiserver::failure::{Failure, Resource};

const PAGE: u32 = 500;
const LOOK: Duration = Duration::from_secs(2);

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClearOptions {
    /// `None`: the service account of the pod that we run in.
    pub kubeconfig: Option<PathBuf>,
    /// The agents' own, where their Leases live.
    pub namespace: String,
    /// Of Services and Ingresses. Empty: all.
    pub watch_namespaces: Vec<String>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cleared {
    /// Objects whose status or record was given up.
    pub objects: usize,
    pub leases: usize,
}

/// `None`: another node is alive and will write again whatever is taken away, so nothing was. Waits for the sign of life of one
/// that may have gone without a word.
pub async fn clear(options: &ClearOptions) -> Result<Option<Cleared>> {
    let (client, _) = apiserver::client(options.kubeconfig.as_deref()).await?;
    let leases: Api<Lease> = Api::namespaced(client.clone(), &options.namespace);
    let Some(left) = dead(&leases, &options.namespace).await? else { return Ok(None) };
    let mut cleared = Cleared::default();
    let everywhere = [String::new()];
    let namespaces = if options.watch_namespaces.is_empty() { &everywhere[..] } else { &options.watch_namespaces };
    for kind in [Kind::Service, Kind::Ingress] {
        for namespace in namespaces {
            cleared.objects += give_up(&client, kind, namespace, seen as fn(&Thin) -> Seen).await?;
        }
    }
    cleared.objects += give_up(&client, Kind::Pool, "", seen_pool as fn(&ThinPool) -> Seen).await?;
    for lease in left.iter().map(String::as_str).chain([ELECTION]) {
        match leases.delete(lease, &DeleteParams::default()).await {
            Ok(_) => cleared.leases += 1,
            Err(Error::Api(status)) if status.code == 404 => {}
            Err(e) => bail!(failed("delete", &lease_resource(&options.namespace), &e)),
        }
    }
    Ok(Some(cleared))
}

/// Leases of nodes that said nothing for as long as a Lease lasts; `None`: one did.
async fn dead(api: &Api<Lease>, namespace: &str) -> Result<Option<Vec<String>>> {
    let began = Instant::now();
    let mut first: Option<BTreeMap<String, Option<String>>> = None;
    loop {
        let params = ListParams::default().labels(&format!("{LABEL}={NODE}"));
        let list =
            api.list(&params).await.map_err(|e| anyhow::anyhow!(failed("list", &lease_resource(namespace), &e)))?;
        let version = |lease: Lease| (lease.metadata.name.unwrap_or_default(), lease.metadata.resource_version);
        let now: BTreeMap<String, Option<String>> = list.items.into_iter().map(version).collect();
        let first = first.get_or_insert_with(|| now.clone());
        if now.iter().any(|(lease, version)| first.get(lease) != Some(version)) {
            return Ok(None);
        }
        if now.is_empty() || began.elapsed() > NODE_LASTS {
            return Ok(Some(now.into_keys().collect()));
        }
        sleep(LOOK).await;
    }
}

/// Gives up what is ours in every object of a kind, and counts them.
async fn give_up<K>(client: &Client, kind: Kind, namespace: &str, seen: fn(&K) -> Seen) -> Result<usize>
where
    K: kube::Resource<DynamicType = ApiResource, Scope = DynamicResourceScope> + Clone + Debug + DeserializeOwned,
{
    let of = kind.resource();
    let api: Api<K> = match namespace {
        "" => Api::all_with(client.clone(), &of),
        namespace => Api::namespaced_with(client.clone(), namespace, &of),
    };
    let mut params = ListParams::default().limit(PAGE);
    let mut given_up = 0;
    loop {
        let page = match api.list(&params).await {
            Ok(page) => page,
            // The API server does not know the kind: a custom one that is gone already.
            Err(Error::Api(status)) if status.code == 404 => return Ok(given_up),
            Err(e) => bail!(failed("list", &resource(&of.group, &of.plural, namespace), &e)),
        };
        for object in &page.items {
            let found = seen(object);
            if !found.known {
                continue;
            }
            let key = (kind, name(object.meta()));
            let one: Api<K> = match key.1.namespace.as_str() {
                "" => Api::all_with(client.clone(), &of),
                namespace => Api::namespaced_with(client.clone(), namespace, &of),
            };
            // Without force: what another one has written meanwhile stays.
            let body = apply(&key, &found.uid, &Write::GiveUp);
            match one.patch_status(&key.1.name, &PatchParams::apply(MANAGER), &Patch::Apply(&body)).await {
                Ok(_) => given_up += 1,
                Err(Error::Api(status)) if [404, 409].contains(&status.code) => {}
                Err(e) => bail!(failed("patch", &resource(&of.group, &format!("{}/status", of.plural), ""), &e)),
            }
        }
        match page.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => params = ListParams::default().limit(PAGE).continue_token(&token),
            None => return Ok(given_up),
        }
    }
}

fn lease_resource(namespace: &str) -> Resource {
    resource("coordination.k8s.io", "leases", namespace)
}

fn failed(verb: &str, resource: &Resource, e: &Error) -> String {
    let failure = Failure::of(verb, resource, e);
    failure.words(verb, resource).unwrap_or_else(|| format!("cannot {verb} {}: {e}", resource.words()))
}
