//! What a person reads.

use super::*;
use crate::admin::elections::ElectionsStatus;
use crate::admin::status::{BackendStatus, RejectionStatus, SourceStatus, VerdictStatus, VipStatus};
use crate::admin::sync_status::{PeerStatus, SyncStatus};

fn sample(packets: u64) -> Status {
    let traffic =
        Traffic { rx_packets: packets, rx_bytes: packets * 100, new_flows: packets / 10, ..Traffic::default() };
    Status {
        version: "1".into(),
        node: "edge".into(),
        ready: false,
        not_ready: vec!["the proxy has no listener".into()],
        notes: vec!["changes may have been missed for 65 s".into()],
        source: SourceStatus { name: "the API server".into(), behind_seconds: Some(65), saved_seconds_ago: None },
        uptime_seconds: 300,
        planned_generation: 4,
        rooms: vec![],
        interfaces: vec![],
        vip_interface: "eth0".into(),
        vip_link: "is up".into(),
        vips: vec![VipStatus {
            address: "203.0.113.1".into(),
            wanted: true,
            held: false,
            owners: vec!["shop/web".into()],
            announcements: 0,
            fault: Some("no".into()),
            claimed_by: None,
        }],
        elections: ElectionsStatus::default(),
        services: vec![ServiceStatus {
            frontend: "tcp 203.0.113.1:80".into(),
            owner: "shop/web".into(),
            kind: "l4".into(),
            pool: Some("shop/web:80".into()),
            traffic,
            backends: vec![BackendStatus {
                address: "10.0.0.1:8080".into(),
                state: "draining".into(),
                weight: 1,
                forwarding: "nat".into(),
                node: None,
                traffic,
            }],
        }],
        flows: 1_234_567,
        flow_capacity: 2,
        sync: None,
        verdicts: vec![VerdictStatus { verdict: "echo".into(), meaning: "An echo.".into(), packets }],
        routes: vec![],
        limit_drops: None,
        health: vec![],
        certificates: vec![],
        rejections: vec![RejectionStatus {
            kind: "Service".into(),
            namespace: "a".into(),
            name: "b".into(),
            place: "x.yaml, document 2".into(),
            field: "spec.ports[0].port".into(),
            reason: "is 0".into(),
            severity: "rejected".into(),
        }],
    }
}

#[test]
fn rates_are_the_difference_of_two_readings() {
    let text = status(&sample(3000), Some((&sample(1000), 2.0)));
    let line = text.lines().find(|l| l.contains("tcp 203.0.113.1:80")).expect("the frontend's line");
    let cells: Vec<_> = line.split_whitespace().collect();
    assert_eq!(
        cells,
        ["tcp", "203.0.113.1:80", "shop/web", "l4", "0/1", "ready", "1000", "800.0k", "0", "100", "3,000", "300"]
    );
}

#[test]
fn without_a_second_reading_there_is_no_rate() {
    let text = status(&sample(3000), None);
    assert!(text.lines().any(|l| l.contains("10.0.0.1:8080") && l.contains(" -  ")), "{text}");
}

#[test]
fn what_is_wrong_stands_out() {
    let text = status(&sample(1), None);
    for part in ["NOT READY", "! the proxy has no listener", "MISSING", "flows 1,234,567 of 2"] {
        assert!(text.contains(part), "{part} not in\n{text}");
    }
    assert!(text.contains("rejected: x.yaml, document 2: Service a/b, spec.ports[0].port: is 0"), "{text}");
}

#[test]
fn the_flow_sync_is_shown_where_it_is_on() {
    assert!(!status(&sample(1), None).contains("FLOW SYNC"));
    let peer = |address: &str, state: &str, silent_seconds| PeerStatus {
        address: address.into(),
        state: state.into(),
        silent_seconds,
        taken: 12,
        skew_ms: -3,
    };
    let sync = SyncStatus {
        peers: vec![peer("10.0.0.2", "in step", Some(0.1)), peer("10.0.0.3", "silent", Some(17.0))],
        settled: false,
        told: 40,
        late_seconds: 0.2,
        rejected: vec![("forged".into(), 2)],
    };
    let text = status(&Status { sync: Some(sync), ..sample(1) }, None);
    for part in ["10.0.0.2  in step", "silent for 17 s", "-3 ms", "40 flows of this node", "not complete", "forged 2"] {
        assert!(text.contains(part), "{part} not in\n{text}");
    }
}

#[test]
fn endpoints_that_fail_their_check_are_shown_with_the_reason() {
    assert!(!status(&sample(1), None).contains("HEALTH CHECKS"));
    let of = |endpoint: &str, well: bool| HealthStatus {
        endpoint: endpoint.into(),
        pool: "shop/web:80".into(),
        check: "http /healthz every 5s".into(),
        well,
        passed: 3,
        failed: 1,
        reason: (!well).then(|| "it answered 500".into()),
    };
    let health = vec![of("10.0.0.1:80", true), of("10.0.0.2:80", false), of("10.0.0.3:80", true)];
    let text = status(&Status { health, ..sample(1) }, None);
    let line = text.lines().find(|l| l.contains("10.0.0.2:80")).expect("the one that fails");
    assert!(
        line.contains("http /healthz every 5s") && line.contains("FAILS") && line.contains("it answered 500"),
        "{line}"
    );
    assert!(text.contains("2 more") && !text.contains("10.0.0.3:80"), "{text}");
}

#[test]
fn numbers_for_people() {
    assert_eq!([grouped(0), grouped(999), grouped(1000)], ["0", "999", "1,000"]);
    assert_eq!([scaled(0.4), scaled(9999.0), scaled(12_345.0), scaled(2.5e9)], ["0", "9999", "12.3k", "2.5G"]);
    assert_eq!([duration(7), duration(7200), duration(200_000)], ["7 s", "2 h", "2 d"]);
}
