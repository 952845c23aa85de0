//! The project's commands: an enum, a match, and a file a verb.
//!
//! It is the first thing that a new user builds, so it must compile in seconds: std, anyhow, clap and libc, never more.

mod bench;
mod build;
mod control_plane;
mod crds;
mod demo;
mod go_program;
mod helm;
mod image;
mod licences;
mod pauses;
mod setup;
mod steps;
mod test;
mod tidy;

use clap::{Parser, Subcommand};

/// Sluicegate's set-up, builds, demo, tests and benchmarks.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Install what is missing to build, test and benchmark; quick when nothing is.
    Setup(setup::Options),
    /// Build the agent with its BPF programs.
    Build(build::Options),
    /// Watch real clients reach real backends through the load balancer, in network namespaces.
    Demo(demo::Options),
    /// Run every check and every test.
    Test(test::Options),
    /// Measure: `xdp`, `proxy`, `l4`, `live`, `kube`, `rollout`, or all of them.
    Bench(bench::Options),
    /// Write the custom resource definitions in `deploy/crds` from the agent's types.
    Crds,
    /// Pack the agent into an OCI archive, without a container engine.
    Image(image::Options),
    /// Check the rules that the compiler does not know: imports per room, module docs, file length, names.
    Tidy,
}

fn main() -> std::process::ExitCode {
    let done = match Cli::parse().verb {
        Verb::Setup(options) => setup::setup(&options),
        Verb::Build(options) => build::build(&options),
        Verb::Demo(options) => demo::demo(&options),
        Verb::Test(options) => test::test(&options),
        Verb::Bench(options) => bench::bench(&options),
        Verb::Crds => crds::crds(),
        Verb::Image(options) => image::image(&options),
        Verb::Tidy => tidy::tidy(),
    };
    match done {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("\nerror: {error:#}");
            std::process::ExitCode::FAILURE
        }
    }
}
