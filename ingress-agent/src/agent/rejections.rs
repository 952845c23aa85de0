//! Tells the log what is newly not taken and what is taken again, each once, however often plans are made.

use tracing::{info, warn};

use crate::model::rejection::{Rejection, Severity};

/// A directory full of broken files must not fill the disk: beyond this, only the number is told.
const MOST: usize = 200;

/// Both lists are sorted, as in every snapshot.
pub(super) fn log(before: &[Rejection], now: &[Rejection]) {
    let appeared: Vec<_> = now.iter().filter(|r| before.binary_search(r).is_err()).collect();
    let gone: Vec<_> = before.iter().filter(|r| now.binary_search(r).is_err()).collect();
    for r in appeared.iter().take(MOST) {
        match r.severity {
            Severity::Rejected => warn!("not taken: {r}"),
            Severity::Warning => warn!("{r}"),
        }
    }
    for r in gone.iter().take(MOST) {
        info!("no longer: {r}");
    }
    let untold = appeared.len().saturating_sub(MOST) + gone.len().saturating_sub(MOST);
    if untold > 0 {
        warn!("{untold} more changes of this kind; `sluicegate status` and /debug/rejections list what is not taken");
    }
}
