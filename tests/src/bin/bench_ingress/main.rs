//! The figures of a drop-in for ingress-nginx: what a request costs at 10,000 Ingresses and with directives on its path, beside nginx
//! with the same locations; how soon an Ingress that is added or changed is served, under load, and whether anything is lost by it;
//! and what the agent weighs.

mod site;

mod peers;

mod load;

mod directives;

mod serve;

mod cost;

mod live;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand, ValueEnum};
use ingress_tests::table::{self, Table};

/// As the agent's binary does: glibc's allocator asks the kernel more often.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// 10,000 Ingresses: CPU a request, changes under load, memory.
#[derive(Parser)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    verb: Option<Verb>,
    #[arg(long, default_value_t = 10_000)]
    ingresses: usize,
    /// Turns of each peer.
    #[arg(long, default_value_t = 9)]
    turns: usize,
    /// Length of one turn.
    #[arg(long, default_value_t = 2)]
    seconds: u64,
    /// How many changes of each kind.
    #[arg(long, default_value_t = 100)]
    changes: usize,
    /// Only these parts; all if none is named.
    #[arg(long, value_enum)]
    only: Vec<Part>,
    /// Fail if a bar is missed.
    #[arg(long)]
    bars: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Part {
    /// CPU a request at 10,000 Ingresses.
    Cost,
    /// CPU a request with directives.
    Directives,
    /// Changes under load, and what the agent weighs after them.
    Live,
    /// Memory at 1,000 and at all of them.
    Memory,
}

#[derive(Subcommand)]
enum Verb {
    /// Be the proxy, in a process of its own, until killed.
    #[command(hide = true)]
    Serve { manifests: PathBuf, http_port: u16 },
}

fn main() -> ExitCode {
    ingress_agent::memory::small_pages();
    table::ended("benchmark", run(&Arguments::parse()))
}

fn run(arguments: &Arguments) -> Result<()> {
    if let Some(Verb::Serve { manifests, http_port }) = &arguments.verb {
        return serve::run(manifests, *http_port);
    }
    let wanted = |part| arguments.only.is_empty() || arguments.only.contains(&part);
    ingress_tests::load::allow_many_files();
    let mut table = Table::default();
    if wanted(Part::Memory) {
        live::weighed(1_000, 40, &mut table)?;
        live::weighed(arguments.ingresses, live::MEGABYTES_AT_10_000, &mut table)?;
    }
    if wanted(Part::Live) {
        live::changed(arguments.ingresses, arguments.changes, &mut table)?;
    }
    // From here on this thread is in a namespace of the peers.
    if wanted(Part::Cost) {
        cost::many(arguments, &mut table)?;
    }
    if wanted(Part::Directives) {
        cost::each_directive(arguments, &mut table)?;
    }
    if arguments.bars {
        return table.close();
    }
    table.print();
    Ok(())
}
