//! Status and explanations as text for people. Pure.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::query::Explanation;
use super::status::{HealthStatus, ServiceStatus, Status, Traffic};

/// `before` is an earlier reading and how many seconds lie between: with it, rates are shown.
pub fn status(now: &Status, before: Option<(&Status, f64)>) -> String {
    let mut out = String::new();
    head(&mut out, now);
    section(&mut out, "INTERFACES", &interfaces(now));
    section(&mut out, "ADDRESSES", &vips(now));
    section(&mut out, "ELECTIONS", &super::elections::rows(&now.elections));
    out += &super::elections::foreign(&now.elections);
    section(&mut out, "SERVICES", &services(now, before));
    if let Some(sync) = &now.sync {
        section(&mut out, "FLOW SYNC", &sync.rows());
        for note in sync.notes() {
            let _ = writeln!(out, "  {note}");
        }
    }
    section(&mut out, "ROUTES", &routes(now, before));
    section(&mut out, "HEALTH CHECKS", &health(now));
    super::limit_drops::show(&mut out, now);
    section(&mut out, "CERTIFICATES", &certificates(now));
    section(&mut out, "PACKETS", &verdicts(now, before));
    problems(&mut out, now);
    out
}

pub fn explanation(e: &Explanation) -> String {
    let mut out = format!("{}\n", e.answer);
    for (i, step) in e.steps.iter().enumerate() {
        let _ = writeln!(out, "{:>3}. {step}", i + 1);
    }
    let width = e.facts.keys().map(String::len).max().unwrap_or(0);
    for (name, value) in &e.facts {
        let _ = writeln!(out, "     {name:<width$}  {value}");
    }
    out
}

fn head(out: &mut String, s: &Status) {
    let ready = if s.ready { "ready" } else { "NOT READY" };
    let applied: Vec<_> = s.rooms.iter().map(|r| format!("{} {}", r.name, r.applied)).collect();
    let _ = writeln!(out, "sluicegate {} on {}: {ready}, up {}", s.version, s.node, duration(s.uptime_seconds));
    let _ = writeln!(out, "generation {} planned; applied: {}", s.planned_generation, applied.join(", "));
    if !s.source.name.is_empty() {
        let age = match (s.source.behind_seconds, s.source.saved_seconds_ago) {
            (_, Some(saved)) => format!("as saved {} ago", duration(saved)),
            (Some(behind), None) => format!("as of {} ago", duration(behind)),
            (None, None) => "current".to_owned(),
        };
        let _ = writeln!(out, "facts from {}: {age}", s.source.name);
    }
    let _ = writeln!(out, "flows {} of {}", grouped(s.flows), grouped(s.flow_capacity));
    for reason in &s.not_ready {
        let _ = writeln!(out, "  ! {reason}");
    }
    for note in &s.notes {
        let _ = writeln!(out, "  ! {note}");
    }
    for room in &s.rooms {
        for problem in room.problems.iter().filter(|p| !s.not_ready.contains(p)) {
            let _ = writeln!(out, "  ! {}: {problem}", room.name);
        }
    }
}

pub(super) type Rows = Vec<Vec<String>>;

/// Columns as wide as their widest cell. The first row is the heading. Nothing is printed for a heading alone.
pub(super) fn section(out: &mut String, title: &str, rows: &[Vec<String>]) {
    if rows.len() < 2 {
        return;
    }
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |c: usize| rows.iter().filter_map(|r| r.get(c)).map(|cell| cell.chars().count()).max().unwrap_or(0);
    let widths: Vec<_> = (0..columns).map(width).collect();
    let _ = writeln!(out, "\n{title}");
    for row in rows {
        let cells: Vec<_> = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        let _ = writeln!(out, "  {}", cells.join("  ").trim_end());
    }
}

fn row<const N: usize>(cells: [&str; N]) -> Vec<String> {
    cells.map(str::to_owned).to_vec()
}

fn interfaces(s: &Status) -> Rows {
    let mut rows = vec![row(["NAME", "XDP", "NOTE"])];
    rows.extend(s.interfaces.iter().map(|i| row([&i.name, &i.mode, i.note.as_deref().unwrap_or("")])));
    rows
}

/// Those that fail, each; of the others how many there are.
fn health(s: &Status) -> Rows {
    let mut rows = vec![row(["ENDPOINT", "POOL", "CHECK", "STATE", "WHY"])];
    let (well, ill): (Vec<_>, Vec<_>) = s.health.iter().partition(|h| h.well);
    let why = |h: &HealthStatus| h.reason.clone().unwrap_or_default();
    rows.extend(ill.iter().map(|h| row([&h.endpoint, &h.pool, &h.check, "FAILS", &why(h)])));
    if !well.is_empty() {
        rows.push(row([&format!("{} more", well.len()), "", "", "well", ""]));
    }
    rows
}

fn vips(s: &Status) -> Rows {
    let mut rows = vec![row(["ADDRESS", "HERE", "ON", "OWNERS", "NOTE"])];
    for v in &s.vips {
        let here = match (v.wanted, v.held) {
            (true, true) => "held",
            (true, false) => "MISSING",
            (false, true) => "leaving",
            (false, false) => "no",
        };
        let claimed = v.claimed_by.as_ref().map(|mac| format!("also claimed by {mac}"));
        let note: Vec<_> = v.fault.iter().cloned().chain(claimed).collect();
        let on = if v.wanted {
            format!("{} ({})", s.vip_interface, s.vip_link.trim_start_matches("is "))
        } else {
            String::new()
        };
        rows.push(row([&v.address, here, &on, &v.owners.join(", "), &note.join("; ")]));
    }
    rows
}

fn services(s: &Status, before: Option<(&Status, f64)>) -> Rows {
    let old: BTreeMap<&str, &ServiceStatus> =
        before.iter().flat_map(|(b, _)| b.services.iter().map(|v| (&*v.frontend, v))).collect();
    let seconds = before.map(|(_, seconds)| seconds);
    let mut rows = vec![row([
        "FRONTEND / BACKEND",
        "OWNER / NODE",
        "MODE",
        "STATE",
        "WEIGHT",
        "IN pkt/s",
        "IN bit/s",
        "OUT bit/s",
        "FLOWS/s",
        "PACKETS",
        "FLOWS",
    ])];
    for service in &s.services {
        let was = old.get(&*service.frontend);
        let ready = service.backends.iter().filter(|b| b.state == "ready").count();
        let state = match &*service.kind {
            "l7" => "proxy".to_owned(),
            _ => format!("{ready}/{} ready", service.backends.len()),
        };
        let mut cells = row([&service.frontend, &service.owner, &service.kind, &state, ""]);
        cells.extend(traffic(&service.traffic, was.map(|w| &w.traffic), seconds));
        rows.push(cells);
        let old: BTreeMap<&str, &Traffic> =
            was.iter().flat_map(|w| w.backends.iter().map(|b| (&*b.address, &b.traffic))).collect();
        for b in &service.backends {
            let node = b.node.as_deref().unwrap_or("");
            let mut cells = row([&format!("  {}", b.address), node, &b.forwarding, &b.state, &b.weight.to_string()]);
            cells.extend(traffic(&b.traffic, old.get(&*b.address).copied(), seconds));
            rows.push(cells);
        }
    }
    rows
}

fn traffic(now: &Traffic, before: Option<&Traffic>, seconds: Option<f64>) -> [String; 6] {
    let rate = |column: fn(&Traffic) -> u64, factor: f64| match (before, seconds) {
        (Some(b), Some(s)) if s > 0.0 => scaled(column(now).saturating_sub(column(b)) as f64 * factor / s),
        _ => "-".to_owned(),
    };
    [
        rate(|t| t.rx_packets, 1.0),
        rate(|t| t.rx_bytes, 8.0),
        rate(|t| t.tx_bytes, 8.0),
        rate(|t| t.new_flows, 1.0),
        grouped(now.rx_packets + now.tx_packets),
        grouped(now.new_flows),
    ]
}

fn routes(s: &Status, before: Option<(&Status, f64)>) -> Rows {
    let old: BTreeMap<(&str, &str), u64> =
        before.iter().flat_map(|(b, _)| b.routes.iter().map(|r| ((&*r.owner, &*r.rule), r.requests))).collect();
    let mut rows = vec![row(["RULE", "OWNER", "req/s", "REQUESTS", "5xx", "MEAN ms"])];
    for r in &s.routes {
        let was = old.get(&(&*r.owner, &*r.rule)).copied().unwrap_or(0);
        let rate = before
            .filter(|(_, s)| *s > 0.0)
            .map_or_else(|| "-".to_owned(), |(_, s)| scaled(r.requests.saturating_sub(was) as f64 / s));
        let mean = format!("{:.2}", r.mean_milliseconds);
        rows.push(row([&r.rule, &r.owner, &rate, &grouped(r.requests), &grouped(r.errors), &mean]));
    }
    rows
}

fn certificates(s: &Status) -> Rows {
    let mut rows = vec![row(["SECRET", "EXPIRES", "NAMES"])];
    for c in &s.certificates {
        let left = match u64::try_from(c.expires_in_seconds) {
            Ok(left) => format!("in {}", duration(left)),
            Err(_) => "EXPIRED".into(),
        };
        rows.push(row([&c.secret, &left, &c.names.join(", ")]));
    }
    rows
}

fn verdicts(s: &Status, before: Option<(&Status, f64)>) -> Rows {
    let old: BTreeMap<&str, u64> =
        before.iter().flat_map(|(b, _)| b.verdicts.iter().map(|v| (&*v.verdict, v.packets))).collect();
    let mut rows = vec![row(["VERDICT", "pkt/s", "PACKETS", "MEANING"])];
    for v in s.verdicts.iter().filter(|v| v.packets > 0) {
        let was = old.get(&*v.verdict).copied().unwrap_or(0);
        let rate = before
            .filter(|(_, s)| *s > 0.0)
            .map_or_else(|| "-".to_owned(), |(_, s)| scaled(v.packets.saturating_sub(was) as f64 / s));
        rows.push(row([&v.verdict, &rate, &grouped(v.packets), &v.meaning]));
    }
    rows
}

fn problems(out: &mut String, s: &Status) {
    if s.rejections.is_empty() {
        return;
    }
    let _ = writeln!(out, "\nNOT TAKEN");
    for r in &s.rejections {
        let place = if r.place.is_empty() { String::new() } else { format!("{}: ", r.place) };
        let name = if r.namespace.is_empty() { r.name.clone() } else { format!("{}/{}", r.namespace, r.name) };
        let field = if r.field.is_empty() { String::new() } else { format!(", {}", r.field) };
        let _ = writeln!(out, "  {}: {place}{} {name}{field}: {}", r.severity, r.kind, r.reason);
    }
}

/// 12345678 → `12,345,678`.
fn grouped(n: u64) -> String {
    let digits = n.to_string();
    let mut out = String::new();
    for (i, c) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(c);
    }
    out
}

/// 1234567.0 → `1.2M`.
fn scaled(value: f64) -> String {
    for (bound, unit) in [(1e9, "G"), (1e6, "M"), (1e4, "k")] {
        if value >= bound {
            let scale = if unit == "k" { 1e3 } else { bound };
            return format!("{:.1}{unit}", value / scale);
        }
    }
    format!("{value:.0}")
}

pub(super) fn duration(seconds: u64) -> String {
    match seconds {
        s if s >= 2 * 86_400 => format!("{} d", s / 86_400),
        s if s >= 2 * 3_600 => format!("{} h", s / 3_600),
        s if s >= 120 => format!("{} min", s / 60),
        s => format!("{s} s"),
    }
}

#[cfg(test)]
#[path = "table_tests.rs"]
mod tests;
