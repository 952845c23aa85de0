//! The snapshot as JSON, for a person who wants to see all of it. Private keys are not in it, nor is anything from which
//! they could be had.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr};
use std::time::UNIX_EPOCH;

use serde_json::{Value, json};

use super::status::RejectionStatus;
use crate::model::route::{HostTable, Listener, VirtualHost};
use crate::model::snapshot::{
    AppProtocol, BackendState, Certificate, Forwarding, FrontendKind, ObjectName, Pool, Snapshot,
};

pub(super) fn snapshot(s: &Snapshot) -> Value {
    json!({
        "generation": s.generation,
        "vips": s.vips.iter().map(|(address, v)| {
            json!({ "address": address.to_string(), "held_here": v.held_here, "owners": *v.owners })
        }).collect::<Vec<_>>(),
        "assigned": {
            "services": assigned(&s.assigned.services),
            "classes": assigned(&s.assigned.classes),
        },
        "frontends": s.frontends.values().map(|f| json!({
            "frontend": f.key.to_string(),
            "owner": f.owner.to_string(),
            "kind": match &f.kind {
                FrontendKind::L4 { pool, client_ip_affinity, snat, sources } => json!({
                    "l4": {
                        "pool": pool.to_string(),
                        "client_ip_affinity": client_ip_affinity,
                        "snat": snat.to_string(),
                        "sources": sources.as_ref().map(|s| s.iter().map(ToString::to_string).collect::<Vec<_>>()),
                    }
                }),
                FrontendKind::L7 => json!("l7"),
            },
        })).collect::<Vec<_>>(),
        "pools": s.pools.values().map(|p| pool(p)).collect::<Vec<_>>(),
        "listeners": s.listeners.iter().map(|l| listener(l)).collect::<Vec<_>>(),
        "streams": s.streams.iter().map(|s| json!({
            "address": SocketAddr::new(s.vip, s.port).to_string(),
            "pool": s.pool.to_string(),
            "proxy_protocol_received": s.proxy_protocol.received,
            "proxy_protocol_sent": s.proxy_protocol.sent,
        })).collect::<Vec<_>>(),
        "certificates": s.certificates.values().map(|c| certificate(c)).collect::<Vec<_>>(),
        "rejections": rejections(s),
    })
}

pub(super) fn rejections(s: &Snapshot) -> Value {
    json!(s.rejections.iter().map(RejectionStatus::from).collect::<Vec<_>>())
}

fn assigned(given: &BTreeMap<ObjectName, Vec<IpAddr>>) -> Value {
    given.iter().map(|(name, addresses)| (name.to_string(), json!(addresses))).collect()
}

fn pool(p: &Pool) -> Value {
    json!({
        "name": p.name.to_string(),
        "table_size": p.table_size,
        "app_protocol": match p.app_protocol {
            AppProtocol::Http1 => "http1",
            AppProtocol::H2c => "h2c",
            AppProtocol::Https => "https",
        },
        "backends": p.backends.iter().map(|b| json!({
            "address": b.address.to_string(),
            "weight": b.weight,
            "state": match b.state { BackendState::Ready => "ready", BackendState::Draining => "draining" },
            "forwarding": match b.forwarding { Forwarding::Local => "local", Forwarding::Nat => "nat" },
            "node": b.node,
        })).collect::<Vec<_>>(),
    })
}

fn listener(l: &Listener) -> Value {
    json!({
        "vip": l.vip.to_string(),
        "port": l.port,
        "tls": l.tls.as_ref().map(|t| json!({
            "by_name": t.by_name.iter().map(|(name, secret)| (name.clone(), json!(secret.to_string())))
                .collect::<serde_json::Map<_, _>>(),
            "default": t.default.as_ref().map(ToString::to_string),
        })),
        "hosts": hosts(&l.hosts),
    })
}

fn hosts(h: &HostTable) -> Value {
    let exact = h.exact.iter().map(|(name, host)| (name.clone(), routes(host)));
    let wildcard = h.wildcard.iter().map(|(name, w)| (format!("*.{name}"), routes(&w.host)));
    let any = h.any.iter().map(|host| ("*".to_owned(), routes(host)));
    Value::Object(exact.chain(wildcard).chain(any).collect())
}

/// Best first, as they are tried.
fn routes(host: &VirtualHost) -> Value {
    json!(
        host.routes
            .iter()
            .map(|r| json!({
                "rule": r.rule,
                "owner": r.owner.to_string(),
                // Filters, actions and limits have many shapes; their debug form names each field.
                "matches": format!("{:?}", r.matches.path),
                "filters": format!("{:?}", r.filters),
                "action": format!("{:?}", r.action),
                "balance": format!("{:?}", r.balance),
                "timeouts": format!("{:?}", r.timeouts),
                "tries": r.retry.tries,
                "max_body": r.max_body,
            }))
            .collect::<Vec<_>>()
    )
}

fn certificate(c: &Certificate) -> Value {
    let seconds = |at: std::time::SystemTime| at.duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs());
    json!({
        "secret": c.name.to_string(),
        "names": c.names,
        "not_before": seconds(c.not_before),
        "not_after": seconds(c.not_after),
        "sha256": hex(&c.fingerprint),
        "chain_length": c.chain.len(),
    })
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::SystemTime;

    use super::*;
    use crate::model::snapshot::{ObjectName, PrivateKey};

    #[test]
    fn private_keys_stay_out() {
        let secret = b"-the-private-key-".to_vec();
        let name = ObjectName::new("a", "b");
        let certificate = Certificate {
            name: name.clone(),
            chain: vec![vec![1, 2, 3]],
            key: PrivateKey::Pkcs8(secret.clone()),
            names: vec!["shop.example".into()],
            not_before: SystemTime::now(),
            not_after: SystemTime::now(),
            fingerprint: [0xab; 32],
        };
        let mut s = Snapshot { generation: 9, ..Snapshot::default() };
        s.certificates.insert(name, Arc::new(certificate));
        let text = snapshot(&s).to_string();
        assert!(text.contains("shop.example") && text.contains("abab"), "{text}");
        let as_numbers: Vec<_> = secret.iter().map(u8::to_string).collect();
        for form in ["-the-private-key-".to_owned(), as_numbers.join(","), "LXRoZS1wcml2YXRl".to_owned()] {
            assert!(!text.contains(&form), "{text}");
        }
    }
}
