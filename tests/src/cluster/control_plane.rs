//! etcd, kube-apiserver and kube-controller-manager in one network namespace, with RBAC, on an address that other namespaces of a
//! LAN may reach. They end when the value drops, and with the thread that started them.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use k8s_openapi::api::core::v1::{Namespace as KubernetesNamespace, ServiceAccount};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client, Config};

use super::PATIENCE;
use super::credentials::Credentials;
use crate::netns::{Namespace, Running};
use crate::place::Place;

/// What a server that was asked to end has for it.
const SHUTDOWN: Duration = Duration::from_secs(1);
/// Of Services, never of pods. The family of the API server's address comes first.
const SERVICE_RANGES: [&str; 2] = ["10.96.0.0/16", "fd00:10:96::/112"];

/// Their usual ports, or one soon after them.
const API_SERVER_PORT: u16 = 6443;
const ETCD_PORT: u16 = 2379;

/// A running control plane. Fields drop in this order: whoever writes goes before what he writes to.
pub struct ControlPlane {
    controllers: Option<Running>,
    api_server: Option<Running>,
    etcd: Option<Running>,
    etcd_address: SocketAddr,
    /// Where the API server listens.
    pub address: SocketAddr,
    pub ns: Arc<Namespace>,
    pub(super) program: PathBuf,
    /// More flags of the API server, from its next start on: an audit log, a feature of older servers.
    pub api_server_flags: Vec<String>,
    credentials: Credentials,
    admin: PathBuf,
    place: Place,
}

impl ControlPlane {
    /// Starts all three in `ns`, the API server on `address` there and a free port, and waits until it is ready. `label` must be
    /// unique among the tests of one process.
    pub fn start(label: &str, ns: &Arc<Namespace>, address: IpAddr) -> Result<Self> {
        let place = Place::new(&format!("k8s-{label}"))?;
        let credentials = Credentials::new(&place.directory)?;
        let address = free_port(ns, address, API_SERVER_PORT)?;
        let mut made = Self {
            controllers: None,
            api_server: None,
            etcd: None,
            etcd_address: free_port(ns, Ipv4Addr::LOCALHOST.into(), ETCD_PORT)?,
            address,
            ns: Arc::clone(ns),
            program: program()?,
            api_server_flags: Vec::new(),
            admin: credentials.admin(address)?,
            credentials,
            place,
        };
        made.start_etcd()?;
        made.start_api_server()?;
        made.start_controllers()?;
        Ok(made)
    }

    fn start_etcd(&mut self) -> Result<()> {
        let url = format!("http://{}", self.etcd_address);
        let data = self.place.directory.join("etcd");
        let data = format!("--data-dir={}", data.display());
        // The data need not survive the machine, and the peers are none.
        self.etcd = Some(self.spawn(
            "etcd",
            &[
                &data,
                &format!("--listen-client-urls={url}"),
                &format!("--advertise-client-urls={url}"),
                "--listen-peer-urls=http://127.0.0.1:0",
                "--unsafe-no-fsync",
                "--log-level=warn",
            ],
        )?);
        Ok(())
    }

    /// Starts the API server again after [`ControlPlane::stop_api_server`]: the same address and data, and a new certificate of
    /// the same authority. Returns how long it took to be ready.
    pub fn start_api_server(&mut self) -> Result<Duration> {
        ensure!(self.api_server.is_none(), "the API server is running already");
        let started = Instant::now();
        self.credentials.renew_serving(self.address.ip())?;
        let file = |name: &str| self.credentials.file(name).display().to_string();
        let mut ranges = SERVICE_RANGES;
        if self.address.is_ipv6() {
            ranges.reverse();
        }
        let mut flags = vec![
            format!("--etcd-servers=http://{}", self.etcd_address),
            format!("--bind-address={}", self.address.ip()),
            format!("--advertise-address={}", self.address.ip()),
            format!("--secure-port={}", self.address.port()),
            format!("--cert-dir={}", self.place.directory.display()),
            format!("--tls-cert-file={}", file("serving.crt")),
            format!("--tls-private-key-file={}", file("serving.key")),
            format!("--token-auth-file={}", file("tokens.csv")),
            "--service-account-issuer=https://kubernetes.default.svc".to_owned(),
            format!("--service-account-key-file={}", file("accounts.pub")),
            format!("--service-account-signing-key-file={}", file("accounts.key")),
            "--authorization-mode=RBAC".to_owned(),
            // It would have pods wait for a token that no kubelet mounts here.
            "--disable-admission-plugins=ServiceAccount".to_owned(),
            // The endpoints of the Service `kubernetes` may not be on a loopback address, and nobody here uses them.
            "--endpoint-reconciler-type=none".to_owned(),
            format!("--service-cluster-ip-range={}", ranges.join(",")),
            "--allow-privileged".to_owned(),
            "--profiling=false".to_owned(),
        ];
        flags.extend(self.api_server_flags.iter().cloned());
        let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
        let running = self.spawn("kube-apiserver", &flags)?;
        self.api_server = Some(running);
        // The namespace `default` is made a moment after the server calls itself ready.
        self.wait_until("the API server is ready", async |client| {
            client.request_text(http::Request::get("/readyz").body(Vec::new())?).await?;
            Api::<KubernetesNamespace>::all(client).get("default").await?;
            Ok(())
        })?;
        Ok(started.elapsed())
    }

    /// Asks the API server again and again until the answer is not an error. Fails at once when a program has ended.
    fn wait_until(&mut self, what: &str, ask: impl AsyncFn(Client) -> Result<()> + Sync) -> Result<()> {
        let started = Instant::now();
        loop {
            let Err(reason) = self.with_client(async |client| ask(client).await) else { return Ok(()) };
            let programs = [
                ("etcd", &mut self.etcd),
                ("kube-apiserver", &mut self.api_server),
                ("kube-controller-manager", &mut self.controllers),
            ];
            let ended = programs.map(|(name, running)| {
                let status = running.as_mut().and_then(|running| running.0.try_wait().ok().flatten());
                status.map(|status| (name, status))
            });
            if let Some((name, status)) = ended.into_iter().flatten().next() {
                bail!("{name} ended ({status}); its log ends with:\n{}", self.last_words(name));
            }
            if started.elapsed() > PATIENCE {
                let words = self.last_words("kube-apiserver");
                bail!("waited {PATIENCE:?} in vain: {what} ({reason:#}); the API server's log ends with:\n{words}");
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn start_controllers(&mut self) -> Result<()> {
        let file = |name: &str| self.credentials.file(name).display().to_string();
        let running = self.spawn(
            "kube-controller-manager",
            &[
                &format!("--kubeconfig={}", self.admin.display()),
                &format!("--root-ca-file={}", file("ca.crt")),
                &format!("--service-account-private-key-file={}", file("accounts.key")),
                // Pod ranges are the test's to give, and nothing here has volumes.
                "--controllers=*,-node-ipam-controller,-persistentvolume-binder-controller,-persistentvolume-attach-detach-controller",
                "--leader-elect=false",
                "--use-service-account-credentials=false",
                "--kube-api-qps=500",
                "--kube-api-burst=1000",
                "--secure-port=0",
            ],
        )?;
        self.controllers = Some(running);
        // The first thing that a controller makes; a test may want to bind rights to it.
        self.wait_until("the controllers work", async |client| {
            Api::<ServiceAccount>::default_namespaced(client).get("default").await?;
            Ok(())
        })
    }

    /// SIGTERM to the API server, SIGKILL a second later, and waits until it has ended: by itself it would wait a minute for the
    /// watches to end. They break; etcd keeps the data.
    pub fn stop_api_server(&mut self) -> Result<()> {
        let mut running = self.api_server.take().context("no API server is running")?;
        running.signal(libc::SIGTERM);
        let deadline = Instant::now() + SHUTDOWN;
        while Instant::now() < deadline && running.0.try_wait().context("wait for the API server")?.is_none() {
            std::thread::sleep(Duration::from_millis(5));
        }
        // Dropping kills with SIGKILL and reaps.
        drop(running);
        Ok(())
    }

    /// `kill -9`, and waits until it is gone.
    pub fn kill_api_server(&mut self) -> Result<()> {
        // Dropping kills with SIGKILL and reaps.
        self.api_server.take().map(drop).context("no API server is running")
    }

    /// Drops all history from etcd: a list or watch that starts at an older version is answered with 410 Gone. The API server's
    /// own cache still serves what it holds, until it is started again. Returns the oldest revision that is left.
    pub fn compact(&self) -> Result<i64> {
        let now = self.etcd_call("/v3/kv/range", "{\"key\": \"AA==\"}")?;
        let revision = now["header"]["revision"].as_str().and_then(|text| text.parse::<i64>().ok());
        let revision = revision.with_context(|| format!("a revision in etcd's answer {now}"))?;
        self.etcd_call("/v3/kv/compaction", &format!("{{\"revision\": \"{revision}\", \"physical\": true}}"))?;
        Ok(revision)
    }

    /// One call of etcd's JSON interface.
    fn etcd_call(&self, path: &str, body: &str) -> Result<serde_json::Value> {
        let answer = self.ns.inside(|| -> Result<String> {
            let mut stream = TcpStream::connect(self.etcd_address).context("connect to etcd")?;
            stream.set_read_timeout(Some(PATIENCE))?;
            let length = body.len();
            // HTTP/1.0: the answer is not chunked, and its end closes the connection.
            write!(stream, "POST {path} HTTP/1.0\r\nHost: etcd\r\nContent-Length: {length}\r\n\r\n{body}")?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer).context("read etcd's answer")?;
            Ok(answer)
        })?;
        let (head, body) = answer.split_once("\r\n\r\n").context("an answer with a head")?;
        ensure!(head.contains(" 200 "), "etcd refused {path}: {answer}");
        serde_json::from_str(body).with_context(|| format!("read etcd's answer {body:?}"))
    }

    /// kubectl as the admin, with `input` on its standard input. Returns what it printed; an error holds all of its output.
    pub fn kubectl(&self, arguments: &[&str], input: &str) -> Result<String> {
        self.kubectl_as(&self.admin, arguments, input)
    }

    /// kubectl with a kubeconfig such as [`ControlPlane::service_account_kubeconfig`] writes.
    pub fn kubectl_as(&self, kubeconfig: &Path, arguments: &[&str], input: &str) -> Result<String> {
        self.kubectl_told(kubeconfig, arguments, input).map(|(said, _)| said)
    }

    /// The same, with what it printed to standard error although it succeeded: warnings.
    pub fn kubectl_told(&self, kubeconfig: &Path, arguments: &[&str], input: &str) -> Result<(String, String)> {
        let mut command = self.ns.command(&self.program);
        command.arg("kubectl").arg("--kubeconfig").arg(kubeconfig).args(arguments);
        // What it learns about the API is kept between calls, and away from the user's own.
        command.env("KUBECACHEDIR", self.place.directory.join("kubectl"));
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().context("start kubectl")?;
        let mut stdin = child.stdin.take().context("kubectl's standard input")?;
        // It may print more than a pipe holds while it still reads.
        let out = std::thread::scope(|s| {
            s.spawn(move || {
                // One that ends early needs no more input.
                let _ = stdin.write_all(input.as_bytes());
            });
            child.wait_with_output()
        });
        let out = out.context("wait for kubectl")?;
        let (said, complaint) = (String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
        ensure!(out.status.success(), "kubectl {} failed ({}): {said}{complaint}", arguments.join(" "), out.status);
        Ok((said.into_owned(), complaint.into_owned()))
    }

    /// `kubectl apply` of a manifest.
    pub fn apply(&self, manifest: &str) -> Result<String> {
        self.kubectl(&["apply", "-f", "-"], manifest).with_context(|| format!("apply\n{manifest}"))
    }

    /// A kubeconfig that logs in as a service account, which must exist: with the rights that RBAC gives it and no others. Its token
    /// lasts a day.
    pub fn service_account_kubeconfig(&self, namespace: &str, name: &str) -> Result<PathBuf> {
        let token = self.kubectl(&["create", "token", name, "--namespace", namespace, "--duration=24h"], "")?;
        self.credentials.kubeconfig(&format!("{namespace}-{name}"), self.address, namespace, token.trim())
    }

    /// Another authority, known to each kubeconfig. The API server goes by it from its next start on.
    pub fn rotate_authority(&mut self) -> Result<()> {
        self.credentials.rotate_authority()
    }

    pub fn admin_kubeconfig(&self) -> &Path {
        &self.admin
    }

    /// The binary, which is kubectl too: its first argument says so.
    pub fn program(&self) -> &Path {
        &self.program
    }

    /// Where logs lie, and what a test wants removed with the control plane.
    pub fn directory(&self) -> &Path {
        &self.place.directory
    }

    /// Runs `work` with an admin's client, in the control plane's namespace.
    pub fn with_client<T: Send>(&self, work: impl AsyncFnOnce(Client) -> Result<T> + Send) -> Result<T> {
        self.ns.inside(|| {
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_all().build().context("make a runtime")?;
            runtime.block_on(async { work(client(&self.admin).await?).await })
        })
    }

    /// The end of the log of `etcd`, `kube-apiserver` or `kube-controller-manager`.
    pub fn last_words(&self, program: &str) -> String {
        let log = fs::read(self.place.directory.join(format!("{program}.log"))).unwrap_or_default();
        let log = String::from_utf8_lossy(&log);
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(25)..].join("\n")
    }

    fn spawn(&self, name: &str, arguments: &[&str]) -> Result<Running> {
        let path = self.place.directory.join(format!("{name}.log"));
        let log = File::options().create(true).append(true).open(&path);
        let log = log.with_context(|| format!("open {}", path.display()))?;
        let mut command = Command::new(&self.program);
        command.arg(name).args(arguments).current_dir(&self.place.directory);
        command.stdin(Stdio::null()).stdout(log.try_clone().context("share a log")?).stderr(log);
        self.ns.spawn(&mut command)
    }
}

/// A client that logs in by a kubeconfig. Its connections are made in the network namespace of the runtime's thread.
pub async fn client(kubeconfig: &Path) -> Result<Client> {
    let read = Kubeconfig::read_from(kubeconfig).with_context(|| format!("read {}", kubeconfig.display()))?;
    let config = Config::from_custom_kubeconfig(read, &KubeConfigOptions::default()).await;
    Client::try_from(config.context("understand the kubeconfig")?).context("make a client")
}

/// A port from `first` on that nobody uses at this moment. It is below those that the kernel picks for whoever asks for any, as the
/// other programs do between this choice and its use.
fn free_port(ns: &Namespace, address: IpAddr, first: u16) -> Result<SocketAddr> {
    let found = ns.inside(|| (first..first + 100).find(|port| TcpListener::bind((address, *port)).is_ok()));
    Ok(SocketAddr::new(address, found.with_context(|| format!("no free port of {address} from {first} on"))?))
}

/// The binary that `cargo xtask setup` built, beside cargo's own directories.
fn program() -> Result<PathBuf> {
    let own = std::env::current_exe().context("find this program")?;
    let path = own.ancestors().skip(1).take(4).map(|directory| directory.join("control-plane/control-plane"));
    path.into_iter().find(|path| path.is_file()).context(
        "the Kubernetes control plane is not built: run `cargo xtask setup`, or the tests by `cargo xtask test`",
    )
}
