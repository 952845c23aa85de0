//! Readings as Prometheus text. Each scrape renders one [`Readings`]; nothing is kept between scrapes.

mod elections;

mod l7;

mod limit_drops;

mod nginx;

mod process;

mod sync;

use std::fmt::{self, Write as _};
use std::sync::Mutex;
use std::time::{SystemTime, UNIX_EPOCH};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{
    DescriptorEncoder, EncodeLabelSet, LabelSetEncoder, MetricEncoder, NoLabelSet, text,
};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Registry;

use super::query::Readings;
use crate::model::rejection::Severity;
use crate::model::snapshot::PoolScope;
use crate::model::traffic::{AttachMode, Counts};

/// `application/openmetrics-text`, which is what the text is.
pub(super) const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

pub(super) fn render(readings: Box<Readings>) -> Result<String, fmt::Error> {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(Scrape(Mutex::new(readings))));
    let mut out = String::new();
    text::encode(&mut out, &registry)?;
    Ok(out)
}

#[derive(Debug)]
struct Scrape(Mutex<Box<Readings>>);

impl Collector for Scrape {
    fn encode(&self, mut encoder: DescriptorEncoder) -> Result<(), fmt::Error> {
        let readings = self.0.lock().map_err(|_| fmt::Error)?;
        agent(&mut encoder, &readings)?;
        attachments(&mut encoder, &readings)?;
        vips(&mut encoder, &readings)?;
        elections::encode(&mut encoder, &readings.elections)?;
        l4(&mut encoder, &readings)?;
        if let Some(sync) = &readings.sync {
            sync::encode(&mut encoder, sync)?;
        }
        l7::encode(&mut encoder, &readings.l7)?;
        if let Some(drops) = &readings.limit_drops {
            limit_drops::encode(&mut encoder, drops)?;
        }
        if let Some(nginx) = &readings.nginx {
            nginx::encode(&mut encoder, &readings, nginx)?;
        }
        process::encode(&mut encoder)
    }
}

/// Labels with values escaped (`OpenMetrics`, "ABNF": backslash, quote and line feed), which the encoder leaves to us.
#[derive(Debug)]
struct Labels<'a>(&'a [(&'static str, &'a str)]);

impl EncodeLabelSet for Labels<'_> {
    fn encode(&self, encoder: &mut LabelSetEncoder) -> Result<(), fmt::Error> {
        for (name, value) in self.0 {
            let mut label = encoder.encode_label();
            let mut key = label.encode_label_key()?;
            key.write_str(name)?;
            let mut out = key.encode_label_value()?;
            for c in value.chars() {
                match c {
                    '\\' => out.write_str("\\\\")?,
                    '"' => out.write_str("\\\"")?,
                    '\n' => out.write_str("\\n")?,
                    c => out.write_char(c)?,
                }
            }
            out.finish()?;
        }
        Ok(())
    }
}

/// One metric name and its samples.
struct Family<'a>(MetricEncoder<'a>);

fn counters<'a>(e: &'a mut DescriptorEncoder, name: &'a str, help: &str) -> Result<Family<'a>, fmt::Error> {
    Ok(Family(e.encode_descriptor(name, help, None, MetricType::Counter)?))
}

fn gauges<'a>(e: &'a mut DescriptorEncoder, name: &'a str, help: &str) -> Result<Family<'a>, fmt::Error> {
    Ok(Family(e.encode_descriptor(name, help, None, MetricType::Gauge)?))
}

impl Family<'_> {
    fn count(&mut self, labels: &[(&'static str, &str)], value: u64) -> fmt::Result {
        if labels.is_empty() {
            return self.0.encode_counter::<NoLabelSet, _, u64>(&value, None);
        }
        self.0.encode_family(&Labels(labels))?.encode_counter::<NoLabelSet, _, u64>(&value, None)
    }

    fn count_seconds(&mut self, value: f64) -> fmt::Result {
        self.0.encode_counter::<NoLabelSet, _, u64>(&value, None)
    }

    fn gauge(&mut self, labels: &[(&'static str, &str)], value: f64) -> fmt::Result {
        if labels.is_empty() {
            return self.0.encode_gauge(&value);
        }
        self.0.encode_family(&Labels(labels))?.encode_gauge(&value)
    }

    fn histogram(&mut self, labels: &[(&'static str, &str)], sum: f64, buckets: &[(f64, u64)]) -> fmt::Result {
        let count = buckets.iter().map(|(_, n)| n).sum();
        self.0.encode_family(&Labels(labels))?.encode_histogram::<NoLabelSet>(sum, count, buckets, None)
    }
}

fn agent(e: &mut DescriptorEncoder, r: &Readings) -> fmt::Result {
    let version = env!("CARGO_PKG_VERSION");
    let schema = xdp_ebpf::SCHEMA.to_string();
    gauges(e, "sluicegate_build_info", "Version of the agent and of its pinned maps.")?
        .gauge(&[("version", version), ("schema", &schema), ("node", &r.node)], 1.0)?;
    gauges(e, "sluicegate_ready", "1 if programs are attached, the generation is applied and listeners are up.")?
        .gauge(&[], f64::from(u8::from(r.not_ready.is_empty())))?;
    gauges(e, "sluicegate_planned_generation", "Generation that was planned last.")?
        .gauge(&[], r.snapshot.generation as f64)?;
    let source = super::status::source(r);
    gauges(
        e,
        "sluicegate_source_behind_seconds",
        "For how long changes of the source may have been missed; 0: followed.",
    )?
    .gauge(&[], source.behind_seconds.unwrap_or(0) as f64)?;
    gauges(e, "sluicegate_source_saved_seconds", "Age of saved facts that are in force; 0: none are.")?
        .gauge(&[], source.saved_seconds_ago.unwrap_or(0) as f64)?;
    let mut applied = gauges(e, "sluicegate_applied_generation", "Generation that a room has in force.")?;
    for room in &r.rooms {
        applied.gauge(&[("room", &room.name)], room.applied as f64)?;
    }
    let mut problems = gauges(e, "sluicegate_room_problems", "Problems that a room reports.")?;
    for room in &r.rooms {
        problems.gauge(&[("room", &room.name)], room.problems.len() as f64)?;
    }
    rejections(e, r)?;
    let mut expiry = gauges(e, "sluicegate_certificate_expiry_timestamp_seconds", "When a certificate expires.")?;
    for c in r.snapshot.certificates.values() {
        let at =
            c.not_after.duration_since(UNIX_EPOCH).map_or_else(|e| -e.duration().as_secs_f64(), |d| d.as_secs_f64());
        expiry.gauge(&[("namespace", &c.name.namespace), ("secret", &c.name.name)], at)?;
    }
    let mut expired =
        gauges(e, "sluicegate_certificate_expired", "1 if a certificate has expired or is not valid yet.")?;
    let now = SystemTime::now();
    for c in r.snapshot.certificates.values() {
        let bad = now > c.not_after || now < c.not_before;
        expired.gauge(&[("namespace", &c.name.namespace), ("secret", &c.name.name)], f64::from(u8::from(bad)))?;
    }
    Ok(())
}

fn rejections(e: &mut DescriptorEncoder, r: &Readings) -> fmt::Result {
    let mut by_kind = std::collections::BTreeMap::<(&str, &str), u32>::new();
    for rejection in &r.snapshot.rejections {
        let severity = match rejection.severity {
            Severity::Rejected => "rejected",
            Severity::Warning => "warning",
        };
        *by_kind.entry((&rejection.kind, severity)).or_default() += 1;
    }
    let mut family = gauges(e, "sluicegate_rejections", "Objects, or parts of them, that are not taken.")?;
    for ((kind, severity), n) in by_kind {
        family.gauge(&[("kind", kind), ("severity", severity)], f64::from(n))?;
    }
    Ok(())
}

fn attachments(e: &mut DescriptorEncoder, r: &Readings) -> fmt::Result {
    let mut family = gauges(e, "sluicegate_xdp_attached", "Interfaces with the XDP program, and how it runs there.")?;
    for a in &r.attachments {
        let mode = match a.mode {
            AttachMode::Native => "native",
            AttachMode::Generic => "generic",
        };
        family.gauge(&[("interface", &a.interface), ("mode", mode)], 1.0)?;
    }
    Ok(())
}

fn vips(e: &mut DescriptorEncoder, r: &Readings) -> fmt::Result {
    let interface = &r.holding.interface;
    let mut held = gauges(e, "sluicegate_vip_held", "1 if the address is on the interface.")?;
    for (address, state) in &r.holding.addresses {
        let value = f64::from(u8::from(state.present));
        held.gauge(&[("address", &address.to_string()), ("interface", interface)], value)?;
    }
    let mut announced =
        counters(e, "sluicegate_vip_announcements", "Gratuitous ARPs and neighbour advertisements sent.")?;
    for (address, state) in &r.holding.addresses {
        announced.count(&[("address", &address.to_string())], state.announced)?;
    }
    let mut claimed =
        gauges(e, "sluicegate_vip_claimed_elsewhere", "1 if another machine was seen to claim the address.")?;
    for (address, state) in &r.holding.addresses {
        claimed.gauge(&[("address", &address.to_string())], f64::from(u8::from(!state.claims.is_empty())))?;
    }
    Ok(())
}

/// Name, help and column of [`Counts`].
type Column = (&'static str, &'static str, fn(&Counts) -> u64);

fn l4(e: &mut DescriptorEncoder, r: &Readings) -> fmt::Result {
    let mut verdicts = counters(e, "sluicegate_xdp_packets", "Packets by what became of them.")?;
    for (label, _, packets) in &r.l4.verdicts {
        verdicts.count(&[("verdict", label)], *packets)?;
    }
    gauges(e, "sluicegate_flows", "Flows that are remembered.")?.gauge(&[], r.l4.flows as f64)?;
    gauges(e, "sluicegate_flow_capacity", "Flows that can be remembered.")?.gauge(&[], r.l4.flow_capacity as f64)?;

    let frontend: [Column; 5] = [
        ("sluicegate_frontend_rx_packets", "Packets from clients.", |c| c.rx_packets),
        ("sluicegate_frontend_rx_bytes", "Bytes from clients, layer 3 upwards.", |c| c.rx_bytes),
        ("sluicegate_frontend_tx_packets", "Packets back to clients.", |c| c.tx_packets),
        ("sluicegate_frontend_tx_bytes", "Bytes back to clients, layer 3 upwards.", |c| c.tx_bytes),
        ("sluicegate_frontend_new_flows", "Flows that began.", |c| c.new_flows),
    ];
    let rows: Vec<_> =
        r.l4.frontends
            .iter()
            .map(|(key, counts)| {
                let owner = r.snapshot.frontends.get(key).map(|f| f.owner.clone()).unwrap_or_default();
                (key.vip.to_string(), key.protocol.to_string(), key.port.to_string(), owner, counts)
            })
            .collect();
    for (name, help, column) in frontend {
        let mut family = counters(e, name, help)?;
        for (vip, protocol, port, owner, counts) in &rows {
            let labels = [
                ("vip", &**vip),
                ("protocol", protocol),
                ("port", port),
                ("namespace", &owner.namespace),
                ("service", &owner.name),
            ];
            family.count(&labels, column(counts))?;
        }
    }

    let backend: [Column; 5] = [
        ("sluicegate_backend_rx_packets", "Packets to the backend.", |c| c.rx_packets),
        ("sluicegate_backend_rx_bytes", "Bytes to the backend, layer 3 upwards.", |c| c.rx_bytes),
        ("sluicegate_backend_tx_packets", "Packets from the backend.", |c| c.tx_packets),
        ("sluicegate_backend_tx_bytes", "Bytes from the backend, layer 3 upwards.", |c| c.tx_bytes),
        ("sluicegate_backend_new_flows", "Flows that the backend got.", |c| c.new_flows),
    ];
    // One that never saw a packet is left out: five lines for each of 100,000 idle endpoints help nobody.
    let rows: Vec<_> =
        r.l4.backends
            .iter()
            .filter(|(_, _, counts)| *counts != Counts::default())
            .map(|(pool, address, counts)| {
                (pool, pool.port.to_string(), pool.protocol.to_string(), address.to_string(), counts)
            })
            .collect();
    for (name, help, column) in backend {
        let mut family = counters(e, name, help)?;
        for (pool, port, protocol, address, counts) in &rows {
            let labels = [
                ("namespace", &*pool.service.namespace),
                ("service", &pool.service.name),
                ("port", port),
                ("protocol", protocol),
                ("backend", address),
                // A Service may have this pool and one of all its endpoints.
                ("scope", "local"),
            ];
            let used = if pool.scope == PoolScope::Node { &labels[..] } else { &labels[..5] };
            family.count(used, column(counts))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
