//! Endpoints on the edge itself: XDP rewrites the destination, the kernel delivers, TC egress rewrites the answer's source. The
//! client's address stays.

use ingress_agent::model::snapshot::{Protocol::Tcp, Protocol::Udp};
use ingress_tests::l4::{Snapshots, local};
use ingress_tests::l4_lan::L4Lan;

const VIP4: &str = "203.0.113.10:80";
const VIP6: &str = "[2001:db8::10]:80";

#[test]
fn local_keeps_the_clients_address() {
    let mut lan = L4Lan::new("fwlocal").expect("make the LAN");
    let _pod = lan.pod().expect("make a pod");
    let mut dataplane = lan.open();
    let mut world = Snapshots::default();
    for (name, vip, pod) in [("four", VIP4, "10.9.0.2:8080"), ("six", VIP6, "[fd09::2]:8080")] {
        for protocol in [Tcp, Udp] {
            world.set(name, protocol, vip, &[local(pod)]);
        }
    }
    assert_eq!(dataplane.apply(&world.build()).expect("apply").problems, [""; 0]);
    for vip in [VIP4, VIP6] {
        for protocol in [Tcp, Udp] {
            let mut asker = lan.ask(protocol, 0, vip).unwrap_or_else(|e| panic!("{protocol} {vip}: {e:#}"));
            let own = asker.local().expect("a local address");
            for _ in 0..3 {
                let answer = asker.ask().unwrap_or_else(|e| panic!("{protocol} {vip}: {e:#}"));
                assert_eq!((answer.name.as_str(), answer.seen), ("pod", own));
            }
            let told = dataplane.explain(protocol, own, vip.parse().expect("an address")).expect("explain");
            assert!(told.from_flow, "{told:#?}");
            assert_eq!(told.source, Some((own.ip(), own.port())));
        }
    }
    let traffic = dataplane.read().expect("read");
    let count = |label| traffic.verdicts.iter().find(|(l, ..)| *l == label).expect("a verdict").2;
    assert!(count("forward_local") > 0 && count("reply_local") > 0, "{:?}", traffic.verdicts);
}
