//! A part of `cargo xtask bench failover`: what clients of two agents notice when a node dies, an agent is killed, and addresses are
//! moved on purpose. Bounds of time are generous, since two noisy cores run all of it; what is lost is exact.

use std::time::Duration;

use ingress_tests::failover::{Facts, Pair, Round, Scenario, Who};
use ingress_tests::load::allow_many_files;

/// At adverts of 100 ms.
const INTERVAL_MS: u32 = 100;
const CONNECTIONS: usize = 100;

fn pair(label: &str) -> Pair {
    allow_many_files();
    Pair::new(label, Who::Ours, Facts::Manifests, INTERVAL_MS, CONNECTIONS).expect("make the pair")
}

#[track_caller]
fn run(pair: &mut Pair, scenario: Scenario, bound: Duration) -> Round {
    let round = scenario.run(pair).expect("run the scenario");
    eprintln!("{scenario}: gaps {:?}, a probe paused for {:?}", round.gaps, round.paused);
    let longest = round.gaps.iter().max().copied().unwrap_or_default();
    // While the probe itself could not run, the machine stood still, and nobody else did either.
    assert!(!round.gaps.is_empty() && longest <= bound + round.paused, "{scenario}: {round:?}");
    assert_eq!((round.lost, round.answered_twice), (0, 0), "{scenario}: {round:?}");
    round
}

#[test]
fn planned_moves_lose_nothing() {
    let mut pair = pair("fo1");
    for scenario in [Scenario::Move, Scenario::Move, Scenario::Drain] {
        let round = run(&mut pair, scenario, Duration::from_millis(100));
        assert_eq!((round.lost_young, round.unanswered), (0, 0), "{scenario}: {round:?}");
        assert_eq!((round.requests.1, round.sockets_lost), (0, 0), "{scenario}: {round:?}");
    }
}

#[test]
fn death_and_kill_lose_no_shared_connection_and_one_node_answers() {
    let mut pair = pair("fo2");
    run(&mut pair, Scenario::Death, Duration::from_secs(1));
    run(&mut pair, Scenario::Kill, Duration::from_secs(1));
}
