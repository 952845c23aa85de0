//! Which certificate for which name. The older Ingress decides; a certificate that does not cover the name is not served
//! for it, since no client would take it.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::compile::Compiled;
use crate::model::facts::{CertificateFacts, Facts, HostFacts, IngressFacts, Origin, TlsFacts};
use crate::model::rejection::Rejection;
use crate::model::snapshot::{Certificate, ObjectName};

/// Names of one group of listeners, and the certificates behind them.
#[derive(Debug, Default)]
pub(super) struct Names {
    pub(super) by_name: BTreeMap<String, ObjectName>,
    pub(super) certificates: BTreeMap<ObjectName, Arc<Certificate>>,
}

/// `ingresses` come in the order of their seniority.
pub(super) fn names(ingresses: &[Arc<Compiled>], facts: &Facts, rejections: &mut Vec<Rejection>) -> Names {
    let mut names = Names::default();
    let mut owners: BTreeMap<String, &Origin> = BTreeMap::new();
    for ingress in ingresses.iter().map(|c| &*c.ingress) {
        for entry in &ingress.tls {
            let Some(secret) = &entry.secret else {
                continue;
            };
            let warn =
                |field: &str, reason: String| ingress.origin.warn("Ingress", format!("{}{field}", entry.field), reason);
            let Some(certificate) = facts.certificates.find(secret) else {
                let reason = format!(
                    "there is no usable Secret {secret} of type kubernetes.io/tls; the default certificate is served"
                );
                rejections.push(warn(".secretName", reason));
                continue;
            };
            for (i, host) in hosts(ingress, entry, certificate) {
                if !covers(&certificate.certificate, &host) {
                    let has = certificate.certificate.names.join(", ");
                    let reason = format!(
                        "the certificate in Secret {secret} is for {has}, not for {host}; the default certificate is served"
                    );
                    rejections.push(warn(&format!(".hosts[{i}]"), reason));
                    continue;
                }
                match (names.by_name.get(&host), owners.get(&host)) {
                    (Some(taken), Some(owner)) if taken != secret => {
                        let why = owner.why_before(&ingress.origin);
                        let reason = format!("{host} has Secret {taken} from Ingress {}, {why}", owner.name);
                        rejections.push(warn(&format!(".hosts[{i}]"), reason));
                    }
                    _ => {
                        owners.entry(host.clone()).or_insert(&ingress.origin);
                        names.by_name.insert(host, secret.clone());
                        names.certificates.insert(secret.clone(), Arc::clone(&certificate.certificate));
                    }
                }
            }
        }
    }
    names
}

/// The entry's hosts; without any, those of the rules for which the certificate is good.
fn hosts(ingress: &IngressFacts, entry: &TlsFacts, certificate: &CertificateFacts) -> Vec<(usize, String)> {
    if !entry.hosts.is_empty() {
        return entry.hosts.iter().cloned().enumerate().collect();
    }
    let mut hosts: Vec<String> = Vec::new();
    for rule in &ingress.rules {
        let host = match &rule.host {
            HostFacts::Any => continue,
            HostFacts::Exact(name) => name.clone(),
            HostFacts::Wildcard(suffix) => format!("*.{suffix}"),
        };
        if covers(&certificate.certificate, &host) && !hosts.contains(&host) {
            hosts.push(host);
        }
    }
    hosts.into_iter().enumerate().collect()
}

/// RFC 6125 §6.4.3: a `*` stands for the whole first label and for one label only.
fn covers(certificate: &Certificate, host: &str) -> bool {
    certificate.names.iter().any(|name| {
        let same_suffix =
            |suffix: &str| !host.starts_with("*.") && host.split_once('.').is_some_and(|(_, rest)| rest == suffix);
        name == host || name.strip_prefix("*.").is_some_and(same_suffix)
    })
}
