//! wrk with a list of requests, and what they cost the peer.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use crate::peers::Peer;

/// Requests that are sent in turns, the same to every peer.
pub(crate) struct Requests {
    script: PathBuf,
}

pub(crate) struct Asked {
    pub(crate) host: String,
    pub(crate) path: String,
    /// Lua's table of header fields besides `Host`: `["Origin"]="https://x.example"`.
    pub(crate) fields: String,
}

impl Requests {
    pub(crate) fn new(directory: &Path, name: &str, asked: &[Asked]) -> Result<Self> {
        let mut text = String::from("local all = {}\nfunction init(args)\n");
        for (number, asked) in asked.iter().enumerate() {
            // A function of Lua has room for so many constants.
            if number % 1000 == 999 {
                let _ = writeln!(text, "end\nlocal before{number} = init\nfunction init(args)\nbefore{number}(args)");
            }
            let _ = writeln!(
                text,
                "all[#all + 1] = wrk.format('GET', '{}', {{['Host']='{}'{}}})",
                asked.path,
                asked.host,
                if asked.fields.is_empty() { String::new() } else { format!(", {}", asked.fields) }
            );
        }
        // Neighbours in the list have one host and one Service; whoever asks in order would find all caches warm.
        text.push_str("end\nlocal at = 0\nfunction request()\nat = (at + 7919) % #all\nreturn all[at + 1]\nend\n");
        let script = directory.join(format!("{name}.lua"));
        std::fs::write(&script, text).context("write wrk's script")?;
        Ok(Self { script })
    }

    /// CPU microseconds a request. Every answer must be a success.
    pub(crate) fn cost(&self, peer: &Peer, seconds: u64) -> Result<f64> {
        let before = peer.cpu()?;
        let mut command = Command::new("wrk");
        command.args(["-t1", "-c32", "-d", &format!("{seconds}s"), "-s"]).arg(&self.script);
        let out = command.arg(format!("http://{}/", peer.address)).output().context("run wrk")?;
        let spent = peer.cpu()?.saturating_sub(before);
        let text = String::from_utf8_lossy(&out.stdout);
        ensure!(out.status.success(), "wrk failed: {text}{}", String::from_utf8_lossy(&out.stderr));
        ensure!(!text.contains("Non-2xx"), "{} gave answers that were not 2xx:\n{text}", peer.name);
        ensure!(!text.contains("Socket errors"), "{} broke connections:\n{text}", peer.name);
        let line = text.lines().find(|line| line.contains("requests in")).context("wrk's count")?;
        let count: u64 = line.split_whitespace().next().and_then(|n| n.parse().ok()).context("wrk's count")?;
        ensure!(count > 0, "{} answered nothing", peer.name);
        Ok(spent.as_secs_f64() * 1e6 / count as f64)
    }
}

/// The medians of each peer's costs, and of the first one's cost to each other's, turn by turn: the machine's speed drifts by more than
/// the peers differ, and within a turn it is the same for all.
pub(crate) fn turns(peers: &[(&Peer, &Requests)], turns: usize, seconds: u64) -> Result<Vec<(f64, f64)>> {
    for (peer, requests) in peers {
        requests.cost(peer, 1).with_context(|| format!("warm {} up", peer.name))?;
    }
    let mut costs = vec![Vec::new(); peers.len()];
    for turn in 0..turns {
        // Nobody is always first.
        for place in 0..peers.len() {
            let at = (place + turn) % peers.len();
            costs[at].push(peers[at].1.cost(peers[at].0, seconds)?);
        }
    }
    let ratio = |of: &Vec<f64>| median(costs[0].iter().zip(of).map(|(first, other)| first / other));
    Ok(costs.iter().map(|of| (median(of.iter().copied()), ratio(of))).collect())
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}
