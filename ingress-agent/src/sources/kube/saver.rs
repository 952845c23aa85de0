//! When facts are saved: in the background, some time after a change, and when the agent stops.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::task::JoinHandle;
use tokio::time::Instant;
use tracing::warn;

use super::saved::{self, Saved, Whose};
use crate::model::facts::Facts;

/// Between two saves, at least. What is lost by a crash in between, the API server or the old file says again.
const PAUSE: Duration = Duration::from_secs(5);
/// And this many times what the last one took: saving a large and busy cluster takes a hundredth of a core at most.
const SHARE: u32 = 100;

/// What an attempt took, and how it ended.
type Ended = (Duration, anyhow::Result<()>);

/// Saves facts. Without a directory it does nothing.
#[derive(Debug)]
pub(super) struct Saver {
    directory: Option<PathBuf>,
    /// Facts that are not on disk yet, and whose.
    unsaved: Option<(Arc<Facts>, Whose)>,
    running: Option<JoinHandle<Ended>>,
    next: Instant,
    told: String,
}

impl Saver {
    pub(super) fn new(directory: Option<PathBuf>) -> Self {
        Self { directory, unsaved: None, running: None, next: Instant::now(), told: String::new() }
    }

    pub(super) fn load(&self, whose: &Whose) -> Option<Saved> {
        match saved::load(self.directory.as_ref()?, whose) {
            Ok(saved) => saved,
            Err(e) => {
                warn!("{e:#}");
                None
            }
        }
    }

    /// These are the facts now.
    pub(super) fn changed(&mut self, facts: &Arc<Facts>, whose: &Whose) {
        if self.directory.is_some() {
            self.unsaved = Some((Arc::clone(facts), whose.clone()));
        }
    }

    /// Nothing has changed, and every watch is followed.
    pub(super) fn unchanged(&self, now: SystemTime) {
        if let (Some(directory), None, None) = (&self.directory, &self.unsaved, &self.running) {
            saved::still_true(directory, now);
        }
    }

    /// Returns when there was something to do and it was done or begun; never, where there is nothing.
    pub(super) async fn turn(&mut self) {
        if let Some(running) = &mut self.running {
            let ended = running.await;
            self.running = None;
            self.ended(ended);
            return;
        }
        if self.unsaved.is_none() {
            return std::future::pending().await;
        }
        tokio::time::sleep_until(self.next).await;
        self.begin();
    }

    /// Saves what is not saved yet.
    pub(super) async fn finish(&mut self) {
        while self.running.is_some() || self.unsaved.is_some() {
            self.next = Instant::now();
            self.turn().await;
        }
    }

    /// Tells a failure once, however often it is tried again.
    fn ended(&mut self, ended: Result<Ended, tokio::task::JoinError>) {
        let (took, result) = match ended {
            Ok((took, result)) => (took, result),
            Err(e) => (Duration::ZERO, Err(e.into())),
        };
        self.next = Instant::now() + PAUSE.max(took * SHARE);
        let why = result.err().map(|e| format!("{e:#}")).unwrap_or_default();
        if !why.is_empty() && why != self.told {
            warn!("{why}; a start without an API server would not know what is in force now");
        }
        self.told = why;
    }

    fn begin(&mut self) {
        let (Some(directory), Some((facts, whose))) = (self.directory.clone(), self.unsaved.take()) else { return };
        self.running = Some(tokio::task::spawn_blocking(move || {
            let began = Instant::now();
            let result = saved::save(&directory, &whose, &facts);
            (began.elapsed(), result)
        }));
    }
}
