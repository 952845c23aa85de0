//! Our annotations of an Ingress about clients that go on exceeding its limits. One that cannot be read is rejected alone; without
//! `limit-drop-after` nobody is dropped.

use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::care::{HOUR, SOONEST, duration, time};
use super::{Notes, annotation, annotation_field};
use crate::model::policy::LimitDrop;

pub(super) const LIMIT_DROP_AFTER: &str = "sluicegate.io/limit-drop-after";
pub(super) const LIMIT_DROP_FOR: &str = "sluicegate.io/limit-drop-for";

/// Long enough that an attacker has to slow down, and short for somebody who was taken for one.
const LASTS: Duration = Duration::from_mins(1);
const LASTS_LEAST: Duration = Duration::from_secs(1);
const REFUSALS_MOST: u32 = 100_000;

/// `limit-drop-after: 20/10s`, `limit-drop-for: 5m`.
pub(super) fn limit_drop(metadata: &ObjectMeta, notes: &mut Notes) -> Option<LimitDrop> {
    let Some(text) = annotation(metadata, LIMIT_DROP_AFTER) else {
        if annotation(metadata, LIMIT_DROP_FOR).is_some() {
            notes.warn(annotation_field(LIMIT_DROP_FOR), format!("changes nothing: there is no {LIMIT_DROP_AFTER}"));
        }
        return None;
    };
    let lasts = duration(metadata, notes, LIMIT_DROP_FOR, LASTS_LEAST, &format!("{LASTS:?} is used"));
    let Some((refusals, within)) = after(text) else {
        let reason = format!(
            "`{text}` is not a number of refusals from 1 to {REFUSALS_MOST} and a time from {SOONEST:?} to 60m, such as 20/10s; \
             nobody is dropped"
        );
        notes.reject(annotation_field(LIMIT_DROP_AFTER), reason);
        return None;
    };
    Some(LimitDrop { refusals, within, lasts: lasts.unwrap_or(LASTS) })
}

fn after(text: &str) -> Option<(u32, Duration)> {
    let (count, within) = text.split_once('/')?;
    let digits = count.bytes().all(|b| b.is_ascii_digit());
    let count = count.parse().ok().filter(|count| digits && (1..=REFUSALS_MOST).contains(count))?;
    let within = time(within).filter(|within| (SOONEST..=HOUR).contains(within))?;
    Some((count, within))
}
