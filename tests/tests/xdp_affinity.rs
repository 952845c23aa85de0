//! `sessionAffinity: ClientIP` with its time, in the real program: who keeps an endpoint, for how long, and when it is left at once.

use std::net::SocketAddr;

use ingress_tests::packet::{ACK, Packet, SYN, tcp};
use ingress_tests::xdp_site::*;
use ingress_tests::xdp_world::{World, addr};
use xdp_ebpf::affinity::{Affinity, AffinityKey};
use xdp_ebpf::verdict::Verdict::{self, FlowMiss};
use xdp_ebpf::{Frontend, FrontendKey, IPPROTO_TCP, backend_state, frontend_flags, map};

/// The counters that rise when this packet comes in.
#[track_caller]
fn rose(w: &World, packet: &Packet) -> Vec<Verdict> {
    w.ingress(&packet.bytes()).expect("a run").1
}

/// What kube-proxy does under `sessionAffinity: ClientIP`: from the last new flow on, for the frontend's time, whatever becomes of the table.
#[test]
fn a_client_keeps_its_endpoint_for_its_time() {
    let mut w = site("keeps", 1024);
    let vip = at(STICKY);
    let key = FrontendKey { addr: addr(vip.ip()), port: vip.port().to_be_bytes(), proto: IPPROTO_TCP, pad: 0 };
    let flags = frontend_flags::CLIENT_IP_AFFINITY;
    w.rig
        .set(map::FRONTENDS, &key, &Frontend { id: 12, pool: 12, flags, affinity: 60, snat: addr(vip.ip()) })
        .expect("set");
    let from = |host: u8, port: u16| SocketAddr::from(([198, 51, 100, host], port));
    // The backend that a client's new flow of this port gets.
    let opens = |w: &World, host: u8, port: u16| -> u32 {
        rose(w, &tcp(from(host, port), vip, SYN));
        let seen = w.seen();
        let record = seen.iter().find(|s| s.flow.client[15] == host && s.flow.client_port == port.to_be_bytes());
        record.map_or(0, |s| s.flow.backend)
    };
    let before: Vec<u32> = (1..=40).map(|host| opens(&w, host, 1000)).collect();
    // A table without the half of them, all of whom are still there: nobody moves. Hash alone would move half of the clients.
    w.pool(12, &std::array::from_fn::<u32, 251, _>(|i| 21 + i as u32 % 4));
    assert_eq!((1..=40).map(|host| opens(&w, host, 1001)).collect::<Vec<_>>(), before);
    // Who was away for longer is spread anew, over the new table; each flow by itself, and then it stays.
    let key = |host: u8| AffinityKey { frontend: 12, client: addr(from(host, 0).ip()) };
    let now = w.rig.value::<_, Affinity>(map::AFFINITY, &key(40)).expect("the last client's entry").used;
    let entry = |w: &World, host: u8, used: u32, backend: u32| {
        let epoch = w.backends[backend as usize].epoch;
        w.rig.set(map::AFFINITY, &key(host), &Affinity { backend, epoch, pool: 12, used }).expect("write an entry");
    };
    for host in 1..=40 {
        entry(&w, host, now.wrapping_sub(62), before[usize::from(host) - 1]);
    }
    let after: Vec<u32> = (1..=40).map(|host| opens(&w, host, 1002)).collect();
    assert!(after.iter().all(|b| (21..25).contains(b)), "by the new table: {after:?}");
    assert_eq!((1..=40).map(|host| opens(&w, host, 1003)).collect::<Vec<_>>(), after);
    // Just within its time it stays with one that is no longer in the table.
    entry(&w, 1, now.wrapping_sub(50), 28);
    assert_eq!(opens(&w, 1, 1004), 28);
    // An endpoint that drains, is gone, or is another one by now is left at once.
    w.backends[28].state = backend_state::DRAINING;
    let moved = opens(&w, 1, 1005);
    assert!((21..25).contains(&moved), "{moved}");
    w.backends[moved as usize].epoch += 1;
    let kept = opens(&w, 1, 1006);
    assert!((21..25).contains(&kept), "{kept}");
    w.backends[kept as usize].state = backend_state::GONE;
    w.pool(12, &[27; 7]);
    assert_eq!(opens(&w, 1, 1007), 27);
    // A packet without a record goes where the client's flows go, and that is no new flow.
    w.pool(12, &[26; 7]);
    let ack = tcp(from(1, 2000), vip, ACK);
    assert!(rose(&w, &ack).contains(&FlowMiss));
    let record = w.seen().into_iter().find(|s| s.flow.client_port == 2000u16.to_be_bytes()).expect("a record");
    assert_eq!(record.flow.backend, 27);
}
