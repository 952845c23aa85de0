//! What ingress-nginx says of itself: connections, configuration, certificates, and Ingresses that lead nowhere.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::UNIX_EPOCH;

use prometheus_client::encoding::DescriptorEncoder;
use x509_parser::prelude::parse_x509_certificate;

use super::places::{hosts, tables};
use super::{Own, untyped};
use crate::admin::metrics::gauges;
use crate::admin::metrics::process::Process;
use crate::admin::query::{NginxReading, Readings};
use crate::model::route::Action;
use crate::model::snapshot::{Backend, Certificate, ObjectName, Snapshot};

pub(super) fn encode(e: &mut DescriptorEncoder, own: &Own<'_>, r: &Readings, nginx: &NginxReading) -> fmt::Result {
    connections(e, own, r)?;
    configuration(e, own, r, nginx)?;
    certificates(e, own, &r.snapshot)?;
    orphans(e, own, &r.snapshot)
}

fn connections(e: &mut DescriptorEncoder, own: &Own<'_>, r: &Readings) -> fmt::Result {
    let (open, busy) = (r.l7.open_connections, r.l7.metering);
    let name = "nginx_ingress_controller_nginx_process_connections";
    let mut family = gauges(e, name, "Client connections; those with requests under way are `writing`.")?;
    for (state, n) in [("active", open), ("writing", busy), ("waiting", open.saturating_sub(busy))] {
        family.gauge(&own.and(&[("state", state)]), n as f64)?;
    }
    let name = "nginx_ingress_controller_nginx_process_connections_total";
    let mut family = untyped(e, name, "Client connections that were accepted.")?;
    for state in ["accepted", "handled"] {
        family.gauge(&own.and(&[("state", state)]), r.l7.connections as f64)?;
    }
    untyped(e, "nginx_ingress_controller_nginx_process_requests_total", "Requests of clients.")?
        .gauge(&own.and(&[]), r.l7.metered as f64)?;
    let process = Process::read();
    for (name, help, value) in [
        ("nginx_ingress_controller_nginx_process_cpu_seconds_total", "CPU time of the agent.", process.cpu_seconds),
        ("nginx_ingress_controller_nginx_process_num_procs", "Processes.", Some(1.0)),
        ("nginx_ingress_controller_nginx_process_oldest_start_time_seconds", "Since 1970.", process.started),
        ("nginx_ingress_controller_nginx_process_resident_memory_bytes", "In RAM.", process.resident_bytes),
        ("nginx_ingress_controller_nginx_process_virtual_memory_bytes", "Address space.", process.virtual_bytes),
    ] {
        if let Some(value) = value {
            untyped(e, name, help)?.gauge(&own.and(&[]), value)?;
        }
    }
    Ok(())
}

/// A reload is a generation that the proxy took.
fn configuration(e: &mut DescriptorEncoder, own: &Own<'_>, r: &Readings, nginx: &NginxReading) -> fmt::Result {
    let proxy = r.rooms.iter().find(|room| room.name == "proxy");
    let applied = proxy.map_or(0, |room| room.applied);
    let good = proxy.is_some_and(|room| room.applied > 0 && room.problems.is_empty());
    let changed = nginx.changed.and_then(|at| at.duration_since(UNIX_EPOCH).ok()).map_or(0, |d| d.as_secs());
    untyped(e, "nginx_ingress_controller_success", "Changes that the proxy took.")?
        .gauge(&own.and(&[]), applied as f64)?;
    for (name, help, value) in [
        (
            "nginx_ingress_controller_config_last_reload_successful",
            "1 if the proxy serves what it was told, and listens everywhere.",
            f64::from(u8::from(good)),
        ),
        (
            "nginx_ingress_controller_config_last_reload_successful_timestamp_seconds",
            "When the proxy last took a change.",
            changed as f64,
        ),
        (
            "nginx_ingress_controller_config_hash",
            "Differs where hosts, rules, their owners or certificates do.",
            hash(&r.snapshot) as f64,
        ),
    ] {
        gauges(e, name, help)?.gauge(&own.and(&[]), value)?;
    }
    let build = own.and(&[("build", ""), ("release", env!("CARGO_PKG_VERSION")), ("repository", "sluicegate")]);
    gauges(e, "nginx_ingress_controller_build_info", "Version of the agent.")?.gauge(&build, 1.0)
}

/// The same on nodes that serve the same, and cheap enough for each scrape: 52 bits, which a float holds.
fn hash(snapshot: &Snapshot) -> u64 {
    let mut hasher = DefaultHasher::new();
    for table in tables(snapshot) {
        for (name, host) in hosts(table) {
            name.hash(&mut hasher);
            for route in &host.routes {
                route.owner.hash(&mut hasher);
                route.rule.hash(&mut hasher);
            }
        }
    }
    for certificate in snapshot.certificates.values() {
        certificate.fingerprint.hash(&mut hasher);
    }
    hasher.finish() >> 12
}

fn certificates(e: &mut DescriptorEncoder, own: &Own<'_>, snapshot: &Snapshot) -> fmt::Result {
    // Listeners on many addresses have the same names.
    let mut by_host = BTreeMap::<&str, &Certificate>::new();
    for tls in snapshot.listeners.iter().filter_map(|listener| listener.tls.as_ref()) {
        let named = tls.by_name.iter().map(|(host, secret)| (host.as_str(), secret));
        for (host, secret) in named.chain(tls.default.iter().map(|secret| ("_", secret))) {
            if let Some(certificate) = snapshot.certificates.get(secret) {
                by_host.insert(host, certificate);
            }
        }
    }
    let name = "nginx_ingress_controller_ssl_expire_time_seconds";
    let mut family = gauges(e, name, "When the certificate of a host expires, in seconds since 1970.")?;
    for (host, certificate) in &by_host {
        let at = certificate.not_after.duration_since(UNIX_EPOCH).map_or(0.0, |d| d.as_secs_f64());
        let labels = [
            ("class", own.class),
            ("host", host),
            ("namespace", own.namespace),
            ("secret_name", &*certificate.name.name),
        ];
        family.gauge(&labels, at)?;
    }
    let mut told = BTreeMap::<&ObjectName, Option<Told>>::new();
    let mut family = gauges(e, "nginx_ingress_controller_ssl_certificate_info", "What certificate a host has.")?;
    for (host, certificate) in &by_host {
        let Some(told) = told.entry(&certificate.name).or_insert_with(|| Told::of(certificate)) else { continue };
        let identifier = format!("{}-{}", certificate.name, told.serial);
        let labels = [
            ("class", own.class),
            ("host", host),
            ("identifier", &*identifier),
            ("issuer_common_name", &*told.issuer),
            ("issuer_organization", &*told.organization),
            ("namespace", &*certificate.name.namespace),
            ("public_key_algorithm", told.algorithm),
            ("secret_name", &*certificate.name.name),
            ("serial_number", &*told.serial),
        ];
        family.gauge(&labels, 1.0)?;
    }
    Ok(())
}

/// What a certificate says of where it is from.
struct Told {
    issuer: String,
    organization: String,
    /// Decimal.
    serial: String,
    algorithm: &'static str,
}

impl Told {
    fn of(certificate: &Certificate) -> Option<Self> {
        let (_, parsed) = parse_x509_certificate(certificate.chain.first()?).ok()?;
        let issuer = parsed.issuer();
        let first = |name: Option<&str>| name.unwrap_or_default().to_owned();
        // RFC 3279 §2.3.1 and §2.3.5, RFC 8410 §3.
        let algorithm = match parsed.public_key().algorithm.algorithm.to_id_string().as_str() {
            "1.2.840.113549.1.1.1" => "RSA",
            "1.2.840.10045.2.1" => "ECDSA",
            "1.3.101.112" => "Ed25519",
            _ => "unknown",
        };
        Some(Self {
            issuer: first(issuer.iter_common_name().next().and_then(|name| name.as_str().ok())),
            organization: first(issuer.iter_organization().next().and_then(|name| name.as_str().ok())),
            serial: parsed.tbs_certificate.serial.to_string(),
            algorithm,
        })
    }
}

/// Ingresses of ours of which some path has no Service, or nobody behind it.
fn orphans(e: &mut DescriptorEncoder, own: &Own<'_>, snapshot: &Snapshot) -> fmt::Result {
    let (mut no_service, mut no_endpoint) = (BTreeSet::new(), BTreeSet::new());
    for rejection in snapshot.rejections.iter().filter(|r| r.kind == "Ingress") {
        if rejection.field.ends_with(".service.name") {
            no_service.insert(&rejection.name);
        }
    }
    for (_, host) in tables(snapshot).into_iter().flat_map(|table| hosts(table)) {
        for route in &host.routes {
            let Action::Forward(pools) = &route.action else { continue };
            let served = |name| {
                let ready =
                    |pool: &std::sync::Arc<crate::model::snapshot::Pool>| pool.backends.iter().any(Backend::takes_new);
                snapshot.pools.get(name).is_some_and(ready)
            };
            if pools.iter().any(|p| !served(&p.pool)) {
                no_endpoint.insert(&route.owner);
            }
        }
    }
    let mut family = gauges(e, "nginx_ingress_controller_orphan_ingress", "1: a path of the Ingress leads nowhere.")?;
    for ingress in snapshot.served.ingresses.iter().map(|served| &served.name) {
        for (kind, names) in [("no-endpoint", &no_endpoint), ("no-service", &no_service)] {
            let labels = own.and(&[("ingress", &*ingress.name), ("namespace", &*ingress.namespace), ("type", kind)]);
            family.gauge(&labels, f64::from(u8::from(names.contains(ingress))))?;
        }
    }
    Ok(())
}
