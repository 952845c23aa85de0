//! What an operator wants to work on this node besides ourselves, before it holds addresses: a command, or an HTTP server. Asked on
//! a thread of its own, since a command may hang; the answers are read by the control thread.

use std::fmt;
use std::io::{Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use crate::model::election::Fitness;

/// One thing to ask.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    /// What a failure adds to the priority, -253 to 0. 0: then this node takes no part.
    pub weight: i32,
    pub probe: Probe,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Probe {
    /// Good: it ends with 0.
    Command { program: String, arguments: Vec<String> },
    /// Good: a status from 200 to 399.
    Http { authority: String, path: String },
}

const EVERY: Duration = Duration::from_secs(1);
const PATIENCE: Duration = Duration::from_secs(2);
/// Failures in a row until it counts: one lost answer moves nothing.
const FAILURES: u32 = 2;

/// Answers so far. The threads end with the process.
#[derive(Debug, Default)]
pub struct Checks {
    asked: Vec<(Check, Arc<Mutex<Outcome>>)>,
}

#[derive(Debug, Default)]
struct Outcome {
    failures: u32,
    why: String,
}

impl Checks {
    /// Starts asking, each check on a thread of its own: one that hangs holds up no other.
    pub fn start(checks: Vec<Check>) -> Result<Self> {
        let mut asked = Vec::new();
        for check in checks {
            let outcome = Arc::<Mutex<Outcome>>::default();
            let (probe, told) = (check.probe.clone(), Arc::clone(&outcome));
            std::thread::Builder::new()
                .name("check".into())
                .spawn(move || ask_for_ever(&probe, &told))
                .context("start the thread of a check")?;
            asked.push((check, outcome));
        }
        Ok(Self { asked })
    }

    /// What they mean for this node.
    pub fn judge(&self, fitness: &mut Fitness) {
        for (check, outcome) in &self.asked {
            let outcome = outcome.lock().unwrap_or_else(PoisonError::into_inner);
            if outcome.failures < FAILURES {
                continue;
            }
            if check.weight == 0 {
                fitness.bans.push(format!("{} fails: {}", check.probe, outcome.why));
            }
            fitness.weight += check.weight;
        }
    }
}

impl fmt::Display for Probe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Command { program, .. } => write!(f, "check {program}"),
            Self::Http { authority, path } => write!(f, "check http://{authority}{path}"),
        }
    }
}

fn ask_for_ever(probe: &Probe, told: &Mutex<Outcome>) {
    loop {
        let asked = Instant::now();
        let answer = ask(probe);
        {
            let mut outcome = told.lock().unwrap_or_else(PoisonError::into_inner);
            match answer {
                Ok(()) => *outcome = Outcome::default(),
                Err(e) => {
                    outcome.failures = outcome.failures.saturating_add(1);
                    outcome.why = format!("{e:#}");
                }
            }
        }
        std::thread::sleep(EVERY.saturating_sub(asked.elapsed()).max(EVERY / 10));
    }
}

fn ask(probe: &Probe) -> Result<()> {
    match probe {
        Probe::Command { program, arguments } => command(program, arguments),
        Probe::Http { authority, path } => http(authority, path),
    }
}

fn command(program: &str, arguments: &[String]) -> Result<()> {
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .with_context(|| format!("start {program}"))?;
    let end = Instant::now() + PATIENCE;
    loop {
        match child.try_wait().context("wait for it")? {
            Some(status) if status.success() => return Ok(()),
            Some(status) => anyhow::bail!("{status}"),
            None if Instant::now() >= end => {
                let _ = child.kill();
                let _ = child.wait();
                anyhow::bail!("it did not end within {PATIENCE:?}");
            }
            None => std::thread::sleep(Duration::from_millis(10)),
        }
    }
}

fn http(authority: &str, path: &str) -> Result<()> {
    let address = authority.to_socket_addrs().context("find its address")?.next().context("it has no address")?;
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE).context("connect")?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    // In one piece: a server that answers the first of several, and closes, resets the connection on the others.
    let request = format!("GET {path} HTTP/1.1\r\nhost: {authority}\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).context("ask")?;
    // `HTTP/1.1 200`
    let mut head = [0u8; 12];
    stream.read_exact(&mut head).context("read the answer")?;
    anyhow::ensure!(matches!(head[9], b'2' | b'3') && head.starts_with(b"HTTP/1."), "{}", head.escape_ascii());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn probe(program: &str, arguments: &[&str]) -> Probe {
        Probe::Command { program: program.into(), arguments: arguments.iter().map(|a| (*a).into()).collect() }
    }

    #[test]
    fn commands_tell_by_their_end() {
        assert!(ask(&probe("/bin/true", &[])).is_ok());
        assert!(ask(&probe("/bin/false", &[])).is_err());
        assert!(ask(&probe("/nothing/there", &[])).is_err());
        let hangs = ask(&probe("/bin/sleep", &["600"])).expect_err("it hangs");
        assert!(format!("{hangs:#}").contains("did not end"), "{hangs:#}");
    }

    #[test]
    fn servers_tell_by_their_status() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("bind");
        let authority = listener.local_addr().expect("bound").to_string();
        let server = std::thread::spawn(move || {
            for status in ["204 No Content", "503 No"] {
                let (mut stream, _) = listener.accept().expect("accept");
                let mut request = [0u8; 512];
                let _ = stream.read(&mut request);
                // In one piece, as the question: it is not read beyond the status.
                stream.write_all(format!("HTTP/1.1 {status}\r\n\r\n").as_bytes()).expect("answer");
            }
        });
        assert!(http(&authority, "/healthz").is_ok());
        assert!(http(&authority, "/healthz").is_err());
        server.join().expect("the server");
        assert!(http(&authority, "/healthz").is_err(), "nobody listens");
    }

    #[test]
    fn weights_add_up_and_zero_bans() {
        let failed = || Arc::new(Mutex::new(Outcome { failures: FAILURES, why: "no".into() }));
        let once = Arc::new(Mutex::new(Outcome { failures: 1, why: "no".into() }));
        let check = |weight| Check { weight, probe: probe("/bin/false", &[]) };
        let checks = Checks {
            asked: vec![(check(-30), failed()), (check(-20), failed()), (check(0), failed()), (check(-100), once)],
        };
        let mut fitness = Fitness::default();
        checks.judge(&mut fitness);
        assert_eq!((fitness.weight, fitness.bans.len()), (-50, 1));
        assert_eq!(fitness.bans[0], "check /bin/false fails: no");
    }
}
