//! Parsers of single values, and the reader that collects mistakes instead of stopping at the first.

use std::fmt::Display;
use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;

use crate::model::snapshot::ObjectName;
use crate::status::PublishedAddress;

/// Collects mistakes. A value that could not be read is replaced by anything: with a mistake nothing of it is used.
#[derive(Debug, Default)]
pub(super) struct Reader {
    mistakes: Vec<String>,
}

impl Reader {
    pub(super) fn mistake(&mut self, option: &str, what: impl Display) {
        self.mistakes.push(format!("{option} {what}"));
    }

    pub(super) fn read<T>(
        &mut self,
        option: &str,
        text: &str,
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) -> Option<T> {
        parse(text).map_err(|why| self.mistake(option, format_args!("{text}: {why}"))).ok()
    }

    /// `namespace/name`; an empty one was not said.
    pub(super) fn object(&mut self, option: &str, text: Option<&String>) -> Option<ObjectName> {
        text.filter(|t| !t.is_empty()).and_then(|t| self.read(option, t, object_name))
    }

    /// The name of an object that is in no namespace; an empty one was not said.
    pub(super) fn cluster_object(&mut self, option: &str, text: Option<&String>) -> Option<ObjectName> {
        let text = text.filter(|t| !t.is_empty())?;
        self.read(option, text, subdomain).map(|name| ObjectName::new("", name))
    }

    /// Does not repeat the text.
    pub(super) fn read_secret<T>(
        &mut self,
        option: &str,
        text: &str,
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) -> Option<T> {
        parse(text).map_err(|why| self.mistake(option, why)).ok()
    }

    /// Every item, without repetition, in the order given.
    pub(super) fn list<T: PartialEq>(
        &mut self,
        option: &str,
        items: &[String],
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Vec<T> {
        let mut list = Vec::new();
        for item in items.iter().filter(|i| !i.is_empty()) {
            match self.read(option, item, &parse) {
                Some(value) if !list.contains(&value) => list.push(value),
                _ => {}
            }
        }
        list
    }

    pub(super) fn choose<T: Copy>(&mut self, option: &str, text: &str, choices: &[(&str, T)]) -> Option<T> {
        let found = choices.iter().find(|(name, _)| *name == text).map(|(_, value)| *value);
        if found.is_none() {
            let names: Vec<_> = choices.iter().map(|(name, _)| *name).collect();
            self.mistake(option, format_args!("{text}: is none of {}", names.join(", ")));
        }
        found
    }

    pub(super) fn finish<T>(self, value: T) -> Result<T, Vec<String>> {
        if self.mistakes.is_empty() { Ok(value) } else { Err(self.mistakes) }
    }
}

pub(super) fn number(text: &str, least: u32, most: u32) -> Result<u32, String> {
    match text.replace('_', "").parse::<u32>() {
        Ok(n) if (least..=most).contains(&n) => Ok(n),
        _ => Err(format!("is not a number from {least} to {most}")),
    }
}

pub(super) fn port(text: &str) -> Result<u16, String> {
    match text.parse::<u16>() {
        Ok(port) if port != 0 => Ok(port),
        _ => Err("is not a port (1 to 65535)".into()),
    }
}

pub(super) fn port_range(text: &str) -> Result<RangeInclusive<u16>, String> {
    let wanted = || "is not a range such as 1024-65535".to_owned();
    let (low, high) = text.split_once('-').ok_or_else(wanted)?;
    let (low, high) = (port(low.trim()).map_err(|_| wanted())?, port(high.trim()).map_err(|_| wanted())?);
    if low > high {
        return Err("ends before it begins".into());
    }
    Ok(low..=high)
}

/// What stands before the `/` of annotations.
pub(super) fn annotations_prefix(text: &str) -> Result<String, String> {
    match node_name(text) {
        Ok(prefix) if prefix == "sluicegate.io" => Err("is the prefix of annotations of another meaning".into()),
        Ok(prefix) => Ok(prefix),
        Err(_) => Err("is not a DNS name in lower case, without the `/`".into()),
    }
}

/// An address, or a name that has one.
pub(super) fn published(text: &str) -> Result<PublishedAddress, String> {
    let text = text.trim();
    match text.parse() {
        Ok(address) => Ok(PublishedAddress::Address(address)),
        Err(_) => node_name(text)
            .map(PublishedAddress::Name)
            .map_err(|_| "is neither an IP address nor a DNS name in lower case".to_owned()),
    }
}

/// An address of another machine. Link-local ones would need an interface with them.
pub(super) fn node_address(text: &str) -> Result<IpAddr, String> {
    vip(text)
}

/// An address that a machine can have and that a client can reach.
pub(super) fn vip(text: &str) -> Result<IpAddr, String> {
    let address: IpAddr = text.trim().parse().map_err(|_| "is not an IP address".to_owned())?;
    if address.is_unspecified() || address.is_multicast() || address.is_loopback() {
        return Err("is not an address that a client can reach".into());
    }
    match address {
        IpAddr::V4(v4) if v4.is_broadcast() => Err("is the broadcast address".into()),
        IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some() => {
            Err("is an IPv4 address in IPv6's clothes; write it as IPv4".into())
        }
        IpAddr::V6(v6) if v6.is_unicast_link_local() => Err("is link-local".into()),
        _ => Ok(address),
    }
}

/// An address, or a range of them.
pub(super) fn range(text: &str) -> Result<IpNet, String> {
    let text = text.trim();
    let range = text.parse::<IpNet>().ok().map(|range| range.trunc());
    let range = range.or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from));
    range.ok_or_else(|| "is neither an address nor a range such as 198.51.100.0/24".into())
}

pub(super) fn socket_address(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| "is not an address and port such as 127.0.0.1:10254, nor `off`".to_owned())
}

/// linux/if.h: at most 15 bytes; `dev_valid_name` refuses slashes, colons and white space.
pub(super) fn interface(text: &str) -> Result<String, String> {
    let bad = |c: char| c == '/' || c == ':' || c.is_whitespace();
    if text.is_empty() || text.len() > 15 || text == "." || text == ".." || text.contains(bad) {
        return Err("is not a name that an interface can have".into());
    }
    Ok(text.to_owned())
}

/// RFC 1123 subdomain, as Kubernetes wants node names.
pub(super) fn node_name(text: &str) -> Result<String, String> {
    if text.is_empty() || text.len() > 253 || !text.split('.').all(|l| label(l, 63)) {
        return Err("is not a node name (lower-case letters, digits, dashes and dots)".into());
    }
    Ok(text.to_owned())
}

/// RFC 1123 label.
pub(super) fn namespace(text: &str) -> Result<String, String> {
    if label(text, 63) { Ok(text.to_owned()) } else { Err("is not the name of a namespace".into()) }
}

pub(super) fn subdomain(text: &str) -> Result<String, String> {
    node_name(text).map_err(|_| "is not an object's name (lower-case letters, digits, dashes and dots)".to_owned())
}

fn object_name(text: &str) -> Result<ObjectName, String> {
    match text.split_once('/') {
        Some((namespace, name))
            if label(namespace, 63) && name.len() <= 253 && name.split('.').all(|l| label(l, 253)) =>
        {
            Ok(ObjectName::new(namespace, name))
        }
        _ => Err("is not of the form namespace/name".into()),
    }
}

fn label(text: &str, longest: usize) -> bool {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    !text.is_empty()
        && text.len() <= longest
        && text.chars().all(plain)
        && !text.starts_with('-')
        && !text.ends_with('-')
}

pub(super) fn seed(text: &str) -> Result<u64, String> {
    let digits = text.strip_prefix("0x").unwrap_or(text);
    if digits.is_empty() || digits.len() > 16 || !digits.chars().all(|c| c.is_ascii_hexdigit()) {
        return Err("is not 1 to 16 hexadecimal digits".into());
    }
    u64::from_str_radix(digits, 16).map_err(|e| e.to_string())
}

pub(super) fn absolute_path(text: &str) -> Result<PathBuf, String> {
    let path = PathBuf::from(text);
    if path.is_absolute() { Ok(path) } else { Err("is not an absolute path".into()) }
}

/// unix(7): `sun_path` has 108 bytes, one of them for the final zero.
pub(super) fn unix_socket(text: &str) -> Result<PathBuf, String> {
    if text.is_empty() || text.len() > 107 {
        return Err("is not a path of 1 to 107 bytes, the most that a Unix socket can have".into());
    }
    Ok(text.into())
}

/// `500ms`, `30s`, `2m` or `1h`; at most a day.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    let split = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (digits, unit) = text.split_at(split);
    let milliseconds = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => return Err("is not a time such as 500ms, 30s or 2m".into()),
    };
    match digits.parse::<u64>().ok().and_then(|n| n.checked_mul(milliseconds)) {
        Some(ms) if ms <= 86_400_000 => Ok(Duration::from_millis(ms)),
        _ => Err("is not a time such as 500ms, 30s or 2m, up to a day".into()),
    }
}
