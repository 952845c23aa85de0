//! The human's window: health, metrics, status, explanations. It shows plain values that the control thread hands out
//! when asked, on a thread of its own, so that a slow reader holds up nothing. It changes nothing but where virtual addresses are and which clients are dropped, and that only by the Unix socket.

mod serve;

pub mod query;

pub mod status;

pub mod sync_status;

mod metrics;

mod dump;

pub mod table;

pub mod elections;

pub mod limit_drops;

pub mod ask;

use std::fs;
use std::io::ErrorKind;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use tokio::sync::mpsc;

use query::Query;

#[derive(Clone, Debug)]
pub struct AdminOptions {
    pub address: Option<SocketAddr>,
    pub socket: PathBuf,
}

/// The running window. Dropping it removes the socket file; the thread ends with the process.
#[derive(Debug)]
pub struct Admin {
    socket: PathBuf,
}

impl Admin {
    /// Binds both places and answers from then on; every question goes to `queries`.
    pub fn start(options: AdminOptions, queries: mpsc::Sender<Query>) -> Result<Self> {
        let tcp = options.address.map(bind_tcp).transpose()?;
        let unix = bind_unix(&options.socket)?;
        std::thread::Builder::new()
            .name("admin".into())
            .spawn(move || {
                let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
                    Ok(runtime) => runtime,
                    Err(e) => return tracing::error!("start the runtime of the admin thread: {e}"),
                };
                runtime.block_on(async {
                    if let Err(e) = serve_all(tcp, unix, queries).await {
                        tracing::error!("admin: {e:#}");
                    }
                });
            })
            .context("start the admin thread")?;
        Ok(Self { socket: options.socket })
    }
}

impl Drop for Admin {
    fn drop(&mut self) {
        // A file that is gone already is what we want.
        let _ = fs::remove_file(&self.socket);
    }
}

async fn serve_all(tcp: Option<TcpListener>, unix: UnixListener, queries: mpsc::Sender<Query>) -> Result<()> {
    let unix = tokio::net::UnixListener::from_std(unix).context("take over the Unix socket")?;
    let tcp = tcp.map(tokio::net::TcpListener::from_std).transpose().context("take over the TCP socket")?;
    let on_unix = serve::unix(unix, queries.clone());
    match tcp {
        Some(tcp) => drop(tokio::join!(on_unix, serve::tcp(tcp, queries))),
        None => on_unix.await,
    }
    Ok(())
}

fn bind_tcp(address: SocketAddr) -> Result<TcpListener> {
    let listener = match TcpListener::bind(address) {
        Ok(listener) => listener,
        Err(e) if e.kind() == ErrorKind::AddrInUse => {
            bail!("the admin address {address} is taken by another process; choose another --admin-address, or `off`")
        }
        Err(e) => return Err(e).with_context(|| format!("bind the admin address {address}")),
    };
    listener.set_nonblocking(true)?;
    Ok(listener)
}

fn bind_unix(path: &Path) -> Result<UnixListener> {
    let shown = path.display();
    if let Some(directory) = path.parent().filter(|d| !d.as_os_str().is_empty()) {
        fs::create_dir_all(directory).with_context(|| format!("make the directory of the admin socket {shown}"))?;
    }
    match UnixStream::connect(path) {
        Ok(_) => bail!("another agent answers on the admin socket {shown}; stop it, or choose another --admin-socket"),
        // Nobody listens: a killed agent left the file.
        Err(e) if e.kind() == ErrorKind::ConnectionRefused => {
            fs::remove_file(path).with_context(|| format!("remove the stale admin socket {shown}"))?;
        }
        Err(_) => {}
    }
    let listener = UnixListener::bind(path).with_context(|| format!("bind the admin socket {shown}"))?;
    // What it shows is for root: names, addresses and traffic of every tenant.
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).with_context(|| format!("protect {shown}"))?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}
