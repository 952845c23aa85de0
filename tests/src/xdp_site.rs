//! One small site for the packet tables: two VIPs a family, a frontend of every kind, and the claims that a row makes.

use std::net::{IpAddr, SocketAddr};

use xdp_ebpf::verdict::Verdict;
use xdp_ebpf::{IPPROTO_TCP, IPPROTO_UDP, forwarding, frontend_flags, hash};

use crate::packet::{Packet, faults};
use crate::xdp_run::{MAC, PEER_MAC};
use crate::xdp_world::{PORT_MIN, SEED, World, addr};

pub const DROP: u32 = 1;
pub const PASS: u32 = 2;
pub const TX: u32 = 3;
pub const REDIRECT: u32 = 4;

/// `"203.0.113.10:443"`.
#[track_caller]
pub fn at(text: &str) -> SocketAddr {
    text.parse().expect("an address with a port")
}

pub const CLIENT: &str = "198.51.100.7:40000";
pub const CLIENT6: &str = "[2001:db8::7]:40000";
/// Frontend 1: TCP, `nat`, backend 1.
pub const WEB: &str = "203.0.113.10:443";
pub const WEB_BACKEND: &str = "10.0.0.5:8443";
/// Frontend 2: UDP, `nat`, backend 2.
pub const DNS: &str = "203.0.113.10:53";
pub const DNS_BACKEND: &str = "10.0.0.6:5353";
/// Frontend 3: L7.
pub const PROXY: &str = "203.0.113.10:80";
/// Frontends 4 (TCP) and 5 (UDP): `local`, backends 4 and 5 in one pod.
pub const POD: &str = "203.0.113.10:25";
pub const POD_BACKEND: &str = "10.244.0.9:2525";
pub const POD_UDP: &str = "203.0.113.10:514";
pub const POD_UDP_BACKEND: &str = "10.244.0.9:5514";
/// Frontend 6: a pool without backends.
pub const EMPTY: &str = "203.0.113.10:99";
/// Frontends 7 and 8: TCP and UDP on an IPv6 VIP, `nat`, backends 7 and 8.
pub const WEB6: &str = "[2001:db8:1::10]:443";
pub const WEB6_BACKEND: &str = "[2001:db8:2::5]:8443";
pub const DNS6: &str = "[2001:db8:1::10]:53";
pub const DNS6_BACKEND: &str = "[2001:db8:2::6]:5353";
/// Frontend 9: another VIP whose pool has backend 1, too; both leave with the same SNAT address.
pub const TWIN: &str = "203.0.113.11:443";
/// Frontend 10: TCP to backend 10, behind the other device.
pub const FAR: &str = "203.0.113.10:90";
pub const FAR_BACKEND: &str = "172.16.0.5:9090";
/// Frontend 11: TCP to backend 11, whose neighbour is not resolved.
pub const MUTE: &str = "203.0.113.10:91";
pub const MUTE_BACKEND: &str = "192.0.2.77:9191";
/// Frontend 12: TCP to backends 21 to 28, by the client's address alone.
pub const STICKY: &str = "203.0.113.10:8080";
/// Frontend 13: TCP, `local`, backend 13 in the same pod as backend 4, on an IPv6 VIP.
pub const POD6: &str = "[2001:db8:1::10]:25";
pub const POD6_BACKEND: &str = "[2001:db8:2::9]:2525";
/// Frontend 14: TCP, `local`, backend 4 on the other VIP.
pub const POD_TWIN: &str = "203.0.113.11:25";
/// Frontends 15 and 16: TCP to backends 1 and 7, for clients in `198.51.100.0/24` and `2001:db8::/64`.
pub const GUARDED: &str = "203.0.113.11:8443";
pub const GUARDED6: &str = "[2001:db8:1::10]:8443";

/// The site with `buckets` flow buckets.
#[track_caller]
pub fn site(label: &str, buckets: u32) -> World {
    build(label, buckets).unwrap_or_else(|e| panic!("{e:#}"))
}

fn build(label: &str, buckets: u32) -> anyhow::Result<World> {
    let mut w = World::new(label, buckets)?;
    let twin_snat = at(WEB).ip();
    for (id, proto, vip, flags, backend, mode) in [
        (1, IPPROTO_TCP, WEB, 0, WEB_BACKEND, forwarding::NAT),
        (2, IPPROTO_UDP, DNS, 0, DNS_BACKEND, forwarding::NAT),
        (3, IPPROTO_TCP, PROXY, frontend_flags::L7, "", 0),
        (4, IPPROTO_TCP, POD, 0, POD_BACKEND, forwarding::LOCAL),
        (5, IPPROTO_UDP, POD_UDP, 0, POD_UDP_BACKEND, forwarding::LOCAL),
        (6, IPPROTO_TCP, EMPTY, 0, "", 0),
        (7, IPPROTO_TCP, WEB6, 0, WEB6_BACKEND, forwarding::NAT),
        (8, IPPROTO_UDP, DNS6, 0, DNS6_BACKEND, forwarding::NAT),
        (9, IPPROTO_TCP, TWIN, 0, "", 0),
        (10, IPPROTO_TCP, FAR, 0, FAR_BACKEND, forwarding::NAT),
        (11, IPPROTO_TCP, MUTE, 0, MUTE_BACKEND, forwarding::NAT),
        (12, IPPROTO_TCP, STICKY, frontend_flags::CLIENT_IP_AFFINITY, "", 0),
        (13, IPPROTO_TCP, POD6, 0, POD6_BACKEND, forwarding::LOCAL),
        (14, IPPROTO_TCP, POD_TWIN, 0, "", 0),
        (15, IPPROTO_TCP, GUARDED, frontend_flags::SOURCES, "", 0),
        (16, IPPROTO_TCP, GUARDED6, frontend_flags::SOURCES, "", 0),
    ] {
        let vip = at(vip);
        w.frontend(id, proto, vip, flags, if id == 9 { twin_snat } else { vip.ip() })?;
        if !backend.is_empty() {
            w.backend(id, at(backend), mode);
            w.pool(id, &[id; 7]);
            if mode == forwarding::LOCAL {
                w.ours(at(backend).ip());
            }
        }
    }
    w.pool(9, &[1; 7]);
    w.pool(14, &[4; 7]);
    w.pool(15, &[1; 7]);
    w.pool(16, &[7; 7]);
    w.source(15, "198.51.100.0/24")?;
    w.source(16, "2001:db8::/64")?;
    for i in 21..29 {
        w.backend(i, SocketAddr::new(IpAddr::from([10, 0, 1, i as u8]), 80), forwarding::NAT);
    }
    w.pool(12, &std::array::from_fn::<u32, 251, _>(|i| 21 + i as u32 % 8));
    Ok(w)
}

/// The hash of a client's packet.
pub fn hash_of(proto: u8, client: SocketAddr, vip: SocketAddr) -> u64 {
    let (src, dst) = (addr(client.ip()), addr(vip.ip()));
    hash::tuple(SEED, &src, &dst, client.port().to_be_bytes(), vip.port().to_be_bytes(), proto)
}

/// What the backend sees as source: candidate `i` for the port.
pub fn source(proto: u8, client: &str, vip: &str, i: u32) -> SocketAddr {
    let (client, vip) = (at(client), at(vip));
    SocketAddr::new(vip.ip(), hash::port(hash_of(proto, client, vip), i, u32::from(PORT_MIN), 10_000))
}

/// The packet as it leaves by the ingress device: its next hop's MAC, no VLAN tags, TTL 63.
pub fn sent(mut packet: Packet) -> Vec<u8> {
    packet.macs = (PEER_MAC, MAC);
    packet.vlans.clear();
    packet.ttl(63).bytes()
}

impl World {
    /// Runs a packet in and compares everything that the row says.
    #[track_caller]
    pub fn check(&self, name: &str, input: &[u8], action: u32, output: &[u8], rose: &[Verdict]) {
        let (run, counted) = self.ingress(input).unwrap_or_else(|e| panic!("{name}: {e:#}"));
        assert_eq!(counted, rose, "{name}: the counters that rose");
        assert_eq!(run.action, action, "{name}: the action");
        assert!(run.packet == output, "{name}: the packet\n is {:02x?}\nnot {output:02x?}", run.packet);
        if run.packet != input {
            assert_eq!(faults(&run.packet), Vec::<String>::new(), "{name}: what a receiver would refuse");
        }
    }

    /// A packet that stays as it is and goes up to the kernel for this reason.
    #[track_caller]
    pub fn passes(&self, name: &str, input: &[u8], why: Verdict) {
        self.check(name, input, PASS, input, &[why]);
    }

    /// The same at TC egress, where every packet goes on.
    #[track_caller]
    pub fn check_egress(&self, name: &str, input: &[u8], output: &[u8], rose: &[Verdict]) {
        let (run, counted) = self.egress(input).unwrap_or_else(|e| panic!("{name}: {e:#}"));
        assert_eq!(counted, rose, "{name}: the counters that rose");
        assert_eq!(run.action, u32::MAX, "{name}: TC_ACT_UNSPEC");
        assert!(run.packet == output, "{name}: the packet\n is {:02x?}\nnot {output:02x?}", run.packet);
        assert_eq!(faults(&run.packet), Vec::<String>::new(), "{name}: what a receiver would refuse");
    }
}
