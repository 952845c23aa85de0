//! Clients that went on exceeding limits: the proxy tells of them, the data plane drops them, and here stands who never is. Whoever is on our
//! side is spared: dropping an edge, a node with its pods, or an endpoint would harm more than it helps.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use tracing::{debug, info, warn};

use super::Control;
use crate::dataplane::Dataplane;
use crate::model::facts::NodeFacts;
use crate::model::objects::Objects;
use crate::model::offence::{LimitDropReading, Offence};

/// Offences that may wait for the control thread.
const WAITING: usize = 256;
/// Who is on our side is looked up anew at most so often, and only where there are offences.
const FRESH: Duration = Duration::from_secs(1);
/// Lines a minute about single clients; the rest are told as a number.
const LINES: u32 = 10;
const MINUTE: Duration = Duration::from_mins(1);

/// What the control thread knows of them.
#[derive(Debug, Default)]
pub(super) struct LimitDrops {
    /// Of the cluster, or of the manifests.
    pub(super) nodes: Objects<NodeFacts>,
    /// What each address of our side is, and since when that is known.
    ours: HashMap<IpAddr, &'static str>,
    known: Option<Instant>,
    lines: Lines,
    dropped: u64,
    spared: u64,
}

/// How much the log is told.
#[derive(Debug, Default)]
struct Lines {
    /// When the minute began, and lines since.
    minute: Option<Instant>,
    told: u32,
    untold: u32,
}

impl Lines {
    fn may_tell(&mut self, now: Instant) -> bool {
        self.minute.get_or_insert(now);
        let may = self.told < LINES;
        if may {
            self.told += 1;
        } else {
            self.untold += 1;
        }
        may
    }

    /// How many were left out of a minute that is over.
    fn left_out(&mut self, now: Instant) -> u32 {
        if self.minute.is_none_or(|began| now < began + MINUTE) {
            return 0;
        }
        std::mem::take(self).untold
    }
}

/// Where the proxy tells of offences, and where they come out.
pub(super) fn channel(enabled: bool) -> (Option<mpsc::Sender<Offence>>, mpsc::Receiver<Offence>) {
    let (tell, offences) = mpsc::channel(WAITING);
    (enabled.then_some(tell), offences)
}

impl Control {
    /// What has come, and what waits behind it: a flood of them is one thing that happened.
    pub(super) fn offended(&mut self, first: &Offence, more: &mut mpsc::Receiver<Offence>) {
        self.judge(first);
        for _ in 0..WAITING {
            let Ok(offence) = more.try_recv() else { return };
            self.judge(&offence);
        }
    }

    fn judge(&mut self, offence: &Offence) {
        let now = Instant::now();
        let Offence { client, owner, lasts } = offence;
        if let Some(what) = self.why_spared(*client, now) {
            self.limit_drops.spared += 1;
            debug!(%client, ingress = %owner, "exceeds limits, and is not dropped: {what}");
            return;
        }
        let result = self.dataplane.drop_client(offence);
        self.limit_drops.dropped += u64::from(matches!(result, Ok(true)));
        if matches!(result, Ok(false)) || !self.limit_drops.lines.may_tell(now) {
            return;
        }
        match result {
            Ok(_) => info!(%client, ingress = %owner, ?lasts, "exceeded limits too often: dropped before the proxy"),
            Err(e) => warn!("dataplane: {client}, which exceeds the limits of {owner}, cannot be dropped: {e:#}"),
        }
    }

    /// Why this one is never dropped.
    fn why_spared(&mut self, client: IpAddr, now: Instant) -> Option<&'static str> {
        if self.limit_drops.known.is_none_or(|known| now >= known + FRESH) {
            self.limit_drops.ours = self.ours();
            self.limit_drops.known = Some(now);
        }
        if self.config.limit_drop_exempt.iter().any(|range| range.contains(&client)) {
            return Some("it is exempt");
        }
        let what = self.limit_drops.ours.get(&client).copied();
        what.or_else(|| Dataplane::is_own(client).then_some("it is this node"))
    }

    fn ours(&self) -> HashMap<IpAddr, &'static str> {
        let mut ours = HashMap::new();
        for pool in self.in_force.pools.values() {
            ours.extend(pool.backends.iter().map(|b| (b.address.ip(), "it is an endpoint")));
        }
        ours.extend(self.in_force.vips.keys().map(|vip| (*vip, "it is a virtual address")));
        ours.extend(self.limit_drops.nodes.iter().flat_map(|n| &n.addresses).map(|a| (*a, "it is a node")));
        let peers = self.config.dataplane.sync.iter().flat_map(|sync| &sync.peers);
        let peers = peers.chain(self.config.vips.vrrp.iter().flat_map(|vrrp| &vrrp.peers));
        ours.extend(peers.map(|peer| (*peer, "it is another edge")));
        if let Some(vips) = self.vips.as_ref().filter(|_| self.config.vips.vrrp.is_some()) {
            let heard = vips.elections().routers.into_iter().filter_map(|router| router.other);
            ours.extend(heard.map(|other| (other.address, "it is another edge")));
        }
        ours
    }

    /// An operator's word for a client.
    pub(super) fn release(&mut self, client: IpAddr) -> Result<String, String> {
        if !self.config.dataplane.limit_drop {
            return Err("clients are not dropped for exceeding limits (`--enable-limit-drop`)".into());
        }
        match self.dataplane.release_client(client) {
            Ok(true) => Ok(format!("{client} is let go")),
            Ok(false) => Err(format!("{client} is not dropped: see `sluicegate limits list`")),
            Err(e) => Err(format!("{e:#}")),
        }
    }

    /// Once a second.
    pub(super) fn tell_dropped(&mut self, now: Instant) {
        let left_out = self.limit_drops.lines.left_out(now);
        if left_out > 0 {
            info!("{left_out} more clients exceeded limits too often within a minute: `sluicegate limits list`");
        }
    }

    /// `None`: it is off.
    pub(super) fn limit_drops(&self) -> Option<LimitDropReading> {
        let LimitDrops { dropped, spared, .. } = self.limit_drops;
        let clients = || self.dataplane.dropped_clients();
        self.config.dataplane.limit_drop.then(|| LimitDropReading { clients: clients(), dropped, spared })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_of_offenders_is_a_few_lines_a_minute() {
        let (mut lines, begun) = (Lines::default(), Instant::now());
        let told = (0..1000).filter(|i| lines.may_tell(begun + Duration::from_millis(*i))).count();
        assert_eq!(told, 10);
        assert_eq!(lines.left_out(begun + Duration::from_secs(59)), 0, "the minute is not over");
        assert_eq!(lines.left_out(begun + MINUTE), 990);
        assert_eq!(lines.left_out(begun + MINUTE * 3), 0, "nothing more to tell");
        assert!(lines.may_tell(begun + MINUTE * 3));
    }
}
