//! A client that is made anew when the files that it was made of have changed: a cluster's authority is rotated, and nobody restarts
//! the edge for it. (kube reads a service account's token again by itself, and nothing else.)
//!
//! Requests under way go on with the client that they began with. A file that cannot be used leaves the client as it was.

use std::fs;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use http::{Request, Response};
use kube::Client;
use kube::client::Body;
use kube::config::Kubeconfig;
use tokio::sync::Mutex;
use tower_service::Service;
use tracing::{info, warn};

use super::make;

/// Between two looks at the files. They are small, and looked at with the next request only.
const LOOK: Duration = Duration::from_secs(5);
const AUTHORITY: &str = "/var/run/secrets/kubernetes.io/serviceaccount/ca.crt";

/// What a client sends its requests with.
#[derive(Clone)]
pub(super) struct Renewing(Arc<Shared>);

struct Shared {
    kubeconfig: Option<PathBuf>,
    state: Mutex<State>,
}

struct State {
    client: Client,
    url: String,
    files: Files,
    looked: Instant,
    /// What was wrong with the files the last time.
    told: String,
}

/// Each file with its content; nothing where it cannot be read.
type Files = Vec<(PathBuf, Option<Vec<u8>>)>;

impl Renewing {
    pub(super) fn new(kubeconfig: Option<&Path>, client: Client, url: String, files: Files) -> Self {
        let state = State { client, url, files, looked: Instant::now(), told: String::new() };
        Self(Arc::new(Shared { kubeconfig: kubeconfig.map(Path::to_owned), state: Mutex::new(state) }))
    }
}

impl Shared {
    async fn client(&self) -> Client {
        let mut state = self.state.lock().await;
        if state.looked.elapsed() >= LOOK {
            state.looked = Instant::now();
            let files = read(self.kubeconfig.as_deref());
            if files != state.files {
                state.renew(self.kubeconfig.as_deref(), files).await;
            }
        }
        state.client.clone()
    }
}

impl State {
    async fn renew(&mut self, kubeconfig: Option<&Path>, files: Files) {
        let wrong = match make(kubeconfig).await {
            Ok((client, url)) if url == self.url => {
                info!("what the API server is known by has changed: it is read again");
                (self.client, self.files) = (client, files);
                self.told.clear();
                return;
            }
            // Facts are saved, and told of, by the server's address.
            Ok((_, url)) => format!("the API server is at {url} now, and the agent at {}: restart it", self.url),
            // It may be half written. The next look finds out.
            Err(e) => format!("{e:#}; what was known before is used"),
        };
        if self.told != wrong {
            warn!("{wrong}");
            self.told = wrong;
        }
    }
}

/// The files that a client is made of, now.
pub(super) fn read(kubeconfig: Option<&Path>) -> Files {
    let mut paths = vec![kubeconfig.map_or_else(|| PathBuf::from(AUTHORITY), Path::to_owned)];
    if let Some(Ok(config)) = kubeconfig.map(Kubeconfig::read_from) {
        let clusters = config.clusters.into_iter().filter_map(|named| named.cluster?.certificate_authority);
        let users = config.auth_infos.into_iter().filter_map(|named| named.auth_info);
        let users = users.flat_map(|user| [user.client_certificate, user.client_key]).flatten();
        paths.extend(clusters.chain(users).map(PathBuf::from));
    }
    paths.into_iter().map(|path| (path.clone(), fs::read(path).ok())).collect()
}

impl Service<Request<Body>> for Renewing {
    type Response = Response<Body>;
    type Error = kube::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, kube::Error>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), kube::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let shared = Arc::clone(&self.0);
        Box::pin(async move { shared.client().await.send(request).await })
    }
}
