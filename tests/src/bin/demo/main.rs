//! The demo: real clients reach real backends through the real agent, on a LAN of network namespaces. Narrates, measures,
//! and exits 0 only if everything held. Leaves nothing behind, however it ends; `--keep` leaves it running on purpose.

mod cluster;
mod failover;
mod migrate;
mod show;
mod traces;
mod world;

use std::os::fd::AsRawFd;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode, Stdio};

use anyhow::{Context, Result, ensure};
use clap::Parser;
use tokio::signal::unix::{SignalKind, signal};

use crate::world::World;

/// Real clients, real backends, the real agent.
#[derive(Parser)]
struct Arguments {
    /// On a Kubernetes cluster: two edges, a real API server, an application that is applied with kubectl.
    #[arg(long, conflicts_with = "clean")]
    cluster: bool,
    /// Leave everything running and print commands to play with.
    #[arg(long, conflicts_with = "clean")]
    keep: bool,
    /// Remove what `--keep` (or a crash) left.
    #[arg(long)]
    clean: bool,
    /// What `--keep` starts, in a session of its own, to hold the world open.
    #[arg(long, hide = true)]
    keeper: bool,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let done = match &arguments {
        Arguments { clean: true, .. } => traces::clean_all(),
        Arguments { keep: true, .. } => keep(arguments.cluster),
        _ => run(&arguments),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("\nthe demo failed: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Starts the demo in a session of its own, which the terminal's signals do not reach, and returns when it has been shown.
fn keep(cluster: bool) -> Result<()> {
    let own = std::env::current_exe().context("find this program")?;
    let mut command = Command::new(own);
    command.arg("--keeper").stdin(Stdio::null());
    if cluster {
        command.arg("--cluster");
    }
    // SAFETY: setsid takes no pointer and is async-signal-safe.
    unsafe {
        command.pre_exec(|| if libc::setsid() < 0 { Err(std::io::Error::last_os_error()) } else { Ok(()) });
    }
    let mut keeper = command.spawn().context("start the keeper")?;
    stop_on_signal(keeper.id());
    let shown = traces::ready_file(keeper.id());
    while !shown.exists() {
        if let Some(status) = keeper.try_wait().context("wait for the keeper")? {
            ensure!(status.success(), "see above");
            return Ok(());
        }
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
    Ok(())
}

fn run(arguments: &Arguments) -> Result<()> {
    let own = std::process::id();
    traces::clean_stale()?;
    stop_on_signal(own);
    let shown = if arguments.cluster { on_a_cluster(arguments.keeper) } else { on_manifests(arguments.keeper) };
    traces::clean(own)?;
    shown?;
    if !arguments.keeper {
        traces::nothing_left(own)?;
        println!("\nAll held. Nothing was left behind: no namespace, no pinned map, no file.");
    }
    Ok(())
}

fn on_manifests(keeper: bool) -> Result<()> {
    let mut world = World::build()?;
    let shown = show::everything(&mut world);
    match &shown {
        Ok(()) if keeper => hold_open(|| world.print_commands())?,
        Err(_) => {
            eprintln!("\nthe agent's last words:\n{}", world.agent.last_words());
            if let Some((_, agent)) = &world.second {
                eprintln!("\nthe second edge's:\n{}", agent.last_words());
            }
        }
        Ok(()) => {}
    }
    shown
}

fn on_a_cluster(keeper: bool) -> Result<()> {
    let mut world = cluster::world::World::build()?;
    let shown = cluster::show::everything(&mut world);
    match &shown {
        Ok(()) if keeper => hold_open(|| world.print_commands())?,
        Err(_) => eprintln!("\nthe agents' last words:\n{}", world.last_words()),
        Ok(()) => {}
    }
    shown
}

/// Prints what to play with and waits for the signal that [`stop_on_signal`] takes.
fn hold_open(print: impl FnOnce()) -> Result<()> {
    print();
    std::fs::write(traces::ready_file(std::process::id()), "").context("say that the world is ready")?;
    // Let go of the output, or a pipe that the demo was started in would never end.
    let nothing = std::fs::File::options().write(true).open("/dev/null").context("open /dev/null")?;
    for output in [libc::STDOUT_FILENO, libc::STDERR_FILENO] {
        // SAFETY: both descriptors are open; dup2 takes no pointer.
        unsafe { libc::dup2(nothing.as_raw_fd(), output) };
    }
    loop {
        std::thread::park();
    }
}

/// On Ctrl-C and its like: end the demo of process `id`, remove its traces, exit.
fn stop_on_signal(id: u32) {
    std::thread::spawn(move || {
        let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() else { return };
        let waited = runtime.block_on(async {
            let mut interrupt = signal(SignalKind::interrupt())?;
            let mut terminate = signal(SignalKind::terminate())?;
            let mut hangup = signal(SignalKind::hangup())?;
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
                _ = hangup.recv() => {}
            }
            std::io::Result::Ok(())
        });
        if waited.is_err() {
            return;
        }
        eprintln!("\nstopping: removing what the demo made");
        if id == std::process::id() {
            ingress_tests::netns::make_no_more();
        } else {
            traces::end(id);
        }
        if let Err(error) = traces::clean(id) {
            eprintln!("{error:#}");
        }
        std::process::exit(130);
    });
}
