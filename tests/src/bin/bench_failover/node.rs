//! One of the two nodes: an agent of ours, or keepalived.

use std::fmt;
use std::fs;
use std::path::PathBuf;

use anyhow::Result;
use ingress_tests::edge::Agent;
use ingress_tests::keepalived::{Instance, Keepalived};
use ingress_tests::lan::Host;
use ingress_tests::place::Place;
use ingress_tests::vip_site::manifests;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Who {
    Ours,
    Keepalived,
}

impl fmt::Display for Who {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if *self == Self::Ours { "ours" } else { "keepalived" })
    }
}

pub(crate) enum Router {
    Ours(Agent),
    Theirs { running: Option<Keepalived>, priority: u8 },
}

pub(crate) struct Node {
    pub(crate) name: &'static str,
    pub(crate) host: Host,
    /// Of its cable, at the switch.
    pub(crate) port: u32,
    pub(crate) router: Router,
    pub(crate) directory: PathBuf,
    pub(crate) pins: PathBuf,
}

impl Node {
    pub(crate) fn new(
        who: Who,
        name: &'static str,
        host: Host,
        port: u32,
        place: &Place,
        interval_ms: u32,
        shares: bool,
    ) -> Result<Self> {
        let directory = place.directory.join(name);
        fs::create_dir_all(directory.join("manifests"))?;
        fs::write(directory.join("manifests/demo.yaml"), manifests("10.1.0.50"))?;
        let pins = place.pins.join(name);
        let router = match who {
            Who::Ours => {
                let key = place.directory.join("sync.key").display().to_string();
                let interval = interval_ms.to_string();
                let mut arguments = vec![
                    ["--node", name],
                    ["--vip-mode", "vrrp"],
                    ["--vrrp-interval-ms", &interval],
                    ["--hash-seed", "5eed"],
                    ["--workers", "1"],
                ];
                if shares {
                    arguments.extend([["--sync-peer", "10.1.0.2,10.1.0.3"], ["--sync-key-file", &key]]);
                }
                Router::Ours(Agent::start(&host, &directory, &pins, arguments.as_flattened())?)
            }
            Who::Keepalived => {
                let priority = if name == "a" { 150 } else { 100 };
                Router::Theirs { running: Some(keepalived(name, &host, priority, interval_ms)?), priority }
            }
        };
        Ok(Self { name, host, port, router, directory, pins })
    }
}

pub(crate) fn keepalived(name: &str, host: &Host, priority: u8, interval_ms: u32) -> Result<Keepalived> {
    let advert_int = format!("{}", f64::from(interval_ms) / 1000.0);
    let addresses = &["10.1.0.100/32"];
    let more = "virtual_ipaddress_excluded {\n    fd01::100/128\n  }";
    Keepalived::start(
        host,
        &format!("b{name}"),
        &Instance { priority, advert_int: &advert_int, addresses, more, ..Instance::default() },
    )
}
