//! Elections: who has what, what was heard, and what was thrown away and why.

use std::fmt;

use prometheus_client::encoding::DescriptorEncoder;

use super::{counters, gauges};
use crate::model::election::{ElectionReport, VirtualRouter};

/// Nothing where nothing is elected.
pub(super) fn encode(e: &mut DescriptorEncoder, r: &ElectionReport) -> fmt::Result {
    if r.rejected.is_empty() {
        return Ok(());
    }
    let vrid = |router: &VirtualRouter| router.vrid.to_string();
    let family = |router: &VirtualRouter| {
        if router.addresses.iter().any(std::net::IpAddr::is_ipv4) { "ipv4" } else { "ipv6" }
    };
    let mut active = gauges(e, "sluicegate_vrrp_active", "1 if this node is the Active Router of the VRID.")?;
    for router in &r.routers {
        let value = f64::from(u8::from(router.state == "active"));
        active.gauge(&[("vrid", &vrid(router)), ("family", family(router))], value)?;
    }
    let mut priority = gauges(e, "sluicegate_vrrp_priority", "Priority of this node; 0: it takes no part.")?;
    for router in &r.routers {
        let value = if router.state == "idle" { 0.0 } else { f64::from(router.priority) };
        priority.gauge(&[("vrid", &vrid(router)), ("family", family(router))], value)?;
    }
    type Column = (&'static str, &'static str, fn(&VirtualRouter) -> u64);
    let columns: [Column; 5] = [
        ("sluicegate_vrrp_takeovers", "Times that this node became the Active Router.", |r| r.became_active),
        ("sluicegate_vrrp_step_downs", "Times that it ceased to be.", |r| r.stepped_down),
        ("sluicegate_vrrp_fenced", "Of these, because its own thread woke too late.", |r| r.fenced),
        ("sluicegate_vrrp_adverts_sent", "Adverts sent.", |r| r.adverts_sent),
        ("sluicegate_vrrp_adverts_heard", "Adverts of other nodes.", |r| r.adverts_heard),
    ];
    for (name, help, column) in columns {
        let mut samples = counters(e, name, help)?;
        for router in &r.routers {
            samples.count(&[("vrid", &vrid(router)), ("family", family(router))], column(router))?;
        }
    }
    let mut rejected = counters(e, "sluicegate_vrrp_rejected", "VRRP packets without effect, by reason.")?;
    for (reason, n) in &r.rejected {
        rejected.count(&[("reason", reason)], *n)?;
    }
    counters(e, "sluicegate_vrrp_unsent", "Adverts that the kernel did not take.")?.count(&[], r.unsent)?;
    let mut foreign =
        gauges(e, "sluicegate_vrrp_foreign_router", "A router that uses a VRID of ours for other addresses.")?;
    for f in &r.foreign {
        foreign.gauge(&[("vrid", &f.vrid.to_string()), ("address", &f.address.to_string()), ("mac", &f.mac)], 1.0)?;
    }
    gauges(e, "sluicegate_vrrp_draining", "1 if this node gives its addresses away.")?
        .gauge(&[], f64::from(u8::from(r.draining)))
}
