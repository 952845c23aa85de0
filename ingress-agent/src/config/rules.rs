//! The meaning of what the agents and the webhook are told alike: which cluster, which objects are ours, where they are served.

use std::path::PathBuf;

use super::value::{self, Reader};
use crate::args::{ClusterArgs, RulesArgs};
use crate::model::class_rule::ClassRule;
use crate::model::facts::NGINX_PREFIX;
use crate::plan::PlanOptions;
use crate::sources::SourceOptions;
use crate::sources::kube::Namespaces;
use crate::status::ClearOptions;

/// Its name among `spec.controller`s, and what it takes the deprecated annotation to say unless it is told otherwise
/// (ingress-nginx, `--ingress-class`).
const INGRESS_NGINX: (&str, &str) = ("k8s.io/ingress-nginx", "nginx");

pub(super) fn sources(r: &mut Reader, rules: &RulesArgs) -> SourceOptions {
    SourceOptions {
        tcp_services: r.object("--tcp-services-configmap", rules.tcp_services_configmap.as_ref()),
        udp_services: r.object("--udp-services-configmap", rules.udp_services_configmap.as_ref()),
        config_map: r.object("--configmap", rules.configmap.as_ref()),
        zones: false,
        annotations_prefix: r
            .read("--annotations-prefix", &rules.annotations_prefix, value::annotations_prefix)
            .filter(|prefix| prefix != NGINX_PREFIX)
            .map(Into::into),
    }
}

/// What has to do with one node or with traffic is left as it is.
pub(super) fn plan(r: &mut Reader, rules: &RulesArgs, services_without_class: bool) -> PlanOptions {
    let http_port = r.read("--http-port", &rules.http_port, value::port).unwrap_or(80);
    let https_port = r.read("--https-port", &rules.https_port, value::port).unwrap_or(443);
    if http_port == https_port {
        r.mistake("--https-port", format!("{https_port}: is the same as --http-port"));
    }
    PlanOptions {
        classes: classes(r, rules),
        ingress_vips: r.list("--ingress-vip", &rules.ingress_vips, value::vip),
        ingress_pool: r.cluster_object("--ingress-pool", rules.ingress_pool.as_ref()),
        watch_services_without_class: rules.watch_services_without_class.unwrap_or(services_without_class),
        external_ips: rules.external_ips,
        external_names: !rules.disable_svc_external_name,
        catch_all: !rules.disable_catch_all,
        ssl_passthrough: rules.enable_ssl_passthrough,
        limit_drop: rules.enable_limit_drop,
        http_port,
        https_port,
        config_map: r.object("--configmap", rules.configmap.as_ref()),
        ..PlanOptions::default()
    }
}

fn classes(r: &mut Reader, rules: &RulesArgs) -> ClassRule {
    if rules.controller_class.trim().is_empty() {
        r.mistake("--controller-class", "is empty");
    }
    let named = rules.ingress_class.clone().filter(|name| !name.is_empty());
    let (controller, name) = INGRESS_NGINX;
    let annotation = named.or_else(|| (rules.controller_class == controller).then(|| name.to_owned()));
    if rules.ingress_class_by_name && annotation.is_none() {
        r.mistake("--ingress-class-by-name", "needs --ingress-class: the name of the class that is ours");
    }
    ClassRule {
        controller: rules.controller_class.clone(),
        annotation,
        by_name: rules.ingress_class_by_name,
        without_class: rules.watch_ingress_without_class,
    }
}

/// What to take back from the cluster, if there is one: in a pod, or with a kubeconfig.
pub(super) fn clear(r: &mut Reader, cluster: &ClusterArgs) -> Option<ClearOptions> {
    let said = |text: &Option<String>| text.as_ref().is_some_and(|t| !t.is_empty());
    if !said(&cluster.kubeconfig) && !said(&cluster.kubernetes_service_host) {
        return None;
    }
    Some(ClearOptions {
        kubeconfig: kubeconfig(r, cluster, ""),
        namespace: r.read("--namespace", &cluster.namespace, value::namespace).unwrap_or_default(),
        watch_namespaces: namespaces(r, cluster).named().to_vec(),
    })
}

/// Whether the labels are a selector, the API server says: nobody else reads it.
pub(super) fn namespaces(r: &mut Reader, cluster: &ClusterArgs) -> Namespaces {
    let named = r.list("--watch-namespace", &cluster.watch_namespaces, value::namespace);
    let labels = cluster.watch_namespace_selector.as_deref().map(str::trim).filter(|labels| !labels.is_empty());
    match labels {
        Some(_) if !named.is_empty() => {
            r.mistake("--watch-namespace-selector", "excludes --watch-namespace: namespaces are chosen by one of them");
            Namespaces::All
        }
        Some(labels) => Namespaces::Labelled(labels.to_owned()),
        None if named.is_empty() => Namespaces::All,
        None => Namespaces::Named(named),
    }
}

/// The kubeconfig, if one is named. Without one this must be a pod.
pub(super) fn kubeconfig(r: &mut Reader, cluster: &ClusterArgs, instead: &str) -> Option<PathBuf> {
    let said = |text: &Option<String>| text.clone().filter(|t| !t.is_empty());
    let Some(text) = said(&cluster.kubeconfig) else {
        if said(&cluster.kubernetes_service_host).is_none() {
            r.mistake(
                "--kubeconfig",
                format!(
                    "is missing: the kubeconfig of the cluster to watch{instead}. (In a pod it is not needed; this is none: \
                     KUBERNETES_SERVICE_HOST is not set.)"
                ),
            );
        }
        return None;
    };
    if let Err(e) = std::fs::metadata(&text) {
        r.mistake("--kubeconfig", format!("{text}: {e}"));
    }
    Some(PathBuf::from(text))
}
