//! How long an address does not answer when its node dies, its agent is killed or stopped, or it is moved on purpose: two nodes of ours
//! and two of the real keepalived in turn, at the same interval of adverts, in namespaces. A client probes both families every
//! millisecond, and holds TCP connections that go through the owner by `nat` (ours only: keepalived forwards none).

mod node;

mod pair;

mod scenario;

use std::fmt::Write as _;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;
use clap::{Parser, ValueEnum};
use ingress_tests::table::{self, Table, ms, quantile};

use node::Who;
use pair::Pair;
use scenario::{Round, Scenario};

/// Failovers of two nodes of ours and of keepalived.
#[derive(Parser)]
struct Arguments {
    /// Times that each scenario runs, for each.
    #[arg(long, default_value_t = 50)]
    rounds: usize,
    /// Milliseconds between two adverts.
    #[arg(long, default_value_t = 100)]
    interval_ms: u32,
    /// TCP connections that are held through the owner.
    #[arg(long, default_value_t = 1_000)]
    connections: usize,
    /// Only these; all if none is named.
    #[arg(long, value_enum)]
    only: Vec<Scenario>,
    /// Only ours.
    #[arg(long)]
    alone: bool,
}

fn main() -> ExitCode {
    table::ended("benchmark", run(&Arguments::parse()))
}

fn run(arguments: &Arguments) -> Result<()> {
    ingress_tests::load::allow_many_files();
    let mut table = Table::default();
    let scenarios = if arguments.only.is_empty() { Scenario::value_variants() } else { &arguments.only };
    let whose: &[Who] = if arguments.alone { &[Who::Ours] } else { &[Who::Ours, Who::Keepalived] };
    for who in whose {
        println!("\n  {who}, an advert every {} ms, {} rounds of each", arguments.interval_ms, arguments.rounds);
        let mut pair = Pair::new(*who, arguments.interval_ms, arguments.connections)?;
        for scenario in scenarios.iter().filter(|s| s.is_for(*who)) {
            let mut rounds = Vec::new();
            for _ in 0..arguments.rounds {
                rounds.push(scenario.run(&mut pair)?);
            }
            report(*who, *scenario, &rounds, arguments, &mut table);
        }
    }
    table.close()
}

fn report(who: Who, scenario: Scenario, rounds: &[Round], arguments: &Arguments, table: &mut Table) {
    let mut gaps: Vec<Duration> = rounds.iter().flat_map(|r| r.gaps).collect();
    let p99 = quantile(&mut gaps, 0.99).unwrap_or_default();
    let (p50, most) = (quantile(&mut gaps, 0.5).unwrap_or_default(), gaps.last().copied().unwrap_or_default());
    let lost: usize = rounds.iter().map(|r| r.lost).sum();
    let twice: usize = rounds.iter().map(|r| r.answered_twice).sum();
    let mut text = format!("p50 {} · p99 {} · max {}", ms(p50), ms(p99), ms(most));
    if who == Who::Ours && arguments.connections > 0 {
        let _ = write!(text, " · {lost} of {} connections lost", arguments.connections * rounds.len());
    }
    if scenario.asks_twice() {
        let _ = write!(text, " · {twice} ARP answers of two nodes");
    }
    let bar = scenario.bar(arguments.interval_ms).filter(|_| who == Who::Ours);
    let held = bar.is_none_or(|bar| p99 <= bar && lost == 0 && twice == 0);
    let wanted = bar.map_or("reported".to_owned(), |bar| format!("p99 ≤ {}, nothing lost", ms(bar)));
    table.row(&format!("{who}: {scenario}"), text, wanted, held);
}
