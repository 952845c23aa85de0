//! What the rounds of a scenario come to, and what the issue of failover asks for.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use ingress_tests::failover::{Round, Scenario, Who, YOUNG};
use ingress_tests::table::{Table, ms, quantile};

/// keepalived may be quicker by this and still count as equal: two periods of the probe.
const ALIKE: Duration = Duration::from_millis(2);

/// What was run.
pub(crate) struct Run {
    pub(crate) who: Who,
    pub(crate) scenario: Scenario,
    pub(crate) interval_ms: u32,
    pub(crate) connections: usize,
}

/// 99th percentiles of node deaths, by interval and whose node it was.
#[derive(Default)]
pub(crate) struct Findings {
    deaths: BTreeMap<(u32, bool), Duration>,
}

impl Findings {
    pub(crate) fn note(&mut self, run: &Run, rounds: &[Round], table: &mut Table) {
        let p99 = self.note_as(run, &run.scenario.to_string(), rounds, table);
        if run.scenario == Scenario::Death {
            self.deaths.insert((run.interval_ms, run.who == Who::Ours), p99);
        }
    }

    /// Returns the 99th percentile of the gaps.
    #[expect(clippy::unused_self, reason = "it is what `note` does, by another name")]
    pub(crate) fn note_as(&mut self, run: &Run, name: &str, rounds: &[Round], table: &mut Table) -> Duration {
        let ours = run.who == Who::Ours;
        let mut gaps: Vec<Duration> = rounds.iter().flat_map(|r| r.gaps.clone()).collect();
        let p99 = quantile(&mut gaps, 0.99).unwrap_or_default();
        let (p50, most) = (quantile(&mut gaps, 0.5).unwrap_or_default(), gaps.last().copied().unwrap_or_default());
        let sum = |of: fn(&Round) -> usize| rounds.iter().map(of).sum::<usize>();
        let (lost, young, twice) = (sum(|r| r.lost), sum(|r| r.lost_young), sum(|r| r.answered_twice));
        let (failed, sockets) = (sum(|r| r.requests.1), sum(|r| r.sockets_lost));
        let taken: u64 = rounds.iter().map(|r| r.false_takeovers).sum();
        let cold = run.scenario == Scenario::Cold;
        let mut text = format!("p50 {} · p99 {} · max {}", ms(p50), ms(p99), ms(most));
        if ours && !cold {
            let answered: u64 = rounds.iter().map(|r| r.requests.0).sum();
            let _ = write!(text, " · lost: {lost} of {} connections", run.connections * rounds.len());
            let _ = write!(text, ", {young} of {} young ones", YOUNG * rounds.len());
            let _ = write!(text, ", {failed} of {} requests", answered + failed as u64);
            let _ = write!(text, ", {sockets} of {} WebSockets", 2 * rounds.len());
        }
        if run.scenario.asks_twice() {
            let _ = write!(text, " · {twice} answers of two nodes");
        }
        if run.scenario == Scenario::Flood {
            let _ = write!(text, " · {taken} takeovers");
        }
        let paused = rounds.iter().map(|r| r.paused).max().unwrap_or_default();
        if paused > Duration::from_millis(2) {
            let _ = write!(text, " · a probe paused for {}", ms(paused));
        }
        let bar = bar(run.scenario, run.interval_ms).filter(|_| ours);
        let planned = run.scenario.is_planned();
        let whole = !planned || young == 0 && failed == 0 && sockets == 0;
        let held = bar.is_none_or(|bar| p99 <= bar && lost == 0 && twice == 0 && taken == 0 && whole);
        let wanted = bar.map_or("reported".to_owned(), |bar| {
            let bar = ms(bar);
            if planned { format!("p99 ≤ {bar}, nothing lost") } else { format!("p99 ≤ {bar}, no connection lost") }
        });
        table.row(&format!("{} at {} ms: {name}", run.who, run.interval_ms), text, wanted, held);
        p99
    }

    /// Our deaths beside theirs, if both were measured.
    pub(crate) fn compare(&self, interval_ms: u32, table: &mut Table) {
        let of = |ours| self.deaths.get(&(interval_ms, ours)).copied();
        if let (Some(ours), Some(theirs)) = (of(true), of(false)) {
            let text = format!("ours {} · keepalived {}", ms(ours), ms(theirs));
            table.row(
                &format!("node death at {interval_ms} ms, p99"),
                text,
                "ours is not slower",
                ours <= theirs + ALIKE,
            );
        }
    }
}

/// Nothing should have happened.
pub(crate) fn steady(round: &Round, interval_ms: u32, time: Duration, table: &mut Table) {
    let most = round.gaps.iter().max().copied().unwrap_or_default();
    let text = format!(
        "{} takeovers · longest gap {} · {} questions unanswered",
        round.false_takeovers,
        ms(most),
        round.unanswered
    );
    let name = format!("ours at {interval_ms} ms: all cores busy for {:.1} min", time.as_secs_f64() / 60.0);
    table.row(&name, text, "0 takeovers", round.false_takeovers == 0);
}

/// Longest gap that is asked for, where one is.
fn bar(scenario: Scenario, interval_ms: u32) -> Option<Duration> {
    let death = if interval_ms <= 10 { 45 } else { 4 * interval_ms };
    match scenario {
        Scenario::Death | Scenario::Kill | Scenario::Stop => Some(Duration::from_millis(u64::from(death))),
        Scenario::Move | Scenario::Drain => Some(Duration::from_millis(5)),
        Scenario::Partition => Some(Duration::from_secs(1)),
        Scenario::Flood => Some(Duration::from_millis(50)),
        Scenario::Cold => None,
    }
}
