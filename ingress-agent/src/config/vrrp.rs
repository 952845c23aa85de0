//! What the options of elections mean.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::time::Duration;

use super::value::{self, Reader};
use crate::args::VrrpArgs;
use crate::checks::{Check, Probe};
use crate::plan::{ElectionOptions, FixedRouter};
use crate::vip::{AuthOptions, Checksum, KeyFile, Password, Version, VrrpOptions};

/// keepalived's bounds of `time_window`, and what it has at least where it is not said.
const WINDOW_MOST: Duration = Duration::from_mins(5);
const WINDOW_DEFAULT: Duration = Duration::from_secs(5);

/// What elections need: the plan's part, that of the VIP thread, and what is checked besides.
#[derive(Clone, Debug)]
pub(super) struct Elected {
    pub(super) plan: ElectionOptions,
    pub(super) vips: VrrpOptions,
    pub(super) checks: Vec<Check>,
}

/// `None`: addresses are held as the plan says.
pub(super) fn parse(r: &mut Reader, args: &VrrpArgs, drain: Duration) -> Option<Elected> {
    let elects = r.choose("--vip-mode", &args.vip_mode, &[("static", false), ("vrrp", true)])?;
    let versions = [("2", Version::V2), ("3", Version::V3)];
    let version = r.choose("--vrrp-version", &args.vrrp_version, &versions).unwrap_or(Version::V3);
    let kinds = [("pseudo-header", Checksum::WithPseudoHeader), ("plain", Checksum::Plain)];
    let interval = interval(r, &args.vrrp_interval_ms, version);
    let elected = Elected {
        plan: ElectionOptions {
            vrids: r.read("--vrrp-vrids", &args.vrrp_vrids, vrids).unwrap_or(1..=255),
            fixed: fixed(r, &args.vrrp_vrid),
            nodes: r.list("--vrrp-node", &args.vrrp_nodes, value::node_name),
            priority: said(args.vrrp_priority.as_ref())
                .and_then(|t| r.read("--vrrp-priority", t, |t| value::number(t, 1, 255).map(|n| n as u8))),
        },
        vips: VrrpOptions {
            interval,
            version,
            checksum: r.choose("--vrrp-checksum", &args.vrrp_checksum, &kinds).unwrap_or_default(),
            password: password(r, args, version),
            auth: auth(r, args, version, interval),
            preempt: !args.vrrp_nopreempt,
            preempt_delay: r
                .read("--vrrp-preempt-delay", &args.vrrp_preempt_delay, value::duration)
                .unwrap_or_default(),
            peers: r.list("--vrrp-peer", &args.vrrp_peers, peer),
            drain,
        },
        checks: r.list("--vrrp-check", &args.vrrp_checks, check),
    };
    elects.then_some(elected)
}

fn said(text: Option<&String>) -> Option<&str> {
    text.map(String::as_str).filter(|t| !t.is_empty())
}

/// RFC 9568 §5.2.7: twelve bits of hundredths of a second. RFC 3768 §5.3.7: eight bits of seconds.
fn interval(r: &mut Reader, text: &str, version: Version) -> Duration {
    let parse = |text: &str| match version {
        Version::V3 => match value::number(text, 10, 40_950)? {
            ms if ms % 10 == 0 => Ok(ms),
            _ => Err("is not a multiple of 10, which is the unit of VRRP version 3".to_owned()),
        },
        Version::V2 => match value::number(text, 10, 255_000)? {
            ms if ms % 1000 == 0 => Ok(ms),
            _ => Err("is not a multiple of 1000: VRRP version 2 knows whole seconds only".to_owned()),
        },
    };
    let ms = r.read("--vrrp-interval-ms", text, parse).unwrap_or(100);
    Duration::from_millis(u64::from(ms))
}

fn vrids(text: &str) -> Result<RangeInclusive<u8>, String> {
    let wanted = || "is not a range such as 1-255".to_owned();
    let (low, high) = text.split_once('-').ok_or_else(wanted)?;
    let vrid = |t: &str| t.trim().parse::<u8>().ok().filter(|v| *v != 0).ok_or_else(wanted);
    let (low, high) = (vrid(low)?, vrid(high)?);
    if low > high {
        return Err("ends before it begins".into());
    }
    Ok(low..=high)
}

fn fixed(r: &mut Reader, typed: &[String]) -> Vec<FixedRouter> {
    let mut fixed: Vec<FixedRouter> = Vec::new();
    for text in typed.iter().filter(|t| !t.is_empty()) {
        let Some(router) = r.read("--vrrp-vrid", text, router) else { continue };
        let v4 = |f: &FixedRouter| f.addresses.iter().any(IpAddr::is_ipv4);
        if fixed.iter().any(|f| f.vrid == router.vrid && v4(f) == v4(&router)) {
            r.mistake("--vrrp-vrid", format!("{text}: VRID {} is given twice in one family", router.vrid));
        } else if let Some(twice) = router.addresses.iter().find(|a| fixed.iter().any(|f| f.addresses.contains(a))) {
            r.mistake("--vrrp-vrid", format!("{text}: {twice} has a VRID already"));
        } else {
            fixed.push(router);
        }
    }
    fixed
}

fn router(text: &str) -> Result<FixedRouter, String> {
    let (vrid, list) = text.split_once('=').ok_or("is not of the form 51=203.0.113.10,203.0.113.11")?;
    let vrid = vrid.trim().parse::<u8>().ok().filter(|v| *v != 0).ok_or("does not begin with a VRID (1 to 255)")?;
    let address = |t: &str| {
        let t = t.trim();
        // keepalived writes `203.0.113.10/24`, and an IPv6 router has a link-local address first.
        let bare = t.split_once('/').map_or(t, |(bare, _)| bare);
        match bare.parse::<IpAddr>() {
            Ok(IpAddr::V6(v6)) if v6.is_unicast_link_local() => Ok(IpAddr::V6(v6)),
            _ => value::vip(bare).map_err(|why| format!("{t} {why}")),
        }
    };
    Ok(FixedRouter { vrid, addresses: list.split(',').map(address).collect::<Result<Vec<_>, _>>()? })
}

/// IPv6 peers are reached from a link-local address, like multicast.
fn peer(text: &str) -> Result<IpAddr, String> {
    match text.trim().parse::<IpAddr>() {
        Ok(a) if a.is_unspecified() || a.is_multicast() || a.is_loopback() => Err("is no other node's address".into()),
        Ok(IpAddr::V6(v6)) if !v6.is_unicast_link_local() => {
            Err("is not link-local: over IPv6 adverts come from link-local addresses, so peers must name these".into())
        }
        Ok(a) => Ok(a),
        Err(_) => Err("is not an IP address".into()),
    }
}

fn password(r: &mut Reader, args: &VrrpArgs, version: Version) -> Option<Password> {
    let text = said(args.vrrp_auth_pass.as_ref())?;
    if version == Version::V3 {
        r.mistake("--vrrp-auth-pass", "is of VRRP version 2 (`--vrrp-version 2`); version 3 has no authentication");
        return None;
    }
    let parse = |text: &str| {
        let mut password = Password::default();
        match password.get_mut(..text.len()) {
            Some(room) => room.copy_from_slice(text.as_bytes()),
            None => return Err("is longer than eight bytes, of which keepalived uses the first eight".to_owned()),
        }
        Ok(password)
    };
    r.read_secret("--vrrp-auth-pass", text, parse)
}

fn auth(r: &mut Reader, args: &VrrpArgs, version: Version, interval: Duration) -> Option<AuthOptions> {
    let keys = r.list("--vrrp-auth-hmac-key", &args.vrrp_auth_hmac_keys, key_file);
    let modes = [("enforce", false), ("permissive", true)];
    let permissive = r.choose("--vrrp-auth-hmac-mode", &args.vrrp_auth_hmac_mode, &modes).unwrap_or_default();
    let window = match said(args.vrrp_auth_hmac_window.as_ref()) {
        // As keepalived has it.
        None => {
            Some(Duration::from_secs((interval * 3).as_secs_f64().ceil() as u64).clamp(WINDOW_DEFAULT, WINDOW_MOST))
        }
        Some("none") => None,
        Some(text) => r.read("--vrrp-auth-hmac-window", text, window),
    };
    let ids: BTreeSet<u8> = keys.iter().map(|k| k.id).collect();
    if ids.len() < keys.len() {
        r.mistake("--vrrp-auth-hmac-key", "has an id twice");
    }
    if version == Version::V2 && !keys.is_empty() {
        r.mistake("--vrrp-auth-hmac-key", "is of VRRP version 3, and --vrrp-version is 2");
    }
    (!keys.is_empty()).then_some(AuthOptions { keys, permissive, window })
}

fn key_file(text: &str) -> Result<KeyFile, String> {
    let (id, path) = text.split_once('=').ok_or("is not of the form 1=/etc/sluicegate/vrrp.key")?;
    let id = id.trim().parse::<u8>().ok().filter(|id| *id != 0).ok_or("does not begin with an id from 1 to 255")?;
    match path.trim() {
        "" => Err("names no file".into()),
        path => Ok(KeyFile { id, path: path.into() }),
    }
}

fn window(text: &str) -> Result<Duration, String> {
    match value::duration(text)? {
        time if time.subsec_nanos() == 0 && (Duration::from_secs(1)..=WINDOW_MOST).contains(&time) => Ok(time),
        _ => Err("is not a time of whole seconds from 1s to 300s, nor none".into()),
    }
}

fn check(text: &str) -> Result<Check, String> {
    let (weight, what) = text.split_once('=').ok_or("is not of the form -50=http://… or -50=exec:…")?;
    let weight = weight.trim().parse::<i32>().ok().filter(|w| (-253..=0).contains(w));
    let weight = weight.ok_or("does not begin with a weight from -253 to 0")?;
    let probe = if let Some(command) = what.strip_prefix("exec:") {
        let mut words = command.split_whitespace().map(str::to_owned);
        let program = words.next().ok_or("names no command")?;
        if !program.starts_with('/') {
            return Err("names a command without its absolute path".into());
        }
        Probe::Command { program, arguments: words.collect() }
    } else {
        let url: http::Uri = what.parse().map_err(|_| "is neither a URL nor exec:COMMAND".to_owned())?;
        let authority = url.authority().filter(|_| url.scheme_str() == Some("http"));
        let authority = authority.ok_or("is not a URL of the form http://HOST:PORT/PATH")?;
        Probe::Http {
            authority: format!("{}:{}", authority.host(), authority.port_u16().unwrap_or(80)),
            path: url.path_and_query().map_or("/", |p| p.as_str()).to_owned(),
        }
    };
    Ok(Check { weight, probe })
}
