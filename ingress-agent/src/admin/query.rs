//! What the window asks, and the plain values it gets. The answers are made by the control thread between two other
//! things; nothing here reaches into another room.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;

use crate::model::election::ElectionReport;
use crate::model::holding::Holding;
use crate::model::measure::Bounds;
use crate::model::offence::LimitDropReading;
use crate::model::snapshot::{Protocol, Snapshot};
use crate::model::source::SourceState;
use crate::model::sync::SyncReading;
use crate::model::traffic::{Attachment, L4Traffic, L7Traffic};

/// A question with the place for its answer. A dropped place means that the agent is ending.
#[derive(Debug)]
pub enum Query {
    /// Whether the control thread still turns.
    Alive(oneshot::Sender<()>),
    Readiness(oneshot::Sender<Readiness>),
    Readings(oneshot::Sender<Box<Readings>>),
    Explain(Box<Question>, oneshot::Sender<Explanation>),
    /// The only things that change anything are orders. They come by the Unix socket, which belongs to root.
    Order(Order, oneshot::Sender<Result<String, String>>),
    /// The same of a client that is dropped: it is let go.
    Release(IpAddr, oneshot::Sender<Result<String, String>>),
}

/// What an operator orders about virtual addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Order {
    Move { vip: IpAddr, node: String },
    Drain,
    Undrain,
}

impl Order {
    /// From the name of the order and its parameters.
    pub fn parse(name: &str, parameters: &[(String, String)]) -> Result<Self, String> {
        let of = |wanted: &str| parameters.iter().find(|(name, _)| name == wanted).map(|(_, value)| value.as_str());
        match name {
            "drain" => Ok(Self::Drain),
            "undrain" => Ok(Self::Undrain),
            "move" => {
                let vip = of("vip").unwrap_or_default();
                let vip = vip.parse().map_err(|_| format!("{vip}: is not an IP address"))?;
                let node = of("node").filter(|n| !n.is_empty()).ok_or("the node is missing")?;
                Ok(Self::Move { vip, node: node.to_owned() })
            }
            other => Err(format!("{other}: is none of move, drain, undrain")),
        }
    }
}

/// Whether traffic should be sent here.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Readiness {
    /// Why not; empty: it should.
    pub reasons: Vec<String>,
    /// What to know all the same, such as how old the facts are.
    pub notes: Vec<String>,
}

/// Everything that can be shown, read at one time.
#[derive(Clone, Debug)]
pub struct Readings {
    pub node: String,
    pub started: Instant,
    /// Planned last. What of it is in force, `rooms` says.
    pub snapshot: Arc<Snapshot>,
    pub rooms: Vec<Room>,
    pub not_ready: Vec<String>,
    pub notes: Vec<String>,
    pub source: SourceState,
    pub attachments: Vec<Attachment>,
    pub holding: Arc<Holding>,
    pub elections: ElectionReport,
    pub l4: L4Traffic,
    /// `None`: flows are not shared.
    pub sync: Option<SyncReading>,
    pub l7: L7Traffic,
    /// `None`: nobody is dropped for exceeding limits.
    pub limit_drops: Option<LimitDropReading>,
    /// `None`: nobody wants ingress-nginx's metrics.
    pub nginx: Option<NginxReading>,
}

/// What ingress-nginx's metrics are labelled with, everywhere.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NginxNames {
    /// `spec.controller` of the classes that are ours.
    pub class: String,
    /// The agent's own.
    pub namespace: String,
    /// With the label `host` (`--metrics-per-host`).
    pub per_host: bool,
    /// The label `status` is `4xx` and the like (`--report-status-classes`).
    pub status_classes: bool,
    /// The buckets in which requests are measured.
    pub bounds: Arc<Bounds>,
}

/// What those metrics show besides what others do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NginxReading {
    pub names: NginxNames,
    /// When the proxy last took a change.
    pub changed: Option<SystemTime>,
}

/// What a room says of itself: one generation, and what is wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Room {
    pub name: String,
    pub applied: u64,
    pub problems: Vec<String>,
}

/// What `explain` asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Question {
    L4 { protocol: Protocol, client: SocketAddr, vip: SocketAddr },
    Http(HttpQuestion),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpQuestion {
    /// `https://shop.example/cart?x=1`.
    pub url: http::Uri,
    pub method: http::Method,
    pub headers: http::HeaderMap,
    pub client: Option<IpAddr>,
}

/// What would happen, in one line, and the steps that lead there.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Explanation {
    pub answer: String,
    pub steps: Vec<String>,
    /// For programs: `backend`, `forwarding`, `rule`, `owner`, `status`, …
    pub facts: BTreeMap<String, String>,
}

impl Question {
    /// From the words of the command line or of a query string.
    pub fn parse(what: &[String], method: &str, headers: &[String], client: Option<&str>) -> Result<Self, Vec<String>> {
        match what {
            [protocol, client, vip] => l4(protocol, client, vip),
            [url] => http_question(url, method, headers, client),
            _ => Err(vec!["what to explain: `tcp|udp CLIENT:PORT VIP:PORT`, or a URL".into()]),
        }
    }
}

fn l4(protocol: &str, client: &str, vip: &str) -> Result<Question, Vec<String>> {
    let mut mistakes = Vec::new();
    let protocol = match protocol {
        "tcp" => Some(Protocol::Tcp),
        "udp" => Some(Protocol::Udp),
        other => {
            mistakes.push(format!("{other}: is neither tcp nor udp"));
            None
        }
    };
    let mut socket = |text: &str| {
        let parsed = text.parse::<SocketAddr>().ok().filter(|s| s.port() != 0);
        if parsed.is_none() {
            mistakes.push(format!("{text}: is not an address and port such as 203.0.113.10:443 or [2001:db8::10]:443"));
        }
        parsed
    };
    let (client, vip) = (socket(client), socket(vip));
    match (protocol, client, vip) {
        (Some(protocol), Some(client), Some(vip)) if client.is_ipv4() == vip.is_ipv4() => {
            Ok(Question::L4 { protocol, client, vip })
        }
        (Some(_), Some(_), Some(_)) => Err(vec!["client and VIP are of different families".into()]),
        _ => Err(mistakes),
    }
}

fn http_question(url: &str, method: &str, headers: &[String], client: Option<&str>) -> Result<Question, Vec<String>> {
    let mut mistakes = Vec::new();
    let uri = url.parse::<http::Uri>().ok();
    let uri =
        uri.filter(|u| matches!(u.scheme_str(), Some("http" | "https")) && u.host().is_some_and(|h| !h.is_empty()));
    if uri.is_none() {
        mistakes.push(format!("{url}: is not a URL such as https://shop.example/cart"));
    }
    let method = method.parse::<http::Method>().ok();
    if method.is_none() {
        mistakes.push("--method: is not a method".into());
    }
    let mut map = http::HeaderMap::new();
    for header in headers {
        let pair = header.split_once(':').and_then(|(n, v)| {
            let name = n.trim().parse::<http::HeaderName>().ok()?;
            Some((name, http::HeaderValue::from_str(v.trim()).ok()?))
        });
        // The map has a bound of its own; one more than it takes is a mistake, too.
        match pair.map(|(name, value)| map.try_append(name, value)) {
            Some(Ok(_)) => {}
            _ => mistakes.push(format!("--header {header}: is not of the form `name: value`")),
        }
    }
    let address = client.and_then(|c| c.parse::<IpAddr>().ok());
    if client.is_some() && address.is_none() {
        mistakes.push("--client: is not an IP address".into());
    }
    match (uri, method) {
        (Some(url), Some(method)) if mistakes.is_empty() => {
            Ok(Question::Http(HttpQuestion { url, method, headers: map, client: address }))
        }
        _ => Err(mistakes),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(what: &[&str], headers: &[&str]) -> Result<Question, Vec<String>> {
        let own = |l: &[&str]| l.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>();
        Question::parse(&own(what), "GET", &own(headers), None)
    }

    #[test]
    fn questions_are_understood() {
        assert!(matches!(ask(&["tcp", "198.51.100.7:40000", "203.0.113.10:443"], &[]), Ok(Question::L4 { .. })));
        assert!(matches!(ask(&["udp", "[2001:db8::7]:1", "[2001:db8::1]:53"], &[]), Ok(Question::L4 { .. })));
        assert!(matches!(ask(&["https://shop.example/cart"], &["x-a: b"]), Ok(Question::Http(_))));
    }

    #[test]
    fn mistakes_come_together() {
        assert_eq!(ask(&["icmp", "1.2.3.4", "nowhere"], &[]).unwrap_err().len(), 3);
        assert_eq!(ask(&["shop.example/cart"], &["nonsense"]).unwrap_err().len(), 2);
        assert_eq!(ask(&["tcp", "1.2.3.4:5", "[::1]:5"], &[]).unwrap_err().len(), 1);
        assert_eq!(ask(&["tcp", "1.2.3.4:5"], &[]).unwrap_err().len(), 1);
    }
}
