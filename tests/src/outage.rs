//! How long an address did not answer: a question every millisecond, and the longest time between two that were answered.

pub mod probe;

use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::process::{ChildStdout, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::edge::sibling;
use crate::lan::Host;
use crate::netns::Running;

/// A probe that runs until it is asked for its findings, or dropped.
#[derive(Debug)]
pub struct Outage {
    probe: Running,
    out: BufReader<ChildStdout>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Findings {
    pub sent: usize,
    pub answered: usize,
    /// Questions without an answer, of those before the last that had one.
    pub lost: usize,
    /// Between two requests that were answered, one after the other.
    pub longest: Duration,
    /// When that began, from the beginning.
    pub began: Duration,
    /// From the beginning to the first request that was answered.
    pub until_first: Duration,
    /// Longest time between two questions: a gap is not known better than this.
    pub paused: Duration,
}

impl Outage {
    /// Sends echo requests (ICMP) to `address` from `host` from now on.
    pub fn watch(host: &Host, address: &str) -> Result<Self> {
        Self::start(host, "echo", address)
    }

    /// Sends datagrams of one flow to a port that a [`Returner`] serves.
    pub fn stream(host: &Host, to: SocketAddr) -> Result<Self> {
        Self::start(host, "stream", &to.to_string())
    }

    fn start(host: &Host, what: &str, to: &str) -> Result<Self> {
        let (probe, out) = start(host, &[what, to])?;
        Ok(Self { probe, out })
    }

    /// Waits until the address answers again, if it does not.
    pub fn end(mut self) -> Result<Findings> {
        drop(self.probe.0.stdin.take());
        let mut line = String::new();
        self.out.read_to_string(&mut line).context("read what the probe found")?;
        Findings::parse(&line).with_context(|| format!("the probe said {line:?}"))
    }
}

/// Returns datagrams to a [`Outage::stream`]; ends when it is dropped.
#[derive(Debug)]
pub struct Returner {
    _running: Running,
}

impl Returner {
    pub fn start(host: &Host, port: u16) -> Result<Self> {
        Ok(Self { _running: start(host, &["serve", &port.to_string()])?.0 })
    }
}

fn start(host: &Host, arguments: &[&str]) -> Result<(Running, BufReader<ChildStdout>)> {
    let mut command = Command::new(sibling("outage_probe")?);
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut running = host.ns.spawn(&mut command)?;
    let mut out = BufReader::new(running.0.stdout.take().context("the probe's output")?);
    let mut line = String::new();
    out.read_line(&mut line).context("wait for the probe")?;
    ensure!(line.trim() == probe::READY, "the probe {arguments:?} did not start");
    Ok((running, out))
}

impl Findings {
    /// As [`Findings::parse`] reads it: counts, then microseconds.
    fn line(&self) -> String {
        let Self { sent, answered, lost, .. } = self;
        let [longest, began, until_first, paused] =
            [self.longest, self.began, self.until_first, self.paused].map(|time| time.as_micros());
        format!("{sent} {answered} {lost} {longest} {began} {until_first} {paused}")
    }

    fn parse(line: &str) -> Result<Self> {
        let numbers: Vec<u64> = line.split_whitespace().map(str::parse).collect::<Result<_, _>>()?;
        let [sent, answered, lost, longest, began, until_first, paused] = numbers[..].try_into()?;
        let [longest, began, until_first, paused] = [longest, began, until_first, paused].map(Duration::from_micros);
        let [sent, answered, lost] = [sent, answered, lost].map(|count| count as usize);
        Ok(Self { sent, answered, lost, longest, began, until_first, paused })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn findings_come_through_a_pipe_as_they_were() {
        let found = Findings { sent: 9, lost: 2, longest: Duration::from_micros(7), ..Findings::default() };
        assert_eq!(Findings::parse(&found.line()).expect("a line"), found);
        assert!(Findings::parse("1 2 x").is_err());
    }
}
