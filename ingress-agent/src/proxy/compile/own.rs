//! How TLS begins with a client, by the name that it asks for: most hosts as their listener does, some in a way of their own. Only clients of
//! hosts that want certificates are asked for one: a browser would ask its user.

use std::collections::HashMap;
use std::sync::Arc;

use rustls::ServerConfig;

use crate::model::policy::{ListenerSettings, TlsProfile, TlsSettings};
use crate::model::route::{HostTable, Tls, VirtualHost};
use crate::proxy::tls::{Names, TlsBasis};

/// A host's own way.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Way {
    /// Clients are asked for certificates.
    mutual: bool,
    /// Empty: those of the listener.
    suites: Arc<[&'static str]>,
}

/// Hosts with a way of their own, with `*.`; sorted.
pub(super) struct Own(Vec<(String, Way)>);

pub(super) fn own(hosts: &HostTable) -> Own {
    let way = |host: &VirtualHost| {
        let way = Way { mutual: host.client.is_some(), suites: Arc::clone(&host.suites) };
        (way.mutual || !way.suites.is_empty()).then_some(way)
    };
    let exact = hosts.exact.iter().filter_map(|(name, host)| Some((name.clone(), way(host)?)));
    let wildcard = hosts.wildcard.iter().filter_map(|(name, w)| Some((format!("*.{name}"), way(&w.host)?)));
    let mut own: Vec<_> = exact.chain(wildcard).collect();
    own.sort_by(|a, b| a.0.cmp(&b.0));
    Own(own)
}

impl Own {
    fn find(&self, name: &str) -> Option<&Way> {
        let of = |name: &str| self.0.binary_search_by(|(known, _)| known.as_str().cmp(name)).ok();
        let at = of(name).or_else(|| name.split_once('.').and_then(|(_, suffix)| of(&format!("*.{suffix}"))))?;
        Some(&self.0[at].1)
    }
}

/// TLS of a listener.
pub(in crate::proxy) struct CompiledTls {
    config: Arc<ServerConfig>,
    own: Own,
    /// Of each way that some host has.
    configs: HashMap<Way, Arc<ServerConfig>>,
    http2: bool,
    settings: TlsSettings,
    source: Arc<Tls>,
}

impl CompiledTls {
    pub(super) fn new(
        basis: &TlsBasis,
        tls: &Tls,
        names: &Arc<Names>,
        own: Own,
        settings: &ListenerSettings,
    ) -> anyhow::Result<Self> {
        let profile = &settings.tls.profile;
        let config = basis.config(names, false, settings.http2, profile)?;
        let mut configs = HashMap::new();
        for (_, way) in &own.0 {
            if !configs.contains_key(way) {
                let suites = if way.suites.is_empty() { &profile.suites } else { &way.suites };
                let profile = TlsProfile { suites: Arc::clone(suites), ..profile.clone() };
                configs.insert(way.clone(), basis.config(names, way.mutual, settings.http2, &profile)?);
            }
        }
        let (http2, settings) = (settings.http2, settings.tls.clone());
        Ok(Self { config, own, configs, http2, settings, source: Arc::new(tls.clone()) })
    }

    /// Whether it was made of these, but for the certificates themselves.
    pub(super) fn is_of(&self, tls: &Tls, own: &Own, settings: &ListenerSettings) -> bool {
        self.own.0 == own.0
            && self.http2 == settings.http2
            && self.settings == settings.tls
            && Arc::ptr_eq(&self.source.by_name, &tls.by_name)
            && self.source.default == tls.default
    }

    /// That of every host, if all have one.
    pub(in crate::proxy) fn of_all(&self) -> Option<&Arc<ServerConfig>> {
        self.own.0.is_empty().then_some(&self.config)
    }

    /// `name`: what the client asks for.
    pub(in crate::proxy) fn config(&self, name: Option<&str>) -> &Arc<ServerConfig> {
        name.and_then(|name| self.configs.get(self.own.find(name)?)).unwrap_or(&self.config)
    }

    /// Whether a client that asked for `server_name` got a certificate that was meant for another host than `host`.
    pub(in crate::proxy) fn misdirected(&self, server_name: &str, host: &str) -> bool {
        let of = |name: &str| {
            let exact = self.source.by_name.get(name);
            exact.or_else(|| {
                name.split_once('.').and_then(|(_, suffix)| self.source.by_name.get(&format!("*.{suffix}")))
            })
        };
        server_name != host && of(host).is_some_and(|own| of(server_name) != Some(own))
    }
}
