//! The flow sync's metrics; none where it is off.

use std::fmt;

use prometheus_client::encoding::DescriptorEncoder;

use super::{counters, gauges};
use crate::model::sync::SyncReading;

pub(super) fn encode(e: &mut DescriptorEncoder, r: &SyncReading) -> fmt::Result {
    gauges(e, "sluicegate_sync_settled", "1 if every peer has told all its flows once, or does not answer.")?
        .gauge(&[], f64::from(u8::from(r.settled)))?;
    gauges(e, "sluicegate_sync_flows", "Flows that peers have from this node.")?.gauge(&[], r.told as f64)?;
    gauges(e, "sluicegate_sync_late_seconds", "How long after its first second the latest flow was told.")?
        .gauge(&[], r.late.as_secs_f64())?;
    counters(e, "sluicegate_sync_entries_sent", "Entries sent, once for each peer.")?.count(&[], r.sent)?;
    let mut received = counters(e, "sluicegate_sync_entries_received", "Entries of peers, by what came of them.")?;
    for (what, count) in [("taken", r.taken), ("known", r.kept), ("deleted", r.deleted)] {
        received.count(&[("result", what)], count)?;
    }
    let mut rejected = counters(e, "sluicegate_sync_rejected", "Datagrams and entries without effect, by reason.")?;
    for (reason, count) in &r.rejected {
        rejected.count(&[("reason", reason)], *count)?;
    }
    let mut limited = counters(
        e,
        "sluicegate_sync_limited_requests",
        "Requests under limits that edges share: told to peers, left out of what they are told, heard from them.",
    )?;
    for (what, count) in [("told", r.limits_told), ("left_out", r.limits_left_out), ("heard", r.limits_heard)] {
        limited.count(&[("result", what)], count)?;
    }
    counters(e, "sluicegate_sync_datagrams_unsent", "Datagrams that the kernel did not take.")?.count(&[], r.unsent)?;
    let peers: Vec<_> = r.peers.iter().map(|peer| (peer.address.to_string(), peer)).collect();
    let mut heard = gauges(e, "sluicegate_sync_peer_heard", "1 if the peer was heard within three seconds.")?;
    for (address, peer) in &peers {
        heard.gauge(&[("peer", address)], f64::from(u8::from(peer.heard)))?;
    }
    let mut skew = gauges(e, "sluicegate_sync_peer_clock_seconds", "The peer's clock less this node's.")?;
    for (address, peer) in &peers {
        skew.gauge(&[("peer", address)], peer.skew_ms as f64 / 1000.0)?;
    }
    Ok(())
}
