//! Our annotations of an Ingress about health, slow start, retries and shared limits: what they mean, and that one which cannot be read is
//! rejected with its reason and costs nothing else.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use ingress_agent::model::policy::{HealthCheck, Policy, Probe, RetryBudget};
use ingress_agent::model::snapshot::Snapshot;
use ingress_agent::plan::PlanOptions;
use ingress_tests::annotated::annotated;

/// The policy of `shop.example/`, and what was said. Names without a prefix are ours.
fn served(annotations: &[(&str, &str)]) -> (Arc<Policy>, String) {
    let (_, policy, said) = served_by(annotations, false);
    (policy, said)
}

fn served_by(annotations: &[(&str, &str)], alone: bool) -> (Arc<Snapshot>, Arc<Policy>, String) {
    let whole = |name: &str| if name.contains('/') { name.to_owned() } else { format!("sluicegate.io/{name}") };
    let annotations: Vec<(String, &str)> = annotations.iter().map(|(k, v)| (whole(k), *v)).collect();
    let annotations: Vec<(&str, &str)> = annotations.iter().map(|(k, v)| (&**k, *v)).collect();
    let snapshot = annotated(&annotations, PlanOptions { alone, ..PlanOptions::default() });
    let mut said = String::new();
    for rejection in &snapshot.rejections {
        writeln!(said, "{rejection}").expect("a String takes all");
    }
    let route = &snapshot.listeners[0].hosts.exact["shop.example"].routes[0];
    let policy = route.policy.clone().expect("a policy");
    (snapshot, policy, said)
}

fn health(policy: &Policy) -> Option<HealthCheck> {
    policy.care.as_ref()?.health.clone()
}

#[test]
fn an_ingress_without_them_has_nothing_of_it() {
    let (policy, said) = served(&[]);
    assert_eq!((policy.care.as_ref(), policy.retry_budget, said.as_str()), (None, RetryBudget::Percent(20), ""));
}

#[test]
fn all_of_them_are_understood() {
    let (policy, said) = served(&[
        ("health-check", "http"),
        ("health-check-path", "/healthz?deep=1"),
        ("health-check-host", "shop.example:8080"),
        ("health-check-status", "200-299, 404"),
        ("health-check-port", "8081"),
        ("health-check-interval", "500ms"),
        ("health-check-timeout", "1s"),
        ("health-check-healthy", "1"),
        ("health-check-unhealthy", "5"),
        ("slow-start", "2m"),
        ("retry-budget", "50%"),
    ]);
    assert_eq!(said, "");
    let probe = Probe::Http {
        path: "/healthz?deep=1".to_owned(),
        host: Some("shop.example:8080".to_owned()),
        statuses: vec![(200, 299), (404, 404)],
    };
    let (interval, timeout) = (Duration::from_millis(500), Duration::from_secs(1));
    let expected = HealthCheck { probe, port: Some(8081), interval, timeout, healthy: 1, unhealthy: 5 };
    assert_eq!(health(&policy), Some(expected));
    assert_eq!(policy.care.as_ref().expect("care").slow_start, Some(Duration::from_mins(2)));
    assert_eq!(policy.retry_budget, RetryBudget::Percent(50));
    let (policy, said) =
        served(&[("health-check", "grpc"), ("health-check-service", "shop.v1.Cart"), ("retry-budget", "off")]);
    let (interval, timeout) = (Duration::from_secs(5), Duration::from_secs(2));
    let probe = Probe::Grpc { service: "shop.v1.Cart".to_owned() };
    let expected = HealthCheck { probe, port: None, interval, timeout, healthy: 2, unhealthy: 3 };
    assert_eq!((health(&policy), policy.retry_budget, said.as_str()), (Some(expected), RetryBudget::Unlimited, ""));
}

#[test]
fn one_that_cannot_be_read_is_rejected_alone() {
    let (plain, _) = served(&[("health-check", "http"), ("slow-start", "30s")]);
    for (name, value, said) in [
        ("health-check-path", "healthz", "is not a path"),
        ("health-check-path", "/a b", "is not a path"),
        ("health-check-path", "/a\r\nHost: x", "is not a path"),
        ("health-check-path", "/\u{e4}", "is not a path"),
        ("health-check-host", "a b", "is not a host"),
        ("health-check-host", "user@host", "is not a host"),
        ("health-check-host", "a\nb", "is not a host"),
        ("health-check-status", "abc", "is not a list"),
        ("health-check-status", "299-200", "is not a list"),
        ("health-check-status", "100", "is not a list"),
        ("health-check-status", "200-", "is not a list"),
        ("health-check-status", "", "is not a list"),
        ("health-check-port", "0", "is not between 1 and 65535"),
        ("health-check-port", "http", "is not a port number"),
        ("health-check-interval", "0", "is not a time"),
        ("health-check-interval", "1ms", "is not a time"),
        ("health-check-interval", "2h", "is not a time"),
        ("health-check-interval", "99999999999999999999s", "is not a time"),
        ("health-check-timeout", "-1s", "is not a time"),
        ("health-check-timeout", "s", "is not a time"),
        ("health-check-healthy", "0", "is not a number from 1 to 100"),
        ("health-check-unhealthy", "1000", "is not a number from 1 to 100"),
        ("retry-budget", "120%", "is neither `off` nor a percentage"),
        ("retry-budget", "0.2", "is neither `off` nor a percentage"),
        ("retry-budget", "+5%", "is neither `off` nor a percentage"),
        ("health-check-service", "shop", "changes nothing: the check is http"),
    ] {
        let (policy, told) = served(&[("health-check", "http"), ("slow-start", "30s"), (name, value)]);
        assert!(told.contains(&format!("Ingress shop/web, metadata.annotations[sluicegate.io/{name}]: ")), "{told}");
        assert!(told.contains(said) && told.lines().count() == 1, "{name}: {value:?}: {told}");
        assert_eq!(policy, plain, "{name}: {value:?}");
    }
    for (annotations, said) in [
        (
            [("health-check", "ping"), ("slow-start", "30s")],
            "`ping` is none of `http`, `tcp` and `grpc`; health is not checked",
        ),
        (
            [("health-check-path", "/x"), ("slow-start", "30s")],
            "changes nothing: there is no sluicegate.io/health-check",
        ),
        (
            [("health-check", "tcp"), ("slow-start", "soon")],
            "is not a time from 100ms to 60m, such as 500ms, 5s or 2m; there is no slow start",
        ),
    ] {
        let (policy, told) = served(&annotations);
        assert!(told.contains(said) && told.lines().count() == 1, "{annotations:?}: {told}");
        let care = policy.care.as_ref().expect("the other one stands");
        assert!(care.health.is_some() != care.slow_start.is_some(), "{annotations:?}");
    }
}

const RPS: (&str, &str) = ("nginx.ingress.kubernetes.io/limit-rps", "5");
const CONNECTIONS: (&str, &str) = ("nginx.ingress.kubernetes.io/limit-connections", "5");

#[test]
fn a_limit_is_shared_where_it_says_so_and_there_is_somebody_to_share_it_with() {
    for (annotations, alone, shared, said) in [
        (&[RPS][..], false, false, ""),
        (&[RPS, ("limit-shared", "true")][..], false, true, ""),
        (&[RPS, ("limit-shared", "false")][..], false, false, ""),
        (
            &[RPS, ("limit-shared", "yes")][..],
            false,
            false,
            "`yes` is neither `true` nor `false`; each edge limits by itself",
        ),
        (&[RPS, ("limit-shared", "")][..], false, false, "`` is neither `true` nor `false`"),
        (&[RPS, ("limit-shared", "true")][..], true, false, "has no effect: this edge knows no others (`--sync-peer`)"),
        (
            &[CONNECTIONS, ("limit-shared", "true")][..],
            false,
            false,
            "changes nothing: there is no limit-rps and no limit-rpm",
        ),
    ] {
        let (snapshot, policy, told) = served_by(annotations, alone);
        let limits = policy.limits.as_ref().expect("a limit stays a limit");
        assert_eq!(limits.shared, shared, "{annotations:?}");
        let listed: Vec<_> = snapshot.shared_limits.iter().map(Arc::as_ptr).collect();
        assert_eq!(listed, if shared { vec![Arc::as_ptr(limits)] } else { vec![] }, "{annotations:?}");
        if said.is_empty() {
            assert_eq!(told, "", "{annotations:?}");
        } else {
            let field = "Ingress shop/web, metadata.annotations[sluicegate.io/limit-shared]: ";
            assert!(
                told.contains(field) && told.contains(said) && told.lines().count() == 1,
                "{annotations:?}: {told}"
            );
        }
    }
    let (_, policy, told) = served_by(&[("limit-shared", "true")], false);
    assert_eq!(policy.limits, None);
    assert!(told.contains("changes nothing"), "{told}");
}
