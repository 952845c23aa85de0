//! ingress-nginx's annotations and settings → the typed policy of routes. Behaviour is that of v1.15.1 as recorded; what deliberately
//! differs stands in `docs/ingress-nginx.md`. Nothing of this layer remains on the request path.

mod read;

mod template;

pub(super) mod settings;

mod redirect;

mod rewrite;

mod access;

mod auth;

mod cors;

mod limits;

mod errors;

mod upstream;

mod headers;

pub(super) mod canary;

mod affinity;

mod mutual;

mod profile;

mod answers;

mod snippet;

mod risk;

use std::sync::Arc;

use rewrite::expression_fault;
pub(super) use rewrite::{expression_contrast, guarded, path_fault};
pub(super) use settings::Settings;
pub use settings::{SettingUse, setting_use};

use crate::model::facts::{CertificateFacts, ConfigMapFacts, Facts, IngressFacts, SecretFacts, ServiceFacts};
use crate::model::policy::{ClientCertificates, HttpsWhen, Policy};
use crate::model::rejection::Rejection;
use crate::model::route::{Balance, Filter, Retry, Timeouts};
use crate::model::snapshot::{ObjectName, PoolScope, PrivateKey};
use read::{Reader, Spoilt};

/// What to do about a variable of nginx that is not known here.
const OTHER_VARIABLE: &str = "use a variable that is known: docs/ingress-nginx.md has the list";

/// What the annotations of one Ingress come to.
#[derive(Debug)]
pub(super) struct Asked {
    /// Nothing of it is served.
    pub(super) dropped: bool,
    /// Its requests are answered with 503.
    pub(super) denied: bool,
    /// More names of its hosts; those that begin with `~` are regular expressions.
    pub(super) aliases: Vec<String>,
    /// The name with `www.`, or without, is sent to the one that the Ingress has.
    pub(super) other_name: bool,
    pub(super) canary: Option<canary::Wanted>,
    pub(super) timeouts: Timeouts,
    pub(super) retry: Retry,
    pub(super) balance: Option<Balance>,
    pub(super) max_body: Option<u64>,
    pub(super) filters: Vec<Filter>,
    pub(super) client: Option<Arc<ClientCertificates>>,
    /// Of TLS 1.2, for its hosts; empty: whatever the others have.
    pub(super) suites: Arc<[&'static str]>,
    /// Redirects to the same host say only the path.
    pub(super) relative: bool,
    /// And those to the whole address name an unusual port.
    pub(super) port_in_redirects: bool,
    /// Its Services are asked by their own addresses.
    by_cluster_ip: bool,
    /// Endpoints of this node's zone come first.
    by_zone: bool,
    /// TLS of its hosts is not ended here.
    pub(super) passed: bool,
    /// More paths of its hosts, from snippets.
    pub(super) locations: Vec<snippet::Location>,
    rewrite: rewrite::Wanted,
    pub(super) policy: Arc<Policy>,
    no_tls_redirect: Vec<String>,
    no_auth: Vec<String>,
}

impl Asked {
    /// Which of a Service's backends its requests go to. One without an address of its own is asked at its endpoints.
    pub(super) fn scope_of(&self, service: &ServiceFacts) -> PoolScope {
        match (self.by_cluster_ip && service.cluster_ip.is_some(), self.by_zone) {
            (true, _) => PoolScope::ClusterIp,
            (false, true) => PoolScope::Zone,
            (false, false) => PoolScope::All,
        }
    }

    pub(super) fn read(ingress: &IngressFacts, settings: &Settings, found: &mut Found<'_>) -> (Self, Vec<Rejection>) {
        let mut reader = Reader::new(ingress);
        for (key, value) in &ingress.annotations {
            // Snippets have lines of their own, and are not run.
            if !read::plain(value) && !key.ends_with("-snippet") {
                reader.spoil(key, Spoilt::Ingress, "contains a control character");
            }
        }
        let reader = &mut reader;
        risk::judge(reader, settings);
        let mut policy = Policy::default();
        redirect::fill(reader, settings, &mut policy);
        policy.access = access::read(reader, settings);
        policy.basic = auth::basic(reader, settings, found).map(Arc::new);
        policy.external = auth::external(reader, settings, found).map(Arc::new);
        policy.satisfy_any = match reader.text("satisfy") {
            None | Some("all") => false,
            Some("any") => true,
            Some(_) => {
                reader.ignore("satisfy", "is neither `all` nor `any`");
                false
            }
        };
        policy.cors = cors::read(reader).map(Arc::new);
        policy.limits = limits::read(reader, settings).map(Arc::new);
        policy.errors = errors::read(reader, settings, found).map(Arc::new);
        policy.affinity = affinity::cookie(reader).map(Arc::new);
        policy.hash_by = affinity::hash_by(reader).map(Arc::new);
        policy.upstream = upstream::protocol(reader, found).map(Arc::new);
        let (retry, retry_on) = upstream::retry(reader, settings);
        policy.retry_on = retry_on;
        policy.retry_budget = ingress.retry_budget.unwrap_or_default();
        policy.care.clone_from(&ingress.care);
        policy.answers = answers::edits(reader, settings).map(Arc::new);
        policy.send_rate = answers::send_rate(reader, settings);
        policy.mirror = answers::mirror(reader).map(Arc::new);
        policy.unlogged = !reader.flag("enable-access-log", true);
        upstream::buffers(reader);
        upstream::version(reader);
        auth::keepalive(reader);
        let snippets = snippet::read(reader, settings);
        policy.snippet = snippets.own.map(Arc::new);
        let mut filters = Vec::new();
        filters.extend(upstream::host(reader));
        filters.extend(headers::response(reader, settings, found));
        let asked = Self {
            dropped: false,
            denied: false,
            aliases: aliases(reader),
            other_name: reader.flag("from-to-www-redirect", false),
            canary: canary::read(reader),
            timeouts: upstream::timeouts(reader, settings),
            retry,
            balance: upstream::balance(reader, settings),
            relative: answers::shared_flag(reader, settings, "relative-redirects"),
            port_in_redirects: answers::shared_flag(reader, settings, "use-port-in-redirects"),
            by_cluster_ip: answers::shared_flag(reader, settings, "service-upstream"),
            by_zone: settings.by_zone,
            passed: redirect::passed(reader, settings),
            locations: snippets.locations,
            max_body: upstream::body(reader, settings),
            filters,
            client: mutual::read(reader, settings, found).map(Arc::new),
            suites: profile::of_host(reader),
            rewrite: rewrite::read(reader),
            policy: Arc::new(policy),
            no_tls_redirect: settings.no_tls_redirect.clone(),
            no_auth: settings.no_auth.clone(),
        };
        let (dropped, denied) = (reader.spoilt == Some(Spoilt::Ingress), reader.spoilt == Some(Spoilt::Denied));
        (Self { dropped, denied, ..asked }, std::mem::take(&mut reader.rejections))
    }

    pub(super) fn makes_regex(&self, path: &str) -> bool {
        self.rewrite.makes_regex(path)
    }

    /// The policy of one path. Exemptions look at the path of the Ingress, not at that of a request (golden cases 038, 057, 256).
    pub(super) fn of_path(&self, path: &str, service: Option<(&str, &str)>) -> Policy {
        let mut policy = Policy::clone(&self.policy);
        let exempt = |list: &[String]| list.iter().any(|p| path.starts_with(p.as_str()));
        if exempt(&self.no_tls_redirect) {
            policy.https.when = HttpsWhen::Never;
        }
        if exempt(&self.no_auth) {
            policy.basic = None;
            policy.external = None;
        }
        policy.rewrite = self.rewrite.of(path);
        if path != "/" {
            policy.app_root = None;
        }
        if let Some(affinity) = &mut policy.affinity
            && affinity.path.is_none()
        {
            Arc::make_mut(affinity).path = Some(path.to_owned());
        }
        if let (Some(errors), Some((name, port))) = (&mut policy.errors, service) {
            let errors = Arc::make_mut(errors);
            name.clone_into(&mut errors.service);
            port.clone_into(&mut errors.service_port);
        }
        policy
    }

    /// Of the host's paths that nobody has (observed: golden case 042).
    pub(super) fn of_rest(&self) -> Policy {
        Policy { rewrite: None, ..self.of_path("/", None) }
    }
}

pub(super) use answers::to_slash;
pub(super) use errors::everywhere as errors_everywhere;
pub(super) use redirect::to_other_name;

fn aliases(reader: &mut Reader<'_>) -> Vec<String> {
    let Some(text) = reader.text("server-alias") else { return Vec::new() };
    let mut aliases: Vec<String> = Vec::new();
    for alias in text.split(',').map(str::trim).filter(|a| !a.is_empty()) {
        if let Some(pattern) = alias.strip_prefix('~') {
            let pattern = pattern.trim_start_matches('*').trim();
            match expression_fault(pattern) {
                None => aliases.push(format!("~{pattern}")),
                Some(fault) => {
                    reader.warn("server-alias", format!("`{alias}` is left out: {fault}"));
                    reader.contrast(expression_contrast(&fault));
                }
            }
        } else if alias.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._*".contains(&b)) {
            aliases.push(alias.to_ascii_lowercase());
        } else {
            reader.spoil("server-alias", Spoilt::Ingress, format!("has `{alias}`, which is not a host"));
        }
    }
    aliases
}

/// Other objects that annotations name, and what was found: the Ingress is compiled again when they change.
pub(super) struct Found<'a> {
    pub(super) facts: &'a Facts,
    pub(super) seen: Seen,
    /// A Service of the Ingress's namespace that answers where its own cannot.
    pub(super) services: Vec<ObjectName>,
}

/// Certificates in DER.
type Chain = Vec<Vec<u8>>;

#[derive(Debug, Default)]
pub(super) struct Seen {
    secrets: Vec<(ObjectName, Option<Arc<SecretFacts>>)>,
    certificates: Vec<(ObjectName, Option<Arc<CertificateFacts>>)>,
    config_maps: Vec<(ObjectName, Option<Arc<ConfigMapFacts>>)>,
}

impl<'a> Found<'a> {
    pub(super) fn new(facts: &'a Facts) -> Self {
        Self { facts, seen: Seen::default(), services: Vec::new() }
    }

    fn secret(&mut self, name: &ObjectName) -> Option<Arc<SecretFacts>> {
        let found = self.facts.secrets.find(name).cloned();
        self.seen.secrets.push((name.clone(), found.clone()));
        found
    }

    fn config_map(&mut self, name: &ObjectName) -> Option<Arc<ConfigMapFacts>> {
        let found = self.facts.config_maps.find(name).cloned();
        self.seen.config_maps.push((name.clone(), found.clone()));
        found
    }

    /// `ca.crt` of a Secret, each certificate in DER, and its own certificate with key.
    fn pair(&mut self, name: &ObjectName) -> (Option<Chain>, Option<(Chain, Vec<u8>)>) {
        let plain = self.secret(name);
        let certificate = self.facts.certificates.find(name).cloned();
        self.seen.certificates.push((name.clone(), certificate.clone()));
        let authority = match (&plain, &certificate) {
            (Some(plain), _) => plain.data.get("ca.crt").cloned(),
            (None, Some(certificate)) => certificate.authority.clone(),
            (None, None) => None,
        };
        let pem = |pem: &[u8]| -> Vec<Vec<u8>> {
            use rustls_pki_types::pem::PemObject as _;
            let read = rustls_pki_types::CertificateDer::pem_slice_iter(pem);
            read.filter_map(|c| Some(c.ok()?.to_vec())).collect()
        };
        let client = certificate.map(|c| {
            let key = match &c.certificate.key {
                PrivateKey::Pkcs8(der) | PrivateKey::Pkcs1(der) | PrivateKey::Sec1(der) => der.clone(),
            };
            (c.certificate.chain.clone(), key)
        });
        let client = client.or_else(|| {
            use rustls_pki_types::pem::PemObject as _;
            let plain = plain.as_ref()?;
            let key = rustls_pki_types::PrivateKeyDer::from_pem_slice(plain.data.get("tls.key")?).ok()?;
            Some((pem(plain.data.get("tls.crt")?), key.secret_der().to_vec()))
        });
        (authority.map(|a| pem(&a)).filter(|a| !a.is_empty()), client)
    }
}

impl Found<'_> {
    /// `ca.crl` of a Secret in DER. `None`: there is one, and it cannot be read.
    fn revoked(&mut self, name: &ObjectName) -> Option<Vec<Vec<u8>>> {
        use rustls_pki_types::pem::PemObject as _;
        let plain = self.secret(name).and_then(|s| s.data.get("ca.crl").cloned());
        // `pair` has noted the certificate as seen.
        let text = plain.or_else(|| self.facts.certificates.find(name)?.revoked.clone());
        let Some(text) = text else { return Some(Vec::new()) };
        let lists = rustls_pki_types::CertificateRevocationListDer::pem_slice_iter(&text);
        let lists: Result<Vec<_>, _> = lists.map(|list| list.map(|der| der.as_ref().to_vec())).collect();
        lists.ok().filter(|lists| !lists.is_empty())
    }
}

impl Seen {
    /// Whether everything is as it was found.
    pub(super) fn holds(&self, facts: &Facts) -> bool {
        fn same<T>(now: Option<&Arc<T>>, then: Option<&Arc<T>>) -> bool {
            now.map(Arc::as_ptr) == then.map(Arc::as_ptr)
        }
        self.secrets.iter().all(|(name, then)| same(facts.secrets.find(name), then.as_ref()))
            && self.certificates.iter().all(|(name, then)| same(facts.certificates.find(name), then.as_ref()))
            && self.config_maps.iter().all(|(name, then)| same(facts.config_maps.find(name), then.as_ref()))
    }
}
