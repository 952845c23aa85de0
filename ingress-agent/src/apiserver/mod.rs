//! What everybody who asks an API server has to know: how to reach it, how long to wait after a failure, how to say what
//! failed to the one who can mend it, and where such work runs. For `sources` and `status`, and for nobody else: no other room knows Kubernetes.
#![forbid(unsafe_code)]

pub mod failure;

pub mod backoff;

pub mod background;

mod renew;

use std::path::Path;
use std::time::Duration;

use anyhow::Context;
use kube::Client;
use kube::config::{KubeConfigOptions, Kubeconfig};

use renew::Renewing;

/// Lost packets are repeated after 1 and 3 s; what takes longer is tried again on a new connection.
const CONNECT: Duration = Duration::from_secs(5);

/// A client, and the server's address for people. Without a kubeconfig: with the service account of the pod that we run in.
/// It belongs to the runtime that calls, and follows the files that it is made of.
pub async fn client(kubeconfig: Option<&Path>) -> anyhow::Result<(Client, String)> {
    let files = renew::read(kubeconfig);
    let (client, url) = make(kubeconfig).await?;
    let namespace = client.default_namespace().to_owned();
    let renewing = Renewing::new(kubeconfig, client, url.clone(), files);
    Ok((Client::new(renewing, namespace), url))
}

async fn make(kubeconfig: Option<&Path>) -> anyhow::Result<(Client, String)> {
    let mut config = match kubeconfig {
        Some(path) => {
            let shown = path.display();
            let file = Kubeconfig::read_from(path).with_context(|| format!("read the kubeconfig {shown}"))?;
            kube::Config::from_custom_kubeconfig(file, &KubeConfigOptions::default())
                .await
                .with_context(|| format!("understand the kubeconfig {shown}"))?
        }
        None => kube::Config::incluster().context("read the service account of this pod")?,
    };
    // Who waits is decided in one place, with jitter; and a failure that is being retried in silence cannot be told.
    config.default_retry = false;
    config.connect_timeout = Some(CONNECT);
    let url = config.cluster_url.to_string();
    let client = Client::try_from(config).context("make a client for the API server")?;
    Ok((client, url))
}
