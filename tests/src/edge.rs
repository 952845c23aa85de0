//! The real agent, `sluicegate run`, as a process in a host's namespace: started, killed, started again. It knows the agent
//! only as an operator does: its command line, its signals and its admin address.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use crate::lan::Host;
use crate::netns::Running;

/// In the edge's own namespace, so that it never meets another agent's.
const ADMIN: &str = "127.0.0.1:10254";
const PATIENCE: Duration = Duration::from_mins(1);

/// An agent and where its things are. Dropping it kills the process and removes the pins.
pub struct Agent {
    host: Host,
    directory: PathBuf,
    pins: PathBuf,
    /// Where its facts come from, as arguments.
    source: [String; 2],
    arguments: Vec<String>,
    running: Option<Running>,
}

impl Agent {
    /// Starts an agent on `eth0` of a host and waits until it is ready. Manifests are read from `DIRECTORY/manifests`; its
    /// log and its socket lie beside them.
    pub fn start(host: &Host, directory: &Path, pins: &Path, arguments: &[&str]) -> Result<Self> {
        let manifests = directory.join("manifests");
        let mut agent = Self::new(host, directory, pins, "--manifests", &manifests, arguments);
        agent.start_again()?;
        Ok(agent)
    }

    /// An agent that watches a cluster. It is not started yet.
    pub fn of_cluster(host: &Host, directory: &Path, pins: &Path, kubeconfig: &Path, arguments: &[&str]) -> Self {
        Self::new(host, directory, pins, "--kubeconfig", kubeconfig, arguments)
    }

    fn new(host: &Host, directory: &Path, pins: &Path, option: &str, source: &Path, arguments: &[&str]) -> Self {
        Self {
            host: host.clone(),
            directory: directory.to_owned(),
            pins: pins.to_owned(),
            source: [option.to_owned(), source.display().to_string()],
            arguments: arguments.iter().map(|&argument| argument.to_owned()).collect(),
            running: None,
        }
    }

    /// Starts it after [`Agent::kill`] or [`Agent::stop`]; returns how long it took to be ready.
    pub fn start_again(&mut self) -> Result<Duration> {
        let started = Instant::now();
        self.launch()?;
        while !self.get("/readyz").is_ok_and(|(status, _)| status == 200) {
            let status = self.running.as_mut().and_then(|running| running.0.try_wait().transpose());
            if let Some(status) = status {
                let status = status.context("wait for the agent")?;
                bail!("the agent ended at once ({status}); its log ends with:\n{}", self.last_words());
            }
            if started.elapsed() > PATIENCE {
                bail!("the agent was not ready within {PATIENCE:?}; its log ends with:\n{}", self.last_words());
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        Ok(started.elapsed())
    }

    /// Starts it and does not wait until it is ready.
    pub fn launch(&mut self) -> Result<()> {
        ensure!(self.running.is_none(), "the agent is running already");
        let log = File::options().create(true).append(true).open(self.log_path()).context("open the agent's log")?;
        let mut command = Command::new(sibling("sluicegate")?);
        command.arg("run").args(&self.source);
        command.args(["--interface", "eth0", "--admin-address", ADMIN]);
        if !self.arguments.iter().any(|argument| argument.starts_with("--access-log")) {
            command.args(["--access-log", "off"]);
        }
        if !self.arguments.iter().any(|argument| argument == "--node") {
            command.args(["--node", "edge"]);
        }
        command.arg("--admin-socket").arg(self.socket()).arg("--pin-path").arg(&self.pins);
        command.arg("--state-dir").arg(self.directory.join("state")).args(&self.arguments);
        command.stdin(Stdio::null()).stdout(log.try_clone().context("share the log")?).stderr(log);
        self.running = Some(self.host.ns.spawn(&mut command)?);
        Ok(())
    }

    /// `kill -9`, and waits until it is gone.
    pub fn kill(&mut self) -> Result<()> {
        let running = self.running.take().context("no agent is running")?;
        // Dropping kills with SIGKILL and reaps.
        drop(running);
        Ok(())
    }

    /// SIGTERM, and waits until it has drained and ended.
    pub fn stop(&mut self) -> Result<()> {
        let mut running = self.running.take().context("no agent is running")?;
        running.signal(libc::SIGTERM);
        let deadline = Instant::now() + PATIENCE;
        while running.0.try_wait().context("wait for the agent")?.is_none() {
            ensure!(Instant::now() < deadline, "the agent did not end within {PATIENCE:?} of SIGTERM");
            std::thread::sleep(Duration::from_millis(2));
        }
        Ok(())
    }

    /// Process id, while it runs.
    pub fn id(&self) -> Option<u32> {
        self.running.as_ref().map(Running::id)
    }

    /// Asks the admin address: status and body.
    pub fn get(&self, path: &str) -> Result<(u16, String)> {
        let address: SocketAddr = ADMIN.parse().context("the admin address")?;
        self.host.ns.inside(|| {
            let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(2)).context("connect")?;
            stream.set_read_timeout(Some(Duration::from_secs(5)))?;
            write!(stream, "GET {path} HTTP/1.1\r\nHost: admin\r\nConnection: close\r\n\r\n")?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer).context("read the answer")?;
            let status = answer.split(' ').nth(1).and_then(|code| code.parse().ok()).context("a status code")?;
            let body = answer.split_once("\r\n\r\n").map(|(_, body)| body.to_owned()).unwrap_or_default();
            Ok((status, body))
        })
    }

    /// `sluicegate status`, as the operator sees it.
    pub fn status(&self) -> Result<String> {
        let binary = sibling("sluicegate")?;
        let socket = self.socket();
        self.host.ns.run(&binary.to_string_lossy(), &["status", "--admin-socket", &socket.to_string_lossy()])
    }

    pub fn manifests(&self) -> PathBuf {
        self.directory.join("manifests")
    }

    pub fn socket(&self) -> PathBuf {
        self.directory.join("admin.sock")
    }

    pub fn log_path(&self) -> PathBuf {
        self.directory.join("agent.log")
    }

    /// The end of its log.
    pub fn last_words(&self) -> String {
        let log = fs::read_to_string(self.log_path()).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(25)..].join("\n")
    }

    /// Changes a manifest as a careful editor does: a new file, renamed over the old one. Returns the moment of the rename.
    pub fn write(&self, name: &str, text: &str) -> Result<Instant> {
        let new = self.directory.join(format!("{name}.new"));
        fs::write(&new, text).with_context(|| format!("write {name}"))?;
        let renamed = Instant::now();
        fs::rename(&new, self.manifests().join(name)).with_context(|| format!("rename {name}"))?;
        Ok(renamed)
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        drop(self.running.take());
        let _ = fs::remove_dir_all(&self.pins);
    }
}

/// A program that was built beside this one.
pub fn sibling(name: &str) -> Result<PathBuf> {
    let own = std::env::current_exe().context("find this program")?;
    // Tests lie one directory deeper, in `deps`.
    let path = own.ancestors().skip(1).take(2).map(|directory| directory.join(name)).find(|path| path.is_file());
    path.with_context(|| format!("{name} is not built: start this by `cargo xtask`"))
}
