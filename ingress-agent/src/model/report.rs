//! What this node can say of itself to the cluster: the agent's control thread fills it in, `status` passes it on.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use super::conflict::Conflict;
use super::snapshot::Snapshot;

#[derive(Clone, Debug, Default)]
pub struct Report {
    /// The newest plan. Its rejections are true whether or not it is in force.
    pub planned: Arc<Snapshot>,
    /// What both the data plane and the proxy have in force. Generation 0: nothing yet.
    pub in_force: Arc<Snapshot>,
    /// Addresses that this node holds and has announced.
    pub announced: BTreeSet<IpAddr>,
    /// What it sees others use on its LAN. A few: what is more, `sluicegate status` shows.
    pub conflicts: BTreeSet<Conflict>,
    /// The facts are the cluster's own, all of them and of now: something that they do not name is not there.
    pub complete: bool,
    /// The agent is on its way out.
    pub stopping: bool,
}
