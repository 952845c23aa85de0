//! The processes of the comparison: a backend, and three proxies in front of it, each configured as its users would for
//! speed. Killed on drop; their files live in a directory of this process.

use std::fs;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};

pub(crate) const WORKERS: usize = 2;
/// What the prototype answered: small enough that the body costs nothing.
const SMALL: &str = "a small body of sixty-seven bytes, as an API would answer a question";

pub(crate) struct Peer {
    pub(crate) name: &'static str,
    pub(crate) http: SocketAddr,
    pub(crate) https: SocketAddr,
    child: Child,
}

pub(crate) struct Stage {
    /// Ours first.
    pub(crate) peers: Vec<Peer>,
    backend: Child,
    directory: PathBuf,
}

impl Stage {
    pub(crate) fn new() -> anyhow::Result<Self> {
        for program in ["nginx", "haproxy", "wrk", "h2load"] {
            let found = Command::new("which").arg(program).stdout(Stdio::null()).status()?;
            if !found.success() {
                bail!("`{program}` is missing: apt-get install nginx-light haproxy wrk nghttp2-client");
            }
        }
        let directory = std::env::temp_dir().join(format!("sluicegate-bench-{}", std::process::id()));
        fs::create_dir_all(directory.join("www"))?;
        fs::write(directory.join("www/64k"), vec![b'x'; 64 * 1024])?;
        certificate(&directory)?;
        let addresses = free(7)?;
        let backend = nginx(&directory, "backend", &backend_config(addresses[0], &directory))?;
        let at = |i: usize| (addresses[i], addresses[i + 1]);
        let mut stage = Self { peers: Vec::new(), backend, directory: directory.clone() };
        let (http, https) = at(1);
        let ours = Command::new(std::env::current_exe()?)
            .args(["serve", &http.to_string(), &https.to_string(), &addresses[0].to_string()])
            .spawn()
            .context("start our proxy")?;
        stage.peers.push(Peer { name: "sluicegate", http, https, child: ours });
        let (http, https) = at(3);
        let child = nginx(&directory, "proxy", &nginx_config(http, https, addresses[0], &directory))?;
        stage.peers.push(Peer { name: "nginx", http, https, child });
        let (http, https) = at(5);
        let path = directory.join("haproxy.cfg");
        fs::write(&path, haproxy_config(http, https, addresses[0], &directory))?;
        let child = Command::new("haproxy").args(["-db", "-q", "-f"]).arg(&path).spawn().context("start haproxy")?;
        stage.peers.push(Peer { name: "haproxy", http, https, child });
        let ports = addresses[..1].iter().copied().chain(stage.peers.iter().flat_map(|p| [p.http, p.https]));
        for address in ports {
            await_port(address)?;
        }
        Ok(stage)
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        for child in self.peers.iter_mut().map(|p| &mut p.child).chain([&mut self.backend]) {
            for pid in family(child.id()) {
                // nginx's workers outlive a master that is killed at once, so all of them are told.
                let _ = Command::new("kill").arg(pid.to_string()).stderr(Stdio::null()).status();
            }
            let _ = child.wait();
        }
        let _ = fs::remove_dir_all(&self.directory);
    }
}

impl Peer {
    /// User and system time of the process and its children so far.
    pub(crate) fn cpu(&self) -> Duration {
        family(self.child.id()).into_iter().filter_map(cpu_of).sum()
    }
}

fn family(pid: u32) -> Vec<u32> {
    let mut all = vec![pid];
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    all.extend(children.split_whitespace().filter_map(|child| child.parse::<u32>().ok()));
    all
}

/// `proc_pid_stat(5)`: fields 14 and 15, in hundredths of a second on every Linux that Rust runs on.
fn cpu_of(pid: u32) -> Option<Duration> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let ticks: u64 = fields.get(11)?.parse::<u64>().ok()? + fields.get(12)?.parse::<u64>().ok()?;
    Some(Duration::from_millis(ticks * 10))
}

fn free(count: usize) -> anyhow::Result<Vec<SocketAddr>> {
    let held: Vec<TcpListener> = (0..count).map(|_| TcpListener::bind("127.0.0.1:0")).collect::<Result<_, _>>()?;
    Ok(held.iter().map(TcpListener::local_addr).collect::<Result<_, _>>()?)
}

fn await_port(address: SocketAddr) -> anyhow::Result<()> {
    let end = Instant::now() + Duration::from_secs(10);
    while Instant::now() < end {
        if TcpStream::connect(address).is_ok() {
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    bail!("nothing listens on {address} after 10 s")
}

fn certificate(directory: &Path) -> anyhow::Result<()> {
    // The same kind of key as our default certificate: ECDSA P-256.
    let key = rcgen::KeyPair::generate()?;
    let made = rcgen::CertificateParams::new(vec!["bench.example".to_owned()])?.self_signed(&key)?;
    fs::write(directory.join("cert.pem"), made.pem())?;
    fs::write(directory.join("key.pem"), key.serialize_pem())?;
    fs::write(directory.join("both.pem"), made.pem() + &key.serialize_pem())?;
    Ok(())
}

fn nginx(directory: &Path, name: &str, config: &str) -> anyhow::Result<Child> {
    let path = directory.join(format!("{name}.conf"));
    fs::write(&path, config)?;
    let mut command = Command::new("nginx");
    command.arg("-p").arg(directory).arg("-c").arg(&path).arg("-e").arg(directory.join(format!("{name}.log")));
    command.args(["-g", "daemon off;"]).spawn().with_context(|| format!("start nginx as {name}"))
}

fn frame(directory: &Path, name: &str, http: &str) -> String {
    let d = directory.display();
    let temporary =
        ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"].map(|kind| format!("{kind}_temp_path {d}/{name}-{kind};"));
    format!(
        "worker_processes {WORKERS};\npid {d}/{name}.pid;\nevents {{ worker_connections 8192; multi_accept on; }}\n\
         http {{ access_log off; {} keepalive_requests 1000000; tcp_nodelay on; server_tokens off;\n{http} }}\n",
        temporary.join(" ")
    )
}

fn backend_config(at: SocketAddr, directory: &Path) -> String {
    let server = format!(
        "sendfile on; tcp_nopush on; open_file_cache max=10;\nserver {{ listen {at} reuseport; root {}/www; location / {{ return 200 '{SMALL}'; }} \
         location = /64k {{ }} }}",
        directory.display()
    );
    frame(directory, "backend", &server)
}

/// The fields that ingress-nginx sets, and its defaults for buffering and upstream connections.
fn nginx_config(http: SocketAddr, https: SocketAddr, backend: SocketAddr, directory: &Path) -> String {
    let d = directory.display();
    let server = format!(
        "upstream b {{ server {backend}; keepalive 320; keepalive_requests 10000; keepalive_timeout 60s; }}\n\
         map $http_x_request_id $rid {{ default $http_x_request_id; '' $request_id; }}\n\
         ssl_certificate {d}/cert.pem; ssl_certificate_key {d}/key.pem; ssl_protocols TLSv1.2 TLSv1.3;\n\
         ssl_session_cache shared:S:10m; ssl_session_tickets off; ssl_buffer_size 4k;\n\
         server {{ listen {http} reuseport; listen {https} ssl http2 reuseport; server_name _;\n\
         location / {{ proxy_pass http://b; proxy_http_version 1.1; proxy_set_header Connection ''; proxy_buffering off;\n\
         proxy_set_header Host $http_host; proxy_set_header X-Request-ID $rid; proxy_set_header X-Real-IP $remote_addr;\n\
         proxy_set_header X-Forwarded-For $remote_addr; proxy_set_header X-Forwarded-Host $http_host;\n\
         proxy_set_header X-Forwarded-Port $server_port; proxy_set_header X-Forwarded-Proto $scheme;\n\
         proxy_set_header X-Forwarded-Scheme $scheme; proxy_set_header X-Scheme $scheme;\n\
         proxy_set_header X-Original-Forwarded-For $http_x_forwarded_for; proxy_set_header Proxy ''; }} }}"
    );
    frame(directory, "proxy", &server)
}

/// The same fields, connections reused always.
fn haproxy_config(http: SocketAddr, https: SocketAddr, backend: SocketAddr, directory: &Path) -> String {
    let d = directory.display();
    format!(
        "global\n nbthread {WORKERS}\n maxconn 8192\n tune.ssl.default-dh-param 2048\n\
         defaults\n mode http\n timeout client 75s\n timeout server 60s\n timeout connect 5s\n timeout http-request 60s\n option http-keep-alive\n\
         frontend f\n bind {http}\n bind {https} ssl crt {d}/both.pem alpn h2,http/1.1\n\
         unique-id-format %[uuid()]\n unique-id-header X-Request-ID\n\
         http-request set-header X-Real-IP %[src]\n http-request set-header X-Forwarded-For %[src]\n\
         http-request set-header X-Forwarded-Host %[req.hdr(host)]\n http-request set-header X-Forwarded-Port %[dst_port]\n\
         http-request set-header X-Forwarded-Proto https if {{ ssl_fc }}\n http-request set-header X-Forwarded-Proto http if !{{ ssl_fc }}\n\
         http-request set-header X-Forwarded-Scheme https if {{ ssl_fc }}\n http-request set-header X-Forwarded-Scheme http if !{{ ssl_fc }}\n\
         http-request set-header X-Scheme https if {{ ssl_fc }}\n http-request set-header X-Scheme http if !{{ ssl_fc }}\n\
         http-request del-header Proxy\n default_backend b\n\
         backend b\n http-reuse always\n server s {backend} pool-max-conn 320\n"
    )
}
