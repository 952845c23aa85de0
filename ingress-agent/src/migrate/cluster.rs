//! A cluster, once: what the agent would watch is listed, and what Ingresses name is fetched. Only `get` and `list` are asked for.

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::{Context, Result};
use kube::Client;
use kube::api::{Api, ApiResource, DynamicObject, ListParams};
use kube::core::GroupVersionKind;
use serde_json::Value;

use super::Said;
use super::controller::Controller;
use super::inventory::{Inventory, SELECTOR, choose, object, options, sources};
use crate::apiserver;
use crate::model::facts::Facts;
use crate::model::snapshot::ObjectName;
use crate::sources::SourceOptions;
use crate::sources::document::{Contents, read as parse};
use crate::sources::fold::{fold, tell};

/// Objects that one answer holds.
const PAGE: u32 = 500;

/// Fails where the Ingresses cannot be read; what else cannot is told.
pub(super) async fn read(kubeconfig: Option<&Path>, said: &Said) -> Result<Inventory> {
    let (client, url) = apiserver::client(kubeconfig).await?;
    let cluster = Cluster { client };
    let (mut notes, mut errors) = (Vec::new(), Vec::new());
    let mut found = Vec::new();
    for kind in ["Deployment", "DaemonSet"] {
        match cluster.list("apps", kind, None).await {
            Ok(objects) => found.extend(objects.iter().filter_map(|object| Controller::read(object, ""))),
            Err(e) => notes.push(format!("{kind}s cannot be listed, so their flags are not known: {e:#}")),
        }
    }
    let controller = choose(found, said, &mut notes);
    let labels = controller.as_ref().and_then(|c| c.value(SELECTOR)).filter(|labels| !labels.is_empty());
    let chosen = match labels {
        Some(labels) => {
            let namespaces = cluster.list("", "Namespace", Some(labels)).await.context("list the namespaces")?;
            let names = namespaces.iter().filter_map(|n| n["metadata"]["name"].as_str());
            Some(names.map(str::to_owned).collect())
        }
        None => None,
    };
    let options = options(controller.as_ref(), said);
    let sources = sources(controller.as_ref(), &options);
    let mut folded = Folded { sources, facts: Facts::default(), rejections: Vec::new() };
    for (group, kind) in [("networking.k8s.io", "Ingress"), ("networking.k8s.io", "IngressClass"), ("", "Service")] {
        let objects =
            cluster.list(group, kind, None).await.with_context(|| format!("list the objects of kind {kind}"))?;
        for object in objects {
            folded.take(object);
        }
    }
    let mut maps: BTreeSet<ObjectName> = BTreeSet::new();
    maps.extend(folded.sources.config_map.clone());
    maps.extend(folded.sources.tcp_services.clone());
    maps.extend(folded.sources.udp_services.clone());
    for name in maps {
        cluster.fetch("ConfigMap", &name, &mut folded, &mut errors).await;
    }
    // What the settings name in turn.
    let settings = folded.sources.config_map.as_ref().and_then(|name| folded.facts.config_maps.find(name)).cloned();
    for key in ["add-headers", "proxy-set-headers"] {
        let named = settings.as_ref().and_then(|s| object(s.data.get(key)?.trim()));
        if let Some(name) = named {
            cluster.fetch("ConfigMap", &name, &mut folded, &mut errors).await;
        }
    }
    let ours = || folded.facts.ingresses.iter().filter(|i| options.classes.is_ours(&i.class, &folded.facts.classes));
    let maps: BTreeSet<ObjectName> = ours().flat_map(|i| i.config_maps.iter()).cloned().collect();
    let named = ours().flat_map(|i| i.secrets.iter().chain(i.tls.iter().filter_map(|t| t.secret.as_ref())));
    let secrets: BTreeSet<ObjectName> = named.chain(&options.default_certificate).cloned().collect();
    for name in maps {
        cluster.fetch("ConfigMap", &name, &mut folded, &mut errors).await;
    }
    for name in secrets {
        cluster.fetch("Secret", &name, &mut folded, &mut errors).await;
    }
    let Folded { mut facts, rejections, .. } = folded;
    tell(&mut facts, rejections);
    facts.revision = 1;
    let name = format!("the API server {url}");
    let inventory = Inventory { name, facts, options, controller, chosen, notes, errors };
    Ok(inventory.without_missing_settings(said))
}

struct Cluster {
    client: Client,
}

impl Cluster {
    /// `labels`: only those that the selector chooses.
    async fn list(&self, group: &str, kind: &str, labels: Option<&str>) -> Result<Vec<Value>> {
        let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, "v1", kind));
        let api: Api<DynamicObject> = Api::all_with(self.client.clone(), &resource);
        let mut objects = Vec::new();
        let mut wanted =
            ListParams { label_selector: labels.map(str::to_owned), limit: Some(PAGE), ..ListParams::default() };
        loop {
            let page = api.list(&wanted).await?;
            for item in page.items {
                objects.push(with_kind(serde_json::to_value(item)?, &resource));
            }
            match page.metadata.continue_.filter(|token| !token.is_empty()) {
                Some(token) => wanted = wanted.continue_token(&token),
                None => return Ok(objects),
            }
        }
    }

    /// What is not there is no error: the plan says what that means.
    async fn fetch(&self, kind: &str, name: &ObjectName, to: &mut Folded, errors: &mut Vec<String>) {
        let resource = ApiResource::from_gvk(&GroupVersionKind::gvk("", "v1", kind));
        let api: Api<DynamicObject> = Api::namespaced_with(self.client.clone(), &name.namespace, &resource);
        let found = match api.get_opt(&name.name).await {
            Ok(found) => found.map(serde_json::to_value).transpose().map_err(anyhow::Error::from),
            Err(e) => Err(e.into()),
        };
        match found {
            Ok(Some(object)) => to.take(with_kind(object, &resource)),
            Ok(None) => {}
            Err(e) => errors.push(format!("{kind} {name} cannot be read, so what names it is not known: {e:#}")),
        }
    }
}

/// Items of a list do not say what they are.
fn with_kind(mut object: Value, resource: &ApiResource) -> Value {
    object["apiVersion"] = resource.api_version.clone().into();
    object["kind"] = resource.kind.clone().into();
    object
}

struct Folded {
    sources: SourceOptions,
    facts: Facts,
    rejections: Vec<crate::model::rejection::Rejection>,
}

impl Folded {
    fn take(&mut self, object: Value) {
        let Contents { objects, faults, .. } = parse(object, "", &self.sources);
        self.rejections.extend(faults);
        for read in objects {
            self.rejections.extend(read.notes);
            match read.object {
                Ok(object) => drop(fold(&mut self.facts, &read.identity.name, None, Some(&object))),
                Err(rejection) => self.rejections.push(rejection),
            }
        }
    }
}
