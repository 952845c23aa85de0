//! What was found: the facts that the agent would have, whose controller it is, and what could not be read.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::Said;
use super::controller::Controller;
use crate::model::class_rule::ClassRule;
use crate::model::facts::{ClassChoice, Facts, IngressClassFacts, NGINX_PREFIX, Origin};
use crate::model::snapshot::ObjectName;
use crate::plan::PlanOptions;
use crate::sources::SourceOptions;

/// Where the charts and manifests of ingress-nginx put its ConfigMap.
const USUAL: (&str, &str) = ("ingress-nginx", "ingress-nginx-controller");
/// What its flags are without being said.
const CONTROLLER_CLASS: &str = "k8s.io/ingress-nginx";
const INGRESS_CLASS: &str = "nginx";

/// The flag that chooses namespaces by their labels.
pub(super) const SELECTOR: &str = "watch-namespace-selector";

#[derive(Debug)]
pub(super) struct Inventory {
    /// `the directory shop`, `the API server https://…`.
    pub(super) name: String,
    pub(super) facts: Facts,
    pub(super) options: PlanOptions,
    /// Whose flags were taken.
    pub(super) controller: Option<Controller>,
    /// Those that `--watch-namespace-selector` of the controller chooses; `None`: it has none, or their labels are not known.
    pub(super) chosen: Option<BTreeSet<String>>,
    /// Others that were there, and other things to know.
    pub(super) notes: Vec<String>,
    /// What could not be read, so that the verdict is not about all.
    pub(super) errors: Vec<String>,
}

/// The one whose flags count, and what to say of the others.
pub(super) fn choose(found: Vec<Controller>, said: &Said, notes: &mut Vec<String>) -> Option<Controller> {
    let mut found = found;
    found.sort_by(|a, b| a.name.cmp(&b.name));
    let wanted = |c: &Controller| match (&said.controller, &said.controller_class) {
        (Some(name), _) => c.name == *name,
        (None, Some(class)) => c.value("controller-class").unwrap_or(CONTROLLER_CLASS) == class,
        (None, None) => true,
    };
    let at = found.iter().position(wanted);
    let chosen = at.map(|at| found.remove(at));
    if let (Some(name), None) = (&said.controller, &chosen) {
        notes.push(format!("there is no ingress-nginx controller {name}: flags have their defaults"));
    }
    if let Some(chosen) = &chosen {
        for other in &found {
            notes.push(format!(
                "{} {} is another controller; the flags are those of {} (`--controller` chooses)",
                other.kind, other.name, chosen.name
            ));
        }
    } else if said.controller.is_none() {
        notes.push("no Deployment or DaemonSet of ingress-nginx was found: flags have their defaults".to_owned());
    }
    chosen
}

/// What the agent would be told to do the controller's work.
pub(super) fn options(controller: Option<&Controller>, said: &Said) -> PlanOptions {
    let value = |flag: &str| controller.and_then(|c| c.value(flag)).filter(|v| !v.is_empty());
    let name = |flag: &str| value(flag).and_then(object);
    let is = |flag: &str| controller.is_some_and(|c| c.is_on(flag));
    let usual = || ObjectName::new(USUAL.0, USUAL.1);
    let port = |flag: &str, default: u16| value(flag).and_then(|v| v.parse().ok()).unwrap_or(default);
    PlanOptions {
        classes: ClassRule {
            controller: said
                .controller_class
                .clone()
                .unwrap_or_else(|| value("controller-class").unwrap_or(CONTROLLER_CLASS).to_owned()),
            annotation: Some(
                said.ingress_class
                    .clone()
                    .unwrap_or_else(|| value("ingress-class").unwrap_or(INGRESS_CLASS).to_owned()),
            ),
            by_name: is("ingress-class-by-name"),
            without_class: is("watch-ingress-without-class"),
        },
        // Of RFC 5737: nobody listens on it. Without an address nothing is planned.
        ingress_vips: vec![std::net::IpAddr::from([192, 0, 2, 1])],
        watch_services_without_class: false,
        external_names: !is("disable-svc-external-name"),
        catch_all: !is("disable-catch-all"),
        ssl_passthrough: is("enable-ssl-passthrough"),
        http_port: port("http-port", 80),
        https_port: port("https-port", 443),
        config_map: Some(said.config_map.clone().or_else(|| name("configmap")).unwrap_or_else(usual)),
        default_backend: name("default-backend-service"),
        default_certificate: name("default-ssl-certificate"),
        ..PlanOptions::default()
    }
}

pub(super) fn sources(controller: Option<&Controller>, options: &PlanOptions) -> SourceOptions {
    let value = |flag: &str| controller.and_then(|c| c.value(flag)).filter(|v| !v.is_empty());
    let name = |flag: &str| value(flag).and_then(object);
    SourceOptions {
        tcp_services: name("tcp-services-configmap"),
        udp_services: name("udp-services-configmap"),
        config_map: options.config_map.clone(),
        zones: false,
        annotations_prefix: value("annotations-prefix").filter(|prefix| *prefix != NGINX_PREFIX).map(Into::into),
    }
}

/// `namespace/name`.
pub(super) fn object(text: &str) -> Option<ObjectName> {
    let (namespace, name) = text.split_once('/')?;
    (!namespace.is_empty() && !name.is_empty()).then(|| ObjectName::new(namespace, name))
}

impl Inventory {
    /// By `--watch-namespace` of the controller, which names one, or `--watch-namespace-selector`.
    pub(super) fn watches(&self, namespace: &str) -> bool {
        if let Some(chosen) = &self.chosen {
            return chosen.contains(namespace);
        }
        let only = self.controller.as_ref().and_then(|c| c.value("watch-namespace")).filter(|only| !only.is_empty());
        only.is_none_or(|only| only == namespace)
    }

    /// A ConfigMap that nobody named and that is not there is no matter.
    pub(super) fn without_missing_settings(mut self, said: &Said) -> Self {
        let named =
            said.config_map.is_some() || self.controller.as_ref().is_some_and(|c| c.value("configmap").is_some());
        let there = self.options.config_map.as_ref().is_some_and(|name| self.facts.config_maps.find(name).is_some());
        if !named && !there {
            self.options.config_map = None;
        }
        self
    }

    /// Manifests of an application come without the IngressClass that their cluster has.
    pub(super) fn with_usual_class(mut self) -> Self {
        let Some(usual) = self.options.classes.annotation.clone() else { return self };
        let name = ObjectName::new("", usual.as_str());
        let wanted = self.facts.ingresses.iter().any(|i| i.class == ClassChoice::Named(usual.clone()));
        if wanted && self.facts.classes.find(&name).is_none() {
            self.facts.classes.insert(Arc::new(IngressClassFacts {
                origin: Origin { name, ..Origin::default() },
                controller: self.options.classes.controller.clone(),
                default: false,
                vips: Vec::new(),
                pool: None,
            }));
            self.notes.push(format!(
                "no IngressClass {usual} is among the manifests; it is taken for one of `{}`",
                self.options.classes.controller
            ));
        }
        self
    }
}
