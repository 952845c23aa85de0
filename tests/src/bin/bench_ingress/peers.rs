//! A namespace with a backend, and the proxies that take turns in front of it. Everything ends with this process.

use std::fs;
use std::net::TcpStream;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use ingress_tests::netns::{Namespace, Running};
use ingress_tests::place::Place;

use crate::site::EDGE;

pub(crate) const WORKERS: usize = 2;
/// Where nginx listens: an address of its own, so that requests for either differ in nothing.
pub(crate) const NGINX: &str = "10.78.0.3";
/// What is asked by `auth-url`.
pub(crate) const AUTHORITY: &str = "10.78.1.9";
const SMALL: &str = "a small body of sixty-seven bytes, as an API would answer a question";

pub(crate) struct Stage {
    _backend: Process,
    namespace: Arc<Namespace>,
    pub(crate) place: Place,
}

pub(crate) struct Peer {
    pub(crate) name: String,
    pub(crate) address: String,
    process: Process,
}

/// With its children: nginx's workers outlive a master that is killed at once.
struct Process(Running);

impl Drop for Process {
    fn drop(&mut self) {
        let all = family(self.0.id()).into_iter().map(|id| id.to_string());
        let _ = Command::new("kill").args(all).stderr(Stdio::null()).status();
        let _ = self.0.0.wait();
    }
}

impl Stage {
    /// This thread moves into the namespace.
    pub(crate) fn new() -> Result<Self> {
        for program in ["nginx", "wrk"] {
            let found = Command::new("which").arg(program).stdout(Stdio::null()).status()?;
            ensure!(found.success(), "`{program}` is missing: cargo xtask setup installs it");
        }
        let place = Place::new("ingress")?;
        let namespace = Namespace::new("bench-ingress")?;
        namespace.ip(&["route", "add", "local", "10.78.0.0/16", "dev", "lo"])?;
        namespace.enter_thread()?;
        let server = format!(
            "server {{ listen 8080 reuseport; location / {{ return 200 '{SMALL}'; }} location = /granted {{ return 204; }} }}"
        );
        let backend = nginx(&namespace, &place.directory, "backend", &server)?;
        await_port(EDGE, 8080)?;
        Ok(Self { _backend: backend, namespace, place })
    }

    /// Our proxy with these manifests; each peer of ours has a port of its own.
    pub(crate) fn ours(&self, name: &str, port: u16, manifests: &str) -> Result<Peer> {
        let directory = self.place.directory.join(format!("ours-{port}"));
        fs::create_dir(&directory)?;
        fs::write(directory.join("all.yaml"), manifests)?;
        let mut command = Command::new(std::env::current_exe()?);
        command.arg("serve").arg(&directory).arg(port.to_string()).stdout(Stdio::null());
        let process = Process(self.namespace.spawn(&mut command)?);
        await_port(EDGE, port)?;
        Ok(Peer { name: name.to_owned(), address: format!("{EDGE}:{port}"), process })
    }

    pub(crate) fn nginx(&self, name: &str, port: u16, servers: &str) -> Result<Peer> {
        let maps = "map $http_upgrade $connection_upgrade { default upgrade; '' ''; }\n\
             map $http_x_request_id $req_id { default $http_x_request_id; '' $request_id; }\n\
             server_names_hash_max_size 65536; server_names_hash_bucket_size 128; variables_hash_max_size 2048;\n\
             proxy_headers_hash_max_size 512; proxy_headers_hash_bucket_size 64; reset_timedout_connection on;\n";
        let process =
            nginx(&self.namespace, &self.place.directory, &format!("nginx-{port}"), &format!("{maps}{servers}"))?;
        await_port(NGINX, port)?;
        Ok(Peer { name: name.to_owned(), address: format!("{NGINX}:{port}"), process })
    }
}

impl Peer {
    /// User and system time of the process and its children so far.
    pub(crate) fn cpu(&self) -> Result<Duration> {
        family(self.process.0.id()).into_iter().map(cpu_of).sum()
    }
}

fn family(id: u32) -> Vec<u32> {
    let children = fs::read_to_string(format!("/proc/{id}/task/{id}/children")).unwrap_or_default();
    [id].into_iter().chain(children.split_whitespace().filter_map(|child| child.parse().ok())).collect()
}

/// `proc_pid_schedstat`: nanoseconds on a CPU, the first field, of each thread. Fields of `stat` count in hundredths of a second.
fn cpu_of(id: u32) -> Result<Duration> {
    let mut sum = 0;
    for task in fs::read_dir(format!("/proc/{id}/task")).context("a peer is gone")? {
        let text = fs::read_to_string(task?.path().join("schedstat")).unwrap_or_default();
        sum += text.split_whitespace().next().and_then(|n| n.parse::<u64>().ok()).unwrap_or(0);
    }
    Ok(Duration::from_nanos(sum))
}

fn nginx(namespace: &Namespace, directory: &Path, name: &str, http: &str) -> Result<Process> {
    let path = directory.join(format!("{name}.conf"));
    let d = directory.display();
    let temporary =
        ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"].map(|kind| format!("{kind}_temp_path {d}/{name}-{kind};"));
    let config = format!(
        "daemon off; user root; worker_processes {WORKERS}; worker_rlimit_nofile 65536; pid {d}/{name}.pid; pcre_jit on;\n\
         events {{ worker_connections 16384; multi_accept on; use epoll; }}\n\
         http {{ access_log off; {} keepalive_requests 1000000; keepalive_timeout 75s; tcp_nodelay on; server_tokens off;\n\
         default_type text/plain;\n{http} }}\n",
        temporary.join(" ")
    );
    fs::write(&path, config)?;
    let mut command = Command::new("nginx");
    command.arg("-p").arg(directory).arg("-c").arg(&path).arg("-e").arg(directory.join(format!("{name}.log")));
    Ok(Process(namespace.spawn(&mut command)?))
}

fn await_port(address: &str, port: u16) -> Result<()> {
    let end = Instant::now() + Duration::from_mins(1);
    while Instant::now() < end {
        if TcpStream::connect((address, port)).is_ok() {
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    bail!("nothing listens on {address}:{port} after a minute")
}
