//! Clients that are dropped for exceeding limits, as one value and as a table.

use std::fmt::Write as _;

use serde::{Deserialize, Serialize};

use super::status::Status;
use super::table::{Rows, duration, section};
use crate::model::offence::{DroppedClient, LimitDropReading};

/// Clients that the status shows in text; `sluicegate limits list` has all.
const MOST: usize = 20;
const OFF: &str = "clients are not dropped for exceeding limits (`--enable-limit-drop`)\n";
const EARLIER: &str = "(an agent before this one)";

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LimitDropStatus {
    pub clients: Vec<DroppedStatus>,
    /// Since the agent started.
    pub dropped: u64,
    /// Of clients that are never dropped.
    pub spared: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DroppedStatus {
    pub client: String,
    /// Whose limits it exceeded; `None`: an earlier agent knew.
    pub ingress: Option<String>,
    pub left_seconds: u64,
}

impl LimitDropStatus {
    pub(super) fn of(r: &LimitDropReading) -> Self {
        let client = |c: &DroppedClient| DroppedStatus {
            client: c.client.to_string(),
            ingress: c.owner.as_ref().map(ToString::to_string),
            left_seconds: c.left.as_secs(),
        };
        Self { clients: r.clients.iter().map(client).collect(), dropped: r.dropped, spared: r.spared }
    }

    pub(super) fn rows(&self, most: usize) -> Rows {
        let mut rows = vec![["CLIENT", "FOR THE LIMITS OF", "LEFT"].map(str::to_owned).to_vec()];
        rows.extend(self.clients.iter().take(most).map(|c| {
            let ingress = c.ingress.clone().unwrap_or_else(|| EARLIER.to_owned());
            vec![c.client.clone(), ingress, duration(c.left_seconds)]
        }));
        if self.clients.len() > most {
            rows.push(vec![format!("{} more", self.clients.len() - most), "`sluicegate limits list`".to_owned()]);
        }
        rows
    }
}

/// The status's section.
pub(super) fn show(out: &mut String, status: &Status) {
    if let Some(drops) = &status.limit_drops {
        section(out, "DROPPED CLIENTS", &drops.rows(MOST));
    }
}

/// What `sluicegate limits list` prints.
pub fn list(status: &Status) -> String {
    let Some(drops) = &status.limit_drops else { return OFF.to_owned() };
    let mut out = match drops.clients.len() {
        0 => "no client is dropped".to_owned(),
        1 => "1 client is dropped".to_owned(),
        n => format!("{n} clients are dropped"),
    };
    let _ =
        writeln!(out, " now, {} were since the agent started; {} times one was spared", drops.dropped, drops.spared);
    section(&mut out, "DROPPED CLIENTS", &drops.rows(usize::MAX));
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(clients: usize) -> LimitDropStatus {
        let client = |i: usize| DroppedStatus {
            client: format!("198.51.100.{i}"),
            ingress: (i > 0).then(|| "shop/web".to_owned()),
            left_seconds: 30,
        };
        LimitDropStatus { clients: (0..clients).map(client).collect(), dropped: 9, spared: 2 }
    }

    #[test]
    fn a_few_are_shown_and_the_others_counted() {
        let rows = status(25).rows(20);
        assert_eq!(rows.len(), 22);
        assert_eq!(rows[1], ["198.51.100.0", EARLIER, "30 s"]);
        assert_eq!(rows[2], ["198.51.100.1", "shop/web", "30 s"]);
        assert_eq!(rows[21][0], "5 more");
        assert_eq!(status(0).rows(20).len(), 1, "a heading alone is not printed");
    }
}
