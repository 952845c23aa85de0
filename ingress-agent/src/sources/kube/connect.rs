//! The client of the API server, and whether that answers at all.

use std::time::Duration;

use anyhow::Context;
use kube::Client;
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;

use super::KubeOptions;
use super::follow::{News, Trouble, WatchId};
use crate::apiserver;
use crate::apiserver::backoff::{Backoff, chance};
use crate::model::source::SourceState;

/// Between two questions whether the API server is there, give or take a quarter. A hundred nodes ask it ten times a second,
/// and its answer costs it nothing.
const ASK: Duration = Duration::from_secs(10);
/// Until an answer is late.
const LATE: Duration = Duration::from_secs(5);

/// The client and the API server's address, when there is a configuration to make it of: a service account's token may be
/// mounted late.
pub(super) async fn connect(options: &KubeOptions, state: &watch::Sender<SourceState>) -> (Client, String) {
    let mut backoff = Backoff::default();
    let mut told = String::new();
    loop {
        match apiserver::client(options.kubeconfig.as_deref()).await {
            Ok((client, url)) => {
                state.send_modify(|s| {
                    s.name = format!("the API server {url}");
                    s.troubles.clear();
                });
                return (client, url);
            }
            Err(e) => {
                let why = format!("{e:#}");
                if why != told {
                    tracing::error!("{why}; trying again");
                }
                state.send_modify(|s| s.troubles = vec![why.clone()]);
                told = why;
            }
        }
        tokio::time::sleep(backoff.next(chance())).await;
    }
}

/// Asks the API server now and then whether it is there. An idle watch does not notice that the other side is gone: a host
/// that dies sends nothing, and that is what an idle watch expects. After two late answers `doubt` changes, once, and each
/// watch is taken up on a new connection.
pub(super) async fn ask(
    client: Client,
    id: WatchId,
    tell: mpsc::Sender<(WatchId, News)>,
    doubt: std::rc::Rc<watch::Sender<u64>>,
) {
    let mut failed = 0_u32;
    loop {
        tokio::time::sleep(ASK.mul_f64(0.75 + chance() / 2.0)).await;
        let news = match timeout(LATE, alive(&client)).await {
            Ok(Ok(())) => {
                failed = 0;
                News::Answers
            }
            Ok(Err(e)) => fails(&mut failed, &format!("{e:#}")),
            Err(_) => fails(&mut failed, &format!("no answer in {} s", LATE.as_secs())),
        };
        if tell.send((id, news)).await.is_err() {
            return;
        }
        if failed == 2 {
            doubt.send_modify(|count| *count += 1);
        }
    }
}

fn fails(failed: &mut u32, why: &str) -> News {
    *failed = failed.saturating_add(1);
    News::Fails(Trouble { text: format!("the API server does not answer: {why}"), stays: false })
}

/// `/livez` needs no rule of ours, and is never made to wait behind other requests (API priority and fairness).
async fn alive(client: &Client) -> anyhow::Result<()> {
    let request = http::Request::get("/livez").body(Vec::new()).context("make a request")?;
    match client.request_text(request).await {
        // Also "no" is an answer: the watches find out what it means for them.
        Ok(_) | Err(kube::Error::Api(_)) => Ok(()),
        Err(e) => Err(e.into()),
    }
}
