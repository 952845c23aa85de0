//! A network namespace with the recordings' addresses, their backends, and for each case a proxy that serves its manifests: facts by
//! the agent's parser, the snapshot by its plan.

use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result};
use ingress_agent::model::class_rule::ClassRule;
use ingress_agent::model::route::Balance;
use ingress_agent::model::snapshot::ObjectName;
use ingress_agent::model::snapshot::{FrontendKind, Protocol, Snapshot};
use ingress_agent::model::stream::{ProxyProtocol, Stream};
use ingress_agent::plan::{Plan, PlanOptions, plan};
use ingress_agent::proxy::{AccessLog, AccessLogFormat, Proxy, ProxyOptions};
use ingress_agent::sources::SourceOptions;
use ingress_agent::sources::store::Store;
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use serde_json::Value;
use tokio::runtime::Runtime;

use super::corpus::Case;
use super::echo::{Backend, Log, Manner};
use super::grpc;
use super::log::AccessLines;
use crate::netns::Namespace;

pub const EDGE: &str = "10.77.0.2";

/// The recordings' network, and what reached its backends.
pub struct World {
    pub log: Log,
    _namespace: Arc<Namespace>,
}

impl World {
    /// Makes it, and moves this thread into it.
    pub fn enter(label: &str, certificates: &Path) -> Result<Self> {
        let namespace = Namespace::new(label)?;
        for range in ["10.77.0.0/24", "10.77.1.0/24", "10.77.2.0/24"] {
            namespace.ip(&["route", "add", "local", range, "dev", "lo"])?;
        }
        // An address that swallows packets: nobody has its link-layer address.
        namespace.ip(&["link", "add", "hole", "type", "veth", "peer", "name", "bottom"])?;
        namespace.ip(&["link", "set", "hole", "up"])?;
        namespace.ip(&["link", "set", "bottom", "up"])?;
        namespace.ip(&["route", "add", "10.77.3.0/24", "dev", "hole", "src", EDGE])?;
        namespace.ip(&["neigh", "add", "10.77.3.99", "lladdr", "02:00:00:00:00:01", "dev", "hole"])?;
        namespace.enter_thread()?;
        let log = Log::default();
        backends(&log, certificates).context("start the backends")?;
        Ok(Self { log, _namespace: namespace })
    }
}

fn backends(log: &Log, certificates: &Path) -> Result<()> {
    let plain = |name, manner| Backend { name, manner, tls: None, log: log.clone() };
    for (name, address, manner) in [
        ("a", "10.77.1.1:8080", Manner::Echo),
        ("b", "10.77.1.2:8080", Manner::Echo),
        ("c", "10.77.1.3:8080", Manner::Echo),
        ("d", "10.77.1.4:8080", Manner::Echo),
        ("e", "10.77.1.5:8080", Manner::Echo),
        ("fast", "10.77.1.6:8080", Manner::Fast),
        ("fast2", "10.77.1.6:8081", Manner::Fast),
        ("default", "10.77.1.9:8080", Manner::Default),
        ("auth", "10.77.1.20:8080", Manner::Auth),
        ("mirror", "10.77.1.21:8080", Manner::Echo),
    ] {
        plain(name, manner).listen(address.parse()?)?;
    }
    for (name, address, mutual) in [("tls", "10.77.1.30:8443", false), ("tls-mtls", "10.77.1.31:8443", true)] {
        let tls = Some(tls(certificates, mutual, b"http/1.1")?);
        Backend { tls, ..plain(name, Manner::Echo) }.listen(address.parse()?)?;
    }
    grpc::listen("grpc", "10.77.1.40:9000".parse()?, None, log.clone())?;
    grpc::listen("grpcs", "10.77.1.41:9443".parse()?, Some(tls(certificates, false, b"h2")?), log.clone())?;
    Ok(())
}

fn tls(certificates: &Path, mutual: bool, alpn: &[u8]) -> Result<Arc<ServerConfig>> {
    let chain = CertificateDer::pem_file_iter(certificates.join("backend.crt"))?.collect::<Result<Vec<_>, _>>()?;
    let key = PrivateKeyDer::from_pem_file(certificates.join("backend.key"))?;
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(certificates.join("ca.crt"))?)?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider));
    let verifier = if mutual { verifier } else { verifier.allow_unauthenticated() }.build()?;
    let builder = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    let mut config = builder.with_client_cert_verifier(verifier).with_single_cert(chain, key)?;
    config.alpn_protocols = vec![alpn.to_vec()];
    Ok(Arc::new(config))
}

/// The agent's path from manifests to sockets, for one case.
pub struct Site {
    store: Store,
    objects: Vec<Value>,
    options: PlanOptions,
    plan: Option<Plan>,
    proxy: Proxy,
    runtime: Runtime,
    pub log: AccessLines,
}

impl Site {
    pub fn new(fixtures: &[Value], case: &Case) -> Result<Self> {
        let configured = |name| Some(ObjectName::new("ingress-nginx", name));
        let sources = SourceOptions {
            tcp_services: configured("tcp-services"),
            udp_services: configured("udp-services"),
            config_map: configured("ingress-nginx-controller"),
            ..SourceOptions::default()
        };
        let mut options = PlanOptions {
            node: "node1".to_owned(),
            classes: ClassRule {
                controller: "k8s.io/ingress-nginx".to_owned(),
                annotation: Some("nginx".to_owned()),
                ..ClassRule::default()
            },
            ingress_vips: vec![EDGE.parse()?],
            config_map: configured("ingress-nginx-controller"),
            ..PlanOptions::default()
        };
        for flag in &case.flags {
            let name = |value: &str| value.split_once('/').map(|(namespace, name)| ObjectName::new(namespace, name));
            match flag.split_once('=') {
                Some(("--default-backend-service", value)) => options.default_backend = name(value),
                Some(("--default-ssl-certificate", value)) => options.default_certificate = name(value),
                _ => anyhow::bail!("the flag {flag} is not known to the runner"),
            }
        }
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let log = AccessLines::in_a_file();
        let (access_log, access_log_format) = (AccessLog::File(log.file().to_owned()), AccessLogFormat::Combined);
        let proxy =
            Proxy::start(ProxyOptions { workers: 1, access_log, access_log_format, ..ProxyOptions::default() })?;
        let (store, objects) = (Store::new(sources), Vec::new());
        let mut site = Self { store, objects, options, plan: None, proxy, runtime, log };
        for object in fixtures.iter().chain(&case.objects) {
            site.set(object);
        }
        site.serve()?;
        Ok(site)
    }

    /// An action between requests.
    pub fn act(&mut self, action: &Value) -> Result<()> {
        for object in action["apply"].as_array().into_iter().flatten() {
            self.set(object);
        }
        for object in action["delete"].as_array().into_iter().flatten() {
            self.objects.retain(|o| identity(o) != identity(object));
        }
        self.serve()
    }

    /// Objects are a second apart, as they were when they were recorded.
    fn set(&mut self, object: &Value) {
        let mut object = object.clone();
        object["metadata"]["creationTimestamp"] =
            format!("2026-01-01T00:{:02}:{:02}Z", self.objects.len() / 60, self.objects.len() % 60).into();
        match self.objects.iter_mut().find(|o| identity(o) == identity(&object)) {
            Some(old) => *old = object,
            None => self.objects.push(object),
        }
    }

    fn serve(&mut self) -> Result<()> {
        let list = serde_json::json!({"apiVersion": "v1", "kind": "List", "items": self.objects});
        self.store.put("case.json", Ok(&list.to_string()));
        let Some(facts) = self.store.publish(SystemTime::now(), &[]) else { return Ok(()) };
        let planned = plan(&facts, &self.options, self.plan.as_ref());
        let snapshot = Arc::clone(&planned.snapshot);
        if std::env::var_os("GOLDEN_VERBOSE").is_some() {
            for rejection in &snapshot.rejections {
                eprintln!("    {rejection}");
            }
        }
        self.plan = Some(planned);
        let problems = self.runtime.block_on(self.proxy.apply(with_l4(&snapshot)))?;
        anyhow::ensure!(problems.is_empty(), "the proxy cannot listen: {problems:?}");
        Ok(())
    }

    pub fn end(self) {
        self.runtime.block_on(self.proxy.drain(Duration::ZERO));
    }
}

/// XDP does not run here: what it would forward by port (`netns_l4*` show that it does) goes through the proxy, byte by byte.
fn with_l4(snapshot: &Arc<Snapshot>) -> Arc<Snapshot> {
    let mut shown = Snapshot::clone(snapshot);
    for (key, frontend) in &snapshot.frontends {
        let FrontendKind::L4 { pool, .. } = &frontend.kind else { continue };
        let served = snapshot.pools.get(pool).is_some_and(|pool| !pool.backends.is_empty());
        if key.protocol == Protocol::Tcp && key.vip == edge() && served {
            let (balance, proxy_protocol) = (Balance::default(), ProxyProtocol::default());
            let stream = Stream { vip: key.vip, port: key.port, pool: pool.clone(), balance, proxy_protocol };
            shown.streams.push(Arc::new(stream));
        }
    }
    Arc::new(shown)
}

fn identity(object: &Value) -> (&str, &str, &str) {
    let text = |pointer| object.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
    (text("/kind"), text("/metadata/namespace"), text("/metadata/name"))
}

pub fn edge() -> IpAddr {
    EDGE.parse().expect("an address")
}

pub fn edge_port(port: u16) -> SocketAddr {
    SocketAddr::new(edge(), port)
}
