//! The binary `sluicegate`: which command was typed, where log lines go, and the exit code. 2: a mistake on the command
//! line; 1: it was understood and failed; those of `migrate` mean something else. Everything else is in the library.

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Result;
use clap::Parser;
use ingress_agent::admin::query::Question;
use ingress_agent::admin::{ask, elections, limit_drops, table};
use ingress_agent::args::{
    Args, Command, ExplainArgs, LimitsAction, LimitsArgs, MigrateArgs, RunArgs, StatusArgs, UninstallArgs, VipAction,
    VipArgs, WebhookArgs,
};
use ingress_agent::config::{self, Config, Format};
use ingress_agent::migrate::report::INCOMPLETE;
use ingress_agent::migrate::{self, MigrateConfig};
use ingress_agent::webhook::{self, WebhookConfig};
use ingress_agent::{agent, memory, uninstall};
use tracing_subscriber::EnvFilter;

// glibc keeps an arena a thread and gives little back; the proxy frees on other threads than it allocated on.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    memory::small_pages();
    let args = match Args::try_parse() {
        Ok(args) => args,
        Err(e) => {
            // The text is clap's, and where it goes.
            let _ = e.print();
            if let Some(hint) = migrate::hint(&e) {
                eprintln!("{hint}");
            }
            let migrate = std::env::args().nth(1).is_some_and(|command| command == "migrate");
            let code = u8::try_from(e.exit_code()).unwrap_or(1);
            return ExitCode::from(if migrate && code != 0 { INCOMPLETE } else { code });
        }
    };
    if let Err(mistakes) = start_log(&args.log_format, &args.log) {
        return usage(&mistakes);
    }
    match args.command {
        Command::Run(run_args) => run(&run_args),
        Command::Status(a) => status(&a),
        Command::Explain(a) => explain(&a),
        Command::Vip(a) => vip(&a),
        Command::Limits(a) => limits(&a),
        Command::Webhook(webhook_args) => review(&webhook_args),
        Command::Migrate(a) => migrate(&a),
        Command::Import(a) => done(import(Path::new(&a.file))),
        Command::Uninstall(a) => remove(&a),
        Command::Version => {
            println!("sluicegate {}, pinned maps of schema {}", env!("CARGO_PKG_VERSION"), xdp_ebpf::SCHEMA);
            ExitCode::SUCCESS
        }
    }
}

fn run(args: &RunArgs) -> ExitCode {
    let config = match Config::parse(args) {
        Ok(config) => config,
        Err(mistakes) => return usage(&mistakes),
    };
    if let Err(code) = need_root("run") {
        return code;
    }
    done(agent::run(config))
}

/// Needs no root and no capability.
fn review(args: &WebhookArgs) -> ExitCode {
    match WebhookConfig::parse(args) {
        Ok(config) => done(webhook::run(config)),
        Err(mistakes) => usage(&mistakes),
    }
}

fn status(args: &StatusArgs) -> ExitCode {
    let format = match config::format("--output", &args.output) {
        Ok(format) => format,
        Err(mistakes) => return usage(&mistakes),
    };
    done(show_status(Path::new(&args.admin_socket), format))
}

fn show_status(socket: &Path, format: Format) -> Result<()> {
    let first = ask::status(socket)?;
    if format == Format::Json {
        println!("{}", serde_json::to_string_pretty(&first)?);
        return Ok(());
    }
    // Rates are what a person looks for, and they need two readings.
    let began = Instant::now();
    std::thread::sleep(Duration::from_secs(1));
    let second = ask::status(socket)?;
    print!("{}", table::status(&second, Some((&first, began.elapsed().as_secs_f64()))));
    Ok(())
}

fn explain(args: &ExplainArgs) -> ExitCode {
    let asked = Question::parse(&args.what, &args.method, &args.headers, args.client.as_deref());
    let format = match (config::format("--output", &args.output), asked) {
        (Ok(format), Ok(_)) => format,
        (format, question) => {
            return usage(&[format.err(), question.err()].into_iter().flatten().flatten().collect::<Vec<_>>());
        }
    };
    let socket = Path::new(&args.admin_socket);
    done(ask::explain(socket, &args.what, &args.method, &args.headers, args.client.as_deref()).and_then(|e| {
        match format {
            Format::Text => print!("{}", table::explanation(&e)),
            Format::Json => println!("{}", serde_json::to_string_pretty(&e)?),
        }
        Ok(())
    }))
}

fn vip(args: &VipArgs) -> ExitCode {
    let socket = Path::new(&args.admin_socket);
    let order = match &args.action {
        VipAction::List { output } => {
            let format = match config::format("--output", output) {
                Ok(format) => format,
                Err(mistakes) => return usage(&mistakes),
            };
            return done(ask::status(socket).and_then(|status| {
                match format {
                    Format::Text => print!("{}", elections::list(&status)),
                    Format::Json => println!("{}", serde_json::to_string_pretty(&status.elections)?),
                }
                Ok(())
            }));
        }
        VipAction::Move { vip, node } => ask::order(socket, "move", &[("vip", vip), ("node", node)]),
        VipAction::Drain => ask::order(socket, "drain", &[]),
        VipAction::Undrain => ask::order(socket, "undrain", &[]),
    };
    done(order.map(|answer| println!("{answer}")))
}

fn limits(args: &LimitsArgs) -> ExitCode {
    let socket = Path::new(&args.admin_socket);
    let output = match &args.action {
        LimitsAction::List { output } => output,
        LimitsAction::Release { client } => {
            return done(ask::release(socket, client).map(|answer| println!("{answer}")));
        }
    };
    let format = match config::format("--output", output) {
        Ok(format) => format,
        Err(mistakes) => return usage(&mistakes),
    };
    done(ask::status(socket).and_then(|status| {
        match format {
            Format::Text => print!("{}", limit_drops::list(&status)),
            Format::Json => println!("{}", serde_json::to_string_pretty(&status.limit_drops)?),
        }
        Ok(())
    }))
}

fn migrate(args: &MigrateArgs) -> ExitCode {
    let (format, config) = match (config::format("--output", &args.output), MigrateConfig::parse(args)) {
        (Ok(format), Ok(config)) => (format, config),
        (format, config) => {
            usage(&[format.err(), config.err()].into_iter().flatten().flatten().collect::<Vec<_>>());
            return ExitCode::from(INCOMPLETE);
        }
    };
    let shown = migrate::migrate(&config).and_then(|report| {
        match format {
            Format::Text => print!("{}", migrate::text(&report)),
            Format::Json => println!("{}", serde_json::to_string_pretty(&report)?),
        }
        Ok(report.summary.exit_code)
    });
    shown.map_or_else(
        |e| {
            eprintln!("sluicegate: {e:#}");
            ExitCode::from(INCOMPLETE)
        },
        ExitCode::from,
    )
}

fn import(file: &Path) -> Result<()> {
    let imported = ingress_agent::import::import(file)?;
    for note in imported.notes() {
        eprintln!("{note}");
    }
    print!("{}", imported.to_yaml());
    Ok(())
}

fn remove(args: &UninstallArgs) -> ExitCode {
    if let Err(code) = need_root("uninstall") {
        return code;
    }
    match config::clear(args) {
        Ok(cluster) => {
            done(uninstall::run(Path::new(&args.pin_path), Path::new(&args.state_dir), cluster.as_ref(), args.wait))
        }
        Err(mistakes) => usage(&mistakes),
    }
}

/// Before anything else is tried: half-way through, the message would be about something else.
fn need_root(command: &str) -> Result<(), ExitCode> {
    // /proc/self belongs to the effective user.
    let user = std::fs::metadata("/proc/self").map_or(0, |m| m.uid());
    if user == 0 {
        return Ok(());
    }
    eprintln!(
        "sluicegate: `{command}` needs root: it loads XDP programs, adds addresses and opens raw sockets. \
         Start it with sudo, or as a service."
    );
    Err(ExitCode::FAILURE)
}

fn usage(mistakes: &[String]) -> ExitCode {
    for mistake in mistakes {
        eprintln!("sluicegate: {mistake}");
    }
    eprintln!("`sluicegate help` shows what there is.");
    ExitCode::from(2)
}

fn done(result: Result<()>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("sluicegate: {e:#}");
            ExitCode::FAILURE
        }
    }
}

/// Log lines go to standard error; standard output is for answers and the access log.
fn start_log(format: &str, filter: &str) -> Result<(), Vec<String>> {
    let format = config::format("--log-format", format);
    // It warns about every attribute that is younger than itself; what was typed comes later and wins.
    // kube tells each failed request as an error, also the hundredth in a row; the source says it once.
    let filter = EnvFilter::try_new(format!("netlink_packet_route=error,kube_client=off,{filter}"))
        .map_err(|e| vec![format!("--log {filter}: {e}")]);
    let (format, filter) = match (format, filter) {
        (Ok(format), Ok(filter)) => (format, filter),
        (a, b) => return Err([a.err(), b.err()].into_iter().flatten().flatten().collect()),
    };
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    match format {
        Format::Json => log.json().init(),
        Format::Text => log.with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr())).init(),
    }
    Ok(())
}
