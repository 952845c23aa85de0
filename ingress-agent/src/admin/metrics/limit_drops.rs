//! Clients that are dropped for exceeding limits, as metrics; none where that is off.

use std::collections::BTreeMap;
use std::fmt;

use prometheus_client::encoding::DescriptorEncoder;

use super::{counters, gauges};
use crate::model::offence::LimitDropReading;
use crate::model::snapshot::ObjectName;

pub(super) fn encode(e: &mut DescriptorEncoder, r: &LimitDropReading) -> fmt::Result {
    let none = ObjectName::new("", "");
    let mut by_owner = BTreeMap::<&ObjectName, u32>::new();
    for client in &r.clients {
        *by_owner.entry(client.owner.as_deref().unwrap_or(&none)).or_default() += 1;
    }
    let help = "Clients that are dropped now, by the Ingress whose limits they exceeded.";
    let mut now = gauges(e, "sluicegate_limit_dropped_clients", help)?;
    for (owner, clients) in by_owner {
        now.gauge(&[("namespace", &owner.namespace), ("ingress", &owner.name)], f64::from(clients))?;
    }
    counters(e, "sluicegate_limit_drops", "Times that a client was dropped for exceeding limits.")?
        .count(&[], r.dropped)?;
    let help = "Times that a client would have been, but never is.";
    counters(e, "sluicegate_limit_drops_spared", help)?.count(&[], r.spared)
}
