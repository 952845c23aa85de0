//! Which VIPs another node may hold, and as which virtual router: then the programs keep ARP requests and neighbour solicitations from
//! the kernel while it does (`xdp_ebpf::rules`, *who answers for a VIP*). They must see what is sent to groups: adverts, and
//! solicitations, for which the filter gets a bit for each group.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use anyhow::Result;
use xdp_ebpf::{Addr, router};

use super::Image;
use crate::dataplane::filter::Bit;
use crate::dataplane::pool::{addr, ip};
use crate::model::election::RouterKey;

/// RFC 9568 §5.1.1.2 and §5.1.2.2: where adverts go unless their receivers are named.
const GROUPS: [IpAddr; 2] =
    [IpAddr::V4(Ipv4Addr::new(224, 0, 0, 18)), IpAddr::V6(Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 0x12))];

#[derive(Debug, Default)]
pub(super) struct Guard {
    /// Index into `ROUTERS` by VIP.
    routers: BTreeMap<Addr, u32>,
    /// Addresses of this node to which peers send adverts.
    listening: BTreeSet<IpAddr>,
    /// Addresses that are watched for all that.
    watched: BTreeSet<Addr>,
}

impl Guard {
    pub(super) fn router_of(&self, address: &Addr) -> u32 {
        self.routers.get(address).copied().unwrap_or(0)
    }

    fn wanted(&self) -> BTreeSet<Addr> {
        if self.routers.is_empty() {
            return BTreeSet::new();
        }
        let solicited = self.routers.keys().filter_map(|vip| solicited_node(ip(vip)));
        let all = GROUPS.into_iter().chain(self.listening.iter().copied()).chain(solicited);
        all.map(addr).collect()
    }
}

impl Image {
    /// From now on these VIPs, and no others, belong to these virtual routers. Adverts to `listening` are seen as well.
    pub(in crate::dataplane) fn put_routers(
        &mut self,
        routers: &BTreeMap<IpAddr, RouterKey>,
        listening: &BTreeSet<IpAddr>,
    ) -> Result<()> {
        let new = routers.iter().map(|(vip, key)| (addr(*vip), router(key.vrid, key.v6))).collect();
        let old = std::mem::replace(&mut self.guard.routers, new);
        self.guard.listening.clone_from(listening);
        // What is sent to the groups is seen before an address depends on it.
        self.watch_groups();
        let touched: BTreeSet<Addr> = old.keys().chain(self.guard.routers.keys()).copied().collect();
        for address in touched {
            if old.get(&address).copied().unwrap_or(0) != self.guard.router_of(&address) {
                self.rewrite_address(&address)?;
            }
        }
        Ok(())
    }

    /// An address that an earlier agent left in `VIPS` with a router: it stays so until this agent says otherwise.
    pub(super) fn adopt_router(&mut self, address: Addr, router: u32) {
        if router != 0 {
            self.guard.routers.insert(address, router);
            self.watch_groups();
        }
    }

    fn watch_groups(&mut self) {
        let wanted = self.guard.wanted();
        let before = std::mem::replace(&mut self.guard.watched, wanted.clone());
        for address in wanted.difference(&before) {
            self.watch(Bit::of_address(address));
        }
        for address in before.difference(&wanted) {
            self.unwatch(Bit::of_address(address));
        }
    }
}

/// RFC 4291 §2.7.1: the group that is asked for an IPv6 address.
fn solicited_node(address: IpAddr) -> Option<IpAddr> {
    let IpAddr::V6(v6) = address else { return None };
    let [.., a, b, c] = v6.octets();
    let low = [u16::from_be_bytes([0xff, a]), u16::from_be_bytes([b, c])];
    Some(Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, low[0], low[1]).into())
}
