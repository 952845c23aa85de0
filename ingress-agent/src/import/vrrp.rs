//! `vrrp_instance`, `vrrp_script`, `vrrp_sync_group` and `global_defs`: the options of an election. keepalived has them for each
//! instance, an agent for all of its addresses; where instances differ, that is said.

use std::collections::BTreeMap;
use std::net::IpAddr;

use super::Imported;
use super::syntax::Statement;

/// keepalived's priority where none is given (RFC 9568 §5.2.4).
const PRIORITY: i32 = 100;

/// What one instance says.
#[derive(Default)]
struct Instance {
    vrid: Option<u8>,
    interface: Option<String>,
    priority: Option<i32>,
    /// Milliseconds.
    interval: Option<u64>,
    version: Option<String>,
    preempt_delay: Option<String>,
    password: Option<String>,
    nopreempt: bool,
    plain_checksum: bool,
    addresses: Vec<IpAddr>,
    peers: Vec<String>,
    checks: Vec<String>,
}

/// A `vrrp_script`.
struct Script {
    command: String,
    weight: i32,
}

#[derive(Default)]
struct Global {
    version: Option<String>,
    plain_checksum: bool,
}

/// Adds the options to `out`, and what is not about elections to `rest`. Returns the addresses of all instances.
pub(super) fn convert<'a>(
    statements: &'a [Statement],
    out: &mut Imported,
    rest: &mut Vec<&'a Statement>,
) -> Vec<IpAddr> {
    let mut global = Global::default();
    let mut scripts = BTreeMap::new();
    for statement in statements {
        match statement.keyword() {
            "global_defs" => global_defs(statement, &mut global, out),
            "vrrp_script" => {
                if let (Some(name), Some(script)) = (statement.argument(0), script(statement, out)) {
                    scripts.insert(name.to_owned(), script);
                }
            }
            _ => {}
        }
    }
    let mut instances = Vec::new();
    for statement in statements {
        match statement.keyword() {
            "global_defs" | "vrrp_script" => {}
            "vrrp_instance" => instances.push((statement, instance(statement, &scripts, out))),
            "vrrp_sync_group" => out.left_out(
                statement,
                "addresses that have to move together need one VRID; give all of them to one --vrrp-vrid once keepalived is gone",
            ),
            "vrrp_track_process" | "track_file" | "vrrp_track_file" | "garp_group" | "static_ipaddress" | "static_routes"
            | "static_rules" | "track_bfd" | "bfd_instance" => {
                out.left_out(statement, "there is no counterpart; --vrrp-check runs a command or asks a URL");
            }
            _ => rest.push(statement),
        }
    }
    if instances.is_empty() {
        return Vec::new();
    }
    options(&global, &instances, out);
    instances.into_iter().flat_map(|(_, i)| i.addresses).collect()
}

fn global_defs(statement: &Statement, global: &mut Global, out: &mut Imported) {
    for s in &statement.block {
        match s.keyword() {
            "vrrp_version" => global.version = s.argument(0).map(str::to_owned),
            "v3_checksum_as_v2" | "vrrp_v3_checksum_as_v2" => global.plain_checksum = true,
            // Names and protection of keepalived itself.
            "router_id"
            | "script_user"
            | "enable_script_security"
            | "max_auto_priority"
            | "process_names"
            | "vrrp_rt_priority"
            | "vrrp_no_swap"
            | "checker_rt_priority"
            | "dynamic_interfaces" => {}
            "vrrp_garp_master_delay"
            | "vrrp_garp_master_repeat"
            | "vrrp_garp_master_refresh"
            | "vrrp_garp_master_refresh_repeat"
            | "vrrp_garp_interval"
            | "vrrp_gna_interval" => {
                out.left_out(s, "announcements have a schedule of their own: at once, after 50 ms, 200 ms, 1, 2 and 5 s, then every minute");
            }
            "notification_email"
            | "notification_email_from"
            | "smtp_server"
            | "smtp_connect_timeout"
            | "smtp_helo_name"
            | "smtp_alert" => {
                out.left_out(s, "no mail is sent; alert on the metrics or on Events");
            }
            _ => out.left_out(s, "there is no counterpart"),
        }
    }
}

fn script(statement: &Statement, out: &mut Imported) -> Option<Script> {
    let mut command = None;
    let mut weight = 0;
    for s in &statement.block {
        match s.keyword() {
            "script" => command = Some(s.words.iter().skip(1).cloned().collect::<Vec<_>>().join(" ")),
            "weight" => weight = s.argument(0).and_then(|w| w.parse().ok()).unwrap_or(0),
            "interval" | "fall" | "rise" if s.argument(0) == Some("1") => {}
            "interval" => out.left_out(s, "checks run every second"),
            "fall" | "rise" | "timeout" | "user" | "init_fail" => out.left_out(s, "checks have no such setting"),
            _ => out.left_out(s, "there is no counterpart"),
        }
    }
    let Some(command) = command.filter(|c| !c.is_empty()) else {
        out.left_out(statement, "it names no script");
        return None;
    };
    if !command.starts_with('/') {
        out.left_out(statement, "the command needs its absolute path");
        return None;
    }
    if command.contains(['|', '<', '>', '&', ';', '$', '`']) {
        out.left_out(statement, "no shell runs the command; put it into a file");
        return None;
    }
    Some(Script { command, weight })
}

fn instance(statement: &Statement, scripts: &BTreeMap<String, Script>, out: &mut Imported) -> Instance {
    let mut i = Instance::default();
    for s in &statement.block {
        let word = s.argument(0);
        match s.keyword() {
            "virtual_router_id" => i.vrid = word.and_then(|w| w.parse().ok()).filter(|v| *v != 0),
            "interface" => i.interface = word.map(str::to_owned),
            "priority" => i.priority = word.and_then(|w| w.parse().ok()),
            "advert_int" => i.interval = word.and_then(|w| w.parse::<f64>().ok()).map(|s| (s * 1000.0).round() as u64),
            "version" => i.version = word.map(str::to_owned),
            "nopreempt" => i.nopreempt = true,
            "preempt_delay" => i.preempt_delay = word.map(|w| format!("{w}s")),
            "v3_checksum_as_v2" => i.plain_checksum = true,
            "authentication" => authentication(s, &mut i, out),
            "auth_hmac" => out.left_out(
                s,
                "put each key into a file of its own: --vrrp-auth-hmac-key ID=FILE, that of active_key first; --vrrp-auth-hmac-mode and \
                 --vrrp-auth-hmac-window are mode and time_window (none: anti_replay monotonic)",
            ),
            "unicast_peer" => peers(s, &mut i),
            "virtual_ipaddress" => addresses(s, &mut i, out),
            "track_script" => track_scripts(s, scripts, &mut i, out),
            "track_interface" => track_interfaces(s, out),
            // The priority alone decides; keepalived's first state lasts for one interval.
            "state" | "preempt" | "accept" | "native_ipv6" | "dont_track_primary" | "higher_prio_send_advert" => {}
            "virtual_ipaddress_excluded" => {
                out.left_out(
                    s,
                    "add the addresses to --vrrp-vrid once keepalived is gone: until then both sides' lists must agree",
                );
            }
            "unicast_src_ip" | "mcast_src_ip" => out.left_out(s, "the source is the interface's own address"),
            "use_vmac" | "vmac_xmit_base" => {
                out.left_out(s, "an address keeps its node's MAC; who has it is announced");
            }
            "notify"
            | "notify_master"
            | "notify_backup"
            | "notify_fault"
            | "notify_stop"
            | "notify_master_rx_lower_pri"
            | "notify_deleted" => {
                out.left_out(s, "nothing is run; watch `sluicegate vip list -o json`, the metrics or the Events");
            }
            "smtp_alert" => out.left_out(s, "no mail is sent; alert on the metrics or on Events"),
            k if k.starts_with("garp_") => out.left_out(s, "announcements have a schedule of their own"),
            "virtual_routes" | "virtual_rules" => out.left_out(s, "routes are the node's own business"),
            "" => out.left_out(s, "a block without a name"),
            _ => out.left_out(s, "there is no counterpart"),
        }
    }
    if i.vrid.is_none() {
        out.left_out(statement, "it has no virtual_router_id from 1 to 255");
    }
    i
}

fn authentication(statement: &Statement, i: &mut Instance, out: &mut Imported) {
    for s in &statement.block {
        match (s.keyword(), s.argument(0)) {
            ("auth_type", Some("PASS")) => {}
            ("auth_type", _) => out.left_out(s, "of the authentications only PASS is spoken"),
            // Of longer ones keepalived uses eight bytes.
            ("auth_pass", Some(word)) => i.password = word.get(..word.len().min(8)).map(str::to_owned),
            _ => out.left_out(s, "there is no counterpart"),
        }
    }
}

fn peers(statement: &Statement, i: &mut Instance) {
    i.peers.extend(statement.block.iter().map(|s| s.keyword().to_owned()));
}

fn addresses(statement: &Statement, i: &mut Instance, out: &mut Imported) {
    for s in &statement.block {
        let bare = s.keyword().split('/').next().unwrap_or_default();
        let Ok(address) = bare.parse() else {
            out.left_out(s, "it is not an IP address");
            continue;
        };
        i.addresses.push(address);
        let mut words = s.words.iter().skip(1).map(String::as_str);
        while let Some(word) = words.next() {
            match word {
                "dev" if words.next() == i.interface.as_deref() => {}
                "dev" => out.note(s, format!("{bare} is held on --vip-interface, not on a device of its own")),
                "label" | "brd" | "scope" | "broadcast" | "preferred_lft" => drop(words.next()),
                "home" | "-nodad" | "mngtmpaddr" | "noprefixroute" => {}
                other => out.note(s, format!("`{other}` of {bare} is not carried over")),
            }
        }
    }
}

fn track_scripts(statement: &Statement, scripts: &BTreeMap<String, Script>, i: &mut Instance, out: &mut Imported) {
    for s in &statement.block {
        let Some(script) = scripts.get(s.keyword()) else {
            out.left_out(s, "there is no such vrrp_script that could be carried over");
            continue;
        };
        let weight = match s.words.iter().position(|w| w == "weight") {
            Some(at) => s.words.get(at + 1).and_then(|w| w.parse().ok()).unwrap_or(script.weight),
            None => script.weight,
        };
        if weight > 0 {
            out.note(s, format!("a success that adds {weight} became a failure that takes {weight} away, and the priority is {weight} higher"));
            i.priority = Some(i.priority.unwrap_or(PRIORITY) + weight);
        }
        i.checks.push(format!("{}={}", -weight.abs(), format_args!("exec:{}", script.command)));
    }
}

fn track_interfaces(statement: &Statement, out: &mut Imported) {
    for s in &statement.block {
        out.left_out(s, "the interface that carries the addresses, and those of --interface, are watched anyway");
    }
}

fn options(global: &Global, instances: &[(&Statement, Instance)], out: &mut Imported) {
    out.options.push(("--vip-mode", Some("vrrp".into())));
    if let Some(name) = one(instances, out, "interface", |i| i.interface.clone()) {
        out.options.push(("--interface", Some(name)));
    }
    // keepalived speaks version 2 over IPv4 unless it is told otherwise, and 3 over IPv6 in any case.
    let spoken = |i: &Instance| {
        let told = i.version.clone().or_else(|| global.version.clone());
        let v6 = !i.addresses.is_empty() && i.addresses.iter().all(IpAddr::is_ipv6);
        Some(if v6 { "3".to_owned() } else { told.unwrap_or_else(|| "2".into()) })
    };
    let version = one(instances, out, "version", spoken).unwrap_or_else(|| "3".into());
    if version == "2"
        && let Some((first, _)) = instances.first()
    {
        out.note(first, "keepalived speaks VRRP version 2 here, whose shortest interval is a second; leave --vrrp-version out once keepalived is gone");
    }
    out.options.push(("--vrrp-version", Some(version.clone())));
    let interval = one(instances, out, "advert_int", |i| Some(i.interval.unwrap_or(1000).to_string()));
    out.options.push(("--vrrp-interval-ms", Some(interval.unwrap_or_else(|| "1000".into()))));
    if let Some(priority) =
        one(instances, out, "priority", |i| Some(i.priority.unwrap_or(PRIORITY).clamp(1, 254).to_string()))
    {
        out.options.push(("--vrrp-priority", Some(priority)));
    }
    for (statement, i) in instances {
        let Some(vrid) = i.vrid else { continue };
        if i.addresses.is_empty() {
            out.left_out(statement, "it has no virtual_ipaddress");
            continue;
        }
        let list: Vec<String> = i.addresses.iter().map(IpAddr::to_string).collect();
        out.options.push(("--vrrp-vrid", Some(format!("{vrid}={}", list.join(",")))));
    }
    if one(instances, out, "nopreempt", |i| Some(i.nopreempt.to_string())).as_deref() == Some("true") {
        out.options.push(("--vrrp-nopreempt", None));
    }
    if let Some(delay) = one(instances, out, "preempt_delay", |i| i.preempt_delay.clone()) {
        out.options.push(("--vrrp-preempt-delay", Some(delay)));
    }
    if global.plain_checksum || instances.iter().any(|(_, i)| i.plain_checksum) {
        out.options.push(("--vrrp-checksum", Some("plain".into())));
    }
    if version == "2"
        && let Some(password) = one(instances, out, "auth_pass", |i| i.password.clone())
    {
        out.options.push(("--vrrp-auth-pass", Some(password)));
    }
    let mut peers: Vec<&String> = instances.iter().flat_map(|(_, i)| &i.peers).collect();
    let mut checks: Vec<&String> = instances.iter().flat_map(|(_, i)| &i.checks).collect();
    for list in [&mut peers, &mut checks] {
        list.sort();
        list.dedup();
    }
    out.options.extend(peers.into_iter().map(|p| ("--vrrp-peer", Some(p.clone()))));
    out.options.extend(checks.into_iter().map(|c| ("--vrrp-check", Some(c.clone()))));
}

/// What all instances say; `None`, with a note on the first that differs, where they do not agree.
fn one(
    instances: &[(&Statement, Instance)],
    out: &mut Imported,
    what: &str,
    of: impl Fn(&Instance) -> Option<String>,
) -> Option<String> {
    let said = instances.first().and_then(|(_, i)| of(i));
    let Some((other, i)) = instances.iter().find(|(_, i)| of(i) != said) else { return said };
    let shown = |v: Option<String>| v.unwrap_or_else(|| "nothing".into());
    out.note(other, format!(
        "{what} is {} here and {} in the first instance; an agent has one for all of its addresses, so it is left out",
        shown(of(i)),
        shown(said)
    ));
    None
}
