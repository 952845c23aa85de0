//! How soon a changed EndpointSlice has its effect: from the API server's answer until a client is served by the new endpoint.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use ingress_tests::cluster::ControlPlane;
use ingress_tests::lan::Host;
use ingress_tests::table::{Table, ms, quantile};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::Api;

use crate::cluster::{ECHO, WEB, WEB_HOST, change};

const PATIENCE: Duration = Duration::from_secs(10);
const WANTED: Duration = Duration::from_millis(30);

/// New connections to the VIP go to the new endpoint.
pub(crate) fn in_xdp(cluster: &ControlPlane, client: &Host, count: usize, table: &mut Table) -> Result<()> {
    let times = timed(cluster, client, ECHO.0, count, greeted)?;
    note("live in XDP", times, table);
    Ok(())
}

/// The next request on an open connection to the proxy goes to the new endpoint.
pub(crate) fn in_proxy(cluster: &ControlPlane, client: &Host, count: usize, table: &mut Table) -> Result<()> {
    let to: SocketAddr = "10.1.0.100:80".parse()?;
    let mut stream = client.inside(|| TcpStream::connect_timeout(&to, PATIENCE)).context("connect to the proxy")?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let times = timed(cluster, client, WEB.0, count, || answered(&mut stream))?;
    note("live in the proxy", times, table);
    Ok(())
}

/// `asked` says who serves now.
fn timed(
    cluster: &ControlPlane,
    client: &Host,
    service: &str,
    count: usize,
    mut asked: impl FnMut() -> Result<String> + Send,
) -> Result<Vec<Duration>> {
    let mut times = Vec::new();
    cluster.with_client(async |api| {
        let api = Api::<EndpointSlice>::namespaced(api, "demo");
        for turn in 0..count {
            let (address, name) = [("10.1.0.12", "two"), ("10.1.0.11", "one")][turn % 2];
            change(&api, service, vec![address.to_owned()]).await?;
            let changed = Instant::now();
            client.inside(|| -> Result<()> {
                while asked().with_context(|| format!("after change {turn} of {service}"))? != name {
                    ensure!(changed.elapsed() < PATIENCE, "change {turn} of {service} has no effect in {PATIENCE:?}");
                }
                Ok(())
            })?;
            times.push(changed.elapsed());
        }
        Ok(())
    })?;
    Ok(times)
}

fn note(what: &str, mut times: Vec<Duration>, table: &mut Table) {
    let figures = [0.5, 0.99, 1.0].map(|share| quantile(&mut times, share).unwrap_or_default());
    table.row(
        &format!("{} slice changes: {what}", times.len()),
        format!("p50 {}, p99 {}, worst {}", ms(figures[0]), ms(figures[1]), ms(figures[2])),
        "p99 at most 30 ms",
        figures[1] <= WANTED,
    );
}

/// Who greets a new connection. One that is on its way while its endpoint goes is greeted, too.
fn greeted() -> Result<String> {
    let address: SocketAddr = "10.1.0.101:9000".parse()?;
    let stream = TcpStream::connect_timeout(&address, PATIENCE).context("connect")?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line).context("wait for the greeting")?;
    Ok(first_word(&line))
}

/// Who answers a request.
fn answered(stream: &mut TcpStream) -> Result<String> {
    write!(stream, "GET / HTTP/1.1\r\nHost: {WEB_HOST}\r\n\r\n").context("send a request")?;
    let (mut bytes, mut block) = (Vec::new(), [0; 4096]);
    loop {
        let length = stream.read(&mut block).context("wait for an answer")?;
        ensure!(length > 0, "the proxy closed the connection");
        bytes.extend_from_slice(&block[..length]);
        let text = String::from_utf8_lossy(&bytes);
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        let head = head.to_ascii_lowercase();
        let wanted = head.lines().find_map(|line| line.strip_prefix("content-length:")?.trim().parse::<usize>().ok());
        if body.len() >= wanted.context("no Content-Length")? {
            if !head.starts_with("http/1.1 200") {
                bail!("answered with {}", head.lines().next().unwrap_or_default());
            }
            return Ok(first_word(body));
        }
    }
}

fn first_word(text: &str) -> String {
    text.split_whitespace().next().unwrap_or_default().to_owned()
}
