//! Load from wrk (HTTP/1.1) and h2load (HTTP/2), and what it cost the peer.

use std::process::Command;

use anyhow::{Context as _, bail, ensure};

use super::peers::Peer;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scenario {
    Plain,
    Tls,
    Large,
    LargeTls,
    NewTls,
    Http2,
}

pub(crate) struct Sample {
    pub(crate) cpu_micros: f64,
    pub(crate) per_second: f64,
    pub(crate) p50_micros: f64,
    pub(crate) p99_micros: f64,
}

impl Scenario {
    pub(crate) const ALL: [Self; 6] = [Self::Plain, Self::Tls, Self::Large, Self::LargeTls, Self::NewTls, Self::Http2];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Plain => "http/1.1 keep-alive",
            Self::Tls => "tls keep-alive",
            Self::Large => "64 KiB bodies",
            Self::LargeTls => "64 KiB bodies, tls",
            Self::NewTls => "new tls connections",
            Self::Http2 => "h2",
        }
    }

    /// Issue 3, "To reach": largest ratio of CPU a request to that peer.
    pub(crate) fn bar(self, peer: &str) -> Option<f64> {
        match (self, peer) {
            (Self::Plain, "nginx" | "haproxy") => Some(0.95),
            (Self::Tls | Self::Large, "nginx") => Some(1.0),
            _ => None,
        }
    }
}

pub(crate) fn run(scenario: Scenario, peer: &Peer, seconds: u64) -> anyhow::Result<Sample> {
    let url = |secure: bool, path: &str| {
        if secure { format!("https://{}{path}", peer.https) } else { format!("http://{}{path}", peer.http) }
    };
    let duration = format!("{seconds}s");
    let wrk = |url: String, extra: &[&str]| {
        let mut command = Command::new("wrk");
        command.args(["-t1", "-c32", "--latency", "-d", &duration]).args(extra).arg(url);
        command
    };
    let before = peer.cpu();
    let (requests, mut sample) = match scenario {
        Scenario::Plain => wrk_result(wrk(url(false, "/"), &[]))?,
        Scenario::Tls => wrk_result(wrk(url(true, "/"), &[]))?,
        Scenario::Large => wrk_result(wrk(url(false, "/64k"), &[]))?,
        Scenario::LargeTls => wrk_result(wrk(url(true, "/64k"), &[]))?,
        Scenario::NewTls => wrk_result(wrk(url(true, "/"), &["-H", "Connection: close"]))?,
        Scenario::Http2 => h2load(&url(true, "/"), seconds)?,
    };
    let spent = peer.cpu().saturating_sub(before);
    ensure!(requests > 0, "no request was answered");
    sample.cpu_micros = spent.as_secs_f64() * 1e6 / requests as f64;
    Ok(sample)
}

fn output(mut command: Command) -> anyhow::Result<String> {
    let out = command.output().with_context(|| format!("run {command:?}"))?;
    let text = String::from_utf8_lossy(&out.stdout).into_owned();
    ensure!(out.status.success(), "{command:?}: {text}{}", String::from_utf8_lossy(&out.stderr));
    Ok(text)
}

fn wrk_result(command: Command) -> anyhow::Result<(u64, Sample)> {
    let text = output(command)?;
    if text.contains("Non-2xx") {
        bail!("some answers were not 2xx:\n{text}");
    }
    let field = |mark: &str| {
        let line = text.lines().find(|line| line.contains(mark))?;
        line.split_whitespace().find(|word| word.starts_with(|c: char| c.is_ascii_digit()) && !word.contains('%'))
    };
    let requests = field("requests in").and_then(|n| n.parse().ok()).with_context(|| format!("wrk said:\n{text}"))?;
    let per_second = field("Requests/sec").and_then(|n| n.parse().ok()).unwrap_or(f64::NAN);
    let latency = |mark: &str| field(mark).map_or(f64::NAN, micros);
    let sample = Sample { cpu_micros: 0.0, per_second, p50_micros: latency(" 50%"), p99_micros: latency(" 99%") };
    Ok((requests, sample))
}

/// `1.23ms`, `456.00us`, `1.02s`.
fn micros(text: &str) -> f64 {
    let (number, unit) = text.split_at(text.find(|c: char| c.is_ascii_alphabetic()).unwrap_or(text.len()));
    let scale = match unit {
        "us" => 1.0,
        "ms" => 1e3,
        _ => 1e6,
    };
    number.parse::<f64>().map_or(f64::NAN, |n| n * scale)
}

/// h2load prints no percentiles, but a line a request: start, status, microseconds.
fn h2load(url: &str, seconds: u64) -> anyhow::Result<(u64, Sample)> {
    let log = std::env::temp_dir().join(format!("sluicegate-h2load-{}", std::process::id()));
    let mut command = Command::new("h2load");
    command.args(["-t1", "-c8", "-m8", "-D", &seconds.to_string()]).arg("--log-file").arg(&log).arg(url);
    let result = output(command);
    let lines = std::fs::read_to_string(&log).unwrap_or_default();
    let _ = std::fs::remove_file(&log);
    let text = result?;
    let mut times: Vec<u64> = Vec::new();
    for line in lines.lines() {
        let mut columns = line.split('\t').skip(1);
        if columns.next() == Some("200") {
            times.extend(columns.next().and_then(|t| t.parse::<u64>().ok()));
        }
    }
    ensure!(text.contains(" 0 failed, 0 errored"), "requests failed:\n{text}");
    times.sort_unstable();
    let at = |part: f64| times.get((times.len() as f64 * part) as usize).map_or(f64::NAN, |&t| t as f64);
    let requests = times.len() as u64;
    let per_second = requests as f64 / seconds as f64;
    Ok((requests, Sample { cpu_micros: 0.0, per_second, p50_micros: at(0.5), p99_micros: at(0.99) }))
}
