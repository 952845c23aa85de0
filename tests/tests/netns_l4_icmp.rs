//! ICMP errors made by real kernels find the flow that they are about: a refused port reaches the client, a packet that is too
//! big teaches the backend.

use std::io::ErrorKind;

use ingress_agent::model::snapshot::{Backend, Protocol::Tcp, Protocol::Udp};
use ingress_tests::l4::{Snapshots, nat, verdicts};
use ingress_tests::l4_lan::{CLIENT, L4Lan};

const VIP4: &str = "203.0.113.10:80";
const VIP6: &str = "[2001:db8::10]:80";

#[test]
fn a_refused_port_is_refused_to_the_client() {
    let lan = L4Lan::new("icrefuse").expect("make the LAN");
    let mut dataplane = lan.open();
    let mut world = Snapshots::default();
    // Nobody listens on 9999.
    let cases: [(&str, &str, Backend); 2] =
        [("nat", VIP4, nat("10.0.0.11:9999")), ("nat6", VIP6, nat("[fd00::11]:9999"))];
    for (name, vip, backend) in &cases {
        world.set(name, Udp, vip, std::slice::from_ref(backend));
    }
    dataplane.apply(&world.build()).expect("apply");
    for (name, vip, _) in &cases {
        let mut asker = lan.ask(Udp, 0, vip).expect("connect");
        let error = asker.ask().expect_err("nobody listens");
        let kind = error.downcast_ref::<std::io::Error>().map(std::io::Error::kind);
        assert_eq!(kind, Some(ErrorKind::ConnectionRefused), "{name} {vip}: {error:#}; {:?}", verdicts(&dataplane));
    }
}

/// The path to the client is narrower than what backends send: the edge says so with the VIP as source, and TCP goes on.
#[test]
fn a_narrow_path_to_the_client_is_learnt_by_the_backend() {
    let lan = L4Lan::new("icmtu").expect("make the LAN");
    let mut dataplane = lan.open();
    let mut world = Snapshots::default();
    for (vip, v6) in [(VIP4, false), (VIP6, true)] {
        world.set(if v6 { "six" } else { "four" }, Tcp, vip, &[nat(&L4Lan::endpoint(1, v6))]);
    }
    dataplane.apply(&world.build()).expect("apply");
    for (client, family) in CLIENT.into_iter().zip(["-4", "-6"]) {
        lan.edge.ip(&[family, "route", "add", client, "dev", "eth0", "mtu", "lock", "1300"]).expect("narrow the route");
    }
    for vip in [VIP4, VIP6] {
        let mut asker = lan.ask(Tcp, 0, vip).unwrap_or_else(|e| panic!("{vip}: {e:#}; {:?}", verdicts(&dataplane)));
        asker.download(300_000).unwrap_or_else(|e| panic!("{vip}: {e:#}; {:?}", verdicts(&dataplane)));
    }
    let verdicts = verdicts(&dataplane);
    assert!(verdicts.get("packet_too_big").is_some_and(|n| *n >= 2), "{verdicts:?}");
}
