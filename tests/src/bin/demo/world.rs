//! The demo's world: a LAN of namespaces, backends, the agent, and the manifests that it reads. Only builds and changes it;
//! what is shown in it is `show`'s.

use std::fs::{self, File};
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use ingress_tests::lan::{Host, Lan};
use ingress_tests::netns::Running;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};

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
    agent: Option<Running>,
    /// By the order of their names, `b1` to `b3`; the pod is the last.
    backends: Vec<Running>,
    pub(crate) client4: Host,
    pub(crate) client6: Host,
    edge: Host,
    directory: PathBuf,
    pins: PathBuf,
    _hosts: Vec<Host>,
    _lan: Lan,
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
        certificate(&directory)?;
        let pins = traces::pins(own);
        let mut world =
            Self { agent: None, backends, client4, client6, edge, directory, pins, _hosts: hosts, _lan: lan };
        world.start_agent()?;
        Ok(world)
    }

    /// Starts the agent and waits until it says that it is ready. Returns how long that took.
    pub(crate) fn start_agent(&mut self) -> Result<Duration> {
        let started = Instant::now();
        let log = File::options().create(true).append(true).open(self.agent_log()).context("open the agent's log")?;
        let mut command = Command::new(sibling("sluicegate")?);
        command.arg("run").arg("--manifests").arg(self.directory.join("manifests"));
        command.args(["--interface", "eth0", "--node", "edge", "--hold-vips", "all", "--vip-interface", "eth0"]);
        command.args(["--access-log", "off", "--max-flows", "200000", "--admin-address", ADMIN]);
        command.arg("--admin-socket").arg(self.directory.join("admin.sock")).arg("--pin-path").arg(&self.pins);
        command.stdin(Stdio::null()).stdout(log.try_clone().context("share the log")?).stderr(log);
        let mut agent = self.edge.ns.spawn(&mut command)?;
        loop {
            if self.ready() {
                self.agent = Some(agent);
                return Ok(started.elapsed());
            }
            if let Some(status) = agent.0.try_wait().context("wait for the agent")? {
                self.print_agent_log();
                bail!("the agent ended at once ({status})");
            }
            if started.elapsed() > Duration::from_secs(20) {
                self.print_agent_log();
                bail!("the agent was not ready within 20 s");
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    fn ready(&self) -> bool {
        let asked = self.edge.ns.run("curl", &["-sf", "--max-time", "2", &format!("http://{ADMIN}/readyz")]);
        asked.is_ok()
    }

    /// `kill -9`, and waits until it is gone.
    pub(crate) fn kill_agent(&mut self) -> Result<()> {
        let agent = self.agent.take().context("no agent is running")?;
        agent.signal(libc::SIGKILL);
        drop(agent);
        Ok(())
    }

    /// `kill -9` of backend `b2`'s process.
    pub(crate) fn kill_b2(&mut self) {
        drop(self.backends.remove(1));
    }

    /// Changes a manifest as an editor would: a new file, renamed over the old one.
    pub(crate) fn edit(&self, name: &str, change: impl Fn(&str) -> String) -> Result<()> {
        let path = self.directory.join("manifests").join(name);
        let text = fs::read_to_string(&path).with_context(|| format!("read {name}"))?;
        let new = self.directory.join(format!("{name}.new"));
        fs::write(&new, change(&text)).with_context(|| format!("write {name}"))?;
        fs::rename(&new, &path).with_context(|| format!("rename {name}"))
    }

    pub(crate) fn authority(&self) -> PathBuf {
        self.directory.join("ca.pem")
    }

    /// `sluicegate status`, as the operator sees it.
    pub(crate) fn status(&self) -> Result<String> {
        let binary = sibling("sluicegate")?;
        let socket = self.directory.join("admin.sock");
        self.edge.ns.run(&binary.to_string_lossy(), &["status", "--admin-socket", &socket.to_string_lossy()])
    }

    fn agent_log(&self) -> PathBuf {
        self.directory.join("agent.log")
    }

    pub(crate) fn print_agent_log(&self) {
        let log = fs::read_to_string(self.agent_log()).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        eprintln!("\nthe agent's last words:");
        for line in &lines[lines.len().saturating_sub(25)..] {
            eprintln!("   | {line}");
        }
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
        );
    }
}

const ADMIN: &str = "127.0.0.1:10254";

fn program(name: &str) -> Command {
    let mut command = Command::new(sibling("demo_backend").unwrap_or_else(|_| "demo_backend".into()));
    command.arg(name).stdin(Stdio::null());
    command
}

/// A program that was built beside this one.
fn sibling(name: &str) -> Result<PathBuf> {
    let own = std::env::current_exe().context("find this program")?;
    let path = own.parent().unwrap_or(Path::new("/")).join(name);
    if !path.is_file() {
        bail!("{} is not built: start the demo by `cargo xtask demo`", path.display());
    }
    Ok(path)
}

/// An authority for curl, and a Secret with a certificate of it for the agent.
fn certificate(directory: &Path) -> Result<()> {
    let authority_key = KeyPair::generate().context("make a key")?;
    let mut authority = CertificateParams::new(Vec::new())?;
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority_pem = authority.self_signed(&authority_key).context("sign the authority")?.pem();
    let key = KeyPair::generate().context("make a key")?;
    let leaf = CertificateParams::new(vec!["shop.example".to_owned(), "chat.example".to_owned()])?;
    let leaf = leaf.signed_by(&key, &Issuer::new(authority, &authority_key)).context("sign the certificate")?;
    fs::write(directory.join("ca.pem"), authority_pem).context("write the authority")?;
    let secret = format!(
        "apiVersion: v1\nkind: Secret\ntype: kubernetes.io/tls\nmetadata: {{ name: shop-tls, namespace: demo }}\n\
         data:\n  tls.crt: {}\n  tls.key: {}\n",
        BASE64_STANDARD.encode(leaf.pem()),
        BASE64_STANDARD.encode(key.serialize_pem())
    );
    fs::write(directory.join("manifests/tls.yaml"), secret).context("write the Secret")
}

/// A load that runs beside the demo until [`Load::finish`].
pub(crate) struct Load(Child);

impl Load {
    pub(crate) fn start(host: &Host, arguments: &[&str]) -> Result<Self> {
        // `Running` would discard what it printed; the namespace's end kills it as well.
        let child = host
            .ns
            .command(sibling("demo_client")?)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn();
        Ok(Self(child.context("start demo_client")?))
    }

    /// Reads the line by which a load says that it is under way.
    pub(crate) fn first_line(&mut self) -> Result<String> {
        let output = self.0.stdout.as_mut().context("the load's output")?;
        let mut line = Vec::new();
        let mut byte = [0];
        while std::io::Read::read(output, &mut byte)? == 1 && byte[0] != b'\n' {
            line.push(byte[0]);
        }
        Ok(String::from_utf8_lossy(&line).into_owned())
    }

    /// Ends it by closing its input, and returns what it printed.
    pub(crate) fn finish(mut self) -> Result<String> {
        drop(self.0.stdin.take());
        let mut output = self.0.stdout.take().context("the load's output")?;
        let mut text = String::new();
        std::io::Read::read_to_string(&mut output, &mut text).context("read the load's output")?;
        traces::wait_for(&mut self.0, Duration::from_secs(10))?;
        Ok(text)
    }
}

pub(crate) fn at(address: &str, port: u16) -> Result<SocketAddr> {
    Ok(SocketAddr::new(address.parse::<IpAddr>().with_context(|| format!("parse {address}"))?, port))
}
