//! HTTP requests and `WebSockets` through the proxy while something happens, from a thread in the client's namespace.

use std::net::SocketAddr;
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use tokio::sync::watch;

use crate::lan::Host;
use crate::load::Stop;
use crate::load::web::{self, Pace, Site};

/// Of each address. New connections and requests on one that is open are both at risk.
const PACE: Pace = Pace { workers: 2, requests_a_connection: 10, pause: Duration::from_millis(5) };
/// Between two messages on a WebSocket.
const BREATH: Duration = Duration::from_millis(20);

/// Running until it is asked for its findings, or dropped.
#[derive(Debug)]
pub(super) struct Requests {
    stop: watch::Sender<bool>,
    thread: JoinHandle<Result<Asked>>,
}

/// What became of them.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Asked {
    pub(super) answered: u64,
    pub(super) failed: usize,
    /// Of two `WebSockets`.
    pub(super) sockets_lost: usize,
}

impl Requests {
    pub(super) fn start(client: &Host, host: &'static str, to: [SocketAddr; 2]) -> Result<Self> {
        let client = client.clone();
        let (stop, stopped) = Stop::by_hand();
        let (ready, opened) = std::sync::mpsc::channel();
        let thread = std::thread::Builder::new().name("requests".into()).spawn(move || {
            client.enter_thread()?;
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(run(host, to, stopped, ready))
        })?;
        // Without an answer it has failed, and says so when it is asked.
        let _ = opened.recv();
        Ok(Self { stop, thread })
    }

    pub(super) fn end(self) -> Result<Asked> {
        let _ = self.stop.send(true);
        self.thread.join().map_err(|_| anyhow!("the thread of requests panicked"))?
    }
}

async fn run(host: &str, to: [SocketAddr; 2], stop: Stop, ready: std::sync::mpsc::Sender<()>) -> Result<Asked> {
    let sites = to.map(|to| Site::plain(to, host, "/"));
    let mut sockets = tokio::task::JoinSet::new();
    for site in &sites {
        let mut socket = web::WebSocket::open(site).await.context("open a WebSocket")?;
        let mut stop = stop.clone();
        sockets.spawn(async move {
            loop {
                socket.echo(b"still on").await?;
                tokio::select! {
                    () = stop.wait() => return anyhow::Ok(()),
                    () = tokio::time::sleep(BREATH) => {}
                }
            }
        });
    }
    let _ = ready.send(());
    let outcomes = [web::load(&sites[0], PACE, stop.clone()), web::load(&sites[1], PACE, stop)];
    let [a, b] = outcomes;
    let (a, b) = tokio::join!(a, b);
    let sockets_lost = sockets.join_all().await.iter().filter(|ended| ended.is_err()).count();
    Ok(Asked { answered: a.ok + b.ok, failed: a.failures.len() + b.failures.len(), sockets_lost })
}
