//! What the demo shows, step by step, each with a measure that must hold. Clients are real programs in the clients'
//! namespaces; nothing here talks to the agent but by its VIPs.

use std::io::{BufRead, BufReader};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use ingress_tests::lan::Host;
use ingress_tests::load::web::{Connection, Site};
use ingress_tests::load::{self, Outcome, Spread};
use ingress_tests::table::{Table, ms, quantile};

use crate::failover;
use crate::migrate;
use crate::world::{CLIENT_V4, CLIENT_V6, L4_V4, L4_V6, Load, WEB_V4, WEB_V6, World, at};

const PATIENCE: Duration = Duration::from_secs(5);

pub(crate) fn everything(world: &mut World) -> Result<()> {
    let mut table = Table::default();
    step("A LAN: two clients, a switch, an edge with the agent, three backends, a pod behind the edge");
    // Of `sluicegate status` the interfaces and addresses; its table of services is long.
    let status = world.agent.status()?;
    println!("{}", indent(status.split("SERVICES").next().unwrap_or_default().trim_end()));
    spread(world, &mut table)?;
    local(world, &mut table)?;
    https(world, &mut table)?;
    migrate::show(world, &mut table)?;
    step("A long TCP transfer starts now and goes on to the end");
    let mut transfer = Load::start(&world.client4, &["transfer", &format!("{L4_V4}:9000"), "--avoid", "b2"])?;
    println!("   through {}", transfer.first_line()?);
    backend_dies(world, &mut table)?;
    manifest_edited(world, &mut table)?;
    agent_dies(world, &mut table)?;
    let bytes = transfer.finish()?;
    let bytes: u64 = bytes.trim().strip_prefix("bytes ").and_then(|n| n.parse().ok()).unwrap_or(0);
    step("The transfer ends");
    table.row(
        "bytes of one TCP connection, all right",
        format!("{:.1} MB", bytes as f64 / 1e6),
        "not broken",
        bytes > 0,
    );
    failover::show(world, &mut table)?;
    table.close()
}

pub(crate) fn step(what: &str) {
    println!("\n── {what}");
}

pub(crate) fn indent(text: &str) -> String {
    text.lines().map(|line| format!("   {line}")).collect::<Vec<_>>().join("\n")
}

/// Maglev spreads flows over the backends.
fn spread(world: &World, table: &mut Table) -> Result<()> {
    step("L4, `nat` mode: XDP spreads 300 flows each over b1, b2 and b3");
    for (what, host, kind, to) in [
        ("TCP over IPv4", &world.client4, "tcp", format!("{L4_V4}:9000")),
        ("UDP over IPv4", &world.client4, "udp", format!("{L4_V4}:9001")),
        ("TCP over IPv6", &world.client6, "tcp", format!("[{L4_V6}]:9000")),
        ("UDP over IPv6", &world.client6, "udp", format!("[{L4_V6}]:9001")),
    ] {
        let spread = client(host, &[kind, &to, "--count", "300"])?;
        let counts: Vec<String> = spread.iter().map(|(name, count)| format!("{name} {count}")).collect();
        // A fair die of three sides falls outside 60..140 of 300 about once in a million times.
        let fair = spread.len() == 3 && spread.values().all(|count| (60..=140).contains(count));
        table.row(what, counts.join(", "), "60 to 140 each", fair);
    }
    Ok(())
}

fn client(host: &Host, arguments: &[&str]) -> Result<Spread> {
    let text = Load::start(host, arguments)?.finish()?;
    let lines = text.lines().filter_map(|line| line.split_once(' '));
    let spread: Spread = lines.filter_map(|(name, count)| Some((name.to_owned(), count.parse().ok()?))).collect();
    ensure!(!spread.is_empty(), "demo_client {} saw nobody", arguments.join(" "));
    Ok(spread)
}

/// A backend on the edge itself sees who the client is.
fn local(world: &World, table: &mut Table) -> Result<()> {
    step("L4, `local` mode: a pod behind the edge sees the client's own address");
    for (what, host, vip, own) in [
        ("the pod saw, over IPv4", &world.client4, L4_V4, CLIENT_V4),
        ("the pod saw, over IPv6", &world.client6, L4_V6, CLIENT_V6),
    ] {
        let line = greeting(host, at(vip, 9100)?)?;
        let seen: Option<SocketAddr> = line.split_whitespace().nth(1).and_then(|seen| seen.parse().ok());
        let held = line.starts_with("pod ") && seen.is_some_and(|seen| seen.ip().to_string() == own);
        table.row(what, line, "pod and the client's address", held);
    }
    Ok(())
}

pub(crate) fn greeting(host: &Host, to: SocketAddr) -> Result<String> {
    host.ns.inside(|| {
        let stream = TcpStream::connect_timeout(&to, PATIENCE).with_context(|| format!("connect to {to}"))?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let mut line = String::new();
        BufReader::new(stream).read_line(&mut line).context("read the greeting")?;
        Ok(line.trim().to_owned())
    })
}

/// Host and path choose the backend; curl verifies the certificate.
fn https(world: &World, table: &mut Table) -> Result<()> {
    step("L7: HTTPS by host and path, with curl and a certificate that it verifies");
    let curl = |host: &Host, vip: &str, url: &str| {
        let name = url.trim_start_matches("https://").split('/').next().unwrap_or_default();
        let resolve = format!("{name}:443:{vip}");
        let authority = world.authority();
        let line = ["-s", "--max-time", "5", "--resolve", &resolve, "--cacert", &authority.to_string_lossy()]
            .map(str::to_owned);
        let mut line: Vec<&str> = line.iter().map(String::as_str).collect();
        line.extend(["-w", "%{http_code} HTTP/%{http_version}", url]);
        host.ns.run("curl", &line).map(|answer| answer.replace('\n', " · "))
    };
    let v6 = format!("[{WEB_V6}]");
    for (url, host, vip, backends) in [
        ("https://shop.example/", &world.client4, WEB_V4, &["b1", "b2"][..]),
        ("https://shop.example/api/items", &world.client4, WEB_V4, &["b3"]),
        ("https://shop.example/api/items", &world.client6, v6.as_str(), &["b3"]),
    ] {
        let answer = curl(host, vip, url)?;
        let held = answer.contains("200 HTTP/2") && backends.iter().any(|name| answer.starts_with(&format!("{name} ")));
        let what = if vip == WEB_V4 { url.to_owned() } else { format!("{url} over IPv6") };
        table.row(&what, answer, "200, HTTP/2, the right backend", held);
    }
    let answer = curl(&world.client4, WEB_V4, "https://chat.example/nowhere")?;
    table.row("https://chat.example/nowhere", answer.clone(), "another host's rule", answer.contains("chat.example"));
    let authority = world.authority();
    let arguments =
        ["websocket", &format!("{WEB_V4}:443"), "--host", "chat.example", "--ca", &authority.to_string_lossy()];
    let echoed = Load::start(&world.client4, &arguments)?.finish()?;
    table.row("a WebSocket over TLS", echoed.trim(), "6 messages echoed", echoed.trim() == "echoed 6");
    Ok(())
}

/// New connections and requests go on while a backend dies and is taken from its slices.
fn backend_dies(world: &mut World, table: &mut Table) -> Result<()> {
    step("Backend b2 is killed under load; its endpoint goes from the manifests as a controller would do it");
    let authority = world.authority();
    let connect = Load::start(&world.client4, &["connect", &format!("{L4_V4}:9000")])?;
    let web = ["https", &format!("{WEB_V4}:443"), "--host", "shop.example", "--ca", &authority.to_string_lossy()];
    let web = Load::start(&world.client4, &web)?;
    let flow = UdpFlow::on(world, "b2")?;
    std::thread::sleep(Duration::from_millis(500));
    world.kill_b2();
    std::thread::sleep(Duration::from_millis(300));
    world.edit("web.yaml", |text| without(text, "worker-2"))?;
    let edited = world.edit("echo.yaml", |text| without(text, "worker-2"))?;
    let next = flow.until(|name| name != "b2")?;
    let live = edited.elapsed();
    let detected = load::now_ms();
    println!("   a UDP flow of b2 was moved to {next} {} after the edit", ms(live));
    std::thread::sleep(Duration::from_millis(1500));
    let (connect, web) = (Outcome::parse(&connect.finish()?)?, Outcome::parse(&web.finish()?)?);
    println!(
        "   while the dead endpoint was still listed: {} of {} new TCP connections refused, {} of {} HTTPS requests failed",
        connect.failures.len(),
        connect.ok + connect.failures.len() as u64,
        web.failures.len(),
        web.ok + web.failures.len() as u64
    );
    for (what, outcome) in
        [("new TCP connections failed after that", &connect), ("HTTPS requests failed after that", &web)]
    {
        let failed = outcome.failed_since(detected + 1);
        table.row(what, format!("{failed} (of {} in all)", outcome.ok), "0", failed == 0 && outcome.ok > 100);
        for (_, why) in outcome.failures.iter().filter(|(began, _)| *began > detected).take(3) {
            println!("     {why}");
        }
    }
    table.row("endpoint removed: live after", ms(live), "at most 1 s", live < Duration::from_secs(1));
    Ok(())
}

/// The manifest without the lines that name a node.
fn without(text: &str, node: &str) -> String {
    text.split_inclusive('\n').filter(|line| !line.contains(node)).collect()
}

/// How soon an edit is noticed by a client, at L4 and at L7.
fn manifest_edited(world: &World, table: &mut Table) -> Result<()> {
    step("A manifest is edited: its endpoint moves between b1 and b3");
    let site = Site::secure(at(WEB_V4, 443)?, "shop.example", "/edited", &world.authority())?;
    let (mut l4, mut l7) = (Vec::new(), Vec::new());
    let moves = [("192.0.2.11", "192.0.2.13", "b3"), ("192.0.2.13", "192.0.2.11", "b1")];
    for (from, to, name) in moves.into_iter().cycle().take(10) {
        let flow = UdpFlow::new(world, at(L4_V4, 9201)?)?;
        world.client4.ns.inside(|| {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(async {
                let mut connection = Connection::open(&site).await?;
                let edited = world.edit("edited.yaml", |text| text.replace(from, to))?;
                flow.until(|answer| answer == name)?;
                l4.push(edited.elapsed());
                while !connection.get().await?.starts_with(name) {
                    ensure!(edited.elapsed() < PATIENCE, "the edit never became live in the proxy");
                }
                l7.push(edited.elapsed());
                anyhow::Ok(())
            })
        })?;
    }
    let median = |times: &mut [Duration]| quantile(times, 0.5).context("no edit was measured");
    let (l4, l7) = (median(&mut l4)?, median(&mut l7)?);
    table.row("manifest edited: live in XDP after", ms(l4), "at most 100 ms", l4 < Duration::from_millis(100));
    table.row("manifest edited: live in the proxy after", ms(l7), "at most 100 ms", l7 < Duration::from_millis(100));
    Ok(())
}

/// Forwarding does not need the agent to be alive.
fn agent_dies(world: &mut World, table: &mut Table) -> Result<()> {
    step("The agent is killed with -9 under load, is gone for a second and a half, and comes back");
    let mut hold = Load::start(&world.client4, &["hold", &format!("{L4_V4}:9000"), "--connections", "200"])?;
    println!("   {} TCP connections, a message on each ten times a second", hold.first_line()?);
    let connect = Load::start(&world.client6, &["connect", &format!("[{L4_V6}]:9000")])?;
    std::thread::sleep(Duration::from_millis(300));
    world.agent.kill()?;
    println!("   the agent is dead");
    std::thread::sleep(Duration::from_millis(1500));
    let back = world.agent.start_again()?;
    println!("   the agent is back and ready, after {}", ms(back));
    std::thread::sleep(Duration::from_millis(700));
    let (hold, connect) = (Outcome::parse(&hold.finish()?)?, Outcome::parse(&connect.finish()?)?);
    let lost = hold.failures.len();
    table.row("L4 connections lost", format!("{lost} of {}", hold.ok + lost as u64), "0", lost == 0 && hold.ok == 200);
    let failed = connect.failures.len();
    table.row(
        "new L4 connections failed meanwhile",
        format!("{failed} of {}", connect.ok),
        "0",
        failed == 0 && connect.ok > 100,
    );
    for (_, why) in hold.failures.iter().chain(&connect.failures).take(3) {
        println!("     {why}");
    }
    Ok(())
}

/// A UDP socket of the IPv4 client, and so one flow.
struct UdpFlow(UdpSocket);

impl UdpFlow {
    fn new(world: &World, to: SocketAddr) -> Result<Self> {
        world.client4.ns.inside(|| {
            let socket = UdpSocket::bind(load::local(to)).context("bind a UDP socket")?;
            socket.connect(to)?;
            socket.set_read_timeout(Some(Duration::from_millis(2)))?;
            Ok(Self(socket))
        })
    }

    /// A flow that this backend answers.
    fn on(world: &World, name: &str) -> Result<Self> {
        for _ in 0..100 {
            let flow = Self::new(world, at(L4_V4, 9001)?)?;
            if flow.until(|_| true)? == name {
                return Ok(flow);
            }
        }
        bail!("of 100 UDP flows none went to {name}")
    }

    /// Asks until a backend answers that is as wanted, and returns its name.
    fn until(&self, wanted: impl Fn(&str) -> bool) -> Result<String> {
        let deadline = Instant::now() + PATIENCE;
        let mut answer = [0; 512];
        while Instant::now() < deadline {
            // An ICMP error of a dead backend is reported by either call; the next attempt tells.
            let _ = self.0.send(b"who?");
            let Ok(length) = self.0.recv(&mut answer) else { continue };
            let text = String::from_utf8_lossy(&answer[..length]);
            let name = text.split_whitespace().next().unwrap_or_default();
            if wanted(name) {
                return Ok(name.to_owned());
            }
        }
        bail!("no backend answered as expected within {PATIENCE:?}")
    }
}
