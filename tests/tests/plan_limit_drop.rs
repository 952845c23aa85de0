//! Our annotations of an Ingress about clients that go on exceeding its limits: what they mean, and that one which cannot be used is told
//! with its reason and leaves the limits as they are.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use ingress_agent::model::policy::{LimitDrop, Limits};
use ingress_agent::model::rejection::Severity;
use ingress_agent::plan::PlanOptions;
use ingress_tests::annotated::annotated;

const AFTER: &str = "sluicegate.io/limit-drop-after";
const FOR: &str = "sluicegate.io/limit-drop-for";
const RPS: (&str, &str) = ("nginx.ingress.kubernetes.io/limit-rps", "5");

/// The limits of `shop.example/`, and what was said: `rejected: TEXT` or `warning: TEXT`, a line each.
fn served(limit_drop: bool, annotations: &[(&str, &str)]) -> (Option<Arc<Limits>>, String) {
    let snapshot = annotated(annotations, PlanOptions { limit_drop, ..PlanOptions::default() });
    let mut said = String::new();
    for rejection in &snapshot.rejections {
        let severity = if rejection.severity == Severity::Rejected { "rejected" } else { "warning" };
        writeln!(said, "{severity}: {rejection}").expect("a String takes all");
    }
    let route = &snapshot.listeners[0].hosts.exact["shop.example"].routes[0];
    (route.policy.as_ref().expect("a policy").limits.clone(), said)
}

fn drops(annotations: &[(&str, &str)]) -> (Option<LimitDrop>, String) {
    let (limits, said) = served(true, annotations);
    (limits.expect("the limits stand").drop, said)
}

#[test]
fn nobody_is_dropped_where_nobody_asks_for_it() {
    for enabled in [false, true] {
        let (limits, said) = served(enabled, &[RPS]);
        assert_eq!((limits.expect("limits").drop, said.as_str()), (None, ""));
        let (limits, said) = served(enabled, &[]);
        assert!(limits.is_none() && said.is_empty(), "{said}");
    }
}

#[test]
fn both_are_understood() {
    let second = Duration::from_secs(1);
    for (after, lasts, refusals, within, for_) in [
        ("20/10s", None, 20, second * 10, second * 60),
        ("1/100ms", Some("1s"), 1, second / 10, second),
        ("100000/60m", Some("60m"), 100_000, second * 3600, second * 3600),
        (" 5/1m ", Some(" 90 "), 5, second * 60, second * 90),
    ] {
        let annotations: Vec<_> = [RPS, (AFTER, after)].into_iter().chain(lasts.map(|text| (FOR, text))).collect();
        let expected = LimitDrop { refusals, within, lasts: for_ };
        assert_eq!(drops(&annotations), (Some(expected), String::new()), "{annotations:?}");
    }
    // Any limit will do.
    for limit in ["limit-rpm", "limit-connections"] {
        let limit = format!("nginx.ingress.kubernetes.io/{limit}");
        assert!(drops(&[(&*limit, "5"), (AFTER, "20/10s")]).0.is_some());
    }
}

#[test]
fn one_that_cannot_be_read_is_rejected_alone() {
    for after in [
        "",
        "20",
        "20/",
        "/10s",
        "0/10s",
        "-1/10s",
        "+5/10s",
        "1e3/10s",
        "100001/10s",
        "20/0",
        "20/99ms",
        "20/61m",
        "20/10h",
        "20/10s/2",
        "20 / 10s",
        "20/s",
        "99999999999999999999/1s",
        "20/99999999999999999999s",
        "a/b",
        "20/10s\nx",
        "٣/10s",
    ] {
        let (drop, said) = drops(&[RPS, (AFTER, after)]);
        assert_eq!(drop, None, "{after:?}");
        assert!(said.contains(&format!("Ingress shop/web, metadata.annotations[{AFTER}]: ")), "{said}");
        assert!(said.starts_with("rejected: ") && said.contains("such as 20/10s; nobody is dropped"), "{said}");
        assert_eq!(said.lines().count(), 1, "{said}");
    }
    for lasts in ["0", "999ms", "61m", "soon", "-5s", ""] {
        let (drop, said) = drops(&[RPS, (AFTER, "20/10s"), (FOR, lasts)]);
        assert_eq!(drop.map(|drop| drop.lasts), Some(Duration::from_mins(1)), "{lasts:?}");
        assert!(said.starts_with("rejected: ") && said.contains(&format!("metadata.annotations[{FOR}]: ")), "{said}");
        assert!(said.contains("is not a time from 1s to 60m") && said.contains("60s is used"), "{said}");
    }
}

#[test]
fn one_without_effect_is_told() {
    for (enabled, annotations, told) in [
        (false, &[RPS, (AFTER, "20/10s")][..], "changes nothing: agents drop clients with `--enable-limit-drop` only"),
        (true, &[(AFTER, "20/10s")], "changes nothing: there is no limit-rps, limit-rpm or limit-connections"),
        (true, &[RPS, (FOR, "5m")], "changes nothing: there is no sluicegate.io/limit-drop-after"),
    ] {
        let (limits, said) = served(enabled, annotations);
        assert!(limits.is_none_or(|limits| limits.drop.is_none()), "{annotations:?}");
        assert!(said.starts_with("warning: ") && said.contains(told) && said.lines().count() == 1, "{said}");
    }
}
