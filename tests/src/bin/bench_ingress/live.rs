//! The real agent with a directory of manifests, a file for each Ingress: its memory, and Ingresses added and changed while requests and
//! upgraded connections are under way. From the rename of a file to the first answer that a client gets by it.

use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use ingress_tests::cost::{kib, mb, until_idle};
use ingress_tests::edge::{Agent, sibling};
use ingress_tests::lan::{Host, Lan};
use ingress_tests::load::asking::KeepAlive;
use ingress_tests::load::web::{self, Site};
use ingress_tests::load::{Outcome, Stop};
use ingress_tests::netns::Running;
use ingress_tests::place::Place;
use ingress_tests::table::{Table, ms, quantile};

use crate::site::{self, BACKENDS, EDGE, Ingress};

const WEBSOCKETS: usize = 500;
/// Each says something this often.
const SPEAK_EVERY: Duration = Duration::from_millis(500);
/// Keep-alive connections, and their requests a second together.
const CONNECTIONS: usize = 50;
const RATE: f64 = 1_000.0;
const PATIENCE: Duration = Duration::from_secs(10);
/// Between two questions of the client that waits for a change: asking without a pause keeps a core busy, which on a machine of two is
/// what the agent would wait for.
const PAUSE: Duration = Duration::from_micros(300);
/// Issue 6, "To reach".
const EFFECTIVE: Duration = Duration::from_millis(20);
pub(crate) const MEGABYTES_AT_10_000: u64 = 100;

struct Edge {
    agent: Agent,
    client: Host,
    _place: Place,
    _backend: Running,
    _lan: Lan,
}

impl Edge {
    fn new(ingresses: usize) -> Result<Self> {
        let lan = Lan::new("bingress")?;
        let edge = lan.host("edge", &["10.78.0.1/16"])?;
        edge.forward()?;
        let client = lan.host("client", &["10.78.0.9/16"])?;
        let addresses = BACKENDS.map(|address| format!("{address}/16"));
        let backends = lan.host("backend", &addresses.each_ref().map(String::as_str))?;
        let backend = backends.ns.spawn(Command::new(sibling("demo_backend")?).arg("backend").stdin(Stdio::null()))?;
        let place = Place::new("bingress")?;
        place.manifest("base.yaml", &site::base(ingresses))?;
        for ingress in site::ingresses(ingresses) {
            place.manifest(&file(&ingress), &ingress.manifest())?;
        }
        let began = Instant::now();
        let agent = Agent::start(&edge, &place.directory, &place.pins, &["--hold-vips", "all"])?;
        println!("   {ingresses} Ingresses: ready after {}", ms(began.elapsed()));
        Ok(Self { agent, client, _place: place, _backend: backend, _lan: lan })
    }
}

fn file(ingress: &Ingress) -> String {
    format!("i{}.yaml", ingress.number)
}

fn web() -> Result<SocketAddr> {
    Ok(SocketAddr::new(EDGE.parse()?, 80))
}

/// Starts an agent for nothing but its memory.
pub(crate) fn weighed(ingresses: usize, megabytes: u64, table: &mut Table) -> Result<()> {
    let edge = Edge::new(ingresses)?;
    memory(&edge.agent, &format!("PSS at {ingresses} Ingresses"), megabytes, table)
}

/// Proportional set size (`proc_pid_smaps_rollup`), once the agent has nothing to do.
fn memory(agent: &Agent, what: &str, megabytes: u64, table: &mut Table) -> Result<()> {
    let id = agent.id().context("the agent runs")?;
    until_idle(id, 4)?;
    let (all, anonymous) = (kib(id, "smaps_rollup", "Pss")?, kib(id, "smaps_rollup", "Pss_Anon")?);
    let measured = format!("{} (anonymous {}, files {})", mb(all), mb(anonymous), mb(all - anonymous));
    table.row(what, measured, format!("at most {megabytes} MB"), all <= megabytes << 10);
    Ok(())
}

pub(crate) fn changed(ingresses: usize, changes: usize, table: &mut Table) -> Result<()> {
    ensure!(ingresses >= 2_000, "the parts of this benchmark need 2,000 Ingresses");
    let edge = Edge::new(ingresses)?;
    // The last one is nobody's to change.
    let quiet = site::ingress(ingresses - 1, ingresses);
    let asked = Site::plain(web()?, &quiet.host, &quiet.asked);
    let (stop_loads, stop) = Stop::by_hand();
    let (opened, all_open) = std::sync::mpsc::channel();
    let (mut kinds, loads) = thread::scope(|scope| {
        let loads = scope.spawn(|| {
            edge.client.ns.inside(|| {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
                runtime.block_on(async {
                    let held = web::hold(&asked, WEBSOCKETS, SPEAK_EVERY, stop.clone(), || {
                        let _ = opened.send(());
                    });
                    let (held, steady) = tokio::join!(held, web::steady(&asked, CONNECTIONS, RATE, stop.clone()));
                    anyhow::Ok((held?, steady))
                })
            })
        });
        // A panic of this thread drops the sender, which ends the loads, too.
        let stop_loads = stop_loads;
        let measured = all_open
            .recv_timeout(Duration::from_mins(1))
            .context("the WebSockets were not open within a minute")
            .and_then(|()| edge.client.ns.inside(|| all_kinds(&edge.agent, ingresses, changes)));
        let _ = stop_loads.send(true);
        let loads = loads.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        loads.and_then(|loads| Ok((measured?, loads)))
    })?;
    for (what, times) in &mut kinds {
        let figures = [0.5, 0.99, 1.0].map(|share| quantile(times, share).unwrap_or_default());
        let text =
            format!("{} times, p50 {}, p99 {}, worst {}", times.len(), ms(figures[0]), ms(figures[1]), ms(figures[2]));
        table.row(what, text, format!("p99 at most {}", ms(EFFECTIVE)), figures[1] <= EFFECTIVE);
    }
    let (held, steady) = loads;
    let no_failure = |table: &mut Table, what: &str, outcome: &Outcome, all: bool| {
        let text = format!("{} of {}", outcome.failures.len(), outcome.ok as usize + outcome.failures.len());
        table.row(what, text, "0", outcome.failures.is_empty() && all);
        for (_, why) in outcome.failures.iter().take(3) {
            println!("     {why}");
        }
    };
    no_failure(table, "failed requests meanwhile", &steady, steady.ok > 0);
    no_failure(table, "closed WebSockets", &held, held.ok == WEBSOCKETS as u64);
    memory(&edge.agent, &format!("PSS after {} changes and the load", 3 * changes), MEGABYTES_AT_10_000, table)
}

/// Times of each kind of change, in turns.
fn all_kinds(agent: &Agent, ingresses: usize, changes: usize) -> Result<Vec<(&'static str, Vec<Duration>)>> {
    let mut kinds = vec![
        ("an Ingress added: served after", Vec::new()),
        ("an Ingress's path changed: served after", Vec::new()),
        ("an expression among a hundred changed: served after", Vec::new()),
    ];
    for turn in 0..changes {
        let moved = |mut ingress: Ingress| {
            // The last element is another one; of an expression, the middle.
            for text in [&mut ingress.path, &mut ingress.asked] {
                *text = text.replace("/items/", "/moved/").replace("/app", "/moved");
            }
            ingress
        };
        let added = site::ingress(ingresses + turn, ingresses);
        let prefix = moved(site::ingress(ingresses / 2 + turn * 5 + 1, ingresses));
        let expression = moved(site::ingress(turn * 3 % 500, ingresses));
        for ((what, times), ingress) in kinds.iter_mut().zip([added, prefix, expression]) {
            times.push(served(agent, &ingress).with_context(|| format!("{what}: Ingress {}", ingress.number))?);
        }
    }
    Ok(kinds)
}

/// How long until a client gets an answer by what this manifest says.
fn served(agent: &Agent, ingress: &Ingress) -> Result<Duration> {
    let mut client = KeepAlive::open(web()?, &ingress.host)?;
    let before = client.fetch(&ingress.asked)?.0;
    ensure!(before == 404, "{} is answered with {before} before the change", ingress.asked);
    let renamed = agent.write(&file(ingress), &ingress.manifest())?;
    while client.fetch(&ingress.asked)?.0 != 200 {
        ensure!(renamed.elapsed() < PATIENCE, "it never answered");
        thread::sleep(PAUSE);
    }
    Ok(renamed.elapsed())
}
