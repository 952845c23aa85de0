//! How long an address does not answer when its node dies, its agent is killed or stopped, or it is moved on purpose: two nodes of ours
//! and two of the real keepalived in turn, at the same interval of adverts, in namespaces. A client probes both families every
//! millisecond; through our nodes it also holds TCP connections (`nat`), streams datagrams, and asks over HTTP.

mod report;

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;
use clap::{Parser, ValueEnum};
use ingress_tests::failover::{Facts, Pair, Scenario, Who, steady};
use ingress_tests::table::{self, Table};

use report::{Findings, Run};

/// Failovers of two nodes of ours and of keepalived.
#[derive(Parser)]
struct Arguments {
    /// Times that each scenario runs, for each.
    #[arg(long, default_value_t = 50)]
    rounds: usize,
    /// Milliseconds between two adverts. If it is not given: all at 100, then the deaths and moves at 10 with a long look for takeovers
    /// without a reason.
    #[arg(long)]
    interval_ms: Option<u32>,
    /// TCP connections that are held through the owner.
    #[arg(long, default_value_t = 1_000)]
    connections: usize,
    /// For how long nothing may happen at adverts of 10 ms while all cores are busy.
    #[arg(long, default_value_t = 10.0)]
    steady_minutes: f64,
    /// Only these; all if none is named.
    #[arg(long, value_enum)]
    only: Vec<Scenario>,
    /// Only ours.
    #[arg(long)]
    alone: bool,
    /// Without the part where a real API server is killed.
    #[arg(long)]
    no_api_server: bool,
}

/// What is run at adverts of 10 ms.
const QUICK: [Scenario; 4] = [Scenario::Death, Scenario::Kill, Scenario::Stop, Scenario::Move];
/// From here down the bars are those of adverts every 10 ms.
const SHORT_MS: u32 = 10;

fn main() -> ExitCode {
    table::ended("benchmark", run(&Arguments::parse()))
}

fn run(arguments: &Arguments) -> Result<()> {
    ingress_tests::load::allow_many_files();
    let mut table = Table::default();
    let mut found = Findings::default();
    let whose: &[Who] = if arguments.alone { &[Who::Ours] } else { &[Who::Ours, Who::Keepalived] };
    let intervals = arguments.interval_ms.map_or_else(|| vec![100, SHORT_MS], |interval| vec![interval]);
    for interval_ms in intervals {
        let quick = arguments.interval_ms.is_none() && interval_ms <= SHORT_MS;
        let all = if quick { &QUICK[..] } else { Scenario::value_variants() };
        let is_wanted = |s: &&Scenario| arguments.only.is_empty() || arguments.only.contains(s);
        for who in whose {
            println!("\n  {who}, an advert every {interval_ms} ms, {} rounds of each", arguments.rounds);
            let mut pair = Pair::new("bf", *who, Facts::Manifests, interval_ms, arguments.connections)?;
            for scenario in all.iter().filter(is_wanted).filter(|s| s.is_for(*who)) {
                let run = Run { who: *who, scenario: *scenario, interval_ms, connections: arguments.connections };
                match (0..arguments.rounds).map(|_| scenario.run(&mut pair)).collect::<Result<Vec<_>>>() {
                    Ok(rounds) => found.note(&run, &rounds, &mut table),
                    // At adverts of 10 ms two of theirs may not come to rest any more. That is found, and not the end.
                    Err(e) if *who == Who::Keepalived => {
                        let why = e.to_string().lines().next().unwrap_or_default().to_owned();
                        table.row(&format!("{who} at {interval_ms} ms: {scenario}"), why, "reported", true);
                        drop(pair);
                        pair = Pair::new("bf", *who, Facts::Manifests, interval_ms, arguments.connections)?;
                    }
                    Err(e) => return Err(e),
                }
            }
            let time = Duration::from_secs_f64(arguments.steady_minutes * 60.0);
            if interval_ms <= SHORT_MS && arguments.only.is_empty() && !time.is_zero() && *who == Who::Ours {
                report::steady(&steady(&mut pair, time)?, interval_ms, time, &mut table);
            }
        }
        found.compare(interval_ms, &mut table);
        if !quick && !arguments.no_api_server && is_wanted(&&Scenario::Death) {
            without_api_server(arguments, interval_ms, &mut found, &mut table)?;
        }
    }
    table.close()
}

/// Agents that watch a cluster whose API server is dead.
fn without_api_server(arguments: &Arguments, interval_ms: u32, found: &mut Findings, table: &mut Table) -> Result<()> {
    println!("\n  ours, an advert every {interval_ms} ms, and the API server is dead");
    let mut pair = Pair::new("bfa", Who::Ours, Facts::ApiServer, interval_ms, arguments.connections)?;
    let run = Run { who: Who::Ours, scenario: Scenario::Death, interval_ms, connections: arguments.connections };
    let rounds = (0..arguments.rounds).map(|_| Scenario::Death.run(&mut pair)).collect::<Result<Vec<_>>>()?;
    found.note_as(&run, "no API server: node dies", &rounds, table);
    Ok(())
}
