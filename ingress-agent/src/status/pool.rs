//! The status of a VirtualIPPool: what it is owed, what it has, and whether that is the same. Pure: the time of a condition that
//! changes is filled in by `wire`.

use serde::{Deserialize, Serialize};

use super::decide::{Seen, Write};
use crate::model::pool_state::{PoolCount, PoolState};

/// As in the resource (`sources::virtual_ip_pool`), whose definition an API server compares it with.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct PoolStatus {
    pub(super) conditions: Vec<Condition>,
    #[serde(rename = "assignedIPv4", skip_serializing_if = "Option::is_none")]
    assigned_v4: Option<i64>,
    #[serde(rename = "availableIPv4", skip_serializing_if = "Option::is_none")]
    available_v4: Option<i64>,
    #[serde(rename = "assignedIPv6", skip_serializing_if = "Option::is_none")]
    assigned_v6: Option<i64>,
    #[serde(rename = "availableIPv6", skip_serializing_if = "Option::is_none")]
    available_v6: Option<i64>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Condition {
    #[serde(rename = "type")]
    pub(super) kind: String,
    pub(super) status: String,
    pub(super) reason: String,
    pub(super) message: String,
    /// RFC 3339. Empty: now.
    pub(super) last_transition_time: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) observed_generation: Option<i64>,
}

/// What a status says of the pool itself. Only of use where the API server has the status as well.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct SeenPool {
    pub(super) generation: i64,
    pub(super) status: PoolStatus,
}

const ACCEPTED: &str = "Accepted";
/// Whether the next Service that wants an address can get one.
const AVAILABLE: &str = "Available";

/// `state`: what the plan made of it. A pool that the plan does not know, or knows of another life, waits for the next plan.
pub(super) fn decide(state: Option<&PoolState>, seen: &Seen) -> Option<Write> {
    let (state, there) = (state?, seen.pool.as_deref()?);
    if state.uid != seen.uid {
        return None;
    }
    let generation = if state.generation == 0 { there.generation } else { state.generation };
    let status = status(state, generation, &there.status);
    (!seen.ours || status != there.status).then_some(Write::Pool(Box::new(status)))
}

/// Nothing but numbers is new.
pub(super) fn only_counts(status: &PoolStatus, seen: &Seen) -> bool {
    seen.pool.as_ref().is_some_and(|there| there.status.conditions == status.conditions)
}

/// Why addresses are no longer to be had, where that is news.
pub(super) fn exhausted<'a>(status: &'a PoolStatus, seen: &Seen) -> Option<&'a str> {
    let is = |c: &&Condition| c.kind == AVAILABLE && c.reason == EXHAUSTED;
    let before = seen.pool.as_ref().is_some_and(|there| there.status.conditions.iter().any(|c| is(&c)));
    status.conditions.iter().find(is).filter(|_| !before).map(|c| c.message.as_str())
}

const EXHAUSTED: &str = "Exhausted";

fn status(state: &PoolState, generation: i64, before: &PoolStatus) -> PoolStatus {
    let accepted = state.verdict.is_accepted();
    let condition = |kind: &str, is: bool, reason: &str, message: String| {
        let status = if is { "True" } else { "False" };
        let since = before.conditions.iter().find(|c| c.kind == kind && c.status == status);
        Condition {
            kind: kind.to_owned(),
            status: status.to_owned(),
            reason: reason.to_owned(),
            message,
            last_transition_time: since.map(|c| c.last_transition_time.clone()).unwrap_or_default(),
            observed_generation: Some(generation).filter(|g| *g > 0),
        }
    };
    let counts = [("IPv4", state.v4), ("IPv6", state.v6)];
    // A definition that cannot be read leaves the last good one in force, and then its addresses count.
    let gives = accepted || counts.iter().any(|(_, c)| c.is_some_and(|c| c != PoolCount::default()));
    let full: Vec<String> = counts
        .iter()
        .filter_map(|(family, count)| Some((family, count.filter(|c| c.available == 0)?)))
        .map(|(family, count)| format!("no {family} address is left ({} assigned)", count.assigned))
        .collect();
    let available = match (gives, full.is_empty()) {
        (false, _) => condition(AVAILABLE, false, "NotAccepted", "no address is given from it".to_owned()),
        (true, false) => condition(AVAILABLE, false, EXHAUSTED, full.join("; ")),
        (true, true) => condition(AVAILABLE, true, "AddressesLeft", "there are addresses to give".to_owned()),
    };
    let number = |count: Option<PoolCount>, of: fn(&PoolCount) -> u64| {
        count.map(|count| i64::try_from(of(&count)).unwrap_or(i64::MAX))
    };
    PoolStatus {
        conditions: vec![condition(ACCEPTED, accepted, state.verdict.word(), state.message.clone()), available],
        assigned_v4: number(state.v4, |c| c.assigned),
        available_v4: number(state.v4, |c| c.available),
        assigned_v6: number(state.v6, |c| c.assigned),
        available_v6: number(state.v6, |c| c.available),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::pool_state::PoolVerdict;
    use crate::model::snapshot::ObjectName;

    fn state(verdict: PoolVerdict, assigned: u64, available: u64) -> PoolState {
        PoolState {
            name: ObjectName::new("", "public"),
            uid: "u".into(),
            generation: 3,
            ranges: Vec::new(),
            verdict,
            message: "as it is".into(),
            v4: Some(PoolCount { assigned, available }),
            v6: None,
        }
    }

    fn seen(status: PoolStatus, ours: bool) -> Seen {
        let pool = Some(Box::new(SeenPool { generation: 7, status }));
        Seen { uid: "u".into(), ours, known: ours, pool, ..Seen::default() }
    }

    /// What is written, as the API server has it afterwards.
    fn written(state: &PoolState, before: &Seen) -> PoolStatus {
        let Some(Write::Pool(status)) = decide(Some(state), before) else { panic!("nothing is written") };
        let mut status = *status;
        for condition in &mut status.conditions {
            if condition.last_transition_time.is_empty() {
                condition.last_transition_time = "now".into();
            }
        }
        status
    }

    #[test]
    fn conditions_follow_the_verdict_and_the_counts() {
        use PoolVerdict::{Accepted, HoldsNodeAddress, Invalid, Overlaps, Unusable};
        for (verdict, assigned, left, accepted, available, why) in [
            (Accepted, 1, 2, "True", "True", "AddressesLeft"),
            (HoldsNodeAddress, 1, 2, "True", "True", "AddressesLeft"),
            (Accepted, 3, 0, "True", "False", "Exhausted"),
            (Overlaps, 0, 0, "False", "False", "NotAccepted"),
            (Unusable, 0, 0, "False", "False", "NotAccepted"),
            // The last good state gives on.
            (Invalid, 1, 2, "False", "True", "AddressesLeft"),
        ] {
            let status = written(&state(verdict, assigned, left), &seen(PoolStatus::default(), false));
            let [first, second] = &status.conditions[..] else { panic!("{status:?}") };
            assert_eq!((first.status.as_str(), first.reason.as_str()), (accepted, verdict.word()));
            assert_eq!((second.status.as_str(), second.reason.as_str()), (available, why), "{verdict:?}");
            assert_eq!(first.observed_generation, Some(3));
            assert_eq!((status.assigned_v4, status.assigned_v6), (i64::try_from(assigned).ok(), None));
        }
        let unread = PoolState { generation: 0, v4: None, ..state(PoolVerdict::Invalid, 0, 0) };
        let status = written(&unread, &seen(PoolStatus::default(), false));
        assert_eq!(status.conditions[0].observed_generation, Some(7), "of what stands there");
        assert_eq!(status.conditions[1].reason, "NotAccepted");
    }

    #[test]
    fn what_is_right_is_not_written_and_a_time_is_that_of_the_change() {
        let first = written(&state(PoolVerdict::Accepted, 0, 1), &seen(PoolStatus::default(), false));
        let there = seen(first.clone(), true);
        assert_eq!(decide(Some(&state(PoolVerdict::Accepted, 0, 1)), &there), None);
        // Another one has written the same: then it could not be changed without force later.
        assert!(decide(Some(&state(PoolVerdict::Accepted, 0, 1)), &seen(first.clone(), false)).is_some());
        let Some(Write::Pool(full)) = decide(Some(&state(PoolVerdict::Accepted, 1, 0)), &there) else { panic!() };
        let times: Vec<&str> = full.conditions.iter().map(|c| c.last_transition_time.as_str()).collect();
        assert_eq!(times, ["now", ""], "only what changed begins anew");
        assert_eq!(exhausted(&full, &there), Some("no IPv4 address is left (1 assigned)"));
        assert_eq!(exhausted(&full, &seen((*full).clone(), true)), None, "it is no news");
        assert!(!only_counts(&full, &there));
        let Some(Write::Pool(more)) = decide(Some(&state(PoolVerdict::Accepted, 0, 9)), &there) else { panic!() };
        assert!(only_counts(&more, &there));
    }

    #[test]
    fn a_pool_of_another_life_waits_for_the_plan() {
        let there = seen(PoolStatus::default(), false);
        assert_eq!(decide(None, &there), None);
        let other = PoolState { uid: "older".into(), ..state(PoolVerdict::Accepted, 0, 1) };
        assert_eq!(decide(Some(&other), &there), None);
    }

    #[test]
    fn numbers_that_do_not_fit_are_the_largest() {
        let huge = PoolState {
            v6: Some(PoolCount { assigned: 1, available: u64::MAX }),
            ..state(PoolVerdict::Accepted, 0, 1)
        };
        let status = written(&huge, &seen(PoolStatus::default(), false));
        let shown = serde_json::to_value(&status).expect("plain data");
        assert_eq!((&shown["assignedIPv6"], &shown["availableIPv6"]), (&1.into(), &i64::MAX.into()));
    }
}
