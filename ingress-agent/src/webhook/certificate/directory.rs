//! A certificate that somebody else renews, in files. Read again and again, since a mounted Secret changes by symbolic links in a
//! way that depends on the kubelet.

use std::fs;
use std::path::Path;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result};
use tracing::{info, warn};

use super::Served;
use super::pair::{certified, times_of};
use crate::webhook::health::Health;

const LOOK: Duration = Duration::from_secs(5);

pub(super) async fn keep(directory: &Path, served: &Served, health: &Health) {
    let mut known: Option<(String, String)> = None;
    loop {
        match look(directory, &mut known, served) {
            Ok(expired) => health.certificate(expired),
            // What was served before is served on.
            Err(e) => health.certificate(Some(format!("{e:#}"))),
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// What is wrong with a certificate that is served all the same: it has expired.
fn look(directory: &Path, known: &mut Option<(String, String)>, served: &Served) -> Result<Option<String>> {
    let read = |name: &str| {
        let path = directory.join(name);
        fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))
    };
    let files = (read("tls.crt")?, read("tls.key")?);
    let shown = directory.display();
    let (_, not_after) = times_of(&files.0).with_context(|| format!("read tls.crt in {shown}"))?;
    if known.as_ref() != Some(&files) {
        // One of the two may be renewed already and the other not yet: the next look finds them together.
        served
            .set(certified(&files.0, &files.1).with_context(|| format!("take the certificate in {shown}"))?, not_after);
        info!("the certificate in {shown} is served");
        *known = Some(files);
    }
    let over = SystemTime::now().duration_since(not_after).ok();
    let over =
        over.map(|ago| format!("the certificate in {shown} expired {} s ago, and nobody renewed it", ago.as_secs()));
    if let Some(text) = &over {
        warn!("{text}");
    }
    Ok(over)
}
