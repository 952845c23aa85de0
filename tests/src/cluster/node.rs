//! A node of the cluster: a host of the LAN behind which pods live, each in a namespace of its own with an address of each family.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::{Arc, Mutex};

use anyhow::{Context, Result};

use crate::lan::Host;
use crate::netns::Namespace;

/// The first and the last host part that a pod may have.
const NUMBERS: std::ops::RangeInclusive<u8> = 2..=254;

/// What a kubelet knows of a node before the cluster does.
#[derive(Clone, Debug)]
pub struct Node {
    pub name: String,
    pub host: Host,
    /// Of the host itself: `status.addresses` of the Node, and where its pods are routed by.
    pub addresses: Vec<IpAddr>,
    pub labels: BTreeMap<String, String>,
    index: u8,
    taken: Arc<Mutex<Taken>>,
}

#[derive(Debug, Default)]
struct Taken {
    numbers: BTreeSet<u8>,
    last: u8,
}

impl Node {
    /// `index` tells the pod ranges of the nodes apart (`10.244.INDEX.0/24`, `fd00:10:244:INDEX::/64`).
    pub fn new(name: &str, host: &Host, addresses: &[&str], index: u8) -> Self {
        Self {
            name: name.into(),
            host: host.clone(),
            addresses: addresses.iter().map(|address| address.parse().expect("an address")).collect(),
            labels: [("kubernetes.io/hostname", name), ("kubernetes.io/os", "linux")]
                .map(|(key, value)| (key.to_owned(), value.to_owned()))
                .into(),
            index,
            taken: Arc::default(),
        }
    }

    /// With a label more, for a `nodeSelector`.
    #[must_use]
    pub fn label(mut self, key: &str, value: &str) -> Self {
        self.labels.insert(key.into(), value.into());
        self
    }

    /// Its pods' addresses, as `spec.podCIDRs` has them.
    pub fn pod_ranges(&self) -> [String; 2] {
        let [v4, v6] = self.pod_addresses(0);
        [format!("{v4}/24"), format!("{v6}/64")]
    }

    /// Routes on another host of the LAN to this node's pods, by the node's own addresses.
    pub fn route_pods_from(&self, other: &Host) -> Result<()> {
        for range in self.pod_ranges() {
            let v6 = range.contains(':');
            let Some(gateway) = self.addresses.iter().find(|address| address.is_ipv6() == v6) else { continue };
            let family = if v6 { "-6" } else { "-4" };
            other.ip(&[family, "route", "replace", &range, "via", &gateway.to_string()])?;
        }
        Ok(())
    }

    fn pod_addresses(&self, number: u8) -> [IpAddr; 2] {
        let v6 = Ipv6Addr::new(0xfd00, 0x10, 0x244, self.index.into(), 0, 0, 0, number.into());
        [Ipv4Addr::new(10, 244, self.index, number).into(), v6.into()]
    }

    /// The next number that no pod has. An address is used again as late as possible, since clients may still know it.
    fn take(&self) -> Result<u8> {
        let mut taken = self.taken.lock().expect("no panic under the lock");
        let last = taken.last;
        let free = NUMBERS.filter(|n| *n > last).chain(NUMBERS).find(|n| !taken.numbers.contains(n));
        let number = free.with_context(|| format!("{} has no address left for another pod", self.name))?;
        taken.last = number;
        taken.numbers.insert(number);
        Ok(number)
    }
}

/// Where a pod's processes run.
#[derive(Debug)]
pub(super) struct Network {
    pub(super) ns: Arc<Namespace>,
    /// The first is the pod's IP.
    pub(super) addresses: Vec<IpAddr>,
    own: Option<Own>,
}

/// What must be given back.
#[derive(Debug)]
struct Own {
    node: Node,
    number: u8,
    link: String,
}

impl Network {
    /// Makes the network of a pod; of one with `hostNetwork` it is the node's. Takes some ten milliseconds, and blocks.
    pub(super) fn make(node: &Node, host_network: bool) -> Result<Self> {
        if host_network {
            return Ok(Self { ns: Arc::clone(&node.host.ns), addresses: node.addresses.clone(), own: None });
        }
        let number = node.take()?;
        let own = Own { node: node.clone(), number, link: format!("pod{}-{number}", node.index) };
        let addresses = node.pod_addresses(number);
        let bare = addresses.map(|address| address.to_string());
        // The host's own name is unique, and ends with the process id, as the pod's will.
        let host = node.host.name.trim_start_matches("sg-").rsplit_once('-').map_or("", |(label, _)| label);
        let pod = node.host.pod(&format!("{host}-{}", own.link), &own.link, &[&bare[0], &bare[1]])?;
        Ok(Self { ns: pod.ns, addresses: addresses.into(), own: Some(own) })
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        let Some(own) = &self.own else { return };
        // The kernel takes a namespace apart in its own time; the link's name must be free at once.
        let _ = own.node.host.ip(&["link", "del", &own.link]);
        own.node.taken.lock().expect("no panic under the lock").numbers.remove(&own.number);
    }
}
