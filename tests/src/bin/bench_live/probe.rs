//! When a change is there, as a client sees it: at L4, a new connection from one port goes to another endpoint than the one
//! that went (the time at which that connection began; one that was being opened as its endpoint went is served by it); in the
//! proxy, another endpoint answers, or a path that was not found does. It is asked again and again from the moment of the
//! rename. Runs inside the client's namespace.

use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use ingress_tests::edge::Agent;
use ingress_tests::load::asking::{KeepAlive, answer};
use socket2::{Domain, SockAddr, Socket, Type};

use crate::cluster::{self, Endpoints};

const PATIENCE: Duration = Duration::from_secs(5);
/// Between two questions. Asking without a pause keeps a core busy, and this client's backend and a worker of the agent's with it:
/// on two cores that is what the agent then waits for, and not what is to be measured.
const PAUSE: Duration = Duration::from_micros(300);

/// Takes one of a hundred endpoints away; how long until a flow that belonged to it goes elsewhere.
pub(crate) fn endpoint_in_xdp(agent: &Agent, service: usize) -> Result<Duration> {
    let vip = cluster::frontend(service);
    let port = port_of_the_last(vip)?;
    // The new file is ready before the clock runs; only the rename is between.
    let text = cluster::slice(service, Endpoints::AllButLast);
    let renamed = agent.write(&cluster::slice_file(service), &text)?;
    loop {
        let began = renamed.elapsed();
        if backend(vip, port)? != "one" {
            return Ok(began);
        }
        ensure!(began < PATIENCE, "new connections still go to the endpoint that went");
        std::thread::sleep(PAUSE);
    }
}

/// Moves one of a hundred endpoints, the one that answers, to another host's address; how long until that host answers.
pub(crate) fn endpoint_in_proxy(agent: &Agent, service: usize) -> Result<Duration> {
    let mut web = KeepAlive::open(cluster::web(), cluster::HOST)?;
    let path = cluster::path(service, false);
    let before = web.fetch(&path)?;
    ensure!(before.1.starts_with("one "), "{path} is answered by another endpoint than the ready one: {before:?}");
    let text = cluster::slice(service, Endpoints::OnlyLastMoved);
    let renamed = agent.write(&cluster::slice_file(service), &text)?;
    loop {
        let (status, body) = web.fetch(&path)?;
        ensure!(status == 200, "{path} failed with {status} as its endpoint moved");
        if body.starts_with("many ") {
            return Ok(renamed.elapsed());
        }
        ensure!(renamed.elapsed() < PATIENCE, "the moved endpoint's old address still answers");
        std::thread::sleep(PAUSE);
    }
}

/// Moves an Ingress to another path; how long until the proxy has it.
pub(crate) fn path_in_proxy(agent: &Agent, service: usize) -> Result<Duration> {
    let mut web = KeepAlive::open(cluster::web(), cluster::HOST)?;
    let path = cluster::path(service, true);
    ensure!(web.fetch(&path)?.0 == 404, "{path} is there before the change");
    let renamed = agent.write(&cluster::ingress_file(service), &cluster::ingress(service, true))?;
    while web.fetch(&path)?.0 != 200 {
        ensure!(renamed.elapsed() < PATIENCE, "the new path never answered");
        std::thread::sleep(PAUSE);
    }
    Ok(renamed.elapsed())
}

/// A source port from which new connections go to the last endpoint: one in a hundred.
fn port_of_the_last(vip: SocketAddr) -> Result<u16> {
    for port in 20_000..24_000 {
        if backend(vip, port)? == "one" {
            return Ok(port);
        }
    }
    bail!("of 4,000 source ports none reaches the last endpoint")
}

/// Who answers a new connection from this source port. It is reset at once, so that the port is free again.
fn backend(vip: SocketAddr, port: u16) -> Result<String> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).context("make a socket")?;
    socket.set_reuse_address(true)?;
    socket.set_linger(Some(Duration::ZERO))?;
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.bind(&SockAddr::from(SocketAddr::from((Ipv4Addr::UNSPECIFIED, port)))).context("bind the source port")?;
    socket
        .connect_timeout(&SockAddr::from(vip), PATIENCE)
        .with_context(|| format!("connect to {vip} from port {port}"))?;
    let mut socket = &socket;
    socket.write_all(b"GET / HTTP/1.1\r\nHost: any.example\r\n\r\n")?;
    let (_, body) = answer(&mut socket).with_context(|| format!("new connection to {vip} from port {port}"))?;
    Ok(body.split(' ').next().unwrap_or_default().to_owned())
}
