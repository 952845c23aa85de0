//! The text against what Prometheus expects of it.

use std::sync::Arc;
use std::time::Instant;

use super::*;
use crate::admin::query::Room;
use crate::model::election::ElectionReport;
use crate::model::holding::{HeldAddress, Holding, LinkState};
use crate::model::offence::{DroppedClient, LimitDropReading};
use crate::model::policy::{HealthCheck, Probe};
use crate::model::snapshot::{FrontendKey, ObjectName, PoolName, PoolScope, Protocol, Snapshot};
use crate::model::source::SourceState;
use crate::model::sync::{PeerReading, SyncReading};
use crate::model::traffic::{Attachment, EndpointHealth, L4Traffic, L7Traffic, RouteTraffic};

/// Two checks that only their thresholds tell apart.
fn checked(well: bool) -> EndpointHealth {
    let second = std::time::Duration::from_secs(1);
    let healthy = 1 + u32::from(well);
    EndpointHealth {
        pool: PoolName {
            service: ObjectName::new("shop", "web"),
            port: 443,
            protocol: Protocol::Tcp,
            scope: PoolScope::All,
        },
        endpoint: "10.0.0.9:8443".parse().unwrap(),
        check: HealthCheck {
            probe: Probe::Tcp,
            port: None,
            interval: second * 5,
            timeout: second,
            healthy,
            unhealthy: 3,
        },
        well,
        passed: 2,
        failed: 1,
        reason: None,
    }
}

fn dropped(client: &str, known: bool) -> DroppedClient {
    let owner = known.then(|| Arc::new(ObjectName::new("shop", "web")));
    DroppedClient { client: client.parse().unwrap(), owner, left: std::time::Duration::from_secs(30) }
}

fn readings() -> Box<Readings> {
    let vip = "203.0.113.1".parse().unwrap();
    let key = FrontendKey { vip, protocol: Protocol::Tcp, port: 443 };
    let service = ObjectName::new("shop", "web");
    let pool = PoolName { service: service.clone(), port: 443, protocol: Protocol::Tcp, scope: PoolScope::All };
    let counts = Counts { rx_packets: 5, rx_bytes: 500, tx_packets: 4, tx_bytes: 400, new_flows: 1 };
    Box::new(Readings {
        node: "n".into(),
        started: Instant::now(),
        snapshot: Arc::new(Snapshot { generation: 3, ..Snapshot::default() }),
        rooms: vec![Room { name: "proxy".into(), applied: 2, problems: vec!["x".into()] }],
        not_ready: vec!["x".into()],
        notes: Vec::new(),
        source: SourceState::default(),
        attachments: vec![Attachment { interface: "eth0".into(), index: 2, mode: AttachMode::Native, note: None }],
        holding: Arc::new(Holding {
            interface: "eth0".into(),
            link: LinkState::Up,
            addresses: [(vip, HeldAddress { present: true, announced: 6, ..HeldAddress::default() })].into(),
        }),
        elections: ElectionReport::default(),
        l4: L4Traffic {
            verdicts: vec![("forward_nat", "", 9)],
            frontends: vec![(key, counts)],
            backends: vec![
                (pool.clone(), "10.0.0.1:8443".parse().unwrap(), counts),
                (pool, "10.0.0.2:8443".parse().unwrap(), Counts::default()),
            ],
            flows: 1,
            flow_capacity: 1000,
            ..L4Traffic::default()
        },
        sync: Some(SyncReading {
            peers: vec![PeerReading {
                address: "10.0.0.2".parse().unwrap(),
                heard: true,
                silent_for: Some(std::time::Duration::from_secs(1)),
                fetching: false,
                complete: true,
                taken: 8,
                skew_ms: -250,
            }],
            settled: true,
            told: 12,
            rejected: vec![("forged", 3)],
            limits_heard: 5,
            ..SyncReading::default()
        }),
        l7: L7Traffic {
            routes: vec![RouteTraffic {
                owner: service,
                rule: "shop/a\"b\\c\n".into(),
                by_class: [0, 0, 3, 0, 0, 1],
                latency: vec![(0.001, 3), (f64::MAX, 1)],
                latency_sum_seconds: 1.5,
                bytes_out: 10,
                series: Vec::new(),
            }],
            health: vec![checked(true), checked(false)],
            ..L7Traffic::default()
        },
        limit_drops: Some(LimitDropReading {
            clients: vec![dropped("198.51.100.1", true), dropped("198.51.100.2", true), dropped("2001:db8::1", false)],
            dropped: 7,
            spared: 2,
        }),
        nginx: None,
    })
}

#[test]
fn samples_are_there() {
    let text = render(readings()).expect("renders");
    for line in [
        "sluicegate_ready 0.0",
        "sluicegate_planned_generation 3.0",
        "sluicegate_applied_generation{room=\"proxy\"} 2.0",
        "sluicegate_xdp_attached{interface=\"eth0\",mode=\"native\"} 1.0",
        "sluicegate_vip_held{address=\"203.0.113.1\",interface=\"eth0\"} 1.0",
        "sluicegate_vip_announcements_total{address=\"203.0.113.1\"} 6",
        "sluicegate_xdp_packets_total{verdict=\"forward_nat\"} 9",
        "sluicegate_frontend_rx_bytes_total{vip=\"203.0.113.1\",protocol=\"tcp\",port=\"443\",namespace=\"\",service=\"\"} 500",
        "sluicegate_backend_tx_packets_total{namespace=\"shop\",service=\"web\",port=\"443\",protocol=\"tcp\",backend=\"10.0.0.1:8443\"} 4",
        "sluicegate_health_check_up{namespace=\"shop\",service=\"web\",port=\"443\",backend=\"10.0.0.9:8443\",check=\"tcp every 5s\"} 0.0",
        "sluicegate_health_checks_total{namespace=\"shop\",service=\"web\",port=\"443\",backend=\"10.0.0.9:8443\",check=\"tcp every 5s\",result=\"passed\"} 4",
        "sluicegate_limit_dropped_clients{namespace=\"shop\",ingress=\"web\"} 2.0",
        "sluicegate_limit_dropped_clients{namespace=\"\",ingress=\"\"} 1.0",
        "sluicegate_limit_drops_total 7",
        "sluicegate_limit_drops_spared_total 2",
        "sluicegate_sync_settled 1.0",
        "sluicegate_sync_flows 12.0",
        "sluicegate_sync_rejected_total{reason=\"forged\"} 3",
        "sluicegate_sync_limited_requests_total{result=\"heard\"} 5",
        "sluicegate_sync_peer_heard{peer=\"10.0.0.2\"} 1.0",
        "sluicegate_sync_peer_clock_seconds{peer=\"10.0.0.2\"} -0.25",
        "sluicegate_http_requests_total{namespace=\"shop\",ingress=\"web\",rule=\"shop/a\\\"b\\\\c\\n\",class=\"5xx\"} 1",
    ] {
        assert!(text.lines().any(|l| l == line), "{line}\nnot in\n{text}");
    }
    assert!(!text.contains("10.0.0.2:8443"), "an idle backend takes no room");
    assert!(text.ends_with("# EOF\n"));
    assert!(text.contains("process_resident_memory_bytes "));
}

#[test]
fn histogram_is_cumulative_and_ends_in_infinity() {
    let text = render(readings()).expect("renders");
    let buckets: Vec<_> = text.lines().filter(|l| l.contains("duration_seconds_bucket")).collect();
    assert_eq!(buckets.len(), 2);
    assert!(
        buckets[0].ends_with(" 3") && buckets[1].contains("le=\"+Inf\"") && buckets[1].ends_with(" 4"),
        "{buckets:?}"
    );
    assert!(text.lines().any(|l| l.contains("duration_seconds_count{") && l.ends_with(" 4")));
}

#[test]
fn every_sample_has_one_type_and_a_shape() {
    let text = render(readings()).expect("renders");
    let mut types = std::collections::BTreeSet::new();
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            assert!(types.insert(rest.split(' ').next().unwrap().to_owned()), "{line} twice");
        } else if !line.starts_with('#') {
            let (_, value) = line.rsplit_once(' ').expect("name and value");
            assert!(value.parse::<f64>().is_ok(), "{line}");
        }
    }
}
