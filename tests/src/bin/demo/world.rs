//! The demo's world: a LAN of namespaces, backends, the agent, and the manifests that it reads. Only builds and changes it;
//! what is shown in it is `show`'s.

use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use ingress_tests::edge::{Agent, sibling};
use ingress_tests::lan::{Host, Lan};
use ingress_tests::netns::Running;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose};

use crate::traces;

/// VIPs of the Ingresses, and of the L4 services: as in `tests/demo/*.yaml`.
pub(crate) const WEB_V4: &str = "192.0.2.100";
pub(crate) const WEB_V6: &str = "2001:db8:1::100";
pub(crate) const L4_V4: &str = "192.0.2.101";
pub(crate) const L4_V6: &str = "2001:db8:1::101";

pub(crate) const CLIENT_V4: &str = "192.0.2.21";
pub(crate) const CLIENT_V6: &str = "2001:db8:1::22";

const MANIFESTS: [(&str, &str); 7] = [
    ("class.yaml", include_str!("../../../demo/class.yaml")),
    ("shop.yaml", include_str!("../../../demo/shop.yaml")),
    ("web.yaml", include_str!("../../../demo/web.yaml")),
    ("api.yaml", include_str!("../../../demo/api.yaml")),
    ("echo.yaml", include_str!("../../../demo/echo.yaml")),
    ("pod.yaml", include_str!("../../../demo/pod.yaml")),
    ("edited.yaml", include_str!("../../../demo/edited.yaml")),
];

pub(crate) struct World {
    /// Ended before the namespaces go.
    pub(crate) agent: Agent,
    /// The second edge, once it has joined.
    pub(crate) second: Option<(Host, Agent)>,
    /// By the order of their names, `b1` to `b3`; the pod is the last.
    backends: Vec<Running>,
    pub(crate) client4: Host,
    pub(crate) client6: Host,
    pub(crate) edge: Host,
    pub(crate) directory: PathBuf,
    _hosts: Vec<Host>,
    pub(crate) lan: Lan,
}

impl World {
    pub(crate) fn build() -> Result<Self> {
        let own = std::process::id();
        let directory = traces::directory(own);
        fs::create_dir_all(directory.join("manifests")).with_context(|| format!("create {}", directory.display()))?;
        let lan = Lan::new("demo")?;
        let edge = lan.host("edge", &["192.0.2.1/24", "2001:db8:1::1/64"])?;
        edge.forward()?;
        let client4 = lan.host("client4", &[&format!("{CLIENT_V4}/24")])?;
        let client6 = lan.host("client6", &[&format!("{CLIENT_V6}/64")])?;
        let mut backends = Vec::new();
        let mut hosts = Vec::new();
        for number in 1..=3 {
            let addresses = [format!("192.0.2.1{number}/24"), format!("2001:db8:1::1{number}/64")];
            let host = lan.host(&format!("b{number}"), &[&addresses[0], &addresses[1]])?;
            backends.push(host.ns.spawn(&mut program(&format!("b{number}")))?);
            hosts.push(host);
        }
        let pod = edge.pod("demo-pod", "pod0", &["10.9.0.2", "fd09::2"])?;
        backends.push(pod.ns.spawn(&mut program("pod"))?);
        hosts.push(pod);

        for (name, text) in MANIFESTS {
            fs::write(directory.join("manifests").join(name), text).with_context(|| format!("write {name}"))?;
        }
        let secret = certificate(&directory, "demo")?;
        fs::write(directory.join("manifests/tls.yaml"), secret).context("write the Secret")?;
        fs::write(directory.join("sync.key"), "a key that both edges have\n").context("write the key")?;
        let agent = start_edge(&edge, "edge", &directory, &directory)?;
        Ok(Self { agent, second: None, backends, client4, client6, edge, directory, _hosts: hosts, lan })
    }

    /// `kill -9` of backend `b2`'s process.
    pub(crate) fn kill_b2(&mut self) {
        drop(self.backends.remove(1));
    }

    /// Edits a manifest; returns the moment at which the new text was there.
    pub(crate) fn edit(&self, name: &str, change: impl Fn(&str) -> String) -> Result<Instant> {
        let path = self.agent.manifests().join(name);
        let text = fs::read_to_string(&path).with_context(|| format!("read {name}"))?;
        self.agent.write(name, &change(&text))
    }

    pub(crate) fn authority(&self) -> PathBuf {
        self.directory.join("ca.pem")
    }

    /// What a person may try in a kept world.
    pub(crate) fn print_commands(&self) {
        let inside = |host: &Host| format!("nsenter --net=/run/netns/{}", host.ns.name);
        let directory = self.directory.display();
        let client = sibling("demo_client").unwrap_or_default();
        let agent = sibling("sluicegate").unwrap_or_default();
        println!(
            "\nIt goes on running. To play with it:\n\
             \n  # HTTPS, by host and path\
             \n  {} curl --cacert {directory}/ca.pem --resolve shop.example:443:{WEB_V4} https://shop.example/api\
             \n  # TCP and UDP, and who answered\
             \n  {} {} tcp {L4_V4}:9000\
             \n  {} {} udp '[{L4_V6}]:9001'\
             \n  # what the agent does, and why\
             \n  {} {} status --admin-socket {directory}/admin.sock\
             \n  {} {} explain tcp {CLIENT_V4}:40000 {L4_V4}:9000 --admin-socket {directory}/admin.sock\
             \n  # who holds what, and a move to the other edge\
             \n  {} {} vip list --admin-socket {directory}/admin.sock\
             \n  {} {} vip move {L4_V4} edge-2 --admin-socket {directory}/admin.sock\
             \n  # edit a manifest; it is live at once\
             \n  $EDITOR {directory}/manifests/echo.yaml\
             \n  # the agent's log\
             \n  tail -f {directory}/agent.log\
             \n  # the end of it\
             \n  cargo xtask demo --clean\n",
            inside(&self.client4),
            inside(&self.client4),
            client.display(),
            inside(&self.client6),
            client.display(),
            inside(&self.edge),
            agent.display(),
            inside(&self.edge),
            agent.display(),
            inside(&self.edge),
            agent.display(),
            inside(&self.edge),
            agent.display(),
        );
    }
}

/// An agent that elects with the other edge who holds what, and tells it its flows. `own` is for its log and socket. An address stays
/// where it is until somebody moves it, so that what is shown is a move.
pub(crate) fn start_edge(host: &Host, name: &str, own: &Path, shared: &Path) -> Result<Agent> {
    let key = shared.join("sync.key").display().to_string();
    let arguments = [
        ["--node", name],
        ["--vip-mode", "vrrp"],
        ["--vrrp-node", "edge,edge-2"],
        ["--vrrp-interval-ms", "100"],
        ["--hash-seed", "5eed"],
        ["--sync-peer", "192.0.2.1,192.0.2.3"],
        ["--sync-key-file", &key],
        ["--max-flows", "200000"],
    ];
    let arguments = [arguments.as_flattened(), &["--vrrp-nopreempt"]].concat();
    Agent::start(host, own, &traces::pins(std::process::id()).join(name), &arguments)
}

fn program(name: &str) -> Command {
    let mut command = Command::new(sibling("demo_backend").unwrap_or_else(|_| "demo_backend".into()));
    command.arg(name).stdin(Stdio::null());
    command
}

/// An authority for curl, `DIRECTORY/ca.pem`, and the manifest of a Secret with a certificate of it for the agent.
pub(crate) fn certificate(directory: &Path, namespace: &str) -> Result<String> {
    let authority_key = KeyPair::generate().context("make a key")?;
    let mut authority = CertificateParams::new(Vec::new())?;
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    authority.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    authority.distinguished_name.push(DnType::CommonName, "the demo's authority");
    let authority_pem = authority.self_signed(&authority_key).context("sign the authority")?.pem();
    let key = KeyPair::generate().context("make a key")?;
    let mut leaf = CertificateParams::new(vec!["shop.example".to_owned(), "chat.example".to_owned()])?;
    // Subject and issuer must differ, or OpenSSL takes the leaf for a self-signed one.
    leaf.distinguished_name.push(DnType::CommonName, "shop.example");
    leaf.use_authority_key_identifier_extension = true;
    leaf.not_after = (SystemTime::now() + Duration::from_hours(30 * 24)).into();
    let leaf = leaf.signed_by(&key, &Issuer::new(authority, &authority_key)).context("sign the certificate")?;
    fs::write(directory.join("ca.pem"), authority_pem).context("write the authority")?;
    Ok(format!(
        "apiVersion: v1\nkind: Secret\ntype: kubernetes.io/tls\nmetadata: {{ name: shop-tls, namespace: {namespace} }}\n\
         data:\n  tls.crt: {}\n  tls.key: {}\n",
        BASE64_STANDARD.encode(leaf.pem()),
        BASE64_STANDARD.encode(key.serialize_pem())
    ))
}

/// A load that runs beside the demo until [`Load::finish`]; one that nobody finishes is killed.
pub(crate) struct Load(Running);

impl Load {
    pub(crate) fn start(host: &Host, arguments: &[&str]) -> Result<Self> {
        let mut command = Command::new(sibling("demo_client")?);
        command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped());
        Ok(Self(host.ns.spawn(&mut command)?))
    }

    /// Reads the line by which a load says that it is under way.
    pub(crate) fn first_line(&mut self) -> Result<String> {
        let output = self.0.0.stdout.as_mut().context("the load's output")?;
        let mut line = Vec::new();
        let mut byte = [0];
        while std::io::Read::read(output, &mut byte)? == 1 && byte[0] != b'\n' {
            line.push(byte[0]);
        }
        Ok(String::from_utf8_lossy(&line).into_owned())
    }

    /// Ends it by closing its input, and returns what it printed.
    pub(crate) fn finish(mut self) -> Result<String> {
        drop(self.0.0.stdin.take());
        let mut output = self.0.0.stdout.take().context("the load's output")?;
        let mut text = String::new();
        std::io::Read::read_to_string(&mut output, &mut text).context("read the load's output")?;
        traces::wait_for(&mut self.0.0, Duration::from_secs(10))?;
        Ok(text)
    }
}

pub(crate) fn at(address: &str, port: u16) -> Result<SocketAddr> {
    Ok(SocketAddr::new(address.parse::<IpAddr>().with_context(|| format!("parse {address}"))?, port))
}
